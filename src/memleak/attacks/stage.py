"""The stage `score`: what an attack concludes about every audited model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from tqdm import tqdm

from memleak import artefacts, plugins
from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn, pairs, pools, score_each
from memleak.attacks.pools import Models
from memleak.params import attack_options

SCORES_AT_ONCE = 4_000_000  # of several targets, held in memory at a time


def score(
    plan_path: Path, samples_path: Path, signal_paths: Sequence[Path], population_paths: Sequence[Path], attack: dict[str, Any], output: Path
) -> int:
    """Score the audited models of any audit. Returns the rows."""
    options = attack_options({"name": attack["name"], **attack["options"]})
    if artefacts.read_facts(plan_path)["design"]["kind"] == "pairs":
        return _score_pairs(plan_path, samples_path, signal_paths, population_paths, attack, options, output)
    return _score_pool(plan_path, samples_path, signal_paths, population_paths, attack, options, output)


def needs_of(options: BaseModel) -> Needs:
    """What an attack needs; one of a user's that does not say is given all signals, and references where there are any."""
    return getattr(options, "needs", Needs(tuple(artefacts.SIGNALS), references=1))


def queries_of(needs: Needs, answers: Sequence[dict[str, Any]]) -> float:
    """How often a model is asked about one record: once a view, and as often as signals that take queries of their own did."""
    own = {column: max((known.get("n_queries", {}).get(column, 0.0) for known in answers), default=0.0) for column in needs.signals}
    once = any(not n for n in own.values())
    return sum(own.values()) + (answers[0].get("n_views", 1) if once and answers else 0)


def _score_pool(
    plan_path: Path, samples_path: Path, signal_paths: Sequence[Path], population_paths: Sequence[Path],
    attack: dict[str, Any], options: BaseModel, output: Path,
) -> int:  # fmt: skip
    """Score each model in turn, with all that are not of its unit as references; and again with fewer of them.

    `folded`: with the references of other folds only, so that a target and the other models of its fold are scored
    alike and none of them is anybody's reference; thresholds and the null control are made of these. `odd`, `even`:
    with one half of the references and with the other, to see how far the scores depend on who the references are.
    """
    needs = needs_of(options)
    population_paths = population_paths if needs.population else ()
    pool, models = pools.read(plan_path, samples_path, signal_paths, population_paths, needs.signals, are_compared=needs.has_references)
    pool = pool if needs.fits else pool.audited()
    every = pools.turns_of(models, attack.get("references"))
    facts = {
        "attack": attack,
        "n_references": len(every["score"][0].references) if needs.has_references else 0,
        "n_queries": queries_of(needs, [artefacts.read_facts(path) for path in signal_paths]),
        "n_references_of_mocks": min((len(turn.references) for turn in every["folded"] if needs.has_references), default=0),
    }
    while True:
        try:
            scored = _scored(pool, every, _scorer(attack["name"], is_balanced=pool.is_balanced), options, attack["id"])
            return _write_pool_scores(output, models, list(every), scored, pool, facts)
        except _TooFew as error:  # what is made of fewer references is left out, and the page says so
            print(f"{attack['id']}: no column '{error.column}', which leaves some references out: {error}", flush=True)
            every[error.column] = []


class _TooFew(AttackError):
    """A column of scores that cannot be made of the references that it has."""

    def __init__(self, column: str, error: AttackError) -> None:
        super().__init__(str(error))
        self.column = column


def _scored(
    pool: Pool, every: dict[str, list[Turn]], scorer: Callable[[Pool, Sequence[Turn], BaseModel], np.ndarray], options: BaseModel, attack_id: str
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The row of each model that has a turn, and its scores by column, [N] each; some models at a time, so that memory does not grow with M."""
    rows = sorted({turn.target for turns in every.values() for turn in turns})
    at_once = max(1, SCORES_AT_ONCE // pool.is_in.shape[1])
    for start in tqdm(range(0, len(rows), at_once), desc=attack_id, unit="set of targets", disable=None):
        found: dict[int, dict[str, np.ndarray]] = {row: {} for row in rows[start : start + at_once]}
        for name, turns in every.items():
            some = [turn for turn in turns if turn.target in found]
            try:
                scores = scorer(pool, some, options) if some else ()
            except AttackError as error:
                if name == "score":
                    raise
                raise _TooFew(name, error) from error
            for turn, values in zip(some, scores, strict=True):
                found[turn.target][name] = values
        yield from found.items()


def _scorer(name: str, *, is_balanced: bool) -> Callable[[Pool, Sequence[Turn], BaseModel], np.ndarray]:
    """An attack's own `score_all`, or its `score` for one turn after the other, as each sample of a balanced pool has references of its own."""
    module, function = plugins.module_of("attacks", name), plugins.function_of("attacks", name)
    if plugins.is_built_in("attacks", name) and hasattr(module, "score_all") and not is_balanced:
        return module.score_all
    return lambda pool, turns, options: score_each(function, pool, turns, options)


def _write_pool_scores(
    output: Path, models: Models, columns: Sequence[str], scored: Iterable[tuple[int, dict[str, np.ndarray]]], pool: Pool, facts: dict[str, Any],
) -> int:  # fmt: skip
    """One row a (model, audited sample), for every model that has a score; a row group a model. NaN in a column of which it has none."""
    schema = pa.schema(
        [("target_id", pa.string()), ("sample_id", pa.int64()), *((name, pa.float64()) for name in columns)],
        metadata={"memleak": json.dumps(facts, sort_keys=True)},
    )
    is_shown = np.ones(pool.is_in.shape[1], dtype=bool) if pool.is_audited is None else pool.is_audited
    sample_id = np.asarray(pool.sample_id)[is_shown]
    n, rows, none = len(sample_id), 0, np.full(len(sample_id), np.nan)
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for row, known in scored:
            if all(np.isnan(values).all() for values in known.values()):
                continue
            values = {name: known[name][is_shown] if name in known else none for name in columns}
            table = pa.table({"target_id": pa.repeat(str(models.model_id[row]), n), "sample_id": sample_id, **values}, schema=schema)
            writer.write_table(table, row_group_size=n)  # the default cuts at 2**20 rows
            rows += n
    return rows


def _score_pairs(
    plan_path: Path, samples_path: Path, signal_paths: Sequence[Path], population_paths: Sequence[Path],
    attack: dict[str, Any], options: BaseModel, output: Path,
) -> int:  # fmt: skip
    """Score the hold-out models, with the fitting rounds as references; and, for thresholds, each fitting round with the others."""
    function, needs = plugins.function_of("attacks", attack["name"]), needs_of(options)
    facts = artefacts.read_facts(plan_path)
    population = _Population.read(plan_path, samples_path, population_paths, needs.signals) if needs.population else None
    rows = []
    for arms in tqdm(pairs.read(plan_path, signal_paths, list(needs.signals)), desc=attack["id"], unit="target", disable=None):
        is_fit = arms.role == "fit"
        for round_ in np.flatnonzero(~is_fit) if attack["name"] == "single_point" else range(arms.n_rounds):
            others = is_fit & (np.arange(arms.n_rounds) != round_)
            for ids, signals in ((arms.in_id, arms.inside), (arms.out_id, arms.outside)):
                evidence = Evidence(
                    target={name: signals[name][round_][None] for name in needs.signals},  # [1, Q]
                    reference={name: np.concatenate([arms.inside[name][others], arms.outside[name][others]])[:, None] for name in needs.signals},
                    is_in=np.repeat([True, False], others.sum())[:, None],  # [M, 1]
                    label=np.array([facts["targets"][arms.target]["label"]]),
                    sample_id=np.array([arms.sample_id]),
                )
                if population is not None:
                    evidence = population.added_to(evidence, ids[round_], [*arms.in_id[others], *arms.out_id[others]])
                rows.append((ids[round_], arms.sample_id, float(function(evidence, options)[0])))
    table = pd.DataFrame(rows, columns=list(artefacts.SCORE_COLUMNS)).drop_duplicates(["target_id", "sample_id"])
    artefacts.write_table(output, table.astype({"target_id": "string", "sample_id": "int64", "score": "float64"}), {"attack": attack})
    return len(table)


@dataclass(frozen=True)
class _Population:
    """What all models of a `pairs` audit say about samples outside every training set."""

    row: dict[str, int]  # by model id
    signals: dict[str, np.ndarray]  # [M, Z, Q]
    samples: pd.DataFrame

    @classmethod
    def read(cls, plan_path: Path, samples_path: Path, paths: Sequence[Path], signals: Sequence[str]) -> _Population:
        model_ids = artefacts.read_table(plan_path, ["model_id"])["model_id"].tolist()
        _, samples = pools.read_samples(samples_path)
        found = pools.read_signals(paths, model_ids, samples["sample_id"].to_numpy(), signals)
        return cls({model: row for row, model in enumerate(model_ids)}, found, samples)

    def added_to(self, evidence: Evidence, target_id: str, reference_ids: Sequence[str]) -> Evidence:
        rows = [self.row[model] for model in reference_ids]
        return replace(
            evidence,
            population_target={name: values[self.row[target_id]] for name, values in self.signals.items()},
            population_reference={name: values[rows] for name, values in self.signals.items()},
            population_label=self.samples["label"].to_numpy(),
            population_id=self.samples["sample_id"].to_numpy(),
        )
