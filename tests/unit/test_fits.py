"""Fitted distributions: tails that neither underflow nor promise too much."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.attacks.fits import allowed_beyond, bandwidths_left_out, fit, log_t_survival

VALUES = np.array([0.3, -1.2, 2.0, 0.7, 1.1, -0.4, 0.0, 0.9])
KINDS = ("normal", "kde", "empirical")


def test_the_normal_quantile_is_the_t_prediction_quantile():
    """1, 2, 3 have mean 2 and spread 1; t(2) has 0.9 below 1.8856: 2 + 1.8856 sqrt(4 / 3)."""
    assert fit(np.array([1.0, 2.0, 3.0]), "normal").quantile(0.1) == approx(2 + 1.885618 * np.sqrt(4 / 3), rel=1e-6)


def test_the_normal_survival_is_that_of_a_t_distribution():
    fitted = fit(VALUES, "normal")
    t = (np.array([-1.0, 0.5, 3.0]) - VALUES.mean()) / (VALUES.std(ddof=1) * np.sqrt(1 + 1 / 8))

    assert fitted.survival(np.array([-1.0, 0.5, 3.0])) == approx(stats.t(7).sf(t))
    assert fitted.survival(np.array(fitted.quantile(0.03))) == approx(0.03)


def test_the_kernel_density_is_scipys():
    scipys, x = stats.gaussian_kde(VALUES), np.linspace(-4, 6, 50)

    assert fit(VALUES, "kde").logpdf(x) == approx(scipys.logpdf(x))
    assert fit(VALUES, "kde").survival(np.array([0.8])).item() == approx(scipys.integrate_box_1d(0.8, np.inf))


def test_left_out_bandwidths_are_those_of_densities_without_each_value():
    expected = [np.sqrt(stats.gaussian_kde(np.delete(VALUES, i)).covariance[0, 0]) for i in range(8)]

    assert bandwidths_left_out(VALUES) == approx(expected)


def test_left_out_tails_are_those_of_densities_without_each_value():
    values = np.sort(VALUES)
    expected = [stats.gaussian_kde(np.delete(values, i)).integrate_box_1d(value, np.inf) for i, value in enumerate(values)]

    assert np.exp(fit(VALUES, "kde").log_tail_left_out) == approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "n", "k"), [(0.05, 18, 0), (0.05, 19, 1), (0.1, 9, 1), (0.1, 29, 3), (0.15, 19, 3), (0.07, 99, 7), (0.29, 99, 29), (0.05, 59, 3)]
)
def test_the_allowed_number_is_the_floor_of_alpha_times_n_plus_one(alpha, n, k):
    """Also where binary fractions fall short of an integer: 0.29 x 100 is 28.999999999999996."""
    assert allowed_beyond(alpha, n) == k


def test_the_empirical_quantile_is_the_kth_largest_value():
    values = np.arange(1.0, 41.0)  # floor(0.05 x 41) = 2

    assert fit(values, "empirical").quantile(0.05) == 39
    assert fit(values[:19], "empirical").quantile(0.05) == 19
    assert fit(values[:18], "empirical").quantile(0.05) == np.inf


def test_the_empirical_p_value_counts_ties_against_membership():
    fitted = fit(np.array([1.0, 2.0, 2.0, 3.0]), "empirical")

    assert fitted.survival(np.array([4.0, 3.0, 2.0, 1.5, 0.0])) == approx([0.2, 0.4, 0.8, 0.8, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_tail_falls_with_x_and_is_never_zero_in_logarithms(kind):
    fitted, x = fit(VALUES, kind), np.concatenate([np.linspace(-9, 9, 100), np.geomspace(10, 1e12, 100)])
    log_tail = fitted.log_survival(x)

    assert np.isfinite(log_tail).all()
    assert (np.diff(log_tail) <= 1e-12).all()
    if kind != "empirical":
        assert (np.diff(log_tail[-100:]) < 0).all()


@pytest.mark.parametrize("df", [1, 5, 23, 199, 5000])
def test_the_log_tail_of_t_agrees_with_scipy_where_scipy_can_and_goes_on_where_it_cannot(df):
    t = np.array([-30.0, -1.0, 0.0, 1.0, 5.0, 20.0])
    tail = log_t_survival(df, t)
    where = tail > -600
    far = np.geomspace(1e2, 1e30, 300)

    assert tail[where] == approx(stats.t(df).logsf(t)[where], rel=1e-9)
    assert (np.diff(log_t_survival(df, far)) < 0).all()
    # far out the tail of t is a power of t: the slope of the log is -df
    assert np.diff(log_t_survival(df, np.array([1e20, 1e21]))) == approx([-df * np.log(10)], rel=1e-6)


def test_the_log_tail_is_continuous_where_its_formula_changes():
    t = np.linspace(10, 20, 20001)  # with 1,000 degrees of freedom the tail passes e^-600 in between... and never jumps
    steps = np.diff(log_t_survival(1000, np.linspace(40, 60, 20001)))

    assert np.abs(np.diff(steps)).max() < 1e-6
    assert (np.diff(log_t_survival(1000, t)) < 0).all()


def test_a_far_outlier_does_not_break_the_kernel_density():
    values = np.concatenate([np.linspace(0, 1, 23), [1e6]])
    cut = fit(values, "kde").quantile(0.05)

    assert np.isfinite(cut) and cut > 1e6


def test_values_that_are_equal_but_for_one_still_have_a_kernel_density():
    fitted = fit(np.array([1.0] * 19 + [2.0]), "kde")

    assert np.isfinite(fitted.log_tail_left_out).all() and np.isfinite(fitted.quantile(0.1))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([1.0, np.nan], "normal", "1 of 2 values are not finite"),
        ([1.0, np.inf, 2.0], "kde", "1 of 3 values are not finite"),
        ([1.0], "normal", "1 values are too few"),
        ([1.0, 2.0], "kde", "too few .* needs 3"),
        ([], "empirical", "0 values are too few"),
        ([2.0, 2.0, 2.0], "normal", "all 3 values are 2; .* use fit: empirical"),
        ([1.0, 2.0], "gauss", "'gauss' is not known"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(values, kind, message):
    with pytest.raises(ValueError, match=message):
        fit(np.array(values), kind)
