"""Gradients of single samples, and sums of them in which each sample has its own weight: what clipping needs.

For one network they are Opacus'. For a stack they are never written out: the norms follow from what went into each
layer and what came back to it, and the sum from a second product of the two.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from memleak.models import stacked
from memleak.models.stacked import NotStackable

_AT_ONCE = 2**28  # numbers in gradients of single samples that are kept at a time: 1 GiB


class Batch(Protocol):
    """What a step knows of its samples; `part` says which rows are meant."""

    def enter(self, part: slice) -> None:
        """These rows are what the network is asked about next."""

    def losses(self, logits: torch.Tensor, part: slice) -> torch.Tensor:
        """The loss of each sample (nats), [M, B]."""

    def factors(self, norms: torch.Tensor, part: slice) -> torch.Tensor:
        """By what each sample's gradient, of a norm [M, B], is multiplied."""


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Products that a GPU does not round to 10 bits, as it may with `precision: tf32`: what is summed must be what was clipped."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class SampleGradients(ABC):
    """What takes the gradient of every sample in a batch."""

    @abstractmethod
    def sums(self, inputs: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        """For each weight the sum over samples of factor * gradient; `inputs` are as the network takes them."""


class ByOpacus(SampleGradients):
    """Those of one network, by the hooks of Opacus' GradSampleModule.

    A batch whose gradients would fill the memory is taken in parts.
    """

    def __init__(self, network: torch.nn.Module, weights: Sequence[torch.Tensor]) -> None:
        from opacus import GradSampleModule

        warnings.filterwarnings("ignore", "Full backward hook is firing when gradients are computed")  # that images need no gradient is meant
        self.weights = weights
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(in_order)
        self.hooked = GradSampleModule(network, loss_reduction="sum")
        self.rows = max(1, _AT_ONCE // sum(weight.numel() for weight in weights))

    def sums(self, inputs: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        found = [torch.zeros_like(weight) for weight in self.weights]
        for start in range(0, len(inputs), self.rows):
            part = slice(start, start + self.rows)
            batch.enter(part)
            batch.losses(self.hooked(inputs[part]), part).sum().backward()
            samples = [self._taken(weight) for weight in self.weights]
            norms = [sample.flatten(1).norm(dim=1) for sample in samples if sample is not None]
            factor = batch.factors(torch.stack(norms).norm(dim=0)[None], part)[0]  # [B]
            with exactly():
                for total, sample in zip(found, samples, strict=True):
                    if sample is not None:
                        total += torch.tensordot(factor, sample, dims=1)
        return found

    def _taken(self, weight: Any) -> torch.Tensor | None:
        """A weight's gradients of single samples, which are then let go; None where the network made no use of it."""
        sample = weight.grad_sample
        weight.grad_sample = weight.grad = None
        return sample


def in_order(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What goes into a convolution, in torch's own order of memory: of any other Opacus (1.6) takes wrong gradients, without a word."""
    images = given[0]
    _, channels, height, width = images.shape
    is_in_order = images.stride() == (channels * height * width, height * width, width, 1)  # is_contiguous() passes over axes of length 1
    return given if is_in_order else (images.clone(memory_format=torch.contiguous_format), *given[1:])


class OfStack(SampleGradients):
    """Those of stacked networks, from what goes into each layer and what comes back.

    Goodfellow 2015, "Efficient Per-Example Gradient Computations", and Bu, Mao and Xu 2022, "Scalable and Efficient
    Training of Large Convolutional Neural Networks with Differential Privacy", for norms without gradients. Raises
    NotStackable for a network in which a layer is not known here, or is called twice.
    """

    def __init__(self, network: torch.nn.Module, n_models: int, weights: Sequence[torch.Tensor]) -> None:
        self.network, self.n_models, self.weights = network, n_models, weights
        self.seen: list[tuple[_Layer, torch.Tensor, torch.Tensor, int, int]] = []
        known: dict[type, type[_Layer]] = {stacked.Linear: _Linear, stacked.Convolution: _Convolution, stacked.GroupNorm: _GroupNorm}
        covered: set[int] = set()
        for module in network.modules():
            own = list(module.parameters(recurse=False))
            if own and type(module) not in known:
                raise NotStackable(f"gradients of single samples are not known for {type(module).__name__} in a stack")
            if own:
                covered |= {id(weight) for weight in own}
                module.register_forward_hook(self._note(known[type(module)](module, n_models)))
        if not {id(weight) for weight in weights} <= covered:
            raise NotStackable("a weight belongs to no layer")

    def _note(self, layer: _Layer) -> Callable[..., None]:
        def noted(module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if torch.is_grad_enabled():
                self.seen.append((layer, given[0], output, given[0]._version, output._version))

        return noted

    def sums(self, inputs: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        whole = slice(None)
        self.seen.clear()
        batch.enter(whole)
        total = batch.losses(self.network(inputs), whole).sum()
        self._check()
        back = torch.autograd.grad(total, [output for _, _, output, _, _ in self.seen])
        passed = [(layer, given.detach(), gradient) for (layer, given, _, _, _), gradient in zip(self.seen, back, strict=True)]
        self.seen.clear()
        with torch.no_grad(), exactly():
            squares, summed = zip(*(layer.weigh(given, gradient) for layer, given, gradient in passed), strict=True)
            factor = batch.factors(torch.stack(squares).sum(0).sqrt(), whole)  # [M, B]
            found = {id(weight): part for function in summed for weight, part in function(factor)}
        return [found[id(weight)] if id(weight) in found else torch.zeros_like(weight) for weight in self.weights]

    def _check(self) -> None:
        layers = [layer for layer, *_ in self.seen]
        if len(set(map(id, layers))) < len(layers):
            raise NotStackable("a layer is called twice, and the norm of its gradient is not that of two")
        if any(given._version != before or output._version != after for _, given, output, before, after in self.seen):
            raise NotStackable("what goes into a layer, or comes out, is overwritten (an operation in place)")


Summed = Callable[[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]  # factors [M, B] -> each weight, and its sum of factor * gradient


class _Layer(ABC):
    """A stacked layer."""

    def __init__(self, module: Any, n_models: int) -> None:
        self.module, self.n_models = module, n_models

    @abstractmethod
    def weigh(self, given: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, Summed]:
        """The squared norm of each sample's gradient of the layer's weights, [M, B], and what sums the gradients.

        `given` is what went in, `back` the gradient of the losses' sum for what came out.
        """

    def of_models(self, squares: torch.Tensor) -> torch.Tensor:
        """Squares of channels or groups [B, ...], model after model, as those of models, [M, B]."""
        return squares.view(len(squares), self.n_models, -1).sum(2).T


class _Linear(_Layer):
    """[M, B, in] to [M, B, out]."""

    def weigh(self, given: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, Summed]:
        weight, bias = self.module.weight, self.module.bias
        size = given.square().sum(2)  # the gradient is a product of two vectors

        def summed(factor: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            scaled = back * factor[:, :, None]
            found = [(weight, torch.bmm(scaled.mT, given))]
            return found if bias is None else [*found, (bias, scaled.sum(1))]

        return back.square().sum(2) * (size if bias is None else size + 1), summed


class _Convolution(_Layer):
    """[B, M * C, H, W] to [B, M * C', H', W']."""

    def __init__(self, module: Any, n_models: int) -> None:
        super().__init__(module, n_models)
        if isinstance(module.how["padding"], str):
            raise NotStackable(f"a convolution's padding is '{module.how['padding']}'; give it in pixels")

    def weigh(self, given: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, Summed]:
        how, weight, bias, n_groups, n = self.module.how, self.module.weight, self.module.bias, self.module.groups, len(given)
        patches = functional.unfold(given, weight.shape[2:], how["dilation"], how["padding"], how["stride"])
        patches = patches.view(n * n_groups, -1, patches.shape[2])  # [B * groups, in * height * width, L]
        passed = back.reshape(n * n_groups, -1, patches.shape[2])  # [B * groups, out, L]
        n_in, n_out, n_places = patches.shape[1], passed.shape[1], patches.shape[2]
        is_long = n_places * (n_in + n_out) < n_in * n_out  # gradients of single samples take more than products over places
        gradients = None if is_long else torch.bmm(passed, patches.mT)  # [B * groups, out, in * height * width]
        products = torch.bmm(patches.mT, patches) * torch.bmm(passed.mT, passed) if gradients is None else gradients.square()
        biases = None if bias is None else back.sum((2, 3))  # [B, M * C']

        def summed(factor: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            if gradients is None:
                scaled = back * self._each(factor, back.shape[1])[:, :, None, None]
                found = [(weight, conv2d_weight(given, weight.shape, scaled, groups=n_groups, **how))]
            else:
                total = (gradients.view(n, n_groups, -1) * self._each(factor, n_groups)[:, :, None]).sum(0)
                found = [(weight, total.view(weight.shape))]
            return found if biases is None else [*found, (bias, (biases * self._each(factor, biases.shape[1])).sum(0))]

        squares = self.of_models(products.sum((1, 2)).view(n, -1))
        return squares if biases is None else squares + self.of_models(biases.square()), summed

    def _each(self, factor: torch.Tensor, n: int) -> torch.Tensor:
        """Factors [M, B] for n channels or groups of all models, [B, n]."""
        return factor.T.repeat_interleave(n // self.n_models, dim=1)


class _GroupNorm(_Layer):
    """[B, M * C, H, W], each group of channels alone."""

    def weigh(self, given: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, Summed]:
        normalised = functional.group_norm(given, self.module.n_groups, None, None, self.module.eps)
        weights, biases = (normalised * back).sum((2, 3)), back.sum((2, 3))  # gradients of each sample, [B, M * C]

        def summed(factor: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            each = factor.T.repeat_interleave(weights.shape[1] // self.n_models, dim=1)
            return [(self.module.weight, (weights * each).sum(0)), (self.module.bias, (biases * each).sum(0))]

        return self.of_models(weights.square() + biases.square()), summed
