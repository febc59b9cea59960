"""The classic list of tasks on real images, from `memleak import-tasks` to the one-page text report."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

EXAMPLE = "examples/classic-tasks"
LEFT_BY_RUNS = shutil.ignore_patterns("*.safetensors", "quick", "raw", "results", "data", "logs", ".snakemake", ".memleak")
NUMBER = r"[01]\.\d+ \[[01]\.\d+, [01]\.\d+\]"
SMALLER = {
    "cifar10_train": (2_500, 400),
    "cifar10_test": (1_000, 300),
    "cifar10_shadow_train": (27_500, 25_400),
    "cifar10_shadow_test": (38_500, 37_800),
}


@pytest.fixture(scope="session")
def quick_run(shared, test_data):
    """The quick example with a fraction of its records: its model trained, its tasks turned into params, its audit done."""

    def make(folder) -> None:
        shutil.copytree(Path(__file__).parents[2] / EXAMPLE / "quick", folder.path, dirs_exist_ok=True, ignore=LEFT_BY_RUNS)
        shutil.copy2(Path(__file__).parents[2] / EXAMPLE / "train.py", folder / "train.py")
        for name, (last, earlier) in SMALLER.items():
            folder.edit(f"datasets/{name}/{name}.py", f", {last:_})", f", {earlier:_})")
        folder.edit("mem_inf.yaml", "shadow_epoch: 15", "shadow_epoch: 8")
        folder.edit("mem_inf.yaml", "shadow_epoch: 15", "shadow_epoch: 8")
        (folder / "params.yaml").unlink()
        cifar = {"CIFAR10": str(test_data / "cifar10")}
        for arguments in (
            ("train", "models/small_10classes/small.py", "--epochs", "10", "--batch-size", "64", "--learning-rate", "0.003"),
            ("memleak", "import-tasks", "mem_inf.yaml", "--output", "params.yaml"),
            ("snakemake", "--cores", "2", "--config", "figures=false"),
        ):
            done = folder.python(*arguments, PYTHONPATH=str(folder / "src"), **cifar)
            assert done.returncode == 0, done.stdout

    return shared("classic-tasks", make)


@pytest.mark.workflow
def test_the_quick_list_ends_in_the_classic_report(quick_run):
    said = (quick_run / "results/audits/small-10classes/report.txt").read_text()
    blocks = dict(re.findall(r"^(Models|Datasets|Attacks|Summary):\n(.*?)(?=\n\n|\Z)", said, re.MULTILINE | re.DOTALL))

    assert said.startswith("Model Privacy Leakage Analysis Report\n") and list(blocks) == ["Models", "Datasets", "Attacks", "Summary"]
    assert re.search(r"small.*train_acc: [01]\.\d+.*test_acc: 0\.\d+", blocks["Models"])
    assert "is_member_dataset: true, length: 400" in blocks["Datasets"] and "is_member_dataset: false, length: 300" in blocks["Datasets"]
    attacks = dict(re.findall(r"^- name: ([\w-]+)(.*?)(?=\n- name|\Z)", blocks["Attacks"], re.MULTILINE | re.DOTALL))
    assert list(attacks) == ["baseline", "ml-leak", "label-only"]
    for name, figures in attacks.items():
        assert all(re.search(rf"\b{figure} = (?:{NUMBER}|n/a)", figures) for figure in ("acc", "auc", "precision", "recall")), (name, figures)
    assert "(headline" in blocks["Attacks"] and re.search(r"(LOW|MEDIUM|HIGH|UNDECIDED)", blocks["Summary"])


@pytest.mark.workflow
def test_the_label_only_task_asks_for_thirteen_labels_of_a_record(quick_run):
    """Six turns either way, and the image as it is."""
    facts = yaml.safe_load((quick_run / "results/metrics/small-10classes.json").read_text())

    assert facts["attacks"]["label-only"]["n_queries"] == 13
    assert facts["attacks"]["baseline"]["n_queries"] == 1


@pytest.mark.parametrize("where", [EXAMPLE, f"{EXAMPLE}/quick"])
def test_the_committed_params_are_what_import_tasks_writes(project, tmp_path, monkeypatch, where):
    """Also before the weights are trained."""
    from memleak import params, tasks

    shutil.copytree(project / where, tmp_path / "copy", ignore=LEFT_BY_RUNS)
    monkeypatch.chdir(tmp_path / "copy")
    found, remarks = tasks.convert("mem_inf.yaml")
    committed = Path("params.yaml").read_text()

    assert yaml.safe_load(committed) == found
    (audit,) = found["audits"].values()
    Path(audit["design"]["model"]["weights"]).touch()
    assert list(params.validate(found).audits[audit["dataset"]].attacks) == ["baseline", "ml-leak", "label-only"]
    assert all(f"# {remark}" in committed for remark in remarks if "weights" not in remark)
