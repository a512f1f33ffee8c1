"""Dropout from few random words: torch draws one double for each value on a CPU, a third of a step of `conv5x5`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16
_LOWEST_WORD = torch.iinfo(torch.int64).min


class CheapDropout(nn.Dropout):
    """Dropout of the same law as torch's, on a CPU at a quarter of its cost; elsewhere it is torch's.

    Each value is dropped by itself with probability `p`, to within 1 in 131,072, and the others are divided by the
    share that is kept, so that the mean stays. 16 random bits decide a value, four values to a word of torch's global
    generator.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (any shape) the input with some values zeroed while training, else the input itself."""
        if not self.training or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        n_dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(_LOWEST_WORD, None)
        is_kept = words.view(torch.int16)[: input.numel()] >= n_dropped - _LEVELS // 2
        scale = torch.tensor(_LEVELS / (_LEVELS - n_dropped), dtype=input.dtype)
        return input * _laid_out_as(is_kept * scale, input)


def dropout_layer(prob: float) -> nn.Module:
    """Return dropout, or the identity for a probability of zero, so that the layers behind keep their names."""
    return CheapDropout(prob) if prob else nn.Identity()


def _laid_out_as(values: Tensor, like: Tensor) -> Tensor:
    """Return a vector in the shape of another tensor, and in its layout where that has no gaps."""
    is_channels_last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return values.as_strided(like.shape, like.stride()) if is_channels_last else values.view(like.shape)
