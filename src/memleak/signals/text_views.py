"""Views of texts: as they are, in lower case, with some words exchanged, or after other texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from memleak import randomness
from memleak.params.audits import OF_TEXTS
from memleak.signals.views import ViewError

EXCHANGED = 0.1  # of a text's words, in a neighbour of it
LEAST_TEXTS = 2  # that a word stands in, to be one that others are exchanged for: a name of one text would give it away
MOST_WORDS = 5000
BETWEEN = "\n\n"  # two texts of a prefix
_WORD = re.compile(r"[^\W\d_]+")


def expand(names: Sequence[str]) -> list[str]:
    """The views of some families, in order, [Q]: `neighbours-5` is neighbours-5/0 to neighbours-5/4, the others are one view each."""
    if not names:
        raise ViewError("no view is asked for; give at least [identity]")
    if len(set(names)) != len(names):
        raise ViewError(f"views: {list(names)} names one family twice; every view counts once")
    return [view for name in names for view in _family(name)]


def _family(name: str) -> list[str]:
    if not re.fullmatch(f"identity|{OF_TEXTS}", name):
        raise ViewError(
            f"texts have no view '{name}'; known: identity, lowercase, neighbours-N (N copies with words exchanged), prefix-N (after N texts)"
        )
    family, _, number = name.partition("-")
    return [f"{name}/{copy}" for copy in range(int(number))] if family == "neighbours" else [name]


def words_of(texts: Iterable[str]) -> list[str]:
    """The words that neighbours may hold: the 5,000 that stand in most texts, of those that stand in two or more; lower case, by alphabet."""
    counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    common = sorted((word for word in counts if counts[word] >= LEAST_TEXTS), key=lambda word: (-counts[word], word))
    return sorted(common[:MOST_WORDS])


def shown(
    texts: np.ndarray, sample_id: np.ndarray, view: str, shots: Sequence[str] = (), vocabulary: Sequence[str] = ()
) -> tuple[list[str] | None, list[str]]:
    """What a model is shown of texts [n] in a view: what stands before each and is not scored, or None; and the texts.

    A neighbour has a tenth of its words, one at least, exchanged for words of `vocabulary`: an approximation, which
    needs no other model, of Mattern et al. 2023, "Membership Inference Attacks against Language Models via Neighbourhood
    Comparison", where a masked language model proposes the words. Which words are exchanged depends on the sample's id
    and the number of the copy, and on nothing else. A prefix is the same for all texts: the first N of `shots`, which
    stand in no training set (Xie et al. 2024, "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods").
    """
    found = [str(text) for text in texts]
    family, _, number = view.partition("-")
    if view == "identity":
        return None, found
    if view == "lowercase":
        return None, [text.lower() for text in found]
    if family == "neighbours":
        copy = int(number.partition("/")[2])
        if len(vocabulary) < 2:
            raise ViewError(
                f"view {view}: {len(vocabulary)} words are known to exchange others for, two or more are expected; give the words of all texts"
            )
        return None, [_neighbour(text, int(known), copy, vocabulary) for text, known in zip(found, sample_id, strict=True)]
    if family != "prefix":
        raise ViewError(f"texts have no view '{view}'; known: identity, lowercase, neighbours-N/copy, prefix-N")
    if len(shots) < int(number):
        raise ViewError(f"view {view}: {len(shots)} texts stand in no training set, {number} are needed before each text; enlarge the population")
    return ["".join(f"{shot}{BETWEEN}" for shot in shots[: int(number)])] * len(found), found


def _neighbour(text: str, sample_id: int, copy: int, vocabulary: Sequence[str]) -> str:
    """A text with some of its words exchanged; what stands between words stays. A text without words stays as it is."""
    spans = [match.span() for match in _WORD.finditer(text)]
    if not spans:
        return text
    key, places = randomness.derive(0, "neighbours"), np.arange(len(spans))
    order = np.argsort(randomness.counter_bits(key, places, sample_id, copy), kind="stable")
    draws = randomness.counter_bits(key, places, sample_id, copy, 1) % len(vocabulary)
    parts, end = [], 0
    for place in np.sort(order[: max(1, round(EXCHANGED * len(spans)))]):
        start, stop = spans[place]
        parts += [text[end:start], _other(text[start:stop], int(draws[place]), vocabulary)]
        end = stop
    return "".join([*parts, text[end:]])


def _other(word: str, draw: int, vocabulary: Sequence[str]) -> str:
    """The word drawn, or the one after it where it is the same; as capital as the one that it stands for."""
    drawn = vocabulary[draw]
    drawn = vocabulary[(draw + 1) % len(vocabulary)] if drawn.lower() == word.lower() else drawn
    return drawn[0].upper() + drawn[1:] if word[0].isupper() else drawn
