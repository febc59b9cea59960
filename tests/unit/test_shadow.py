"""Shokri's attack: a classifier of posteriors, learnt from shadow models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm
from worlds import HalvesWorld, gaussian_world

from memleak.attacks import AttackError, Evidence, classifiers, shadow
from memleak.attacks.shadow import Options
from memleak.contracts import attacks as laws
from memleak.metrics import roc

N_CLASSES = 3


def logits_world(moved: float, models: int = 10, samples: int = 1200, seed: int = 0, views: int = 1) -> HalvesWorld:
    """Logits are unit normals, and the label's is `moved` higher for members: no other record is harder than the next.

    The best attack knows log p up to the logits' common level, and the mean distance of the label's logit to the
    others has variance 1 + 1/2: AUC Phi(moved / sqrt(1.5) / sqrt 2).
    """
    world = gaussian_world(0.0, models, samples, seed)
    logits = np.random.default_rng(seed).normal(size=(models, samples, views, N_CLASSES))
    logits += moved * world.pool.is_in[:, :, None, None] * (np.arange(N_CLASSES) == world.pool.label[:, None])[None, :, None]
    return replace(world, pool=replace(world.pool, signals={"logits": logits.astype(np.float32)}))


@pytest.mark.parametrize("label", ["per_class", "input"])
@pytest.mark.parametrize("features", ["log_posterior", "posterior"])
def test_it_comes_near_the_best_possible_auc(features, label):
    world = logits_world(2.0, models=16, samples=2000)
    auc = roc.auc(shadow.score(world.evidence, Options(label=label, features=features)), world.is_member)
    best = norm.cdf(2.0 / np.sqrt(1.5) / np.sqrt(2))

    assert best - 0.03 < auc < best + 0.03  # .008 is the standard deviation of such an AUC


def test_views_that_are_independent_tell_more():
    one, four = (logits_world(1.0, views=views) for views in (1, 4))
    aucs = [roc.auc(shadow.score(world.evidence, Options()), world.is_member) for world in (one, four)]

    assert aucs[1] > aucs[0] + 0.08


@pytest.mark.parametrize("classifier", ["logistic", "forest", "boosting", "mlp"])
def test_where_nothing_leaks_nothing_is_found_even_with_the_complement_among_the_references(classifier):
    """Trap 1: in `leaky_turns` the number of IN references of a record is the answer."""
    world = logits_world(0.0, models=8, samples=400)
    scores = shadow.score_all(world.pool, world.leaky_turns[:4], Options(classifier=classifier, label="none"))
    aucs = [roc.auc(row, truth) for row, truth in zip(scores, world.truth[:4], strict=True)]

    assert np.mean(aucs) == approx(0.5, abs=4 * 0.0289 / 2)  # .0289 is the standard deviation of an AUC of 200 + 200


def with_class_2_out(evidence: Evidence) -> Evidence:
    return replace(evidence, is_in=evidence.is_in & (evidence.label != 2))


def test_a_class_that_no_reference_trained_on_takes_the_classifier_of_all_classes():
    evidence = with_class_2_out(logits_world(2.0).evidence)
    per_class, whole = (shadow.score(evidence, Options(label=label)) for label in ("per_class", "none"))
    is_2 = evidence.label == 2

    assert per_class[is_2] == approx(whole[is_2], abs=1e-12)
    assert not np.isclose(per_class[~is_2], whole[~is_2]).any()


def test_the_label_and_its_own_posterior_are_inputs_where_that_is_asked_for(monkeypatch):
    world = logits_world(1.0, models=6, samples=90)
    given = []
    monkeypatch.setattr(classifiers, "fit", lambda name, rows, is_in: given.append(rows) or (lambda told: told[:, -1]))
    scores = shadow.score(world.evidence, Options(label="input", features="posterior"))
    p = classifiers.posteriors(world.evidence.target["logits"], "posterior")

    assert scores == approx(p[np.arange(90), world.evidence.label])
    assert all((rows[:, 3:6].sum(axis=1) == 1).all() and np.allclose((rows[:, :3] * rows[:, 3:6]).sum(axis=1), rows[:, 6]) for rows in given)


def test_audited_records_that_no_reference_trained_on_are_scored_from_those_of_the_shadow_pool():
    """Half of the columns are the audited records, OUT for every reference; the shadow pool has the rest."""
    world = logits_world(2.0, models=10, samples=2000)
    audited = np.arange(2000) < 1000
    scores = shadow.score(replace(world.evidence, is_in=world.evidence.is_in & ~audited), Options())

    assert roc.auc(scores[audited], world.is_member[audited]) > 0.8


def test_all_targets_at_once_have_the_scores_of_each_alone():
    world = logits_world(1.0, models=8, samples=150, views=2)
    for options in (Options(), Options(label="input", classifier="boosting")):
        alone = [shadow.score(world.pool.evidence(turn), options) for turn in world.turns]

        assert np.array_equal(shadow.score_all(world.pool, world.turns, options), alone)


def test_targets_with_the_same_references_share_their_classifiers(monkeypatch):
    world = logits_world(1.0, models=8, samples=150)
    fitted = []
    monkeypatch.setattr(classifiers, "fit", lambda *rows: fitted.append(rows) or (lambda told: told[:, 0]))
    shadow.score_all(world.pool, world.turns, Options(label="none"))

    assert len(fitted) == 4 * classifiers.N_FOLDS  # four pairs of models


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"label": None}, Options(), "label: per_class needs the labels of the samples"),
        ({"is_in": np.zeros((8, 1200), dtype=bool)}, Options(), "0 IN and .* OUT; at least 10 of each"),
        ({"is_in": np.ones((8, 1200), dtype=bool)}, Options(label="none"), "IN and 0 OUT; at least 10 of each"),
        (
            {"target": {"loss": np.ones((1200, 1))}, "reference": {"loss": np.ones((8, 1200, 1))}},
            Options(),
            "'logits' is asked for, the evidence holds",
        ),
        ({"reference": {"logits": np.ones((8, 1200, 1, 3))}}, Options(), "the references answer the same about all samples"),
        ({"reference": {"logits": np.full((8, 1200, 1, 3), np.nan)}}, Options(), "answers are not finite"),
    ],
)
def test_evidence_that_cannot_be_used_is_refused_in_a_sentence(changed, options, message):
    with pytest.raises(AttackError, match=message):
        shadow.score(replace(logits_world(1.0).evidence, **changed), options)


def test_one_record_alone_has_no_others_to_learn_from():
    evidence = laws.taken(laws.made(1.0, 12, 0).evidence, np.array([5]))

    with pytest.raises(AttackError, match="0 IN and 0 OUT; at least 10 of each are needed: audit more records together"):
        shadow.score(evidence, Options())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shadow", {}), ("shadow", {"classifier": "boosting", "label": "input", "features": "posterior"}), ("top_k", {}), ("meta", {}),
        ("meta", {"calibrated": True, "gradient_norm": True}), ("label_only", {}), ("label_only", {"method": "boundary"}),
        ("label_only", {"method": "noise"}), ("label_only", {"classifier": "none"}), ("threshold", {"signal": "gradient_norm"}),
        ("threshold", {"signal": "one_of_mine"}),
    ],
)  # fmt: skip
def test_the_laws_of_an_attack_are_kept(name, options):
    found = list(laws.check(name, options))

    assert not [str(finding) for finding in found if finding.state == "broken"]
    assert len(found) == 9 and {finding.law for finding in found if finding.state == "doubtful"} <= {
        "one record alone has a score (design pairs asks so)"
    }
