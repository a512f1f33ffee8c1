"""The layers of a model in order, for fine-tuning: which rate each learns with, and which stay as they are for a while.

Where a model of timm says how its parameters group into layers, that is taken; else each module that holds a kernel or
a weight matrix is a layer, in the order of the model, and norms and biases belong to the layer before them.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.experiment import Freeze

BACKBONE = "backbone"


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Return for each parameter by name which layer it belongs to, from 0 (the first) to that of the head."""
    if hasattr(model, "group_matcher"):
        return _numbers_of_timm(model)
    numbers: dict[str, int] = {}
    number = -1
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}" if prefix else name: param for name, param in module.named_parameters(recurse=False)}
        number += any(param.ndim > 1 for param in own.values())
        numbers |= dict.fromkeys(own, max(number, 0))
    return numbers


def layer_rates(model: nn.Module, decay: float) -> dict[str, float]:
    """Return for each parameter by name its learning rate as a share of the head's: decay^(layers between).

    Source: the discriminative fine-tuning of Howard and Ruder 2018 (https://arxiv.org/abs/1801.06146), in the form of
    BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254).
    """
    numbers = layer_numbers(model)
    last = max(numbers.values())
    return {name: decay ** (last - number) for name, number in numbers.items()}


def frozen_names(model: nn.Module, spec: Freeze, movable: Collection[str]) -> set[str]:
    """Return the names of the parameters that `spec` freezes, of those that are movable at all.

    Raises:
        ConfigError: a name fits no parameter, or nothing would be left to train.
    """
    numbers = layer_numbers(model)
    names: set[str] = set()
    for layer in spec.layers:
        found = _backbone(numbers) if layer == BACKBONE else _starting_with(layer, numbers)
        if not found:
            known = _first_parts(numbers)
            raise ConfigError(
                f"train.freeze.layers: '{layer}' fits no parameter.{nearest(layer, known)}"
                f" Allowed: backbone, or the first parts of names such as {listed(known, 12)}"
            )
        names |= found
    if not set(movable) - names:
        raise ConfigError("train.freeze.layers: nothing would be left to train; freeze less")
    return names & set(movable)


def movable_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that take gradients; a new model may keep some fixed by itself."""
    return {name for name, param in model.named_parameters() if param.requires_grad}


def freeze_layers(model: nn.Module, optimizer: torch.optim.Optimizer, spec: Freeze | None, epoch: int) -> None:
    """Let those parameters of the optimiser take gradients that move in `epoch`; call it where none has a gradient.

    Parameters that the optimiser does not hold are fixed by the model itself and stay as they are.
    """
    if spec is None:
        return
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    movable = {name: param for name, param in model.named_parameters() if id(param) in held}
    is_over = spec.n_epochs is not None and epoch >= spec.n_epochs
    frozen = set() if is_over else frozen_names(model, spec, movable)
    for name, param in movable.items():
        param.requires_grad_(name not in frozen)


def enter_training(model: nn.Module) -> None:
    """Put the model into training mode, but for norms with frozen weights: they use their running statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.weight is not None:
            module.train(module.weight.requires_grad)


def _numbers_of_timm(model: nn.Module) -> dict[str, int]:
    grouping: Any = importlib.import_module("timm.models")  # imported only now: it takes seconds
    matcher: Any = model.group_matcher
    layers = grouping.group_parameters(model, matcher(coarse=False), reverse=True)
    return {name: int(number) for name, number in layers.items()}


def _backbone(numbers: dict[str, int]) -> set[str]:
    last = max(numbers.values())
    return {name for name, number in numbers.items() if number < last}


def _first_parts(numbers: dict[str, int]) -> list[str]:
    """Return every name that a layer may be given by, the shortest first."""
    parts = [name.split(".") for name in numbers]
    deepest = max(len(part) for part in parts)
    return list(dict.fromkeys(".".join(part[:n]) for n in range(1, deepest + 1) for part in parts))


def _starting_with(layer: str, numbers: dict[str, int]) -> set[str]:
    return {name for name in numbers if name == layer or name.startswith(f"{layer}.")}
