"""A page of ours as a PDF."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typst

from memleak import cli
from memleak.report import pdf

NASTY = [
    '#include "/etc/passwd"', "$x^2$ \\ #set page(width: 1pt)", "*a* _b_ `c` // d /* e", "<script>alert(1)</script>", "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f600 \U0001f512 \u6f22\u5b57", "#image(\"x.png\")", "\u202egnorw\u202c", "]#panic()[", "a" * 500,
]  # fmt: skip
SVG = '<svg viewBox="0 0 200 100" role="img" aria-label="figure a &amp; b"><rect width="9" height="9" style="fill: var(--figure-in, #d1622b)"/></svg>'


def page_of(content: str, title: str = "digits", css: str = ":root { --figure-in: #aa0000; }") -> str:
    return (
        f"<!doctype html><html><head><title>{title} - memleak</title><style>{css}</style></head><body><main><h1>{title}</h1>{content}</main>"
        '<footer class="small">memleak 1.2.3</footer></body></html>\n'
    )


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")


def content_of(html: str, room: Path) -> dict:
    pdf.prepare(html, room)
    return json.loads((room / "page.json").read_text())


def n_sheets(made: bytes) -> int:
    return int(re.search(rb"/Type/Pages\b.*?/Count (\d+)", made, re.DOTALL)[1])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with everything that pages are made of."""
    table = "".join(f"<tr><td>lira {i}</td><td>6.8 %<br><span class='small range'>[5.9, 7.8]</span></td></tr>" for i in range(120))
    path = tmp_path / "report.html"
    content = f"""<section class="verdict HIGH" data-risk="99" data-low="80" data-high="100"><p><strong>HIGH</strong></p><p class="alarm">ALARM</p></section>
    <dl class="facts"><div><dt>Cost</dt><dd>Much. <details><summary>Exactly</summary>9 s</details></dd></div></dl>
    <h2 id="c">Controls</h2><ul class="lights"><li class="light unknown"><p><b>Null</b></p></li></ul><ol class="actions"><li><h3>Do</h3><p>So.</p></li></ol>
    <h2>Attacks</h2><figure><div class="panels">{SVG}{SVG}</div><figcaption>How to read.</figcaption></figure>
    <div class="table"><table><tr><th>attack</th><th>TPR</th></tr>{table}</table></div><p class="note">Note.</p><details><summary>More</summary><pre>a:
  b: 1</pre></details>"""
    path.write_text(page_of(content), encoding="utf-8")
    return path


def test_a_page_becomes_a_pdf_with_its_title_its_bookmarks_and_its_letters(page, tmp_path):
    pdf.write(page, tmp_path / "report.pdf")
    made = (tmp_path / "report.pdf").read_bytes()

    assert made.startswith(b"%PDF-") and made.rstrip().endswith(b"%%EOF") and n_sheets(made) >= 2
    assert b"digits - memleak" in made and b"/Title(Controls)" in made and b"/Title(Attacks)" in made
    assert re.findall(rb"/FontName/\w+\+LibertinusSerif", made) and b"CreationDate" not in made


def test_the_same_page_makes_the_same_bytes_wherever_it_lies(page, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/other.html").write_bytes(page.read_bytes())
    pdf.write(page, tmp_path / "a.pdf")
    pdf.write(tmp_path / "elsewhere/other.html", tmp_path / "b.pdf")

    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@pytest.mark.parametrize("nasty", NASTY)
def test_no_word_of_a_page_is_read_as_markup(nasty, tmp_path):
    """It stands everywhere a page has words, and is a heading, letter by letter, in the document."""
    words = escaped(nasty)
    content = (
        f"<h2>{words}</h2><p>{words}</p><ul><li>{words}</li></ul><pre>{words}</pre><p><code>{words}</code></p><section class='verdict LOW'><p>{words}</p></section>"
        f"<div class='table'><table><tr><th>{words}</th></tr><tr><td>{words}<br>{words}</td></tr></table></div><figure>{SVG}<figcaption>{words}</figcaption></figure>"
    )
    path = tmp_path / "page.html"
    path.write_text(page_of(content, words), encoding="utf-8")
    pdf.write(path, tmp_path / "page.pdf")
    (tmp_path / "room").mkdir()
    template = pdf.prepare(path.read_text(), tmp_path / "room")
    headings = json.loads(typst.query(template, "heading", root=tmp_path / "room", ignore_system_fonts=True))

    assert n_sheets((tmp_path / "page.pdf").read_bytes()) <= 2  # 500 letters take two
    assert [one["body"]["text"].replace("\N{ZERO WIDTH SPACE}", "") for one in headings] == [nasty, nasty]


def test_the_words_of_the_frame_stand_at_the_foot_alone(tmp_path):
    found = content_of(page_of('<p class="small"><a href="x">All audits</a></p><p>Found.</p>'), tmp_path)

    assert found["title"] == "digits - memleak" and found["version"] == "1.2.3"
    assert [(one["kind"], one["runs"][0]["text"]) for one in found["blocks"]] == [("title", "digits"), ("paragraph", "Found.")]


def test_figures_are_files_in_plain_light_colours_and_say_what_they_show(tmp_path):
    css = ":root { --figure-in: #aa0000; } @media (prefers-color-scheme: dark) { :root { --figure-in: #00bb00; } }"
    found = content_of(page_of(f"<figure>{SVG}{SVG}</figure>", css=css), tmp_path)
    drawn = (tmp_path / "figure-0.svg").read_text()

    assert 'style="fill: #aa0000"' in drawn and "var(" not in drawn and 'xmlns="http://www.w3.org/2000/svg"' in drawn
    assert found["blocks"][1]["rows"] == [[{"file": f"figure-{i}.svg", "alt": "figure a & b", "width": 200.0} for i in (0, 1)]]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("fill: var(--a)", "fill: red"), ("fill: var(--b, #123456)", "fill: #123456"), ("fill: var(--b, var(--a, blue))", "fill: red"),
        ("fill: var( --b , var(--c, blue) )", "fill: blue"), ("fill: var(--b)", f"fill: {pdf.INK}"), ("fill: currentColor", f"fill: {pdf.INK}"),
        ("font-family: inherit", "font-family: 'DejaVu Sans'"),
    ],
)  # fmt: skip
def test_a_colour_that_a_page_names_becomes_the_colour_itself(written, plain):
    assert pdf.plain_colours(f'<svg xmlns="x"><g style="{written}"/></svg>', {"--a": "red"}) == f'<svg xmlns="x"><g style="{plain}"/></svg>'


def test_panels_stand_side_by_side_as_long_as_they_can_be_read(tmp_path):
    wide = SVG.replace("0 0 200 100", "0 0 700 100")
    found = content_of(page_of(f"<figure>{SVG * 4}{wide}</figure>"), tmp_path)

    assert [[panel["width"] for panel in row] for row in found["blocks"][1]["rows"]] == [[200, 200, 200], [200], [700]]


def test_a_table_that_is_too_wide_turns_its_sheet_with_its_heading_and_its_note(tmp_path):
    row = "".join(f"<td>{'some words of ' + str(i):>20}</td>" for i in range(14))
    head = "".join(f"<th>column {i}</th>" for i in range(14))
    html = page_of(f"<p>Before.</p><h2>Wide</h2><table><tr>{head}</tr><tr>{row}</tr></table><p class='note'>Its note.</p><p>After.</p>")
    found = content_of(html, tmp_path)

    assert [one["kind"] for one in found["blocks"]] == ["title", "paragraph", "turned", "paragraph"]
    assert [one["kind"] for one in found["blocks"][2]["parts"]] == ["heading", "table", "note"]
    (tmp_path / "wide.html").write_text(html)
    pdf.write(tmp_path / "wide.html", tmp_path / "wide.pdf")
    assert len(set(re.findall(rb"/MediaBox\[([^\]]+)\]", (tmp_path / "wide.pdf").read_bytes()))) == 2


def test_a_long_narrow_table_is_cut_into_strips(tmp_path):
    rows = "".join(f"<tr><td>{i}</td><td>yes</td></tr>" for i in range(40))
    found = content_of(page_of(f"<table><tr><th>round</th><th>member</th></tr>{rows}</table>"), tmp_path)

    assert found["blocks"][1]["strips"] == 3 and found["blocks"][1]["head"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda page: page.unlink(), "report.html: missing; run the workflow to make it"),
        (lambda page: page.write_bytes(page.read_bytes()[:-200]), "report.html: truncated, its end is missing; delete it and run the workflow again"),
        (lambda page: page.write_text("<html><title>News</title></html>"), "report.html: not a page of memleak; name a report.html"),
        (lambda page: page.write_bytes(b""), "report.html: not a page of memleak"),
        (lambda page: page.write_bytes(b"%PDF\xff\xfe"), "report.html: cannot be read as a page"),
        (lambda page: (page.unlink(), page.mkdir()), "report.html: cannot be read as a page"),
        (lambda page: page.write_text(page_of("<figure><svg><g></svg></figure>")), "report.html: cannot be typeset"),
        (
            lambda page: page.write_text(page_of('<figure><svg viewBox="0 0 9 9"><image href="/etc/hosts" width="9" height="9"/></svg></figure>')),
            "cannot be typeset",
        ),
    ],
)
def test_what_is_no_page_is_refused_in_one_sentence_and_nothing_is_left(page, tmp_path, capsys, change, said):
    change(page)
    (tmp_path / "report.pdf").write_bytes(b"the one before")

    assert cli.main(["pdf", str(page)]) == 1
    assert said in (told := capsys.readouterr().err) and told.count("\n") == 1
    assert (tmp_path / "report.pdf").read_bytes() == b"the one before" and not list(tmp_path.glob(".report.pdf*"))


def test_the_verb_writes_beside_the_page_or_where_it_is_told(page, tmp_path, capsys):
    assert cli.main(["pdf", str(page)]) == 0 and cli.main(["pdf", str(page), "--output", str(tmp_path / "new/x.pdf")]) == 0

    assert capsys.readouterr().out == f"written: {tmp_path / 'report.pdf'}\nwritten: {tmp_path / 'new/x.pdf'}\n"
    assert (tmp_path / "report.pdf").read_bytes() == (tmp_path / "new/x.pdf").read_bytes()
    assert cli.main(["pdf", str(tmp_path / "report.pdf")]) == 1 and "is a PDF already" in capsys.readouterr().err


def test_the_pages_of_a_whole_audit_are_typeset(tmp_path):
    """A page as the templates write it, of scores: its title, its headings and a figure arrive."""
    import numpy as np
    import pandas as pd

    from memleak.report import stage

    draw = np.random.default_rng(0)
    pd.DataFrame({"score": draw.normal(size=80) + np.repeat([1, 0], 40), "is_member": np.repeat([True, False], 40)}).to_csv(tmp_path / "mine.csv")
    stage.stats(tmp_path / "mine.csv", tmp_path / "stats", "mine")
    pdf.write(tmp_path / "stats/report.html", tmp_path / "mine.pdf")
    found = content_of((tmp_path / "stats/report.html").read_text(), tmp_path)

    assert n_sheets((tmp_path / "mine.pdf").read_bytes()) >= 1
    assert {"title", "figure", "table", "heading"} <= {one["kind"] for one in found["blocks"]} and found["version"]
