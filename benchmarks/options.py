"""What do precision, memory layout and compilation bring to a training step? Steps per second, side by side.

    python benchmarks/options.py             # a few minutes on two cores

All ways train the same net on the same made-up 32 px images, in turns, so that what else the machine does hits all of
them alike; of each the median over the rounds counts. Writes `benchmarks/results/options.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from entry import start
from made_up import made_up_step

from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import has_native_bf16, resolve_device, threads

PROJECT = Path(__file__).parent.parent
N_ROWS, PX = 1_024, 32
NETS = {
    "cnn3 (width 32)": {"name": "cnn3", "width": 32, "convs_per_block": 2},
    "resnet_small (width 32)": {"name": "resnet_small", "width": 32},
}


@dataclass(frozen=True)
class Way:
    """One setting of the options."""

    precision: str
    channels_last: bool
    compile: bool

    @property
    def name(self) -> str:
        """Return what the table calls it."""
        layout = "channels last" if self.channels_last else "channels first"
        return f"{self.precision}, {layout}{', compiled' if self.compile else ''}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way on every net, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    device = resolve_device(wishes.device)
    precisions = ["fp32", *(["bf16"] if has_native_bf16(device) else []), *(["fp16"] if device != "cpu" else [])]
    ways = [Way(p, last, comp) for comp in (False, True) for p in precisions for last in (False, True)]
    tables = []
    with threads(wishes.threads):
        for net in NETS:
            steps = {way: _stepper(NETS[net], way, wishes.batch, device, wishes.threads) for way in ways}
            speeds = measure(steps, wishes.rounds, wishes.steps, device)
            tables.append(table_of(net, {way.name: [wishes.batch * s for s in speeds[way]] for way in ways}))
    origin = (
        f"{platform.processor() or platform.machine()}, {device}, {wishes.threads} threads, torch {torch.__version__}"
    )
    title = f"Images per second of training steps, {PX} px, batch {wishes.batch}; median of {wishes.rounds} rounds"
    text = f"{title}.\n\n" + "\n".join(tables) + f"\nMade on {origin}; {time.strftime('%Y-%m-%d')}.\n"
    write_text(wishes.out, text)
    print(text)


def measure(steps: dict[Way, Callable[[], None]], n_rounds: int, n_steps: int, device: str) -> dict[Way, list[float]]:
    """Return steps per second of each way in each round; the ways take turns, and the first call is not counted."""
    for way, step in steps.items():
        started = time.perf_counter()
        step()
        step()
        say(f"{way.name}: ready after {time.perf_counter() - started:.1f} s")
    speeds: dict[Way, list[float]] = {way: [] for way in steps}
    for _ in range(n_rounds):
        for way, step in steps.items():
            started = time.perf_counter()
            for _ in range(n_steps):
                step()
            if device != "cpu":
                torch.cuda.synchronize()
            speeds[way].append(n_steps / (time.perf_counter() - started))
    return speeds


def table_of(net: str, speeds: dict[str, list[float]]) -> str:
    """Return a Markdown table: median, spread, and the ratio to the first way."""
    first = median(next(iter(speeds.values())))
    lines = [f"**{net}**\n", "| options | images/s | lowest to highest | against the first |", "|---|---:|---:|---:|"]
    for name, values in speeds.items():
        low, high = min(values), max(values)
        lines.append(f"| {name} | {median(values):,.0f} | {low:,.0f} to {high:,.0f} | {median(values) / first:.2f}x |")
    return "\n".join(lines) + "\n"


def _stepper(net: dict[str, object], way: Way, batch_size: int, device: str, n_threads: int) -> Callable[[], None]:
    """Return a function that takes one training step, with a batch made anew each time."""
    values = {
        "model": net,
        "optimizer": {"name": "adamw"},
        "train": {
            "batch_size": batch_size,
            "precision": way.precision,
            "channels_last": way.channels_last,
            "compile": way.compile,
            "last_batch": "drop",
        },
    }
    experiment = validate(Experiment, values, "benchmark")
    machine = Machine(device=device, threads=n_threads, precision=way.precision, channels_last=way.channels_last)
    images = np.random.default_rng(0).integers(0, 256, (N_ROWS, 3, PX, PX), dtype=np.uint8)
    return made_up_step(images, experiment, machine)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the CPU")
    parser.add_argument("--batch", type=int, default=128, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/options.md", help="the table")
    return parser


if __name__ == "__main__":
    start("options", main)
