"""Limits that a release must keep, and the exit codes that a pipeline reads."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from memleak import artefacts, cli
from memleak.report import gate, results

LEAK = "max-tpr-at-1pct"


@pytest.fixture
def metrics(pool_walk) -> dict:
    return copy.deepcopy(pool_walk.metrics)


@pytest.fixture
def written(tmp_path, metrics):
    """Writes metrics, changed at one place, and returns the path."""

    def write(place: str = "", value: object = None, found: dict | None = None) -> Path:
        changed = part = copy.deepcopy(found or metrics)
        *parents, last = place.split("/") if place else [""]
        for key in parents:
            part = part[int(key) if key.isdecimal() else key]
        if place:
            part[int(last) if last.isdecimal() else last] = value
        path = tmp_path / "metrics.json"
        path.write_text(json.dumps(changed))
        return path

    return write


def judged(found: dict, name: str, bound: float | str, by: str = "upper", attacks: str = "headline") -> gate.Judged:
    return gate.judge(gate.Subject("small", found), gate.Limit(name, bound), by, attacks)


def known(found: dict, auc: tuple[float, float, float]) -> dict:
    """The same metrics with another AUC of the headline attack."""
    found["attacks"][found["headline"]]["auc"] = dict(zip(("low", "value", "high"), auc, strict=True))
    return found


@pytest.mark.parametrize(
    ("by", "states"),
    [("upper", ["PASS", "UNDECIDED", "UNDECIDED", "FAIL"]), ("value", ["PASS", "PASS", "FAIL", "FAIL"]), ("lower", ["PASS", "PASS", "PASS", "FAIL"])],
)
def test_a_limit_is_held_against_the_end_of_the_interval_that_was_asked_for(metrics, by, states):
    intervals = [(0.50, 0.55, 0.59), (0.50, 0.55, 0.61), (0.59, 0.62, 0.65), (0.61, 0.65, 0.70)]

    assert [judged(known(metrics, auc), "max-auc", 0.6, by).state for auc in intervals] == states


def test_a_least_accuracy_is_judged_the_other_way_round(metrics):
    metrics["models"] |= {"n_test": 1000, "test_accuracy": {"value": 0.9, "low": 0.9, "high": 0.9}}

    states = [judged(metrics, "min-test-accuracy", bound).state for bound in (0.85, 0.9, 0.95)]

    assert states == ["PASS", "UNDECIDED", "FAIL"]  # of 1,000 records the interval is about 0.88 to 0.92


def test_a_gap_is_as_wide_as_both_accuracies_leave_it(metrics):
    metrics["models"] |= {"n_train": 1000, "train_accuracy": {"value": 1.0, "low": 1.0, "high": 1.0}}
    metrics["models"] |= {"n_test": 1000, "test_accuracy": {"value": 0.9, "low": 0.89, "high": 0.91}}

    found = judged(metrics, "max-gap", 0.1)

    assert found.value == pytest.approx(0.1) and found.low < 0.082 and found.high > 0.118 and found.state == "UNDECIDED"


def test_a_rate_is_read_at_the_threshold_that_was_set_beforehand_and_says_so(metrics):
    attack = metrics["attacks"]["lira"]
    attack["rates"][1] = attack["rates"][1] | {"at_fpr": 0.01, "value": 0.5, "low": 0.4, "high": 0.6, "certified": True}
    preset = copy.deepcopy(attack["calibrated"][0]) | {"at_fpr": 0.01, "tpr": {"value": 0.02, "low": 0.01, "high": 0.03}}
    preset["achieved_fpr"] = {"value": 0.012, "low": 0.007, "high": 0.018}

    attack["calibrated"] = [preset]
    calibrated = judged(metrics, LEAK, 0.05)
    attack["calibrated"] = []
    chosen = judged(metrics, LEAK, 0.05)

    assert (calibrated.state, calibrated.value) == ("PASS", 0.02) and "threshold set on mock targets" in calibrated.rests
    assert (chosen.state, chosen.value) == ("FAIL", 0.5) and "threshold chosen on these very scores" in chosen.rests


@pytest.mark.parametrize("achieved", [(0.0005, 0.001, 0.002), (0.03, 0.04, 0.05)])
def test_a_threshold_with_another_false_positive_rate_does_not_speak_of_this_one(metrics, achieved):
    """Set too strictly it recognises fewer than an attacker could who may be wrong about 1 %."""
    attack = metrics["attacks"]["lira"]
    attack["rates"][1] = attack["rates"][1] | {"at_fpr": 0.01, "value": 0.5, "low": 0.4, "high": 0.6, "certified": True}
    preset = copy.deepcopy(attack["calibrated"][0]) | {"at_fpr": 0.01, "tpr": {"value": 0.02, "low": 0.01, "high": 0.03}}
    attack["calibrated"] = [preset | {"achieved_fpr": dict(zip(("low", "value", "high"), achieved, strict=True))}]

    found = judged(metrics, LEAK, 0.05)

    assert (found.state, found.value) == ("FAIL", 0.5) and "since one set on mock targets has an FPR of" in found.rests


def test_where_all_scores_tie_nobody_is_accused_and_nothing_passes(metrics):
    attack, nobody = metrics["attacks"]["lira"], {"value": 0.0, "low": 0.0, "high": 0.005}
    attack["rates"][1] = attack["rates"][1] | {"at_fpr": 0.01, "certified": True}
    attack["calibrated"] = [copy.deepcopy(attack["calibrated"][0]) | {"at_fpr": 0.01, "tpr": nobody, "achieved_fpr": nobody}]

    assert judged(metrics, LEAK, 0.05).state == "UNDECIDED" and "so many scores tie" in judged(metrics, LEAK, 0.05).why


def test_an_attack_of_one_threshold_passes_at_no_other(metrics):
    attack = metrics["attacks"]["lira"]
    attack["rates"][1] = attack["rates"][1] | {"at_fpr": 0.01, "value": 0.0, "low": 0.0, "high": 0.005, "certified": True}
    attack["natural"] = copy.deepcopy(attack["calibrated"][0]) | {"is_only": True}

    assert judged(metrics, LEAK, 0.05).state == "UNDECIDED" and "one threshold alone" in judged(metrics, LEAK, 0.05).why


def test_what_is_not_certified_never_passes(metrics):
    for rate in metrics["attacks"]["lira"]["rates"]:
        rate |= {"value": 0.0, "low": 0.0, "high": 0.0, "certified": False}

    found = judged(metrics, "max-tpr-at-0.1pct", 1.0)

    assert found.state == "UNDECIDED" and "cannot certify" in found.why and "3,000 or more non-members" in found.to_do


@pytest.mark.parametrize("control", ["null", "count"])
def test_an_alarm_of_a_control_lets_no_rate_pass_and_leaves_accuracies_alone(metrics, control):
    metrics["controls"][control] = {"p": 1e-9, "alarm": True, "attacks": {}}
    metrics["models"] |= {"test_accuracy": {"value": 0.9, "low": 0.9, "high": 0.9}}

    states = {name: judged(metrics, name, bound).state for name, bound in ((LEAK, 1.0), ("max-auc", 1.0), ("max-risk", 100.0), ("max-state", "HIGH"))}

    assert set(states.values()) == {"UNDECIDED"}
    assert judged(metrics, "min-test-accuracy", 0.5).state == "PASS"


def test_a_refused_verdict_lets_no_rate_pass(metrics):
    metrics["models"]["train_accuracy"] = metrics["models"]["test_accuracy"] = {"value": 0.1, "low": 0.1, "high": 0.1}

    found = judged(metrics, "max-auc", 1.0)

    assert found.state == "UNDECIDED" and "the audit says nothing" in found.why


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_not_a_number_never_passes(metrics, value):
    assert judged(known(metrics, (0.5, 0.5, value)), "max-auc", 1.0).state == "UNDECIDED"
    assert judged(known(metrics, (0.5, value, 0.6)), "max-auc", 1.0).state == "UNDECIDED"


@pytest.mark.parametrize(
    ("key", "name", "bound"),
    [
        ("attacks", "max-auc", 1.0),
        ("controls", LEAK, 1.0),
        ("models", "max-gap", 1.0),
        ("models", "max-state", "HIGH"),
        ("exposure", "max-exposed", 1.0),
    ],
)
def test_metrics_that_lack_what_is_asked_for_never_pass(metrics, key, name, bound):
    assert judged(metrics, name, bound).state == "PASS" or name == LEAK
    del metrics[key]

    assert judged(metrics, name, bound).state == "UNDECIDED"


def test_an_audit_bounds_epsilon_from_below_and_an_accountant_from_above(coins):
    metrics, right = coins.metrics, {"value": 1.0, "low": 1.0, "high": 1.0}
    metrics["models"] |= {"train_accuracy": right, "test_accuracy": right}
    metrics["epsilon"] |= {"epsilon": 1.0, "alarm": False}

    alone = judged(metrics, "max-epsilon", 4.0)
    exceeded = judged(metrics, "max-epsilon", 0.5)
    metrics["models"]["dp"] = {"epsilon": 3.0, "delta": 1e-5, "accountant": "prv"}
    proved = judged(metrics, "max-epsilon", 4.0)
    metrics["epsilon"] |= {"alarm": True, "claimed": 0.9, "p": 0.01}
    refuted = judged(metrics, "max-epsilon", 4.0)

    assert [one.state for one in (alone, exceeded, proved, refuted)] == ["UNDECIDED", "FAIL", "PASS", "UNDECIDED"]
    assert "train with dp" in alone.to_do and judged(metrics, "max-epsilon", 4.0, "lower").state == "PASS"


def test_a_lower_bound_of_epsilon_is_no_estimate_of_it(coins):
    metrics, right = copy.deepcopy(coins.metrics), {"value": 1.0, "low": 1.0, "high": 1.0}
    metrics["models"] |= {"train_accuracy": right, "test_accuracy": right}
    metrics["epsilon"] |= {"epsilon": 1.0, "alarm": False}

    alone = [judged(metrics, "max-epsilon", bound, "value").state for bound in (4.0, 0.5)]
    metrics["models"]["dp"] = {"epsilon": 3.0, "delta": 1e-5, "accountant": "prv"}
    proved = [judged(metrics, "max-epsilon", bound, "value").state for bound in (4.0, 2.0)]

    assert (alone, proved) == (["UNDECIDED", "FAIL"], ["PASS", "FAIL"])


def test_exposed_records_are_counted_or_taken_as_a_share(metrics):
    metrics["exposure"] |= {"n_flagged": 3, "n_samples": 150}

    states = [judged(metrics, "max-exposed", gate.bound_of("max-exposed", given)).state for given in ("2", "3", "1%", "2%", "0.02", "0")]

    assert states == ["FAIL", "PASS", "FAIL", "PASS", "PASS", "FAIL"]


def test_the_worst_of_all_attacks_is_judged_where_all_are_asked_for(metrics):
    for attack in metrics["attacks"].values():
        attack["auc"] = {"value": 0.5, "low": 0.45, "high": 0.55}
    metrics["attacks"]["loss"]["auc"] = {"value": 0.8, "low": 0.75, "high": 0.85}

    assert judged(metrics, "max-auc", 0.6).state == "PASS"
    found = judged(metrics, "max-auc", 0.6, attacks="all")
    assert (found.state, found.rests, found.value) == ("FAIL", "loss", 0.8)


def test_an_audit_of_single_records_is_judged_by_its_most_exposed_one(walk):
    metrics = walk.metrics
    risk = judged(metrics, "max-risk", 100.0)

    exposed = judged(metrics, "max-exposed", 100)

    assert risk.state == "PASS" and judged(metrics, "max-auc", 1.0).state == "UNDECIDED"
    assert exposed.state == "PASS" and "that others are safe is not shown" in exposed.why


@pytest.mark.parametrize("name", ["max-exposed", "max-risk", "max-state"])
def test_an_audit_that_missed_what_is_surely_there_lets_nothing_pass(walk, name):
    metrics = copy.deepcopy(walk.metrics)
    metrics["controls"]["positive"] = {"mislabelled00": {"found": False, "p_holm": 0.5, "state": "no evidence"}}

    found = judged(metrics, name, "HIGH" if name == "max-state" else 100)

    assert found.state == "UNDECIDED" and "was not found" in found.why


def test_where_no_record_could_be_called_exposed_nothing_passes(walk):
    untestable, unheld = copy.deepcopy(walk.metrics), copy.deepcopy(walk.metrics)
    for target in untestable["targets"].values():
        target["effect"] |= {"testable": False, "n_rounds": 4, "least_rounds": 6}
    for rates in ("tpr", "fpr"):
        del unheld["attacks"][unheld["headline"]][rates]

    assert judged(untestable, "max-exposed", 100).state == judged(unheld, "max-exposed", 100).state == "UNDECIDED"
    assert "6 are the least" in judged(untestable, "max-exposed", 100).to_do and "holdout_rounds" in judged(unheld, "max-exposed", 100).to_do


@pytest.fixture
def told() -> dict:
    """What MembershipTester writes, as far as limits read it."""
    auc, accuracy = {"value": 0.7, "low": 0.65, "high": 0.75}, {"value": 0.65, "low": 0.6, "high": 0.7, "is_optimistic": True}
    rate = {"value": 0.1, "low": 0.02, "high": 0.2, "at_fpr": 0.01, "n_non_members": 300, "certified": True}
    attack = {"auc": auc, "tpr_1": rate, "tpr_10": rate | {"at_fpr": 0.1}, "accuracy": accuracy, "is_auditors": False, "why": None}
    absent = {"auc": None, "tpr_1": None, "tpr_10": None, "accuracy": None, "is_auditors": False, "why": "nothing tells them apart"}
    return artefacts.stamped("tester", {
        "model": "m", "headline": "ez", "n": {"members": 300, "non_members": 300}, "attacks": {"ez": attack, "lowercase": absent},
        "controls": {"blind": None, "length": {"p": 0.5, "alarm": False}}, "flagged": 6, "risk": {"value": 40.0, "low": 30.0, "high": 50.0, "level": "high"},
        "verdict": {"state": "HIGH", "sentence": "...", "notes": [], "is_refused": False},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("max-auc", (0.8, 0.7, 0.6)), (LEAK, (0.25, 0.1, 0.01)), ("max-advantage", (0.4, 0.3, 0.1)), ("max-risk", (50.0, 40.0, 20.0)),
    ],
)  # fmt: skip
def test_numbers_of_the_tester_are_judged(told, name, bounds):
    assert [judged(told, name, bound).state for bound in bounds] == ["PASS", "UNDECIDED", "FAIL"]
    assert [judged(told, name, bound, attacks="all").state for bound in bounds] == ["PASS", "UNDECIDED", "FAIL"]


def test_what_the_tester_cannot_say_never_passes(told):
    assert judged(told, "max-tpr-at-0.1pct", 1.0).state == "UNDECIDED" and judged(told, "max-gap", 1.0).state == "UNDECIDED"
    assert judged(told, "max-state", "MEDIUM").state == "FAIL" and judged(told, "max-exposed", 5).state == "FAIL"
    told["verdict"]["is_refused"] = True
    assert judged(told, "max-auc", 1.0).state == "UNDECIDED"


def test_numbers_of_anybodys_scores_are_judged(tmp_path, capsys):
    draw, truth = np.random.default_rng(0), np.arange(2000) % 2 == 0
    pd.DataFrame({"score": draw.normal(size=2000) + truth, "is_member": truth}).to_csv(tmp_path / "scores.csv", index=False)
    assert cli.main(["stats", str(tmp_path / "scores.csv"), "--output", str(tmp_path)]) == 0
    file = str(tmp_path / "metrics.json")

    codes = [
        cli.main(["gate", "--metrics", file, *limit])
        for limit in (["--max-auc", "0.9"], ["--max-auc", "0.6"], ["--max-tpr-at-1pct", "0.5"], ["--max-risk", "99"])
    ]

    assert codes == [0, 1, 0, 3], capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (["--max-auc", "1.5"], "from 0 to 1"), (["--max-auc", "nan"], "from 0 to 1"), (["--max-auc", "much"], "expected a number"),
        (["--max-state", "GOOD"], "LOW, MEDIUM or HIGH"), (["--max-risk", "-1"], "from 0 to 100"), ([], "at least one limit"),
        (["--max-risk", "5%"], "10, of 100"), (["--max-epsilon", "8%"], "such as 8"),
    ],
)  # fmt: skip
def test_a_limit_that_cannot_be_is_a_matter_of_usage(written, capsys, limit, says):
    assert cli.main(["gate", "--metrics", str(written()), *limit]) == 2
    assert says in capsys.readouterr().err


def project(folder: Path, done, name: str = "small") -> Path:
    """A folder as a run leaves it, without the params.yaml."""
    (folder / "results/metrics").mkdir(parents=True)
    shutil.copy(done / "metrics/small.json", folder / f"results/metrics/{name}.json")
    return folder


def test_a_misspelt_audit_is_named_and_the_nearest_beside_it(tmp_path, pool_walk, capsys):
    folder = project(tmp_path, pool_walk)

    assert cli.main(["gate", "smal", "--directory", str(folder), "--max-auc", "1"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err


def test_nothing_passes_while_params_cannot_be_read(tmp_path, pool_walk, capsys):
    folder = project(tmp_path, pool_walk)
    (folder / "params.yaml").write_text("audits: {small: {desing: 3}}")

    assert cli.main(["gate", "--directory", str(folder), "--max-auc", "1"]) == 3
    assert "params.yaml cannot be read" in capsys.readouterr().out


def test_where_no_audit_is_found_nothing_passes(tmp_path, capsys):
    assert cli.main(["gate", "--directory", str(tmp_path), "--max-auc", "1"]) == 3
    assert "no audit was found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [("format", 1, "written by memleak before 0.2"), ("format", 3, "update memleak"), ("of", "sweep", "holds metrics of a sweep")],
)
def test_metrics_of_another_format_never_pass(written, capsys, place, value, says):
    assert cli.main(["gate", "--metrics", str(written(place, value)), "--max-auc", "1"]) == 3
    assert says in capsys.readouterr().out


def test_a_missing_and_a_damaged_file_never_pass(tmp_path, capsys):
    (tmp_path / "half.json").write_text('{"format": 2, "attac')

    assert cli.main(["gate", "--metrics", str(tmp_path / "half.json"), str(tmp_path / "none.json"), "--max-auc", "1"]) == 3
    out = capsys.readouterr().out
    assert "truncated or not JSON" in out and "missing" in out and "0 of 2 limits kept" in out


def test_an_unfinished_audit_never_passes(pool_walk):
    whole = results.Found("small", pool_walk.metrics, (results.Stage("metrics", 1, 1), results.Stage("report", 0, 1)))

    found = gate.judge(gate._subject(whole), gate.Limit("max-auc", 1.0))

    assert found.state == "UNDECIDED" and "report 0 of 1" in found.why


def test_programs_are_told_the_same_as_json(written, capsys):
    code = cli.main(["gate", "--metrics", str(written()), "--max-auc", "1", "--max-state", "HIGH", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == code and [one["limit"] for one in told["limits"]] == ["max-auc", "max-state"]
    assert told["of"] == "gate" and {"value", "low", "high", "state", "why", "to_do"} <= told["limits"][0].keys()


def test_one_line_tells_the_limit_the_value_its_interval_and_the_outcome(metrics):
    known(metrics, (0.61, 0.65, 0.70))

    line = gate.text([judged(metrics, "max-auc", 0.6)]).splitlines()

    assert line[0] == "FAIL       small: AUC 0.650 [0.610, 0.700], at most 0.600 (lira); shown to be exceeded"
    assert line[1].strip().startswith("-> do not release") and line[2] == "0 of 1 limits kept, 1 exceeded, 0 undecided"


def test_a_release_pipeline_stops_where_a_limit_is_exceeded(tmp_path, pool_walk):
    """In a shell script with `set -e`, as a pipeline has it."""
    folder, metrics = project(tmp_path, pool_walk), copy.deepcopy(pool_walk.metrics)
    (folder / "results/metrics/small.json").write_text(json.dumps(known(metrics, (0.61, 0.65, 0.70))))
    script = tmp_path / "release.sh"

    def run(limit: str) -> tuple[int, bool]:
        script.write_text(f"#!/bin/sh\nset -e\n'{sys.executable}' -m memleak gate --max-auc {limit}\ntouch released\n")
        source = str(Path(gate.__file__).parents[2])
        done = subprocess.run(["sh", str(script)], cwd=folder, env=os.environ | {"PYTHONPATH": source}, capture_output=True, check=False)
        was_released = (folder / "released").exists()
        (folder / "released").unlink(missing_ok=True)
        return done.returncode, was_released

    assert [run(limit) for limit in ("0.75", "0.6", "0.68", "7")] == [(0, True), (1, False), (3, False), (2, False)]
