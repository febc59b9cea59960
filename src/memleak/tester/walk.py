"""The ordinary stages of an audit of a given model, one after the other in this process, in a folder of their own."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from memleak import artefacts, data, designs, params, plan
from memleak.attacks import AttackError, pools
from memleak.attacks import stage as attacks
from memleak.data import stage as data_stage
from memleak.metrics import stage as metrics
from memleak.models.hub import Checkpoint
from memleak.plan import PlannedAudit, Query
from memleak.signals import stage as signals
from memleak.signals.language import asking
from memleak.tester import words

AUDIT = "texts"  # the audit's id, and the data set's
MEMBERS, NON_MEMBERS, POPULATION = "members", "non-members", "population"  # parts, and the files they come from


@dataclass
class Walked:
    """What a walk left behind."""

    folder: Path
    planned: PlannedAudit
    failed: dict[str, str] = field(default_factory=dict)  # why an attack has no score

    def __truediv__(self, name: str) -> Path:
        return self.folder / "results" / name

    def audit(self, name: str) -> Path:
        """An artefact of the audit."""
        return self / f"audits/{AUDIT}/{name}"

    @property
    def attacks(self) -> list[str]:
        """Those that have scores."""
        return [name for name in self.planned.audit.attacks if name not in self.failed]

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self / f"metrics/{AUDIT}.json")

    @property
    def curves(self) -> pd.DataFrame:
        """Points of the ROC of every attack, with the headline's band."""
        return artefacts.read_table(self.audit("roc.parquet"), ["subject", "fpr", "tpr", "low", "high", "certified"])

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The audited texts, one row each, with the truth."""
        table, _ = pools.read_samples(self.audit("samples.parquet"))
        is_member = pools.read_models(self.audit("plan.parquet"), table["sample_id"].to_numpy()).is_member[0]
        return table.assign(is_member=is_member)

    def scores(self, attack: str) -> np.ndarray:
        """An attack's scores of the audited texts, [N]."""
        path = self.audit(f"scores/{attack}.parquet")
        model = artefacts.read_facts(self.audit("plan.parquet"))["recipe"]
        return pools.read_scores(path, [model], ["score"])[1]["score"][0]

    def signal(self, name: str) -> np.ndarray:
        """What the model says about the audited texts as they are, [N] or, of tokens, [N, K]."""
        sample_id = self.samples["sample_id"].to_numpy()
        path = self.folder / self.planned.signals()[0]
        model = artefacts.read_facts(self.audit("plan.parquet"))["recipe"]
        return pools.read_signals([path], [model], sample_id, [name])[name][0, :, 0]

    def has_signal(self, name: str) -> bool:
        return name in artefacts.columns_of(self.folder / self.planned.signals()[0])


def write_params(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the params.yaml that the folder can be run again from."""
    with artefacts.atomic(folder / "params.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def walk(
    folder: Path,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    reference: Checkpoint | None,
    *,
    has_blind: bool,
    progress: bool | None,
    token_budget: int | None = None,
    word_labels: words.Labels | None = None,
) -> Walked:
    """Fetch, query, plan, score, threshold, decide and measure, in a folder that holds the records.

    The model is asked as it is loaded; `word_labels`: what a classifier of tokens is asked, by the rows of the data set.
    An attack that finds no difference between any two records, or cannot be made of these, is left out, and the
    headline's failure is an error.
    """
    write_params(folder, config)
    with contextlib.chdir(folder):  # paths in params are relative to the folder of the run
        planned = plan.build(params.validate(config)).audits[AUDIT]
        done, given = Walked(folder, planned), planned.given
        assert given is not None and planned.dataset is not None
        n_steps = 4 + has_blind + len(planned.all_asked()) + len(planned.audit.attacks)
        data_path = Path(given.data_path())
        with steps(n_steps, progress) as step:
            step("texts")
            data_stage.fetch(planned.dataset, data_path)
            for _, query in planned.all_asked():
                step("model")
                output = Path(planned.answers(None, query))
                if checkpoint.task in asking.TASKS or checkpoint.task == "token-classification":
                    _ask(given.name, checkpoint, reference, data_path, query, output, token_budget, word_labels)
                else:
                    signals.query_given(given.name, given.model, data_path, query.facts, output, config.get("device", "auto"), checkpoint)
            step("plan")
            data_stage.plan(data_path, json.loads(planned.canonical_json()), done.audit("plan.parquet"), done.audit("samples.parquet"))
            if has_blind:
                step("blind features")
                data_stage.features(data_path, done.audit("samples.parquet"), done.audit("features.parquet"))
            for attack in planned.audit.attacks:
                step(attack)
                _attack(done, attack)
            step("measures")
            _measure(done, has_blind)
    if done.failed:  # so that the folder can be run again
        audit = dict(config["audits"][AUDIT]) | {"attacks": {name: entry for name, entry in planned.audit.attacks.items() if name not in done.failed}}
        write_params(folder, {**config, "audits": {AUDIT: audit}})
    return done


def _ask(
    name: str, checkpoint: Checkpoint, reference: Checkpoint | None, data_path: Path, query: Query, output: Path, token_budget: int | None,
    word_labels: words.Labels | None,
) -> None:  # fmt: skip
    """Ask about tokens: what comes next, or the label of each."""
    dataset = data.read(data_path)
    known = designs.audited(query.facts, dataset) if query.facts["samples"] == "given" else None
    roster = designs.roster_of(query.facts, dataset)
    if checkpoint.task == "token-classification":
        words.query(name, checkpoint, dataset, word_labels, roster, query.facts, known, output, token_budget)
    else:
        asking.query_given(name, checkpoint, reference, dataset, roster, query.facts, known, output, token_budget=token_budget)


def _attack(done: Walked, attack: str) -> None:
    """Score the texts and set the attack's thresholds; or note why not."""
    planned, options = done.planned, json.loads(done.planned.attack_json(attack))
    outside = planned.population_signals(attack) if planned.wants_population(attack) else []
    scores, thresholds = done.audit(f"scores/{attack}.parquet"), done.audit(f"thresholds/{attack}.json")
    try:
        attacks.score(done.audit("plan.parquet"), done.audit("samples.parquet"), _paths(planned.signals(attack)), _paths(outside), options, scores)
    except AttackError as error:
        if attack == planned.audit.headline_attack:
            raise
        done.failed[attack] = str(error)
        return
    metrics.threshold(done.audit("plan.parquet"), _paths(planned.signals()), scores, options, thresholds)


def _measure(done: Walked, has_blind: bool) -> None:
    plan_path, asked = done.audit("plan.parquet"), _paths(done.planned.signals())
    thresholds = [done.audit(f"thresholds/{attack}.json") for attack in done.attacks]
    scores = [done.audit(f"scores/{attack}.parquet") for attack in done.attacks]
    metrics.decide(plan_path, asked, thresholds, scores, done.audit("decisions.parquet"))
    metrics.measure(
        plan_path, done.audit("samples.parquet"), asked, thresholds, scores, done.audit("decisions.parquet"),
        json.loads(done.planned.headline_json(False)), done / f"metrics/{AUDIT}.json", done.audit("exposure.parquet"), done.audit("roc.parquet"),
        done / f"plots/{AUDIT}.csv", done.audit("exposed.csv"), done.audit("features.parquet") if has_blind else None,
    )  # fmt: skip


def _paths(names: list[str]) -> list[Path]:
    return [Path(name) for name in names]


class _NoTerminal(io.TextIOBase):
    """Standard error without the bars of single stages: tqdm shows none where no terminal is; all else is passed on."""

    def __init__(self, to: Any) -> None:
        self._to = to

    def write(self, text: str) -> int:
        return self._to.write(text)

    def flush(self) -> None:
        self._to.flush()

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def steps(n: int, progress: bool | None) -> Iterator[Any]:
    """One bar for the whole walk: a function that is told the name of each step as it begins. `progress` None: on a terminal."""
    bar = tqdm(total=n, desc="audit", unit="step", leave=False, disable=None if progress is None else not progress, file=sys.stderr)

    def step(name: str) -> None:
        bar.set_postfix_str(name)
        bar.update()

    with contextlib.redirect_stderr(_NoTerminal(sys.stderr)):
        try:
            yield step
        finally:
            bar.close()
