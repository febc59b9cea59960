"""Audits of the same models through several releases: nothing is trained, and attackers see what is released and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from memleak import artefacts, params, plan
from memleak.attacks import pools
from memleak.attacks import stage as attacks
from memleak.data import stage as data
from memleak.metrics import roc
from memleak.signals import stage as signals

DESIGN = {"kind": "halves", "models": 12, "pool": 150, "population": 60}  # that of the fixture pool_walk
ATTACKS: dict[str, Any] = {
    "correctness": {"name": "threshold", "signal": "correctness"},
    "loss": {"name": "threshold"},
    "lira": {"name": "lira", "mode": "offline"},  # of records that were trained on, labels are all right: there is no IN spread
    "rmia": {"name": "rmia", "a": 0.3},
    "moved": {"name": "label_only", "views": ["identity", "shift-1"]},
    "noise": {"name": "label_only", "method": "noise", "queries": 10},
}
RELEASES: dict[str, list[Any]] = {
    "none": [],
    "top": [{"top_k": 3}],
    "rounded": [{"top_k": 3}, {"round": 1}],
    "noisy": [{"noise": {"scale": 0.3, "keep_label": False}}],
    "labels": ["labels"],
}
KEPT = ("top", "rounded", "labels")  # the label


@dataclass(frozen=True)
class Released:
    """The scores of an audit through one release, and what they rest on."""

    planned: plan.PlannedAudit
    folder: Path
    models: list[str]  # ids

    def score(self, attack: str) -> np.ndarray:
        """[M, N]."""
        return pools.read_scores(self.folder / f"{attack}.parquet", self.models, ("score",))[1]["score"]

    def auc(self, attack: str) -> float:
        sample_id, found = pools.read_scores(self.folder / f"{attack}.parquet", self.models, ("score",))
        return roc.auc(found["score"], pools.read_models(self.folder / "plan.parquet", sample_id).is_member)

    def signal(self, name: str) -> np.ndarray:
        """What the models say in the first view, one row group after the other."""
        return np.concatenate([group[name][group["view"] == 0] for path in self.planned.signals() for group in groups(self.folder / path, name)])


def groups(path: Path, name: str) -> Any:
    return artefacts.row_groups(path, [name, "view"])


@pytest.fixture(scope="module")
def through(pool_walk, digits_path, tmp_path_factory) -> Callable[[str], Released]:
    """Asks the models of pool_walk through a release, and attacks what they say; each release once."""
    done: dict[str, Released] = {}

    def ask(name: str) -> Released:
        if name not in done:
            done[name] = _released(pool_walk, digits_path, RELEASES[name], tmp_path_factory.mktemp(name))
        return done[name]

    return ask


def _released(walk, data_path: Path, release: list[Any], folder: Path) -> Released:
    recipe = walk.planned.recipe.recipe
    audit = {"dataset": "digits", "recipe": "tiny", "design": DESIGN, "attacks": ATTACKS, "alpha": 0.05, **({"release": release} if release else {})}
    config = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"tiny": recipe.model_dump(exclude_unset=True)}, "audits": {"small": audit}}
    planned = plan.build(params.validate(config | {"models_per_shard": 9})).audits["small"]
    for shard, query in planned.all_asked():
        answers = folder / planned.answers(shard, query)
        model = walk.folder / dict(zip([shard for shard, _ in planned.shards], planned.models(), strict=True))[shard]
        signals.query(model, data_path, planned.recipe.name, recipe, shard, query.facts, answers, "cpu")
    table, samples = folder / "plan.parquet", folder / "samples.parquet"
    data.plan(data_path, json.loads(planned.canonical_json()), table, samples)
    for attack in ATTACKS:
        population = [folder / path for path in planned.population_signals(attack)] if planned.wants_population(attack) else []
        said = [folder / path for path in planned.signals(attack)]
        attacks.score(table, samples, said, population, json.loads(planned.attack_json(attack)), folder / f"{attack}.parquet")
    return Released(planned, folder, artefacts.read_table(table, ["model_id"])["model_id"].tolist())


@pytest.mark.parametrize("release", RELEASES)
def test_another_release_trains_nothing(through, pool_walk, release):
    """`through` asks the very files that were trained for an audit without a release."""
    found = through(release).planned

    assert found.models() == pool_walk.planned.models()
    assert set(found.signals()).isdisjoint(through("none").planned.signals()) == (release != "none")


@pytest.mark.parametrize("release", KEPT)
def test_accuracy_is_unchanged_by_steps_that_keep_the_label(through, release):
    before, after = through("none").signal("is_correct"), through(release).signal("is_correct")

    assert np.array_equal(before, after) and 0.5 < before.mean() < 1


def test_noise_that_may_change_the_label_costs_accuracy(through):
    assert through("noisy").signal("is_correct").mean() < through("none").signal("is_correct").mean() - 0.05


@pytest.mark.parametrize("release", KEPT)
@pytest.mark.parametrize("attack", ["correctness", "moved", "noise"])
def test_who_reads_labels_alone_sees_the_same_bit_for_bit(through, attack, release):
    """Views and the queries of label-only attacks go through the release too."""
    assert np.array_equal(through(release).score(attack), through("none").score(attack))
    assert through(release).auc(attack) == through("none").auc(attack)


def test_queries_of_label_only_attacks_see_noisy_labels(through):
    assert not np.array_equal(through("noisy").score("noise"), through("none").score("noise"))


@pytest.mark.parametrize("attack", ["loss", "lira", "rmia"])
def test_of_labels_an_attack_on_confidence_learns_whether_they_are_right(through, attack):
    """A threshold on the loss is one on correctness; LiRA and RMIA add how hard a record is, and are finite."""
    found = through("labels")

    assert np.isfinite(found.score(attack)).all()
    if attack == "loss":
        assert found.auc("loss") == found.auc("correctness")
    assert found.auc(attack) < through("none").auc(attack)


def test_of_three_classes_the_largest_is_as_it_was_and_the_others_are_alike(through):
    before, after = (through(release).signal("confidence") for release in ("none", "top"))

    assert after == approx(before, abs=1e-6)
    assert (through("top").signal("entropy") >= through("none").signal("entropy") - 1e-5).all()


def test_with_one_decimal_few_values_are_left(through):
    before, after = (through(release).signal("confidence") for release in ("none", "rounded"))

    assert abs(after - before).max() <= 0.21 and len(np.unique(after.round(4))) < 60 < len(np.unique(before.round(4)))
