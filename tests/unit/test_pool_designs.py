"""The designs `halves` and `canaries`: who trains on what, what it is called, and what params refuse."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import records

from memleak import designs, plan
from memleak.designs import Coins, Complements, Roster, population_of
from memleak.params import ParamsError, validate


def matrix(shard, known) -> np.ndarray:
    """Who trains on what, [M, N]."""
    tasks = shard.tasks(known)
    is_in = np.zeros((len(tasks), 2 * len(known.labels)), dtype=bool)
    for row, task in enumerate(tasks):
        is_in[row, task.members] = True
    return is_in


def config(**design) -> dict:
    return {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"r": {"architecture": "mlp", "epochs": 1, "batch_size": 8, "learning_rate": 0.1}},
        "audits": {"a": {"dataset": "digits", "recipe": "r", "design": design, "attacks": {"loss": {"name": "threshold"}}}},
    }


HALVES = {"kind": "halves", "models": 8, "pool": 1400}


def test_every_even_prefix_of_halves_holds_each_sample_equally_often():
    is_in = matrix(Complements(0, 0, 8, pool=150), records())

    for n in (2, 4, 6, 8):
        counts = is_in[:n].sum(axis=0)
        assert set(counts) == {0, n // 2}
        assert (counts > 0).sum() == 150


def test_equal_records_go_together():
    known = records(n_groups=60)

    is_in = matrix(Complements(3, 0, 6), known)[:, : len(known.labels)]

    for group in np.unique(known.group_id):
        own = is_in[:, known.group_id == group]
        assert (own == own[:, :1]).all()
    assert (is_in[::2] ^ is_in[1::2]).all()


def test_more_models_and_other_shards_change_nothing_that_stands():
    known = records()
    many = Complements(0, 0, 8).tasks(known)
    cut = Complements(0, 0, 3).tasks(known) + Complements(0, 3, 8).tasks(known)

    for a, b in zip(many, cut, strict=True):
        assert (a.model_id, a.key, a.round) == (b.model_id, b.key, b.round)
        assert np.array_equal(a.members, b.members)
        assert not set(a.test_ids) & set(a.members)


def test_another_seed_draws_other_halves():
    known = records()

    assert (matrix(Complements(0, 0, 2), known) != matrix(Complements(1, 0, 2), known)).any()
    assert len({task.key for task in Complements(0, 0, 8).tasks(known)}) == 8


def test_coins_are_independent_and_the_base_is_in_every_model():
    known = records(400)
    is_in = matrix(Coins(0, 0, 60, canaries=100, subset_size=50), known)

    shares = is_in[:, is_in.any(axis=0)].mean(axis=0)
    coins = is_in[:, (is_in.any(axis=0)) & ~is_in.all(axis=0)]

    assert (shares == 1).sum() == 50
    assert coins.shape[1] == 100
    assert abs(coins.mean() - 0.5) < 0.03
    assert np.abs(np.corrcoef(coins.T.astype(float)) - np.eye(100)).max() < 0.7  # 60 coins: no two canaries are tied to one another


def test_a_mislabelled_canary_is_a_sample_of_its_own_whose_source_nobody_trains_on():
    known = records(400, n_groups=300)
    shard = Coins(0, 0, 4, canaries=40, subset_size=50, mislabelled=True)
    roster = designs.canaries_of(known, 40, True, None, 0)

    for task in shard.tasks(known):
        rows = task.members[task.members < 400]
        assert not np.isin(known.group_id[rows], known.group_id[roster.source_id]).any()
        assert set(task.members[task.members >= 400]) <= set(roster.sample_id)
    assert (roster.label != known.labels[roster.source_id]).all()
    assert len(np.unique(known.group_id[roster.source_id])) == 40


def test_the_population_equals_no_record_of_the_pool():
    known = records(200, n_groups=150)

    outside = population_of(known, 100, None, 0)
    some = population_of(known, 100, 5, 0)

    assert not np.isin(known.group_id[outside], known.group_id[designs.pool_of(known, 100, 0)]).any()
    assert len(some) == 5 and np.isin(some, outside).all()
    with pytest.raises(ValueError, match=r"population: 150 records asked for, \d+ lie outside the pool and equal none in it"):
        population_of(known, 100, 150, 0)


def test_too_few_records_for_canaries_are_said_so():
    with pytest.raises(ValueError, match="canaries: 40 asked for, the pool has 30 different records"):
        Coins(0, 0, 1, canaries=40, subset_size=10).tasks(records(200, n_groups=30))
    with pytest.raises(ValueError, match="subset_size asks for 150 and some must stay outside"):
        Coins(0, 0, 1, canaries=50, subset_size=150).tasks(records(200))


def test_names_are_known_from_declarations_and_hold_all_that_changes_a_membership():
    assert Complements(0, 8, 16, pool=1400).name == "halves-p1400-s0-m0008-0016"
    assert Coins(1, 0, 2, canaries=100, subset_size=500, mislabelled=True).name == "wrong-c100-n500-s1-m0000-0002"
    for shard in (Complements(0, 8, 16, pool=1400), Coins(1, 0, 2, 100, 500, True, 700)):
        assert designs.shard_of(designs.shard_json(shard)) == shard


def test_more_models_keep_the_names_of_those_that_are_there():
    few, many = (plan.build(validate(config(**HALVES | {"models": n}))).audits["a"] for n in (8, 16))

    assert set(few.models()) < set(many.models())
    assert few.population_signals() == []


def test_another_view_queries_anew_and_trains_nothing():
    plain = config(**HALVES)
    viewed = config(**HALVES)
    viewed["audits"]["a"]["views"] = ["identity", "flip"]

    a, b = (plan.build(validate(c)).audits["a"] for c in (plain, viewed))

    assert a.models() == b.models() and not set(a.signals()) & set(b.signals())


def test_a_population_is_asked_only_where_an_attack_compares_with_it():
    with_population = config(**HALVES)
    with_population["audits"]["a"]["attacks"]["population"] = {"name": "population"}
    planned = plan.build(validate(with_population)).audits["a"]

    assert len(planned.population_signals()) == len(planned.models())
    assert planned.wants_population("population") and not planned.wants_population("loss")


@pytest.mark.parametrize(
    ("design", "attack", "sentence"),
    [
        (HALVES | {"pool": 1900}, {}, "audits.a.design.pool: 1900 records asked for, the data set has 1797"),
        (HALVES | {"population": 500}, {}, "population: 500 records asked for, the pool leaves 397"),
        (HALVES | {"models": 7}, {}, "models: should be a multiple of 2, found 7"),
        (HALVES, {"name": "lira", "references": 8}, "references: 8 asked for, each target has 6 of the design's 8 models; add models"),
        (HALVES, {"name": "lira", "references": 3}, "models come in complementary twos, so give an even number"),
        (HALVES | {"models": 2}, {"name": "lira", "variance": "per_sample"}, "4 reference models are needed, each target has 0; add models"),
        (HALVES | {"pool": None}, {"name": "rmia"}, "a population is needed, and the pool is the whole data set; set design.pool"),
        (HALVES, {"name": "single_point"}, "single_point is an attack of the design pairs"),
        ({"kind": "canaries", "canaries": 1000, "subset_size": 900}, {}, "need more than 1900 records"),
    ],
)
def test_what_a_design_cannot_give_is_refused(design, attack, sentence):
    asked = config(**design)
    if attack:
        asked["audits"]["a"]["attacks"]["other"] = attack

    with pytest.raises(ParamsError, match=sentence):
        validate(asked)


def test_a_record_with_two_names_is_one_sample():
    known = records()
    target = designs.resolve_target("random00", known, 0)

    roster = Roster.of_targets([target, designs.Target(f"index{target.sample_id:05d}", target.sample_id, target.source_id, target.label)])

    assert roster.sample_id.tolist() == [target.sample_id]
