"""How fast are several models as one program, beside one after another and beside a plain PyTorch loop?

The same models on the same records, in turn and repeated, on one device and one thread:

    loader      a plain loop: a DataLoader over records in memory (images: torchvision's transforms where the recipe
                augments), the model as built, torch.optim.SGD or AdamW, no setting of ours
    indexed     the same, with records already on the device, taken by a random permutation, and not augmented: the fastest plain loop
    sequential  memleak, one model after another
    ensemble N  memleak, N models as one program

    python benchmarks/engines.py digits-mlp digits-cnn
    MEMLEAK_TEST_DATA=... python benchmarks/engines.py cifar-cnn cifar-fast --device auto --stacks 4 16

Milliseconds are those of one step of one model (all that a model's steps take, drawing batches and copying records to the
device included; evaluation and start-up not). Ratios are medians over the repeats, each over its own round, so that
a busy machine disturbs all alike. `share` is the model's floating-point rate as a part of what a matrix product of 2,048
rows reaches in the same round. The last column says how much memory the process (on a GPU: the device) held at most.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from memleak import data, params, plugins
from memleak.designs import Complements, Task
from memleak.training import devices, engines, ensemble, loop


def dataset_of(recipe: str, folder: Path, n: int) -> data.Dataset:
    """Digits, or the first n images of CIFAR-10."""
    path = folder / recipe.split("-")[0] / "dataset.json"
    if not path.exists():
        if recipe.startswith("digits"):
            data.prepare(params.Dataset(name="digits"), path)
        else:
            from memleak.data.images import read_parquet

            source = Path(os.environ["MEMLEAK_TEST_DATA"]) / "cifar10/train.parquet"
            samples = read_parquet(source)
            plugins.BUILT_IN["datasets"]["some"] = "memleak.data.images:load_cifar10"
            few = data.Samples(samples.inputs[:n], samples.labels[:n])
            data.images.load_cifar10 = lambda _: few  # type: ignore[attr-defined]
            data.prepare(params.Dataset(name="some"), path)
    return data.read(path)


class Augmented(torch.utils.data.Dataset):
    """Images that are transformed one by one, as torchvision's own data sets do it."""

    def __init__(self, dataset: data.Dataset, rows: np.ndarray, recipe: params.Recipe) -> None:
        from PIL import Image
        from torchvision import transforms

        self.images, self.labels = [Image.fromarray(image) for image in dataset.inputs[rows]], dataset.labels[rows].tolist()
        mean, std = (np.array(dataset.facts[key]) / 255 for key in ("mean", "std"))
        moves = [transforms.RandomCrop(dataset.shape[0], padding=recipe.shift)] if recipe.shift else []
        moves += [transforms.RandomHorizontalFlip()] if recipe.flip else []
        self.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[row]), self.labels[row]


def tensors_of(dataset: data.Dataset, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (np.array(dataset.facts[key], dtype=np.float32) for key in ("mean", "std"))
    inputs = torch.from_numpy((dataset.inputs[rows] - mean) / std)
    return (inputs.permute(0, 3, 1, 2).contiguous() if inputs.dim() == 4 else inputs), torch.from_numpy(dataset.labels[rows])


def plain(tasks: list[Task], dataset: data.Dataset, recipe: params.Recipe, device: torch.device, *, with_loader: bool) -> None:
    """Train one model after another as one would write it."""
    for task in tasks:
        model = plugins.function_of("architectures", recipe.architecture)(dataset.shape, dataset.n_classes, recipe).to(device)
        if recipe.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        else:
            optimizer = torch.optim.SGD(
                model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
            )
        inputs, labels = tensors_of(dataset, task.sample_ids)
        is_augmented = bool(recipe.flip or recipe.shift)
        records: Any = Augmented(dataset, task.sample_ids, recipe) if is_augmented else TensorDataset(inputs, labels)
        loader = DataLoader(records, batch_size=recipe.batch_size, shuffle=True)
        inputs, labels = inputs.to(device), labels.to(device)
        for _ in range(recipe.epochs):
            order = torch.randperm(len(inputs), device=device).split(recipe.batch_size)
            for batch in loader if with_loader else order:
                x, y = batch if with_loader else (inputs[batch], labels[batch])
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x.to(device)), y.to(device), label_smoothing=recipe.label_smoothing).backward()
                optimizer.step()


def ours(tasks: list[Task], dataset: data.Dataset, recipe: params.Recipe, device: torch.device, n_stacked: int) -> None:
    for group in engines.groups(tasks, n_stacked, recipe.batch_size):
        networks = [loop.initial(task, dataset, recipe, device) for task in group]
        loop.fit(ensemble.program_of(networks, recipe, dataset.shape), group, dataset, recipe, device)


def seconds(function: Callable[..., None], *arguments: Any, device: torch.device, **more: Any) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    function(*arguments, **more)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def product(device: torch.device, size: int = 2048) -> float:
    """Floating-point operations of a matrix product in a second."""
    left = torch.rand(size, size, device=device)
    left @ left
    return max(2 * size**3 / seconds(lambda: left @ left, device=device) for _ in range(3))


def memory(device: torch.device) -> float:
    """The most that was held so far, in MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(preset: str, args: argparse.Namespace, folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Print the medians of one recipe, and return them."""
    changed = {"epochs": args.epochs} | json.loads(args.change)
    recipe = params.Recipe.model_validate({"preset": preset} | changed)
    dataset = dataset_of(preset, folder, 2 * args.n)
    stacks = sorted(args.stacks)
    tasks = Complements(0, 0, 2 * stacks[-1], pool=min(2 * args.n, len(dataset.labels))).tasks(dataset)[: stacks[-1]]
    n_steps = recipe.epochs * -(-len(tasks[0].members) // recipe.batch_size)
    few = tasks[: args.few]
    ways: dict[str, tuple[list[Task], Callable[[list[Task]], None]]] = {
        "loader": (few, lambda some: plain(some, dataset, recipe, device, with_loader=True)),
        "indexed": (few, lambda some: plain(some, dataset, recipe, device, with_loader=False)),
        "sequential": (few, lambda some: ours(some, dataset, recipe, device, 1)),
    } | {f"ensemble {n}": (tasks[:n], lambda some, n=n: ours(some, dataset, recipe, device, n)) for n in stacks}  # type: ignore[misc]
    found: dict[str, list[float]] = {way: [] for way in ways}
    held: dict[str, float] = {}
    rates = []
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for way, (some, run) in ways.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = seconds(run, some, device=device) / len(some) / n_steps
            held.setdefault(way, memory(device))
            if repeat:
                found[way].append(took)
        rates.append(product(device))
    work = 6 * engines.size_of(recipe, dataset.shape, dataset.n_classes) * 1e6  # two operations a multiplication, forward and twice backward
    print(f"{preset}: {len(tasks[0].members)} records, batches of {recipe.batch_size}, {n_steps} steps, {work / 1e6:.0f} MFLOP a step")
    rows = []
    for way, times in found.items():
        over = {base: float(np.median(np.array(found[base]) / np.array(times))) for base in ("loader", "indexed", "sequential")}
        share = float(np.median(work / np.array(times) / np.array(rates[1:])))
        rows.append({"preset": preset, "way": way, "ms": 1e3 * float(np.median(times)), "share": share, "megabytes": held[way], **over})
        ratios = ", ".join(f"{ratio:.2f} times {base}" for base, ratio in over.items())
        print(
            f"  {way:12} {rows[-1]['ms']:8.3f} ms [{1e3 * min(times):.3f}, {1e3 * max(times):.3f}]: {ratios}; share {share:.0%}; {held[way]:.0f} MB",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", choices=[name for name in params.PRESETS if name.startswith(("digits", "cifar"))])
    parser.add_argument("--n", type=int, default=640, help="training records of a model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--stacks", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--few", type=int, default=2, help="models that the ways without a stack train")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--change", default="{}", help="fields of the recipe to change, as JSON")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    device = devices.prepare_torch(args.device)
    torch.set_deterministic_debug_mode("default")  # the plain loop is nobody's to restrict
    print(f"{devices.device_name(device)}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for preset in args.presets for row in measure(preset, args, Path(folder), device)]
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
