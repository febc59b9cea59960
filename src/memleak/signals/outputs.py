"""What a given model answers, as logits: so that every signal and attack reads one form, whatever the model gives."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np

from memleak import artefacts
from memleak.signals import SignalError, classifier

Kind = Literal["logits", "probabilities", "binary_logit", "labels"]
SUM_TOLERANCE = 1e-3  # of the probabilities of a record: rounded to four digits they still sum to 1 so nearly
RANGE_TOLERANCE = 1e-6  # beyond 0 and 1, from float32
NEVER = -1e4  # logit of the classes that a model which gives labels did not choose; finite, for NaN would follow from infinity
_said: set[str] = set()  # what was said of which model, once


def signals_known(kind: Kind) -> tuple[str, ...]:
    """The columns of signals that mean something: of labels alone, whether they are right."""
    return ("is_correct",) if kind == "labels" else tuple(artefacts.SIGNALS)


def logits_of(output: np.ndarray, kind: Kind, n_classes: int, where: str) -> np.ndarray:
    """Logits [n, C] float64 that say the same as an output: of probabilities their logarithm, of labels 0 for the label and -10000 for others.

    The margin of log-probabilities is log p - log of the others' sum, which stays exact where p rounds to 1. `where`
    names the model in what is said. Raises SignalError where the output is not what `kind` says.
    """
    output = np.asarray(output)
    if output.ndim not in (1, 2):
        raise SignalError(f"{where}: {kind} have shape {output.shape}, expected [n, {n_classes}] or [n]")
    is_bad = ~np.isfinite(output).reshape(len(output), -1).all(axis=1)
    if is_bad.any():
        raise SignalError(f"{where}: {int(is_bad.sum())} of {len(output)} answers are NaN or infinite, the first is row {int(is_bad.argmax())}")
    return {"logits": _of_logits, "probabilities": _of_probabilities, "binary_logit": _of_binary, "labels": _of_labels}[kind](
        output, n_classes, where
    )


def _of_logits(output: np.ndarray, n_classes: int, where: str) -> np.ndarray:
    logits = _columns(output, n_classes, where, "logits")
    try:
        classifier.confidence(logits)
    except ValueError as error:
        raise SignalError(f"{where}: {error}; set output: probabilities") from None
    return logits


def _columns(output: np.ndarray, n_classes: int, where: str, kind: str) -> np.ndarray:
    if output.ndim != 2 or output.shape[1] != n_classes:
        raise SignalError(f"{where}: {kind} have shape {output.shape}, expected one column for each of {n_classes} classes")
    return output.astype(np.float64)


def _of_probabilities(output: np.ndarray, n_classes: int, where: str) -> np.ndarray:
    step = float(np.finfo(output.dtype if output.dtype.kind == "f" else np.float64).tiny)
    if n_classes == 2 and (output.ndim == 1 or output.shape[1] == 1):  # of the second class alone
        second = output.reshape(-1).astype(np.float64)
        found = np.stack([1 - second, second], axis=1)
    else:
        found = _columns(output, n_classes, where, "probabilities")
    if found.size and (found.min() < -RANGE_TOLERANCE or found.max() > 1 + RANGE_TOLERANCE):
        raise SignalError(
            f"{where}: probabilities go from {found.min():.4g} to {found.max():.4g}, expected 0 to 1; are they logits (output: logits)?"
        )
    sums = found.sum(axis=1)
    is_off = abs(sums - 1) > SUM_TOLERANCE
    if is_off.any():
        raise SignalError(
            f"{where}: the probabilities of {int(is_off.sum())} of {len(found)} records do not sum to 1 (record {int(is_off.argmax())}: "
            f"{sums[is_off.argmax()]:.4g}); are they logits (output: logits), or of labels that exclude each other not (one sigmoid each)?"
        )
    is_zero = found < step
    if is_zero.any():
        _say(
            f"{where}: {int(is_zero.sum())} of {found.size} probabilities are 0, whose logarithm does not exist; they count as {step:.2g}, "
            "the smallest that their type holds; logits would tell more"
        )
    return np.log(np.clip(found, step, 1.0))


def _of_binary(output: np.ndarray, n_classes: int, where: str) -> np.ndarray:
    if n_classes != 2:
        raise SignalError(f"{where}: output: binary_logit is of two classes, the data set has {n_classes}")
    if output.ndim == 2 and output.shape[1] != 1:
        raise SignalError(f"{where}: a binary_logit has shape {output.shape}, expected [n] or [n, 1]; is it output: logits?")
    second = output.reshape(-1).astype(np.float64)
    return np.stack([np.zeros_like(second), second], axis=1)


def _of_labels(output: np.ndarray, n_classes: int, where: str) -> np.ndarray:
    if output.ndim == 2 and output.shape[1] > 1:
        rows = _columns(output, n_classes, where, "labels")
        if not (((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all()):
            raise SignalError(f"{where}: labels have {n_classes} columns that are not one 1 among zeros; are they output: logits, or probabilities?")
        labels = rows.argmax(axis=1)
    else:
        labels = output.reshape(-1)
    if labels.size and ((labels != np.floor(labels)).any() or labels.min() < 0 or labels.max() >= n_classes):
        wrong = labels[(labels != np.floor(labels)) | (labels < 0) | (labels >= n_classes)]
        raise SignalError(f"{where}: {len(wrong)} of {len(labels)} labels are no class (such as {wrong[0]:g}); expected 0 to {n_classes - 1}")
    return np.where(np.arange(n_classes) == labels.astype(np.int64)[:, None], 0.0, NEVER)


def _say(sentence: str) -> None:
    """Tell it once of each model."""
    where = sentence.partition(": ")[0]
    if where not in _said:
        _said.add(where)
        print(sentence, file=sys.stderr, flush=True)
