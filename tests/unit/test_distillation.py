"""Distillation: a student that knows the private records only by what a teacher says of public ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from trainings import AUGMENTED, CNN, CPU, FACTS, MLP, Killed, KilledAfter, check_alike, check_resumes, equal, recipe_of, tasks_of, train

from memleak import artefacts
from memleak.designs import Complements
from memleak.params import ParamsError
from memleak.training import batches, devices, ensemble, loop, stage, taught
from memleak.training.checkpoints import Checkpoint
from memleak.training.steps import Steps

DISTILLED = {"distillation": {"records": 50, "temperature": 2.0, "epochs": 5}}
RECIPES = {
    "mlp": MLP | DISTILLED,
    "cnn": CNN | AUGMENTED | DISTILLED | {"label_smoothing": 0.1, "schedule": "cosine", "ema": 0.9},
    "mixed up": MLP | DISTILLED | {"mixup": 0.5},
    "stopped": MLP | {"distillation": {"records": 40}, "early_stopping": {"records": 30, "patience": 1}, "epochs": 8, "learning_rate": 0.4},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.fixture
def lessons(monkeypatch):
    """What was learnt in each training: a lesson, or None where it was the members' labels."""
    seen, original = [], ensemble.train

    def watched(*given):
        seen.append(given[5] if len(given) > 5 else None)
        return original(*given)

    monkeypatch.setattr(ensemble, "train", watched)
    return seen


def _say(monkeypatch, said) -> None:
    """Have every teacher say of n records what `said(n)` is, [n, C]."""
    monkeypatch.setattr(taught.School, "answers", lambda _, weights, recipe, task, ids: said(len(ids)))


def test_the_teacher_is_the_model_of_the_recipe_without_distillation(digits):
    recipe = recipe_of(RECIPES["cnn"])
    task = tasks_of("pairs", digits, recipe)[0]

    facts = train([task], digits, recipe)[0].facts
    plain = loop.train(task, digits, recipe.model_copy(update={"distillation": None}), CPU).facts

    assert {name: facts["teacher"][name] for name in ("train_loss", "test_loss")} == {name: plain[name] for name in ("train_loss", "test_loss")}
    assert (facts["n_train"], facts["n_public"], len(facts["loss_curve"])) == (len(task.sample_ids), 50, 5)
    assert facts["train_loss"] != plain["train_loss"]


def test_students_of_teachers_that_say_the_same_are_the_same_whatever_the_private_records(digits, monkeypatch):
    """Bit for bit, for two sets of records without a record in common; and another answer makes another student."""
    recipe = recipe_of(RECIPES["cnn"], precision="float32")
    first = tasks_of("pairs", digits, recipe)[0]
    second = replace(first, members=np.setdiff1d(np.arange(200), first.members)[:40], target=None, arm="out")
    answer = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    _say(monkeypatch, lambda n: answer[:n])

    one, other = (train([task], digits, recipe)[0] for task in (first, second))
    _say(monkeypatch, lambda n: -answer[:n])

    assert equal(one.weights, other.weights)
    assert one.facts["teacher"] != other.facts["teacher"]
    assert not equal(train([first], digits, recipe)[0].weights, one.weights)


def test_a_student_is_given_public_records_alone(digits, lessons, monkeypatch):
    """Neither inputs nor labels of others are even looked up while it trains."""
    recipe = recipe_of(RECIPES["stopped"])
    tasks = tasks_of("pairs", digits, recipe)
    fit, looked_up, pick = loop.fit, [], batches.Pick.__init__

    def watched_pick(self, dataset, sample_ids, *rest, **more):
        looked_up.append(set(sample_ids.tolist()))
        pick(self, dataset, sample_ids, *rest, **more)

    def watched_fit(*given):
        looked_up.clear()
        found = fit(*given)
        known.append(set().union(*looked_up))
        return found

    known: list[set] = []
    monkeypatch.setattr(batches.Pick, "__init__", watched_pick)
    monkeypatch.setattr(loop, "fit", watched_fit)
    train(tasks, digits, recipe)

    reserve = tasks[0].reserve
    public, stopping = set(reserve[30:].tolist()), set(reserve[:30].tolist())
    assert known[0] == stopping.union(*(task.sample_ids.tolist() for task in tasks))
    assert known[1] == public | stopping
    assert lessons[0] is None
    assert all(set(task.sample_ids.tolist()) == public for task in lessons[1].tasks)


def test_the_labels_of_public_records_are_not_used(digits, monkeypatch):
    recipe = recipe_of(RECIPES["mlp"])
    task = tasks_of("pairs", digits, recipe)[0]
    other = np.array(digits.labels)
    other[task.reserve] = (other[task.reserve] + 1) % 10

    one, same = (train([task], data, recipe)[0].weights for data in (digits, replace(digits, labels=other)))

    assert equal(one, same)


def test_what_a_recipe_does_to_labels_it_does_to_the_teachers_alone(digits, monkeypatch):
    """A student has none: from the same answers it is the same, with smoothed labels and a flooded loss or without."""
    plain = recipe_of(RECIPES["cnn"], label_smoothing=0.0)
    task = tasks_of("pairs", digits, plain)[0]
    _say(monkeypatch, lambda n: torch.sin(torch.arange(10 * n, dtype=torch.float64)).view(n, 10))

    students = [
        train([task], digits, plain.model_copy(update=more))[0] for more in ({}, {"label_smoothing": 0.3, "flooding": 1.0}, {"relaxed_loss": 3.0})
    ]

    assert equal(students[0].weights, students[1].weights)
    assert equal(students[0].weights, students[2].weights)
    assert len({student.facts["teacher"]["train_loss"] for student in students}) == 3


def test_both_arms_learn_the_same_public_records_in_the_same_order(digits, lessons):
    recipe = recipe_of(RECIPES["mlp"])
    inside, _, out = tasks_of("pairs", digits, recipe)

    train([inside, out], digits, recipe)
    one, other = lessons[1].tasks

    for epoch in range(5):
        assert all(np.array_equal(a, b) for a, b in zip(one.batches(epoch, 17), other.batches(epoch, 17), strict=True))
    assert one.key == other.key != inside.key
    assert not torch.equal(*lessons[1].targets)  # the teachers saw another record


def test_the_loss_is_that_at_the_temperature_weighted_by_its_square():
    """Hinton et al. 2015: T^2 times the cross-entropy of softmax(logits / T) to the targets."""
    draw = torch.Generator().manual_seed(0)
    network = torch.nn.Linear(3, 4).double()
    inputs, targets = torch.randn(6, 3, generator=draw, dtype=torch.float64), torch.rand(6, 4, generator=draw, dtype=torch.float64).softmax(1)
    expected = torch.autograd.grad(16 * functional.cross_entropy(network(inputs) / 4, targets), network.weight)[0]
    steps = Steps(loop.Single(network), recipe_of(MLP, learning_rate=1e-12), CPU)
    steps.temperature = 4.0

    steps.take(inputs, targets, torch.arange(6), np.array([6]), 0, 4)

    assert torch.allclose(network.weight.grad, expected)


def test_targets_are_the_teachers_answers_at_the_temperature(digits, lessons):
    recipe = recipe_of(RECIPES["mlp"])
    task = tasks_of("pairs", digits, recipe)[0]
    teacher = loop.train(task, digits, recipe.model_copy(update={"distillation": None}), CPU)
    network = loop.initial(task, digits, recipe, CPU)
    network.load_state_dict(teacher.weights)

    train([task], digits, recipe)

    (lesson,) = (lesson for lesson in lessons if lesson)
    public = np.sort(task.reserve)
    assert np.array_equal(lesson.sample_ids[0], public)
    assert torch.allclose(lesson.targets[0], (loop.predict(network, digits, public, None, recipe, CPU) / 2).softmax(1))
    assert lesson.temperature == 2


def test_a_student_gives_what_a_good_teacher_says(digits, monkeypatch):
    """A teacher that knows the truth makes a student that does, whose training accuracy is agreement with the teacher."""
    recipe = recipe_of(MLP, epochs=30, distillation={"records": 300})
    task = tasks_of("pairs", digits, recipe)[0]
    truth = torch.from_numpy(np.array(digits.labels[np.sort(task.reserve)]))
    _say(monkeypatch, lambda n: 20 * functional.one_hot(truth, 10).double()[:n])

    facts = train([task], digits, recipe)[0].facts

    assert facts["accuracy_curve"][-1] > 0.99
    assert facts["test_accuracy"] > 0.85


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_learns_what_one_model_learns(name, design, digits):
    recipe = recipe_of(RECIPES[name])

    check_alike(tasks_of(design, digits, recipe), digits, recipe, 1e-8)


@pytest.mark.parametrize("n", [1, 3])
def test_a_kill_in_either_phase_costs_no_bit(n, digits, tmp_path):
    """The teacher takes 12 steps, the student 15."""
    recipe = recipe_of(RECIPES["mlp"], precision="float32")

    check_resumes(tasks_of("pairs", digits, recipe)[:n], digits, recipe, tmp_path / "m0.state", (1, 11, 12, 13, 20))


def test_a_teacher_that_is_done_is_not_trained_again(digits, lessons, tmp_path, capsys):
    recipe = recipe_of(RECIPES["mlp"])
    tasks, path = tasks_of("pairs", digits, recipe)[:1], tmp_path / "m0.state"
    with pytest.raises(Killed):
        train(tasks, digits, recipe, KilledAfter.steps(path, 20))
    lessons.clear()

    train(tasks, digits, recipe, Checkpoint(path, FACTS, 10))

    assert len(lessons) == 1
    assert lessons[0] is not None
    assert "teacher, kept from before" in capsys.readouterr().out


def test_what_an_other_training_kept_is_not_taken(digits, lessons, tmp_path, capsys):
    recipe = recipe_of(RECIPES["mlp"])
    tasks, path = tasks_of("pairs", digits, recipe)[:1], tmp_path / "m0.state"
    train(tasks, digits, recipe, Checkpoint(path, FACTS | {"models": ["another"]}, 10))
    lessons.clear()

    train(tasks, digits, recipe, Checkpoint(path, FACTS, 10))

    assert len(lessons) == 2
    assert "a checkpoint of another training (models" in capsys.readouterr().err


def test_the_promise_of_a_private_teacher_is_kept_with_the_student(digits, monkeypatch):
    """The student takes plain steps, since what follows a private training is as private; its network is the one that the recipe names."""
    recipe = recipe_of(CNN | DISTILLED | {"dp": {"noise_multiplier": 1.0}})
    tasks, take, taken = tasks_of("pairs", digits, recipe)[:2], Steps.take, []

    def watched(steps, *given):
        taken.append(len(given[1]))
        take(steps, *given)

    monkeypatch.setattr(Steps, "take", watched)
    found = train(tasks, digits, recipe)

    assert taken == [34, 34, 32] * 5  # 17 of two models, of 50 public records: private steps are others
    for task, model in zip(tasks, found, strict=True):
        assert model.facts["dp"]["noise_multiplier"] == 1
        network = loop.initial(task, digits, recipe, CPU)
        network.load_state_dict(model.weights)
        assert loop.evaluate(network, digits, task.test_ids, None, recipe, CPU)[0] == pytest.approx(model.facts["test_loss"])


def test_too_few_public_records_are_refused(digits):
    task = replace(tasks_of("pairs", digits, recipe_of(MLP))[0], reserve=np.arange(20))

    with pytest.raises(ParamsError, match="distillation: 50 public records are needed"):
        train([task], digits, recipe_of(RECIPES["mlp"]))


def test_the_loop_alone_does_not_train_what_is_to_be_taught(digits):
    recipe = recipe_of(RECIPES["mlp"])

    with pytest.raises(ValueError, match=r"call taught\.train"):
        loop.train(tasks_of("pairs", digits, recipe)[0], digits, recipe, CPU)


def test_a_shard_of_students_leaves_no_checkpoint(digits_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    stage.train(digits_path, "r", recipe_of(RECIPES["stopped"]), Complements(0, 0, 3, pool=300), tmp_path / "out/shard.safetensors", "cpu")

    models = artefacts.read_shard_facts(tmp_path / "out/shard.safetensors")["models"]
    assert all(0 < model["teacher"]["train_accuracy"] <= 1 and model["n_public"] == 40 for model in models)
    assert not list((artefacts.store_folder() / "r").glob("*.state*"))
