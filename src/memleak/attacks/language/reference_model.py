"""The audited model against one that never saw the texts, such as the checkpoint that it was fine-tuned from.

Carlini et al. 2021, "Extracting Training Data from Large Language Models"; Mireshghallah et al. 2022, "Quantifying Privacy Risks of
Masked Language Models Using Membership Inference Attacks". What both find hard is hard, whoever trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.language import LEAST_LOSS, by_text, mean, of_targets
from memleak.params import Frozen

SIGNALS = ("log_prob", "reference_log_prob")


class Options(Frozen):
    """How the two are compared."""

    form: Literal["difference", "ratio"] = Field("difference", description="of log-likelihoods, or the reference's loss over the audited model's")

    @property
    def needs(self) -> Needs:
        return Needs(SIGNALS)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """How much likelier a text's tokens are than under the reference, [N]: in nats a token, or as a ratio of losses. Views are averaged."""

    def compared(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
        own, reference = (mean(tokens[name]) for name in SIGNALS)
        return own - reference if options.form == "difference" else reference / np.minimum(own, -LEAST_LOSS)

    return by_text(evidence.target, SIGNALS, compared, "reference_model")


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return of_targets(score, pool, turns, options)
