"""Earlier runs: read from the layouts of other tools, and written as the beginning of an audit that trains nothing.

`read` finds models, samples, who trained on what, and what each model says; `write` keeps it as one file in the format
of our signals; `plan_of` gives back from it the tables that a design draws elsewhere. `export` does the reverse.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from memleak import artefacts, params
from memleak.designs import Roster
from memleak.imports import lira, privacy_meter, table
from memleak.imports.run import Run, RunError
from memleak.signals.tables import write_signals

__all__ = ["FILE", "KINDS", "Run", "RunError", "kind_of", "params_text", "plan_of", "population_of", "project", "read", "write"]

FILE = "imported.parquet"
KINDS: dict[str, Callable[[Path, Path | None], Run]] = {"lira": lira.read, "privacy-meter": privacy_meter.read, "table": table.read}
UNKNOWN_LABEL = -1
ATTACKS: dict[str, dict[str, Any]] = {  # those that are written where the run allows them
    "loss": {"name": "threshold", "signal": "loss"},
    "lira": {"name": "lira"},
    "lira-offline": {"name": "lira", "mode": "offline"},
    "rmia": {"name": "rmia"},
    "base": {"name": "base"},
    "reference": {"name": "reference"},
    "difficulty": {"name": "difficulty"},
    "correctness": {"name": "threshold", "signal": "correctness"},
    "modified-entropy": {"name": "threshold", "signal": "modified_entropy"},
    "shadow": {"name": "shadow"},
    "meta": {"name": "meta"},
}
HEADLINES = ("lira", "lira-offline", "difficulty", "loss")  # the first that is there


def read(source: Path, kind: str | None = None, labels: Path | None = None) -> Run:
    """An earlier run. `kind` is lira, privacy-meter or table; found out by looking where it is not given."""
    kind = kind or kind_of(source)
    if kind not in KINDS:
        raise RunError(f"kind '{kind}' of an earlier run is not known; expected {', '.join(KINDS)}")
    if not source.exists():
        raise RunError(f"{source}: there is no such file or folder (looked in {Path.cwd()})")
    return KINDS[kind](source, labels)


def kind_of(source: Path) -> str:
    """Which layout a file or folder has."""
    if source.is_file() or source.suffix.lower() in table.SUFFIXES:
        return "table"
    if not source.is_dir():
        raise RunError(f"{source}: there is no such file or folder (looked in {Path.cwd()})")
    if privacy_meter.memberships(source) is not None:
        return "privacy-meter"
    if lira.folders(source):
        return "lira"
    raise RunError(
        f"{source}: no earlier run was found; looked for experiment-*/keep.npy (lira), for models/memberships.npy or memberships.npy "
        f"(privacy-meter), and for a file ending in {', '.join(table.SUFFIXES)} (table); give the folder that holds one of them"
    )


def write(run: Run, folder: Path) -> Path:
    """Write `imported.parquet`: the signals, and in its head who trained on what. Samples that no model trained on go beside it."""
    path = folder / FILE
    _write_signals(run, path, _facts(run))
    population_of(path).unlink(missing_ok=True)  # of an earlier import
    if run.population is not None:
        _write_signals(run.population, population_of(path), {"models": [{"model_id": str(name)} for name in run.model_id]})
    return path


def population_of(path: Path) -> Path:
    """Where the signals of the population lie, beside those of the audited samples."""
    return path.with_name(f"{path.stem}-population.parquet")


def _write_signals(run: Run, path: Path, facts: dict[str, Any]) -> None:
    label = np.full(len(run.sample_id), UNKNOWN_LABEL) if run.label is None else run.label
    write_signals(path, run.signals, Roster(run.sample_id, np.arange(len(run.sample_id)), label), facts)


def _facts(run: Run) -> dict[str, Any]:
    """What a plan is made of again: short texts hold the bytes of arrays."""
    parts = [part for part in (run, run.population) if part is not None]
    return {
        "models": _models(run),
        "is_balanced": run.is_balanced,
        "notes": list(run.notes),
        "n_classes": run.n_classes,
        "samples": [_samples(part) for part in parts],
    }


def _models(run: Run) -> list[dict[str, Any]]:
    """What is known of each model. The accuracies are None where correctness is not."""
    loss, right = run.signals["loss"][:, :, 0], run.signals.get("is_correct")
    found = []
    for row, (name, unit, is_target, members) in enumerate(zip(run.model_id, run.unit, run.is_target, run.is_member, strict=True)):
        sides = {"train": members, "test": ~members}
        found.append({
            "model_id": str(name), "round": int(unit), "is_target": bool(is_target), "membership": _text(np.packbits(members)),
            "device": "an unknown device", "torch": "unknown", "engine": "imported",
            **{f"n_{side}": int(chosen.sum()) for side, chosen in sides.items()},
            **{f"{side}_loss": float(loss[row, chosen].mean()) for side, chosen in sides.items()},
            **{f"{side}_accuracy": None if right is None else float(right[row, chosen, 0].mean()) for side, chosen in sides.items()},
        })  # fmt: skip
    return found


def _samples(run: Run) -> dict[str, Any]:
    """Ids, labels and groups; ids of the run's own that are no numbers as a list."""
    source = run.source_id
    is_number = np.issubdtype(source.dtype, np.integer)
    return {
        "n": len(run.sample_id),
        "sample_id": _text(run.sample_id.astype("<i8")),
        "source_id": _text(source.astype("<i8")) if is_number else [str(name) for name in source],
        "label": None if run.label is None else _text(run.label.astype("<i8")),
        "group_id": None if run.group_id is None else _text(run.group_id.astype("<i8")),
    }


def _text(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes())).decode()


def _array(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def plan_of(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """The rows of plan.parquet and of samples.parquet of an imported run, and facts for the plan's head.

    Facts: `targets`, `data`, `n_samples`, `is_balanced` (attacks then take equalised evidence) and `notes`.
    """
    facts = artefacts.read_facts(path)
    if "samples" not in facts:
        raise artefacts.ArtefactError(f"{path}: holds no imported run; `memleak import` writes one")
    samples = pd.concat([_sample_rows(part, number == 1) for number, part in enumerate(facts["samples"])], ignore_index=True)
    if any(isinstance(part["source_id"], list) for part in facts["samples"]):
        samples["source_id"] = samples["source_id"].astype(str)  # those of the population may be numbers
    audited = samples.loc[~samples["is_population"], "sample_id"].to_numpy()
    n_samples = int(samples["sample_id"].max()) + 1
    rows = []
    for model in facts["models"]:
        members = np.zeros(n_samples, dtype=bool)
        members[audited] = np.unpackbits(_array(model["membership"], "u1"))[: len(audited)].astype(bool)
        rows.append({
            "model_id": model["model_id"], "shard": "imported", "recipe": "imported", "seed": 0, "round": model["round"], "role": "pool",
            "arm": "imported", "target": None, "is_target": model["is_target"], "membership": np.packbits(members).tobytes(),
        })  # fmt: skip
    plan = pd.DataFrame(rows, columns=list(artefacts.PLAN_COLUMNS)).astype({"target": "string", "round": "int64"})
    described = {
        "name": "imported", "n": len(samples), "n_classes": facts["n_classes"], "shape": [], "class_names": None, "licence": "not imported",
        "n_groups": int(samples["group_id"].nunique()),
    }  # fmt: skip
    known = {"targets": {}, "data": described, "n_samples": n_samples, "is_balanced": facts["is_balanced"], "notes": facts["notes"]}
    return plan, samples, known


def _sample_rows(part: dict[str, Any], is_population: bool) -> pd.DataFrame:
    sample_id = _array(part["sample_id"], "<i8")
    source = part["source_id"]
    return pd.DataFrame({
        "sample_id": sample_id,
        "source_id": _array(source, "<i8") if isinstance(source, str) else source,
        "label": np.full(part["n"], UNKNOWN_LABEL) if part["label"] is None else _array(part["label"], "<i8"),
        "group_id": sample_id if part["group_id"] is None else _array(part["group_id"], "<i8"),
        "is_population": is_population,
        "is_audited": not is_population,
    })[list(artefacts.SAMPLE_COLUMNS)]  # fmt: skip


def project(run: Run, folder: Path) -> list[Path]:
    """Write the run, and a params.yaml that audits it where there is none yet. Returns the files written."""
    artefacts.make_folder(folder)
    written = [write(run, folder)]
    if run.population is not None:
        written.append(population_of(written[0]))
    path = folder / "params.yaml"
    if not path.exists():
        with artefacts.atomic(path) as temporary:
            temporary.write_text(params_text(run), encoding="utf-8")
        written.append(path)
    return written


def params_text(run: Run) -> str:
    """A params.yaml that audits a run by all attacks that it allows."""
    attacks = {name: entry for name, entry in ATTACKS.items() if _allows(run, entry)}
    audit = {
        "design": {"kind": "imported", "source": FILE},
        "attacks": attacks,
        "headline": next(name for name in HEADLINES if name in attacks),
    }
    notes = "".join(f"# {note}\n" for note in run.notes)
    return f"# An audit of models that were trained elsewhere: {len(run.model_id)} models, {len(run.sample_id):,} samples.\n{notes}" + yaml.safe_dump(
        {"audits": {"imported": audit}}, sort_keys=False
    )


def _allows(run: Run, entry: dict[str, Any]) -> bool:
    """Whether a run has the signals and the references that an attack needs."""
    needs = params.attack_options(entry).needs  # type: ignore[attr-defined]
    inside, outside = run.fewest_references()
    return (
        set(needs.signals) <= set(run.signals)
        and not (needs.views or needs.measured)
        and (run.population is not None or not needs.population)
        and inside >= needs.inside
        and outside >= needs.outside
        and (2 * inside if run.is_balanced else len(run.model_id) - np.bincount(run.unit).max()) >= needs.references
    )
