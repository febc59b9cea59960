"""CIFAR-10 and CIFAR-100, from torchvision's download or from Parquet files in the Hugging Face convention."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from memleak.data import DataError, Samples
from memleak.data.columns import concatenated
from memleak.params import training_files

RAW = Path("data/raw")  # where torchvision keeps what it downloads
_LICENCE = "not stated by the authors; cite Krizhevsky, 'Learning Multiple Layers of Features from Tiny Images', 2009"


def load_cifar10(source: str | None) -> Samples:
    """Training images of CIFAR-10, uint8 [50000, 32, 32, 3]."""
    return _cifar("CIFAR10", source, n_classes=10)


def load_cifar100(source: str | None) -> Samples:
    """Training images of CIFAR-100 with their 100 fine labels, uint8 [50000, 32, 32, 3]."""
    return _cifar("CIFAR100", source, n_classes=100)


def _cifar(name: str, source: str | None, n_classes: int) -> Samples:
    if source not in (None, "torchvision"):
        samples = read_parquet(Path(source), shape=(32, 32, 3))
    else:
        from torchvision import datasets

        try:
            downloaded = getattr(datasets, name)(root=str(RAW), train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name}: torchvision could not download it ({error}); connect to a network, or set "
                "`source:` to a folder of Parquet files with the columns image and label"
            ) from None
        samples = Samples(downloaded.data, np.asarray(downloaded.targets), tuple(downloaded.classes), _LICENCE)
    if samples.labels.max() >= n_classes:
        raise DataError(
            f"{name}: labels go up to {samples.labels.max()}, {n_classes} classes are expected (0 to {n_classes - 1}); is this another data set?"
        )
    return Samples(samples.inputs, samples.labels, samples.class_names, _LICENCE, samples.notes, samples.columns)


def read_parquet(source: Path, shape: tuple[int, int, int] | None = None) -> Samples:
    """Images and labels from Parquet with the columns `image` (a struct with `bytes`) and `label` or `fine_label`.

    Other columns of one value a row (a patient, a camera, a coarse label) are kept beside them where every file has them.
    """
    files = training_files(source)
    if not files:
        raise DataError(f"{source}: no Parquet file is there; expected for example train.parquet with the columns image and label")
    images, labels, others = [], [], []
    for file in files:
        try:
            names = pq.read_schema(file).names
            label = next((column for column in ("label", "fine_label") if column in names), None)
            if "image" not in names or label is None:
                raise DataError(f"{file}: has the columns {', '.join(names)}; expected image and label")
            scalars = [column.name for column in pq.read_schema(file) if column.name not in ("image", label, "label") and _is_scalar(column.type)]
            table = pq.read_table(file, columns=["image", label, *scalars])
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file}: truncated or not Parquet ({str(error).splitlines()[0]}); fetch it again") from None
        if not pa.types.is_integer(table.schema.field(label).type):
            raise DataError(f"{file}: column {label} holds {table.schema.field(label).type}, expected integers 0 to C-1")
        if table[label].null_count:
            raise DataError(f"{file}: column {label} has {table[label].null_count} missing values; drop those rows")
        labels.append(table[label].to_numpy())
        others.append({name: _values(table[name]) for name in scalars})
        rows = tqdm(table["image"].to_pylist(), desc=f"decode {file.name}", unit="image", disable=not sys.stderr.isatty())
        images += [_decode(row, f"{file}, row {i}", shape) for i, row in enumerate(rows)]
    try:
        inputs = np.stack(images)
    except ValueError:
        raise DataError(f"{source}: images have {len({image.shape for image in images})} different shapes; resize them to one") from None
    return Samples(inputs, np.concatenate(labels), columns=concatenated(others))


def _is_scalar(kind: pa.DataType) -> bool:
    """Whether a column has one truth value, number, time or text a row."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_number = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_number or pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array, [N]: times and categories as text."""
    if pa.types.is_temporal(column.type) or pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    return column.to_pandas().to_numpy(dtype=object if pa.types.is_string(column.type) else None)


def _decode(row: object, where: str, shape: tuple[int, int, int] | None) -> np.ndarray:
    from PIL import Image

    if not isinstance(row, dict) or not isinstance(row.get("bytes"), bytes):
        raise DataError(f"{where}: image is not a struct with `bytes` (Hugging Face image convention)")
    try:
        image = np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: not an image ({error})") from None
    if shape is not None and image.shape != shape:
        raise DataError(f"{where}: the image has shape {image.shape}, expected {shape}")
    return image
