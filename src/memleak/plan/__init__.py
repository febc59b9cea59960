"""From params to the names of all that will be made: no data, no torch, milliseconds.

Every name is a function of declarations alone. A recipe's path holds a digest of all that changes a trained
weight; a shard's name holds its design, seed and range of rounds; neither depends on the audit that asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from memleak import artefacts
from memleak.designs import Coins, Complements, Shard, Splits, rounds_of
from memleak.params import (
    SIGNALS,
    Audit,
    Canaries,
    Dataset,
    Design,
    Given,
    Halves,
    Imported,
    Pairs,
    Params,
    ParamsError,
    ReferenceHalves,
    Shadows,
    attack_options,
)
from memleak.plan.audits import PlannedAudit, attack_code
from memleak.plan.models import PlannedModel, PlannedRecipe, prepared_name, prepared_path, recipe_code
from memleak.plan.queries import Query, shots_of, step
from memleak.plan.sweeps import PlannedSweep

__all__ = [
    "Plan", "PlannedAudit", "PlannedModel", "PlannedRecipe", "PlannedSweep", "Query", "attack_code", "build", "prepared_name", "prepared_path", "recipe_code", "step",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All names that a params.yaml stands for."""

    params: Params
    datasets: dict[str, Dataset] = field(default_factory=dict)  # by directory name
    recipes: dict[str, PlannedRecipe] = field(default_factory=dict)  # by directory name
    given: dict[str, PlannedModel] = field(default_factory=dict)  # by directory name
    shards: dict[tuple[str, str], Shard] = field(default_factory=dict)  # by (recipe, shard)
    queries: dict[str, Query] = field(default_factory=dict)
    audits: dict[str, PlannedAudit] = field(default_factory=dict)
    sweeps: dict[str, PlannedSweep] = field(default_factory=dict)

    def dataset_path(self, recipe: str) -> str:
        """The description of the prepared data that a recipe trains on."""
        return prepared_path(self.recipes[recipe].dataset_id, self.recipes[recipe].dataset)

    def models(self) -> list[str]:
        return sorted({path for audit in self.audits.values() for path in audit.models()})


def build(params: Params) -> Plan:
    """Expand params into recipes, shards and queries."""
    plan = Plan(params)
    for dataset_id, dataset in params.datasets.items():
        plan.datasets[prepared_name(dataset_id, dataset)] = dataset
    variant_of = {variant.audit: (sweep_id, label) for sweep_id, variants in params.sweeps.items() for label, variant in variants.items()}
    for audit_id, audit in params.audits.items():
        planned = replace(_audit(audit_id, audit, params), variant=variant_of.get(audit_id))
        plan.audits[audit_id] = planned
        if planned.recipe is not None:
            plan.recipes[planned.recipe.name] = planned.recipe
        if planned.given is not None:
            plan.given[planned.given.name] = planned.given
        for shard, query in planned.all_asked():
            plan.queries[query.name] = query
            if shard is not None and planned.recipe is not None:
                plan.shards[planned.recipe.name, shard.name] = shard
    for sweep_id, variants in params.sweeps.items():
        audits = {label: plan.audits[variant.audit] for label, variant in variants.items()}
        plan.sweeps[sweep_id] = PlannedSweep(sweep_id, variants, audits)
    return plan


def _audit(audit_id: str, audit: Audit, params: Params) -> PlannedAudit:
    design, dataset = audit.design, params.datasets[audit.dataset] if audit.dataset else None
    recipe = PlannedRecipe(audit.recipe, audit.dataset, dataset, params.recipes[audit.recipe]) if audit.recipe and audit.dataset and dataset else None
    given, query, shards = None, None, []
    match design:
        case Pairs():
            shards = _pairs(design, audit, params)
        case Halves() | Canaries():
            query = _pool_query(design, audit, params)
            shards = [(shard, query) for shard in _pool(design, params)]
        case Given() if audit.dataset and dataset:
            given = PlannedModel(audit.dataset, dataset, design.model)
            query = Query(
                "given", params.seed, audit.views, members=design.members, non_members=design.non_members,
                others=design.references.pool if design.references else (), overlap=design.overlap, sample=design.sample,
                shots=shots_of(design, audit.views),
            )  # fmt: skip
            shards = [(shard, query) for shard in _references(design, params)]
        case Imported():
            _check_imported(f"audits.{audit_id}", design, audit)
    outside = _population_query(design, audit, params, recipe) if audit.needs_population and not isinstance(design, Imported) else None
    release = tuple(step("releases", entry) for entry in audit.release)
    shards = [(shard, replace(asked, release=release)) for shard, asked in shards]
    query, outside = (asked and replace(asked, release=release) for asked in (query, outside))
    return PlannedAudit(audit_id, audit, params.seed, audit.dataset, dataset, recipe, given, tuple(shards), query, outside)


def _check_imported(where: str, design: Imported, audit: Audit) -> None:
    """Refuse what the file of imported models cannot give: more targets or references than it has, and signals that it lacks."""
    facts, columns = artefacts.read_facts(design.source), artefacts.columns_of(design.source)
    if "samples" not in facts:
        raise ParamsError(f"{where}.design.source: {design.source} holds no imported run; `memleak import` writes one")
    units, n_targets = [model["round"] for model in facts["models"]], sum(model["is_target"] for model in facts["models"])
    if design.targets is not None and design.targets > n_targets:
        raise ParamsError(f"{where}.design.targets: {design.targets} asked for, {design.source} has {n_targets} models to audit; lower targets")
    there = len(units) - max(units.count(unit) for unit in set(units))  # whoever the target is
    for attack_id, entry in audit.attacks.items():
        if entry.get("references", 0) > there:
            raise ParamsError(
                f"{where}.attacks.{attack_id}.references: {entry['references']} asked for, each target has {there} of the {len(units)} imported models; "
                "lower references"
            )
        needs = getattr(attack_options(entry), "needs", None)
        absent = [name for name in (SIGNALS if needs is None else needs.signals) if name not in columns]
        if absent:
            say = "" if needs is not None else ", or let `needs` of its Options say what it reads"
            raise ParamsError(
                f"{where}.attacks.{attack_id}: reads {', '.join(absent)}, and {design.source} holds {' and '.join(sorted(columns & {*SIGNALS, 'logits'}))} alone; "
                f"import logits and labels, or leave this attack out{say}"
            )


def _population_query(design: Design, audit: Audit, params: Params, recipe: PlannedRecipe | None) -> Query:
    if isinstance(design, Given) and design.population is not None:
        return Query("population", params.seed, audit.views, parts=(design.population,), shots=shots_of(design, audit.views))
    assert isinstance(design, (Pairs, Halves, Canaries))
    reserve = (recipe.recipe.reserve or None) if recipe else None
    return Query("population", params.seed, audit.views, pool=design.pool, n=design.population, reserve=reserve)


def _runs(n_models: int, per_shard: int) -> list[tuple[int, int]]:
    return [(first, min(first + per_shard, n_models)) for first in range(0, n_models, per_shard)]


def _references(design: Given, params: Params) -> list[Shard]:
    """The reference models of a given one."""
    match design.references:
        case Shadows(models=n, parts=parts, train=train, out=out):
            return [Splits(params.seed, first, last, parts, train, out) for first, last in _runs(n, params.models_per_shard)]
        case ReferenceHalves(models=n):
            parts = (design.members, design.non_members)
            return [Complements(params.seed, first, last, None, parts) for first, last in _runs(n, params.models_per_shard)]
    return []


def _pool_query(design: Halves | Canaries, audit: Audit, params: Params) -> Query:
    """Every model answers about all samples of the pool, or about all canaries."""
    if isinstance(design, Halves):
        return Query("pool", params.seed, audit.views, pool=design.pool)
    known = {"space": "gradient"} if design.space == "gradient" else {"mislabelled": design.mislabelled}
    return Query("canaries", params.seed, audit.views, pool=design.pool, canaries=design.canaries, **known)


def _pool(design: Halves | Canaries, params: Params) -> list[Shard]:
    runs = _runs(design.models, params.models_per_shard)
    if isinstance(design, Halves):
        return [Complements(params.seed, first, last, design.pool) for first, last in runs]
    space = None if design.space == "input" else design.space
    return [Coins(params.seed, first, last, design.canaries, design.subset_size, design.mislabelled, design.pool, space) for first, last in runs]


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
