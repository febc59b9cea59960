"""Random streams: the same everywhere, unrelated to each other, and blind to what else is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from memleak import randomness

KEY = randomness.derive(7, "some", "stream")


def test_a_stream_has_the_same_key_on_every_machine():
    assert randomness.derive(0, "subset", 3) == 2346945864526597716  # the first 8 bytes of SHA-256 of [0,"subset",3], over 4
    assert 0 <= KEY < 2**62


def test_streams_of_other_seeds_and_names_have_other_keys():
    keys = {randomness.derive(seed, *name) for seed in range(20) for name in [("a",), ("b",), ("a", 0), ("a", 1), ("a", "0"), ("a", 0, 0)]}

    assert len(keys) == 120


def test_numpy_and_torch_agree_bit_for_bit():
    ids, feature = np.arange(3000)[:, None], np.arange(50)[None, :]

    ours = randomness.counter_uniform(KEY, ids, feature)
    theirs = randomness.counter_uniform(KEY, torch.from_numpy(ids), torch.from_numpy(feature))

    assert np.array_equal(ours, theirs.numpy())
    assert np.array_equal(randomness.counter_bits(KEY, ids), randomness.counter_bits(KEY, torch.from_numpy(ids)).numpy())


def test_bits_are_those_of_unbounded_integers():
    """The product of two 32-bit numbers wraps around int64; Python's integers do not wrap."""
    ids = np.array([0, 1, 2, 1796, 49_999, 2**31, 2**40 + 5])

    assert randomness.counter_bits(KEY, ids).tolist() == [randomness.counter_bits(KEY, int(i)) for i in ids]


def test_the_number_of_a_sample_does_not_depend_on_its_batch():
    ids = np.arange(100)
    alone = [randomness.counter_uniform(KEY, np.array([i])).item() for i in ids]

    assert np.array_equal(randomness.counter_uniform(KEY, ids), alone)
    assert np.array_equal(randomness.counter_uniform(KEY, ids[::-1])[::-1], alone)


def test_uniform_numbers_are_uniform_and_below_one():
    u = randomness.counter_uniform(KEY, np.arange(200_000))

    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert randomness.counter_uniform(KEY, np.arange(8)).astype(np.float32).max() < 1


@pytest.mark.parametrize("other", [randomness.derive(7, "some", "stream", 0), KEY + 1, KEY ^ (1 << 40)])
def test_streams_are_independent(other):
    ids = np.arange(100_000)
    a, b = randomness.counter_uniform(KEY, ids), randomness.counter_uniform(other, ids)
    cells = np.histogram2d(a, b, bins=10)[0]

    assert stats.chisquare(cells.ravel()).pvalue > 0.001


def test_neighbouring_samples_and_features_are_independent():
    u = randomness.counter_uniform(KEY, np.arange(400)[:, None], np.arange(250)[None, :])

    for a, b in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u[:250], u[:250].T)):
        keep = ~np.eye(250, dtype=bool) if a.shape == (250, 250) else np.ones(a.shape, bool)
        assert abs(np.corrcoef(a[keep], b[keep])[0, 1]) < 0.02


def test_a_generator_repeats_itself_and_no_other():
    first = randomness.generator(0, "subset", 1).random(1000)

    assert np.array_equal(first, randomness.generator(0, "subset", 1).random(1000))
    assert abs(np.corrcoef(first, randomness.generator(0, "subset", 2).random(1000))[0, 1]) < 0.15
