"""The figures of the app: what they draw, in whose words, and that text from data stays text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")

from memleak.app import figures
from memleak.report.limits import MOST_EXPOSED

HOSTILE = "<script>alert('x')</script>"
AUCS = {"lira": {"value": 0.7, "low": 0.65, "high": 0.75}, HOSTILE: {"value": 0.6, "low": 0.5, "high": 0.7}}


def curves() -> pd.DataFrame:
    """Two curves, the first with a band, certified from 1 % on; nobody is caught at the first point."""
    fpr = np.array([0.0, 0.001, 0.01, 0.1, 1.0])
    own = {"fpr": fpr, "certified": fpr >= 0.01}
    first = pd.DataFrame({"subject": "lira", "tpr": [0, 0.02, 0.08, 0.3, 1], "low": [0, 0, 0.06, 0.2, 1], "high": [0.1, 0.1, 0.1, 0.4, 1], **own})
    return pd.concat([first, pd.DataFrame({"subject": HOSTILE, "tpr": [0, 0.0, 0.03, 0.2, 1], "low": np.nan, "high": np.nan, **own})])


def trace(figure: Any, start: str) -> Any:
    return next(trace for trace in figure.data if (trace.name or "").startswith(start))


def points(rows: int = 40) -> pd.DataFrame:
    y = np.linspace(0, 1, rows)
    table = pd.DataFrame({"id": [f"text-{i}" for i in range(rows)], "x": np.arange(rows), "y": y, "low": y * 0.9, "high": np.minimum(1, y + 0.1)})
    return table.assign(group=np.where(y > 0.5, "trained on", "not trained on"), flag=y > 0.95)


def test_a_roc_names_every_attack_with_its_interval_and_can_hide_it():
    figure = figures.roc(curves(), AUCS, "lira")

    assert trace(figure, "lira").name == "lira: AUC 0.700 [0.650, 0.750]"
    assert all(one.visible is None for one in figure.data) and trace(figure, "lira").line.width > 2
    assert "finds 8.0 % [6.0, 10.0] of the members<br>while wrong about 1 % of the others" in trace(figure, "lira").hovertext[1]


def test_the_band_of_the_headline_has_its_ends():
    figure = figures.roc(curves(), AUCS, "lira")
    high = trace(figure, "95 % interval")
    low = figure.data[list(figure.data).index(high) - 1]

    assert list(high.y) == [0.1, 0.1, 0.1, 0.4, 1] and list(low.y) == [0, 0, 0.06, 0.2, 1] and high.fill == "tonexty"


def test_logarithmic_axes_have_percent_and_no_point_at_zero():
    figure = figures.roc(curves(), AUCS, "lira", log=True)

    assert figure.layout.xaxis.type == "log" and "1 %" in figure.layout.xaxis.ticktext
    assert min(trace(figure, "lira").x) > 0 and min(trace(figure, "lira").y) > 0
    assert min(trace(figure, "&lt;script").y) > 0


def test_rates_that_nobody_can_certify_are_shaded_and_said():
    zone = trace(figures.roc(curves(), AUCS, "lira", log=True), "too few records to certify")

    assert max(zone.x) == 0.01 and "FPR below 1 %" in zone.name
    everywhere = trace(figures.roc(curves().assign(certified=False), AUCS, "lira"), "too few records")
    assert max(everywhere.x) == 1


def test_the_gauge_shows_value_interval_and_limits():
    figure = figures.gauge(62.4, 51.2, 70.9, "Risk", figures.bands_of(MOST_EXPOSED))
    steps = figure.data[0].gauge.steps

    assert figure.data[0].value == 62.4 and figure.data[0].gauge.threshold.value == 62.4
    assert [tuple(step.range) for step in steps] == [(0, 10), (10, 30), (30, 100), (51.2, 70.9)]
    assert "95 % interval 51 to 71" in figure.layout.annotations[0].text and "MEDIUM" in figure.layout.annotations[1].text


def test_a_gauge_without_a_number_shows_none():
    figure = figures.gauge(None, None, None, "Risk")

    assert figure.data[0].mode == "gauge" and figure.data[0].gauge.threshold.value is None
    assert "no number" in figure.layout.annotations[0].text


def test_a_point_of_the_scatter_says_its_interval_and_whether_it_is_flagged():
    figure = figures.scatter(points(), "loss")
    members = trace(figure, "trained on")

    assert members.name == "trained on (20)" and list(members.marker.size).count(10) == 2
    assert members.hovertext[-1] == "<b>text-39</b><br>trained on<br>P(member): 100 % [90.0, 100]<br>flagged"


def test_of_many_records_all_flagged_ones_are_drawn():
    table = points(20_000)
    drawn = figures.thinned(table, most=1500)

    assert len(drawn) <= 1502 and drawn["flag"].sum() == table["flag"].sum()
    assert "of 20,000 drawn" in figures.scatter(table, "loss").layout.title.text


def test_a_cell_of_the_heatmap_has_its_number_and_interval():
    figure = figures.heatmap([[0.1, None]], ["lira"], ["1 %", "10 %"], [["10 %\n[8, 12]", "n/a"]], limits=(0, 1))
    cells = figure.data[0]

    assert cells.text[0][0] == "10 %<br>[8, 12]" and np.isnan(cells.z[0][1])
    assert cells.hovertext[0][0] == "<b>lira</b><br>1 %<br>10 %<br>[8, 12]" and (cells.zmin, cells.zmax) == (0, 1)


def test_intervals_are_bars_from_low_to_high_in_the_order_of_the_rows():
    rows = [
        {"name": "lira", "is_headline": True, **AUCS["lira"]},
        {"name": "loss", "value": 0.55, "low": 0.5, "high": 0.62},
        {"name": "gone", "value": None},
    ]
    headline, others = figures.intervals(rows).data[:2]

    assert headline.error_x.array[0] == pytest.approx(0.05) and others.error_x.arrayminus[0] == pytest.approx(0.05)
    assert others.hovertext[0] == "loss: 0.550 [0.500, 0.620]" and "gone" not in figures.intervals(rows).layout.yaxis.categoryarray
    assert list(figures.intervals(rows).layout.yaxis.categoryarray) == ["loss", "lira"]


def test_the_frontier_draws_each_variant_with_both_intervals():
    sweep = sweep_of("none", HOSTILE)
    figure = figures.frontier(sweep)

    assert [one.x[0] for one in figure.data] == pytest.approx([0.7, 0.6])
    assert all(one.error_x.array[0] == pytest.approx(0.05) and one.error_y.arrayminus[0] == pytest.approx(0.02) for one in figure.data)
    assert any("accuracy: 90.0 % [88.0, 92.0]" in one.hovertext[0] for one in figure.data)


def sweep_of(*labels: str) -> dict[str, Any]:
    """A sweep of variants that differ in their AUC; the first is the baseline."""
    variants = [
        {
            "label": label, "audit": f"s-{i}", "auc": {"value": 0.7 - i / 10, "low": 0.65 - i / 10, "high": 0.75 - i / 10}, "tpr": [],
            "utility": {"value": 0.9, "low": 0.88, "high": 0.92}, "against": None, "changes": {"dropout": 0.5} if i else {}, "release": [], "recipe": f"r{i}",
            "epsilon": None, "controls": {}, "alarms": [], "is_efficient": True, "attacks": {},
        }
        for i, label in enumerate(labels)
    ]  # fmt: skip
    return {"sweep": "s", "baseline": labels[0], "variants": variants, "kind": "halves", "headline": "lira", "alpha": 0.05, "significance": 0.05}


@pytest.mark.parametrize("name", ["roc", "log", "gauge", "scatter", "heatmap", "intervals", "frontier"])
def test_text_from_data_stays_text(name):
    table = points().assign(id=HOSTILE, group=HOSTILE)
    drawn = {
        "roc": lambda: figures.roc(curves(), AUCS, HOSTILE), "log": lambda: figures.roc(curves(), AUCS, HOSTILE, log=True),
        "gauge": lambda: figures.gauge(1, 0, 2, HOSTILE, ((100.0, HOSTILE),)), "scatter": lambda: figures.scatter(table, HOSTILE, HOSTILE, title=HOSTILE),
        "heatmap": lambda: figures.heatmap([[1]], [HOSTILE], [HOSTILE], [[HOSTILE]], HOSTILE, scale=HOSTILE),
        "intervals": lambda: figures.intervals([{"name": HOSTILE, "value": 1, "low": 0, "high": 2, "says": HOSTILE}], HOSTILE, HOSTILE),
        "frontier": lambda: figures.frontier(sweep_of("none", HOSTILE)),
    }[name]()  # fmt: skip
    said = json.dumps(drawn.to_plotly_json(), default=lambda array: array.tolist())

    assert "<script" not in said and "&lt;script&gt;" in said


def test_paper_and_ink_are_left_to_the_theme():
    for figure in (figures.roc(curves(), AUCS, "lira"), figures.gauge(1, 0, 2, "Risk"), figures.scatter(points())):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)" and figure.layout.font.color is None


def test_members_and_others_have_the_colours_of_the_pages():
    from memleak.report import figures as pages

    assert (figures.IN, figures.OUT) == (pages.IN, pages.OUT)
