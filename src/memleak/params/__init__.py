"""params.yaml as frozen models: the only place for defaults, ranges and cross-checks.

Every message names what was found, what was expected and what to do. Nothing here reads data or imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field, model_validator

from memleak import plugins
from memleak.params.audits import ALIGNMENT, N_OF_FAMILY, SIGNALS, VIEW, Audit, Epsilon, n_views
from memleak.params.base import Frozen, Id, ParamsError, Probability, plugin_code
from memleak.params.datasets import DECLARED_SIZES, Dataset, Part, training_files
from memleak.params.designs import (
    KINDS,
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
from memleak.params.language import check_texts
from memleak.params.options import attack_options, plugin_options, sentences
from memleak.params.recipes import IDLE, LOOP_NEEDS, OWN_TRAINER, PRESETS, Recipe, Training
from memleak.params.sweeps import NONE, Sweep, Variant, expand

__all__ = [
    "ALIGNMENT", "DECLARED_SIZES", "IDLE", "KINDS", "LOOP_NEEDS", "NONE", "N_OF_FAMILY", "OWN_TRAINER", "PRESETS", "SIGNALS", "SIGNALS_VERSION", "TRAINING_VERSION", "VIEW", "Audit", "Canaries",
    "Dataset", "Design", "Epsilon", "Frozen", "Given", "GivenModel", "Halves", "Id", "Imported", "Pairs", "Params", "ParamsError", "Part", "Probability",
    "Recipe", "ReferenceHalves", "Shadows", "Sweep", "Targets", "Training", "Variant", "attack_options", "check_sizes", "given_model_of", "load", "n_views", "parse", "plugin_code",
    "plugin_options", "recipe_of", "schema", "sentences", "training_files", "validate",
]  # fmt: skip

TRAINING_VERSION = 1  # raise by hand when the same recipe would give other weights
SIGNALS_VERSION = 1  # raise by hand when the same weights would give other signals


class Params(Frozen):
    """The whole of params.yaml."""

    seed: int = Field(0, ge=0, description="of everything that is drawn")
    datasets: dict[Id, Dataset] = Field({}, description="where records come from")
    recipes: dict[Id, Recipe] = Field({}, description="how models are trained: everything that changes a weight")
    audits: dict[Id, Audit] = Field(min_length=1, description="what is attacked, and how; an id names files")
    sweeps: dict[Id, dict[Id, Variant]] = Field({}, description="by label, the variants of every audit that was written with `sweep`")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models train and are asked; auto: a GPU where there is one")
    training: Training = Field(Training(), description="how models train, without changing what comes out")
    models_per_shard: int = Field(8, gt=0, description="models trained in one job")
    figures: bool = Field(True, description="draw figures for the report")
    allow_mixed: bool = Field(False, description="accept models of several devices or torch versions in one audit")

    @model_validator(mode="before")
    @classmethod
    def _expand_sweeps(cls, value: Any) -> Any:
        return expand(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _references_hold(self) -> Params:
        for audit_id, audit in self.audits.items():
            for what, key, known in (("dataset", audit.dataset, self.datasets), ("recipe", audit.recipe, self.recipes)):
                if key is not None and key not in known:
                    raise ValueError(f"audits.{audit_id}.{what}: no {what} is called '{key}'{plugins.nearest(key, list(known))}")
            if audit.dataset is None:
                continue
            recipe = self.recipes[audit.recipe] if audit.recipe else None
            check_texts(f"audits.{audit_id}", audit, recipe, self.datasets[audit.dataset])
            if recipe is not None:
                _check_private(f"audits.{audit_id}", audit, recipe)
            if recipe is not None and recipe.reserve:
                _check_reserve(f"audits.{audit_id}", audit.design, recipe, self.datasets[audit.dataset].declared_size)
            if isinstance(audit.design, Given):
                _check_parts(f"audits.{audit_id}", audit.design, audit.dataset, self.datasets[audit.dataset])
            size = self.datasets[audit.dataset].declared_size
            if size is not None:
                check_sizes(f"audits.{audit_id}.design", audit.design, size)
        return self


def _check_parts(where: str, design: Given, dataset_id: str, dataset: Dataset) -> None:
    if not dataset.parts:
        raise ValueError(
            f"{where}.dataset: '{dataset_id}' is one set; a given model takes a data set of parts: {{{design.members}: ..., {design.non_members}: ...}}"
        )
    for part in design.parts:
        if part not in dataset.parts:
            raise ValueError(f"{where}.design: '{dataset_id}' has no part '{part}'{plugins.nearest(part, list(dataset.parts))}")


def _check_private(where: str, audit: Audit, recipe: Recipe) -> None:
    """Refuse gradient canaries that nothing would insert, and a bound that its training's promise does not speak of."""
    if isinstance(audit.design, Canaries) and audit.design.space == "gradient" and recipe.dp is None:
        raise ValueError(
            f"{where}.design.space: gradient canaries are inserted by DP-SGD, and the recipe '{audit.recipe}' has none; give it dp, or use space: input"
        )
    is_bounded = isinstance(audit.design, (Pairs, Canaries)) and "delta" in audit.epsilon.model_fields_set
    if recipe.dp is not None and is_bounded and audit.epsilon.claimed is None and audit.epsilon.delta < recipe.dp.delta:
        raise ValueError(
            f"{where}.epsilon.delta: {audit.epsilon.delta:g} is less than the delta of dp in the recipe '{audit.recipe}' ({recipe.dp.delta:g}), "
            "so that its epsilon says nothing about the bound; raise it, or leave it out"
        )


def _check_reserve(where: str, design: Design, recipe: Recipe, n_samples: int | None) -> None:
    """Refuse a recipe that takes records beside the training set where the design leaves none."""
    takes = " and ".join(name for name in ("early_stopping", "distillation") if getattr(recipe, name))
    pool = getattr(design, "pool", None)
    if pool is None:
        why = (
            "reference models of a given one have no pool"
            if isinstance(design, Given)
            else "the pool is the whole data set; set design.pool, so that some stay outside"
        )
        raise ValueError(f"{where}.recipe: {takes} takes {recipe.reserve} records that are neither trained on nor audited, and {why}")
    population = getattr(design, "population", None) or 0
    if n_samples is not None and recipe.reserve + population > n_samples - pool:
        beside = f" beside a population of {population}" if population else ""
        raise ValueError(
            f"{where}.recipe: {takes} takes {recipe.reserve} records outside the pool{beside}, which leaves {n_samples - pool}; lower records, or design.pool"
        )


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data. Raises ParamsError with one sentence a fault."""
    try:
        return Recipe(**fields)
    except pydantic.ValidationError as error:
        raise ParamsError("\n".join(sentences(error))) from None


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


def _steps() -> list[dict[str, Any]]:
    """Schemas of a release's steps: a bare name, `{name: value}`, and the long form of each; a user's are `file.py:function`."""
    known = {name: plugins.module_of("releases", name).Options.model_json_schema() for name in plugins.BUILT_IN["releases"]}
    users = {"pattern": ":"}
    short, long = [], [{"title": "of your own", "type": "object", "required": ["name"], "properties": {"name": users}}]
    for name, options in known.items():
        fields = options.get("properties", {})
        long.append(options | {"title": name, "required": ["name", *options.get("required", ())], "properties": {"name": {"const": name}, **fields}})
        values = [{"type": "null"}, options, *({key: part for key, part in field.items() if key != "default"} for field in list(fields.values())[:1])]
        short.append({"type": "object", "required": [name], "properties": {name: {"anyOf": values}}, "additionalProperties": False})
    bare = [name for name, options in known.items() if not options.get("required")]
    short.append({"type": "object", "maxProperties": 1, "patternProperties": {":": {}}, "additionalProperties": False})
    return [{"enum": bare}, {"type": "string", **users}, *short, *long]


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml, for editors (`workflow/schemas/params.schema.json`)."""
    whole = Params.model_json_schema()
    del whole["properties"]["sweeps"], whole["$defs"]["Variant"]  # nobody writes them
    entries = []
    for name in plugins.BUILT_IN["attacks"]:
        options = plugins.module_of("attacks", name).Options.model_json_schema()
        shared = {"name": {"const": name}, "references": {"type": "integer", "description": "use so many of the reference models (default: all)"}}
        entries.append(options | {"title": name, "required": ["name"], "properties": {**shared, **options["properties"]}})
    whole["$defs"]["Audit"]["properties"]["attacks"]["patternProperties"] = {r"^[a-z0-9][a-z0-9-]*$": {"anyOf": entries}}
    whole["$defs"]["Audit"]["properties"]["release"]["items"] = {"anyOf": _steps()}
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
