"""Figures as parts of a page: one drawing a panel, which a phone shows below each other, in colours that a page may change.

`figures.save` leaves a mark on each panel, the box that it takes; here the one file is cut along these boxes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup, escape

from memleak.artefacts import ArtefactError

COLOURS = {  # what figures are drawn in, and the variable of figures.css by which a page draws it in the dark
    "ink": "#222222", "paper": "#ffffff", "grey": "#5c6570", "mild": "#7d8590", "faint": "#b8bec8",
    "in": "#d1622b", "out": "#4c6a92", "alarm": "#b3261e", "effect": "#b26a00",
    "blue": "#0072b2", "green": "#009e73", "pink": "#cc79a7", "violet": "#4b2e83", "stone": "#666666", "earth": "#8c6d1f",
}  # fmt: skip
_VARIABLES = {colour: f"var(--figure-{name}, {colour})" for name, colour in COLOURS.items()}
_PAINT = frozenset({"fill", "stroke"})
_ACTIVE = frozenset({"script", "foreignObject", "iframe", "a", "animate", "set", "handler", "style"})  # of drawings; ours have none
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+(?=\))")
_MARK = re.compile(r"panel-(\d+)-\d+-([\d.]+)-([\d.]+)-([\d.]+)-([\d.]+)")
Box = tuple[float, float, float, float]  # left, top, right, bottom


def mark(panel: int, part: int, box: Box) -> str:
    """The id by which a part of a panel says where in the file the panel lies."""
    return f"panel-{panel}-{part}-" + "-".join(f"{max(edge, 0.0):.2f}" for edge in box)


def figure(svg: str, label: str, only: int | None = None) -> Markup:
    """A file of `figures.save` as part of a page, panel by panel, or its first `only` panels; any other SVG file in one piece.

    `label` says what it shows to those who cannot see it, and no two figures of a page have the same.
    """
    try:
        root = _harmless(_without_namespaces(ElementTree.fromstring(svg)))
    except ElementTree.ParseError as error:
        raise ArtefactError(f"the figure '{label}': damaged, not SVG ({error}); delete the audit's figures and run again") from None
    definitions = {one.attrib["id"]: one for defs in root.iter("defs") for one in defs if "id" in one.attrib}
    panels = _panels(root)[:only]
    prefix = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    drawn = []
    for number, panel in enumerate(panels, start=1):
        place = f", panel {number} of {len(panels)}" if len(panels) > 1 else ""
        drawn.append(_drawing(panel, definitions, label + place, f"{prefix}-{number}-"))
    named = f' role="group" aria-label="{escape(label)}"' if len(drawn) > 1 else ""
    return Markup(f'<div class="panels"{named}>{"".join(drawn)}</div>')


def plain(html: str) -> str:
    """The same with the colours themselves, for readers that know no variables."""
    return re.sub(r"var\(--figure-[a-z]+, (#[0-9a-f]{6})\)", r"\1", html)


@dataclass
class _Panel:
    box: Box
    parts: list[Element]


def _without_namespaces(root: Element) -> Element:
    """The tree by bare names, as a page writes them."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    return root


def _harmless(root: Element) -> Element:
    """The tree without what could run or fetch something: a file of figures may come from anybody, and a page holds it as its own part."""
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag in _ACTIVE]:
            parent.remove(child)
        for key, value in list(parent.attrib.items()):
            if key.startswith("on") or (key == "href" and not value.startswith(("#", "data:image/"))):
                del parent.attrib[key]
    return root


def _panels(root: Element) -> list[_Panel]:
    found: dict[int, _Panel] = {}
    for element in root.iter("g"):
        if marked := _MARK.fullmatch(element.attrib.get("id", "")):
            left, top, right, bottom = (float(edge) for edge in marked.groups()[1:])
            found.setdefault(int(marked[1]), _Panel((left, top, right, bottom), [])).parts.append(element)
    if found:
        return [found[number] for number in sorted(found)]
    left, top, width, height = (float(number) for number in root.attrib.get("viewBox", "0 0 100 100").split())
    return [_Panel((left, top, left + width, top + height), [part for part in root if part.tag not in ("metadata", "defs")])]


def _drawing(panel: _Panel, definitions: dict[str, Element], label: str, prefix: str) -> str:
    """One panel whole in itself, with what it refers to, so that it may stand anywhere."""
    left, top, right, bottom = panel.box
    width, height = right - left, bottom - top
    drawn = Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": label,
        "viewBox": f"{left:.2f} {top:.2f} {width:.2f} {height:.2f}", "style": f"--width: {width:.0f}",
    })  # fmt: skip
    parts = copy.deepcopy(panel.parts)
    for part in parts:
        _drop_definitions(part)
    if used := list(_used(parts, definitions)):
        defs = Element("defs")
        defs.extend(used)
        drawn.append(defs)
    drawn.extend(parts)
    for element in drawn.iter():
        _adapt(element, prefix, {one.attrib["id"] for one in used})
    return ElementTree.tostring(drawn, encoding="unicode", short_empty_elements=False)


def _drop_definitions(part: Element) -> None:
    for parent in list(part.iter()):
        for defs in parent.findall("defs"):
            parent.remove(defs)


def _used(parts: list[Element], definitions: dict[str, Element]) -> Iterator[Element]:
    """Copies of the definitions that are referred to, in the order of the first reference."""
    seen: set[str] = set()
    waiting = list(parts)
    while waiting:
        for element in waiting.pop(0).iter():
            for name in _references(element):
                if name in definitions and name not in seen:
                    seen.add(name)
                    waiting.append(definitions[name])
                    yield copy.deepcopy(definitions[name])


def _references(element: Element) -> list[str]:
    """The ids that an element refers to; the data of pictures, which may be long, are not looked at."""
    link = element.attrib.get("href", "")
    found = [link[1:]] if link.startswith("#") else []
    return found + [name for value in element.attrib.values() if value.startswith("url(#") for name in _REFERENCE.findall(value)]


def _adapt(element: Element, prefix: str, known: set[str]) -> None:
    """Ids that no other figure of the page has, colours as variables, the page's own letters, and no white space between the lines."""
    attributes = element.attrib
    if (name := attributes.pop("id", None)) in known:
        attributes["id"] = f"{prefix}{name}"
    for key, value in attributes.items():
        if key == "href" and value.startswith("#"):
            attributes[key] = f"#{prefix}{value[1:]}"
        elif value.startswith("url(#"):
            attributes[key] = value.replace("url(#", f"url(#{prefix}")
        elif key == "style":
            attributes[key] = "; ".join(_declaration(one) for one in value.split("; "))
    element.text, element.tail = (words if words and words.strip() else None for words in (element.text, element.tail))


def _declaration(written: str) -> str:
    name, _, value = written.partition(": ")
    if name in _PAINT:
        return f"{name}: {_VARIABLES.get(value, value)}"
    return "font-family: inherit" if name == "font-family" else written
