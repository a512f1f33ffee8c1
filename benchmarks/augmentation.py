"""How fast are the changes of training images? Images per second at 32 and at 224 px, keyed draws included.

    python benchmarks/augmentation.py        # a minute; --device cuda for a GPU

Each change alone, and together; `albumentations` is the same recipe by that library, reseeded per sample as Podium
runs it in one process. Writes `benchmarks/results/augmentation.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from entry import start

from pipeline.augment.albumentations import build_recipe
from pipeline.augment.images import augment_images
from pipeline.base.files import write_text
from pipeline.data.batches import draws_of, samples_of, seeds_of, shuffled
from pipeline.records.augmentation import Augment
from pipeline.training.device import resolve_device, threads

PROJECT = Path(__file__).parent.parent
SIZES = {32: 256, 224: 64}
"""Pixels, and images of a batch."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every recipe at every size, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    device = resolve_device(wishes.device)
    with threads(wishes.threads):
        columns = {px: measure(px, n, device, wishes.rounds) for px, n in SIZES.items()}
    names = list(next(iter(columns.values())))
    lines = ["| change | " + " | ".join(f"{px} px" for px in columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(f"{columns[px][name]:,.0f}" for px in columns) + " |" for name in names]
    origin = f"{platform.machine()}, {device}, {wishes.threads} threads, torch {torch.__version__}"
    text = (
        f"Images per second, uint8 RGB, batches of {' and '.join(map(str, SIZES.values()))}; median of {wishes.rounds}"
        f" rounds.\n\n" + "\n".join(lines) + f"\n\nMade on {origin}; {time.strftime('%Y-%m-%d')}.\n"
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
    together = {key: value for name in ("shift", "flip", "erasing", "cutout") for key, value in blocks[name].items()}
    blocks["shift + flip + erasing + cutout"] = together
    return {name: Augment.model_validate(block) for name, block in blocks.items()}


def measure(px: int, n: int, device: str, n_rounds: int) -> dict[str, float]:
    """Return images per second of each recipe at one size; the recipes take turns, the first round is not counted."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (n, 3, px, px), dtype=np.uint8)
    images = torch.from_numpy(stored).to(device)
    samples = samples_of([str(number) for number in range(n)], [(number,) for number in range(n)], np.arange(n))
    order = shuffled(samples, 0, 0)
    whole = slice(0, n)

    def ours(augment: Augment) -> Callable[[], object]:
        return lambda: augment_images(
            images, augment, *(draws_of(samples, order, whole, device, 0, epoch) for epoch in (0, None))
        )

    ways = {name: ours(augment) for name, augment in recipes(px).items()}
    transforms = [
        {"Pad": {"padding": px // 8}},
        {"RandomCrop": {"height": px, "width": px}},
        "HorizontalFlip",
        "Erasing",
        {"CoarseDropout": {"num_holes_range": [1, 1], "hole_height_range": [0.5, 0.5], "hole_width_range": [0.5, 0.5]}},
    ]
    recipe = build_recipe(transforms, (3, px, px), 255.0)
    ways["albumentations, the last line's like"] = lambda: recipe(stored, seeds_of(samples, order, whole, 0, 0))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(n_rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if device != "cpu":
                torch.cuda.synchronize()
            if number:
                speeds[name].append(n / (time.perf_counter() - started))
    return {name: median(values) for name, values in speeds.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each recipe")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/augmentation.md", help="the table")
    return parser


if __name__ == "__main__":
    start("augmentation", main)
