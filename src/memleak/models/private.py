"""Networks for differentially private training, in which no record's answer depends on another record of its batch."""

from __future__ import annotations

import contextlib
import warnings

import torch
from torch import nn

from memleak.models import ModelError


def made_private(network: nn.Module, architecture: str) -> nn.Module:
    """The network with what Opacus can replace replaced, batch norm by group norm; `batch_norm_replaced` is how many.

    The groups are those of `normalisation: group`, 8 at most. Raises ModelError for a module that cannot be in a private
    training, with its path. Activations no longer write over their input, which gradients of single records need.
    """
    from opacus.validators import ModuleValidator

    n_replaced = 0
    for path, module in list(network.named_modules()):
        if type(module) in ModuleValidator.FIXERS and not isinstance(module, nn.modules.instancenorm._InstanceNorm):
            is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            replacement = group_norm(module) if is_batch_norm else ModuleValidator.FIXERS[type(module)](module)
            network = _replace(network, path, replacement.train(module.training))
            n_replaced += is_batch_norm
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    network.batch_norm_replaced = n_replaced  # type: ignore[assignment]
    check_supported(network, architecture)
    return network


def group_norm(layer: nn.modules.batchnorm._BatchNorm) -> nn.GroupNorm:
    """The group norm for a batch norm; of a table's features no group is of one alone, which would leave nothing of it."""
    from opacus.validators import ModuleValidator

    n, is_flat = layer.num_features, isinstance(layer, nn.BatchNorm1d)
    n_groups = max(groups for groups in (8, 4, 2, 1) if n % groups == 0 and (groups == 1 or n > groups or not is_flat))
    return ModuleValidator.FIXERS[type(layer)](layer, num_groups=n_groups)


def check_supported(network: nn.Module, architecture: str) -> None:
    """Raise ModelError, naming the module, where gradients of single records cannot be had."""
    from opacus.validators import ModuleValidator

    for path, module in network.named_modules():
        where = f"{architecture}: dp: the module '{path or '(the network itself)'}' ({type(module).__name__})"
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ModelError(f"{where} mixes the records of a batch, and Opacus does not know it; use torch.nn.GroupNorm or BatchNorm2d itself")
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
            raise ModelError(f"{where} keeps statistics of the records, which are not private; give it track_running_stats=False")
        if isinstance(module, nn.RNNBase):
            raise ModelError(f"{where} gives no gradients of single records; use the layer of that name in opacus.layers, such as DPLSTM")
        if type(module) in ModuleValidator.VALIDATORS and (problems := ModuleValidator.VALIDATORS[type(module)](module)):
            raise ModelError(f"{where} cannot be in a private training: {problems[0]}")
        if any(weight.requires_grad for weight in own) and next(module.buffers(recurse=False), None) is not None:
            raise ModelError(
                f"{where} has weights and buffers, and what training writes to a buffer is not private; keep the buffer in a module of its own, "
                "or use a layer without one"
            )


def check_alone(network: nn.Module, shape: tuple[int, ...], architecture: str, tokens: torch.Tensor | None = None) -> None:
    """Raise ModelError where a record's gradient depends on the batch that it is in, so that clipping bounds nothing.

    What a user's `forward` does between known layers is seen only so: gradients of each of three records in one batch,
    by Opacus, against those of the record alone. In float64, without dropout's draws. `tokens` are three texts, for a network
    that reads them.
    """
    from opacus import GradSampleModule

    copy = _copied(network, architecture).double()
    for module in copy.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if hasattr(module, "probability"):  # CounterDropout
            module.probability = 0.0  # type: ignore[assignment]
    draw = torch.Generator().manual_seed(0)
    if tokens is None:
        one = shape if len(shape) == 1 else (shape[2], *shape[:2])
        inputs = torch.randn(3, *one, generator=draw, dtype=torch.float64).to(next(copy.parameters()).device)
        check_buffers(copy, inputs, architecture)
        inputs.requires_grad_()
    else:
        inputs = tokens
    weights = {name: weight for name, weight in copy.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(
                0.1 * torch.randn(weight.shape, generator=draw, dtype=torch.float64).to(weight)
            )  # a head that begins at 0 hides all before it
    alone = [torch.autograd.grad(copy(record[None]).square().sum(), list(weights.values()), allow_unused=True) for record in inputs]
    warnings.filterwarnings("ignore", "Full backward hook is firing when gradients are computed")  # tokens have no gradient
    try:
        hooked = GradSampleModule(copy, loss_reduction="sum")
        hooked(inputs).square().sum().backward()
    except Exception as error:  # whatever the user's code says to what Opacus does with it
        said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ModelError(
            f"{architecture}: dp: Opacus cannot take gradients of single records of this network ({said}); use layers that it knows"
        ) from None
    for i, (name, weight) in enumerate(weights.items()):
        found = getattr(weight, "grad_sample", None)
        expected = [gradients[i] for gradients in alone]
        if expected[0] is None and found is None:
            continue
        right = None if expected[0] is None else torch.stack(expected)  # type: ignore[arg-type]
        if right is None or not isinstance(found, torch.Tensor) or found.shape != right.shape:
            is_alike = False
        else:
            is_alike = float((found - right).abs().max()) <= 1e-6 * float(right.abs().max()) + 1e-12
        if not is_alike:
            path = name.rpartition(".")[0] or "(the network itself)"
            kind = type(copy.get_submodule(name.rpartition(".")[0])).__name__
            raise ModelError(
                f"{architecture}: dp: the gradient of one record in '{path}' ({kind}) depends on the others of its batch, so clipping cannot bound it; "
                "let `forward` treat every record alone, with records along the first axis"
            )


def check_buffers(network: nn.Module, inputs: torch.Tensor, architecture: str) -> None:
    """Raise ModelError where a pass over records in training writes to a buffer what depends on them: it is released with the weights, and nothing clips it."""
    written: list[dict[str, torch.Tensor]] = []
    for shown in (inputs, 1 - inputs):
        copy = _copied(network, architecture)
        with torch.no_grad():
            copy(shown)
        written.append(dict(copy.named_buffers()))
    for name, buffer in written[0].items():
        if not torch.equal(buffer, written[1][name]):
            path = name.rpartition(".")[0]
            raise ModelError(
                f"{architecture}: dp: the module '{path or '(the network itself)'}' ({type(network.get_submodule(path)).__name__}) writes what it sees of the "
                f"records to its buffer '{name.rpartition('.')[2]}' in training, which is neither clipped nor noisy; let it keep nothing of them"
            )


def _copied(network: nn.Module, architecture: str) -> nn.Module:
    import copy

    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise ModelError(f"{architecture}: dp: the network cannot be copied, to look at gradients of single records ({error})") from None


def _replace(network: nn.Module, path: str, replacement: nn.Module) -> nn.Module:
    if not path:
        return replacement
    parent, _, name = path.rpartition(".")
    with contextlib.suppress(AttributeError):  # of a module that was replaced as a whole
        setattr(network.get_submodule(parent), name, replacement)
    return network
