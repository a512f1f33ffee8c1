"""Classroom nets: a perceptron for anything, and two plain convolutional nets as textbooks build them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.models.dropout import CheapDropout
from pipeline.models.image_nets import image_channels
from pipeline.models.init import Activation, DropProb, Init, Width, init_weights, make_activation, pool_and_activate


def mlp(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    hidden: Width | tuple[Width, ...] = (256, 128),
    batch_norm: bool = False,
    dropout: DropProb = 0.0,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a multi-layer perceptron on the flattened item.

    Args:
        in_shape: any shape, (C, H, W) or (C, T).
        n_outputs: K, columns of the logits.
        hidden: units of the one hidden layer, or of each; empty for a linear model.
        batch_norm: norm between each hidden linear layer (then without bias) and its activation.
        dropout: probability after each hidden activation.
        activation: of the hidden layers.
        init: of all linear layers.
    """
    widths = (hidden,) if isinstance(hidden, int) else hidden
    n_in = math.prod(in_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for n_out in widths:
        layers.append(nn.Linear(n_in, n_out, bias=not batch_norm))
        layers += [nn.BatchNorm1d(n_out)] if batch_norm else []
        layers += [make_activation(activation), *_dropout(dropout)]
        n_in = n_out
    return _initialised([*layers, nn.Linear(n_in, n_outputs)], init)


def conv5x5(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 32,
    dropout: DropProb = 0.4,
    activation: Activation = "relu",
    init: Init = "default",
) -> nn.Module:
    """Return the shortest convolutional net: 5x5 convolution, activation, 2x2 max-pool, dropout, linear.

    Args:
        in_shape: (C, H, W), H and W at least 2 px; an odd last row or column is left out by the pool.
        n_outputs: K, columns of the logits.
        width: channels of the convolution, which is padded to keep the size.
        dropout: probability after the pool.
        activation: after the convolution.
        init: of the convolution and the linear layer.

    It is laid out for speed on a CPU (2.3 times the textbook's order in NCHW, measured by `benchmarks/step.py`) and
    has the same law: activations follow the pool, dropout takes fewer random numbers, and no map is copied to flatten.

    Raises:
        ConfigError: `in_shape` is no image or too small.
    """
    channels = image_channels("conv5x5", in_shape, min_px=2)
    conv = nn.Conv2d(channels, width, 5, padding=2)
    pooled = pool_and_activate(nn.MaxPool2d(2), activation)
    linear = MapLinear((width, in_shape[1] // 2, in_shape[2] // 2), n_outputs)
    # Identity stands where nets of old have Flatten, so that their weights keep their names.
    return _initialised([conv, *pooled, nn.Identity(), *_dropout(dropout), linear], init)


def deepconv(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 16,
    hidden: Width = 50,
    dropout: DropProb = 0.5,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return six 3x3 convolutions in three pooled stages, a hidden linear layer and dropout, also on the logits.

    Every convolution is padded by 1 and the pools round up, so 28 px become 14, 7 and 4: the same 4 x 4 map and the
    same number of parameters as the original, which gets there by padding one convolution by 2.

    Args:
        in_shape: (C, H, W), H and W at least 8 px.
        n_outputs: K, columns of the logits.
        width: channels of the first stage; the next two have 2 and 4 times as many.
        hidden: units of the hidden linear layer.
        dropout: probability after the hidden activation, and once more on the logits, as the original has it.
        activation: after every convolution and the hidden layer.
        init: of all convolutions and linear layers.

    Raises:
        ConfigError: `in_shape` is no image or too small.

    Source: the DeepConvNet of Saitoh, "Deep Learning from Scratch" (O'Reilly Japan 2016), chapter 8.
    """
    channels = image_channels("deepconv", in_shape)
    layers: list[nn.Module] = []
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, out, 3, padding=1), make_activation(activation)]
        layers += [nn.Conv2d(out, out, 3, padding=1)]
        layers += pool_and_activate(nn.MaxPool2d(2, ceil_mode=True), activation)
        channels = out
    n_features = channels * math.ceil(in_shape[1] / 8) * math.ceil(in_shape[2] / 8)
    layers += [nn.Flatten(), nn.Linear(n_features, hidden), make_activation(activation), *_dropout(dropout)]
    return _initialised([*layers, nn.Linear(hidden, n_outputs), *_dropout(dropout)], init)


class MapLinear(nn.Linear):
    """A linear layer on a flattened map: (B, C, H, W) to (B, K), with the weights of Flatten and Linear.

    A map in channels-last layout is not copied into the order of those weights; they are brought into its order.
    """

    def __init__(self, shape: tuple[int, int, int], n_outputs: int) -> None:
        super().__init__(math.prod(shape), n_outputs)
        self.shape = shape

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, K)."""
        if not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input.flatten(1))
        weight = self.weight.view(-1, *self.shape).permute(0, 2, 3, 1).flatten(1)
        return nn.functional.linear(input.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


def _dropout(prob: float) -> list[nn.Module]:
    return [CheapDropout(prob)] if prob else []


def _initialised(layers: list[nn.Module], init: Init) -> nn.Module:
    net = nn.Sequential(*layers)
    init_weights(net, init)
    return net
