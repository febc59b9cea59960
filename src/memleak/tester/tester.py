"""MembershipTester: one model, a list of texts (or images) that it was trained on and a list of those that it was not."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pandas as pd

from memleak import artefacts
from memleak.models import hub, hub_networks
from memleak.models.hub import Checkpoint
from memleak.models.tokens import Encoded, encode
from memleak.params.texts import looks_local
from memleak.tester import choice, found, images, texts, walk
from memleak.tester.choice import Situation
from memleak.tester.report import AttackReport
from memleak.tester.texts import Given, Texts, TextsError
from memleak.training import devices

DEVICES = ("auto", "cpu", "cuda")


class MembershipTester:
    """Can the training texts of a model be recognised? `model`: a folder, a name on the hub, or a loaded model of transformers.

    `reference`: "base" (what the model was fine-tuned from), a folder, a name on the hub or a loaded model, with the same
    tokens, that has not seen the training texts; with one, attacks tell far more. On a CPU at most `batch_size` texts of
    `max_length` tokens are asked at once, or as many shorter ones; `token_budget` says that in tokens, for any device.
    """

    def __init__(
        self, model: Any = "bert-base-uncased", device: str | None = None, max_length: int | None = 256, batch_size: int = 4, *, task: str = "auto",
        reference: Any = None, tokenizer: Any = None, dtype: str = "auto", token_budget: int | None = None, seed: int = 0,
        local_files_only: bool | None = None, trust_remote_code: bool = False,
    ) -> None:  # fmt: skip
        for name, value in (("max_length", max_length), ("batch_size", batch_size)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer | None):
                raise ValueError(f"{name} is {value!r}, expected a whole number")
        if str(device or "auto").partition(":")[0] not in DEVICES:
            raise ValueError(f"device: '{device}' is unknown; it is {', '.join(DEVICES)}")
        if max_length is not None and max_length < 2:
            raise ValueError(f"max_length is {max_length}, expected 2 tokens or more, since the first is not scored")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
        self.seed, self._device = seed, devices.prepare_torch(device or "auto")
        of_batch = batch_size * (max_length or hub.DEFAULT_LENGTH)
        self.token_budget = token_budget or (of_batch if self._device.type == "cpu" else None)  # on a GPU as many as fit
        self._max_length = max_length
        self._loading: dict[str, Any] = {"dtype": dtype, "local_files_only": local_files_only, "trust_remote_code": trust_remote_code}
        self._given = {"model": model, "tokenizer": tokenizer}
        self.checkpoint = self._loaded(model, task, tokenizer)
        self._wanted_reference = reference

    @property
    def network(self) -> Any:
        """The model, in evaluation mode."""
        return self.checkpoint.network

    @property
    def tokenizer(self) -> Any:
        return self.checkpoint.tokenizer

    @property
    def task(self) -> str:
        """causal-lm, masked-lm, sequence-classification, token-classification or image-classification."""
        return self.checkpoint.task

    @property
    def wrapper(self) -> Checkpoint:
        """Model, tokenizer and task, as the earlier tool called them together."""
        return self.checkpoint

    @cached_property
    def reference(self) -> Checkpoint | None:
        """The model that has not seen the training texts, if there is one."""
        wanted = self._wanted_reference
        if wanted is None:
            return None
        if isinstance(wanted, str) and wanted == "base":
            wanted = hub.base_of(self.checkpoint)
            if wanted is None:
                raise ValueError(
                    f"reference: nothing says what {self.checkpoint.name} was fine-tuned from, or it is not there; name a folder or hub id"
                )
        if self.task not in choice.LANGUAGE:
            raise ValueError("reference: a classifier's body has no head to compare with; leave it out, and train references in params.yaml instead")
        found = self._loaded(wanted, self.task, None if isinstance(wanted, (str, Path)) else self.tokenizer)
        if hub.is_same(self.checkpoint, found):
            raise ValueError(
                f"reference: {found.name} is the audited model itself, weight for weight; name the model that it was fine-tuned from, or leave it out"
            )
        return found

    def __getattr__(self, name: str) -> Any:
        if "_given" in self.__dict__ and not self._given:
            raise AttributeError("this tester is closed and its models are gone; make another, or ask it inside of its `with` block")
        raise AttributeError(f"{type(self).__name__} has no '{name}'")

    def __enter__(self) -> MembershipTester:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the models, so that their memory is free."""
        self.__dict__.pop("checkpoint", None)
        self.__dict__.pop("reference", None)
        self._given = {}
        gc.collect()

    def run_attacks(
        self, train_data: Given, test_data: Given, train_labels: Sequence[Any] | None = None, test_labels: Sequence[Any] | None = None, *,
        attacks: Literal["default"] | Sequence[str] | Mapping[str, Any] = "default", population: Given | None = None, controls: bool = True,
        on_overlap: Literal["drop", "warn", "error"] = "drop", effort: str = "standard", directory: str | Path | None = None, progress: bool | None = None,
    ) -> AttackReport:  # fmt: skip
        """Audit the model on texts that it was trained on and texts that it was not.

        Texts are strings, mappings or rows of a table with text and, where there are any, label and id. Where each word has a label:
        lists of words with lists of labels, or mappings with tokens and ner_tags. Images are of PIL, or arrays. Test records that repeat
        training records are left out and counted (`on_overlap`). `population`: records outside both lists that it was not trained
        on. `directory`: keep all artefacts there, with the params.yaml that `memleak audit params.yaml` makes them from again.
        """
        members = texts.read(train_data, train_labels, "train_data", self.task)
        sides = texts.apart(members, texts.read(test_data, test_labels, "test_data", self.task), on_overlap)
        others = None if population is None else texts.read(population, None, "population", self.task)
        sides = texts.without_short(sides, [self._is_long(side) for side in (sides.members, sides.non_members)])
        others = others and others.kept(self._is_long(others))
        sides, others, size = self._of_one_size(sides, others)
        has_labels = self._has_labels(sides)
        reference = None if effort == "quick" else self.reference
        situation = Situation(self.task, reference is not None, others is not None, has_labels)
        chosen, headline = choice.choose(situation, attacks, effort)
        with _folder(directory) as folder:
            self._write(folder, sides, others, has_labels)
            config = self._config(folder, chosen, headline, len(sides.non_members), reference, others is not None)
            labels = [*(sides.members.label or ()), *(sides.non_members.label or ())] if has_labels and self.task == texts.TOKENS else None
            done = walk.walk(
                folder, config, self.checkpoint, reference, has_blind=controls, progress=progress, token_budget=self.token_budget, word_labels=labels
            )
            setting = found.Setting(
                self.checkpoint, reference, sides, has_labels, self.task in choice.LANGUAGE and members.label is not None, 0 if others is None else len(others), self._n_truncated(sides), size, self.seed,
                controls, (effort == "thorough" or "gradient-norm" in chosen) and (has_labels or self.task in choice.LANGUAGE),
                None if directory is None else str(folder),
            )  # fmt: skip
            with walk.steps(0, progress) if progress is False else contextlib.nullcontext():
                numbers, frames = found.measured(done, setting)
            report = AttackReport(frames, numbers, done.curves)
            if directory is not None:
                report.to_json(folder / "membership.json")
                report.to_html(folder / "report.html")
        return report

    def score(self, given: Given, labels: Sequence[Any] | None = None) -> pd.DataFrame:
        """What the model says about each text, a row each, whoever trained on it; NaN of a text in which no token can be scored.

        Of language models loss, confidence, entropy and margin, and lengths; of classifiers the signals that labels allow.
        """
        known = texts.read(given, labels, "texts", self.task)
        table = pd.DataFrame({"id": known.id, "text": known.text}, dtype=object)
        is_long = self._is_long(known)
        for name, values in (self._said(known.kept(is_long)) if is_long.any() else {}).items():
            column = np.full(len(table), np.nan)
            column[is_long] = values
            table[name] = column
        return table

    def _said(self, known: Texts) -> dict[str, np.ndarray]:
        from memleak.signals.language import asking, classifiers
        from memleak.signals.language.texts import per_text

        if self.task not in asking.TASKS:
            return classifiers.ask(self.checkpoint, known.image or known.text, known.label, self.token_budget)
        encoded = self._encoded(known)
        reader = asking.Reader(self.network, self.task, self.tokenizer, self.checkpoint.max_length)
        return per_text(reader.score(encoded, "texts", self.token_budget), encoded)

    def _loaded(self, model: Any, task: str, tokenizer: Any) -> Checkpoint:
        if isinstance(model, Checkpoint):
            return model
        if isinstance(model, (str, Path)):
            return hub.load(str(model), self._device, task=task, tokenizer=tokenizer, max_length=self._max_length, **self._loading)
        return hub.wrap(model, tokenizer, device=self._device, task=task, max_length=self._max_length)

    def _encoded(self, given: Texts) -> Encoded:
        return encode(self.tokenizer, given.text, self.checkpoint.max_length)

    def _has_labels(self, sides: texts.Sides) -> bool:
        """Whether a classifier is asked with labels, which both sides have then."""
        is_labelled = [self.task not in choice.LANGUAGE and side.label is not None for side in (sides.members, sides.non_members)]
        if any(is_labelled) and not all(is_labelled):
            names = ("train_data", "test_data") if is_labelled[0] else ("test_data", "train_data")
            raise TextsError(f"{names[0]} has labels and {names[1]} has none; give both sides labels, or neither")
        return all(is_labelled)

    def _is_long(self, given: Texts) -> np.ndarray:
        """Of which records something can be said, [n]: a token scored, or a label told."""
        if given.image:
            return np.ones(len(given), dtype=bool)
        encoded = self._encoded(given)
        if self.task == texts.TOKENS and given.label is not None:
            return self._n_labelled(given, encoded) > 0
        if self.task not in choice.LANGUAGE:
            return encoded.n_text > 0
        return encoded.n_text - (encoded.n_prefix == 0) * (self.task == "causal-lm") > 0

    def _n_labelled(self, given: Texts, encoded: Encoded) -> np.ndarray:
        """How many words of each text that are read have a label, [n]."""
        from memleak.signals.language import classifiers

        assert given.label is not None
        labels = classifiers.word_labels(self.tokenizer, given.text, given.label, encoded, self.network.config)
        return np.bincount(np.repeat(np.arange(len(given)), encoded.n_text)[labels != classifiers.UNLABELLED], minlength=len(given))

    def _of_one_size(self, sides: texts.Sides, others: Texts | None) -> tuple[texts.Sides, Texts | None, tuple[int, int] | None]:
        """Images of several sizes brought to one, as a data set has them, and that size; None where nothing was done."""
        every = [side for side in (sides.members, sides.non_members, others) if side is not None]
        size = images.size_for(self.checkpoint, [image for side in every for image in side.image]) if sides.members.image else None
        if size is None:
            return sides, others, None
        members, non_members, *more = (
            replace(side, image=tuple(images.resized(image, size, self.checkpoint.processor) for image in side.image)) for side in every
        )
        return replace(sides, members=members, non_members=non_members), next(iter(more), None), size

    def _n_truncated(self, sides: texts.Sides) -> tuple[int, int]:
        """How many members and non-members are longer than what is read of them."""
        if sides.members.image:
            return 0, 0
        members, others = (int((self._encoded(side).n_dropped > 0).sum()) for side in (sides.members, sides.non_members))
        return members, others

    def _write(self, folder: Path, sides: texts.Sides, others: Texts | None, has_labels: bool) -> None:
        """Write the lists of texts beside params.yaml."""
        for part, side in ((walk.MEMBERS, sides.members), (walk.NON_MEMBERS, sides.non_members), (walk.POPULATION, others)):
            if side is not None:
                has_own = has_labels and side.label is not None and self.task != texts.TOKENS
                side.write(folder / self._source(part), self._numbers(side) if has_own else None)

    def _source(self, part: str) -> str:
        return f"{part}.npz" if self.task == texts.IMAGES else f"{part}.parquet"

    def _numbers(self, side: Texts) -> list[int]:
        """Labels as the classifier numbers them: whole numbers as they are, names as config.json has them."""
        assert side.label is not None
        names = {name: number for number, name in enumerate(self.checkpoint.class_names)}
        numbers = []
        for place, label in enumerate(side.label):
            number = names.get(label) if isinstance(label, str) else int(label)
            if number is None or not 0 <= number < len(names):
                raise TextsError(f"label {label!r} of text {side.id[place]} is unknown; the model tells {', '.join(names)} (0 to {len(names) - 1})")
            numbers.append(number)
        return numbers

    def _config(
        self, folder: Path, attacks: Mapping[str, Any], headline: str, n_non_members: int, reference: Checkpoint | None, has_population: bool
    ) -> dict[str, Any]:  # fmt: skip
        """The params.yaml of this audit."""
        parts = [walk.MEMBERS, walk.NON_MEMBERS, *([walk.POPULATION] if has_population else [])]
        data = images.PLUGIN if self.task == texts.IMAGES else "text"
        design = {"kind": "given", "model": self._model(folder, reference), "overlap": "drop"} | (
            {"population": walk.POPULATION} if has_population else {}
        )
        return {
            "seed": self.seed,
            "datasets": {walk.AUDIT: {"parts": {part: {"name": data, "source": self._source(part)} for part in parts}}},
            "audits": {
                walk.AUDIT: {
                    "dataset": walk.AUDIT, "design": design, "attacks": dict(attacks), "headline": headline, "alpha": choice.alpha_for(n_non_members),
                }
            },
            "device": "cpu" if self._device.type == "cpu" else "auto",
        }  # fmt: skip

    def _model(self, folder: Path, reference: Checkpoint | None) -> dict[str, Any]:
        """The model as params.yaml names it; one that is loaded already is saved beside it."""
        named = {"checkpoint": self._named(folder, "model", self._given["model"], self.checkpoint), "max_length": self.checkpoint.max_length}
        tokenizer = self._given["tokenizer"]
        if isinstance(tokenizer, (str, Path)):
            named["tokenizer"] = _absolute(str(tokenizer))
        if reference is not None:
            wanted = reference.name if isinstance(self._wanted_reference, str) else self._wanted_reference
            named["reference"] = self._named(folder, "reference", wanted, reference)
        return named

    def _named(self, folder: Path, where: str, given: Any, checkpoint: Checkpoint) -> str:
        if isinstance(given, (str, Path)):
            return _absolute(str(given))
        with hub_networks.quiet():
            for part in (checkpoint.network, checkpoint.tokenizer, checkpoint.processor):
                if part is not None:
                    part.save_pretrained(folder / where)
        return where


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if looks_local(name) else name


@contextlib.contextmanager
def _folder(directory: str | Path | None) -> Iterator[Path]:
    """Where the artefacts lie: the user's folder, or one that vanishes."""
    if directory is not None:
        artefacts.make_folder(Path(directory))
        yield Path(directory).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="memleak-") as folder:
        yield Path(folder).resolve()
