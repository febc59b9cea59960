"""Neyman-Pearson decisions at a false-positive rate alpha, from few models (DESIGN, Statistics 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memleak.attacks.fits import Fit, Kde, Normal, fit

__all__ = ["Rule", "fit", "likelihood_ratio", "threshold", "threshold_rule"]


@dataclass(frozen=True)
class Rule:
    """Say "member" where the statistic lies strictly inside one of the intervals."""

    intervals: tuple[tuple[float, float], ...]
    alpha: float
    cut: float | None = None  # of the log-likelihood ratio, nats

    def says_member(self, values: np.ndarray) -> np.ndarray:
        """A decision for each value."""
        x = np.asarray(values, dtype=np.float64)
        return np.any([(low < x) & (x < high) for low, high in self.intervals], axis=0) if self.intervals else np.zeros(x.shape, bool)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected a false-positive rate between 0 and 1")


def threshold(fit_out: Fit, alpha: float) -> float:
    """The value beyond which a model is said to have trained on the record; infinity where too few values allow none.

    Normal: t prediction quantile. KDE: leave-one-out level. Empirical: the floor(alpha (n + 1))-th largest value.
    """
    _check_alpha(alpha)
    return fit_out.quantile(alpha)


def threshold_rule(fit_out: Fit, alpha: float) -> Rule:
    """The one-sided rule of `threshold`."""
    cut = threshold(fit_out, alpha)
    return Rule(((cut, np.inf),) if np.isfinite(cut) else (), alpha)


def likelihood_ratio(fit_in: Fit, fit_out: Fit, alpha: float) -> Rule:
    """The most powerful test between two fitted densities: "member" where log f_in - log f_out exceeds a cut.

    The cut is set so that the OUT mass of that region is alpha. With unequal variances the region of two normals
    lies on both sides, or between two values. Normal: the mass is that of the t prediction distribution.
    """
    _check_alpha(alpha)
    if isinstance(fit_in, Normal) and isinstance(fit_out, Normal):
        region = _normal_region(fit_in, fit_out)
    elif isinstance(fit_in, Kde) and isinstance(fit_out, Kde):
        region = _grid_region(fit_in, fit_out)
    else:
        raise ValueError(f"likelihood ratio of {type(fit_in).__name__} and {type(fit_out).__name__}: both must be normal, or both kde")

    def mass(cut: float) -> float:
        edges = np.array(region(cut)).reshape(-1, 2)
        return float((fit_out.survival(edges[:, 0]) - fit_out.survival(edges[:, 1])).sum())

    low, high = -1.0, 1.0
    while mass(low) < alpha and low > -1e6:
        low *= 2
    while mass(high) > alpha and high < 1e6:
        high *= 2
    for _ in range(200):  # bisection: the mass falls with the cut; `high` keeps the level
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mass(middle) > alpha else (low, middle)
    return Rule(tuple(region(high)), alpha, high)


Region = Callable[[float], list[tuple[float, float]]]


def _normal_region(fit_in: Normal, fit_out: Normal) -> Region:
    """Where the log ratio a x^2 + b x + c of two normals exceeds a cut."""
    a = 0.5 / fit_out.std**2 - 0.5 / fit_in.std**2
    b = fit_in.mean / fit_in.std**2 - fit_out.mean / fit_out.std**2
    c = 0.5 * (fit_out.mean / fit_out.std) ** 2 - 0.5 * (fit_in.mean / fit_in.std) ** 2 + np.log(fit_out.std / fit_in.std)

    def region(cut: float) -> list[tuple[float, float]]:
        level = c - cut
        if abs(a) < 1e-12 * (b * b + 1e-300):  # equal variances: a half-line
            if b == 0:
                return [(-np.inf, np.inf)] if level > 0 else []
            edge = float(-level / b)
            return [(edge, np.inf)] if b > 0 else [(-np.inf, edge)]
        discriminant = b * b - 4 * a * level
        if discriminant <= 0:
            return [(-np.inf, np.inf)] if a > 0 else []
        half = -0.5 * (b + np.copysign(np.sqrt(discriminant), b))  # the stable form of the two roots
        roots = sorted((float(half / a), float(level / half) if half else float(-half / a)))
        return [(-np.inf, roots[0]), (roots[1], np.inf)] if a > 0 else [(roots[0], roots[1])]

    return region


def _grid_region(fit_in: Kde, fit_out: Kde, n_points: int = 4001) -> Region:
    """Where the log ratio of two densities exceeds a cut, found between the points of a fine grid."""
    reach = 8 * max(fit_in.bandwidth, fit_out.bandwidth)
    grid = np.linspace(min(fit_in.values[0], fit_out.values[0]) - reach, max(fit_in.values[-1], fit_out.values[-1]) + reach, n_points)
    ratio = fit_in.logpdf(grid) - fit_out.logpdf(grid)

    def region(cut: float) -> list[tuple[float, float]]:
        above = ratio > cut
        change = np.flatnonzero(above[1:] != above[:-1])
        step = (cut - ratio[change]) / (ratio[change + 1] - ratio[change])
        edges = (grid[change] + step * (grid[change + 1] - grid[change])).tolist()
        edges = ([-np.inf] if above[0] else []) + edges + ([np.inf] if above[-1] else [])
        return list(zip(edges[::2], edges[1::2], strict=True))

    return region
