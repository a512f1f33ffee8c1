"""The averaged model as a teacher of rows without labels (FixMatch), for the step in `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pipeline.records.machine import Machine
from pipeline.training.device import autocast


@torch.no_grad()
def teach(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    activate: Callable[[Tensor], Tensor],
    threshold: float,
    machine: Machine,
    weak: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what the teacher decides, one-hot (E, K), or 0 and 1 (E, 1), and 1.0 where it is sure of it, (E,).

    Args:
        model: computes in eval mode with the teacher's weights, and is left as it was.
        weights: the teacher's, by the names of the model's state.
        activate: logits to probabilities.
        threshold: the probability of a class from which the teacher is sure.
        machine: precision of the pass.
        weak: (E, ...) weakly changed inputs.

    Source: Sohn et al. 2020, https://arxiv.org/abs/2001.07685, with averaged weights as the teacher.
    """
    was_training = model.training
    model.eval()
    try:
        with autocast(machine.device, machine.precision):
            logits = functional_call(model, dict(weights), (weak,), tie_weights=False)
    finally:
        model.train(was_training)
    probs = activate(logits)
    if probs.shape[1] == 1:
        return (probs >= 0.5).float(), (torch.maximum(probs, 1 - probs)[:, 0] >= threshold).float()
    sure, label = probs.max(dim=1)
    return F.one_hot(label, probs.shape[1]).float(), (sure >= threshold).float()
