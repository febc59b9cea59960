"""The stage `plan` of an audit of imported models: who trained on what stands in the file, nothing is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memleak import artefacts, imports


def plan(source: Path, audit: dict[str, Any], output: Path, samples_output: Path) -> int:
    """Write who trained on what, one row a model, and all samples that the models were asked about. Returns the number of models.

    With `targets` in the design only the first so many models are audited; the others are references.
    """
    table, samples, known = imports.plan_of(source)
    n_targets = audit["design"]["targets"]
    if n_targets is not None:
        table["is_target"] &= table["is_target"].cumsum() <= n_targets
    artefacts.write_table(output, table, audit | known)
    artefacts.write_table(samples_output, samples.sort_values(["is_population", "sample_id"]))
    return len(table)
