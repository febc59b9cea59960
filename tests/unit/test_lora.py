"""Low-rank additions: what trains of a network, M models as one, and what `peft` makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import tiny_bert_mlm, tiny_gpt2, tiny_tokenizer
from passages import checkpoint_recipe, passages
from trainings import CPU, equal

from memleak.models import ModelError, language, lora

LABELS = np.arange(60) % 3
TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [11, 12, 13, 14]])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return passages(tmp_path_factory.mktemp("texts"), labels=LABELS)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert_mlm(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def moved(recipe, dataset, seed: int) -> language.TextNetwork:
    """A network whose additions are no longer 0."""
    network = language.build(recipe, dataset, seed, CPU).eval()
    draw = torch.Generator().manual_seed(seed)
    network.load_state_dict({name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in network.state_dict().items()})
    return network


def test_a_network_begins_as_its_base(dataset, gpt2, llama):
    for folder in (gpt2, llama):
        plain, added = (language.build(checkpoint_recipe(folder, options), dataset, 0, CPU).eval() for options in (None, {"rank": 2}))
        assert torch.equal(plain(TOKENS), added(TOKENS))


def test_the_additions_alone_train(dataset, gpt2):
    """Two blocks of four layers, [in, out] = 32 x 96, 32 x 32, 32 x 128 and 128 x 32, each with rank * (in + out) weights."""
    network = language.build(checkpoint_recipe(gpt2, {"rank": 3}), dataset, 0, CPU)
    trained = [weight for weight in network.parameters() if weight.requires_grad]

    assert sum(weight.numel() for weight in trained) == 2 * 3 * (128 + 64 + 160 + 160)
    assert set(network.state_dict()) == {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert all(".down." in name or ".up." in name for name in network.state_dict())


def test_models_have_their_base_in_memory_once(dataset, gpt2):
    networks = [language.build(checkpoint_recipe(gpt2, {"rank": 2}), dataset, seed, CPU) for seed in (0, 1)]
    both = lora.stack(networks)
    places = [{weight.data_ptr() for weight in network.parameters() if not weight.requires_grad} for network in (*networks, both)]

    assert places[0] == places[1] == places[2]
    assert not equal(networks[0].state_dict(), networks[1].state_dict())


def test_several_models_as_one_say_what_each_says_alone(dataset, gpt2, llama, bert):
    for recipe in (
        checkpoint_recipe(gpt2, {"rank": 2}), checkpoint_recipe(llama, {"rank": 2}), checkpoint_recipe(bert, {"rank": 2}, "sequence-classification")
    ):  # fmt: skip
        networks = [moved(recipe, dataset, seed) for seed in (0, 1, 2)]
        together = lora.stack(networks)(torch.cat([TOKENS + model for model in range(3)]))
        for model, network in enumerate(networks):
            assert torch.allclose(together[3 * model : 3 * model + 3], network(TOKENS + model), atol=1e-5)


def test_peft_reads_what_is_exported_and_says_the_same(dataset, gpt2, llama, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import AutoModelForCausalLM

    for name, folder in (("gpt2", gpt2), ("llama", llama)):
        network = moved(checkpoint_recipe(folder, {"rank": 2, "alpha": 3.0}), dataset, 0)
        lora.export(network.network, str(folder), "causal-lm", tmp_path / name)
        base = AutoModelForCausalLM.from_pretrained(folder)
        before = base(TOKENS).logits.detach()
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / name).eval()
        assert torch.allclose(theirs(input_ids=TOKENS).logits, network(TOKENS), atol=1e-5)
        assert not torch.allclose(before, network(TOKENS), atol=1e-2)


def test_peft_reads_a_classifiers_fresh_layers_too(dataset, bert, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import AutoModelForSequenceClassification

    network = moved(checkpoint_recipe(bert, {"rank": 2}, "sequence-classification"), dataset, 0)
    lora.export(network.network, str(bert), "sequence-classification", tmp_path)
    theirs = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3), tmp_path).eval()

    assert {"network.classifier.weight", "network.bert.pooler.dense.bias"} <= set(network.state_dict())
    assert torch.allclose(theirs(input_ids=TOKENS).logits, network(TOKENS), atol=1e-5)


def test_layers_can_be_named(dataset, gpt2):
    recipe = checkpoint_recipe(gpt2, {"rank": 2, "targets": ("attn.c_attn", "lm_head")})
    names = {name.removesuffix(".down.weight") for name in language.build(recipe, dataset, 0, CPU).state_dict() if ".down." in name}

    assert names == {"network.transformer.h.0.attn.c_attn", "network.transformer.h.1.attn.c_attn", "network.lm_head"}


def test_a_name_that_no_layer_has_is_refused(dataset, gpt2):
    with pytest.raises(ModelError, match=r"lora\.targets: no linear layer's name ends in 'q_proj'; there are c_attn, c_fc, c_proj, lm_head"):
        language.build(checkpoint_recipe(gpt2, {"targets": ("q_proj",)}), dataset, 0, CPU)
