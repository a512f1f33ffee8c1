"""Activations and first weights: the two choices that every own net offers under the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from pipeline.records.record import Record

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Width = Annotated[int, Field(ge=1)]
DropProb = Annotated[float, Field(ge=0, lt=1)]


class Gaussian(Record):
    """Weights from a normal distribution of mean zero and one deviation for all layers."""

    name: Literal["gaussian"]
    std: Annotated[float, Field(gt=0)] = 0.01
    """Standard deviation."""


Init = Literal["default", "he", "xavier", "gaussian"] | Gaussian

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
_NOT_MONOTONE: frozenset[Activation] = frozenset({"gelu", "silu"})


def make_activation(name: Activation) -> nn.Module:
    """Return the activation of that name as torch defines it: slope 0.01 of leaky_relu, alpha 1 of elu, exact gelu."""
    return _ACTIVATIONS[name]()


def pool_and_activate(pool: nn.Module, activation: Activation) -> list[nn.Module]:
    """Return max-pooling and the activation, in the order that costs least and gives the value of act-then-pool.

    The maximum passes through a function that never falls, so the activation may work on the pooled map, which has a
    quarter of the values (half in 1-D). gelu and silu fall below zero first, so they stay before the pool.
    """
    act = make_activation(activation)
    return [act, pool] if activation in _NOT_MONOTONE else [pool, act]


def init_weights(module: nn.Module, init: Init) -> None:
    """Overwrite the weights of every convolution and linear layer inside `module`, in place, and zero their biases.

    Args:
        module: any net; norms are left untouched, as is everything under `default`.
        init: `default` is torch's own (uniform, biases too); `he` is normal with std sqrt(2 / fan_in); `xavier` is
            Glorot's normal with std sqrt(2 / (fan_in + fan_out)); `gaussian` is normal with one std, 0.01 unless
            given. All have mean zero and draw from torch's global generator.

    Source: He et al. 2015 (https://arxiv.org/abs/1502.01852); Glorot and Bengio 2010
    (https://proceedings.mlr.press/v9/glorot10a.html).
    """
    if init == "default":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            _init_layer(layer, init)


def _init_layer(layer: nn.Conv1d | nn.Conv2d | nn.Linear, init: Init) -> None:
    if isinstance(init, Gaussian):
        nn.init.normal_(layer.weight, std=init.std)
    elif init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif init == "xavier":
        nn.init.xavier_normal_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=Gaussian(name="gaussian").std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
