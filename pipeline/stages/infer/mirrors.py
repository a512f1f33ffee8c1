"""Whether pictures may be mirrored: not where a net tells them from their mirror images, of all classes or of one.

Photographs look alike both ways; digits, letters and X-rays do not, and arrows do as a whole but not class by class. So
a small net is asked which of two, a picture and its mirror image, is the picture, and is told the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.base.keyed import make_key, permutation, seeded
from pipeline.training.device import threads

MIN_PICTURES = 80
"""Of fewer nothing is said."""
MOST_LABELS = 64
"""With more labels there are too few pictures of each to learn one by one."""
_N_STEPS, _BATCH = 160, 64
_TOLD, _CLASS_TOLD = 0.6, 0.8
_FEWEST_OF_CLASS = 12
_WAYS: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: x.flip(-1), lambda x: x.flip(-2))


@dataclass(frozen=True)
class Told:
    """How well pictures are told from what a mirror makes of them."""

    share: float
    """Of held-out pairs in which the picture was found; 0.5 is by chance."""
    worst: float | None
    """The largest such share of one class with enough pairs; None where there is none."""
    n_pairs: int
    is_told: bool
    """Whether a class, or all of them, look otherwise in the mirror."""


def tell_from_mirrored(pictures: NDArray[np.float32], labels: NDArray[np.float32]) -> tuple[Told, Told] | None:
    """Return how well pictures are told from those mirrored left-right, and from those upside down.

    Args:
        pictures: (N, C, S, S), S at least 8 px, of any scale.
        labels: (N, L) shares of each label; read where L is at most 64.

    Returns:
        None of fewer than 80 pictures.
    """
    if len(pictures) < MIN_PICTURES:
        return None
    images = torch.from_numpy(pictures)
    images = (images - images.mean()) / images.std().clamp(min=1e-6)
    known = torch.from_numpy(labels if labels.shape[1] <= MOST_LABELS else labels[:, :0])
    order = torch.from_numpy(permutation(make_key("mirrors"), len(pictures)))
    held, train = order[: len(order) // 3], order[len(order) // 3 :]
    with threads(1), seeded(make_key("mirrors", "net")):  # more would not be quicker, and give other last bits
        net = _Chooser(images.shape[1], known.shape[1])
        with torch.enable_grad():
            _fit(net, images[train], known[train])
        with torch.no_grad():
            is_right = net.eval()(images[held], known[held]) > 0
    left_right, upside_down = (_told(is_right[:, way], known[held]) for way in range(len(_WAYS)))
    return left_right, upside_down


class _Chooser(nn.Module):
    """Scores a picture and its mirror image, with a part for every picture and one for each label."""

    def __init__(self, n_channels: int, n_labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (16, 32, 64):
            # In this order and layout a step takes a third of the time of the usual one.
            layers += [nn.Conv2d(n_channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            n_channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(
            memory_format=torch.channels_last
        )
        self.shared = nn.Linear(n_channels, len(_WAYS), bias=False)
        self.of_label = nn.Parameter(torch.zeros(len(_WAYS), n_labels, n_channels))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (B, 2): above zero where the picture is preferred to its mirror image."""
        versions = torch.cat([images, *(way(images) for way in _WAYS)]).to(memory_format=torch.channels_last)
        own, *mirrored = self.features(versions).chunk(1 + len(_WAYS))
        differences = torch.stack([own - other for other in mirrored], dim=1)  # (B, ways, F)
        weights = self.shared.weight + torch.einsum("bl,wlf->bwf", labels, self.of_label)
        return (differences * weights).sum(-1)


def _fit(net: _Chooser, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, _N_STEPS)
    n_passes = -(-_N_STEPS * _BATCH // len(images))
    order = np.concatenate([permutation(make_key("mirrors", number), len(images)) for number in range(n_passes)])
    for step in range(_N_STEPS):
        chosen = torch.from_numpy(order[step * _BATCH : (step + 1) * _BATCH])
        loss = nn.functional.softplus(-net(images[chosen], labels[chosen])).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _told(is_right: Tensor, labels: Tensor) -> Told:
    """Return what held-out pairs (N,) say, all together and class by class."""
    share, n_pairs = float(is_right.float().mean()), len(is_right)
    of_class = [is_right[labels[:, label] > 0.5] for label in range(labels.shape[1])]
    shares = [(float(own.float().mean()), len(own)) for own in of_class if len(own) >= _FEWEST_OF_CLASS]
    is_told = _is_beyond(share, n_pairs, _TOLD, 2) or any(_is_beyond(own, n, _CLASS_TOLD, 3) for own, n in shares)
    return Told(share, max((own for own, _ in shares), default=None), n_pairs, is_told)


def _is_beyond(share: float, n: int, least: float, n_errors: float) -> bool:
    """Say whether a share of n is at least `least`, and so far above one half that chance does not explain it."""
    return share >= least and share - 0.5 > n_errors * 0.5 / n**0.5
