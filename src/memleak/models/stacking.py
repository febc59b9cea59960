"""Model stacking: two networks that never saw the same record, and a small layer that decides by what both say.

Salem et al. 2019, "ML-Leaks: Model and Data Independent Membership Inference Attacks and Defenses on Machine Learning
Models". It is one network with one set of weights, so whoever asks it need not know.
"""

from __future__ import annotations

import torch
from torch import nn


class Stacked(nn.Module):
    """Logits [B, C] of the top, which is given the probabilities of both networks, [B, 2C]."""

    def __init__(self, first: nn.Module, second: nn.Module, n_classes: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.top = nn.Sequential(nn.Linear(2 * n_classes, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, n_classes))
        self.is_frozen = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(torch.cat([self.first(x).softmax(-1), self.second(x).softmax(-1)], dim=-1))

    def freeze(self) -> None:
        """Leave the two networks as they are from here on: neither weights nor statistics change, and nothing is dropped in them."""
        self.is_frozen = True
        for network in (self.first, self.second):
            network.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Stacked:
        super().train(mode)
        if self.is_frozen:
            self.first.eval()
            self.second.eval()
        return self
