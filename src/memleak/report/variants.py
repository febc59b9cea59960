"""What the numbers of one variant of a sweep say: the directions that tests show, and words for what was changed.

The shape of a sweep's numbers is known here and in `frontier`, nowhere else in this room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEVELS = (0.01, 0.001)  # false-positive rates that a sweep reports


def value(found: dict[str, Any] | None) -> float | None:
    """The point estimate, where there is one."""
    return found["value"] if found else None


def tpr(variant: dict[str, Any], fpr: float) -> dict[str, Any] | None:
    """The headline attack's TPR at a false-positive rate, where it was measured."""
    return next((found for found in variant["tpr"] or () if np.isclose(found["at_fpr"], fpr) and found["value"] is not None), None)


def baseline(sweep: dict[str, Any]) -> dict[str, Any]:
    """The variant that the others are compared with."""
    return next(variant for variant in sweep["variants"] if variant["label"] == sweep["baseline"])


def in_order(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The baseline, then the variants from the lowest AUC to the highest, then those without one; a variant's number is its place here."""
    return sorted(
        sweep["variants"], key=lambda variant: (variant["label"] != sweep["baseline"], value(variant["auc"]) is None, value(variant["auc"]) or 0)
    )


def significance(sweep: dict[str, Any]) -> float:
    """The family-wise error of the tests that goes with the intervals: 0.05 for 95 %."""
    return round(1 - float(sweep["confidence"]), 12)


def is_shown(sweep: dict[str, Any], difference: dict[str, Any] | None) -> bool:
    """Is a difference from the baseline significant, all variants considered?"""
    return difference is not None and difference["p_holm"] is not None and difference["p_holm"] <= significance(sweep)


def direction(sweep: dict[str, Any], variant: dict[str, Any], of: str) -> str:
    """`lower`, `higher` or `same` (no difference shown) than the baseline in utility, auc or tpr; `unknown` where it was not tested."""
    difference = (variant["against"] or {}).get(of)
    if difference is None or difference["difference"] is None or difference["p_holm"] is None:
        return "unknown"
    if not is_shown(sweep, difference):
        return "same"
    return "lower" if difference["difference"] < 0 else "higher"


def bound_of(variant: dict[str, Any]) -> dict[str, Any] | None:
    """The lower bound of epsilon with what is claimed, where the design gives one."""
    found: dict[str, Any] | None = variant["epsilon"]
    return found if found and found["epsilon"] is not None else None


def has_alarm(variant: dict[str, Any]) -> bool:
    """Is the training of a variant shown to be less private than it claims?"""
    return bool((bound_of(variant) or {"alarm": False})["alarm"])


def failed(variant: dict[str, Any]) -> list[str]:
    """The controls of its own audit that failed."""
    return list(variant.get("failed", ()))


def kind(sweep: dict[str, Any], variant: dict[str, Any]) -> str:
    """What differs from the baseline: `baseline` (nothing), `training`, `release` (the same models, asked otherwise) or `both`."""
    if variant["label"] == sweep["baseline"]:
        return "baseline"
    if variant["changes"] and variant["release"] != baseline(sweep)["release"]:
        return "both"
    return "training" if variant["changes"] else "release"


def points(difference: dict[str, Any] | None) -> str:
    """A difference of two rates in percentage points: `-1.2 points [-2.0, -0.4]`."""
    if difference is None or difference["difference"] is None:
        return "n/a"
    parts = [100 * x for x in (difference["difference"], difference["low"], difference["high"]) if x is not None]
    digits = 1 if max(map(abs, parts)) >= 1 else 2
    return _with_interval([signed(part, digits) for part in parts], " points")


def change(difference: dict[str, Any] | None) -> str:
    """A difference of two AUCs: `-0.080 [-0.090, -0.070]`."""
    if difference is None or difference["difference"] is None:
        return "n/a"
    return _with_interval([signed(x, 3) for x in (difference["difference"], difference["low"], difference["high"]) if x is not None])


def _with_interval(parts: Sequence[str], unit: str = "") -> str:
    return f"{parts[0]}{unit} [{parts[1]}, {parts[2]}]" if len(parts) == 3 else f"{parts[0]}{unit}"


def signed(number: float, digits: int) -> str:
    """With its sign; nothing that rounds to zero has one."""
    rounded = round(number, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def auc(found: dict[str, Any] | None) -> str:
    """`0.640 [0.631, 0.649]`."""
    if value(found) is None or found is None:
        return "n/a"
    return f"{found['value']:.3f}" if found["low"] is None else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def p_value(p: float | None) -> str:
    """`p = 0.0123` as words."""
    return "p n/a" if p is None else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def in_words(changes: Mapping[str, Any], inside: str = "") -> list[str]:
    """The fields of a recipe that a variant changes: `dropout 0.5`, `dp clip 1`, `no flip`."""
    found: list[str] = []
    for key, entry in changes.items():
        name = f"{inside}{key.replace('_', ' ')}"
        if isinstance(entry, Mapping) and entry:
            found += in_words(entry, f"{name} ")
        elif entry is None or entry is False:
            found.append(f"no {name}")
        else:
            found.append(name if entry is True or entry == {} else f"{name} {_plain(entry)}")
    return found


def step_in_words(step: Mapping[str, Any] | str) -> str:
    """A release step as written in any form: `labels`, `top k 3`, `noise scale 0.1`."""
    if isinstance(step, str):
        return step.replace("_", " ")
    if "name" in step:
        options = {key: entry for key, entry in step.items() if key != "name"}
        return " ".join([str(step["name"]).replace("_", " "), *in_words(options)])
    return ", ".join(in_words({name: True if entry is None else entry for name, entry in step.items()}))


def _plain(entry: Any) -> str:
    if isinstance(entry, list | tuple):
        return ", ".join(_plain(part) for part in entry)
    return f"{entry:g}" if isinstance(entry, float) else str(entry)
