"""The user's own model, trained elsewhere and asked as it is: whatever its form, stored records in, its raw output out.

The forms, by what `model.name` returns: a network of torch (with `model.weights`: safetensors or a state dict), an
estimator of scikit-learn, or any function of arrays as stored. Weights alone are TorchScript or ONNX.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memleak import plugins
from memleak.models import ModelError, weights
from memleak.models.answers import Answerer, Given, Records, called, prepared, type_of
from memleak.params import Recipe, recipe_of
from memleak.params.designs import GivenModel

__all__ = ["Given", "Records", "arguments_of", "built_by", "load", "prepared"]

METHODS = {  # of an estimator, by what it gives
    "logits": "decision_function", "binary_logit": "decision_function", "probabilities": "predict_proba", "labels": "predict",
}  # fmt: skip
_ONNX_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64,
}  # fmt: skip
_UNTRAINED = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0}  # what a recipe must say, and no network is shaped by


def load(model: GivenModel, records: Records, device: torch.device | str = "cpu") -> Given:
    """The model that the user names, ready to be asked about records of a data set. Raises ModelError for what cannot be used."""
    device = torch.device(device)
    if model.name is None:
        return _of_file(model, records, device)
    built = built_by(plugins.function_of("models", model.name), model.name, records.shape, records.n_classes)
    if isinstance(built, torch.nn.Module):
        if model.weights is not None:
            weights.fit(built, weights.read(Path(model.weights)), Path(model.weights))
        return _of_network(built, model, records, device, f"network ({type(built).__name__})")
    if model.weights is not None:
        raise ModelError(
            f"{called(model)}: weights {model.weights} are given, but the function returned {type(built).__name__}, no torch.nn.Module; "
            "have it load its own, and leave weights out"
        )
    if hasattr(built, "get_params") and hasattr(built, "predict"):
        return Given(model, records, device, f"estimator ({type(built).__name__})", None, _estimator(built, model, records), model.batch_size, False)
    if callable(built):
        return Given(model, records, device, "function of arrays", None, built, model.batch_size, False)
    raise ModelError(
        f"{called(model)}: returned {type(built).__name__}; it must return a torch.nn.Module, an estimator of scikit-learn, or a function that takes "
        f"records as stored and returns {model.output}" + ("; is `return` missing?" if built is None else "")
    )


def built_by(function: Callable[..., Any], name: str, shape: tuple[int, ...], n_classes: int, recipe: Recipe | None = None) -> Any:
    """What a function that makes a model returns, called as it wants to be: `()`, `(shape, n_classes)`, or `(shape, n_classes, recipe)`.

    Weights that it draws are drawn from one seed, and leave torch's generator as it was.
    """
    arguments = arguments_of(function, name, shape, n_classes, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return function(*arguments)


def arguments_of(function: Callable[..., Any], name: str, shape: tuple[int, ...], n_classes: int, recipe: Recipe | None = None) -> tuple[Any, ...]:
    """The arguments that a function insists on; shape and classes too where its first parameter is called shape."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions that are not written in Python do not tell what they take
        return (shape, n_classes)
    known = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    n_required = sum(p.default is p.empty for p in known)
    insists = n_required + sum(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in signature.parameters.values())
    wants_shape = len(known) > 1 and known[0].name == "shape"
    if insists == 0 and not wants_shape:
        return ()
    if insists == n_required and (n_required == 2 or (n_required < 2 and wants_shape)):
        return (shape, n_classes) if recipe is None or len(known) < 3 else (shape, n_classes, recipe)
    if insists == n_required == 3:
        return (shape, n_classes, recipe or recipe_of({"architecture": name, **_UNTRAINED}))
    call = f"{name.rpartition(':')[2]}{signature}"
    hint = "; if it is itself the function of arrays, return it from get_model" if insists == 1 else ""
    raise ModelError(f"model {name}: {call} cannot be called as get_model() or get_model(shape, n_classes); change what it takes{hint}")


def _of_network(network: torch.nn.Module, model: GivenModel, records: Records, device: torch.device, form: str) -> Given:
    network = network.to(device).eval()
    dtype = type_of(network)

    def ask(batch: np.ndarray) -> Any:
        return network(prepared(batch, model, records, device).to(dtype))

    prepared(np.zeros((1, *records.shape), records.dtype), model, records)  # a wrong mean is told before the first question
    return Given(model, records, device, form, network, ask, model.batch_size, True)


# -- estimators of scikit-learn -----------------------------------------------------------------------------------


def _estimator(built: Any, model: GivenModel, records: Records) -> Answerer:
    """A fitted estimator, asked about flattened records as stored, its columns put in the order of the classes."""
    method = METHODS[model.output]
    if not hasattr(built, method):
        has = [kind for kind, other in METHODS.items() if hasattr(built, other)]
        raise ModelError(f"{called(model)}: {type(built).__name__} has no {method}, which output: {model.output} asks; it has {', '.join(has)}")
    known = np.asarray(getattr(built, "classes_", np.arange(records.n_classes)))
    n_classes = records.n_classes
    if known.ndim != 1 or known.dtype.kind not in "iu" or not np.isin(known, np.arange(n_classes)).all():
        raise ModelError(
            f"{called(model)}: its classes are {', '.join(map(str, known.ravel()[:5]))} ..., the data set has 0 to {n_classes - 1}; "
            "fit it with these labels, or return a function that translates"
        )

    def ask(batch: np.ndarray) -> np.ndarray:
        found = np.asarray(getattr(built, method)(batch.reshape(len(batch), math.prod(records.shape))))
        if model.output == "probabilities" and found.ndim == 2 and found.shape[1] == len(known) < n_classes:
            whole = np.zeros((len(found), n_classes), found.dtype)  # a class that it has never seen has no probability
            whole[:, known] = found
            return whole
        return found

    return ask


# -- models without code ------------------------------------------------------------------------------------------


def _of_file(model: GivenModel, records: Records, device: torch.device) -> Given:
    """TorchScript or ONNX: a file that is a whole model."""
    path = Path(str(model.weights))
    kind = weights.kind_of(path)
    if kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch discourages it, and reads it
            try:
                network = torch.jit.load(str(path), map_location=device)
            except (RuntimeError, ValueError) as error:
                raise ModelError(f"{path}: cannot be loaded as TorchScript ({str(error).strip().partition(chr(10))[0][:200]})") from None
        return _of_network(network, model, records, device, "TorchScript")
    if kind == "onnx":
        return _of_onnx(path, model, records, device)
    raise ModelError(f"{path}: these are weights without a network ({kind}); name the function that makes it, as in name: my_model.py:get_model")


def _of_onnx(path: Path, model: GivenModel, records: Records, device: torch.device) -> Given:
    session = _session(path, device)
    asked = session.get_inputs()
    if len(asked) != 1 or asked[0].type not in _ONNX_TYPES:
        found = ", ".join(f"{one.name} {one.type}" for one in asked)
        raise ModelError(f"{path}: takes {found}; expected one input of numbers; export a model of one, or name a function of arrays")
    dtype, fixed = _ONNX_TYPES[asked[0].type], asked[0].shape[0] if asked[0].shape else None
    output = _output_of(session, path, model.output)
    prepared(np.zeros((1, *records.shape), records.dtype), model, records)

    def ask(batch: np.ndarray) -> np.ndarray:
        rows = batch[np.arange(fixed) % len(batch)] if isinstance(fixed, int) else batch
        return session.run([output], {asked[0].name: prepared(rows, model, records).numpy().astype(dtype)})[0][: len(batch)]

    return Given(model, records, device, "ONNX", None, ask, fixed if isinstance(fixed, int) else model.batch_size, True)


def _session(path: Path, device: torch.device) -> Any:
    """The model in onnxruntime, on one thread."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModelError(f"{path}: an ONNX model, and onnxruntime is not installed; pip install 'memleak[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    wanted = [*(["CUDAExecutionProvider"] if device.type == "cuda" else []), "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[name for name in wanted if name in onnxruntime.get_available_providers()])
    except Exception as error:  # of classes that are private to it
        raise ModelError(f"{path}: cannot be loaded as ONNX ({str(error).strip().partition(chr(10))[0][:200]})") from None


def _output_of(session: Any, path: Path, kind: str) -> str:
    """The output that is asked for: classifiers of scikit-learn export labels first, and probabilities after them."""
    found = session.get_outputs()
    is_label = kind == "labels"
    fitting = [one.name for one in found if one.type.startswith("tensor(") and (one.type in ("tensor(int64)", "tensor(int32)")) == is_label]
    if not fitting and len(found) == 1 and found[0].type.startswith("tensor("):
        return found[0].name
    if not fitting:
        given = ", ".join(f"{one.name} {one.type}" for one in found)
        raise ModelError(f"{path}: gives {given}, and output: {kind} asks an array of it; export with zipmap=False, or set output")
    return fitting[0]
