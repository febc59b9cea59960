"""Labels alone: right answers about moved and turned images, distances, robustness; and how many queries that takes."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from pytest import approx
from worlds import gaussian_world

from memleak.attacks import AttackError, Evidence, Pool, Turn, label_only
from memleak.attacks.label_only import Options
from memleak.metrics import roc
from memleak.params import N_OF_FAMILY
from memleak.signals.views import expand

N = 1500


def answers_world(models: int = 8) -> tuple[Pool, list[Turn]]:
    """Six views. All models are right about views 0 and 1 in nine of ten; members' answers are right in views 2 to 5 twice as often."""
    draw = np.random.default_rng(0)
    half = np.argsort(draw.random((models // 2, N)), axis=1) < N // 2
    is_in = np.stack([half, ~half], axis=1).reshape(models, N)
    chance = np.where(np.arange(6) < 2, 0.9, 0.4 + 0.4 * is_in[:, :, None])
    pool = Pool({"is_correct": draw.random((models, N, 6)) < chance}, is_in, sample_id=np.arange(N))
    return pool, [Turn(target, np.delete(np.arange(models), [target, target ^ 1])) for target in range(models)]


@pytest.mark.parametrize("classifier", ["logistic", "boosting"])
def test_the_vector_of_right_answers_tells_more_than_one_answer_and_than_their_share(classifier):
    pool, turns = answers_world()
    fitted, share = (roc.auc(label_only.score(pool.evidence(turns[0]), Options(classifier=c)), pool.is_in[0]) for c in (classifier, "none"))
    one = roc.auc(pool.signals["is_correct"][0, :, 2].astype(float), pool.is_in[0])

    assert fitted > one + 0.1
    assert fitted > share


def test_all_targets_at_once_have_the_scores_of_each_alone():
    pool, turns = answers_world()
    for options in (Options(), Options(classifier="none")):
        assert np.array_equal(label_only.score_all(pool, turns, options), [label_only.score(pool.evidence(turn), options) for turn in turns])


def test_without_references_the_score_is_the_share_of_right_answers():
    answers = np.array([[True, False, True, True], [False, False, False, False]])

    assert label_only.score(Evidence({"is_correct": answers}, {}, np.zeros((0, 2), dtype=bool)), Options(classifier="none")).tolist() == [0.75, 0.0]


@pytest.mark.parametrize(("method", "column"), [("boundary", "boundary_distance"), ("noise", "noise_robustness")])
def test_the_measured_signal_is_the_score_and_its_queries_are_bounded(method, column):
    options = Options(method=method, queries=50)
    evidence = Evidence({column: np.array([[0.0, 0.5], [2.0, 2.0]])}, {}, np.zeros((0, 2), dtype=bool))

    assert label_only.score(evidence, options) == approx([0.25, 2.0])
    assert options.needs.measured == {column: {"name": column, "queries": 50}}
    assert not options.needs.has_references and not options.needs.views


def test_a_distance_that_is_not_finite_is_refused():
    evidence = Evidence({"boundary_distance": np.array([[0.0], [np.inf]])}, {}, np.zeros((0, 2), dtype=bool))

    with pytest.raises(AttackError, match="boundary_distance of the target: 1 of 2 values are not finite"):
        label_only.score(evidence, Options(method="boundary"))


@pytest.mark.parametrize("name", ["identity", "flip", "shift-1", "shift-2", "flip-shift-1", "rotate-2", "rotate-4"])
def test_a_family_is_counted_as_it_is_asked(name):
    assert Options(views=(name,)).n_views == len(expand([name]))


def test_every_family_is_counted():
    assert {name.rstrip("0123456789").rstrip("-") for name in ("identity", "flip", "shift-1", "flip-shift-1", "rotate-1")} | {
        "lowercase",
        "prefix",
    } == set(N_OF_FAMILY)  # the last two of texts
    assert Options().n_views == len(expand(Options().views)) == 14
    assert Options().needs.views == Options().views


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 13}, "are 14 queries of each record, queries allows 13; name fewer views"),
        ({"views": ("flip", "flip")}, "names one family twice"),
        ({"views": ("upside-down",)}, "pattern"),
        ({"views": ()}, "at least 1 item"),
        ({"queries": 0}, "greater than or equal to 1"),
        ({"method": "guess"}, "augmentation"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Options(**wrong)


def test_a_distance_takes_few_queries_where_views_would_take_more():
    assert Options(method="boundary", queries=10).needs.measured["boundary_distance"]["queries"] == 10


def test_who_trained_on_nothing_is_no_reference():
    world = gaussian_world(1.0, 8, 100, seed=0)
    with pytest.raises(AttackError, match=r"label_only: a sample is scored by a classifier of other samples, .* 0 IN"):
        label_only.score(Evidence(world.evidence.target, world.evidence.reference, np.zeros((6, 100), dtype=bool)), Options())
