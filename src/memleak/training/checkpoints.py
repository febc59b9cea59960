"""The state of a training that goes on after a kill: weights, optimiser and place, as one safetensors file.

All draws of a training are functions of its keys, so the place (epoch and step) is all there is of randomness, and
a training that goes on gives the bits of one that was never interrupted. A checkpoint is a convenience: one that
cannot be used or written is named, and training goes on without it.
"""

from __future__ import annotations

import glob
import json
import sys
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
_SHOWN = 120  # characters of a fact that are shown: a stack may be of hundreds of models


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
            with artefacts.atomic(self.path) as temporary:
                save_file(kept, temporary, metadata={"memleak": json.dumps(said, sort_keys=True)})
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
            with safe_open(self.path, framework="pt") as file:
                said = json.loads((file.metadata() or {}).get("memleak", "{}"))
                if not isinstance(said, dict) or said.keys() != {"facts", "place", "crc32"}:
                    return self._not_used("not a checkpoint of ours")
                if differing := self._differing(said["facts"]):
                    return self._not_used(f"a checkpoint of another training ({differing})")
                # copies: the file may be replaced while it is mapped into memory
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            return self._not_used(f"truncated or not a checkpoint ({error})")
        if _crc32(tensors, said["place"]) != said["crc32"]:
            return self._not_used("its content is not what was written")
        return {name: tensor.to(device) for name, tensor in tensors.items()}, said["place"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _differing(self, found: dict[str, Any]) -> str:
        """The first fact that is another, and what was expected; empty where all are the same."""
        for key in sorted(self.facts.keys() | found.keys()):
            if found.get(key) != self.facts.get(key):
                return f"{key}: {_short(found.get(key))}, expected {_short(self.facts.get(key))}"
        return ""

    def _not_used(self, why: str) -> None:
        _say(f"not used: {self.path}: {why}; training begins anew")

    def _remove_halves(self) -> None:
        """Remove what a kill in the middle of writing left: nothing else would."""
        for half in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp"):
            half.unlink(missing_ok=True)


def _crc32(tensors: dict[str, torch.Tensor], place: dict[str, Any]) -> int:
    """Checksum of a state on the CPU: a bit that flips on a disk would else be trained on."""
    found = zlib.crc32(json.dumps(place, sort_keys=True).encode())
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), found)
    return found


def _short(fact: Any) -> str:
    said = repr(fact)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
