"""A given model's records, and who of the references trains on what."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from worlds import records

from memleak import artefacts, data, designs, params
from memleak.attacks import pools
from memleak.data import stage
from memleak.designs import Complements, OverlapError, Splits, audited, roster_of

PARTS = {"members": [0, 60], "non-members": [60, 120], "shadow": [120, 200]}
AUDITED = {"samples": "given", "seed": 0, "members": "members", "non_members": "non-members", "overlap": "refuse"}


def known_as(n_groups=None, **parts):
    return replace(records(n_groups=n_groups), parts=PARTS | parts)


def with_twins(*pairs):
    """Records of which some are equal: (row, its twin)."""
    known = known_as()
    for row, twin in pairs:
        known.group_id[twin] = known.group_id[row]
    return known


def shadows(last=6, first=0, seed=0, **where):
    return Splits(seed, first, last, **(where or {"parts": ("shadow",)}))


# -- who is audited ------------------------------------------------------------------------------------------------


def test_members_and_non_members_are_the_rows_of_their_parts():
    found = audited(AUDITED, known_as())

    assert found.members.tolist() == list(range(60)) and found.non_members.tolist() == list(range(60, 120))
    assert found.rows.tolist() == list(range(120))


def test_the_shadow_pool_is_asked_about_and_not_audited():
    found = audited(AUDITED | {"others": ["shadow"]}, known_as())

    assert found.others.tolist() == list(range(120, 200))
    assert roster_of(AUDITED | {"others": ["shadow"]}, known_as()).sample_id.tolist() == list(range(200))


def test_an_overlap_is_refused_with_its_count():
    with pytest.raises(
        OverlapError, match=r"3 of the 60 records of 'non-members' equal one of 'members' .* the first is row 5; .* set overlap: drop"
    ):
        audited(AUDITED, with_twins((0, 65), (1, 66), (1, 119)))


def test_an_overlap_is_dropped_where_asked():
    found = audited(AUDITED | {"overlap": "drop"}, with_twins((0, 65), (1, 66)))

    assert sorted({*range(60, 120)} - set(found.non_members)) == [65, 66]
    assert found.members.tolist() == list(range(60))


def test_equal_records_within_one_part_or_with_the_shadow_pool_are_no_overlap():
    known = with_twins((0, 1), (70, 71), (2, 150), (80, 160))

    assert len(audited(AUDITED | {"others": ["shadow"]}, known).rows) == 200


def test_nothing_left_is_said():
    everything = with_twins(*((row, row + 60) for row in range(60)))

    with pytest.raises(OverlapError, match="60 members and 0 non-members are left"):
        audited(AUDITED | {"overlap": "drop"}, everything)


def test_a_sample_of_the_audited_is_the_same_whatever_else_is_asked():
    asked = AUDITED | {"sample": 20}
    alone = audited(asked, known_as())
    beside = audited(asked | {"others": ["shadow"], "views": ["identity", "flip"], "logits": True}, known_as())

    for one in (alone, beside):
        assert len(one.members) == len(one.non_members) == 20
        assert one.members.tolist() == alone.members.tolist() and one.non_members.tolist() == alone.non_members.tolist()
    assert set(alone.members) <= set(range(60)) and set(alone.non_members) <= set(range(60, 120))
    assert (alone.members != alone.non_members - 60).any()  # each side is drawn for itself
    assert audited(asked | {"seed": 1}, known_as()).members.tolist() != alone.members.tolist()


def test_a_larger_sample_holds_the_smaller_one_and_too_large_a_one_is_everybody():
    few, more, all_ = (audited(AUDITED | {"sample": n}, known_as()) for n in (20, 40, 1000))

    assert set(few.members) < set(more.members) < set(all_.members)
    assert len(all_.members) == 60


def test_more_non_members_move_no_sampled_member():
    more = replace(known_as(), parts=PARTS | {"non-members": [60, 180]})

    assert audited(AUDITED | {"sample": 20}, more).members.tolist() == audited(AUDITED | {"sample": 20}, known_as()).members.tolist()


# -- who trains on what --------------------------------------------------------------------------------------------


def test_shadow_models_train_on_half_of_the_shadow_pool_and_on_nothing_audited():
    for task in shadows().tasks(known_as()):
        assert set(task.members) < set(range(120, 200)) and len(task.members) == 40
        assert set(task.test_ids) == set(range(120, 200)) - set(task.members)


def test_each_shadow_model_draws_anew():
    drawn = [tuple(task.members) for task in shadows(8).tasks(known_as())]
    shares = np.stack([np.isin(np.arange(120, 200), members) for members in drawn])

    assert len(set(drawn)) == 8
    assert abs(np.corrcoef(shares)[np.triu_indices(8, 1)]).max() < 0.5  # none is another's complement


def test_equal_records_of_the_shadow_pool_are_not_split():
    known = known_as(n_groups=80)

    for task in shadows().tasks(known):
        assert not set(known.group_id[task.members]) & set(known.group_id[task.test_ids])


def test_units_are_not_split_either():
    """A unit's records have one group: in the halves of members and non-members, in the shadow pool, and among the audited."""
    known = replace(known_as(), has_units=True)
    known.group_id[:] = np.arange(200) // 5  # five records a patient

    for shard in (shadows(), Complements(0, 0, 6, parts=("members", "non-members"))):
        for task in shard.tasks(known):
            counts = pd.Series(known.group_id[task.members]).value_counts()
            assert (counts == 5).all()
    known.group_id[60:65] = known.group_id[0]
    with pytest.raises(OverlapError, match=r"5 of the 60 records .*or are of one unit with it"):
        audited(AUDITED, known)


def test_parts_of_their_own_are_taken_as_they_are():
    tasks = shadows(3, train="shadow", out="non-members").tasks(known_as())

    assert all(task.members.tolist() == list(range(120, 200)) for task in tasks)
    assert all(set(task.test_ids) == set(range(60, 120)) for task in tasks)
    assert len({task.key for task in tasks}) == 3


def test_of_parts_of_their_own_a_record_that_was_trained_on_is_not_held_out():
    tasks = shadows(1, train="shadow", out="non-members").tasks(with_twins((130, 61), (131, 62)))

    assert not {61, 62} & set(tasks[0].test_ids) and len(tasks[0].test_ids) == 58


def test_a_pool_that_is_too_small_is_said():
    with pytest.raises(ValueError, match="0 records to train on and 1 held out; a shadow model takes some of each"):
        shadows().tasks(known_as(shadow=[120, 121]))


def test_halves_of_members_and_non_members_are_complements():
    tasks = Complements(0, 0, 6, parts=("members", "non-members")).tasks(known_as())

    for one, other in zip(tasks[::2], tasks[1::2], strict=True):
        assert set(one.members) | set(other.members) == set(range(120)) and not set(one.members) & set(other.members)
        assert one.round == other.round
    assert not {*range(120, 200)} & {sample for task in tasks for sample in (*task.members, *task.test_ids)}


@pytest.mark.parametrize("make", [shadows, lambda last, first=0: Complements(0, first, last, parts=("members", "non-members"))])
def test_more_models_and_other_shards_move_nothing_that_stands(make):
    known = known_as()
    many, cut = make(6).tasks(known), make(2).tasks(known) + make(6, 2).tasks(known)

    for a, b in zip(many, cut, strict=True):
        assert (a.model_id, a.key, a.members.tolist(), a.test_ids.tolist()) == (b.model_id, b.key, b.members.tolist(), b.test_ids.tolist())
    assert len({task.model_id for task in many}) == 6


def test_names_tell_pools_apart():
    """Another pool, other parts, another seed: other models, so other names."""
    names = {
        shard.name
        for shard in (
            shadows(), shadows(seed=1), shadows(parts=("shadow", "public")), shadows(train="shadow", out="public"), shadows(train="public", out="shadow"),
            Complements(0, 0, 6), Complements(0, 0, 6, parts=("members", "non-members")), Complements(0, 0, 6, parts=("members", "others")),
        )
    }  # fmt: skip

    assert len(names) == 8


@pytest.mark.parametrize("shard", [shadows(), shadows(train="shadow", out="public"), Complements(0, 2, 4, parts=("a", "b"))])
def test_a_shard_is_read_back_from_its_json(shard):
    assert designs.shard_of(json.loads(json.dumps(designs.shard_json(shard)))) == shard


# -- the plan of an audit ------------------------------------------------------------------------------------------

TWINS = """
import numpy as np
def rows(seed, n):
    return np.random.default_rng(seed).normal(size=(n, 6)), np.arange(n) % 3
def get_train():
    return rows(0, 40)
def get_test():
    return rows(1, 40)
def get_shadow():
    x, y = rows(2, 60)
    x[:4], y[:4] = rows(1, 40)[0][:4], rows(1, 40)[1][:4]   # equal to four non-members
    x[4:6], y[4:6] = rows(0, 40)[0][:2], rows(0, 40)[1][:2]  # and to two members
    return x, y
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """The plan of a given audit with six shadow models, whose pool has twins of audited records: models, samples, facts."""
    (tmp_path / "twins.py").write_text(TWINS)
    (tmp_path / "mine.onnx").write_text("never opened")
    monkeypatch.chdir(tmp_path)
    parts = {name: {"name": f"{tmp_path}/twins.py:get_{get}"} for name, get in (("members", "train"), ("non-members", "test"), ("shadow", "shadow"))}
    data.prepare(params.Dataset(parts=parts), tmp_path / "dataset.json")
    design = {"kind": "given", "model": {"weights": "mine.onnx"}, "references": {"kind": "shadow", "models": 6}}
    audit = {
        "audit": "a", "seed": 0, "recipe": "mine", "references": "r", "design": design,
        "shards": [designs.shard_json(shadows())], "asked": [AUDITED | {"others": ["shadow"]}],
    }  # fmt: skip
    n = stage.plan(tmp_path / "dataset.json", audit, tmp_path / "plan.parquet", tmp_path / "samples.parquet")
    samples = pd.read_parquet(tmp_path / "samples.parquet")
    return n, pools.read_models(tmp_path / "plan.parquet", samples["sample_id"].to_numpy()), samples, artefacts.read_facts(tmp_path / "plan.parquet")


def test_the_matrix_has_a_row_for_the_given_model_and_one_for_each_reference(planned):
    n, models, samples, _ = planned

    assert n == 7 and models.is_member.shape == (7, 140)
    assert models.is_given and models.targets.tolist() == [0] and models.unit[0] not in models.unit[1:]
    assert samples["is_audited"].tolist() == [True] * 80 + [False] * 60


def test_the_given_model_knows_its_members_and_what_equals_them(planned):
    _, models, _, _ = planned

    assert models.is_member[0].nonzero()[0].tolist() == [*range(40), 84, 85]  # two records of the shadow pool equal members


def test_a_reference_that_trained_on_a_twin_of_an_audited_record_is_in_for_it(planned):
    _, models, _, _ = planned
    shadow_rows, twin_rows = np.array([80, 81, 82, 83, 84, 85]), np.array([40, 41, 42, 43, 0, 1])

    assert (models.is_member[1:, twin_rows] == models.is_member[1:, shadow_rows]).all()
    assert 0 < models.is_member[1:, twin_rows].mean() < 1
    assert not np.delete(models.is_member[1:, :80], twin_rows, axis=1).any()  # of the other audited records nobody knows any


def test_the_plan_counts_the_records_of_each_part(planned):
    *_, facts = planned

    assert facts["parts"] == [
        {"name": "members", "is_member": True, "length": 40, "n_audited": 40},
        {"name": "non-members", "is_member": False, "length": 40, "n_audited": 40},
        {"name": "shadow", "is_member": False, "length": 60, "n_audited": 0},
    ]
