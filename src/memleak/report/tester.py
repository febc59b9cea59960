"""What MembershipTester says: its page, its recommendations as text, and its numbers. All of it reads what was measured (`found`) and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from memleak import provenance
from memleak.report import citations, front, page, tester_rules

N_SHOWN = 20  # texts in the list of the most exposed


def recommendations(found: Mapping[str, Any]) -> list[str]:
    """What to do, most urgent first, each with the number that says so and how to see whether it helped."""
    return [tester_rules.sentence(action) for action in tester_rules.of(found)]


def attack_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an attack, the highest AUC first, those without a score last."""
    rows = [{"id": name, "is_headline": name == found["headline"], **one} for name, one in found["attacks"].items()]
    return sorted(rows, key=lambda row: -row["auc"]["value"] if row["auc"] else 1.0)


def page_of(found: Mapping[str, Any], examples: pd.DataFrame, figures: Mapping[str, str], *, include_texts: bool = False) -> str:
    """The page. Texts are shown on request only: a report about leakage must not leak. `figures`: SVG by name."""
    order = ["flag", "p_value", "membership_prob"]
    most = examples[examples["split"] == "train"].sort_values(order, ascending=[False, True, False], kind="stable").head(N_SHOWN)
    shown = most.astype({"flag": bool}).to_dict("records")
    return page.rendered(
        "tester.html",
        figures,
        found=found,
        noun="image" if found["task"] == "image-classification" else "text",
        rows=attack_rows(found),
        examples=shown,
        include_texts=include_texts,
        front=front.of_tester(found),
        actions=tester_rules.of(found),
        sources=citations.of_tester(found),
        versions=provenance.versions(),
    )


def _auc(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def text_of(found: Mapping[str, Any]) -> str:
    """The audit in a few lines, for a terminal."""
    risk, verdict = found["risk"], found["verdict"]
    rows = [(row["id"], row["auc"]) for row in attack_rows(found) if row["auc"]]
    width = max(len(name) for name, _ in rows) if rows else 0
    lines = [
        f"{found['model']}: {verdict['state']}, risk {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] ({risk['level']})",
        verdict["sentence"],
        *verdict["notes"],
        *(f"  {name:<{width}}  AUC {_auc(auc)}{'  headline' if name == found['headline'] else ''}" for name, auc in rows),
        *(f"WARNING: {warning}" for warning in found["warnings"]),
    ]
    return "\n".join(lines)
