"""params.yaml as frozen models: the only place for defaults, ranges and cross-checks.

Every message names what was found, what was expected and what to do. Nothing here reads data or imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import InitErrorDetails

from memleak import plugins, provenance

TRAINING_VERSION = 1  # raise by hand when the same recipe would give other weights
SIGNALS_VERSION = 1  # raise by hand when the same weights would give other signals
DECLARED_SIZES = {  # samples of the built-in data sets
    "digits": 1797, "cifar10": 50_000, "cifar100": 50_000, "adult": 48_842, "location30": 5010, "purchase100": 197_324, "texas100": 67_330,
}  # fmt: skip
IDLE = {  # fields that change nothing in an architecture of fixed shape
    "fast_cnn": {"hidden"}, "mlp": {"channels", "normalisation"}, "resnet18": {"channels", "hidden"}, "wide_resnet28_2": {"channels", "hidden"},
}  # fmt: skip
LOOP_NEEDS = ("epochs", "batch_size", "learning_rate")  # without a default, but unknown to a trainer of the user's
OWN_TRAINER = {  # fields of a recipe with a trainer of the user's
    "trainer", "trainer_options", "architecture", "channels", "hidden", "normalisation", "dropout", "precision",
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    # Frozen: a recipe that names a preset is digested field by field, so a changed number here would train anew, and without
    # a word, all models of everybody who chose it. Add a preset of another name instead.
    "digits-cnn": {
        "architecture": "small_cnn", "channels": [16, 32], "hidden": [64], "epochs": 40, "batch_size": 64, "learning_rate": 0.05,
    },
    "digits-mlp": {"architecture": "mlp", "hidden": [64], "epochs": 40, "batch_size": 64, "learning_rate": 0.1},
    "cifar-cnn": {  # nothing that hides what was memorised: no augmentation, no dropout
        "architecture": "small_cnn", "channels": [32, 64, 128], "hidden": [], "epochs": 12, "batch_size": 32,
        "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.05, "schedule": "one_cycle",
    },
    "cifar-fast": {  # few epochs over all of CIFAR
        "architecture": "fast_cnn", "channels": [64, 256, 256], "epochs": 12, "batch_size": 512,
        "learning_rate": 0.4, "weight_decay": 0.0005, "schedule": "one_cycle", "warmup": 0.2, "label_smoothing": 0.2, "flip": True, "shift": 2,
    },
    "cifar-resnet18": {
        "architecture": "resnet18", "epochs": 100, "batch_size": 128,
        "learning_rate": 0.1, "weight_decay": 0.0005, "schedule": "cosine", "flip": True, "shift": 4,
    },
    "cifar-wide-resnet": {
        "architecture": "wide_resnet28_2", "epochs": 100, "batch_size": 128,
        "learning_rate": 0.1, "weight_decay": 0.0005, "schedule": "cosine", "flip": True, "shift": 4,
    },
    "table-mlp": {"architecture": "mlp", "hidden": [256], "epochs": 30, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.001},
}  # fmt: skip

KINDS = ("pairs", "halves", "canaries")  # of designs
VIEW = r"^(identity|flip|shift-[1-9][0-9]?|flip-shift-[1-9][0-9]?)$"  # a family of ways to show an image

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Probability = Annotated[float, Field(gt=0, lt=1)]


class ParamsError(ValueError):
    """params.yaml says something that cannot be done; the text is one sentence a fault."""


class Frozen(BaseModel):
    """A part of params.yaml: immutable, and a key that it does not know is an error naming the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            known = list(cls.model_fields)
            for key in value:
                if key not in known:
                    raise ValueError(f"unknown key '{key}'{plugins.nearest(str(key), known)}")
        return value


class Dataset(Frozen):
    """Where samples come from: a built-in name, or `file.py:function` of the user's."""

    name: str
    source: str | None = Field(None, description="`torchvision`, or a folder or file (relative to params.yaml)")
    n: int | None = Field(None, gt=0, description="declared number of samples; checked when the data is fetched")

    @model_validator(mode="after")
    def _exists(self) -> Dataset:
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
        """What names the data set in digests: the declaration, and the code of a plug-in."""
        return self.model_dump(exclude_defaults=True) | plugin_code("datasets", self.name)


class Recipe(Frozen):
    """Everything that changes a trained weight, but for the data.

    A `preset` is resolved while it is read: what is left are plain fields, and no trace of the preset's name. With a
    `trainer` of the user's only the fields that shape the network remain, and its options: what it never sees is refused.
    """

    preset: str | None = Field(None, exclude=True, description="begin with the fields of a named recipe; those written beside it come first")
    architecture: str
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field((32, 64, 128), description="of convolutional blocks")
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field((128,), description="widths of the fully connected layers")
    normalisation: Literal["none", "batch", "group"] = "batch"
    dropout: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(0, gt=0)  # 0, like the next and the learning rate: none, since the user's own trainer trains
    batch_size: int = Field(0, gt=0)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.0, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD, with Nesterov's correction")
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of a step's gradient")
    flip: bool = Field(False, description="augmentation: mirror left to right with probability 1/2")
    shift: int = Field(0, ge=0, description="augmentation: move by up to so many pixels, zeros come in")
    cutout: int = Field(0, ge=0, description="augmentation: erase a square of so many pixels a side, with the mean colour")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a step: the model is this moving average of its weights")
    precision: Literal["float32", "float64", "tf32", "bfloat16", "float16"] = Field(
        "float32", description="of the matrix products; weights stay float32 with tf32, bfloat16 and float16"
    )
    compile: bool = Field(False, description="compile the training step (torch.compile)")
    trainer: str | None = Field(None, description="trains in memleak's place: `file.py:function`, (data, indices, seed, device) -> state_dict")
    trainer_options: dict[str, JsonValue] = Field({}, description="further keyword arguments of the trainer")

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, value: Any) -> Any:
        """The preset's fields, but for those that are written beside it, or that the chosen architecture does not read."""
        if not isinstance(value, Mapping) or value.get("preset") is None:
            return value
        name, written = value["preset"], {key: given for key, given in value.items() if key != "preset"}
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"preset: no preset is called '{name}'{plugins.nearest(str(name), list(PRESETS))}")
        idle = IDLE.get(str(written.get("architecture", PRESETS[name]["architecture"])), set())
        return {key: given for key, given in PRESETS[name].items() if key not in idle} | written

    @model_validator(mode="before")
    @classmethod
    def _refuse_a_preset_beside_a_trainer(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and None not in (value.get("trainer"), value.get("preset")):
            raise ValueError(f"preset: a preset says how memleak trains, and here {value['trainer']} does; leave one of them out")
        return value

    @property
    def weight_dtype(self) -> Literal["float32", "float64"]:
        """The type that weights and inputs are kept in; the others round matrix products alone."""
        return "float64" if self.precision == "float64" else "float32"

    @model_validator(mode="after")
    def _known_architecture(self) -> Recipe:
        plugins.locate("architectures", self.architecture)
        idle = IDLE.get(self.architecture, set()) & self.model_fields_set
        if idle:
            raise ValueError(f"{min(idle)}: this changes nothing in {self.architecture}; leave it out")
        return self

    @model_validator(mode="after")
    def _somebody_trains(self) -> Recipe:
        """Our loop has the numbers that it needs, or a trainer of the user's has none that it would never see."""
        if self.trainer is not None:
            self._check_trainer(self.trainer)
        elif missing := [name for name in LOOP_NEEDS if name not in self.model_fields_set]:
            details = [InitErrorDetails(type="missing", loc=(name,), input={}) for name in missing]
            raise pydantic.ValidationError.from_exception_data("Recipe", details)
        elif self.trainer_options:
            raise ValueError("trainer_options: these are told to a trainer of your own; name it, as in `trainer: my_train.py:train`")
        return self

    def _check_trainer(self, name: str) -> None:
        if name not in plugins.installed("trainers") and ":" not in name:
            raise ValueError(f"trainer: expected a function of your own, as in `my_train.py:train`, found '{name}'")
        plugins.locate("trainers", name)
        unseen = sorted(self.model_fields_set - OWN_TRAINER)
        if unseen:
            raise ValueError(f"{unseen[0]}: {name} never sees this; leave it out, or give it as `trainer_options: {{{unseen[0]}: ...}}`")
        if self.precision != self.weight_dtype:
            raise ValueError(f"precision: with a trainer of your own it is the type of the weights, float32 or float64, found '{self.precision}'")
        taken = sorted({"data", "indices", "seed", "device"} & self.trainer_options.keys())
        if taken:
            raise ValueError(f"trainer_options: '{taken[0]}' is given to every trainer; choose another name")
        try:
            provenance.canonical_json(self.trainer_options)
        except ValueError as error:
            raise ValueError(f"trainer_options: {error}; numbers must be finite") from None


class Targets(Frozen):
    """Which records are audited. Kinds are resolved to records when the data is there."""

    random: int = Field(0, ge=0, description="drawn from the pool")
    atypical: int = Field(0, ge=0, description="lowest agreement with their nearest neighbours")
    mislabelled: int = Field(0, ge=0, description="canaries: a random record with a wrong label (positive control)")
    index: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="rows of the data set")

    @model_validator(mode="before")
    @classmethod
    def _null_index_is_random(cls, value: Any) -> Any:
        """A `null` among the indices stands for a random record, as in the classic experiment."""
        if isinstance(value, Mapping) and "index" in value:
            listed = value["index"] if isinstance(value["index"], (list, tuple)) else [value["index"]]
            given = [i for i in listed if i is not None]
            extra = len(listed) - len(given)
            return {**value, "index": given, **({"random": value.get("random", 0) + extra} if extra else {})}
        return value

    @model_validator(mode="after")
    def _at_least_one(self) -> Targets:
        if not self.names():
            raise ValueError("no target is asked for; give for example {random: 3, mislabelled: 1}")
        if len(set(self.index)) != len(self.index):
            raise ValueError(f"index: {list(self.index)} names a record twice")
        return self

    def names(self) -> list[str]:
        """Target ids in order, such as random00, atypical01, index00017."""
        counted = [f"{kind}{i:02d}" for kind in ("random", "atypical", "mislabelled") for i in range(getattr(self, kind))]
        return counted + [f"index{i:05d}" for i in self.index]


class Pairs(Frozen):
    """With and without one record: rounds of paired trainings."""

    kind: Literal["pairs"] = "pairs"
    targets: Targets
    rounds: int = Field(ge=2, description="paired trainings whose signals are fitted")
    holdout_rounds: int = Field(0, ge=0, description="fresh pairs, used to measure only")
    subset_size: int = Field(gt=0, description="training records of one model, without the audited one")
    pool: int | None = Field(None, gt=1, description="draw from so many records of the data set (default: all)")
    neighbour: Literal["add", "replace"] = Field("add", description="is the audited record added, or put in another's place")
    population: int | None = Field(None, gt=0, description="records outside the pool that attacks compare with (default: all that pool leaves)")


class Halves(Frozen):
    """Every model trains on a random half of the pool, its twin on the other half; each is the target in turn."""

    kind: Literal["halves"]
    models: int = Field(ge=2, multiple_of=2)
    pool: int | None = Field(None, gt=3, description="draw from so many records of the data set (default: all, which leaves no population)")
    population: int | None = Field(None, gt=0, description="records outside the pool that attacks compare with (default: all that pool leaves)")
    targets: int | None = Field(None, gt=0, description="audit so many models in turn (default: all)")

    @property
    def subset_size(self) -> int | None:
        return self.pool // 2 if self.pool else None

    @property
    def n_targets(self) -> int:
        return min(self.targets or self.models, self.models)

    @property
    def n_references(self) -> int:
        """Reference models of each target: all but itself and its twin."""
        return self.models - 2


class Canaries(Frozen):
    """One-run audits: independent coins decide which canaries a model trains on, beside records that all models have."""

    kind: Literal["canaries"]
    canaries: int = Field(ge=10, description="records whose membership a coin decides")
    subset_size: int = Field(ge=0, description="records that every model trains on beside its canaries")
    models: int = Field(1, ge=1, description="trainings, each an audit of its own")
    mislabelled: bool = Field(False, description="are canaries copies of records with a wrong label")
    pool: int | None = Field(None, gt=1, description="draw from so many records of the data set (default: all, which leaves no population)")
    population: int | None = Field(None, gt=0, description="records outside the pool that attacks compare with (default: all that pool leaves)")

    @property
    def n_targets(self) -> int:
        return self.models

    @property
    def n_references(self) -> int:
        return self.models - 1


Design = Annotated[Pairs | Halves | Canaries, Field(discriminator="kind")]


class Epsilon(Frozen):
    """How a lower bound of epsilon is claimed: declared before it is measured."""

    delta: float = Field(default=1e-5, ge=0, lt=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    strategy: Literal["split", "bonferroni"] = Field(default="bonferroni", description="how the number of guesses is chosen in a one-run audit")


class Audit(Frozen):
    """A data set, a recipe, a design and the attacks that read its signals."""

    dataset: str
    recipe: str
    design: Design
    views: tuple[Annotated[str, Field(pattern=VIEW)], ...] = Field(
        ("identity",), min_length=1, description="how records are shown: identity, flip, shift-N (8 moves by N pixels), flip-shift-N"
    )
    attacks: dict[Id, dict[str, Any]] = Field(min_length=1)
    headline: str | None = Field(None, description="the attack that the verdict reads (default: the first)")
    alpha: Probability | None = Field(
        None, description="false-positive rate of decisions, for attacks without one of their own (default: 0.05 for pairs, else 0.01)"
    )
    epsilon: Epsilon = Epsilon()
    include_records: bool = Field(False, description="show pictures of the most exposed records in the report")

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
        if needs is not None and needs.population and self.design.pool is None:
            raise ValueError(f"{where}: a population is needed, and the pool is the whole data set; set design.pool, so that records stay outside")
        if isinstance(self.design, Pairs):
            if references is not None:
                raise ValueError(f"{where}.references: the fitting rounds are the references of a pairs audit; set design.rounds")
            return
        there = self.design.n_references
        if references is not None and references > there:
            raise ValueError(
                f"{where}.references: {references} asked for, each target has {there} of the design's {self.design.models} models; add models"
            )
        if references is not None and isinstance(self.design, Halves) and references % 2:
            raise ValueError(f"{where}.references: {references} asked for; models come in complementary twos, so give an even number")
        if needs is None:
            return
        of_kinds = 2 * max(needs.inside, needs.outside) if isinstance(self.design, Halves) else needs.inside + needs.outside
        least = max(of_kinds, needs.references)
        if (there if references is None else references) < least:
            raise ValueError(
                f"{where}: {least} reference models are needed, each target has {there if references is None else references}; add models"
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


class Training(Frozen):
    """How models are trained, and not what comes out: nothing here moves a path or trains a model anew."""

    engine: Literal["auto", "sequential", "ensemble"] = Field(
        default="auto", description="one model after another, or several as one program; auto: whichever a committed table says is faster"
    )
    stack: int | None = Field(default=None, gt=0, description="models trained as one program (default: what the table says)")
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="write the state of a training every so many minutes, to go on from after a kill"
    )


class Params(Frozen):
    """The whole of params.yaml."""

    seed: int = Field(0, ge=0)
    datasets: dict[Id, Dataset] = Field(min_length=1)
    recipes: dict[Id, Recipe] = Field(min_length=1)
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
                if key not in known:
                    raise ValueError(f"audits.{audit_id}.{what}: no {what} is called '{key}'{plugins.nearest(key, list(known))}")
            size = self.datasets[audit.dataset].declared_size
            if size is not None:
                check_sizes(f"audits.{audit_id}.design", audit.design, size)
        return self


def check_sizes(where: str, design: Pairs | Halves | Canaries, n_samples: int) -> None:
    """Raise ParamsError where a design asks for records that a data set of `n_samples` does not have."""
    pool = design.pool or n_samples
    if pool > n_samples:
        raise ParamsError(f"{where}.pool: {pool} records asked for, the data set has {n_samples}; lower pool")
    if not isinstance(design, Pairs):
        outside = n_samples - pool
        if design.population is not None and design.population > outside:
            raise ParamsError(f"{where}.population: {design.population} records asked for, the pool leaves {outside}; lower population or pool")
        if isinstance(design, Canaries) and design.canaries + design.subset_size >= pool:
            raise ParamsError(
                f"{where}: {design.canaries} canaries and a subset of {design.subset_size} need more than {design.canaries + design.subset_size} records, "
                f"so that some stay outside; the pool has {pool}; lower one of them"
            )
        return
    if design.subset_size >= pool:
        raise ParamsError(
            f"{where}.subset_size: {design.subset_size} records asked for, the pool has {pool}; it must be smaller, so that records stay outside"
        )
    for index in design.targets.index:
        if index >= n_samples:
            raise ParamsError(f"{where}.targets.index: record {index} is out of range, the data set has {n_samples} (0 to {n_samples - 1})")
    most = max(design.targets.random, design.targets.mislabelled, design.targets.atypical)
    if most > pool:
        raise ParamsError(f"{where}.targets: {most} records of one kind asked for, the pool has {pool}")


def training_files(source: Path) -> list[Path]:
    """The file itself, or a folder's Parquet files: those called train*, or all where none is."""
    if source.is_file():
        return [source]
    files = sorted(source.glob("*.parquet"))
    return [file for file in files if file.name.startswith("train")] or files


def plugin_code(room: str, name: str) -> dict[str, str]:
    """The digest of a user's plug-in file, to be part of a name; nothing for built-in functions."""
    if not plugins.is_file(room, name):
        return {}
    return {"code": provenance.plugin_digest(plugins.locate(room, name)[0])}


def attack_options(entry: Mapping[str, Any]) -> BaseModel:
    """The validated `Options` of one attack's entry in params.yaml."""
    module = plugins.module_of("attacks", entry["name"])
    return module.Options(**{key: value for key, value in entry.items() if key not in ("name", "references")})


def sentences(error: pydantic.ValidationError) -> list[str]:
    """One sentence for each fault of a validation error."""
    lines = []
    for fault in error.errors():
        parts = [part for before, part in zip(("", *fault["loc"]), fault["loc"], strict=False) if before != "design" or part not in KINDS]
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
            text, shown = f"kind: {f'{found!r} is not a design' if found else 'is missing'}{plugins.nearest(str(found or ''), list(KINDS))}", ""
        if fault["type"] == "string_pattern_mismatch" and "views" in fault["loc"]:
            text = "a view is identity, flip, shift-N or flip-shift-N"
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
