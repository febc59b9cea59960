"""Canaries that are gradients, from the shards of models to the page: what training noted is all that is known of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pages import Tags

from memleak import artefacts, data, params, plan
from memleak.attacks import pools
from memleak.attacks import stage as attacks
from memleak.data import stage as planning
from memleak.metrics import stage as metrics
from memleak.report import stage as report
from memleak.report.verdict import verdict
from memleak.signals import SignalError
from memleak.signals import stage as signals
from memleak.training import stage as training
from memleak.training.loop import Trained
from memleak.training.store import write_shard

RECIPE = {"architecture": "mlp", "hidden": [8], "epochs": 2, "batch_size": 16, "learning_rate": 0.1, "dp": {"noise_multiplier": 9.375}}
DP = {
    "epsilon": 0.5, "delta": 1e-5, "noise_multiplier": 9.375, "clip": 1.0, "sample_rate": 0.064, "steps": 400, "accountant": "prv",
    "batch_norm_replaced": 0,
}  # fmt: skip
N, N_DIGITS = 600, 1797
FIGURES = ("roc", "scores", "exposure", "training")


@dataclass(frozen=True)
class Walked:
    """Where the artefacts of a small audit lie."""

    folder: Path
    planned: plan.PlannedAudit

    def __truediv__(self, name: str) -> Path:
        return self.folder / "results" / name

    def audit(self, name: str) -> Path:
        return self / f"audits/small/{name}"

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self / "metrics/small.json")

    @property
    def page(self) -> str:
        """The page's words without tags, spaces made one."""
        html = self.audit("report.html").read_text()
        words = re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", html, flags=re.DOTALL))
        return re.sub(r"\s+", " ", unescape(words))


def pretend(shard, recipe_name: str, dataset: data.Dataset, path: Path, noise: float) -> None:
    """Write a shard as DP-SGD would, of networks that learned nothing: each gradient canary is summed over 400 noisy steps."""
    trained = []
    for task in shard.tasks(dataset):
        draw = np.random.default_rng(task.round)
        taken = np.where(np.isin(N_DIGITS + np.arange(shard.canaries), task.directions), draw.binomial(400, 0.064, shard.canaries), 0)
        facts = {
            "model_id": task.model_id, "round": task.round, "role": "pool", "arm": "coins", "target": None, "key": task.key, "engine": "sequential",
            "device": "cpu", "torch": "2.9.0", "seconds": 1.0, "n_train": len(task.sample_ids), "n_test": len(task.test_ids), "train_accuracy": 0.3,
            "test_accuracy": 0.28, "train_loss": 2.0, "test_loss": 2.1, "loss_curve": [2.2, 2.0], "accuracy_curve": [0.2, 0.3], "dp": DP,
            "alignment": (taken + noise * 20 * draw.normal(size=shard.canaries)).tolist(),
        }  # fmt: skip
        trained.append(Trained({"weight": torch.zeros(2)}, facts))
    write_shard(path, {"version": 1, "recipe": recipe_name, "shard": shard.name, "data_sha256": "0"}, trained)


def walked(folder: Path, data_path: Path, noise: float, models: int = 1, attacks_: dict[str, Any] | None = None) -> Walked:
    """params -> plan -> (no training) -> signals -> scores -> thresholds -> decisions -> metrics -> figures -> pages."""
    entry = {
        "dataset": "digits", "recipe": "private", "design": {"kind": "canaries", "space": "gradient", "canaries": N, "subset_size": 1000, "models": models},
        "attacks": attacks_ or {"sum": {"name": "threshold", "signal": "alignment"}},
    }  # fmt: skip
    config = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"private": RECIPE}, "audits": {"small": entry}, "models_per_shard": 3}
    dataset = data.read(data_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planned = plan.build(params.validate(config)).audits["small"]
        for (shard, query), path in zip(planned.shards, planned.models(), strict=True):
            pretend(shard, planned.recipe.name, dataset, Path(path), noise)
            signals.query(
                Path(path), data_path, planned.recipe.name, planned.recipe.recipe, shard, query.facts, Path(planned.answers(shard, query)), "cpu"
            )
    done = Walked(folder, planned)
    asked, known = [folder / path for path in planned.signals()], (done.audit("plan.parquet"), done.audit("samples.parquet"))
    planning.plan(data_path, json.loads(planned.canonical_json()), *known)
    scores, thresholds = ([done.audit(f"{room}/{name}") for name in names] for room, names in (
        ("scores", [f"{attack}.parquet" for attack in planned.audit.attacks]), ("thresholds", [f"{attack}.json" for attack in planned.audit.attacks]),
    ))  # fmt: skip
    for attack, score_path, threshold_path in zip(planned.audit.attacks, scores, thresholds, strict=True):
        options = json.loads(planned.attack_json(attack))
        attacks.score(*known, [folder / path for path in planned.signals(attack)], [], options, score_path)
        metrics.threshold(known[0], asked, score_path, options, threshold_path)
    metrics.decide(known[0], asked, thresholds, scores, done.audit("decisions.parquet"))
    metrics.measure(
        *known, asked, thresholds, scores, done.audit("decisions.parquet"), json.loads(planned.headline_json(False)), done / "metrics/small.json",
        done.audit("exposure.parquet"), done.audit("roc.parquet"), done / "plots/small.csv", done.audit("exposed.csv"),
    )  # fmt: skip
    _report(done, scores, FIGURES if models > 1 else ())
    return done


def _report(done: Walked, scores: list[Path], figures: tuple[str, ...]) -> None:
    svgs = [done.audit(f"figures/{name}.svg") for name in figures]
    for name, svg in zip(figures, svgs, strict=True):
        report.figure(
            name, done.audit("plan.parquet"), [], [], done / "metrics/small.json", done.audit("roc.parquet"), svg, svg.with_suffix(".png"),
            score_paths=scores, exposure_path=done.audit("exposure.parquet"),
        )  # fmt: skip
    page_json = json.loads(done.planned.page_json())
    report.timings(done.folder / "logs/benchmarks", done.planned.names_of_models(), "small", done.audit("timings.csv"))
    report.report(
        done / "metrics/small.json", done.audit("plan.parquet"), None, done.audit("timings.csv"), svgs, page_json, done.audit("report.html")
    )
    report.summary(done / "metrics/small.json", page_json, done.audit("report.txt"))


@pytest.fixture(scope="module")
def right(tmp_path_factory, digits_path):
    """One training with the noise that it claims."""
    return walked(tmp_path_factory.mktemp("right"), digits_path, noise=9.375)


@pytest.fixture(scope="module")
def broken(tmp_path_factory, digits_path):
    """Four trainings that forgot their noise, asked by two attacks."""
    fitted = {"name": "threshold", "signal": "alignment", "thresholds": "global"}
    return walked(
        tmp_path_factory.mktemp("broken"),
        digits_path,
        0.1,
        models=4,
        attacks_={"sum": {"name": "threshold", "signal": "alignment"}, "fitted": fitted},
    )


def test_the_signals_are_what_training_noted_and_nothing_else(right, broken, digits):
    for done, n_models in ((right, 1), (broken, 4)):
        paths = [done.folder / path for path in done.planned.signals()]
        model_ids = [model["model_id"] for path in paths for model in artefacts.read_facts(path)["models"]]
        found = pools.read_signals(paths, model_ids, N_DIGITS + np.arange(N), ["alignment"])["alignment"]
        noted = [model["alignment"] for path in done.planned.models() for model in artefacts.read_shard_facts(done.folder / path)["models"]]

        assert found.shape == (n_models, N, 1) and found[:, :, 0].tolist() == noted
        assert artefacts.columns_of(paths[0]) == {"model_id", "sample_id", "view", "alignment"}


def test_the_long_list_stays_out_of_heads_and_metrics(broken):
    heads = [artefacts.read_facts(broken.folder / path)["models"] for path in broken.planned.signals()]

    assert all(not {"alignment", "seconds"} & model.keys() and model["dp"] == DP for models in heads for model in models)
    assert "alignment" not in json.dumps(broken.metrics["models"]) and broken.metrics["models"]["dp"] == DP


def test_a_canary_is_a_member_by_its_coin_and_of_no_record(broken, digits):
    samples = artefacts.read_table(broken.audit("samples.parquet"), artefacts.SAMPLE_COLUMNS)
    is_member = pools.read_models(broken.audit("plan.parquet"), samples["sample_id"].to_numpy()).is_member
    tasks = [task for shard, _ in broken.planned.shards for task in shard.tasks(digits)]

    assert len(samples) == N and (samples["source_id"] == -1).all() and samples["group_id"].is_unique
    assert [row.nonzero()[0].tolist() for row in is_member] == [(task.directions - N_DIGITS).tolist() for task in tasks]
    assert not (is_member[0] == is_member[1]).all()


def test_the_score_is_the_alignment_itself(right):
    scores = artefacts.read_table(right.audit("scores/sum.parquet"), artefacts.SCORE_COLUMNS)
    noted = artefacts.read_shard_facts(right.folder / right.planned.models()[0])["models"][0]["alignment"]

    assert scores["score"].tolist() == noted and scores["sample_id"].tolist() == list(range(N_DIGITS, N_DIGITS + N))


def test_a_right_training_is_not_accused(right):
    found = right.metrics["epsilon"]

    assert found["claimed"] == 0.5 and found["epsilon"] < 0.5 and found["p"] > 0.05 and not found["alarm"] and found["claim_note"] is None
    assert not any("ALARM" in note for note in verdict(right.metrics).notes)


def test_a_training_without_its_noise_is(broken):
    found, said = broken.metrics["epsilon"], verdict(broken.metrics)

    assert found["epsilon"] > 3 > found["claimed"] and found["p"] < 0.01 and found["alarm"] and len(found["runs"]) == 4
    assert said.state == "UNDECIDED" and said.sentence.startswith("The training is less private than it claims; see the alarm.")
    assert said.notes[0].startswith("ALARM: The training is less private than it claims") and not said.is_refused


def test_a_model_at_chance_says_as_much_about_its_training_as_another(right):
    """Train accuracy .3: what is audited is the training, not the network."""
    said = verdict(right.metrics)

    assert not said.is_refused and said.risk is None and "No verdict on records" in said.sentence and "is not refuted" in said.sentence


@pytest.mark.parametrize("which", ["right", "broken"])
def test_the_page_is_whole_and_shows_no_record(which, request):
    done = request.getfixturevalue(which)

    assert Tags(done.audit("report.html").read_text()).open == []
    for absent in ("By class", "The most exposed", "Which share of a set", "asks the audited model about each record"):
        assert absent not in done.page
    assert f"{N} canaries (gradients of their own)" in done.page and "sees the noisy gradient of every step" in done.page
    assert "DP-SGD claims epsilon 0.50 at delta 1e-05" in done.page
    assert done.metrics["classes"] is None


def test_page_and_text_raise_the_alarm_or_say_that_the_claim_stands(right, broken):
    quiet, loud = (" ".join(done.audit("report.txt").read_text().split()) for done in (right, broken))

    assert "ALARM" not in right.page + quiet and "claim of 0.50 is not refuted" in right.page and "claim of 0.50 is not refuted" in quiet
    assert broken.page.count("less private than it claims") >= 3 and "ALARM: refuted" in broken.page
    assert "ALARM: The training is less private than it claims" in loud and "DP-SGD claims epsilon 0.50" in loud
    assert "Good news" not in quiet + loud and "WARNING" not in loud and "Gradient canaries grade no risk of records." in loud


def _query_again(done, change, output):
    (shard, query), path = done.planned.shards[0], done.folder / done.planned.models()[0]
    facts = artefacts.read_shard_facts(path)
    models = [
        Trained({"weight": torch.zeros(2)}, change({key: value for key, value in model.items() if key != "weights_sha256"}))
        for model in facts["models"]
    ]
    write_shard(output / "shard.safetensors", {key: value for key, value in facts.items() if key != "models"}, models)
    return lambda data_path: signals.query(
        output / "shard.safetensors", data_path, done.planned.recipe.name, done.planned.recipe.recipe, shard, query.facts, output / "s.parquet", "cpu"
    )


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda model: model | {"alignment": [0.0]}, artefacts.ArtefactError, "was trained with 1 gradient canaries, 600 are asked about"),
        (lambda model: {key: value for key, value in model.items() if key != "alignment"}, artefacts.ArtefactError, "with 0 gradient canaries"),
        (lambda model: model | {"alignment": [float("nan"), *model["alignment"][1:]]}, SignalError, "1 alignments are not finite"),
    ],
)
def test_a_shard_that_noted_something_else_is_refused(right, digits_path, tmp_path, change, error, said):
    with pytest.raises(error, match=said):
        _query_again(right, change, tmp_path)(digits_path)


def test_asked_twice_a_shard_answers_with_the_same_bytes(right, digits_path, tmp_path):
    _query_again(right, lambda model: model | {"seconds": 2.0}, tmp_path)(digits_path)

    assert (tmp_path / "s.parquet").read_bytes() == (right.folder / right.planned.signals()[0]).read_bytes()


def test_thresholds_are_set_on_the_other_trainings(broken):
    """Gradient canaries of four trainings: mock targets are there, as for canaries that are records."""
    found = broken.metrics["attacks"]

    assert found["sum"]["calibrated"][0]["tpr"]["value"] > 0.9 and found["sum"]["n_references"] == 0 and found["fitted"]["n_references"] == 3
    assert set(pd.read_csv(broken.audit("exposed.csv"))["source_id"]) <= {-1}


def test_what_training_notes_is_what_the_query_asks_for(digits_path, tmp_path, monkeypatch):
    """DP-SGD itself, two models for two epochs: canaries that took part lie higher by how often they did."""
    recipe = RECIPE | {"dp": {"noise_multiplier": 0.5}}
    entry = {
        "dataset": "digits", "recipe": "private", "design": {"kind": "canaries", "space": "gradient", "canaries": 100, "subset_size": 160, "models": 2},
        "attacks": {"sum": {"name": "threshold", "signal": "alignment"}},
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    config = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"private": recipe}, "audits": {"small": entry}}
    planned = plan.build(params.validate(config)).audits["small"]
    ((shard, query),), (path,), (answers,) = planned.shards, map(Path, planned.models()), map(Path, planned.signals())

    training.train(digits_path, planned.recipe.name, planned.recipe.recipe, shard, path, "cpu")
    n_rows = signals.query(path, digits_path, planned.recipe.name, planned.recipe.recipe, shard, query.facts, answers, "cpu")

    tasks = shard.tasks(data.read(digits_path))
    found = pools.read_signals([answers], [task.model_id for task in tasks], N_DIGITS + np.arange(100), ["alignment"])["alignment"][:, :, 0]
    is_in = np.stack([np.isin(N_DIGITS + np.arange(100), task.directions) for task in tasks])
    assert n_rows == 200 and artefacts.read_facts(answers)["models"][0]["dp"]["steps"] == 20
    assert np.mean(found[is_in]) - np.mean(found[~is_in]) == pytest.approx(2, abs=1)  # 20 steps at a rate of a tenth
