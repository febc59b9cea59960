"""Texts as a model reads them: token ids one text after the other, and what else attacks must know of what was read."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memleak.models import ModelError

PAD = -1  # in a batch, beyond a text's end: an id that no vocabulary has, so that every real one counts


@dataclass(frozen=True)
class Encoded:
    """Token ids of n texts. Those of text i stand in `ids[offsets[i]:offsets[i + 1]]`.

    The first `n_prefix` of a text are context alone, a BOS and what was put before it; so are the last `n_suffix`, such as
    BERT's [SEP]. Neither is ever scored. Bytes are those of the text as it was read, to its last token kept.
    """

    ids: np.ndarray  # [total] int32
    offsets: np.ndarray  # [n + 1] int64
    n_prefix: np.ndarray  # [n] int64
    n_suffix: np.ndarray  # [n] int64
    n_dropped: np.ndarray  # [n] int64, tokens of a text beyond max_length
    n_bytes: np.ndarray  # [n] int64, of the text read, UTF-8
    zlib_bytes: np.ndarray  # [n] int64, the same compressed

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each text, context included, [n]."""
        return np.diff(self.offsets)

    @property
    def n_text(self) -> np.ndarray:
        """Tokens of each text itself, without context, [n]."""
        return self.lengths - self.n_prefix - self.n_suffix

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """The ids of some texts, int64 [B, K], with -1 beyond a text's end; K is the longest one's length."""
        lengths = self.lengths[rows]
        places = np.arange(max(1, lengths.max(initial=0)))[None, :]
        is_there = places < lengths[:, None]
        found = np.full(is_there.shape, PAD, dtype=np.int64)
        found[is_there] = self.ids[(self.offsets[:-1][rows][:, None] + places)[is_there]]
        return found


def encode(
    tokenizer: Any, texts: Sequence[str], max_length: int, prefixes: Sequence[str] | None = None,
    add_bos: Literal["auto"] | bool = "auto", context: int | None = None,
) -> Encoded:  # fmt: skip
    """Texts as a tokenizer of `transformers` cuts them, the first `max_length` ids of each, special ones included.

    Prefixes are cut by themselves, so that a text has the same tokens with and without one. Where both are longer than
    `context` (default: max_length), the prefix gives way from its front. `add_bos="auto"` does as the tokenizer does.
    """
    for what, given in (("text", texts), ("prefix", prefixes or [])):
        wrong = next((i for i, text in enumerate(given) if not isinstance(text, str)), None)
        if wrong is not None:
            raise ModelError(f"{what} {wrong} is {type(given[wrong]).__name__}, expected str; give texts as strings")
    before, after = special_ids(tokenizer, add_bos)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise ModelError(f"max_length: {max_length} tokens leave none for the text beside {len(before) + len(after)} special ones; raise it")
    pieces, spans = _cut(tokenizer, texts)
    said = _cut(tokenizer, prefixes)[0] if prefixes is not None else [[]] * len(pieces)
    rows: list[list[int]] = []
    counts: list[tuple[int, int, int, int]] = []
    for text, piece, ends, prefix in zip(texts, pieces, spans, said, strict=True):
        kept = piece[:room]
        left = (context or max_length) - len(before) - len(kept) - len(after)
        prefix = prefix[-left:] if left > 0 else []
        read = text if len(kept) == len(piece) else _read(tokenizer, text, kept, ends)
        content = read.encode("utf-8", errors="surrogatepass")
        rows.append([*before, *prefix, *kept, *after])
        counts.append((len(before) + len(prefix), len(piece) - len(kept), len(content), len(zlib.compress(content))))
    n_prefix, n_dropped, n_bytes, zlib_bytes = np.array(counts, dtype=np.int64).reshape(-1, 4).T
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.array([one for row in rows for one in row], dtype=np.int32)
    return Encoded(ids, offsets, n_prefix, np.full(len(rows), len(after), dtype=np.int64), n_dropped, n_bytes, zlib_bytes)


def special_ids(tokenizer: Any, add_bos: Literal["auto"] | bool = "auto") -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and after a text: nothing for GPT-2, a BOS for Llama, [CLS] and [SEP] for BERT."""
    plain, whole = (list(tokenizer("a", add_special_tokens=is_added)["input_ids"]) for is_added in (False, True))
    first = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    before, after = whole[:first], whole[first + len(plain) :]
    if add_bos == "auto" or add_bos == bool(before):
        return before, after
    if not add_bos:
        return [], after
    if tokenizer.bos_token_id is None:
        raise ModelError("add_bos: the tokenizer has no BOS token; leave add_bos out")
    return [tokenizer.bos_token_id], after


def _cut(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], list[Any]]:
    """The ids of each text alone, and where in the text each token ends; without places from a tokenizer that tells none."""
    if not len(texts):
        return [], []
    found = tokenizer(
        list(texts), add_special_tokens=False, truncation=False, padding=False, return_attention_mask=False,
        return_offsets_mapping=tokenizer.is_fast, verbose=False,
    )  # fmt: skip
    return found["input_ids"], found["offset_mapping"] if tokenizer.is_fast else [None] * len(texts)


def _read(tokenizer: Any, text: str, kept: list[int], ends: Any) -> str:
    """What of a text was read where its end was cut off."""
    return tokenizer.decode(kept) if ends is None else text[: ends[len(kept) - 1][1]]
