"""The stages `threshold`, `decide` and `measure`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.attacks import pairs
from memleak.attacks.fits import Fit, Kde, Normal, fit
from memleak.attacks.pairs import Arms
from memleak.attacks.single_point import Options
from memleak.metrics import decisions, epsilon, pool_audit, roc
from memleak.metrics.audit import measure_audit, models_found
from memleak.metrics.intervals import models_for_level


def threshold(plan_path: Path, signal_paths: Sequence[Path], score_path: Path | None, attack: dict[str, Any], output: Path) -> int:
    """Write, for each target, the rule that keeps the false-positive rate alpha. Returns the targets.

    `single_point` fits the signals of the fitting rounds. Every other attack counts the scores of models that were
    scored like the target and did not train on the record: mock targets.
    """
    if artefacts.read_facts(plan_path)["design"]["kind"] != "pairs":
        return pool_audit.threshold(plan_path, required(score_path), attack, output)
    fitted = {}
    if attack["name"] == "single_point":
        options = Options(**attack["options"])
        for arms in pairs.read(plan_path, signal_paths, [options.signal]):
            fitted[arms.target] = _fit_target(arms.target, *arms.of_role("fit").statistic(options.signal), options)
    else:
        scores = read_pair_scores(required(score_path))
        for arms in pairs.read(plan_path, (), ()):
            fitting = arms.of_role("fit")
            values = _scores_of(scores, fitting)
            fitted[arms.target] = _fit_target(
                arms.target, values[0], values[1], Options.model_validate({"fit": "empirical", "alpha": attack["alpha"]})
            )
    artefacts.write_json(output, {"attack": attack, "models_for_level": models_for_level(attack["alpha"]), "targets": fitted})
    return len(fitted)


def required(score_path: Path | None) -> Path:
    if score_path is None:
        raise ValueError("scores: this attack sets its thresholds on scores; give --scores")
    return score_path


def read_pair_scores(path: Path) -> pd.Series:
    """Scores by (target_id, sample_id)."""
    return artefacts.read_table(path, artefacts.SCORE_COLUMNS).set_index(["target_id", "sample_id"])["score"]


def _fit_target(target: str, inside: np.ndarray, outside: np.ndarray, options: Options) -> dict[str, Any]:
    """Fit what models with and without the record gave, [rounds] each, and set the rule."""
    try:
        fit_in, fit_out = fit(inside, options.fit), fit(outside, options.fit)
        if options.test == "likelihood_ratio":
            rule = decisions.likelihood_ratio(fit_in, fit_out, options.alpha)
        else:
            rule = decisions.threshold_rule(fit_out, options.alpha)
    except ValueError as error:
        raise ValueError(f"{target}, {options.signal}: {error}") from None
    fitted_power = None if options.fit == "empirical" else float(sum(np.diff(fit_in.survival(np.array(edges)[::-1]))[0] for edges in rule.intervals))
    return {
        "intervals": [[None if np.isinf(edge) else edge for edge in edges] for edges in rule.intervals],
        "n_fitted": len(outside),
        "in": describe(fit_in),
        "out": describe(fit_out),
        "optimistic": {  # on the very values that were fitted
            "fpr": float(rule.says_member(outside).mean()),
            "tpr": float(rule.says_member(inside).mean()),
            "fitted_power": fitted_power,
        },
    }


def describe(fitted: Fit) -> dict[str, Any]:
    """A fit's parameters, and how well it fits: Shapiro-Wilk for a normal, leave-one-out density for both."""
    from scipy import stats

    values = fitted.values
    found: dict[str, Any] = {"mean": float(values.mean()), "std": float(values.std(ddof=1)), "min": float(values[0]), "max": float(values[-1])}
    if isinstance(fitted, Normal) and 3 <= len(values) <= 5000:
        found["shapiro_p"] = float(stats.shapiro(values).pvalue)
    if isinstance(fitted, Kde):
        found["bandwidth"] = fitted.bandwidth
    if isinstance(fitted, (Normal, Kde)) and len(np.unique(values)) >= 4:  # with fewer, those that are left may be equal
        left_out = [float(type(fitted)(np.delete(values, i)).logpdf(np.array(value))[()].item()) for i, value in enumerate(values)]
        found["log_density_left_out"] = float(np.mean(left_out))  # nats a value; the better fit has more
    return found


def read_rule(fitted: dict[str, Any], alpha: float) -> decisions.Rule:
    """The rule that `threshold` wrote."""
    edges = (
        tuple(-np.inf if low is None else low for low in pair[:1]) + tuple(np.inf if high is None else high for high in pair[1:])
        for pair in fitted["intervals"]
    )
    return decisions.Rule(tuple(edges), alpha)  # type: ignore[arg-type]


def decide(plan_path: Path, signal_paths: Sequence[Path], threshold_paths: Sequence[Path], score_paths: Sequence[Path], output: Path) -> int:
    """Apply every attack's rules to models that nothing was fitted on, one row a decision, the truth beside it. Returns the rows."""
    if artefacts.read_facts(plan_path)["design"]["kind"] != "pairs":
        return pool_audit.decide(plan_path, threshold_paths, score_paths, output)
    arms_of = {arms.target: arms.of_role("holdout") for arms in pairs.read(plan_path, signal_paths, ["margin", "loss"])}
    tables = []
    for threshold_path, score_path in zip(threshold_paths, score_paths, strict=True):
        fitted, scores = artefacts.read_json(threshold_path), read_pair_scores(score_path)
        attack = fitted["attack"]
        for target, arms in arms_of.items():
            rule = read_rule(fitted["targets"][target], attack["alpha"])
            direct = arms.statistic(attack["options"]["signal"]) if attack["name"] == "single_point" else None
            for side, (is_member, ids, own) in enumerate(zip((True, False), (arms.in_id, arms.out_id), _scores_of(scores, arms), strict=True)):
                values = own if direct is None else direct[side]
                tables.append(pd.DataFrame({
                    "attack": attack["id"], "target": target, "sample_id": arms.sample_id, "round": arms.round, "target_id": ids,
                    "value": values, "score": own, "says_member": rule.says_member(values), "is_member": is_member,
                }))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    if table["score"].isna().any():
        raise artefacts.ArtefactError(
            f"{output.parent}/scores: {int(table['score'].isna().sum())} hold-out models have no score; delete the scores and run again"
        )
    artefacts.write_table(output, table)
    return len(table)


def measure(
    plan_path: Path, samples_path: Path, signal_paths: Sequence[Path], threshold_paths: Sequence[Path], score_paths: Sequence[Path],
    decisions_path: Path, headline: dict[str, Any], metrics_output: Path, exposure_output: Path, roc_output: Path, plots_output: Path,
    exposed_output: Path, features_path: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the audit's metrics (JSON), exposure by record, ROC points with their band, and as CSV the ROC for DVC and who is exposed."""
    plan, thresholds = artefacts.read_facts(plan_path), {path.stem: artefacts.read_json(path) for path in threshold_paths}
    models = [model for path in signal_paths for model in _models_of(artefacts.read_facts(path))]
    if plan["design"]["kind"] == "pairs":
        metrics, exposure, curves = _measure_pairs(plan_path, signal_paths, thresholds, score_paths, decisions_path, headline, models)
        exposed = _exposed_targets(metrics)
    else:
        found = models_found(plan, models, headline["allow_mixed"])
        settings = headline | {"epsilon": epsilon.held_against(headline["epsilon"], found.get("dp"), plan["design"])}
        metrics, exposure, curves = pool_audit.measure(plan_path, samples_path, thresholds, score_paths, settings, found)
        exposed = pool_audit.flagged(exposure)
        if features_path is not None:
            metrics["controls"] |= pool_audit.given_controls(
                plan_path, samples_path, features_path, score_paths[list(thresholds).index(headline["headline"])], signal_paths
            )
    if "loosened_by" in headline:
        metrics["models"]["loosened_by"] = headline["loosened_by"]
    artefacts.write_table(exposure_output, exposure)
    artefacts.write_table(roc_output, curves)
    artefacts.write_csv(plots_output, curves[curves["subject"] == curves["subject"].iloc[0]][["fpr", "tpr"]])
    artefacts.write_csv(exposed_output, exposed)
    metrics = artefacts.stamped("audit", metrics)
    artefacts.write_json(metrics_output, metrics)
    return metrics


def _models_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The models that a file of signals speaks of, and whether they tell tokens, which have no chance level, instead of classes."""
    return [model | ({"of_tokens": True} if "n_tokens_max" in facts else {}) for model in facts["models"]]


def _measure_pairs(
    plan_path: Path, signal_paths: Sequence[Path], thresholds: dict[str, Any], score_paths: Sequence[Path], decisions_path: Path,
    headline: dict[str, Any], models: Sequence[dict[str, Any]],
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:  # fmt: skip
    decided = artefacts.read_table(decisions_path, ["attack", "target", "round", "score", "says_member", "is_member"])
    arms = pairs.read(plan_path, signal_paths, ["margin", "loss"])
    metrics = measure_audit(artefacts.read_facts(plan_path), models, arms, thresholds, decided, headline["headline"], headline["allow_mixed"])
    claimed = epsilon.held_against(headline["epsilon"], metrics["models"].get("dp"), metrics["design"])
    metrics["epsilon"] = pairs_epsilon(decided[decided["attack"] == headline["headline"]], claimed)
    attack = thresholds[headline["headline"]]["attack"]
    scores = read_pair_scores(score_paths[list(thresholds).index(headline["headline"])])
    curves = pd.concat([roc_points(arm.target, *_statistic(arm, attack, scores)) for arm in arms], ignore_index=True)
    chosen = decided[decided["attack"] == headline["headline"]]
    if len(chosen):
        by_round = (chosen[chosen["is_member"] == truth].pivot(index="round", columns="target", values="score").to_numpy() for truth in (True, False))
        points = roc_points("all targets, hold-out", *by_round)
        curves = pd.concat([points, curves], ignore_index=True)
    exposure = pd.DataFrame(
        [
            {"target": name, **{key: found[key] for key in ("sample_id", "kind", "state", "exposure", "exposure_low", "exposure_high", "p_holm")}}
            for name, found in metrics["targets"].items()
        ]
    )
    return metrics, exposure, curves


def _exposed_targets(metrics: dict[str, Any]) -> pd.DataFrame:
    """The audited records of a `pairs` audit that are exposed; p is corrected by Holm for the number of records."""
    rows = []
    for name, found in metrics["targets"].items():
        if found["state"] == "exposed":
            tpr = found["attacks"][metrics["headline"]]["tpr"]
            known = {key: found[key] for key in ("sample_id", "source_id", "label")}
            counted = {"n_holding": tpr["n"], "n_detected": tpr["k"], "rate": tpr["value"], "low": tpr["low"], "high": tpr["high"]}
            rows.append({"target": name, **known, **counted, "p": found["p_holm"]})
    return pd.DataFrame(rows, columns=["target", *pool_audit.EXPOSED])


def pairs_epsilon(decided: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any] | None:
    """A lower bound of epsilon from the decisions about hold-out models, whose rules were fixed on others; None without such models."""
    if not len(decided):
        return None
    counts = {}
    for target, rows in decided.groupby("target"):
        inside, outside = (rows.loc[rows["is_member"] == truth, "says_member"] for truth in (True, False))
        counts[str(target)] = epsilon.Counts(int(inside.sum()), len(inside), int(outside.sum()), len(outside))
    found = epsilon.audit_pairs(counts, delta=settings["delta"], confidence=settings["confidence"], claimed=settings.get("claimed"))
    return found.as_dict() | epsilon.against_claim(settings, found.epsilon, found.p)


def _statistic(arms: Arms, attack: dict[str, Any], scores: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """What an attack compares, of the IN and the OUT arms of all rounds: the signal itself, or its score."""
    if attack["name"] == "single_point":
        return arms.statistic(attack["options"]["signal"])
    return _scores_of(scores, arms)


def _scores_of(scores: pd.Series, arms: Arms) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the IN and of the OUT arms of all rounds, [R] each."""
    inside, outside = (scores.reindex(pd.MultiIndex.from_product([ids, [arms.sample_id]])).to_numpy() for ids in (arms.in_id, arms.out_id))
    return inside, outside


def roc_points(subject: str, inside: np.ndarray, outside: np.ndarray, confidence: float = 0.95) -> pd.DataFrame:
    """A ROC with its band: the interval of the TPR at each FPR that the non-members can show.

    Where `inside` and `outside` are [rounds, targets], the records of a round share models: rounds are resampled whole,
    and the band is never narrower than if all scores were independent.
    """
    scores, truth = np.concatenate([inside.ravel(), outside.ravel()]), np.repeat([True, False], [inside.size, outside.size])
    levels = np.unique(np.concatenate([np.arange(outside.size + 1) / outside.size, [0.01, 0.05, 0.1]]))
    rates = [roc.tpr_at_fpr(scores, truth, level, confidence) for level in levels]
    low, high = np.array([rate.low for rate in rates]), np.array([rate.high for rate in rates])
    if inside.ndim == 2:
        low_rounds, high_rounds = roc.band_over_rounds(inside, outside, levels, confidence)
        low, high = np.minimum(low, low_rounds), np.maximum(high, high_rounds)
    # the TPR rises with the FPR, so the band may: it is widened, never narrowed, to do so
    low, high = np.minimum.accumulate(low[::-1])[::-1], np.maximum.accumulate(high)
    return pd.DataFrame({
        "subject": subject, "fpr": levels, "tpr": [rate.value for rate in rates],
        "precision": [roc.precision(rate.value, rate.achieved_fpr) for rate in rates],
        "low": low, "high": high, "certified": [rate.certified for rate in rates],
    })  # fmt: skip
