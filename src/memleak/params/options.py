"""The options of plug-ins, which stand beside their functions; and what is wrong with them, in sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import BaseModel

from memleak import plugins
from memleak.params.designs import KINDS, REFERENCE_KINDS


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


def check_plugin(room: str, where: str, entry: Mapping[str, Any]) -> None:
    """Refuse an entry that names no function of a room, or options that it does not have."""
    if "name" not in entry:
        raise ValueError(f"{where}: 'name' is missing{plugins.nearest('', list(plugins.installed(room)))}")
    try:
        plugin_options(room, entry)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{where}.{line}" for line in sentences(error))) from None
    except plugins.UnknownPlugin as error:
        raise ValueError(f"{where}.name: {error}") from None


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
            text = "a view is identity, flip, shift-N, flip-shift-N or rotate-N (1 to 45 degrees); of texts identity, lowercase, neighbours-N or prefix-N (1 to 9)"
        elif fault["type"] == "string_pattern_mismatch":
            text, shown = "an id has small letters, digits and '-' only, and begins with a letter or digit", f", found {given!r}"
        lines.append(f"{place}: {text}{shown}".removeprefix(": "))
    return lines
