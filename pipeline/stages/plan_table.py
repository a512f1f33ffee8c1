"""A plan as the table that `podium plan` prints: what, how much, and what it is made of."""

from __future__ import annotations

import statistics

from pipeline.base.progress import clock_text
from pipeline.stages.plan import Plan

NOT_COUNTED = (
    "the start of Python",
    "the metric, curves and files of a unit (a second or two)",
    "mixing that ends before the last epoch",
    "other work on this machine",
)


def plan_lines(plan: Plan) -> list[list[str]]:
    """Return the rows of the table: what, how much, and what it is made of."""
    cost, probe, train = plan.cost, plan.probes[0], plan.config.experiment.train
    n_micro = train.accumulation * plan.machine.micro_batches
    together = f"{cost.at_once} units side by side" if cost.at_once > 1 else "one unit at a time"
    scoring = probe.n_heldout * probe.score_item_sec
    lines = [
        [
            "images/s",
            f"{plan.images_per_sec:,.0f}",
            f"of training steps, {together}, {plan.machine.threads} threads each",
        ],
        *_step_lines(plan, f"batch of {probe.batch}" + (f" in {n_micro} micro-batches" if n_micro > 1 else "")),
        *_memory_lines(plan),
        ["start", _clock(cost.preparation), "data opened, config tried, processes started; once"],
        ["epoch", _clock(statistics.fmean(cost.epochs)), _epoch_note(plan, scoring)],
        [
            "fold",
            _clock(cost.unit),
            f"{train.epochs} epochs; opening {cost.opening:.1f} s; predictions of {probe.n_heldout:,} held-out and"
            f" {plan.n_test:,} test items {cost.prediction:.1f} s",
        ],
        ["run", _clock(cost.run), _run_note(plan)],
        ["finish", plan.finish.strftime("%a %H:%M"), "if it were started now"],
    ]
    return lines + _quota_lines(plan)


def _step_lines(plan: Plan, batch: str) -> list[list[str]]:
    lines = []
    for phase, seconds in plan.phases.items():
        name = phase.name()
        lines.append([f"step, {name}" if name else "step", f"{1000 * seconds:,.1f} ms", batch])
    return lines


def _memory_lines(plan: Plan) -> list[list[str]]:
    probe, is_cuda = plan.probes[0], plan.machine.device.startswith("cuda")
    peak = max(each.peak for each in plan.probes)
    whose = "of the device" if is_cuda else "of each process, all that it holds"
    n, most = probe.memory.large[0], [each.largest for each in plan.probes]
    lines = [
        [
            "peak memory",
            _gib(peak),
            f"{whose}; {probe.memory.per_sample / 2**20:.2f} MiB for each sample of a micro-batch",
        ]
    ]
    known = [each for each in most if each is not None]
    if not known or len(known) < len(most):
        why = "tried with --jobs 1 only" if is_cuda else "this system does not say how much memory is free"
        return [*lines, ["largest batch", "?", why]]
    largest, free = min(known), probe.free
    how = (
        "tried, not split"
        if is_cuda
        else "an estimate, not split: peaks of two sizes, drawn on to the memory that is free"
    )
    if largest >= probe.n_samples:
        return [*lines, ["largest batch", f"{largest:,}", f"the whole training part; {how}"]]
    return [*lines, ["largest batch", f"{largest:,}", f"{how} ({_gib(free or 0)}); now {n} at once"]]


def _epoch_note(plan: Plan, scoring: float) -> str:
    probe, epochs = plan.probes[0], plan.cost.epochs
    note = f"{probe.n_steps} steps; scoring {scoring:.1f} s; checkpoint {probe.checkpoint_sec:.2f} s"
    if max(epochs) > 1.05 * min(epochs):
        note += f"; from {_clock(min(epochs))} to {_clock(max(epochs))}, the mean is shown"
    return note


def _run_note(plan: Plan) -> str:
    cost = plan.cost
    if not cost.n_units:
        return f"all {plan.n_done} units are finished"
    note = f"{cost.n_units} units" + (f" ({plan.n_done} more are finished)" if plan.n_done else "")
    if cost.n_parallel > cost.at_once:
        note += f", {cost.n_parallel} taking turns on {cost.at_once} cores: the time of {cost.n_rounds:.3g}"
    else:
        note += f", {cost.n_parallel} side by side: {cost.n_rounds:g} rounds" if cost.n_parallel > 1 else ", one by one"
    return note + ("; at most, as training may end early" if plan.config.experiment.train.early_stop else "")


def _quota_lines(plan: Plan) -> list[list[str]]:
    cost, quota = plan.cost, plan.quota_sec
    if quota is None:
        return []
    if plan.holds:
        return [["quota", "holds", f"{_clock(cost.run)} of {_clock(quota)}, {_clock(quota - cost.run)} to spare"]]
    n_units, n_epochs = cost.units_within(quota), cost.epochs_within(quota)
    ways = [f"{n_units} of {cost.n_units} units fit"]
    if n_epochs:
        ways.append(f"or all of them with train.epochs={n_epochs}")
    ways.append("a run that is stopped goes on with the same command")
    return [["quota", "does not hold", f"{_clock(cost.run)} instead of {_clock(quota)}: {'; '.join(ways)}"]]


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock_text(seconds)


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.2f} GiB"
