"""The laws of a data set: ours keep them, and one that breaks a law is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memleak.contracts import datasets as laws

GOOD = """
import itertools
import numpy as np
from memleak.data import Samples

calls = itertools.count()
draw = np.random.default_rng(0)
X = draw.integers(0, 256, (120, 6, 6, 3)).astype(np.uint8)
Y = np.arange(120) % 3

def get_dataset():
    x, y = X.copy(), Y.copy()
    return x, y
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _checked(change: str = "pass") -> list:
    path = Path("my_data.py").resolve()
    path.write_text(GOOD.replace("    return x, y", f"    {change}\n    return x, y"))
    return list(laws.check(f"{path}:get_dataset"))


def test_a_good_data_set_keeps_every_law():
    found = _checked()

    assert [finding.state for finding in found] == ["kept"] * 10
    assert str(found[0]) == "kept     it returns records and their labels: 120 of shape (6, 6, 3), uint8"


def test_our_digits_break_no_law():
    found = {finding.law: finding.state for finding in laws.check("digits")}

    assert "broken" not in found.values()
    assert [law for law, state in found.items() if state == "doubtful"] == ["images have the range of images"]  # 0 to 16


TWICE = "a second call gives the same records in the same order"
WRONG = {
    "returns nothing": ("return None", "it returns records and their labels", "broken", "it returned None"),
    "stops": ("x.fly()", "it returns records and their labels", "broken", "AttributeError: .*my_data.py, line"),
    "fewer labels": ("y = y[:-1]", "it returns records and their labels", "broken", "120 inputs and 119 labels"),
    "labels of fractions": ("y = y / 2", "labels are whole numbers from 0", "broken", "they are float64"),
    "labels below 0": ("y = y - 1", "labels are whole numbers from 0", "broken", "they go from -1 to 1"),
    "labels from 1": ("y = y + 1", "every class has records", "doubtful", "1 of 4 have none .such as class 0.; are they counted from 1"),
    "one class": ("y[:] = 2", "there are at least two classes", "broken", "all labels are 2"),
    "a rare class": ("y[:] = np.where(np.arange(120) < 3, 1, 0)", "the largest class is at most 10 times the smallest", "doubtful", "class 0 has 117 .*class 1 3"),
    "not finite": ("x = x / 255; x[4, 0, 0, 0] = np.nan", "all values are finite", "broken", "1 of 120 records .* first is record 4"),
    "four channels": ("x = np.concatenate([x, x[..., :1]], 3)", "an audit takes it", "broken", "C = 1 or 3"),
    "shuffled": ("o = np.random.default_rng(next(calls)).permutation(120); x, y = x[o], y[o]", TWICE, "broken", "records stand elsewhere; do not shuffle"),
    "augmented": ("x = np.roll(x, next(calls), axis=2)", TWICE, "broken", "120 of 120 records have another content .*random transforms"),
    "of another size": ("n = 100 + next(calls); x, y = x[:n], y[:n]", TWICE, "broken", r"it has shape \(101, 6, 6, 3\), the first time \(100,"),
    "with copies": ("x[7] = x[8] = x[1]", "no record is there twice", "doubtful", r"2 of 120 are copies of others; .*\(1 contents have several labels\)"),
    "fractions cut": ("x = (x / 255).astype(np.uint8)", "images have the range of images", "doubtful", "uint8 from 0 to 1 of 255"),
    "fractions not scaled": ("x = x.astype(float)", "images have the range of images", "doubtful", "float32 up to 255"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG, ids=lambda fault: fault.replace(" ", "-"))
def test_a_data_set_that_breaks_a_law_is_found_out(fault):
    change, law, state, expected = WRONG[fault]
    found = {finding.law: finding for finding in _checked(change)}

    assert found[law].state == state
    assert re.search(expected, found[law].why), found[law].why
    others = [finding.law for finding in found.values() if finding.state == "broken" and finding.law != law]
    assert others == []
