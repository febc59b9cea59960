"""Norms of gradients of checkpoints: what a backward pass about one record alone gives, in any company."""

from __future__ import annotations

import checkpoints
import numpy as np
import pytest
import torch
from pytest import approx

from memleak.models import hub
from memleak.models.tokens import encode
from memleak.signals import SignalError
from memleak.signals.language import classifiers, gradients

TEXTS = [*checkpoints.records(6), "No.", "Ada Berg, 30"]
CLASSES = np.arange(len(TEXTS)) % 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    makers = {
        "gpt2": checkpoints.tiny_gpt2, "mlm": checkpoints.tiny_bert_mlm, "bert": checkpoints.tiny_bert_classifier,
        "gpt2-classifier": checkpoints.tiny_gpt2_classifier, "tokens": checkpoints.tiny_token_classifier, "vit": checkpoints.tiny_vit,
    }  # fmt: skip
    found = {name: hub.load(str(make(folder / name)), "cpu") for name, make in makers.items()}
    checkpoints.tiny_adapter(folder / "adapter", folder / "gpt2")
    return found | {"adapter": hub.load(str(folder / "adapter"), "cpu")}


def encoded_of(checkpoint, texts=TEXTS):
    return encode(checkpoint.tokenizer, texts, checkpoint.max_length)


def backward(network, loss: torch.Tensor) -> tuple[float, dict[str, float]]:
    """The norm over all weights, and that of each weight, after an ordinary backward pass."""
    network.zero_grad()
    loss.backward()
    each = {name: float(value.grad.double().norm()) for name, value in network.named_parameters()}
    network.zero_grad()
    return float(np.sqrt(sum(norm**2 for norm in each.values()))), each


def given(checkpoint, text: str) -> dict[str, torch.Tensor]:
    found = checkpoint.tokenizer(text, return_tensors="pt", truncation=True, max_length=checkpoint.max_length)
    return {key: value for key, value in found.items() if key in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("kind", ["gpt2", "adapter"])
@pytest.mark.parametrize("budget", [1, 120, 10_000])
def test_a_causal_model_gives_the_norm_of_an_ordinary_backward_pass(made, kind, budget):
    checkpoint = made[kind]
    asked = [given(checkpoint, text) for text in TEXTS]
    expected = [backward(checkpoint.network, checkpoint.network(**one, labels=one["input_ids"]).loss)[0] for one in asked]

    found = gradients.norms(checkpoint.network, "causal-lm", encoded_of(checkpoint), token_budget=budget)

    np.testing.assert_allclose(found.whole, expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "gpt2-classifier"])
def test_a_classifier_gives_the_norm_of_an_ordinary_backward_pass(made, kind):
    checkpoint = made[kind]
    asked = [checkpoint.network(**given(checkpoint, text)).logits for text in TEXTS]
    expected = [
        backward(checkpoint.network, torch.nn.functional.cross_entropy(logits, torch.tensor([label])))[0]
        for logits, label in zip(asked, CLASSES, strict=True)
    ]

    found = gradients.norms(checkpoint.network, checkpoint.task, encoded_of(checkpoint), labels=CLASSES)

    np.testing.assert_allclose(found.whole, expected, rtol=1e-3)


def test_a_classifier_of_tokens_gives_the_norm_of_its_labelled_ones(made):
    checkpoint, texts = made["tokens"], ["Ada Berg, 30", "nothing", "Bo Chen came"]
    encoded = encoded_of(checkpoint, texts)
    labels = classifiers.word_labels(checkpoint.tokenizer, texts, [[1, 1, 2], [-100], [1, -100, 0]], encoded, checkpoint.network.config)
    logits = checkpoint.network(**given(checkpoint, texts[2])).logits[0, 1:-1]
    target = torch.from_numpy(labels[-int(encoded.n_text[2]) :])
    expected, _ = backward(checkpoint.network, torch.nn.functional.cross_entropy(logits, target))

    found = gradients.gradient_norm(checkpoint.network, checkpoint.task, encoded, labels=labels)

    assert found[2] == approx(expected, rel=1e-3)
    assert np.isnan(found[1]) and np.isfinite(found[0])


@pytest.mark.parametrize("stride", [None, 1, 3])
@pytest.mark.parametrize("budget", [20, 10_000])
def test_a_masked_model_gives_the_norm_of_its_pseudo_log_likelihood(made, stride, budget):
    checkpoint, text = made["mlm"], TEXTS[-1]
    ids = given(checkpoint, text)["input_ids"][0]
    places = range(1, len(ids) - 1)
    groups = [[place] for place in places] if stride is None else [[p for p in places if (p - 1) % stride == first] for first in range(stride)]
    loss = torch.zeros(())
    for group in groups:
        shown = ids.clone()
        shown[group] = checkpoint.tokenizer.mask_token_id
        loss = loss - checkpoint.network(shown[None]).logits[0].log_softmax(-1)[group, ids[group]].sum() / len(places)
    expected, _ = backward(checkpoint.network, loss)

    how = {"mask_id": checkpoint.tokenizer.mask_token_id, "stride": stride, "token_budget": budget}
    found = gradients.gradient_norm(checkpoint.network, "masked-lm", encoded_of(checkpoint, TEXTS[-2:]), **how)

    assert found[1] == approx(expected, rel=1e-3)


def test_images_have_norms_too(made):
    checkpoint, images = made["vit"], np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    labels = np.array([0, 1, 0, 1, 0])
    logits = checkpoint.network(classifiers.pixels(checkpoint.network, images[3:4], checkpoint.processor)).logits
    expected, _ = backward(checkpoint.network, torch.nn.functional.cross_entropy(logits, torch.tensor([1])))

    found = gradients.image_norms(checkpoint.network, images, labels, checkpoint.processor)

    assert found.whole[3] == approx(expected, rel=1e-3)


def test_layers_have_their_names_and_make_up_the_whole(made):
    checkpoint = made["gpt2"]
    one = given(checkpoint, TEXTS[0])
    _, each = backward(checkpoint.network, checkpoint.network(**one, labels=one["input_ids"]).loss)
    of_block = np.sqrt(sum(norm**2 for name, norm in each.items() if name.startswith("transformer.h.1.")))

    found = gradients.norms(checkpoint.network, "causal-lm", encoded_of(checkpoint))

    assert found.layers == ("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1", "transformer.ln_f")
    assert found.by_layer[0, 3] == approx(of_block, rel=1e-3)
    np.testing.assert_allclose(np.sqrt((found.by_layer.astype(float) ** 2).sum(axis=1)), found.whole, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.10.self_attn.q_proj.weight", "model.layers.10"), ("bert.embeddings.word_embeddings.weight", "bert.embeddings"),
        ("cls.predictions.bias", "cls.predictions"), ("classifier.weight", "classifier"), ("lm_head.weight", "lm_head"),
    ],
)  # fmt: skip
def test_a_weight_belongs_to_its_block(name, layer):
    assert gradients.layer_of(name) == layer


def test_side_by_side_equals_one_by_one(made, monkeypatch):
    checkpoint = made["gpt2"]
    used = []
    together = gradients._Network.side_by_side
    monkeypatch.setattr(gradients._Network, "side_by_side", lambda self, *rows: (together(self, *rows), used.append(self._is_vmapped))[0])
    fast = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded_of(checkpoint))
    monkeypatch.setattr(gradients._Network, "side_by_side", gradients._Network.one_by_one)

    slow = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded_of(checkpoint))

    assert True in used
    np.testing.assert_allclose(fast, slow, rtol=1e-4)


def test_what_cannot_be_vectorised_is_asked_one_by_one(made, monkeypatch):
    checkpoint = made["gpt2"]
    expected = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded_of(checkpoint))

    def fails(function):
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(gradients, "vmap", fails)
    found = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded_of(checkpoint))

    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_chunks_hold_every_row_once_and_keep_to_their_bounds():
    lengths = np.array([5, 9, 5, 2, 9, 5, 5, 30])

    padded = list(gradients._chunks(lengths, 20, 3, True))
    equal = list(gradients._chunks(lengths, 20, 2, False))

    for chunks, n_at_once in ((padded, 3), (equal, 2)):
        assert sorted(np.concatenate(chunks).tolist()) == list(range(8))
        assert max(map(len, chunks)) <= n_at_once
        assert all(len(chunk) == 1 or len(chunk) * lengths[chunk].max() <= 20 for chunk in chunks)
    assert all(len(set(lengths[chunk])) == 1 for chunk in equal)


def test_a_network_is_left_as_it_was(made):
    network = made["gpt2"].network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attention = network.config._attn_implementation

    gradients.gradient_norm(network, "causal-lm", encoded_of(made["gpt2"]))

    assert network.config._attn_implementation == attention != "eager"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())


def test_frozen_weights_count(made):
    """Of a LoRA checkpoint the base is frozen; its gradient tells as much."""
    network = made["gpt2"].network
    expected = gradients.gradient_norm(network, "causal-lm", encoded_of(made["gpt2"]))
    network.requires_grad_(False)
    try:
        found = gradients.gradient_norm(network, "causal-lm", encoded_of(made["gpt2"]))
    finally:
        network.requires_grad_(True)

    np.testing.assert_array_equal(found, expected)


def test_a_text_without_a_scored_token_has_no_norm(made):
    found = gradients.norms(made["gpt2"].network, "causal-lm", encoded_of(made["gpt2"], ["", "A", "Ada Berg"]))

    assert np.isnan(found.whole[:2]).all() and np.isnan(found.by_layer[:2]).all()
    assert found.whole[2] > 0


def test_a_classifier_without_labels_has_no_loss(made):
    with pytest.raises(SignalError, match="takes labels"):
        gradients.norms(made["bert"].network, "sequence-classification", encoded_of(made["bert"]))


def test_a_learnt_text_has_a_smaller_gradient(made, tmp_path):
    """A gradient step on one text makes its own norm smaller, not that of an unlike one."""
    checkpoint = hub.load(str(checkpoints.tiny_gpt2(tmp_path / "learner")), "cpu")
    encoded = encoded_of(checkpoint, [TEXTS[0], "Zq xw, 77 %%"])
    before = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded)
    one = given(checkpoint, TEXTS[0])
    optimiser = torch.optim.Adam(checkpoint.network.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        checkpoint.network(**one, labels=one["input_ids"]).loss.backward()
        optimiser.step()

    after = gradients.gradient_norm(checkpoint.network, "causal-lm", encoded)

    assert after[0] < 0.1 * before[0]
    assert after[1] > after[0] * 5
