"""Files of texts, as the command line is given them: read as the data set `text` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from memleak.data import DataError, texts

ID = "id"
IN_PYTHON = ("token-classification", "image-classification")  # what no list of texts says


def read(path: Path, column: str = texts.COLUMN) -> pd.DataFrame:
    """The texts of a file with their labels, by number or name, and their ids, where it has columns for them."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    samples = texts.load(str(path), column)
    table = pd.DataFrame({"text": texts.checked(samples.inputs, str(path))}, dtype=object)
    if samples.class_names:
        table["label"] = np.array(samples.class_names, dtype=object)[samples.labels]
    elif samples.labels.any():
        table["label"] = samples.labels
    if ID in samples.columns:
        table[ID] = samples.columns[ID]
    return table
