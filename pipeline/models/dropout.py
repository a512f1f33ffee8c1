"""Dropout from few random words: torch draws one double for each value on a CPU, a third of a step of `conv5x5`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 2**16
_WORDS = np.iinfo(np.int64)


class CheapDropout(nn.Dropout):
    """Dropout of the same law as torch's, on a CPU at a quarter of its cost; elsewhere it is torch's.

    Each value is dropped by itself with probability `p`, to within 1 in 131,072, and the others are divided by the
    share that is kept, so that the mean stays. 16 random bits decide a value, four values to a word of a generator
    (SFC64 of PractRand, which is quicker than torch's) that a number of torch's global generator seeds.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (any shape) the input with some values zeroed while training, else the input itself."""
        if not self.training or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        n_dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        seed = int(torch.empty((), dtype=torch.int64).random_())
        generator = np.random.Generator(np.random.SFC64(seed))
        words = generator.integers(_WORDS.min, _WORDS.max, -(-input.numel() // 4), np.int64, endpoint=True)
        draws = torch.from_numpy(words.view(np.int16)[: input.numel()])
        # Ones and zeros of the input's type at once: as truth values, which then are converted, it takes three times
        # as long.
        mask = torch.ge(draws, n_dropped - _LEVELS // 2, out=torch.empty(input.numel(), dtype=input.dtype))
        return input * _laid_out_as(mask.mul_(_LEVELS / (_LEVELS - n_dropped)), input)


def dropout_layer(prob: float) -> nn.Module:
    """Return dropout, or the identity for a probability of zero, so that the layers behind keep their names."""
    return CheapDropout(prob) if prob else nn.Identity()


def _laid_out_as(values: Tensor, like: Tensor) -> Tensor:
    """Return a vector in the shape of another tensor, and in its layout where that has no gaps."""
    is_channels_last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return values.as_strided(like.shape, like.stride()) if is_channels_last else values.view(like.shape)
