"""The command line: fast to answer, one sentence for what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from memleak import cli, params, pipeline, plan


def _single_point(*options: str) -> params.Params:
    return params.validate(pipeline.single_point_params(cli.parser().parse_args(["single-point", *options])))


def test_the_classic_options_become_params():
    made = _single_point(
        "--dataset", "cifar100", "--target-index", "7", "9", "--rounds", "3", "--holdout-rounds", "1", "--subset-size", "1000", "--epochs", "3", "--batch-size", "128",
        "--learning-rate", "0.01", "--alpha", "0.15", "--seed", "5", "--no-figures", "--signal", "loss", "--optimizer", "adamw",
    )  # fmt: skip
    audit = made.audits["single-point"]

    assert audit.design.targets.names() == ["index00007", "index00009"]
    assert (audit.design.rounds, audit.design.holdout_rounds, audit.design.subset_size, made.seed, made.figures) == (3, 1, 1000, 5, False)
    assert made.recipes["recipe"].model_dump(include={"epochs", "batch_size", "learning_rate", "optimizer"}) == {
        "epochs": 3, "batch_size": 128, "learning_rate": 0.01, "optimizer": "adamw",
    }  # fmt: skip
    assert audit.attacks["np"] == {"name": "single_point", "fit": "normal", "signal": "loss", "alpha": 0.15}


def test_without_an_index_the_record_is_random():
    assert _single_point().audits["single-point"].design.targets.names() == ["random00"]
    assert _single_point("--kind", "atypical", "--n-targets", "2").audits["single-point"].design.targets.names() == ["atypical00", "atypical01"]


def test_an_error_is_one_sentence_and_exit_code_one(tmp_path, capsys):
    code = cli.main(["audit", str(tmp_path / "nowhere.yaml")])

    assert code == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_job_ends_soon_after_the_process_that_started_it():
    starter = subprocess.Popen(["sleep", "60"])
    program = f"import time; from memleak import cli; cli._end_with({starter.pid}); time.sleep(60)"
    job = subprocess.Popen([sys.executable, "-c", program])
    time.sleep(1.5)
    assert job.poll() is None

    starter.kill()
    starter.wait()

    assert job.wait(timeout=10) == 130


def test_a_lock_is_removed_only_where_nobody_works(tmp_path):
    lock = tmp_path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "snakemake"], cwd=tmp_path)
    named = tmp_path / "snakemake"
    named.write_text("import time; time.sleep(60)")
    at_work = subprocess.Popen([sys.executable, str(named)], cwd=tmp_path)
    try:
        assert not pipeline.unlock(tmp_path)
        assert lock.exists()
    finally:
        for process in (worker, at_work):
            process.kill()
            process.wait()

    assert pipeline.unlock(tmp_path)
    assert not lock.exists()
    assert not pipeline.unlock(tmp_path)


def test_params_from_python_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(params.ParamsError, match="unknown key 'dataset'"):
        pipeline.audit({"dataset": {}}, directory=tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_another_file_of_params_does_not_replace_the_one_beside_it(tmp_path):
    text = (pipeline.workflow_folder() / "params.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "params.yaml").write_text(f"{text}figures: false\n")

    with pytest.raises(params.ParamsError, match="name another folder with --directory"):
        pipeline.audit(tmp_path / "mine.yaml")
    assert (tmp_path / "params.yaml").read_text().endswith("figures: false\n")


def test_the_folder_of_the_run_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(params.ParamsError):
        pipeline.audit({"seed": -1}, directory=tmp_path / "run")

    assert os.getcwd() == str(tmp_path)


def test_the_workflow_lies_where_it_is_said_to():
    assert (pipeline.workflow_folder() / "profiles/default/profile.yaml").is_file()
    assert plan.build(params.load(pipeline.workflow_folder() / "params.yaml")).audits
