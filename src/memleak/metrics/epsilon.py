"""Lower bounds of the privacy loss epsilon, from one training with canaries or from trainings with and without a record.

Every bound is a statement about the training algorithm that is false with probability at most 1 - confidence,
whatever the attack, as long as the choice of threshold is paid for: `audit_one_run` and `audit_pairs` do.

A training that claims to be (epsilon, delta) private may be held against its bound, at the same delta or a larger one.
Its p-value is the smallest error at which the bound, with all that it pays for, exceeds the claim. An accountant's
claim is about whoever sees the noisy gradient of every step, and so about all that is computed from these: the
weights, what a model answers, and how far the gradients point to a canary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from memleak import randomness
from memleak.metrics.intervals import clopper_pearson

UNFAIR_COIN = 1e-6  # a two-sided p-value below which the canaries' membership was not drawn by fair coins
N_SIZES = 12  # numbers of guesses a side that `split` looks at; its search costs no confidence
SHARES = (0.02, 0.1, 0.3, 0.5)  # of the canaries, guessed on a side by `bonferroni`; few, since each costs confidence
LEAST_ERROR = 1e-12  # that a bound of pairs is made at: 1 - confidence has no more digits


@dataclass(frozen=True)
class OneRun:
    """A one-run audit's lower bound, and the guesses it rests on. `attainable`: the bound had all guesses been right."""

    epsilon: float
    delta: float
    confidence: float
    strategy: str
    n_canaries: int  # those the bound was computed on: half of all with "split"
    n_guesses: int
    n_correct: int
    k_plus: int
    k_minus: int
    n_tried: int  # numbers of guesses that shared the error
    attainable: float
    p: float | None = None  # of the claim, where there is one

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """Decisions about one target: true positives among trainings with it, false positives among those without."""

    n_true_positives: int
    n_in: int
    n_false_positives: int
    n_out: int


@dataclass(frozen=True)
class Pairs:
    """The largest of the targets' lower bounds, all of which hold together. `attainable`: had its decisions been right."""

    epsilon: float
    delta: float
    confidence: float
    target: str
    lower_bounds: dict[str, float]
    confidence_each: float
    attainable: float
    p: float | None = None  # of the claim, where there is one

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def one_run_lower_bound(n_canaries: ArrayLike, n_guesses: ArrayLike, n_correct: ArrayLike, delta: float, confidence: float = 0.95) -> Any:
    """The largest epsilon that is refuted at this confidence when so many guesses about fair coins are right; 0 if none is.

    Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run", Theorem 5.2. The numbers of guesses
    for and against membership must not depend on the truth. A float, or an array where counts are arrays.
    """
    _check_level(delta, confidence)
    canaries, guesses, correct = np.broadcast_arrays(n_canaries, n_guesses, n_correct)
    if not np.all((correct >= 0) & (correct <= guesses) & (guesses <= canaries)) or any(
        np.any(x != np.floor(x)) for x in (canaries, guesses, correct)
    ):
        raise ValueError(
            f"{n_correct!r} correct of {n_guesses!r} guesses about {n_canaries!r} canaries: expected whole numbers, 0 <= correct <= guesses <= canaries"
        )
    counts = zip(canaries.ravel(), guesses.ravel(), correct.ravel(), strict=True)
    bounds = np.array([_one_run_bound(int(m), int(r), int(v), delta, 1 - confidence) for m, r, v in counts])
    return bounds.reshape(canaries.shape) if canaries.shape else float(bounds[0])


def _one_run_bound(n_canaries: int, n_guesses: int, n_correct: int, delta: float, error: float) -> float:
    pure = float(_log_odds_bound(n_guesses, n_correct, error))
    if pure <= 0:
        return 0.0
    if delta == 0:
        return pure
    p_value = _one_run_p_value(n_canaries, n_guesses, n_correct, delta)
    if p_value(0.0) >= error:
        return 0.0
    if p_value(pure) <= error:  # delta is lost in rounding
        return pure
    return float(optimize.brentq(lambda epsilon: p_value(epsilon) - error, 0.0, pure, xtol=1e-9))


def _log_odds_bound(n_guesses: ArrayLike, n_correct: ArrayLike, error: float) -> np.ndarray:
    """The bound at delta = 0, below zero where less than half may be right: the log-odds of Clopper-Pearson's lower limit."""
    r, v = np.asarray(n_guesses), np.asarray(n_correct)
    with np.errstate(divide="ignore"):
        return np.where(v > 0, special.logit(special.betaincinv(np.maximum(v, 1), r - v + 1, error)), -np.inf)


def _one_run_p_value(n_canaries: int, n_guesses: int, n_correct: int, delta: float) -> Any:
    """epsilon -> the largest chance that an (epsilon, delta) private training lets so many guesses be right.

    W ~ Binomial(r, e^epsilon / (1 + e^epsilon)): P(W >= v) + 2 m delta max_i P(v - i <= W < v) / i.
    """
    below = np.arange(n_correct - 1, -1, -1)  # v - 1, v - 2, ... 0
    log_ways = special.gammaln(n_guesses + 1) - special.gammaln(below + 1) - special.gammaln(n_guesses - below + 1)

    def p_value(epsilon: float) -> float:
        if n_correct == 0:
            return 1.0
        log_right, log_wrong = -np.logaddexp(0, -epsilon), -np.logaddexp(0, epsilon)
        mass = np.exp(log_ways + below * log_right + (n_guesses - below) * log_wrong)
        moved = np.max(np.cumsum(mass) / np.arange(1, n_correct + 1))
        reached = special.betainc(n_correct, n_guesses - n_correct + 1, special.expit(epsilon))
        return float(reached + 2 * n_canaries * delta * moved)

    return p_value


def audit_one_run(
    scores: np.ndarray, is_member: np.ndarray, *, delta: float, confidence: float = 0.95,
    strategy: Literal["bonferroni", "split"] = "bonferroni", guesses: Sequence[tuple[int, int]] | None = None, seed: int = 0,
    claimed: float | None = None,
) -> OneRun:  # fmt: skip
    """A lower bound of epsilon from canaries, each in one training or not by a fair coin of its own; the search is paid for.

    The k_plus highest scores are guessed to be members, the k_minus lowest not to be. `bonferroni` counts on all
    canaries and shares the error among the few pairs of numbers tried; `split` chooses among many on a random half and
    counts on the other, which in simulation gives less, but for n_canaries * delta near 1. `guesses` are the pairs
    (k_plus, k_minus) to try, out of one half of the canaries with `split`.
    Equal scores are ordered by a coin. Membership drawn in another way (balanced, by a list) gives no epsilon.
    `p` is that of an epsilon which is `claimed`: below 1 - confidence where the bound exceeds it.
    """
    _check_level(delta, confidence)
    s, truth = _canaries(scores, is_member)
    if strategy not in ("split", "bonferroni"):
        raise ValueError(f'strategy is "{strategy}", expected "split" or "bonferroni"')
    n, order = len(s), randomness.generator(seed, "one-run audit").permutation(len(s))
    s, truth = s[order], truth[order]  # so that a stable sort orders ties by chance
    half = n // 2 if strategy == "split" else 0
    counted_s, counted = s[half:], truth[half:]
    tried = _pairs_to_try(half if half else n, strategy, guesses)
    error = (1 - confidence) / len(tried)
    if strategy == "split":  # chosen at the error of all tries too, or the luck of few guesses would win
        chosen = _log_odds_bound(tried.sum(axis=1), _correct(s[:half], truth[:half], tried), error)
        tried, error = tried[[int(np.argmax(chosen))]], 1 - confidence
    correct, n_guesses = _correct(counted_s, counted, tried), tried.sum(axis=1)
    bounds = one_run_lower_bound(len(counted), n_guesses, correct, delta, 1 - error)
    best = int(np.argmax(bounds)) if bounds.any() else int(np.argmax(_log_odds_bound(n_guesses, correct, error)))
    attainable = one_run_lower_bound(len(counted), n_guesses[best], n_guesses[best], delta, 1 - error)
    p = None
    if claimed is not None:
        each = [_one_run_p_value(len(counted), int(r), int(v), delta)(claimed) for r, v in zip(n_guesses, correct, strict=True)]
        p = min(1.0, len(tried) * min(each))
    return OneRun(
        float(bounds[best]), delta, confidence, strategy, len(counted), int(n_guesses[best]), int(correct[best]),
        int(tried[best, 0]), int(tried[best, 1]), len(tried), attainable, p,
    )  # fmt: skip


def _canaries(scores: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s, truth = np.asarray(scores, dtype=np.float64).ravel(), np.asarray(is_member).ravel().astype(bool)
    if len(s) != len(truth) or len(s) < 2:
        raise ValueError(f"{len(s)} scores and {len(truth)} truth values; as many of each are expected, two or more")
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} of {len(s)} scores are not a number")
    if stats.binomtest(int(truth.sum()), len(truth)).pvalue < UNFAIR_COIN:
        raise ValueError(
            f"{int(truth.sum())} of {len(truth)} canaries are members, which fair coins do not give; "
            "a one-run epsilon needs the design `canaries`, where each canary has a fair coin of its own"
        )
    return s, truth


def _pairs_to_try(n: int, strategy: str, guesses: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Numbers of guesses for and against membership, [tries, 2]."""
    if guesses is not None:
        pairs = np.array(guesses, dtype=np.int64).reshape(-1, 2)
    elif strategy == "bonferroni":
        sizes = np.unique([max(1, int(share * n)) for share in SHARES])
        pairs = np.array([(k, low) for k in sizes for low in (0, k) if k + low <= n])
    else:
        sizes = np.unique(np.append(0, np.geomspace(1, max(1, n // 2), N_SIZES).astype(np.int64)))
        pairs = np.array([(k, low) for k in sizes for low in sizes if 1 <= k + low <= n])
    if len(pairs) == 0 or (pairs < 0).any() or (pairs.sum(axis=1) < 1).any() or (pairs.sum(axis=1) > n).any():
        raise ValueError(f"guesses are {pairs.tolist()}, expected pairs (k_plus, k_minus) of numbers >= 0 whose sum is 1 to {n}")
    return pairs


def _correct(scores: np.ndarray, is_member: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Right guesses when the k_plus highest scores are said to be members and the k_minus lowest not to be, [tries]."""
    truth = is_member[np.argsort(-scores, kind="stable")]
    right_above = np.append(0, np.cumsum(truth))
    right_below = np.append(0, np.cumsum(~truth[::-1]))
    return right_above[pairs[:, 0]] + right_below[pairs[:, 1]]


def pairs_lower_bound(
    n_true_positives: int, n_in: int, n_false_positives: int, n_out: int, delta: float, confidence: float = 0.95
) -> float:  # fmt: skip
    """The largest epsilon refuted by independent trainings with and without one record, at this confidence; 0 if none is.

    Any decision about an (epsilon, delta) private training has TPR <= e^epsilon FPR + delta, and the same of the
    decisions against membership (Kairouz, Oh and Viswanath 2015). TPR and FPR are bounded by Clopper-Pearson, half the
    error each. The rule must be fixed on other models; the trainings of an arm must not depend on one another.
    """
    _check_level(delta, confidence)
    tpr, _ = clopper_pearson(n_true_positives, n_in, confidence)
    _, fpr = clopper_pearson(n_false_positives, n_out, confidence)
    found = 0.0
    for hit, alarm in ((tpr, fpr), (1 - fpr, 1 - tpr)):
        if hit > delta:
            found = max(found, float(np.log((hit - delta) / alarm)))
    return found


def pairs_p_value(counts: Counts, delta: float, claimed: float) -> float:
    """The smallest error at which `pairs_lower_bound` exceeds a claimed epsilon, 1e-12 at least: the p-value of the claim."""
    sides = counts.n_true_positives, counts.n_in, counts.n_false_positives, counts.n_out

    def excess(log_error: float) -> float:
        return pairs_lower_bound(*sides, delta, 1 - np.exp(log_error)) - claimed

    least, most = np.log(LEAST_ERROR), np.log1p(-LEAST_ERROR)
    if excess(most) <= 0:
        return 1.0
    return LEAST_ERROR if excess(least) >= 0 else float(np.exp(optimize.brentq(excess, least, most, xtol=1e-12)))


def audit_pairs(counts: Mapping[str, Counts], *, delta: float, confidence: float = 0.95, claimed: float | None = None) -> Pairs:
    """The largest lower bound over targets; the error is shared among them, so that all bounds hold together.

    `p` is that of an epsilon which is `claimed`: below 1 - confidence where the largest bound exceeds it.
    """
    if not counts:
        raise ValueError("no target has counts; expected one or more")
    each = 1 - (1 - confidence) / len(counts)
    bounds = {name: pairs_lower_bound(c.n_true_positives, c.n_in, c.n_false_positives, c.n_out, delta, each) for name, c in counts.items()}
    target = max(bounds, key=lambda name: bounds[name])
    n_in, n_out = counts[target].n_in, counts[target].n_out
    attainable = pairs_lower_bound(n_in, n_in, 0, n_out, delta, each)
    p = None if claimed is None else min(1.0, len(counts) * min(pairs_p_value(c, delta, claimed) for c in counts.values()))
    return Pairs(bounds[target], delta, confidence, target, bounds, each, attainable, p)


def held_against(settings: Mapping[str, Any], dp: Mapping[str, Any] | None, design: Mapping[str, Any]) -> dict[str, Any]:
    """An audit's settings with the epsilon that its training claims: the declared one, or what the accountant of its DP-SGD says; of both the smaller.

    `claimed` is None where nothing is claimed, or where bound and claim do not compare; `claim_note` says why not.
    """
    claimed, note = settings.get("claimed"), None
    if dp is not None and settings["delta"] >= dp["delta"]:
        claimed = dp["epsilon"] if claimed is None else min(claimed, dp["epsilon"])
    elif dp is not None and claimed is None:
        claimed = dp["epsilon"]
        note = f"the bound is made at delta {settings['delta']:g}, and the accountant's epsilon holds at {dp['delta']:g} alone and above; raise epsilon.delta"
    if claimed is not None and design.get("neighbour") == "replace":
        note = "the audit puts one record in another's place, two changes, and the claim is about a record more or less; use neighbour: add"
    return {**settings, "claimed": None if note else claimed, "claim_note": note}


def against_claim(settings: Mapping[str, Any], bound: float, p: float | None) -> dict[str, Any]:
    """What a bound says about the claim in the settings that `held_against` gave."""
    claimed = settings.get("claimed")
    return {"claimed": claimed, "p": p, "alarm": claimed is not None and bound > claimed, "claim_note": settings.get("claim_note")}


def _check_level(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}, expected 0 <= delta < 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected more than 0 and less than 1")
