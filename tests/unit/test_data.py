"""Data sets: what cannot be audited is refused, twins are found, a changed array is noticed."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from memleak import data, params
from memleak.artefacts import ArtefactError
from memleak.data import DataError, Samples, images
from memleak.data.neighbours import atypicality_rank, content_groups


def test_digits_are_the_declared_ones(digits):
    assert digits.inputs.shape == (1797, 8, 8, 1)
    assert digits.inputs.dtype == np.uint8
    assert digits.facts["n"] == params.DECLARED_SIZES["digits"]
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_records_of_equal_content_share_a_group():
    rows = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4]], dtype=np.uint8)

    assert content_groups(rows).tolist() == [0, 1, 0, 2, 1]


def test_a_record_among_strangers_is_the_least_typical(rng):
    points = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(9, 1, (60, 2))])
    labels = np.repeat([0, 1], 60)
    labels[7] = 1  # amid the zeros

    assert atypicality_rank(points, labels).tolist().index(0) == 7


def test_the_order_of_typicality_is_the_same_every_time(digits):
    flat = np.asarray(digits.inputs).reshape(1797, -1)

    assert np.array_equal(atypicality_rank(flat, digits.labels), digits.atypicality_rank)
    assert sorted(digits.atypicality_rank) == list(range(1797))


GOOD = {"inputs": np.zeros((4, 3), np.float32), "labels": np.array([0, 1, 0, 1])}
BAD = {
    "labels that are words": ({"labels": np.array(["a", "b", "a", "b"])}, "labels are .*, expected integers 0 to C-1"),
    "labels that are fractions": ({"labels": np.array([0.5, 1, 0, 1])}, "labels are float64"),
    "negative labels": ({"labels": np.array([-1, 1, 0, 1])}, "labels go from -1 to 1"),
    "one class": ({"labels": np.zeros(4, int)}, "at least two classes"),
    "fewer labels than inputs": ({"labels": np.array([0, 1])}, "4 inputs and 2 labels"),
    "missing features": ({"inputs": np.full((4, 3), np.nan)}, "4 records have missing or infinite features"),
    "images of fractions": ({"inputs": np.zeros((4, 8, 8, 1))}, "images are float64, expected uint8"),
    "images of four channels": ({"inputs": np.zeros((4, 8, 8, 4), np.uint8)}, r"expected \(H, W, C\) with C = 1 or 3"),
    "a flat list": ({"inputs": np.zeros(4)}, "inputs have shape"),
}


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.replace(" ", "-"))
def test_data_that_cannot_be_audited_is_refused(fault):
    wrong, expected = BAD[fault]

    with pytest.raises(DataError, match=expected):
        data.check(Samples(**(GOOD | wrong)), "mine")


def test_a_loader_that_returns_something_else_is_refused():
    with pytest.raises(DataError, match=r"expected memleak\.data\.Samples, found tuple"):
        data.check((np.zeros(3), np.zeros(3)), "mine")  # type: ignore[arg-type]


def _parquet(folder, rows, name="train.parquet"):
    pd.DataFrame(rows).to_parquet(folder / name)
    return folder


def _image(size=(32, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "x.png"}


def test_images_come_from_parquet(tmp_path):
    _parquet(tmp_path, {"image": [_image()] * 3, "label": [0, 1, 2]})
    _parquet(tmp_path, {"image": [_image()], "label": [9]}, "test.parquet")  # not training data

    samples = images.load_cifar10(str(tmp_path))

    assert samples.inputs.shape == (3, 32, 32, 3)
    assert samples.inputs[0, 0, 0].tolist() == [10, 20, 30]
    assert samples.labels.tolist() == [0, 1, 2]


IMAGES = {
    "no files": (None, "no Parquet file is there"),
    "wrong shape": ({"image": [_image((28, 28))], "label": [0]}, r"row 0: the image has shape \(28, 28, 3\), expected \(32, 32, 3\)"),
    "no label column": ({"image": [_image()], "class": [0]}, "has the columns image, class; expected image and label"),
    "labels that are words": ({"image": [_image()], "label": ["cat"]}, "column label holds .*string, expected integers"),
    "a missing label": ({"image": [_image()] * 2, "label": pd.array([1, None], dtype="Int64")}, "column label has 1 missing values"),
    "not an image": ({"image": [{"bytes": b"no", "path": "x"}], "label": [0]}, "row 0: not an image"),
    "bytes without a struct": ({"image": [b"no"], "label": [0]}, "image is not a struct"),
    "labels beyond the classes": ({"image": [_image()], "label": [10]}, r"labels go up to 10, 10 classes are expected"),
}


@pytest.mark.parametrize("fault", IMAGES, ids=lambda fault: fault.replace(" ", "-"))
def test_images_that_cannot_be_read_are_named(tmp_path, fault):
    rows, expected = IMAGES[fault]
    if rows is not None:
        _parquet(tmp_path, rows)

    with pytest.raises(DataError, match=expected):
        images.load_cifar10(str(tmp_path))


def test_a_truncated_source_is_named(tmp_path):
    path = _parquet(tmp_path, {"image": [_image()], "label": [0]}) / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match=r"train\.parquet: truncated or not Parquet"):
        images.load_cifar10(str(tmp_path))


def test_a_changed_array_is_not_used(tmp_path):
    path = tmp_path / "dataset.json"
    data.prepare(params.Dataset(name="digits"), path)
    labels = np.load(tmp_path / "labels.npy")
    labels[0] += 1
    np.save(tmp_path / "labels.npy", labels)

    with pytest.raises(ArtefactError, match=r"labels\.npy: not the content that dataset\.json describes"):
        data.read(path)


def test_digits_take_no_source():
    with pytest.raises(DataError, match="leave source out"):
        from memleak.data import digits

        digits.load("somewhere")


def test_a_data_set_of_the_users_is_a_function_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom memleak.data import Samples\n"
        "def load(source):\n    return Samples(np.arange(40.).reshape(20, 2), np.arange(20) % 2)\n"
    )

    facts = data.prepare(params.Dataset(name=f"{tmp_path / 'mine.py'}:load"), tmp_path / "dataset.json")

    assert (facts["n"], facts["n_classes"], facts["shape"]) == (20, 2, [2])


def test_cifar100_of_the_test_data_has_its_known_twins(test_data, tmp_path):
    pytest.importorskip("pyarrow")
    samples = images.read_parquet(test_data / "cifar100" / "test.parquet", shape=(32, 32, 3))

    assert samples.inputs.shape == (10_000, 32, 32, 3)
    assert np.bincount(samples.labels).tolist() == [100] * 100
    assert content_groups(samples.inputs.reshape(10_000, -1)).max() < 10_000


def test_a_declared_size_is_checked_whatever_the_source(tmp_path):
    _parquet(tmp_path, {"image": [_image(), _image()], "label": [0, 1]})
    declared = params.Dataset(name="cifar10", source=str(tmp_path), n=3)

    with pytest.raises(DataError, match="cifar10: 2 samples found, 3 declared"):
        data.prepare(declared, tmp_path / "out/dataset.json")
    assert params.Dataset(name="cifar10", source=str(tmp_path)).declared_size is None  # 50,000 is torchvision's
