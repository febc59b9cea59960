"""The steps of a release: their short forms, and orders in which they cannot stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memleak import plugins
from memleak.params.options import plugin_options

CONSTANT = ("confidence", "entropy")  # signals that labels alone leave the same of every record


def written_out(steps: Any) -> Any:
    """Steps in their long form, `{name: top_k, k: 3}`: of `{top_k: 3}`, `{top_k: {k: 3}}`, and of `labels`, which has no options."""
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise ValueError(f"release: expected a list of steps, such as [{{top_k: 3}}, {{round: 2}}] or [labels], found {steps!r}")
    return tuple(_written_out(f"release.{number}", step) for number, step in enumerate(steps))


def _written_out(where: str, step: Any) -> dict[str, Any]:
    if isinstance(step, str):
        return {"name": _known(where, step)}
    if not isinstance(step, Mapping) or ("name" not in step and len(step) != 1) or not isinstance(step.get("name", ""), str):
        raise ValueError(f"{where}: expected one step, such as {{top_k: 3}}, labels, or {{name: file.py:function, option: value}}, found {step!r}")
    if "name" in step:
        return dict(step)
    (name, value), *_ = step.items()
    name = _known(where, str(name))
    if value is None:
        return {"name": name}
    if isinstance(value, Mapping):
        if "name" in value:
            raise ValueError(f"{where}.{name}: it is called twice; leave name out of its options")
        return {"name": name, **value}
    try:
        options = list(plugins.module_of("releases", name).Options.model_fields)
    except (AttributeError, plugins.UnknownPlugin):  # which is said where options are checked
        return {"name": name}
    if not options:
        raise ValueError(f"{where}: {name} has no options, found {value!r}; write {name} alone")
    return {"name": name, options[0]: value}


def _known(where: str, name: str) -> str:
    try:
        plugins.locate("releases", name)
    except plugins.UnknownPlugin as error:
        raise ValueError(f"{where}: {error}") from None
    return name


def check_order(steps: Sequence[Mapping[str, Any]]) -> None:
    """Refuse steps that change nothing after those before them; their options are valid."""
    known = [(step["name"], plugin_options("releases", step).model_dump()) for step in steps]
    for number, (name, options) in enumerate(known):
        where, before = f"release.{number}", known[:number]
        if name != "labels" and any(earlier == "labels" for earlier, _ in before):
            raise ValueError(f"{where}: {name} comes after labels, which leave nothing to change; put labels last, or leave one of them out")
        if name == "top_k" and (shown := _shown(before)) is not None and options["k"] >= shown:
            raise ValueError(f"{where}: top_k with k: {options['k']} comes after k: {shown} and withholds nothing more; leave it out, or lower k")
        if name == "round" and before and before[-1][0] == "round" and options["digits"] >= before[-1][1]["digits"]:
            raise ValueError(
                f"{where}: round to {options['digits']} digits comes after {before[-1][1]['digits']} and changes nothing; leave it out, or lower digits"
            )


def _shown(before: Sequence[tuple[str, Mapping[str, Any]]]) -> int | None:
    """How many probabilities an earlier top_k has left, unless a step since then may have moved them apart."""
    for name, options in reversed(before):
        if name == "top_k":
            return int(options["k"])
        if name not in ("round", "temperature"):
            return None
    return None


def check_reader(where: str, steps: Sequence[Mapping[str, Any]], attack: str, reads: Sequence[str]) -> None:
    """Refuse an attack that reads what is not released, or what a release of labels leaves the same of every record."""
    if steps and "gradient_norm" in reads:
        raise ValueError(
            f"{where}: gradient_norm takes the network itself, and whoever sees a release does not; leave this attack out, or the release"
        )
    if reads and any(step["name"] == "labels" for step in steps) and (attack == "top_k" or set(reads) <= set(CONSTANT)):
        what = "posteriors in falling order are" if attack == "top_k" else f"{', '.join(reads)} is"
        raise ValueError(
            f"{where}: {what} the same of every record where labels alone are released; use threshold with signal: correctness, or label_only"
        )
