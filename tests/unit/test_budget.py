"""`memleak budget`: what is counted, what it costs, and that its figures are those that the report will have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pytest import approx
from safetensors.numpy import save_file
from scipy import special, stats

from memleak import budget, cli, data, params, plan, provenance
from memleak.budget import cost, measure, resolution
from memleak.budget.text import duration, size, text
from memleak.designs import Coins, Complements, Rounds
from memleak.metrics import roc
from memleak.metrics.intervals import clopper_pearson
from memleak.params import Audit, Halves, ParamsError, Recipe, Training
from memleak.training import taught
from memleak.training.loop import Trained

RECIPE = {"architecture": "mlp", "hidden": [32], "epochs": 25, "batch_size": 16, "learning_rate": 0.1}
PAIRS: dict[str, Any] = {
    "design": {"kind": "pairs", "targets": {"random": 1, "mislabelled": 1}, "rounds": 9, "holdout_rounds": 4, "subset_size": 64},
    "attacks": {"normal": {"name": "single_point", "alpha": 0.1}},
}
POOL: dict[str, Any] = {
    "design": {"kind": "halves", "models": 12, "pool": 150, "population": 60},
    "attacks": {"loss": {"name": "threshold"}, "lira": {"name": "lira"}},
    "headline": "lira",
}
SWEPT: dict[str, Any] = POOL | {
    "sweep": {
        "recipe": {"decay": {"weight_decay": {"each": [0.01, 0.1]}}, "stop": {"early_stopping": {"records": 100}}},
        "release": {"labels": [{"top_k": 3}]},
    }
}
GRADIENTS: dict[str, Any] = {
    "design": {"kind": "canaries", "space": "gradient", "canaries": 400, "subset_size": 200},
    "attacks": {"alignment": {"name": "threshold", "signal": "alignment"}},
}
COINS: dict[str, Any] = {
    "design": {"kind": "canaries", "canaries": 60, "subset_size": 40, "models": 4, "mislabelled": True},
    "attacks": {"loss": {"name": "threshold"}},
}


@pytest.fixture(autouse=True)
def on_a_cpu_with_the_default_store(monkeypatch):
    monkeypatch.delenv("MEMLEAK_STORE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def project_of(folder: Path, **audits: dict[str, Any]) -> Path:
    """A params.yaml with such audits of the digits, and a small network."""
    config = {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"tiny": RECIPE},
        "audits": {name: {"dataset": "digits", "recipe": "tiny", **audit} for name, audit in audits.items()},
        "models_per_shard": 9,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(config))
    return folder / "params.yaml"


def again(folder: Path, done: Any) -> Path:
    """The params.yaml of an audit that was walked."""
    return project_of(folder, small=json.loads(done.planned.audit.model_dump_json()))


def write_models(path: Path, recipe: str, model_ids: list[str], **facts: Any) -> None:
    """A shard file as the training writes it, with the facts of its models."""
    path.parent.mkdir(parents=True, exist_ok=True)
    models = [{"model_id": name, "device": "cpu", "engine": "sequential", "n_train": 64, "seconds": 2.0} | facts for name in model_ids]
    head = {"recipe": recipe, "shard": path.stem, "data_sha256": facts.get("data_sha256", "0"), "models": models}
    save_file({"weight": np.zeros((len(model_ids), 1000), dtype=np.float32)}, path, metadata={"memleak": json.dumps(head)})


def planned(path: Path, audit: str = "small") -> plan.PlannedAudit:
    return plan.build(params.load(path)).audits[audit]


def test_a_fresh_project_trains_all_that_the_plan_names(tmp_path):
    found = budget.budget(project_of(tmp_path, small=POOL))

    assert (found["together"]["models"], found["together"]["there"], found["together"]["to_train"]) == (12, 0, 12)
    assert found["together"]["training_seconds"] is None and found["together"]["model_bytes"] is None
    assert found["not_prepared"] == ["digits"]


def test_own_out_arms_are_expected_where_a_subset_holds_the_record(project, digits):
    built = plan.build(params.load(project / "params.yaml"))
    expected = budget.budget(project / "params.yaml", directory=project / "tests")["audits"]["digits-single-point"]["models"]

    actual = sum(len(shard.tasks(digits)) for shard, _ in built.audits["digits-single-point"].shards)

    share = 500 / 1797
    assert expected == approx(40 * (1 + 6 * (1 + share)))
    assert abs(actual - expected) < 4 * np.sqrt(240 * share * (1 - share))


def test_without_the_size_of_the_data_own_out_arms_are_a_range(tmp_path):
    (tmp_path / "mine.py").write_text("def load(source=None):\n    raise NotImplementedError\n")
    path = project_of(tmp_path, small=PAIRS)
    path.write_text(path.read_text().replace("name: digits", f"name: {tmp_path}/mine.py:load"))

    found = budget.budget(path)["together"]

    assert (found["models"], found["n_unknown_arms"]) == (39, 26)
    assert "39 to 65" in text(budget.budget(path))


def test_models_in_store_and_results_count_once_and_by_their_time(tmp_path):
    path = project_of(tmp_path, small=POOL)
    audit = planned(path)
    shard, other = (shard for shard, _ in audit.shards)
    kept = tmp_path / f".memleak/store/{audit.recipe.name}/{shard.name}.safetensors"
    write_models(kept, audit.recipe.name, shard.model_ids())
    output = tmp_path / audit.models()[0]
    output.parent.mkdir(parents=True)
    os.link(kept, output)
    write_models(kept.with_name("single-x.safetensors"), audit.recipe.name, other.model_ids()[:1], seconds=8.0)

    found = budget.budget(path, cores=1)["audits"]["small"]

    assert (found["there"], found["to_train"]) == (10, 2)
    per_model = 2.0 * 75 / 64  # seconds of 64 records, for the 75 of half a pool of 150
    assert found["seconds_a_model"]["median"] == approx(per_model)
    assert found["training_seconds"]["median"] == approx(2 * per_model)
    assert found["training_seconds"]["high"] > found["training_seconds"]["median"]
    assert found["model_bytes"] == approx(2 * kept.stat().st_size / 9, rel=0.5)


def test_times_of_another_device_are_not_taken(tmp_path):
    path = project_of(tmp_path, small=POOL)
    audit = planned(path)
    shard = audit.shards[0][0]
    write_models(tmp_path / audit.models()[0], audit.recipe.name, shard.model_ids(), device="Some GPU")

    found = budget.budget(path)

    assert found["audits"]["small"]["there"] == 9
    assert found["audits"]["small"]["seconds_a_model"] is None
    assert "no model was trained on a CPU here" in text(found)
    assert cost._is_on("Some GPU", "gpu") and not cost._is_on("cpu", "gpu")


def test_broken_and_foreign_files_are_named_and_do_not_count(tmp_path, digits_path):
    path = project_of(tmp_path, small=POOL)
    built = plan.build(params.load(path))
    audit = built.audits["small"]
    prepared = tmp_path / built.dataset_path(audit.recipe.name)
    shutil.copytree(digits_path.parent, prepared.parent)
    first, second = (tmp_path / model for model in audit.models())
    write_models(first, audit.recipe.name, audit.shards[0][0].model_ids(), data_sha256="of other data")
    second.write_bytes(b"cut off")
    first.with_name("checkpoint-m0.state").write_bytes(b"of a training under way")

    found = budget.budget(path)

    assert found["together"]["there"] == 0
    assert found["of_other_data"] == 9
    assert [line.split(":")[0] for line in found["broken"]] == [audit.models()[1]]
    assert "Not counted: results/models" in text(found)

    digest = provenance.digest(data.read(prepared).facts["sha256"], 64)
    write_models(first, audit.recipe.name, audit.shards[0][0].model_ids(), data_sha256=digest)
    assert budget.budget(path)["together"]["there"] == 9


def test_models_that_audits_share_are_counted_once(tmp_path):
    found = budget.budget(project_of(tmp_path, small=POOL, again=POOL | {"attacks": {"loss": {"name": "threshold"}}, "headline": "loss"}))

    assert [audit["models"] for audit in found["audits"].values()] == [12, 12]
    assert found["together"]["models"] == 12


def test_jobs_are_spread_over_the_cores():
    assert cost.makespan([5, 4, 3, 3], 2) == 8
    assert cost.makespan([5, 4, 3, 3], 1) == 15
    assert cost.makespan([2.0, 1.0], 8) == 2
    assert cost.makespan([], 4) == 0


def test_a_rounds_shard_that_is_half_there_needs_the_rest():
    shard = Rounds("random00", 50, 0, "fit", 0, 4)
    there = {shard.model_id("in", 0), shard.model_id("out", 0), shard.model_id("in", 1), shard.model_id("out", 2)}

    job = cost.job_of("r", shard, there, pool_size=100)

    assert (job.missing, job.there, job.missing_arms) == (2, 4, 0.5)  # of four rounds, only the last may still need an OUT arm of its own
    assert job.to_train == 2.5


@pytest.mark.parametrize("fixture", ["walk", "pool_walk", "coins"])
def test_after_the_training_nothing_is_left_to_pay(fixture, request, tmp_path):
    done = request.getfixturevalue(fixture)

    found = budget.budget(again(tmp_path, done), directory=done.folder)["audits"]["small"]

    assert (found["to_train"], found["signal_bytes"]) == (0, 0)
    assert found["there"] == done.metrics["models"]["n"]
    assert found["seconds_a_model"]["n"] == found["there"]
    heads = sum((done.folder / model).stat().st_size for model in done.planned.models())
    assert found["bytes_a_model"] * found["there"] == approx(heads, rel=0.2)


def test_signals_and_scores_are_about_as_large_as_was_said(pool_walk, tmp_path):
    found = budget.budget(again(tmp_path, pool_walk))["audits"]["small"]

    written = sum(path.stat().st_size for path in [*pool_walk.signals, *pool_walk.population])
    assert written < found["signal_bytes"] < 2 * written
    written = sum(path.stat().st_size for path in [*pool_walk.scores, pool_walk.audit("decisions.parquet")])
    assert 0.5 * written < found["score_bytes"] < 2 * written


def test_a_pairs_audit_resolves_what_its_report_says(walk):
    found = resolution.of_audit(walk.planned.audit, 1797)
    metrics = walk.metrics
    checks = {check["what"]: check for check in found["checks"]}

    test, kept = checks["the paired test can find something"], checks["the FPR is kept with 95 % confidence"]
    assert found["fpr"] == metrics["alpha"]
    assert {target["effect"]["least_rounds"] for target in metrics["targets"].values()} == {test["needs"]}
    assert {target["effect"]["n_rounds"] for target in metrics["targets"].values()} == {test["has"]}
    assert {target["effect"]["testable"] for target in metrics["targets"].values()} == {test["holds"]}
    headline = metrics["attacks"][metrics["headline"]]
    assert (kept["has"], kept["needs"]) == (headline["n_fitted"], headline["models_for_level"])
    assert {target["attacks"][metrics["headline"]]["tpr"]["n"] for target in metrics["targets"].values()} == {found["n_judged"]}


@pytest.mark.parametrize("fpr", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("fixture", ["pool_walk", "coins"])
def test_a_pool_audit_certifies_what_its_report_says(fixture, fpr, request):
    done = request.getfixturevalue(fixture)
    found = resolution.of_audit(done.planned.audit, 1797, fpr)
    rates = done.metrics["attacks"][done.metrics["headline"]]["rates"]

    reported = next(rate for rate in rates if np.isclose(rate["at_fpr"], fpr))
    assert found["checks"][0]["holds"] == reported["certified"]
    assert found["checks"][0]["has"] == approx(reported["n_non_members"], abs=5)
    mocks = next(check for check in found["checks"] if check["unit"] == "models")
    assert mocks["holds"] == bool(done.metrics["attacks"][done.metrics["headline"]]["calibrated"])


def test_no_epsilon_of_a_report_is_above_what_was_said_to_be_attainable(coins):
    found = resolution.of_audit(coins.planned.audit, 1797)["epsilon"]

    runs = coins.metrics["epsilon"]["runs"]
    assert found["delta"] == coins.metrics["epsilon"]["delta"]
    assert 0 < max(run["epsilon"] for run in runs) <= max(run["attainable"] for run in runs) <= found["attainable"] + 1e-9


def test_known_numbers_of_rounds_and_records():
    """By hand: 59 rounds at 5 %, 19 for an order statistic, 2^-7 < 0.05 / 6; (0.05 / 12)^(1 / 35) = 0.855, an advantage below 0.1."""
    assert resolution.rounds_for_low(6, 0.05) == 35
    assert resolution.rounds_for_threshold(0.05) == 19
    assert resolution.rounds_for_test(6) == 7
    assert resolution.least(lambda n: n >= 1000) == 1000
    assert resolution.least(lambda n: False) is None
    assert resolution.least(lambda n: True, start=5) == 5


@pytest.mark.parametrize(("n", "fpr"), [(16, 0.05), (40, 0.05), (24, 0.01), (200, 0.1)])
def test_the_smallest_share_of_hold_out_rounds_is_shown_by_four_of_five_audits(n, fpr):
    smallest = resolution.smallest_share(n, fpr)

    accused = np.arange(n + 1)
    is_shown = np.array([clopper_pearson(k, n)[0] > fpr for k in accused])
    assert float(stats.binom.pmf(accused, n, smallest)[is_shown].sum()) == approx(0.8)
    assert resolution.smallest_share(0, fpr) is None


def test_the_rounds_for_a_share_are_the_fewest():
    n = resolution.rounds_for_tpr(0.3, 0.05)

    assert resolution.smallest_share(n, 0.05) <= 0.3
    assert all((share := resolution.smallest_share(k, 0.05)) is None or share > 0.3 for k in range(1, n))
    assert resolution.rounds_for_tpr(0.0101, 0.01) is None  # more than anybody trains


@pytest.mark.parametrize(("n", "fpr"), [(1000, 0.01), (400, 0.05)])
def test_four_of_five_audits_show_the_smallest_rate_and_with_the_width_that_was_said(n, fpr, rng):
    smallest = resolution.smallest_tpr(n, fpr)
    separation = special.ndtri(smallest) - special.ndtri(fpr)
    is_member = np.arange(2 * n) < n

    found = [roc.tpr_at_fpr(rng.normal(size=2 * n) + separation * is_member, is_member, fpr) for _ in range(120)]

    assert np.mean([rate.low > fpr for rate in found]) == approx(0.8, abs=0.1)
    low, high = resolution.expected(smallest, fpr, n)
    assert np.median([rate.high - rate.low for rate in found]) == approx(high - low, rel=0.12)


def test_the_records_for_a_rate_are_the_fewest_and_certify():
    n = resolution.records_for_tpr(0.05, 0.01)

    assert resolution.smallest_tpr(n, 0.01) <= 0.051
    assert resolution.smallest_tpr(int(0.9 * n), 0.01) > 0.05
    assert resolution.records_for_tpr(0.9, 0.001) >= 3000
    assert resolution.smallest_tpr(2000, 0.001) is None  # chance alone may leave no non-member beyond the threshold


def test_fewer_targets_and_fewer_records_resolve_less():
    few, many = (Halves(kind="halves", models=models) for models in (8, 64))
    assert resolution.spread_of_units(few) > resolution.spread_of_units(many) > 1
    assert resolution.spread_of_units(few.model_copy(update={"targets": 1})) == 1
    assert resolution.share_outside(few.model_copy(update={"targets": 1})) == 0.5

    wide, narrow = (resolution.expected(0.1, 0.01, n) for n in (40_000, 160_000))
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == approx(2, rel=0.05)


def test_a_larger_plan_that_was_asked_for_does_what_was_wished(tmp_path):
    path = project_of(tmp_path, pairs=PAIRS, pool=POOL)
    wishes = {name: audit["resolution"]["wish"] for name, audit in budget.budget(path, tpr=0.3)["audits"].items()}

    design = PAIRS["design"] | {"rounds": wishes["pairs"]["rounds"], "holdout_rounds": wishes["pairs"]["holdout_rounds"]}
    larger = POOL["design"] | {"pool": wishes["pool"]["records"], "models": wishes["pool"]["models"]}
    again = budget.budget(project_of(tmp_path, pairs=PAIRS | {"design": design}, pool=POOL | {"design": larger}), tpr=0.3)["audits"]

    assert all(check["holds"] for check in again["pairs"]["resolution"]["checks"][:2])
    assert again["pairs"]["resolution"]["smallest_tpr"] <= 0.3
    assert again["pairs"]["models"] == approx(wishes["pairs"]["models"])
    assert all(check["holds"] for check in again["pool"]["resolution"]["checks"][:2])
    assert again["pool"]["resolution"]["smallest_tpr"] <= 0.305


def test_what_cannot_be_is_said_in_one_sentence(tmp_path, capsys):
    path = project_of(tmp_path, small=POOL)
    for options, said in (
        (["--fpr", "0"], "fpr is 0.0"), (["--fpr", "1.5"], "fpr is 1.5"), (["--fpr", "0.1", "--tpr", "0.05"], "tpr is 0.05"),
        (["--cores", "many"], "cores: 'many'"), (["--cores", "0"], "cores: '0'"), (["--directory", str(tmp_path / "nowhere")], "no such folder"),
    ):  # fmt: skip
        assert cli.main(["budget", str(path), *options]) == 1
        assert said in (error := capsys.readouterr().err) and len(error.strip().splitlines()) == 1
    assert cli.main(["budget", str(tmp_path / "absent.yaml")]) == 1
    assert "absent.yaml: there is no such file" in capsys.readouterr().err
    path.write_text("audits: {}")
    assert cli.main(["budget", str(path)]) == 1
    assert "audits" in capsys.readouterr().err


def test_a_full_disk_is_seen_beforehand(tmp_path, monkeypatch):
    path = project_of(tmp_path, small=POOL)
    audit = planned(path)
    write_models(tmp_path / audit.models()[0], audit.recipe.name, audit.shards[0][0].model_ids())
    assert budget.budget(path)["disk"][0]["fits"]

    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
    found = budget.budget(path)

    assert found["disk"][0]["needs"] > 1000 and not found["disk"][0]["fits"]
    assert "IT DOES NOT FIT" in text(found)


def test_the_command_answers_without_torch_and_in_json(tmp_path):
    path = project_of(tmp_path, pairs=PAIRS, pool=POOL, coins=COINS)
    program = f"import sys; from memleak import cli; cli.main(['budget', {str(path)!r}, '--json']); sys.exit('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["audits"].keys() == {"pairs", "pool", "coins"}
    assert not (tmp_path / "results").exists() and not (tmp_path / ".memleak").exists()


def test_every_params_file_has_a_budget(params_files, monkeypatch):
    for path in params_files:
        monkeypatch.chdir(path.parent)
        found = budget.budget(path, directory=path.parent, fpr=0.001, tpr=0.5)

        assert found["together"]["to_train"] > 0, path
        assert all(name in text(found) for name in found["audits"]), path


def test_a_model_is_timed_on_request(tmp_path, digits_path):
    path = project_of(tmp_path, small=POOL)
    built = plan.build(params.load(path))
    prepared = tmp_path / built.dataset_path(planned(path).recipe.name)
    shutil.copytree(digits_path.parent, prepared.parent)

    found = budget.budget(path, measure=True)

    audit = found["audits"]["small"]
    n_weights = 64 * 32 + 32 + 32 * 10 + 10
    assert audit["bytes_a_model"] == approx(4 * n_weights, rel=0.1)
    assert 0 < audit["seconds_a_model"]["median"] < 20
    assert "timed on 7" in text(found)  # all 75 records, or a group of equal ones fewer


def test_where_the_data_is_not_prepared_nothing_is_timed(tmp_path):
    found = budget.budget(project_of(tmp_path, small=POOL), measure=True)

    assert found["audits"]["small"]["seconds_a_model"] is None


def test_a_gpu_that_is_not_there_is_said(tmp_path):
    path = project_of(tmp_path, small=POOL)
    path.write_text(path.read_text() + "device: cuda\n")

    found = budget.budget(path)

    assert (found["no_such_device"], found["jobs_at_once"]) == (True, 1)
    assert "no GPU is here" in text(found)


def test_on_gpus_a_job_runs_on_each(monkeypatch):
    config = params.validate(
        {"datasets": {"d": {"name": "digits"}}, "recipes": {"r": RECIPE}, "audits": {"a": {"dataset": "d", "recipe": "r", **POOL}}}
    )
    monkeypatch.setattr(provenance, "n_gpus", lambda: 4)
    monkeypatch.setattr(provenance, "has_gpu", lambda: True)

    assert budget.jobs_at_once(config, 16) == 4
    assert budget.jobs_at_once(config, 2) == 2
    assert budget.jobs_at_once(config.model_copy(update={"device": "cpu"}), 16) == 16


def test_lira_on_pairs_needs_an_order_statistic_and_a_normal_fit_does_not():
    design = PAIRS["design"]
    fits = {name: {"name": "single_point", "fit": name} for name in ("normal", "empirical", "kde")}
    audits = {name: Audit(dataset="d", recipe="r", design=design, attacks={name: fit}) for name, fit in fits.items()}
    audits["lira"] = Audit(dataset="d", recipe="r", design=design, attacks={"lira": {"name": "lira"}})

    assert {name: resolution.counts_beyond(audit) for name, audit in audits.items()} == {
        "normal": False,
        "empirical": True,
        "kde": True,
        "lira": True,
    }


def test_sizes_and_times_are_readable():
    assert [size(n) for n in (None, 12, 3.4e6, 2e12)] == ["?", "12 B", "3.4 MB", "2 TB"]
    assert [duration(s) for s in (40, 720, 12_240)] == ["40 s", "12 min", "3.4 h"]


def test_a_recipe_with_its_own_trainer_is_not_timed(tmp_path):
    (tmp_path / "mine.py").write_text("def train(data, indices, seed, device):\n    raise NotImplementedError\n")
    path = project_of(tmp_path, small=POOL)
    config = yaml.safe_load(path.read_text())
    config["recipes"]["tiny"] = {"architecture": "mlp", "hidden": [32], "trainer": f"{tmp_path}/mine.py:train"}
    path.write_text(yaml.safe_dump(config))

    assert Recipe.model_fields["trainer"].default is None
    assert "a trainer of your own" in text(budget.budget(path, measure=True))


# -- defences and sweeps -----------------------------------------------------------------------------------------


def with_recipe(path: Path, **fields: Any) -> Path:
    """A params.yaml whose small network has further fields."""
    config = yaml.safe_load(path.read_text())
    config["recipes"]["tiny"] |= fields
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_sweeps_audits_are_counted_each_and_their_models_once(tmp_path):
    """Four recipes, each with and without a release: eight audits of twelve models."""
    found = budget.budget(project_of(tmp_path, swept=SWEPT, alone=POOL))

    assert len(found["audits"]) == 9 and {audit["models"] for audit in found["audits"].values()} == {12}
    assert found["together"]["models"] == found["together"]["to_train"] == 48
    sweep = found["sweeps"]["swept"]
    assert (len(sweep["audits"]), sweep["n_recipes"], sweep["models"], sweep["n_shared"], sweep["n_elsewhere"]) == (8, 4, 48, 48, 12)
    assert "Sweep swept: 8 audits, 4 recipes; 48 models together, 48 to train; 48 serve several of its audits; 12 serve other audits too." in text(
        found
    )


def test_a_sweep_of_releases_says_that_all_its_audits_ask_the_same_models(tmp_path):
    path = project_of(tmp_path, swept=POOL | {"sweep": {"release": {"few": [{"top_k": 3}]}}})
    audit = planned(path, "swept-none")
    write_models(tmp_path / audit.models()[0], audit.recipe.name, audit.shards[0][0].model_ids())

    found = budget.budget(path)

    assert "Sweep swept: 2 audits, 1 recipe; 12 models together, 3 to train, the same for all its audits." in text(found)
    assert found["sweeps"]["swept"]["there"] == 9


def test_what_many_audits_have_in_common_is_said_once(tmp_path):
    """A line an audit in the table, and one paragraph for them all."""
    small = {"dataset": "digits", "recipe": "tiny"}
    each = {"sweep": {"recipe": {"decay": {"weight_decay": {"each": [round(0.01 * k, 2) for k in range(1, 20)]}}}}}
    found = budget.budget(project_of(tmp_path, swept=POOL | each | small, other=PAIRS))

    said = text(found)

    assert len(found["audits"]) == 21 and all(f"\n{name} " in said for name in found["audits"])
    assert "swept (all 20 audits) (halves), lira at FPR 1 %" in said and "other (pairs), normal at FPR 10 %" in said
    assert said.count("the verdict can be LOW:") == 2 and said.count("no model was trained on a CPU here") == 1
    assert "20 recipes: no model was trained" in said
    assert len(said.splitlines()) < 50


def test_the_example_of_defences_trains_each_model_once(project, tmp_path):
    found = budget.budget(project / "examples/defences-digits/params.yaml", directory=tmp_path)

    releases = found["sweeps"]["release"]
    assert releases["n_recipes"] == 1 and releases["models"] == releases["n_shared"] == releases["n_elsewhere"]
    n_alone = sum(audit["models"] for name, audit in found["audits"].items() if name not in releases["audits"])
    assert found["together"]["models"] == n_alone


def test_the_population_is_without_the_records_in_reserve(tmp_path):
    outside = POOL | {"design": {"kind": "halves", "models": 12, "pool": 150}, "attacks": {"outside": {"name": "population"}}, "headline": "outside"}
    written = {}
    for n in (0, 200):
        path = project_of(tmp_path, small=outside)
        if n:
            with_recipe(path, early_stopping={"records": n})
        written[n] = budget.budget(path)["audits"]["small"]["signal_bytes"]

    assert written[0] - written[200] == approx(12 * 200 * cost.SIGNAL_BYTES)


def test_gradients_are_no_records_that_a_model_trains_on():
    assert cost.training_records(Coins(0, 0, 1, 400, 200, space="gradient"), None) == 200
    assert cost.training_records(Coins(0, 0, 1, 400, 200), None) == 400


def test_an_audit_by_gradients_is_asked_for_no_verdict_and_for_no_further_records(tmp_path):
    path = with_recipe(project_of(tmp_path, small=GRADIENTS), dp={"epsilon": 1.0, "delta": 1e-5})

    found = budget.budget(path, fpr=0.0001)
    said = text(found)

    wish = found["audits"]["small"]["resolution"]["wish"]
    assert wish["canaries"] > 1797 and not wish["exceeds_data"] and wish["models"] == 1
    assert "small (canaries, gradients), alignment" in said
    assert "verdict" not in said and "The data set has fewer records" not in said


def test_the_bound_is_held_against_the_promise_that_the_recipe_makes(tmp_path):
    """At its delta. By hand: n right guesses, of six numbers tried, refute epsilon 1 where (e / (1 + e))^n < 0.05 / 6: from 15.3 on."""
    found = {}
    for epsilon in (1.0, 4.0):
        path = with_recipe(project_of(tmp_path, small=GRADIENTS), dp={"epsilon": epsilon, "delta": 1e-4})
        resolved = budget.budget(path)
        found[epsilon] = resolved["audits"]["small"]["resolution"]["epsilon"] | {"text": text(resolved)}

    assert found[1.0]["delta"] == 1e-4 and (found[1.0]["claimed"], found[4.0]["claimed"]) == (1.0, 4.0)
    n = found[1.0]["canaries_for_claim"]
    assert found[1.0]["can_exceed"] and f"a bound above that takes {n:,} canaries" in found[1.0]["text"]
    assert resolution._all_right(n, 1e-4, 0.95, "bonferroni") > 1.0 >= resolution._all_right(n - 1, 1e-4, 0.95, "bonferroni")
    assert n == np.ceil(np.log(0.05 / 6) / np.log(1 / (1 + np.exp(-1)))) == 16
    assert found[4.0]["attainable"] < 4.0 and not found[4.0]["can_exceed"] and found[4.0]["canaries_for_claim"] is None
    assert "NO   a training that breaks its promise of epsilon 4 can be told: no number of canaries" in found[4.0]["text"]


def test_more_canaries_may_tell_less_at_a_large_delta(tmp_path):
    many = GRADIENTS | {"design": GRADIENTS["design"] | {"canaries": 1000}}
    path = with_recipe(project_of(tmp_path, small=many), dp={"epsilon": 3.78, "delta": 1e-4})

    found = budget.budget(path)

    held = found["audits"]["small"]["resolution"]["epsilon"]
    assert not held["can_exceed"] and held["attainable"] < 3.78 and held["canaries_for_claim"] < 1000
    assert "and of 1,000 the bound is lower again, since delta weighs more; use fewer, or lower delta" in text(found)


def test_a_promise_that_only_the_accountant_knows_is_read_from_trained_models(tmp_path):
    path = with_recipe(project_of(tmp_path, small=GRADIENTS), dp={"noise_multiplier": 1.0, "delta": 1e-5})
    before = budget.budget(path)
    audit = planned(path)
    write_models(tmp_path / audit.models()[0], audit.recipe.name, audit.shards[0][0].model_ids(), dp={"epsilon": 2.5})

    after = budget.budget(path)["audits"]["small"]["resolution"]["epsilon"]

    assert before["audits"]["small"]["resolution"]["epsilon"]["claimed"] is None
    assert "Nothing to hold it against: what the training promises, the accountant says once a model is trained." in text(before)
    assert (after["claimed"], after["can_exceed"]) == (2.5, True)


def test_a_declared_claim_comes_before_what_the_recipe_asks_for(tmp_path):
    path = with_recipe(project_of(tmp_path, small=GRADIENTS | {"epsilon": {"claimed": 0.5}}), dp={"epsilon": 3.0, "delta": 1e-5})

    assert budget.budget(path)["audits"]["small"]["resolution"]["epsilon"]["claimed"] == 0.5


class Clock:
    """Trainings that take a second an epoch and record, half of that for what a student learns or a stopper asks, and five beside."""

    now = 0.0

    def train(self, tasks, dataset, recipe, device):
        records = len(tasks[0].members)
        stopping, student = recipe.early_stopping, recipe.distillation
        asked = 0.5 * stopping.records if stopping else 0.0
        self.now += len(tasks) * (5.0 + recipe.epochs * (records + asked))
        if student:
            assert len(tasks[0].reserve) == student.records + (stopping.records if stopping else 0)
            self.now += len(tasks) * (student.epochs or recipe.epochs) * (0.5 * student.records + asked)
        if stopping:
            assert stopping.patience >= max(recipe.epochs, student.epochs if student else 0)
        return [Trained({}, {"engine": "simulated"}) for _ in tasks]


@pytest.mark.parametrize("long_enough", [0.0, 1e4, 1e9])  # the first run, some epochs of all records, everything
@pytest.mark.parametrize(
    ("defence", "beside"),
    [
        ({}, 0.0),
        ({"early_stopping": {"records": 64}}, 20 * 32),
        ({"distillation": {"records": 256}}, 20 * 128),
        ({"distillation": {"records": 256, "epochs": 30}}, 30 * 128),
        ({"distillation": {"records": 256, "epochs": 7}, "early_stopping": {"records": 64}}, 7 * 128 + 27 * 32),
    ],
)
def test_what_is_timed_in_part_adds_up_to_the_whole(digits_path, monkeypatch, defence, beside, long_enough):
    """20 epochs of 256 records, what comes beside them, and five seconds, which grow with the records that are judged."""
    clock = Clock()
    monkeypatch.setattr(taught, "train", clock.train)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(measure, "LONG_ENOUGH", long_enough)
    recipe = Recipe(**RECIPE | {"epochs": 20} | defence)

    found = measure.time_model(digits_path, recipe, Rounds(None, 256, 0, "fit", 0, 2, pool=600), Training(), "cpu")["seconds"]

    assert 256 * found["median"] == approx(20 * 256 + beside, rel=0.005)
    assert found["is_most"] == ("early_stopping" in defence)


@pytest.mark.parametrize(
    "defence",
    [
        {"early_stopping": {"records": 50, "patience": 1}}, {"distillation": {"records": 50, "epochs": 2}}, {"selena": {}}, {"stacking": {}},
        {"dp": {"noise_multiplier": 0.8}}, {"dp": {"noise_multiplier": 0.8}, "distillation": {"records": 50}, "early_stopping": {"records": 50}},
    ],
)  # fmt: skip
def test_with_a_defence_all_that_its_training_does_is_timed(digits_path, monkeypatch, capsys, defence):
    monkeypatch.setattr(measure, "LONG_ENOUGH", 0.01)
    recipe = Recipe(**RECIPE | {"epochs": 3} | defence)

    found = measure.time_model(digits_path, recipe, Complements(0, 0, 4, 600), Training(engine="ensemble"), "cpu")

    n_weights = 64 * 32 + 32 + 32 * 10 + 10
    n_networks = 2 if "stacking" in defence else 1  # and a top
    assert n_networks * 4 * n_weights <= found["bytes"] < n_networks * 4 * n_weights + 10_000
    assert 0 < 300 * found["seconds"]["median"] < 30
    assert found["seconds"]["engines"] == ["sequential" if "stacking" in defence else "ensemble"]
    assert capsys.readouterr().out == ""  # where JSON is written


def test_gradients_beside_the_records_are_timed_too(digits_path, monkeypatch):
    """The noise is not searched for while the clock runs, and records take part as often as they will."""
    monkeypatch.setattr(measure, "LONG_ENOUGH", 0.01)
    seen = []
    train = taught.train

    def noted(tasks, dataset, recipe, device):
        seen.append((recipe.dp, tasks[0].n_members, len(tasks[0].members), len(tasks[0].all_directions)))
        return train(tasks, dataset, recipe, device)

    monkeypatch.setattr(taught, "train", noted)
    recipe = Recipe(**RECIPE | {"epochs": 3, "dp": {"epsilon": 5.0, "delta": 1e-4, "accountant": "rdp"}})

    measure.time_model(digits_path, recipe, Coins(0, 0, 1, 400, 200, space="gradient"), Training(), "cpu")

    assert {(dp.noise_multiplier, dp.epsilon, dp.accountant) for dp, *_ in seen} == {(1.0, None, "rdp")}
    assert all(expected == there for _, expected, there, _ in seen) and {n for *_, n in seen} == {400}


def test_what_training_would_refuse_is_refused_before_it_is_timed(digits_path, monkeypatch):
    monkeypatch.setattr(taught, "train", lambda *_: pytest.fail("it was timed"))
    shard = Complements(0, 0, 2, 600)
    for defence, said in (
        ({"early_stopping": {"records": 1500}}, "1500"), ({"batch_size": 200, "stacking": {}}, "stacking: each part trains on about 100"),
        ({"dp": {"epsilon": 1e-6, "accountant": "rdp"}}, "cannot be reached"),
    ):  # fmt: skip
        with pytest.raises((ParamsError, ValueError), match=said):
            measure.time_model(digits_path, Recipe(**RECIPE | defence), shard, Training(), "cpu")
