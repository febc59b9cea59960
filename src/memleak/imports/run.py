"""An earlier run: models, samples, who trained on what, and what every model says of every sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

LEAST_MODELS = 4
LARGEST_ID = 2**31  # sample ids are bits of a membership row: numbers that are far apart would make it long
BEYOND_CHANCE = 5.0  # standard deviations by which counts may be too equal before it is no accident


class RunError(ValueError):
    """An earlier run that cannot be read; the text says what was found, what is expected and what to do."""


@dataclass(frozen=True)
class Run:
    """Models that were trained and asked elsewhere. Made by `made`, which checks it."""

    model_id: np.ndarray  # [M] text
    sample_id: np.ndarray  # [N] int64, rising
    is_member: np.ndarray  # [M, N] bool
    signals: Mapping[str, np.ndarray]  # margin and loss [M, N, Q] in nats; the others, and `logits` [M, N, Q, C], where they are known
    label: np.ndarray | None  # [N]
    group_id: np.ndarray | None  # [N]
    is_target: np.ndarray  # [M] bool
    source_id: np.ndarray  # [N] what the run itself calls its samples
    notes: tuple[str, ...] = ()  # what was found out or left behind while reading, a sentence each
    population: Run | None = None  # samples that no model trained on

    @property
    def unit(self) -> np.ndarray:
        """Models that were not drawn independently share a unit, [M]: exact complements, and those with the same training set."""
        return units_of(self.is_member)

    @property
    def is_balanced(self) -> bool:
        """Whether the number of IN references of a sample tells the target's membership, although the target's unit is left out."""
        return evenness(self.is_member, self.unit) < 0

    @property
    def n_classes(self) -> int | None:
        """Classes, as far as logits or labels tell."""
        if "logits" in self.signals:
            return int(self.signals["logits"].shape[-1])
        return None if self.label is None else int(self.label.max()) + 1

    def fewest_references(self) -> tuple[int, int]:
        """The smallest numbers of IN and of OUT references that a sample has, over all targets."""
        unit, total = self.unit, self.is_member.sum(axis=0)
        left = [(total - self.is_member[unit == one].sum(axis=0), int((unit != one).sum())) for one in np.unique(unit[self.is_target])]
        inside, outside = min(int(n_in.min()) for n_in, _ in left), min(int((n - n_in).min()) for n_in, n in left)
        return (min(inside, outside),) * 2 if self.is_balanced else (inside, outside)


def units_of(is_member: np.ndarray) -> np.ndarray:
    """Units of the rows of [M, N], numbered as they appear, [M]."""
    telling = is_member[:, is_member.any(axis=0) & ~is_member.all(axis=0)]
    up_to_complement = np.packbits(telling ^ telling[:, :1], axis=1)
    _, first, code = np.unique(up_to_complement, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code.ravel()]


def evenness(is_member: np.ndarray, unit: np.ndarray) -> float:
    """How the samples' counts of training sets vary, beside what independent units would give: 0 as chance has it.

    -1: less. The models were drawn together, so that each sample is IN equally often, as in the public code of LiRA;
    what is missing from a sample's count is then the target's own membership, and any attack that counts has seen it.
    +1: more. Some samples are trained on more often than others. In a set of such runs that is incomplete the counts vary
    by a little: they are compared with the sum of the units' variances, which is their variance under independence.
    """
    of_units = np.stack([is_member[unit == one].sum(axis=0) for one in np.unique(unit)])  # [U, N]
    expected, found = float(of_units.var(axis=1).sum()), float(of_units.sum(axis=0).var())
    if expected == 0:
        return 0.0  # pairs alone
    tolerance = BEYOND_CHANCE * np.sqrt(2 / is_member.shape[1])
    if found == 0 or found / expected < 1 - tolerance:
        return -1.0
    return 1.0 if found / expected > 1 + tolerance else 0.0


def made(
    model_id: Iterable[Any], sample_id: np.ndarray, is_member: np.ndarray, signals: Mapping[str, np.ndarray], *, where: str,
    label: np.ndarray | None = None, group_id: np.ndarray | None = None, is_target: np.ndarray | None = None,
    notes: Sequence[str] = (), population: Mapping[str, np.ndarray] | None = None,
) -> Run:  # fmt: skip
    """A checked run, its samples in order of their ids. `where` is the source's name for errors.

    Samples that no model trained on become the population; those that every model trained on are left out, since nothing
    can be told of them. `population`: signals of further samples that no model trained on.
    """
    is_member = np.asarray(is_member, dtype=bool)
    known, told = _numbered(np.asarray(sample_id))
    found = Run(
        np.asarray([str(name) for name in model_id]), known, is_member, signals, label, None if group_id is None else pd.factorize(group_id)[0],
        np.ones(len(is_member), dtype=bool) if is_target is None else np.asarray(is_target, dtype=bool), np.asarray(sample_id), (*notes, *told),
    )  # fmt: skip
    _check(found, where)
    _check_groups(found, where)
    found, outside = _parted(_of_samples(found, np.argsort(known, kind="stable")))
    if not found.is_member.size:
        raise RunError(f"{where}: no sample is a member of one model and a non-member of another; nothing can be told of any")
    _check_members(found, where)
    if population is not None:
        outside = _further(found, outside, population)
        _check_finite(outside, f"{where}, population")
    return replace(found, population=outside, notes=(*found.notes, *_told_of_counts(found)))


def _numbered(source_id: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Sample ids as they are, where they are numbers from 0 and not far apart; else 0, 1 ... in their order."""
    if (
        np.issubdtype(source_id.dtype, np.integer)
        and len(source_id)
        and source_id.min() >= 0
        and source_id.max() < min(LARGEST_ID, 10 * len(source_id))
    ):
        return source_id.astype(np.int64), []
    kind = (
        "are no integers"
        if not np.issubdtype(source_id.dtype, np.integer)
        else f"go from {source_id.min()} to {source_id.max()}"
        if len(source_id)
        else ""
    )
    return np.arange(len(source_id)), [f"The {len(source_id):,} sample ids {kind}; they were numbered from 0, and source_id has what they were."]


def _of_samples(run: Run, chosen: np.ndarray) -> Run:
    """A run about some of its samples."""
    return replace(
        run, sample_id=run.sample_id[chosen], is_member=run.is_member[:, chosen], source_id=run.source_id[chosen],
        signals={name: values if np.array_equal(chosen, np.arange(values.shape[1])) else values[:, chosen] for name, values in run.signals.items()},
        label=None if run.label is None else run.label[chosen], group_id=None if run.group_id is None else run.group_id[chosen],
    )  # fmt: skip


def _parted(run: Run) -> tuple[Run, Run | None]:
    """The samples that some models trained on and others did not; and those that none did."""
    always, never = run.is_member.all(axis=0), ~run.is_member.any(axis=0)
    notes = []
    if always.any():
        notes.append(
            f"{int(always.sum()):,} samples are in every model's training set (the first is {run.source_id[always][0]}); they were left out."
        )
    if never.any():
        notes.append(
            f"{int(never.sum()):,} samples are in no model's training set (the first is {run.source_id[never][0]}); they are the population."
        )
    kept = replace(_of_samples(run, np.flatnonzero(~always & ~never)), notes=(*run.notes, *notes))
    return kept, _of_samples(replace(run, notes=()), np.flatnonzero(never)) if never.any() else None


def _further(run: Run, outside: Run | None, population: Mapping[str, np.ndarray]) -> Run:
    """The population, and further samples after it, whose ids begin where the others end."""
    n = next(iter(population.values())).shape[1]
    first = max(int(part.sample_id.max()) for part in (run, outside) if part is not None) + 1
    more = replace(
        run, sample_id=first + np.arange(n), source_id=np.arange(n), is_member=np.zeros((len(run.model_id), n), dtype=bool), signals=population,
        label=None, group_id=None, notes=(),
    )  # fmt: skip
    return more if outside is None else _joined(outside, more)


def _joined(one: Run, other: Run) -> Run:
    """Two runs of the same models about different samples; labels and groups are kept where both have them."""
    return replace(
        one, label=None, group_id=None,
        sample_id=np.concatenate([one.sample_id, other.sample_id]), is_member=np.concatenate([one.is_member, other.is_member], axis=1),
        source_id=np.concatenate([one.source_id, other.source_id]),
        signals={name: np.concatenate([values, other.signals[name]], axis=1) for name, values in one.signals.items() if name in other.signals},
    )  # fmt: skip


def _check(run: Run, where: str) -> None:
    n_models, n_samples = run.is_member.shape
    if n_models < LEAST_MODELS:
        raise RunError(f"{where}: {n_models} models, at least {LEAST_MODELS} are needed, so that each can be compared with others")
    for what, names in (("model", run.model_id), ("sample", run.source_id)):
        values, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise RunError(f"{where}: {what} id {values[counts.argmax()]} stands for {counts.max()} {what}s; give each an id of its own")
    for name, answers in run.signals.items():
        if answers.shape[:2] != (n_models, n_samples):
            raise RunError(f"{where}: {name} has shape {answers.shape}, who trained on what {run.is_member.shape}; expected [M, N, Q] and [M, N]")
    for what, ids in (("sample ids", run.source_id), ("labels", run.label), ("groups", run.group_id)):
        if ids is not None and len(ids) != n_samples:
            raise RunError(f"{where}: {len(ids)} {what}, {n_samples} samples; expected one each")
    _check_finite(run, where)
    if not run.is_target.any():
        raise RunError(f"{where}: no model is marked as a target; mark one or more, or leave the column out, which audits all")


def _check_groups(run: Run, where: str) -> None:
    """Statistics take the samples of a group for drawn together."""
    if run.group_id is None:
        return
    first = np.unique(run.group_id, return_index=True)[1][run.group_id]  # groups are numbered from 0
    wrong = (run.is_member != run.is_member[:, first]).any(axis=0)
    if wrong.any():
        row = int(wrong.argmax())
        model = int((run.is_member[:, row] != run.is_member[:, first[row]]).argmax())
        raise RunError(
            f"{where}: samples of {len(np.unique(run.group_id[wrong])):,} groups differ in membership, first {run.source_id[first[row]]} and "
            f"{run.source_id[row]} of model {run.model_id[model]}; a group is trained on as a whole or not at all, mend group_id or leave it out"
        )


def _check_members(run: Run, where: str) -> None:
    for row in np.flatnonzero(run.is_member.all(axis=1) | ~run.is_member.any(axis=1)):
        side = "members" if run.is_member[row].all() else "non-members"
        raise RunError(
            f"{where}: all {run.is_member.shape[1]:,} samples are {side} of model {run.model_id[row]}; every model needs both, "
            "drop it, or check who trained on what"
        )


def _check_finite(run: Run, where: str) -> None:
    for name, values in run.signals.items():
        wrong = [row for row, of_model in enumerate(values) if not np.isfinite(of_model).all()]
        if wrong:
            n = sum(int((~np.isfinite(values[row])).sum()) for row in wrong)
            first = run.source_id[np.argwhere(~np.isfinite(values[wrong[0]]))[0][0]]
            raise RunError(
                f"{where}: {n:,} values of {name} are not finite, in {len(wrong)} models; the first is of model {run.model_id[wrong[0]]} about "
                f"sample {first}; drop such models or samples"
            )


def _told_of_counts(run: Run) -> list[str]:
    """What the reader of the report must know about who was drawn together with whom."""
    n_models, notes = len(run.model_id), []
    n_units = len(np.unique(run.unit))
    if n_units < n_models:
        notes.append(f"{n_models} models make {n_units} units: complements, or equal training sets, are never each other's references.")
    match evenness(run.is_member, run.unit):
        case -1.0:
            notes.append(
                "The samples are in equally many training sets, or nearly so: the number of a sample's IN references would tell the target's "
                "membership, so every sample is given as many IN as OUT references, and as many as any other."
            )
        case 1.0:
            counts = run.is_member.sum(axis=0)
            notes.append(
                f"Some samples are in more training sets than chance explains ({counts.min()} to {counts.max()} of {n_models}): the number of IN "
                "references tells something of membership, which an attacker may or may not know."
            )
    return notes
