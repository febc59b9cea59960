"""The stage `score`: what an attack concludes about every audited model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts, plugins
from memleak.attacks import Evidence, pairs
from memleak.params import attack_options


def score(plan_path: Path, signal_paths: Sequence[Path], attack: dict[str, Any], output: Path) -> int:
    """Score the hold-out models of a `pairs` audit; the fitting rounds are the references. Returns the rows."""
    function = plugins.function_of("attacks", attack["name"])
    options = attack_options({"name": attack["name"], **attack["options"]})
    rows = []
    for arms in pairs.read(plan_path, signal_paths, artefacts.SIGNALS):
        fitting, holdout = arms.of_role("fit"), arms.of_role("holdout")
        reference = {name: np.concatenate([fitting.inside[name], fitting.outside[name]])[:, None] for name in artefacts.SIGNALS}  # [M, 1, Q]
        is_in = np.repeat([True, False], fitting.n_rounds)[:, None]  # [M, 1]
        for ids, signals in ((holdout.in_id, holdout.inside), (holdout.out_id, holdout.outside)):
            for i, model_id in enumerate(ids):
                target = {name: signals[name][i][None] for name in artefacts.SIGNALS}  # [1, Q]
                evidence = Evidence(target, reference, is_in, sample_id=np.array([arms.sample_id]))
                rows.append((model_id, arms.sample_id, float(function(evidence, options)[0])))
    table = pd.DataFrame(rows, columns=list(artefacts.SCORE_COLUMNS))
    artefacts.write_table(output, table.astype({"target_id": "string", "sample_id": "int64", "score": "float64"}), {"attack": attack})
    return len(table)
