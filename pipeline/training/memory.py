"""Memory that runs out: known in every form, told apart from other errors, given back; and how much is used and free.

A step that does not fit raises `StepMemoryError`; the run then goes on in micro-batches half as large, see
`finer_split`. Elsewhere, as in prediction, a smaller micro-batch would not help, and the user is told what would.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from pipeline.base.errors import PodiumError
from pipeline.records.experiment import Experiment

Result = TypeVar("Result")

MAX_HALVINGS = 4
"""How often micro-batches are halved; a batch that needs more was chosen for another machine."""
MIN_SAMPLES = 2
"""Of a micro-batch: batch norm has no variance of one."""

_TEXTS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How torch's allocator of the CPU, the CUDA runtime and cuBLAS say it, in plain RuntimeErrors."""


class StepMemoryError(PodiumError):
    """Memory ran out in a training step; picklable, and free of the tensors that the step held."""

    def __init__(self, message: str, n_samples: int, micro_batches: int) -> None:
        super().__init__(message, n_samples, micro_batches)
        self.n_samples = n_samples
        """Of the unit's smallest batch, before it was split."""
        self.micro_batches = micro_batches
        """The factor on `train.accumulation` with which it happened."""

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on the device or here."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


@contextmanager
def step_memory(unit: str, n_samples: int, micro_batches: int) -> Iterator[None]:
    """Raise a StepMemoryError where memory runs out inside the block, which is a training step.

    Args:
        unit: its name, for the message.
        n_samples: of the unit's smallest batch.
        micro_batches: the factor on `train.accumulation` in use.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise StepMemoryError(f"{unit}: memory ran out in a training step", n_samples, micro_batches) from error


def freed_after(work: Callable[[], Result], unit: str, device: str) -> Result:
    """Return what `work` returns; where memory runs out in it, give back what it held before that is told.

    Raises:
        StepMemoryError: memory ran out in a block of `step_memory`.
        PodiumError: memory ran out elsewhere.
    """
    told: PodiumError | None = None
    try:
        return work()
    except Exception as error:
        told = _about_memory(error, unit)
        if told is None:
            raise
    free_memory(device)  # out here, as the caught error holds the frames that it passed, and these hold tensors
    raise told


def free_memory(device: str) -> None:
    """Give back what nobody can reach any more."""
    gc.collect()  # models and their hooks hold each other
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def with_micro_batches(experiment: Experiment, factor: int) -> Experiment:
    """Return the experiment with `factor` times the micro-batches in each step; batches, and all draws, stay."""
    accumulation = experiment.train.accumulation * factor
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"accumulation": accumulation})})


def finer_split(error: StepMemoryError, accumulation: int) -> int:
    """Return twice the factor on `train.accumulation` that did not fit.

    Raises:
        PodiumError: that would be the fifth halving, or leave less than two samples in a micro-batch.
    """
    factor = 2 * error.micro_batches
    if factor <= 2**MAX_HALVINGS and error.n_samples // (accumulation * factor) >= MIN_SAMPLES:
        return factor
    n_micro = accumulation * error.micro_batches
    raise PodiumError(
        f"{error}, in micro-batches of about {-(-error.n_samples // n_micro)} samples, and these are not halved again"
        f" (at most {MAX_HALVINGS} times, to at least {MIN_SAMPLES} samples). Lower train.batch_size or the size of"
        " items (input.size), take a smaller model, train fewer units side by side (--jobs), or end other programs that"
        " use the device; what was begun is kept"
    )


def _about_memory(error: BaseException, unit: str) -> PodiumError | None:
    """Return what an error about memory says, as a new one; None for any other error."""
    if isinstance(error, StepMemoryError):
        return StepMemoryError(*error.args)
    if not is_out_of_memory(error):
        return None
    return PodiumError(
        f"{unit}: memory ran out outside of a training step ({str(error).splitlines()[0]}). Lower predict.batch_size or"
        " train.batch_size, train fewer units side by side (--jobs), or end other programs that use the device"
    )
