"""What the model gets to see: the same in training and prediction, and with the label that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.base.keyed import make_key, permutation
from pipeline.data.batches import Items, samples_of
from pipeline.data.dataset import Dataset
from pipeline.records.experiment import Experiment
from pipeline.records.views import View
from pipeline.stages.checks.context import Context, Finding, batch_of, batches_of_epoch, plain
from pipeline.stages.checks.sample import write_copy
from pipeline.training.predict import predict_logits, predict_views
from pipeline.training.train import Batch

SAME, LABELS = "training and prediction see the same", "labels travel with their items"

N_SEEN, N_CODED, CODED_BATCH = 32, 36, 11
TOLERANCE = 1e-4
"""How far a mean over pixels may be from its target's; codes are of order one and means are float32."""
MOST_MEAN, LEAST_STD, MOST_STD = 3.0, 0.1, 10.0
"""Normalised channels beyond these are worth a note."""


def check_same_inputs(context: Context) -> Finding:
    """Compare, bit by bit, what a training sample becomes without any change with what prediction makes of it."""
    experiment = plain(context.experiment, context.experiment.optimizer)
    parts = context.parts(experiment)
    unit = context.unit(parts)
    samples = np.arange(min(N_SEEN, len(unit.train)))
    trained = batch_of(unit, parts, experiment, 0, samples).inputs
    positions, machine = unit.train.item[samples], context.machine
    for shown in ("while a unit trains", "for the final predictions"):
        camera = Camera(unit.targets.shape[1])
        if shown == "while a unit trains":
            predict_logits(camera, context.items, positions, parts.scaling, machine, N_SEEN)
        else:
            how, activate = experiment.predict.average, parts.activate
            views: tuple[View, ...] = ("identity",)
            predict_views(
                camera, context.items, positions, parts.scaling, machine, N_SEEN, views, average=how, activate=activate
            )
        if not _same(trained, camera.seen):
            detail = f"training sees {_described(trained)}, prediction ({shown}) {_described(camera.seen)}"
            advice = "items are prepared in two ways: compare Parts.inputs with what training/predict.py prepares"
            return Finding(SAME, "fail", detail, advice)
    return _sanity(trained)


class Camera(nn.Module):
    """A model that keeps what it is shown and answers zero."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self._n_outputs = n_outputs
        self._shown: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        """Return zeros, (B, K)."""
        self._shown.append(inputs.clone())
        return torch.zeros(len(inputs), self._n_outputs, device=inputs.device)

    @property
    def seen(self) -> Tensor:
        """Return everything that was shown, in order."""
        return torch.cat(self._shown)


def check_labels(context: Context) -> Finding:
    """Follow labels to the loss: by items that are a code of their row through batches and mixing, and by real ones.

    A coded item has the same values everywhere, other ones for each row and channel, and its target is one for the row.
    However items are mixed, the mean of their pixels must then be the mean of the codes with the shares of the target.
    """
    fault = _fault_of_files(context) or _fault_of_batches(context)
    if fault is not None:
        return fault
    how = "mixed targets hold the shares of the mixed pixels" if context.experiment.mix else "nothing is mixed"
    return Finding(LABELS, "pass", f"{len(context.rows)} rows have their own items; {how}")


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)


def _described(inputs: Tensor) -> str:
    values = inputs.double()
    return f"{tuple(inputs.shape[1:])} of mean {values.mean():.4g} and deviation {values.std():.4g}"


def _sanity(inputs: Tensor) -> Finding:
    """Return a pass, or a note where a channel is far from mean 0 and deviation 1."""
    by_channel = inputs.double().transpose(0, 1).flatten(1)
    shown = f"{len(inputs)} samples equal in every bit; {_described(inputs)}"
    if not bool(by_channel.isfinite().all()):
        return Finding(SAME, "fail", f"{shown}; some values are not finite", "look at the files and input.normalize")
    mean, std = by_channel.mean(1), by_channel.std(1)
    odd = (mean.abs() > MOST_MEAN) | (std < LEAST_STD) | (std > MOST_STD)
    if bool(odd.any()):
        channel = int(odd.nonzero()[0])
        found = f"channel {channel} has mean {mean[channel]:.3g} and deviation {std[channel]:.3g}"
        return Finding(SAME, "note", f"{shown}; {found}", "nets learn best near 0 and 1: look at input.normalize")
    return Finding(SAME, "pass", shown)


def _fault_of_files(context: Context) -> Finding | None:
    """Return what is wrong with the items that a run opens for each row, against those of its files."""
    workspace, config = write_copy(context.sample, "labels", context.rows, context.experiment, has_test=False)
    inputs, data = config.experiment.input, workspace.data(config.task)
    dataset = Dataset(config.task, inputs, data, workspace.cache, context.machine.workers, lambda _: None, "quiet")
    opened, rows = dataset.train_items(context.machine.device), dataset.train.rows
    place = {row_id: position for position, row_id in enumerate(context.rows.ids)}
    for position, row_id in enumerate(rows.ids):
        own = context.rows.items[place[row_id]]
        ours, theirs = context.items.fetch(np.array(own)), opened.fetch(np.array(rows.items[position]))
        targets = np.asarray(context.rows.targets)[place[row_id]], np.asarray(rows.targets)[position]
        if not _same(ours, theirs) or not np.allclose(*targets, rtol=1e-5):
            detail = f"row '{row_id}' is trained with an item or label of another row"
            return Finding(LABELS, "fail", detail, "look at the way from tables to rows and items (data/dataset.py)")
    return None


def _fault_of_batches(context: Context) -> Finding | None:
    """Return the first batch whose targets are not those of its pixels: unmixed ones first, to tell the cause."""
    experiment = context.experiment
    unmixed = experiment.model_copy(update={"mix": None})
    last = experiment.train.epochs - 1
    for kind in (unmixed, experiment) if experiment.mix is not None else (unmixed,):
        for epoch in dict.fromkeys((0, last // 2, last)):
            for batch, codes in _coded_batches(context, kind, epoch):
                means = batch.inputs.double().flatten(2).mean(2)
                gaps = (means - batch.targets.double() @ codes).abs().amax(1)
                if float(gaps.max()) > TOLERANCE:
                    return _wrong_label(context, batch, int(gaps.argmax()), epoch, kind.mix is not None)
    return None


def _coded_batches(context: Context, experiment: Experiment, epoch: int) -> Iterator[tuple[Batch, Tensor]]:
    """Yield batches of coded items, as an experiment mixes them, and the codes (N, C) of the rows."""
    rows = context.rows.at(np.arange(min(N_CODED, len(context.rows))))
    n_files, shape = len(rows.items[0]), context.items.shape
    # Items in another order than rows, or a confusion of both would not show.
    order = permutation(make_key("check codes"), len(rows) * n_files).reshape(len(rows), n_files)
    codes = np.random.default_rng(0).uniform(-1, 1, (len(rows), shape[0])).astype(np.float32)
    array = np.zeros((order.size, *shape), dtype=np.float32)
    for row, positions in enumerate(order):
        array[positions] = codes[row].reshape(-1, *(1,) * (len(shape) - 1))
    device = context.machine.device
    parts = replace(
        context.parts(plain(context.experiment, context.experiment.optimizer)),
        inputs=lambda stored, _draw, _lasting, _epoch: stored,
        recipe=None,
    )
    items = tuple(tuple(int(position) for position in positions) for positions in order)
    unit = replace(
        context.unit(parts),
        items=Items(array, device),
        targets=torch.eye(len(rows), device=device),
        train=samples_of(rows.ids, items, np.arange(len(rows))),
    )
    loop = experiment.train.model_copy(update={"batch_size": CODED_BATCH})
    experiment = experiment.model_copy(update={"train": loop})
    for batch in batches_of_epoch(unit, parts, experiment, epoch):
        yield batch, torch.from_numpy(codes).double().to(device)


def _wrong_label(context: Context, batch: Batch, place: int, epoch: int, is_mixed: bool) -> Finding:
    """Return whose label a sample got, and whether that happened in mixing."""
    ids, target = context.rows.ids, batch.targets[place]
    row_id = ids[batch.rows[place]]
    if not is_mixed:
        detail = f"the sample of row '{row_id}' is trained with the label or the item of another row (epoch {epoch})"
        advice = "look at how order, rows and items meet: step_inputs and make_batch in training/train.py"
        return Finding(LABELS, "fail", detail, advice)
    two = target.argsort(descending=True)[:2].tolist()
    shares = " and ".join(f"{float(target[row]):.2f} of '{ids[row]}'" for row in two)
    detail = f"mix: the target of row '{row_id}' holds {shares}, its mixed pixels do not (epoch {epoch})"
    return Finding(LABELS, "fail", detail, "pixels and targets are mixed differently: look at augment/mixing.py")
