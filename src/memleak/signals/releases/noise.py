"""Gaussian noise on what is released.

It is added to the probabilities, not to the logits: `scale` is then what a user loses, in the unit of the answer, and it
drowns the small probabilities, in whose logarithms membership shows most. Noise on logits would leave an overfitted
record's margin of 15 nats as far from a margin of 8 as it was.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from memleak.params import Frozen
from memleak.signals import releases


class Options(Frozen):
    """How much noise, and whether it may change the answer."""

    scale: float = Field(gt=0, le=10, description="standard deviation, as a probability")
    keep_label: bool = Field(default=True, description="the largest probability stays that of the same class")
    seed: int = Field(default=0, ge=0, description="of the draws, which attackers do not know")

    @property
    def keeps_label(self) -> bool:
        return self.keep_label

    def least(self, before: float, n_classes: int) -> float:
        """All zeros of a row together a tenth of the scale: what is below that is nothing but noise, and its logarithm would be of any size."""
        return 0.1 * min(self.scale, 1.0) / n_classes


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """Probabilities plus noise, what is negative cut to 0, divided by their sum, [n, C].

    The noise is a function of the row's content (in float32) and the seed: the same answer gets the same noise, so that
    asking again averages nothing away. An answer that differs in its last bits, as it may from a batch of another size,
    is another one: who serves answers should keep the batch size, as an audit does. A view of the record that gets
    another answer gets another draw: an attacker who averages over views does average noise away, and an audit with
    `views` measures how much. Where the noise would put another class first and `keep_label` holds, the two exchange
    their values. Where all is cut, the largest gets all.
    """
    noisy = probabilities + options.scale * releases.normal(probabilities, options.seed, "noise")
    if options.keep_label:
        noisy = _exchanged(noisy, probabilities.argmax(axis=1))
    kept = np.maximum(noisy, 0.0)
    is_cut = kept.sum(axis=1) < np.finfo(np.float64).tiny
    kept[is_cut, noisy[is_cut].argmax(axis=1)] = 1.0
    found = kept / kept.sum(axis=1, keepdims=True)
    return releases.keep_label(found, probabilities) if options.keep_label else found


def _exchanged(noisy: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Rows whose largest value belongs to the label: it and the one that was largest exchange their values."""
    rows, first, found = np.arange(len(noisy)), noisy.argmax(axis=1), noisy.copy()
    found[rows, first], found[rows, label] = noisy[rows, label], noisy[rows, first]
    return found
