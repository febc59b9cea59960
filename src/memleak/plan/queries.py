"""What models are asked: which samples, in which views, and which signals are noted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from memleak import provenance
from memleak.params import SIGNALS_VERSION, Design, Given, plugin_code, plugin_options


@dataclass(frozen=True)
class Query:
    """Which samples a shard is asked about, in which views, and what is noted beside the signals that every model has."""

    samples: str  # targets, pool, canaries, given or population
    seed: int
    views: tuple[str, ...] = ("identity",)
    targets: tuple[str, ...] = ()
    pool: int | None = None
    n: int | None = None  # of the population
    canaries: int | None = None
    mislabelled: bool | None = None
    space: str | None = None  # gradient: of canaries that are no records
    shots: str | None = None  # part of a given model's data set that the texts of a prefix are taken from; else they are those outside the pool
    reserve: int | None = None  # records that training took, which the population is without
    members: str | None = None  # part of the data set that a given model was trained on
    non_members: str | None = None
    others: tuple[str, ...] = ()  # parts that reference models know
    overlap: str | None = None
    sample: int | None = None  # of members and of non-members
    parts: tuple[str, ...] = ()  # of the population
    logits: bool | None = None
    signals: tuple[str, ...] = ()  # that take queries of their own: column, name, options and code of each, as JSON
    release: tuple[str, ...] = ()  # steps that change what is seen: name, options and code of each, as JSON

    @cached_property
    def facts(self) -> dict[str, Any]:
        known = {field_.name: getattr(self, field_.name) for field_ in fields(self)}
        known |= {key: [json.loads(entry) for entry in known[key]] for key in ("signals", "release")}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items() if value not in (None, (), [])}

    @cached_property
    def name(self) -> str:
        """`pool-1a2b3c4d`. Seed and pool of audited records stand in the shard's name."""
        if self.samples == "targets" and self.views == ("identity",) and not (self.logits or self.signals or self.release):
            return f"targets-{provenance.digest({'targets': self.targets, 'version': SIGNALS_VERSION})}"
        return f"{self.samples}-{provenance.digest(self.facts | {'version': SIGNALS_VERSION})}"

    def canonical_json(self) -> str:
        return provenance.canonical_json(self.facts)


def shots_of(design: Design, views: Sequence[str]) -> str | None:
    """Where the texts of a prefix come from, if some view has one and the design has no pool that leaves them."""
    return design.population if isinstance(design, Given) and any(view.startswith("prefix") for view in views) else None


def step(room: str, entry: Mapping[str, Any], **known: str) -> str:
    """A signal that takes queries of its own, or a step of the release: what its values depend on."""
    options = plugin_options(room, entry).model_dump(mode="json")
    return provenance.canonical_json({**known, "name": entry["name"], "options": options} | plugin_code(room, entry["name"]))
