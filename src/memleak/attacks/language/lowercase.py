"""Lowercase: a text that was trained on suffers more from losing its capitals.

Carlini et al. 2021, "Extracting Training Data from Large Language Models".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import signal_of
from memleak.attacks.language import LEAST_LOSS, loss_in_views, of_targets, told_apart
from memleak.params import Frozen

VIEWS = ("identity", "lowercase")


class Options(Frozen):
    """There are none."""

    @property
    def needs(self) -> Needs:
        return Needs(("loss", "token_id"), views=VIEWS)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Loss in small letters over the loss as written, [N]; the median of all others for a text that has no capitals.

    Such a text's ratio of 1 would say that it is not a member, and nothing is known of it. Where no text has capitals,
    or the tokenizer knows none, every score is the same, which is an error.
    """
    loss = loss_in_views(evidence.target, VIEWS, len(VIEWS), "lowercase")
    ratio = loss[:, 1] / np.maximum(loss[:, 0], LEAST_LOSS)
    token_id = signal_of(evidence.target, "token_id")
    is_changed = (token_id[:, 0] != token_id[:, 1]).any(axis=-1)
    if not is_changed.any():
        raise AttackError("lowercase: no text has capitals, or the tokenizer knows none, so that nothing tells them apart")
    return told_apart(np.where(is_changed, ratio, np.median(ratio[is_changed])), "lowercase")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
