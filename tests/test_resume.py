import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from toy_units import BUSY, CPU, bits_of, every_step, make_experiment, make_unit, same_bits, train_all
from toys import make_toy, train_toy

from pipeline.__main__ import main
from pipeline.base.errors import MismatchError, StopRequestedError
from pipeline.base.interrupt import StopFlag
from pipeline.models.weights import read_weights
from pipeline.records.predictions import load_predictions
from pipeline.training import scoring, train
from pipeline.training import unit as training_unit
from pipeline.training.state import final_weights
from pipeline.training.train import train_unit


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def history_without_seconds(path):
    lines = [line.split(",") for line in path.read_text().splitlines()]
    place = lines[0].index("seconds")
    return [line[:place] + line[place + 1 :] for line in lines]


# -- the iterator, in this process -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["last", "best", "ema"])
@pytest.mark.parametrize("n_steps", [1, 3, 5], ids=["inside the first epoch", "between epochs", "inside the second"])
def test_a_resumed_unit_equals_an_unbroken_one_bitwise(tmp_path, weights, n_steps):
    experiment = make_experiment(BUSY, {"train": {"weights": weights}})
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole")
    unbroken = bits_of(parts) | final_weights(tmp_path / "whole", parts, weights)

    broken = tmp_path / "broken"
    broken.mkdir()
    _, parts = make_unit(experiment)
    steps = train_unit(unit, parts, experiment, every_step(), broken, StopFlag())
    for _ in range(n_steps + 1):  # the first event starts the clock
        next(steps)
    steps.close()
    _, parts = make_unit(experiment)
    torch.manual_seed(n_steps)  # what the global generator holds must not matter
    events = train_all(unit, parts, experiment, broken)
    assert (events[0].epoch, len(events) - 1) == (n_steps // 3, 9 - n_steps)
    assert same_bits(unbroken, bits_of(parts) | final_weights(broken, parts, weights))
    assert history_without_seconds(broken / "history.csv") == history_without_seconds(tmp_path / "whole/history.csv")


@pytest.mark.parametrize("name", ["adamw", "lamb", "adan"])
def test_other_optimizers_resume_bitwise_too(tmp_path, name):
    experiment = make_experiment(BUSY, {"optimizer": {"name": name, "lr": 0.01, "weight_decay": 0.01}})
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole")
    unbroken = bits_of(parts)
    (tmp_path / "broken").mkdir()
    _, parts = make_unit(experiment)
    steps = train_unit(unit, parts, experiment, every_step(), tmp_path / "broken", StopFlag())
    for _ in range(6):
        next(steps)
    steps.close()
    _, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "broken")
    assert same_bits(unbroken, bits_of(parts))


def test_a_unit_that_had_ended_yields_no_step_and_writes_its_history_again(tmp_path):
    experiment = make_experiment(BUSY)
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path)
    unbroken = bits_of(parts)
    before = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").unlink()
    _, parts = make_unit(experiment)
    assert len(train_all(unit, parts, experiment, tmp_path)) == 1
    assert same_bits(unbroken, bits_of(parts))
    assert (tmp_path / "history.csv").read_text() == before


def test_a_stop_inside_an_epoch_saves_the_step_that_was_done(tmp_path):
    experiment = make_experiment(BUSY)
    unit, parts = make_unit(experiment)
    stop = StopFlag()
    steps = train_unit(unit, parts, experiment, CPU, tmp_path, stop)
    next(steps), next(steps)
    stop.signal_number = signal.SIGTERM
    with pytest.raises(StopRequestedError, match="run the same command again"):
        next(steps)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["checkpoint-00000-0000002.safetensors"]


def test_a_stop_while_the_fold_is_scored_loses_no_step(tmp_path, monkeypatch):
    experiment = make_experiment(BUSY)
    unit, parts = make_unit(experiment)
    stop = StopFlag()

    def stopped(*_args):
        stop.signal_number = signal.SIGTERM
        stop()

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "predict_logits", stopped)
        with pytest.raises(StopRequestedError):
            list(train_unit(unit, parts, experiment, CPU, tmp_path, stop))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["checkpoint-00000-0000003.safetensors"]
    _, resumed = make_unit(experiment)
    train_all(unit, resumed, experiment, tmp_path)
    _, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole")
    assert same_bits(bits_of(parts), bits_of(resumed))


# -- the command -------------------------------------------------------------------------------------------------------

NET = {
    "folds": {"n_folds": 2},
    "model": {"name": "cnn3", "width": 4, "dropout": 0.3},
    "augment": {"shift": {"max_px": 1}, "affine": {"max_rotate_deg": 10.0}},
    "optimizer": {"name": "momentum", "lr": 0.05},
    "ema": {"decay": 0.9},
    "train": {"epochs": 3, "batch_size": 10, "accumulation": 2, "weights": "ema", "precision": "fp32"},
}
"""30 rows train each of two folds: 3 steps in each of 3 epochs, 18 steps in all."""
TRAIN = ["train", "configs/multiclass/net.yaml", "--device", "cpu", "--threads", "1", "--show", "quiet"]
OFTEN = [*TRAIN, "--checkpoint-minutes", "0"]


def workspace(root, **more):
    make_toy(root, n_train=60, n_test=12, net=NET | more)
    return root


def podium(root, arguments, monkeypatch):
    """Run a command in this process as `podium` does; return its exit code."""
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code


def run_folder(root):
    return root / "runs" / "multiclass" / "net"


def files_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".png")


def assert_same_run(left, right):
    """Weights, predictions and histories of two finished runs are equal in every bit but for times."""
    units = sorted(path.name for path in (left / "units").iterdir())
    assert units == sorted(path.name for path in (right / "units").iterdir()) == ["fold0-seed0", "fold1-seed0"]
    for unit in units:
        one, two = left / "units" / unit, right / "units" / unit
        assert same_bits(read_weights(one / "weights.safetensors")[0], read_weights(two / "weights.safetensors")[0])
        assert history_without_seconds(one / "history.csv") == history_without_seconds(two / "history.csv")
        assert files_of(one) == files_of(two)
    for name in ["oof", "test"] + [f"units/{unit}/{kind}" for unit in units for kind in ("heldout", "test")]:
        a, b = (load_predictions(folder / f"{name}.parquet") for folder in (left, right))
        assert a.ids.tolist() == b.ids.tolist()
        assert a.values.tobytes() == b.values.tobytes()
    assert (left / "cv.json").read_text() == (right / "cv.json").read_text()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    root = workspace(tmp_path_factory.mktemp("unbroken"))
    return train_toy(root, root / "configs/multiclass/net.yaml").folder


# Runs in a process of its own that has imported everything but never computed, so that it may fork; each child is
# killed where the fault says, with a signal that nobody can catch.
KILLER = """
import os, signal, sys

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def at_call(function, number, then):
    seen = [0]
    def wrapped(*args, **kwargs):
        seen[0] += 1
        return then(*args, **kwargs) if seen[0] == number else function(*args, **kwargs)
    return wrapped

def in_step(number):
    "Inside a step: gradients are there, new weights are not."
    from pipeline.training import scoring, train
    train.nn.utils.clip_grad_norm_ = die
    import torch
    torch.optim.SGD.step = at_call(torch.optim.SGD.step, number, die)

def between_epochs(number):
    "After the checkpoint that ends an epoch, before its history."
    from pipeline.training import scoring, train
    train.write_history = at_call(train.write_history, number, die)

def in_write(number):
    "While a checkpoint is written: half of the tensors are on the disk."
    from pipeline.models import weights
    def half(tensors, path, **_more):
        path.write_bytes(b"x" * 100)
        die()
    weights.save_file = at_call(weights.save_file, number, half)

def before_json(number):
    "While a checkpoint is written: the tensors are whole and their JSON is not there yet."
    from pipeline.models import weights
    weights.write_json = at_call(weights.write_json, number, die)

from pipeline.__main__ import main
import pandas, sklearn.metrics, torch._dynamo, pipeline.stages.crossval  # once, instead of in each child
for fault in sys.argv[1].split(","):
    name, number = fault.split(":")
    child = os.fork()
    if child == 0:
        globals()[name](int(number))
        main(sys.argv[2:])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(name, os.WTERMSIG(status) if os.WIFSIGNALED(status) else f"not killed: {status}", flush=True)
"""


def test_a_run_killed_at_random_moments_ends_like_an_unbroken_one_bitwise(tmp_path, monkeypatch, unbroken):
    root = workspace(tmp_path)
    draw = random.Random(time.time_ns())
    # The counts begin anew in each child, and each child gets at least as far as the one before.
    faults = f"in_step:{draw.choice([2, 3])},between_epochs:1,in_write:{draw.choice([1, 2, 3])}"
    faults += f",in_step:{draw.choice([2, 3, 5])},before_json:{draw.choice([1, 2])}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLER, faults, *OFTEN, "--jobs", "1"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.findall(r" (.+)", done.stdout) == ["9"] * 5, f"{faults}\n{done.stdout}{done.stderr}"
    assert podium(root, [*OFTEN, "--jobs", "1"], monkeypatch) == 0
    assert_same_run(run_folder(root), unbroken)


@pytest.mark.slow
def test_a_run_killed_from_outside_again_and_again_ends_like_an_unbroken_one_bitwise(tmp_path, monkeypatch, unbroken):
    root = workspace(tmp_path)
    draw = random.Random(time.time_ns())
    n_killed, start_sec = 0, 0.0
    for attempt in count():
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "pipeline", *OFTEN, "--jobs", "2"], cwd=root)
        while not start_sec:  # the first time killed as soon as a unit is begun, later around that moment and after it
            assert process.poll() is None, "ended before a unit was begun"
            start_sec = (time.monotonic() - began) * any((run_folder(root) / "units").glob("*/*"))
            time.sleep(0.01)
        seconds = 0.0 if attempt == 0 else start_sec + draw.uniform(-0.5, 2.0) + 0.3 * attempt
        try:
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            n_killed += 1
            time.sleep(1.0)  # workers notice that their parent is gone
    assert process.returncode == 0
    assert n_killed >= 1
    assert_same_run(run_folder(root), unbroken)


def stopping(number, at_call):
    """Return `train_step` that sends this process a signal at the given call."""
    original, calls = train.train_step, count(1)

    def step(*args):
        if next(calls) == at_call:
            os.kill(os.getpid(), number)
        return original(*args)

    return step


def test_sigterm_and_ctrl_c_save_say_how_to_go_on_and_exit_75_and_130(tmp_path, monkeypatch, capsys, unbroken):
    root = workspace(tmp_path)
    for number, at_call, code, saved in ((signal.SIGTERM, 2, 75, (0, 2)), (signal.SIGINT, 3, 130, (1, 2))):
        with monkeypatch.context() as patch:
            patch.setattr(train, "train_step", stopping(number, at_call))
            assert podium(root, [*TRAIN, "--jobs", "1"], patch) == code
        assert "podium: stopped as asked; run the same command again to go on" in capsys.readouterr().err
        files = sorted((run_folder(root) / "units/fold0-seed0").glob("*.safetensors"))
        assert files[-1].name == "checkpoint-{:05d}-{:07d}.safetensors".format(*saved)
    assert podium(root, [*TRAIN, "--jobs", "1"], monkeypatch) == 0
    assert_same_run(run_folder(root), unbroken)


@pytest.mark.slow
def test_units_side_by_side_end_like_one_after_another_bitwise(tmp_path, monkeypatch, unbroken):
    root = workspace(tmp_path)
    assert podium(root, [*TRAIN, "--jobs", "2"], monkeypatch) == 0
    assert_same_run(run_folder(root), unbroken)


def test_units_that_take_turns_end_like_one_after_another_bitwise(tmp_path, monkeypatch, unbroken):
    root = workspace(tmp_path)
    step, predict, seen, n_threads = train.train_step, training_unit.predict_unit, [], []
    monkeypatch.setattr(train, "train_step", lambda parts, *args: (seen.append(id(parts)), step(parts, *args))[1])
    monkeypatch.setattr(
        training_unit, "predict_unit", lambda *args: (n_threads.append(torch.get_num_threads()), predict(*args))[1]
    )
    torch.set_num_threads(2)
    assert podium(root, [*TRAIN, "--jobs", "2", "--turns", "--threads", "1"], monkeypatch) == 0
    assert len(seen) == 18
    assert len(set(seen)) == 2
    assert all(one != other for one, other in pairwise(seen))
    assert n_threads == [1] * 4  # also for the second, when the first has ended
    assert_same_run(run_folder(root), unbroken)


def test_units_that_take_turns_all_save_themselves_when_they_are_stopped(tmp_path, monkeypatch, unbroken):
    root = workspace(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", stopping(signal.SIGTERM, 3))
        assert podium(root, [*TRAIN, "--jobs", "2", "--turns", "--threads", "1"], patch) == 75
    for unit, saved in (("fold0-seed0", 2), ("fold1-seed0", 2)):
        files = sorted((run_folder(root) / "units" / unit).glob("*.safetensors"))
        assert [file.name for file in files] == [f"checkpoint-00000-{saved:07d}.safetensors"]
    assert podium(root, [*TRAIN, "--jobs", "1"], monkeypatch) == 0
    assert_same_run(run_folder(root), unbroken)


def test_a_finished_unit_is_never_trained_again(tmp_path, monkeypatch, capsys):
    root = workspace(tmp_path)
    assert podium(root, [*TRAIN, "--folds", "1"], monkeypatch) == 0
    assert "1 of 2 folds" in capsys.readouterr().out
    unit = run_folder(root) / "units/fold1-seed0"
    before = {path.name: path.stat().st_mtime_ns for path in unit.iterdir() if path.name != ".lock"}

    steps = count(1)
    original = train.train_step
    monkeypatch.setattr(train, "train_step", lambda *args: (next(steps), original(*args))[1])
    assert podium(root, TRAIN, monkeypatch) == 0
    assert next(steps) == 10  # nine steps, those of fold 0
    assert {path.name: path.stat().st_mtime_ns for path in unit.iterdir() if path.name != ".lock"} == before
    out = capsys.readouterr().out
    assert "of 2 folds" not in out

    monkeypatch.setattr(train, "train_step", None)
    assert podium(root, TRAIN, monkeypatch) == 0
    assert capsys.readouterr().out == out


def test_another_config_or_machine_under_the_same_name_is_refused_with_the_difference(tmp_path):
    root = workspace(tmp_path)
    config = root / "configs/multiclass/net.yaml"
    train_toy(root, config, folds=[0])
    with pytest.raises(MismatchError, match=r"(?s)another config:.*optimizer\.lr: 0\.05 -> 0\.1.*--name NEW"):
        train_toy(root, config, ["optimizer.lr=0.1"], name="net")
    with pytest.raises(MismatchError, match=r"another machine setting .*threads: 1 -> 2"):
        train_toy(root, config, threads=2)
