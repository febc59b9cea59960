"""Training: one model after another (`loop`), kept outside the workflow's outputs (`store`), by shard (`stage`)."""
