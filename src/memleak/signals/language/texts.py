"""What a language model says about a whole text: means over its scored tokens, so that every attack on losses reads texts too."""

from __future__ import annotations

import numpy as np

from memleak.models.tokens import Encoded
from memleak.signals.language import TokenSignals

LEAST_LOSS = 2.0**-24  # nats: half of what float32 can tell from certainty; the margin of a text known by heart stays finite


def per_text(tokens: TokenSignals, encoded: Encoded) -> dict[str, np.ndarray]:
    """Signals of each text, [n]: float32, NaN of a text without a scored token; counts int32.

    `loss` is the mean of -log p over its tokens, `entropy` that of the entropy of what the model expected (nats),
    `confidence` that of the likeliest token's probability; `margin` = log p - log(1 - p) of p = exp(-loss), the logit of
    the tokens' geometric mean probability, which is to a text what a classifier's margin is to an image.
    """
    loss = 0.0 - per_text_mean(tokens, tokens.columns["log_prob"])  # not -0, of a text that is certain
    certain = np.maximum(loss, LEAST_LOSS)
    found = {
        "margin": -certain - np.log(-np.expm1(-certain)),
        "loss": loss,
        "confidence": per_text_mean(tokens, tokens.columns["top_prob"]),
        "entropy": 0.0 - per_text_mean(tokens, tokens.columns["mean_log_prob"]),
    }
    counts = {"n_tokens": tokens.n_tokens, "n_bytes": encoded.n_bytes, "zlib_bytes": encoded.zlib_bytes}
    return {name: values.astype(np.float32) for name, values in found.items()} | {name: values.astype(np.int32) for name, values in counts.items()}


def per_text_mean(tokens: TokenSignals, values: np.ndarray) -> np.ndarray:
    """Mean of what is known of each token [total] over those of each text, [n] float64; NaN where there is none."""
    text = np.repeat(np.arange(len(tokens)), tokens.n_tokens)
    total = np.bincount(text, weights=values, minlength=len(tokens))
    return np.divide(total, tokens.n_tokens, out=np.full(len(tokens), np.nan), where=tokens.n_tokens > 0)
