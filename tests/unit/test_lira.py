"""LiRA: known answers, an oracle, few references, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from oracles import lira_by_loop
from pytest import approx
from scipy import special, stats
from worlds import gaussian_world, perfect_memory_world

from memleak.attacks import AttackError, Evidence, Pool, Turn, lira
from memleak.attacks.lira import Options
from memleak.metrics import roc

MODES = ["online", "offline", "offline_two_sided"]


def evidence(targets, inside, outside, signal: str = "margin") -> Evidence:
    """One sample for each target value, all with the same references."""
    reference = np.concatenate([inside, outside])[:, None, None].repeat(len(targets), axis=1)
    is_in = np.repeat([True, False], [len(inside), len(outside)])[:, None].repeat(len(targets), axis=1)
    return Evidence({signal: np.asarray(targets, dtype=float)[:, None]}, {signal: reference}, is_in)


def uneven(models: int = 9, samples: int = 12, views: int = 2, seed: int = 0) -> Evidence:
    """Noise, with two to seven IN references a sample."""
    draw = np.random.default_rng(seed)
    is_in = np.argsort(draw.random((models, samples)), axis=0) < draw.integers(2, models - 1, samples)
    margin = draw.normal(3, 2, (models + 1, samples, views)).astype(np.float32)
    signals = {"margin": margin, "loss": np.logaddexp(0, -margin)}
    return Evidence({k: v[0] for k, v in signals.items()}, {k: v[1:] for k, v in signals.items()}, is_in, sample_id=np.arange(samples) + 40)


def arm_of(count: int, squares: np.ndarray) -> lira.Arm:
    """Samples with these sums of squares about a mean of 0, of `count` references each."""
    return lira.Arm(np.full(len(squares), float(count)), np.zeros(len(squares)), squares, np.zeros(len(squares)))


def mean_tpr(world, options: Options) -> float:
    """TPR at 1 % FPR, mean over all targets."""
    scores = lira.score_all(world.pool, world.turns, options)
    rates = []
    for found, truth in zip(scores, world.truth, strict=True):
        others = np.sort(found[~truth])
        rates.append(np.mean(found[truth] > others[len(others) - 1 - int(0.01 * len(others))]))
    return float(np.mean(rates))


@pytest.mark.parametrize("variance", ["per_sample", "pooled", "shrunk"])
def test_lira_comes_close_to_the_best_possible_auc_and_tpr(variance):
    """Two unit Gaussians d apart: no attack can exceed Phi(d / sqrt 2), nor TPR Phi(d - Phi^-1(1 - f)) at FPR f."""
    world = gaussian_world(separation=1.5, models=128, samples=4000, seed=0)

    scores = lira.score(world.evidence, Options(variance=variance))

    assert roc.auc(scores, world.is_member) == approx(stats.norm.cdf(1.5 / sqrt(2)), abs=0.02)
    assert roc.tpr_at_fpr(scores, world.is_member, 0.1).value == approx(stats.norm.cdf(1.5 - stats.norm.isf(0.1)), abs=0.04)


def test_lira_approaches_the_optimum_as_references_grow():
    """The distance to the best TPR at 1 % FPR shrinks with every doubling, where samples have spreads of their own."""
    best = stats.norm.cdf(1.5 - stats.norm.isf(0.01))
    worlds = [gaussian_world(1.5, models, 2000, seed=1, spread=0.5) for models in (6, 18, 66)]

    missing = [best - mean_tpr(world, Options()) for world in worlds]

    assert missing[0] > missing[1] > missing[2]
    assert missing[2] < 0.03


def test_views_that_are_independent_add_what_they_know():
    world = gaussian_world(separation=0.7, models=66, samples=2000, seed=0, views=4)

    scores = lira.score(world.evidence, Options())

    assert roc.auc(scores, world.is_member) == approx(stats.norm.cdf(0.7 * sqrt(4) / sqrt(2)), abs=0.025)


def test_offline_is_as_good_as_online_where_members_are_higher_and_two_sided_is_not():
    world = gaussian_world(separation=1.5, models=128, samples=4000, seed=0)
    best = stats.norm.cdf(1.5 / sqrt(2))

    one_sided, two_sided = (roc.auc(lira.score(world.evidence, Options(mode=m)), world.is_member) for m in MODES[1:])

    assert one_sided == approx(best, abs=0.02)
    assert two_sided < best - 0.08


def test_two_sided_takes_a_very_low_margin_for_a_members_and_one_sided_does_not():
    outside = np.random.default_rng(0).normal(size=20)
    low_and_middle = evidence([-9.0, 0.0], outside + 3, outside)

    two_sided = lira.score(low_and_middle, Options(mode="offline_two_sided", variance="pooled"))
    one_sided = lira.score(low_and_middle, Options(mode="offline", variance="pooled"))

    assert two_sided[0] > two_sided[1] and one_sided[0] < one_sided[1]


def test_lira_by_hand():
    """IN references 3 and 5: N(4, 1). OUT references -2 and 2: N(0, 2). The target says 4."""
    score = lira.score(evidence([4.0], [3.0, 5.0], [-2.0, 2.0]), Options(variance="per_sample"))

    assert score == approx(stats.norm(4, 1).logpdf(4) - stats.norm(0, 2).logpdf(4)) == approx(np.log(2) + 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variance", ["per_sample", "pooled"])
@pytest.mark.parametrize("center", ["mean", "median"])
@pytest.mark.parametrize("signal", ["margin", "loss"])
def test_lira_is_the_loop_over_samples(mode, variance, center, signal):
    seen = uneven()

    scores = lira.score(seen, Options(mode=mode, variance=variance, center=center, signal=signal))

    assert scores == approx(lira_by_loop(seen, mode, variance, center, signal), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("center", ["mean", "median"])
def test_pooled_is_the_standard_deviation_of_all_residuals_divided_by_their_number(center):
    """Each arm and view by its own: np.std of the residuals, however many references a sample has."""
    seen = uneven(samples=200)
    margin, reference = (np.asarray(side["margin"], dtype=float) for side in (seen.target, seen.reference))
    middle = np.mean if center == "mean" else np.median
    expected = np.zeros(200)
    for view in range(2):
        for sign, side in ((1, seen.is_in), (-1, ~seen.is_in)):
            values = [reference[side[:, n], n, view] for n in range(200)]
            deviation = np.std(np.concatenate([v - middle(v) for v in values]))
            expected += sign * stats.norm([middle(v) for v in values], deviation).logpdf(margin[:, view]) / 2

    assert lira.score(seen, Options(variance="pooled", center=center)) == approx(expected, rel=1e-10, abs=1e-10)


def test_a_single_sample_is_pooled_to_its_published_variance():
    """One sample's residuals are the pool: pooled is per sample."""
    draw = np.random.default_rng(0)
    alone = evidence([3.0], draw.normal(4, 2, 8), draw.normal(0, 1, 5))

    assert lira.score(alone, Options(variance="pooled")) == approx(lira.score(alone, Options(variance="per_sample")))


@pytest.mark.parametrize(("apart", "deviation"), [(200.0, 1e-4), (200.0, 1e-6), (1e4, 1e-4)])
@pytest.mark.parametrize("variance", ["per_sample", "pooled"])
@pytest.mark.parametrize("mode", MODES)
def test_arms_far_apart_keep_the_digits_of_their_small_spreads(apart, deviation, variance, mode):
    """The tolerance is what float64 leaves of deviations so small at values so large."""
    draw = np.random.default_rng(0)
    is_in = np.concatenate([half := draw.random((8, 50)) < 0.5, ~half])
    margin = np.where(is_in, apart, -apart) + deviation * draw.normal(size=(16, 50))
    seen = Evidence({"margin": apart + deviation * draw.normal(size=(50, 1))}, {"margin": margin[:, :, None]}, is_in)

    pool = Pool({"margin": np.concatenate([seen.target["margin"][None], seen.reference["margin"]])}, np.concatenate([is_in[:1], is_in]))

    alone = lira.score(seen, Options(mode=mode, variance=variance))
    in_turn = lira.score_all(pool, [Turn(0, np.arange(1, 17))], Options(mode=mode, variance=variance))[0]

    expected = approx(lira_by_loop(seen, mode, variance), rel=100 * 2.2e-16 * apart / deviation, abs=1e-6)
    assert alone == expected and in_turn == expected


@pytest.mark.parametrize("references", [4, 64, 2000])
def test_arms_that_are_constant_and_far_apart_have_no_spread(references):
    """A mean rounds in its last digits, so that residuals about it are not quite 0: they are taken for what they are."""
    draw = np.random.default_rng(1)
    levels = draw.normal(3, 9, (2, 30))
    is_in = np.argsort(draw.random((references, 30)), axis=0) < references // 2
    seen = Evidence({"margin": levels[0][:, None]}, {"margin": np.where(is_in, *levels)[:, :, None]}, is_in)

    with pytest.raises(AttackError, match="all answer the same"):
        lira.score(seen, Options(variance="pooled"))


@pytest.mark.parametrize("variance", ["per_sample", "pooled", "shrunk"])
def test_offline_ranks_margins_however_far_out_they_lie(variance):
    """The cdf rounds to 1 above 8.3 standard deviations; the log survival function does not."""
    outside = np.random.default_rng(0).normal(size=16)
    scores = lira.score(evidence([0, 5, 8, 9, 10, 20, 40, 1e3, 1e6], outside + 1, outside), Options(mode="offline", variance=variance))

    assert np.isfinite(scores).all() and (np.diff(scores) > 0).all()


@pytest.mark.parametrize("references", [4, 8, 16, 32])
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
def test_shrunk_is_no_worse_than_pooled_and_per_sample(references, spread):
    """TPR at 1 % FPR; the margins are well above the error of the comparison, which shares its worlds."""
    world = gaussian_world(1.5, references + 2, 4000, seed=7, spread=spread)

    shrunk, pooled, per_sample = (mean_tpr(world, Options(variance=kind)) for kind in ("shrunk", "pooled", "per_sample"))

    assert shrunk > max(pooled, per_sample)


def test_the_prior_is_found_where_variances_follow_it():
    """Variances of an inverse chi-square with 8 degrees of freedom and scale 4, seen through 6."""
    draw = np.random.default_rng(0)
    variance = 8 * 4 / draw.chisquare(8, 20_000)
    arms = [arm_of(7, variance * draw.chisquare(6, 20_000)) for _ in range(2)]

    prior = lira.fit_prior(arms)

    assert 1 / prior.width == approx(8, rel=0.1)
    assert prior.scale == approx([4, 4], rel=0.03)
    assert prior.common == approx(1, abs=0.05)


def test_arms_whose_variances_are_unrelated_share_nothing():
    draw = np.random.default_rng(0)
    arms = [arm_of(7, 8 / draw.chisquare(8, 20_000) * draw.chisquare(6, 20_000)) for _ in range(2)]
    prior = lira.fit_prior(arms)

    own = lira.shrunken([arms[0]])[0]  # Smyth's formula, by one arm alone
    both = lira.shrunken(arms)[0]

    assert prior.common < 0.05
    assert np.corrcoef(own, both)[0, 1] > 0.995


def test_one_arm_alone_is_shrunk_by_smyths_formula():
    draw = np.random.default_rng(0)
    arm = arm_of(5, 5 / draw.chisquare(5, 500) * draw.chisquare(4, 500))
    prior = lira.fit_prior([arm])
    d0, s0 = 1 / prior.width, prior.scale[0]

    assert lira.shrunken([arm])[0] == approx((d0 * s0 + arm.squares) / (d0 + 4))


def test_equal_variances_are_pooled():
    draw = np.random.default_rng(3)
    arm = arm_of(9, draw.chisquare(8, 5000))

    assert lira.shrunken([arm])[0] == approx(np.ones(5000), rel=0.1)


@pytest.mark.parametrize("x", [1e-2, 0.3, 1.0, 7.0, 1e4])
def test_the_inverse_of_trigamma_undoes_it(x):
    assert lira.inverse_trigamma(float(special.polygamma(1, x))) == approx(x, rel=1e-6)


def test_a_single_record_falls_back_to_its_own_variance():
    """Single-record audits have one sample: no prior can be fitted, and its residuals are the pool."""
    draw = np.random.default_rng(0)
    inside, outside = draw.normal(4, 2, 8), draw.normal(0, 1, 8)
    expected = stats.norm(inside.mean(), inside.std(ddof=1)).logpdf(3) - stats.norm(outside.mean(), outside.std(ddof=1)).logpdf(3)

    assert lira.score(evidence([3.0], inside, outside), Options()) == approx(expected)


def test_shrunk_comes_to_per_sample_as_references_grow():
    world = gaussian_world(1.5, 402, 200, seed=0, spread=0.8)

    shrunk, per_sample = (lira.score(world.evidence, Options(variance=kind)) for kind in ("shrunk", "per_sample"))

    assert np.corrcoef(shrunk, per_sample)[0, 1] > 0.99


def test_perfect_memory_is_seen_perfectly():
    world = perfect_memory_world(8, 400, seed=0)

    for mode in ("online", "offline"):
        assert roc.auc(lira.score(world.evidence, Options(mode=mode)), world.is_member) == 1


def test_the_margin_is_made_from_the_loss_where_only_that_is_there():
    seen = uneven()
    only_loss = replace(seen, target={"loss": seen.target["loss"]}, reference={"loss": seen.reference["loss"]})

    assert lira.score(only_loss, Options()) == approx(lira.score(seen, Options()), abs=1e-3)


def test_one_reference_of_each_kind_is_enough_where_others_have_more():
    seen = uneven()
    is_in = seen.is_in.copy()
    is_in[:, 0] = np.arange(9) == 0

    assert np.isfinite(lira.score(replace(seen, is_in=is_in), Options())).all()
    with pytest.raises(AttackError, match="sample 40 has 1 IN references of 9, at least 2 are needed"):
        lira.score(replace(seen, is_in=is_in), Options(variance="per_sample"))


def test_a_sample_without_in_references_needs_offline():
    seen = uneven()
    is_in = seen.is_in.copy()
    is_in[:, 3] = False

    with pytest.raises(AttackError, match=r"sample 43 has 0 IN references of 9.*mode: offline"):
        lira.score(replace(seen, is_in=is_in), Options())
    assert np.isfinite(lira.score(replace(seen, is_in=is_in), Options(mode="offline"))).all()
    with pytest.raises(AttackError, match="sample 43 has 0 OUT references"):
        lira.score(replace(seen, is_in=~is_in), Options(mode="offline"))


def test_references_that_show_no_spread_are_refused():
    with pytest.raises(AttackError, match="no sample has two references of one kind"):
        lira.score(evidence([1.0, 2.0], [3.0], [0.0]), Options())
    with pytest.raises(AttackError, match="there is no reference model, at least 1 is needed"):
        lira.score(evidence([1.0, 2.0], [], []), Options())


def test_constant_references_of_one_sample_are_refused_by_name_and_shrunk_bears_them():
    seen = uneven(views=1)
    margin = seen.reference["margin"].copy()
    margin[~seen.is_in[:, 5], 5] = 1.25
    seen = replace(seen, reference={"margin": margin})

    with pytest.raises(AttackError, match="references of sample 45 are constant; use variance: shrunk"):
        lira.score(seen, Options(variance="per_sample"))
    assert np.isfinite(lira.score(seen, Options())).all()


def test_signals_that_are_all_equal_are_refused():
    with pytest.raises(AttackError, match="every margin is 1"):
        lira.score(evidence([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]), Options())
    with pytest.raises(AttackError, match="all answer the same"):
        lira.score(evidence([1.0, 5.0], [2.0, 2.0], [1.0, 1.0]), Options())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_signals_that_are_not_finite_are_refused(bad):
    seen = uneven()
    broken = seen.reference["margin"].copy()
    broken[2, 3] = bad

    with pytest.raises(AttackError, match="margin of the references: 2 of 216 values are not finite"):
        lira.score(replace(seen, reference={"margin": broken}), Options())
    with pytest.raises(AttackError, match="margin of the target: 1 of 1"):
        lira.score(evidence([bad], [1.0, 2.0], [3.0, 4.0]), Options())


def test_no_samples_have_no_scores():
    nobody = Evidence({"margin": np.zeros((0, 1))}, {"margin": np.zeros((4, 0, 1))}, np.zeros((4, 0), dtype=bool))

    assert lira.score(nobody, Options()).shape == (0,)


@pytest.mark.parametrize("variance", ["pooled", "shrunk"])
def test_an_arm_in_which_nothing_varies_takes_the_spread_of_the_other(variance):
    """As with released labels: whoever was trained on a sample is right about it, others are right about some."""
    draw = np.random.default_rng(0)
    is_in = draw.random((16, 400)) < 0.5
    is_right = is_in | (draw.random((16, 400)) < draw.choice([0.2, 1.0], 400))
    margin = np.where(is_right, 5.0, -5.0).astype(np.float32)[:, :, None]
    world = Evidence({"margin": margin[0]}, {"margin": margin[1:]}, is_in[1:])

    scores = lira.score(world, Options(variance=variance))

    assert np.isfinite(scores).all()
    assert roc.auc(scores, is_in[0]) > roc.auc(is_right[0].astype(float), is_in[0]) > 0.6
