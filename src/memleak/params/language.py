"""Whether an audit of texts goes together: its data, models, views, signals and attacks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from memleak.params.audits import OF_IMAGES, OF_TEXTS, Audit, population_lacks
from memleak.params.datasets import Dataset
from memleak.params.designs import Canaries, Given, Pairs
from memleak.params.options import attack_options
from memleak.params.recipes import Recipe
from memleak.params.texts import ARCHITECTURES, TEXT_SIGNALS, TOKEN_SIGNALS, looks_local

TEXT_DATASETS = ("text", "python_topics", "python_topics_rest")
LANGUAGE_TASKS = ("causal-lm", "masked-lm")  # models that tell a distribution over tokens, and no class
TASKS = {  # by the end of the name that config.json gives the architecture
    "LMHeadModel": "causal-lm", "ForCausalLM": "causal-lm", "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence-classification", "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}  # fmt: skip
OF_CLASSES = ("modified_entropy", "is_correct", "logits")  # signals of models that choose among a few classes
OF_PICTURES = ("boundary_distance", "noise_robustness")  # signals that records are moved a little for


def check_texts(where: str, audit: Audit, recipe: Recipe | None, dataset: Dataset) -> None:
    """Refuse data, models, views, signals and attacks that do not go together; what is not known beforehand is left to the jobs."""
    is_text = _is_text(where, audit, recipe, dataset)
    tasks = _tasks(audit, recipe)
    options = {f"{where}.attacks.{attack_id}": attack_options(entry) for attack_id, entry in audit.attacks.items()}
    for place, views in {where: audit.views, **{place: needs.views for place, found in options.items() if (needs := _needs(found))}}.items():
        _check_views(f"{place}.views", views, audit, is_text, is_classified=not tasks & {None, *LANGUAGE_TASKS})
    if is_text and audit.include_records:
        raise ValueError(f"{where}.include_records: it shows pictures, and '{audit.dataset}' holds texts; leave it out, exposure.parquet names them")
    for place, found in options.items():
        if tasks & set(LANGUAGE_TASKS):
            _check_reader(place, found, audit, recipe)
        elif None not in tasks:
            _refuse_signals(place, found, (*TOKEN_SIGNALS, *TEXT_SIGNALS), "language models alone tell; use threshold, lira or rmia")
    if tasks & set(LANGUAGE_TASKS):
        _check_no_classes(where, audit)


def task_of(checkpoint: str) -> str | None:
    """What a local checkpoint's head does, by its config.json; None of one on the hub, or where the file does not say."""
    config = Path(checkpoint) / "config.json"
    if not looks_local(checkpoint) or not config.is_file():
        return None
    try:
        names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""]
    except ValueError:  # which is said where it is loaded
        return None
    return next((task for ending, task in TASKS.items() if names[0].endswith(ending)), None)


def holds_texts(dataset: Dataset) -> bool | None:
    """Whether the records are texts; None where a function of the user's makes them."""
    names = {part.name for part in dataset.sources.values()}
    return True if names <= set(TEXT_DATASETS) else None if any(":" in name for name in names) else False


def _is_text(where: str, audit: Audit, recipe: Recipe | None, dataset: Dataset) -> bool | None:
    """Whether the audited records are texts; raises ValueError where the models do not read such records."""
    holds, given = holds_texts(dataset), audit.design.model if isinstance(audit.design, Given) else None
    if recipe is not None and holds is not None and holds != recipe.reads_texts:
        what, instead = (
            ("texts", f"architecture: {' or '.join(ARCHITECTURES)}") if holds else ("no texts", "a data set of texts, such as python_topics")
        )
        reads = "texts" if recipe.reads_texts else "no texts"
        raise ValueError(f"{where}.recipe: the architecture {recipe.architecture} reads {reads}, and '{audit.dataset}' holds {what}; use {instead}")
    if given is not None and holds and given.checkpoint is None:
        raise ValueError(
            f"{where}.design.model: '{audit.dataset}' holds texts, which a checkpoint reads; name its folder or hub id as model.checkpoint"
        )
    if given is not None and holds is False and given.checkpoint and task_of(given.checkpoint) not in (None, "image-classification"):
        raise ValueError(
            f"{where}.design.model.checkpoint: {given.checkpoint} reads texts, and '{audit.dataset}' holds none; use a data set of texts ({{name: text, source: PATH}})"
        )
    return recipe.reads_texts if holds is None and recipe is not None else holds


def _tasks(audit: Audit, recipe: Recipe | None) -> set[str | None]:
    """What the heads of the models that are asked do; None for one that is not known before it is loaded."""
    found: set[str | None] = set()
    if recipe is not None:
        found.add(recipe.text.task if recipe.reads_texts else "classification")
    if isinstance(audit.design, Given):
        found.add(task_of(audit.design.model.checkpoint) if audit.design.model.checkpoint else "classification")
    return found


def _needs(options: BaseModel) -> Any:
    """What an attack says that it needs, `attacks.Needs`; None of one that does not say."""
    return getattr(options, "needs", None)


def _check_views(where: str, views: Sequence[str], audit: Audit, is_text: bool | None, *, is_classified: bool) -> None:
    """Refuse ways to show texts where there are none, those of images where there are texts, and a prefix of nothing."""
    for view in views:
        if is_text and re.fullmatch(OF_IMAGES, view):
            raise ValueError(
                f"{where}: {view} is a way to show images, and '{audit.dataset}' holds texts; use identity, lowercase, neighbours-N or prefix-N"
            )
        if is_text is False and re.fullmatch(OF_TEXTS, view):
            raise ValueError(f"{where}: {view} is a way to show texts, and '{audit.dataset}' holds none; use identity, flip, shift-N or rotate-N")
        if view.startswith("prefix") and is_classified:
            raise ValueError(
                f"{where}: {view} puts texts before each text, which a classifier is not asked about; use identity, lowercase or neighbours-N"
            )
        if view.startswith("prefix") and (lacking := population_lacks(audit.design)):
            raise ValueError(f"{where}: {view} puts texts outside every training set before each text, {lacking}")


def _check_reader(where: str, options: BaseModel, audit: Audit, recipe: Recipe | None) -> None:
    """Refuse an attack on language models that reads what they do not tell, or that would not do on them what its name says."""
    needs = _needs(options)
    if needs is None:
        raise ValueError(f"{where}: it does not say which signals it reads, and language models lack some; give its Options a property needs")
    _refuse_signals(where, options, OF_CLASSES, "a language model does not tell; use loss, margin, confidence, entropy, or a signal of its tokens")
    _refuse_signals(where, options, OF_PICTURES, "is measured by moving a record a little, and texts cannot be; leave this attack out")
    if "reference_log_prob" in needs.signals:
        _check_reference(where, audit, recipe)
    if isinstance(audit.design, Pairs) and getattr(options, "corpus", None) == "audited":
        raise ValueError(f"{where}.corpus: a pairs audit scores one text at a time, in which no frequencies can be counted; use corpus: population")
    for found in (options, getattr(options, "point_options", options)):  # of range: how each point is scored
        if getattr(found, "space", None) == "linear" and "space" not in found.model_fields_set:
            raise ValueError(
                f"{where}.space: of language models write space: log, for the probabilities of texts are so small that 1 - a drowns them "
                "(or space: linear, to see that)"
            )


def _refuse_signals(where: str, options: BaseModel, untold: Sequence[str], why: str) -> None:
    needs = _needs(options)
    read = [name for name in dict.fromkeys((*needs.signals, *needs.measured)) if name in untold] if needs else []
    if read:
        raise ValueError(f"{where}: it reads {', '.join(read)}, which {why}")


def _check_reference(where: str, audit: Audit, recipe: Recipe | None) -> None:
    """Refuse a comparison with a model that has not seen the texts where there is none."""
    if isinstance(audit.design, Given):
        if audit.design.model.reference is None:
            raise ValueError(
                f"{where}: it compares with a model that has not seen the members, and none is named; "
                "set design.model.reference to the checkpoint that was fine-tuned, or leave this attack out"
            )
    elif recipe is not None and recipe.architecture != "checkpoint":
        raise ValueError(
            f"{where}: it compares with the checkpoint that was fine-tuned, and {recipe.architecture} begins with random weights; "
            "use architecture: checkpoint, or difficulty, lira or rmia, which compare with trained models"
        )


def _check_no_classes(where: str, audit: Audit) -> None:
    """Refuse what takes classes or other records than texts: wrong labels, a release of probabilities of classes, signals around a record."""
    for column, entry in audit.signals.items():
        if entry["name"] != "gradient_norm":
            raise ValueError(
                f"{where}.signals.{column}: {entry['name']} moves records a little, or reads classes, and of language models gradient_norm alone is measured; "
                "leave it out"
            )
    if audit.release:
        raise ValueError(f"{where}.release: its steps change the probabilities of a few classes, and a language model has none; leave it out")
    mislabelled = "targets.mislabelled" if isinstance(audit.design, Pairs) and audit.design.targets.mislabelled else None
    if isinstance(audit.design, Canaries) and audit.design.mislabelled:
        mislabelled = "mislabelled"
    if mislabelled:
        raise ValueError(f"{where}.design.{mislabelled}: a text has no label that could be wrong; leave it out")
