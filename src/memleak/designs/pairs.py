"""The design `pairs`: with and without one record.

Round r has a base model on a subset that depends on (pool, seed, r) alone and is shared by all targets and
audits: the OUT arm. The IN arm is the same training with the audited record in one more place of each epoch.
Whatever belongs to one sample (order, augmentation, dropout) is keyed by the sample's id, so the two arms
differ in the audited record alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memleak import randomness
from memleak.designs.tasks import N_TEST, Records, Target, Task, pool_of, resolve_target


@dataclass(frozen=True)
class Rounds:
    """A run of rounds of the design `pairs` for one target (or None: the base models)."""

    target: str | None
    subset_size: int
    seed: int
    role: str
    first: int
    last: int  # exclusive
    pool: int | None = None
    neighbour: str = "add"

    def model_id(self, arm: str, round_: int) -> str:
        return f"{self._prefix(arm)}-{self._letter}{round_:04d}"

    @property
    def name(self) -> str:
        """`with-atypical01-n500-s0-m0008-0016`: declared facts only, so it is known before any data is."""
        return f"{self._prefix('in' if self.target else 'base')}-{self._letter}{self.first:04d}-{self.last:04d}"

    def model_ids(self) -> list[str]:
        """The models that these rounds surely have; a target's OUT arms of its own depend on the data."""
        return [self.model_id("in" if self.target else "base", round_) for round_ in range(self.first, self.last)]

    @property
    def _letter(self) -> str:
        """Hold-out rounds are counted apart, so that more rounds of one role never change the other's."""
        return "h" if self.role == "holdout" else "m"

    def _prefix(self, arm: str) -> str:
        inside = "swap" if self.neighbour == "replace" else "with"
        subject = "base" if arm == "base" else f"{inside if arm == 'in' else 'without'}-{self.target}"
        return f"{subject}{f'-p{self.pool}' if self.pool else ''}-n{self.subset_size}-s{self.seed}"

    def tasks(self, records: Records) -> list[Task]:
        """The trainings of these rounds. For a target they are its IN arms, and an OUT arm of its own wherever
        the base model's subset holds a record of the target's group."""
        target = resolve_target(self.target, records, self.seed, self.pool) if self.target else None
        found = []
        for round_ in range(self.first, self.last):
            order = randomness.generator(self.seed, "subset", self.role, round_).permutation(pool_of(records, self.pool, self.seed))
            if target is None:
                found.append(self._task("base", round_, order, None))
                continue
            touches = records.group_id[order] == records.group_id[target.source_id]  # [pool]
            if touches[: self.subset_size].any():
                found.append(self._task("out", round_, order[~touches], target))
            found.append(self._task("in", round_, order[~touches], target))
        return found

    def _task(self, arm: str, round_: int, order: np.ndarray, target: Target | None) -> Task:
        members, rest = order[: self.subset_size], order[self.subset_size :]
        if not len(rest):
            without = f"without the records equal to {self.target} " if self.target else ""
            raise ValueError(
                f"{self.name}: {without}the pool has {len(order)} records, subset_size asks for {self.subset_size} and some must stay outside; lower it"
            )
        key = randomness.derive(self.seed, "round", self.role, round_)
        swapped = arm == "in" and self.neighbour == "replace"
        return Task(
            model_id=self.model_id(arm, round_),
            round=round_,
            role=self.role,
            arm="in" if arm == "in" else "out",
            key=key,
            members=members,
            target=target,
            replaced=int(members[randomness.derive(key, "replaced") % len(members)]) if swapped else None,
            test_ids=rest[:N_TEST],
        )


def rounds_of(
    target: str | None, n_rounds: int, role: str, per_shard: int, *, subset_size: int, seed: int, pool: int | None, neighbour: str
) -> list[Rounds]:
    """Cut the rounds of one target (or of the base models) into shards of at most `per_shard` rounds."""
    if target is None:
        neighbour = "add"  # base models do not depend on it
    return [
        Rounds(target, subset_size, seed, role, first, min(first + per_shard, n_rounds), pool, neighbour) for first in range(0, n_rounds, per_shard)
    ]
