"""The honest score of whatever is fitted on OOF: each fold is blended by a rule that was fitted without it.

The members' predictions of a row come from models that never saw it; the rule must not have seen it either. Weights
that are fitted and scored on the same rows look better than they are (https://arxiv.org/abs/2307.00286).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import MismatchError
from pipeline.blending.problem import Fit, Fitted, Problem


@dataclass(frozen=True)
class Nested:
    """What the outer loop over folds leaves."""

    values: NDArray[np.float32]
    """(N, K) each row blended by the rule that was fitted on the other folds."""
    rules: dict[int, Fitted]
    """By fold, the rule that was fitted without it."""


def nested_values(problem: Problem, fit: Fit) -> NDArray[np.float32]:
    """Return (N, K): each fold's rows blended by what `fit` makes of the other folds' rows; see `fit_nested`."""
    return fit_nested(problem, fit).values


def fit_nested(problem: Problem, fit: Fit) -> Nested:
    """Return the blend of each fold by a rule fitted on all other folds, and those rules.

    Raises:
        MismatchError: the rows lie in one fold only, so nothing is left to fit on.
    """
    folds = np.unique(problem.fold).tolist()
    if len(folds) < 2:
        raise MismatchError(f"weights need OOF of at least two folds to be scored honestly (found: fold {folds})")
    values = np.empty(problem.members.shape[1:], dtype=np.float32)
    rules = {}
    for fold in folds:
        held = problem.fold == fold
        rules[fold] = fit(problem.at(~held))
        values[held] = rules[fold].apply(problem.members[:, held])
    return Nested(values, rules)


def with_one_rule(problem: Problem, rule: Fitted) -> Nested:
    """Return the blend of all folds by one rule that learnt nothing from them, such as a mean."""
    return Nested(values_by_fold(problem, rule), dict.fromkeys(np.unique(problem.fold).tolist(), rule))


def values_by_fold(problem: Problem, rule: Fitted) -> NDArray[np.float32]:
    """Return (N, K): the rows blended by one rule, fold by fold.

    For a rule that looks at each row alone it is `rule.apply(problem.members)`. Ranks are taken within each fold, as
    in `fit_nested`: the models of different folds are not on one scale.
    """
    values = np.empty(problem.members.shape[1:], dtype=np.float32)
    for fold in np.unique(problem.fold).tolist():
        held = problem.fold == fold
        values[held] = rule.apply(problem.members[:, held])
    return values
