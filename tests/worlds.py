"""Worlds whose truth is known: records, distributions, and audits in which we know who leaks how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from memleak.attacks import Evidence, Pool, Turn
from memleak.attacks.pairs import Arms
from memleak.metrics import audit, decisions
from memleak.metrics.intervals import models_for_level
from memleak.signals.classifier import all_signals


@dataclass(frozen=True)
class World:
    """A distribution of signals: how to draw from it, and its exact distribution function."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    cdf: Callable[[float], float]

    def rate(self, rule: decisions.Rule) -> float:
        """The exact share of fresh values that a rule accuses."""
        return float(sum(self.cdf(high) - self.cdf(low) for low, high in rule.intervals))


WORLDS = {
    "normal": World(lambda g, n: g.normal(size=n), stats.norm.cdf),
    "skewed": World(lambda g, n: g.gamma(2, size=n), stats.gamma(2).cdf),
    "skewed to the left": World(lambda g, n: -g.gamma(2, size=n), lambda x: stats.gamma(2).sf(-x)),
    "heavy-tailed": World(lambda g, n: g.standard_t(3, size=n), stats.t(3).cdf),
}


@dataclass(frozen=True)
class Records:
    """A data set as a design sees it. `group_id` names records of equal content."""

    labels: np.ndarray
    group_id: np.ndarray
    atypicality_rank: np.ndarray
    n_classes: int = 10
    has_units: bool = False
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)


def records(n: int = 200, n_groups: int | None = None, seed: int = 0) -> Records:
    """Records in random order of atypicality; with `n_groups`, several records have the same content."""
    draw = np.random.default_rng(seed)
    groups = np.arange(n) if n_groups is None else draw.integers(0, n_groups, n)
    return Records(draw.integers(0, 10, n), groups, draw.permutation(n))


def audit_world(
    shifts: dict[str, float], *, rounds: int = 24, holdout: int = 16, seed: int = 0, alpha: float = 0.05, fit: str = "normal",
    drift: float = 0.0, unlike: float = 0.0, **models: float,
) -> dict:  # fmt: skip
    """The metrics of an audit whose margins are unit normals, moved by a target's shift where it was trained on.

    Both arms of a round share half of their variance, and so do all targets of a round. `drift` moves the later half
    of the rounds; `unlike` makes hold-out models differ from the fitted ones, so that thresholds do not hold.
    """
    draw = np.random.default_rng(seed)
    n, role = rounds + holdout, np.repeat(["fit", "holdout"], [rounds, holdout])
    common = draw.normal(size=n) * np.sqrt(0.5) + drift * (np.arange(n) >= n / 2) + unlike * (role == "holdout")
    index = np.concatenate([np.arange(rounds), np.arange(holdout)])
    ids = np.array([f"{r[0]}{i:04d}" for r, i in zip(role, index, strict=True)], dtype=object)
    arms, fitted, rows = [], {}, []
    for number, (name, shift) in enumerate(shifts.items()):
        outside = common + draw.normal(size=n) * np.sqrt(0.5)
        inside = common + draw.normal(size=n) * np.sqrt(0.5) + shift
        signals = [{"margin": x[:, None], "loss": np.logaddexp(0, -x)[:, None]} for x in (inside, outside)]
        arms.append(Arms(name, number, role, index, ids + "-in", ids + "-out", *signals))
        rule = decisions.threshold_rule(decisions.fit(outside[:rounds], fit), alpha)
        rates = {part: float(rule.says_member(x[:rounds]).mean()) for part, x in (("fpr", outside), ("tpr", inside))}
        fitted[name] = {"n_fitted": rounds, "intervals": [], "in": {}, "out": {}, "optimistic": rates}
        for x, is_member in ((inside, True), (outside, False)):
            said = rule.says_member(x[rounds:])
            rows += [("np", name, int(r), bool(s), is_member) for r, s in zip(index[rounds:], said, strict=True)]
    kinds = {name: name.rstrip("0123456789") for name in shifts}
    plan = {
        "audit": "world", "design": {"rounds": rounds, "holdout_rounds": holdout}, "recipe": "r", "data": {"n_classes": 10}, "seed": seed,
        "targets": {name: {"kind": kind, "is_canary": kind == "mislabelled"} for name, kind in kinds.items()},
    }  # fmt: skip
    model = {
        "device": "cpu", "torch": "2.9.0+cpu", "engine": "sequential", "n_train": 500, "n_test": 500, "train_loss": 0.01, "test_loss": 0.4,
        "train_accuracy": 1.0, "test_accuracy": 0.95, "loss_curve": [1.0, 0.5], "accuracy_curve": [0.5, 0.9],
    }  # fmt: skip
    thresholds = {
        "np": {
            "attack": {"name": "single_point", "alpha": alpha, "options": {"alpha": alpha, "signal": "margin"}},
            "models_for_level": models_for_level(alpha),
            "targets": fitted,
        }
    }
    decided = pd.DataFrame(rows, columns=["attack", "target", "round", "says_member", "is_member"])
    return audit.measure_audit(plan, [model | models], arms, thresholds, decided, "np", allow_mixed=False)


N_CLASSES = 3


@dataclass(frozen=True)
class HalvesWorld:
    """A pool of models on complementary halves (2k and 2k + 1), and the first model's audit."""

    pool: Pool
    n_models: int

    @property
    def turns(self) -> list[Turn]:
        """Every model is the target in turn; neither it nor its complement is a reference."""
        models = np.arange(self.n_models)
        return [Turn(target, models[models // 2 != target // 2]) for target in range(self.n_models)]

    @property
    def leaky_turns(self) -> list[Turn]:
        """The trap: the complement is among the references, so that the count of IN references is the answer."""
        models = np.arange(self.n_models)
        return [Turn(target, models[models != target]) for target in range(self.n_models)]

    @property
    def evidence(self) -> Evidence:
        """What an attack on the first model sees."""
        return self.pool.evidence(self.turns[0])

    @property
    def is_member(self) -> np.ndarray:
        """The truth about the first model, [N]."""
        return self.pool.is_in[0]

    @property
    def truth(self) -> np.ndarray:
        """The truth about the target of each turn, [T, N]."""
        return self.pool.is_in


def halves(models: int, samples: int, draw: np.random.Generator) -> np.ndarray:
    """Who trained on what, [M, N]: each pair of models divides the samples into two random halves."""
    first = np.argsort(draw.random((models // 2, samples)), axis=1) < samples // 2
    return np.stack([first, ~first], axis=1).reshape(-1, samples)


def signals_of(margin: np.ndarray, label: np.ndarray, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """All signals of a classifier of three classes that has these margins, [M, N, Q], and its logits; float32, as they are stored."""
    others = draw.normal(size=(len(label), N_CLASSES - 1))
    others -= np.log(np.exp(others).sum(axis=1, keepdims=True))  # so that the label's logit is the margin
    label_first = np.concatenate([margin[..., None], np.broadcast_to(others[:, None], (*margin.shape, N_CLASSES - 1))], axis=-1)
    place = (np.arange(N_CLASSES) - label[:, None]) % N_CLASSES  # of each class in `label_first`
    logits = np.take_along_axis(label_first, np.broadcast_to(place[:, None], label_first.shape), axis=-1)
    return all_signals(logits, np.broadcast_to(label[:, None], margin.shape)) | {"logits": logits.astype(np.float32)}


def world_of(margin: np.ndarray, population: np.ndarray, is_in: np.ndarray, draw: np.random.Generator) -> HalvesWorld:
    """The world of models that have these margins, [M, N, Q] and [M, Z, Q]."""
    n_models, n, _ = margin.shape
    n_population = population.shape[1]
    label, population_label = draw.integers(0, N_CLASSES, n), draw.integers(0, N_CLASSES, n_population)
    pool = Pool(
        signals=signals_of(margin, label, draw),
        is_in=is_in,
        population=signals_of(population, population_label, draw) if n_population else None,
        label=label,
        sample_id=np.arange(n),
        group=np.arange(n),
        population_label=population_label if n_population else None,
        population_id=n + np.arange(n_population) if n_population else None,
    )
    return HalvesWorld(pool, n_models)


def gaussian_world(
    separation: float, models: int, samples: int, seed: int, *, population: int = 0, views: int = 1, spread: float = 0.0, shared: float = 0.0
) -> HalvesWorld:  # fmt: skip
    """Margins are normal about a level of each sample's own; where trained on, `separation` standard deviations higher.

    The best possible attack has AUC Phi(d / sqrt 2) and TPR Phi(d - Phi^-1(1 - f)) at FPR f, d = separation *
    sqrt(views): views are independent. `spread` is the standard deviation of the logarithm of the samples' standard
    deviations (0: all are 1); `shared` the share of the variance that all samples of a model have in common. The
    `population` is in nobody's training set. `models` is the number of the pool; a target has two references fewer.
    """
    draw = np.random.default_rng(seed)
    is_in = halves(models, samples, draw)
    common = np.sqrt(shared) * draw.normal(size=(models, 1, 1))

    def margins(n: int, moved: np.ndarray) -> np.ndarray:
        level, width = draw.normal(2.0, 2.0, (1, n, 1)), np.exp(spread * draw.normal(size=(1, n, 1)))
        noise = common + np.sqrt(1 - shared) * draw.normal(size=(models, n, views))
        return level + width * (noise + separation * moved)

    margin = margins(samples, is_in[:, :, None])
    return world_of(margin, margins(population, np.zeros((models, population, 1))), is_in, draw)


def perfect_memory_world(models: int, samples: int, seed: int, *, population: int = 0, views: int = 1) -> HalvesWorld:
    """A model is sure of all that it was trained on and of nothing else: every attack ought to have AUC 1."""
    draw = np.random.default_rng(seed)
    is_in = halves(models, samples, draw)
    margin = np.where(is_in[:, :, None], 8.0, 0.0) + 0.1 * draw.normal(size=(models, samples, views))
    return world_of(margin, 0.1 * draw.normal(size=(models, population, views)), is_in, draw)


def randomised_response_world(epsilon: float, models: int, samples: int, seed: int, *, population: int = 0) -> HalvesWorld:
    """A model says of each record whether it was trained on it, and lies with probability 1 / (1 + e^epsilon).

    The best attack has TPR e^epsilon / (1 + e^epsilon) at FPR 1 / (1 + e^epsilon), which is epsilon-differential privacy exactly.
    """
    draw = np.random.default_rng(seed)
    is_in = halves(models, samples, draw)

    def margins(truth: np.ndarray) -> np.ndarray:
        lies = draw.random(truth.shape) < 1 / (1 + np.exp(epsilon))
        return (np.where(truth ^ lies, 2.0, -2.0) + 0.01 * draw.normal(size=truth.shape))[:, :, None]

    return world_of(margins(is_in), margins(np.zeros((models, population), dtype=bool)), is_in, draw)


@dataclass(frozen=True)
class TextWorld:
    """What one language model, and one that never saw the texts, say about the tokens of some; and who is a member, [N]."""

    target: dict[str, np.ndarray]  # [N, Q], of tokens [N, Q, K], padded
    is_member: np.ndarray

    @property
    def evidence(self) -> Evidence:
        """Nobody trained a reference model."""
        n = len(self.is_member)
        return Evidence(self.target, {}, np.zeros((0, n), dtype=bool), label=np.zeros(n, dtype=int), sample_id=np.arange(n), group=np.arange(n))


def text_world(
    gain: float, texts: int, seed: int, *, at: float = 0.1, difficulty: float = 0.0, views: int = 1, shortest: int = 2, longest: int = 60
) -> TextWorld:
    """Tokens' log-probabilities, higher by `gain` nats at a share `at` of a member's tokens, one at least: where it is least likely.

    `difficulty` is the standard deviation of the texts' own levels, which the reference shares. All but the token ids
    and the counts is drawn about the same distribution for every token.
    """
    draw = np.random.default_rng(seed)
    is_member = draw.permutation(np.arange(texts) < texts // 2)
    length = draw.integers(shortest, longest + 1, texts)
    shape = (texts, views, longest)
    is_there = np.broadcast_to(np.arange(longest) < length[:, None, None], shape)
    level = difficulty * draw.normal(size=(texts, 1, 1))
    known = -np.exp(0.5 + 0.3 * level + 0.7 * draw.normal(size=(texts, 1, longest)))
    rank = np.where(is_there[:, :1], known, np.inf).argsort(axis=-1).argsort(axis=-1)
    is_learnt = is_member[:, None, None] & (rank < np.maximum(1, np.floor(at * length))[:, None, None])
    log_prob, reference = (np.minimum(known + 0.1 * draw.normal(size=shape), -1e-3) for _ in range(2))
    mean, spread = -np.exp(0.4 + 0.5 * draw.normal(size=shape)), np.exp(0.3 * draw.normal(size=shape))
    log_prob = np.minimum(log_prob + gain * is_learnt, -1e-3)
    columns = {
        "log_prob": log_prob, "mean_log_prob": mean, "std_log_prob": spread, "log_rank": np.log1p(np.floor(-log_prob)),
        "top_prob": np.exp(0.3 * mean), "top_gap": 0.5 * np.exp(0.3 * mean), "reference_log_prob": reference,
    }  # fmt: skip
    target = {name: np.where(is_there, values, np.nan).astype(np.float32) for name, values in columns.items()}
    ids = np.minimum(draw.zipf(1.5, (texts, 1, longest)), 40) - 1
    target["token_id"] = np.where(is_there, ids, -1).astype(np.int32)
    target["loss"] = -np.nanmean(target["log_prob"], axis=-1)
    counts = {"n_tokens": length, "n_bytes": 4 * length, "zlib_bytes": 8 + 3 * length}
    return TextWorld(target | {name: np.repeat(values[:, None], views, axis=1) for name, values in counts.items()}, is_member)
