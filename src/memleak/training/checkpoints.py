"""The state of a training that goes on after a kill: weights, optimiser and place, as one safetensors file.

All draws of a training are functions of its keys, so the place (epoch and step) is all there is of randomness, and
a training that goes on gives the bits of one that was never interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memleak import artefacts

VERSION = 1


class Checkpoint:
    """Where a training's state is kept, and how often.

    `facts` say whose state it is (recipe, data, models, engine, device, torch): a file that says otherwise is named
    and left alone.
    """

    def __init__(self, path: Path, facts: dict[str, Any], minutes: float) -> None:
        self.path, self.facts, self.seconds = path, facts | {"version": VERSION}, 60 * minutes
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self.seconds

    def save(self, tensors: dict[str, torch.Tensor], place: dict[str, Any]) -> None:
        """Write the state, in place of the one before. Numbers in `place` are exact: JSON keeps every digit of a double."""
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        artefacts.make_folder(self.path.parent)
        with artefacts.atomic(self.path) as temporary:
            save_file(kept, temporary, metadata={"memleak": json.dumps({"facts": self.facts, "place": place}, sort_keys=True)})
        self._last = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The state that was kept and where it stood; None where there is none that can be used."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said = json.loads((file.metadata() or {}).get("memleak", "{}"))
                tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            print(f"not used: {self.path}: truncated or not a checkpoint ({error}); training begins anew", file=sys.stderr, flush=True)
            return None
        found = said.get("facts", {})
        differing = sorted(key for key in self.facts.keys() | found.keys() if self.facts.get(key) != found.get(key))
        if differing:
            key = differing[0]
            print(
                f"not used: {self.path}: a checkpoint of another training ({key}: {found.get(key)!r}, expected {self.facts.get(key)!r}); training begins anew",
                file=sys.stderr,
                flush=True,
            )
            return None
        return tensors, said["place"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
