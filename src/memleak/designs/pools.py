"""Designs in which every model trains on its own draw of a pool, and each may be the target in turn, or a reference.

`halves`: models 2k and 2k+1 train on complementary halves of the pool, so that every even number of models holds
each sample equally often. `canaries`: all models share a base, and independent coins decide which canaries each
trains on, as one-run audits need (Steinke et al. 2023). `shadow`: each model trains on a random half of a shadow pool
(Shokri et al. 2017), or all on one set of the user's. Models that were not drawn independently share a `unit`: a
model's references are those of other units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from memleak import provenance, randomness
from memleak.designs.tasks import N_TEST, Records, Roster, Task, is_among, outside_of, pool_of, rows_of


@dataclass(frozen=True)
class _Run(ABC):
    """Models `first` to `last` of a design, named one after the other."""

    seed: int
    first: int
    last: int  # exclusive

    @abstractmethod
    def model_id(self, model: int) -> str: ...

    @property
    def name(self) -> str:
        return f"{self.model_id(self.first)}-{self.last:04d}"

    def model_ids(self) -> list[str]:
        return [self.model_id(model) for model in range(self.first, self.last)]


@dataclass(frozen=True)
class Complements(_Run):
    """A run of models of the design `halves`."""

    pool: int | None = None
    parts: tuple[str, ...] = ()  # of the data set, whose records are the pool
    kind: str = "halves"

    def model_id(self, model: int) -> str:
        return f"halves{f'-p{self.pool}' if self.pool else ''}{_digest_of(self.parts)}-s{self.seed}-m{model:04d}"

    def tasks(self, records: Records) -> list[Task]:
        """The trainings: halves of the pool's groups, since equal records go together."""
        inside = rows_of(records, self.parts) if self.parts else pool_of(records, self.pool, self.seed)
        beyond = np.empty(0, dtype=np.int64) if self.parts else outside_of(len(records.labels), inside)  # another part may be another kind of data
        outside = randomness.generator(self.seed, "test").permutation(beyond)
        groups = np.unique(records.group_id[inside])
        found = []
        for model in range(self.first, self.last):
            unit, side = divmod(model, 2)
            order = randomness.generator(self.seed, "halves", unit).permutation(groups)
            is_member = is_among(records.group_id[inside], order[: (len(order) + unit % 2) // 2]) ^ bool(side)
            rest = np.concatenate([outside, inside[~is_member]])
            key = randomness.derive(self.seed, "half", model)
            found.append(Task(self.model_id(model), unit, "pool", "half", key, inside[is_member], None, None, rest[:N_TEST]))
        return found


@dataclass(frozen=True)
class Splits(_Run):
    """A run of shadow models: each on a random half of the groups of a pool, or all on the part `train` and not on `out`."""

    parts: tuple[str, ...] = ()
    train: str | None = None
    out: str | None = None
    kind: str = "shadow"

    def model_id(self, model: int) -> str:
        return f"shadow{_digest_of(self.parts or (str(self.train), 'not', str(self.out)))}-s{self.seed}-m{model:04d}"

    def tasks(self, records: Records) -> list[Task]:
        """The trainings; halves are drawn anew for each model."""
        found = []
        for model in range(self.first, self.last):
            members, rest = self._split(model, records)
            if not len(members) or not len(rest):
                raise ValueError(f"{self.name}: {len(members)} records to train on and {len(rest)} held out; a shadow model takes some of each")
            key = randomness.derive(self.seed, "shadow", model)
            test = randomness.generator(self.seed, "shadow test", model).permutation(rest)[:N_TEST]
            found.append(Task(self.model_id(model), model, "pool", "shadow", key, members, None, None, test))
        return found

    def _split(self, model: int, records: Records) -> tuple[np.ndarray, np.ndarray]:
        """Records that a model trains on, and those that it does not, none of which equals one of the former."""
        if self.train is not None and self.out is not None:
            members, rest = rows_of(records, [self.train]), rows_of(records, [self.out])
            return members, rest[~is_among(records.group_id[rest], records.group_id[members])]
        inside = rows_of(records, self.parts)
        order = randomness.generator(self.seed, "shadow", model).permutation(np.unique(records.group_id[inside]))
        is_member = is_among(records.group_id[inside], order[: len(order) // 2])
        return inside[is_member], inside[~is_member]


@dataclass(frozen=True)
class Coins(_Run):
    """A run of models of the design `canaries`."""

    canaries: int
    subset_size: int
    mislabelled: bool = False
    pool: int | None = None
    space: str | None = None  # gradient: a canary is a gradient of its own, not a record
    kind: str = "canaries"

    def model_id(self, model: int) -> str:
        which = f"{self.space or ('wrong' if self.mislabelled else 'canaries')}-c{self.canaries}"
        return f"{which}{f'-p{self.pool}' if self.pool else ''}-n{self.subset_size}-s{self.seed}-m{model:04d}"

    def tasks(self, records: Records) -> list[Task]:
        """The trainings: the base, and those canaries whose coin fell so."""
        chosen, rest = _canaries_and_rest(records, 0 if self.space else self.canaries, self.pool, self.seed)
        base, outside = rest[: self.subset_size], rest[self.subset_size :]
        if len(base) < self.subset_size or not len(outside):
            raise ValueError(
                f"{self.name}: beside {len(chosen)} canaries the pool has {len(rest)} records equal to none of them, "
                f"subset_size asks for {self.subset_size} and some must stay outside; lower it"
            )
        roster = directions_of(records, self.canaries) if self.space else canaries_of(records, self.canaries, self.mislabelled, self.pool, self.seed)
        found = []
        for model in range(self.first, self.last):
            is_in = randomness.generator(self.seed, "coins", model).random(len(roster)) < 0.5
            held, key = roster.sample_id[is_in], randomness.derive(self.seed, "coins", model)
            task = Task(self.model_id(model), model, "pool", "coins", key, base, None, None, outside[:N_TEST], n_expected=len(base))
            if self.space:
                found.append(replace(task, directions=held, all_directions=roster.sample_id))
            else:
                found.append(replace(task, members=np.concatenate([base, held]), canaries=roster, n_expected=len(base) + self.canaries // 2))
        return found


def _digest_of(parts: tuple[str, ...]) -> str:
    """What stands for some parts of the data set in a name."""
    return f"-p{provenance.digest(list(parts), 4)}" if parts else ""


def _canaries_and_rest(records: Records, n: int, pool: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Source rows of the canaries, no two of them equal, sorted; and in random order the pool's records that equal none of them."""
    order = randomness.generator(seed, "canaries").permutation(pool_of(records, pool, seed))
    _, first = np.unique(records.group_id[order], return_index=True)
    distinct = order[np.sort(first)]
    if n > len(distinct):
        raise ValueError(f"canaries: {n} asked for, the pool has {len(distinct)} different records; lower canaries")
    chosen = np.sort(distinct[:n])
    return chosen, order[~np.isin(records.group_id[order], records.group_id[chosen])]


def canaries_of(records: Records, n: int, mislabelled: bool, pool: int | None, seed: int) -> Roster:
    """The audited samples of a `canaries` design: records of the pool, or copies of them with a wrong label."""
    rows, _ = _canaries_and_rest(records, n, pool, seed)
    if not mislabelled:
        return Roster.of_rows(rows, records)
    wrong = randomness.generator(seed, "wrong labels").integers(1, records.n_classes, n)
    return Roster(len(records.labels) + np.arange(n), rows, (np.asarray(records.labels)[rows] + wrong) % records.n_classes)


def directions_of(records: Records, n: int) -> Roster:
    """Canaries that are gradients of their own (Nasr et al. 2023; Steinke et al. 2023): of no row, which is -1, and of no label, 0."""
    return Roster(len(records.labels) + np.arange(n), np.full(n, -1), np.zeros(n, dtype=np.int64))
