"""Language models are asked about texts: every token of every view, by each model of a shard or by the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from memleak import provenance
from memleak.data import Dataset
from memleak.designs import Audited, Roster
from memleak.models import hub, language
from memleak.models.hub import Checkpoint
from memleak.models.tokens import Encoded, encode
from memleak.params import Recipe
from memleak.params.texts import LANGUAGE_SIGNALS, TEXT_SIGNALS
from memleak.signals import SignalError
from memleak.signals.language import TokenSignals, gradients
from memleak.signals.language.scoring import score
from memleak.signals.language.showing import Showing
from memleak.signals.language.texts import per_text, per_text_mean
from memleak.signals.tables import write_signals
from memleak.training.store import read_model

TASKS = ("causal-lm", "masked-lm")  # of models that tell a distribution over tokens
ASKED_AGAIN = 64  # texts that a given model is asked about a second time: does it answer alike?
GRADIENT = "gradient_norm"
UNLIMITED = 2**31  # tokens


@dataclass(frozen=True)
class Reader:
    """A language model, and how it cuts texts into tokens."""

    network: Any  # of `transformers`, in evaluation mode
    task: str  # causal-lm or masked-lm
    tokenizer: Any
    max_length: int
    stride: int | None = None  # of masked models: passes a text takes, None: one a token

    @property
    def mask_id(self) -> int | None:
        return getattr(self.tokenizer, "mask_token_id", None)

    def read(self, shown: tuple[Sequence[str] | None, Sequence[str]], sample_id: np.ndarray) -> Encoded:
        """Texts as the model reads them. Raises SignalError for a text of which no token can be scored."""
        prefixes, texts = shown
        encoded = encode(self.tokenizer, texts, self.max_length, prefixes, context=hub.context_of(self.network, self.tokenizer) or UNLIMITED)
        n_scored = encoded.n_text - (encoded.n_prefix == 0) * (self.task == "causal-lm")
        if (n_scored <= 0).any():
            first = int((n_scored <= 0).argmax())
            raise SignalError(
                f"record {sample_id[first]}: no token of this text can be scored (it has {encoded.n_text[first]}, and a first token without a BOS "
                f"before it is told by nothing); {int((n_scored <= 0).sum())} such texts; leave them out of the data"
            )
        return encoded

    def score(self, encoded: Encoded, progress: str, token_budget: int | None = None) -> TokenSignals:
        return score(
            self.network, self.task, encoded, token_budget=token_budget, stride=self.stride, mask_id=self.mask_id, progress=progress
        )  # fmt: skip


class Answers:
    """What language models say about texts: signals [M, N, Q], and of each token lists, [M][Q]."""

    def __init__(self, asked: Mapping[str, Any], roster: Roster, n_models: int, n_views: int) -> None:
        refuse_untold(asked)
        size = (n_models, len(roster), n_views)
        self.roster = roster
        self.signals = {name: np.empty(size, np.float32) for name in LANGUAGE_SIGNALS} | {name: np.empty(size, np.int32) for name in TEXT_SIGNALS}
        self._measured = [entry["column"] for entry in asked.get("signals", ())]
        self.signals |= {column: np.empty(size, np.float32) for column in self._measured}
        self.tokens: list[list[TokenSignals]] = [[] for _ in range(n_models)]

    def add(self, position: int, number: int, reader: Reader, encoded: Encoded, said: TokenSignals, reference: np.ndarray | None) -> None:
        """Note what a model said about the texts in one view, and how steep its loss is there where that is asked."""
        for name, values in per_text(said, encoded).items():
            self.signals[name][position, :, number] = values
        if self._measured:
            norms = gradients.gradient_norm(reader.network, reader.task, encoded, mask_id=reader.mask_id, stride=reader.stride)
            for column in self._measured:
                self.signals[column][position, :, number] = norms
        more = {} if reference is None else {"reference_log_prob": reference}
        self.tokens[position].append(TokenSignals(said.columns | more, said.offsets))

    def write(self, output: Path, head: dict[str, Any]) -> int:
        """Write the table. Returns its rows."""
        known = {"n_queries": dict.fromkeys(self._measured, 0.0)} if self._measured else {}
        write_signals(output, self.signals, self.roster, head | known, self.tokens)
        return int(self.signals["loss"].size)


def query(
    shard_path: Path, facts: dict[str, Any], recipe: Recipe, dataset: Dataset, roster: Roster, asked: Mapping[str, Any],
    head: dict[str, Any], output: Path, device: torch.device,
) -> int:  # fmt: skip
    """Write what a shard's language models say about texts. Returns the rows.

    Where they began as one checkpoint, its own answers, from before training, stand beside theirs: `reference_log_prob`.
    """
    showing = Showing(asked, dataset, roster, recipe.reserve)
    answers = Answers(asked, roster, len(facts["models"]), len(showing.names))
    network = language.build(recipe, dataset, 0, device).eval()
    reader = Reader(network.network, recipe.text.task, language.tokenizer_of(recipe, dataset), recipe.text.max_length)
    # audited texts of `pairs` are asked one at a time: what is said about one must not depend, to the last bit, on what else is asked
    budget = 1 if asked["samples"] == "targets" else None
    read = [reader.read(showing.shown(number), roster.sample_id) for number in range(len(showing.names))]
    references: list[np.ndarray | None] = [None] * len(read)
    if recipe.architecture == "checkpoint":  # nothing is loaded yet: the network is what it began as
        references = [reader.score(encoded, "checkpoint", budget).columns["log_prob"] for encoded in read]
    for position, model in enumerate(tqdm(facts["models"], desc=head["shard"], unit="model", disable=None)):
        network.load_state_dict(read_model(shard_path, position, facts))
        network.eval()
        for number, encoded in enumerate(read):
            answers.add(position, number, reader, encoded, reader.score(encoded, model["model_id"], budget), references[number])
    return answers.write(output, head)


def query_given(
    name: str, checkpoint: Checkpoint, reference: Checkpoint | None, dataset: Dataset, roster: Roster, asked: Mapping[str, Any],
    known: Audited | None, output: Path, stride: int | None = None, token_budget: int | None = None,
) -> int:  # fmt: skip
    """Write what the user's language model says about texts; of the reference the probabilities alone. Returns the rows."""
    showing = Showing(asked, dataset, roster)
    answers = Answers(asked, roster, 1, len(showing.names))
    reader = Reader(checkpoint.network, checkpoint.task, checkpoint.tokenizer, checkpoint.max_length, stride)
    shown, truncated, is_repeatable = [showing.shown(number) for number in range(len(showing.names))], {}, True
    for number, (prefixes, texts) in enumerate(shown):
        encoded = reader.read((prefixes, texts), roster.sample_id)
        said = reader.score(encoded, f"{name} {showing.names[number]}", token_budget)
        answers.add(0, number, reader, encoded, said, _of_reference(reference, reader, (prefixes, texts), encoded, roster))
        few = (prefixes and prefixes[:ASKED_AGAIN], texts[:ASKED_AGAIN])
        again = reader.score(reader.read(few, roster.sample_id), "again").columns["log_prob"]
        is_repeatable &= bool(np.allclose(again, said.columns["log_prob"][: len(again)], rtol=1e-3, atol=1e-3))
        if not number:
            truncated = {"n_truncated": int((encoded.n_dropped > 0).sum()), "n_tokens_dropped": int(encoded.n_dropped.sum())}
    facts = {"model_id": name, "engine": "given", "is_repeatable": is_repeatable, "torch": torch.__version__, **described(checkpoint), **truncated}
    if reference is not None:
        facts["reference"] = {"name": reference.name, "sha256": reference.facts["sha256"]}
    if known is not None:
        facts |= _fitted(answers, known)
    return answers.write(output, {"recipe": name, "shard": "given", "models": [facts]})


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What stands in the results about the user's checkpoint."""
    return {
        "form": f"checkpoint ({checkpoint.facts['architecture']})", "name": checkpoint.name, **checkpoint.facts,
        "n_weights": checkpoint.facts["n_parameters"], "max_length": checkpoint.max_length, "warnings": checkpoint.warnings,
        "device": str(checkpoint.device), "versions": provenance.versions() | {"transformers": metadata.version("transformers")},
    }  # fmt: skip


def _of_reference(
    reference: Checkpoint | None, reader: Reader, shown: tuple[Sequence[str] | None, Sequence[str]], encoded: Encoded, roster: Roster
) -> np.ndarray | None:
    """log p of each token under a model that has not seen the members, [total]. It must cut texts into the same tokens."""
    if reference is None:
        return None
    other = Reader(reference.network, reference.task, reference.tokenizer, reader.max_length, reader.stride)
    if reference.task != reader.task or reference.max_length < reader.max_length:
        raise SignalError(
            f"reference {reference.name}: is asked as {reference.task}, {reference.max_length} tokens at a time, the audited model as {reader.task}, "
            f"{reader.max_length}; name a checkpoint of the same kind" + ("" if reference.task != reader.task else ", or lower max_length")
        )
    read = other.read(shown, roster.sample_id)
    if not np.array_equal(read.ids, encoded.ids):
        first = next((i for i in range(len(read)) if not np.array_equal(_ids(read, i), _ids(encoded, i))), 0)
        raise SignalError(
            f"reference {reference.name}: cuts texts into other tokens than the audited model (record {roster.sample_id[first]} first); "
            "name a checkpoint with the same tokenizer, such as the one that was fine-tuned"
        )
    return other.score(read, "reference").columns["log_prob"]


def _ids(encoded: Encoded, text: int) -> np.ndarray:
    return encoded.ids[encoded.offsets[text] : encoded.offsets[text + 1]]


def _fitted(answers: Answers, known: Audited) -> dict[str, Any]:
    """Mean loss (nats) of audited members (train) and non-members (test) in the first view, and the share of tokens that are the likeliest.

    Every text counts alike, whatever its length.
    """
    said, found = answers.tokens[0][0], dict[str, Any]()
    is_top = per_text_mean(said, said.columns["log_rank"] == 0)
    for part, rows in (("train", known.members), ("test", known.non_members)):
        position = np.searchsorted(answers.roster.sample_id, rows)
        found |= {f"n_{part}": len(rows), f"{part}_accuracy": float(is_top[position].mean())}
        found[f"{part}_loss"] = float(answers.signals["loss"][0, position, 0].mean(dtype=np.float64))
    return found


def refuse_untold(asked: Mapping[str, Any]) -> None:
    """Raise SignalError for what language models do not tell."""
    if asked.get("release"):
        raise SignalError("release: its steps change the probabilities of a few classes, and a language model has none; leave it out")
    if asked.get("logits"):
        raise SignalError("logits: those of a language model are as many as its vocabulary for each token; attack its token signals instead")
    for entry in asked.get("signals", ()):
        if entry["name"] != GRADIENT:
            raise SignalError(f"{entry['name']}: it asks about records that are moved a little, and texts cannot be; leave it out, or ask {GRADIENT}")
