"""zlib ratio: how likely a text is, against how well it compresses.

Carlini et al. 2021, "Extracting Training Data from Large Language Models".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import finite, signal_of
from memleak.attacks.language import of_targets, told_apart
from memleak.params import Frozen


class Options(Frozen):
    """Which log-likelihood is divided."""

    form: Literal["mean", "sum"] = Field(
        "mean", description="mean log-probability of a token, as is usual and favours long texts, or that of the whole text, by its compressed bytes"
    )

    @property
    def needs(self) -> Needs:
        return Needs(("loss", "zlib_bytes", *(("n_tokens",) if self.form == "sum" else ())))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Log-likelihood by compressed bytes of what the model was shown of the text, [N], in nats a byte; views are averaged."""
    log_likelihood = -finite(signal_of(evidence.target, "loss"), "zlib: loss")  # [N, Q]
    if options.form == "sum":
        log_likelihood = log_likelihood * signal_of(evidence.target, "n_tokens")
    return told_apart((log_likelihood / signal_of(evidence.target, "zlib_bytes")).mean(axis=1), "zlib")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
