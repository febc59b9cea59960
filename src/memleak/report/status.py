"""How far the audits of a folder are, in plain text, and why jobs failed; the index of a run that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memleak.report import results

N_SHOWN = 5  # sentences of failed jobs; one cause often fails many
WIDTH = 400  # characters of one of them


def text(directory: Path, is_locked: bool, is_at_work: bool) -> str:
    """A line an audit and sweep, what is wrong, and what to do."""
    known, problem = [*results.audits_of(directory), *results.sweeps_of(directory)], _problem(directory)
    lines = [problem] if problem else []
    if not known:
        lines.append(f"{directory}: no audits here; run snakemake in a folder with a params.yaml, or name one with --directory")
    lines += (
        _table([("audit", "state", "age", "files by stage"), *((one.name, _state(one), _age(one), _stages(one)) for one in known)]) if known else []
    )
    lines += [f"{one.name}: {one.problem}" for one in known if one.problem]
    if is_locked:
        lines += [
            "",
            "a run is at work here"
            if is_at_work
            else "a run was killed here and left its lock: run `memleak unlock`, then snakemake; what is done is kept",
        ]
    return "\n".join([*lines, *_failures(directory)])


def of_failed_run(directory: Path, index: Path) -> str:
    """Write the index of what is finished, with what is not and why; returns why jobs failed, in a few lines."""
    from memleak.report import front, stage

    audits = [_whole(one, front.of) for one in results.audits_of(directory)]
    sweeps = [_whole(one, front.of_sweep) for one in results.sweeps_of(directory)]
    finished, unfinished = [one for one in audits if one.is_finished], [one for one in audits if not one.is_finished]
    done = [one.metrics for one in sweeps if one.is_finished and one.metrics]
    stage.write_index([one.metrics for one in finished if one.metrics], done, [*unfinished, *(one for one in sweeps if not one.is_finished)], index)
    told = f"{len(finished)} of {len(audits)} audits are finished; {index} lists them and what is missing; `memleak status` says more"
    return "\n".join([*_failures(directory), told])


def _whole(found: results.Found, summary: Callable[[dict[str, Any]], Any]) -> results.Found:
    """The same; without metrics that say that they are ours and of which no row of the index can be made, and why."""
    try:
        if found.metrics is not None:
            summary(found.metrics)
    except Exception as error:  # of a damaged file anything can be wrong, and the other audits are to be listed
        why = f"its metrics are damaged ({type(error).__name__}: {str(error)[:WIDTH]}); run snakemake again"
        return replace(found, metrics=None, problem=why)
    return found


def _problem(directory: Path) -> str | None:
    try:
        results.plan_of(directory)
    except ValueError as error:
        return f"params.yaml cannot be read, so nobody knows what should be here: {error}"
    return None


def _stages(found: results.Found) -> str:
    return " ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in found.stages)


def _state(found: results.Found) -> str:
    """In a word, since the files by stage stand beside it; what is wrong stands below the table."""
    if found.problem:
        return "see below"
    return "finished" if found.is_finished else "unfinished"


def _age(found: results.Found) -> str:
    """How long ago its page was written."""
    return ago(time.time() - found.page.stat().st_mtime) if found.page else ""


def ago(seconds: float) -> str:
    """`3 minutes`, `2 hours`, `5 days`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {unit}{'s' if n > 1 else ''}"
    return "now"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _failures(directory: Path) -> list[str]:
    """Why jobs failed when they last ran: each sentence once, with the log of the latest job that said it."""
    found: dict[str, list[results.Failure]] = {}
    for failure in results.failures_of(directory):
        found.setdefault(failure.says, []).append(failure)
    lines = []
    for says, failures in list(found.items())[:N_SHOWN]:
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        lines += [f"{says[:WIDTH]}{' ...' if len(says) > WIDTH else ''}", f"    {failures[0].log}{more}, {ago(time.time() - failures[0].seconds)}"]
    hidden = len(found) - N_SHOWN
    return ["", "Failed jobs:", *lines, *([f"and {hidden} other causes, see logs/"] if hidden > 0 else []), ""] if lines else []
