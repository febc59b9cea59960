"""The examples of MembershipTester run as a new user runs them, without network, and say what they found."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow  # they train
EXAMPLES = Path(__file__).parents[2] / "examples/membership-tester"
PAGES = {"gpt2": ["report"], "bert": ["masked", "classifier"], "medical_case_study": ["fine-tuned", "fine-tuned-less"]}


@pytest.fixture
def example(monkeypatch, tmp_path, capsys):
    """Run a script, in this process so that nothing is imported twice; gives what it printed."""

    def run(name: str, *options: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", PAGES)
def test_an_example_prints_verdict_metrics_and_recommendations_and_writes_its_pages(example, tmp_path, name):
    said = example(name, "--quick", "--output", "made")

    assert said.count("Verdict: ") == said.count("Recommendations:") == said.count("The page: ") == len(PAGES[name])
    assert said.count("random 0.500") == len(PAGES[name])  # the last line of every table of metrics
    for page in PAGES[name]:
        assert "<svg" in (tmp_path / f"made/{page}.html").read_text()
    assert name != "medical_case_study" or "What fewer epochs change" in said


def test_notes_and_a_model_of_ones_own_are_audited_by_unit(example, tmp_path, test_data):
    draw = np.random.default_rng(0)
    words = sorted(set(Path(EXAMPLES / "medical_case_study.py").read_text().split()))
    texts = [" ".join(draw.choice(words, 14)) for _ in range(90)]
    pd.DataFrame({"text": texts, "ward": np.arange(90) // 2}).to_parquet(tmp_path / "notes.parquet")

    options = ["--quick", "--output", "made", "--data", "notes.parquet", "--checkpoint", str(test_data / "models/stories260k")]
    said = example("medical_case_study", *options, "--unit", "ward")

    assert "fine-tuned: trained on 40 texts" in said and "base: " not in said
    with pytest.raises(SystemExit, match="no column 'focus'; it has ward"):
        example("medical_case_study", *options, "--unit", "focus")


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_model_on_the_hub_without_network_is_one_sentence(example, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(SystemExit) as stopped:
        example(name, "--quick", "--model", "nobody/has-this")

    assert "nobody/has-this" in str(stopped.value) and "\n" not in str(stopped.value)
