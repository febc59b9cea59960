"""WBC: in how many windows of a text is the audited model likelier than its reference?

WBC, USENIX Security 2026, arXiv:2601.02751. A vote of windows is moved little by the few tokens that decide a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import by_text, of_targets
from memleak.params import Frozen

SIGNALS = ("log_prob", "reference_log_prob")


class Options(Frozen):
    """Which windows vote."""

    windows: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (2, 3, 4, 6, 9, 13, 18, 25, 32, 40), min_length=1, description="tokens of a window; those longer than a text are left out"
    )

    @property
    def needs(self) -> Needs:
        return Needs(SIGNALS)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Share of windows that are likelier than under the reference, [N]: the mean over window sizes; views are averaged.

    A text shorter than every window is one window.
    """

    def share_won(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        difference = tokens["log_prob"] - tokens["reference_log_prob"]
        length = (~np.isnan(difference)).sum(axis=-1)  # [n, Q]
        sums = np.concatenate([np.zeros((*length.shape, 1)), np.nancumsum(difference, axis=-1)], axis=-1)  # [n, Q, K + 1]
        votes, n_sizes = np.zeros(length.shape), np.zeros(length.shape)
        for size in sorted(set(options.windows)):
            if size >= sums.shape[-1]:
                break
            n_windows = np.maximum(length - size + 1, 0)
            is_won = (sums[..., size:] > sums[..., :-size]) & (np.arange(sums.shape[-1] - size) < n_windows[..., None])
            votes += is_won.sum(axis=-1) / np.maximum(n_windows, 1)
            n_sizes += n_windows > 0
        return np.where(n_sizes > 0, votes / np.maximum(n_sizes, 1), sums[..., -1] > 0)

    return by_text(evidence.target, SIGNALS, share_won, "wbc")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
