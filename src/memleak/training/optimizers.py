"""What a step does with gradients: the schedule, the optimiser, clipping, and the moving average of weights.

SGD and AdamW work element by element, so M stacked models need no optimiser of their own; clipping alone looks at
a model as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from memleak.params import Recipe


def learning_rate_at(recipe: Recipe, step: int, n_steps: int) -> float:
    """The learning rate of a step: a linear rise over the warm-up, then constant or a cosine down to 0."""
    warmup = recipe.warmup or (0.3 if recipe.schedule == "one_cycle" else 0.0)
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return recipe.learning_rate * (step + 1) / n_warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def build(recipe: Recipe, network: torch.nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser for a network, of one model or of several."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    # on a GPU the rate lies on the device, where recorded steps read it
    rate = torch.tensor(recipe.learning_rate, device=device) if device.type == "cuda" else recipe.learning_rate
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=recipe.weight_decay, fused=True, capturable=device.type == "cuda")
    optimizer = torch.optim.SGD(
        weights, lr=rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=recipe.weight_decay, fused=True
    )
    if recipe.momentum:  # torch would make them in the first step, and leave them unwritten where float16 has that step skipped
        for weight in weights:
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clip(network: torch.nn.Module, n_models: int, largest: float) -> None:
    """Shorten each model's gradient to the norm `largest` where it is longer."""
    if n_models == 1:
        torch.nn.utils.clip_grad_norm_(network.parameters(), largest)
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    squares = [gradient.square().reshape(n_models, -1).sum(1) for gradient in gradients]
    factor = (largest / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)  # [M]; 1e-6 as in clip_grad_norm_
    for gradient in gradients:
        per_row = factor.repeat_interleave(len(gradient) // n_models)
        gradient.mul_(per_row.view(-1, *[1] * (gradient.dim() - 1)))


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors, by the number of the weight and their name."""
    weights = optimizer.param_groups[0]["params"]
    return {
        f"{i}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for i, weight in enumerate(weights)
        for name, value in optimizer.state[weight].items()
    }


@torch.no_grad()
def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Put what `state_of` gave back, in the memory order of the weights: fused steps go by it."""
    weights = optimizer.param_groups[0]["params"]
    for key, value in state.items():
        i, _, name = key.partition(".")
        weight = weights[int(i)]
        optimizer.state[weight][name] = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


class Average:
    """The moving average of weights and statistics after each step, which the model becomes in the end.

    The decay grows from 0.1 towards the recipe's, (1 + t) / (10 + t) in step t, so that the first weights, which are
    noise, are forgotten soon.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.followed = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
        self.average = {name: tensor.detach().clone() for name, tensor in self.followed.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.followed.values()), 1 - decay)

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Make the network its average."""
        for name, tensor in self.followed.items():
            tensor.copy_(self.average[name])
