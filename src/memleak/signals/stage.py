"""The stage `query`: ask every model of a shard about samples, in one or several views."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from memleak import artefacts, data, models
from memleak.designs import Roster, Shard, roster_of
from memleak.params import Recipe
from memleak.signals import views
from memleak.signals.classifier import all_signals
from memleak.training import devices, loop
from memleak.training.batches import Pick
from memleak.training.store import read_model

SAMPLES_PER_GROUP = 8192  # a row group of the file holds the answers of all models of a shard about so many samples


def check_shard(path: Path, recipe_name: str, shard: Shard) -> dict:
    """What a shard says about itself; a file of another recipe or shard is refused."""
    facts = artefacts.read_shard_facts(path)
    if (facts["recipe"], facts["shard"]) != (recipe_name, shard.name):
        raise artefacts.ArtefactError(
            f"{path}: holds {facts['shard']} of recipe {facts['recipe']}, expected {shard.name} of {recipe_name}; delete it and run again"
        )
    absent = set(shard.model_ids()) - {model["model_id"] for model in facts["models"]}
    if absent:
        raise artefacts.ArtefactError(f"{path}: has no model {min(absent)}; delete it and run again")
    return facts


def query(
    shard_path: Path, data_path: Path, recipe_name: str, recipe: Recipe, shard: Shard, asked: Mapping[str, Any], output: Path, device: str
) -> int:
    """Write what a shard's models say about the asked samples, one row a (model, sample, view). Returns the rows."""
    facts = check_shard(shard_path, recipe_name, shard)
    dataset = data.read(data_path)
    roster = roster_of(asked, dataset)
    if not len(roster):
        raise ValueError(f"{asked['samples']}: no sample is left to ask about; give the design a smaller pool, so that records stay outside it")
    torch_device = devices.prepare_torch(device)
    model = models.build(recipe, dataset.shape, dataset.n_classes, seed=0, device=torch_device)
    # audited records of `pairs` are asked one at a time: what is said about one must not depend, to the last bit, on what else is asked
    rows = 1 if asked["samples"] == "targets" else 256
    expanded = views.expand(asked["views"])
    signals: dict[str, np.ndarray] = {
        name: np.empty((len(facts["models"]), len(roster), len(expanded)), dtype) for name, dtype in artefacts.SIGNALS.items()
    }
    progress = tqdm(total=len(expanded) * len(facts["models"]), desc=shard.name, unit="model", disable=None)
    for number, view in enumerate(expanded):
        picked = Pick(dataset, roster.sample_id, roster, recipe, torch_device, augmented=False, view=functools.partial(views.apply, view=view))
        for position in range(len(facts["models"])):
            model.load_state_dict(read_model(shard_path, position, facts))
            logits = loop.answer(model, picked, roster.sample_id, rows).numpy()  # [n, C]
            for name, values in all_signals(logits, roster.label).items():
                signals[name][position, :, number] = values
            progress.update()
    progress.close()
    # what became of the models travels with their signals, so that no later stage opens weights; seconds stay
    # behind, for they would make equal signals unequal files
    known = [{key: value for key, value in model.items() if key != "seconds"} for model in facts["models"]]
    write_signals(output, signals, roster, {"recipe": recipe_name, "shard": shard.name, "models": known})
    return signals["margin"].size


def write_signals(output: Path, signals: Mapping[str, np.ndarray], roster: Roster, facts: dict[str, Any]) -> None:
    """Write signals [M, N, Q] as a table, row group by row group of samples: a reader takes any run of samples of all models.

    Within a row group model comes before sample before view. The file's head says which samples it holds, so that who
    reads one signal need not read the keys.
    """
    n_models, n_samples, n_views = signals["margin"].shape
    model_ids = [model["model_id"] for model in facts["models"]]
    facts = facts | {"samples_sha256": artefacts.sample_digest(roster.sample_id), "n_samples": n_samples, "n_views": n_views}
    schema = pa.schema(
        [("model_id", pa.dictionary(pa.int32(), pa.string())), ("sample_id", pa.int64()), ("view", pa.int32())]
        + [(name, pa.from_numpy_dtype(dtype)) for name, dtype in artefacts.SIGNALS.items()],
        metadata={"memleak": json.dumps(facts, sort_keys=True)},
    )
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, n_samples, SAMPLES_PER_GROUP):
            part = slice(start, min(start + SAMPLES_PER_GROUP, n_samples))
            n = part.stop - part.start
            model = pa.DictionaryArray.from_arrays(np.repeat(np.arange(n_models, dtype=np.int32), n * n_views), model_ids)
            columns = {
                "model_id": model,
                "sample_id": np.tile(np.repeat(roster.sample_id[part], n_views), n_models),
                "view": np.tile(np.arange(n_views, dtype=np.int32), n_models * n),
                **{name: values[:, part].ravel() for name, values in signals.items()},
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=n_models * n * n_views)
