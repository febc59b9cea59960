"""A classifier on all signals of a sample at once, fitted on references.

What thresholds on loss, confidence, entropy or correctness see one by one is weighed here together, as by Song and
Mittal 2021, "Systematic Evaluation of Privacy Risks", and by the attacks with several features of Nasr et al. 2019,
"Comprehensive Privacy Analysis of Deep Learning".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.classifiers import Features, out_of_fold
from memleak.attacks.estimate import Comparison, finite, signal_of
from memleak.params import Frozen


class Options(Frozen):
    """Which signals are weighed, and by which classifier."""

    signals: tuple[str, ...] = Field(
        ("loss", "confidence", "entropy", "modified_entropy", "margin", "is_correct"),
        min_length=1,
        description="columns that the classifier is given; those that the audit declares too",
    )
    gradient_norm: bool = Field(False, description="ask the model for the norm of its loss's gradient too, which takes its weights")
    calibrated: bool = Field(False, description="signals less their mean over the references that did not train on the sample")
    classifier: Literal["logistic", "forest", "boosting", "mlp"] = "logistic"
    label: Literal["per_class", "input", "none"] = "none"

    @model_validator(mode="after")
    def _are_numbers(self) -> Options:
        if "logits" in self.signals:
            raise ValueError("signals: 'logits' is a vector; use the attack shadow, or name signals of one number a query")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"signals: {list(self.columns)} names one twice; every signal counts once")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The signals that the classifier is given."""
        return (*self.signals, "gradient_norm") if self.gradient_norm else self.signals

    @property
    def needs(self) -> Needs:
        measured = {"gradient_norm": {"name": "gradient_norm"}} if self.gradient_norm else {}
        return Needs(self.columns, references=1, outside=2 if self.calibrated else 0, measured=measured, fits=True)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Log-odds that the target trained on the sample, [N], from all its signals, each averaged over views.

    The classifier is fitted on what the references say of other samples, in three folds (`classifiers.out_of_fold`),
    so that several records are needed. `calibrated` asks for two OUT references of every audited sample: a reference
    is compared with the others as the target is with all.
    """
    return _score(Comparison.of_evidence(evidence), evidence.label, evidence.group, options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]; turns that share their references share their classifiers."""
    return _score(Comparison.of_turns(pool, turns), pool.label, pool.group, options)


def _score(seen: Comparison, label: np.ndarray | None, group: np.ndarray | None, options: Options) -> np.ndarray:
    seen.require(options.needs, "meta")

    def averages(signals: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.stack([finite(signal_of(signals, name), name).mean(axis=-1) for name in options.columns], axis=-1)

    features = (Relative if options.calibrated else Features)(seen, options.columns, averages)
    return out_of_fold("meta", features, label, group, options.classifier, options.label)


@dataclass(frozen=True)
class Outside:
    """Features that the references have of samples that they did not train on, added up; who trained on what another did not."""

    total: np.ndarray  # [N, F]
    count: np.ndarray  # [N]
    twin: np.ndarray  # [M] row of the complement among the references; -1 where there is none


@dataclass(frozen=True)
class Relative(Features):
    """Features less their mean over the references that are OUT.

    A reference is compared with the others, but for its exact complement: then a row has one OUT reference fewer than
    the sample whether it is IN or OUT, and nothing is learnt from how many there are. NaN where no other is OUT.
    """

    outside: Outside | None = None

    def beside(self, references: np.ndarray) -> Features:
        is_in = self.seen.is_in
        everyone = np.arange(self.seen.n_samples)
        total, count = np.zeros(1), np.zeros(len(everyone), dtype=np.int64)
        for model in references:
            is_out = ~is_in[model]
            total = total + super().of_models(np.full(len(everyone), model), everyone) * is_out[:, None]
            count += is_out
        drawn = is_in[:, is_in[references].any(axis=0)]  # audited records that no reference could train on say nothing of who is whose complement
        known = {drawn[model].tobytes(): model for model in references}
        twin = [known.get((~row).tobytes(), -1) for row in drawn]
        return Relative(self.seen, self.names, self.describe, Outside(total, count, np.array(twin)))

    def of_models(self, models: np.ndarray, samples: np.ndarray) -> np.ndarray:
        own = super().of_models(models, samples)
        if self.outside is None:
            return own
        total, count = self.outside.total[samples], self.outside.count[samples].copy()
        twin = self.outside.twin[models]
        for rows, others in (
            (np.flatnonzero(self._is_out(models, samples)), models),
            (np.flatnonzero((twin >= 0) & self._is_out(twin, samples)), twin),
        ):
            total[rows] -= super().of_models(others[rows], samples[rows])
            count[rows] -= 1
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count[:, None] > 0, own - total / count[:, None], np.nan)

    def of_target(self, turn: int, samples: np.ndarray) -> np.ndarray:
        assert self.outside is not None
        with np.errstate(invalid="ignore", divide="ignore"):  # a record of a shadow pool that every reference trained on; it is not scored
            return super().of_target(turn, samples) - self.outside.total[samples] / self.outside.count[samples][:, None]

    def _is_out(self, models: np.ndarray, samples: np.ndarray) -> np.ndarray:
        return ~self.seen.is_in[models, samples]
