"""Whose each row is, for models that ask for it: numbers by the names of the labelled rows' subjects, 0 for unknown."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment.draw import Draw
from pipeline.models.subjects import add_subjects
from pipeline.records.experiment import Experiment
from pipeline.records.rows import Rows
from pipeline.records.subjects import subject_names, subject_numbers

UNKNOWN_PROB = 0.1
"""Share of training samples whose subject is withheld, so that the model learns what to do with a new one."""


@dataclass(frozen=True)
class SubjectsOfRows:
    """The number of each row's subject."""

    number: NDArray[np.int64]
    """(N,) 1..S, or 0 for a subject that no labelled row has."""
    n_subjects: int
    """S."""

    def at(self, rows: NDArray[np.int64]) -> SubjectsOfRows:
        """Return those of the rows at the given positions, in that order."""
        return replace(self, number=self.number[rows])


def subjects_of(experiment: Experiment, labelled: Rows, rows: Rows) -> SubjectsOfRows | None:
    """Return whose the rows are, numbered by the labelled ones; None where the model does not ask for it."""
    if experiment.model.options.get("subject", "none") == "none":
        return None
    names = subject_names(labelled)
    return SubjectsOfRows(subject_numbers(rows, names), len(names))


def with_known(inputs: Tensor, subjects: SubjectsOfRows, draw: Draw) -> Tensor:
    """Return training inputs (B, C, T) with their subjects, (B, C + S + 1, T), one in ten withheld by its draw."""
    number = torch.from_numpy(subjects.number).to(inputs.device)
    is_withheld = draw("subject", 1)[:, 0] < UNKNOWN_PROB
    return add_subjects(inputs, number.masked_fill(is_withheld, 0), subjects.n_subjects)
