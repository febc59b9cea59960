"""What attacks share: signals taken out of the evidence and checked, references counted, sums over masked references.

Everything is computed in float64, by chunks of samples, so that memory does not grow with N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn

CHUNK_VALUES = 100_000  # float64 values of one signal held at a time: small enough that memory is used again and not asked for anew, twice as fast
FALLS = frozenset({"loss", "entropy", "modified_entropy", "gradient_norm"})  # signals that are lower for members


def signal_of(signals: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A signal as it is stored, [..., N, Q]; loss and margin stand for each other, being functions of the label's probability alone."""
    if name in signals:
        return np.asarray(signals[name])
    if name == "loss" and "margin" in signals:
        return np.logaddexp(0.0, -np.asarray(signals["margin"], dtype=np.float64))
    if name == "margin" and "loss" in signals:
        loss = np.asarray(signals["loss"], dtype=np.float64)
        return -loss - np.log(-np.expm1(-np.maximum(loss, 1e-300)))
    raise AttackError(
        f"the signal '{name}' is asked for, the evidence holds {', '.join(sorted(signals)) or 'none'}; query it, or choose another signal"
    )


def turned(values: np.ndarray, name: str) -> np.ndarray:
    """A signal's values with the sign under which higher means more likely a member."""
    return -values if name in FALLS else values


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """The values in float64; raises AttackError where some are not finite."""
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise AttackError(
            f"{what}: {int((~np.isfinite(found)).sum())} of {found.size} values are not finite; a model diverged, or its signals are broken"
        )
    return found


def chunks(n_samples: int, n_models: int, n_views: int = 1) -> Iterator[slice]:
    """Runs of samples whose [M, n, Q] values fit into memory many times over."""
    step = max(1, CHUNK_VALUES // max(1, n_models * n_views))
    for start in range(0, n_samples, step):
        yield slice(start, min(start + step, n_samples))


def mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over models of [M, n, Q] where [M, n] holds, [n, Q]; NaN where it holds nowhere."""
    counts = where.sum(axis=0)[:, None]
    sums = np.einsum("mnq,mn->nq", values, where.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / counts


def median_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Median over models of [M, n, Q] where [M, n] holds, [n, Q]; NaN where it holds nowhere."""
    counts = where.sum(axis=0)[None, :, None]
    ordered = np.sort(np.where(where[:, :, None], values, np.inf), axis=0)
    lower, upper = (np.take_along_axis(ordered, half, axis=0)[0] for half in (np.maximum(counts - 1, 0) // 2, counts // 2 % len(values)))
    return np.where(counts[0] > 0, 0.5 * (lower + upper), np.nan)


def require(evidence: Evidence, needs: Needs, attack: str) -> None:
    """Raise AttackError where the evidence has fewer references, or less population, than an attack needs."""
    is_in = np.asarray(evidence.is_in, dtype=bool)
    n = len(next(iter(evidence.target.values())))
    if (needs.inside or needs.outside) and is_in.shape[1:] != (n,):
        raise AttackError(f"{attack}: is_in has shape {is_in.shape}, expected [M, {n}]: one row a reference, one column a sample")
    _require_counts(is_in.sum(axis=0), (~is_in).sum(axis=0), needs, attack, evidence.sample_id)
    if needs.population:
        seen = evidence.population_target
        if not seen or not len(next(iter(seen.values()))):
            raise AttackError(f"{attack}: the population is empty; give the design a smaller pool, so that records stay outside every training set")


def _require_counts(inside: np.ndarray, outside: np.ndarray, needs: Needs, attack: str, sample_id: np.ndarray | None) -> None:
    for side, least, counts in (("IN", needs.inside, inside), ("OUT", needs.outside, outside)):
        if least and counts.size and counts.min() < least:
            worst = int(counts.argmin())
            raise AttackError(
                f"{attack}: sample {name_of(sample_id, worst)} has {int(counts[worst])} {side} references of {int(inside[worst] + outside[worst])}, "
                f"at least {least} are needed; train more reference models" + (", or use mode: offline" if side == "IN" else "")
            )


def name_of(sample_id: np.ndarray | None, position: int) -> str:
    """How an error calls a sample: by its id, or where it stands."""
    return f"at position {position}" if sample_id is None else str(sample_id[position])


@dataclass(frozen=True)
class Comparison:
    """Targets beside the models they are compared with: the one target of an `Evidence`, or the turns of a `Pool`."""

    models: Mapping[str, np.ndarray]  # [M, N, Q]
    is_in: np.ndarray  # [M, N]
    is_reference: np.ndarray  # [T, M]: 1.0 where a model is a reference of a target, else 0.0
    target: Mapping[str, np.ndarray] | None  # [N, Q] of the only target; None where targets are models of the pool
    row: np.ndarray  # [T] row of each target in the pool
    sample_id: np.ndarray | None
    is_audited: np.ndarray | None = None  # [N] the others are of a shadow pool

    @classmethod
    def of_evidence(cls, evidence: Evidence) -> Comparison:
        """One target; all models are its references."""
        is_in = np.asarray(evidence.is_in, dtype=bool)
        for name, values in evidence.target.items():
            expected = (len(is_in), *np.shape(values))
            found = np.shape(evidence.reference[name]) if name in evidence.reference else expected
            if found != expected or len(expected) < 3 or is_in.shape != expected[:2]:
                raise AttackError(
                    f"{name}: the target has shape {expected[1:]}, the references {found}, is_in {is_in.shape}; "
                    "expected [N, Q], [M, N, Q] and [M, N] for M references, N samples and Q views"
                )
        return cls(
            evidence.reference, is_in, np.ones((1, len(is_in))), evidence.target, np.zeros(1, dtype=int), evidence.sample_id, evidence.is_audited
        )

    @classmethod
    def of_turns(cls, pool: Pool, turns: Sequence[Turn]) -> Comparison:
        """Each turn's target with its own references among the models of the pool."""
        is_reference = np.zeros((len(turns), len(pool.is_in)))
        for i, turn in enumerate(turns):
            is_reference[i, turn.references] = 1.0
        return cls(
            pool.signals, np.asarray(pool.is_in, dtype=bool), is_reference, None, np.array([turn.target for turn in turns], dtype=int),
            pool.sample_id, pool.is_audited,
        )  # fmt: skip

    @property
    def n_samples(self) -> int:
        return self.is_in.shape[1]

    @property
    def n_turns(self) -> int:
        return len(self.is_reference)

    def chunks(self, n_views: int = 1) -> Iterator[slice]:
        """Runs of samples that fit into memory for all models and, as sums, for all targets."""
        return chunks(self.n_samples, max(self.is_reference.shape), n_views)

    def n_views(self, name: str) -> int:
        """Views of a signal."""
        return self.of_models(name, slice(0, 1)).shape[-1] if self.n_samples else 1

    def of_models(self, name: str, samples: slice) -> np.ndarray:
        """A signal of all models about a run of samples, [M, n, Q] in float64."""
        part = {key: values[:, samples] for key, values in self.models.items()}
        return finite(signal_of(part, name), f"{name} of the references")

    def of_target(self, name: str, turn: int, samples: slice = slice(None)) -> np.ndarray:
        """A signal of one turn's target about a run of samples, [n, Q] in float64."""
        known = {key: values[self.row[turn]] for key, values in self.models.items()} if self.target is None else self.target
        return finite(signal_of({key: values[samples] for key, values in known.items()}, name), f"{name} of the target")

    def over_references(self, values: np.ndarray, turns: slice = slice(None)) -> np.ndarray:
        """Sum over each turn's references of [M, n] or [M, n, Q]: [T, n] or [T, n, Q]. Models that are no references count zero times."""
        flat = np.ascontiguousarray(values, dtype=np.float64).reshape(len(values), -1)
        return (self.is_reference[turns] @ flat).reshape(-1, *values.shape[1:])

    def require(self, needs: Needs, attack: str) -> None:
        """Raise AttackError where a turn has fewer references of an audited sample than an attack needs, or none at all."""
        if not self.is_reference.sum(axis=1).all():
            raise AttackError(f"{attack}: there is no reference model, at least 1 is needed; train reference models")
        if not (needs.inside or needs.outside):
            return
        n_references = self.is_reference.sum(axis=1)
        is_audited = np.ones(self.n_samples, dtype=bool) if self.is_audited is None else np.asarray(self.is_audited)
        for samples in self.chunks():
            kept = is_audited[samples]  # those of a shadow pool are learnt from where they can be, and not scored
            inside = self.over_references(self.is_in[:, samples])[:, kept]
            ids = None if self.sample_id is None else self.sample_id[samples][kept]
            for turn in range(self.n_turns):
                _require_counts(inside[turn], n_references[turn] - inside[turn], needs, attack, ids)

    def refuse_constant(self, name: str, attack: str) -> None:
        """Raise AttackError where a signal has one value for all models and samples."""
        if not self.n_samples:
            return
        first = self.of_models(name, slice(0, 1)).ravel()[:1]
        for samples in self.chunks(self.n_views(name)):
            if (self.of_models(name, samples) != first).any() or (self.of_target(name, 0, samples) != first).any():
                return
        raise AttackError(f"{attack}: every {name} is {first[0]:g}, of all models and samples; a signal that is constant tells nothing")
