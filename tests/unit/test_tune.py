"""What `memleak tune` measures and proposes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from memleak import cli, plan
from memleak import params as params_room
from memleak.params import ParamsError, Recipe, Training
from memleak.training import accountant, engines, tune
from memleak.training.tune import Timing

CONFIG = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"small": {"architecture": "mlp", "hidden": [16], "epochs": 1, "batch_size": 16, "learning_rate": 0.1}},
    "audits": {"a": {"dataset": "digits", "recipe": "small", "design": {"kind": "halves", "models": 4}, "attacks": {"loss": {"name": "threshold"}}}},
}
LSTM = """
from torch import nn

class Network(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, n_classes)

    def forward(self, x):
        return self.head(self.lstm(x[:, 0])[0][:, -1])

def build(shape, n_classes, recipe):
    return Network(n_classes)
"""
GLUE = LSTM.replace("nn.LSTM(8, 4, batch_first=True), nn.Linear(4, n_classes)", "nn.Conv2d(1, 4, 3), nn.Linear(4, n_classes)").replace(
    "self.lstm(x[:, 0])[0][:, -1]", "self.lstm(x).mean(dim=(2, 3))"
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def _prepared(digits_path: Path) -> None:
    """Put the data where the plan looks for it."""
    planned = plan.build(params_room.load("params.yaml"))
    place = Path(planned.dataset_path(next(iter(planned.recipes))))
    place.parent.parent.mkdir(parents=True)
    place.parent.symlink_to(digits_path.parent, target_is_directory=True)


# -- what is proposed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39, 16: 0.385}, 4),  # a larger one wins too little
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3, 16: 0.35}, 8),
        ({1: 1.0, 2: 1.2, 4: 1.5}, 1),
        ({1: 1.0, 2: 0.97}, 1),
        ({1: 1.0, 2: None, 4: None}, 1),
        ({1: 1.0, 2: 0.5, 4: None}, 2),
    ],
)
def test_the_smallest_stack_that_is_about_as_fast_as_the_fastest_is_best(seconds, expected):
    assert tune.best([Timing(stack, value) for stack, value in seconds.items()]) == expected


def test_the_text_shows_all_timings_and_an_entry_that_could_be_committed(tiny):
    said = tune.text("mine", tiny, "cpu", [Timing(1, 0.002), Timing(2, 0.001), Timing(4, 0.0005), Timing(8, None, "no room")], 12.345)
    lines = said.splitlines()

    assert lines[0] == "mine: mlp in batches of 16, 12.3 million multiplications a step"
    assert "one after another" in lines[1] and "2.000 ms a step and model, 1.00 times" in lines[1]
    assert "ensemble of 4" in lines[3] and "0.500 ms a step and model, 4.00 times" in lines[3]
    assert "ensemble of 8" in lines[4] and "cannot be: no room" in lines[4]
    assert Training(**json.loads(lines[5].split("training: ")[1])) == Training(engine="ensemble", stack=4)
    assert json.loads(lines[6].split("engines.json: ")[1]) == {"device": "cpu", "architecture": "mlp", "up_to": 12.0, "stack": 4}


def test_where_no_stack_is_faster_the_sequential_engine_is_proposed(tiny):
    said = tune.text("mine", tiny, "cpu", [Timing(1, 0.002), Timing(2, 0.003)], 1.0)

    assert 'params.yaml: training: {"engine": "sequential"}' in said


def test_private_steps_propose_nothing_for_a_table_of_plain_ones(tiny):
    private = Recipe(**tiny.model_dump(exclude_unset=True) | {"dp": {"noise_multiplier": 1.0}})

    said = tune.text("mine", private, "cpu", [Timing(1, 0.002), Timing(2, 0.001)], 1.0)

    assert 'params.yaml: training: {"engine": "ensemble", "stack": 2}' in said and "engines.json" not in said


# -- what is measured --------------------------------------------------------------------------------------------


def test_each_stack_is_timed_on_the_data(digits_path, digits, tiny):
    timings, size = tune.measure(digits_path, tiny, "cpu", stacks=(2, 3), repeats=2, seconds=0.01)

    assert [timing.stack for timing in timings] == [1, 2, 3]
    assert all(0 < timing.seconds < 0.1 and timing.why_not == "" for timing in timings)
    assert size == engines.size_of(tiny, digits.shape, digits.n_classes)


@pytest.mark.parametrize(
    "defence",
    [
        {"early_stopping": {"records": 50, "patience": 1}}, {"distillation": {"records": 50}}, {"selena": {}}, {"stacking": {}},
        {"dp": {"epsilon": 3.0}}, {"dp": {"noise_multiplier": 0.7, "accountant": "prv"}, "distillation": {"records": 50, "epochs": 3}},
    ],
)  # fmt: skip
def test_with_a_defence_plain_steps_are_timed_and_no_noise_is_searched_for(digits_path, tiny, monkeypatch, defence):
    """Neither a reserve nor phases: what is asked is how long a step takes."""
    monkeypatch.setattr(accountant, "noise_of", lambda *_: pytest.fail("the noise was searched for"))
    monkeypatch.setattr(accountant, "_composed", lambda *_: pytest.fail("the prv accountant was asked"))

    timings, _ = tune.measure(digits_path, Recipe(**tiny.model_dump(exclude_unset=True) | defence), "cpu", stacks=(2,), repeats=1, seconds=0.01)

    assert [timing.stack for timing in timings] == [1, 2]
    assert all(0 < timing.seconds < 1 for timing in timings)


@pytest.mark.parametrize(("code", "why"), [(LSTM, "the layer LSTM is not among those"), (GLUE, "together they stop with RuntimeError")])
def test_a_network_that_cannot_be_stacked_is_timed_alone(tmp_path, digits_path, code, why):
    (tmp_path / "mine.py").write_text(code)
    recipe = Recipe(architecture=f"{tmp_path / 'mine.py'}:build", epochs=1, batch_size=16, learning_rate=0.1)

    timings, _ = tune.measure(digits_path, recipe, "cpu", stacks=(2,), repeats=1, seconds=0.01)

    assert timings[0].seconds is not None
    assert timings[1].seconds is None and timings[1].why_not.startswith(why)
    assert tune.best(timings) == 1


def test_a_stack_without_room_is_said_and_any_other_error_is_raised(digits_path, tiny, monkeypatch):
    run = tune._run

    def without_room(tasks, *rest):
        if len(tasks) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand more")
        return run(tasks, *rest)

    monkeypatch.setattr(tune, "_run", without_room)
    timings, _ = tune.measure(digits_path, tiny, "cpu", stacks=(2, 4), repeats=1, seconds=0.01)
    assert [timing.seconds is None for timing in timings] == [False, False, True]
    assert timings[2].why_not == "DefaultCPUAllocator: can't allocate memory"

    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(tune, "_run", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        tune.measure(digits_path, tiny, "cpu", stacks=(2,), repeats=1, seconds=0.01)


def test_a_recipe_that_the_data_cannot_serve_is_refused(digits_path, tiny):
    with pytest.raises(ParamsError, match="batch_size: 2000 is larger than a training set of"):
        tune.measure(digits_path, tiny.model_copy(update={"batch_size": 2000}), "cpu", stacks=(2,))


# -- the verb ----------------------------------------------------------------------------------------------------


def test_the_verb_prints_a_proposal_for_each_recipe(here, digits_path, capsys):
    _prepared(digits_path)

    assert cli.main(["tune", "--device", "cpu", "--stacks", "2", "--seconds", "0.01"]) == 0

    said = capsys.readouterr().out
    assert "small" in said and "mlp in batches of 16" in said
    assert said.count("ms a step and model") == 2
    assert 'engines.json: {"device": "cpu", "architecture": "mlp"' in said


def test_the_verb_asks_for_data_that_is_not_prepared(here, capsys):
    assert cli.main(["tune", "--device", "cpu"]) == 1

    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "the data is not prepared yet; run `snakemake data --cores 1` first" in said


def test_the_verb_has_nothing_to_choose_for_a_trainer_of_ones_own(here, capsys):
    Path("my_train.py").write_text("def train(data, indices, seed, device):\n    raise RuntimeError('not to be called')\n")
    Path("params.yaml").write_text(yaml.safe_dump(CONFIG | {"recipes": {"small": {"trainer": "my_train.py:train", "architecture": "mlp"}}}))

    assert cli.main(["tune", "--device", "cpu"]) == 0
    assert "a trainer of one's own trains one model after another" in capsys.readouterr().out


def test_the_verb_has_nothing_to_choose_for_stacked_networks(here, capsys):
    small = CONFIG["recipes"]["small"] | {"stacking": {"hidden": 8}}
    Path("params.yaml").write_text(yaml.safe_dump(CONFIG | {"recipes": {"small": small}}))

    assert cli.main(["tune", "--device", "cpu"]) == 0
    assert "small: stacked networks train part after part" in capsys.readouterr().out
