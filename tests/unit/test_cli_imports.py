"""Imports, exports, classic task lists and contracts, as a user types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from memleak import cli, imports, params

M, N = 12, 60


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A table of an earlier run, written as run.csv into the working folder."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    model, sample = np.divmod(np.arange(M * N), N)
    table = pd.DataFrame({"model_id": model, "sample_id": sample, "is_member": draw.random(M * N) < 0.5, "margin": draw.normal(size=M * N)})
    table.to_csv("run.csv", index=False)
    return table


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main([*arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that a user reads."""
    assert cli.main([*arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"memleak {arguments[0]}: ")
    return lines[0]


def test_an_import_begins_a_project(run, capsys):
    text = said(capsys, "import", "run.csv", "--output", "mine")

    assert f"{M} models, {N} samples" in text and "now: cd mine && snakemake --cores all" in text
    assert {path.name for path in Path("mine").iterdir()} == {"imported.parquet", "params.yaml", "Snakefile", "profiles"}
    config = yaml.safe_load(Path("mine/params.yaml").read_text())
    assert config["audits"]["imported"]["headline"] in config["audits"]["imported"]["attacks"]


def test_an_import_into_a_folder_with_params_says_what_to_put_there(run, capsys):
    Path("params.yaml").write_text("seed: 3\n")

    text = said(capsys, "import", "run.csv", "--output", ".")

    assert Path("params.yaml").read_text() == "seed: 3\n"
    shown = yaml.safe_load(text.partition("put this into it:\n")[2].partition("now:")[0])
    assert shown["audits"]["imported"]["design"] == {"kind": "imported", "source": "imported.parquet"}


def test_an_import_of_no_run_is_one_sentence(run, capsys):
    Path("empty").mkdir()

    assert "there is no such file or folder" in refused(capsys, "import", "nowhere")
    assert "no earlier run was found; looked for experiment-*/keep.npy" in refused(capsys, "import", "empty")
    assert "has neither models/memberships.npy" in refused(capsys, "import", "empty", "--kind", "privacy-meter")
    assert "no folder in it has a keep.npy" in refused(capsys, "import", "empty", "--kind", "lira")
    assert "a table has its labels in a column" in refused(capsys, "import", "run.csv", "--labels", "y.npy")
    Path("run.parquet").write_bytes(b"PAR1")
    assert "truncated or not a table" in refused(capsys, "import", "run.parquet")
    for number in range(4):
        Path(f"lira/experiment-{number}").mkdir(parents=True)
        np.save(f"lira/experiment-{number}/keep.npy", np.arange(9) % 4 == number)
    assert "lira" in refused(capsys, "import", "lira")


@pytest.fixture
def own(pool_walk, tmp_path, monkeypatch) -> Path:
    """A params.yaml of a finished audit of our own; the working folder is the audit's."""
    config = {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"tiny": pool_walk.planned.recipe.recipe.model_dump(mode="json", exclude_defaults=True)},
        "audits": {"small": pool_walk.planned.audit.model_dump(mode="json", exclude_unset=True)},
        "models_per_shard": 9,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(pool_walk.folder)
    return tmp_path / "params.yaml"


@pytest.mark.parametrize(("kind", "name"), [("table", "run.parquet"), ("lira", "run"), ("privacy-meter", "run")])
def test_an_export_can_be_imported(own, tmp_path, capsys, kind, name):
    text = said(capsys, "export", "small", "--kind", kind, "--params", str(own), "--output", str(tmp_path / name))

    assert f"written: {tmp_path / name}" in text and "The 60 samples of the population were not written." in text
    assert "12 models, 150 samples" in said(capsys, "import", str(tmp_path / name), "--output", str(tmp_path / "again"))


def test_what_cannot_be_exported_is_one_sentence(own, tmp_path, capsys):
    given = ["--params", str(own), "--output", str(tmp_path / "run.parquet")]

    assert "no audit is called 'smal' (did you mean 'small'?)" in refused(capsys, "export", "smal", *given)
    assert "expected .parquet or .csv" in refused(capsys, "export", "small", "--params", str(own), "--output", str(tmp_path / "run"))


def test_an_imported_run_can_be_exported_again(run, tmp_path, capsys, monkeypatch):
    from memleak.imports import stage

    said(capsys, "import", "run.csv", "--output", ".")
    stage.plan(
        Path("imported.parquet"),
        {"audit": "imported", "design": {"targets": None}},
        *(Path(f"results/audits/imported/{name}.parquet") for name in ("plan", "samples")),
    )
    said(capsys, "export", "imported", "--output", "again.csv")

    again = imports.read(Path("again.csv"))
    assert np.array_equal(again.is_member.ravel(), run["is_member"])
    assert np.allclose(again.signals["margin"].ravel(), run["margin"])


TASKS = """
- type: MEMBERSHIP_INFERENCE_ATTACK
  name: BASELINE
  args: {test_datasets: [data/members, data/others], target_model: model}
- type: MODEL_INVERSION
  name: MIRROR
  args: {}
"""


def test_a_classic_task_list_becomes_params_and_is_not_written_over_a_file(run, capsys):
    Path("mem_inf.yaml").write_text(TASKS)

    printed = said(capsys, "import-tasks", "mem_inf.yaml")
    text = said(capsys, "import-tasks", "mem_inf.yaml", "--output", "params.yaml")

    config = yaml.safe_load(printed)
    assert yaml.safe_load(Path("params.yaml").read_text()) == config
    assert [audit["design"]["kind"] for audit in config["audits"].values()] == ["given"]
    assert "MODEL_INVERSION" in text and "# " in printed
    assert "is there already" in refused(capsys, "import-tasks", "mem_inf.yaml", "--output", "params.yaml")
    assert "nowhere.yaml" in refused(capsys, "import-tasks", "nowhere.yaml")


DATA = """
import numpy as np
def get_dataset():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)
def nothing():
    return None
"""
MODEL = """
import torch
def get_model():
    layer = torch.nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-3.0, 0, 0, 0], [3.0, 0, 0, 0]])); layer.bias.zero_()
    return layer
"""


def test_a_data_set_and_a_model_of_ones_own_are_checked(run, capsys):
    Path("my_data.py").write_text(DATA)
    Path("my_model.py").write_text(MODEL)

    assert "broken" not in said(capsys, "check", "datasets", "my_data.py:get_dataset").lower()
    assert "broken" not in said(capsys, "check", "models", "my_model.py:get_model", "--data", "my_data.py:get_dataset").lower()
    assert "get_dataset" in refused_check(capsys, "datasets", "my_data.py:nothing")
    assert "name a data set, as in `--data my_data.py:get_dataset`" in refused(capsys, "check", "models", "my_model.py:get_model")
    wrong = refused_check(capsys, "models", "my_model.py:get_model", "--data", "my_data.py:get_dataset", "--model", '{"output": "probabilities"}')
    assert "probabilities" in wrong


def refused_check(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a check says of a plug-in that is wrong."""
    assert cli.main(["check", *arguments]) == 1
    found = capsys.readouterr()
    return found.out + found.err


def test_params_of_an_import_are_valid_where_they_lie(run, capsys, monkeypatch):
    said(capsys, "import", "run.csv", "--output", "mine")
    monkeypatch.chdir("mine")

    assert params.load(Path("params.yaml")).audits["imported"].design.kind == "imported"
