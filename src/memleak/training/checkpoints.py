"""The state of a training that goes on after a kill: weights, optimiser and place, as one safetensors file.

All draws of a training are functions of its keys, so the place (epoch and step) is all there is of randomness, and
a training that goes on gives the bits of one that was never interrupted. A checkpoint is a convenience: one that
cannot be used or written is named, and training goes on without it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memleak import artefacts
from memleak.artefacts import ArtefactError

VERSION = 2
_PHASE = ".phase-"  # stands between a checkpoint's name and that of a part of its training
_SHOWN = 120  # characters of a fact that are shown: a stack may be of hundreds of models


class _NotUsable(ValueError):
    """A checkpoint that is whole and does not serve; the text says why."""


class Checkpoint:
    """Where a training's state is kept, and how often.

    `facts` say whose state it is (recipe, data, models, engine, device, torch): a file that says otherwise is named
    and left alone, until the state of this training takes its place.
    """

    def __init__(self, path: Path, facts: dict[str, Any], minutes: float) -> None:
        self.path, self.facts, self.seconds = path, facts | {"version": VERSION}, 60 * minutes
        self._last = time.monotonic()
        self._has_failed = False

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self.seconds

    def save(self, tensors: dict[str, torch.Tensor], place: dict[str, Any]) -> None:
        """Write the state, in place of the one before. Numbers in `place` are exact: JSON keeps every digit of a double.

        Where it cannot be written, the one before stays, and the next is tried when it is due.
        """
        # copies: a tensor may have two names, and a file holds no memory twice
        kept = {name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True) for name, tensor in tensors.items()}
        said = {"facts": self.facts, "place": place, "crc32": _crc32(kept, place)}
        try:
            artefacts.make_folder(self.path.parent)
            with artefacts.atomic(self.path) as temporary, self._scratch() as scratch:
                written = Path(scratch) / "state"
                save_file(kept, written, metadata={"memleak": json.dumps(said, sort_keys=True)})
                os.replace(written, temporary)
        except (ArtefactError, SafetensorError) as error:
            if not self._has_failed:
                why = str(error).removeprefix(f"{self.path}: ").partition(";")[0]
                _say(f"no checkpoint: {self.path}: {why}; training goes on, but a kill may cost all of it")
            self._has_failed = True
        self._last = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The state that was kept and where it stood; None where there is none that can be used."""
        self._remove_halves()
        if not self.path.exists():
            return None
        try:
            tensors, place = self._read()
        except _NotUsable as error:
            _say(f"not used: {self.path}: {error}; training begins anew")
            return None
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # the last: another job removed it just now
            _say(f"not used: {self.path}: truncated or not a checkpoint ({error}); training begins anew")
            return None
        return {name: tensor.to(device) for name, tensor in tensors.items()}, place

    def _read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with safe_open(self.path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get("memleak", "{}"))
            if not isinstance(said, dict) or said.keys() != {"facts", "place", "crc32"}:
                raise _NotUsable("not a checkpoint of ours")
            if differing := self._differing(said["facts"]):
                raise _NotUsable(f"a checkpoint of another training ({differing})")
            # copies: the file may be replaced while it is mapped into memory
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if _crc32(tensors, said["place"]) != said["crc32"]:
            raise _NotUsable("its content is not what was written")
        return tensors, said["place"]

    def phase(self, name: str) -> Checkpoint:
        """The checkpoint of a part of this training, such as that of a teacher: a file beside it."""
        facts = {key: value for key, value in self.facts.items() if key != "version"} | {"phase": name}
        return Checkpoint(self.path.with_name(f"{self.path.name}{_PHASE}{name}"), facts, self.seconds / 60)

    def remove(self) -> None:
        remove(self.path)

    def _differing(self, found: dict[str, Any]) -> str:
        """The first fact that is another, and what was expected; empty where all are the same."""
        for key in sorted(self.facts.keys() | found.keys()):
            if found.get(key) != self.facts.get(key):
                return f"{key}: {_short(found.get(key))}, expected {_short(self.facts.get(key))}"
        return ""

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder to write in: safetensors has temporary files of its own, whose names do not tell whose they are."""
        return tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent)

    def _remove_halves(self) -> None:
        """Remove what a kill in the middle of writing left: nothing else would."""
        for half in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp"):
            with contextlib.suppress(OSError):  # somebody else's
                shutil.rmtree(half) if half.is_dir() else half.unlink()


def remove(path: Path) -> None:
    """Remove a checkpoint, and those of its phases."""
    for found in (path, *path.parent.glob(f"{glob.escape(path.name)}{_PHASE}*")):
        found.unlink(missing_ok=True)


def _crc32(tensors: dict[str, torch.Tensor], place: dict[str, Any]) -> int:
    """Checksum of a state on the CPU: a bit that flips on a disk would else be trained on."""
    found = zlib.crc32(json.dumps(place, sort_keys=True).encode())
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, found)
    return found


def _short(fact: Any) -> str:
    said = repr(fact)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
