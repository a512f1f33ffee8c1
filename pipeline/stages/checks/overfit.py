"""Can the net learn one batch by heart, and if not, is the learning rate to blame?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.base.errors import listed
from pipeline.base.interrupt import Deadline
from pipeline.base.keyed import make_key
from pipeline.records.experiment import Constant, OptimizerSpec
from pipeline.stages.checks.choice import choose_rows
from pipeline.stages.checks.context import PLAIN_ADAM, Context, Finding, Ints, batch_of, plain
from pipeline.training.device import autocast
from pipeline.training.losses import default_loss
from pipeline.training.recipe import Parts
from pipeline.training.sam import kept_buffers
from pipeline.training.train import Batch, StepAt, train_step

OVERFIT = "one batch can be learned"

N_BATCH, N_STEPS, MIN_STEPS, EVERY = 24, 300, 60, 10
"""Rows of the batch; most steps, fewest that say anything, and how often the loss is looked at."""
ENOUGH = 0.1
"""Share of the loss above its floor that may be left of a batch that was learned."""
ON_THE_WAY = 0.5
"""Share of that loss which must go in the steps of the whole training, or the rate is too low."""


@dataclass(frozen=True)
class Course:
    """How the loss on one batch went."""

    start: float
    """Loss above the least possible one, before the first step."""
    left: float
    """What is left of it at the end, as a share."""
    n_steps: int
    is_learned: bool


def check_overfit(context: Context) -> Finding:
    """Train on one batch alone until its loss is nearly gone; if it never is, find out whether the rate is to blame."""
    chosen, spec = distinct_rows(context, N_BATCH), context.experiment.optimizer
    own = learn_batch(context, spec, chosen, Deadline(context.limit_sec / 2))
    shown = f"{spec.name}, lr {spec.lr:g}: {_course_text(own)}"
    if own.is_learned:
        return Finding(OVERFIT, "pass", shown)
    if own.n_steps < MIN_STEPS:
        return Finding(OVERFIT, "note", f"out of time: {shown}", "too slow here to be checked; use a GPU")
    for factor in (0.1, 10.0):
        other = spec.model_copy(update={"lr": spec.lr * factor})
        if learn_batch(context, other, chosen, Deadline(context.limit_sec / 4)).is_learned:
            return _blame_rate(context, own, shown, factor < 1, f"learns with lr {other.lr:g}")
    if learn_batch(context, PLAIN_ADAM, chosen, Deadline(context.limit_sec / 2)).is_learned:
        return _blame_rate(
            context, own, shown, not own.left < 1, f"learns with {PLAIN_ADAM.name}, lr {PLAIN_ADAM.lr:g}"
        )
    return Finding(
        OVERFIT,
        "fail",
        f"{shown}; neither a tenth nor ten times the rate helps, nor plain Adam",
        "not the rate: look at model: (is every layer trained, does it see the item?), at loss:, and at whether these"
        f" items differ at all (rows {listed(context.rows.ids[chosen], 4)})",
    )


def learn_batch(context: Context, optimizer: OptimizerSpec, chosen: Ints, deadline: Deadline) -> Course:
    """Train on one batch of the chosen rows, without augmentation, and return how its loss went.

    A batch counts as learned when a tenth of the loss above its floor is left, or every decision is right. Both are
    looked at without dropout, with running batch statistics or those of the batch, whichever is better.
    """
    experiment = plain(context.experiment, optimizer, accumulation=1).model_copy(
        update={"schedule": Constant(name="constant", warmup_epochs=20 / N_STEPS)}
    )
    parts = context.parts(experiment)
    unit = context.unit(parts, chosen)
    batch = batch_of(unit, parts, experiment, 0, np.arange(min(len(unit.train), 2 * N_BATCH)))
    start, _ = _standing(context, parts, batch)
    left, is_right, step = 1.0, False, 0
    while step < N_STEPS and not (left <= ENOUGH or is_right or deadline.is_over):
        at = StepAt(0, step, N_STEPS, slice(0, len(batch.rows)))
        train_step(parts, experiment, context.machine, replace(batch, key=make_key("check", step)), at)
        step += 1
        if step % EVERY == 0 or deadline.is_over:
            excess, is_right = _standing(context, parts, batch)
            left = excess / start if start > 0 else 0.0
    return Course(start, left, step, left <= ENOUGH or is_right)


def distinct_rows(context: Context, n: int) -> Ints:
    """Return rows that hold different items: of two that are alike no net can tell the labels apart."""
    order = choose_rows(context.rows, np.zeros(len(context.rows), dtype=np.int64), len(context.rows))
    _, first = np.unique(context.sample.contents[order], return_index=True)
    return order[np.sort(first)][:n]


def _standing(context: Context, parts: Parts, batch: Batch) -> tuple[float, bool]:
    """Return the loss above its floor, the smaller of both modes, and whether every decision is right."""
    floor = float(parts.heldout_loss(_ideal_logits(context, batch.targets), batch.targets))
    found = [_logits(context, parts, batch, by_batch) for by_batch in (False, True)]
    losses = [float(parts.heldout_loss(logits, batch.targets)) for logits in found]
    finite = [loss - floor for loss in losses if np.isfinite(loss)]
    right = any(_all_right(context, logits, batch.targets) for logits in found)
    return (max(min(finite), 0.0) if finite else np.inf), right


@torch.no_grad()
def _logits(context: Context, parts: Parts, batch: Batch, by_batch: bool) -> Tensor:
    parts.model.eval()
    for module in parts.model.modules():
        if by_batch and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with kept_buffers(parts.model), autocast(context.machine.device, context.machine.precision):
        logits: Tensor = parts.model(batch.inputs).float()
    return logits


def _ideal_logits(context: Context, targets: Tensor) -> Tensor:
    """Return the logits that no others beat: their loss is the entropy of the targets."""
    loss = default_loss(context.task.kind, context.task.ordinal)
    if loss == "cross_entropy":
        return targets.clamp(min=1e-12).log()
    return targets.clamp(1e-7, 1 - 1e-7).logit() if loss == "bce" else targets


def _all_right(context: Context, logits: Tensor, targets: Tensor) -> bool:
    loss = default_loss(context.task.kind, context.task.ordinal)
    if loss == "cross_entropy":
        return bool((logits.argmax(1) == targets.argmax(1)).all())
    return loss == "bce" and bool(((logits > 0) == (targets > 0.5)).all())


def _course_text(course: Course) -> str:
    if not np.isfinite(course.left):
        return f"the loss was not finite after {course.n_steps} steps"
    if course.is_learned:
        return f"learned in {course.n_steps} steps"
    return f"{course.left:.0%} of the loss is left after {course.n_steps} steps"


def _blame_rate(context: Context, own: Course, shown: str, is_high: bool, other: str) -> Finding:
    """Return that the rate is too high, or too low; the latter is a note where the whole training may yet get there."""
    word = "high" if is_high else "low"
    detail = f"{shown}, but the net {other}"
    experiment, n_train = context.experiment, context.sample.n_all * (1 - 1 / max(2, context.sample.folds.n_folds))
    n_planned = experiment.train.epochs * max(1.0, n_train / experiment.train.batch_size)
    may_get_there = not is_high and (1 - own.left) * max(1.0, n_planned / own.n_steps) >= ON_THE_WAY
    advice = f"optimizer.lr: {experiment.optimizer.lr:g} is too {word} for this net; try the other"
    if may_get_there:
        return Finding(OVERFIT, "note", detail, f"optimizer.lr is low for the {n_planned:.0f} steps that are planned")
    return Finding(OVERFIT, "fail", detail, advice)
