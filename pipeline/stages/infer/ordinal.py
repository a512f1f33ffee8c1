"""Whether grades behave as grades: checked on out-of-fold predictions, once there are some.

Numbers that run on from zero look like grades. If they are, a model confuses each with its neighbours; if they are
names (digits), it confuses them with whatever looks alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_CONFUSED = 10
"""With fewer confused rows nothing is said."""


def confuses_neighbours(targets: NDArray[np.int64], probs: NDArray[np.floating[Any]]) -> bool | None:
    """Return whether classes are mostly taken for the ones beside them, as grades are.

    For each class that is confused at all, the class that its rows are most often taken for must be its neighbour;
    classes count as often as they are confused. None where too few rows are confused to say so.

    Args:
        targets: (N,) class index of each row.
        probs: (N, K) out-of-fold probabilities of the classes in their order.
    """
    n_classes = probs.shape[1]
    chosen = probs.argmax(axis=1)
    confused = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confused, (targets, chosen), 1)
    np.fill_diagonal(confused, 0)
    n_confused = confused.sum(axis=1)
    if n_confused.sum() < MIN_CONFUSED or n_classes < 3:
        return None
    nearest = confused.argmax(axis=1)
    is_beside = np.abs(nearest - np.arange(n_classes)) == 1
    return bool((n_confused * is_beside).sum() > 0.5 * n_confused.sum())
