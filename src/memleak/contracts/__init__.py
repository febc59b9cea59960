"""What a plug-in of the user's must hold, tested law by law on data made up for it: `memleak check`.

Ours are held to the same laws in our own tests. A law that is kept on a small world may still be broken on a larger
one; a law that is broken here makes an audit's figures wrong.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What became of one law: kept; broken, so that no audit can be trusted; or doubtful, which may be meant."""

    law: str
    state: Literal["kept", "broken", "doubtful"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state:8} {self.law}{': ' if self.why else ''}{self.why}"


def judged(law: str, test: Callable[[], str], fault: Literal["broken", "doubtful"] = "broken") -> Finding:
    """A law's finding. The test says why the law is not kept, or ''; what it raises breaks the law."""
    try:
        why = test()
    except Exception as error:  # it is the user's code: whatever goes wrong in it is a finding
        if type(error).__module__.startswith("memleak."):  # a sentence of ours, or one that uses our words
            return Finding(law, "broken", str(error))
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(law, "broken", f"{type(error).__name__}: {str(error).partition(chr(10))[0]} ({place.filename}, line {place.lineno})")
    return Finding(law, fault if why else "kept", why)


def told(findings: Iterator[Finding], name: str) -> str:
    """Print each finding when it is there. Raises ValueError, which the command line turns into exit code 1, where a law is broken."""
    states = []
    for finding in findings:
        print(finding, flush=True)
        states.append(finding.state)
    if "broken" in states:
        raise ValueError(f"{name} breaks {states.count('broken')} of {len(states)} laws; mend it before it is used in an audit")
    return f"{name} breaks no law" + (f"; look at the {states.count('doubtful')} doubtful" if "doubtful" in states else "")
