"""Temperature: answers are flattened, or sharpened.

Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models", section VIII (increase the entropy of the
prediction vector). Whoever knows the temperature can undo it, so alone it hides nothing from an adaptive attacker; before
`round` or `noise` it moves what these hide.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy import special

from memleak.params import Frozen
from memleak.signals.releases import keep_label


class Options(Frozen):
    """How hot."""

    temperature: float = Field(gt=0, le=1000, description="above 1 flattens, below 1 sharpens, 1 changes nothing")

    @property
    def keeps_label(self) -> bool:
        return True

    def least(self, before: float, n_classes: int) -> float:
        """What `before` becomes at least, so that it stays below whatever was above it."""
        divisor = max(1.0, n_classes ** (1 - 1 / self.temperature))  # the largest sum of p^(1/T) that a row can have
        return max(before ** (1 / self.temperature) / divisor, float(np.finfo(np.float64).tiny))


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """p^(1/T), of each row divided by their sum, [n, C]: the softmax of its logits over T. 0 stays 0."""
    with np.errstate(divide="ignore"):
        return keep_label(special.softmax(np.log(probabilities) / options.temperature, axis=1), probabilities)
