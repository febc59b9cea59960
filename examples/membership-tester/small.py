"""What the examples have in common: models trained by memleak's own loop, and how a report is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memleak import AttackReport, data, params
from memleak.training import devices, language

LENGTH = 64  # tokens of a text that are read
GPT2 = {"architecture": "gpt2", "text": {"layers": 2, "width": 64, "heads": 2, "max_length": LENGTH}}  # small enough for any CPU
LEARNING = {"optimizer": "adamw", "batch_size": 16, "learning_rate": 0.001}


def trained(texts: Sequence[str], folder: Path, base: str | Path | None = None, **changed: Any) -> Path:
    """A folder with a causal language model trained on some texts: a small GPT-2 from nothing, or a base fine-tuned. A folder of that name is replaced."""
    start = GPT2 if base is None else {"architecture": "checkpoint", "text": {"checkpoint": str(base), "max_length": LENGTH}}
    recipe = params.recipe_of(start | LEARNING | changed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".parquet")
    pd.DataFrame({"text": list(texts)}).to_parquet(file)
    prepared = folder.with_suffix(".data") / "dataset.json"
    data.prepare(params.Dataset(name="text", source=str(file)), prepared)
    done = language.pretrain(data.read(prepared), recipe, folder, devices.prepare_torch("auto"), seed=0)
    print(f"{folder.name}: trained on {done['n']} texts, {done['train_loss']:.2f} nats a token in the last epoch")
    return folder


def tell(report: AttackReport, page: Path) -> None:
    """Verdict, metrics and recommendations on the terminal; everything on the page."""
    columns = ["attack", "auc", "low", "high", "tpr_at_1", "accuracy"]
    print(f"\nVerdict: {report.verdict}, risk {report.risk_score:.0f} of 100 ({report.risk_level})", *report.sentences, sep="\n")
    print(f"\n{report.metrics[columns].round(3).to_string(index=False)}\n\nRecommendations:")
    print(*(f"- {one}" for one in report.recommendations()), sep="\n")
    report.to_html(page)
    print(f"\nThe page: {page}")


def run(main: Callable[[], None]) -> None:
    """Run an example; what cannot be done (no such checkpoint, no network) is said in one sentence."""
    try:
        main()
    except ValueError as error:
        raise SystemExit(str(error)) from None
