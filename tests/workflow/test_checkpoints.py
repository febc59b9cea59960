"""A job that is killed in the middle of a model goes on where it stood."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from memleak import artefacts
from memleak.designs import Rounds, shard_json
from memleak.training.store import read_model, weights_sha256

pytestmark = pytest.mark.workflow

SHARD = Rounds("atypical00", 64, 0, "fit", 0, 2)
RECIPE = {  # 160 steps a model
    "architecture": "small_cnn", "channels": [4], "hidden": [8], "dropout": 0.2, "shift": 1, "epochs": 40, "batch_size": 16,
    "optimizer": "adamw", "learning_rate": 0.003, "ema": 0.99, "schedule": "cosine",
}  # fmt: skip


class Job:
    """`memleak train` in a process of its own, with a store of its own."""

    def __init__(self, folder: Path, digits_path: Path, bare, engine: str) -> None:
        folder.mkdir()
        self.folder, self.store, self.engine = folder, folder / "store/r", engine
        self.output, self.log = folder / f"models/r/{SHARD.name}.safetensors", folder / "log"
        self.arguments = [
            sys.executable, "-m", "memleak", "train", "--data", str(digits_path), "--recipe", json.dumps({"name": "r", "recipe": RECIPE}),
            "--shard", json.dumps(shard_json(SHARD)), "--output", str(self.output), "--device", "cpu",
        ]  # fmt: skip
        self.environment = bare(PYTHONPATH=str(Path(artefacts.__file__).parents[1]), MEMLEAK_STORE=str(folder / "store"), OMP_NUM_THREADS="1")

    def start(self, minutes: float) -> subprocess.Popen[str]:
        training = json.dumps({"engine": self.engine, "checkpoint_minutes": minutes})
        with open(self.log, "w") as log:
            command = [*self.arguments, "--training", training]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True)

    def run(self) -> str:
        """Run to the end; returns what the job said."""
        assert self.start(minutes=10).wait(300) == 0, self.log.read_text()
        return self.log.read_text()

    def kill_in(self, epoch: int) -> dict[str, Any]:
        """Kill the job once the state of so late an epoch is written; returns where the state stands that it leaves."""
        job = self.start(minutes=1e-9)
        try:
            deadline = time.monotonic() + 120
            while (self.place() or {"epoch": -1})["epoch"] < epoch:
                assert job.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)
        finally:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
        place = self.place()
        assert place is not None and not self.output.exists()
        return place

    def place(self) -> dict[str, Any] | None:
        for path in self.store.glob("checkpoint-*.state"):
            try:
                with safe_open(path, framework="pt") as file:
                    return json.loads(file.metadata()["memleak"])["place"]
            except (SafetensorError, OSError):  # of a model that was just finished
                continue
        return None

    def models(self) -> dict[str, Any]:
        """Digest of each model's weights, computed from the tensors, and its curves."""
        facts = artefacts.read_shard_facts(self.output)
        digests = [weights_sha256(read_model(self.output, i, facts)) for i in range(len(facts["models"]))]
        return {model["model_id"]: (sha256, model["loss_curve"], model["engine"]) for model, sha256 in zip(facts["models"], digests, strict=True)}


@pytest.mark.parametrize("engine", ["sequential", "ensemble"])
def test_a_job_killed_in_the_middle_of_a_model_goes_on_and_gives_the_same_bits(engine, tmp_path, digits_path, bare):
    """SIGKILL twice, the second time in what went on; then the shard is that of a job that nobody disturbed."""
    whole = Job(tmp_path / "whole", digits_path, bare, engine)
    said = whole.run()
    job = Job(tmp_path / "killed", digits_path, bare, engine)

    assert "goes on" not in said and len(whole.models()) >= 2
    job.kill_in(epoch=3)
    assert "goes on" not in job.log.read_text()
    second = job.kill_in(epoch=12)
    assert "goes on after step" in job.log.read_text()
    said = job.run()

    assert f"goes on after step {second['step']} of 4 in epoch {second['epoch'] + 1} of 40" in said
    assert job.models() == whole.models()
    assert {trained_by for *_, trained_by in job.models().values()} == {engine}
    assert re.search(r"^not used|^no checkpoint", said, re.MULTILINE) is None
    assert sorted(path.suffix for path in job.store.iterdir()) == [".lock", ".safetensors"]
