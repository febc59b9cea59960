"""Attacks: `score(evidence, options) -> [N]`, higher means more likely a member.

`Evidence` is all that an attack ever sees. It has no field for the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


class AttackError(ValueError):
    """Evidence that an attack cannot use; the text says what was found and what is needed."""


@dataclass(frozen=True)
class Evidence:
    """Signals of the audited model and of the reference models, and who of the latter trained on what."""

    target: Mapping[str, np.ndarray]  # signal name -> [N, Q] or [N, Q, C]
    reference: Mapping[str, np.ndarray]  # signal name -> [M, N, Q] or [M, N, Q, C]
    is_in: np.ndarray  # [M, N] bool, references only
    population_target: Mapping[str, np.ndarray] | None = None  # [Z, Q, ...]
    population_reference: Mapping[str, np.ndarray] | None = None  # [M, Z, Q, ...]
    label: np.ndarray | None = None  # [N]
    sample_id: np.ndarray | None = None  # [N]
    group: np.ndarray | None = None  # [N]
    population_label: np.ndarray | None = None  # [Z]
    population_id: np.ndarray | None = None  # [Z]; an audited point is never its own population
