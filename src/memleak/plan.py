"""From params to the names of all that will be made: no data, no torch, milliseconds.

Every name is a function of declarations alone. A recipe's path holds a digest of all that changes a trained
weight; a shard's name holds its design, seed and range of rounds; neither depends on the audit that asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from memleak import plugins, provenance
from memleak.designs import Coins, Complements, Shard, rounds_of, shard_json
from memleak.params import (
    OWN_TRAINER,
    SIGNALS_VERSION,
    TRAINING_VERSION,
    Audit,
    Canaries,
    Dataset,
    Halves,
    Pairs,
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
            "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True) | recipe_code(self.recipe),
            "version": TRAINING_VERSION,
        }
        return f"{self.id}-{provenance.digest(facts)}"

    def canonical_json(self) -> str:
        """What a job needs to know to train: one text."""
        return provenance.canonical_json({"name": self.name, "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True)})


@dataclass(frozen=True)
class Query:
    """Which samples a shard is asked about, and in which views."""

    samples: str  # targets, pool, canaries or population
    seed: int
    views: tuple[str, ...] = ("identity",)
    targets: tuple[str, ...] = ()
    pool: int | None = None
    n: int | None = None  # of the population
    canaries: int | None = None
    mislabelled: bool | None = None

    @cached_property
    def facts(self) -> dict[str, Any]:
        known = {field_.name: getattr(self, field_.name) for field_ in fields(self)}
        return {key: value for key, value in known.items() if value not in (None, ())}

    @cached_property
    def name(self) -> str:
        """`pool-1a2b3c4d`. Seed and pool of audited records stand in the shard's name."""
        if self.samples == "targets" and self.views == ("identity",):
            return f"targets-{provenance.digest({'targets': self.targets, 'version': SIGNALS_VERSION})}"
        return f"{self.samples}-{provenance.digest(self.facts | {'version': SIGNALS_VERSION})}"

    def canonical_json(self) -> str:
        return provenance.canonical_json(self.facts)


@dataclass(frozen=True)
class PlannedAudit:
    """One audit: its shards, and the query that each of them answers."""

    id: str
    audit: Audit
    recipe: PlannedRecipe
    seed: int
    shards: tuple[tuple[Shard, Query], ...]
    population: tuple[tuple[Shard, Query], ...]  # the same shards again, asked about other samples; () where no attack wants them

    def models(self) -> list[str]:
        return [f"results/models/{self.recipe.name}/{shard.name}.safetensors" for shard, _ in self.shards]

    def signals(self) -> list[str]:
        """What the models say about the audited samples."""
        return [self._signals(*asked) for asked in self.shards]

    def population_signals(self) -> list[str]:
        """What they say about the population."""
        return [self._signals(*asked) for asked in self.population]

    def _signals(self, shard: Shard, query: Query) -> str:
        return f"results/signals/{self.recipe.name}/{query.name}/{shard.name}.parquet"

    def canonical_json(self) -> str:
        """What the plan, scores, metrics and report need to know: one text."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "seed": self.seed,
                "dataset": self.audit.dataset,
                "recipe": self.recipe.name,
                "design": self.audit.design.model_dump(mode="json"),
                "shards": [shard_json(shard) for shard, _ in self.shards],
                "asked": [query.facts for query in sorted({*self.queries()}, key=lambda query: query.name)],
            }
        )

    def attack_json(self, attack_id: str) -> str:
        """One attack's validated options, defaults included."""
        entry = self.audit.attacks[attack_id]
        facts = {"id": attack_id, "name": entry["name"], "options": attack_options(entry).model_dump(mode="json")}
        facts["alpha"] = facts["options"].get("alpha", self.audit.decision_alpha)
        return provenance.canonical_json(facts | ({"references": entry["references"]} if "references" in entry else {}))

    def queries(self) -> list[Query]:
        return [query for _, query in (*self.shards, *self.population)]

    @property
    def is_pairs(self) -> bool:
        return isinstance(self.audit.design, Pairs)

    def wants_population(self, attack_id: str) -> bool:
        """Whether an attack compares with records outside every training set."""
        needs = getattr(attack_options(self.audit.attacks[attack_id]), "needs", None)
        return needs is not None and needs.population

    def is_direct(self, attack_id: str) -> bool:
        """Whether an attack sets its thresholds on the signal itself, so that no score is needed for them."""
        return self.audit.attacks[attack_id]["name"] == "single_point"

    def figures(self) -> list[str]:
        """The names of this audit's figures."""
        if isinstance(self.audit.design, Pairs):
            return ["overview", "training", *self.audit.design.targets.names()]
        return ["roc", "scores", "exposure", "training"]

    def page_json(self) -> str:
        """What the page says about how to run the audit again."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "entry": self.audit.model_dump(mode="json"),
                "recipe": self.recipe.recipe.model_dump(mode="json", include=OWN_TRAINER if self.recipe.recipe.trainer else None),
                "dataset": self.recipe.dataset.model_dump(mode="json"),
            }
        )

    def headline_json(self, allow_mixed: bool) -> str:
        """What is measured, as declared beforehand."""
        return provenance.canonical_json(
            {"headline": self.audit.headline_attack, "allow_mixed": allow_mixed, "epsilon": self.audit.epsilon.model_dump(mode="json")}
        )


def recipe_code(recipe: Recipe) -> dict[str, str]:
    """Digests of the user's code that makes the weights: of the architecture's file, and of the trainer's file or module."""
    found = plugin_code("architectures", recipe.architecture)
    if recipe.trainer is not None:
        try:
            found |= {"trainer_code": provenance.plugin_digest(plugins.source_of("trainers", recipe.trainer))}
        except SyntaxError as error:
            raise ValueError(f"{recipe.trainer}: it, or a file that it imports, is not Python: {error.msg} in line {error.lineno}; mend it") from None
    return found


def attack_code(name: str) -> str:
    """The digest of the code that scores an attack."""
    place, _ = plugins.locate("attacks", name)
    if place.endswith(".py"):
        return provenance.code_digest("memleak.attacks.stage") + plugin_code("attacks", name)["code"]
    return provenance.code_digest("memleak.attacks.stage", *([place] if place.startswith("memleak.") else []))


@dataclass(frozen=True)
class Plan:
    """All names that a params.yaml stands for."""

    params: Params
    datasets: dict[str, Dataset] = field(default_factory=dict)  # by directory name
    recipes: dict[str, PlannedRecipe] = field(default_factory=dict)  # by directory name
    shards: dict[tuple[str, str], Shard] = field(default_factory=dict)  # by (recipe, shard)
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
        shards = tuple(_pairs(audit.design, audit, params) if isinstance(audit.design, Pairs) else _pool(audit.design, audit, params))
        outside = Query("population", params.seed, audit.views, pool=audit.design.pool, n=audit.design.population)
        population = tuple((shard, outside) for shard, _ in shards) if audit.needs_population else ()
        plan.recipes[recipe.name] = recipe
        plan.audits[audit_id] = PlannedAudit(audit_id, audit, recipe, params.seed, shards, population)
        for shard, query in (*shards, *population):
            plan.shards[recipe.name, shard.name] = shard
            plan.queries[query.name] = query
    return plan


def _pool(design: Halves | Canaries, audit: Audit, params: Params) -> list[tuple[Shard, Query]]:
    """Every model answers about all samples of the pool, or about all canaries."""
    runs = [(first, min(first + params.models_per_shard, design.models)) for first in range(0, design.models, params.models_per_shard)]
    if isinstance(design, Halves):
        query = Query("pool", params.seed, audit.views, pool=design.pool)
        return [(Complements(params.seed, first, last, design.pool), query) for first, last in runs]
    query = Query("canaries", params.seed, audit.views, pool=design.pool, canaries=design.canaries, mislabelled=design.mislabelled)
    return [(Coins(params.seed, first, last, design.canaries, design.subset_size, design.mislabelled, design.pool), query) for first, last in runs]


def _pairs(design: Pairs, audit: Audit, params: Params) -> list[tuple[Shard, Query]]:
    """Base models answer about all targets of the audit, a target's own models about that target."""
    names = tuple(design.targets.names())
    found: list[tuple[Shard, Query]] = []
    for target in (None, *names):
        for role, n_rounds in (("fit", design.rounds), ("holdout", design.holdout_rounds)):
            for rounds in rounds_of(
                target, n_rounds, role, params.models_per_shard,
                subset_size=design.subset_size, seed=params.seed, pool=design.pool, neighbour=design.neighbour,
            ):  # fmt: skip
                asked = names if target is None else (target,)
                found.append((rounds, Query("targets", params.seed, audit.views, asked, design.pool)))
    return found
