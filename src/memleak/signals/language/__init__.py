"""Signals of texts: what a language model says about each token, and what follows from it for a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenSignals:
    """Signals of the scored tokens of n texts. Those of text i stand in `columns[name][offsets[i]:offsets[i + 1]]`."""

    columns: dict[str, np.ndarray]  # [total] each: float32 in nats or as probabilities; token_id int32
    offsets: np.ndarray  # [n + 1] int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> np.ndarray:
        """Scored tokens of each text, [n]."""
        return np.diff(self.offsets)
