"""Changes of training signals as pure functions on (B, C, T) batches; all channels of a sample move alike.

A flip in time or between channels is not offered: the side (C3 against C4) is often the label itself.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.augment.images import shift_images, whole_moves
from pipeline.records.augmentation import Augment

TIME_SHIFT_COLUMN = 0


def augment_signals(signals: Tensor, augment: Augment, draws: Tensor) -> Tensor:
    """Return the signals changed as `augment` says.

    Args:
        signals: (B, C, T); left untouched, and returned as it is when nothing is switched on.
        augment: which changes, and how large.
        draws: (B, n) float64 in [0, 1), n >= `n_signal_draws(augment)`, on the device of `signals`. Column: time shift.
    """
    if augment.time_shift is None:
        return signals
    return shift_signals(signals, whole_moves(draws[:, TIME_SHIFT_COLUMN], augment.time_shift.max_samples))


def n_signal_draws(augment: Augment) -> int:
    """Return how many columns of draws `augment_signals` reads at most; 0 when nothing is switched on."""
    return 0 if augment.time_shift is None else TIME_SHIFT_COLUMN + 1


def shift_signals(signals: Tensor, shift: Tensor) -> Tensor:
    """Return each signal (B, C, T) moved later by `shift` (B,) whole samples, zeros entering; negative is earlier."""
    as_images = signals[:, :, None, :]
    return shift_images(as_images, shift.new_zeros(shift.shape), shift, "zero")[:, :, 0]
