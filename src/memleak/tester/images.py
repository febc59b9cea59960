"""Images as MembershipTester keeps them beside params.yaml, and the data set that the workflow makes of them: `memleak.tester.images:load`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memleak import artefacts
from memleak.data import DataError, Samples
from memleak.models.hub import Checkpoint

PLUGIN = "memleak.tester.images:load"


def load(source: str) -> Samples:
    """The images that `write` kept, uint8 [N, H, W, 3]."""
    try:
        with np.load(source) as held:
            return Samples(held["inputs"], held["labels"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{source}: no images of MembershipTester ({error}); audit again") from None


def write(path: Path, images: Sequence[np.ndarray], labels: Sequence[int] | None) -> None:
    """Keep images of one size with their labels. Where they have none, two kinds in turn stand for them: a data set has classes, and nobody reads these."""
    held, known = io.BytesIO(), np.arange(len(images)) % 2 if labels is None else np.asarray(labels)
    np.savez(held, inputs=np.stack(images), labels=known.astype(np.int64))
    with artefacts.atomic(path) as temporary:
        temporary.write_bytes(held.getvalue())


def stored(image: Any) -> np.ndarray:
    """An image of PIL or an array as it is kept, uint8 [H, W, 3]."""
    from memleak.signals.language import classifiers

    return np.asarray(classifiers.picture(image))


def size_for(checkpoint: Checkpoint, images: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Height and width that images of several sizes are brought to, which the network takes; None where they have one size."""
    from memleak.signals.language import classifiers

    if len({image.shape for image in images}) == 1:
        return None
    height, width = classifiers.pixels(checkpoint.network, [images[0]], checkpoint.processor).shape[-2:]
    return int(height), int(width)


def resized(image: np.ndarray, size: tuple[int, int], processor: Any | None) -> np.ndarray:
    """An image in another size, by the filter that the checkpoint's own preparation uses."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size[::-1], getattr(processor, "resample", None)))
