"""How much memory work takes at its peak and how much is free, on a CUDA device or, as resident memory, here."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.base.host_memory import PROC, free_host_bytes, line_of
from pipeline.training.memory import is_out_of_memory

_KIB = 1024
_STATUS, _RESET = PROC / "self/status", PROC / "self/clear_refs"


def forget_peak(device: str) -> None:
    """Let the next `peak_bytes` count from now on; where the system cannot, it counts from the start of the process."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        _RESET.write_text("5")  # see proc(5): sets VmHWM to the present VmRSS


def peak_bytes(device: str) -> int:
    """Return the most memory since `forget_peak`: of tensors and their cache on CUDA, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device)
    known = line_of(_STATUS, "VmHWM")
    if known is not None:
        return known
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIB


def used_bytes(device: str) -> int:
    """Return the memory in use now, counted as `peak_bytes` counts."""
    return torch.cuda.memory_reserved(device) if device.startswith("cuda") else line_of(_STATUS, "VmRSS") or 0


def free_bytes(device: str) -> int | None:
    """Return the memory that could still be taken; None where the system does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else free_host_bytes()


@dataclass(frozen=True)
class MemoryLine:
    """Memory as a straight line over the samples of a micro-batch, through two measured points."""

    small: tuple[int, int]
    """Samples and peak in bytes."""
    large: tuple[int, int]

    @property
    def per_sample(self) -> float:
        """Return bytes per sample; 0 where the larger batch took no more."""
        rise = self.large[1] - self.small[1]
        return max(0.0, rise / max(1, self.large[0] - self.small[0]))

    def most(self, limit: float, cap: int) -> int:
        """Return how many samples stay below `limit` bytes, at most `cap`."""
        if self.large[1] + (cap - self.large[0]) * self.per_sample <= limit:
            return cap
        return max(0, int(self.large[0] + (limit - self.large[1]) / self.per_sample))


def largest_that_fits(attempt: Callable[[int], object], start: int, cap: int) -> int:
    """Return about the largest number of samples, at most `cap`, whose step does not run out of memory.

    By doubling from `start`, then halving the gap until it is below a sixteenth.

    Args:
        attempt: tries that many samples; its tensors are gone when it returns or raises.
        start: known to fit.
        cap: the largest number of interest, >= `start`.
    """
    fits, fails = start, cap + 1
    while fits < cap and fails > cap:
        number = min(2 * fits, cap)
        fits, fails = (number, fails) if _fits(attempt, number) else (fits, number)
    while fails <= cap and fails - fits > max(1, fits // 16):
        number = (fits + fails) // 2
        fits, fails = (number, fails) if _fits(attempt, number) else (fits, number)
    return fits


def _fits(attempt: Callable[[int], object], number: int) -> bool:
    try:
        attempt(number)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
