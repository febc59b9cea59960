"""Worlds whose truth is known: records, distributions, and audits in which we know who leaks how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from memleak.attacks.pairs import Arms
from memleak.metrics import audit, decisions
from memleak.metrics.intervals import models_for_level


@dataclass(frozen=True)
class World:
    """A distribution of signals: how to draw from it, and its exact distribution function."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    cdf: Callable[[float], float]

    def rate(self, rule: decisions.Rule) -> float:
        """The exact share of fresh values that a rule accuses."""
        return float(sum(self.cdf(high) - self.cdf(low) for low, high in rule.intervals))


WORLDS = {
    "normal": World(lambda g, n: g.normal(size=n), stats.norm.cdf),
    "skewed": World(lambda g, n: g.gamma(2, size=n), stats.gamma(2).cdf),
    "skewed to the left": World(lambda g, n: -g.gamma(2, size=n), lambda x: stats.gamma(2).sf(-x)),
    "heavy-tailed": World(lambda g, n: g.standard_t(3, size=n), stats.t(3).cdf),
}


@dataclass(frozen=True)
class Records:
    """A data set as a design sees it. `group_id` names records of equal content."""

    labels: np.ndarray
    group_id: np.ndarray
    atypicality_rank: np.ndarray
    n_classes: int = 10


def records(n: int = 200, n_groups: int | None = None, seed: int = 0) -> Records:
    """Records in random order of atypicality; with `n_groups`, several records have the same content."""
    draw = np.random.default_rng(seed)
    groups = np.arange(n) if n_groups is None else draw.integers(0, n_groups, n)
    return Records(draw.integers(0, 10, n), groups, draw.permutation(n))


def audit_world(
    shifts: dict[str, float], *, rounds: int = 24, holdout: int = 16, seed: int = 0, alpha: float = 0.05, fit: str = "normal",
    drift: float = 0.0, unlike: float = 0.0, **models: float,
) -> dict:  # fmt: skip
    """The metrics of an audit whose margins are unit normals, moved by a target's shift where it was trained on.

    Both arms of a round share half of their variance, and so do all targets of a round. `drift` moves the later half
    of the rounds; `unlike` makes hold-out models differ from the fitted ones, so that thresholds do not hold.
    """
    draw = np.random.default_rng(seed)
    n, role = rounds + holdout, np.repeat(["fit", "holdout"], [rounds, holdout])
    common = draw.normal(size=n) * np.sqrt(0.5) + drift * (np.arange(n) >= n / 2) + unlike * (role == "holdout")
    index = np.concatenate([np.arange(rounds), np.arange(holdout)])
    ids = np.array([f"{r[0]}{i:04d}" for r, i in zip(role, index, strict=True)], dtype=object)
    arms, fitted, rows = [], {}, []
    for number, (name, shift) in enumerate(shifts.items()):
        outside = common + draw.normal(size=n) * np.sqrt(0.5)
        inside = common + draw.normal(size=n) * np.sqrt(0.5) + shift
        signals = [{"margin": x[:, None], "loss": np.logaddexp(0, -x)[:, None]} for x in (inside, outside)]
        arms.append(Arms(name, number, role, index, ids + "-in", ids + "-out", *signals))
        rule = decisions.threshold_rule(decisions.fit(outside[:rounds], fit), alpha)
        rates = {part: float(rule.says_member(x[:rounds]).mean()) for part, x in (("fpr", outside), ("tpr", inside))}
        fitted[name] = {"n_fitted": rounds, "intervals": [], "in": {}, "out": {}, "optimistic": rates}
        for x, is_member in ((inside, True), (outside, False)):
            said = rule.says_member(x[rounds:])
            rows += [("np", name, int(r), bool(s), is_member) for r, s in zip(index[rounds:], said, strict=True)]
    kinds = {name: name.rstrip("0123456789") for name in shifts}
    plan = {
        "audit": "world", "design": {"rounds": rounds, "holdout_rounds": holdout}, "recipe": "r", "data": {"n_classes": 10}, "seed": seed,
        "targets": {name: {"kind": kind, "is_canary": kind == "mislabelled"} for name, kind in kinds.items()},
    }  # fmt: skip
    model = {
        "device": "cpu", "torch": "2.9.0+cpu", "n_train": 500, "n_test": 500, "train_loss": 0.01, "test_loss": 0.4,
        "train_accuracy": 1.0, "test_accuracy": 0.95, "loss_curve": [1.0, 0.5], "accuracy_curve": [0.5, 0.9],
    }  # fmt: skip
    thresholds = {"np": {"attack": {"options": {"alpha": alpha}}, "models_for_level": models_for_level(alpha), "targets": fitted}}
    decided = pd.DataFrame(rows, columns=["attack", "target", "round", "says_member", "is_member"])
    return audit.measure_audit(plan, [model | models], arms, thresholds, decided, "np", allow_mixed=False)
