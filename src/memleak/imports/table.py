"""A plain table, Parquet or CSV: one row for what a model says of a sample.

Columns: model_id, sample_id, is_member, and margin or loss (nats) or logits (a list; needs `label`). Optional: view
(without it, one row for each model and sample), label, group_id, target (whether the model is audited).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from memleak.imports.run import Run, RunError, made
from memleak.signals.classifier import all_signals

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv")
KEYS = ("model_id", "sample_id", "is_member")
ANSWERS = ("logits", "margin", "loss")  # the first that is there is read, the others follow from it
OPTIONAL = ("view", "label", "group_id", "target")


def read(source: Path, labels: Path | None = None) -> Run:
    """The models of a table."""
    if labels is not None:
        raise RunError(f"{labels}: a table has its labels in a column `label`; leave --labels out")
    table = _table(source)
    answer = _answer(table, source)
    for column in (*KEYS, *(name for name in OPTIONAL if name in table)):
        if (n := int(table[column].isna().sum())) > 0:
            raise RunError(f"{source}: {column} is missing in {n:,} rows, first in row {int(table[column].isna().argmax())}; fill it")
    grid = _Grid.of(table, source)
    is_member = grid.same_in_all(_truth(table["is_member"], source), "is_member", ("model", "sample"))
    label = grid.same_in_all(_whole(table["label"], source), "label", ("sample",)) if "label" in table else None
    group = grid.same_in_all(pd.factorize(table["group_id"])[0], "group_id", ("sample",)) if "group_id" in table else None
    target = grid.same_in_all(_truth(table["target"], source), "target", ("model",)) if "target" in table else None
    signals, notes = _signals(table[answer], answer, grid, label, source)
    return made(grid.model_id, grid.sample_id, is_member, signals, where=str(source), label=label, group_id=group, is_target=target, notes=notes)


def _table(path: Path) -> pd.DataFrame:
    if path.suffix.lower() not in SUFFIXES:
        raise RunError(f"{path}: a file ending in '{path.suffix}'; expected one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
        wanted = {*KEYS, *ANSWERS, *OPTIONAL}
        names = pq.read_schema(path).names
        return pq.read_table(path, columns=[name for name in names if name in wanted] or names).to_pandas()
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file (looked in {Path.cwd()})") from None
    except (pa.ArrowInvalid, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise RunError(f"{path}: truncated or not a table ({str(error).splitlines()[0]}); expected Parquet or CSV") from None


def _answer(table: pd.DataFrame, path: Path) -> str:
    absent = [name for name in KEYS if name not in table]
    answer = next((name for name in ANSWERS if name in table), None)
    if absent or answer is None:
        lacking = absent + ([] if answer else ["margin, loss or logits"])
        raise RunError(
            f"{path}: has no column {' and '.join(lacking)}; found {', '.join(map(str, table)) or 'none'}; "
            "expected model_id, sample_id, is_member, and margin, loss or logits"
        )
    if not len(table):
        raise RunError(f"{path}: the table has no rows; expected one for each model and sample")
    if answer == "logits" and "label" not in table:
        rest = next((name for name in ANSWERS[1:] if name in table), None)
        if rest is None:
            raise RunError(f"{path}: logits say nothing without labels; add a column label, or give margin instead")
        return rest
    return answer


class _Grid:
    """Where each row of a table stands among models, samples and views."""

    def __init__(self, codes: Sequence[np.ndarray], names: Sequence[np.ndarray], source: Path) -> None:
        self.codes, (self.model_id, self.sample_id, self.view) = codes, names
        self.shape, self.source = tuple(len(values) for values in names), source
        self.place = np.ravel_multi_index(tuple(codes), self.shape)

    @classmethod
    def of(cls, table: pd.DataFrame, source: Path) -> _Grid:
        """Models in order of appearance, samples and views sorted; every model must have been asked once about every sample in every view."""
        model, model_id = pd.factorize(table["model_id"])
        sample, sample_id = pd.factorize(table["sample_id"], sort=True)
        view, views = pd.factorize(table["view"], sort=True) if "view" in table else (np.zeros(len(table), dtype=np.int64), np.zeros(1))
        grid = cls((model, sample, view), (np.asarray(model_id), np.asarray(sample_id), np.asarray(views)), source)
        counts = np.bincount(grid.place, minlength=int(np.prod(grid.shape)))
        for n, what, todo in (
            (counts == 0, "missing", "ask every model about every sample in every view"),
            (counts > 1, "there several times", "give each once, or tell them apart by a column view"),
        ):
            if n.any():
                raise RunError(f"{source}: {int(n.sum()):,} of {n.size:,} answers are {what}, first {grid.name_of(int(n.argmax()))}; {todo}")
        return grid

    def name_of(self, place: int) -> str:
        row = np.unravel_index(place, self.shape)
        text = f"model {self.model_id[row[0]]}, sample {self.sample_id[row[1]]}"
        return text if self.shape[2] == 1 else f"{text}, view {self.view[row[2]]}"

    def filled(self, values: np.ndarray) -> np.ndarray:
        """Values of the rows as [M, N, Q]."""
        found = np.empty((int(np.prod(self.shape)), *values.shape[1:]), values.dtype)
        found[self.place] = values
        return found.reshape(*self.shape, *values.shape[1:])

    def same_in_all(self, values: np.ndarray, column: str, of: tuple[str, ...]) -> np.ndarray:
        """A column that is one value for each model, sample, or both: [M], [N] or [M, N]."""
        whole = self.filled(values)
        axes = {("model", "sample"): (2,), ("sample",): (0, 2), ("model",): (1, 2)}[of]
        least, most = whole.min(axis=axes), whole.max(axis=axes)
        if (least != most).any():
            differs = np.argwhere(least != most)
            names = {"model": self.model_id, "sample": self.sample_id}
            first = ", ".join(f"{name} {names[name][place]}" for name, place in zip(of, differs[0], strict=True))
            raise RunError(
                f"{self.source}: {column} differs between rows of {len(differs):,} {' and '.join(of)}s, first {first}; it must be the same"
            )
        return least


def _truth(column: pd.Series, path: Path) -> np.ndarray:
    if column.dtype == bool:
        return column.to_numpy()
    texts = column.astype("string").str.strip().str.lower().str.removesuffix(".0")
    values = texts.map({"true": 1, "false": 0, "1": 1, "0": 0})
    if values.isna().any():
        row = int(values.isna().argmax())
        raise RunError(
            f"{path}: {column.name} is neither true or false nor 1 or 0 in {int(values.isna().sum()):,} rows, first {column.iloc[row]!r} in row {row}"
        )
    return values.to_numpy(dtype=bool)


def _whole(column: pd.Series, path: Path) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) | (values != np.floor(values)) | (values < 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise RunError(f"{path}: {column.name} is no class number (0, 1 ...) in {int(wrong.sum()):,} rows, first {column.iloc[row]!r} in row {row}")
    return values.astype(np.int64)


def _signals(column: pd.Series, answer: str, grid: _Grid, label: np.ndarray | None, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every signal that the answers tell, [M, N, Q], and notes."""
    if answer == "logits":
        return _of_logits(column, grid, label, path), []
    own = pd.to_numeric(column, errors="coerce")
    values = own.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise RunError(
            f"{path}: {int((~np.isfinite(values)).sum()):,} of {len(values):,} values of {answer} are not finite numbers, "
            f"first {column.iloc[row]!r} in row {row} ({grid.name_of(int(grid.place[row]))}); drop that model or sample"
        )
    if answer == "margin":
        loss, margin, notes = np.logaddexp(0.0, -values), values, []
    else:
        margin, loss, notes = (*_of_losses(values, own.dtype, path),)
    return {name: grid.filled(array.astype(np.float32)) for name, array in (("margin", margin), ("loss", loss))}, notes


def _of_losses(loss: np.ndarray, dtype: np.dtype, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Margins of losses. A loss of 0 stands for a probability that rounded to 1: it becomes the least that its type can tell from it."""
    if loss.min() < 0:
        row = int(loss.argmin())
        raise RunError(
            f"{path}: {int((loss < 0).sum()):,} losses are negative, the least {loss[row]:g} in row {row}; expected -log p of the label, in nats"
        )
    least = float(np.finfo(dtype).epsneg) if np.issubdtype(dtype, np.floating) else float(np.finfo(np.float64).epsneg)
    n = int((loss < least).sum())
    notes = [f"{n:,} of {len(loss):,} losses are 0, to {dtype}: their margins end at {-np.log(least):.1f} nats, where samples tie."] if n else []
    loss = np.maximum(loss, least)
    return -loss - np.log(-np.expm1(-loss)), loss, notes


def _of_logits(column: pd.Series, grid: _Grid, label: np.ndarray | None, path: Path) -> dict[str, np.ndarray]:
    rows = [json.loads(row) if isinstance(row, str) else row for row in column]
    lengths = {len(row) for row in rows if row is not None} | ({0} if any(row is None for row in rows) else set())
    if len(lengths) != 1:
        raise RunError(f"{path}: rows of logits have {min(lengths)} to {max(lengths)} values; expected one a class in every row")
    logits = grid.filled(np.array([np.asarray(row) for row in rows], dtype=np.float64))
    assert label is not None  # `_answer` saw to it
    try:
        found = all_signals(logits, np.broadcast_to(label[None, :, None], logits.shape[:3]))
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    return found | {"logits": logits.astype(np.float32)}
