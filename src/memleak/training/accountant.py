"""What a private training promises: epsilon of its noise, or the noise that an epsilon asks for, by Opacus' accountants."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

from memleak.params import ParamsError, Recipe
from memleak.params.defences import DPSGD

_BITS = 2**32  # a sample takes part where 32 random bits are below its rate in these units
_ORDERS = (1.1, 1.25, 1.5, 1.75, 2.25, 2.5, 2.75, 3.5, 4.5, *range(2, 64), 80, 128, 192, 256, 512, 1024)  # of Renyi divergences; whole ones are quick
_CLOSE = 0.985  # the noise found promises at least this share of the epsilon asked for
_MOST_NOISE = 1e4  # in units of clip: nothing is learned under it
_LARGEST = 500.0  # epsilon: its exponential must be a number
_MOST_POINTS = 2**24  # of the grid of numerical composition: about 1 GiB


def rate_of(batch_size: int, n_members: int) -> float:
    """The probability with which a record takes part in a step, rounded down to what 32 random bits can draw."""
    return int(batch_size / n_members * _BITS) / _BITS


def steps_of(recipe: Recipe, n_members: int) -> int:
    """Steps of a whole training."""
    return recipe.epochs * -(-n_members // recipe.batch_size)


@functools.cache
def epsilon_of(noise: float, rate: float, steps: int, delta: float, accountant: str) -> float:
    """An upper bound on epsilon of `steps` steps, each with Gaussian noise on a Poisson sample, for a record more or less.

    prv: Gopi et al. 2021, "Numerical Composition of Differential Privacy"; the bound is about 1 % above what is true, 4 %
    where epsilon is small. rdp: Mironov et al. 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism".
    """
    renyi = _renyi(noise, rate, steps, delta)
    if accountant == "rdp" or renyi == 0:
        return renyi
    if not renyi <= _LARGEST:
        raise ParamsError(
            f"dp: noise_multiplier {noise:g} over {steps} steps at a rate of {rate:.3g} promises an epsilon of about {renyi:.3g}, more than the prv "
            f"accountant computes ({_LARGEST:g}) and no promise at all; raise noise_multiplier, or use `accountant: rdp`"
        )
    return _composed(noise, rate, steps, delta, max(0.005 * renyi, min(0.01, 0.02 * renyi)))


@functools.cache
def _renyi(noise: float, rate: float, steps: int, delta: float) -> float:
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the last one: the bound holds at every order
        divergences = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=_ORDERS)
        return max(0.0, float(get_privacy_spent(orders=_ORDERS, rdp=divergences, delta=delta)[0]))


def _composed(noise: float, rate: float, steps: int, delta: float, error: float) -> float:
    """Epsilon by numerical composition, with its `error` added. Raises ParamsError where it cannot be computed."""
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, compute_safe_domain_size

    said = f"dp: the prv accountant cannot compute epsilon for noise_multiplier {noise:g}, {steps} steps at a rate of {rate:.3g} and delta {delta:g}"
    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # the logarithm of 1 - q where q is 1
            warnings.simplefilter("ignore")
            largest = compute_safe_domain_size([PoissonSubsampledGaussianPRV(rate, noise)], [steps], error, delta / 1000)
            n_points = 2 * largest / error * math.sqrt(steps * math.log(12_000 / delta) / 2)  # of its grid (Gopi et al., theorem 5.5)
            if n_points > _MOST_POINTS:
                raise ParamsError(f"{said}: its grid would have {n_points:.2g} points; use `accountant: rdp`")
            found = float(accountant.get_epsilon(delta, eps_error=error))
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as problem:
        if isinstance(problem, ParamsError):
            raise
        raise ParamsError(f"{said} ({problem or type(problem).__name__}); use `accountant: rdp`") from None
    if not 0 <= found < math.inf:
        raise ParamsError(f"{said}: it finds {found}; use `accountant: rdp`")
    return found


@functools.cache
def noise_of(epsilon: float, rate: float, steps: int, delta: float, accountant: str) -> float:
    """The noise, in units of clip, with which the accountant finds `epsilon`, or up to 2 % less than that."""
    if accountant == "prv" and epsilon > 0.8 * _LARGEST:
        raise ParamsError(f"dp: epsilon {epsilon:g} is no promise, and more than the prv accountant computes; ask for less, or use `accountant: rdp`")

    def is_kept(noise: float) -> bool:
        if _renyi(noise, rate, steps, delta) <= epsilon:  # the larger of the two, and cheap
            return True
        return accountant == "prv" and _renyi(noise, rate, steps, delta) <= _LARGEST and epsilon_of(noise, rate, steps, delta, "prv") <= epsilon

    high = 1.0
    while not is_kept(high):
        if high > _MOST_NOISE:
            raise ParamsError(
                f"dp: epsilon {epsilon:g} at delta {delta:g} cannot be reached in {steps} steps in which a record takes part with probability "
                f"{rate:.3g}, even by noise {high:g} times as large as clip; train for fewer epochs, ask for a larger epsilon, or make batch_size smaller"
            )
        high *= 2
    low = high / 2
    while is_kept(low):
        low, high = low / 2, low
    if accountant == "prv":
        low /= 2  # where Renyi's bound was asked
    while epsilon_of(high, rate, steps, delta, accountant) < _CLOSE * epsilon and high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return high


def promise_of(recipe: Recipe, n_members: int) -> dict[str, Any]:
    """What the training of a recipe with `dp` promises about each of its records: epsilon, delta, and what they follow from.

    Two training sets are neighbours where one has a record more. `epsilon` covers all that training gives away, every
    step's noisy gradient included; not what is told beside the weights (losses and accuracies of members, their number), nor
    the data set's mean and deviation by which records are normalised, nor what choosing a recipe by its results would give away.
    """
    dp = recipe.dp
    assert dp is not None
    rate, steps = rate_of(recipe.batch_size, n_members), steps_of(recipe, n_members)
    noise = noise_for(dp, rate, steps)
    epsilon = epsilon_of(noise, rate, steps, dp.delta, dp.accountant)
    return {
        "epsilon": epsilon, "delta": dp.delta, "noise_multiplier": noise, "clip": dp.clip, "sample_rate": rate, "steps": steps, "accountant": dp.accountant,
    }  # fmt: skip


def noise_for(dp: DPSGD, rate: float, steps: int) -> float:
    """The noise that is asked for, or that the epsilon asked for takes."""
    if dp.noise_multiplier is not None:
        return dp.noise_multiplier
    assert dp.epsilon is not None
    return noise_of(dp.epsilon, rate, steps, dp.delta, dp.accountant)


def warning_of(recipe: Recipe, n_members: int) -> str:
    """What must be said of a delta that is no promise; empty where it is one.

    A training that gives away a random record as it is has delta = 1 / n (Dwork and Roth 2014, section 2.3).
    """
    if recipe.dp is None or recipe.dp.delta * n_members < 1:
        return ""
    return f"dp: delta {recipe.dp.delta:g} is not below 1 / {n_members} training records: giving away one of them as it is would keep that promise; lower delta"
