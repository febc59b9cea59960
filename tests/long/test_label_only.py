"""Label-only attacks on an overfitted network of real CIFAR-10, against the baseline that knows one label of each record.

Needs MEMLEAK_TEST_DATA and about 12 minutes of one core. Run with -s to see the table of all attacks.
"""

from __future__ import annotations

import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import memleak
from memleak.metrics import compare, roc

pytestmark = pytest.mark.long
ROTATIONS = ["identity", *(f"rotate-{degrees}" for degrees in range(1, 7))]
GIVEN = {"name": "my_model.py:get_model", "weights": "target.safetensors", "mean": [0.47] * 3, "std": [0.25] * 3}
PARAMS = {
    "seed": 0,
    "datasets": {
        "cifar": {"parts": {part: {"name": f"my_data.py:get_{part}"} for part in ("members", "others", "shadow")}},
    },
    "recipes": {
        "same": {
            "architecture": "my_model.py:get_model", "epochs": 15, "batch_size": 64, "optimizer": "adamw", "learning_rate": 0.003,
            "weight_decay": 0.05, "schedule": "one_cycle",
        },
    },
    "audits": {
        "fitted": {
            "dataset": "cifar", "recipe": "same",
            "design": {
                "kind": "given", "model": GIVEN, "non_members": "others", "sample": 1000, "references": {"kind": "shadow", "models": 4},
            },
            "attacks": {
                "correctness": {"name": "threshold", "signal": "correctness"},
                "augmentation": {"name": "label_only"},
                "rotations": {"name": "label_only", "views": ROTATIONS},
                "loss": {"name": "threshold"},
                "shadow": {"name": "shadow"},
                "forest": {"name": "shadow", "classifier": "forest"},
                "meta": {"name": "meta"},
                "calibrated": {"name": "meta", "calibrated": True},
                "top-k": {"name": "top_k"},
                "lira": {"name": "lira", "mode": "offline"},
            },
            "headline": "rotations",
        },
        "noise": {
            "dataset": "cifar",
            "design": {"kind": "given", "model": GIVEN, "non_members": "others", "sample": 1000},
            "attacks": {"correctness": {"name": "threshold", "signal": "correctness"}, "noise": {"name": "label_only", "method": "noise"}},
            "headline": "noise",
        },
    },
    "device": "cpu",
    "figures": False,
}  # fmt: skip
DATA = """
import io, os
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

def _rows(first, n):
    rows = pq.read_table(os.path.join(os.environ["MEMLEAK_TEST_DATA"], "cifar10/train.parquet")).slice(first, n).to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]), np.array([row["label"] for row in rows])

def get_members():
    return _rows(0, 2500)

def get_others():
    return _rows(2500, 1000)

def get_shadow():
    return _rows(3500, 5000)
"""
MODEL = """
from torch import nn

def get_model():
    layers, before = [], 3
    for after in (32, 64, 128):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))
"""


def _trained(data, model) -> tuple[dict[str, torch.Tensor], float, float]:
    """Weights of a network that fits its records nearly perfectly; its accuracy on them, and on others."""
    torch.manual_seed(0)
    network, epochs, batch_size = model["get_model"](), 15, 64
    (images, labels), others = _tensors(*data["get_members"]()), _tensors(*data["get_others"]())
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=epochs * -(-len(labels) // batch_size))
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        accuracy = [float((network(x).argmax(1) == y).float().mean()) for x, y in ((images, labels), others)]
    return network.state_dict(), *accuracy


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.47) / 0.25, torch.from_numpy(labels)


@pytest.fixture(scope="module")
def audited(test_data, tmp_path_factory):
    """The folder of two audits of one overfitted network: with references, and of noise without any."""
    folder = tmp_path_factory.mktemp("label-only")
    code = {"my_data.py": DATA, "my_model.py": MODEL}
    known: dict[str, dict] = {}
    for name, text in code.items():
        (folder / name).write_text(textwrap.dedent(text))
        exec(text, known.setdefault(name, {}))
    weights, on_members, on_others = _trained(known["my_data.py"], known["my_model.py"])
    save_file(weights, folder / "target.safetensors")
    print(f"\naccuracy {on_members:.3f} on members, {on_others:.3f} on others")
    assert on_members > 0.98 and on_others < 0.65, "the network is not overfitted, and the test says nothing"
    began = time.perf_counter()
    memleak.audit(PARAMS, directory=folder)
    print(f"{time.perf_counter() - began:.0f} s for both audits")
    return folder


def _scores(folder, audit: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Scores of the audited model by one audit's attacks, a column each, and who is a member."""
    found = {}
    for path in sorted((folder / f"results/audits/{audit}/scores").glob("*.parquet")):
        scores = pd.read_parquet(path, columns=["sample_id", "score"]).dropna()  # references have none of their own
        found[path.stem] = scores.set_index("sample_id")["score"]
    table = pd.DataFrame(found)
    return table, table.index.to_numpy() < 2500  # the part of members comes first


@pytest.mark.parametrize(("audit", "attack"), [("fitted", "rotations"), ("fitted", "augmentation"), ("noise", "noise")])
def test_more_labels_tell_more_than_one(audited, audit, attack):
    """The paired interval of the AUC's difference to the correctness baseline lies above 0 (DeLong; of this one network)."""
    scores, is_member = _scores(audited, audit)
    for name in scores:
        auc = roc.auc_with_interval(scores[name].to_numpy(), is_member)
        difference = compare.delong(scores[name].to_numpy(), scores["correctness"].to_numpy(), is_member)
        print(
            f"{name:12s} AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]  less correctness {difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        )

    assert is_member.sum() == (~is_member).sum() == 1000
    assert compare.delong(scores[attack].to_numpy(), scores["correctness"].to_numpy(), is_member)["low"] > 0
