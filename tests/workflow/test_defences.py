"""The example of defences, smaller: what its sweeps train, what they share, and in which direction defences work."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.workflow

EXAMPLE = Path(__file__).parents[2] / "examples/defences-digits/params.yaml"
N_MODELS = 8  # of every recipe, trained in one job
TRAINED, RELEASED = ["label-smoothing", "early-stopping", "dp"], ["top3", "labels"]  # the variants that are kept of the example's
AUDIT_IT = """
import json, memleak
done = memleak.audit("params.yaml", cores=2)
print("found", json.dumps({name: found["audit"] for name, found in done.metrics.items()}))
"""


def smaller():
    """The example with fewer models, epochs, defences and attacks, and without figures."""
    params = yaml.safe_load(EXAMPLE.read_text()) | {"device": "cpu", "figures": False, "models_per_shard": N_MODELS}
    params["recipes"]["digits-cnn"]["epochs"] = 20
    params["recipes"]["digits-private"] |= {"epochs": 10, "dp": {"epsilon": 4, "delta": 1e-4}}  # loose enough for canaries to be seen
    training, release = params["audits"]["training"], params["audits"]["release"]
    for audit, attacks in ((training, ["lira"]), (release, ["lira", "correctness"])):
        audit["design"]["models"] = N_MODELS
        audit["attacks"] = {name: audit["attacks"][name] for name in attacks}
    training["sweep"]["recipe"] = {name: training["sweep"]["recipe"][name] for name in TRAINED}
    training["sweep"]["recipe"]["dp"]["dp"]["noise_multiplier"] = 1.2
    release["sweep"]["release"] = {name: release["sweep"]["release"][name] for name in RELEASED}
    return params


@pytest.fixture(scope="session")
def swept_run(shared):
    """A project whose sweeps are done. To be read, not changed."""

    def make(folder) -> None:
        (folder / "params.yaml").write_text(yaml.safe_dump(smaller(), sort_keys=False))
        folder.run()

    return shared("defences", make)


@pytest.fixture
def swept(swept_run, tmp_path):
    """A copy of a project whose sweeps are done."""
    return swept_run.copy(tmp_path / "project")


def frontier(folder, sweep):
    """The numbers of a sweep, its variants by label."""
    found = json.loads((folder / f"results/audits/{sweep}/frontier.json").read_text())
    return found | {"variants": {variant["label"]: variant for variant in found["variants"]}}


def metrics(folder, audit):
    return json.loads((folder / f"results/metrics/{audit}.json").read_text())


def test_every_recipe_is_trained_once_however_many_audits_ask_its_models(swept_run):
    """Eight audits, seven of them in sweeps: four recipes of eight models, and one private model with canaries."""
    trained = {log.parent.name.rpartition("-")[0]: log.read_text().count("trained halves-p500-") for log in swept_run.files("logs/train/*/*.log")}

    assert trained == {"digits-cnn": N_MODELS, **{f"digits-cnn-{name}": N_MODELS for name in TRAINED}, "digits-private": 0}
    assert swept_run.n_trained() == N_MODELS * (1 + len(TRAINED)) + 1
    assert len(swept_run.files("results/models/*/*.safetensors")) == len(swept_run.files(".memleak/store/*/*.safetensors")) == 1 + len(TRAINED) + 1
    training, release = frontier(swept_run, "training"), frontier(swept_run, "release")
    assert (training["n_models"], training["n_shared"]) == (N_MODELS * (1 + len(TRAINED)), 0)
    assert (release["n_models"], release["n_shared"]) == (N_MODELS, 1)
    assert metrics(swept_run, "training-none")["attacks"]["lira"] == metrics(swept_run, "release-none")["attacks"]["lira"]


@pytest.mark.parametrize(("sweep", "labels"), [("training", ["none", *TRAINED]), ("release", ["none", *RELEASED])])
def test_the_frontier_and_its_page_hold_every_variant(swept_run, sweep, labels):
    folder = swept_run / f"results/audits/{sweep}"
    found, page = frontier(swept_run, sweep), (folder / "frontier.html").read_text()
    with open(folder / "frontier.csv", newline="") as file:
        rows = list(csv.DictReader(file))

    assert list(found["variants"]) == [row["variant"] for row in rows] == labels
    for row, variant in zip(rows, found["variants"].values(), strict=True):
        assert float(row["auc"]) == variant["auc"]["value"] and variant["auc"]["low"] < variant["auc"]["value"] < variant["auc"]["high"]
        assert f'href="../../audits/{sweep}-{variant["label"]}/report.html"' in page and (folder.parent / row["audit"] / "report.html").is_file()
    assert f'href="audits/{sweep}/frontier.html"' in (swept_run / "results/index.html").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "frontier.json",
        "frontier.csv",
        "frontier.html",
        "frontier.pdf",
    } and "<svg" not in page  # figures: false


def test_nothing_is_done_again_and_what_is_added_trains_only_what_is_new(swept):
    assert swept.planned() == {}

    # another release asks the models that are there
    swept.set("audits.release.sweep.release.warm", [{"temperature": 4}])
    jobs = swept.planned()
    assert "train" not in jobs and {key: jobs[key] for key in ("query", "plan", "frontier", "frontier_page")} == {
        "query": 1, "plan": 1, "frontier": 1, "frontier_page": 1,
    }  # fmt: skip
    assert jobs["score"] == 2  # its attacks alone

    # another recipe trains its own models
    swept.set("audits.training.sweep.recipe.dropout", {"dropout": 0.5, "epochs": 2})
    assert swept.planned()["train"] == 1
    assert swept.run("models") == N_MODELS
    (log,) = swept.files("logs/train/*/*.log")
    assert log.parent.name.startswith("digits-cnn-dropout-")

    # one audit crossed with both axes trains nothing that another sweep has trained
    params = yaml.safe_load((swept / "params.yaml").read_text())
    crossed = {"recipe": params["audits"]["training"]["sweep"]["recipe"], "release": {"labels": ["labels"]}}
    swept.set("audits.release.sweep", crossed)
    assert "train" not in swept.planned()


def test_figures_are_drawn_where_they_are_asked_for_and_stand_in_the_page(swept):
    page = "results/audits/training/frontier.html"
    swept.set("figures", True)

    assert swept.planned(page) == {"frontier_figure": 2, "frontier_page": 1}
    assert swept.run(page) == 0
    assert (swept / page).read_text().count('<div class="panels"') == 2
    assert [path.name for path in swept.files("results/audits/training/*.png")] == ["frontier.png", "gap.png"]


def test_a_sweep_is_run_from_python_and_gives_the_metrics_of_its_variants(swept):
    (swept / "audit_it.py").write_text(AUDIT_IT)
    done = swept.python("audit_it", PYTHONPATH=str(swept / "src"))

    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.rpartition("found ")[2])
    expected = [f"training-{label}" for label in ("none", *TRAINED)] + [f"release-{label}" for label in ("none", *RELEASED)] + ["dp-verified"]
    assert found == {name: name for name in expected}


def test_labels_alone_cost_no_accuracy_and_take_most_of_what_lira_knows(swept_run):
    """Choquette-Choo et al. 2021: what is left is what augmented or plain correctness tells."""
    found = frontier(swept_run, "release")["variants"]
    labels, against = found["labels"], found["labels"]["against"]

    assert labels["utility"] == found["none"]["utility"] and labels["gap"] == found["none"]["gap"]
    assert against["utility"]["difference"] == 0 and against["utility"]["p_holm"] == 1
    assert against["auc"]["high"] < -0.05 and against["auc"]["p_holm"] < 0.05
    assert labels["attacks"]["correctness"] == found["none"]["attacks"]["correctness"]  # right or wrong is seen as before
    assert abs(found["top3"]["against"]["auc"]["difference"]) < 0.01  # Shokri et al. 2017: a few classes tell it all
    assert "labels buys most privacy at little or no cost" in (swept_run / "results/audits/release/frontier.html").read_text()


def test_private_training_lowers_the_auc_at_a_cost_and_label_smoothing_raises_it(swept_run):
    """Label smoothing makes members stand out to an attacker with references of the same training (Kaya and Dumitras 2021)."""
    found = frontier(swept_run, "training")["variants"]
    private, smooth, early = (found[name]["against"] for name in ("dp", "label-smoothing", "early-stopping"))

    assert private["auc"]["high"] < 0 and private["auc"]["p_holm"] < 0.05
    assert private["utility"]["high"] < 0 and private["utility"]["p_holm"] < 0.05
    assert smooth["auc"]["low"] > 0 and smooth["auc"]["p_holm"] < 0.05
    assert early["auc"]["low"] < 0  # it is not shown to raise it
    assert "More leaks than without a defence from label-smoothing" in (swept_run / "results/audits/training/frontier.html").read_text()


def test_a_private_training_keeps_its_claim_and_its_page_names_it(swept_run):
    """The lower bound of 1,000 gradients stands beside what the accountant says."""
    found = metrics(swept_run, "dp-verified")
    epsilon, promise = found["epsilon"], found["models"]["dp"]
    page, plain = ((swept_run / f"results/audits/dp-verified/report.{end}").read_text() for end in ("html", "txt"))

    assert 0.98 * 4 <= promise["epsilon"] == epsilon["claimed"] <= 4 and promise["delta"] == epsilon["delta"] == 1e-4
    assert epsilon["epsilon"] < epsilon["claimed"] and epsilon["alarm"] is False and epsilon["p"] > 0.05
    assert found["attacks"]["alignment"]["auc"]["low"] > 0.5  # the canaries are seen
    assert "ALARM" not in page + plain
    for text in (page, plain):
        assert f"{promise['epsilon']:.2f}" in text and f"noise of {promise['noise_multiplier']:.3g} times" in text
    assert f"{metrics(swept_run, 'training-dp')['models']['dp']['epsilon']:.2f}" in (swept_run / "results/audits/training-dp/report.html").read_text()


def test_a_claim_below_what_the_audit_shows_is_an_alarm_and_trains_nothing(swept):
    """Epsilon 0.3 is claimed for a training that keeps 4."""
    pages = [f"results/audits/dp-verified/report.{end}" for end in ("html", "txt")]
    swept.set("audits.dp-verified.epsilon", {"claimed": 0.3})

    assert swept.run(*pages) == 0
    epsilon = metrics(swept, "dp-verified")["epsilon"]
    assert epsilon["alarm"] is True and epsilon["epsilon"] > epsilon["claimed"] == 0.3 and epsilon["p"] < 0.05
    assert all("less private than" in (swept / page).read_text() for page in pages)
