"""Labels only: which class, and nothing about how sure the model is.

Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks": it leaves attacks that ask often, or are content
with whether the label is right.
"""

from __future__ import annotations

import numpy as np

from memleak.params import Frozen


class Options(Frozen):
    """Nothing to choose."""

    @property
    def keeps_label(self) -> bool:
        return True

    def least(self, before: float, n_classes: int) -> float:
        """A millionth: any number below a half says the same; with this one attacks that form ratios of probabilities still can."""
        return 1e-6


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """1 for the largest probability (the first of equal ones), 0 for the others, [n, C]. Confidence and entropy are then the same of all."""
    return (np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]).astype(np.float64)
