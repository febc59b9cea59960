# in: a shard of models; out: results/signals/{recipe}/{query}/{shard}.parquet, what they say about the audited samples


rule query:
    """Ask a shard's models about the audited samples."""
    input:
        models="results/models/{recipe}/{shard}.safetensors",
        data=lambda w: data_of(w.recipe),
    output:
        "results/signals/{recipe}/{query}/{shard}.parquet",
    log:
        "logs/query/{recipe}/{query}/{shard}.log",
    benchmark:
        "logs/benchmarks/query/{recipe}/{query}/{shard}.tsv"
    threads: 1
    resources:
        gpu=N_GPUS_PER_JOB,
    params:
        recipe=lambda w: PLAN.recipes[w.recipe].canonical_json(),
        shard=lambda w: provenance.canonical_json(
            shard_json(PLAN.shards[w.recipe, w.shard])
        ),
        query=lambda w: PLAN.queries[w.query].canonical_json(),
    shell:
        "{PYTHON} -m memleak query --models {input.models} --data {input.data} --recipe {params.recipe:q}"
        " --shard {params.shard:q} --query {params.query:q} --device {DEVICE} --output {output} &> {log}"
