"""Who trains on what: pure functions that draw subsets, audited records and batch sequences; no torch.

A design cuts its models into shards (`Rounds`, `Complements`, `Coins`, `Splits`), each of which knows its `name` from
declarations alone and draws its `tasks` once the data is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memleak.designs.given import Audited, OverlapError, audited
from memleak.designs.pairs import Rounds, rounds_of
from memleak.designs.pools import Coins, Complements, Splits, canaries_of, directions_of
from memleak.designs.tasks import N_TEST, Records, Roster, Target, Task, is_among, pool_of, population_of, reserve_of, resolve_target, rows_of

__all__ = [
    "N_TEST", "Audited", "Coins", "Complements", "OverlapError", "Records", "Roster", "Rounds", "Shard", "Splits", "Target", "Task", "audited",
    "canaries_of", "is_among", "pool_of", "population_of", "reserve_of", "resolve_target", "roster_of", "rounds_of", "rows_of", "shard_json", "shard_of",
]  # fmt: skip

Shard = Rounds | Complements | Coins | Splits


def shard_json(shard: Shard) -> dict[str, Any]:
    """What a shard is made of, as JSON."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(shard).items() if value not in (None, ())}


def shard_of(known: Mapping[str, Any]) -> Shard:
    """The shard that `shard_json` described."""
    kinds: dict[str, type[Shard]] = {"halves": Complements, "canaries": Coins, "shadow": Splits}
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return kinds[facts["kind"]](**facts) if "kind" in facts else Rounds(**{"target": None, **facts})


def roster_of(query: Mapping[str, Any], records: Records) -> Roster:
    """The samples that a query asks about, resolved now that the data is there."""
    seed, pool = query["seed"], query.get("pool")
    match query["samples"]:
        case "targets":
            return Roster.of_targets([resolve_target(name, records, seed, pool) for name in query["targets"]])
        case "pool":
            return Roster.of_rows(pool_of(records, pool, seed), records)
        case "canaries":
            return (
                directions_of(records, query["canaries"])
                if "space" in query
                else canaries_of(records, query["canaries"], query["mislabelled"], pool, seed)
            )
        case "given":
            return audited(query, records).roster(records)
        case "population" if "parts" in query:
            return Roster.of_rows(rows_of(records, query["parts"]), records)
        case "population":
            return Roster.of_rows(population_of(records, pool, query.get("n"), seed, query.get("reserve", 0)), records)
    raise ValueError(f"samples '{query['samples']}' of a query are not known; expected targets, pool, canaries, given or population")
