"""Which texts say the same: how much of a text stands in others word by word, and which texts are all but equal.

A non-member that stands in a member was trained on; counted as a non-member it hides what a model leaks (Duan et al.
2024, "Do Membership Inference Attacks Work on Large Language Models?", who drop non-members of which 80 % stand in the
training data, in 13-grams of words). Words are compared after NFKC, without case, punctuation and line breaks. Texts of
fewer than 13 words are compared by 5-grams, those of fewer than 5 words as a whole.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

N_GRAM, SHORT_GRAM = 13, 5  # words
NEAR = 0.8  # share of a text's n-grams in another one, from which on the two count as one
QUIET_SECONDS = 3  # a bar is shown where it takes longer
_WORDS = re.compile(r"\w+")
_PAIRS_AT_ONCE = 2_000_000  # candidates that are compared at once: about 100 MB
_GRAMS_AT_ONCE = 5_000_000  # of the other texts: 40 MB
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: of the polynomial by which the hashes of words become one of an n-gram


def normal(text: str) -> str:
    """A text as it is compared: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def containment(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """The share of each text's different n-grams that stand in any of the others, [n]; of texts of a few words 1 or 0."""
    words, found = _Words(), np.zeros(len(texts))
    mine = [words.of(text) for text in texts]
    whole = {normal(text) for text in others}
    for row, text in enumerate(texts):
        found[row] = len(mine[row]) < SHORT_GRAM and normal(text) in whole
    for size, rows in _by_size(mine):
        grams = [_grams(mine[row], size) for row in rows]
        flat = np.concatenate([*grams, np.zeros(0, np.uint64)])
        is_there = np.zeros(len(flat), dtype=bool)
        for some in _chunks(words, others, size):
            is_there |= np.isin(flat, some)
        counts = np.array([len(one) for one in grams], dtype=np.int64)
        found[rows] = np.bincount(np.repeat(np.arange(len(rows)), counts), is_there, minlength=len(rows)) / counts
    return found


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """A group for each text, numbered by first appearance, [n]: equal ones, and those of which one stands in the other to 80 %.

    Groups are connected components. Long texts are compared with long ones and short ones with short ones: a sentence
    that many long texts have in common does not make them one.
    """
    equal = equals(texts)
    first = np.unique(equal, return_index=True)[1]
    words = _Words()
    mine = [words.of(texts[row]) for row in tqdm(first, "near duplicates", unit="text", delay=QUIET_SECONDS, disable=None)]
    group = np.arange(len(first))
    for size, rows in _by_size(mine):
        group[rows] = rows[_components([_grams(mine[row], size) for row in rows])]
    return pd.factorize(group[equal])[0].astype(np.int64)


def equals(texts: Sequence[str]) -> np.ndarray:
    """A group for all texts that are equal but for case, white space and forms of letters, numbered by first appearance, [n]."""
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(hashlib.sha256(normal(text).encode()).digest(), len(known)) for text in texts], dtype=np.int64)


class _Words:
    """Words as random numbers, the same for the same word on every machine."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def of(self, text: str) -> np.ndarray:
        """The words of a text, uint64 [K]."""
        words = _WORDS.findall(normal(text))
        for word in words:
            if word not in self._number:
                self._number[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.array([self._number[word] for word in words], dtype=np.uint64)


def _by_size(words: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """The n-grams by which texts are compared, and which texts these are; those of a few words have none."""
    n_words = np.array([len(one) for one in words], dtype=np.int64)
    for size, is_of in ((N_GRAM, n_words >= N_GRAM), (SHORT_GRAM, (n_words >= SHORT_GRAM) & (n_words < N_GRAM))):
        if is_of.any():
            yield size, np.flatnonzero(is_of)


def _grams(words: np.ndarray, size: int) -> np.ndarray:
    """The different n-grams of a text, as hashes, uint64 [n], sorted."""
    n = len(words) - size + 1
    if n <= 0:
        return np.zeros(0, dtype=np.uint64)
    found = np.zeros(n, dtype=np.uint64)
    for place in range(size):
        found = found * _BASE + words[place : place + n]  # modulo 2**64
    return np.unique(found)


def _chunks(words: _Words, texts: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """The n-grams of many texts, some millions at a time."""
    some: list[np.ndarray] = []
    n = 0
    for text in tqdm(texts, "overlap", unit="text", delay=QUIET_SECONDS, disable=None):
        some.append(_grams(words.of(text), size))
        n += len(some[-1])
        if n > _GRAMS_AT_ONCE:
            yield np.concatenate(some)
            some, n = [], 0
    if n:
        yield np.concatenate(some)


def _components(grams: Sequence[np.ndarray]) -> np.ndarray:
    """A number from 0 to n-1 for each text, [n], equal for those that are joined, from the n-grams of each.

    A text of g n-grams of which 80 % stand in another one shares with it one of any g - ceil(.8 g) + 1: only texts that
    have one of its rarest so many are compared with it.
    """
    holds, df = _matrix(grams)
    index = holds.T.tocsr()  # of each n-gram, the texts that hold it
    least = np.ceil(NEAR * np.diff(holds.indptr) - 1e-9)  # n-grams that must be shared
    component = np.arange(len(grams))
    for probing, probes in _probes(holds, df, least):
        for one, other in _candidates(index, probing, probes, component, np.diff(holds.indptr)):
            is_near = holds[one].multiply(holds[other]).sum(axis=1) >= least[one]
            edges = component[one[is_near]], component[other[is_near]]
            graph = coo_array((np.ones(len(edges[0])), edges), shape=(len(grams), len(grams)))
            component = connected_components(graph, directed=False)[1][component]
    return component


def _matrix(grams: Sequence[np.ndarray]) -> tuple[csr_array, np.ndarray]:
    """Which text holds which n-gram, [n, G] of 1, the rarest n-grams of each text first; and how many texts hold each, [G]."""
    n_grams = np.array([len(one) for one in grams], dtype=np.int64)
    _, column, df = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    row = np.repeat(np.arange(len(grams)), n_grams)
    order = np.lexsort((column, df[column], row))
    start = np.concatenate([[0], np.cumsum(n_grams)])
    return csr_array((np.ones(len(column), dtype=np.int32), column[order], start), shape=(len(grams), len(df))), df


def _probes(holds: csr_array, df: np.ndarray, least: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Texts and their rare n-grams that others hold too, as pairs, in chunks of bounded work."""
    n_grams = np.diff(holds.indptr)
    row = np.repeat(np.arange(len(n_grams)), n_grams)
    place = np.arange(len(row)) - np.repeat(holds.indptr[:-1], n_grams)
    is_probe = (place < (n_grams - least + 1)[row]) & (df[holds.indices] > 1)
    rows, probes = row[is_probe], holds.indices[is_probe]
    chunk = np.cumsum(df[probes]) // _PAIRS_AT_ONCE
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(chunk)) + 1):
        if len(part):
            yield rows[part], probes[part]


def _candidates(
    index: csr_array, probing: np.ndarray, probes: np.ndarray, component: np.ndarray, n_grams: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of texts that share a probe and are not yet joined, each pair once, in chunks of bounded size."""
    counts = np.diff(index.indptr)[probes]
    one = np.repeat(probing, counts)
    place = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    other = index.indices[np.repeat(index.indptr[probes], counts) + place]
    is_new = component[one] != component[other]
    pairs = np.unique(one[is_new].astype(np.int64) * len(n_grams) + other[is_new])
    one, other = pairs // len(n_grams), pairs % len(n_grams)
    chunk = np.cumsum(n_grams[one] + n_grams[other]) // _GRAMS_AT_ONCE
    for part in np.split(np.arange(len(pairs)), np.flatnonzero(np.diff(chunk)) + 1):
        if len(part):
            yield one[part], other[part]
