"""How fast are the changes of training images? Images per second at 32 and at 224 px, keyed draws included.

    python benchmarks/augmentation.py        # three minutes; --device cuda for a GPU

Each change alone; then shift, flip, erasing, cutout and normalisation together, beside the same recipe by
albumentations in two forms: its transforms reseeded for each image, so that draws are keyed as ours are, and one
`Compose` with a seed of its own, as most of its users write it. One process and one thread on both sides, which keeps
freed memory as the command `podium` does; all ways take turns, and ratios are taken within a turn. Writes
`benchmarks/results/augmentation.md`.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from entry import start
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment.draw import Draw
from pipeline.augment.images import augment_images
from pipeline.base.allocator import keep_freed_memory
from pipeline.base.files import write_text
from pipeline.data.batches import draws_of, samples_of, seeds_of, shuffled
from pipeline.records.augmentation import Augment
from pipeline.training.device import resolve_device, threads
from pipeline.training.scaling import Scaling, prepare

PROJECT = Path(__file__).parent.parent
SIZES = {32: 256, 224: 64}
"""Pixels, and images of a batch."""
N_BATCHES = 4
"""In a row, before the next way has its turn."""
TOGETHER = ("shift", "flip", "erasing", "cutout")
MEAN, STD = (120.0, 115.0, 105.0), (62.0, 61.0, 65.0)

OURS = " + ".join((*TOGETHER, "normalised"))
DRAWS = "the draws of the line above alone"
PEERS = "albumentations, reseeded per image", "albumentations, Compose"

Way = Callable[[], object]


@dataclass(frozen=True)
class Batch:
    """What both sides change: the same bytes in the layout that each takes."""

    images: Tensor
    """(B, C, H, W) uint8, on the device."""
    pictures: NDArray[np.uint8]
    """(B, H, W, C)."""
    draws: Draw
    lasting: Draw
    seeds: NDArray[np.uint64]
    """(B,) one for each image."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way at every size, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    device = resolve_device(wishes.device)
    keep_freed_memory()
    cv2.setNumThreads(wishes.threads if wishes.threads > 1 else 0)
    with threads(wishes.threads):
        speeds = {px: measure(ways_of(make_batch(px, n, device)), n, wishes.rounds, device) for px, n in SIZES.items()}
    origin = f"{platform.machine()}, {device}, {wishes.threads} thread(s), torch {torch.__version__}"
    text = (
        f"Images per second, uint8 RGB, batches of {' and '.join(map(str, SIZES.values()))}: median of {wishes.rounds}"
        f" rounds (quartiles).\n\n{table(speeds)}\n\nMade on {origin}, albumentations {albumentations.__version__};"
        f" {time.strftime('%Y-%m-%d')}.\n"
    )
    write_text(wishes.out, text)
    print(text)


def recipes(px: int) -> dict[str, Augment]:
    """Return the recipes by name, with strengths in proportion to the size."""
    blocks: dict[str, dict[str, object]] = {
        "shift": {"shift": {"max_px": px // 8}},
        "flip": {"flip": {}},
        "affine": {"affine": {"max_rotate_deg": 15.0, "max_scale": 0.1}},
        "resized_crop": {"resized_crop": {"min_area": 0.5}},
        "colour": {"colour": {"max_brightness": 0.3, "max_contrast": 0.3, "max_saturation": 0.3}},
        "erasing": {"erasing": {}},
        "cutout": {"cutout": {"size_px": px // 2}},
    }
    blocks[OURS] = {key: value for name in TOGETHER for key, value in blocks[name].items()}
    return {name: Augment.model_validate(block) for name, block in blocks.items()}


def make_batch(px: int, n: int, device: str) -> Batch:
    """Return n made-up images and what draws their changes."""
    stored = np.random.default_rng(0).integers(0, 256, (n, 3, px, px), dtype=np.uint8)
    samples = samples_of([str(number) for number in range(n)], [(number,) for number in range(n)], np.arange(n))
    order, whole = shuffled(samples, 0, 0), slice(0, n)
    draws, lasting = (draws_of(samples, order, whole, device, 0, epoch) for epoch in (0, None))
    pictures = np.ascontiguousarray(stored.transpose(0, 2, 3, 1))
    seeds = seeds_of(samples, order, whole, 0, 0)
    return Batch(torch.from_numpy(stored).to(device), pictures, draws, lasting, seeds)


def ways_of(batch: Batch) -> dict[str, Way]:
    """Return what is measured, by name: each change alone, all together, the draws of these, the peers."""
    px = batch.images.shape[2]
    device = batch.images.device
    nothing = torch.zeros(1, device=device)
    scaling = Scaling(torch.tensor(MEAN, device=device), torch.tensor(STD, device=device), nothing, nothing)

    def ours(augment: Augment, is_normalised: bool) -> Way:
        def way() -> Tensor:
            changed = augment_images(batch.images, augment, batch.draws, batch.lasting)
            return prepare(changed, scaling) if is_normalised else changed

        return way

    ways = {name: ours(augment, name == OURS) for name, augment in recipes(px).items()}
    asked = asked_draws(batch, recipes(px)[OURS])
    ways[DRAWS] = lambda: [batch.draws(name, n) for name, n in asked]
    reseeded, composed = peer_transforms(px), albumentations.Compose(peer_transforms(px), seed=0)
    ways[PEERS[0]] = lambda: by_transforms(reseeded, batch)
    ways[PEERS[1]] = lambda: as_batch([composed(image=picture)["image"] for picture in batch.pictures])
    return ways


def asked_draws(batch: Batch, augment: Augment) -> list[tuple[str, int]]:
    """Return which draws a recipe asks for, (name, number of draws) each."""
    asked: list[tuple[str, int]] = []

    def noting(name: str, n: int) -> Tensor:
        asked.append((name, n))
        return batch.draws(name, n)

    augment_images(batch.images, augment, noting, batch.lasting)
    return asked


def peer_transforms(px: int) -> list[Any]:
    """Return the recipe as transforms of albumentations; normalised in float32, as ours."""
    return [
        albumentations.Pad(padding=px // 8),
        albumentations.RandomCrop(height=px, width=px),
        albumentations.HorizontalFlip(),
        albumentations.Erasing(),
        albumentations.CoarseDropout((1, 1), (0.5, 0.5), (0.5, 0.5)),
        albumentations.Normalize(MEAN, STD, max_pixel_value=1.0),
    ]


def by_transforms(transforms: Sequence[Any], batch: Batch) -> Tensor:
    """Return the batch after the transforms, each image with generators of its own seed."""
    results = []
    for picture, seed in zip(batch.pictures, batch.seeds.tolist(), strict=True):
        generators = np.random.default_rng(seed), random.Random(seed)
        for transform in transforms:
            transform.set_random_state(*generators)
            picture = transform(image=picture)["image"]
        results.append(picture)
    return as_batch(results)


def as_batch(pictures: list[NDArray[np.float32]]) -> Tensor:
    """Return pictures (H, W, C) as a batch (B, C, H, W), channels last."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def measure(ways: dict[str, Way], n: int, n_rounds: int, device: str) -> dict[str, NDArray[np.float64]]:
    """Return images per second of each way in each round, (n_rounds,); the ways take turns, the first is not counted.

    One thread is timed by what its process computes, so that other programs take nothing but cache from it.
    """
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(n_rounds + 1):
        for name, way in ways.items():
            started = clock()
            for _ in range(N_BATCHES):
                way()
            if device != "cpu":
                torch.cuda.synchronize()
            if number:
                speeds[name].append(n * N_BATCHES / (clock() - started))
    return {name: np.array(values) for name, values in speeds.items()}


def table(speeds: dict[int, dict[str, NDArray[np.float64]]]) -> str:
    """Return the lines of the table: speeds by way and size, then what follows from them round by round."""
    names = [name for name in next(iter(speeds.values())) if name != DRAWS]
    lines = ["| change | " + " | ".join(f"{px} px" for px in speeds) + " |", "|---|" + "---:|" * len(speeds)]
    rows = {name: [_spread(by_name[name], ",.0f") for by_name in speeds.values()] for name in names}
    for peer in PEERS:
        rows[f"all together / {peer}"] = [_spread(by_name[OURS] / by_name[peer], ".1f") for by_name in speeds.values()]
    rows["share of the keyed draws in it, %"] = [
        _spread(100 * by_name[OURS] / by_name[DRAWS], ".1f") for by_name in speeds.values()
    ]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())])


def _spread(values: NDArray[np.float64], form: str) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:{form}} ({low:{form}}..{high:{form}})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, on both sides")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each way")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/augmentation.md", help="the table")
    return parser


if __name__ == "__main__":
    start("augmentation", main)
