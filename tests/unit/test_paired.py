"""The paired test: exact, honest about ties, and clear about how many rounds it needs."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics import paired
from memleak.metrics.paired import effect_interval, power, rounds_needed, sign_flip_test, smallest_p


def test_the_p_value_of_three_rounds_by_hand():
    """Of 1, 2, 3 only + + + reaches 6: 1 of 8. Of -1, 2, 3 the sum 4 is reached by 1 + 2 + 3 and -1 + 2 + 3: 2 of 8."""
    assert sign_flip_test(np.array([1.0, 2.0, 3.0])) == 1 / 8
    assert sign_flip_test(np.array([-1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip_test(np.array([-1.0, -2.0, -3.0])) == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_p_value_is_that_of_brute_force(n):
    draw = np.random.default_rng(n)
    for values in (draw.normal(0.3, 1, n), draw.integers(-2, 4, n).astype(float)):
        sums = [np.dot(signs, values) for signs in itertools.product([-1, 1], repeat=n)]
        assert sign_flip_test(values) == np.mean([total >= values.sum() - 1e-9 for total in sums])


@pytest.mark.parametrize("n", [1, 6, 16, 17, 60])
def test_no_difference_at_all_gives_p_one(n):
    assert sign_flip_test(np.zeros(n)) == 1.0


def test_sums_that_differ_by_rounding_alone_are_equal():
    """0.1 + 0.2 is not 0.3 in binary; integers have no such trouble."""
    tenths = np.array([1, 2, -3, 4, 5, -6])
    assert sign_flip_test(tenths / 10) == sign_flip_test(tenths * 1.0) == sign_flip_test(tenths * 1e-9)


@pytest.mark.parametrize("values", ["continuous", "tied"])
def test_p_values_of_the_null_are_never_too_small(values):
    draw = np.random.default_rng(0)
    sample = (lambda: draw.standard_t(2, 8)) if values == "continuous" else (lambda: draw.integers(-1, 2, 8).astype(float))
    p = np.array([sign_flip_test(sample()) for _ in range(4000)])

    for level in (1 / 256, 0.01, 0.05, 0.1, 0.25, 0.5):
        allowed = np.floor(level * 256) / 256
        share = np.mean(p <= level)
        assert share <= allowed + 4 * np.sqrt(allowed / 4000)
        assert values == "tied" or share == approx(allowed, abs=4 * np.sqrt(allowed / 4000))


def test_drawn_p_values_come_close_to_the_exact_ones_and_are_never_zero():
    draw = np.random.default_rng(3)
    for shift in (0.0, 0.3, 0.6):
        d = draw.normal(shift, 1, 18)
        sums = (1 - 2 * ((np.arange(2**18)[:, None] >> np.arange(18)) & 1)) @ d
        exact = np.mean(sums >= d.sum() - 1e-9)
        assert sign_flip_test(d) == approx(exact, abs=4 * np.sqrt(exact / 1e5) + 2e-5)
    assert sign_flip_test(np.ones(100)) == smallest_p(100) == 1e-5
    assert sign_flip_test(np.ones(16)) == smallest_p(16) == 2.0**-16


def test_many_rounds_fit_in_little_memory():
    tracemalloc.start()
    sign_flip_test(np.random.default_rng(0).normal(size=300))
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_differences_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="expected finite values of one or more rounds"):
        sign_flip_test(bad)


@pytest.mark.parametrize(("effect", "n"), [(0.0, 5), (0.5, 8), (2.0, 8), (6.0, 24)])
def test_the_effects_interval_covers(effect, n):
    draw, n_worlds = np.random.default_rng(1), 400
    found = [effect_interval(draw.normal(effect, 1, n)) for _ in range(n_worlds)]

    assert np.mean([low <= effect <= high for _, low, high in found]) == approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n_worlds))


@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-3, 1e-6, 1e-9])
def test_the_effects_interval_holds_the_effect_however_large(spread):
    """SciPy's inverse of the non-central t stops at 1e6 and would put the effect outside its own interval."""
    d = 60 + spread * np.random.default_rng(0).normal(size=24)
    effect, low, high = effect_interval(d)
    ratio = np.sqrt(stats.chi2(23).ppf([0.025, 0.975]) / 23)

    assert low < effect < high
    assert effect < 100 or [low / effect, high / effect] == approx(ratio.tolist(), rel=0.01)


def test_equal_differences_have_an_infinite_effect_or_none():
    assert effect_interval(np.full(7, 0.1)) == (np.inf, np.inf, np.inf)
    assert effect_interval(np.full(7, -59.3)) == (-np.inf, -np.inf, -np.inf)
    assert effect_interval(np.zeros(7)) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="two or more"):
        effect_interval(np.ones(1))


@pytest.mark.parametrize(("effect", "alpha"), [(0.8, 0.05), (1.0, 0.05), (1.2, 0.05 / 6), (1.5, 0.05), (2.0, 0.05 / 6)])
def test_the_rounds_needed_give_about_the_wanted_power(effect, alpha):
    n, draw = rounds_needed(effect, alpha), np.random.default_rng(0)
    d = draw.normal(effect, 1, (300, n))
    found = np.mean([sign_flip_test(row) <= alpha for row in d])

    assert found > 0.74
    assert n == max(2, int(np.ceil(-np.log2(alpha)))) or power(effect, n - 1, alpha) < 0.8


def test_rounds_needed_fall_with_the_effect_and_end_at_what_p_values_allow():
    needed = [rounds_needed(effect, 0.05) for effect in (0.05, 0.1, 0.3, 0.6, 1.0, 3.0, 100.0, 1e6, np.inf)]

    assert needed == sorted(needed, reverse=True) and needed[-1] == 5  # 2^-5 < 0.05 < 2^-4
    assert rounds_needed(0.0, 0.05) is None and rounds_needed(-1.0, 0.05) is None and rounds_needed(1e-4, 0.05) is None


def test_the_two_sided_test_sees_both_sides():
    assert paired.two_sided(np.ones(8)) == paired.two_sided(-np.ones(8)) == 2 / 256
    assert paired.two_sided(np.zeros(8)) == 1.0
