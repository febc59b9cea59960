# in: a shard of models, or the user's model; out: results/signals/{recipe}/{query}/{shard}.parquet and results/signals/given/{given}/{query}.parquet,
# what they say about the audited samples


rule query:
    """Ask a shard's models about the audited samples."""
    input:
        models="results/models/{recipe}/{shard}.safetensors",
        data=lambda w: data_of(w.recipe),
        checkpoint=lambda w: PLAN.recipes[w.recipe].files(),
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


rule query_given:
    """Ask the user's model about the audited samples."""
    input:
        lambda w: PLAN.given[w.given].files(),
        data=lambda w: PLAN.given[w.given].data_path(),
    output:
        "results/signals/given/{given}/{query}.parquet",
    log:
        "logs/query_given/{given}/{query}.log",
    benchmark:
        "logs/benchmarks/query_given/{given}/{query}.tsv"
    threads: 1
    resources:
        gpu=N_GPUS_PER_JOB,
    params:
        model=lambda w: PLAN.given[w.given].canonical_json(),
        query=lambda w: PLAN.queries[w.query].canonical_json(),
    shell:
        "{PYTHON} -m memleak query-given --data {input.data} --model {params.model:q} --query {params.query:q}"
        " --device {DEVICE} --output {output} &> {log}"
