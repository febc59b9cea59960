"""The device that a job computes on, and torch set up to give the same bits every time."""

from __future__ import annotations

import contextlib
import ctypes
import os

import torch

from memleak.training import gpus


def prepare_torch(wish: str) -> torch.device:
    """The device that `wish` (auto, cpu or cuda) stands for, set up to give the same bits every time.

    One thread a job on a CPU: jobs run side by side, and results do not depend on the number of cores. Of several
    GPUs the job takes the first that is free, and waits where all are taken.
    """
    device = _device(wish)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # gradients of a fitted model are tiny, and denormals are slow
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), without importing the compiler
    # or every new tensor would be written twice; no operation of ours reads what it did not write
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is float32, unless a recipe says tf32
    _keep_freed_memory()
    return device


def _device(wish: str) -> torch.device:
    """The GPU that this job takes for itself, or the CPU."""
    gpu = None
    if wish != "cpu" and torch.backends.cuda.is_built() and not torch.cuda.is_initialized():
        gpu = gpus.claim()
    if wish != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if wish == "cuda":
        raise gpus.DeviceError(f"device: cuda is asked for, but torch sees no GPU here{_why_none(gpu)}; use `device: auto` or `cpu`")
    if gpu is not None:
        print(f"device: auto: torch cannot use a GPU{_why_none(gpu)}; going on with the CPU", flush=True)
    return torch.device("cpu")


def _why_none(gpu: str | None) -> str:
    """What is known about why torch sees no GPU, in brackets."""
    if not torch.backends.cuda.is_built():
        return f" (torch {torch.__version__} is built for CPUs)"
    if gpu is not None:
        return f" (is GPU {gpu} there, and does its driver suit torch {torch.__version__}?)"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return f" (CUDA_VISIBLE_DEVICES is '{os.environ['CUDA_VISIBLE_DEVICES']}')"
    return ""


def _keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next step, not return it and fetch cleared pages again."""
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h of glibc; other C libraries have no such setting
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(trim_threshold, 1 << 30)
        set_option(mmap_threshold, 1 << 30) or set_option(mmap_threshold, 1 << 25)  # before glibc 2.35: 32 MiB at most


def device_name(device: torch.device) -> str:
    """What the device is called: the GPU's product name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
