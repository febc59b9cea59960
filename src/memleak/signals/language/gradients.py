"""Norm of the gradient that a record still sends to the weights of a checkpoint: small for what was learnt already.

Nasr et al. 2019, "Comprehensive Privacy Analysis of Deep Learning". A score is minus the norm (higher: more likely a member);
a logarithm would change no order. White-box: it takes the network itself. Gradients are those of all weights, frozen ones
and a base below merged additions included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from tqdm import tqdm

from memleak.models.tokens import Encoded
from memleak.signals import SignalError
from memleak.signals.language import masked, passes
from memleak.signals.language.classifiers import UNLABELLED, pixels
from memleak.signals.language.scoring import batches

WEIGHTS_AT_ONCE = 2**26  # gradients held at a time, over all texts of a chunk: 256 MB in float32
TOKENS_AT_ONCE = 512  # of a chunk, or of the masked rows of one text that are asked together; measured: more is slower on a CPU
ALIKE = 1e-3  # relative difference of norms side by side and one by one, above which the former is not used
_QUIET_SECONDS = 3


@dataclass(frozen=True)
class Norms:
    """L2 norms of the gradient of each record's mean loss in nats; NaN where a record has nothing to be scored."""

    whole: np.ndarray  # [N] float32, over all weights
    layers: tuple[str, ...]  # such as transformer.h.3, in the network's order
    by_layer: np.ndarray  # [N, L] float32


@dataclass(frozen=True)
class _Rows:
    """What a network is asked: row i is about record `record[i]`, whose loss is the sum over its rows, which follow each other."""

    record: np.ndarray  # [R]
    lengths: np.ndarray  # [R]
    make: Callable[[np.ndarray], tuple[np.ndarray, ...]]  # rows -> inputs [B, ...], targets and weights [B] or [B, K]


def gradient_norm(network: Any, task: str, encoded: Encoded, **how: Any) -> np.ndarray:
    """`norms` over all weights alone, float32 [N]."""
    return norms(network, task, encoded, **how).whole


def norms(
    network: Any, task: str, encoded: Encoded, *, labels: np.ndarray | None = None, mask_id: int | None = None, stride: int | None = None,
    token_budget: int = TOKENS_AT_ONCE,
) -> Norms:  # fmt: skip
    """Norms of texts. Causal: of the mean loss of scored tokens; masked: of the pseudo-log-likelihood, as `masked.passes` has it
    (`mask_id`, `stride`); classifiers: of the cross-entropy of `labels`, [N] or those of `classifiers.word_labels`, [total].
    """
    if task == "causal-lm":
        return _norms(network, _of_tokens(passes.left_to_right(encoded)), len(encoded), token_budget, is_padded=True)
    if task == "masked-lm":
        return _norms(network, _of_tokens(masked.passes(encoded, mask_id, stride)), len(encoded), token_budget)
    if labels is None:
        raise SignalError("gradient_norm: the loss of a classifier takes labels; give them, or leave this signal out")
    make = {"sequence-classification": _of_texts, "token-classification": _of_labelled_tokens}[task]
    return _norms(network, make(encoded, np.asarray(labels)), len(encoded), token_budget)


def image_norms(network: Any, images: Sequence[Any], labels: np.ndarray, processor: Any | None = None) -> Norms:
    """Norms of images: of the cross-entropy of their labels, [N]."""

    def make(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        shown = pixels(network, [images[row] for row in rows], processor).cpu().numpy()
        return shown, labels[rows], np.ones(len(rows), np.float32)

    rows = _Rows(np.arange(len(images)), np.ones(len(images), np.int64), make)
    return _norms(network, rows, len(images), 32, given="pixel_values")


# -- what is asked ------------------------------------------------------------------------------------------------


def _of_tokens(asked: passes.Passes) -> _Rows:
    n_scored = np.diff(asked.offsets)

    def make(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        batch = asked.batch(rows)
        weights = 1 / n_scored[asked.text[rows]][batch.row]
        return batch.shown, *_placed(batch.shown, batch.row, batch.place, asked.token_id[batch.slot], weights)

    return _Rows(asked.text, asked.lengths, make)


def _of_texts(encoded: Encoded, labels: np.ndarray) -> _Rows:
    def make(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return encoded.padded(rows), labels[rows], np.ones(len(rows), np.float32)

    return _Rows(np.arange(len(encoded)), encoded.lengths, make)


def _of_labelled_tokens(encoded: Encoded, labels: np.ndarray) -> _Rows:
    starts = np.cumsum([0, *encoded.n_text])
    text = np.repeat(np.arange(len(encoded)), encoded.n_text)
    n_labelled = np.bincount(text[labels != UNLABELLED], minlength=len(encoded))
    record = np.flatnonzero(n_labelled)

    def make(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        shown, texts = encoded.padded(record[rows]), record[rows]
        at = [np.flatnonzero(labels[starts[one] : starts[one + 1]] != UNLABELLED) for one in texts]
        row, place = np.repeat(np.arange(len(rows)), n_labelled[texts]), np.concatenate(at)
        return shown, *_placed(shown, row, place + encoded.n_prefix[texts][row], labels[starts[texts][row] + place], 1 / n_labelled[texts][row])

    return _Rows(record, encoded.lengths[record], make)


def _placed(shown: np.ndarray, row: np.ndarray, place: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets and their weights where they are told, [B, K] each."""
    targets, weights = np.zeros(shown.shape, np.int64), np.zeros(shown.shape, np.float32)
    targets[row, place], weights[row, place] = target, weight
    return targets, weights


# -- gradients ----------------------------------------------------------------------------------------------------


class _Network:
    """Gradients of a network's loss by functions, so that nothing of it changes."""

    def __init__(self, network: Any, given: str) -> None:
        self.weights = {name: value.detach() for name, value in network.named_parameters() if value.is_floating_point()}
        self.layers = tuple(dict.fromkeys(map(layer_of, self.weights)))
        self._network, self._given = network, given
        self._more = {"use_cache": False} if getattr(network.config, "use_cache", None) is not None else {}
        self._is_vmapped: bool | None = None  # not tried yet

    def loss(self, weights: dict[str, torch.Tensor], shown: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Weighted sum of -log p of the targets, nats. What stands in a row beyond its text's end is behind all that is told."""
        given: dict[str, Any] = {self._given: shown}
        if self._given == "input_ids":
            given = {"input_ids": shown.clamp(min=0), "attention_mask": torch.ones_like(shown[:1]), **self._more}
        logits = functional_call(self._network, weights, (), given).logits.float()
        return -(logits.log_softmax(-1).gather(-1, target[..., None])[..., 0] * weight).sum()

    def squares(self, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        """Squared norm of each layer's gradient, [L]."""
        found = {layer: torch.zeros((), device=self.device) for layer in self.layers}
        for name, value in gradients.items():
            found[layer_of(name)] = found[layer_of(name)] + value.float().square().sum()
        return torch.stack(list(found.values()))

    @property
    def device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    def _one(self, shown: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self.squares(grad(self.loss)(self.weights, shown[None], target[None], weight[None]))

    def side_by_side(self, *rows: torch.Tensor) -> torch.Tensor:
        """Squares of several rows [B, L], by vmap where that gives the same for the first two as one row after the other.

        On a CPU it is 2.6 times as fast at 50 tokens a row, and no faster at 250.
        """
        if len(rows[0]) > 1 and self._is_vmapped is None:
            few = [values[:2] for values in rows]
            try:
                self._is_vmapped = torch.allclose(vmap(self._one)(*few), self.one_by_one(*few), rtol=ALIKE, atol=1e-12)
            except (RuntimeError, NotImplementedError, ValueError):  # what cannot be vectorised is asked one by one, to the same end
                self._is_vmapped = False
        return vmap(self._one)(*rows) if len(rows[0]) > 1 and self._is_vmapped else self.one_by_one(*rows)

    def one_by_one(self, *rows: torch.Tensor) -> torch.Tensor:
        """The same in a loop, [B, L]."""
        return torch.stack([self.squares(self._backward([values[i : i + 1] for values in rows])) for i in range(len(rows[0]))])

    def of_sum(self, parts: Iterator[list[torch.Tensor]]) -> torch.Tensor:
        """Squares of one record's gradient, which is the sum over parts of its rows, [L]."""
        total: dict[str, torch.Tensor] = {}
        for part in parts:
            for name, value in self._backward(part).items():
                total[name] = total[name] + value if name in total else value
        return self.squares(total)

    def _backward(self, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The gradient of the sum over rows, by an ordinary backward pass, which is faster for one row than `grad`."""
        leaves = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        with torch.enable_grad():
            loss = self.loss(leaves, *rows)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True), strict=True))


def _norms(network: Any, rows: _Rows, n: int, token_budget: int, is_padded: bool = False, given: str = "input_ids") -> Norms:
    network.eval()
    asked = _Network(network, given)
    squares = np.full((n, len(asked.layers)), np.nan)
    bar = tqdm(total=len(rows.record), desc="gradients", unit="row", leave=False, delay=_QUIET_SECONDS, disable=None)
    has_one_row = len(np.unique(rows.record)) == len(rows.record)
    n_at_once = max(1, WEIGHTS_AT_ONCE // sum(value.numel() for value in asked.weights.values()))

    def tensors(some: np.ndarray) -> list[torch.Tensor]:
        bar.update(len(some))
        return [torch.from_numpy(np.ascontiguousarray(values)).to(asked.device) for values in rows.make(some)]

    with _plain_attention(network):
        if has_one_row:
            for some in _chunks(rows.lengths, token_budget, n_at_once, is_padded):
                squares[rows.record[some]] = asked.side_by_side(*tensors(some)).double().cpu().numpy()
        else:
            for of_record in np.split(np.arange(len(rows.record)), np.flatnonzero(np.diff(rows.record)) + 1):
                step = max(1, token_budget // int(rows.lengths[of_record[0]]))
                parts = (tensors(of_record[start : start + step]) for start in range(0, len(of_record), step))
                squares[rows.record[of_record[0]]] = asked.of_sum(parts).double().cpu().numpy()
    bar.close()
    return Norms(np.sqrt(squares.sum(axis=1)).astype(np.float32), asked.layers, np.sqrt(squares).astype(np.float32))


def _chunks(lengths: np.ndarray, token_budget: int, n_at_once: int, is_padded: bool) -> Iterator[np.ndarray]:
    """Rows that are asked together: of similar length where padding cannot be seen, else of equal length."""
    order = np.argsort(lengths, kind="stable")
    parts = [order] if is_padded else np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    for part in parts:
        for batch in batches(lengths[part], token_budget) if len(part) else []:
            for start in range(0, len(batch), n_at_once):
                yield part[batch[start : start + n_at_once]]


def layer_of(name: str) -> str:
    """The layer that a weight belongs to: up to the number of its block, else two names, such as transformer.wte."""
    block = re.match(r".*?\.\d+(?=\.)", name)
    return block[0] if block else ".".join(name.split(".")[:-1][:2])


@contextmanager
def _plain_attention(network: Any) -> Iterator[None]:
    """Attention in plain operations, of which torch knows how to take gradients side by side; afterwards as it was."""
    before = getattr(network.config, "_attn_implementation", None)
    if before in (None, "eager") or not hasattr(network, "set_attn_implementation"):
        yield
        return
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
