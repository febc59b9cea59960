"""What records look like, in few numbers: for a control that asks whether members differ from non-members before any model is asked."""

from __future__ import annotations

import re

import numpy as np

from memleak import randomness

N_BLOCKS = 8  # a side of an image
QUANTILES = (0.05, 0.95)  # of the pixels of a channel
N_COLUMNS = 256  # of a table; beyond so many, columns are projected
N_LABELS = 100  # columns for the label; beyond so many classes, several share one
CHUNK = 2048  # images that are floats at once
N_DIRECTIONS = 100  # of texts: the main ones of what they say
N_HASHED = 2**16  # words and pieces of words, before
WRITTEN = (
    "white space at the beginning", "a capital at the beginning", "white space at the end", "a letter or digit at the end", "unusual white space",
    "bytes", "words", "letters of a word", "digits", "capitals", "punctuation", "line breaks", "characters beyond ASCII",
)  # fmt: skip
SIZES = ("bytes", "words")  # of which another control asks
_UNUSUAL_SPACE = re.compile(r"\s{2,}|[^\S \n]")
N_CHARACTERS = 1000  # of a text, whose words and pieces are looked at; its length and its kinds of characters are of all


def features(inputs: np.ndarray, labels: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """Coarse looks of images [n, H, W, C] or of texts [n], or columns of tables [n, F], and the label beside them, float32 [n, D].

    Of images, of each channel: means of up to 8 x 8 blocks, mean, deviation, a low and a high quantile, sharpness
    (mean absolute Laplacian; of the differences between channels too, which compression coarsens first) and the share
    of saturated pixels. Of tables: the columns, or 256 random projections
    where there are more. Of texts: up to 100 main directions of how often which words, pairs of words and pieces of words
    occur (TF-IDF), lengths, and shares of kinds of characters. Nothing here knows who is a member. What texts have in common is
    read off one text a group [n]: a word that stands only in copies of one text tells it from no others.
    """
    x, label = np.asarray(inputs), np.asarray(labels)
    if len(x) != len(label) or len(x) == 0:
        raise ValueError(f"{len(x)} records and {len(label)} labels; as many of each are expected, one or more")
    if x.ndim not in (2, 4) and x.dtype != object:
        raise ValueError(f"inputs have shape {x.shape}; expected images [n, H, W, C], a table [n, F] or texts [n]")
    looks = _texts(x, group) if x.ndim == 1 else {2: _table, 4: _images}[x.ndim](x)
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


def form(texts: np.ndarray) -> dict[str, np.ndarray]:
    """How texts are written, without their sizes: columns [n] by what they are called."""
    written = np.array([_written(text) for text in texts])
    return {name: column for name, column in zip(WRITTEN, written.T, strict=True) if name not in SIZES}


def _texts(texts: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """Looks of texts, [n, D]: what they say, and how they are written."""
    first = np.arange(len(texts)) if group is None else np.sort(np.unique(group, return_index=True)[1])
    return np.hstack([_said(texts, first), np.array([_written(text) for text in texts], dtype=np.float32)])


def _said(texts: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The main directions of the words, pairs of words, and pieces of words of 3 to 5 characters of the `first` texts of each group, whoever is a
    member, and where all texts lie on them, [n, D]."""
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from tqdm import tqdm

    options = {"n_features": N_HASHED, "alternate_sign": False, "norm": None, "dtype": np.float32}
    found = []
    for analyzer, sizes in (("word", (1, 2)), ("char_wb", (3, 5))):
        counts = HashingVectorizer(analyzer=analyzer, ngram_range=sizes, token_pattern=r"\w+", **options).transform(
            text[:N_CHARACTERS] for text in tqdm(texts, f"looks of texts, {analyzer}", unit="text", delay=3, disable=None)
        )
        often = counts[:, np.flatnonzero(counts[first].getnnz(axis=0) > 1)]  # what stands in one text alone tells it from no others
        found.append(TfidfTransformer(sublinear_tf=True).fit(often[first]).transform(often) if often.shape[1] else often)
    weighted = hstack(found).tocsr()
    n = min(N_DIRECTIONS, len(first) - 1, weighted.shape[1] - 1)
    if n < 1:
        return np.zeros((len(texts), 0), dtype=np.float32)
    return np.asarray(TruncatedSVD(n, random_state=0).fit(weighted[first]).transform(weighted).astype(np.float32))


def _written(text: str) -> list[float]:
    """How a text begins and ends, and its share of white space that is no single blank; log of bytes and of words, mean length of a word;
    shares of digits, capitals, punctuation, line breaks and of characters beyond ASCII.

    A tab, two blanks after a stop or a text that was cut off are tokens of their own: a model that was trained on texts written
    so tells them from others, whether or not it has seen these.
    """
    words, n = text.split(), max(1, len(text))
    edges = [text[:1].isspace(), text[:1].isupper(), text[-1:].isspace(), text[-1:].isalnum()]
    n_of = [
        sum(map(str.isdigit, text)),
        sum(map(str.isupper, text)),
        len(re.findall(r"[^\w\s]", text)),
        text.count("\n"),
        len(re.findall(r"[^\x00-\x7f]", text)),
    ]
    sizes = [np.log1p(len(text.encode())), np.log1p(len(words)), sum(map(len, words)) / max(1, len(words))]
    return [*map(float, edges), len(_UNUSUAL_SPACE.findall(text)) / n, *sizes, *(count / n for count in n_of)]


def _labels(labels: np.ndarray) -> np.ndarray:
    """One column a class; of many classes 99 columns that several share, and how frequent the class is, [n, D]."""
    classes, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) <= N_LABELS:
        return np.eye(len(classes), dtype=np.float32)[which]
    column = np.asarray(randomness.counter_bits(randomness.derive(0, "blind labels"), np.arange(len(classes)))) % (N_LABELS - 1)
    shared = np.eye(N_LABELS - 1, dtype=np.float32)[column[which]]
    return np.hstack([shared, np.log(counts[which])[:, None].astype(np.float32)])
