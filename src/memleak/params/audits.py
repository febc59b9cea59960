"""One audit: data, recipe, design and attacks, and whether they go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, Field, model_validator

from memleak import plugins
from memleak.params import releases
from memleak.params.base import Frozen, Id, Probability
from memleak.params.designs import Canaries, Design, Given, Halves, Imported, Pairs, ReferenceHalves, Shadows
from memleak.params.options import attack_options, check_plugin, sentences
from memleak.params.sweeps import Sweep
from memleak.params.texts import TEXT_SIGNALS, TOKEN_SIGNALS

SIGNALS = ("margin", "loss", "confidence", "entropy", "modified_entropy", "is_correct")  # what every model that gives logits tells
ALIGNMENT = "alignment"  # what is known of canaries that are gradients, and of nothing else
OF_IMAGES = r"flip|shift-[1-9][0-9]?|flip-shift-[1-9][0-9]?|rotate-([1-9]|[1-3][0-9]|4[0-5])"
OF_TEXTS = r"lowercase|neighbours-[1-9][0-9]?|prefix-[1-9]"
VIEW = rf"^(identity|{OF_IMAGES}|{OF_TEXTS})$"  # a family of ways to show a record
N_OF_FAMILY = {
    "identity": 1,
    "flip": 1,
    "shift": 8,
    "flip-shift": 8,
    "rotate": 2,
    "lowercase": 1,
    "prefix": 1,
}  # views that a family's name stands for


class Epsilon(Frozen):
    """How a lower bound of epsilon is claimed: declared before it is measured."""

    delta: float = Field(default=1e-5, ge=0, lt=1, description="the bound is one of (epsilon, delta) privacy")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="with which the bound holds")
    claimed: float | None = Field(
        default=None,
        gt=0,
        description="what the training promises at this delta, which the bound is held against (default: what dp's accountant says)",
    )
    strategy: Literal["split", "bonferroni"] = Field(default="bonferroni", description="how the number of guesses is chosen in a one-run audit")


class Audit(Frozen):
    """A data set, a recipe, a design and the attacks that read its signals."""

    dataset: str | None = Field(None, description="a key of datasets; none where the models are imported")
    recipe: str | None = Field(None, description="a key of recipes; none where nothing is trained")
    design: Design = Field(description="how it is drawn who trains on what")
    views: tuple[Annotated[str, Field(pattern=VIEW)], ...] = Field(
        ("identity",),
        min_length=1,
        description="how records are shown: identity, flip, shift-N (8 moves by N pixels), flip-shift-N, rotate-N (by -N and N degrees); of texts identity, lowercase, neighbours-N (N copies with words exchanged), prefix-N (after N texts of the population)",
    )
    attacks: dict[Id, dict[str, Any]] = Field(min_length=1, description="by an id of yours: name (built-in or file.py:function) and options")
    signals: dict[Id, dict[str, Any]] = Field(
        {}, description="further signals for attacks to read, by column: name (built-in or file.py:function) and options"
    )
    release: tuple[dict[str, Any], ...] = Field(
        (),
        description="steps that change the probabilities before anybody sees them, such as {top_k: 3}, {round: 2}, labels, or name (file.py:function) and options",
    )
    sweep: Sweep | None = Field(
        None, description="repeat the audit with other recipes and releases, and compare what they cost and what they protect"
    )
    headline: str | None = Field(None, description="the attack that the verdict reads (default: the first)")
    alpha: Probability | None = Field(
        None, description="false-positive rate of decisions, for attacks without one of their own (default: 0.05 for pairs, else 0.01)"
    )
    epsilon: Epsilon = Field(Epsilon(), description="how a lower bound of epsilon is claimed; of the designs pairs and canaries")
    include_records: bool = Field(False, description="show pictures of the most exposed records in the report")
    slices: tuple[str, ...] = Field((), description="columns of the data set, or label: the headline attack is measured within each of their values")

    @model_validator(mode="before")
    @classmethod
    def _steps_are_written_out(cls, value: Any) -> Any:
        return {**value, "release": releases.written_out(value["release"])} if isinstance(value, Mapping) and "release" in value else value

    @model_validator(mode="after")
    def _slices_are_some(self) -> Audit:
        if self.slices and isinstance(self.design, Pairs):
            raise ValueError("slices: an audit of pairs has a few records, none of its slices enough; leave slices out, or use the design halves")
        if len(set(self.slices)) < len(self.slices):
            raise ValueError(f"slices: {list(self.slices)} names a column twice")
        return self

    @model_validator(mode="after")
    def _attacks_are_known(self) -> Audit:
        for attack_id, entry in self.attacks.items():
            if "name" not in entry:
                raise ValueError(f"attacks.{attack_id}: 'name' is missing{plugins.nearest('', list(plugins.BUILT_IN['attacks']))}")
            if entry["name"] == "single_point" and not isinstance(self.design, Pairs):
                raise ValueError(f"attacks.{attack_id}.name: single_point is an attack of the design pairs; here lira tells most, or rmia")
            try:
                options = attack_options(entry)
            except pydantic.ValidationError as error:
                raise ValueError("; ".join(f"attacks.{attack_id}.{line}" for line in sentences(error))) from None
            except plugins.UnknownPlugin as error:
                raise ValueError(f"attacks.{attack_id}.name: {error}") from None
            if self._has_gradients:
                _check_alignment(f"attacks.{attack_id}", options)
            else:
                self._check_signals(f"attacks.{attack_id}", options)
            self._check_needs(f"attacks.{attack_id}", options, entry.get("references"))
        for column, entry in self.signals.items():
            self._check_signal(f"signals.{column}", column, entry)
        for number, entry in enumerate(self.release):
            check_plugin("releases", f"release.{number}", entry)
        self._check_release()
        self._check_keys()
        self._check_gradients()
        self._check_claim()
        if "identity" not in self.views and isinstance(self.design, Pairs):
            raise ValueError("views: 'identity' must be among them in a pairs audit")
        if self.headline is not None and self.headline not in self.attacks:
            raise ValueError(f"headline: no attack is called '{self.headline}'{plugins.nearest(self.headline, list(self.attacks))}")
        return self

    def _check_needs(self, where: str, options: BaseModel, references: Any) -> None:
        """Refuse more references than the design trains, and attacks that ask for more than it can give."""
        if references is not None and (isinstance(references, bool) or not isinstance(references, int) or references < 1):
            raise ValueError(f"{where}.references: expected a number of models, found {references!r}")
        needs = getattr(options, "needs", None)
        if needs is not None and needs.fits and isinstance(self.design, Pairs):
            raise ValueError(f"{where}: it fits a rule over many records, and a pairs audit is about one at a time; use the design halves")
        if needs is not None and needs.population and (lacking := population_lacks(self.design)):
            raise ValueError(f"{where}: a population is needed, {lacking}")
        if isinstance(self.design, Pairs):
            if references is not None:
                raise ValueError(f"{where}.references: the fitting rounds are the references of a pairs audit; set design.rounds")
            return
        if isinstance(self.design, Imported):  # how many models there are, and what they said, stands in the file
            if needs is not None and (asks := [*needs.views, *needs.measured]):
                raise ValueError(
                    f"{where}: it asks models itself ({', '.join(asks)}), and imported ones cannot be asked again; leave this attack out"
                )
            return
        there = self.design.n_references
        if references is not None and references > there:
            raise ValueError(
                f"{where}.references: {references} asked for, each target has {there} of the design's {self.design.models} models; add models"
            )
        in_twos = isinstance(self.design.references if isinstance(self.design, Given) else self.design, (Halves, ReferenceHalves))
        if references is not None and in_twos and references % 2:
            raise ValueError(f"{where}.references: {references} asked for; models come in complementary twos, so give an even number")
        if needs is None:
            return
        if isinstance(self.design, Given) and needs.inside and isinstance(self.design.references, Shadows):
            raise ValueError(
                f"{where}: references that trained on the audited records are needed, and shadow models train on others; use mode: offline, or references: {{kind: halves}}"
            )
        of_kinds = 2 * max(needs.inside, needs.outside) if in_twos else needs.inside + needs.outside
        least = max(of_kinds, needs.references)
        if (there if references is None else references) < least:
            raise ValueError(
                f"{where}: {least} reference models are needed, each target has {there if references is None else references}; add models"
            )

    def _check_signals(self, where: str, options: BaseModel) -> None:
        """Refuse attacks that read what is neither a signal of ours nor declared, or what a given model does not tell."""
        needs = getattr(options, "needs", None)
        known = {*SIGNALS, *TOKEN_SIGNALS, *TEXT_SIGNALS, "logits", *self.signals, *(needs.measured if needs else ())}
        for name in needs.signals if needs else ():
            if name == ALIGNMENT and name not in known:
                raise ValueError(f"{where}: {ALIGNMENT} is known of canaries that are gradients alone; use the design canaries with space: gradient")
            if name not in known:
                raise ValueError(f"{where}: no signal is called '{name}'{plugins.nearest(name, sorted(known))}; declare one of your own in signals")
        if needs is not None and isinstance(self.design, Given) and self.design.model.output == "labels":
            untold = [name for name in (*needs.signals, *needs.measured) if name in (*SIGNALS, "logits", "gradient_norm") and name != "is_correct"]
            if untold:
                raise ValueError(
                    f"{where}: {', '.join(dict.fromkeys(untold))} is needed, and the model gives labels only; "
                    "use threshold with signal: correctness, or label_only"
                )

    def _check_release(self) -> None:
        """Refuse steps that change nothing, and attacks that read what is not released."""
        releases.check_order(self.release)
        if isinstance(self.design, Given) and self.design.model.output == "labels" and any(step["name"] != "labels" for step in self.release):
            raise ValueError(
                f"release: {self.release[0]['name']} changes probabilities, and the model gives labels only; leave it out, or use labels"
            )
        for attack_id, entry in self.attacks.items():
            if (needs := getattr(attack_options(entry), "needs", None)) is not None:
                own = [self.signals[name]["name"] for name in needs.signals if name in self.signals]
                releases.check_reader(f"attacks.{attack_id}", self.release, entry["name"], (*needs.signals, *needs.measured, *own))

    def _check_signal(self, where: str, column: str, entry: Mapping[str, Any]) -> None:
        if column in (*SIGNALS, "logits", ALIGNMENT):
            raise ValueError(f"{where}: '{column}' is a signal that every model has; choose another name")
        check_plugin("signals", where, entry)

    @property
    def _has_gradients(self) -> bool:
        return isinstance(self.design, Canaries) and self.design.space == "gradient"

    def _check_gradients(self) -> None:
        """Refuse, of canaries that are gradients, what takes records that a model is asked about."""
        for key, default in (("views", ("identity",)), ("signals", {}), ("release", ()), ("include_records", False), ("slices", ())):
            if self._has_gradients and getattr(self, key) != default:
                raise ValueError(f"{key}: is set, and canaries that are gradients are shown to no model; leave it out, or use space: input")

    def _check_claim(self) -> None:
        """Refuse a claim that no bound of this design could be held against."""
        if self.epsilon.claimed is None:
            return
        if not isinstance(self.design, (Pairs, Canaries)):
            raise ValueError(
                f"epsilon.claimed: the design {self.design.kind} gives no lower bound to hold against it; leave it out, or use canaries or pairs"
            )
        if isinstance(self.design, Pairs) and self.design.neighbour == "replace":
            raise ValueError(
                "epsilon.claimed: a claim is about a record more or less, and neighbour: replace makes two changes; leave it out, or use neighbour: add"
            )

    def _check_keys(self) -> None:
        """Refuse an audit that names a data set or recipe too many, or too few."""
        takes = {"dataset": not isinstance(self.design, Imported), "recipe": not isinstance(self.design, (Imported, Given))}
        if isinstance(self.design, Given):
            takes["recipe"] = self.design.references is not None
        if isinstance(self.design, Imported):
            self._check_imported_keys()
        for key, is_taken in takes.items():
            if is_taken and getattr(self, key) is None:
                raise ValueError(f"{key}: missing; name one of {key}s" + (", for the reference models" if self.design.kind == "given" else ""))
            if not is_taken and getattr(self, key) is not None:
                why = "models are imported" if isinstance(self.design, Imported) else "no reference model is trained"
                raise ValueError(
                    f"{key}: '{getattr(self, key)}' is given, and {why}; leave it out" + (", or set design.references" if key == "recipe" else "")
                )

    def _check_imported_keys(self) -> None:
        """Refuse what takes models that can be asked, or the records themselves."""
        for key, default, why in (
            ("views", ("identity",), "imported models were asked already"), ("signals", {}, "imported models were asked already"),
            ("release", (), "imported models were asked already"), ("include_records", False, "the records were not imported"),
        ):  # fmt: skip
            if getattr(self, key) != default:
                raise ValueError(f"{key}: is set, and {why}; leave it out")
        if columns := [column for column in self.slices if column != "label"]:
            raise ValueError(f"slices: {', '.join(columns)} asked for, and of imported records nothing but the label is known; leave them out")

    @property
    def needs_population(self) -> bool:
        """Whether some attack compares with records outside every training set."""
        needs = (getattr(attack_options(entry), "needs", None) for entry in self.attacks.values())
        return any(found is not None and found.population for found in needs)

    @property
    def headline_attack(self) -> str:
        return self.headline or next(iter(self.attacks))

    @property
    def decision_alpha(self) -> float:
        """False-positive rate of the decisions of attacks that have none of their own."""
        return self.alpha or (0.05 if isinstance(self.design, Pairs) else 0.01)


def _check_alignment(where: str, options: BaseModel) -> None:
    """Refuse attacks on canaries that are gradients which read more than is known of those."""
    needs = getattr(options, "needs", None)
    if needs is None or needs.signals != (ALIGNMENT,) or needs.measured or needs.population:
        read = "every signal" if needs is None else ", ".join(dict.fromkeys((*needs.signals, *needs.measured))) or "no signal"
        raise ValueError(
            f"{where}: it reads {read}, and of canaries that are gradients {ALIGNMENT} alone is known; "
            f"use {{name: threshold, signal: {ALIGNMENT}}}, or space: input"
        )


def population_lacks(design: Design) -> str | None:
    """Why a design has no records outside every training set; None where it has some."""
    match design:
        case Given() if design.population is None:
            return "and the design names none; set design.population to a part of records that no model was trained on"
        case Imported() if design.population is None:
            return "and the imported models were not asked about one; leave this attack out"
        case Pairs() | Halves() | Canaries() if design.pool is None:
            return "and the pool is the whole data set; set design.pool, so that records stay outside"
    return None


def n_views(families: Sequence[str]) -> int:
    """How often a record is shown to a model, in all views of some families."""
    return sum(N_OF_FAMILY.get(name.rstrip("0123456789").rstrip("-")) or int(name.rpartition("-")[2]) for name in families)  # neighbours-5: five
