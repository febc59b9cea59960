"""Numbers in the words of the pages: percent, intervals, p-values, durations. What only pools need stands in `pool`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_UNITS = ((86_400, "day", 2), (3_600, "hour", 1.5), (60, "minute", 1.5))  # seconds, name, how many of it before it is used


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def rate(found: dict[str, Any] | None) -> str:
    """`88 % [62, 98], 14 of 16`."""
    if not found:
        return "no hold-out rounds"
    counted = f", {found['k']} of {found['n']}" if isinstance(found["k"], int) else f", n = {found['n']} rounds"
    return f"{percent(found['value'])} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]{counted}"


def p(value: float) -> str:
    return "<\N{NO-BREAK SPACE}0.0001" if value < 0.0001 else f"{value:.4f}"


def p_short(value: float) -> str:
    """`p 0.62`, for a line of a few words; no line ends within."""
    return ("p < 0.0001" if value < 0.0001 else f"p {value:.2g}" if value < 0.1 else f"p {value:.2f}").replace(" ", "\N{NO-BREAK SPACE}")


def score(value: float, high: float) -> str:
    """An end of a risk score, 0 to 100; with a decimal where the whole interval, up to `high`, is low and the limits of a grade are near."""
    return f"{value:.1f}" if high < 20 and value else f"{value:.0f}"


def risk(value: float, low: float, high: float) -> str:
    """`5.7 of 100 [4.3, 7.3]`: a risk score with its interval."""
    return f"{score(value, high)} of 100 [{score(low, high)}, {score(high, high)}]"


def number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def estimate(found: dict[str, Any] | None, digits: int = 3) -> str:
    """`0.640 [0.631, 0.649]`; a value alone where there is no interval."""
    if not found or found["value"] is None:
        return "n/a"
    value = number(found["value"], digits)
    return value if found["low"] is None else f"{value} [{number(found['low'], digits)}, {number(found['high'], digits)}]"


def rounds(value: int | None) -> str:
    return "more than 100,000" if value is None else f"{value:,}"


def counted(n: int, noun: str) -> str:
    """`1 model`, `1,200 models`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """`43 seconds`, `3 minutes`, `2.5 hours`."""
    for size, noun, least in _UNITS:
        if seconds >= least * size:
            amount = seconds / size
            return f"{amount:.1f} {noun}s" if amount < 10 and noun != "minute" else f"{amount:.0f} {noun}s"
    return "less than a second" if seconds < 1 else counted(round(seconds), "second")


def region(intervals: Sequence[Sequence[float | None]], signal: str) -> str:
    """The rule in words, in the units of the signal itself."""
    if not intervals:
        return "never: too few rounds for this alpha"
    parts = []
    for low, high in intervals:
        if signal == "loss":
            low, high = (None if high is None else -high), (None if low is None else -low)
        if low is None:
            parts.append("always" if high is None else f"{signal} < {high:.3g}")
        else:
            parts.append(f"{signal} > {low:.3g}" if high is None else f"{low:.3g} < {signal} < {high:.3g}")
    return " or ".join(parts)


def unbroken(words: Callable[..., str]) -> Callable[..., str]:
    """The same words, but no line ends between a number and its percent sign."""
    return lambda *given: words(*given).replace(" %", "\N{NO-BREAK SPACE}%")


def typeset(words: str) -> str:
    """Words with minus signs before numbers, and no line that ends before a percent sign."""
    signed = re.sub(r"(?<![\w.\]-])-(?=\d)", "\N{MINUS SIGN}", words).replace("TPR - FPR", "TPR\N{NO-BREAK SPACE}\N{MINUS SIGN}\N{NO-BREAK SPACE}FPR")
    return re.sub(r"(?<=\d) ?%", "\N{NO-BREAK SPACE}%", signed)
