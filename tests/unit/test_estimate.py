"""What attacks share: signals, counts, masked sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from worlds import gaussian_world

from memleak.attacks import AttackError, Needs, Pool, Turn, estimate
from memleak.attacks.estimate import Comparison


def test_loss_and_margin_are_made_from_each_other():
    margin = np.array([-30.0, -1.0, 0.0, 2.0, 30.0])

    loss = estimate.signal_of({"margin": margin}, "loss")

    assert loss == approx(np.log1p(np.exp(-margin)))
    assert estimate.signal_of({"loss": loss}, "margin") == approx(margin)


def test_a_signal_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(AttackError, match="'loss' is asked for, the evidence holds confidence, entropy; query it"):
        estimate.signal_of({"entropy": np.zeros(1), "confidence": np.zeros(1)}, "loss")


@pytest.mark.parametrize(
    ("name", "sign"), [("loss", -1), ("entropy", -1), ("modified_entropy", -1), ("margin", 1), ("confidence", 1), ("is_correct", 1)]
)
def test_signals_are_turned_so_that_higher_means_member(name, sign):
    assert estimate.turned(np.array([2.0]), name) == sign * 2.0


def test_values_that_are_not_finite_are_counted():
    with pytest.raises(AttackError, match="margin: 2 of 3 values are not finite"):
        estimate.finite(np.array([np.nan, 1.0, -np.inf]), "margin")
    assert estimate.finite(np.ones(2, dtype=np.float32), "margin").dtype == np.float64


@pytest.mark.parametrize(("n", "models", "views"), [(0, 4, 1), (1, 4, 1), (1000, 7, 3), (3, 10**9, 1)])
def test_chunks_cover_all_samples_once_and_fit_into_memory(n, models, views):
    parts = list(estimate.chunks(n, models, views))

    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all((part.stop - part.start) * models * views <= max(estimate.CHUNK_VALUES, models * views) for part in parts)


def test_means_and_medians_are_those_of_the_named_models():
    draw = np.random.default_rng(0)
    values, where = draw.normal(size=(7, 40, 2)), draw.random((7, 40)) < 0.5
    where[:, 0], where[:, 1] = False, True

    means, medians = estimate.mean_where(values, where), estimate.median_where(values, where)

    assert np.isnan(means[0]).all() and np.isnan(medians[0]).all()
    for n in range(1, 40):
        assert means[n] == approx(values[where[:, n], n].mean(axis=0), nan_ok=True)
        assert medians[n] == approx(np.median(values[where[:, n], n], axis=0) if where[:, n].any() else [np.nan] * 2, nan_ok=True)


def test_sums_over_references_leave_out_all_others():
    world = gaussian_world(1.0, 8, 30, seed=0, views=2)
    values = world.pool.signals["margin"].astype(float)
    comparison = Comparison.of_turns(world.pool, world.turns)

    sums = comparison.over_references(values)

    for turn in world.turns:
        assert sums[turn.target] == approx(values[turn.references].sum(axis=0))
    assert np.array_equal(comparison.over_references(values, slice(2, 4)), sums[2:4])


def test_what_is_no_reference_counts_exactly_zero_times():
    world = gaussian_world(1.0, 8, 30, seed=0)
    values = world.pool.signals["margin"].astype(float)
    wild = values.copy()
    wild[:2] = 1e300  # the first target and its complement

    sums, wild_sums = (Comparison.of_turns(world.pool, world.turns[:1]).over_references(v) for v in (values, wild))

    assert np.array_equal(sums, wild_sums)


def test_too_few_references_of_a_turn_are_counted_without_the_target_and_its_complement():
    is_in = np.array([[True, False], [False, True], [True, False], [False, True]])
    pool = Pool({"loss": np.arange(8.0).reshape(4, 2, 1)}, is_in, sample_id=np.array([17, 18]))
    comparison = Comparison.of_turns(pool, [Turn(0, np.array([2, 3]))])

    comparison.require(Needs(("loss",), inside=1, outside=1), "any")
    with pytest.raises(AttackError, match="any: sample 17 has 1 IN references of 2, at least 2 are needed; train more"):
        comparison.require(Needs(("loss",), inside=2), "any")


def test_required_population_and_references_are_named():
    seen = gaussian_world(1.0, 8, 30, seed=0, population=5).evidence

    estimate.require(seen, Needs(("loss",), population=True, inside=3, outside=3), "any")
    with pytest.raises(AttackError, match="sample 0 has 3 IN references of 6, at least 4 are needed"):
        estimate.require(seen, Needs(("loss",), inside=4), "any")
    with pytest.raises(AttackError, match="the population is empty"):
        estimate.require(replace(seen, population_target=None), Needs(("loss",), population=True), "any")
    with pytest.raises(AttackError, match=r"is_in has shape \(6, 29\), expected \[M, 30\]"):
        estimate.require(replace(seen, is_in=seen.is_in[:, :29]), Needs(("loss",), outside=1), "any")


def test_arrays_of_other_shapes_are_refused():
    seen = gaussian_world(1.0, 8, 30, seed=0).evidence
    expected = r"expected \[N, Q\], \[M, N, Q\] and \[M, N\]"

    for wrong in (
        replace(seen, is_in=seen.is_in[:5]),
        replace(seen, is_in=seen.is_in[:, :5]),
        replace(seen, target={"loss": seen.target["loss"][:7]}),
        replace(seen, target={"loss": seen.target["loss"][:, 0]}, reference={"loss": seen.reference["loss"][:, :, 0]}),
    ):
        with pytest.raises(AttackError, match=expected):
            Comparison.of_evidence(wrong)


def test_a_constant_signal_is_refused_and_one_other_value_is_enough():
    loss = np.ones((4, 9, 1))
    pool = Pool({"loss": loss}, np.zeros((4, 9), dtype=bool))

    with pytest.raises(AttackError, match="any: every loss is 1, of all models and samples"):
        Comparison.of_turns(pool, [Turn(0, np.arange(1, 4))]).refuse_constant("loss", "any")
    loss[3, 8] = 2.0
    Comparison.of_turns(pool, [Turn(0, np.arange(1, 4))]).refuse_constant("loss", "any")
