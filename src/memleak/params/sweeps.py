"""Sweeps: one audit with `sweep` becomes a grid of ordinary audits, each with its own recipe and release."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from pydantic import Field, model_validator

from memleak.params.base import Frozen, Id
from memleak.params.options import sentences

NONE = "none"  # the variant without any change, which the others are compared with
_EACH = "each"


class Sweep(Frozen):
    """What an audit is repeated with. Each variant's reference models train and are asked as its targets are."""

    recipe: dict[Id, dict[str, Any]] = Field(
        {}, description="training defences: fields of the recipe that each changes; `{each: [...]}` in a value's place stands for several variants"
    )
    release: dict[Id, tuple[dict[str, Any] | str, ...]] = Field({}, description="releases: the steps of each; they train nothing")

    @model_validator(mode="after")
    def _something_varies(self) -> Sweep:
        if not self.recipe and not self.release:
            raise ValueError("nothing varies; give recipe: {id: {field: value}} or release: {id: [steps]}")
        for axis, entries in (("recipe", self.recipe), ("release", self.release)):
            if entries.get(NONE):
                raise ValueError(f"{axis}.{NONE}: this is the variant without changes, and has some; give it another name")
        return self


class Variant(Frozen):
    """One audit of a sweep, and in what it differs from the audit that was written."""

    audit: str
    changes: dict[str, Any]  # of the recipe
    release: tuple[dict[str, Any] | str, ...]


def expand(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain params in which every audit with `sweep` is replaced by its variants, and `sweeps` says which they are."""
    audits, recipes = config.get("audits"), config.get("recipes", {})
    if "sweeps" in config:
        raise ValueError("unknown key 'sweeps'; a sweep is part of an audit: audits.ID.sweep")
    if not isinstance(audits, Mapping) or not isinstance(recipes, Mapping):
        return dict(config)  # what is wrong with them is said elsewhere
    found: dict[str, Any] = {"audits": {}, "recipes": dict(recipes)}
    sweeps: dict[str, dict[str, Variant]] = {}
    for audit_id, audit in audits.items():
        if not isinstance(audit, Mapping) or audit.get("sweep") is None:
            _add(found["audits"], audit_id, audit, f"audits.{audit_id}")
            continue
        sweeps[audit_id] = {}
        for label, variant, entry, changed in _variants(audit_id, audit, recipes):
            _add(found["audits"], variant.audit, entry, f"audits.{audit_id}.sweep")
            if changed is not None:
                _add(found["recipes"], entry["recipe"], changed, f"audits.{audit_id}.sweep.recipe")
            sweeps[audit_id][label] = variant
    if clash := sorted(sweeps.keys() & found["audits"].keys()):
        raise ValueError(f"audits.{clash[0]}: this is a sweep, and a variant of another is called so too; rename one of them")
    return {**config, **found} | ({"sweeps": sweeps} if sweeps else {})


def _add(entries: dict[str, Any], name: str, entry: Any, where: str) -> None:
    if name in entries and entries[name] != entry:
        raise ValueError(f"{where}: its variant '{name}' is called as another entry; rename one of them")
    entries[name] = entry


def _variants(audit_id: str, audit: Mapping[str, Any], recipes: Mapping[str, Any]) -> Iterator[tuple[str, Variant, dict[str, Any], Any]]:
    """Label, variant, its audit and, where it is another, its recipe, for each cell of the grid."""
    where = f"audits.{audit_id}.sweep"
    try:
        sweep = Sweep(**audit["sweep"])
    except (pydantic.ValidationError, TypeError) as error:
        said = [f": expected recipe and release, found {audit['sweep']!r}"]
        if isinstance(error, pydantic.ValidationError):
            said = [f"{'.' if fault['loc'] else ': '}{line}" for fault, line in zip(error.errors(), sentences(error), strict=True)]
        raise ValueError("; ".join(f"{where}{line}" for line in said)) from None
    if sweep.release and audit.get("release"):
        raise ValueError(f"{where}.release: the audit has a release of its own; leave one of them out")
    recipe_id = str(audit.get("recipe"))
    if sweep.recipe and not isinstance(recipes.get(recipe_id), Mapping):
        raise ValueError(f"{where}.recipe: changes a recipe, and the audit's ('{recipe_id}') is none of recipes; name one that is")
    plain = {key: value for key, value in audit.items() if key != "sweep"}
    trained = _axis(f"{where}.recipe", {name: dict(changes) for name, changes in sweep.recipe.items()}, {})
    released = _axis(f"{where}.release", {name: list(steps) for name, steps in sweep.release.items()}, list(audit.get("release", ())))
    for (training, changes), (release, steps) in itertools.product(trained.items(), released.items()):
        label = "-".join(name for name in (training, release) if name != NONE) or NONE
        entry = plain | ({"release": steps} if steps else {})
        changed = None
        if changes:
            entry["recipe"], changed = f"{recipe_id}-{training}", _merged(recipes[recipe_id], changes)
        yield label, Variant(audit=f"{audit_id}-{label}", changes=changes, release=tuple(steps)), entry, changed


def _axis(where: str, entries: dict[str, Any], nothing: Any) -> dict[str, Any]:
    """The values along one axis by name, that without any change first."""
    found: dict[str, Any] = {NONE: nothing}
    for name, entry in entries.items():
        for value, chosen in _each(entry, where):
            label = "-".join([name, *(_word(choice) for choice in chosen)])
            if label != NONE and label in found:
                raise ValueError(f"{where}.{name}: two variants would be called '{label}'; rename one of them")
            found[label] = value
    return found


def _each(value: Any, where: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every value that one with `{each: [...]}` inside stands for, and what was chosen."""
    if isinstance(value, Mapping) and _EACH in value:
        if len(value) > 1 or not isinstance(value[_EACH], list) or not value[_EACH]:
            raise ValueError(f"{where}: expected {{each: [value, value, ...]}} and nothing beside it, found {dict(value)!r}")
        yield from ((one, (one,)) for one in value[_EACH])
    elif isinstance(value, Mapping | list):
        keys = list(value) if isinstance(value, Mapping) else range(len(value))
        for parts in itertools.product(*(list(_each(value[key], where)) for key in keys)):
            chosen = tuple(choice for _, choices in parts for choice in choices)
            values = [part for part, _ in parts]
            yield (dict(zip(keys, values, strict=True)) if isinstance(value, Mapping) else values), chosen
    else:
        yield value, ()


def _word(value: Any) -> str:
    """A value as part of an id: 0.5 is `0-5`."""
    return re.sub("[^a-z0-9]+", "-", str(value).lower()).strip("-") or "x"


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with some of its fields changed, those inside a field's own mapping too."""
    found = copy.deepcopy(dict(base))
    for key, value in changes.items():
        before = found.get(key)
        found[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found
