"""Fine-tuning: the layers of a model in order, their rates, and which of them stay as they are for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from toy_units import assert_resumes, bits_of, every_step, make_experiment, make_unit, train_all

from pipeline.base.errors import ConfigError
from pipeline.base.interrupt import StopFlag
from pipeline.models.image_nets import cnn3, resnet_small
from pipeline.records.experiment import Freeze, OptimizerSpec
from pipeline.training.layers import (
    enter_training,
    freeze_layers,
    frozen_names,
    layer_numbers,
    layer_rates,
    movable_names,
)
from pipeline.training.optim import build_optimizer
from pipeline.training.train import train_unit

NET: dict[str, Any] = {"model": {"name": "cnn3", "width": 4}, "optimizer": {"name": "momentum", "lr": 0.05}}


def weights_of(parts: Any) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in parts.model.named_parameters()}


def test_every_parameter_has_a_layer_and_norms_follow_their_convolution() -> None:
    numbers = layer_numbers(resnet_small((3, 32, 32), 10))
    assert numbers["stem.0.weight"] == numbers["stem.1.bias"] == 0
    assert numbers["stage1_block1.conv1.weight"] == numbers["stage1_block1.norm1.weight"] == 1
    assert numbers["linear.weight"] == numbers["linear.bias"] == max(numbers.values())
    assert list(numbers.values()) == sorted(numbers.values())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_models_of_timm_group_as_timm_says_and_end_in_their_head(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    numbers = layer_numbers(model)
    assert numbers.keys() == dict(model.named_parameters()).keys()
    head = {id(param) for param in model.get_classifier().parameters()}
    last = max(numbers.values())
    assert all(numbers[key] == last for key, param in model.named_parameters() if id(param) in head)
    assert min(numbers.values()) == 0


def test_rates_fall_by_the_same_share_from_layer_to_layer() -> None:
    net = cnn3((1, 8, 8), 3, width=4)
    rates = layer_rates(net, 0.5)
    assert rates["linear.weight"] == 1.0
    assert [rates[f"block{number}.0.weight"] for number in (3, 2, 1)] == [0.5, 0.25, 0.125]


def test_one_step_moves_each_layer_by_its_own_rate(tmp_path: Path) -> None:
    block = {"optimizer": {"name": "sgd", "lr": 0.1}, "model": NET["model"], "train": {"epochs": 1, "batch_size": 30}}
    moves = []
    for decay in (1.0, 0.5):
        unit, parts = make_unit(make_experiment(block, {"optimizer": {"layer_decay": decay}}))
        before = weights_of(parts)
        train_all(unit, parts, make_experiment(block, {"optimizer": {"layer_decay": decay}}), tmp_path / str(decay))
        moves.append({name: weight - before[name] for name, weight in weights_of(parts).items()})
    rates = layer_rates(parts.model, 0.5)
    assert min(rates.values()) == 0.125
    for name, rate in rates.items():
        torch.testing.assert_close(moves[1][name], rate * moves[0][name], rtol=1e-3, atol=1e-7)


def test_without_layer_decay_there_are_two_groups_and_with_it_two_for_each_layer() -> None:
    net = cnn3((1, 8, 8), 3, width=4)
    assert len(build_optimizer(OptimizerSpec(weight_decay=0.1), net).param_groups) == 2
    groups = build_optimizer(OptimizerSpec(weight_decay=0.1, layer_decay=0.8), net).param_groups
    assert len(groups) == 8
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_the_backbone_is_all_but_the_last_layer() -> None:
    net = cnn3((1, 8, 8), 3, width=4)
    left = movable_names(net) - frozen_names(net, Freeze(), movable_names(net))
    assert left == {"linear.weight", "linear.bias"}


def test_layers_are_named_by_the_first_parts_of_their_parameters() -> None:
    net = cnn3((1, 8, 8), 3, width=4)
    movable = movable_names(net)
    assert frozen_names(net, Freeze(layers=("block1", "block2.0")), movable) == {
        "block1.0.weight",
        "block1.1.weight",
        "block1.1.bias",
        "block2.0.weight",
    }
    with pytest.raises(ConfigError, match=r"train.freeze.layers: 'blok1' fits no parameter.*Did you mean 'block1'"):
        frozen_names(net, Freeze(layers=("blok1",)), movable)
    with pytest.raises(ConfigError, match="nothing would be left to train"):
        frozen_names(net, Freeze(layers=("backbone", "linear")), movable)


def test_frozen_layers_stay_bitwise_with_their_norms_and_thaw_on_time(tmp_path: Path) -> None:
    frozen = {"train": {"epochs": 3, "freeze": {"n_epochs": 2}}, "ema": {"decay": 0.5}, "sam": {"rho": 0.05}}
    experiment = make_experiment(NET, frozen, {"optimizer": {"weight_decay": 0.1, "l1": 1e-3}})
    unit, parts = make_unit(experiment)
    start = bits_of(parts)
    moved_in = {}
    for event in train_unit(unit, parts, experiment, every_step(), tmp_path, StopFlag()):
        if event.step == event.n_steps and event.step:
            now = bits_of(parts)
            moved_in[event.epoch] = {name for name in start if not torch.equal(start[name], now[name])}
    head = {"model/linear.weight", "model/linear.bias"}
    assert {name for name in moved_in[1] if name.startswith("model/")} == head
    assert {"model/block1.0.weight", "model/block1.1.running_mean"} <= moved_in[2]


def test_freezing_resumes_bitwise_in_the_middle(tmp_path: Path) -> None:
    experiment = make_experiment(NET, {"train": {"epochs": 2, "freeze": {"n_epochs": 1}}})
    for stop_after in (2, 5):
        assert_resumes(lambda: make_unit(experiment), experiment, tmp_path, stop_after)


def test_norms_of_frozen_layers_use_their_running_statistics_and_all_others_train() -> None:
    net = cnn3((1, 8, 8), 3, width=4, dropout=0.5)
    optimizer = build_optimizer(OptimizerSpec(), net)
    freeze_layers(net, optimizer, Freeze(layers=("block1",)), epoch=0)
    enter_training(net)
    modes = {name: module.training for name, module in net.named_modules()}
    assert modes["block1.1"] is False
    assert modes["block2.1"] is True
    assert modes["dropout"] is True
    freeze_layers(net, optimizer, Freeze(layers=("block1",), n_epochs=1), epoch=1)
    enter_training(net)
    assert all(module.training for module in net.modules())


def test_what_the_model_itself_keeps_fixed_stays_fixed_after_thawing() -> None:
    net = cnn3((1, 8, 8), 3, width=4)
    fixed = net.get_parameter("block2.0.weight").requires_grad_(False)
    optimizer = build_optimizer(OptimizerSpec(), net)
    for epoch in (0, 1):
        freeze_layers(net, optimizer, Freeze(layers=("block1",), n_epochs=1), epoch)
        assert not fixed.requires_grad
    assert net.get_parameter("block1.0.weight").requires_grad


def test_a_penalty_on_frozen_weights_alone_is_passed_over(tmp_path: Path) -> None:
    experiment = make_experiment(NET, {"optimizer": {"l1": 0.1}, "train": {"epochs": 1}})
    unit, parts = make_unit(experiment)
    for name, param in parts.model.named_parameters():
        param.requires_grad_(name.endswith("bias"))
    train_all(unit, parts, experiment, tmp_path)
    assert all(bool(tensor.isfinite().all()) for tensor in bits_of(parts).values())
