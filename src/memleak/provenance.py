"""Where a result comes from: canonical text, digests of declarations and of code, versions, devices."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_DEVICES = Path("/dev")


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no blanks. Refuses what JSON cannot hold exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, length: int = 8) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_of(module: str) -> Path | None:
    """The file of one of our own modules, or None."""
    base = _PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports_of(module: str) -> set[str]:
    """Our own modules that a module imports anywhere in its text, and the packages above it."""
    found = {module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)}
    for node in ast.walk(ast.parse(_source_of(module).read_bytes())):  # type: ignore[union-attr]
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "memleak" and _source_of(name)}


def import_closure(*modules: str) -> list[str]:
    """The modules of memleak that the named ones reach by import, themselves included, sorted."""
    reached, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(_imports_of(module))
    return sorted(reached)


def _code_only(source: bytes) -> str:
    """The code of a source file without comments, layout and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                body[0] = ast.Pass()
    return ast.unparse(tree)


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of the code of the named modules and of all of memleak that they import.

    Snakemake does not see code behind `python -m memleak`; light rules carry this digest as a parameter.
    Comments, docstrings and layout do not count. Files beside a module that it reads (templates) do.
    """
    hasher = hashlib.sha256()
    for module in import_closure(*modules):
        source = _source_of(module)
        assert source is not None
        hasher.update(f"{module}\0{_code_only(source.read_bytes())}\0".encode())
        for ending in ("html", "css", "typ"):
            for template in sorted(source.parent.glob(f"*.{ending}")):
                hasher.update(template.read_bytes())
    return "code:" + hasher.hexdigest()[:12]


def plugin_digest(path: str | os.PathLike[str]) -> str:
    """Digest of a user's plug-in file: its code and that of the local modules and packages that it imports."""
    hasher, waiting, seen = hashlib.sha256(), [Path(path).resolve()], set()
    beside = waiting[0].parent
    roots = list(dict.fromkeys([beside, next(folder for folder in waiting[0].parents if not (folder / "__init__.py").is_file())]))
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        hasher.update(_code_only(file.read_bytes()).encode())
        for node in ast.walk(ast.parse(file.read_bytes())):
            waiting.extend(_local_files(node, file, roots))
    return hasher.hexdigest()[:8]


def _local_files(node: ast.AST, file: Path, roots: list[Path]) -> list[Path]:
    """The files that an import statement of a file reads, where they lie under a root; those of packages on the way included."""
    if isinstance(node, ast.Import):
        folders, names = roots, sorted(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        folders = [file.parents[node.level - 1]] if node.level else roots
        module = [node.module] if node.module else []
        names = module + [".".join([*module, alias.name]) for alias in node.names]
    else:
        return []
    found = []
    for folder in folders:
        for parts in (name.split(".") for name in names):
            packages = [folder.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
            found += [candidate for candidate in (*packages, folder.joinpath(*parts[:-1], f"{parts[-1]}.py")) if candidate.is_file()]
    return found


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    packages = ("memleak", "torch", "numpy", "scipy", "scikit-learn", "snakemake")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that are there to be used, each as CUDA_VISIBLE_DEVICES names it, found without importing torch.

    Where that is unset, all that the driver shows, by number. As CUDA reads it, the list ends at the first entry that names none.
    """
    n_there = len(list(_DEVICES.glob("nvidia[0-9]*")))
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_there))))
    found: list[str] = []
    for entry in map(str.strip, named.split(",")):
        is_known = (entry.isdecimal() and int(entry) < n_there) or entry.startswith(("GPU-", "MIG-"))
        if not n_there or not is_known:
            break
        found.append(entry)
    return list(dict.fromkeys(found))


def n_gpus() -> int:
    """How many GPUs are there to be used: as many jobs as may be on GPUs at once."""
    return len(visible_gpus())


def has_gpu() -> bool:
    """Whether a GPU is there to be used."""
    return n_gpus() > 0
