"""The laws of a given model: a good one keeps them in every form, and one that breaks a law is found out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from memleak.contracts import models as laws
from memleak.params.designs import GivenModel

DATA = """
import numpy as np

def get_dataset():
    draw = np.random.default_rng(0)
    y = np.arange(300) % N_CLASSES
    typical = draw.uniform(40, 216, (N_CLASSES, 5, 5, 1))
    return (typical[y] + draw.normal(0, 12, (300, 5, 5, 1))).round().clip(0, 255).astype(np.uint8), y
"""
MODEL = """
import numpy as np
import torch
from torch import nn
from pictures import get_dataset

def fitted():
    from sklearn.linear_model import LogisticRegression
    x, y = get_dataset()
    return LogisticRegression(max_iter=200, C=0.01).fit(x.reshape(300, -1) / 255, y)

def logits(x):
    z = fitted().decision_function(x.reshape(len(x), -1) / 255) * 20
    return z

def network():
    built = fitted()
    layer = nn.Linear(25, len(built.classes_))
    layer.load_state_dict({"weight": torch.tensor(built.coef_ * 20).float(), "bias": torch.tensor(built.intercept_ * 20).float()})
    return nn.Sequential(nn.Flatten(), layer)

calls = iter(range(10 ** 6))

def get_model():
    CODE
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("pictures", None)


def _checked(code: str, n_classes: int = 3, **fields) -> dict:
    Path("pictures.py").write_text(DATA.replace("N_CLASSES", str(n_classes)))
    Path("my_model.py").write_text(MODEL.replace("CODE", code))
    model = GivenModel(name=f"{Path('my_model.py').resolve()}:get_model", **fields)
    return {finding.law: finding for finding in laws.check(model, f"{Path('pictures.py').resolve()}:get_dataset")}


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("return logits", {}),
        ("return lambda x: torch.tensor(logits(x)).softmax(1)", {"output": "probabilities"}),
        ("return lambda x: logits(x).argmax(1)", {"output": "labels"}),
        ("return fitted()", {"output": "labels"}),
    ],
)
def test_a_good_model_breaks_no_law_in_any_form(code, fields):
    found = _checked(code, **fields)

    assert len(found) == 8
    broken = [str(finding) for finding in found.values() if finding.state == "broken"]
    assert broken == []


def test_a_good_network_keeps_every_law():
    found = _checked("return network()")

    assert len(found) == 9
    assert [str(finding) for finding in found.values() if finding.state != "kept"] == []


def test_a_good_model_of_two_classes_keeps_every_law():
    found = _checked("return logits", n_classes=2, output="binary_logit")

    assert [str(finding) for finding in found.values() if finding.state != "kept"] == []
    assert found["it can be loaded, and weights fit"].why == "function of arrays"


LOADED, ANSWER = "it can be loaded, and weights fit", "it gives one finite answer for each record, of the classes of the data set"
TWICE, MATES = "the same records get the same answers", "the answer about a record does not depend on those asked with it"
INPUTS = "it is given records as in its training"
OUTPUT, RIGHT, ORDER = "its output is what it is said to be", "it is right more often than guessing", "its classes are in the order of the labels"
SOFT = "return lambda x: torch.tensor(logits(x)).softmax(1)"
WRONG = {
    "no model": ("pass", {}, LOADED, "broken", "returned NoneType"),
    "a model that stops": ("return lambda x: x.fly()", {}, ANSWER, "broken", "raised AttributeError on 256 records uint8"),
    "classes of another data set": ("return lambda x: logits(x)[:, :2]", {}, ANSWER, "broken", "gives 2 logits a record, the data set has 3"),
    "not finite": ("return lambda x: logits(x) * np.inf", {}, ANSWER, "broken", "300 of 300 answers are NaN or infinite"),
    "noise": ("return lambda x: logits(x) + 0.01 * next(calls)", {}, TWICE, "broken", "differ by up to .*does it draw random numbers"),
    "normalised by the batch": ("return lambda x: logits(x * 1.0 - x.mean(0) + 128)", {}, MATES, "broken", "asked about by itself; normalise by what training saw"),
    "normalised by the batch in a network": (
        "return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), network())", {}, MATES, "broken", "asked about by itself",
    ),
    "probabilities given as logits": (SOFT, {}, OUTPUT, "broken", "are probabilities already; .*set output: probabilities"),
    "logits given as probabilities": ("return logits", {"output": "probabilities"}, OUTPUT, "broken", "are they logits"),
    "labels given as logits": ("return lambda x: np.eye(3)[logits(x).argmax(1)]", {}, OUTPUT, "broken", "set output: labels"),
    "wrong scale": (
        "return nn.Sequential(nn.Hardtanh(0, 1), network())", {"inputs": "stored"}, INPUTS, "doubtful", "about (9.|100)% with inputs: scaled",
    ),
    "untrained": ("return lambda x: np.tile([1.0, 0.0, 0.5], (len(x), 1))", {}, RIGHT, "doubtful", "right about 33%.*its weights loaded"),
    "classes in another order": ("return lambda x: logits(x)[:, [1, 2, 0]]", {}, ORDER, "doubtful", "would be about (9.|100)% if its classes were renamed"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_a_model_that_breaks_a_law_is_found_out(fault):
    code, fields, law, state, expected = WRONG[fault]
    found = _checked(code, **fields)

    assert found[law].state == state, found[law]
    assert re.search(expected, found[law].why), found[law].why
    assert [other for other, finding in found.items() if finding.state == "broken" and other != law] == []


def test_a_model_of_more_classes_than_the_data_has_says_so():
    code = "return lambda x: np.pad(logits(x), ((0, 0), (0, 2)), constant_values=-9)"

    assert "if the data lacks some, set model.classes to 5" in _checked(code)[ANSWER].why
    assert _checked(code, classes=5)[RIGHT].state == "kept"


def test_probabilities_given_as_a_binary_logit_are_found_out():
    code = "return lambda x: 1 / (1 + np.exp(-logits(x)))"

    assert "set output: probabilities" in _checked(code, n_classes=2, output="binary_logit")[OUTPUT].why
    assert _checked(code, n_classes=2, output="probabilities")[OUTPUT].state == "kept"


def test_weights_that_do_not_fit_break_the_law_of_loading():
    torch.save({"other": torch.zeros(1)}, "w.pt")

    found = _checked("return network()", weights="w.pt")

    assert list(found) == ["the data set can be read", LOADED]
    assert found[LOADED].state == "broken" and "lacks 2 (1.weight, 1.bias); has unknown 1 (other)" in found[LOADED].why


def test_a_data_set_that_cannot_be_read_ends_the_check():
    Path("pictures.py").write_text("def get_dataset(): pass\n")
    Path("my_model.py").write_text("def get_model(): pass\n")
    model = GivenModel(name=f"{Path('my_model.py').resolve()}:get_model")

    found = list(laws.check(model, f"{Path('pictures.py').resolve()}:get_dataset"))

    assert [finding.state for finding in found] == ["broken"] and "it returned None" in found[0].why
