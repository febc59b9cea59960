"""Small language models of random weights, texts of token ids, and slow, obvious oracles of what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from memleak.models.tokens import Encoded

VOCABULARY, CONTEXT = 97, 48
SPREAD = 0.3  # of weights: wide enough for answers that differ from token to token


def causal(kind: str = "GPT2", seed: int = 0, **fields: Any) -> Any:
    """A causal model of any family, with weights from a seed."""
    import transformers

    known: dict[str, Any] = {"vocab_size": VOCABULARY, "initializer_range": SPREAD, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "GPT2":
        known |= {"n_positions": CONTEXT, "n_embd": 16, "n_layer": 2, "n_head": 2}
    else:
        known |= {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 8,
            "max_position_embeddings": CONTEXT,
        }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**known | fields)
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, name)(config).eval()


def masked(kind: str = "Bert", seed: int = 0, **fields: Any) -> Any:
    """A masked model, with weights from a seed; its mask is token 4."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, initializer_range=SPREAD,
        max_position_embeddings=CONTEXT + 2, pad_token_id=0 if kind == "Bert" else 1, **fields,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, f"{kind}ForMaskedLM")(config).eval()


def texts(rows: Sequence[Sequence[int]], n_prefix: int | Sequence[int] = 0, n_suffix: int = 0) -> Encoded:
    """Texts of given token ids."""
    n = len(rows)
    ids = np.array([one for row in rows for one in row], dtype=np.int32)
    of_each = (np.full(n, value, dtype=np.int64) for value in (0, 7, 9))
    prefix = np.broadcast_to(np.asarray(n_prefix, dtype=np.int64), n)
    return Encoded(ids, np.cumsum([0, *map(len, rows)], dtype=np.int64), prefix, np.full(n, n_suffix, dtype=np.int64), *of_each)


def drawn(lengths: Sequence[int], seed: int = 0, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Rows of random ids."""
    draw = np.random.default_rng(seed)
    return [draw.integers(0, vocabulary, n).tolist() for n in lengths]


def told(logits: torch.Tensor, token_id: torch.Tensor) -> dict[str, np.ndarray]:
    """The signals of tokens from logits [S, V], by the whole softmax in float64."""
    log_p = logits.double().log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    of_token = log_p.gather(1, token_id[:, None])
    best = p.sort(dim=-1, descending=True).values
    found = {
        "log_prob": of_token[:, 0], "mean_log_prob": mean, "std_log_prob": (p * (log_p - mean[:, None]).square()).sum(-1).sqrt(),
        "log_rank": (log_p > of_token).sum(-1).double().log1p(), "top_prob": best[:, 0], "top_gap": best[:, 0] - best[:, 1],
    }  # fmt: skip
    return {name: values.numpy() for name, values in found.items()}


@torch.no_grad()
def one_by_one(network: Any, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """What a causal model says about all tokens of texts but the first, each text alone, in float64."""
    double = network.double()
    found = []
    for row in rows:
        ids = torch.tensor([row])
        found.append(told(double(input_ids=ids).logits[0, :-1], ids[0, 1:]))
    network.float()
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


@torch.no_grad()
def masked_one_by_one(network: Any, row: Sequence[int], groups: Sequence[Sequence[int]], mask_id: int) -> np.ndarray:
    """log p of the tokens of a text at some places, each group of places masked together, in float64 [K], in order of place."""
    double, found = network.double(), {}
    for group in groups:
        ids = torch.tensor([row])
        ids[0, list(group)] = mask_id
        log_p = double(input_ids=ids).logits[0].log_softmax(-1)
        found |= {place: float(log_p[place, row[place]]) for place in group}
    network.float()
    return np.array([found[place] for place in sorted(found)])
