"""Memory that runs out in a step: batches stay whole, are split finer, in every unit of the run alike."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_units import BUSY, CPU, bits_of, every_step, make_experiment, make_extra, make_unit, same_bits, train_all
from toys import make_toy, train_toy

from pipeline import api
from pipeline.base.errors import PodiumError, StopRequestedError
from pipeline.base.files import read_json, write_json
from pipeline.models.weights import read_weights
from pipeline.records.machine import Machine
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, Unit
from pipeline.stages import crossval
from pipeline.training import predict, train
from pipeline.training import unit as training_unit
from pipeline.training.executors import run_jobs
from pipeline.training.memory import StepMemoryError, finer_split, freed_after, is_out_of_memory, step_memory

NET: dict[str, Any] = {
    "folds": {"n_folds": 2},
    "model": {"name": "cnn3", "width": 4, "dropout": 0.3},
    "augment": {"shift": {"max_px": 1}},
    "mix": {"mixup_alpha": 0.4},
    "optimizer": {"name": "momentum", "lr": 0.05},
    "train": {"epochs": 2, "batch_size": 16},
}
"""32 rows train each of two folds, two steps of 16 in each epoch."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told."""
    lines: list[str] = []
    monkeypatch.setattr(api, "say", lines.append)
    return lines


def small_memory(monkeypatch: pytest.MonkeyPatch, most: int, folds: tuple[int, ...] = (0, 1), text: str = "") -> None:
    """Let memory run out in training passes of more than `most` samples, in the given folds."""
    build = training_unit.build_parts

    def build_small(*args: Any) -> Any:
        parts = build(*args)

        def forward(inputs: torch.Tensor) -> torch.Tensor:
            if len(inputs) > most and args[-1] in folds:
                raise RuntimeError(text) if text else torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return parts.model(inputs)  # type: ignore[no-any-return]

        return replace(parts, forward=forward)

    monkeypatch.setattr(training_unit, "build_parts", build_small)


def toy(root: Path, **net: Any) -> Path:
    return make_toy(root, n_train=64, n_test=8, net=NET | net)


def assert_same_weights(left: Run, right: Run) -> None:
    for unit in left.units():
        a, b = (read_weights(run.unit_folder(unit) / "weights.safetensors")[0] for run in (left, right))
        assert same_bits(a, b)
    a, b = (load_predictions(run.folder / "oof.parquet").values for run in (left, right))
    assert a.tobytes() == b.tobytes()


# -- what is told apart ------------------------------------------------------------------------------------------------


def test_every_way_of_saying_that_memory_ran_out_is_known_and_nothing_else() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**50)
    assert is_out_of_memory(real.value)  # of the allocator of the CPU, as it is
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"))
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**50)
    assert is_out_of_memory(numpys.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(PodiumError("CUDA error: out of memory"))


def test_other_errors_of_a_step_pass_as_they_are() -> None:
    wrong = RuntimeError("shapes cannot be multiplied")

    def work() -> None:
        with step_memory("fold 0", 8, 1):
            raise wrong

    with pytest.raises(RuntimeError) as caught:
        freed_after(work, "fold 0", "cpu")
    assert caught.value is wrong


def test_the_error_holds_no_tensor_of_the_step_that_failed() -> None:
    held: list[Any] = []

    def work() -> None:
        tensor = torch.ones(3)
        cycle = [tensor]
        cycle.append(cycle)  # type: ignore[arg-type]
        held.append(weakref.ref(tensor))
        with step_memory("fold 0", 8, 1):
            raise torch.OutOfMemoryError("no more")

    with pytest.raises(StepMemoryError):
        freed_after(work, "fold 0", "cpu")
    assert held[0]() is None
    with pytest.raises(StepMemoryError) as caught:
        freed_after(work, "fold 0", "cpu")
    assert held[1]() is None
    assert caught.value.__context__ is None


def fail_in_step(number: int, _report: Callable[[Any], None], _stop: Callable[[], None]) -> None:
    raise StepMemoryError("fold 0: memory ran out", n_samples=number, micro_batches=4)


def test_the_error_comes_whole_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(StepMemoryError("here", 8, 2)))
    assert (str(error), error.n_samples, error.micro_batches) == ("here", 8, 2)
    with pytest.raises(StepMemoryError, match=r"^fold 0: memory ran out$") as caught:
        run_jobs(fail_in_step, [8, 8], 2, print)
    assert (caught.value.n_samples, caught.value.micro_batches) == (8, 4)
    assert not multiprocessing.active_children()


# -- how far it goes ---------------------------------------------------------------------------------------------------


def test_micro_batches_are_halved_at_most_four_times_and_to_two_samples() -> None:
    assert [finer_split(StepMemoryError("x", 256, factor), 1) for factor in (1, 2, 4, 8)] == [2, 4, 8, 16]
    with pytest.raises(PodiumError, match=r"about 16 samples, and these are not halved .* Lower train.batch_size"):
        finer_split(StepMemoryError("x", 256, 16), 1)
    assert finer_split(StepMemoryError("x", 16, 1), 4) == 2
    for n_samples, accumulation in ((15, 4), (3, 1), (16, 8)):
        with pytest.raises(PodiumError, match="are not halved again"):
            finer_split(StepMemoryError("x", n_samples, 1), accumulation)


# -- the effective batch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [{}, {"mix": {"mixup_alpha": 0.5}, "sam": {"rho": 0.1}}, {"pseudo": {"labels": "x"}}])
def test_a_finer_split_equals_more_accumulation_in_every_bit(tmp_path: Path, block: dict[str, Any]) -> None:
    ends = []
    for accumulation, factor in ((4, 1), (2, 2), (1, 4)):
        experiment = make_experiment(BUSY, block, {"train": {"accumulation": accumulation}})
        unit, parts = make_unit(experiment)
        unit = replace(unit, unlabelled=make_extra() if "pseudo" in block else None)
        machine = CPU.model_copy(update={"micro_batches": factor})
        train_all(unit, parts, experiment, tmp_path / str(factor), machine)
        ends.append(bits_of(parts))
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole")
    assert not same_bits(ends[0], bits_of(parts))  # batch norm saw the whole batch


def test_a_unit_that_was_begun_with_another_split_starts_again(tmp_path: Path) -> None:
    experiment = make_experiment(BUSY)
    finer = every_step(micro_batches=2)
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole", finer)
    unbroken = bits_of(parts)
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "begun", every_step())
    unit, parts = make_unit(experiment)
    (tmp_path / "begun/epoch-00007.safetensors").touch()  # kept, and later than the new training may end
    events = train_all(unit, parts, experiment, tmp_path / "begun", finer)
    assert not list((tmp_path / "begun").glob("epoch-*"))
    assert len(events) == 1 + 9
    assert same_bits(bits_of(parts), unbroken)


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_in_smaller_micro_batches_as_if_they_had_been_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    by_hand = train_toy(tmp_path, toy(tmp_path), ["train.accumulation=4"], name="by-hand")
    small_memory(monkeypatch, most=4)
    run = train_toy(tmp_path, tmp_path / "configs/multiclass/net.yaml")
    assert_same_weights(run, by_hand)
    assert (run.machine.micro_batches, run.experiment.train.accumulation) == (4, 1)
    assert (by_hand.machine.micro_batches, by_hand.experiment.train.accumulation) == (1, 4)
    notes = [line for line in said if "memory ran out" in line]
    assert ["fold 0: memory ran out in a training step; the run goes on with 2 micro-batches" in notes[0]] == [True]
    assert "with 4 micro-batches in a batch instead of 2." in notes[1]
    assert len(notes) == 2
    markers = [read_json(run.unit_folder(unit) / "done.json")["micro_batches"] for unit in run.units()]
    assert markers == [4, 4]


def test_a_fold_that_was_finished_before_is_trained_anew_so_that_all_are_split_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    by_hand = train_toy(tmp_path, toy(tmp_path), ["train.accumulation=2"], name="by-hand")
    small_memory(monkeypatch, most=8, folds=(1,), text="[enforce fail at alloc_cpu.cpp:1] can't allocate memory")
    run = train_toy(tmp_path, tmp_path / "configs/multiclass/net.yaml")
    assert "note: finished before with larger micro-batches, to be trained anew: fold0-seed0" in said
    assert_same_weights(run, by_hand)


def test_units_that_take_turns_are_split_alike_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    by_hand = train_toy(tmp_path, toy(tmp_path), ["train.accumulation=2"], name="by-hand")
    small_memory(monkeypatch, most=8, folds=(1,))
    run = train_toy(tmp_path, tmp_path / "configs/multiclass/net.yaml", jobs=2, turns=True)
    assert (run.machine.micro_batches, len([line for line in said if "memory ran out" in line])) == (2, 1)
    assert_same_weights(run, by_hand)


def test_a_finished_fold_that_is_not_asked_for_no_longer_counts_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    config = toy(tmp_path)
    train_toy(tmp_path, config, folds=[0])
    small_memory(monkeypatch, most=8, folds=(1,))
    run = train_toy(tmp_path, config, folds=[1])
    assert said[-1].endswith("no longer count until `podium train` makes them anew: fold0-seed0")
    assert run.done_units() == [Unit(1, 0)]
    assert read_json(run.folder / "cv.json")["partial"] == "1 of 2 folds"
    assert (run.unit_folder(Unit(0, 0)) / "heldout.parquet").is_file()  # until it is trained anew
    assert len(train_toy(tmp_path, config).done_units()) == 2


def test_a_run_that_was_stopped_keeps_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    config = toy(tmp_path)
    by_hand = train_toy(tmp_path, config, ["train.accumulation=2"], name="by-hand")
    original, calls = train.train_step, []

    def stop_at_fourth(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # the first one ran out of memory
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        small_memory(patch, most=8)
        patch.setattr(train, "train_step", stop_at_fourth)
        with pytest.raises(StopRequestedError):
            train_toy(tmp_path, config)
    run = Run(tmp_path / "runs/multiclass/net")
    assert run.machine.micro_batches == 2
    assert [path.name for path in run.unit_folder(Unit(0, 0)).glob("*.safetensors")][-1].startswith("checkpoint-00001")
    said.clear()
    run = train_toy(tmp_path, config)  # with all the memory that it wants
    assert not [line for line in said if "memory" in line]
    assert run.machine.micro_batches == 2
    assert_same_weights(run, by_hand)


def test_a_batch_that_never_fits_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    config = toy(tmp_path)
    small_memory(monkeypatch, most=1)
    with pytest.raises(PodiumError, match=r"(?s)of about 2 samples, and these are not halved.*Lower train.batch_size"):
        train_toy(tmp_path, config)
    assert len([line for line in said if line.startswith("note: fold 0: memory")]) == 3  # 8, 4 and 2 samples
    assert Run(tmp_path / "runs/multiclass/net").machine.micro_batches == 8


def test_memory_that_runs_out_in_prediction_is_told_and_not_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def fail(*_args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(predict, "prepare", fail)
    with pytest.raises(
        PodiumError, match=r"fold0-seed0: .* outside of a training step \(CUDA out of memory\.\)\. Lower"
    ):
        train_toy(tmp_path, toy(tmp_path))
    assert Run(tmp_path / "runs/multiclass/net").machine.micro_batches == 1


def test_another_process_that_split_finer_first_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    config = toy(tmp_path)
    by_hand = train_toy(tmp_path, config, ["train.accumulation=2"], name="by-hand")
    original, calls = crossval.train_units, []

    def elsewhere(event: Any) -> None:
        """Change the record as another process would, once fold 0 has begun."""
        if not calls:
            calls.append(event)
            record = read_json(tmp_path / "runs/multiclass/net/run.json")
            write_json(tmp_path / "runs/multiclass/net/run.json", split(record, 2))

    def trained(*args: Any) -> Run:
        return original(*args[:-2], elsewhere, args[-1])

    monkeypatch.setattr(crossval, "train_units", trained)
    run = train_toy(tmp_path, config)
    assert run.machine.micro_batches == 2
    assert_same_weights(run, by_hand)


def test_a_run_from_before_the_record_had_micro_batches_is_whole(tmp_path: Path) -> None:
    config = toy(tmp_path)
    run = train_toy(tmp_path, config)
    record = read_json(run.folder / "run.json")
    del record["machine"]["micro_batches"]
    write_json(run.folder / "run.json", record)
    for unit in run.units():
        marker = read_json(run.unit_folder(unit) / "done.json")
        del marker["micro_batches"]
        write_json(run.unit_folder(unit) / "done.json", marker)
    assert len(Run(run.folder).done_units()) == 2
    assert len(train_toy(tmp_path, config).done_units()) == 2


def split(record: dict[str, Any], factor: int) -> dict[str, Any]:
    return record | {"machine": Machine(**record["machine"]).model_copy(update={"micro_batches": factor}).plain()}
