"""Options compose: every pair of choices meets in some case, and each case is finite, resumable and says what it is."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_units import (
    CPU,
    N_HELDOUT,
    bits_of,
    every_step,
    make_experiment,
    make_extra,
    make_unit,
    same_bits,
    train_all,
)
from toys import make_toy, train_toy

from pipeline.base.interrupt import StopFlag
from pipeline.data.stream import Stream
from pipeline.records.experiment import SamSpec
from pipeline.records.machine import Machine
from pipeline.training.predict import average_items, predict_logits
from pipeline.training.sam import is_sam_step
from pipeline.training.state import final_weights
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs, train_step, train_unit

CHOICES: dict[str, dict[str, Any]] = {
    "sam": {"off": {}, "sam": {"sam": {"rho": 0.05}}, "asam": {"sam": {"rho": 0.5, "adaptive": True, "every": 2}}},
    "precision": {"fp32": "fp32", "bf16": "bf16"},
    "accumulation": {"whole": {}, "micro": {"train": {"accumulation": 2}}},
    "net": {
        "batch norm": {"model": {"name": "cnn3", "width": 4, "dropout": 0.2}},
        "none": {"model": {"name": "mlp", "hidden": 8, "dropout": 0.2}},
    },
    "ema": {"off": {}, "ema": {"ema": {"decay": 0.8}, "train": {"weights": "ema"}}},
    "mix": {
        "off": {},
        "mixup": {"mix": {"mixup_alpha": 0.4}},
        "cutmix": {"mix": {"cutmix_alpha": 1.0, "per": "sample", "off_epochs": 1}},
    },
    "smoothing": {"off": {}, "on": {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}}},
    "batch": {"even": {"train": {"batch_size": 10}}, "odd last": {"train": {"batch_size": 7}}},
    "clip": {"off": {}, "on": {"train": {"clip_norm": 0.5}}},
    "ends": {"even": {}, "pad": {"train": {"last_batch": "pad"}}},
    "freeze": {"off": {}, "an epoch": {"train": {"freeze": {"n_epochs": 1}}, "optimizer": {"layer_decay": 0.7}}},
    "unlabelled": {"none": {}, "pseudo": {"pseudo": {"labels": "here", "ratio": 0.5, "ramp_epochs": 1.0}}},
    "weights": {"last": {}, "best": {"train": {"weights": "best"}}},
}


def pairwise(choices: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Return few cases in which every pair of choices occurs: greedily, the case with most new pairs first."""
    names = list(choices)
    pairs = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in choices[a] for y in choices[b]}
    cases = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]
    chosen: list[dict[str, str]] = []
    while pairs:
        case = max(cases, key=lambda case: sum(pair in pairs for pair in itertools.combinations(case.items(), 2)))
        chosen.append(case)
        pairs -= set(itertools.combinations(case.items(), 2))
    return chosen


CASES = pairwise(CHOICES)


def test_every_pair_of_choices_meets_in_a_case() -> None:
    met = {pair for case in CASES for pair in itertools.combinations(case.items(), 2)}
    wanted = sum(len(CHOICES[a]) * len(CHOICES[b]) for a, b in itertools.combinations(CHOICES, 2))
    assert len(met) == wanted


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(case.values()))
def test_options_compose(case: dict[str, str], tmp_path: Path) -> None:
    blocks = [CHOICES[name][value] for name, value in case.items() if name not in ("precision", "weights")]
    if case["weights"] == "best" and case["ema"] == "off":
        blocks.append(CHOICES["weights"]["best"])
    experiment = make_experiment(*blocks, {"optimizer": {"name": "momentum", "lr": 0.05}, "train": {"epochs": 2}})
    machine = Machine(precision=case["precision"])  # type: ignore[arg-type]

    # Finite, and the weights that are scored are those that are saved.
    extra = make_extra() if experiment.pseudo else None

    def fresh() -> tuple[Any, Any]:
        unit, parts = make_unit(experiment)
        return replace(unit, unlabelled=extra), parts

    unit, parts = fresh()
    train_all(unit, parts, experiment, tmp_path / "whole", machine)
    unbroken = bits_of(parts)
    assert all(bool(tensor.isfinite().all()) for tensor in unbroken.values())
    which = experiment.train.weights
    saved = final_weights(tmp_path / "whole", parts, which)
    parts.model.load_state_dict(saved)
    logits = predict_logits(parts.model, unit.items, unit.heldout.item, parts.scaling, machine, 512)
    score = unit.score(average_items(parts.activate(logits), unit.heldout, N_HELDOUT, parts.scaling))
    history = (tmp_path / "whole" / "history.csv").read_text().splitlines()
    scores = [float(line.split(",")[4]) for line in history[1:]]
    assert score == pytest.approx(max(scores) if which == "best" else scores[-1])

    # Stopped in the middle of an epoch and resumed by a fresh process: the same bits.
    (tmp_path / "broken").mkdir()
    unit, parts = fresh()
    stepping = every_step(precision=case["precision"])
    for number, event in enumerate(train_unit(unit, parts, experiment, stepping, tmp_path / "broken", StopFlag())):
        if number > 2 and 0 < event.step < event.n_steps:
            break
    unit, parts = fresh()
    train_all(unit, parts, experiment, tmp_path / "broken", stepping)
    assert same_bits(bits_of(parts), unbroken)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(case.values()))
def test_options_compose_on_a_gpu(case: dict[str, str], precision: str, tmp_path: Path) -> None:
    blocks = [CHOICES[name][value] for name, value in case.items() if name not in ("precision", "weights")]
    experiment = make_experiment(*blocks, {"optimizer": {"name": "momentum", "lr": 0.05}, "train": {"epochs": 2}})
    machine = Machine(device="cuda", precision=precision)  # type: ignore[arg-type]
    unit, parts = make_unit(experiment, machine=machine)
    unit = replace(unit, unlabelled=make_extra(device="cuda") if experiment.pseudo else None)
    train_all(unit, parts, experiment, tmp_path, machine)
    assert all(bool(tensor.isfinite().all()) for tensor in bits_of(parts).values())
    saved = final_weights(tmp_path, parts, experiment.train.weights)
    parts.model.load_state_dict(saved)
    logits = predict_logits(parts.model, unit.items, unit.heldout.item, parts.scaling, machine, 512)
    score = unit.score(average_items(parts.activate(logits), unit.heldout, N_HELDOUT, parts.scaling))
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert score == pytest.approx(float(history[-1].split(",")[4]))


def one_step(experiment: Any, parts: Any, unit: Any, machine: Machine = CPU) -> None:
    order, _ = epoch_batches(unit, experiment, 0)
    at = StepAt(0, 0, 1, slice(0, len(order.sample)))
    inputs = next(step_inputs(Stream(unit.items, None, 0), unit, parts, order, [at.part], at.epoch))
    batch = make_batch(unit, parts, experiment, order, at, inputs)
    train_step(parts, experiment, machine, batch, at)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_of_sam_is_that_of_a_plain_reference_in_float64(adaptive: bool) -> None:
    rho = 0.5 if adaptive else 0.1
    sam = {"sam": {"rho": rho, "adaptive": adaptive}, "model": {"name": "mlp", "hidden": 6, "activation": "tanh"}}
    experiment = make_experiment(sam, {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}})
    unit, parts = make_unit(experiment)
    parts.model.double()
    net = copy.deepcopy(parts.model)

    class Doubled:  # the step prepares float32 inputs; the net takes them as float64
        def __init__(self, model: torch.nn.Module) -> None:
            self.handle = model.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))

    Doubled(parts.model)
    one_step(experiment, parts, unit)

    items = unit.items.fetch(unit.train.item)
    order = epoch_batches(unit, experiment, 0)[0].sample
    inputs = ((items - parts.scaling.mean.view(1, -1, 1, 1)) / parts.scaling.std.view(1, -1, 1, 1))[order].double()
    targets = unit.targets[torch.from_numpy(unit.train.row[order])].double()

    def gradients() -> list[torch.Tensor]:
        net.zero_grad()
        loss = -(targets * net(inputs).log_softmax(1)).sum(1).mean()
        loss.backward()
        return [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]

    start = [weight.detach().clone() for weight in net.parameters()]
    first = gradients()
    scale = [weight.abs() if adaptive else torch.ones_like(weight) for weight in start]
    norm = torch.sqrt(sum((s * g).pow(2).sum() for s, g in zip(scale, first, strict=True)))
    with torch.no_grad():
        for weight, s, g in zip(net.parameters(), scale, first, strict=True):
            weight += rho * s * s * g / norm
    second = gradients()
    for weight, old, g in zip(parts.model.parameters(), start, second, strict=True):
        decay = 0.01 * old if old.ndim > 1 else 0.0
        assert torch.allclose(weight, old - 0.1 * (g + decay), atol=1e-10, rtol=0)


def test_sam_leaves_batch_norm_as_a_plain_step_does() -> None:
    net = {"model": {"name": "cnn3", "width": 4}, "optimizer": {"name": "sgd", "lr": 1e-30}}
    buffers = []
    for sam in ({}, {"sam": {"rho": 0.5}}):
        experiment = make_experiment(net, sam)
        unit, parts = make_unit(experiment)
        one_step(experiment, parts, unit)
        buffers.append(dict(parts.model.named_buffers()))
    assert any(name.endswith("running_mean") for name in buffers[0])
    assert same_bits(buffers[0], buffers[1])


def test_sam_steps_follow_every_and_start_epoch() -> None:
    spec = SamSpec(every=3, start_epoch=1)
    assert [step for step in range(12) if is_sam_step(spec, step // 6, step)] == [6, 9]


def test_a_loss_that_is_not_finite_at_the_perturbed_weights_changes_nothing() -> None:
    experiment = make_experiment({"sam": {"rho": 1e30}, "model": {"name": "cnn3", "width": 4}})
    unit, parts = make_unit(experiment)
    before = bits_of(parts)
    one_step(experiment, parts, unit)
    after = bits_of(parts)
    assert same_bits({k: v for k, v in after.items() if k in before}, before)


def test_mixing_stops_for_the_last_epochs(tmp_path: Path) -> None:
    mixed = {"mix": {"mixup_alpha": 1.0, "off_epochs": 2}, "train": {"epochs": 2}}
    ends = []
    for block in ({}, mixed):
        experiment = make_experiment(block, {"train": {"epochs": 2}})
        unit, parts = make_unit(experiment)
        train_all(unit, parts, experiment, tmp_path / f"run{len(ends)}")
        ends.append(bits_of(parts))
    assert same_bits(*ends)


def test_mixing_changes_what_is_learnt(tmp_path: Path) -> None:
    ends = []
    for block in ({}, {"mix": {"mixup_alpha": 1.0}}):
        experiment = make_experiment(block)
        unit, parts = make_unit(experiment)
        train_all(unit, parts, experiment, tmp_path / f"run{len(ends)}")
        ends.append(np.concatenate([value.flatten().numpy() for value in bits_of(parts).values()]))
    assert not np.allclose(*ends)


@pytest.mark.parametrize(
    "extra",
    [
        ["mix={mixup_alpha: 0.4}"],
        ["mix={cutmix_alpha: 1.0, per: sample}", "sam={rho: 0.05}"],
        ["augment={erasing: {}, cutout: {size_px: 3}, colour: {max_contrast: 0.3}, flip: {alternate: true}}"],
        ["predict.views=[identity, horizontal]"],
    ],
    ids=["mixup", "cutmix+sam", "patches", "views"],
)
def test_recipes_run_from_files_to_predictions(extra: list[str], tmp_path: Path) -> None:
    run = train_toy(tmp_path, make_toy(tmp_path), [*extra, "train.epochs=1"], folds=[0])
    assert len(run.done_units()) == 1


def test_signal_recipes_run_from_files_to_predictions(tmp_path: Path) -> None:
    config = make_toy(tmp_path, input="signal")
    augment = (
        "{amplitude: {max_scale: 0.2}, signal_noise: {max_std_frac: 0.1}, sign_flip: true, phase: {max_angle_deg: 20}}"
    )
    run = train_toy(tmp_path, config, [f"augment={augment}", "mix={cutmix_alpha: 1.0}", "train.epochs=1"], folds=[0])
    assert len(run.done_units()) == 1
