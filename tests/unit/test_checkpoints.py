"""Checkpoints: a training that goes on gives the bits of one that was never interrupted; a file that does not serve is named."""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from trainings import Killed, KilledAfter

from memleak import artefacts, data
from memleak.budget import cost
from memleak.designs import Rounds
from memleak.params import Recipe, Training
from memleak.training import checkpoints, devices, ensemble, loop, stage
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import TrainingDiverged
from memleak.training.store import Store, weights_sha256

CPU = torch.device("cpu")
FACTS = {"recipe": "r-1", "data_sha256": "d", "models": ["m0", "m1"], "engine": "sequential", "device": "cpu", "torch": "2.9.0"}
ROUNDS = Rounds("atypical00", 64, 0, "fit", 0, 3)
MLP = {"architecture": "mlp", "hidden": (16,), "epochs": 2, "batch_size": 16, "learning_rate": 0.05}  # 4 steps an epoch
CNN = MLP | {"architecture": "small_cnn", "channels": (8,), "dropout": 0.3, "shift": 1, "flip": True, "cutout": 2}
RECIPES = {
    "sgd": MLP,
    "sgd without momentum": MLP | {"momentum": 0.0, "label_smoothing": 0.1},
    "adamw, average, clipping": MLP | {"optimizer": "adamw", "learning_rate": 0.01, "ema": 0.9, "gradient_clip": 0.5, "weight_decay": 0.1},
    "batch norm, dropout, augmentation, one cycle": CNN | {"schedule": "one_cycle", "weight_decay": 1e-3},
    "batch norm, average, adamw": CNN | {"optimizer": "adamw", "learning_rate": 0.01, "ema": 0.9, "schedule": "cosine", "warmup": 0.2},
    "bfloat16": CNN | {"precision": "bfloat16"},
    "float64, group norm": CNN | {"precision": "float64", "normalisation": "group"},
    "residual": MLP | {"architecture": "wide_resnet28_2", "hidden": (), "epochs": 2, "batch_size": 32},
}
STEPS = (1, 3, 4, 5, 7, 8)  # the first ever, within an epoch, its last, the first of the next, within it, the last ever


def recipe_of(fields):
    return Recipe(**{key: value for key, value in fields.items() if not (key == "hidden" and not value)})


def digests(trained):
    """Weights and curves, of each model."""
    return [(weights_sha256(model.weights), model.facts["loss_curve"], model.facts["accuracy_curve"]) for model in trained]


def fitted(tasks, dataset, recipe, n_stacked=1, checkpoint=None, device=CPU):
    if n_stacked == 1:
        return digests([loop.train(tasks[0], dataset, recipe, device, checkpoint)])
    return digests(ensemble.train(tasks, dataset, recipe, device, checkpoint))


def interrupted(path, step, *how, device=CPU):
    """The same after a kill when a checkpoint was written."""
    path.unlink(missing_ok=True)
    with pytest.raises(Killed):
        fitted(*how, checkpoint=KilledAfter.steps(path, step, FACTS), device=device)
    return fitted(*how, checkpoint=Checkpoint(path, FACTS, minutes=10), device=device)


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store/checkpoint-m0.state"


@pytest.mark.parametrize("fields", RECIPES.values(), ids=list(RECIPES))
def test_a_training_that_goes_on_gives_the_bits_of_one_that_was_never_interrupted(fields, digits, path, capsys):
    """From whichever step: the IN arm of a round, whose added sample makes one batch longer."""
    recipe = recipe_of(fields)
    task = next(task for task in ROUNDS.tasks(digits) if task.is_in)
    n_steps = -(-len(task.members) // recipe.batch_size)
    whole = fitted([task], digits, recipe)

    for step in sorted({min(step, recipe.epochs * n_steps) for step in STEPS}):
        assert interrupted(path, step, [task], digits, recipe) == whole, f"after step {step}"
        epoch, steps = divmod(step - 1, n_steps)
        assert f"{task.model_id}: goes on after step {steps + 1} of {n_steps} in epoch {epoch + 1} of {recipe.epochs}" in capsys.readouterr().out


def test_the_scale_of_half_precision_losses_comes_back(digits, path, monkeypatch):
    """It halves in the first steps, whose gradients overflow, and is not what it was at first when a training goes on."""
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**28))
    recipe = recipe_of(CNN | {"precision": "float16", "optimizer": "adamw", "learning_rate": 0.01, "epochs": 6})
    task = ROUNDS.tasks(digits)[0]
    whole = fitted([task], digits, recipe)

    assert all(interrupted(path, step, [task], digits, recipe) == whole for step in (2, 16, 20))
    with safe_open(path, framework="pt") as file:
        assert 1 < json.loads(file.metadata()["memleak"])["place"]["scaler"]["scale"] < 2**28


@pytest.mark.parametrize("kind", ["sgd", "adamw, average, clipping", "batch norm, dropout, augmentation, one cycle", "batch norm, average, adamw"])
def test_a_stack_goes_on_with_the_same_bits(kind, digits, path):
    """Three models in a stack of four: two have an added sample, each in a step of its own, one has none."""
    recipe = recipe_of(RECIPES[kind])
    tasks = [*ROUNDS.tasks(digits)[:2], Rounds(None, 64, 0, "fit", 2, 3).tasks(digits)[0]]
    assert [task.is_in for task in tasks] == [True, True, False]
    whole = fitted(tasks, digits, recipe, 4)

    assert len({sha256 for sha256, *_ in whole}) == 3
    for step in (1, 4, 6, 8):
        assert interrupted(path, step, tasks, digits, recipe, 4) == whole, f"after step {step}"


def test_a_training_of_one_step_an_epoch_goes_on(digits, path):
    """Every step is the last of its epoch."""
    recipe = recipe_of(MLP | {"batch_size": 64, "epochs": 3})
    task = ROUNDS.tasks(digits)[0]
    whole = fitted([task], digits, recipe)

    assert len(whole[0][1]) == 3
    assert all(interrupted(path, step, [task], digits, recipe) == whole for step in (1, 2, 3))


def test_a_training_that_is_killed_again_and_again_gives_the_same_bits(digits, path):
    recipe = recipe_of(RECIPES["batch norm, average, adamw"])
    task = ROUNDS.tasks(digits)[-1]
    whole = fitted([task], digits, recipe)
    for _ in range(4):
        with pytest.raises(Killed):
            fitted([task], digits, recipe, checkpoint=KilledAfter.steps(path, 2, FACTS))

    assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, 10)) == whole


def test_writing_checkpoints_changes_no_bit(digits, path):
    recipe = recipe_of(CNN)
    task = ROUNDS.tasks(digits)[0]

    assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, minutes=1e-9)) == fitted([task], digits, recipe)
    assert path.is_file()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_the_optimiser_remembers_comes_back_in_the_memory_order_of_the_weights(optimizer, digits, path):
    """Fused steps walk through memory: values in another order would meet other weights."""
    recipe = recipe_of(CNN | {"optimizer": optimizer, "channels": (8, 8)})
    task = ROUNDS.tasks(digits)[0]

    def begun():
        return loop.Steps(loop.Single(loop.initial(task, digits, recipe, CPU)), recipe, CPU)

    steps, again = begun(), begun()
    inputs = torch.rand(4, digits.shape[2], *digits.shape[:2])
    steps.take(inputs, torch.arange(4), torch.arange(4), torch.tensor([4]).numpy(), 0, 8)
    Checkpoint(path, FACTS, 10).save(steps.state(), {})
    again.restore(Checkpoint(path, FACTS, 10).load(CPU)[0])

    states = [[s.optimizer.state[weight] for weight in s.program.network.parameters()] for s in (steps, again)]
    kernels = [weight for weight in again.program.network.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
    assert kernels and not any(kernel.is_contiguous() for kernel in kernels)
    for before, after in zip(*states, strict=True):
        assert before.keys() == after.keys() != set()
        for name in before:
            assert torch.equal(before[name], after[name]) and before[name].stride() == after[name].stride()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("n_stacked", [1, 4])
@pytest.mark.parametrize("kind", ["sgd", "batch norm, dropout, augmentation, one cycle", "batch norm, average, adamw", "bfloat16"])
def test_a_training_goes_on_with_the_same_bits_on_a_gpu(kind, n_stacked, digits, path):
    """There steps are recorded, and replayed from the fourth of each process on."""
    recipe = recipe_of(RECIPES[kind] | {"epochs": 4})
    tasks = ROUNDS.tasks(digits)[:3]
    whole = fitted(tasks, digits, recipe, n_stacked, device=torch.device("cuda"))

    for step in (1, 4, 9, 16):
        assert interrupted(path, step, tasks, digits, recipe, n_stacked, device=torch.device("cuda")) == whole, f"after step {step}"


# What cannot be used


def written(path, facts=FACTS, tensors=None):
    Checkpoint(path, facts, 10).save({"x": torch.arange(6.0)} if tensors is None else tensors, {"epoch": 3, "step": 2})


def test_a_state_comes_back_as_it_was(path):
    """Also one tensor under two names, one in another memory order, without values, of one value, and of integers."""
    shared = torch.rand(3, 4)
    state = {
        "a": shared, "b": shared, "part": shared[:, 1], "order": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "none": torch.zeros(0, 3), "one": torch.tensor(7), "half": torch.rand(5).to(torch.bfloat16), "true": torch.tensor([True, False]),
    }  # fmt: skip
    place = {"epoch": 1, "losses": [[0.1 + 0.2, 1e-310]], "scaler": None}
    Checkpoint(path, FACTS, 10).save(state, place)
    found, there = Checkpoint(path, FACTS, 10).load(CPU)

    assert there == place and found.keys() == state.keys()
    assert all(found[name].equal(state[name]) and found[name].dtype == state[name].dtype for name in state)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("recipe", "r-2"), ("data_sha256", "e"), ("models", ["m0"]), ("models", ["m1", "m0"]), ("engine", "ensemble"),
        ("device", "Some GPU"), ("torch", "2.10.0"), ("version", 0),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_named_and_stays_until_the_next_is_written(key, other, path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        if key == "version":
            patch.setattr(checkpoints, "VERSION", other)
        written(path, FACTS | ({} if key == "version" else {key: other}))
    before = path.read_bytes()

    assert Checkpoint(path, FACTS, 10).load(CPU) is None
    said = capsys.readouterr().err
    expected = FACTS.get(key, checkpoints.VERSION)
    assert said == f"not used: {path}: a checkpoint of another training ({key}: {other!r}, expected {expected!r}); training begins anew\n"
    assert path.read_bytes() == before

    written(path)
    assert Checkpoint(path, FACTS, 10).load(CPU) is not None and capsys.readouterr().err == ""


def test_of_many_models_a_sentence_names_the_first(path, capsys):
    written(path, FACTS | {"models": [f"m{i:04d}" for i in range(500)]})

    assert Checkpoint(path, FACTS, 10).load(CPU) is None
    assert "models: ['m0000', 'm0001'" in (said := capsys.readouterr().err) and " ..., expected ['m0', 'm1']" in said and len(said) < 500


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    return content[:-3] + bytes([content[-3] ^ 64]) + content[-2:]


def further(content):
    """Another place, as a flipped bit makes it."""
    return content.replace(b'\\"step\\": 2', b'\\"step\\": 3')


def not_ours(said):
    """A safetensors file of somebody else's, with such metadata."""

    def content(_):
        from safetensors.torch import save

        return save({"x": torch.zeros(3)}, metadata=said)

    return content


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cut, "truncated or not a checkpoint"),
        (lambda content: b"", "truncated or not a checkpoint"),
        (lambda content: b"\xff" * 500, "truncated or not a checkpoint"),
        (lambda content: b"not a checkpoint", "truncated or not a checkpoint"),
        (flipped, "its content is not what was written"),
        (further, "its content is not what was written"),
        (not_ours(None), "not a checkpoint of ours"),
        (not_ours({"format": "pt"}), "not a checkpoint of ours"),
        (not_ours({"memleak": "[1, 2]"}), "not a checkpoint of ours"),
        (not_ours({"memleak": "{"}), "truncated or not a checkpoint"),
        (not_ours({"memleak": json.dumps({"version": 1, "recipe": "r-1", "models": []})}), "not a checkpoint of ours"),  # a shard
        (not_ours({"memleak": json.dumps({"facts": FACTS | {"version": 1}, "place": {"epoch": 0}})}), "not a checkpoint of ours"),  # an early one
    ],
)
def test_a_file_that_is_broken_or_no_checkpoint_is_named_and_training_begins_anew(change, why, path, digits, capsys):
    recipe, task = recipe_of(MLP), ROUNDS.tasks(digits)[0]
    whole = fitted([task], digits, recipe)
    written(path)
    before = change(path.read_bytes())
    assert before != path.read_bytes()
    path.write_bytes(before)

    assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, 10)) == whole
    said = capsys.readouterr()
    assert said.err.startswith(f"not used: {path}: {why}") and said.err.endswith("; training begins anew\n") and said.err.count("\n") == 1
    assert "goes on" not in said.out and path.read_bytes() == before


def test_a_folder_in_its_place_is_named_and_training_goes_on(path, digits, capsys):
    path.mkdir(parents=True)
    recipe, task = recipe_of(MLP), ROUNDS.tasks(digits)[0]

    assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, 1e-9)) == fitted([task], digits, recipe)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["not used", "no checkpoint"]


# What cannot be written


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(kept, file, metadata):
    file.write_bytes(b"half")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def quota_in_rust(kept, file, metadata):
    file.write_bytes(b"half")
    raise SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")


def not_permitted(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("module", "name", "failing", "why"),
    [
        (checkpoints, "save_file", no_space, "the disk is full"),
        (checkpoints, "save_file", no_space_in_rust, "the disk is full"),
        (checkpoints, "save_file", quota_in_rust, "Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        (artefacts.os, "replace", no_space, "the disk is full"),
        (artefacts.os, "fsync", no_space, "the disk is full"),
        (artefacts.tempfile, "mkstemp", not_permitted, "no permission to write in {folder}"),
    ],
)
def test_a_disk_that_takes_nothing_is_said_once_and_training_goes_on(module, name, failing, why, path, digits, monkeypatch, capsys):
    """The state that was there before stays, whole; nothing else is left."""
    recipe, task = recipe_of(MLP), ROUNDS.tasks(digits)[0]
    whole = fitted([task], digits, recipe)
    with pytest.raises(Killed):
        fitted([task], digits, recipe, checkpoint=KilledAfter.steps(path, 3, FACTS))
    before = path.read_bytes()
    capsys.readouterr()

    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing)
        assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, minutes=1e-9)) == whole
    said = why.format(folder=path.parent)
    assert capsys.readouterr().err == f"no checkpoint: {path}: {said}; training goes on, but a kill may cost all of it\n"
    assert [file.name for file in path.parent.iterdir()] == [path.name] and path.read_bytes() == before


def test_a_file_that_may_grow_no_further_leaves_no_half(path, digits, capsys):
    """The system itself refuses: no file of this process may be larger than 2000 bytes."""
    recipe, task = recipe_of(MLP), ROUNDS.tasks(digits)[0]
    whole = fitted([task], digits, recipe)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert fitted([task], digits, recipe, checkpoint=Checkpoint(path, FACTS, minutes=1e-9)) == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert capsys.readouterr().err.count("no checkpoint") == 1 and list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_stops_no_training(tmp_path, capsys):
    (tmp_path / "store").write_text("a file")
    written(tmp_path / "store/checkpoint-m0.state")

    assert "; training goes on" in capsys.readouterr().err


def test_what_a_kill_while_writing_left_is_removed_and_nothing_else(path):
    """The system removes no temporary file of a process that was killed."""
    written(path)
    left, folder = (path.with_name(f".{path.name}.{name}.tmp") for name in ("a1b2c3d4", "e5f6g7h8"))
    folder.mkdir()
    (folder / ".tmpwOTLeE").write_bytes(b"half")  # as safetensors calls it
    others = [path.with_name(f".checkpoint-{other}.state.a1b2c3d4.tmp") for other in ("m00", "m1")] + [path.with_name("m0.safetensors")]
    for file in (left, *others):
        file.write_bytes(b"half")

    assert Checkpoint(path, FACTS, 10).load(CPU) is not None
    assert not left.exists() and not folder.exists() and all(file.exists() for file in others)


# When


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    hands = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def test_a_checkpoint_is_due_after_so_many_minutes_and_then_again(path, clock):
    checkpoint = Checkpoint(path, FACTS, minutes=2.5)
    assert not checkpoint.is_due
    clock.now += 149
    assert not checkpoint.is_due
    clock.now += 1
    assert checkpoint.is_due
    checkpoint.save({}, {})
    assert not checkpoint.is_due
    clock.now += 150
    assert checkpoint.is_due


def test_a_training_that_starts_again_waits_as_long_for_its_first(path, clock):
    """Not from when the file was written: between two there are always so many minutes of training."""
    written(path)
    clock.now += 3600
    checkpoint = Checkpoint(path, FACTS, minutes=10)

    assert checkpoint.load(CPU) is not None and not checkpoint.is_due
    clock.now += 600
    assert checkpoint.is_due


def test_after_a_failure_the_next_is_tried_when_it_is_due(path, clock, monkeypatch):
    """Not after each step: a disk that fails slowly would take all the time."""
    checkpoint = Checkpoint(path, FACTS, minutes=10)
    clock.now += 600
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", no_space)
        checkpoint.save({"x": torch.zeros(1)}, {})
    assert not checkpoint.is_due and not path.exists()
    clock.now += 600
    assert checkpoint.is_due
    checkpoint.save({"x": torch.zeros(1)}, {})

    assert checkpoint.load(CPU) is not None


def test_the_time_that_writing_takes_does_not_count(path, clock, monkeypatch):
    """A state that takes longer to write than the minutes between two is not written without end."""
    checkpoint = Checkpoint(path, FACTS, minutes=1)
    monkeypatch.setattr(checkpoints, "save_file", lambda *_, **__: setattr(clock, "now", clock.now + 300))
    checkpoint.save({"x": torch.zeros(1)}, {})

    assert not checkpoint.is_due


# In a shard

TRAINING = {engine: Training(engine=engine, checkpoint_minutes=1e-9) for engine in ("sequential", "ensemble")}  # after every step


class Job:
    """A job that trains a shard, and its store."""

    def __init__(self, folder, digits_path, monkeypatch):
        monkeypatch.chdir(folder)
        self.folder, self.digits_path, self.monkeypatch = folder, digits_path, monkeypatch
        self.recipe, self.store = recipe_of(MLP), folder / ".memleak/store/r"

    def run(self, training=TRAINING["sequential"], rounds=ROUNDS, recipe=None):
        output = self.folder / f"results/models/r/{rounds.name}.safetensors"
        stage.train(self.digits_path, "r", recipe or self.recipe, rounds, output, "cpu", training)
        return {model["model_id"]: model["weights_sha256"] for model in artefacts.read_shard_facts(output)["models"]}

    def killed(self, n_writes, training=TRAINING["sequential"], rounds=ROUNDS, recipe=None):
        """Run until so many checkpoints were written."""
        left, save = [n_writes], Checkpoint.save

        def save_and_end(checkpoint, tensors, place):
            save(checkpoint, tensors, place)
            left[0] -= 1
            if not left[0]:
                raise Killed

        with self.monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Checkpoint, "save", save_and_end)
            self.run(training, rounds, recipe)

    def names(self, pattern="checkpoint-*"):
        return sorted(path.name for path in self.store.glob(pattern))


@pytest.fixture
def job(tmp_path, digits_path, monkeypatch):
    (tmp_path / "one").mkdir()
    return Job(tmp_path / "one", digits_path, monkeypatch)


@pytest.fixture
def expected(tmp_path, digits_path, monkeypatch, capsys):
    """The models of a shard whose training nobody interrupted, by engine."""
    found = {}
    for engine in ("sequential", "ensemble"):
        (tmp_path / engine).mkdir()
        found[engine] = Job(tmp_path / engine, digits_path, monkeypatch).run(Training(engine=engine))
    return found


@pytest.mark.parametrize(("engine", "n_writes"), [("sequential", 3), ("sequential", 8), ("sequential", 9), ("sequential", 21), ("ensemble", 4)])
def test_a_shard_whose_job_was_killed_has_the_same_models_and_leaves_no_checkpoint(engine, n_writes, expected, job, capsys):
    """In its first model, at the end of it, in the next one; models that were finished are not trained again."""
    job.killed(n_writes, TRAINING[engine])
    assert len(job.names()) == 1
    done = (n_writes - 1) // 8 if engine == "sequential" else 0
    assert len(job.names("part-*")) == done
    capsys.readouterr()

    assert job.run(TRAINING[engine]) == expected[engine]
    said = capsys.readouterr()
    assert said.out.count("goes on after step") == 1 and f"{done} of {len(expected[engine])} models adopted" in said.out and said.err == ""
    assert [path.suffix for path in sorted(job.store.iterdir())] == [".lock", ".safetensors"]


def test_another_engine_does_not_go_on_from_it(expected, job, capsys):
    """Its bits are others: the checkpoint is named, and replaced by that of the engine that trains now."""
    job.killed(5, TRAINING["sequential"])

    assert job.run(TRAINING["ensemble"]) == expected["ensemble"]
    assert "engine: 'sequential', expected 'ensemble'" in capsys.readouterr().err and job.names() == []


def test_after_an_out_of_memory_the_smaller_stack_goes_on_from_its_own(job, monkeypatch, capsys):
    """A rerun tries the larger one again: it leaves the file alone, and so does its failure."""
    train = ensemble.train

    def small_memory(tasks, *others):
        if len(tasks) > 2:
            others[-1].load(CPU)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(tasks, *others)

    monkeypatch.setattr(ensemble, "train", small_memory)
    training = TRAINING["ensemble"].model_copy(update={"stack": 4})
    job.killed(5, training)
    capsys.readouterr()
    job.run(training)

    said = capsys.readouterr()
    assert "a checkpoint of another training (models: " in said.err and "goes on after step 1 of 4 in epoch 2 of 2" in said.out


def test_a_checkpoint_is_no_model(job, digits_path):
    """Neither for the store nor for `memleak budget`, even where it holds the whole state of a model."""
    job.killed(8)
    (name,) = job.names()
    model_id = ROUNDS.tasks(data.read(digits_path))[0].model_id
    digest = stage.provenance.digest(data.read(digits_path).facts["sha256"], 64)

    assert name == f"checkpoint-{model_id}.state"
    assert Store("r", digest, job.folder / "results/models/r").find([model_id]) == {}
    assert not set(job.store.iterdir()) & set(job.store.glob("*.safetensors"))
    shelf = cost.shelf_of("r", digest)
    assert shelf.models == {} and shelf.broken == []


def test_the_checkpoint_of_the_last_model_goes_when_the_shard_is_kept_and_not_before(expected, job, monkeypatch, capsys):
    """Hours of training would hang on a disk that is full in the wrong moment."""
    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep", lambda *_: no_space())
        with pytest.raises(OSError, match="No space left"):
            job.run()
    assert len(job.names()) == 1
    capsys.readouterr()

    assert job.run() == expected["sequential"]
    assert "goes on after step 4 of 4 in epoch 2 of 2" in capsys.readouterr().out and job.names() == []


def test_checkpoints_of_another_cut_do_not_stay(expected, job):
    """A model that began a group begins none any more: nobody would ask for its checkpoint."""
    job.killed(2, rounds=Rounds("atypical00", 64, 0, "fit", 2, 3))
    assert len(job.names()) == 1

    assert job.run(TRAINING["ensemble"]) == expected["ensemble"]
    assert job.names() == []


def test_a_training_that_diverged_does_not_go_on_from_there(job, capsys):
    """The rerun begins anew, rather than at what is no number any more."""
    wild = recipe_of(MLP | {"learning_rate": 1e30})
    for _ in range(2):
        with pytest.raises(TrainingDiverged, match="in epoch 1 of 2; lower learning_rate"):
            job.run(recipe=wild)
        assert job.names() == [] and "goes on" not in capsys.readouterr().out


def test_two_jobs_that_share_a_store_and_a_model_disturb_only_each_others_checkpoints(expected, job, capsys):
    """Shards of other sizes have other locks, and their first models' checkpoints one name.

    Whoever is killed goes on from the other's state where that is its own to the bit, and begins anew where it is not.
    """
    part = Rounds("atypical00", 64, 0, "fit", 0, 2)
    job.killed(3)
    job.killed(2, rounds=part)  # goes on from there, alone: to the fifth step
    assert len(job.names()) == 1
    job.killed(2, TRAINING["ensemble"], rounds=part)  # overwrites
    capsys.readouterr()

    assert job.run() == expected["sequential"]
    assert "engine: 'ensemble" in capsys.readouterr().err and job.names() == []


def test_a_checkpoint_that_vanishes_or_is_replaced_while_training_goes_on_does_no_harm(expected, job, monkeypatch):
    """The other job of a shared store removes it, or what is being written of it."""
    save, calls = Checkpoint.save, []

    def disturbed(checkpoint, tensors, place):
        save(checkpoint, tensors, place)
        calls.append(1)
        if len(calls) % 2:
            checkpoint.remove()
        else:
            save_file({"x": torch.zeros(1)}, checkpoint.path)

    monkeypatch.setattr(Checkpoint, "save", disturbed)

    assert job.run() == expected["sequential"] and len(calls) > 8
    assert job.names() == []


def test_a_half_that_the_other_job_removes_while_it_is_written_is_said_and_training_goes_on(path, monkeypatch, capsys):
    def removed(kept, file, metadata):
        save_file(kept, file, metadata=metadata)
        Checkpoint(path, FACTS, 10).load(CPU)

    monkeypatch.setattr(checkpoints, "save_file", removed)
    written(path)

    assert "no checkpoint" in capsys.readouterr().err and not path.exists()


def test_a_checkpoint_that_the_other_job_removes_while_it_is_opened_is_not_used(path, monkeypatch, capsys):
    """The library opens a file twice, and torch says so in its own way when it is gone by the second time."""
    written(path)

    def removed(name, framework):
        os.unlink(name)
        return torch.UntypedStorage.from_file(str(name), False, 8)

    monkeypatch.setattr(checkpoints, "safe_open", removed)

    assert Checkpoint(path, FACTS, 10).load(CPU) is None
    assert "No such file or directory" in (said := capsys.readouterr().err) and said.endswith("training begins anew\n")


def test_a_checkpoint_holds_all_that_changes(job):
    """Weights, statistics, optimiser, average and the running sums of the epoch, and the curves beside them."""
    job.killed(6, recipe=recipe_of(RECIPES["batch norm, average, adamw"]))
    (path,) = job.store.glob("checkpoint-*")
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["memleak"])

    parts = {name.partition("/")[0] for name in load_file(path)}
    assert parts == {"network", "optimizer", "average", "epoch"}
    assert (said["place"]["epoch"], said["place"]["step"]) == (1, 2) and [len(said["place"][curve]) for curve in ("losses", "accuracies")] == [1, 1]
    assert said["facts"].keys() == {"recipe", "data_sha256", "models", "engine", "device", "torch", "version"}
