"""Texts against the numbers: probabilities where sides differ in size, formulas from the raw softmax, shifts of form, trainings that must not see others' texts."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoints import records, tiny_gpt2
from passages import checkpoint_recipe, gpt2_recipe, passages
from pytest import approx
from scipy import special

from memleak.attacks import Evidence
from memleak.attacks.language import dc_pdd, ez, min_k, reference_model, surp, wbc, zlib_ratio
from memleak.data import blind as looks
from memleak.data import overlap, topics
from memleak.designs import Complements, Rounds
from memleak.metrics import blind, calibration, membership, texts
from memleak.models import hub
from memleak.models.tokens import encode
from memleak.signals.language import TokenSignals
from memleak.signals.language.scoring import score
from memleak.signals.language.texts import per_text
from memleak.training import taught

CPU = torch.device("cpu")

# -- P(member) -----------------------------------------------------------------------------------------------------


def world(n_members: int, n_others: int, separation: float, copies: int, seed: int) -> tuple[np.ndarray, ...]:
    """Scores of two unit Gaussians, each text there several times; who is a member, the groups of copies, the true P(member) of the score at even odds."""
    draw, truth = np.random.default_rng(seed), np.arange(n_members + n_others) < n_members
    group = np.unique(2 * (np.arange(len(truth)) // copies) + truth, return_inverse=True)[1]
    scores = draw.normal(size=group.max() + 1)[group] + separation * truth
    return scores, truth, group, special.expit(separation * scores - separation**2 / 2)


@pytest.mark.parametrize(("sizes", "copies"), [((20, 200), 1), ((200, 20), 1), ((10, 200), 1), ((100, 100), 5), ((40, 400), 4)])
def test_intervals_hold_the_true_probability_where_sides_differ_or_texts_repeat(sizes, copies):
    held = []
    for seed in range(30):
        scores, truth, group, p = world(*sizes, 1.5, copies, seed)
        found = membership.membership(scores, truth, group, seed)
        held.append(((found.low <= p) & (p <= found.high)).mean())

    assert np.mean(held) > 0.9


@pytest.mark.parametrize("sizes", [(20, 200), (200, 20), (10, 100)])
def test_where_nothing_leaks_both_sides_are_as_likely_whatever_their_sizes(sizes):
    found = []
    for seed in range(20):
        scores, truth, group, _ = world(*sizes, 0.0, 1, seed)
        p = membership.membership(scores, truth, group, seed).probability
        found.append((p[truth].mean() + p[~truth].mean()) / 2)

    assert np.mean(found) == approx(0.5, abs=0.015)


def test_the_p_of_all_attacks_keeps_its_level_where_texts_repeat():
    p = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        scores, truth = np.repeat(draw.normal(size=(8, 30)), 3, axis=1), np.repeat(np.arange(30) < 12, 3)
        p.append(membership.family_wise(scores, truth, np.repeat(np.arange(30), 3), seed, n=100)["p"])

    assert np.mean(np.array(p) <= 0.1) < 0.2 and 0.35 < np.mean(p) < 0.65


def test_copies_of_a_non_member_are_one_non_member():
    """25 members, and 5 texts in 12 copies each: as 60 non-members they flag somebody in a fifth of worlds without a leak."""
    group, truth = np.append(np.arange(25), 25 + np.repeat(np.arange(5), 12)), np.arange(85) < 25
    p = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        scores = np.append(draw.normal(size=25), np.repeat(draw.normal(size=5), 12) + 1e-3 * draw.normal(size=60))
        p.append(membership.p_values(scores, truth, group))
        assert p[-1].min() >= 1 / 6 and not membership.flags(p[-1], truth).any()

    assert np.mean(np.array(p)[:, truth] <= 0.5) == approx(0.5, abs=0.04)
    assert membership.p_values(scores, truth) == approx(membership.p_values(scores, truth, np.arange(85)))


def test_a_tokenizer_that_knows_the_members_is_no_fault_of_the_lists():
    draw, truth = np.random.default_rng(0), np.arange(400) < 200
    n_bytes = draw.integers(50, 90, 400).astype(np.float64)
    finer = texts.length({"bytes": n_bytes, "tokens": n_bytes - 15 * truth}, truth)
    longer = texts.length({"bytes": n_bytes + 15 * truth, "tokens": n_bytes}, truth)

    assert not finer["alarm"] and finer["tokens_differ"] and finer["sizes"]["tokens"]["auc"]["high"] < 0.5
    assert longer["alarm"] and not longer["tokens_differ"]
    assert texts.length({"tokens": n_bytes - 15 * truth}, truth)["alarm"]


@pytest.mark.parametrize(("members", "others"), [((5, 40), (200, 1)), ((1, 25), (60, 1)), ((30, 5), (150, 1)), ((30, 5), (30, 5))])
def test_copies_on_one_side_are_no_difference_in_length(members, others):
    """Groups and how often each stands there; where every copy counted, 36 % of worlds of the first kind were alarms, and 87 % of the second."""
    sizes = np.append(np.repeat(members[1], members[0]), np.repeat(others[1], others[0]))
    truth, group = np.repeat(np.arange(len(sizes)) < members[0], sizes), np.repeat(np.arange(len(sizes)), sizes)
    found = [texts.length({"bytes": np.random.default_rng(seed).normal(size=len(sizes))[group]}, truth, group) for seed in range(200)]

    assert sum(one["alarm"] for one in found) <= 2 and np.mean([one["p"] <= 0.05 for one in found]) < 0.1


@pytest.mark.parametrize("copies", [3, 5])
def test_near_duplicates_on_one_side_are_no_difference_that_a_classifier_sees(topical, copies):
    """30 members in a few copies, whose last word differs, and 150 others once: an alarm in 30 of 30 worlds where every copy was a text of its own."""
    p = []
    for seed in range(6):
        rows = np.random.default_rng(seed).permutation(1200)[:180]
        group = np.append(np.repeat(np.arange(30), copies), np.arange(30, 180))
        written = np.array([f"{topical[rows[one]]} {copy}" for copy, one in enumerate(group)], dtype=object)
        found, truth = looks.features(written, np.zeros(len(group), int), group), group < 30
        first = np.unique(group, return_index=True)[1]
        p.append(blind.measure(found[first], truth[first])["p"])

    assert min(p) > 0.005 and np.median(p) > 0.1


def test_few_hits_among_many_copies_are_no_proof_of_none():
    """30 texts in 5 copies a side: as 150 they were called LOW in 40 % of worlds."""
    truth, group = np.arange(300) < 150, np.arange(300) // 5
    for says in (np.zeros(300), group == 0):
        rates = calibration.rates_of_decisions(np.asarray(says, dtype=bool)[None], truth[None], np.array([0]), group)
        assert rates["achieved_fpr"]["high"] >= 1 - 0.025 ** (1 / 30) - 1e-9  # Clopper-Pearson of 0 of 30
        assert rates["tpr"]["high"] >= 1 - 0.025 ** (1 / 30) - 1e-9


def test_a_text_that_is_certain_has_a_loss_of_zero_and_no_minus_zero(tmp_path):
    checkpoint = hub.load(str(tiny_gpt2(tmp_path / "model", seed=1)), CPU, max_length=MAX_LENGTH)
    encoded = encode(checkpoint.tokenizer, TEXTS[:1], MAX_LENGTH)
    said = score(checkpoint.network, checkpoint.task, encoded)
    certain = replace(said, columns={name: np.zeros_like(values) for name, values in said.columns.items()})
    found = per_text(certain, encoded)

    assert not np.signbit(found["loss"]).any() and not np.signbit(found["entropy"]).any()


# -- formulas ------------------------------------------------------------------------------------------------------

TEXTS = [*records(16, seed=3), "Hi you.", "a b", "déjà vu 日本 🙂"]
MAX_LENGTH = 24  # the longer ones are cut


def slowly(checkpoint: hub.Checkpoint, text: str) -> tuple[np.ndarray, str]:
    """Of each scored token its log p, mean and deviation of log p, whether it is the likeliest, and its id, [K, 5]; and the text that was read."""
    tokenizer = checkpoint.tokenizer
    whole, plain = (tokenizer(text, add_special_tokens=added)["input_ids"] for added in (True, False))
    ids = whole[:MAX_LENGTH]
    with torch.no_grad():
        logits = checkpoint.network(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    rows = []
    for place in range(1, len(ids)):
        log_p = special.log_softmax(logits[place - 1])
        mean = np.exp(log_p) @ log_p
        rows.append([log_p[ids[place]], mean, math.sqrt(np.exp(log_p) @ (log_p - mean) ** 2), log_p.argmax() == ids[place], ids[place]])
    return np.array(rows), text if len(whole) <= MAX_LENGTH else tokenizer.decode(ids[len(whole) - len(plain) :])


def ragged(values: np.ndarray, tokens: TokenSignals, fill: float) -> np.ndarray:
    found = np.full((len(tokens), 1, tokens.n_tokens.max()), fill, dtype=values.dtype)
    for row, (start, stop) in enumerate(zip(tokens.offsets, tokens.offsets[1:], strict=False)):
        found[row, 0, : stop - start] = values[start:stop]
    return found


def lowest(values: np.ndarray, share: float) -> float:
    return float(np.sort(values)[: max(1, int(share * len(values)))].mean())


@pytest.mark.parametrize("bos", [False, True])
def test_every_attack_is_its_formula_from_the_raw_softmax(tmp_path, bos):
    target, reference = (hub.load(str(tiny_gpt2(tmp_path / str(seed), seed=seed, bos=bos)), CPU, max_length=MAX_LENGTH) for seed in (1, 2))
    encoded = encode(target.tokenizer, TEXTS, MAX_LENGTH)
    said, other = (score(one.network, one.task, encoded) for one in (target, reference))
    signals = {name: ragged(values, said, -1 if name == "token_id" else np.nan) for name, values in said.columns.items()}
    signals |= {"reference_log_prob": ragged(other.columns["log_prob"], other, np.nan)}
    signals |= {name: values[:, None] for name, values in per_text(said, encoded).items()}
    evidence = Evidence(signals, {}, np.zeros((0, len(TEXTS)), dtype=bool))

    read = [slowly(target, text) for text in TEXTS]
    tokens, size = [rows for rows, _ in read], np.array([len(zlib.compress(text.encode())) for _, text in read])
    gain = [rows[:, 0] - slowly(reference, text)[0][:, 0] for rows, text in zip(tokens, TEXTS, strict=True)]
    counts = np.bincount(np.concatenate([rows[:, 4] for rows in tokens]).astype(int))
    rarity = -np.log((counts + 1) / (counts.sum() + len(counts)))

    def surprising(rows: np.ndarray) -> float:
        least = np.argsort(rows[:, 0])[: max(1, int(0.4 * len(rows)))]
        sure = least[-rows[least, 1] < 4.0]
        return float(rows[sure if len(sure) else slice(None), 0].mean())

    def divergence(rows: np.ndarray) -> float:
        first = [place for place, token in enumerate(rows[:, 4]) if token not in rows[:place, 4]]
        return float(np.mean([min(math.exp(rows[place, 0]) * rarity[int(rows[place, 4])], 0.01) for place in first]))

    def errors(rows: np.ndarray, difference: np.ndarray) -> float:
        wrong = rows[:, 3] == 0
        here = difference[wrong] if wrong.any() else difference
        return math.log(here[here > 0].sum() + 0.01) - math.log(-here[here < 0].sum() + 0.01)

    def votes(difference: np.ndarray) -> float:
        sizes = [w for w in (2, 3, 4, 6, 9, 13, 18, 25, 32, 40) if w <= len(difference)]
        won = [np.mean([difference[i : i + w].sum() > 0 for i in range(len(difference) - w + 1)]) for w in sizes]
        return float(np.mean(won)) if won else float(difference.sum() > 0)

    loss = -np.array([rows[:, 0].mean() for rows in tokens])
    expected = {
        "min-k": (min_k.score(evidence, min_k.Options()), [lowest(rows[:, 0], 0.2) for rows in tokens]),
        "min-k++": (min_k.score(evidence, min_k.Options(normalised=True)), [lowest((rows[:, 0] - rows[:, 1]) / rows[:, 2], 0.2) for rows in tokens]),
        "zlib": (zlib_ratio.score(evidence, zlib_ratio.Options()), -loss / size),
        "surp": (surp.score(evidence, surp.Options(entropy=4.0)), [surprising(rows) for rows in tokens]),
        "dc-pdd": (dc_pdd.score(evidence, dc_pdd.Options()), [divergence(rows) for rows in tokens]),
        "difference": (reference_model.score(evidence, reference_model.Options()), [difference.mean() for difference in gain]),
        "ez": (ez.score(evidence, ez.Options()), [errors(*one) for one in zip(tokens, gain, strict=True)]),
        "wbc": (wbc.score(evidence, wbc.Options()), [votes(difference) for difference in gain]),
        "margin": (signals["margin"][:, 0], -loss - np.log(-np.expm1(-loss))),
    }
    assert np.array_equal(said.n_tokens, [len(rows) for rows in tokens])
    for name, (ours, theirs) in expected.items():
        assert ours == approx(np.array(theirs), rel=1e-4, abs=1e-5), name


# -- shifts of form ------------------------------------------------------------------------------------------------

FORMS = {
    "a blank at the end": lambda text: f"{text} ",
    "a blank at the beginning": lambda text: f" {text}",
    "two blanks after commas and stops": lambda text: text.replace(". ", ".  ").replace(", ", ",  "),
    "a tab": lambda text: text.replace(" ", "\t", 1),
    "no stop at the end": lambda text: text.rstrip(".:;"),
}


@pytest.fixture(scope="module")
def topical():
    return topics.load().inputs


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.replace(" ", "-"))
def test_members_written_in_another_form_are_seen_without_the_model(topical, form):
    """A model fine-tuned on other texts of that form told these "members" at AUC .73 to .86 against its base, and had seen none of them."""
    written = np.array([FORMS[form](text) if row < 100 else text for row, text in enumerate(topical[:200])], dtype=object)

    assert blind.measure(looks.features(written, np.zeros(200, int)), np.arange(200) < 100)["alarm"]


def test_the_base_of_the_example_has_seen_no_audited_passage(topical):
    rest = list(topics.load_rest().inputs)

    assert not set(topical) & set(rest) and overlap.containment(list(topical), rest).max() < overlap.NEAR


# -- trainings -----------------------------------------------------------------------------------------------------

OTHER = "Zed Young, 44, came with nothing but questions, and left."


def other_texts(dataset, rows, name):
    """The same data set, but for the texts of some rows."""
    inputs = dataset.inputs.copy()
    inputs[rows] = OTHER
    return replace(dataset, inputs=inputs, facts=dataset.facts | {"sha256": {"inputs": name}})


def equal(one, other) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.fixture(scope="module", params=["lora", "whole", "gpt2"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    dataset = passages(folder / "data")
    base = tiny_gpt2(folder / "base", list(dataset.inputs))
    changed = {"dropout": 0.1, "epochs": 1, "learning_rate": 0.01}
    recipe = (
        gpt2_recipe(**changed) if request.param == "gpt2" else checkpoint_recipe(base, {"rank": 2} if request.param == "lora" else None, **changed)
    )
    return dataset, recipe, request.param


def test_a_model_depends_on_its_members_texts_and_on_no_others(trained):
    dataset, recipe, name = trained
    one, twin = Complements(0, 0, 2, pool=40).tasks(dataset)
    outside = np.setdiff1d(np.arange(len(dataset.inputs)), one.members)
    changed = other_texts(dataset, outside, f"{name} outside")
    together = [one, twin] if name == "lora" else [one]  # of additions a shard is one training
    before, after = (taught.train(together, data, recipe, CPU) for data in (dataset, changed))

    assert not set(one.members) & set(twin.members) and equal(before[0], after[0])
    assert name != "lora" or not equal(before[1], after[1])


def test_arms_of_a_pair_differ_by_the_audited_text_alone(trained):
    dataset, recipe, name = trained
    inside = next(task for task in Rounds("random00", 20, 0, "fit", 0, 1, pool=40).tasks(dataset) if task.is_in)
    (outside,) = Rounds(None, 20, 0, "fit", 0, 1, pool=40).tasks(dataset)
    changed = other_texts(dataset, [inside.target.source_id], f"{name} target")
    (with_it,), (without,) = (taught.train([task], dataset, recipe, CPU) for task in (inside, outside))

    assert np.array_equal(inside.members, outside.members) and inside.key == outside.key and inside.target.source_id not in inside.members
    assert equal(without, *taught.train([outside], changed, recipe, CPU)) and not equal(with_it, *taught.train([inside], changed, recipe, CPU))
