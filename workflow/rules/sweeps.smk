# in: metrics, plans, scores and signals of all variants of an audit; out: results/audits/{sweep}/frontier.{json,csv,html,pdf}, {frontier,gap}.{svg,png}


rule frontier:
    """What each defence costs and what it protects, compared with none."""
    input:
        lambda w: PLAN.sweeps[w.sweep].inputs(),
    output:
        frontier="results/audits/{sweep}/frontier.json",
        table="results/audits/{sweep}/frontier.csv",
    log:
        "logs/frontier/{sweep}.log",
    benchmark:
        "logs/benchmarks/frontier/{sweep}.tsv"
    threads: 1
    params:
        sweep=lambda w: PLAN.sweeps[w.sweep].canonical_json(),
        code=provenance.code_digest("memleak.metrics.frontier"),
    shell:
        "{PYTHON} -m memleak frontier --sweep {params.sweep:q} --output {output.frontier} --table {output.table} &> {log}"


rule frontier_figure:
    """Draw one figure of a sweep."""
    input:
        "results/audits/{sweep}/frontier.json",
    output:
        svg=report(
            "results/audits/{sweep}/{panel}.svg",
            caption="../report/figure.rst",
            category="{sweep}",
            labels={"figure": "{panel}"},
        ),
        png="results/audits/{sweep}/{panel}.png",
    log:
        "logs/frontier_figure/{sweep}/{panel}.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak frontier-figure --name {wildcards.panel} --frontier {input} --svg {output.svg} --png {output.png} &> {log}"


rule frontier_page:
    """The page of a sweep, whole in one file."""
    input:
        frontier="results/audits/{sweep}/frontier.json",
        figures=panels_of,
    output:
        report(
            "results/audits/{sweep}/frontier.html",
            caption="../report/page.rst",
            category="{sweep}",
            labels={"figure": "the page"},
        ),
    log:
        "logs/frontier_page/{sweep}.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.stage"),
    shell:
        "{PYTHON} -m memleak frontier-page --frontier {input.frontier} --figures {input.figures} --output {output} &> {log}"


rule frontier_pdf:
    """The same page typeset, to print, sign and file."""
    input:
        "results/audits/{sweep}/frontier.html",
    output:
        report(
            "results/audits/{sweep}/frontier.pdf",
            caption="../report/page.rst",
            category="{sweep}",
            labels={"figure": "the page, to print"},
        ),
    log:
        "logs/frontier_pdf/{sweep}.log",
    threads: 1
    params:
        code=provenance.code_digest("memleak.report.pdf"),
    shell:
        "{PYTHON} -m memleak pdf {input} --output {output} &> {log}"
