"""Whole audits by reference models: halves of a pool, canaries, and pairs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from memleak import artefacts
from memleak.attacks import pools
from memleak.attacks import stage as attacks
from memleak.metrics import audited, roc

SCORES = artefacts.POOL_SCORE_COLUMNS[2:]


def scores_of(walk, attack):
    models = artefacts.read_table(walk.plan, ["model_id"])["model_id"].tolist()
    return pools.read_scores(walk.audit(f"scores/{attack}.parquet"), models, SCORES)


def test_every_model_is_scored_on_every_sample_of_the_pool(pool_walk):
    sample_id, scores = scores_of(pool_walk, "lira")

    assert len(sample_id) == 150
    assert scores["score"].shape == (12, 150) and not np.isnan(scores["score"]).any()
    assert not np.isnan(scores["folded"]).any()


@pytest.mark.parametrize("attack", ["loss", "lira", "rmia", "population"])
def test_small_overfitted_models_leak(pool_walk, attack):
    sample_id, scores = scores_of(pool_walk, attack)
    truth = pools.read_models(pool_walk.plan, sample_id).is_member

    assert roc.auc(scores["score"], truth) == pytest.approx(pool_walk.metrics["attacks"][attack]["auc"]["value"])
    assert roc.auc(scores["score"], truth) > 0.53


@pytest.mark.parametrize("attack", ["loss", "lira", "rmia", "population"])
def test_the_truth_about_a_target_and_its_twin_cannot_reach_a_score(pool_walk, tmp_path, attack):
    """Flip the memberships of the first unit in the plan: its scores stay bit for bit the same."""
    plan, facts = artefacts.read_table(pool_walk.plan, artefacts.PLAN_COLUMNS), artefacts.read_facts(pool_walk.plan)
    plan.loc[:1, "membership"] = plan["membership"].iloc[[1, 0]].to_numpy()
    artefacts.write_table(tmp_path / "plan.parquet", plan, facts)
    options = json.loads(pool_walk.planned.attack_json(attack))

    attacks.score(tmp_path / "plan.parquet", pool_walk.samples, pool_walk.signals, pool_walk.population, options, tmp_path / "s.parquet")

    _, before = scores_of(pool_walk, attack)
    _, after = pools.read_scores(tmp_path / "s.parquet", plan["model_id"].tolist(), SCORES)
    for column in SCORES:
        assert np.array_equal(before[column][:2], after[column][:2], equal_nan=True)


def test_as_many_references_as_were_asked_for(pool_walk):
    found = {name: attack["n_references"] for name, attack in pool_walk.metrics["attacks"].items()}

    assert found == {"loss": 0, "lira": 10, "rmia": 6, "population": 0}


def test_every_figure_of_a_pool_audit_has_an_interval_that_holds_it(pool_walk):
    metrics = pool_walk.metrics

    for attack in metrics["attacks"].values():
        rates = [attack["auc"], attack["balanced_accuracy"], attack["advantage"], *attack["rates"], *(one["tpr"] for one in attack["calibrated"])]
        assert all(rate["low"] <= rate["value"] <= rate["high"] for rate in rates)
        assert [rate["at_fpr"] for rate in attack["rates"]] == [0.1, 0.01, 0.001, 0.0001, 0.0]
        assert not attack["rates"][-1]["certified"] and not attack["rates"][-2]["certified"]
    assert metrics["controls"]["null"]["alarm"] is False
    assert metrics["epsilon"] is None
    assert {one["class"] for one in metrics["classes"]} <= set(range(10))


def test_decisions_are_those_of_the_thresholds_of_other_models(pool_walk):
    decided = artefacts.read_table(pool_walk.audit("decisions.parquet"), ["attack", "target_id", "sample_id", "score", "says_member", "is_member"])
    thresholds = artefacts.read_json(pool_walk.audit("thresholds/lira.json"))["targets"]
    own = decided[decided["attack"] == "lira"]
    cut = own["target_id"].map({name: known["threshold"] for name, known in thresholds.items()})

    assert (own["says_member"] == (own["score"] > cut)).all()
    assert 0 < own.loc[~own["is_member"], "says_member"].mean() < 0.12  # alpha is .05
    assert own.loc[own["is_member"], "says_member"].mean() > own.loc[~own["is_member"], "says_member"].mean()


def test_exposure_counts_the_targets_that_trained_on_a_sample(pool_walk):
    table = pd.read_parquet(pool_walk.audit("exposure.parquet"))

    assert len(table) == 150 and (table["n_holding"] == 6).all()
    assert ((table["low"] <= table["rate"]) & (table["rate"] <= table["high"])).all()


def test_the_roc_of_every_attack_is_written_headline_first(pool_walk):
    curves = pd.read_parquet(pool_walk.audit("roc.parquet"))

    assert curves["subject"].unique().tolist() == ["lira", "loss", "rmia", "population"]
    own = curves[curves["subject"] == "lira"]
    assert ((own["low"] <= own["tpr"]) & (own["tpr"] <= own["high"])).all()
    assert pd.read_csv(pool_walk / "plots/small.csv")["tpr"].tolist() == pytest.approx(curves.loc[curves["subject"] == "lira", "tpr"].tolist())


def test_a_twin_among_the_references_raises_the_alarm(pool_walk, monkeypatch):
    """The trap: the complement is a reference again, and the count of IN references is the answer."""
    samples, _ = pools.read_samples(pool_walk.samples)
    audit = audited.Audited(pools.read_models(pool_walk.plan, samples["sample_id"].to_numpy()), samples)
    assert audited.worst(audit.counts([None, 6]))["alarm"] is False

    turn = pools.Models.turn
    monkeypatch.setattr(pools.Models, "turn", lambda models, target, among, n=None: replace(turn(models, target, among, n), references=np.array([row for row in range(12) if row != target])))  # fmt: skip

    assert audited.worst(audit.counts([None]))["alarm"] is True


def test_mislabelled_canaries_refute_a_small_epsilon(coins):
    found = coins.metrics["epsilon"]

    assert found["epsilon"] > 1 and found["delta"] == 1e-5 and found["strategy"] == "bonferroni"
    assert len(found["runs"]) == 4 and all(run["confidence"] == pytest.approx(0.9875) for run in found["runs"])
    assert found["epsilon"] == max(run["epsilon"] for run in found["runs"])


def test_reference_attacks_find_a_mislabelled_record_in_pairs(referenced):
    target = referenced.metrics["targets"]["mislabelled00"]

    for attack in ("lira", "rmia"):
        assert target["attacks"][attack]["tpr"]["k"] >= 3 and target["attacks"][attack]["tpr"]["n"] == 4
        assert target["attacks"][attack]["fpr"]["k"] <= 2
    assert referenced.metrics["epsilon"]["epsilon"] >= 0


def test_the_page_of_pairs_words_attacks_that_decide_on_scores(referenced):
    html = referenced.audit("report.html").read_text()

    assert "lira, empirical threshold on its score, alpha 10\N{NO-BREAK SPACE}%" in html and "score &gt;" in html
    assert "normal, threshold, margin, alpha 5\N{NO-BREAK SPACE}%" in html


def test_thresholds_of_a_pair_count_the_scores_of_left_out_rounds(referenced):
    rule = artefacts.read_json(referenced.audit("thresholds/lira.json"))["targets"]["random00"]

    assert rule["n_fitted"] == 9 and rule["optimistic"]["fpr"] <= 0.1


OWN_ATTACK = """
import numpy as np
from memleak.params import Frozen

class Options(Frozen):
    sign: float = 1.0

def score(evidence, options):
    assert evidence.population_target is None and set(evidence.target) == set(evidence.reference)
    return options.sign * (evidence.target["margin"] - evidence.reference["margin"].mean(axis=0)).mean(axis=-1)
"""


@pytest.mark.parametrize("design", ["pool_walk", "referenced"])
def test_an_attack_of_the_users_own_scores_any_design(design, request, tmp_path):
    walk = request.getfixturevalue(design)
    (tmp_path / "my_attack.py").write_text(OWN_ATTACK)
    attack = {"id": "mine", "name": f"{tmp_path}/my_attack.py:score", "options": {"sign": 2.0}, "alpha": 0.05}

    attacks.score(walk.plan, walk.samples, walk.signals, [], attack, tmp_path / "scores.parquet")

    table = artefacts.read_table(tmp_path / "scores.parquet", artefacts.SCORE_COLUMNS)
    assert len(table) == {"pool_walk": 12 * 150, "referenced": len(table)}[design] and np.isfinite(table["score"]).all()
