"""The stage `query`: ask every model of a shard about samples, in one or several views."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from memleak import artefacts, data, models, plugins
from memleak.designs import Audited, Roster, Shard, audited, roster_of
from memleak.models import given
from memleak.params import GivenModel, Recipe, plugin_options
from memleak.signals import Asked, SignalError, outputs, views
from memleak.signals.classifier import all_signals
from memleak.signals.release import released
from memleak.training import devices, loop
from memleak.training.batches import Pick, inputs_on
from memleak.training.store import read_model

ASKED_AGAIN = 64  # records that a given model is asked about a second time: does it answer alike?
ROWS_AT_ONCE = 256  # of a forward pass
SAMPLES_PER_GROUP = 8192  # a row group of the file holds the answers of all models of a shard about so many samples
# facts of a model that its signals are without: they would make equal signals unequal files, or are a column
STAYS_BEHIND = ("seconds", artefacts.ALIGNMENT)


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
    roster = _roster(asked, dataset)
    # what became of the models travels with their signals, so that no later stage opens weights
    known = [{key: value for key, value in model.items() if key not in STAYS_BEHIND} for model in facts["models"]]
    head = {"recipe": recipe_name, "shard": shard.name, "models": known}
    if asked.get("space") == "gradient":
        return _write_alignment(output, shard_path, facts["models"], roster, head)
    torch_device = devices.prepare_torch(device)
    network = models.build(recipe, dataset.shape, dataset.n_classes, seed=0, device=torch_device)
    # audited records of `pairs` are asked one at a time: what is said about one must not depend, to the last bit, on what else is asked
    rows = 1 if asked["samples"] == "targets" else ROWS_AT_ONCE
    noted = Noted(asked, roster, dataset, len(facts["models"]))
    progress = tqdm(total=len(noted.views) * len(facts["models"]), desc=shard.name, unit="model", disable=None)
    for number, view in enumerate(noted.views):
        picked = Pick(dataset, roster.sample_id, roster, recipe, torch_device, augmented=False, view=functools.partial(views.apply, view=view))
        for position in range(len(facts["models"])):
            network.load_state_dict(read_model(shard_path, position, facts))
            noted.add(
                position, number, loop.answer(network, picked, roster.sample_id, rows).numpy(), asker_of(network, dataset, recipe, torch_device)
            )
            progress.update()
    progress.close()
    return noted.write(output, head)


def _write_alignment(output: Path, shard_path: Path, trained: Sequence[Mapping[str, Any]], roster: Roster, head: dict[str, Any]) -> int:
    """Write how far the noisy gradients of each model's training point to each canary that is a gradient, in units of clip. Returns the rows.

    No model is asked: it is known from training (Nasr et al. 2023; Steinke et al. 2023), of canaries that took part and of others.
    """
    for model in trained:
        n = len(model.get(artefacts.ALIGNMENT, ()))
        if n != len(roster):
            raise artefacts.ArtefactError(
                f"{shard_path}: {model['model_id']} was trained with {n} gradient canaries, {len(roster)} are asked about; delete it and run again"
            )
    values = np.array([model[artefacts.ALIGNMENT] for model in trained], dtype=np.float64)
    if not np.isfinite(values).all():
        raise SignalError(f"{shard_path}: {int((~np.isfinite(values)).sum())} alignments are not finite; training diverged: lower learning_rate")
    write_signals(output, {artefacts.ALIGNMENT: values[:, :, None]}, roster, head)
    return values.size


def query_given(name: str, model: GivenModel, data_path: Path, asked: Mapping[str, Any], output: Path, device: str) -> int:
    """Write what the user's model says about the asked samples, one row a (sample, view). Returns the rows."""
    dataset = data.read(data_path)
    roster = _roster(asked, dataset)
    n_classes = model.classes or dataset.n_classes
    loaded = given.load(model, replace(given.Records.of(dataset), n_classes=n_classes), devices.prepare_torch(device))

    def answer(inputs: np.ndarray) -> np.ndarray:
        logits = outputs.logits_of(loaded.answer(inputs), model.output, n_classes, loaded.where)
        more = dataset.n_classes - n_classes  # of a shadow part, which this model never says
        return np.pad(logits, ((0, 0), (0, more)), constant_values=outputs.NEVER) if more else logits

    noted = Noted(asked, roster, dataset, 1, outputs.signals_known(model.output))
    asker = Asker(answer, loaded.network, loaded.prepare if loaded.network is not None else None)
    is_repeatable = True
    for number in range(len(noted.views)):
        shown = noted.shown(number)
        logits = answer(shown)  # [N, C]
        noted.add(0, number, logits, asker)
        is_repeatable &= bool(np.allclose(answer(shown[:ASKED_AGAIN]), logits[:ASKED_AGAIN], rtol=1e-3, atol=1e-3))
    facts = {"model_id": name, "engine": "given", "is_repeatable": is_repeatable, "torch": torch.__version__, **loaded.describe()}
    if asked["samples"] == "given":
        facts |= _fitted(noted, audited(asked, dataset), "loss" in noted.signals)
    return noted.write(output, {"recipe": name, "shard": "given", "models": [facts]})


def _roster(asked: Mapping[str, Any], dataset: data.Dataset) -> Roster:
    roster = roster_of(asked, dataset)
    if not len(roster):
        raise ValueError(f"{asked['samples']}: no sample is left to ask about; give the design a smaller pool, so that records stay outside it")
    return roster


def _fitted(noted: Noted, known: Audited, has_loss: bool) -> dict[str, Any]:
    """How well a given model does on the audited members (train) and non-members (test), in the first view."""
    found: dict[str, Any] = {}
    for part, rows in (("train", known.members), ("test", known.non_members)):
        position = np.searchsorted(noted.roster.sample_id, rows)
        found |= {f"n_{part}": len(rows), f"{part}_accuracy": float(noted.signals["is_correct"][0, position, 0].mean())}
        found[f"{part}_loss"] = float(noted.signals["loss"][0, position, 0].mean(dtype=np.float64)) if has_loss else None
    return found


@dataclass(frozen=True)
class Asker:
    """One model, as signals that take queries of their own ask it."""

    answer: Callable[[np.ndarray], np.ndarray]
    network: torch.nn.Module | None
    given: Callable[[np.ndarray], torch.Tensor] | None


def asker_of(network: torch.nn.Module, dataset: data.Dataset, recipe: Recipe, device: torch.device) -> Asker:
    """A trained network, asked about records in the scale of the stored ones."""
    mean, std = dataset.facts["mean"], dataset.facts["std"]

    def taken(inputs: np.ndarray) -> torch.Tensor:
        return inputs_on(inputs, mean, std, recipe, device).take(torch.arange(len(inputs), device=device))

    def answer(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [network(taken(inputs[start : start + ROWS_AT_ONCE])).cpu() for start in range(0, len(inputs), ROWS_AT_ONCE)]
        return torch.cat(parts).numpy()

    network.eval()
    return Asker(answer, network, taken)


class Noted:
    """What models say about samples, in the columns that were asked for: signals [M, N, Q], logits [M, N, Q, C]."""

    def __init__(
        self, asked: Mapping[str, Any], roster: Roster, dataset: data.Dataset, n_models: int, known: Sequence[str] = tuple(artefacts.SIGNALS)
    ) -> None:
        self.roster, self.views, self._dataset = roster, views.expand(asked["views"]), dataset
        self._known, self._measured, self._has_logits = known, asked.get("signals", ()), asked.get("logits", False)
        self._release = asked.get("release", ())
        self.n_queries = {entry["column"]: 0.0 for entry in self._measured}
        size = (n_models, len(roster), len(self.views))
        self.signals: dict[str, np.ndarray] = {name: np.empty(size, artefacts.SIGNALS[name]) for name in known}
        self.signals |= {entry["column"]: np.empty(size, np.float32) for entry in self._measured}
        if self._has_logits:
            self.signals["logits"] = np.empty((*size, dataset.n_classes), np.float32)

    def shown(self, number: int) -> np.ndarray:
        """All samples in one view, as they are stored, [N, ...]."""
        return views.apply(self._dataset.inputs[self.roster.source_id], self.views[number])

    def add(self, position: int, number: int, logits: np.ndarray, asker: Asker) -> None:
        """Note what a model said about the samples in one view, [N, C], as it is released, and ask it whatever else was wanted."""
        logits = released(logits, self._release)
        for name, values in all_signals(logits, self.roster.label).items():
            if name in self._known:
                self.signals[name][position, :, number] = values
        if self._has_logits:
            self.signals["logits"][position, :, number] = logits
        for entry in self._measured:
            self.signals[entry["column"]][position, :, number] = self._measure(entry, number, logits, asker)

    def _measure(self, entry: Mapping[str, Any], number: int, logits: np.ndarray, asker: Asker) -> np.ndarray:
        """A signal that takes queries of its own, [N]; they are counted and bounded."""
        options = plugin_options("signals", {"name": entry["name"], **entry["options"]})
        n, most, counted = len(self.roster), getattr(options, "queries", None), 0
        progress = tqdm(total=most and most * n, desc=entry["column"], unit="query", unit_scale=True, leave=False, disable=None)

        def answer(inputs: np.ndarray) -> np.ndarray:
            nonlocal counted
            counted += len(inputs)
            progress.update(len(inputs))
            if most is not None and counted > most * n:
                raise SignalError(f"{entry['name']}: more than {most} queries a sample were made; raise queries, or mend the signal")
            return released(asker.answer(inputs), self._release)

        network, given = (None, None) if self._release else (asker.network, asker.given)  # whoever sees a release sees no weights
        asked = Asked(self.shown(number), self.roster.label, self.roster.sample_id, logits, answer, network, given)
        values = np.asarray(plugins.function_of("signals", entry["name"])(asked, options), dtype=np.float32)
        progress.close()
        if values.shape != (n,) or not np.isfinite(values).all():
            said = f"shape {values.shape}" if values.shape != (n,) else f"{int((~np.isfinite(values)).sum())} values that are not finite"
            raise SignalError(f"{entry['name']}: it gave {said}; expected one finite number for each of {n} samples")
        self.n_queries[entry["column"]] = max(self.n_queries[entry["column"]], counted / n)
        return values

    def write(self, output: Path, facts: dict[str, Any]) -> int:
        """Write the table. Returns its rows."""
        write_signals(output, self.signals, self.roster, facts | ({"n_queries": self.n_queries} if self.n_queries else {}))
        return int(np.prod(next(iter(self.signals.values())).shape[:3]))


def write_signals(output: Path, signals: Mapping[str, np.ndarray], roster: Roster, facts: dict[str, Any]) -> None:
    """Write signals [M, N, Q], logits [M, N, Q, C], as a table, row group by row group of samples: a reader takes any run of samples of all models.

    Within a row group model comes before sample before view. The file's head says which samples it holds, so that who
    reads one signal need not read the keys.
    """
    n_models, n_samples, n_views = next(iter(signals.values())).shape[:3]
    model_ids = [model["model_id"] for model in facts["models"]]
    facts = facts | {"samples_sha256": artefacts.sample_digest(roster.sample_id), "n_samples": n_samples, "n_views": n_views}
    schema = pa.schema(
        [("model_id", pa.dictionary(pa.int32(), pa.string())), ("sample_id", pa.int64()), ("view", pa.int32())]
        + [(name, _column_type(values)) for name, values in signals.items()],
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
                **{name: _column(values[:, part]) for name, values in signals.items()},
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=n_models * n * n_views)


def _column_type(values: np.ndarray) -> pa.DataType:
    """Of a signal [M, N, Q], or of one with several values a row, [M, N, Q, C]."""
    kind = pa.from_numpy_dtype(values.dtype)
    return kind if values.ndim == 3 else pa.list_(kind, values.shape[3])


def _column(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.ravel())
    return flat if values.ndim == 3 else pa.FixedSizeListArray.from_arrays(flat, values.shape[3])
