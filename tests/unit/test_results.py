"""What lies in a results folder, finished or not, and what is said about it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from memleak import artefacts, cli, pipeline
from memleak.report import results, status

CONFIG: dict[str, Any] = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"tiny": {"architecture": "mlp", "epochs": 2, "batch_size": 20, "learning_rate": 0.1}},
    "audits": {
        "many": {
            "dataset": "digits",
            "recipe": "tiny",
            "design": {"kind": "halves", "models": 1000, "pool": 1000},
            "attacks": {"lira": {"name": "lira"}, "loss": {"name": "threshold"}},
            "headline": "lira",
        }
    },
    "models_per_shard": 4,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of one audit of 1,000 models of which nothing is there."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def put(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def stages(found: results.Found) -> dict[str, tuple[int, int]]:
    return {stage.name: (stage.done, stage.total) for stage in found.stages}


def test_a_project_where_nothing_ran_lacks_everything(folder):
    (found,) = results.audits_of(folder)

    assert found.metrics is None and not found.is_finished and found.page is None
    assert stages(found) == {
        "data": (0, 1), "models": (0, 250), "signals": (0, 250), "scores": (0, 2), "thresholds": (0, 2), "metrics": (0, 1), "report": (0, 1),
    }  # fmt: skip


def test_files_are_counted_by_stage(folder):
    planned = results.plan_of(folder).audits["many"]
    put(folder, planned.data_path(), *planned.models()[:100], *planned.signals()[:3], "results/audits/many/scores/loss.parquet")

    (found,) = results.audits_of(folder)

    assert stages(found)["models"] == (100, 250) and stages(found)["signals"] == (3, 250) and stages(found)["scores"] == (1, 2)
    assert found.missing.startswith("models 100 of 250, signals 3 of 250, scores 1 of 2")


def test_a_thousand_models_are_counted_in_a_moment(folder):
    results.audits_of(folder)  # imports
    started = time.perf_counter()

    results.audits_of(folder)

    assert time.perf_counter() - started < 1


def measured(folder: Path, pool_walk: Any, **changed: Any) -> Path:
    """The small audit as the only one of a folder, finished."""
    planned = pool_walk.planned
    audit = planned.audit.model_dump(mode="json", exclude_unset=True) | {"dataset": "digits", "recipe": "tiny"} | changed
    config = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"tiny": planned.recipe.recipe.model_dump(mode="json", exclude_unset=True)}}
    put(folder, "params.yaml", text=yaml.safe_dump(config | {"audits": {"small": audit}, "models_per_shard": 9}))
    shutil.copytree(pool_walk / "metrics", folder / "results/metrics")
    put(folder, "results/audits/small/report.html", text="<p>")
    return folder


def test_an_audit_is_finished_where_metrics_and_page_are_whatever_became_of_its_models(tmp_path, pool_walk):
    (found,) = results.audits_of(measured(tmp_path, pool_walk))

    assert found.is_finished and found.problem is None and found.metrics == pool_walk.metrics
    assert stages(found)["models"][0] == 0 and found.page == tmp_path / "results/audits/small/report.html"


@pytest.mark.parametrize(
    ("changed", "word"), [({"headline": "loss"}, "headline"), ({"design": {"kind": "halves", "models": 14, "pool": 150, "population": 60}}, "design")]
)
def test_metrics_of_an_earlier_params_are_noticed(tmp_path, pool_walk, changed, word):
    (found,) = results.audits_of(measured(tmp_path, pool_walk, **changed))

    assert not found.is_finished and found.metrics is not None and f"earlier params.yaml (another {word})" in found.problem


def test_without_params_all_metrics_that_lie_there_are_found(tmp_path, pool_walk):
    shutil.copytree(pool_walk / "metrics", tmp_path / "results/metrics")
    put(tmp_path, "results/metrics/old.json", text=json.dumps({"audit": "old", "kind": "halves", "attacks": {}}))

    old, small = results.audits_of(tmp_path)

    assert old.metrics is None and "written by memleak before 0.2; run snakemake again in that folder" in old.problem
    assert small.metrics == pool_walk.metrics and small.stages == () and small.is_finished


def test_params_that_cannot_be_read_leave_what_lies_there(tmp_path, pool_walk, capsys):
    folder = measured(tmp_path, pool_walk)
    put(folder, "params.yaml", text="audits: {small: {design: 3}}")

    assert [found.name for found in results.audits_of(folder)] == ["small"]
    assert cli.main(["status", "--directory", str(folder)]) == 0
    assert "params.yaml cannot be read, so nobody knows what should be here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": 2, "aud', "truncated or not JSON"),
        ("[]", "holds no metrics of memleak"),
        ('{"a": 1}', "holds no metrics of memleak"),
        ('{"format": 3, "memleak": "9.0", "of": "audit"}', "written by memleak 9.0, in format 3; this one reads 2: update memleak"),
        ('{"format": "new", "of": "audit"}', "update memleak"),
        ('{"format": 2, "of": "sweep"}', "holds metrics of a sweep; expected those of an audit"),
        ('{"format": 2, "of": []}', "something else"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, text, says):
    put(tmp_path, "metrics.json", text=text)

    with pytest.raises(artefacts.ArtefactError, match=r"^[^\n]+$") as refused:
        results.metrics_of(tmp_path / "metrics.json")

    assert says in str(refused.value)


def logged(folder: Path, name: str, text: str) -> None:
    put(folder, f"logs/{name}.log", text=text)


def test_the_sentences_of_failed_jobs_are_found_and_nothing_else(folder):
    recipe = next(iter(results.plan_of(folder).recipes))
    logged(folder, f"train/{recipe}/one", "trained m1\rtrained m2\nmemleak train: m3: the loss is NaN in epoch 2;\nlower learning_rate\n")
    logged(folder, f"train/{recipe}/two", "trained m4\n4 models trained, 0 adopted, 0.1 s\n")
    logged(folder, "score/many/lira", "Traceback (most recent call last):\n  File ...\nMemoryError: no room\n")
    logged(folder, "measure/gone", "memleak measure: of an audit that was removed from params.yaml\n")

    found = {failure.job: failure.says for failure in results.failures_of(folder)}

    assert found == {
        f"train/{recipe}/one": "memleak train: m3: the loss is NaN in epoch 2; lower learning_rate",
        "score/many/lira": "MemoryError: no room",
    }


def test_status_tells_stages_failures_and_age(folder, capsys):
    logged(folder, f"fetch/{next(iter(results.plan_of(folder).datasets))}", "memleak fetch: digits: no such file\n")
    put(folder, "results/audits/many/report.html")
    os.utime(folder / "results/audits/many/report.html", (time.time() - 7300,) * 2)

    assert cli.main(["status", "--directory", str(folder)]) == 0

    out = capsys.readouterr().out
    assert "many" in out and "models 0/250" in out and "unfinished" in out and "2 hours" in out
    assert out.count("memleak fetch: digits: no such file") == 1 and "killed" not in out


def test_one_cause_of_many_failures_is_told_once(folder):
    recipe = next(iter(results.plan_of(folder).recipes))
    for shard in range(30):
        logged(folder, f"train/{recipe}/s{shard}", "memleak train: the GPU is out of memory\n")

    told = status.text(folder, is_locked=False, is_at_work=False)

    assert told.count("out of memory") == 1 and "and 29 more" in told


def test_a_killed_run_is_told_and_how_to_go_on(folder):
    put(folder, ".snakemake/locks/0.input.lock", text="x")

    assert pipeline.is_locked(folder) and not pipeline.is_at_work(folder)
    assert "a run was killed here and left its lock: run `memleak unlock`" in status.text(folder, is_locked=True, is_at_work=False)
    assert "at work" in status.text(folder, is_locked=True, is_at_work=True)
    assert pipeline.unlock(folder) and not pipeline.is_locked(folder)


def test_the_index_of_a_failed_run_lists_what_is_finished_and_what_is_missing(tmp_path, pool_walk, capsys):
    folder = measured(tmp_path, pool_walk)
    config = yaml.safe_load((folder / "params.yaml").read_text())
    config["audits"]["other"] = config["audits"]["small"] | {"headline": "loss"}
    put(folder, "params.yaml", text=yaml.safe_dump(config))
    logged(folder, "score/other/loss", "memleak score: <b>something</b> is wrong\n")

    assert cli.main(["status", "--directory", str(folder), "--index", str(folder / "results/index.html")]) == 0

    said, page = capsys.readouterr().out, (folder / "results/index.html").read_text()
    assert "memleak score: <b>something</b> is wrong" in said and "1 of 2 audits are finished" in said
    assert "audits/small/report.html" in page and "other" in page and "0 of 4" in page
    assert "<b>something</b>" not in page


def test_a_sweep_tells_how_many_of_its_audits_are_measured(tmp_path):
    audit = CONFIG["audits"]["many"] | {"design": {"kind": "halves", "models": 8, "pool": 1000}, "sweep": {"recipe": {"dropout": {"dropout": 0.2}}}}
    put(tmp_path, "params.yaml", text=yaml.safe_dump(CONFIG | {"audits": {"help": audit}}))

    (found,) = results.sweeps_of(tmp_path)

    assert found.name == "help" and stages(found)["audits"][0] == 0 and stages(found)["audits"][1] >= 2 and found.metrics is None


def test_a_folder_without_anything_says_so(tmp_path, capsys):
    assert cli.main(["status", "--directory", str(tmp_path)]) == 0
    assert "no audits here" in capsys.readouterr().out


# damaged files


@pytest.mark.parametrize("damage", [{"attacks": None}, {"attacks": 5}, {"targets": "x"}, {"controls": [1]}])
def test_metrics_of_another_shape_are_named_and_end_nothing(tmp_path, pool_walk, damage):
    folder = measured(tmp_path, pool_walk)
    put(folder, "results/metrics/small.json", text=json.dumps(pool_walk.metrics | damage))

    (found,) = results.audits_of(folder)

    assert found.metrics is None and f"damaged, {next(iter(damage))} is no mapping" in found.problem


@pytest.mark.parametrize(("text", "word"), [("[" * 100_000, "nested too deep"), ('{"format": NaN}', "NaN is no number"), ('{"a": ', "truncated")])
def test_metrics_that_are_no_json_of_ours_are_named(tmp_path, text, word):
    put(tmp_path, "results/metrics/odd.json", text=text)

    (found,) = results.audits_of(tmp_path)

    assert found.metrics is None and word in found.problem


def test_metrics_that_are_a_folder_or_far_too_large_are_named(tmp_path, monkeypatch):
    (tmp_path / "folder.json").mkdir()
    put(tmp_path, "large.json", text="{}" + " " * 100)
    monkeypatch.setattr(results, "LARGEST", 50)

    for name, word in (("folder", "cannot be read"), ("large", "metrics have")):
        with pytest.raises(artefacts.ArtefactError, match=word):
            results.metrics_of(tmp_path / f"{name}.json")


def test_an_index_of_a_failed_run_lists_the_others_where_one_is_damaged(tmp_path, pool_walk):
    folder = measured(tmp_path, pool_walk)
    put(folder, "results/metrics/small.json", text=json.dumps(pool_walk.metrics | {"models": {}}))

    said = status.of_failed_run(folder, folder / "index.html")

    assert "0 of 1 audits are finished" in said and "its metrics are damaged" in (folder / "index.html").read_text()
