"""Audits of a given model in params.yaml: what does not go together is refused in one clear sentence, before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from memleak import params
from memleak.params import ParamsError

SHADOW = {"kind": "shadow", "models": 4}
HALVES = {"kind": "halves", "models": 4}
FILES = {
    "my_data.py": "def get(): ...\n",
    "my_model.py": "def get_model(): ...\n",
    "my_signals.py": "from memleak.params import Frozen\nclass Options(Frozen):\n    times: int = 1\ndef depth(asked, options): ...\n",
    "mine.safetensors": "weights",
}


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict[str, Any]:
    """A given audit without references, whose files lie in the working directory."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    parts = {name: {"name": "my_data.py:get"} for name in ("members", "non-members", "shadow", "public")}
    design = {"kind": "given", "model": {"name": "my_model.py:get_model"}}
    return {
        "datasets": {"mine": {"parts": parts}, "digits": {"name": "digits"}},
        "recipes": {"r": {"architecture": "mlp", "epochs": 1, "batch_size": 8, "learning_rate": 0.1}},
        "audits": {"a": {"dataset": "mine", "design": design, "attacks": {"loss": {"name": "threshold"}}}},
    }


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of the config with other values in its one audit: `{"design/model/output": "labels"}`; None takes a key away."""
    found = copy.deepcopy(config)
    for path, value in changes.items():
        *above, last = path.split("/")
        place = found["audits"]["a"]
        for key in above:
            place = place.setdefault(key, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    return found


def referenced(references: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The changes that give the audit reference models."""
    return {"recipe": "r", "design/references": references or SHADOW, **changes}


GOOD = {
    "nothing but the model": {},
    "shadow models on halves of a pool": referenced(),
    "shadow models on parts of their own": referenced({"kind": "shadow", "train": "shadow", "out": "public"}),
    "halves of members and non-members": referenced(HALVES, **{"attacks/lira": {"name": "lira"}}),
    "a population": {"design/population": "public", "attacks/rmia": {"name": "population"}},
    "weights alone": {"design/model": {"weights": "mine.safetensors"}},
    "labels, and attacks that need no more": referenced(
        **{"design/model/output": "labels", "attacks": {"c": {"name": "threshold", "signal": "correctness"}, "m": {"name": "label_only"}}}
    ),
    "noise, without references": {"attacks/noise": {"name": "label_only", "method": "noise"}},
    "a signal of the user's": {
        "signals": {"depth": {"name": "my_signals.py:depth", "times": 3}},
        "attacks/depth": {"name": "threshold", "signal": "depth"},
    },
}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.replace(" ", "-"))
def test_what_goes_together_is_accepted(config, case):
    found = params.validate(changed(config, GOOD[case])).audits["a"].design

    assert isinstance(found, params.Given) and found.parts[:2] == ("members", "non-members")


BAD = {
    "a data set of one part": ({"dataset": "digits"}, "audits.a.dataset: 'digits' is one set; a given model takes a data set of parts: {members: ..., non-members: ...}"),
    "a part that is not there": ({"design/members": "membres"}, "audits.a.design: 'mine' has no part 'membres' (did you mean 'members'?)"),
    "a shadow part that is not there": (referenced({"kind": "shadow", "parts": ["shade"]}), "'mine' has no part 'shade'"),
    "members that are the non-members": ({"design/non_members": "members"}, "members and non_members are both 'members'"),
    "members as population": ({"design/population": "members"}, "the part 'members' is audited, so it can be neither population nor shadow pool"),
    "non-members as shadow pool": (
        referenced({"kind": "shadow", "parts": ["shadow", "non-members"]}), "non_members: the part 'non-members' is audited",
    ),
    "a population that references know": (referenced(**{"design/population": "shadow"}), "population: reference models know the part 'shadow'"),
    "parts and train": (referenced({"kind": "shadow", "parts": ["shadow"], "train": "public", "out": "shadow"}), "give the parts of a shadow pool"),
    "train without out": (referenced({"kind": "shadow", "train": "public"}), "or both train and out, not some of each"),
    "train that is out": (referenced({"kind": "shadow", "train": "public", "out": "public"}), "train and out are both 'public'"),
    "an odd number of halves": (referenced({"kind": "halves", "models": 5}), "multiple of 2"),
    "references of no kind": (referenced({"models": 4}), "kind: is missing; known: halves, shadow"),
    "references of another kind": (referenced({"kind": "shadows", "models": 4}), "'shadows' is not a kind of references (did you mean 'shadow'?)"),
    "a recipe without references": ({"recipe": "r"}, "recipe: 'r' is given, and no reference model is trained; leave it out, or set design.references"),
    "references without a recipe": ({"design/references": SHADOW}, "recipe: missing; name one of recipes, for the reference models"),
    "no data set": ({"dataset": None}, "dataset: missing; name one of datasets"),
    "labels for a loss attack": ({"design/model/output": "labels"}, "loss is needed, and the model gives labels only"),
    "labels for a classifier of posteriors": (
        referenced(**{"design/model/output": "labels", "attacks": {"s": {"name": "top_k"}}}), "attacks.s: logits is needed, and the model gives labels only",
    ),
    "labels for a gradient": (
        {"design/model/output": "labels", "attacks": {"g": {"name": "threshold", "signal": "gradient_norm"}}}, "gradient_norm is needed, and the model gives labels only",
    ),
    "a classifier without references": ({"attacks/s": {"name": "shadow"}}, "attacks.s: 1 reference models are needed, each target has 0"),
    "more shadows than there are": (referenced(**{"attacks/t": {"name": "top_k", "shadows": 5}}), "attacks.t: 5 reference models are needed, each target has 4"),
    "more references than there are": (referenced(**{"attacks/s": {"name": "shadow", "references": 9}}), "9 asked for, each target has 4 of the design's 5 models"),
    "references that know the audited ones": (referenced(**{"attacks/l": {"name": "lira"}}), "use mode: offline, or references: {kind: halves}"),
    "an odd number of complementary references": (
        referenced(HALVES, **{"attacks/l": {"name": "lira", "mode": "offline", "references": 3}}), "models come in complementary twos, so give an even number",
    ),
    "a population that is not named": ({"attacks/p": {"name": "population"}}, "attacks.p: a population is needed, and the design names none; set design.population"),
    "one record at a time": ({"attacks/np": {"name": "single_point"}}, "single_point is an attack of the design pairs"),
    "an unknown signal": ({"attacks/d": {"name": "threshold", "signal": "los"}}, "attacks.d: no signal is called 'los' (did you mean 'loss'?); declare one of your own"),
    "a signal of ours under another meaning": ({"signals": {"margin": {"name": "my_signals.py:depth"}}}, "signals.margin: 'margin' is a signal that every model has"),
    "logits under another meaning": ({"signals": {"logits": {"name": "my_signals.py:depth"}}}, "signals.logits: 'logits' is a signal that every model has"),
    "a signal without a name": ({"signals": {"depth": {"times": 3}}}, "signals.depth: 'name' is missing"),
    "a signal of nobody": ({"signals": {"depth": {"name": "gradient"}}}, "signals.depth.name: no signal is called 'gradient' (did you mean 'gradient_norm'?)"),
    "an unknown option of a signal": ({"signals": {"depth": {"name": "my_signals.py:depth", "tmes": 3}}}, "unknown key 'tmes' (did you mean 'times'?)"),
    "no model": ({"design/model": {}}, "none of name, weights and checkpoint is given"),
    "a model that is not there": ({"design/model/name": "your_model.py:get_model"}, "there is no file your_model.py"),
    "weights that are not there": ({"design/model/weights": "yours.safetensors"}, "there is no file 'yours.safetensors'"),
    "a mean without a deviation": ({"design/model/mean": [0.5]}, "mean has 1 values and std 0; give both"),
    "a mean twice": ({"design/model/mean": [0.5], "design/model/std": [1.0], "design/model/inputs": "normalised"}, "leave mean and std out"),
    "an output of another kind": ({"design/model/output": "logit"}, "should be 'logits', 'probabilities', 'binary_logit' or 'labels', found 'logit'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.replace(" ", "-"))
def test_what_does_not_go_together_is_said_in_one_sentence(config, fault):
    changes, expected = BAD[fault]

    with pytest.raises(ParamsError) as caught:
        params.validate(changed(config, changes))

    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("params.yaml: audits.a")


def test_parts_and_a_name_of_their_own_exclude_each_other(config):
    config["datasets"]["mine"]["name"] = "digits"

    with pytest.raises(ParamsError, match=r"datasets\.mine: name, source, n and column belong to each of the parts"):
        params.validate(config)


def test_a_data_set_of_nothing_says_both_ways_to_write_it(config):
    config["datasets"]["mine"] = {}

    with pytest.raises(ParamsError, match=r"neither name nor parts is given; write for example \{name: digits\}, or parts:"):
        params.validate(config)


def test_a_fault_of_a_part_names_the_part(config):
    config["datasets"]["mine"]["parts"]["shadow"] = {"name": "digit"}

    with pytest.raises(ParamsError, match=r"datasets\.mine\.parts\.shadow: no dataset is called 'digit' \(did you mean 'digits'\?\)"):
        params.validate(config)


def test_the_size_of_parts_is_known_only_where_each_declares_one(config):
    declared = {name: {"name": "my_data.py:get", "n": n} for name, n in (("members", 30), ("non-members", 20))}

    assert params.Dataset(parts=declared).declared_size == 50
    assert params.Dataset(parts=declared | {"shadow": {"name": "my_data.py:get"}}).declared_size is None
