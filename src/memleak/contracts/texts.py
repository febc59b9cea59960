"""Texts whose tokens a few models find likely, and their members likelier: a world of known truth for attacks on language models."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from memleak.attacks import Needs
from memleak.params.audits import OF_TEXTS, n_views
from memleak.params.texts import TEXT_SIGNALS, TOKEN_SIGNALS

LONGEST, N_CANDIDATES, VOCABULARY = 12, 8, 60  # tokens of a text, of those that may stand at a place, and of all
IN_OTHER_VIEWS = 0.4  # of what training on a text adds, what is left where it is shown otherwise


def are_asked(needs: Needs) -> bool:
    """Whether an attack reads what language models alone tell, or shows texts in its own way."""
    return bool({*needs.signals} & {*TOKEN_SIGNALS, *TEXT_SIGNALS}) or any(re.fullmatch(OF_TEXTS, view) for view in needs.views)


def answers(moved: np.ndarray, draw: np.random.Generator, views: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What models say about n texts: signals [M, n, Q], those of tokens [M, n, Q, K]; and their labels [n], which are all 0.

    The logit of each token has a level of its text and of its own, and is higher by half of `moved` [M, n, 1]. Shown in
    other ways a text is less likely, and has less of that. The reference has not seen any text.
    """
    n_models, n, _ = moved.shape
    n_views_ = n_views(views) if views else 2  # without views of its own an attack sees two answers to the same question
    length = draw.integers(3, LONGEST + 1, (n,))
    level: np.ndarray = draw.normal(0, 0.5, (n, 1)) + draw.normal(0, 2.5, (n, LONGEST))  # some tokens are far from likely
    others: np.ndarray = draw.normal(0, 1.0, (n, LONGEST, N_CANDIDATES - 1))
    as_written = (np.arange(n_views_) == 0) | (not views)
    kept = np.where(as_written, 1.0, IN_OTHER_VIEWS)[:, None]  # [Q, 1]
    lower = np.where(as_written, 0.0, 0.3)[:, None]
    shape = (n_models, n, n_views_, LONGEST)

    def logits(more: np.ndarray, n_asked: int) -> np.ndarray:
        own = (level[:, None] - lower) + more + draw.normal(0, 0.3, (n_asked, *shape[1:]))
        noisy = others[:, None] + draw.normal(0, 0.3, (n_asked, *shape[1:], N_CANDIDATES - 1))
        return np.concatenate([own[..., None], noisy], axis=-1)

    is_there = np.broadcast_to(np.arange(LONGEST) < length[:, None, None], shape)
    found = of_tokens(logits(0.5 * moved[..., None] * kept, n_models))
    found["reference_log_prob"] = np.broadcast_to(of_tokens(logits(np.zeros(1), 1))["log_prob"], shape)
    signals = {name: np.where(is_there, values, np.nan).astype(np.float32) for name, values in found.items()}
    of_texts = {"loss": -_mean(signals["log_prob"]), "confidence": _mean(signals["top_prob"]), "entropy": -_mean(signals["mean_log_prob"])}
    of_texts["margin"] = -of_texts["loss"] - np.log(-np.expm1(-of_texts["loss"]))
    n_bytes = 4 * length
    counts = {"n_tokens": length, "n_bytes": n_bytes, "zlib_bytes": 8 + (n_bytes * draw.uniform(0.5, 0.9, n)).astype(np.int64)}
    signals |= {name: values.astype(np.float32) for name, values in of_texts.items()}
    told = {name: np.broadcast_to(values[:, None], shape[:3]).copy() for name, values in counts.items()}
    return signals | told | {"token_id": np.where(is_there, _token_ids(shape, as_written, draw), -1).astype(np.int32)}, np.zeros(n, dtype=np.int64)


def of_tokens(logits: np.ndarray) -> dict[str, np.ndarray]:
    """The signals of each token, the first of the candidates [..., V], in the order of `TOKEN_SIGNALS` but for its id."""
    log_prob = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    probability, ordered = np.exp(log_prob), np.sort(log_prob, axis=-1)
    mean = (probability * log_prob).sum(axis=-1)
    return {
        "log_prob": log_prob[..., 0],
        "mean_log_prob": mean,
        "std_log_prob": np.sqrt((probability * (log_prob - mean[..., None]) ** 2).sum(axis=-1)),
        "log_rank": np.log(1 + (log_prob > log_prob[..., :1]).sum(axis=-1)),
        "top_prob": np.exp(ordered[..., -1]),
        "top_gap": np.exp(ordered[..., -1]) - np.exp(ordered[..., -2]),
    }


def _token_ids(shape: tuple[int, ...], as_written: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Frequent and rare tokens; shown in another way, a text begins with another one."""
    ids = np.minimum(draw.zipf(1.3, shape[1::2]), VOCABULARY) - 1  # [n, K]
    found = np.repeat(ids[:, None], shape[2], axis=1)
    found[:, ~as_written, 0] = VOCABULARY
    return np.broadcast_to(found, shape)


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmean(values, axis=-1, dtype=np.float64))
