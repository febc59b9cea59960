"""Coverage of the intervals of AUC and of TPR at a fixed FPR in 1,000 worlds each. Run with -s to see the measured tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from memleak.metrics import roc

pytestmark = pytest.mark.long
N_WORLDS = 1000
LEAST = 0.93  # of worlds in which a 95 % interval has to hold the truth

Draw = Callable[[np.random.Generator, int], np.ndarray]


def unit(distance: float = 0.0) -> Draw:
    """Unit normal scores around `distance`."""
    return lambda draw, n: draw.normal(distance, 1, n)


def coverage(
    what: str, interval: Callable[[np.ndarray, np.ndarray], tuple[float, float]], truth: float, members: Draw, others: Draw, m: int, n: int
) -> float:
    """The share of worlds whose interval holds the truth; prints it with the misses on either side and the width."""
    draw, is_member = np.random.default_rng([m, n]), np.repeat([True, False], [m, n])
    low, high = np.array([interval(np.concatenate([members(draw, m), others(draw, n)]), is_member) for _ in range(N_WORLDS)]).T
    covers = float(np.mean((low <= truth) & (truth <= high)))
    print(
        f"{what:36s} m {m:6d} n {n:6d} truth {truth:.4f}: covers {covers:.3f}, "
        f"below the truth {np.mean(high < truth):.3f}, above {np.mean(low > truth):.3f}, width {np.mean(high - low):.4f}"
    )
    return covers


def tpr_interval(f: float) -> Callable[[np.ndarray, np.ndarray], tuple[float, float]]:
    def interval(scores: np.ndarray, is_member: np.ndarray) -> tuple[float, float]:
        rate = roc.tpr_at_fpr(scores, is_member, f)
        return rate.low, rate.high

    return interval


def auc_interval(scores: np.ndarray, is_member: np.ndarray) -> tuple[float, float]:
    found = roc.auc_with_interval(scores, is_member)
    return found.low, found.high


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("f", [0.01, 0.001])
@pytest.mark.parametrize("n", [500, 5000, 25_000])
def test_tpr_at_fpr_of_two_gaussians(n, f, distance):
    truth = norm.cdf(distance - norm.isf(f))

    assert coverage(f"TPR at {f}, distance {distance}", tpr_interval(f), truth, unit(distance), unit(), n, n) >= LEAST


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("m", "n", "f"), [(50, 50, 0.1), (1000, 1000, 0.1), (100, 10_000, 0.01), (5000, 500, 0.01), (10_000, 100, 0.1), (500, 5000, 1e-4), (5000, 5000, 0.5)]
)  # fmt: skip
def test_tpr_at_fpr_of_unequal_numbers_and_other_rates(m, n, f, distance):
    truth = norm.cdf(distance - norm.isf(f))

    assert coverage(f"TPR at {f}, distance {distance}", tpr_interval(f), truth, unit(distance), unit(), m, n) >= LEAST


def blocks(width: float, f: float, distance: float) -> Draw:
    """Normal scores cut into blocks, of which one begins exactly where the true FPR is f: the worst place for a tie."""
    return lambda draw, n: np.floor((draw.normal(distance, 1, n) - norm.isf(f)) / width)


@pytest.mark.parametrize("width", [1.0, 0.1, 0.02, 0.005, 0.001])
@pytest.mark.parametrize(("n", "f"), [(500, 0.01), (5000, 0.01), (5000, 0.001), (25_000, 0.01)])
def test_tpr_at_fpr_of_scores_that_tie(n, f, width):
    truth = norm.cdf(2 - norm.isf(f))

    assert coverage(f"TPR at {f}, blocks of {width}", tpr_interval(f), truth, blocks(width, f, 2.0), blocks(width, f, 0.0), n, n) >= LEAST


@pytest.mark.parametrize(("n", "f"), [(500, 0.01), (5000, 0.01), (5000, 0.001), (25_000, 0.001)])
def test_tpr_at_fpr_of_worlds_that_are_not_normal(n, f):
    """A yes or no that accuses f of the non-members; and a world in which 5 % of the members are known outright."""
    yes = lambda rate: lambda draw, k: (draw.random(k) < rate).astype(float)  # noqa: E731
    far = lambda draw, k: draw.normal(size=k) + 6 * (draw.random(k) < 0.05)  # noqa: E731

    assert coverage(f"TPR at {f}, yes or no", tpr_interval(f), 0.3, yes(0.3), yes(f), n, n) >= LEAST
    assert coverage(f"TPR at {f}, 5 % far", tpr_interval(f), 0.95 * f + 0.05 * norm.sf(norm.isf(f) - 6), far, unit(), n, n) >= LEAST


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("n", [16, 40, 100, 500, 5000, 25_000])
def test_the_auc_of_two_gaussians(n, distance):
    assert coverage(f"AUC, distance {distance}", auc_interval, norm.cdf(distance / np.sqrt(2)), unit(distance), unit(), n, n) >= LEAST


UNLIKE: dict[str, tuple[Draw, float]] = {
    "wide": (lambda draw, n: draw.normal(0.5, 3, n), norm.cdf(0.5 / np.sqrt(10))),
    "narrow": (lambda draw, n: draw.normal(1, 0.2, n), norm.cdf(1 / np.sqrt(1.04))),
    "5 % far": (lambda draw, n: draw.normal(size=n) + 5 * (draw.random(n) < 0.05), 0.95 * 0.5 + 0.05 * norm.cdf(5 / np.sqrt(2))),
    "70 % far": (lambda draw, n: draw.normal(size=n) + 6 * (draw.random(n) < 0.7), 0.3 * 0.5 + 0.7 * norm.cdf(6 / np.sqrt(2))),
    "rounded": (lambda draw, n: np.round(draw.normal(1, 1, n)), 0.0),  # the truth is worked out below
}


@pytest.mark.parametrize("world", UNLIKE)
@pytest.mark.parametrize(
    ("m", "n", "least"), [(16, 16, 0.90), (100, 100, LEAST), (20, 2000, 0.91), (500, 500, LEAST), (5000, 5000, LEAST), (25_000, 25_000, LEAST)]
)
def test_the_auc_of_members_spread_unlike_non_members(world, m, n, least):
    """With few scores of one arm the interval holds the truth in 90 % of worlds, not 95: printed, and said here."""
    members, truth = UNLIKE[world]
    others = unit()
    if world == "rounded":
        others = lambda draw, k: np.round(draw.normal(size=k))  # noqa: E731
        values = np.arange(-9, 11)
        inside, outside = (norm.cdf(values + 0.5, mean) - norm.cdf(values - 0.5, mean) for mean in (1, 0))
        truth = float(inside @ (np.cumsum(outside) - outside / 2))

    assert coverage(f"AUC, {world}", auc_interval, truth, members, others, m, n) >= least
