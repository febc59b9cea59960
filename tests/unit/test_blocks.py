"""A page as plain blocks."""

from __future__ import annotations

from memleak.report import blocks
from memleak.report.blocks import Run


def kinds(html: str) -> list[str]:
    return [one.kind for one in blocks.of(html)]


def test_a_page_is_told_in_reading_order_without_what_only_a_screen_needs():
    html = """<!doctype html><html><head><title>t</title><style>p { color: red }</style></head><body><a class="skip" href="#main">Skip</a>
    <header><nav><a href="x">All audits</a></nav></header><main><h1>A &amp; B</h1><nav class="contents"><ul><li>here</li></ul></nav><p>One
    line.</p><script>alert(1)</script><h2 id="a">Two</h2><p class="note">Grey.</p><p class="download"><a>CSV</a></p><pre>a:
  b</pre></main><footer class="small">memleak 1</footer></body></html>"""

    assert [(one.kind, one.level, one.text) for one in blocks.of(html)] == [
        ("title", 1, "A & B"), ("paragraph", 0, "One line."), ("heading", 2, "Two"), ("note", 0, "Grey."), ("code", 0, "a:\n  b"),
        ("paragraph", 0, "memleak 1"),
    ]  # fmt: skip


def test_a_verdict_has_its_state_its_risk_and_the_zones_of_the_scale():
    html = """<section class="verdict MEDIUM" data-risk="5.7" data-low="4.3" data-high="7.3"><p><strong>MEDIUM</strong> risk</p>
    <div class="riskbar"><div class="bar" role="img"><span class="zone LOW" style="left: 0%; width: 3.0%"></span><span class="zone HIGH"
    style="left: 10.0%; width: 90%"></span></div><p>0 100</p></div><p class="alarm" role="alert">ALARM: broken.</p></section>"""
    (verdict,) = blocks.of(html)

    assert (verdict.kind, verdict.mark, verdict.risk) == ("verdict", "MEDIUM", (5.7, 4.3, 7.3))
    assert verdict.zones == (("LOW", 0.0, 3.0), ("HIGH", 10.0, 100.0))
    assert [(part.text, part.mark) for part in verdict.parts] == [("MEDIUM risk", ""), ("ALARM: broken.", "alarm")]


def test_facts_lights_and_actions_are_lists_that_say_what_they_are():
    html = """<dl class="facts"><div><dt>Cost</dt><dd>Much <details class="more"><summary>Exactly</summary>9 s</details></dd></div></dl>
    <ul class="lights"><li class="light alarm"><span class="mark" aria-hidden="true">!</span><details><summary><b>Null</b> ALARM<br>it
    fails</summary><p>Why.</p></details></li></ul>
    <ol class="actions"><li><h3>Train less</h3><pre><code>memleak audit</code></pre></li></ol><ul><li>plain</li></ul>"""
    facts, lights, actions, plain = blocks.of(html)

    assert [one.mark for one in (facts, lights, actions, plain)] == ["facts", "lights", "actions", ""]
    assert [(part.kind, [inner.text for inner in part.parts]) for part in facts.parts] == [("term", ["Cost"]), ("item", ["Much", "Exactly"])]
    assert facts.parts[1].parts[1].parts[0].text == "9 s"
    assert facts.parts[1].parts[1].mark == "more"
    (light,) = lights.parts[0].parts
    assert lights.parts[0].mark == "alarm" and light.text == "Null ALARM" and [part.text for part in light.parts] == ["it fails", "Why."]
    assert [part.kind for part in actions.parts[0].parts] == ["heading", "code"] and actions.parts[0].parts[1].text == "memleak audit"


def test_a_table_keeps_its_lines_its_wide_cells_and_its_colours():
    html = """<div class="table"><table class="dense"><thead><tr><th colspan="2">rate</th></tr></thead><tbody>
    <tr><td class="no">6.8 %<br><span class="small range">[5.9, 7.8]</span></td><td class="exposed" rowspan="2">yes</td></tr></tbody></table></div>"""
    (table,) = blocks.of(html)
    (head,), (rate, flag) = table.cells

    assert (table.kind, table.mark) == ("table", "dense") and (head.words, head.columns, head.is_head) == (("rate",), 2, True)
    assert (rate.words, rate.mark) == (("6.8 %", "[5.9, 7.8]"), "no") and rate.lines[1] == (Run("[5.9, 7.8]", "small"),)
    assert (flag.rows, flag.mark) == (2, "exposed")


def test_a_figure_has_all_its_panels_and_its_caption():
    html = '<figure><div class="panels"><svg id="a"><text>x &lt; y</text></svg><svg id="b"></svg></div><figcaption>How to <em>read</em>.</figcaption></figure>'
    (figure,) = blocks.of(html)

    assert figure.svgs == ('<svg id="a"><text>x &lt; y</text></svg>', '<svg id="b"></svg>')
    assert figure.runs == (Run("How to "), Run("read", "em"), Run("."))


def test_details_are_opened_and_unknown_elements_give_their_words():
    html = "<details><summary>More</summary><p>Inside.</p><details><summary>Deeper</summary>Free words</details></details><blink><p>Odd</p> and free</blink>"
    details, odd, free = blocks.of(html)

    assert (details.kind, details.text, details.parts[0].text, details.parts[1].parts[0].text) == ("details", "More", "Inside.", "Free words")
    assert (odd.text, free.text) == ("Odd", "and free")


def test_escaped_markup_is_words_and_white_space_is_one_space():
    (paragraph,) = blocks.of("<p>  &lt;script&gt;  <b> a</b>\n <i>b </i> 5\u00a0% </p>")

    assert paragraph.text == "<script> a b 5\u00a0%" and blocks.plain("<h2>a <em>b</em><br>c</h2>") == "a b c"


def test_an_element_left_open_or_closed_twice_loses_no_words():
    assert [one.text for one in blocks.of("<div><p>one<div>two</div></span></p></div><p>three")] == ["one two", "three"]
