"""Several networks of one architecture as one network: their channels stand side by side.

Images are [B, M * C, H, W] in channels-last memory, model after model along the channels, so that convolutions
with groups, pooling, activations and batch norm are the library's own; flat activations are [M, B, F], and linear
layers are batched products. No layer mixes models, so the gradient of the sum of their losses is every model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from memleak import randomness
from memleak.models.layers import CounterDropout, SpatialMean


class NotStackable(ValueError):
    """A network that cannot be stacked; the text says why."""


class Convolution(nn.Module):
    """Convolutions of M networks: one with M groups (times the layer's own)."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        if first.padding_mode != "zeros":
            raise NotStackable(f"a convolution pads with {first.padding_mode}, only zeros can be stacked")
        self.weight = _joined(layers, "weight")  # [M * out, in, height, width]
        self.bias = None if first.bias is None else _joined(layers, "bias")
        self.how: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "dilation": first.dilation}
        self.groups = len(layers) * first.groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight, self.bias, groups=self.groups, **self.how)


class Linear(nn.Module):
    """Linear layers of M networks, [M, B, in] to [M, B, out]."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        shape = (len(layers), *layers[0].weight.shape)
        self.weight = _joined(layers, "weight", shape)  # [M, out, in]
        self.bias = None if layers[0].bias is None else _joined(layers, "bias", shape[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)


class GroupNorm(nn.Module):
    """Group normalisations of M networks: one with M times the groups."""

    def __init__(self, layers: Sequence[nn.GroupNorm]) -> None:
        super().__init__()
        self.n_groups, self.eps = len(layers) * layers[0].num_groups, layers[0].eps
        self.weight = None if not layers[0].affine else _joined(layers, "weight")
        self.bias = None if not layers[0].affine else _joined(layers, "bias")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, self.n_groups, self.weight, self.bias, self.eps)


class BatchNorm(nn.Module):
    """Batch norms of M networks, each with the statistics of its own samples; rows that are nobody's do not count.

    `counts` (`set_counts`) is None where all models have as many samples as the batch has rows.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, layers: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__()
        first = layers[0]
        if first.momentum is None or not first.track_running_stats:
            raise NotStackable("a batch norm has no momentum, or tracks no running statistics")
        self.n_models, self.eps, self.momentum = len(layers), first.eps, first.momentum
        for name in ("weight", "bias"):
            setattr(self, name, _joined(layers, name) if first.affine else None)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _joined(layers, name))
        self.counts: torch.Tensor | None = None  # [M], samples of each model
        self.fewest = 0  # samples that every model has

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_batches_tracked.add_(1)  # type: ignore[operator]
        if self.counts is None:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps)  # type: ignore[arg-type]
        if self.fewest * x[0, 0].numel() == 1:
            raise ValueError("a model's batch has one value a channel, which has no variance; choose another batch_size, or normalisation: group")
        weight = self.weight if self.weight is not None else torch.ones_like(self.running_mean)  # type: ignore[arg-type]
        bias = self.bias if self.bias is not None else torch.zeros_like(self.running_mean)  # type: ignore[arg-type]
        y, mean, variance = _UnevenBatchNorm.apply(x.to(weight.dtype), weight, bias, self.counts, self.fewest, self.eps)
        n = self._each(self.counts).to(variance.dtype) * x[0, 0].numel()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[operator, union-attr]
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)  # type: ignore[operator, union-attr]
        return y

    def _each(self, values: torch.Tensor) -> torch.Tensor:
        """Values of models [M] as values of channels [M * C]."""
        return values.repeat_interleave(len(self.running_mean) // self.n_models)  # type: ignore[arg-type]


class _UnevenBatchNorm(torch.autograd.Function):
    """Batch norm in training where rows from `fewest` on belong to some models only.

    Statistics of all rows are corrected by those of the few rows that count for nobody. The gradients of such rows
    are 0 at the output (the loss does not see them), and are kept 0 at the input.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, counts: torch.Tensor, fewest: int, eps: float) -> Any:
        channels = x.shape[1] // len(counts)
        n_rows, n_places = len(x), x[0, 0].numel()
        is_padding = torch.arange(fewest, n_rows, device=x.device)[:, None] >= counts  # [rows from fewest, M]
        is_padding = is_padding.repeat_interleave(channels, dim=1)[:, :, None, None]  # [rows, M * C, 1, 1]
        n = (counts * n_places).repeat_interleave(channels).to(x.dtype)  # [M * C]
        n_all = n_rows * n_places

        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        padding = x[fewest:] * is_padding
        second = ((variance + mean.square()) * n_all - padding.square().sum((0, 2, 3))) / n
        mean = (mean * n_all - padding.sum((0, 2, 3))) / n
        variance = (second - mean.square()).clamp_(min=0)
        y = functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance, n, is_padding)
        ctx.fewest, ctx.eps = fewest, eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:  # type: ignore[override]
        x, weight, mean, variance, n, is_padding = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()  # [M * C]
        given, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, mean, scale, False, ctx.eps, [True, True, True]
        )
        # beside what the affine map passes on, the mean and the variance depend on every sample of the model
        slope = weight * scale.square() * of_weight / n
        offset = weight * scale * of_bias / n - slope * mean
        given = given.addcmul_(x, -slope[:, None, None]).sub_(offset[:, None, None])
        given[ctx.fewest :] *= ~is_padding
        return given, of_weight, of_bias, None, None, None


class Dropout(nn.Module):
    """CounterDropout of M networks: every model's mask is what its sample's key says, as if it were alone."""

    def __init__(self, layers: Sequence[CounterDropout]) -> None:
        super().__init__()
        self.n_models, self.probability, self.layer = len(layers), layers[0].probability, layers[0].layer
        self.rows: torch.Tensor | None = None  # [M, B]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.probability == 0:
            return x
        assert self.rows is not None
        if x.dim() == 3:  # [M, B, F]
            rows, shape = self.rows[:, :, None], x.shape[2:]
        else:  # [B, M * C, H, W]
            rows, shape = self.rows.T[:, :, None, None, None], torch.Size((x.shape[1] // self.n_models, *x.shape[2:]))
        feature = torch.arange(shape.numel(), device=x.device).view(shape)
        keep = randomness.counter_uniform(self.layer, rows, feature) >= self.probability
        return x * keep.reshape(x.shape) / (1 - self.probability)


class Flatten(nn.Module):
    """[B, M * C, H, W] to [M, B, C * H * W]; what is flat already stays."""

    def __init__(self, n_models: int) -> None:
        super().__init__()
        self.n_models = n_models

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.dim() == 3 else x.reshape(len(x), self.n_models, -1).transpose(0, 1)


class Mean(nn.Module):
    """SpatialMean of M networks, [B, M * C, H, W] to [M, B, C]."""

    def __init__(self, n_models: int) -> None:
        super().__init__()
        self.n_models = n_models

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)).view(len(x), self.n_models, -1).transpose(0, 1)


_ELEMENTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d)  # the same for every channel


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """One network for several of one architecture, in training mode; their weights are copied.

    Layers are replaced, and what stands between them (a residual sum, an activation) is taken as it is. Raises
    NotStackable for layers that are not known here; what other code does with the axes of a tensor is not seen
    (`training.ensemble` compares with one network's own answers).
    """
    found = _stacked(networks)
    if found is not None:
        return found
    whole = copy.deepcopy(networks[0])
    if next(whole.parameters(recurse=False), None) is not None or next(whole.buffers(recurse=False), None) is not None or not list(whole.children()):
        raise NotStackable(f"the layer {type(whole).__name__} is not among those that can be stacked")
    for name, _ in whole.named_children():
        setattr(whole, name, stack([network.get_submodule(name) for network in networks]))
    return whole.train()


def _stacked(layers: Sequence[nn.Module]) -> nn.Module | None:
    """The stacked layer of a known kind; None where it is none."""
    first = layers[0]
    replacements: dict[type, Any] = {
        nn.Conv2d: Convolution, nn.Linear: Linear, nn.BatchNorm2d: BatchNorm, nn.GroupNorm: GroupNorm, CounterDropout: Dropout,
    }  # fmt: skip
    if type(first) in replacements:
        return replacements[type(first)](layers)
    if type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1):
        return Flatten(len(layers))
    if type(first) is SpatialMean:
        return Mean(len(layers))
    return copy.deepcopy(first) if type(first) in _ELEMENTWISE else None


def set_rows(network: nn.Module, rows: torch.Tensor) -> None:
    """Give dropout one key for each model's sample, [M, B]."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.rows = rows


def set_counts(network: nn.Module, counts: torch.Tensor | None, fewest: int) -> None:
    """Tell batch norm how many rows belong to each model, [M]; None where all do."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.counts, module.fewest = counts, fewest


def _joined(layers: Sequence[nn.Module], name: str, shape: tuple[int, ...] | None = None) -> Any:
    """One tensor of all layers' `name`, model after model (or of `shape`); a convolution's weights in channels-last memory."""
    parts = [getattr(layer, name) for layer in layers]
    tensors = [part.detach() for part in parts]
    if tensors[0].dim() == 0:
        return torch.stack(tensors)
    joined = torch.cat(tensors) if shape is None else torch.cat(tensors).view(shape)
    if tensors[0].dim() == 4:
        joined = joined.to(memory_format=torch.channels_last)
    return nn.Parameter(joined, requires_grad=parts[0].requires_grad) if isinstance(parts[0], nn.Parameter) else joined
