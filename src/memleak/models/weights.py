"""Files of weights that the user brings: told apart by their content, read without running code, fitted to a network.

A pickle of a whole model runs whatever code it holds when it is opened, so it is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from memleak.models import ModelError

Kind = Literal["safetensors", "state dict", "torchscript", "onnx"]
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")  # keys under which checkpoints hold a state dict
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, and modules that hold the network
N_NAMED = 5
_OLD_PICKLE, _ZIP, _ONNX = b"\x80\x02", b"PK\x03\x04", b"\x08"  # the last: field 1 (the version) of a message, as ONNX files begin
_NOT_COUNTED = "num_batches_tracked"  # counts training steps, and older files lack it


def kind_of(path: Path) -> Kind:
    """What a file of weights is, whatever it is called."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if head[8:] == b"{":
        return "safetensors"
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if head.startswith(_OLD_PICKLE):
        return "state dict"
    if head.startswith(_ONNX):
        return "onnx"
    raise ModelError(f"{path}: not safetensors, a state dict of torch, TorchScript or ONNX; save torch.save(model.state_dict(), ...), or export it")


def _kind_of_zip(path: Path) -> Kind:
    try:
        names = {name.rpartition("/")[2] for name in zipfile.ZipFile(path).namelist()}
    except zipfile.BadZipFile:
        raise ModelError(f"{path}: cut short (the end of the file is missing); copy it again") from None
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "state dict"
    raise ModelError(f"{path}: an archive, but no state dict and no TorchScript (does it come from torch.export?); save model.state_dict()")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a file by name, on the CPU."""
    kind = kind_of(path)
    if kind == "safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: cut short or not safetensors ({error}); copy it again") from None
    if kind != "state dict":
        said = "TorchScript" if kind == "torchscript" else "ONNX"
        raise ModelError(f"{path}: {said} is a whole model, not weights for one; leave model.name out, or save model.state_dict()")
    try:
        return _unwrapped(torch.load(path, map_location="cpu", weights_only=True), path)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not", str(error))
        what = f"holds {found[1]} beside tensors" if found else "is a pickle of more than tensors"
        raise ModelError(
            f"{path}: {what}, and opening such a file may run code; where the model was trained, save torch.save(model.state_dict(), ...) "
            "or safetensors, or export it as TorchScript or ONNX"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path}: cut short or not a state dict ({str(error).partition(chr(10))[0][:120]}); copy it again") from None


def _unwrapped(found: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint that may hold it beside other things."""
    while isinstance(found, Mapping) and not _is_state_dict(found):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            raise ModelError(
                f"{path}: a dict with the keys {', '.join(map(str, list(found)[:N_NAMED])) or 'none'}, none of which holds a state dict "
                f"(looked for {', '.join(WRAPPERS)}); save torch.save(model.state_dict(), ...)"
            )
        found = inner
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds {type(found).__name__}, expected the dict that model.state_dict() gives")
    return dict(found)


def _is_state_dict(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(value, torch.Tensor) for value in found.values())


def fit(network: torch.nn.Module, found: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a network. Every weight must be there, be known, and have its shape; else ModelError says which do not."""
    expected = network.state_dict()
    weights = _without_prefix(found, expected)
    missing = [name for name in expected if name not in weights and not name.endswith(_NOT_COUNTED)]
    unexpected = [name for name in weights if name not in expected]
    shared = [name for name in expected if name in weights]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in shared
        if weights[name].shape != expected[name].shape
    ]
    faults = [_counted(what, names) for what, names in (("lacks", missing), ("has unknown", unexpected), ("has misshapen", misshapen)) if names]
    if faults:
        raise ModelError(
            f"{path}: does not fit {type(network).__name__}, which has {len(expected)} weights: {'; '.join(faults)}. "
            "Return the network that these weights were trained in"
        )
    bad = [name for name in shared if weights[name].is_floating_point() and not torch.isfinite(weights[name]).all()]
    if bad:
        raise ModelError(f"{path}: {_counted('NaN or infinite values in', bad)}; its training diverged, or the file is damaged")
    network.load_state_dict({name: weights[name] for name in shared}, strict=False)


def _counted(what: str, names: list[str]) -> str:
    """Such as `lacks 7 (a, b, c, d, e, ...)`."""
    return f"{what} {len(names)} ({', '.join(names[:N_NAMED])}{', ...' if len(names) > N_NAMED else ''})"


def _without_prefix(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights by the network's names, where all of them stand below a name that a wrapper gave them."""
    weights = dict(found)
    while weights and not weights.keys() & expected.keys():
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), None)
        if prefix is None:
            break
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights
