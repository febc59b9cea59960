"""ML-Leaks: the largest posteriors, and one shadow model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from worlds import gaussian_world, perfect_memory_world

from memleak.attacks import AttackError, classifiers, top_k
from memleak.attacks.top_k import Options
from memleak.metrics import roc


@pytest.mark.parametrize("features", ["log_posterior", "posterior"])
def test_one_shadow_model_tells_members_of_a_model_that_remembers_all(features):
    world = perfect_memory_world(models=6, samples=400, seed=0)

    assert roc.auc(top_k.score(world.evidence, Options(features=features)), world.is_member) > 0.99


def test_the_classifier_is_given_the_largest_posteriors_in_falling_order(monkeypatch):
    world = gaussian_world(1.0, 8, 200, seed=0)
    given = []
    monkeypatch.setattr(classifiers, "fit", lambda name, features, is_in: given.append(features) or (lambda told: told[:, 0]))
    scores = top_k.score(world.evidence, Options(k=2, features="posterior"))

    assert all(rows.shape[1] == 2 and (np.diff(rows, axis=1) <= 0).all() for rows in given)
    assert scores == pytest.approx(world.evidence.target["confidence"][:, 0], abs=1e-6)


def test_of_two_classes_both_are_kept(monkeypatch):
    world = gaussian_world(1.0, 8, 200, seed=0)
    pool = replace(world.pool, signals={"logits": world.pool.signals["logits"][..., :2]})
    widths = []
    monkeypatch.setattr(classifiers, "fit", lambda name, features, is_in: widths.append(features.shape[1]) or (lambda told: told[:, 0]))
    top_k.score(pool.evidence(world.turns[0]), Options(k=3))

    assert set(widths) == {2}


def test_the_labels_are_not_read():
    world = gaussian_world(1.0, 8, 200, seed=0)
    scores = top_k.score(world.evidence, Options(classifier="logistic"))

    assert np.array_equal(top_k.score(replace(world.evidence, label=None), Options(classifier="logistic")), scores)


def test_as_many_shadow_models_are_used_as_are_asked_for(monkeypatch):
    world = gaussian_world(1.0, 8, 100, seed=0)
    n_rows = []
    monkeypatch.setattr(classifiers, "fit", lambda name, features, is_in: n_rows.append(len(features)) or (lambda told: told[:, 0]))
    for shadows in (1, 3):
        n_rows.clear()
        top_k.score(world.evidence, Options(shadows=shadows))
        assert sum(n_rows) == 2 * shadows * 100  # each row is in two of three folds' fits

    with pytest.raises(AttackError, match="9 shadows are asked for, a target has 6 references"):
        top_k.score(world.evidence, Options(shadows=9))


def test_which_shadow_model_is_used_does_not_depend_on_their_order():
    world = gaussian_world(1.0, 8, 200, seed=0)
    found, order = world.evidence, np.random.default_rng(0).permutation(6)
    moved = replace(found, is_in=found.is_in[order], reference={name: values[order] for name, values in found.reference.items()})

    assert np.array_equal(top_k.score(moved, Options()), top_k.score(found, Options()))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"shadows": 0}, {"classifier": "svm"}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Options(**wrong)
