"""Steps of a release: what is done to a model's probabilities before anybody sees them, one module a step.

A step is a function `mask(probabilities, options) -> probabilities`, [n, C] float64 with rows that sum to 1, and
`Options` beside it. A row's answer depends on that row alone. Two promises may stand in the Options:

- `keeps_label` (True): the class of a row, the first of its largest probabilities, stays the same;
- `least(before, n_classes)`: what a probability of 0 counts as after the step, where it counted as `before` until then.
  Signals take logarithms, and attackers who know the step know about how much a 0 stands for. Whatever is smaller counts
  as so much too, so that a larger probability never counts for less. A step that says nothing leaves it as it was.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from memleak import randomness

NUDGE = 1e-9  # relative: by so much a label is above others that would tie with it, which their logarithms still tell apart
_HALF = 0.5 / 2**24  # of the step between two uniform numbers, so that neither 0 nor 1 is drawn


def keep_label(changed: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Changed rows [n, C] in which another class came first have their old label a billionth above the largest; the others stay."""
    label = probabilities.argmax(axis=1)
    lost = np.flatnonzero(changed.argmax(axis=1) != label)
    kept = changed.copy()
    kept[lost, label[lost]] = changed[lost].max(axis=1) * (1 + NUDGE)
    kept[lost] /= kept[lost].sum(axis=1, keepdims=True)
    return kept


def row_bits(probabilities: np.ndarray, seed: int, *stream: str) -> list[np.ndarray]:
    """Two random integers [n] that belong to each row's content in float32, whatever rows are beside it: counters for draws of its own."""
    content = np.ascontiguousarray(probabilities, dtype=np.float32).view(np.int32).astype(np.int64)  # [n, C]
    columns = [content[:, column] for column in range(content.shape[1])]
    return [randomness.counter_bits(randomness.derive(seed, "release", *stream, half), *columns) for half in (0, 1)]


def uniform(probabilities: np.ndarray, seed: int, *stream: str) -> np.ndarray:
    """A uniform number in (0, 1) of each row, [n]."""
    bits = row_bits(probabilities, seed, *stream)
    return randomness.counter_uniform(randomness.derive(seed, "release", *stream, "uniform"), *bits) + _HALF


def normal(probabilities: np.ndarray, seed: int, *stream: str) -> np.ndarray:
    """A standard normal number of each row and class, [n, C]; none is beyond 5.5."""
    bits = [half[:, None] for half in row_bits(probabilities, seed, *stream)]
    classes = np.arange(probabilities.shape[1], dtype=np.int64)[None]
    return special.ndtri(randomness.counter_uniform(randomness.derive(seed, "release", *stream, "normal"), *bits, classes) + _HALF)
