"""Does the score of held-out rows stay at chance when the labels are shuffled? If not, something leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import listed
from pipeline.base.interrupt import Deadline
from pipeline.base.keyed import make_key, permutation
from pipeline.data.batches import samples_of
from pipeline.records.cv import metric_of, score_or_note
from pipeline.records.experiment import OptimizerSpec
from pipeline.records.predictions import load_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit
from pipeline.stages.checks.choice import choose_rows
from pipeline.stages.checks.context import PLAIN_ADAM, Context, Finding, Ints, plain
from pipeline.stages.checks.overfit import N_BATCH, distinct_rows, learn_batch
from pipeline.stages.checks.sample import write_copy
from pipeline.stages.checks.trial import OutOfTimeError, run_trial
from pipeline.training.losses import activate
from pipeline.training.predict import average_items, predict_logits
from pipeline.training.scaling import Scaling, measure_scaling, soft_targets
from pipeline.training.unit import load_unit

SHUFFLED = "shuffled labels give chance"

CHANCE = 0.001
"""Scores that shuffled rows reach less often than this are no chance."""
N_PERMUTATIONS = 4999
MIN_EPOCHS, MAX_EPOCHS = 8, 25
"""Of a training on shuffled labels: with fewer nothing is learned by heart, with more it only takes longer."""

Floats = NDArray[np.float64]


def check_shuffled(context: Context) -> Finding:
    """Train some folds on shuffled labels: what the models say of held-out rows must have nothing to do with these.

    The labels are dealt anew over rows, alike to rows that hold the same item or share a submission id. A real run is
    made of them, and held-out predictions and labels are compared with what further shuffles inside each fold give. For
    the answer to count, the models must have learned the shuffled labels of their training rows.
    """
    deadline = Deadline(2 * context.limit_sec)
    plan = _plan(context)
    if plan is None:
        speed = f"{context.samples_per_sec:.1f} samples a second"
        return Finding(SHUFFLED, "note", f"not tried: {speed} are too slow to learn labels by heart", "use a GPU")
    n_rows, n_folds, epochs = plan
    rows, blocks = shuffled_rows(context, n_rows)
    experiment = plain(context.experiment, _learner(context), epochs=epochs, batch_size=8, accumulation=1)
    experiment = experiment.model_copy(update={"seeds": (context.seed,)})
    workspace, config = write_copy(context.sample, "shuffled", rows, experiment, has_test=False)
    run = None
    for fold in range(n_folds):  # one by one, so that those which are done count when the time is over
        try:
            run = run_trial(context, workspace, config, deadline, [fold])
        except OutOfTimeError:
            break
    if run is None:
        return Finding(SHUFFLED, "note", f"out of time after {deadline.seconds:.0f} s", "use a GPU for a real answer")
    return _judge(context, run, rows, blocks)


def shuffled_rows(context: Context, n_rows: int) -> tuple[Rows, Ints]:
    """Return rows of the sample with the targets of others, and which block each row belongs to; a block has one."""
    chosen = np.sort(choose_rows(context.rows, context.sample.folds.fold, n_rows))
    rows = context.rows.at(chosen)
    blocks = _blocks(rows, context.sample.contents[chosen])
    _, first = np.unique(blocks, return_index=True)
    targets = np.asarray(rows.targets)
    order = permutation(make_key("check shuffle", context.seed), len(first))
    return replace(rows, targets=targets[first[order]][blocks]), blocks


def p_value(values: Floats, targets: Floats, fold: Ints, blocks: Ints) -> float:
    """Return how often a shuffle of the targets inside each fold agrees with the values at least as well, 0..1.

    Agreement is the sum of products of both, centred in each fold. Exact under the hypothesis that the values of a fold
    know nothing of its targets.

    Args:
        values: (N, K) predictions.
        targets: (N, K), the same for the rows of a block.
        fold: (N,).
        blocks: (N,) what is shuffled as one.
    """
    generator = np.random.Generator(np.random.Philox(key=make_key("check p")))
    found, others = 0.0, np.zeros(N_PERMUTATIONS)
    for number in np.unique(fold):
        here = np.flatnonzero(fold == number)
        _, first, place = np.unique(blocks[here], return_index=True, return_inverse=True)
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, place, values[here] - values[here].mean(axis=0))
        products = sums @ targets[here][first].T
        order = generator.permuted(np.tile(np.arange(len(first)), (N_PERMUTATIONS, 1)), axis=1)
        found += np.trace(products)
        others += products[np.arange(len(first)), order].sum(axis=1)
    return float((1 + (others >= found - 1e-9 * abs(found)).sum()) / (1 + N_PERMUTATIONS))


def _plan(context: Context) -> tuple[int, int, int] | None:
    """Return how many rows, folds and epochs there is time for; None where it is too few to learn anything."""
    budget = context.samples_per_sec * context.limit_sec
    n_all, n_folds = len(context.rows), context.sample.folds.n_folds
    for n_rows, used in ((n_all, min(3, n_folds)), (min(96, n_all), 2), (min(96, n_all), 1)):
        epochs = int(budget / (used * n_rows * (1 - 1 / n_folds)))
        if epochs >= MIN_EPOCHS:
            return n_rows, used, min(epochs, MAX_EPOCHS)
    return None


def _learner(context: Context) -> OptimizerSpec:
    """Return the experiment's optimiser where it learns a batch, else plain Adam."""
    own, chosen = context.experiment.optimizer, distinct_rows(context, N_BATCH)
    return own if learn_batch(context, own, chosen, Deadline(context.limit_sec / 4)).is_learned else PLAIN_ADAM


def _blocks(rows: Rows, contents: Ints) -> Ints:
    """Return rows that must have one label as a number, (N,) 0..: alike in an item, or of one submission id."""
    blocks = np.unique(contents, return_inverse=True)[1]
    if rows.submission_ids is not None:
        keys = np.unique(rows.submission_ids.astype(str), return_inverse=True)[1]
        for _ in range(len(rows)):  # until no block and no key joins two others
            before = blocks.copy()
            for of_row in (keys, blocks.copy()):
                least = np.full(of_row.max() + 1, len(rows))
                np.minimum.at(least, of_row, blocks)
                blocks = least[of_row]
            if np.array_equal(before, blocks):
                break
    return np.unique(blocks, return_inverse=True)[1].astype(np.int64)


def _judge(context: Context, run: Run, rows: Rows, blocks: Ints) -> Finding:
    oof = load_predictions(run.folder / "oof.parquet")
    place = {row_id: position for position, row_id in enumerate(rows.ids)}
    at = np.array([place[row_id] for row_id in oof.ids], dtype=np.int64)
    targets, scaling = _targets_and_scaling(context, rows)
    fold = np.asarray(oof.fold)
    p = p_value(_as_learnt(oof.values, scaling), targets[at], fold, blocks[at])
    score, _ = score_or_note(oof, rows, metric_of(run.task, rows))
    shown = f"{len(oof)} held-out rows, p = {p:.3g}" + (
        "" if score is None else f", {run.task.metric.name} {score:.3f}"
    )
    if p < CHANCE:
        return Finding(SHUFFLED, "fail", f"{shown}: better than chance", _leak_advice(rows, blocks, context))
    p_train = _p_of_training(context, run, rows, targets, blocks)
    if p_train >= CHANCE:
        detail = f"{shown}; but the models did not learn their training rows either (p = {p_train:.3g})"
        return Finding(SHUFFLED, "note", detail, "a leak would not show in so short a training")
    return Finding(SHUFFLED, "pass", f"{shown}; training rows p = {p_train:.3g}")


def _targets_and_scaling(context: Context, rows: Rows) -> tuple[Floats, Scaling]:
    """Return what the loss sees, (N, K), and what brings predictions to its scale."""
    scaling = measure_scaling(context.task, context.experiment, rows, context.items, np.arange(len(rows)))
    targets = soft_targets(context.task, rows, scaling)
    return targets.double().cpu().numpy(), scaling


def _as_learnt(predictions: NDArray[np.float32], scaling: Scaling) -> Floats:
    """Return predictions (N, K) in the scale of what the loss sees."""
    return (
        scaling.standardised(torch.from_numpy(predictions.copy()).to(scaling.target_mean.device)).double().cpu().numpy()
    )


def _p_of_training(context: Context, run: Run, rows: Rows, targets: Floats, blocks: Ints) -> float:
    """Return the same for the training rows of the first fold: small where the model has learned them."""
    fold = _folds_of(context, rows)
    train = np.flatnonzero((fold != 0) & (fold >= -1))
    model, scaling, _ = load_unit(run, Unit(0, context.seed), rows, context.items)
    samples = samples_of(rows.ids, rows.items, train)
    logits = predict_logits(model, context.items, samples.item, scaling, context.machine, 256)
    outputs = activate(logits, context.task.kind, context.task.ordinal)
    values = _as_learnt(average_items(outputs, samples, len(train), scaling), scaling)
    return p_value(values, targets[train], np.zeros(len(train), dtype=np.int64), blocks[train])


def _folds_of(context: Context, rows: Rows) -> Ints:
    of_id = dict(zip(context.rows.ids, context.sample.folds.fold, strict=True))
    return np.array([of_id[row_id] for row_id in rows.ids], dtype=np.int64)


def _leak_advice(rows: Rows, blocks: Ints, context: Context) -> str:
    """Return where a leak may come from; rows that hold the same item in two folds are named."""
    by_block: dict[int, set[int]] = {}
    for block, fold in zip(blocks, _folds_of(context, rows), strict=True):
        by_block.setdefault(int(block), set()).add(int(fold))
    torn = [block for block, folds in by_block.items() if len(folds) > 1]
    if torn:
        ids = rows.ids[blocks == torn[0]]
        return f"rows {listed(ids, 4)} hold the same item and lie in different folds; set folds.duplicates=exact"
    return (
        "held-out rows reach the training of their fold: look at what becomes of Folds.split on its way to the training"
        " samples, and at files that several rows name"
    )
