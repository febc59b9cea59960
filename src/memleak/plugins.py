"""A name is a function: built-in, `file.py:function`, `module:function`, or an installed entry point."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

BUILT_IN: dict[str, dict[str, str]] = {
    "datasets": {
        "adult": "memleak.data.tabular:load_adult",
        "digits": "memleak.data.digits:load",
        "cifar10": "memleak.data.images:load_cifar10",
        "cifar100": "memleak.data.images:load_cifar100",
        "location30": "memleak.data.tabular:load_location30",
        "purchase100": "memleak.data.tabular:load_purchase100",
        "texas100": "memleak.data.tabular:load_texas100",
        "text": "memleak.data.texts:load",
        "python_topics": "memleak.data.topics:load",
        "python_topics_rest": "memleak.data.topics:load_rest",
    },
    "architectures": {
        "checkpoint": "memleak.models.language:build_checkpoint",
        "gpt2": "memleak.models.language:build_gpt2",
        "fast_cnn": "memleak.models.fast_cnn:build",
        "mlp": "memleak.models.mlp:build",
        "resnet18": "memleak.models.resnet:build",
        "wide_resnet28_2": "memleak.models.wide_resnet:build",
        "small_cnn": "memleak.models.small_cnn:build",
    },
    "attacks": {
        "base": "memleak.attacks.base:score",
        "dc_pdd": "memleak.attacks.language.dc_pdd:score",
        "difficulty": "memleak.attacks.difficulty:score",
        "ez": "memleak.attacks.language.ez:score",
        "label_only": "memleak.attacks.label_only:score",
        "lira": "memleak.attacks.lira:score",
        "lowercase": "memleak.attacks.language.lowercase:score",
        "meta": "memleak.attacks.meta:score",
        "min_k": "memleak.attacks.language.min_k:score",
        "neighbourhood": "memleak.attacks.language.neighbourhood:score",
        "population": "memleak.attacks.population:score",
        "range": "memleak.attacks.range:score",
        "recall": "memleak.attacks.language.recall:score",
        "reference": "memleak.attacks.reference:score",
        "reference_model": "memleak.attacks.language.reference_model:score",
        "rmia": "memleak.attacks.rmia:score",
        "shadow": "memleak.attacks.shadow:score",
        "single_point": "memleak.attacks.single_point:score",
        "surp": "memleak.attacks.language.surp:score",
        "threshold": "memleak.attacks.threshold:score",
        "token": "memleak.attacks.language.token:score",
        "top_k": "memleak.attacks.top_k:score",
        "wbc": "memleak.attacks.language.wbc:score",
        "zlib": "memleak.attacks.language.zlib_ratio:score",
    },
    "models": {},  # audited models of the user's
    "releases": {  # what of the output is released, step by step
        "labels": "memleak.signals.releases.labels:mask",
        "memguard": "memleak.signals.releases.memguard:mask",
        "noise": "memleak.signals.releases.noise:mask",
        "round": "memleak.signals.releases.round:mask",
        "temperature": "memleak.signals.releases.temperature:mask",
        "top_k": "memleak.signals.releases.top_k:mask",
    },
    "signals": {
        "boundary_distance": "memleak.signals.boundary:measure",
        "gradient_norm": "memleak.signals.gradient:measure",
        "noise_robustness": "memleak.signals.noise:measure",
    },
    "trainers": {},  # the user's own; ours is `training.loop`, which recipes without a trainer use
}


class UnknownPlugin(ValueError):
    """A name that is neither built in, nor installed, nor a file or module that exists."""


def nearest(word: str, known: list[str]) -> str:
    """' (did you mean X?)' for a near miss, else the known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else f"; known: {', '.join(sorted(known))}"


def installed(room: str) -> dict[str, str]:
    """Names in a room: built in, and offered by installed packages as entry points `memleak.<room>`."""
    return {**_offered(room), **BUILT_IN[room]}


@functools.cache
def _offered(room: str) -> dict[str, str]:
    """Entry points of a room; reading those of every installed package takes longer than a small model's epoch."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=f"memleak.{room}")}


def locate(room: str, name: str) -> tuple[str, str]:
    """The place (module or path of a `.py` file) and the function that a name stands for; nothing is imported."""
    place, _, function = installed(room).get(name, name).rpartition(":")
    if not place:
        raise UnknownPlugin(f"no {room.rstrip('s')} is called '{name}'{nearest(name, list(installed(room)))}")
    if place.endswith(".py") and not Path(place).is_file():
        raise UnknownPlugin(f"'{name}': there is no file {place} (looked in {Path.cwd()})")
    return place, function


def is_built_in(room: str, name: str) -> bool:
    """Whether a name stands for a function of ours."""
    return locate(room, name)[0].split(".")[0] == "memleak" and not is_file(room, name)


def is_file(room: str, name: str) -> bool:
    """Whether a name stands for a function in a file of the user's."""
    return locate(room, name)[0].endswith(".py")


def source_of(room: str, name: str) -> Path:
    """The Python file in which a plug-in's function stands; nothing is imported."""
    place, _ = locate(room, name)
    if place.endswith(".py"):
        return Path(place)
    top, *below = place.split(".")
    spec = importlib.util.find_spec(top)
    found = Path(spec.origin) if spec is not None and spec.origin else Path("built-in")
    beside = found.parent.joinpath(*below)
    for candidate in (beside.with_suffix(".py"), beside / "__init__.py") if below else (found,):
        if candidate.suffix == ".py" and candidate.is_file():
            return candidate
    raise UnknownPlugin(f"'{name}': no Python file of module {place} is found, so that a change of it could not be noticed; give file.py:function")


@functools.cache
def _module_from_file(path: Path) -> ModuleType:
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    is_new = sys.modules.setdefault(path.stem, module) is module  # dataclasses and pickle look their module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if is_new:
            del sys.modules[path.stem]
        raise
    return module


def module_of(room: str, name: str) -> ModuleType:
    """The imported module of a plug-in; its `Options`, if it has options, stands there."""
    place, _ = locate(room, name)
    if os.environ.get("MEMLEAK_RUNS_NO_CODE") and name not in installed(room):  # set by whoever looks at a project that may be anybody's
        raise UnknownPlugin(f"'{name}' is code of the project's own, which is not run here")
    if place.endswith(".py"):
        return _module_from_file(Path(place).resolve())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise UnknownPlugin(f"'{name}': module {error.name} cannot be imported") from error


def function_of(room: str, name: str) -> Callable:
    """The function that a name stands for."""
    module, (place, function) = module_of(room, name), locate(room, name)
    if not hasattr(module, function):
        public = [word for word in vars(module) if not word.startswith("_")]
        raise UnknownPlugin(f"'{name}': {place} has no function '{function}'{nearest(function, public)}")
    return getattr(module, function)
