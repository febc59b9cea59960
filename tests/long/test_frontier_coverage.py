"""Do the gap, and paired differences in accuracy, hold their truth, and do sweeps in which no defence does anything keep their error?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import worlds
from scipy.stats import norm

from memleak.attacks import Pool, lira
from memleak.metrics import compare, frontier, pooled, utility

pytestmark = pytest.mark.long
N_WORLDS = 500
FAMILIES = 300


@dataclass(frozen=True)
class World:
    """How hard a sample is for a target: a unit normal, in which units, samples and a unit's variants have levels of their own."""

    targets: int
    samples: int
    of_unit: float = 0.0  # standard deviations
    of_sample: float = 0.0
    alike: float = 0.8  # correlation of what two variants find hard, beside the levels of samples
    copies: int = 1  # samples of one group

    def draw(self, draw: np.random.Generator, n_variants: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Hardness [V, T, N], membership [T, N], unit [T], group [N]."""
        units, n_groups = np.arange(self.targets) // 2, self.samples // self.copies
        n_units, group = int(units.max()) + 1, np.repeat(np.arange(n_groups), self.copies)
        coin = draw.permuted(np.tile(np.arange(n_groups) < n_groups // 2, (n_units, 1)), axis=1)
        is_member = (coin[units] ^ (np.arange(self.targets) % 2 == 1)[:, None])[:, group]
        hard = np.sqrt(1 - self.of_unit**2 - self.of_sample**2) * self._variants(draw, n_variants, self.targets, n_groups)[..., group]
        hard += self.of_unit * self._variants(draw, n_variants, n_units)[:, units, None] + self.of_sample * draw.normal(size=n_groups)[group]
        return hard, is_member, units, group

    def _variants(self, draw: np.random.Generator, *size: int) -> np.ndarray:
        """Unit normals of every variant, which share a part."""
        return np.sqrt(self.alike) * draw.normal(size=size[1:]) + np.sqrt(1 - self.alike) * draw.normal(size=size)


WORLDS = {
    "independent answers": World(16, 500),
    "levels of both": World(16, 500, 0.2, 0.7),
    "levels of samples dominate": World(16, 500, 0.1, 0.9),
    "many targets": World(64, 300, 0.1, 0.8),
    "four units": World(8, 500, 0.2, 0.7),
    "one unit": World(2, 500, 0.0, 0.7),
    "one target": World(1, 500, 0.0, 0.7),
    "copies of samples": World(16, 600, 0.2, 0.7, copies=3),
    "unlike variants": World(16, 500, 0.2, 0.5, alike=0.0),
}


@pytest.mark.parametrize(("train", "test", "worse"), [(0.95, 0.8, 0.75), (0.999, 0.9, 0.89), (0.7, 0.7, 0.7)])
@pytest.mark.parametrize("name", WORLDS)
def test_the_gap_and_the_paired_difference_of_accuracies_cover(name, train, test, worse):
    world, held, p, width = WORLDS[name], [], [], []
    draw = np.random.default_rng([list(WORLDS).index(name), round(1000 * test)])
    for _ in range(N_WORLDS):
        hard, truth, unit, group = world.draw(draw, 2)
        right = hard[0] < norm.ppf(np.where(truth, train, test))
        found = utility.accuracies(right, truth, unit, group)
        tested = utility.difference(hard[1] < norm.ppf(worse), right, truth, unit, group)
        values = {"utility": test, "train_accuracy": train, "gap": train - test}
        held.append([*(found[key]["low"] <= value <= found[key]["high"] for key, value in values.items()), tested["low"] <= worse - test <= tested["high"]])  # fmt: skip
        width.append([*(found[key]["high"] - found[key]["low"] for key in values), tested["high"] - tested["low"]])
        p.append(tested["p"] <= 0.05)
    print(f"{name:28s} {train} {test} {worse}: utility, train, gap, difference held {np.mean(held, axis=0).round(3)} width {np.mean(width, axis=0).round(3)} p <= .05 {np.mean(p):.3f}")  # fmt: skip

    assert (np.mean(held, axis=0) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / N_WORLDS)).all()
    if worse == test:
        assert np.mean(p) <= 0.07 + 2 * np.sqrt(0.07 * 0.93 / N_WORLDS)


@pytest.mark.parametrize("name", ["independent answers", "levels of both"])
def test_a_sweep_of_twenty_defences_that_do_nothing_finds_one_in_at_most_a_twentieth(name, monkeypatch):
    """Other models of the same quality, as many targets; Holm over the variants for each of accuracy and AUC."""
    monkeypatch.setattr(pooled, "N_DRAWS", (60, 60))
    world, draw, wrong = WORLDS[name], np.random.default_rng(1), []
    for _ in range(FAMILIES):
        hard, truth, unit, group = world.draw(draw, 21)
        right, scores = hard < norm.ppf(0.8), hard + truth
        rows = []
        for own, score in zip(right[1:], scores[1:], strict=True):
            of_auc = compare.paired_bootstrap(score, scores[0], truth, unit, group)["auc"]
            rows.append({"against": {"utility": utility.difference(own, right[0], truth, unit, group), "auc": of_auc, "tpr": None}, "epsilon": None})
        frontier.correct([{"against": None, "epsilon": None}, *rows], list(range(21)))
        wrong.append([min(row["against"][what]["p_holm"] for row in rows) <= 0.05 for what in ("utility", "auc")])
    print(f"{name}: families with a discovery, accuracy and AUC {np.mean(wrong, axis=0).round(3)}")

    assert (np.mean(wrong, axis=0) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / FAMILIES)).all()


def scored_by_lira(draw: np.random.Generator, models: int, n_variants: int, alike: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores [V, T, N] of variants that are alike, and the truth: samples and models memorise more or less by factors of their own."""
    is_in = worlds.halves(models, 300, draw)
    width, gain = np.exp(0.5 * draw.normal(size=300)), np.exp(0.3 * draw.normal(size=300))
    shared, of_model, found = draw.normal(size=(models, 300)), draw.normal(size=(models, 1)), []
    turns = worlds.HalvesWorld(Pool({}, is_in), models).turns
    for _ in range(n_variants):
        noise = np.sqrt(alike) * shared + np.sqrt(1 - alike) * draw.normal(size=(models, 300))
        own = np.exp(level * (np.sqrt(alike) * of_model + np.sqrt(1 - alike) * draw.normal(size=(models, 1))))
        margin = (width * (noise + gain * own * is_in))[:, :, None].astype(np.float32)
        pool = Pool({"margin": margin}, is_in, sample_id=np.arange(300), is_balanced=True)
        found.append(lira.score_all(pool, turns, lira.Options()))
    return np.array(found), is_in


@pytest.mark.parametrize(("models", "alike", "level"), [(16, 0.5, 0.3), (16, 0.0, 0.6), (8, 0.5, 0.3)])
def test_a_sweep_of_ten_defences_that_do_nothing_to_lira_finds_one_in_at_most_a_twentieth(models, alike, level, monkeypatch):
    """References are shared by all targets, and Holm asks for a far tail of few units; at a false-positive rate of 1 % too."""
    monkeypatch.setattr(pooled, "N_DRAWS", (60, 60))
    draw, wrong, n_families = np.random.default_rng(models), [], 120
    for _ in range(n_families):
        scores, truth = scored_by_lira(draw, models, 11, alike, level)
        tested = [compare.paired_bootstrap(one, scores[0], truth, np.arange(models) // 2) for one in scores[1:]]
        rows = [{"against": {"utility": None, "auc": one["auc"], "tpr": one["tpr"]}, "epsilon": None} for one in tested]
        frontier.correct([{"against": None, "epsilon": None}, *rows], list(range(11)))
        wrong.append([min(row["against"][what]["p_holm"] for row in rows) <= 0.05 for what in ("auc", "tpr")])
    print(f"{models} models, alike {alike}, level {level}: families with a discovery, AUC and TPR {np.mean(wrong, axis=0).round(3)}")

    assert (np.mean(wrong, axis=0) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_families)).all()
