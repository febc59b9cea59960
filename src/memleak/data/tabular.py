"""Tables: Adult, and the binary tables of Shokri et al. 2017 (Location, Purchase-100, Texas-100).

None of them is downloaded. Without a source they are looked for in `data/raw/` under their usual names, which
each loader lists. Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models".
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from memleak.data import DataError, Samples

RAW = Path("data/raw")  # where a data set is looked for when no source is given

NUMERIC = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CATEGORICAL = ("workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country")
_UCI = (  # the columns of the file `adult.data`, which has no head
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
)  # fmt: skip
_INCOME = {"<=50k": 0, ">50k": 1}


def load_adult(source: str | None) -> Samples:
    """Census records, float32 [N, F], and whether the income exceeds 50,000 dollars: all rows of a Parquet or CSV file.

    First the numeric attributes, each minus its mean over its standard deviation; then one column of 0 and 1 for
    each category, attributes as listed in CATEGORICAL, categories by alphabet, `missing` last where a value is
    missing. The same file gives the same numbers; categories that a file does not have get no column. `fnlwgt`
    is left out, as usual: it says for how many people of the census a record stands, not who this person is.
    The whole file has 48,842 rows and 107 columns.
    """
    file = _find("adult", source, ("adult.parquet", "adult.csv", "adult.data"))
    table = _read_adult(file)
    absent = [name for name in (*NUMERIC, *CATEGORICAL) if name not in table]
    if absent:
        raise DataError(f"{file}: the column {absent[0]} is missing; it has {', '.join(map(str, table.columns))}")
    columns = [_standardised(table[name], file) for name in NUMERIC]
    for name in CATEGORICAL:
        columns += _one_hot(table[name])
    return Samples(
        inputs=np.stack(columns, axis=1),
        labels=_income(table, file),
        class_names=("<=50K", ">50K"),
        licence="CC BY 4.0, UCI Adult (Becker and Kohavi, 1996)",
        columns={name: _as_said(table[name]) for name in (*CATEGORICAL, *NUMERIC)},
    )


def load_location30(source: str | None) -> Samples:
    """Places that users of Foursquare in Bangkok visited, 0 or 1, [5010, 446], and which of 30 groups a user is in."""
    return _load_binary("location30", source, n_features=446, n_classes=30, names=("location30.parquet", "location30.npz", "bangkok"))


def load_purchase100(source: str | None) -> Samples:
    """Products that customers bought, 0 or 1, [197324, 600], and which of 100 groups a customer is in.

    Text as published (`dataset_purchase`: the label 1 to 100, then the features), Parquet, or .npz with
    `features` and `labels`.
    """
    return _load_binary("purchase100", source, n_features=600, n_classes=100, names=("dataset_purchase", "purchase100.csv", "purchase100.npz"))


def load_texas100(source: str | None) -> Samples:
    """What is said of stays in Texan hospitals, 0 or 1, [67330, 6169], and which of 100 procedures was done.

    A folder as published (`100/feats` and `100/labels`, text, labels 1 to 100), or .npz with `features` and
    `labels`. Reading the text needs about 6 GB of memory.
    """
    names = ("100/feats", "feats", "texas/100/feats", "texas100.npz")
    return _load_binary("texas100", source, n_features=6169, n_classes=100, names=names)


def _find(name: str, source: str | None, names: tuple[str, ...]) -> Path:
    """The file that a source means: itself, or in a folder the first of the usual names that is there."""
    place = RAW if source is None else Path(source)
    found = place if place.is_file() else next((place / usual for usual in names if (place / usual).is_file()), None)
    if found is None:
        raise DataError(f"{name}: none of {', '.join(names)} is in {place}; get the data set, and set `source:` to its file or folder")
    return found


def _read_text(file: Path, head: int | None, **options: object) -> pd.DataFrame:
    try:
        return pd.read_csv(file, header=head, skipinitialspace=True, **options)  # type: ignore[call-overload, no-any-return]
    except ValueError as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise DataError(f"{file}: not a table of comma-separated values ({str(error).splitlines()[0]}); fetch it again") from None


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: truncated or not Parquet ({str(error).splitlines()[0]}); fetch it again") from None


def _head_of(file: Path) -> int | None:
    """The row of a text file's head, 0, or None where its first cell is a number: then it has none."""
    try:
        with open(file, encoding="utf-8") as lines:
            float(lines.readline().partition(",")[0].strip().strip('"'))
    except ValueError:  # that a file is not text is a ValueError too; its reader says so
        return 0
    return None


# Adult


def _read_adult(file: Path) -> pd.DataFrame:
    """The attributes, whatever the file: UCI's own has no head; others write `marital-status` or `marital.status`."""
    if file.suffix == ".parquet":
        table = _read_parquet(file)
    else:
        table = _read_text(file, head := _head_of(file), na_values="?")
        if head is None:
            if len(table.columns) != len(_UCI):
                raise DataError(f"{file}: {len(table.columns)} columns without a head, expected {len(_UCI)}: {', '.join(_UCI)}")
            table.columns = pd.Index(_UCI)
    names = table.columns.astype(str).str.strip().str.lower().str.replace(r"[-. ]", "_", regex=True)
    table.columns = names.map(lambda name: {"educational_num": "education_num", "gender": "sex", "class": "income"}.get(name, name))
    return table


def _income(table: pd.DataFrame, file: Path) -> np.ndarray:
    """1 where the income exceeds 50,000 dollars, else 0, [N]."""
    if "income" in table:
        said = table["income"].astype("string").str.strip().str.rstrip(".").str.lower()  # UCI's test part writes `>50K.`
        labels = said.map(_INCOME)
        if labels.isna().any():
            raise DataError(f"{file}: income is {table['income'][labels.isna()].iloc[0]!r} in one row; expected <=50K or >50K")
        return labels.to_numpy(np.int64)
    if "label" not in table:
        raise DataError(f"{file}: there is no column income (<=50K or >50K), nor label (0 or 1)")
    if not table["label"].isin([0, 1]).all():
        raise DataError(f"{file}: the column label holds more than 0 and 1 (income over 50K)")
    return table["label"].to_numpy(np.int64)


def _standardised(column: pd.Series, file: Path) -> np.ndarray:
    """A numeric attribute in standard deviations from its mean, float32 [N]."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        raise DataError(f"{file}: the column {column.name} has {int((~np.isfinite(values)).sum())} values that are not numbers; drop those rows")
    spread = values.std()
    return ((values - values.mean()) / (spread if spread > 0 else 1.0)).astype(np.float32)


def _one_hot(column: pd.Series) -> list[np.ndarray]:
    """A column of 0 and 1 for each category, float32 [N] each."""
    said = _said(column)
    categories = sorted(said.dropna().unique())
    columns = [(said == category).fillna(False).to_numpy(np.float32) for category in categories]
    if said.isna().any():
        columns.append(said.isna().to_numpy(np.float32))
    return columns


def _said(column: pd.Series) -> pd.Series:
    """A category as text, missing where it is blank or `?`."""
    return column.astype("string").str.strip().replace({"?": pd.NA, "": pd.NA})


def _as_said(column: pd.Series) -> np.ndarray:
    """An attribute before it is encoded, to slice by, [N]: a number, or text (None: missing)."""
    return column.to_numpy() if column.name in NUMERIC else _said(column).to_numpy(dtype=object, na_value=None)


# Binary tables


def _load_binary(name: str, source: str | None, n_features: int, n_classes: int, names: tuple[str, ...]) -> Samples:
    """Features of 0 and 1, float32 [N, F], and labels 0 to C-1, from any of the forms in which these tables go round."""
    file = _find(name, source, names)
    if file.suffix == ".npz":
        features, labels = _read_npz(file)
    elif file.name == "feats":
        features = _numbers(_read_text(file, None, dtype=np.float32), file)
        labels = _numbers(_read_text(_beside(file, "labels"), None, dtype=np.float32), file.with_name("labels"))
    else:
        features, labels = _read_labelled(file)
    if features.ndim != 2 or features.shape[1] != n_features:
        raise DataError(f"{file}: features have shape {features.shape}, {name} has [N, {n_features}]; is this another data set?")
    if not ((features == 0) | (features == 1)).all():
        raise DataError(f"{file}: features hold more than 0 and 1, expected binary ones as {name} has; is this another data set?")
    return Samples(features.astype(np.float32, copy=False), _from_zero(labels, len(features), n_classes, file), licence="not stated by the authors")


def _beside(file: Path, name: str) -> Path:
    if not (other := file.with_name(name)).is_file():
        raise DataError(f"{file}: there is no file {name} beside it; the data set is these two")
    return other


def _read_npz(file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            absent = {"features", "labels"} - set(arrays.files)
            if absent:
                raise DataError(f"{file}: has the arrays {', '.join(arrays.files)}; expected features and labels")
            return arrays["features"], arrays["labels"]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: truncated or not an .npz of numbers ({str(error).splitlines()[0]}); fetch it again") from None


def _read_labelled(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The column `label` and the others in their order; without a head, the first column and the others."""
    table = _read_parquet(file) if file.suffix == ".parquet" else _read_text(file, _head_of(file), dtype=np.float32)
    label = 0 if 0 in table else "label"  # columns without names are numbered
    if label not in table:
        raise DataError(f"{file}: there is no column label; it has {', '.join(map(str, table.columns[:5]))} ...")
    return _numbers(table.drop(columns=label), file), _numbers(table[[label]], file)


def _numbers(table: pd.DataFrame, file: Path) -> np.ndarray:
    """The values of a table, [N, F]; a column that holds words or gaps is named."""
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column) or column.isna().any():
            raise DataError(f"{file}: column {name} holds words or missing values, expected numbers in every row; fetch it again")
    return table.to_numpy()


def _from_zero(labels: np.ndarray, n_samples: int, n_classes: int, file: Path) -> np.ndarray:
    """Labels 0 to C-1, [N], from such labels, from the published 1 to C, or from one-hot rows [N, C]."""
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{file}: labels are {labels.dtype}, expected integers 1 to {n_classes}")
    if labels.shape == (n_samples, n_classes):
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DataError(f"{file}: labels have {n_classes} columns, but not one 1 a row; expected one-hot rows or integers")
        return labels.argmax(axis=1)
    flat = labels.reshape(-1)
    if len(flat) != n_samples:
        raise DataError(f"{file}: {n_samples} rows of features and {len(flat)} labels; as many of each are expected")
    if not (flat == np.floor(flat)).all():
        raise DataError(f"{file}: labels hold fractions, expected integers 1 to {n_classes}")
    whole = flat.astype(np.int64)
    counted = whole - 1 if whole.max() == n_classes else whole
    if counted.min() < 0 or counted.max() >= n_classes:
        raise DataError(f"{file}: labels go from {whole.min()} to {whole.max()}, expected 1 to {n_classes} (or 0 to {n_classes - 1})")
    return counted
