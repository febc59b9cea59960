"""The audited model, whose weights `python train.py` writes beside this file; shadow models are built like it."""

from torch import nn


def get_model():
    """Three blocks of convolution for images of 32 x 32 in 0 to 1. Gives logits of 10 classes."""
    layers, before = [], 3
    for after in (32, 64, 128):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))
