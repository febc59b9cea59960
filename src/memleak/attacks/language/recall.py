"""ReCaLL: a text that was trained on suffers more from standing after texts that were not.

Xie et al. 2024, "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import LEAST_LOSS, loss_in_views, of_targets, told_apart
from memleak.params import Frozen


class Options(Frozen):
    """How many texts stand before."""

    shots: int = Field(4, ge=1, le=9, description="texts outside every training set, of which none is audited, that stand before each text")

    @property
    def needs(self) -> Needs:
        return Needs(("loss",), views=("identity", f"prefix-{self.shots}"))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Loss of a text after non-members over its loss alone, [N]; both log-likelihoods are negative, so this is the authors' ratio."""
    views = options.needs.views
    loss = loss_in_views(evidence.target, views, len(views), "recall")
    return told_apart(loss[:, 1] / np.maximum(loss[:, 0], LEAST_LOSS), "recall")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
