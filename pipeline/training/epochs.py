"""Which samples an epoch takes, in which order and in which batches: a function of (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import EpochOrder, Samples, balanced, joined_passes, shuffled, slice_epoch
from pipeline.records.experiment import TrainSpec


def epoch_of(
    samples: Samples, labels: NDArray[np.int64] | None, spec: TrainSpec, seed: int, epoch: int
) -> tuple[EpochOrder, list[slice]]:
    """Return the order of one epoch, and which places of it each step takes.

    With `spec.epoch_steps` an epoch is that many steps: the first ones of a pass over the samples, or those of as many
    passes as it takes. No two epochs share a pass, so what one leaves out is as likely in the next as anything else.

    Args:
        samples: what is learnt from.
        labels: (M,) class of each sample; None where rows have no single class, and then sampling is not balanced.
        spec: sampling, batches and steps.
        seed: of the unit.
        epoch: from 0.
    """
    if spec.epoch_steps is None:
        return _pass(samples, labels, spec, seed, epoch)
    order, batches = _pass(samples, labels, spec, seed, 0)
    n_passes = -(-spec.epoch_steps // len(batches))
    passes = [_pass(samples, labels, spec, seed, epoch * n_passes + number) for number in range(n_passes)]
    order, batches = joined_passes(passes)
    batches = batches[: spec.epoch_steps]
    end = batches[-1].stop
    return EpochOrder(order.sample[:end], order.occurrence[:end]), batches


def _pass(
    samples: Samples, labels: NDArray[np.int64] | None, spec: TrainSpec, seed: int, number: int
) -> tuple[EpochOrder, list[slice]]:
    if spec.sampling == "balanced" and labels is not None:
        order = balanced(samples, labels, seed, number)
    else:
        order = shuffled(samples, seed, number)
    if spec.last_batch != "auto":
        return slice_epoch(order, spec.batch_size, spec.last_batch)
    return slice_epoch(order, spec.batch_size, "pad" if spec.compile else "even")
