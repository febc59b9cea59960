"""Whole audits of a model that the user brings: with shadow models, without any, of labels alone, of sets that differ; their pages."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pages import Tags
from pytest import approx
from safetensors.torch import load_file
from scipy import special

from memleak import artefacts, data
from memleak.attacks import Pool, Turn, label_only, pools, shadow, top_k
from memleak.attacks import stage as attacks
from memleak.metrics import crossfit, roc
from memleak.metrics import stage as metrics
from memleak.report import page, text
from memleak.report import stage as report
from memleak.report.verdict import verdict

N_MEMBERS, N_OTHERS, N_SHADOW = 150, 170, 400
TRUTH = np.arange(N_MEMBERS + N_OTHERS) < N_MEMBERS
FITTED = ("shadow", "top-k", "moved")


def scores_of(walk, attack, path: Path | None = None) -> dict[str, np.ndarray]:
    """The columns of a score table, [M, N] each."""
    models = artefacts.read_table(walk.plan, ["model_id"])["model_id"].tolist()
    return pools.read_scores(path or walk.audit(f"scores/{attack}.parquet"), models, artefacts.POOL_SCORE_COLUMNS[2:])[1]


def logits_of(walk) -> tuple[np.ndarray, np.ndarray]:
    """What the user's network says about members and non-members [N, C], and their labels: from its weights, past all of ours."""
    weights = {name: value.double().numpy() for name, value in load_file(walk.folder / "mine.safetensors").items()}
    dataset = data.read(walk.folder / "dataset.json")
    inputs = np.asarray(dataset.inputs[: len(TRUTH)], dtype=np.float64).reshape(len(TRUTH), -1)
    hidden = np.maximum(inputs @ weights["1.weight"].T + weights["1.bias"], 0)
    return hidden @ weights["3.weight"].T + weights["3.bias"], np.asarray(dataset.labels[: len(TRUTH)])


# -- what is scored, and what it rests on --------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["loss", "correctness", *FITTED, "noise"])
def test_members_and_non_members_are_scored_and_nobody_else(given_walk, attack):
    table = pd.read_parquet(given_walk.audit(f"scores/{attack}.parquet"))
    rows = table.groupby("target_id").size()

    assert (rows == len(TRUTH)).all() and set(table["sample_id"]) == set(range(len(TRUTH)))
    assert not table.loc[table["target_id"] == given_walk.planned.given.name, "score"].isna().any()
    assert table.loc[table["target_id"] != given_walk.planned.given.name, "score"].isna().all()  # references are targets of nobody


def test_shadow_models_are_asked_about_their_own_pool_too(given_walk):
    facts = [artefacts.read_facts(path) for path in given_walk.asked_by("shadow")]

    assert [fact["n_samples"] for fact in facts] == [len(TRUTH) + N_SHADOW] * 2
    assert [len(fact["models"]) for fact in facts] == [1, 4]


def test_the_loss_attack_has_the_auc_of_the_users_own_network(given_walk, given_alone):
    for walk in (given_walk, given_alone):
        logits, label = logits_of(walk)
        loss = special.logsumexp(logits, axis=1) - logits[np.arange(len(label)), label]

        assert walk.metrics["attacks"]["loss"]["auc"]["value"] == approx(roc.auc(-loss, TRUTH), abs=1e-3)


def test_the_audited_model_is_described_and_its_references_beside_it(given_walk, given_alone):
    logits, label = logits_of(given_walk)
    right = logits.argmax(axis=1) == label
    found = given_walk.metrics["models"]

    assert (found["n"], found["n_train"], found["n_test"]) == (1, N_MEMBERS, N_OTHERS)
    assert (found["train_accuracy"]["value"], found["test_accuracy"]["value"]) == (approx(right[TRUTH].mean()), approx(right[~TRUTH].mean()))
    assert found["references"]["n"] == 4 and found["references"]["n_train"] == N_SHADOW / 2
    assert given_alone.metrics["models"]["references"] is None


def test_the_parts_of_the_audit_are_counted(given_walk):
    parts = {part["name"]: (part["is_member"], part["length"], part["n_audited"]) for part in given_walk.metrics["parts"]}

    assert parts == {"members": (True, 150, 150), "non-members": (False, 170, 170), "shadow": (False, 400, 0)}
    assert given_walk.metrics["n_samples"] == 320 and given_walk.metrics["n_targets"] == 1


def test_a_model_that_knows_its_members_by_heart_leaks(given_walk, given_alone):
    assert given_walk.metrics["attacks"]["top-k"]["auc"]["low"] > 0.5
    assert given_walk.metrics["attacks"]["loss"]["auc"]["low"] > 0.5
    assert given_alone.metrics["attacks"]["gradient"]["auc"]["low"] > 0.5  # small for members: the sign is turned
    assert given_alone.metrics["attacks"]["population"]["auc"]["low"] > 0.5
    assert given_alone.metrics["n_population"] == 80


def test_the_truth_cannot_reach_a_score(given_walk, tmp_path):
    """Who is a member is written otherwise in the plan: the scores stay bit for bit the same."""
    plan, facts = artefacts.read_table(given_walk.plan, artefacts.PLAN_COLUMNS), artefacts.read_facts(given_walk.plan)
    members = np.unpackbits(np.frombuffer(plan["membership"].iloc[0], np.uint8))
    plan.loc[0, "membership"] = np.packbits(np.random.default_rng(0).permutation(members)).tobytes()
    artefacts.write_table(tmp_path / "plan.parquet", plan, facts)

    for attack in given_walk.planned.audit.attacks:
        options = json.loads(given_walk.planned.attack_json(attack))
        attacks.score(tmp_path / "plan.parquet", given_walk.samples, given_walk.asked_by(attack), [], options, tmp_path / "s.parquet")
        before, after = scores_of(given_walk, attack), scores_of(given_walk, attack, tmp_path / "s.parquet")
        for column in before:
            assert np.array_equal(before[column][0], after[column][0], equal_nan=True)


def _garbled(path: Path, output: Path, is_garbled: np.ndarray) -> Path:
    """The same answers, those about some samples [N] replaced by noise."""
    table = pq.read_table(path)
    chosen, draw = is_garbled[table["sample_id"].to_numpy()], np.random.default_rng(0)
    for number, name in enumerate(table.column_names):
        column = table[name].combine_chunks()
        if name == "logits":
            values = column.flatten().to_numpy().reshape(len(table), -1).copy()
            values[chosen] = 10 * draw.normal(size=(chosen.sum(), values.shape[1]))
            table = table.set_column(number, table.schema.field(name), pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]))
        elif name == "is_correct":
            values = np.where(chosen, draw.random(len(table)) < 0.5, column.to_numpy(zero_copy_only=False))
            table = table.set_column(number, table.schema.field(name), pa.array(values))
    pq.write_table(table, output)
    return output


@pytest.mark.parametrize("attack", FITTED)
@pytest.mark.parametrize("about", ["audited", "shadow"])
def test_classifiers_learn_from_the_shadow_pool_and_from_nothing_that_is_audited(given_walk, tmp_path, attack, about):
    """Whatever references say about audited records, the scores stay; what they say about their own pool is what is learnt."""
    of_target, of_references = given_walk.asked_by(attack)
    is_audited = np.arange(len(TRUTH) + N_SHADOW) < len(TRUTH)
    garbled = _garbled(of_references, tmp_path / "g.parquet", is_audited if about == "audited" else ~is_audited)
    options = json.loads(given_walk.planned.attack_json(attack))

    attacks.score(given_walk.plan, given_walk.samples, [of_target, garbled], [], options, tmp_path / "s.parquet")

    is_same = np.array_equal(scores_of(given_walk, attack)["score"][0], scores_of(given_walk, attack, tmp_path / "s.parquet")["score"][0])
    assert is_same == (about == "audited")


def unlike_world(leak: float, seed: int = 0, n_shadow: int = 300, n_audited: int = 400) -> tuple[Pool, np.ndarray]:
    """Four references that remember halves of a shadow pool, and a target asked about records of visibly another kind.

    Of a remembered record the label's logit is larger by 2, and more views are right; of audited records every answer is
    surer by 3, whoever is asked. The target remembers its members by `leak`.
    """
    draw, n = np.random.default_rng(seed), n_shadow + n_audited
    is_audited, truth = np.arange(n) >= n_shadow, np.zeros(n, dtype=bool)
    truth[draw.permutation(np.arange(n_shadow, n))[: n_audited // 2]] = True
    is_in = np.zeros((5, n), dtype=bool)
    is_in[1:, :n_shadow] = draw.random((4, n_shadow)) < 0.5
    is_in[0] = truth
    moved = 2 * is_in + 3.0 * is_audited
    moved[0] = leak * truth + 3.0 * is_audited
    label = draw.integers(0, 5, n)
    logits = draw.normal(size=(5, n, 1, 5))
    logits[:, np.arange(n), 0, label] += moved
    right = draw.normal(size=(5, n, 6)) + 0.5 * moved[:, :, None] > 0
    signals = {"logits": logits.astype(np.float32), "is_correct": right}
    return Pool(signals, is_in, label=label, sample_id=np.arange(n), group=np.arange(n), is_audited=is_audited), truth[is_audited]


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (shadow, shadow.Options(label="none")),
        (shadow, shadow.Options()),
        (top_k, top_k.Options(classifier="logistic")),
        (label_only, label_only.Options()),
    ],
    ids=["shadow", "shadow-per-class", "top-k", "label-only"],
)
def test_audited_records_of_another_kind_are_no_leak(attack, options):
    """A target that remembers nothing has AUC 1/2, however unlike the shadow pool the records are; one that does is found."""
    found = {}
    for leak in (0.0, 2.0):
        pool, truth = unlike_world(leak)
        scores = attack.score_all(pool, [Turn(0, np.arange(1, 5))], options)[0]
        assert np.isnan(scores[~pool.is_audited]).all() or attack is label_only
        found[leak] = roc.auc(scores[pool.is_audited], truth)

    assert abs(found[0.0] - 0.5) < 3 * np.sqrt(401 / (12 * 200 * 200))
    assert found[2.0] > 0.6


# -- thresholds and controls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("walk", "attack"), [("given_walk", "shadow"), ("given_walk", "loss"), ("given_alone", "loss")])
def test_thresholds_come_from_other_non_members(walk, attack, request):
    """With references or without: the audited model was not trained as they were."""
    walk = request.getfixturevalue(walk)
    (found,) = artefacts.read_json(walk.audit(f"thresholds/{attack}.json"))["targets"].values()

    assert walk.metrics["thresholds_from"] == "other non-members"
    assert found["is_cross_fitted"] and found["threshold"] is None and 120 <= found["n_fitted"] < N_OTHERS


@pytest.mark.parametrize(("walk", "attack"), [("given_walk", "shadow"), ("given_walk", "top-k"), ("given_alone", "loss")])
def test_decisions_are_those_of_cross_fitted_thresholds(walk, attack, request):
    walk = request.getfixturevalue(walk)
    decided = pd.read_parquet(walk.audit("decisions.parquet"))
    own = decided[decided["attack"] == attack].sort_values("sample_id")
    group = np.asarray(data.read(walk.folder / "dataset.json").group_id[: len(TRUTH)])
    cuts, _ = crossfit.cuts(own["score"].to_numpy(), TRUTH, group, 0.05)

    assert (own["is_member"].to_numpy() == TRUTH).all()
    assert (own["says_member"].to_numpy() == (own["score"].to_numpy() > cuts)).all()
    calibrated = walk.metrics["attacks"][attack]["calibrated"][0]
    assert calibrated["achieved_fpr"]["value"] == approx(own.loc[~own["is_member"], "says_member"].mean())
    assert calibrated["tpr"]["value"] == approx(own.loc[own["is_member"], "says_member"].mean())


def test_a_false_positive_rate_that_was_aimed_at_lies_in_the_interval_of_the_one_achieved(given_walk, given_alone):
    continuous = [*(given_walk.metrics["attacks"][name] for name in ("loss", "shadow", "top-k")), given_alone.metrics["attacks"]["loss"]]
    for found in (one for attack in continuous for one in attack["calibrated"]):
        assert found["achieved_fpr"]["low"] <= found["at_fpr"] <= found["achieved_fpr"]["high"]


def test_controls_are_those_that_the_design_allows(given_walk, given_alone):
    for walk in (given_walk, given_alone):
        assert walk.metrics["controls"]["null"] is None and not (walk.metrics["controls"]["count"] or {}).get("alarm")
        assert not walk.metrics["controls"]["blind"]["alarm"] and walk.metrics["controls"]["blind"]["n_members"] == N_MEMBERS
        assert walk.metrics["controls"]["permuted"]["low"] <= 0.95 <= walk.metrics["controls"]["permuted"]["high"]
        assert (walk.metrics["epsilon"], walk.metrics["exposure"]) == (None, None)
        assert len(pd.read_csv(walk.audit("exposed.csv"))) == 0


def test_every_figure_has_an_interval_that_holds_it(given_walk, given_alone):
    for attack in [*given_walk.metrics["attacks"].values(), *given_alone.metrics["attacks"].values()]:
        rates = [
            attack["auc"],
            attack["balanced_accuracy"],
            *attack["rates"],
            *(one[key] for one in attack["calibrated"] for key in ("tpr", "achieved_fpr")),
        ]
        assert all(rate["low"] <= rate["value"] <= rate["high"] for rate in rates)


def test_correctness_has_the_rates_of_train_and_test_accuracy(given_walk):
    found, models = given_walk.metrics["attacks"]["correctness"]["natural"], given_walk.metrics["models"]

    assert found["is_only"]
    assert (found["tpr"]["value"], found["achieved_fpr"]["value"]) == (
        approx(models["train_accuracy"]["value"]),
        approx(models["test_accuracy"]["value"]),
    )


def test_queries_that_signals_took_are_counted_and_bounded(given_walk):
    for path in given_walk.asked_by("noise"):
        assert 1 <= artefacts.read_facts(path)["n_queries"]["noise_robustness"] <= 20
    queries = {name: attack["n_queries"] for name, attack in given_walk.metrics["attacks"].items()}

    assert (queries["loss"], queries["moved"]) == (1, 9) and 1 <= queries["noise"] <= 20


# -- a model that gives labels alone -------------------------------------------------------------------------------

NEIGHBOUR = """
from sklearn.neighbors import KNeighborsClassifier
import my_data
def get_model():
    x, y = my_data.get_train()
    return KNeighborsClassifier(1).fit(x.reshape(len(x), -1), y)
"""
LABELS: dict[str, Any] = {
    "design": {
        "kind": "given", "model": {"name": "my_neighbour.py:get_model", "output": "labels"}, "references": {"kind": "shadow", "models": 2},
    },
    "attacks": {
        "correctness": {"name": "threshold", "signal": "correctness"},
        "noise": {"name": "label_only", "method": "noise", "queries": 20},
        "moved": {"name": "label_only", "views": ["identity", "shift-1"]},
    },
    "alpha": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def labels_walk(walk_given, tmp_path_factory):
    """The nearest neighbour among the members, which says nothing but its label."""
    return walk_given(tmp_path_factory.mktemp("labels"), LABELS, {"my_neighbour.py": NEIGHBOUR})


def test_of_labels_only_whether_they_are_right_is_written(labels_walk):
    columns = {attack: pq.read_schema(labels_walk.asked_by(attack)[0]).names for attack in labels_walk.planned.audit.attacks}

    assert columns["correctness"] == ["model_id", "sample_id", "view", "is_correct"]
    assert columns["noise"] == [*columns["correctness"], "noise_robustness"]


def test_labels_alone_are_audited_from_end_to_end(labels_walk):
    found = labels_walk.metrics

    assert found["models"]["train_accuracy"]["value"] == 1.0 and found["models"]["train_loss"] is None
    assert found["models"]["given"]["form"] == "estimator (KNeighborsClassifier)"
    assert found["attacks"]["noise"]["auc"]["low"] > 0.5  # members are answered rightly under all noise that keeps them their own neighbour
    assert 0 < found["attacks"]["noise"]["n_queries"] <= 20


# -- sets that differ in themselves --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unlike_walk(walk_given, given_alone, tmp_path_factory):
    """Non-members are brighter, which has nothing to do with the model."""
    text = (given_alone.folder / "my_data.py").read_text()
    brighter = text.replace("    return _rows(150, 320)", "    x, y = _rows(150, 320)\n    return x + 2, y")
    return walk_given(tmp_path_factory.mktemp("unlike"), files={"my_data.py": brighter})


def test_sets_that_differ_are_an_alarm_and_no_verdict(unlike_walk):
    found = verdict(unlike_walk.metrics)

    assert unlike_walk.metrics["controls"]["blind"]["alarm"] and unlike_walk.metrics["controls"]["blind"]["auc"]["low"] > 0.9
    assert found.state == "UNDECIDED" and found.risk is None and "A control of the audit failed" in found.sentence
    assert any(note.startswith("ALARM: members can be told from non-members without the model") for note in found.notes)


def test_the_page_and_the_text_say_so(unlike_walk, tmp_path):
    html, line = reported(unlike_walk, tmp_path)
    plain = report.summary(unlike_walk / "metrics/small.json", json.loads(unlike_walk.planned.page_json()), tmp_path / "report.txt")

    assert "UNDECIDED" in line and "UNDECIDED" in words(html) and "ALARM" in words(html) and "The two sets differ in themselves" in words(html)
    assert "ALARM: members can be told from non-members" in " ".join(plain.split()) and "(HIGH risk)" not in plain


# -- pages ---------------------------------------------------------------------------------------------------------


def words(html: str) -> str:
    """The page's words without tags, spaces made one."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", html, flags=re.DOTALL))))


def reported(walk, folder: Path) -> tuple[str, str]:
    """The page of a walk with its figures, and its verdict in one line."""
    figures = []
    for name in walk.planned.figures():
        svg = folder / f"{name}.svg"
        report.figure(
            name, walk.plan, [], [], walk / "metrics/small.json", walk.audit("roc.parquet"), svg, svg.with_suffix(".png"),
            score_paths=walk.scores, exposure_path=walk.audit("exposure.parquet"),
        )  # fmt: skip
        figures.append(svg)
    report.timings(folder / "logs/benchmarks", walk.planned.names_of_models(), "small", folder / "timings.csv")
    line = report.report(
        walk / "metrics/small.json", walk.plan, walk.audit("decisions.parquet"), folder / "timings.csv", figures,
        json.loads(walk.planned.page_json()), folder / "report.html",
    )  # fmt: skip
    return (folder / "report.html").read_text(encoding="utf-8"), line


@pytest.fixture(scope="module")
def pages(given_walk, given_alone, tmp_path_factory):
    """The HTML of both audits, and their text."""
    found = {}
    for name, walk in (("shadow", given_walk), ("alone", given_alone)):
        folder = tmp_path_factory.mktemp(f"page-{name}")
        html, _ = reported(walk, folder)
        found[name] = html, report.summary(walk / "metrics/small.json", json.loads(walk.planned.page_json()), folder / "report.txt")
    return found


@pytest.mark.parametrize("name", ["shadow", "alone"])
def test_the_page_is_whole_and_speaks_of_one_model(pages, name):
    html, said = pages[name][0], words(pages[name][0])

    assert Tags(html).open == [] and html.count('<div class="panels"') == 3 and "<script" not in html
    assert "network (Sequential) my_model.py:get_model with the weights mine.safetensors" in said and "The model gives logits." in said
    assert "asked about 150 members and 170 non-members." in said
    assert not re.findall(r".{40}(?:twin|complementary halves|every model is|mock target).{20}", said, re.IGNORECASE)


def test_the_page_names_the_references_or_says_that_there_are_none(pages):
    shadow_page, alone = (words(pages[name][0]) for name in ("shadow", "alone"))

    assert "Trained 4 reference models (recipe tiny-" in shadow_page and "each on a random half of shadow" in shadow_page
    assert "Trains nothing: only attacks that look at the model itself" in alone and "reference models (recipe" not in alone


@pytest.mark.parametrize("name", ["shadow", "alone"])
def test_no_epsilon_is_claimed(pages, name):
    html, plain = pages[name]

    assert "No epsilon: design." in words(html) and "epsilon is at least" not in words(html) + plain


def test_the_text_names_models_sets_and_attacks(given_walk, pages):
    plain = " ".join(pages["shadow"][1].split())

    assert "is_member_dataset: true, length: 150" in plain and "is_member_dataset: false, length: 170" in plain
    assert "4 reference models" in plain and "my_model.py:get_model" in plain
    assert all(f"- name: {attack}" in plain for attack in given_walk.metrics["attacks"])


@pytest.mark.parametrize("name", ["shadow", "alone"])
def test_the_figures_of_the_text_are_those_of_the_metrics(given_walk, given_alone, pages, name):
    found = {"shadow": given_walk, "alone": given_alone}[name].metrics
    blocks = dict(re.findall(r"- name: ([\w-]+)[^\n]*\n  attack description(.*?)(?=- name|Summary:)", pages[name][1], flags=re.DOTALL))

    assert set(blocks) == set(found["attacks"])
    for attack, block in blocks.items():
        said, own = " ".join(block.split()), found["attacks"][attack]
        rates = own["natural"] if (own.get("natural") or {}).get("is_only") else own["calibrated"][0]
        assert f"auc = {own['auc']['value']:.3f} [{own['auc']['low']:.3f}, {own['auc']['high']:.3f}]" in said
        assert f"acc = {(rates['tpr']['value'] + 1 - rates['achieved_fpr']['value']) / 2:.3f} [" in said
        assert f"recall = {rates['tpr']['value']:.3f} [{rates['tpr']['low']:.3f}, {rates['tpr']['high']:.3f}]" in said


def test_names_of_the_users_cannot_write_into_the_page(given_walk):
    hostile = "<img src=x onerror=alert(1)>"
    found = json.loads(json.dumps(given_walk.metrics))
    found["models"]["given"] |= {"name": hostile, "weights": hostile, "form": hostile}
    found["data"] |= {"name": hostile, "licence": hostile, "class_names": [hostile] * 10}
    found["parts"][0]["name"] = hostile
    found["audit"] = hostile
    params = json.loads(given_walk.planned.page_json())
    params["entry"]["design"]["model"]["name"] = hostile
    html, _ = page.pool_page(found, pd.DataFrame({"stage": [hostile], "seconds": [1.0]}), {}, params)

    assert hostile not in html and "<img" not in html and html.count("&lt;img src=x") > 5
    assert Tags(html).open == []
    assert hostile in " ".join(text.text(found, params).split())  # plain text has nothing to escape


def test_the_same_metrics_are_measured_twice_alike(given_alone, tmp_path):
    headline = json.loads(given_alone.planned.headline_json(False))
    found = metrics.measure(
        given_alone.plan, given_alone.samples, given_alone.signals, given_alone.thresholds, given_alone.scores, given_alone.audit("decisions.parquet"),
        headline, tmp_path / "m.json", tmp_path / "e.parquet", tmp_path / "r.parquet", tmp_path / "p.csv", tmp_path / "x.csv",
        given_alone.audit("features.parquet"),
    )  # fmt: skip

    assert json.loads(json.dumps(found)) == given_alone.metrics


def test_features_of_other_samples_are_refused(given_alone, tmp_path):
    features = pd.read_parquet(given_alone.audit("features.parquet"))
    features.iloc[1:].to_parquet(tmp_path / "f.parquet")
    headline = json.loads(given_alone.planned.headline_json(False))

    with pytest.raises(artefacts.ArtefactError, match=r"f\.parquet: speaks of other samples than the plan; delete it and run again"):
        metrics.measure(
            given_alone.plan, given_alone.samples, given_alone.signals, given_alone.thresholds, given_alone.scores,
            given_alone.audit("decisions.parquet"), headline, *(tmp_path / name for name in ("m", "e", "r", "p", "x")), tmp_path / "f.parquet",
        )  # fmt: skip


def test_asking_leaves_no_trace_in_torch(given_walk):
    assert torch.is_grad_enabled()


OWN_ATTACK = """
from memleak.params import Frozen

class Options(Frozen):
    pass

def score(evidence, options):
    others = evidence.reference["margin"].mean(axis=(0, 2))
    return evidence.target["margin"].mean(axis=1) - others
"""


def test_an_attack_that_does_not_say_what_it_needs_is_given_the_references(walk_given, tmp_path):
    model = {"name": "my_model.py:get_model", "weights": "mine.safetensors", "inputs": "stored"}
    design = {"kind": "given", "model": model, "references": {"kind": "shadow", "models": 2}}
    audit = {"design": design, "attacks": {"own": {"name": f"{tmp_path}/my_own_attack.py:score"}}}
    done = walk_given(tmp_path, audit, {"my_own_attack.py": OWN_ATTACK})

    assert done.metrics["attacks"]["own"]["n_references"] == 2 and len(done.asked_by("own")) == 2
