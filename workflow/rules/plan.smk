# in: the prepared data; out: results/audits/{audit}/plan.parquet, who trains on what, one row a model,
# samples.parquet, all samples that models are asked about, and features.parquet, what is seen of them without a model


rule plan:
    """Draw an audit's membership, now that the data is there."""
    input:
        lambda w: PLAN.audits[w.audit].data_path(),
    output:
        plan="results/audits/{audit}/plan.parquet",
        samples="results/audits/{audit}/samples.parquet",
    log:
        "logs/plan/{audit}.log",
    benchmark:
        "logs/benchmarks/plan/{audit}.tsv"
    threads: 1
    params:
        audit=lambda w: PLAN.audits[w.audit].canonical_json(),
        code=provenance.code_digest("memleak.data.stage"),
    shell:
        "{PYTHON} -m memleak plan --data {input} --audit {params.audit:q} --output {output.plan} --samples {output.samples} &> {log}"


rule features:
    """What a classifier that never asks the model sees of the audited records."""
    input:
        data=lambda w: PLAN.audits[w.audit].data_path(),
        samples="results/audits/{audit}/samples.parquet",
    output:
        "results/audits/{audit}/features.parquet",
    log:
        "logs/features/{audit}.log",
    benchmark:
        "logs/benchmarks/features/{audit}.tsv"
    threads: 1
    params:
        code=provenance.code_digest("memleak.data.stage"),
    shell:
        "{PYTHON} -m memleak features --data {input.data} --samples {input.samples} --output {output} &> {log}"
