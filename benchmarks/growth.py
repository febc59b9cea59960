"""How the seconds of a model grow, and what else a training costs: small networks on digits, everything side by side.

    python benchmarks/growth.py --plot growth.png

1. Models at once: seconds a model of stacks of 1 to 32, for the MLP and the small CNN.
2. Model size: the small CNN with ever more channels, one after another against a stack of 8: where stacks stop to pay.
3. Data size: seconds a model against training records.
4. Jobs or threads: two processes of one thread against one process of two threads, and one process a model.
5. Time to the first result: from starting `memleak train` to the first line that says a model is trained.

Every comparison is repeated in turn; figures are medians, and the range stands beside them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import ours

from memleak import data, params, provenance
from memleak.designs import Complements, Task, shard_json
from memleak.training import devices, engines

CNN = {"preset": "digits-cnn", "epochs": 5}
MLP = {"preset": "digits-mlp", "epochs": 20}
CPU = torch.device("cpu")


def tasks_of(dataset: data.Dataset, n_models: int, n_records: int) -> list[Task]:
    found = Complements(0, 0, 2 * -(-n_models // 2)).tasks(dataset)[:n_models]
    return [replace(task, members=task.members[:n_records]) for task in found]


def in_turn(ways: Mapping[Any, Callable[[], Any]], repeats: int) -> dict[Any, np.ndarray]:
    """Seconds of each way, [repeats], after a warm-up."""
    took: dict[Any, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if repeat:
                took[way].append(time.perf_counter() - began)
    return {way: np.array(times) for way, times in took.items()}


def told(what: str, seconds: np.ndarray) -> str:
    return f"  {what:34} {1e3 * np.median(seconds):9.1f} ms [{1e3 * seconds.min():.1f}, {1e3 * seconds.max():.1f}]"


def models_at_once(dataset: data.Dataset, repeats: int, stacks: Sequence[int]) -> dict[str, Any]:
    found = {}
    for name, fields in (("mlp", MLP), ("cnn", CNN)):
        recipe = params.Recipe.model_validate(fields)
        tasks = tasks_of(dataset, max(stacks), 640)
        few = {n: tasks[: max(n, 2)] for n in stacks}
        took = in_turn({n: partial(ours, few[n], dataset, recipe, CPU, n) for n in stacks}, repeats)
        found[name] = {n: (seconds / len(few[n])).tolist() for n, seconds in took.items()}
        print(f"{name}: a model of {recipe.epochs} epochs, 640 records")
        for n in stacks:
            ratio = np.median(np.array(found[name][stacks[0]]) / np.array(found[name][n]))
            print(told(f"{n} at once", np.array(found[name][n])) + f", {ratio:.2f} times", flush=True)
    return found


def model_size(dataset: data.Dataset, repeats: int) -> list[dict[str, Any]]:
    found = []
    print("small CNN by channels: 8 at once against one after another")
    for width in (4, 8, 16, 32, 64, 128):
        recipe = params.Recipe.model_validate(CNN | {"channels": [width, 2 * width], "epochs": 2})
        tasks = tasks_of(dataset, 8, 320)
        took = in_turn({n: partial(ours, tasks[: max(n, 2)], dataset, recipe, CPU, n) for n in (1, 8)}, repeats)
        size = engines.size_of(recipe, dataset.shape, dataset.n_classes)
        ratio = (took[1] / 2) / (took[8] / 8)
        found.append({"width": width, "size": size, "ratio": ratio.tolist()})
        print(
            f"  {width:4} and {2 * width:4} channels, {size:8.1f} million multiplications a step: {np.median(ratio):.2f} times [{ratio.min():.2f}, {ratio.max():.2f}]",
            flush=True,
        )
    return found


def data_size(dataset: data.Dataset, repeats: int) -> dict[str, Any]:
    recipe, found = params.Recipe.model_validate(CNN), {}
    print("small CNN by training records, 8 at once")
    for n in (100, 200, 400, 800):
        tasks = tasks_of(dataset, 8, n)
        took = in_turn({n: partial(ours, tasks, dataset, recipe, CPU, 8)}, repeats)[n] / 8
        found[n] = took.tolist()
        print(told(f"{n} records", took), flush=True)
    slope = np.polyfit(np.log(list(found)), np.log([np.median(seconds) for seconds in found.values()]), 1)[0]
    print(f"  slope of the logarithms {slope:.2f}")
    return {str(n): seconds for n, seconds in found.items()}


def job(path: str, first: int, n: int, n_stacked: int, n_threads: int) -> None:
    devices.prepare_torch("cpu")
    torch.set_num_threads(n_threads)
    dataset = data.read(Path(path))
    ours(tasks_of(dataset, first + n, 640)[first:], dataset, params.Recipe.model_validate(CNN), CPU, n_stacked)


def jobs_or_threads(path: Path, repeats: int, n_models: int = 16) -> dict[str, list[float]]:
    spawn = multiprocessing.get_context("spawn")
    half = n_models // 2

    def a_process_each() -> None:
        waiting = [[sys.executable, __file__, "--one", str(path), str(model)] for model in range(n_models)]
        running: list[subprocess.Popen[bytes]] = []
        while waiting or running:
            running = [process for process in running if process.poll() is None]
            while waiting and len(running) < 2:
                running.append(subprocess.Popen(waiting.pop()))
            time.sleep(0.01)

    with ProcessPoolExecutor(2, spawn) as pool:
        list(pool.map(job, *zip(*[(str(path), 0, 2, 1, 1)] * 4, strict=True)))  # both processes have begun

        def together(n_stacked: int, n_threads: int) -> None:
            parts = [(0, n_models)] if n_threads == 2 else [(0, half), (half, half)]
            for done in [pool.submit(job, str(path), first, n, n_stacked, n_threads) for first, n in parts]:
                done.result()

        ways: dict[str, Callable[[], None]] = {
            "one process a model": a_process_each,
            "2 processes, one after another": lambda: together(1, 1), "1 process of 2 threads, the same": lambda: together(1, 2),
            "2 processes, 8 at once": lambda: together(8, 1), "1 process of 2 threads, 8 at once": lambda: together(8, 2),
        }  # fmt: skip
        took = in_turn(ways, repeats)
    print(f"{n_models} small CNNs on 2 cores, a model")
    for way, seconds in took.items():
        print(told(way, seconds / n_models) + f", {np.median(took['one process a model'] / seconds):.1f} times one process a model", flush=True)
    return {way: seconds.tolist() for way, seconds in took.items()}


def first_result(path: Path, repeats: int) -> list[float]:
    recipe = params.Recipe.model_validate({"preset": "digits-cnn"}).model_dump(mode="json", exclude_defaults=True)
    asked = provenance.canonical_json({"name": "first", "recipe": recipe})
    shard = provenance.canonical_json(shard_json(Complements(0, 0, 8)))
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "memleak",
                "train",
                "--data",
                str(path),
                "--recipe",
                asked,
                "--shard",
                shard,
                "--output",
                f"{folder}/o/s.safetensors",
            ]
            environment = os.environ | {"MEMLEAK_STORE": f"{folder}/store"}
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("trained"):
                        found.append(time.perf_counter() - began)
                        break
                process.stdout.read()
    print(told("8 small CNNs: the first is trained", np.array(found)))
    return found


def draw(found: dict[str, Any], output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for name, colour in (("mlp", "#b2452b"), ("cnn", "#2b6cb2")):
        times = {int(n): np.array(seconds) for n, seconds in found["at_once"][name].items()}
        ratio = [np.median(times[min(times)] / seconds) for seconds in times.values()]
        left.plot(list(times), ratio, "o-", color=colour, label={"mlp": "MLP", "cnn": "small CNN"}[name])
    left.set(xscale="log", xlabel="models at once", ylabel="times as fast as one after another", title="Digits, one thread", ylim=(0, None))
    left.set_xticks(list(times), [str(n) for n in times])
    left.legend(frameon=False)
    sizes = [entry["size"] for entry in found["model_size"]]
    middle.plot(sizes, [np.median(entry["ratio"]) for entry in found["model_size"]], "o-", color="#2b6cb2")
    middle.axhline(1, color="0.6", lw=0.8)
    middle.set(xscale="log", xlabel="million multiplications of a step", title="Where stacks stop to pay: 8 at once", ylim=(0, None))
    records = [int(n) for n in found["data_size"]]
    right.plot(records, [np.median(seconds) for seconds in found["data_size"].values()], "o-", color="#2b6cb2")
    right.set(xscale="log", yscale="log", xlabel="training records", ylabel="seconds a model", title="Small CNN, 8 at once")
    right.set_xticks(records, [str(n) for n in records])
    right.minorticks_off()
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="draw the growth")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", nargs=2, metavar=("DATA", "MODEL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        job(args.one[0], int(args.one[1]), 1, 1, 1)
        return
    devices.prepare_torch("cpu")
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.json"
        data.prepare(params.Dataset(name="digits"), path)
        dataset = data.read(path)
        found = {
            "at_once": models_at_once(dataset, args.repeats, (1, 2, 4, 8, 16, 32)),
            "model_size": model_size(dataset, args.repeats),
            "data_size": data_size(dataset, args.repeats),
            "jobs": jobs_or_threads(path, args.repeats),
            "first_result": first_result(path, args.repeats),
        }
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    main()
