"""Designs: how it is drawn who trains on what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from memleak import plugins
from memleak.params.base import Frozen, ParamsError
from memleak.params.texts import refuse_missing_folder

KINDS = ("pairs", "halves", "canaries", "given", "imported")  # of designs
REFERENCE_KINDS = ("shadow", "halves")  # of the reference models of a given one


class GivenModel(Frozen):
    """The audited model where the user brings it: trained elsewhere, asked as it is."""

    name: str | None = Field(None, description="file.py:get_model: returns a network, an estimator of scikit-learn, or a function of arrays")
    weights: str | None = Field(None, description="safetensors or a state dict for the network; TorchScript or ONNX alone (relative to params.yaml)")
    output: Literal["logits", "probabilities", "binary_logit", "labels"] = Field("logits", description="what the model gives")
    inputs: Literal["scaled", "stored", "normalised"] = Field(
        "scaled", description="what a network takes: images divided by 255, records as stored, or normalised by the data set's mean and deviation"
    )
    mean: tuple[float, ...] = Field((), description="of each channel (or column), subtracted from scaled or stored inputs")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="of each channel (or column), by which they are divided then")
    classes: int | None = Field(
        None, gt=1, description="that it tells apart, where a shadow part of the data set brings more (default: those of the data set)"
    )
    batch_size: int = Field(256, gt=0, description="records asked at once")
    checkpoint: str | None = Field(
        None, description="of texts, instead of name and weights: a folder with config.json and weights, or a name on the Hugging Face hub"
    )
    revision: str | None = Field(None, description="commit of a checkpoint on the hub")
    tokenizer: str | None = Field(None, description="of texts: a folder, a tokenizer.json, or a name on the hub (default: the checkpoint's)")
    max_length: int | None = Field(None, gt=1, description="of texts: tokens that are read, the first ones (default: 256, or the model's context)")
    reference: str | None = Field(
        None, description="of texts: a checkpoint with the same tokens that has not seen the members, such as the one that was fine-tuned"
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> GivenModel:
        if self.name is None and self.weights is None and self.checkpoint is None:
            raise ValueError(
                "model: none of name, weights and checkpoint is given; name a function (file.py:get_model), "
                "a TorchScript or ONNX file as weights, or a checkpoint of transformers"
            )
        self._check_checkpoint()
        if bool(self.mean) != bool(self.std) or len(self.mean) != len(self.std):
            raise ValueError(f"model: mean has {len(self.mean)} values and std {len(self.std)}; give both, one a channel, or neither")
        if self.mean and self.inputs == "normalised":
            raise ValueError("model: inputs: normalised takes mean and std of the data set; leave mean and std out, or write inputs: scaled")
        if self.name is not None:
            plugins.locate("models", self.name)
        if self.weights is not None and not Path(self.weights).is_file():
            raise ValueError(f"model.weights: there is no file '{self.weights}' (looked in {Path.cwd()})")
        return self

    def _check_checkpoint(self) -> None:
        """Refuse fields of texts where no checkpoint is given, and others beside one."""
        for_texts = ("revision", "tokenizer", "max_length", "reference")
        others = ("name", "weights", "output", "inputs", "mean", "std", "classes")
        written = [key for key in (for_texts if self.checkpoint is None else others) if getattr(self, key) != type(self).model_fields[key].default]
        if written:
            why = "it belongs to a checkpoint of texts, and none is given" if self.checkpoint is None else "a checkpoint says it itself"
            raise ValueError(f"model.{written[0]}: {why}; leave it out")
        for key in ("checkpoint", "tokenizer", "reference"):
            refuse_missing_folder(f"model.{key}", getattr(self, key))


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

    kind: Literal["pairs"] = Field("pairs", description="with and without one record")
    targets: Targets = Field(description="the records that are audited")
    rounds: int = Field(ge=2, description="paired trainings whose signals are fitted")
    holdout_rounds: int = Field(0, ge=0, description="fresh pairs, used to measure only")
    subset_size: int = Field(gt=0, description="training records of one model, without the audited one")
    pool: int | None = Field(None, gt=1, description="draw from so many records of the data set (default: all)")
    neighbour: Literal["add", "replace"] = Field("add", description="is the audited record added, or put in another's place")
    population: int | None = Field(None, gt=0, description="records outside the pool that attacks compare with (default: all that pool leaves)")


class Halves(Frozen):
    """Every model trains on a random half of the pool, its twin on the other half; each is the target in turn."""

    kind: Literal["halves"] = Field(description="random halves of a pool")
    models: int = Field(ge=2, multiple_of=2, description="that are trained; more of them train only the new ones")
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

    kind: Literal["canaries"] = Field(description="coins decide who is in")
    canaries: int = Field(ge=10, description="records whose membership a coin decides")
    subset_size: int = Field(ge=0, description="records that every model trains on beside its canaries")
    models: int = Field(1, ge=1, description="trainings, each an audit of its own")
    mislabelled: bool = Field(False, description="are canaries copies of records with a wrong label")
    space: Literal["input", "gradient"] = Field(
        "input", description="gradient: canaries are gradients of DP-SGD, each a weight of its own, which the strongest adversary would insert"
    )
    pool: int | None = Field(None, gt=1, description="draw from so many records of the data set (default: all, which leaves no population)")
    population: int | None = Field(None, gt=0, description="records outside the pool that attacks compare with (default: all that pool leaves)")

    @model_validator(mode="after")
    def _a_gradient_has_no_label(self) -> Canaries:
        if self.space == "gradient" and self.mislabelled:
            raise ValueError("mislabelled: canaries are gradients, which have no label; leave it out, or use space: input")
        return self

    @property
    def n_rows(self) -> int:
        """Records of the pool that are canaries."""
        return 0 if self.space == "gradient" else self.canaries

    @property
    def n_targets(self) -> int:
        return self.models

    @property
    def n_references(self) -> int:
        return self.models - 1


class Shadows(Frozen):
    """Reference models on records of a shadow pool, none of them audited: each on a random half, or all on a set of their own."""

    kind: Literal["shadow"] = Field(description="on records of their own")
    models: int = Field(1, ge=1, description="reference models that are trained")
    parts: tuple[str, ...] = Field(
        (), description="parts of the data set that make the shadow pool (default: shadow), each model takes a random half"
    )
    train: str | None = Field(None, description="instead of parts: the part that every reference model trains on")
    out: str | None = Field(None, description="the part that it does not train on")

    @model_validator(mode="after")
    def _one_way(self) -> Shadows:
        if (self.train is None) != (self.out is None) or (self.train is not None and self.parts):
            raise ValueError("references: give the parts of a shadow pool (parts: [shadow]), or both train and out, not some of each")
        if self.train is None and not self.parts:
            object.__setattr__(self, "parts", ("shadow",))
        if self.train is not None and self.train == self.out:
            raise ValueError(f"references: train and out are both '{self.train}'; the records of out must be others")
        return self

    @property
    def pool(self) -> tuple[str, ...]:
        """Parts whose records the references know: in, or held out."""
        return self.parts or tuple(name for name in (self.train, self.out) if name)


class ReferenceHalves(Frozen):
    """Reference models on complementary halves of the members and non-members themselves, as an auditor can train who holds both."""

    kind: Literal["halves"] = Field(description="on halves of the audited records")
    models: int = Field(ge=2, multiple_of=2, description="reference models that are trained")

    @property
    def pool(self) -> tuple[str, ...]:
        return ()  # beyond the audited records


class Given(Frozen):
    """A model that the user brings, with the records it was trained on and others; nothing is trained but reference models, if there are any."""

    kind: Literal["given"] = Field(description="a model that you bring")
    model: GivenModel = Field(description="the audited model")
    members: str = Field("members", description="the part of the data set that the model was trained on")
    non_members: str = Field("non-members", description="the part that it was not trained on")
    population: str | None = Field(None, description="a part that no model was trained on, which attacks compare with")
    sample: int | None = Field(None, gt=0, description="audit so many members and so many non-members, drawn at random (default: all)")
    overlap: Literal["refuse", "drop"] = Field("refuse", description="what becomes of non-members that equal a member")
    references: Annotated[Shadows | ReferenceHalves, Field(discriminator="kind")] | None = Field(
        None, description="models to compare with (default: none)"
    )

    @model_validator(mode="after")
    def _parts_differ(self) -> Given:
        audited = {"members": self.members, "non_members": self.non_members}
        if self.members == self.non_members:
            raise ValueError(f"members and non_members are both '{self.members}'; the audited model was trained on one of them only")
        outside = ([self.population] if self.population else []) + list(self.references.pool if self.references else ())
        for what, name in audited.items():
            if name in outside:
                raise ValueError(
                    f"{what}: the part '{name}' is audited, so it can be neither population nor shadow pool; take other records, or references: {{kind: halves}}"
                )
        if self.population is not None and self.references is not None and self.population in self.references.pool:
            raise ValueError(f"population: reference models know the part '{self.population}'; take records that no model was trained on")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts of the data set that the design speaks of."""
        more = self.references.pool if self.references else ()
        return (self.members, self.non_members, *([self.population] if self.population else []), *more)

    @property
    def n_targets(self) -> int:
        return 1

    @property
    def n_references(self) -> int:
        return self.references.models if self.references else 0

    @property
    def models(self) -> int:
        return 1 + self.n_references


class Imported(Frozen):
    """Models that others trained and asked: a file that `memleak import` wrote."""

    kind: Literal["imported"] = Field(description="models that others trained and asked")
    source: str = Field(description="imported.parquet (relative to params.yaml)")
    targets: int | None = Field(None, gt=0, description="audit so many models in turn (default: all)")

    @model_validator(mode="after")
    def _is_there(self) -> Imported:
        if not Path(self.source).is_file():
            raise ValueError(f"source: there is no file '{self.source}' (looked in {Path.cwd()}); `memleak import` writes it")
        return self

    @property
    def population(self) -> str | None:
        """What the models say about samples outside every training set; beside the source, where the run had any."""
        path = Path(self.source)
        beside = path.with_name(f"{path.stem}-population.parquet")
        return str(beside) if beside.is_file() else None


Design = Annotated[Pairs | Halves | Canaries | Given | Imported, Field(discriminator="kind")]


def check_sizes(where: str, design: Pairs | Halves | Canaries | Given | Imported, n_samples: int) -> None:
    """Raise ParamsError where a design asks for records that a data set of `n_samples` does not have."""
    if isinstance(design, (Given, Imported)):
        return  # their records are listed, not drawn
    pool = design.pool or n_samples
    if pool > n_samples:
        raise ParamsError(f"{where}.pool: {pool} records asked for, the data set has {n_samples}; lower pool")
    if not isinstance(design, Pairs):
        outside = n_samples - pool
        if design.population is not None and design.population > outside:
            raise ParamsError(f"{where}.population: {design.population} records asked for, the pool leaves {outside}; lower population or pool")
        if isinstance(design, Canaries) and design.n_rows + design.subset_size >= pool:
            raise ParamsError(
                f"{where}: {design.n_rows} canaries and a subset of {design.subset_size} need more than {design.n_rows + design.subset_size} records, "
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
