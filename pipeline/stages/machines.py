"""On what a run is trained: device, units side by side, threads; what nobody asks for is chosen, and said why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.base.errors import ConfigError, MismatchError
from pipeline.base.progress import DisplayKind
from pipeline.records.config import Config
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.records.runs import Run, Workspace
from pipeline.training.device import count_cores, gpus_of, has_native_bf16, resolve_device, resolve_precision
from pipeline.training.peak import free_bytes

Say = Callable[[str], None]

PROCESS_BYTES = 2**30
"""What a process that trains a small net takes at least, with torch: `podium plan` measures that of a config."""

WORTH_IT = 0.95
"""More units side by side than cores must promise this share of the time, as each of them takes memory."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks of the machine; None and `auto` are resolved when the run starts, or as it started."""

    device: str = "auto"
    jobs: int | None = None
    turns: bool = False
    """Units side by side take turns in one process; then `jobs` says how many."""
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
) -> Machine:
    """Return the machine for a run: what the user asks, else what the run started with, else what suits this machine.

    Args:
        workspace: where the run lies, if it was started.
        config: of the run.
        wishes: what the user asks.
        say: gets the reason for the number of units side by side where the user has not asked for one.
        is_refit: one unit for each seed, and none for a fold.
    """
    folder = workspace.run(config.task, config.run_name)
    started = Run(folder).machine if (folder / "run.json").is_file() and not Run(folder).is_blend else None
    device = resolve_device(wishes.device if wishes.device != "auto" or not started else started.device)
    cores, n_units = count_cores(), (1 if is_refit else config.experiment.folds.n_folds) * len(config.experiment.seeds)
    threads = wishes.threads or (started.threads if started else None)
    jobs, why = jobs_here(device, n_units, threads)
    if wishes.turns and wishes.jobs is None:
        raise ConfigError("--turns: needs --jobs N, the number of units that take turns in one process")
    if wishes.jobs is None and say is not None:
        say(f"jobs: {jobs}, {why}")
    if wishes.turns and len(gpus_of(device)) > 1 and say is not None:
        say("note: units that take turns share one GPU and leave the others idle; without --turns each has its own")
    jobs = wishes.jobs or jobs
    n_computing = 1 if wishes.turns else jobs
    precision = config.experiment.train.precision
    if started is not None and precision == "auto":
        if started.precision == "bf16" and not has_native_bf16(device):
            raise MismatchError(f"{folder}: was started in bf16, which this machine does not have")
        precision = started.precision
    return Machine(
        device=device,
        jobs=jobs,
        turns=wishes.turns,
        threads=threads or max(1, cores // n_computing),
        workers=wishes.workers or cores,
        loaders=_loaders(config.experiment, wishes, device, cores // jobs),
        precision=resolve_precision(precision, device),
        channels_last=config.experiment.train.channels_last,
        micro_batches=started.micro_batches if started else 1,
        checkpoint_minutes=wishes.checkpoint_minutes,
    )


def jobs_here(device: str, n_units: int, threads: int | None) -> tuple[int, str]:
    """Return how many units train side by side on this machine, and why; see `choose_jobs`."""
    return choose_jobs(device, n_units, count_cores(), threads, free_bytes("cpu"), len(gpus_of(device)))


def wishes_of_all(wishes: Wishes, n_units: int) -> tuple[Wishes, str]:
    """Return wishes that hold for every run of a study, with units side by side and their threads, and why so many.

    Alike for every run, as the number of threads changes bits.

    Args:
        wishes: what the user asks.
        n_units: that are trained together, whichever runs they are of.
    """
    jobs, why = jobs_here(resolve_device(wishes.device), n_units, wishes.threads)
    jobs = wishes.jobs or jobs
    return replace(wishes, jobs=jobs, threads=wishes.threads or max(1, count_cores() // jobs)), why


def choose_jobs(
    device: str, n_units: int, cores: int, threads: int | None, free: int | None, n_gpus: int = 1
) -> tuple[int, str]:
    """Return how many units train side by side, and why.

    On GPUs one on each.

    On a CPU as many as there are cores for their threads: a step of one unit leaves cores idle wherever it is not
    parallel, the steps of several do not. Where the last round would leave cores idle, a few more than that take turns:
    five units on two cores are three rounds of two, but two and a half of three and then two. Only units of one thread
    take turns, as several threads of a step would wait for each other.

    Args:
        device: where they train.
        n_units: units of the whole run.
        cores: that this process may use.
        threads: of each unit, where that is given.
        free: bytes of memory that processes may still take; None where the system does not say.
        n_gpus: that `device` stands for, unless it is the CPU.
    """
    if n_units == 1:
        return 1, "as there is one unit"
    if device != "cpu":
        if n_gpus > 1:
            return min(n_gpus, n_units), f"as there are {n_gpus} GPUs, and each unit has one to itself"
        return 1, "one after another, as each has the device to itself"
    at_once = max(1, min(n_units, cores // (threads or 1)))
    fit = n_units if free is None else max(1, free // PROCESS_BYTES)
    if free is not None and fit < at_once:
        return fit, f"as {free / 2**30:.1f} GiB of memory are free and each takes 1 GiB or more"
    if at_once == 1:
        return 1, f"as {cores} cores have {threads or 1} threads for one unit"
    each = threads or cores // at_once
    most = min(n_units, fit, 2 * at_once) if each == 1 else at_once
    jobs = min(range(at_once, most + 1), key=lambda jobs: rounds_of(n_units, jobs, at_once))
    if rounds_of(n_units, jobs, at_once) <= WORTH_IT * rounds_of(n_units, at_once, at_once):
        return jobs, (
            f"a process for each of them: {jobs} units of one thread take turns on {at_once} cores, which leaves none"
            f" idle at the end of {n_units}"
        )
    return at_once, f"a process for each of them: {at_once} units of {each} threads beat one unit on {cores} cores"


def at_once_of(machine: Machine) -> int:
    """Return how many units of a run work at the same time; more of one thread than there are cores take turns."""
    return min(machine.jobs, count_cores()) if machine.device == "cpu" and machine.threads == 1 else machine.jobs


def rounds_of(n_units: int, jobs: int, at_once: int) -> float:
    """Return how long all units take, in the time of one that shares its cores with nobody.

    Args:
        n_units: all of them, equally long.
        jobs: units side by side; those of a round end together.
        at_once: units that there are cores for; more take turns.
    """
    n_full, n_last = divmod(n_units, jobs)
    last = max(1.0, n_last / at_once) if n_last else 0.0
    return n_full * max(1.0, jobs / at_once) + last


def _loaders(experiment: Experiment, wishes: Wishes, device: str, cores: int) -> int:
    """Return how many processes of each unit run albumentations: none on a CPU, as units use its cores themselves."""
    if wishes.loaders is not None or not experiment.augment.albumentations:
        return wishes.loaders or 0
    return 0 if device == "cpu" else max(1, min(8, cores - 1))
