"""Which layers' gradients tell members from others: a hint at where a network holds its training records, and no more, since many layers are many looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from memleak import randomness
from memleak.metrics import texts as controls
from memleak.models.hub import Checkpoint
from memleak.models.tokens import encode
from memleak.signals.language import classifiers, gradients
from memleak.tester import words
from memleak.tester.texts import IMAGES, TOKENS, Sides, Texts

MOST = 200  # records of a side whose gradients are taken
SHOWN = 0.05  # Holm-corrected p, over all layers


def measured(checkpoint: Checkpoint, sides: Sides, samples: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The AUC of minus the gradient's norm in each layer, with interval and Holm-corrected p, in the network's order.

    `samples`: row (members first, then the others), is_member and group_id of each audited record. `outstanding` is the layer
    that tells most, where it tells at all and its interval lies above the median of all layers.
    """
    chosen = pd.concat([_some(samples[samples["is_member"] == truth], seed, name) for truth, name in ((True, "members"), (False, "others"))])
    norms = norms_of(checkpoint, sides, chosen["row"].to_numpy())
    by_name = {name: -values.astype(np.float64) for name, values in zip(norms.layers, norms.by_layer.T, strict=True) if np.ptp(values) > 0}
    truth = chosen["is_member"].to_numpy(dtype=bool)
    rows = [{"name": name, **one} for name, one in controls.aucs(by_name, truth, chosen["group_id"].to_numpy()).items()]
    return {"rows": rows, "n_members": int(truth.sum()), "n_non_members": int((~truth).sum()), **_outstanding(rows)}


def norms_of(checkpoint: Checkpoint, sides: Sides, rows: np.ndarray) -> gradients.Norms:
    """Gradient norms of some records, by layer."""
    known = _picked(sides, rows)
    if checkpoint.task == TOKENS:
        return words.norms(checkpoint, known.text, known.label or ())
    labels = None if known.label is None else classifiers.label_ids(known.label, checkpoint.network.config)
    if checkpoint.task == IMAGES:
        assert labels is not None
        return gradients.image_norms(checkpoint.network, known.image, labels, checkpoint.processor)
    mask_id = getattr(checkpoint.tokenizer, "mask_token_id", None)
    return gradients.norms(
        checkpoint.network, checkpoint.task, encode(checkpoint.tokenizer, known.text, checkpoint.max_length), labels=labels, mask_id=mask_id
    )


def _some(samples: pd.DataFrame, seed: int, side: str) -> pd.DataFrame:
    drawn = randomness.generator(seed, "layers", side).permutation(len(samples))[:MOST]
    return samples.iloc[np.sort(drawn)]


def _picked(sides: Sides, rows: np.ndarray) -> Texts:
    """The records of some rows of both sides, members first; labels where both sides have some."""
    parts = (sides.members, sides.non_members)
    text, image = (tuple(value for part in parts for value in values(part)) for values in (lambda part: part.text, lambda part: part.image))
    label = None if None in (parts[0].label, parts[1].label) else tuple(value for part in parts for value in part.label or ())
    return Texts(text, text, label, image).kept(np.isin(np.arange(len(text)), rows))


def _outstanding(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"outstanding": None, "median": None}
    best, median = max(rows, key=lambda row: row["auc"]["value"]), float(np.median([row["auc"]["value"] for row in rows]))
    stands_out = len(rows) > 1 and best["p"] <= SHOWN and best["auc"]["low"] > max(0.5, median)
    return {"outstanding": best["name"] if stands_out else None, "median": median}
