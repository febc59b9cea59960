"""One job a GPU: which of the visible GPUs is this job's, settled among all jobs of a user by lock files.

Snakemake counts GPUs but names none, and two workflows know nothing of each other. So each job takes the first GPU
that no other job holds, and shows torch that one alone. No torch is needed for that.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from memleak import provenance

OURS = "MEMLEAK_GPU"  # the GPU that this process or the one that started it holds


class DeviceError(ValueError):
    """A device that cannot be had; the text says why and what to do."""


def lock_folder() -> Path:
    """Where the locks of all jobs of this user on this machine lie: MEMLEAK_LOCKS, or a folder among the temporary files.

    A Slurm job has locks of its own: Slurm sees to it that jobs share no GPU, but may count those of each job from 0.
    """
    chosen = os.environ.get("MEMLEAK_LOCKS")
    folder = Path(chosen or f"{tempfile.gettempdir()}/memleak-gpu-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen and folder.lstat().st_uid != os.getuid():  # anybody may write among the temporary files
            raise PermissionError(None, "it belongs to somebody else")
    except OSError as error:
        raise DeviceError(f"{folder}: no folder for the locks of GPUs ({error.strerror}); set MEMLEAK_LOCKS to a folder of your own") from None
    return folder


def lock_name(gpu: str) -> str:
    """The name of a GPU's lock file."""
    job = "-".join(os.environ[key] for key in ("SLURM_JOB_ID", "SLURM_STEP_ID") if key in os.environ)
    return re.sub(r"[^\w-]", "_", f"slurm-{job}-{gpu}" if job else gpu) + ".lock"


def take(visible: Sequence[str], folder: Path) -> tuple[str, int] | None:
    """The first GPU that nobody holds, and the open file that holds it from now on; None where all are held.

    The system lets go of it when the process ends, however it ends. The file stays: removing it would let two jobs lock
    two files of one name.
    """
    for gpu in visible:
        try:
            file = os.open(folder / lock_name(gpu), os.O_RDONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise DeviceError(f"{folder / lock_name(gpu)}: cannot be opened ({error.strerror}); set MEMLEAK_LOCKS to a folder of your own") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return gpu, file
    return None


def wait_for(visible: Sequence[str], folder: Path, poll_seconds: float = 1.0) -> str:
    """The GPU that is this process's until it ends; waits until one of them is free."""
    if (found := take(visible, folder)) is None:
        which = f"all {len(visible)} GPUs are" if len(visible) > 1 else f"GPU {visible[0]} is"
        print(f"{which} held by other jobs (locks in {folder}); waiting", flush=True)
        while (found := take(visible, folder)) is None:
            time.sleep(poll_seconds)
    return found[0]  # its file is never closed


def claim() -> str | None:
    """Hold one of the visible GPUs and hide the others from torch. None where none is seen.

    Must come before torch starts CUDA, which reads CUDA_VISIBLE_DEVICES once.
    """
    visible = provenance.visible_gpus()
    if not visible:
        return None
    if visible != [os.environ.get(OURS)]:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[OURS] = wait_for(visible, lock_folder())
    return os.environ[OURS]
