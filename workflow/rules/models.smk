# in: the prepared data, and files of a checkpoint that is trained further; out: results/models/{recipe}/{shard}.safetensors, a few models in one file


rule train:
    """Train one shard of models; those that the store holds are adopted."""
    input:
        data=lambda w: data_of(w.recipe),
        checkpoint=lambda w: PLAN.recipes[w.recipe].files(),
    output:
        "results/models/{recipe}/{shard}.safetensors",
    log:
        "logs/train/{recipe}/{shard}.log",
    benchmark:
        "logs/benchmarks/train/{recipe}/{shard}.tsv"
    priority: 1  # long jobs first: the short queries then fill the cores that the last trainings leave idle
    threads: 1
    resources:
        gpu=N_GPUS_PER_JOB,
    params:
        recipe=lambda w: PLAN.recipes[w.recipe].canonical_json(),
        shard=lambda w: provenance.canonical_json(
            shard_json(PLAN.shards[w.recipe, w.shard])
        ),
    shell:
        "{PYTHON} -m memleak train --data {input.data} --recipe {params.recipe:q} --shard {params.shard:q}"
        " --device {DEVICE} --training {TRAINING:q} --output {output} &> {log}"
