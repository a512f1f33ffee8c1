"""What a training can begin before torch is imported, which takes a second or two: the process of its workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline.records.config import Config
from pipeline.training.executors import start_home

_GPUS = Path("/proc/driver/nvidia/gpus")


def start_early(config: Config, which: Sequence[int] | Literal["all"] | None, device: str, jobs: int | None) -> None:
    """Start the process that workers are forked from where units are likely to train side by side; see `start_home`.

    Args:
        config: what will be trained.
        which: folds that will be trained, `all` for a refit.
        device: as asked for; with `auto` GPUs are taken to be used where a driver lists them.
        jobs: units side by side, None if nobody asked.
    """
    n_parts = 1 if which == "all" else config.experiment.folds.n_folds if which is None else len(which)
    n_gpus = len(list(_GPUS.glob("*"))) if device in ("auto", "cuda") else 0
    n_places = n_gpus or ((os.cpu_count() or 1) if device in ("auto", "cpu") else 1)
    will_choose = jobs is None and n_places > 1
    if n_parts * len(config.experiment.seeds) > 1 and (will_choose or (jobs or 1) > 1):
        start_home()
