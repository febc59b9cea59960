"""The layout of ML Privacy Meter: `models/memberships.npy` [M, N] and `signals/*_signals.npy` [N, M], probabilities of the label.

Its range attack asks about S samples around each one, rows [N S, M]: read as S views. `*_signals_pop.npy` [Z, M] is
the population. Models 2k and 2k + 1 are complements, which is found out and not taken for granted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memleak import artefacts
from memleak.imports.run import Run, RunError, made

PREFERRED = ("rmia_signals.npy", "loss_signals.npy", "rmia_ramia_signals.npy", "loss_ramia_signals.npy")


def memberships(source: Path) -> Path | None:
    """Where it is written who trained on what."""
    return next((path for path in (source / "models/memberships.npy", source / "memberships.npy") if path.is_file()), None)


def read(source: Path, labels: Path | None = None) -> Run:
    """The models of a log folder."""
    path = memberships(source)
    if path is None:
        raise RunError(f"{source}: has neither models/memberships.npy nor memberships.npy; give the log_dir of the run")
    is_member = np.asarray(artefacts.read_array(path))
    if is_member.ndim != 2 or not np.isin(is_member, (0, 1)).all():
        raise RunError(f"{path}: {is_member.dtype} of shape {is_member.shape}; expected truth values [M, N]: a row for each model")
    asked = _signal_file(source)
    probability = _probabilities(asked)
    n_models, n_samples = probability.shape[1], is_member.shape[1]
    if n_models > len(is_member) or len(probability) % n_samples:
        raise RunError(
            f"{asked}: has shape {probability.shape}, {path.name} {is_member.shape}; expected a row for each of {n_samples} samples (or several) "
            f"and a column for each of {len(is_member)} models; do both come from one run?"
        )
    signals, notes = _signals(probability, n_samples)
    if n_models < len(is_member):
        notes.append(f"{path.name} has {len(is_member)} models, {asked.name} answers of the first {n_models}; the others were left out.")
    population = None
    outside = asked.with_name(f"{asked.stem}_pop.npy")
    if outside.is_file() and len(probability) == n_samples:  # the range attack asks about views of the samples, and not of these
        population, told = _signals(_of_same_models(outside, n_models), None)
        notes += [f"{outside.name}: {note}" for note in told]
    ids = source / "sample_id.npy"
    return made(
        [f"model-{row:04d}" for row in range(n_models)], np.asarray(artefacts.read_array(ids)) if ids.is_file() else np.arange(n_samples),
        is_member[:n_models].astype(bool), signals, where=str(source), label=_labels(source, labels, n_samples), notes=notes, population=population,
    )  # fmt: skip


def _signal_file(source: Path) -> Path:
    files = [path for place in (source / "signals", source) for path in sorted(place.glob("*signals.npy"))]
    if not files:
        raise RunError(f"{source}: has no signals/*_signals.npy, for example signals/rmia_signals.npy; run the audit there first")
    known = {path.name: path for path in reversed(files)}
    return next((known[name] for name in PREFERRED if name in known), files[0])


def _probabilities(path: Path) -> np.ndarray:
    values = np.asarray(artefacts.read_array(path))
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise RunError(f"{path}: {values.dtype} of shape {values.shape}; expected probabilities [N, M], a column for each model")
    if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
        n = int((~((values >= 0) & (values <= 1))).sum())
        raise RunError(
            f"{path}: {n:,} of {values.size:,} values are no probabilities (the least is {np.nanmin(values):g}, the largest {np.nanmax(values):g}); "
            "expected softmax of the label; import losses as a table"
        )
    return values


def _of_same_models(path: Path, n_models: int) -> np.ndarray:
    values = _probabilities(path)
    if values.shape[1] != n_models:
        raise RunError(f"{path}: has shape {values.shape}, expected a column for each of {n_models} models; delete it, and its audit asks again")
    return values


def _signals(probability: np.ndarray, n_samples: int | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Margin and loss of probabilities [N Q, M], each [M, N, Q]; a probability of exactly 0 or 1 becomes the nearest that its type can tell from it."""
    limits = np.finfo(probability.dtype)
    least, most = float(limits.tiny), 1.0 - float(limits.epsneg)
    values = probability.astype(np.float64)
    at_0, at_1 = int((values < least).sum()), int((values > most).sum())
    values = values.clip(least, most)
    margin = np.log(values) - np.log1p(-values)
    shape = (n_samples or len(values), -1, values.shape[1])
    found = {name: array.reshape(shape).transpose(2, 0, 1).astype(np.float32) for name, array in (("margin", margin), ("loss", -np.log(values)))}
    notes = []
    if at_0 or at_1:
        notes.append(
            f"{at_1:,} of {values.size:,} probabilities are 1 and {at_0:,} are 0, to {probability.dtype}: their margins end at "
            f"{np.log(most) - np.log1p(-most):.1f} and {np.log(least):.1f} nats, where samples tie."
        )
    if found["margin"].shape[2] > 1:
        notes.append(f"{found['margin'].shape[2]} rows belong to each sample, as the range attack asks; they are read as views of it.")
    return found, notes


def _labels(source: Path, given: Path | None, n: int) -> np.ndarray | None:
    path = given or source / "labels.npy"
    if not path.is_file():
        if given:
            raise RunError(f"{given}: there is no such file of labels (looked in {Path.cwd()})")
        return None
    labels = np.asarray(artefacts.read_array(path))
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise RunError(f"{path}: {labels.dtype} of shape {labels.shape}, expected {n} whole numbers: the class of each sample")
    return labels.astype(np.int64)
