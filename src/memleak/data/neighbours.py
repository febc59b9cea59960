"""What a data set says about its own records: which are the same, and which are unlike their neighbours."""

from __future__ import annotations

import numpy as np

N_NEIGHBOURS = 10
N_COMPONENTS = 64  # beyond so many features, neighbours are sought among principal components


def content_groups(flat: np.ndarray) -> np.ndarray:
    """A group for each distinct content of the rows of [N, F], numbered by first appearance, [N]."""
    rows = np.ascontiguousarray(flat)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[group]


def atypicality_rank(flat: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place of each record when the least typical comes first, [N].

    A record is typical when its nearest neighbours have its label (k-nearest-neighbour agreement); among
    records of equal agreement, the one farther from them is less typical.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    points = flat.astype(np.float32)
    if points.shape[1] > N_COMPONENTS and len(points) > N_COMPONENTS:
        points = PCA(N_COMPONENTS, svd_solver="randomized", random_state=0).fit_transform(points)
    k = min(N_NEIGHBOURS, len(points) - 1)
    distance, neighbour = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)
    is_other = neighbour != np.arange(len(points))[:, None]  # a record is not its own neighbour
    is_other[is_other.all(axis=1), -1] = False  # a duplicate took its own place
    agreement = ((labels[neighbour] == labels[:, None]) & is_other).sum(axis=1)
    order = np.lexsort((np.arange(len(points)), -(distance * is_other).sum(axis=1), agreement))
    rank = np.empty(len(points), dtype=np.int64)
    rank[order] = np.arange(len(points))
    return rank
