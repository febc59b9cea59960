"""Who trains on what: pure functions that draw subsets, audited records and batch sequences; no torch.

A design cuts its models into shards (`Rounds`, `Complements`, `Coins`), each of which knows its `name` from declarations
alone and draws its `tasks` once the data is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memleak.designs.pairs import Rounds, rounds_of
from memleak.designs.pools import Coins, Complements, canaries_of
from memleak.designs.tasks import N_TEST, Records, Roster, Target, Task, pool_of, population_of, resolve_target

__all__ = [
    "N_TEST", "Coins", "Complements", "Records", "Roster", "Rounds", "Shard", "Target", "Task", "canaries_of", "pool_of",
    "population_of", "resolve_target", "roster_of", "rounds_of", "shard_json", "shard_of",
]  # fmt: skip

Shard = Rounds | Complements | Coins


def shard_json(shard: Shard) -> dict[str, Any]:
    """What a shard is made of, as JSON."""
    return {key: value for key, value in vars(shard).items() if value is not None}


def shard_of(known: Mapping[str, Any]) -> Shard:
    """The shard that `shard_json` described."""
    kinds: dict[str, type[Shard]] = {"halves": Complements, "canaries": Coins}
    return kinds[known["kind"]](**known) if "kind" in known else Rounds(**{"target": None, **known})


def roster_of(query: Mapping[str, Any], records: Records) -> Roster:
    """The samples that a query asks about, resolved now that the data is there."""
    seed, pool = query["seed"], query.get("pool")
    match query["samples"]:
        case "targets":
            return Roster.of_targets([resolve_target(name, records, seed, pool) for name in query["targets"]])
        case "pool":
            return Roster.of_rows(pool_of(len(records.labels), pool, seed), records)
        case "canaries":
            return canaries_of(records, query["canaries"], query["mislabelled"], pool, seed)
        case "population":
            return Roster.of_rows(population_of(records, pool, query.get("n"), seed), records)
    raise ValueError(f"samples '{query['samples']}' of a query are not known; expected targets, pool, canaries or population")
