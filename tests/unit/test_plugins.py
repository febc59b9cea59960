"""A name is a function, and a wrong name is answered with a near one."""

from __future__ import annotations

import pytest

from memleak import plugins
from memleak.plugins import UnknownPlugin


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in plugins.BUILT_IN.items() for name in names])
def test_every_built_in_name_is_a_function(room, name):
    assert callable(plugins.function_of(room, name))


def test_a_function_in_a_file_and_in_a_module(tmp_path):
    (tmp_path / "mine.py").write_text("def load(source): return 'mine'\n")

    assert plugins.function_of("datasets", f"{tmp_path / 'mine.py'}:load")(None) == "mine"
    assert plugins.function_of("datasets", "memleak.data.digits:load").__module__ == "memleak.data.digits"


def test_wrong_names_are_answered(tmp_path):
    (tmp_path / "mine.py").write_text("def load(source): return 'mine'\n")
    for name, expected in (
        ("digitz", "did you mean 'digits'"),
        ("something", "known: adult, cifar10, cifar100, digits, location30, purchase100, python_topics, python_topics_rest, texas100, text"),
        ("nowhere.py:load", "there is no file nowhere.py"),
        (f"{tmp_path / 'mine.py'}:lod", "has no function 'lod' .did you mean 'load'"),
        ("no_such_module:load", "module no_such_module cannot be imported"),
    ):
        with pytest.raises(UnknownPlugin, match=expected):
            plugins.function_of("datasets", name)
