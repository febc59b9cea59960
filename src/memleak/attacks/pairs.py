"""The signals of a `pairs` audit, laid out by target, round and arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.artefacts import ArtefactError
from memleak.attacks.single_point import statistic


@dataclass(frozen=True)
class Arms:
    """One target's signals in all rounds, the IN and the OUT arm of a round side by side."""

    target: str
    sample_id: int
    role: np.ndarray  # [R] "fit" or "holdout"
    round: np.ndarray  # [R]
    in_id: np.ndarray  # [R] model ids
    out_id: np.ndarray  # [R]
    inside: dict[str, np.ndarray]  # signal -> [R, Q], or of tokens [R, Q, K]
    outside: dict[str, np.ndarray]  # signal -> [R, Q]

    def of_role(self, role: str) -> Arms:
        """The rounds of one role only."""
        keep = self.role == role
        return replace(
            self,
            **{name: getattr(self, name)[keep] for name in ("role", "round", "in_id", "out_id")},
            inside={name: values[keep] for name, values in self.inside.items()},
            outside={name: values[keep] for name, values in self.outside.items()},
        )

    def statistic(self, signal: str) -> tuple[np.ndarray, np.ndarray]:
        """A signal of the IN and of the OUT arms, views averaged, [R] each; higher means more likely a member."""
        return statistic(self.inside[signal], signal).mean(axis=-1), statistic(self.outside[signal], signal).mean(axis=-1)

    @property
    def n_rounds(self) -> int:
        return len(self.round)


def read(plan_path: Path, signal_paths: Sequence[Path], signals: Sequence[str]) -> list[Arms]:
    """Every target's arms. A model or sample that the plan names and the signals lack is an error. Without signals: who is who."""
    plan = artefacts.read_table(plan_path, artefacts.PLAN_COLUMNS)
    sample_of = artefacts.read_facts(plan_path)["targets"]
    if not signals:
        return [_arms(name, int(known["sample_id"]), plan, pd.DataFrame(), 0, ()) for name, known in sample_of.items()]
    columns = ["model_id", "sample_id", "view", *signals]
    table = pd.concat([artefacts.read_table(path, columns) for path in signal_paths], ignore_index=True)
    if table.duplicated(["model_id", "sample_id", "view"]).any():
        raise ArtefactError(f"signals of {plan_path}: a model answers twice about one sample; delete results/signals and run again")
    n_views = int(table["view"].max()) + 1
    answers = table.set_index(["model_id", "sample_id", "view"]).sort_index()
    return [_arms(name, int(known["sample_id"]), plan, answers, n_views, signals) for name, known in sample_of.items()]


def _arms(target: str, sample_id: int, plan: pd.DataFrame, answers: pd.DataFrame, n_views: int, signals: Sequence[str]) -> Arms:
    of_target = plan[plan["target"] == target]
    inside = of_target[of_target["arm"] == "in"].set_index(["role", "round"])["model_id"].sort_index()
    base = plan[plan["target"].isna()].set_index(["role", "round"])["model_id"]
    own = of_target[of_target["arm"] == "out"].set_index(["role", "round"])["model_id"]
    outside = own.reindex(inside.index).fillna(base.reindex(inside.index))  # an OUT arm of its own goes first
    return Arms(
        target=target,
        sample_id=sample_id,
        role=inside.index.get_level_values("role").to_numpy(),
        round=inside.index.get_level_values("round").to_numpy(),
        in_id=inside.to_numpy(),
        out_id=outside.to_numpy(),
        inside=_lookup(answers, inside.to_numpy(), sample_id, n_views, signals),
        outside=_lookup(answers, outside.to_numpy(), sample_id, n_views, signals),
    )


def _lookup(answers: pd.DataFrame, model_ids: np.ndarray, sample_id: int, n_views: int, signals: Sequence[str]) -> dict[str, np.ndarray]:
    if not signals:
        return {}
    keys = pd.MultiIndex.from_product([model_ids, [sample_id], range(n_views)])
    rows = answers.reindex(keys)
    missing = rows.index[rows.isna().any(axis=1)]
    if len(missing):
        raise ArtefactError(f"signals: no answer of model {missing[0][0]} about sample {missing[0][1]}; delete results/signals and run again")
    return {name: (values := _values(rows[name])).reshape(len(model_ids), n_views, *values.shape[1:]) for name in signals}


def _values(column: pd.Series) -> np.ndarray:
    """A column's values, [rows]; of lists [rows, K], padded: a text has as many tokens in one model's eyes as in another's."""
    values = column.to_numpy()
    if values.dtype != object:
        return values
    lengths = np.array([len(row) for row in values])
    return artefacts.padded(np.concatenate(list(values)), lengths, int(lengths.max()))
