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
    k, n_asked = (min(n, len(points) - 1) for n in (N_NEIGHBOURS, 3 * N_NEIGHBOURS))
    distance, neighbour = NearestNeighbors(n_neighbors=n_asked + 1).fit(points).kneighbors(points)
    distance = np.where(neighbour == np.arange(len(points))[:, None], np.inf, distance)  # a record is not its own neighbour
    # which of equally near records are found, and in what order, depends on the number of threads: the first by id are taken
    nearest = np.lexsort((neighbour, distance), axis=-1)[:, :k]
    distance, neighbour = (np.take_along_axis(values, nearest, axis=1) for values in (distance, neighbour))
    agreement = (labels[neighbour] == labels[:, None]).sum(axis=1)
    order = np.lexsort((np.arange(len(points)), -distance.sum(axis=1), agreement))
    rank = np.empty(len(points), dtype=np.int64)
    rank[order] = np.arange(len(points))
    return rank
