"""ResNet-18 and WideResNet-28-2: their size, a training step, and what a sample's logits depend on."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from memleak import data, params
from memleak.data import Dataset
from memleak.designs import Complements, Task
from memleak.models import ModelError, resnet, wide_resnet
from memleak.params import Recipe
from memleak.training import devices, loop
from memleak.training.loop import Trained

CPU = torch.device("cpu")
BUILD = {"resnet18": resnet.build, "wide_resnet28_2": wide_resnet.build}
PLACE = {"resnet18": "memleak.models.resnet:build", "wide_resnet28_2": "memleak.models.wide_resnet:build"}


def recipe_of(name: str, **changed) -> Recipe:
    return Recipe(**{"architecture": PLACE[name], "epochs": 1, "batch_size": 4, "learning_rate": 0.05, "flip": True, "shift": 2} | changed)


def one_step(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Take one step down the loss of the labels 0, 1, 2 ...; returns the loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(inputs), torch.arange(len(inputs)))
    loss.backward()
    optimizer.step()
    return loss


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.fixture(scope="module", params=list(BUILD))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Dataset:
    """24 images of noise, 8 x 8, of 3 classes."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom memleak.data import Samples\ndef load(source):\n"
        "    x = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8); return Samples(x, np.arange(24) % 3)\n"
    )
    from memleak.params import Dataset as Declared

    data.prepare(Declared(name=f"{folder / 'mine.py'}:load"), folder / "dataset.json")
    return data.read(folder / "dataset.json")


def task_of(images: Dataset) -> Task:
    return Task(
        model_id="m0", round=0, role="fit", arm="out", key=7, members=np.arange(8), target=None, replaced=None, test_ids=np.arange(8, 24)
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(images, name) -> Trained:
    """A network after two steps on eight images."""
    devices.prepare_torch("cpu")
    return loop.train(task_of(images), images, recipe_of(name, dropout=0.1), CPU)


@pytest.mark.parametrize(("name", "n_classes", "expected"), [
    ("resnet18", 10, 11_173_962), ("resnet18", 100, 11_220_132), ("wide_resnet28_2", 10, 1_467_610), ("wide_resnet28_2", 100, 1_479_220),
])  # fmt: skip
def test_the_networks_have_as_many_weights_as_in_the_literature(name, n_classes, expected):
    network = BUILD[name]((32, 32, 3), n_classes, recipe_of(name))

    assert sum(weight.numel() for weight in network.parameters()) == expected


def test_eight_images_train_to_the_same_bits_twice(images, name, trained):
    again = loop.train(task_of(images), images, recipe_of(name, dropout=0.1), CPU)

    assert again.facts["loss_curve"] == trained.facts["loss_curve"]
    assert again.weights.keys() == trained.weights.keys()
    assert all(torch.equal(again.weights[key], trained.weights[key]) for key in again.weights)


def test_a_samples_logits_do_not_depend_on_its_batch_mates(images, name, trained):
    """With running statistics, as in evaluation mode; those of the batch would let one sample speak of another."""
    recipe = recipe_of(name)
    network = loop.models.build(recipe, images.shape, images.n_classes, 0, CPU)
    network.load_state_dict(trained.weights)

    alone = loop.predict(network, images, np.array([3]), None, recipe, CPU, rows=8)
    among = loop.predict(network, images, np.arange(8), None, recipe, CPU, rows=8)
    others = loop.predict(network, images, np.array([3, *range(12, 19)]), None, recipe, CPU, rows=8)

    assert torch.equal(alone[0], among[3])
    assert torch.equal(alone[0], others[0])


@pytest.mark.parametrize("kind", ["none", "batch", "group"])
def test_every_weight_learns(name, kind):
    """Blocks begin as their shortcuts: after a few steps no weight may be left without a gradient."""
    torch.manual_seed(0)
    network = BUILD[name]((16, 16, 3), 4, recipe_of(name, normalisation=kind)).train()
    inputs = torch.randn(4, 3, 16, 16)
    first, *_, last = [one_step(network, inputs) for _ in range(8)]

    assert [key for key, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []
    assert torch.isfinite(last) and last < first


@pytest.mark.parametrize("kind", ["none", "batch", "group"])
def test_blocks_begin_as_their_shortcuts(name, kind):
    network = BUILD[name]((16, 16, 3), 4, recipe_of(name, normalisation=kind)).eval()
    block = next(module for module in network if type(module).__name__ == "Block" and _keeps_shape(module))
    inputs = torch.rand(2, block.first.in_channels, 16, 16)

    assert torch.equal(block(inputs), inputs)


def _keeps_shape(block: torch.nn.Module) -> bool:
    return block.first.in_channels == block.first.out_channels


def test_the_forward_pass_keeps_channels_last(name):
    """Convolutions of a CPU and of a GPU's tensor cores are faster so; nothing on the way may undo it."""
    network = BUILD[name]((16, 16, 3), 4, recipe_of(name)).to(memory_format=torch.channels_last).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: seen.append(output.is_contiguous(memory_format=torch.channels_last)))
    network(torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last))

    assert len(seen) == {"resnet18": 20, "wide_resnet28_2": 28}[name]
    assert all(seen)


def test_the_recipe_decides_on_normalisation_and_dropout(name):
    from memleak.models.layers import CounterDropout

    def kinds(**changed) -> set[type]:
        return {type(module) for module in BUILD[name]((16, 16, 3), 4, recipe_of(name, **changed)).modules()}

    network = BUILD[name]((16, 16, 3), 4, recipe_of(name, dropout=0.25))
    dropouts = [module for module in network.modules() if isinstance(module, CounterDropout)]

    assert torch.nn.BatchNorm2d in kinds() and torch.nn.GroupNorm not in kinds()
    assert torch.nn.GroupNorm in kinds(normalisation="group") and torch.nn.BatchNorm2d not in kinds(normalisation="group")
    assert not {torch.nn.GroupNorm, torch.nn.BatchNorm2d} & kinds(normalisation="none")
    assert {module.probability for module in dropouts} == {0.25}
    assert len({module.layer for module in dropouts}) == len(dropouts) == {"resnet18": 1, "wide_resnet28_2": 12}[name]


@pytest.mark.parametrize(
    ("shape", "message"), [((446,), r"expected images \(H, W, C\); use `architecture: mlp`"), ((3, 3, 1), "images of 3 x 3 are too small")]
)
def test_what_is_no_image_of_some_size_is_refused(name, shape, message):
    with pytest.raises(ModelError, match=rf"{name}: .*{message}"):
        BUILD[name](shape, 10, recipe_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("example", ["resnet18", "wide-resnet"])
def test_the_recipe_of_an_example_takes_an_epoch_over_real_images(example, test_data, project, tmp_path):
    """96 images of CIFAR-10, and one epoch of what is meant for a GPU and 100 epochs."""
    few = pq.read_table(test_data / "cifar10/train.parquet").slice(0, 96)
    pq.write_table(few, tmp_path / "train.parquet")
    data.prepare(params.Dataset(name="cifar10", source=str(tmp_path), n=96), tmp_path / "dataset.json")
    planned = params.load(project / f"examples/cifar10-halves/{example}/params.yaml")
    recipe = next(iter(planned.recipes.values())).model_copy(update={"epochs": 1, "batch_size": 16})
    task = Complements(0, 0, 1, pool=64).tasks(data.read(tmp_path / "dataset.json"))[0]

    trained = loop.train(task, data.read(tmp_path / "dataset.json"), recipe, CPU)

    assert np.isfinite(trained.facts["train_loss"]) and len(trained.facts["loss_curve"]) == 1
