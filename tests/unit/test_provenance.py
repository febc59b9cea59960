"""Digests: of code without its comments, of a user's plug-in with what it imports."""

from __future__ import annotations

import pytest

from memleak import provenance


def test_one_value_has_one_text():
    assert provenance.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        provenance.canonical_json(float("nan"))


def test_comments_docstrings_and_layout_are_not_code():
    plain = b"def f(x):\n    return x + 1\n"
    dressed = b'"""What."""\n\n\ndef f(x):  # why\n    """How."""\n    return (x\n            + 1)\n'

    assert provenance._code_only(dressed).replace("pass\n", "").replace("    pass\n", "").split() == provenance._code_only(plain).split()
    assert provenance._code_only(plain) != provenance._code_only(plain.replace(b"1", b"2"))


def test_the_closure_holds_what_is_imported_and_the_packages_above():
    closure = provenance.import_closure("memleak.metrics.stage")

    assert {"memleak", "memleak.metrics", "memleak.metrics.roc", "memleak.attacks.fits", "memleak.artefacts"} <= set(closure)
    assert not {name for name in closure if name.startswith(("memleak.training", "memleak.models", "memleak.report", "memleak.cli"))}


def test_scores_do_not_depend_on_the_code_of_the_page():
    assert "memleak.report.page" not in provenance.import_closure("memleak.attacks.stage", "memleak.attacks.single_point")


def test_a_plugins_digest_follows_its_local_imports(tmp_path):
    (tmp_path / "mine.py").write_text("import helper\ndef load(source): return helper.x\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    first = provenance.plugin_digest(tmp_path / "mine.py")

    (tmp_path / "helper.py").write_text("x = 1  # one\n")
    assert provenance.plugin_digest(tmp_path / "mine.py") == first
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert provenance.plugin_digest(tmp_path / "mine.py") != first


def test_a_hidden_gpu_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not provenance.has_gpu()


def test_a_plugins_digest_sees_packages_beside_it(tmp_path):
    """`from pkg import a`, what `a` imports absolutely or relatively, and what the package itself does."""
    (tmp_path / "pkg").mkdir()
    files = {
        "mine.py": "from pkg import a\n",
        "pkg/__init__.py": "",
        "pkg/a.py": "from pkg.b import x\nfrom . import c\n",
        "pkg/b.py": "x = 1\n",
        "pkg/c.py": "y = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = {plugin: provenance.plugin_digest(tmp_path / plugin) for plugin in ("mine.py", "pkg/a.py")}

    for name in ("pkg/__init__.py", "pkg/a.py", "pkg/b.py", "pkg/c.py"):
        (tmp_path / name).write_text(files[name] + "z = 2\n")
        for plugin in before:
            if (name, plugin) != ("pkg/__init__.py", "pkg/a.py"):
                assert provenance.plugin_digest(tmp_path / plugin) != before[plugin], (name, plugin)
        (tmp_path / name).write_text(files[name])
