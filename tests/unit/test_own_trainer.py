"""The user's own trainer: what it is given, what is made of it, what is refused, and the laws that it is held to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from worlds import audit_world

from memleak import artefacts, cli, contracts, params, plan, provenance
from memleak.contracts import attacks as attack_laws
from memleak.contracts import trainers as trainer_laws
from memleak.designs import Coins, Rounds
from memleak.metrics import audit
from memleak.params import ParamsError, Recipe
from memleak.report import figures
from memleak.training import devices, own, stage, store
from memleak.training.batches import Pick, look_up
from memleak.training.loop import TrainingDiverged
from memleak.training.own import TrainerError
from memleak.training.stage import check_recipe

CPU = torch.device("cpu")
GOOD = """
import torch

def train(data, indices, seed, device, epochs=30):
    network = data.network(seed, device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    inputs, labels = data.batch(indices, device)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(indices)).split(16):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network.state_dict()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    devices.prepare_torch("cpu")


def _trainer(code: str, name: str = "my_train.py") -> str:
    Path(name).write_text(code)
    return f"{Path(name).resolve()}:train"  # absolute: the function is kept by the path of its file


def _ending(code: str) -> str:
    """The good trainer with another last line."""
    return _trainer(GOOD.replace("return network.state_dict()", code))


def _recipe(trainer: str, **fields) -> Recipe:
    return Recipe(**{"architecture": "mlp", "hidden": (16,), "trainer": trainer, **fields})


def _rounds(target: str | None = "mislabelled01", **changed) -> Rounds:
    return Rounds(**{"target": target, "subset_size": 64, "seed": 0, "role": "fit", "first": 0, "last": 1} | changed)


def _arms(digits, **changed):
    """The OUT and the IN arm of the first round."""
    return _rounds(None, **changed).tasks(digits)[0], _rounds(**changed).tasks(digits)[-1]


def _equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- what a trainer is given -------------------------------------------------------------------------------------


def test_a_record_has_the_row_of_its_sample_id_and_a_canary_one_beyond_the_data_set(digits):
    _, inside = _arms(digits)
    given = own.training_data(digits, inside, _recipe(_trainer(GOOD)))
    last, before = inside.sample_ids[-1], inside.sample_ids[:-1]

    assert last == 1797 + 1 == len(given.labels) - 1
    assert np.array_equal(given.inputs[last], digits.inputs[inside.target.source_id])
    assert given.labels[last] == inside.target.label != digits.labels[inside.target.source_id]
    assert np.array_equal(given.inputs[before], digits.inputs[before]) and np.array_equal(given.labels[before], digits.labels[before])
    assert (given.shape, given.n_classes, given.inputs.dtype) == ((8, 8, 1), 10, np.uint8)


def test_records_that_are_not_trained_on_cannot_be_seen(digits):
    outside, _ = _arms(digits)
    given = own.training_data(digits, outside, _recipe(_trainer(GOOD)))
    others = np.setdiff1d(np.arange(len(given.labels)), outside.sample_ids)

    assert len(others) == 1797 - 64
    assert not given.inputs[others].any() and (given.labels[others] == -1).all()
    with pytest.raises(ValueError, match="read-only"):
        given.inputs[0] = 1


def test_rows_that_are_empty_take_no_memory():
    """256 MB of rows, of which 100 are filled: a page or two for each of them, where large pages would be nearly all."""

    def held() -> int:
        return sum(region.anonymous for region in psutil.Process().memory_maps())

    before = held()
    rows = own._empty((80_000, 3200), np.dtype(np.uint8))
    rows[np.arange(100) * 800] = 7

    assert held() - before < rows.nbytes / 10
    assert rows[::800].sum() == 100 * 3200 * 7


def test_both_arms_of_a_round_have_one_seed_and_one_order_and_the_record_comes_last(digits):
    for neighbour in ("add", "replace"):
        outside, inside = _arms(digits, neighbour=neighbour)
        kept = outside.sample_ids[outside.sample_ids != inside.replaced]

        assert own.seed_of(outside) == own.seed_of(inside) < 2**32
        assert np.array_equal(inside.sample_ids[:-1], kept) and inside.sample_ids[-1] == inside.target.sample_id
    assert own.seed_of(outside) != own.seed_of(_rounds(None, first=1, last=2).tasks(digits)[0])


def test_canaries_of_a_one_run_audit_are_rows_with_their_own_labels(digits):
    task = Coins(seed=0, first=0, last=1, canaries=20, subset_size=50, mislabelled=True).tasks(digits)[0]
    given = own.training_data(digits, task, _recipe(_trainer(GOOD)))
    rows, labels = look_up(digits, task.sample_ids, task.own)

    assert (task.sample_ids >= 1797).any()
    assert np.array_equal(given.labels[task.sample_ids], labels)
    assert np.array_equal(given.inputs[task.sample_ids], digits.inputs[rows])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_batch_is_what_the_network_is_asked_later(digits, precision):
    _, inside = _arms(digits)
    recipe = _recipe(_trainer(GOOD), precision=precision)
    given = own.training_data(digits, inside, recipe)
    asked, labels, _ = next(Pick(digits, inside.sample_ids, inside.own, recipe, CPU, augmented=False).batches([inside.sample_ids]))

    inputs, truth = given.batch(inside.sample_ids)

    assert torch.equal(inputs, asked) and torch.equal(truth, labels)
    assert torch.equal(given.batch(torch.from_numpy(inside.sample_ids))[0], asked)


# -- a model of it -----------------------------------------------------------------------------------------------


def test_a_model_is_trained_measured_and_the_same_again_whatever_was_drawn_before(digits):
    recipe = _recipe(_trainer(GOOD), trainer_options={"epochs": 40})
    _, inside = _arms(digits)
    trained = own.train(inside, digits, recipe, CPU)
    torch.manual_seed(99)
    own.train(_arms(digits)[0], digits, recipe, CPU)
    again = own.train(inside, digits, recipe, CPU)
    facts = trained.facts

    assert _equal(trained.weights, again.weights)
    assert facts["train_accuracy"] == 1.0 and facts["test_accuracy"] > 0.6 and facts["train_loss"] < 0.1
    assert (facts["engine"], facts["device"], facts["n_train"], facts["n_test"]) == ("own trainer", "cpu", 65, 1000)
    assert "loss_curve" not in facts


def test_a_trainer_that_draws_from_every_generator_is_still_the_same_again(digits):
    recipe = _recipe(_ending("import numpy, random; network[1].bias.data += random.random() + numpy.random.rand(); return network.state_dict()"))
    task = _arms(digits)[0]

    assert _equal(own.train(task, digits, recipe, CPU).weights, own.train(task, digits, recipe, CPU).weights)


def test_weights_that_the_trainer_goes_on_changing_are_not_those_that_were_returned(digits):
    kept = "kept = globals().setdefault('kept', []); kept.append(network); [w.data.zero_() for m in kept[:-1] for w in m.parameters()]; "
    recipe = _recipe(_ending(kept + "return network.state_dict()"))
    outside, inside = _arms(digits)
    first = own.train(outside, digits, recipe, CPU)
    own.train(inside, digits, recipe, CPU)

    assert all(first.weights[name].any() for name in first.weights)


def test_a_shard_is_trained_kept_and_adopted(digits_path):
    name = _trainer(GOOD + "    # counted\n", "counted.py").replace(":train", ":counted")
    Path("counted.py").write_text(GOOD + "\ndef counted(*given):\n    open('calls.txt', 'a').write('x')\n    return train(*given, epochs=1)\n")
    recipe, rounds = _recipe(name), _rounds(None, last=3)
    if "own" not in vars(stage):
        pytest.skip("training/stage does not call own.train yet")

    done = stage.train(digits_path, "r", recipe, rounds, Path("a/whole.safetensors"), "cpu")
    again = stage.train(digits_path, "r", recipe, rounds, Path("b/whole.safetensors"), "cpu")
    facts = artefacts.read_shard_facts("a/whole.safetensors")

    assert (done["trained"], again["trained"], again["adopted"]) == (3, 0, 3)
    assert Path("calls.txt").read_text() == "xxx"
    assert [model["engine"] for model in facts["models"]] == ["own trainer"] * 3
    assert store.read_model(Path("a/whole.safetensors"), 2, facts).keys() == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_nothing_of_our_loop_is_asked_of_a_trainer(digits):
    check_recipe(_recipe(_trainer(GOOD)), digits, n_members=1)

    with pytest.raises(ParamsError, match="batch_size"):
        check_recipe(Recipe(preset="digits-mlp"), digits, n_members=1)


# -- what is refused ---------------------------------------------------------------------------------------------


def test_finite_weights_that_give_no_finite_loss_are_said_to_have_diverged(digits):
    recipe = _recipe(_ending("[w.data.fill_(1e30) for w in network.parameters()]; return network.state_dict()"))
    with pytest.raises(
        TrainingDiverged, match=r"base-n64-s0-m0000: the loss on its training data is not finite after .*my_train\.py:train; have it take"
    ):
        own.train(_arms(digits)[0], digits, recipe, CPU)


RETURNED = {
    "nothing": ("return None", "returned NoneType, expected a dict of the network's weights by name; end it with `return model.state_dict()`"),
    "the network": ("return network", "returned Sequential, expected a dict"),
    "a wrapper's weights": (
        "return {'module.' + k: v for k, v in network.state_dict().items()}",
        "the weights lack '1.weight' (4 such) and have an unknown 'module.1.weight' (4 such), the recipe's architecture has 4",
    ),
    "fewer weights": ("return {k: v for k, v in network.state_dict().items() if 'bias' in k}", "the weights lack '1.weight' (2 such), the recipe's"),
    "another shape": ("return {k: v[..., :3] for k, v in network.state_dict().items()}", "'1.weight' has shape (16, 3), the recipe's architecture expects (16, 64)"),
    "half precision": ("return network.half().state_dict()", "'1.weight' is float16, expected float32; convert"),
    "arrays": ("return {k: v.numpy() for k, v in network.state_dict().items()}", "'1.weight' is of type ndarray, expected torch.Tensor"),
    "NaN": ("network[1].bias.data[:2] = float('nan'); return network.state_dict()", "2 of 16 values of weight '1.bias' are NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("what", RETURNED)
def test_what_cannot_be_used_is_said_in_one_sentence(digits, what):
    code, expected = RETURNED[what]
    with pytest.raises(TrainerError) as caught:
        own.train(_arms(digits)[1], digits, _recipe(_ending(code)), CPU)

    text = str(caught.value)
    assert expected in text and text.startswith("with-mislabelled01-n64-s0-m0000: ") and len(text.splitlines()) == 1


@pytest.mark.parametrize("code", ["raise KeyError('my own mistake')", "import sys; sys.exit('my own mistake')"])
def test_the_traceback_of_the_users_code_stays_after_a_sentence(digits, capsys, code):
    with pytest.raises(TrainerError, match=r"my_train\.py:train stopped with (KeyError|SystemExit): '?my own mistake"):
        own.train(_arms(digits)[0], digits, _recipe(_ending(code)), CPU)
    lines = capsys.readouterr().err.splitlines()

    assert lines[0].startswith("base-n64-s0-m0000: ") and lines[0].endswith("this is where:")
    assert lines[1].startswith("Traceback") and "my_train.py" in lines[2] and code in "\n".join(lines)


def test_options_that_the_trainer_does_not_take_are_named_before_it_is_called(digits):
    with pytest.raises(
        TrainerError, match=r"cannot be called as train\(data, indices, seed, device, epoch=3\): got an unexpected keyword argument 'epoch'"
    ):
        own.train(_arms(digits)[0], digits, _recipe(_trainer(GOOD), trainer_options={"epoch": 3}), CPU)


FIELDS = {
    "epochs": ({"epochs": 3}, "epochs: my_train.py:train never sees this; leave it out, or give it as `trainer_options: {epochs: ...}`"),
    "flip": ({"flip": True}, "flip: my_train.py:train never sees this"),
    "preset": ({"preset": "digits-mlp"}, "preset: a preset says how memleak trains, and here my_train.py:train does"),
    "precision": ({"precision": "tf32"}, "float32 or float64, found 'tf32'"),
    "seed": ({"trainer_options": {"seed": 3}}, "trainer_options: 'seed' is given to every trainer; choose another name"),
    "infinite": ({"trainer_options": {"epochs": float("inf")}}, "numbers must be finite"),
    "idle": ({"channels": [8]}, "channels: this changes nothing in mlp"),
    "no function": ({"trainer": "mine"}, "trainer: expected a function of your own, as in `my_train.py:train`, found 'mine'"),
    "no file": ({"trainer": "nowhere.py:train"}, "there is no file nowhere.py"),
    "no trainer": ({"trainer": None, "epochs": 1, "batch_size": 1, "learning_rate": 1, "trainer_options": {"a": 1}}, "trainer_options: these are told to"),
    "no architecture": ({"architecture": None}, "architecture: should be a valid string"),
}  # fmt: skip


@pytest.mark.parametrize("what", FIELDS)
def test_fields_that_the_trainer_would_never_see_are_refused(what):
    _trainer(GOOD)
    with pytest.raises(ParamsError) as caught:
        params.recipe_of({"architecture": "mlp", "trainer": "my_train.py:train"} | FIELDS[what][0])

    assert FIELDS[what][1] in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_recipe_without_a_trainer_still_needs_its_numbers():
    with pytest.raises(ParamsError) as caught:
        params.recipe_of({"architecture": "mlp", "epochs": 3})

    assert str(caught.value).splitlines() == ["batch_size: Field required", "learning_rate: Field required"]


def test_the_schema_knows_what_stands_beside_a_trainer():
    jsonschema = pytest.importorskip("jsonschema")
    whole = params.schema()
    recipes = {"$ref": "#/$defs/Recipe", "$defs": whole["$defs"]}
    jsonschema.validate({"architecture": "mlp", "trainer": "my_train.py:train", "trainer_options": {"epochs": 3}}, recipes)
    jsonschema.validate({"architecture": "mlp", "epochs": 3, "batch_size": 8, "learning_rate": 0.1}, recipes)
    for wrong in ({"architecture": "mlp", "trainer": "t.py:train", "epochs": 3}, {"trainer": "t.py:train"}, {"architecture": "mlp", "epochs": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, recipes)


# -- its name ----------------------------------------------------------------------------------------------------


def _name(recipe: Recipe) -> str:
    return plan.PlannedRecipe("mine", "digits", params.Dataset(name="digits"), recipe).name


def test_the_code_and_the_options_of_a_trainer_are_part_of_the_recipes_name():
    Path("helper.py").write_text("RATE = 0.1\n")
    recipe = _recipe(_trainer("import helper\n" + GOOD))
    before = _name(recipe)

    _trainer("import helper\n# a comment\n" + GOOD)
    assert _name(recipe) == before
    assert _name(recipe.model_copy(update={"trainer_options": {"epochs": 3}})) != before
    Path("helper.py").write_text("RATE = 0.2\n")
    assert _name(recipe) != before
    Path("helper.py").write_text("RATE = 0.1\n")
    _trainer("import helper\n" + GOOD.replace("0.9", "0.8"))
    assert _name(recipe) != before


def test_a_trainer_in_an_installed_module_has_its_code_in_the_name_without_being_imported(monkeypatch, tmp_path):
    Path("my_package").mkdir()
    Path("my_package/__init__.py").write_text("raise ImportError('imported')\n")
    Path("my_package/training.py").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = _recipe("my_package.training:train")
    before = _name(recipe)
    Path("my_package/training.py").write_text(GOOD.replace("0.9", "0.8"))

    assert _name(recipe) != before
    with pytest.raises(ValueError, match=r"no Python file of module my_package\.nowhere is found"):
        _name(_recipe("my_package.nowhere:train"))


def test_a_trainer_that_is_not_python_is_said_so_while_planning():
    with pytest.raises(ValueError, match=r"my_train\.py:train: it, or a file that it imports, is not Python: .* in line 1; mend it"):
        _name(_recipe(_trainer("def train(data\n")))


def test_a_job_is_told_what_it_needs_and_the_page_shows_what_can_be_written_again():
    recipe = _recipe(_trainer(GOOD), trainer_options={"epochs": 3})
    planned = plan.PlannedRecipe("mine", "digits", params.Dataset(name="digits"), recipe)
    audit_ = params.Audit(
        dataset="digits", recipe="mine", attacks={"lira": {"name": "lira"}}, design=params.Halves(kind="halves", models=8, pool=120)
    )

    assert Recipe(**json.loads(planned.canonical_json())["recipe"]) == recipe
    shown = json.loads(plan.PlannedAudit("a", audit_, 0, None, None, planned, None, (), None, None).page_json())["recipe"]
    assert Recipe(**{key: value for key, value in shown.items() if key != "channels" and key != "normalisation"}) == recipe
    assert "epochs" not in shown and "learning_rate" not in shown


def test_recipes_without_a_trainer_have_the_names_they_had():
    recipe = Recipe(architecture="mlp", hidden=(16,), epochs=2, batch_size=16, learning_rate=0.1)
    facts = {
        "dataset": {"name": "digits"},
        "recipe": {"architecture": "mlp", "hidden": [16], "epochs": 2, "batch_size": 16, "learning_rate": 0.1},
        "version": params.TRAINING_VERSION,
    }

    assert _name(recipe) == f"mine-{provenance.digest(facts)}"


# -- the page ----------------------------------------------------------------------------------------------------


def test_models_without_a_curve_are_measured_and_drawn():
    metrics = audit_world({"random00": 1.0})
    model = {
        "device": "cpu", "torch": "2.9.0", "engine": "own trainer", "n_train": 500, "n_test": 500, "train_loss": 0.01, "test_loss": 0.4, "train_accuracy": 1.0, "test_accuracy": 0.9,
    }  # fmt: skip
    metrics["models"] = audit.models_found({"data": {"n_classes": 10}}, [model, model], allow_mixed=False)
    left, right = figures.training(metrics).axes

    assert metrics["models"]["loss_curve"] is None and metrics["models"]["accuracy_curve"] is None
    assert [bar.get_height() for bar in left.patches] == [0.01, 0.4]
    assert right.get_legend_handles_labels()[1] == ["train, at the end: 100.0 %", "test, at the end: 90.0 %", "chance"]


# -- the laws ----------------------------------------------------------------------------------------------------


def _laws(trainer: str, shape=(8, 8, 1), **fields) -> dict[str, contracts.Finding]:
    return {finding.law: finding for finding in trainer_laws.check(_recipe(trainer, **fields), shape, 4, CPU)}


def _not_kept(laws: dict[str, contracts.Finding]) -> dict[str, str]:
    return {law: finding.state for law, finding in laws.items() if finding.state != "kept"}


@pytest.mark.parametrize(
    ("shape", "fields"),
    [((8, 8, 1), {}), ((12,), {}), ((16, 16, 3), {"architecture": "small_cnn", "channels": (4, 8), "precision": "float64"})],
    ids=["images", "table", "small_cnn"],
)
def test_a_good_trainer_keeps_every_law(shape, fields):
    laws = _laws(_trainer(GOOD), shape, trainer_options={"epochs": 8}, **fields)

    assert len(laws) == 7 and _not_kept(laws) == {}


SAME, OTHER = "the same seed gives the same weights, whatever was trained before", "another seed gives other weights"
OUTSIDE, EACH = "records that are not in `indices` change nothing", "every record in `indices` counts, with its own label"
STAYS, FIRST = "what it is given stays as it was", "it returns the weights of the architecture, all of them finite"
KNOWS = "the network knows its training records when it is asked as an audit asks"
BAD = {
    "draws without the seed": (GOOD.replace("network.train()", "torch.seed()"), {SAME: "broken"}),
    "goes on from the last model": (
        GOOD.replace("network = ", "network = globals().setdefault('kept', None) or ").replace("    return", "    globals()['kept'] = network\n    return"),
        {SAME: "broken"},
    ),
    "has no use for the seed": (GOOD.replace("network(seed", "network(7").replace("torch.randperm(len(indices))", "torch.arange(len(indices))"), {OTHER: "doubtful"}),
    "trains on all records": (GOOD.replace("data.batch(indices", "data.batch(range(64)").replace("len(indices)", "64"), {OUTSIDE: "broken", EACH: "broken"}),
    "normalises by what it should not see": (
        GOOD.replace("    network.train()", "    inputs = inputs - float(data.inputs.mean()) / 100"), {OUTSIDE: "broken"},
    ),
    "forgets the last record": (GOOD.replace("data.batch(indices", "data.batch(indices[:-1]").replace("len(indices)", "len(inputs)"), {EACH: "broken"}),
    "writes to its input": (
        GOOD.replace("    network =", "    import warnings; warnings.simplefilter('ignore'); torch.from_numpy(data.inputs).mul_(0)\n    network ="),
        {STAYS: "broken", KNOWS: "doubtful"},
    ),
    "trains on other inputs": (GOOD.replace("    network.train()", "    inputs = -inputs"), {KNOWS: "doubtful"}),
    "stops": (GOOD.replace("return", "raise RuntimeError('no')"), {FIRST: "broken"}),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_trainer_that_breaks_a_law_is_found_out(what):
    code, expected = BAD[what]
    found = _not_kept(_laws(_trainer(code), trainer_options={"epochs": 8}))

    assert found == expected


def test_the_laws_are_told_one_a_line_and_a_broken_one_is_exit_code_one(capsys):
    name = _trainer(GOOD)
    assert cli.main(["check", "trainers", name, "--architecture", "mlp", "--shape", "12", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(line.startswith("kept     ") for line in lines[:7]) and lines[7].endswith("breaks no law")

    other = _trainer(GOOD.replace("network.train()", "torch.seed()"), "other.py")
    assert cli.main(["check", "trainers", other, "--architecture", "mlp", "--shape", "12", "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "broken   the same seed" in said.out and "draw all randomness from `seed`" in said.out
    assert "breaks 1 of 4 laws" in said.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "name it, as in `--architecture mlp`"),
        (["--architecture", "mlp", "--options", "epochs=3"], "--options: this is not JSON"),
        (["--architecture", "mlp", "--options", "3"], "--options: expected a mapping"),
        (["--architecture", "mlp", "--recipe", '{"epochs": 3}'], "epochs: "),
        (["--architecture", "small_cnn", "--shape", "2", "2", "1"], "images of 2 x 2 are too small"),
    ],
)
def test_a_check_that_cannot_be_made_says_why(capsys, options, expected):
    assert cli.main(["check", "trainers", _trainer(GOOD), "--device", "cpu", *options]) == 1
    said = capsys.readouterr()
    assert expected in said.out + said.err


ATTACKS = {"range": {"point": {"name": "rmia", "a": 0.3}}}


@pytest.mark.parametrize("name", params.plugins.BUILT_IN["attacks"])
def test_our_attacks_keep_every_law(name):
    found = list(attack_laws.check(name, ATTACKS.get(name, {})))

    assert len(found) == 9
    assert [str(finding) for finding in found if finding.state == "broken"] == []


@pytest.mark.parametrize(
    ("code", "options", "expected"),
    [
        ("", "{}", "has no `class Options(memleak.params.Frozen)`; add one"),
        (None, '{"signl": "loss"}', "unknown key 'signl' (did you mean 'signal'?)"),
    ],
)
def test_an_attack_that_cannot_be_checked_says_why(capsys, code, options, expected):
    Path("empty.py").write_text("def score(evidence, options): return 0\n")

    assert cli.main(["check", "attacks", "lira" if code is None else f"{Path('empty.py').resolve()}:score", "--options", options]) == 1
    assert expected in capsys.readouterr().err


LOSS = "-evidence.target['loss'].mean(axis=1)"
BAD_ATTACKS = {
    "the sign is turned": ("-(" + LOSS + ")", {"higher means more likely a member": "broken"}),
    "not a number": (LOSS + " * numpy.nan", {"it gives one finite number for each record": "broken"}),
    "one a view": ("-evidence.target['loss']", {"it gives one finite number for each record": "broken"}),
    "its own dice": (LOSS + " + 1e-3 * numpy.random.rand(len(evidence.is_in[0]))", {"the same evidence gives the same scores": "broken"}),
    "the place of a record": (LOSS + " + numpy.arange(len(evidence.label))", {"the order of the records changes nothing": "broken"}),
    "the first reference": (LOSS + " + evidence.reference['loss'][0].mean(axis=1)", {"the order of the reference models changes nothing": "broken"}),
    "nothing": ("numpy.zeros(len(evidence.label))", {"it finds members that are easily found": "doubtful"}),
    "written to": (
        "numpy.negative(evidence.target['loss'], out=evidence.target['loss']).mean(axis=1)", {"the evidence stays as it was": "broken"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_ATTACKS)
def test_an_attack_that_breaks_a_law_is_found_out(what):
    code, expected = BAD_ATTACKS[what]
    text = "import numpy\nfrom memleak.params import Frozen\n\nclass Options(Frozen):\n    pass\n\ndef score(evidence, options):\n    return " + code
    Path("my_attack.py").write_text(text + "\n")
    found = {finding.law: finding.state for finding in attack_laws.check(f"{Path('my_attack.py').resolve()}:score", {})}

    assert expected.items() <= found.items()


def test_dataclasses_in_the_users_file_work(digits):
    code = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Setting:\n    rate: float = 0.1\n" + GOOD
    trained = own.train(_arms(digits)[0], digits, _recipe(_trainer(code, "with_a_dataclass.py"), trainer_options={"epochs": 1}), CPU)

    assert trained.facts["n_train"] == 64
