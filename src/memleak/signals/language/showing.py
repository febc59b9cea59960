"""How texts are shown to a model: the records of a query in each of its views."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from memleak import randomness
from memleak.data import Dataset
from memleak.designs import Roster, is_among, population_of, rows_of
from memleak.signals import SignalError, text_views

PREFIX = "prefix-"  # a view: so many texts before each


class Showing:
    """The texts of a roster, in views by number."""

    def __init__(self, asked: Mapping[str, Any], dataset: Dataset, roster: Roster, reserve: int = 0) -> None:
        self.names = text_views.expand(asked["views"])
        self._asked, self._dataset, self._roster, self._reserve = asked, dataset, roster, reserve

    @cached_property
    def _texts(self) -> np.ndarray:
        return self._dataset.inputs[self._roster.source_id]

    @cached_property
    def _words(self) -> list[str]:
        """Every word of the data set, members' or not: what neighbours are made of."""
        return text_views.words_of(self._dataset.inputs)

    @cached_property
    def _shots(self) -> np.ndarray:
        """Rows of the texts that a prefix is made of, the first ones first, drawn by the seed: in no training set, and none an audited record."""
        asked, dataset, n = self._asked, self._dataset, max(n_shots(name) for name in self.names)
        if "shots" in asked:
            rows = rows_of(dataset, [asked["shots"]])
            others = [row for name, part in dataset.parts.items() if name != asked["shots"] for row in range(*part)]
            rows = rows[~is_among(dataset.group_id[rows], dataset.group_id[others])]
        else:
            rows = population_of(dataset, asked.get("pool"), None, asked["seed"], self._reserve)
        drawn = randomness.generator(asked["seed"], "shots").permutation(rows)
        drawn = drawn[np.sort(np.unique(dataset.group_id[drawn], return_index=True)[1])]
        if len(drawn) <= n:  # one more than a prefix has: for a text that is among them itself
            raise SignalError(
                f"{PREFIX}{n}: it takes {n + 1} texts outside every training set, {len(drawn)} are there; give the design a smaller pool, "
                "or a given model's a larger population"
            )
        return drawn[: n + 1]

    def shown(self, number: int) -> tuple[list[str] | None, list[str]]:
        """What stands before each text, None where nothing does, and the texts in one view, [N] each."""
        name, ids = self.names[number], self._roster.sample_id
        n = n_shots(name)
        if not n:
            return text_views.shown(self._texts, ids, name, (), self._words if name.startswith("neighbours") else ())
        prefixes, texts = text_views.shown(self._texts, ids, name, self._said(self._shots[:n]))
        assert prefixes is not None
        groups = self._dataset.group_id[self._roster.source_id]
        for i in np.flatnonzero(is_among(groups, self._dataset.group_id[self._shots[:n]])):  # of the population: a text never stands before itself
            others = self._shots[self._dataset.group_id[self._shots] != groups[i]][:n]
            before, _ = text_views.shown(self._texts[i : i + 1], ids[i : i + 1], name, self._said(others))
            prefixes[i] = "".join(before or ())
        return prefixes, texts

    def _said(self, rows: np.ndarray) -> list[str]:
        return [self._dataset.inputs[row] for row in rows]


def n_shots(name: str) -> int:
    """Texts that a view puts before each."""
    return int(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else 0
