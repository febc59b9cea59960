"""Signals of a classifier: exact in saturation, the same from NumPy and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytest import approx

from memleak.signals import classifier

LOGITS = np.random.default_rng(0).normal(0, 3, (200, 7))
LABELS = np.random.default_rng(1).integers(0, 7, 200)


def softmax(row):
    exp = [math.exp(z - max(row)) for z in row]
    return [e / math.fsum(exp) for e in exp]


def test_the_margin_is_the_logit_of_the_labels_probability():
    expected = [math.log(p[y]) - math.log(math.fsum(p[:y] + p[y + 1 :])) for p, y in zip(map(softmax, LOGITS), LABELS, strict=True)]

    assert classifier.margin(LOGITS, LABELS) == approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("size", [20.0, 200.0, 1e4])
def test_the_margin_is_exact_in_saturation(size):
    """Of z and three zeros the margin is z - log 3, though p rounds to 1 or 0 long before."""
    logits = np.array([[size, 0, 0, 0], [-size, 0, 0, 0]])

    assert classifier.margin(logits, np.array([0, 0])) == approx([size - np.log(3), -size - np.log(3)], rel=1e-6)
    assert classifier.margin(logits, np.array([1, 1]))[0] == approx(-size, rel=1e-6)


def test_two_classes_have_the_difference_of_their_logits():
    assert classifier.margin(np.array([[200.0, -200.0]]), np.array([0])) == approx(400)


def test_the_loss_is_the_softplus_of_the_negative_margin():
    margin = classifier.margin(LOGITS, LABELS).astype(np.float64)

    assert classifier.loss(LOGITS, LABELS) == approx(np.log1p(np.exp(-margin)), rel=1e-5)
    assert classifier.loss(np.array([[200.0, 0, 0], [-200.0, 0, 0]]), np.array([0, 0])) == approx([0.0, 200 + np.log(2)], abs=1e-30, rel=1e-6)


def test_the_loss_is_torchs_cross_entropy():
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(LABELS), reduction="none")

    assert classifier.loss(LOGITS, LABELS) == approx(theirs.numpy(), rel=1e-6)


def test_entropies_are_those_of_a_plain_sum():
    entropy, modified = [], []
    for p, y in zip(map(softmax, LOGITS), LABELS, strict=True):
        entropy.append(-math.fsum(q * math.log(q) for q in p))
        modified.append(-(1 - p[y]) * math.log(p[y]) - math.fsum(q * math.log1p(-q) for k, q in enumerate(p) if k != y))

    assert classifier.entropy(LOGITS) == approx(entropy, rel=1e-5)
    assert classifier.modified_entropy(LOGITS, LABELS) == approx(modified, rel=1e-4, abs=1e-6)
    assert classifier.confidence(LOGITS) == approx([max(softmax(row)) for row in LOGITS], rel=1e-6)


def test_entropies_by_hand_at_the_ends():
    even, sure = np.zeros((1, 4)), np.array([[200.0, 0, 0, 0]])

    assert classifier.entropy(even) == approx(np.log(4))
    assert classifier.entropy(sure) == approx(0, abs=1e-30)
    # even: (3/4) log 4 + 3 (1/4) log(4/3)
    assert classifier.modified_entropy(even, np.array([2])) == approx(0.75 * np.log(4) + 0.75 * np.log(4 / 3))
    assert classifier.modified_entropy(sure, np.array([0])) == approx(0, abs=1e-30)
    # sure and wrong: -log p_y = 200, and -p_0 log(1 - p_0) = 200 - log 3
    assert classifier.modified_entropy(sure, np.array([1])) == approx(400 - np.log(3), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_torch_and_numpy_give_the_same(dtype):
    logits = torch.from_numpy(LOGITS).to(dtype).requires_grad_()
    theirs = classifier.all_signals(logits, torch.from_numpy(LABELS))
    ours = classifier.all_signals(logits.detach().numpy(), LABELS)

    assert set(ours) == {"margin", "loss", "confidence", "entropy", "modified_entropy", "is_correct"}
    for name in ours:
        assert np.array_equal(ours[name], theirs[name])
        assert ours[name].dtype == (bool if name == "is_correct" else np.float32)


def test_any_leading_shape_is_kept():
    shaped = classifier.all_signals(LOGITS.reshape(4, 50, 7), LABELS.reshape(4, 50))
    flat = classifier.all_signals(LOGITS, LABELS)

    for name in flat:
        assert np.array_equal(shaped[name].ravel(), flat[name]) and shaped[name].shape == (4, 50)


def test_adding_a_number_to_all_logits_changes_nothing():
    assert classifier.margin(LOGITS + 1000, LABELS) == approx(classifier.margin(LOGITS, LABELS), abs=1e-5)


def test_renaming_the_classes_changes_nothing():
    order = np.random.default_rng(2).permutation(7)
    renamed = classifier.all_signals(LOGITS[:, order], np.argsort(order)[LABELS])

    for name, values in classifier.all_signals(LOGITS, LABELS).items():
        assert renamed[name] == approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), "labels go from 0 to 3, expected 0 to 2"),
        (np.zeros((2, 3)), np.array([-1, 0]), "labels go from -1 to 0"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "expected integers"),
        (np.zeros((2, 3)), np.array([0]), "expected integers of shape"),
        (np.zeros((2, 1)), np.array([0, 0]), "at least two classes"),
        (np.array([[0, np.nan], [0, 1]]), np.array([0, 0]), "1 rows of logits are not finite"),
        (np.array([[0, np.inf], [0, -np.inf]]), np.array([0, 0]), "2 rows of logits are not finite"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classifier.all_signals(logits, labels)


UNLABELLED = ("confidence", "entropy")


def signal_of(name, logits, labels):
    """A signal by its name, whether it asks for labels or not."""
    return getattr(classifier, name)(*((logits,) if name in UNLABELLED else (logits, labels)))


@pytest.mark.parametrize("signal", UNLABELLED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_signals_without_labels_refuse_logits_that_are_not_finite_in_the_same_words(signal, bad):
    logits = LOGITS.copy()
    logits[[3, 8], 2] = bad

    with pytest.raises(ValueError, match=r"^2 rows of logits are not finite$"):
        getattr(classifier, signal)(logits)
    with pytest.raises(ValueError, match=r"^2 rows of logits are not finite$"):
        getattr(classifier, signal)(torch.from_numpy(logits).half())


@pytest.mark.parametrize("name", ["margin", "loss", "confidence", "entropy", "modified_entropy", "is_correct"])
def test_all_signals_are_those_of_each_function(name):
    assert np.array_equal(classifier.all_signals(LOGITS, LABELS)[name], signal_of(name, LOGITS, LABELS))


def test_half_precision_logits_are_read_too():
    logits, label = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([1])

    for name in ("margin", *UNLABELLED):
        assert signal_of(name, logits.bfloat16(), label) == signal_of(name, logits.half(), label) == signal_of(name, logits, label)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("signal", ["margin", "loss", "confidence", "entropy", "modified_entropy", "is_correct", "all_signals"])
def test_probabilities_are_refused_where_logits_are_expected(signal, dtype):
    probabilities = np.array([softmax(row) for row in LOGITS], dtype=dtype)
    message = "all 200 rows of logits lie in .* and sum to 1, so they are probabilities already; give logits, or the logarithm"

    with pytest.raises(ValueError, match=message):
        signal_of(signal, probabilities, LABELS)
    with pytest.raises(ValueError, match=message):
        signal_of(signal, torch.from_numpy(probabilities).reshape(4, 50, 7), LABELS.reshape(4, 50))


def test_saturated_probabilities_are_refused_too():
    """Most rows of an overfitted model are one-hot in float32; a few that are not give them away."""
    saturated = np.eye(7)[LABELS]
    saturated[:3, :2] = [[0.25, 0.75], [0.5, 0.5], [0.125, 0.875]]
    saturated[:3, 2:] = 0

    with pytest.raises(ValueError, match="they are probabilities already"):
        classifier.margin(saturated, LABELS)


def test_the_logarithm_of_probabilities_gives_the_signals_of_the_logits():
    log_p = np.log([softmax(row) for row in LOGITS])

    assert classifier.margin(log_p, LABELS) == approx(classifier.margin(LOGITS, LABELS), rel=1e-5, abs=1e-6)


NO_PROBABILITIES = {
    "one row": np.array([[0.3, 0.7]]),
    "one row said three times": np.array([[0.3, 0.7]] * 3),
    "one-hot rows": np.eye(4)[[0, 1, 2, 3, 0]],
    "a row that sums to more": np.array([[0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [0.5, 0.501]]),
    "a value below 0": np.array([[0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [-0.1, 1.1]]),
    "small positive logits": np.random.default_rng(0).uniform(0, 0.5, (1000, 4)),
    "no rows": np.zeros((0, 3)),
}


@pytest.mark.parametrize("kind", NO_PROBABILITIES, ids=lambda kind: kind.replace(" ", "-"))
def test_logits_that_only_look_like_probabilities_are_accepted(kind):
    logits = NO_PROBABILITIES[kind]
    labels = np.zeros(len(logits), dtype=int)
    expected = [row[0] - math.log(math.fsum(math.exp(z) for z in row[1:])) for row in logits]

    assert classifier.margin(logits, labels) == approx(expected, rel=1e-5, abs=1e-6)
