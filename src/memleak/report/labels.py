"""Labels of points in a figure: near their points, and none over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

LINE = "#9aa1ab"
_GAPS = (9, 13, 18, 25, 34, 46, 60, 78, 100, 130)  # pixels from a point to its label, tried in this order
_ANGLES = np.deg2rad([20, -20, 160, 200, 90, -90, 55, -55, 125, 235, 0, 180])


def write(axes: Axes, points: Sequence[tuple[dict[str, Any], dict[str, Any], str, bool]]) -> None:
    """Write each point's label where it covers no point and no other label, with a thin line to a point that is not beside it.

    A point is given as its two estimates, the label, and whether that is bold. Labels are placed one after the other, those in a
    crowd first; each takes the nearest place that is free, and rather one off the intervals.
    """
    at = axes.transData.transform([(across["value"], up["value"]) for across, up, _, _ in points])
    markers = np.column_stack([at - 6, at + 6])
    bars = np.vstack([_boxes_of_bars(axes, across, up) for across, up, _, _ in points])
    placed = np.empty((0, 4))
    scale = 72 / axes.figure.dpi
    crowd = (np.abs(at[:, None] - at[None]).max(axis=2) < 40).sum(axis=1)
    for i in np.argsort(-crowd, kind="stable"):
        across, up, text, is_bold = points[i]
        style: dict[str, Any] = {"fontsize": 8, "fontweight": "bold" if is_bold else "normal", "ha": "center", "va": "center", "parse_math": False, "zorder": 6,
            "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}}  # fmt: skip
        size = _size_of(axes, text, style)
        box, far = _place(at[i], size, np.vstack([np.delete(markers, i, axis=0), placed]), bars, axes.bbox)
        placed = np.vstack([placed, box])
        offset = (np.array([box[0] + box[2], box[1] + box[3]]) / 2 - at[i]) * scale
        line = {"arrowstyle": "-", "lw": 0.5, "color": LINE, "shrinkA": 0, "shrinkB": 4} if far else None
        axes.annotate(
            text, (across["value"], up["value"]), xytext=tuple(offset), textcoords="offset points", arrowprops=line, annotation_clip=False, **style
        )


def _size_of(axes: Axes, text: str, style: Mapping[str, Any]) -> np.ndarray:
    """Width and height of a text in pixels, with a rim."""
    probe = axes.text(0, 0, text, **style)
    extent = probe.get_window_extent()
    probe.remove()
    return np.array([extent.width + 4, extent.height + 1])


def _boxes_of_bars(axes: Axes, across: dict[str, Any], up: dict[str, Any]) -> np.ndarray:
    """The pixels of a point's intervals: left, bottom, right, top of each."""
    ends = [
        [(across["value"] if across[end] is None else across[end], up["value"]) for end in ("low", "high")],
        [(across["value"], up["value"] if up[end] is None else up[end]) for end in ("low", "high")],
    ]
    corners = axes.transData.transform(np.reshape(ends, (4, 2))).reshape(2, 2, 2)
    return np.column_stack([corners.min(axis=1) - 1, corners.max(axis=1) + 1])


def _place(point: np.ndarray, size: np.ndarray, taken: np.ndarray, bars: np.ndarray, inside: Bbox) -> tuple[np.ndarray, bool]:
    """The box of a label near `point`, and whether it is so far off that a line has to lead there."""
    best, least = None, np.inf
    for gap_ in _GAPS:
        for angle in _ANGLES:
            towards = np.array([np.cos(angle), np.sin(angle)])
            centre = point + gap_ * towards + (1.8 * towards).clip(-1, 1) * size / 2
            box = np.concatenate([centre - size / 2, centre + size / 2])
            outside = max(inside.x0 - box[0], box[2] - inside.x1, inside.y0 - box[1], box[3] - inside.y1, 0.0)
            cost = 1e3 * _overlap(box, taken) + 1e2 * outside + 0.25 * _overlap(box, bars) + gap_
            if cost < least:
                best, least, far = box, cost, gap_ > 13
    assert best is not None
    return best, far


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """Pixels of `box` that others cover, [n, 4]."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((width.clip(min=0) * height.clip(min=0)).sum())
