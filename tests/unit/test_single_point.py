"""The single-point attack: surprise under OUT, or the ratio of IN to OUT."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest
from pytest import approx
from scipy import stats

from memleak.attacks import AttackError, Evidence, single_point
from memleak.attacks.single_point import Options
from memleak.metrics import decisions, roc


def evidence(targets, inside, outside, signal: str = "margin") -> Evidence:
    """One sample for each target value, all with the same references."""
    reference = np.concatenate([inside, outside])[:, None, None].repeat(len(targets), axis=1)
    is_in = np.repeat([True, False], [len(inside), len(outside)])[:, None].repeat(len(targets), axis=1)
    return Evidence({signal: np.asarray(targets, dtype=float)[:, None]}, {signal: reference}, is_in, sample_id=np.arange(len(targets)) + 40)


OUT = np.random.default_rng(0).normal(size=24)
IN = np.random.default_rng(1).normal(2, 1, size=24)
X = np.linspace(-6, 60, 200)


@pytest.mark.parametrize("fit", ["normal", "kde", "empirical"])
def test_the_score_rises_with_the_margin_and_is_finite_however_far(fit):
    x = np.concatenate([X, [1e3, 1e6, 1e9]])
    scores = single_point.score(evidence(x, IN, OUT), Options(fit=fit))

    assert np.isfinite(scores).all() and (np.diff(scores) >= -1e-12).all()
    assert fit == "empirical" or (np.diff(scores) > 0).all()


@pytest.mark.parametrize("fit", ["normal", "kde", "empirical"])
def test_the_score_falls_with_the_loss(fit):
    scores = single_point.score(evidence(X, IN, OUT, "loss"), Options(fit=fit, signal="loss"))

    assert (np.diff(scores) <= 1e-12).all() and scores[0] > scores[-1]


def test_the_score_of_a_value_at_the_mean_is_log_two():
    assert single_point.score(evidence([OUT.mean()], IN, OUT), Options()) == approx(np.log(2))


@pytest.mark.parametrize("fit", ["normal", "kde"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_decision_is_a_threshold_on_the_score(fit, alpha):
    rule = decisions.threshold_rule(decisions.fit(OUT, fit), alpha)
    said, scores = rule.says_member(X), single_point.score(evidence(X, IN, OUT), Options(fit=fit))

    assert scores[said].min() > scores[~said].max()


def test_the_ratio_is_that_of_the_two_fitted_densities():
    scores = single_point.score(evidence([0.0, 1.0, 3.0], IN, OUT), Options(test="likelihood_ratio"))
    x = np.array([0.0, 1.0, 3.0])

    assert scores == approx(stats.norm(IN.mean(), IN.std(ddof=1)).logpdf(x) - stats.norm(OUT.mean(), OUT.std(ddof=1)).logpdf(x))


@pytest.mark.parametrize("fit", ["normal", "kde"])
def test_the_ratio_is_finite_and_right_where_the_arms_are_sixty_nats_apart(fit):
    draw = np.random.default_rng(0)
    inside, outside = 60 + 1e-3 * draw.normal(size=24), 1e-3 * draw.normal(size=24)
    scores = single_point.score(evidence([60.0, 0.0, 30.0], inside, outside), Options(fit=fit, test="likelihood_ratio"))

    assert np.isfinite(scores).all() and scores[0] > 1e6 and scores[1] < -1e6


def test_views_are_averaged():
    two_views = evidence([1.0], IN, OUT)
    both = Evidence({"margin": np.array([[0.5, 1.5]])}, {"margin": two_views.reference["margin"].repeat(2, axis=2)}, two_views.is_in)

    assert single_point.score(both, Options()) == approx(single_point.score(two_views, Options()))


def test_scores_separate_what_is_separated():
    draw = np.random.default_rng(5)
    members, others = draw.normal(2, 1, 1000), draw.normal(0, 1, 1000)
    scores = single_point.score(evidence(np.concatenate([members, others]), IN, OUT), Options())

    assert roc.auc(scores, np.repeat([True, False], 1000)) == approx(stats.norm.cdf(2 / np.sqrt(2)), abs=0.02)


def test_evidence_that_cannot_be_fitted_names_the_sample():
    with pytest.raises(AttackError, match="sample 40, margin: all 24 values are 1"):
        single_point.score(evidence([1.0], IN, np.ones(24)), Options())


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(pydantic.ValidationError, match="needs densities"):
        Options(fit="empirical", test="likelihood_ratio")
    with pytest.raises(pydantic.ValidationError):
        Options(alpha=1.0)
