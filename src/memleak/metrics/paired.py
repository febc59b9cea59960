"""Does including one record change the model's behaviour on it? Paired tests over rounds, and rounds needed."""

from __future__ import annotations

import numpy as np
from scipy import special

from memleak import randomness

EXACT_UP_TO = 16  # rounds: 2**16 sign patterns are all looked at
N_DRAWS = 99_999  # sign patterns drawn beyond
CHUNK = 10_000  # of them held in memory at a time


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
        taken = np.zeros(1)  # what each set of flipped rounds takes from the sum, [2^R] in the end
        for value in d:
            taken = np.concatenate([taken, taken + value])
        return float(np.mean(2 * taken <= slack))
    draw, beyond = randomness.generator(seed, "sign flips"), 0
    for start in range(0, N_DRAWS, CHUNK):
        n = min(CHUNK, N_DRAWS - start)
        flipped = np.unpackbits(np.frombuffer(draw.bytes(n * -(-len(d) // 8)), np.uint8).reshape(n, -1), axis=1, count=len(d))
        beyond += int(np.sum(2 * (flipped.astype(np.float64) @ d) <= slack))  # flipping these takes nothing from the sum
    return (beyond + 1) / (N_DRAWS + 1)


def two_sided(differences: np.ndarray) -> float:
    """p-value of "the mean difference is not zero": twice the smaller of the two one-sided ones."""
    return min(1.0, 2 * min(sign_flip_test(differences), sign_flip_test(-np.asarray(differences))))


def smallest_p(n_rounds: int) -> float:
    """The smallest p-value that `sign_flip_test` can give."""
    return 2.0**-n_rounds if n_rounds <= EXACT_UP_TO else 1 / (N_DRAWS + 1)


def effect_interval(differences: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The standardised mean difference (mean / standard deviation) and its interval, by the non-central t."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        raise ValueError(f"differences of {len(d)} rounds have no spread; an interval needs two or more")
    n, std = len(d), float(d.std(ddof=1))
    if std <= 1e-12 * np.abs(d).max():  # equal but for rounding
        effect = float(np.sign(d.mean()) * np.inf) if d.any() else 0.0
        return effect, effect, effect
    effect, tail = float(d.mean()) / std, (1 - confidence) / 2
    low, high = (_noncentrality(n - 1, p, effect * np.sqrt(n)) / np.sqrt(n) for p in (1 - tail, tail))
    return effect, low, high


def _noncentrality(df: int, p: float, t: float) -> float:
    """The non-centrality whose non-central t distribution has mass p below t."""
    if abs(t) < 1000:
        return float(special.nctdtrinc(df, p, t))
    # t = (z + c) / s: so far out z is nothing beside c, and SciPy's search ends before it gets there
    return t * float(np.sqrt(special.chdtri(df, p if t > 0 else 1 - p) / df))


def power(effect: float, n_rounds: int, alpha: float) -> float:
    """Power of the one-sided paired t test, at the level that the sign-flip test has: a multiple of 2^-rounds up to alpha."""
    if n_rounds <= EXACT_UP_TO:
        alpha = np.floor(alpha * 2**n_rounds * (1 + 1e-12)) / 2**n_rounds
    if alpha <= 0:
        return 0.0
    if effect * np.sqrt(n_rounds) > 100:
        return 1.0  # where SciPy's distribution would need hundreds of terms
    critical = float(special.stdtrit(n_rounds - 1, 1 - alpha))
    return float(1 - special.nctdtr(n_rounds - 1, effect * np.sqrt(n_rounds), critical))


def rounds_needed(effect: float, alpha: float, wanted_power: float = 0.8, most: int = 100_000) -> int | None:
    """The fewest rounds that find such an effect with the wanted power; None where no affordable number does."""
    least = max(2, int(np.ceil(-np.log2(alpha))))  # fewer rounds have no p-value that small
    if not effect > 0 or power(effect, most, alpha) < wanted_power:
        return None
    for n_rounds in range(least, EXACT_UP_TO + 1):  # so few rounds have coarse p-values, and power does not rise steadily
        if power(effect, n_rounds, alpha) >= wanted_power:
            return n_rounds
    least = max(least, EXACT_UP_TO + 1)
    if power(effect, least, alpha) >= wanted_power:
        return least
    low, high = least, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha) >= wanted_power else (middle, high)
    return high
