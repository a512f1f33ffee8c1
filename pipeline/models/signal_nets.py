"""A plain net for signals (C, T), and what all nets for signals ask of a shape."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.models.image_nets import GlobalPool
from pipeline.models.init import Activation, DropProb, Init, Width, init_weights, pool_and_activate

MIN_SAMPLES = 8  # three halvings leave one sample


def conv1d(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 32,
    dropout: DropProb = 0.0,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a net of three stages (convolution over time, batch norm, activation, max-pool 2) and a global average.

    Args:
        in_shape: (C, T), T at least 8 samples.
        n_outputs: K, columns of the logits.
        width: channels of the first stage (kernel 7); the next two (kernels 5 and 3) have 2 and 4 times as many.
        dropout: probability before the linear layer.
        activation: after every norm.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no signal or too short.
    """
    channels = signal_channels("conv1d", in_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (factor, kernel) in enumerate(((1, 7), (2, 5), (4, 3)), start=1):
        conv = nn.Conv1d(channels, factor * width, kernel, padding=kernel // 2, bias=False)
        channels = factor * width
        pooled = pool_and_activate(nn.MaxPool1d(2), activation)
        layers[f"block{number}"] = nn.Sequential(conv, nn.BatchNorm1d(channels), *pooled)
    layers["pool"] = GlobalPool("avg")
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(channels, n_outputs)
    net = nn.Sequential(layers)
    init_weights(net, init)
    return net


def signal_channels(name: str, in_shape: tuple[int, ...], min_samples: int = MIN_SAMPLES) -> int:
    """Return C of a signal shape (C, T).

    Raises:
        ConfigError: `in_shape` is not (C, T) or T is below `min_samples`; `name` is the model in the message.
    """
    if len(in_shape) != 2:
        raise ConfigError(
            f"model.name: '{name}' needs signals (C, T), the items here are {in_shape}. "
            "Own nets for images (C, H, W): cnn, cnn3, resnet_small, conv5x5, deepconv, mlp; or any model of timm"
        )
    if in_shape[1] < min_samples:
        raise ConfigError(
            f"model.name: '{name}' needs signals of at least {min_samples} samples, these have {in_shape[1]}: "
            "its kernels and pools would leave none. Own nets for short signals: mlp, meg_basic, meg_residual (any "
            "length), conv1d (from 8 samples), eegnet, eegnet_v4 (from 32)"
        )
    return in_shape[0]
