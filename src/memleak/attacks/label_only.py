"""Membership from the label that a model gives, and nothing else.

Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks". A record that was trained on stays right when it
is mirrored, moved or turned, lies farther from the decision boundary, and survives more noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.classifiers import Features, out_of_fold
from memleak.attacks.estimate import Comparison, finite, signal_of
from memleak.params import VIEW, Frozen, n_views

COLUMN = {"boundary": "boundary_distance", "noise": "noise_robustness"}  # signals that take queries of their own


class Options(Frozen):
    """How the model is asked, how often at most, and what is made of its answers."""

    method: Literal["augmentation", "boundary", "noise"] = Field(
        "augmentation", description="right answers about moved and turned images; distance to the boundary; robustness to Gaussian noise"
    )
    views: tuple[Annotated[str, Field(pattern=VIEW)], ...] = Field(
        ("identity", "flip", "shift-1", "rotate-2", "rotate-4"), min_length=1, description="how augmentation shows a record: 14 queries by default"
    )
    classifier: Literal["logistic", "forest", "boosting", "mlp", "none"] = Field(
        "logistic", description="of augmentation, fitted on references; none: the share of right answers"
    )
    queries: int = Field(200, ge=1, le=10_000, description="labels asked for about one record at most")

    @model_validator(mode="after")
    def _is_within_the_queries(self) -> Options:
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views: {list(self.views)} names one family twice; every view counts once")
        if self.method == "augmentation" and self.n_views > self.queries:
            raise ValueError(f"views: {list(self.views)} are {self.n_views} queries of each record, queries allows {self.queries}; name fewer views")
        return self

    @property
    def n_views(self) -> int:
        """Queries of one record under augmentation."""
        return n_views(self.views)

    @property
    def needs(self) -> Needs:
        if self.method == "augmentation":
            return Needs(("is_correct",), references=0 if self.classifier == "none" else 1, views=self.views, fits=self.classifier != "none")
        column = COLUMN[self.method]
        return Needs((column,), measured={column: {"name": column, "queries": self.queries}})


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """How firmly the target gives the right label, [N].

    `augmentation`: log-odds that it trained on the sample, from which views it is right about, by a classifier fitted
    on what the references say of other samples (`classifiers.out_of_fold`), so that several records are needed; with
    `classifier: none` the share of views. `boundary` and `noise`: the measured distance or robustness, views averaged.
    """
    if not options.needs.has_references:
        return _firmness(evidence.target, options)
    return _fitted(Comparison.of_evidence(evidence), evidence.group, options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]; turns that share their references share their classifiers."""
    if options.needs.has_references:
        return _fitted(Comparison.of_turns(pool, turns), pool.group, options)
    return np.stack([_firmness({name: values[turn.target] for name, values in pool.signals.items()}, options) for turn in turns])


def _firmness(target: Mapping[str, np.ndarray], options: Options) -> np.ndarray:
    name = options.needs.signals[0]
    return finite(signal_of(target, name), f"{name} of the target").mean(axis=-1)


def _fitted(seen: Comparison, group: np.ndarray | None, options: Options) -> np.ndarray:
    seen.require(options.needs, "label_only")
    assert options.classifier != "none"
    features = Features(seen, ("is_correct",), lambda signals: finite(signal_of(signals, "is_correct"), "is_correct"))
    return out_of_fold("label_only", features, None, group, options.classifier, "none")
