"""What happens inside a net: activations and gradients of each layer, epoch by epoch, in `layers.csv` of a unit.

Measured on the first rows that are learnt from, as they are, with the net as it predicts and in full precision. No
draw is made and no buffer or gradient is touched, so the training stays the same in every bit.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.files import write_text
from pipeline.records.machine import Machine
from pipeline.training.recipe import Parts
from pipeline.training.scaling import prepare
from pipeline.training.scoring import UnitData

N_ITEMS = 256
"""Items that are looked at."""
COLUMNS = ("epoch", "layer", "mean", "std", "zero_share", "gradient_norm")
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)

Line = dict[str, Any]


def watch_layers(folder: Path, unit: UnitData, parts: Parts, epoch: int, machine: Machine) -> None:
    """Add the lines of one epoch to `layers.csv` in `folder`; lines of this epoch and later ones are replaced.

    Args:
        folder: of the unit.
        unit: gives the items.
        parts: the net and its loss.
        epoch: epochs that are over; 0 before training.
        machine: gives the layout of the inputs.
    """
    path = folder / "layers.csv"
    kept = [line for line in read_layers(path) if line["epoch"] < epoch] if path.is_file() else []
    items, rows = unit.train.item[:N_ITEMS], torch.from_numpy(unit.train.row[:N_ITEMS])
    inputs = prepare(unit.items.fetch(items), parts.scaling, machine.channels_last)
    found = layer_statistics(parts.model, parts.heldout_loss, inputs, unit.targets[rows.to(unit.targets.device)])
    lines = [*kept, *({"epoch": epoch, **line} for line in found)]
    cells = [["" if line[name] is None else str(line[name]) for name in COLUMNS] for line in lines]
    write_text(path, "\n".join(",".join(row) for row in [list(COLUMNS), *cells]) + "\n")


def read_layers(path: Path) -> list[Line]:
    """Return the lines of a `layers.csv`: `epoch` is whole, `layer` text, and an empty cell None."""
    with path.open(newline="") as file:
        return [
            {
                "epoch": int(line["epoch"]),
                "layer": line["layer"],
                **{name: float(line[name]) if line[name] else None for name in COLUMNS[2:]},
            }
            for line in csv.DictReader(file)
        ]


def layer_statistics(model: nn.Module, loss: Any, inputs: Tensor, targets: Tensor) -> list[Line]:
    """Return a line for each layer in the order in which items pass them.

    A layer is a module with a weight matrix or kernel of its own, whose line has `gradient_norm`, the Euclidean norm of
    the loss's gradient at these weights; or an activation, whose line has `mean`, `std` and `zero_share` of its values.
    What a line does not have is None.

    Args:
        model: any net; its mode, buffers and gradients are as before.
        loss: (logits, targets, weights or None) -> scalar.
        inputs: (B, ...) as the model sees them.
        targets: (B, K) as the loss sees them.
    """
    lines: list[Line] = []
    weights: list[tuple[Line, Tensor]] = []
    with _as_it_predicts(model), _listening(model, lines, weights), torch.enable_grad():
        value = loss(model(inputs), targets, None)
        gradients = torch.autograd.grad(value, [weight for _, weight in weights], allow_unused=True) if weights else ()
    for (line, _), gradient in zip(weights, gradients, strict=True):
        line["gradient_norm"] = None if gradient is None else float(gradient.double().norm())
    return lines


@contextmanager
def _listening(model: nn.Module, lines: list[Line], weights: list[tuple[Line, Tensor]]) -> Iterator[None]:
    """Write down each activation and each layer with weights as items pass them; a layer that recurs counts once."""
    seen: set[nn.Module] = set()

    def hear(name: str, module: nn.Module, output: Any) -> None:
        weight = getattr(module, "weight", None)
        is_layer = isinstance(weight, nn.Parameter) and weight.ndim > 1
        if module in seen or not (is_layer or isinstance(output, Tensor)):
            return
        seen.add(module)
        line: Line = {"layer": name, **dict.fromkeys(COLUMNS[2:])}
        lines.append(line)
        if is_layer and weight is not None:
            if weight.requires_grad:
                weights.append((line, weight))
            return
        values = output.detach().double()
        line |= {"mean": float(values.mean()), "std": float(values.std(correction=0))}
        line["zero_share"] = float((values == 0).double().mean())

    watched = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _ACTIVATIONS) or getattr(getattr(module, "weight", None), "ndim", 0) > 1
    ]
    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: hear(name, module, output))
        for name, module in watched
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _as_it_predicts(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode inside the block, and each into its own mode again after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
