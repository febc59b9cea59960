"""From signals to the turns of a pool: nothing of a target, nor of its twin, is ever among its references."""

from __future__ import annotations

import numpy as np
import pytest

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.attacks import pools
from memleak.attacks.pools import Models, turns_of
from memleak.designs import Roster
from memleak.signals import stage as signals


def models(n_models: int = 12, n_targets: int | None = None, n_samples: int = 5) -> Models:
    first = np.random.default_rng(0).random((n_models // 2, n_samples)) < 0.5
    is_member = np.stack([first, ~first], axis=1).reshape(n_models, n_samples)
    ids = np.array([f"m{row}" for row in range(n_models)])
    return Models(ids, np.arange(n_models) // 2, np.arange(n_models) < (n_targets or n_models), is_member)


@pytest.mark.parametrize("n_references", [None, 4])
def test_neither_a_target_nor_its_twin_is_a_reference_and_in_counts_are_equal(n_references):
    known = models()

    for turns in turns_of(known, n_references).values():
        for turn in turns:
            assert known.unit[turn.target] not in known.unit[turn.references]
            counts = known.is_member[turn.references].sum(axis=0)
            assert (counts == len(turn.references) // 2).all()


@pytest.mark.parametrize("n_references", [None, 4])
@pytest.mark.parametrize("n_models", [8, 12, 40])
def test_a_target_and_its_mock_targets_have_the_same_references(n_models, n_references):
    known = models(n_models)
    turns = {turn.target: turn.references for turn in turns_of(known, n_references)["folded"]}

    for target, references in turns.items():
        mocks = known.mocks(target)
        assert len(mocks) >= 2 and known.unit[target] not in known.unit[mocks]
        assert not set(references) & {target, *mocks}
        for mock in mocks:
            assert len(turns[mock]) == len(references) and (n_references or np.array_equal(turns[mock], references))


def test_both_halves_of_the_references_together_are_all():
    turns = turns_of(models(), None)

    for whole, odd, even in zip(turns["score"], turns["odd"], turns["even"], strict=True):
        assert sorted([*odd.references, *even.references]) == sorted(whole.references)


def test_as_many_references_as_are_asked_for():
    turns = turns_of(models(), 4)

    assert {len(turn.references) for turn in turns["score"]} == {4}
    assert {len(turn.references) for turn in turns_of(models(), None)["score"]} == {10}


def test_fewer_targets_still_have_mock_targets():
    known = models(n_targets=1)
    turns = turns_of(known, None)

    assert [turn.target for turn in turns["score"]] == [0]
    assert [turn.target for turn in turns["folded"]] == [0, 1, 2, 3]


def test_fewer_than_four_units_have_no_mock_targets():
    known = models(6)

    assert turns_of(known, None)["folded"] == []
    assert len(known.mocks(0)) == 0


@pytest.fixture
def written(tmp_path):
    """Two shards of signals about 20,000 samples: more than a row group."""
    draw, roster = np.random.default_rng(0), Roster(*(np.arange(20_000) * 2 for _ in range(3)))
    margin = draw.normal(size=(5, 20_000, 2)).astype(np.float32)
    paths = []
    for first, last in ((0, 2), (2, 5)):
        block = {name: np.full((last - first, 20_000, 2), 0, dtype) for name, dtype in artefacts.SIGNALS.items()} | {"margin": margin[first:last]}
        paths.append(tmp_path / f"{first}.parquet")
        signals.write_signals(paths[-1], block, roster, {"models": [{"model_id": f"m{row}"} for row in range(first, last)]})
    return paths, roster.sample_id, margin


def test_signals_come_back_as_they_were_written_in_the_order_of_the_plan(written):
    paths, sample_id, margin = written

    found = pools.read_signals(paths, ["m4", "m0", "m1", "m2", "m3"], sample_id, ["margin"])

    assert np.array_equal(found["margin"], margin[[4, 0, 1, 2, 3]])


def test_large_signals_are_kept_in_a_file(written, monkeypatch):
    paths, sample_id, margin = written
    monkeypatch.setattr(pools, "IN_MEMORY", 1000)

    found = pools.read_signals(paths, [f"m{row}" for row in range(5)], sample_id, ["margin"])

    assert isinstance(found["margin"], np.memmap)
    assert np.array_equal(found["margin"], margin)


def test_a_row_names_its_model_sample_and_view(written):
    paths, _, margin = written

    table = artefacts.read_table(paths[1], ["model_id", "sample_id", "view", "margin"])
    row = table[(table["model_id"] == "m3") & (table["sample_id"] == 34) & (table["view"] == 1)]

    assert row["margin"].tolist() == [margin[3, 17, 1]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda paths, ids: (paths[:1], ids), "no answer of model m2"),
        (lambda paths, ids: ([*paths, paths[0]], ids), "model m0 is not in the plan, or in two files"),
        (lambda paths, ids: (paths, ids[:-1]), "speaks of other samples than the plan"),
    ],
)
def test_signals_that_do_not_fit_the_plan_are_refused(written, change, sentence):
    paths, sample_id, _ = written
    paths, sample_id = change(paths, sample_id)

    with pytest.raises(ArtefactError, match=sentence):
        pools.read_signals(paths, [f"m{row}" for row in range(5)], sample_id, ["margin"])
