"""The numbers of a sweep, from files of variants whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest import approx
from scipy.stats import norm

from memleak import artefacts
from memleak.metrics import frontier, pooled, utility

from .test_pooled import halves

N, T = 200, 8
ESTIMATE = {"value", "low", "high"}
DIFFERENCE = {"difference", "low", "high", "p", "p_holm"}


@dataclass(frozen=True)
class Made:
    """What the models of one variant are like."""

    scores: np.ndarray  # [T, N]
    is_correct: np.ndarray  # [T, N]
    recipe: str = "r-none"
    release: tuple[Any, ...] = ()
    epsilon: dict[str, Any] | None = None
    test_accuracy: float = 0.8


@dataclass(frozen=True)
class Folder:
    """Writes the files that the audits of a sweep have when its numbers are made."""

    path: Path
    truth: np.ndarray  # [T, N]
    unit: np.ndarray  # [T]
    design: dict[str, Any]

    def sweep(self, variants: dict[str, Made], **entry: Any) -> dict[str, Any]:
        entries = [self._variant(label, made) | entry for label, made in variants.items()]
        return {"sweep": "small", "baseline": next(iter(variants)), "headline": "loss", "variants": entries}

    def measure(self, variants: dict[str, Made], **entry: Any) -> dict[str, Any]:
        return self.of(self.sweep(variants, **entry))

    def of(self, sweep: dict[str, Any]) -> dict[str, Any]:
        found = frontier.measure(sweep, self.path / "frontier.json", self.path / "frontier.csv")
        assert artefacts.read_json(self.path / "frontier.json") == found
        return found

    def _variant(self, label: str, made: Made) -> dict[str, Any]:
        folder = self.path / label
        query = f"pool-{len(json.dumps(made.release))}"
        files = {name: folder / f"{name}.parquet" for name in ("plan", "samples", "scores")}
        write_plan(files["plan"], self.truth, self.unit, made.recipe, self.design)
        write_samples(files["samples"], N)
        write_scores(files["scores"], made.scores)
        signals = [self.path / made.recipe / query / f"s{shard}.parquet" for shard in range(T // 4)]
        for shard, path in enumerate(signals):
            write_signals(path, made, shard)
        rates = pooled.rates(pooled.pool(made.scores, self.truth, self.unit), pooled.LEVELS)
        metrics = {
            "n_samples": N, "models": {}, "epsilon": made.epsilon,
            "attacks": {"loss": {"auc": pooled.auc(pooled.pool(made.scores, self.truth, self.unit)), "rates": rates}},
        }  # fmt: skip
        artefacts.write_json(folder / "metrics.json", metrics)
        return {
            "label": label, "audit": f"small-{label}", "changes": {} if made.recipe == "r-none" else {"x": made.recipe}, "release": list(made.release),
            "recipe": made.recipe, "metrics": str(folder / "metrics.json"), **{name: str(path) for name, path in files.items()},
            "signals": [str(path) for path in signals],
        }  # fmt: skip


def write_plan(path: Path, truth: np.ndarray, unit: np.ndarray, recipe: str, design: dict[str, Any]) -> None:
    table = pd.DataFrame({
        "model_id": [f"m{row}" for row in range(T)], "shard": [f"s{row // 4}" for row in range(T)], "recipe": recipe, "seed": 0, "round": unit,
        "role": "pool", "arm": "half", "target": None, "is_target": True, "membership": [np.packbits(row).tobytes() for row in truth],
    })  # fmt: skip
    artefacts.write_table(path, table, {"audit": "small", "design": design, "recipe": recipe, "seed": 0, "data": {}})


def write_samples(path: Path, n: int) -> None:
    known = {"sample_id": np.arange(n), "source_id": np.arange(n), "label": np.arange(n) % 3, "group_id": np.arange(n)}
    artefacts.write_table(path, pd.DataFrame({**known, "is_population": False, "is_audited": True}))


def write_scores(path: Path, scores: np.ndarray) -> None:
    table = pa.table({
        "target_id": np.repeat([f"m{row}" for row in range(T)], N), "sample_id": np.tile(np.arange(N), T), "score": scores.ravel(),
    })  # fmt: skip
    pq.write_table(table, path, row_group_size=N)


def write_signals(path: Path, made: Made, shard: int) -> None:
    """Of four models, in two views; in the second all are wrong."""
    rows = range(4 * shard, 4 * shard + 4)
    answers = np.stack([made.is_correct[rows], np.zeros((4, N), dtype=bool)], axis=2)
    models = [
        {"model_id": f"m{row}", "train_accuracy": 1.0, "test_accuracy": made.test_accuracy + 0.01 * row, "n_train": 100, "n_test": 500}
        for row in rows
    ]
    facts = {"samples_sha256": artefacts.sample_digest(np.arange(N)), "n_samples": N, "n_views": 2, "models": models}
    artefacts.write_table(path, pd.DataFrame({"is_correct": answers.ravel()}), facts)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(pooled, "N_DRAWS", (60, 60))
    _, truth, unit = halves(T, N)
    return Folder(tmp_path, truth, unit, {"kind": "halves"})


@pytest.fixture
def draw(folder: Folder) -> Callable[..., Made]:
    """A variant whose scores are moved by `leak` where a target holds a sample, and that is right about so many members and others."""
    hard = np.random.default_rng(1).normal(size=N)

    def drawn(leak: float = 1.0, train: float = 0.98, test: float = 0.8, seed: int = 0, **more: Any) -> Made:
        own = np.random.default_rng([2, seed])
        noise, luck = own.normal(size=(T, N)), 0.6 * own.normal(size=(T, N)) + 0.8 * hard
        return Made(noise + leak * folder.truth, luck < norm.ppf(np.where(folder.truth, train, test)), **more)

    return drawn


def test_a_variant_has_its_figures_and_its_differences_from_the_baseline(folder, draw):
    found = folder.measure({"none": draw(), "weak": draw(0.3, 0.85, 0.78, seed=1, recipe="r-weak")})
    baseline, weak = found["variants"]

    assert {key: found[key] for key in ("sweep", "kind", "headline", "baseline", "alpha", "confidence", "n_targets", "n_samples")} == {
        "sweep": "small", "kind": "halves", "headline": "loss", "baseline": "none", "alpha": approx(0.05), "confidence": 0.95, "n_targets": T, "n_samples": N,
    }  # fmt: skip
    assert baseline["against"] is None and baseline["epsilon"] is None and baseline["dp"] is None
    for row in (baseline, weak):
        assert all(
            set(row[name]) == ESTIMATE and row[name]["low"] <= row[name]["value"] <= row[name]["high"]
            for name in ("utility", "train_accuracy", "gap", "auc")
        )
        assert [set(one) for one in row["tpr"]] == [{"at_fpr", "value", "low", "high", "certified"}] * 2
        assert row["attacks"] == {"loss": {"auc": row["auc"], "tpr": row["tpr"]}}
    assert {name: set(one) for name, one in weak["against"].items()} == dict.fromkeys(("utility", "auc", "tpr"), DIFFERENCE)
    assert weak["against"]["auc"]["difference"] == approx(weak["auc"]["value"] - baseline["auc"]["value"])
    assert weak["against"]["utility"]["difference"] == approx(weak["utility"]["value"] - baseline["utility"]["value"])
    assert weak["against"]["tpr"]["difference"] == approx(weak["tpr"][0]["value"] - baseline["tpr"][0]["value"])
    assert found["correlation"] is None  # two recipes


def test_accuracy_is_that_of_the_first_view_on_members_and_others(folder, draw):
    made = draw()
    row = folder.measure({"none": made})["variants"][0]

    assert row["utility"]["value"] == approx(made.is_correct[~folder.truth].mean()) and row["train_accuracy"]["value"] == approx(made.is_correct[folder.truth].mean())  # fmt: skip
    assert row["gap"] == utility.accuracies(made.is_correct, folder.truth, folder.unit)["gap"]


def test_two_variants_with_the_same_scores_do_not_differ(folder, draw):
    against = folder.measure({"none": draw(), "same": draw(release=("labels",))})["variants"][1]["against"]

    for one in against.values():
        assert one == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}


def test_pure_noise_is_less_than_a_leak_by_what_it_is(folder, draw):
    against = folder.measure({"none": draw(1.0), "noise": draw(0.0, seed=1, recipe="r-noise")})["variants"][1]["against"]["auc"]

    assert against["low"] <= 0.5 - norm.cdf(1 / np.sqrt(2)) <= against["high"] < 0 and against["p_holm"] < 0.01


def test_p_values_are_corrected_for_the_number_of_variants(folder, draw):
    found = folder.measure({"none": draw()} | {f"v{i}": draw(0.9, seed=i + 1, recipe=f"r-{i}") for i in range(4)})

    for what in ("utility", "auc", "tpr"):
        tests = sorted((row["against"][what] for row in found["variants"][1:]), key=lambda one: one["p"])
        assert tests[0]["p_holm"] == approx(min(1, 4 * tests[0]["p"])) and all(one["p_holm"] >= one["p"] for one in tests)


def test_a_variant_under_two_names_is_corrected_for_once(folder, draw):
    three = {"none": draw(), "weak": draw(0.8, seed=1, recipe="r-weak"), "other": draw(0.9, seed=2, recipe="r-other")}
    once = folder.measure(three)
    twice = folder.measure({**three, "again": three["weak"]})

    assert twice["variants"][1]["against"] == once["variants"][1]["against"] == twice["variants"][3]["against"]
    assert twice["n_models"] == once["n_models"] == 3 * T


def test_a_release_trains_nothing_and_shares_the_models(folder, draw):
    found = folder.measure({"none": draw(), "labels": draw(release=("labels",)), "weak": draw(recipe="r-weak")})

    assert (found["n_models"], found["n_shared"]) == (2 * T, 2)  # the two files of the recipe without changes


CLAIM = {"epsilon": 1.3, "delta": 1e-5, "confidence": 0.95, "claimed": 1.0, "alarm": True, "claim_note": None}


def test_alarms_are_corrected_over_the_sweep(folder, draw):
    claims = {"a": 0.03, "b": 0.001, "c": 0.8}
    made = {name: draw(recipe=f"r-{name}", epsilon=CLAIM | {"p": p}) for name, p in claims.items()}
    none = draw(epsilon={"epsilon": 2.0, "delta": 1e-5, "confidence": 0.95})  # claims nothing
    found = {row["label"]: row["epsilon"] for row in folder.measure({"none": none, **made})["variants"]}

    assert [found[name]["p_holm"] for name in claims] == approx([0.06, 0.003, 0.8])
    assert [found[name]["alarm"] for name in claims] == [False, True, False]
    assert (found["none"]["claimed"], found["none"]["p_holm"], found["none"]["alarm"]) == (None, None, False)


def test_one_claim_that_two_variants_share_is_tested_once(folder, draw):
    made = draw(recipe="r-a", epsilon=CLAIM | {"p": 0.04})
    found = folder.measure({"none": draw(), "a": made, "b": made})["variants"]

    assert [row["epsilon"]["p_holm"] for row in found[1:]] == [0.04, 0.04] and all(row["epsilon"]["alarm"] for row in found[1:])


@pytest.mark.parametrize(("what", "found"), [("plan", "memberships"), ("samples", "samples")])
def test_variants_about_something_else_are_refused(folder, draw, what, found):
    sweep = folder.sweep({"none": draw(), "weak": draw(recipe="r-weak")})
    if what == "plan":
        write_plan(folder.path / "weak" / "plan.parquet", ~folder.truth, folder.unit, "r-weak", folder.design)
    else:
        write_samples(folder.path / "weak" / "samples.parquet", N - 1)

    with pytest.raises(artefacts.ArtefactError, match=f"variant weak has other {found} than none"):
        folder.of(sweep)


def test_a_target_that_no_file_answers_for_is_named(folder, draw):
    sweep = folder.sweep({"none": draw()})
    sweep["variants"][0]["signals"].pop()

    with pytest.raises(artefacts.ArtefactError, match="no answer of model m4; delete results/signals"):
        folder.of(sweep)


def test_signals_may_be_named_by_their_folder(folder, draw):
    sweep = folder.sweep({"none": draw()})
    expected = folder.of(sweep)
    sweep["variants"][0]["signals"] = str(Path(sweep["variants"][0]["signals"][0]).parent)

    assert folder.of(sweep) == expected


@pytest.mark.parametrize("design", [{"kind": "canaries", "mislabelled": True}, {"kind": "canaries", "space": "gradient"}])
def test_canaries_that_are_nothing_to_be_right_about_have_the_accuracy_that_training_noted(tmp_path, folder, draw, design):
    found = Folder(tmp_path, folder.truth, np.arange(T), design).measure({"none": draw(), "weak": draw(recipe="r-weak", test_accuracy=0.7)})
    baseline, weak = found["variants"]

    assert found["utility_of"] == "test records"
    assert baseline["utility"]["value"] == approx(0.835) and weak["train_accuracy"]["value"] == 1
    assert weak["against"]["utility"]["difference"] == approx(-0.1)


def test_the_table_has_one_row_a_variant(folder, draw):
    found = folder.measure({"none": draw(), "weak": draw(0.3, recipe="r-weak", epsilon=CLAIM | {"p": 0.2})})
    table = pd.read_csv(folder.path / "frontier.csv")

    assert table["variant"].tolist() == ["none", "weak"] and table["audit"].tolist() == ["small-none", "small-weak"]
    assert table["tpr_at_0.01_low"].tolist() == approx([row["tpr"][0]["low"] for row in found["variants"]])
    assert table["auc_difference_p_holm"][1] == approx(found["variants"][1]["against"]["auc"]["p_holm"]) and table["auc_difference"].isna()[0]
    assert table["epsilon_claimed"][1] == 1 and np.isnan(table["epsilon"][0])


def rows(*points):
    return [{"utility": {"value": utility_}, "auc": auc and {"value": auc}} for utility_, auc in points]


def test_a_variant_is_efficient_unless_another_is_as_good_in_both_and_better_in_one():
    assert frontier.efficient(rows((0.9, 0.7), (0.8, 0.6), (0.8, 0.65), (0.7, 0.6))) == [True, True, False, False]
    assert frontier.efficient(rows((0.9, 0.7), (0.9, 0.6))) == [False, True]  # the same accuracy, and leaks less
    assert frontier.efficient(rows((0.9, 0.7), (0.9, 0.7))) == [True, True]
    assert frontier.efficient(rows((0.9, 0.5), (0.8, 0.45))) == [True, False]  # an attack worse than guessing is no more privacy
    assert frontier.efficient(rows((0.9, None), (0.8, 0.7))) == [False, True]


def test_the_correlation_of_a_line_is_one_and_of_a_constant_is_none():
    x = np.arange(6.0)

    assert frontier.correlation(x, 2 * x + 1)["value"] == approx(1) and frontier.correlation(x, -x)["value"] == approx(-1)
    assert frontier.correlation(x, np.ones(6)) is None and frontier.correlation(x[:3], x[:3]) is None


def test_the_correlation_has_fishers_interval_and_the_p_of_t():
    """r = .9 of ten, tables of Fisher's z: .624 to .977."""
    x = np.linspace(-1, 1, 10)
    other = x**2 - np.mean(x**2)
    y = 0.9 * x / np.linalg.norm(x) + np.sqrt(0.19) * other / np.linalg.norm(other)
    found = frontier.correlation(x, y)

    assert (found["value"], found["low"], found["high"], found["n"]) == (approx(0.9), approx(0.624, abs=0.001), approx(0.977, abs=0.001), 10)
    assert found["p"] == approx(3.9e-4, rel=0.03)


def test_the_correlation_holds_the_truth():
    held = []
    for seed in range(400):
        x, noise = np.random.default_rng(seed).normal(size=(2, 8))
        found = frontier.correlation(x, 0.6 * x + 0.8 * noise)
        held.append(found["low"] <= 0.6 <= found["high"])

    assert np.mean(held) == approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 400))


def test_the_correlation_is_over_recipes_and_not_over_releases(folder, draw):
    gaps = {f"g{i}": draw(i, train=0.8 + 0.05 * i, seed=i, recipe=f"r-{i}") for i in range(4)}
    found = folder.measure({"none": gaps.pop("g0"), **gaps, "labels": draw(3.0, release=("labels",), recipe="r-0")})["correlation"]

    assert found["labels"] == ["none", "g1", "g2", "g3"] and found["n"] == 4 and found["value"] > 0.9


def of_walk(walk, label: str, release: tuple[Any, ...] = ()) -> dict[str, Any]:
    """A whole audit of digits as a variant."""
    headline = walk.audit(f"scores/{walk.planned.audit.headline_attack}.parquet")
    files = {"metrics": walk / "metrics/small.json", "plan": walk.plan, "samples": walk.samples, "scores": headline}
    return {
        "label": label, "audit": "small", "changes": {}, "release": list(release), "recipe": walk.planned.subject,
        **{name: str(path) for name, path in files.items()}, "signals": [str(path) for path in walk.signals],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pool_walk", "coins", "given_alone", "given_walk", "referenced"])
def test_audits_of_every_kind_can_be_swept(name, request, tmp_path):
    walk = request.getfixturevalue(name)
    entries = [of_walk(walk, "none"), of_walk(walk, "again", ("labels",))]
    sweep = {"sweep": "s", "baseline": "none", "headline": walk.planned.audit.headline_attack, "variants": entries}
    found = frontier.measure(sweep, tmp_path / "f.json", tmp_path / "f.csv")
    baseline, again = found["variants"]

    assert found["kind"] == walk.planned.audit.design.kind and found["n_shared"] == 0  # one audit under two names
    assert found["n_models"] == (0 if name == "given_alone" else len(artefacts.read_table(walk.plan, ["model_id"])) - (name == "given_walk"))
    assert 0.3 < baseline["utility"]["low"] < baseline["utility"]["value"] < baseline["utility"]["high"] < 1
    assert baseline["gap"]["value"] == approx(baseline["train_accuracy"]["value"] - baseline["utility"]["value"])
    assert baseline["auc"]["low"] <= baseline["auc"]["value"] <= baseline["auc"]["high"] and [one["at_fpr"] for one in baseline["tpr"]] == [
        0.01,
        0.001,
    ]
    assert all(one["difference"] == 0 and one["p"] == 1 for one in again["against"].values())
    assert (baseline["epsilon"] is None) == (name in ("pool_walk", "given_alone", "given_walk"))
    json.dumps(found, allow_nan=False)


def test_the_accuracies_of_a_given_model_are_those_that_its_audit_tells(given_alone, tmp_path):
    sweep = {"sweep": "s", "baseline": "none", "headline": "loss", "variants": [of_walk(given_alone, "none")]}
    row = frontier.measure(sweep, tmp_path / "f.json", tmp_path / "f.csv")["variants"][0]
    known = given_alone.metrics["models"]

    assert (row["utility"]["value"], row["train_accuracy"]["value"]) == approx((known["test_accuracy"]["value"], known["train_accuracy"]["value"]))


def test_pairs_without_hold_out_rounds_have_no_auc_and_an_accuracy(walk, tmp_path):
    plan = artefacts.read_table(walk.plan, artefacts.PLAN_COLUMNS)
    fitting = tmp_path / "plan.parquet"
    artefacts.write_table(fitting, plan[plan["role"] == "fit"], artefacts.read_facts(walk.plan))
    sweep = {"sweep": "s", "baseline": "none", "headline": "normal", "variants": [of_walk(walk, "none") | {"plan": str(fitting)}, of_walk(walk, "again") | {"plan": str(fitting)}]}  # fmt: skip
    found = frontier.measure(sweep, tmp_path / "f.json", tmp_path / "f.csv")["variants"]

    assert found[0]["auc"] is None and found[0]["tpr"] == [] and found[1]["against"]["auc"] is None and not found[0]["is_efficient"]
    assert found[1]["against"]["utility"]["difference"] == 0 and found[0]["utility"]["value"] > 0.5
