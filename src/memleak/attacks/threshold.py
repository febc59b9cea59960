"""One signal of the audited model, as it is or less a threshold fitted on references: the simplest attacks.

Yeom et al. 2018, "Privacy Risk in Machine Learning" (loss, correctness); Salem et al. 2019, "ML-Leaks" (confidence,
entropy); Song and Mittal 2021, "Systematic Evaluation of Privacy Risks" (modified entropy, thresholds per class).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from memleak import randomness
from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import finite, signal_of, turned
from memleak.params import Frozen

SignalName = Literal["loss", "confidence", "margin", "entropy", "modified_entropy", "correctness"]
N_FITTED = 20_000  # samples whose reference values are sorted: 10 MB a signal for 64 models


class Options(Frozen):
    """Which signal is the score, and what is taken from it."""

    signal: str = Field(
        "loss", min_length=1,
        description="loss, confidence, margin, entropy, modified_entropy, correctness, gradient_norm, or one that the audit declares: of those, higher means more likely a member",
    )  # fmt: skip
    thresholds: Literal["none", "global", "per_class"] = Field(
        "none", description="fit on references the threshold of best balanced accuracy and subtract it: above 0 is a member"
    )

    @property
    def needs(self) -> Needs:
        is_fitted = self.thresholds != "none"
        measured = {"gradient_norm": {"name": "gradient_norm"}} if self.signal == "gradient_norm" else {}
        return Needs(signals=(column_of(self.signal),), references=int(is_fitted), measured=measured, fits=is_fitted)


def column_of(signal: str) -> str:
    """The signal's name where signals are stored."""
    return "is_correct" if signal == "correctness" else signal


def turned_signal(signals: Mapping[str, np.ndarray], signal: str) -> np.ndarray:
    """A signal in float64, turned so that higher means more likely a member."""
    return turned(finite(signal_of(signals, column_of(signal)), signal), signal)


def refuse_constant(values: np.ndarray, signal: str, attack: str) -> None:
    """Raise AttackError where the audited model says the same of several samples [N, Q]; of all it may well be right."""
    if len(values) > 1 and values.min() == values.max() and column_of(signal) != "is_correct":
        raise AttackError(
            f"{attack}: the audited model's {signal} is {abs(float(values.flat[0])):g} for all {len(values)} samples, so that nothing tells them apart; "
            "was the model trained, and what is released of its output?"
        )


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """The signal turned so that higher means more likely a member, views averaged, [N], in the signal's unit.

    `thresholds`: less the threshold of best balanced accuracy between the IN and the OUT values of all references
    (of the sample's class for `per_class`), so that a member is said where the score is above 0. A class whose
    references are all IN or all OUT takes the global threshold. Fitted on 20,000 samples at most, drawn at random.
    """
    fitting = None if options.thresholds == "none" else _sort(evidence.reference, evidence.is_in, evidence.label, evidence.is_audited, options)
    return _score(evidence.target, fitting, np.arange(len(evidence.is_in)), evidence.label, options)


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """`score` of every turn, [T, N]; the references' values are sorted once."""
    fitting = None if options.thresholds == "none" else _sort(pool.signals, pool.is_in, pool.label, pool.is_audited, options)
    column = column_of(options.signal)
    scores = np.empty((len(turns), np.asarray(pool.is_in).shape[1]))
    for row, turn in zip(scores, turns, strict=True):
        said = {name: values[turn.target] for name, values in pool.signals.items() if name in (column, "loss", "margin")}
        row[:] = _score(said, fitting, turn.references, pool.label, options)
    return scores


@dataclass(frozen=True)
class _Sorted:
    """Values of all models and some samples in rising order, class by class (one class where the threshold is global)."""

    value: np.ndarray  # [K]
    is_in: np.ndarray  # [K] bool
    model: np.ndarray  # [K]
    label: np.ndarray  # [K]

    def of(self, rows: np.ndarray) -> _Sorted:
        """Those of some models only."""
        kept = np.isin(self.model, rows)
        return _Sorted(self.value[kept], self.is_in[kept], self.model[kept], self.label[kept])


def _sort(signals: Mapping[str, np.ndarray], is_in: np.ndarray, label: np.ndarray | None, is_audited: np.ndarray | None, options: Options) -> _Sorted:
    per_class = options.thresholds == "per_class"
    if per_class and label is None:
        raise AttackError("threshold: thresholds: per_class needs the labels of the samples, the evidence has none; use thresholds: global")
    n_models, n_samples = np.asarray(is_in).shape
    fitted = np.arange(n_samples) if is_audited is None or np.all(is_audited) else np.flatnonzero(~is_audited)  # the references' own pool
    if len(fitted) > N_FITTED:
        fitted = np.sort(randomness.generator(0, "threshold", n_samples).choice(fitted, N_FITTED, replace=False))
    known = {name: values[:, fitted] for name, values in signals.items() if name in (column_of(options.signal), "loss", "margin")}
    value = turned_signal(known, options.signal).mean(axis=-1).ravel()  # [M n]
    inside, model = np.asarray(is_in, dtype=bool)[:, fitted].ravel(), np.repeat(np.arange(n_models, dtype=np.int32), len(fitted))
    of_class = np.tile(label[fitted], n_models) if per_class and label is not None else np.zeros(len(value), dtype=np.int8)
    order = np.lexsort((value, of_class))
    return _Sorted(value[order], inside[order], model[order], of_class[order])


def _score(signals: Mapping[str, np.ndarray], fitting: _Sorted | None, rows: np.ndarray, label: np.ndarray | None, options: Options) -> np.ndarray:
    seen = turned_signal(signals, options.signal)  # [N, Q]
    refuse_constant(seen, options.signal, "threshold")
    values = seen.mean(axis=-1)
    if fitting is None:
        return values
    fitted = fitting.of(rows)
    if fitted.is_in.all() or not fitted.is_in.any():
        side = "IN" if fitted.is_in.any() else "OUT"
        raise AttackError(
            f"threshold: the {len(rows)} references have {side} samples only, a threshold lies between IN and OUT values; "
            "train more reference models, or use thresholds: none"
        )
    if options.thresholds == "global" or label is None:
        return values - best_threshold(fitted.value, fitted.is_in)
    return values - _cut_of_class(fitted, label)


def _cut_of_class(fitted: _Sorted, label: np.ndarray) -> np.ndarray:
    """The threshold of each sample's class, [N]."""
    classes, which = np.unique(label, return_inverse=True)
    cuts = np.full(len(classes), np.nan)
    first, last = (np.searchsorted(fitted.label, classes, side=side) for side in ("left", "right"))
    for i, of_class in enumerate(map(slice, first, last)):
        inside = fitted.is_in[of_class]
        if inside.any() and not inside.all():
            cuts[i] = best_threshold(fitted.value[of_class], inside)
    if np.isnan(cuts).any():
        order = np.argsort(fitted.value, kind="stable")
        cuts[np.isnan(cuts)] = best_threshold(fitted.value[order], fitted.is_in[order])
    return cuts[which]


def best_threshold(values: np.ndarray, is_in: np.ndarray) -> float:
    """Of sorted values [K], the threshold that IN values exceed and OUT values do not, with the best balanced accuracy.

    It lies midway between two neighbouring values. Of several as good the highest is taken: accuse fewer. Where no
    threshold is better than none it is the largest value, which nothing exceeds.
    """
    last = np.append(np.flatnonzero(values[1:] > values[:-1]), len(values) - 1)  # of each run of equal values
    n_in = is_in.cumsum()[last]
    n_out = last + 1 - n_in
    # TPR - FPR when all values above a run are accused, times the numbers of both, which is exact in integers
    gain = (n_in[-1] - n_in) * n_out[-1] - (n_out[-1] - n_out) * n_in[-1]
    best = len(gain) - 1 - int(gain[::-1].argmax())
    if best == len(gain) - 1:
        return float(values[-1])
    low, high = values[last[best]], values[last[best] + 1]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)
