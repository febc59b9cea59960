# in: plan and signals; out: results/audits/{audit}/scores/{attack}.parquet, higher means more likely a member


rule score:
    """What an attack concludes about every audited model."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        samples="results/audits/{audit}/samples.parquet",
        signals=asked_by,
        population=population_of,
    output:
        "results/audits/{audit}/scores/{attack}.parquet",
    log:
        "logs/score/{audit}/{attack}.log",
    benchmark:
        "logs/benchmarks/score/{audit}/{attack}.tsv"
    threads: 1
    params:
        attack=lambda w: PLAN.audits[w.audit].attack_json(w.attack),
        code=lambda w: attack_code(PLAN.audits[w.audit].audit.attacks[w.attack]["name"]),
    shell:
        "{PYTHON} -m memleak score --plan {input.plan} --samples {input.samples} --signals {input.signals} --population {input.population} --attack {params.attack:q}"
        " --output {output} &> {log}"
