"""Signals of a classifier, from its logits [..., C] and the labels [...]; NumPy or torch in, float32 out.

Everything is computed in float64 from log-probabilities that stay exact when a probability rounds to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

N_FRACTIONAL = 2  # different rows of fractions that must all sum to 1 before they are taken for probabilities


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # NumPy has no bfloat16
    return np.asarray(values)


def _check_logits(logits: Any) -> np.ndarray:
    scores = _array(logits).astype(np.float64)
    if scores.ndim < 1 or scores.shape[-1] < 2:
        raise ValueError(f"logits have shape {scores.shape}, expected [..., C] with at least two classes")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).any(axis=-1).sum())} rows of logits are not finite")
    _refuse_probabilities(scores)
    return scores


def _check(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = _check_logits(logits), _array(labels)
    if truth.shape != scores.shape[:-1] or not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels have shape {truth.shape} and type {truth.dtype}, expected integers of shape {scores.shape[:-1]}")
    if truth.size and (truth.min() < 0 or truth.max() >= scores.shape[-1]):
        raise ValueError(f"labels go from {truth.min()} to {truth.max()}, expected 0 to {scores.shape[-1] - 1}")
    return scores, truth


def _refuse_probabilities(logits: np.ndarray) -> None:
    """Refuse logits that are probabilities already: all in [0, 1], and every row sums to 1.

    A row of logits does so by chance with a probability of about 1e-4, so two different rows are asked for. Rows
    of whole numbers (one-hot) are not counted: as logits they are as plausible.
    """
    if not logits.size or logits.min() < 0 or logits.max() > 1:
        return
    rows = logits.reshape(-1, logits.shape[-1])
    if (abs(rows.sum(axis=1) - 1) > 1e-4).any():
        return
    fractional = rows[(rows != np.floor(rows)).any(axis=1)]
    if len(np.unique(fractional, axis=0)) >= N_FRACTIONAL:
        raise ValueError(
            f"all {len(rows)} rows of logits lie in [0, 1] and sum to 1, so they are probabilities already; give logits, or the logarithm of these"
        )


def _margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    others = np.where(np.arange(logits.shape[-1]) == labels[..., None], -np.inf, logits)
    return chosen - logsumexp(others, axis=-1)


def _log_complement(logits: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """log(1 - p) of each class: from the other classes where p is near 1 (one class at most), else directly."""
    top = logits.argmax(axis=-1)
    with np.errstate(divide="ignore"):
        direct = np.log(-np.expm1(np.minimum(log_p, -1e-300)))
    rest = -np.logaddexp(0.0, _margin(logits, top))  # log(1 - p_top) = -softplus(margin of the top class)
    return np.where(np.arange(logits.shape[-1]) == top[..., None], rest[..., None], direct)


def _confidence(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits.max(axis=-1) - logsumexp(logits, axis=-1))


def _entropy(logits: np.ndarray) -> np.ndarray:
    log_p = logits - logsumexp(logits, axis=-1, keepdims=True)
    return np.maximum(0.0, -(np.exp(log_p) * log_p).sum(axis=-1))


def _modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    log_p = logits - logsumexp(logits, axis=-1, keepdims=True)
    log_rest = _log_complement(logits, log_p)
    is_label = np.arange(logits.shape[-1]) == labels[..., None]
    terms = np.where(is_label, np.exp(log_rest) * log_p, np.exp(log_p) * log_rest)
    return np.maximum(0.0, -terms.sum(axis=-1))


def margin(logits: Any, labels: Any) -> np.ndarray:
    """z_y - logsumexp of the other logits, in nats: the logit of p_y, exact in saturation.

    Carlini et al. 2022, "Membership Inference Attacks From First Principles" (logit scaling).
    """
    return _margin(*_check(logits, labels)).astype(np.float32)


def loss(logits: Any, labels: Any) -> np.ndarray:
    """Cross-entropy -log p_y, in nats."""
    return np.logaddexp(0.0, -_margin(*_check(logits, labels))).astype(np.float32)


def confidence(logits: Any) -> np.ndarray:
    """The largest probability."""
    return _confidence(_check_logits(logits)).astype(np.float32)


def entropy(logits: Any) -> np.ndarray:
    """Shannon entropy of the predicted distribution, in nats."""
    return _entropy(_check_logits(logits)).astype(np.float32)


def modified_entropy(logits: Any, labels: Any) -> np.ndarray:
    """-(1 - p_y) log p_y - sum over other k of p_k log(1 - p_k), in nats: small for a confident right answer.

    Song and Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models".
    """
    return _modified_entropy(*_check(logits, labels)).astype(np.float32)


def is_correct(logits: Any, labels: Any) -> np.ndarray:
    """Whether the largest logit is that of the label."""
    scores, truth = _check(logits, labels)
    return scores.argmax(axis=-1) == truth


def all_signals(logits: Any, labels: Any) -> dict[str, np.ndarray]:
    """Every signal of this module by its column's name; the logits are checked once."""
    scores, truth = _check(logits, labels)
    margins = _margin(scores, truth)
    found = {
        "margin": margins,
        "loss": np.logaddexp(0.0, -margins),
        "confidence": _confidence(scores),
        "entropy": _entropy(scores),
        "modified_entropy": _modified_entropy(scores, truth),
    }
    return {name: values.astype(np.float32) for name, values in found.items()} | {"is_correct": scores.argmax(axis=-1) == truth}
