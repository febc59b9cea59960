"""Distributions fitted to the values of a signal: normal, kernel density, empirical.

Each says how surprising a fresh value is if it came from the same models as the fitted ones, with the
correction that few fitted values ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import special

Kind = Literal["normal", "kde", "empirical"]


def allowed_beyond(alpha: float, n: int) -> int:
    """k = floor(alpha (n + 1)): a fresh value is among the k most extreme of n + 1 with probability k / (n + 1) <= alpha."""
    return int(np.floor(alpha * (n + 1) + 1e-9))  # 0.05 * 20 is 1, whatever binary fractions say


def log_t_survival(df: int, t: np.ndarray) -> np.ndarray:
    """log P(T > t) of Student's t, also where the probability itself is too small for a float."""
    t = np.asarray(t, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        direct = np.log(special.stdtr(df, -t))
    # P(T > t) = I_x(df/2, 1/2) / 2 with x = df / (df + t^2), by the series of the incomplete beta function
    far = np.maximum(np.abs(t), 2.0)
    log_x = -2 * np.log(far / np.sqrt(df)) - np.log1p(df / far / far)
    x = np.exp(log_x)
    series = special.hyp2f1(0.5 * df + 0.5, 1.0, 0.5 * df + 1.0, x)
    tail = 0.5 * df * log_x + 0.5 * np.log1p(-x) - np.log(df) - special.betaln(0.5 * df, 0.5) + np.log(series)
    return np.where((t > 2.0) & (direct < -600), tail, direct)


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
        return self.std * float(np.sqrt(1 + 1 / self.n))

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log-density of the fitted normal."""
        return -0.5 * np.square((np.asarray(x) - self.mean) / self.std) - np.log(self.std * np.sqrt(2 * np.pi))

    def survival(self, x: np.ndarray) -> np.ndarray:
        """P(a fresh value > x): a t distribution, since mean and spread are estimated."""
        return special.stdtr(self.n - 1, -(np.asarray(x, dtype=float) - self.mean) / self.prediction_scale)

    def log_survival(self, x: np.ndarray) -> np.ndarray:
        """Logarithm of `survival`, finite however far x lies out."""
        return log_t_survival(self.n - 1, (np.asarray(x, dtype=float) - self.mean) / self.prediction_scale)

    def quantile(self, alpha: float) -> float:
        """The value that a fresh one exceeds with probability alpha: mean + t s sqrt(1 + 1/n)."""
        return self.mean - float(special.stdtrit(self.n - 1, alpha)) * self.prediction_scale


@dataclass(frozen=True)
class Kde:
    """A Gaussian kernel density with Scott's bandwidth: that of scipy.stats.gaussian_kde."""

    values: np.ndarray  # [n] sorted

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def bandwidth(self) -> float:
        return float(self.n**-0.2 * self.values.std(ddof=1))

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log-density."""
        z = (self.values - np.asarray(x, dtype=float)[..., None]) / self.bandwidth
        return special.logsumexp(-0.5 * z * z, axis=-1) - np.log(self.n * self.bandwidth * np.sqrt(2 * np.pi))

    def survival(self, x: np.ndarray) -> np.ndarray:
        """Mass of the density above x."""
        return np.exp(self.log_survival(x))

    def log_survival(self, x: np.ndarray) -> np.ndarray:
        """Logarithm of `survival`, finite however far x lies out."""
        z = (self.values - np.asarray(x, dtype=float)[..., None]) / self.bandwidth
        return special.logsumexp(special.log_ndtr(z), axis=-1) - np.log(self.n)

    @cached_property
    def log_tail_left_out(self) -> np.ndarray:
        """For each value, the log-mass above it of the density of all others, [n]."""
        z = (self.values[None, :] - self.values[:, None]) / bandwidths_left_out(self.values)[:, None]
        log_mass = special.log_ndtr(z)
        np.fill_diagonal(log_mass, -np.inf)
        return special.logsumexp(log_mass, axis=1) - np.log(self.n - 1)

    def quantile(self, alpha: float) -> float:
        """The value that a fresh one exceeds with probability at most alpha.

        A kernel density is too wide for some shapes and its tail too thin for others. Its nominal level is
        therefore the k-th smallest leave-one-out tail, k = floor(alpha (n + 1)): a fresh value is as likely as
        any fitted one to be among the k most extreme. With k = 0 no level keeps the promise: infinity.
        """
        k = allowed_beyond(alpha, self.n)
        if k == 0:
            return np.inf
        level = float(np.sort(self.log_tail_left_out)[k - 1])
        low, high = float(self.values[0]) - 10 * self.bandwidth, float(self.values[-1]) + 40 * self.bandwidth
        while self.log_survival(np.array(high)) > level:  # a far outlier, left out, has a tail beyond all measure
            high = 2 * high - low
        for _ in range(100):  # bisection: the tail falls with x
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.log_survival(np.array(middle)) > level else (low, middle)
        return high


def bandwidths_left_out(values: np.ndarray) -> np.ndarray:
    """Scott's bandwidth of a kernel density without each value in turn, [..., n] as `values`."""
    n = values.shape[-1]
    centred = values - values.mean(axis=-1, keepdims=True)
    squares = np.square(centred)
    # leaving v out takes v^2 n / (n - 1) from the sum of squares about the mean
    rest = squares.sum(axis=-1, keepdims=True) - squares * n / (n - 1)
    spread = values.max(axis=-1, keepdims=True) - values.min(axis=-1, keepdims=True)
    return (n - 1) ** -0.2 * np.maximum(np.sqrt(np.maximum(rest, 0.0) / (n - 2)), 1e-9 * spread)  # not 0 where the others are equal


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

    def log_survival(self, x: np.ndarray) -> np.ndarray:
        """Logarithm of `survival`."""
        return np.log(self.survival(x))

    def quantile(self, alpha: float) -> float:
        """The k-th largest value, k = floor(alpha (n + 1)), to be exceeded strictly; infinity when k = 0."""
        k = allowed_beyond(alpha, self.n)
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
