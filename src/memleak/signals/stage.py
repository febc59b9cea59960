"""The stage `query`: ask every model of a shard about the audited samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from memleak import artefacts, data, models
from memleak.designs import Rounds, resolve_target
from memleak.params import Recipe
from memleak.signals.classifier import all_signals
from memleak.training import loop
from memleak.training.store import read_model


def check_shard(path: Path, recipe_name: str, rounds: Rounds) -> dict:
    """What a shard says about itself; a file of another recipe or shard is refused."""
    facts = artefacts.read_shard_facts(path)
    if (facts["recipe"], facts["shard"]) != (recipe_name, rounds.name):
        raise artefacts.ArtefactError(
            f"{path}: holds {facts['shard']} of recipe {facts['recipe']}, expected {rounds.name} of {recipe_name}; delete it and run again"
        )
    arm = "in" if rounds.target else "base"
    expected = {rounds.model_id(arm, round_) for round_ in range(rounds.first, rounds.last)}
    absent = expected - {model["model_id"] for model in facts["models"]}
    if absent:
        raise artefacts.ArtefactError(f"{path}: has no model {min(absent)}; delete it and run again")
    return facts


def query(shard_path: Path, data_path: Path, recipe_name: str, recipe: Recipe, rounds: Rounds, targets: list[str], output: Path, device: str) -> int:
    """Write the signals of a shard's models about the targets, one row a (model, sample, view). Returns the rows."""
    facts = check_shard(shard_path, recipe_name, rounds)
    dataset = data.read(data_path)
    asked = [resolve_target(name, dataset, rounds.seed, rounds.pool) for name in targets]
    torch_device = loop.prepare_torch(device)
    model = models.build(recipe, dataset.shape, dataset.n_classes, seed=0, device=torch_device)
    tables = []
    for position, known in enumerate(tqdm(facts["models"], desc=rounds.name, unit="model", disable=None)):
        model.load_state_dict(read_model(shard_path, position, facts))
        # one at a time: what is said about a sample must not depend, to the last bit, on what else is asked
        logits = np.concatenate(
            [loop.predict(model, dataset, np.array([target.sample_id]), target, recipe, torch_device, rows=1).numpy() for target in asked]
        )  # [n, C]
        labels = np.array([target.label for target in asked])
        table = {"model_id": known["model_id"], "sample_id": [target.sample_id for target in asked], "view": np.int32(0)}
        tables.append(pd.DataFrame(table | all_signals(logits, labels)))
    signals = pd.concat(tables, ignore_index=True)
    # what became of the models travels with their signals, so that no later stage opens weights; seconds stay
    # behind, for they would make equal signals unequal files
    known = [{key: value for key, value in model.items() if key != "seconds"} for model in facts["models"]]
    artefacts.write_table(output, signals, {"recipe": recipe_name, "shard": rounds.name, "models": known})
    return len(signals)
