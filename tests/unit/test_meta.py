"""A classifier on all signals of a sample at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from pytest import approx
from scipy.stats import norm
from worlds import gaussian_world

from memleak.attacks import AttackError, Evidence, meta, threshold
from memleak.attacks.classifiers import Samples
from memleak.attacks.estimate import Comparison
from memleak.attacks.meta import Options, Relative
from memleak.metrics import roc


def test_two_signals_tell_more_than_the_better_of_them():
    """Two independent signals, each two unit Gaussians 1 apart: together sqrt 2 apart."""
    world = gaussian_world(0.0, 10, 2000, seed=0)
    draw = np.random.default_rng(0)
    signals = {name: (world.pool.is_in[:, :, None] + draw.normal(size=(10, 2000, 1))) for name in ("one", "other")}
    evidence = replace(world.pool, signals=signals).evidence(world.turns[0])
    both = roc.auc(meta.score(evidence, Options(signals=("one", "other"))), world.is_member)
    alone = [roc.auc(threshold.score(evidence, threshold.Options(signal=name)), world.is_member) for name in ("one", "other")]

    assert both == approx(norm.cdf(1.0), abs=0.025)
    assert both > max(alone) + 0.04


def test_calibrated_it_comes_near_the_best_possible_auc_where_records_have_levels_of_their_own():
    world = gaussian_world(1.5, 24, 1500, seed=0)
    plain, calibrated = (roc.auc(meta.score(world.evidence, Options(calibrated=c)), world.is_member) for c in (False, True))

    assert norm.cdf(1.5 / np.sqrt(2)) - 0.04 < calibrated < norm.cdf(1.5 / np.sqrt(2)) + 0.02
    assert calibrated > plain + 0.1


def relative(world, references: np.ndarray) -> Relative:
    features = Relative(Comparison.of_turns(world.pool, world.turns[:1]), ("loss",), lambda signals: signals["loss"].astype(np.float64))
    return features.beside(references)


def test_a_reference_is_compared_with_the_others_but_its_complement():
    world = gaussian_world(1.0, 8, 40, seed=0)
    references, loss, is_in = np.arange(2, 8), world.pool.signals["loss"][..., 0].astype(np.float64), world.pool.is_in
    for model in references:
        found = relative(world, references).of_models(np.full(40, model), np.arange(40))[:, 0]
        others = [m for m in references if m not in (model, model ^ 1)]
        expected = [
            loss[model, x] - np.mean([loss[m, x] for m in others if not is_in[m, x]]) if (~is_in[others, x]).any() else np.nan for x in range(40)
        ]

        assert found == approx(np.array(expected), nan_ok=True)


def test_calibrated_a_shadow_pool_may_have_records_that_every_reference_trained_on():
    """Each trained on a random half of it: with 3 of them one record in eight is IN for all, and is not learnt from."""
    draw, n = np.random.default_rng(0), 2000
    is_audited, is_member = np.arange(n) < 800, np.arange(n) < 400
    is_in = (draw.random((3, n)) < 0.5) & ~is_audited
    level = draw.normal(0, 2, n)  # how hard a record is
    loss = level - 1.5 * np.vstack([is_member, is_in]) + draw.normal(size=(4, n))
    evidence = Evidence({"loss": loss[0, :, None]}, {"loss": loss[1:, :, None]}, is_in, sample_id=np.arange(n), is_audited=is_audited)

    scores = meta.score(evidence, Options(signals=("loss",), calibrated=True))

    assert is_in.all(axis=0).any() and np.isfinite(scores[:800]).all() and np.isnan(scores[800:]).all()
    assert roc.auc(scores[:800], is_member[:800]) == approx(norm.cdf(1.5 / np.sqrt(2 * (1 + 1 / 3))), abs=0.04)


def test_the_complement_is_known_though_audited_records_are_out_for_everybody():
    world = gaussian_world(1.0, 8, 40, seed=0)
    is_in = world.pool.is_in & (np.arange(40) >= 20)
    found = relative(replace(world, pool=replace(world.pool, is_in=is_in)), np.arange(2, 8))

    assert found.outside.twin[2:].tolist() == [3, 2, 5, 4, 7, 6]


def test_rows_without_another_out_reference_are_left_out_of_the_fit():
    """Two pairs of references: where a model and its complement are aside, of the other two one is OUT; with one pair none is."""
    world = gaussian_world(2.0, 4, 300, seed=0)
    seen = Comparison.of_turns(world.pool, world.turns[:1])

    assert np.isnan(relative(world, np.array([2, 3])).of_models(np.full(300, 2), np.arange(300))).all()
    assert len(Samples.of(seen, None, None).order) == 300
    with pytest.raises(AttackError, match="1 OUT references of 2, at least 2 are needed"):
        meta.score_all(world.pool, world.turns[:1], Options(calibrated=True))


@pytest.mark.parametrize("classifier", ["logistic", "boosting"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_where_nothing_leaks_nothing_is_found(classifier, calibrated):
    world = gaussian_world(0.0, 8, 600, seed=3)
    scores = meta.score_all(world.pool, world.turns, Options(classifier=classifier, calibrated=calibrated))
    aucs = [roc.auc(row, truth) for row, truth in zip(scores, world.truth, strict=True)]

    assert np.mean(aucs) == approx(0.5, abs=4 * 0.0236 / np.sqrt(8))


@pytest.mark.parametrize("options", [Options(), Options(calibrated=True), Options(classifier="boosting", label="per_class", calibrated=True)])
def test_all_targets_at_once_have_the_scores_of_each_alone(options):
    world = gaussian_world(1.0, 8, 150, seed=0, views=2)
    alone = [meta.score(world.pool.evidence(turn), options) for turn in world.turns]

    assert np.array_equal(meta.score_all(world.pool, world.turns, options), alone)


def test_the_gradient_norm_is_measured_where_it_is_asked_for():
    assert Options(gradient_norm=True).needs.measured == {"gradient_norm": {"name": "gradient_norm"}}
    assert Options(gradient_norm=True).needs.signals[-1] == "gradient_norm"
    assert not Options().needs.measured and "gradient_norm" not in Options().needs.signals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"signals": ("loss", "logits")}, "'logits' is a vector"),
        ({"signals": ("loss", "loss")}, "names one twice"),
        ({"signals": ("gradient_norm",), "gradient_norm": True}, "names one twice"),
        ({"signals": ()}, "at least 1 item"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Options(**wrong)


def test_a_signal_that_is_not_there_or_not_finite_is_named():
    evidence = gaussian_world(1.0, 8, 100, seed=0).evidence
    with pytest.raises(AttackError, match="'mine' is asked for"):
        meta.score(evidence, Options(signals=("loss", "mine")))
    broken = {**evidence.reference, "entropy": np.full((6, 100, 1), np.nan)}
    with pytest.raises(AttackError, match=r"entropy: .* are not finite"):
        meta.score(replace(evidence, reference=broken), Options())
