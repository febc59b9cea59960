"""Decisions at alpha: the rate of false accusations among fresh models, from few fitted ones."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest import approx
from scipy import stats
from worlds import WORLDS

from memleak.metrics import decisions
from memleak.metrics.decisions import fit, likelihood_ratio, threshold, threshold_rule


def rates(world, kind: str, n: int, alpha: float, n_worlds: int, shift: float | None = None, scale: float = 1.0) -> np.ndarray:
    """The exact false-positive rate of the rule in each of many worlds; with `shift`, of the likelihood-ratio test."""
    draw, found = np.random.default_rng(0), []
    for _ in range(n_worlds):
        outside = fit(world.draw(draw, n), kind)
        rule = threshold_rule(outside, alpha) if shift is None else likelihood_ratio(fit(shift + scale * world.draw(draw, n), kind), outside, alpha)
        found.append(world.rate(rule))
    return np.array(found)


def keeps(found: np.ndarray, alpha: float) -> bool:
    return found.mean() <= alpha + 4 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize("n", [8, 20, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_normal_threshold_keeps_alpha_exactly_where_values_are_normal(n, alpha):
    found = rates(WORLDS["normal"], "normal", n, alpha, 1500)

    assert found.mean() == approx(alpha, abs=4 * found.std() / np.sqrt(1500))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["kde", "empirical"])
@pytest.mark.parametrize(("n", "alpha"), [(8, 0.2), (24, 0.05), (60, 0.1)])
def test_kernel_and_empirical_thresholds_keep_alpha_in_every_world(world, kind, n, alpha):
    assert keeps(rates(WORLDS[world], kind, n, alpha, 150 if kind == "kde" else 800), alpha)


def test_the_empirical_rate_is_k_over_n_plus_one():
    """floor(0.1 x 25) / 25 = 2 / 25, whatever the distribution."""
    found = rates(WORLDS["skewed"], "empirical", 24, 0.1, 3000)

    assert found.mean() == approx(2 / 25, abs=0.004)


@pytest.mark.parametrize("kind", ["kde", "empirical"])
def test_too_few_values_never_accuse(kind):
    """floor(0.05 x 19) = 0: no threshold from 18 values keeps 5 %."""
    fitted = fit(np.arange(18.0), kind)

    assert threshold(fitted, 0.05) == np.inf
    assert not threshold_rule(fitted, 0.05).says_member(np.array([1e300])).any()
    assert likelihood_ratio(fit(np.arange(18.0) + 9, "kde"), fit(np.arange(18.0), "kde"), 0.05).intervals == ()


def test_a_value_at_the_threshold_is_not_accused():
    rule = threshold_rule(fit(np.arange(19.0), "empirical"), 0.05)

    assert rule.says_member(np.array([17.0, 18.0, np.nextafter(18.0, 19.0)])).tolist() == [False, False, True]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, np.nan])
def test_an_alpha_outside_zero_and_one_is_refused(alpha):
    with pytest.raises(ValueError, match="expected a false-positive rate between 0 and 1"):
        threshold(fit(np.arange(5.0)), alpha)


@pytest.mark.parametrize("n", [8, 24])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.5, 1), (1, 2), (1, 0.5), (-1, 1)])
def test_the_normal_likelihood_ratio_keeps_alpha_exactly_however_in_lies(n, shift, scale):
    """A cut on the fitted OUT density would give 8.7 % for 5 % here (n = 8, IN like OUT)."""
    found = rates(WORLDS["normal"], "normal", n, 0.05, 120, shift, scale)

    assert found.mean() == approx(0.05, abs=4 * found.std() / np.sqrt(len(found)) + 1e-3)


@pytest.mark.parametrize("world", WORLDS)
def test_the_kernel_likelihood_ratio_keeps_alpha_in_every_world(world):
    assert keeps(rates(WORLDS[world], "kde", 20, 0.1, 25, shift=0.0), 0.1)
    assert keeps(rates(WORLDS[world], "kde", 20, 0.1, 25, shift=0.5, scale=2.0), 0.1)


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (1.0, 2.0), (1.0, 0.5), (-2.0, 1.0), (0.0, 2.0), (0.0, 0.5)])
def test_from_many_values_the_region_is_the_most_powerful_one_and_its_out_mass_alpha(shift, scale):
    """Neyman and Pearson: no region of OUT mass 0.1 has more IN mass. The oracle knows both densities and looks at a fine grid."""
    draw = np.random.default_rng(2)
    rule = likelihood_ratio(fit(draw.normal(shift, scale, 20_000)), fit(draw.normal(size=20_000)), 0.1)
    x = np.linspace(-12, 12, 48001)
    inside, outside = stats.norm(shift, scale), stats.norm()
    order = np.argsort(outside.logpdf(x) - inside.logpdf(x))
    best = inside.pdf(x)[order][np.cumsum(outside.pdf(x)[order]) * 5e-4 <= 0.1].sum() * 5e-4

    assert sum(outside.cdf(b) - outside.cdf(a) for a, b in rule.intervals) == approx(0.1, abs=0.01)
    assert sum(inside.cdf(b) - inside.cdf(a) for a, b in rule.intervals) == approx(best, abs=0.025)


def test_a_wider_in_accuses_both_sides_and_a_narrower_one_the_middle():
    draw = np.random.default_rng(0)
    outside = fit(draw.normal(size=2000))

    wide = likelihood_ratio(fit(3 * draw.normal(size=2000)), outside, 0.05)
    narrow = likelihood_ratio(fit(0.1 * draw.normal(size=2000)), outside, 0.05)

    assert wide.says_member(np.array([-3.0, 0.0, 3.0])).tolist() == [True, False, True]
    assert narrow.says_member(np.array([-3.0, 0.0, 3.0])).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["normal", "kde"])
def test_equal_fits_accuse_nobody(kind):
    values = np.random.default_rng(0).normal(size=24)

    assert likelihood_ratio(fit(values, kind), fit(values, kind), 0.05).intervals == ()


@pytest.mark.parametrize("kind", ["normal", "kde"])
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("apart", [60.0, -60.0])
def test_arms_far_apart_are_told_apart_perfectly(kind, spread, apart):
    draw = np.random.default_rng(0)
    inside, outside = apart + spread * draw.normal(size=24), spread * draw.normal(size=24)
    rule = likelihood_ratio(fit(inside, kind), fit(outside, kind), 0.05)

    assert rule.says_member(inside).all() and rule.says_member(outside).sum() <= 2
    assert all(isinstance(edge, float) and not np.isnan(edge) for pair in rule.intervals for edge in pair)


@pytest.mark.parametrize("kind", ["normal", "kde"])
def test_moving_and_stretching_all_values_moves_and_stretches_the_rule(kind):
    draw = np.random.default_rng(1)
    inside, outside = draw.normal(1, 2, 30), draw.normal(size=30)

    plain = likelihood_ratio(fit(inside, kind), fit(outside, kind), 0.1)
    moved = likelihood_ratio(fit(1000 + 5 * inside, kind), fit(1000 + 5 * outside, kind), 0.1)

    assert np.array(moved.intervals) == approx(1000 + 5 * np.array(plain.intervals), abs=1e-4)


def test_a_one_sided_region_is_that_of_the_threshold():
    draw = np.random.default_rng(3)
    inside, outside = fit(draw.normal(30, 1, 20)), fit(draw.normal(size=20))

    assert likelihood_ratio(inside, outside, 0.05).intervals[0][0] == approx(threshold(outside, 0.05), abs=1e-6)


def test_densities_of_two_kinds_have_no_ratio():
    with pytest.raises(ValueError, match="both must be normal, or both kde"):
        likelihood_ratio(fit(np.arange(9.0), "kde"), fit(np.arange(9.0), "normal"), 0.05)


def test_a_rule_is_made_in_well_under_a_second():
    draw = np.random.default_rng(0)
    started = time.perf_counter()
    for kind in ("normal", "kde"):
        likelihood_ratio(fit(draw.normal(1, 1, 60), kind), fit(draw.normal(size=60), kind), 0.05)
        threshold_rule(fit(draw.normal(size=60), kind), 0.05)

    assert time.perf_counter() - started < 3  # measured 0.15 s; room for a busy machine


def test_a_rule_is_open_at_both_ends():
    rule = decisions.Rule(((0.0, 1.0),), 0.1)

    assert rule.says_member(np.array([0.0, 0.5, 1.0])).tolist() == [False, True, False]
