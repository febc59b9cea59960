"""Augmentation: each sample's own draw, the same on its own, in a batch and in a stack of models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from memleak import randomness
from memleak.designs import Rounds
from memleak.params import Recipe
from memleak.training.augment import Features, Images
from memleak.training.batches import Pick

KEY = randomness.derive(7, "augment", 0)
SIDE = 8
EVERYTHING = [{"flip": True, "shift": 2, "cutout": 3}, {"cutout": 4}, {"flip": True}, {"shift": 1}, {"flip": True, "cutout": 5}, {}]


def images_of(n: int = 40, **changed) -> Images:
    """`n` images of noise, 8 x 8 in three colours, none of which is the mean colour 100."""
    pixels = np.random.default_rng(0).integers(101, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    mean, std = torch.full((3,), 100.0, dtype=torch.float64), torch.full((3,), 50.0, dtype=torch.float64)
    return Images(torch.from_numpy(pixels), mean, std, **({"flip": False, "shift": 0, "dtype": torch.float32} | changed))


def taken(images: Images, ids: torch.Tensor, key: int | torch.Tensor = KEY) -> torch.Tensor:
    return images.take(*images.draw(ids % len(images.images), ids, key))


def erased(images: Images, ids: torch.Tensor) -> np.ndarray:
    """Which pixels are the mean colour, [n, H, W]; no others are in `images_of` as long as nothing moves."""
    return (taken(images, ids) == 0).all(dim=1).numpy()


@pytest.mark.parametrize("asked", EVERYTHING, ids=str)
def test_a_key_for_each_sample_draws_what_one_key_draws(asked):
    images, ids = images_of(**asked), torch.arange(40)

    one = images.draw(ids, ids, KEY)
    each = images.draw(ids, ids, torch.full_like(ids, KEY))

    assert len(one) == len(each)
    assert all(torch.equal(a, b) for a, b in zip(one, each, strict=True))


@pytest.mark.parametrize("asked", EVERYTHING, ids=str)
def test_samples_of_several_models_are_drawn_together_as_alone(asked):
    """Two models that take turns in a batch, as in a stack: each row has its own model's key."""
    images, ids, other = images_of(**asked), torch.arange(40), randomness.derive(8, "augment", 0)
    keys = torch.tensor([KEY, other]).repeat(20)

    together = taken(images, ids, keys)

    assert torch.equal(together[::2], taken(images, ids[::2], KEY))
    assert torch.equal(together[1::2], taken(images, ids[1::2], other))


@pytest.mark.parametrize("asked", EVERYTHING, ids=str)
def test_a_samples_image_does_not_depend_on_its_batch(asked):
    images, ids = images_of(**asked), torch.arange(40)
    whole = taken(images, ids)

    assert torch.equal(taken(images, ids.flip(0)).flip(0), whole)
    assert torch.equal(taken(images, ids[5:6]), whole[5:6])


@pytest.mark.parametrize("asked", EVERYTHING, ids=str)
def test_another_epoch_draws_anew(asked):
    images, ids = images_of(**asked), torch.arange(40)
    same = torch.equal(taken(images, ids), taken(images, ids, randomness.derive(7, "augment", 1)))

    assert same == (not asked)


def test_nothing_is_drawn_where_nothing_is_asked_for():
    images, ids = images_of(), torch.arange(40)
    features = Features(torch.zeros(40, 3), torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), torch.float32)

    assert images.draw(ids, ids, KEY) == (ids,)
    assert features.draw(ids, ids, torch.full_like(ids, KEY)) == (ids,)


def test_an_image_that_is_neither_moved_nor_cut_is_normalised():
    images = images_of()

    expected = (images.images.double() - 100) / 50
    assert torch.allclose(taken(images, torch.arange(40)).double(), expected.permute(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 8])
def test_cutout_erases_one_square_that_may_overhang(side):
    covered = erased(images_of(n=40, cutout=side), torch.arange(600))
    rows, columns = covered.any(axis=2), covered.any(axis=1)

    assert np.array_equal(covered, rows[:, :, None] & columns[:, None, :])  # a rectangle
    for lines in (rows, columns):
        height = lines.sum(axis=1)
        assert np.all(lines.argmax(axis=1) + height == SIDE - lines[:, ::-1].argmax(axis=1))  # without gaps
        assert height.max() == side and height.min() == (side + 1) // 2  # at least the half of a square whose centre is a pixel
    assert side == 1 or not np.all(covered.sum(axis=(1, 2)) == side**2)


def test_every_pixel_is_the_centre_alike():
    covered = erased(images_of(cutout=1), torch.arange(6400))

    assert covered.sum() == 6400
    assert stats.chisquare(covered.sum(axis=0).ravel()).pvalue > 0.001


def test_cutout_moves_nothing_else():
    """The draws of flip and shift are those of a recipe without cutout; what is not erased is as it was."""
    ids = torch.arange(40)
    plain, cut = (taken(images_of(flip=True, shift=2, cutout=side), ids) for side in (0, 3))
    is_changed = (plain != cut).any(dim=1)

    assert 0 < is_changed.sum() <= 40 * 9
    assert torch.all(cut.permute(0, 2, 3, 1)[is_changed] == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_keep_their_type_and_channels_last_memory(dtype):
    batch = taken(images_of(flip=True, shift=1, cutout=2, dtype=dtype), torch.arange(6))

    assert batch.dtype == dtype and batch.shape == (6, 3, SIDE, SIDE)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_a_recipes_cutout_is_for_training_alone(digits):
    """A pick that trains erases, one that asks does not; and the square of the IN arm's others is that of the OUT arm."""
    recipe = Recipe(architecture="small_cnn", channels=(8,), epochs=1, batch_size=16, learning_rate=0.1, cutout=4)
    inside = Rounds("random00", 64, 0, "fit", 0, 1).tasks(digits)[-1]
    members = [inside.members[:16]]

    def inputs(ids: np.ndarray, *, augmented: bool, cutout: int = 4) -> torch.Tensor:
        pick = Pick(digits, ids, None, recipe.model_copy(update={"cutout": cutout}), torch.device("cpu"), augmented=augmented)
        return next(pick.batches(members, KEY))[0]

    cut = inputs(inside.members, augmented=True)

    assert torch.equal(inputs(inside.members, augmented=False), inputs(inside.members, augmented=True, cutout=0))
    assert not torch.equal(cut, inputs(inside.members, augmented=False))
    assert torch.equal(cut, inputs(inside.members[:32], augmented=True))
