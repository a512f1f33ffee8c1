"""Own nets for small images (8 to 64 px, any number of channels): a plain one and a residual one."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.base.errors import ConfigError
from pipeline.models.init import Activation, DropProb, Init, Width, init_weights, make_activation, pool_and_activate

MIN_PX = 8  # three halvings leave one pixel


def cnn3(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 32,
    convs_per_block: Annotated[int, Field(ge=1, le=4)] = 1,
    pool: Literal["avg", "max"] = "avg",
    dropout: DropProb = 0.0,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a net of three blocks (3x3 convolutions, batch norm, activation, 2x2 max-pool) and a global pool.

    Args:
        in_shape: (C, H, W), H and W at least 8 px.
        n_outputs: K, columns of the logits.
        width: channels of the first block; the next two have 2 and 4 times as many.
        convs_per_block: convolutions before each pool.
        pool: how the last map becomes one vector.
        dropout: probability before the linear layer.
        activation: after every norm.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no image or too small.
    """
    return _plain("cnn3", in_shape, n_outputs, 3, width, convs_per_block, pool, dropout, activation, init)


def cnn(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    blocks: Annotated[int, Field(ge=1, le=7)] = 4,
    width: Width = 32,
    convs_per_block: Annotated[int, Field(ge=1, le=4)] = 1,
    pool: Literal["avg", "max"] = "avg",
    dropout: DropProb = 0.0,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a net like `cnn3` of any number of blocks, for pictures from 8 px (three blocks) to some 200 (six).

    Args:
        in_shape: (C, H, W), H and W at least 2 to the power of `blocks` px, and at least 8.
        n_outputs: K, columns of the logits.
        blocks: each halves the map and doubles the channels.
        width: channels of the first block.
        convs_per_block: convolutions before each pool.
        pool: how the last map becomes one vector.
        dropout: probability before the linear layer.
        activation: after every norm.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no image or too small.
    """
    return _plain("cnn", in_shape, n_outputs, blocks, width, convs_per_block, pool, dropout, activation, init)


def _plain(
    name: str,
    in_shape: tuple[int, ...],
    n_outputs: int,
    blocks: int,
    width: int,
    convs_per_block: int,
    pool: Literal["avg", "max"],
    dropout: float,
    activation: Activation,
    init: Init,
) -> nn.Module:
    """Return blocks of convolutions, each twice as wide as the one before it and pooled, and a linear layer."""
    channels = image_channels(name, in_shape, max(MIN_PX, 2**blocks))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(blocks):
        layers[f"block{number + 1}"] = _conv_block(channels, width << number, convs_per_block, activation)
        channels = width << number
    layers["pool"] = GlobalPool(pool)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(channels, n_outputs)
    net = nn.Sequential(layers)
    init_weights(net, init)
    return net


def resnet_small(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Width = 32,
    depth: Annotated[int, Field(ge=1)] = 2,
    dropout: DropProb = 0.0,
    drop_path: DropProb = 0.0,
    activation: Activation = "relu",
    init: Init = "he",
) -> nn.Module:
    """Return a residual net: a 3x3 stem, three stages of basic blocks (stride 2 between stages), a global average.

    The last norm of every block starts at zero, so that each block starts as its shortcut.

    Args:
        in_shape: (C, H, W), H and W at least 8 px.
        n_outputs: K, columns of the logits.
        width: channels of the stem and first stage; the next two have 2 and 4 times as many.
        depth: blocks per stage; 6 * depth + 2 layers in all (3 is ResNet-20 with its shortcuts convolved).
        dropout: probability before the linear layer.
        drop_path: probability that a sample skips the last block; it rises linearly from zero over the blocks.
        activation: after every norm and every addition.
        init: of convolutions and the linear layer.

    Raises:
        ConfigError: `in_shape` is no image or too small.

    Source: He et al. 2015 (https://arxiv.org/abs/1512.03385), section 4.2; stochastic depth of Huang et al. 2016
    (https://arxiv.org/abs/1603.09382); zero gamma of Goyal et al. 2017 (https://arxiv.org/abs/1706.02677).
    """
    channels = image_channels("resnet_small", in_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(*_conv_norm(channels, width), make_activation(activation))
    channels = width
    for number in range(3 * depth):
        stage, place = divmod(number, depth)
        stride = 2 if stage and not place else 1
        prob = drop_path * number / (3 * depth - 1)
        layers[f"stage{stage + 1}_block{place + 1}"] = ResidualBlock(
            channels, width * 2**stage, stride, prob, activation
        )
        channels = width * 2**stage
    layers["pool"] = GlobalPool("avg")
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(channels, n_outputs)
    net = nn.Sequential(layers)
    init_weights(net, init)
    return net


def blocks_for(side: int) -> int:
    """Return how many blocks of `cnn` leave a map of about 3 px of pictures whose smaller side has `side` px."""
    return max(1, min(7, round(math.log2(max(side, MIN_PX) / 3))))


def image_channels(name: str, in_shape: tuple[int, ...], min_px: int = MIN_PX) -> int:
    """Return C of an image shape (C, H, W).

    Raises:
        ConfigError: `in_shape` is not (C, H, W) or a side is below `min_px`; `name` is the model in the message.
    """
    if len(in_shape) != 3:
        raise ConfigError(
            f"model.name: '{name}' needs images (C, H, W), the items here are {in_shape}. "
            "Own nets for signals: conv1d, deep4net, deepconvnet, eegnet, eegnet_v4, meg_basic, meg_residual, mlp"
        )
    if min(in_shape[1:]) < min_px:
        raise ConfigError(
            f"model.name: '{name}' needs images of at least {min_px} x {min_px} px, these are "
            f"{in_shape[1]} x {in_shape[2]}. Set a larger input.size, or take mlp, which works at any size"
        )
    return in_shape[0]


class GlobalPool(nn.Module):
    """The mean or the maximum of each channel's map: (B, C, H, W) or (B, C, T) to (B, C)."""

    def __init__(self, kind: Literal["avg", "max"]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C)."""
        return x.flatten(2).mean(2) if self.kind == "avg" else x.flatten(2).max(2).values

    def extra_repr(self) -> str:
        """Return what printing the model shows."""
        return self.kind


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms, added to a shortcut that is convolved (1x1) only where the shape changes."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, drop_path_prob: float, activation: Activation
    ) -> None:
        super().__init__()
        self.drop_path_prob = drop_path_prob
        self.act = make_activation(activation)
        self.conv1, self.norm1 = _conv_norm(in_channels, out_channels, stride)
        self.conv2, self.norm2 = _conv_norm(out_channels, out_channels)
        nn.init.zeros_(self.norm2.weight)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(*_conv_norm(in_channels, out_channels, stride, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        branch = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        if self.training and self.drop_path_prob:
            branch = drop_samples(branch, self.drop_path_prob)
        out: Tensor = self.act(branch + (x if self.shortcut is None else self.shortcut(x)))
        return out


def drop_samples(branch: Tensor, drop_prob: float) -> Tensor:
    """Return `branch` with whole samples zeroed with `drop_prob` and the others scaled by 1 / (1 - drop_prob).

    Draws from torch's global generator, one number per sample of (B, ...).
    """
    keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= drop_prob
    return branch * (keep / (1 - drop_prob)).to(branch.dtype)


def _conv_block(in_channels: int, out_channels: int, n_convs: int, activation: Activation) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(n_convs):
        if number:
            layers.append(make_activation(activation))
        layers += _conv_norm(in_channels if number == 0 else out_channels, out_channels)
    return nn.Sequential(*layers, *pool_and_activate(nn.MaxPool2d(2), activation))


def _conv_norm(
    in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a convolution and its norm, whose shift makes a bias of the convolution useless."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(out_channels)
