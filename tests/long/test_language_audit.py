"""Small language models fine-tuned on real texts: which attacks see who was among them, and by how much?

A GPT-2 of two layers, trained beforehand on other texts of the same kind, is fine-tuned on random halves of 400 texts, for four epochs
and, at a lower learning rate, for one; each of 8 models is the target in turn. Passages of Python's documentation, and
(MEMLEAK_TEST_DATA) of Wikipedia's articles in WikiText-2. About 20 minutes of one core. Run with -s to see the tables.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from memleak import pipeline

pytestmark = pytest.mark.long
LENGTH = 64  # tokens, which most passages stay below
N_WORDS = 36  # of a passage of WikiText-2: about 60 tokens
N_BASE, N_AUDITED = 1600, 1200  # passages that the base model is trained on, and those of which 400 are the pool
PRETRAINING = {
    "architecture": "gpt2", "text": {"layers": 2, "width": 64, "heads": 2, "max_length": LENGTH},
    "epochs": 6, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.001,  # with more it knows these texts by heart, and others less
}  # fmt: skip
FINE_TUNING = {"four-epochs": {"epochs": 4, "learning_rate": 0.001}, "one-epoch": {"epochs": 1, "learning_rate": 0.0007}}
REFERENCE_FREE = {
    "loss": {"name": "threshold", "signal": "loss"}, "zlib": {"name": "zlib"}, "lowercase": {"name": "lowercase"}, "min-k": {"name": "min_k"},
    "min-k-plus": {"name": "min_k", "normalised": True}, "surp": {"name": "surp"}, "dc-pdd": {"name": "dc_pdd"}, "recall": {"name": "recall"},
    "neighbourhood": {"name": "neighbourhood"}, "rank": {"name": "token", "statistic": "log_rank"}, "is-top": {"name": "token", "statistic": "is_top"},
}  # fmt: skip
BLIND_TO_THE_TEXT = {name: {"name": "token", "statistic": name.replace("-", "_")} for name in ("entropy", "top-gap")}  # of what stands there
BASE = {
    "difference": {"name": "reference_model"},
    "ratio": {"name": "reference_model", "form": "ratio"},
    "ez": {"name": "ez"},
    "wbc": {"name": "wbc"},
}
TRAINED = {
    "difficulty": {"name": "difficulty"}, "lira": {"name": "lira"}, "lira-offline": {"name": "lira", "mode": "offline"},
    "rmia": {"name": "rmia", "mode": "online", "space": "log"}, "rmia-offline": {"name": "rmia", "mode": "offline", "space": "log", "a": 1},
}  # fmt: skip
DROWNED = {
    "rmia-a0": {"name": "rmia", "mode": "offline", "space": "linear", "a": 0},
    "rmia-a03": {"name": "rmia", "mode": "offline", "space": "linear", "a": 0.3},
}
ATTACKS = REFERENCE_FREE | BLIND_TO_THE_TEXT | BASE | TRAINED | DROWNED


def passages_of_articles(file: Path, folder: Path) -> None:
    """Passages of equal length, base.parquet from every other article, audited.parquet from those between."""
    table = pd.read_parquet(file)
    draw = np.random.default_rng(0)
    for name, side, n in (("base", 0, N_BASE), ("audited", 1, N_AUDITED)):
        words = [text.split() for text in table.loc[table["article"] % 2 == side, "text"]]
        found = [" ".join(one[start : start + N_WORDS]) for one in words for start in range(0, len(one) - N_WORDS + 1, N_WORDS)]
        pd.DataFrame({"text": draw.permutation(found)[:n]}).to_parquet(folder / f"{name}.parquet")


@pytest.fixture(scope="module", params=["python", "wikitext"])
def audits(request, tmp_path_factory) -> dict[str, pd.DataFrame]:
    """AUC and TPR at 1 % of every attack with their intervals, by how the models were fine-tuned."""
    folder = tmp_path_factory.mktemp(request.param)
    datasets = {"others": {"name": "python_topics_rest"}, "audited": {"name": "python_topics"}}
    if request.param == "wikitext":
        passages_of_articles(request.getfixturevalue("test_data") / "text/wikitext2_valid_test.parquet", folder)
        datasets = {name: {"name": "text", "source": file} for name, file in (("others", "base.parquet"), ("audited", "audited.parquet"))}
    written = (json.dumps(datasets.pop("others")), json.dumps(PRETRAINING))
    command = [sys.executable, "-m", "memleak", "pretrain", "--dataset", written[0], "--recipe", written[1], "--output", "base", "--device", "cpu"]
    subprocess.run(command, cwd=folder, check=True)
    common = {"architecture": "checkpoint", "text": {"checkpoint": "base", "max_length": LENGTH}, "batch_size": 8, "optimizer": "adamw"}
    design = {"kind": "halves", "models": 8, "pool": 400}
    params = {
        "seed": 0, "datasets": datasets, "recipes": {name: common | how for name, how in FINE_TUNING.items()},
        "audits": {name: {"dataset": "audited", "recipe": name, "design": design, "attacks": ATTACKS, "headline": "lira"} for name in FINE_TUNING},
        "device": "cpu", "figures": False,
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    pipeline.run(folder)
    found = {name: _table(json.loads((folder / f"results/metrics/{name}.json").read_text())) for name in FINE_TUNING}
    for name, table in found.items():
        print(f"\n{request.param}, {name}\n{table.round(3).to_string()}")
    return found


def _table(metrics) -> pd.DataFrame:
    rows = {}
    for name, one in metrics["attacks"].items():
        rows[name] = {key: one["auc"][key] for key in ("value", "low", "high")} | {
            "tpr": next(rate["value"] for rate in one["rates"] if rate["at_fpr"] == 0.01)
        }
    return pd.DataFrame(rows).T.rename(columns={"value": "auc"})


def auc(table: pd.DataFrame, *attacks: str) -> np.ndarray:
    return table.loc[list(attacks), "auc"].to_numpy()


def test_a_reference_turns_little_into_much(audits):
    """The model before fine-tuning is most of the gain, models with and without each text are the rest."""
    for name, least in (("four-epochs", (0.9, 0.97)), ("one-epoch", (0.75, 0.85))):
        table = audits[name]
        of_base, of_trained = auc(table, *BASE), auc(table, *TRAINED)

        assert auc(table, "loss")[0] < of_base.min() and of_base.max() > least[0] and of_trained.min() > least[1]
        assert of_trained.max() > of_base.max() - 0.005  # both may see everything
        assert table.loc["lira", "tpr"] > 2 * table.loc["loss", "tpr"]
    assert auc(audits["one-epoch"], "loss")[0] < 0.7 < auc(audits["one-epoch"], *BASE).max()


def test_lira_and_rmia_in_log_space_are_the_best(audits):
    for table in audits.values():
        best = table["auc"].max()

        assert auc(table, "lira", "lira-offline", "rmia", "rmia-offline") == pytest.approx(best, abs=0.03)


def test_rmia_with_probabilities_drowns_in_one_minus_a(audits):
    """exp(-loss) of a text is about .01: (1 - a) / 2 beside it is all that is left, and the attack is the loss."""
    for table in audits.values():
        assert auc(table, "rmia-a0", "rmia-a03") == pytest.approx(auc(table, "loss")[0], abs=0.02)
        assert auc(table, "rmia-offline")[0] > auc(table, "rmia-a0")[0] + 0.02


def test_what_never_looks_at_the_text_itself_sees_next_to_nothing(audits):
    for table in audits.values():
        assert auc(table, *BLIND_TO_THE_TEXT) == pytest.approx(0.5, abs=0.06)


def test_every_attack_sees_more_after_more_epochs(audits):
    loud = [name for name in ATTACKS if name not in BLIND_TO_THE_TEXT]

    assert (auc(audits["four-epochs"], *loud) > auc(audits["one-epoch"], *loud)).all()
