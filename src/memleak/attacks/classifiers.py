"""What the attacks share that fit a classifier on references: learnt from some samples, said of others.

A row is what one reference says of one sample; whether it trained on that sample is what the classifier learns. A
sample is scored by a classifier that saw other samples only, or a flexible one would remember in how many references
a record was IN: with complementary halves that count is the answer. Where references have a pool of their own, shadow
models, they are learnt from that alone, as published: the audited records may be of another kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from memleak import randomness
from memleak.attacks import AttackError
from memleak.attacks.estimate import Comparison

Name = Literal["logistic", "forest", "boosting", "mlp"]
LabelUse = Literal["per_class", "input", "none"]
PosteriorKind = Literal["log_posterior", "posterior"]
LogOdds = Callable[[np.ndarray], np.ndarray]  # features [n, F] -> log-odds of IN [n]

N_FOLDS = 3  # two thirds of the samples to learn from, for three fits
N_ROWS = 20_000  # that classifiers are fitted on in all: a forest takes seconds for them, and ten features are long learnt
N_ROWS_OF_CLASS = 2_000  # that the classifier of one class may have, however many classes share those: 20 rows a feature with 100 classes
LEAST_ROWS = 10  # IN, and OUT, that a classifier is fitted on: with fewer a line through ten features finds noise
N_TREES = 100
LEAST_LEAF = 20  # rows of a leaf: answers of IN and OUT overlap, and with 5 a forest found .03 less AUC where ten references answer with noise
HIDDEN = (64, 64)  # units, as small as the networks of the papers
MLP_ROWS = 100_000  # rows that a network is shown, epochs times rows: 500 steps; three times as many fitted noise
LEAST_LOG = -103.0  # nats; what is less likely rounds to 0 in float32, and models that give labels say -inf
N_TOLD_APART = 1_000  # samples by whose answers models are put in order


def posteriors(logits: np.ndarray, kind: PosteriorKind) -> np.ndarray:
    """Posteriors, or their logarithms in nats, of logits [n, Q, C], averaged over views, [n, C].

    Of an overfitted model most posteriors round to 0 and 1; their logarithms still tell records apart.
    """
    with np.errstate(invalid="ignore"):
        log_p = special.log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    if np.isnan(log_p).any():
        raise AttackError(
            f"logits: {int(np.isnan(log_p).any(axis=-1).sum())} of {log_p[..., 0].size} answers are not finite; a model diverged, or its signals are broken"
        )
    return (np.exp(log_p) if kind == "posterior" else np.maximum(log_p, LEAST_LOG)).mean(axis=-2)


@dataclass(frozen=True)
class Features:
    """What a classifier is told of each row: a function of one model's signals about one sample."""

    seen: Comparison
    names: tuple[str, ...]  # of the signals that are read
    describe: Callable[[Mapping[str, np.ndarray]], np.ndarray]  # signals [n, Q, ...] -> features [n, F]

    def __post_init__(self) -> None:
        for name in self.names:
            self.seen.of_models(name, slice(0, 0))  # raises where it is not there

    def of_models(self, models: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Features of rows, [R, F]: what models [R] say of samples [R]."""
        return self.describe({name: values[models, samples] for name, values in self._read(self.seen.models).items()})

    def of_target(self, turn: int, samples: np.ndarray) -> np.ndarray:
        """Features of what a turn's target says of samples [n], [n, F]."""
        if self.seen.target is not None:
            return self.describe({name: values[samples] for name, values in self._read(self.seen.target).items()})
        return self.describe({name: values[self.seen.row[turn]][samples] for name, values in self._read(self.seen.models).items()})

    def beside(self, references: np.ndarray) -> Features:
        """The same features where these models are the references; for features that are relative to what references say."""
        return self

    def _read(self, signals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values for name, values in signals.items() if name in (*self.names, "loss", "margin")}  # these two stand for each other


@dataclass(frozen=True)
class Samples:
    """The samples in the order of their ids, and in which fold each is: what an attack says depends on no other order."""

    order: np.ndarray  # [N] positions
    fold: np.ndarray  # [N] in that order
    label: np.ndarray  # [N] in that order; 0 where no label is asked for
    is_scored: np.ndarray  # [N] in that order; the others are of a shadow pool, in a fold of their own
    is_learnt: np.ndarray  # [N] in that order

    @classmethod
    def of(cls, seen: Comparison, label: np.ndarray | None, group: np.ndarray | None) -> Samples:
        """Folds are drawn by the sample's id, or by its group's: twins are never learnt from and scored."""
        ids = np.arange(seen.n_samples) if seen.sample_id is None else np.asarray(seen.sample_id)
        order = np.argsort(ids, kind="stable")
        drawn = randomness.counter_bits(randomness.derive(0, "folds of samples"), np.asarray(ids if group is None else group)[order].astype(np.int64))
        of_class = np.zeros(len(order), dtype=np.int64) if label is None else np.asarray(label)[order]
        is_audited = np.ones(len(order), dtype=bool) if seen.is_audited is None else np.asarray(seen.is_audited)[order]
        if is_audited.all():
            return cls(order, drawn % N_FOLDS, of_class, is_audited, is_audited)
        return cls(order, np.where(is_audited, 0, 1), of_class, is_audited, ~is_audited)


def out_of_fold(
    attack: str, features: Features, label: np.ndarray | None, group: np.ndarray | None, classifier: Name, use: LabelUse, at_most: int | None = None
) -> np.ndarray:
    """Log-odds that each turn's target trained on each sample, were both as likely beforehand, [T, N]; NaN for what is not audited.

    Fitted once for turns that share their references; `at_most` takes the first of them, in an order of their answers.
    `use`: one classifier per class, the label as further inputs, or no label. A class of which some fold has under ten
    IN or OUT rows is scored by a classifier of all classes.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    require_label(attack, use, label)
    seen = features.seen
    samples = Samples.of(seen, None if use == "none" else label, group)
    scores = np.full((seen.n_turns, seen.n_samples), np.nan)
    with threadpool_limits(1):
        for references, turns in _by_references(seen, _order_of_models(features, samples), at_most):
            compared = features.beside(references)
            judges = _Rows.drawn(compared, references, samples, use).judges(attack, classifier, use, samples)
            for turn in turns:
                told = compared.of_target(turn, samples.order)
                for fold, judge in judges.items():
                    here = samples.fold == fold
                    scores[turn, samples.order[here]] = judge(told[here], samples.label[here])
    return scores


def require_label(attack: str, use: LabelUse, label: np.ndarray | None) -> None:
    """Raise AttackError where labels are to be used and there are none."""
    if use != "none" and label is None:
        raise AttackError(f"{attack}: label: {use} needs the labels of the samples, the evidence has none; use label: none")


def _order_of_models(features: Features, samples: Samples) -> np.ndarray:
    """Models in an order of what they say, [M]: which is called the first means nothing, and must change nothing."""
    some = samples.order[samples.is_learnt][:N_TOLD_APART]
    keys, weight = [], None
    for model, is_in in enumerate(features.seen.is_in):
        told = features.of_models(np.full(len(some), model), some)
        weight = randomness.generator(0, "order of models").random(told.shape) if weight is None else weight
        keys.append((float((told * weight).sum()), is_in[samples.order].tobytes(), model))
    return np.array([model for *_, model in sorted(keys)], dtype=np.int64)


def _by_references(seen: Comparison, models: np.ndarray, at_most: int | None) -> list[tuple[np.ndarray, list[int]]]:
    """Each set of references, in the order of `models`, and the turns that have it."""
    found: dict[bytes, tuple[np.ndarray, list[int]]] = {}
    for turn, is_reference in enumerate(seen.is_reference):
        references = models[is_reference[models] > 0][:at_most]
        found.setdefault(references.tobytes(), (references, []))[1].append(turn)
    return list(found.values())


@dataclass(frozen=True)
class _Rows:
    """Rows that classifiers are fitted on, in an order that is neither that of the models nor that of the samples."""

    features: np.ndarray  # [R, F]
    is_in: np.ndarray  # [R] bool
    fold: np.ndarray  # [R]
    label: np.ndarray  # [R]

    @classmethod
    def drawn(cls, features: Features, references: np.ndarray, samples: Samples, use: LabelUse) -> _Rows:
        """Some rows at random; as many of each class where each has its classifier. What cannot be described (NaN) is left out."""
        is_in = features.seen.is_in[references][:, samples.order]
        learnt = np.flatnonzero(samples.is_learnt)
        classes = np.unique(samples.label[learnt]) if use == "per_class" else [None]
        limit = max(N_ROWS // max(1, len(classes)), N_ROWS_OF_CLASS)
        models, places = [], []
        for of_class in classes:
            columns = learnt if of_class is None else learnt[samples.label[learnt] == of_class]
            flat = _some(is_in[:, columns], limit)
            models.append(flat // len(columns))
            places.append(columns[flat % len(columns)])
        model, place = np.concatenate(models), np.concatenate(places)
        told = features.of_models(references[model], samples.order[place])
        kept = ~np.isnan(told).any(axis=1)
        return cls(told[kept], is_in[model, place][kept], samples.fold[place][kept], samples.label[place][kept])

    def judges(self, attack: str, classifier: Name, use: LabelUse, samples: Samples) -> dict[int, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
        """For each fold with samples, what gives the log-odds of features [n, F] and labels [n], fitted on the other folds."""
        classes = np.unique(samples.label)
        if len(self.features) > 1 and (self.features == self.features[0]).all():
            raise AttackError(
                f"{attack}: the references answer the same about all samples; a classifier has nothing to learn, check what is released"
            )
        return {int(fold): self._judge(attack, classifier, use, self.fold != fold, classes) for fold in np.unique(samples.fold[samples.is_scored])}

    def _judge(
        self, attack: str, classifier: Name, use: LabelUse, others: np.ndarray, classes: np.ndarray
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        if use == "input":
            of_both = self._fitted(attack, classifier, others, with_label(self.features, self.label, classes))
            return lambda told, label: of_both(with_label(told, label, classes))
        if use == "none":
            whole = self._fitted(attack, classifier, others, self.features)
            return lambda told, label: whole(told)
        known = {of_class: others & (self.label == of_class) for of_class in classes.tolist()}
        own = {of_class: fit(classifier, self.features[rows], self.is_in[rows]) for of_class, rows in known.items() if self._is_enough(rows)}
        rest = self._fitted(attack, classifier, others, self.features) if len(own) < len(classes) else None

        def judge(told: np.ndarray, label: np.ndarray) -> np.ndarray:
            found = np.empty(len(told))
            for of_class in np.unique(label).tolist():
                here = label == of_class
                found[here] = own.get(of_class, rest)(told[here])  # type: ignore[misc]
            return found

        return judge

    def _fitted(self, attack: str, classifier: Name, rows: np.ndarray, features: np.ndarray) -> LogOdds:
        if not self._is_enough(rows):
            n_in = int(self.is_in[rows].sum())
            raise AttackError(
                f"{attack}: a sample is scored by a classifier of other samples, of which the references' answers are {n_in} IN and {int(rows.sum()) - n_in} "
                f"OUT; at least {LEAST_ROWS} of each are needed: audit more records together, and have references that trained on some of them"
            )
        return fit(classifier, features[rows], self.is_in[rows])

    def _is_enough(self, rows: np.ndarray) -> bool:
        n_in = self.is_in[rows].sum()
        return bool(min(n_in, rows.sum() - n_in) >= LEAST_ROWS)


def _some(is_in: np.ndarray, limit: int) -> np.ndarray:
    """Places in the flattened [K, n] of at most `limit` rows drawn at random, half of them IN where there are as many; in rising order."""
    sides = [np.flatnonzero(is_in), np.flatnonzero(~is_in)]
    draw = randomness.generator(0, "rows of a classifier", limit)
    for i, (side, other) in enumerate(zip(list(sides), reversed(list(sides)), strict=True)):
        size = max(limit // 2, limit - len(other))
        sides[i] = side if len(side) <= size else draw.choice(side, size, replace=False, shuffle=False)
    return np.sort(np.concatenate(sides))


def with_label(features: np.ndarray, label: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The label as further features, one a class, [n, F + C]."""
    return np.concatenate([features, label[:, None] == classes], axis=1)


def fit(name: Name, features: np.ndarray, is_in: np.ndarray) -> LogOdds:
    """A classifier of scikit-learn fitted on IN and OUT rows [n, F], both sides weighing the same; gives the log-odds of IN, [n] in float64.

    Log-odds, for probabilities near 1 round and tie. A feature that is constant is left out of what is fitted.
    """
    center, width = features.mean(axis=0), features.std(axis=0)
    scale = np.divide(1.0, width, out=np.zeros_like(width), where=np.ptp(features, axis=0) > 0)
    share = is_in.mean()
    model = _unfitted(name, len(features))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # the network is stopped after MLP_ROWS, as is meant
        model.fit((features - center) * scale, is_in.astype(np.int64), sample_weight=np.where(is_in, 0.5 / share, 0.5 / (1 - share)))
    return lambda told: _log_odds(name, model, (told - center) * scale)


def _unfitted(name: Name, n_rows: int) -> Any:
    """scikit-learn is imported here: it takes a second, and the options of an attack are read without it."""
    seed = randomness.derive(0, "classifier", name) % 2**32
    if name == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(N_TREES, min_samples_leaf=LEAST_LEAF, max_samples=0.5, n_jobs=1, random_state=seed)
    if name == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=6, min_samples_leaf=LEAST_LEAF, early_stopping=False, random_state=seed)
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(HIDDEN, max_iter=int(np.clip(MLP_ROWS // n_rows, 10, 200)), random_state=seed)


def _log_odds(name: Name, model: Any, features: np.ndarray) -> np.ndarray:
    if name == "mlp":
        return _before_the_sigmoid(model, features)
    if name == "forest":  # trees vote with shares, which may all be 0 or 1: half a tree for either side keeps the logarithm finite
        share = model.predict_proba(features)[:, 1]
        return special.logit((share * N_TREES + 0.5) / (N_TREES + 1))
    return np.asarray(model.decision_function(features), dtype=np.float64)


def _before_the_sigmoid(model: Any, features: np.ndarray) -> np.ndarray:
    """The last layer's sum, [n]: scikit-learn's network gives probabilities only."""
    found = features
    for weight, bias in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        found = np.maximum(found @ weight + bias, 0.0)
    return (found @ model.coefs_[-1] + model.intercepts_[-1])[:, 0]
