"""What is known of records beside input and label: columns to slice by, and the unit (a patient, a user) a record belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from memleak import artefacts, provenance

if TYPE_CHECKING:
    from memleak.data import Dataset

FILE = "columns.parquet"
RESERVED = "label"  # always a slice; a column of that name would be another thing
MOST_VALUES = 100  # of a column of text that is sliced by
_TEXTS = ("string", "empty")
_NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean")


class ColumnError(ValueError):
    """A column that is missing or cannot be used; the text says what was found and what is expected."""


def checked(columns: Mapping[str, Any], n: int, name: str) -> dict[str, np.ndarray]:
    """The columns as arrays [n] of truth values, integers, floats (NaN: missing) or text (None: missing)."""
    return {column: _checked(values, n, f"{name}: column {column}") for column, values in columns.items()}


def _checked(values: Any, n: int, where: str) -> np.ndarray:
    if where.endswith(f": column {RESERVED}"):
        raise ColumnError(f"{where}: this name stands for the label itself; call the column otherwise")
    array = _array(values)
    if array.shape != (n,):
        raise ColumnError(f"{where} has shape {array.shape}, expected one value for each of {n} records")
    if array.dtype.kind in "biuf":
        return array
    series = pd.Series(array.astype(object))
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in _TEXTS:
        return np.array([None if gap else value for value, gap in zip(series, series.isna(), strict=True)], dtype=object)
    if kind in _NUMBERS:
        return series.to_numpy(dtype=np.float64, na_value=np.nan) if series.isna().any() else np.array(series.tolist())
    raise ColumnError(f"{where} holds {kind} values, expected text, integers, floats or truth values; turn them into text")


def _array(values: Any) -> np.ndarray:
    """An array as it is; lists by pandas, since NumPy makes the text `nan` of a gap between texts."""
    return values if isinstance(values, np.ndarray) else pd.Series(values).to_numpy()


def concatenated(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns that all parts of a data set have, one part after the other."""
    return {name: np.concatenate([_array(part[name]) for part in parts]) for name in parts[0] if all(name in part for part in parts)}


def write(folder: Path, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write the columns beside the arrays; returns their names and the file's SHA-256."""
    artefacts.write_table(folder / FILE, pd.DataFrame(dict(columns)))
    return {"names": list(columns), "sha256": provenance.file_sha256(folder / FILE)}


def read(description: Path, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns beside a prepared data set's description; a file that is not the described one is refused."""
    known, file = facts.get("columns"), description.parent / FILE
    if known is None:
        return {}
    table = artefacts.read_table(file, known["names"])
    if provenance.file_sha256(file) != known["sha256"]:
        raise artefacts.ArtefactError(f"{file}: not the content that {description.name} describes; delete {description} and run again")
    return {name: table[name].to_numpy() for name in known["names"]}


def column(columns: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    """A column by name, [N]; one that is not there is answered with those that are."""
    if name in columns:
        return columns[name]
    there = f"it has {', '.join(columns)}" if columns else "it has none (a plug-in gives them as Samples(..., columns={...}))"
    raise ColumnError(f"{where}: the data set has no column '{name}'; {there}")


def text_of(values: np.ndarray) -> np.ndarray:
    """The values as text, [N], whole floats without a point; None where one is missing or blank."""
    series = pd.Series(values)
    if series.dtype.kind == "f":
        return np.array([None if np.isnan(x) else str(int(x)) if x == np.floor(x) and np.isfinite(x) else str(x) for x in values], dtype=object)
    return np.array([None if pd.isna(x) or not str(x).strip() else str(x).strip() for x in series], dtype=object)


def units_of(columns: Mapping[str, np.ndarray], unit: str, where: str) -> np.ndarray:
    """The unit of each record as text, [N]; refused where some records have none."""
    names = text_of(column(columns, unit, f"{where}: unit"))
    n_missing = sum(name is None for name in names)
    if n_missing:
        raise ColumnError(f"{where}: unit: column {unit} is missing in {n_missing:,} of {len(names):,} records; fill it, or drop those records")
    return names


def of_audit(dataset: Dataset, slices: Sequence[str], where: str) -> dict[str, np.ndarray]:
    """What an audit tells of its samples beside label and group, [N] each: their unit, and the columns that they are sliced by."""
    found = {}
    if "unit" in dataset.facts:
        found["unit"] = units_of(dataset.columns, dataset.facts["unit"]["column"], dataset.facts["name"])
    for name in slices:
        if name == RESERVED:
            continue
        values = column(dataset.columns, name, where)
        n = len(pd.unique(pd.Series(values)))
        if values.dtype == object and n > MOST_VALUES:
            raise ColumnError(f"{where}: column {name} has {n:,} different texts, at most {MOST_VALUES} make slices; choose a coarser column")
        found[artefacts.SLICE + name] = values
    return found


def joined_groups(content: np.ndarray, units: np.ndarray, where: str) -> tuple[np.ndarray, dict[str, int]]:
    """A group for all records of a unit and all of equal content, numbered by first appearance, [N]; and how many units there are.

    Groups are connected components: two units that share a record of equal content are one, since a model that
    holds the one has seen something of the other. `n_joined` counts the units that are joined to others so.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    code = pd.factorize(units)[0]
    n_units = int(code.max()) + 1
    ends = code, n_units + np.unique(content, return_inverse=True)[1]
    size = int(ends[1].max()) + 1
    _, component = connected_components(coo_array((np.ones(len(code)), ends), shape=(size, size)), directed=False)
    of_unit = component[:n_units]
    if len(np.unique(of_unit)) < 2:
        raise ColumnError(
            f"{where}: unit: the {n_units:,} units are one, joined by records of equal content; units that differ are needed, some to train on and some not to"
        )
    n_joined = int((np.bincount(of_unit)[of_unit] > 1).sum())
    return pd.factorize(component[code])[0].astype(np.int64), {"n": n_units, "n_joined": n_joined}
