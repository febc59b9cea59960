"""Training: a model's weights depend on its own id and recipe alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memleak import data
from memleak.designs import Rounds
from memleak.models import ModelError, build
from memleak.params import ParamsError, Recipe
from memleak.training import devices, loop, stage, store
from memleak.training.batches import Pick
from memleak.training.loop import TrainingDiverged
from memleak.training.optimizers import learning_rate_at

CPU = torch.device("cpu")
CNN = Recipe(architecture="small_cnn", channels=(8,), hidden=(16,), epochs=2, batch_size=16, learning_rate=0.05, dropout=0.3, shift=1, flip=True)


def _rounds(**changed) -> Rounds:
    return Rounds(**{"target": "atypical00", "subset_size": 64, "seed": 0, "role": "fit", "first": 0, "last": 2} | changed)


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.mark.parametrize("recipe", [CNN, CNN.model_copy(update={"normalisation": "group", "optimizer": "adamw", "learning_rate": 0.01})])
def test_the_same_task_gives_the_same_bits(digits, recipe):
    task = _rounds().tasks(digits)[0]

    assert _equal(loop.train(task, digits, recipe, CPU).weights, loop.train(task, digits, recipe, CPU).weights)


def test_weights_do_not_depend_on_what_was_trained_before(digits):
    first, second = _rounds().tasks(digits)[:2]
    alone = loop.train(second, digits, CNN, CPU)
    loop.train(first, digits, CNN, CPU)
    torch.manual_seed(99)

    assert _equal(loop.train(second, digits, CNN, CPU).weights, alone.weights)


def test_a_shard_of_any_size_holds_the_same_models(tmp_path, digits_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, parts = {}, {}
    stage.train(digits_path, "r", tiny, _rounds(last=4), tmp_path / "a/whole.safetensors", "cpu")
    for first in (0, 1, 3):
        monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / f"store{first}"))  # nothing is adopted
        rounds = _rounds(first=first, last={0: 1, 1: 3, 3: 4}[first])
        stage.train(digits_path, "r", tiny, rounds, tmp_path / f"b{first}/part.safetensors", "cpu")
        parts |= _models(tmp_path / f"b{first}/part.safetensors")
    whole = _models(tmp_path / "a/whole.safetensors")

    assert whole.keys() == parts.keys()
    assert all(_equal(whole[name], parts[name]) for name in whole)


def _models(path) -> dict[str, dict[str, torch.Tensor]]:
    from memleak import artefacts

    facts = artefacts.read_shard_facts(path)
    return {model["model_id"]: store.read_model(path, i, facts) for i, model in enumerate(facts["models"])}


def test_augmentation_and_dropout_of_the_others_do_not_see_the_target(digits):
    """The IN arm's batch with the target has the OUT arm's inputs and masks for all other samples."""
    inside = _rounds(last=1).tasks(digits)[-1]
    with_target = Pick(digits, inside.sample_ids, inside.own, CNN, CPU, augmented=True)
    without = Pick(digits, inside.members, None, CNN, CPU, augmented=True)
    batches = list(inside.batches(0, 16))
    slot = next(i for i, batch in enumerate(batches) if inside.target.sample_id in batch)
    others = [batch[batch != inside.target.sample_id] for batch in batches]

    seen = list(with_target.batches(batches, key=1234))
    expected = list(without.batches(others, key=1234))

    assert [len(batch) for batch in batches] == [16 + (i == slot) for i in range(4)]
    for (inputs, labels, _), (other_inputs, other_labels, _), batch in zip(seen, expected, others, strict=True):
        assert torch.equal(inputs[: len(batch)], other_inputs)
        assert torch.equal(labels[: len(batch)], other_labels)
    assert not torch.equal(next(with_target.batches(batches, key=1235))[0], seen[0][0])  # augmentation is there at all


def test_dropout_belongs_to_the_sample():
    from memleak.models.layers import CounterDropout, set_rows

    layer = CounterDropout(0.5, layer=0).train()
    rows, ones = torch.tensor([5, 9, 11]), torch.ones(3, 1000)
    set_rows(layer, rows)
    masks = layer(ones)
    set_rows(layer, rows[[2, 0]])

    assert torch.equal(layer(ones[:2]), masks[[2, 0]])
    assert 0.45 < (masks > 0).double().mean() < 0.55
    assert masks.unique().tolist() == [0.0, 2.0]


def test_a_samples_logits_do_not_depend_on_its_batch_mates(digits):
    model = build(CNN, digits.shape, digits.n_classes, 0, CPU)
    few, many = np.array([3]), np.arange(300)

    alone = loop.predict(model, digits, few, None, CNN, CPU)
    among = loop.predict(model, digits, many, None, CNN, CPU)

    assert torch.equal(alone[0], among[3])


def test_the_target_is_learnt_with_its_own_label(digits):
    """A canary's label is wrong, and the model that trained on it says so."""
    recipe = Recipe(architecture="mlp", hidden=(64,), epochs=60, batch_size=16, learning_rate=0.1)
    inside = next(task for task in _rounds(target="mislabelled00", last=1).tasks(digits) if task.is_in)

    trained = loop.train(inside, digits, recipe, CPU)
    model = build(recipe, digits.shape, digits.n_classes, 0, CPU)
    model.load_state_dict(trained.weights)
    said = loop.predict(model, digits, np.array([inside.target.sample_id]), inside.own, recipe, CPU)

    assert trained.facts["train_accuracy"] == 1.0
    assert int(said.argmax()) == inside.target.label != digits.labels[inside.target.source_id]


def test_divergence_names_model_and_epoch(digits, tiny):
    with pytest.raises(TrainingDiverged, match=r"with-atypical00-n64-s0-m0000: the loss is (nan|inf) .*epoch 1 of 2; lower learning_rate"):
        loop.train(_rounds(last=1).tasks(digits)[-1], digits, tiny.model_copy(update={"learning_rate": 1e30}), CPU)


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0.0), ("cosine", 0.1), ("one_cycle", 0.0)])
def test_the_learning_rate_rises_over_the_warmup_and_falls_to_nothing(tiny, schedule, warmup):
    recipe = tiny.model_copy(update={"schedule": schedule, "warmup": warmup, "learning_rate": 0.4})
    rates = [learning_rate_at(recipe, step, 100) for step in range(100)]

    assert max(rates) == pytest.approx(0.4)
    assert rates[-1] == (0.4 if schedule == "constant" else pytest.approx(0, abs=0.001))
    assert rates[0] == (0.4 if schedule == "constant" else pytest.approx(0.4 / (10 if warmup else 30)))


def test_a_gpu_that_is_not_there_is_said_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        devices.prepare_torch("cuda")


def test_what_the_data_cannot_serve_is_refused(digits, tiny):
    with pytest.raises(ParamsError, match="batch_size: 16 is larger than a training set of 8 records"):
        stage.check_recipe(tiny, digits, 8)
    with pytest.raises(ModelError, match="images of 8 x 8 are too small for 4 poolings"):
        build(CNN.model_copy(update={"channels": (8, 8, 8, 8)}), digits.shape, 10, 0, CPU)
    with pytest.raises(ModelError, match="expected images"):
        build(CNN, (20,), 10, 0, CPU)


def test_tables_are_trained_on_too(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom memleak.data import Samples\ndef load(source):\n"
        "    x = np.random.default_rng(0).normal(size=(200, 5)); return Samples(x, (x[:, 0] > 0).astype(int))\n"
    )
    from memleak.params import Dataset

    data.prepare(Dataset(name=f"{tmp_path / 'mine.py'}:load"), tmp_path / "dataset.json")
    table = data.read(tmp_path / "dataset.json")
    recipe = Recipe(architecture="mlp", hidden=(16,), epochs=20, batch_size=16, learning_rate=0.1)

    trained = loop.train(_rounds(last=1).tasks(table)[-1], table, recipe, CPU)

    assert trained.facts["test_accuracy"] > 0.8
