"""Coverage and error rates in 1,000 worlds and more. Run with -s to see the measured tables."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import WORLDS, audit_world

from memleak.metrics import decisions, paired

pytestmark = pytest.mark.long
N_WORLDS = 1000


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["normal", "kde", "empirical", "ratio normal", "ratio kde"])
@pytest.mark.parametrize("n", [8, 16, 24, 40, 60])
def test_the_false_positive_rate_on_fresh_models(world, kind, n):
    """At most alpha, but for the normal fits in worlds that are not normal, whose rates are printed."""
    draw, n_worlds = np.random.default_rng(n), 100 if kind == "ratio kde" else N_WORLDS
    for alpha in (0.05, 0.1, 0.2):
        rates = []
        for _ in range(n_worlds):
            inside, outside = WORLDS[world].draw(draw, n) + 0.5, WORLDS[world].draw(draw, n)
            if kind.startswith("ratio"):
                rule = decisions.likelihood_ratio(*(decisions.fit(x, kind.split()[1]) for x in (inside, outside)), alpha)
            else:
                rule = decisions.threshold_rule(decisions.fit(outside, kind), alpha)
            rates.append(WORLDS[world].rate(rule))
        error = np.std(rates) / np.sqrt(n_worlds)
        print(f"{kind:12s} {world:20s} n {n:3d} alpha {alpha}: {np.mean(rates):.4f} +- {error:.4f}")
        if "normal" not in kind or world == "normal":
            assert np.mean(rates) <= alpha + 4 * error + 1e-3


@pytest.mark.parametrize("n_rounds", [6, 12, 20, 40])
def test_p_values_of_the_paired_test_under_the_null(n_rounds):
    draw = np.random.default_rng(0)
    p = np.array([paired.sign_flip_test(draw.standard_t(2, n_rounds)) for _ in range(4 * N_WORLDS)])

    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) <= level + 4 * np.sqrt(level / len(p))


@pytest.mark.parametrize("effect", [0.0, 1.0, 10.0, 2000.0])
def test_the_effects_interval_covers(effect):
    draw = np.random.default_rng(0)
    found = [paired.effect_interval(draw.normal(effect, 1, 12)) for _ in range(2 * N_WORLDS)]

    assert np.mean([low <= effect <= high for _, low, high in found]) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 2000))


def test_good_audits_do_not_alarm_and_records_without_a_leak_are_not_called_exposed():
    shifts = {"random00": 0.0, "random01": 0.0, "atypical00": 2.0, "mislabelled00": 5.0}
    alarms, false = 0, 0
    for seed in range(N_WORLDS):
        found = audit_world(shifts, rounds=24, holdout=16, seed=seed)
        alarms += any(found["controls"][control]["alarm"] for control in ("null", "level"))
        false += any(found["targets"][name]["state"] != "no evidence" for name in ("random00", "random01"))
    print(f"alarms {alarms}, evidence where there is none {false}, of {N_WORLDS}")

    assert alarms <= 8 and false <= 100
