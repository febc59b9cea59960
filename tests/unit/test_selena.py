"""SELENA: what a student learns of a member comes from sub-models that never saw it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from trainings import AUGMENTED, CNN, FACTS, MLP, Killed, KilledAfter, check_alike, check_resumes, equal, recipe_of, tasks_of, train

from memleak import artefacts
from memleak.designs import Coins
from memleak.params import ParamsError
from memleak.training import devices, ensemble, stage, taught
from memleak.training.checkpoints import Checkpoint

SELENA = {"selena": {"models": 4, "left_out": 2}, "epochs": 3}
RECIPES = {
    "mlp": MLP | SELENA,
    "cnn": CNN | AUGMENTED | SELENA | {"label_smoothing": 0.1, "optimizer": "adamw", "learning_rate": 0.01},
    "stopped": MLP | SELENA | {"early_stopping": {"records": 30, "patience": 1}, "epochs": 6, "learning_rate": 0.4},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.fixture
def watched(monkeypatch):
    """Who was asked about what (task, ids), and which lessons were learnt."""
    asked, lessons, answers, original = [], [], taught.School.answers, ensemble.train

    def watched_answers(school, weights, recipe, task, ids):
        asked.append((task, ids))
        return answers(school, weights, recipe, task, ids)

    def watched_train(*given):
        lessons.extend(given[5:])
        return original(*given)

    monkeypatch.setattr(taught.School, "answers", watched_answers)
    monkeypatch.setattr(ensemble, "train", watched_train)
    return asked, lessons


def test_each_sample_is_left_out_by_exactly_so_many_sub_models():
    left_out = taught.left_out_of(7, np.arange(3000), 8, 3)

    assert (left_out.sum(axis=1) == 3).all()
    assert stats.chisquare(left_out.sum(axis=0)).pvalue > 0.001
    together = (left_out[:, 0] & left_out[:, 1]).sum()  # 3/8 * 2/7 of them
    assert stats.binomtest(int(together), 3000, 6 / 56).pvalue > 0.001


def test_a_lot_belongs_to_the_sample_whatever_else_is_there():
    whole = taught.left_out_of(7, np.arange(100), 8, 3)

    assert np.array_equal(taught.left_out_of(7, np.array([99, 5, 41]), 8, 3), whole[[99, 5, 41]])
    assert not np.array_equal(taught.left_out_of(8, np.arange(100), 8, 3), whole)


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves"])
def test_no_sub_model_is_asked_about_what_it_was_trained_on(design, digits, watched):
    """Each member, and the target, is asked of exactly as many as left it out."""
    recipe = recipe_of(RECIPES["mlp"])
    tasks = tasks_of(design, digits, recipe)

    train(tasks, digits, recipe)

    asked, _ = watched
    for task in tasks:
        own = [(part, ids) for part, ids in asked if part.model_id.startswith(f"{task.model_id} (")]
        assert len(own) == 4
        assert all(not set(part.sample_ids.tolist()) & set(ids.tolist()) for part, ids in own)
        assert all(sorted([*part.sample_ids, *ids]) == sorted(task.sample_ids) for part, ids in own)
        assert sorted(np.concatenate([ids for _, ids in own])) == sorted(np.repeat(task.sample_ids, 2))


def test_a_target_is_the_mean_of_what_was_said_by_those_that_left_the_sample_out(digits, watched, monkeypatch):
    """Sub-model k is sure of class k: a sample's target tells which sub-models it comes from."""
    recipe = recipe_of(RECIPES["mlp"])
    tasks = tasks_of("halves", digits, recipe)

    def sure(_, weights, given, part, ids):
        logits = torch.zeros(len(ids), 10, dtype=torch.float64)
        logits[:, int(part.model_id.rpartition(" ")[2].rstrip(")")) - 1] = 100.0
        return logits

    monkeypatch.setattr(taught.School, "answers", sure)
    train(tasks, digits, recipe)

    (lesson,) = watched[1]
    for task, ids, targets in zip(tasks, lesson.sample_ids, lesson.targets, strict=True):
        expected = np.zeros((len(ids), 10))
        expected[:, :4] = taught.left_out_of(task.key, ids, 4, 2) / 2
        assert np.allclose(targets.numpy(), expected)
        assert np.array_equal(ids, np.sort(task.sample_ids))


def test_a_target_does_not_depend_on_the_sub_models_that_saw_the_sample(digits, watched, monkeypatch):
    """Those that saw one record say something else about all others: its target stays as it is."""
    recipe = recipe_of(RECIPES["mlp"])
    task = tasks_of("halves", digits, recipe)[0]
    record, answers = int(task.members[5]), taught.School.answers
    train([task], digits, recipe)

    def other(school, weights, given, part, ids):
        found = answers(school, weights, given, part, ids)
        return -found if record in part.sample_ids else found

    monkeypatch.setattr(taught.School, "answers", other)
    train([task], digits, recipe)

    before, after = (lesson.targets[0] for lesson in watched[1])
    row = int(np.searchsorted(np.sort(task.sample_ids), record))
    assert torch.equal(before[row], after[row])
    assert (before != after).any(1).sum() > len(task.members) / 2


def test_the_student_sees_no_label(digits, monkeypatch):
    """Where sub-models say the same, other labels of the members make no other student."""
    recipe = recipe_of(RECIPES["cnn"], precision="float32")
    task = tasks_of("halves", digits, recipe)[0]
    monkeypatch.setattr(taught.School, "answers", lambda _, weights, given, part, ids: torch.sin(torch.from_numpy(ids)[:, None] + torch.arange(10)))
    changed = replace(digits, labels=(np.array(digits.labels) + 1) % 10)

    assert equal(train([task], digits, recipe)[0].weights, train([task], changed, recipe)[0].weights)


@pytest.mark.parametrize("design", ["pairs", "replaced"])
def test_sub_models_of_both_arms_differ_in_the_target_alone(design, digits, watched):
    """Those that leave it out are the same trainings; in the others it is one sample more, or takes the place of another."""
    recipe = recipe_of(RECIPES["mlp"])
    inside, _, out = tasks_of(design, digits, recipe)

    train([inside], digits, recipe)
    train([out], digits, recipe)

    target, parts, n_same = inside.target.sample_id, [part for part, _ in watched[0]], 0
    for one, other in zip(parts[:4], parts[4:], strict=True):
        assert one.key == other.key
        if target not in one.sample_ids:
            n_same += 1
            expected = [batch.tolist() for batch in other.batches(0, 17)]
        elif inside.replaced is None:
            expected = None
            without = [[i for i in batch.tolist() if i != target] for batch in one.batches(0, 17)]
            assert without == [batch.tolist() for batch in other.batches(0, 17)]
        else:
            expected = [[target if i == inside.replaced else i for i in batch.tolist()] for batch in other.batches(0, 17)]
        assert expected is None or [batch.tolist() for batch in one.batches(0, 17)] == expected
    assert n_same == 2


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_learns_what_one_model_learns(name, design, digits):
    recipe = recipe_of(RECIPES[name])
    tasks = tasks_of(design, digits, recipe)

    found = check_alike(tasks, digits, recipe, 1e-8)

    for task, model in zip(tasks, found, strict=True):
        assert sum(model.facts["sub_models"]["n_train"]) == 2 * len(task.sample_ids)
        assert len(model.facts["sub_models"]["test_accuracy"]) == 4


@pytest.mark.parametrize("n", [1, 3])
def test_a_kill_in_any_phase_costs_no_bit(n, digits, tmp_path):
    recipe = recipe_of(RECIPES["mlp"], precision="float32")

    check_resumes(tasks_of("halves", digits, recipe)[:n], digits, recipe, tmp_path / "m0.state", (1, 5, 6, 9, 13, 20))


def test_sub_models_that_are_done_are_not_trained_again(digits, tmp_path, monkeypatch):
    recipe = recipe_of(RECIPES["mlp"], batch_size=40)  # one step an epoch
    tasks, path, trained, original = tasks_of("halves", digits, recipe)[:1], tmp_path / "m0.state", [], ensemble.train
    with pytest.raises(Killed):
        train(tasks, digits, recipe, KilledAfter.steps(path, 8))  # in the third sub-model
    monkeypatch.setattr(ensemble, "train", lambda *given: trained.append(given[0][0].model_id) or original(*given))

    train(tasks, digits, recipe, Checkpoint(path, FACTS, 10))

    name = tasks[0].model_id
    assert trained == [f"{name} (sub-model 3)", f"{name} (sub-model 4)", name]


def test_sub_models_of_less_than_a_batch_are_refused(digits):
    recipe = recipe_of(RECIPES["mlp"], batch_size=30)

    with pytest.raises(ParamsError, match="a sub-model trains on about 25 of 50 records, batch_size is 30"):
        stage.check_recipe(recipe, digits, 50)
    stage.check_recipe(recipe, digits, 60)


def test_a_shard_of_canaries_leaves_no_checkpoint(digits_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    stage.train(digits_path, "r", recipe_of(RECIPES["mlp"]), Coins(0, 0, 3, 20, 60, mislabelled=True), tmp_path / "out/shard.safetensors", "cpu")

    models = artefacts.read_shard_facts(tmp_path / "out/shard.safetensors")["models"]
    assert [sum(model["sub_models"]["n_train"]) for model in models] == [2 * model["n_train"] for model in models]
    assert not list((artefacts.store_folder() / "r").glob("*.state*"))
