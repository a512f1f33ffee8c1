"""What do rows without labels bring when labels are few? MNIST with 250 and with 1,000 labels.

    python benchmarks/few_labels.py          # about half an hour on two cores; stopped, the same command goes on
    python benchmarks/few_labels.py --tiny   # to see that everything works; its numbers mean nothing

Four ways, from the same labelled rows, with 10,000 rows without labels: supervised (which leaves them alone),
pseudo-labels in one round and in three, and FixMatch. Scored once, on 10,000 further rows. Writes
`benchmarks/results/few_labels.md` and `.csv` and `docs/few-labels.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import Contest, cut_contest, labelled_task
from entry import start
from paired import publish_lines
from trials import Report, Trial, read_result, run_trial, tally

from pipeline import api
from pipeline.base.interrupt import StopFlag
from pipeline.base.progress import say
from pipeline.blending.trust import Trust
from pipeline.stages.pseudo import Wanted
from pipeline.training.executors import run_jobs

BASELINE = "supervised"
N_ROUNDS = 3
RATIO = 3
"""Rows without labels in a batch for each labelled one, in all ways that use them."""
THRESHOLD = 0.95
"""From which probability a pseudo-label is trusted."""
PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Size:
    """How much one contest of the study holds and how long it is trained."""

    n_labelled: int
    epochs: int
    n_unlabelled: int = 10_000
    n_scored: int = 10_000

    @property
    def name(self) -> str:
        """Return the name of its task."""
        return f"mnist-{self.n_labelled}"

    def base(self) -> dict[str, Any]:
        """Return the experiment that all ways share: about 600 steps of 64 labelled rows, the averaged weights."""
        return {
            "model": {"name": "cnn3", "width": 16, "convs_per_block": 2},
            "augment": {"shift": {"max_px": 2}},
            "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.01},
            "schedule": {"name": "one_cycle", "rise_frac": 0.2},
            "ema": {"decay": 0.99},
            "train": {"epochs": self.epochs, "batch_size": 64, "weights": "ema"},
        }


SIZES = (Size(250, 150), Size(1_000, 38))
FIXMATCH = (
    f"consistency={{ratio: {RATIO}, threshold: {THRESHOLD}, strong: {{shift: {{max_px: 3}}, cutout: {{size_px: 8}},"
    " affine: {max_rotate_deg: 25, max_scale: 0.2, max_shear_deg: 15}}}"
)


@dataclass(frozen=True)
class Chain:
    """All ways of one contest with one seed, in the order in which one teaches the next; picklable."""

    contest: Contest
    seed: int
    device: str
    threshold: float = THRESHOLD

    def trials(self) -> list[Trial]:
        """Return the trials: supervised, the rounds of pseudo-labels, FixMatch."""
        ways = {BASELINE: (), **{_round_arm(number): (self.pseudo(number),) for number in range(1, N_ROUNDS + 1)}}
        ways["FixMatch"] = (FIXMATCH,)
        return [Trial(self.contest, arm, overrides, self.seed, self.device) for arm, overrides in ways.items()]

    def pseudo(self, number: int) -> str:
        """Return the override by which a round learns from the labels of the one before."""
        return f"pseudo={{labels: {self.labels(number)}, ratio: {RATIO}}}"

    def labels(self, number: int) -> str:
        """Return the folder of the labels for a round, in the workspace."""
        return f"runs/{self.contest.name}/{self.teacher(number)}/labels/next"

    def teacher(self, number: int) -> str:
        """Return the run that labels for a round."""
        arm = BASELINE if number == 1 else _round_arm(number - 1)
        return f"{arm}-seed{self.seed}-all"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, write the tables and the picture, and print the tables."""
    wishes = _parser().parse_args(arguments)
    sizes, out, n_seeds = SIZES, wishes.out, wishes.seeds
    table, picture = PROJECT / "benchmarks" / "results" / "few_labels.md", PROJECT / "docs" / "few-labels.png"
    if wishes.tiny:
        sizes, out, n_seeds = (Size(100, 2, 300, 300),), out / "tiny", 1
        table, picture = out / "few_labels.md", out / "few-labels.png"
    contests = [prepare(out, wishes.data, size) for size in sizes]
    threshold = 0.1 if wishes.tiny else THRESHOLD  # after two epochs nothing is sure
    chains = [Chain(contest, seed, wishes.device, threshold) for seed in range(n_seeds) for contest in contests]
    todo = [chain for chain in chains if any(read_result(trial) is None for trial in chain.trials())]
    for contest in contests:
        api.folds(contest.config, root=contest.root)
    n_left = sum(read_result(trial) is None for chain in todo for trial in chain.trials())
    say(f"{n_left} trainings to go, in {len(todo)} chains")
    if todo:
        run_jobs(run_chain, todo, wishes.jobs, tally(n_left))
    wanted = [trial for chain in chains for trial in chain.trials() if trial.arm not in _steps_between()]
    results = [result for trial in wanted if (result := read_result(trial)) is not None]
    title = f"MNIST, {' and '.join(f'{size.n_labelled:,}' for size in sizes)} labels"
    print(publish_lines(results, BASELINE, title, table, picture))


def prepare(root: Path, data: Path, size: Size) -> Contest:
    """Cut MNIST into labelled rows, rows without labels (the test set of the task) and rows to score on."""
    task = labelled_task(size.name, data, "train/{id}.png")
    parts = {"train": size.n_labelled, "test": size.n_unlabelled, "scored": size.n_scored}
    return cut_contest(root, task, data, parts, size.base())


def run_chain(chain: Chain, report: Report, stop: StopFlag) -> None:
    """Run the trials of a chain that have no result yet, making the labels of each round from the run before it."""
    for number, trial in enumerate(chain.trials()):
        stop()
        if read_result(trial) is not None:
            continue
        if 1 <= number <= N_ROUNDS:
            teacher = f"{chain.contest.name}/{chain.teacher(number)}"
            # Models that are scored on rows outside of all folds have no CV, so all labelled rows may teach.
            wanted = Wanted(protocol="final", is_hard=True, trust=Trust(threshold=chain.threshold))
            api.pseudo([teacher], wanted=wanted, name="next", root=chain.contest.root)
        run_trial(trial, report, stop)


def _round_arm(number: int) -> str:
    return f"pseudo-labels-{number}"


def _steps_between() -> list[str]:
    """Return the rounds that only lead to the last one and stand in no table."""
    return [_round_arm(number) for number in range(2, N_ROUNDS)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="the folder of MNIST's files")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/few_labels"), help="where all is trained")
    parser.add_argument("--jobs", type=int, default=2, help="chains side by side, with one thread each")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each way")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="100 labels, two epochs, one seed; published under --out")
    return parser


if __name__ == "__main__":
    start("few_labels", main)
