"""What was trained once is never trained again: not after an edit, a loss, or a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from memleak.artefacts import read_shard_facts
from memleak.training.store import read_model

pytestmark = pytest.mark.workflow


def same_tensors(path, other):
    """Whether two shards hold the same weights, bit for bit."""
    left, right = load_file(path), load_file(other)
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def test_a_lost_shard_comes_back_from_the_store_and_without_the_store_bit_for_bit(finished, finished_run):
    """With the store nothing is trained; without it the shard is trained to the same bits."""
    shard = finished.files("results/models/*/base-*-m*.safetensors")[0]
    original = finished_run / shard.relative_to(finished.path).as_posix()

    shard.unlink()
    assert finished.run("models") == 0
    assert same_tensors(shard, original) and finished.planned() == {}

    shard.unlink()
    shutil.rmtree(finished / ".memleak")
    assert finished.run("models") == 4
    assert same_tensors(shard, original)


def test_an_edited_rule_trains_nothing(finished, n_shards):
    """Docstring and log path rerun no job; another text of the command reruns the jobs, which adopt every model."""
    finished.edit("workflow/rules/models.smk", "Train one shard", "Make one shard")
    finished.edit("workflow/rules/models.smk", '"logs/train/{recipe}', '"logs/train/./{recipe}')
    assert finished.planned() == {}

    finished.edit("workflow/rules/models.smk", "memleak train --data", "memleak train  --data")
    assert finished.planned("models") == {"train": n_shards}
    assert finished.run("models") == 0


def test_another_number_of_models_per_shard_trains_nothing(finished):
    """Rounds 0 to 4 as shards of three: other files, the same models."""
    finished.set("models_per_shard", 3)

    assert finished.planned("models") == {"train": 4}
    assert finished.run("models") == 0


def train_jobs(folder):
    """The `memleak train` processes at work in a folder."""
    found = [process.info for process in psutil.process_iter(["cmdline", "cwd", "status"])]
    at_work = [info for info in found if info["cwd"] == str(folder.path.resolve()) and info["status"] != psutil.STATUS_ZOMBIE]
    return [info["cmdline"] for info in at_work if {"memleak", "train"} <= set(info["cmdline"] or [])]


def wait_until(condition, seconds):
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("is_whole_group", [False, True], ids=["snakemake alone", "the whole group"])
def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(fresh, bare, is_whole_group):
    """After SIGKILL in mid-training: no orphan, the lock is removed by one command, finished models are kept."""
    fresh.set("recipes.tiny.epochs", 300)
    fresh.set("audits.first.design.holdout_rounds", 0)  # two shards of four models, trained side by side
    with open(fresh / "output.txt", "w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", "models"],
            cwd=fresh.path, env=bare(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        assert wait_until(lambda: fresh.files("logs/train/*/*.log"), 120), (fresh / "output.txt").read_text()
        assert fresh.memleak("unlock").stdout == "" and fresh.files(".snakemake/locks/*")  # somebody is at work
        assert wait_until(fresh.n_trained, 120) and train_jobs(fresh), (fresh / "output.txt").read_text()
    finally:
        (os.killpg if is_whole_group else os.kill)(run.pid, signal.SIGKILL)
        run.wait()

    assert wait_until(lambda: not train_jobs(fresh), 10)
    n_before = fresh.n_trained()
    assert "removed" in fresh.memleak("unlock").stdout and not fresh.files(".snakemake/locks/*")
    n_after = fresh.run("models")

    assert 0 < n_before < 8 and n_after < 8
    assert 8 <= n_before + n_after <= 8 + 2  # two jobs were at work
    for path in fresh.files(".memleak/store/*/*.safetensors"):
        facts = read_shard_facts(path)
        assert all(read_model(path, position, facts) for position in range(len(facts["models"])))
