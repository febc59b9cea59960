"""A tokenizer for texts whose model brings none: byte-level BPE, trained on them without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from memleak import artefacts

VOCABULARY = 2000  # tokens, where nobody says how many
END_OF_TEXT = "<|endoftext|>"
_MOST_CHARACTERS = 8_000_000  # that it is trained on: more change few merges
_MOST_OF_ONE = 20_000  # characters of one text


def train(texts: Sequence[str], output: Path, vocabulary: int = VOCABULARY) -> int:
    """Write a tokenizer.json trained on texts, of all lengths and from everywhere among them. Returns its number of tokens.

    Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", on bytes, so that there is no
    text that it cannot say. All texts of a data set count, members or not: it knows nothing of who is one. Small
    collections may have too few different pairs for `vocabulary` tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_spread(texts), trainer)
    with artefacts.atomic(output) as temporary:
        tokenizer.save(str(temporary))
    return int(tokenizer.get_vocab_size())


def _spread(texts: Sequence[str]) -> Iterator[str]:
    """All texts, or as many as are about 8 million characters, at equal distances."""
    total = sum(min(len(text), _MOST_OF_ONE) for text in texts)
    n = min(len(texts), max(1, len(texts) * _MOST_CHARACTERS // max(1, total)))
    for row in np.linspace(0, len(texts), n, endpoint=False).astype(int):
        yield texts[row][:_MOST_OF_ONE]
