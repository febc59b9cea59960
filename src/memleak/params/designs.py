"""Designs: how it is drawn who trains on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from memleak.params.base import Frozen, ParamsError

KINDS = ("pairs", "halves", "canaries")  # of designs


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
