"""An audit's plan and signals in the layouts of other tools: what `imports` reads, and no more than these can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special

from memleak import artefacts
from memleak.attacks import pools
from memleak.attacks.pools import Models
from memleak.imports.run import RunError

CHECKPOINT = f"{0:010d}.npy"


def write(kind: str, plan: Path, samples: Path, signals: Sequence[Path], output: Path) -> list[str]:
    """Write an audit as lira, privacy-meter or table. Returns what the layout could not hold, a sentence each."""
    if kind not in KINDS:
        raise RunError(f"kind '{kind}' of an export is not known; expected {', '.join(KINDS)}")
    notes = KINDS[kind](plan, samples, signals, output)
    n_outside = len(pools.read_samples(samples)[1])
    return [*notes, *([f"The {n_outside:,} samples of the population were not written."] if n_outside else [])]


def to_lira(plan: Path, samples: Path, signals: Sequence[Path], output: Path) -> list[str]:
    """`experiment-{i}_{M}/keep.npy` and `scores/`, with `y_train.npy` and `sample_id.npy` beside the folders."""
    models, table, known = _read(plan, samples, signals, ["margin"])
    n_models = len(models.model_id)
    for row in range(n_models):
        folder = output / f"experiment-{row}_{n_models}"
        artefacts.write_array(folder / "keep.npy", models.is_member[row])
        artefacts.write_array(folder / "scores" / CHECKPOINT, known["margin"][row])  # [N, Q]
    artefacts.write_array(output / "sample_id.npy", table["sample_id"].to_numpy())
    has_labels = bool((table["label"] >= 0).all())
    if has_labels:
        artefacts.write_array(output / "y_train.npy", table["label"].to_numpy())
    return [
        f"Models are called experiment-0_{n_models} and so on, in the order of the plan; the layout has no names, groups or targets.",
        "Samples stand in the order of sample_id.npy; scores are margins, and logits are not written.",
        *([] if has_labels else ["No labels are known; y_train.npy was not written."]),
    ]


def to_privacy_meter(plan: Path, samples: Path, signals: Sequence[Path], output: Path) -> list[str]:
    """`models/memberships.npy` [M, N] and `signals/rmia_signals.npy` [N, M]: probabilities of the label in float64."""
    models, table, known = _read(plan, samples, signals, ["margin"])
    margin = known["margin"][:, :, 0].astype(np.float64)
    probability = special.expit(margin).T  # [N, M]
    artefacts.write_array(output / "models/memberships.npy", models.is_member)
    artefacts.write_array(output / "signals/rmia_signals.npy", probability)
    artefacts.write_array(output / "sample_id.npy", table["sample_id"].to_numpy())
    if (table["label"] >= 0).all():
        artefacts.write_array(output / "labels.npy", table["label"].to_numpy())
    lost = f"{int((probability == 1).sum()):,} of {probability.size:,} round to 1"
    notes = [f"Probabilities hold margins up to 36 nats, ever less precisely ({_error_at(margin):.2g} nats lost at most, below 36): {lost}."]
    if known["margin"].shape[2] > 1:
        notes.append(f"The layout has one view of a sample; of {known['margin'].shape[2]} the first was written.")
    return [*notes, "The layout has no names of models, groups or targets; samples stand in the order of sample_id.npy."]


def _error_at(margin: np.ndarray) -> float:
    """The largest error of a margin that went through a probability, of those below 36 nats."""
    below = margin[abs(margin) < 36]
    return float(abs(special.logit(special.expit(below)) - below).max(initial=0.0))


def to_table(plan: Path, samples: Path, signals: Sequence[Path], output: Path) -> list[str]:
    """A table with one row a (model, sample, view), Parquet or CSV as the name ends; a row group a model."""
    if output.suffix.lower() not in (".parquet", ".csv"):
        raise RunError(f"{output}: a file ending in '{output.suffix}'; expected .parquet or .csv")
    models, table, known = _read(plan, samples, signals, ["margin", "loss"])
    with artefacts.atomic(output) as temporary:
        if output.suffix.lower() == ".csv":
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                for row in range(len(models.model_id)):
                    _rows(models, table, known, row).to_csv(file, index=False, header=row == 0)
        else:
            first = pa.Table.from_pandas(_rows(models, table, known, 0), preserve_index=False)
            with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
                for row in range(len(models.model_id)):
                    own = pa.Table.from_pandas(_rows(models, table, known, row), schema=first.schema, preserve_index=False)
                    writer.write_table(own, row_group_size=len(own))
    return []


def _rows(models: Models, table: pd.DataFrame, known: dict[str, np.ndarray], row: int) -> pd.DataFrame:
    """All that one model says."""
    n_views = known["margin"].shape[2]
    found = {
        "model_id": str(models.model_id[row]),
        "sample_id": np.repeat(table["sample_id"].to_numpy(), n_views),
        "view": np.tile(np.arange(n_views, dtype=np.int32), len(table)),
        "is_member": np.repeat(models.is_member[row], n_views),
        "target": bool(models.is_target[row]),
        "label": np.repeat(table["label"].to_numpy(), n_views),
        "group_id": np.repeat(table["group_id"].to_numpy(), n_views),
    }
    if (table["label"] < 0).any():
        del found["label"]
    return pd.DataFrame(found | {name: values[row].ravel() for name, values in known.items()})


def _read(plan: Path, samples: Path, signals: Sequence[Path], names: Sequence[str]) -> tuple[Models, pd.DataFrame, dict[str, np.ndarray]]:
    """Models, audited samples, and signals [M, N, Q]."""
    kind = artefacts.read_facts(plan).get("design", {}).get("kind")
    if kind == "pairs":
        raise RunError(
            f"{plan}: in a pairs audit each model answers about its own record; only audits in which all models answer about all can be exported"
        )
    table, _ = pools.read_samples(samples)
    sample_id = table["sample_id"].to_numpy()
    models = pools.read_models(plan, sample_id)
    return models, table, pools.read_signals(signals, list(models.model_id), sample_id, names)


KINDS: dict[str, Callable[[Path, Path, Sequence[Path], Path], list[str]]] = {"lira": to_lira, "privacy-meter": to_privacy_meter, "table": to_table}
