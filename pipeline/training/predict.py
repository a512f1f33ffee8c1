"""Predictions of any rows by one model, with its own scaling: averaged over views, then over the items of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.batches import Items, Samples, batches_of
from pipeline.models.subjects import add_subjects
from pipeline.records.machine import Machine
from pipeline.records.views import View
from pipeline.training.device import autocast
from pipeline.training.scaling import Scaling, prepare
from pipeline.training.subjects import SubjectsOfRows
from pipeline.training.views import apply_view, average_views


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    items: Items,
    positions: NDArray[np.int64],
    scaling: Scaling,
    machine: Machine,
    batch_size: int,
    check_stop: Callable[[], None] = lambda: None,
    subjects: SubjectsOfRows | None = None,
) -> Tensor:
    """Return logits (M, K) float32 on the device for the items at `positions` as they are, without views.

    The model is left in its mode.

    Args:
        check_stop: called before each batch; raises when the work was asked to stop.
        subjects: whose each item is, (M,) in the order of `positions`, for a model that asks for it.
    """
    one: tuple[View, ...] = ("identity",)
    views = _batches_of_views(model, items, positions, scaling, machine, batch_size, one, check_stop, subjects)
    return torch.cat([logits[0] for logits in views])


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    items: Items,
    positions: NDArray[np.int64],
    scaling: Scaling,
    machine: Machine,
    batch_size: int,
    views: Sequence[View],
    average: Literal["probs", "logits"],
    activate: Callable[[Tensor], Tensor],
    check_stop: Callable[[], None] = lambda: None,
    subjects: SubjectsOfRows | None = None,
) -> Tensor:
    """Return probabilities or standardised values, (M, K) float32 on the device, averaged over the views of each item.

    Args:
        views: at least one; with `identity` alone the result is `activate(predict_logits(...))` in every bit.
        average: see `average_views`.
        activate: logits to probabilities or standardised values.
        check_stop: called before each batch; raises when the work was asked to stop.
        subjects: whose each item is, as in `predict_logits`.
    """
    batches = _batches_of_views(model, items, positions, scaling, machine, batch_size, views, check_stop, subjects)
    return average_views([torch.cat(logits) for logits in zip(*batches, strict=True)], average, activate)


def average_items(outputs: Tensor, samples: Samples, n_rows: int, scaling: Scaling) -> NDArray[np.float32]:
    """Return the mean over the items of each row, (n_rows, K) float32, in the units of the targets.

    Args:
        outputs: (M, K) probabilities or standardised values of the samples.
        samples: which row each output belongs to; rows are numbered 0..n_rows-1 in the order of their positions.
    """
    _, place = np.unique(samples.row, return_inverse=True)
    index = torch.from_numpy(place.astype(np.int64)).to(outputs.device)
    sums = torch.zeros(n_rows, outputs.shape[1], dtype=torch.float64, device=outputs.device)
    sums.index_add_(0, index, outputs.double())
    counts = torch.bincount(index, minlength=n_rows).double()[:, None]
    values = scaling.in_units(sums / counts)
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)


def _batches_of_views(
    model: nn.Module,
    items: Items,
    positions: NDArray[np.int64],
    scaling: Scaling,
    machine: Machine,
    batch_size: int,
    views: Sequence[View],
    check_stop: Callable[[], None],
    subjects: SubjectsOfRows | None,
) -> Iterator[list[Tensor]]:
    """Yield the logits (B, K) float32 of every view, for one batch of items after another; each is fetched once."""
    was_training = model.training
    model.eval()
    try:
        parts = list(batches_of(len(positions), batch_size))
        for part, stored in zip(parts, items.fetch_each([positions[part] for part in parts]), strict=True):
            check_stop()
            logits = []
            for view in views:
                inputs = prepare(apply_view(stored, view), scaling, machine.channels_last)
                if subjects is not None:
                    inputs = add_subjects(inputs, torch.from_numpy(subjects.number[part]), subjects.n_subjects)
                with autocast(machine.device, machine.precision):
                    logits.append(model(inputs).float())
            yield logits
    finally:
        model.train(was_training)
