# in: plan, signals of the fitting rounds; out: results/audits/{audit}/thresholds/{attack}.json, decisions.parquet


rule threshold:
    """Fit IN and OUT, and set for each target the rule that keeps the false-positive rate alpha."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        signals=signals_of,
    output:
        "results/audits/{audit}/thresholds/{attack}.json",
    log:
        "logs/threshold/{audit}/{attack}.log",
    benchmark:
        "logs/benchmarks/threshold/{audit}/{attack}.tsv"
    threads: 1
    params:
        attack=lambda w: PLAN.audits[w.audit].attack_json(w.attack),
        code=provenance.code_digest("memleak.metrics.stage"),
    shell:
        "{PYTHON} -m memleak threshold --plan {input.plan} --signals {input.signals} --attack {params.attack:q}"
        " --output {output} &> {log}"


rule decide:
    """Apply the rules to the hold-out models, which were fitted by nobody."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        signals=signals_of,
        thresholds=each_attack("results/audits/{audit}/thresholds/{attack}.json"),
        scores=each_attack("results/audits/{audit}/scores/{attack}.parquet"),
    output:
        "results/audits/{audit}/decisions.parquet",
    log:
        "logs/decide/{audit}.log",
    benchmark:
        "logs/benchmarks/decide/{audit}.tsv"
    threads: 1
    params:
        code=provenance.code_digest("memleak.metrics.stage"),
    shell:
        "{PYTHON} -m memleak decide --plan {input.plan} --signals {input.signals} --thresholds {input.thresholds}"
        " --scores {input.scores} --output {output} &> {log}"
