# in: the prepared data; out: results/audits/{audit}/plan.parquet, who trains on what, one row a model,
# and samples.parquet, all samples that models are asked about


rule plan:
    """Draw an audit's membership, now that the data is there."""
    input:
        lambda w: data_of(PLAN.audits[w.audit].recipe.name),
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
