"""What the contestants share: the net, the images read with OpenCV and changed by albumentations, the loss."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for news

import torch
from job import Job, read_rows
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training images, as shares of 255."""
PX, PADDING = 32, 4
ERASING = {"scale": (0.02, 0.33), "ratio": (0.3, 3.3), "p": 0.5}


def make_net(name: str, n_classes: int = 10) -> nn.Module:
    """Return the net: `cnn3` (16, 32 and 64 channels) or `conv5x5` (32 channels), in the order of Podium's layers.

    The activation stands behind the pool, which gives the same values for less work; so neither side has that alone.
    """
    layers: list[nn.Module] = []
    if name == "cnn3":
        channels = 3
        for width in (16, 32, 64):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()]
            channels = width
        head = nn.Linear(channels, n_classes)
        nn.init.kaiming_normal_(head.weight, nonlinearity="relu")
        nn.init.zeros_(head.bias)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    elif name == "conv5x5":
        layers += [nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.4)]
        layers += [nn.Linear(32 * (PX // 2) ** 2, n_classes)]
    else:
        raise SystemExit(f"net '{name}': there are cnn3 and conv5x5")
    return nn.Sequential(OrderedDict((str(number), layer) for number, layer in enumerate(layers)))


def laid_out(net: nn.Module, job: Job) -> nn.Module:
    """Return the net in the memory layout that the job asks for."""
    return net.to(memory_format=torch.channels_last) if job.options.channels_last else net


def compiled(net: nn.Module, job: Job) -> nn.Module:
    """Return the net, compiled if the job asks for it."""
    return torch.compile(net) if job.options.compile else net


def placed(images: Tensor, job: Job) -> Tensor:
    """Return a batch in the memory layout that the job asks for."""
    return images.contiguous(memory_format=torch.channels_last) if job.options.channels_last else images


class Pictures(Dataset[tuple[Tensor, int]]):
    """Files and classes; an image is decoded and changed when it is asked for."""

    def __init__(self, rows: list[tuple[str, int]], change: Callable[..., Any], padding: int) -> None:
        import cv2

        self._cv2 = cv2
        self._rows, self._change, self._padding = rows, change, padding

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self._rows[index]
        image = self._cv2.cvtColor(self._cv2.imread(path), self._cv2.COLOR_BGR2RGB)
        if self._padding:  # by OpenCV itself: albumentations' Pad takes as long as all other changes together
            border = [self._padding] * 4
            image = self._cv2.copyMakeBorder(image, *border, self._cv2.BORDER_CONSTANT, value=(0, 0, 0))
        return self._change(image=image)["image"], label


def loaders(job: Job) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders of training and validation: OpenCV reads, albumentations changes."""
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    last = [A.Normalize(MEAN, STD), ToTensorV2()]
    change = A.Compose([A.RandomCrop(PX, PX), A.HorizontalFlip(), A.Erasing(fill=0, **ERASING), *last])
    train = Pictures(read_rows(job, "train"), change, PADDING)
    val = Pictures(read_rows(job, "val"), A.Compose(last), 0)
    n = job.options.workers
    shared: dict[str, Any] = {"batch_size": job.batch_size, "num_workers": n, "persistent_workers": n > 0}
    return DataLoader(train, shuffle=True, **shared), DataLoader(val, **shared)
