"""Defences on real CIFAR-10: do they do to LiRA what the literature says?

A small network that overfits, 16 models in halves of 1,200 images, attacked by models that train with the same defence.
Needs MEMLEAK_TEST_DATA and about 15 minutes of one core. Run with -s to see the table.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import yaml

from memleak import pipeline

pytestmark = pytest.mark.long
DATA = """
import io, os
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

def load():
    rows = pq.read_table(os.path.join(os.environ["MEMLEAK_TEST_DATA"], "cifar10/train.parquet")).slice(0, 5000).to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]), np.array([row["label"] for row in rows])
"""
DESIGN = {"kind": "halves", "models": 16, "pool": 1200, "population": 500}
VIEWS = ["identity", "flip", "rotate-4"]
LIRA, CORRECTNESS = {"name": "lira"}, {"name": "threshold", "signal": "correctness"}
TRAINING = {
    "dropout": {"dropout": 0.5},
    "weight-decay": {"weight_decay": 2.0},
    "label-smoothing": {"label_smoothing": 0.2},
    "mixup": {"mixup": 1.0},
    "augmentation": {"flip": True, "shift": 4},
    "early-stopping": {"early_stopping": {"records": 200, "patience": 2}},
    "distillation": {"distillation": {"records": 800, "temperature": 2}},
    "dp": {"dp": {"noise_multiplier": {"each": [0.4, 1.0]}, "delta": 1e-4, "clip": 1.0}, "batch_size": 64},
}  # fmt: skip
RELEASE = {
    "top3": [{"top_k": 3}], "rounded": [{"round": 1}], "warm": [{"temperature": 4}], "noise": [{"noise": {"scale": 0.1}}],
    "memguard": [{"memguard": {"budget": 0.5}}], "labels": ["labels"],
}  # fmt: skip
PARAMS = {
    "seed": 0,
    "datasets": {"cifar": {"name": "my_data.py:load"}},
    "recipes": {"cnn": {"preset": "cifar-cnn", "channels": [12, 24, 48], "hidden": [96], "epochs": 15}},
    "audits": {
        "training": {
            "dataset": "cifar", "recipe": "cnn", "design": DESIGN, "headline": "lira", "sweep": {"recipe": TRAINING},
            "attacks": {"lira": LIRA, "correctness": CORRECTNESS},
        },
        "release": {
            "dataset": "cifar", "recipe": "cnn", "design": DESIGN, "views": VIEWS, "headline": "lira", "sweep": {"release": RELEASE},
            "attacks": {"lira": LIRA, "correctness": CORRECTNESS, "label-only": {"name": "label_only", "views": VIEWS}},
        },
    },
    "device": "cpu",
    "models_per_shard": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def sweeps(test_data, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """The numbers of both sweeps, with their variants by label."""
    folder = tmp_path_factory.mktemp("defences")
    (folder / "my_data.py").write_text(DATA)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    pipeline.run(folder, "all", *(f"results/audits/{sweep}/frontier.json" for sweep in PARAMS["audits"]))
    found = {sweep: json.loads((folder / f"results/audits/{sweep}/frontier.json").read_text()) for sweep in PARAMS["audits"]}
    for sweep, numbers in found.items():
        print(f"\n{sweep}: gap and AUC {numbers['correlation']}\n{_table(numbers).to_string()}")
    return {sweep: numbers | {"variants": {row["label"]: row for row in numbers["variants"]}} for sweep, numbers in found.items()}


def _table(numbers: dict[str, Any]) -> pd.DataFrame:
    """Accuracy, gap, AUC and TPR at 1 % of every variant, their differences from none with intervals, and Holm's p."""

    def words(found: dict[str, Any] | None, key: str = "value") -> str:
        if found is None:
            return ""
        p = f" p {found['p_holm']:.3g}" if key == "difference" else ""
        return f"{found[key]:.3f} [{found['low']:.3f}, {found['high']:.3f}]{p}"

    rows = []
    for row in numbers["variants"]:
        own = {"accuracy": row["utility"], "gap": row["gap"], "AUC": row["auc"], "TPR at 1 %": row["tpr"][0]}
        others = {f"AUC of {name}": attack["auc"] for name, attack in row["attacks"].items() if name != numbers["headline"]}
        against = {f"{name}, less none": words(row["against"] and row["against"][name], "difference") for name in ("utility", "auc", "tpr")}
        rows.append({"variant": row["label"], **{name: words(found) for name, found in (own | others).items()}, **against})
    return pd.DataFrame(rows).set_index("variant").T


@pytest.mark.parametrize("defence", ["dropout", "mixup", "augmentation", "early-stopping", "distillation", "dp-0-4", "dp-1-0"])
def test_what_keeps_a_model_from_its_records_leaks_less(sweeps, defence):
    """Kaya and Dumitras 2021 (augmentation); Song and Mittal 2021 (early stopping); Shejwalkar and Houmansadr 2021 (distillation); Abadi et al. 2016."""
    against = sweeps["training"]["variants"][defence]["against"]

    assert against["auc"]["high"] < 0 and against["auc"]["p_holm"] <= 0.05
    assert against["tpr"]["high"] < 0


def test_label_smoothing_leaks_more(sweeps):
    """Kaya and Dumitras 2021: smoother labels, with which members' answers are more alike, help attacks and not accuracy."""
    against = sweeps["training"]["variants"]["label-smoothing"]["against"]

    assert against["auc"]["low"] > 0 and against["auc"]["p_holm"] <= 0.05


def test_more_noise_leaks_less_and_costs_more(sweeps):
    little, much = (sweeps["training"]["variants"][f"dp-{noise}"] for noise in ("0-4", "1-0"))

    assert much["dp"]["epsilon"] < little["dp"]["epsilon"]
    assert much["auc"]["high"] < little["auc"]["value"]
    assert much["utility"]["high"] < little["utility"]["low"] < sweeps["training"]["variants"]["none"]["utility"]["value"]


def test_right_answers_alone_give_the_generalisation_gap(sweeps):
    """The attack that calls a right answer a member has an advantage of the gap (Yeom et al. 2018), so an AUC of 1/2 and half of it."""
    for row in sweeps["training"]["variants"].values():
        assert row["attacks"]["correctness"]["auc"]["value"] == pytest.approx(0.5 + row["gap"]["value"] / 2, abs=1e-9)


def test_a_gap_goes_with_a_leak(sweeps):
    """Yeom et al. 2018: over recipes, the more a model overfits the more it leaks."""
    found = sweeps["training"]["correlation"]

    assert found["n"] == 1 + len(TRAINING) + 1  # none, and two of dp
    assert found["low"] > 0


def test_a_release_that_keeps_labels_does_nothing_about_attacks_that_see_no_more(sweeps):
    """Choquette-Choo et al. 2021: what masks confidence leaves label-only attacks as they are, and here costs no accuracy."""
    variants = sweeps["release"]["variants"]
    for row in variants.values():
        assert {name: row["attacks"][name] for name in ("correctness", "label-only")} == {
            name: variants["none"]["attacks"][name] for name in ("correctness", "label-only")
        }
        assert row["utility"] == variants["none"]["utility"]


@pytest.mark.parametrize("release", ["top3", "warm"])
def test_fewer_or_flatter_probabilities_hardly_help(sweeps, release):
    """Shokri et al. 2017, Salem et al. 2019: what an attack reads is in the probability of the true class, which both tell still."""
    assert sweeps["release"]["variants"][release]["against"]["auc"]["low"] > -0.03


@pytest.mark.parametrize("release", ["rounded", "noise", "memguard", "labels"])
def test_a_release_that_withholds_probabilities_leaves_what_labels_tell(sweeps, release):
    """LiRA sees less, and no less than the gap: a wrong answer about a record still speaks against membership."""
    row = sweeps["release"]["variants"][release]

    assert row["against"]["auc"]["high"] < 0 and row["against"]["auc"]["p_holm"] <= 0.05
    assert row["auc"]["low"] > 0.5 + 0.4 * row["gap"]["value"]


def test_what_fools_the_headline_attack_may_still_tell_its_labels(sweeps):
    """Song and Mittal 2021: of what MemGuard flattens the label stays, and an attack on labels alone sees more than LiRA."""
    row = sweeps["release"]["variants"]["memguard"]

    assert row["attacks"]["label-only"]["auc"]["low"] > row["auc"]["high"]


def test_a_release_trains_nothing(sweeps):
    assert sweeps["release"]["n_models"] == DESIGN["models"]
    assert sweeps["training"]["n_models"] == sweeps["training"]["correlation"]["n"] * DESIGN["models"]
