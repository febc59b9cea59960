"""What a language model says about every token of a text, of one forward pass: alike alone and in any batch, order and budget.

Rows are sorted by length and padded on the right as little as possible; the head is applied to the hidden states of scored
tokens alone, some rows at a time, so that neither memory nor time goes to padding and to softmaxes of which nobody asks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from memleak.models.tokens import Encoded
from memleak.params.texts import TOKEN_SIGNALS
from memleak.signals import SignalError
from memleak.signals.language import TokenSignals, masked
from memleak.signals.language.passes import Passes, left_to_right

TOKENS_AT_ONCE = {"cpu": 512, "cuda": 16_384}  # of a batch, padding included; on a CPU larger ones leave its cache (benchmarks/language_scoring.py)
LOGITS_AT_ONCE = {"cpu": 6 * 2**20, "cuda": 2**28}  # bytes of the rows that the head is applied to: on a CPU they stay in its cache
WHOLE_LOGITS = 2**28  # bytes of the logits of a whole batch, where the head cannot be applied by itself
FAR = 1e9  # nats: beyond every logit, so that what is likeliest is left out
LEAST_STD = 1e-5  # nats: below, what float32 tells of log p and of its mean is noise
BENDS_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")  # of configs: something follows the head
ALIKE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of logits, relative to the largest; half precision: 2e-2
N_CHECKED = 16  # tokens by which it is found whether the head can be applied by itself
QUIET_SECONDS = 3  # a bar is shown where scoring takes longer


def score(
    network: Any, task: str, encoded: Encoded, *, token_budget: int | None = None, stride: int | None = None, mask_id: int | None = None,
    progress: str = "texts",
) -> TokenSignals:  # fmt: skip
    """Signals of every scored token of some texts, by a causal or masked language model of `transformers` in evaluation mode.

    A causal model is asked once a text; the first token counts only where a BOS or a prefix stands before it. A masked one
    is asked as `masked.passes` says (`stride`, and `mask_id`, its tokenizer's). Equal to rounding, a relative 1e-4 (1e-2 in
    half precision), in whatever company a text is asked; the rank by one where two tokens are equally likely.
    """
    if task not in ("causal-lm", "masked-lm"):
        raise SignalError(f"{task}: tokens are scored by causal-lm and masked-lm models; classifiers give logits instead")
    passes = left_to_right(encoded) if task == "causal-lm" else masked.passes(encoded, mask_id, stride)
    found = np.full((len(_COMPUTED), len(passes.token_id)), np.nan, dtype=np.float32)
    with torch.inference_mode(), _one_kernel(network):
        _Scorer(network, task, passes, token_budget).fill(found, progress)
    columns = dict(zip(_COMPUTED, found, strict=True)) | {"token_id": passes.token_id}
    _refuse_nan(columns["log_prob"], passes.offsets)
    return TokenSignals(columns, passes.offsets)


_COMPUTED = tuple(name for name in TOKEN_SIGNALS if name not in ("token_id", "reference_log_prob"))


def statistics(logits: torch.Tensor, token_id: torch.Tensor) -> torch.Tensor:
    """log p of the token, mean and deviation of log p under p (nats), log rank (0: the likeliest), p(1), p(1) - p(2): [6, S] of logits [S, V].

    Every sum is over exponentials below 1, so nothing overflows; the logits, float32, are written over.
    """
    logits -= logits.amax(dim=1, keepdim=True)
    said = logits.gather(1, token_id[:, None])
    room = torch.empty_like(logits)
    rank = torch.gt(logits, said, out=room).sum(dim=1)  # as floats: truth values are counted in whole numbers of twice the size
    is_top = torch.eq(logits, 0.0, out=room)
    n_top = is_top.sum(dim=1)
    below = torch.sub(logits, is_top, alpha=FAR, out=room).amax(dim=1).exp()
    second = torch.where(n_top > 1, 1.0, below)
    weight = torch.exp(logits, out=room)
    total = weight.sum(dim=1)
    mean = weight.mul_(logits).sum(dim=1) / total  # of log p - log p(1)
    variance = weight.mul_(logits).sum(dim=1) / total - mean.square()
    log_total = total.log()
    std = variance.clamp_min(LEAST_STD**2).sqrt()
    return torch.stack([said[:, 0] - log_total, mean - log_total, std, rank.log1p(), 1 / total, (1 - second) / total])


class _Scorer:
    """One network and the passes that it is asked for."""

    def __init__(self, network: Any, task: str, passes: Passes, token_budget: int | None) -> None:
        network.eval()
        self._network, self._passes, self._device = network, passes, network.device
        self._more = {"use_cache": False} if task == "causal-lm" else {}
        n_tokens = network.config.get_text_config().vocab_size
        self._rows = max(1, LOGITS_AT_ONCE.get(self._device.type, LOGITS_AT_ONCE["cpu"]) // (4 * n_tokens))
        self._parts = self._checked_parts()
        budget = token_budget or TOKENS_AT_ONCE.get(self._device.type, TOKENS_AT_ONCE["cpu"])
        self._budget = budget if self._parts else min(budget, max(1, WHOLE_LOGITS // (4 * n_tokens)))

    def fill(self, found: np.ndarray, progress: str) -> None:
        """Write the signals of all scored tokens, [6, total]."""
        lengths = self._passes.lengths
        waiting = batches(lengths, self._budget)
        bar = tqdm(total=int(lengths.sum()), desc=progress, unit="token", unit_scale=True, leave=False, delay=QUIET_SECONDS, disable=None)
        while waiting:
            rows = waiting.pop()
            try:
                self._fill_batch(rows, found)
            except torch.OutOfMemoryError:
                waiting = self._smaller([rows, *waiting])
                continue
            bar.update(int(lengths[rows].sum()))
        bar.close()

    def _smaller(self, waiting: list[np.ndarray]) -> list[np.ndarray]:
        """What is still to be asked, in batches of half the size."""
        rows = np.concatenate(waiting)
        if len(waiting[0]) == 1:
            raise SignalError(f"one text of {self._passes.lengths[waiting[0][0]]} tokens does not fit into the memory of the GPU; lower max_length")
        self._budget = max(1, min(self._budget, len(waiting[0]) * int(self._passes.lengths[waiting[0]].max())) // 2)
        torch.cuda.empty_cache()
        print(f"out of GPU memory: going on with batches of {self._budget} tokens", flush=True)
        return [rows[batch] for batch in batches(self._passes.lengths[rows], self._budget)]

    def _fill_batch(self, rows: np.ndarray, found: np.ndarray) -> None:
        batch = self._passes.batch(rows)
        if not len(batch.slot):
            return
        row, place = (torch.from_numpy(values).to(self._device) for values in (batch.row, batch.place))
        token_id = torch.from_numpy(self._passes.token_id[batch.slot].astype(np.int64)).to(self._device)
        states = self._states(batch.shown)
        parts = []
        for start in range(0, len(row), self._rows):
            some = slice(start, start + self._rows)
            parts.append(statistics(self._logits(states[row[some], place[some]]), token_id[some]))
        found[:, batch.slot] = torch.cat(parts, dim=1).cpu().numpy()

    def _states(self, shown: np.ndarray) -> torch.Tensor:
        """Hidden states [B, K, D] of ids [B, K], -1 beyond a row's end; logits [B, K, V] where the network is asked as a whole."""
        return _last(self._parts[0] if self._parts else self._network, self._inputs(shown))

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return (self._parts[1](states) if self._parts else states).float()

    def _inputs(self, shown: np.ndarray) -> dict[str, Any]:
        """No mask where nothing is padded: attention is faster without."""
        is_there = shown >= 0
        given = {"input_ids": torch.from_numpy(np.where(is_there, shown, 0)).to(self._device), **self._more}
        return given if is_there.all() else given | {"attention_mask": torch.from_numpy(is_there.astype(np.int64)).to(self._device)}

    def _checked_parts(self) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """Backbone and head, where one after the other they say what the whole network says about some tokens of a text; else None."""
        parts = backbone_and_head(self._network)
        if parts is None or not len(self._passes.token_id):
            return None
        given = self._inputs(self._passes.batch(np.array([0])).shown[:, :N_CHECKED])
        states = _last(parts[0], given)
        if isinstance(parts[1], torch.nn.Linear) and parts[1].in_features != states.shape[-1]:
            return None
        alone, whole = parts[1](states), self._network(**given).logits
        is_alike = (alone - whole).abs().max() <= ALIKE.get(whole.dtype, 2e-2) * whole.abs().max()
        return parts if is_alike else None


def backbone_and_head(network: Any) -> tuple[torch.nn.Module, torch.nn.Module] | None:
    """The part that makes hidden states and the part that makes logits of them; None where something bends the logits afterwards."""
    backbone = network.base_model
    config = network.config.get_text_config()
    if backbone is network or any(getattr(config, name, None) not in (None, 1, 1.0) for name in BENDS_LOGITS):
        return None
    others = [child for child in network.children() if child is not backbone]
    head = others[0] if len(others) == 1 else network.get_output_embeddings()
    return None if head is None else (backbone, head)


def batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows in batches of at most `budget` tokens, padding included, one row at least: sorted by length, the longest last."""
    order = np.argsort(lengths, kind="stable")
    found: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop - start + 1) * lengths[order[stop]] > budget:
            found.append(order[start:stop])
            start = stop
    return found


@contextmanager
def _one_kernel(network: Any) -> Iterator[None]:
    """GPT-2's activation by torch's own kernel, which is the same function: eight operations in a row are a fifth of a small model's time."""
    found = [module for module in network.modules() if type(module).__name__ == "NewGELUActivation"]
    for module in found:
        module.forward = functools.partial(functional.gelu, approximate="tanh")
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _last(module: Any, given: dict[str, Any]) -> torch.Tensor:
    """What a network's forward pass ends with: logits, or hidden states of a backbone."""
    output = module(**given)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def _refuse_nan(log_prob: np.ndarray, offsets: np.ndarray) -> None:
    is_bad = ~np.isfinite(log_prob)
    if is_bad.any():
        text = int(np.searchsorted(offsets, is_bad.argmax(), side="right")) - 1
        raise SignalError(
            f"the model says NaN or infinity about {int(is_bad.sum())} of {len(log_prob)} tokens, first in text {text}; "
            "its training diverged, or half precision is too narrow for it"
        )
