"""LiRA: how much likelier is the target's answer if the sample was trained on than if it was not?

Carlini et al. 2022, "Membership Inference Attacks From First Principles". Each sample has two normal
distributions, fitted to its IN and to its OUT references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn, estimate
from memleak.attacks.estimate import Comparison
from memleak.params import Frozen

KEPT_VALUES = 4_000_000  # values of one statistic, [T, N, Q], held for a block of targets: 32 MB
ROUNDING = 1e-12  # a standard deviation that is this share of the mean is what rounding left of zero


class Options(Frozen):
    """Which normal distributions are fitted, and what is read off them."""

    mode: Literal["online", "offline", "offline_two_sided"] = "online"
    variance: Literal["per_sample", "pooled", "shrunk"] = "shrunk"
    center: Literal["mean", "median"] = "mean"
    signal: Literal["margin", "loss"] = "margin"

    @property
    def needs(self) -> Needs:
        least = 2 if self.variance == "per_sample" else 1
        return Needs((self.signal,), inside=least if self.mode == "online" else 0, outside=least)


@dataclass(frozen=True)
class Arm:
    """What the IN or the OUT references say of each sample: [N], or [T, N, Q] for many targets and views."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray  # sum of squared residuals about the mean
    center: np.ndarray  # the mean or the median

    @property
    def freedom(self) -> np.ndarray:
        """Degrees of freedom of the residuals."""
        return self.count - 1

    @property
    def pooled(self) -> float:
        """The variance of all residuals about their centres, divided by their number."""
        beside = self.mean - self.center
        total = self.count.sum()
        return float((self.squares + self.count * beside**2).sum() / total - ((self.count * beside).sum() / total) ** 2)

    @property
    def corrected(self) -> float:
        """The variance of all residuals about their means, divided by their degrees of freedom."""
        return float(self.squares.sum() / max(self.freedom.sum(), 1))

    def of(self, turn: int, view: int) -> Arm:
        """One target and view."""
        return Arm(self.count[turn, :, 0], self.mean[turn, :, view], self.squares[turn, :, view], self.center[turn, :, view])

    def part(self, samples: slice) -> Arm:
        """A run of samples, to be filled."""
        return Arm(*(statistic[:, samples] for statistic in (self.count, self.mean, self.squares, self.center)))


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """Log-likelihood ratio of the target's margin under IN and OUT references, [N], in nats; the mean over views.

    `offline`: -log P(OUT > margin), one-sided. `offline_two_sided`: -log density of OUT, as the first public code had
    it: a very low margin counts as a member's. `per_sample` takes each sample's own variance, `pooled` that of an arm's
    residuals about their centres, over all samples and view by view; both are divided by the number of values, as
    published. `shrunk` lies between (`shrunken`), from variances divided by their degrees of freedom, and online it
    also brings the distance of IN and OUT nearer to the usual one (`shrunken_centers`). A single sample has nothing to
    be shrunk to: its own variance. Where nothing varies in one arm, the other's variances serve both.
    """
    return _score(Comparison.of_evidence(evidence), options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N], from sums over each turn's references."""
    return _score(Comparison.of_turns(pool, turns), options)


def _score(comparison: Comparison, options: Options) -> np.ndarray:
    comparison.require(options.needs, "lira")
    comparison.refuse_constant(options.signal, "lira")
    scores = np.zeros((comparison.n_turns, comparison.n_samples))
    if not scores.size:
        return scores
    n_views = comparison.n_views(options.signal)
    step = max(1, KEPT_VALUES // (comparison.n_samples * n_views))
    for start in range(0, comparison.n_turns, step):
        block = slice(start, min(start + step, comparison.n_turns))
        arms = _fit(comparison, block, options)
        for turn in range(block.start, block.stop):
            target = estimate.turned(comparison.of_target(options.signal, turn), options.signal)
            for view in range(n_views):
                seen = [arm.of(turn - start, view) for arm in arms]
                scores[turn] += _evidence_of(target[:, view], seen, options, comparison.sample_id) / n_views
    return scores


def _fit(comparison: Comparison, block: slice, options: Options) -> list[Arm]:
    """IN and OUT of a block of targets, or OUT alone where the attack is offline; by chunks of samples."""
    sides = (True, False) if options.mode == "online" else (False,)
    n_views = comparison.n_views(options.signal)
    shape = (block.stop - block.start, comparison.n_samples, n_views)
    arms = [Arm(np.empty((*shape[:2], 1)), *(np.empty(shape) for _ in range(3))) for _ in sides]
    for samples in comparison.chunks(n_views):
        values = estimate.turned(comparison.of_models(options.signal, samples), options.signal)
        middle = np.median(values[:: max(1, len(values) // 5)], axis=0)  # models that all say the same are then 0, to the last bit
        values = values - middle
        for side, arm in zip(sides, arms, strict=True):
            part = arm.part(samples)
            _fit_chunk(comparison, block, values, comparison.is_in[:, samples] == side, part, options.center)
            part.mean[:] += middle
            part.center[:] += middle
    return arms


def _fit_chunk(comparison: Comparison, block: slice, values: np.ndarray, where: np.ndarray, arm: Arm, center: str) -> None:
    """Fill one arm from the models [M, n, Q] that `where` names, as far as they are references.

    Squares are taken about each target's own mean, in a second pass: about a point farther away they would lose digits.
    """
    weight = where.astype(np.float64)
    arm.count[:] = comparison.over_references(weight, block)[:, :, None]
    arm.mean[:] = comparison.over_references(values * weight[:, :, None], block) / np.maximum(arm.count, 1)
    for i, is_reference in enumerate(comparison.is_reference[block]):
        residual = values - arm.mean[i]
        residual *= (weight * is_reference[:, None])[:, :, None]
        np.einsum("mnq,mnq->nq", residual, residual, out=arm.squares[i])
    arm.squares[arm.squares <= arm.count * (ROUNDING * arm.mean) ** 2] = 0.0
    if center == "mean":
        arm.center[:] = arm.mean
        return
    for i, is_reference in enumerate(comparison.is_reference[block].astype(bool)):
        arm.center[i] = estimate.median_where(values[is_reference], where[is_reference])


def _evidence_of(target: np.ndarray, arms: list[Arm], options: Options, sample_id: np.ndarray | None) -> np.ndarray:
    """The score of one target and view, [N]; `arms` is IN and OUT, or OUT alone."""
    variances = _variances(arms, options.variance, sample_id)
    centers = [arm.center for arm in arms]
    if options.variance == "shrunk" and options.mode == "online":
        centers = shrunken_centers(arms, variances)
    z = [(target - center) / np.sqrt(variance) for center, variance in zip(centers, variances, strict=True)]
    if options.mode == "offline":
        return -special.log_ndtr(-z[0])
    surprise = [0.5 * np.square(x) + 0.5 * np.log(2 * np.pi * variance) for x, variance in zip(z, variances, strict=True)]
    return surprise[0] if options.mode == "offline_two_sided" else surprise[1] - surprise[0]


def _variances(arms: list[Arm], kind: str, sample_id: np.ndarray | None) -> list[np.ndarray]:
    """The variance of each sample in each arm, [N] each."""
    for arm in arms:
        if arm.freedom.sum() == 0:
            raise AttackError(
                f"lira, variance {kind}: no sample has two references of one kind; a spread cannot be seen, train more reference models"
            )
    varied = [arm for arm in arms if arm.squares.any()]
    if not varied:
        raise AttackError("lira: the references of each sample all answer the same; a spread of zero tells nothing, check the models' seeds")
    if len(varied) < len(arms):  # where labels are released, models are right about all that they know: the other arm's spread serves both
        return _variances(varied, kind, sample_id) * 2
    if kind == "pooled":
        return [np.full(arm.squares.shape, arm.pooled) for arm in arms]
    if kind == "shrunk":
        return shrunken(arms)
    for arm in arms:
        if not arm.squares.all():
            name = estimate.name_of(sample_id, int(np.argmin(arm.squares)))
            raise AttackError(f"lira, variance per_sample: the references of sample {name} are constant; use variance: shrunk")
    return [arm.squares / arm.count for arm in arms]


@dataclass(frozen=True)
class Prior:
    """What variances the samples have: scaled inverse chi-square, and how far IN and OUT have theirs in common."""

    width: float  # one over the degrees of freedom; 0 where all samples have the same variance
    common: float  # correlation of a sample's two variances, 0 to 1
    scale: list[float]  # of each arm


def fit_prior(arms: list[Arm]) -> Prior:
    """The prior by moments of log s^2 over samples (Smyth 2004), with equal degrees of freedom in both arms.

    log s^2 varies because the samples' variances do, and by trigamma(d/2) because it is estimated from d degrees of
    freedom. Estimates of the two arms are independent, so that their covariance is that of the variances. With one
    usable sample there is nothing to compare: its own variance is the scale.
    """
    usable = np.all([(arm.freedom > 0) & (arm.squares > 0) for arm in arms], axis=0)
    if usable.sum() < 2:
        return Prior(0.0, 0.0, [arm.corrected for arm in arms])
    expected = [log_chi_square(arm.freedom[usable]) for arm in arms]
    logs = [np.log(arm.squares[usable] / arm.freedom[usable]) - mean for arm, (mean, _) in zip(arms, expected, strict=True)]
    excess = float(np.mean([x.var(ddof=1) - variance.mean() for x, (_, variance) in zip(logs, expected, strict=True)]))
    if excess <= 0:
        return Prior(0.0, 0.0, [arm.corrected for arm in arms])
    freedom = 2 * inverse_trigamma(excess)
    shift = special.digamma(freedom / 2) - np.log(freedom / 2)
    common = float(np.clip(np.cov(*logs)[0, 1] / excess, 0, 1)) if len(arms) == 2 else 0.0
    return Prior(1 / freedom, common, [float(np.exp(x.mean() + shift)) for x in logs])


def log_chi_square(freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the logarithm of a chi-square over its degrees of freedom, [n] each, digamma(d/2) - log(d/2) and trigamma(d/2)."""
    half = np.arange(1, int(freedom.max()) + 1) / 2  # looked up in a table: trigamma takes longer than all the rest
    which = freedom.astype(np.int64) - 1
    return (special.digamma(half) - np.log(half))[which], special.polygamma(1, half)[which]


def inverse_trigamma(value: float) -> float:
    """The x > 0 whose trigamma is `value`, by Newton's method on 1 / trigamma, which is nearly straight (Smyth 2004)."""
    x = 0.5 + 1 / value
    for _ in range(30):
        trigamma = special.polygamma(1, x)
        x += float(trigamma * (1 - trigamma / value) / special.polygamma(2, x))
    return x


def shrunken(arms: list[Arm]) -> list[np.ndarray]:
    """Empirical Bayes estimates of each sample's variance in each arm, [N] each.

    A weighted mean of the sample's own variance, of that in its other arm (brought to this arm's scale) and of the
    prior's scale; the weights are those of the best linear prediction. Where the two arms' variances are unrelated
    it is Smyth's (d0 s0^2 + d s^2) / (d0 + d); where they go together it has the residuals of both. Used in a normal
    density: in simulation, Student's t lost to the pooled variance at 4 references and gained only in heavy tails.
    """
    prior = fit_prior(arms)
    if prior.width == 0:
        return [np.full(arm.squares.shape, scale) for arm, scale in zip(arms, prior.scale, strict=True)]
    found = [arm.squares / np.maximum(arm.freedom, 1) / scale for arm, scale in zip(arms, prior.scale, strict=True)]  # usually 1
    if len(arms) == 1:
        by_own, _ = weights(prior, arms[0].freedom, np.zeros(1))
        return [prior.scale[0] * (1 + by_own * (found[0] - 1))]
    estimates = []
    for own, other in ((0, 1), (1, 0)):
        by_own, by_other = weights(prior, arms[own].freedom, arms[other].freedom)
        estimates.append(prior.scale[own] * (1 + by_own * (found[own] - 1) + by_other * (found[other] - 1)))
    return estimates


def weights(prior: Prior, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a sample's variance in this arm and in the other, [N] each; the prior has the rest.

    The best linear prediction of a quantity of variance `width`, from itself and from its like with correlation
    `common`, seen with errors of variance 1 / own and 1 / other (degrees of freedom; 0 says nothing).
    """
    shared = prior.common * prior.width
    total = (1 + prior.width * own) * (1 + prior.width * other) - shared * shared * own * other
    return own * (prior.width * (1 + prior.width * other) - shared * shared * other) / total, shared * other / total


def shrunken_centers(arms: list[Arm], variances: list[np.ndarray]) -> list[np.ndarray]:
    """The centres of IN and OUT, moved so that their distance comes nearer to the usual one, [N] each.

    With few references a sample's distance between IN and OUT, in standard deviations, is mostly noise. Its mean and
    variance over samples are a prior (the variance by moments); each centre moves by its share of the noise. Under
    four samples nothing moves: James and Stein need as many.
    """
    unit = np.sqrt((variances[0] + variances[1]) / 2)
    distance = (arms[0].center - arms[1].center) / unit
    if len(distance) < 4:
        return [arm.center for arm in arms]
    noise = [variance / arm.count / unit**2 for arm, variance in zip(arms, variances, strict=True)]
    width = max(0.0, float(distance.var(ddof=1) - (noise[0] + noise[1]).mean()))
    beyond = unit * (distance - distance.mean()) / (noise[0] + noise[1] + width)
    return [arms[0].center - noise[0] * beyond, arms[1].center + noise[1] * beyond]
