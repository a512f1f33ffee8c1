"""Median and interquartile range per channel, which single large values hardly move."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batches import Items, Samples

IQR_OF_NORMAL = 1.3489795
"""Interquartile range of a normal distribution, in its standard deviations."""

_MOST_VALUES = 2**26
"""Numbers that are held at once, 256 MB: those of some 900 recordings of 271 channels by 281 samples."""


def robust_stats(items: Items, samples: Samples, most_values: int = _MOST_VALUES) -> tuple[Tensor, Tensor]:
    """Return median and interquartile range / 1.349 per channel over the samples' items, each (C,) float64.

    Where the items hold more than `most_values` numbers, as many items as hold these are taken; which ones follows from
    the ids alone. A channel whose range is nothing beside its median gets 1, as in `channel_stats`.

    Args:
        items: stored items (C, ...), finite.
        samples: of the rows to measure, such as the training part of a fold; an item that two samples share is taken
            once.
        most_values: bounds the memory, >= 1; at least one item is taken.
    """
    by_key = samples.item[np.argsort(samples.key, kind="stable")]
    _, first = np.unique(by_key, return_index=True)
    order = by_key[np.sort(first)]  # each item once, in the order of the keys
    chosen = order[: max(1, most_values // math.prod(items.shape))]
    values = items.fetch(chosen).cpu().transpose(0, 1).flatten(1).numpy()
    quartiles = np.stack([np.percentile(channel.astype(np.float64), [25, 50, 75]) for channel in values])
    low, median, high = torch.from_numpy(quartiles).unbind(1)
    spread = (high - low) / IQR_OF_NORMAL
    return median, torch.where(spread > 1e-6 * median.abs(), spread, 1.0)
