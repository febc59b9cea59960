"""What a hostile reader asks of defences: is a test more than luck, and does nothing but what is promised leave a private training?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import worlds
from pytest import approx

from memleak import designs, randomness
from memleak.attacks import lira
from memleak.designs import Coins, Complements
from memleak.metrics import audit, compare, epsilon, frontier, pooled, utility
from memleak.metrics.intervals import holm
from memleak.models import ModelError, build
from memleak.models.private import check_alone
from memleak.params import ParamsError, recipe_of, validate
from memleak.report import frontier as page
from memleak.report import pool, variants
from memleak.training import dpsgd, loop, stage
from memleak.training.poisson import is_drawn

from .test_frontier import Folder, N, T, draw, folder  # noqa: F401  (fixtures)

CPU = torch.device("cpu")
MLP = {"architecture": "mlp", "hidden": [16], "epochs": 2, "batch_size": 16, "learning_rate": 0.1}
PRIVATE = MLP | {"dp": {"noise_multiplier": 1.0, "delta": 1e-4, "accountant": "rdp"}}


# -- tests against no defence ------------------------------------------------------------------------------------------


def alike(draw: np.random.Generator, models: int, samples: int, n_variants: int, level: float = 0.3) -> tuple[np.ndarray, np.ndarray]:  # noqa: F811
    """LiRA's scores [V, T, N] of variants that are alike, and the truth [T, N]: models memorise more or less by a factor of their own."""
    is_in = worlds.halves(models, samples, draw)
    width, gain = np.exp(0.5 * draw.normal(size=samples)), np.exp(0.3 * draw.normal(size=samples))
    shared, found = draw.normal(size=(models, samples)), []
    turns = worlds.HalvesWorld(worlds.Pool({}, is_in), models).turns
    for _ in range(n_variants):
        noise = np.sqrt(0.5) * (shared + draw.normal(size=(models, samples)))
        margin = width * (noise + gain * np.exp(level * draw.normal(size=(models, 1))) * is_in)
        known = worlds.Pool({"margin": margin[:, :, None].astype(np.float32)}, is_in, sample_id=np.arange(samples), is_balanced=True)
        found.append(lira.score_all(known, turns, lira.Options()))
    return np.array(found), is_in


def test_a_sweep_that_changes_nothing_but_the_seed_finds_nothing(monkeypatch):
    """References are shared by all targets, and models differ in how much they memorise. 40 sweeps of three defences."""
    monkeypatch.setattr(pooled, "N_DRAWS", (60, 60))
    own, found = np.random.default_rng(0), []
    for _ in range(40):
        scores, truth = alike(own, 8, 150, 4)
        tested = [compare.paired_bootstrap(one, scores[0], truth, np.arange(8) // 2) for one in scores[1:]]
        found.append([holm([one[what]["p"] for one in tested]).min() <= 0.05 for what in ("auc", "tpr")])

    assert (np.sum(found, axis=0) <= 6).all()  # of 40 at 5 %: more than 6 in 1.4 % of the cases


def test_one_training_of_each_recipe_is_no_test_of_the_recipes(folder, draw, tmp_path):  # noqa: F811
    """Two trainings of the very same recipe differ by more than their samples tell."""
    alone = Folder(tmp_path / "one", folder.truth, np.zeros(T, dtype=int), {"kind": "halves"})
    made = {"none": draw(), "weak": draw(0.1, seed=1, recipe="r-weak"), "labels": draw(0.1, test=0.6, seed=1, release=("labels",))}
    _, weak, labels = alone.measure(made)["variants"]

    assert all(
        weak["against"][what]["p"] is weak["against"][what]["p_holm"] is weak["against"][what]["low"] is None for what in ("utility", "auc", "tpr")
    )
    assert weak["against"]["auc"]["difference"] < -0.1  # is shown all the same
    assert labels["against"]["auc"]["p_holm"] < 0.01  # the same models, asked otherwise
    assert folder.measure(made)["variants"][1]["against"]["auc"]["p_holm"] < 0.01  # four units of models


def test_a_difference_without_a_test_is_said_to_be_untested():
    untested = {"difference": -0.2, "low": None, "high": None, "p": None, "p_holm": None}
    row = {"label": "weak", "against": {"utility": untested, "auc": untested, "tpr": untested}, "attacks": {}, "auc": None}
    sweep = {"variants": [{"label": "none", "against": None}, row], "baseline": "none", "confidence": 0.95, "kind": "canaries"}

    assert variants.direction(sweep, row, "auc") == "unknown"
    assert page.said_of(sweep, row) == ["AUC not tested", "accuracy not tested"]
    assert "each was trained once" in page._untested(sweep) and "give the design more models" in page._untested(sweep)


def test_two_trainings_alone_are_rejected_too_often_if_their_samples_are_all_that_is_looked_at():
    """Why one training each is refused: accuracies that differ by chance from training to training, as with early stopping."""
    own, wrong = np.random.default_rng(0), {1: [], 6: []}
    for n_targets, found in wrong.items():
        for _ in range(150):
            hard, truth = own.normal(size=500), own.random((n_targets, 500)) < 0.5
            right = [0.8 * hard + 0.6 * own.normal(size=(n_targets, 500)) + 0.1 * own.normal(size=(n_targets, 1)) < 0.84 for _ in range(2)]
            found.append(utility.difference(*right, truth, np.arange(n_targets))["p"] <= 0.05)

    assert np.mean(wrong[1]) > 0.15 and np.mean(wrong[6]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


def test_each_measure_is_a_family_of_its_own_and_releases_are_of_it():
    rows: list[dict[str, Any]] = [{"against": None, "epsilon": None}]
    rows += [{"against": {"utility": {"p": 0.5}, "auc": {"p": p}, "tpr": {"p": None}}, "epsilon": None} for p in (0.01, 0.02, 0.04)]
    frontier.correct(rows, ["none", "dropout", "labels", "both"])

    assert [row["against"]["auc"]["p_holm"] for row in rows[1:]] == approx([0.03, 0.04, 0.04])
    assert [row["against"]["tpr"]["p_holm"] for row in rows[1:]] == [None] * 3


# -- what is told of models ------------------------------------------------------------------------------------------


def test_the_mean_curve_of_models_that_stopped_apart_is_that_of_those_that_still_trained():
    models = [{"loss_curve": [1.0, 0.5]}, {"loss_curve": [2.0, 1.5, 0.25]}]

    assert audit._mean_curve(models, "loss_curve") == [1.5, 1.0, 0.25]
    assert audit._mean_curve([{}], "loss_curve") is None


def test_the_mean_curve_of_models_that_trained_equally_long_is_as_ever():
    curves = np.random.default_rng(0).normal(size=(17, 9)).tolist()

    assert audit._mean_curve([{"loss_curve": curve} for curve in curves], "loss_curve") == np.mean(curves, axis=0).tolist()


def test_the_page_says_what_the_promise_does_not_cover():
    dp = {"epsilon": 4.0, "delta": 1e-4, "noise_multiplier": 1.0, "clip": 1.0, "steps": 10, "sample_rate": 0.1, "accountant": "prv"}
    (said,) = pool.privacy_sentences({"dp": dp})

    assert "a record more or less" in said and "losses and accuracies on training records" in said and "mean and deviation" in said


# -- records in reserve ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shard", [Complements(seed=0, first=0, last=4, pool=100), Coins(seed=0, first=0, last=2, canaries=20, subset_size=40, pool=100)]
)
def test_no_record_that_equals_one_in_reserve_is_trained_on_audited_tested_on_or_in_the_population(shard):
    data = worlds.records(600, n_groups=250)
    recipe = recipe_of(MLP | {"early_stopping": {"records": 40}, "distillation": {"records": 60}})
    tasks = stage.with_reserve(shard, shard.tasks(data), SimpleNamespace(**vars(data)), recipe)  # type: ignore[arg-type]
    seen = set(data.group_id[tasks[0].reserve].tolist())
    population = designs.population_of(data, 100, None, 0, reserve=recipe.reserve)
    kinds = {"members": [task.members for task in tasks], "test": [task.test_ids for task in tasks], "population": [population], "pool": [designs.pool_of(data, 100, 0)]}  # fmt: skip

    assert len(tasks[0].reserve) == 100
    assert all(len(ids) and not seen & set(data.group_id[ids].tolist()) for found in kinds.values() for ids in found)


def test_records_in_reserve_and_population_that_do_not_fit_together_are_refused_before_anything_trains():
    """They are disjoint: each alone would fit into the 1,297 records outside the pool."""
    recipe = MLP | {"early_stopping": {"records": 600}}
    design = {"kind": "halves", "models": 8, "pool": 500, "population": 697}
    audit_ = {"dataset": "digits", "recipe": "r", "design": design, "attacks": {"rmia": {"name": "rmia", "mode": "offline"}}}
    config = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"r": recipe}, "audits": {"a": audit_}}
    validate(config)

    design["population"] = 698
    with pytest.raises(ParamsError, match="takes 600 records outside the pool beside a population of 698, which leaves 1297"):
        validate(config)


# -- private training ------------------------------------------------------------------------------------------------

USERS = """
import torch
from torch import nn

class Keeps(nn.Module):
    def __init__(self, n, what):
        super().__init__()
        self.what = what
        self.register_buffer("seen", torch.zeros(n))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.seen.copy_(x[0].detach()) if self.what == "records" else self.seen.add_(1)
        return x

def network(shape, what):
    n = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), Keeps(n, what), nn.Linear(n, 10))

def keeps(shape, n_classes):
    return network(shape, "records")

def counts(shape, n_classes):
    return network(shape, "steps")
"""


def test_a_module_that_keeps_what_it_saw_of_records_is_refused(tmp_path: Path, digits):
    """No gradient shows it: what is kept is released with the weights, whatever is clipped."""
    (tmp_path / "nets.py").write_text(USERS)
    fields = {key: value for key, value in PRIVATE.items() if key != "hidden"}

    with pytest.raises(ModelError, match=r"the module '1' \(Keeps\) writes what it sees of the records to its buffer 'seen'"):
        dpsgd.check(recipe_of(fields | {"architecture": f"{tmp_path / 'nets.py'}:keeps"}), digits, 100)
    dpsgd.check(recipe_of(fields | {"architecture": f"{tmp_path / 'nets.py'}:counts"}), digits, 100)


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "small_cnn", "channels": [8, 16], "hidden": [16], "normalisation": "batch"},
        {"architecture": "resnet18"},
        {"architecture": "fast_cnn", "channels": [8, 16, 16]},
        {"architecture": "wide_resnet28_2"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"distillation": {"records": 10}}])
def test_a_private_network_has_no_buffer_and_no_batch_norm(fields, more):
    """Nothing is released but weights that noisy steps made; a student's network too."""
    common = {key: value for key, value in PRIVATE.items() if key not in ("architecture", "hidden")}
    network = build(recipe_of(common | fields | more), (8, 8, 3), 10, 0, CPU)

    assert not list(network.named_buffers()) and not any("BatchNorm" in type(module).__name__ for module in network.modules())
    assert network.batch_norm_replaced > 0


def test_built_in_networks_treat_every_record_alone():
    for fields in (
        {"architecture": "small_cnn", "channels": [8, 16], "hidden": [16], "dropout": 0.5},
        {"architecture": "fast_cnn", "channels": [8, 16, 16]},
    ):
        common = {key: value for key, value in PRIVATE.items() if key not in ("architecture", "hidden")}
        check_alone(build(recipe_of(common | fields), (8, 8, 3), 10, 0, CPU), (8, 8, 3), str(fields["architecture"]))


def test_trainings_of_two_recipes_from_one_seed_share_neither_noise_nor_coins(digits):
    """With the same noise at two sizes, twice the one less the other would be the training without any."""
    (task,) = Complements(seed=0, first=0, last=1, pool=200).tasks(digits)
    one_step = PRIVATE | {"epochs": 1, "batch_size": 100, "learning_rate": 1.0, "momentum": 0, "precision": "float64"}

    def trained(noise: float) -> torch.Tensor:
        recipe = recipe_of(one_step | {"dp": {"noise_multiplier": noise, "delta": 1e-4, "accountant": "rdp"}})
        return torch.cat([weight.flatten() for weight in loop.train(task, digits, recipe, CPU).weights.values()])

    less, more, none = trained(0.6), trained(1.2), trained(1e-9)
    assert float((2 * less - more - none).std()) > float((less - none).std())  # independent: sqrt(8) times as large
    keys = {dpsgd.key_of(recipe_of(one_step | changes), task) for changes in ({}, {"learning_rate": 0.5}, {"epochs": 2})}
    assert len(keys) == 3 and dpsgd.key_of(recipe_of(one_step), task) == dpsgd.key_of(recipe_of(one_step | {"weight_decay": 0.0}), task)


@pytest.mark.parametrize("space", [None, "gradient"])
def test_a_canary_has_the_rate_of_the_others_whatever_the_coins_say(space, digits):
    """A rate that followed from the number drawn would tell how many canaries are in."""
    tasks = Coins(seed=0, first=0, last=6, canaries=101, subset_size=200, pool=1400, space=space).tasks(digits)
    recipe = recipe_of(PRIVATE)
    rates = {dpsgd.sampling_rate(recipe, task) for task in tasks}
    held = {len(task.members) + len(task.directions) for task in tasks}

    assert len(held) > 1 and rates == {int(16 / (200 if space else 250) * 2**32) / 2**32}


def test_coins_are_independent_between_records_steps_and_trainings():
    """Second moments as of fair draws: an accountant of Poisson sampling assumes them."""
    rate, ids = 0.25, np.arange(0, 900, 3)
    drawn = np.concatenate([is_drawn(randomness.derive(0, "k"), epoch, np.arange(20), ids, rate) for epoch in range(20)])  # [400, 300]
    z = (drawn - rate) / np.sqrt(rate * (1 - rate))
    between_records, between_steps = z.T @ z / len(z), z @ z.T / z.shape[1]
    other = is_drawn(randomness.derive(1, "k"), 0, np.arange(20), ids, rate)

    for found, n in ((between_records, len(z)), (between_steps, z.shape[1])):
        off = found[np.triu_indices(len(found), 1)] * np.sqrt(n)
        assert off.std() == approx(1, abs=0.03) and np.abs(off).max() < 6 and off.mean() == approx(0, abs=0.05)
    assert drawn.mean() == approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / drawn.size))
    assert np.corrcoef(other.ravel(), drawn[:20].ravel())[0, 1] == approx(0, abs=4 / np.sqrt(other.size))


def test_the_p_of_a_claim_pays_for_every_guess_run_and_target():
    """The true epsilon is the claim: over all choices that an audit makes, at most 5 % of audits refute it."""
    own, refuted = np.random.default_rng(0), []
    for _ in range(300):
        truth = own.random((3, 200)) < 0.5
        lies = own.random((3, 200)) < 1 / (1 + np.exp(1.0))
        scores = (truth ^ lies) + 1e-3 * own.random((3, 200))  # randomised response: no attack on (1, 0) private answers does better
        runs = [epsilon.audit_one_run(s, t, delta=0, confidence=1 - 0.05 / 3, claimed=1.0) for s, t in zip(scores, truth, strict=True)]
        refuted.append(min(1.0, 3 * min(run.p for run in runs if run.p is not None)) <= 0.05)

    assert np.mean(refuted) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_a_claim_holds_at_its_delta_and_above_alone():
    dp = {"epsilon": 2.0, "delta": 1e-4}

    assert epsilon.held_against({"delta": 1e-4, "claimed": None}, dp, {})["claimed"] == 2.0
    assert epsilon.held_against({"delta": 1e-3, "claimed": None}, dp, {})["claimed"] == 2.0
    below = epsilon.held_against({"delta": 1e-5, "claimed": None}, dp, {})
    assert below["claimed"] is None and below["claim_note"]


def test_both_arms_of_a_pair_have_one_rate_and_as_many_steps(digits):
    (out,) = designs.Rounds(None, 100, 0, "fit", 0, 1, pool=1400).tasks(digits)
    (*_, inside) = designs.Rounds("random00", 100, 0, "fit", 0, 1, pool=1400).tasks(digits)
    recipe = recipe_of(PRIVATE)

    assert len(inside.sample_ids) == len(out.sample_ids) + 1
    assert dpsgd.sampling_rate(recipe, inside) == dpsgd.sampling_rate(recipe, out)
    assert dpsgd.promise_of(recipe, inside.n_members) == dpsgd.promise_of(recipe, replace(out, arm="out").n_members)
