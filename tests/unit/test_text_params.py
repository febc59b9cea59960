"""Audits of texts in params.yaml: what does not go together is refused in one clear sentence, before anything runs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from memleak import params, plan
from memleak.params import ParamsError
from memleak.params.language import task_of

GPT2 = {"architecture": "gpt2", "epochs": 1, "batch_size": 8, "learning_rate": 0.001}
CNN = {"architecture": "small_cnn", "epochs": 1, "batch_size": 8, "learning_rate": 0.1}
ATTACKS = (
    {"name": "threshold"}, {"name": "threshold", "signal": "confidence"}, {"name": "threshold", "signal": "gradient_norm"}, {"name": "min_k"},
    {"name": "min_k", "normalised": True}, {"name": "surp"}, {"name": "dc_pdd"}, {"name": "dc_pdd", "corpus": "population"}, {"name": "zlib", "form": "sum"},
    {"name": "token", "statistic": "entropy"}, {"name": "lowercase"}, {"name": "recall", "shots": 2}, {"name": "neighbourhood"}, {"name": "lira"},
    {"name": "rmia", "space": "log", "a": 1.0}, {"name": "difficulty"}, {"name": "base"}, {"name": "reference"}, {"name": "population"},
)  # fmt: skip
COMPARING = ({"name": "reference_model"}, {"name": "ez"}, {"name": "wbc"})


def checkpoint(folder, architecture: str):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return folder


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict[str, Any]:
    """An audit of halves on texts; local checkpoints beside it, of which no more is read here than what they are."""
    monkeypatch.chdir(tmp_path)
    for name, architecture in (("gpt", "GPT2LMHeadModel"), ("bert", "BertForMaskedLM"), ("judge", "BertForSequenceClassification")):
        checkpoint(tmp_path / name, architecture)
    (tmp_path / "mine.txt").write_text("one\ntwo\n")
    (tmp_path / "own.py").write_text("def get(): ...\n")
    parts = {name: {"name": "text", "source": "mine.txt"} for name in ("members", "non-members", "shadow")}
    return {
        "datasets": {"topics": {"name": "python_topics"}, "mine": {"parts": parts}, "digits": {"name": "digits"}, "own": {"name": "own.py:get"}},
        "recipes": {
            "gpt2": GPT2, "cnn": CNN, "tuned": GPT2 | {"architecture": "checkpoint", "text": {"checkpoint": "./gpt"}},
            "judge": GPT2 | {"architecture": "checkpoint", "text": {"checkpoint": "./judge", "task": "sequence-classification"}},
        },
        "audits": {
            "a": {"dataset": "topics", "recipe": "gpt2", "design": {"kind": "halves", "models": 6, "pool": 800}, "attacks": {"loss": {"name": "threshold"}}}
        },
    }  # fmt: skip


def changed(config: dict[str, Any], changes: dict[str, Any]) -> params.Params:
    """The params with other values in the one audit: `{"design/pool": 10}`; None takes a key away."""
    found = copy.deepcopy(config)
    for path, value in changes.items():
        *above, last = path.split("/")
        place = found["audits"]["a"]
        for key in above:
            place = place.setdefault(key, {})
        place.pop(last, None)
        if value is not None:
            place[last] = value
    return params.validate(found)


def given(**model: Any) -> dict[str, Any]:
    """The changes that make it an audit of a given checkpoint."""
    return {"dataset": "mine", "recipe": None, "design": {"kind": "given", "model": {"checkpoint": "./gpt", **model}}}


def pairs(**more: Any) -> dict[str, Any]:
    return {"design": {"kind": "pairs", "targets": {"random": 1}, "rounds": 4, "subset_size": 50, "pool": 800} | more}


def test_every_attack_that_reads_no_class_goes_with_language_models(config):
    attacks = {f"a{number}": entry for number, entry in enumerate(ATTACKS)}
    assert plan.build(changed(config, {"attacks": attacks})).audits["a"].signals("a4")
    attacks |= {f"c{number}": entry for number, entry in enumerate(COMPARING)}
    assert changed(config, {"attacks": attacks, "recipe": "tuned"})
    assert changed(config, given(reference="gpt2") | {"attacks": {entry["name"][:3].strip("_"): entry for entry in COMPARING}})


GOOD = {
    "a hub id, of which nothing is known yet": given(checkpoint="owner/name") | {"attacks/l": {"name": "threshold", "signal": "correctness"}},
    "a masked model": given(checkpoint="./bert") | {"attacks/m": {"name": "min_k"}},
    "a classifier of texts": {"recipe": "judge", "attacks/m": {"name": "threshold", "signal": "modified_entropy"}, "release": [{"top_k": 1}]},
    "texts of the user's own function": {"dataset": "own"},
    "views of texts": {"views": ["identity", "lowercase", "neighbours-3"]},
    "space: linear, if it is written": {"attacks/r": {"name": "rmia", "space": "linear"}},
    "pairs": pairs(),
}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.replace(" ", "-"))
def test_what_goes_together_is_accepted(config, case):
    assert "a" in changed(config, GOOD[case]).audits


BAD = {
    "a network of images on texts": ({"recipe": "cnn"}, "audits.a.recipe: the architecture small_cnn reads no texts, and 'topics' holds texts; use architecture: gpt2 or checkpoint"),
    "texts for digits": ({"dataset": "digits"}, "audits.a.recipe: the architecture gpt2 reads texts, and 'digits' holds no texts; use a data set of texts"),
    "a given network on texts": (given() | {"design/model": {"name": "m.py:get"}, "dataset": "mine"}, "design.model: "),
    "a checkpoint of texts on digits": ({"dataset": "pictures", **{k: v for k, v in given().items() if k != "dataset"}}, "reads texts, and 'pictures' holds none"),
    "signals of classes": ({"attacks/m": {"name": "threshold", "signal": "modified_entropy"}}, "attacks.m: it reads modified_entropy, which a language model does not tell"),
    "right answers": ({"attacks/m": {"name": "threshold", "signal": "correctness"}}, "it reads is_correct, which a language model does not tell"),
    "logits": ({"attacks/m": {"name": "shadow"}}, "it reads logits, which a language model does not tell"),
    "of a given causal model": (given() | {"attacks/m": {"name": "threshold", "signal": "correctness"}}, "it reads is_correct, which"),
    "a text moved a little": ({"attacks/m": {"name": "label_only", "method": "noise"}}, "noise_robustness, which is measured by moving a record a little"),
    "tokens of images": ({"dataset": "digits", "recipe": "cnn", "attacks/m": {"name": "min_k"}}, "it reads log_prob, which language models alone tell"),
    "tokens of a classifier": ({"recipe": "judge", "attacks/m": {"name": "zlib"}}, "it reads zlib_bytes, which language models alone tell"),
    "views of images": ({"views": ["identity", "flip"]}, "audits.a.views: flip is a way to show images, and 'topics' holds texts"),
    "views of images, by an attack": ({"recipe": "judge", "attacks/m": {"name": "label_only"}}, "attacks.m.views: flip is a way to show images"),
    "views of texts": ({"dataset": "digits", "recipe": "cnn", "views": ["lowercase"]}, "audits.a.views: lowercase is a way to show texts, and 'digits' holds none"),
    "a prefix for a classifier": ({"recipe": "judge", "views": ["prefix-2"]}, "audits.a.views: prefix-2 puts texts before each text, which a classifier is not asked about"),
    "a signal of the user's": ({"signals": {"s": {"name": "noise_robustness"}}}, "audits.a.signals.s: noise_robustness moves records a little"),
    "a prefix of nothing": ({"design/pool": None, "attacks/m": {"name": "recall"}}, "attacks.m.views: prefix-4 puts texts outside every training set before each text, and the pool is the whole"),
    "a release": ({"release": [{"top_k": 3}]}, "audits.a.release: its steps change the probabilities of a few classes"),
    "a wrong label": (pairs(targets={"mislabelled": 1}), "design.targets.mislabelled: a text has no label that could be wrong"),
    "canaries with a wrong label": (
        {"design": {"kind": "canaries", "canaries": 20, "subset_size": 10, "mislabelled": True}}, "design.mislabelled: a text has no label"
    ),
    "a reference that never was": ({"attacks/m": {"name": "ez"}}, "attacks.m: it compares with the checkpoint that was fine-tuned, and gpt2 begins with random weights"),
    "a reference that is not named": (given() | {"attacks/m": {"name": "wbc"}}, "set design.model.reference to the checkpoint that was fine-tuned"),
    "probabilities of texts": ({"attacks/m": {"name": "rmia"}}, "attacks.m.space: of language models write space: log"),
    "probabilities, among neighbours": ({"attacks/m": {"name": "range", "point": {"name": "rmia", "a": 0.3}}}, "attacks.m.space: of language models"),
    "frequencies in one text": (pairs() | {"attacks/m": {"name": "dc_pdd"}}, "attacks.m.corpus: a pairs audit scores one text at a time"),
    "pictures": ({"include_records": True}, "audits.a.include_records: it shows pictures, and 'topics' holds texts"),
    "an attack that does not say": ({"attacks/m": {"name": "mine.py:score"}}, "it does not say which signals it reads, and language models lack some"),
    "a misspelt signal": ({"attacks/m": {"name": "threshold", "signal": "log_probs"}}, "no signal is called 'log_probs' (did you mean 'log_prob'?)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_what_does_not_go_together_is_said_in_one_sentence(config, case, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from memleak.params import Frozen\nclass Options(Frozen):\n    pass\ndef score(evidence, options): ...\n", encoding="utf-8"
    )
    (tmp_path / "m.py").write_text("def get(): ...\n", encoding="utf-8")
    config["datasets"]["pictures"] = {"parts": {"members": {"name": "digits"}, "non-members": {"name": "digits"}}}
    changes, expected = BAD[case]

    with pytest.raises(ParamsError) as error:
        changed(config, changes)

    assert expected in str(error.value) and "\n" not in str(error.value)


def test_what_a_local_checkpoint_does_is_read_from_its_config(tmp_path):
    tasks = {
        "LlamaForCausalLM": "causal-lm", "GPT2LMHeadModel": "causal-lm", "BertForMaskedLM": "masked-lm",
        "ViTForImageClassification": "image-classification", "BertModel": None,
    }  # fmt: skip
    for name, task in tasks.items():
        assert task_of(str(checkpoint(tmp_path / name, name))) == task
    assert task_of("owner/name") is None
    (tmp_path / "BertModel" / "config.json").write_text("{")
    assert task_of(str(tmp_path / "BertModel")) is None


def test_texts_before_a_text_come_from_the_population_of_a_given_model(config):
    design = {"kind": "given", "model": {"checkpoint": "./gpt"}, "population": "shadow"}
    found = plan.build(changed(config, given() | {"design": design, "attacks/r": {"name": "recall"}})).audits["a"]

    asked = {query.views: query.facts for _, query in found.all_asked()}
    assert asked["identity", "prefix-4"]["shots"] == "shadow" and "shots" not in asked[("identity",)]


def test_attacks_on_tokens_share_the_query_of_all_others(config):
    found = plan.build(changed(config, {"attacks": {"a": {"name": "lira"}, "b": {"name": "min_k"}, "c": {"name": "zlib"}}})).audits["a"]

    assert found.signals("a") == found.signals("b") == found.signals("c") == found.signals()
