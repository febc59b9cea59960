"""The store: what is trained is kept, what is broken is named and trained again."""

from __future__ import annotations

import os

import pytest

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.designs import Rounds
from memleak.params import Training
from memleak.signals import stage as signals
from memleak.training import stage, store

ONE_BY_ONE = Training(engine="sequential")
ROUNDS = Rounds("atypical00", 32, 0, "fit", 0, 3)


@pytest.fixture
def shard(tmp_path, digits_path, tiny, monkeypatch):
    """A trained shard, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "results/models/r" / f"{ROUNDS.name}.safetensors"
    done = stage.train(digits_path, "r", tiny, ROUNDS, output, "cpu", ONE_BY_ONE)
    assert done["adopted"] == 0 and done["trained"] >= 3
    return output


def _again(digits_path, tiny, output, rounds=ROUNDS, recipe="r"):
    return stage.train(digits_path, recipe, tiny, rounds, output, "cpu", ONE_BY_ONE)["trained"]


def test_a_lost_output_costs_no_training(shard, digits_path, tiny):
    before = shard.read_bytes()
    shard.unlink()

    assert _again(digits_path, tiny, shard) == 0
    assert shard.read_bytes() == before


def test_a_lost_store_is_made_good_by_the_outputs(shard, digits_path, tiny, tmp_path):
    for file in (tmp_path / ".memleak/store/r").iterdir():
        file.unlink()
    other = shard.with_name("other.safetensors")

    assert _again(digits_path, tiny, other) == 0


def test_another_cut_of_the_rounds_trains_nothing(shard, digits_path, tiny):
    part = Rounds("atypical00", 32, 0, "fit", 1, 3)

    assert _again(digits_path, tiny, shard.with_name(f"{part.name}.safetensors"), part) == 0


def test_more_rounds_train_only_the_new_ones(shard, digits_path, tiny):
    more = Rounds("atypical00", 32, 0, "fit", 2, 4)

    assert _again(digits_path, tiny, shard.with_name(f"{more.name}.safetensors"), more) in (1, 2)  # round 3, one arm or two


@pytest.mark.parametrize("size", [0, 7, 100, -8])
def test_a_truncated_shard_is_named_and_trained_again(shard, digits_path, tiny, tmp_path, capsys, size):
    kept = tmp_path / ".memleak/store/r" / shard.name
    content = kept.read_bytes()[:size]
    shard.unlink()
    kept.unlink()
    kept.write_bytes(content)

    assert _again(digits_path, tiny, shard) >= 3
    assert "not used" in capsys.readouterr().err


def test_a_flipped_bit_in_a_weight_is_noticed(shard):
    content = bytearray(shard.read_bytes())
    content[-3] ^= 64
    broken = shard.with_name("broken.safetensors")
    broken.write_bytes(content)
    facts = artefacts.read_shard_facts(broken)

    with pytest.raises(ArtefactError, match=r"the weights of .* are not those that were written"):
        for position in range(len(facts["models"])):
            store.read_model(broken, position, facts)


def test_models_of_another_recipe_or_content_are_not_adopted(shard, digits_path, tiny, tmp_path):
    assert store.Store("r", "other content", shard.parent).find(["with-atypical00-n32-s0-m0000"]) == {}
    assert _again(digits_path, tiny, tmp_path / "results/models/other/x.safetensors", recipe="other") >= 3


def test_a_finished_model_of_an_unfinished_shard_is_kept(shard, digits_path, tiny, tmp_path, monkeypatch):
    """A failure at the third model loses only that one."""
    for file in [shard, *(tmp_path / ".memleak/store/r").iterdir()]:
        file.unlink()
    train, calls = stage.loop.train, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("pulled the plug")
        return train(*args)

    monkeypatch.setattr(stage.loop, "train", failing)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        _again(digits_path, tiny, shard)
    monkeypatch.setattr(stage.loop, "train", train)

    assert not shard.exists()
    assert _again(digits_path, tiny, shard) == len(ROUNDS.tasks(stage.data.read(digits_path))) - 2
    assert [file.name for file in (tmp_path / ".memleak/store/r").glob("part-*")] == []


def test_a_stranger_is_refused_when_it_is_asked(shard, digits_path, tiny, tmp_path):
    swapped = Rounds("atypical00", 32, 0, "fit", 0, 2)
    for recipe, rounds in (("another", ROUNDS), ("r", swapped)):
        with pytest.raises(ArtefactError, match=r"holds with-atypical00-n32-s0-m0000-0003 of recipe r, expected .*; delete it and run again"):
            signals.query(
                shard,
                digits_path,
                recipe,
                tiny,
                rounds,
                {"samples": "targets", "seed": 0, "targets": ["atypical00"], "views": ["identity"]},
                tmp_path / "s.parquet",
                "cpu",
            )
    assert not (tmp_path / "s.parquet").exists()


def test_the_output_shares_the_disk_space_of_the_store(shard, tmp_path):
    assert os.path.samefile(shard, tmp_path / ".memleak/store/r" / shard.name)


def test_a_lock_is_free_after_use(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = store.Store("r", "d", tmp_path)
    for _ in range(2):
        with kept.lock("s"):
            pass
