"""DC-PDD: how likely a token is, against how frequent it is anyway.

Zhang et al. 2024, "Pretraining Data Detection for Large Language Models: A Divergence-based Calibration Method".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import signal_of
from memleak.attacks.language import by_text, is_first, mean, of_targets
from memleak.params import Frozen


class Options(Frozen):
    """Where frequencies are counted, and how much one token may tell."""

    corpus: Literal["audited", "population"] = Field(
        "audited", description="texts in which tokens are counted: all audited ones, members or not, or those outside every training set"
    )
    limit: float = Field(0.01, gt=0, description="largest p log(1 / frequency) of a token that counts (the authors' a)")

    @property
    def needs(self) -> Needs:
        return Needs(("log_prob", "token_id"), population=self.corpus == "population")


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Mean of min(p log(1 / frequency), limit) over the first occurrences of a text's tokens, [N], in nats; views are averaged.

    Frequencies are Laplace's, (count + 1) / (total + tokens known), so that a token that was never counted is rare and
    not impossible. A text whose every token counts the limit cannot be told from another such text: raise it then.
    """
    own = signal_of(evidence.target, "token_id")
    rarity = -np.log(frequencies(_corpus(evidence, options), size=int(own.max()) + 1))

    def divergence(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        token_id = tokens["token_id"].astype(np.int64)
        values = np.minimum(np.exp(tokens["log_prob"]) * rarity[token_id], options.limit)  # -1 reads the last, and p is NaN there
        return mean(values, is_first(token_id))

    return by_text(evidence.target, options.needs.signals, divergence, "dc_pdd")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)


def frequencies(token_id: np.ndarray, size: int) -> np.ndarray:
    """How frequent each of the tokens 0 ... is among those of some texts, smoothed, [size] or more where the texts have higher ones."""
    counts = np.bincount(token_id[token_id >= 0].astype(np.int64), minlength=size)
    return (counts + 1) / (counts.sum() + len(counts))


def _corpus(evidence: Evidence, options: Options) -> np.ndarray:
    """The token ids that are counted: each text once, as it is shown first."""
    seen = evidence.target if options.corpus == "audited" else evidence.population_target
    if not seen or not len(token_id := signal_of(seen, "token_id")):
        raise AttackError("dc_pdd: the population is empty; give the design a smaller pool, so that texts stay outside, or use corpus: audited")
    return token_id[:, 0]
