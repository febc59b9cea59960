"""The laws of a data set of the user's: it can be audited, and it is the same every time it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from memleak import data, plugins
from memleak.contracts import Finding, judged
from memleak.data import Samples, forms, overlap, texts
from memleak.data.neighbours import content_groups

UNEQUAL = 10  # times as many records in the largest class as in the smallest: fewer are left than an interval per class needs
DARK = 100  # largest value of uint8 images below which something was divided before it was stored
BRIGHT = 30  # largest value of float images beyond which they were not scaled: normalised ones stay far below


def check(name: str, source: str | None = None) -> Iterator[Finding]:
    """The laws, one after the other; after a first call that fails nothing else is tried."""
    found: list[Samples] = []

    def returns_records() -> str:
        found.append(forms.load(plugins.function_of("datasets", name), source, name))
        n_inputs, n_labels = len(found[0].inputs), len(found[0].labels)
        return "" if n_inputs == n_labels >= 2 else f"{n_inputs} inputs and {n_labels} labels; as many of each are expected, two or more"

    first = judged("it returns records and their labels", returns_records)
    yield replace(first, why=_described(found[0])) if first.state == "kept" else first
    if first.state == "broken":
        return
    inputs, labels = np.asarray(found[0].inputs), np.asarray(found[0].labels)
    is_text = texts.is_text(inputs)
    whole = judged("labels are whole numbers from 0", lambda: _not_whole(labels))
    yield whole
    if whole.state == "kept" and not (is_text and not labels.any()):  # texts need no labels
        yield judged("there are at least two classes", lambda: "" if len(np.unique(labels)) > 1 else f"all labels are {labels[0]}")
        yield judged("every class has records", lambda: _empty_classes(labels, found[0].class_names), "doubtful")
        yield judged(f"the largest class is at most {UNEQUAL} times the smallest", lambda: _unequal(labels), "doubtful")
    if not is_text:
        yield judged("all values are finite", lambda: _not_finite(inputs))
    yield judged("an audit takes it", lambda: _refused(found[0], name, is_labelled=whole.state == "kept"))
    yield judged("a second call gives the same records in the same order", lambda: _unlike(name, source, found[0]))
    yield judged("no record is there twice", lambda: _twins(_groups(inputs), labels), "doubtful")
    if inputs.ndim == 4:
        yield judged("images have the range of images", lambda: _unlikely_range(inputs), "doubtful")


def _described(samples: Samples) -> str:
    if texts.is_text(samples.inputs):
        labelled = f"labels 0 to {samples.labels.max()}" if samples.labels.any() else "without labels"
        return f"{len(samples.labels)} texts, {labelled}"
    return f"{len(samples.labels)} of shape {samples.inputs.shape[1:]}, {samples.inputs.dtype}"


def _not_whole(labels: np.ndarray) -> str:
    if not np.issubdtype(labels.dtype, np.integer):
        return f"they are {labels.dtype}; encode them (pandas.factorize)"
    return f"they go from {labels.min()} to {labels.max()}; a label counts classes from 0" if labels.min() < 0 else ""


def _empty_classes(labels: np.ndarray, names: tuple[str, ...]) -> str:
    empty = np.setdiff1d(np.arange(max(int(labels.max()) + 1, len(names))), labels)
    if not len(empty):
        return ""
    hint = "; are they counted from 1? The model's columns are counted from 0" if empty[0] == 0 else ""
    return f"{len(empty)} of {max(int(labels.max()) + 1, len(names))} have none (such as class {empty[0]}){hint}"


def _unequal(labels: np.ndarray) -> str:
    counts = np.bincount(labels)
    there = np.flatnonzero(counts)
    least, most = there[counts[there].argmin()], counts.argmax()
    said = f"class {most} has {counts[most]} records, class {least} {counts[least]}; accuracy and exposure of the small one mean little"
    return said if counts[most] > UNEQUAL * counts[least] else ""


def _not_finite(inputs: np.ndarray) -> str:
    if inputs.dtype.kind != "f":
        return ""
    bad = ~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    return f"{int(bad.sum())} of {len(inputs)} records have NaN or infinite values, the first is record {int(bad.argmax())}" if bad.any() else ""


def _refused(samples: Samples, name: str, *, is_labelled: bool) -> str:
    """Why an audit would refuse the records, labels aside where these were found wanting already."""
    has_classes = len(np.unique(samples.labels)) > 1 or texts.is_text(samples.inputs)
    labels = samples.labels if is_labelled and has_classes else np.arange(len(samples.inputs)) % 2
    inputs = np.asarray(samples.inputs)
    known_already = inputs.dtype.kind == "f" and not np.isfinite(inputs).all()
    data.check(replace(samples, labels=labels, inputs=np.nan_to_num(inputs) if known_already else inputs), name)
    return ""


def _unlike(name: str, source: str | None, first: Samples) -> str:
    """What differs in a second call."""
    again = forms.load(plugins.function_of("datasets", name), source, name)
    one, other = ((np.asarray(samples.inputs), np.asarray(samples.labels)) for samples in (first, again))
    if one[0].shape != other[0].shape:
        return f"it has shape {other[0].shape}, the first time {one[0].shape}; which records are audited must be fixed"
    differs = (_rows(one[0]) != _rows(other[0])).any(axis=1) | (one[1] != other[1])
    if not differs.any():
        return ""
    groups = _groups(np.concatenate([one[0], other[0]])).reshape(2, -1)
    if np.array_equal(*np.sort(groups, axis=1)):
        return f"{int(differs.sum())} of {len(differs)} records stand elsewhere; do not shuffle, or by a fixed seed: a record is known by its place"
    return f"{int(differs.sum())} of {len(differs)} records have another content or label; leave random transforms (crops, flips) out of it"


def _rows(inputs: np.ndarray) -> np.ndarray:
    """Records as rows of bytes, so that NaN equals itself, [N, B]; texts as they are, [N, 1]."""
    if texts.is_text(inputs):
        return inputs[:, None]
    return np.ascontiguousarray(inputs).reshape(len(inputs), -1).view(np.uint8)


def _groups(inputs: np.ndarray) -> np.ndarray:
    """A group for each distinct record, [N]; texts that say the same are one."""
    return overlap.near_duplicates([str(text) for text in inputs]) if texts.is_text(inputs) else content_groups(_rows(inputs))


def _twins(groups: np.ndarray, labels: np.ndarray) -> str:
    n_twins = len(groups) - int(groups.max()) - 1
    if not n_twins:
        return ""
    n_contradicting = int((np.bincount(np.unique(np.stack([groups, labels]), axis=1)[0].astype(np.int64)) > 1).sum())
    said = f"{n_twins} of {len(groups)} are copies of others; copies are members and non-members together, which hides what is leaked"
    return said + (f" ({n_contradicting} contents have several labels)" if n_contradicting else "")


def _unlikely_range(images: np.ndarray) -> str:
    least, most = float(images.min()), float(images.max())
    if images.dtype == np.uint8 and most < DARK:
        return f"they are uint8 from {least:.0f} to {most:.0f} of 255; were fractions cut to whole numbers? (inputs: scaled divides by 255)"
    if images.dtype == np.float32 and most > BRIGHT:
        return f"they are float32 up to {most:.4g}; give uint8, or divide by 255: float images are asked about as they are"
    return "all pixels are the same" if least == most else ""
