"""What is released: each step does what it says, on numbers that can be checked by hand; their short forms and orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest import approx
from scipy import special, stats

from memleak import params, plan
from memleak.signals import SignalError, classifier, outputs, releases
from memleak.signals.release import released
from memleak.signals.releases import keep_label, labels, memguard, noise, temperature, top_k
from memleak.signals.releases import round as rounding

P = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
SURE = special.softmax(np.random.default_rng(0).normal(0, 3, (4000, 5)), axis=1)
N_SIGMA = 4  # of the statistical tests, whose draws are fixed


def step(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "options": options}


# -- steps ---------------------------------------------------------------------------------------------------------


def test_top_k_tells_the_largest_and_what_is_left_evenly():
    assert top_k.mask(P, top_k.Options(k=2)) == approx(np.array([[0.5, 0.3, 0.1, 0.1], [0.15, 0.15, 0.3, 0.4]]))
    assert top_k.mask(P, top_k.Options(k=1))[1] == approx([0.2, 0.2, 0.2, 0.4])


def test_top_k_keeps_the_first_of_equal_probabilities_and_raises_no_share_above_it():
    uniform = np.full((1, 10), 0.1)  # seven tenths by seven rounds above a tenth

    assert np.array_equal(top_k.mask(uniform, top_k.Options(k=3)), uniform)
    nearly = np.full((1, 12), 1 / 12)
    nearly[0, -1] = np.nextafter(1 / 12, 0)  # the mean of the last eleven rounds above the first
    assert top_k.mask(nearly, top_k.Options(k=1)).argmax() == 0
    assert top_k.mask(np.array([[0.2, 0.3, 0.3, 0.2]]), top_k.Options(k=1)) == approx(np.array([[0.7 / 3, 0.3, 0.7 / 3, 0.7 / 3]]))


def test_top_k_of_all_classes_is_refused_and_of_all_but_one_tells_all():
    with pytest.raises(SignalError, match="release top_k: k: 4 of 4 classes withholds nothing; lower k"):
        top_k.mask(P, top_k.Options(k=4))
    assert np.array_equal(top_k.mask(P, top_k.Options(k=3)), P)


def test_rounding_gives_each_class_its_whole_units_and_the_rest_to_those_that_lost_most():
    p = np.array([[0.126, 0.127, 0.363, 0.384], [0.333, 0.333, 0.334, 0.0], [0.994, 0.002, 0.002, 0.002]])

    assert rounding.mask(p, rounding.Options(digits=2)) == approx(np.array([[0.13, 0.13, 0.36, 0.38], [0.33, 0.33, 0.34, 0.0], [1.0, 0, 0, 0]]))
    assert rounding.mask(p, rounding.Options(digits=1))[1] == approx([0.3, 0.3, 0.4, 0.0])


def test_rounding_that_would_tie_gives_the_label_a_unit_of_the_least_probable_that_ties_with_it():
    assert rounding.mask(np.array([[0.496, 0.504]]), rounding.Options(digits=1)) == approx(np.array([[0.4, 0.6]]))
    # three would have .3 and the fourth the unit that is left; the third is the label, and the first the least probable of the others
    assert rounding.mask(np.array([[0.31, 0.32, 0.33, 0.04]]), rounding.Options(digits=1)) == approx(np.array([[0.2, 0.3, 0.4, 0.1]]))


def test_labels_are_all_that_is_left_of_labels():
    assert labels.mask(P, labels.Options()).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert labels.mask(np.array([[0.3, 0.4, 0.4]]), labels.Options()).tolist() == [[0, 1, 0]]


def test_a_release_of_labels_tells_what_a_model_that_gives_labels_does():
    """Whether they are right; and all that were right look alike, and all that were wrong."""
    logits, truth = np.random.default_rng(0).normal(0, 2, (200, 6)), np.random.default_rng(1).integers(0, 6, 200)
    given = outputs.logits_of(logits.argmax(axis=1), "labels", 6, "mine")

    found = classifier.all_signals(released(logits, [step("labels")]), truth)

    assert np.array_equal(found["is_correct"], classifier.is_correct(given, truth))
    for name in ("margin", "loss"):
        assert len(np.unique(found[name])) == 2 and np.isfinite(found[name]).all()
    assert found["margin"][found["is_correct"]].min() > found["margin"][~found["is_correct"]].max()


def test_temperature_is_that_of_the_softmax():
    logits = np.random.default_rng(0).normal(0, 5, (50, 4))
    found = temperature.mask(special.softmax(logits, axis=1), temperature.Options(temperature=3))

    assert found == approx(special.softmax(logits / 3, axis=1))


def test_noise_has_the_scale_that_is_asked_for_and_is_not_the_same_of_two_classes_or_rows():
    """Where nothing is cut and the sum is known, the noise can be read back: less its mean over classes, as the sum is divided out."""
    p = special.softmax(np.random.default_rng(0).normal(0, 0.01, (4000, 5)), axis=1)
    drawn = (noise.mask(p, noise.Options(scale=0.001, keep_label=False)) - p) / 0.001
    expected = 1 - 1 / 5  # variance of a normal number less the mean of five

    error = np.sqrt(2 / (4000 * 4))
    assert drawn.var() == approx(expected, abs=N_SIGMA * error)
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < N_SIGMA / np.sqrt(4000)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == approx(-1 / 4, abs=N_SIGMA / np.sqrt(4000))
    assert stats.kstest(drawn[:, 2] / np.sqrt(expected), "norm").pvalue > 1e-4


def test_noise_is_the_same_whenever_it_is_asked_for_and_another_with_another_seed():
    options = noise.Options(scale=0.2)

    assert np.array_equal(noise.mask(SURE, options), noise.mask(SURE, options))
    assert not np.allclose(noise.mask(SURE, options), noise.mask(SURE, noise.Options(scale=0.2, seed=1)))


def test_the_draws_of_a_row_are_those_that_they_always_were():
    """Written down once: whoever asked models with noise has these in files that no later version asks again (else raise SIGNALS_VERSION)."""
    drawn = np.array([[-0.44681768, 0.33815045, -0.05045998, -0.14987226], [-0.42335849, -1.14252984, 1.65831463, -0.44564204]])

    assert releases.normal(P, 0, "noise") == approx(drawn, abs=1e-8)
    assert releases.uniform(P, 0, "memguard") == approx([0.34173182, 0.52455899], abs=1e-8)
    moved = P + 0.1 * drawn
    moved[1, [2, 3]] = moved[1, [3, 2]]  # the third class came first, and the label is the fourth
    assert noise.mask(P, noise.Options(scale=0.1)) == approx(moved / moved.sum(axis=1, keepdims=True), abs=1e-8)


def test_noise_may_change_the_label_where_it_is_let():
    free, kept = (noise.mask(SURE, noise.Options(scale=0.5, keep_label=keeps)).argmax(axis=1) for keeps in (False, True))

    assert 0.2 < (free == SURE.argmax(axis=1)).mean() < 0.8
    assert (kept == SURE.argmax(axis=1)).all()


def test_noise_that_cuts_everything_leaves_the_largest():
    p = np.full((20000, 2), 0.5)
    p[:, 0] += np.linspace(-1e-4, 1e-4, len(p))
    p[:, 1] = 1 - p[:, 0]
    found = noise.mask(p, noise.Options(scale=10, keep_label=False))

    assert np.isfinite(found).all() and found.sum(axis=1) == approx(1)
    assert ((found == 0).sum(axis=1) == 1).mean() > 0.7  # one of two is cut mostly, both a quarter of the time


def test_memguard_cuts_to_the_confidence_and_fills_up_the_smallest():
    p = np.array([[0.9, 0.06, 0.03, 0.01], [0.4, 0.3, 0.2, 0.1], [0.44, 0.46, 0.08, 0.02]])
    options = memguard.Options(budget=2, confidence=0.4)

    found = memguard.mask(p, options)

    assert found[0] == approx([0.4, 0.2, 0.2, 0.2])
    assert np.array_equal(found[1], p[1])
    assert found[2] == approx([0.4, 0.4, 0.1, 0.1], abs=1e-8) and np.log(found[2]).argmax() == 1


def test_memguard_takes_the_least_distortion_that_there_is():
    """Whatever is above the confidence has to go, and the same comes back elsewhere: twice that in L1."""
    flat = memguard.flattened(SURE, 0.5)

    assert abs(flat - SURE).sum(axis=1) == approx(2 * np.maximum(SURE.max(axis=1) - 0.5, 0), abs=1e-12)
    assert flat.max() <= 0.5 + 1e-15 and flat.sum(axis=1) == approx(1)


def test_no_row_as_near_has_more_entropy_than_that_of_memguard():
    """Move a little of one class to another, so that neither falls below what it was: entropy never rises."""
    draw = np.random.default_rng(3)
    p = SURE[SURE.max(axis=1) > 0.5][:300]
    flat = memguard.flattened(p, 0.5)
    for _ in range(50):
        giver, taker = draw.permutation(5)[:2]
        amount = np.minimum(np.where(flat[:, giver] > p[:, giver], flat[:, giver] - p[:, giver], 0), 0.5 - flat[:, taker]).clip(0) * draw.random(
            len(p)
        )
        moved = flat.copy()
        moved[:, giver] -= amount
        moved[:, taker] += amount
        assert (special.entr(moved).sum(axis=1) <= special.entr(flat).sum(axis=1) + 1e-12).all()


def test_memguard_keeps_the_expected_distortion_within_its_budget():
    budget = 0.3
    found = memguard.mask(SURE, memguard.Options(budget=budget))
    needed, given = 2 * np.maximum(SURE.max(axis=1) - 0.5, 0), abs(found - SURE).sum(axis=1)

    expected = np.minimum(needed, budget)
    spread = np.sqrt((np.where(needed > budget, budget * (needed - budget), 0)).sum()) / len(SURE)
    assert given.mean() == approx(expected.mean(), abs=N_SIGMA * spread)
    assert given[(needed > 0) & (needed < budget)] == approx(needed[(needed > 0) & (needed < budget)], abs=1e-8)


def test_memguard_refuses_to_be_less_sure_than_all_classes_alike():
    with pytest.raises(SignalError, match=r"release memguard: confidence: 0.2 is below 1 / 4.*raise it"):
        memguard.mask(P, memguard.Options(budget=1, confidence=0.2))


def test_a_label_that_ties_is_raised_by_a_billionth_and_its_logarithm_tells():
    found = keep_label(np.array([[0.25, 0.25, 0.5], [0.4, 0.4, 0.2]]), np.array([[0.1, 0.2, 0.7], [0.1, 0.6, 0.3]]))

    assert np.array_equal(found[0], [0.25, 0.25, 0.5])
    assert found[1] == approx([0.4, 0.4, 0.2]) and np.log(found[1]).argmax() == 1 and found[1].sum() == approx(1)


# -- what is seen of it --------------------------------------------------------------------------------------------


def test_what_is_released_as_zero_is_finite_and_said_of_no_step_of_ours(capsys):
    logits = np.array([[40.0, 0, 0, 0], [0, 60, 0, 0], [1, 2, 3, 4]])
    for steps in ([step("round", digits=2)], [step("labels")], [step("top_k", k=1), step("round", digits=3)], [step("noise", scale=0.2)]):
        for name, values in classifier.all_signals(released(logits, steps), np.array([1, 1, 0])).items():
            assert np.isfinite(values).all() and abs(values).max() < 40, (name, steps)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("n_classes", [2, 10, 100])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_of_rounded_answers_the_surer_one_has_the_larger_margin_and_equal_ones_tie(digits, n_classes):
    """However the rest is spread over the other classes: zeros together count less than one unit."""
    draw = np.random.default_rng(0)
    logits, truth = draw.normal(0, 1, (3000, n_classes)), np.zeros(3000, dtype=int)
    logits[:, 0] += draw.uniform(-5, 15, 3000)
    seen = rounding.mask(special.softmax(logits, axis=1), rounding.Options(digits=digits))[:, 0]
    margin = classifier.margin(released(logits, [step("round", digits=digits)]), truth)
    levels = np.unique(seen)

    lows, highs = (np.array([edge(margin[seen == level]) for level in levels]) for edge in (np.min, np.max))
    assert (lows[1:] > highs[:-1]).all() and len(levels) > 5
    assert np.unique(margin[seen == 1]).size == 1


def test_the_floor_of_a_rounded_zero_moves_with_the_temperature():
    logits = np.array([[3.0, 2, 1, -9]])
    plain, hot = (released(logits, [step("round", digits=2), *more]) for more in ([], [step("temperature", temperature=4)]))

    assert np.argsort(hot) == approx(np.argsort(plain))
    assert hot[0, 3] > np.log(0.5e-2 / 4) > hot[0, 3] * 4


def test_a_step_of_the_users_that_gives_zeros_has_the_smallest_number_and_is_told_once(tmp_path, capsys):
    path = tmp_path / "cutting.py"
    path.write_text(
        "import numpy as np\nfrom memleak.params import Frozen\nclass Options(Frozen):\n    pass\n"
        "def mask(p, options):\n    return np.eye(p.shape[1])[p.argmax(axis=1)]\n"
    )
    found, _ = (released(np.eye(3) * 5, [step(f"{path}:mask")]) for _ in range(2))

    assert found.min() == approx(np.log(np.finfo(np.float64).tiny))
    assert capsys.readouterr().err.count("6 of 9 probabilities are 0") == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("p[:, :2]", r"gave shape \(3, 2\), expected \(3, 3\): probabilities of every class"),
        ("p * 2", r"of 3 records do not sum to 1|probabilities go from"),
        ("p - 0.5", "probabilities go from -0.49.* to 0.4"),
        ("p * np.nan", "3 of 3 answers are NaN or infinite"),
    ],
)
def test_a_step_that_gives_no_probabilities_is_named_wherever_it_stands(tmp_path, body, expected):
    path = tmp_path / f"wrong{abs(hash(body))}.py"
    path.write_text(
        f"import numpy as np\nfrom memleak.params import Frozen\nclass Options(Frozen):\n    pass\ndef mask(p, options):\n    return {body}\n"
    )
    for steps in ([step(f"{path}:mask")], [step(f"{path}:mask"), step("labels")]):
        with pytest.raises(SignalError, match=f"^release {path}:mask: .*({expected})"):
            released(np.eye(3) * 5, steps)


# -- as they are written -------------------------------------------------------------------------------------------


def audit(release: Any, attacks: dict[str, Any] | None = None, **more: Any) -> params.Params:
    return params.validate(
        {
            "datasets": {"digits": {"name": "digits"}},
            "recipes": {"r": {"architecture": "mlp", "epochs": 1, "batch_size": 8, "learning_rate": 0.1}},
            "audits": {
                "a": {
                    "dataset": "digits", "recipe": "r", "design": {"kind": "halves", "models": 4, "pool": 1400}, "release": release,
                    "attacks": attacks or {"loss": {"name": "threshold"}}, **more,
                },
            },
        }
    )  # fmt: skip


def test_short_forms_are_their_long_forms():
    short = audit([{"top_k": 3}, {"round": {"digits": 2}}, {"noise": {"scale": 0.1}}, {"labels": None}])
    long = audit([{"name": "top_k", "k": 3}, {"name": "round", "digits": 2}, {"name": "noise", "scale": 0.1}, {"name": "labels"}])

    assert short == long and audit(["labels"]).audits["a"].release == ({"name": "labels"},)
    assert plan.build(short).audits["a"].query == plan.build(long).audits["a"].query


def test_a_step_of_the_users_has_the_short_forms_too(tmp_path):
    path = tmp_path / "halving.py"
    path.write_text(
        "from memleak.params import Frozen\nclass Options(Frozen):\n    by: float = 2\n    seed: int = 0\ndef mask(p, options):\n    return p\n"
    )

    assert audit([{f"{path}:mask": 3}]) == audit([{"name": f"{path}:mask", "by": 3}])
    assert audit([f"{path}:mask"]) == audit([{"name": f"{path}:mask"}])


WRONG = {
    "no list": ("labels", r"release: expected a list of steps, such as \[\{top_k: 3\}.*found 'labels'"),
    "a mapping": ({"top_k": 3}, "release: expected a list of steps"),
    "two steps in one": ([{"top_k": 3, "round": 2}], "release.0: expected one step, such as .*found"),
    "a number": ([3], "release.0: expected one step.*found 3"),
    "a misspelt word": (["lables"], r"release.0: no release is called 'lables' \(did you mean 'labels'\?\)"),
    "a misspelt key": ([{"top_q": 3}], r"release.0: no release is called 'top_q' \(did you mean 'top_k'\?\)"),
    "an unknown option": ([{"top_k": {"n": 3}}], "release.0.unknown key 'n'"),
    "a value that cannot be": ([{"round": 0}], "release.0.digits: should be greater than or equal to 1, found 0"),
    "an option too few": (["top_k"], "release.0.k: Field required"),
    "an option of a step without any": ([{"labels": 2}], "release.0: labels has no options, found 2; write labels alone"),
    "a name in its options": ([{"round": {"name": "x"}}], "release.0.round: it is called twice"),
    "something after labels": (["labels", {"round": 2}], "release.1: round comes after labels, which leave nothing to change"),
    "more classes than are left": (
        [{"top_k": 3}, {"round": 2}, {"top_k": "3"}],
        "release.2: top_k with k: 3 comes after k: 3 and withholds nothing more",
    ),
    "more digits than are left": ([{"round": 2}, {"round": 4}], "release.1: round to 4 digits comes after 2 and changes nothing"),
}


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_a_release_that_cannot_be_is_refused_in_a_sentence(fault):
    release, expected = WRONG[fault]

    with pytest.raises(params.ParamsError, match=f"audits.a: {expected}"):
        audit(release)


@pytest.mark.parametrize(
    "release", [["labels", "labels"], [{"top_k": 3}, {"top_k": 1}], [{"round": 3}, {"round": 1}], [{"top_k": 2}, {"noise": 0.1}, {"top_k": 3}]]
)
def test_steps_that_hide_more_may_follow_each_other(release):
    assert len(audit(release).audits["a"].release) == len(release)


@pytest.mark.parametrize(
    ("attack", "release", "expected"),
    [
        ({"name": "threshold", "signal": "entropy"}, ["labels"], "attacks.a: entropy is the same of every record where labels alone are released"),
        ({"name": "top_k"}, ["labels"], "attacks.a: posteriors in falling order are the same of every record"),
        ({"name": "threshold", "signal": "gradient_norm"}, [{"round": 2}], "attacks.a: gradient_norm takes the network itself"),
        ({"name": "threshold", "signal": "mine"}, [{"round": 2}], "attacks.a: gradient_norm takes the network itself"),
    ],
)
def test_an_attack_that_reads_what_is_not_released_is_refused_before_anything_runs(attack, release, expected):
    with pytest.raises(params.ParamsError, match=expected):
        audit(release, {"a": attack}, signals={"mine": {"name": "gradient_norm"}})


def test_of_a_model_that_gives_labels_only_labels_can_be_released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def get():\n    ...\n")
    given = {
        "design": {"kind": "given", "model": {"name": "mine.py:get", "output": "labels"}},
        "attacks": {"c": {"name": "threshold", "signal": "correctness"}},
    }
    config = {"datasets": {"d": {"parts": {"members": {"name": "mine.py:get"}, "non-members": {"name": "mine.py:get"}}}}}

    assert params.validate(config | {"audits": {"a": {"dataset": "d", **given, "release": ["labels"]}}})
    with pytest.raises(params.ParamsError, match="release: round changes probabilities, and the model gives labels only"):
        params.validate(config | {"audits": {"a": {"dataset": "d", **given, "release": [{"round": 2}]}}})


def test_the_schema_knows_the_steps_in_all_their_forms():
    jsonschema = pytest.importorskip("jsonschema")
    items = params.schema()["$defs"]["Audit"]["properties"]["release"]
    good = [
        "labels",
        {"top_k": 3},
        {"top_k": {"k": 3}},
        {"name": "noise", "scale": 0.1, "keep_label": False},
        "mine.py:mask",
        {"mine.py:mask": 2},
        {"labels": None},
    ]

    for one in good:
        jsonschema.validate([one], items)
    for one in ("lables", {"top_q": 3}, {"name": "round"}, {"round": "two"}, {"noise": {"scales": 1}}, 3):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([one], items)
