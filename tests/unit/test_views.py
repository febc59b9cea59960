"""Views: the moves of an image that a model is asked about are the moves that training makes."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from memleak import randomness
from memleak.signals import views
from memleak.signals.views import View, ViewError
from memleak.training.augment import Images

LIRA = ["identity", "flip", "shift-1", "flip-shift-1"]


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


def test_a_view_shows_each_sample_alone_and_keeps_the_type(images):
    for view in views.expand(LIRA):
        together = views.apply(images, view)
        assert together.shape == images.shape and together.dtype == np.uint8
        assert torch.from_numpy(together).is_contiguous()
        assert np.array_equal(together[2:3], views.apply(images[2:3], view))


def test_the_images_are_left_as_they_were(images):
    before = images.copy()
    for view in views.expand(["flip", "shift-2"]):
        views.apply(images, view)

    assert np.array_equal(images, before)


def test_tables_have_one_view():
    table = np.ones((4, 9), np.float32)

    assert views.apply(table, View("identity")) is table
    with pytest.raises(ViewError, match=r"view flip: the data has shape \(9,\), and only images .* use views: \[identity\]"):
        views.apply(table, views.expand(["flip"])[0])
    with pytest.raises(ViewError, match=r"view shift-1\(-1,-1\): the data has shape \(9,\)"):
        views.check(views.expand(["identity", "shift-1"]), (9,))


@pytest.mark.parametrize("name", ["rotate", "shift", "shift-0", "shift-01", "shift-1.5", "shift--1", "flip-flip", "Flip", "shift-1 ", "", "flip\n"])
def test_unknown_views_are_answered_with_the_known_ones(name):
    with pytest.raises(ViewError, match=r"known: identity, flip, shift-N, flip-shift-N"):
        views.expand([name])
    assert re.fullmatch(views.NAME, name) is None


@pytest.mark.parametrize("name", [*LIRA, "shift-10", "flip-shift-12"])
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
