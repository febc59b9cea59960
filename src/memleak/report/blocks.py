"""A page of ours as a list of plain blocks: what a person reads on it, without how a browser draws it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
SKIPPED_TAGS = {"head", "style", "script", "nav", "template", "button"}
SKIPPED_CLASSES = {"download", "skip", "contents", "screen", "riskbar", "bar", "links"}  # serve a screen alone; a verdict has its risk as numbers
MOST = 1000  # columns and rows that a cell spans
MARKS = ("exposed", "alarm", "helps", "effect", "no", "fine", "unknown", "HIGH", "MEDIUM", "LOW", "UNDECIDED")  # classes that colour words
STYLES = {"strong": "strong", "b": "strong", "em": "em", "i": "em", "code": "code", "kbd": "code", "small": "small"}
_SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_STATES = ("HIGH", "MEDIUM", "LOW", "UNDECIDED")
_BESIDE = frozenset(  # stand within a line
    {"a", "abbr", "b", "bdi", "br", "cite", "code", "em", "i", "kbd", "q", "s", "small", "span", "strong", "sub", "sup", "time", "u", "var"}
)
_ZONE = re.compile(r"left: ([\d.]+)%; width: ([\d.]+)%")
_SPACE = re.compile(r"[ \t\r\n\f]+")  # not the no-break space


@dataclass(frozen=True)
class Run:
    """Words of one look: style is strong, em, code or small, mark a class that colours them; either may be empty."""

    text: str
    style: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its lines, how many columns and rows it fills, whether it names others, and the class that colours it."""

    lines: tuple[tuple[Run, ...], ...]
    columns: int = 1
    rows: int = 1
    is_head: bool = False
    mark: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The lines as text, without empty ones."""
        return tuple(text for text in (text_of(line) for line in self.lines) if text)


@dataclass(frozen=True)
class Block:
    """A part of a page.

    kind: title, heading (`level` 2 to 4), paragraph, note, code, table, figure (its caption as runs), details (what it is
    about as runs; `mark` more where that only says that there is more), term (what stands after it explains it), verdict (its state as `mark`; where it has them its risk, low
    and high, 0 to 100, and the `zones` of that scale), or list (`mark`: lights, actions, facts or numbered, where it is
    one of these) of blocks of kind item. `parts` are the blocks within it.
    """

    kind: str
    runs: tuple[Run, ...] = ()
    level: int = 0
    mark: str = ""
    parts: tuple[Block, ...] = ()
    cells: tuple[tuple[Cell, ...], ...] = ()
    svgs: tuple[str, ...] = ()
    risk: tuple[float, ...] = ()
    zones: tuple[tuple[str, float, float], ...] = ()  # grade, from, to

    @property
    def text(self) -> str:
        """Its own words."""
        return text_of(self.runs)


@dataclass
class Node:
    """An element: its tag, classes, and what it holds."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def elements(self, *tags: str) -> Iterator[Node]:
        """The elements of some tags below this one, in reading order."""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag in tags:
                    yield child
                yield from child.elements(*tags)


class _Tree(HTMLParser):
    """HTML as a tree. An end tag closes what was left open within its element; one without a beginning is passed over."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("page")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self.open) - 1, 0, -1):
            if self.open[depth].tag == tag:
                del self.open[depth:]
                return

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def of(html: str) -> list[Block]:
    """A page as blocks, in reading order. Navigation, download links, scripts and styles are left out, tags it does not know passed through."""
    svgs: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        svgs.append(found[0])
        return f'<svg data-number="{len(svgs) - 1}"></svg>'

    return list(_Walk(svgs).blocks(tree(_SVG.sub(put_aside, html))))


class _Walk:
    """From elements to blocks; drawings are those of `svgs`, by number."""

    def __init__(self, svgs: list[str]) -> None:
        self.svgs = svgs

    def blocks(self, element: Node) -> Iterator[Block]:
        """What an element holds; words that stand free in it become a paragraph."""
        free = Node("p")
        for child in element.children:
            if isinstance(child, str) or child.tag in _BESIDE:
                free.children.append(child)
                continue
            yield from self._free(free)
            free = Node("p")
            if not _is_skipped(child):
                yield from self._block(child)
        yield from self._free(free)

    def _free(self, element: Node) -> Iterator[Block]:
        if runs := _line(element):
            yield Block("paragraph", runs)

    def _block(self, element: Node) -> Iterator[Block]:
        tag, mark = element.tag, _mark(element)
        if tag == "h1":
            yield Block("title", _line(element), 1)
        elif re.fullmatch("h[2-6]", tag):
            yield Block("heading", _line(element), int(tag[1]))
        elif tag == "p":
            yield from self._paragraph(element)
        elif tag == "pre":
            yield Block("code", (Run(_raw(element).strip("\n")),))
        elif tag in ("ul", "ol", "dl"):
            yield Block("list", parts=tuple(self._items(element)), mark=_list_mark(element))
        elif tag == "table":
            yield Block("table", cells=table(element), mark="dense" if "dense" in element.classes else "")
        elif tag in ("figure", "svg"):
            yield self._figure(element)
        elif tag == "details":
            yield self._details(element)
        elif "verdict" in element.classes:
            yield self._verdict(element)
        else:
            parts = self.blocks(element)
            yield from (replace(one, mark=one.mark or mark) for one in parts) if mark else parts

    def _paragraph(self, element: Node) -> Iterator[Block]:
        if runs := _line(element):
            yield Block("note" if {"note", "small"} & element.classes else "paragraph", runs, mark=_mark(element))

    def _items(self, element: Node) -> Iterator[Block]:
        for child in element.children:
            if isinstance(child, str) or _is_skipped(child):
                continue
            if child.tag == "div":  # a term and what explains it, kept together
                yield from self._items(child)
            else:
                yield Block("term" if child.tag == "dt" else "item", mark=_mark(child), parts=tuple(self.blocks(child)))

    def _details(self, element: Node) -> Block:
        summary = next((one for one in element.children if isinstance(one, Node) and one.tag == "summary"), Node("summary"))
        first, *others = _lines(summary) or ((),)
        within = Node("div", children=[one for one in element.children if one is not summary])
        parts = (*(Block("paragraph", line) for line in others), *self.blocks(within))
        return Block("details", first, mark="more" if "more" in element.classes else "", parts=parts)

    def _verdict(self, element: Node) -> Block:
        state = next((state for state in _STATES if state in element.classes), "")
        risk = tuple(float(element.attributes[name]) for name in ("data-risk", "data-low", "data-high") if name in element.attributes)
        zones = tuple(
            (_mark(one), float(found[1]), float(found[1]) + float(found[2]))
            for one in element.elements("span")
            if "zone" in one.classes and (found := _ZONE.search(one.attributes.get("style", "")))
        )
        return Block("verdict", mark=state, parts=tuple(self.blocks(element)), risk=risk if len(risk) == 3 else (), zones=zones)

    def _figure(self, element: Node) -> Block:
        caption = next(element.elements("figcaption"), Node("figcaption"))
        drawings = [element] if element.tag == "svg" else element.elements("svg")
        return Block("figure", _line(caption), svgs=tuple(self.svgs[int(one.attributes["data-number"])] for one in drawings))


def _list_mark(element: Node) -> str:
    named = next((name for name in ("lights", "actions", "facts") if name in element.classes), "")
    return named or {"ol": "numbered", "dl": "facts"}.get(element.tag, "")


def _raw(element: Node) -> str:
    return "".join(child if isinstance(child, str) else _raw(child) for child in element.children)


def tree(html: str) -> Node:
    """The elements of a page or of a part of one."""
    parser = _Tree()
    parser.feed(html)
    parser.close()
    return parser.root


def text_of(runs: tuple[Run, ...]) -> str:
    """Runs as one text."""
    return "".join(run.text for run in runs)


def plain(html: str) -> str:
    """The words of a part of a page, in one line."""
    return text_of(_line(tree(html)))


def table(element: Node) -> tuple[tuple[Cell, ...], ...]:
    """The rows of a table."""
    rows = (tuple(_cell(one) for one in row.children if isinstance(one, Node) and one.tag in ("td", "th")) for row in element.elements("tr"))
    return tuple(row for row in rows if row)


def _cell(element: Node) -> Cell:
    columns, rows = (min(int(found[:6]), MOST) if (found := element.attributes.get(name, "1")).isdecimal() else 1 for name in ("colspan", "rowspan"))
    return Cell(_lines(element), max(columns, 1), max(rows, 1), element.tag == "th", _mark(element))


def _mark(element: Node) -> str:
    """The first of the classes that colour words."""
    return next((mark for mark in MARKS if mark in element.classes), "")


def _lines(element: Node) -> tuple[tuple[Run, ...], ...]:
    """What an element says, a line wherever one begins."""
    lines: list[list[Run]] = [[]]
    for run in _runs(element):
        if run.text == "\n":
            lines.append([])
        else:
            lines[-1].append(run)
    return tuple(tidy for line in lines if (tidy := _tidy(line)))


def _line(element: Node) -> tuple[Run, ...]:
    """What an element says in one line."""
    return _tidy([Run(" ") if run.text == "\n" else run for run in _runs(element)])


def _runs(element: Node, style: str = "", mark: str = "") -> Iterator[Run]:
    """The words of an element; a run that is a line feed alone begins a line."""
    for child in element.children:
        if isinstance(child, str):
            yield Run(_SPACE.sub(" ", child), style, mark)
        elif child.tag == "br":
            yield Run("\n")
        elif not _is_skipped(child):
            begins_line = child.tag in ("p", "div", "li", "dt", "dd")
            if begins_line:
                yield Run("\n")
            small = "small" if {"small", "note", "range"} & child.classes else ""
            yield from _runs(child, STYLES.get(child.tag, small or style), _mark(child) or mark)
            if begins_line:
                yield Run("\n")


def _tidy(runs: list[Run]) -> tuple[Run, ...]:
    """Runs without white space at either end, or twice in a row."""
    found: list[Run] = []
    for run in runs:
        text = run.text.lstrip(" ") if not found or found[-1].text.endswith(" ") else run.text
        if text and found and (found[-1].style, found[-1].mark) == (run.style, run.mark):
            found[-1] = Run(found[-1].text + text, run.style, run.mark)
        elif text:
            found.append(Run(text, run.style, run.mark))
    while found and not (end := found[-1].text.rstrip(" ")):
        found.pop()
    return (*found[:-1], Run(end, found[-1].style, found[-1].mark)) if found else ()


def _is_skipped(element: Node) -> bool:
    return element.tag in SKIPPED_TAGS or bool(SKIPPED_CLASSES & element.classes) or element.attributes.get("aria-hidden") == "true"
