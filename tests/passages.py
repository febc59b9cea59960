"""Small data sets of texts, prepared without the stage `data`, for tests of models that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import records, tiny_tokenizer

from memleak.data import Dataset
from memleak.params import Recipe

LENGTH = 40  # tokens that are read: many texts are longer
GPT2 = {
    "architecture": "gpt2", "epochs": 2, "batch_size": 8, "optimizer": "adamw", "learning_rate": 0.003,
    "text": {"layers": 1, "width": 16, "heads": 2, "max_length": LENGTH},
}  # fmt: skip
CHECKPOINT = GPT2 | {"architecture": "checkpoint"}
PRIVATE = {"noise_multiplier": 1.0, "clip": 1.0, "delta": 1e-5, "accountant": "rdp"}


def passages(folder: Path, n: int = 60, labels: np.ndarray | None = None, texts: list[str] | None = None) -> Dataset:
    """Notes about made-up patients, no two alike, with a tokenizer of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(dict.fromkeys(records(3 * n)))[:n] if texts is None else texts
    tiny_tokenizer(found).backend_tokenizer.save(str(folder / "tokenizer.json"))
    known = np.zeros(len(found), dtype=np.int64) if labels is None else labels
    facts = {"kind": "text", "sha256": {"inputs": str(hash(tuple(found)))}, "n_classes": int(known.max()) + 1, "shape": []}
    each = np.arange(len(found))
    return Dataset(folder / "dataset.json", facts, np.array(found, dtype=object), known, each, each)


def gpt2_recipe(**changed: Any) -> Recipe:
    text = GPT2["text"] | changed.pop("text", {})  # type: ignore[operator]
    return Recipe(**GPT2 | {"text": text} | changed)  # type: ignore[arg-type]


def checkpoint_recipe(folder: Path, lora: dict[str, Any] | None = None, task: str = "causal-lm", **changed: Any) -> Recipe:
    text = {"checkpoint": str(folder), "max_length": LENGTH, "task": task, "lora": lora}
    return Recipe(**CHECKPOINT | {"text": text | changed.pop("text", {})} | changed)  # type: ignore[arg-type]
