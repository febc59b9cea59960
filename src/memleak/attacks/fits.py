"""Distributions fitted to the values of a signal: normal, kernel density, empirical.

Each says how surprising a fresh value is if it came from the same models as the fitted ones, with the
correction that few fitted values ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import special

Kind = Literal["normal", "kde", "empirical"]


@dataclass(frozen=True)
class Normal:
    """A normal distribution with estimated mean and standard deviation."""

    values: np.ndarray  # [n] sorted

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        return float(self.values.mean())

    @cached_property
    def std(self) -> float:
        return float(self.values.std(ddof=1))

    @property
    def prediction_scale(self) -> float:
        """Spread of (a fresh value - the estimated mean)."""
        return self.std * np.sqrt(1 + 1 / self.n)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log-density of the fitted normal."""
        return -0.5 * np.square((np.asarray(x) - self.mean) / self.std) - np.log(self.std * np.sqrt(2 * np.pi))

    def survival(self, x: np.ndarray) -> np.ndarray:
        """P(a fresh value > x): a t distribution, since mean and spread are estimated."""
        return special.stdtr(self.n - 1, -(np.asarray(x, dtype=float) - self.mean) / self.prediction_scale)

    def quantile(self, alpha: float) -> float:
        """The value that a fresh one exceeds with probability alpha: mean + t s sqrt(1 + 1/n)."""
        return self.mean - float(special.stdtrit(self.n - 1, alpha)) * self.prediction_scale


@dataclass(frozen=True)
class Kde:
    """A Gaussian kernel density with Scott's bandwidth (SciPy's)."""

    values: np.ndarray  # [n] sorted

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def _density(self) -> Any:  # a scipy.stats.gaussian_kde; the import is slow, so it waits until it is needed
        from scipy.stats import gaussian_kde

        return gaussian_kde(self.values)

    @cached_property
    def bandwidth(self) -> float:
        return float(np.sqrt(self._density.covariance[0, 0]))

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log-density."""
        return self._density.logpdf(np.atleast_1d(x))

    def survival(self, x: np.ndarray) -> np.ndarray:
        """Mass of the density above x."""
        return special.ndtr((self.values - np.asarray(x, dtype=float)[..., None]) / self.bandwidth).mean(axis=-1)

    @cached_property
    def leave_one_out_survival(self) -> np.ndarray:
        """For each value, the mass above it of the density of all others, [n]."""
        factor = (self.n - 1) ** -0.2
        tails = np.empty(self.n)
        for i, value in enumerate(self.values):
            others = np.delete(self.values, i)
            tails[i] = special.ndtr((others - value) / (factor * others.std(ddof=1))).mean()
        return tails

    def quantile(self, alpha: float) -> float:
        """The value that a fresh one exceeds with probability at most alpha.

        A kernel density is too wide for some shapes and its tail too thin for others. Its nominal level is
        therefore the k-th smallest leave-one-out tail, k = floor(alpha (n + 1)): a fresh value is as likely as
        any fitted one to be among the k most extreme. With k = 0 no level keeps the promise: infinity.
        """
        k = int(np.floor(alpha * (self.n + 1) + 1e-9))
        if k == 0:
            return np.inf
        level = float(np.sort(self.leave_one_out_survival)[k - 1])
        low, high = float(self.values[0]) - 10 * self.bandwidth, float(self.values[-1]) + 40 * self.bandwidth
        for _ in range(100):  # bisection: the tail falls with x
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.survival(np.array(middle)) > level else (low, middle)
        return high


@dataclass(frozen=True)
class Empirical:
    """The values themselves; nothing is assumed but that a fresh value is exchangeable with them."""

    values: np.ndarray  # [n] sorted

    @property
    def n(self) -> int:
        return len(self.values)

    def survival(self, x: np.ndarray) -> np.ndarray:
        """(1 + number of values >= x) / (n + 1), the p-value of a fresh value."""
        at_least = self.n - np.searchsorted(self.values, np.asarray(x, dtype=float), side="left")
        return (1 + at_least) / (self.n + 1)

    def quantile(self, alpha: float) -> float:
        """The k-th largest value, k = floor(alpha (n + 1)), to be exceeded strictly; infinity when k = 0."""
        k = int(np.floor(alpha * (self.n + 1) + 1e-9))  # 0.05 * 20 is 1, whatever binary fractions say
        return float(self.values[self.n - k]) if k > 0 else np.inf


Fit = Normal | Kde | Empirical


def fit(values: np.ndarray, kind: Kind = "normal") -> Fit:
    """Fit a distribution to values [n]; raises ValueError for too few, non-finite or constant values."""
    found = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if kind not in ("normal", "kde", "empirical"):
        raise ValueError(f"kind '{kind}' is not known; use normal, kde or empirical")
    if not np.isfinite(found).all():
        raise ValueError(f"{int((~np.isfinite(found)).sum())} of {len(found)} values are not finite")
    least = {"normal": 2, "kde": 3, "empirical": 1}[kind]
    if len(found) < least:
        raise ValueError(f"{len(found)} values are too few for fit: {kind}, which needs {least}; add rounds")
    if kind != "empirical" and found[0] == found[-1]:
        raise ValueError(f"all {len(found)} values are {found[0]:g}; fit: {kind} needs spread; use fit: empirical")
    kinds: dict[str, type[Fit]] = {"normal": Normal, "kde": Kde, "empirical": Empirical}
    return kinds[kind](found)
