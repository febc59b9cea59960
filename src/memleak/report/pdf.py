"""A page of ours as a PDF to print, sign and file: the same words, numbers and figures, typeset. The browser has no part in it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from memleak import artefacts
from memleak.report import blocks
from memleak.report.blocks import Block

INK = "#1d2126"
LETTERS = 170  # of a table on an upright sheet; a wider one has the sheet turned
STRIPS = 125  # letters of tables side by side
ROW_WIDTH = 760.0  # of panels side by side, in their own points: beyond it their letters would be too small on paper
_LONG = re.compile(r"(\S{32})(?=\S)")  # of words without an end: there a line may break, or they would run off the paper
_LONG_CODE = re.compile(r"(\S{96})(?=\S)")
_OURS = re.compile(r'<title>[^<]*\bmemleak\b[^<]*</title>|<meta name="generator" content="memleak')
_VERSION = re.compile(r"\bmemleak (\d[\w.+-]*)")
_VARIABLE = re.compile(r"var\(\s*(--[\w-]+)\s*(?:,\s*([^()]*?)\s*)?\)")
_DEFINED = re.compile(r"(--[\w-]+)\s*:\s*([^;{}]+)")


class PageError(ValueError):
    """A page that is missing, truncated or not ours; the text says what to do."""


def write(page: Path, output: Path) -> None:
    """Typeset a page that memleak wrote. The same page makes the same bytes."""
    import typst

    html = _read(page)
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = typst.compile(prepare(html, Path(folder)), root=Path(folder), font_paths=_fonts(), ignore_system_fonts=True, format="pdf")
        except RuntimeError as error:
            raise PageError(f"{page}: cannot be typeset ({str(error).splitlines()[0]}); make the page again, then its PDF") from None
        except OSError as error:
            raise PageError(
                f"{page}: cannot be typeset, {folder} cannot be written ({error.strerror}); free some space there, or set TMPDIR"
            ) from None
    with artefacts.atomic(output) as temporary:
        temporary.write_bytes(made)


def prepare(html: str, room: Path) -> Path:
    """Write into a folder what the typesetter reads: the template, the page's words as JSON, its figures; returns the template's path.

    No word of a page becomes part of the template, so that none is ever read as markup.
    """
    found = [one for one in blocks.of(html) if not _is_frame(one)]
    versions = _VERSION.findall(html[-2000:])
    content = {"title": _title(html), "version": versions[-1] if versions else "", "blocks": _turned([*_placed(found, room, _light_colours(html))])}
    (room / "page.json").write_text(json.dumps(content), encoding="utf-8")
    template = room / "report.typ"
    template.write_bytes(files("memleak.report").joinpath("report.typ").read_bytes())
    return template


def _read(page: Path) -> str:
    if page.suffix == ".pdf":
        raise PageError(f"{page}: is a PDF already; name the page it is made from, such as report.html")
    try:
        html = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PageError(f"{page}: missing; run the workflow to make it, or name a page such as results/audits/NAME/report.html") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise PageError(f"{page}: cannot be read as a page ({error}); name a report.html of memleak") from None
    if not _OURS.search(html):
        raise PageError(f"{page}: not a page of memleak; name a report.html, frontier.html or index.html that it wrote")
    if not html.rstrip().endswith("</html>"):
        raise PageError(f"{page}: truncated, its end is missing; delete it and run the workflow again")
    return html


def _title(html: str) -> str:
    found = re.search(r"<title>(.*?)</title>", html, re.DOTALL)
    return blocks.plain(found[1]) if found else "memleak"


def _is_frame(block: Block) -> bool:
    """Whether a block only leads elsewhere, or says who made the page, which stands at the foot of every sheet of paper."""
    return block.kind in ("note", "paragraph") and (block.text == "All audits" or bool(_VERSION.fullmatch(block.text)))


def _fonts() -> list[Path]:
    """Matplotlib's letters, which figures are drawn with and which know more scripts than those that come with typst."""
    found = importlib.util.find_spec("matplotlib")
    return [Path(place) / "mpl-data" / "fonts" / "ttf" for place in (found.submodule_search_locations if found else None) or []]


def _light_colours(html: str) -> dict[str, str]:
    """What a page's colours are called and are in the light: the first definition of each, for the dark ones stand below."""
    found: dict[str, str] = {}
    for style in re.findall(r"<style>(.*?)</style>", html, re.DOTALL):
        for name, value in _DEFINED.findall(style):
            found.setdefault(name, value.strip())
    return found


def _placed(found: Sequence[Block], room: Path, colours: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Blocks as the template reads them; their figures are written beside it."""
    for block in found:
        placed = {key: value for key, value in dataclasses.asdict(block).items() if value and key not in ("parts", "svgs")}
        for run in (*placed.get("runs", ()), *(run for row in placed.get("cells", ()) for cell in row for line in cell["lines"] for run in line)):
            run["text"] = (_LONG_CODE if block.kind == "code" else _LONG).sub("\\1\N{ZERO WIDTH SPACE}", run["text"])
        placed["parts"] = _turned([*_placed(block.parts, room, colours)])
        if block.kind == "figure":
            placed["rows"] = _rows([_drawing(svg, room, colours) for svg in block.svgs])
        if block.kind == "table":
            placed |= _table(block)
        yield placed


def _drawing(svg: str, room: Path, colours: dict[str, str]) -> dict[str, Any]:
    """Write a figure in plain colours; its file, what it shows in words, and its width in points."""
    path = room / f"figure-{len(list(room.glob('figure-*.svg')))}.svg"
    path.write_text(plain_colours(svg, colours), encoding="utf-8")
    label = re.search(r'aria-label="([^"]*)"', svg)
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) [\d.]+"', svg)
    return {"file": path.name, "alt": blocks.plain(label[1]) if label else "figure", "width": float(box[1]) if box else ROW_WIDTH}


def plain_colours(svg: str, colours: dict[str, str]) -> str:
    """A figure of a page as a file: `var(--x, #abc)` by the page's light colours or by what is written beside, and letters that exist."""
    while (plain := _VARIABLE.sub(lambda found: colours.get(found[1], found[2] or INK), svg)) != svg:
        svg = plain
    svg = svg.replace("currentColor", INK).replace("font-family: inherit", "font-family: 'DejaVu Sans'")
    return svg if "xmlns=" in svg[: svg.index(">")] else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


def _rows(drawings: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Panels in rows, as many side by side as stay legible."""
    rows: list[list[dict[str, Any]]] = []
    for one in drawings:
        if rows and sum(other["width"] for other in rows[-1]) + one["width"] <= ROW_WIDTH:
            rows[-1].append(one)
        else:
            rows.append([one])
    return rows


def _table(block: Block) -> dict[str, Any]:
    """How many columns a table has, how many rows head it, and how wide it is in letters, with a cell's lines below or beside each other.

    A long and narrow one is cut into strips, which stand side by side.
    """
    n_head = next((i for i, row in enumerate(block.cells) if not all(cell.is_head for cell in row)), len(block.cells))
    below: dict[int, int] = {}
    beside = {at: min(len(" ".join(cell.words)), 14) for row in block.cells[:n_head] for at, cell in enumerate(row)}
    for row in block.cells[n_head:]:
        for at, cell in enumerate(row):
            if cell.columns == 1:
                below[at] = max(below.get(at, 4), *(min(len(word), 30) for word in (*cell.words, "")))
                beside[at] = max(beside.get(at, 4), len(" ".join(cell.words)))
    n_columns = max((sum(cell.columns for cell in row) for row in block.cells), default=0)
    wide = sum(beside.values()) + 3 * n_columns  # 3: the space between two
    is_cut = len(block.cells) - n_head > 11 and all(cell.rows == 1 for row in block.cells for cell in row)
    n_strips = max(1, min(3, STRIPS // max(wide, 1))) if is_cut else 1
    return {"columns": n_columns, "head": n_head, "letters": sum(below.values()), "letters_beside": wide, "strips": n_strips}


def _turned(placed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks, each table that is too wide together with what introduces it and its notes on a sheet that is turned."""
    found: list[dict[str, Any]] = []
    for one in placed:
        before: dict[str, Any] = found[-1] if found else {"kind": ""}
        if one["kind"] == "table" and one["letters"] > LETTERS:
            heading = next((at for at in range(len(found) - 1, -1, -1) if found[at]["kind"] not in ("paragraph", "note")), -1)
            begins = heading if heading >= 0 and found[heading]["kind"] == "heading" else len(found)
            found[begins:] = [{"kind": "turned", "parts": [*found[begins:], one]}]
        elif one["kind"] == "note" and before["kind"] == "turned":
            before["parts"].append(one)
        else:
            found.append(one)
    return found
