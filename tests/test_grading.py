"""The grader, which refuses what a host refuses and scores the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grading import METRICS, GradingError, Rules, check, grade
from sklearn import metrics as sk

IDS = ["b.png", "a.png", "c.png", "d.png"]


def write(path: Path, columns: dict[str, list[object]], index: bool = False) -> Path:
    pd.DataFrame(columns).to_csv(path, index=index)
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "label": ["ant"] * 4})
    return Rules("label", "accuracy", sample, labels=("ant", "bee"))


def test_a_right_submission_is_joined_to_the_answers_by_id(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant", "bee", "ant", "bee"]})
    answers = write(tmp_path / "answers.csv", {"id": sorted(IDS), "label": ["bee", "ant", "bee", "bee"]})
    assert grade(given, rules, answers) == 0.75


def test_the_answers_may_call_the_id_otherwise(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant", "bee", "ant", "bee"]})
    answers = write(tmp_path / "answers.csv", {"image": sorted(IDS), "chain": [1, 1, 2, 2], "Label": ["bee"] * 4})
    assert grade(given, rules, answers) == 0.5
    strangers = write(tmp_path / "others.csv", {"image": ["x", "y"], "label": ["bee"] * 2})
    with pytest.raises(GradingError, match="no column with the ids"):
        grade(given, rules, strangers)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": IDS, "species": ["ant"] * 4}, "columns"),
        ({"label": ["ant"] * 4, "id": IDS}, "columns"),
        ({"id": IDS[:3], "label": ["ant"] * 3}, r"3 ids, the sample has 4.*d.png"),
        ({"id": [*IDS[:3], "e.png"], "label": ["ant"] * 4}, r"d.png.*e.png"),
        ({"id": [*IDS[:3], "a.png", "d.png"], "label": ["ant"] * 5}, r"5 ids.*a.png"),
        ({"id": sorted(IDS), "label": ["ant"] * 4}, "order"),
        ({"id": IDS, "label": ["ant", "", "ant", "bee"]}, r"'label', row 1.*empty"),
        ({"id": IDS, "label": ["ant", "bee", "yak", "bee"]}, r"row 2: 'yak'"),
    ],
)
def test_what_a_host_refuses(tmp_path: Path, rules: Rules, columns: dict[str, list[object]], message: str) -> None:
    given = write(tmp_path / "given.csv", columns)
    with pytest.raises(GradingError, match=message):
        check(given, rules)


def test_an_integer_column_stays_one(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": [1, 2], "grade": [0, 0]})
    rules = Rules("label", "quadratic_kappa", sample)
    check(write(tmp_path / "whole.csv", {"id": [1, 2], "grade": [3, 4]}), rules)
    with pytest.raises(GradingError, match="holds integers"):
        check(write(tmp_path / "given.csv", {"id": [1, 2], "grade": [3.0, 4.0]}), rules)


def test_ids_are_text(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": ["007", "08"], "y": ["1", "1"]})
    with pytest.raises(GradingError, match="007"):
        check(write(tmp_path / "given.csv", {"id": [7, 8], "y": [1, 2]}), Rules("values", "rmse", sample))


def test_an_unnamed_index_column_may_be_kept_or_left_out(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "label": ["ant"] * 4}, index=True)
    rules = Rules("label", "accuracy", sample)
    for index in (True, False):
        check(write(tmp_path / "given.csv", {"id": IDS, "label": ["bee"] * 4}, index), rules)


@pytest.mark.parametrize("cell", ["1.2", "-0.1", "nan", "inf", "", "much"])
def test_numbers_out_of_range(tmp_path: Path, cell: str) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "p": ["0.5"] * 4})
    given = write(tmp_path / "given.csv", {"id": IDS, "p": ["0.5", cell, "0", "1"]})
    with pytest.raises(GradingError, match="row 1"):
        check(given, Rules("probability", "log_loss", sample))


def test_values_have_the_range_of_the_rules(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "y": [5] * 4})
    given = write(tmp_path / "given.csv", {"id": IDS, "y": [1, 100, 101, 50]})
    check(given, Rules("values", "rmse", sample))
    with pytest.raises(GradingError, match=r"row 2: '101'"):
        check(given, Rules("values", "rmse", sample, low=1, high=100))


def test_shares_of_a_row_sum_to_one(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5] * 4})
    rules = Rules("per_class", "log_loss", sample)
    given = write(tmp_path / "given.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5, 0.5, 0.4, 0.5]})
    check(given, rules)
    with pytest.raises(GradingError, match=r"row 2 sums to 0\.9"):
        check(given, replace(rules, sums_to_one=True))


@pytest.mark.parametrize(("cell", "is_fine"), [("1 2 3", True), ("1 1 2", False), ("1 2 3 4", False), ("1 9", False)])
def test_ranked_labels(tmp_path: Path, cell: str, is_fine: bool) -> None:
    sample = write(tmp_path / "sample.csv", {"id": [1], "top": ["1 2 3"]})
    given = write(tmp_path / "given.csv", {"id": [1], "top": [cell]})
    rules = Rules("top_k", "map_at_k", sample, labels=("1", "2", "3", "4"), k=3)
    if is_fine:
        check(given, rules)
    else:
        with pytest.raises(GradingError, match="row 0"):
            check(given, rules)


def test_answers_may_name_the_class_where_the_sample_has_a_column_for_each(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5] * 4})
    rules = Rules("per_class", "log_loss", sample)
    given = write(tmp_path / "given.csv", {"id": IDS, "ant": [0.8, 0.4, 0.5, 0.1], "bee": [0.2, 0.6, 0.5, 0.9]})
    named = write(tmp_path / "named.csv", {"id": IDS, "breed": ["ant", "bee", "bee", "bee"]})
    wide = write(tmp_path / "wide.csv", {"id": IDS, "bee": [0, 1, 1, 1], "ant": [1, 0, 0, 0]})
    expected = -np.mean(np.log([0.8, 0.6, 0.5, 0.9]))
    assert grade(given, rules, named) == pytest.approx(expected)
    assert grade(given, rules, wide) == pytest.approx(expected)


def test_answers_without_the_asked_column_are_named(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant"] * 4})
    answers = write(tmp_path / "answers.csv", {"id": IDS, "colour": ["red"] * 4, "size": [1] * 4})
    with pytest.raises(GradingError, match="colour"):
        grade(given, rules, answers)


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({name: [str(cell) for cell in np.asarray(cells)] for name, cells in columns.items()})


@pytest.fixture
def any_rules(tmp_path: Path) -> Rules:
    return Rules("label", "accuracy", tmp_path / "unused.csv")


def test_scores_are_those_of_scikit_learn(any_rules: Rules) -> None:
    rng = np.random.default_rng(0)
    truth, given = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    one, two = table(y=truth), table(y=given)
    assert METRICS["accuracy"](one, two, any_rules) == pytest.approx(sk.accuracy_score(truth, given))
    assert METRICS["micro_f1"](one, two, any_rules) == pytest.approx(sk.f1_score(truth, given, average="micro"))
    kappa = sk.cohen_kappa_score(truth, given, weights="quadratic")
    assert METRICS["quadratic_kappa"](one, two, any_rules) == pytest.approx(kappa)
    assert METRICS["rmse"](one, two, any_rules) == pytest.approx(np.sqrt(sk.mean_squared_error(truth, given)))


def test_scores_of_probabilities_are_those_of_scikit_learn(any_rules: Rules) -> None:
    rng = np.random.default_rng(1)
    truth, probs = rng.integers(0, 2, 100), np.round(rng.random(100), 1)  # with ties
    one, two = table(y=truth), table(y=probs)
    binary = replace(any_rules, cells="probability")
    clipped = np.clip(probs, 1e-15, 1 - 1e-15)
    assert METRICS["log_loss"](one, two, binary) == pytest.approx(sk.log_loss(truth, clipped))
    assert METRICS["mean_column_auc"](one, two, binary) == pytest.approx(sk.roc_auc_score(truth, probs))
    wide = rng.dirichlet(np.ones(3), 100)
    index = rng.integers(0, 3, 100)
    truths, givens = (
        table(**{f"c{n}": (index == n).astype(int) for n in range(3)}),
        table(**{f"c{n}": wide[:, n] for n in range(3)}),
    )
    per_class = replace(any_rules, cells="per_class")
    assert METRICS["log_loss"](truths, givens, per_class) == pytest.approx(sk.log_loss(index, wide))


def test_f1_of_several_labels_counts_labels_and_not_rows(any_rules: Rules) -> None:
    rules = replace(any_rules, cells="labels")
    one, two = table(y=["scab rust", "rust", "healthy"]), table(y=["rust scab", "rust frog", "scab"])
    assert METRICS["micro_f1"](one, two, rules) == pytest.approx(2 * 3 / (4 + 5))


def test_map_at_k_by_hand(any_rules: Rules) -> None:
    rules = replace(any_rules, cells="top_k", k=3)
    one, two = table(y=[7, 7, 7, 7]), table(y=["7 1 2", "1 7 2", "1 2 7", "1 2 3"])
    assert METRICS["map_at_k"](one, two, rules) == pytest.approx((1 + 1 / 2 + 1 / 3 + 0) / 4)
