"""What a data set's function may return, and how it may be called: every usual form becomes `Samples`.

The forms: `memleak.data.Samples`; a pair (inputs, labels) of arrays or tensors; a data set as torch has them, of pairs
(x, y); a table of pandas with the column `label`; a data set of Hugging Face's `datasets`. Images end as uint8
[N, H, W, C] where they are stored so, and otherwise as float32 [N, H, W, C]: what the user's transforms made of them.
Texts are a list of them, with labels beside it or not, or the column `text` of a table or of a data set of Hugging Face's.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from memleak.data import DataError, Samples, texts

LABEL = "label"  # the column of a table
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")
QUIET_SECONDS = 3  # a bar is shown where decoding takes longer
_CHANNELS = (1, 3)
_WANTED = (
    "get_dataset must return memleak.data.Samples, a pair (inputs, labels) of arrays, a data set of pairs (x, y) as torch has them, "
    "a pandas table with the column label or text, a data set of Hugging Face's, or a list of texts"
)


def load(function: Callable[..., Any], source: str | None, name: str) -> Samples:
    """What a data set's function gives, called as it wants to be: `get_dataset()`, or `get_dataset(source)`."""
    return samples_of(function(*_arguments(function, source, name)), name)


def _arguments(function: Callable[..., Any], source: str | None, name: str) -> tuple[Any, ...]:
    """The source where there is one, or where the function insists; else nothing, so that defaults of the user's stay."""
    ways: list[tuple[Any, ...]] = [(), (source,)] if source is None else [(source,)]
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions that are not written in Python do not tell what they take
        return (source,)
    for arguments in ways:
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments
    called = f"{name.rpartition(':')[2]}{signature}"
    if source is None:
        raise DataError(f"{name}: {called} takes more than one argument; it is called with nothing, or with `source`; give the others defaults")
    raise DataError(f"{name}: source '{source}' is given, but {called} does not take it; leave source out, or let the function have one argument")


def samples_of(found: Any, name: str) -> Samples:
    """The records that a data set's function returned, in whatever form. Raises DataError for what is none."""
    if isinstance(found, Samples):
        inputs = texts.array_of(found.inputs) if texts.is_text(found.inputs) else _inputs(found.inputs, name)
        return replace(found, inputs=inputs, labels=_labels(found.labels, name))
    if found is None:
        raise DataError(f"{name}: it returned None; is `return` missing? {_WANTED}")
    if isinstance(found, pd.DataFrame):
        return _of_table(found, name)
    if hasattr(found, "column_names"):
        return _of_columns(found, name)
    if isinstance(found, tuple) and len(found) == 2 and not isinstance(found[0], str):
        return _of_pair(*found, name)
    if texts.is_text(found):
        return _of_texts(found, None, name)
    if hasattr(found, "__len__") and hasattr(found, "__getitem__") and not isinstance(found, (Mapping, str, bytes, tuple)) and not _is_array(found):
        return _of_items(found, name)
    raise DataError(f"{name}: it returned {_what(found)}; {_WANTED}")


def _what(found: Any) -> str:
    """What something is, in words."""
    kind = type(found).__name__
    if _is_array(found):
        return f"one {kind} of shape {tuple(found.shape)} without labels"
    if isinstance(found, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, list(found)[:5])) or 'none'}"
    if isinstance(found, tuple):
        return f"a tuple of {len(found)}"
    if hasattr(found, "dataset") and not hasattr(found, "__getitem__"):
        return f"a {kind}, which gives batches; return its `dataset`"
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _is_array(found: Any) -> bool:
    return hasattr(found, "shape") and hasattr(found, "dtype")


def _array(found: Any) -> np.ndarray:
    """An array of a tensor on any device, a list, or an array."""
    if hasattr(found, "detach"):
        found = found.detach().cpu()
        found = found.float() if "bfloat16" in str(found.dtype) else found  # which NumPy does not know
    return np.asarray(found)


# -- pairs of arrays ----------------------------------------------------------------------------------------------


def _of_texts(found: Any, labels: Any, name: str) -> Samples:
    """Texts, and the label of each, a number or a word; or none."""
    if labels is not None and len(labels) != len(found):
        raise DataError(f"{name}: {len(found)} texts and {len(labels)} labels; as many of each are expected")
    codes, names = texts.labels_of(labels, len(found), name)
    return Samples(texts.array_of(found), codes, names)


def _of_pair(inputs: Any, labels: Any, name: str) -> Samples:
    if texts.is_text(inputs):
        return _of_texts(inputs, labels, name)
    for part in (inputs, labels):
        if not _is_array(part) and not isinstance(part, (list, tuple, pd.DataFrame, pd.Series)):
            raise DataError(f"{name}: it returned a pair with {_what(part)} in it; {_WANTED} (one data set: others are parts of their own)")
    return Samples(_inputs(inputs, name), _labels(labels, name))


def _inputs(found: Any, name: str) -> np.ndarray:
    """Inputs as they are stored: of images the channels last, of fractions float32."""
    try:
        inputs = _array(found)
    except ValueError:
        raise DataError(f"{name}: inputs have different shapes; resize images to one size, and give each record as many features") from None
    if inputs.dtype == object or inputs.dtype.kind in "USM":
        raise DataError(f"{name}: inputs hold {inputs.dtype}, expected numbers, in one array of one shape for all records")
    if inputs.ndim == 3 and inputs.dtype == np.uint8:
        inputs = inputs[..., None]
    if inputs.ndim == 4:
        inputs = _stored(_channels_last(inputs, is_tensor=hasattr(found, "detach")), name)
    return inputs


def _channels_last(images: np.ndarray, *, is_tensor: bool) -> np.ndarray:
    """[..., H, W, C]: tensors have their channels first, arrays last, where their size does not tell."""
    first, last = images.shape[-3] in _CHANNELS, images.shape[-1] in _CHANNELS
    return np.moveaxis(images, -3, -1) if first and (is_tensor or not last) else images


def _stored(images: np.ndarray, name: str) -> np.ndarray:
    """Images as uint8 where they are whole numbers, else as float32."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind == "f":
        return np.ascontiguousarray(images, dtype=np.float32)
    if images.size and (images.min() < 0 or images.max() > 255):
        raise DataError(f"{name}: images are {images.dtype} from {images.min()} to {images.max()}, expected 0 to 255 (uint8), or fractions (float32)")
    return np.ascontiguousarray(images, dtype=np.uint8)


def _labels(found: Any, name: str) -> np.ndarray:
    """Labels [N]; those of shape [N, 1] too."""
    if found is None:
        raise DataError(f"{name}: the labels are None; {_WANTED}")
    labels = _array(found)
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{name}: labels have shape {labels.shape}, expected [N], one class a record; of one-hot rows take argmax(axis=1)")
    return labels


# -- tables and columns -------------------------------------------------------------------------------------------


def _of_table(table: pd.DataFrame, name: str) -> Samples:
    """Records of a table: texts of its column `text`, or features, which every column but `label` is."""
    if texts.COLUMN in table and not pd.api.types.is_numeric_dtype(table[texts.COLUMN]):
        return texts.of_table(table, name)
    if LABEL not in table:
        raise DataError(f"{name}: the table has the columns {_listed(table.columns)}; rename the one with the classes to label")
    features = table.drop(columns=LABEL)
    words = [str(column) for column in features if not pd.api.types.is_numeric_dtype(features[column])]
    if words or not len(features.columns):
        said = f"the columns {_listed(words)} are not numbers; encode them (pandas.get_dummies)" if words else "the table has no column but label"
        raise DataError(f"{name}: {said}; features are numbers")
    if table[LABEL].isna().any():
        raise DataError(f"{name}: column label has {int(table[LABEL].isna().sum())} missing values; drop those rows")
    return Samples(features.to_numpy(dtype=np.float32, na_value=np.nan), table[LABEL].to_numpy())


def _of_columns(found: Any, name: str) -> Samples:
    """Records of a data set of Hugging Face's: images and labels, or a table."""
    if isinstance(found, Mapping):
        raise DataError(f"{name}: it returned several splits ({_listed(found)}); return one, such as dataset['{next(iter(found), 'train')}']")
    columns = list(found.column_names or ())
    image, label = (next((column for column in known if column in columns), None) for known in (IMAGE_COLUMNS, LABEL_COLUMNS))
    if label is None and texts.COLUMN not in columns:
        raise DataError(f"{name}: the data set has the columns {_listed(columns)}; expected image and label, features and label, or text")
    names = tuple(getattr((getattr(found, "features", None) or {}).get(label), "names", None) or ())
    if image is None:
        of_table = _of_table(found.to_pandas().rename(columns={label: LABEL}), name)
        return replace(of_table, class_names=names or of_table.class_names)
    rows = (found[i] for i in range(len(found)))  # each decodes its image
    return replace(_decoded(((row[image], row[label]) for row in rows), len(found), name), class_names=names)


def _listed(names: Iterable[Any], most: int = 8) -> str:
    words = [str(word) for word in names]
    return (", ".join(words[:most]) or "none") + (f" and {len(words) - most} more" if len(words) > most else "")


# -- data sets of pairs -------------------------------------------------------------------------------------------


def _of_items(found: Any, name: str) -> Samples:
    """Records of a data set as torch has them, taken one after the other."""
    return replace(_decoded((found[i] for i in range(len(found))), len(found), name), class_names=_class_names(found))


def _class_names(found: Any) -> tuple[str, ...]:
    """Names of classes where a data set, or the one that it is a part of, has them as torchvision does."""
    while not hasattr(found, "classes") and hasattr(found, "dataset"):
        found = found.dataset
    names = getattr(found, "classes", ())
    is_named = isinstance(names, (list, tuple)) and all(isinstance(word, str) for word in names)
    return tuple(names) if is_named else ()


def _decoded(items: Iterable[Any], n: int, name: str) -> Samples:
    """The records of an iteration over pairs (x, y), all of one shape and type."""
    if not n:
        raise DataError(f"{name}: it returned a data set without records; two or more are expected")
    inputs: np.ndarray | None = None
    labels: list[Any] = []
    shown = tqdm(total=n, desc=name, unit="record", delay=QUIET_SECONDS, disable=not sys.stderr.isatty())
    taken = iter(items)
    for row in range(n):
        x, y = _item(taken, row, name)
        if inputs is None:
            inputs = np.empty((n, *x.shape), x.dtype)
        if (x.shape, x.dtype) != (inputs.shape[1:], inputs.dtype):
            raise DataError(
                f"{name}: record {row} is {x.dtype} of shape {x.shape}, the first {inputs.dtype} of shape {inputs.shape[1:]}; "
                "give all records one shape and one type (resize images, and convert them to one mode)"
            )
        inputs[row] = x
        labels.append(y)
        shown.update()
    shown.close()
    assert inputs is not None
    return Samples(_inputs(inputs, name), np.asarray(labels))


def _item(taken: Any, row: int, name: str) -> tuple[np.ndarray, Any]:
    """One record and its label. What the user's data set raises is named with its record."""
    try:
        item = next(taken)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: record {row} cannot be read: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(item, Sequence) or isinstance(item, (str, bytes)) or len(item) != 2:
        kind = _what(item)
        raise DataError(f"{name}: record {row} is {kind}, expected a pair (x, y) of an image or an array, and its class")
    return _record(item[0], row, name), _label(item[1], row, name)


def _record(x: Any, row: int, name: str) -> np.ndarray:
    """One record as it is stored."""
    if hasattr(x, "convert") and hasattr(x, "mode") and x.mode[0] not in "IF":  # an image of PIL, but for those of 16 or 32 bits
        return _picture(x)
    record = _array(x)
    if record.dtype == object or record.dtype.kind in "USM":
        raise DataError(f"{name}: record {row} is {_what(x)}, expected a PIL image, an array or a tensor")
    if record.ndim == 3:
        record = _channels_last(record, is_tensor=hasattr(x, "detach"))
    if record.ndim == 2 and record.dtype == np.uint8:
        record = record[..., None]
    return record.astype(np.float32) if record.dtype.kind == "f" else record


def _picture(image: Any) -> np.ndarray:
    """An image of PIL as uint8 [H, W, 1 or 3]: grey where it is grey."""
    grey = image.mode in ("L", "1", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _label(y: Any, row: int, name: str) -> Any:
    """One label, a number; of arrays of one number that number."""
    label = None if y is None else _array(y)
    if label is None or label.size != 1:
        found = "None" if label is None else f"of shape {label.shape}"
        raise DataError(f"{name}: the label of record {row} is {found}, expected one class from 0 to C-1")
    return label.reshape(-1)[0]
