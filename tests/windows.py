"""What tests of the app need: a project's folder from a walked audit, and one page of the app opened on it."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from memleak import artefacts

# each AppTest looks through all installed packages for components, of which the app uses none: once is enough
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


def project_of(walk: Any, folder: Path, digits_path: Path, **changed: Any) -> Path:
    """The folder of a walked audit `small` with its params.yaml and prepared data; `changed`: other fields of the audit."""
    for name in ("results", "logs"):
        if (walk.folder / name).is_dir():
            shutil.copytree(walk.folder / name, folder / name)
    audit, recipe = (entry.model_dump(mode="json", exclude_unset=True) for entry in (walk.planned.audit, walk.planned.recipe.recipe))
    declared = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"tiny": recipe}, "audits": {"small": audit | changed}, "models_per_shard": 9}
    (folder / "params.yaml").write_text(yaml.safe_dump(declared))
    prepared = folder / walk.planned.data_path()
    shutil.copytree(digits_path.parent, prepared.parent)
    return folder


def opened(module: str, folder: Path, patch: pytest.MonkeyPatch, **state: Any) -> AppTest:
    """One page of the app, as somebody sees it who opens a project; `state`: what was chosen before."""
    patch.setenv("MEMLEAK_PROJECT", str(folder))
    found = AppTest.from_string(f"from memleak.app import {module}\n{module}.page()\n", default_timeout=60)
    for key, value in state.items():
        found.session_state[key] = value
    return found.run()


def html_of(page: AppTest) -> str:
    """All pieces of HTML of a page."""
    return "\n".join(piece.proto.body for piece in page.get("html"))


def frames_of(page: AppTest) -> list[Any]:
    """All tables of a page."""
    return [piece.value for piece in page.dataframe]


def changed_metrics(folder: Path, **changed: Any) -> None:
    """Write other metrics of the audit `small`; None takes a field away."""
    path = folder / "results/metrics/small.json"
    metrics = artefacts.read_json(path) | changed
    artefacts.write_json(path, {key: value for key, value in metrics.items() if value is not None})
