"""From params to the names of all that will be made: no data, no torch, milliseconds.

Every name is a function of declarations alone. A recipe's path holds a digest of all that changes a trained
weight; a shard's name holds its design, seed and range of rounds; neither depends on the audit that asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memleak import artefacts, plugins, provenance
from memleak.designs import Coins, Complements, Shard, Splits, rounds_of, shard_json
from memleak.params import (
    OWN_TRAINER,
    SIGNALS,
    SIGNALS_VERSION,
    TRAINING_VERSION,
    Audit,
    Canaries,
    Dataset,
    Design,
    Given,
    GivenModel,
    Halves,
    Imported,
    Pairs,
    Params,
    ParamsError,
    Recipe,
    ReferenceHalves,
    Shadows,
    attack_options,
    plugin_code,
    plugin_options,
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
class PlannedModel:
    """A model of the user's, asked about a data set."""

    dataset_id: str
    dataset: Dataset
    model: GivenModel

    @cached_property
    def name(self) -> str:
        """`resnet18-1a2b3c4d`: of the file that it lies in. The content of its weights reaches the job as an input."""
        place = self.model.weights or plugins.locate("models", self.model.name or "")[0]
        facts = {"dataset": self.dataset.identity(), "model": self.model.model_dump(mode="json", exclude_defaults=True)}
        code = plugin_code("models", self.model.name) if self.model.name else {}
        return f"{re.sub('[^a-z0-9]+', '-', Path(place).stem.lower()).strip('-') or 'model'}-{provenance.digest(facts | code)}"

    def files(self) -> list[str]:
        """The local files that it is made of."""
        is_code = self.model.name is not None and plugins.is_file("models", self.model.name)
        return ([self.model.weights] if self.model.weights else []) + (
            [plugins.locate("models", self.model.name)[0]] if is_code and self.model.name else []
        )

    def data_path(self) -> str:
        return prepared_path(self.dataset_id, self.dataset)

    def canonical_json(self) -> str:
        return provenance.canonical_json({"name": self.name, "model": self.model.model_dump(mode="json", exclude_defaults=True)})


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


@dataclass(frozen=True)
class PlannedAudit:
    """One audit: its shards, and the query that each of them answers; the user's model, or the file of imported ones."""

    id: str
    audit: Audit
    seed: int
    dataset_id: str | None
    dataset: Dataset | None
    recipe: PlannedRecipe | None  # of all models, or of a given one's references
    given: PlannedModel | None
    shards: tuple[tuple[Shard, Query], ...]
    query: Query | None  # of whoever is audited; None for `imported`
    outside: Query | None  # the same models, asked about the population; None where no attack wants it

    def models(self) -> list[str]:
        return [f"results/models/{self.recipe.name}/{shard.name}.safetensors" for shard, _ in self.shards if self.recipe]

    def signals(self, attack_id: str | None = None) -> list[str]:
        """What the models say about the audited samples: as the audit asks, or as one attack does."""
        if isinstance(self.audit.design, Imported):
            return [self.audit.design.source]
        return [self.answers(shard, self.asked_by(attack_id, query)) for shard, query in self._everybody(attack_id)]

    def population_signals(self, attack_id: str | None = None) -> list[str]:
        """What they say about the population; those alone that an attack compares."""
        if isinstance(self.audit.design, Imported):
            return [self.audit.design.population] if self.audit.design.population else []
        return [] if self.outside is None else [self.answers(shard, self.outside) for shard, _ in self._everybody(attack_id)]

    def _everybody(self, attack_id: str | None = None) -> list[tuple[Shard | None, Query]]:
        """The shards, and before them the given model (None), with what the audit asks them; that alone for an attack without references."""
        given: list[tuple[Shard | None, Query]] = [(None, self.query)] if self.given and self.query else []
        needs = getattr(attack_options(self.audit.attacks[attack_id]), "needs", None) if attack_id is not None else None
        return given if given and needs is not None and not needs.has_references else [*given, *self.shards]

    def answers(self, shard: Shard | None, query: Query) -> str:
        """Where a shard's answers to a query lie, or the given model's."""
        if shard is None:
            assert self.given is not None
            return f"results/signals/given/{self.given.name}/{query.name}.parquet"
        assert self.recipe is not None
        return f"results/signals/{self.recipe.name}/{query.name}/{shard.name}.parquet"

    def asked_by(self, attack_id: str | None, query: Query) -> Query:
        """What an attack asks: as the audit does, unless it wants views of its own or signals that not every model has."""
        needs = getattr(attack_options(self.audit.attacks[attack_id]), "needs", None) if attack_id is not None else None
        if needs is None:
            return query
        own = {**needs.measured, **{name: self.audit.signals[name] for name in needs.signals if name in self.audit.signals}}
        views = needs.views or (("identity",) if own else self.audit.views)  # each view of such a signal would take its queries again
        return replace(
            query,
            views=views,
            logits=True if "logits" in needs.signals else None,
            signals=tuple(_step("signals", entry, column=column) for column, entry in own.items()),
        )

    def data_path(self) -> str:
        """What the plan is drawn from: the description of the prepared data, or the imported file."""
        if isinstance(self.audit.design, Imported):
            return self.audit.design.source
        assert self.dataset_id is not None and self.dataset is not None
        return prepared_path(self.dataset_id, self.dataset)

    def names_of_models(self) -> list[str]:
        """The recipe of whatever is trained, and the given model."""
        return [planned.name for planned in (self.recipe, self.given) if planned]

    @property
    def subject(self) -> str:
        """What stands for the models in the plan: their recipe, or the given model."""
        return self.given.name if self.given else self.recipe.name if self.recipe else "imported"

    def canonical_json(self) -> str:
        """What the plan, scores, metrics and report need to know: one text."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "seed": self.seed,
                "dataset": self.audit.dataset,
                "recipe": self.subject,
                "design": self.audit.design.model_dump(mode="json"),
                "shards": [shard_json(shard) for shard, _ in self.shards],
                "asked": [query.facts for query in sorted({*self.queries()}, key=lambda query: query.name)],
                **({"slices": self.audit.slices} if self.audit.slices else {}),
                **({"references": self.recipe.name} if self.given and self.recipe else {}),
            }
        )

    def attack_json(self, attack_id: str) -> str:
        """One attack's validated options, defaults included."""
        entry = self.audit.attacks[attack_id]
        facts = {"id": attack_id, "name": entry["name"], "options": attack_options(entry).model_dump(mode="json")}
        facts["alpha"] = facts["options"].get("alpha", self.audit.decision_alpha)
        return provenance.canonical_json(facts | ({"references": entry["references"]} if "references" in entry else {}))

    def queries(self) -> list[Query]:
        """What is asked of all attacks together, and about the population."""
        return [*([self.query] if self.query else []), *(query for _, query in self.shards), *([self.outside] if self.outside else [])]

    def all_asked(self) -> list[tuple[Shard | None, Query]]:
        """Every query of a shard (None: of the given model) that some attack, or the audit, makes."""
        found: dict[tuple[Shard | None, Query], None] = {}
        for attack_id in (None, *self.audit.attacks):
            for shard, query in self._everybody(attack_id):
                found[shard, self.asked_by(attack_id, query)] = None
        for shard, _ in self._everybody() if self.outside else ():
            assert self.outside is not None
            found[shard, self.outside] = None
        return list(found)

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
        match self.audit.design:
            case Pairs() as design:
                return ["overview", "training", *design.targets.names()]
            case Given():
                return ["roc", "scores"]
            case Imported():
                return ["roc", "scores", "exposure"]
        return ["roc", "scores", "exposure", "training"]

    def page_json(self) -> str:
        """What the page says about how to run the audit again."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "entry": self.audit.model_dump(mode="json"),
                "recipe": self.recipe and self.recipe.recipe.model_dump(mode="json", include=OWN_TRAINER if self.recipe.recipe.trainer else None),
                "dataset": self.dataset and self.dataset.model_dump(mode="json", exclude_defaults=True),
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
    given: dict[str, PlannedModel] = field(default_factory=dict)  # by directory name
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
        planned = _audit(audit_id, audit, params)
        plan.audits[audit_id] = planned
        if planned.recipe is not None:
            plan.recipes[planned.recipe.name] = planned.recipe
        if planned.given is not None:
            plan.given[planned.given.name] = planned.given
        for shard, query in planned.all_asked():
            plan.queries[query.name] = query
            if shard is not None and planned.recipe is not None:
                plan.shards[planned.recipe.name, shard.name] = shard
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
            )  # fmt: skip
            shards = [(shard, query) for shard in _references(design, params)]
        case Imported():
            _check_imported(f"audits.{audit_id}", design, audit)
    outside = _population_query(design, audit, params) if audit.needs_population and not isinstance(design, Imported) else None
    release = tuple(_step("releases", entry) for entry in audit.release)
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


def _step(room: str, entry: Mapping[str, Any], **known: str) -> str:
    """A signal that takes queries of its own, or a step of the release: what its values depend on."""
    options = plugin_options(room, entry).model_dump(mode="json")
    return provenance.canonical_json({**known, "name": entry["name"], "options": options} | plugin_code(room, entry["name"]))


def _population_query(design: Design, audit: Audit, params: Params) -> Query:
    if isinstance(design, Given) and design.population is not None:
        return Query("population", params.seed, audit.views, parts=(design.population,))
    assert isinstance(design, (Pairs, Halves, Canaries))
    return Query("population", params.seed, audit.views, pool=design.pool, n=design.population)


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
    return Query("canaries", params.seed, audit.views, pool=design.pool, canaries=design.canaries, mislabelled=design.mislabelled)


def _pool(design: Halves | Canaries, params: Params) -> list[Shard]:
    runs = _runs(design.models, params.models_per_shard)
    if isinstance(design, Halves):
        return [Complements(params.seed, first, last, design.pool) for first, last in runs]
    return [Coins(params.seed, first, last, design.canaries, design.subset_size, design.mislabelled, design.pool) for first, last in runs]


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
