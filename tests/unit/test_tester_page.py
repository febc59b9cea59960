"""The page and the recommendations of MembershipTester, on numbers made up for the purpose: nothing here asks a model."""

from __future__ import annotations

import copy
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import Tags

from memleak.metrics import membership, pooled, roc, texts
from memleak.metrics.clusters import pool
from memleak.report import tester_figures, tester_rules
from memleak.report.verdict import risk_score
from memleak.tester.report import AttackReport

HOSTILE = "<script>alert('x')</script>"
N = 60  # of each side


def made(separation: float = 2.0) -> AttackReport:
    """A report of two attacks on 60 and 60 texts, and of the auditor's combination, which could not be made."""
    draw, truth = np.random.default_rng(0), np.arange(2 * N) < N
    frames, attacks, curves = {}, {}, []
    for name, shift in (("ez", separation), ("loss", separation / 2), ("confidence", 0.0)):
        scores = draw.normal(size=2 * N) + shift * truth
        everything = pool(scores, truth)
        p, chance = membership.p_values(scores, truth), membership.membership(scores, truth)
        frames[name] = pd.DataFrame({
            "id": [f"text {i}" for i in range(2 * N)], "text": [f"secret {i}" for i in range(2 * N)], "split": np.where(truth, "train", "test"),
            "loss": -scores, "confidence": 0.5, "membership_prob": chance.probability, "rank": 1, "attack": name, "score": scores, "p_value": p,
            "prob_low": chance.low, "prob_high": chance.high, "flag": membership.flags(p, truth),
        })  # fmt: skip
        tpr = [one | {"certified": False} for one in pooled.rates(everything, (0.01, 0.1))]
        accuracy, _ = pooled.best_threshold(everything)
        attacks[name] = {"auc": pooled.auc(everything), "tpr_1": tpr[0], "tpr_10": tpr[1], "accuracy": accuracy, "is_auditors": False, "why": None}
        fpr, caught, _ = roc.curve(scores, truth)
        curves.append(pd.DataFrame({"subject": name, "fpr": fpr, "tpr": caught, "low": caught, "high": caught, "certified": False}))
    attacks["metric"] = {"auc": None, "tpr_1": None, "tpr_10": None, "accuracy": None, "is_auditors": True, "why": "too few texts"}
    frames["metric"] = frames["ez"].assign(score=np.nan, membership_prob=np.nan, prob_low=np.nan, prob_high=np.nan, attack="metric", flag=False)
    blind = {"value": 0.5, "low": 0.42, "high": 0.58}
    risk = risk_score(attacks["ez"]["auc"], attacks["ez"]["tpr_1"], blind, N)
    lengths, forms = texts.length({"bytes": draw.normal(size=2 * N)}, truth), texts.form({"capitals": draw.normal(size=2 * N)}, truth)
    found: dict[str, Any] = {
        "model": "tuned", "task": "causal-lm", "form": "GPT2LMHeadModel tuned", "reference": "base", "headline": "ez", "alpha": 0.05, "seed": 0,
        "n": {"members": N, "non_members": N, "population": 0, "overlap": 0, "near": 0, "short": 0, "truncated_members": 0, "truncated_non_members": 0},
        "max_length": 256, "is_adapter": False, "attacks": attacks, "excess": texts.excess(attacks["ez"]["auc"], blind),
        "controls": {
            "blind": {"auc": blind, "p": 0.5, "alarm": False, "why": None}, "permuted": {"n": 100, "share_covered": 0.95, "alarm": False},
            "length": lengths, "form": forms, "placebo": {"auc": blind, "p": 0.6, "alarm": False}, "overlap": texts.histogram(np.zeros(N)),
        },
        "family_wise": membership.family_wise(np.stack([frame["score"] for name, frame in frames.items() if name != "metric"]), truth, n=50),
        "reliability": membership.reliability(frames["ez"]["membership_prob"].to_numpy(), truth), "flagged": int(frames["ez"]["flag"].sum()),
        "fit": {"members": 2.0, "non_members": 2.5, "gap": 0.5}, "risk": {"value": risk.value, "low": risk.low, "high": risk.high, "level": risk.level},
        "legacy_risk_score": 92.0, "verdict": {"state": "HIGH", "sentence": "It tells.", "notes": ["A note."]}, "warnings": [], "directory": None,
    }  # fmt: skip
    return AttackReport(frames, found, pd.concat(curves, ignore_index=True))


@pytest.fixture(scope="module")
def report() -> AttackReport:
    return made()


@pytest.fixture(scope="module")
def html(report: AttackReport) -> str:
    return report.to_html()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of which the words are looked at have no figures."""
    monkeypatch.setattr(AttackReport, "visualize", lambda _: {})


def words(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", page, flags=re.DOTALL))))


def with_found(report: AttackReport, **changed: Any) -> AttackReport:
    return AttackReport(report.attack_frames, copy.deepcopy(report.found) | changed, report.roc)


def test_the_page_is_whole_and_says_what_was_found(report, html):
    said = words(html)

    assert Tags(html).open == [] and html.count('<div class="panels"') == 3 and "<script" not in html
    assert f"HIGH risk {report.risk_score:.0f} of 100" in said and "It tells. A note." in said
    assert "asked about 60 training texts and 60 others, beside the reference model base" in said
    assert "no score: too few texts" in said and "ez headline" in said and "metric the auditor's" in said
    assert "would be 92.0; without any leak it is above 50" in said


def test_every_attack_has_its_interval_on_the_page(report, html):
    for name in ("ez", "loss", "confidence"):
        auc = report.found["attacks"][name]["auc"]
        assert f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in words(html)


def test_texts_are_shown_on_request_only(report, html, undrawn):
    shown = report.to_html(include_texts=True)

    assert "secret" not in html and "secret" not in report.to_json() and "secret" not in report.to_csv()
    assert "secret" in shown and "secret" in report.to_csv(include_texts=True)


def test_what_is_written_gives_its_path(report, tmp_path, undrawn):
    for write, path in ((report.to_html, tmp_path / "a.html"), (report.to_json, tmp_path / "a.json"), (report.to_csv, str(tmp_path / "a.csv"))):
        assert write(path) == path and Path(path).read_text() == write()


def test_a_report_is_compared_with_a_report_alone(report):
    with pytest.raises(TypeError, match="compare: found NoneType, expected the report of another audit"):
        report.compare(None)


def test_no_two_words_of_the_page_run_together(report, undrawn):
    controls = copy.deepcopy(report.controls)
    controls["blind"]["alarm"] = True
    assert "]. Without a reference" in words(with_found(report, controls=controls, reference=None).to_html())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"verdict": {"state": "UNDECIDED", "sentence": "Why.", "notes": [], "is_refused": True}}, "Nothing can be said about this model: Why."),
        ({"n": {"fewest": 4}}, "Nothing can be said about this model: 4 different texts on one side; bring some hundreds of each."),
    ],
)  # fmt: skip
def test_where_nothing_can_be_said_nothing_is_recommended_but_texts(report, changed, why):
    known = {key: report.found[key] | value for key, value in changed.items()}
    said = with_found(report, **known).recommendations()

    assert said[0].startswith(why) and not any("evidence" in one or "release" in one or "LoRA" in one for one in said)


def test_a_reference_is_asked_for_where_it_could_tell_more(report):
    weak = {"auc": {"value": 0.7, "low": 0.6, "high": 0.8}}
    for auc, is_told in ((0.7, True), (0.97, False)):
        attacks = copy.deepcopy(report.found["attacks"])
        attacks["ez"]["auc"] = weak["auc"] | {"value": auc}
        said = with_found(report, reference=None, attacks=attacks).recommendations()
        assert any("may understate the risk" in one for one in said) == is_told


def test_names_and_texts_cannot_write_into_the_page(report):
    frames = {name: frame.assign(id=HOSTILE, text=HOSTILE) for name, frame in report.attack_frames.items()}
    known = copy.deepcopy(report.found) | {"model": HOSTILE, "form": HOSTILE, "reference": HOSTILE, "warnings": [HOSTILE], "directory": HOSTILE}
    known["verdict"] = {"state": "HIGH", "sentence": HOSTILE, "notes": [HOSTILE]}
    page = AttackReport(frames, known, report.roc).to_html(include_texts=True)

    assert HOSTILE not in page and "<script" not in page and page.count("&lt;script&gt;") > 20 and Tags(page).open == []


def test_a_split_that_differs_is_a_banner(report, html, undrawn):
    controls = copy.deepcopy(report.controls)
    controls["blind"] = {"auc": {"value": 0.9, "low": 0.85, "high": 0.94}, "p": 1e-9, "alarm": True, "why": None}
    alarmed = with_found(report, controls=controls)

    assert "The split can be told apart without the model." in words(alarmed.to_html())
    assert "The split can be told apart" not in words(html)
    assert "blind AUC 0.900 [0.850, 0.940]" in alarmed.recommendations()[1]


@pytest.mark.parametrize(
    ("control", "words_"),
    [
        ("form", "How they are written tells members from the others (capitals: AUC 0.900 [0.850, 0.940])"),
        ("placebo", "The reference model, which should not know the training texts, tells them too (AUC 0.900"),
    ],
)
def test_what_is_alarmed_is_to_be_mended_before_the_training_is(report, control, words_, undrawn):
    controls, auc = copy.deepcopy(report.controls), {"value": 0.9, "low": 0.85, "high": 0.94}
    controls[control] |= {"auc": auc, "p": 1e-9, "alarm": True, "columns": {"capitals": {"auc": auc, "p": 1e-9}}}
    alarmed = with_found(report, controls=controls, risk=report.found["risk"] | {"level": "inconclusive"})
    said, page = alarmed.recommendations(), words(alarmed.to_html())

    assert said[1].startswith(words_) and "do not release" not in " ".join(said) and "LoRA" not in " ".join(said)
    assert ("The split can be told apart without the model." in page) == (control == "form")
    assert "Can members be told by how they are written? capitals: AUC" in page


def test_a_page_without_controls_says_that_they_were_not_asked_for(report, undrawn):
    page = with_found(report, controls=dict.fromkeys(report.controls), excess=None).to_html()

    assert words(page).count("not asked for") + words(page).count("Not asked for") == 5 and Tags(page).open == []


# -- recommendations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words_"),
    [
        ({"reference": None}, "No reference model was asked"),
        ({"flagged": 7}, "7 training texts are flagged"),
        ({"fit": {"members": 1.0, "non_members": 1.75, "gap": 0.75}}, "0.75 nats below"),
        ({"n": {"members": 12, "non_members": 60, "overlap": 0, "near": 0, "truncated_members": 0, "truncated_non_members": 0}}, "12 training and 60 test texts: below 20 a side no grade"),
        ({"n": {"members": 500, "non_members": 500, "overlap": 3, "near": 2, "truncated_members": 0, "truncated_non_members": 0}}, "5 test texts repeat training texts (3 word for word)"),
        ({"n": {"members": 500, "non_members": 500, "overlap": 0, "near": 0, "truncated_members": 4, "truncated_non_members": 5}}, "9 texts are longer than 256 tokens"),
        ({"is_adapter": False}, "Try low-rank additions (LoRA)"),
        ({"task": "sequence-classification"}, "label smoothing and temperature hide the confidence"),
        ({"risk": {"value": 80.0, "low": 70.0, "high": 90.0, "level": "critical"}}, "the lower end of the risk is 70: 80 [70, 90] of 100"),
    ],
)  # fmt: skip
def test_each_recommendation_names_the_number_that_fired_it(report, changed, words_):
    (said,) = [one for one in with_found(report, **changed).recommendations() if words_ in one]

    assert re.search(r"\d", said) and re.search(r"[Aa]udit|report\.", said)


def layers(outstanding: str | None) -> dict[str, Any]:
    rows = [
        {"name": f"h.{i}", "auc": {"value": 0.5 + i / 10, "low": 0.45 + i / 10, "high": 0.55 + i / 10}, "p": 0.5 if i < 3 else 0.001}
        for i in range(4)
    ]
    return {"rows": rows, "n_members": N, "n_non_members": N, "outstanding": outstanding, "median": 0.65}


def test_a_layer_that_stands_out_is_a_hint_and_says_so(report):
    one = with_found(report, layers=layers("h.3"))
    (said,), page = [said for said in one.recommendations() if "layers" in said], one.to_html()

    assert (
        "Of 4 layers the gradients of h.3 tell members best (AUC 0.800 [0.750, 0.850]; the median layer 0.650): a hint" in said and "no proof" in said
    )
    assert "The gradients of h.3 tell members best" in words(page) and Tags(page).open == []
    assert [label.get_text() for label in one.visualize()["layers"].axes[0].get_yticklabels()] == ["h.0", "h.1", "h.2", "h.3"]


def test_where_no_layer_stands_out_none_is_recommended(report, html):
    none = with_found(report, layers=layers(None))

    assert not any("layers" in said for said in none.recommendations()) and "No layer stands out." in words(none.to_html())
    assert "<h2>Layers</h2>" not in html


def test_what_did_not_fire_is_not_recommended(report):
    quiet = with_found(
        report, risk={"value": 0.0, "low": 0.0, "high": 8.0, "level": "low"}, flagged=0, fit={"members": 2.0, "non_members": 2.0, "gap": 0.0},
        n=report.found["n"] | {"members": 500, "non_members": 500},
    )  # fmt: skip

    assert len(quiet.recommendations()) == 1 and quiet.recommendations()[0].startswith("Little or no evidence")


@pytest.mark.parametrize("level", ["critical", "high", "moderate", "low", "inconclusive"])
def test_the_first_recommendation_is_of_the_level(report, level):
    said = with_found(report, risk=report.found["risk"] | {"level": level}).recommendations()[0]

    assert said.startswith(tester_rules.TIERS[level][0]) and "Risk score" in said


# -- figures and text ----------------------------------------------------------------------------------------------


def test_the_figures_show_every_attack_and_every_control(report):
    drawn = report.visualize()
    labels = [label.get_text() for label in drawn["dashboard"].axes[1].get_yticklabels()]

    assert labels == ["ez", "loss", "confidence", "blind classifier", "length in bytes", "placebo (reference)"]
    assert [label.get_text() for label in drawn["heatmap"].axes[0].get_yticklabels()] == ["ez", "loss", "confidence"]


def test_a_figure_of_many_attacks_shows_some(report):
    attacks = {f"a{i}": report.found["attacks"]["loss"] for i in range(20)} | report.found["attacks"]
    curves = pd.concat([report.roc, *(report.roc[report.roc["subject"] == "loss"].assign(subject=f"a{i}") for i in range(20))])
    figure = tester_figures.all_of(
        report.found | {"attacks": attacks}, report.attack_frames | {f"a{i}": report.attack_frames["loss"] for i in range(20)}, curves
    )["curves"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]

    assert (
        len(legend) == tester_figures.N_CURVES and any(text.startswith("ez") for text in legend) and any(text.startswith("loss") for text in legend)
    )


def test_the_text_for_a_terminal_has_the_verdict_and_every_attack(report):
    said = str(with_found(report, warnings=["beware"]))

    assert said.startswith("tuned: HIGH, risk") and "  ez " in said and "headline" in said and "WARNING: beware" in said
