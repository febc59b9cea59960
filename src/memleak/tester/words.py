"""Classifiers of tokens are asked about texts whose words have labels: signals as of any classifier, means over the labelled words of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memleak.data import Dataset
from memleak.designs import Audited, Roster
from memleak.models.hub import Checkpoint
from memleak.models.tokens import encode
from memleak.signals.language import asking, classifiers, gradients
from memleak.signals.tables import write_signals

Labels = Sequence[Sequence[Any]]  # of the words of each text


def query(
    name: str, checkpoint: Checkpoint, dataset: Dataset, labels: Labels | None, roster: Roster, asked: Mapping[str, Any], known: Audited | None,
    output: Path, token_budget: int | None = None,
) -> int:  # fmt: skip
    """Write what the user's classifier says about texts; `labels` by the rows of the data set. Returns the rows."""
    texts = list(dataset.inputs[roster.source_id])
    of_words = None if labels is None else [labels[row] for row in roster.source_id]
    said = classifiers.ask(checkpoint, texts, of_words, token_budget)
    few = classifiers.ask(checkpoint, texts[: asking.ASKED_AGAIN], of_words and of_words[: asking.ASKED_AGAIN], token_budget)
    facts = {
        "model_id": name, "engine": "given", "torch": torch.__version__, **asking.described(checkpoint),
        "is_repeatable": all(np.allclose(few[key], said[key][: len(few[key])], rtol=1e-3, atol=1e-3) for key in few),
    }  # fmt: skip
    for part, rows in (("train", known.members), ("test", known.non_members)) if known is not None else ():
        here = np.searchsorted(roster.sample_id, rows)
        means = {
            f"{part}_{key}": float(said[column][here].mean()) for key, column in (("accuracy", "is_correct"), ("loss", "loss")) if column in said
        }
        facts |= {f"n_{part}": len(rows), **means}
    said |= {entry["column"]: norms(checkpoint, texts, of_words or []).whole for entry in asked.get("signals", ())}
    columns = {key: values.astype(np.float32)[None, :, None] for key, values in said.items()}
    write_signals(output, columns, roster, {"recipe": name, "shard": "given", "models": [facts]})
    return len(roster)


def norms(checkpoint: Checkpoint, texts: Sequence[str], labels: Labels) -> gradients.Norms:
    """Norms of the gradients of texts with labelled words."""
    encoded = encode(checkpoint.tokenizer, texts, checkpoint.max_length)
    numbers = classifiers.word_labels(checkpoint.tokenizer, texts, labels, encoded, checkpoint.network.config)
    return gradients.norms(checkpoint.network, checkpoint.task, encoded, labels=numbers)
