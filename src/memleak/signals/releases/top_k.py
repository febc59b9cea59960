"""Top k: only the k largest probabilities are released.

Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models", section VIII (restrict the prediction
vector to the top k classes).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from memleak.params import Frozen
from memleak.signals import SignalError


class Options(Frozen):
    """How many classes are told."""

    k: int = Field(ge=1, description="the largest probabilities that are released; fewer than there are classes")

    @property
    def keeps_label(self) -> bool:
        return True


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """The k largest as they are; the others share what is left evenly, [n, C].

    Whoever sees k probabilities knows that the others sum to the rest, and the even share says no more. The rest is
    exact, as of numbers without end: where an answer has so many digits, `round` after it says so. With k = C - 1
    nothing is hidden. Of equal probabilities the first classes are kept. No share is larger than the least that is kept.
    """
    n_classes = probabilities.shape[1]
    if options.k >= n_classes:
        raise SignalError(f"release top_k: k: {options.k} of {n_classes} classes withholds nothing; lower k, or leave the step out")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    kept, withheld = ordered[:, : options.k], ordered[:, options.k :]
    share = np.minimum(withheld.mean(axis=1, keepdims=True), kept[:, -1:])  # a mean of equal numbers may round above them
    share = np.where(withheld[:, :1] == withheld[:, -1:], withheld[:, :1], share)
    found = np.empty_like(probabilities)
    np.put_along_axis(found, order, np.concatenate([kept, np.broadcast_to(share, withheld.shape)], axis=1), axis=1)
    return found
