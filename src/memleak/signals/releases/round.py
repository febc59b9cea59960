"""Rounding: probabilities have a few decimals.

Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models", section VIII (coarsen the precision).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from memleak.params import Frozen


class Options(Frozen):
    """How many decimals are told."""

    digits: int = Field(ge=1, le=6, description="decimals of each probability")

    @property
    def keeps_label(self) -> bool:
        return True

    def least(self, before: float, n_classes: int) -> float:
        """All zeros of a row together as much as half a unit: then a row with a larger p has the larger margin, however many others are 0."""
        return 0.5 * 10.0**-self.digits / n_classes


def mask(probabilities: np.ndarray, options: Options) -> np.ndarray:
    """Probabilities [n, C] in units of 10^-digits that sum to 1, each less than one unit from what it was, by largest remainders.

    Every class gets its whole units; what is left of 1 goes, a unit each, to the classes that lost most (of equal ones to
    the first). So a larger probability never comes out smaller, which rounding each to the nearest, and letting one of
    them make up for the sum, cannot promise. Where the label would tie with a class before it, the least probable of all
    that tie with it gives it a unit, so that each row's label stays; these two may move by up to two units.
    """
    n_units = 10**options.digits
    exact = probabilities * n_units
    units = np.floor(exact).astype(np.int64)
    place = np.argsort(np.argsort(-(exact - units), axis=1, kind="stable"), axis=1)  # 0 for the class that lost most
    units += place < (n_units - units.sum(axis=1, keepdims=True))
    return _labelled(units, probabilities) / n_units


def _labelled(units: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    label = probabilities.argmax(axis=1)
    lost = np.flatnonzero(units.argmax(axis=1) != label)
    rows, own = units[lost], label[lost]
    is_tied = (rows == np.take_along_axis(rows, own[:, None], axis=1)) & (np.arange(units.shape[1]) != own[:, None])
    giver = np.where(is_tied, probabilities[lost], np.inf).argmin(axis=1)
    units[lost, own] += 1
    units[lost, giver] -= 1
    return units
