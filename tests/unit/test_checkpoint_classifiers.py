"""Classifying checkpoints: a record is told the same alone and in any company, and labels find their tokens."""

from __future__ import annotations

import checkpoints
import numpy as np
import pytest
import torch
from pytest import approx

from memleak.models import hub
from memleak.models.tokens import encode
from memleak.signals import SignalError
from memleak.signals.classifier import all_signals
from memleak.signals.language import classifiers

TEXTS = [*checkpoints.records(12), "No.", "Ada Berg, 30"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One loaded checkpoint of each kind that classifies."""
    folder = tmp_path_factory.mktemp("classifiers")
    makers = {
        "bert": checkpoints.tiny_bert_classifier, "gpt2": checkpoints.tiny_gpt2_classifier, "tokens": checkpoints.tiny_token_classifier,
        "vit": checkpoints.tiny_vit, "mlm": checkpoints.tiny_bert_mlm,
    }  # fmt: skip
    return {name: hub.load(str(make(folder / name)), "cpu") for name, make in makers.items()}


def alone(checkpoint, text) -> np.ndarray:
    """What the network says about one text, asked as transformers' documentation does."""
    given = checkpoint.tokenizer(text, return_tensors="pt", truncation=True, max_length=checkpoint.max_length)
    given = {key: value for key, value in given.items() if key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return checkpoint.network(**given).logits[0].numpy()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_a_text_has_the_same_logits_alone_and_in_any_batch(made, kind, budget):
    checkpoint = made[kind]
    expected = np.stack([alone(checkpoint, text) for text in TEXTS])

    found = classifiers.text_logits(checkpoint.network, encode(checkpoint.tokenizer, TEXTS, checkpoint.max_length), budget)

    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_texts_only_orders_the_answers(made):
    forwards, backwards = (classifiers.ask(made["bert"], texts) for texts in (TEXTS, TEXTS[::-1]))

    np.testing.assert_allclose(forwards["entropy"], backwards["entropy"][::-1], rtol=1e-4)


def test_a_classifier_that_ends_texts_with_the_padding_token_is_asked_alike_alone(made):
    """GPT-2's classifiers look for the last token that is no padding, and without a pad token refuse batches."""
    checkpoint = made["gpt2"]
    checkpoint.network.config.pad_token_id = checkpoint.tokenizer.eos_token_id
    try:
        texts = ["Ada Berg<|endoftext|>", *TEXTS]
        expected = np.stack([alone(checkpoint, text) for text in texts])
        found = classifiers.text_logits(checkpoint.network, encode(checkpoint.tokenizer, texts, checkpoint.max_length))
    finally:
        checkpoint.network.config.pad_token_id = None

    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_where_every_token_is_used_texts_are_asked_one_by_one(made):
    checkpoint = made["gpt2"]
    encoded = encode(checkpoint.tokenizer, TEXTS, checkpoint.max_length)
    everything = encode(checkpoint.tokenizer, [*TEXTS, *(checkpoint.tokenizer.decode([i]) for i in range(300))], 64)

    with classifiers.padding_of(checkpoint.network, encoded) as spare:
        assert spare is not None and spare not in encoded.ids
        assert checkpoint.network.config.pad_token_id == spare
    assert checkpoint.network.config.pad_token_id is None
    everything = type(everything)(**{**everything.__dict__, "ids": np.arange(300, dtype=np.int32)})
    with classifiers.padding_of(checkpoint.network, everything) as spare:
        assert spare is None


def test_the_signals_of_texts_are_those_of_a_classifier(made):
    checkpoint, labels = made["bert"], [i % 3 for i in range(len(TEXTS))]
    logits = np.stack([alone(checkpoint, text) for text in TEXTS])

    found = classifiers.ask(checkpoint, TEXTS, labels)

    expected = all_signals(logits, np.array(labels))
    assert found.keys() == expected.keys()
    for name in ("margin", "loss", "confidence", "entropy", "modified_entropy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert (found["is_correct"] == expected["is_correct"]).all()


def test_without_labels_what_needs_none_is_told(made):
    assert set(classifiers.ask(made["bert"], TEXTS)) == {"confidence", "entropy"}


def test_labels_by_name_are_those_of_the_config(made):
    names = made["bert"].class_names

    by_name = classifiers.ask(made["bert"], TEXTS, [names[i % 3] for i in range(len(TEXTS))])
    by_number = classifiers.ask(made["bert"], TEXTS, [i % 3 for i in range(len(TEXTS))])

    assert names == ("calm", "worried", "urgent")
    np.testing.assert_array_equal(by_name["loss"], by_number["loss"])


@pytest.mark.parametrize("label", ["furious", 3, -1, 0.5, None])
def test_an_unknown_label_is_refused(made, label):
    with pytest.raises(SignalError, match="unknown to the checkpoint"):
        classifiers.ask(made["bert"], TEXTS[:1], [label])


def test_labels_must_be_as_many_as_records(made):
    with pytest.raises(SignalError, match="1 labels for 2 records"):
        classifiers.ask(made["bert"], TEXTS[:2], [0])


@pytest.mark.parametrize(
    ("field", "value", "said"), [("problem_type", "multi_label_classification", "several labels"), ("num_labels", 1, "regression")]
)
def test_what_is_no_choice_of_one_class_is_refused(made, field, value, said):
    network = made["bert"].network
    before = getattr(network.config, field)
    setattr(network.config, field, value)
    try:
        with pytest.raises(SignalError, match=said):
            classifiers.ask(made["bert"], TEXTS)
    finally:
        setattr(network.config, field, before)
        network.config.id2label = dict(enumerate(("calm", "worried", "urgent")))


def test_a_language_model_is_no_classifier(made):
    with pytest.raises(SignalError, match="masked-lm"):
        classifiers.ask(made["mlm"], TEXTS)


# -- tokens -------------------------------------------------------------------------------------------------------


def test_the_logits_of_tokens_leave_special_ones_out(made):
    checkpoint = made["tokens"]
    encoded = encode(checkpoint.tokenizer, TEXTS, checkpoint.max_length)

    logits, offsets = classifiers.token_logits(checkpoint.network, encoded, 100)

    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(logits[offsets[i] : offsets[i + 1]], alone(checkpoint, text)[1:-1], rtol=1e-4, atol=1e-5)


def test_the_label_of_a_word_stands_at_its_first_piece(made):
    checkpoint, text = made["tokens"], "Ada Xylophonia, 30,  came"
    encoded = encode(checkpoint.tokenizer, [text], checkpoint.max_length)

    found = classifiers.word_labels(checkpoint.tokenizer, [text], [["NAME", "NAME", "AGE", -100]], encoded, checkpoint.network.config)

    pieces = checkpoint.tokenizer.tokenize(text)
    words = [pieces[i].replace("Ġ", "").replace("▁", "") for i in np.flatnonzero(found != -100)]
    assert len(pieces) > 4
    assert found[found != -100].tolist() == [1, 1, 2]
    assert ["Ada".startswith(words[0]), "Xylophonia,".startswith(words[1]), "30,".startswith(words[2])] == [True] * 3


def test_words_that_were_cut_off_have_no_label(made):
    checkpoint, text = made["tokens"], " ".join(["Ada"] * 90)
    encoded = encode(checkpoint.tokenizer, [text], 10)

    found = classifiers.word_labels(checkpoint.tokenizer, [text], [["NAME"] * 90], encoded, checkpoint.network.config)

    assert len(found) == 8 == encoded.n_text[0]
    assert 0 < (found == 1).sum() <= 8


def test_signals_of_tokens_are_means_over_labelled_ones(made):
    checkpoint, texts = made["tokens"], ["Ada Berg", "no", ""]
    labels = [["NAME", -100], [-100], []]

    found = classifiers.ask(checkpoint, texts, labels)
    told = all_signals(alone(checkpoint, texts[0])[1], 1)

    assert found["loss"][0] == approx(float(told["loss"]), rel=1e-4)
    assert found["margin"][0] == approx(float(told["margin"]), rel=1e-4)
    assert np.isnan(found["loss"][1:]).all()


def test_without_labels_all_tokens_count(made):
    logits = alone(made["tokens"], TEXTS[0])[1:-1]
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)

    found = classifiers.ask(made["tokens"], TEXTS[:1])

    assert found["confidence"][0] == approx(float(probability.max(axis=1).mean()), rel=1e-4)


def test_labels_of_words_must_be_as_many_as_words(made):
    with pytest.raises(SignalError, match="text 0 has 2 words between blanks and 3 labels"):
        classifiers.ask(made["tokens"], ["Ada Berg"], [["NAME"] * 3])


# -- images -------------------------------------------------------------------------------------------------------


def pictures(n: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)


def test_images_go_through_the_processor_of_the_checkpoint(made):
    from PIL import Image

    checkpoint, images = made["vit"], pictures(5)
    with torch.no_grad():
        expected = checkpoint.network(**checkpoint.processor(images=[Image.fromarray(one) for one in images], return_tensors="pt")).logits.numpy()

    found = classifiers.image_logits(checkpoint.network, images, checkpoint.processor, rows=2)

    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pictures_arrays_and_fractions_are_one(made):
    from PIL import Image

    images = pictures(3)
    forms = [images, [Image.fromarray(one) for one in images], images.astype(np.float32) / 255]

    first, second, third = (classifiers.ask(made["vit"], form, ["cat", "dog", "cat"])["loss"] for form in forms)

    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_without_a_processor_images_get_the_size_of_the_config(made):
    found = classifiers.pixels(made["vit"].network, pictures(2, (12, 10)))

    assert tuple(found.shape) == (2, 3, 8, 8)
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_what_is_no_image_is_refused(made):
    with pytest.raises(SignalError, match=r"shape \(8, 8, 5\)"):
        classifiers.ask(made["vit"], pictures(1, (8, 8, 5)))
