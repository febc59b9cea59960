"""The signals of an audit in which each model may be the target in turn, and who is whose reference."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.attacks import Pool, Turn

IN_MEMORY = 2**30  # bytes of one signal; beyond, it is kept in a temporary file and mapped


@dataclass(frozen=True)
class Models:
    """The models of a pool audit, in the order of its plan."""

    model_id: np.ndarray  # [M]
    unit: np.ndarray  # [M]: models of one unit were not drawn independently, and are never each other's references
    is_target: np.ndarray  # [M] bool
    is_member: np.ndarray  # [M, N] bool
    is_given: bool = False  # whether the audited model is the user's

    def audited(self) -> Models:
        """The audited models alone."""
        kept = self.targets
        return replace(self, model_id=self.model_id[kept], unit=self.unit[kept], is_target=self.is_target[kept], is_member=self.is_member[kept])

    @property
    def targets(self) -> np.ndarray:
        """Rows of the models that are audited."""
        return np.flatnonzero(self.is_target)

    @property
    def units(self) -> np.ndarray:
        return np.unique(self.unit)

    @property
    def fold(self) -> np.ndarray:
        """The fold of each model, [M]: a few units, whose models serve each other as mock targets; -1 where there are too few.

        Two units a fold, four where there are many: the larger the folds, the more mock targets and the fewer references.
        """
        n = len(self.units)
        n_folds = n // 4 if n >= 16 else n // 2
        if n < 4:
            return np.full(len(self.unit), -1)
        return np.searchsorted(self.units, self.unit) * n_folds // n

    def mocks(self, target: int) -> np.ndarray:
        """Rows of the models of a target's fold that are of other units."""
        fold = self.fold
        return np.flatnonzero((fold == fold[target]) & (fold >= 0) & (self.unit != self.unit[target]))

    def turn(self, target: int, among: np.ndarray, n_references: int | None = None) -> Turn:
        """A model as target, with models of other units `among` [M] as its references.

        Where fewer than all are asked for, they are those of the units that come next, the first after the last.
        """
        place = np.searchsorted(self.units, self.unit)
        distance = (place - place[target]) % len(self.units)
        rows = np.flatnonzero(among & (distance > 0))
        if n_references is not None:
            rows = rows[np.argsort(distance[rows], kind="stable")][:n_references]
        return Turn(target, np.sort(rows))


def turns_of(models: Models, n_references: int | None) -> dict[str, list[Turn]]:
    """For each column of a score table, which model is scored with which references."""
    fold, everyone = models.fold, np.ones(len(models.unit), dtype=bool)
    whole = [models.turn(target, everyone, n_references) for target in models.targets.tolist()]
    in_folds = np.flatnonzero(np.isin(fold, fold[models.targets]) & (fold >= 0))
    turns = {"score": whole, "folded": [models.turn(row, fold != fold[row], n_references) for row in in_folds.tolist()], "odd": [], "even": []}
    for turn in whole:
        units = np.unique(models.unit[turn.references])
        for name, half in (("odd", units[1::2]), ("even", units[::2])):
            turns[name].append(Turn(turn.target, turn.references[np.isin(models.unit[turn.references], half)]))
    return turns


def read_models(plan_path: Path, sample_id: np.ndarray) -> Models:
    """Who trained on which of some samples."""
    plan = artefacts.read_table(plan_path, artefacts.PLAN_COLUMNS)
    packed = np.stack([np.frombuffer(bits, np.uint8) for bits in plan["membership"]])
    return Models(
        model_id=plan["model_id"].to_numpy(),
        unit=plan["round"].to_numpy(),
        is_target=plan["is_target"].to_numpy(dtype=bool),
        is_member=np.stack([np.unpackbits(row)[sample_id] for row in packed]).view(bool),
        is_given=bool((plan["arm"] == "given").any()),
    )


def read_samples(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The audited samples and the population, one row a sample, sorted by id."""
    table = artefacts.read_table(path, artefacts.SAMPLE_COLUMNS)
    is_population = table["is_population"].to_numpy(dtype=bool)
    return table[~is_population].reset_index(drop=True), table[is_population].reset_index(drop=True)


def read(
    plan_path: Path, samples_path: Path, signal_paths: Sequence[Path], population_paths: Sequence[Path], signals: Sequence[str],
    *, are_compared: bool = True,
) -> tuple[Pool, Models]:  # fmt: skip
    """All that the attacks of a pool audit read. A model or sample that the plan names and the signals lack is an error.

    Where a given model is not compared with its references (`are_compared`), these were not asked.
    """
    samples, population = read_samples(samples_path)
    models = read_models(plan_path, samples["sample_id"].to_numpy())
    if models.is_given and not are_compared:
        models = models.audited()
    return Pool(
        signals=read_signals(signal_paths, list(models.model_id), samples["sample_id"].to_numpy(), signals),
        is_in=models.is_member,
        population=read_signals(population_paths, list(models.model_id), population["sample_id"].to_numpy(), signals) if population_paths else None,
        label=samples["label"].to_numpy(),
        sample_id=samples["sample_id"].to_numpy(),
        group=samples["group_id"].to_numpy(),
        is_audited=samples["is_audited"].to_numpy(dtype=bool),
        is_balanced=artefacts.read_facts(plan_path).get("is_balanced", False),
        population_label=population["label"].to_numpy() if population_paths else None,
        population_id=population["sample_id"].to_numpy() if population_paths else None,
    ), models


def read_signals(paths: Sequence[Path], model_ids: Sequence[str], sample_id: np.ndarray, signals: Sequence[str]) -> dict[str, np.ndarray]:
    """Signals of models about samples, [M, N, Q] each, of tokens [M, N, Q, K], read row group by row group."""
    n_tokens = max((artefacts.read_facts(path).get("n_tokens_max", 0) for path in paths), default=0)
    place, digest = {model: row for row, model in enumerate(model_ids)}, artefacts.sample_digest(sample_id)
    found: dict[str, np.ndarray] = {}
    for path in paths:
        facts = artefacts.read_facts(path)
        if facts.get("samples_sha256") != digest:
            raise ArtefactError(
                f"{path}: speaks of other samples than the plan ({facts.get('n_samples')} of them, {len(sample_id)} planned); delete it and run again"
            )
        known = [model["model_id"] for model in facts["models"]]
        rows = np.array([place.pop(model, -1) for model in known])
        if (rows < 0).any():
            raise ArtefactError(f"{path}: model {known[int(rows.argmin())]} is not in the plan, or in two files; delete it and run again")
        start = 0
        for group in artefacts.row_groups(path, signals, n_tokens):
            for name, values in group.items():
                block = values.reshape(len(known), -1, facts["n_views"], *values.shape[1:])
                if name not in found:
                    found[name] = _empty((len(model_ids), len(sample_id), *block.shape[2:]), block.dtype)
                found[name][rows, start : start + block.shape[1]] = block
            start += block.shape[1]
        if start != len(sample_id):
            raise ArtefactError(f"{path}: holds {start} samples, {len(sample_id)} are planned; delete it and run again")
    if place:
        raise ArtefactError(f"signals: no answer of model {next(iter(place))}; delete results/signals and run again")
    return found


def read_scores(path: Path, model_ids: Sequence[str], columns: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sample ids [N], and columns of a score table as [M, N], NaN where a model has no score."""
    place, sample_id = {model: row for row, model in enumerate(model_ids)}, None
    found: dict[str, np.ndarray] = {}
    for group in artefacts.row_groups(path, ["target_id", "sample_id", *columns]):  # a model each
        sample_id = group["sample_id"] if sample_id is None else sample_id
        if group["target_id"][0] not in place or not np.array_equal(group["sample_id"], sample_id):
            raise ArtefactError(f"{path}: model {group['target_id'][0]} is not in the plan, or scored on other samples; delete it and run again")
        for column in columns:
            found.setdefault(column, np.full((len(model_ids), len(sample_id)), np.nan))[place[group["target_id"][0]]] = group[column]
    if sample_id is None:
        raise ArtefactError(f"{path}: holds no score; delete it and run again")
    return sample_id, found


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Room for a signal: in memory, or in a file that vanishes with this process."""
    if np.prod(shape) * dtype.itemsize <= IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.NamedTemporaryFile(prefix="memleak-signal-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)  # the map keeps the file's space until it is dropped
