"""The laws of a step of a release: ours keep them, and one that breaks a law is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memleak import cli, plugins
from memleak.contracts import releases as laws
from memleak.params import ParamsError
from memleak.signals import SignalError

GOOD = """
import itertools
import numpy as np
from memleak.params import Frozen

calls = itertools.count()

class Options(Frozen):
    by: float = 0.5

    @property
    def keeps_label(self):
        return True

def mask(p, options):
    q = (1 - options.by) * p + options.by / p.shape[1]
    return q
"""
FIRST = "it gives a probability of every class, which sum to 1"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _checked(change: str = "pass") -> list:
    path = Path("my_release.py").resolve()
    path.write_text(GOOD.replace("    return q", f"    {change}\n    return q"))
    return list(laws.check(f"{path}:mask", {}, 5))


def test_a_good_step_keeps_every_law():
    assert [finding.state for finding in _checked()] == ["kept"] * 8


CHOSEN = {
    "top_k": {"k": 2},
    "round": {"digits": 2},
    "labels": {},
    "temperature": {"temperature": 3},
    "noise": {"scale": 0.3},
    "memguard": {"budget": 1},
}


@pytest.mark.parametrize("name", plugins.BUILT_IN["releases"])
def test_our_steps_keep_every_law(name):
    assert [finding.state for finding in laws.check(name, CHOSEN[name], 10)] == ["kept"] * 8


def test_noise_that_may_change_the_label_is_doubtful_and_not_broken():
    found = {finding.law: finding for finding in laws.check("noise", {"scale": 0.3, "keep_label": False}, 10)}

    assert found["the label stays"].state == "doubtful" and "which costs accuracy" in found["the label stays"].why
    assert [finding.state for finding in found.values()].count("kept") == 7


WRONG = {
    "two classes": ("q = q[:, :2]", FIRST, "broken", r"gave shape \(403, 2\), expected \(403, 5\)"),
    "stops": ("q.fly()", FIRST, "broken", "AttributeError: .*my_release.py, line"),
    "a sum that is not 1": ("q = q * 1.1", FIRST, "broken", "do not sum to 1"),
    "a little below 0": ("q = q.copy(); q[0, 0] -= q[0, 0] + 1e-8; q[0, 1] += 0.2", FIRST, "broken", "1 of 2015 are below 0"),
    "fresh noise": ("q = q + 1e-4 * next(calls); q /= q.sum(1, keepdims=True)", "the same answers are released alike", "broken", "the second time"),
    "noise by place": (
        "q = q + 1e-3 * np.random.default_rng(0).random(q.shape); q /= q.sum(1, keepdims=True)", "the order of the answers changes nothing", "broken",
        "once they are in another order",
    ),
    "a mean over the batch": ("q = (q + q.mean(0)) / 2", "an answer is released alike whatever is asked beside it", "broken", "such as their mean"),
    "its input": ("p[:] = q", "what it is given stays as it was", "broken", "copy it first"),
    "another label": ("q = q[:, ::-1]", "the label stays, as it promises", "broken", "of 403 answers have another label.*do not promise"),
    "zeros": ("q = np.eye(5)[p.argmax(1)]", "what is released as 0 stands for something", "doubtful", "let `Options.least"),
    "nothing": ("q = p", "it changes something", "doubtful", "every answer is released as it was"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_a_step_that_breaks_a_law_is_found_out(fault):
    change, law, state, expected = WRONG[fault]
    found = {finding.law: finding for finding in _checked(change)}

    assert found[law].state == state
    assert re.search(expected, found[law].why), found[law].why
    also = {"a mean over the batch": 1, "noise by place": 2}.get(fault, 0)  # which the tie of two classes, or a row alone, shows too
    assert len([finding for finding in found.values() if finding.state == "broken" and finding.law != law]) <= also


def test_options_that_are_wrong_or_missing_are_said():
    with pytest.raises(ParamsError, match="top_k: k: Field required"):
        list(laws.check("top_k", {}, 5))
    Path("bare.py").write_text("def mask(p, options):\n    return p\n")
    with pytest.raises(SignalError, match=r"bare\.py:mask: beside the function its module has no `class Options"):
        list(laws.check("bare.py:mask", {}, 5))


def test_the_command_line_checks_a_step(capsys):
    Path("my_release.py").write_text(GOOD)

    assert cli.main(["check", "releases", "my_release.py:mask", "--options", '{"by": 0.2}', "--classes", "3"]) == 0
    assert "my_release.py:mask breaks no law" in capsys.readouterr().out
    assert cli.main(["check", "releases", "top_k", "--options", '{"k": 3}', "--classes", "3"]) == 1
    assert "top_k breaks 1 of 1 laws" in capsys.readouterr().err
