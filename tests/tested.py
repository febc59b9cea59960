"""What MembershipTester found, made up: the numbers that the beginning of a page reads."""

from __future__ import annotations

from typing import Any

AUC = {"value": 0.51, "low": 0.42, "high": 0.60}
N = 60  # texts of each side


def found() -> dict[str, Any]:
    """An audit of two lists of texts in which every control was measured and none alarms."""
    control = {"auc": AUC, "p": 0.4, "alarm": False}
    return {
        "model": "tuned", "task": "causal-lm", "form": "GPT2LMHeadModel tuned", "reference": "base", "headline": "ez", "alpha": 0.05,
        "n": {"members": N, "non_members": N, "overlap": 0, "near": 0},
        "controls": {
            "blind": control | {"why": None}, "permuted": {"n": 100, "share_covered": 0.95, "alarm": False}, "placebo": dict(control),
            "length": {"sizes": {"bytes": {"auc": AUC}}, "p": 0.4, "alarm": False}, "form": {"columns": {"capitals": control}, "p": 0.4, "alarm": False},
            "overlap": [{"low": 0.0, "high": 0.2, "n": N}, {"low": 1.0, "high": 1.0, "n": 0}],
        },
        "risk": {"value": 62.0, "low": 41.0, "high": 80.0, "level": "high"},
        "verdict": {"state": "HIGH", "sentence": "It tells.", "notes": ["A note."], "is_refused": False},
    }  # fmt: skip
