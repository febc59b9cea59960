"""What the params.yaml of a project asks for, read in a process of its own, which runs none of the project's code.

Paths in params.yaml begin at its folder, and the current folder is that of all threads of the window; a file made to be endless ends this
process alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import memleak
from memleak.params import ParamsError
from memleak.report.results import Asked, AskedAudit

PATIENCE = 30.0  # seconds; a large project takes three
MEMORY = 4 * 2**30  # bytes


def asked_of(directory: Path) -> Asked | None:
    """What params.yaml asks for; None without that file. Raises ParamsError where it cannot be read, or names code of its own."""
    if not (directory / "params.yaml").is_file():
        return None
    command = [sys.executable, "-P", "-m", "memleak.app.asks", str(directory.resolve())]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment(), timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise ParamsError(f"params.yaml: it takes longer than {PATIENCE:.0f} seconds to read; ask for less in it") from None
    if run.returncode != 0:
        said = run.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ParamsError(said[-1] if said else "params.yaml: its reading was ended from outside; it may take too much memory")
    found = json.loads(run.stdout)
    return Asked({name: AskedAudit(**one) for name, one in found["audits"].items()}, found["sweeps"], found["logs"])


def _environment() -> dict[str, str]:
    """This process's own, with this memleak before any other; of Python's paths none begins at the project's folder."""
    paths = [str(Path(memleak.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths if path), "MEMLEAK_RUNS_NO_CODE": "1"}


def main(directory: str) -> int:
    """Read it and write it to standard output as JSON; else the reason in one line."""
    from memleak.report import results

    with contextlib.suppress(ImportError, ValueError, OSError):  # where the system knows no such bound
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(directory)
    try:
        asked = results.asked_of(Path(directory))
        print(json.dumps(asked and dataclasses.asdict(asked)))
    except MemoryError:
        print("params.yaml: it takes too much memory to read; ask for less in it", file=sys.stderr)
    except (ValueError, OSError, RuntimeError, LookupError, TypeError, AttributeError) as error:  # whatever an untrusted file can lead to
        print(" ".join(str(error).split()) or "params.yaml cannot be read", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
