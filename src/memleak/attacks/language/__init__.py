"""Attacks on language models: what they share about texts of different lengths.

Signals of tokens are [N, Q, K], padded at the end: NaN, or -1 where they are token ids. Everything is computed in float64, for
some texts at a time, so that memory does not grow with N. A rule never sees who is in the training set, nor another text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from memleak.attacks import AttackError, Evidence, Pool, Turn
from memleak.attacks.estimate import finite, signal_of

CHUNK_TOKENS = 500_000  # values of one signal held at a time
LEAST_LOSS = 1e-6  # nats; a text that a model is surer of is divided by this


def by_text(
    target: Mapping[str, np.ndarray], signals: Sequence[str], rule: Callable[[Mapping[str, np.ndarray]], np.ndarray], attack: str
) -> np.ndarray:
    """What a rule makes of the signals of each text's tokens, [n, Q, K] each -> [n, Q]; views averaged, [N]."""
    known = {name: signal_of(target, name) for name in signals}
    n_texts, n_views, n_tokens = next(iter(known.values())).shape
    scores, step = np.empty((n_texts, n_views)), max(1, CHUNK_TOKENS // max(1, n_views * n_tokens))
    for start in range(0, n_texts, step):
        tokens = {name: values[start : start + step].astype(np.float64) for name, values in known.items()}
        _refuse_empty(next(iter(tokens.values())), attack)
        scores[start : start + step] = rule(tokens)
    return told_apart(scores.mean(axis=1), attack)


def of_targets(function: Callable[[Evidence, Any], np.ndarray], pool: Pool, turns: Sequence[Turn], options: Any) -> np.ndarray:
    """`score_all` of attacks that read the audited model alone, [T, N]: no reference is copied."""
    seen, nobody = pool.population, np.zeros((0, np.asarray(pool.is_in).shape[1]), dtype=bool)
    return np.stack([
        function(
            Evidence(
                {name: values[turn.target] for name, values in pool.signals.items()}, {}, nobody,
                population_target=None if seen is None else {name: values[turn.target] for name, values in seen.items()},
                label=pool.label, sample_id=pool.sample_id, group=pool.group,
            ),
            options,
        )
        for turn in turns
    ])  # fmt: skip


def told_apart(scores: np.ndarray, attack: str) -> np.ndarray:
    """The scores [N]; raises AttackError where some are not finite, or all of several texts are the same."""
    found = finite(scores, f"{attack}: scores")
    if len(found) > 1 and found.min() == found.max():
        raise AttackError(
            f"{attack}: the score is {found[0]:g} for all {len(found)} texts, so that nothing tells them apart; "
            "was the model trained, and is it another than its reference?"
        )
    return found


def loss_in_views(target: Mapping[str, np.ndarray], views: Sequence[str], n_views: int, attack: str) -> np.ndarray:
    """The loss of each text in each view that an attack asks for, [N, Q] in nats a token."""
    loss = finite(signal_of(target, "loss"), f"{attack}: loss")
    if loss.shape[1:] != (n_views,):
        raise AttackError(
            f"{attack}: texts are compared as {', '.join(views)} ({n_views} views), the evidence has {loss.shape[1]}; query those views"
        )
    return loss


def mean(values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Mean over the tokens of [n, Q, K] that are there, and where [n, Q, K] holds, [n, Q]; NaN where it holds nowhere."""
    counted = ~np.isnan(values) if where is None else ~np.isnan(values) & where
    sums, counts = np.where(counted, values, 0.0).sum(axis=-1), counted.sum(axis=-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def n_lowest(values: np.ndarray, share: float) -> np.ndarray:
    """How many tokens are the lowest share of each text's, [n, Q]: one at least, for int(k n) is 0 in short texts."""
    return np.maximum(1, (share * (~np.isnan(values)).sum(axis=-1) + 1e-9).astype(np.int64))  # 0.2 * 5 may come out below 1


def lowest_mean(values: np.ndarray, share: float) -> np.ndarray:
    """Mean of the lowest share of each text's values, [n, Q]."""
    count = n_lowest(values, share)
    sums = np.sort(values, axis=-1).cumsum(axis=-1)  # NaN comes last
    return np.take_along_axis(sums, count[..., None] - 1, axis=-1)[..., 0] / count


def is_lowest(values: np.ndarray, share: float) -> np.ndarray:
    """Which tokens are among the lowest share of their text's, [n, Q, K]; of several as high as the last of them all."""
    cut = np.take_along_axis(np.sort(values, axis=-1), n_lowest(values, share)[..., None] - 1, axis=-1)
    return values <= cut


def is_first(token_id: np.ndarray) -> np.ndarray:
    """Where a token stands in its text for the first time, [n, Q, K]; nowhere beyond the text's end (-1)."""
    order = np.argsort(token_id, axis=-1, kind="stable")
    ordered = np.take_along_axis(token_id, order, axis=-1)
    is_new = np.ones(token_id.shape, dtype=bool)
    is_new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    found = np.empty(token_id.shape, dtype=bool)
    np.put_along_axis(found, order, is_new, axis=-1)
    return found & (token_id >= 0)


def _refuse_empty(values: np.ndarray, attack: str) -> None:
    is_empty = np.isnan(values).all(axis=-1).any(axis=-1)
    if is_empty.any():
        raise AttackError(
            f"{attack}: {int(is_empty.sum())} of {len(values)} texts have no scored token; a text needs two tokens, "
            "for the first is not scored unless the tokenizer puts another before it; leave such texts out"
        )
