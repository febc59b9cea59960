"""Anybody's scores: known worlds are measured right, wrong tables are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pytest import approx
from scipy.stats import norm

from memleak import artefacts, cli
from memleak.metrics import pooled, roc, stats


def _table(n: int = 4000, separation: float = 1.0, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    is_member = np.arange(n) % 2 == 0
    return pd.DataFrame({"score": draw.normal(size=n) + separation * is_member, "is_member": is_member})


def _targets(n_targets: int = 10, n_samples: int = 400, seed: int = 0) -> pd.DataFrame:
    """Scores of several targets on the same samples; each sample has a level of its own."""
    draw = np.random.default_rng(seed)
    is_member = draw.random((n_targets, n_samples)) < 0.5
    score = draw.normal(size=(n_targets, n_samples)) + draw.normal(size=n_samples) + is_member
    target, sample = np.indices(score.shape)
    return pd.DataFrame({"score": score.ravel(), "is_member": is_member.ravel(), "target_id": target.ravel(), "sample_id": sample.ravel()})


def _read(table: pd.DataFrame, path) -> stats.Scores:
    table.to_parquet(path, index=False)
    return stats.read(path)


def test_two_gaussians_have_the_auc_and_the_rates_of_the_closed_form(tmp_path):
    """Unit normals 1 apart: AUC Phi(1 / sqrt 2), TPR Phi(1 - Phi^-1(1 - f))."""
    found, _ = stats.measure(_read(_table(n=40_000), tmp_path / "s.parquet"))

    assert found["auc"]["low"] <= norm.cdf(1 / np.sqrt(2)) <= found["auc"]["high"]
    for rate in found["rates"][:3]:
        assert rate["low"] <= norm.cdf(1 - norm.isf(rate["at_fpr"])) <= rate["high"]
    assert found["warnings"] == []


def test_one_target_is_measured_as_by_roc(tmp_path):
    table = _table()
    found, _ = stats.measure(_read(table, tmp_path / "s.parquet"))

    for rate in found["rates"]:
        assert rate == roc.tpr_at_fpr(table["score"], table["is_member"], rate["at_fpr"]).as_dict() | {"n_scores": 2000}


def test_targets_and_samples_are_measured_as_by_pooled(tmp_path):
    table = _targets()
    found, _ = stats.measure(_read(table.sample(frac=1, random_state=0), tmp_path / "s.parquet"))

    expected = pooled.measure(*(table.pivot(index="target_id", columns="sample_id", values=name).to_numpy() for name in ("score", "is_member")))
    assert found["auc"] == approx(expected["auc"])
    for rate, other in zip(found["rates"], expected["rates"], strict=True):
        # draws of the bootstrap go by the order of the codes, which is that of the rows
        assert rate["value"] == other["value"] and (rate["low"], rate["high"]) == (approx(other["low"], abs=0.02), approx(other["high"], abs=0.02))
    assert (found["n_targets"], found["n_samples"]) == (10, 400)


def test_intervals_widen_when_scores_of_a_sample_are_known_to_depend_on_each_other(tmp_path):
    table = _targets()
    alone, _ = stats.measure(_read(table[["score", "is_member"]], tmp_path / "a.parquet"))
    known, _ = stats.measure(_read(table, tmp_path / "b.parquet"))

    assert known["auc"]["value"] == approx(alone["auc"]["value"])
    assert known["auc"]["high"] - known["auc"]["low"] > 1.2 * (alone["auc"]["high"] - alone["auc"]["low"])


def test_targets_without_samples_are_clusters_by_themselves(tmp_path):
    found = _read(_targets().drop(columns="sample_id"), tmp_path / "s.parquet")
    metrics, _ = stats.measure(found)

    assert (metrics["n_targets"], metrics["n_samples"]) == (10, None)
    assert "scores of one target depend on each other" in metrics["dependence"]


def test_several_scores_of_a_sample_by_one_target_are_a_cluster(tmp_path):
    """Each score twice says nothing new: the interval stays as wide as of each score once."""
    table = _table(n=600).assign(sample_id=np.arange(600))
    once, _ = stats.measure(_read(table, tmp_path / "a.parquet"))
    twice, _ = stats.measure(_read(pd.concat([table, table]), tmp_path / "b.parquet"))

    assert twice["auc"]["high"] - twice["auc"]["low"] == approx(once["auc"]["high"] - once["auc"]["low"], rel=0.1)


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    table = _table(n=500).round(1)  # with ties
    found, curve = stats.measure(_read(table, tmp_path / "a.parquet"))
    other, other_curve = stats.measure(_read(table.sample(frac=1, random_state=1), tmp_path / "b.parquet"))

    assert found == other
    pd.testing.assert_frame_equal(curve, other_curve)


def test_the_curve_rises_and_lies_in_its_band(tmp_path):
    _, curve = stats.measure(_read(_table(n=400), tmp_path / "s.parquet"))

    assert (np.diff(curve["fpr"]) > 0).all() and (np.diff(curve["tpr"]) >= 0).all()
    assert ((curve["low"] <= curve["tpr"]) & (curve["tpr"] <= curve["high"])).all()
    assert curve["fpr"].iloc[-1] == curve["tpr"].iloc[-1] == 1


def test_losses_given_as_scores_are_noticed(tmp_path):
    table = _table()
    found, _ = stats.measure(_read(table.assign(score=-table["score"]), tmp_path / "s.parquet"))

    assert any("change their sign" in text for text in found["warnings"])


def test_few_different_scores_are_noticed(tmp_path):
    table = _table(n=100)
    found, _ = stats.measure(_read(table.assign(score=(table["score"] > 0.5).astype(int)), tmp_path / "s.parquet"))

    assert any("only 2 different scores" in text for text in found["warnings"])


@pytest.mark.parametrize("truth", [lambda m: m, lambda m: m.astype(int), lambda m: m.astype(float), lambda m: np.where(m, "True", "false")])
@pytest.mark.parametrize("form", ["csv", "parquet", "tsv"])
def test_truth_is_read_in_every_usual_form(tmp_path, truth, form):
    table = _table(n=50)
    path, written = tmp_path / f"s.{form}", table.assign(is_member=truth(table["is_member"].to_numpy()))
    if form == "parquet":
        written.to_parquet(path)
    else:
        written.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")

    found = stats.read(path)

    assert np.array_equal(found.is_member, table["is_member"])
    assert np.allclose(found.score, table["score"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"score": "loss"}), "has no column score; found is_member|has no column score; found loss, is_member"),
        (lambda t: t[["score"]], "has no column is_member"),
        (lambda t: t.assign(score=t["score"].where(t.index != 3, np.nan)), r"1 of 40 scores are not finite numbers \(nan in row 3\)|np.float64\(nan\) in row 3"),
        (lambda t: t.assign(score=t["score"].where(t.index != 3, np.inf)), "inf"),
        (lambda t: t.assign(score=["x"] * 40), "40 of 40 scores are not finite numbers"),
        (lambda t: t.assign(is_member=2), "neither true or false nor 1 or 0 in 40 rows"),
        (lambda t: t.assign(is_member=True), "40 scores of members and 0 of non-members"),
        (lambda t: t.assign(is_member=False), "0 scores of members and 40 of non-members"),
        (lambda t: t.assign(target_id=[None, *["a"] * 39]), "target_id is missing in 1 rows"),
        (lambda t: t.assign(target_id="a", sample_id=[0, 0, *range(38)]), "2 rows repeat a target and sample"),
        (lambda t: t.iloc[:0], "0 scores of members and 0 of non-members"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_in_one_sentence(tmp_path, change, words):
    with pytest.raises(stats.ScoresError, match=words) as error:
        _read(change(_table(n=40)), tmp_path / "s.parquet")

    assert "\n" not in str(error.value) and "s.parquet" in str(error.value)


@pytest.mark.parametrize(("name", "content"), [("s.parquet", b"PAR1 cut"), ("s.csv", b""), ("s.xlsx", b"x"), ("nowhere.csv", None)])
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path, name, content, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    assert cli.main(["stats", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_writes_figures_a_page_and_a_table_of_text(tmp_path, capsys):
    _table(n=2000).to_csv(tmp_path / "mine.csv", index=False)

    assert cli.main(["stats", str(tmp_path / "mine.csv"), "--output", str(tmp_path / "out"), "--name", "<mine>"]) == 0

    said, found = capsys.readouterr().out, artefacts.read_json(tmp_path / "out/metrics.json")
    assert f"AUC                   {found['auc']['value']:.3f} [" in said and "cannot certify" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "roc.csv", "roc.svg", "roc.png", "report.html"}
    html = (tmp_path / "out/report.html").read_text()
    assert "<mine>" not in html.replace("<!-- <mine> -->", "") and "&lt;mine&gt;" in html and "<svg " in html
    assert list(pd.read_csv(tmp_path / "out/roc.csv")) == ["fpr", "tpr", "low", "high", "certified"]
