"""A picture of what the net is trained on: samples, what augmentation makes of them, and mixed ones with their labels.

A person sees at once what no check can: that a flip or a crop takes the label away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.plots import plot_sheet
from pipeline.records.experiment import Experiment
from pipeline.stages.checks.choice import choose_rows
from pipeline.stages.checks.context import Context, Finding, batch_of, plain
from pipeline.training.losses import default_loss
from pipeline.training.recipe import Parts
from pipeline.training.scoring import UnitData

SHEET = "contact sheet"

N_SAMPLES, N_DRAWS, N_MIXED = 8, 8, 3
MIN_SHARE = 0.02
"""Share of a label below which it is not written."""

Array = NDArray[np.float64]
Tile = tuple[Array, str]


def draw_contact_sheet(context: Context, path: Path) -> Finding:
    """Draw some samples, each as it is, in the draws of several epochs, and mixed where samples are; say where."""
    chosen = choose_rows(context.rows, np.zeros(len(context.rows), dtype=np.int64), N_SAMPLES)
    experiment = context.experiment
    bare = plain(experiment, experiment.optimizer)
    unmixed = experiment.model_copy(update={"mix": None})
    last_mixed = 0 if experiment.mix is None else experiment.train.epochs - experiment.mix.off_epochs
    kinds = [
        (bare, [0], "as it is"),
        (unmixed, list(range(N_DRAWS)), "epoch {}"),
        (experiment, list(range(min(N_MIXED, last_mixed))), "mixed, epoch {}"),
    ]
    headings = [heading.format(epoch) for _, epochs, heading in kinds for epoch in epochs]
    columns = [column for kind, epochs, _ in kinds for column in _columns(context, kind, epochs, chosen)]
    columns[1 : 1 + N_DRAWS] = [[(item, "") for item, _ in column] for column in columns[1 : 1 + N_DRAWS]]
    rows = list(zip(*columns, strict=True))
    plot_sheet(path, headings, rows)
    return Finding(SHEET, "pass", f"wrote {path}", "look at it: does every picture still show its label?")


def label_text(context: Context, target: Tensor, parts: Parts) -> str:
    """Return a target (K,) as the loss sees it in words: names with their shares, or values in their own units."""
    loss, names = default_loss(context.task.kind, context.task.ordinal), context.rows.names
    if loss not in ("cross_entropy", "bce"):
        values = parts.scaling.in_units(target)
        return " ".join(f"{float(value):.3g}" for value in values[:3])
    shares = [float(share) for share in target]
    if context.task.kind == "binary":
        shares = [1 - shares[0], shares[0]]
    ranked = sorted(zip(shares, names, strict=True), reverse=True, key=lambda pair: pair[0])
    words = [name if share > 1 - MIN_SHARE else f"{name} {share:.2f}" for share, name in ranked if share > MIN_SHARE]
    return " ".join(words[:3]) or "none"


def _columns(
    context: Context, experiment: Experiment, epochs: list[int], chosen: NDArray[np.int64]
) -> Iterator[list[Tile]]:
    """Yield for each epoch a tile of each chosen row, as the model sees its first item then, under its target."""
    if not epochs:
        return
    parts = context.parts(experiment)
    unit = context.unit(parts, chosen)
    for epoch in epochs:
        batch = batch_of(unit, parts, experiment, epoch, _first_of_row(unit))
        captions = [label_text(context, target, parts) for target in batch.targets.cpu()]
        yield list(zip(_visible(context, batch.inputs, parts), captions, strict=True))


def _first_of_row(unit: UnitData) -> NDArray[np.int64]:
    """Return the first sample of each row, in the order in which the rows were chosen."""
    _, first = np.unique(unit.train.row, return_index=True)
    return np.sort(first)


def _visible(context: Context, inputs: Tensor, parts: Parts) -> list[Array]:
    """Return images in 0..1, by the full scale of the stored type; signals in units of four deviations."""
    values = inputs.double().cpu().numpy()
    if values.ndim == 3:
        return list(values / 4)
    shape = (1, -1, 1, 1)
    mean, std = (part.double().cpu().numpy().reshape(shape) for part in (parts.scaling.mean, parts.scaling.std))
    stored = values * std + mean
    if context.items.full_scale > 1:
        return list(stored / context.items.full_scale)
    low, high = (np.quantile(context.sample.array[:N_SAMPLES], share) for share in (0.001, 0.999))
    return list((stored - low) / max(high - low, 1e-12))
