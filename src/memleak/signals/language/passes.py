"""Which rows of tokens a language model is shown, and where in them the probability of which token is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memleak.models.tokens import Encoded


@dataclass(frozen=True)
class Batch:
    """Some rows. Token `slot` is told at `shown[row, place]`."""

    shown: np.ndarray  # [B, K] int64, -1 beyond a row's end
    row: np.ndarray  # [S] int64
    place: np.ndarray  # [S] int64
    slot: np.ndarray  # [S] int64, of the scored token among those of all texts


@dataclass(frozen=True)
class Passes:
    """Rows to be shown, each a text with every `step`-th of its scored tokens, from `first` on."""

    encoded: Encoded
    offsets: np.ndarray  # [n + 1] int64: the scored tokens of text i are those from offsets[i] to offsets[i + 1]
    place: np.ndarray  # [total] int64, of each scored token in its text
    text: np.ndarray  # [R] int64
    first: np.ndarray  # [R] int64, 0 ... step - 1
    step: np.ndarray  # [R] int64
    mask_id: int | None = None  # stands in the place of what is asked for; None: a token is told by those before it

    @property
    def token_id(self) -> np.ndarray:
        """Each scored token, [total] int32."""
        return self.encoded.ids[np.repeat(self.encoded.offsets[:-1], np.diff(self.offsets)) + self.place]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, [R]."""
        return self.encoded.lengths[self.text]

    def batch(self, rows: np.ndarray) -> Batch:
        """Some rows, and what is read there."""
        text, first, step = self.text[rows], self.first[rows], self.step[rows]
        counts = -(-(np.diff(self.offsets)[text] - first) // step)
        row = np.repeat(np.arange(len(rows)), counts)
        slot = (self.offsets[text] + first)[row] + counted(counts) * step[row]
        shown, place = self.encoded.padded(text), self.place[slot]
        if self.mask_id is None:
            return Batch(shown, row, place - 1, slot)
        shown[row, place] = self.mask_id
        return Batch(shown, row, place, slot)


def left_to_right(encoded: Encoded) -> Passes:
    """Every text once. Its first token is told by nothing, and so not scored, where neither BOS nor prefix stands before it."""
    offsets, place = scored(encoded, np.maximum(encoded.n_prefix, 1))
    text = np.flatnonzero(np.diff(offsets))
    return Passes(encoded, offsets, place, text, np.zeros_like(text), np.ones_like(text))


def scored(encoded: Encoded, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [n + 1] and places [total] of the tokens of each text from its `first` [n] on, without those after the text."""
    counts = np.maximum(encoded.lengths - encoded.n_suffix - first, 0)
    return np.append(0, np.cumsum(counts)), np.repeat(first, counts) + counted(counts)


def counted(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each count, one after the other: [2, 3] becomes 0 1 0 1 2."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
