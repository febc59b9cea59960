"""Early stopping: the weights of the best epoch by records that nobody trains on or audits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from trainings import AUGMENTED, CNN, CPU, MLP, check_alike, check_resumes, equal, recipe_of, tasks_of, train

from memleak import artefacts
from memleak.designs import Coins, Complements, Rounds, Splits, roster_of
from memleak.params import ParamsError, Recipe
from memleak.training import devices, loop, stage
from memleak.training.loop import TrainingDiverged
from memleak.training.stopping import best_of

STOPPING = {"early_stopping": {"records": 60, "patience": 2}, "epochs": 12}
FAST = {"learning_rate": 0.4} | STOPPING  # at this rate the loss goes up and down
RECIPES = {
    "mlp": MLP | FAST,
    "cnn": CNN | FAST,
    "augmented": CNN | AUGMENTED | FAST | {"schedule": "cosine"},
    "averaged": CNN | FAST | {"ema": 0.8, "learning_rate": 1.0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_is_what_it_was_after_its_best_epoch(name, digits):
    """Bit for bit the model that trains as many epochs of the same schedule; its loss on the reserve is the lowest of the curve."""
    recipe = recipe_of(RECIPES[name], schedule="constant", precision="float32")
    task = tasks_of("pairs", digits, recipe)[0]

    (stopped,) = train([task], digits, recipe)
    facts = stopped.facts
    plain = recipe.model_copy(update={"early_stopping": None, "epochs": facts["best_epoch"]})

    assert equal(stopped.weights, loop.train(task, digits, plain, CPU).weights)
    assert facts["best_epoch"] < facts["stopped_epoch"]
    assert facts["best_epoch"] == 1 + int(np.argmin(facts["validation_loss"]))
    network = loop.initial(task, digits, recipe, CPU)
    network.load_state_dict(stopped.weights)
    assert loop.evaluate(network, digits, task.reserve[:60], None, recipe, CPU)[0] == pytest.approx(min(facts["validation_loss"]), rel=1e-5)


def test_training_ends_when_patience_has_run_out_and_no_sooner(digits):
    ended = []
    for seed in range(4):
        recipe = recipe_of(MLP | FAST)
        task = replace(tasks_of("pairs", digits, recipe)[0], key=seed)
        facts = train([task], digits, recipe)[0].facts
        curve = facts["validation_loss"]

        assert len(curve) == facts["stopped_epoch"] == len(facts["loss_curve"]) == len(facts["accuracy_curve"])
        assert all(len(curve[:n]) - 1 - best_of(curve[:n]) < 2 for n in range(1, len(curve)))
        assert facts["stopped_epoch"] == 12 or facts["stopped_epoch"] - facts["best_epoch"] == 2
        ended.append(facts["stopped_epoch"])

    assert min(ended) < 12


def test_the_schedule_stays_that_of_all_epochs(digits):
    recipe = recipe_of(RECIPES["augmented"])
    task = tasks_of("pairs", digits, recipe)[0]

    stopped = train([task], digits, recipe)[0].facts
    plain = train([task], digits, recipe.model_copy(update={"early_stopping": None}))[0].facts

    assert stopped["stopped_epoch"] < 12
    assert stopped["loss_curve"] == plain["loss_curve"][: stopped["stopped_epoch"]]


@pytest.mark.parametrize("design", ["pairs", "halves"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_model_stops_among_others_where_it_stops_alone(name, design, digits):
    recipe = recipe_of(RECIPES[name])
    tasks = tasks_of(design, digits, recipe)

    together = check_alike(tasks, digits, recipe, 1e-8)

    assert all(len(found.facts["validation_loss"]) == found.facts["stopped_epoch"] for found in together)


def test_models_of_a_stack_stop_at_epochs_of_their_own(digits):
    recipe = recipe_of(MLP | FAST)
    tasks = [replace(task, key=task.key + 1) for task in tasks_of("halves", digits, recipe)]

    assert len({found.facts["stopped_epoch"] for found in check_alike(tasks, digits, recipe, 1e-8)}) > 1


def test_what_becomes_of_a_model_that_is_over_stops_nobody(digits, monkeypatch):
    """It goes on beside its mates; a loss that is no number is an error only of one that is still watched."""
    recipe = recipe_of(MLP | STOPPING)
    tasks = tasks_of("halves", digits, recipe)[:2]
    monkeypatch.setattr("memleak.training.stopping.Stopper.is_over", lambda stopper, model: model == 0 and len(stopper.curves[1]) >= 3)
    note = loop.Fitting._note

    def broken(fitting, epoch):
        if epoch >= 3:
            fitting.steps.loss_sum[0] = torch.nan
        note(fitting, epoch)

    monkeypatch.setattr(loop.Fitting, "_note", broken)
    first, second = train(tasks, digits, recipe)

    assert (first.facts["stopped_epoch"], second.facts["stopped_epoch"]) == (3, 12)
    assert np.isfinite(first.facts["loss_curve"]).all()
    monkeypatch.setattr("memleak.training.stopping.Stopper.is_over", lambda stopper, model: False)
    with pytest.raises(TrainingDiverged, match="epoch 4"):
        train(tasks, digits, recipe)


@pytest.mark.parametrize("name", ["cnn", "averaged"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_training_that_goes_on_keeps_its_best_weights(name, n, digits, tmp_path):
    recipe = recipe_of(RECIPES[name], precision="float32")

    check_resumes(tasks_of("pairs", digits, recipe)[:n], digits, recipe, tmp_path / "m0.state", (2, 3, 4, 8))


def test_losses_that_are_no_numbers_are_never_the_best():
    assert best_of([float("nan"), 2.0, 1.0, float("inf"), 1.0]) == 2
    assert best_of([]) == best_of([float("nan")]) == 0


# -- the reserve -------------------------------------------------------------------------------------------------

SHARDS = [
    Rounds("random00", 40, 0, "fit", 0, 3, pool=1400),
    Rounds("mislabelled00", 40, 0, "holdout", 0, 3, pool=1400, neighbour="replace"),
    Complements(0, 0, 4, pool=1400),
    Coins(0, 0, 3, 30, 200, mislabelled=True, pool=1400),
]


@pytest.mark.parametrize("shard", SHARDS, ids=lambda shard: shard.name)
def test_the_reserve_is_never_trained_on_audited_or_tested_on(shard, digits, tiny):
    recipe = tiny.model_copy(update={"early_stopping": Recipe(**MLP, early_stopping={"records": 90}).early_stopping})

    tasks = stage.with_reserve(shard, shard.tasks(digits), digits, recipe)
    population = roster_of({"samples": "population", "pool": 1400, "seed": 0, "reserve": 90}, digits)
    audited = roster_of({"samples": "pool", "pool": 1400, "seed": 0}, digits)

    assert len(tasks[0].reserve) == len(set(tasks[0].reserve)) == 90
    for task in tasks:
        groups = set(digits.group_id[task.reserve].tolist())
        rows = np.concatenate([task.members[task.members < len(digits.labels)], audited.source_id, population.source_id])
        assert np.array_equal(task.reserve, tasks[0].reserve)
        assert not groups & set(digits.group_id[rows].tolist())
        assert not set(task.reserve.tolist()) & set(task.test_ids.tolist())


@pytest.mark.parametrize("shard", [Splits(0, 0, 2, parts=("shadow",)), Complements(0, 0, 2, parts=("shadow",))])
def test_parts_of_a_data_set_have_no_reserve(shard, digits):
    with pytest.raises(ParamsError, match="parts of a data set have no outside"):
        stage.with_reserve(shard, [], digits, recipe_of(MLP | STOPPING))


def test_an_audited_record_in_reserve_is_refused(digits):
    recipe = recipe_of(MLP | STOPPING)
    shard = Rounds("random00", 40, 0, "fit", 0, 1, pool=1400)
    reserve = stage.with_reserve(shard, shard.tasks(digits), digits, recipe)[0].reserve
    asked = replace(shard, target=f"index{reserve[0]}")

    with pytest.raises(ParamsError, match="an audited record lies in the recipe's reserve"):
        stage.with_reserve(asked, asked.tasks(digits), digits, recipe)


def test_a_task_without_reserve_is_refused(digits):
    task = replace(tasks_of("pairs", digits, recipe_of(MLP))[0], reserve=np.arange(10))

    with pytest.raises(ParamsError, match="60 records are needed"):
        train([task], digits, recipe_of(MLP | STOPPING))


def test_a_shard_that_stops_early_leaves_its_facts_and_no_checkpoint(digits_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, shard = recipe_of(MLP | FAST), Complements(0, 0, 3, pool=300)

    stage.train(digits_path, "r", recipe, shard, tmp_path / "out/shard.safetensors", "cpu")

    models = artefacts.read_shard_facts(tmp_path / "out/shard.safetensors")["models"]
    assert all(model["best_epoch"] <= model["stopped_epoch"] == len(model["validation_loss"]) for model in models)
    assert not list((artefacts.store_folder() / "r").glob("*.state*"))
