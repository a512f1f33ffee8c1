"""The optimiser by name, the learning rate over time, and which weights are decayed.

The optimisers of torch that a course teaches are built directly, so that a run which uses one of them does not pay for
importing timm (seconds); all further names are those of timm's factory.
"""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.experiment import Constant, Cosine, OneCycle, OptimizerSpec, ScheduleSpec, Step
from pipeline.training.eager import eager
from pipeline.training.layers import layer_rates

_TORCH: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adam": (torch.optim.Adam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
}

# bitsandbytes and APEX are packages of their own; kron wants opt_einsum and draws from a generator that no checkpoint
# holds; adahessian differentiates the gradient. Lookahead (`lookahead_adam`) is a prefix, not a name in the list.
_REFUSED_PREFIXES = ("bnb", "fused", "kron", "adahessian")

# Keys of the experiment itself, and switches that would turn the step into another one.
_RESERVED_OPTIONS = ("self", "params", "lr", "weight_decay", "maximize", "differentiable", "kwargs")


def build_optimizer(spec: OptimizerSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trainable parameters, with weight decay left off norms and biases.

    `sgd` is plain (torch's; momentum 0), `momentum` is SGD with momentum 0.9, `nesterov` the same with Nesterov's step.
    These, adagrad, rmsprop, adadelta, adam, adamax, adamw, nadam and radam are torch's with torch's defaults: the decay
    is L2 in the gradient but for adamw. Other names are built by timm with timm's defaults.

    Args:
        spec: name, peak rate, decay and further arguments.
        model: its `no_weight_decay()` names, where it has them (timm: position embeddings), are not decayed either.

    Raises:
        ConfigError: the name or an option is unknown, or a value is not what the optimiser takes.
    """
    signature = _signature(spec.name)
    allowed = [name for name in signature if name not in _RESERVED_OPTIONS]
    for option in spec.options:
        if option not in allowed:
            hint = nearest(option, allowed)
            raise ConfigError(
                f"optimizer.options.{option}: {spec.name} has no such option.{hint} Allowed: {listed(allowed)}"
            )
    try:
        return _construct(spec, _parameter_groups(model, spec))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"optimizer: {spec.name} does not take {spec.options}: {error}") from error


def allowed_optimizers() -> list[str]:
    """Return every optimiser name that can be used, sorted: those that need first gradients and no further package."""
    names: set[str] = {*_timm().list_optimizers(exclude_filters=[]), *_TORCH}
    return sorted(name for name in names if not name.startswith(_REFUSED_PREFIXES))


def is_decayed(name: str, param: Tensor) -> bool:
    """Return whether weight decay and the L1 penalty apply: to weights, and not to norms, biases and scalars."""
    return param.ndim > 1 and not name.endswith("bias")


def l1_penalty(model: nn.Module) -> Tensor:
    """Return the sum of |w| over the trainable weights (not norms and biases), a scalar; its gradient at 0 is 0."""
    weights = [p for name, p in model.named_parameters() if p.requires_grad and is_decayed(name, p)]
    total = torch.zeros((), device=weights[0].device if weights else None)
    for weight in weights:
        total = total + weight.abs().sum()
    return total


def lr_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of a step as a share of the peak, in [0, 1].

    The warm-up of w steps takes 1/(w+1), 2/(w+1), ..., so that its first step moves and step w is at the peak. Cosine
    and one_cycle reach `final_frac` at the very last step.

    Args:
        schedule: which curve.
        step: counted from 0 over the whole training; past the end the last value holds.
        steps_per_epoch: optimiser steps in an epoch, >= 1.
        epochs: passes over the training part, >= 1.
    """
    last = steps_per_epoch * epochs - 1
    if isinstance(schedule, OneCycle):
        return _one_cycle(schedule, step, last)
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if isinstance(schedule, Cosine):
        progress = min(1.0, (step - warmup_steps) / (last - warmup_steps)) if last > warmup_steps else 0.0
        return schedule.final_frac + (1 - schedule.final_frac) * (1 + math.cos(math.pi * progress)) / 2
    if isinstance(schedule, Step):
        falls = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return float(schedule.gamma**falls)
    return 1.0


def schedule_warnings(schedule: ScheduleSpec, epochs: int) -> list[str]:
    """Return a line for each number of the schedule that a training of so many epochs never reaches."""
    lines = []
    if isinstance(schedule, Constant | Cosine | Step) and schedule.warmup_epochs >= epochs:
        lines.append(
            f"schedule.warmup_epochs: {schedule.warmup_epochs:g} is not over within train.epochs: {epochs}; "
            "the peak rate is never reached"
        )
    late = [f"{m:g}" for m in schedule.milestones if m >= epochs] if isinstance(schedule, Step) else []
    if late:
        lines.append(f"schedule.milestones: {listed(late)} lie beyond train.epochs: {epochs} and are never reached")
    return lines


def _one_cycle(schedule: OneCycle, step: int, last: int) -> float:
    peak = schedule.rise_frac * last
    if last <= 0:
        return 1.0
    if step <= peak:
        return schedule.start_frac + (1 - schedule.start_frac) * step / peak
    progress = min(1.0, (step - peak) / (last - peak))
    return 1 - (1 - schedule.final_frac) * progress


def _parameter_groups(model: nn.Module, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return the trainable parameters in the order of the model, by decay and by the rate of their layer.

    A group's `lr_scale` is its rate as a share of that of the head's weights.
    """
    named: Any = getattr(model, "no_weight_decay", tuple)
    exempt = set(named())
    trainable = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    if not trainable:
        raise ConfigError("model: no parameter is trainable; freeze less")
    rates = layer_rates(model, spec.layer_decay) if spec.layer_decay < 1 else {}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, param in trainable:
        rate = rates.get(name, 1.0) * (1.0 if is_decayed(name, param) else spec.bias_factor)
        groups.setdefault((rate, is_decayed(name, param) and name not in exempt), []).append(param)
    order = sorted(groups, key=lambda key: (key[0], not key[1]))
    return [
        {"params": groups[rate, decays], "weight_decay": spec.weight_decay if decays else 0.0, "lr_scale": rate}
        for rate, decays in order
    ]


def _signature(name: str) -> list[str]:
    """Return the arguments that the optimiser takes; raises ConfigError for a name that cannot be used."""
    if name in _TORCH:
        return list(inspect.signature(_TORCH[name][0]).parameters)
    allowed = allowed_optimizers()
    if name not in allowed:
        hint = nearest(name, allowed)
        raise ConfigError(
            f"optimizer.name: '{name}' cannot be used: it is unknown, or needs second gradients or a further package."
            f"{hint} Allowed: {listed(allowed, 200)}"
        )
    return list(inspect.signature(_timm().get_optimizer_class(name, bind_defaults=False)).parameters)


def _construct(spec: OptimizerSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    build: Any  # each takes arguments of its own
    if spec.name in _TORCH:
        kind, defaults = _TORCH[spec.name]
        build, arguments = eager(kind), {**defaults, **spec.options}
    else:
        build, arguments = _timm().create_optimizer_v2, {"opt": spec.name, **spec.options}
    optimizer: torch.optim.Optimizer = build(groups, lr=spec.lr, **arguments)
    return optimizer


def _timm() -> Any:
    """Return timm's optimisers, imported only now: it takes seconds, and its types are not exported."""
    return importlib.import_module("timm.optim")
