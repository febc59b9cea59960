"""Laws of the steps of a release, whatever the probabilities and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytest import approx
from scipy import special

from memleak import plugins
from memleak.params import plugin_options
from memleak.signals import classifier
from memleak.signals.release import LEAST, released, stepped

settings.register_profile("laws", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("laws")

N_CLASSES = st.integers(2, 12)


@st.composite
def answers(draw, n_classes=N_CLASSES):
    """Probabilities [n, C]: of networks, sure ones among them; with ties; with zeros; rounded already."""
    shape = (draw(st.integers(1, 6)), draw(n_classes))
    few = st.sampled_from([0.0, 0.0, 1.0, 2.0, -3.0])
    logits = draw(hnp.arrays(np.float64, shape, elements=st.floats(-40, 40) | few))
    p = special.softmax(logits, axis=1)
    if draw(st.booleans()):
        p = np.where(p < 1e-3, 0.0, p)
        p = p / p.sum(axis=1, keepdims=True)
    return p


@st.composite
def steps(draw, n_classes):
    """One step of ours and options of it that go with the classes."""
    name = draw(st.sampled_from(sorted(plugins.BUILT_IN["releases"])))
    options: dict[str, Any] = {
        "top_k": lambda: {"k": draw(st.integers(1, n_classes - 1))},
        "round": lambda: {"digits": draw(st.integers(1, 6))},
        "labels": lambda: {},
        "temperature": lambda: {"temperature": draw(st.floats(0.05, 50))},
        "noise": lambda: {"scale": draw(st.floats(1e-3, 10)), "keep_label": draw(st.booleans()), "seed": draw(st.integers(0, 3))},
        "memguard": lambda: {
            "budget": draw(st.floats(0.01, 2)),
            "confidence": draw(st.floats(1 / n_classes, 0.99).filter(lambda c: c * n_classes >= 1)),
        },
    }[name]()
    return name, plugin_options("releases", {"name": name, **options})


@st.composite
def asked(draw, n_steps=1):
    """Answers, and steps that they go through."""
    p = draw(answers())
    return p, [draw(steps(p.shape[1])) for _ in range(n_steps)]


def after(p, chain):
    for name, options in chain:
        p, _ = stepped(p, LEAST, name, options)
    return p


def entry(name, **options):
    return name, plugin_options("releases", {"name": name, **options})


@given(asked(n_steps=3))
def test_rows_sum_to_one_and_nothing_is_negative(found):
    p, chain = found
    for step in chain:
        p = after(p, [step])

        assert p.min() >= 0 and p.sum(axis=1) == approx(1, abs=1e-9) and p.dtype == np.float64


@given(asked(n_steps=3))
def test_every_step_that_promises_it_keeps_the_label(found):
    p, chain = found
    for name, options in chain:
        seen = after(p, [(name, options)])
        if options.keeps_label:
            assert np.array_equal(seen.argmax(axis=1), p.argmax(axis=1)), name
            assert np.array_equal(np.log(np.maximum(seen, 1e-12)).argmax(axis=1), p.argmax(axis=1)), name
        p = seen


def test_only_noise_that_is_let_does_not_promise_to_keep_the_label():
    chosen = {
        "top_k": {"k": 1},
        "round": {"digits": 1},
        "temperature": {"temperature": 2},
        "noise": {"scale": 1},
        "memguard": {"budget": 1},
        "labels": {},
    }

    assert set(chosen) == set(plugins.BUILT_IN["releases"])
    assert all(entry(name, **options)[1].keeps_label for name, options in chosen.items())
    assert not entry("noise", scale=1, keep_label=False)[1].keeps_label


@given(asked(n_steps=2), st.randoms(use_true_random=False))
def test_a_row_is_answered_alike_whatever_is_beside_it_and_in_whatever_order(found, random):
    p, chain = found
    order = np.array(random.sample(range(len(p)), len(p)))
    whole = after(p, chain)

    assert np.array_equal(after(p[order], chain), whole[order])
    assert np.array_equal(after(p[:1], chain), whole[:1])


@given(asked())
def test_a_step_writes_to_nothing_and_answers_alike_again(found):
    p, ((name, options),) = found
    before = p.copy()
    function = plugins.function_of("releases", name)

    assert np.array_equal(function(p, options), function(p, options)) and np.array_equal(p, before)


@given(asked())
def test_labels_after_anything_are_the_labels_of_that(found):
    p, chain = found
    seen = after(p, [*chain, entry("labels")])

    assert np.array_equal(seen, np.eye(p.shape[1])[after(p, chain).argmax(axis=1)])


@given(answers(st.integers(3, 12)), st.data())
def test_top_k_again_changes_nothing_and_fewer_after_more_is_fewer(p, data):
    k = data.draw(st.integers(1, p.shape[1] - 1))
    fewer = data.draw(st.integers(1, k))
    once = after(p, [entry("top_k", k=k)])

    assert np.array_equal(after(once, [entry("top_k", k=k)]), once)
    assert after(once, [entry("top_k", k=fewer)]) == approx(after(p, [entry("top_k", k=fewer)]), abs=1e-12)


@given(answers(), st.integers(1, 6))
def test_rounding_again_changes_nothing_and_moves_no_probability_by_two_units(p, digits):
    step, unit = entry("round", digits=digits), 10.0**-digits
    once = after(p, [step])

    assert np.array_equal(after(once, [step]), once)
    assert abs(once - p).max() <= 2 * unit
    assert (abs(once / unit - np.rint(once / unit)) < 1e-6).all()


@given(answers(), st.integers(1, 6))
def test_rounding_turns_no_order_round(p, digits):
    seen = after(p, [entry("round", digits=digits)])
    is_larger = p[:, :, None] > p[:, None, :] + 1e-9

    assert (seen[:, :, None] >= seen[:, None, :] - 1e-12)[is_larger].all()


@given(answers(), st.floats(0.2, 5), st.floats(0.2, 5))
def test_temperatures_multiply(p, one, other):
    assume(p[p > 0].min() > 1e-15)  # below, the first may leave nothing of it
    both, at_once = (after(p, [entry("temperature", temperature=t) for t in ts]) for ts in ([one, other], [one * other]))

    assert both == approx(at_once, abs=1e-7)


@given(answers(), st.floats(0.01, 2), st.floats(0.5, 0.99))
def test_memguard_moves_whole_answers_or_nothing(p, budget, confidence):
    seen = after(p, [entry("memguard", budget=budget, confidence=confidence)])
    is_moved = abs(seen - p).sum(axis=1) > 1e-12

    assert seen[is_moved].max(axis=1) == approx(confidence, rel=1e-8)
    assert (p[is_moved].max(axis=1) > confidence).all()


@pytest.mark.parametrize("least", [1e-300, 1e-9, 1e-3])
@given(asked())
def test_what_a_zero_counts_as_is_a_small_probability(least, found):
    p, ((_, options),) = found
    says = getattr(options, "least", lambda before, n_classes: before)

    assert 0 < says(least, p.shape[1]) < 1 / p.shape[1]


@given(answers(), st.floats(0.2, 5), st.floats(1e-9, 1e-2))
def test_what_was_above_a_zero_stays_above_it_whatever_the_temperature(p, temperature, least):
    options = entry("temperature", temperature=temperature)[1]
    seen = after(p, [("temperature", options)])

    assert (seen[p > least] >= options.least(least, p.shape[1]) * (1 - 1e-9)).all()


@given(answers(), st.data())
def test_every_signal_of_what_is_released_is_finite(p, data):
    name, options = data.draw(steps(p.shape[1]))
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(p), -700)
    seen = released(logits, [{"name": name, "options": options.model_dump()}])

    for signal, values in classifier.all_signals(seen, np.zeros(len(p), dtype=int)).items():
        assert np.isfinite(values).all(), signal
