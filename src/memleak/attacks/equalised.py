"""Evidence in which every sample has equally many IN and OUT references, for models that were drawn together.

Where all models of a run were drawn so that each sample is in equally many training sets, as LiRA's usually are, the
number of IN references among all models but the target tells whether the target trained on it.
"""

from __future__ import annotations

import numpy as np

from memleak import randomness
from memleak.attacks import AttackError, Pool, Turn

DRAWN_AT_ONCE = 1_000_000  # random numbers held at a time


def equalised(pool: Pool, turn: Turn) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Reference signals [2K, N, ...] and `is_in` [2K, N], K of either kind for every sample; and 2K models for the population.

    K is the smallest number of IN, or of OUT, references that a sample of this turn has; which of its own are taken is
    drawn for each sample, so that a row is one model for this sample and another for the next. Rows 2j and 2j + 1 are
    complements, as in a design of halves, and a coin decides which of them is IN: who holds a row out to tune an
    attack, and its complement with it, leaves equal counts.
    """
    n_each, n_samples = _fewest(pool, turn), pool.is_in.shape[1]
    key = randomness.derive(0, "equalised", *np.sort(turn.references).tolist())  # equal references are drawn alike, whoever is the target
    sample_id = np.arange(n_samples) if pool.sample_id is None else np.asarray(pool.sample_id, dtype=np.int64)
    is_in = np.empty((2 * n_each, n_samples), dtype=bool)
    reference = {name: np.empty((2 * n_each, *values.shape[1:]), values.dtype) for name, values in pool.signals.items()}
    step = max(1, DRAWN_AT_ONCE // len(turn.references))
    for start in range(0, n_samples, step):
        columns = np.arange(start, min(start + step, n_samples))
        rows = turn.references[_equal_draw(pool.is_in[np.ix_(turn.references, columns)], n_each, key, sample_id[columns])]  # [2K, n]
        is_in[:, columns] = pool.is_in[rows, columns]
        for name, values in pool.signals.items():
            reference[name][:, columns] = values[rows, columns]
    models = randomness.generator(key, "population").permutation(turn.references)
    return reference, is_in, np.sort(models[: 2 * n_each])


def _fewest(pool: Pool, turn: Turn) -> int:
    """The smallest number of IN, or of OUT, references that a sample has in a turn; at least 1."""
    n_in = np.asarray(pool.is_in[turn.references]).sum(axis=0)
    fewest = np.minimum(n_in, len(turn.references) - n_in)
    if not fewest.size or fewest.min() == 0:
        worst = int(fewest.argmin()) if fewest.size else 0
        name = worst if pool.sample_id is None else pool.sample_id[worst]
        found = f"{int(n_in[worst])} IN and {len(turn.references) - int(n_in[worst])} OUT" if fewest.size else "no"
        raise AttackError(
            f"sample {name} has {found} references; the models of this audit were drawn together, so that every sample must be given "
            "as many of both kinds, at least 1 each; add models, or leave such samples out"
        )
    return int(fewest.min())


def _equal_draw(is_in: np.ndarray, n_each: int, key: int, sample_id: np.ndarray) -> np.ndarray:
    """Which of the references [R, n] stand in the rows of equalised evidence, [2K, n]: K IN and K OUT ones of each sample, in random pairs."""
    rows = np.arange(len(is_in))
    drawn = randomness.counter_bits(key, sample_id[:, None], rows)  # [n, R]
    keyed = (~is_in.T).astype(np.int64) << 48 | drawn << 16 | rows  # sorted as numbers, twice as fast as by argsort
    order = np.sort(keyed, axis=1) & 0xFFFF  # IN references first, each kind in random order
    inside, outside = order[:, :n_each], order[:, len(rows) - n_each :]
    is_first = randomness.counter_bits(key, sample_id[:, None], len(rows) + np.arange(n_each)) & 1
    pairs = np.stack([np.where(is_first, inside, outside), np.where(is_first, outside, inside)], axis=2)
    return pairs.reshape(len(sample_id), 2 * n_each).T
