"""Data sets: decoded once, checked, described, and mapped into memory by every later job.

A data set is a function `load(source) -> Samples`. `prepare` turns what it gives into
`data/prepared/{dataset}-{digest8}/`: `inputs.npy` [N, ...] (images: uint8 or float32 [N, H, W, C]; tables: float32
[N, F]), or of texts `texts.parquet` and a `tokenizer.json` trained on them; `labels.npy` [N], `group_id.npy` [N],
`atypicality_rank.npy` [N], `columns.parquet` where more is known of the records, and `dataset.json` with everything
that later stages need to know, the SHA-256 of the files included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts, params, plugins, provenance
from memleak.data import columns as columns_room
from memleak.data.neighbours import atypicality_rank, content_groups

_ARRAYS = ("inputs", "labels", "group_id", "atypicality_rank")
TEXTS, TOKENIZER = "texts.parquet", "tokenizer.json"  # of a data set of texts
_TEXT_FILES = {"inputs": TEXTS, "tokenizer": TOKENIZER}


class DataError(ValueError):
    """Data that cannot be audited; the text says what was found and what is expected."""


@dataclass(frozen=True)
class Samples:
    """What a data set's function returns: inputs (uint8 or float32 [N, H, W, C], float [N, F], or texts [N]) and labels [N]."""

    inputs: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    licence: str = "not stated"
    notes: dict[str, Any] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # [N] each: what is known of a record and is not its input


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, its arrays mapped into memory."""

    path: Path
    facts: dict[str, Any]
    inputs: np.ndarray  # [N, H, W, C] uint8 or float32, [N, F] float32, or texts, object [N]
    labels: np.ndarray  # [N] int64
    group_id: np.ndarray  # [N] int64, equal for records of equal content, or of one unit
    atypicality_rank: np.ndarray  # [N] int64, 0 is the least typical

    @property
    def n_classes(self) -> int:
        return self.facts["n_classes"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C), (F,), or of a text ()."""
        return tuple(self.facts["shape"])

    @property
    def is_text(self) -> bool:
        """Whether the records are texts."""
        return self.facts.get("kind") == "text"

    @property
    def tokenizer_path(self) -> Path:
        """Of texts: the tokenizer that is trained on all of them, for models without one of their own."""
        return self.path.parent / TOKENIZER

    @property
    def has_units(self) -> bool:
        """Whether records belong to units, which designs do not cut."""
        return "unit" in self.facts

    @property
    def parts(self) -> dict[str, list[int]]:
        """First row, and one past the last, of each part; none where the data is one set."""
        return self.facts.get("parts", {})

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """What is known of the records beside input and label, by name, [N] each: read when asked for."""
        return columns_room.read(self.path, self.facts)


def prepare(dataset: params.Dataset, output: Path) -> dict[str, Any]:
    """Load, check and describe a data set; write its arrays beside `output` and then `output` itself."""
    samples, parts = _loaded(dataset)
    name = dataset.name or ", ".join(parts)
    kept = _keep_texts(samples, dataset, output.parent) if _is_text(samples) else _keep_numbers(samples, dataset, output.parent)
    groups, known = kept.group, kept.facts
    if dataset.unit is not None:
        units = columns_room.units_of(samples.columns, dataset.unit, name)
        groups, counts = columns_room.joined_groups(groups, units, name)
        known["unit"] = {"column": dataset.unit, **counts}
    arrays = {"labels": samples.labels.astype(np.int64), "group_id": groups, "atypicality_rank": atypicality_rank(kept.looks, samples.labels)}
    for array_name, array in arrays.items():
        artefacts.write_array(output.parent / f"{array_name}.npy", array)
    if samples.columns:  # not among "sha256", which names the data that models train on
        known["columns"] = columns_room.write(output.parent, samples.columns)
    if dataset.parts:
        known["parts"] = parts
    facts = {
        "name": name,
        "n": len(samples.labels),
        "n_classes": max(int(samples.labels.max()) + 1, len(samples.class_names)),  # some classes may have no record here
        "shape": list(samples.inputs.shape[1:]),
        "class_names": list(samples.class_names),
        "n_groups": int(arrays["group_id"].max()) + 1,
        "mean": kept.mean,
        "std": kept.std,
        "licence": samples.licence,
        "notes": samples.notes,
        "sha256": kept.sha256 | {name: provenance.file_sha256(output.parent / f"{name}.npy") for name in arrays},
        **known,
    }
    artefacts.write_json(output, facts)
    return facts


@dataclass(frozen=True)
class _Kept:
    """What becomes of records as they are written."""

    group: np.ndarray  # [N], equal for records of equal content
    looks: np.ndarray  # [N, F], near for records that are alike
    mean: list[float]
    std: list[float]
    sha256: dict[str, str]  # of what is written
    facts: dict[str, Any] = field(default_factory=dict)


def _keep_numbers(samples: Samples, dataset: params.Dataset, folder: Path) -> _Kept:
    """Write images, or a table."""
    if dataset.vocabulary is not None:
        raise DataError(f"{dataset.name}: vocabulary is of texts, and these records are none; leave it out")
    flat = samples.inputs.reshape(len(samples.inputs), -1)
    mean, std = moments(samples.inputs)
    artefacts.write_array(folder / "inputs.npy", samples.inputs)
    return _Kept(content_groups(flat), flat, mean.tolist(), std.tolist(), {"inputs": provenance.file_sha256(folder / "inputs.npy")})


def _keep_texts(samples: Samples, dataset: params.Dataset, folder: Path) -> _Kept:
    """Write texts, and a tokenizer that is trained on all of them; those that say nearly the same share a group."""
    from memleak.data import overlap, texts, tokens

    artefacts.write_table(folder / TEXTS, pd.DataFrame({"text": samples.inputs}))
    every = list(samples.inputs)
    n_tokens = tokens.train(every, folder / TOKENIZER, dataset.vocabulary or tokens.VOCABULARY)
    group, equal = overlap.near_duplicates(every), overlap.equals(every)
    facts = {
        "kind": "text", "labelled": bool(samples.labels.any()), "vocabulary": n_tokens,
        "n_near_duplicates": int(equal.max() - group.max()),  # different texts that are not the first of their group
    }  # fmt: skip
    sha256 = {name: provenance.file_sha256(folder / file) for name, file in _TEXT_FILES.items()}
    return _Kept(group, texts.looks(every), [], [], sha256, facts)


def _is_text(samples: Samples) -> bool:
    from memleak.data import texts  # it needs what stands here

    return texts.is_text(samples.inputs)


def _loaded(dataset: params.Dataset) -> tuple[Samples, dict[str, list[int]]]:
    """The records of all parts, one after the other; and the first row, and the one past the last, of each."""
    from memleak.data import forms  # it needs what stands here

    found: dict[str, Samples] = {}
    parts, n = {}, 0
    for part, declared in dataset.sources.items():
        name = f"{part} ({declared.name})" if part else declared.name
        function = plugins.function_of("datasets", declared.name)
        function = function if declared.column is None else partial(function, column=declared.column)
        found[name] = forms.load(function, declared.source, name)
        size = len(found[name].labels)
        if declared.declared_size not in (None, size):
            raise DataError(f"{name}: {size} samples found, {declared.declared_size} declared")
        parts[part], n = [n, n + size], n + size
    return check(joined(found), ", ".join(found)), parts


def joined(found: Mapping[str, Samples]) -> Samples:
    """Samples of several sources, one after the other, as one; of their columns those that all have."""
    if len(found) == 1:
        return next(iter(found.values()))
    shapes = {name: (samples.inputs.shape[1:], samples.inputs.dtype) for name, samples in found.items()}
    if len(set(shapes.values())) > 1:
        said = "; ".join(f"{name}: {dtype} of shape {shape}" for name, (shape, dtype) in shapes.items())
        raise DataError(f"the parts of a data set have records of several forms ({said}); give all of them one shape and one type")
    every = _with_common_classes(found) if any(map(_is_text, found.values())) else list(found.values())
    names = max((samples.class_names for samples in every), key=len)
    return Samples(
        np.concatenate([samples.inputs for samples in every]),
        np.concatenate([samples.labels for samples in every]),
        names,
        "; ".join(dict.fromkeys(samples.licence for samples in every)),
        {key: value for samples in every for key, value in samples.notes.items()},
        columns_room.concatenated([samples.columns for samples in every]),
    )


def _with_common_classes(found: Mapping[str, Samples]) -> list[Samples]:
    """Texts of several sources; where their labels are words, which each source numbers for itself, numbered alike."""
    named = {name: samples.class_names for name, samples in found.items() if samples.class_names}
    unnamed = [name for name in found if name not in named]
    if named and unnamed:
        raise DataError(
            f"{unnamed[0]}: no labels, or numbers, where the labels of {next(iter(named))} have names; give all parts one kind, or none labels"
        )
    if len(set(named.values())) < 2:
        return list(found.values())
    common = tuple(sorted({word for words in named.values() for word in words}))
    number = {word: i for i, word in enumerate(common)}
    numbers = {name: np.array([number[word] for word in words]) for name, words in named.items()}
    return [replace(samples, labels=numbers[name][samples.labels], class_names=common) for name, samples in found.items()]


def moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by which training normalises: of each channel of images, of each column of a table.

    Columns of 0 and 1 alone stay as they are: a rare category would otherwise become a value of 100 standard deviations.
    """
    axes = tuple(range(inputs.ndim - 1))
    mean, std = inputs.mean(axis=axes, dtype=np.float64), inputs.std(axis=axes, dtype=np.float64)
    is_left = (std == 0) | (((inputs == 0) | (inputs == 1)).all(axis=axes) if inputs.ndim == 2 else False)
    return np.where(is_left & (inputs.ndim == 2), 0.0, mean), np.where(is_left, 1.0, std)


def check(samples: Samples, name: str) -> Samples:
    """Refuse what cannot be audited, in one sentence; give inputs their final type."""
    from memleak.data import texts  # it needs what stands here

    if not isinstance(samples, Samples):
        raise DataError(f"{name}: expected memleak.data.Samples, found {type(samples).__name__}")
    inputs, labels = np.asarray(samples.inputs), np.asarray(samples.labels)
    if len(inputs) != len(labels) or len(labels) < 2:
        raise DataError(f"{name}: {len(inputs)} inputs and {len(labels)} labels; as many of each are expected, two or more")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: labels are {labels.dtype}, expected integers 0 to C-1; encode them (pandas.factorize)")
    is_text = texts.is_text(inputs)
    if is_text and len(np.unique(labels)) < 2:
        labels = np.zeros_like(labels)  # texts need no labels, and one for all says nothing: 0 stands for none
    elif labels.min() < 0 or len(np.unique(labels)) < 2:
        raise DataError(f"{name}: labels go from {labels.min()} to {labels.max()}, expected 0 to C-1 with at least two classes")
    if is_text:
        inputs = texts.checked(inputs, name)
    elif inputs.ndim not in (2, 4):
        raise DataError(f"{name}: inputs have shape {inputs.shape}, expected images [N, H, W, C] or features [N, F]")
    if inputs.ndim == 4 and inputs.dtype != np.uint8:
        if inputs.dtype != np.float32:
            raise DataError(f"{name}: images are {inputs.dtype}, expected uint8 [N, H, W, C], or float32 where transforms made fractions of them")
        if n_bad := int((~np.isfinite(inputs)).any(axis=(1, 2, 3)).sum()):
            raise DataError(f"{name}: {n_bad} images have NaN or infinite values; mend the transforms, or drop them")
    if inputs.ndim == 4 and inputs.shape[3] not in (1, 3):
        raise DataError(f"{name}: images have shape {inputs.shape[1:]}, expected (H, W, C) with C = 1 or 3")
    if inputs.ndim == 2:
        inputs = inputs.astype(np.float32)
        if not np.isfinite(inputs).all():
            raise DataError(f"{name}: {int((~np.isfinite(inputs)).any(axis=1).sum())} records have missing or infinite features; fill or drop them")
    return Samples(inputs, labels, samples.class_names, samples.licence, samples.notes, columns_room.checked(samples.columns, len(labels), name))


def read(path: Path) -> Dataset:
    """A prepared data set; arrays that are missing, cut short or not the described ones are refused."""
    facts = artefacts.read_json(path)
    if "sha256" not in facts:
        raise artefacts.ArtefactError(f"{path}: not the description of a data set; delete it and run again")
    arrays, is_text = {}, facts.get("kind") == "text"
    for name in [*_ARRAYS, "tokenizer"] if is_text else _ARRAYS:
        file = path.parent / (_TEXT_FILES.get(name, f"{name}.npy") if is_text else f"{name}.npy")
        if file.suffix == ".npy":
            arrays[name] = artefacts.read_array(file)
        elif name == "inputs":
            arrays[name] = artefacts.read_table(file, ["text"])["text"].to_numpy(dtype=object)
        elif not file.is_file():
            raise artefacts.ArtefactError(f"{file}: missing; run the workflow to make it")
        if provenance.file_sha256(file) != facts["sha256"][name]:
            raise artefacts.ArtefactError(f"{file}: not the content that {path.name} describes; delete {path} and run again")
    return Dataset(path, facts, **arrays)
