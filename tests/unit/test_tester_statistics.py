"""The risk score without a leak and with one, and the controls of an audit of texts."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm

from memleak.data import blind as looks
from memleak.data import topics
from memleak.metrics import pooled, roc, texts
from memleak.metrics.clusters import pool
from memleak.report import pool as report_pool
from memleak.report import verdict
from memleak.report.verdict import risk_score


def measured(n_members: int, n_others: int, separation: float, seed: int) -> verdict.Risk:
    draw, truth = np.random.default_rng([seed, n_members]), np.arange(n_members + n_others) < n_members
    scores = draw.normal(size=len(truth)) + separation * truth
    return risk_score(pooled.auc(pool(scores, truth)), roc.tpr_at_fpr(scores, truth, 0.01).as_dict(), None, min(n_members, n_others))


@pytest.mark.parametrize(("n_members", "n_others", "n_worlds"), [(3, 2, 60), (20, 20, 60), (100, 100, 40), (500, 500, 20)])
def test_no_leak_is_a_risk_of_about_zero_whatever_the_size(n_members, n_others, n_worlds):
    found = [measured(n_members, n_others, 0.0, seed) for seed in range(n_worlds)]

    assert np.mean([risk.value for risk in found]) < 3
    assert np.mean([risk.low == 0 for risk in found]) > 0.9
    assert not {"moderate", "high", "critical"} & {risk.level for risk in found if risk.low == 0}


@pytest.mark.parametrize(("n", "separation"), [(50, 1.0), (100, 1.0), (100, 2.0)])
def test_the_interval_holds_the_true_risk(n, separation):
    by_auc, by_tpr = 2 * norm.cdf(separation / np.sqrt(2)) - 1, (norm.sf(norm.isf(0.01) - separation) - 0.01) / 0.99
    true = 100 * max(by_auc, by_tpr if n >= verdict.ENOUGH else 0.0)
    found = [measured(n, n, separation, seed) for seed in range(50)]

    assert np.mean([risk.low <= true <= risk.high for risk in found]) >= 0.9
    assert np.mean([risk.value for risk in found]) == approx(true, abs=4)


def rates(auc: tuple[float, float, float], tpr: tuple[float, float, float] = (0.01, 0.0, 0.05), n: int = 500):
    of_auc, of_tpr = ({"value": value, "low": low, "high": high} for value, low, high in (auc, tpr))
    return of_auc, of_tpr | {"n_non_members": n}


@pytest.mark.parametrize(("low", "level"), [(0.54, "low"), (0.56, "moderate"), (0.70, "high"), (0.85, "critical")])
def test_the_level_is_that_of_the_lower_end(low, level):
    auc, tpr = rates((low + 0.03, low, low + 0.06))

    assert risk_score(auc, tpr, None, 500).level == level


def test_few_texts_and_wide_intervals_are_inconclusive():
    assert risk_score(*rates((0.95, 0.9, 0.99)), None, 19).level == "inconclusive"
    assert risk_score(*rates((0.60, 0.45, 0.75)), None, 100).level == "inconclusive"
    assert risk_score(*rates((0.50, 0.45, 0.55)), None, 100).level == "low"


def test_what_needs_no_model_is_taken_from_the_risk():
    auc, tpr = rates((0.80, 0.77, 0.83), (0.4, 0.3, 0.5))
    shifted, alike = {"value": 0.75, "low": 0.71, "high": 0.79}, {"value": 0.52, "low": 0.48, "high": 0.56}

    assert risk_score(auc, tpr, shifted, 500).value == 0.0 and risk_score(auc, tpr, shifted, 500).low == 0.0  # .05 above, not shown
    unsure, sure = (risk_score(auc, tpr, blind, 500) for blind in (alike, None))
    assert (unsure.value, unsure.high) == (sure.value, sure.high) and unsure.low == approx(sure.low - 100 * 2 * 0.06)
    assert risk_score(auc, tpr, {"value": 0.45, "low": 0.4, "high": 0.5}, 500) == sure
    strong = risk_score(rates((0.99, 0.98, 1.0))[0], tpr, shifted, 500)
    assert strong.value == approx(100 * (2 * (0.99 - 0.25) - 1)) and strong.low == approx(100 * (2 * (0.98 - 0.29) - 1))


def test_what_the_blind_control_cannot_exclude_is_not_evidence():
    """60 texts a side whose topics differ, and no leak: AUC .83 [.74, .92], while the blind AUC of .59 may well be .72."""
    auc, tpr = rates((0.83, 0.74, 0.92), n=60)
    small, large = ({"value": 0.55, "low": 0.55 - half, "high": 0.55 + half} for half in (0.17, 0.06))

    assert risk_score(auc, tpr, small, 60).level == "inconclusive" and risk_score(auc, tpr, None, 60).level == "high"
    assert risk_score(auc, tpr, large, 60).level == "moderate"
    tail = risk_score(*rates((0.55, 0.5, 0.6), (0.3, 0.25, 0.35)), {"value": 0.5, "low": 0.4, "high": 0.6}, 500)
    assert tail.low == approx(100 * ((0.25 - 0.01) / 0.99 - 0.2))  # a blind AUC of .6 is a TPR of at most .2 above the FPR


def test_a_refused_audit_has_no_level():
    for auc in ((0.5, 0.47, 0.53), (0.99, 0.98, 1.0)):
        assert risk_score(*rates(auc), None, 500, is_refused=True).level == "inconclusive"


def test_the_tail_counts_where_enough_non_members_speak_of_it():
    auc, tpr = rates((0.6, 0.55, 0.65), (0.5, 0.4, 0.6))

    assert risk_score(auc, tpr, None, 500).value == approx(100 * 0.49 / 0.99)
    assert risk_score(auc, tpr | {"n_non_members": 99}, None, 99).value == approx(20)


# -- controls ------------------------------------------------------------------------------------------------------


def test_length_that_differs_is_an_alarm_in_either_direction_and_equal_length_is_none():
    draw, truth = np.random.default_rng(0), np.arange(200) < 100
    same = draw.integers(20, 100, 200)

    assert not texts.length({"bytes": same, "tokens": same // 3}, truth)["alarm"]
    for sign in (1, -1):
        found = texts.length({"bytes": same + 25 * sign * truth, "tokens": same // 3}, truth)
        assert found["alarm"] and (found["sizes"]["bytes"]["auc"]["value"] - 0.5) * sign > 0.15
        assert found["sizes"]["tokens"]["p"] > 0.001


def test_hardly_an_alarm_of_length_where_lengths_are_alike():
    truth, alarms = np.arange(60) < 30, 0
    for seed in range(300):
        alarms += texts.length({"bytes": np.random.default_rng(seed).normal(size=60)}, truth)["alarm"]

    assert alarms <= 2


HABITS = {
    "curly quotes": lambda text: text.replace("'", "\u2019").replace('"', "\u201d"),
    "two blanks after commas and stops": lambda text: text.replace(". ", ".  ").replace(", ", ",  "),
    "words in upper case": lambda text: " ".join(word.upper() if place < 2 else word for place, word in enumerate(text.split(" "))),
    "a return before a new line": lambda text: text.replace(". ", ".\r\n").replace(", ", ",\r\n"),
}


@pytest.fixture(scope="module")
def passages():
    return topics.load().inputs


@pytest.mark.parametrize(
    ("habit", "column"), list(zip(HABITS, ("characters beyond ASCII", "unusual white space", "capitals", "line breaks"), strict=True))
)
def test_a_habit_of_writing_is_an_alarm_that_names_it(passages, habit, column):
    written = np.array([HABITS[habit](text) if row < 40 else text for row, text in enumerate(passages[:80])], dtype=object)
    found = texts.form(looks.form(written), np.arange(80) < 40)

    assert found["alarm"] and column in [name for name, one in found["columns"].items() if one["p"] <= 0.001]


@pytest.mark.parametrize(("n_members", "n_others"), [(60, 60), (20, 200)])
def test_no_alarm_of_form_where_texts_are_divided_at_random(passages, n_members, n_others):
    written, p = looks.form(passages), []
    for seed in range(300):
        rows = np.random.default_rng(seed).permutation(1200)[: n_members + n_others]
        p.append(texts.form({name: column[rows] for name, column in written.items()}, np.arange(len(rows)) < n_members)["p"])

    assert min(p) > 0.001 and np.mean(np.array(p) <= 0.05) < 0.08


def test_one_text_with_a_rare_habit_is_no_form():
    """3 members and 200 others, of which one member has a tab: by the rank-sum test alone p is 1e-16, and by the count of ways 3 / 203."""
    truth, has_tab = np.arange(203) < 3, np.arange(203) == 0
    alone, exact = texts.aucs({"tab": has_tab}, truth)["tab"]["p"], texts.form({"tab": has_tab}, truth)["p"]

    assert alone < 1e-10 and exact == approx(3 / 203)
    assert texts.form({"tab": np.arange(203) < 3}, truth)["alarm"]  # of all members and of nobody else


def test_a_reference_that_knows_the_members_is_an_alarm():
    draw, truth = np.random.default_rng(0), np.arange(200) < 100
    loss = draw.normal(3, 0.5, 200)

    assert not texts.placebo(loss, truth)["alarm"]
    found = texts.placebo(loss - 0.5 * truth, truth)
    assert found["alarm"] and found["auc"]["low"] > 0.5


def test_the_excess_over_the_blind_adds_both_intervals_up():
    found = texts.excess({"value": 0.9, "low": 0.85, "high": 0.94}, {"value": 0.8, "low": 0.74, "high": 0.86})

    assert found == {"value": approx(0.1), "low": approx(-0.01), "high": approx(0.2)}


def test_overlap_is_counted_once_a_text():
    rows = texts.histogram(np.array([0.0, 0.1, 0.2, 0.55, 0.8, 0.99, 1.0, 1.0]))

    assert [row["n"] for row in rows] == [2, 1, 1, 0, 2, 2] and (rows[-1]["low"], rows[-1]["high"]) == (1.0, 1.0)


# -- the verdict ---------------------------------------------------------------------------------------------------


def test_few_texts_are_undecided_and_the_word_is_inconclusive(given_alone):
    found = verdict.of_texts(given_alone.metrics, 19)

    assert found.state == "UNDECIDED" and found.risk is None and "inconclusive" in found.sentence
    assert verdict.of_texts(given_alone.metrics, 20) == verdict.verdict(given_alone.metrics)


def test_one_text_is_one_text(given_alone):
    assert "1 different text on one side" in verdict.of_texts(given_alone.metrics, 1).sentence
    assert "2 different texts on one side" in verdict.of_texts(given_alone.metrics, 2).sentence


def test_no_high_grade_while_the_lists_may_differ_by_as_much(given_alone):
    metrics = given_alone.metrics
    at_alpha = report_pool.calibrated(metrics, metrics["headline"])
    at_alpha |= {"tpr": {"value": 0.6, "low": 0.5, "high": 0.7}, "achieved_fpr": {"value": 0.05, "low": 0.04, "high": 0.06}}
    grade = verdict.verdict(metrics)
    metrics["controls"]["blind"] |= {"auc": {"value": 0.52, "low": 0.48, "high": 0.53}, "alarm": False}
    assert grade.state == "HIGH" and verdict.of_texts(metrics, 60) == grade

    metrics["controls"]["blind"]["auc"] |= {"high": 0.5 + grade.low / 200}
    found = verdict.of_texts(metrics, 60)
    assert found.state == "UNDECIDED" and not found.is_refused and found.risk == grade.risk
    assert "cannot yet exclude a difference of this size" in found.sentence and found.sentence.startswith(grade.sentence)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ({"form": {"columns": {"capitals": {"auc": {"value": 0.8, "low": 0.75, "high": 0.85}, "p": 1e-9}}}}, "by how they are written (capitals: AUC 0.800"),
        ({"placebo": {"auc": {"value": 0.8, "low": 0.75, "high": 0.85}}}, "the reference model tells members too (AUC of its loss 0.800"),
    ],
)  # fmt: skip
def test_an_alarm_of_form_or_of_the_placebo_refuses_a_verdict(given_alone, control, words):
    metrics = given_alone.metrics
    metrics["controls"] |= {name: found | {"alarm": True, "p": 1e-9} for name, found in control.items()}
    said = verdict.of_texts(metrics, 60)

    assert said.is_refused and said.risk is None and any(note.startswith("ALARM") and words in note for note in said.notes)


def test_a_difference_in_length_refuses_a_verdict(given_alone):
    metrics = given_alone.metrics
    auc = {"value": 0.8, "low": 0.75, "high": 0.85}
    metrics["controls"]["length"] = {"alarm": True, "p": 1e-9, "sizes": {"bytes": {"auc": auc, "p": 1e-9}}}
    found = verdict.verdict(metrics)

    assert found.is_refused and any(
        note.startswith("ALARM: members can be told from non-members by their length alone (bytes: AUC 0.800") for note in found.notes
    )
