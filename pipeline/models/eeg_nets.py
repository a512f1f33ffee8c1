"""Nets for EEG (C, T): two that courses teach, and the two published ones that they come from.

All convolve over time and then over all channels, on maps (B, filters, channels, time). On a CPU these lie
channels-last from the first layer on, and convolutions with nothing between them are computed as one. Against layer by
layer in torch's default layout a training step takes 0.6 to 0.95 of the time with `eegnet`, 0.7 to 1.05 with
`eegnet_v4` and 0.2 to 0.55 with the deep nets, for 2 to 64 channels, in fp32 and bf16, on one core with AVX512-BF16.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.dropout import dropout_layer
from pipeline.models.init import Activation, DropProb, Init, Width, init_weights, make_activation, pool_and_activate
from pipeline.models.max_norm import MaxNormNet
from pipeline.models.signal_nets import signal_channels

_EEGNET_POOLS = (4, 8)
_EEGNET_SAMPLES = _EEGNET_POOLS[0] * _EEGNET_POOLS[1]
_DEEP_WIDTHS = (25, 50, 100, 200)


def eegnet(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    dropout: DropProb = 0.25,
    activation: Activation = "relu",
    init: Init = "default",
) -> nn.Module:
    """Return the EEGNet that courses teach: 16 filters over time, two over the channels for each, a full convolution.

    17,874 parameters for two channels of 750 samples and two classes. It differs from the published net (`eegnet_v4`)
    in its 16 filters of 51 samples, in its second convolution over time, which is called separable and is a full one,
    in faster norms, and in that no weights are limited.

    Args:
        in_shape: (C, T), T at least 32 samples.
        n_outputs: K, columns of the logits.
        dropout: probability after each pool.
        activation: after the norms behind the filters over the channels and behind the second convolution over time.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no signal or too short.

    Source: the EEG exercise of a deep-learning course (National Yang Ming Chiao Tung University, 2022).
    """
    channels = signal_channels("eegnet", in_shape, _EEGNET_SAMPLES)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["map"] = AsMap()
    layers["temporal"] = nn.Sequential(nn.Conv2d(1, 16, (1, 51), padding=(0, 25), bias=False), nn.BatchNorm2d(16))
    layers["spatial"] = nn.Sequential(
        nn.Conv2d(16, 32, (channels, 1), groups=16, bias=False),
        nn.BatchNorm2d(32),
        *_activate_and_average(_EEGNET_POOLS[0], activation, dropout),
    )
    layers["separable"] = nn.Sequential(
        nn.Conv2d(32, 32, (1, 15), padding=(0, 7), bias=False),
        nn.BatchNorm2d(32),
        *_activate_and_average(_EEGNET_POOLS[1], activation, dropout),
    )
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(32 * (in_shape[1] // _EEGNET_SAMPLES), n_outputs)
    net = nn.Sequential(layers)
    init_weights(net, init)
    return net


def eegnet_v4(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 8,
    depth: Width = 2,
    kernel: Width = 64,
    dropout: DropProb = 0.25,
    activation: Activation = "elu",
    init: Init = "xavier",
) -> nn.Module:
    """Return the published EEGNet: filters over time, filters over the channels for each, a separable convolution.

    The weights into each filter over the channels have a norm of at most 1, those into each output of at most 0.25. The
    running statistics of its norms take in 1 % of each batch, so they want some hundred steps.

    Args:
        in_shape: (C, T), T at least 32 samples. Kernels and pools are meant for 128 Hz.
        n_outputs: K, columns of the logits.
        width: filters over time (F1 of the paper).
        depth: filters over the channels for each of them (D). The separable convolution keeps their number (F2 = F1 D).
        kernel: samples of a filter over time; the paper takes half a second.
        dropout: probability after each pool; the paper takes 0.5 within and 0.25 across subjects.
        activation: after the norms behind the filters over the channels and behind the separable convolution.
        init: of convolutions and the linear layer; `xavier` is normal, and that of the original uniform.

    Raises:
        ConfigError: `in_shape` is no signal or too short.

    Source: Lawhern et al. 2018 (https://arxiv.org/abs/1611.08024, version 4), EEGNet-8,2.
    """
    channels = signal_channels("eegnet_v4", in_shape, _EEGNET_SAMPLES)
    n_filters = width * depth
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["map"] = AsMap()
    layers["temporal"] = nn.Sequential(_same(kernel), nn.Conv2d(1, width, (1, kernel), bias=False), _slow_norm(width))
    layers["spatial"] = nn.Sequential(
        nn.Conv2d(width, n_filters, (channels, 1), groups=width, bias=False),
        _slow_norm(n_filters),
        *_activate_and_average(_EEGNET_POOLS[0], activation, dropout),
    )
    layers["separable"] = nn.Sequential(
        _same(16),
        Separable(n_filters, 16),
        _slow_norm(n_filters),
        *_activate_and_average(_EEGNET_POOLS[1], activation, dropout),
    )
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(n_filters * (in_shape[1] // _EEGNET_SAMPLES), n_outputs)
    net = MaxNormNet(layers, {"spatial.0.weight": 1.0, "linear.weight": 0.25})
    init_weights(net, init)
    net.constrain()
    return net


def deepconvnet(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    dropout: DropProb = 0.5,
    activation: Activation = "relu",
    init: Init = "default",
) -> nn.Module:
    """Return the DeepConvNet that courses teach: four blocks of convolution, norm, activation, max-pool, dropout.

    150,977 parameters for two channels of 750 samples and two classes. It differs from the published net (`deep4net`)
    in kernels of 5 instead of 10 samples and pools of 2 instead of 3, as its signals are sampled half as often, in
    biases that the norms behind them take out again, and in dropout before the linear layer too.

    Args:
        in_shape: (C, T), T at least 76 samples.
        n_outputs: K, columns of the logits.
        dropout: probability after each pool.
        activation: after every norm.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no signal or too short.

    Source: as `eegnet`; these kernels and pools are those of Lawhern et al. 2018 for 128 Hz.
    """
    blocks = _deep_blocks("deepconvnet", in_shape, 5, 2, True, dropout, activation)
    blocks["dropout"] = dropout_layer(dropout)
    return _with_head(blocks, in_shape, n_outputs, 5, 2, init)


def deep4net(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    kernel: Width = 10,
    pool: Width = 3,
    dropout: DropProb = 0.5,
    activation: Activation = "elu",
    init: Init = "xavier",
) -> nn.Module:
    """Return the published deep ConvNet: four blocks of convolution, norm, activation, max-pool; dropout between them.

    The first block convolves over time and then over all channels. The last layer sees the whole map, so that it is a
    linear one; its first weights are those of a linear layer.

    Args:
        in_shape: (C, T), T at least 441 samples, or what smaller kernels and pools need. They are meant for 250 Hz.
        n_outputs: K, columns of the logits.
        kernel: samples of each convolution over time.
        pool: samples of each pool, and its stride.
        dropout: probability before each block but the first.
        activation: after every norm.
        init: of convolutions and the linear layer; `xavier` is normal, and that of the original uniform.

    Raises:
        ConfigError: `in_shape` is no signal or too short.

    Source: Schirrmeister et al. 2017 (https://doi.org/10.1002/hbm.23730), trained on whole trials.
    """
    blocks = _deep_blocks("deep4net", in_shape, kernel, pool, False, dropout, activation)
    return _with_head(blocks, in_shape, n_outputs, kernel, pool, init)


class AsMap(nn.Module):
    """Signals (B, C, T) as maps (B, 1, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a view, on a CPU with the strides of channels-last, which all layers behind it then keep."""
        return x.unsqueeze(-1).permute(0, 3, 1, 2) if x.device.type == "cpu" else x.unsqueeze(1)


class TimeThenChannels(nn.Module):
    """Filters over time, and behind them filters over all channels of all of these: (B, C, T) to (B, F, 1, T - k + 1).

    Nothing stands between the two, so they are computed as the one convolution that they amount to, and the maps
    (B, F, C, T) between them, which grow with the channels, never exist.
    """

    def __init__(self, channels: int, width: int, kernel: int, spatial_bias: bool) -> None:
        super().__init__()
        self.temporal = nn.Conv2d(1, width, (1, kernel))
        self.spatial = nn.Conv2d(width, width, (channels, 1), bias=spatial_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the spatial convolution makes of the temporal one's output."""
        over_channels = self.spatial.weight.squeeze(3)
        weight = torch.einsum("oic,ik->ock", over_channels, self.temporal.weight[:, 0, 0])
        bias = functional.linear(self.temporal.get_parameter("bias"), over_channels.sum(2), self.spatial.bias)
        rows = x.unsqueeze(2)
        if x.device.type == "cpu":
            rows = rows.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(rows, weight.unsqueeze(2), bias)


class Separable(nn.Module):
    """A filter over time for each channel, and mixtures of these: (B, F, 1, T) to (B, F, 1, T - k + 1).

    Computed as the one convolution that the two amount to. Not for speed alone: on a CPU torch 2.15 never comes back
    from some depthwise convolutions of bf16 maps that are wide, one pixel high and channels-last.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, (1, kernel), groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the pointwise convolution makes of the depthwise one's output."""
        return functional.conv2d(x, self.pointwise.weight * self.depthwise.weight.transpose(0, 1))


def _activate_and_average(pool: int, activation: Activation, dropout: float) -> list[nn.Module]:
    return [make_activation(activation), nn.AvgPool2d((1, pool)), dropout_layer(dropout)]


def _same(kernel: int) -> nn.Module:
    """Return the padding that keeps the length; of an even kernel the odd zero comes last, as in TensorFlow."""
    return nn.ZeroPad2d(((kernel - 1) // 2, kernel // 2, 0, 0))


def _slow_norm(n_channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with the defaults of Keras."""
    return nn.BatchNorm2d(n_channels, eps=1e-3, momentum=0.01)


def _deep_blocks(
    name: str,
    in_shape: tuple[int, ...],
    kernel: int,
    pool: int,
    has_biases: bool,
    dropout: float,
    activation: Activation,
) -> OrderedDict[str, nn.Module]:
    """Return the four blocks of a deep net; dropout stands before all but the first."""
    channels = signal_channels(name, in_shape, _deep_min_samples(kernel, pool))
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = channels
    for number, n_out in enumerate(_DEEP_WIDTHS, start=1):
        first = [TimeThenChannels(channels, n_out, kernel, has_biases)]
        later = [dropout_layer(dropout), nn.Conv2d(n_in, n_out, (1, kernel), bias=has_biases)]
        pooled = pool_and_activate(nn.MaxPool2d((1, pool)), activation)
        blocks[f"block{number}"] = nn.Sequential(*(first if number == 1 else later), nn.BatchNorm2d(n_out), *pooled)
        n_in = n_out
    return blocks


def _with_head(
    blocks: OrderedDict[str, nn.Module], in_shape: tuple[int, ...], n_outputs: int, kernel: int, pool: int, init: Init
) -> nn.Module:
    """Return the blocks and a linear layer on the map that they leave, with its first weights."""
    n_samples = in_shape[1]
    for _ in _DEEP_WIDTHS:
        n_samples = (n_samples - kernel + 1) // pool
    blocks["flatten"] = nn.Flatten()
    blocks["linear"] = nn.Linear(_DEEP_WIDTHS[-1] * n_samples, n_outputs)
    net = nn.Sequential(blocks)
    init_weights(net, init)
    return net


def _deep_min_samples(kernel: int, pool: int) -> int:
    """Return the shortest signal of which the last pool leaves one sample."""
    n_samples = 1
    for _ in _DEEP_WIDTHS:
        n_samples = n_samples * pool + kernel - 1
    return n_samples
