"""Named, independent random streams, all derived from one seed.

Two kinds. `generator` gives a NumPy generator for drawing (subsets, targets). `counter_uniform` gives the
random number that belongs to a (key, sample, feature), whatever else is drawn, in whatever order and on
whatever device: what augmentation, dropout and batch order need, so that adding one sample to a training
set changes no draw of the others.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive counters


def derive(seed: int, *name: Any) -> int:
    """A 62-bit key for the stream `name` of `seed`: the same on every machine, unrelated between names."""
    text = json.dumps([seed, *name], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 2


def generator(seed: int, *name: Any) -> np.random.Generator:
    """A NumPy generator (Philox, counter-based) for the stream `name` of `seed`."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *name)))


def _mix(x: Any) -> Any:
    """A bijection of 32-bit integers with low bias (C. Wellons' "lowbias32", 2018)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def counter_bits(key: Any, *counters: Any) -> Any:
    """32 random bits for each element of the broadcast int64 `counters`.

    Works alike on NumPy arrays and on torch tensors of any device, with the same result. The product of two
    32-bit numbers may wrap around int64; its low 32 bits, which alone are kept, are right all the same.
    """
    bits = (counters[0] * 0 + (key & _MASK)) ^ ((key >> 32) & _MASK)
    for counter in counters:
        bits = _mix(bits ^ _mix((counter + _GOLDEN) & _MASK))
        bits = (bits + (key >> 32)) & _MASK
    return _mix(bits)


def counter_uniform(key: Any, *counters: Any) -> Any:
    """A uniform number in [0, 1) for each element of the broadcast int64 `counters`.

    24 bits: what float32 holds exactly, so that torch and NumPy agree and 1 is never reached by rounding.
    """
    return (counter_bits(key, *counters) >> 8) / 16777216.0
