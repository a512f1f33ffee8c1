"""What an epoch is made of: batches of one shape, images that grow, training that ends early, compiled passes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_units import assert_resumes, bits_of, make_experiment, make_task, make_unit, same_bits, train_all

from pipeline.augment.resize import grown_size, resize_images
from pipeline.base.errors import ConfigError
from pipeline.data.batches import EpochOrder, slice_epoch
from pipeline.models.weights import read_weights
from pipeline.records.experiment import EarlyStop, Gradual
from pipeline.training.device import require_compiler
from pipeline.training.history import read_history
from pipeline.training.misfits import refuse_misfits, warnings_of
from pipeline.training.scoring import has_stalled
from pipeline.training.state import final_weights
from pipeline.training.train import epoch_batches


def order_of(n: int) -> EpochOrder:
    return EpochOrder(np.arange(n, dtype=np.int64)[::-1].copy(), np.zeros(n, dtype=np.uint64))


# -- batches of one shape ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (7, 7), (3, 5), (1, 4)])
def test_padded_and_dropped_epochs_have_batches_of_one_size(n: int, size: int) -> None:
    padded, batches = slice_epoch(order_of(n), size, "pad")
    assert {part.stop - part.start for part in batches} == {size}
    assert set(padded.sample) == set(range(n))  # nobody is left out
    for sample in range(n):  # a sample that comes again has draws of its own
        assert padded.occurrence[padded.sample == sample].tolist() == list(range((padded.sample == sample).sum()))
    dropped, batches = slice_epoch(order_of(n), size, "drop")
    if n >= size:
        assert {part.stop - part.start for part in batches} == {size}
        assert n - size < batches[-1].stop <= n
    else:
        assert batches == [slice(0, n)]
    assert np.array_equal(dropped.sample[: batches[-1].stop], order_of(n).sample[: batches[-1].stop])


def test_padding_begins_with_the_epochs_own_order() -> None:
    padded, _ = slice_epoch(order_of(10), 4, "pad")
    assert padded.sample.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8]


def test_dropped_samples_are_others_in_each_epoch() -> None:
    experiment = make_experiment({"train": {"batch_size": 8, "last_batch": "drop"}})
    unit, _ = make_unit(experiment)
    seen = []
    for epoch in range(4):
        order, batches = epoch_batches(unit, experiment, epoch)
        assert len(batches) == 3
        seen.append(frozenset(order.sample[: batches[-1].stop].tolist()))
    assert len(set(seen)) == 4


def test_compiling_takes_one_shape_or_says_how_to_have_it() -> None:
    with pytest.raises(ConfigError, match=r"train.last_batch: even makes batches of two sizes.*use pad or drop"):
        make_experiment({"train": {"compile": True, "last_batch": "even"}})
    with pytest.raises(ConfigError, match="batch_size: 10 is no multiple of accumulation: 4"):
        make_experiment({"train": {"compile": True, "accumulation": 4}})
    experiment = make_experiment({"train": {"compile": True, "batch_size": 8}})
    unit, _ = make_unit(experiment)
    assert {part.stop - part.start for part in epoch_batches(unit, experiment, 0)[1]} == {8}


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"train.compile: needs a C\+\+ compiler such as g\+\+"):
        require_compiler("cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_unit_compiles_once_learns_the_same_and_resumes_bitwise(tmp_path: Path) -> None:
    block: dict[str, Any] = {
        "model": {"name": "cnn3", "width": 4, "dropout": 0.2},
        "train": {"batch_size": 8, "compile": True, "last_batch": "pad"},
        "ema": {"decay": 0.8},
        "sam": {"rho": 0.05},
    }
    experiment = make_experiment(block)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "whole")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    plain = make_experiment(block, {"train": {"compile": False}, "model": {"dropout": 0.0}})
    compiled = make_experiment(block, {"model": {"dropout": 0.0}})
    ends = []
    for case in (plain, compiled):
        unit, parts = make_unit(case)
        train_all(unit, parts, case, tmp_path / f"compile{case.train.compile}")
        ends.append(bits_of(parts))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-3, atol=1e-4)
    assert_resumes(lambda: make_unit(experiment), experiment, tmp_path, 3)


# -- images that grow --------------------------------------------------------------------------------------------------


def test_sizes_grow_evenly_in_steps_to_the_full_size_and_stay() -> None:
    spec = Gradual(start_frac=0.5, full_epoch=4, step_px=4)
    assert [grown_size(spec, (32, 48), epoch) for epoch in range(6)] == [
        (16, 24),
        (20, 32),
        (24, 36),
        (28, 40),
        (32, 48),
        (32, 48),
    ]
    assert grown_size(None, (32, 48), 0) == (32, 48)
    assert grown_size(Gradual(start_frac=0.9, full_epoch=4, step_px=50), (32, 32), 0) == (32, 32)


def test_the_full_size_is_the_image_itself_and_smaller_ones_are_antialiased_means() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert resize_images(images, (8, 8)) is images
    halved = resize_images(images, (4, 4))
    torch.testing.assert_close(halved.mean(), images.mean(), rtol=0.1, atol=0.02)
    flat = torch.full((1, 1, 8, 8), 7, dtype=torch.uint8)
    torch.testing.assert_close(resize_images(flat, (4, 6)), torch.full((1, 1, 4, 6), 7.0))


def test_training_sees_small_images_first_and_scores_on_full_ones(tmp_path: Path) -> None:
    block = {
        "model": {"name": "resnet_small", "width": 4, "depth": 1},
        "input": {"gradual": {"full_epoch": 1, "step_px": 1}},
    }
    experiment = make_experiment(block)
    unit, parts = make_unit(experiment)
    seen: list[tuple[bool, int]] = []
    parts.model.register_forward_pre_hook(lambda net, inputs: seen.append((net.training, inputs[0].shape[-1])))
    train_all(unit, parts, experiment, tmp_path)
    assert [size for is_training, size in seen if is_training] == [4] * 3 + [8] * 3
    assert {size for is_training, size in seen if not is_training} == {8}


def test_gradual_sizes_are_for_images_and_warn_when_the_full_size_is_never_reached() -> None:
    experiment = make_experiment({"input": {"gradual": {"full_epoch": 2}}})
    assert any("input.gradual.full_epoch: 2 is never reached in 2 epochs" in note for note in warnings_of(experiment))
    with pytest.raises(ConfigError, match=r"input.gradual: is never read, because the task's input is `signal`"):
        refuse_misfits(make_task(input="signal", sample_rate_hz=100.0), experiment)


# -- early stopping ----------------------------------------------------------------------------------------------------


def stalled(scores: list[float], **spec: Any) -> list[bool]:
    """Whether training would end after each epoch."""
    unit, _ = make_unit(make_experiment())
    rows = [{"accuracy": score, "heldout_loss": 1.0} for score in scores]
    return [has_stalled(rows[:n], EarlyStop(**spec), unit) for n in range(len(rows) + 1)]


def test_training_ends_when_no_epoch_of_the_last_few_was_better() -> None:
    assert stalled([0.5, 0.6, 0.6, 0.6], patience=2) == [False, False, False, False, True]
    assert stalled([0.5, 0.6, 0.6, 0.7, 0.6, 0.7], patience=2) == [False] * 6 + [True]
    assert stalled([0.5, 0.55, 0.65, 0.7, 0.76], patience=2, min_gain=0.1) == [False] * 6
    assert stalled([0.5, 0.55, 0.59, 0.60], patience=2, min_gain=0.1) == [False, False, False, True, True]


def test_the_direction_of_the_metric_counts_and_a_refit_never_ends_early() -> None:
    unit, _ = make_unit(make_experiment())
    rows = [{"accuracy": score, "heldout_loss": 1.0} for score in (0.5, 0.4, 0.3)]
    spec = EarlyStop(patience=2)
    assert has_stalled(rows, spec, unit)
    assert not has_stalled(rows, spec, replace(unit, higher_is_better=False))
    assert not has_stalled(rows, spec, replace(unit, heldout=replace(unit.train, row=unit.train.row[:0])))


def test_a_unit_that_stopped_early_ends_the_same_when_resumed_at_any_moment(tmp_path: Path) -> None:
    slow = {"optimizer": {"lr": 1e-9}, "train": {"epochs": 9, "early_stop": {"patience": 2}}}
    experiment = make_experiment(slow)
    unit, parts = make_unit(experiment)
    events = train_all(unit, parts, experiment, tmp_path / "whole")
    assert [event.finished for event in events if event.metrics] == [False, False, True]
    assert read_history(tmp_path / "whole" / "history.csv")["epoch"] == [1, 2, 3]
    for stop_after in (1, 7, 9):
        assert_resumes(lambda: make_unit(experiment), experiment, tmp_path, stop_after)


def test_early_stopping_is_off_by_default_and_says_that_it_selects() -> None:
    assert make_experiment().train.early_stop is None
    notes = warnings_of(make_experiment({"train": {"epochs": 9, "early_stop": {}}}))
    assert any("chooses the number of epochs by the fold that is scored" in note for note in notes)


# -- kept epochs -------------------------------------------------------------------------------------------------------


def test_the_last_epochs_are_kept_and_the_very_last_is_what_predicts(tmp_path: Path) -> None:
    for number, block in enumerate(({}, {"ema": {"decay": 0.5}, "train": {"weights": "ema"}})):
        experiment = make_experiment({"train": {"epochs": 4, "keep_epochs": 2}}, block)
        unit, parts = make_unit(experiment)
        folder = tmp_path / str(number)
        train_all(unit, parts, experiment, folder)
        assert [path.name for path in sorted(folder.glob("epoch-*"))] == [
            "epoch-00002.json",
            "epoch-00002.safetensors",
            "epoch-00003.json",
            "epoch-00003.safetensors",
        ]
        kept, _ = read_weights(folder / "epoch-00003.safetensors")
        assert same_bits(kept, final_weights(folder, parts, experiment.train.weights))
