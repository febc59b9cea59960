"""The blind baseline: silent where members and others are alike, an alarm where they are not, and a p-value that keeps its level."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

from memleak.data import blind as looks
from memleak.data import topics
from memleak.metrics import blind


def halves(n):
    return np.arange(n) < n // 2


def found_in(inputs, labels, is_member=None, **options):
    return blind.measure(looks.features(inputs, labels), halves(len(labels)) if is_member is None else is_member, **options)


@pytest.fixture(scope="module")
def pictures():
    """2000 photograph-like pictures, uint8 [2000, 16, 16, 3]: waves of random direction and colour under noise; ten classes of equal chance."""
    draw = np.random.default_rng(0)
    row, column = np.mgrid[:16, :16] / 16
    waves = sum(np.sin(2 * np.pi * (a * row + b * column) + c) for a, b, c in draw.uniform(-1.5, 1.5, size=(3, 3, 2000, 1, 1)))
    colours = draw.uniform(20, 45, size=(2000, 1, 1, 3))
    images = 128 + draw.normal(0, 20, size=(2000, 1, 1, 3)) + waves[..., None] * colours + draw.normal(0, 8, size=(2000, 16, 16, 3))
    return images.clip(0, 255).astype(np.uint8), draw.integers(0, 10, 2000)


def compressed(images, quality):
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


def test_looks_by_hand():
    """A 2 x 2 picture in one channel: four blocks, mean, deviation, quantiles, no inner pixel, half of the pixels saturated; and the label."""
    found = looks.features(np.array([[[[0], [255]], [[51], [102]]]] * 2, dtype=np.uint8), np.array([3, 3]))

    assert found.dtype == np.float32 and found.shape == (2, 4 + 1 + 1 + 2 + 1 + 1 + 1)
    assert found[0] == pytest.approx([0, 1, 0.2, 0.4, 0.4, np.std([0, 1, 0.2, 0.4]), 0.03, 0.91, 0, 0.5, 1], abs=1e-5)


def test_sharpness_is_the_mean_absolute_laplacian():
    point = np.zeros((1, 3, 3, 1), dtype=np.float32)
    point[0, 1, 1] = 1

    assert looks._sharpness(point) == pytest.approx(4)
    assert looks._sharpness(np.broadcast_to(np.arange(5.0)[:, None, None], (1, 5, 5, 1))) == pytest.approx(0)


def test_blocks_are_means_whatever_the_size():
    """The mean over all blocks, each as large as it is, is the mean of the picture."""
    image = np.random.default_rng(0).random((3, 8, 16, 1)).astype(np.float32)
    found = looks.features(image, np.zeros(3, int))

    assert found[:, :64].mean(axis=1) == pytest.approx(image.mean(axis=(1, 2, 3)), abs=1e-6)
    assert found[0, 1] == pytest.approx(image[0, 0, 2:4].mean(), abs=1e-6)


def test_many_columns_and_many_classes_become_few():
    draw = np.random.default_rng(0)
    table, labels = draw.random((500, 1000)), draw.integers(0, 300, 500)
    found = looks.features(table, labels)

    assert found.shape == (500, 256 + 100) and np.array_equal(found, looks.features(table, labels))
    assert looks.features(table[:, :20], labels % 7).shape == (500, 27) and np.array_equal(
        looks.features(table[:, :20], labels)[:, :20], table[:, :20].astype("f4")
    )


def test_what_is_no_record_is_refused():
    with pytest.raises(ValueError, match="3 records and 2 labels"):
        looks.features(np.zeros((3, 4)), np.zeros(2, int))
    with pytest.raises(ValueError, match="1 of 3 records have missing"):
        looks.features(np.array([[1.0], [np.nan], [2.0]]), np.zeros(3, int))
    with pytest.raises(ValueError, match="expected images"):
        looks.features(np.zeros((3, 4, 4)), np.zeros(3, int))


def test_halves_of_one_set_are_no_alarm(pictures):
    found = found_in(*pictures)

    assert not found["alarm"] and found["auc"]["low"] <= 0.5 <= found["auc"]["high"] and found["p"] > 0.001
    assert (found["n_members"], found["n_non_members"]) == (1000, 1000)


def test_brighter_members_are_an_alarm(pictures):
    """By a tenth of the deviation of a pixel."""
    images, labels = pictures
    shift = (0.1 * images.std() * halves(2000))[:, None, None, None]
    found = found_in((images + shift).clip(0, 255).astype(np.uint8), labels)

    assert found["alarm"] and found["auc"]["low"] > 0.5 and found["balanced_accuracy"]["value"] > 0.55


def test_another_jpeg_quality_is_an_alarm(pictures):
    images, labels = pictures
    found = found_in(np.concatenate([compressed(images[:1000], 95), compressed(images[1000:], 75)]), labels)

    assert found["alarm"]


def test_another_class_mix_is_an_alarm(pictures):
    """Members have the first five of ten classes three times as often as the others."""
    images, labels = pictures
    draw = np.random.default_rng(1)
    mixed = np.where(halves(2000), draw.choice(10, 2000, p=np.repeat([3, 1], 5) / 20), labels)

    assert not found_in(images, labels)["alarm"] and found_in(images, mixed)["alarm"]


def test_a_column_of_another_shape_is_an_alarm():
    """Same mean, wider: the regression is blind to it, the boosting is not."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1000, 4))
    x[:500, 0] *= 2
    found = found_in(x, np.zeros(1000, int))

    assert found["alarm"] and found["classifiers"]["gradient_boosting"] > 0.6 > found["classifiers"]["logistic_regression"]


def test_sets_that_share_nothing_are_told_apart_for_certain():
    found = found_in(np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros(200, int))

    assert found["auc"]["value"] == found["auc"]["high"] == 1 and 0.9 < found["auc"]["low"] < 1 and found["alarm"]


def test_p_is_uniform_where_nothing_is_to_be_found():
    """Random members; in every second world records come in groups of four that are members together."""
    draw, p, covered = np.random.default_rng(0), [], []
    for seed in range(40):
        size = 4 if seed % 2 else 1
        group = np.repeat(np.arange(160 // size), size)
        x = draw.normal(size=(160, 5))[group] + 0.01 * draw.normal(size=(160, 5))
        found = blind.measure(x, draw.permutation(np.arange(160 // size) % 2 == 0)[group], group, seed=seed)
        p.append(found["p"])
        covered.append(found["auc"]["low"] <= 0.5 <= found["auc"]["high"])

    assert stats.kstest(p, "uniform").pvalue > 0.01 and stats.binomtest(int(np.sum(np.array(p) <= 0.1)), 40, 0.1, "greater").pvalue > 0.01
    assert np.mean(covered) >= 0.85


def test_twins_in_both_sets_are_never_learned_by_heart():
    """Each record has a copy; both copies fall into one fold, so that none is recognised by having been seen."""
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(150), 2)
    found = blind.measure(draw.normal(size=(150, 3))[group], draw.permutation(np.arange(150) < 75)[group], group)
    fold = blind.folds(np.arange(300) % 4 < 2, group, draw)

    assert not found["alarm"]
    assert all(len(np.unique(fold[group == one])) == 1 for one in range(150)) and np.bincount(fold).tolist() == [60] * 5


def test_groups_of_both_kinds_are_dealt_out_evenly():
    """3,000 members, and 20 groups that hold a member and one of 20 non-members each: four non-members in every fold."""
    truth, group = np.arange(3020) < 3000, np.concatenate([np.arange(3000), np.arange(20)])
    fold = blind.folds(truth, group, np.random.default_rng(0))

    assert np.bincount(fold[~truth]).tolist() == [4] * 5 and np.array_equal(fold[:20], fold[3000:])
    assert blind.measure(np.random.default_rng(0).normal(size=(3000, 2))[group], truth, group)["p"] > 0.001


def test_the_same_seed_gives_the_same_figures_and_the_order_of_columns_matters_little():
    x = np.random.default_rng(0).normal(size=(200, 3)) + halves(200)[:, None] * 0.5

    assert blind.measure(x, halves(200)) == blind.measure(x, halves(200))
    assert blind.measure(x, halves(200))["auc"]["value"] == pytest.approx(blind.measure(x[:, ::-1], halves(200))["auc"]["value"], abs=0.05)


def test_few_records_are_not_measured_and_say_so():
    found = found_in(np.random.default_rng(0).normal(size=(30, 2)), np.zeros(30, int))

    assert found["p"] is None and found["auc"] is None and not found["alarm"] and "15 different records" in found["why"]


def test_a_large_set_gives_its_share(monkeypatch):
    monkeypatch.setattr(blind, "N_RECORDS", 100)
    chosen = blind._choose(np.arange(1000) < 970, np.random.default_rng(0))

    assert len(chosen) == 100 and (chosen >= 970).sum() == 30 and (np.diff(chosen) > 0).all()
    assert (blind._choose(np.arange(1000) < 500, np.random.default_rng(0)) < 500).sum() == 50


def test_shuffled_labels_have_an_auc_of_one_half():
    draw = np.random.default_rng(0)
    found = blind.permuted(draw.normal(size=300).round(1) + 5 * halves(300), halves(300), n=100)

    assert found["auc_mean"] == pytest.approx(0.5, abs=0.02) and found["low"] <= 0.95 <= found["high"]
    assert found["n"] == 100 and not found["alarm"] and "only the metrics" in found["note"]


def test_groups_are_shuffled_together():
    """Groups of ten with one score each: intervals of independent records would hold .5 in half of the shuffles only."""
    draw, group = np.random.default_rng(0), np.repeat(np.arange(60), 10)
    scores, truth = draw.normal(size=60)[group], (np.arange(60) < 30)[group]

    assert not blind.permuted(scores, truth, group)["alarm"]


def test_metrics_that_lie_are_an_alarm(monkeypatch):
    monkeypatch.setattr(blind.pooled, "auc", lambda pool, confidence: {"value": 0.5, "low": 0.499, "high": 0.501})
    assert not blind.permuted(np.arange(50.0), halves(50), n=20)["alarm"]
    monkeypatch.setattr(blind.pooled, "auc", lambda pool, confidence: {"value": 0.6, "low": 0.55, "high": 0.7})
    assert blind.permuted(np.arange(50.0), halves(50), n=20)["alarm"]


def test_halves_of_digits_are_no_alarm():
    digits, order = load_digits(), np.random.default_rng(0).permutation(1797)

    assert not found_in((digits.images * 15).astype(np.uint8)[order][..., None], digits.target[order])["alarm"]


@pytest.fixture(scope="module")
def passages():
    """1,200 passages of Python's documentation, by their topic's name."""
    samples = topics.load()
    return samples.inputs[np.argsort(samples.columns["topic"].astype(str), kind="stable")]


def test_looks_of_texts_by_hand():
    texts = np.array(["Ab, 12\n", "cd cd cd", "cd ef Ä", "gh"], dtype=object)
    found = looks.features(texts, np.zeros(4, int))

    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert found[0, -9:] == pytest.approx([np.log(8), np.log(3), 2.5, 2 / 7, 1 / 7, 1 / 7, 1 / 7, 0, 1])
    assert found[2, -9:] == pytest.approx([np.log(9), np.log(4), 5 / 3, 0, 1 / 7, 0, 0, 1 / 7, 1], abs=1e-6)


def test_texts_that_share_no_word_have_looks_too():
    assert looks.features(np.array(["a", "?!", "1234"], dtype=object), np.zeros(3, int)).shape[0] == 3


def test_looks_of_texts_are_few_columns_and_the_same_every_time(passages):
    found = looks.features(passages, np.zeros(1200, int))

    assert found.shape == (1200, 100 + 13 + 1) and np.array_equal(found, looks.features(passages, np.zeros(1200, int)))


@pytest.mark.parametrize("seed", range(3))
def test_a_split_of_texts_by_topic_is_an_alarm_and_a_random_one_is_none(passages, seed):
    draw = np.random.default_rng(seed)
    some = passages[np.sort(draw.choice(1200, 300, replace=False))]
    by_topic, at_random = found_in(some, np.zeros(300, int), seed=seed), found_in(some, np.zeros(300, int), draw.permutation(300) < 150, seed=seed)

    assert by_topic["alarm"] and by_topic["auc"]["value"] > 0.7
    assert not at_random["alarm"] and at_random["auc"]["low"] <= 0.5 <= at_random["auc"]["high"]


def test_longer_members_are_an_alarm(passages):
    """Same words, a third more of them."""
    draw = np.random.default_rng(0)
    words = [word for text in passages for word in text.split()]
    texts = np.array([" ".join(draw.choice(words, 16 if is_member else 12)) for is_member in halves(400)], dtype=object)

    assert found_in(texts, np.zeros(400, int))["alarm"]


def test_p_of_random_splits_of_texts_keeps_its_level(passages):
    p = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        some = passages[draw.choice(1200, 100, replace=False)]
        p.append(found_in(some, np.zeros(100, int), draw.permutation(100) < 50, seed=seed)["p"])

    assert stats.kstest(p, "uniform").pvalue > 0.01 and min(p) > 0.001


def _cifar(folder, name, n):
    rows = pq.read_table(folder / name, columns=["image"]).take(np.sort(np.random.default_rng(0).choice(10_000, n, replace=False)))
    return np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows["image"].to_pylist()])


def test_cifar10_has_one_source_and_cifar100_another(test_data):
    """Train and test images of CIFAR-10 are alike; those of CIFAR-100 are not, even if nobody tells the labels."""
    train, test, other = (_cifar(test_data, name, 800) for name in ("cifar10/train.parquet", "cifar10/test.parquet", "cifar100/train.parquet"))
    labels = np.zeros(1600, int)
    alike, unlike = found_in(np.concatenate([train, test]), labels), found_in(np.concatenate([train, other]), labels)

    assert not alike["alarm"] and unlike["alarm"]
