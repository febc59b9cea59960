"""What a page begins with: every fact of every kind of audit, in words, and a page that carries them."""

from __future__ import annotations

import copy
import itertools
import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import tested
from pages import Tags

from memleak import artefacts
from memleak.report import front, page, words

NAMES = ["Attacked", "Attacker", "Measured", "Cost", "Risk"]
HOSTILE = "<script>alert('x')</script>\"'{{7*7}}"
CSS = Path(page.__file__).with_name("page.css")


def facts(metrics, **known):
    return {fact.name: fact for fact in front.of(metrics, **known).facts}


def test_every_kind_of_audit_has_its_five_facts(walk, pool_walk, coins, given_walk, given_alone):
    for done in (walk, pool_walk, coins, given_walk, given_alone):
        assert list(facts(done.metrics)) == NAMES
        assert all(fact.words and "None" not in fact.words + fact.more for fact in facts(done.metrics).values())


def test_the_strength_of_the_attacker_is_said(walk, pool_walk, given_walk, given_alone):
    assert "with and without the record" in facts(walk.metrics)["Attacker"].words
    assert "(here 10)" in facts(pool_walk.metrics)["Attacker"].words
    assert "Trained 4 reference models" in facts(given_walk.metrics)["Attacker"].words
    assert "Trains nothing" in facts(given_alone.metrics)["Attacker"].words


def test_each_number_says_at_which_rate_it_stands(walk, pool_walk):
    assert "at a false-positive rate of 10 %: of 100 models that never saw the record, 10 may be accused" in facts(walk.metrics)["Measured"].words
    assert "at a false-positive rate of 5 %: of 100 records that a model never saw, 5 may be taken" in facts(pool_walk.metrics)["Measured"].words


def test_the_limits_of_the_grades_are_those_of_the_kind(walk, pool_walk):
    assert "below 10, HIGH where it lies at 30" in facts(walk.metrics)["Risk"].words
    assert "below 3, HIGH where it lies at 10" in facts(pool_walk.metrics)["Risk"].words
    assert [zone.high for zone in front.of(pool_walk.metrics).zones] == [3, 10, 100]


def test_units_are_told_where_records_belong_to_some(pool_walk):
    unit = {"column": "patient", "n_records": 300, "largest": 9, "n_joined": 2, "n": 120}
    metrics = pool_walk.metrics | {"unit": unit}

    told = facts(metrics)

    assert (
        "the records of one patient are in a training set together" in told["Attacked"].more
        and "2 of the data set's 120 count as one" in told["Attacked"].more
    )
    assert "on the average unit" in told["Risk"].words and "of 100 units" in told["Measured"].words


def test_the_cost_is_told_in_words(pool_walk):
    timings = pd.DataFrame(
        {
            "stage": ["train", "train", "score"],
            "job": ["r/halves-p1-s0-m0000-0009", "r/halves-p1-s0-m0009-0012", "x/lira"],
            "seconds": [100.0, 60.0, 20.0],
        }
    )

    cost = facts(pool_walk.metrics, timings=timings)["Cost"]

    assert cost.words == "12 models trained, 3 minutes of computing." and "train 3 minutes, score 20 seconds" in cost.more


@pytest.mark.parametrize("other", ["r/halves-p2-s0-m0000-0004", "r/halves-p1-s0-m0012-0064", "r/base-n500-s0-m0000-0004"])
def test_models_that_other_audits_share_are_not_counted_as_this_ones(pool_walk, other):
    timings = pd.DataFrame(
        {"stage": ["train", "train", "score"], "job": ["r/halves-p1-s0-m0000-0012", other, "x/lira"], "seconds": [100.0, 60.0, 20.0]}
    )

    said = facts(pool_walk.metrics, timings=timings)["Cost"].words

    assert "which other audits share, took 3 minutes" in said and "this audit's own took 20 seconds" in said


def test_without_timings_the_models_are_counted_alone(walk, given_alone):
    assert facts(walk.metrics)["Cost"].words == f"{walk.metrics['models']['n']} models trained."
    assert facts(given_alone.metrics)["Cost"].words == "Nothing was trained."


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "less than a second"), (1, "1 second"), (43, "43 seconds"), (180, "3 minutes"), (9_000, "2.5 hours"), (864_000, "10 days")],
)
def test_seconds_are_said_in_words(seconds, said):
    assert words.duration(seconds) == said


def test_a_risk_near_the_limits_keeps_a_decimal():
    assert (words.score(4.26, 9.7), words.score(0, 3.1), words.score(27.4, 36.9)) == ("4.3", "0", "27")


def test_the_tester_begins_like_every_page():
    begins = front.of_tester(tested.found())

    assert [fact.name for fact in begins.facts] == NAMES
    assert "beside the reference model base" in begins.facts[0].words and begins.level and begins.below == "low"


def test_alarms_are_told_apart_from_notes(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["controls"]["null"] = {"p": 1e-9, "alarm": True, "attacks": {}}

    begins = front.of(metrics)

    assert len(begins.alarms) == 1 and begins.alarms[0].startswith("ALARM") and not any("ALARM" in note for note in begins.notes)


# --- the page


def rendered(done, metrics=None, figures=None):
    """A page of an audit of any kind."""
    metrics, timings = metrics or done.metrics, pd.DataFrame({"stage": ["train"], "job": ["r/halves-p1-s0-m0000-0012"], "seconds": [1.0]})
    params = json.loads(done.planned.page_json())
    if metrics["kind"] == "pairs":
        decisions = artefacts.read_table(done.audit("decisions.parquet"), ["attack", "target", "round", "value", "says_member", "is_member"])
        return page.audit_page(metrics, artefacts.read_facts(done.plan), decisions, timings, figures or {}, params)[0]
    return page.pool_page(metrics, timings, figures or {}, params)[0]


@pytest.fixture(scope="module", params=["walk", "pool_walk", "coins", "given_walk", "given_alone"])
def done(request):
    """An audit of each kind, measured."""
    return request.getfixturevalue(request.param)


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="5" height="5"/></svg>'


@pytest.mark.parametrize("with_figures", [True, False])
def test_every_kind_is_a_page_with_one_h1_and_every_section_in_its_contents(done, with_figures):
    html = rendered(done, figures=dict.fromkeys(done.planned.figures(), SVG) if with_figures else None)

    headings, listed = re.findall(r"<h2[^>]*>", html), re.search(r'<nav class="contents".*?</nav>', html, re.DOTALL)[0]
    ids = [re.search(r'id="([^"]+)"', heading)[1] for heading in headings]
    assert Tags(html).open == [] and html.count("<h1>") == 1 and '<html lang="en">' in html and "<!-- contents -->" not in html
    assert len(set(ids)) == len(ids) > 3 and re.findall(r'href="#([^"]+)"', listed) == ids
    assert ('class="headline"' in html) is with_figures


def test_every_id_of_a_page_is_there_once_and_every_link_within_it_leads_somewhere(done):
    html = rendered(done, figures=dict.fromkeys(done.planned.figures(), SVG))

    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_headings_leave_no_step_out(done):
    levels = [int(level) for level in re.findall(r"<h([1-6])", rendered(done))]

    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_comes_from_data_is_text(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["data"] |= {"name": HOSTILE, "licence": HOSTILE, "class_names": [f"{HOSTILE}{i}" for i in range(10)]}
    metrics["unit"] = {"column": HOSTILE, "n_records": 3, "largest": 1, "n_joined": 1, "n": 9}
    for row in metrics["exposure"]["most"]:
        row |= {"unit": HOSTILE, "n_records": 1}

    html = rendered(pool_walk, metrics)

    assert "<script" not in html and "49" not in re.findall(r"alert\(.{0,12}\)[^<]{0,40}", unescape(html))
    assert Tags(html).open == [] and "&lt;script&gt;" in html


def test_the_risk_is_a_number_with_its_interval_and_a_bar_that_says_the_same(pool_walk):
    html, verdict = rendered(pool_walk), front.of(pool_walk.metrics).verdict
    value, low, high = (words.score(end, verdict.high) for end in (verdict.risk, verdict.low, verdict.high))

    assert f'risk <b>{value}</b> of 100 <span class="range">[{low}, {high}]</span>' in html
    assert f'aria-label="Risk {value} of 100, 95\N{NO-BREAK SPACE}% interval {low} to {high}"' in html


def test_a_light_is_a_symbol_and_a_word_and_never_a_colour_alone(pool_walk):
    html = rendered(pool_walk)

    lights = re.findall(r'<li class="light (\w+)">(.*?)</li>', html, re.DOTALL)
    assert lights and all(
        {"fine": "fine", "alarm": "ALARM", "unknown": "not known"}[state] in body and 'class="mark"' in body for state, body in lights
    )


# --- the index


def test_the_worst_audit_stands_first(walk, pool_walk):
    low, high = (copy.deepcopy(pool_walk.metrics) | {"audit": name} for name in ("harmless", "leaky"))
    for metrics, rate in ((low, 0.0), (high, 0.9)):
        found = metrics["attacks"][metrics["headline"]]["calibrated"]
        for one in found:
            one["tpr"] |= {"value": rate, "low": rate, "high": rate + 0.001}
            one["achieved_fpr"] |= {"value": 0.001, "low": 0.0005, "high": 0.002}

    html = page.index_page([low, high])

    assert front.of(high).grade == "HIGH" and html.index("audits/leaky/report.html") < html.index("audits/harmless/report.html")


def test_what_is_not_finished_is_named_with_what_is_missing_and_why():
    from memleak.report.results import Found, Stage

    html = page.index_page([], unfinished=[Found("later", None, (Stage("data", 1, 1), Stage("models", 12, 64)), "no space <left>")])

    assert 'models <span class="range">(12 of 64)</span>' in html and "no space &lt;left&gt;" in html and "data <span" not in html
    assert 'href="audits/later' not in html


def test_an_empty_project_has_an_index():
    assert "No audit is finished yet." in page.index_page([])


# --- colours


def schemes():
    """The variables of both colour schemes, by name."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in CSS.read_text().split("{% include")[0].split("@media screen")[:2]
    )
    return {"light": light, "dark": light | dark}


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_black_on_white_has_the_contrast_of_the_textbook():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme):
    colour = schemes()[scheme]
    grades = ("HIGH", "MEDIUM", "LOW", "UNDECIDED")
    on = [(text, ground) for text in ("ink", "faint", "link", *grades) for ground in ("paper", "soft")]
    on += [(text, f"{grade}-soft") for grade in grades for text in ("ink", "faint", grade)]

    assert {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in on if contrast(colour[pair[0]], colour[pair[1]]) < 4.5} == {}
    assert colour["paper"] == {"light": "#ffffff", "dark": "#16191d"}[scheme]


def test_no_threshold_is_claimed_where_none_could_be_set(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["attacks"][metrics["headline"]]["calibrated"] = []

    told = facts(metrics)

    assert "optimistic" in told["Measured"].more and "mock targets" not in told["Measured"].more + told["Risk"].more
    assert told["Risk"].words.startswith("No score is told") and "sets the threshold" not in told["Attacker"].words


def test_an_attack_of_one_threshold_is_not_said_to_keep_a_rate(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    headline = metrics["attacks"][metrics["headline"]]
    headline["natural"] = copy.deepcopy(headline["calibrated"][0]) | {"is_only": True}

    told = facts(metrics)

    assert "the one threshold that it has" in told["Measured"].words and "false-positive rate of" not in told["Measured"].words
    assert told["Risk"].more == "TPR - FPR in percent, at the one threshold that the attack has."


def test_gradient_canaries_are_said_to_be_guessed_and_not_taken_for_training_data(coins):
    metrics = copy.deepcopy(coins.metrics)
    metrics["design"] |= {"space": "gradient"}

    assert "guesses the coin right" in facts(metrics)["Measured"].words and not front.of(metrics).zones


def test_queries_that_were_not_counted_are_not_told(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["attacks"][metrics["headline"]]["n_queries"] = None

    assert "quer" not in facts(metrics)["Attacker"].more
