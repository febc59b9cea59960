"""Views: the ways in which one image is shown to a model, mirrored or moved as training may have moved it.

A model that was trained with augmentation has seen an image's neighbours too, so it is asked about them as well
(Carlini et al. 2022, "Membership Inference Attacks From First Principles": 18 queries, which are
`[identity, flip, shift-1, flip-shift-1]`). A view has no randomness, and makes exactly what `training.augment`
would make of the same moves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memleak.params import VIEW

NAME = VIEW  # of a family of views, as params.yaml says it


class ViewError(ValueError):
    """Views that are not known, or that the data cannot have; the text says what is expected."""


@dataclass(frozen=True)
class View:
    """One query of a sample: pixel (r, c) of the view is pixel (r + down, c + right) of the image, mirrored or not."""

    name: str
    is_mirrored: bool = False
    down: int = 0
    right: int = 0

    @property
    def reach(self) -> int:
        """How many pixels the image moves at most, in one direction."""
        return max(abs(self.down), abs(self.right))

    @property
    def is_identity(self) -> bool:
        return not self.is_mirrored and not self.reach


def expand(names: Sequence[str]) -> list[View]:
    """The views of some families, in order, [Q]: `shift-1` is the eight moves by one pixel, `flip-shift-1` these mirrored."""
    if not names:
        raise ViewError("no view is asked for; give at least [identity]")
    views = [view for name in names for view in _family(name)]
    if len(set(names)) != len(names):
        raise ViewError(f"views: {list(names)} names one family twice; every view counts once")
    return views


def _family(name: str) -> list[View]:
    if not re.fullmatch(NAME, name):
        raise ViewError(f"no view is called '{name}'; known: identity, flip, shift-N, flip-shift-N (by N = 1, 2 ... pixels)")
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
            raise ViewError(f"view {view.name}: the data has shape {shape}, and only images (H, W, C) are mirrored and moved; use views: [identity]")
        if view.reach and view.reach >= min(shape[:2]):
            raise ViewError(f"view {view.name}: images of {shape[0]} x {shape[1]} would be moved out of sight; move them by less")


def apply(inputs: np.ndarray, view: View) -> np.ndarray:
    """A view of some samples, of the same shape and type; of images uint8 [n, H, W, C], before they are normalised.

    Zeros (black, not the mean) come in where an image moves, as in training. A mirrored view mirrors the moved
    image. What the identity gives is the input itself, not a copy.
    """
    check([view], inputs.shape[1:])
    if view.is_identity:
        return inputs
    height, width = inputs.shape[1:3]
    margin = ((0, 0), (view.reach, view.reach), (view.reach, view.reach), (0, 0))
    top, left = view.reach + view.down, view.reach + view.right
    moved = np.pad(inputs, margin)[:, top : top + height, left : left + width]
    return np.ascontiguousarray(moved[:, :, ::-1] if view.is_mirrored else moved)
