"""Signals: what a model says about samples, in several views, under the release that it is asked through.

`classifier` has those that are functions of the logits. A signal that takes queries of its own, or the weights, is a
function `measure(asked, options) -> [n]` with `Options` beside it: built-in, or the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class SignalError(ValueError):
    """A signal that cannot be measured; the text says what was found and what is needed."""


@dataclass(frozen=True)
class Asked:
    """One model, and the samples that it is asked about in one view; inputs are as stored: images uint8 [n, H, W, C], or features [n, F]."""

    inputs: np.ndarray  # [n, ...]
    label: np.ndarray  # [n]
    sample_id: np.ndarray  # [n]
    logits: np.ndarray  # [n, C] what it says about them; of models that give labels alone the label's logit is 0, others -inf
    answer: Callable[[np.ndarray], np.ndarray]  # any inputs in the scale of the stored ones, floats too -> logits [n, C]; a row is a query
    network: torch.nn.Module | None  # in evaluation mode; None where the model is a black box
    given: Callable[[np.ndarray], torch.Tensor] | None  # stored inputs -> what the network takes; None where there is no network
