"""Which sets of weights go into which soup, and whether they may: one pot for each unit that comes out.

Averaging works where nets share their start. Nets that start apart end in different valleys of the loss, and the mean
of two good nets then lies on the ridge between them, where no net is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.base.errors import ConfigError, DataError, MismatchError, listed
from pipeline.records.config import difference
from pipeline.records.runs import Run, Unit
from pipeline.records.signal_steps import SignalSteps
from pipeline.training.origins import start_weights

SEEN_BY_MODEL = ("size", "channels", "resize", "normalize", "clip", *SignalSteps.model_fields)
"""Keys of `input:` that decide what a net gets to see when it predicts."""

MakeStart = Callable[["Ingredient"], dict[str, torch.Tensor]]
"""Makes the weights again that a unit started from."""


@dataclass(frozen=True)
class Ingredient:
    """One set of weights: those that predict in a finished unit, or those of one of its epochs."""

    run: Run
    unit: Unit
    epoch: Path | None = None
    """The file of the epoch's weights."""

    @property
    def name(self) -> str:
        """Return how messages and records call it."""
        return f"{self.run.name}/{self.unit.name}" + (f"/{self.epoch.stem}" if self.epoch else "")

    @property
    def weights(self) -> Path:
        """Return the weight file of the unit, which holds the scaling too."""
        return self.run.unit_folder(self.unit) / "weights.safetensors"

    @property
    def start_hash(self) -> str | None:
        """Return the SHA-256 of the start weights as it was when the run started; None for a unit without."""
        path = start_weights(self.run.experiment, self.unit.fold)
        return None if path is None else self.run.record.get("start_weights", {}).get(str(path), f"{path}, unknown")


Pots = dict[Unit, list[Ingredient]]
"""For each unit of the run to be: what its weights are the average of."""


def pots_of(runs: Sequence[Run], across_folds: bool, n_epochs: int | None) -> Pots:
    """Return what goes into which soup.

    Runs of the same seeds give a soup for each fold and seed. Otherwise the seeds go into the same pot, and there is
    one soup for each fold, under the first seed of the first run.

    Args:
        runs: checked by `require_same_net`.
        across_folds: everything into one pot, for one model of all folds.
        n_epochs: of one run, the last epochs of each unit whose weights were kept.

    Raises:
        DataError: a unit has kept fewer epochs.
        MismatchError: a pot would hold one set of weights only.
    """
    first, everything = runs[0], [Ingredient(run, unit) for run in runs for unit in run.units()]
    seed = first.experiment.seeds[0]
    if across_folds:
        pots = {Unit("all", seed): everything}
    elif n_epochs is not None:
        pots = {unit: _epochs(first, unit, n_epochs) for unit in first.units()}
    else:
        is_by_seed = len(runs) > 1 and all(set(run.experiment.seeds) == set(first.experiment.seeds) for run in runs)
        pots = {}
        for each in everything:
            pots.setdefault(each.unit if is_by_seed else Unit(each.unit.fold, seed), []).append(each)
    for unit, pot in pots.items():
        if len(pot) < 2:
            raise MismatchError(
                f"a soup needs at least two sets of weights, and for {unit.name} there is {pot[0].name} alone."
                " Name more runs, or one run of several seeds, or --epochs N of a run that kept them"
            )
    return pots


def require_same_net(runs: Sequence[Run]) -> None:
    """Raise unless the runs are finished trainings of one net on one task and fold table.

    Raises:
        DataError: a unit is not finished.
        MismatchError: a run is named twice or is a blend; or task, folds, model or input differ, with both values.
    """
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise MismatchError(f"a soup needs different runs (found: {listed(names) or 'none'})")
    for run in runs:
        if run.is_blend:
            raise MismatchError(f"{run.name}: is a blend of predictions and has no weights; use `podium ensemble`")
        missing = [unit.name for unit in run.units() if not run.is_done(unit)]
        if missing:
            raise DataError(f"{run.name}: not finished: {listed(missing, 5)}. `podium train` goes on")
    for run in runs[1:]:
        lines = difference(_net_of(runs[0]), _net_of(run))
        if lines:
            raise MismatchError(
                f"{runs[0].name} and {run.name} are no trainings of one net:\n  " + "\n  ".join(lines) + "\n"
                "A soup averages weights, so task, folds, model and input must be the same; `podium ensemble` averages"
                " predictions, of any runs of a task"
            )


def require_fitting_wishes(runs: Sequence[Run], is_greedy: bool, across_folds: bool, n_epochs: int | None) -> None:
    """Raise a ConfigError for wishes that exclude each other, or that need held-out rows where there are none."""
    if across_folds and n_epochs is not None:
        raise ConfigError("--epochs and --across-folds: choose one; make the soup of epochs first, then that of folds")
    if n_epochs is not None and n_epochs < 2:
        raise ConfigError(f"--epochs {n_epochs}: a soup needs at least two")
    if n_epochs is not None and len(runs) > 1:
        raise ConfigError(f"--epochs: takes the epochs of one run (found: {listed([run.name for run in runs])})")
    if across_folds and runs[0].is_refit:
        raise ConfigError(f"--across-folds: {runs[0].name} has no folds, as it is a refit on every row; leave it out")
    if is_greedy and across_folds:
        raise ConfigError(
            "--greedy: chooses by held-out rows, and with --across-folds there are none: every row was learnt by a"
            " member. Leave one of the two out"
        )
    if is_greedy and runs[0].is_refit:
        raise ConfigError(
            f"--greedy: chooses by held-out rows, and {runs[0].name} is a refit on every row; leave it out"
        )


def require_shared_start(pot: Iterable[Ingredient], make_start: MakeStart) -> None:
    """Raise a MismatchError, with the reason, unless all of a pot started from the same weights.

    The same seed and the same file of start weights give the same start, as initialisation is keyed by the seed alone.
    Where seeds differ, both starts are made again and compared: a file of start weights may fill the whole net.
    """
    first, *others = pot
    for other in others:
        reason = None if (first.run, first.unit) == (other.run, other.unit) else _other_start(first, other, make_start)
        if reason:
            raise MismatchError(
                f"{first.name} and {other.name} do not share their start: {reason}. Nets that start apart end in"
                " different valleys of the loss, and the mean of their weights is no good net. Train both from one file"
                " (model.weights) or with one seed, or average their predictions with `podium ensemble`"
            )


def _epochs(run: Run, unit: Unit, n_epochs: int) -> list[Ingredient]:
    """Return the last epochs of a unit; the zero-padded names sort by epoch."""
    files = sorted(run.unit_folder(unit).glob("epoch-*.safetensors"))
    if len(files) < n_epochs:
        raise DataError(
            f"--epochs {n_epochs}: {run.unit_folder(unit)} holds the weights of {len(files)} epochs"
            " (epoch-*.safetensors); train with more kept, or ask for fewer"
        )
    return [Ingredient(run, unit, path) for path in files[-n_epochs:]]


def _net_of(run: Run) -> dict[str, object]:
    """Return what must be the same for weights to mean the same; keys that are younger than a run have defaults."""
    experiment = run.experiment.plain()
    inputs, model = experiment["input"], experiment["model"]
    return {
        "task": run.task.plain(),
        "folds": {key: run.record["folds"][key] for key in ("name", "hash")},
        "is_refit": run.is_refit,
        "model": {key: value for key, value in model.items() if key != "weights"},  # the files are told apart by hash
        "input": {key: inputs.get(key) for key in SEEN_BY_MODEL},
    }


def _other_start(first: Ingredient, other: Ingredient, make_start: MakeStart) -> str | None:
    """Return how two starts differ, or None where they do not."""
    if first.start_hash != other.start_hash:
        return f"{_start_of(first)} is not {_start_of(other)}"
    if first.unit.seed == other.unit.seed:
        return None
    for each in (first, other):
        path = start_weights(each.run.experiment, each.unit.fold)
        if path is not None and not path.is_file():
            return f"their seeds differ, and {path} is gone, so it cannot be shown that it fills the whole net"
    mine, theirs = make_start(first), make_start(other)
    odd = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    seeds = f"seeds {first.unit.seed} and {other.unit.seed}"
    return f"{seeds} initialise {listed(odd, 3)} differently" if odd else None


def _start_of(each: Ingredient) -> str:
    path = start_weights(each.run.experiment, each.unit.fold)
    return (
        f"the initialisation of seed {each.unit.seed}" if path is None else f"{path} ({(each.start_hash or '')[:12]})"
    )
