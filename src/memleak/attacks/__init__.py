"""Attacks: `score(evidence, options) -> [N]`, higher means more likely a member.

`Evidence` is all that an attack ever sees. It has no field for the truth. An attack's `Options` say what it
`needs`; a module may offer `score_all(pool, turns, options) -> [T, N]` beside `score`, the same for many targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    is_audited: np.ndarray | None = None  # [N]: the others are of a shadow pool, which only references know; None: all are


@dataclass(frozen=True)
class Needs:
    """What an attack needs of the evidence; property `needs` of its `Options`."""

    signals: tuple[str, ...]
    population: bool = False
    inside: int = 0  # IN references of every sample, at least
    outside: int = 0  # OUT references of every sample, at least
    references: int = 0  # reference models at all, at least
    views: tuple[str, ...] = ()  # ways to show a record that it asks for, whatever the audit's own are
    fits: bool = False  # a rule over many records: on those of the references' own pool where they have one, else on the audited ones
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # signals that take queries of their own: column -> name and options

    @property
    def has_references(self) -> bool:
        """Whether reference models are needed, of whatever kind."""
        return max(self.inside, self.outside, self.references) > 0


@dataclass(frozen=True)
class Turn:
    """One model of a pool as the target, and the models that are its references: neither itself nor its complement."""

    target: int
    references: np.ndarray  # [R] rows of the pool


@dataclass(frozen=True)
class Pool:
    """Signals of all models of an audit, each of which may be the target in turn; arrays may be mapped into memory."""

    signals: Mapping[str, np.ndarray]  # [M, N, Q]
    is_in: np.ndarray  # [M, N]: of whoever is a reference; no attack reads the target's own row
    population: Mapping[str, np.ndarray] | None = None  # [M, Z, Q]
    label: np.ndarray | None = None  # [N]
    sample_id: np.ndarray | None = None  # [N]
    group: np.ndarray | None = None  # [N]
    population_label: np.ndarray | None = None  # [Z]
    population_id: np.ndarray | None = None  # [Z]
    is_audited: np.ndarray | None = None  # [N]
    is_balanced: bool = False  # the models were drawn together, so that the number of IN references tells the target's membership

    def audited(self) -> Pool:
        """The same models and the audited samples only."""
        if self.is_audited is None or self.is_audited.all():
            return self
        kept = np.flatnonzero(self.is_audited)
        return replace(
            self,
            signals={name: values[:, kept] for name, values in self.signals.items()},
            is_in=self.is_in[:, kept],
            label=None if self.label is None else self.label[kept],
            sample_id=None if self.sample_id is None else self.sample_id[kept],
            group=None if self.group is None else self.group[kept],
            is_audited=None,
        )

    def evidence(self, turn: Turn) -> Evidence:
        """What an attack sees of one turn; where the pool is balanced, with equally many references of every sample."""
        seen = self.population
        if self.is_balanced:
            from memleak.attacks.equalised import equalised  # it needs what stands here

            reference, is_in, rows = equalised(self, turn)
        else:
            rows = turn.references
            reference, is_in = {name: values[rows] for name, values in self.signals.items()}, self.is_in[rows]
        return Evidence(
            target={name: values[turn.target] for name, values in self.signals.items()},
            reference=reference,
            is_in=is_in,
            population_target=None if seen is None else {name: values[turn.target] for name, values in seen.items()},
            population_reference=None if seen is None else {name: values[rows] for name, values in seen.items()},
            label=self.label,
            sample_id=self.sample_id,
            group=self.group,
            population_label=self.population_label,
            population_id=self.population_id,
            is_audited=self.is_audited,
        )


def score_each(function: Callable[[Evidence, Any], np.ndarray], pool: Pool, turns: Sequence[Turn], options: Any) -> np.ndarray:
    """The scores of every turn, one turn at a time, [T, N]: for attacks that offer no `score_all`."""
    return np.stack([function(pool.evidence(turn), options) for turn in turns])
