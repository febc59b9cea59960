"""Texts: read from the usual files, checked, and looked at as a data set looks at its records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from memleak import params
from memleak.data import DataError, Samples

COLUMN, LABEL = "text", "label"
SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".txt")
N_LOOKS = 64  # numbers that a text is compared by where its neighbours are sought
_N_HASHED = 2**16
_MOST_SHOWN = 5  # records that an error names


def load(source: str | None, column: str = COLUMN) -> Samples:
    """The texts of a file, or of a folder of files of one kind, object [N]; the column `label` where there is one.

    Parquet, CSV, TSV, JSON lines, a JSON list, or plain text, a text a line. Other columns of text and numbers are kept
    beside the texts, to slice by and for `unit`.
    """
    if source is None:
        raise DataError(f"text: no source; name a file of texts ({', '.join(SUFFIXES)}), or a folder of them")
    tables = [_read(file, column) for file in _files(Path(source))]
    names = next((names for _, names in tables if names), ())
    return of_table(pd.concat([table for table, _ in tables], join="inner", ignore_index=True), source, column, names)


def of_table(table: pd.DataFrame, name: str, column: str = COLUMN, class_names: Sequence[str] = ()) -> Samples:
    """The texts of a table's column, the labels of its column `label`, and whatever else it knows of the records."""
    if column not in table:
        raise DataError(f"{name}: there is no column {column}; it has {', '.join(map(str, table.columns)) or 'none'}; name one of them (column: ...)")
    if not len(table):
        raise DataError(f"{name}: there is no text in it; two or more are expected")
    if pd.api.types.is_numeric_dtype(table[column]) and table[column].notna().any():
        raise DataError(f"{name}: column {column} holds numbers ({table[column].dtype}), expected texts")
    labels, names = labels_of(table.get(LABEL), len(table), name)
    return Samples(
        array_of(table[column]), labels, names or tuple(class_names), columns=_others(table.drop(columns=[column, LABEL], errors="ignore"))
    )


def is_text(inputs: Any) -> bool:
    """Whether inputs are texts: a list, series or array of which any value is one."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and (inputs.dtype.kind in "UT" or (inputs.dtype == object and any(isinstance(value, str) for value in inputs)))
    return isinstance(inputs, (list, tuple, pd.Series)) and any(isinstance(value, str) for value in inputs)


def array_of(values: Iterable[Any]) -> np.ndarray:
    """Texts as an array of Python's own, object [N]."""
    found = list(values)
    array = np.empty(len(found), dtype=object)
    array[:] = [str(value) if isinstance(value, str) else value for value in found]
    return array


def checked(inputs: np.ndarray, name: str) -> np.ndarray:
    """Texts, object [N]; what is none, is empty, or cannot be written as UTF-8 is refused with its record."""
    texts = array_of(inputs)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            what = "missing" if text is None or text is pd.NA or text != text else f"{text!r:.40}, {type(text).__name__}"
            raise DataError(f"{name}: record {row} is {what}; expected a text; mend it, or drop it")
        if not _is_utf8(text):
            raise DataError(f"{name}: record {row} holds half of a character (a lone surrogate), which UTF-8 cannot say; mend it, or drop it")
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        shown = ", ".join(map(str, empty[:_MOST_SHOWN])) + (" ..." if len(empty) > _MOST_SHOWN else "")
        raise DataError(f"{name}: {len(empty)} of {len(texts)} texts are empty (records {shown}); drop them")
    return texts


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def labels_of(found: Any, n: int, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels [n] and the names of the classes: whole numbers as they are, words by alphabet, 0 for all where there are none."""
    if found is None:
        return np.zeros(n, dtype=np.int64), ()
    series = pd.Series(found)
    if series.isna().any():
        raise DataError(
            f"{name}: {int(series.isna().sum())} of {n} labels are missing (the first of record {int(series.isna().argmax())}); drop those records"
        )
    if pd.api.types.infer_dtype(series) == "string":
        codes, words = pd.factorize(series.astype(object), sort=True)
        return codes.astype(np.int64), tuple(map(str, words))
    labels = pd.to_numeric(series, errors="coerce").to_numpy(np.float64)
    if not (labels == np.floor(labels)).all():
        raise DataError(f"{name}: labels are {series.dtype}, expected integers 0 to C-1, or words")
    return labels.astype(np.int64), ()


def looks(texts: Sequence[str]) -> np.ndarray:
    """Numbers that are alike for texts that are alike, float32 [N, 64]: groups of three characters within words, hashed, and their main directions."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=_N_HASHED, alternate_sign=False, dtype=np.float32)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(hashed.transform(tqdm(texts, "looks of texts", unit="text", delay=3, disable=None)))
    n = min(N_LOOKS, weighted.shape[0] - 1)
    return np.asarray(TruncatedSVD(n, random_state=0).fit_transform(weighted).astype(np.float32))


# -- files ---------------------------------------------------------------------------------------------------------


def _files(source: Path) -> list[Path]:
    """The files of a source, all of one kind: of a folder those that params name as what it is read from."""
    if source.is_file():
        return [source]
    files = params.training_files(source) or sorted(file for file in source.rglob("*") if file.suffix.lower() in SUFFIXES)
    kinds = sorted({file.suffix.lower() for file in files})
    if not files:
        raise DataError(f"{source}: there is no file of texts in this folder; expected {', '.join(SUFFIXES)}")
    if len(kinds) > 1:
        raise DataError(f"{source}: files of several kinds ({', '.join(kinds)}); name one of the files, or keep one kind in the folder")
    return files


def _read(file: Path, column: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A file as a table, and the names of its classes where it says them."""
    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(f"{file}: files of texts end in {', '.join(SUFFIXES)}; rename or convert it")
    try:
        if kind == ".parquet":
            return pd.read_parquet(file), _class_names(file)
        if kind in (".csv", ".tsv"):
            return pd.read_csv(file, sep="\t" if kind == ".tsv" else ",", keep_default_na=False, na_values=[""], low_memory=False), ()
        said = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: truncated or not Parquet ({str(error).splitlines()[0]}); fetch it again") from None
    except ValueError as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise DataError(f"{file}: not a table with a head ({str(error).splitlines()[0]}); mend it") from None
    if kind == ".txt":
        return pd.DataFrame({column: [line for line in said.split("\n") if line.strip()]}, dtype=object), ()
    return _of_records(_parsed(said, file), file, column), ()


def _parsed(said: str, file: Path) -> list[Any]:
    """The records of a JSON list, or of JSON lines."""
    if file.suffix.lower() == ".json":
        records = _json(said, f"{file}")
        if not isinstance(records, list):
            raise DataError(f"{file}: holds one {type(records).__name__}, expected a list of texts, or of objects that have one")
        return records
    lines = enumerate(said.split("\n"), 1)
    return [_json(line, f"{file}: line {number}") for number, line in lines if line.strip()]


def _json(said: str, where: str) -> Any:
    try:
        return json.loads(said)
    except ValueError as error:
        raise DataError(f"{where} is truncated or not JSON ({error}); mend it") from None


def _of_records(records: list[Any], file: Path, column: str) -> pd.DataFrame:
    """A table of objects, or of texts alone."""
    if any(isinstance(record, dict) for record in records):
        strange = next((row for row, record in enumerate(records) if not isinstance(record, dict)), None)
        if strange is not None:
            raise DataError(f"{file}: record {strange} is {type(records[strange]).__name__}, others are objects; give all records one form")
        return pd.DataFrame(records)
    return pd.DataFrame({column: array_of(records)}, dtype=object)


def _class_names(file: Path) -> tuple[str, ...]:
    """The names of the classes that `datasets` keeps in the head of a Parquet file."""
    head = (pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    label = json.loads(head).get("info", {}).get("features", {}).get(LABEL, {})
    return tuple(label.get("names") or ())


def _others(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns of text, numbers, truth values and times (as text); lists and objects are left out."""
    found = {}
    for name in table:
        kind = pd.api.types.infer_dtype(table[name], skipna=True)
        if kind in ("string", "integer", "floating", "mixed-integer-float", "boolean"):
            found[str(name)] = table[name].to_numpy()
        elif kind in ("date", "datetime", "datetime64"):
            found[str(name)] = table[name].astype("string").to_numpy(dtype=object, na_value=None)
    return found
