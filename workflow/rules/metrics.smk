# in: plan, samples, signals, thresholds, scores, decisions; out: results/metrics/{audit}.json, results/plots/{audit}.csv,
# results/audits/{audit}/{exposure,roc}.parquet, exposed.csv


rule measure:
    """Rates with intervals, paired tests, exposure, controls."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        samples="results/audits/{audit}/samples.parquet",
        signals=signals_of,
        thresholds=each_attack("results/audits/{audit}/thresholds/{attack}.json"),
        scores=each_attack("results/audits/{audit}/scores/{attack}.parquet"),
        decisions="results/audits/{audit}/decisions.parquet",
        features=features_of,
    output:
        metrics="results/metrics/{audit}.json",
        exposure="results/audits/{audit}/exposure.parquet",
        roc="results/audits/{audit}/roc.parquet",
        plots="results/plots/{audit}.csv",
        exposed="results/audits/{audit}/exposed.csv",
    log:
        "logs/measure/{audit}.log",
    benchmark:
        "logs/benchmarks/measure/{audit}.tsv"
    threads: 1
    params:
        headline=lambda w: PLAN.audits[w.audit].headline_json(PLAN.params.allow_mixed),
        code=provenance.code_digest("memleak.metrics.stage"),
    shell:
        "{PYTHON} -m memleak measure --plan {input.plan} --samples {input.samples} --signals {input.signals}"
        " --thresholds {input.thresholds} --scores {input.scores} --decisions {input.decisions} --headline {params.headline:q} --metrics {output.metrics}"
        " --features {input.features} --exposure {output.exposure} --roc {output.roc} --plots {output.plots} --exposed {output.exposed} &> {log}"
