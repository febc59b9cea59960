"""Laws of the score attacks: sorting equals comparing, no order matters, the sign is right, nothing leaks by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytest import approx
from worlds import HalvesWorld, gaussian_world

from memleak.attacks import Evidence, classifiers, label_only, meta, population, rmia, shadow, threshold, top_k
from memleak.attacks import range as ranged
from memleak.metrics import roc

ATTACKS = {
    "rmia offline": (rmia, rmia.Options(a=0.3)),
    "rmia tuned": (rmia, rmia.Options(gamma=1.2)),
    "rmia online": (rmia, rmia.Options(mode="online", ties="inclusive")),
    "rmia log": (rmia, rmia.Options(space="log", a=0.5)),
    "rmia mean of views": (rmia, rmia.Options(views="mean", a=0.5)),
    "population": (population, population.Options()),
    "population margin": (population, population.Options(signal="margin")),
    "shadow": (shadow, shadow.Options()),
    "shadow forest": (shadow, shadow.Options(classifier="forest", label="none")),
    "shadow input": (shadow, shadow.Options(label="input", features="posterior")),
    "top_k": (top_k, top_k.Options()),
    "meta": (meta, meta.Options()),
    "meta calibrated": (meta, meta.Options(calibrated=True)),
    "label_only": (label_only, label_only.Options()),
    "label_only share": (label_only, label_only.Options(classifier="none")),
    "range": (ranged, ranged.Options(point={"name": "memleak.attacks.rmia:score", "a": 0.3}, trim_low=0.3)),
} | {
    f"threshold {signal} {thresholds}": (threshold, threshold.Options(signal=signal, thresholds=thresholds))
    for signal in ("loss", "confidence", "margin", "entropy", "modified_entropy", "correctness")
    for thresholds in ("none", "global", "per_class")
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _few_rows():
    """Laws hold of classifiers that are fitted on fewer rows, too; a forest takes seconds for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "N_ROWS", 4000)
        yield


every_attack = pytest.mark.parametrize(("attack", "options"), ATTACKS.values(), ids=ATTACKS)
SIGNALS = ("target", "reference", "population_target", "population_reference")


@st.composite
def tied_evidence(draw: st.DrawFn) -> Evidence:
    """Losses of at most five values, ids of which some are shared: ties everywhere. Fewer than 8 models, whose sums NumPy takes in order."""
    n, z, m, q = draw(st.integers(1, 8)), draw(st.integers(2, 8)), draw(st.integers(2, 7)), draw(st.integers(1, 3))
    values = st.sampled_from([0.0, 0.25, 0.5, 2.0, 7.0])
    shapes = {"target": (n, q), "reference": (m, n, q), "population_target": (z, q), "population_reference": (m, z, q)}
    losses = {name: {"loss": draw(hnp.arrays(np.float64, shape, elements=values))} for name, shape in shapes.items()}
    assume(len(np.unique(np.concatenate([losses["target"]["loss"].ravel(), losses["reference"]["loss"].ravel()]))) > 1)
    is_in = draw(hnp.arrays(np.bool_, (m, n)))
    is_in[0], is_in[1] = True, False  # every sample has both kinds of references
    ids = draw(st.permutations(range(n + z)))
    return Evidence(**losses, is_in=is_in, sample_id=np.array(ids[:n]), population_id=np.array(draw(st.permutations(ids))[:z]))


@given(
    tied_evidence(), st.sampled_from(["online", "offline"]), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.3]), st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["strict", "inclusive"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=300)
def test_sorting_equals_comparing_every_pair_for_any_gamma_ties_included(found, mode, gamma, a, ties, without_ids):
    found = replace(found, population_id=None) if without_ids else found
    options = rmia.Options(mode=mode, gamma=gamma, a=a, ties=ties)

    p = {name: np.exp(-getattr(found, name)["loss"]) for name in SIGNALS}
    is_out = ~found.is_in[:, :, None]
    mean_out = (p["reference"] * is_out).sum(axis=0) / is_out.sum(axis=0)
    mean_in = (p["reference"] * ~is_out).sum(axis=0) / (~is_out).sum(axis=0)
    mean_z = p["population_reference"].sum(axis=0) / len(is_out)
    typical = (mean_in + mean_out) / 2 if mode == "online" else ((1 + a) * mean_out + (1 - a)) / 2
    typical_z = mean_z if mode == "online" else ((1 + a) * mean_z + (1 - a)) / 2
    r_x, r_z = p["target"] / typical, p["population_target"] / typical_z
    beats = r_x[:, None] > gamma * r_z[None] if ties == "strict" else r_x[:, None] >= gamma * r_z[None]
    counted = np.ones(beats.shape[:2], dtype=bool) if without_ids else found.sample_id[:, None] != found.population_id[None]
    expected = ((beats.sum(axis=2) > beats.shape[2] / 2) & counted).sum(axis=1) / counted.sum(axis=1)

    assert np.array_equal(rmia.score(found, options), expected)


@given(tied_evidence())
def test_population_shares_equal_counting(found):
    loss, others = found.target["loss"], found.population_target["loss"]
    assume(len(np.unique(np.concatenate([loss, others]))) > 1)
    counted = (found.sample_id[:, None] != found.population_id[None])[:, :, None]
    below = ((others[None] > loss[:, None]) & counted).sum(axis=1)  # a higher loss is less like a member
    ties = ((others[None] == loss[:, None]) & counted).sum(axis=1)

    expected = ((below + ties / 2) / counted.sum(axis=1)).mean(axis=1)

    assert population.score(found, population.Options()) == approx(expected, abs=1e-12)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.floats(-5, 5)), st.floats(0, 0.49), st.floats(0, 0.49))
def test_a_trimmed_mean_lies_between_the_extremes_and_knows_no_order(scores, low, high):
    means = ranged.trimmed_mean(scores, low, high)

    assert (means >= scores.min(axis=1) - 1e-12).all() and (means <= scores.max(axis=1) + 1e-12).all()
    assert np.array_equal(ranged.trimmed_mean(scores[:, ::-1], low, high), means)
    assert ranged.trimmed_mean(-scores, high, low) == approx(-means)


@given(hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(-4, 4)), st.data())
def test_no_threshold_has_a_better_balanced_accuracy(values, data):
    is_in = data.draw(hnp.arrays(np.bool_, len(values)))
    assume(is_in.any() and not is_in.all())
    order = np.argsort(values, kind="stable")
    cut = threshold.best_threshold(values[order].astype(float), is_in[order])

    def gain(at: float) -> float:
        return (values[is_in] > at).mean() - (values[~is_in] > at).mean()

    assert gain(cut) == approx(max(gain(at) for at in np.arange(-5, 5, 0.5)))


# -- laws of every attack ----------------------------------------------------------------------------------------


def world(separation: float = 1.5, **changed) -> HalvesWorld:
    return gaussian_world(**({"separation": separation, "models": 10, "samples": 300, "seed": 4, "population": 150, "views": 3} | changed))


def taken(signals, *index):
    """Each signal's values at an index of its axes."""
    return {name: values[index] for name, values in signals.items()}


@every_attack
def test_the_order_of_samples_and_of_population_changes_nothing(attack, options):
    found = world().evidence
    draw = np.random.default_rng(0)
    x, z = draw.permutation(300), draw.permutation(150)
    shuffled = replace(
        found, target=taken(found.target, x), reference=taken(found.reference, slice(None), x), is_in=found.is_in[:, x],
        label=found.label[x], sample_id=found.sample_id[x], group=found.group[x], population_target=taken(found.population_target, z),
        population_reference=taken(found.population_reference, slice(None), z), population_id=found.population_id[z],
    )  # fmt: skip

    assert np.array_equal(attack.score(shuffled, options), attack.score(found, options)[x])


@every_attack
def test_the_order_of_models_changes_nothing(attack, options):
    found = world().evidence
    order = np.random.default_rng(1).permutation(len(found.is_in))
    shuffled = replace(
        found, reference=taken(found.reference, order), is_in=found.is_in[order], population_reference=taken(found.population_reference, order)
    )

    assert attack.score(shuffled, options) == approx(attack.score(found, options), abs=1e-9)  # sums of another order differ in their last bit


@every_attack
def test_a_leak_gives_members_the_higher_scores_and_swapped_labels_mirror_the_auc(attack, options):
    known = world(separation=2.0, samples=1500)
    scores = attack.score(known.evidence, options)

    assert roc.auc(scores, known.is_member) > 0.56
    assert roc.auc(scores, ~known.is_member) == approx(1 - roc.auc(scores, known.is_member))


@every_attack
def test_where_nothing_leaks_the_scores_of_all_turns_tell_nothing(attack, options):
    """Trap 1: with the complement among the references the count of IN references would be the answer."""
    known = world(separation=0.0, samples=1000, views=1)
    scores = attack.score_all(known.pool, known.turns, options)
    aucs = [roc.auc(row, truth) for row, truth in zip(scores, known.truth, strict=True)]

    # 0.0183 is the standard deviation of an AUC of 500 + 500; ten targets share what references they have
    assert np.mean(aucs) == approx(0.5, abs=4 * 0.0183 / np.sqrt(10))
    assert max(abs(np.array(aucs) - 0.5)) < 4.5 * 0.0183


@every_attack
def test_all_turns_at_once_have_the_scores_of_each_alone(attack, options):
    known = world(samples=80, population=40)
    alone = np.stack([attack.score(known.pool.evidence(turn), options) for turn in known.turns])

    assert np.array_equal(attack.score_all(known.pool, known.turns, options), alone)


@every_attack
def test_what_the_target_and_its_complement_trained_on_is_not_read(attack, options):
    known = world(samples=80, population=40)
    before = attack.score_all(known.pool, known.turns[:1], options)
    for answer in (~known.pool.is_in[:2], np.zeros((2, 80), dtype=bool), np.ones((2, 80), dtype=bool)):
        is_in = np.concatenate([answer, known.pool.is_in[2:]])
        assert np.array_equal(attack.score_all(replace(known.pool, is_in=is_in), known.turns[:1], options), before)


@every_attack
def test_float32_and_float64_signals_of_equal_value_have_equal_scores(attack, options):
    found = world(samples=80, population=40).evidence
    wide = {name: {key: np.asarray(values, dtype=np.float64) for key, values in getattr(found, name).items()} for name in SIGNALS}

    assert np.array_equal(attack.score(replace(found, **wide), options), attack.score(found, options))
