"""DP-SGD that was broken on purpose is accused, a right one is not: real trainings on digits, minutes. Run with -s to see the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memleak import artefacts, params, plan
from memleak.attacks import stage as attacks
from memleak.data import stage as planning
from memleak.metrics import stage as metrics
from memleak.metrics.epsilon import OneRun, audit_one_run
from memleak.report.verdict import verdict
from memleak.signals import stage as signals
from memleak.training import accountant, dpsgd
from memleak.training import stage as training

pytestmark = pytest.mark.long
N_SEEDS, N_CANARIES = 40, 1000
RECIPE = {  # 19,210 weights; 390 steps, in each of which one record of 200 in 12 takes part
    "architecture": "mlp", "hidden": [256], "epochs": 30, "batch_size": 16, "learning_rate": 0.05, "momentum": 0.0, "dp": {"epsilon": 0.5},
}  # fmt: skip


def unclipped(norms: torch.Tensor, clip: float) -> torch.Tensor:
    return torch.ones_like(norms)


def silent(n_weights: int, deviation: float, key: int, step: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(n_weights, device=device, dtype=dtype)


def tenfold(recipe: params.Recipe, task: Any) -> float:
    return 10 * accountant.rate_of(recipe.batch_size, task.n_members)


BROKEN: dict[str, dict[str, Any]] = {
    "no noise": {"noise": silent},
    "no clipping": {"clip_factors": unclipped},
    "ten times the rate": {"sampling_rate": tenfold},
}


def trained(folder: Path, data_path: Path, recipe: dict[str, Any], audit: dict[str, Any], broken: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """params -> plan -> models -> signals, with some functions of DP-SGD replaced; the audit as it was planned."""
    folder.mkdir()
    entry = {"dataset": "digits", "recipe": "private", **audit}
    config = {"seed": seed, "datasets": {"digits": {"name": "digits"}}, "recipes": {"private": recipe}, "audits": {"small": entry}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, function in (broken or {}).items():
            patch.setattr(dpsgd, name, function)
        planned = plan.build(params.validate(config)).audits["small"]
        name, of_plan = planned.recipe.name, planned.recipe.recipe
        for (shard, query), path in zip(planned.shards, planned.models(), strict=True):
            training.train(data_path, name, of_plan, shard, Path(path), "cpu")
            signals.query(Path(path), data_path, name, of_plan, shard, query.facts, Path(planned.answers(shard, query)), "cpu")
    return planned


def measured(folder: Path, data_path: Path, planned: Any) -> dict[str, Any]:
    """plan -> scores -> thresholds -> decisions -> metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        known, asked = (Path("plan.parquet"), Path("samples.parquet")), [Path(path) for path in planned.signals()]
        planning.plan(data_path, json.loads(planned.canonical_json()), *known)
        attack = planned.audit.headline_attack
        options, (scores, rules, decided) = (
            json.loads(planned.attack_json(attack)),
            (Path("scores.parquet"), Path(f"{attack}.json"), Path("decisions.parquet")),
        )
        attacks.score(*known, asked, [], options, scores)
        metrics.threshold(known[0], asked, scores, options, rules)
        metrics.decide(known[0], asked, [rules], [scores], decided)
        outputs = [Path(name) for name in ("metrics.json", "exposure.parquet", "roc.parquet", "plots.csv", "exposed.csv")]
        return metrics.measure(*known, asked, [rules], [scores], decided, json.loads(planned.headline_json(False)), *outputs)


def gradient_audit(models: int, n: int = N_CANARIES) -> dict[str, Any]:
    return {
        "design": {"kind": "canaries", "space": "gradient", "canaries": n, "subset_size": 200, "models": models},
        "attacks": {"sum": {"name": "threshold", "signal": "alignment"}},
    }


def alone(folder: Path, planned: Any, dataset: Any) -> list[OneRun]:
    """Each training of an audit with gradient canaries as an audit of its own, held against what its accountant says."""
    audits = []
    for (shard, _), path in zip(planned.shards, planned.models(), strict=True):
        for task, model in zip(shard.tasks(dataset), artefacts.read_shard_facts(folder / path)["models"], strict=True):
            is_member = np.isin(task.all_directions, task.directions)
            audits.append(audit_one_run(np.array(model["alignment"]), is_member, delta=model["dp"]["delta"], claimed=model["dp"]["epsilon"]))
    return audits


def claim_of(folder: Path, planned: Any) -> float:
    return artefacts.read_shard_facts(folder / planned.models()[0])["models"][0]["dp"]["epsilon"]


def told(what: str, audits: list[OneRun], claimed: float) -> int:
    """Print the bounds and p-values of several audits; how many of them raise the alarm."""
    bounds, p = np.array([one.epsilon for one in audits]), np.array([one.p for one in audits])
    n_alarms = int((bounds > claimed).sum())
    print(
        f"{what}: claim {claimed:.3f}, {len(audits)} seeds, bound {bounds.min():.3f} to {bounds.max():.3f} (mean {bounds.mean():.3f}), "
        f"p {p.min():.2g} to {p.max():.2g}, alarms {n_alarms}"
    )
    return n_alarms


def test_a_right_dp_sgd_is_accused_in_at_most_5_percent_of_40_seeds(tmp_path, digits_path, digits):
    planned = trained(tmp_path / "right", digits_path, RECIPE, gradient_audit(N_SEEDS))
    audits, claimed = alone(tmp_path / "right", planned, digits), claim_of(tmp_path / "right", planned)

    assert 0.49 <= claimed <= 0.5 and len(audits) == N_SEEDS
    assert told("right", audits, claimed) <= 0.05 * N_SEEDS
    assert max(one.epsilon for one in audits) > 0  # it is not that nothing is seen


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dp_sgd_raises_the_alarm_with_every_seed(kind, tmp_path, digits_path, digits):
    planned = trained(tmp_path / "broken", digits_path, RECIPE, gradient_audit(5), BROKEN[kind])
    audits, claimed = alone(tmp_path / "broken", planned, digits), claim_of(tmp_path / "broken", planned)
    found = measured(tmp_path / "broken", digits_path, planned)

    assert claimed <= 0.5 and told(kind, audits, claimed) == 5
    assert max(one.p for one in audits) < 0.01
    assert found["epsilon"]["alarm"] and found["epsilon"]["p"] < 0.05 and found["epsilon"]["claimed"] == claimed
    assert verdict(found).sentence.startswith("The training is less private than it claims")


@pytest.mark.parametrize("n", [1000, 5000])
@pytest.mark.parametrize("claim", [1.0, 4.0, 10.0])
def test_how_near_the_bound_comes_to_a_right_claim(n, claim, tmp_path, digits_path, digits):
    planned = trained(tmp_path / "right", digits_path, RECIPE | {"dp": {"epsilon": claim}}, gradient_audit(5, n))

    audits = alone(tmp_path / "right", planned, digits)

    assert told(f"right, {n} canaries", audits, claim_of(tmp_path / "right", planned)) == 0
    assert np.mean([one.epsilon for one in audits]) > 0.1 * claim


def test_canaries_that_are_records_do_not_accuse_a_right_training(tmp_path, digits_path):
    design = {"kind": "canaries", "canaries": 400, "subset_size": 1000, "models": 2, "mislabelled": True}
    planned = trained(tmp_path / "right", digits_path, RECIPE, {"design": design, "attacks": {"loss": {"name": "threshold"}}})
    found = measured(tmp_path / "right", digits_path, planned)
    epsilon = found["epsilon"]
    print(f"records as canaries: bound {epsilon['epsilon']:.3f}, claim {epsilon['claimed']:.3f}, p {epsilon['p']:.2g}")

    assert epsilon["claimed"] == found["models"]["dp"]["epsilon"] and not epsilon["alarm"] and epsilon["p"] > 0.05


@pytest.mark.parametrize("kind", ["right", "no noise, no clipping"])
def test_pairs_of_trainings_accuse_a_training_without_noise_and_clipping_alone(kind, tmp_path, digits_path):
    """A record with a wrong label in 200: what it changes is drowned in the noise that is claimed, and seen without it."""
    design = {"kind": "pairs", "targets": {"mislabelled": 1}, "rounds": 30, "holdout_rounds": 60, "subset_size": 200}
    recipe = RECIPE | {"batch_size": 20, "learning_rate": 0.1}
    broken = None if kind == "right" else {**BROKEN["no noise"], **BROKEN["no clipping"]}
    audit = {"design": design, "attacks": {"point": {"name": "single_point"}}}
    found = measured(tmp_path / "pairs", digits_path, trained(tmp_path / "pairs", digits_path, recipe, audit, broken))
    epsilon = found["epsilon"]
    print(
        f"pairs, {kind}: bound {epsilon['epsilon']:.3f} (at most {epsilon['attainable']:.2f}), claim {epsilon['claimed']:.3f}, p {epsilon['p']:.2g}"
    )

    assert epsilon["claimed"] == found["models"]["dp"]["epsilon"] <= 0.5
    assert epsilon["alarm"] == (kind != "right") == (epsilon["p"] < 0.05)
