"""Run picklable jobs one after another or in processes side by side. Knows nothing of training.

A job is a module-level function and an argument; while it runs it may report events and must look at a stop flag.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Any, TypeVar

from pipeline.base.errors import PodiumError, StopRequestedError
from pipeline.base.interrupt import StopFlag, stop_on_signals

Argument = TypeVar("Argument")
Report = Callable[[Any], None]

_worker: dict[str, Any] = {}
"""Of a worker process: the queue that events go to, and the event that asks it to stop."""


def run_jobs(
    job: Callable[[Argument, Report, StopFlag], None], arguments: Sequence[Argument], n_parallel: int, report: Report
) -> None:
    """Run `job` for every argument, at most `n_parallel` at a time, and pass on what the jobs report.

    Jobs are started in order. The first error of a job stops the others in good order and is then raised; so does a
    signal. With `n_parallel` = 1 everything happens in this process.

    Raises:
        StopRequestedError: a signal came; every running job has saved itself.
        PodiumError: a job failed so, or its process was killed from outside.
    """
    with stop_on_signals() as stop:
        if n_parallel == 1 or len(arguments) == 1:
            for argument in arguments:
                stop()
                job(argument, report, stop)
            return
        _run_in_processes(job, arguments, n_parallel, report, stop)


def _run_in_processes(
    job: Callable[[Argument, Report, StopFlag], None],
    arguments: Sequence[Argument],
    n_parallel: int,
    report: Report,
    stop: StopFlag,
) -> None:
    # Forking a process that has used torch's threads or CUDA hangs or fails, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[Any] = context.Queue()
    stop_workers = context.Event()
    n_workers = min(n_parallel, len(arguments))
    pump = threading.Thread(target=_pass_on, args=(events, report), daemon=True)
    pump.start()
    try:
        with ProcessPoolExecutor(n_workers, context, _start_worker, (events, stop_workers)) as pool:
            futures = [pool.submit(_run_in_worker, job, argument) for argument in arguments]
            _wait(futures, stop, stop_workers)
    finally:
        events.put(None)  # the workers have ended and flushed, so this comes after all that they reported
        pump.join()
    _raise_errors([future.exception() for future in futures if not future.cancelled()])
    stop()


def _wait(futures: Sequence[Future[None]], stop: StopFlag, stop_workers: ProcessEvent) -> None:
    """Wait until every job has ended; on a stop or an error let the running jobs save themselves and drop the rest."""
    pending: set[Future[None]] = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        has_failed = any(not future.cancelled() and future.exception() for future in done)
        if (stop.is_set or has_failed) and not stop_workers.is_set():
            stop_workers.set()
            for future in pending:
                future.cancel()


def _pass_on(events: multiprocessing.Queue[Any], report: Report) -> None:
    """Report events until None comes."""
    while (event := events.get()) is not None:
        report(event)


def _raise_errors(errors: Sequence[BaseException | None]) -> None:
    """Raise the first error that a job made; that it was stopped only if none made another error."""
    failures = [error for error in errors if error is not None and not isinstance(error, StopRequestedError)]
    if any(isinstance(error, BrokenProcessPool) for error in failures):
        raise PodiumError(
            "a worker process was killed from outside, most often because memory ran out. Run the same command again"
            " to go on, with fewer --jobs or a smaller train.batch_size"
        )
    for error in [*failures, *errors]:
        if error is not None:
            raise error


def _start_worker(events: multiprocessing.Queue[Any], stop_workers: ProcessEvent) -> None:
    _worker["events"], _worker["stop"] = events, stop_workers


def _run_in_worker(job: Callable[[Argument, Report, StopFlag], None], argument: Argument) -> None:
    events = _worker["events"]
    with stop_on_signals(also=_worker["stop"].is_set) as stop:
        job(argument, events.put, stop)
