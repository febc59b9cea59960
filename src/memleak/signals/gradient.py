"""Norm of the gradient that a sample still sends to the weights: small for what was learnt already.

Nasr et al. 2019, "Comprehensive Privacy Analysis of Deep Learning", a white-box signal: it needs the network itself.
torch is imported where it is used, for the options are read while the workflow is planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memleak.params import Frozen
from memleak.signals import Asked, SignalError

if TYPE_CHECKING:
    import torch

_WEIGHTS_AT_ONCE = 2**26  # gradients held at a time, over all samples of a chunk: 256 MB in float32
_ROWS_AT_ONCE = 256


class Options(Frozen):
    """Nothing to choose: the gradient costs no queries."""


def measure(asked: Asked, options: Options) -> np.ndarray:
    """L2 norm of the gradient of the sample's loss (nats) with respect to all weights, float32 [n].

    In evaluation mode: batch normalisation uses its running statistics, so no sample changes another's gradient.
    """
    import torch

    if asked.network is None or asked.given is None:
        raise SignalError(
            "gradient_norm: the model is a black box, and gradients need the network; give its code and weights, or leave this signal out"
        )
    network = asked.network.eval()
    weights: dict[str, torch.Tensor] = {name: value for name, value in network.named_parameters() if value.is_floating_point()}
    if not weights:
        raise SignalError("gradient_norm: the network has no weights (a frozen TorchScript file keeps them as constants); give its code and weights")
    _check_logits(network, asked)
    rows = min(_ROWS_AT_ONCE, max(1, _WEIGHTS_AT_ONCE // sum(value.numel() for value in weights.values())))
    norms_of = _one_by_one if isinstance(network, torch.jit.ScriptModule) else _side_by_side  # torch.func takes no scripts
    norms = [
        norms_of(network, weights, asked.given(asked.inputs[start : start + rows]), asked.label[start : start + rows])
        for start in range(0, len(asked.label), rows)
    ]
    return np.concatenate(norms) if norms else np.zeros(0, np.float32)


def _check_logits(network: torch.nn.Module, asked: Asked) -> None:
    """The loss is taken of what the network gives: one logit a class, those that were noted, whatever constant is added to them."""
    import torch

    if not len(asked.label):
        return
    assert asked.given is not None
    with torch.no_grad():
        found = network(asked.given(asked.inputs[:1])).double().cpu()
    expected = torch.as_tensor(np.asarray(asked.logits[:1], np.float64))
    if found.shape != expected.shape:
        raise SignalError(f"gradient_norm: the network gives {tuple(found.shape)} for one sample, expected logits {tuple(expected.shape)}")
    if not torch.allclose(found.log_softmax(1).exp(), expected.log_softmax(1).exp(), atol=1e-2):
        raise SignalError("gradient_norm: the network does not give the logits that were noted; it needs a model with output: logits")


def _side_by_side(network: torch.nn.Module, weights: dict[str, torch.Tensor], inputs: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Norms of a chunk of samples, [b]."""
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn import functional

    def loss(changed: dict[str, torch.Tensor], one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(network, changed, (one[None],)), label[None])

    truth = torch.as_tensor(np.asarray(labels, np.int64), device=inputs.device)
    detached = {name: value.detach() for name, value in weights.items()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(detached, inputs, truth)
    squares = torch.stack([value.flatten(1).double().square().sum(dim=1) for value in gradients.values()])
    return squares.sum(dim=0).sqrt().float().cpu().numpy()


def _one_by_one(network: torch.nn.Module, weights: dict[str, torch.Tensor], inputs: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """The same of a TorchScript."""
    import torch
    from torch.nn import functional

    for value in weights.values():
        value.requires_grad_(True)
    norms = np.empty(len(inputs), np.float32)
    for i, one in enumerate(inputs):
        loss = functional.cross_entropy(network(one[None]), torch.tensor([int(labels[i])], device=inputs.device))
        gradients = torch.autograd.grad(loss, list(weights.values()))
        norms[i] = float(torch.stack([value.double().square().sum() for value in gradients]).sum().sqrt())
    return norms
