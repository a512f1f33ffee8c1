"""Run picklable jobs one after another or in processes side by side. Knows nothing of what a job does.

A job is a module-level function and an argument; while it runs it may report events and must look at a stop flag.

Processes are forked from one that has everything imported and has done nothing else (`worker_home.py`): the imports of
a training take seconds, and memory, once instead of in every process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Any, TypeVar

from pipeline.base.errors import PodiumError, StopRequestedError
from pipeline.base.interrupt import SIGNALS, StopFlag, stop_on_signals

Argument = TypeVar("Argument")
Report = Callable[[Any], None]

_HOME = "pipeline.training.worker_home"
_HAS_HOME = sys.platform == "linux"

_worker: dict[str, Any] = {}
"""Of a worker process: the queue that events go to, and the event that asks it to stop."""


def run_jobs(
    job: Callable[[Argument, Report, StopFlag], None],
    arguments: Sequence[Argument],
    n_parallel: int,
    report: Report,
    is_over: Callable[[], bool] | None = None,
    seats: Sequence[Mapping[str, str]] = (),
) -> None:
    """Run `job` for every argument, at most `n_parallel` at a time, and pass on what the jobs report.

    Jobs are started in order. The first error of a job stops the others in good order and is then raised; so does a
    signal, and the time when `is_over` says so. With `n_parallel` = 1 everything happens in this process.

    Args:
        job: what is done.
        arguments: what it is done for.
        n_parallel: processes.
        report: gets what jobs report, in this process.
        is_over: says when there is no time left.
        seats: environment variables of the first process, the second, and so on, from the first again when there are
            more; they hold for all of its jobs.

    Raises:
        StopRequestedError: a signal came, or the time is over; every running job has saved itself.
        PodiumError: a job failed so, or its process was killed from outside.
    """
    with stop_on_signals(also=is_over) as stop:
        if n_parallel == 1 or len(arguments) == 1:
            for argument in arguments:
                stop()
                job(argument, report, stop)
            return
        _run_in_processes(job, arguments, n_parallel, report, stop, seats)


def run_in_turns(
    begin: Callable[[Argument, StopFlag], Generator[Any, None, None]],
    arguments: Sequence[Argument],
    n_at_once: int,
    report: Report,
    is_over: Callable[[], bool] | None = None,
) -> None:
    """Run jobs in this process, `n_at_once` at a time, a step of each in turn, and pass on what the steps yield.

    Jobs are begun in order. The first error of a job stops the others in good order and is then raised; so does a
    signal, and the time when `is_over` says so.

    Args:
        begin: returns the steps of a job; they must look at the stop flag.
        arguments: what it is done for.
        n_at_once: jobs that take turns, >= 1.
        report: gets what steps yield.
        is_over: says when there is no time left.

    Raises:
        StopRequestedError: a signal came, or the time is over; every job that was begun has saved itself.
        PodiumError: a job failed so.
    """
    waiting, running = deque(arguments), deque[Generator[Any, None, None]]()
    failure: Exception | None = None
    n_stopped = 0
    with stop_on_signals(also=lambda: failure is not None or (is_over is not None and is_over())) as stop:
        try:
            while running or (waiting and not stop.is_set):
                if waiting and len(running) < n_at_once and not stop.is_set:
                    steps = begin(waiting.popleft(), stop)  # its first step is next: none is begun that did not run
                else:
                    steps = running.popleft()
                try:
                    made = next(steps)
                except StopIteration:
                    continue
                except StopRequestedError:
                    n_stopped += 1
                    continue
                except Exception as error:
                    failure = failure or error
                    continue
                running.append(steps)
                report(made)
            if failure is not None:
                raise failure
            if n_stopped or waiting:
                stop()
        finally:
            failure = None  # else it and this frame would hold each other, and what the steps held
            for steps in running:
                steps.close()  # what they hold, such as the lock of a unit, where the turns were broken off


def start_home() -> BaseContext:
    """Start the process that workers are forked from, if none runs yet, and return the context for workers.

    It takes seconds to import what they need, in the background: call this early where processes will be wanted.
    Forking this process itself would hang or fail once it has used torch's threads or CUDA. Outside of Linux, where
    forks do not go with the system's own libraries, every worker starts afresh instead.
    """
    if not _HAS_HOME:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_HOME])
    with _sigint_ignored():
        forkserver.ensure_running()
    return context


def _run_in_processes(
    job: Callable[[Argument, Report, StopFlag], None],
    arguments: Sequence[Argument],
    n_parallel: int,
    report: Report,
    stop: StopFlag,
    seats: Sequence[Mapping[str, str]],
) -> None:
    context = start_home()
    events: multiprocessing.Queue[Any] = context.Queue()
    stop_workers = context.Event()
    n_workers = min(n_parallel, len(arguments))
    free_seats: SimpleQueue[dict[str, str]] = context.SimpleQueue()
    for number in range(n_workers):
        free_seats.put(dict(seats[number % len(seats)]) if seats else {})
    given = events, stop_workers, dict(os.environ), free_seats
    with (
        _passing_on(events, report),
        ProcessPoolExecutor(n_workers, context, _start_worker, given) as pool,
    ):
        try:
            with _sigint_ignored():
                futures = [pool.submit(_run_in_worker, job, argument) for argument in arguments]
            _wait(futures, stop, stop_workers)
        finally:
            stop_workers.set()  # a second Ctrl-C leaves the wait with jobs still running
    _raise_errors([future.exception() for future in futures if not future.cancelled()], stop)


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


@contextmanager
def _passing_on(events: multiprocessing.Queue[Any], report: Report) -> Iterator[None]:
    """Report what the workers send; at the end of the block, when they have ended and flushed, what is still there.

    An error of `report` is raised there too: the events are read on all the same, or the workers could not end.
    """
    has_ended = threading.Event()
    errors: list[Exception] = []

    def pass_on() -> None:
        while True:
            try:
                event = events.get(timeout=0.05)
            except queue.Empty:
                if has_ended.is_set():
                    return
                continue
            if not errors:
                try:
                    report(event)
                except Exception as error:
                    errors.append(error)

    pump = threading.Thread(target=pass_on, daemon=True)
    pump.start()
    try:
        yield
    finally:
        has_ended.set()
        pump.join(timeout=30)  # a worker killed in the middle of a message would leave it waiting for the rest
    if errors:
        raise errors[0]


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Start processes that a Ctrl-C in the terminal, which reaches them too, does not kill before they have a job."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _raise_errors(errors: Sequence[BaseException | None], stop: StopFlag) -> None:
    """Raise the first error that a job made; that all were stopped only if none made another error."""
    failures = [error for error in errors if error is not None and not isinstance(error, StopRequestedError)]
    for error in failures:
        if not isinstance(error, BrokenProcessPool):
            raise error
    stop()  # before the rest: a signal to all processes also ends workers, and knows its exit code
    if failures:
        raise PodiumError(
            "a worker process was killed from outside, most often because memory ran out. Run the same command again"
            " to go on, with fewer --jobs or a smaller train.batch_size"
        )
    for stopped in errors:
        if stopped is not None:
            raise stopped


def _start_worker(
    events: multiprocessing.Queue[Any],
    stop_workers: ProcessEvent,
    environment: dict[str, str],
    free_seats: SimpleQueue[dict[str, str]],
) -> None:
    os.environ.clear()
    os.environ.update(environment)  # of now: the process that this one was forked from may have started long ago
    os.environ.update(free_seats.get())
    for number in set(SIGNALS) - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)  # else ignored, as in that process
    _worker.update(events=events, stop=stop_workers, is_orphan=False, is_busy=False)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    """End this worker when its parent was killed: a job saves itself first, at its next look at the stop flag.

    Else it would train on for nobody, and hold the lock of its unit against the next try.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    _worker["is_orphan"] = True
    if not _worker["is_busy"]:
        os._exit(StopRequestedError.exit_code)


def _run_in_worker(job: Callable[[Argument, Report, StopFlag], None], argument: Argument) -> None:
    _worker["is_busy"] = True
    with stop_on_signals(also=lambda: _worker["is_orphan"] or _worker["stop"].is_set()) as stop:
        stop()  # a job that waited in the pool's queue when the stop came
        try:
            job(argument, _worker["events"].put, stop)
        except Exception as error:
            _worker["stop"].set()  # at once, as this worker takes its next job before the parent knows
            if _is_portable(error):
                raise
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        finally:
            _worker["is_busy"] = False
            if _worker["is_orphan"] or stop.signal_number not in (None, signal.SIGINT):
                _leave()


def _leave() -> None:
    """End this worker after its job, instead of waiting for another one.

    A signal to all processes ends idle workers too, and one of them holds the lock that a waiting worker would want.
    """
    if not _worker["is_orphan"]:  # else nobody reads the events
        _worker["events"].close()
        _worker["events"].join_thread()
    os._exit(StopRequestedError.exit_code)


def _is_portable(error: Exception) -> bool:
    """Say whether an error survives the way to the parent process, where it would break the pool otherwise."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
