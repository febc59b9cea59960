"""Networks that read texts: drawn from a seed or begun from a checkpoint, and no text's answer depends on its batch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import CONTEXT, tiny_bert_classifier, tiny_bert_mlm, tiny_gpt2, tiny_gpt2_classifier, tiny_tokenizer
from passages import LENGTH, checkpoint_recipe, gpt2_recipe, passages
from trainings import CPU, equal

from memleak import models
from memleak.models import ModelError, language
from memleak.models.layers import set_rows
from memleak.training.language import encoded_of

LABELS = np.arange(60) % 3
STORIES = Path(os.environ.get("MEMLEAK_TEST_DATA", "")) / "models" / "stories260k"
TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, -1, -1], [11, 12, 13, -1]])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return passages(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return passages(tmp_path_factory.mktemp("labelled"), labels=LABELS)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert_mlm(tmp_path_factory.mktemp("bert"))


def check_alone_as_in_a_batch(network: language.TextNetwork) -> None:
    network.eval()
    with torch.no_grad():
        together = network(TOKENS)
        for row, tokens in enumerate(TOKENS):
            n = int((tokens >= 0).sum())
            alone = network(tokens[None, :n])[0]
            found = together[row, :n] if together.dim() == 3 else together[row]
            assert torch.allclose(found, alone, atol=1e-5)


def test_weights_follow_from_the_seed_alone(dataset):
    recipe = gpt2_recipe()
    first = language.build(recipe, dataset, 1, CPU).state_dict()
    torch.manual_seed(5)
    again, other = (language.build(recipe, dataset, seed, CPU).state_dict() for seed in (1, 2))

    assert equal(first, again)
    assert not equal(first, other)


def test_a_gpt2_has_the_size_of_its_recipe_and_the_tokens_of_its_data(dataset):
    network = language.build(gpt2_recipe(text={"layers": 3, "width": 24, "heads": 4}), dataset, 0, CPU).network

    assert (network.config.n_layer, network.config.n_embd, network.config.n_head, network.config.n_positions) == (3, 24, 4, LENGTH)
    assert network.config.vocab_size == len(language.tokenizer_of(gpt2_recipe(), dataset)) == 300


def test_a_texts_answer_does_not_depend_on_its_batch(dataset, labelled, gpt2, bert):
    for recipe, data in (
        (gpt2_recipe(), dataset), (gpt2_recipe(text={"task": "sequence-classification"}), labelled), (checkpoint_recipe(gpt2), dataset),
        (checkpoint_recipe(bert, task="sequence-classification"), labelled), (checkpoint_recipe(gpt2, {"rank": 2}), dataset),
    ):  # fmt: skip
        check_alone_as_in_a_batch(language.build(recipe, data, 0, CPU))


@pytest.mark.skipif(not STORIES.is_dir(), reason="MEMLEAK_TEST_DATA names no folder with models/stories260k")
def test_a_llamas_answer_does_not_depend_on_its_batch(dataset):
    check_alone_as_in_a_batch(language.build(checkpoint_recipe(STORIES), dataset, 0, CPU))


def test_the_loss_is_the_one_that_transformers_computes(dataset, gpt2):
    from memleak.training.language import of_tokens

    network = language.build(checkpoint_recipe(gpt2), dataset, 0, CPU).eval()
    tokens = TOKENS[:1]
    losses, _ = of_tokens(network(tokens), tokens)

    assert float(losses.detach()[0]) == pytest.approx(float(network.network(input_ids=tokens, labels=tokens).loss.detach()), rel=1e-6)


def test_the_state_holds_each_weight_once_and_is_read_back(dataset):
    one, other = (language.build(gpt2_recipe(), dataset, seed, CPU).eval() for seed in (0, 1))
    state = one.state_dict()
    n_weights = sum(weight.numel() for weight in one.parameters())

    assert sum(tensor.numel() for tensor in state.values()) == n_weights
    other.load_state_dict(state)
    assert torch.equal(one(TOKENS), other(TOKENS))


def test_the_state_of_another_model_is_refused(dataset):
    small, large = (language.build(gpt2_recipe(text={"layers": layers}), dataset, 0, CPU) for layers in (1, 2))

    with pytest.raises(RuntimeError, match="not the weights of this model of texts: 12 names differ"):
        large.load_state_dict(small.state_dict())


def test_nothing_is_dropped_unless_the_recipe_says_so(dataset, gpt2):
    for recipe in (gpt2_recipe(), checkpoint_recipe(gpt2)):
        network = language.build(recipe, dataset, 0, CPU)
        assert torch.equal(network.train()(TOKENS), network.eval()(TOKENS))


def test_what_is_dropped_of_a_text_does_not_depend_on_its_batch(dataset, gpt2):
    for recipe in (gpt2_recipe(dropout=0.3), checkpoint_recipe(gpt2, {"rank": 2}, dropout=0.3)):
        network = language.build(recipe, dataset, 0, CPU).train()
        set_rows(network, torch.tensor([1, 2, 3]))
        together = network(TOKENS)
        set_rows(network, torch.tensor([3]))
        assert torch.allclose(network(TOKENS[2:, :3])[0], together[2, :3], atol=1e-5)
        set_rows(network, torch.tensor([4]))
        assert not torch.allclose(network(TOKENS[2:, :3])[0], together[2, :3], atol=1e-3)


def test_dropout_where_there_is_none_to_set_is_refused(dataset, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)

    with pytest.raises(ModelError, match="dropout: LlamaForCausalLM has no layers of dropout"):
        language.build(checkpoint_recipe(tmp_path, dropout=0.1), dataset, 0, CPU)


def test_a_checkpoint_begins_with_its_own_weights_whatever_the_seed(dataset, gpt2):
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(gpt2).eval()
    for seed in (0, 1):
        ours = language.build(checkpoint_recipe(gpt2), dataset, seed, CPU).eval()
        assert torch.allclose(ours(TOKENS[:1]), theirs(TOKENS[:1]).logits, atol=1e-6)


def test_training_one_model_leaves_the_checkpoint_in_memory_as_it_is(dataset, gpt2):
    recipe = checkpoint_recipe(gpt2)
    before = language.build(recipe, dataset, 0, CPU)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    with torch.no_grad():
        for weight in before.parameters():
            weight.add_(1)

    assert equal(language.build(recipe, dataset, 0, CPU).state_dict(), kept)


def test_a_fresh_classifiers_head_is_drawn_from_the_seed_and_the_body_is_the_checkpoints(labelled, gpt2, bert):
    for folder, head in ((gpt2, "network.score.weight"), (bert, "network.classifier.weight")):
        recipe = checkpoint_recipe(folder, task="sequence-classification")
        first, again, other = (language.build(recipe, labelled, seed, CPU).state_dict() for seed in (1, 1, 2))
        assert first[head].shape[0] == 3
        assert equal(first, again)
        differing = {name for name in first if not torch.equal(first[name], other[name])}
        assert head in differing and differing <= {head, "network.bert.pooler.dense.weight"}


def test_a_classifier_of_as_many_labels_keeps_its_head_and_one_of_others_gets_a_fresh_one(labelled, tmp_path):
    three, two = tiny_bert_classifier(tmp_path / "three"), tiny_gpt2_classifier(tmp_path / "two")
    kept = [language.build(checkpoint_recipe(three, task="sequence-classification"), labelled, seed, CPU).state_dict() for seed in (1, 2)]
    fresh = [language.build(checkpoint_recipe(two, task="sequence-classification"), labelled, seed, CPU).state_dict() for seed in (1, 2)]

    assert equal(*kept)
    assert fresh[0]["network.score.weight"].shape == (3, 32)
    assert not torch.equal(fresh[0]["network.score.weight"], fresh[1]["network.score.weight"])


def test_more_tokens_than_a_checkpoint_reads_are_refused(dataset, gpt2):
    with pytest.raises(ModelError, match=rf"text.max_length: 100 tokens, and .* reads {CONTEXT}; set max_length to {CONTEXT} or less"):
        language.build(checkpoint_recipe(gpt2, text={"max_length": 100}), dataset, 0, CPU)


def test_a_recipe_may_name_its_tokenizer(dataset, tmp_path):
    tiny_tokenizer(vocabulary=280).backend_tokenizer.save(str(tmp_path / "mine.json"))
    tiny_tokenizer(vocabulary=270).save_pretrained(tmp_path / "folder")

    for name, size in (("mine.json", 280), ("folder", 270)):
        assert language.build(gpt2_recipe(text={"tokenizer": str(tmp_path / name)}), dataset, 0, CPU).network.config.vocab_size == size


def test_a_folder_without_a_tokenizer_is_refused(dataset, tmp_path):
    with pytest.raises(ModelError, match="no tokenizer that can be read"):
        language.tokenizer_of(gpt2_recipe(text={"tokenizer": str(tmp_path)}), dataset)


def test_a_changed_checkpoint_has_another_content_and_is_loaded_anew(dataset, tmp_path):
    recipe = checkpoint_recipe(tiny_gpt2(tmp_path, seed=0))
    before, content = language.build(recipe, dataset, 0, CPU).state_dict(), language.content_of(recipe)
    tiny_gpt2(tmp_path, seed=1)

    assert language.content_of(recipe) != content
    assert not equal(before, language.build(recipe, dataset, 0, CPU).state_dict())
    assert language.content_of(gpt2_recipe()) is None


def test_a_saved_model_is_a_checkpoint_of_transformers(dataset, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = language.build(gpt2_recipe(), dataset, 0, CPU)
    language.save(model, language.tokenizer_of(gpt2_recipe(), dataset), tmp_path / "deep" / "base")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "base")
    tokens = torch.tensor(tokenizer([dataset.inputs[0]])["input_ids"])[:, :LENGTH]

    assert tokens[0].tolist() == encoded_of(dataset, np.array([0]), gpt2_recipe()).ids.tolist()
    assert torch.allclose(theirs(tokens).logits, model(tokens), atol=1e-6)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["base"]


def test_a_network_is_built_for_what_the_data_are(dataset, digits, tiny):
    assert isinstance(models.build_for(dataset, gpt2_recipe(), 0, CPU), language.TextNetwork)
    expected = models.build(tiny, digits.shape, digits.n_classes, 0, CPU)
    assert equal(models.build_for(digits, tiny, 0, CPU).state_dict(), expected.state_dict())
