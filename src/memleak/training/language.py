"""What training does with texts: their tokens in batches, the loss of the next token, and a base model to begin with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memleak import provenance, randomness
from memleak.data import Dataset
from memleak.designs import Task
from memleak.models import language, lora
from memleak.models.language import TextNetwork
from memleak.models.layers import set_rows
from memleak.models.tokens import Encoded, encode
from memleak.params import ParamsError, Recipe
from memleak.training.steps import Program, Single
from memleak.training.steps import classes as classes_of

_ROWS = 16  # texts of a forward pass that are judged together: near in length, so that little of it is padding


class Texts:
    """The tokens of some texts on the device; a batch is as long as its longest text."""

    def __init__(self, encoded: Encoded, device: torch.device | str) -> None:
        self.lengths = torch.from_numpy(encoded.lengths)
        self.tokens = torch.from_numpy(encoded.padded(np.arange(len(encoded))).astype(np.int32)).to(device)

    def draw(self, positions: torch.Tensor, sample_ids: torch.Tensor, key: int | torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (positions,)

    def take(self, positions: torch.Tensor) -> torch.Tensor:
        """Tokens [B, K] int64, -1 beyond a text's end."""
        longest = int(self.lengths[positions.cpu()].max()) if len(positions) else 1
        return self.tokens[positions, :longest].long()


def encoded_of(
    dataset: Dataset, rows: np.ndarray, recipe: Recipe, view: Callable[[np.ndarray], np.ndarray] | None = None
) -> Encoded:  # fmt: skip
    """The texts of some rows of a data set as models of a recipe read them; a row is cut into tokens once in a process."""
    text, tokenizer = recipe.text, language.tokenizer_of(recipe, dataset)
    if view is not None:
        return encode(tokenizer, list(view(dataset.inputs[rows])), text.max_length)
    kept = _kept(provenance.digest([str(dataset.path), dataset.facts["sha256"], text.model_dump(mode="json")], 64))
    missing = [int(row) for row in np.unique(rows) if int(row) not in kept]
    if missing:
        found = encode(tokenizer, [dataset.inputs[row] for row in missing], text.max_length)
        kept |= {row: (found, i) for i, row in enumerate(missing)}
    return _joined([kept[int(row)] for row in rows])


@functools.lru_cache(maxsize=2)
def _kept(data_and_tokenizer: str) -> dict[int, tuple[Encoded, int]]:
    """Where each row of a data set stands that was cut into tokens before."""
    return {}


def _joined(places: Sequence[tuple[Encoded, int]]) -> Encoded:
    parts = [encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]] for encoded, i in places]
    facts = ("n_prefix", "n_suffix", "n_dropped", "n_bytes", "zlib_bytes")
    columns = [np.array([getattr(encoded, name)[i] for encoded, i in places], dtype=np.int64) for name in facts]
    ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return Encoded(ids, np.cumsum([0, *map(len, parts)], dtype=np.int64), *columns)


def is_causal(recipe: Recipe) -> bool:
    """Whether what a recipe's models learn is the next token, rather than a label."""
    return recipe.reads_texts and recipe.text.task == "causal-lm"


def of_tokens(logits: torch.Tensor, tokens: torch.Tensor, smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss (nats) of each text's tokens but the first, and the share of them that are the likeliest, [B] each; 0 where there is none.

    Each text counts alike, whatever its length: it is the unit that clipping bounds and that an audit asks about.
    """
    following = functional.pad(tokens[:, 1:], (0, 1), value=-1)  # [B, K], aligned with the logits, which need no copy
    is_there = following >= 0
    n = is_there.sum(1).clamp(min=1)
    each = functional.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=-1, reduction="none", label_smoothing=smoothing)
    with torch.no_grad():  # the largest logit is found ten times as fast as its place
        is_right = (logits.gather(2, following.clamp(min=0)[..., None])[..., 0] == logits.amax(2)) & is_there
    return each.view(following.shape).sum(1) / n, is_right.sum(1).double() / n


class TextProgram(Program):
    """One model of texts, or several that have a base in common: rows of a batch stand one model after the other.

    What counts as right is a share of a text's tokens, so their sum over texts is no whole number.
    """

    count_dtype = torch.float64

    def __init__(self, networks: Sequence[TextNetwork]) -> None:
        super().__init__(networks[0] if len(networks) == 1 else lora.stack(networks))
        self.n_models = len(networks)
        self.engine = Single.engine if self.n_models == 1 else "ensemble"
        self.is_causal = networks[0].task == "causal-lm"
        self.shapes = {name: tensor.shape for name, tensor in networks[0].state_dict().items()}

    def arrange(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.view(-1, self.n_models, *inputs.shape[1:]).transpose(0, 1).reshape(inputs.shape)

    def set_rows(self, rows: torch.Tensor) -> None:
        set_rows(self.network, self.arrange(rows))

    def set_counts(self, counts: np.ndarray, n_rows: int) -> None:
        self.counts = torch.from_numpy(counts).to(next(self.network.parameters()).device)
        self.share = (torch.arange(n_rows, device=self.counts.device) < self.counts[:, None]) / self.counts[
            :, None
        ]  # [M, B], of a text in its model's loss

    def in_turn(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.view(self.n_models, -1, *logits.shape[1:]).transpose(0, 1).flatten(0, 1)

    def each(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each text, and how much of it is right, [M, B] each; labels are the tokens themselves, or classes, in turn."""
        wanted = self.arrange(labels)
        if self.is_causal:
            losses, is_right = of_tokens(logits, wanted, smoothing)
        else:
            losses = functional.cross_entropy(logits, wanted, reduction="none", label_smoothing=smoothing)
            is_right = (logits.detach().argmax(1) == classes_of(wanted)).double()
        return losses.view(self.n_models, -1), is_right.view(self.n_models, -1)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        losses, is_right = self.each(logits, labels, smoothing)
        return (losses * self.share).sum(1), (is_right * (self.share > 0)).sum(1)

    def weights(self, state: Mapping[str, torch.Tensor] | None = None) -> list[dict[str, torch.Tensor]]:
        known = self.network.state_dict() if state is None else state
        parts = {name: tensor.detach().cpu().reshape(self.n_models, *self.shapes[name]) for name, tensor in known.items()}
        return [{name: tensor[model].contiguous() for name, tensor in parts.items()} for model in range(self.n_models)]


def judge(network: torch.nn.Module, encoded: Encoded, device: torch.device) -> tuple[float, float]:
    """Mean loss (nats) and share of likeliest tokens of texts, the mean over texts of the mean over their tokens."""
    network.eval()
    losses, is_right = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.float64)
    with torch.no_grad():
        for rows in _by_length(encoded):
            tokens = torch.from_numpy(encoded.padded(np.resize(rows, _ROWS))).to(device)
            said = of_tokens(network(tokens), tokens)
            losses[rows], is_right[rows] = (found[: len(rows)].double().cpu() for found in said)
    return float(losses.mean()), float(is_right.mean())


def _by_length(encoded: Encoded) -> Iterator[np.ndarray]:
    order = np.argsort(encoded.lengths, kind="stable")
    for start in range(0, len(order), _ROWS):
        yield order[start : start + _ROWS]


def facts_of(encoded: Encoded) -> dict[str, int]:
    """What is told of the texts that a model trained on: their tokens, and how many were longer than max_length."""
    return {"n_tokens": int(encoded.n_text.sum()), "n_truncated": int((encoded.n_dropped > 0).sum())}


def check(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse what models of texts cannot learn from, or learn by."""
    if not recipe.reads_texts:
        raise ParamsError(f"architecture: the data are texts, and {recipe.architecture} reads none; use gpt2, or checkpoint")
    if not dataset.is_text:
        raise ParamsError(f"architecture: {recipe.architecture} reads texts, and the data has shape {dataset.shape}; use an architecture for it")
    if recipe.compile:
        raise ParamsError("compile: batches of texts differ in length, and a step would be compiled anew for each; leave it out")
    if not is_causal(recipe):
        if dataset.n_classes < 2:
            raise ParamsError("text.task: sequence-classification learns labels, and the data has none; give a column label, or use causal-lm")
        return
    encoded = encoded_of(dataset, np.arange(len(dataset.inputs)), recipe)
    short = np.flatnonzero(encoded.lengths < 2)
    if len(short):
        raise ParamsError(
            f"text {short[0]}: it has {encoded.lengths[short[0]]} tokens ({len(short)} such texts), and the first is never predicted; drop texts so short"
        )


def pretrain(dataset: Dataset, recipe: Recipe, output: Path, device: torch.device, seed: int) -> dict[str, Any]:
    """Train one model on all texts of a data set and write it as a checkpoint of `transformers`, so that there is a base to train further."""
    from memleak.training import loop  # it needs what stands here
    from memleak.training.stage import check_recipe

    if output.exists():
        raise ParamsError(f"{output}: is there already; name another folder, or remove it")
    members = np.arange(len(dataset.inputs))
    check_recipe(recipe, dataset, len(members))
    if recipe.dp is not None or recipe.early_stopping is not None or recipe.text.lora is not None:
        raise ParamsError("pretrain: it writes a whole model trained on all texts; leave dp, early_stopping and lora out")
    task = Task(output.name, 0, "fit", "base", randomness.derive(seed, "pretrain"), members, None, None, members[:0])
    network = loop.initial(task, dataset, recipe, device)
    (curves,) = loop.fit(TextProgram([network]), [task], dataset, recipe, device)  # type: ignore[list-item]
    language.save(network, language.tokenizer_of(recipe, dataset), output, recipe.text.checkpoint)  # type: ignore[arg-type]
    return {"n": len(members), "train_loss": curves["loss_curve"][-1]} | facts_of(encoded_of(dataset, members, recipe))
