"""A net for quick trainings of small images: a whitening first layer that is measured, then six wide convolutions."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.image_nets import GlobalPool, image_channels
from pipeline.models.init import Activation, DropProb, Width, make_activation

PATCH_PX = 2
_VARIANCE_FLOOR = 5e-4
"""Added to every variance of a patch before its root is divided by: directions that hold next to nothing stay small."""
_NORM_MOMENTUM = 0.4
"""Share of the newest batch in the running statistics; the trainings are short, and so is the memory of their norms."""


@runtime_checkable
class Measured(Protocol):
    """A net of which a part is no weight to be learnt but measured on the training items."""

    def measure(self, inputs: Tensor) -> None:
        """Measure it on normalised items (N, ...) of the training part."""


def speednet(
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    widths: tuple[Width, Width, Width] = (64, 256, 256),
    logit_scale: Annotated[float, Field(gt=0)] = 1 / 9,
    dropout: DropProb = 0.0,
    activation: Activation = "gelu",
) -> nn.Module:
    """Return a net for short trainings: whitened 2x2 patches, three blocks of two 3x3 convolutions, max-pools.

    The first convolution is measured, not learnt: the eigenvectors of the patches of the training part, each with both
    signs and scaled to variance one. Of the norms only the shifts are learnt. Each 3x3 convolution starts as the
    identity as far as it has inputs, so that the image reaches the last layer from the first step on.

    Args:
        in_shape: (C, H, W), H and W at least 17 px.
        n_outputs: K, columns of the logits.
        widths: channels of the three blocks.
        logit_scale: what the logits are multiplied by, which keeps the first ones small.
        dropout: probability before the linear layer.
        activation: after the whitening and after every norm.

    Raises:
        ConfigError: `in_shape` is no image or too small.

    Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (https://arxiv.org/abs/2404.00498), which has
    the whitening from Page 2018 (https://github.com/davidcpage/cifar10-fast), and this shape and start.
    """
    channels = image_channels("speednet", in_shape, min_px=17)
    return SpeedNet(channels, widths, n_outputs, logit_scale, dropout, activation)


class SpeedNet(nn.Module):
    """See `speednet`."""

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int, int],
        n_outputs: int,
        logit_scale: float,
        dropout: float,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.whitening = Whitening(in_channels)
        self.act = make_activation(activation)
        channels = self.whitening.out_channels
        blocks = []
        for width in widths:
            blocks.append(_block(channels, width, activation))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = GlobalPool("max")
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, n_outputs, bias=False)
        self.logit_scale = logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K)."""
        features = self.pool(self.blocks(self.act(self.whitening(x))))
        logits: Tensor = self.linear(self.dropout(features))
        return logits * self.logit_scale

    def measure(self, inputs: Tensor) -> None:
        """Set the whitening by the patches of normalised images (N, C, H, W)."""
        self.whitening.measure(inputs)


class Whitening(nn.Module):
    """A fixed 2x2 convolution (B, C, H, W) -> (B, 8 C, H - 1, W - 1) onto the directions in which patches vary.

    Each output has variance one over the patches that it was measured on; every direction comes with both signs, since
    the activation behind it keeps one of them. The shift is learnt. Until it is measured it passes patches as they are.
    """

    weight: Tensor

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        n_values = in_channels * PATCH_PX**2
        self.out_channels = 2 * n_values
        plain = torch.eye(n_values).reshape(n_values, in_channels, PATCH_PX, PATCH_PX)
        self.register_buffer("weight", torch.cat([plain, -plain]))
        self.bias = nn.Parameter(torch.zeros(self.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the patches of x in the measured directions."""
        return functional.conv2d(x, self.weight, self.bias)

    @torch.no_grad()
    def measure(self, inputs: Tensor) -> None:
        """Take the directions of the patches of images (N, C, H, W), largest variance first."""
        device, n_values = self.weight.device, self.out_channels // 2
        patches = functional.unfold(inputs.float(), PATCH_PX).transpose(1, 2).reshape(-1, n_values)
        # On the host in float64: eigenvectors, and so all that is learnt on them, must not depend on the device.
        patches = patches.cpu().double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        scaled = (directions / (variances + _VARIANCE_FLOOR).sqrt()).flip(1).T
        # An eigenvector has no sign of its own; its largest entry shall be positive.
        largest = scaled.gather(1, scaled.abs().argmax(1, keepdim=True))
        scaled = (scaled * largest.sign()).reshape(n_values, -1, PATCH_PX, PATCH_PX)
        self.weight.copy_(torch.cat([scaled, -scaled]).to(device, self.weight.dtype))

    def extra_repr(self) -> str:
        """Return what printing the model shows."""
        return f"{self.out_channels // 8}, {self.out_channels}, patches of {PATCH_PX} px"


class ShiftNorm(nn.BatchNorm2d):
    """Batch norm that learns a shift and no scale: the scale of a convolution before it needs no second one."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels, momentum=_NORM_MOMENTUM, affine=False)
        self.bias = nn.Parameter(torch.zeros(n_channels))


def _block(in_channels: int, out_channels: int, activation: Activation) -> nn.Sequential:
    """Return conv, 2x2 max-pool, norm, activation, conv, norm, activation."""
    return nn.Sequential(
        _identity_conv(in_channels, out_channels),
        nn.MaxPool2d(2),
        ShiftNorm(out_channels),
        make_activation(activation),
        _identity_conv(out_channels, out_channels),
        ShiftNorm(out_channels),
        make_activation(activation),
    )


def _identity_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution without bias whose first outputs are its inputs; the rest starts as torch starts it."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.detach()[:in_channels])
    return conv
