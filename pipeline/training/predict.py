"""Predictions of any rows by one model: averaged over the items (files) of a row, with the model's own scaling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.batches import Items, Samples, batches_of
from pipeline.records.machine import Machine
from pipeline.training.device import autocast
from pipeline.training.recipe import Scaling


def prepare(batch: Tensor, scaling: Scaling) -> Tensor:
    """Return stored items (B, C, ...) as the model sees them: float32, normalised, channels-last for images."""
    shape = (1, -1) + (1,) * (batch.ndim - 2)
    inputs = (batch.float() - scaling.mean.view(shape)) / scaling.std.view(shape)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    items: Items,
    positions: NDArray[np.int64],
    scaling: Scaling,
    machine: Machine,
    batch_size: int,
    check_stop: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return logits (M, K) float32 on the device for the items at `positions`; the model is left in its mode.

    Args:
        check_stop: called before each batch; raises when the work was asked to stop.
    """
    was_training = model.training
    model.eval()
    try:
        parts = []
        for part in batches_of(len(positions), batch_size):
            check_stop()
            inputs = prepare(items.fetch(positions[part]), scaling)
            with autocast(machine.device, machine.precision):
                parts.append(model(inputs).float())
        return torch.cat(parts)
    finally:
        model.train(was_training)


def average_items(outputs: Tensor, samples: Samples, n_rows: int, scaling: Scaling) -> NDArray[np.float32]:
    """Return the mean over the items of each row, (n_rows, K) float32, in the units of the targets.

    Args:
        outputs: (M, K) probabilities or standardised values of the samples.
        samples: which row each output belongs to; rows are numbered 0..n_rows-1 in the order of first appearance.
    """
    _, place = np.unique(samples.row, return_inverse=True)
    index = torch.from_numpy(place.astype(np.int64)).to(outputs.device)
    sums = torch.zeros(n_rows, outputs.shape[1], dtype=torch.float64, device=outputs.device)
    sums.index_add_(0, index, outputs.double())
    counts = torch.bincount(index, minlength=n_rows).double()[:, None]
    values = sums / counts * scaling.target_std.double() + scaling.target_mean.double()
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)
