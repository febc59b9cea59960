"""The records of a given model's audit: its members and non-members, and those that reference models know besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from memleak import randomness
from memleak.designs.tasks import Records, Roster, is_among, rows_of


class OverlapError(ValueError):
    """Members and non-members that are not apart; the text says how many."""


@dataclass(frozen=True)
class Audited:
    """Rows of the members and non-members that are audited, and of the other records that references are asked about; sorted."""

    members: np.ndarray  # [n]
    non_members: np.ndarray  # [n]
    others: np.ndarray  # [n] of the shadow pool

    @property
    def rows(self) -> np.ndarray:
        """All of them, sorted."""
        return np.sort(np.concatenate([self.members, self.non_members, self.others]))

    def roster(self, records: Records) -> Roster:
        return Roster.of_rows(self.rows, records)


def audited(query: Mapping[str, Any], records: Records) -> Audited:
    """The records that a given model is asked about. Raises OverlapError where a non-member equals a member and may not be dropped."""
    members, non_members = rows_of(records, [query["members"]]), rows_of(records, [query["non_members"]])
    is_twin = is_among(records.group_id[non_members], records.group_id[members])
    if is_twin.any() and query["overlap"] == "refuse":
        raise OverlapError(
            f"{int(is_twin.sum())} of the {len(non_members)} records of '{query['non_members']}' equal one of '{query['members']}' (or are of one unit with it), "
            f"the first is row {int(is_twin.argmax())}; whoever trained on its twin has seen it: remove them, or set overlap: drop in the design"
        )
    non_members = non_members[~is_twin]
    if not len(members) or not len(non_members):
        raise OverlapError(f"{len(members)} members and {len(non_members)} non-members are left; an audit takes some of each")
    n = query.get("sample")
    chosen = [_sampled(rows, n, query["seed"], side) for side, rows in (("members", members), ("non-members", non_members))]
    others = rows_of(records, query["others"]) if query.get("others") else np.empty(0, dtype=np.int64)
    return Audited(chosen[0], chosen[1], others)


def _sampled(rows: np.ndarray, n: int | None, seed: int, side: str) -> np.ndarray:
    return rows if n is None or n >= len(rows) else np.sort(randomness.generator(seed, "audited", side).permutation(rows)[:n])
