"""What records look like, in few numbers: for a control that asks whether members differ from non-members before any model is asked."""

from __future__ import annotations

import numpy as np

from memleak import randomness

N_BLOCKS = 8  # a side of an image
QUANTILES = (0.05, 0.95)  # of the pixels of a channel
N_COLUMNS = 256  # of a table; beyond so many, columns are projected
N_LABELS = 100  # columns for the label; beyond so many classes, several share one
CHUNK = 2048  # images that are floats at once


def features(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coarse looks of images [n, H, W, C], or columns of tables [n, F], and the label beside them, float32 [n, D].

    Of images, of each channel: means of up to 8 x 8 blocks, mean, deviation, a low and a high quantile, sharpness
    (mean absolute Laplacian; of the differences between channels too, which compression coarsens first) and the share
    of saturated pixels. Of tables: the columns, or 256 random projections
    where there are more. Nothing here knows who is a member.
    """
    x, label = np.asarray(inputs), np.asarray(labels)
    if len(x) != len(label) or len(x) == 0:
        raise ValueError(f"{len(x)} records and {len(label)} labels; as many of each are expected, one or more")
    if x.ndim not in (2, 4):
        raise ValueError(f"inputs have shape {x.shape}; expected images [n, H, W, C] or a table [n, F]")
    looks = _table(x) if x.ndim == 2 else _images(x)
    if not np.isfinite(looks).all():
        raise ValueError(f"{int((~np.isfinite(looks)).any(axis=1).sum())} of {len(x)} records have missing or infinite values; fill or drop them")
    return np.hstack([looks, _labels(label)])


def _images(images: np.ndarray) -> np.ndarray:
    """Looks of images, [n, D]; uint8 in units of 255."""
    bounds = (0.0, 255.0) if images.dtype == np.uint8 else (float(images.min()), float(images.max()))
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    return np.concatenate([_looks(images[i : i + CHUNK].astype(np.float32), bounds, scale) for i in range(0, len(images), CHUNK)])


def _looks(x: np.ndarray, bounds: tuple[float, float], scale: float) -> np.ndarray:
    n, height, width, _ = x.shape
    blocks = x
    for axis, size in ((1, height), (2, width)):
        edges = np.linspace(0, size, min(N_BLOCKS, size) + 1).astype(int)
        shape = [-1 if i == axis else 1 for i in range(4)]
        blocks = np.add.reduceat(blocks, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    pixels = x.reshape(n, height * width, -1)  # [n, H W, C]
    is_saturated = (pixels <= bounds[0]) | (pixels >= bounds[1])
    looks = [
        blocks.reshape(n, -1), pixels.mean(axis=1), pixels.std(axis=1), *np.quantile(pixels, QUANTILES, axis=1),
        _sharpness(x), _sharpness(np.diff(x, axis=3)), scale * is_saturated.mean(axis=1),
    ]  # fmt: skip
    return (np.hstack(looks) / scale).astype(np.float32)


def _sharpness(x: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian of each channel, [n, C]; 0 of images without an inner pixel."""
    if min(x.shape[1:3]) < 3:
        return np.zeros((len(x), x.shape[3]), dtype=np.float32)
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return np.asarray(np.abs(around - 4 * x[:, 1:-1, 1:-1]).mean(axis=(1, 2)))


def _table(columns: np.ndarray) -> np.ndarray:
    """The columns, or a fixed random projection of them where there are many, [n, D]."""
    x = columns.astype(np.float32)
    if x.shape[1] <= N_COLUMNS:
        return x
    deviation = x.std(axis=0, dtype=np.float64)  # else a column in large units would be all that the projection sees
    weights = randomness.generator(0, "blind projection", x.shape[1]).normal(size=(x.shape[1], N_COLUMNS))
    weights /= (np.where(deviation > 0, deviation, 1.0) * np.sqrt(x.shape[1]))[:, None]
    return np.asarray((x - x.mean(axis=0, dtype=np.float64).astype(np.float32)) @ weights.astype(np.float32))


def _labels(labels: np.ndarray) -> np.ndarray:
    """One column a class; of many classes 99 columns that several share, and how frequent the class is, [n, D]."""
    classes, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) <= N_LABELS:
        return np.eye(len(classes), dtype=np.float32)[which]
    column = np.asarray(randomness.counter_bits(randomness.derive(0, "blind labels"), np.arange(len(classes)))) % (N_LABELS - 1)
    shared = np.eye(N_LABELS - 1, dtype=np.float32)[column[which]]
    return np.hstack([shared, np.log(counts[which])[:, None].astype(np.float32)])
