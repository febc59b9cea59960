"""How fast are the attacks on many models, beside the published algorithms written out plainly?

Signals are made up (two Gaussians, float32, as they are stored). Each row is measured in turn and repeated; the table
shows medians of CPU time of this process, and the peak of the memory that Python and NumPy ask for above the input.

    matrix    RMIA by the N x Z matrix of likelihood ratios, as the public tools do it (tests/oracles.py)
    pairs     the same without the division: one comparison of all pairs
    loop      LiRA by a loop over samples (timed on --loop-samples of them and scaled up)
    ours      memleak.attacks

RMIA is measured in fresh processes: "first" is the first call of a process, which has to ask for its memory (0.9 GB
for the matrix), "later" the median of the following ones.

    OMP_NUM_THREADS=1 python benchmarks/reference_attacks.py --repeats 3

A row that misses its limit ends in MISSED, and the program ends with status 1. Beforehand, ours is compared with the
matrix and the loop: RMIA must be equal, LiRA to nine digits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memleak.attacks import Evidence, Pool, Turn, base, difficulty, lira, population, reference, rmia, threshold
from memleak.metrics import roc

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracles

MIB = 2**20
RMIA = rmia.Options(mode="offline", gamma=1.0, a=0.3)


def signals(draw: np.random.Generator, level: np.ndarray, is_in: np.ndarray, n_views: int) -> dict[str, np.ndarray]:
    """Margin and loss of models that are one standard deviation surer of what they were trained on, [M, N, Q]."""
    margin = draw.standard_normal((*is_in.shape, n_views), dtype=np.float32)
    margin += level[None, :, None] + is_in[:, :, None]
    loss = np.logaddexp(np.float32(0), -margin)
    confidence = np.maximum(np.exp(-loss), -np.expm1(-loss))
    return {"margin": margin, "loss": loss, "confidence": confidence}


def make_pool(n_models: int, n_samples: int, n_population: int, n_views: int = 1) -> Pool:
    """A pool of models on complementary halves."""
    draw = np.random.default_rng(0)
    half = draw.random((n_models // 2, n_samples)) < 0.5
    is_in = np.stack([half, ~half], axis=1).reshape(-1, n_samples)
    levels = [draw.normal(2, 2, n).astype(np.float32) for n in (n_samples, n_population)]
    nobody = np.zeros((n_models, n_population), dtype=bool)
    ids = np.arange(n_samples + n_population)
    seen = signals(draw, levels[1], nobody, n_views) if n_population else None
    return Pool(
        signals(draw, levels[0], is_in, n_views), is_in, seen, sample_id=ids[:n_samples], population_id=ids[n_samples:] if n_population else None
    )


def turns_of(pool: Pool) -> list[Turn]:
    """Every model the target in turn, without its complement."""
    models = np.arange(len(pool.is_in))
    return [Turn(int(target), models[models // 2 != target // 2]) for target in models]


def one_target(n_references: int, n_samples: int, n_population: int, n_views: int = 1) -> Evidence:
    """One target and its references."""
    pool = make_pool(n_references + 2, n_samples, n_population, n_views)
    return pool.evidence(turns_of(pool)[0])


def cpu_seconds(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def peak_mib(work: Callable[[], Any]) -> float:
    """Most memory held at once above what was held before, in MiB; by tracemalloc, which NumPy tells of its arrays."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / MIB


class Table:
    """Rows of a measurement; remembers whether a limit was missed."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.missed = False

    def medians(self, *works: Callable[[], Any]) -> list[float]:
        """Median CPU seconds of several pieces of work, measured in turn."""
        return [float(np.median(times)) for times in zip(*([cpu_seconds(work) for work in works] for _ in range(self.repeats)), strict=True)]

    def row(self, what: str, text: str, kept: bool = True) -> None:
        self.missed |= not kept
        print(f"{what:<58} {text}{'' if kept else '   MISSED'}", flush=True)


def check(n_references: int) -> None:
    """Ours is what the plain algorithms compute."""
    few = one_target(n_references, 300, 200)
    assert np.array_equal(rmia.score(few, RMIA), oracles.rmia_by_matrix(few, "offline", 1.0, 0.3))
    per_sample = lira.Options(variance="per_sample")
    assert np.allclose(lira.score(few, per_sample), oracles.lira_by_loop(few), rtol=1e-9, atol=1e-9)


def rmia_by(kind: str, seen: Evidence) -> np.ndarray:
    """RMIA by one of the three ways."""
    if kind == "ours":
        return rmia.score(seen, RMIA)
    return oracles.rmia_by_matrix(seen, "offline", 1.0, 0.3, published=kind == "matrix")


def rmia_in_a_fresh_process(kind: str, n_models: int, n: int, repeats: int) -> tuple[float, float, float]:
    """CPU seconds of the first call and of the later ones (median), and the peak memory in MiB."""
    seen = one_target(n_models, n, n)
    first, *later = (cpu_seconds(lambda: rmia_by(kind, seen)) for _ in range(repeats + 1))
    return first, float(np.median(later)), peak_mib(lambda: rmia_by(kind, seen))


def measure_rmia(args: argparse.Namespace, table: Table) -> None:
    n, found = args.samples, {}
    what = f"RMIA, {args.models} models, N = Z = {n}"
    for kind in ("matrix", "pairs", "ours"):
        each = []
        for _ in range(args.repeats):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                each.append(fresh.submit(rmia_in_a_fresh_process, kind, args.models, n, args.repeats).result())
        first, later, memory = found[kind] = [float(x) for x in np.median(each, axis=0)]
        table.row(f"{what}: {kind}", f"{first:8.3f} s first {later:8.3f} s later {memory:7.0f} MiB")
    ours, ratios = found["ours"], {kind: [found[kind][i] / found["ours"][i] for i in range(2)] for kind in ("matrix", "pairs")}
    for kind, (first, later) in ratios.items():
        table.row(f"{what}: ours against {kind}", f"{first:8.1f} times faster first, {later:.1f} later")
    table.row("limits: 50 times faster than the matrix, 100 MiB", "", n < 10_000 or (min(ratios["matrix"]) >= 50 and ours[2] < 100))

    large = one_target(args.models, 5 * n, 5 * n)
    (seconds,) = table.medians(lambda: rmia.score(large, RMIA))
    memory = peak_mib(lambda: rmia.score(large, RMIA))
    table.row(f"RMIA, {args.models} models, N = Z = {5 * n}: ours", f"{seconds:8.3f} s {memory:7.0f} MiB   (limit 1 s)", seconds < 1)


def measure_lira(args: argparse.Namespace, table: Table) -> None:
    n, few = 5 * args.samples, min(args.loop_samples, 5 * args.samples)
    seen = one_target(args.models, n, 0)
    some = replace(
        seen,
        target={name: values[:few] for name, values in seen.target.items()},
        reference={name: values[:, :few] for name, values in seen.reference.items()},
        is_in=seen.is_in[:, :few],
        sample_id=None,
    )
    ours, shrunk, loop = table.medians(
        lambda: lira.score(seen, lira.Options(variance="per_sample")),
        lambda: lira.score(seen, lira.Options(variance="shrunk")),
        lambda: oracles.lira_by_loop(some),
    )
    loop *= n / few
    memory = peak_mib(lambda: lira.score(seen, lira.Options()))
    what = f"LiRA, {args.models} models, N = {n}"
    table.row(f"{what}: loop", f"{loop:8.3f} s")
    table.row(f"{what}, per sample: ours", f"{ours:8.3f} s {'':11}   {loop / ours:5.1f} times faster than the loop (limit 1 s)", ours < 1)
    table.row(f"{what}, shrunk: ours", f"{shrunk:8.3f} s {memory:7.0f} MiB   (limit 1 s)", shrunk < 1)

    many = one_target(args.models, n, 0, args.views)
    (ours,) = table.medians(lambda: lira.score(many, lira.Options()))
    size = many.reference["margin"].nbytes / MIB
    memory = peak_mib(lambda: lira.score(many, lira.Options()))
    table.row(f"{what}, shrunk, {args.views} views: ours", f"{ours:8.3f} s {memory:7.0f} MiB   beside {size:.0f} MiB of input", memory < 2 * size)


def measure_leave_one_out(args: argparse.Namespace, table: Table) -> None:
    pool = make_pool(args.models, args.samples, args.samples)
    turns = turns_of(pool)
    attacks: dict[str, tuple[Any, Any]] = {
        "lira online": (lira, lira.Options()),
        "lira online, median": (lira, lira.Options(center="median")),
        "lira offline": (lira, lira.Options(mode="offline")),
        "rmia offline, a tuned": (rmia, rmia.Options(mode="offline")),
        "rmia online": (rmia, rmia.Options(mode="online")),
        "base": (base, base.Options()),
        "reference": (reference, reference.Options()),
        "difficulty": (difficulty, difficulty.Options()),
        "population": (population, population.Options()),
        "threshold": (threshold, threshold.Options()),
        "threshold, global": (threshold, threshold.Options(thresholds="global")),
    }
    total = 0.0
    for name, (module, options) in attacks.items():
        scores = []
        seconds = cpu_seconds(lambda module=module, options=options, scores=scores: scores.append(module.score_all(pool, turns, options)))
        total += seconds
        auc = np.mean([roc.auc(found, pool.is_in[turn.target]) for found, turn in zip(scores[0], turns, strict=True)])
        table.row(f"leave one out, {len(turns)} targets, N = {args.samples}: {name}", f"{seconds:8.3f} s   mean AUC {auc:.3f}")
    table.row("leave one out, all attacks together", f"{total:8.3f} s   (limit 60 s)", total < 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--samples", type=int, default=10_000, help="N = Z; the large rows have five times as many")
    parser.add_argument("--views", type=int, default=18)
    parser.add_argument("--loop-samples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(
        f"{args.models} models, {os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, load {os.getloadavg()[0]:.2f}"
    )
    table = Table(args.repeats)
    check(args.models)
    measure_rmia(args, table)
    measure_lira(args, table)
    measure_leave_one_out(args, table)
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
