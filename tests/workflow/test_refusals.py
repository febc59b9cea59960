"""What cannot be is refused in one sentence, and leaves nothing behind."""

import shutil

import pytest

pytestmark = pytest.mark.workflow

MY_NETWORK = """
from torch import nn

class Centred(nn.BatchNorm1d):
    pass

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = {body}, nn.Linear(8, 10)

    def forward(self, images):
        x = images[:, 0]  # rows of eight pixels
        return self.head({answer}.mean(1))

def build():
    return Network()
"""


def files(folder):
    """All files but Snakemake's own."""
    return {path for path in folder.files("**/*") if path.is_file() and not {".snakemake", "__pycache__"} & set(path.parts)}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("audits.first.design.rouds", 4, "unknown key 'rouds'"),
        ("audits.first.design.subset_size", 1800, "1800 records asked for, the pool has 1797"),
        ("datasets.digits.name", "digit", "digits"),
        ("recipes.tiny.dp", {"noise_multiplier": 0}, "recipes.tiny.dp.noise_multiplier: should be greater than 0, found 0"),
        ("recipes.tiny.dp", {"epsilon": 4, "clip": -1}, "recipes.tiny.dp.clip: should be greater than 0, found -1"),
        ("recipes.tiny.dp", {"epsilon": 4, "noise_multiplier": 1}, "expected noise_multiplier or epsilon, both are (1.0 and 4.0) given"),
        ("recipes.tiny.distillation", {"records": 100}, "distillation takes 100 records that are neither trained on nor audited, and the pool is the whole"),
        ("audits.first.sweep", {"recipe": {"private": {"dp": {"epsilon": 4}, "mixup": 1.0}}}, "mixup does not go with it"),
        ("audits.first.sweep", {"release": {"few": ["labels", {"top_k": 3}]}}, "top_k comes after labels, which leave nothing to change; put labels last"),
    ],
    ids=[
        "misspelt key", "subset larger than the pool", "unknown data set", "no noise", "clipping below zero", "noise and epsilon", "no public data",
        "private mixup in a sweep", "a release of nothing",
    ],
)  # fmt: skip
def test_params_that_cannot_be_are_refused_before_anything_runs(fresh, key, value, sentence):
    """Exit code, one sentence with the place and what was expected, no file, no traceback."""
    fresh.set(key, value)
    before = files(fresh)
    done = fresh.snakemake()

    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if line.startswith("params.yaml: ") and sentence in line], done.stdout
    assert "Traceback" not in done.stdout and files(fresh) == before


def test_a_training_that_diverges_is_named_and_leaves_no_shard(fresh):
    """The sentence names model, epoch and what to do."""
    fresh.set("recipes.tiny.learning_rate", 1e20)
    fresh.set("audits.first.design.holdout_rounds", 0)
    done = fresh.snakemake("models")

    assert done.returncode != 0 and "Traceback" not in done.stdout
    said = "".join(log.read_text() for log in fresh.files("logs/train/*/base-*.log"))
    assert "base-n60-s0-m0000: the loss is nan in epoch" in said and "lower learning_rate" in said
    assert not fresh.files("results/models/*/*") and not fresh.files(".memleak/store/*/*.safetensors")


def said_by_training(folder):
    """What the jobs that train said when the workflow failed, each line once; nothing was trained, and there is no traceback."""
    folder.set("audits.first.design.holdout_rounds", 0)
    done = folder.snakemake("models")
    said = "".join(log.read_text() for log in folder.files("logs/train/*/*.log"))

    assert done.returncode != 0 and "Traceback" not in done.stdout + said
    assert not folder.files("results/models/*/*") and not folder.files(".memleak/store/*/*.safetensors")
    return {line for line in said.splitlines() if line.startswith("memleak train: ")}


def test_an_epsilon_out_of_reach_says_what_was_asked_over_how_many_steps_and_what_to_do(fresh):
    """60 records and a target, or a record in its place: 6 steps of 20 records each."""
    fresh.set("recipes.tiny.dp", {"epsilon": 1e-6, "delta": 1e-9, "accountant": "rdp"})

    (said,) = said_by_training(fresh)

    assert said.startswith("memleak train: dp: epsilon 1e-06 at delta 1e-09 cannot be reached in 6 steps in which a record takes part with prob")
    assert said.endswith("train for fewer epochs, ask for a larger epsilon, or make batch_size smaller")


@pytest.mark.parametrize(
    ("body", "answer", "sentence"),
    [
        ("nn.InstanceNorm1d(8, track_running_stats=True)", "self.body(x)", "the module 'body' (InstanceNorm1d) keeps statistics of the records, which are not private; give it track_running_stats=False"),
        ("Centred(8)", "self.body(x)", "the module 'body' (Centred) mixes the records of a batch, and Opacus does not know it; use torch.nn.GroupNorm or BatchNorm2d itself"),
        ("nn.Linear(8, 8)", "self.body(x - x.mean(0))", "the gradient of one record in 'body' (Linear) depends on the others of its batch, so clipping cannot bound it; let `forward` treat every record alone, with records along the first axis"),
    ],
    ids=["statistics of records", "a batch norm of its own", "records that are mixed between layers"],
)  # fmt: skip
def test_a_network_that_opacus_cannot_handle_is_refused_with_its_module_and_the_fix(fresh, body, answer, sentence):
    (fresh / "my_network.py").write_text(MY_NETWORK.format(body=body, answer=answer))
    fresh.set("recipes.tiny.architecture", "my_network.py:build")
    fresh.set("recipes.tiny.dp", {"noise_multiplier": 1})

    assert said_by_training(fresh) == {f"memleak train: my_network.py:build: dp: {sentence}"}


def test_a_shard_that_is_cut_short_or_of_another_recipe_is_refused(finished):
    """The job `query` names the file; signals are not made from it."""
    base, with_target = (finished.files(f"results/models/*/{kind}-*-m*.safetensors")[0] for kind in ("base", "with"))
    foreign = base.read_bytes().replace(b"tiny-", b"tuny-")
    base.unlink()
    base.write_bytes(foreign)
    cut = with_target.read_bytes()[:-100]
    with_target.unlink()
    with_target.write_bytes(cut)
    shutil.rmtree(finished / "results/signals")
    done = finished.snakemake()

    assert done.returncode != 0 and "Traceback" not in done.stdout
    said = "".join(log.read_text() for log in finished.files("logs/query/*/*/*-m*.log"))
    assert f"{base.relative_to(finished.path)}: holds {base.stem} of recipe tuny-" in said
    assert f"{with_target.relative_to(finished.path)}: truncated" in said
    assert not finished.files("results/signals/*/*/*-m*.parquet")
