"""Scoring from disk: memory is bounded by what is read, time grows in proportion to it. Run with -s to see what was measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import from_parquet

pytestmark = pytest.mark.long
N_SAMPLES, N_MODELS = 200_000, 16


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """An audit of so many models and samples, on disk."""

    def made(n_models: int, n_samples: int) -> from_parquet.Made:
        folder = tmp_path_factory.mktemp(f"models-{n_models}-samples-{n_samples}")
        return from_parquet.make(from_parquet.Made(str(folder), n_models, n_samples, 10_000, 16, 1))

    return made


@pytest.fixture(scope="module")
def by_samples(make):
    """The audits of a quarter, of half and of all samples."""
    return [make(N_MODELS, N_SAMPLES // part) for part in (4, 2, 1)]


@pytest.fixture(scope="module")
def by_models(make):
    """The audits of 32, 48 and 64 models: from 32 on every target has as many mock targets."""
    most = make(64, N_SAMPLES // 4)
    return [from_parquet.with_models(most, n_models) for n_models in (32, 48)] + [most]


def cpu_seconds(made: from_parquet.Made, attack: str) -> float:
    """The least CPU time of four calls of the stage `score` in this process."""
    found = []
    for _ in range(4):
        before = time.process_time()
        made.score_here(attack)
        found.append(time.process_time() - before)
    return min(found)


@pytest.mark.parametrize("attack", from_parquet.ATTACKS)
def test_time_grows_no_faster_than_samples_and_models(attack, by_samples, by_models):
    for what, audits in (("n_samples", by_samples), ("n_models", by_models)):
        sizes, seconds = [getattr(made, what) for made in audits], [cpu_seconds(made, attack) for made in audits]
        slope = from_parquet.slope(sizes, seconds)
        print(f"{attack:12s} {what:10s} CPU seconds {[round(x, 3) for x in seconds]}: slope {slope:.2f}")

        assert slope < 1.3


@pytest.mark.parametrize("attack", from_parquet.ATTACKS)
def test_memory_grows_with_the_signal_that_is_read_and_little_else(attack, by_samples):
    """Beyond the signal, a bounded number of values a sample: what models are scored at a time, not a column of scores for every model."""
    few, many = by_samples[0], by_samples[-1]
    more = many.n_samples - few.n_samples
    bytes_of_a_sample = 1e6 * (many.score(attack).memory_mb - few.score(attack).memory_mb) / more
    print(f"{attack:12s} bytes of memory a sample {bytes_of_a_sample:.0f}, of which {5 * N_MODELS} are its signal and its membership")

    assert bytes_of_a_sample < 5 * N_MODELS + 600
