"""What one run of a contestant measured, what several say together, and the table and picture of `speed.py`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from processes import Watched

from pipeline.base.errors import PodiumError
from pipeline.base.files import write_text
from pipeline.base.plots import new_figure, save_figure

OURS = "podium"
_OUR_LINE = re.compile(r"epoch (\d+)/\d+  ([\d,]+) images/s .* accuracy ([\d.]+)")


@dataclass(frozen=True)
class Epoch:
    """What a contestant told at the end of an epoch."""

    at_sec: float
    """When its line came, from the start of the process: training, validation and whatever it saves lie before."""
    n_images: int
    train_sec: float
    """Of the training part, by the contestant's own clock."""
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """One run of a contestant; a row of the CSV."""

    net: str
    contestant: str
    options: str
    round: int
    wall_sec: float
    """From the start of the process to the last validation score."""
    first_sec: float
    """To the first one."""
    end_sec: float
    """To the end of the process."""
    images_per_sec: float
    """From the second epoch on, the time of validation included."""
    train_images_per_sec: float
    """The same without validation, by the contestant's own clock."""
    accuracy: float
    """Of the last validation."""
    resident_mib: float
    anonymous_mib: float
    setting: str
    origin: str

    @property
    def label(self) -> str:
        """Return contestant and options: what is compared."""
        return f"{self.contestant}: {self.options}" if self.options else self.contestant


def read_epochs(watched: Watched, n_train: int) -> list[Epoch]:
    """Return the epochs that a contestant told of; Podium's lines give images per second, of `n_train` images."""
    epochs = []
    for at_sec, line in watched.lines:
        if found := _OUR_LINE.search(line):
            speed = float(found[2].replace(",", ""))
            epochs.append(Epoch(at_sec, n_train, n_train / max(speed, 1e-9), float(found[3])))
        elif line.startswith('{"epoch":'):
            told = json.loads(line)
            epochs.append(Epoch(at_sec, told["n_images"], told["seconds"], told["accuracy"]))
    return epochs


def measured(
    watched: Watched,
    n_train: int,
    n_epochs: int,
    net: str,
    contestant: str,
    options: str,
    number: int,
    about: Sequence[str],
) -> Measured:
    """Return what a run measured; `number` is its round, `about` the setting and the origin.

    Raises:
        PodiumError: the process failed or told of fewer epochs, of which there must be two or more.
    """
    epochs = read_epochs(watched, n_train)
    if watched.exit_code or len(epochs) != n_epochs or n_epochs < 2:
        last = "\n".join(line for _, line in watched.lines[-15:])
        raise PodiumError(
            f"{contestant} ({options}) ended with code {watched.exit_code} after {len(epochs)} of {n_epochs} epochs"
            f" (two are the least that tell a speed). Its last lines:\n{last}"
        )
    later = epochs[1:]
    n_images = sum(epoch.n_images for epoch in later)
    return Measured(
        net=net,
        contestant=contestant,
        options=options,
        round=number,
        wall_sec=epochs[-1].at_sec,
        first_sec=epochs[0].at_sec,
        end_sec=watched.end_sec,
        images_per_sec=n_images / (epochs[-1].at_sec - epochs[0].at_sec),
        train_images_per_sec=n_images / sum(epoch.train_sec for epoch in later),
        accuracy=epochs[-1].accuracy,
        resident_mib=watched.memory.resident / 2**20,
        anonymous_mib=watched.memory.anonymous / 2**20,
        setting=about[0],
        origin=about[1],
    )


def best_options(tuned: Sequence[Measured]) -> list[str]:
    """Return the options with the least wall time and, if they are others, those with most images per second."""
    by_wall = min(tuned, key=lambda one: one.wall_sec).options
    by_speed = max(tuned, key=lambda one: one.images_per_sec).options
    return list(dict.fromkeys([by_wall, by_speed]))


def ratios(runs: Sequence[Measured], label: str, name: str) -> list[float]:
    """Return, round by round, a contestant's value over Podium's of the same round."""
    ours = {one.round: getattr(one, name) for one in runs if one.contestant == OURS}
    return [getattr(one, name) / ours[one.round] for one in runs if one.label == label and one.round in ours]


def verdict(runs: Sequence[Measured]) -> str:
    """Return the sentence that compares Podium with the best peer, by medians of ratios within a round."""
    labels = [label for label in labels_of(runs) if label != OURS]
    if not labels:
        return "Nobody to compare with.\n"
    walls = {label: median(ratios(runs, label, "wall_sec")) for label in labels}
    speeds = {label: 1 / median(ratios(runs, label, "images_per_sec")) for label in labels}
    quick, fast = min(walls, key=lambda one: walls[one]), min(speeds, key=lambda one: speeds[one])
    return (
        f"The quickest peer to the last score ({quick}) takes {walls[quick]:.2f} times as long as Podium; from the"
        f" second epoch on Podium handles {speeds[fast]:.2f} times as many images per second as the fastest ({fast}).\n"
    )


def labels_of(runs: Sequence[Measured]) -> list[str]:
    """Return the contestants in the order in which they first ran, Podium first."""
    return sorted(dict.fromkeys(one.label for one in runs), key=lambda label: label != OURS)


def markdown(runs: Sequence[Measured]) -> str:
    """Return the tables of all nets."""
    return "\n".join(_table([one for one in runs if one.net == net]) for net in dict.fromkeys(one.net for one in runs))


def _table(runs: Sequence[Measured]) -> str:
    n_rounds = len({one.round for one in runs})
    lines = [
        f"## {runs[0].net}\n",
        f"{runs[0].setting}; medians of {n_rounds} rounds in turns, lowest to highest in brackets.\n",
        "| contestant | s to the last score | against Podium | s to the end | images/s from the 2nd epoch on"
        " | against Podium | images/s, training alone | accuracy | resident MiB | anonymous MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for label in labels_of(runs):
        own = [one for one in runs if one.label == label]
        cells = [
            label,
            _cell([one.wall_sec for one in own], "{:.1f}"),
            _cell(ratios(runs, label, "wall_sec"), "{:.2f}x"),
            _cell([one.end_sec for one in own], "{:.1f}"),
            _cell([one.images_per_sec for one in own], "{:,.0f}"),
            _cell(ratios(runs, label, "images_per_sec"), "{:.2f}x"),
            _cell([one.train_images_per_sec for one in own], "{:,.0f}"),
            _cell([one.accuracy for one in own], "{:.3f}"),
            f"{median(one.resident_mib for one in own):,.0f}",
            f"{median(one.anonymous_mib for one in own):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", verdict(runs), runs[0].origin, ""])


def _cell(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def read_csv(path: Path) -> list[Measured]:
    """Return the runs that an earlier call wrote; none if there is no such file."""
    if not path.is_file():
        return []
    kinds = {"round": int} | {field.name: float for field in fields(Measured) if field.type == "float"}
    with path.open(newline="") as file:
        return [
            Measured(**{key: kinds.get(key, str)(cell) for key, cell in line.items()}) for line in csv.DictReader(file)
        ]


def publish(runs: Sequence[Measured], table: Path, picture: Path) -> str:
    """Write the runs as Markdown, as CSV beside it, and as a picture; return the Markdown.

    What the CSV holds of other nets stays in it and in the table.
    """
    path = table.with_suffix(".csv")
    nets = {one.net for one in runs}
    everything = sorted([*(one for one in read_csv(path) if one.net not in nets), *runs], key=lambda one: one.net)
    content = io.StringIO()
    writer = csv.DictWriter(content, [field.name for field in fields(Measured)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in everything)
    write_text(path, content.getvalue())
    text = markdown(everything)
    write_text(table, text)
    plot(everything, picture)
    return text


def plot(runs: Sequence[Measured], path: Path) -> None:
    """Draw a row for each net: seconds to the last score and images per second, a dot per round and the median."""
    nets = list(dict.fromkeys(one.net for one in runs))
    most = max(len(labels_of([one for one in runs if one.net == net])) for net in nets)
    figure = new_figure(11, len(nets) * (1.1 + 0.36 * most))
    columns = {"wall_sec": "seconds to the last score", "images_per_sec": "images per second from the second epoch on"}
    for panels, net in zip(figure.subplots(len(nets), 2, squeeze=False), nets, strict=True):
        for axes, (name, title) in zip(panels, columns.items(), strict=True):
            own = [one for one in runs if one.net == net]
            labels = labels_of(own)
            for place, label in enumerate(labels):
                values = [getattr(one, name) for one in own if one.label == label]
                colour = "tab:blue" if label == OURS else "tab:gray"
                axes.barh(place, median(values), height=0.6, color=colour, alpha=0.6)
                axes.plot(values, [place] * len(values), "o", markersize=3, color="black", alpha=0.5)
            axes.set_yticks(range(len(labels)), labels if name == "wall_sec" else [""] * len(labels), fontsize=8)
            axes.invert_yaxis()
            axes.set_title(f"{net}: {title}", loc="left", fontsize=10)
            axes.grid(axis="x", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
