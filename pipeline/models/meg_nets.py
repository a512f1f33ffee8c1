"""Nets for MEG (C, T), of many channels and many classes: convolutions over time that see all channels at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pipeline.models.dropout import dropout_layer
from pipeline.models.image_nets import GlobalPool
from pipeline.models.init import Activation, DropProb, Init, Width, init_weights, make_activation
from pipeline.models.signal_nets import signal_channels


def meg_basic(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 128,
    dropout: DropProb = 0.1,
    activation: Activation = "gelu",
    init: Init = "default",
) -> nn.Module:
    """Return the baseline of a course's MEG contest: two blocks of two convolutions (3 samples), a mean over time.

    492,222 parameters for 271 channels and 1,854 classes.

    Args:
        in_shape: (C, T), T at least 1 sample.
        n_outputs: K, columns of the logits.
        width: channels of all convolutions.
        dropout: probability after each block.
        activation: after every norm.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no signal.

    Source: `BasicConvClassifier` of https://github.com/matsuolab/dl_lecture_competition_pub (branch MEG-competition).
    """
    channels = signal_channels("meg_basic", in_shape, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, n_in in enumerate((channels, width), start=1):
        layers[f"block{number}"] = nn.Sequential(
            SkipConv(n_in, width), *_norm(width, activation), SkipConv(width, width), *_norm(width, activation)
        )
        layers[f"dropout{number}"] = dropout_layer(dropout)
    return _with_head(layers, width, n_outputs, init)


def meg_residual(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 512,
    depth: Annotated[int, Field(ge=1)] = 1,
    dropout: DropProb = 0.4,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a wide residual net: blocks of `width` channels, then blocks of twice as many, and a mean over time.

    A block is a convolution (3 samples), norm, activation, a second convolution and norm, added to what came in (by a
    convolution of one sample where the number of channels changes), and an activation.

    Args:
        in_shape: (C, T), T at least 1 sample.
        n_outputs: K, columns of the logits.
        width: channels of the first blocks; the others have 2 times as many.
        depth: blocks of either width.
        dropout: probability before the linear layer.
        activation: inside and after every block.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no signal.

    Source: the blocks of He et al. 2015 (https://arxiv.org/abs/1512.03385) in one dimension.
    """
    n_in = signal_channels("meg_residual", in_shape, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(2 * depth):
        n_out = width if number < depth else 2 * width
        layers[f"block{number + 1}"] = ResidualBlock1d(n_in, n_out, activation)
        n_in = n_out
    layers["dropout"] = dropout_layer(dropout)
    return _with_head(layers, n_in, n_outputs, init)


class SkipConv(nn.Conv1d):
    """A convolution of 3 samples that keeps the length, plus its input where that has as many channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, out_channels, T)."""
        out = super().forward(input)
        return out + input if self.in_channels == self.out_channels else out


class ResidualBlock1d(nn.Module):
    """Two convolutions of 3 samples with norms, added to a shortcut, which is convolved where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        self.act = make_activation(activation)
        self.conv1, self.norm1 = _conv_norm(in_channels, out_channels, 3)
        self.conv2, self.norm2 = _conv_norm(out_channels, out_channels, 3)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(*_conv_norm(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, T)."""
        branch = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        out: Tensor = self.act(branch + (x if self.shortcut is None else self.shortcut(x)))
        return out


def _norm(width: int, activation: Activation) -> list[nn.Module]:
    return [nn.BatchNorm1d(width), make_activation(activation)]


def _conv_norm(in_channels: int, out_channels: int, kernel: int) -> tuple[nn.Conv1d, nn.BatchNorm1d]:
    """Return a convolution and its norm, whose shift makes a bias of the convolution useless."""
    conv = nn.Conv1d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm1d(out_channels)


def _with_head(layers: OrderedDict[str, nn.Module], n_in: int, n_outputs: int, init: Init) -> nn.Module:
    """Return the layers, a mean over time and a linear layer, with their first weights."""
    layers["pool"] = GlobalPool("avg")
    layers["linear"] = nn.Linear(n_in, n_outputs)
    net = nn.Sequential(layers)
    init_weights(net, init)
    return net
