# in: plan, signals of the fitting rounds or scores; out: results/audits/{audit}/thresholds/{attack}.json, decisions.parquet


rule threshold:
    """Set for each target the rule that keeps the false-positive rate alpha."""
    input:
        unpack(fitted_on),
        plan="results/audits/{audit}/plan.parquet",
    output:
        "results/audits/{audit}/thresholds/{attack}.json",
    log:
        "logs/threshold/{audit}/{attack}.log",
    benchmark:
        "logs/benchmarks/threshold/{audit}/{attack}.tsv"
    threads: 1
    params:
        attack=lambda w: PLAN.audits[w.audit].attack_json(w.attack),
        fitted_on=lambda w, input: (
            f"--scores {input.scores}"
            if "scores" in input.keys()
            else f"--signals {input.signals}"
        ),
        code=provenance.code_digest("memleak.metrics.stage"),
    shell:
        "{PYTHON} -m memleak threshold --plan {input.plan} {params.fitted_on} --attack {params.attack:q}"
        " --output {output} &> {log}"


rule decide:
    """Apply the rules to models that nothing was fitted on."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        signals=decided_on,
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
