"""Every model the target in turn: the same scores as one by one, blind on noise, and no count that gives the answer away."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields, replace

import numpy as np
import pytest
from oracles import rmia_by_matrix
from pytest import approx
from worlds import HalvesWorld, gaussian_world

import memleak.attacks
from memleak.attacks import Evidence, Pool, base, difficulty, estimate, lira, meta, reference, rmia, score_each, shadow
from memleak.metrics import roc

OURS = {
    **{
        f"lira-{mode}-{variance}-{center}": (lira, lira.Options(mode=mode, variance=variance, center=center))
        for mode in ("online", "offline", "offline_two_sided")
        for variance in ("per_sample", "pooled", "shrunk")
        for center in ("mean", "median")
    },
    "lira-loss": (lira, lira.Options(signal="loss")),
    "base-online": (base, base.Options()),
    "base-offline": (base, base.Options(mode="offline", scale=0.7)),
    "reference": (reference, reference.Options()),
    "reference-margin": (reference, reference.Options(signal="margin")),
    "difficulty": (difficulty, difficulty.Options()),
    "difficulty-entropy": (difficulty, difficulty.Options(signal="entropy")),
    "meta-calibrated": (meta, meta.Options(calibrated=True)),
    "shadow-input": (shadow, shadow.Options(label="input")),
}  # fmt: skip


def every_attack() -> dict[str, tuple]:
    """Ours with several options, and every other module that offers `score` and says what it needs, by its defaults."""
    found = dict(OURS)
    for entry in pkgutil.iter_modules(memleak.attacks.__path__):
        module = importlib.import_module(f"memleak.attacks.{entry.name}")
        if module in (lira, base, reference, difficulty) or not hasattr(module, "score") or not hasattr(module, "Options"):
            continue
        if hasattr(module.Options, "needs"):
            found[entry.name] = (module, module.Options())
    return found


ALL = every_attack()


def scores_of(name: str, world: HalvesWorld, turns=None) -> np.ndarray:
    """Scores of every turn, [T, N], as the stage makes them."""
    module, options = ALL[name]
    turns = world.turns if turns is None else turns
    return module.score_all(world.pool, turns, options) if hasattr(module, "score_all") else score_each(module.score, world.pool, turns, options)


def mean_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([roc.auc(s, t) for s, t in zip(scores, truth, strict=True)]))


def rearranged(evidence: Evidence, samples=slice(None), models=slice(None)) -> Evidence:
    """The same evidence with samples and references in another order."""
    changed = {
        "target": {k: v[samples] for k, v in evidence.target.items()},
        "reference": {k: v[models][:, samples] for k, v in evidence.reference.items()},
        "is_in": evidence.is_in[models][:, samples],
        "population_reference": {k: v[models] for k, v in (evidence.population_reference or {}).items()},
    }
    return replace(evidence, **changed, **{k: getattr(evidence, k)[samples] for k in ("label", "sample_id", "group")})


@pytest.fixture(scope="module")
def leak() -> HalvesWorld:
    return gaussian_world(1.5, 12, 300, seed=0, population=200, spread=0.3)


@pytest.fixture(scope="module")
def noise() -> HalvesWorld:
    return gaussian_world(0.0, 12, 1000, seed=1, population=300, spread=0.3)


@pytest.mark.parametrize("name", ALL)
def test_members_score_higher_where_something_leaks(name, leak):
    least = 0.53 if name in ("label_only", "population", "threshold") or "two_sided" in name else 0.6  # without references little is known

    assert mean_auc(scores_of(name, leak), leak.truth) > least


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_learnt_from_noise(name, noise):
    """Twelve targets of 1,000 samples: the mean AUC has a standard error near .006."""
    assert mean_auc(scores_of(name, noise), noise.truth) == approx(0.5, abs=0.025)


def test_the_complement_among_the_references_would_give_the_answer(noise):
    """The trap: on pure noise, the number of OUT references is the target's membership, with AUC 1. Our turns hold .5."""

    def count_out(evidence: Evidence, options: None) -> np.ndarray:
        return (~evidence.is_in).sum(axis=0).astype(float)

    assert mean_auc(score_each(count_out, noise.pool, noise.leaky_turns, None), noise.truth) == 1.0
    assert mean_auc(score_each(count_out, noise.pool, noise.turns, None), noise.truth) == 0.5


@pytest.mark.parametrize("name", ALL)
def test_no_row_but_the_references_has_a_say_in_who_was_in(name, leak):
    """Turn the membership of the target and of its complement around: the scores stay bit for bit the same."""
    turned = leak.pool.is_in.copy()
    turned[:2] = ~turned[:2]

    changed = scores_of(name, HalvesWorld(replace(leak.pool, is_in=turned), leak.n_models), leak.turns[:1])

    assert np.array_equal(changed, scores_of(name, leak, leak.turns[:1]))


@pytest.mark.parametrize("name", ALL)
def test_the_complements_signals_have_no_say(name, leak):
    signals = {key: values.copy() for key, values in leak.pool.signals.items()}
    for values in signals.values():
        values[1] = values[2]

    changed = scores_of(name, HalvesWorld(replace(leak.pool, signals=signals), leak.n_models), leak.turns[:1])

    assert changed == approx(scores_of(name, leak, leak.turns[:1]), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("chunk", [1, 1000, 10**6])
def test_all_targets_together_score_as_one_by_one(name, chunk, monkeypatch):
    world = gaussian_world(1.0, 8, 60, seed=2, views=2, spread=0.5)
    module, options = OURS[name]
    one_by_one = score_each(module.score, world.pool, world.turns, options)
    monkeypatch.setattr(estimate, "CHUNK_VALUES", chunk)
    monkeypatch.setattr(lira, "KEPT_VALUES", chunk)

    together = module.score_all(world.pool, world.turns, options)

    assert together.shape == (8, 60)
    assert together == approx(one_by_one, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", OURS)
def test_a_few_turns_with_uneven_references_score_as_one_by_one(name):
    """Turns need not be those of a whole pool: fewer references, other counts of IN and OUT."""
    world = gaussian_world(1.0, 16, 60, seed=3)
    module, options = OURS[name]
    turns = [replace(turn, references=turn.references[2:-1]) for turn in world.turns[5:8]]

    assert module.score_all(world.pool, turns, options) == approx(score_each(module.score, world.pool, turns, options), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["lira-online-shrunk-mean", "base-online", "reference", "difficulty"])
def test_a_pool_may_lie_in_a_file(name, leak, tmp_path):
    mapped = {}
    for key in ("margin", "loss"):
        np.save(tmp_path / f"{key}.npy", leak.pool.signals[key])
        mapped[key] = np.load(tmp_path / f"{key}.npy", mmap_mode="r")
    pool = Pool(mapped, leak.pool.is_in)

    assert np.array_equal(scores_of(name, HalvesWorld(pool, leak.n_models)), scores_of(name, leak))


@pytest.mark.parametrize("name", ALL)
def test_samples_in_another_order_have_the_same_scores(name, leak):
    module, options = ALL[name]
    order = np.random.default_rng(0).permutation(300)

    assert module.score(rearranged(leak.evidence, samples=order), options) == approx(module.score(leak.evidence, options)[order], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_references_in_another_order_give_the_same_scores(name, leak):
    module, options = ALL[name]
    order = np.random.default_rng(0).permutation(10)

    assert module.score(rearranged(leak.evidence, models=order), options) == approx(module.score(leak.evidence, options), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_evidence_stays_as_it_was(name, leak):
    """Signals in float64 need no copy to be computed with, so that writing into them is a slip of the pen away."""
    module, options = ALL[name]
    wide = [{k: v.astype(np.float64) for k, v in side.items()} for side in (leak.pool.signals, leak.pool.population)]
    for values in [*wide[0].values(), *wide[1].values()]:
        values.setflags(write=False)
    pool = replace(leak.pool, signals=wide[0], population=wide[1])
    turn = leak.turns[0]
    fixed = replace(leak.evidence, target={k: v[0] for k, v in wide[0].items()}, reference={k: v[2:] for k, v in wide[0].items()})

    scores = module.score(fixed, options)

    assert scores == approx(module.score(leak.evidence, options), rel=1e-5, abs=1e-5)
    assert score_each(module.score, pool, [turn], options)[0] == approx(scores, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_scores_are_finite_and_float64(name, leak):
    found = scores_of(name, leak)

    assert found.dtype == np.float64 and found.shape == (12, 300) and np.isfinite(found).all()


def test_every_turn_counts_as_many_in_as_out_references(leak):
    for turn in leak.turns:
        seen = leak.pool.evidence(turn)
        assert not {turn.target, turn.target ^ 1} & set(turn.references)
        assert (seen.is_in.sum(axis=0) == 5).all() and (~seen.is_in).sum() == 5 * 300


@pytest.mark.parametrize(("mode", "a"), [("offline", 0.3), ("offline", 1.0), ("online", None), ("online", 0.5)])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_rmia_is_the_matrix_of_all_pairs(mode, a, gamma, views):
    """A third of the population is audited as well, and not compared with itself."""
    world = gaussian_world(1.0, 8, 80, seed=4, population=60, views=views)
    seen = replace(world.evidence, population_id=np.arange(60, 120))

    assert rmia.score(seen, rmia.Options(mode=mode, a=a, gamma=gamma)) == approx(rmia_by_matrix(seen, mode, gamma, a), abs=1e-12)


def test_evidence_has_no_field_for_the_truth():
    assert not {field.name for field in fields(Evidence)} & {"is_member", "truth", "target_is_in"}
