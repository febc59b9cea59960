"""What MembershipTester returns: tables by attack, numbers with their intervals, a verdict, figures, a page."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.metrics.membership import Membership

SHOWN = ("probabilities", "curves", "dashboard", "layers")  # figures of the page
PROBABILITIES = ("membership_prob", "prob_low", "prob_high")


@dataclass(frozen=True, repr=False)
class AttackReport:
    """An audit of texts. `attack_frames`: a table an attack, a row a text; `found`: all numbers of the whole, as `to_json` writes them."""

    attack_frames: dict[str, pd.DataFrame]
    found: dict[str, Any]
    roc: pd.DataFrame  # points of every attack: subject, fpr, tpr, low, high, certified
    prior: float = 0.5

    @property
    def risk_score(self) -> float:
        """0 (no evidence) to 100, of the headline attack; see `report.verdict`."""
        return self.found["risk"]["value"]

    @property
    def risk_interval(self) -> tuple[float, float]:
        return self.found["risk"]["low"], self.found["risk"]["high"]

    @property
    def risk_level(self) -> str:
        """low, moderate, high, critical, or inconclusive: by the lower end of the interval."""
        return self.found["risk"]["level"]

    @property
    def legacy_risk_score(self) -> float:
        """100 times the largest AUC, as the earlier tool had it: above 50 without any leak. For comparison only."""
        return self.found["legacy_risk_score"]

    @property
    def verdict(self) -> str:
        """LOW, MEDIUM, HIGH or UNDECIDED."""
        return self.found["verdict"]["state"]

    @property
    def sentences(self) -> list[str]:
        """The verdict in words, and what to know beside it."""
        return [self.found["verdict"]["sentence"], *self.found["verdict"]["notes"]]

    @property
    def controls(self) -> dict[str, Any]:
        return self.found["controls"]

    @property
    def warnings(self) -> list[str]:
        return self.found["warnings"]

    @property
    def metadata(self) -> dict[str, Any]:
        """Sizes and names, the keys of the earlier tool among them."""
        n = self.found["n"]
        known = {key: self.found[key] for key in ("task", "reference", "headline", "seed", "max_length", "directory")}
        return {"train_size": n["members"], "test_size": n["non_members"], "model_name": self.found["model"], **known, "n": n, "prior": self.prior}

    @property
    def summary(self) -> pd.DataFrame:
        """All frames, one below the other."""
        return pd.concat(self.attack_frames.values(), ignore_index=True)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row an attack, the highest AUC first, and a row for guessing."""
        rows = [{"attack": name, **_flat(one)} for name, one in self.found["attacks"].items()]
        table = pd.DataFrame(rows).sort_values("auc", ascending=False, kind="stable", na_position="last")
        guess = {"attack": "random", "auc": 0.5, "accuracy": 0.5, "tpr_at_1": 0.01, "tpr_at_10": 0.1}
        return pd.concat([table, pd.DataFrame([guess])], ignore_index=True)

    @cached_property
    def examples(self) -> pd.DataFrame:
        """One row a text: what the headline attack says of it, and the scores of the others."""
        table = self.attack_frames[self.found["headline"]].drop(columns="attack")
        others = {f"score_{name}": frame["score"].to_numpy() for name, frame in self.attack_frames.items() if name != self.found["headline"]}
        return table.assign(**others)

    def visualize(self) -> dict[str, Any]:
        """Figures of matplotlib: probabilities, heatmap, curves, dashboard, and where gradients were looked at by layer, layers."""
        from memleak.report import tester_figures

        return tester_figures.all_of(self.found, self.attack_frames, self.roc)

    def recommendations(self) -> list[str]:
        """What to do, most urgent first, each with the number that says so."""
        from memleak.report import tester

        return tester.recommendations(self.found)

    def with_prior(self, prior: float) -> AttackReport:
        """The same evidence where a share `prior` of the candidates are members: every P(member) moves, nothing else does."""
        frames = {}
        for name, frame in self.attack_frames.items():
            value, low, high = (frame[column].to_numpy(dtype=np.float64) for column in PROBABILITIES)
            moved = Membership(value, low, high, self.prior).with_prior(prior)
            frames[name] = frame.assign(membership_prob=moved.probability, prob_low=moved.low, prob_high=moved.high)
        return dataclasses.replace(self, attack_frames=frames, prior=prior)

    def compare(self, other: AttackReport) -> pd.DataFrame:
        """What changed from this audit to another, attack by attack: the AUCs, their difference, and an interval for it.

        Both half widths are added up: the audits may have texts in common.
        """
        if not isinstance(other, AttackReport):
            raise TypeError(f"compare: found {type(other).__name__}, expected the report of another audit, as run_attacks returns it")
        rows = []
        for name, one in self.found["attacks"].items():
            before, after = one["auc"], (other.found["attacks"].get(name) or {}).get("auc")
            if before and after:
                change = after["value"] - before["value"]
                low, high = (after[end] - before[opposite] for end, opposite in (("low", "high"), ("high", "low")))
                rows.append({"attack": name, "auc": before["value"], "auc_other": after["value"], "change": change, "low": low, "high": high})
        return pd.DataFrame(rows, columns=["attack", "auc", "auc_other", "change", "low", "high"])

    def to_html(self, path: str | Path | None = None, *, include_texts: bool = False) -> str | Path:
        """The page; written where a path is given, which is returned then. It shows texts on request only."""
        from memleak.report import tester, tester_figures

        drawn = self.visualize()
        svg = {name: tester_figures.svg_of(drawn[name]) for name in SHOWN if name in drawn}
        return _written(tester.page_of(self.found, self.examples, svg, include_texts=include_texts), path)

    def to_json(self, path: str | Path | None = None) -> str | Path:
        """All numbers of the whole, without texts; or the path that they were written to."""
        return _written(json.dumps(self.found, indent=1, allow_nan=False) + "\n", path)

    def to_csv(self, path: str | Path | None = None, *, include_texts: bool = False) -> str | Path:
        """The summary as a table, or the path that it was written to; without what the texts say, unless that is asked for."""
        return _written(artefacts.csv_text(self.summary if include_texts else self.summary.drop(columns="text")), path)

    def __str__(self) -> str:
        from memleak.report import tester

        return tester.text_of(self.found)

    __repr__ = __str__  # what a notebook and a prompt show: not a thousand rows

    def _repr_html_(self) -> str:
        """The verdict and the attacks, for a notebook; the page is `to_html`."""
        told, table = html.escape(str(self).split("\n  ")[0]), self.metrics[["attack", "auc", "low", "high", "tpr_at_1", "tpr_at_10"]]
        return f"<p>{told.replace(chr(10), '<br>')}</p>{table.to_html(index=False, float_format='{:.3f}'.format, na_rep='')}"


def _flat(one: Mapping[str, Any]) -> dict[str, Any]:
    auc, accuracy = one["auc"] or {}, one["accuracy"] or {}
    rates: dict[str, float | None] = {}
    for key, column in (("tpr_1", "tpr_at_1"), ("tpr_10", "tpr_at_10")):
        rate = one[key] or {}
        rates |= {column: rate.get("value"), f"{column}_low": rate.get("low"), f"{column}_high": rate.get("high")}
    return {
        "auc": auc.get("value"), "low": auc.get("low"), "high": auc.get("high"), **rates, "accuracy": accuracy.get("value"), "why": one["why"],
    }  # fmt: skip


def _written(text: str, path: str | Path | None) -> str | Path:
    if path is None:
        return text
    with artefacts.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
