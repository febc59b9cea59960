"""The laws of a model of the user's: it can be asked, it gives what it is said to give, and each answer is about one record alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from memleak import data, plugins, randomness
from memleak.contracts import Finding, judged
from memleak.data import Samples, forms
from memleak.models import given
from memleak.params.designs import GivenModel
from memleak.signals.outputs import logits_of

N_ASKED = 512  # records, drawn from the data set; each is asked about three times, and of a network some times more
N_ALONE = 8  # of them, asked about by themselves
TOLERANCE = 1e-4  # of the largest answer: by so much other kernels for another batch size may differ in float32
SETTINGS = ("scaled", "stored", "normalised")  # ways to give records to a network


def check(model: GivenModel, data_name: str, source: str | None = None, device: torch.device | str = "cpu") -> Iterator[Finding]:
    """The laws, one after the other; after a model that cannot be asked nothing else is tried."""
    samples: list[Samples] = []
    loaded: list[given.Given] = []
    answers: list[np.ndarray] = []

    def has_records() -> str:
        samples.append(data.check(forms.load(plugins.function_of("datasets", data_name), source, data_name), data_name))
        return ""

    def is_there() -> str:
        records = given.Records.of(samples[0])
        loaded.append(given.load(model, replace(records, n_classes=model.classes or records.n_classes), device))
        return ""

    def answers_all() -> str:
        answers.append(loaded[0].answer(inputs))
        return ""

    readable = judged("the data set can be read", has_records)
    yield readable
    if readable.state == "broken":
        return
    there = judged("it can be loaded, and weights fit", is_there)
    yield replace(there, why=loaded[0].form) if there.state == "kept" else there
    if there.state == "broken":
        return
    inputs, labels = _drawn(samples[0])
    can_be_asked = judged("it gives one finite answer for each record, of the classes of the data set", answers_all)
    yield can_be_asked
    if can_be_asked.state == "broken":
        return
    again = judged("the same records get the same answers", lambda: _again(answers[0], loaded[0].answer(inputs)))
    yield again
    if again.state == "kept":  # otherwise answers differ for that alone
        yield judged("the answer about a record does not depend on those asked with it", lambda: _batch_mates(loaded[0], inputs, answers[0]))
    is_said = judged("its output is what it is said to be", lambda: _not_as_said(model, answers[0], loaded[0]))
    yield is_said
    if is_said.state == "broken":
        return
    guesses = _guesses(answers[0], loaded[0])
    yield judged("it is right more often than guessing", lambda: _guessing(guesses, labels), "doubtful")
    if not loaded[0].form.startswith(("estimator", "function")):  # those are asked about records as they are stored
        yield judged("it is given records as in its training", lambda: _other_setting(guesses, inputs, labels, loaded[0]), "doubtful")
    yield judged("its classes are in the order of the labels", lambda: _mixed_up(guesses, labels), "doubtful")


def _drawn(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Up to N_ASKED records and their labels, the same ones every time."""
    n = len(samples.labels)
    rows = np.sort(randomness.generator(0, "check models").permutation(n)[:N_ASKED])
    return samples.inputs[rows], samples.labels[rows]


def _differing(one: np.ndarray, other: np.ndarray, tolerance: float) -> tuple[int, float]:
    """How many rows of two outputs differ by more than a share of the largest answer, and the largest difference."""
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64)).reshape(len(one), -1).max(axis=1)
    return int((apart > tolerance * max(1.0, float(np.abs(one).max()))).sum()), float(apart.max())


def _again(first: np.ndarray, second: np.ndarray) -> str:
    n, largest = _differing(first, second, 1e-6)
    return f"{n} of {len(first)} answers differ by up to {largest:.2g} the second time; does it draw random numbers (dropout, noise)?" if n else ""


def _batch_mates(model: given.Given, inputs: np.ndarray, answers: np.ndarray) -> str:
    alone = np.concatenate([model.answer(inputs[i : i + 1]) for i in range(min(N_ALONE, len(inputs)))])
    among_others = model.answer(inputs[::-1])[::-1]
    for found, how in ((alone, "when a record is asked about by itself"), (among_others, "when records are asked about in another order")):
        n, largest = _differing(answers[: len(found)], found, TOLERANCE)
        if n:
            return (
                f"{n} of {len(found)} answers differ by up to {largest:.2g} {how}; "
                "normalise by what training saw (batch normalisation in evaluation mode), not by the batch"
            )
    return ""


def _not_as_said(model: GivenModel, answers: np.ndarray, loaded: given.Given) -> str:
    """Why an output is not of its kind. What signals refuse is said by them."""
    logits_of(answers, model.output, loaded.records.n_classes, loaded.where)
    values = answers.reshape(-1)
    if model.output == "binary_logit" and values.min() >= 0 and values.max() <= 1:
        if len(np.unique(values)) > 2:
            return f"all {len(values)} numbers lie between 0 and 1, so they are probabilities of the second class; set output: probabilities"
        return "all numbers are 0 or 1, so they are labels; set output: labels"
    if model.output == "logits" and _is_one_hot(answers):
        return "each row is one 1 among zeros, so they are labels; set output: labels"
    if model.output == "probabilities" and _is_one_hot(answers):
        return "each row is one 1 among zeros: labels, or probabilities that were rounded; set output: labels"
    return ""


def _is_one_hot(answers: np.ndarray) -> bool:
    return answers.ndim == 2 and answers.shape[1] > 1 and bool(np.isin(answers, (0, 1)).all() and (answers.sum(axis=1) == 1).all())


def _guesses(answers: np.ndarray, loaded: given.Given) -> np.ndarray:
    """The class that each answer says, [n]."""
    return logits_of(answers, loaded.model.output, loaded.records.n_classes, loaded.where).argmax(axis=1)


def _guessing(guesses: np.ndarray, labels: np.ndarray) -> str:
    """Whether the model knows no more than the most frequent class."""
    right, chance = float((guesses == labels).mean()), float(np.bincount(labels).max() / len(labels))
    if right > chance + 3 * np.sqrt(chance * (1 - chance) / len(labels)):
        return ""
    said = f"it is right about {right:.0%} of {len(labels)} records, always saying the most frequent class about {chance:.0%}"
    return f"{said}; are its weights loaded, mean and std those of its training, and its classes in the order of the labels?"


def _other_setting(guesses: np.ndarray, inputs: np.ndarray, labels: np.ndarray, loaded: given.Given) -> str:
    """Whether the model is right far more often when records are given to it in another way."""
    right, found = float((guesses == labels).mean()), {}
    for setting in SETTINGS:
        asked = loaded.model.model_copy(update={"inputs": setting, "mean": (), "std": ()})
        if asked != loaded.model:
            other = given.load(asked, loaded.records, loaded.device)
            found[setting] = float((_guesses(other.answer(inputs), other) == labels).mean())
    best = max(found, key=lambda setting: found[setting])
    if found[best] < right + 0.1:
        return ""
    return f"it is right about {right:.0%} of {len(labels)} records, and about {found[best]:.0%} with inputs: {best}, without mean and std"


def _mixed_up(guesses: np.ndarray, labels: np.ndarray) -> str:
    """Whether the model is right far more often once its classes are renamed as fits best."""
    n_classes = int(max(guesses.max(), labels.max())) + 1
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)  # [said, true]
    np.add.at(counts, (guesses, labels), 1)
    said, true = linear_sum_assignment(-counts)
    right, renamed = float(np.trace(counts) / len(labels)), float(counts[said, true].sum() / len(labels))
    if renamed < max(0.5, right + 0.2):
        return ""
    moved = [(int(one), int(other)) for one, other in zip(said, true, strict=True) if one != other and counts[one, other]]
    listed = ", ".join(f"{one} is label {other}" for one, other in moved[:4]) + (" ..." if len(moved) > 4 else "")
    return f"it is right about {right:.0%}, and would be about {renamed:.0%} if its classes were renamed (its class {listed})"
