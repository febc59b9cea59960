"""Recipes: presets are nothing but the fields they stand for; new fields move no old path; fast_cnn; what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from memleak import data, models, params, plan, provenance
from memleak.data import Dataset
from memleak.models import ModelError, fast_cnn
from memleak.models.layers import CounterDropout, SpatialMean, set_rows
from memleak.params import PRESETS, ParamsError, Recipe
from memleak.training import loop, stage
from memleak.training.batches import Pick

CPU = torch.device("cpu")
FAST = {"architecture": "fast_cnn", "channels": (8, 16), "epochs": 1, "batch_size": 4, "learning_rate": 0.1}
ARCHITECTURES = ["fast_cnn", "mlp", "resnet18", "small_cnn", "wide_resnet28_2"]

# Never edit a line here: a preset whose digest moves trains anew, and without a word, all models of everybody who chose it.
DIGESTS = {
    "digits-cnn": "b65455e4", "digits-mlp": "28eff008", "cifar-cnn": "756c0706", "cifar-fast": "a9d84210", "cifar-resnet18": "88ccf88a",
    "cifar-wide-resnet": "cc4b9281", "table-mlp": "f7a1ff97",
}  # fmt: skip
EXAMPLES = {
    "digits-cnn": "params.yaml", "cifar-cnn": "examples/cifar10-halves/params.yaml", "table-mlp": "examples/adult/params.yaml",
    "cifar-resnet18": "examples/cifar10-halves/resnet18/params.yaml", "cifar-wide-resnet": "examples/cifar10-halves/wide-resnet/params.yaml",
}  # fmt: skip


def digest(recipe: Recipe) -> str:
    return provenance.digest(recipe.model_dump(mode="json", exclude_defaults=True))


def params_of(project, recipe: dict[str, Any]) -> params.Params:
    config = yaml.safe_load((project / "params.yaml").read_text())
    config["recipes"] = {"digits-cnn": recipe}
    return params.validate(config)


# ------------------------------------------------------------------------------------------------- presets


def test_a_preset_never_changes():
    assert {name: digest(Recipe(preset=name)) for name in PRESETS} == DIGESTS


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_preset_is_the_recipe_of_its_example(project, name):
    """What was measured for the example was measured for the preset."""
    (recipe,) = params.load(project / EXAMPLES[name]).recipes.values()

    assert Recipe(preset=name) == recipe


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_path_of_the_recipe_written_out(project, name):
    written = copy.deepcopy(PRESETS[name])
    by_name, by_field = params_of(project, {"preset": name}), params_of(project, written)

    assert by_name.recipes == by_field.recipes
    assert plan.build(by_name).recipes.keys() == plan.build(by_field).recipes.keys()
    assert "preset" not in by_name.recipes["digits-cnn"].model_dump()


@pytest.mark.parametrize("name", PRESETS)
def test_a_resolved_recipe_is_read_again_as_it_is(project, name):
    """Jobs are told the recipe as canonical JSON, the page prints all its fields."""
    recipe = params_of(project, {"preset": name, "epochs": 7}).recipes["digits-cnn"]
    planned = next(iter(plan.build(params_of(project, {"preset": name, "epochs": 7})).recipes.values()))

    assert Recipe(**json.loads(planned.canonical_json())["recipe"]) == recipe
    assert recipe.epochs == 7


@pytest.mark.parametrize(
    "beside",
    [{"epochs": 20}, {"channels": [8, 16]}, {"flip": False}, {"momentum": 0.9}, {"normalisation": "group", "dropout": 0.1, "cutout": 8}],
    ids=str,
)
def test_what_is_written_beside_a_preset_comes_first(project, beside):
    found = params_of(project, {"preset": "cifar-fast", **beside})

    assert found.recipes == params_of(project, PRESETS["cifar-fast"] | beside).recipes
    assert all(json.loads(found.recipes["digits-cnn"].model_dump_json())[key] == value for key, value in beside.items())


def test_a_field_written_as_its_preset_has_it_moves_no_path(project):
    named, repeated = params_of(project, {"preset": "cifar-fast"}), params_of(project, {"preset": "cifar-fast", "shift": 2, "momentum": 0.9})

    assert plan.build(named).recipes.keys() == plan.build(repeated).recipes.keys()


def test_a_preset_leaves_out_what_another_architecture_does_not_read():
    """Only the preset's own fields: one that the user wrote is refused as ever."""
    recipe = Recipe(preset="cifar-cnn", architecture="resnet18")

    assert (recipe.architecture, recipe.optimizer, recipe.channels, recipe.hidden) == ("resnet18", "adamw", (32, 64, 128), (128,))
    with pytest.raises(ValueError, match="channels: this changes nothing in resnet18; leave it out"):
        Recipe(preset="cifar-cnn", architecture="resnet18", channels=(8,))


def test_a_preset_is_not_changed_by_its_use():
    before = copy.deepcopy(PRESETS)
    Recipe(preset="cifar-fast", epochs=1)

    assert before == PRESETS


@pytest.mark.parametrize(("name", "shape"), [("digits-cnn", (8, 8, 1)), ("digits-mlp", (8, 8, 1)), ("cifar-cnn", (32, 32, 3)), ("cifar-fast", (32, 32, 3)),
                                             ("cifar-resnet18", (32, 32, 3)), ("cifar-wide-resnet", (32, 32, 3)), ("table-mlp", (446,))])  # fmt: skip
def test_a_preset_fits_the_data_it_is_named_for(name, shape):
    network = models.build(Recipe(preset=name), shape, 10, 0, CPU).eval()
    inputs = torch.zeros(2, *(shape if len(shape) == 1 else (shape[2], *shape[:2])))

    assert network(inputs).shape == (2, 10)


def test_the_schema_knows_presets_and_what_they_make_needless(project):
    jsonschema = pytest.importorskip("jsonschema")
    config = yaml.safe_load((project / "params.yaml").read_text())

    def is_accepted(recipe: dict[str, Any]) -> bool:
        return jsonschema.Draft202012Validator(params.schema()).is_valid(config | {"recipes": {"mine": recipe}})

    assert is_accepted({"preset": "cifar-fast"}) and is_accepted({"preset": "cifar-fast", "epochs": 20, "cutout": 8, "ema": 0.99})
    assert not is_accepted({"preset": "cifar-fats"})
    assert not is_accepted({"preset": "cifar-fast", "epoch": 20})
    complete = {"architecture": "mlp", "epochs": 1, "batch_size": 1, "learning_rate": 0.1}
    assert is_accepted(complete)
    assert not any(is_accepted({key: complete[key] for key in complete if key != left_out}) for left_out in complete)


# ------------------------------------------------------------------------------------------------- fields


def test_new_fields_at_their_default_move_no_path(project):
    """The name of the recipe in params.yaml, as of the first release; Git knows it too."""
    config = yaml.safe_load((project / "params.yaml").read_text())["recipes"]["digits-cnn"]
    fresh = {"cutout": 0, "ema": None, "precision": "float32", "compile": False, "preset": None}

    assert digest(Recipe(**config)) == digest(Recipe(**config, **fresh)) == DIGESTS["digits-cnn"]


@pytest.mark.parametrize(
    "changed", [{"cutout": 4}, {"ema": 0.99}, {"precision": "tf32"}, {"precision": "bfloat16"}, {"precision": "float16"}, {"compile": True}], ids=str
)
def test_new_fields_move_the_path(changed):
    assert digest(Recipe(preset="digits-cnn", **changed)) != DIGESTS["digits-cnn"]


@pytest.mark.parametrize(("precision", "expected"), [
    ("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.float32), ("float16", torch.float32), ("float64", torch.float64),
])  # fmt: skip
def test_weights_and_inputs_are_rounded_in_products_alone(digits, precision, expected):
    recipe = Recipe(preset="digits-cnn", precision=precision, dropout=0.1, cutout=2)
    network = models.build(recipe, digits.shape, digits.n_classes, 0, CPU)
    inputs, _, _ = next(Pick(digits, np.arange(8), None, recipe, CPU, augmented=True).batches([np.arange(8)], 1))

    assert {weight.dtype for weight in network.parameters()} == {inputs.dtype} == {expected}
    assert recipe.weight_dtype == str(expected).removeprefix("torch.")


BAD = {
    "unknown preset": ({"preset": "cifar-fats"}, "no preset is called 'cifar-fats' (did you mean 'cifar-fast'?)"),
    "preset that is no text": ({"preset": ["cifar-fast"]}, "no preset is called '['cifar-fast']' (did you mean 'cifar-fast'?)"),
    "misspelt preset": ({"presett": "cifar-fast"}, "unknown key 'presett' (did you mean 'preset'?)"),
    "misspelt field beside a preset": ({"preset": "cifar-fast", "epoch": 3}, "unknown key 'epoch' (did you mean 'epochs'?)"),
    "bad field beside a preset": ({"preset": "cifar-fast", "epochs": 0}, "recipes.digits-cnn.epochs: should be greater than 0, found 0"),
    "ema of one": ({"preset": "digits-cnn", "ema": 1}, "ema: should be less than 1, found 1"),
    "ema of nothing": ({"preset": "digits-cnn", "ema": 0}, "ema: should be greater than 0, found 0"),
    "negative cutout": ({"preset": "digits-cnn", "cutout": -1}, "cutout: should be greater than or equal to 0, found -1"),
    "unknown precision": (
        {"preset": "digits-cnn", "precision": "half"}, "precision: should be 'float32', 'float64', 'tf32', 'bfloat16' or 'float16', found 'half'",
    ),
    "dropout of everything": ({"preset": "digits-cnn", "dropout": 1}, "dropout: should be less than 1, found 1"),
    "compile that is no answer": ({"preset": "digits-cnn", "compile": "fast"}, "compile: should be a valid boolean, unable to interpret input, found 'fast'"),
    "layers that fast_cnn has not": ({"preset": "cifar-fast", "hidden": [64]}, "hidden: this changes nothing in fast_cnn; leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.replace(" ", "-"))
def test_bad_recipes_are_named_in_one_sentence(project, fault):
    recipe, expected = BAD[fault]

    with pytest.raises(ParamsError) as caught:
        params_of(project, recipe)

    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("changed", [{"flip": True}, {"shift": 1}, {"cutout": 2}], ids=str)
def test_tables_have_no_pixels_to_move_or_erase(tmp_path, changed):
    recipe = Recipe(preset="table-mlp", batch_size=4, **changed)

    with pytest.raises(ParamsError, match=r"flip, shift and cutout are for images; the data has shape \(5,\); leave them out"):
        stage.check_recipe(recipe, table_in(tmp_path), 8)


def table_in(folder) -> Dataset:
    """20 rows of 5 features."""
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom memleak.data import Samples\ndef load(source):\n"
        "    return Samples(np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 2)\n"
    )
    data.prepare(params.Dataset(name=f"{folder / 'mine.py'}:load"), folder / "dataset.json")
    return data.read(folder / "dataset.json")


def test_a_cutout_larger_than_the_image_is_refused(digits):
    stage.check_recipe(Recipe(preset="digits-cnn", cutout=8), digits, 64)
    with pytest.raises(ParamsError, match="cutout: a square of 9 pixels is larger than images of 8 x 8; lower it"):
        stage.check_recipe(Recipe(preset="digits-cnn", cutout=9), digits, 64)


def test_a_batch_larger_than_the_subset_is_refused(digits):
    with pytest.raises(ParamsError, match="batch_size: 512 is larger than a training set of 500 records; lower it"):
        stage.check_recipe(Recipe(preset="cifar-fast"), digits, 500)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "mlp"])
def test_each_network_of_convolutions_refuses_a_table(architecture):
    with pytest.raises(
        ModelError, match=rf"{architecture}: the data has shape \(446,\), expected images \(H, W, C\); use `architecture: mlp` for tables"
    ):
        models.build(Recipe(architecture=architecture, epochs=1, batch_size=1, learning_rate=0.1), (446,), 10, 0, CPU)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "mlp"])
def test_each_network_of_convolutions_refuses_images_that_are_too_small(architecture):
    with pytest.raises(ModelError, match=rf"{architecture}: images of 3 x 40 are too small"):
        models.build(Recipe(architecture=architecture, epochs=1, batch_size=1, learning_rate=0.1), (3, 40, 1), 10, 0, CPU)


def test_the_networks_tested_here_are_all_that_are_built_in():
    from memleak import plugins
    from memleak.params import texts  # whose architectures are tested in test_language_models.py

    assert sorted(plugins.BUILT_IN["architectures"].keys() - set(texts.ARCHITECTURES)) == ARCHITECTURES


# ------------------------------------------------------------------------------------------------- fast_cnn


def network_of(shape: tuple[int, int, int] = (16, 16, 3), **changed) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return fast_cnn.build(shape, 4, Recipe(**(FAST | changed)))


def test_fast_cnn_has_the_weights_of_a_hand_calculation():
    """Stages 3-64, 64-256 and 256-256: nine weights a pair of channels, twice, a scale and a shift a channel, twice; 10 classes."""
    network = fast_cnn.build((32, 32, 3), 10, Recipe(preset="cifar-fast"))
    pairs = 3 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256
    expected = 9 * pairs + 4 * (64 + 256 + 256) + 256 * 10

    assert sum(weight.numel() for weight in network.parameters()) == expected == 1_960_384


@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 9, 3), (28, 28, 1), (32, 32, 3)])
def test_fast_cnn_takes_images_of_any_size_that_its_poolings_leave_something_of(shape):
    assert network_of(shape)(torch.rand(2, shape[2], *shape[:2])).shape == (2, 4)


@pytest.mark.parametrize("kind", ["none", "batch", "group"])
def test_every_weight_of_fast_cnn_learns(kind):
    network = network_of(normalisation=kind).train()
    inputs, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(network(inputs), labels))
        losses[-1].backward()
        optimizer.step()

    assert [key for key, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []
    assert losses[-1] < losses[0]


def test_fast_cnn_drops_out_by_sample():
    network = network_of(dropout=0.5, normalisation="group").train()
    inputs, rows = torch.rand(6, 3, 16, 16), torch.tensor([5, 9, 11, 3, 2, 8])
    set_rows(network, rows)
    logits = network(inputs)
    set_rows(network, rows[:2])

    assert torch.allclose(network(inputs[:2]), logits[:2], atol=1e-6)
    assert not torch.allclose(network.eval()(inputs), logits, atol=1e-3)


def test_fast_cnn_is_built_of_layers_that_a_stack_of_models_knows():
    """Weights stand in known layers alone; of what holds them every one has such layers below."""
    known = (
        torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm2d, torch.nn.GroupNorm, torch.nn.MaxPool2d, torch.nn.ReLU, torch.nn.GELU,
        torch.nn.Flatten, torch.nn.Identity, SpatialMean, CounterDropout,
    )  # fmt: skip
    for kind in ("none", "batch", "group"):
        for module in network_of(normalisation=kind).modules():
            assert isinstance(module, known) or (len([*module.children()]) > 0 and not [*module.parameters(recurse=False)]), module


def test_the_forward_pass_of_fast_cnn_keeps_channels_last():
    network = network_of().to(memory_format=torch.channels_last).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: seen.append(output.is_contiguous(memory_format=torch.channels_last)))
    network(torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last))

    assert seen == [True] * 4


def test_fast_cnn_trains_to_the_same_bits_twice_and_answers_whatever_the_batch(digits):
    from memleak.designs import Rounds

    recipe = Recipe(**FAST | {"batch_size": 16, "dropout": 0.1, "flip": True, "shift": 1, "cutout": 2, "epochs": 2})
    task = Rounds("random00", 64, 0, "fit", 0, 1).tasks(digits)[0]
    trained, again = (loop.train(task, digits, recipe, CPU) for _ in range(2))
    network = models.build(recipe, digits.shape, digits.n_classes, 0, CPU)
    network.load_state_dict(trained.weights)
    alone, among = (loop.predict(network, digits, ids, None, recipe, CPU) for ids in (np.array([3]), np.arange(40)))

    assert all(torch.equal(again.weights[key], trained.weights[key]) for key in trained.weights)
    assert torch.equal(alone[0], among[3])


@pytest.mark.parametrize("architecture", ["small_cnn", "mlp"])
def test_dropout_where_nothing_is_dropped_is_refused(architecture):
    with pytest.raises(ValueError, match=f"dropout: {architecture} drops after its hidden layers, and has none; give hidden"):
        Recipe(architecture=architecture, hidden=[], dropout=0.5, epochs=1, batch_size=4, learning_rate=0.1)
