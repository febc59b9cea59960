# in: metrics, ROC points, exposure, scores or signals; out: results/audits/{audit}/{timings.csv,report.html}, figures/{figure}.{svg,png}, results/index.html


def drawn_from(wildcards):
    """What an audit's figures read beside metrics and ROC: records only where they may be shown."""
    planned = PLAN.audits[wildcards.audit]
    if planned.is_pairs:
        thresholds = each_attack("results/audits/{audit}/thresholds/{attack}.json")
        return {"signals": planned.signals(), "thresholds": thresholds(wildcards)}
    scores = each_attack("results/audits/{audit}/scores/{attack}.parquet")
    shown = (
        {"data": data_of(planned.recipe.name)} if planned.audit.include_records else {}
    )
    exposure = f"results/audits/{wildcards.audit}/exposure.parquet"
    return {"scores": scores(wildcards), "exposure": exposure, **shown}


def told_from(wildcards):
    """What the page reads beside metrics and figures: the decisions of a pairs audit."""
    is_pairs = PLAN.audits[wildcards.audit].is_pairs
    path = f"results/audits/{wildcards.audit}/decisions.parquet"
    return {"decisions": path} if is_pairs else {}


def options_of(names):
    """`--name value` for each of the named inputs that a job has."""
    return lambda w, input: " ".join(
        f"--{name} {input[name]}" for name in names if name in input.keys()
    )


rule figure:
    """Draw one figure, for the page and by itself."""
    input:
        unpack(drawn_from),
        plan="results/audits/{audit}/plan.parquet",
        metrics="results/metrics/{audit}.json",
        roc="results/audits/{audit}/roc.parquet",
    output:
        svg=report(
            "results/audits/{audit}/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="{audit}",
            labels={"figure": "{figure}"},
        ),
        png="results/audits/{audit}/figures/{figure}.png",
    log:
        "logs/figure/{audit}/{figure}.log",
    benchmark:
        "logs/benchmarks/figure/{audit}/{figure}.tsv"
    threads: 1
    params:
        drawn_from=options_of(["signals", "thresholds", "scores", "exposure", "data"]),
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak figure --name {wildcards.figure} --plan {input.plan} {params.drawn_from}"
        " --metrics {input.metrics} --roc {input.roc} --svg {output.svg} --png {output.png} &> {log}"


rule timings:
    """The time that every job of an audit took, up to here."""
    input:
        "results/metrics/{audit}.json",
        figures_of,
    output:
        "results/audits/{audit}/timings.csv",
    log:
        "logs/timings/{audit}.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.timings"),
        recipe=lambda w: PLAN.audits[w.audit].recipe.name,
    shell:
        "{PYTHON} -m memleak timings --benchmarks logs/benchmarks --recipe {params.recipe} --audit {wildcards.audit}"
        " --output {output} &> {log}"


rule report_page:
    """The page of an audit, whole in one file."""
    input:
        unpack(told_from),
        metrics="results/metrics/{audit}.json",
        plan="results/audits/{audit}/plan.parquet",
        timings="results/audits/{audit}/timings.csv",
        figures=figures_of,
    output:
        report(
            "results/audits/{audit}/report.html",
            caption="../report/page.rst",
            category="{audit}",
            labels={"figure": "the page"},
        ),
    log:
        "logs/report/{audit}.log",
    threads: 1
    params:
        params=lambda w: PLAN.audits[w.audit].page_json(),
        told_from=options_of(["decisions"]),
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak report --metrics {input.metrics} --plan {input.plan} {params.told_from}"
        " --timings {input.timings} --figures {input.figures} --params {params.params:q} --output {output} &> {log}"


rule index:
    """The page over all audits."""
    input:
        metrics=expand("results/metrics/{audit}.json", audit=PLAN.audits),
        pages=expand("results/audits/{audit}/report.html", audit=PLAN.audits),
    output:
        "results/index.html",
    log:
        "logs/index.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak index --metrics {input.metrics} --output {output} &> {log}"
