"""What the app draws by itself: verdict, facts, lights and actions as small pieces of HTML, in which everything from data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import streamlit as st
from markupsafe import Markup
from PIL import Image

from memleak.report import words
from memleak.report.parts import Action, Fact, Light

MARKS = {"fine": "\N{CHECK MARK}", "alarm": "!", "unknown": "?"}  # beside the colour, for those who do not see it
GRADES = ("LOW", "MEDIUM", "HIGH", "UNDECIDED")
SHEET = """
.memleak { line-height: 1.5; color-scheme: inherit;
  --HIGH: light-dark(#b3261e, #ff8a80); --MEDIUM: light-dark(#8a4f00, #ffb74d); --LOW: light-dark(#17663a, #7bd6a1);
  --UNDECIDED: light-dark(#4c5a6b, #b3c0cf); --faint: light-dark(#5c6570, #a4adb8); --soft: light-dark(#f3f4f6, #22262c); --line: light-dark(#d5d9de, #3a4048); }
.memleak .HIGH { --state: var(--HIGH); } .memleak .MEDIUM { --state: var(--MEDIUM); }
.memleak .LOW { --state: var(--LOW); } .memleak .UNDECIDED { --state: var(--UNDECIDED); }
.memleak .verdict { background: color-mix(in srgb, var(--state) 10%, transparent); border-left: .45rem solid var(--state); border-radius: .5rem;
  padding: .9rem 1.1rem; overflow-wrap: anywhere; }
.memleak .verdict strong { color: var(--state); font-size: 1.8rem; line-height: 1.2; margin-right: .6rem; } .memleak .verdict p { margin: .4rem 0 0; }
.memleak dl { margin: 0; padding: 0; } .memleak dt { font-weight: 600; float: left; clear: left; width: 6.5rem; }
.memleak dd { margin: 0 0 .45rem 7rem; overflow-wrap: anywhere; } .memleak .faint { color: var(--faint); font-size: .9rem; }
.memleak ul.lights { list-style: none; margin: 0; padding: 0; } .memleak ul.lights li { margin: 0 0 .35rem; padding: 0; }
.memleak dd details, .memleak dd summary { display: inline; } .memleak dd summary { list-style: none; text-decoration: underline dotted; margin-left: .35em; }
.memleak dd details[open] > span { display: block; }
.memleak summary { cursor: pointer; } .memleak .lights summary { list-style: none; display: flex; gap: .6rem; align-items: baseline; }
.memleak .dot { flex: none; width: 1.35rem; height: 1.35rem; border-radius: 50%; border: 2px solid var(--of); color: var(--of);
  font-weight: 700; font-size: .8rem; display: inline-flex; align-items: center; justify-content: center; }
.memleak .fine { --of: var(--LOW); } .memleak .alarm { --of: var(--HIGH); } .memleak .unknown { --of: var(--faint); }
.memleak .alarm .dot { background: var(--of); color: light-dark(#fff, #16191d); }
.memleak .lights details p { margin: .2rem 0 .4rem 1.95rem; color: var(--faint); font-size: .9rem; }
.memleak pre { background: var(--soft); border-radius: .3rem; padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap; }
.memleak .numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .7rem; }
.memleak .numbers div { background: var(--soft); border-radius: .3rem; padding: .6rem .8rem; display: flex; flex-direction: column; overflow-wrap: anywhere; }
.memleak .numbers b { font-size: 1.1rem; }
@media (max-width: 40rem) { .memleak dt { float: none; width: auto; } .memleak dd { margin-left: 0; } }
"""
_ENVIRONMENT = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
_ENVIRONMENT.filters["typeset"] = words.typeset
VERDICT = """<section class="verdict {{ grade }}" aria-label="verdict"><strong>{{ state }}</strong>
{%- if risk %}<span>{{ risk }}</span>{% endif %}<p>{{ sentence|typeset }}</p>{% for more in notes %}<p class="faint">{{ more|typeset }}</p>{% endfor %}</section>"""
FACTS = """<dl>{% for fact in facts %}<dt>{{ fact.name }}</dt><dd>{{ fact.words|typeset }}
{%- if fact.more %}<details><summary class="faint">more</summary><span class="faint">{{ fact.more|typeset }}</span></details>{% endif %}</dd>{% endfor %}</dl>"""
LIGHTS = """<ul class="lights">{% for light in lights %}<li class="{{ light.state }}"><details><summary>
<span class="dot" aria-hidden="true">{{ marks[light.state] }}</span><span><b>{{ light.name }}</b>
<span class="faint">({{ words[light.state] }})</span> {{ light.says|typeset }}</span></summary><p>{{ light.detail|typeset }}</p></details></li>{% endfor %}</ul>"""
ACTIONS = """<ol>{% for action in actions %}<li><b>{{ action.title }}</b><br>{{ action.because|typeset }}<br><span class="faint">{{ action.effect|typeset }}</span>
{%- if action.command %}<pre><code>{{ action.command }}</code></pre>{% endif %}</li>{% endfor %}</ol>"""
_WORDS = {"fine": "fine", "alarm": "ALARM", "unknown": "not known"}


def icon() -> Image.Image:
    """The mark of the browser's tab, drawn here: icons by name would be asked of another machine."""
    across, down = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2)
    far = np.hypot(across, down)
    picture = np.zeros((64, 64, 4), dtype=np.uint8)
    for inside, colour in ((far < 0.95, (43, 92, 138, 255)), (far < 0.62, (255, 255, 255, 255)), (far < 0.34, (209, 98, 43, 255))):
        picture[inside] = colour
    return Image.fromarray(picture)


def sheet() -> None:
    """The colours and shapes of all pieces; written once a page."""
    st.html(f"<style>{SHEET}</style>")


def html_of(template: str, **shown: Any) -> Markup:
    """A piece of a page; whatever is shown in it is escaped."""
    return Markup(f'<div class="memleak">{_ENVIRONMENT.from_string(template).render(**shown)}</div>')


def verdict(state: str, sentence: str, grade: str, risk: str = "", notes: Sequence[str] = ()) -> None:
    """What was found, in the colour of its grade."""
    st.html(html_of(VERDICT, state=state, sentence=sentence, grade=grade if grade in GRADES else "UNDECIDED", risk=risk, notes=notes))


def facts(found: Sequence[Fact]) -> None:
    """What was attacked, by whom, at what cost."""
    st.html(html_of(FACTS, facts=found))


def lights(found: Sequence[Light]) -> None:
    """The controls: a mark, a word and a colour each, with the whole sentence behind it."""
    st.html(html_of(LIGHTS, lights=found, marks=MARKS, words=_WORDS))


def actions(found: Sequence[Action]) -> None:
    """What to do next, and the command that shows whether it helped."""
    st.html(html_of(ACTIONS, actions=found))


def plain(text: Any) -> str:
    """Text from data for a place that reads Markdown, such as a heading or a label: nothing in it means anything."""
    one_line = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|~$:" else letter for letter in one_line)


def notes(found: Sequence[str]) -> None:
    """Sentences, one below the other."""
    st.html(html_of('<ul>{% for note in notes %}<li class="faint">{{ note|typeset }}</li>{% endfor %}</ul>', notes=found))
