"""Distance of a sample to the decision boundary, by an attack that sees labels alone.

Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks", by HopSkipJump (Chen et al. 2020, "HopSkipJumpAttack: A
Query-Efficient Decision-Based Attack") of the adversarial-robustness-toolbox, which is installed with `memleak[boundary]`.
Only which class is largest is read from the answers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field, model_validator

from memleak import randomness
from memleak.params import Frozen
from memleak.signals import Asked, SignalError

N_STARTS = 20  # places, tried one after the other, for one that is answered wrongly
FIRST_EVALUATIONS = 20  # queries of the first estimate of the boundary's direction; the k-th takes sqrt(k) times as many


class Options(Frozen):
    """How often a sample is asked about, and where inputs may lie."""

    queries: int = Field(200, ge=50, le=10_000, description="most of each sample; more come nearer to the boundary")
    range: tuple[float, float] | None = Field(
        None, description="least and largest value of an input, in stored units (default: 0 to 255 of images, 0 to 1 of records that are 0 and 1)"
    )

    @model_validator(mode="after")
    def _goes_up(self) -> Options:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range: {self.range[0]:g} to {self.range[1]:g}; give the least value first, and a larger one")
        return self

    def range_of(self, record: np.ndarray) -> tuple[float, float]:
        """Where the values of a record may lie."""
        if self.range is not None:
            low, high = self.range
            if record.min() < low or record.max() > high:
                raise SignalError(
                    f"boundary_distance: a record goes from {record.min():g} to {record.max():g}, range says {low:g} to {high:g}; widen it"
                )
            return self.range
        if record.dtype == np.uint8:
            return 0.0, 255.0
        if ((record == 0) | (record == 1)).all():
            return 0.0, 1.0
        raise SignalError("boundary_distance: a table that is not of 0 and 1 has no range of its own; give range: [least, largest], in stored units")


class _Spent(Exception):
    """The queries of a sample are used up."""


class _Searched:
    """One sample in [0, 1], and what its neighbourhood was answered: counts the queries, keeps the nearest wrong answer's distance."""

    def __init__(self, inside: np.ndarray, is_wrong: Callable[[np.ndarray], np.ndarray], queries: int) -> None:
        self.inside, self.left = inside, queries
        self._is_wrong = is_wrong
        self.start: np.ndarray | None = None  # the first place that was answered wrongly
        self.nearest = np.inf  # distance of the nearest wrong answer
        self.farthest = 0.0  # of any answer

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Which of the places [n, ...] are answered wrongly; the sample itself and the start, known already, are no queries."""
        known = np.array([(place == self.inside).all() or (self.start is not None and (place == self.start).all()) for place in places])
        is_wrong = known & np.array([not (place == self.inside).all() for place in places])
        if (~known).any():
            is_wrong[~known] = self._ask(places[~known])
        return is_wrong

    def _ask(self, places: np.ndarray) -> np.ndarray:
        if len(places) > self.left or not np.isfinite(places).all():
            raise _Spent
        self.left -= len(places)
        is_wrong = self._is_wrong(places)
        distance = np.linalg.norm((places - self.inside).reshape(len(places), -1).astype(np.float64), axis=1)
        self.nearest = min(self.nearest, distance[is_wrong].min(initial=np.inf))
        self.farthest = max(self.farthest, distance.max())
        return is_wrong


def measure(asked: Asked, options: Options) -> np.ndarray:
    """L2 distance to the nearest input that is answered wrongly, float32 [n]: of images with values from 0 to 1, of tables in stored units.

    The nearest that was seen in at most `queries` queries: no distance is underestimated, and more queries come nearer.
    0 where the sample itself is answered wrongly; where nothing else is either, the distance of the farthest place
    that was tried. All draws belong to the sample, so that its value depends on no other.
    """
    attack = _library()
    distance = np.zeros(len(asked.label), np.float32)
    for i in np.flatnonzero(asked.logits.argmax(axis=1) == asked.label):
        record, label = asked.inputs[i], asked.label[i]
        low, high = options.range_of(record)

        def is_wrong(places: np.ndarray, low: float = low, high: float = high, label: int = label) -> np.ndarray:
            return asked.answer((low + (high - low) * places).astype(np.float32)).argmax(axis=1) != label

        found = _Searched(((record - np.float32(low)) / np.float32(high - low)).astype(np.float32), is_wrong, options.queries)
        _search(attack, found, int(asked.sample_id[i]))
        reached = found.nearest if np.isfinite(found.nearest) else found.farthest
        distance[i] = reached * (1.0 if record.dtype == np.uint8 else high - low)
    return distance


def _search(attack: Callable, found: _Searched, sample_id: int) -> None:
    """Ask around a sample until its queries are used up."""
    stream = randomness.generator(0, "boundary_distance", sample_id)
    for attempt in range(N_STARTS):
        place = 1 - found.inside if attempt == 0 else _noise(found.inside.shape, attempt, stream)
        if found(place[None])[0]:
            found.start = place
            break
    if found.start is None:
        return
    before = np.random.get_state()  # noqa: NPY002 - the library draws from NumPy's global state
    np.random.seed(int(stream.integers(2**32)))  # noqa: NPY002
    try:
        attack(found)
    except _Spent:
        pass
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _noise(shape: tuple[int, ...], attempt: int, stream: np.random.Generator) -> np.ndarray:
    """Uniform in [0, 1); every other image in squares of a quarter of a side, since fine noise looks like one or two classes only."""
    if len(shape) != 3 or attempt % 2 == 0:
        return stream.random(shape, np.float32)
    height, width = (-(-side // 4) for side in shape[:2])
    return stream.random((4, 4, shape[2]), np.float32).repeat(height, axis=0).repeat(width, axis=1)[: shape[0], : shape[1]]


def _library() -> Callable[[_Searched], None]:
    """HopSkipJump, from a start until it is stopped. Raises SignalError where the library is not installed."""
    try:
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifier
    except ImportError as error:
        raise SignalError(
            f"boundary_distance: the adversarial-robustness-toolbox cannot be imported ({error}); pip install memleak[boundary], "
            "or measure noise_robustness, which needs nothing else"
        ) from None

    def attack(found: _Searched) -> None:
        def predict(places: np.ndarray) -> np.ndarray:
            return np.eye(2, dtype=np.float32)[found(places).astype(int)]  # right, wrong

        assert found.start is not None  # without one the library would draw its own from the clock
        model = BlackBoxClassifier(predict, found.inside.shape, nb_classes=2, clip_values=(0.0, 1.0))
        hops = HopSkipJump(
            model, norm=2, batch_size=found.left + 2, max_iter=found.left, init_eval=FIRST_EVALUATIONS, max_eval=found.left + FIRST_EVALUATIONS,
            verbose=False,
        )  # fmt: skip
        hops.generate(found.inside[None], x_adv_init=found.start[None])

    return attack
