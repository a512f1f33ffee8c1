"""What a model learns from rows without labels: pseudo-labels of earlier models, or consistency between two views."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.records.augmentation import Augment
from pipeline.records.record import Record

Positive = Annotated[float, Field(gt=0)]


class PseudoSpec(Record):
    """Rows labelled by earlier models, beside the labelled ones in every batch (Lee 2013)."""

    labels: str | None = None
    """Folder of label tables that `podium pseudo` wrote, relative to the workspace: one for each fold, or `all`; filled
    in by `podium pseudo --student`."""
    weight: Positive = 1.0
    """Of the mean loss of pseudo-labelled rows; that of labelled rows has 1."""
    start_epoch: int = Field(default=0, ge=0)
    """First epoch with them, from 0."""
    ramp_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the weight rises from 0 to its value, linearly."""
    ratio: Positive = 1.0
    """Pseudo-labelled rows in a step for each labelled one; they come on top of train.batch_size."""


class ConsistencySpec(Record):
    """FixMatch: where the averaged model is sure of a weakly changed row, it teaches the strongly changed one.

    Source: Sohn et al. 2020, https://arxiv.org/abs/2001.07685. Needs `ema:`, whose weights are the teacher.
    """

    strong: Augment
    """Changes of the strong view, in place of `augment:`, which makes the weak one."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Smallest probability of the teacher's class for a row to count."""
    weight: Positive = 1.0
    """Of the mean loss of unlabelled rows; those that do not count are zero in that mean."""
    start_epoch: int = Field(default=0, ge=0)
    """First epoch with it, from 0."""
    ramp_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the weight rises from 0 to its value, linearly."""
    ratio: Positive = 7.0
    """Unlabelled rows in a step for each labelled one; they come on top of train.batch_size."""
