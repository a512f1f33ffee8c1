"""timm's trainer. `timm_train.py JOB.json`.

The package holds the pieces (loader with its prefetcher, optimiser, loss) but not the script that puts them together;
`main` does that as its train.py does. With a checkout in the job, that train.py itself runs, checkpoints and all.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import MEAN, PADDING, PX, STD, compiled, laid_out, make_net
from job import Job, Reporter, read_job

LOADER: dict[str, Any] = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0}
TRAIN: dict[str, Any] = {"is_training": True, "hflip": 0.5, "color_jitter": 0.0, "re_prob": 0.5, "re_mode": "const"}


def with_crop(train: Any) -> Any:
    """Return the training loader with a random crop from a padded image in place of timm's resized crop."""
    from torchvision.transforms import RandomCrop

    train.dataset.transform.transforms[0] = RandomCrop(PX, padding=PADDING)  # as DeiT does for small images
    return train


def main(job: Job, reporter: Reporter) -> None:
    """Train and validate with the pieces of the package."""
    import torch
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter, accuracy, random_seed

    random_seed(job.seed)
    device = torch.device("cpu")
    shared = {**LOADER, "batch_size": job.batch_size, "num_workers": job.options.workers, "device": device}
    parts = {
        part: create_dataset("", root=job.folder, split=part, is_training=part == "train") for part in ("train", "val")
    }
    train = with_crop(create_loader(parts["train"], (3, PX, PX), **TRAIN, **shared))
    val = create_loader(parts["val"], (3, PX, PX), **shared)
    net = compiled(laid_out(make_net(job.net), job), job)
    optimizer = create_optimizer_v2(net, opt="adamw", lr=job.lr, weight_decay=job.weight_decay)
    loss_of = LabelSmoothingCrossEntropy(smoothing=job.smoothing)
    for _ in range(job.epochs):
        reporter.start()
        net.train()
        for images, labels in train:
            if job.options.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = loss_of(net(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            reporter.n_images += len(labels)
        reporter.stop()
        net.eval()
        top1 = AverageMeter()
        with torch.inference_mode():
            for images, labels in val:
                if job.options.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                top1.update(accuracy(net(images), labels)[0].item(), len(labels))
        reporter.report(top1.avg / 100)


class Counted:
    """A training loader that tells the reporter when an epoch begins and ends and how many images it had."""

    def __init__(self, loader: Any, reporter: Reporter) -> None:
        self._loader, self._reporter = loader, reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._reporter.start()
        for images, labels in self._loader:
            self._reporter.n_images += len(labels)
            yield images, labels
        self._reporter.stop()


def main_of_checkout(job: Job, reporter: Reporter) -> None:
    """Run the checkout's train.py on the same net, images and changes."""
    sys.path.insert(0, job.checkout)
    import timm.data
    import timm.utils
    from timm.models import register_model

    @register_model
    def podium_net(**_: Any) -> Any:
        """Return the net of the benchmark."""
        return make_net(job.net)

    create_loader, update_summary = timm.data.create_loader, timm.utils.update_summary

    def create(*arguments: Any, **options: Any) -> Any:
        has_workers = options.get("num_workers", 0) > 0  # some versions ask workers to persist where there are none
        loader = create_loader(*arguments, **{**options, "persistent_workers": has_workers})
        return Counted(with_crop(loader), reporter) if options.get("is_training") else loader

    def report(epoch: int, train: Any, val: Any, *arguments: Any, **options: Any) -> None:
        reporter.report(val["top1"] / 100)
        update_summary(epoch, train, val, *arguments, **options)

    timm.data.create_loader, timm.utils.update_summary = create, report
    sys.argv = ["train.py", *arguments_of(job)]
    runpy.run_path(str(Path(job.checkout) / "train.py"), run_name="__main__")


def arguments_of(job: Job) -> list[str]:
    """Return the command line of train.py: a constant rate, no changes but crop, flip and erasing."""
    values: dict[str, Any] = {
        "data-dir": job.folder,
        "train-split": "train",
        "val-split": "val",
        "model": "podium_net",
        "num-classes": 10,
        "input-size": (3, PX, PX),
        "crop-pct": 1.0,
        "mean": MEAN,
        "std": STD,
        "device": "cpu",
        "batch-size": job.batch_size,
        "workers": job.options.workers,
        "opt": "adamw",
        "lr": job.lr,
        "weight-decay": job.weight_decay,
        "sched": "step",
        "decay-epochs": 10 * job.epochs,
        "warmup-epochs": 0,
        "epochs": job.epochs,
        "hflip": 0.5,
        "color-jitter": 0,
        "reprob": 0.5,
        "remode": "const",
        "smoothing": job.smoothing,
        "seed": job.seed,
        "output": str(Path(job.folder) / "timm-output"),
    }
    words = [
        [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))] for name, value in values.items()
    ]
    flags = {"--channels-last": job.options.channels_last, "--torchcompile": job.options.compile}
    return [word for words_of_one in words for word in words_of_one] + [name for name, is_on in flags.items() if is_on]


if __name__ == "__main__":
    asked = read_job(sys.argv)
    (main_of_checkout if asked.checkout else main)(asked, Reporter())
