"""Scoring from disk: memory is bounded by what is read, time grows in proportion to it. Run with -s to see what was measured."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memleak.attacks import stage

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import from_parquet

pytestmark = pytest.mark.long
N_SAMPLES, N_MODELS = 200_000, 16
ATTACKS = list(from_parquet.ATTACKS)


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """The largest audit, and by name the audits of a growing number of samples or of models."""

    def made(n_samples: int) -> from_parquet.Made:
        folder = tmp_path_factory.mktemp(f"n{n_samples}")
        return from_parquet.make(from_parquet.Made(str(folder), N_MODELS, n_samples, 10_000, 4, 1))

    by_n = [made(N_SAMPLES // part) for part in (4, 2, 1)]
    return {"samples": by_n, "models": [from_parquet.with_models(by_n[-1], m) for m in (8, 12)] + by_n[-1:]}  # equally many mock targets each


def cpu_seconds(made: from_parquet.Made, attack: str) -> float:
    """The least CPU time of four calls of the stage `score` in this process."""
    found = []
    for _ in range(4):
        before = time.process_time()
        made.score_here(attack)
        found.append(time.process_time() - before)
    return min(found)
