"""Earlier runs of other tools: read, checked, kept, audited, and written again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pytest import approx
from scipy.special import expit

from memleak import artefacts, imports, params
from memleak.attacks import pools
from memleak.attacks import stage as attacks
from memleak.imports import RunError, export, lira
from memleak.imports.run import evenness, units_of
from memleak.signals.classifier import all_signals

M, N, Q, C = 8, 60, 2, 5


@dataclass(frozen=True)
class Made:
    """What an earlier run knew."""

    keep: np.ndarray  # [M, N]
    label: np.ndarray  # [N]
    logits: np.ndarray  # [M, N, Q, C]

    @property
    def margin(self) -> np.ndarray:
        return all_signals(self.logits, np.broadcast_to(self.label[:, None], (M, N, Q)))["margin"]

    @property
    def probability(self) -> np.ndarray:
        """As Privacy Meter keeps them, [N, M]."""
        return expit(self.margin[:, :, 0].astype(np.float64)).T.astype(np.float32)


@pytest.fixture
def made() -> Made:
    """Drawn together, as LiRA's public code does."""
    draw = np.random.default_rng(0)
    keep = draw.random((M, N)).argsort(axis=0).argsort(axis=0) < M // 2
    return Made(keep, draw.integers(0, C, N), draw.normal(size=(M, N, Q, C)).astype(np.float32) * 3)


def halves(draw: np.random.Generator, n_models: int = M, n: int = N) -> np.ndarray:
    first = draw.random((n_models // 2, n)).argsort(axis=1) < n // 2
    return np.stack([first, ~first], axis=1).reshape(n_models, n)


def lira_folder(folder: Path, made: Made, *, logits: bool = True, scores: bool = False, labels: bool = True) -> Path:
    """The layout of `mi_lira_2021`."""
    for row in range(M):
        own = folder / f"experiment-{row}_{M}"
        own.mkdir(parents=True)
        np.save(own / "keep.npy", made.keep[row])
        for name in [name for name, wanted in (("logits", logits), ("scores", scores)) if wanted]:
            values = made.logits[row][:, None] if name == "logits" else made.margin[row]
            (own / name).mkdir()
            np.save(own / name / "0000000099.npy", np.zeros_like(values))  # an earlier checkpoint
            np.save(own / name / "0000000100.npy", values)
    if labels:
        np.save(folder / "y_train.npy", made.label)
    return folder


def privacy_meter_folder(folder: Path, keep: np.ndarray, probability: np.ndarray) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "signals").mkdir()
    np.save(folder / "models/memberships.npy", keep)
    np.save(folder / "signals/rmia_signals.npy", probability)
    return folder


def rows_of(made: Made, **columns: object) -> pd.DataFrame:
    """A plain table of the run, one view."""
    model, sample = np.divmod(np.arange(M * N), N)
    found = {"model_id": [f"m{row}" for row in model], "sample_id": sample, "is_member": made.keep.ravel(), "margin": made.margin[:, :, 0].ravel()}
    return pd.DataFrame(found | columns)


def written(path: Path, table: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


def planned(run: imports.Run, folder: Path) -> tuple[Path, Path, Path]:
    """Plan, samples and signals of an imported run, as a later stage writes them."""
    signals = imports.write(run, folder)
    plan, samples, facts = imports.plan_of(signals)
    artefacts.write_table(folder / "plan.parquet", plan, facts | {"design": {"kind": "imported"}})
    artefacts.write_table(folder / "samples.parquet", samples)
    return folder / "plan.parquet", folder / "samples.parquet", signals


# --- LiRA's layout


def test_logits_and_labels_give_every_signal(tmp_path, made):
    run = imports.read(lira_folder(tmp_path, made))

    assert run.model_id.tolist() == [f"experiment-{row}_{M}" for row in range(M)]
    assert np.array_equal(run.is_member, made.keep) and np.array_equal(run.label, made.label)
    assert np.array_equal(run.signals["margin"], made.margin)  # of the last checkpoint
    assert np.array_equal(run.signals["logits"], made.logits)
    assert {*artefacts.SIGNALS} <= {*run.signals}


def test_scores_alone_give_margins_and_losses(tmp_path, made):
    run = imports.read(lira_folder(tmp_path, made, logits=False, scores=True, labels=False))

    assert np.array_equal(run.signals["margin"], made.margin)
    assert set(run.signals) == {"margin", "loss"} and run.label is None
    assert any("Scores only" in note for note in run.notes)


def test_the_port_to_pytorch_is_read_with_labels_that_are_given(tmp_path, made):
    for row in range(M):
        (tmp_path / "runs" / str(row)).mkdir(parents=True)
        np.save(tmp_path / f"runs/{row}/keep.npy", made.keep[row])
        np.save(tmp_path / f"runs/{row}/logits.npy", made.logits[row])
    np.save(tmp_path / "classes.npy", made.label)

    run = imports.read(tmp_path / "runs", labels=tmp_path / "classes.npy")

    assert np.array_equal(run.signals["margin"], made.margin)
    with pytest.raises(RunError, match=r"logits are there, and say nothing without labels: put y_train.npy"):
        imports.read(tmp_path / "runs")


def test_folders_come_in_the_order_of_their_numbers(tmp_path):
    for row in (10, 9, 1):
        (tmp_path / f"experiment-{row}_16").mkdir()
        np.save(tmp_path / f"experiment-{row}_16/keep.npy", np.ones(3, dtype=bool))

    assert [folder.name for folder in lira.folders(tmp_path)] == ["experiment-1_16", "experiment-9_16", "experiment-10_16"]


def test_indices_of_those_kept_are_told_from_truth_values(tmp_path, made):
    folder = lira_folder(tmp_path, made)
    for row in range(M):
        np.save(folder / f"experiment-{row}_{M}/keep.npy", np.flatnonzero(made.keep[row]))

    run = imports.read(folder)

    assert np.array_equal(run.is_member, made.keep)
    assert any("holds the indices" in note for note in run.notes)


def test_a_keep_of_neither_kind_is_refused(tmp_path, made):
    folder = lira_folder(tmp_path, made)
    np.save(folder / f"experiment-3_{M}/keep.npy", np.array([5, 5, N]))

    with pytest.raises(RunError, match=rf"experiment-3_{M}/keep.npy: int64 of shape \(3,\); expected {N} truth values.*0 to {N - 1}"):
        imports.read(folder)


def test_models_that_were_not_asked_yet_are_left_out_and_named(tmp_path, made):
    folder = lira_folder(tmp_path, made)
    for path in (folder / f"experiment-2_{M}/logits").iterdir():
        path.unlink()

    run = imports.read(folder)

    assert len(run.model_id) == M - 1 and f"experiment-2_{M}" not in run.model_id
    assert any(f"1 of {M} folders have no answers and were left out: experiment-2_{M}" in note for note in run.notes)


def test_a_run_without_answers_says_what_is_missing_where(tmp_path, made):
    with pytest.raises(RunError, match=rf"{M} folders with a keep.npy, 0 of them with answers.*experiment-0_{M} has neither logits/"):
        imports.read(lira_folder(tmp_path, made, logits=False))


def test_probabilities_in_the_place_of_logits_are_refused(tmp_path, made):
    p = np.exp(made.logits) / np.exp(made.logits).sum(axis=-1, keepdims=True)

    with pytest.raises(RunError, match=r"0000000100.npy: .*probabilities already"):
        imports.read(lira_folder(tmp_path, Made(made.keep, made.label, p)))


def test_logits_that_would_fill_the_memory_are_not_kept(tmp_path, made, monkeypatch):
    monkeypatch.setattr(lira, "KEPT_LOGITS", 10)

    run = imports.read(lira_folder(tmp_path, made))

    assert "logits" not in run.signals and "modified_entropy" in run.signals
    assert any("were not kept" in note for note in run.notes)


def test_a_diverged_model_is_named(tmp_path, made):
    folder = lira_folder(tmp_path, made, logits=False, scores=True)
    scores = made.margin[4].copy()
    scores[7, 1] = np.nan
    np.save(folder / f"experiment-4_{M}/scores/0000000100.npy", scores)

    with pytest.raises(RunError, match=rf"1 values of margin are not finite.*model experiment-4_{M} about sample 7"):
        imports.read(folder)


# --- Privacy Meter's layout


def test_privacy_meters_probabilities_become_margins(tmp_path, made):
    keep = halves(np.random.default_rng(1))

    run = imports.read(privacy_meter_folder(tmp_path, keep, made.probability))

    assert np.array_equal(run.is_member, keep)
    assert run.signals["margin"][:, :, 0] == approx(made.margin[:, :, 0], abs=1e-2)
    assert run.signals["loss"] == approx(np.logaddexp(0, -run.signals["margin"]), abs=1e-5)
    assert run.unit.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and not run.is_balanced


def test_probabilities_that_round_to_one_are_counted_and_finite(tmp_path, made):
    p = made.probability.copy()
    p[:5, 0], p[5, 0] = 1.0, 0.0

    run = imports.read(privacy_meter_folder(tmp_path, halves(np.random.default_rng(1)), p))

    assert any(f"5 of {M * N} probabilities are 1 and 1 are 0, to float32: their margins end at 16.6 and -87.3" in note for note in run.notes)
    assert run.signals["margin"][0, 0, 0] == approx(-np.log(np.finfo(np.float32).epsneg), abs=1e-3)


def test_a_range_attacks_rows_are_views(tmp_path, made):
    p = expit(made.margin.astype(np.float64)).transpose(1, 2, 0).reshape(N * Q, M)  # sample by sample

    run = imports.read(privacy_meter_folder(tmp_path, halves(np.random.default_rng(1)), p))

    assert run.signals["margin"] == approx(made.margin, abs=1e-3)


def test_what_are_no_probabilities_is_refused(tmp_path, made):
    with pytest.raises(RunError, match=r"values are no probabilities \(the least is .*import losses as a table"):
        imports.read(privacy_meter_folder(tmp_path, halves(np.random.default_rng(1)), made.margin[:, :, 0].T.copy()))


def test_signals_of_another_run_are_refused(tmp_path, made):
    with pytest.raises(RunError, match=r"rmia_signals.npy: has shape \(59, 8\), memberships.npy \(8, 60\)"):
        imports.read(privacy_meter_folder(tmp_path, halves(np.random.default_rng(1)), made.probability[:-1]))


def test_a_population_lets_rmia_run(tmp_path, made):
    draw = np.random.default_rng(2)
    folder = privacy_meter_folder(tmp_path / "log", halves(draw), made.probability)
    np.save(folder / "signals/rmia_signals_pop.npy", draw.random((40, M)).astype(np.float32))

    run = imports.read(folder)
    plan, samples, signals = planned(run, tmp_path)
    attack = {"id": "rmia", "name": "rmia", "options": {"a": 0.3}, "alpha": 0.05}
    rows = attacks.score(plan, samples, [signals], [imports.population_of(signals)], attack, tmp_path / "scores.parquet")

    assert run.population is not None and run.population.sample_id.tolist() == list(range(N, N + 40))
    assert rows == M * N
    imports.project(run, tmp_path / "project")
    assert "rmia" in yaml.safe_load((tmp_path / "project/params.yaml").read_text())["audits"]["imported"]["attacks"]


# --- a plain table


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_of_margins(tmp_path, made, suffix):
    run = imports.read(written(tmp_path / f"run{suffix}", rows_of(made).sample(frac=1, random_state=0)))

    order = [run.model_id.tolist().index(f"m{row}") for row in range(M)]
    assert np.array_equal(run.is_member[order], made.keep)
    assert np.array_equal(run.signals["margin"][order], made.margin[:, :, :1])


def test_losses_give_the_margins_that_they_are_of(tmp_path, made):
    loss = np.logaddexp(0, -made.margin[:, :, 0].astype(np.float64)).ravel()

    run = imports.read(written(tmp_path / "run.parquet", rows_of(made).drop(columns="margin").assign(loss=loss)))

    assert run.signals["margin"] == approx(made.margin[:, :, :1], abs=1e-5)


def test_losses_of_zero_are_counted_and_negative_ones_refused(tmp_path, made):
    loss = np.logaddexp(0, -made.margin[:, :, 0]).astype(np.float32).ravel()
    loss[:3] = 0
    table = rows_of(made).drop(columns="margin").assign(loss=loss)

    run = imports.read(written(tmp_path / "run.parquet", table))

    assert any(f"3 of {M * N} losses are 0, to float32: their margins end at 16.6 nats" in note for note in run.notes)
    table.loc[4, "loss"] = -0.5
    with pytest.raises(RunError, match=r"1 losses are negative, the least -0.5 in row 4"):
        imports.read(written(tmp_path / "run.parquet", table))


def test_logits_with_labels_and_views_in_a_table(tmp_path, made):
    model, sample, view = np.unravel_index(np.arange(M * N * Q), (M, N, Q))
    table = pd.DataFrame({
        "model_id": model, "sample_id": sample, "view": view, "is_member": made.keep[model, sample], "label": made.label[sample],
        "logits": list(made.logits.reshape(-1, C)),
    })  # fmt: skip

    run = imports.read(written(tmp_path / "run.parquet", table))

    assert np.array_equal(run.signals["logits"], made.logits)
    assert run.signals["margin"] == approx(made.margin)
    with pytest.raises(RunError, match="logits say nothing without labels"):
        imports.read(written(tmp_path / "run.parquet", table.drop(columns="label")))


def test_ids_that_are_no_numbers_are_numbered_and_kept(tmp_path, made):
    table = rows_of(made).astype({"sample_id": str})
    table["sample_id"] = "patient-" + table["sample_id"].str.zfill(2)

    run = imports.read(written(tmp_path / "run.parquet", table))
    _, samples, _ = imports.plan_of(imports.write(run, tmp_path))

    assert run.sample_id.tolist() == list(range(N)) and any("are no integers" in note for note in run.notes)
    assert samples["source_id"].tolist() == [f"patient-{n:02d}" for n in range(N)]


def test_ids_far_apart_are_numbered_and_others_kept(tmp_path, made):
    kept = imports.read(written(tmp_path / "near.parquet", rows_of(made).assign(sample_id=rows_of(made)["sample_id"] * 3)))
    numbered = imports.read(written(tmp_path / "far.parquet", rows_of(made).assign(sample_id=rows_of(made)["sample_id"] * 1000)))

    assert kept.sample_id.tolist() == list(range(0, 3 * N, 3))
    assert numbered.sample_id.tolist() == list(range(N)) and numbered.source_id.tolist() == list(range(0, 1000 * N, 1000))


def test_only_marked_models_are_targets_and_groups_are_kept(tmp_path, made):
    table = rows_of(Made(made.keep[:, np.arange(N) // 2 * 2], made.label, made.logits))
    table["target"], table["group_id"] = table["model_id"] == "m3", table["sample_id"] // 2

    run = imports.read(written(tmp_path / "run.parquet", table))
    plan, samples, _ = imports.plan_of(imports.write(run, tmp_path))

    assert plan["model_id"][plan["is_target"]].tolist() == ["m3"]
    assert samples["group_id"].tolist() == [n // 2 for n in range(N)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(index=[61, 62]), r"2 of 480 answers are missing, first model m1, sample 1"),
        (lambda t: pd.concat([t, t.iloc[[5]]]), r"1 of 480 answers are there several times, first model m0, sample 5"),
        (lambda t: t.assign(margin=t["margin"].where(t.index != 70)), r"1 of 480 values of margin are not finite.*row 70 \(model m1, sample 10\)"),
        (lambda t: t.drop(columns="margin"), r"no column margin, loss or logits; found model_id, sample_id, is_member"),
        (lambda t: t.assign(is_member="maybe"), r"is_member is neither true or false nor 1 or 0 in 480 rows, first 'maybe' in row 0"),
        (lambda t: t.assign(label=t.index % 7), r"label differs between rows of \d+ samples"),
        (lambda t: t.assign(label=0.5), r"label is no class number"),
        (lambda t: t[t["model_id"] < "m3"], r"3 models, at least 4 are needed"),
        (lambda t: t.assign(is_member=t["is_member"] & (t["model_id"] != "m2")), r"all 60 samples are non-members of model m2"),
        (lambda t: t.assign(target=False), r"no model is marked as a target"),
        (lambda t: t.iloc[:0], r"the table has no rows"),
        (lambda t: t.assign(model_id=t["model_id"].where(t.index != 3)), r"model_id is missing in 1 rows, first in row 3"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused_in_one_sentence(tmp_path, made, change, message):
    with pytest.raises(RunError, match=message):
        imports.read(written(tmp_path / "run.parquet", change(rows_of(made))))


def test_a_membership_that_differs_between_views_is_refused(tmp_path, made):
    table = pd.concat([rows_of(made, view=0), rows_of(made, view=1)], ignore_index=True)
    table.loc[M * N + 65, "is_member"] ^= True

    with pytest.raises(RunError, match="is_member differs between rows of 1 model and samples, first model m1, sample 5"):
        imports.read(written(tmp_path / "run.parquet", table))


# --- what kind of run it is


def test_a_folder_of_no_known_kind_says_what_was_looked_for(tmp_path):
    with pytest.raises(RunError, match=r"looked for experiment-\*/keep.npy \(lira\), for models/memberships.npy"):
        imports.read(tmp_path)
    with pytest.raises(RunError, match="there is no such file or folder"):
        imports.read(tmp_path / "nowhere")


def test_complements_and_equal_training_sets_share_a_unit_whatever_nobody_or_everybody_trained_on():
    draw = np.random.default_rng(0)
    keep = np.concatenate([halves(draw, 4), halves(draw, 2)[:1]])[[0, 2, 1, 4, 3, 0]]
    whole = np.concatenate([keep, np.zeros((6, 3), bool), np.ones((6, 2), bool)], axis=1)

    assert units_of(whole).tolist() == [0, 1, 0, 2, 1, 0]


@pytest.mark.parametrize("lost", [0, 1, 4])
def test_models_drawn_together_are_found_even_when_some_are_missing(lost):
    draw = np.random.default_rng(0)
    keep = (draw.random((16, 1000)).argsort(axis=0).argsort(axis=0) < 8)[: 16 - lost]

    assert evenness(keep, units_of(keep)) == -1


def test_independent_models_and_complementary_halves_are_not_taken_for_drawn_together():
    for seed in range(200):
        draw = np.random.default_rng(seed)
        coins, pairs = draw.random((16, 300)) < 0.5, halves(draw, 16, 300)
        assert evenness(coins, units_of(coins)) == 0 and evenness(pairs, units_of(pairs)) == 0


def test_samples_that_are_trained_on_more_often_are_told():
    draw = np.random.default_rng(0)
    keep = draw.random((16, 1000)) < np.where(np.arange(1000) < 500, 0.3, 0.7)

    assert evenness(keep, units_of(keep)) == 1


def test_what_nobody_trained_on_is_population_and_what_everybody_did_is_left_out(tmp_path, made):
    keep = made.keep.copy()
    keep[:, :4], keep[:, 4] = False, True
    table = rows_of(Made(keep, made.label, made.logits))

    run = imports.read(written(tmp_path / "run.parquet", table))
    plan, samples, _ = planned(run, tmp_path)
    audited, outside = pools.read_samples(samples)

    assert audited["sample_id"].tolist() == list(range(5, N)) and outside["sample_id"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(pools.read_models(plan, audited["sample_id"].to_numpy()).is_member, keep[:, 5:])
    assert any("4 samples are in no model's training set" in note for note in run.notes)
    assert any("1 samples are in every model's training set (the first is 4)" in note for note in run.notes)


# --- what is written


def test_signals_and_plan_come_back_from_the_file(tmp_path, made):
    run = imports.read(lira_folder(tmp_path / "run", made))
    plan, samples, signals = planned(run, tmp_path)

    pool, models = pools.read(plan, samples, [signals], (), ["margin", "is_correct"])

    assert np.array_equal(pool.signals["margin"], made.margin) and np.array_equal(models.is_member, made.keep)
    assert np.array_equal(pool.label, made.label) and models.is_target.all()
    known = artefacts.read_facts(signals)["models"][2]
    assert known["n_train"] == made.keep[2].sum()
    assert known["train_accuracy"] == approx((made.logits[2, made.keep[2], 0].argmax(axis=1) == made.label[made.keep[2]]).mean())


def test_the_project_has_the_attacks_that_the_run_allows(tmp_path, made):
    entry = {}
    for name, options in (("logits", {}), ("scores", {"logits": False, "scores": True, "labels": False})):
        run = imports.read(lira_folder(tmp_path / name, made, **options))
        files = imports.project(run, tmp_path / f"project-{name}")
        assert [file.name for file in files] == ["imported.parquet", "params.yaml"]
        entry[name] = yaml.safe_load(files[1].read_text())["audits"]["imported"]

    assert entry["logits"]["headline"] == "lira" and entry["logits"]["design"] == {"kind": "imported", "source": "imported.parquet"}
    assert {"lira", "lira-offline", "correctness", "shadow"} <= {*entry["logits"]["attacks"]} and "rmia" not in entry["logits"]["attacks"]
    assert {*entry["scores"]["attacks"]} == {"loss", "lira", "lira-offline", "base", "reference", "difficulty"}
    for attack in entry["logits"]["attacks"].values():
        params.attack_options(attack)


def test_a_params_file_that_is_there_stays(tmp_path, made):
    (tmp_path / "params.yaml").write_text("seed: 3\n")

    imports.project(imports.read(lira_folder(tmp_path / "run", made)), tmp_path)

    assert (tmp_path / "params.yaml").read_text() == "seed: 3\n"


def test_importing_torch_is_not_needed_to_read_a_run():
    import subprocess
    import sys

    program = "import sys, memleak.imports, memleak.imports.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- export


@pytest.mark.parametrize(("kind", "name"), [("lira", "run"), ("table", "run.parquet"), ("table", "run.csv")])
def test_a_round_trip_gives_the_same_membership_and_margins(tmp_path, made, kind, name):
    run = imports.read(lira_folder(tmp_path / "run-0", made))
    plan, samples, signals = planned(run, tmp_path)

    export.write(kind, plan, samples, [signals], tmp_path / name)
    again = imports.read(tmp_path / name)

    assert np.array_equal(again.is_member, made.keep) and np.array_equal(again.signals["margin"], made.margin)
    assert np.array_equal(again.label, made.label)


def test_privacy_meters_layout_holds_one_view_as_probabilities_and_says_what_is_lost(tmp_path, made):
    margin = made.margin.copy()
    margin[0, :3], margin[1, :3] = 50.0, 25.0
    made_again = rows_of(made, margin=margin[:, :, 0].ravel())
    views = pd.concat([made_again.assign(view=0), made_again.assign(view=1)])
    plan, samples, signals = planned(imports.read(written(tmp_path / "run.parquet", views)), tmp_path)

    told = export.write("privacy-meter", plan, samples, [signals], tmp_path / "log")
    again = imports.read(tmp_path / "log")

    assert np.array_equal(again.is_member, made.keep)
    assert again.signals["margin"][1:] == approx(margin[1:, :, :1], abs=1e-4)
    assert again.signals["margin"][0, :3, 0] == approx(36.7, abs=0.05)
    assert f"3 of {M * N:,} round to 1" in told[0] and "of 2 the first was written" in told[1]


@pytest.mark.parametrize(("kind", "name"), [("lira", "run"), ("privacy-meter", "run"), ("table", "run.parquet")])
def test_an_audit_has_the_same_scores_after_a_round_trip(tmp_path, made, kind, name):
    keep = np.concatenate([np.zeros((M, 4), dtype=bool), halves(np.random.default_rng(3), M, N - 4)], axis=1)
    ours = planned(imports.read(written(tmp_path / "table.parquet", rows_of(Made(keep, made.label, made.logits)))), tmp_path / "ours")
    told = export.write(kind, *ours[:2], [ours[2]], tmp_path / name)
    theirs = planned(imports.read(tmp_path / name), tmp_path / "theirs")

    attack = {"id": "lira", "name": "lira", "options": {}, "alpha": 0.05}
    scores = []
    for which, (plan, samples, signals) in (("ours", ours), ("theirs", theirs)):
        attacks.score(plan, samples, [signals], [], attack, tmp_path / f"{which}.parquet")
        scores.append(artefacts.read_table(tmp_path / f"{which}.parquet", artefacts.POOL_SCORE_COLUMNS[1:]))

    pd.testing.assert_frame_equal(*scores, rtol=1e-3 if kind == "privacy-meter" else 1e-9)
    assert "The 4 samples of the population were not written." in told


def test_labels_as_the_public_code_saves_them(tmp_path, made):
    folder = lira_folder(tmp_path, made)
    np.save(folder / "y_train.npy", made.label.astype(np.uint8)[:, None])

    assert np.array_equal(imports.read(folder).signals["margin"], made.margin)
    np.save(folder / "y_train.npy", made.label[:-1])
    with pytest.raises(RunError, match="60 samples, 59 labels; give labels of all samples"):
        imports.read(folder)


def test_an_export_keeps_sample_ids_that_have_gaps(tmp_path, made):
    table = rows_of(made).assign(sample_id=rows_of(made)["sample_id"] * 3)
    plan, samples, signals = planned(imports.read(written(tmp_path / "run.parquet", table)), tmp_path)

    for kind in ("lira", "privacy-meter"):
        export.write(kind, plan, samples, [signals], tmp_path / kind)
        assert imports.read(tmp_path / kind).sample_id.tolist() == list(range(0, 3 * N, 3))


def test_an_export_of_an_unknown_kind_or_of_pairs_is_refused(tmp_path, made):
    plan, samples, signals = planned(imports.read(lira_folder(tmp_path / "run", made)), tmp_path)

    with pytest.raises(RunError, match="kind 'zip' of an export is not known; expected lira, privacy-meter, table"):
        export.write("zip", plan, samples, [signals], tmp_path / "out")
    artefacts.write_table(plan, artefacts.read_table(plan, artefacts.PLAN_COLUMNS), {"design": {"kind": "pairs"}})
    with pytest.raises(RunError, match="in a pairs audit each model answers about its own record"):
        export.write("table", plan, samples, [signals], tmp_path / "out.csv")
