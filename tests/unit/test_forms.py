"""What a data set's function may return: every usual form gives the same records; what is none is named in a sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from memleak import data, params
from memleak.data import DataError, Samples, forms

N = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 9, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


class Pairs:
    """A data set as torch has them."""

    def __init__(self, xs, ys=LABELS):
        self.xs, self.ys = xs, ys

    def __len__(self):
        return len(self.xs)

    def __getitem__(self, i):
        return self.xs[i], self.ys[i]


class Columns:
    """A data set as Hugging Face has them, as far as it is looked at."""

    def __init__(self, **columns):
        self.columns = columns
        self.column_names = list(columns)
        self.features = {"label": type("ClassLabel", (), {"names": ["cat", "dog", "owl"]})()}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.columns.items()}

    def to_pandas(self):
        return pd.DataFrame(self.columns)


FIRST = torch.from_numpy(np.moveaxis(IMAGES, -1, 1).copy())  # channels first, as torch has images
SAME = {
    "samples": Samples(IMAGES, LABELS),
    "arrays": (IMAGES, LABELS),
    "lists of numbers as labels": (IMAGES, LABELS.tolist()),
    "whole numbers that are not uint8": (IMAGES.astype(np.int64), LABELS),
    "labels of one column": (IMAGES, LABELS[:, None]),
    "tensors": (FIRST, torch.from_numpy(LABELS)),
    "an array with channels first": (FIRST.numpy(), LABELS),
    "pairs of PIL images": Pairs([Image.fromarray(image) for image in IMAGES]),
    "pairs of arrays": Pairs(list(IMAGES)),
    "pairs of tensors": Pairs(list(FIRST), torch.from_numpy(LABELS)),
    "a TensorDataset": torch.utils.data.TensorDataset(FIRST, torch.from_numpy(LABELS)),
    "a list of pairs": [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)],
    "columns": Columns(image=[Image.fromarray(image) for image in IMAGES], label=LABELS),
    "columns of another name": Columns(img=list(IMAGES), fine_label=LABELS),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_gives_the_same_records(form):
    samples = data.check(forms.samples_of(SAME[form], "mine"), "mine")

    assert samples.inputs.dtype == np.uint8
    assert np.array_equal(samples.inputs, IMAGES)
    assert samples.labels.tolist() == LABELS.tolist()


def test_fractions_stay_what_the_users_transforms_made_of_them():
    normalised = (FIRST.double() / 255 - 0.5) / 0.25

    for found in (Pairs(list(normalised)), (normalised, LABELS), (np.moveaxis(normalised.numpy(), 1, -1), LABELS)):
        samples = data.check(forms.samples_of(found, "mine"), "mine")

        assert samples.inputs.dtype == np.float32 and samples.inputs.shape == (N, 8, 9, 3)
        assert samples.inputs == pytest.approx((IMAGES / 255 - 0.5) / 0.25, abs=1e-6)


def test_grey_images_get_a_channel():
    grey = IMAGES[..., 0]

    for found in ((grey, LABELS), Pairs(list(grey)), Pairs([Image.fromarray(image) for image in grey])):
        assert np.array_equal(forms.samples_of(found, "mine").inputs, grey[..., None])


def test_a_table_has_a_feature_for_each_column_but_the_label():
    table = pd.DataFrame({"age": [1, 2, 3], "label": [0, 1, 0], "is_new": [True, False, True], "weight": [0.5, 1.5, 2.5]})

    samples = data.check(forms.samples_of(table, "mine"), "mine")

    assert samples.inputs.tolist() == [[1, 1, 0.5], [2, 0, 1.5], [3, 1, 2.5]] and samples.inputs.dtype == np.float32
    assert samples.labels.tolist() == [0, 1, 0]
    assert forms.samples_of(Columns(age=[1, 2], label=[0, 1]), "mine").inputs.tolist() == [[1], [2]]


TEXTS, WORDS = ["one", "two", "three", "four"], ["no", "yes", "no", "yes"]
SAME_TEXTS = {
    "a list and words": (TEXTS, WORDS),
    "an array and numbers": (np.array(TEXTS), np.array([0, 1, 0, 1])),
    "a series": (pd.Series(TEXTS), pd.Series(WORDS)),
    "samples": Samples(np.array(TEXTS), np.array([0, 1, 0, 1])),
    "a table": pd.DataFrame({"label": WORDS, "text": TEXTS, "x": [1, 2, 3, 4]}),
    "columns": Columns(text=TEXTS, label=[0, 1, 0, 1]),
    "a list alone": TEXTS,
    "a pair without labels": (TEXTS, None),
    "a table without labels": pd.DataFrame({"text": TEXTS}),
    "columns without labels": Columns(text=TEXTS),
}


@pytest.mark.parametrize("form", SAME_TEXTS)
def test_every_form_of_texts_gives_the_same(form):
    samples = data.check(forms.samples_of(SAME_TEXTS[form], "mine"), "mine")

    assert samples.inputs.tolist() == TEXTS and samples.inputs.dtype == object and all(type(text) is str for text in samples.inputs)
    assert samples.labels.tolist() == ([0] * 4 if "alone" in form or "without" in form else [0, 1, 0, 1])
    if form in ("a list and words", "a table"):
        assert samples.class_names == ("no", "yes")


def test_what_is_no_text_among_texts_is_named():
    for wrong, said in ((["one", 2], "record 1 is 2, int"), (["one", None], "record 1 is missing"), (["one", float("nan")], "record 1 is missing")):
        for found in (wrong, (wrong, [0, 1]), pd.DataFrame({"text": wrong})):
            with pytest.raises(DataError, match=f"^mine: {said}; expected a text"):
                data.check(forms.samples_of(found, "mine"), "mine")
    with pytest.raises(DataError, match="4 texts and 2 labels"):
        forms.samples_of((TEXTS, [0, 1]), "mine")


def test_names_of_classes_are_kept_where_a_data_set_has_them():
    pairs = Pairs(list(IMAGES))
    pairs.classes = ["cat", "dog", "owl"]

    assert forms.samples_of(pairs, "mine").class_names == ("cat", "dog", "owl")
    assert forms.samples_of(torch.utils.data.Subset(pairs, [0, 1, 4]), "mine").class_names == ("cat", "dog", "owl")
    assert forms.samples_of(SAME["columns"], "mine").class_names == ("cat", "dog", "owl")


def _broken(i):
    raise OSError("the disk is gone")


class Unreadable(Pairs):
    def __getitem__(self, i):
        return super().__getitem__(i) if i < 2 else _broken(i)


WRONG = {
    "nothing": (None, "returned None; is `return` missing.*get_dataset must return"),
    "a number": (3, "it returned an int; get_dataset must return"),
    "an array alone": (IMAGES, r"one ndarray of shape \(6, 8, 9, 3\) without labels; get_dataset must return"),
    "a mapping": ({"x": IMAGES, "y": LABELS}, "a dict with the keys x, y; get_dataset"),
    "three things": ((IMAGES, LABELS, LABELS), "a tuple of 3; get_dataset"),
    "two data sets": ((Pairs(IMAGES), Pairs(IMAGES)), "a pair with a Pairs in it.*others are parts of their own"),
    "a loader": (torch.utils.data.DataLoader(Pairs(list(FIRST))), "a DataLoader, which gives batches; return its `dataset`"),
    "no labels": ((IMAGES, None), "pair with a NoneType in it"),
    "labels in rows of ones": ((IMAGES, np.eye(3)[LABELS]), r"labels have shape \(6, 3\).*argmax"),
    "images of several sizes": (
        [(IMAGES[0], 0), (IMAGES[1, :4], 1)],
        r"record 1 is uint8 of shape \(4, 9, 3\), the first uint8 of shape \(8, 9, 3\)",
    ),
    "images of several types": ([(IMAGES[0], 0), (IMAGES[1] / 255, 1)], "record 1 is float32 .*, the first uint8"),
    "inputs of several lengths": (([[1, 2], [3]], [0, 1]), "inputs have different shapes"),
    "inputs of words": ((np.array([["a"], ["b"]]), [0, 1]), "inputs hold <U1, expected numbers"),
    "numbers beyond a byte": ((IMAGES.astype(int) * 2, LABELS), "images are int64 from .*, expected 0 to 255"),
    "no records": (Pairs([]), "a data set without records"),
    "records without labels": ([IMAGES[0], IMAGES[1]], "record 0 is one ndarray .* without labels, expected a pair"),
    "a record without a label": (Pairs(list(IMAGES), [0, None, 1, 1, 1, 1]), "the label of record 1 is None"),
    "a record with several labels": (Pairs(list(IMAGES), np.eye(6)), r"the label of record 0 is of shape \(6,\)"),
    "a record that cannot be read": (Unreadable(list(IMAGES)), "record 2 cannot be read: OSError: the disk is gone"),
    "a table without labels": (pd.DataFrame({"x": [1], "class": [0]}), "the table has the columns x, class; rename"),
    "a table of words": (pd.DataFrame({"x": ["a"], "label": [0]}), "the columns x are not numbers; encode them"),
    "a table of labels": (pd.DataFrame({"label": [0]}), "no column but label"),
    "a table that lacks labels": (pd.DataFrame({"x": [1, 2], "label": [0, None]}), "column label has 1 missing values"),
    "columns without labels": (Columns(image=list(IMAGES)), "the data set has the columns image; expected image and label"),
    "several splits": (
        type("Splits", (dict,), {"column_names": {}})(train=1, test=2),
        r"several splits \(train, test\); return one, such as .*train",
    ),
}


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_what_is_no_data_set_is_named(fault):
    found, expected = WRONG[fault]

    with pytest.raises(DataError, match="(?s)^mine: .*" + expected):
        forms.samples_of(found, "mine")


@pytest.mark.parametrize(
    ("function", "source", "expected"),
    [
        (lambda: "nothing", None, "nothing"),
        (lambda source: f"from {source}", None, "from None"),
        (lambda source: f"from {source}", "here", "from here"),
        (lambda source="its own": f"from {source}", None, "from its own"),
        (lambda train=True: f"train {train}", None, "train True"),
    ],
)
def test_a_function_is_called_as_it_wants_to_be(function, source, expected, monkeypatch):
    monkeypatch.setattr(forms, "samples_of", lambda found, name: found)

    assert forms.load(function, source, "my_data.py:get_dataset") == expected


@pytest.mark.parametrize(
    ("function", "source", "expected"),
    [
        (lambda: 1, "here", r"source 'here' is given, but get_dataset\(\) does not take it; leave source out"),
        (lambda root, train: 1, None, r"get_dataset\(root, train\) takes more than one argument"),
    ],
)
def test_a_function_that_cannot_be_called_so_is_named(function, source, expected):
    with pytest.raises(DataError, match=expected):
        forms.load(function, source, "my_data.py:get_dataset")


def test_images_that_transforms_made_are_prepared_and_described(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\ndef get_dataset():\n    images = torch.arange(4 * 3 * 5 * 5).reshape(4, 3, 5, 5) / 100 - 1\n"
        "    return torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 0, 1]))\n"
    )

    facts = data.prepare(params.Dataset(name=f"{tmp_path / 'mine.py'}:get_dataset"), tmp_path / "dataset.json")
    dataset = data.read(tmp_path / "dataset.json")

    assert (facts["n"], facts["shape"], facts["n_groups"]) == (4, [5, 5, 3], 4)
    assert dataset.inputs.dtype == np.float32
    assert dataset.inputs[0, 0, :2, :].tolist() == pytest.approx(np.array([[-1, -0.75, -0.5], [-0.99, -0.74, -0.49]]))
    assert facts["mean"] == pytest.approx(dataset.inputs.mean(axis=(0, 1, 2)), abs=1e-5)


def test_images_that_are_not_finite_are_counted():
    images = np.zeros((4, 8, 8, 3), np.float32)
    images[2, 0, 0, 0] = images[3, 1, 1, 1] = np.nan

    with pytest.raises(DataError, match="2 images have NaN or infinite values"):
        data.check(Samples(images, np.array([0, 1, 0, 1])), "mine")
