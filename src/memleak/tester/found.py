"""What an audit of texts found: numbers of the whole as one dictionary, and one table an attack with a row a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from memleak import artefacts
from memleak.metrics import combined, membership, pooled, texts
from memleak.metrics.clusters import pool
from memleak.models.hub import Checkpoint
from memleak.params.texts import looks_local
from memleak.report import verdict as verdicts
from memleak.tester import layers
from memleak.tester.choice import LANGUAGE, METRIC
from memleak.tester.texts import Sides
from memleak.tester.walk import Walked

COLUMNS = (
    "id", "text", "split", "loss", "confidence", "membership_prob", "rank", "attack", "score", "p_value", "prob_low", "prob_high", "flag",
)  # fmt: skip
FPRS = (0.01, 0.1)  # of the rates that are reported
ALWAYS = ("loss", "confidence", METRIC)  # attacks that have a frame whatever is known
WITHOUT_LOSS = "a classifier's loss takes labels, and none were given"


@dataclass(frozen=True)
class Setting:
    """What the audit was made with."""

    checkpoint: Checkpoint
    reference: Checkpoint | None
    sides: Sides
    has_labels: bool
    has_unused_labels: bool  # of a language model, which is asked about tokens
    n_population: int
    n_truncated: tuple[int, int]  # members, non-members
    size: tuple[int, int] | None  # that images of several sizes were brought to
    seed: int
    has_controls: bool
    has_layers: bool  # whether gradients are looked at layer by layer
    directory: str | None

    @property
    def is_unlabelled(self) -> bool:
        """Whether the model is a classifier and nobody knows what it should have said."""
        return self.checkpoint.task not in LANGUAGE and not self.has_labels


@dataclass(frozen=True)
class Audited:
    """The audited texts in the order of their sample ids, [N], and the scores of every attack, [N] each."""

    samples: pd.DataFrame  # id, text, row of the data set, is_member, group_id
    scores: dict[str, np.ndarray]
    signals: dict[str, np.ndarray]  # loss, confidence, entropy, margin where they are known

    @property
    def is_member(self) -> np.ndarray:
        return self.samples["is_member"].to_numpy(dtype=bool)

    @property
    def group(self) -> np.ndarray:
        return self.samples["group_id"].to_numpy()

    @classmethod
    def read(cls, walked: Walked, setting: Setting) -> Audited:
        """The texts by the rows of the data set: members first, then non-members."""
        samples, sides = walked.samples, setting.sides
        samples = samples[samples["is_audited"]].reset_index(drop=True)
        rows = samples["source_id"].to_numpy()
        named = pd.DataFrame({"id": [*sides.members.id, *sides.non_members.id], "text": [*sides.members.text, *sides.non_members.text]}, dtype=object)
        known = named.iloc[rows].reset_index(drop=True).assign(row=rows, is_member=samples["is_member"], group_id=samples["group_id"])
        names = [name for name in ("loss", "confidence", "entropy", "margin") if walked.has_signal(name)]
        said = {name: walked.signal(name).astype(np.float64) for name in names}
        if setting.is_unlabelled:
            said = {name: values for name, values in said.items() if name not in ("loss", "margin")}
        return cls(known, {name: walked.scores(name) for name in walked.attacks}, said)


def measured(walked: Walked, setting: Setting) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """All that the report shows: the numbers, and the frames by attack, `loss`, `confidence` and `metric` always among them."""
    audited, metrics = Audited.read(walked, setting), walked.metrics
    scores = audited.scores | {METRIC: combined.combine(np.stack(list(audited.scores.values())), audited.is_member, audited.group, setting.seed)}
    attacks = _attacks(metrics, audited, scores, walked.failed)
    frames = {name: frame(name, audited, scores.get(name), setting.seed) for name in attacks}
    controls = _controls(metrics, audited, setting)
    if setting.is_unlabelled:
        metrics["models"] |= {"train_accuracy": None, "test_accuracy": None}  # nobody knows which answers were right
    elif setting.checkpoint.task not in LANGUAGE:
        metrics["models"]["chance"] = 1 / len(setting.checkpoint.class_names)  # the data need not hold all classes
    headline = metrics["headline"]
    fewest = min(len(np.unique(audited.group[side])) for side in (audited.is_member, ~audited.is_member))  # copies of a text are one
    blind = (controls["blind"] or {}).get("auc")
    best = attacks[headline]
    verdict = verdicts.of_texts(metrics, fewest)
    risk = verdicts.risk_of(metrics, fewest, is_refused=verdict.is_refused)
    own = [values for name, values in scores.items() if name != METRIC]
    p_member = frames[headline]["membership_prob"].to_numpy(dtype=np.float64)
    found = {
        "model": short(setting.checkpoint), "task": setting.checkpoint.task, "form": f"{setting.checkpoint.facts['architecture']} {short(setting.checkpoint)}",
        "reference": setting.reference and short(setting.reference), "headline": headline, "alpha": metrics["alpha"], "seed": setting.seed,
        "n": _counts(audited, setting) | {"fewest": fewest}, "max_length": setting.checkpoint.max_length, "is_adapter": bool(setting.checkpoint.facts.get("is_adapter")),
        "attacks": attacks, "controls": controls,
        "excess": texts.excess(best["auc"], blind) if blind else None,
        "family_wise": membership.family_wise(np.stack(own), audited.is_member, audited.group, setting.seed) if own else None,
        "reliability": membership.reliability(p_member, audited.is_member), "flagged": int(frames[headline]["flag"].sum()),
        "layers": layers.measured(setting.checkpoint, setting.sides, audited.samples, setting.seed) if setting.has_layers else None,
        "fit": _fit(audited), "risk": {"value": risk.value, "low": risk.low, "high": risk.high, "level": risk.level},
        "legacy_risk_score": 100 * max(one["auc"]["value"] for one in attacks.values() if one["auc"]),
        "verdict": {"state": verdict.state, "sentence": verdict.sentence, "notes": list(verdict.notes), "is_refused": verdict.is_refused},
        "warnings": _warnings(setting), "directory": setting.directory,
    }  # fmt: skip
    return artefacts.stamped("tester", found), frames


def short(checkpoint: Checkpoint) -> str:
    """A checkpoint's name without the folders that it lies in."""
    return Path(checkpoint.name).name if looks_local(checkpoint.name) else checkpoint.name


def frame(name: str, audited: Audited, scores: np.ndarray | None, seed: int) -> pd.DataFrame:
    """One attack's table, a row a text in the order they were given: raw score, P(member) out of fold, p-value and flag."""
    n, truth = len(audited.samples), audited.is_member
    score = np.full(n, np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    p = membership.p_values(score, truth, audited.group)
    chance = membership.membership(score, truth, audited.group, seed)
    table = audited.samples[["id", "text"]].assign(
        split=np.where(truth, "train", "test"),
        loss=audited.signals.get("loss", np.full(n, np.nan)),
        confidence=audited.signals.get("confidence", np.full(n, np.nan)),
        membership_prob=chance.probability,
        rank=pd.array(np.where(np.isnan(score), 0, stats.rankdata(-score, method="min")).astype(int), dtype="Int64"),
        attack=name, score=score, p_value=p, prob_low=chance.low, prob_high=chance.high, flag=membership.flags(p, truth),
    )  # fmt: skip
    table.loc[np.isnan(score), "rank"] = pd.NA
    if name == METRIC:
        table = table.assign(**{signal: audited.signals.get(signal, np.full(n, np.nan)) for signal in ("entropy", "margin")})
    return table


def _attacks(metrics: Mapping[str, Any], audited: Audited, scores: Mapping[str, np.ndarray], failed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """AUC, rates and accuracy of each attack; of one without scores why."""
    found: dict[str, dict[str, Any]] = {}
    for name, one in metrics["attacks"].items():
        found[name] = _numbers(scores[name], audited) | {"auc": one["auc"], "accuracy": one["balanced_accuracy"], "is_auditors": False, "why": None}
    for name, why in failed.items():
        found[name] = _absent(why)
    for name in ("loss", "confidence"):
        found.setdefault(name, _absent(WITHOUT_LOSS))
    if np.isnan(scores[METRIC]).all():
        found[METRIC] = _absent(f"fewer than {combined.LEAST} different texts on one side") | {"is_auditors": True}
    else:
        auc = combined.auc(scores[METRIC], audited.is_member, audited.group)
        found[METRIC] = _numbers(scores[METRIC], audited) | {"auc": auc, "is_auditors": True, "why": None}
    return found


def _absent(why: str) -> dict[str, Any]:
    return {"auc": None, "tpr_1": None, "tpr_10": None, "accuracy": None, "is_auditors": False, "why": why}


def _numbers(scores: np.ndarray, audited: Audited) -> dict[str, Any]:
    everything = pool(scores, audited.is_member, group=2 * audited.group + audited.is_member)
    first, second = pooled.rates(everything, FPRS)
    return {"tpr_1": first, "tpr_10": second, "accuracy": pooled.best_threshold(everything)[0]}


def _controls(metrics: Mapping[str, Any], audited: Audited, setting: Setting) -> dict[str, Any]:
    """Those that were asked for, None for the others."""
    found: dict[str, Any] = {key: metrics["controls"].get(key) for key in ("blind", "permuted", "length", "form", "placebo")} | {"overlap": None}
    if not setting.has_controls:
        return found
    if setting.sides.containment is None:  # images have one size, and share no words
        return found
    if found["length"] is None:  # a classifier's signals do not tell it
        sizes = {"bytes": np.array([len(text.encode()) for text in audited.samples["text"]], dtype=np.float64)}
        found["length"] = metrics["controls"]["length"] = texts.length(sizes, audited.is_member, audited.group)
    found["overlap"] = texts.histogram(setting.sides.containment)
    return found


def _counts(audited: Audited, setting: Setting) -> dict[str, int]:
    sides = setting.sides
    return {
        "members": int(audited.is_member.sum()), "non_members": int((~audited.is_member).sum()), "population": setting.n_population,
        "overlap": sides.n_overlap, "near": sides.n_near, "short": sides.n_short,
        "truncated_members": setting.n_truncated[0], "truncated_non_members": setting.n_truncated[1],
    }  # fmt: skip


def _fit(audited: Audited) -> dict[str, float | None]:
    """Mean loss of both sides, in nats, and how much lower that of members is."""
    if "loss" not in audited.signals:
        return {"members": None, "non_members": None, "gap": None}
    members, others = (float(np.mean(audited.signals["loss"][side])) for side in (audited.is_member, ~audited.is_member))
    return {"members": members, "non_members": others, "gap": others - members}


def _warnings(setting: Setting) -> list[str]:
    sides, said = setting.sides, list(setting.checkpoint.warnings)
    if setting.reference is not None:
        said += [f"reference: {warning}" for warning in setting.reference.warnings if warning not in said]
    what = "images" if setting.sides.members.image else "texts"
    if sides.n_overlap + sides.n_near:
        how = "pixel for pixel" if what == "images" else f"word for word, {sides.n_near} to 80 % or more"
        said.append(f"{sides.n_overlap + sides.n_near} test {what} repeat training {what} ({sides.n_overlap} {how}) and were left out")
    for side, name in ((sides.members, "training"), (sides.non_members, "test")):
        if n_again := side.n_repeated:
            each = "repeats another and counts as one with it" if n_again == 1 else "repeat others and count as one with them"
            said.append(f"{n_again} {name} {what if n_again > 1 else what[:-1]} {each} where different {what} are counted")
    if setting.has_unused_labels:
        said.append("labels were given, and a language model is asked without: they were not used")
    if sides.n_short:
        why = "of a single token were left out: nothing is told about a first token"
        if setting.checkpoint.task not in LANGUAGE:
            why = "were left out: no word of them that is read has a label" if setting.has_labels else "without a token were left out"
        said.append(f"{sides.n_short} texts {why}" if sides.n_short > 1 else f"1 text {why.replace('were left', 'was left')}")
    if cut := sum(setting.n_truncated):
        are, were = ("text is", "was") if cut == 1 else ("texts are", "were")
        said.append(f"{cut} {are} longer than {setting.checkpoint.max_length} tokens and {were} cut there")
    if setting.size is not None:
        said.append("images of several sizes were brought to {} x {} before the model's own preparation".format(*setting.size))
    fewest = min(len(sides.members), len(sides.non_members))
    if fewest < verdicts.FEW:
        said.append(f"{len(sides.members)} training and {len(sides.non_members)} test {what}: inconclusive below {verdicts.FEW} of each")
    return said
