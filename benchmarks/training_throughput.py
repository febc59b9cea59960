"""How fast do we train, beside a plain PyTorch loop and beside the processor's own limit?

The same work, measured in turn and repeated: the small CNN with its default widths on 1,000 CIFAR-100 images,
batches of 128, cropped and mirrored at random.

    plain    a DataLoader over PIL images with torchvision's transforms, torch's default threads, models in turn
    ours     memleak.training.loop.fit, one thread in each of two processes
    product  a large float32 matrix product, the same two processes or the default threads: the better one

    MEMLEAK_TEST_DATA=... python benchmarks/training_throughput.py --repeats 5

The folder MEMLEAK_TEST_DATA holds cifar100/test.parquet. Evaluation, start-up and decoding count for nobody.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from memleak import data, models, params, randomness
from memleak.designs import Rounds, Task
from memleak.training import devices, loop

CPU = torch.device("cpu")
_barrier: Any  # where our two processes wait for each other; set in each when it starts


def recipe_of(args: argparse.Namespace, normalisation: str) -> params.Recipe:
    return params.Recipe(
        architecture="small_cnn", normalisation=normalisation, epochs=args.epochs, batch_size=args.batch_size,
        learning_rate=0.05, flip=True, shift=4,
    )  # fmt: skip


def plain_network(recipe: params.Recipe, n_classes: int) -> nn.Module:
    """The small CNN as one would write it: convolution, normalisation, ReLU, pooling."""
    layers: list[nn.Module] = []
    before = 3
    for after in recipe.channels:
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=recipe.normalisation == "none"))
        layers += [nn.BatchNorm2d(after)] if recipe.normalisation == "batch" else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        before = after
    (hidden,) = recipe.hidden
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 4 * 4, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))


class PlainImages(torch.utils.data.Dataset):
    """Images that are transformed one by one, as torchvision's own data sets do it."""

    def __init__(self, dataset: data.Dataset, rows: np.ndarray) -> None:
        self.images = [Image.fromarray(image) for image in dataset.inputs[rows]]
        self.labels = dataset.labels[rows].tolist()
        mean, std = (np.array(dataset.facts[key]) / 255 for key in ("mean", "std"))
        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[row]), self.labels[row]


def train_plain(tasks: list[Task], dataset: data.Dataset, recipe: params.Recipe) -> tuple[float, float]:
    """Train one model after another. Returns when it began and ended (monotonic seconds)."""
    began = time.monotonic()
    for task in tasks:
        model = plain_network(recipe, dataset.n_classes)
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
        batches = DataLoader(PlainImages(dataset, task.sample_ids), batch_size=recipe.batch_size, shuffle=True)
        for _ in range(recipe.epochs):
            for inputs, labels in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
    return began, time.monotonic()


def train_ours(tasks: list[Task], dataset: data.Dataset, recipe: params.Recipe) -> tuple[float, float]:
    """Train one model after another in this process. Returns when it began and ended."""
    _barrier.wait()
    began = time.monotonic()
    for task in tasks:
        model = models.build(recipe, dataset.shape, dataset.n_classes, randomness.derive(task.key, "weights"), CPU)
        loop.fit(loop.Single(model), [task], dataset, recipe, CPU)
    return began, time.monotonic()


def multiply(size: int, n_products: int, *, together: bool) -> tuple[float, float]:
    """Multiply two square matrices again and again. Returns when it began and ended."""
    left, right = torch.rand(2, size, size)
    left @ right
    if together:
        _barrier.wait()
    began = time.monotonic()
    for _ in range(n_products):
        left @ right
    return began, time.monotonic()


def start_worker(barrier: Any) -> None:
    """Set up a process as a training job is."""
    global _barrier
    _barrier = barrier
    devices.prepare_torch("cpu")


def seconds(spans: list[tuple[float, float]]) -> float:
    return max(end for _, end in spans) - min(began for began, _ in spans)


def flops_per_image(recipe: params.Recipe, dataset: data.Dataset) -> float:
    """Floating-point operations of one image's forward and backward pass (convolutions and matrix products)."""
    model = models.build(recipe, dataset.shape, dataset.n_classes, seed=0, device=CPU)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(8, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 8


def measure(args: argparse.Namespace, dataset: data.Dataset, normalisation: str, pool: ProcessPoolExecutor) -> None:
    """Print the medians of one network."""
    recipe = recipe_of(args, normalisation)
    tasks = Rounds(None, args.n, 0, "fit", 0, 2 * args.models).tasks(dataset)
    n_images = len(tasks) * args.n * args.epochs
    product = 2 * args.size**3
    plain, ours, limit = [], [], []
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        few = slice(None) if repeat else slice(0, 2)
        a = seconds([train_plain(tasks[few], dataset, recipe)])
        halves = tasks[few][::2], tasks[few][1::2]
        b = seconds([job.result() for job in [pool.submit(train_ours, half, dataset, recipe) for half in halves]])
        both = seconds([job.result() for job in [pool.submit(multiply, args.size, args.products, together=True) for _ in halves]])
        alone = seconds([multiply(args.size, args.products, together=False)])
        if repeat:
            plain.append(n_images / a)
            ours.append(n_images / b)
            limit.append(max(2 * args.products * product / both, args.products * product / alone))
            speeds = f"plain {plain[-1]:.0f} images/s, ours {ours[-1]:.0f}, product {limit[-1] / 1e9:.0f} GFLOP/s"
            print(f"  {normalisation}, repeat {repeat}: {speeds}; load {os.getloadavg()[0]:.2f}", flush=True)
    work = flops_per_image(recipe, dataset)
    ratio, share = (np.median(np.array(ours) / np.array(other)) for other in (plain, limit))
    print(
        f"normalisation {normalisation}: plain {np.median(plain):.0f} images/s, ours {np.median(ours):.0f} images/s: {ratio:.2f} times; "
        f"{work / 1e6:.1f} MFLOP an image: {share * work:.0%} of the matrix product's {np.median(limit) / 1e9:.0f} GFLOP/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="training images of a model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--models", type=int, default=3, help="models of each process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=2048, help="rows of the matrices")
    parser.add_argument("--products", type=int, default=20)
    parser.add_argument("--normalisation", nargs="+", default=["none", "batch"], choices=["none", "batch", "group"])
    args = parser.parse_args()
    if "MEMLEAK_TEST_DATA" not in os.environ:
        parser.error("set MEMLEAK_TEST_DATA to a folder that holds cifar100/test.parquet")
    source = Path(os.environ["MEMLEAK_TEST_DATA"]) / "cifar100/test.parquet"

    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, spawn, start_worker, (spawn.Barrier(2),)) as pool:
        description = Path(folder) / "dataset.json"
        data.prepare(params.Dataset(name="cifar100", source=str(source)), description)
        dataset = data.read(description)
        for normalisation in args.normalisation:
            measure(args, dataset, normalisation, pool)


if __name__ == "__main__":
    main()
