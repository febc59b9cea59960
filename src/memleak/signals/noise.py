"""Robustness of the label to noise: how much may a sample be disturbed until the model no longer answers rightly?

Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks" (random noise). Training pushes the decision boundary
away from members, and noise tells how far. Only which class is largest is read from the answers, so the signal is the same
where labels alone are released. Of images, squares of pixels share their noise: it moves a network's answer towards other
classes, while noise of single pixels is hardly like anything it has learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from memleak import randomness
from memleak.params import Frozen
from memleak.signals import Asked, SignalError

# Weakest and strongest noise where none is given. Overfitted networks on CIFAR-10 and location30 chose them: stronger noise is
# answered with the same one or two classes whatever lies below, and tells a record's class instead of its membership.
LEVELS = {"pixels": (4.0, 24.0), "gaussian": (0.05, 2.0), "flips": (0.005, 0.2)}
_ROWS_AT_ONCE = 1024
_VALUES_AT_ONCE = 2**22  # of noise: 16 MB, however wide a record and long a ladder


class Options(Frozen):
    """How a sample is disturbed, and how often."""

    queries: int = Field(200, gt=0, le=10_000, description="most of each sample: one a level of noise, so more make the ladder finer")
    kind: Literal["gaussian", "flips"] | None = Field(
        None, description="add Gaussian noise, or flip zeros and ones (default: flips for a record of a table that holds nothing else)"
    )
    grain: int | None = Field(
        None, gt=0, description="of images: pixels a side of the squares that share their noise (default: a quarter of the shorter side)"
    )
    levels: tuple[float, float] | None = Field(
        None, description="weakest and strongest noise: deviation in stored units (0 to 255 of images), or probability of a flip"
    )

    @model_validator(mode="after")
    def _go_up(self) -> Options:
        if self.levels is not None:
            weakest, strongest = self.levels
            if not 0 < weakest < strongest < np.inf:
                raise ValueError(f"levels: {weakest:g} to {strongest:g}; noise grows, so give something above 0 first and then more")
            if self.kind == "flips":
                self._check_flips()
        return self

    def _check_flips(self) -> None:
        if self.levels is not None and self.levels[1] > 0.5:
            raise SignalError(f"levels: up to {self.levels[1]:g} is the probability of a flip, and 0.5 leaves nothing of a record; give 0.5 or less")

    def noise_for(self, record: np.ndarray) -> str:
        """The noise that suits a record: of pixels, which stay in 0 to 255, Gaussian, or flips."""
        if record.dtype == np.uint8:
            if self.kind == "flips":
                raise SignalError("noise_robustness: kind: flips is for tables of 0 and 1, the data are images; leave kind out")
            return "pixels"
        if self.grain is not None:
            raise SignalError("noise_robustness: grain is for images, the data is a table; leave grain out")
        is_binary = bool(((record == 0) | (record == 1)).all())
        if self.kind == "flips" and not is_binary:
            raise SignalError("noise_robustness: kind: flips is for tables of 0 and 1, and a record holds other values; write kind: gaussian")
        if self.kind == "gaussian" or not is_binary:
            return "gaussian"
        self._check_flips()
        return "flips"


def measure(asked: Asked, options: Options) -> np.ndarray:
    """Share of right answers on a ladder of ever stronger noise, float32 [n] in [0, 1]: 0 where the answer is wrong without noise.

    One draw of noise a level, and the levels have equal ratios. So the share tells without bias where on the ladder's
    logarithmic scale the answer turns, on average over directions of noise; nothing is fitted, and who never falls has 1.
    The answer without noise counts as one more right one, so that a sample which falls at the first noise still stands
    above one that is wrong already. Noise belongs to a sample and a level, whatever else is asked and whichever model.
    """
    share = np.zeros(len(asked.label), np.float32)
    for i in np.flatnonzero(asked.logits.argmax(axis=1) == asked.label):
        n_right = 1
        for disturbed in _ladder(asked.inputs[i], int(asked.sample_id[i]), options):
            n_right += int((asked.answer(disturbed).argmax(axis=1) == asked.label[i]).sum())
        share[i] = n_right / (1 + options.queries)
    return share


def _ladder(record: np.ndarray, sample_id: int, options: Options) -> Iterator[np.ndarray]:
    """A record under noise from the weakest to the strongest, float32 [up to 1024, ...] at a time."""
    noise = options.noise_for(record)
    levels = np.geomspace(*(options.levels or LEVELS[noise]), options.queries, dtype=np.float32)
    stream = randomness.generator(0, "noise_robustness", sample_id)  # counter-based, and in the order of levels: parts change no draw
    rows = min(_ROWS_AT_ONCE, max(1, _VALUES_AT_ONCE // record.size))
    for part in (levels[start : start + rows] for start in range(0, len(levels), rows)):
        strength = part.reshape(-1, *[1] * record.ndim)
        if noise == "pixels":
            yield (record + strength * _squares(record.shape, len(part), options.grain, stream)).clip(0, 255)
        elif noise == "gaussian":
            yield record + strength * stream.standard_normal((len(part), *record.shape), np.float32)
        else:
            yield np.where(stream.random((len(part), *record.shape), np.float32) < strength, 1 - record, record)


def _squares(shape: tuple[int, ...], n: int, grain: int | None, stream: np.random.Generator) -> np.ndarray:
    """Unit noise that neighbouring pixels share, float32 [n, H, W, C]; what does not fill a square is cut off."""
    height, width, channels = shape
    side = grain or max(1, min(height, width) // 4)
    coarse = stream.standard_normal((n, -(-height // side), -(-width // side), channels), np.float32)
    return coarse.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]
