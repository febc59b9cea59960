"""Where the grades of a verdict lie, and when a model knows enough to be judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FITS = 0.90  # a model with a lower train accuracy does not fit its data


@dataclass(frozen=True)
class Limits:
    """Of the advantage: HIGH if the whole interval lies at or above `high`, LOW if it lies below `low`."""

    low: float
    high: float


MOST_EXPOSED = Limits(low=0.10, high=0.30)  # of the models that trained on one record
AVERAGE = Limits(low=0.03, high=0.10)  # of all records that a model trained on


def state_of(low: float, high: float, limits: Limits = MOST_EXPOSED) -> str:
    """The state that an interval of the advantage stands for."""
    if low >= limits.high:
        return "HIGH"
    if high < limits.low:
        return "LOW"
    return "MEDIUM" if low >= limits.low and high < limits.high else "UNDECIDED"


def advantage(tpr: float, fpr: float) -> float:
    """What the attacker finds beyond guessing, 0 to 1."""
    return max(0.0, (tpr - fpr) / (1 - fpr)) if fpr < 1 else 0.0


def learns(models: dict[str, Any]) -> bool:
    """Test accuracy at least five times chance, or half way from chance to 1 where there are few classes; believed where nobody knows it."""
    if models["test_accuracy"] is None or models["chance"] is None:
        return True
    return models["test_accuracy"]["value"] >= min(5 * models["chance"], (1 + models["chance"]) / 2)
