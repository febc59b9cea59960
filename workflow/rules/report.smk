# in: metrics, ROC points, exposure, scores or signals; out: results/audits/{audit}/{timings.csv,report.html,report.pdf,report.txt}, figures/{figure}.{svg,png},
# results/index.html


rule figure:
    """Draw one figure, for the page and by itself."""
    input:
        plan="results/audits/{audit}/plan.parquet",
        signals=signals_of,
        thresholds=each_attack("results/audits/{audit}/thresholds/{attack}.json"),
        scores=each_attack("results/audits/{audit}/scores/{attack}.parquet"),
        metrics="results/metrics/{audit}.json",
        roc="results/audits/{audit}/roc.parquet",
        exposure="results/audits/{audit}/exposure.parquet",
        records=lambda w: (
            PLAN.audits[w.audit].data_path()
            if PLAN.audits[w.audit].audit.include_records
            else []
        ),
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
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak figure --name {wildcards.figure} --plan {input.plan} --signals {input.signals}"
        " --thresholds {input.thresholds} --scores {input.scores} --metrics {input.metrics} --roc {input.roc}"
        " --exposure {input.exposure} --records {input.records} --svg {output.svg} --png {output.png} &> {log}"


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
        models=lambda w: PLAN.audits[w.audit].names_of_models(),
    shell:
        "{PYTHON} -m memleak timings --benchmarks logs/benchmarks --models {params.models} --audit {wildcards.audit}"
        " --output {output} &> {log}"


rule report_page:
    """The page of an audit, whole in one file."""
    input:
        metrics="results/metrics/{audit}.json",
        plan="results/audits/{audit}/plan.parquet",
        decisions="results/audits/{audit}/decisions.parquet",
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
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak report --metrics {input.metrics} --plan {input.plan} --decisions {input.decisions}"
        " --timings {input.timings} --figures {input.figures} --params {params.params:q} --output {output} &> {log}"


rule report_pdf:
    """The same page typeset, to print, sign and file."""
    input:
        "results/audits/{audit}/report.html",
    output:
        report(
            "results/audits/{audit}/report.pdf",
            caption="../report/page.rst",
            category="{audit}",
            labels={"figure": "the page, to print"},
        ),
    log:
        "logs/report_pdf/{audit}.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.pdf"),
    shell:
        "{PYTHON} -m memleak pdf {input} --output {output} &> {log}"


rule summary:
    """The same on one page of plain text; of models, not of single records."""
    input:
        "results/metrics/{audit}.json",
    output:
        "results/audits/{audit}/report.txt",
    log:
        "logs/summary/{audit}.log",
    threads: 1
    params:
        params=lambda w: PLAN.audits[w.audit].page_json(),
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak summary --metrics {input} --params {params.params:q} --output {output} &> {log}"


rule index:
    """The page over all audits."""
    input:
        metrics=expand("results/metrics/{audit}.json", audit=PLAN.audits),
        pages=expand("results/audits/{audit}/report.html", audit=PLAN.audits),
        pdfs=expand("results/audits/{audit}/report.pdf", audit=PLAN.audits),
        sweeps=expand("results/audits/{sweep}/frontier.json", sweep=PLAN.sweeps),
        sweep_pages=expand("results/audits/{sweep}/frontier.html", sweep=PLAN.sweeps),
        sweep_pdfs=expand("results/audits/{sweep}/frontier.pdf", sweep=PLAN.sweeps),
        texts=[
            f"results/audits/{audit}/report.txt"
            for audit, planned in PLAN.audits.items()
            if not planned.is_pairs
        ],
    output:
        report(
            "results/index.html",
            caption="../report/index.rst",
            category="all audits",
            labels={"figure": "the page over all audits"},
        ),
    log:
        "logs/index.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak index --metrics {input.metrics} --sweeps {input.sweeps} --output {output} &> {log}"
