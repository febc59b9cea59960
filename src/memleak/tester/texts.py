"""The records that a user brings, texts or images: strings, mappings, rows of a table, pictures; checked, and both sides made apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.data import overlap
from memleak.params.texts import looks_local
from memleak.signals import SignalError
from memleak.tester import images

Given: TypeAlias = Iterable[Any] | pd.DataFrame | pd.Series
TOKENS, IMAGES = "token-classification", "image-classification"
OF_WORDS = ("labels", "ner_tags", "label")  # keys of the labels of a text's words


class TextsError(ValueError):
    """Texts that cannot be audited; the text says which, and what to do."""


@dataclass(frozen=True)
class Texts:
    """The texts of one side, their names, and their labels where they have some: one a text, or of tokens one a word."""

    text: tuple[str, ...]  # of an image its size
    id: tuple[str, ...]
    label: tuple[Any, ...] | None = None
    image: tuple[np.ndarray, ...] = ()  # uint8 [H, W, 3], where they are images

    def __len__(self) -> int:
        return len(self.text)

    @property
    def n_repeated(self) -> int:
        """How many equal one before them, word for word or pixel for pixel."""
        return len(self) - len({(image.shape, image.tobytes()) for image in self.image} if self.image else set(self.text))

    def kept(self, is_kept: np.ndarray) -> Texts:
        """Those of some rows [n]."""
        rows = np.flatnonzero(is_kept)
        label = None if self.label is None else tuple(self.label[row] for row in rows)
        return Texts(
            tuple(self.text[row] for row in rows), tuple(self.id[row] for row in rows), label, tuple(self.image[row] for row in rows if self.image)
        )

    def write(self, path: Path, labels: Sequence[int] | None) -> None:
        """Write them as the data set `text`, or the one of images, reads them."""
        if self.image:
            return images.write(path, self.image, labels)
        table = pd.DataFrame({"text": list(self.text)}, dtype=object)
        artefacts.write_table(path, table if labels is None else table.assign(label=np.asarray(labels, dtype=np.int64)))


def read(given: Given, labels: Sequence[Any] | None, side: str, task: str = "causal-lm") -> Texts:
    """One side's records. `labels` beside them go before a column or key `label`; without an id one is called by its place."""
    if isinstance(given, Path) or (isinstance(given, str) and looks_local(given)):
        raise TextsError(
            f"{side} is a path ({given}); read the file first and give its texts, as in pandas.read_csv(path)['text'], or use `memleak tester`"
        )
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TextsError(f"{side} is one {type(given).__name__}; give a list of texts, even where it has one")
    rows = given.to_dict("records") if isinstance(given, pd.DataFrame) else list(given)
    if not rows:
        raise TextsError(f"{side} is empty; give texts that the model was {'trained on' if side == 'train_data' else 'not trained on'}")
    found = [_ROWS.get(task, _row)(row, place, side) for place, row in enumerate(rows)]
    if labels is not None and len(labels) != len(found):
        raise TextsError(f"{side} has {len(found)} texts and {len(labels)} labels; give one label a text")
    if not any(row["text"].strip() for row in found):
        raise TextsError(f"{side}: all of its {len(found)} texts are empty; give texts with words")
    own = tuple(row.get("label") for row in found) if labels is None else tuple(labels)
    if task == TOKENS:
        own = tuple(None if label is None else _of_words(label, row, place, side) for place, (label, row) in enumerate(zip(own, found, strict=True)))
    known = [label is not None and label == label for label in own]
    if any(known) and not all(known):
        raise TextsError(f"{side}[{known.index(False)}] has no label, and others have; label all texts or none")
    name = side.partition("_")[0]
    ids = tuple(str(row.get("id", f"{name}-{place}")) for place, row in enumerate(found))
    return Texts(tuple(row["text"] for row in found), ids, own if all(known) else None, tuple(row["image"] for row in found if "image" in row))


def _row(row: Any, place: int, side: str) -> Mapping[str, Any]:
    if isinstance(row, str):
        row = {"text": row}
    if _is_missing(row.get("text", "") if isinstance(row, Mapping) else row):
        raise TextsError(f"{side}[{place}] is a missing value ({row!r:.60}); leave it out, as dropna() of pandas does")
    if not isinstance(row, Mapping):
        raise TextsError(f"{side}[{place}] is {type(row).__name__}, expected a string, or a mapping with the key 'text'")
    if "text" not in row:
        raise TextsError(f"{side}[{place}] has no 'text'; found {', '.join(map(str, row)) or 'nothing'}")
    if not isinstance(row["text"], str):
        raise TextsError(f"{side}[{place}]: its text is {type(row['text']).__name__}, expected a string")
    return row


def _is_missing(value: Any) -> bool:
    return value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _row_of_words(row: Any, place: int, side: str) -> Mapping[str, Any]:
    """A text whose words may have labels: a list of words, a string, or a mapping with `tokens` or `text`."""
    known = dict(row) if isinstance(row, Mapping) else {"text" if isinstance(row, str) else "tokens": row}
    words = known.pop("tokens", None)
    if words is not None:
        if not isinstance(words, (list, tuple, np.ndarray)) or not all(isinstance(word, str) and len(word.split()) == 1 for word in words):
            raise TextsError(f"{side}[{place}]: expected a list of words, each without blanks, or a mapping with the key 'tokens' or 'text'")
        known["text"] = " ".join(words)
    known["label"] = next((known[key] for key in OF_WORDS if known.get(key) is not None), None)
    return _row(known, place, side)


def _of_words(label: Any, row: Mapping[str, Any], place: int, side: str) -> tuple[Any, ...]:
    n = len(row["text"].split())
    if isinstance(label, str) or not hasattr(label, "__len__") or len(label) != n:
        raise TextsError(f"{side}[{place}] has {n} words and as labels {label!r:.60}; give a list with one label a word, -100 where it has none")
    return tuple(label)


def _row_of_image(row: Any, place: int, side: str) -> Mapping[str, Any]:
    """An image: of PIL, an array, a pair (image, label), or a mapping with `image`."""
    if isinstance(row, tuple) and len(row) == 2:
        row = {"image": row[0], "label": row[1]}
    known = dict(row) if isinstance(row, Mapping) else {"image": row}
    if "image" not in known:
        raise TextsError(f"{side}[{place}] has no 'image'; found {', '.join(map(str, known)) or 'nothing'}")
    try:
        known["image"] = images.stored(known["image"])
    except (SignalError, TypeError, ValueError) as error:
        raise TextsError(f"{side}[{place}]: {error}") from None
    return known | {"text": "image of {} x {}".format(*known["image"].shape[:2])}


_ROWS: dict[str, Callable[[Any, int, str], Mapping[str, Any]]] = {TOKENS: _row_of_words, IMAGES: _row_of_image}


@dataclass(frozen=True)
class Sides:
    """Both sides made apart, and what was left out on the way."""

    members: Texts
    non_members: Texts
    containment: np.ndarray | None  # of every test text that was given, the share of its word sequences that stand in training texts; not of images
    n_overlap: int  # test texts that equal a training text
    n_near: int  # that stand in one, or it in them, to 80 % or more
    n_short: int  # of both sides, without two tokens


def apart(members: Texts, non_members: Texts, on_overlap: str) -> Sides:
    """Leave out test texts that the model was trained on after all. `on_overlap`: drop, warn (drop and say so) or error."""
    if on_overlap not in ("drop", "warn", "error"):
        raise TextsError(f"on_overlap: '{on_overlap}' is unknown; it is drop, warn or error")
    is_equal, is_twin, contained = _twins(members, non_members)
    what, how = ("images", "pixel for pixel") if members.image else ("texts", "word for word")
    said = f"{int(is_twin.sum())} of {len(non_members)} test {what} repeat training {what} ({int(is_equal.sum())} {how}), first {non_members.id[int(is_twin.argmax())]}"
    if is_twin.any() and on_overlap == "error":
        raise TextsError(f"{said}; whoever trained on its twin has seen it: remove them, or use on_overlap='drop'")
    if is_twin.any() and on_overlap == "warn":
        warnings.warn(f"{said}; they were left out", stacklevel=4)
    if is_twin.all():
        raise TextsError(f"{said}, so that none is left; bring texts that the model was not trained on")
    return Sides(members, non_members.kept(~is_twin), contained, int(is_equal.sum()), int((is_twin & ~is_equal).sum()), 0)


def _twins(members: Texts, non_members: Texts) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Which test records equal a training record, which do nearly, [n] each; and how much of each text stands in training texts."""
    if members.image:
        seen = {(image.shape, image.tobytes()) for image in members.image}
        is_equal = np.array([(image.shape, image.tobytes()) in seen for image in non_members.image])
        return is_equal, is_equal, None
    both, n = [*members.text, *non_members.text], len(members)
    is_equal, is_near = (np.isin(group[n:], group[:n]) for group in (overlap.equals(both), overlap.near_duplicates(both)))
    contained = overlap.containment(non_members.text, members.text)
    return is_equal, is_equal | is_near | (contained >= overlap.NEAR), contained


def without_short(sides: Sides, is_long: Sequence[np.ndarray]) -> Sides:
    """Leave out texts in which no token can be scored, by side [n]."""
    kept = [texts.kept(long) for texts, long in zip((sides.members, sides.non_members), is_long, strict=True)]
    for texts, side in zip(kept, ("train_data", "test_data"), strict=True):
        if not len(texts):
            raise TextsError(f"{side} has no text of two tokens or more; the first token of a text is not scored: give longer texts")
    return replace(sides, members=kept[0], non_members=kept[1], n_short=int(sum((~long).sum() for long in is_long)))
