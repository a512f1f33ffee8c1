"""Scores by name, each with its direction: from targets and stored predictions to one number, or a reason why not.

Predictions hold probabilities (one column per class or label; binary tasks one column, that of the second class) or
values; metrics that need decisions make them with `decide`, the same way everywhere. A `Metric` can be pickled.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, MismatchError, PodiumError, listed, nearest
from pipeline.records.scores import (
    METRICS,
    Context,
    MetricInfo,
    Needs,
    Ordinal,
    Targets,
    UndefinedMetricError,
    Values,
    decide,
)
from pipeline.records.task import Kind, MetricSpec

__all__ = ["METRICS", "Metric", "UndefinedMetricError", "decide", "resolve_metric"]


@dataclass(frozen=True)
class Metric:
    """A score that knows its direction and what the predictions must look like."""

    name: str
    higher_is_better: bool
    score: Callable[[Targets, Values], float]
    """From targets (as in `Rows`) and values (N, n_columns) to the score."""
    needs: Needs
    """`probs`: depends on the probabilities themselves; `preds`: only on what is decided (class, label, value)."""
    kind: Kind
    names: tuple[str, ...]
    n_columns: int
    """How many columns the values have."""

    def __call__(self, targets: Targets, values: Values) -> float:
        """Return the score of `values` (N, n_columns) against `targets`, a finite number.

        Raises:
            MismatchError: the shapes are not those of this task.
            DataError: a target or value is not finite, or there are no rows.
            UndefinedMetricError: the score has no value on these rows; the message says why.
        """
        _check_shapes(self, targets, values)
        _check_contents(self, targets, values)
        result = float(self.score(targets, values))
        if not math.isfinite(result):
            raise UndefinedMetricError(f"{self.name} is undefined on the {len(values)} rows: the score is {result}")
        return result

    def better(self, a: float, b: float) -> bool:
        """Return whether score `a` is strictly better than score `b`."""
        return a > b if self.higher_is_better else a < b


def resolve_metric(
    spec: MetricSpec, kind: Kind, names: Sequence[str], ordinal: Ordinal = "softmax", threshold: float = 0.5
) -> Metric:
    """Return the metric that `spec` names, for tasks of `kind`.

    Args:
        spec: one of `METRICS`, or `module:function`, which is called as function(targets, values, **options); the
            module may lie in the current directory.
        kind: what is predicted.
        names: class names (two for binary), label names or target names.
        ordinal: whether ordinal predictions are probabilities of K grades, or one value on the scale 0..K-1.
        threshold: from which probability a label counts as present (binary, multilabel).

    Raises:
        ConfigError: unknown name or option, a metric that does not fit the kind, or a missing or needless direction.
    """
    context = Context(kind, tuple(names), ordinal, threshold)
    n_columns = 1 if kind == "binary" or (kind == "ordinal" and ordinal == "regression") else len(names)
    if ":" in spec.name:
        function, higher = _load_function(spec)
        return Metric(spec.name, higher, function, "probs", kind, context.names, n_columns)
    info = _find(spec, context)
    score = partial(_score_quietly, info, context, _options(spec, info, len(names)))
    return Metric(spec.name, info.higher_is_better, score, info.needs, kind, context.names, n_columns)


def _score_quietly(
    info: MetricInfo, context: Context, options: dict[str, int], targets: Targets, values: Values
) -> float:
    """Return the score without scikit-learn's warnings: what they warn of is refused or documented here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return info.score(context, targets, values, **options)


def _find(spec: MetricSpec, context: Context) -> MetricInfo:
    info = METRICS.get(spec.name)
    fitting = [name for name, other in METRICS.items() if other.fits(context.kind, context.ordinal)]
    of_kind = f"{context.kind} tasks" + (" with ordinal: regression" if context.ordinal == "regression" else "")
    if info is None:
        near = nearest(spec.name, METRICS)
        raise ConfigError(f"metric '{spec.name}': unknown.{near} For {of_kind}: {listed(fitting)}, or module:function")
    if spec.name not in fitting:
        raise ConfigError(f"metric '{spec.name}' does not fit {of_kind}; these do: {listed(fitting)}")
    if spec.higher_is_better is not None:
        raise ConfigError(f"metric '{spec.name}': higher_is_better is read only with module:function; remove it")
    return info


def _options(spec: MetricSpec, info: MetricInfo, n_names: int) -> dict[str, int]:
    """Return the metric's options with what the spec sets, each checked."""
    for name, value in spec.options.items():
        if name not in info.options:
            takes = f"it takes {listed(info.options)}" if info.options else "it takes none"
            others = [other for other, known in METRICS.items() if name in known.options]
            hint = f" ('{name}' belongs to {listed(others)})" if others else nearest(name, info.options)
            raise ConfigError(f"metric '{spec.name}': unknown option '{name}'; {takes}{hint}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"metric '{spec.name}': option {name} must be a whole number from 1 (found: {value!r})")
    options = info.options | spec.options
    if spec.name == "top_k_accuracy" and options["k"] >= n_names:
        raise ConfigError(f"metric 'top_k_accuracy': k = {options['k']} is always right with {n_names} classes; set k")
    return options


def _load_function(spec: MetricSpec) -> tuple[Callable[[Targets, Values], float], bool]:
    """Return the function that `module:function` names, its options bound, and its direction."""
    module_name, _, function_name = spec.name.partition(":")
    if spec.higher_is_better is None:
        raise ConfigError(f"metric '{spec.name}': state its direction: higher_is_better: true (or false)")
    try:
        with _importable(Path.cwd()):
            function = getattr(importlib.import_module(module_name), function_name)
        inspect.signature(function).bind(None, None, **spec.options)
    except ImportError as error:
        raise ConfigError(f"metric '{spec.name}': {error}; is {module_name}.py in {Path.cwd()}?") from error
    except (AttributeError, TypeError) as error:
        options = listed(spec.options) or "none"
        raise ConfigError(
            f"metric '{spec.name}': {error}; called with (targets, values), options: {options}"
        ) from error
    return partial(_call_named, spec.name, partial(function, **spec.options)), spec.higher_is_better


def _call_named(name: str, function: Callable[[Targets, Values], float], targets: Targets, values: Values) -> float:
    try:
        return float(function(targets, values))
    except PodiumError:
        raise
    except Exception as error:
        raise DataError(f"metric '{name}' failed on {len(values)} rows: {type(error).__name__}: {error}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported in the block, after all installed ones."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _check_shapes(metric: Metric, targets: Targets, values: Values) -> None:
    columns, n = len(metric.names), len(values)
    if values.ndim != 2 or values.shape[1] != metric.n_columns:
        raise MismatchError(f"{metric.name}: expected values of shape (N, {metric.n_columns}), found {values.shape}")
    hard, wide = (n,), (n, columns)
    several: dict[Kind, list[tuple[int, ...]]] = {
        "regression": [wide],
        "multilabel": [wide],
        "multiclass": [hard, wide],
    }
    shapes = several.get(metric.kind, [hard])
    if targets.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        raise MismatchError(f"{metric.name}: expected targets of shape {allowed}, found {targets.shape}")
    if n == 0:
        raise DataError(f"{metric.name}: there are no rows to score")


def _check_contents(metric: Metric, targets: Targets, values: Values) -> None:
    arrays: dict[str, NDArray[Any]] = {"targets": targets, "values": values}
    for what, array in arrays.items():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if len(bad):
            raise DataError(f"{metric.name}: {len(bad)} of {len(array)} {what} are not finite (rows {listed(bad, 5)})")
    if targets.ndim == 1 and (targets.min() < 0 or targets.max() >= len(metric.names)):
        found = f"{targets.min()}..{targets.max()}"
        raise DataError(f"{metric.name}: class indices go from 0 to {len(metric.names) - 1}, found {found}")
