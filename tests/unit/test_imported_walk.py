"""Earlier runs from `memleak import` to their page: what was found there, and what could not be known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from documented import errors_of
from pytest import approx
from scipy.stats import norm

from memleak import artefacts, cli, imports, params, plan
from memleak.attacks import AttackError
from memleak.attacks import stage as attacks
from memleak.imports import export
from memleak.imports import stage as imported
from memleak.imports.run import made
from memleak.metrics import stage as metrics
from memleak.report import stage as report
from memleak.report.verdict import verdict

M, N, C = 16, 240, 4
LOSS, LIRA = {"name": "threshold", "signal": "loss"}, {"name": "lira"}


@dataclass(frozen=True)
class Earlier:
    """An imported run, audited as far as its page."""

    folder: Path
    planned: plan.PlannedAudit

    def audit(self, name: str) -> Path:
        return self.folder / f"results/audits/imported/{name}"

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self.folder / "results/metrics/imported.json")

    @property
    def page(self) -> str:
        return self.audit("report.html").read_text()

    def scores(self, attack: str) -> np.ndarray:
        """The scores of an attack, [M, N]."""
        table = artefacts.read_table(self.audit(f"scores/{attack}.parquet"), artefacts.POOL_SCORE_COLUMNS)
        return table["score"].to_numpy().reshape(table["target_id"].nunique(), -1)


def planned_in(folder: Path, **changes: Any) -> plan.PlannedAudit:
    """The plan of a project's params.yaml, its audit changed."""
    config = yaml.safe_load((folder / "params.yaml").read_text())
    config["audits"]["imported"] |= changes
    return plan.build(params.validate(config)).audits["imported"]


def walked(source: Path, folder: Path, *, is_shown: bool = False, **changes: Any) -> Earlier:
    """What `memleak import` and the workflow's rules do, in one process; the page where it is to be shown."""
    with pytest.MonkeyPatch.context() as patch:
        folder.mkdir()
        patch.chdir(folder)
        assert cli.main(["import", str(source), "--output", "."]) == 0
        planned = planned_in(folder, **{"headline": None} | changes)
        done = Earlier(folder, planned)
        place = {name: done.audit(f"{name}.parquet") for name in ("plan", "samples", "decisions", "exposure", "roc")}
        imported.plan(Path(planned.data_path()), json.loads(planned.canonical_json()), place["plan"], place["samples"])
        names = list(planned.audit.attacks)
        scores, rules = ([done.audit(f"{what}/{name}.{form}") for name in names] for what, form in (("scores", "parquet"), ("thresholds", "json")))
        for name, score, rule in zip(names, scores, rules, strict=True):
            attack, signals = json.loads(planned.attack_json(name)), [Path(path) for path in planned.signals(name)]
            population = [Path(path) for path in planned.population_signals()] if planned.wants_population(name) else []
            attacks.score(place["plan"], place["samples"], signals, population, attack, score)
            metrics.threshold(place["plan"], signals, score, attack, rule)
        metrics.decide(place["plan"], [], rules, scores, place["decisions"])
        found, signals = folder / "results/metrics/imported.json", [Path(path) for path in planned.signals()]
        metrics.measure(
            place["plan"], place["samples"], signals, rules, scores, place["decisions"], json.loads(planned.headline_json(False)), found,
            place["exposure"], place["roc"], folder / "results/plots/imported.csv", done.audit("exposed.csv"),
        )  # fmt: skip
        if not is_shown:
            return done
        figures = [done.audit(f"figures/{name}.svg") for name in planned.figures()]
        more = {"score_paths": scores, "exposure_path": place["exposure"]}
        for path in figures:
            report.figure(path.stem, place["plan"], [], [], found, place["roc"], path, path.with_suffix(".png"), **more)
        report.timings(folder / "logs/benchmarks", planned.names_of_models(), "imported", done.audit("timings.csv"))
        page = json.loads(planned.page_json())
        report.report(found, place["plan"], place["decisions"], done.audit("timings.csv"), figures, page, done.audit("report.html"))
        report.summary(found, page, done.audit("report.txt"))
    return done


def coins(draw: np.random.Generator, n_models: int, n: int) -> np.ndarray:
    """A coin for each model and sample, tossed again for samples that fewer than three models trained on, or did not."""
    keep = draw.random((n_models, n)) < 0.5
    while (few := np.minimum(keep.sum(axis=0), (~keep).sum(axis=0)) < 3).any():
        keep[:, few] = draw.random((n_models, int(few.sum()))) < 0.5
    return keep


def balanced(draw: np.random.Generator, n_models: int = M, n: int = N) -> np.ndarray:
    """Every sample in half of the models, as LiRA's public code has it."""
    return draw.random((n_models, n)).argsort(axis=0).argsort(axis=0) < n_models // 2


def lira_folder(folder: Path, keep: np.ndarray, answers: np.ndarray, label: np.ndarray | None = None) -> Path:
    """Logits [M, N, C] where there are labels, else scores [M, N]."""
    for row, (kept, values) in enumerate(zip(keep, answers, strict=True)):
        own = folder / f"experiment-{row}_{len(keep)}"
        (own / "logits").mkdir(parents=True)
        np.save(own / "keep.npy", kept)
        if label is not None:
            np.save(own / "logits/0000000100.npy", values[:, None, None].astype(np.float32))
        else:
            np.save(own / "scores.npy", values[:, None].astype(np.float32))
    if label is not None:
        np.save(folder / "y_train.npy", label)
    return folder


def margins(draw: np.random.Generator, keep: np.ndarray, distance: float) -> np.ndarray:
    """Gaussian margins about a level of each sample's own; those of members are `distance` higher."""
    return draw.normal(3, 2, keep.shape[1]) + draw.normal(size=keep.shape) + distance * keep


def table_of(keep: np.ndarray, margin: np.ndarray, **columns: Any) -> pd.DataFrame:
    model, sample = np.divmod(np.arange(keep.size), keep.shape[1])
    found = {"model_id": [f"m{row:02d}" for row in model], "sample_id": sample, "is_member": keep.ravel(), "margin": margin.ravel()}
    return pd.DataFrame(found | columns)


@pytest.fixture(scope="session")
def of_logits(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    """A balanced run with logits: right about 97 % of members and 80 % of others."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("logits")
    keep, label = balanced(draw), draw.integers(0, C, N)
    logits = draw.normal(size=(M, N, C)) + draw.normal(size=(N, C))
    logits[:, np.arange(N), label] += 3 + 2.5 * keep
    attacks_ = {"lira": LIRA, "loss": LOSS, "correctness": {"name": "threshold", "signal": "correctness"}, "shadow": {"name": "shadow"}}
    return walked(lira_folder(folder / "run", keep, logits, label), folder / "project", is_shown=True, attacks=attacks_)


def test_a_balanced_run_is_measured_and_its_controls_are_quiet(of_logits):
    found = of_logits.metrics

    assert found["kind"] == "imported" and found["n_targets"] == M and found["is_balanced"]
    assert found["attacks"]["lira"]["auc"]["low"] > 0.7
    assert not found["controls"]["null"]["alarm"] and found["controls"]["count"] is None
    assert verdict(found).state != "UNDECIDED" or "more models narrow it" in verdict(found).sentence
    assert [row["class"] for row in found["classes"]] == list(range(C))
    assert errors_of(found) == []


def test_the_page_of_a_run_says_where_it_comes_from_and_what_was_not_tested(of_logits):
    page = of_logits.page

    assert (
        f"{M} imported models, asked about {N} records; nothing was trained here." in page and "The samples are in equally many training sets" in page
    )
    assert "not tested: the records were not imported" in page and "<b>Count</b>" not in page
    assert "an unknown device (torch unknown, imported)" in page and "records; not imported<" in page
    assert "None" not in page.split("How it was made</h2>")[0]
    text = of_logits.audit("report.txt").read_text()
    assert f"{M} models (imported)" in text and "lira (headline" in text


@pytest.fixture(scope="session")
def of_scores(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    """A run of scores alone, each sample's coin tossed for each model."""
    draw, folder = np.random.default_rng(1), tmp_path_factory.mktemp("scores")
    keep = coins(draw, M, N)
    attacks_ = {"lira": LIRA, "loss": LOSS}
    return walked(lira_folder(folder / "run", keep, margins(draw, keep, 1.5)), folder / "project", is_shown=True, attacks=attacks_)


def test_a_run_without_labels_has_no_classes_and_no_accuracy(of_scores):
    found, page = of_scores.metrics, of_scores.page

    assert found["data"]["n_classes"] is None and found["models"]["train_accuracy"] is None
    assert errors_of(found) == []
    assert "<h2>By class</h2>" not in page
    assert ">-1<" not in page and ">unknown<" in page  # of the most exposed records
    assert not found["is_balanced"] and not found["controls"]["count"]["alarm"]
    assert "train_acc: unknown" in of_scores.audit("report.txt").read_text()


# --- figures that are known beforehand


@pytest.fixture(scope="session")
def of_coins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Earlier, np.ndarray, np.ndarray]:
    """A table of 20 models, and its arrays [M, N]."""
    draw, folder = np.random.default_rng(2), tmp_path_factory.mktemp("coins")
    keep = coins(draw, 20, 120)
    margin = margins(draw, keep, 1.0).astype(np.float32)
    table_of(keep, margin).to_parquet(folder / "run.parquet")
    attacks_ = {"lira": LIRA | {"variance": "per_sample"}, "loss": LOSS, "twelve": LIRA | {"mode": "offline", "references": 12}}
    return walked(folder / "run.parquet", folder / "project", attacks=attacks_), keep, margin


def test_scores_of_a_run_are_those_of_a_small_calculation(of_coins):
    """Carlini et al. 2022, equation 4, from the run's own arrays."""
    done, keep, margin = of_coins
    expected = np.empty(margin.shape)
    for target in range(len(keep)):
        others = np.arange(len(keep)) != target
        for sample in range(keep.shape[1]):
            said, inside = margin[others, sample].astype(np.float64), keep[others, sample]
            density = [norm.logpdf(margin[target, sample], said[side].mean(), said[side].std()) for side in (inside, ~inside)]
            expected[target, sample] = density[0] - density[1]

    assert done.scores("lira") == approx(expected, abs=1e-6)
    assert done.scores("loss") == approx(-np.logaddexp(0, -margin.astype(np.float64)), abs=1e-6)


def test_fewer_references_are_used_where_the_attack_asks_for_them(of_coins):
    found = of_coins[0].metrics["attacks"]

    assert found["twelve"]["n_references"] == 12 and found["lira"]["n_references"] == 19


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_the_interval_of_a_runs_auc_holds_the_truth(tmp_path, distance):
    """Margins of unit variance, `distance` apart: the loss has AUC Phi(distance / sqrt 2), and no leak is none."""
    draw = np.random.default_rng(3)
    keep = coins(draw, M, N)
    table_of(keep, draw.normal(size=keep.shape) + distance * keep).to_parquet(tmp_path / "run.parquet")

    found = walked(tmp_path / "run.parquet", tmp_path / "project", attacks={"loss": LOSS, "lira": LIRA}).metrics

    truth = norm.cdf(distance / np.sqrt(2))
    assert found["attacks"]["loss"]["auc"]["low"] < truth < found["attacks"]["loss"]["auc"]["high"]
    assert found["attacks"]["lira"]["auc"]["low"] < truth + 1e-12
    assert not found["controls"]["null"]["alarm"] and not found["controls"]["count"]["alarm"]


def test_a_balanced_run_without_a_leak_shows_none(tmp_path):
    """The number of IN references would tell all of it."""
    draw = np.random.default_rng(4)
    keep = balanced(draw)

    found = walked(lira_folder(tmp_path / "run", keep, margins(draw, keep, 0.0)), tmp_path / "project", attacks={"lira": LIRA}).metrics

    auc = found["attacks"]["lira"]["auc"]
    assert auc["low"] < 0.5 < auc["high"] and auc["high"] - auc["low"] < 0.1


# --- what a run may lack or ask for


def test_only_so_many_models_are_audited_as_targets_says(tmp_path):
    draw = np.random.default_rng(5)
    keep = coins(draw, 12, 80)
    table_of(keep, margins(draw, keep, 1.0)).to_parquet(tmp_path / "run.parquet")

    design = {"kind": "imported", "source": "imported.parquet", "targets": 3}
    found = walked(tmp_path / "run.parquet", tmp_path / "project", attacks={"lira": LIRA}, design=design).metrics

    assert found["n_targets"] == 3 and found["attacks"]["lira"]["n_references"] == 11
    assert "import more models, or raise alpha" in verdict(found).sentence  # 80 records set no threshold for 1 %


def test_classes_may_be_missing_and_samples_have_names(tmp_path):
    draw = np.random.default_rng(6)
    keep, label = coins(draw, 12, 90), draw.choice([0, 1, 7], 90)
    table = table_of(keep, margins(draw, keep, 2.0), label=np.tile(label, 12))
    table.assign(sample_id="patient-" + table["sample_id"].astype(str)).to_csv(tmp_path / "run.csv", index=False)

    done = walked(tmp_path / "run.csv", tmp_path / "project", is_shown=True, attacks={"lira": LIRA}, slices=["label"], alpha=0.1)

    assert [row["class"] for row in done.metrics["classes"]] == [0, 1, 7]
    assert [row["value"] for row in done.metrics["slices"][0]["slices"]] == ["0", "1", "7"]
    assert "<td>patient-" in done.page
    assert pd.read_csv(done.audit("exposed.csv"))["source_id"].str.startswith("patient-").all()


def test_a_population_is_what_no_model_trained_on_and_further_answers(tmp_path):
    """Privacy Meter's layout; some rows of memberships.npy are nobody's."""
    draw = np.random.default_rng(7)
    first = draw.random((6, 80)).argsort(axis=1) < 40
    keep = np.stack([first, ~first], axis=1).reshape(12, 80)
    keep[:, :10] = False
    for name, values in (
        ("models/memberships", keep),
        ("signals/rmia_signals", draw.random((80, 12))),
        ("signals/rmia_signals_pop", draw.random((30, 12))),
    ):
        artefacts.write_array(tmp_path / f"log/{name}.npy", values)

    done = walked(tmp_path / "log", tmp_path / "project", attacks={"rmia": {"name": "rmia", "a": 0.3}, "population": {"name": "population"}})

    assert done.metrics["n_population"] == 40 and done.metrics["n_samples"] == 70
    assert abs(done.metrics["attacks"]["rmia"]["auc"]["value"] - 0.5) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": {"lira": LIRA | {"references": 99}}}, r"lira.references: 99 asked for, each target has 11 of the 12 imported models; lower"),
        ({"attacks": {"a": {"name": "threshold", "signal": "correctness"}}}, r"attacks.a: reads is_correct, and imported.parquet holds loss and margin"),
        ({"attacks": {"a": {"name": "shadow"}}}, r"attacks.a: reads logits, and imported.parquet holds loss and margin alone; import logits"),
        ({"attacks": {"a": {"name": "label_only"}}}, r"attacks.a: it asks models itself \(identity, .*imported ones cannot be asked again"),
        ({"attacks": {"a": {"name": "rmia"}}}, r"attacks.a: a population is needed, and the imported models were not asked about one"),
        ({"design": {"kind": "imported", "source": "imported.parquet", "targets": 99}}, r"design.targets: 99 asked for, .* has 12 models to audit"),
        ({"design": {"kind": "imported", "source": "run.parquet"}}, r"run.parquet holds no imported run; `memleak import` writes one"),
        ({"design": {"kind": "imported", "source": "nowhere.parquet"}}, r"there is no file 'nowhere.parquet' .*`memleak import` writes it"),
        ({"views": ["flip"]}, r"views: is set, and imported models were asked already"),
        ({"signals": {"mine": {"name": "noise_robustness"}}}, r"signals: is set, and imported models were asked already"),
        ({"include_records": True}, r"include_records: is set, and the records were not imported"),
        ({"slices": ["sex"]}, r"slices: sex asked for, and of imported records nothing but the label is known"),
        ({"dataset": "digits"}, r"dataset: 'digits' is given, and models are imported; leave it out"),
    ],
)  # fmt: skip
def test_what_a_run_cannot_give_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys, changes, message):
    draw = np.random.default_rng(8)
    keep = draw.random((12, 40)) < 0.5
    monkeypatch.chdir(tmp_path)
    table_of(keep, margins(draw, keep, 1.0)).to_parquet("run.parquet")
    assert cli.main(["import", "run.parquet", "--output", "."]) == 0

    with pytest.raises(params.ParamsError, match=message):
        planned_in(tmp_path, **{"headline": None, "attacks": {"lira": LIRA}} | changes)


def test_groups_whose_samples_were_not_drawn_together_are_refused():
    draw = np.random.default_rng(9)
    keep = draw.random((6, 20)) < 0.5
    signals = {"margin": draw.normal(size=(6, 20, 1)), "loss": draw.normal(size=(6, 20, 1))}

    with pytest.raises(
        imports.RunError, match=r"samples of \d+ groups differ in membership, first \d+ and \d+ of model .; a group is trained on as a whole"
    ):
        made(range(6), np.arange(20), keep, signals, where="run", group_id=np.arange(20) // 2)
    whole = keep[:, np.arange(20) // 2 * 2]
    assert made(range(6), np.arange(20), whole, signals, where="run", group_id=np.arange(20) // 2).group_id.tolist() == [n // 2 for n in range(20)]


def test_too_few_references_of_a_kind_are_named_with_their_sample(tmp_path):
    draw = np.random.default_rng(10)
    keep = draw.random((4, 60)) < 0.5
    table_of(keep, margins(draw, keep, 1.0)).to_parquet(tmp_path / "run.parquet")

    with pytest.raises(AttackError, match=r"lira: sample \d+ has 0 IN references of 3, at least 1 are needed"):
        walked(tmp_path / "run.parquet", tmp_path / "project", attacks={"lira": LIRA})


# --- an audit of our own, exported and imported


@pytest.mark.parametrize(("kind", "name"), [("table", "run.parquet"), ("table", "run.csv"), ("lira", "run")])
def test_an_audit_of_our_own_has_the_same_scores_when_it_comes_back(tmp_path, pool_walk, kind, name):
    export.write(kind, pool_walk.plan, pool_walk.samples, pool_walk.signals, tmp_path / name)

    done = walked(tmp_path / name, tmp_path / "project", attacks={"lira": LIRA, "loss": LOSS})

    assert not done.metrics["is_balanced"]
    units = artefacts.read_table(done.audit("plan.parquet"), artefacts.PLAN_COLUMNS)["round"].to_numpy()
    assert np.array_equal(units, artefacts.read_table(pool_walk.plan, artefacts.PLAN_COLUMNS)["round"])
    for attack in ("lira", "loss"):
        theirs = artefacts.read_table(pool_walk.audit(f"scores/{attack}.parquet"), artefacts.POOL_SCORE_COLUMNS)
        for column in ("score", "folded", "odd", "even"):
            ours = artefacts.read_table(done.audit(f"scores/{attack}.parquet"), artefacts.POOL_SCORE_COLUMNS)[column]
            assert ours.to_numpy() == approx(theirs[column].to_numpy(), abs=1e-5, nan_ok=True)
