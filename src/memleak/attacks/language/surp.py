"""SURP: the surprising tokens, those that are unlikely where the model is sure of something else.

Zhang et al. 2024, "Adaptive Pre-training Data Detection for Large Language Models via Surprising Tokens".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import by_text, is_lowest, mean, of_targets
from memleak.params import Frozen


class Options(Frozen):
    """Which tokens are surprising."""

    k: float = Field(0.4, gt=0, le=1, description="share of a text's tokens: the least likely ones, one at least")
    entropy: float = Field(2.0, gt=0, description="nats below which the model is sure of what comes next")

    @property
    def needs(self) -> Needs:
        return Needs(("log_prob", "mean_log_prob"))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Mean log-probability of the surprising tokens, [N], in nats; of all tokens in a text that has none. Views are averaged."""

    def surprising(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        log_prob = tokens["log_prob"]
        found = mean(log_prob, is_lowest(log_prob, options.k) & (-tokens["mean_log_prob"] < options.entropy))
        return np.where(np.isnan(found), mean(log_prob), found)

    return by_text(evidence.target, options.needs.signals, surprising, "surp")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
