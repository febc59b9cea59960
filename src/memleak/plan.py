"""From params to the names of all that will be made: no data, no torch, milliseconds.

Every name is a function of declarations alone. A recipe's path holds a digest of all that changes a trained
weight; a shard's name holds its design, seed and range of rounds; neither depends on the audit that asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from memleak import plugins, provenance
from memleak.designs import Rounds, rounds_of
from memleak.params import (
    SIGNALS_VERSION,
    TRAINING_VERSION,
    Audit,
    Dataset,
    Params,
    Recipe,
    attack_options,
    plugin_code,
)


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe on a data set."""

    id: str
    dataset_id: str
    dataset: Dataset
    recipe: Recipe

    @cached_property
    def name(self) -> str:
        """`digits-cnn-1a2b3c4d`. Fields at their frozen default stay out, so that a new field moves no old path."""
        facts = {
            "dataset": self.dataset.identity(),
            "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True) | plugin_code("architectures", self.recipe.architecture),
            "version": TRAINING_VERSION,
        }
        return f"{self.id}-{provenance.digest(facts)}"

    def canonical_json(self) -> str:
        """What a job needs to know to train: one text."""
        return provenance.canonical_json({"name": self.name, "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True)})


@dataclass(frozen=True)
class Query:
    """Which samples a shard is asked about."""

    targets: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        return f"targets-{provenance.digest({'targets': self.targets, 'version': SIGNALS_VERSION})}"

    def canonical_json(self) -> str:
        return provenance.canonical_json({"targets": list(self.targets)})


@dataclass(frozen=True)
class PlannedAudit:
    """One audit: its shards, and the query that each of them answers."""

    id: str
    audit: Audit
    recipe: PlannedRecipe
    seed: int
    shards: tuple[tuple[Rounds, Query], ...]

    def models(self) -> list[str]:
        return [f"results/models/{self.recipe.name}/{rounds.name}.safetensors" for rounds, _ in self.shards]

    def signals(self) -> list[str]:
        return [f"results/signals/{self.recipe.name}/{query.name}/{rounds.name}.parquet" for rounds, query in self.shards]

    def canonical_json(self) -> str:
        """What the plan, scores, metrics and report need to know: one text."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "seed": self.seed,
                "dataset": self.audit.dataset,
                "recipe": self.recipe.name,
                "design": self.audit.design.model_dump(mode="json"),
                "shards": [rounds_json(rounds) for rounds, _ in self.shards],
            }
        )

    def attack_json(self, attack_id: str) -> str:
        """One attack's validated options, defaults included."""
        entry = self.audit.attacks[attack_id]
        return provenance.canonical_json({"id": attack_id, "name": entry["name"], "options": attack_options(entry).model_dump(mode="json")})

    def figures(self) -> list[str]:
        """The names of this audit's figures."""
        return ["overview", "training", *self.audit.design.targets.names()]

    def page_json(self) -> str:
        """What the page says about how to run the audit again."""
        return provenance.canonical_json(
            {"audit": self.id, "entry": self.audit.model_dump(mode="json"), "recipe": self.recipe.recipe.model_dump(mode="json")}
        )

    def headline_json(self, allow_mixed: bool) -> str:
        return provenance.canonical_json({"headline": self.audit.headline_attack, "allow_mixed": allow_mixed})


def attack_code(name: str) -> str:
    """The digest of the code that scores an attack."""
    place, _ = plugins.locate("attacks", name)
    if place.endswith(".py"):
        return provenance.code_digest("memleak.attacks.stage") + plugin_code("attacks", name)["code"]
    return provenance.code_digest("memleak.attacks.stage", *([place] if place.startswith("memleak.") else []))


def rounds_json(rounds: Rounds) -> dict[str, Any]:
    return {key: value for key, value in vars(rounds).items() if value is not None}


@dataclass(frozen=True)
class Plan:
    """All names that a params.yaml stands for."""

    params: Params
    datasets: dict[str, Dataset] = field(default_factory=dict)  # by directory name
    recipes: dict[str, PlannedRecipe] = field(default_factory=dict)  # by directory name
    shards: dict[tuple[str, str], Rounds] = field(default_factory=dict)  # by (recipe, shard)
    queries: dict[str, Query] = field(default_factory=dict)
    audits: dict[str, PlannedAudit] = field(default_factory=dict)

    def dataset_path(self, recipe: str) -> str:
        """The description of the prepared data that a recipe trains on."""
        return prepared_path(self.recipes[recipe].dataset_id, self.recipes[recipe].dataset)

    def models(self) -> list[str]:
        return sorted({path for audit in self.audits.values() for path in audit.models()})


def prepared_name(dataset_id: str, dataset: Dataset) -> str:
    return f"{dataset_id}-{provenance.digest(dataset.identity())}"


def prepared_path(dataset_id: str, dataset: Dataset) -> str:
    return f"data/prepared/{prepared_name(dataset_id, dataset)}/dataset.json"


def build(params: Params) -> Plan:
    """Expand params into recipes, shards and queries."""
    plan = Plan(params)
    for dataset_id, dataset in params.datasets.items():
        plan.datasets[prepared_name(dataset_id, dataset)] = dataset
    for audit_id, audit in params.audits.items():
        recipe = PlannedRecipe(audit.recipe, audit.dataset, params.datasets[audit.dataset], params.recipes[audit.recipe])
        planned = PlannedAudit(audit_id, audit, recipe, params.seed, tuple(_pairs(audit, params)))
        plan.recipes[recipe.name] = recipe
        plan.audits[audit_id] = planned
        for rounds, query in planned.shards:
            plan.shards[recipe.name, rounds.name] = rounds
            plan.queries[query.name] = query
    return plan


def _pairs(audit: Audit, params: Params) -> list[tuple[Rounds, Query]]:
    """Base models answer about all targets of the audit, a target's own models about that target."""
    design, names = audit.design, tuple(audit.design.targets.names())
    found = []
    for target in (None, *names):
        for role, n_rounds in (("fit", design.rounds), ("holdout", design.holdout_rounds)):
            for rounds in rounds_of(
                target, n_rounds, role, params.models_per_shard,
                subset_size=design.subset_size, seed=params.seed, pool=design.pool, neighbour=design.neighbour,
            ):  # fmt: skip
                found.append((rounds, Query(names if target is None else (target,))))
    return found
