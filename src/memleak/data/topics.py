"""Passages of the documentation that ships with every Python: texts for audits that need no download.

`pydoc_data.topics`, which `help()` shows, has some 50,000 words in 79 topics. The topics are dealt out to two sets of
passages: one to audit, and one to train a base model on that knows the style and has seen none of the audited.
"""

from __future__ import annotations

import platform
import re

import numpy as np

from memleak import params, randomness
from memleak.data import DataError, Samples, overlap

LICENCE = "Python documentation: PSF License Version 2"
LEAST_WORDS, MOST_WORDS = 14, 24  # of a passage before it ends, and of a piece that it is put together of: 2,600 passages or more
LEAST_OF_LAST = 8  # words of what is left at the end of a topic
_PARAGRAPH, _PIECE, _RULE = re.compile(r"\n\s*\n"), re.compile(r"(?<=[.:;!?)])\s+"), re.compile(r"[*=\-^~]{4,}")


def load(source: str | None = None) -> Samples:
    """1,200 passages of about 20 words, with the column `topic`; none is labelled."""
    return _dealt("python_topics", 0, source)


def load_rest(source: str | None = None) -> Samples:
    """1,200 passages of the other topics, alike in style; none contains one of `python_topics`, nor is contained in one.

    A base for models that are fine-tuned on `python_topics`, and never its non-members: topics tell the two apart without a model (blind AUC .84).
    """
    return _dealt("python_topics_rest", 1, source)


def _dealt(name: str, side: int, source: str | None) -> Samples:
    """One of the two sets, in a fixed order that mixes its topics."""
    if source is not None:
        raise DataError(f"{name}: source '{source}' is given, but these texts ship with Python; leave source out")
    sides = _sides(_topics())
    texts = [[passage for _, passage in side] for side in sides]
    is_first = np.isin(np.arange(len(texts[side])), np.unique(overlap.near_duplicates(texts[side]), return_index=True)[1])
    is_kept = is_first & (overlap.containment(texts[side], texts[1 - side]) < overlap.NEAR)
    found = [sides[side][row] for row in np.flatnonzero(is_kept)]
    n = params.DECLARED_SIZES[name]
    if len(found) < n:
        raise DataError(
            f"{name}: the documentation of Python {platform.python_version()} gives {len(found)} passages, {n} are expected; use Python 3.11 to 3.14"
        )
    chosen = [found[row] for row in randomness.generator(0, name).permutation(len(found))[:n]]
    topics, passages = (np.array(values, dtype=object) for values in zip(*chosen, strict=True))
    notes = {"python": ".".join(platform.python_version_tuple()[:2])}
    return Samples(passages, np.zeros(n, dtype=np.int64), licence=LICENCE, notes=notes, columns={"topic": topics})


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics

    return topics


def _sides(topics: dict[str, str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Passages, and the topic of each, of the two sets; the largest topics are dealt first, so that both get as much."""
    seen: set[str] = set()
    passages = {topic: _passages(topics[topic], seen) for topic in sorted(topics)}
    sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for place, topic in enumerate(sorted(passages, key=lambda topic: (-len(passages[topic]), topic))):
        sides[place % 4 in (1, 2)].extend((topic, passage) for passage in passages[topic])
    return sides


def _passages(text: str, seen: set[str]) -> list[str]:
    """The passages of a topic. A paragraph that another topic has too counts for the first alone; `seen` is added to."""
    found: list[str] = []
    words: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(_RULE.sub(" ", paragraph).split())
        if line in seen or not re.search(r"\w", line):
            continue
        seen.add(line)
        for piece in _pieces(line):
            words += piece
            if len(words) >= LEAST_WORDS:
                found.append(" ".join(words))
                words = []
    return [*found, " ".join(words)] if len(words) >= LEAST_OF_LAST else found


def _pieces(line: str) -> list[list[str]]:
    """The words of each sentence; of a long one, of each of its equal parts."""
    found = []
    for sentence in _PIECE.split(line):
        words = sentence.split()
        n = -(-len(words) // MOST_WORDS)
        found += [words[len(words) * i // n : len(words) * (i + 1) // n] for i in range(n)]
    return found
