"""What models are good for, and what a defence costs: accuracies on samples that they trained on and on others, as released.

Targets and samples are clusters as in `clusters`, of which two variants of an audit have the same: their difference is
paired, answer by answer. Where the audited samples are nothing to be right about (few, with wrong labels, or gradients)
there are the accuracies alone that training noted of each model, before any release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from memleak.metrics import calibration, clusters, compare
from memleak.metrics.clusters import Pool
from memleak.metrics.intervals import clopper_pearson

Estimate = dict[str, float]  # value, low, high


def accuracies(
    is_correct: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Accuracy of targets on non-members (`utility`) and on members (`train_accuracy`), and the latter less the former (`gap`), answers [T, N].

    The two are the rates of the attack that calls a right answer a member, so the gap is its advantage (Yeom et al.
    2018). Errors that members and non-members share (a good model, an easy sample) go out of the gap's interval.
    """
    rates = calibration.rates_of_decisions(is_correct, is_member, unit, group, priors=(), confidence=confidence)
    answers = clusters.pool(np.asarray(is_correct, dtype=np.float64), is_member, unit, group)
    utility, train = rates["achieved_fpr"], rates["tpr"]
    centre = np.where(answers.is_member, train["value"], utility["value"])
    influence = (answers.scores - centre) / np.where(answers.is_member, answers.n_members, -answers.n_others)
    few = sum(
        _few(round(min(one["value"], 1 - one["value"]) * n), n, answers)
        for one, n in ((utility, answers.n_others), (train, answers.n_members))
    )  # fmt: skip
    gap, half = train["value"] - utility["value"], _half(answers, influence, few, confidence)
    return {"utility": utility, "train_accuracy": train, "gap": {"value": gap, "low": max(gap - half, -1.0), "high": min(gap + half, 1.0)}}


def difference(
    first: np.ndarray, second: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, *,
    same_models: bool = False, confidence: float = 0.95,
) -> dict[str, float]:  # fmt: skip
    """Accuracy on non-members of the first answers less that of the second, [T, N] each, with its interval and two-sided p.

    Paired: what counts are the answers that differ. `same_models`: they come of the very same models, so that where
    none differs none is expected to, and the interval has no width.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"answers of shapes {a.shape} and {b.shape}; the same targets and samples are expected")
    pairs = clusters.pool(a - b, is_member, unit, group)
    value = float(pairs.scores[~pairs.is_member].mean())
    influence = np.where(pairs.is_member, 0.0, (pairs.scores - value) / pairs.n_others)
    n_differ = int(np.count_nonzero(pairs.scores[~pairs.is_member]))
    few = 0.0 if same_models and n_differ == 0 else _few(n_differ, pairs.n_others, pairs)
    return compare.difference(value, _half(pairs, influence, few, confidence), pairs.n_units, confidence)


def _few(k: int, n: int, answers: Pool) -> float:
    """What is added to a variance when so few of n answers decide that their spread shows little.

    One imaginary answer of each kind more (Agresti and Caffo 2000; for pairs Agresti and Min 2005). Few answers do not
    show how they cluster, and are worth no more than distinct samples.
    """
    return 1 / min(n, answers.n_samples) ** 2 if min(k, n - k) < clusters.AT_LEAST else 0.0


def _half(answers: Pool, influence: np.ndarray, more: float, confidence: float) -> float:
    """Half the width of the interval of a sum of influences [S]."""
    variances = clusters.sums([np.bincount(c.code, influence, minlength=len(c.members)) for c in answers.clusterings])
    return clusters.half_width(variances, answers.n_units, confidence, float(np.sum(influence**2)) + more)


def of_models(train: np.ndarray, test: np.ndarray, n_train: int, n_test: int, unit: np.ndarray, confidence: float = 0.95) -> dict[str, Estimate]:
    """The same three from each model's accuracy on its own training and test records, [M] each, models of one unit averaged.

    Beside the spread between models stands that of records, as if all models were right about the same ones: the
    most that it can be. Of one unit it is all there is. The gap's interval puts both together (Zou and Donner 2008).
    """
    learnt, tested = (_of_models(values, n, unit, confidence) for values, n in ((train, n_train), (test, n_test)))
    gap = learnt["value"] - tested["value"]
    down = np.hypot(learnt["value"] - learnt["low"], tested["high"] - tested["value"])
    up = np.hypot(learnt["high"] - learnt["value"], tested["value"] - tested["low"])
    return {
        "utility": tested,
        "train_accuracy": learnt,
        "gap": {"value": gap, "low": max(gap - float(down), -1.0), "high": min(gap + float(up), 1.0)},
    }


def _of_models(accuracy: np.ndarray, n_records: int, unit: np.ndarray, confidence: float) -> Estimate:
    by_unit = _by_unit(accuracy, unit)
    value = min(float(by_unit.mean()), 1.0)
    low, high = clopper_pearson(value * n_records, n_records, confidence)
    if len(by_unit) > 1:
        z, t = special.ndtri(0.5 + confidence / 2), special.stdtrit(len(by_unit) - 1, 0.5 + confidence / 2)
        half = float(np.hypot(t * np.sqrt(by_unit.var(ddof=1) / len(by_unit)), z * np.sqrt(value * (1 - value) / n_records)))
        low, high = max(min(low, value - half), 0.0), min(max(high, value + half), 1.0)
    return {"value": value, "low": low, "high": high}


def difference_of_models(first: np.ndarray, second: np.ndarray, unit: np.ndarray, confidence: float = 0.95) -> dict[str, Any]:
    """Test accuracy of the first models less that of the second, [M] each, paired by model; conditional on the test records.

    Interval and p are between units of models (t); None with one unit, which shows no spread.
    """
    by_unit = _by_unit(np.asarray(first) - np.asarray(second), unit)
    n, value = len(by_unit), float(by_unit.mean())
    if n < 2:
        return {"difference": value, "low": None, "high": None, "p": None}
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2) * np.sqrt(by_unit.var(ddof=1) / n))
    return compare.difference(value, half, n, confidence)


def _by_unit(values: np.ndarray | Sequence[float], unit: np.ndarray) -> np.ndarray:
    """Means over the models of each unit, [U]."""
    code = np.unique(unit, return_inverse=True)[1]
    return np.bincount(code, values) / np.bincount(code)
