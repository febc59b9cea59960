"""The time that every job of an audit took, from what Snakemake measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from memleak import artefacts

SHARED = ("fetch", "train", "query")  # stages whose files belong to data sets and recipes, not to one audit


def timings(benchmarks: Path, recipe: str, audit: str, output: Path) -> int:
    """Write stage, job, seconds, cpu_seconds and largest memory of each job, in the order of the stages."""
    rows = []
    for path in sorted(benchmarks.glob("**/*.tsv")):
        stage, *job = path.relative_to(benchmarks).with_suffix("").parts
        if (stage not in SHARED and job[0] != audit) or (stage in ("train", "query") and job[0] != recipe):
            continue
        measured = pd.read_csv(path, sep="\t").iloc[-1]
        rows.append((stage, "/".join(job), measured["s"], measured["cpu_time"], measured["max_rss"]))
    table = pd.DataFrame(rows, columns=["stage", "job", "seconds", "cpu_seconds", "max_memory_mib"])
    with artefacts.atomic(output) as temporary:
        table.to_csv(temporary, index=False)
    return len(table)
