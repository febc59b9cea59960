"""Layers of several networks as one: each answers and learns as it does alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from memleak import models
from memleak.models import layers as shared
from memleak.models import stacked
from memleak.models.stacked import NotStackable
from memleak.params import Recipe

CPU = torch.device("cpu")
RECIPES = {
    "mlp": Recipe(architecture="mlp", hidden=(12,), dropout=0.3, epochs=1, batch_size=4, learning_rate=0.1, precision="float64"),
    "resnet18": Recipe(architecture="resnet18", epochs=1, batch_size=4, learning_rate=0.1, precision="float64"),
    "wide_resnet28_2": Recipe(architecture="wide_resnet28_2", dropout=0.3, epochs=1, batch_size=4, learning_rate=0.1, precision="float64"),
    **{
        f"{name} {kind}": Recipe(
            architecture=name, channels=(3, 5), normalisation=kind, dropout=0.3, epochs=1, batch_size=4, learning_rate=0.1, precision="float64"
        )
        for name in ("small_cnn", "fast_cnn")
        for kind in ("batch", "group", "none")
    },
}


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _drawn(layer: nn.Module, draw: torch.Generator) -> nn.Module:
    """Weights and statistics that no two layers share."""
    with torch.no_grad():
        for tensor in (*layer.parameters(), *(buffer for buffer in layer.buffers() if buffer.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    return layer.double()


def _side_by_side(inputs: list[torch.Tensor]) -> torch.Tensor:
    """Each model's images [B, C, H, W] as [B, M * C, H, W]."""
    return torch.cat(inputs, dim=1).contiguous(memory_format=torch.channels_last)


# -- whole networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_answers_and_learns_as_its_networks_do(name, draw):
    """Logits, the gradient of every weight, and running statistics, for three networks of other weights and other samples."""
    networks = [models.build(RECIPES[name], (8, 8, 2), 5, seed, CPU) for seed in range(3)]
    for network in networks:
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=draw, dtype=torch.float64))  # some layers begin as zeros
    together = stacked.stack(networks)
    inputs = [torch.randn(6, 2, 8, 8, generator=draw, dtype=torch.float64) for _ in networks]
    labels, rows = torch.arange(6) % 5, torch.randint(1 << 32, (3, 6), generator=draw)
    stacked.set_rows(together, rows)

    logits = together(_side_by_side(inputs))
    functional.cross_entropy(logits.reshape(-1, 5), labels.repeat(3), reduction="sum").backward()

    state = together.state_dict()
    for model, network in enumerate(networks):
        network.train()
        shared.set_rows(network, rows[model])
        expected = network(inputs[model])
        functional.cross_entropy(expected, labels, reduction="sum").backward()
        assert torch.allclose(logits[model], expected, rtol=1e-9, atol=1e-9)
        for weight_name, weight in network.named_parameters():
            found = together.get_parameter(weight_name).grad.reshape(3, *weight.shape)[model]
            assert torch.allclose(found, weight.grad, rtol=1e-6, atol=1e-8 * float(weight.grad.abs().max() + 1)), weight_name
        for key, value in network.state_dict().items():
            assert torch.allclose(state[key].reshape(3, *value.shape)[model].double(), value.double(), rtol=1e-10, atol=1e-12), key


def test_stacking_copies_weights_and_leaves_the_networks_as_they_are():
    networks = [models.build(RECIPES["small_cnn batch"], (8, 8, 1), 5, seed, CPU) for seed in range(2)]
    before = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]

    together = stacked.stack(networks)
    with torch.no_grad():
        for weight in together.parameters():
            weight.zero_()

    assert together.training
    assert together.state_dict().keys() == before[0].keys()
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)


# -- batch norm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(7, 6, 7), (6, 7, 7), (7, 1, 4), (5, 5, 5), (7, 7, 7)])
@pytest.mark.parametrize("affine", [True, False])
def test_each_models_statistics_are_those_of_its_own_samples(counts, affine, draw):
    """Outputs, gradients and running statistics of unequal batches, whatever lies in the rows that pad them."""
    norms = [_drawn(nn.BatchNorm2d(4, momentum=0.3, affine=affine), draw).train() for _ in counts]
    together = stacked.BatchNorm(norms)
    n_rows = 7
    inputs = [torch.randn(n_rows, 4, 3, 2, generator=draw, dtype=torch.float64) * 2 + 1 for _ in counts]
    slopes = [torch.randn(n_rows, 4, 3, 2, generator=draw, dtype=torch.float64) for _ in counts]
    for given, slope, n in zip(inputs, slopes, counts, strict=True):
        given[n:], slope[n:] = 1e3, 0  # padding: its loss counts for nothing
    x = _side_by_side(inputs).requires_grad_()
    together.counts = None if min(counts) == n_rows else torch.tensor(counts)
    together.fewest = min(counts)

    y = together(x)
    (y * _side_by_side(slopes)).sum().backward()

    for model, (norm, n) in enumerate(zip(norms, counts, strict=True)):
        own = slice(4 * model, 4 * model + 4)
        alone = inputs[model][:n].clone().requires_grad_()
        expected = norm(alone)
        (expected * slopes[model][:n]).sum().backward()
        assert torch.allclose(y[:n, own], expected, rtol=1e-9, atol=1e-9)
        assert torch.allclose(x.grad[:n, own], alone.grad, rtol=1e-7, atol=1e-8)
        assert bool((x.grad[n:, own] == 0).all())
        assert torch.allclose(together.running_mean[own], norm.running_mean, rtol=1e-9)
        assert torch.allclose(together.running_var[own], norm.running_var, rtol=1e-7)
        if affine:
            assert torch.allclose(together.weight.grad[own], norm.weight.grad, rtol=1e-7, atol=1e-8)
            assert torch.allclose(together.bias.grad[own], norm.bias.grad, rtol=1e-9, atol=1e-9)
    assert together.num_batches_tracked.tolist() == [1] * len(counts)


def test_the_gradient_of_unequal_batches_is_that_of_finite_differences(draw):
    counts = torch.tensor([4, 3])
    x = torch.randn(4, 4, 2, 1, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = (torch.rand(4, generator=draw, dtype=torch.float64) + 0.5).requires_grad_()
    bias = torch.randn(4, generator=draw, dtype=torch.float64, requires_grad=True)
    is_counted = (torch.arange(4)[:, None] < counts).repeat_interleave(2, dim=1)[:, :, None, None]

    def function(*given: torch.Tensor) -> torch.Tensor:
        return stacked._UnevenBatchNorm.apply(*given, counts, 3, 1e-5)[0] * is_counted

    assert torch.autograd.gradcheck(function, (x, weight, bias))


def test_a_batch_norm_without_statistics_of_its_own_is_refused():
    for layer in (nn.BatchNorm2d(2, momentum=None), nn.BatchNorm2d(2, track_running_stats=False)):
        with pytest.raises(NotStackable, match="no momentum, or tracks no running statistics"):
            stacked.stack([layer, layer])


def test_one_value_a_channel_is_refused_as_it_is_alone():
    """torch refuses it for one model; in a stack with longer batches its variance would be 0 / 0, and known after the training."""
    together = stacked.stack([nn.BatchNorm2d(2), nn.BatchNorm2d(2)])
    x = torch.randn(2, 4, 1, 1)

    stacked.set_counts(together, torch.tensor([1, 2]), 1)
    with pytest.raises(ValueError, match="one value a channel, which has no variance; choose another batch_size"):
        together(x)
    stacked.set_counts(together, None, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        together(x[:1])


# -- other layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"groups": 4, "padding": (1, 0)}],
)
def test_convolutions_of_any_kind_stand_side_by_side(options, draw):
    networks = [_drawn(nn.Conv2d(4, 8, 3, **options), draw) for _ in range(3)]
    inputs = [torch.randn(2, 4, 7, 7, generator=draw, dtype=torch.float64) for _ in networks]

    found = stacked.stack(networks)(_side_by_side(inputs))

    assert torch.allclose(found, torch.cat([network(x) for network, x in zip(networks, inputs, strict=True)], dim=1), atol=1e-10)


def test_a_convolution_that_reflects_is_refused():
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")

    with pytest.raises(NotStackable, match="pads with reflect, only zeros can be stacked"):
        stacked.stack([layer, layer])


@pytest.mark.parametrize("affine", [True, False])
def test_groups_are_normalised_within_a_model(affine, draw):
    networks = [_drawn(nn.GroupNorm(2, 4, affine=affine), draw) for _ in range(3)]
    inputs = [torch.randn(2, 4, 3, 3, generator=draw, dtype=torch.float64) * 10**i for i in range(3)]

    found = stacked.stack(networks)(_side_by_side(inputs))

    assert torch.allclose(found, torch.cat([network(x) for network, x in zip(networks, inputs, strict=True)], dim=1), atol=1e-9)


def test_flattening_and_means_keep_the_order_of_a_single_network(draw):
    inputs = [torch.randn(2, 3, 4, 5, generator=draw) for _ in range(2)]
    x = _side_by_side(inputs)

    assert torch.equal(stacked.Flatten(2)(x), torch.stack([given.flatten(1) for given in inputs]))
    assert torch.allclose(stacked.Mean(2)(x), torch.stack([given.mean(dim=(2, 3)) for given in inputs]))


@pytest.mark.parametrize("shape", [(6,), (3, 2, 2)])
def test_a_stacks_dropout_is_each_models_own(shape, draw):
    rows = torch.randint(1 << 32, (2, 5), generator=draw)
    singles = [shared.CounterDropout(0.4, layer=3) for _ in range(2)]
    together = stacked.stack(singles)
    stacked.set_rows(together, rows)
    x = torch.ones(2, 5, *shape)

    found = together(x if len(shape) == 1 else _side_by_side(list(x)))

    for model, single in enumerate(singles):
        shared.set_rows(single, rows[model])
        expected = single(x[model])
        assert torch.equal(found[model] if len(shape) == 1 else found[:, 3 * model : 3 * model + 3], expected)
    assert not torch.equal(singles[0](x[0]), singles[1](x[1]))


def test_counts_reach_batch_norm_wherever_it_is():
    together = stacked.stack([models.build(RECIPES["wide_resnet28_2"], (8, 8, 1), 5, seed, CPU) for seed in range(2)])
    norms = [module for module in together.modules() if isinstance(module, stacked.BatchNorm)]

    stacked.set_counts(together, torch.tensor([3, 4]), 3)
    assert len(norms) == 25  # two a block, and one before the classifier
    assert {norm.fewest for norm in norms} == {3}
    stacked.set_counts(together, None, 4)
    assert all(norm.counts is None for norm in norms)


class _Own(nn.Module):
    """A layer with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.ones(1)), nn.Linear(2, 2)


class _MyLinear(nn.Linear):
    """Not a linear layer any more, for all that is known."""


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: nn.LSTM(2, 2), "LSTM"),
        (lambda: nn.Dropout(0.5), "Dropout"),
        (lambda: nn.LayerNorm(2), "LayerNorm"),
        (lambda: nn.BatchNorm1d(2), "BatchNorm1d"),
        (lambda: nn.ConvTranspose2d(2, 2, 3), "ConvTranspose2d"),
        (lambda: nn.Softmax(dim=1), "Softmax"),
        (lambda: nn.Flatten(0), "Flatten"),
        (lambda: nn.AdaptiveAvgPool2d(1), "AdaptiveAvgPool2d"),
        (lambda: nn.Embedding(3, 2), "Embedding"),
        (lambda: nn.MultiheadAttention(2, 1), "MultiheadAttention"),
        (lambda: nn.PReLU(), "PReLU"),
        (_Own, "_Own"),
        (lambda: _MyLinear(2, 2), "_MyLinear"),
    ],
)
def test_layers_that_are_not_known_are_refused_by_name(layer, name):
    networks = [nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), layer())) for _ in range(2)]

    with pytest.raises(NotStackable, match=f"the layer {name} is not among those that can be stacked"):
        stacked.stack(networks)
