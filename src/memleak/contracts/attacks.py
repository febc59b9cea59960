"""The laws of an attack: its scores belong to the records, rise with membership, and say nothing where nothing leaks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from memleak import plugins
from memleak.attacks import AttackError, Evidence, Needs
from memleak.attacks.estimate import turned
from memleak.attacks.stage import needs_of
from memleak.contracts import Finding, judged, texts
from memleak.metrics import roc
from memleak.params import SIGNALS, ParamsError, attack_options, sentences
from memleak.params.texts import TEXT_SIGNALS, TOKEN_SIGNALS
from memleak.signals.classifier import all_signals

N_SAMPLES, N_POPULATION, N_CLASSES, N_VIEWS = 1000, 300, 3, 2
LEAST_MODELS = 12
AXES = {"target": 0, "reference": 1, "population_target": 0, "population_reference": 1, "is_in": 1}  # that of samples, else 0
OF_POPULATION = {"population_target", "population_reference", "population_label", "population_id"}


@dataclass(frozen=True)
class World:
    """The evidence on one model, and which records it was trained on, [N]."""

    evidence: Evidence
    is_member: np.ndarray


def made(separation: float, n_models: int, seed: int, measured: Collection[str] = (), needs: Needs | None = None) -> World:
    """Logits of three classes: that of the label has a level of each record's own, and unit noise; higher by `separation` where trained on.

    Models come in twos that trained on complementary halves. The first is the target; its twin is no reference.
    Signals of other names (`measured`) are the margin with noise of their own, turned where a signal falls for members.
    Where an attack `needs` what language models alone tell, the records are texts.
    """
    answers = functools.partial(texts.answers, views=needs.views) if needs is not None and texts.are_asked(needs) else _answers
    draw = np.random.default_rng(seed)
    half = np.argsort(draw.random((n_models // 2, N_SAMPLES)), axis=1) < N_SAMPLES // 2
    is_in = np.stack([half, ~half], axis=1).reshape(n_models, N_SAMPLES)
    signals, label = answers(separation * is_in[:, :, None], draw)
    population, population_label = answers(np.zeros((n_models, N_POPULATION, 1)), draw)
    for name in measured:
        for said in (signals, population):
            said[name] = turned(said["margin"] + draw.normal(0, 1.0, said["margin"].shape).astype(np.float32), name)
    evidence = Evidence(
        target={name: values[0] for name, values in signals.items()},
        reference={name: values[2:] for name, values in signals.items()},
        is_in=is_in[2:],
        population_target={name: values[0] for name, values in population.items()},
        population_reference={name: values[2:] for name, values in population.items()},
        label=label, sample_id=np.arange(N_SAMPLES), group=np.arange(N_SAMPLES),
        population_label=population_label, population_id=N_SAMPLES + np.arange(N_POPULATION),
    )  # fmt: skip
    return World(evidence, is_in[0])


def _answers(moved: np.ndarray, draw: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Signals [M, n, Q], logits among them [M, n, Q, C], and labels [n], of records whose label's logit is moved [M, n, 1]."""
    n_models, n, _ = moved.shape
    label = np.asarray(draw.integers(0, N_CLASSES, n))
    logits = draw.normal(0, 0.3, (n_models, n, N_VIEWS, N_CLASSES))
    own = draw.normal(1.0, 1.0, (1, n, 1)) + moved + draw.normal(0, 1.0, (n_models, n, N_VIEWS))
    np.put_along_axis(logits, np.broadcast_to(label[None, :, None, None], (*own.shape, 1)), own[..., None], axis=-1)
    return all_signals(logits, np.broadcast_to(label[None, :, None], own.shape)) | {"logits": logits.astype(np.float32)}, label


def taken(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """The evidence on some of the samples, in another order."""
    found: dict[str, Any] = {}
    for field in fields(Evidence):
        value, axis = getattr(evidence, field.name), AXES.get(field.name, 0)
        if value is not None and field.name not in OF_POPULATION:
            found[field.name] = (
                {name: values.take(rows, axis=axis) for name, values in value.items()} if isinstance(value, Mapping) else value.take(rows, axis=axis)
            )
    return replace(evidence, **found)


def reordered(evidence: Evidence, models: np.ndarray) -> Evidence:
    """The same evidence with the references in another order."""
    assert evidence.population_reference is not None
    reference, population = (
        {name: values[models] for name, values in signals.items()} for signals in (evidence.reference, evidence.population_reference)
    )
    return replace(evidence, reference=reference, population_reference=population, is_in=evidence.is_in[models])


def _bytes_of(evidence: Evidence) -> list[bytes]:
    values = [getattr(evidence, field.name) for field in fields(Evidence)]
    arrays = [array for value in values if value is not None for array in (value.values() if isinstance(value, Mapping) else [value])]
    return [array.tobytes() for array in arrays]


def check(name: str, options: Mapping[str, Any]) -> Iterator[Finding]:
    """The laws, one after the other; after a first score that fails nothing else is tried."""
    if not hasattr(plugins.module_of("attacks", name), "Options"):
        raise AttackError(
            f"{name}: beside the function its module has no `class Options(memleak.params.Frozen)`; add one, empty if there are no options"
        )
    try:
        validated = attack_options({"name": name, **options})
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in sentences(error))) from None
    needs, function = needs_of(validated), plugins.function_of("attacks", name)
    n_models = max(LEAST_MODELS, 4 * max(needs.inside, needs.outside) + 4, 2 * needs.references + 2)
    yield from _laws(function, validated, n_models, needs)


def _laws(function: Callable[[Evidence, Any], np.ndarray], options: BaseModel, n_models: int, needs: Needs) -> Iterator[Finding]:
    measured = sorted({*needs.signals, *needs.measured} - {*SIGNALS, *TOKEN_SIGNALS, *TEXT_SIGNALS, "logits"})
    known, silent = made(2.0, n_models, 0, measured, needs), made(0.0, n_models, 1, measured, needs)
    evidence, draw = known.evidence, np.random.default_rng(2)
    before, found = _bytes_of(evidence), []

    def gives_scores() -> str:
        found.append(function(evidence, options))
        return _fault(found[0], N_SAMPLES)

    def again() -> str:
        return (
            _unlike(function(evidence, options), found[0], 0.0)
            and "a second call gives others; draw no random numbers, and keep nothing between calls"
        )

    def samples_mixed() -> str:
        order = draw.permutation(N_SAMPLES)
        unlike = _unlike(function(taken(evidence, order), options), found[0][order])
        return unlike and f"{unlike} once the records are in another order; a score belongs to its record, not to its place"

    def models_mixed() -> str:
        unlike = _unlike(function(reordered(evidence, draw.permutation(len(evidence.is_in))), options), found[0])
        return unlike and f"{unlike} once the reference models are in another order; which of them comes first means nothing"

    def alone() -> str:
        try:
            return _fault(function(taken(evidence, np.array([5])), options), 1)
        except AttackError as error:
            return f"it refuses, {error}"

    def evidence_stays() -> str:
        return "" if _bytes_of(evidence) == before else "arrays of the evidence were written to; copy them first, for other attacks read them too"

    def sign() -> str:
        found_auc = roc.auc(found[0], known.is_member)
        return f"the AUC is {found_auc:.3f} where members are surer; turn the sign: higher means more likely a member" if found_auc < 0.4 else ""

    def finds() -> str:
        found_auc = roc.auc(found[0], known.is_member)
        return f"the AUC is {found_auc:.3f} where the label's logit is two standard deviations higher for members" if 0.4 <= found_auc < 0.55 else ""

    def finds_nothing() -> str:
        scores, spread = function(silent.evidence, options), np.sqrt(1 / (3 * N_SAMPLES))  # of the AUC of two equal halves that do not differ
        found_auc = roc.auc(scores, silent.is_member)
        return f"the AUC is {found_auc:.3f}; from where does it know?" if abs(found_auc - 0.5) > 4.5 * spread else ""

    first = judged("it gives one finite number for each record", gives_scores)
    yield first
    if first.state == "broken":
        return
    yield judged("the same evidence gives the same scores", again)
    yield judged("the order of the records changes nothing", samples_mixed)
    yield judged("the order of the reference models changes nothing", models_mixed)
    yield judged("one record alone has a score (design pairs asks so)", alone, "doubtful")
    yield judged("the evidence stays as it was", evidence_stays)
    yield judged("higher means more likely a member", sign)
    yield judged("it finds members that are easily found", finds, "doubtful")
    yield judged("it finds nothing where nothing leaks", finds_nothing)


def _fault(scores: Any, n: int) -> str:
    """What is wrong with the form of some scores."""
    if not isinstance(scores, np.ndarray) or scores.shape != (n,):
        return f"expected an array of shape ({n},), found {f'shape {scores.shape}' if isinstance(scores, np.ndarray) else type(scores).__name__}"
    if not (np.issubdtype(scores.dtype, np.floating) or np.issubdtype(scores.dtype, np.integer)):
        return f"expected numbers, found {scores.dtype}"
    n_bad = int((~np.isfinite(scores)).sum())
    return f"{n_bad} of {n} are NaN or infinite, and no threshold can be set among those" if n_bad else ""


def _unlike(scores: Any, expected: np.ndarray, tolerance: float = 1e-6) -> str:
    """By how much scores differ; '' where they do not, but for the last bits of sums (of float32, as signals are) taken in another order."""
    if fault := _fault(scores, len(expected)):
        return fault
    largest = float(np.abs(scores - expected).max())
    return f"scores differ by up to {largest:.2g}" if largest > tolerance * max(1.0, float(np.abs(expected).max())) else ""
