"""The texts that a user brings: strings, mappings or rows of a table; checked, and both sides made apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.data import overlap

Given: TypeAlias = Iterable[str | Mapping[str, Any]] | pd.DataFrame | pd.Series


class TextsError(ValueError):
    """Texts that cannot be audited; the text says which, and what to do."""


@dataclass(frozen=True)
class Texts:
    """The texts of one side, their names, and their labels where they have some."""

    text: tuple[str, ...]
    id: tuple[str, ...]
    label: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.text)

    def kept(self, is_kept: np.ndarray) -> Texts:
        """Those of some rows [n]."""
        rows = np.flatnonzero(is_kept)
        label = None if self.label is None else tuple(self.label[row] for row in rows)
        return Texts(tuple(self.text[row] for row in rows), tuple(self.id[row] for row in rows), label)

    def write(self, path: Path, labels: Sequence[int] | None) -> None:
        """Write them as the data set `text` reads them."""
        table = pd.DataFrame({"text": list(self.text)}, dtype=object)
        artefacts.write_table(path, table if labels is None else table.assign(label=np.asarray(labels, dtype=np.int64)))


def read(given: Given, labels: Sequence[Any] | None, side: str) -> Texts:
    """One side's texts. `labels` beside them go before a column or key `label`; without an id a text is called by its place."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TextsError(f"{side} is one {type(given).__name__}; give a list of texts, even where it has one")
    rows = given.to_dict("records") if isinstance(given, pd.DataFrame) else list(given)
    if not rows:
        raise TextsError(f"{side} is empty; give texts that the model was {'trained on' if side == 'train_data' else 'not trained on'}")
    found = [_row(row, place, side) for place, row in enumerate(rows)]
    if labels is not None and len(labels) != len(found):
        raise TextsError(f"{side} has {len(found)} texts and {len(labels)} labels; give one label a text")
    own = tuple(row.get("label") for row in found) if labels is None else tuple(labels)
    known = [label is not None and label == label for label in own]
    if any(known) and not all(known):
        raise TextsError(f"{side}[{known.index(False)}] has no label, and others have; label all texts or none")
    name = side.partition("_")[0]
    ids = tuple(str(row.get("id", f"{name}-{place}")) for place, row in enumerate(found))
    return Texts(tuple(row["text"] for row in found), ids, own if all(known) else None)


def _row(row: Any, place: int, side: str) -> Mapping[str, Any]:
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, Mapping):
        raise TextsError(f"{side}[{place}] is {type(row).__name__}, expected a string, or a mapping with the key 'text'")
    if "text" not in row:
        raise TextsError(f"{side}[{place}] has no 'text'; found {', '.join(map(str, row)) or 'nothing'}")
    if not isinstance(row["text"], str):
        raise TextsError(f"{side}[{place}]: its text is {type(row['text']).__name__}, expected a string")
    return row


@dataclass(frozen=True)
class Sides:
    """Both sides made apart, and what was left out on the way."""

    members: Texts
    non_members: Texts
    containment: np.ndarray  # of every test text that was given, the share of its word sequences that stand in training texts
    n_overlap: int  # test texts that equal a training text
    n_near: int  # that stand in one, or it in them, to 80 % or more
    n_short: int  # of both sides, without two tokens


def apart(members: Texts, non_members: Texts, on_overlap: str) -> Sides:
    """Leave out test texts that the model was trained on after all. `on_overlap`: drop, warn (drop and say so) or error."""
    if on_overlap not in ("drop", "warn", "error"):
        raise TextsError(f"on_overlap: '{on_overlap}' is unknown; it is drop, warn or error")
    both, n = [*members.text, *non_members.text], len(members)
    is_equal, is_near = (np.isin(group[n:], group[:n]) for group in (overlap.equals(both), overlap.near_duplicates(both)))
    contained = overlap.containment(non_members.text, members.text)
    is_twin = is_equal | is_near | (contained >= overlap.NEAR)
    said = f"{int(is_twin.sum())} of {len(non_members)} test texts repeat training texts ({int(is_equal.sum())} word for word), first {non_members.id[int(is_twin.argmax())]}"
    if is_twin.any() and on_overlap == "error":
        raise TextsError(f"{said}; whoever trained on its twin has seen it: remove them, or use on_overlap='drop'")
    if is_twin.any() and on_overlap == "warn":
        warnings.warn(f"{said}; they were left out", stacklevel=4)
    if is_twin.all():
        raise TextsError(f"{said}, so that none is left; bring texts that the model was not trained on")
    return Sides(members, non_members.kept(~is_twin), contained, int(is_equal.sum()), int((is_twin & ~is_equal).sum()), 0)


def without_short(sides: Sides, is_long: Sequence[np.ndarray]) -> Sides:
    """Leave out texts in which no token can be scored, by side [n]."""
    kept = [texts.kept(long) for texts, long in zip((sides.members, sides.non_members), is_long, strict=True)]
    for texts, side in zip(kept, ("train_data", "test_data"), strict=True):
        if not len(texts):
            raise TextsError(f"{side} has no text of two tokens or more; the first token of a text is not scored: give longer texts")
    return replace(sides, members=kept[0], non_members=kept[1], n_short=int(sum((~long).sum() for long in is_long)))
