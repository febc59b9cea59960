"""What all designs share: records, audited samples, one training, the pool and the population."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    @property
    def has_units(self) -> bool: ...  # whether groups are more than records of equal content: patients, users
    @property
    def parts(self) -> Mapping[str, Sequence[int]]: ...  # first row, and one past the last, of each part; none where the data is one set


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


@dataclass(frozen=True)
class Roster:
    """Samples in order: the row of the data set that each has its content from, and its label."""

    sample_id: np.ndarray  # [n] int64, rising
    source_id: np.ndarray  # [n] int64
    label: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.sample_id)

    @classmethod
    def of_targets(cls, targets: Sequence[Target]) -> Roster:
        """Audited records, in order of their ids; a record that two names stand for is one sample."""
        known = [target for _, target in sorted({target.sample_id: target for target in targets}.items())]
        return cls(*(np.array([getattr(t, name) for t in known], dtype=np.int64) for name in ("sample_id", "source_id", "label")))

    @classmethod
    def of_rows(cls, rows: np.ndarray, records: Records) -> Roster:
        """Rows of the data set as they are."""
        return cls(rows, rows, np.asarray(records.labels)[rows])


def resolve_target(name: str, records: Records, seed: int, pool: int | None = None) -> Target:
    """The record that a target id such as `atypical01` stands for."""
    kind, position = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :])
    inside = pool_of(records, pool, seed)
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


def pool_of(records: Records, pool: int | None, seed: int) -> np.ndarray:
    """The records that subsets are drawn from, sorted, [pool]; where the data set names units whole ones, [at most pool]."""
    n_samples = len(records.labels)
    if pool is None:
        return np.arange(n_samples)
    draw = randomness.generator(seed, "pool")
    if not records.has_units:
        return np.sort(draw.permutation(n_samples)[:pool])
    sizes = np.bincount(records.group_id)
    drawn = draw.permutation(np.flatnonzero(sizes))
    return np.flatnonzero(is_among(records.group_id, drawn[np.cumsum(sizes[drawn]) <= pool]))


def rows_of(records: Records, parts: Sequence[str]) -> np.ndarray:
    """The rows of some parts of a data set, sorted."""
    return np.sort(np.concatenate([np.arange(*records.parts[name]) for name in parts]))


def outside_of(n_samples: int, inside: np.ndarray) -> np.ndarray:
    """The records that are not among some, sorted."""
    is_outside = np.ones(n_samples, dtype=bool)
    is_outside[inside] = False
    return np.flatnonzero(is_outside)


def is_among(groups: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether each group [n] is among the chosen ones: a table, which is faster than sorting both."""
    table = np.zeros(max(groups.max(initial=-1), chosen.max(initial=-1)) + 1, dtype=bool)
    table[chosen] = True
    return table[groups]


def outsiders_of(records: Records, pool: int | None, seed: int) -> np.ndarray:
    """Records outside the pool that are equal to none in it, sorted."""
    inside = pool_of(records, pool, seed)
    outside = outside_of(len(records.labels), inside)
    return outside[~is_among(records.group_id[outside], records.group_id[inside])]


def reserve_of(records: Records, pool: int | None, n: int, seed: int) -> np.ndarray:
    """Records outside the pool, and equal to none in it, that a recipe uses beside the members, in random order, [n].

    A model stops early by them, or a student learns from them.
    """
    outside = outsiders_of(records, pool, seed)
    if n > len(outside):
        raise ValueError(
            f"reserve: the recipe takes {n} records, {len(outside)} lie outside the pool and equal none in it; lower records, or the design's pool"
        )
    return randomness.generator(seed, "reserve").permutation(outside)[:n]


def population_of(records: Records, pool: int | None, n: int | None, seed: int, reserve: int = 0) -> np.ndarray:
    """Records outside the pool that are equal to none in it, nor to one in reserve, sorted, [n]; all of them where n is None."""
    outside = outsiders_of(records, pool, seed)
    if reserve:
        outside = outside[~is_among(records.group_id[outside], records.group_id[reserve_of(records, pool, reserve, seed)])]
    if n is None:
        return outside
    if n > len(outside):
        raise ValueError(f"population: {n} records asked for, {len(outside)} lie outside the pool and equal none in it; lower population or pool")
    return np.sort(randomness.generator(seed, "population").permutation(outside)[:n])


@dataclass(frozen=True)
class Task:
    """One training: everything that tells this model from others of its recipe."""

    model_id: str
    round: int
    role: str  # "fit", or "holdout": used to measure only
    arm: str  # "in": trained with the target; "out": without; "half", "coins", "shadow": of a pool
    key: int  # of the random streams of this round, the same in both arms
    members: np.ndarray  # [n] sample ids of the OUT arm, int64
    target: Target | None  # None for a base model
    replaced: int | None  # the member whose place the target takes (neighbour: replace)
    test_ids: np.ndarray  # [<= N_TEST] records outside the training set
    canaries: Roster | None = None  # members that are no rows of the data set
    directions: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # ids of canaries that are gradients, not records
    all_directions: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # those of the design, in this model or not
    n_expected: int | None = None  # members, over the coins of a design; None where their number is no matter of chance
    reserve: np.ndarray = field(
        default_factory=lambda: np.empty(0, dtype=np.int64)
    )  # records beside the members that the recipe uses, in random order

    @property
    def own(self) -> Roster | None:
        """The samples of this training that have a label of their own."""
        return self.canaries if self.target is None else Roster.of_targets([self.target])

    @property
    def n_members(self) -> int:
        """Members of the OUT arm, over the coins of the design: what a private training may know of their number."""
        return len(self.members) if self.n_expected is None else self.n_expected

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

    def holding(self, reserve: np.ndarray, like: np.ndarray | None = None) -> Task:
        """The same training with records in reserve, on which it is not tested, nor on those that are `like` them."""
        return replace(self, reserve=reserve, test_ids=self.test_ids[~np.isin(self.test_ids, reserve if like is None else like)])

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
