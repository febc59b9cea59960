"""The laws of a step of a release: it gives probabilities, of each answer by itself, and keeps what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from scipy import special

from memleak import plugins, randomness
from memleak.contracts import Finding, judged
from memleak.params import ParamsError, plugin_options, sentences
from memleak.signals import SignalError
from memleak.signals.release import LEAST, stepped

N_ANSWERS = 400  # of a made-up model: unsure ones, sure ones, and some that are hard to handle
N_ALONE = 20  # of them, released by themselves
TOLERANCE = 1e-9  # of a probability


def made(n_classes: int) -> np.ndarray:
    """Answers [n, C]: softmaxes of logits, the first less sure and the last nearly certain; before them all alike, two that tie, and one certain."""
    draw = randomness.generator(0, "check releases", n_classes)
    spread = np.geomspace(0.3, 15, N_ANSWERS)[:, None]
    tied = np.zeros(n_classes)
    tied[-2:] = 3.0
    hard = [np.full(n_classes, 1 / n_classes), special.softmax(tied), np.eye(n_classes)[0]]
    return np.concatenate([hard, special.softmax(spread * draw.normal(0, 1, (N_ANSWERS, n_classes)), axis=1)])


def check(name: str, options: Mapping[str, Any], n_classes: int) -> Iterator[Finding]:
    """The laws, one after the other; after a first answer that fails nothing else is tried."""
    if not hasattr(plugins.module_of("releases", name), "Options"):
        raise SignalError(
            f"{name}: beside the function its module has no `class Options(memleak.params.Frozen)`; add one, empty if there are no options"
        )
    try:
        validated = plugin_options("releases", {"name": name, **options})
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in sentences(error))) from None
    yield from _laws(name, plugins.function_of("releases", name), validated, made(n_classes))


def _laws(name: str, function: Callable[[np.ndarray, Any], np.ndarray], options: BaseModel, p: np.ndarray) -> Iterator[Finding]:
    found: list[np.ndarray] = []
    least: list[float] = []
    label = p.argmax(axis=1)
    promises = bool(getattr(options, "keeps_label", False))

    def gives_probabilities() -> str:
        seen, least_seen = stepped(p, LEAST, name, options)
        found.append(seen)
        least.append(least_seen)
        n_below = int((seen < 0).sum())
        return f"{n_below} of {seen.size} are below 0" if n_below else ""

    def again() -> str:
        stepped(p[::-1][:50], LEAST, name, options)
        differing = _unlike(stepped(p, LEAST, name, options)[0], found[0])
        return differing and f"{differing} the second time; whoever asks often averages such noise away: draw it from the answer, and keep nothing"

    def order() -> str:
        mixed = randomness.generator(1, "check releases").permutation(len(p))
        differing = _unlike(stepped(p[mixed], LEAST, name, options)[0], found[0][mixed])
        return differing and f"{differing} once they are in another order; an answer belongs to its record"

    def alone() -> str:
        rows = [*range(3), *range(3, len(p), len(p) // N_ALONE)]
        seen = np.concatenate([stepped(p[[row]], LEAST, name, options)[0] for row in rows])
        differing = _unlike(seen, found[0][rows])
        return differing and f"{differing} once they are released by themselves; use nothing of other rows, such as their mean"

    def input_stays() -> str:
        given = p.copy()
        function(given, options)
        return "" if np.array_equal(given, p) else "the array was written to; copy it first"

    def keeps() -> str:
        lost = found[0].argmax(axis=1) != label
        if not lost.any():
            return ""
        return f"{int(lost.sum())} of {len(p)} answers have another label, the first is {p[lost][0].round(3).tolist()}" + (
            "; keep it (`memleak.signals.releases.keep_label`), or do not promise keeps_label" if promises else ", which costs accuracy"
        )

    def zeros() -> str:
        n_zero = int((found[0] == 0).sum()) - int((p == 0).sum())
        if n_zero <= 0 or least[0] > LEAST:
            return ""
        return (
            f"{n_zero} of {p.size} probabilities are 0 and count as {LEAST:.1g}, which makes losses of hundreds of nats; "
            "let `Options.least(before, n_classes)` say what a 0 stands for"
        )

    def hides() -> str:
        return "every answer is released as it was" if np.allclose(found[0], p, rtol=0, atol=TOLERANCE) else ""

    first = judged("it gives a probability of every class, which sum to 1", gives_probabilities)
    yield first
    if first.state == "broken":
        return
    repeated = judged("the same answers are released alike", again)
    yield repeated
    if repeated.state == "kept":  # otherwise they differ for that alone
        yield judged("the order of the answers changes nothing", order)
        yield judged("an answer is released alike whatever is asked beside it", alone)
    yield judged("what it is given stays as it was", input_stays)
    yield judged("the label stays, as it promises" if promises else "the label stays", keeps, "broken" if promises else "doubtful")
    yield judged("what is released as 0 stands for something", zeros, "doubtful")
    yield judged("it changes something", hides, "doubtful")


def _unlike(one: np.ndarray, other: np.ndarray) -> str:
    """By how much released answers differ; '' where they do not."""
    difference = np.abs(one - other).max(axis=1)
    n = int((difference > TOLERANCE).sum())
    return f"{n} of {len(one)} answers differ, by up to {difference.max():.2g}," if n else ""
