"""Laws: renaming, reordering and rescaling change what they must and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytest import approx
from worlds import records

from memleak import randomness
from memleak.attacks import Evidence, single_point
from memleak.attacks.single_point import Options
from memleak.designs import Rounds
from memleak.metrics import decisions, intervals, paired, roc

settings.register_profile("laws", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("laws")

finite = st.floats(-1e6, 1e6, allow_nan=False)
few = hnp.arrays(np.float64, st.integers(3, 30), elements=finite)
kinds = st.sampled_from(["normal", "kde", "empirical"])


@st.composite
def scored(draw):
    scores = draw(hnp.arrays(np.float64, st.integers(2, 60), elements=st.integers(-5, 5).map(float) | finite))
    truth = draw(hnp.arrays(bool, len(scores)))
    assume(truth.any() and not truth.all())
    return scores, truth


@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(found, random):
    scores, truth = found
    order = np.array(random.sample(range(len(scores)), len(scores)))

    assert roc.auc(scores[order], truth[order]) == roc.auc(scores, truth)
    assert roc.tpr_at_fpr(scores[order], truth[order], 0.1) == roc.tpr_at_fpr(scores, truth, 0.1)


@given(scored())
def test_only_the_order_of_scores_matters(found):
    scores, truth = found
    ranks = np.unique(scores, return_inverse=True)[1].astype(float)

    assert roc.auc(ranks, truth) == roc.auc(scores, truth)
    assert roc.tpr_at_fpr(ranks, truth, 0.2) == roc.tpr_at_fpr(scores, truth, 0.2)


@given(scored())
def test_turning_scores_and_truth_around_turns_the_auc_around(found):
    scores, truth = found

    assert roc.auc(-scores, truth) == approx(1 - roc.auc(scores, truth))
    assert roc.auc(-scores, ~truth) == approx(roc.auc(scores, truth))


@given(scored(), st.floats(0, 1))
def test_a_rate_keeps_its_fpr_and_lies_in_its_interval(found, level):
    rate = roc.tpr_at_fpr(*found, level)

    assert rate.achieved_fpr <= level + 1e-9
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@given(few, kinds, st.sampled_from([0.05, 0.1, 0.2, 0.4]))
def test_a_smaller_alpha_accuses_no_more(values, kind, alpha):
    assume(np.ptp(values) > 1e-3)
    fitted = decisions.fit(values, kind)

    assert decisions.threshold(fitted, alpha / 2) >= decisions.threshold(fitted, alpha)


@given(few, kinds, st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_a_threshold_moves_and_stretches_with_its_values(values, kind, factor, shift):
    assume(np.ptp(values) > 1e-3)
    before, after = (decisions.threshold(decisions.fit(v, kind), 0.3) for v in (values, shift + factor * values))
    assume(np.isinf(before) or before < values.max() + 1e3 * np.ptp(values))  # further out, in a tail that three values do not tell, rounding decides

    assert (np.isinf(before) and np.isinf(after)) or after == approx(shift + factor * before, rel=1e-6, abs=1e-5 * factor * np.ptp(values) + 1e-6)


@given(few, kinds)
def test_the_order_of_references_does_not_matter(values, kind):
    assume(np.ptp(values) > 1e-3)

    assert decisions.threshold(decisions.fit(values[::-1], kind), 0.3) == decisions.threshold(decisions.fit(values, kind), 0.3)


@given(few, few, hnp.arrays(np.float64, 12, elements=finite), kinds)
def test_a_score_is_finite_and_knows_no_order_of_samples(inside, outside, targets, kind):
    assume(np.ptp(outside) > 1e-3)
    reference = np.concatenate([inside, outside])[:, None, None].repeat(12, axis=1)
    is_in = np.repeat([True, False], [len(inside), len(outside)])[:, None].repeat(12, axis=1)

    scores, backwards = (
        single_point.score(Evidence({"margin": t[:, None]}, {"margin": reference}, is_in), Options(fit=kind)) for t in (targets, targets[::-1])
    )

    assert np.isfinite(scores).all() and np.array_equal(backwards[::-1], scores)
    assert (np.diff(scores[np.argsort(targets)]) >= -1e-9).all()


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-100, 100)), st.floats(0.01, 100))
def test_a_sign_flip_p_value_knows_neither_scale_nor_order(d, factor):
    assume((np.abs(d) > 1e-6).any())
    p = paired.sign_flip_test(np.round(d, 3))

    assert paired.sign_flip_test(np.round(d, 3)[::-1]) == p
    assert 2.0 ** -len(d) <= p <= 1
    assert p + paired.sign_flip_test(-np.round(d, 3)) >= 1  # ties count on both sides


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)), st.randoms(use_true_random=False))
def test_holm_raises_p_values_by_at_most_their_number_and_keeps_their_order(p, random):
    corrected = intervals.holm(p)
    order = np.array(random.sample(range(len(p)), len(p)))

    assert (corrected >= p).all() and (corrected <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()
    assert np.array_equal(intervals.holm(p[order]), corrected[order])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_clopper_pearson_mirrors_and_widens_with_confidence(counts, confidence):
    k, n = counts
    low, high = intervals.clopper_pearson(k, n, confidence)

    assert 0 <= low <= k / n <= high <= 1
    assert intervals.clopper_pearson(n - k, n, confidence) == approx((1 - high, 1 - low), abs=1e-9)
    assert intervals.clopper_pearson(k, n, (1 + confidence) / 2)[0] <= low


@given(st.integers(0, 2**62 - 1), hnp.arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 10**6)))
def test_a_counters_number_depends_on_key_and_counter_alone(key, ids):
    together = randomness.counter_uniform(key, ids)

    assert all(randomness.counter_uniform(key, ids[i : i + 1])[0] == together[i] for i in range(len(ids)))
    assert (together >= 0).all() and (together < 1).all()


@given(st.integers(0, 5), st.integers(1, 60), st.integers(1, 70), st.sampled_from(["add", "replace"]), st.integers(0, 3))
@settings(max_examples=30)
def test_both_arms_visit_the_same_records_in_the_same_steps(seed, n, batch_size, neighbour, epoch):
    known = records(80, seed=seed)
    tasks = Rounds("random00", n, seed, "fit", 0, 2, None, neighbour).tasks(known)
    for task in (task for task in tasks if task.arm == "in"):
        twin = type(task)(**(vars(task) | {"arm": "out"})) if not {"is_in", "sample_ids"} & set(vars(task)) else None
        assert twin is not None
        inside, outside = list(task.batches(epoch, batch_size)), list(twin.batches(epoch, batch_size))
        x = task.target.sample_id
        assert len(inside) == len(outside) == -(-n // batch_size)
        assert sum(len(batch) for batch in inside) == n + (neighbour == "add")
        for a, b in zip(inside, outside, strict=True):
            assert np.array_equal(a[a != x], b[b != task.replaced])
