"""Audits of models of texts, from the checkpoint to the page: what they train and ask, and what another attack or another checkpoint makes run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from memleak import MembershipTester
from memleak.data import topics

pytestmark = pytest.mark.workflow

EXAMPLE = Path(__file__).parents[2] / "examples/text-finetune/params.yaml"
N_MODELS = 6  # of a recipe in halves
SIZE = {"layers": 1, "width": 32, "heads": 2, "max_length": 48}
LENGTH = SIZE["max_length"]
HEAVY = ("train", "query", "query_given")  # jobs that need torch


def smaller():
    """The example with a smaller base, fewer models and attacks, and beside it one text in pairs."""
    params = yaml.safe_load(EXAMPLE.read_text()) | {"device": "cpu", "figures": False}
    params["recipes"]["pretraining"] |= {"text": SIZE, "epochs": 1}
    for name, audit in params["audits"].items():
        params["recipes"][name] |= {"epochs": 3, "text": params["recipes"][name]["text"] | {"max_length": LENGTH}}
        audit["design"] |= {"models": N_MODELS, "pool": 100, "population": 50}
        audit["attacks"] = {attack: audit["attacks"][attack] for attack in ("ez", "lira")}
    params["audits"]["one-text"] = {
        "dataset": "topics", "recipe": "fine-tuned", "attacks": {"np": {"name": "single_point", "alpha": 0.2}},
        "design": {"kind": "pairs", "targets": {"random": 1}, "rounds": 3, "subset_size": 20, "pool": 100},
    }  # fmt: skip
    return params


def pretrained(folder, output, dataset, recipe):
    """A checkpoint, made by the command that the example names."""
    done = folder.memleak("pretrain", "--dataset", json.dumps(dataset), "--recipe", recipe, "--output", output, "--device", "cpu")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def texts_run(shared):
    """A project whose audits of texts are done. To be read, not changed."""

    def make(folder) -> None:
        params = smaller()
        pretrained(folder, "base", {"name": "python_topics_rest"}, json.dumps(params["recipes"]["pretraining"]))
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        folder.run()

    return shared("texts", make)


@pytest.fixture
def texts(texts_run, tmp_path):
    """A copy of a project whose audits of texts are done."""
    return texts_run.copy(tmp_path / "project")


def metrics(folder, audit):
    return json.loads((folder / f"results/metrics/{audit}.json").read_text())


def heavy(jobs):
    return {rule: n for rule, n in jobs.items() if rule in HEAVY}


@pytest.mark.parametrize("audit", ["fine-tuned", "adapters"])
def test_models_fine_tuned_wholly_and_by_additions_are_audited_to_the_page(texts_run, audit):
    found = metrics(texts_run, audit)

    assert found["models"]["n"] == N_MODELS and found["models"]["of_tokens"]
    assert all(one["auc"]["high"] > 0.5 for one in found["attacks"].values()) and set(found["attacks"]) == {"ez", "lira"}
    assert "lira" in (texts_run / f"results/audits/{audit}/report.html").read_text()
    assert (texts_run / f"results/audits/{audit}/report.txt").read_text().strip()


def test_low_rank_additions_are_kept_instead_of_whole_models(texts_run):
    size = {path.parent.name.rpartition("-")[0]: path.stat().st_size for path in texts_run.files("results/models/*/halves-*.safetensors")}

    assert set(size) == {"fine-tuned", "adapters"} and size["adapters"] < size["fine-tuned"] / 2


def test_one_text_is_audited_with_and_without_it(texts_run):
    found = metrics(texts_run, "one-text")
    (target,) = found["targets"].values()

    assert target["means"]["loss_in"] < target["means"]["loss_out"]
    assert len(texts_run.files("results/models/fine-tuned-*/with-random00-*.safetensors")) == 1


def test_nothing_is_done_again_and_another_attack_reads_what_was_asked(texts):
    assert texts.planned() == {}

    texts.set("audits.fine-tuned.attacks.min-k", {"name": "min_k", "normalised": True})
    assert heavy(texts.planned()) == {} and texts.planned()["score"] == 1
    before = metrics(texts, "fine-tuned")["attacks"]["lira"]
    assert texts.run() == 0
    assert metrics(texts, "fine-tuned")["attacks"]["lira"] == before and texts.planned() == {}
    assert metrics(texts, "fine-tuned")["attacks"]["min-k"]["auc"]["high"] > 0.5


def test_another_checkpoint_under_the_same_name_trains_and_asks_anew(texts):
    config = json.loads((texts / "base/config.json").read_text()) | {"layer_norm_epsilon": 1e-3}
    (texts / "base/config.json").write_text(json.dumps(config))

    jobs = texts.planned()
    assert jobs["train"] >= 2 + 1 and jobs["query"] >= 3  # two recipes in halves, and the pairs


def test_a_tester_s_folder_is_run_again_with_the_same_numbers(texts_run, fresh):
    """Its stages ran in one process; the workflow's jobs say the same, of a checkpoint and a reference that are given."""
    members, others = (list(topics.load().inputs[rows]) for rows in (slice(0, 40), slice(40, 80)))
    (fresh / "members.txt").write_text("\n".join(members))
    recipe = smaller()["recipes"]["fine-tuned"] | {"epochs": 6}
    recipe["text"]["checkpoint"] = str(texts_run / "base")
    pretrained(fresh, "tuned", {"name": "text", "source": "members.txt"}, json.dumps(recipe))
    with MembershipTester(str(fresh / "tuned"), device="cpu", max_length=LENGTH, reference=str(texts_run / "base")) as tester:
        report = tester.run_attacks(members, others, attacks=["ez", "zlib"], directory=fresh.path)
    before = metrics(fresh, "texts")

    assert report.found["attacks"]["ez"]["auc"]["value"] > 0.6
    assert "train" not in fresh.planned()
    assert fresh.run("--forceall", "results/metrics/texts.json") == 0
    after = metrics(fresh, "texts")
    assert after["attacks"] == before["attacks"] and after["n_samples"] == 80
    assert fresh.run() == 0 and fresh.planned() == {}
    assert "ez" in (fresh / "results/audits/texts/report.html").read_text()
