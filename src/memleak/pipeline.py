"""Whole audits from Python or from one command: the same workflow, the same files."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memleak import artefacts, params

LOCKS = ".snakemake/locks"


@dataclass(frozen=True)
class Audit:
    """What a run left behind: the metrics of each audit by its id, what each sweep compares, and the pages."""

    directory: Path
    metrics: dict[str, dict[str, Any]]
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def index(self) -> Path:
        return self.directory / "results/index.html"

    def report(self, audit: str) -> Path:
        return self.directory / f"results/audits/{audit}/report.html"

    def __str__(self) -> str:
        logs = [*(self.directory / "logs/report").glob("*.log"), *(self.directory / "logs/frontier_page").glob("*.log")]
        lines = [path.read_text().strip() for path in sorted(logs)]
        return "\n".join([*lines, f"report: {self.index}"])


def workflow_folder() -> Path:
    """Where the Snakefile, its rules and the default profile lie: in the installed package, or in the clone."""
    bundle = Path(__file__).parent / "bundle"
    return bundle if bundle.is_dir() else Path(__file__).parents[2]


def snakefile() -> str:
    """The path of the workflow, for `include:` in a Snakefile of one's own."""
    return str(workflow_folder() / "Snakefile")


def start(directory: Path) -> list[Path]:
    """Begin a project of one's own: write params.yaml, a Snakefile and the default profile where they are not yet."""
    found = workflow_folder()
    files = {
        "params.yaml": "\n".join(line for line in (found / "params.yaml").read_text().splitlines() if "yaml-language-server" not in line) + "\n",
        "Snakefile": 'from memleak import snakefile\ninclude: snakefile()\nworkflow.default_target = "all"\n',
        "profiles/default/profile.yaml": (found / "profiles/default/profile.yaml").read_text(),
    }
    written = []
    for name, text in files.items():
        if not (directory / name).exists():
            with artefacts.atomic(directory / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(directory / name)
    return written


def unlock(directory: Path) -> bool:
    """Remove the lock that a killed Snakemake left in a folder, unless a Snakemake is at work there."""
    if not is_locked(directory) or is_at_work(directory):
        return False
    for lock in (directory / LOCKS).iterdir():
        lock.unlink()
    return True


def is_locked(directory: Path) -> bool:
    """Whether a Snakemake runs in a folder, or was killed there."""
    return (directory / LOCKS).is_dir() and any((directory / LOCKS).iterdir())


def is_at_work(directory: Path) -> bool:
    """Whether a Snakemake runs in a folder, or may."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words, where = process.info["cmdline"] or [], process.info["cwd"]
        is_here = where is None or Path(where).resolve() == directory.resolve()  # None: somebody else's, so it may be here
        if is_here and any("snakemake" in Path(word).name for word in words[:3]) and process.info["pid"] != os.getpid():
            return True
    return False


def run(directory: Path, cores: int | str = "all", *targets: str) -> None:
    """Run Snakemake in a folder that holds a params.yaml. Raises RuntimeError when a job fails."""
    unlock(directory)
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile(), "--directory", str(directory), "--cores", str(cores)]
    command += ["--workflow-profile", str(workflow_folder() / "profiles/default"), "--quiet", "host", "rules", "reason", "--", *targets]
    code = subprocess.run(command if targets else command[:-1], check=False, stdin=subprocess.DEVNULL).returncode
    if code:
        raise RuntimeError(f"the workflow ended with exit code {code}; the lines above and {directory}/logs say why; what is done is kept")


def audit(config: Mapping[str, Any] | str | os.PathLike[str], cores: int | str = "all", directory: str | os.PathLike[str] | None = None) -> Audit:
    """Run every audit of a params.yaml (or of the same as a dictionary), and return what was measured.

    `directory` is where data, results and logs go: beside params.yaml, or the current folder for a dictionary,
    unless it is given. What is there already is used. Raises ParamsError for params that cannot be, RuntimeError
    when a job fails.
    """
    if isinstance(config, Mapping):
        source, where, text = "params", Path.cwd(), yaml.safe_dump(dict(config), sort_keys=False)
    else:
        source, where = str(config), Path(config).resolve().parent
        if not Path(config).is_file():
            raise params.ParamsError(f"{config}: there is no such file (looked in {Path.cwd()})")
        text = Path(config).read_text(encoding="utf-8")
    where = Path(directory) if directory is not None else where
    artefacts.make_folder(where)
    with contextlib.chdir(where):  # paths in params are relative to the folder of the run
        checked = params.parse(text, source)
    written = where / "params.yaml"
    is_another = written.is_file() and written.read_text(encoding="utf-8") != text
    if is_another and directory is None and not isinstance(config, Mapping):  # a file beside params.yaml: nobody asked to lose that one
        raise params.ParamsError(f"{config}: the params.yaml beside it differs and would be replaced; name another folder with --directory")
    if is_another or not written.is_file():
        with artefacts.atomic(written) as temporary:
            temporary.write_text(text, encoding="utf-8")
    run(where, cores)
    found = {name: artefacts.read_json(where / f"results/metrics/{name}.json") for name in checked.audits}
    sweeps = {name: artefacts.read_json(where / f"results/audits/{name}/frontier.json") for name in checked.sweeps}
    return Audit(where, found, sweeps)


def single_point_params(options: argparse.Namespace) -> dict[str, Any]:
    """The params.yaml that the options of `memleak single-point` stand for."""
    name = options.dataset if options.dataset in params.DECLARED_SIZES else "data"
    source = options.data_dir if options.data_dir in (None, "torchvision") else str(Path(options.data_dir).resolve())
    dataset = {"name": options.dataset} | ({"source": source} if source else {})
    targets = {"index": list(options.target_index)} if options.target_index else {options.kind: options.n_targets}
    recipe = {key: getattr(options, key) for key in ("architecture", "epochs", "batch_size", "learning_rate", "optimizer")}
    if options.dataset == "digits" and options.architecture == "small_cnn":
        recipe |= {"channels": [16, 32], "hidden": [64]}  # images of 8 x 8 pixels
    design = {
        "kind": "pairs",
        "targets": targets,
        "rounds": options.rounds,
        "holdout_rounds": options.holdout_rounds,
        "subset_size": options.subset_size,
    }
    attack = {"name": "single_point", "fit": options.fit, "signal": options.signal, "alpha": options.alpha}
    return {
        "seed": options.seed,
        "datasets": {name: dataset},
        "recipes": {"recipe": recipe},
        "audits": {"single-point": {"dataset": name, "recipe": "recipe", "design": design, "attacks": {"np": attack}}},
        "device": options.device,
        "figures": not options.no_figures,
        "models_per_shard": 24,
    }


def single_point(options: argparse.Namespace) -> str:
    """The classic run; returns what it found as text."""
    done = audit(single_point_params(options), options.cores, options.output_dir)
    found = done.metrics["single-point"]
    decisions = artefacts.read_table(
        done.directory / "results/audits/single-point/decisions.parquet", ["target", "round", "says_member", "is_member"]
    )
    lines = []
    for name, target in found["targets"].items():
        own = target["attacks"]["np"]
        region = " or ".join(
            f"{'-inf' if low is None else f'{low:.4f}'} < x < {'inf' if high is None else f'{high:.4f}'}" for low, high in own["intervals"]
        )
        statistic = "margin" if options.signal == "margin" else "-loss"
        lines += [
            f"target {name}: row {target['source_id']}, label {target['label']}: {target['state']}",
            f"  threshold: member where x = {statistic} has {region or 'any value at all: never, too few rounds for this alpha'}",
            f"  power {own['optimistic']['tpr']:.3f}, FPR {own['optimistic']['fpr']:.3f} (on the fitted rounds: optimistic)",
            f"  mean loss with {target['means']['loss_in']:.4f}, without {target['means']['loss_out']:.4f} nats; paired p {target['p']:.4g}",
        ]
        if "tpr" in own:
            tpr, fpr = own["tpr"], own["fpr"]
            lines.append(
                f"  hold-out: power {tpr['value']:.3f} [{tpr['low']:.3f}, {tpr['high']:.3f}], FPR {fpr['value']:.3f} [{fpr['low']:.3f}, {fpr['high']:.3f}], {tpr['n']} pairs"
            )
            for row in decisions[decisions["target"] == name].sort_values(["round", "is_member"]).itertuples():
                lines.append(
                    f"    round {row.round}: trained {'with' if row.is_member else 'without'} the record, decision: {'member' if row.says_member else 'not a member'}"
                )
    return "\n".join([*lines, str(done)])
