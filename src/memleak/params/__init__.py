"""params.yaml as frozen models: the only place for defaults, ranges and cross-checks.

Every message names what was found, what was expected and what to do. Nothing here reads data or imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, Field, model_validator

from memleak import plugins
from memleak.params.base import Frozen, Id, ParamsError, Probability, plugin_code
from memleak.params.designs import (
    KINDS,
    REFERENCE_KINDS,
    Canaries,
    Design,
    Given,
    GivenModel,
    Halves,
    Imported,
    Pairs,
    ReferenceHalves,
    Shadows,
    Targets,
    check_sizes,
)
from memleak.params.recipes import IDLE, LOOP_NEEDS, OWN_TRAINER, PRESETS, Recipe, Training

__all__ = [
    "DECLARED_SIZES", "IDLE", "KINDS", "LOOP_NEEDS", "OWN_TRAINER", "PRESETS", "SIGNALS", "SIGNALS_VERSION", "TRAINING_VERSION", "VIEW", "Audit", "Canaries",
    "Dataset", "Design", "Epsilon", "Frozen", "Given", "GivenModel", "Halves", "Id", "Imported", "Pairs", "Params", "ParamsError", "Part", "Probability",
    "Recipe", "ReferenceHalves", "Shadows", "Targets", "Training", "attack_options", "check_sizes", "given_model_of", "load", "n_views", "parse", "plugin_code",
    "plugin_options", "recipe_of", "schema", "sentences", "training_files", "validate",
]  # fmt: skip

TRAINING_VERSION = 1  # raise by hand when the same recipe would give other weights
SIGNALS_VERSION = 1  # raise by hand when the same weights would give other signals
DECLARED_SIZES = {  # samples of the built-in data sets
    "digits": 1797, "cifar10": 50_000, "cifar100": 50_000, "adult": 48_842, "location30": 5010, "purchase100": 197_324, "texas100": 67_330,
}  # fmt: skip
SIGNALS = ("margin", "loss", "confidence", "entropy", "modified_entropy", "is_correct")  # what every model that gives logits tells
VIEW = r"^(identity|flip|shift-[1-9][0-9]?|flip-shift-[1-9][0-9]?|rotate-([1-9]|[1-3][0-9]|4[0-5]))$"  # a family of ways to show an image
N_OF_FAMILY = {"identity": 1, "flip": 1, "shift": 8, "flip-shift": 8, "rotate": 2}  # views that a family's name stands for


class Part(Frozen):
    """Where samples come from: a built-in name, or `file.py:function` of the user's."""

    name: str
    source: str | None = Field(None, description="`torchvision`, or a folder or file (relative to params.yaml)")
    n: int | None = Field(default=None, gt=0, description="declared number of samples; checked when the data is fetched")

    @model_validator(mode="after")
    def _exists(self) -> Part:
        plugins.locate("datasets", self.name)
        if self.source not in (None, "torchvision") and not Path(self.source).exists():
            raise ValueError(f"source: there is no file or folder '{self.source}' (looked in {os.getcwd()})")
        return self

    @property
    def declared_size(self) -> int | None:
        """Samples before any data is there: as declared, or those of a built-in data set from its own source."""
        return self.n or (DECLARED_SIZES.get(self.name) if self.source in (None, "torchvision") else None)

    def source_files(self) -> list[str]:
        """The local files that the data is read from, relative as `source` is."""
        if self.source in (None, "torchvision"):
            return []
        source = Path(self.source)
        return [str(file) for file in training_files(source) or sorted(file for file in source.rglob("*") if file.is_file())]

    def identity(self) -> dict[str, Any]:
        """What names the samples in digests: the declaration, and the code of a plug-in."""
        return self.model_dump(exclude_defaults=True) | plugin_code("datasets", self.name)


class Dataset(Frozen):
    """Records to audit or to train on: of one source, or of several parts one after the other."""

    name: str | None = Field(None, description="a built-in data set, or file.py:function")
    source: str | None = Field(None, description="`torchvision`, or a folder or file (relative to params.yaml)")
    n: int | None = Field(default=None, gt=0, description="declared number of samples; checked when the data is fetched")
    parts: dict[Id, Part] = Field({}, description="instead of name: several sources, such as members and non-members of a given model")
    unit: str | None = Field(None, description="column that says to whom a record belongs (a patient, a user): units are audited instead of records")

    @model_validator(mode="after")
    def _one_or_parts(self) -> Dataset:
        if self.parts and (self.name, self.source, self.n) != (None, None, None):
            raise ValueError("name, source and n belong to each of the parts; leave them out beside parts")
        if not self.parts and self.name is None:
            raise ValueError(
                "neither name nor parts is given; write for example {name: digits}, or parts: {members: {name: my_data.py:get_train}, ...}"
            )
        if not self.parts:
            _ = self.sources  # a part checks its name and source
        return self

    @property
    def sources(self) -> dict[str, Part]:
        """The sources in order; one without a name where there are no parts."""
        return self.parts or {"": Part(name=self.name or "", source=self.source, n=self.n)}

    @property
    def declared_size(self) -> int | None:
        """Samples before any data is there."""
        sizes = [part.declared_size for part in self.sources.values()]
        return sum(size for size in sizes if size) if all(sizes) else None

    def source_files(self) -> list[str]:
        """The local files that the data is read from, relative as `source` is."""
        return [file for part in self.sources.values() for file in part.source_files()]

    def declaration(self) -> dict[str, Any]:
        """What the job that prepares it is told; a new field changes nothing where it is not used."""
        return {"name": self.name, "source": self.source, "n": self.n} | self.model_dump(exclude_defaults=True)

    def identity(self) -> dict[str, Any]:
        """What names the data set in digests: the declaration, and the code of plug-ins."""
        known = self.model_dump(exclude_defaults=True)
        if not self.parts:
            return known | plugin_code("datasets", self.name or "")
        return known | {"parts": [{"part": name, **part.identity()} for name, part in self.parts.items()]}


class Epsilon(Frozen):
    """How a lower bound of epsilon is claimed: declared before it is measured."""

    delta: float = Field(default=1e-5, ge=0, lt=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    strategy: Literal["split", "bonferroni"] = Field(default="bonferroni", description="how the number of guesses is chosen in a one-run audit")


class Audit(Frozen):
    """A data set, a recipe, a design and the attacks that read its signals."""

    dataset: str | None = Field(None, description="a key of datasets; none where the models are imported")
    recipe: str | None = Field(None, description="a key of recipes; none where nothing is trained")
    design: Design
    views: tuple[Annotated[str, Field(pattern=VIEW)], ...] = Field(
        ("identity",),
        min_length=1,
        description="how records are shown: identity, flip, shift-N (8 moves by N pixels), flip-shift-N, rotate-N (by -N and N degrees)",
    )
    attacks: dict[Id, dict[str, Any]] = Field(min_length=1)
    signals: dict[Id, dict[str, Any]] = Field(
        {}, description="further signals for attacks to read, by column: name (built-in or file.py:function) and options"
    )
    release: tuple[dict[str, Any], ...] = Field((), description="steps that change the probabilities before anybody sees them: name (file.py:function) and options")
    headline: str | None = Field(None, description="the attack that the verdict reads (default: the first)")
    alpha: Probability | None = Field(
        None, description="false-positive rate of decisions, for attacks without one of their own (default: 0.05 for pairs, else 0.01)"
    )
    epsilon: Epsilon = Epsilon()
    include_records: bool = Field(False, description="show pictures of the most exposed records in the report")
    slices: tuple[str, ...] = Field((), description="columns of the data set, or label: the headline attack is measured within each of their values")

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
            self._check_needs(f"attacks.{attack_id}", options, entry.get("references"))
            self._check_signals(f"attacks.{attack_id}", options)
        for column, entry in self.signals.items():
            self._check_signal(f"signals.{column}", column, entry)
        for number, entry in enumerate(self.release):
            _check_plugin("releases", f"release.{number}", entry)
        self._check_keys()
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
        if needs is not None and needs.population and (lacking := _population_lacks(self.design)):
            raise ValueError(f"{where}: a population is needed, {lacking}")
        if isinstance(self.design, Pairs):
            if references is not None:
                raise ValueError(f"{where}.references: the fitting rounds are the references of a pairs audit; set design.rounds")
            return
        if isinstance(self.design, Imported):
            return  # how many models there are stands in the file
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
        known = {*SIGNALS, "logits", *self.signals, *(needs.measured if needs else ())}
        for name in needs.signals if needs else ():
            if name not in known:
                raise ValueError(f"{where}: no signal is called '{name}'{plugins.nearest(name, sorted(known))}; declare one of your own in signals")
        if needs is not None and isinstance(self.design, Given) and self.design.model.output == "labels":
            untold = [name for name in (*needs.signals, *needs.measured) if name in (*SIGNALS, "logits", "gradient_norm") and name != "is_correct"]
            if untold:
                raise ValueError(
                    f"{where}: {', '.join(dict.fromkeys(untold))} is needed, and the model gives labels only; "
                    "use threshold with signal: correctness, or label_only"
                )

    def _check_signal(self, where: str, column: str, entry: Mapping[str, Any]) -> None:
        if column in SIGNALS or column == "logits":
            raise ValueError(f"{where}: '{column}' is a signal that every model has; choose another name")
        _check_plugin("signals", where, entry)

    def _check_keys(self) -> None:
        """Refuse an audit that names a data set or recipe too many, or too few."""
        takes = {"dataset": not isinstance(self.design, Imported), "recipe": not isinstance(self.design, (Imported, Given))}
        if isinstance(self.design, Given):
            takes["recipe"] = self.design.references is not None
        for key, is_taken in takes.items():
            if is_taken and getattr(self, key) is None:
                raise ValueError(f"{key}: missing; name one of {key}s" + (", for the reference models" if self.design.kind == "given" else ""))
            if not is_taken and getattr(self, key) is not None:
                why = "models are imported" if isinstance(self.design, Imported) else "no reference model is trained"
                raise ValueError(
                    f"{key}: '{getattr(self, key)}' is given, and {why}; leave it out" + (", or set design.references" if key == "recipe" else "")
                )

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


class Params(Frozen):
    """The whole of params.yaml."""

    seed: int = Field(0, ge=0)
    datasets: dict[Id, Dataset] = Field({}, description="where records come from")
    recipes: dict[Id, Recipe] = Field({}, description="how models are trained: everything that changes a weight")
    audits: dict[Id, Audit] = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training: Training = Training()
    models_per_shard: int = Field(8, gt=0, description="models trained in one job")
    figures: bool = Field(True, description="draw figures for the report")
    allow_mixed: bool = Field(False, description="accept models of several devices or torch versions in one audit")

    @model_validator(mode="after")
    def _references_hold(self) -> Params:
        for audit_id, audit in self.audits.items():
            for what, key, known in (("dataset", audit.dataset, self.datasets), ("recipe", audit.recipe, self.recipes)):
                if key is not None and key not in known:
                    raise ValueError(f"audits.{audit_id}.{what}: no {what} is called '{key}'{plugins.nearest(key, list(known))}")
            if audit.dataset is None:
                continue
            if isinstance(audit.design, Given):
                _check_parts(f"audits.{audit_id}", audit.design, audit.dataset, self.datasets[audit.dataset])
            size = self.datasets[audit.dataset].declared_size
            if size is not None:
                check_sizes(f"audits.{audit_id}.design", audit.design, size)
        return self


def _check_plugin(room: str, where: str, entry: Mapping[str, Any]) -> None:
    """Refuse an entry that names no function of a room, or options that it does not have."""
    if "name" not in entry:
        raise ValueError(f"{where}: 'name' is missing{plugins.nearest('', list(plugins.installed(room)))}")
    try:
        plugin_options(room, entry)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{where}.{line}" for line in sentences(error))) from None
    except plugins.UnknownPlugin as error:
        raise ValueError(f"{where}.name: {error}") from None


def _population_lacks(design: Design) -> str | None:
    """Why a design has no records outside every training set; None where it has some."""
    match design:
        case Given() if design.population is None:
            return "and the design names none; set design.population to a part of records that no model was trained on"
        case Imported() if design.population is None:
            return "and the imported models were not asked about one; leave this attack out"
        case Pairs() | Halves() | Canaries() if design.pool is None:
            return "and the pool is the whole data set; set design.pool, so that records stay outside"
    return None


def _check_parts(where: str, design: Given, dataset_id: str, dataset: Dataset) -> None:
    if not dataset.parts:
        raise ValueError(
            f"{where}.dataset: '{dataset_id}' is one set; a given model takes a data set of parts: {{{design.members}: ..., {design.non_members}: ...}}"
        )
    for part in design.parts:
        if part not in dataset.parts:
            raise ValueError(f"{where}.design: '{dataset_id}' has no part '{part}'{plugins.nearest(part, list(dataset.parts))}")


def training_files(source: Path) -> list[Path]:
    """The file itself, or a folder's Parquet files: those called train*, or all where none is."""
    if source.is_file():
        return [source]
    files = sorted(source.glob("*.parquet"))
    return [file for file in files if file.name.startswith("train")] or files


def attack_options(entry: Mapping[str, Any]) -> BaseModel:
    """The validated `Options` of one attack's entry in params.yaml."""
    return plugin_options("attacks", {key: value for key, value in entry.items() if key != "references"})


def plugin_options(room: str, entry: Mapping[str, Any]) -> BaseModel:
    """The validated `Options` of a plug-in's entry, which stand beside its function."""
    options = {key: value for key, value in entry.items() if key != "name"}
    module = plugins.module_of(room, entry["name"])
    if not hasattr(module, "Options"):
        raise plugins.UnknownPlugin(
            f"'{entry['name']}': beside the function there is no `class Options(memleak.params.Frozen)`; add one, empty if there are none"
        )
    return module.Options(**options)


def sentences(error: pydantic.ValidationError) -> list[str]:
    """One sentence for each fault of a validation error."""
    lines = []
    for fault in error.errors():
        parts = [
            part
            for before, part in zip(("", *fault["loc"]), fault["loc"], strict=False)
            if not ((before == "design" and part in KINDS) or (before == "references" and part in REFERENCE_KINDS))
        ]
        place = ".".join(str(part) for part in parts)
        text = re.sub(r"^(Value error, |Input )", "", fault["msg"])
        given = fault.get("input")
        shown = f", found {given!r}" if fault["type"] not in ("value_error", "missing") and not isinstance(given, dict) else ""
        if fault["loc"][-1:] == ("[key]",) and isinstance(given, bool):
            place, text = (
                ".".join(place.split(".")[:-2]),
                "an id is text; YAML takes on, off, yes and no for truth values, so quote it or choose another",
            )
        if fault["type"].startswith("union_tag"):
            found = fault["ctx"].get("tag")
            known = REFERENCE_KINDS if fault["loc"][-1:] == ("references",) else KINDS
            what = "a kind of references" if known is REFERENCE_KINDS else "a design"
            text, shown = f"kind: {f'{found!r} is not {what}' if found else 'is missing'}{plugins.nearest(str(found or ''), list(known))}", ""
        if fault["type"] == "string_pattern_mismatch" and "views" in fault["loc"]:
            text = "a view is identity, flip, shift-N, flip-shift-N or rotate-N (1 to 45 degrees)"
        elif fault["type"] == "string_pattern_mismatch":
            text, shown = "an id has small letters, digits and '-' only, and begins with a letter or digit", f", found {given!r}"
        lines.append(f"{place}: {text}{shown}".removeprefix(": "))
    return lines


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data. Raises ParamsError with one sentence a fault."""
    try:
        return Recipe(**fields)
    except pydantic.ValidationError as error:
        raise ParamsError("\n".join(sentences(error))) from None


def n_views(families: Sequence[str]) -> int:
    """How often a record is shown to a model, in all views of some families."""
    return sum(N_OF_FAMILY[name.rstrip("0123456789").rstrip("-")] for name in families)


def given_model_of(fields: Mapping[str, Any]) -> GivenModel:
    """A given model from plain data. Raises ParamsError with one sentence a fault."""
    try:
        return GivenModel(**fields)
    except pydantic.ValidationError as error:
        raise ParamsError("\n".join(sentences(error))) from None


def validate(config: Mapping[str, Any], where: str = "params.yaml") -> Params:
    """Params from plain data. Raises ParamsError with one sentence a fault."""
    if not isinstance(config, Mapping):
        raise ParamsError(f"{where}: expected a mapping of keys, found {type(config).__name__}")
    try:
        return Params(**config)
    except pydantic.ValidationError as error:
        raise ParamsError("\n".join(f"{where}: {line}" for line in sentences(error))) from None
    except TypeError as error:  # keys that are not text
        raise ParamsError(f"{where}: {error}") from None


def parse(text: str, where: str) -> Params:
    """Params from the text of a YAML file."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"{where}: this is not YAML: {' '.join(str(error).split())}") from None
    return validate(config, where)


def load(path: str | os.PathLike[str]) -> Params:
    """Params from a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: there is no such file (looked in {os.getcwd()})") from None
    return parse(text, str(path))


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml, for editors (`workflow/schemas/params.schema.json`)."""
    whole = Params.model_json_schema()
    entries = []
    for name in plugins.BUILT_IN["attacks"]:
        options = plugins.module_of("attacks", name).Options.model_json_schema()
        shared = {"name": {"const": name}, "references": {"type": "integer", "description": "use so many of the reference models (default: all)"}}
        entries.append(options | {"title": name, "required": ["name"], "properties": {**shared, **options["properties"]}})
    whole["$defs"]["Audit"]["properties"]["attacks"]["patternProperties"] = {r"^[a-z0-9][a-z0-9-]*$": {"anyOf": entries}}
    recipe = whole["$defs"]["Recipe"]
    recipe["properties"]["preset"] = {"enum": list(PRESETS), "description": recipe["properties"]["preset"]["description"]}
    for name in LOOP_NEEDS:
        del recipe["properties"][name]["default"]
    recipe |= {
        "if": {"required": ["trainer"]},
        "then": {"required": ["architecture"], "properties": {name: False for name in recipe["properties"] if name not in OWN_TRAINER}},
        "else": {"if": {"not": {"required": ["preset"]}}, "then": {"required": [*recipe.pop("required"), *LOOP_NEEDS]}},
    }
    return whole | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "memleak params.yaml"}
