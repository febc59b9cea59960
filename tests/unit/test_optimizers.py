"""What a step does with gradients, against hand calculations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from memleak.models import stacked
from memleak.params import Recipe
from memleak.training import optimizers

CPU = torch.device("cpu")


def _recipe(**fields) -> Recipe:
    return Recipe(**{"architecture": "mlp", "hidden": (4,), "epochs": 1, "batch_size": 2, "learning_rate": 0.4} | fields)


def _networks(n: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)) for _ in range(n)]


def _with_gradients(networks: list[nn.Module], lengths: list[float]) -> list[nn.Module]:
    """Each model's gradient as a whole has the length asked for."""
    for network, length in zip(networks, lengths, strict=True):
        drawn = [torch.randn_like(weight) for weight in network.parameters()]
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in drawn))
        for weight, gradient in zip(network.parameters(), drawn, strict=True):
            weight.grad = gradient * length / norm
    return networks


def _norm(network: nn.Module) -> float:
    return math.sqrt(sum(float(weight.grad.square().sum()) for weight in network.parameters()))


# -- the learning rate -------------------------------------------------------------------------------------------


def test_the_learning_rate_of_each_step_is_the_hand_calculation():
    rates = [optimizers.learning_rate_at(_recipe(schedule="cosine", warmup=0.2), step, 10) for step in range(10)]

    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[2:] == pytest.approx([0.2 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])


def test_one_cycle_rises_over_three_tenths_where_nothing_else_is_asked_for():
    rates = [optimizers.learning_rate_at(_recipe(schedule="one_cycle"), step, 10) for step in range(10)]
    shorter = [optimizers.learning_rate_at(_recipe(schedule="one_cycle", warmup=0.1), step, 10) for step in range(10)]

    assert rates[:3] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert shorter == [optimizers.learning_rate_at(_recipe(schedule="cosine", warmup=0.1), step, 10) for step in range(10)]


def test_a_constant_rate_may_be_warmed_up_and_then_stays():
    assert [optimizers.learning_rate_at(_recipe(warmup=0.5), step, 4) for step in range(4)] == pytest.approx([0.2, 0.4, 0.4, 0.4])
    assert optimizers.learning_rate_at(_recipe(schedule="cosine"), 0, 1) == 0.4  # a training of one step has a rate


def test_setting_the_rate_reaches_the_optimiser():
    (network,) = _networks(1)
    for kind in ("sgd", "adamw"):
        optimizer = optimizers.build(_recipe(optimizer=kind), network, CPU)
        optimizers.set_learning_rate(optimizer, 0.125)
        assert [group["lr"] for group in optimizer.param_groups] == [0.125]


# -- the optimiser -----------------------------------------------------------------------------------------------


def test_sgd_is_nesterovs_and_decays_all_weights():
    """One weight of 1 with gradient 0.5 and decay 0.1: g = 0.6, v = 0.6, step 0.6 + 0.9 * 0.6; then again with v = 0.9 v + g."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    holder = nn.Module()
    holder.weight = weight
    optimizer = optimizers.build(_recipe(learning_rate=0.1, weight_decay=0.1), holder, CPU)
    expected, speed = 1.0, 0.0
    for _ in range(3):
        weight.grad = torch.tensor([0.5], dtype=torch.float64)
        optimizer.step()
        gradient = 0.5 + 0.1 * expected
        speed = 0.9 * speed + gradient
        expected -= 0.1 * (gradient + 0.9 * speed)
        assert float(weight.detach()) == pytest.approx(expected, abs=1e-14)


def test_adamw_decays_apart_from_the_gradient():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    holder = nn.Module()
    holder.weight = weight
    optimizer = optimizers.build(_recipe(optimizer="adamw", learning_rate=0.1, weight_decay=0.5), holder, CPU)
    weight.grad = torch.tensor([3.0], dtype=torch.float64)

    optimizer.step()

    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5 - 0.1, abs=1e-8)  # the first step is the rate, whatever the gradient


def test_what_is_frozen_is_not_trained():
    (network,) = _networks(1)
    network[0].weight.requires_grad_(False)

    assert len(optimizers.build(_recipe(), network, CPU).param_groups[0]["params"]) == 5
    together = stacked.stack([network, network])
    assert len(optimizers.build(_recipe(), together, CPU).param_groups[0]["params"]) == 5
    assert not together[0].weight.requires_grad


# -- clipping ----------------------------------------------------------------------------------------------------


def test_each_models_gradient_is_shortened_by_its_own_norm():
    networks = _with_gradients(_networks(3), [10.0, 0.5, 2.0])
    together = stacked.stack(networks)
    for name, weight in together.named_parameters():
        weight.grad = torch.stack([network.get_parameter(name).grad for network in networks]).reshape(weight.shape)

    optimizers.clip(together, 3, 1.0)
    for network in networks:
        optimizers.clip(network, 1, 1.0)

    assert [_norm(network) for network in networks] == pytest.approx([1.0, 0.5, 1.0], rel=1e-5)
    for name, weight in together.named_parameters():
        expected = torch.stack([network.get_parameter(name).grad for network in networks]).reshape(weight.shape)
        assert torch.allclose(weight.grad, expected, rtol=1e-6, atol=0)


def test_a_gradient_that_is_no_number_is_clipped_in_its_own_model_alone():
    networks = _with_gradients(_networks(2), [10.0, 10.0])
    networks[1][3].bias.grad.fill_(math.nan)
    together = stacked.stack(networks)
    for name, weight in together.named_parameters():
        weight.grad = torch.stack([network.get_parameter(name).grad for network in networks]).reshape(weight.shape)

    optimizers.clip(together, 2, 1.0)

    halves = {name: weight.grad.reshape(2, -1) for name, weight in together.named_parameters()}
    assert all(bool(half[0].isfinite().all()) and bool(half[1].isnan().all()) for half in halves.values())
    assert math.sqrt(sum(float(half[0].square().sum()) for half in halves.values())) == pytest.approx(1.0, rel=1e-5)


# -- the average -------------------------------------------------------------------------------------------------


def test_the_average_is_the_hand_calculation():
    """The decay of step t is (1 + t) / (10 + t) until the recipe's is reached: 0.1, 2/11, 0.25, 0.25."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        network.weight.fill_(8.0)
        average = optimizers.Average(network, 0.25)
        expected = 8.0
        for step, (weight, decay) in enumerate(zip((4.0, 2.0, 1.0, 0.5), (0.1, 2 / 11, 0.25, 0.25), strict=True)):
            network.weight.fill_(weight)
            average.update(step)
            expected = decay * expected + (1 - decay) * weight
    average.put_in_place()

    assert float(network.weight) == pytest.approx(expected, abs=1e-14)


def test_statistics_are_averaged_and_counters_are_not():
    (network,) = _networks(1)
    average = optimizers.Average(network, 0.9)
    network.train()(torch.randn(4, 1, 4, 4) + 5)
    seen = network[1].running_mean.clone()
    average.update(0)
    average.put_in_place()

    assert torch.allclose(network[1].running_mean, 0.9 * seen)  # a tenth of it is the zeros it began with
    assert int(network[1].num_batches_tracked) == 1


# -- what a checkpoint holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimiser_goes_on_from_its_state_with_the_same_bits(kind):
    recipe = _recipe(optimizer=kind, weight_decay=0.01, learning_rate=0.01)
    networks = _networks(2)
    networks[1].load_state_dict(networks[0].state_dict())
    through, stopped = (optimizers.build(recipe, network, CPU) for network in networks)
    gradients = [[torch.randn_like(weight) for weight in networks[0].parameters()] for _ in range(4)]

    def take(network: nn.Module, optimizer: torch.optim.Optimizer, steps: list[list[torch.Tensor]]) -> None:
        for step in steps:
            for weight, gradient in zip(network.parameters(), step, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()

    take(networks[0], through, gradients)
    take(networks[1], stopped, gradients[:2])
    state = {name: tensor.clone() for name, tensor in optimizers.state_of(stopped).items()}
    again = optimizers.build(recipe, networks[1], CPU)
    optimizers.restore(again, state)
    take(networks[1], again, gradients[2:])

    assert state
    assert all(torch.equal(a, b) for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True))
