"""Pseudo-log-likelihood of masked language models: what they say about a token that is masked, given all others.

Salazar et al. 2020, "Masked Language Model Scoring": one pass a token. Strided, every so-many-th token is masked in one
pass, so that a text takes `stride` passes: much faster, and an approximation, since what is masked beside a token tells
nothing about it. An untrained model hardly minds; of a small one that knows its members by heart, the members' loss rose
from .10 to .15 with stride 6 (AUC .999 to .991) and to .52 with stride 2 (.968). Ask target and reference alike.
"""

from __future__ import annotations

import numpy as np

from memleak.models.tokens import Encoded
from memleak.signals import SignalError
from memleak.signals.language.passes import Passes, counted, scored


def passes(encoded: Encoded, mask_id: int | None, stride: int | None = None) -> Passes:
    """Rows in which each token of a text is masked once: alone, or with every `stride`-th one beside it."""
    if mask_id is None:
        raise SignalError("masked-lm: the tokenizer has no mask token, so that no token can be asked for; name the tokenizer of the model")
    if stride is not None and stride < 1:
        raise SignalError(f"stride: {stride} is no number of passes; give 1 or more, or none for one pass a token")
    offsets, place = scored(encoded, encoded.n_prefix)
    n_passes = np.diff(offsets) if stride is None else np.minimum(np.diff(offsets), stride)
    return Passes(
        encoded, offsets, place, text=np.repeat(np.arange(len(encoded)), n_passes), first=counted(n_passes), step=np.repeat(n_passes, n_passes),
        mask_id=mask_id,
    )  # fmt: skip
