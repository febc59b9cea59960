"""Which attacks are made, and which one the verdict reads: fixed by what the auditor has, before any score is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memleak import plugins

EFFORTS = ("quick", "standard", "thorough")
METRIC = "metric"  # the auditor's combination of all attacks, no attack itself
LOSS, CONFIDENCE = {"name": "threshold", "signal": "loss"}, {"name": "threshold", "signal": "confidence"}
FREE: dict[str, dict[str, Any]] = {  # read from the one pass that every audit makes
    "loss": LOSS, "confidence": CONFIDENCE,
    "min-k": {"name": "min_k"}, "min-k-plus-plus": {"name": "min_k", "normalised": True}, "zlib": {"name": "zlib"}, "surp": {"name": "surp"},
    "dc-pdd": {"name": "dc_pdd"}, "rank": {"name": "token", "statistic": "log_rank"}, "entropy": {"name": "token", "statistic": "entropy"},
    "top-gap": {"name": "token", "statistic": "top_gap"},
}  # fmt: skip
FURTHER = {"lowercase": {"name": "lowercase"}}  # one pass more
REFERENCE = {
    "ez": {"name": "ez"}, "reference-difference": {"name": "reference_model"}, "reference-ratio": {"name": "reference_model", "form": "ratio"},
    "wbc": {"name": "wbc"},
}  # fmt: skip
GRADIENT = {"gradient-norm": {"name": "threshold", "signal": "gradient_norm"}}  # a backward pass a text
THOROUGH = GRADIENT | {"neighbourhood": {"name": "neighbourhood"}}
OF_POPULATION = {"recall": {"name": "recall"}}
CLASSIFIER = {
    "loss": LOSS, "confidence": CONFIDENCE, "margin": {"name": "threshold", "signal": "margin"}, "entropy": {"name": "threshold", "signal": "entropy"},
    "modified-entropy": {"name": "threshold", "signal": "modified_entropy"}, "correctness": {"name": "threshold", "signal": "correctness"},
}  # fmt: skip
WITHOUT_LABELS = ("confidence", "entropy")  # of a classifier's attacks
LANGUAGE = ("causal-lm", "masked-lm")  # tasks of models that tell tokens; those of the others are classifiers
# Where a reference is there, EZ: of our own two measurements with the base as reference it has .989 and .893 (AUC), .58 and .28 (TPR at 1 %),
# the difference of losses .985 and .893, .51 and .27; for masked models the likelihood ratio is what was tried (Mireshghallah et al. 2022).
HEADLINES = {
    ("causal-lm", True): "ez", ("causal-lm", False): "min-k-plus-plus",
    ("masked-lm", True): "reference-difference", ("masked-lm", False): "loss",
}  # fmt: skip
ALPHAS = (0.01, 0.05, 0.1)  # false-positive rates of the verdict, the lowest for which there are enough non-members
FITTED = 1.5  # non-members, as a multiple of 1 / alpha, of whom four fifths set a threshold


@dataclass(frozen=True)
class Situation:
    """What an auditor has."""

    task: str
    has_reference: bool = False
    has_population: bool = False
    has_labels: bool = False


def choose(situation: Situation, wanted: str | Sequence[str] | Mapping[str, Any], effort: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The attacks by their ids, as params.yaml names them, and the headline. Loss (or confidence) is always among them."""
    if effort not in EFFORTS:
        raise ValueError(f"effort: '{effort}' is unknown; it is {', '.join(EFFORTS)}")
    possible = _possible(situation)
    if not wanted:
        raise ValueError(f"attacks is empty; leave it out for the default, or name some of {', '.join(possible)}")
    if wanted == "default":
        chosen = {name: entry for name, entry in possible.items() if _is_within(name, effort)}
    elif isinstance(wanted, Mapping):
        chosen = {name: dict(entry) for name, entry in wanted.items()}
    else:
        chosen = {}
        for name in [wanted] if isinstance(wanted, str) else wanted:
            known = name.replace("_", "-")
            if known == METRIC:
                continue
            if known not in possible:
                raise ValueError(f"attacks: {_why_not(known, situation)}{plugins.nearest(known, list(possible))}")
            chosen[known] = possible[known]
    base = {name: possible[name] for name in ("loss", "confidence") if name in possible}
    headline = headline_of(situation)
    attacks = base | chosen
    if wanted != "default" and headline not in attacks:  # of those that were asked for, the first
        headline = next(iter(chosen), next(iter(base)))
    return attacks, headline


def headline_of(situation: Situation) -> str:
    """The attack with the strongest evidence that the situation allows."""
    if situation.task not in LANGUAGE:
        return "loss" if situation.has_labels else "confidence"
    return HEADLINES[situation.task, situation.has_reference]


def alpha_for(n_non_members: int) -> float:
    """The lowest false-positive rate for which so many non-members set a threshold; the highest where they set none."""
    return next((alpha for alpha in ALPHAS if n_non_members * alpha >= FITTED), ALPHAS[-1])


def _possible(situation: Situation) -> dict[str, dict[str, Any]]:
    if situation.task not in LANGUAGE:
        several = {"correctness"} if situation.task == "token-classification" else set()  # a text's words are right or wrong each for itself
        known = {name: entry for name, entry in (CLASSIFIER | GRADIENT).items() if name not in several}
        return known if situation.has_labels else {name: known[name] for name in WITHOUT_LABELS}
    found = FREE | FURTHER | (REFERENCE if situation.has_reference else {}) | THOROUGH
    return found | (OF_POPULATION if situation.has_population and situation.task == "causal-lm" else {})


def _is_within(name: str, effort: str) -> bool:
    """Whether an effort pays for an attack: `quick` asks once, `standard` asks a reference and once more, `thorough` several times."""
    costs = {"quick": (*FURTHER, *REFERENCE, *THOROUGH, *OF_POPULATION), "standard": (*THOROUGH, *OF_POPULATION), "thorough": ()}
    return name not in costs[effort]


def _why_not(name: str, situation: Situation) -> str:
    if name in REFERENCE and not situation.has_reference:
        return f"'{name}' compares with a model that has not seen the texts; pass reference= to MembershipTester"
    if name in OF_POPULATION:
        return f"'{name}' puts other texts before each; pass population=, and a causal model"
    if name in CLASSIFIER and situation.task not in LANGUAGE and not situation.has_labels:
        return f"'{name}' needs labels; pass train_labels and test_labels"
    return f"'{name}' is no attack on a {situation.task} model here"
