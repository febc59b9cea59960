"""One job a GPU: which GPUs there are, who holds which, and what torch gets to see. The devices are pretended; the processes are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from memleak import provenance
from memleak.training import devices, gpus

HOLD = """
import sys
from pathlib import Path
from memleak.training import gpus
print(gpus.wait_for(sys.argv[1].split(","), Path(sys.argv[2]), poll_seconds=0.02), flush=True)
assert "torch" not in sys.modules
sys.stdin.read()
"""
WORK = """
import os, sys, time
from pathlib import Path
from memleak.training import gpus
gpu = gpus.wait_for(sys.argv[1].split(","), Path(sys.argv[2]), poll_seconds=0.01)
log = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(log, f"begins {gpu}\\n".encode())
time.sleep(0.05)
os.write(log, f"ends {gpu}\\n".encode())
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The /dev of a machine with two GPUs, and no word about either in the environment."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.setattr(provenance, "_DEVICES", tmp_path / "dev")
    for name in ("CUDA_VISIBLE_DEVICES", gpus.OURS, "SLURM_JOB_ID", "SLURM_STEP_ID"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone, whoever sets it
        monkeypatch.delenv(name)
    monkeypatch.setenv("MEMLEAK_LOCKS", str(tmp_path / "locks"))
    return tmp_path


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended when the test is."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def _start(program: str, visible: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, visible, str(folder), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, ["0", "1"]),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,0", ["0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),
        ("0,7,1", ["0"]),
        ("GPU-8932f937,MIG-GPU-8932f937/1/0", ["GPU-8932f937", "MIG-GPU-8932f937/1/0"]),
    ],
)
def test_the_gpus_to_be_used_are_those_that_cuda_would_see(machine, monkeypatch, named, found):
    """CUDA reads its list up to the first entry that names no device."""
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)

    assert provenance.visible_gpus() == found
    assert provenance.n_gpus() == len(found) and provenance.has_gpu() == bool(found)


def test_a_machine_without_a_driver_has_no_gpus_whatever_the_environment_says(machine, monkeypatch):
    monkeypatch.setattr(provenance, "_DEVICES", machine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-8932f937")

    assert provenance.visible_gpus() == []
    assert gpus.claim() is None and os.environ["CUDA_VISIBLE_DEVICES"] == "0,GPU-8932f937"


def test_two_jobs_hold_a_gpu_each_the_third_waits_and_gets_that_of_a_killed_one(tmp_path, started):
    for gpu in ("0", "GPU-7"):
        started.append(_start(HOLD, "0,GPU-7", tmp_path))
        assert started[-1].stdout.readline().strip() == gpu
    third = _start(HOLD, "0,GPU-7", tmp_path)
    started.append(third)
    assert third.stdout.readline().startswith("all 2 GPUs are held by other jobs")

    started[1].send_signal(signal.SIGKILL)
    assert third.stdout.readline().strip() == "GPU-7"  # and it waited without a second word
    assert third.poll() is None and started[0].poll() is None


def test_many_jobs_never_share_a_gpu(tmp_path, started):
    log = tmp_path / "log"
    started += [_start(WORK, "0,1,MIG-GPU-8932f937/1/0", tmp_path, str(log)) for _ in range(8)]
    for process in started:
        assert process.wait(timeout=60) == 0

    busy: set[str] = set()
    lines = [line.split() for line in log.read_text().splitlines()]
    for what, gpu in lines:
        assert (gpu in busy) == (what == "ends")
        (busy.add if what == "begins" else busy.remove)(gpu)
    assert len(lines) == 16 and not busy


def test_a_job_shows_torch_its_own_gpu_alone(machine, started):
    started.append(_start(HOLD, "0", gpus.lock_folder()))
    assert started[0].stdout.readline().strip() == "0"

    assert gpus.claim() == "1" and os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert gpus.claim() == "1"  # a second call, or a process that this one starts, waits for nobody
    assert provenance.visible_gpus() == ["1"]


def test_jobs_of_two_slurm_jobs_do_not_wait_for_one_another(machine, monkeypatch):
    """Either may call its own GPU 0."""
    folder = gpus.lock_folder()
    held = []
    for job in ("11", "12"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        held.append(gpus.take(["0"], folder))

    assert [found and found[0] for found in held] == ["0", "0"]
    assert gpus.take(["0"], folder) is None  # within one of them they do
    for found in held:
        os.close(found[1])
    assert gpus.take(["0"], folder) is not None


def test_locks_lie_where_all_jobs_of_the_user_find_them(machine, monkeypatch):
    monkeypatch.delenv("MEMLEAK_LOCKS")
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(machine))

    folder = gpus.lock_folder()
    assert folder == machine / f"memleak-gpu-{os.getuid()}" and folder.stat().st_mode & 0o777 == 0o700
    assert gpus.lock_folder() == folder


def test_a_folder_of_somebody_else_is_not_used(machine, monkeypatch):
    """Anybody may make a folder among the temporary files before we do."""
    monkeypatch.delenv("MEMLEAK_LOCKS")
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(machine))
    another = os.getuid() + 1
    (machine / f"memleak-gpu-{another}").mkdir()
    monkeypatch.setattr(gpus.os, "getuid", lambda: another)

    with pytest.raises(gpus.DeviceError, match=r"belongs to somebody else.*set MEMLEAK_LOCKS"):
        gpus.lock_folder()


def test_locks_that_cannot_be_written_are_named(machine, monkeypatch):
    (machine / "file").touch()
    for folder in ("file", "file/below"):
        monkeypatch.setenv("MEMLEAK_LOCKS", str(machine / folder))
        with pytest.raises(gpus.DeviceError, match=r"file.*no folder for the locks of GPUs"):
            gpus.lock_folder()
    with pytest.raises(gpus.DeviceError, match="cannot be opened"):
        gpus.take(["0"], machine / "file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_cannot_use_is_said_so_and_auto_goes_on(machine, capsys):
    assert devices.prepare_torch("auto") == torch.device("cpu")
    assert "torch cannot use a GPU (is GPU 0 there" in capsys.readouterr().out
    with pytest.raises(gpus.DeviceError, match=r"torch sees no GPU here \(is GPU 0"):
        devices.prepare_torch("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_hidden_gpu_is_said_to_be_hidden(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    with pytest.raises(gpus.DeviceError, match="CUDA_VISIBLE_DEVICES is ''"):
        devices.prepare_torch("cuda")


def test_a_cpu_job_takes_no_gpu(machine):
    assert devices.prepare_torch("cpu") == torch.device("cpu")
    assert devices.device_name(torch.device("cpu")) == "cpu"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and not (machine / "locks").exists()
