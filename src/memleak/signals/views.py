"""Views: the ways in which one image is shown to a model, mirrored, moved or turned as training may have done.

A model that was trained with augmentation has seen an image's neighbours too, so it is asked about them as well
(Carlini et al. 2022, "Membership Inference Attacks From First Principles": 18 queries, which are
`[identity, flip, shift-1, flip-shift-1]`). A view has no randomness, and mirrors and moves make exactly what
`training.augment` would make of them. Turned images are for label-only attacks (Choquette-Choo et al. 2021,
"Label-Only Membership Inference Attacks"): how far may an image turn until the answer is wrong?
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memleak.params import VIEW

NAME = VIEW  # of a family of views, as params.yaml says it
_VALUES_AT_ONCE = 2**20  # of images that are turned: tens of MB, however many there are


class ViewError(ValueError):
    """Views that are not known, or that the data cannot have; the text says what is expected."""


@dataclass(frozen=True)
class View:
    """One query of a sample: pixel (r, c) of the view is pixel (r + down, c + right) of the image, mirrored or not.

    Or the image turned about its centre, by degrees against the clock.
    """

    name: str
    is_mirrored: bool = False
    down: int = 0
    right: int = 0
    degrees: int = 0

    @property
    def reach(self) -> int:
        """How many pixels the image moves at most, in one direction."""
        return max(abs(self.down), abs(self.right))

    @property
    def is_identity(self) -> bool:
        return not self.is_mirrored and not self.reach and not self.degrees


def expand(names: Sequence[str]) -> list[View]:
    """The views of some families, in order, [Q].

    `shift-1` is the eight moves by one pixel, `flip-shift-1` these mirrored, `rotate-5` the two turns by 5 degrees.
    """
    if not names:
        raise ViewError("no view is asked for; give at least [identity]")
    views = [view for name in names for view in _family(name)]
    if len(set(names)) != len(names):
        raise ViewError(f"views: {list(names)} names one family twice; every view counts once")
    return views


def _family(name: str) -> list[View]:
    if not re.fullmatch(NAME, name):
        raise ViewError(
            f"no view is called '{name}'; known: identity, flip, shift-N, flip-shift-N (by N = 1, 2 ... pixels), rotate-N (by N = 1 to 45 degrees)"
        )
    if name.startswith("rotate"):
        n = int(name.rpartition("-")[2])
        return [View(f"{name}({degrees:+d})", degrees=degrees) for degrees in (-n, n)]
    is_mirrored = name.startswith("flip")
    if "shift" not in name:
        return [View(name, is_mirrored)]
    n = int(name.rpartition("-")[2])
    moves = [(down, right) for down in (-n, 0, n) for right in (-n, 0, n) if (down, right) != (0, 0)]
    return [View(f"{name}({down:+d},{right:+d})", is_mirrored, down, right) for down, right in moves]


def check(views: Sequence[View], shape: tuple[int, ...]) -> None:
    """Refuse views that samples of a shape, (H, W, C) or (F,), cannot have."""
    for view in views:
        if not view.is_identity and len(shape) != 3:
            raise ViewError(
                f"view {view.name}: the data has shape {shape}, and only images (H, W, C) are mirrored, moved and turned; use views: [identity]"
            )
        if view.reach and view.reach >= min(shape[:2]):
            raise ViewError(f"view {view.name}: images of {shape[0]} x {shape[1]} would be moved out of sight; move them by less")


def apply(inputs: np.ndarray, view: View) -> np.ndarray:
    """A view of some samples, of the same shape and type; of images [n, H, W, C], uint8 or float, before they are normalised.

    Zeros (black, not the mean) come in where an image moves or turns, as in training. A mirrored view mirrors the
    moved image; a turned one is only turned. What the identity gives is the input itself, not a copy.
    """
    check([view], inputs.shape[1:])
    if view.is_identity:
        return inputs
    if view.degrees:
        return _turned(inputs, view.degrees)
    height, width = inputs.shape[1:3]
    margin = ((0, 0), (view.reach, view.reach), (view.reach, view.reach), (0, 0))
    top, left = view.reach + view.down, view.reach + view.right
    moved = np.pad(inputs, margin)[:, top : top + height, left : left + width]
    return np.ascontiguousarray(moved[:, :, ::-1] if view.is_mirrored else moved)


def _turned(images: np.ndarray, degrees: int) -> np.ndarray:
    """Images [n, H, W, C] about their centre, against the clock, bilinear, zeros outside; uint8 are rounded half up."""
    height, width = images.shape[1:3]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down, right = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")  # of a pixel of the view
    row = cosine * down + sine * right + (height - 1) / 2  # its place in the image, [H, W]; rows count downwards
    column = cosine * right - sine * down + (width - 1) / 2
    seen = np.empty(images.shape, images.dtype)
    n_at_once = max(1, _VALUES_AT_ONCE // (height * width * images.shape[3]))
    for start in range(0, len(images), n_at_once):
        part = slice(start, start + n_at_once)
        values = _between(images[part], row, column)
        seen[part] = np.floor(values + 0.5) if images.dtype == np.uint8 else values
    return seen


def _between(images: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Values of images [n, H, W, C] at places between their pixels, float64 [n, H, W, C]: of the four around, by nearness."""
    height, width = images.shape[1:3]
    bordered = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    values = np.zeros(images.shape)
    for r in (np.floor(row), np.floor(row) + 1):
        for c in (np.floor(column), np.floor(column) + 1):
            nearness = (1 - abs(row - r)) * (1 - abs(column - c))  # [H, W]
            around = bordered[:, (r + 1).clip(0, height + 1).astype(int), (c + 1).clip(0, width + 1).astype(int)]
            values += nearness[None, :, :, None] * around
    return values
