"""The stage `query`: ask every model of a shard about samples, in one or several views."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from memleak import artefacts, data, models, plugins
from memleak.designs import Audited, Roster, Shard, audited, roster_of
from memleak.models import given, hub
from memleak.models.hub import Checkpoint
from memleak.params import GivenModel, Recipe, plugin_options
from memleak.signals import Asked, SignalError, askers, outputs, views
from memleak.signals.askers import ROWS_AT_ONCE, Asker
from memleak.signals.classifier import all_signals
from memleak.signals.language import asking
from memleak.signals.language.showing import Showing
from memleak.signals.release import released
from memleak.signals.tables import write_signals
from memleak.training import devices, loop
from memleak.training.batches import Pick
from memleak.training.store import read_model

ASKED_AGAIN = 64  # records that a given model is asked about a second time: does it answer alike?
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
    if recipe.reads_texts and recipe.text.task in asking.TASKS:
        return asking.query(shard_path, facts, recipe, dataset, roster, asked, head, output, torch_device)
    network = models.build_for(dataset, recipe, seed=0, device=torch_device)
    # audited records of `pairs` are asked one at a time: what is said about one must not depend, to the last bit, on what else is asked
    rows = 1 if asked["samples"] == "targets" else ROWS_AT_ONCE
    noted = Noted(asked, roster, dataset, len(facts["models"]))
    progress = tqdm(total=noted.n_views * len(facts["models"]), desc=shard.name, unit="model", disable=None)
    for number in range(noted.n_views):
        picked = Pick(dataset, roster.sample_id, roster, recipe, torch_device, augmented=False, view=noted.viewer(number))
        for position in range(len(facts["models"])):
            network.load_state_dict(read_model(shard_path, position, facts))
            asker = askers.of_trained(network, dataset, recipe, torch_device)
            noted.add(position, number, loop.answer(network, picked, roster.sample_id, rows).numpy(), asker)
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


def query_given(
    name: str, model: GivenModel, data_path: Path, asked: Mapping[str, Any], output: Path, device: str,
    loaded: Checkpoint | None = None, reference: Checkpoint | None = None,
) -> int:  # fmt: skip
    """Write what the user's model says about the asked samples, one row a (sample, view). Returns the rows.

    A checkpoint that is in memory already, and what it is compared with, may be handed over (`loaded`, `reference`).
    """
    dataset = data.read(data_path)
    roster, on = _roster(asked, dataset), devices.prepare_torch(device)
    if model.checkpoint is not None:
        return _query_checkpoint(name, model, dataset, roster, asked, output, on, loaded, reference)
    n_classes = model.classes or dataset.n_classes
    given_model = given.load(model, replace(given.Records.of(dataset), n_classes=n_classes), on)

    def answer(inputs: np.ndarray) -> np.ndarray:
        logits = outputs.logits_of(given_model.answer(inputs), model.output, n_classes, given_model.where)
        more = dataset.n_classes - n_classes  # of a shadow part, which this model never says
        return np.pad(logits, ((0, 0), (0, more)), constant_values=outputs.NEVER) if more else logits

    noted = Noted(asked, roster, dataset, 1, outputs.signals_known(model.output))
    asker = Asker(answer, given_model.network, given_model.prepare if given_model.network is not None else None)
    return _note_given(name, noted, asker, given_model.describe(), audited(asked, dataset) if asked["samples"] == "given" else None, output)


def _query_checkpoint(
    name: str, model: GivenModel, dataset: data.Dataset, roster: Roster, asked: Mapping[str, Any], output: Path, device: torch.device,
    loaded: Checkpoint | None, reference: Checkpoint | None,
) -> int:  # fmt: skip
    """The same of a checkpoint of `transformers`: a language model tells of tokens, a classifier the signals of any classifier."""
    how: dict[str, Any] = {"tokenizer": model.tokenizer, "max_length": model.max_length}
    checkpoint = loaded or hub.load(str(model.checkpoint), device, revision=model.revision, **how)
    known = audited(asked, dataset) if asked["samples"] == "given" else None
    if checkpoint.task in asking.TASKS:
        other = reference or (hub.load(model.reference, device, **how) if model.reference else None)
        if other is not None and hub.is_same(checkpoint, other):
            raise SignalError(
                f"model.reference: {other.name} is the audited model itself, which tells nothing; name what it was fine-tuned from, or leave it out"
            )
        return asking.query_given(name, checkpoint, other, dataset, roster, asked, known, output)
    noted = Noted(asked, roster, dataset, 1, n_classes=len(checkpoint.class_names))
    asker = askers.of_checkpoint(checkpoint, dataset)
    return _note_given(name, noted, asker, asking.described(checkpoint), known, output)


def _note_given(name: str, noted: Noted, asker: Asker, described: Mapping[str, Any], known: Audited | None, output: Path) -> int:
    """Ask a given classifier, some records a second time, and write what it says. Returns the rows."""
    is_repeatable = True
    for number in range(noted.n_views):
        shown = noted.shown(number)
        logits = asker.answer(shown)  # [N, C]
        noted.add(0, number, logits, asker)
        is_repeatable &= bool(np.allclose(asker.answer(shown[:ASKED_AGAIN]), logits[:ASKED_AGAIN], rtol=1e-3, atol=1e-3))
    facts = {"model_id": name, "engine": "given", "is_repeatable": is_repeatable, "torch": torch.__version__, **described}
    if known is not None:
        facts |= _fitted(noted, known, "loss" in noted.signals)
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


class Noted:
    """What models say about samples, in the columns that were asked for: signals [M, N, Q], logits [M, N, Q, C]."""

    def __init__(
        self, asked: Mapping[str, Any], roster: Roster, dataset: data.Dataset, n_models: int, known: Sequence[str] = tuple(artefacts.SIGNALS),
        n_classes: int | None = None,
    ) -> None:  # fmt: skip
        self.roster, self._dataset = roster, dataset
        self._texts = Showing(asked, dataset, roster) if dataset.is_text else None
        self._views = [] if self._texts else views.expand(asked["views"])
        self.n_views = len(self._texts.names if self._texts else self._views)
        self._known, self._measured, self._has_logits = known, asked.get("signals", ()), asked.get("logits", False)
        self._release = asked.get("release", ())
        self.n_queries = {entry["column"]: 0.0 for entry in self._measured}
        size = (n_models, len(roster), self.n_views)
        self.signals: dict[str, np.ndarray] = {name: np.empty(size, artefacts.SIGNALS[name]) for name in known}
        self.signals |= {entry["column"]: np.empty(size, np.float32) for entry in self._measured}
        if self._has_logits:
            self.signals["logits"] = np.empty((*size, n_classes or dataset.n_classes), np.float32)

    def shown(self, number: int) -> np.ndarray:
        """All samples in one view, as they are stored, [N, ...]."""
        return self.viewer(number)(self._dataset.inputs[self.roster.source_id])

    def viewer(self, number: int) -> Callable[[np.ndarray], np.ndarray]:
        """What makes the samples in one view of the samples as they are stored."""
        if self._texts is None:
            return functools.partial(views.apply, view=self._views[number])
        prefixes, texts = self._texts.shown(number)
        if prefixes is not None:
            raise SignalError(f"{self._texts.names[number]}: texts are put before a record for language models; a classifier is asked about it alone")
        return lambda inputs: np.array(texts, dtype=object)

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
        if entry["name"] == asking.GRADIENT and asker.norms is not None and not self._release:
            return asker.norms(self.shown(number), self.roster.label)
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
