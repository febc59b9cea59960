"""Does including one record change the model's behaviour on it? Paired tests over rounds, and rounds needed."""

from __future__ import annotations

import numpy as np
from scipy import special

from memleak import randomness

EXACT_UP_TO = 16  # rounds: 2**16 sign patterns are all looked at
N_DRAWS = 99_999  # sign patterns drawn beyond


def sign_flip_test(differences: np.ndarray, seed: int = 0) -> float:
    """One-sided p-value of "the mean difference IN - OUT is above zero", by flipping the signs of rounds.

    Exact for up to 16 rounds, drawn beyond: (b + 1) / (B + 1). If the record makes no difference the two arms of
    a round are exchangeable, which is all that is assumed.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or len(d) == 0 or not np.isfinite(d).all():
        raise ValueError(f"differences: expected finite values of one or more rounds, found shape {d.shape}")
    slack = 1e-12 * np.abs(d).sum()  # a sum in another order is the same sum
    if len(d) <= EXACT_UP_TO:
        patterns = (np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1  # [2^R, R]
        return float(np.mean((1 - 2 * patterns) @ d >= d.sum() - slack))
    draws = randomness.generator(seed, "sign flips").integers(0, 2, size=(N_DRAWS, len(d)), dtype=np.int8)
    beyond = int(np.sum((1 - 2 * draws.astype(np.float64)) @ d >= d.sum() - slack))
    return (beyond + 1) / (N_DRAWS + 1)


def smallest_p(n_rounds: int) -> float:
    """The smallest p-value that `sign_flip_test` can give."""
    return 2.0**-n_rounds if n_rounds <= EXACT_UP_TO else 1 / (N_DRAWS + 1)


def effect_interval(differences: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The standardised mean difference (mean / standard deviation) and its interval, by the non-central t."""
    d = np.asarray(differences, dtype=np.float64)
    n, std = len(d), float(d.std(ddof=1))
    if std == 0:
        effect = float(np.sign(d.mean()) * np.inf) if d.mean() else 0.0
        return effect, effect, effect
    effect, tail = float(d.mean()) / std, (1 - confidence) / 2
    t = effect * np.sqrt(n)
    low, high = (float(special.nctdtrinc(n - 1, p, t)) / np.sqrt(n) for p in (1 - tail, tail))
    return effect, low, high


def power(effect: float, n_rounds: int, alpha: float) -> float:
    """Power of the one-sided paired t test at level alpha, which the sign-flip test approaches."""
    critical = float(special.stdtrit(n_rounds - 1, 1 - alpha))
    return float(1 - special.nctdtr(n_rounds - 1, effect * np.sqrt(n_rounds), critical))


def rounds_needed(effect: float, alpha: float, wanted_power: float = 0.8, most: int = 100_000) -> int | None:
    """The fewest rounds that find such an effect with the wanted power; None where no affordable number does."""
    least = max(2, int(np.ceil(-np.log2(alpha))))  # fewer rounds have no p-value that small
    if not effect > 0 or power(effect, most, alpha) < wanted_power:
        return None
    if np.isinf(effect) or power(effect, least, alpha) >= wanted_power:
        return least
    low, high = least, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha) >= wanted_power else (middle, high)
    return high
