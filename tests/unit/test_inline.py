"""Figures as parts of a page: cut into panels that are whole in themselves, in colours of the page, with words that stay words."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from pages import Tags

from memleak.artefacts import ArtefactError
from memleak.report import figures, inline, pool_figures

CSS = Path(inline.__file__).with_name("figures.css").read_text(encoding="utf-8")
HOSTILE = "<script>alert('$x^2$ & \"y\"')</script>"


@figures.styled
def two_panels(title: str = "left") -> figures.Figure:
    figure = figures.sheet(2 * figures.PANEL, 3)
    left, right = figure.subplots(1, 2)
    (line,) = left.plot([1, 2], [1, 2], "o", color=figures.IN)
    left.set_title(title)
    right.plot([1, 2], [2, 1], "o", color=figures.OUT)
    figure.legend([line], ["dots"], loc="outside lower center")
    return figure


@pytest.fixture(scope="module")
def svg() -> str:
    return figures.svg_of(two_panels())


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(one) for one in re.findall(r"<svg .*?</svg>", html, re.DOTALL)]


def ids(html: str) -> list[str]:
    return re.findall(r' id="([^"]+)"', html)


# -- panels --------------------------------------------------------------------------------------------------------


def test_every_panel_is_a_drawing_of_its_own(svg):
    html = inline.figure(svg, "figure dots")

    assert html.startswith('<div class="panels" role="group" aria-label="figure dots">') and Tags(html).open == []
    assert [one.attrib["aria-label"] for one in drawings(html)] == [f"figure dots, panel {i} of 3" for i in (1, 2, 3)]
    assert all(one.attrib["role"] == "img" for one in drawings(html))


def test_a_panel_holds_all_that_it_refers_to(svg):
    """Markers are defined where they are used first, which may be another panel."""
    for one in re.findall(r"<svg .*?</svg>", inline.figure(svg, "figure dots"), re.DOTALL):
        referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', one))
        assert referred == set(ids(one))


def test_ids_differ_between_the_figures_of_a_page(svg):
    found = ids(inline.figure(svg, "figure one") + inline.figure(svg, "figure two"))

    assert found and len(found) == len(set(found))


def test_all_words_lie_in_the_box_of_their_panel():
    """Also where a long title makes the file wider than the figure, and its middle another one."""
    for one in drawings(inline.figure(figures.svg_of(two_panels("a title of many words " * 4)), "figure wide")):
        left, top, width, height = map(float, one.attrib["viewBox"].split())
        places = [(float(text.attrib["x"]), float(text.attrib["y"])) for text in one.iter("{http://www.w3.org/2000/svg}text") if "x" in text.attrib]
        assert places
        assert all(left <= x <= left + width and top <= y <= top + height for x, y in places)


def test_panels_of_a_row_are_equally_high(svg):
    first, second, _ = (one.attrib["viewBox"].split() for one in drawings(inline.figure(svg, "figure dots")))

    assert (first[1], first[3]) == (second[1], second[3]) and first[0] != second[0]


def test_what_has_a_name_in_common_stays_together():
    figure = two_panels()
    for axes in figure.axes:
        axes.set_gid("together")

    assert len(drawings(inline.figure(figures.svg_of(figure), "figure dots"))) == 2  # and the legend
    assert [axes.get_gid() for axes in figure.axes] == ["together", "together"]


def test_the_first_panels_can_be_had_alone(svg):
    (only,) = drawings(inline.figure(svg, "figure dots", only=1))

    assert only.attrib["aria-label"] == "figure dots"


@pytest.mark.parametrize("bare", ["<svg></svg>", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 20"><path d="M 0 0"/></svg>'])
def test_a_file_without_marks_stays_in_one_piece(bare):
    (only,) = drawings(inline.figure(bare, "figure old"))

    assert only.attrib["aria-label"] == "figure old" and len(list(only)) == bare.count("<path")


# -- words and bytes -----------------------------------------------------------------------------------------------


def test_words_of_data_stay_words():
    html = inline.figure(figures.svg_of(two_panels(HOSTILE)), HOSTILE)

    assert "<script" not in html and Tags(html).open == []
    assert "$x^2$ &amp;" in html, "not read as a formula"
    assert drawings(html)[0].attrib["aria-label"].startswith(HOSTILE)


def test_the_same_numbers_have_the_same_bytes(svg):
    figure = two_panels()

    assert figures.svg_of(figure) == svg == figures.svg_of(figure)
    assert inline.figure(svg, "figure dots") == inline.figure(svg, "figure dots")


def test_drawing_leaves_the_settings_of_others_alone(svg, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.save(two_panels(), tmp_path / "a.svg", tmp_path / "a.png")

    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == svg


# -- colours -------------------------------------------------------------------------------------------------------


def test_the_page_may_change_colours_and_the_file_has_its_own(svg):
    html = inline.figure(svg, "figure dots")

    assert f"var(--figure-in, {figures.IN})" in html and "var(--figure-paper, #ffffff)" in html
    assert "var(" not in svg and "var(" not in inline.plain(html) and figures.IN in inline.plain(html)


def _scheme(css: str) -> dict[str, str]:
    return dict(re.findall(r"--figure-([a-z]+): (#[0-9a-f]{6})", css))


def _contrast(one: str, other: str) -> float:
    """That of WCAG 2.2, 1 to 21."""
    channels = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in (one, other)])
    light = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return float((light.max() + 0.05) / (light.min() + 0.05))


def test_every_colour_is_told_from_the_paper_by_day_and_by_night():
    """3 for what is drawn, 4.5 for what is written; faint is what need not be seen."""
    day, night = (_scheme(part) for part in CSS.split("@media", 1))

    assert day == inline.COLOURS and set(night) == set(day)
    for colours in (day, night):
        for name in set(colours) - {"paper", "faint"}:
            assert _contrast(colours[name], colours["paper"]) >= (4.5 if name in ("ink", "grey") else 3.0), name


# -- the headline figure -------------------------------------------------------------------------------------------


def audit(tpr: float, calibrated: bool = True, n_non_members: int = 1000) -> tuple[dict, pd.DataFrame]:
    """Metrics of two attacks, and their curves."""
    rate = {"at_fpr": 0.01, "value": tpr, "low": tpr / 2, "high": min(1, 2 * tpr), "certified": n_non_members >= 300, "n_non_members": n_non_members}
    own = {"achieved_fpr": {"value": 0.012, "low": 0.008, "high": 0.016}, "tpr": {key: rate[key] for key in ("value", "low", "high")}, **rate}
    attacks = {name: {"name": kind, "options": {"signal": "loss"}, "auc": {"value": 0.6, "low": 0.5, "high": 0.7}, "rates": [rate],
                      "calibrated": [own] if calibrated else []} for name, kind in (("lira", "lira"), ("loss", "threshold"))}  # fmt: skip
    fpr = np.geomspace(0.0005, 1, 40)
    curve = pd.DataFrame({"fpr": fpr, "tpr": fpr**0.6, "low": fpr**0.7, "high": fpr**0.5, "certified": fpr > 0.003})
    return {"headline": "lira", "alpha": 0.01, "attacks": attacks}, pd.concat([curve.assign(subject=name) for name in attacks])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            (0.067, True, 1000),
            ["Finds 6.7 % [3.4, 13.4] of the members", "and accuses 1.2 % [0.8, 1.6] of the others", "at a threshold set beforehand"],
        ),
        ((0.067, False, 1000), ["and accuses at most 1 % of the others", "at a threshold chosen in hindsight"]),
        ((0.067, True, 200), ["at a threshold set beforehand; too few records to certify"]),
        ((0.0, True, 1000), ["Finds 0 % [0, 0] of the members"]),
        ((1.0, True, 1000), ["Finds 100 %"]),
    ],
)
def test_the_headline_figure_says_the_number_that_counts(given, words):
    svg = figures.svg_of(pool_figures.headline(*audit(*given)))

    assert [one for one in words if one not in svg] == []
    assert "lira (headline)" in svg and "loss, to compare" in svg and "guessing" in svg
    assert len(drawings(inline.figure(svg, "figure headline"))) == 1


def test_a_rate_that_nobody_measured_has_no_point():
    metrics, curves = audit(0.1, calibrated=False)
    metrics["attacks"]["lira"]["rates"] = []

    assert "Finds" not in figures.svg_of(pool_figures.headline(metrics, curves))


def test_an_attack_of_one_threshold_is_drawn_where_it_decides():
    metrics, curves = audit(0.0)
    metrics["attacks"]["lira"]["natural"] = {
        "is_only": True, "tpr": {"value": 0.9, "low": 0.8, "high": 0.95}, "achieved_fpr": {"value": 0.7, "low": 0.6, "high": 0.8},
    }  # fmt: skip

    assert "and accuses 70.0 % [60.0, 80.0] of the others" in figures.svg_of(pool_figures.headline(metrics, curves))


def test_what_could_run_or_fetch_is_left_out_of_a_foreign_drawing():
    hostile = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9"><style>@import "http://evil.example"</style>'
        '<script>alert(1)</script><foreignObject><iframe src="http://evil.example"/></foreignObject><a xlink:href="javascript:alert(1)"><rect/></a>'
        '<g onload="alert(1)"><image xlink:href="http://evil.example/x.png"/><use href="#kept"/><path d="M0 0"/></g></svg>'
    )

    drawn = inline.figure(hostile, "hostile")

    assert "evil" not in drawn and "alert" not in drawn and "onload" not in drawn
    assert '<path d="M0 0">' in drawn and "#" in drawn


def test_a_damaged_drawing_is_named():
    with pytest.raises(ArtefactError, match="'the curve': damaged, not SVG"):
        inline.figure("<svg><g>", "the curve")
