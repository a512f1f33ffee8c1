"""How long does a training take, from files on disk to a validation score? Podium and its peers, in turns.

    python3 -m venv runs/peers && runs/peers/bin/pip install -r benchmarks/peers/requirements.txt
    python benchmarks/speed.py --net cnn3            # a small CNN, about half an hour on two cores
    python benchmarks/speed.py --net conv5x5         # one convolution: how fast images come

Every contestant is a process of its own on the same cores, starts from JPEG files with nothing decoded, trains in fp32
with crop, flip, erasing and label smoothing on the same 8,000 images of CIFAR-10 and validates on the same 2,000 after
every epoch; the seed is the number of the round. Images and the libraries of torch have been read before, so that
nobody waits for the disk while the clock runs. Each peer first tries 0 and 2 workers, both memory layouts and
torch.compile, and enters with its best (with two entries where one setting has the least wall time and another the most
images per second). Writes `benchmarks/results/speed.md`, the same as CSV, and `docs/speed.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from entry import start
from peers.job import Job, Options
from processes import watch
from speed_results import OURS, Measured, best_options, measured, publish

from pipeline import api
from pipeline.base.errors import DataError, PodiumError
from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.base.tables import read_table
from pipeline.records.runs import git_commit

PROJECT = Path(__file__).parent.parent
PEERS = {name: f"{name}{'' if name == 'plain' else '_train'}.py" for name in ("plain", "timm", "lightning", "fastai")}
PACKAGES = ("torch", "albumentations", "opencv-python-headless", "timm", "lightning", "fastai")
NETS: dict[str, dict[str, Any]] = {
    "cnn3": {"model": {"name": "cnn3", "width": 16}, "lr": 2e-3},
    "conv5x5": {"model": {"name": "conv5x5"}, "lr": 1e-3},
}
WEIGHT_DECAY, SMOOTHING = 0.01, 0.1
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",  # all on the CPU
    "NO_ALBUMENTATIONS_UPDATE": "1",  # or its import asks the package index for news
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Race:
    """What every contestant gets to do, as files of one folder."""

    root: Path
    net: str
    n_train: int
    n_val: int
    epochs: int
    cores: tuple[int, ...]
    peers_python: Path
    checkout: str
    about: tuple[str, str]
    """The setting and the origin, for the table."""

    @property
    def config(self) -> Path:
        """Return Podium's experiment."""
        return self.root / "configs" / f"{self.net}.yaml"

    def run_ours(self, number: int) -> Measured:
        """Return what one run of Podium measured, in a workspace where nothing is decoded yet."""
        workspace = self.root / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        words = ["--folds", "0", "--threads", str(len(self.cores)), "--show", "lines", "--root", str(workspace)]
        command = [sys.executable, "-m", "pipeline", "train", str(self.config), f"seeds=[{number}]", *words]
        return self._run(command, OURS, "", number)

    def run_peer(self, peer: str, options: Options, number: int) -> Measured:
        """Return what one run of a peer measured."""
        path = self.root / "job.json"
        checkout = self.checkout if peer == "timm" else ""
        replace(read_base_job(self), seed=number, options=options, checkout=checkout).write(path)
        script = PROJECT / "benchmarks/peers" / PEERS[peer]
        return self._run([str(self.peers_python), str(script), str(path)], peer, str(options), number)

    def _run(self, command: list[str], name: str, options: str, number: int) -> Measured:
        # Podium has an environment to itself, which would be gone from the system's cache when its turn comes again.
        subprocess.run([command[0], "-c", "import torch"], check=True)
        watched = watch(command, self.cores, PROJECT, ENVIRONMENT)
        one = measured(watched, self.n_train, self.epochs, self.net, name, options, number, self.about)
        say(
            f"round {number}  {one.label}: {one.wall_sec:.1f} s, {one.images_per_sec:,.0f} images/s, {one.accuracy:.3f}"
        )
        return one


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune the peers, let all contestants run in turns, write table and picture and print the table."""
    wishes = _parser().parse_args(arguments)
    peers = [name for name in wishes.peers.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise PodiumError(f"--peers: there is no '{unknown[0]}'; there are {', '.join(PEERS)}")
    race = prepare(wishes, versions_of(wishes.peers_python) if peers else {})
    entries = [(peer, options) for peer in peers for options in choose(race, peer, wishes.tune)]
    runs: list[Measured] = []
    for number in range(1, wishes.rounds + 1):
        turns: list[tuple[str, Options | None]] = [(OURS, None), *entries]
        first = (number - 1) % len(turns)
        for peer, options in turns[first:] + turns[:first]:
            runs.append(race.run_ours(number) if options is None else race.run_peer(peer, options, number))
    print(publish(runs, wishes.out, wishes.picture))


def choose(race: Race, peer: str, is_tuned: bool) -> list[Options]:
    """Return the options that a peer enters with: the best of whole runs with each of them.

    torch.compile is tried on the best of the others; what fails, which compiling may, is left out and said.
    """
    if not is_tuned:
        return [Options()]
    tried: dict[str, Options] = {}
    runs: list[Measured] = []

    def attempt(options: Options) -> None:
        try:
            runs.append(race.run_peer(peer, options, 0))
            tried[str(options)] = options
        except PodiumError as error:
            say(f"left out: {error}")

    for workers in (0, 2):
        for channels_last in (True, False):
            attempt(Options(workers, channels_last))
    if not runs:
        raise PodiumError(f"{peer}: none of its settings ran; its last lines stand above")
    for name in best_options(runs):
        attempt(replace(tried[name], compile=True))
    return [tried[name] for name in best_options(runs)]


# ---------------------------------------------------------------------------------------------------------------------
# The files of a race
# ---------------------------------------------------------------------------------------------------------------------


def prepare(wishes: argparse.Namespace, versions: dict[str, str]) -> Race:
    """Write the rows, Podium's config, and for the peers the rows that Podium trains on and holds out."""
    root = (wishes.work / wishes.net).resolve()
    shutil.rmtree(root, ignore_errors=True)
    table = read_table(wishes.data / "train.csv").iloc[: wishes.images]
    if len(table) < wishes.images:
        raise DataError(f"{wishes.data / 'train.csv'}: {len(table)} rows, and --images asks for {wishes.images}")
    write_text(root / "rows.csv", table.to_csv(index=False))
    config = write_config(root, wishes)
    folds, _ = api.folds(config, root=root / "split")
    heldout = set(folds.ids[folds.split(0)[1]])
    labels = dict(zip(table["id"], table["label"], strict=True))
    for part in ("train", "val"):
        ids = [name for name in labels if (name in heldout) == (part == "val")]
        write_part(root / "peers", part, {wishes.data.resolve() / f"train/{name}.jpg": labels[name] for name in ids})
    cores = tuple(sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)))
    cores = cores[: wishes.cores]
    n_val = len(heldout)
    setting = (
        f"{len(table) - n_val:,} training and {n_val:,} validation images, {wishes.epochs} epochs, batch"
        f" {wishes.batch}, fp32, {len(cores)} cores"
    )
    return Race(
        root=root,
        net=wishes.net,
        n_train=len(table) - n_val,
        n_val=n_val,
        epochs=wishes.epochs,
        cores=cores,
        peers_python=wishes.peers_python.absolute(),
        checkout=str(wishes.timm_checkout.resolve()) if wishes.timm_checkout else "",
        about=(setting, origin(versions)),
    )


def write_config(root: Path, wishes: argparse.Namespace) -> Path:
    """Write Podium's task and experiment and the peers' job, all of one recipe; return the experiment's path."""
    net = NETS[wishes.net]
    task = {
        "name": "cifar10",
        "data": str(wishes.data.resolve()),
        "kind": "multiclass",
        "metric": "accuracy",
        "id": "id",
        "target": "label",
        "train": {"table": str(root / "rows.csv"), "files": "train/{id}.jpg"},
    }
    experiment = {
        "task": "task.yaml",
        "model": net["model"],
        "augment": {"shift": {"max_px": 4}, "flip": {"horizontal": True}, "erasing": {"prob": 0.5}},
        "loss": {"name": "cross_entropy", "label_smoothing": SMOOTHING},
        "optimizer": {"name": "adamw", "lr": net["lr"], "weight_decay": WEIGHT_DECAY},
        "schedule": {"name": "constant"},
        "train": {"epochs": wishes.epochs, "batch_size": wishes.batch, "precision": "fp32"},
    }
    path = root / "configs" / f"{wishes.net}.yaml"
    write_text(path.with_name("task.yaml"), yaml.safe_dump(task, sort_keys=False))
    write_text(path, yaml.safe_dump(experiment, sort_keys=False))
    job = Job(wishes.net, str(root / "peers"), wishes.epochs, wishes.batch, net["lr"], WEIGHT_DECAY, SMOOTHING)
    job.write(root / "base-job.json")
    return path


def read_base_job(race: Race) -> Job:
    """Return the job of all peers, without options."""
    return Job(**{**json.loads((race.root / "base-job.json").read_text()), "options": Options()})


def write_part(folder: Path, part: str, labels: dict[Path, str]) -> None:
    """Write paths and classes as a table, and the same images as links in a folder for each class.

    Every image is read once, so that none has to come from the disk while somebody is timed.
    """
    classes = {name: number for number, name in enumerate(sorted(set(labels.values())))}
    lines = ["path,label"]
    for path, label in labels.items():
        path.read_bytes()
        lines.append(f"{path},{classes[label]}")
        link = folder / part / label / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    write_text(folder / f"{part}.csv", "\n".join(lines) + "\n")


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of the peers' packages in their environment.

    Raises:
        PodiumError: there is no such Python, or a package is missing.
    """
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {PACKAGES!r}}}))"
    hint = "make it as the head of benchmarks/speed.py says, or name another with --peers-python"
    try:
        told = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise PodiumError(f"the peers' environment {python}: {why}; {hint}") from error
    return dict(json.loads(told))


def origin(versions: dict[str, str]) -> str:
    """Return on what the figures were made: processor, versions, commit, day."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text() if info.is_file() else "").splitlines()
        if line.startswith("model name")
    ]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Made on {names[0] if names else platform.machine()}; Python {platform.python_version()}, {packages}; commit"
        f" {(git_commit() or 'unknown')[:12]}; {time.strftime('%Y-%m-%d')}."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=list(NETS), default="cnn3", help="what all train")
    parser.add_argument("--peers", default=",".join(PEERS), help="who else runs")
    parser.add_argument(
        "--peers-python", type=Path, default=PROJECT / "runs/peers/bin/python", help="of their environment"
    )
    parser.add_argument("--timm-checkout", type=Path, help="a checkout of timm, whose train.py then runs")
    parser.add_argument("--no-tune", dest="tune", action="store_false", help="no search for the peers' best options")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--images", type=int, default=10_000, help="rows of train.csv; a fifth is held out")
    parser.add_argument("--epochs", type=int, default=3, help="of each training, two or more")
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--cores", type=int, default=2, help="that each contestant may use")
    parser.add_argument(
        "--data", type=Path, default=PROJECT / "data/cifar10", help="holds train.csv and train/<id>.jpg"
    )
    parser.add_argument(
        "--work", type=Path, default=PROJECT / "runs/benchmarks/speed", help="for all that is made on the way"
    )
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/speed.md", help="the table")
    parser.add_argument("--picture", type=Path, default=PROJECT / "docs/speed.png", help="the picture")
    return parser


if __name__ == "__main__":
    start("speed", main)
