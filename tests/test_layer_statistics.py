"""What a unit is told to look at changes nothing in it; few rows and iterations are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_units import CPU, assert_resumes, make_experiment, make_unit, train_all

from pipeline.base.errors import ConfigError
from pipeline.models.init import Gaussian
from pipeline.models.plain_nets import mlp
from pipeline.records.rows import Rows
from pipeline.training.few_rows import few_rows
from pipeline.training.history import read_history
from pipeline.training.layer_statistics import layer_statistics, read_layers, watch_layers
from pipeline.training.state import final_weights
from pipeline.training.train import epoch_batches

NET = {"name": "mlp", "hidden": (6, 5), "dropout": 0.3, "batch_norm": True}


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets)


def test_statistics_are_those_of_each_layer_computed_by_hand() -> None:
    torch.manual_seed(0)
    net = mlp((1, 2, 3), 3, hidden=(5, 4), init="he").double()
    inputs, targets = (
        torch.randn(7, 1, 2, 3, dtype=torch.float64),
        torch.eye(3, dtype=torch.float64)[torch.arange(7) % 3],
    )
    lines = layer_statistics(net, cross_entropy, inputs, targets)

    first = torch.relu(net[1](inputs.flatten(1)))
    second = torch.relu(net[3](first))
    nn.functional.cross_entropy(net[5](second), targets).backward()
    assert [line["layer"] for line in lines] == ["1", "2", "3", "4", "5"]
    for line, values in ((lines[1], first.detach()), (lines[3], second.detach())):
        assert line["mean"] == pytest.approx(float(values.mean()), abs=1e-12)
        assert line["std"] == pytest.approx(float(values.std(correction=0)), abs=1e-12)
        assert line["zero_share"] == float((values == 0).double().mean()) > 0
        assert line["gradient_norm"] is None
    for line, name in ((lines[0], 1), (lines[2], 3), (lines[4], 5)):
        assert line["gradient_norm"] == pytest.approx(float(net[name].weight.grad.norm()), rel=1e-12)
        assert line["mean"] is None


def test_looking_leaves_modes_buffers_gradients_and_chance_as_they_were() -> None:
    net = mlp((1, 2, 3), 3, hidden=(5,), batch_norm=True, dropout=0.5)
    net.train()
    net[2].eval()  # as a frozen norm has it
    buffers = [buffer.clone() for buffer in net.buffers()]
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    layer_statistics(
        net, cross_entropy, torch.randn(7, 1, 2, 3, generator=torch.Generator()), torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]]
    )
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(old, new) for old, new in zip(buffers, net.buffers(), strict=True))
    assert all(param.grad is None for param in net.parameters())
    assert net.training
    assert net[1].training
    assert not net[2].training
    assert not any(module._forward_hooks for module in net.modules())


def test_small_first_weights_make_gradients_vanish_towards_the_input_and_he_does_not() -> None:
    def shares(init: object, activation: str) -> float:
        torch.manual_seed(0)
        net = mlp((1, 8, 8), 3, hidden=(50, 50, 50, 50), init=init, activation=activation)  # type: ignore[arg-type]
        lines = layer_statistics(net, cross_entropy, torch.randn(64, 1, 8, 8), torch.eye(3)[torch.arange(64) % 3])
        norms = [line["gradient_norm"] for line in lines if line["gradient_norm"] is not None]
        assert len(norms) == 5
        return float(norms[0] / norms[-1])

    assert shares(Gaussian(name="gaussian", std=0.01), "sigmoid") < 1e-4
    assert shares("he", "relu") > 0.1


def test_watching_changes_no_bit_and_every_epoch_is_written_from_the_untrained_net_on(tmp_path: Path) -> None:
    plain = make_experiment({"model": NET, "train": {"epochs": 3, "batch_size": 8}})
    watched = make_experiment(
        {"model": NET, "train": {"epochs": 3, "batch_size": 8, "layer_statistics": True, "score_training": True}}
    )
    unit, parts = make_unit(plain)
    train_all(unit, parts, plain, tmp_path / "plain")
    expected = final_weights(tmp_path / "plain", parts, "last")

    unit, parts = make_unit(watched)
    labels = np.array(unit.labels)[unit.train.row]
    unit = replace(unit, score_training=lambda values: float((values.argmax(axis=1) == labels).mean()))
    train_all(unit, parts, watched, tmp_path / "watched")
    found = final_weights(tmp_path / "watched", parts, "last")
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    lines = read_layers(tmp_path / "watched" / "layers.csv")
    assert sorted({line["epoch"] for line in lines}) == [0, 1, 2, 3]
    assert len(lines) == 4 * 5
    history = read_history(tmp_path / "watched" / "history.csv")
    assert "train_accuracy" not in read_history(tmp_path / "plain" / "history.csv")
    assert len(history["train_accuracy"]) == 3
    assert history["train_accuracy"] != history["accuracy"]
    # The rows of the last epoch are those of the weights that were saved.
    parts.model.load_state_dict(found)
    again = tmp_path / "again"
    again.mkdir()
    watch_layers(again, unit, parts, 3, CPU)
    assert read_layers(again / "layers.csv") == lines[-5:]


def test_lines_of_an_epoch_that_is_trained_again_are_replaced(tmp_path: Path) -> None:
    experiment = make_experiment({"model": NET})
    unit, parts = make_unit(experiment)
    for epoch in (0, 1, 2, 1):
        watch_layers(tmp_path, unit, parts, epoch, CPU)
    assert sorted({line["epoch"] for line in read_layers(tmp_path / "layers.csv")}) == [0, 1]
    assert len(read_layers(tmp_path / "layers.csv")) == 2 * 5


# -- iterations --------------------------------------------------------------------------------------------------------


def test_without_epoch_steps_epochs_are_what_they_were(tmp_path: Path) -> None:
    unit, _ = make_unit(make_experiment())
    order, batches = epoch_batches(unit, make_experiment({"train": {"batch_size": 8}}), 1)
    assert sorted(order.sample) == list(range(30))
    assert [part.stop - part.start for part in batches] == [7, 8, 7, 8]


@pytest.mark.parametrize(("n_steps", "n_samples"), [(1, 7), (3, 22), (4, 30), (6, 45), (9, 67)])
def test_an_epoch_of_so_many_steps_is_a_part_of_a_pass_or_several(n_steps: int, n_samples: int) -> None:
    experiment = make_experiment({"train": {"batch_size": 8, "epoch_steps": n_steps}})
    unit, _ = make_unit(experiment)
    orders = []
    for epoch in range(3):
        order, batches = epoch_batches(unit, experiment, epoch)
        assert len(batches) == n_steps
        assert [part.start for part in batches[1:]] == [part.stop for part in batches[:-1]]
        assert (batches[0].start, batches[-1].stop, len(order.sample)) == (0, n_samples, n_samples)
        for number in range(0, n_samples, 30):  # each pass sees nobody twice
            part = order.sample[number : number + 30]
            assert len(set(part)) == len(part)
            assert set(order.occurrence[number : number + 30]) == {number // 30}
        orders.append(tuple(order.sample))
    assert len(set(orders)) == 3


def test_iterations_resume_to_the_same_bits_and_are_counted_as_epochs(tmp_path: Path) -> None:
    experiment = make_experiment({"train": {"batch_size": 8, "epochs": 4, "epoch_steps": 3}})
    unit, parts = make_unit(experiment)
    events = train_all(unit, parts, experiment, tmp_path / "a")
    assert [event.n_steps for event in events[1:]] == [3] * 12
    assert len(read_history(tmp_path / "a" / "history.csv")["epoch"]) == 4
    assert_resumes(lambda: make_unit(experiment), experiment, tmp_path, stop_after=7)


# -- few rows ----------------------------------------------------------------------------------------------------------


def rows_of(targets: np.ndarray, prefix: str = "r") -> Rows:
    ids = np.array([f"{prefix}{number:03d}" for number in range(len(targets))], dtype=object)
    return Rows(ids, tuple((number,) for number in range(len(targets))), ("a", "b", "c"), targets)


def test_few_rows_keep_the_shares_of_the_classes_and_are_drawn_by_seed_and_id() -> None:
    targets = np.repeat(np.arange(3), [60, 30, 10])
    rows, train = rows_of(targets), np.arange(5, 100)
    few = few_rows(rows, train, 19, seed=0)
    assert set(few) <= set(train)
    assert list(few) == sorted(set(few))
    counts = np.bincount(targets[few])
    assert (abs(counts - 19 * np.bincount(targets[train]) / 95) <= 1).all()
    assert list(few) == list(few_rows(rows, train, 19, seed=0))
    assert list(few) != list(few_rows(rows, train, 19, seed=1))
    assert few_rows(rows, train, None, seed=0) is train
    assert list(few_rows(rows, train, 95, seed=0)) == list(train)

    shuffled = np.random.default_rng(0).permutation(100)
    again = few_rows(rows.at(shuffled), np.flatnonzero(np.isin(shuffled, train)), 19, seed=0)
    assert set(rows.at(shuffled).ids[again]) == set(rows.ids[few])


def test_few_rows_of_values_are_drawn_plainly_and_too_many_are_refused() -> None:
    rows = rows_of(np.linspace(0, 1, 20, dtype=np.float32)[:, None])
    assert len(set(few_rows(rows, np.arange(20), 7, seed=0))) == 7
    with pytest.raises(ConfigError, match=r"train\.n_rows: 21 are asked for, and the training part has 20 rows"):
        few_rows(rows, np.arange(20), 21, seed=0)
