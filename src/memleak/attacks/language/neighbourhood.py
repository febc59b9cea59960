"""Neighbourhood: a text that was trained on is likelier than texts that differ from it by a few words.

Mattern et al. 2023, "Membership Inference Attacks against Language Models via Neighbourhood Comparison". There a masked
language model proposes the words; here they are drawn from those of all texts, which is an approximation without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import loss_in_views, of_targets, told_apart
from memleak.params import Frozen


class Options(Frozen):
    """How many neighbours are made."""

    neighbours: int = Field(5, ge=1, le=99, description="copies of each text with some words exchanged; every one is a query")

    @property
    def needs(self) -> Needs:
        return Needs(("loss",), views=("identity", f"neighbours-{self.neighbours}"))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Mean loss of the neighbours less the text's own, [N], in nats a token."""
    loss = loss_in_views(evidence.target, options.needs.views, 1 + options.neighbours, "neighbourhood")
    return told_apart(loss[:, 1:].mean(axis=1) - loss[:, 0], "neighbourhood")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
