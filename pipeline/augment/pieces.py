"""A batch on a CPU in pieces that stay in its cache, where a large batch would wait for memory at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

N_BYTES = 2**20
"""Of a piece, for each thread: about what the cache of a core holds."""


def pieces(batch: Tensor, n_bytes: int = 4) -> list[slice]:
    """Return slices that cover the samples of a batch, (B, ...), at least one; a single one on devices but the CPU.

    Args:
        batch: what is cut.
        n_bytes: of each value while it is changed; most changes are computed in float32.
    """
    n = len(batch)
    if batch.device.type != "cpu" or not n:
        return [slice(0, n)]
    step = max(1, N_BYTES * torch.get_num_threads() // (n_bytes * max(1, batch[0].numel())))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def in_pieces(
    change: Callable[..., Tensor], batch: Tensor, *parameters: Tensor | None, into: Tensor | None = None
) -> Tensor:
    """Return `change(batch, *parameters)`, computed piece by piece.

    The same bits, where the change of a sample depends on that sample alone. Large batches of pictures take a fraction
    of the time: their temporary values are larger than what the system keeps for the next use, and fresh memory costs
    more than the arithmetic.

    Args:
        change: takes and returns (n, ...), of the batch's shape and type unless `into` says otherwise.
        batch: (B, ...); left untouched.
        parameters: (B, ...) each, cut like the batch, or None, which is handed on.
        into: what the result is written to, and its layout; a new tensor like the batch without it.
    """
    parts = pieces(batch)
    if len(parts) == 1 and into is None:
        return change(batch, *parameters)
    result = torch.empty_like(batch) if into is None else into
    for part in parts:
        result[part] = change(batch[part], *(None if each is None else each[part] for each in parameters))
    return result
