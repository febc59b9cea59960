"""Classifiers of references: out of fold, balanced, in no order but their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from scipy.special import log_softmax
from scipy.stats import norm
from worlds import HalvesWorld, gaussian_world

from memleak.attacks import AttackError, classifiers, shadow
from memleak.attacks.classifiers import Features, Samples, fit, out_of_fold, posteriors
from memleak.attacks.estimate import Comparison
from memleak.metrics import roc

NAMES = ["logistic", "forest", "boosting", "mlp"]
every_classifier = pytest.mark.parametrize("name", NAMES)


def two_normals(n_in: int, n_out: int, distance: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, 2] whose first feature is higher where IN; the second is noise of another scale."""
    draw = np.random.default_rng(seed)
    is_in = np.repeat([True, False], [n_in, n_out])
    return np.stack([draw.normal(size=len(is_in)) + distance * is_in, 1e4 * draw.normal(size=len(is_in))], axis=1), is_in


@every_classifier
def test_each_classifier_comes_near_the_best_auc_of_two_normals(name):
    judge = fit(name, *two_normals(1500, 1500))
    fresh, is_in = two_normals(2000, 2000, seed=1)

    assert roc.auc(judge(fresh), is_in) == approx(norm.cdf(np.sqrt(2)), abs=0.02)  # two unit Gaussians 2 apart


@every_classifier
def test_log_odds_are_even_between_the_sides_however_many_there_are_of_each(name):
    judge = fit(name, *two_normals(600, 6000))
    middle = np.stack([np.full(50, 1.0), np.linspace(-1e4, 1e4, 50)], axis=1)  # as likely IN as OUT

    assert np.median(judge(middle)) == approx(0, abs=0.6)  # unweighted it would be log(600 / 6000) = -2.3


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_log_odds_do_not_tie_where_probabilities_round_to_1(name):
    judge = fit(name, *two_normals(500, 500, distance=20.0))
    far = judge(np.stack([np.linspace(400, 800, 20), np.zeros(20)], axis=1))

    assert (np.diff(far) > 0).all() and far.min() > 40  # sigmoid(40) is 1 in float64


def test_a_forest_that_is_unanimous_has_finite_log_odds():
    features, is_in = two_normals(500, 500, distance=20.0)
    judge = fit("forest", features[:, :1], is_in)

    assert judge(np.array([[20.0], [0.0]])) == approx([np.log(100.5 / 0.5), -np.log(100.5 / 0.5)], abs=1e-6)


@every_classifier
def test_a_second_fit_is_the_same_to_the_last_bit(name):
    rows, (fresh, _) = two_normals(300, 300), two_normals(50, 50, seed=1)

    assert np.array_equal(fit(name, *rows)(fresh), fit(name, *rows)(fresh))


@every_classifier
def test_a_feature_that_never_varied_has_no_say_when_it_does(name):
    features, is_in = two_normals(100, 100)
    features[:, 1] = 0.1
    changed = features.copy()
    changed[:, 1] = 1e6
    judge = fit(name, features, is_in)

    assert np.array_equal(judge(changed), judge(features))


def known_again() -> HalvesWorld:
    """Trap 1: each record has answers of its own, which all models give, so that its rows are known again; nothing else is told."""
    world = gaussian_world(0.0, 12, 240, seed=0)
    draw = np.random.default_rng(1)
    return replace(world, pool=replace(world.pool, signals={"mark": draw.normal(size=(240, 1)) + 1e-9 * draw.normal(size=(12, 240, 1))}))


@every_classifier
def test_who_was_in_how_often_is_not_remembered(name):
    world = known_again()
    turns, truth = world.leaky_turns[:4], world.truth[:4]
    features = Features(Comparison.of_turns(world.pool, turns), ("mark",), lambda signals: signals["mark"])
    aucs = [roc.auc(row, answer) for row, answer in zip(out_of_fold("x", features, None, None, name, "none"), truth, strict=True)]

    assert np.mean(aucs) == approx(0.5, abs=4 * 0.0374 / 2)  # .0374 is the standard deviation of an AUC of 120 + 120


def test_a_forest_fitted_on_all_samples_would_remember_it(monkeypatch):
    monkeypatch.setattr(classifiers, "LEAST_LEAF", 1)
    world = known_again()
    turn, mark = world.leaky_turns[0], world.pool.signals["mark"]
    judge = fit("forest", mark[turn.references].reshape(-1, 1), world.pool.is_in[turn.references].ravel())

    assert roc.auc(judge(mark[turn.target]), world.truth[0]) < 0.2  # the more IN references, the less likely a member


def test_no_sample_is_scored_by_a_classifier_that_saw_it_or_its_twin(monkeypatch):
    world = gaussian_world(1.0, 8, 90, seed=0)
    group = np.arange(90) // 2
    seen = Comparison.of_evidence(replace(world.evidence, reference={"mark": np.broadcast_to(np.arange(90.0)[:, None], (6, 90, 1))},
                                          target={"mark": np.arange(90.0)[:, None]}))  # fmt: skip
    scored = []

    def watched(name, features, is_in):
        learnt = set(features[:, 0].astype(int) // 2)

        def judge(told):
            scored.extend(told[:, 0].astype(int))
            assert not learnt & set(told[:, 0].astype(int) // 2)
            return told[:, 0]

        return judge

    monkeypatch.setattr(classifiers, "fit", watched)
    out_of_fold("x", Features(seen, ("mark",), lambda signals: signals["mark"]), None, group, "logistic", "none")

    assert sorted(scored) == list(range(90))


def test_a_fold_belongs_to_the_id_and_a_third_of_the_samples_is_in_each():
    world = gaussian_world(1.0, 4, 3000, seed=0)
    samples = Samples.of(Comparison.of_evidence(world.evidence), None, None)
    part = np.arange(500, 900)
    fewer = replace(world.evidence, **{side: {} for side in ("target", "reference")}, is_in=world.evidence.is_in[:, part], sample_id=part)

    assert np.array_equal(Samples.of(Comparison.of_evidence(fewer), None, None).fold, samples.fold[part])
    assert np.bincount(samples.fold) == approx(1000, abs=4 * np.sqrt(3000 * 2 / 9))


def test_at_most_so_many_rows_are_drawn_and_half_of_them_in():
    is_in = np.random.default_rng(0).random((20, 500)) < 0.1
    flat = classifiers._some(is_in, 1500)
    rare = classifiers._some(is_in, 4000)

    assert len(np.unique(flat)) == 1500 and is_in.ravel()[flat].sum() == 750
    assert len(rare) == 4000 and is_in.ravel()[rare].sum() == is_in.sum()  # fewer IN than half: all of them
    assert len(classifiers._some(is_in, 10**6)) == is_in.size


def test_fewer_rows_find_nearly_as_much(monkeypatch):
    world = gaussian_world(1.5, 16, 1500, seed=0)
    turns = world.turns[:1]
    whole = shadow.score_all(world.pool, turns, shadow.Options())[0]
    monkeypatch.setattr(classifiers, "N_ROWS", 3000)
    monkeypatch.setattr(classifiers, "N_ROWS_OF_CLASS", 1000)
    part = shadow.score_all(world.pool, turns, shadow.Options())[0]

    assert not np.array_equal(part, whole)
    assert roc.auc(part, world.is_member) == approx(roc.auc(whole, world.is_member), abs=0.01)


def test_posteriors_of_logits_are_averaged_over_views():
    logits = np.array([[[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]])

    assert posteriors(logits, "log_posterior") == approx(log_softmax(logits, axis=-1).mean(axis=1))
    assert posteriors(logits, "posterior").sum(axis=-1) == approx([1.0])


def test_models_that_give_labels_have_posteriors_of_0_and_1():
    logits = np.array([[[-np.inf, 0.0, -np.inf]]])

    assert posteriors(logits, "posterior").tolist() == [[0, 1, 0]]
    assert posteriors(logits, "log_posterior").tolist() == [[-103, 0, -103]]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(broken):
    with pytest.raises(AttackError, match="1 of 2 answers are not finite"):
        posteriors(np.array([[[0.0, 1.0]], [[broken, 0.0]]]), "posterior")


def test_an_order_of_the_models_is_that_of_their_answers():
    world = gaussian_world(1.0, 8, 50, seed=0)
    shuffle = np.random.default_rng(0).permutation(6)
    found = world.evidence
    moved = replace(found, is_in=found.is_in[shuffle], reference={name: values[shuffle] for name, values in found.reference.items()})
    orders = []
    for evidence in (found, moved):
        seen = Comparison.of_evidence(evidence)
        features = Features(seen, ("loss",), lambda signals: signals["loss"].astype(np.float64))
        orders.append(classifiers._order_of_models(features, Samples.of(seen, None, None)))

    assert np.array_equal(shuffle[orders[1]], orders[0])
