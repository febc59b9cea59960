"""The walk through all rooms: what each artefact holds, and that the parts belong together."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.attacks import pairs
from memleak.attacks import stage as attacks
from memleak.metrics import stage as metrics


def test_the_plan_has_a_row_for_every_model_and_its_members(walk, digits):
    plan = artefacts.read_table(walk.plan, artefacts.PLAN_COLUMNS)
    facts = artefacts.read_facts(walk.plan)
    trained = [model["model_id"] for path in walk.signals for model in artefacts.read_facts(path)["models"]]

    assert sorted(plan["model_id"]) == sorted(trained)
    members = {row.model_id: np.unpackbits(np.frombuffer(row.membership, np.uint8)).astype(bool) for row in plan.itertuples()}
    for row in plan.itertuples():
        own = facts["targets"][row.target]["sample_id"] if not pd.isna(row.target) else None
        assert members[row.model_id].sum() == 64 + (row.arm == "in")
        if own is not None:
            assert members[row.model_id][own] == (row.arm == "in")
            assert not members[row.model_id][facts["targets"][row.target]["source_id"]] or row.arm == "in"


def test_an_out_arm_never_saw_the_record_or_its_twin(walk):
    plan = artefacts.read_table(walk.plan, artefacts.PLAN_COLUMNS).set_index("model_id")
    facts = artefacts.read_facts(walk.plan)
    for arms in pairs.read(walk.plan, walk.signals, ["margin"]):
        assert arms.n_rounds == 13
        for model_id in arms.out_id:
            held = np.unpackbits(np.frombuffer(plan.loc[model_id, "membership"], np.uint8))
            assert not held[facts["targets"][arms.target]["source_id"]]


def test_scores_have_no_truth_and_cover_the_hold_out(walk):
    for attack in walk.planned.audit.attacks:
        scores = artefacts.read_table(walk / f"audits/small/scores/{attack}.parquet", artefacts.SCORE_COLUMNS)

        assert list(scores.columns) == list(artefacts.SCORE_COLUMNS)
        assert len(scores) == 2 * 2 * 4  # targets, arms, hold-out rounds
        assert np.isfinite(scores["score"]).all()


def test_a_threshold_decision_is_the_score_against_its_level(walk):
    """The score is -log P(OUT > x), so the normal fit says member exactly where it exceeds -log alpha."""
    rows = artefacts.read_table(walk / "audits/small/decisions.parquet", ["attack", "score", "says_member"])
    normal = rows[rows["attack"] == "normal"]

    assert (normal["says_member"] == (normal["score"] > -np.log(0.1))).all()


def test_the_positive_control_is_found_and_every_number_has_an_interval(walk):
    found = walk.metrics["targets"]["mislabelled00"]

    assert walk.metrics["models"]["train_accuracy"]["value"] > 0.95
    assert found["state"] in ("exposed", "effect found")
    assert found["means"]["margin_in"] > found["means"]["margin_out"] + 2
    for attack in found["attacks"].values():
        for rate in ("tpr", "fpr"):
            assert attack[rate]["low"] <= attack[rate]["value"] <= attack[rate]["high"]
            assert attack[rate]["n"] == 4
    assert found["auc"]["low"] <= found["auc"]["value"] <= found["auc"]["high"]


def test_the_truth_cannot_reach_a_score(walk, tmp_path):
    """Flip every arm of the hold-out models in the plan: the scores stay bit for bit the same."""
    facts = artefacts.read_facts(walk.plan)
    plan = artefacts.read_table(walk.plan, artefacts.PLAN_COLUMNS)
    signals = pd.concat([artefacts.read_table(path, ["model_id", "sample_id", "view", *artefacts.SIGNALS]) for path in walk.signals])
    swap = {}
    for arms in pairs.read(walk.plan, walk.signals, ["margin"]):
        holdout = arms.of_role("holdout")
        swap |= {
            (a, arms.sample_id): b for a, b in [*zip(holdout.in_id, holdout.out_id, strict=True), *zip(holdout.out_id, holdout.in_id, strict=True)]
        }
    flipped = signals.assign(model_id=[swap.get(key, key[0]) for key in zip(signals["model_id"], signals["sample_id"], strict=True)])
    artefacts.write_table(tmp_path / "plan.parquet", plan, facts)
    artefacts.write_table(tmp_path / "signals.parquet", flipped)
    options = json.loads(walk.planned.attack_json("normal"))

    attacks.score(tmp_path / "plan.parquet", walk.samples, [tmp_path / "signals.parquet"], [], options, tmp_path / "scores.parquet")

    before = artefacts.read_table(walk / "audits/small/scores/normal.parquet", artefacts.SCORE_COLUMNS)
    after = artefacts.read_table(tmp_path / "scores.parquet", artefacts.SCORE_COLUMNS)
    after["target_id"] = [swap[key] for key in zip(after["target_id"], after["sample_id"], strict=True)]
    key = ["target_id", "sample_id"]
    pd.testing.assert_frame_equal(before.sort_values(key, ignore_index=True), after.sort_values(key, ignore_index=True))


def test_signals_that_lack_a_model_are_refused(walk, tmp_path):
    with pytest.raises(ArtefactError, match="no answer of model"):
        metrics.threshold(walk.plan, walk.signals[1:], None, json.loads(walk.planned.attack_json("normal")), tmp_path / "t.json")


def test_mixed_devices_are_an_error_unless_allowed(walk):
    from memleak.metrics.audit import AuditError, models_found

    models = [model for path in walk.signals for model in artefacts.read_facts(path)["models"]]
    models[0] = models[0] | {"device": "NVIDIA H100"}

    with pytest.raises(AuditError, match=r"several devices \(NVIDIA H100, cpu\)"):
        models_found(artefacts.read_facts(walk.plan), models, allow_mixed=False)
    assert models_found(artefacts.read_facts(walk.plan), models, allow_mixed=True)["n"] == len(models)


def test_signals_carry_no_seconds(walk):
    """Times would make equal signals unequal files."""
    assert all("seconds" not in model for path in walk.signals for model in artefacts.read_facts(path)["models"])
