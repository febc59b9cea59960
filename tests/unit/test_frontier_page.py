"""The page of a sweep: says what helped and what is only not shown, loud about alarms, readable with two variants and with thirty."""

from __future__ import annotations

import copy
import re
from html import unescape
from itertools import combinations
from typing import Any

import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from pages import Tags

from memleak import artefacts
from memleak.metrics import frontier as measured
from memleak.plan.sweeps import FIGURES
from memleak.report import frontier, frontier_figures, page, variants
from memleak.report import stage as report

from .test_frontier import of_walk


def estimate(value: float, half: float = 0.01) -> dict[str, Any]:
    return {"value": value, "low": max(value - half, 0.0), "high": value + half}


def difference(value: float, half: float = 0.01) -> dict[str, Any]:
    """Significant where its interval is without 0."""
    p = 0.0004 if abs(value) > half else 0.4
    return {"difference": value, "low": value - half, "high": value + half, "p": p, "p_holm": min(3 * p, 1.0)}


def variant(label: str, accuracy: float = 0.92, auc: float = 0.64, tpr: float = 0.06, against: bool = True, **changed: Any) -> dict[str, Any]:
    """One whose baseline has an accuracy of 92 %, an AUC of 0.64 and a TPR of 6 %."""
    found = {
        "label": label, "audit": f"small-{label}", "changes": {}, "release": [], "utility": estimate(accuracy), "train_accuracy": estimate(0.99),
        "gap": estimate(0.99 - accuracy), "auc": estimate(auc),
        "tpr": [estimate(tpr, 0.008) | {"at_fpr": 0.01, "certified": True}, estimate(tpr / 6, 0.006) | {"at_fpr": 0.001, "certified": False}],
        "attacks": {"lira": {"auc": estimate(auc), "tpr": []}, "loss": {"auc": estimate(0.5 + (auc - 0.5) / 2), "tpr": []}},
        "epsilon": None, "dp": None, "is_efficient": False,
        "against": {"utility": difference(accuracy - 0.92), "auc": difference(auc - 0.64, 0.012), "tpr": difference(tpr - 0.06, 0.009)} if against else None,
    }  # fmt: skip
    return found | changed


def sweep(*variants: dict[str, Any], **changed: Any) -> dict[str, Any]:
    every = copy.deepcopy([variant("none", against=False), *variants])
    for one in every:
        one["is_efficient"] = one["auc"] is not None and not any(
            other["auc"] and other["auc"]["value"] < one["auc"]["value"] and other["utility"]["value"] > one["utility"]["value"] for other in every
        )
    found = {
        "sweep": "small", "kind": "halves", "headline": "lira", "baseline": "none", "alpha": 0.01, "confidence": 0.95, "n_targets": 16,
        "n_samples": 1400, "utility_of": "audited samples", "n_models": 16 * len(every), "n_shared": 2, "variants": every,
        "correlation": {"value": 0.91, "low": 0.62, "high": 0.98, "p": 0.0003, "n": len(every), "labels": [one["label"] for one in every if not one["release"]]},
    }  # fmt: skip
    return found | changed


def bound(epsilon: float, claimed: float | None, p: float, p_holm: float) -> dict[str, Any]:
    return {
        "epsilon": epsilon,
        "delta": 1e-5,
        "claimed": claimed,
        "p": p,
        "p_holm": p_holm,
        "alarm": p_holm <= 0.05,
        "confidence": 0.95,
        "claim_note": None,
    }


FACTS = {
    "epsilon": 4.0, "delta": 1e-5, "noise_multiplier": 1.1, "clip": 1.0, "sample_rate": 0.0457, "steps": 880, "accountant": "prv", "batch_norm_replaced": 2,
}  # fmt: skip
FREE = variant("dropout", 0.925, 0.56, 0.03, changes={"dropout": 0.5})
COSTLY = variant("dp", 0.85, 0.52, 0.012, changes={"dp": {"epsilon": 4.0, "clip": 1.0}}, dp=FACTS)
DEAR = variant("tiny", 0.70, 0.51, 0.011, changes={"epochs": 2})
NOTHING = variant("flip", 0.921, 0.635, 0.058, changes={"flip": True})
WORSE = variant("smooth", 0.922, 0.68, 0.09, changes={"label_smoothing": 0.1})
MASKED = variant("top-3", 0.92, 0.62, 0.05, release=[{"top_k": 3}, "labels"])


def many(n: int = 30) -> dict[str, Any]:
    """A crowd: variants whose points nearly coincide."""
    return sweep(*(variant(f"dropout-0-{i}", 0.92 - 0.001 * i, 0.64 - 0.002 * (i % 7), changes={"dropout": i / 100}) for i in range(1, n)))


def words(html: str) -> str:
    """The page's words without tags, spaces made one."""
    text = re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", html, flags=re.DOTALL))
    return re.sub(r"\s+", " ", unescape(text))


def of(*variants: dict[str, Any], **changed: Any) -> frontier.Finding:
    return frontier.finding(sweep(*variants, **changed))


def test_a_defence_that_helps_without_a_shown_cost_is_named_first_with_its_intervals():
    found = of(FREE, NOTHING)

    assert (found.state, found.grade) == ("HELPS, at little or no cost", "LOW")
    assert found.sentence == (
        "dropout buys most privacy at little or no cost in accuracy: the headline attack's AUC is 0.560 [0.550, 0.570] where it is 0.640 [0.630, 0.650] without a defence "
        "(difference -0.080 [-0.092, -0.068], p = 0.0012); accuracy is 92.5 % [91.5, 93.5] where it was 92.0 % [91.0, 93.0] (difference +0.5 points [-0.5, +1.5]: "
        "no loss is shown, one of 0.5 points is not excluded)."
    )
    assert found.more == (
        "At a false-positive rate of 1 %, 3.0 % [2.2, 3.8] of the members are found; without a defence 6.0 % [5.2, 6.8] (difference -3.0 points [-3.9, -2.1]).",
    )


def test_of_defences_that_cost_the_one_that_buys_most_for_a_point_is_named_and_the_strongest_beside_it():
    """0.12 of AUC for 7 points of accuracy are more for the money than 0.13 for 22."""
    found = of(DEAR, COSTLY)

    assert (found.state, found.grade) == ("HELPS, at a cost", "MEDIUM")
    assert (
        found.sentence.startswith("dp buys most privacy for the accuracy that it costs:")
        and "difference -7.0 points [-8.0, -6.0], p = 0.0012)" in found.sentence
    )
    assert found.more[0] == "None is shown to help at a cost of less than 2 points."
    assert found.more[-1] == "tiny goes further, to an AUC of 0.510 [0.500, 0.520], at a difference in accuracy of -22.0 points [-23.0, -21.0]."


def test_one_that_costs_nothing_is_named_before_a_stronger_one_that_costs():
    found = of(COSTLY, FREE)

    assert found.sentence.startswith("dropout buys") and found.more[-1].startswith("dp goes further, to an AUC of 0.520")


def test_a_price_that_nobody_knows_is_not_called_low():
    unpriced = [copy.deepcopy(one) for one in (DEAR, FREE)]
    for one in unpriced:
        one["utility"] = one["against"]["utility"] = None
    found = frontier._what_helped(sweep(COSTLY) | {"variants": [variant("none", against=False), *unpriced]})

    assert found[0] == "HELPS, its cost not tested"
    assert found[1].startswith("tiny buys most privacy:") and found[1].endswith("what it costs in accuracy was not tested.")


def test_where_none_is_shown_to_help_the_page_does_not_say_that_none_helps():
    found = of(NOTHING, WORSE)

    assert (found.state, found.grade) == ("NOT SHOWN TO HELP", "UNDECIDED")
    assert found.sentence.startswith("No defence is shown to help: in none of 2 variants is the headline attack's AUC lower")
    assert found.more == (
        "That no difference is shown does not mean that there is none: flip has the lowest AUC, 0.635 [0.625, 0.645], and a difference of -0.005 [-0.017, +0.007].",
    )
    assert found.notes == ("More leaks than without a defence from smooth (AUC 0.680 [0.670, 0.690], difference +0.040 [+0.028, +0.052]).",)


def test_a_difference_that_the_correction_takes_back_is_not_called_help():
    luck = variant("luck", 0.92, 0.625)
    luck["against"]["auc"] |= {"p": 0.02, "p_holm": 0.14}

    assert of(luck).state == "NOT SHOWN TO HELP"


def test_a_low_auc_does_not_hide_that_more_members_are_found_at_a_low_rate():
    spread = variant("spread", 0.92, 0.6, 0.09)

    found = of(spread)

    assert found.more[0].endswith("(difference +3.0 points [+2.1, +3.9]): MORE than without it.")
    assert frontier.said_of(sweep(spread), spread) == ["leaks less", "TPR at FPR 1 % higher", "no change of accuracy shown"]


def test_an_attack_that_sees_more_than_the_headline_is_told():
    masked = copy.deepcopy(FREE)
    masked["attacks"]["loss"]["auc"] = estimate(0.63)

    (note,) = of(masked).notes

    assert note.startswith("Another attack than the headline sees more of dropout (loss: AUC 0.630 [0.620, 0.640], lira: 0.560 [0.550, 0.570])")


def test_an_alarm_stands_before_everything_and_what_it_is_about_is_not_recommended():
    broken = copy.deepcopy(FREE) | {"dp": FACTS | {"epsilon": 0.5}, "epsilon": bound(1.84, 0.5, 0.0002, 0.0004)}
    found = of(broken, COSTLY)

    html, line = page.frontier_page(sweep(broken, COSTLY), {})

    assert (found.state, found.grade) == ("ALARM", "HIGH")
    (alarm,) = found.alarms
    assert alarm == (
        "ALARM: the training of dropout is less private than it claims: its epsilon is at least 1.84 and the claim is 0.50 at delta 1e-05 "
        "(p = 0.0004, Holm over the sweep's claims)."
    )
    assert found.sentence.startswith("dp buys most")
    assert line.startswith("small: ALARM. ALARM: the training of dropout")
    assert html.index("ALARM: the training") < html.index("<h2") and html.index("dp buys most") < html.index("<h2")
    assert '<section class="verdict HIGH"' in html and "ALARM: less private" in html and "dropout - ALARM" in words(html)


def test_where_nothing_but_a_broken_promise_helps_nothing_is_recommended():
    broken = copy.deepcopy(FREE) | {"epsilon": bound(1.84, 0.5, 0.0002, 0.0004)}

    assert of(broken, NOTHING).sentence.startswith("No defence is shown to help but dropout, which an alarm speaks against:")


def test_an_alarm_that_the_sweep_takes_back_is_told_quietly():
    lucky = copy.deepcopy(COSTLY) | {"epsilon": bound(4.2, 4.0, 0.03, 0.3)}
    found = of(lucky)

    assert found.alarms == () and found.state == "HELPS, at a cost"
    assert found.notes == (
        "The audit of dp by itself finds its bound above the claim (p = 0.03); over all claims of the sweep that is not more than chance explains (p = 0.3).",
    )


def test_the_rows_go_from_the_baseline_over_the_least_leak_to_the_most():
    found = frontier.rows(sweep(NOTHING, WORSE, FREE, COSTLY))

    assert [(row["number"], row["label"]) for row in found] == [(1, "none"), (2, "dp"), (3, "dropout"), (4, "flip"), (5, "smooth")]
    assert [row["found"][0] for row in found] == ["baseline", "leaks less", "leaks less", "no difference in AUC shown", "leaks MORE"]
    assert [row["found"][-1] for row in found[1:3]] == ["costs accuracy", "no change of accuracy shown"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""), ({"dropout": 0.5, "weight_decay": 0.0005}, "dropout 0.5, weight decay 0.0005"), ({"flip": True}, "flip"), ({"flip": False, "dp": None}, "no flip, no dp"),
        ({"dp": {"noise_multiplier": 1.1, "clip": 1}}, "dp noise multiplier 1.1, dp clip 1"), ({"milestones": [10, 20]}, "milestones 10, 20"),
    ],
)  # fmt: skip
def test_changes_of_a_recipe_are_told_in_words(changes, text):
    assert ", ".join(variants.in_words(changes)) == text


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("labels", "labels"), ({"labels": None}, "labels"), ({"top_k": 3}, "top k 3"), ({"name": "top_k", "k": 3}, "top k k 3"),
        ({"noise": {"scale": 0.1, "keep_label": True}}, "noise scale 0.1, noise keep label"), ({"name": "my_mask.py:hide"}, "my mask.py:hide"),
    ],
)  # fmt: skip
def test_release_steps_are_told_in_words_whatever_their_form(step, text):
    assert variants.step_in_words(step) == text


@pytest.mark.parametrize(("number", "digits", "text"), [(-0.08, 3, "-0.080"), (0.2, 1, "+0.2"), (-0.0001, 3, "0.000"), (0.0, 1, "0.0")])
def test_differences_carry_their_sign(number, digits, text):
    assert variants.signed(number, digits) == text


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The page of a sweep of all kinds of variants, with its figures, as the stages make it."""
    folder = tmp_path_factory.mktemp("sweep")
    both = variant("dropout-top-3", 0.924, 0.545, 0.03, changes={"dropout": 0.5}, release=[{"top_k": 3}])
    private = copy.deepcopy(COSTLY) | {"epsilon": bound(1.2, 4.0, 1.0, 1.0)}
    artefacts.write_json(folder / "frontier.json", sweep(*copy.deepcopy((FREE, DEAR, NOTHING, WORSE, MASKED)), both, private))
    for name in FIGURES:
        report.frontier_figure(name, folder / "frontier.json", folder / f"{name}.svg", folder / f"{name}.png")
    line = report.frontier(folder / "frontier.json", [folder / f"{name}.svg" for name in FIGURES], folder / "report.html")
    return folder, line


def test_the_page_is_whole_in_one_file(reported):
    folder, line = reported
    html = (folder / "report.html").read_text(encoding="utf-8")

    assert line.startswith("small: HELPS, at little or no cost. dropout-top-3 buys most privacy")
    assert html.count('<div class="panels"') == 2 and 'aria-label="figure frontier"' in html and 'aria-label="figure gap"' in html
    assert "<script" not in html and "@import" not in html and not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    assert Tags(html).open == []


def test_every_row_leads_to_the_page_of_its_audit_and_says_what_was_changed(reported):
    html = (reported[0] / "report.html").read_text(encoding="utf-8")
    table = html[html.index('<h2 id="variants">Every variant') :]
    rows = re.findall(r"<tr id=.*?><td>\d+</td>(.*?)</tr>", table[: table.index("</table>")], re.DOTALL)

    assert len(rows) == 8
    assert all('href="../../audits/small-' in row for row in rows)
    told = {words(row).split()[0]: words(row) for row in rows}
    assert "released as: top k 3, then labels" in told["top-3"] and "dropout 0.5; released as: top k 3" in told["dropout-top-3"]
    assert "dp epsilon 4, dp clip 1" in told["dp"] and "at least 1.20 accountant 4.00" in told["dp"]
    assert "\N{MINUS SIGN}7.0 [\N{MINUS SIGN}8.0, \N{MINUS SIGN}6.0] p = 0.0012" in told["dp"]
    assert told["none"].count("baseline") == 2 and "nothing" in told["none"]


def test_the_page_says_what_the_numbers_do_not_mean(reported):
    text = words((reported[0] / "report.html").read_text(encoding="utf-8"))

    assert "were trained with the same defence as the target, and asked through the same release" in text
    assert '"No difference is shown" is not "no difference"' in text
    assert "128 models were trained for the sweep; 2 files of models serve more than one variant, since a release trains nothing." in text
    assert "have a correlation 0.91 [0.62, 0.98], 8 recipes, p = 0.0003" in text


def test_a_rate_that_cannot_be_certified_is_told(reported):
    folder, _ = reported
    few = sweep(copy.deepcopy(FREE))
    for one in few["variants"]:
        one["tpr"][0]["certified"] = False

    assert "too few records to certify" in (folder / "frontier.svg").read_text()
    assert page.frontier_page(few, {})[0].count("cannot certify</span>") == 2


def test_the_same_numbers_draw_the_same_bytes(reported, tmp_path):
    folder, _ = reported
    for name in FIGURES:
        report.frontier_figure(name, folder / "frontier.json", tmp_path / f"{name}.svg", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.svg").read_bytes() == (folder / f"{name}.svg").read_bytes()


def test_a_figure_that_a_sweep_does_not_have_is_refused(reported, tmp_path):
    with pytest.raises(ValueError, match="no figure of a sweep is called roc; expected frontier or gap"):
        report.frontier_figure("roc", reported[0] / "frontier.json", tmp_path / "roc.svg", tmp_path / "roc.png")


def test_text_from_params_is_escaped():
    nasty = variant("x", changes={"my_<b>field": "<script>alert(1)</script>"}, release=["<img src=x>"])
    nasty["attacks"]["<i>"] = {"auc": estimate(0.9), "tpr": []}

    html, _ = page.frontier_page(sweep(nasty), {})

    assert "<script" not in html and "<img" not in html and "<b>field" not in html and "<i>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in page.index_page([], [sweep(nasty) | {"sweep": "<script>"}])


def _drawn_labels(figure: Any) -> list[list[Any]]:
    """The boxes of the labels of each panel, in pixels."""
    figure.draw_without_rendering()
    return [[Text.get_window_extent(text) for text in axes.texts] for axes in figure.axes]  # a label without its line to the point


@pytest.mark.parametrize("name", ["frontier", "gap"])
@pytest.mark.parametrize("numbers", [many(30), sweep(FREE, COSTLY, DEAR, NOTHING, WORSE, MASKED), sweep(NOTHING)], ids=["thirty", "seven", "two"])
def test_labels_do_not_cover_each_other(name, numbers):
    figure = getattr(frontier_figures, name)(numbers)
    for boxes in _drawn_labels(figure):
        assert len(boxes) == len(numbers["variants"])
        assert not [
            1
            for one, other in combinations(boxes, 2)
            if min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(one.y0, other.y0)
        ]
    plt.close(figure)


def test_thirty_variants_have_thirty_rows_and_a_key():
    numbers = many(30)
    html, _ = page.frontier_page(numbers, {})
    figure = frontier_figures.frontier(numbers)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)

    assert len(re.findall(r"<tr[^>]*>\s*<td>\d+</td>", html)) == 60, "thirty rows by the headline and thirty by the other attacks"
    assert key[0] == "1 none" and sum(text.split()[0].isdigit() for text in key) == 30


def test_few_variants_are_called_by_name_in_the_figure():
    figure = frontier_figures.frontier(sweep(FREE, NOTHING))
    labels = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)

    assert sorted(labels) == ["1 none", "2 dropout", "3 flip"]


def test_panels_are_drawn_for_what_was_measured_alone():
    private = copy.deepcopy(COSTLY) | {"epsilon": bound(1.2, 4.0, 1.0, 1.0)}
    without = [copy.deepcopy(one) | {"auc": None, "tpr": []} for one in (FREE, private)]
    numbers = sweep(*without)
    numbers["variants"][0] |= {"auc": None, "tpr": []}

    assert [panel.axis for panel in frontier_figures.panels(sweep(FREE))] == ["AUC of the headline attack", "TPR at FPR 1 %", "TPR at FPR 0.1 %"]
    assert [panel.axis for panel in frontier_figures.panels(sweep(private))][-1] == "epsilon, lower bound"
    (only,) = frontier_figures.panels(numbers)
    assert only.axis == "epsilon, lower bound" and set(only.found) == {"dp"}


def test_the_line_joins_those_that_no_other_beats_in_both():
    """By AUC: dp .52 / 85 %, dropout .56 / 92.5 %, none .64 / 92 %, smooth .68 / 92.2 %."""
    (first, *_) = frontier_figures.panels(sweep(FREE, COSTLY, WORSE))

    assert first.line == ("dp", "dropout")


def test_a_sweep_without_paired_tests_says_so_and_has_its_page(tmp_path):
    bare = {"auc": None, "tpr": [], "attacks": {}, "against": None, "gap": None, "train_accuracy": None}
    numbers = sweep(
        copy.deepcopy(FREE),
        copy.deepcopy(COSTLY) | {"epsilon": bound(0.7, None, 1.0, 1.0) | {"p": None, "p_holm": None}},
        kind="pairs",
        correlation=None,
    )
    for one in numbers["variants"]:
        one |= bare
    numbers["variants"][1]["utility"] = None
    artefacts.write_json(tmp_path / "frontier.json", numbers)
    for name in FIGURES:
        report.frontier_figure(name, tmp_path / "frontier.json", tmp_path / f"{name}.svg", tmp_path / f"{name}.png")

    line = report.frontier(tmp_path / "frontier.json", [tmp_path / f"{name}.svg" for name in FIGURES], tmp_path / "report.html")

    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert line.startswith("small: NOT TESTED. No variant was tested against none:") and "(pairs)" in line
    assert "No variant has both a generalisation gap and an AUC." in (tmp_path / "gap.svg").read_text()
    assert "Not drawn, for want of an accuracy or of a measure of what leaks: none, dropout." in words(html)
    assert "less the baseline" not in html[html.index('<h2 id="variants">Every variant') : html.index("</table>")] and "nothing is claimed" in html
    assert Tags(html).open == []


def test_a_baseline_alone_has_nothing_to_compare():
    assert of(correlation=None).sentence == "There is nothing to compare: the sweep has the baseline alone."


def test_the_index_has_sweeps_above_the_audits_only_where_there_are_any(tmp_path):
    broken = copy.deepcopy(FREE) | {"epsilon": bound(1.84, 0.5, 0.0002, 0.0004)}
    artefacts.write_json(tmp_path / "frontier.json", artefacts.stamped("sweep", sweep(broken)))

    n = report.index([], tmp_path / "index.html", [tmp_path / "frontier.json"])
    html = (tmp_path / "index.html").read_text(encoding="utf-8")

    assert n == 0 and html.count('href="audits/small/frontier.html"') == 2
    assert "ALARM: the training of dropout is less private than it claims" in html
    assert '<h2 id="sweeps">' in html and '<h2 id="audits">' not in html and Tags(html).open == []
    assert "Sweeps" not in page.index_page([])


@pytest.mark.parametrize("name", ["coins", "given_alone"])
def test_the_numbers_of_real_audits_have_a_page(name, request, tmp_path):
    """An audit beside itself, released otherwise: no difference, and the page says so."""
    walk = request.getfixturevalue(name)
    entries = [of_walk(walk, "none"), of_walk(walk, "again", ("labels",))]
    found = measured.measure(
        {"sweep": "s", "baseline": "none", "headline": walk.planned.audit.headline_attack, "variants": entries},
        tmp_path / "frontier.json",
        tmp_path / "f.csv",
    )
    for figure in FIGURES:
        report.frontier_figure(figure, tmp_path / "frontier.json", tmp_path / f"{figure}.svg", tmp_path / f"{figure}.png")

    line = report.frontier(tmp_path / "frontier.json", [tmp_path / f"{figure}.svg" for figure in FIGURES], tmp_path / "report.html")

    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert line.startswith("s: NOT SHOWN TO HELP.") and Tags(html).open == []
    assert variants.auc(found["variants"][0]["auc"]) in line
    assert ("Differential privacy" in words(html).split("What these numbers mean")[0]) == (name == "coins")


def test_two_variants_at_one_point_are_both_on_the_line():
    (first, *_) = frontier_figures.panels(sweep(FREE, copy.deepcopy(FREE) | {"label": "again"}))

    assert set(first.line) == {"dropout", "again"}


def test_a_variant_whose_control_failed_is_an_alarm_and_is_not_recommended():
    doubtful = copy.deepcopy(FREE) | {"failed": ["null"]}

    found = frontier.finding(sweep(doubtful, copy.deepcopy(DEAR)))

    assert found.state == frontier.ALARM and "a control failed (null)" in found.alarms[0]
    assert not found.sentence.startswith(doubtful["label"])


def test_a_cost_that_is_not_shown_and_may_be_large_is_not_called_little():
    """Weight decay under which one training in four fails: a wide interval around a large loss."""
    unsure = copy.deepcopy(FREE)
    unsure["against"]["utility"] = {"difference": -0.11, "low": -0.22, "high": 0.01, "p": 0.06, "p_holm": 0.1}

    found = of(unsure)

    assert found.state == "HELPS, at a cost" and "one of 22.0 points is not excluded" in found.sentence


def test_a_variant_that_fools_the_headline_alone_is_not_the_one_to_take():
    """MemGuard under LiRA: the labels tell more than the answers then do to an attack that trusts them."""
    fooled = copy.deepcopy(FREE)
    fooled["attacks"]["label-only"] = {"auc": {"value": 0.62, "low": 0.61, "high": 0.63}, "tpr": []}
    honest = variant("honest", 0.92, 0.6, 0.04, changes={"dropout": 0.2})

    found = of(fooled, honest)

    assert found.sentence.startswith("honest buys")
    assert frontier.said_of(sweep(fooled, honest), fooled)[1] == "label-only sees more of it" and frontier.tone(sweep(fooled, honest), fooled) == "no"


def test_a_difference_that_is_shown_and_next_to_nothing_is_called_so():
    little = variant("top-3", 0.92, 0.6395, 0.06, release=[{"top_k": 3}])
    little["against"]["auc"] = {"difference": -0.0005, "low": -0.001, "high": -0.0001, "p": 0.002, "p_holm": 0.01}

    assert frontier.said_of(sweep(little), little)[0] == "leaks less, by next to nothing"
