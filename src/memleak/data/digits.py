"""scikit-learn's digits: 1,797 hand-written digits, 8 x 8, which need no download."""

from __future__ import annotations

import numpy as np

from memleak.data import DataError, Samples


def load(source: str | None = None) -> Samples:
    """Images uint8 [1797, 8, 8, 1] with values 0 to 16, labels 0 to 9."""
    from sklearn.datasets import load_digits

    if source is not None:
        raise DataError(f"digits: source '{source}' is given, but digits ships with scikit-learn; leave source out")
    digits = load_digits()
    return Samples(
        inputs=digits.images.astype(np.uint8)[..., None],
        labels=digits.target.astype(np.int64),
        class_names=tuple("0123456789"),
        licence="CC BY 4.0, UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998)",
    )
