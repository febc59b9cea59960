"""Records of one unit (a patient, a user) are in a training set together or not at all: they are measured as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.attacks.pools import Models
from memleak.metrics import slices


@dataclass(frozen=True)
class Units:
    """The units of the records that an audit asks about, in order of their first records.

    `table` has one row a unit: sample_id and source_id of its first record, label (the most frequent), group_id, unit
    (its name; several, where records of equal content join them), n_records, and columns to slice by.
    """

    code: np.ndarray  # [N] the unit of each record
    table: pd.DataFrame  # [U]

    @classmethod
    def of(cls, samples: pd.DataFrame) -> Units:
        """Units of records in rising order of sample_id; records of one group are of one unit."""
        code = pd.factorize(samples["group_id"])[0]
        table = samples.drop_duplicates("group_id").reset_index(drop=True)
        table["label"] = _of_units(code, samples["label"])
        table["unit"] = samples.assign(code=code).drop_duplicates(["code", "unit"]).groupby("code")["unit"].agg(" + ".join)
        for column in samples.columns[samples.columns.str.startswith(artefacts.SLICE)]:
            table[column] = _of_units(code, samples[column])
        return cls(code, table.assign(n_records=np.bincount(code)))

    def mean(self, scores: np.ndarray) -> np.ndarray:
        """Scores of records [M, N] as means over the records of a unit that have one, [M, U].

        The mean and not the sum: units differ in size, and the largest would lie farthest out whether they leak or not.
        """
        order = np.argsort(self.code, kind="stable")
        starts, there = np.flatnonzero(np.diff(self.code[order], prepend=-1)), ~np.isnan(scores)
        if there.all():
            return np.add.reduceat(scores[:, order], starts, axis=1) / np.bincount(self.code)
        total, n = (np.add.reduceat(values[:, order], starts, axis=1) for values in (np.where(there, scores, 0.0), there.astype(np.float64)))
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)

    def models(self, models: Models) -> Models:
        """The same models, with the membership of units, [M, U]."""
        first = np.unique(self.code, return_index=True)[1]
        is_member = models.is_member[:, first]
        mixed = np.unique(self.code[(models.is_member != is_member[:, self.code]).any(axis=0)])
        if len(mixed):
            raise artefacts.ArtefactError(
                f"{len(mixed):,} of {len(first):,} units have records inside and outside of one training set, such as {self.table['unit'].iloc[mixed[0]]}: "
                "a unit is a member or is not; put all its records on one side"
            )
        return replace(models, is_member=is_member)


def _of_units(code: np.ndarray, values: pd.Series) -> np.ndarray:
    """One value a unit, [U]: the mean of a measure, else the most frequent value, of equally frequent ones the first in order."""
    table = pd.DataFrame({"code": code, "value": values.to_numpy()})
    if values.name != "label" and slices.is_measure(values):
        return table.groupby("code")["value"].mean().to_numpy()
    counted = table.groupby(["code", "value"], dropna=False).size().rename("n").reset_index()
    return counted.sort_values(["code", "n", "value"], ascending=[True, False, True]).drop_duplicates("code")["value"].to_numpy()


def read(plan_path: Path, samples_path: Path | None = None) -> Units | None:
    """The units of an audit; None where its data set names none, and records stand for themselves.

    Samples lie beside the plan, which was written with them.
    """
    if "unit" not in artefacts.read_facts(plan_path).get("data", {}):
        return None
    return Units.of(read_samples(plan_path, samples_path or plan_path.with_name("samples.parquet"), ["unit"]))


def check(units: Units, sample_id: np.ndarray, score_path: Path) -> None:
    """Refuse scores of other samples than those whose units are known."""
    if len(units.code) != len(sample_id) or not np.isin(units.table["sample_id"], sample_id).all():
        raise artefacts.ArtefactError(f"{score_path}: scores of {len(sample_id)} samples, {len(units.code)} are planned; delete it and run again")


def read_samples(plan_path: Path, samples_path: Path, more: Sequence[str] = ()) -> pd.DataFrame:
    """The audited samples with the columns that they are sliced by, one row a sample, sorted by id."""
    sliced = [artefacts.SLICE + name for name in artefacts.read_facts(plan_path).get("slices", ()) if name != "label"]
    table = artefacts.read_table(samples_path, (*artefacts.SAMPLE_COLUMNS, *more, *sliced))
    return table[table["is_audited"].to_numpy(dtype=bool)].reset_index(drop=True)
