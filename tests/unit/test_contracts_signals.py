"""The laws of a signal that takes queries of its own: ours keep them, and one that breaks a law is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memleak import cli
from memleak.contracts import signals as laws

GOOD = """
import itertools
import numpy as np
from memleak import randomness
from memleak.params import Frozen

calls = itertools.count()

class Options(Frozen):
    queries: int = 2

def depth(asked, options):
    said = [asked.answer(asked.inputs) for _ in range(2)][0]
    own = np.take_along_axis(said, asked.label[:, None], axis=1)[:, 0]
    value = own - said.mean(axis=1)
    return value
"""
BESIDE = "a record's value does not depend on those beside it"
PLACE = "the order of the records changes nothing"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _checked(change: str = "pass", shape: tuple[int, ...] = (4, 4, 1)) -> list:
    path = Path("my_signal.py").resolve()
    path.write_text(GOOD.replace("    return value", f"    {change}\n    return value"))
    return list(laws.check(f"{path}:depth", {}, shape, 3))


@pytest.mark.parametrize("shape", [(4, 4, 1), (12,)])
def test_a_good_signal_keeps_every_law(shape):
    assert [finding.state for finding in _checked(shape=shape)] == ["kept"] * 9


@pytest.mark.parametrize("name", ["noise_robustness", "gradient_norm"])
def test_our_signals_break_no_law(name):
    found = {finding.law: finding.state for finding in laws.check(name, {"queries": 20} if name == "noise_robustness" else {}, (4, 4, 1), 3)}

    assert set(found.values()) <= {"kept", "doubtful"}
    assert [law for law, state in found.items() if state == "doubtful"] == (["it needs no more than answers"] if name == "gradient_norm" else [])


WRONG = {
    "one number too few": ("value = value[1:]", "it gives one finite number for each record", "broken", r"it gave shape \(79,\), expected \(80,\)"),
    "not finite": ("value = value * np.nan", "it gives one finite number for each record", "broken", "80 of 80 values are NaN or infinite"),
    "fresh noise": ("value = value + next(calls)", "the same records have the same values", "broken", "draw from memleak.randomness by sample_id"),
    "noise by place": ("value = value + np.arange(len(value))", PLACE, "broken", "not by place"),
    "ranks": ("value = value.argsort().argsort() / len(value)", BESIDE, "broken", "once they are measured by themselves"),
    "more queries": ("asked.answer(asked.inputs)", "its queries are bounded", "broken", "3 queries a record were made, queries says 2 at most"),
    "its input": ("asked.label[:] = 0", "what it is given stays as it was", "broken", "copy them first"),
    "the weights": (
        "asked.network and next(asked.network.parameters()).data.add_(1e-9)",
        "what it is given stays as it was",
        "broken",
        "weights of the network",
    ),
    "the network": ("asked.network.eval()", "it needs no more than answers", "doubtful", "cannot be measured through a release"),
    "the other sign": ("value = -value", "higher means more likely a member", "doubtful", "the AUC is 0.*turn the sign"),
    "nothing of members": ("value = asked.sample_id * 1.0", "it tells members of an overfitted network", "doubtful", "knows its members by heart"),
}


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_a_signal_that_breaks_a_law_is_found_out(fault):
    change, law, state, expected = WRONG[fault]
    found = {finding.law: finding for finding in _checked(change)}

    assert found[law].state == state, found
    assert re.search(expected, found[law].why), found[law].why
    also = {"noise by place": {BESIDE}, "the network": set()}.get(fault, set())
    assert {finding.law for finding in found.values() if finding.state == "broken"} - {law} <= also


def test_queries_that_nothing_bounds_are_doubtful():
    path = Path("endless.py").resolve()
    path.write_text(GOOD.replace("    queries: int = 2", "    pass"))
    found = {finding.law: finding for finding in laws.check(f"{path}:depth", {}, (4, 4, 1), 3)}

    assert found["its queries are bounded"].state == "doubtful" and "2 queries a record were made" in found["its queries are bounded"].why


def test_the_command_line_checks_a_signal(capsys):
    Path("my_signal.py").write_text(GOOD)

    assert cli.main(["check", "signals", "my_signal.py:depth", "--shape", "6", "--classes", "3"]) == 0
    assert "my_signal.py:depth breaks no law" in capsys.readouterr().out
