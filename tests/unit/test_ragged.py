"""Signals of tokens on disk, a list a row, and how they are read: padded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memleak import artefacts
from memleak.attacks import pairs, pools
from memleak.designs import Roster
from memleak.signals import tables
from memleak.signals.language import TokenSignals

IDS = np.array([3, 5, 8])


def said(lengths, seed):
    draw, n = np.random.default_rng(seed), sum(lengths)
    columns = {"log_prob": draw.normal(size=n).astype(np.float32), "token_id": draw.integers(0, 50, n).astype(np.int32)}
    return TokenSignals(columns, np.cumsum([0, *lengths]))


def written(path, model_ids, tokens, ids=IDS):
    loss = np.arange(len(model_ids) * len(ids) * len(tokens[0]), dtype=np.float32).reshape(len(model_ids), len(ids), -1)
    facts = {"models": [{"model_id": name} for name in model_ids]}
    tables.write_signals(path, {"loss": loss}, Roster(ids, ids, np.zeros_like(ids)), facts, tokens)
    return path


@pytest.fixture
def shards(tmp_path):
    """Two models in one file, one in another; two views of three texts of 1 to 4 tokens."""
    lengths = ([2, 4, 1], [3, 3, 2])
    tokens = [[said(of_view, 10 * model + view) for view, of_view in enumerate(lengths)] for model in range(3)]
    return [written(tmp_path / "a.parquet", ["m0", "m1"], tokens[:2]), written(tmp_path / "b.parquet", ["m2"], tokens[2:])], tokens


def test_tokens_are_read_padded_by_model_sample_and_view(shards):
    paths, tokens = shards

    found = pools.read_signals(paths, ["m2", "m0", "m1"], IDS, ["loss", "log_prob", "token_id"])

    assert found["log_prob"].shape == found["token_id"].shape == (3, 3, 2, 4)
    assert (found["log_prob"].dtype, found["token_id"].dtype) == (np.float32, np.int32)
    for row, model in enumerate([2, 0, 1]):
        for view in range(2):
            of_view = tokens[model][view]
            for i in range(3):
                n, span = of_view.n_tokens[i], slice(of_view.offsets[i], of_view.offsets[i + 1])
                assert found["log_prob"][row, i, view, :n].tolist() == of_view.columns["log_prob"][span].tolist()
                assert found["token_id"][row, i, view, :n].tolist() == of_view.columns["token_id"][span].tolist()
                assert np.isnan(found["log_prob"][row, i, view, n:]).all() and (found["token_id"][row, i, view, n:] == -1).all()


def test_files_of_several_widths_are_read_as_wide_as_the_widest(tmp_path):
    paths = [written(tmp_path / f"{name}.parquet", [name], [[said(lengths, 0)]]) for name, lengths in (("a", [1, 2, 1]), ("b", [5, 1, 1]))]

    assert [artefacts.read_facts(path)["n_tokens_max"] for path in paths] == [2, 5]
    assert pools.read_signals(paths, ["a", "b"], IDS, ["log_prob"])["log_prob"].shape == (2, 3, 1, 5)


def test_row_groups_cut_tokens_between_samples(shards, monkeypatch):
    paths, tokens = shards
    before = pools.read_signals(paths, ["m0", "m1", "m2"], IDS, ["log_prob"])
    monkeypatch.setattr(tables, "SAMPLES_PER_GROUP", 2)

    again = [written(paths[0], ["m0", "m1"], tokens[:2]), paths[1]]

    assert [group["log_prob"].shape for group in artefacts.row_groups(paths[0], ["log_prob"])] == [(8, 4), (4, 4)]
    after = pools.read_signals(again, ["m0", "m1", "m2"], IDS, ["log_prob"])
    assert np.array_equal(before["log_prob"], after["log_prob"], equal_nan=True)


def test_a_text_without_tokens_is_a_row_of_nothing(tmp_path):
    path = written(tmp_path / "a.parquet", ["a"], [[said([0, 2, 0], 0)]])

    assert np.isnan(pools.read_signals([path], ["a"], IDS, ["log_prob"])["log_prob"][0, :, 0]).sum(axis=1).tolist() == [2, 0, 2]


def test_files_without_tokens_say_nothing_of_them(tmp_path):
    path = tmp_path / "a.parquet"
    tables.write_signals(path, {"loss": np.zeros((1, 3, 1), np.float32)}, Roster(IDS, IDS, IDS), {"models": [{"model_id": "a"}]})

    assert "n_tokens_max" not in artefacts.read_facts(path)
    assert pq.read_schema(path).names == ["model_id", "sample_id", "view", "loss"]


def test_tokens_are_lists_of_float32_and_int32(shards):
    schema = pq.read_schema(shards[0][0])

    assert schema.field("log_prob").type == pa.list_(pa.float32())
    assert schema.field("token_id").type == pa.list_(pa.int32())


def test_the_arms_of_a_pair_have_tokens_side_by_side(tmp_path):
    plan = pd.DataFrame(
        {
            "model_id": ["base0", "base1", "in0", "in1"], "shard": "s", "recipe": "r", "seed": 0, "round": [0, 1, 0, 1], "role": "fit",
            "arm": ["out", "out", "in", "in"], "target": [None, None, "random00", "random00"], "is_target": False, "membership": [b""] * 4,
        }
    )  # fmt: skip
    artefacts.write_table(tmp_path / "plan.parquet", plan, {"targets": {"random00": {"sample_id": 5, "label": 0}}})
    tokens = [[said([2, 3, 1], model)] for model in range(4)]
    path = written(tmp_path / "a.parquet", ["base0", "base1", "in0", "in1"], tokens)

    (arms,) = pairs.read(tmp_path / "plan.parquet", [path], ["loss", "log_prob", "token_id"])

    assert arms.inside["log_prob"].shape == arms.outside["token_id"].shape == (2, 1, 3)
    assert arms.outside["log_prob"][1, 0].tolist() == tokens[1][0].columns["log_prob"][2:5].tolist()
    assert arms.inside["token_id"][0, 0].tolist() == tokens[2][0].columns["token_id"][2:5].tolist()
    assert arms.inside["loss"].shape == (2, 1)
