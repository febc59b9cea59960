"""Which engine trains a shard, and what the stage does where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memleak import params as params_room
from memleak import plan, plugins
from memleak.designs import Coins, Complements, Rounds
from memleak.models.stacked import NotStackable
from memleak.params import Recipe, Training
from memleak.training import devices, engines, ensemble, loop, stage
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import Trained

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CNN = {"architecture": "small_cnn", "channels": (4, 8), "hidden": (16,), "epochs": 1, "batch_size": 16, "learning_rate": 0.05}
MLP = {"architecture": "mlp", "hidden": (16,), "epochs": 1, "batch_size": 16, "learning_rate": 0.1}
TABLE = [
    {"device": "cpu", "architecture": "mlp", "up_to": 0.5, "stack": 4},
    {"device": "cpu", "architecture": "mlp", "up_to": 0.01, "stack": 16},
    {"device": "cuda", "architecture": "mlp", "up_to": 0.5, "stack": 32},
]


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(engines, "table", lambda: TABLE)


def _stack(recipe: dict, n_models: int, device: torch.device = CPU, **training) -> int:
    return engines.stack_of(Training(**training), Recipe(**recipe), (8, 8, 1), 10, device, n_models)


# -- the table ---------------------------------------------------------------------------------------------------


def test_each_entry_of_the_committed_table_can_be_reached():
    """Known devices and architectures, stacks that are powers of two, and for one of both the larger size comes with the smaller stack."""
    before: dict[tuple[str, str], dict] = {}
    for entry in engines.table():
        assert entry.keys() == {"device", "architecture", "up_to", "stack"}
        assert entry["device"] in ("cpu", "cuda")
        assert entry["architecture"] in plugins.BUILT_IN["architectures"]
        assert entry["stack"] > 1 and entry["stack"] & (entry["stack"] - 1) == 0
        last = before.get((entry["device"], entry["architecture"]))
        assert last is None or (last["up_to"] < entry["up_to"] and last["stack"] > entry["stack"])
        before[entry["device"], entry["architecture"]] = entry
    assert before


def test_the_size_of_a_step_is_the_hand_calculation():
    """8 x 8 places of 4 channels by 9 weights, 4 x 4 of 8 by 36, then 32 to 16 to 10."""
    one = 64 * 4 * 9 + 16 * 8 * 36 + 32 * 16 + 16 * 10

    assert engines.size_of(Recipe(**CNN), (8, 8, 1), 10) == pytest.approx(16 * one / 1e6)
    assert engines.size_of(Recipe(**CNN | {"batch_size": 32, "precision": "float64"}), (8, 8, 1), 10) == pytest.approx(32 * one / 1e6)
    assert engines.size_of(Recipe(**MLP), (20,), 3) == pytest.approx(16 * (20 * 16 + 16 * 3) / 1e6)


def test_the_size_of_resnet18_on_cifar_is_the_known_one():
    """0.56 thousand million multiplications, as published implementations for 32 x 32 pixels count."""
    recipe = Recipe(architecture="resnet18", epochs=1, batch_size=1, learning_rate=0.1)

    assert engines.size_of(recipe, (32, 32, 3), 10) == pytest.approx(556, abs=1)


# -- the choice --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("table")
def test_auto_takes_the_entry_that_the_size_falls_under():
    tiny = MLP | {"hidden": (1,), "batch_size": 4}  # 300 multiplications a step

    assert _stack(tiny, 100) == 16
    assert _stack(MLP, 100) == 4
    assert _stack(MLP | {"hidden": (1000,)}, 100) == 1  # above all entries
    assert _stack(MLP, 100, CUDA) == 32
    assert _stack(CNN, 100) == 1  # no entry


@pytest.mark.usefixtures("table")
def test_a_model_alone_in_its_shard_is_no_stack():
    assert [_stack(MLP, n, CUDA) for n in (1, 2, 33)] == [1, 32, 32]


@pytest.mark.usefixtures("table")
def test_what_params_say_comes_before_the_table():
    assert _stack(MLP, 100, engine="sequential") == 1
    assert _stack(MLP, 100, engine="sequential", stack=8) == 1
    assert _stack(MLP, 100, stack=7) == 7
    assert _stack(CNN, 3, engine="ensemble", stack=5) == 5
    assert _stack(CNN, 100, engine="ensemble", stack=1) == 1


@pytest.mark.usefixtures("table")
def test_half_precision_trains_one_after_another():
    assert _stack(MLP | {"precision": "float16"}, 100, engine="ensemble", stack=8) == 1
    assert _stack(MLP | {"precision": "bfloat16"}, 100, engine="ensemble", stack=8) == 8


@pytest.mark.usefixtures("table")
def test_stacked_networks_train_one_after_another():
    assert _stack(MLP | {"stacking": {}}, 100, engine="ensemble", stack=8) == 1
    assert engines.why_alone(Recipe(**MLP, stacking={})) == "stacked networks train part after part"
    assert [_stack(MLP | taught, 100) for taught in ({"selena": {}}, {"distillation": {"records": 9}}, {"early_stopping": {"records": 9}})] == [
        4,
        4,
        4,
    ]


def test_a_users_architecture_is_not_in_the_table(tmp_path):
    (tmp_path / "mine.py").write_text("def build(shape, n_classes, recipe):\n    raise RuntimeError('not to be called')\n")
    recipe = {"architecture": f"{tmp_path / 'mine.py'}:build", "epochs": 1, "batch_size": 16, "learning_rate": 0.1}

    assert _stack(recipe, 100) == 1
    assert _stack(recipe, 100, engine="ensemble") == 8


def test_the_engine_moves_no_path():
    """Models of another engine are other roundings of the same recipe: nothing trains anew."""
    config = {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"small": MLP},
        "audits": {
            "a": {"dataset": "digits", "recipe": "small", "design": {"kind": "halves", "models": 8}, "attacks": {"loss": {"name": "threshold"}}}
        },
    }
    planned = plan.build(params_room.validate(config)).audits["a"]
    for training in ({"engine": "sequential"}, {"engine": "ensemble", "stack": 3}, {"checkpoint_minutes": 1}):
        other = plan.build(params_room.validate(config | {"training": training})).audits["a"]
        assert (other.models(), other.signals(), other.recipe.name) == (planned.models(), planned.signals(), planned.recipe.name)


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'auto', 'sequential' or 'ensemble'"):
        Training(engine="vmap")
    with pytest.raises(ValueError, match="greater than 0"):
        Training(stack=0)


# -- groups ------------------------------------------------------------------------------------------------------


def test_tasks_with_equally_many_steps_train_together(digits):
    tasks = Coins(0, 0, 12, 30, 40).tasks(digits)
    found = engines.groups(tasks, 4, 5)
    steps = [{len(list(task.batches(0, 5))) for task in group} for group in found]

    assert sorted(task.model_id for group in found for task in group) == sorted(task.model_id for task in tasks)
    assert all(len(group) <= 4 for group in found)
    assert all(len(each) == 1 for each in steps)
    assert len(set.union(*steps)) > 1  # there were several to tell apart
    assert [task.model_id for task in found[0]] == [task.model_id for task in tasks if len(list(task.batches(0, 5))) in steps[0]][:4]


def test_what_a_kill_left_is_grouped_as_it_was(digits):
    tasks = Coins(0, 0, 12, 30, 40).tasks(digits)
    whole = engines.groups(tasks, 3, 5)
    done = {task.model_id for task in whole[0]}

    rest = engines.groups([task for task in tasks if task.model_id not in done], 3, 5)

    assert {tuple(task.model_id for task in group) for group in rest} == {tuple(task.model_id for task in group) for group in whole[1:]}


# -- out of memory, and other errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (loop.TrainingDiverged("the loss is nan"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, is_memory):
    assert engines.is_out_of_memory(error) is is_memory


class _Machine:
    """Trainings that only note who trained with whom; a stack above `most` does not fit."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error = most, error
        self.tried: list[tuple[int, list[str]]] = []
        self.checkpoints: list[list[str]] = []

    def together(self, tasks, dataset, recipe, device, checkpoint):
        self.tried.append((len(tasks), [task.model_id for task in tasks]))
        if len(tasks) > self.most:
            raise self.error
        return [Trained({}, {"model": task.model_id}) for task in tasks]

    def checkpoint_of(self, group):
        self.checkpoints.append([task.model_id for task in group])
        return Checkpoint(Path("nowhere"), {}, 10)


@pytest.fixture
def machine(monkeypatch):
    def with_room(most: int, error: Exception) -> _Machine:
        made = _Machine(most, error)
        monkeypatch.setattr(ensemble, "train", made.together)
        return made

    return with_room


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize(("most", "expected"), [(8, [8, 3]), (4, [8, 4, 4, 3]), (2, [8, 4, 2, 2, 2, 2, 2, 1]), (1, [8, 4, 2, *[1] * 11])])
def test_a_stack_that_does_not_fit_is_halved_and_nobody_is_lost_or_trained_twice(machine, digits, tiny, capsys, error, most, expected):
    tasks = Rounds(None, 64, 0, "fit", 0, 11).tasks(digits)
    simulated = machine(most, error)

    given = [pair for group in stage.train_all(tasks, 8, digits, tiny, CPU, simulated.checkpoint_of) for pair in group]

    assert [task.model_id for task, _ in given] == [task.model_id for task in tasks]
    assert all(trained.facts["model"] == task.model_id for task, trained in given)
    assert [n for n, _ in simulated.tried] == expected
    said = capsys.readouterr().out
    assert [f"out of memory: {n} models at once from here on" in said for n in (4, 2, 1)] == [most < 8, most < 4, most < 2]
    assert simulated.checkpoints == [tried for _, tried in simulated.tried]


def test_what_one_model_alone_ran_out_of_is_raised(machine, digits, tiny):
    """There is nothing left to halve."""
    simulated = machine(0, torch.OutOfMemoryError("CUDA out of memory"))

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        list(stage.train_all(Rounds(None, 64, 0, "fit", 0, 2).tasks(digits), 2, digits, tiny, CPU, simulated.checkpoint_of))
    assert [n for n, _ in simulated.tried] == [2, 1]


def test_any_other_error_is_raised(machine, digits, tiny):
    simulated = machine(1, RuntimeError("expected scalar type Float but found Double"))

    with pytest.raises(RuntimeError, match="expected scalar type"):
        list(stage.train_all(Rounds(None, 64, 0, "fit", 0, 4).tasks(digits), 4, digits, tiny, CPU, simulated.checkpoint_of))
    assert len(simulated.tried) == 1


def test_what_cannot_be_stacked_trains_one_after_another_and_says_so(machine, digits, tiny, capsys):
    simulated = machine(1, NotStackable("the layer LSTM is not among those that can be stacked"))
    tasks = Rounds(None, 64, 0, "fit", 0, 3).tasks(digits)

    given = [task.model_id for group in stage.train_all(tasks, 4, digits, tiny, CPU, simulated.checkpoint_of) for task, _ in group]

    assert given == [task.model_id for task in tasks]
    assert [n for n, _ in simulated.tried] == [3, 1, 1, 1]
    assert "trained one after another: mlp cannot be stacked: the layer LSTM is not among those that can be stacked\n" in capsys.readouterr().out


def test_a_users_network_with_glue_is_trained_by_the_stage_as_alone(tmp_path, digits_path, digits, monkeypatch, capsys):
    """From params to files: `x.mean(dim=(2, 3))` between known layers."""
    from memleak import artefacts
    from memleak.training import store

    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from torch import nn\nclass Network(nn.Module):\n    def __init__(self, channels, n_classes):\n        super().__init__()\n"
        "        self.first, self.head = nn.Conv2d(channels, 6, 3), nn.Linear(6, n_classes)\n"
        "    def forward(self, x):\n        return self.head(self.first(x).relu().mean(dim=(2, 3)))\n"
        "def build(shape, n_classes, recipe):\n    return Network(shape[2], n_classes)\n"
    )
    recipe = Recipe(architecture=f"{Path('mine.py').resolve()}:build", epochs=1, batch_size=16, learning_rate=0.05)
    planned = Complements(0, 0, 2, pool=80)
    stage.train(digits_path, "r", recipe, planned, tmp_path / "a/models.safetensors", "cpu", Training(engine="ensemble"))

    facts = artefacts.read_shard_facts(tmp_path / "a/models.safetensors")
    alone = [loop.train(task, digits, recipe, CPU).weights for task in planned.tasks(digits)]
    kept = [store.read_model(tmp_path / "a/models.safetensors", i, facts) for i in range(2)]
    assert [model["engine"] for model in facts["models"]] == ["sequential", "sequential"]
    assert all(torch.equal(a[name], b[name]) for a, b in zip(alone, kept, strict=True) for name in a)
    assert "cannot be stacked: together they stop with RuntimeError" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")
