"""RaMIA: the trimmed mean of a point attack's scores over the views of a sample."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pydantic
import pytest
from pytest import approx
from worlds import gaussian_world

from memleak import params
from memleak.attacks import AttackError, Evidence, rmia, threshold
from memleak.attacks import range as attack
from memleak.attacks.range import Options, trimmed_mean
from memleak.metrics import roc

RMIA = {"name": "memleak.attacks.rmia:score", "a": 0.3}
LOSS = {"name": "memleak.attacks.threshold:score"}


def test_the_lowest_and_the_highest_scores_are_left_out():
    scores = np.array([[5.0, 1.0, 2.0, 100.0, 3.0], [0.0, 0.0, 0.0, 0.0, 10.0]])

    assert trimmed_mean(scores, 0, 0) == approx([22.2, 2.0])
    assert trimmed_mean(scores, 0.2, 0.2) == approx([10 / 3, 0.0])
    assert trimmed_mean(scores, 0.39, 0) == approx([110 / 4, 2.5])
    assert trimmed_mean(scores, 0.6, 0.2) == approx([5.0, 0.0])


def test_a_share_that_is_whole_in_decimal_is_taken_whole():
    assert trimmed_mean(np.arange(100.0), 0.29, 0.0) == approx(np.arange(29, 100).mean())
    assert trimmed_mean(np.arange(2.0), 0.5, 0.4999999999) == approx(1.0)  # a view is left however the shares round


def test_scores_are_those_of_the_point_attack_view_by_view():
    world = gaussian_world(separation=1.0, models=6, samples=50, seed=1, population=30, views=4)
    found = world.evidence

    def of_view(q: int) -> Evidence:
        parts = {
            name: {"loss": getattr(found, name)["loss"][..., [q]]} for name in ("target", "reference", "population_target", "population_reference")
        }
        return replace(found, **parts)

    views = np.stack([rmia.score(of_view(q), rmia.Options(a=0.3)) for q in range(4)], axis=1)

    assert np.array_equal(attack.score(found, Options(point=RMIA)), np.sort(views, axis=1).mean(axis=1))
    assert np.array_equal(attack.score(found, Options(point=RMIA, trim_low=0.25, trim_high=0.25)), np.sort(views, axis=1)[:, 1:3].mean(axis=1))


def test_a_population_of_one_view_serves_all_views_of_the_range():
    world = gaussian_world(separation=1.0, models=6, samples=50, seed=1, population=30, views=3)
    one = {name: {"loss": getattr(world.evidence, name)["loss"][..., :1]} for name in ("population_target", "population_reference")}
    repeated = {name: {"loss": values["loss"].repeat(3, axis=-1)} for name, values in one.items()}

    scores = attack.score(replace(world.evidence, **one), Options(point=RMIA))

    assert np.array_equal(scores, attack.score(replace(world.evidence, **repeated), Options(point=RMIA)))


def test_a_member_hidden_among_the_views_is_found_when_low_scores_are_trimmed():
    """One view of ten was trained on: its score stands out, the mean over the range drowns it."""
    draw = np.random.default_rng(0)
    is_member = np.arange(400) < 200
    loss = draw.normal(5.0, 1.0, (400, 10))
    loss[is_member, draw.integers(0, 10, 200)] -= 3.0
    found = Evidence({"loss": loss}, {"loss": np.zeros((0, 400, 10))}, np.zeros((0, 400), dtype=bool))

    of_all, of_top = (roc.auc(attack.score(found, Options(point=LOSS, trim_low=low)), is_member) for low in (0.0, 0.9))

    assert of_top > of_all + 0.05 > 0.6


@pytest.mark.parametrize("point", [RMIA, LOSS], ids=["all at once", "one by one"])
def test_all_targets_at_once_have_the_scores_of_each_alone(point, monkeypatch):
    if point is LOSS:
        monkeypatch.delattr(threshold, "score_all")
    world = gaussian_world(separation=1.0, models=6, samples=40, seed=5, population=30, views=3)
    options = Options(point=point, trim_low=0.4)
    alone = np.stack([attack.score(world.pool.evidence(turn), options) for turn in world.turns])

    assert np.array_equal(attack.score_all(world.pool, world.turns, options), alone)


def test_the_needs_are_those_of_the_point_attack():
    assert Options(point={**RMIA, "mode": "online"}).needs == rmia.Options(mode="online").needs
    assert not Options(point=LOSS).needs.population


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"point": {"a": 0.3}}, "'name' is missing"),
        ({"point": {"name": "rmai"}}, "point.name: no attack is called 'rmai'"),
        ({"point": {**RMIA, "gama": 2}}, "unknown key 'gama' .did you mean 'gamma'"),
        ({"point": {**RMIA, "gamma": -1}}, "point.gamma: .*greater than 0"),
        ({"point": {"name": "memleak.attacks.range:score"}}, "an attack on points, such as rmia"),
        ({"point": RMIA, "trim_low": 0.5, "trim_high": 0.5}, "leave no view"),
        ({"point": RMIA, "trim_low": -0.1}, "greater than or equal to 0"),
    ],
)
def test_options_that_cannot_be_met_are_refused_in_a_sentence(wrong, message):
    with pytest.raises(pydantic.ValidationError) as found:
        Options(**wrong)

    (sentence,) = params.sentences(found.value)
    assert re.search(message, sentence)


def test_views_that_do_not_agree_are_refused():
    world = gaussian_world(separation=1.0, models=6, samples=20, seed=1, population=10, views=3)
    target = dict(world.evidence.target) | {"entropy": world.evidence.target["entropy"][:, :2]}
    two = {"population_target": {"loss": np.ones((10, 2))}, "population_reference": {"loss": np.ones((4, 10, 2))}}

    with pytest.raises(AttackError, match=r"signals have \[2, 3\] views"):
        attack.score(replace(world.evidence, target=target), Options(point=RMIA))
    with pytest.raises(AttackError, match="population was queried in 2 views, expected 1, or 3"):
        attack.score(replace(world.evidence, **two), Options(point=RMIA))
