"""RMIA: equal to the N x Z comparison, by sorting; P by its formulas; `a` tuned on mock targets alone."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pydantic
import pytest
from pytest import approx
from worlds import gaussian_world

from memleak.attacks import AttackError, Evidence, Pool, Turn, estimate, rmia
from memleak.attacks.rmia import Options
from memleak.metrics import roc

GIVEN = [
    Options(a=0.3),
    Options(a=1.0, gamma=2.0),
    Options(a=0.0, gamma=0.7, ties="inclusive"),
    Options(a=0.4, space="log"),
    Options(mode="online"),
    Options(mode="online", a=0.6, gamma=1.3),
    Options(mode="online", space="log", ties="inclusive"),
    Options(a=0.3, views="mean"),
    Options(a=0.3, views="mean", space="log"),
]


def name_of(options: Options) -> str:
    return "-".join(str(value) for value in options.model_dump(exclude_defaults=True).values())


def typical(loss: np.ndarray, is_in: np.ndarray | None, options: Options) -> np.ndarray:
    """P, or log P, of one point in one view, from the losses [M] of the references; `is_in` is None for a population point."""
    belief = -loss if options.space == "log" else np.exp(-loss)
    outside = belief.mean() if is_in is None else belief[~is_in].mean()
    if options.mode == "online":
        return outside if is_in is None else (belief[is_in].mean() + outside) / 2
    assert isinstance(options.a, float)
    return (1 + options.a) / 2 * outside if options.space == "log" else ((1 + options.a) * outside + (1 - options.a)) / 2


def ratios(loss: np.ndarray, reference: np.ndarray, is_in: np.ndarray | None, options: Options) -> np.ndarray:
    """p / P, or its logarithm, of every point and view [N, Q], one after another."""
    found = np.empty(loss.shape)
    logs = options.space == "log" or (options.views == "mean" and loss.shape[1] > 1)
    for n in range(loss.shape[0]):
        for q in range(loss.shape[1]):
            p = typical(reference[:, n, q], None if is_in is None else is_in[:, n], options)
            if options.space == "linear" and logs:
                p = np.log(p)
            found[n, q] = -loss[n, q] - p if logs else np.exp(-loss[n, q]) / p
    return found.mean(axis=1, keepdims=True) if options.views == "mean" else found


def by_matrix(evidence: Evidence, options: Options) -> np.ndarray:
    """The published comparison of every sample with every population point, [N]."""
    assert evidence.population_target is not None and evidence.population_reference is not None
    as_float = {k: np.asarray(v["loss"], dtype=float) for k, v in vars(evidence).items() if isinstance(v, dict)}
    x = ratios(as_float["target"], as_float["reference"], evidence.is_in, options)
    z = ratios(as_float["population_target"], as_float["population_reference"], None, options)
    logs = options.space == "log" or (options.views == "mean" and as_float["target"].shape[1] > 1)
    z = z + np.log(options.gamma) if logs else z * options.gamma
    beaten = x[:, None] > z[None] if options.ties == "strict" else x[:, None] >= z[None]  # [N, Z, Q]
    majority = beaten.sum(axis=2) > beaten.shape[2] / 2
    counted = np.ones(majority.shape, dtype=bool)
    if evidence.sample_id is not None and evidence.population_id is not None:
        counted = evidence.sample_id[:, None] != evidence.population_id[None]
    return (majority & counted).sum(axis=1) / counted.sum(axis=1)


def small(views: int = 1, *, rounded: bool = True, models: int = 6, seed: int = 0) -> Evidence:
    """Six references, 60 samples of which 20 are also in the population of 50, losses of few values: many ties."""
    draw = np.random.default_rng(seed)

    def losses(*shape: int) -> dict[str, np.ndarray]:
        values = draw.exponential(size=(*shape, views))
        return {"loss": np.round(2 * values) / 2 if rounded else values}

    is_in = np.concatenate([half := draw.random((models // 2, 60)) < 0.5, ~half])
    return Evidence(
        losses(60), losses(models, 60), is_in, losses(50), losses(models, 50), sample_id=np.arange(60) + 100, population_id=np.arange(50) + 140
    )


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("options", GIVEN, ids=name_of)
def test_sorting_counts_exactly_what_the_matrix_counts(options, views):
    evidence = small(views)

    assert np.array_equal(rmia.score(evidence, options), by_matrix(evidence, options))


def test_the_offline_probability_is_half_of_out_and_of_the_in_that_a_guesses():
    """P(x) = (1.3 * 0.25 + 0.7) / 2 = 0.5125, r_x = 0.5 / 0.5125; the z beside it have ratios 0.97 and 0.98."""
    z = np.array([0.97, 0.98])
    reference = np.log(np.array([[0.9], [0.25], [0.25]]))[:, :, None]  # the first is IN: it counts for nothing
    evidence = Evidence(
        {"loss": -np.log([[0.5]])}, {"loss": -reference}, np.array([[True], [False], [False]]),
        {"loss": -np.log(z * 0.5125)[:, None]}, {"loss": np.full((3, 2, 1), -np.log(0.25))},
    )  # fmt: skip

    assert rmia.score(evidence, Options(a=0.3)) == approx([0.5])  # 0.97561 lies between
    assert rmia.score(evidence, Options(a=0.3, gamma=1.01)) == approx([0.0])
    assert rmia.score(evidence, Options(a=0.3, gamma=0.99)) == approx([1.0])


def test_online_weighs_in_and_out_alike_though_their_numbers_differ():
    """P(x) = (0.8 + 0.2) / 2 = 0.5, not the pooled (0.8 + 3 * 0.2) / 4 = 0.35."""
    reference = -np.log(np.array([0.8, 0.2, 0.2, 0.2]))[:, None, None]
    z = {"loss": -np.log(np.array([[0.99 * 0.4], [1.01 * 0.4]]))}  # against P = 0.4: ratios 0.99 and 1.01
    evidence = Evidence(
        {"loss": -np.log([[0.5]])}, {"loss": reference}, np.array([[True], [False], [False], [False]]),
        z, {"loss": np.full((4, 2, 1), -np.log(0.4))},
    )  # fmt: skip

    assert rmia.score(evidence, Options(mode="online")) == approx([0.5])


def test_with_a_of_one_small_probabilities_keep_their_digits():
    draw = np.random.default_rng(0)
    loss = {"loss": 40 + draw.exponential(size=(30, 1))}
    reference = {"loss": 40 + draw.exponential(size=(4, 30, 1))}
    evidence = Evidence(loss, reference, np.zeros((4, 30), dtype=bool), loss, reference)

    scores = rmia.score(evidence, Options(a=1.0))

    order = np.argsort(np.exp(-loss["loss"][:, 0]) / np.exp(-reference["loss"][:, :, 0]).mean(axis=0))
    assert np.array_equal(scores[order], np.arange(30) / 30)


def test_a_sample_of_the_population_is_not_compared_with_itself():
    evidence = small()
    apart = replace(evidence, population_id=None)

    scores, together = rmia.score(evidence, Options(a=0.3, ties="inclusive")), rmia.score(apart, Options(a=0.3, ties="inclusive"))

    assert np.array_equal(scores[:40], together[:40])  # the first 40 are not in the population
    assert (scores[40:] != together[40:]).any()
    assert scores[40:] * 49 == approx(np.round(scores[40:] * 49))


@pytest.mark.parametrize("options", GIVEN, ids=name_of)
def test_one_target_has_the_roc_of_its_ratio_where_no_score_is_zero_or_one(options):
    world = gaussian_world(separation=1.0, models=10, samples=400, seed=1, population=5000)
    evidence = world.evidence
    inner = (scores := rmia.score(evidence, options)) > 0
    inner &= scores < 1
    loss, reference = evidence.target["loss"].astype(float), evidence.reference["loss"].astype(float)
    ratio = ratios(loss, reference, evidence.is_in, options)[:, 0]

    assert inner.mean() > 0.2
    assert roc.auc(scores[inner], world.is_member[inner]) == approx(roc.auc(ratio[inner], world.is_member[inner]), abs=2e-3)
    assert (np.diff(scores[np.argsort(ratio)]) >= 0).all()


def test_a_large_gamma_ties_nearly_all_scores_at_zero():
    """Attacks fact 1: gamma changes one target's ROC by ties only, and a large one destroys it by them."""
    world = gaussian_world(separation=1.0, models=10, samples=2000, seed=1, population=2000)
    by_gamma = {gamma: rmia.score(world.evidence, Options(a=1.0, gamma=gamma)) for gamma in (1.0, 2.0, 64.0, 1e6)}
    aucs = {gamma: roc.auc(scores, world.is_member) for gamma, scores in by_gamma.items()}

    assert aucs[1.0] > 0.65 and aucs[1.0] == approx(aucs[2.0], abs=0.01)
    assert (by_gamma[64.0] == 0).mean() > (by_gamma[2.0] == 0).mean()
    assert aucs[64.0] < aucs[2.0] and aucs[1e6] == 0.5


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_leak_is_seen_above_the_bare_loss(mode):
    world = gaussian_world(separation=1.5, models=18, samples=2000, seed=0, population=1000)
    scores = rmia.score(world.evidence, Options(mode=mode))

    assert roc.auc(scores, world.is_member) > roc.auc(-world.evidence.target["loss"].mean(axis=1), world.is_member) + 0.1


# -- the tuning of a --------------------------------------------------------------------------------------------


def slowly_tuned(evidence: Evidence, options: Options) -> float:
    """The best mean AUC over mock targets, mock after mock and value after value."""
    loss, is_in = np.asarray(evidence.reference["loss"], dtype=float), evidence.is_in
    means = []
    for a in np.arange(11) / 10:
        aucs = []
        for mock in range(len(loss)):
            rest = [m for m in range(len(loss)) if m != mock and not (is_in[m] == ~is_in[mock]).all()]
            there = (~is_in[rest]).any(axis=0)
            offline = options.model_copy(update={"a": float(a), "mode": "offline", "views": "mean"})
            ratio = ratios(loss[mock][there], loss[rest][:, there], is_in[rest][:, there], offline)[:, 0]
            aucs.append(roc.auc(ratio, is_in[mock][there]))
        means.append(np.mean(aucs))
    return float(np.argmax(means)) / 10


@pytest.mark.parametrize("space", ["linear", "log"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_is_the_value_that_a_slow_search_finds(space, seed):
    world = gaussian_world(separation=1.0, models=8, samples=200, seed=seed, population=5, views=1 + seed % 2)

    assert rmia.tune(world.evidence, Options(space=space)) == slowly_tuned(world.evidence, Options(space=space))


def test_a_is_the_same_whatever_the_target_says():
    evidence = gaussian_world(separation=1.0, models=10, samples=300, seed=3, population=50).evidence
    other = replace(evidence, target={"loss": np.random.default_rng(9).exponential(size=(300, 1))})

    assert rmia.tune(evidence, Options()) == rmia.tune(other, Options())


def test_scores_with_a_tuned_are_those_with_the_tuned_value_given():
    evidence = gaussian_world(separation=1.0, models=10, samples=300, seed=3, population=50).evidence
    a = rmia.tune(evidence, Options())

    assert np.array_equal(rmia.score(evidence, Options()), rmia.score(evidence, Options(a=a)))
    assert not np.array_equal(rmia.score(evidence, Options(a=a)), rmia.score(evidence, Options(a=1.0 - a)))


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0, "tune"])
def test_online_a_plays_no_role(a):
    """With two references nothing could be tuned: online nothing is."""
    for evidence in (small(), small(models=2)):
        assert np.array_equal(rmia.score(evidence, Options(mode="online", a=a)), rmia.score(evidence, Options(mode="online")))


def with_loss(evidence: Evidence, model: slice | int, sample: slice | int, loss: float) -> Evidence:
    """The evidence in which these references have this loss on these samples, where they did not train on them."""
    losses = np.asarray(evidence.reference["loss"], dtype=float).copy()
    losses[model, sample][~evidence.is_in[model, sample]] = loss
    return replace(evidence, reference={"loss": losses})


def diverged(samples: int) -> Evidence:
    """Perfect memory, in which the larger `a` the better; all OUT references of some samples have losses of 800 nats."""
    draw = np.random.default_rng(0)
    is_in = np.concatenate([half := draw.random((4, 60)) < 0.5, ~half])
    hard = draw.uniform(2, 9, 60)
    loss = np.where(is_in, hard - 0.3, hard) + 0.01 * draw.normal(size=(8, 60))
    population = {"loss": draw.uniform(2, 9, (20, 1))}
    found = Evidence({"loss": loss[0][:, None]}, {"loss": loss[:, :, None]}, is_in, population, {"loss": draw.uniform(2, 9, (8, 20, 1))})
    return with_loss(found, slice(None), slice(0, samples), 800.0)


def test_an_a_with_which_a_probability_rounds_to_zero_is_out_of_the_running():
    """At a = 1 alone P is 0, where all OUT references of a sample diverged: the best of the others is taken, not an error."""
    assert rmia.tune(diverged(0), Options()) == 1.0

    a = rmia.tune(diverged(1), Options())

    assert 0.5 < a < 1.0
    assert np.array_equal(rmia.score(diverged(1), Options()), rmia.score(diverged(1), Options(a=a)))
    with pytest.raises(AttackError, match="give 1 of 60 samples a probability that rounds to 0"):
        rmia.score(diverged(1), Options(a=1.0))


def test_the_tuning_does_not_stop_at_a_reference_that_diverged_alone():
    """Its OUT samples have P of 0 where it is the only reference left to them."""
    evidence = small(models=4, rounded=False)

    a = rmia.tune(with_loss(evidence, 3, slice(None), 900.0), Options())

    assert 0.0 <= a < 1.0


def test_no_a_that_is_left_is_an_error():
    """Losses of -800 are no losses: their probabilities are infinite whatever a."""
    with np.errstate(over="ignore"), pytest.raises(AttackError, match="so that no ratio can be formed; use space: log"):
        rmia.tune(with_loss(small(rounded=False), slice(None), 7, -800.0), Options())


def test_of_values_as_good_the_smallest_is_taken():
    """Perfect memory: every a has AUC 1."""
    draw = np.random.default_rng(0)
    is_in = np.concatenate([half := draw.random((3, 40)) < 0.5, ~half])
    loss = {"loss": np.where(is_in, 0.01, 5.0)[:, :, None]}
    evidence = Evidence({"loss": loss["loss"][0]}, loss, is_in)

    assert rmia.tune(evidence, Options()) == 0.0


def test_more_samples_than_are_needed_are_passed_over(monkeypatch):
    evidence = gaussian_world(separation=1.0, models=6, samples=400, seed=3, population=50).evidence
    monkeypatch.setattr(rmia, "N_TUNING_SAMPLES", 100)
    every_fourth = Evidence({}, {"loss": evidence.reference["loss"][:, ::4]}, evidence.is_in[:, ::4])

    assert rmia.tune(evidence, Options()) == rmia.tune(every_fourth, Options())


def test_the_mock_targets_do_not_depend_on_how_models_are_numbered():
    evidence = gaussian_world(separation=1.0, models=30, samples=100, seed=3, population=5).evidence
    order = np.random.default_rng(0).permutation(28)
    signals = rmia._tuning_signals(estimate.Comparison.of_evidence(evidence), Options())
    shuffled = replace(signals, loss=signals.loss[order], is_in=signals.is_in[order])

    chosen, renumbered = rmia._mocks(signals, np.arange(28)), rmia._mocks(shuffled, np.arange(28))

    assert len(chosen) == 8 and np.array_equal(chosen, order[renumbered])


def test_the_complement_of_a_mock_target_is_not_its_reference():
    is_in = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)

    assert rmia._without_complement(is_in, np.arange(4), 0).tolist() == [2, 3]
    assert rmia._without_complement(is_in, np.array([0, 1, 3]), 3).tolist() == [0, 1]


# -- all targets of a pool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*GIVEN, Options()], ids=name_of)
@pytest.mark.parametrize("chunk", [1, 700, 10**9])
def test_all_targets_at_once_have_the_scores_of_each_alone(options, chunk, monkeypatch):
    world = gaussian_world(separation=1.0, models=8, samples=60, seed=5, population=40, views=3)
    pool = replace(world.pool, population_id=np.arange(40) + 30)
    alone = np.stack([rmia.score(pool.evidence(turn), options) for turn in world.turns])
    monkeypatch.setattr(estimate, "CHUNK_VALUES", chunk)

    assert np.array_equal(rmia.score_all(pool, world.turns, options), alone)
    assert np.array_equal(rmia.score(pool.evidence(world.turns[3]), options), alone[3])


@pytest.mark.parametrize("options", [Options(), Options(mode="online")], ids=name_of)
def test_who_is_no_reference_has_no_part_in_the_scores(options):
    world = gaussian_world(separation=1.0, models=8, samples=60, seed=5, population=40)
    flipped = world.pool.is_in.copy()
    flipped[:2] ^= np.random.default_rng(0).random((2, 60)) < 0.5  # the target and its complement

    scores = rmia.score_all(world.pool, world.turns[:1], options)

    assert np.array_equal(rmia.score_all(replace(world.pool, is_in=flipped), world.turns[:1], options), scores)


def test_memory_does_not_hold_the_matrix():
    draw = np.random.default_rng(0)
    n = 20_000
    evidence = Evidence(
        {"loss": draw.exponential(size=(n, 1))}, {"loss": draw.exponential(size=(2, n, 1))}, np.zeros((2, n), dtype=bool),
        {"loss": draw.exponential(size=(n, 1))}, {"loss": draw.exponential(size=(2, n, 1))},
    )  # fmt: skip
    tracemalloc.start()
    rmia.score(evidence, Options(a=0.3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < n * n / 20  # a matrix of truth values has n * n bytes


# -- evidence that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"is_in": np.ones((6, 60), dtype=bool)}, Options(a=0.3), "sample 100 has 0 OUT references of 6, at least 1"),
        ({"is_in": np.zeros((6, 60), dtype=bool)}, Options(mode="online"), "sample 100 has 0 IN references of 6.*mode: offline"),
        ({"population_target": {"loss": np.zeros((0, 1))}}, Options(a=0.3), "population is empty"),
        ({"population_target": None}, Options(a=0.3), "population is empty"),
        ({"population_reference": None}, Options(a=0.3), "references' signals of the population are missing"),
        ({"target": {"loss": np.full((60, 1), np.nan)}}, Options(a=0.3), "60 of 60 values are not finite"),
        ({"target": {"entropy": np.ones((60, 1))}}, Options(a=0.3), "'loss' is asked for, the evidence holds entropy"),
        ({"population_target": {"loss": np.ones((50, 2))}, "population_reference": {"loss": np.ones((6, 50, 2))}}, Options(a=0.3), "1 views and the population in 2"),
        ({"population_id": np.full(50, 7)}, Options(a=0.3), "holds sample 7 twice"),
        ({"target": {"loss": np.ones((60, 1))}, "reference": {"loss": np.ones((6, 60, 1))}}, Options(a=0.3), "constant"),
    ],
)  # fmt: skip
def test_evidence_that_cannot_be_used_is_refused_in_a_sentence(changed, options, message):
    with pytest.raises(AttackError, match=message) as found:
        rmia.score(replace(small(), **changed), options)

    assert "\n" not in str(found.value)


def test_a_population_that_is_the_sample_alone_is_refused():
    evidence = small()
    alone = {
        "population_target": {"loss": evidence.population_target["loss"][:1]},
        "population_reference": {"loss": evidence.population_reference["loss"][:, :1]},
    }

    with pytest.raises(AttackError, match="the population is sample 140 alone"):
        rmia.score(replace(evidence, **alone, population_id=np.array([140])), Options(a=0.3))


def test_a_population_of_other_models_is_refused_with_both_numbers():
    world = gaussian_world(separation=1.0, models=8, samples=20, seed=0, population=10)
    fewer = {name: values[:-1] for name, values in world.pool.population.items()}
    message = "{} models were asked about the population, is_in has {} rows; .* query the population with each"

    for options in (Options(a=0.3), Options(), Options(mode="online")):
        with pytest.raises(AttackError, match=message.format(5, 6)):
            rmia.score(replace(world.evidence, population_reference={k: v[:-1] for k, v in world.evidence.population_reference.items()}), options)
        with pytest.raises(AttackError, match=message.format(7, 8)):
            rmia.score_all(replace(world.pool, population=fewer), world.turns, options)


def test_too_few_references_to_tune_a_are_counted():
    with pytest.raises(AttackError, match="has 1 OUT references of 2, at least 2 are needed; train more reference models"):
        rmia.score(small(models=2), Options())


def test_mock_targets_without_samples_to_tell_apart_are_refused():
    evidence = replace(small(), is_in=np.zeros((6, 60), dtype=bool))

    with pytest.raises(AttackError, match=r"none of 6 references has IN and OUT samples.*give a"):
        rmia.score(evidence, Options())


def test_a_turn_without_out_references_is_refused_by_name():
    world = gaussian_world(separation=1.0, models=4, samples=20, seed=0, population=10)

    with pytest.raises(AttackError, match=r"sample .* has 0 OUT references of 1"):
        rmia.score_all(world.pool, [Turn(0, np.array([2]))], Options(a=0.3))
    with pytest.raises(AttackError, match="population is empty"):
        rmia.score_all(Pool(world.pool.signals, world.pool.is_in), world.turns, Options(a=0.3))


def test_probabilities_that_round_to_zero_are_named_and_the_log_space_knows_them():
    evidence = small(rounded=False)
    far = {field: {"loss": getattr(evidence, field)["loss"] + 2000} for field in ("target", "reference", "population_target", "population_reference")}
    moved = replace(evidence, **far)

    with pytest.raises(AttackError, match=r"a probability that rounds to 0 .*use space: log"):
        rmia.score(moved, Options(a=1.0))
    with pytest.raises(AttackError, match=r"a probability that rounds to 0 .*use space: log"):
        rmia.score(moved, Options(mode="online"))
    assert np.array_equal(rmia.score(moved, Options(a=1.0, space="log")), rmia.score(evidence, Options(a=1.0, space="log")))


def test_margins_serve_where_losses_are_not_stored():
    evidence = small(rounded=False)
    margins = {
        field: {"margin": -np.log(np.expm1(getattr(evidence, field)["loss"]))}
        for field in ("target", "reference", "population_target", "population_reference")
    }

    assert rmia.score(replace(evidence, **margins), Options(a=0.3)) == approx(rmia.score(evidence, Options(a=0.3)), abs=0.021)


@pytest.mark.parametrize("wrong", [{"a": 1.5}, {"a": "guess"}, {"gamma": 0}, {"mode": "both"}, {"views": "median"}, {"z": 3}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        Options(**wrong)


def test_options_say_what_they_need():
    assert Options().needs.inside == 0 and Options(mode="online").needs.inside == 1
    assert Options().needs.population and Options().needs.signals == ("loss",) and Options().needs.outside == 2
    assert Options(a=0.3).needs.outside == 1 and Options(mode="online", a="tune").needs.outside == 1
