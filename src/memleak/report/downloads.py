"""Under every table of a page a link to the same as CSV: one column a number, so that no cell has to be taken apart again."""

from __future__ import annotations

import base64
import csv
import html as entities
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from memleak import artefacts
from memleak.report import blocks

_PART = re.compile(r'<(h[1-4]|summary)\b[^>]*>(.*?)</\1>|<div class="table[^"]*">\s*(<table\b.*?</table>)\s*</div>', re.DOTALL)
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
_ALONE = re.compile(rf"(?P<below><\s*)?(?P<value>{_NUMBER})\s*(?P<unit>%|s)?")
_ESTIMATE = re.compile(rf"(?P<value>{_NUMBER})\s*(?P<unit>%|s)?\s*\[(?P<low>{_NUMBER}),\s*(?P<high>{_NUMBER})\][,;]?\s*(?P<more>.*)", re.DOTALL)
_COUNT = re.compile(rf"(?P<count>{_NUMBER}) FP(?:, (?P<more>.*))?")
_INTERVAL_IN_NAME = re.compile(r"\s*\[[^\]]*interval[^\]]*\]")
_PLAIN = {ord(odd): plain for odd, plain in zip("\N{MINUS SIGN}\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}", "-   ", strict=True)}
_UNITS = {"%": " (percent)", "s": " (seconds)", "": ""}


@dataclass(frozen=True)
class _Entry:
    """What a cell says: a number with its interval and what is remarked on it, or words alone (`value` is then empty)."""

    words: str = ""
    value: str = ""
    unit: str = ""
    low: str = ""
    high: str = ""
    remark: str = ""
    is_aside: bool = False  # words where a number would stand: n/a, nothing, or grey ones


def linked(html: str, stem: str) -> str:
    """The page with a CSV link under every table; `stem` begins the files' names, the heading above the table ends them."""
    given: dict[str, int] = {}
    heading = "table"

    def with_link(found: re.Match[str]) -> str:
        nonlocal heading
        _, title, table = found.groups()
        if table is None:
            heading = blocks.plain(title) or heading
            return found[0]
        name = slug(f"{stem}-{heading}")
        given[name] = given.get(name, 0) + 1
        return found[0] + _link(name if given[name] == 1 else f"{name}-{given[name]}", heading, to_csv(table))

    return _PART.sub(with_link, html)


def _link(name: str, heading: str, content: str) -> str:
    # with the byte-order mark Excel reads UTF-8 as UTF-8, and pandas and R pass over it
    data = base64.b64encode(content.encode("utf-8-sig")).decode("ascii")
    label = entities.escape(f"CSV of the table under {heading}")
    return f'\n<p class="download"><a download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{data}" aria-label="{label}">CSV</a></p>'


def slug(words: str) -> str:
    """Words as part of a file's name: a-z, 0-9 and hyphens, at most 80."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:80].strip("-") or "table"


def to_csv(table: str) -> str:
    """A table of a page as CSV.

    `6.8 % [5.9, 7.8]` under TPR becomes three columns, `TPR (percent)`, `TPR low (percent)` and `TPR high (percent)`; what
    else the cell says (448 FP, cannot certify) goes into `TPR remark`. Numbers are plain: no thousands' commas, no
    typographic minus. Words that a spreadsheet would take for a formula get an apostrophe before them.
    """
    grid = _grid(blocks.table(blocks.tree(table)))
    n_head = next((i for i, row in enumerate(grid) if not all(cell is None or cell.is_head for cell in row)), len(grid))
    names = _distinct([_name(cells[:n_head]) or f"column {at}" for at, cells in enumerate(zip(*grid, strict=True), 1)])
    columns: list[tuple[str, list[str]]] = []
    for name, cells in zip(names, zip(*grid, strict=True), strict=True):
        columns += _columns(name, [_entry(cell) for cell in cells[n_head:]], is_first=name == names[0])
    file = io.StringIO()
    csv.writer(file).writerows([_safe(one) for one in row] for row in zip(*([name, *values] for name, values in columns), strict=True))
    return file.getvalue()


def _grid(rows: Sequence[Sequence[blocks.Cell]]) -> list[list[blocks.Cell | None]]:
    """Rows of equal length: a wide heading stands above each of its columns, a wide cell in its first, a tall one in each of its rows."""
    grid: list[list[blocks.Cell | None]] = [[] for _ in rows]
    taken: set[tuple[int, int]] = set()
    for i, row in enumerate(rows):
        for cell in row:
            while (i, len(grid[i])) in taken:
                grid[i].append(grid[i - 1][len(grid[i])])
            at = len(grid[i])
            taken |= {(i + down, at + right) for down in range(1, cell.rows) for right in range(cell.columns)}
            grid[i] += [cell, *[cell if cell.is_head else None] * (cell.columns - 1)]
        while (i, len(grid[i])) in taken:
            grid[i].append(grid[i - 1][len(grid[i])])
    width = max((len(row) for row in grid), default=0)
    return [row + [None] * (width - len(row)) for row in grid]


def _name(cells: Sequence[blocks.Cell | None]) -> str:
    """The name of a column: what stands above it, once."""
    words = dict.fromkeys(word for cell in cells if cell for word in cell.words)
    return _INTERVAL_IN_NAME.sub("", " ".join(words).translate(_PLAIN))


def _entry(cell: blocks.Cell | None) -> _Entry:
    words = [word.translate(_PLAIN).strip() for word in cell.words] if cell else []
    if not cell or not words or words[0] == "n/a":
        return _Entry(remark="; ".join(words[1:]), is_aside=True)
    if found := _ESTIMATE.fullmatch(" ".join(words)):
        return _Entry(" ".join(words), _bare(found["value"]), found["unit"] or "", _bare(found["low"]), _bare(found["high"]), found["more"])
    if found := _ALONE.fullmatch(words[0]):
        remarks = [*(["less than this"] if found["below"] else []), *words[1:]]
        return _Entry("; ".join(words), _bare(found["value"]), found["unit"] or "", remark="; ".join(remarks))
    return _Entry(words[0], remark="; ".join(words[1:]), is_aside=cell.columns > 1 or cell.mark == "no")


def _bare(number: str) -> str:
    return number.replace(",", "").removeprefix("+")


def _columns(name: str, entries: Sequence[_Entry], is_first: bool) -> list[tuple[str, list[str]]]:
    """The columns that one column of a table becomes; of those beside its values only the ones that hold anything."""
    has_interval = any(one.low for one in entries)
    units = {one.unit for one in entries if one.value}
    if len(units) != 1 or not (has_interval or all(one.value or one.is_aside for one in entries)):
        words = [one.words for one in entries]
        found = [(name, _filled(words) if is_first else words), (f"{name} remark", ["" if one.value else one.remark for one in entries])]
    else:
        unit = _UNITS[units.pop()]
        found = [(f"{name}{unit}", [one.value for one in entries])]
        found += [(f"{name} {end}{unit}", [getattr(one, end) for one in entries]) for end in ("low", "high")]
        remarks = [one.remark if one.value else "; ".join(filter(None, (one.words, one.remark))) for one in entries]
        counted = [_COUNT.fullmatch(remark) for remark in remarks]
        found.append((f"{name} false positives", [_bare(count["count"]) if count else "" for count in counted]))
        found.append((f"{name} remark", [count["more"] or "" if count else remark for count, remark in zip(counted, remarks, strict=True)]))
    return [found[0], *(column for column in found[1:] if any(column[1]))]


def _filled(words: Sequence[str]) -> list[str]:
    """Names, each repeated where the page leaves it out because it stands above."""
    found: list[str] = []
    for word in words:
        found.append(word or (found[-1] if found else ""))
    return found


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of which none stands twice: the second p is `p (2)`."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return found


def _safe(text: str) -> str:
    """Text that a spreadsheet takes for text, or a number."""
    return text if re.fullmatch(_NUMBER, text) else str(artefacts.harmless(text))
