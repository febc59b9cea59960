"""RaMIA: was anything in a range around the sample trained on? The views of a sample are the range.

Tao and Shokri 2024, "Range Membership Inference Attacks".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic
from pydantic import BaseModel, Field, model_validator

from memleak import plugins
from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn, score_each
from memleak.params import Frozen, attack_options, sentences


class Options(Frozen):
    """Which attack scores the points of the range, and which of their scores are averaged."""

    point: dict[str, Any] = Field({"name": "rmia"}, description="name and options of the attack that scores each point of the range")
    trim_low: float = Field(0.0, ge=0, lt=1, description="share of the views with the lowest scores that is left out")
    trim_high: float = Field(0.0, ge=0, lt=1, description="share of the views with the highest scores that is left out")

    @model_validator(mode="after")
    def _something_is_left(self) -> Options:
        if self.trim_low + self.trim_high >= 1:
            raise ValueError(f"trim_low {self.trim_low:g} and trim_high {self.trim_high:g} leave no view; their sum must be below 1")
        return self

    @model_validator(mode="after")
    def _point_attack_is_known(self) -> Options:
        if not isinstance(self.point.get("name"), str):
            raise ValueError(f"point: 'name' is missing{plugins.nearest('', list(plugins.BUILT_IN['attacks']))}")
        try:
            if plugins.locate("attacks", self.point["name"])[0] == __name__:
                raise ValueError("point.name: the points of a range need an attack on points, such as rmia or lira")
            attack_options(self.point)
        except pydantic.ValidationError as error:
            raise ValueError("; ".join(f"point.{line}" for line in sentences(error))) from None
        except plugins.UnknownPlugin as error:
            raise ValueError(f"point.name: {error}") from None
        return self

    @property
    def needs(self) -> Needs:
        """What the point attack needs."""
        return getattr(self.point_options, "needs", Needs(signals=()))

    @property
    def point_options(self) -> BaseModel:
        return attack_options(self.point)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """The trimmed mean over views of the point attack's scores, [N], in the point attack's unit.

    Each view is a point of the sample's range and is scored alone, with the population's own points of that view, or
    with its only view. Of Q views the floor(trim_low Q) lowest and the floor(trim_high Q) highest scores are left out.
    """
    function, point = plugins.function_of("attacks", options.point["name"]), options.point_options
    views = [function(_evidence_of_view(evidence, q), point) for q in range(_n_views(evidence.target))]
    return trimmed_mean(np.stack(views, axis=-1), options.trim_low, options.trim_high)


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """`score` of every turn, [T, N], as fast as the point attack scores them all."""
    function, point = plugins.function_of("attacks", options.point["name"]), options.point_options
    all_at_once = getattr(plugins.module_of("attacks", options.point["name"]), "score_all", None)
    views = []
    for q in range(_n_views(pool.signals)):
        seen = _pool_of_view(pool, q)
        views.append(all_at_once(seen, turns, point) if all_at_once else score_each(function, seen, turns, point))
    return trimmed_mean(np.stack(views, axis=-1), options.trim_low, options.trim_high)


def trimmed_mean(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean over the last axis [..., Q] without the floor(low Q) lowest and the floor(high Q) highest values."""
    n_views = scores.shape[-1]
    dropped = int(low * n_views + 1e-9)  # 0.29 of 100 is 28.999999999999996 in floating point, and means 29
    kept = max(dropped + 1, n_views - int(high * n_views + 1e-9))
    return np.sort(scores, axis=-1)[..., dropped:kept].mean(axis=-1)


def _n_views(signals: Mapping[str, np.ndarray]) -> int:
    counts = {values.shape[_axis(name)] for name, values in signals.items()}
    if len(counts) != 1:
        raise AttackError(f"range: the signals have {sorted(counts)} views, expected one number for all; query them again")
    return counts.pop()


def _axis(name: str) -> int:
    """Where the views of a signal stand: last, but for logits [..., Q, C]."""
    return -2 if name == "logits" else -1


def _view(signals: Mapping[str, np.ndarray], view: int) -> dict[str, np.ndarray]:
    return {name: values[..., view : view + 1, :] if _axis(name) == -2 else values[..., view : view + 1] for name, values in signals.items()}


def _view_of_population(signals: Mapping[str, np.ndarray] | None, view: int, n_views: int) -> dict[str, np.ndarray] | None:
    if not signals:
        return None
    found = _n_views(signals)
    if found not in (1, n_views):
        raise AttackError(f"range: the population was queried in {found} views, expected 1, or {n_views} as the samples; query it again")
    return _view(signals, min(view, found - 1))


def _evidence_of_view(evidence: Evidence, view: int) -> Evidence:
    n_views = _n_views(evidence.target)
    return replace(
        evidence,
        target=_view(evidence.target, view),
        reference=_view(evidence.reference, view),
        population_target=_view_of_population(evidence.population_target, view, n_views),
        population_reference=_view_of_population(evidence.population_reference, view, n_views),
    )


def _pool_of_view(pool: Pool, view: int) -> Pool:
    n_views = _n_views(pool.signals)
    return replace(pool, signals=_view(pool.signals, view), population=_view_of_population(pool.population, view, n_views))
