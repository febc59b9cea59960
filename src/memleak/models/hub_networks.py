"""Networks of checkpoint folders, every weight in its place: whole ones, and bases with an adapter of peft merged into them."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import warnings as python_warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memleak.models import ModelError, hub_files, hub_kinds
from memleak.models.hub_files import some

_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, AssertionError, EOFError, pickle.UnpicklingError)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers prints tables and bars while it loads; what matters of them is told by us."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def whole(name: str, folder: Path, task: str, how: dict[str, Any], warnings: list[str]) -> tuple[Any, list[Path]]:
    """The network of a folder with every weight in its place, and the files that hold them."""
    config, architecture = hub_kinds.config_of(name, folder, how["trust_remote_code"])
    if architecture is None:
        if task not in hub_kinds.AUTO or config.model_type not in hub_kinds.names(task):
            raise ModelError(
                f"checkpoint {name}: config.json names no architectures, so nothing says which head it has; add it there, or pass task= ({', '.join(hub_kinds.TASKS)})"
            )
        architecture = hub_kinds.names(task)[config.model_type]
    found = hub_kinds.task_of(config, architecture, name)
    hub_kinds.refuse_other_task(found, task, architecture, name)
    files = hub_files.weight_files(folder)
    kind = hub_kinds.class_of(config, architecture, found, how["trust_remote_code"])
    try:
        network, report = kind.from_pretrained(folder, config=config, output_loading_info=True, local_files_only=True, **how)
    except pickle.UnpicklingError:
        raise ModelError(
            f"checkpoint {name}: {some([file.name for file in files])} is a pickle of more than weights, and opening it may run code; "
            "where it was made, save it with save_pretrained, as safetensors"
        ) from None
    except _BROKEN as error:
        raise ModelError(_unfit(name, folder, error)) from None
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"checkpoint {name}: its weights lack {len(absent)} that {architecture} needs ({some(absent)}), which would be drawn at random; "
            "correct architectures in config.json, or save the fine-tuned model again"
        )
    if extra := sorted(report["unexpected_keys"]):
        warnings.append(f"{len(extra)} weights of the checkpoint are not used by {type(network).__name__} ({some(extra)})")
    return network, files


def _unfit(name: str, folder: Path, error: Exception) -> str:
    if "mismatch" in str(error):
        return f"checkpoint {name}: its weights have other shapes than config.json says; do both files belong to the same model?"
    return (
        f"checkpoint {name}: transformers cannot load it ({type(error).__name__}: {hub_files.first_line(error)}); check {folder / hub_files.CONFIG}"
    )


def adapted(
    name: str, folder: Path, task: str, local_files_only: bool | None, how: dict[str, Any], warnings: list[str]
) -> tuple[Any, list[Path], Path]:
    """A base with an adapter of peft merged into it, the files of both, and the folder of the base."""
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"checkpoint {name}: is an adapter, and peft is not installed; pip install 'memleak[adapters]'")
    facts = hub_files.facts_of(folder, hub_files.ADAPTER_CONFIG)
    base = facts.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"checkpoint {name}: its {hub_files.ADAPTER_CONFIG} names no base; write base_model_name_or_path there")
    files = hub_files.weight_files(folder, hub_files.ADAPTER_STEMS)
    try:
        base_folder = hub_files.folder_of(base, facts.get("revision"), local_files_only, how["trust_remote_code"])
        network, base_files = whole(base, base_folder, task, how, warnings)
    except ModelError as error:
        raise ModelError(
            f"checkpoint {name}: is an adapter of '{base}', which cannot be loaded: {error}. Another base is named by base_model_name_or_path in "
            f"{folder / hub_files.ADAPTER_CONFIG}"
        ) from None
    parts = [part for part, _ in network.named_modules()]
    if unknown := [saved for saved in facts.get("modules_to_save") or [] if not any(part.endswith(saved) for part in parts)]:
        raise ModelError(
            f"checkpoint {name}: adds {some(unknown)} to {type(network).__name__}, which has no such part; merge the adapter where it was trained "
            "(merge_and_unload, save_pretrained), and give that folder"
        )
    return _joined(name, folder, network).merge_and_unload().requires_grad_(True), [*files, *base_files], base_folder


def _joined(name: str, folder: Path, network: Any) -> Any:
    """A network with the additions of an adapter, all of which must be there."""
    import peft

    try:
        joined = peft.PeftModel.from_pretrained(network, str(folder), is_trainable=False)
        expected, stored = (set(found) for found in (peft.get_peft_model_state_dict(joined), peft.load_peft_weights(str(folder), device="cpu")))
    except pickle.UnpicklingError:
        raise ModelError(f"checkpoint {name}: its adapter is a pickle of more than weights, and opening it may run code; save it again") from None
    except _BROKEN as error:
        raise ModelError(f"checkpoint {name}: does not fit its base ({type(error).__name__}: {hub_files.first_line(error)})") from None
    if joined.active_peft_config.is_prompt_learning:
        kind = joined.active_peft_config.peft_type
        raise ModelError(f"checkpoint {name}: {kind} learns a prompt, which is not supported; give low-rank additions or a whole model")
    if expected - stored:
        absent = sorted(expected - stored)
        raise ModelError(f"checkpoint {name}: lacks {len(absent)} weights of its adapter ({some(absent)}); save it again")
    return joined
