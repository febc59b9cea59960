"""Who trains on what, and what everything is called."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from worlds import records

from memleak import plan
from memleak.designs import Rounds, pool_of, resolve_target, rounds_of
from memleak.params import LOOP_NEEDS, Dataset, Recipe, recipe_of, validate
from memleak.params.texts import Text


def rounds(target: str | None = None, **changes) -> Rounds:
    return Rounds(**({"target": target, "subset_size": 50, "seed": 0, "role": "fit", "first": 0, "last": 20} | changes))


def arms_of(target: str, known, **changes):
    """(IN task, its OUT task) of each round."""
    base = {task.round: task for task in rounds(**changes).tasks(known)} if "neighbour" not in changes else {
        task.round: task for task in rounds(**{k: v for k, v in changes.items() if k != "neighbour"}).tasks(known)
    }  # fmt: skip
    own = rounds(target, **changes).tasks(known)
    outside = base | {task.round: task for task in own if task.arm == "out"}
    return [(task, outside[task.round]) for task in own if task.arm == "in"]


def test_base_models_do_not_depend_on_how_many_rounds_or_shards_are_asked_for():
    known = records()
    many = rounds(last=40).tasks(known)
    few = rounds(last=20).tasks(known)
    sharded = [task for shard in rounds_of(None, 40, "fit", 7, subset_size=50, seed=0, pool=None, neighbour="add") for task in shard.tasks(known)]

    for a, b, c in zip(few, many, sharded, strict=False):
        assert a.model_id == b.model_id == c.model_id and a.key == b.key == c.key
        assert np.array_equal(a.members, b.members) and np.array_equal(a.members, c.members)


def test_more_rounds_never_change_the_tasks_of_a_target():
    known = records(n_groups=60)
    few, many = rounds("random01", last=10).tasks(known), rounds("random01", last=30).tasks(known)

    for a, b in zip(few, many, strict=False):
        assert (a.model_id, a.key, a.members.tolist(), a.sample_ids.tolist()) == (b.model_id, b.key, b.members.tolist(), b.sample_ids.tolist())


def test_the_out_arm_of_a_target_does_not_depend_on_other_targets():
    """Nothing of another target enters: the arms are a function of (target, round, pool, seed)."""
    known = records()
    inside, outside = arms_of("random00", known)[3]
    again = arms_of("random00", known)[3]

    assert np.array_equal(inside.sample_ids, again[0].sample_ids) and np.array_equal(outside.members, again[1].members)
    assert outside.model_id.startswith(("base-n50-s0-m0003", "without-random00-n50-s0-m0003"))


@pytest.mark.parametrize("target", ["random00", "atypical02", "mislabelled00", "index00007"])
def test_the_in_arm_is_the_out_arm_plus_the_target_exactly(target):
    known = records(n_groups=80)

    for inside, outside in arms_of(target, known):
        assert set(inside.sample_ids) - set(outside.sample_ids) == {inside.target.sample_id}
        assert set(outside.sample_ids) < set(inside.sample_ids)
        assert len(inside.sample_ids) == 51 and len(outside.sample_ids) == 50 and len(set(inside.sample_ids)) == 51
        assert inside.key == outside.key


@pytest.mark.parametrize("batch_size", [7, 10, 25, 50])
def test_both_arms_take_the_same_steps_on_the_same_batches_but_for_the_target(batch_size):
    """50 is a multiple of 10, 25 and 50: the added record must not cost a step."""
    inside, outside = arms_of("random00", records())[0]
    slots = set()
    for epoch in range(12):
        with_x, without = list(inside.batches(epoch, batch_size)), list(outside.batches(epoch, batch_size))
        assert len(with_x) == len(without) == -(-50 // batch_size)
        assert all(np.array_equal(a[a != inside.target.sample_id], b) for a, b in zip(with_x, without, strict=True))
        where = [step for step, batch in enumerate(with_x) if inside.target.sample_id in batch]
        assert len(where) == 1
        slots.add(where[0])
    assert len(slots) > 1 or batch_size == 50


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    inside, _ = arms_of("random00", records())[0]
    epochs = [np.concatenate(list(inside.batches(epoch, 16))) for epoch in range(3)]

    assert all(sorted(epoch) == sorted(inside.sample_ids) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_equal_content_is_in_neither_arm_nor_among_the_test_records():
    known = records(n_groups=30)  # about seven records of each content

    for target in ("random00", "atypical00", "mislabelled00"):
        for inside, outside in arms_of(target, known):
            group = known.group_id[inside.target.source_id]
            for ids in (outside.members, inside.members, inside.test_ids):
                assert group not in known.group_id[ids]


def test_a_target_has_an_out_arm_of_its_own_only_where_the_base_subset_touches_its_group():
    known = records(n_groups=120)
    base = rounds().tasks(known)
    own = {task.round for task in rounds("random00").tasks(known) if task.arm == "out"}
    group = known.group_id[resolve_target("random00", known, 0).source_id]

    assert own == {task.round for task in base if group in known.group_id[task.members]}


def test_an_own_out_arm_differs_from_the_base_subset_in_the_touched_members_only():
    known = records()
    base = {task.round: task for task in rounds().tasks(known)}
    for task in rounds("random00").tasks(known):
        if task.arm == "out":
            assert set(base[task.round].members) - set(task.members) == {task.target.source_id}


def test_t_targets_cost_rounds_times_one_plus_t_times_one_plus_n_over_size():
    known, n_rounds = records(1000), 200
    names = [f"random{i:02d}" for i in range(8)]
    tasks = [task for name in (None, *names) for task in rounds(name, subset_size=300, last=n_rounds).tasks(known)]
    expected = n_rounds * (1 + 8 * (1 + 300 / 1000))

    assert len(tasks) == pytest.approx(expected, abs=4 * np.sqrt(n_rounds * 8 * 0.3 * 0.7))
    assert len({task.model_id for task in tasks}) == len(tasks)


def test_a_replacing_target_takes_one_members_place_in_the_same_batch():
    known = records()

    for inside, outside in arms_of("random00", known, neighbour="replace"):
        assert len(inside.sample_ids) == len(outside.sample_ids) == 50
        assert set(outside.sample_ids) - set(inside.sample_ids) == {inside.replaced}
        for a, b in zip(inside.batches(3, 16), outside.batches(3, 16), strict=True):
            changed = a != b
            assert np.array_equal(b[changed], [inside.replaced] * changed.sum())
            assert np.array_equal(a[changed], [inside.target.sample_id] * changed.sum())


def test_adding_and_replacing_share_their_out_arms_but_no_in_model():
    add, replace = rounds("random00").tasks(records()), rounds("random00", neighbour="replace").tasks(records())

    assert [task.model_id for task in add if task.arm == "out"] == [task.model_id for task in replace if task.arm == "out"]
    assert not {task.model_id for task in add if task.arm == "in"} & {task.model_id for task in replace}


def test_subsets_come_from_the_pool():
    known, pool = records(), set(pool_of(records(), 120, seed=0).tolist())

    assert len(pool) == 120
    for task in rounds(pool=120).tasks(known) + rounds("random00", pool=120).tasks(known):
        assert set(task.members) | set(task.test_ids) <= pool
        assert not set(task.sample_ids) & set(task.test_ids)
    assert resolve_target("random00", known, 0, pool=120).source_id in pool


def test_holdout_rounds_are_other_subsets_than_fitting_rounds():
    fit, held = rounds().tasks(records())[0], rounds(role="holdout").tasks(records())[0]

    assert fit.key != held.key and set(fit.members) != set(held.members) and fit.model_id != held.model_id


def test_subsets_of_rounds_are_independent():
    """The overlap of two random subsets of 50 of 200 is hypergeometric with mean 12.5."""
    members = [set(task.members) for task in rounds(last=60).tasks(records())]
    overlaps = [len(a & b) for a, b in itertools.pairwise(members)]

    assert np.mean(overlaps) == pytest.approx(12.5, abs=4 * 2.7 / np.sqrt(59))


def test_a_pool_without_enough_other_records_is_refused():
    known = records(n_groups=2)

    with pytest.raises(ValueError, match=r"without the records equal to random00 the pool has .* lower it"):
        rounds("random00", subset_size=150).tasks(known)


def test_atypical_targets_come_in_order_of_their_rank():
    known = records()

    ranks = [known.atypicality_rank[resolve_target(f"atypical{i:02d}", known, 0).source_id] for i in range(5)]

    assert ranks == [0, 1, 2, 3, 4]


def test_a_mislabelled_canary_has_a_wrong_label_and_an_id_beyond_the_data():
    known = records()

    for i in range(40):
        target = resolve_target(f"mislabelled{i:02d}", known, seed=i)
        assert target.label != known.labels[target.source_id] and 0 <= target.label < 10
        assert target.sample_id == 200 + i and target.is_canary and target.kind == "mislabelled"


def test_random_targets_differ_from_each_other_and_between_seeds():
    known = records()
    drawn = [[resolve_target(f"random{i:02d}", known, seed).source_id for i in range(10)] for seed in (0, 1)]

    assert len(set(drawn[0])) == 10 and drawn[0] != drawn[1]
    assert all(resolve_target(f"index{i:05d}", known, 0).source_id == i for i in (0, 7, 199))


# names


def params(**changes):
    design = {"kind": "pairs", "targets": {"random": 2}, "rounds": 8, "holdout_rounds": 4, "subset_size": 100} | changes.pop("design", {})
    recipe = {"architecture": "small_cnn", "epochs": 2, "batch_size": 16, "learning_rate": 0.1} | changes.pop("recipe", {})
    entry = {"dataset": "digits", "recipe": "r", "design": design, "attacks": {"np": {"name": "single_point"}}} | changes.pop("audit", {})
    return validate({"datasets": {"digits": {"name": "digits"}}, "recipes": {"r": recipe}, "audits": {changes.pop("id", "a"): entry}} | changes)


def shards(**changes) -> set[tuple[str, str]]:
    return set(plan.build(params(**changes)).shards)


def test_model_names_do_not_depend_on_the_audits_name_or_its_attacks():
    assert shards() == shards(id="another") == shards(audit={"attacks": {"other": {"name": "single_point", "fit": "kde", "alpha": 0.2}}})


def test_more_rounds_and_more_targets_only_add_shards():
    per_shard = {"models_per_shard": 4}
    few = shards(**per_shard)

    assert few < shards(design={"rounds": 16}, **per_shard)
    assert few < shards(design={"targets": {"random": 3, "atypical": 1}}, **per_shard)


def test_the_names_of_the_plan_are_those_of_its_trainings():
    """The plan's rows are known without data; the trainings of all shards are exactly the models of the audit."""
    known = records(1797)
    built = plan.build(params())
    tasks = [task for shard in built.shards.values() for task in shard.tasks(known)]
    n_out = sum(task.arm == "out" and task.target is not None for task in tasks)

    assert len(tasks) == 12 * (1 + 2) + n_out
    assert len({task.model_id for task in tasks}) == len(tasks)


CHANGED = {
    "architecture": "mlp", "channels": [8], "hidden": [7], "normalisation": "group", "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "optimizer": "adamw", "learning_rate": 0.2, "momentum": 0.5, "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.1,
    "label_smoothing": 0.1, "gradient_clip": 1.0, "flip": True, "shift": 1, "precision": "float64",
    "cutout": 2, "ema": 0.9, "compile": True, "mixup": 0.2, "flooding": 0.1, "relaxed_loss": 0.1, "selena": {}, "stacking": {},
    "early_stopping": {"records": 10}, "distillation": {"records": 10}, "dp": {"noise_multiplier": 1.0},
}  # fmt: skip


def test_every_field_of_a_recipe_has_a_changed_value_here():
    assert set(CHANGED) | {"preset", "trainer", "trainer_options"} | {"text"} == set(Recipe.model_fields)  # of texts: below


def test_each_field_of_a_model_of_texts_moves_its_path():
    changed = {"task": "sequence-classification", "layers": 3, "width": 32, "heads": 4, "max_length": 64}
    beyond = {"checkpoint", "revision", "tokenizer", "lora"}  # these name files: test_language_training

    def name_of(**text: object) -> str:
        recipe = {"architecture": "gpt2", "epochs": 1, "batch_size": 4, "learning_rate": 0.1, **({"text": text} if text else {})}
        return plan.PlannedRecipe("r", "d", Dataset(name="python_topics"), recipe_of(recipe)).name

    assert set(changed) | beyond == set(Text.model_fields)
    assert len({name_of(), *(name_of(**{field: value}) for field, value in changed.items())}) == 1 + len(changed)
    assert name_of(layers=2) == name_of()  # a field at its default stays out


@pytest.mark.parametrize("field", CHANGED)
def test_each_field_of_a_recipe_moves_its_path(field):
    pooled = {"design": {"pool": 1000}}  # some take records outside the pool
    before, after = plan.build(params(**pooled)), plan.build(params(recipe={field: CHANGED[field]}, **pooled))

    assert not set(before.recipes) & set(after.recipes)


def test_a_field_at_its_default_is_left_out_of_the_name():
    defaults = {name: field.default for name, field in Recipe.model_fields.items() if not field.is_required() and name not in LOOP_NEEDS}

    assert set(plan.build(params(recipe=defaults)).recipes) == set(plan.build(params()).recipes)


@pytest.mark.parametrize("name", ["index01797", "random1797", "atypical1797", "mislabelled1797"])
def test_a_target_that_is_not_there_is_one_sentence(digits, name):
    with pytest.raises(ValueError, match=rf"target {name} is out of range: there are 1797 records \(0 to 1796\)"):
        resolve_target(name, digits, 0)


def test_a_subset_as_large_as_the_pool_is_refused(digits):
    """Nothing would be left to measure a model's test accuracy on."""
    with pytest.raises(ValueError, match="the pool has 1797 records, subset_size asks for 1797 and some must stay outside"):
        Rounds(None, 1797, 0, "fit", 0, 1).tasks(digits)
