"""The audit that a new user sees first: params.yaml as it is, from nothing to the page."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from memleak import artefacts

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
AUDIT = "digits-single-point"


@pytest.fixture(scope="session")
def audited(shared):
    """The default audit, done. To be read, not changed."""

    def make(folder):
        shutil.copy2(ROOT / "params.yaml", folder / "params.yaml")
        folder.run()

    return shared("default", make)


@pytest.fixture(scope="session")
def metrics(audited):
    return artefacts.read_json(audited / f"results/metrics/{AUDIT}.json")


def test_the_recipe_fits_its_training_data(metrics):
    assert metrics["models"]["train_accuracy"]["value"] >= 0.99
    assert metrics["models"]["test_accuracy"]["value"] >= 0.95


def test_the_positive_control_is_found(metrics):
    """For the mislabelled canary the lower end of the hold-out interval is above alpha."""
    control = metrics["targets"]["mislabelled00"]

    assert control["attacks"][metrics["headline"]]["tpr"]["low"] > metrics["alpha"]
    assert control["state"] == "exposed"


def test_some_records_are_exposed_and_some_random_one_is_not_shown_to_be(metrics):
    """The report tells them apart."""
    natural = {name: target for name, target in metrics["targets"].items() if not target["is_canary"]}
    intervals = {name: target["attacks"][metrics["headline"]]["tpr"] for name, target in natural.items()}

    assert any(interval["low"] > 2 * metrics["alpha"] for interval in intervals.values())
    assert any(interval["low"] <= metrics["alpha"] <= interval["high"] for name, interval in intervals.items() if name.startswith("random"))


def test_the_controls_are_quiet(metrics):
    assert not metrics["controls"]["null"]["alarm"]
    assert not metrics["controls"]["level"]["alarm"]


def test_the_page_says_which_and_needs_no_network(audited, metrics):
    html = (audited / f"results/audits/{AUDIT}/report.html").read_text()

    for name, target in metrics["targets"].items():
        row = re.search(rf'<tr><td><a href="#{name}">.*?</tr>', html, re.DOTALL)[0]
        assert target["state"] in row
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    assert f'href="audits/{AUDIT}/report.html"' in (audited / "results/index.html").read_text()


def test_base_models_are_shared_by_the_targets(audited, metrics):
    """T targets cost rounds x (1 + T (1 + n/N)) trainings: one OUT arm of its own where the subset held the record."""
    plan = artefacts.read_table(audited / f"results/audits/{AUDIT}/plan.parquet", artefacts.PLAN_COLUMNS)
    rounds, targets, share = 40, 6, 500 / 1797
    own = (plan["target"].notna() & (plan["arm"] == "out")).sum()

    assert len(plan) == metrics["models"]["n"] == rounds * (1 + targets) + own
    assert abs(own - rounds * targets * share) < 4 * (rounds * targets * share * (1 - share)) ** 0.5


def test_every_figure_and_every_stage_is_there(audited):
    figures = {path.name for path in audited.files(f"results/audits/{AUDIT}/figures/*")}
    names = ("overview", "training", "random00", "random01", "random02", "atypical00", "atypical01", "mislabelled00")
    timings = pd.read_csv(audited / f"results/audits/{AUDIT}/timings.csv")

    assert figures == {f"{name}.{form}" for name in names for form in ("svg", "png")}
    assert {"fetch", "plan", "train", "query", "score", "threshold", "decide", "measure", "figure"} <= set(timings["stage"])
    assert (timings["seconds"] > 0).all()


def test_the_log_of_a_training_has_a_line_a_model(audited, metrics, pool):
    lines = [line for log in audited.files("logs/train/*/*.log") for line in log.read_text().splitlines()]

    assert sum(line.startswith("trained ") for line in lines) == metrics["models"]["n"] + pool["models"]["n"]
    assert not any("\r" in line or "it/s" in line for line in lines)  # no bars in a log


def test_snakemakes_own_report_works(audited, tmp_path):
    done = audited.copy(tmp_path / "copy").snakemake("--report", "report.html")

    assert done.returncode == 0, done.stdout
    assert (tmp_path / "copy/report.html").stat().st_size > 100_000


@pytest.fixture(scope="session")
def pool(audited):
    return artefacts.read_json(audited / "results/metrics/digits-halves.json")


def test_reference_models_tell_more_than_the_loss_alone(pool):
    """On models that fit all of their data and know most of the rest."""
    assert pool["models"]["train_accuracy"]["value"] >= 0.99 and pool["models"]["test_accuracy"]["value"] >= 0.95
    for attack in ("lira", "rmia", "base"):
        assert pool["attacks"][attack]["auc"]["low"] > pool["attacks"]["loss"]["auc"]["high"]
        assert pool["comparison"].get(attack, {"auc": {"a": 1}})["auc"]["a"] > 0.5
    assert pool["comparison"]["loss"]["auc"]["high"] < 0 and pool["comparison"]["loss"]["auc"]["p_holm"] < 0.001


def test_thresholds_of_mock_targets_keep_their_rate(pool):
    for attack in pool["attacks"].values():
        found = attack["calibrated"][0]
        assert found["at_fpr"] == 0.01 and found["achieved_fpr"]["low"] <= 0.01
    lira = pool["attacks"]["lira"]["calibrated"][0]
    assert lira["achieved_fpr"]["high"] >= 0.01 and lira["tpr"]["low"] > 2 * lira["achieved_fpr"]["high"]


def test_the_null_control_of_every_attack_is_quiet_and_some_records_are_exposed(pool):
    assert not pool["controls"]["null"]["alarm"] and set(pool["controls"]["null"]["attacks"]) == set(pool["attacks"])
    assert pool["exposure"]["n_flagged"] > 10
    assert all(record["low"] > 0.05 for record in pool["exposure"]["most"])


def test_the_share_of_a_set_that_was_used_is_estimated_with_intervals_that_hold_it(pool):
    assert all(one["held"]["k"] >= one["n_sets"] - 2 for one in pool["usage"])
    assert pool["usage"][0]["mean"] < pool["usage"][2]["mean"] < pool["usage"][4]["mean"]
