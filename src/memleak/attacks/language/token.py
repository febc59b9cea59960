"""How sure the model is, token by token: entropy, largest probability and its lead, rank of the token that stands there.

The first three do not look at the token itself, and tell next to nothing of a language model's training set: they are kept
beside the others for comparison. Rank: Carlini et al. 2021, "Extracting Training Data from Large Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import by_text, mean, of_targets
from memleak.params import Frozen

COLUMN = {"entropy": "mean_log_prob", "is_top": "log_rank"}  # where it is not called like the statistic


class Options(Frozen):
    """What is taken of every token."""

    statistic: Literal["entropy", "top_gap", "top_prob", "is_top", "log_rank"] = "log_rank"

    @property
    def needs(self) -> Needs:
        return Needs((COLUMN.get(self.statistic, self.statistic),))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Mean over a text's tokens of a statistic that is turned so that higher means surer, [N]; views are averaged.

    entropy: its negative, in nats. top_prob: the largest probability. top_gap: its lead over the second. is_top: whether
    the token is the likeliest. log_rank: the negative logarithm of the token's rank, the likeliest being 1.
    """
    (column,) = options.needs.signals

    def of_tokens(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        values = tokens[column]
        if options.statistic == "is_top":
            values = np.where(np.isnan(values), np.nan, values == 0)
        return mean(-values if options.statistic == "log_rank" else values)

    return by_text(evidence.target, (column,), of_tokens, "token")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
