"""EZ: where the audited model errs, by how much it is nearer to the truth than its reference.

EZ-MIA, 2026, arXiv:2601.12104. Where both are right there is little to see: memorisation shows at the errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import by_text, of_targets
from memleak.params import Frozen

SIGNALS = ("log_prob", "reference_log_prob", "log_rank")


class Options(Frozen):
    """How much gain and loss are smoothed."""

    smoothing: float = Field(
        0.01, gt=0, description="nats that are added to both sums, so that a text that only gained is a member and no division by 0"
    )

    @property
    def needs(self) -> Needs:
        return Needs(SIGNALS)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Logarithm of what a text's errors gained over what they lost in log-probability against the reference, [N]; views are averaged.

    An error is a token that is not the likeliest. A text without errors is compared at all its tokens: it is the one
    that the model knows best.
    """

    def gained_over_lost(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        difference = tokens["log_prob"] - tokens["reference_log_prob"]
        is_error = tokens["log_rank"] > 0
        counted = ~np.isnan(difference) & (is_error | ~is_error.any(axis=-1, keepdims=True))
        gained, lost = (np.where(counted, np.maximum(sign * difference, 0.0), 0.0).sum(axis=-1) for sign in (1, -1))
        return np.log(gained + options.smoothing) - np.log(lost + options.smoothing)

    return by_text(evidence.target, SIGNALS, gained_over_lost, "ez")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
