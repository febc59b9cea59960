"""The files of a checkpoint: found in a folder, the hub's cache or on the hub, and looked at before transformers opens them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from memleak import provenance
from memleak.models import ModelError, weights
from memleak.params.texts import looks_local

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
STEMS = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
ADAPTER_STEMS = ("adapter_model.safetensors", "adapter_model.bin")
READ_FROM_HUB = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
N_NAMED = 5
_PROBE_SECONDS = 2.0
_LFS = b"version https://git-lfs"  # how a file begins that git left out


def folder_of(name: str, revision: str | None = None, local_files_only: bool | None = None, with_code: bool = False) -> Path:
    """The folder of a checkpoint, downloaded where it is on the hub. Without network: from the hub's cache, or ModelError at once."""
    if looks_local(name):
        folder = Path(name).expanduser()
        if not folder.exists():
            raise ModelError(
                f"checkpoint {name}: there is no such folder (looked for {folder.absolute()}); give the folder that holds its config.json"
            )
        if not folder.is_dir():
            raise ModelError(f"checkpoint {name}: is a file; give the folder that holds it, its config.json and the tokenizer")
        return folder
    is_asked = local_files_only is None and _is_hub_reachable()
    return _downloaded(name, revision, with_code) if is_asked or local_files_only is False else _cached(name, revision, bool(local_files_only))


def _is_hub_reachable() -> bool:
    """Whether the hub answers at all: asked once, for its own client would try for 23 seconds."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except Exception:  # of classes private to its client; whatever it is, there is no answer
        return False
    return True


def _cached(name: str, revision: str | None, is_asked_for: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        why = "local_files_only is set" if is_asked_for else "the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
        at = "" if revision is None else f" at revision {revision}"
        raise ModelError(
            f"checkpoint {name}: there is no folder of this name (looked for {Path(name).absolute()}), the hub's cache does not hold it{at}, and {why}; "
            f"give the path of a folder, or run 'hf download {name}' where there is a network"
        ) from None


def _downloaded(name: str, revision: str | None, with_code: bool) -> Path:
    """Weights as safetensors; pickles only where there are none. Nothing of folders inside, which hold other forms of the same."""
    from huggingface_hub import snapshot_download

    patterns = [*READ_FROM_HUB, *(["*.py"] if with_code else [])]
    ignored = ["*/*", "consolidated*"]  # the latter: Mistral's second copy
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*patterns, "*.safetensors"], ignore_patterns=ignored))
        if not list(folder.glob("*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=["*.bin"], ignore_patterns=[*ignored, "training_args.bin"])
    except Exception as error:  # of classes private to its client
        raise ModelError(
            f"checkpoint {name}: cannot be had from the hub ({type(error).__name__}: {first_line(error)}); "
            "check the name and the revision, and log in with 'hf auth login' if it is private or gated"
        ) from None
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds additions to another checkpoint (peft) rather than a whole one."""
    return (folder / ADAPTER_CONFIG).is_file() and not any((folder / part).is_file() for stem in STEMS for part in (stem, f"{stem}.index.json"))


def facts_of(folder: Path, file: str = CONFIG) -> dict[str, Any]:
    """What config.json says. Raises ModelError where it is absent or damaged."""
    path = folder / file
    if not path.is_file():
        inside = sorted(other.parent.name for other in folder.glob(f"*/{CONFIG}"))
        hint = f"one lies in {', '.join(inside[:N_NAMED])}: did you mean {folder / inside[0]}?" if inside else "save it with save_pretrained"
        raise ModelError(f"checkpoint {folder}: has no {file}; {hint}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: is not JSON ({first_line(error)}); copy it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds {type(found).__name__}, expected an object with model_type and architectures; copy it again")
    return found


def weight_files(folder: Path, stems: Sequence[str] = STEMS) -> list[Path]:
    """The files of weights that transformers will read, sorted and whole. Raises ModelError for missing or damaged ones."""
    for stem in stems:
        files = [folder / stem] if (folder / stem).is_file() else _shards(folder / f"{stem}.index.json")
        if files:
            for file in files:
                _refuse_damaged(file)
            return files
    there = ", ".join(sorted(file.name for file in folder.iterdir() if file.is_file())[: 2 * N_NAMED]) or "nothing"
    raise ModelError(
        f"checkpoint {folder}: has no weights ({' or '.join(stems)}; found {there}); is the download complete, was it saved with save_pretrained?"
    )


def _shards(index: Path) -> list[Path]:
    if not index.is_file():
        return []
    weight_map = facts_of(index.parent, index.name).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        raise ModelError(
            f"checkpoint {index.parent}: {len(missing)} of {len(names)} files of weights that {index.name} names are missing ({some(missing)}); "
            "complete the download"
        )
    return [index.parent / name for name in names]


def _refuse_damaged(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ModelError(f"{path}: is git's note about a large file, not the file; run 'git lfs pull' where it was cloned")
    if path.suffix != ".safetensors":
        weights.kind_of(path)  # tells one that is cut short
        return
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cut short or not safetensors ({first_line(error)}); download it again") from None


def sha256_of(files: Sequence[Path]) -> str:
    """One SHA-256 of the content of several files, whatever their folder is called."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(provenance.file_sha256(file).encode())
    return whole.hexdigest()


def first_line(error: Exception) -> str:
    """Of an error of somebody else's, what fits into a sentence."""
    return str(error).strip().partition("\n")[0][:200]


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:N_NAMED]) + (", ..." if len(names) > N_NAMED else "")
