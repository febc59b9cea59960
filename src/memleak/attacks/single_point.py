"""One record, trained with and without: where does the audited model's signal lie between the two?

Neyman and Pearson 1933 for the tests; Carlini et al. 2022 for the margin, on which a normal fits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from memleak.attacks import AttackError, Evidence, Needs
from memleak.attacks.fits import Kind, fit
from memleak.params import Frozen


class Options(Frozen):
    """How the IN and OUT distributions of the signal are fitted and compared."""

    fit: Kind = "normal"
    test: Literal["threshold", "likelihood_ratio"] = "threshold"
    signal: Literal["margin", "loss"] = Field("margin", description="a normal fits the margin, not the loss")
    alpha: float = Field(0.05, gt=0, lt=1, description="false-positive rate that the decision must keep")

    @property
    def needs(self) -> Needs:
        return Needs((self.signal,), outside=2)

    @model_validator(mode="after")
    def _ratio_needs_densities(self) -> Options:
        if self.test == "likelihood_ratio" and self.fit == "empirical":
            raise ValueError("test: likelihood_ratio needs densities; use fit: normal or fit: kde")
        return self


def statistic(values: np.ndarray, signal: str) -> np.ndarray:
    """A signal's values turned so that higher means more likely a member."""
    return -np.asarray(values, dtype=np.float64) if signal == "loss" else np.asarray(values, dtype=np.float64)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Evidence for membership of each sample, [N], in nats.

    `threshold`: -log P(OUT > x), how surprising the signal is if the record was not trained on. Finite and
    rising with the signal, however far out it lies.
    `likelihood_ratio`: log f_in(x) - log f_out(x). Views are averaged first. Needs IN references for the ratio only.
    """
    target = statistic(evidence.target[options.signal], options.signal).mean(axis=-1)  # [N]
    reference = statistic(evidence.reference[options.signal], options.signal).mean(axis=-1)  # [M, N]
    scores = np.empty(len(target))
    for n, value in enumerate(target):
        is_in = evidence.is_in[:, n]
        try:
            outside = fit(reference[~is_in, n], options.fit)
            if options.test == "threshold":
                scores[n] = -outside.log_survival(np.array(value)).item()
            else:
                inside = fit(reference[is_in, n], options.fit)
                scores[n] = (inside.logpdf(np.array(value)) - outside.logpdf(np.array(value))).item()  # type: ignore[union-attr]
        except ValueError as error:
            where = f"sample {evidence.sample_id[n]}" if evidence.sample_id is not None else f"sample at position {n}"
            raise AttackError(f"single_point, {where}, {options.signal}: {error}") from None
    return scores
