"""The time that every job of an audit took, from what Snakemake measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from memleak import artefacts

OF_MODELS = ("train", "query", "query_given")  # stages whose files belong to recipes and given models, not to one audit


def timings(benchmarks: Path, models: Sequence[str], audit: str, output: Path) -> int:
    """Write stage, job, seconds, cpu_seconds and largest memory of each job; `models` names the audit's recipe, and its given model."""
    rows = []
    for path in sorted(benchmarks.glob("**/*.tsv")):
        stage, *job = path.relative_to(benchmarks).with_suffix("").parts
        if stage != "fetch" and job[0] not in (models if stage in OF_MODELS else [audit]):
            continue
        measured = pd.read_csv(path, sep="\t").iloc[-1]
        rows.append((stage, "/".join(job), measured["s"], measured["cpu_time"], measured["max_rss"]))
    table = pd.DataFrame(rows, columns=["stage", "job", "seconds", "cpu_seconds", "max_memory_mib"])
    artefacts.write_csv(output, table)
    return len(table)
