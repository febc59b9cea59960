"""Gradient norm: what a sample would still change of the weights, compared with autograd one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memleak.signals import Asked, SignalError, gradient


def asked_of(network: nn.Module | None, inputs: np.ndarray, label: np.ndarray, logits: np.ndarray | None = None) -> Asked:
    if network is None:
        return Asked(inputs, label, np.arange(len(label)), np.zeros((len(label), 3)), lambda x: x, None, None)
    is_training = network.training
    with torch.no_grad():
        answers = network.eval()(torch.from_numpy(inputs)).numpy() if logits is None else logits
    return Asked(inputs, label, np.arange(len(label)), answers, lambda x: x, network.train(is_training), torch.from_numpy)


@pytest.fixture
def network() -> nn.Module:
    """Convolution, normalisation with running statistics of its own, and a linear layer, in float64."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 25, 3)).double()
    layers(torch.randn(64, 2, 5, 5, dtype=torch.float64))  # moves the running statistics
    return layers.eval()


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.normal(size=(7, 2, 5, 5))


LABEL = np.array([0, 1, 2, 0, 1, 2, 0])


def one_by_one(network: nn.Module, inputs: np.ndarray, label: np.ndarray) -> list[float]:
    found = []
    for one, y in zip(torch.from_numpy(inputs), torch.from_numpy(label), strict=True):
        loss = nn.functional.cross_entropy(network(one[None]), y[None])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        found.append(float(torch.sqrt(sum((value**2).sum() for value in gradients))))
    return found


def test_the_norm_is_that_of_autograd_one_sample_at_a_time(network, images):
    norms = gradient.measure(asked_of(network, images, LABEL), gradient.Options())

    assert norms.dtype == np.float32
    assert norms == pytest.approx(one_by_one(network, images, LABEL), rel=1e-6)


def test_softmax_regression_by_hand():
    """The gradient is (p - y) x for the weights and p - y for the biases: its norm is |p - y| sqrt(1 + |x|^2)."""
    network = nn.Linear(2, 2).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        network.bias.zero_()
    p = 1 / (1 + np.exp(-1.0))  # of class 0, for the logits (3, 2)

    norms = gradient.measure(asked_of(network, np.array([[3.0, 2.0], [3.0, 2.0]]), np.array([0, 1])), gradient.Options())

    assert norms == pytest.approx([(1 - p) * np.sqrt(2) * np.sqrt(14), p * np.sqrt(2) * np.sqrt(14)], rel=1e-6)


def test_a_sample_has_the_same_norm_whoever_is_asked_with_it(network, images, monkeypatch):
    together = gradient.measure(asked_of(network, images, LABEL), gradient.Options())
    monkeypatch.setattr(gradient, "_ROWS_AT_ONCE", 2)

    assert gradient.measure(asked_of(network, images, LABEL), gradient.Options()) == pytest.approx(together, rel=1e-6)
    assert gradient.measure(asked_of(network, images[3:4], LABEL[3:4]), gradient.Options()) == pytest.approx(together[3:4], rel=1e-6)


def test_a_network_left_in_training_mode_is_asked_in_evaluation_mode(network, images):
    expected = gradient.measure(asked_of(network, images, LABEL), gradient.Options())
    before = network[1].running_mean.clone()

    assert np.array_equal(gradient.measure(asked_of(network.train(), images, LABEL), gradient.Options()), expected)
    assert torch.equal(network[1].running_mean, before)


def test_weights_that_were_frozen_for_use_count_as_well_and_keep_no_gradient(network, images):
    expected = gradient.measure(asked_of(network, images, LABEL), gradient.Options())
    for weights in network.parameters():
        weights.requires_grad_(False)

    assert np.array_equal(gradient.measure(asked_of(network, images, LABEL), gradient.Options()), expected)
    assert all(weights.grad is None for weights in network.parameters())


def test_nobody_asked_nothing_measured(network, images):
    assert gradient.measure(asked_of(network, images[:0], LABEL[:0]), gradient.Options()).shape == (0,)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_script_has_gradients_too(network, images):
    expected = gradient.measure(asked_of(network, images, LABEL), gradient.Options())

    script = torch.jit.trace(network, torch.from_numpy(images[:2]))

    assert gradient.measure(asked_of(script, images, LABEL), gradient.Options()) == pytest.approx(expected, rel=1e-6)


def test_a_black_box_has_no_gradient(images):
    with pytest.raises(SignalError, match=r"the model is a black box, and gradients need the network; give its code and weights"):
        gradient.measure(asked_of(None, images, LABEL), gradient.Options())


def test_a_network_without_weights_is_refused(images):
    with pytest.raises(SignalError, match=r"the network has no weights \(a frozen TorchScript file"):
        gradient.measure(asked_of(nn.Flatten(), images, LABEL), gradient.Options())


def test_one_logit_for_two_classes_is_no_loss(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(50, 1)).double()

    with pytest.raises(SignalError, match=r"the network gives \(1, 1\) for one sample, expected logits \(1, 2\)"):
        gradient.measure(asked_of(network, images, LABEL % 2, logits=np.zeros((7, 2))), gradient.Options())


def test_probabilities_are_not_taken_for_logits(network, images):
    answers = torch.softmax(network(torch.from_numpy(images)), dim=1)
    gives_probabilities = nn.Sequential(network, nn.Softmax(dim=1))

    with pytest.raises(SignalError, match="does not give the logits that were noted; it needs a model with output: logits"):
        gradient.measure(asked_of(gives_probabilities, images, LABEL, logits=answers.log().detach().numpy()), gradient.Options())
    assert (gradient.measure(asked_of(network, images, LABEL, logits=answers.log().detach().numpy()), gradient.Options()) > 0).all()
