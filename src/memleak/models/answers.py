"""A given model that is there to be asked: how records become what it takes, and which of its outputs are answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from memleak import provenance
from memleak.data import Dataset, Samples, moments
from memleak.models import ModelError
from memleak.params import plugin_code
from memleak.params.designs import GivenModel

QUIET_SECONDS = 3  # a bar is shown where answers take longer
Answerer = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Records:
    """What a model must know of the data that it is asked about."""

    shape: tuple[int, ...]  # of one record: (H, W, C) or (F,)
    dtype: np.dtype  # as stored: uint8 or float32
    n_classes: int
    mean: np.ndarray  # [C] or [F], of the records as stored
    std: np.ndarray  # [C] or [F]

    @classmethod
    def of(cls, data: Dataset | Samples) -> Records:
        """Those of a prepared data set, or of samples that are not prepared."""
        if isinstance(data, Dataset):
            mean, std = (np.asarray(data.facts[key], dtype=np.float64) for key in ("mean", "std"))
            return cls(data.shape, data.inputs.dtype, data.n_classes, mean, std)
        n_classes = max(int(data.labels.max()) + 1, len(data.class_names))
        return cls(data.inputs.shape[1:], data.inputs.dtype, n_classes, *moments(data.inputs))


@dataclass(frozen=True)
class Given:
    """A model that is there to be asked."""

    model: GivenModel
    records: Records
    device: torch.device
    form: str  # what it is, in words
    network: torch.nn.Module | None  # in evaluation mode; None where the model is a black box
    ask: Answerer  # records as stored, one batch -> the raw output
    rows: int  # of a batch
    is_padded: bool  # whether every batch has so many rows

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the answers depend on: `weights`, the SHA-256 of the file, and `code`, that of the function's file. A key is left out without it."""
        found = {} if self.model.weights is None else {"weights": provenance.file_sha256(self.model.weights)}
        return found | ({} if self.model.name is None else plugin_code("models", self.model.name))

    @property
    def sha256(self) -> str:
        """One digest of weights and code."""
        return provenance.digest(self.digests, length=64)

    @property
    def where(self) -> str:
        """What the user calls it."""
        return called(self.model)

    def describe(self) -> dict[str, Any]:
        """What stands in the results about the model."""
        asked = {"name": self.model.name, "weights": self.model.weights, "output": self.model.output, "inputs": self.model.inputs}
        n_weights = {} if self.network is None else {"n_weights": sum(parameter.numel() for parameter in self.network.parameters())}
        found = {"form": self.form, **asked, **n_weights, "sha256": self.sha256, "digests": self.digests, "device": str(self.device)}
        return found | {"versions": provenance.versions() | _version_of("onnxruntime" if self.form == "ONNX" else None)}

    def prepare(self, inputs: np.ndarray) -> torch.Tensor:
        """What a network is given for records [n, ...] in the scale of the stored ones: [n, C, H, W] or [n, F], of its own type, on the device."""
        found = prepared(inputs, self.model, self.records, self.device)
        return found if self.network is None else found.to(type_of(self.network))

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """The raw output about records as stored, [n, C] or [n] as `model.output` says. Raises ModelError for what is no answer.

        Networks are asked in batches of equal size (the last one padded, where there is more than one): the kernels that a
        library chooses depend on it, and with them the last bits.
        """
        if not len(inputs):
            raise ModelError(f"{self.where}: no record to ask about")
        if self.network is not None:
            self.network.eval()  # whoever used it in between
        starts = tqdm(range(0, len(inputs), self.rows), desc=self.where, unit="batch", leave=False, delay=QUIET_SECONDS, disable=None)
        found = [self._one_batch(inputs[start : start + self.rows], len(inputs) > self.rows) for start in starts]
        output = np.concatenate(found)
        is_bad = ~np.isfinite(output).reshape(len(output), -1).all(axis=1)
        if is_bad.any():
            raise ModelError(
                f"{self.where}: {int(is_bad.sum())} of {len(output)} answers are NaN or infinite, the first about record {int(is_bad.argmax())} "
                f"of those asked; is the model asked in the scale that it was trained on (model.inputs: {self.model.inputs})?"
            )
        return output

    def _one_batch(self, batch: np.ndarray, is_one_of_several: bool) -> np.ndarray:
        n, batch = len(batch), np.array(batch)  # a copy: a function of the user's may write to it
        if self.is_padded and is_one_of_several and n < self.rows:
            batch = batch[np.arange(self.rows) % n]
        try:
            with torch.no_grad():
                raw = self.ask(batch)
        except ModelError:
            raise
        except Exception as error:  # it is the user's code: whatever goes wrong in it is told with what it was given
            given = self.prepare(batch[:1]) if self.network is not None else batch
            raise ModelError(
                f"{self.where}: raised {type(error).__name__} on {n} records {_dtype(given)} of shape {tuple(given.shape[1:])}: "
                f"{str(error).strip().partition(chr(10))[0][:300]}"
            ) from error
        return self._checked(raw, len(batch))[:n]

    def _checked(self, raw: Any, n_asked: int) -> np.ndarray:
        """An output of the form that was declared."""
        output = _array(raw)
        kind, n_classes = self.model.output, self.records.n_classes
        if output.dtype.kind not in "fiub":
            raise ModelError(f"{self.where}: answered with {_of_what(raw, output)}, expected an array of numbers")
        if output.ndim not in (1, 2) or len(output) != n_asked:
            raise ModelError(
                f"{self.where}: answered with shape {output.shape} about {n_asked} records, expected {_expected(kind, n_asked, n_classes)}"
            )
        n_columns = output.shape[1] if output.ndim == 2 else 1
        allowed = {"logits": {n_classes}, "probabilities": {n_classes} | ({1} if n_classes == 2 else set())}.get(kind, {1})
        if n_columns not in allowed | ({n_classes} if kind == "labels" else set()):
            raise ModelError(f"{self.where}: {_wrong_width(kind, n_columns, n_classes)}")
        return output


def called(model: GivenModel) -> str:
    return f"model {model.name or model.weights}"


def _dtype(given: Any) -> str:
    return str(given.dtype).removeprefix("torch.")


def _of_what(raw: Any, output: np.ndarray) -> str:
    return f"{type(raw).__name__} of {output.dtype}" if output.dtype != object else type(raw).__name__


def _expected(kind: str, n: int, n_classes: int) -> str:
    return f"({n}, {n_classes})" if kind in ("logits", "probabilities") else f"({n},)"


def _wrong_width(kind: str, n_columns: int, n_classes: int) -> str:
    """What an output of the wrong number of columns may be."""
    if kind in ("binary_logit", "labels"):
        return f"gives {n_columns} numbers a record, and output: {kind} is one; is it output: logits, or probabilities?"
    if n_columns == 1:
        hint = "binary_logit" if n_classes == 2 else "labels"
        return f"gives one number a record, {n_classes} {kind} are expected; is it output: {hint}?"
    said = f"gives {n_columns} {kind} a record, the data set has {n_classes} classes"
    return f"{said}; if the data lacks some, set model.classes to {n_columns}" if n_columns > n_classes else said


def _array(raw: Any) -> np.ndarray:
    """An output as an array: of a network that returns several things the logits, or the first."""
    for name in ("logits", "out"):  # as models of Hugging Face and torchvision call it
        if isinstance(raw, Mapping) and name in raw:
            raw = raw[name]
        elif not isinstance(raw, (torch.Tensor, np.ndarray)) and hasattr(raw, name):
            raw = getattr(raw, name)
    if isinstance(raw, tuple) and raw and hasattr(raw[0], "shape") and len(raw[0].shape):
        raw = raw[0]
    if isinstance(raw, torch.Tensor):
        raw = raw.detach().cpu()
        raw = raw.float() if raw.dtype == torch.bfloat16 else raw  # which NumPy does not know
    try:
        return np.asarray(raw)
    except ValueError:  # rows of several lengths
        return np.array(raw, dtype=object)


def prepared(inputs: np.ndarray, model: GivenModel, records: Records, device: torch.device | str = "cpu") -> torch.Tensor:
    """Records in the scale of the stored ones as a network takes them, float32.

    `scaled` divides images that are stored as uint8 by 255; `normalised` is what our own training does. The steps are
    those of torchvision's ToTensor and Normalize, in their order, so that the bits are the same.
    """
    given = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)).to(device)
    is_images = len(records.shape) == 3
    if is_images:
        given = given.permute(0, 3, 1, 2).contiguous()
    if model.inputs == "normalised":
        mean, std = (_by_channel(values, is_images, device) for values in (records.mean, records.std))
        return (given - mean.float()) * (1 / std).float() if is_images else (given - mean.float()) / std.float()
    if model.inputs == "scaled" and is_images and records.dtype == np.uint8:
        given = given.div(255)
    if model.mean:
        n = records.shape[-1]
        if len(model.mean) not in (1, n):
            what = "channels" if is_images else "columns"
            raise ModelError(f"{called(model)}: mean and std have {len(model.mean)} values, the data has {n} {what}; give as many, or one")
        mean, std = (_by_channel(values, is_images, device).float() for values in (model.mean, model.std))
        given = given.sub(mean).div(std)
    return given


def _by_channel(values: Sequence[float] | np.ndarray, is_images: bool, device: torch.device | str) -> torch.Tensor:
    found = torch.as_tensor(np.asarray(values, dtype=np.float64), device=device)
    return found[:, None, None] if is_images else found


def type_of(network: torch.nn.Module) -> torch.dtype:
    """In what precision a network computes: that of its weights."""
    return next((parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()), torch.float32)


def _version_of(package: str | None) -> dict[str, str]:
    return {} if package is None else {package: metadata.version(package)}
