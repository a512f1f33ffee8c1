"""SAM whose ascent is taken on a part of the batch: what moves, what is reported, and what it composes with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_units import CPU, assert_resumes, bits_of, make_experiment, make_extra, make_unit, same_bits

from pipeline.data.stream import Stream
from pipeline.records.experiment import SamSpec
from pipeline.training import train as train_module
from pipeline.training.sam import ascent_rows
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs, train_step

MLP = {"optimizer": {"name": "sgd", "lr": 0.1}, "model": {"name": "mlp", "hidden": 6, "activation": "tanh"}}
CNN = {"optimizer": {"name": "sgd", "lr": 0.1}, "model": {"name": "cnn3", "width": 4, "dropout": 0.3}}


def batch_of(experiment, parts, unit):
    order, _ = epoch_batches(unit, experiment, 0)
    at = StepAt(0, 0, 1, slice(0, len(order.sample)))
    inputs = next(step_inputs(Stream(unit.items, None, 0), unit, parts, order, [at.part], at.epoch))
    return at, make_batch(unit, parts, experiment, order, at, inputs)


def stepped(*blocks, n_seen=None):
    """Return the parts after one step, its loss, and the number of rows of each pass through the model."""
    experiment = make_experiment(*blocks)
    unit, parts = make_unit(experiment)
    at, batch = batch_of(experiment, parts, unit)
    if n_seen is not None:
        parts.model.register_forward_pre_hook(lambda _, inputs: n_seen.append(len(inputs[0])))
    loss, is_good = train_step(parts, experiment, CPU, batch, at)
    assert is_good
    return parts, loss, batch


@pytest.mark.parametrize(
    ("n", "share", "rows"), [(256, 0.5, 128), (255, 0.5, 128), (10, 0.3, 3), (10, 0.01, 2), (1, 0.5, 1), (7, 1.0, 7)]
)
def test_the_first_rows_are_a_share_rounded_up_and_two_at_least(n, share, rows):
    assert ascent_rows(SamSpec(ascent_frac=share), n) == rows


def test_the_whole_share_is_sam_to_the_bit():
    plain, half = stepped(CNN, {"sam": {"rho": 0.1}}), stepped(CNN, {"sam": {"rho": 0.1, "ascent_frac": 1.0}})
    assert same_bits(bits_of(plain[0]), bits_of(half[0]))
    assert torch.equal(plain[1], half[1])


def test_e_comes_from_the_first_half_and_the_gradient_from_all_rows():
    experiment = make_experiment(MLP, {"sam": {"rho": 0.2, "ascent_frac": 0.5}})
    unit, parts = make_unit(experiment)
    net = copy.deepcopy(parts.model)
    at, batch = batch_of(experiment, parts, unit)
    loss, _ = train_step(parts, experiment, CPU, batch, at)

    def gradients(n):
        net.zero_grad()
        value = -(batch.targets[:n] * net(batch.inputs[:n]).log_softmax(1)).sum(1).mean()
        value.backward()
        return value.detach(), [weight.grad.clone() for weight in net.parameters()]

    n = len(batch.inputs)
    start = [weight.detach().clone() for weight in net.parameters()]
    first_loss, first = gradients(-(-n // 2))
    norm = torch.sqrt(sum(g.pow(2).sum() for g in first))
    with torch.no_grad():
        for weight, g in zip(net.parameters(), first, strict=True):
            weight += 0.2 * g / norm
    _, second = gradients(n)
    for weight, old, g in zip(parts.model.parameters(), start, second, strict=True):
        torch.testing.assert_close(weight.detach(), old - 0.1 * g)
    torch.testing.assert_close(loss, first_loss.double())  # at the weights themselves, over the rows of the ascent


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_micro_batches_of_the_part_are_no_larger_and_batch_statistics_follow_it_alone(accumulation):
    split = {"train": {"accumulation": accumulation}}
    seen: list[int] = []
    parts, _, batch = stepped(CNN, split, {"sam": {"rho": 0.2, "ascent_frac": 0.5}}, n_seen=seen)
    n = len(batch.inputs)
    n_passes = -(-accumulation * -(-n // 2) // n)
    assert sum(seen[:n_passes]) == -(-n // 2)
    assert sum(seen[n_passes:]) == n
    assert len(seen) == n_passes + accumulation
    assert max(seen) == -(-n // accumulation)
    counters = [b for name, b in parts.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(int(counter) == n_passes for counter in counters)


def test_weights_of_rows_and_rows_without_labels_are_in_both_passes(monkeypatch):
    experiment = make_experiment(MLP, {"sam": {"ascent_frac": 0.5}, "pseudo": {"labels": "x", "weight": 0.3}})
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra())
    at, batch = batch_of(experiment, parts, unit)
    passes = []
    backward = train_module.backward
    monkeypatch.setattr(train_module, "backward", lambda *given: passes.append(given[1]) or backward(*given))
    train_step(parts, experiment, CPU, batch, at)
    first, second = passes
    assert second is batch
    assert len(first.weights) == len(first.inputs) == -(-len(batch.inputs) // 2)
    assert torch.equal(first.weights, batch.weights[: len(first.weights)])
    assert set(first.weights.tolist()) == set(batch.weights.tolist())  # labelled and unlabelled rows stand mixed
    assert len(set(batch.weights.tolist())) > 1


def test_a_run_with_it_resumes_to_the_bit(tmp_path: Path):
    experiment = make_experiment(CNN, {"sam": {"ascent_frac": 0.5}, "train": {"epochs": 2}})
    assert_resumes(lambda: make_unit(experiment), experiment, tmp_path, 2)
