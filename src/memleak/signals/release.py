"""What of a model's output is released: steps that change its probabilities before anybody sees them.

A step is a function `mask(probabilities, options) -> probabilities`, [n, C] with rows that sum to 1, and `Options` beside
it. All models of an audit are asked through the same steps, so that an attacker knows them and trains on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from memleak import plugins
from memleak.params import plugin_options
from memleak.signals import SignalError, outputs


def released(logits: np.ndarray, steps: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Logits [n, C] of what is left after all steps: the logarithms of the released probabilities; unchanged without steps."""
    if not steps:
        return logits
    found = special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    for step in steps:
        options = plugin_options("releases", {"name": step["name"], **step["options"]})
        given = np.asarray(plugins.function_of("releases", step["name"])(found.copy(), options))
        if given.shape != found.shape:
            raise SignalError(f"release {step['name']}: gave shape {given.shape}, expected {found.shape}: probabilities of every class")
        found = given
    return outputs.logits_of(found, "probabilities", found.shape[1], f"release {steps[-1]['name']}")
