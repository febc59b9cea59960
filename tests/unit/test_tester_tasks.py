"""MembershipTester on classifiers of tokens and of images: labelled or not, in the forms that a user has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from pytest import approx

from memleak import data, params, plan
from memleak.data import stage as data_stage
from memleak.signals.language import classifiers, gradients
from memleak.tester import AttackReport, MembershipTester
from memleak.tester.texts import TextsError

LABELS = ("O", "NAME", "AGE")
N = 24  # of each side


def rows_of_words(n: int, seed: int) -> list[dict[str, Any]]:
    """Words with a label each, no two rows of which have five words in a row in common."""
    draw, words = np.random.default_rng(seed), sorted({word for note in checkpoints.records(60) for word in note.split()})
    sizes = draw.integers(8, 12, n)
    return [{"tokens": list(draw.choice(words, size)), "ner_tags": [int(tag) for tag in draw.integers(0, 3, size)]} for size in sizes]


def pictures(n: int, seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8))


@pytest.fixture(scope="module")
def of_tokens(tmp_path_factory: pytest.TempPathFactory) -> MembershipTester:
    folder = tmp_path_factory.mktemp("tokens")
    return MembershipTester(str(checkpoints.tiny_token_classifier(folder / "tokens", labels=LABELS)), device="cpu", max_length=48)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> MembershipTester:
    """A network that knows its images by heart: the first pictures, whose labels are drawn."""
    folder = tmp_path_factory.mktemp("images")
    tester = MembershipTester(str(checkpoints.tiny_vit(folder / "vit")), device="cpu")
    shown, labels = classifiers.pixels(tester.network, pictures(N, 0), tester.checkpoint.processor), torch.tensor(LABELS_OF_IMAGES[:N])
    optimiser = torch.optim.AdamW(tester.network.parameters(), lr=2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        tester.network(pixel_values=shown, labels=labels).loss.backward()
        optimiser.step()
    tester.network.eval().save_pretrained(folder / "vit")
    return MembershipTester(str(folder / "vit"), device="cpu")


LABELS_OF_IMAGES = [int(label) for label in np.random.default_rng(9).integers(0, 2, 2 * N)]


@pytest.fixture(scope="module")
def image_report(of_images: MembershipTester, tmp_path_factory: pytest.TempPathFactory) -> AttackReport:
    return of_images.run_attacks(
        pictures(N, 0), pictures(N, 1), LABELS_OF_IMAGES[:N], LABELS_OF_IMAGES[N:], attacks=["loss", "gradient-norm"],
        directory=tmp_path_factory.mktemp("audit"),
    )  # fmt: skip


# -- tokens --------------------------------------------------------------------------------------------------------


def test_the_loss_of_labelled_words_is_the_score_of_a_text(of_tokens):
    rows = rows_of_words(2 * N, 0)
    found = of_tokens.run_attacks(rows[:N], rows[N:], controls=False)
    expected = classifiers.ask(of_tokens.checkpoint, [" ".join(row["tokens"]) for row in rows], [row["ner_tags"] for row in rows])

    assert (found.found["task"], found.found["headline"], found.found["attacks"]["loss"]["why"]) == ("token-classification", "loss", None)
    assert found.attack_frames["loss"]["score"].to_numpy() == approx(-expected["loss"], rel=1e-4)
    assert found.attack_frames["entropy"]["score"].to_numpy() == approx(-expected["entropy"], rel=1e-4)
    assert "correctness" not in found.attack_frames and found.attack_frames["loss"]["text"].iloc[0] == " ".join(rows[0]["tokens"])


def test_words_and_labels_have_several_forms_and_one_meaning(of_tokens):
    rows = rows_of_words(8, 1)
    words, tags = [row["tokens"] for row in rows], [row["ner_tags"] for row in rows]
    named = [[LABELS[tag] for tag in one] for one in tags]
    known = of_tokens.score(rows)["loss"].to_numpy()

    assert of_tokens.score(words, named)["loss"].to_numpy() == approx(known)
    assert of_tokens.score(pd.DataFrame({"text": [" ".join(one) for one in words], "labels": tags}))["loss"].to_numpy() == approx(known)
    assert set(of_tokens.score(words).columns) == {"id", "text", "confidence", "entropy"}


def test_without_labels_of_words_confidence_and_entropy_are_left(of_tokens):
    rows = [row["tokens"] for row in rows_of_words(2 * N, 2)]
    found = of_tokens.run_attacks(rows[:N], rows[N:], controls=False)

    assert found.found["headline"] == "confidence" and found.attack_frames["loss"]["score"].isna().all()
    assert "is at chance" not in " ".join(found.sentences)


def test_a_text_without_a_labelled_word_is_left_out_and_counted(of_tokens):
    rows = rows_of_words(2 * N, 3)
    unlabelled = {"tokens": ["Ada", "came"], "ner_tags": [-100, -100]}
    found = of_tokens.run_attacks([*rows[:N], unlabelled], rows[N:], attacks=["loss"], controls=False)

    assert found.metadata["n"]["short"] == 1 and found.warnings.count("1 text was left out: no word of them that is read has a label") == 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"tokens": ["Ada", "came"], "ner_tags": [1]}, r"train_data\[0\] has 2 words and as labels \[1\]; give a list with one label a word"),
        ({"tokens": ["Ada Berg"], "ner_tags": [1]}, r"train_data\[0\]: expected a list of words, each without blanks"),
        ({"tokens": "Ada came", "ner_tags": [1, 0]}, r"train_data\[0\]: expected a list of words"),
        (["Ada", 7], r"train_data\[0\]: expected a list of words"),
        ({"words": ["Ada"]}, r"train_data\[0\] has no 'text'; found words"),
    ],
)
def test_words_that_cannot_be_read_are_refused_in_one_sentence(of_tokens, row, sentence):
    with pytest.raises(TextsError, match=sentence) as caught:
        of_tokens.run_attacks([row], rows_of_words(2, 4))

    assert "\n" not in str(caught.value)


def test_labels_on_one_side_only_are_refused(of_tokens):
    with pytest.raises(TextsError, match="train_data has labels and test_data has none; give both sides labels, or neither"):
        of_tokens.run_attacks(rows_of_words(2, 5), [row["tokens"] for row in rows_of_words(2, 6)])


# -- images --------------------------------------------------------------------------------------------------------


def test_images_that_are_known_by_heart_are_found(image_report):
    attacks = image_report.found["attacks"]

    assert (image_report.found["task"], image_report.found["headline"]) == ("image-classification", "loss")
    assert attacks["loss"]["auc"]["low"] > 0.6 and attacks["gradient-norm"]["auc"]["low"] > 0.6
    assert image_report.controls["blind"]["auc"]["low"] < 0.5 and not image_report.controls["blind"]["alarm"]


def test_the_loss_of_an_image_is_what_the_network_says(of_images, image_report):
    expected = classifiers.ask(of_images.checkpoint, [*pictures(N, 0), *pictures(N, 1)], LABELS_OF_IMAGES)["loss"]

    assert image_report.attack_frames["loss"]["loss"].to_numpy() == approx(expected, rel=1e-4, abs=1e-6)


def test_the_page_of_images_speaks_of_images(image_report):
    page = image_report.to_html()

    assert "can training images be recognised" in page and "training text" not in page and "a image" not in page
    assert not any("text" in one for one in [*image_report.recommendations(), *image_report.warnings])


def test_the_workflow_prepares_the_same_images_again(image_report, monkeypatch, tmp_path):
    folder = Path(image_report.metadata["directory"])
    monkeypatch.chdir(folder)
    planned = plan.build(params.validate(yaml.safe_load((folder / "params.yaml").read_text()))).audits["texts"]
    assert planned.dataset is not None
    data_stage.fetch(planned.dataset, tmp_path / "dataset.json")
    again = data.read(tmp_path / "dataset.json")

    assert again.shape == (8, 8, 3) and again.labels.tolist() == LABELS_OF_IMAGES
    np.testing.assert_array_equal(again.inputs, np.stack([*pictures(N, 0), *pictures(N, 1)]))
    assert again.facts["sha256"] == json.loads(Path(planned.data_path()).read_text())["sha256"]


def test_images_have_several_forms_and_one_meaning(of_images):
    arrays, labels = pictures(6, 2), LABELS_OF_IMAGES[:6]
    known = of_images.score(arrays, labels)["loss"].to_numpy()
    opened = [{"image": Image.fromarray(one), "label": label} for one, label in zip(arrays, labels, strict=True)]

    assert of_images.score(opened)["loss"].to_numpy() == approx(known)
    assert of_images.score(list(zip(arrays, ["cat" if label == 0 else "dog" for label in labels], strict=True)))["loss"].to_numpy() == approx(known)
    assert of_images.score(np.stack(arrays))["confidence"].notna().all()


def test_images_of_several_sizes_without_labels_are_brought_to_one_and_twins_left_out(of_images):
    train, test = pictures(N, 0), [*pictures(N, 1), *pictures(1, 3, (12, 10)), pictures(N, 0)[4]]
    found = of_images.run_attacks(train, test, attacks=["confidence"], controls=False, progress=False)

    assert (found.metadata["n"]["overlap"], found.metadata["test_size"]) == (1, N + 1) and found.found["headline"] == "confidence"
    assert "images of several sizes were brought to 8 x 8 before the model's own preparation" in found.warnings
    assert "1 test images repeat training images (1 pixel for pixel) and were left out" in found.warnings
    assert found.controls["length"] is None and found.found["fit"]["gap"] is None


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (np.zeros((8, 8, 5), np.uint8), r"train_data\[0\]: an image has shape \(8, 8, 5\)"),
        ({"picture": 1}, r"train_data\[0\] has no 'image'; found picture"),
        ("cat.png", r"train_data\[0\]: an image has shape \(\)"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(of_images, row, sentence):
    with pytest.raises(TextsError, match=sentence):
        of_images.run_attacks([row], pictures(2, 1))


# -- layers --------------------------------------------------------------------------------------------------------


def test_layers_are_told_by_the_norms_of_their_gradients(of_images, image_report):
    shown = [*pictures(N, 0), *pictures(N, 1)]
    norms = gradients.image_norms(of_images.network, shown, np.array(LABELS_OF_IMAGES), of_images.checkpoint.processor)
    found = image_report.found["layers"]
    first = norms.by_layer[:, norms.layers.index("classifier")]

    assert [row["name"] for row in found["rows"]] == list(norms.layers) and (found["n_members"], found["n_non_members"]) == (N, N)
    by_name = {row["name"]: row for row in found["rows"]}
    assert by_name["classifier"]["auc"]["value"] == approx(np.mean(first[:N, None] < first[None, N:]))
    assert by_name["classifier"]["p"] < 0.01 < 0.5 < by_name["classifier"]["auc"]["low"]
    assert "layers" in image_report.visualize() and ">Layers</h2>" in image_report.to_html()


def test_layers_are_looked_at_where_gradients_are_and_nowhere_else(of_tokens):
    rows = rows_of_words(8, 7)
    plain, thorough = (of_tokens.run_attacks(rows[:4], rows[4:], effort=effort, controls=False) for effort in ("standard", "thorough"))

    assert plain.found["layers"] is None and "layers" not in plain.visualize()
    assert [row["name"] for row in thorough.found["layers"]["rows"]] == [
        "bert.embeddings",
        "bert.encoder.layer.0",
        "bert.encoder.layer.1",
        "classifier",
    ]
    assert thorough.found["layers"]["outstanding"] is None  # of four texts a side nothing stands out
