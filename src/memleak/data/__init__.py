"""Data sets: decoded once, checked, described, and mapped into memory by every later job.

A data set is a function `load(source) -> Samples`. `prepare` turns what it gives into
`data/prepared/{dataset}-{digest8}/`: `inputs.npy` [N, ...] (images: uint8 [N, H, W, C]; tables: float32
[N, F]), `labels.npy` [N], `group_id.npy` [N], `atypicality_rank.npy` [N], and `dataset.json` with everything
that later stages need to know, the SHA-256 of the arrays included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memleak import artefacts, params, plugins, provenance
from memleak.data.neighbours import atypicality_rank, content_groups

_ARRAYS = ("inputs", "labels", "group_id", "atypicality_rank")


class DataError(ValueError):
    """Data that cannot be audited; the text says what was found and what is expected."""


@dataclass(frozen=True)
class Samples:
    """What a data set's function returns: inputs (uint8 [N, H, W, C] or float [N, F]) and labels [N]."""

    inputs: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    licence: str = "not stated"
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, its arrays mapped into memory."""

    path: Path
    facts: dict[str, Any]
    inputs: np.ndarray  # [N, H, W, C] uint8 or [N, F] float32
    labels: np.ndarray  # [N] int64
    group_id: np.ndarray  # [N] int64, equal for records of equal content
    atypicality_rank: np.ndarray  # [N] int64, 0 is the least typical

    @property
    def n_classes(self) -> int:
        return self.facts["n_classes"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C) or (F,)."""
        return tuple(self.facts["shape"])


def prepare(dataset: params.Dataset, output: Path) -> dict[str, Any]:
    """Load, check and describe a data set; write its arrays beside `output` and then `output` itself."""
    samples = check(plugins.function_of("datasets", dataset.name)(dataset.source), dataset.name)
    if dataset.declared_size not in (None, len(samples.labels)):
        raise DataError(f"{dataset.name}: {len(samples.labels)} samples found, {dataset.declared_size} declared")
    flat = samples.inputs.reshape(len(samples.inputs), -1)
    arrays = {
        "inputs": samples.inputs,
        "labels": samples.labels.astype(np.int64),
        "group_id": content_groups(flat),
        "atypicality_rank": atypicality_rank(flat, samples.labels),
    }
    mean, std = moments(samples.inputs)
    for name, array in arrays.items():
        artefacts.write_array(output.parent / f"{name}.npy", array)
    facts = {
        "name": dataset.name,
        "n": len(samples.labels),
        "n_classes": int(samples.labels.max()) + 1,
        "shape": list(samples.inputs.shape[1:]),
        "class_names": list(samples.class_names),
        "n_groups": int(arrays["group_id"].max()) + 1,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "licence": samples.licence,
        "notes": samples.notes,
        "sha256": {name: provenance.file_sha256(output.parent / f"{name}.npy") for name in arrays},
    }
    artefacts.write_json(output, facts)
    return facts


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
    if not isinstance(samples, Samples):
        raise DataError(f"{name}: expected memleak.data.Samples, found {type(samples).__name__}")
    inputs, labels = np.asarray(samples.inputs), np.asarray(samples.labels)
    if len(inputs) != len(labels) or len(labels) < 2:
        raise DataError(f"{name}: {len(inputs)} inputs and {len(labels)} labels; as many of each are expected, two or more")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: labels are {labels.dtype}, expected integers 0 to C-1; encode them (pandas.factorize)")
    if labels.min() < 0 or len(np.unique(labels)) < 2:
        raise DataError(f"{name}: labels go from {labels.min()} to {labels.max()}, expected 0 to C-1 with at least two classes")
    if inputs.ndim == 4 and inputs.dtype != np.uint8:
        raise DataError(f"{name}: images are {inputs.dtype}, expected uint8 [N, H, W, C]")
    if inputs.ndim not in (2, 4):
        raise DataError(f"{name}: inputs have shape {inputs.shape}, expected images [N, H, W, C] or features [N, F]")
    if inputs.ndim == 4 and inputs.shape[3] not in (1, 3):
        raise DataError(f"{name}: images have shape {inputs.shape[1:]}, expected (H, W, C) with C = 1 or 3")
    if inputs.ndim == 2:
        inputs = inputs.astype(np.float32)
        if not np.isfinite(inputs).all():
            raise DataError(f"{name}: {int((~np.isfinite(inputs)).any(axis=1).sum())} records have missing or infinite features; fill or drop them")
    return Samples(inputs, labels, samples.class_names, samples.licence, samples.notes)


def read(path: Path) -> Dataset:
    """A prepared data set; arrays that are missing, cut short or not the described ones are refused."""
    facts = artefacts.read_json(path)
    if "sha256" not in facts:
        raise artefacts.ArtefactError(f"{path}: not the description of a data set; delete it and run again")
    arrays = {}
    for name in _ARRAYS:
        file = path.parent / f"{name}.npy"
        arrays[name] = artefacts.read_array(file)
        if provenance.file_sha256(file) != facts["sha256"][name]:
            raise artefacts.ArtefactError(f"{file}: not the content that {path.name} describes; delete {path} and run again")
    return Dataset(path, facts, **arrays)
