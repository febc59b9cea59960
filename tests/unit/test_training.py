"""Training: a model's weights depend on its own id and recipe alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memleak.designs import Rounds
from memleak.models import ModelError, build
from memleak.params import ParamsError, Recipe, Training
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
    """Bit for bit, where one model after another is trained."""
    whole, parts = _whole_and_parts(tmp_path, digits_path, tiny, monkeypatch, Training(engine="sequential"))

    assert whole.keys() == parts.keys()
    assert all(_equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("recipe", [None, CNN])
def test_a_shard_of_any_size_holds_the_same_models_but_for_rounding_where_they_train_together(tmp_path, digits_path, tiny, monkeypatch, recipe):
    """A stack's sums depend on a model's place in it and on the rows that its mates have: never more than the last bits."""
    whole, parts = _whole_and_parts(tmp_path, digits_path, recipe or tiny, monkeypatch, Training(engine="ensemble", stack=3))

    assert whole.keys() == parts.keys()
    for name in whole:
        assert whole[name].keys() == parts[name].keys()
        assert all(torch.allclose(whole[name][key], parts[name][key], rtol=1e-4, atol=2e-6) for key in whole[name])


@pytest.mark.parametrize("recipe", [None, CNN])
def test_a_shard_trained_again_in_stacks_has_the_same_bits_also_after_a_kill(tmp_path, digits_path, tiny, monkeypatch, recipe):
    """The models that were kept are adopted; the others train with the mates that they had."""
    training, shards = Training(engine="ensemble", stack=3), []
    monkeypatch.chdir(tmp_path)
    for name in ("once", "again", "killed"):
        monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / f"store-{name}"))
        output = tmp_path / f"{name}/shard.safetensors"
        if name == "killed":
            _stop_after_one_group(monkeypatch, lambda o=output: stage.train(digits_path, "r", recipe or tiny, _rounds(last=7), o, "cpu", training))
        done = stage.train(digits_path, "r", recipe or tiny, _rounds(last=7), output, "cpu", training)
        assert done["adopted"] == (3 if name == "killed" else 0)
        shards.append(_models(output))

    assert all(shards[0].keys() == other.keys() for other in shards)
    assert all(_equal(shards[0][name], other[name]) for other in shards[1:] for name in shards[0])


def _stop_after_one_group(monkeypatch, run) -> None:
    """As a kill between two groups leaves it: the first group's models are kept, the shard is not written."""
    from memleak.training import ensemble

    train, calls = ensemble.train, []

    def second_fails(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "train", second_fails)
        with pytest.raises(KeyboardInterrupt):
            run()


def _whole_and_parts(tmp_path, digits_path, recipe, monkeypatch, training: Training) -> tuple[dict, dict]:
    """The same rounds trained as one shard, and as three of unequal sizes."""
    monkeypatch.chdir(tmp_path)
    parts = {}
    stage.train(digits_path, "r", recipe, _rounds(last=4), tmp_path / "a/whole.safetensors", "cpu", training)
    for first in (0, 1, 3):
        monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / f"store{first}"))  # nothing is adopted
        rounds = _rounds(first=first, last={0: 1, 1: 3, 3: 4}[first])
        done = stage.train(digits_path, "r", recipe, rounds, tmp_path / f"b{first}/part.safetensors", "cpu", training)
        assert done["adopted"] == 0
        parts |= _models(tmp_path / f"b{first}/part.safetensors")
    return _models(tmp_path / "a/whole.safetensors"), parts


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


def test_tables_are_trained_on_too(table):
    recipe = Recipe(architecture="mlp", hidden=(16,), epochs=20, batch_size=16, learning_rate=0.1)

    trained = loop.train(_rounds(last=1).tasks(table)[-1], table, recipe, CPU)

    assert trained.facts["test_accuracy"] > 0.8
