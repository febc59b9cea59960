"""A classifier learns from one shadow model how the largest posteriors look of records that were trained on.

Salem et al. 2019, "ML-Leaks", adversary 1: a single shadow model, the three largest posteriors, no label. The shadow
model may have another architecture and other data than the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.classifiers import Features, out_of_fold, posteriors
from memleak.attacks.estimate import Comparison, signal_of
from memleak.params import Frozen


class Options(Frozen):
    """How many posteriors and shadow models, and which classifier."""

    k: int = Field(3, ge=1, description="the largest posteriors that are kept; all of them where there are fewer classes")
    shadows: int = Field(1, ge=1, description="references that the classifier is fitted on; which of them does not depend on their order")
    classifier: Literal["logistic", "forest", "boosting", "mlp"] = "mlp"
    features: Literal["log_posterior", "posterior"] = Field(
        "log_posterior", description="posterior is as published; logarithms still tell apart what rounds to 0 or 1"
    )

    @property
    def needs(self) -> Needs:
        return Needs(("logits",), references=self.shadows, fits=True)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Log-odds that the target trained on the sample, [N], from its k largest posteriors, averaged over views before they are sorted.

    The classifier is fitted on what the shadow models say of other samples, in three folds (`classifiers.out_of_fold`),
    so that several records are needed.
    """
    return _score(Comparison.of_evidence(evidence), evidence.group, options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]; turns whose shadow models are the same share their classifiers."""
    return _score(Comparison.of_turns(pool, turns), pool.group, options)


def _score(seen: Comparison, group: np.ndarray | None, options: Options) -> np.ndarray:
    seen.require(options.needs, "top_k")
    n_references = int(seen.is_reference.sum(axis=1).min())
    if n_references < options.shadows:
        raise AttackError(f"top_k: {options.shadows} shadows are asked for, a target has {n_references} references; train more, or lower shadows")

    def largest(signals: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.sort(posteriors(signal_of(signals, "logits"), options.features), axis=-1)[:, : -options.k - 1 : -1]

    return out_of_fold("top_k", Features(seen, ("logits",), largest), None, group, options.classifier, "none", options.shadows)
