"""Models of texts go through the loop of all others: alone, several at once, privately, and after a kill."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import records, tiny_bert_mlm, tiny_gpt2
from passages import GPT2, LENGTH, PRIVATE, checkpoint_recipe, gpt2_recipe, passages
from torch.nn import functional
from trainings import CPU, check_alike, check_resumes, equal, train

from memleak import artefacts, cli
from memleak.designs import Complements, Rounds
from memleak.models import language
from memleak.params import ParamsError, Training
from memleak.training import engines, loop, stage
from memleak.training.gradients import ByOpacus
from memleak.training.language import TextProgram, Texts, encoded_of, judge, of_tokens
from memleak.training.store import read_model

LABELS = np.arange(60) % 3
HALVES = Complements(0, 0, 4, pool=41)  # of 20 and 21
ADDED = {"rank": 2}
EVERYTHING = {"gradient_clip": 0.1, "ema": 0.9, "weight_decay": 0.1, "schedule": "one_cycle", "label_smoothing": 0.1, "flooding": 0.5}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return passages(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return passages(tmp_path_factory.mktemp("labelled"), labels=LABELS)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("base"), layers=1)


@pytest.fixture(scope="module")
def tasks(dataset):
    return HALVES.tasks(dataset)


# ---------------------------------------------------------------------------------------------- the loss


def test_a_batchs_loss_is_the_mean_over_texts_of_the_mean_over_their_tokens(dataset):
    """A slow oracle: token by token, text by text."""
    network = language.build(gpt2_recipe(), dataset, 0, CPU).eval()
    encoded = encoded_of(dataset, np.arange(5), gpt2_recipe())
    tokens = torch.from_numpy(encoded.padded(np.arange(5)))
    program = TextProgram([network])
    program.set_counts(np.array([5]), 5)
    (loss,), (n_right,) = program.losses(network(tokens), tokens, 0.0)

    losses, shares = [], []
    for i in range(5):
        ids = torch.from_numpy(encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]].astype(np.int64))
        said = network(ids[None])[0].log_softmax(1)
        losses.append(np.mean([-float(said[t - 1, ids[t]].detach()) for t in range(1, len(ids))]))
        shares.append(np.mean([int(said[t - 1].argmax()) == int(ids[t]) for t in range(1, len(ids))]))
    assert float(loss.detach()) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(n_right) == pytest.approx(np.sum(shares))
    assert judge(network, encoded, CPU) == pytest.approx((np.mean(losses), np.mean(shares)), rel=1e-5)


def test_texts_are_judged_alike_in_any_order_and_number(dataset):
    network = language.build(gpt2_recipe(), dataset, 0, CPU)
    whole = encoded_of(dataset, np.arange(40), gpt2_recipe())
    parts = [judge(network, encoded_of(dataset, rows, gpt2_recipe()), CPU) for rows in (np.arange(7)[::-1], np.arange(7, 40))]

    assert judge(network, whole, CPU)[0] == pytest.approx((7 * parts[0][0] + 33 * parts[1][0]) / 40, rel=1e-5)


def test_a_batch_is_as_long_as_its_longest_text(dataset):
    encoded = encoded_of(dataset, np.arange(20), gpt2_recipe())
    texts = Texts(encoded, CPU)
    shortest = int(encoded.lengths.argmin())
    batch = texts.take(torch.tensor([shortest]))

    assert batch.shape == (1, encoded.lengths.min()) and batch.dtype == torch.int64
    assert texts.take(torch.arange(20)).shape == (20, encoded.lengths.max())


# ---------------------------------------------------------------------------------------------- training


def test_a_model_remembers_the_texts_that_it_trained_on(dataset, tasks):
    (trained,) = train(tasks[:1], dataset, gpt2_recipe(epochs=40, learning_rate=0.01, text={"width": 32}))
    curve = trained.facts["loss_curve"]

    assert curve[-1] < 0.5 * curve[0]
    assert trained.facts["train_loss"] < trained.facts["test_loss"] - 0.3


def test_the_facts_of_a_model_tell_its_tokens_and_what_was_cut(dataset, tasks):
    (trained,) = train(tasks[:1], dataset, gpt2_recipe())
    encoded = encoded_of(dataset, tasks[0].members, gpt2_recipe())

    assert trained.facts["n_tokens"] == len(encoded.ids)
    assert trained.facts["n_truncated"] == int((encoded.lengths == LENGTH).sum() - (encoded.n_dropped[encoded.lengths == LENGTH] == 0).sum()) > 0
    assert stage.fit_of(trained.facts, gpt2_recipe()).endswith("nats a token")


@pytest.mark.parametrize("changed", [EVERYTHING, {"precision": "bfloat16"}, {"optimizer": "sgd", "learning_rate": 0.05}, {"dropout": 0.2}])
def test_each_way_to_train_changes_the_weights(dataset, tasks, changed):
    (plain,), (found,) = (train(tasks[:1], dataset, gpt2_recipe(**more)) for more in ({}, changed))

    assert not equal(plain.weights, found.weights)
    assert np.isfinite(found.facts["train_loss"])


def test_a_classifier_learns_labels(labelled):
    is_long = np.array([len(text) for text in labelled.inputs]) > 100
    by_length = replace(labelled, labels=is_long.astype(np.int64), facts=labelled.facts | {"n_classes": 2})
    (trained,) = train(HALVES.tasks(by_length)[:1], by_length, gpt2_recipe(epochs=15, learning_rate=0.01, text={"task": "sequence-classification"}))

    assert trained.facts["train_accuracy"] > 0.9
    assert "test accuracy" in stage.fit_of(trained.facts, gpt2_recipe(text={"task": "sequence-classification"}))


def test_an_inserted_text_is_one_more_in_a_batch(dataset):
    tasks = [task for task in Rounds("random00", 16, 0, "fit", 0, 1, pool=40).tasks(dataset) if task.is_in]
    (trained,) = train(tasks, dataset, gpt2_recipe())

    assert trained.facts["n_train"] == 17


# ------------------------------------------------------------------------------------------ several at once


@pytest.mark.parametrize("changed", [{}, EVERYTHING, {"dropout": 0.2}])
def test_additions_learn_together_what_they_learn_alone(dataset, tasks, base, changed):
    """Halves of 20 and 21: in the last batch of some models is a text more."""
    found = check_alike(tasks[:3], dataset, checkpoint_recipe(base, ADDED, precision="float64", **changed))

    assert found[0].facts["engine"] == "ensemble"


def test_classifiers_learn_together_what_they_learn_alone(labelled, tmp_path):
    recipe = checkpoint_recipe(tiny_bert_mlm(tmp_path), ADDED, "sequence-classification", precision="float64", gradient_clip=0.5)

    check_alike(HALVES.tasks(labelled)[:3], labelled, recipe)


def test_models_with_additions_train_together_and_whole_ones_do_not(dataset, base):
    def stack(recipe, training=Training()) -> int:  # noqa: B008
        return engines.stack_of(training, recipe, dataset.shape, dataset.n_classes, CPU, 16)

    assert stack(checkpoint_recipe(base, ADDED)) == 8
    assert stack(checkpoint_recipe(base, ADDED), Training(stack=3)) == 3
    assert stack(checkpoint_recipe(base, ADDED), Training(engine="sequential")) == 1
    assert stack(checkpoint_recipe(base)) == stack(gpt2_recipe(), Training(engine="ensemble")) == 1
    assert stack(checkpoint_recipe(base, ADDED, dp=PRIVATE)) == 1


# ------------------------------------------------------------------------------------------------ kills


def test_a_killed_training_goes_on_to_the_same_bits(dataset, tasks, base, tmp_path):
    check_resumes(tasks[:1], dataset, gpt2_recipe(dropout=0.1, ema=0.9), tmp_path / "one.state", [1, 4])
    check_resumes(tasks[:2], dataset, checkpoint_recipe(base, ADDED, dropout=0.1), tmp_path / "two.state", [2])


def test_a_killed_training_that_stops_early_goes_on_to_the_same_bits(dataset, base, tmp_path):
    recipe = checkpoint_recipe(base, ADDED, early_stopping={"records": 6, "patience": 1}, epochs=3)
    tasks = stage.with_reserve(HALVES, HALVES.tasks(dataset), dataset, recipe)

    check_resumes(tasks[:2], dataset, recipe, tmp_path / "x.state", [5])


def test_a_model_that_stops_early_is_the_one_of_its_best_epoch(dataset):
    recipe = gpt2_recipe(early_stopping={"records": 8, "patience": 1}, epochs=60, learning_rate=0.02)
    task = stage.with_reserve(HALVES, HALVES.tasks(dataset), dataset, recipe)[0]
    (trained,) = train([task], dataset, recipe)
    network = language.build(recipe, dataset, 0, CPU)
    network.load_state_dict(trained.weights)
    losses = trained.facts["validation_loss"]

    assert trained.facts["stopped_epoch"] < 60
    assert judge(network, encoded_of(dataset, task.reserve[:8], recipe), CPU)[0] == pytest.approx(min(losses), rel=1e-5)


# ------------------------------------------------------------------------------------------- the stage


@pytest.fixture
def shard(tmp_path, monkeypatch, dataset):
    """What trains a shard in an empty folder, as the workflow does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage.data, "read", lambda path: dataset)

    def run(recipe) -> Path:
        output = tmp_path / "results/models/r" / f"{HALVES.name}.safetensors"
        run.done = stage.train(Path("dataset.json"), "r", recipe, HALVES, output, "cpu")
        return output

    return run


def test_a_shard_holds_the_additions_alone_and_gives_the_models_back(shard, dataset, base):
    recipe = checkpoint_recipe(base, ADDED)
    path = shard(recipe)
    facts = artefacts.read_shard_facts(path)
    network = language.build(recipe, dataset, 0, CPU)
    network.load_state_dict(read_model(path, 2, facts))
    members = HALVES.tasks(dataset)[2].members

    assert path.stat().st_size < 0.5 * (base / "model.safetensors").stat().st_size
    assert judge(network, encoded_of(dataset, members, recipe), CPU)[0] == pytest.approx(facts["models"][2]["train_loss"], rel=1e-5)


def test_models_of_a_changed_checkpoint_are_trained_anew(shard, tmp_path):
    recipe = checkpoint_recipe(tiny_gpt2(tmp_path / "changing", layers=1, seed=0), ADDED, epochs=1)
    shard(recipe)
    output = shard(recipe)
    assert shard.done["adopted"] == 4
    tiny_gpt2(tmp_path / "changing", layers=1, seed=1)
    output.unlink()
    shard(recipe)

    assert shard.done["adopted"] == 0


# ------------------------------------------------------------------------------------------------ refused


def test_a_text_without_a_token_to_predict_is_refused(tmp_path):
    dataset = passages(tmp_path, texts=[*records(20), "a"])

    with pytest.raises(ParamsError, match="text 20: it has 1 token"):
        stage.check_recipe(gpt2_recipe(), dataset, 20)


def test_texts_and_other_data_want_networks_of_their_own(dataset, digits, tiny):
    with pytest.raises(ParamsError, match="the data are texts, and mlp reads none"):
        stage.check_recipe(tiny, dataset, 20)
    with pytest.raises(ParamsError, match="gpt2 reads texts, and the data has shape"):
        stage.check_recipe(gpt2_recipe(), digits, 20)


def test_labels_that_are_not_there_cannot_be_learnt(dataset):
    with pytest.raises(ParamsError, match="sequence-classification learns labels, and the data has none"):
        stage.check_recipe(gpt2_recipe(text={"task": "sequence-classification"}), dataset, 20)


def test_steps_of_many_lengths_are_not_compiled(dataset):
    with pytest.raises(ParamsError, match="compile: batches of texts differ in length"):
        stage.check_recipe(gpt2_recipe(compile=True), dataset, 20)


def test_a_loss_that_is_no_number_names_model_and_epoch(dataset, tasks):
    with pytest.raises(loop.TrainingDiverged, match=f"{tasks[0].model_id}: the loss is (nan|inf) in epoch"):
        train(tasks[:1], dataset, gpt2_recipe(optimizer="sgd", learning_rate=1e6))


# ------------------------------------------------------------------------------------------------ private


class Whole:
    """A batch of texts whose gradients are not clipped; it notes their norms."""

    def __init__(self, program: TextProgram, tokens: torch.Tensor) -> None:
        self.program, self.tokens = program, tokens

    def enter(self, part: slice) -> None: ...

    def losses(self, logits: torch.Tensor, part: slice) -> torch.Tensor:
        return self.program.each(logits, self.tokens[part], 0.0)[0]

    def factors(self, norms: torch.Tensor, part: slice) -> torch.Tensor:
        self.norms = norms
        return torch.ones_like(norms)


@pytest.mark.parametrize("options", [None, ADDED])
def test_gradients_of_single_texts_are_those_of_each_alone(dataset, base, options):
    """The embedding of a GPT-2 is its head too, and its positions are the same in all rows."""
    recipe = checkpoint_recipe(base, options, precision="float64")
    network, apart = (language.build(recipe, dataset, 0, CPU) for _ in range(2))
    tokens = torch.from_numpy(encoded_of(dataset, np.arange(4), recipe).padded(np.arange(4)))
    with torch.no_grad():
        for one, other in zip(network.parameters(), apart.parameters(), strict=True):
            if one.requires_grad:  # additions begin at 0, where half of the gradients are 0 too
                one += 0.05
                other.copy_(one)
    trained = [weight for weight in apart.parameters() if weight.requires_grad]
    alone = [torch.autograd.grad(of_tokens(apart(text[None]), text[None])[0].sum(), trained) for text in tokens]
    batch = Whole(TextProgram([network]), tokens)
    sums = ByOpacus(network, [weight for weight in network.parameters() if weight.requires_grad]).sums(tokens, batch)

    norms = [float(torch.stack([part.norm() for part in parts]).norm()) for parts in alone]
    assert batch.norms[0].tolist() == pytest.approx(norms, rel=1e-8)
    for found, expected in zip(sums, zip(*alone, strict=True), strict=True):
        assert torch.allclose(found, torch.stack(expected).sum(0), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("options", [None, ADDED])
def test_a_private_training_promises_what_it_keeps(dataset, tasks, base, options):
    recipe = checkpoint_recipe(base, options, dp=PRIVATE)
    stage.check_recipe(recipe, dataset, 20)
    (trained,) = train(tasks[:1], dataset, recipe)

    assert trained.facts["dp"]["epsilon"] > 0 and trained.facts["dp"]["clip"] == 1.0
    assert np.isfinite(trained.facts["train_loss"])


def test_a_private_classifier_of_texts_trains_too(labelled, tmp_path):
    recipe = checkpoint_recipe(tiny_bert_mlm(tmp_path), None, "sequence-classification", dp=PRIVATE)
    stage.check_recipe(recipe, labelled, 20)

    assert np.isfinite(train(HALVES.tasks(labelled)[:1], labelled, recipe)[0].facts["train_loss"])


# ------------------------------------------------------------------------------------------------ pretrain


def test_a_base_is_trained_and_saved_for_others_to_train_further(tmp_path, monkeypatch, capsys):
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("\n".join(records(40)), encoding="utf-8")
    recipe = json.dumps(GPT2)
    arguments = ["pretrain", "--dataset", '{"name": "text", "source": "notes.txt"}', "--recipe", recipe, "--output", "base", "--device", "cpu"]

    assert cli.main(arguments) == 0
    assert "base: a base trained on" in capsys.readouterr().out
    assert sorted(os.listdir("base")) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert AutoModelForCausalLM.from_pretrained("base").config.n_layer == 1
    again = passages(tmp_path / "others")
    (trained,) = train(HALVES.tasks(again)[:1], again, checkpoint_recipe(tmp_path / "base"))
    assert functional.relu(torch.tensor(trained.facts["train_loss"])) < 5.5  # below that of a uniform guess among 300 tokens
    assert cli.main(arguments) == 1
    assert "base: is there already" in capsys.readouterr().err


def test_a_base_may_be_named_as_params_yaml_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    audit = {"dataset": "mine", "recipe": "small", "design": {"kind": "halves", "models": 4, "pool": 800}, "attacks": {"loss": {"name": "threshold"}}}
    params = {"datasets": {"mine": {"name": "python_topics"}}, "recipes": {"small": GPT2}, "audits": {"one": audit}}
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")

    assert cli.main(["pretrain", "--dataset", "mien", "--recipe", json.dumps(GPT2), "--output", "base", "--device", "cpu"]) == 1
    assert "--dataset: no dataset is called 'mien' in params.yaml (did you mean 'mine'?)" in capsys.readouterr().err
