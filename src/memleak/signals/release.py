"""What of a model's output is released: steps that change its probabilities before anybody sees them.

A step is a function `mask(probabilities, options) -> probabilities`, [n, C] with rows that sum to 1, and `Options` beside
it; ours stand in `signals.releases`. All models of an audit are asked through the same steps, references, views and
queries of label-only attacks included, so that an attacker knows the steps and trains on what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel
from scipy import special

from memleak import plugins
from memleak.params import plugin_options
from memleak.signals import SignalError, outputs

LEAST = float(np.finfo(np.float64).tiny)  # what a probability of 0 counts as before any step
_UNEVEN = 1e-9  # rows whose sum is further from 1 are divided by it


def released(logits: np.ndarray, steps: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Logits [n, C] of what is left after all steps: the logarithms of the released probabilities; unchanged without steps.

    A released 0 counts as what the steps say that it stands for (`Options.least`), and so does whatever is smaller. Where
    no step says anything it counts as the smallest number of its type, which is told once.
    """
    if not steps:
        return logits
    found, least = special.softmax(np.asarray(logits, dtype=np.float64), axis=-1), LEAST
    for step in steps:
        found, least = stepped(found, least, step["name"], plugin_options("releases", {"name": step["name"], **step["options"]}))
    if least == LEAST:
        return outputs.logits_of(found, "probabilities", found.shape[1], f"release {steps[-1]['name']}")
    return np.log(np.maximum(_even(found), least))


def stepped(probabilities: np.ndarray, least: float, name: str, options: BaseModel) -> tuple[np.ndarray, float]:
    """What one step leaves of probabilities [n, C], and what a 0 counts as after it. Raises SignalError where these are no probabilities."""
    found = np.asarray(plugins.function_of("releases", name)(_even(probabilities), options))
    if found.shape != probabilities.shape:
        raise SignalError(f"release {name}: gave shape {found.shape}, expected {probabilities.shape}: probabilities of every class")
    outputs.logits_of(np.where(found == 0, LEAST, found.astype(np.float64)), "probabilities", found.shape[1], f"release {name}")  # raises
    says = getattr(options, "least", None)
    return found, float(says(least, found.shape[1])) if callable(says) else least


def _even(probabilities: np.ndarray) -> np.ndarray:
    """A copy in float64 with rows that sum to 1: a user's step may round them apart."""
    found = np.maximum(probabilities.astype(np.float64), 0.0)
    sums = found.sum(axis=1, keepdims=True)
    return np.where(abs(sums - 1) > _UNEVEN, found / sums, found)
