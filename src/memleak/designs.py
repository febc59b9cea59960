"""Who trains on what: pure functions that draw subsets, audited records and batch sequences.

The design `pairs`: round r has a base model on a subset that depends on (pool, seed, r) alone and is shared by
all targets and audits: the OUT arm. The IN arm is the same training with the audited record in one more
place of each epoch. Whatever belongs to one sample (order, augmentation, dropout) is keyed by the sample's
id, so the two arms differ in the audited record alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from memleak import randomness

N_TEST = 1000  # records outside a model's training set on which its test accuracy is measured, at most


class Records(Protocol):
    """What a design needs to know of a data set."""

    @property
    def labels(self) -> np.ndarray: ...  # [N] int64
    @property
    def group_id(self) -> np.ndarray: ...  # [N] int64, equal for records of equal content
    @property
    def atypicality_rank(self) -> np.ndarray: ...  # [N] int64, 0 is the least typical record
    @property
    def n_classes(self) -> int: ...


@dataclass(frozen=True)
class Target:
    """An audited record: a row of the data set, or a canary made from one (`sample_id` beyond the data set)."""

    name: str
    sample_id: int
    source_id: int  # the row whose content it has
    label: int

    @property
    def kind(self) -> str:
        return self.name.rstrip("0123456789")

    @property
    def is_canary(self) -> bool:
        return self.sample_id != self.source_id


def resolve_target(name: str, records: Records, seed: int, pool: int | None = None) -> Target:
    """The record that a target id such as `atypical01` stands for."""
    kind, position = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :])
    inside = pool_of(len(records.labels), pool, seed)
    if position >= (there := len(records.labels) if kind == "index" else len(inside)):
        raise ValueError(f"target {name} is out of range: there are {there} records (0 to {there - 1}); ask for another")
    if kind == "index":
        source = position
    elif kind == "atypical":
        source = int(inside[np.argsort(records.atypicality_rank[inside], kind="stable")[position]])
    else:
        source = int(randomness.generator(seed, "target", kind).permutation(inside)[position])
    label = int(records.labels[source])
    if kind != "mislabelled":
        return Target(name, source, source, label)
    wrong = int(randomness.generator(seed, "wrong label", position).integers(1, records.n_classes))
    return Target(name, len(records.labels) + position, source, (label + wrong) % records.n_classes)


def pool_of(n_samples: int, pool: int | None, seed: int) -> np.ndarray:
    """The records that subsets are drawn from, sorted, [pool]."""
    if pool is None:
        return np.arange(n_samples)
    return np.sort(randomness.generator(seed, "pool").permutation(n_samples)[:pool])


@dataclass(frozen=True)
class Task:
    """One training: everything that tells this model from others of its recipe."""

    model_id: str
    round: int
    role: str  # "fit", or "holdout": used to measure only
    arm: str  # "in": trained with the target; "out": without
    key: int  # of the random streams of this round, the same in both arms
    members: np.ndarray  # [n] sample ids of the OUT arm, int64
    target: Target | None  # None for a base model
    replaced: int | None  # the member whose place the target takes (neighbour: replace)
    test_ids: np.ndarray  # [<= N_TEST] records outside the training set

    @cached_property
    def is_in(self) -> bool:
        return self.arm == "in"

    @cached_property
    def sample_ids(self) -> np.ndarray:
        """Ids of all training samples, [n] or [n + 1], the target last."""
        if not self.is_in:
            return self.members
        assert self.target is not None
        return np.append(self.members[self.members != self.replaced], self.target.sample_id)

    def batches(self, epoch: int, batch_size: int) -> Iterator[np.ndarray]:
        """The sample ids of each step of an epoch. Both arms of a round have equally many steps.

        An added target is one more sample in a batch drawn anew for each epoch, so a subset whose size is a
        multiple of the batch size costs the IN arm no further step. A replacing target takes the place of the
        replaced sample.
        """
        draw = randomness.derive(self.key, "order", epoch)
        order = self.members[np.argsort(randomness.counter_bits(draw, self.members), kind="stable")]
        slot = -1
        if self.is_in and self.replaced is not None:
            order = np.where(order == self.replaced, self.target.sample_id, order)  # type: ignore[union-attr]
        elif self.is_in:
            n_batches = -(-len(order) // batch_size)
            slot = randomness.derive(self.key, "slot", epoch) % n_batches
        for step, start in enumerate(range(0, len(order), batch_size)):
            batch = order[start : start + batch_size]
            yield np.append(batch, self.target.sample_id) if step == slot else batch  # type: ignore[union-attr]


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
            order = randomness.generator(self.seed, "subset", self.role, round_).permutation(pool_of(len(records.labels), self.pool, self.seed))
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
