"""Constrained noise that makes an answer look like that about a non-member, in the manner of MemGuard.

Jia et al. 2019, "MemGuard: Defending against Black-Box Membership Inference Attacks via Adversarial Examples". There a
trained membership classifier says how member-like an answer is; the noise of least L1 norm is searched for that keeps the
label and makes it say 1/2, and is added with a probability that holds the expected L1 distortion to a budget. Here is no
classifier: `mask` sees one answer and no member. What stands in for it is a threshold on confidence, the feature that
such classifiers use most, which says 1/2 where the largest probability is `confidence`. For that stand-in the noise of
least L1 norm is known in closed form and is taken; of all such noise, the one that leaves the most entropy. So the label
and the expected distortion are kept as in the paper; that a learnt classifier is fooled is not promised, and an adaptive
attacker, who trains on such answers, may read what the stand-in does not.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from memleak.params import Frozen
from memleak.signals import SignalError, releases


class Options(Frozen):
    """How much distortion, and where an answer looks like that about a non-member."""

    budget: float = Field(gt=0, le=2, description="expected L1 distance between the true and the released probabilities; 2 is the largest there is")
    confidence: float = Field(
        default=0.5, gt=0, lt=1, description="largest probability of an answer that looks like neither: best the median of records outside training"
    )
    seed: int = Field(default=0, ge=0, description="of the draws, which attackers do not know")

    @property
    def keeps_label(self) -> bool:
        return True


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """Rows surer than `confidence` are flattened to it with the probability min(1, budget / distortion), the others stay, [n, C].

    The draw belongs to the row's content and the seed (one-time randomness, as in the paper): asking again tells no more.
    """
    n_classes = probabilities.shape[1]
    if options.confidence * n_classes < 1:
        raise SignalError(
            f"release memguard: confidence: {options.confidence:g} is below 1 / {n_classes}, which is the least sure that an answer about {n_classes} "
            "classes can be; raise it"
        )
    flat = releases.keep_label(flattened(probabilities, options.confidence), probabilities)
    distortion = np.abs(flat - probabilities).sum(axis=1)
    is_flat = releases.uniform(probabilities, options.seed, "memguard") * distortion < options.budget
    is_flat &= probabilities.max(axis=1) > options.confidence
    return np.where(is_flat[:, None], flat, probabilities)


def flattened(probabilities: np.ndarray, confidence: float) -> np.ndarray:
    """The rows nearest in L1 whose largest probability is at most `confidence`; of those the ones of largest entropy, [n, C].

    What is above is cut, and the smallest probabilities are raised to one level that takes up what was cut.
    """
    cut = np.minimum(probabilities, confidence)
    missing = 1 - cut.sum(axis=1)
    rising = np.sort(cut, axis=1)
    counts = np.arange(1, cut.shape[1] + 1)
    levels = (rising.cumsum(axis=1) + missing[:, None]) / counts  # if the smallest 1, 2, ... C probabilities are raised
    n_raised = (levels > rising).sum(axis=1).clip(min=1)
    level = np.minimum(np.take_along_axis(levels, n_raised[:, None] - 1, axis=1), confidence)
    return np.maximum(cut, np.where(missing[:, None] > 0, level, 0.0))
