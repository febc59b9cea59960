"""Small language models fine-tuned on real texts: which attacks see who was among them, and by how much?

A GPT-2 of two layers, trained beforehand on other texts of the same kind, is fine-tuned on random halves of 400 texts, for four epochs
and, at a lower learning rate, for one; each of 8 models is the target in turn. Passages of Python's documentation, and
(MEMLEAK_TEST_DATA) of Wikipedia's articles in WikiText-2. About 10 minutes of one core. Run with -s to see the tables.
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
    "epochs": 20, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.001,
}  # fmt: skip
FINE_TUNING = {"four-epochs": {"epochs": 4, "learning_rate": 0.001}, "one-epoch": {"epochs": 1, "learning_rate": 0.0007}}
REFERENCE_FREE = {
    "loss": {"name": "threshold", "signal": "loss"}, "zlib": {"name": "zlib"}, "lowercase": {"name": "lowercase"}, "min-k": {"name": "min_k"},
    "min-k-plus": {"name": "min_k", "normalised": True}, "surp": {"name": "surp"}, "dc-pdd": {"name": "dc_pdd"}, "recall": {"name": "recall"},
    "neighbourhood": {"name": "neighbourhood"}, "rank": {"name": "token", "statistic": "log_rank"}, "is-top": {"name": "token", "statistic": "is_top"},
}  # fmt: skip
BLIND_TO_THE_TEXT = {name: {"name": "token", "statistic": name.replace("-", "_")} for name in ("entropy", "top-gap")}  # of what stands there
BASE = {"difference": {"name": "reference_model"}, "ratio": {"name": "reference_model", "form": "ratio"}, "ez": {"name": "ez"}, "wbc": {"name": "wbc"}}
TRAINED = {
    "difficulty": {"name": "difficulty"}, "lira": {"name": "lira"}, "lira-offline": {"name": "lira", "mode": "offline"},
    "rmia": {"name": "rmia", "mode": "online", "space": "log"}, "rmia-offline": {"name": "rmia", "mode": "offline", "space": "log", "a": 1},
}  # fmt: skip
DROWNED = {"rmia-a0": {"name": "rmia", "mode": "offline", "space": "linear", "a": 0}, "rmia-a03": {"name": "rmia", "mode": "offline", "space": "linear", "a": 0.3}}
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
        rows[name] = {key: one["auc"][key] for key in ("value", "low", "high")} | {"tpr": one["tpr"][0]["value"]}
    return pd.DataFrame(rows).T.rename(columns={"value": "auc"})
