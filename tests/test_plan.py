"""What a training will take: the sums by hand, the probe on toys of every option, the verdict on a quota."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_memory import small_memory
from toy_units import make_experiment
from toys import make_toy, train_toy

from pipeline import api
from pipeline.__main__ import main
from pipeline.augment.resize import grown_size
from pipeline.base.errors import ConfigError, PodiumError
from pipeline.base.interrupt import StopFlag
from pipeline.records.machine import Machine
from pipeline.records.runs import Unit
from pipeline.stages import plan as plan_stage
from pipeline.stages.budget import Cost, parse_duration, step_seconds
from pipeline.stages.plan import Plan
from pipeline.stages.plan_table import plan_lines
from pipeline.training import peak, probe, train, trial_steps
from pipeline.training.peak import MemoryLine, forget_peak, largest_that_fits, peak_bytes, used_bytes
from pipeline.training.phases import Phase, Steps, cost_of, phases_of, to_be_measured
from pipeline.training.probe import Probed, ProbeJob
from pipeline.training.sam import is_sam_step
from pipeline.training.unit import UnitJob

PLAIN = Phase(False, False, False, None)
RICH: dict[str, Any] = {
    "folds": {"n_folds": 2},
    "input": {"size": 16, "gradual": {"start_frac": 0.5, "full_epoch": 2, "step_px": 1}},
    "model": {"name": "cnn3", "width": 4, "dropout": 0.2},
    "augment": {"shift": {"max_px": 1}, "flip": {}},
    "mix": {"mixup_alpha": 0.4},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "sam": {"rho": 0.05, "every": 2, "start_epoch": 1},
    "ema": {"decay": 0.9},
    "consistency": {"strong": {"flip": {}}, "start_epoch": 2, "ratio": 1.0},
    "train": {"epochs": 4, "batch_size": 16, "weights": "ema", "freeze": {"layers": ["backbone"], "n_epochs": 1}},
    "predict": {"views": ["identity", "horizontal"]},
}
"""Every option that changes what a step costs along the way; 32 rows train each of two folds, two steps an epoch."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(root: Path, overrides: tuple[str, ...] = (), **more: Any) -> Plan:
    settings = {"device": "cpu", "jobs": 1, "threads": 1, "seconds": 0.0, "root": root}
    return api.plan(root / "configs/multiclass/net.yaml", overrides, **(settings | more))


def toy(root: Path, net: dict[str, Any] | None = None) -> Path:
    return make_toy(root, n_train=64, n_test=12, net={"folds": {"n_folds": 2}} | (net or {}))


def files_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


# -- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("9h", 32400), ("45m", 2700), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1H2M3S", 3723)]
)
def test_durations_are_read_as_they_are_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "9", "h", "9 hours", "-1h", "0m", "30m1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--quota .*: expected a duration such as 9h, 45m or 1h30m"):
        parse_duration(text)


def test_a_run_costs_its_rounds_of_units() -> None:
    cost = Cost(preparation=7.0, opening=2.0, epochs=(10.0, 20.0), prediction=5.0, n_units=5, n_parallel=2, at_once=2)
    assert cost.unit == 2 + 30 + 5
    assert cost.n_rounds == 3
    assert cost.run == 7 + 3 * 37
    assert replace(cost, n_units=0).run == 0
    assert [cost.units_within(seconds) for seconds in (0, 43, 44, 81, 118, 1e6)] == [0, 0, 2, 4, 5, 5]


def test_units_that_take_turns_end_together() -> None:
    cost = Cost(preparation=0.0, opening=0.0, epochs=(10.0,), prediction=0.0, n_units=5, n_parallel=3, at_once=2)
    assert cost.run == 25  # three in 15 s, two in 10
    assert [cost.units_within(seconds) for seconds in (14, 15, 24, 25)] == [0, 3, 3, 5]


@pytest.mark.parametrize("n_parallel", [1, 2, 3, 5])
def test_the_epochs_that_fit_fit_and_one_more_would_not(n_parallel: int) -> None:
    cost = Cost(
        preparation=7.0,
        opening=2.0,
        epochs=(10.0,) * 8,
        prediction=5.0,
        n_units=5,
        n_parallel=n_parallel,
        at_once=min(2, n_parallel),
    )
    for quota in (10.0, 60.0, 100.5, 333.3):
        n = cost.epochs_within(quota)
        assert n == 0 or replace(cost, epochs=(10.0,) * n).run <= quota
        assert replace(cost, epochs=(10.0,) * (n + 1)).run > quota


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"sam": {"rho": 0.1, "every": 3, "start_epoch": 2}},
        {"train": {"freeze": {"layers": ["backbone"], "n_epochs": 2}}, "sam": {"rho": 0.1}},
        {"input": {"gradual": {"full_epoch": 4, "step_px": 2}}, "pseudo": {"labels": "x", "start_epoch": 1}},
    ],
)
def test_phases_hold_every_step_of_a_training_once(block: dict[str, Any]) -> None:
    experiment = make_experiment({"train": {"epochs": 6}}, block)
    shape, n_steps = (1, 16, 24), 7
    found = phases_of(experiment, shape, n_steps)
    counted: dict[tuple[Any, ...], int] = {}
    for epoch in range(6):
        for step in range(n_steps):
            freeze, gradual, pseudo = experiment.train.freeze, experiment.input.gradual, experiment.pseudo
            key = (
                epoch,
                experiment.sam is not None and is_sam_step(experiment.sam, epoch, epoch * n_steps + step),
                pseudo is not None and epoch >= pseudo.start_epoch,
                freeze is not None and freeze.n_epochs is not None and epoch < freeze.n_epochs,
                grown_size(gradual, (16, 24), epoch) if gradual else None,
            )
            counted[key] = counted.get(key, 0) + 1
    seen = {
        (epoch, phase.is_sam, phase.has_unlabelled, phase.is_frozen, phase.size): n
        for phase, steps in found.items()
        for epoch, n in steps.by_epoch.items()
    }
    assert seen == counted
    for phase, steps in found.items():
        for epoch, step in steps.places:
            is_sam = experiment.sam is not None and is_sam_step(experiment.sam, epoch, epoch * n_steps + step)
            assert is_sam == phase.is_sam
            assert epoch in steps.by_epoch


def test_of_growing_images_the_ends_are_measured_and_the_rest_lies_between_by_pixels() -> None:
    sizes = [(4, 4), (6, 6), (8, 8)]
    phases = {replace(PLAIN, size=size): Steps({epoch: 5}) for epoch, size in enumerate(sizes)}
    phases[Phase(True, False, False, (8, 8))] = Steps({2: 1})
    ends = to_be_measured(phases)
    assert [(phase.is_sam, phase.size) for phase in ends] == [(False, (4, 4)), (False, (8, 8)), (True, (8, 8))]
    measured = dict(zip(ends, (1.0, 4.0, 9.0), strict=True))
    assert cost_of(replace(PLAIN, size=(6, 6)), measured) == pytest.approx(1 + 3 * (36 - 16) / (64 - 16))
    assert step_seconds(phases, measured, 3) == pytest.approx([5, 5 * 2.25, 20 + 9])


def test_memory_is_drawn_on_as_a_line_and_never_beyond_the_data() -> None:
    line = MemoryLine((64, 1000), (128, 1640))
    assert line.per_sample == 10
    assert line.most(2000, 10_000) == 128 + 36
    assert line.most(1640, 10_000) == 128
    assert line.most(1e9, 10_000) == 10_000
    assert line.most(100, 10_000) == 0
    assert MemoryLine((64, 1000), (128, 1000)).most(1500, 777) == 777  # no rise that could be measured
    assert MemoryLine((64, 1000), (128, 900)).per_sample == 0
    assert MemoryLine((1, 1000), (1, 1000)).per_sample == 0


@pytest.mark.parametrize("limit", [8, 9, 15, 16, 17, 100, 640, 1000, 5000])
@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_the_largest_batch_is_found_to_a_sixteenth(limit: int, kind: type[Exception]) -> None:
    tried = []

    def attempt(n: int) -> None:
        tried.append(n)
        if n > limit:
            raise kind("DefaultCPUAllocator: can't allocate memory")

    found = largest_that_fits(attempt, 8, 1000)
    assert min(limit, 1000) * 16 / 17 - 1 <= found <= min(limit, 1000)
    assert len(tried) < 16
    assert max(tried, default=8) <= 1000


def test_another_error_of_a_trial_is_not_taken_for_missing_memory() -> None:
    def attempt(n: int) -> None:
        raise ValueError("odd size")

    with pytest.raises(ValueError, match="odd size"):
        largest_that_fits(attempt, 8, 1000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_the_peak_of_this_process_is_that_of_what_was_done_since() -> None:
    forget_peak("cpu")
    before = used_bytes("cpu")
    block = mmap.mmap(-1, 2**27)  # not of the allocator, which keeps freed memory once the command has run here
    np.frombuffer(block, np.uint8)[:] = 1
    assert peak_bytes("cpu") - before > 100 * 2**20
    block.close()
    forget_peak("cpu")
    assert peak_bytes("cpu") - before < 60 * 2**20
    assert peak.free_bytes("cpu") is not None


# -- the probe ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_step_is_tried_as_training_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(tmp_path, RICH)
    passes: list[int] = []
    seen: list[tuple[int, bool, int, bool, tuple[int, ...]]] = []
    original, backward = trial_steps.train_step, train.backward

    def counted(*args: Any) -> Any:
        passes.append(1)
        return backward(*args)

    def step(parts: Any, experiment: Any, machine: Any, batch: Any, at: Any) -> Any:
        passes.clear()
        out = original(parts, experiment, machine, batch, at)
        is_frozen = not all(weight.requires_grad for weight in parts.model.parameters())
        seen.append((at.epoch, len(passes) == 2, len(batch.inputs), is_frozen, tuple(batch.inputs.shape[2:])))
        return out

    monkeypatch.setattr(train, "backward", counted)
    monkeypatch.setattr(trial_steps, "train_step", step)
    found = plan(tmp_path)
    kinds = {Phase(is_sam, n == 32, is_frozen, size) for _, is_sam, n, is_frozen, size in seen[4:]}
    assert kinds == set(found.phases) == set(to_be_measured(phases_of(found.config.experiment, (1, 16, 16), 2)))
    assert len(found.phases) >= 5
    # Memory first, at the heaviest: full size, two passes, everything moves; half a batch and all of it, twice each.
    # Beside 8 and 16 labelled rows as many without labels.
    assert [(is_sam, n, size) for _, is_sam, n, _, size in seen[:4]] == [(True, n, (16, 16)) for n in (16, 16, 32, 32)]
    assert not any(is_frozen for _, _, _, is_frozen, _ in seen[:4])
    assert all(seconds > 0 for seconds in found.phases.values())


def test_a_plan_is_the_sum_of_what_was_measured(tmp_path: Path) -> None:
    toy(tmp_path, RICH)
    found = plan(tmp_path)
    (probed,), cost = found.probes, found.cost
    kinds = phases_of(found.config.experiment, (1, 16, 16), 2)
    steps = step_seconds(kinds, found.phases, 4)
    each = probed.n_heldout * probed.score_item_sec + probed.checkpoint_sec
    assert cost.epochs == pytest.approx([seconds + each for seconds in steps])
    assert cost.prediction == pytest.approx((32 + 12) * probed.predict_item_sec)
    assert (cost.n_units, cost.n_parallel, probed.n_steps, probed.batch, probed.n_samples) == (2, 1, 2, 16, 32)
    assert found.images_per_sec == pytest.approx(4 * 32 / sum(steps))
    assert probed.peak >= probed.memory.large[1] > 0
    assert probed.largest is None or 0 < probed.largest <= 32


def test_nothing_is_written_to_runs_and_a_run_that_was_begun_stays_as_it_is(tmp_path: Path) -> None:
    config = toy(tmp_path)
    plan(tmp_path)
    assert not (tmp_path / "runs").exists()
    train_toy(tmp_path, config, folds=[1])
    before = files_of(tmp_path / "runs")
    found = plan(tmp_path)
    assert (found.cost.n_units, found.n_done) == (1, 1)
    assert files_of(tmp_path / "runs") == before
    train_toy(tmp_path, config)
    found = plan(tmp_path)
    assert (found.cost.n_units, found.n_done, found.cost.run) == (0, 2, 0.0)
    assert ["run", "0.0 s", "all 2 units are finished"] in plan_lines(found)


def test_a_step_that_does_not_fit_is_tried_in_smaller_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(tmp_path, {"train": {"epochs": 2, "batch_size": 16}})
    said: list[str] = []
    monkeypatch.setattr(api, "say", said.append)
    small_memory(monkeypatch, most=8)
    found = plan(tmp_path)
    assert found.machine.micro_batches == 2
    assert [line for line in said if "memory ran out in a training step; going on with 2 times" in line]
    assert found.probes[0].memory.large[0] == 8
    assert ["step", "batch of 16 in 2 micro-batches"] in [[line[0], line[2]] for line in plan_lines(found)]
    small_memory(monkeypatch, most=1)
    with pytest.raises(PodiumError, match="these are not halved again"):
        plan(tmp_path)


def test_a_batch_that_would_fill_this_machine_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(tmp_path)
    monkeypatch.setattr(probe, "free_bytes", lambda _: 0)
    peaks = iter((2**40, 2**41))
    monkeypatch.setattr(trial_steps, "peak_bytes", lambda _: next(peaks))
    with pytest.raises(PodiumError, match=r"a step on 16 samples would take about 20\d\d\.\d GiB.*raise train.accumul"):
        plan(tmp_path)
    assert next(peaks) == 2**41  # the second size was never tried


def test_probes_wait_for_each_other_and_stop_when_they_are_asked_to(tmp_path: Path) -> None:
    ends: list[float] = []
    jobs = [
        ProbeJob(UnitJob(tmp_path, tmp_path, Unit(0, 0), Machine()), number, 2, 2, tmp_path, 1.0, 0.0)
        for number in (0, 1)
    ]

    def meet(job: ProbeJob) -> None:
        probe._meet(job, "here", StopFlag())
        ends.append(time.monotonic())

    first = threading.Thread(target=meet, args=(jobs[0],))
    first.start()
    first.join(0.2)
    assert first.is_alive()
    assert not ends
    meet(jobs[1])
    first.join()
    assert len(ends) == 2
    with pytest.raises(PodiumError, match="stopped as asked"):
        probe._meet(jobs[0], "there", StopFlag(also=lambda: True))


@pytest.mark.parametrize(("jobs", "of_one"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_units_on_two_gpus_share_the_memory_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, of_one: int
) -> None:
    toy(tmp_path, {"folds": {"n_folds": 5}})
    asked: list[Any] = []

    def look(job: Any, probes: Any, n_parallel: int, report: Any, seats: Any) -> None:
        asked.append((n_parallel, {probe.n_parallel for probe in probes}, seats))
        raise PodiumError("seen enough")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(plan_stage, "run_jobs", look)
    with pytest.raises(PodiumError, match="seen enough"):
        plan(tmp_path, device="cuda", jobs=jobs)
    assert asked == [(jobs, {of_one}, [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "01"])]


@pytest.mark.slow
def test_units_side_by_side_are_probed_side_by_side(tmp_path: Path) -> None:
    toy(tmp_path)
    found = plan(tmp_path, jobs=2, seconds=0.5)
    assert len(found.probes) == found.cost.n_parallel == 2
    assert found.cost.n_rounds == 1
    assert all(each.ready_sec > each.open_sec for each in found.probes)


# -- what the user reads -----------------------------------------------------------------------------------------------


def test_the_command_prints_the_plan_and_exits_by_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["plan", "configs/multiclass/net.yaml", "--device", "cpu", "--jobs", "1", "--threads", "1"]
    for quota, code, verdict in (("9h", 0, "holds"), ("0.001s", 1, "does not hold")):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--seconds", "0", "--quota", quota])
        assert exit_.value.code == code
        out = capsys.readouterr().out
        assert f"quota           {verdict}" in out
        first = [line.split("  ")[0] for line in out.splitlines()]
        for name in ("images/s", "step", "peak memory", "largest batch", "start", "epoch", "fold", "run", "finish"):
            assert name in first
        assert "not counted: " in out
    assert not (tmp_path / "runs").exists()


def probed(**more: Any) -> Probed:
    values: dict[str, Any] = {
        "ready_sec": 3.0,
        "open_sec": 1.0,
        "first_step_sec": 0.5,
        "step_sec": {PLAIN: 0.1},
        "n_steps": 100,
        "n_samples": 3200,
        "batch": 32,
        "in_shape": (1, 8, 8),
        "n_heldout": 800,
        "score_item_sec": 0.001,
        "predict_item_sec": 0.002,
        "checkpoint_sec": 0.2,
        "peak": 2**30,
        "memory": MemoryLine((16, 2**29), (32, 2**30)),
        "free": 2**31,
        "largest": 64,
    }
    return Probed(**(values | more))


def test_a_quota_that_does_not_hold_says_what_would_fit(tmp_path: Path) -> None:
    toy(tmp_path)
    made = plan(tmp_path)
    cost = Cost(preparation=10.0, opening=0.0, epochs=(100.0,) * 10, prediction=0.0, n_units=5, n_parallel=2, at_once=2)
    made = replace(made, cost=cost, quota_sec=2500.0, probes=(probed(), probed()), phases={PLAIN: 0.1})
    assert made.holds is False
    (line,) = [line for line in plan_lines(made) if line[0] == "quota"]
    assert line[1] == "does not hold"
    assert line[2].startswith(
        "50:10 instead of 41:40: 4 of 5 units fit; or all of them with train.epochs=8; a run that"
    )
    (line,) = [line for line in plan_lines(replace(made, quota_sec=3600.0)) if line[0] == "quota"]
    assert line[1:] == ["holds", "50:10 of 1:00:00, 9:50 to spare"]


def test_the_table_says_how_the_largest_batch_was_found(tmp_path: Path) -> None:
    toy(tmp_path)
    made = replace(plan(tmp_path), phases={PLAIN: 0.1})

    def shown(machine: Machine, *probes: Probed) -> list[str]:
        lines = plan_lines(replace(made, machine=machine, probes=probes))
        return next(line[1:] for line in lines if line[0] == "largest batch")

    cpu, cuda = Machine(), Machine(device="cuda")
    assert shown(cpu, probed(), probed(largest=50))[0] == "50"
    assert "an estimate" in shown(cpu, probed())[1]
    assert "2.00 GiB); now 32 at once" in shown(cpu, probed())[1]
    assert shown(cpu, probed(largest=3200))[1].startswith("the whole training part; an estimate")
    assert shown(cpu, probed(largest=None)) == ["?", "this system does not say how much memory is free"]
    assert shown(cuda, probed(), probed(largest=None)) == ["?", "tried with --jobs 1 only"]
    assert shown(cuda, probed())[1].startswith("tried, not split")
