# in: what `datasets` of params.yaml names; out: data/prepared/{dataset}/dataset.json and arrays beside it


rule fetch:
    """Load, check and describe a data set."""
    input:
        lambda w: PLAN.datasets[w.dataset].source_files(),
    output:
        "data/prepared/{dataset}/dataset.json",
    log:
        "logs/fetch/{dataset}.log",
    benchmark:
        "logs/benchmarks/fetch/{dataset}.tsv"
    threads: 1
    params:
        dataset=lambda w: provenance.canonical_json(
            PLAN.datasets[w.dataset].declaration()
        ),
    shell:
        "{PYTHON} -m memleak fetch --dataset {params.dataset:q} --output {output} &> {log}"
