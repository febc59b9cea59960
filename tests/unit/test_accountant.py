"""What a private training promises: held against the Gaussian mechanism's closed form, and found again from epsilon."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from memleak.params import ParamsError, Recipe
from memleak.training import accountant

RECIPE = {"architecture": "mlp", "epochs": 10, "batch_size": 64, "learning_rate": 0.1}


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Of one step of the Gaussian mechanism (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * noise), epsilon * noise
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize(("noise", "delta"), [(0.5, 1e-5), (1.0, 1e-5), (1.0, 1e-3), (4.0, 1e-6), (20.0, 1e-5)])
def test_one_step_with_every_record_is_the_gaussian_mechanism(noise, delta):
    true = gaussian_epsilon(noise, delta)

    found = accountant.epsilon_of(noise, 1.0, 1, delta, "prv")

    assert true <= found <= 1.05 * true
    assert accountant.epsilon_of(noise, 1.0, 1, delta, "rdp") >= found


def test_steps_with_every_record_are_one_with_less_noise():
    """T steps of noise s reveal what one of noise s / sqrt(T) does."""
    found = accountant.epsilon_of(6.0, 1.0, 36, 1e-5, "prv")

    assert gaussian_epsilon(1.0, 1e-5) <= found <= 1.02 * gaussian_epsilon(1.0, 1e-5)


@pytest.mark.parametrize("kind", ["prv", "rdp"])
def test_less_noise_more_steps_and_larger_samples_promise_less(kind):
    by_noise = [accountant.epsilon_of(noise, 0.1, 20, 1e-5, kind) for noise in (4.0, 2.0, 1.0, 0.7)]
    by_steps = [accountant.epsilon_of(1.0, 0.1, steps, 1e-5, kind) for steps in (1, 5, 20)]
    by_rate = [accountant.epsilon_of(1.0, rate, 20, 1e-5, kind) for rate in (0.02, 0.1, 1.0)]

    assert all(first < second for found in (by_noise, by_steps, by_rate) for first, second in pairwise(found))


@pytest.mark.parametrize("kind", ["prv", "rdp"])
@pytest.mark.parametrize(("epsilon", "rate", "steps", "delta"), [(0.5, 0.05, 20, 1e-5), (1.0, 1.0, 1, 1e-6), (8.0, 0.128, 40, 1e-5)])
def test_the_noise_for_an_epsilon_gives_at_most_that_and_nearly_that(kind, epsilon, rate, steps, delta):
    noise = accountant.noise_of(epsilon, rate, steps, delta, kind)

    assert 0.98 * epsilon <= accountant.epsilon_of(noise, rate, steps, delta, kind) <= epsilon


def test_an_epsilon_out_of_reach_is_refused_in_one_sentence():
    with pytest.raises(ParamsError) as error:
        accountant.noise_of(1e-4, 0.01, 10_000_000, 1e-5, "rdp")

    said = str(error.value)
    assert "epsilon 0.0001 at delta 1e-05 cannot be reached in 10000000 steps in which a record takes part with probability 0.01" in said
    assert said.endswith("train for fewer epochs, ask for a larger epsilon, or make batch_size smaller") and "\n" not in said


def test_what_the_prv_accountant_cannot_compute_is_refused_and_never_replaced_in_silence():
    with pytest.raises(ParamsError, match="use `accountant: rdp`"):
        accountant.epsilon_of(0.1, 0.1, 1000, 1e-5, "prv")
    with pytest.raises(ParamsError, match=r"epsilon 1000 is no promise.*use `accountant: rdp`"):
        accountant.noise_of(1000.0, 0.1, 100, 1e-5, "prv")

    assert accountant.epsilon_of(0.1, 0.1, 1000, 1e-5, "rdp") > 1000


def test_a_grid_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(accountant, "_MOST_POINTS", 1000)
    accountant.epsilon_of.cache_clear()

    with pytest.raises(ParamsError, match=r"its grid would have .* points; use `accountant: rdp`"):
        accountant.epsilon_of(1.0, 0.1, 50, 1e-5, "prv")


@pytest.mark.parametrize(("batch_size", "n"), [(64, 700), (1, 3), (100, 100), (7, 99_991)])
def test_the_rate_is_one_that_can_be_drawn_and_no_larger_than_declared(batch_size, n):
    rate = accountant.rate_of(batch_size, n)

    assert batch_size / n - 2**-32 <= rate <= batch_size / n
    assert rate * 2**32 == int(rate * 2**32)


def test_a_promise_says_what_it_follows_from():
    recipe = Recipe(**RECIPE, dp={"noise_multiplier": 1.2, "clip": 0.5, "delta": 1e-4, "accountant": "rdp"})

    promise = accountant.promise_of(recipe, 700)

    rate = accountant.rate_of(64, 700)
    assert promise == {
        "epsilon": accountant.epsilon_of(1.2, rate, 110, 1e-4, "rdp"), "delta": 1e-4, "noise_multiplier": 1.2, "clip": 0.5,
        "sample_rate": rate, "steps": 110, "accountant": "rdp",
    }  # fmt: skip


def test_a_promise_that_asks_for_epsilon_finds_the_noise():
    recipe = Recipe(**RECIPE, dp={"epsilon": 4.0, "accountant": "rdp"})

    promise = accountant.promise_of(recipe, 700)

    assert 0.98 * 4 <= promise["epsilon"] <= 4
    assert promise["noise_multiplier"] == accountant.noise_of(4.0, promise["sample_rate"], 110, 1e-5, "rdp")


def test_a_delta_that_is_no_promise_is_warned_of():
    recipe = Recipe(**RECIPE, dp={"noise_multiplier": 1.0, "delta": 0.01})

    assert accountant.warning_of(recipe, 99) == ""
    assert "delta 0.01 is not below 1 / 100 training records" in accountant.warning_of(recipe, 100)
    assert accountant.warning_of(Recipe(**RECIPE), 100) == ""
