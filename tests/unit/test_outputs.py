"""What a model gives, as logits: the signals are those of the logits that it did not give."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy.special import expit, softmax

from memleak import artefacts
from memleak.signals import SignalError, classifier, outputs

LOGITS = np.random.default_rng(0).normal(0, 4, (50, 5))
LABELS = np.random.default_rng(1).integers(0, 5, 50)


def test_probabilities_tell_what_their_logits_do():
    found = outputs.logits_of(softmax(LOGITS, axis=1), "probabilities", 5, "mine")

    theirs, ours = classifier.all_signals(LOGITS, LABELS), classifier.all_signals(found, LABELS)
    for name, expected in theirs.items():
        assert ours[name] == approx(expected, rel=1e-5, abs=1e-5), name


def test_the_margin_stays_exact_where_a_probability_rounds_to_one():
    """log p - log(1 - p) would be infinite: p is 1 in float32, and the others' sum is not 0."""
    logits = np.array([[30.0, 0.0, 1.0]])
    p = softmax(logits, axis=1).astype(np.float32)
    assert p[0, 0] == 1

    found = outputs.logits_of(p, "probabilities", 3, "mine")

    assert classifier.margin(found, np.array([0])) == approx(30 - np.log(1 + np.e), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_zero_get_a_floor_below_all_others_and_are_said_once(dtype, capsys):
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [1, 1e-30, 0]], dtype=dtype)
    where = f"model {np.dtype(dtype)}"

    found, _ = (outputs.logits_of(p, "probabilities", 3, where) for _ in range(2))

    assert np.isfinite(found).all() and np.isfinite(classifier.margin(found, np.array([1, 2, 2]))).all()
    assert found[2, 2] == found[0, 1] == approx(np.log(np.finfo(dtype).tiny)) and found[2, 2] < found[2, 1]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"{where}: 4 of 9 probabilities are 0")


def test_a_binary_logit_is_the_margin_of_the_second_class():
    z = LOGITS[:, 0]

    for given in (z, z[:, None]):
        found = outputs.logits_of(given, "binary_logit", 2, "mine")
        assert classifier.margin(found, np.ones(50, int)) == approx(z, rel=1e-6)
        assert classifier.margin(found, np.zeros(50, int)) == approx(-z, rel=1e-6)


def test_one_probability_is_that_of_the_second_class():
    found = outputs.logits_of(expit(LOGITS[:, :1]), "probabilities", 2, "mine")

    assert classifier.margin(found, np.ones(50, int)) == approx(LOGITS[:, 0], rel=1e-5)


def test_labels_tell_whether_they_are_right_and_nothing_else():
    said = np.array([0, 1, 2, 2])

    for given in (said, said[:, None], said.astype(float), np.eye(3)[said]):
        found = outputs.logits_of(given, "labels", 3, "mine")
        assert classifier.is_correct(found, np.array([0, 1, 1, 2])).tolist() == [True, True, False, True]
        assert np.isfinite(classifier.loss(found, np.array([0, 1, 1, 2]))).all()
    assert outputs.signals_known("labels") == ("is_correct",)
    assert outputs.signals_known("logits") == outputs.signals_known("probabilities") == tuple(artefacts.SIGNALS)


def test_logits_stay_as_they_are():
    found = outputs.logits_of(LOGITS.astype(np.float32), "logits", 5, "mine")

    assert found.dtype == np.float64 and np.array_equal(found, LOGITS.astype(np.float32))


P = softmax(LOGITS, axis=1)
WRONG = {
    "logits that are probabilities": (P, "logits", 5, "are probabilities already.*set output: probabilities"),
    "logits of other classes": (LOGITS, "logits", 6, r"logits have shape \(50, 5\), expected one column for each of 6 classes"),
    "logits of one number": (LOGITS[:, 0], "logits", 2, r"logits have shape \(50,\)"),
    "logits that are not finite": (np.where(np.arange(50)[:, None] > 47, np.nan, LOGITS), "logits", 5, "2 of 50 answers are NaN .*first is row 48"),
    "logits of several views": (LOGITS[None], "logits", 5, r"logits have shape \(1, 50, 5\)"),
    "probabilities that are logits": (LOGITS, "probabilities", 5, "probabilities go from -.*are they logits"),
    "probabilities of a sigmoid each": (expit(LOGITS), "probabilities", 5, r"50 of 50 records do not sum to 1 \(record 0: .*one sigmoid each"),
    "a binary logit of three classes": (LOGITS[:, 0], "binary_logit", 3, "of two classes, the data set has 3"),
    "a binary logit of two columns": (LOGITS[:, :2], "binary_logit", 2, r"has shape \(50, 2\), expected \[n\] or \[n, 1\]"),
    "labels beyond the classes": (LABELS, "labels", 4, r"labels are no class \(such as 4\); expected 0 to 3"),
    "labels below the classes": (LABELS - 1, "labels", 5, r"such as -1"),
    "labels that are fractions": (LABELS + 0.5, "labels", 6, r"50 of 50 labels are no class"),
    "labels that are probabilities": (P, "labels", 5, "not one 1 among zeros; are they output: logits"),
}


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_an_output_that_is_not_what_it_is_said_to_be_is_named(fault):
    output, kind, n_classes, expected = WRONG[fault]

    with pytest.raises(SignalError, match="^mine: .*" + expected):
        outputs.logits_of(output, kind, n_classes, "mine")
