"""A classifier learns from shadow models how posteriors about records look that were trained on, and those that were not.

Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models". References are what the paper calls
shadow models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.classifiers import Features, out_of_fold, posteriors, require_label, with_label
from memleak.attacks.estimate import Comparison, signal_of
from memleak.params import Frozen


class Options(Frozen):
    """Which classifier is fitted, and on what."""

    classifier: Literal["logistic", "forest", "boosting", "mlp"] = "logistic"
    label: Literal["per_class", "input", "none"] = Field(
        "per_class",
        description="one classifier per class, as published; one with the label and its own posterior as further inputs; one without the label",
    )
    features: Literal["log_posterior", "posterior"] = Field(
        "log_posterior", description="posterior is as published; logarithms still tell apart what rounds to 0 or 1"
    )

    @property
    def needs(self) -> Needs:
        return Needs(("logits",), references=1, fits=True)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Log-odds that the target trained on the sample, [N], from its posteriors about it, averaged over views.

    The classifier is fitted on what the references say of other samples, in three folds (`classifiers.out_of_fold`),
    so that several records are needed. A class with hardly any IN or OUT rows takes a classifier of all classes.
    """
    return _score(Comparison.of_evidence(evidence), evidence.label, evidence.group, options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]; turns that share their references share their classifiers."""
    return _score(Comparison.of_turns(pool, turns), pool.label, pool.group, options)


def _score(seen: Comparison, label: np.ndarray | None, group: np.ndarray | None, options: Options) -> np.ndarray:
    seen.require(options.needs, "shadow")
    require_label("shadow", options.label, label)

    def of_row(signals: Mapping[str, np.ndarray]) -> np.ndarray:
        return posteriors(signal_of(signals, "logits"), options.features)

    if options.label == "input":
        return out_of_fold("shadow", Labelled(seen, ("logits",), of_row, label), None, group, options.classifier, "none")
    return out_of_fold("shadow", Features(seen, ("logits",), of_row), label, group, options.classifier, options.label)


@dataclass(frozen=True)
class Labelled(Features):
    """The posteriors, the label as one of C, and the label's own posterior, which no line through the others could pick out."""

    label: np.ndarray | None = None  # [N]

    def of_models(self, models: np.ndarray, samples: np.ndarray) -> np.ndarray:
        return self._with_label(super().of_models(models, samples), samples)

    def of_target(self, turn: int, samples: np.ndarray) -> np.ndarray:
        return self._with_label(super().of_target(turn, samples), samples)

    def _with_label(self, told: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """[n, C] -> [n, 2C + 1]."""
        label = np.asarray(self.label)[samples]
        own = np.take_along_axis(told, label[:, None], axis=1)
        return np.concatenate([with_label(told, label, np.arange(told.shape[1])), own], axis=1)
