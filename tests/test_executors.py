import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import DataError, MismatchError, PodiumError, StopRequestedError
from pipeline.base.interrupt import INTERRUPTED, SIGNALS, StopFlag, stop_on_signals
from pipeline.training import executors
from pipeline.training.executors import run_in_turns, run_jobs, start_home


class StubbornError(Exception):
    """Cannot be unpickled: its constructor wants what pickle does not keep."""

    def __init__(self, number, reason):
        super().__init__(f"{number} because {reason}")


def count_up(argument, report, stop):
    name, n = argument
    for number in range(n):
        stop()
        report((name, number, os.getpid()))


def fail_or_wait(argument, report, stop):
    if isinstance(argument, Exception):
        raise argument
    _wait_for_stop(argument, report, stop)


def be_killed_or_wait(argument, report, stop):
    if argument == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)


def fail_stubbornly(argument, report, stop):
    raise StubbornError(argument, "it is so")


def stop_oneself(number, report, stop):
    os.kill(os.getpid(), number)
    report("before")
    stop()
    report("after")


def look_away(number, report, stop):
    report(number)
    os.kill(os.getpid(), number)


def wait_for_stop(argument, report, stop):
    _wait_for_stop(argument, report, stop)


def wait_if_long(argument, report, stop):
    if argument == "long":
        _wait_for_stop(argument, report, stop)
    else:
        report(("ended", argument))


def _wait_for_stop(argument, report, stop):
    report(("started", argument))
    deadline = time.monotonic() + 20
    while not stop.is_set and time.monotonic() < deadline:
        time.sleep(0.01)
    report(("saved", argument))
    stop()


# -- one after another -------------------------------------------------------------------------------------------------


def test_jobs_run_in_order_in_this_process_when_one_at_a_time():
    seen = []
    run_jobs(count_up, [("b", 2), ("a", 1)], 1, seen.append)
    assert seen == [("b", 0, os.getpid()), ("b", 1, os.getpid()), ("a", 0, os.getpid())]


def test_a_single_job_needs_no_process_of_its_own():
    seen = []
    run_jobs(count_up, [("a", 1)], 4, seen.append)
    assert seen == [("a", 0, os.getpid())]


def test_no_jobs_are_no_error():
    run_jobs(count_up, [], 1, print)


def test_an_error_ends_the_sequence_as_it_is():
    seen = []
    with pytest.raises(DataError, match="no such table"):
        run_jobs(fail_or_wait, [DataError("no such table"), "later"], 1, seen.append)
    assert seen == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_the_running_job_where_it_looks_and_no_other_starts(number, code):
    seen = []
    with pytest.raises(StopRequestedError, match="run the same command again") as caught:
        run_jobs(stop_oneself, [number, number], 1, seen.append)
    assert caught.value.exit_code == code
    assert seen == ["before"]


def test_after_a_signal_that_a_job_did_not_look_at_the_next_does_not_start():
    seen = []
    with pytest.raises(StopRequestedError):
        run_jobs(look_away, [signal.SIGTERM, signal.SIGTERM], 1, seen.append)
    assert seen == [signal.SIGTERM]


# -- in turns ----------------------------------------------------------------------------------------------------------


def steps_of(argument, stop):
    """Yield as many steps as are asked for, or up to an error; say what was saved when it was stopped."""
    name, n = argument
    try:
        for number in range(abs(n)):
            if stop.is_set:
                yield f"{name} saved"
                stop()
            yield f"{name}{number}"
        if n < 0:
            raise DataError(f"{name} failed")
    finally:
        closed.append(name)


closed: list[str] = []


def take_turns(arguments, n_at_once, report, is_over=None):
    closed.clear()
    run_in_turns(steps_of, arguments, n_at_once, report, is_over)


def test_jobs_take_turns_and_the_next_begins_when_one_has_ended():
    seen = []
    take_turns([("a", 2), ("b", 1), ("c", 2), ("d", 0)], 2, seen.append)
    assert seen == ["a0", "b0", "a1", "c0", "c1"]
    assert closed == ["b", "a", "d", "c"]
    seen.clear()
    take_turns([("a", 2), ("b", 1)], 1, seen.append)
    assert seen == ["a0", "a1", "b0"]
    take_turns([], 2, print)


def test_an_error_in_its_turn_stops_the_others_in_good_order_and_begins_none():
    seen = []
    with pytest.raises(DataError, match="b failed"):
        take_turns([("a", 9), ("b", -1), ("c", 9)], 2, seen.append)
    assert seen == ["a0", "b0", "a1", "a saved"]
    assert closed == ["b", "a"]


def fails_to_save(argument, stop):
    """Fail at once, or when it was stopped, or stop in good order."""
    if argument == "at once":
        raise DataError("failed at once")
    for _ in range(9):
        yield argument
        if argument == "in saving" and stop.is_set:
            raise DataError("failed in saving")
        stop()


@pytest.mark.parametrize(
    ("jobs", "says"),
    [
        (["in saving", "at once", "fine"], "failed at once"),
        (["fine", "in saving"], "failed in saving"),
        (["fine", "fine"], "stopped as asked"),
    ],
)
def test_the_first_failure_is_told_and_before_it_that_others_were_stopped_never(jobs, says):
    seen = []
    with pytest.raises(PodiumError, match=says):
        run_in_turns(fails_to_save, jobs, 3, seen.append, is_over=lambda: len(seen) > 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_all_whose_turn_it_would_be(number, code):
    seen = []

    def report(made):
        seen.append(made)
        if made == "b1":
            os.kill(os.getpid(), number)

    with pytest.raises(StopRequestedError) as caught:
        take_turns([("a", 9), ("b", 9), ("c", 9)], 2, report)
    assert caught.value.exit_code == code
    assert seen == ["a0", "b0", "a1", "b1", "a saved", "b saved"]


def test_the_end_of_the_time_stops_turns_also_between_jobs():
    seen = []
    with pytest.raises(StopRequestedError):
        take_turns([(name, 1) for name in "abcdef"], 1, seen.append, is_over=lambda: len(seen) == 3)
    assert seen == ["a0", "b0", "c0"]
    assert closed == ["a", "b", "c"]


def test_a_job_is_begun_when_its_first_turn_comes_so_that_an_error_in_opening_opens_no_other():
    begun = []

    def begin(argument, stop):
        def steps():
            begun.append(argument)
            if argument == "a":
                raise DataError("a cannot be opened")
            yield argument

        return steps()

    with pytest.raises(DataError, match="a cannot be opened"):
        run_in_turns(begin, ["a", "b", "c"], 3, print)
    assert begun == ["a"]


def test_a_failure_in_its_turn_keeps_nothing_of_the_others():
    held = []

    def begin(argument, stop):
        def steps():
            model = np.zeros(3)
            held.append(weakref.ref(model))
            for _ in range(3):
                yield argument
                stop()
                if argument == "b":
                    raise DataError("b failed")
            print(model)

        return steps()

    gc.disable()
    try:
        with pytest.raises(DataError):
            run_in_turns(begin, ["a", "b", "c"], 3, lambda _: None)
        assert [model() is None for model in held] == [True] * 3
    finally:
        gc.enable()


def test_what_breaks_off_the_turns_leaves_no_job_open():
    seen = []

    def report(made):
        seen.append(made)
        if made == "b1":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:  # whose traceback would keep them
        take_turns([("a", 9), ("b", 9)], 2, report)
    assert sorted(closed) == ["a", "b"]
    assert caught.tb is not None


# -- the flag ----------------------------------------------------------------------------------------------------------


def test_handlers_are_restored_also_after_an_error():
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    before = [signal.getsignal(number) for number in numbers]
    with contextlib.suppress(KeyError), stop_on_signals():
        assert all(signal.getsignal(number) != old for number, old in zip(numbers, before, strict=True))
        raise KeyError
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_ctrl_c_interrupts_at_once_but_not_one_after_another_signal():
    with stop_on_signals() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_flag_raises_only_when_set_here_or_at_its_other_source():
    event = threading.Event()
    flag = StopFlag(event.is_set)
    flag()
    assert not flag.is_set
    event.set()
    assert flag.is_set
    with pytest.raises(StopRequestedError) as caught:
        flag()
    assert caught.value.exit_code == 75


def test_outside_of_the_main_thread_the_flag_works_without_handlers():
    before = signal.getsignal(signal.SIGTERM)

    def inside():
        with stop_on_signals(also=lambda: True) as flag:
            return flag.is_set, signal.getsignal(signal.SIGTERM) == before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == (True, True)


# -- in processes ------------------------------------------------------------------------------------------------------


def test_every_event_of_every_process_arrives_and_in_order_per_job():
    seen = []
    run_jobs(count_up, [(name, 400) for name in "abc"], 2, seen.append)
    assert len(seen) == 1200
    for name in "abc":
        assert [number for job, number, _ in seen if job == name] == list(range(400))
    assert os.getpid() not in {process for _, _, process in seen}


def test_jobs_run_in_processes_from_another_thread_too():
    seen = []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run_jobs, count_up, [("a", 1), ("b", 1)], 2, seen.append).result()
    assert sorted(name for name, _, _ in seen) == ["a", "b"]


def test_an_error_stops_the_others_in_good_order_and_is_raised_with_type_and_message():
    seen = []
    jobs = ["x", MismatchError("ids differ: 7"), "never", "never", "never"]
    with pytest.raises(MismatchError, match=r"^ids differ: 7$"):
        run_jobs(fail_or_wait, jobs, 2, seen.append)
    assert "never" not in {name for _, name in seen}
    assert [what for what, name in seen if name == "x"] in (["started", "saved"], [])


def test_an_error_that_cannot_travel_is_told_by_its_name_and_message():
    with pytest.raises(RuntimeError, match="StubbornError: 3 because it is so"):
        run_jobs(fail_stubbornly, [3, 3], 2, print)


def test_a_killed_worker_is_a_message_about_memory():
    with pytest.raises(PodiumError, match=r"a worker process was killed from outside.*memory ran out"):
        run_jobs(be_killed_or_wait, ["killed", "other"], 2, print)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_lets_every_running_process_save_itself_and_gives_the_exit_code(number, code):
    seen = []

    def report(event):
        seen.append(event)
        if len(seen) == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(StopRequestedError) as caught:
        run_jobs(wait_for_stop, ["a", "b", "c", "d"], 2, report)
    assert caught.value.exit_code == code
    started = {name for what, name in seen if what == "started"}
    assert started == {"a", "b"}
    assert started == {name for what, name in seen if what == "saved"}


def test_a_ctrl_c_that_reaches_idle_workers_too_is_a_stop_without_a_traceback(capfd):
    seen = []

    def report(event):
        seen.append(event)
        if {("started", "long"), ("ended", "short")} == set(seen):
            time.sleep(0.2)  # the worker of the short job waits for another one
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StopRequestedError) as caught:
        run_jobs(wait_if_long, ["long", "short"], 2, report)
    assert caught.value.exit_code == INTERRUPTED
    assert seen[-1] == ("saved", "long")
    assert capfd.readouterr().err == ""


def be_stopped_with_all_workers(number):
    seen = []

    def report(event):
        seen.append(event)
        if {("started", "long"), ("ended", "short")} == set(seen):
            time.sleep(0.5)  # the worker of the short job waits for another one
            for child in multiprocessing.active_children():
                os.kill(child.pid, number)
            os.kill(os.getpid(), number)

    try:
        run_jobs(wait_if_long, ["long", "short"], 2, report)
    except StopRequestedError as error:
        os._exit(error.exit_code if seen[-1] == ("saved", "long") else 99)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_ends_it_though_an_idle_worker_dies_of_it(number):
    process = multiprocessing.get_context("spawn").Process(target=be_stopped_with_all_workers, args=(number,))
    process.start()
    process.join(60)
    is_hanging = process.is_alive()
    process.kill()
    assert not is_hanging
    assert process.exitcode == 75


def tell_environment(name, report, stop):
    report((os.getpid(), os.environ.get(name)))


def test_workers_have_the_environment_of_now_and_not_of_when_their_home_started(monkeypatch):
    for value in ("first", "second", None):
        if value is None:
            monkeypatch.delenv("PODIUM_TEST_OF_WORKERS")
        else:
            monkeypatch.setenv("PODIUM_TEST_OF_WORKERS", value)
        seen = []
        run_jobs(tell_environment, ["PODIUM_TEST_OF_WORKERS"] * 2, 2, seen.append)
        assert [found for _, found in seen] == [value, value]


def meet_and_tell(argument, report, stop):
    folder, n_workers, name = argument
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) < n_workers and time.monotonic() < deadline:
        time.sleep(0.01)
    report((os.getpid(), os.environ.get(name)))


def test_each_process_keeps_a_seat_and_they_are_taken_in_turns(tmp_path, monkeypatch):
    name = "PODIUM_TEST_OF_SEATS"
    monkeypatch.setenv(name, "mine")
    seen = []
    seats = [{name: "left"}, {name: "right"}]
    run_jobs(meet_and_tell, [(tmp_path, 3, name)] * 7, 3, seen.append, seats=seats)
    assert len(seen) == 7
    assert sorted(dict(seen).values()) == ["left", "left", "right"]
    assert len(set(seen)) == 3
    assert os.environ[name] == "mine"


def test_where_there_is_no_home_every_worker_starts_afresh(monkeypatch):
    monkeypatch.setattr(executors, "_HAS_HOME", False)
    assert start_home().get_start_method() == "spawn"
    seen = []
    run_jobs(count_up, [("a", 2), ("b", 2)], 2, seen.append)
    assert sorted((name, number) for name, number, _ in seen) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.mark.parametrize("number", SIGNALS)
def test_no_signal_ends_the_process_that_workers_are_forked_from(number):
    start_home()
    run_jobs(count_up, [("a", 1), ("b", 1)], 2, print)  # it has done its imports
    home = forkserver._forkserver._forkserver_pid
    os.kill(home, number)
    seen = []
    run_jobs(count_up, [("a", 1), ("b", 1)], 2, seen.append)
    assert len(seen) == 2
    assert forkserver._forkserver._forkserver_pid == home
    assert is_running(home)


def test_an_error_of_the_display_is_raised_and_hangs_nothing():
    def report(event):
        raise ValueError("the screen is gone")

    with pytest.raises(ValueError, match="the screen is gone"):
        run_jobs(count_up, [("a", 5000), ("b", 5000)], 2, report)


def hold_on(path, report, stop):
    path.write_text(str(os.getpid()))
    while not stop.is_set:
        time.sleep(0.02)
    stop()


def run_and_be_killed(paths):
    run_jobs(hold_on, paths, 2, lambda event: None)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    parent = multiprocessing.get_context("spawn").Process(target=run_and_be_killed, args=(paths,))
    parent.start()
    wait_until(lambda: all(path.exists() and path.read_text() for path in paths))
    workers = [int(path.read_text()) for path in paths]
    parent.kill()
    parent.join()
    wait_until(lambda: not any(is_running(worker) for worker in workers))


def wait_until(holds, most_sec=30):
    end = time.monotonic() + most_sec
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
