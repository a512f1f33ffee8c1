"""On what a run is trained: device, units side by side, threads; what nobody asks for is chosen, and said why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.base.errors import MismatchError
from pipeline.base.progress import DisplayKind
from pipeline.records.config import Config
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.records.runs import Run, Workspace
from pipeline.training.device import count_cores, has_native_bf16, resolve_device, resolve_precision
from pipeline.training.peak import free_bytes

Say = Callable[[str], None]

PROCESS_BYTES = 2**30
"""What a process that trains a small net takes at least, with torch: `podium plan` measures that of a config."""

WORTH_IT = 0.95
"""Fewer side by side must promise this share of the time, as the promise is a rough one."""

SERIAL_SHARE, SERIAL_POWER = 0.8, 0.6
"""A unit of n threads is taken to be n / (1 + (n - 1) s) times as fast as one of one thread, s = 0.8 F ** -0.6 with F
the GFLOP of a forward pass of a batch. On two cores four nets of 0.5 to 121 GFLOP were 0.49 to 0.96 of twice as fast. A
net of few large operations, as `conv5x5`, is better than that, and trains side by side all the same."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks of the machine; None and `auto` are resolved when the run starts, or as it started."""

    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    workers: int | None = None
    loaders: int | None = None
    checkpoint_minutes: float = 5.0
    verify: bool = False
    """Check the decoded items against their checksum before they are used."""
    show: DisplayKind = "auto"
    """How progress is shown."""
    minutes: float | None = None
    """Time that the call may take; units that are not finished by then save themselves and wait for the next one."""


def resolve_machine(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say | None = None,
    is_refit: bool = False,
    batch_flops: Callable[[], float] | None = None,
) -> Machine:
    """Return the machine for a run: what the user asks, else what the run started with, else what suits this machine.

    Args:
        workspace: where the run lies, if it was started.
        config: of the run.
        wishes: what the user asks.
        say: gets the reason for the number of units side by side where the user has not asked for one.
        is_refit: one unit for each seed, and none for a fold.
        batch_flops: see `choose_jobs`.
    """
    folder = workspace.run(config.task, config.run_name)
    started = Run(folder).machine if (folder / "run.json").is_file() and not Run(folder).is_blend else None
    device = resolve_device(wishes.device if wishes.device != "auto" or not started else started.device)
    cores, n_units = count_cores(), (1 if is_refit else config.experiment.folds.n_folds) * len(config.experiment.seeds)
    threads = wishes.threads or (started.threads if started else None)
    jobs, why = choose_jobs(device, n_units, cores, threads, free_bytes("cpu"), batch_flops)
    if wishes.jobs is None and say is not None:
        say(f"jobs: {jobs}, {why}")
    jobs = wishes.jobs or jobs
    precision = config.experiment.train.precision
    if started is not None and precision == "auto":
        if started.precision == "bf16" and not has_native_bf16(device):
            raise MismatchError(f"{folder}: was started in bf16, which this machine does not have")
        precision = started.precision
    return Machine(
        device=device,
        jobs=jobs,
        threads=threads or max(1, cores // jobs),
        workers=wishes.workers or cores,
        loaders=_loaders(config.experiment, wishes, device, cores // jobs),
        precision=resolve_precision(precision, device),
        channels_last=config.experiment.train.channels_last,
        micro_batches=started.micro_batches if started else 1,
        checkpoint_minutes=wishes.checkpoint_minutes,
    )


def choose_jobs(
    device: str,
    n_units: int,
    cores: int,
    threads: int | None,
    free: int | None,
    batch_flops: Callable[[], float] | None = None,
) -> tuple[int, str]:
    """Return how many units train side by side, and why.

    On a CPU as many as there are cores for their threads: a step of one unit leaves cores idle wherever it is not
    parallel, the steps of several do not. Unless the last round would leave more of them idle: five units on two cores
    take three rounds, the last of one unit on one core. Large steps are then quicker one unit after another.

    Args:
        device: where they train.
        n_units: units of the whole run.
        cores: that this process may use.
        threads: of each unit, where that is given.
        free: bytes of memory that processes may still take; None where the system does not say.
        batch_flops: gives the operations of a forward pass of a batch; asked only where rounds come out uneven, which
            is not looked at without it.
    """
    if device != "cpu":
        return 1, "one after another, as each has the device to itself"
    if n_units == 1:
        return 1, "as there is one unit"
    most = max(1, min(n_units, cores // (threads or 1)))
    if free is not None and (fit := max(1, free // PROCESS_BYTES)) < most:
        return fit, f"as {free / 2**30:.1f} GiB of memory are free and each takes 1 GiB or more"
    if most == 1:
        return 1, f"as {cores} cores have {threads or 1} threads for one unit"
    if threads is None and batch_flops is not None and n_units % most:
        flops = batch_flops()
        times = {jobs: _time_of(jobs, n_units, cores, flops) for jobs in range(most, 0, -1)}
        wanted = min(times, key=lambda jobs: times[jobs])
        if times[wanted] < WORTH_IT * times[most]:
            rounds = "one unit after another" if wanted == 1 else f"{wanted} units of {cores // wanted} threads"
            return wanted, (
                f"as {most} would leave cores idle in the last of their rounds: with {flops / 1e9:.3g} GFLOP in a"
                f" forward pass {rounds} keeps {cores} cores as busy"
            )
    each = threads or cores // most
    return most, f"a process for each of them: {most} units of {each} threads beat one unit on {cores} cores"


def _time_of(jobs: int, n_units: int, cores: int, flops: float) -> float:
    """Return how long all units take, `jobs` side by side, in units of one of them on one core; see `SERIAL_SHARE`."""
    threads = cores // jobs
    serial = SERIAL_SHARE * math.pow(max(flops, 1.0) / 1e9, -SERIAL_POWER)
    return math.ceil(n_units / jobs) * (1 + (threads - 1) * serial) / threads


def _loaders(experiment: Experiment, wishes: Wishes, device: str, cores: int) -> int:
    """Return how many processes of each unit run albumentations: none on a CPU, as units use its cores themselves."""
    if wishes.loaders is not None or not experiment.augment.albumentations:
        return wishes.loaders or 0
    return 0 if device == "cpu" else max(1, min(8, cores - 1))
