"""RMIA: how many population points a sample beats, each taken relative to what reference models say of it.

Zarifzadeh, Liu and Shokri 2024, "Low-Cost High-Power Membership Inference Attacks". With a fixed population the score
is a step function of the sample's own ratio, so one sort and a binary search count what the N x Z comparison counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import Comparison, require
from memleak.attacks.population import own_position, refuse_unequal_views
from memleak.params import Frozen

GRID = np.arange(11) / 10  # values of `a` that are tried: those of the authors' tool
N_MOCKS = 8
N_TUNING_SAMPLES = 10_000
PAIRS_AT_ONCE = 500_000  # pairs (x, z) whose votes are held at a time: what fits into a core's cache
LEAST_PROBABILITY = float(np.finfo(np.float64).tiny)  # below it float64 loses digits, then everything


class Options(Frozen):
    """How the probability of a sample over models is estimated, and when one ratio beats another."""

    mode: Literal["online", "offline"] = Field("offline", description="offline asks for OUT references only")
    gamma: float = Field(1.0, gt=0, description="a sample beats a point whose ratio it exceeds by this factor")
    a: Annotated[float, Field(ge=0, le=1)] | Literal["tune"] | None = Field(
        None, description="offline: p_in = a p_out + 1 - a; tune: chosen on mock targets among the references (default); online it plays no role"
    )
    ties: Literal["strict", "inclusive"] = Field("strict", description="is an equal ratio beaten")
    space: Literal["linear", "log"] = Field("linear", description="log for language models: mean log-probabilities over references")
    views: Literal["majority", "mean"] = Field("majority", description="more than half of the views, or their mean log ratio")

    @property
    def needs(self) -> Needs:
        if self.mode == "online":
            return Needs(signals=("loss",), population=True, inside=1, outside=1)
        return Needs(signals=("loss",), population=True, outside=2 if self.a in (None, "tune") else 1)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """The share of population points z with r_x > gamma r_z, [N]; r = p_target / P, p = exp(-loss).

    P is the sample's probability over models. Offline: ((1 + a) mean OUT + 1 - a) / 2. Online: the mean of mean IN and
    mean OUT. All references are OUT for z: offline the same formula, online their plain mean, whatever `a` says: where
    IN is seen nothing is to be guessed from OUT. `space: log` puts mean logarithms in the place of means. With several
    views a pair counts where more than half of them say so. A sample that is itself in the population is not compared
    with itself. A probability over models that rounds to 0 is an error, which `space: log` does not know.
    """
    require(evidence, Needs(("loss",), population=True), "rmia")
    if not evidence.population_target or not evidence.population_reference:
        raise AttackError("rmia: the references' signals of the population are missing; query them, or use the attack population")
    nobody = np.zeros(next(iter(evidence.population_reference.values())).shape[:2], dtype=bool)  # [M, Z]
    _refuse_other_models(len(nobody), len(evidence.is_in))
    population = Comparison.of_evidence(Evidence(evidence.population_target, evidence.population_reference, nobody))
    own = own_position(evidence.sample_id, evidence.population_id, "rmia")
    return _score(Comparison.of_evidence(evidence), population, own, options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """`score` of every turn, [T, N], bit for bit: what a model says is read once, sums are those of each turn's references."""
    seen = pool.population or {}
    nobody = np.zeros(next(iter(seen.values())).shape[:2] if seen else (0, 0), dtype=bool)  # [M, Z]
    if not nobody.size:
        raise AttackError("rmia: the population is empty; give the design a smaller pool, so that records stay outside every training set")
    _refuse_other_models(len(nobody), len(pool.is_in))
    population = Comparison.of_turns(Pool(seen, nobody), turns)
    return _score(Comparison.of_turns(pool, turns), population, own_position(pool.sample_id, pool.population_id, "rmia"), options)


def tune(evidence: Evidence, options: Options) -> float:
    """The `a` of 0, .1 ... 1 with the best mean AUC of the ratio p / P over mock targets among the references.

    Up to eight references stand for the target in turn. Each is compared with the others but its exact complement,
    whose presence would give the answer away, on up to 10,000 samples. The evidence's target is not looked at. Of
    several as good the smallest is taken: the lower `a`, the further P stays from 0, where noise makes ratios large.
    An `a` with which some P rounds to 0 (at 1, where all references of a sample diverged) is not chosen.
    """
    return _tuned(_tuning_signals(Comparison.of_evidence(evidence), options), np.arange(len(evidence.is_in)))


@dataclass(frozen=True)
class _Rivals:
    """The population's ratios times gamma in rising order, view by view, and where in that order each point stands."""

    ordered: np.ndarray  # [Q, Z]
    place: np.ndarray  # [Q, Z]


def _score(compared: Comparison, population: Comparison, own: np.ndarray | None, options: Options) -> np.ndarray:
    """Scores of every turn, [T, N], by chunks of samples."""
    compared.require(options.needs, "rmia")
    compared.refuse_constant("loss", "rmia")
    n_views = compared.n_views("loss")
    refuse_unequal_views(n_views, population.n_views("loss"), "rmia")
    levels = _levels(compared, options)
    rivals = _rivals(population, levels, options)
    scores = np.empty((compared.n_turns, compared.n_samples))
    for part in compared.chunks(n_views):
        for turn, typical in enumerate(_typical_of_samples(compared, part, levels, options)):
            ratio = _ratio(compared.of_target("loss", turn, part), typical, options)
            scores[turn, part] = _share_beaten(ratio, rivals[turn], None if own is None else own[part], options)
    return scores


def _refuse_other_models(n_models: int, n_rows: int) -> None:
    if n_models != n_rows:
        raise AttackError(
            f"rmia: {n_models} models were asked about the population, is_in has {n_rows} rows; "
            "expected the same models in the same order, query the population with each of them"
        )


def _rows(compared: Comparison, turn: int) -> np.ndarray:
    """The references of a turn."""
    return np.flatnonzero(compared.is_reference[turn])


def _levels(compared: Comparison, options: Options) -> list[float | None]:
    """The `a` of each turn; None where P(z) is the plain mean."""
    if options.mode == "online":
        return [None] * compared.n_turns
    if options.a is None or options.a == "tune":
        signals = _tuning_signals(compared, options)
        return [_tuned(signals, _rows(compared, turn)) for turn in range(compared.n_turns)]
    return [options.a] * compared.n_turns


def _belief(loss: np.ndarray, options: Options) -> np.ndarray:
    """What is averaged over models: the probability, or its logarithm."""
    return -loss if options.space == "log" else np.exp(-loss)


def _total(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum over some models of [M, n, Q], [n, Q]: one after another, so that equal samples have equal sums, to the last bit.

    A matrix product would be faster, but rounds by where in the matrix a sample stands, and a tie is a matter of one bit.
    """
    total = np.zeros(values.shape[1:])
    for row in rows:
        total += values[row]
    return total


def _extrapolated(outside: np.ndarray, a: float | np.ndarray, options: Options) -> np.ndarray:
    """Mean of the OUT mean and of the IN mean that `a` guesses from it."""
    if options.space == "log":
        return (1 + a) / 2 * outside
    return ((1 + a) * outside + (1 - a)) / 2  # 1 - a first: for a = 1 it is 0, and small probabilities keep their digits


def _typical_of_samples(compared: Comparison, part: slice, levels: Sequence[float | None], options: Options) -> Iterator[np.ndarray]:
    """P of some samples, turn after turn, [n, Q]."""
    is_in = compared.is_in[:, part]
    n_in, n_out = (compared.over_references(side)[:, :, None] for side in (is_in, ~is_in))  # [T, n, 1]
    belief = _belief(compared.of_models("loss", part), options)
    outside = belief * ~is_in[:, :, None]
    inside = belief - outside if options.mode == "online" else None
    for turn, a in enumerate(levels):
        rows = _rows(compared, turn)
        mean_out = _total(outside, rows) / n_out[turn]
        if inside is not None:
            yield (_total(inside, rows) / n_in[turn] + mean_out) / 2
        elif a is not None:  # offline it is given or tuned
            yield _extrapolated(mean_out, a, options)


def _rivals(population: Comparison, levels: Sequence[float | None], options: Options) -> list[_Rivals]:
    """The population's ratios of each turn, ready to be counted."""
    n_views = population.n_views("loss")
    typical = np.empty((population.n_turns, population.n_samples, n_views))
    for part in population.chunks(n_views):
        belief = _belief(population.of_models("loss", part), options)
        for turn, a in enumerate(levels):
            rows = _rows(population, turn)
            mean = _total(belief, rows) / len(rows)
            typical[turn, part] = mean if a is None else _extrapolated(mean, a, options)
    ratios = (_ratio(population.of_target("loss", turn), over_models, options) for turn, over_models in enumerate(typical))
    return [_ordered(_lifted(ratio, n_views, options)) for ratio in ratios]


def _in_logs(n_views: int, options: Options) -> bool:
    """Whether ratios are compared as logarithms."""
    return options.space == "log" or (options.views == "mean" and n_views > 1)


def _ratio(loss: np.ndarray, typical: np.ndarray, options: Options) -> np.ndarray:
    """p / P of each view, or its mean logarithm over views, [n, Q] or [n, 1]."""
    if options.space == "linear":
        _refuse_vanishing(typical)
        if not _in_logs(loss.shape[1], options):
            return np.exp(-loss) / typical
        typical = np.log(typical)
    ratio = -loss - typical
    return ratio.mean(axis=1, keepdims=True) if options.views == "mean" else ratio


def _refuse_vanishing(typical: np.ndarray) -> None:
    if typical.size and typical.min() < LEAST_PROBABILITY:
        raise _vanishing(typical < LEAST_PROBABILITY)


def _vanishing(is_wrong: np.ndarray) -> AttackError:
    n_samples = np.count_nonzero(is_wrong.reshape(len(is_wrong), -1).any(axis=1))
    return AttackError(
        f"rmia: the references give {n_samples} of {len(is_wrong)} samples a probability that rounds to 0 (losses above 708 nats), "
        "so that no ratio can be formed; use space: log, or a below 1"
    )


def _lifted(ratio: np.ndarray, n_views: int, options: Options) -> np.ndarray:
    """Ratios times gamma: the population's side is multiplied, since a division of the sample's would round ties apart."""
    return ratio + np.log(options.gamma) if _in_logs(n_views, options) else ratio * options.gamma


def _ordered(ratio: np.ndarray) -> _Rivals:
    order = np.argsort(ratio, axis=0, kind="stable").T  # [Q, Z]
    place = np.empty(order.shape, dtype=np.min_scalar_type(len(ratio)))
    np.put_along_axis(place, order, np.arange(len(ratio), dtype=place.dtype)[None], axis=1)
    return _Rivals(np.take_along_axis(ratio.T, order, axis=1), place)


def _share_beaten(ratio: np.ndarray, rivals: _Rivals, own: np.ndarray | None, options: Options) -> np.ndarray:
    """The share of population points that each sample's ratios [n, Q] beat in more than half of the views, [n]."""
    side: Literal["left", "right"] = "left" if options.ties == "strict" else "right"
    # a sample beats the first `beaten` points of the order: place < beaten is the comparison of the ratios, ties included
    beaten = np.stack([np.searchsorted(ordered, seen, side=side) for ordered, seen in zip(rivals.ordered, ratio.T, strict=True)])
    n_views, n_points = rivals.place.shape
    counts = beaten[0] if n_views == 1 else _majorities(beaten, rivals.place)
    if own is None:
        return counts / n_points
    beats_itself = (rivals.place[:, own] < beaten).sum(axis=0) > n_views // 2
    return (counts - ((own >= 0) & beats_itself)) / (n_points - (own >= 0))


def _majorities(beaten: np.ndarray, place: np.ndarray) -> np.ndarray:
    """How many points have place < beaten in more than half of the views [Q, Z], for each sample of [Q, n], [n]."""
    (n_views, n_samples), n_points = beaten.shape, place.shape[1]
    limits = beaten.astype(place.dtype)
    counts = np.empty(n_samples, dtype=np.int64)
    step = max(1, PAIRS_AT_ONCE // n_points)
    for start in range(0, n_samples, step):
        part = slice(start, min(start + step, n_samples))
        votes = np.zeros((part.stop - start, n_points), dtype=np.min_scalar_type(n_views))
        for places, limit in zip(place, limits[:, part], strict=True):
            votes += places < limit[:, None]
        counts[part] = np.count_nonzero(votes > n_views // 2, axis=1)
    return counts


@dataclass(frozen=True)
class _TuningSignals:
    """What all models say of the samples that `a` is tuned on."""

    loss: np.ndarray  # [M, n, Q]
    outside: np.ndarray  # [M, n, Q] belief where OUT, 0 where IN
    is_in: np.ndarray  # [M, n]
    options: Options


def _tuning_signals(compared: Comparison, options: Options) -> _TuningSignals:
    part = slice(None, None, max(1, -(-compared.n_samples // N_TUNING_SAMPLES)))  # evenly spaced, for files are often sorted by class
    loss, is_in = compared.of_models("loss", part), compared.is_in[:, part]
    return _TuningSignals(loss, np.where(is_in[:, :, None], 0.0, _belief(loss, options)), is_in, options)


def _tuned(signals: _TuningSignals, rows: np.ndarray) -> float:
    if len(rows) < 3:
        raise AttackError(f"rmia: {len(rows)} references are too few to tune a, at least 3 are needed; give a, for example a: 0.3")
    aucs = [found for mock in _mocks(signals, rows) if (found := _aucs(signals, mock, _without_complement(signals.is_in, rows, mock))) is not None]
    if not aucs:
        raise AttackError(
            f"rmia: none of {len(rows)} references has IN and OUT samples that other references have as OUT, so a cannot be tuned; "
            "give a, for example a: 0.3"
        )
    return float(GRID[np.nanargmax(np.mean(aucs, axis=0))])  # what one mock target cannot be scored with is out of the running


def _mocks(signals: _TuningSignals, rows: np.ndarray) -> np.ndarray:
    """Up to eight of the references that have IN and OUT samples, evenly spaced in the order of their mean loss.

    An order of the models' own, so that the choice does not depend on how they are numbered.
    """
    both = rows[signals.is_in[rows].any(axis=1) & ~signals.is_in[rows].all(axis=1)]
    if len(both) <= N_MOCKS:
        return both
    by_loss = both[np.argsort(signals.loss[both].mean(axis=(1, 2)), kind="stable")]
    return by_loss[np.linspace(0, len(by_loss) - 1, N_MOCKS).round().astype(np.int64)]


def _without_complement(is_in: np.ndarray, rows: np.ndarray, mock: int) -> np.ndarray:
    """The rows but the mock target and those that trained on exactly what it did not."""
    return rows[(rows != mock) & (is_in[rows] == is_in[mock]).any(axis=1)]


def _aucs(signals: _TuningSignals, mock: int, rows: np.ndarray) -> np.ndarray | None:
    """AUC of the mock target's ratio for every `a`, [11]; None where it cannot be told. Samples without OUT references are left out.

    NaN for an `a` with which some P is no positive normal number. A P that is one for any `a` is one for a = 0.
    """
    n_out = (~signals.is_in[rows]).sum(axis=0)
    seen = n_out > 0
    is_in = signals.is_in[mock][seen]
    if is_in.all() or not is_in.any():
        return None
    outside = (_total(signals.outside, rows)[seen] / n_out[seen][:, None])[:, :, None]  # [n, Q, 1]
    typical = _extrapolated(outside, GRID, signals.options)  # [n, Q, 11]
    is_lost = np.zeros(len(GRID), dtype=bool)
    if signals.options.space == "linear":
        is_wrong = (typical < LEAST_PROBABILITY) | ~np.isfinite(typical)
        is_lost = is_wrong.any(axis=(0, 1))
        if is_lost.all():
            raise _vanishing(is_wrong)
        typical = np.log(np.where(is_wrong, 1.0, typical))
    ratio = (-signals.loss[mock][seen][:, :, None] - typical).mean(axis=1)  # [n, 11]
    return np.array([np.nan if lost else _auc(of_a, is_in) for of_a, lost in zip(ratio.T, is_lost, strict=True)])


def _auc(values: np.ndarray, is_in: np.ndarray) -> float:
    """P(an IN value exceeds an OUT value) with half of the ties."""
    inside, outside = np.sort(values[is_in]), np.sort(values[~is_in])
    twice = np.searchsorted(outside, inside, side="left").sum() + np.searchsorted(outside, inside, side="right").sum()
    return float(twice / (2 * len(inside) * len(outside)))
