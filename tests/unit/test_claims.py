"""What a private training claims against its lower bound: p-values that invert the bounds, alarms of broken mechanisms and of none that is right."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
from pytest import approx
from scipy import special, stats
from worlds import audit_world

from memleak import params, plan
from memleak.attacks.pools import Models
from memleak.metrics import audit, epsilon
from memleak.metrics.audited import Audited
from memleak.metrics.epsilon import Counts, audit_one_run, audit_pairs, held_against, pairs_p_value
from memleak.metrics.stage import pairs_epsilon
from memleak.report import page, pool
from memleak.report.verdict import verdict
from memleak.training import accountant

RATE, STEPS, DELTA, CLAIM, N_CANARIES, N_SEEDS = 0.064, 400, 1e-5, 0.5, 1000, 40
DP = {
    "epsilon": 0.5, "delta": 1e-5, "noise_multiplier": 9.375, "clip": 1.0, "sample_rate": 0.064, "steps": 400, "accountant": "prv",
    "batch_norm_replaced": 2,
}  # fmt: skip
SETTINGS = {"delta": 1e-5, "confidence": 0.95, "strategy": "bonferroni", "claimed": None}
MLP = {"architecture": "mlp", "hidden": [32], "epochs": 2, "batch_size": 16, "learning_rate": 0.1}


def mechanism(seed, *, noise, rate=RATE, norm=1.0, n=N_CANARIES):
    """What the audit of DP-SGD sees of gradient canaries: their summed coordinates, in units of clip, and whose coin fell so."""
    draw = np.random.default_rng(seed)
    is_member = draw.random(n) < 0.5
    taken = np.where(is_member, draw.binomial(STEPS, rate, n), 0)
    return norm * taken + noise * np.sqrt(STEPS) * draw.normal(size=n), is_member


@pytest.fixture(scope="module")
def noise():
    """That the accountant asks for."""
    return accountant.noise_of(CLAIM, RATE, STEPS, DELTA, "prv")


def audits(claimed=CLAIM, **broken):
    return [audit_one_run(*mechanism(seed, **broken), delta=DELTA, claimed=claimed) for seed in range(N_SEEDS)]


def test_a_right_mechanism_is_accused_in_at_most_5_percent_of_40_seeds(noise):
    found = audits(noise=noise)

    assert sum(one.epsilon > CLAIM for one in found) <= 0.05 * N_SEEDS
    assert [one.p <= 0.05 for one in found] == [one.epsilon > CLAIM for one in found]
    assert any(one.epsilon > 0 for one in found)  # it is not that nothing is seen


@pytest.mark.parametrize(
    ("broken", "least"),
    [
        ({"noise": 0.0}, 4.0), ({"norm": 10.0}, 1.0), ({"norm": 100.0}, 4.0), ({"rate": 10 * RATE}, 1.0),
    ],
    ids=["no noise", "no clipping of 10 C", "no clipping of 100 C", "ten times the rate"],
)  # fmt: skip
def test_a_broken_mechanism_raises_the_alarm_with_every_seed(broken, least, noise):
    found = audits(**{"noise": noise, **broken})

    assert min(one.epsilon for one in found) > least > CLAIM
    assert max(one.p for one in found) < 0.005


@pytest.mark.parametrize("strategy", ["bonferroni", "split"])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_alarm_of_one_run_is_a_p_value_below_the_error(strategy, confidence):
    """With claims all around the bound; those that are refuted and those that are not."""
    alarms = []
    for seed in range(60):
        scores, is_member = mechanism(seed % 6, noise=1.5, n=500)
        claimed = float(np.random.default_rng(seed).uniform(0, 3))
        found = audit_one_run(scores, is_member, delta=1e-5, confidence=confidence, strategy=strategy, claimed=claimed)
        assert (found.p < 1 - confidence) == (found.epsilon > claimed)
        alarms.append(found.epsilon > claimed)

    assert any(alarms) and not all(alarms)


def test_the_p_value_of_one_run_is_the_error_at_which_its_bound_meets_the_claim():
    for seed in range(5):
        scores, is_member = mechanism(seed, noise=1.5, n=500)
        p = audit_one_run(scores, is_member, delta=1e-5, claimed=0.4).p

        assert p < 0.5
        assert audit_one_run(scores, is_member, delta=1e-5, confidence=1 - p).epsilon == approx(0.4, abs=1e-5)


def test_guesses_that_are_all_right_have_a_p_value_in_closed_form():
    """(e^c / (1 + e^c))^r for each of three numbers of guesses tried; the most guesses tell most."""
    is_member = np.random.default_rng(0).random(400) < 0.5
    found = audit_one_run(np.where(is_member, 1.0, 0.0), is_member, delta=0, guesses=[(10, 10), (20, 0), (50, 50)], claimed=1.5)

    assert found.p == approx(3 * special.expit(1.5) ** 100)
    assert audit_one_run(np.where(is_member, 0.0, 1.0), is_member, delta=1e-5, guesses=[(50, 50)], claimed=1.5).p == 1.0
    assert audit_one_run(np.where(is_member, 1.0, 0.0), is_member, delta=0).p is None


@pytest.mark.parametrize("true_epsilon", [0.5, 2.0])
def test_a_claim_that_is_true_has_a_small_p_value_no_more_often_than_it_says(true_epsilon):
    """Randomised response, whose epsilon is exact: the worst that keeps the claim."""
    found = []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        is_member = draw.random(500) < 0.5
        told = np.where(draw.random(500) < special.expit(true_epsilon), is_member, ~is_member)
        found.append(audit_one_run(told.astype(float), is_member, delta=0, claimed=true_epsilon, guesses=[(200, 200)]).p)

    for level in (0.05, 0.2):
        assert np.mean(np.array(found) <= level) <= level + 4 * np.sqrt(level / 300)
    assert min(found) < 0.1


def test_the_p_value_of_pairs_is_the_error_at_which_the_bound_meets_the_claim():
    """Always recognised: half the error e each makes TPR >= q and FPR <= 1 - q with q = (e / 2)^(1 / n), so log-odds of q = claim."""
    n, claim = 40, 1.0
    counts = {"seen": Counts(n, n, 0, n), "not": Counts(n // 2, n, n // 2, n)}

    assert pairs_p_value(counts["seen"], 0, claim) == approx(2 * special.expit(claim) ** n, rel=1e-6)
    assert pairs_p_value(counts["not"], 0, claim) == 1.0
    assert pairs_p_value(Counts(10_000, 10_000, 0, 10_000), 0, claim) == epsilon.LEAST_ERROR
    assert audit_pairs(counts, delta=0, claimed=claim).p == approx(4 * special.expit(claim) ** n, rel=1e-6)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("delta", [0, 0.01])
def test_the_alarm_of_pairs_is_a_p_value_below_the_error(confidence, delta):
    alarms = []
    for seed in range(100):
        draw = np.random.default_rng(seed)
        counts = {f"t{i}": Counts(int(draw.binomial(60, 0.7)), 60, int(draw.binomial(60, 0.1)), 60) for i in range(4)}
        claimed = float(draw.uniform(0.2, 3))
        found = audit_pairs(counts, delta=delta, confidence=confidence, claimed=claimed)
        assert (found.p < 1 - confidence) == (found.epsilon > claimed)
        alarms.append(found.epsilon > claimed)

    assert 10 < sum(alarms) < 90


def test_a_true_claim_is_refuted_by_pairs_in_at_most_5_percent():
    """Exact: over all counts of true and false positives of 40 + 40 trainings with randomised response."""
    n, counts, true_epsilon = 40, np.arange(41), 1.0
    tpr = special.expit(true_epsilon)
    chance = stats.binom.pmf(counts, n, tpr)[:, None] * stats.binom.pmf(counts, n, 1 - tpr)
    p = np.array([[pairs_p_value(Counts(int(k), n, int(j), n), 0, true_epsilon) for j in counts] for k in counts])

    assert chance[p <= 0.05].sum() <= 0.05 and chance[p <= 0.3].sum() <= 0.3 and p.min() < 0.001


def _audited(own, truth):
    n_models, n = own.shape
    models = Models(np.array([f"m{i}" for i in range(n_models)]), np.arange(n_models), np.ones(n_models, dtype=bool), truth)
    return Audited(models, pd.DataFrame({"sample_id": np.arange(n), "group_id": np.arange(n), "label": 0, "source_id": -1}))


def test_several_runs_pay_for_their_number():
    """The worst run's p-value, at its share of the error, times the number of runs."""
    own, truth = (np.stack(parts) for parts in zip(*(mechanism(seed, noise=1.5, n=300) for seed in range(3)), strict=True))
    settings = held_against(SETTINGS | {"claimed": 0.05}, None, {})

    found = _audited(own, truth).epsilon(own, "canaries", settings)

    runs = [audit_one_run(scores, members, delta=1e-5, confidence=1 - 0.05 / 3, claimed=0.05) for scores, members in zip(own, truth, strict=True)]
    assert found["p"] == min(1, 3 * min(run.p for run in runs)) and [run["p"] for run in found["runs"]] == [run.p for run in runs]
    assert found["epsilon"] == max(run.epsilon for run in runs) and found["alarm"] == (found["p"] < 0.05) and found["claimed"] == 0.05
    assert _audited(own, truth).epsilon(own, "halves", settings) is None


@pytest.mark.parametrize(
    ("settings", "dp", "design", "claimed", "note"),
    [
        ({}, None, {}, None, None),
        ({}, DP, {}, 0.5, None),
        ({"claimed": 3.0}, DP, {}, 0.5, None),  # who declares more than the accountant says cannot silence it
        ({"claimed": 0.1}, DP, {}, 0.1, None),
        ({"claimed": 3.0}, None, {}, 3.0, None),
        ({"delta": 1e-4}, DP, {}, 0.5, None),
        ({"delta": 1e-6}, DP, {}, None, "at delta 1e-06, and the accountant's epsilon holds at 1e-05"),
        ({"delta": 1e-6, "claimed": 3.0}, DP, {}, 3.0, None),
        ({}, DP, {"neighbour": "add"}, 0.5, None),
        ({}, DP, {"neighbour": "replace"}, None, "two changes"),
        ({}, None, {"neighbour": "replace"}, None, None),
    ],
)
def test_a_claim_is_held_against_the_bound_only_where_it_speaks_of_the_same(settings, dp, design, claimed, note):
    found = held_against(SETTINGS | settings, dp, design)

    assert found["claimed"] == claimed and (found["claim_note"] is None) == (note is None) and (note or "") in (found["claim_note"] or "")
    assert found["delta"] == (SETTINGS | settings)["delta"]


def _decided(n, hit, alarm):
    rows = [{"target": "random00", "is_member": truth, "says_member": i < k} for truth, k in ((True, hit), (False, alarm)) for i in range(n)]
    return pd.DataFrame(rows)


def test_decisions_about_pairs_are_held_against_the_claim():
    found = pairs_epsilon(_decided(100, 98, 1), held_against(SETTINGS, DP, {"neighbour": "add"}))
    replaced = pairs_epsilon(_decided(100, 98, 1), held_against(SETTINGS, DP, {"neighbour": "replace"}))

    assert found["epsilon"] > found["claimed"] == 0.5 and found["alarm"] and found["p"] < 1e-6
    assert replaced["epsilon"] == found["epsilon"] and not replaced["alarm"]
    assert (replaced["claimed"], replaced["p"]) == (None, None) and "use neighbour: add" in replaced["claim_note"]


def test_of_several_private_models_the_one_that_promises_least_is_told():
    model = {"device": "cpu", "torch": "2.9.0", "engine": "sequential", "n_train": 10, "n_test": 10, "train_accuracy": 0.5, "test_accuracy": 0.5}
    known = {"data": {"n_classes": 10}}

    found = audit.models_found(known, [model | {"dp": DP}, model | {"dp": DP | {"epsilon": 0.51}}], allow_mixed=False)

    assert found["dp"] == DP | {"epsilon": 0.51}
    assert "dp" not in audit.models_found(known, [model], allow_mixed=False)


def _config(design=None, dp=None, **audit):
    design = design or {"kind": "canaries", "canaries": 100, "subset_size": 200, "space": "gradient"}
    recipe = MLP | ({"dp": {"epsilon": 2.0, "delta": 1e-4} | dp} if dp is not None else {})
    entry = {"dataset": "digits", "recipe": "small", "design": design, "attacks": {"sum": {"name": "threshold", "signal": "alignment"}}, **audit}
    return {"datasets": {"digits": {"name": "digits"}}, "recipes": {"small": recipe}, "audits": {"a": entry}}


def _settings(config):
    return json.loads(plan.build(params.validate(config)).audits["a"].headline_json(False))["epsilon"]


def test_a_bound_is_made_at_the_delta_of_the_promise_where_none_is_written():
    assert _settings(_config(dp={}))["delta"] == 1e-4
    assert _settings(_config(dp={}, epsilon={"confidence": 0.9})) == {"delta": 1e-4, "confidence": 0.9, "claimed": None, "strategy": "bonferroni"}
    assert _settings(_config(dp={}, epsilon={"delta": 1e-3}))["delta"] == 1e-3
    assert _settings(_config(dp={}, epsilon={"delta": 1e-6, "claimed": 3}))["delta"] == 1e-6  # a claim of one's own is at the bound's delta


INPUT = {"kind": "canaries", "canaries": 100, "subset_size": 200}
PAIRS = {"kind": "pairs", "targets": {"random": 1}, "rounds": 8, "subset_size": 100}
HALVES = {"kind": "halves", "models": 8}
LOSS = {"attacks": {"loss": {"name": "threshold"}}}
POINT = {"attacks": {"point": {"name": "single_point"}}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (_config(dp={}, epsilon={"delta": 1e-5}), "audits.a.epsilon.delta: 1e-05 is less than the delta of dp in the recipe 'small' (0.0001)"),
        (_config(INPUT, dp={}, epsilon={"delta": 1e-5}, **LOSS), "is less than the delta of dp"),
        (_config(), "gradient canaries are inserted by DP-SGD, and the recipe 'small' has none; give it dp, or use space: input"),
        (_config(dp={}, **LOSS), "attacks.loss: it reads loss, and of canaries that are gradients alignment alone is known"),
        (_config(dp={}, attacks={"lira": {"name": "lira"}}), "attacks.lira: it reads margin"),
        (_config(dp={}, attacks={"g": {"name": "threshold", "signal": "gradient_norm"}}), "attacks.g: it reads gradient_norm, and of canaries"),
        (_config(dp={}, views=["identity", "flip"]), "views: is set, and canaries that are gradients are shown to no model"),
        (_config(dp={}, include_records=True), "include_records: is set, and canaries that are gradients"),
        (_config(dp={}, slices=["label"]), "slices: is set, and canaries that are gradients"),
        (_config(INPUT, dp={}), "attacks.sum: alignment is known of canaries that are gradients alone"),
        (_config(HALVES, dp={}, epsilon={"claimed": 1}, **LOSS), "epsilon.claimed: the design halves gives no lower bound to hold against it"),
        (_config(PAIRS | {"neighbour": "replace"}, dp={}, epsilon={"claimed": 1}, **POINT), "neighbour: replace makes two changes"),
        (_config(dp={}, epsilon={"claimed": 0}), "epsilon.claimed"),
    ],
)  # fmt: skip
def test_a_claim_or_a_canary_that_makes_no_sense_is_refused_in_one_sentence(config, said):
    with pytest.raises(params.ParamsError) as refused:
        params.validate(config)

    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "config",
    [
        _config(dp={}), _config(INPUT, dp={}, epsilon={"claimed": 1}, **LOSS), _config(PAIRS, dp={}, epsilon={"claimed": 1}, **POINT),
        _config(HALVES, dp={}, epsilon={"delta": 1e-9}, **LOSS), _config(INPUT, epsilon={"delta": 1e-9}, **LOSS),
    ],
)  # fmt: skip
def test_a_claim_that_can_be_held_against_a_bound_is_accepted(config):
    assert params.validate(config).audits["a"].epsilon.confidence == 0.95


@pytest.fixture
def quiet():
    """Metrics of a `pairs` audit that finds nothing."""
    found = audit_world({"random00": 0.0}, holdout=400, seed=3)
    found["models"]["dp"] = DP
    found["epsilon"] = pairs_epsilon(_decided(400, 20, 20), held_against(SETTINGS, DP, found["design"] | {"neighbour": "add"}))
    return found


def _broken(metrics):
    """The same with decisions that refute the claim."""
    return metrics | {"epsilon": pairs_epsilon(_decided(400, 390, 2), held_against(SETTINGS, DP, {"neighbour": "add"}))}


def test_no_verdict_is_low_while_the_claim_is_refuted(quiet):
    before, after = verdict(quiet), verdict(_broken(quiet))

    assert before.state == "LOW" and not any("ALARM" in note for note in before.notes)
    assert after.state == "UNDECIDED" and after.sentence.startswith("The training is less private than it claims; see the alarm.")
    assert (
        after.notes[0].startswith("ALARM: The training is less private than it claims: its epsilon is at least ")
        and "the claim is 0.50 (p " in after.notes[0]
    )
    assert (after.risk, after.low, after.high) == (before.risk, before.low, before.high)


def test_a_verdict_that_is_high_stays_so_beside_the_alarm():
    found = audit_world({"random00": 0.0, "atypical00": 6.0})
    found["models"]["dp"] = DP

    assert verdict(found).state == verdict(_broken(found)).state == "HIGH"


def test_a_private_model_that_fits_its_data_badly_is_judged_all_the_same(quiet):
    quiet["models"] |= {"train_accuracy": {"value": 0.7, "low": 0.6, "high": 0.8}, "test_accuracy": {"value": 0.69, "low": 0.6, "high": 0.8}}
    without = {**quiet, "models": {key: value for key, value in quiet["models"].items() if key != "dp"}}

    assert verdict(quiet).state == "LOW" and "right on 70.0% of their training data alone" in verdict(quiet).notes[-1]
    assert verdict(without).is_refused
    assert verdict(_broken(quiet)).sentence.startswith("The training is less private than it claims")


def test_the_sentence_of_the_bound_says_whether_the_claim_stands(quiet):
    assert pool.epsilon_sentence(quiet)[0].endswith("its claim of 0.50 is not refuted.")
    assert pool.epsilon_sentence(_broken(quiet)) == []  # the alarm says it
    assert pool.epsilon_sentence({**quiet, "epsilon": pairs_epsilon(_decided(400, 20, 20), held_against(SETTINGS, None, {}))})[0].endswith(
        "confidence)."
    )


@pytest.mark.parametrize(("epsilon_", "shown"), [(0.5, "0.50"), (12.3456, "12.35"), (0.0834, "0.083"), (0.0, "0.00")])
def test_an_epsilon_has_digits_that_count(epsilon_, shown):
    assert pool.figures(epsilon_) == shown


def _epsilon_part(metrics):
    macros = page._ENVIRONMENT.get_template("macros.html").module
    return " ".join(
        str(macros.epsilon_part(pool.epsilon_found(metrics), metrics, pool.privacy_sentences(metrics["models"]), pool.claim_alarm(metrics))).split()
    )


def test_the_page_shows_the_promise_and_what_it_follows_from(quiet):
    html = _epsilon_part(quiet)

    assert "DP-SGD claims epsilon 0.50 at delta 1e-05: noise of 9.38 times the clipping norm 1, 400 steps" in html
    assert "with probability 0.064" in html and "Gopi et al. 2021" in html and "2 batch normalisations were replaced" in html
    assert "<td>0.50</td>" in html and "not refuted" in html and "ALARM" not in html and "The claim is the accountant's" in html


def test_the_page_raises_the_alarm(quiet):
    html = _epsilon_part(_broken(quiet))

    assert html.count("ALARM") == 2 and "less private than it claims" in html and "&lt;" in html


def test_the_page_says_why_nothing_is_compared(quiet):
    noted = quiet | {"epsilon": pairs_epsilon(_decided(40, 2, 2), held_against(SETTINGS, DP, {"neighbour": "replace"}))}
    other = {**quiet, "kind": "halves", "epsilon": None}

    assert "Not held against what the training claims: the audit puts one record in another" in _epsilon_part(noted)
    assert "DP-SGD claims epsilon 0.50" in _epsilon_part(other) and "No lower bound beside it: design." in _epsilon_part(other)


def test_metrics_without_any_claim_are_shown_as_ever(quiet):
    old = copy.deepcopy(quiet)
    del old["models"]["dp"]
    old["epsilon"] = {key: value for key, value in old["epsilon"].items() if key not in ("claimed", "p", "alarm", "claim_note")}

    assert "claim" not in _epsilon_part(old).replace("private training claims", "").replace("that the claim is wrong", "")


def test_reference_models_of_a_given_one_tell_their_own_promise():
    (first, _) = pool.privacy_sentences({"references": {"dp": DP}})

    assert first.startswith("Of the reference models: DP-SGD claims epsilon 0.50")
    assert pool.privacy_sentences({"references": None}) == []
