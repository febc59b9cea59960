"""The page: whole in one file, honest in words, and never trusting what data says."""

from __future__ import annotations

import copy
import re

import pandas as pd
import pytest
from pages import Tags

from memleak import artefacts
from memleak.report import figures, page
from memleak.report import words as said_in


def _page(walk, metrics=None, plan=None, drawn=None):
    decisions = artefacts.read_table(walk / "audits/small/decisions.parquet", ["attack", "target", "round", "value", "says_member", "is_member"])
    timings = pd.read_csv(walk / "audits/small/timings.csv")
    params = {"audit": "small", "entry": {"recipe": "tiny"}, "recipe": {}, "dataset": None}
    return page.audit_page(metrics or walk.metrics, plan or artefacts.read_facts(walk.plan), decisions, timings, drawn or {}, params)


def test_the_page_is_whole_in_one_file(walk):
    html = (walk / "audits/small/report.html").read_text()

    assert html.count('<div class="panels"') == len(walk.planned.figures()) + 1 == 5  # the first panel of the overview stands above all others
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    assert "@import" not in html


def test_every_figure_is_there_twice(walk):
    for name in walk.planned.figures():
        assert (walk / f"audits/small/figures/{name}.svg").read_text().startswith("<?xml")
        assert (walk / f"audits/small/figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_numbers_draw_the_same_bytes(walk, tmp_path):
    figures.save(figures.overview(walk.metrics), tmp_path / "a.svg", tmp_path / "a.png")

    assert (tmp_path / "a.svg").read_bytes() == (walk / "audits/small/figures/overview.svg").read_bytes()


def test_tags_are_closed(walk):
    checker = Tags((walk / "audits/small/report.html").read_text())

    assert checker.open == []


def test_hostile_names_are_text(walk):
    metrics = copy.deepcopy(walk.metrics)
    metrics["data"] |= {"name": "<script>alert(1)</script>", "licence": '"><img src=x onerror=alert(1)>'}

    html, _ = _page(walk, metrics)

    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html


def test_a_model_at_chance_is_said_so(walk):
    metrics = copy.deepcopy(walk.metrics)
    metrics["models"]["test_accuracy"]["value"] = 0.1

    html, line = _page(walk, metrics)

    assert "UNDECIDED" in line
    assert "This model is at chance" in html and "the audit says nothing" in html


def test_a_model_that_does_not_fit_its_data_is_said_so(walk):
    metrics = copy.deepcopy(walk.metrics)
    metrics["models"]["train_accuracy"]["value"] = 0.6

    assert "This model does not fit its data" in _page(walk, metrics)[0]


def test_every_rate_on_the_page_has_its_interval(walk):
    html = (walk / "audits/small/report.html").read_text()
    table = html[html.index('<h2 id="attacks"') :]
    cells = re.findall(r"<td>(\d[^<]*%.*?)</td>", table[: table.index("</table>")])

    held_out = [re.sub(r"<[^>]+>", " ", cell) for cell in cells if "% /" not in cell]
    assert len(held_out) == 8
    assert all(re.search(r"\[\d+\.\d, \d+\.\d\], n = 4 rounds", cell) for cell in held_out)


@pytest.mark.parametrize(
    ("intervals", "signal", "words"),
    [
        ([], "margin", "never: too few rounds for this alpha"),
        ([[1.25, None]], "margin", "margin > 1.25"),
        ([[-1.25, None]], "loss", "loss < 1.25"),
        ([[None, 0.5], [2.0, None]], "margin", "margin < 0.5 or margin > 2"),
        ([[0.5, 2.0]], "margin", "0.5 < margin < 2"),
        ([[-2.0, -0.5]], "loss", "0.5 < loss < 2"),
    ],
)
def test_a_rule_is_worded_in_the_signals_own_units(intervals, signal, words):
    assert said_in.region(intervals, signal) == words


MIXED = [
    {"n": 20, "device": "NVIDIA H100", "torch": "2.9.0+cu130", "engine": "ensemble"},
    {"n": 18, "device": "cpu", "torch": "2.9.0+cpu", "engine": "sequential"},
    {"n": 1, "device": "cpu", "torch": "2.9.0+cpu", "engine": "ensemble"},
]


def test_the_page_says_on_what_and_how_the_models_were_trained(walk):
    html = (walk / "audits/small/report.html").read_text()

    said = re.search(r"Trained: (.*?)\.<", html)[1]
    counted = re.findall(r"(\d+) models? on cpu \(torch [\w.+]+, [\w ]+\)", said)
    assert sum(map(int, counted)) == walk.metrics["models"]["n"] and len(counted) == said.count("torch")
    assert "are mixed" not in html


def test_mixed_devices_are_counted_beside_the_verdict(walk):
    html, _ = _page(walk, walk.metrics | {"models": walk.metrics["models"] | {"trained_on": MIXED, "mixed": ["devices"]}})

    assert "Models of several devices are mixed (20 models on NVIDIA H100 with torch 2.9.0+cu130; 19 models on cpu with torch 2.9.0+cpu)" in html
    assert "20 models on NVIDIA H100 (torch 2.9.0+cu130, ensemble), 18 models on cpu (torch 2.9.0+cpu, sequential), 1 model on cpu" in html


def test_mixed_engines_are_a_sentence_and_no_warning(walk):
    html, _ = _page(walk, walk.metrics | {"models": walk.metrics["models"] | {"trained_on": MIXED[1:], "mixed": []}})

    assert "Engines take the same steps up to rounding" in html and "are mixed" not in html
    html, _ = _page(walk, walk.metrics | {"models": walk.metrics["models"] | {"trained_on": MIXED[1:2], "mixed": []}})
    assert "Engines" not in html


def test_the_index_names_every_audit(walk):
    html = page.index_page([walk.metrics])

    assert 'href="audits/small/report.html"' in html


def test_a_pairs_audit_prints_its_lower_bound_of_epsilon(walk):
    found = {"epsilon": 0.75, "delta": 1e-5, "confidence": 0.95, "target": "random00", "lower_bounds": {"random00": 0.75, "mislabelled00": 0.5}}

    html, _ = _page(walk, walk.metrics | {"epsilon": found | {"confidence_each": 0.975, "attainable": 1.5}})

    assert "<strong>0.75</strong> at delta 1e-05, with 95.0\N{NO-BREAK SPACE}% confidence" in html
    assert (
        "It comes from random00, the largest of 2 records&#39; bounds" in html or "It comes from random00, the largest of 2 records' bounds" in html
    )


def test_a_pairs_audit_without_epsilon_says_why(walk):
    assert "No epsilon: design." in _page(walk, walk.metrics | {"epsilon": None})[0]
