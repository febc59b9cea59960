"""Views: the moves of an image that a model is asked about are the moves that training makes."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from memleak import randomness
from memleak.signals import views
from memleak.signals.views import View, ViewError
from memleak.training.augment import Images

LIRA = ["identity", "flip", "shift-1", "flip-shift-1"]
TURNED = ["rotate-1", "rotate-10", "rotate-45"]


@pytest.fixture
def images(rng):
    """Six images of 5 x 7 pixels and two colours, no pixel of them black."""
    return rng.integers(1, 256, (6, 5, 7, 2), dtype=np.uint8)


def test_the_queries_of_lira_are_eighteen_different_views(images):
    expanded = views.expand(LIRA)

    assert len(expanded) == 18
    assert len({view.name for view in expanded}) == 18
    assert len({views.apply(images, view).tobytes() for view in expanded}) == 18
    assert [view.name for view in expanded[:4]] == ["identity", "flip", "shift-1(-1,-1)", "shift-1(-1,+0)"]


def test_views_stand_in_the_order_of_their_names():
    assert [view.name for view in views.expand(["flip", "identity"])] == ["flip", "identity"]
    assert views.expand(LIRA)[2:10] == views.expand(["shift-1"])
    assert {(view.down, view.right) for view in views.expand(["shift-3"])} == {
        (-3, -3), (-3, 0), (-3, 3), (0, -3), (0, 3), (3, -3), (3, 0), (3, 3)
    }  # fmt: skip


def test_a_view_by_hand():
    image = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3, 1)

    def seen(view: View) -> list[list[int]]:
        return views.apply(image, view)[0, :, :, 0].tolist()

    assert seen(View("identity")) == [[1, 2, 3], [4, 5, 6]]
    assert seen(View("flip", is_mirrored=True)) == [[3, 2, 1], [6, 5, 4]]
    assert seen(View("shift", down=1)) == [[4, 5, 6], [0, 0, 0]]
    assert seen(View("shift", down=-1, right=1)) == [[0, 0, 0], [2, 3, 0]]
    assert seen(View("flip-shift", is_mirrored=True, right=1)) == [[0, 3, 2], [0, 6, 5]]


@pytest.mark.parametrize(("flip", "shift"), [(True, 1), (True, 2), (False, 3), (True, 0)])
def test_a_view_is_what_augmentation_makes_of_the_same_moves(images, flip, shift):
    """All moves that training draws for 500 samples: each is, to the bit, the view with its parameters."""
    key, ids = 4711, torch.arange(500)
    mean, std = torch.tensor([120.0, 60.0], dtype=torch.float64), torch.tensor([50.0, 70.0], dtype=torch.float64)
    augmented = Images(torch.from_numpy(images), mean, std, flip=flip, shift=shift, dtype=torch.float32)
    plain = {"flip": False, "shift": 0, "dtype": torch.float32}
    drawn = augmented.take(*augmented.draw(ids % 6, ids, key))

    seen = set()
    for i in range(500):
        is_mirrored, down, right = _drawn(key, ids[i : i + 1], flip, shift)
        moved = views.apply(images[i % 6 : i % 6 + 1], View("drawn", is_mirrored, down, right))
        seen.add((is_mirrored, down, right))
        assert torch.equal(Images(torch.from_numpy(moved), mean, std, **plain).take(torch.tensor([0]))[0], drawn[i])
    assert len(seen) == (1 + flip) * (2 * shift + 1) ** 2


def _drawn(key: int, ids: torch.Tensor, flip: bool, shift: int) -> tuple[bool, int, int]:
    """The move that augmentation draws for a sample."""
    uniform = [float(randomness.counter_uniform(key, ids, 0 * ids + stream)[0]) for stream in range(3)]
    down, right = (int(u * (2 * shift + 1)) - shift for u in uniform[1:])
    return flip and uniform[0] < 0.5, down, right


def test_images_are_turned_both_ways_by_equal_angles():
    assert [(view.name, view.degrees) for view in views.expand(["rotate-7", "rotate-12"])] == [
        ("rotate-7(-7)", -7), ("rotate-7(+7)", 7), ("rotate-12(-12)", -12), ("rotate-12(+12)", 12)
    ]  # fmt: skip


def test_a_bright_pixel_goes_around_the_centre_against_the_clock():
    """Ten pixels to the right of the centre; turned by 45 degrees it is seven to the right and seven above."""
    image = np.zeros((1, 31, 31, 1), np.float32)
    image[0, 15, 25] = 1

    def place(degrees: int) -> np.ndarray:
        (seen,) = views.apply(image, View("turned", degrees=degrees))[..., 0]
        return np.array([(seen * np.arange(31)[:, None]).sum(), (seen * np.arange(31)).sum()]) / seen.sum() - 15

    for degrees in (1, 20, 45, -1, -20, -45):
        angle = np.radians(degrees)
        assert place(degrees) == pytest.approx([-10 * np.sin(angle), 10 * np.cos(angle)], abs=0.1)


@pytest.mark.parametrize("degrees", [1, 17, 45, -30])
def test_turned_images_are_interpolated_between_four_pixels_and_zeros(images, degrees):
    turn = np.array([[np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], [-np.sin(np.radians(degrees)), np.cos(np.radians(degrees))]])
    centre = np.array([2, 3])
    by_scipy = [
        [ndimage.affine_transform(image[..., c].astype(float), turn, centre - turn @ centre, order=1, mode="grid-constant") for c in range(2)]
        for image in images
    ]
    expected = np.moveaxis(by_scipy, 1, -1)  # [n, H, W, C]

    assert np.array_equal(views.apply(images, View("turned", degrees=degrees)), np.floor(expected + 0.5))
    assert views.apply(images.astype(np.float64), View("turned", degrees=degrees)) == pytest.approx(expected, abs=1e-9)


def test_a_turn_and_its_mirror_image_are_alike(images):
    """Mirrored, turned by 12 degrees and mirrored back, an image is turned by -12 degrees."""
    there, back = views.expand(["rotate-12"])

    assert np.array_equal(views.apply(images[:, :, ::-1], back)[:, :, ::-1], views.apply(images, there))
    assert not np.array_equal(views.apply(images, back), views.apply(images, there))


def test_a_uniform_image_stays_so_inside_and_zeros_come_in_at_the_corners():
    image = np.full((1, 21, 21, 3), 200, np.uint8)

    (seen,) = views.apply(image, views.expand(["rotate-45"])[0])

    assert (seen[5:16, 5:16] == 200).all()
    assert (seen[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()


def test_float_images_stay_float_and_between_whole_numbers(images):
    values = images.astype(np.float32)

    seen = views.apply(values, views.expand(["rotate-3"])[0])

    assert seen.dtype == np.float32
    assert (seen != np.round(seen)).any()
    assert np.array_equal(np.floor(seen.astype(np.float64) + 0.5), views.apply(images, views.expand(["rotate-3"])[0]))


def test_many_images_are_turned_in_parts_alike(images, monkeypatch):
    view = views.expand(["rotate-10"])[0]
    at_once = views.apply(images, view)
    monkeypatch.setattr(views, "_VALUES_AT_ONCE", 2 * images[0].size)

    assert np.array_equal(views.apply(images, view), at_once)
    assert views.apply(images[:0], view).shape == (0, 5, 7, 2)


def test_a_view_shows_each_sample_alone_and_keeps_the_type(images):
    for view in views.expand([*LIRA, *TURNED]):
        together = views.apply(images, view)
        assert together.shape == images.shape and together.dtype == np.uint8
        assert torch.from_numpy(together).is_contiguous()
        assert np.array_equal(together[2:3], views.apply(images[2:3], view))


def test_the_images_are_left_as_they_were(images):
    before = images.copy()
    for view in views.expand(["flip", "shift-2", "rotate-10"]):
        views.apply(images, view)

    assert np.array_equal(images, before)


def test_tables_have_one_view():
    table = np.ones((4, 9), np.float32)

    assert views.apply(table, View("identity")) is table
    with pytest.raises(ViewError, match=r"view flip: the data has shape \(9,\), and only images .* use views: \[identity\]"):
        views.apply(table, views.expand(["flip"])[0])
    with pytest.raises(ViewError, match=r"view rotate-5\(-5\): the data has shape \(9,\), and only images"):
        views.apply(table, views.expand(["rotate-5"])[0])
    with pytest.raises(ViewError, match=r"view shift-1\(-1,-1\): the data has shape \(9,\)"):
        views.check(views.expand(["identity", "shift-1"]), (9,))


UNKNOWN = [
    "rotate", "rotate-0", "rotate-46", "rotate-90", "rotate-100", "rotate--5", "rotate-2.5", "rotate-05", "flip-rotate-5", "shift", "shift-0",
    "shift-01", "shift-1.5", "shift--1", "flip-flip", "Flip", "shift-1 ", "", "flip\n",
]  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_views_are_answered_with_the_known_ones(name):
    with pytest.raises(ViewError, match=r"known: identity, flip, shift-N, flip-shift-N .*, rotate-N"):
        views.expand([name])
    assert re.fullmatch(views.NAME, name) is None


@pytest.mark.parametrize("name", [*LIRA, *TURNED, "shift-10", "flip-shift-12", "rotate-39"])
def test_the_grammar_knows_every_family(name):
    assert re.fullmatch(views.NAME, name)
    assert views.expand([name])


def test_what_would_show_nothing_or_count_twice_is_refused(images):
    with pytest.raises(ViewError, match="images of 5 x 7 would be moved out of sight"):
        views.check(views.expand(["shift-5"]), images.shape[1:])
    with pytest.raises(ViewError, match="names one family twice"):
        views.expand(["flip", "identity", "flip"])
    with pytest.raises(ViewError, match=r"give at least \[identity\]"):
        views.expand([])


def test_the_names_of_views_are_known_without_torch():
    code = "import sys; from memleak.signals import views; views.expand(['shift-1']); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
