"""Min-K%: members have fewer tokens that surprise the model.

Shi et al. 2024, "Detecting Pretraining Data from Large Language Models"; normalised: Min-K%++, Zhang et al. 2025,
"Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import by_text, lowest_mean, of_targets
from memleak.params import Frozen

LEAST_SPREAD = 1e-6  # nats; where all tokens are as likely, or one is certain, nothing is divided by 0


class Options(Frozen):
    """How many tokens count, and whether each is taken relative to the others that might have stood there."""

    k: float = Field(0.2, gt=0, le=1, description="share of a text's tokens: the least likely ones, one at least")
    normalised: bool = Field(False, description="Min-K%++: less the mean log-probability at the token's place, over its standard deviation")

    @property
    def needs(self) -> Needs:
        return Needs(("log_prob", "mean_log_prob", "std_log_prob") if self.normalised else ("log_prob",))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Mean log-probability of the k least likely tokens, [N], in nats; `normalised`: in standard deviations. Views are averaged."""

    def lowest(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        values = tokens["log_prob"]
        if options.normalised:
            values = (values - tokens["mean_log_prob"]) / np.maximum(tokens["std_log_prob"], LEAST_SPREAD)
        return lowest_mean(values, options.k)

    return by_text(evidence.target, options.needs.signals, lowest, "min_k")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
