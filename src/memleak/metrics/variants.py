"""One audit of a sweep, as its comparison with the others reads it: answers and scores of the same targets on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.attacks import pairs, pools
from memleak.metrics import pool_audit, stage, utility
from memleak.metrics.audited import audited


@dataclass(frozen=True)
class Decided:
    """Values of targets on samples, [T, N], with the truth, and who depends on whom."""

    values: np.ndarray
    is_member: np.ndarray  # [T, N]
    unit: np.ndarray  # [T]
    group: np.ndarray  # [N]


@dataclass(frozen=True)
class Variant:
    """An audit of a sweep; `entry` says what it is called, what was changed and where its files lie.

    Keys of `entry`: label, audit, changes, release, and the paths metrics, plan, samples, scores (of the headline attack)
    and signals: files, or the folder in which each shard of the plan has one. Those of references alone are not read.
    """

    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        return self.entry["label"]

    @property
    def asked(self) -> str | tuple[str, ...]:
        """What tells variants apart: where the models' answers lie, so who was asked and through which release."""
        signals = self.entry["signals"]
        return signals if isinstance(signals, str) else tuple(signals)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self.entry["metrics"])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of the plan."""
        return artefacts.read_facts(self.entry["plan"])

    @cached_property
    def models(self) -> pd.DataFrame:
        """One row a model: model_id, shard, recipe, role, round, arm, is_target."""
        return artefacts.read_table(self.entry["plan"], ["model_id", "shard", "recipe", "role", "round", "arm", "is_target"])

    @property
    def trained(self) -> set[tuple[str, str, str]]:
        """Recipe, shard and name of every model that was trained for it."""
        own = self.models[self.models["arm"] != "given"]
        return set(zip(own["recipe"], own["shard"], own["model_id"], strict=True))

    @property
    def audited_models(self) -> list[tuple[str, str]]:
        targets = self.models[self.models["is_target"]]
        return list(zip(targets["recipe"], targets["model_id"], strict=True))

    @property
    def n_samples(self) -> int:
        """Audited samples (records, or units of them)."""
        return len(self.facts["targets"]) if self.is_pairs else int(self.metrics["n_samples"])

    @property
    def is_pairs(self) -> bool:
        return self.facts["design"]["kind"] == "pairs"

    @property
    def has_answers(self) -> bool:
        """Whether being right about the audited samples is what models are for: not where they are few, wrongly labelled, or no records."""
        design = self.facts["design"]
        return not (self.is_pairs or design.get("mislabelled") or design.get("space") == "gradient")

    @cached_property
    def answers(self) -> Decided:
        """Whether each target was right about each audited record, in the first view."""
        plan_path = Path(self.entry["plan"])
        samples, _ = pools.read_samples(Path(self.entry["samples"]))
        sample_id, is_audited = samples["sample_id"].to_numpy(), samples["is_audited"].to_numpy(dtype=bool)
        asked = [model for known in self._heads.values() for model in known]
        said = pools.read_signals(list(self._heads), asked, sample_id, ["is_correct"])["is_correct"]
        models = pools.read_models(plan_path, sample_id[is_audited])
        rows = models.targets
        return Decided(
            said[[asked.index(model) for _, model in self.audited_models]][:, is_audited, 0], models.is_member[rows], models.unit[rows],
            samples["group_id"].to_numpy()[is_audited],
        )  # fmt: skip

    @cached_property
    def scores(self) -> Decided | None:
        """Of the headline attack; None where a `pairs` audit has no hold-out rounds."""
        plan_path, score_path = Path(self.entry["plan"]), Path(self.entry["scores"])
        if self.is_pairs:
            return _of_pairs(plan_path, score_path)
        audit = audited(plan_path, Path(self.entry["samples"]))
        values = pool_audit.read(plan_path, score_path, ["score"])[2]["score"][audit.rows]
        return Decided(values, audit.truth, audit.unit, audit.group)

    @cached_property
    def noted(self) -> pd.DataFrame | None:
        """What training noted of each audited model (of `pairs`: of all), sorted by name; None where somebody's trainer notes no accuracies.

        Columns: model_id, train_accuracy, test_accuracy, n_train, n_test, unit.
        """
        known = pd.DataFrame([facts for models in self._heads.values() for facts in models.values()])
        wanted = ["train_accuracy", "test_accuracy", "n_train", "n_test"]
        if not set(wanted) <= set(known) or known[wanted].isna().to_numpy().any():
            return None
        kept = self.models if self.is_pairs else self.models[self.models["is_target"]]
        unit = kept["role"].str.cat(kept["round"].astype(str))
        return kept[["model_id"]].assign(unit=unit).merge(known[["model_id", *wanted]], on="model_id").sort_values("model_id", ignore_index=True)

    @cached_property
    def _heads(self) -> dict[Path, dict[str, dict[str, Any]]]:
        """By file of signals, what is known of each model that answers there; only files that are needed."""
        signals, audited_ids = self.entry["signals"], {model for _, model in self.audited_models}
        paths = [Path(signals) / f"{shard}.parquet" for shard in self.models["shard"].unique()] if isinstance(signals, str) else map(Path, signals)
        heads = {path: {facts["model_id"]: facts for facts in artefacts.read_facts(path)["models"]} for path in paths}
        needed = {path: known for path, known in heads.items() if self.is_pairs or not audited_ids.isdisjoint(known)}
        if absent := audited_ids.difference(*needed.values()):
            raise artefacts.ArtefactError(f"{self.entry['plan']}: no answer of model {min(absent)}; delete results/signals and run again")
        return needed

    def accuracies(self, confidence: float) -> dict[str, utility.Estimate | None]:
        """`utility`, `train_accuracy` and `gap`."""
        if self.has_answers:
            own = self.answers
            return {**utility.accuracies(own.values, own.is_member, own.unit, own.group, confidence)}
        if (known := self.noted) is None:
            return dict.fromkeys(("utility", "train_accuracy", "gap"))
        sizes = int(known["n_train"].min()), int(known["n_test"].min())
        return {
            **utility.of_models(known["train_accuracy"].to_numpy(), known["test_accuracy"].to_numpy(), *sizes, known["unit"].to_numpy(), confidence)
        }

    def utility_less(self, other: Variant, confidence: float) -> dict[str, Any] | None:
        """Accuracy on non-members less that of another variant, paired."""
        if self.has_answers:
            a, b, same = self.answers, other.answers, self.audited_models == other.audited_models
            return {**utility.difference(a.values, b.values, a.is_member, a.unit, a.group, same_models=same, confidence=confidence)}
        if self.noted is None or other.noted is None:
            return None
        both = self.noted.merge(other.noted, on=["model_id", "unit"], suffixes=("", "_other"))
        own, its, unit = (both[name].to_numpy() for name in ("test_accuracy", "test_accuracy_other", "unit"))
        return utility.difference_of_models(own, its, unit, confidence)

    def check_like(self, baseline: Variant) -> None:
        """Refuse a variant about other targets, samples or memberships: the tests are paired."""
        for what, own, its in zip(("targets", "samples", "memberships"), self._subject, baseline._subject, strict=True):
            if not np.array_equal(own, its):
                raise artefacts.ArtefactError(
                    f"{self.entry['plan']}: variant {self.label} has other {what} than {baseline.label}, and all variants of a sweep are expected to "
                    "have the same, since they are compared target by target; give their audits one data set, design and seed"
                )

    @cached_property
    def _subject(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Names of the targets, audited samples with their groups, and who trained on what."""
        samples, _ = pools.read_samples(Path(self.entry["samples"]))
        samples = samples[samples["is_audited"].to_numpy(dtype=bool)]
        models = pools.read_models(Path(self.entry["plan"]), samples["sample_id"].to_numpy())
        rows = models.targets
        return models.model_id[rows].astype(str), samples[["sample_id", "group_id", "label"]].to_numpy(), models.is_member[rows]


def _of_pairs(plan_path: Path, score_path: Path) -> Decided | None:
    """Scores of hold-out models: with a record and without it, one row each a round, [2H, X] for X records.

    Records of a round share models, and the few records are clusters too: intervals speak of records like these.
    """
    held_out = [arms.of_role("holdout") for arms in pairs.read(plan_path, (), ())]
    n_rounds = held_out[0].n_rounds
    if n_rounds == 0:
        return None
    scores = stage.read_pair_scores(score_path)
    columns = [np.concatenate(stage._scores_of(scores, arms)) for arms in held_out]
    is_member = np.repeat([True, False], n_rounds)[:, None] & np.ones(len(held_out), dtype=bool)
    return Decided(np.stack(columns, axis=1), is_member, np.tile(held_out[0].round, 2), np.array([arms.sample_id for arms in held_out]))
