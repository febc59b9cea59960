"""The commands of README.md and docs/ do what is said there: those tagged `run` are run, in order, each document in a fresh project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TAGGED = re.compile(r"<!-- (run|long|needs-gpu|needs-cluster) -->\n```(bash|python)\n(.*?)```", re.DOTALL)
DOCUMENTS = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
WITH_COMMANDS = [name for name, path in DOCUMENTS.items() if "<!-- run -->" in path.read_text()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_has_a_tag(document):
    text = DOCUMENTS[document].read_text()

    assert text.count("```bash") == sum(language == "bash" for _, language, _ in TAGGED.findall(text))


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_the_commands_tagged_run_do_what_the_document_says(document, fresh):
    shutil.copy2(ROOT / "params.yaml", fresh / "params.yaml")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = ""
    for tag, language, block in TAGGED.findall(DOCUMENTS[document].read_text()):
        if tag != "run":
            continue
        command = [sys.executable, "-c", block] if language == "python" else ["bash", "-euc", block]
        done = subprocess.run(command, cwd=fresh.path, env=os.environ | {"PATH": path}, text=True, capture_output=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    EXPECTED[document](fresh, said)


def of_readme(project, said):
    assert "target index01553" in said and "hold-out: power" in said
    assert (project / "single-point/results/audits/single-point/report.html").is_file()
    assert said.count("breaks no law") == 3  # data, model, attack
    assert "exit code 3" in said  # one hold-out round says nothing of a false-positive rate of 1 %
    assert (project / "single-point.pdf").read_bytes().startswith(b"%PDF")


def of_workflow(project, said):
    assert (project / "small-audit/results/metrics/digits-single-point.json").is_file()
    assert any(line in ("exposed", "effect found", "no evidence") for line in said.splitlines())
    assert (project / "my-audit/Snakefile").is_file()


def of_plug_ins(project, said):
    metrics = json.loads((project / "my-plug-ins/results/metrics/mine.json").read_text())

    assert metrics["attacks"].keys() == {"own", "moved"} and metrics["attacks"]["own"]["options"]["scale"] == 0.5


def of_own_models(project, said):
    assert "Summary:" in said and (project / "my-model/results/audits/mine/report.html").is_file()


def of_language_models(project, said):
    assert "min-k-plus" in said and (project / "my-texts/report.html").is_file()


def of_other_tools(project, said):
    assert json.loads((project / "imported/results/metrics/imported.json").read_text())["kind"] == "imported"
    assert (project / "my-scores").is_dir()


def of_cluster(project, said):
    assert "digits-single-point" in said


def of_data(project, said):
    assert "my_data.py:get_dataset breaks no law" in said


def of_training(project, said):
    assert "my_train.py:train breaks no law" in said


EXPECTED = {
    "README": of_readme, "cluster": of_cluster, "data": of_data, "language-models": of_language_models, "other-tools": of_other_tools,
    "own-models": of_own_models, "plug-ins": of_plug_ins, "training": of_training, "workflow": of_workflow,
}  # fmt: skip
