"""One audit: its shards and who asks them what, and the text that each of its jobs is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from memleak import plugins, provenance
from memleak.designs import Shard, shard_json
from memleak.params import OWN_TRAINER, Audit, Dataset, Given, Imported, Pairs, attack_options, plugin_code
from memleak.plan.models import PlannedModel, PlannedRecipe, prepared_path
from memleak.plan.queries import Query, shots_of, step


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
    variant: tuple[str, str] | None = None  # the sweep that it is part of, and its label there

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
            shots=shots_of(self.audit.design, views),
            logits=True if "logits" in needs.signals else None,
            signals=tuple(step("signals", entry, column=column) for column, entry in own.items()),
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
        """The names of this audit's figures, the one that its page begins with first."""
        match self.audit.design:
            case Pairs() as design:
                return ["overview", "training", *design.targets.names()]
            case Given():
                return ["headline", "roc", "scores"]
            case Imported():
                return ["headline", "roc", "scores", "exposure"]
        return ["headline", "roc", "scores", "exposure", "training"]

    def page_json(self) -> str:
        """What the page says about how to run the audit again."""
        return provenance.canonical_json(
            {
                "audit": self.id,
                "entry": self.audit.model_dump(mode="json"),
                "recipe": self.recipe and self.recipe.recipe.model_dump(mode="json", include=OWN_TRAINER if self.recipe.recipe.trainer else None),
                "dataset": self.dataset and self.dataset.model_dump(mode="json", exclude_defaults=True),
                **({"sweep": dict(zip(("name", "label"), self.variant, strict=True))} if self.variant else {}),
            }
        )

    def headline_json(self, allow_mixed: bool) -> str:
        """What is measured, as declared beforehand."""
        known = {"headline": self.audit.headline_attack, "allow_mixed": allow_mixed, "epsilon": self._epsilon()}
        loosened = self.recipe.recipe.loosened_by if self.recipe and self.given is None else []
        return provenance.canonical_json(known | ({"loosened_by": loosened} if loosened else {}))

    def _epsilon(self) -> dict[str, Any]:
        """How the lower bound is claimed; where no delta was written, at that of the recipe's promise."""
        known, dp = self.audit.epsilon, self.recipe.recipe.dp if self.recipe else None
        return known.model_dump(mode="json") | ({"delta": dp.delta} if dp and "delta" not in known.model_fields_set else {})


def attack_code(name: str) -> str:
    """The digest of the code that scores an attack."""
    place, _ = plugins.locate("attacks", name)
    if place.endswith(".py"):
        return provenance.code_digest("memleak.attacks.stage") + plugin_code("attacks", name)["code"]
    return provenance.code_digest("memleak.attacks.stage", *([place] if place.startswith("memleak.") else []))
