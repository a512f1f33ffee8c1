"""Rows without labels in the step: pseudo-labels that earlier models gave them, or a teacher's own (FixMatch).

They come on top of the labelled batch, as further rows with a weight. Which rows a step takes is a function of (seed,
step): permutation after permutation of all of them, so that each is seen equally often whatever the epochs' length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment.draw import Draw
from pipeline.augment.mixing import draw_mix, mix_batch
from pipeline.base.keyed import make_key, permutation
from pipeline.data.batches import EpochOrder, JoinedItems, Samples, draws_of, seeds_of
from pipeline.records.experiment import Experiment
from pipeline.records.unlabelled import ConsistencySpec, PseudoSpec
from pipeline.training.recipe import Parts


@dataclass(frozen=True)
class Unlabelled:
    """Rows without labels of their own that a unit learns from."""

    items: JoinedItems
    samples: Samples
    """Their `row` numbers the rows of `targets`."""
    targets: Tensor | None
    """(U, K) pseudo-labels on the device, as the loss wants them; None where a teacher gives them in each step."""


@dataclass(frozen=True)
class ExtraRows:
    """What unlabelled rows add to one batch."""

    inputs: Tensor
    """(E, ...) as those of labelled rows."""
    targets: Tensor
    """(E, K)."""
    weights: Tensor
    """(E,) of each row's loss; their mean is the weight of the whole."""


def share_at(spec: PseudoSpec | ConsistencySpec, epoch: int, step: int, n_steps: int) -> float:
    """Return the weight of the unlabelled rows at a step of an epoch: 0 before the start, then rising to its value."""
    since = epoch - spec.start_epoch + step / n_steps
    if since < 0 or spec.ramp_epochs == 0:
        return 0.0 if since < 0 else spec.weight
    return spec.weight * min(1.0, since / spec.ramp_epochs)


def extra_rows(
    unlabelled: Unlabelled,
    parts: Parts,
    experiment: Experiment,
    n_labelled: int,
    seed: int,
    epoch: int,
    step: int,
    n_steps: int,
) -> ExtraRows | None:
    """Return the unlabelled rows of one step, `ratio` times `n_labelled`; None where they do not count yet."""
    spec = experiment.pseudo or experiment.consistency
    if spec is None or (weight := share_at(spec, epoch, step, n_steps)) == 0:
        return None
    n = max(1, round(spec.ratio * n_labelled))
    at, whole = epoch * n_steps + step, slice(0, n)
    order, following = (rows_at(len(unlabelled.samples), n, each, seed) for each in (at, at + 1))
    stored = unlabelled.items.fetch(unlabelled.samples.item[order.sample])
    unlabelled.items.ask(unlabelled.samples.item[following.sample])
    if parts.recipe is not None:
        seeds = seeds_of(unlabelled.samples, order, whole, seed, epoch)
        stored = torch.from_numpy(parts.recipe(stored.cpu().numpy(), seeds)).to(stored.device)
    first = EpochOrder(order.sample, np.zeros_like(order.occurrence))  # lasting draws know no passes
    draw, lasting = (
        draws_of(unlabelled.samples, each, whole, unlabelled.items.device, seed, when)
        for each, when in ((order, epoch), (first, None))
    )
    inputs = parts.inputs(stored, draw, lasting, epoch)
    if unlabelled.targets is not None:
        place = torch.from_numpy(unlabelled.samples.row[order.sample]).to(unlabelled.targets.device)
        targets = unlabelled.targets[place]
        if experiment.mix is not None and epoch < experiment.train.epochs - experiment.mix.off_epochs:
            mix = draw_mix(experiment.mix, n, make_key("unlabelled", seed), epoch, step)
            inputs, targets = mix_batch(inputs, targets, mix)
        return ExtraRows(inputs, targets, torch.full((n,), weight, device=inputs.device))
    if parts.strong is None or parts.teach is None:
        raise ValueError("unlabelled rows without targets need a teacher and a strong view")
    targets, is_sure = parts.teach(inputs)
    strong = parts.strong(stored, _named("strong", draw), _named("strong", lasting), epoch)
    return ExtraRows(strong, targets, weight * is_sure)


def joined(inputs: Tensor, targets: Tensor, extra: ExtraRows | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return labelled rows (B, ...) and unlabelled ones behind them, and weights whose loss is the sum of both means.

    The mean over B + E rows of weight times loss is then (mean over the B) + (mean over the E of their weight times
    loss), whatever B and E are.
    """
    if extra is None:
        return inputs, targets, None
    n_own, n_extra = len(inputs), len(extra.inputs)
    own = torch.full((n_own,), (n_own + n_extra) / n_own, device=inputs.device)
    weights = torch.cat([own, extra.weights * ((n_own + n_extra) / n_extra)])
    inputs = torch.cat([inputs, extra.inputs])
    return inputs, torch.cat([targets, extra.targets]), weights


def rows_at(n_rows: int, n: int, step: int, seed: int) -> EpochOrder:
    """Return the rows that a step takes, (n,), and in which pass over all of them each is taken."""
    places = np.arange(step * n, (step + 1) * n)
    cycles, within = places // n_rows, places % n_rows
    sample = np.empty(n, dtype=np.int64)
    for cycle in np.unique(cycles).tolist():
        here = cycles == cycle
        sample[here] = _shuffled(make_key("unlabelled", seed, cycle), n_rows)[within[here]]
    return EpochOrder(sample, cycles.astype(np.uint64))


def _named(prefix: str, draw: Draw) -> Draw:
    """Return draws of their own: those of the strong view are not those of the weak one."""
    return lambda name, n: draw(f"{prefix}.{name}", n)


@lru_cache(maxsize=4)
def _shuffled(key: int, n: int) -> NDArray[np.int64]:
    return permutation(key, n)
