"""What does it cost to score an audit that lies on disk, beside reading it?

An audit of the design `halves` is made up in a folder, with the project's own writers: plan, samples, and the signals
of all models in shards (two Gaussians, one view, all columns). Then each of these runs in a fresh process:

    start        Python and the imports of the stage `score`
    read         pools.read_signals of one signal: what every attack below reads at least
    read all     every column of the same files, row group by row group
    an attack    `python -m memleak score`, as the workflow calls it: targets, mock targets, halves of the references

The table shows medians of wall and CPU time, the CPU time beyond start-up in units of that of `read all`, the largest
resident memory of the process, and the mean AUC of the audited models, so that nothing is fast for being wrong.

    OMP_NUM_THREADS=1 python benchmarks/from_parquet.py
    OMP_NUM_THREADS=1 python benchmarks/from_parquet.py --plot growth.svg

`--plot` measures growth as well, N from a sixteenth of --samples and M from an eighth of --models, and draws it. Slopes
are those of straight lines through the logarithms of what is needed beyond start-up: 1 where growth is linear, less
where a part does not grow. An attack that needs more than 2 GB ends in MISSED, and the program ends with status 1. The
files of the largest audit have 28 bytes a (sample, model).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from memleak import artefacts, randomness
from memleak.attacks import pools
from memleak.attacks import stage as attacks
from memleak.designs import Complements, Roster, roster_of

LIMIT_MB = 2000  # of 10^6 bytes
N_CLASSES = 10
OPTIONS: dict[str, dict[str, Any]] = {
    "threshold": {"signal": "loss"},
    "population": {"signal": "loss"},
    "reference": {"signal": "loss"},
    "rmia": {"mode": "offline", "a": 0.3},
    "lira": {"mode": "online", "variance": "shrunk"},
}
ATTACKS = {name: {"id": name, "name": name, "options": options, "alpha": 0.01} for name, options in OPTIONS.items()}
# a small process that starts the measured one: a process inherits its parent's peak of memory, which should be small then
STARTER = """
import json, os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(process.pid, 0)
seconds = time.monotonic() - began
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


class Cost(NamedTuple):
    """What a process took."""

    wall_seconds: float
    cpu_seconds: float
    memory_mb: float  # largest resident set


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command in a fresh process. Raises RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-c", STARTER, *command], capture_output=True, text=True, check=True)
    code, wall, cpu, peak = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{' '.join(command[:4])} ... ended with status {code}:\n{done.stderr[-2000:]}")
    return Cost(wall, cpu, peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


@dataclass(frozen=True)
class Records:
    """What a design needs to know of a data set in which no two records are equal."""

    labels: np.ndarray
    group_id: np.ndarray
    atypicality_rank: np.ndarray
    n_classes: int = N_CLASSES
    has_units: bool = False

    @classmethod
    def of(cls, n: int) -> Records:
        return cls(np.arange(n) % N_CLASSES, np.arange(n), np.arange(n))


@dataclass(frozen=True)
class Made:
    """An audit whose artefacts lie in a folder. With fewer models it is made of the first of its shards."""

    folder: str
    n_models: int
    n_samples: int
    n_population: int
    models_per_shard: int
    n_targets: int

    @property
    def records(self) -> Records:
        return Records.of(self.n_samples + self.n_population)

    @property
    def shards(self) -> list[Complements]:
        step = self.models_per_shard
        return [Complements(0, first, min(first + step, self.n_models), self.n_samples) for first in range(0, self.n_models, step)]

    @property
    def model_ids(self) -> list[str]:
        return [model for shard in self.shards for model in shard.model_ids()]

    @property
    def plan(self) -> Path:
        return self.file(f"plan-{self.n_models:04d}")

    @property
    def samples(self) -> Path:
        return self.file("samples")

    def signals(self, asked: str) -> list[Path]:
        """What all models say of the `pool` or of the `population`."""
        return [self.file(f"{asked}/{shard.name}") for shard in self.shards]

    def file(self, name: str) -> Path:
        return Path(self.folder) / f"{name}.parquet"

    def roster(self, asked: str) -> Roster:
        return roster_of({"samples": asked, "pool": self.n_samples, "seed": 0}, self.records)

    def call(self, function: str, *values: Any) -> Cost:
        """Run a function of this file on this audit in a fresh process."""
        code = "import json, sys; sys.path.insert(0, sys.argv[1]); import from_parquet as f; made, values = json.loads(sys.argv[2]); "
        code += f"f.{function}(f.Made(*made), *values)"
        return cost_of([sys.executable, "-c", code, str(Path(__file__).parent), json.dumps([astuple(self), values])])

    def population(self, attack: str) -> list[Path]:
        return self.signals("population") if attack in ("population", "rmia") else []

    def score(self, attack: str) -> Cost:
        """Score an attack, with the command that the workflow writes."""
        paths = ["--plan", self.plan, "--samples", self.samples, "--signals", *self.signals("pool"), "--population", *self.population(attack)]
        words = [*map(str, paths), "--attack", json.dumps(ATTACKS[attack]), "--output", str(self.file(attack))]
        return cost_of([sys.executable, "-m", "memleak", "score", *words])

    def score_here(self, attack: str) -> None:
        """The same in this process."""
        attacks.score(self.plan, self.samples, self.signals("pool"), self.population(attack), ATTACKS[attack], self.file(attack))

    def auc(self, attack: str) -> float:
        """Mean AUC of the audited models."""
        from memleak.metrics import roc  # imports scikit-learn, which neither reading nor scoring does

        models = pools.read_models(self.plan, self.roster("pool").sample_id)
        is_member = dict(zip(models.model_id[models.targets], models.is_member[models.targets], strict=True))
        groups = artefacts.row_groups(self.file(attack), ["target_id", "score"])  # a model each
        return float(np.mean([roc.auc(group["score"], is_member[group["target_id"][0]]) for group in groups if group["target_id"][0] in is_member]))


def make(made: Made) -> Made:
    """Write all artefacts, each shard in a process of its own."""
    made.call("write_samples")
    made.call("write_plan")
    for number in range(len(made.shards)):
        made.call("write_shard", number)
    return made


def write_samples(made: Made) -> None:
    """The audited samples and the population."""
    parts = [
        pd.DataFrame({
            "sample_id": roster.sample_id, "source_id": roster.source_id, "label": roster.label, "group_id": roster.source_id,
            "is_population": asked == "population",
        })
        for asked, roster in ((asked, made.roster(asked)) for asked in ("pool", "population"))
    ]  # fmt: skip
    artefacts.write_table(made.samples, pd.concat(parts))


def write_plan(made: Made) -> None:
    """Who trains on what: complementary halves, as the design draws them."""
    rows: list[dict[str, Any]] = []
    every = Complements(0, 0, made.n_models, made.n_samples)  # drawn at once: drawing has to sort all samples
    shard_of = {model: shard.name for shard in made.shards for model in shard.model_ids()}
    for task in every.tasks(made.records):
        members = np.zeros(made.n_samples + made.n_population, dtype=bool)
        members[task.sample_ids] = True
        rows.append({
            "model_id": task.model_id, "shard": shard_of[task.model_id], "recipe": "made-up", "seed": 0, "round": task.round, "role": task.role, "arm": task.arm,
            "target": None, "is_target": len(rows) < made.n_targets, "membership": np.packbits(members).tobytes(),
        })  # fmt: skip
    _write_plan(made, pd.DataFrame(rows, columns=list(artefacts.PLAN_COLUMNS)).astype({"target": "string", "round": "int64"}))


def with_models(made: Made, n_models: int) -> Made:
    """The audit of the first models alone, whose plan is written; their signals are there."""
    few = replace(made, n_models=n_models)
    _write_plan(few, artefacts.read_table(made.plan, artefacts.PLAN_COLUMNS).head(n_models))
    return few


def _write_plan(made: Made, table: pd.DataFrame) -> None:
    artefacts.write_table(made.plan, table, {"design": {"kind": "halves", "models": made.n_models, "pool": made.n_samples}})


def write_shard(made: Made, number: int) -> None:
    """What the models of a shard say: each sample has its own level, and members are one standard deviation surer."""
    from memleak.signals import stage as signals  # imports torch, which neither reading nor scoring does

    shard = made.shards[number]
    plan = artefacts.read_table(made.plan, ["model_id", "membership"]).set_index("model_id")["membership"]
    facts = {"recipe": "made-up", "shard": shard.name, "models": [{"model_id": model} for model in shard.model_ids()]}
    for asked in ("pool", "population"):
        roster = made.roster(asked)
        level = randomness.generator(0, "level", asked).normal(2, 2, len(roster))
        said = {name: np.empty((shard.last - shard.first, len(roster), 1), dtype) for name, dtype in artefacts.SIGNALS.items()}
        for row, model in enumerate(shard.model_ids()):
            is_in = np.unpackbits(np.frombuffer(plan[model], np.uint8))[roster.sample_id]
            margin = level + is_in + randomness.generator(0, asked, model).standard_normal(len(roster))
            for name, values in signals_of(margin.astype(np.float32)).items():
                said[name][row, :, 0] = values
        signals.write_signals(made.file(f"{asked}/{shard.name}"), said, roster, facts)


def signals_of(margin: np.ndarray) -> dict[str, np.ndarray]:
    """Every column of a classifier of two classes, from the margin of the label."""
    loss = np.logaddexp(np.float32(0), -margin)
    p = np.exp(-loss)
    return {
        "margin": margin, "loss": loss, "confidence": np.maximum(p, 1 - p), "entropy": loss + (1 - p) * margin,
        "modified_entropy": 2 * (1 - p) * loss, "is_correct": margin > 0,
    }  # fmt: skip


def start(made: Made) -> None:
    """Nothing: this file has been imported, and with it the stage `score`."""
    assert attacks.score


def read(made: Made) -> None:
    """One signal of all models."""
    sample_id = pools.read_samples(made.samples)[0]["sample_id"].to_numpy()
    pools.read_signals(made.signals("pool"), made.model_ids, sample_id, ["loss"])


def read_all(made: Made) -> None:
    """Every column; nothing is kept."""
    for path in made.signals("pool"):
        for _ in artefacts.row_groups(path, ["model_id", "sample_id", "view", *artefacts.SIGNALS]):
            pass


def measured(made: Made, names: Sequence[str], repeats: int) -> dict[str, Cost]:
    """Medians of what start-up, reading and attacks take, measured in turn."""
    each = [{name: made.score(name) if name in ATTACKS else made.call(name.replace(" ", "_")) for name in ("start", *names)} for _ in range(repeats)]
    return {name: Cost(*map(float, np.median([found[name] for found in each], axis=0))) for name in ("start", *names)}


def print_table(made: Made, costs: dict[str, Cost]) -> bool:
    """One row a process. Returns whether every attack kept within the limit of memory."""
    kept, began = True, costs["start"].cpu_seconds
    print(f"{'':<12}{'wall s':>8}{'CPU s':>8}{'beyond start':>14}{'of read all':>13}{'MB':>8}{'AUC':>8}")
    for name, cost in costs.items():
        small, own = cost.memory_mb <= LIMIT_MB, cost.cpu_seconds - began
        share = f"{own:12.2f} s{own / (costs['read all'].cpu_seconds - began):13.2f}" if name != "start" else f"{'':27}"
        auc = f"{made.auc(name):8.3f}" if name in ATTACKS else f"{'':8}"
        print(f"{name:<12}{cost.wall_seconds:8.2f}{cost.cpu_seconds:8.2f}{share}{cost.memory_mb:8.0f}{auc}{'' if small else '   MISSED'}", flush=True)
        kept &= small
    return kept


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of the straight line through the logarithms: the power of the size that the values grow with."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def timed(made: Made, name: str) -> None:
    """Write the lesser CPU time of reading or scoring twice, start-up left out."""
    found = []
    for _ in range(2):
        before = time.process_time()
        read(made) if name == "read" else made.score_here(name)
        found.append(time.process_time() - before)
    artefacts.write_json(made.file(name).with_suffix(".json"), min(found))


def beyond_start(made: Made, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """CPU seconds, and MB of memory, that reading and attacks take beyond start-up."""
    began, found = made.call("start").memory_mb, {}
    for name in names:
        peak = made.call("timed", name).memory_mb
        found[name] = artefacts.read_json(made.file(name).with_suffix(".json")), max(peak - began, 1.0)
    return found


def growth(largest: Made, names: Sequence[str]) -> dict[str, dict[int, dict[str, tuple[float, float]]]]:
    """What reading and attacks take by N and by M, in audits of which the largest is `largest`, made already."""
    by_n, by_m = {}, {}
    for part in (16, 8, 4, 2):
        with tempfile.TemporaryDirectory() as folder:
            small = make(replace(largest, folder=folder, n_samples=largest.n_samples // part))
            by_n[small.n_samples] = beyond_start(small, names)
    for part in (8, 4, 2, 1):
        few = with_models(largest, largest.n_models // part)
        by_m[few.n_models] = beyond_start(few, names)
    by_n[largest.n_samples] = by_m[largest.n_models]
    return {"N, samples": by_n, "M, models": by_m}


def draw(found: dict[str, dict[int, dict[str, tuple[float, float]]]], title: str, names: Sequence[str], output: Path) -> None:
    """Time and memory beyond start-up by N and by M, on logarithmic axes; prints the slopes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(found), figsize=(11, 8), layout="constrained", squeeze=False)
    for column, (what, by_size) in zip(axes.T, found.items(), strict=True):
        sizes = list(by_size)
        for axis, unit, which in zip(column, ("CPU seconds", "MB"), range(2), strict=True):
            for name in names:
                values = [by_size[size][name][which] for size in sizes]
                axis.loglog(sizes, values, marker="o", markersize=4, label=f"{name}, slope {slope(sizes, values):.2f}")
                print(f"{what:<12}{name:<12}{unit:<12} slope {slope(sizes, values):5.2f}   {[round(value, 2) for value in values]}", flush=True)
            axis.set(xlabel=what, ylabel=f"{unit} beyond start-up")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.set_xticks([], minor=True)
            axis.grid(True, which="both", alpha=0.3)
            axis.legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--targets", type=int, default=1, help="audited models; the others are references only")
    parser.add_argument("--population", type=int, default=50_000, help="samples outside the pool")
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the artefacts go, and stay (default: a temporary folder)")
    parser.add_argument("--plot", type=Path, help="measure growth and draw it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        made = Made(str(folder.resolve()), args.models, args.samples, args.population, 2 * -(-args.models // (2 * args.shards)), args.targets)
        if not all(path.exists() for path in (made.plan, made.samples, *made.signals("pool"), *made.signals("population"))):
            make(made)
        size = sum(path.stat().st_size for path in made.signals("pool")) / 1e6
        title = f"N = {args.samples:,}, M = {args.models} in {len(made.shards)} shards of {size / len(made.shards):.0f} MB, targets: {args.targets}"
        print(f"{title}; OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, load {os.getloadavg()[0]:.2f}", flush=True)
        kept = print_table(made, measured(made, ["read", "read all", *args.attacks], args.repeats))
        if args.plot:
            names = ["read", *args.attacks]
            draw(growth(made, names), title, names, args.plot)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
