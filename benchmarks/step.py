"""What does a training step cost: conv5x5 beside the textbook's, SAM beside a plain step, memory kept or given back?

    python benchmarks/step.py             # two minutes on two cores

Steps are whole ones in fp32, on made-up images, in turns. The allocator is set for a process as a whole, so there each
turn is a process of its own. Writes `benchmarks/results/step.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entry import start
from made_up import made_up_step
from peers.textbook_folds import make_net
from torch import nn
from turns import CLOCKS, origin, seconds_of, table_of

from pipeline.base.allocator import SWITCH, keep_freed_memory
from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.models.plain_nets import conv5x5
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import threads

PROJECT = Path(__file__).parent.parent
CNN3: dict[str, Any] = {"model": {"name": "cnn3", "width": 16}, "train": {"batch_size": 256, "precision": "fp32"}}
CONV5X5: dict[str, Any] = {"model": {"name": "conv5x5"}, "train": {"batch_size": 100, "precision": "fp32"}}
SAM: dict[str, dict[str, Any]] = {
    "plain": {},
    "SAM": {"sam": {"rho": 0.05}},
    "ASAM": {"sam": {"rho": 0.5, "adaptive": True}},
    "SAM, `ascent_frac: 0.5`": {"sam": {"rho": 0.05, "ascent_frac": 0.5}},
}
PROBES = {"cnn3": (CNN3, (3, 32, 32)), "conv5x5": (CONV5X5, (1, 28, 28))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, write the tables and print them; with --probe, be one of the processes."""
    wishes = _parser().parse_args(arguments)
    keep_freed_memory()
    with threads(wishes.threads):
        if wishes.probe:
            print(json.dumps(probe(wishes.probe, wishes)))
            return
        tables = [_conv5x5_table(wishes), _sam_table(wishes)]
    tables += [_allocator_table(name, wishes) for name in PROBES]
    text = f"Milliseconds of whole training steps, fp32; median of {wishes.rounds} rounds.\n\n" + "\n".join(tables)
    text += f"\n{origin(wishes.threads, wishes.clock).rstrip()[:-1]}, torch {torch.__version__}.\n"
    write_text(wishes.out, text)
    print(text)


def net_step(net: nn.Module, layout: torch.memory_format) -> Callable[[], None]:
    """Return a step of a bare net with Adam on a batch that is already on the device."""
    net = net.to(memory_format=layout)
    inputs, labels = torch.randn(100, 1, 28, 28).to(memory_format=layout), torch.randint(0, 10, (100,))
    optimizer = torch.optim.Adam(net.parameters())

    def step() -> None:
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def train_steps(values: dict[str, Any], shape: tuple[int, ...], n_threads: int) -> Callable[[], None]:
    """Return a function that takes one training step as `podium train` does, with a batch made anew each time."""
    experiment = validate(Experiment, {"optimizer": {"name": "adam"}} | values, "benchmark")
    machine = Machine(device="cpu", threads=n_threads, precision="fp32", channels_last=True)
    images = np.random.default_rng(0).integers(0, 256, (1_024, *shape), dtype=np.uint8)
    return made_up_step(images, experiment, machine)


def probe(name: str, wishes: argparse.Namespace) -> dict[str, float]:
    """Return what steps cost in this process, whose allocator is set: milliseconds, page faults and memory in MB."""
    values, shape = PROBES[name]
    step = train_steps(values, shape, wishes.threads)
    for _ in range(3):
        step()
    settled, began = resource.getrusage(resource.RUSAGE_SELF), CLOCKS[wishes.clock]()
    for _ in range(wishes.steps * 3):
        step()
    seconds, used = CLOCKS[wishes.clock]() - began, resource.getrusage(resource.RUSAGE_SELF)
    n_faults = used.ru_minflt - settled.ru_minflt
    peak = used.ru_maxrss / 1024
    return {"ms": 1e3 * seconds / (wishes.steps * 3), "faults": n_faults / (wishes.steps * 3), "peak_mb": peak}


def _conv5x5_table(wishes: argparse.Namespace) -> str:
    torch.manual_seed(0)
    ways = {
        "textbook: convolution, ReLU, pool, dropout, linear, in NCHW": net_step(make_net(), torch.contiguous_format),
        "`conv5x5`": net_step(conv5x5((1, 28, 28), 10), torch.channels_last),
    }
    return _table("conv5x5, 28 px, batch 100, Adam", ways, "faster by", wishes)


def _sam_table(wishes: argparse.Namespace) -> str:
    ways = {name: train_steps(CNN3 | block, (3, 32, 32), wishes.threads) for name, block in SAM.items()}
    return _table("SAM, cnn3 of width 16, 32 px, batch 256, Adam", ways, "cost of a plain step", wishes)


def _table(title: str, ways: dict[str, Callable[[], None]], ratio: str, wishes: argparse.Namespace) -> str:
    say(title)
    seconds = seconds_of(ways, wishes.rounds, wishes.steps, wishes.clock)
    return table_of(title, "ms per step", {name: [1e3 * s for s in found] for name, found in seconds.items()}, ratio)


def _allocator_table(name: str, wishes: argparse.Namespace) -> str:
    """Return the table of one net's steps with freed memory given back and kept, in processes by turns."""
    title = f"Freed memory, `{name}` (the process of a training, whole steps)"
    say(title)
    found: dict[str, list[dict[str, float]]] = {"given back (`PODIUM_MALLOC=off`)": [], "kept (the default)": []}
    for _ in range(wishes.rounds):
        for way, switch in zip(found, ("off", "on"), strict=True):
            found[way].append(_probed(name, switch, wishes))
    lines = [f"{way}: {_middle(runs, 'faults'):,.0f} page faults per step, peak {_middle(runs, 'peak_mb'):,.0f} MB"
             for way, runs in found.items()]  # fmt: skip
    table = table_of(
        title, "ms per step", {way: [run["ms"] for run in runs] for way, runs in found.items()}, "faster by"
    )
    return table + "\n" + "; ".join(lines) + ".\n"


def _middle(runs: list[dict[str, float]], key: str) -> float:
    return float(np.median([run[key] for run in runs]))


def _probed(name: str, switch: str, wishes: argparse.Namespace) -> dict[str, float]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--probe", name, "--threads", str(wishes.threads)]
    command += ["--steps", str(wishes.steps), "--clock", wishes.clock]
    done = subprocess.run(command, env=clean | {SWITCH: switch}, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn; three times as many in a process")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: while the machine does other work")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/step.md", help="the tables")
    parser.add_argument("--probe", choices=tuple(PROBES), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    start("step", main)
