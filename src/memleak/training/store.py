"""The store: shards of trained models, kept outside the workflow's outputs.

Snakemake deletes a job's outputs before it runs and when it fails; what cost hours must not hang on that. A
shard is one safetensors file, its weights stacked along a leading axis of models, with a description of each
model in the file's head. Models that are finished while their shard is not are a shard of their own, a part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.training.loop import Trained


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """Digest of one model's weights: names, shapes, types and bytes."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def write_shard(path: Path, shard: dict[str, Any], trained: list[Trained]) -> None:
    """Write models of equal architecture as one file; `shard` says what the shard is."""
    stacked = {name: torch.stack([model.weights[name] for model in trained]) for name in trained[0].weights}
    facts = {**shard, "models": [model.facts | {"weights_sha256": weights_sha256(model.weights)} for model in trained]}
    with artefacts.atomic(path) as temporary:
        save_file(stacked, temporary, metadata={"memleak": json.dumps(facts, sort_keys=True)})


def read_model(path: Path, position: int, facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of one model of a shard; content that differs from what was written is refused."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_slice(name)[position].clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: removed by another job while it was opened
        raise ArtefactError(f"{path}: truncated or not a shard of models ({error}); delete it and run again") from None
    model = facts["models"][position]
    if weights_sha256(weights) != model["weights_sha256"]:
        raise ArtefactError(f"{path}: the weights of {model['model_id']} are not those that were written; delete the file and run again")
    return weights


class Store:
    """The models of one recipe on one content of the data, in the store and among the workflow's outputs."""

    def __init__(self, recipe: str, data_sha256: str, outputs: Path) -> None:
        self.folder = artefacts.store_folder() / recipe
        self.recipe, self.data_sha256, self.outputs = recipe, data_sha256, outputs

    @contextlib.contextmanager
    def lock(self, shard: str) -> Iterator[None]:
        """Nobody else trains this shard meanwhile; the system frees the lock when the process ends, however it ends."""
        artefacts.make_folder(self.folder)
        with open(self.folder / f"{shard}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{shard}: another process trains this shard; waiting for it", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def find(self, model_ids: list[str]) -> dict[str, Trained]:
        """Those of the wanted models that some shard holds, read and checked. A broken file is named and passed over."""
        found: dict[str, Trained] = {}
        for path in sorted(self.folder.glob("*.safetensors")) + sorted(self.outputs.glob("*.safetensors")):
            if len(found) == len(model_ids):
                break
            try:
                facts = artefacts.read_shard_facts(path)
                if (facts["recipe"], facts["data_sha256"]) != (self.recipe, self.data_sha256):
                    continue
                for position, model in enumerate(facts["models"]):
                    if model["model_id"] in model_ids and model["model_id"] not in found:
                        found[model["model_id"]] = Trained(read_model(path, position, facts), model)
            except ArtefactError as error:
                print(f"not used: {error}", file=sys.stderr, flush=True)
        return found

    def keep(self, shard: dict[str, Any], trained: list[Trained]) -> Path:
        """Write a shard into the store, and drop the parts that it now holds."""
        path = self.folder / f"{shard['shard']}.safetensors"
        write_shard(path, shard, trained)
        for model in trained:
            self._part(model.facts["model_id"]).unlink(missing_ok=True)
        return path

    def keep_part(self, shard: dict[str, Any], trained: list[Trained]) -> None:
        """Write models of an unfinished shard that were finished together: all of them or, after a kill, none."""
        write_shard(self._part(trained[0].facts["model_id"]), shard, trained)

    def checkpoint(self, model_id: str) -> Path:
        """Where the state of a training is kept, named after its first model."""
        return self.folder / f"checkpoint-{model_id}.state"

    def _part(self, model_id: str) -> Path:
        return self.folder / f"part-{model_id}.safetensors"


def link(kept: Path, output: Path) -> None:
    """Make `output` the kept file: a hard link where the file system allows one, else a copy."""
    with artefacts.atomic(output) as temporary:
        temporary.unlink()
        try:
            os.link(kept, temporary)
        except OSError:
            shutil.copyfile(kept, temporary)
        os.utime(temporary)
