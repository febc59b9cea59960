"""Low-rank additions to the linear layers of a network, of one model or of M at once.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models": y = base(x) + alpha / rank * x A B, where the base
stays as it is. Rows of a batch stand one model after the other, and M products with small matrices are one batched
product beside the base's single one. What is written as a checkpoint is what `peft` reads.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from memleak import artefacts, randomness
from memleak.models import ModelError
from memleak.params.texts import Lora as Options

N_NAMED = 6  # names of layers in a message


class PerModel(nn.Module):
    """A linear map for each of M models, [M * B, ..., in] to [M * B, ..., out], rows one model after the other."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, n_models: int = 1) -> None:
        super().__init__()
        self.n_models = n_models
        self.weight = nn.Parameter(weight)  # [M * in, out]
        self.bias = None if bias is None else nn.Parameter(bias)  # [M * out]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.view(self.n_models, x.shape[-1], -1)
        y = torch.bmm(x.reshape(self.n_models, -1, x.shape[-1]), weight)
        if self.bias is not None:
            y = y + self.bias.view(self.n_models, 1, -1)
        return y.view(*x.shape[:-1], -1)

    def join(self, others: Sequence[PerModel]) -> None:
        """Become the maps of several models, one below the other."""
        self.n_models = len(others)
        self.weight = nn.Parameter(torch.cat([other.weight.detach() for other in others]))
        if self.bias is not None:
            self.bias = nn.Parameter(torch.cat([other.bias.detach() for other in others if other.bias is not None]))


class Lora(nn.Module):
    """A linear layer that stays as it is, and what is added to it."""

    def __init__(self, base: nn.Module, down: PerModel, up: PerModel, scale: float) -> None:
        super().__init__()
        self.base, self.down, self.up, self.scale = base, down, up, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.scale * self.down(x))


def add(network: nn.Module, options: Options, whole: Iterable[str], seed: int) -> None:
    """Give a network additions, drawn from `seed`, to the layers that options name; nothing else of it trains but linear layers in `whole`.

    A is uniform of variance 1 / (3 in) and B is 0, as in peft, so that the network begins as its base.
    """
    network.requires_grad_(False)
    for name in whole:
        layer = network.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"lora: {name} ({type(layer).__name__}) has no trained weights yet, and only linear layers can be trained whole")
        bias = None if layer.bias is None else layer.bias.detach().clone()
        network.set_submodule(name, PerModel(layer.weight.detach().T.contiguous(), bias))
    for name in _targets(network, options):
        base: Any = network.get_submodule(name)
        n_in, n_out = _sizes(base)
        draw = torch.Generator().manual_seed(randomness.derive(seed, "lora", name))
        down = (2 * torch.rand(n_in, options.rank, generator=draw) - 1) / math.sqrt(n_in)
        up = torch.zeros(options.rank, n_out)
        network.set_submodule(name, Lora(base, PerModel(down.to(base.weight)), PerModel(up.to(base.weight)), options.alpha / options.rank))


def _targets(network: nn.Module, options: Options) -> list[str]:
    """The linear layers that are added to: those of the blocks, whose names hold a number, or those that options name."""
    known = [name for name, module in network.named_modules() if _is_linear(module)]
    if not options.targets:
        found = [name for name in known if re.search(r"\.\d+\.", name)]
    else:
        found = [name for name in known if any(f".{name}".endswith(f".{end}") for end in options.targets)]
        for end in options.targets:
            if not any(f".{name}".endswith(f".{end}") for name in found):
                ends = sorted({name.rpartition(".")[2] for name in known})[:N_NAMED]
                raise ModelError(f"lora.targets: no linear layer's name ends in '{end}'; there are {', '.join(ends)}")
    if not found:
        raise ModelError(f"lora: {type(network).__name__} has no linear layers in blocks; name some in lora.targets")
    return found


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2, whose weight is [in, out]."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def _sizes(layer: Any) -> tuple[int, int]:
    """Columns in and out."""
    first, second = layer.weight.shape
    return (first, second) if _is_transposed(layer) else (second, first)


def sharing(network: nn.Module) -> nn.Module:
    """A copy of a network that has its frozen weights in common with it."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters() if not weight.requires_grad})


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Networks of one base as one: it takes a batch of all, the rows of one model after those of the other."""
    found = sharing(networks[0])
    for name, module in found.named_modules():
        if isinstance(module, PerModel):
            module.join([network.get_submodule(name) for network in networks])  # type: ignore[misc]
    return found


def export(network: nn.Module, base: str, task: str, folder: Path) -> None:
    """Write the additions of one model as an adapter that `peft` puts on the base, named by its folder or its name on the hub."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, Lora)}
    heads = [name for name, module in network.named_modules() if isinstance(module, PerModel) and name.rpartition(".")[0] not in layers]
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = layer.down.weight.T, layer.up.weight.T
    for name in heads:
        head: Any = network.get_submodule(name)
        tensors |= {f"{name}.weight": head.weight.T} | ({} if head.bias is None else {f"{name}.bias": head.bias})
    first = next(iter(layers.values()))
    rank = first.down.weight.shape[1]
    config = {
        "peft_type": "LORA", "task_type": {"causal-lm": "CAUSAL_LM", "sequence-classification": "SEQ_CLS"}[task], "base_model_name_or_path": base,
        "r": rank, "lora_alpha": first.scale * rank, "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(layers),
        "fan_in_fan_out": _is_transposed(first.base), "modules_to_save": heads or None, "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    artefacts.make_folder(folder)
    kept = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
