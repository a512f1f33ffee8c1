"""How the work is run: device, processes, threads, precision. No part of the config hash.

Threads, precision and the split of batches change bits, so they are saved when a run starts and required again when it
goes on.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.records.record import Record

Precision = Literal["fp32", "bf16", "fp16"]


class Machine(Record):
    """A resolved machine: nothing is `auto` any more."""

    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    jobs: int = Field(default=1, ge=1)
    """Units trained side by side, each in a process of its own when there are several."""
    turns: bool = False
    """Whether they take turns in one process instead, a step of each, on data that are held once. Changes no bit."""
    threads: int = Field(default=1, ge=1)
    """Threads of each unit."""
    workers: int = Field(default=2, ge=1)
    """Threads that decode files while the store is built."""
    loaders: int = Field(default=0, ge=0)
    """Processes of each unit that run albumentations; 0: the unit does it itself. Changes no bit."""
    precision: Precision = "fp32"
    """Of the multiplications, resolved once per run."""
    channels_last: bool = True
    """Whether images and the model that takes them keep a pixel's channels side by side."""
    micro_batches: int = Field(default=1, ge=1)
    """Factor on `train.accumulation`: doubled for every unit of the run each time that memory ran out in a step."""
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    """Within an epoch, a checkpoint is written when this much time has passed; one always ends an epoch."""

    def bits(self) -> dict[str, str | int]:
        """Return what must be the same again for a resumed unit to be bitwise that of an unbroken run."""
        return {
            "device": self.device.split(":")[0],
            "threads": self.threads,
            "precision": self.precision,
            "micro_batches": self.micro_batches,
        }
