"""Write `data/mnist/` as a contest from torchvision's copy of MNIST, which needs a network.

    python configs/mnist/write_data.py

Training images go to train/ with their labels in train.csv; test images to test/ without, as a host would hand them
out. The test labels are kept in data/mnist-answers/, which the pipeline never reads.
"""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import MNIST


def main() -> None:
    """Download MNIST into data/mnist-source/ and write the contest beside it."""
    for part, is_train in (("train", True), ("test", False)):
        digits = MNIST("data/mnist-source", train=is_train, download=True)
        folder = Path("data/mnist") / part
        folder.mkdir(parents=True, exist_ok=True)
        ids = [f"{part}_{number:05d}" for number in range(len(digits))]
        for row_id, (image, _) in zip(ids, digits, strict=True):
            image.save(folder / f"{row_id}.png")
        labels = [int(label) for label in digits.targets]
        write_table(Path("data/mnist/train.csv" if is_train else "data/mnist-answers/answers.csv"), ids, labels)
    write_table(Path("data/mnist/sample_submission.csv"), ids, [0] * len(ids))


def write_table(path: Path, ids: list[str], labels: list[int]) -> None:
    """Write ids and labels as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{row_id},{label}\n" for row_id, label in zip(ids, labels, strict=True))
    path.write_text("id,label\n" + rows)


if __name__ == "__main__":
    main()
