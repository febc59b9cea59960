"""Poisson sampling: every record takes part in a step by a coin of its own, whoever else does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memleak import randomness

_DRAWN_AT_ONCE = 2**17  # coins: many small draws cost more


def is_drawn(key: int, epoch: int, steps: np.ndarray, sample_ids: np.ndarray, rate: float) -> np.ndarray:
    """Who takes part in some steps of an epoch, [steps, n] bool.

    A coin belongs to (training, epoch, step, sample), so a record more changes nothing for the others.
    """
    drawn = randomness.counter_bits(randomness.derive(key, "poisson", epoch), sample_ids[None, :], steps[:, None])
    return drawn < rate * 2**32


def poisson_batches(key: int, epoch: int, n_steps: int, sample_ids: np.ndarray, rate: float) -> list[np.ndarray]:
    """The samples of each step of an epoch, in their order; there may be none."""
    n_at_once = max(1, _DRAWN_AT_ONCE // max(1, len(sample_ids)))
    parts = [np.arange(first, min(first + n_at_once, n_steps)) for first in range(0, n_steps, n_at_once)]
    return [sample_ids[row] for part in parts for row in is_drawn(key, epoch, part, sample_ids, rate)]


def together(batches: Sequence[Sequence[np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of M models, step by step: sample ids [B, M], and how many of each model's count, [M].

    A model with fewer than B samples in a step has some of them once more below, and one with none those of another.
    """
    found = []
    for parts in zip(*batches, strict=True):
        counts = np.array([len(part) for part in parts])
        largest = parts[int(counts.argmax())]
        found.append((np.stack([np.resize(part if len(part) else largest, counts.max()) for part in parts], axis=1), counts))
    return found
