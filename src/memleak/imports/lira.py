"""The layout of LiRA's public code: a folder for each model, with `keep.npy` and logits or scores.

TensorFlow Privacy's `mi_lira_2021` has `experiment-{i}_{M}/keep.npy`, `logits/0000000100.npy` [N, 1, Q, C] (a file for
each checkpoint, the last is read), `scores/0000000100.npy` [N, Q], and `y_train.npy` beside the folders. The port to
PyTorch has `{i}/keep.npy`, `logits.npy` [N, Q, C] and `scores.npy` [N, Q], and no labels. Scores are margins.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from memleak import artefacts
from memleak.imports.run import LEAST_MODELS, Run, RunError, made
from memleak.signals.classifier import all_signals

LABELS = ("y_train.npy", "labels.npy", "y.npy")
KEPT_LOGITS = 2**28  # values: 1 GB; beyond it, what is made of them is kept and they are not
FLOOR = 103.0  # nats; the public code adds 1e-45 to both probabilities, so that its scores end at 103.3


def folders(source: Path) -> list[Path]:
    """The models' folders, in the order of their numbers."""
    found = {path.parent for pattern in ("keep.npy", "*/keep.npy", "*/*/keep.npy") for path in source.glob(pattern)}
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))])


def read(source: Path, labels: Path | None = None) -> Run:
    """The models of a folder. Those that were not asked yet are left out, and named in the notes."""
    known = folders(source)
    if not known:
        raise RunError(f"{source}: no folder in it has a keep.npy; expected experiment-0_16/keep.npy and so on, each with logits or scores")
    label = _labels(source, known[0], labels)
    asked = _answers(known, label is not None)
    missing = [folder.name for folder in known if folder not in asked]
    if len(asked) < LEAST_MODELS:
        raise RunError(f"{source}: {_incomplete(known, asked, missing, label is not None)}")
    signals, keep, notes = _signals(asked, label)
    n = next(iter(signals.values())).shape[1]
    if missing:
        notes.append(f"{len(missing)} of {len(known)} folders have no answers and were left out: {', '.join(missing[:5])}.")
    return made(
        [folder.name for folder in asked], _sample_ids(known[0].parent, n), keep, signals, where=str(source),
        label=None if label is None else label[:n], notes=notes,
    )  # fmt: skip


def _incomplete(known: list[Path], asked: dict[Path, Path], missing: list[str], has_labels: bool) -> str:
    text = f"{len(known)} folders with a keep.npy, {len(asked)} of them with answers, at least {LEAST_MODELS} are needed"
    if not has_labels and any(_newest(folder, "logits") for folder in known):
        return f"{text}; logits are there, and say nothing without labels: put y_train.npy beside the folders, or give --labels"
    lacking = f"; {missing[0]} has neither logits/*.npy, logits.npy, scores/*.npy nor scores.npy" if missing else ""
    return f"{text}{lacking}; ask the models first, with the run's own inference"


def _newest(folder: Path, kind: str) -> Path | None:
    """The file of logits or scores of the last checkpoint."""
    files = sorted((folder / kind).glob("*.npy")) or [path for path in (folder / f"{kind}.npy",) if path.is_file()]
    return files[-1] if files else None


def _answers(known: list[Path], has_labels: bool) -> dict[Path, Path]:
    """The file that is read of each model: logits of all that have them, or scores where more models have these or labels are missing."""
    files = {kind: {folder: path for folder in known if (path := _newest(folder, kind)) is not None} for kind in ("logits", "scores")}
    return files["logits"] if has_labels and len(files["logits"]) >= len(files["scores"]) else files["scores"]


def _labels(source: Path, folder: Path, given: Path | None) -> np.ndarray | None:
    places = [given] if given else [place / name for place in (source, folder.parent) for name in LABELS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if given:
            raise RunError(f"{given}: there is no such file of labels (looked in {Path.cwd()})")
        return None
    labels = np.asarray(artefacts.read_array(path))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise RunError(f"{path}: has shape {labels.shape} and type {labels.dtype}, expected one whole number a sample: its class")
    return labels.astype(np.int64)


def _sample_ids(folder: Path, n: int) -> np.ndarray:
    """Rows of the run's own data; or what `memleak export` wrote beside."""
    path = folder / "sample_id.npy"
    return np.asarray(artefacts.read_array(path)) if path.is_file() else np.arange(n)


def _signals(asked: dict[Path, Path], label: np.ndarray | None) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """What all models say, model by model, [M, N, Q]; who trained on what [M, N]; notes."""
    signals: dict[str, np.ndarray] = {}
    keep, counted = [], Counter[str]()
    for row, (folder, path) in enumerate(asked.items()):
        found = _of_model(path, label, counted)
        shape = found["margin"].shape
        if row and shape != signals["margin"].shape[1:]:
            raise RunError(f"{path}: {shape[0]} samples in {shape[1]} views, the models before it have {signals['margin'].shape[1:]}; ask all alike")
        if not row and "logits" in found and len(asked) * found["logits"].size > KEPT_LOGITS:
            counted["logits left out"] = len(asked) * found["logits"].size * 4
        for name, values in found.items():
            if name != "logits" or not counted["logits left out"]:
                signals.setdefault(name, np.empty((len(asked), *values.shape), values.dtype))[row] = values
        keep.append(_kept(folder / "keep.npy", shape[0], counted))
    return signals, np.stack(keep), _notes(counted, signals)


def _of_model(path: Path, label: np.ndarray | None, counted: Counter[str]) -> dict[str, np.ndarray]:
    """What one model says, [N, Q] each, and [N, Q, C] logits."""
    values = np.asarray(artefacts.read_array(path))
    if "scores" in (path.stem, path.parent.name):
        margin = _views(values, path, "scores", "[N, Q]", 2).astype(np.float64)
        counted["at the floor"] += int((abs(margin) >= FLOOR).sum())
        with np.errstate(invalid="ignore"):  # what is not finite is refused once all models are read, with its place
            return {"margin": margin.astype(np.float32), "loss": np.logaddexp(0.0, -margin).astype(np.float32)}
    logits = _views(values, path, "logits", "[N, 1, Q, C] or [N, Q, C]", 3)
    if label is None or len(label) < len(logits):
        raise RunError(f"{path}: {len(logits)} samples, {0 if label is None else len(label)} labels; give labels of all samples")
    try:
        found = all_signals(logits, np.broadcast_to(label[: len(logits), None], logits.shape[:2]))
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    return found | {"logits": logits.astype(np.float32)}


def _views(values: np.ndarray, path: Path, what: str, expected: str, n_axes: int) -> np.ndarray:
    """Answers with an axis of views: of several checkpoints the last, and one view where no axis says how many."""
    if values.ndim == n_axes + 1:
        values = values[:, -1]
    elif values.ndim == n_axes - 1:
        values = values[:, None]
    if values.ndim != n_axes or not np.issubdtype(values.dtype, np.floating):
        raise RunError(f"{path}: {what} have shape {values.shape} and type {values.dtype}, expected {expected}, floating-point numbers")
    return values


def _kept(path: Path, n: int, counted: Counter[str]) -> np.ndarray:
    """Whether each of n samples was trained on, [n]: from truth values, from zeros and ones, or from the indices of those kept."""
    values = np.asarray(artefacts.read_array(path))
    is_mask = values.dtype == bool or (values.ndim == 1 and len(values) >= n and bool(np.isin(values, (0, 1)).all()))
    if values.ndim == 1 and is_mask and len(values) >= n:
        counted["longer"] = max(counted["longer"], len(values) - n)
        return values[:n].astype(bool)
    is_index = values.ndim == 1 and np.issubdtype(values.dtype, np.integer) and len(np.unique(values)) == len(values) <= n
    if not is_index or (len(values) and (values.min() < 0 or values.max() >= n)):
        raise RunError(
            f"{path}: {values.dtype} of shape {values.shape}; expected {n} truth values, one a sample, or the different indices (0 to {n - 1}) of those kept"
        )
    kept = np.zeros(n, dtype=bool)
    kept[values] = True
    counted["indices"] += 1
    return kept


def _notes(counted: Counter[str], signals: dict[str, np.ndarray]) -> list[str]:
    notes = []
    if counted["indices"]:
        notes.append(f"keep.npy of {counted['indices']} models holds the indices of the samples kept, not truth values.")
    if counted["longer"]:
        notes.append(f"keep.npy speaks of {counted['longer']:,} samples more than the models were asked about; these were left out.")
    if counted["at the floor"]:
        notes.append(
            f"{counted['at the floor']:,} scores lie {FLOOR:g} nats or more from 0, where the scoring code adds 1e-45: they are cut off; import logits for exact ones."
        )
    if "logits" not in signals and not counted["logits left out"]:
        notes.append("Scores only: margins and losses are known; confidence, entropies and correctness need logits and labels.")
    if counted["logits left out"]:
        notes.append(f"Logits ({counted['logits left out'] / 1e9:.1f} GB) were not kept; all signals that are made of one sample's logits were.")
    return notes
