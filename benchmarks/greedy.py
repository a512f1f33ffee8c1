"""How long one greedy path takes: 50 picks among 200 members of 100,000 rows and 10 classes.

    python benchmarks/greedy.py              # needs 3 GB; under a minute on two cores
    python benchmarks/greedy.py --tiny       # a second, to see that it works

Beside the seconds stand those of asking the metric for each mean (`ScoredSum`), measured on a few means and scaled up.
Seconds are those of the clock, and of the processor where other work shares it.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np
from entry import start
from numpy.typing import NDArray

from pipeline.base.progress import print_table
from pipeline.blending.greedy import greedy_path
from pipeline.blending.problem import Problem
from pipeline.blending.running import ScoredSum
from pipeline.records.metrics import resolve_metric
from pipeline.records.task import MetricSpec

N_PICKS = 50
N_TIMED = 5


def main() -> None:
    """Measure log loss and accuracy, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tiny", action="store_true", help="a hundredth of everything; its numbers mean nothing")
    shape = (20, 1000, 10) if parser.parse_args().tiny else (200, 100_000, 10)
    members, targets = draw_members(shape, seed=0)
    rows = [measure(name, members, targets) for name in ("log_loss", "accuracy")]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    title = f"{N_PICKS} picks among {shape[0]} members x {shape[1]} rows x {shape[2]} classes, {os.cpu_count()} cores"
    columns = [
        "metric",
        "seconds",
        "CPU seconds",
        "CPU of asking the metric (estimate)",
        "picks",
        "best single",
        "blend",
    ]
    print_table(title, columns, rows)
    print(f"peak memory {peak_gb:.1f} GB, of which the members are {members.nbytes / 2**30:.1f} GB")


def draw_members(shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (M, N, K) probabilities that know the truth (N,) more or less, and that truth.

    Members share part of their noise, as models of one data set do, so that the path is long.
    """
    n_members, n_rows, n_classes = shape
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_classes, n_rows)
    shared = rng.standard_normal((n_rows, n_classes), dtype=np.float32)
    members = np.empty(shape, dtype=np.float32)
    for number in range(n_members):
        logits = 1.5 * shared + rng.standard_normal((n_rows, n_classes), dtype=np.float32)
        logits[np.arange(n_rows), targets] += 2 + number / n_members
        np.exp(logits, out=logits)
        members[number] = logits / logits.sum(axis=1, keepdims=True)
    return members, targets


def measure(name: str, members: NDArray[np.float32], targets: NDArray[np.int64]) -> list[object]:
    """Return a line of the table for one metric."""
    n_members, n_rows, n_classes = members.shape
    metric = resolve_metric(MetricSpec(name=name), "multiclass", [str(number) for number in range(n_classes)])
    problem = Problem(members, targets, np.arange(n_rows) % 5, metric, "probs", True)
    ScoredSum(problem).losses([0])  # the first call imports
    start, start_cpu = time.perf_counter(), time.process_time()
    path = greedy_path(problem, range(n_members), N_PICKS)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    start_cpu = time.process_time()
    ScoredSum(problem).losses(range(N_TIMED))
    slow = (time.process_time() - start_cpu) / N_TIMED * n_members * N_PICKS
    sign = -1 if metric.higher_is_better else 1
    return [name, seconds, cpu_seconds, slow, len(path.picks), sign * path.losses[0], sign * min(path.losses)]


if __name__ == "__main__":
    start("greedy", main)
