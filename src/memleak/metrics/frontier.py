"""The numbers of a sweep: what each variant of an audit costs in accuracy, and what it gains in privacy.

Every variant was attacked anew, by references that trained and were asked as its targets are. Tests against the
baseline are paired over targets and samples, and corrected over the variants (Holm). Variants that are asked the same
of the same models are one audit under several names, and count once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats
from tqdm import tqdm

from memleak import artefacts
from memleak.metrics import clusters, compare, pooled
from memleak.metrics.intervals import holm
from memleak.metrics.variants import Variant

CONFIDENCE = 0.95
LEVELS = (0.01, 0.001)  # false-positive rates at which the TPR is shown; the first is tested
LEAST = 4  # recipes from which a correlation is given: of three its interval is all of [-1, 1]


def measure(sweep: Mapping[str, Any], output: Path, table_output: Path) -> dict[str, Any]:
    """Write the numbers of a sweep as JSON, and as CSV with one row a variant.

    `sweep` has the keys sweep (its id), baseline (a label), headline (an attack's id) and variants: one entry each, as
    `Variant` describes.
    """
    variants = [Variant(entry) for entry in sweep["variants"]]
    baseline = next(variant for variant in variants if variant.label == sweep["baseline"])
    # a variant is read, compared and dropped, for its answers and scores are as large as those of an audit
    rows = [
        _row(baseline if entry["label"] == baseline.label else Variant(entry), baseline, sweep["headline"])
        for entry in tqdm(sweep["variants"], desc=sweep["sweep"], unit="variant", disable=None)
    ]
    correct(rows, [variant.asked for variant in variants])
    for row, is_best in zip(rows, efficient(rows), strict=True):
        row["is_efficient"] = is_best
    distinct = {variant.asked: variant.trained for variant in variants}.values()
    files = Counter(file for trained in distinct for file in {(recipe, shard) for recipe, shard, _ in trained})
    found = {
        "sweep": sweep["sweep"],
        "kind": baseline.facts["design"]["kind"],
        "headline": sweep["headline"],
        "baseline": baseline.label,
        "alpha": round(1 - CONFIDENCE, 12),  # of one measure's tests over all variants together
        "confidence": CONFIDENCE,
        "n_targets": len(baseline.audited_models),
        "n_samples": baseline.n_samples,
        "n_models": len(set().union(*distinct)),
        "n_shared": sum(n > 1 for n in files.values()),  # files of models that several variants ask
        "utility_of": "audited samples" if baseline.has_answers else "test records",
        "variants": rows,
        "correlation": _correlation_of_recipes(rows, variants, baseline),
    }
    found = artefacts.stamped("sweep", found)
    artefacts.write_json(output, found)
    artefacts.write_csv(table_output, table(rows))
    return found


def _row(variant: Variant, baseline: Variant, headline: str) -> dict[str, Any]:
    """One variant: its own figures, and its differences from the baseline."""
    variant.check_like(baseline)
    attacks = {name: _attack(known) for name, known in variant.metrics["attacks"].items()}
    return {
        "label": variant.label,
        "audit": variant.entry["audit"],
        "changes": variant.entry["changes"],
        "release": variant.entry["release"],
        **variant.accuracies(CONFIDENCE),
        **(_attack_of_pairs(variant) if variant.is_pairs else attacks[headline]),
        "attacks": attacks,
        "epsilon": _epsilon(variant.metrics.get("epsilon")),
        "dp": variant.metrics["models"].get("dp"),
        "failed": _failed(variant.metrics.get("controls", {})),
        "against": None if variant is baseline else _against(variant, baseline),
    }


def _attack(known: Mapping[str, Any]) -> dict[str, Any]:
    """AUC and TPR of an attack of a variant's own metrics; a `pairs` audit has them for no attack alone."""
    rates = [one for one in known.get("rates", ()) if one["at_fpr"] in LEVELS]
    return {
        "auc": known.get("auc"),
        "tpr": [{key: one[key] for key in ("at_fpr", "value", "low", "high", "certified")} for one in rates],
    }


def _attack_of_pairs(variant: Variant) -> dict[str, Any]:
    """AUC and TPR of the headline attack, hold-out rounds of all records in one pool; None without such rounds."""
    if (own := variant.scores) is None:
        return {"auc": None, "tpr": []}
    scores = clusters.pool(own.values, own.is_member, own.unit, own.group)
    return _attack({"auc": pooled.auc(scores, CONFIDENCE), "rates": pooled.rates(scores, LEVELS, CONFIDENCE)})


def _epsilon(known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The lower bound beside the claim; whether it alarms is said once all variants are known."""
    if known is None:
        return None
    return {"epsilon": known["epsilon"], **{key: known.get(key) for key in ("delta", "confidence", "claimed", "p", "claim_note")}}


def _failed(controls: Mapping[str, Any]) -> list[str]:
    """The controls of a variant's own audit that say its rates cannot be believed."""
    return [name for name, found in controls.items() if isinstance(found, Mapping) and found.get("alarm")]


def _against(variant: Variant, baseline: Variant) -> dict[str, dict[str, Any] | None]:
    """The variant's accuracy on non-members, AUC and TPR less the baseline's, over the same targets and samples.

    One training of each recipe does not show how much trainings of one recipe differ: then nothing is tested, unless the
    models are the same (another release alone). A test of many samples would take any two trainings for two recipes.
    """
    found: dict[str, dict[str, Any] | None] = {"utility": variant.utility_less(baseline, CONFIDENCE), "auc": None, "tpr": None}
    if (a := variant.scores) is None or (b := baseline.scores) is None:
        return found
    tested = compare.paired_bootstrap(a.values, b.values, a.is_member, a.unit, a.group, LEVELS[0], CONFIDENCE)
    found |= {name: {key: tested[name][key] for key in ("difference", "low", "high", "p")} for name in ("auc", "tpr")}
    if len(np.unique(a.unit)) < 2 and variant.audited_models != baseline.audited_models:
        return {name: test and test | dict.fromkeys(("low", "high", "p")) for name, test in found.items()}
    return found


def correct(rows: Sequence[dict[str, Any]], names: Sequence[Any]) -> None:
    """Put Holm's p beside every p, over the variants, and say which claims of epsilon are refuted."""
    for what in ("utility", "auc", "tpr"):
        _holm_once([row["against"] and row["against"][what] for row in rows], names)
    bounds = [row["epsilon"] for row in rows]
    _holm_once(bounds, names)
    for bound in bounds:
        if bound is not None:
            bound["alarm"] = bound["p_holm"] is not None and bound["p_holm"] <= 1 - bound["confidence"]


def _holm_once(tests: Sequence[dict[str, Any] | None], names: Sequence[Any]) -> None:
    """`p_holm` of tests that have a `p`; several of one name are one test."""
    p = {name: test["p"] for test, name in zip(tests, names, strict=True) if test is not None and test["p"] is not None}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    for test, name in zip(tests, names, strict=True):
        if test is not None:
            test["p_holm"] = float(corrected[name]) if test["p"] is not None else None


def efficient(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which variants no other beats: is as good in accuracy and in AUC, and better in one, by point estimates.

    An AUC below one half counts as one half: an attack that is worse than guessing shows no more privacy than guessing.
    """
    known = np.array(
        [[np.nan] * 2 if None in (row["utility"], row["auc"]) else [row["utility"]["value"], -max(row["auc"]["value"], 0.5)] for row in rows]
    )
    no_worse = (known[:, None] >= known).all(axis=2)  # [V, V]: the first beside the second
    is_beaten = np.any(no_worse & (known[:, None] > known).any(axis=2), axis=0)
    return [bool(x) for x in np.isfinite(known).all(axis=1) & ~is_beaten]


def _correlation_of_recipes(rows: Sequence[Mapping[str, Any]], variants: Sequence[Variant], baseline: Variant) -> dict[str, Any] | None:
    """Gap against AUC, one point a recipe: as the baseline releases, for what a release does to an attack has nothing to do with how models generalise."""
    points = {
        variant.asked: row
        for row, variant in zip(rows, variants, strict=True)
        if variant.entry["release"] == baseline.entry["release"] and row["gap"] is not None and row["auc"] is not None
    }.values()
    gap, auc = (np.array([row[key]["value"] for row in points]) for key in ("gap", "auc"))
    found = correlation(gap, auc)
    return found and found | {"labels": [row["label"] for row in points]}


def correlation(x: np.ndarray, y: np.ndarray, confidence: float = CONFIDENCE) -> dict[str, Any] | None:
    """Pearson's r of two measures [V] of variants, with Fisher's interval and two-sided p (t); None of fewer than four, or where one is constant.

    Pearson, since theory says how attacks grow with the gap (the simplest gains exactly half of it in balanced
    accuracy; Yeom et al. 2018), and since ranks of so few variants take few values and hide how far apart they lie; one
    variant far off the others can make it or break it. The interval speaks of defences like these, not of these alone:
    errors of measurement are part of the scatter, but those that variants share, with their targets and samples, move
    all points alike and do not count.
    """
    n = len(x)
    if n < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    centre, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), special.ndtri(0.5 + confidence / 2) / np.sqrt(n - 3)
    t = r * np.sqrt((n - 2) / max(1 - r**2, 1e-300))
    return {
        "value": r, "low": float(min(np.tanh(centre - half), r)), "high": float(max(np.tanh(centre + half), r)),
        "p": float(2 * stats.t.sf(abs(t), n - 2)), "n": n,
    }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The figures, one row a variant; empty where there are none."""
    return pd.DataFrame([dict(_flat(row)) for row in rows])


def _flat(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Columns of one variant, the same for all."""
    yield "variant", row["label"]
    yield "audit", row["audit"]
    rates = {one["at_fpr"]: one for one in row["tpr"]}
    estimates = {name: row[name] for name in ("utility", "train_accuracy", "gap", "auc")} | {f"tpr_at_{f:g}": rates.get(f) for f in LEVELS}
    for name, found in estimates.items():
        for key, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
            yield column, found and found[key]
    for name in ("utility", "auc", "tpr"):
        found = row["against"] and row["against"][name]
        for key in ("difference", "low", "high", "p", "p_holm"):
            yield f"{name}_{key}" if key == "difference" else f"{name}_difference_{key}", found and found[key]
    for key in ("epsilon", "delta", "claimed", "p", "p_holm", "alarm"):
        yield key if key in ("epsilon", "delta") else f"epsilon_{key}", row["epsilon"] and row["epsilon"][key]
    yield "is_efficient", row["is_efficient"]
