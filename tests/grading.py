"""Grade a submission as a host does: refuse it, or score it. Written from public rules, without the pipeline's code.

rules = Rules("label", "accuracy", sample=public / "sample_submission.csv", labels=("0", "1"))
grade(Path("submission.csv"), rules, Path("answers.csv"))      # 0.97, or a GradingError that says what is wrong
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]
Cells = Literal["label", "labels", "top_k", "probability", "per_class", "values"]

FLOOR = 1e-15
"""Probabilities are cut to this far from 0 and 1 before a logarithm, as Kaggle does."""
_INTEGER = re.compile(r"-?\d+")


class GradingError(Exception):
    """A submission that the host refuses; the message says why."""


@dataclass(frozen=True)
class Rules:
    """What a host publishes of a competition's submissions."""

    cells: Cells
    """What a row holds."""
    metric: str
    """One of `METRICS`."""
    sample: Path
    """Its columns, its ids in their order, and the type of its cells are followed."""
    labels: tuple[str, ...] = ()
    """The classes that a cell may name; none: not known."""
    k: int = 5
    """The most labels of a top-k row."""
    separator: str = " "
    """Between several labels of a cell."""
    low: float = -math.inf
    high: float = math.inf
    """Where values must lie."""
    sums_to_one: bool = False
    """Whether the columns of a row are shares of one whole."""


def grade(submission: Path, rules: Rules, answers: Path) -> float:
    """Return the score of a submission.

    Raises:
        GradingError: it does not keep to the rules; see `check`.
    """
    table = check(submission, rules)
    name = id_column(rules)
    truth = read(answers)
    key = name if name in truth else _same_ids(truth, table[name])
    truth = truth.set_index(key).loc[table[name]].reset_index()
    values = value_columns(rules)
    return METRICS[rules.metric](_truth(truth, values, key, rules), table[list(values)], rules)


def check(submission: Path, rules: Rules) -> pd.DataFrame:
    """Return a submission as text, if the host takes it.

    Raises:
        GradingError: columns, ids or their order are not the sample's, or a cell is empty, of another type, or out of
            range.
    """
    table, sample = read(submission), read(rules.sample)
    is_named = [name for name in sample if not re.fullmatch(r"|Unnamed: \d+", name)]  # an index column may be left out
    if list(table) not in (list(sample), is_named):
        raise GradingError(f"columns {list(table)}, the sample has {list(sample)}")
    name = id_column(rules)
    given, wanted = table[name].tolist(), sample[name].tolist()
    if sorted(given) != sorted(wanted):
        odd = sorted(set(given) ^ set(wanted)) or [one for one in given if given.count(one) > 1]
        raise GradingError(f"{len(given)} ids, the sample has {len(wanted)}; missing, extra or doubled: {odd[:5]}")
    if given != wanted:
        raise GradingError("the ids are in another order than the sample's")
    for column in value_columns(rules):
        _check_cells(table[column], sample[column], column, rules)
    if rules.sums_to_one:
        sums = table[list(value_columns(rules))].astype(float).sum(axis=1)
        if (np.abs(sums - 1) > 1e-6).any():
            raise GradingError(f"row {int(np.abs(sums - 1).argmax())} sums to {sums[np.abs(sums - 1).argmax()]}")
    return table


def read(path: Path) -> pd.DataFrame:
    """Return a CSV with every cell as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def id_column(rules: Rules) -> str:
    """Return the sample's first column that has a name."""
    return _named_columns(rules)[0]


def value_columns(rules: Rules) -> tuple[str, ...]:
    """Return the sample's columns after the id."""
    return tuple(_named_columns(rules)[1:])


def _named_columns(rules: Rules) -> list[str]:
    header = pd.read_csv(rules.sample, dtype=str, nrows=0)
    return [name for name in header if not re.fullmatch(r"|Unnamed: \d+", name)]


def _check_cells(given: pd.Series[str], sample: pd.Series[str], column: str, rules: Rules) -> None:
    for row, cell in enumerate(given):
        try:
            _check_cell(cell, rules)
        except (GradingError, ValueError) as error:
            raise GradingError(f"column '{column}', row {row}: '{cell}': {error}") from None
    wants_integers = rules.cells == "label" and all(_INTEGER.fullmatch(cell) for cell in sample)
    if wants_integers and not all(_INTEGER.fullmatch(cell) for cell in given):
        raise GradingError(f"column '{column}': the sample holds integers, the submission does not")


def _check_cell(cell: str, rules: Rules) -> None:
    if rules.cells in ("probability", "per_class", "values"):
        low, high = (rules.low, rules.high) if rules.cells == "values" else (0, 1)
        if not low <= float(cell) <= high or not math.isfinite(float(cell)):
            raise GradingError(f"is not within {low:g} to {high:g}")
        return
    labels = [cell] if rules.cells == "label" else cell.split(rules.separator)
    unknown = [label for label in labels if not label or (rules.labels and label not in rules.labels)]
    if unknown or len(set(labels)) < len(labels):
        raise GradingError(f"unknown, empty or doubled labels: {unknown or labels}")
    if rules.cells == "top_k" and len(labels) > rules.k:
        raise GradingError(f"more than {rules.k} labels")


def _same_ids(truth: pd.DataFrame, ids: pd.Series[str]) -> str:
    """Return the column of the answers that holds the ids."""
    found = [name for name in truth if set(truth[name]) >= set(ids)]
    if not found:
        raise GradingError("the answers have no column with the ids of the submission")
    return str(found[0])


def _truth(truth: pd.DataFrame, values: Sequence[str], key: str, rules: Rules) -> pd.DataFrame:
    """Return the answers under the sample's value columns; a single column of classes becomes a column for each."""
    if set(values) <= set(truth):
        return truth[list(values)]
    others = [name for name in truth if name not in (key, "Usage")]
    by_case = {name.lower(): name for name in others}
    if len(values) == 1 and values[0].lower() in by_case:
        return truth[[by_case[values[0].lower()]]].set_axis(list(values), axis=1)
    classes = [name for name in others if set(truth[name]) <= set(values)]
    if rules.cells == "per_class" and len(classes) == 1:
        return pd.DataFrame({value: (truth[classes[0]] == value).astype(int) for value in values})
    if len(values) == len(others) == 1:
        return truth[others].set_axis(list(values), axis=1)
    raise GradingError(f"the answers have columns {list(truth)}, the sample {list(values)}")


# -- scores: each of truth and submission, tables of text with the same columns ----------------------------------------


def _accuracy(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    return float((_one(truth) == _one(given)).mean())


def _micro_f1(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    """2 TP / (2 TP + FP + FN) over all rows and labels; with one label in each cell this is accuracy."""
    separator = None if rules.cells == "label" else rules.separator
    pairs = [
        ({one}, {two}) if separator is None else (set(one.split(separator)), set(two.split(separator)))
        for one, two in zip(_one(truth), _one(given), strict=True)
    ]
    hits = sum(len(one & two) for one, two in pairs)
    return 2 * hits / sum(len(one) + len(two) for one, two in pairs)


def _quadratic_kappa(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    """One minus the squared distance seen over the one expected of shuffled answers."""
    one, two = _one(truth).astype(float), _one(given).astype(float)
    expected = np.mean((one[:, None] - two[None, :]) ** 2)
    return float(1 - np.mean((one - two) ** 2) / expected) if expected else math.nan


def _log_loss(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    """Mean cross-entropy in nats; rows with a column per class are scaled to sum to one first."""
    one, probs = truth.to_numpy(float), np.clip(given.to_numpy(float), FLOOR, 1 - FLOOR)
    if rules.cells == "probability":
        return float(-np.mean(one * np.log(probs) + (1 - one) * np.log1p(-probs)))
    return float(-np.mean(np.sum(one * np.log(probs / probs.sum(axis=1, keepdims=True)), axis=1)))


def _map_at_k(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    """Mean of 1 / rank of the right label among the first k, 0 where it is not there."""
    ranks = [cell.split(rules.separator)[: rules.k] for cell in _one(given)]
    return float(
        np.mean(
            [
                1 / (of_row.index(one) + 1) if one in of_row else 0.0
                for one, of_row in zip(_one(truth), ranks, strict=True)
            ]
        )
    )


def _rmse(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    return float(np.sqrt(np.mean((truth.to_numpy(float) - given.to_numpy(float)) ** 2)))


def _mean_column_auc(truth: pd.DataFrame, given: pd.DataFrame, rules: Rules) -> float:
    """Mean over columns of the share of pairs, one positive and one negative row, in right order; ties count half."""
    return float(np.mean([_auc(truth[name].to_numpy(float), given[name].to_numpy(float)) for name in truth]))


def _auc(one: Array, scores: Array) -> float:
    gaps = scores[one == 1][:, None] - scores[one == 0][None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if gaps.size else math.nan


def _one(table: pd.DataFrame) -> Array:
    """Return the only column of a table."""
    (name,) = table.columns
    return table[name].to_numpy(dtype=object)


METRICS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, Rules], float]] = {
    "accuracy": _accuracy,
    "micro_f1": _micro_f1,
    "quadratic_kappa": _quadratic_kappa,
    "log_loss": _log_loss,
    "map_at_k": _map_at_k,
    "rmse": _rmse,
    "mean_column_auc": _mean_column_auc,
}
"""Scores by name; log loss and RMSE are better when lower."""
LOWER_IS_BETTER = frozenset({"log_loss", "rmse"})
