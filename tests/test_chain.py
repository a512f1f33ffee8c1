"""A toy competition of every kind, from files to a submission that an independent grader scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score
from toys import CLASSES, make_toy, read_text_table, toy_answers, train_toy

from pipeline import api

Array = np.ndarray[Any, Any]
NAMES = list(CLASSES[:3])


# -- an independent grader: tables of text in, a score out -------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A toy, how its truth, OOF and file are read, the metric on what was read, and what a good run reaches."""

    truth: Callable[[pd.DataFrame], Array]
    """Target columns (text) -> what the metric compares with."""
    oof: Callable[[pd.DataFrame], Array]
    """Prediction columns -> what the metric takes."""
    file: Callable[[pd.DataFrame], Array]
    """Value columns of the submission (text) -> what the metric takes."""
    metric: Callable[[Array, Array], float]
    good: float
    """Reached by a net that learned; far beyond a guess."""
    guess: float
    """What the best constant answer scores, or more."""
    toy: dict[str, Any] = field(default_factory=dict)


def accuracy(truth: Array, found: Array) -> float:
    return float(np.mean(truth == found))


def kappa(truth: Array, found: Array) -> float:
    return float(cohen_kappa_score(truth, found, weights="quadratic"))


def f1_of_rows(truth: Array, found: Array) -> float:
    return float(f1_score(truth, found, average="samples", zero_division=0))


def column_auc(truth: Array, found: Array) -> float:
    return float(np.mean([roc_auc_score(truth[:, i], found[:, i]) for i in range(truth.shape[1])]))


def kl(truth: Array, found: Array) -> float:
    return float(np.mean(np.sum(truth * np.log(truth / found), axis=1)))


def rmse(truth: Array, found: Array) -> float:
    return float(np.mean(np.sqrt(np.mean((truth - found) ** 2, axis=0))))


def map_at_2(truth: Array, found: Array) -> float:
    return float(np.mean([1.0 if t == a else 0.5 if t == b else 0.0 for t, (a, b) in zip(truth, found, strict=True)]))


def text(table: pd.DataFrame) -> Array:
    return table.iloc[:, 0].to_numpy(dtype=str)


def numbers(table: pd.DataFrame) -> Array:
    return table.to_numpy(dtype=np.float64)


def shares(table: pd.DataFrame) -> Array:
    votes = numbers(table)
    return votes / votes.sum(axis=1, keepdims=True)


def grades(table: pd.DataFrame) -> Array:
    return numbers(table)[:, 0].astype(int)


def rounded_grade(values: Array) -> Array:
    return np.clip(np.ceil(values - 0.5), 0, 3).astype(int)


def multihot(names: list[str]) -> Callable[[pd.DataFrame], Array]:
    return lambda table: np.array([[name in cell.split(" ") for name in names] for cell in text(table)]).astype(int)


def best_class(table: pd.DataFrame) -> Array:
    return table.columns.to_numpy(dtype=str)[numbers(table).argmax(axis=1)]


def best_two(table: pd.DataFrame) -> Array:
    return table.columns.to_numpy(dtype=str)[np.argsort(-numbers(table), axis=1, kind="stable")[:, :2]]


BINARY = Case(
    lambda t: numbers(t)[:, 0], lambda t: numbers(t)[:, 0], lambda t: numbers(t)[:, 0], roc_auc_score, 0.95, 0.5
)
LABEL = Case(text, best_class, text, accuracy, 0.9, 0.34)
VOTES = Case(shares, numbers, numbers, kl, 0.1, 0.3, {"soft": True, "format": "per_class"})
LABELS = Case(multihot(NAMES), lambda t: (numbers(t) >= 0.5).astype(int), multihot(NAMES), f1_of_rows, 0.9, 0.75)
FEWER = Case(
    multihot(["dog", "bee"]),
    lambda t: numbers(t[["dog", "bee"]]),
    numbers,
    column_auc,
    0.95,
    0.5,
    {"format": "per_class", "metric": "mean_column_auc", "n_names": 4, "wanted": ["dog", "bee"]},
)
GRADE = Case(grades, lambda t: rounded_grade(numbers(t) @ np.arange(4)), grades, kappa, 0.8, 0.0, {"n_names": 4})
ONE_GRADE = Case(
    grades,
    lambda t: rounded_grade(numbers(t)[:, 0]),
    grades,
    kappa,
    0.8,
    0.0,
    {"n_names": 4, "task": {"ordinal": "regression"}},
)
ONE_VALUE = Case(
    numbers,
    numbers,
    numbers,
    rmse,
    1.4,
    2.5,
    {"n_names": 1, "task": {"submission": {"format": "values", "sample": "sample_submission.csv", "clip": [0.5, 9.5]}}},
)
VALUES = Case(numbers, numbers, numbers, rmse, 3.0, 5.0)
TOP_K = Case(
    text,
    best_two,
    lambda t: np.array([cell.split(" ") for cell in text(t)]),
    map_at_2,
    0.9,
    0.6,
    {
        "format": "top_k",
        "metric": {"name": "map_at_k", "options": {"k": 2}},
        "task": {"submission": {"format": "top_k", "sample": "sample_submission.csv", "k": 2}},
    },
)

KINDS = {
    "binary": ("binary", BINARY),
    "multiclass": ("multiclass", LABEL),
    "multiclass-votes": ("multiclass", VOTES),
    "multiclass-top_k": ("multiclass", TOP_K),
    "multilabel": ("multilabel", LABELS),
    "multilabel-fewer-columns": ("multilabel", FEWER),
    "ordinal": ("ordinal", GRADE),
    "ordinal-regression": ("ordinal", ONE_GRADE),
    "regression": ("regression", ONE_VALUE),
    "regression-several": ("regression", VALUES),
}
SHAPES = {
    "signal-files": {"input": "signal"},
    "signal-one-array": {"input": "signal", "store": "npz"},
    "signal-columns": {"input": "signal", "store": "pixels"},
    "image-one-array": {"store": "npz"},
    "image-npy": {"store": "npy"},
    "image-columns": {"store": "pixels"},
    "rgb": {"channels": 3},
    "rgb-array": {"channels": 3, "store": "npz"},
    "16-bit": {"bits": 16},
    "16-bit-columns": {"bits": 16, "store": "pixels"},
    "several-files": {"n_files": 2},
    "several-rows": {
        "rows_per_id": 3,
        "n_train": 120,
        "task": {"submission": {"format": "label", "sample": "sample_submission.csv", "row_id": "patient"}},
    },
    "several-rows-and-files": {"rows_per_id": 2, "n_files": 2, "input": "signal", "n_train": 120},
}


# -- the chain ---------------------------------------------------------------------------------------------------------


def run_chain(root: Path, config: Path) -> tuple[Path, Path]:
    """Return the folder of the run and the submission that the chain made of a config."""
    table, balance = api.folds(config, root=root)
    assert balance["rows"].sum() == len(table)
    run = train_toy(root, config)
    before = (run.folder / "test.parquet").read_bytes()
    api.predict(str(run.folder), root=root)
    pd.testing.assert_frame_equal(
        pd.read_parquet(run.folder / "test.parquet").sort_values("id", ignore_index=True),
        pd.read_parquet(pd.io.common.BytesIO(before)).sort_values("id", ignore_index=True),
    )
    return run.folder, api.submit(str(run.folder), root=root)


def target_names(root: Path, name: str) -> list[str]:
    return list(toy_answers(root, name).columns)


def check_oof_and_cv(root: Path, folder: Path, case: Case) -> None:
    """OOF holds every row with a fold once, in its fold, and cv.json says what it scores."""
    name = folder.parent.name
    train = read_text_table(root / "data" / name / "train.csv").set_index("id")
    fold = folds_of(root, name)
    oof = pd.read_parquet(folder / "oof.parquet").set_index("id")
    assert sorted(oof.index) == sorted(fold.index[fold >= 0])
    assert (oof["fold"] == fold.loc[oof.index]).all()
    values, targets = oof.drop(columns="fold"), train.loc[oof.index, target_names(root, name)]
    fold = oof["fold"]
    if "patient" in train:
        patient = train.loc[oof.index, "patient"]
        assert (fold.groupby(patient).nunique() == 1).all()
        values, targets, fold = (
            values.groupby(patient).mean(),
            targets.groupby(patient).first(),
            fold.groupby(patient).first(),
        )

    def score(rows: pd.Series) -> float:
        return float(case.metric(case.truth(targets[rows]), case.oof(values[rows])))

    cv = json.loads((folder / "cv.json").read_text())
    scores = [line["score"] for line in cv["folds"]]
    assert scores == pytest.approx([score(fold == number) for number in sorted(fold.unique())], abs=1e-6)
    assert cv["pooled"] == pytest.approx(score(fold >= 0), abs=1e-6)
    assert cv["mean"] == pytest.approx(np.mean(scores))
    assert cv["std"] == pytest.approx(np.std(scores, ddof=1))
    assert cv["n_rows"] == len(oof)
    assert better(cv["pooled"], case.good, case)


def better(score: float, than: float, case: Case) -> bool:
    return score < than if case.good < case.guess else score > than


def check_file(root: Path, name: str, path: Path, case: Case) -> float:
    """The file has the sample's header, ids, order and cells; return what the host's answers give it."""
    sample, found = read_text_table(root / "data" / name / "sample_submission.csv"), read_text_table(path)
    assert list(found.columns) == list(sample.columns)
    assert list(found["id"]) == list(sample["id"])
    assert not (found == "").any(axis=None)
    assert path.read_bytes().endswith(b"\n")
    assert b"\r" not in path.read_bytes()
    answers = toy_answers(root, name).loc[found["id"]]
    return float(case.metric(case.truth(answers), case.file(found.drop(columns="id"))))


@pytest.mark.parametrize("which", KINDS)
def test_every_kind_goes_from_files_to_a_submission_that_beats_guessing(tmp_path, which):
    kind, case = KINDS[which]
    config = make_toy(tmp_path, kind, **case.toy)
    folder, path = run_chain(tmp_path, config)
    check_oof_and_cv(tmp_path, folder, case)
    score = check_file(tmp_path, kind, path, case)
    assert better(score, case.good, case)
    assert better(case.good, case.guess, case)


@pytest.mark.parametrize("which", SHAPES)
def test_items_come_in_every_shape(tmp_path, which):
    config = make_toy(tmp_path, "multiclass", **SHAPES[which])
    folder, path = run_chain(tmp_path, config)
    check_oof_and_cv(tmp_path, folder, LABEL)
    assert check_file(tmp_path, "multiclass", path, LABEL) > LABEL.good


def test_shares_of_classes_sum_to_one_in_the_file(tmp_path):
    _, path = run_chain(tmp_path, make_toy(tmp_path, "multiclass", format="per_class", metric="log_loss"))
    found = pd.read_csv(path).set_index("id")
    assert list(found.columns) == NAMES
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-9
    truth = toy_answers(tmp_path, "multiclass")["label"].loc[found.index]
    assert np.mean([found.loc[key, name] for key, name in truth.items()]) > 0.8


def test_values_are_cut_in_the_file_but_not_in_oof(tmp_path):
    clip = {"format": "values", "sample": "sample_submission.csv", "clip": [4.0, 6.0]}
    config = make_toy(tmp_path, "regression", n_names=1, task={"submission": clip})
    folder, path = run_chain(tmp_path, config)
    values = pd.read_csv(path)["y0"]
    assert values.min() == 4.0
    assert values.max() == 6.0
    assert pd.read_parquet(folder / "oof.parquet")["y0"].max() > 7


def test_an_array_holds_the_probabilities_of_the_test_rows_in_their_order(tmp_path):
    config = make_toy(tmp_path, "multiclass", "signal", format="array", metric="log_loss", n_names=4)
    folder, path = run_chain(tmp_path, config)
    assert path.suffix == ".npy"
    array = np.load(path)
    test = read_text_table(tmp_path / "data" / "multiclass" / "test.csv")
    assert array.shape == (len(test), 4)
    assert array.dtype == np.float32
    assert np.allclose(array.sum(axis=1), 1, atol=1e-5)
    predictions = pd.read_parquet(folder / "test.parquet").set_index("id").loc[test["id"]]
    np.testing.assert_array_equal(array, predictions[list(CLASSES)].to_numpy())
    truth = toy_answers(tmp_path, "multiclass").loc[test["id"], "label"].to_numpy(dtype=str)
    assert accuracy(truth, np.array(CLASSES)[array.argmax(axis=1)]) > 0.8


# -- folds, groups, holdout --------------------------------------------------------------------------------------------


def rewrite_column(root: Path, name: str, column: str, change: Callable[[int], Any]) -> None:
    """Set a column of train.csv to a function of the row's number."""
    path = root / "data" / name / "train.csv"
    table = read_text_table(path)
    table[column] = [change(int(row_id.split("_")[1])) for row_id in table["id"]]
    table.to_csv(path, index=False)


def folds_of(root: Path, name: str) -> pd.Series:
    return read_text_table(next((root / "folds" / name).glob("*.csv"))).set_index("id")["fold"].astype(int)


def test_the_hosts_folds_are_followed(tmp_path):
    config = make_toy(tmp_path, net={"folds": {"scheme": "column", "n_folds": 3}}, task={"fold_column": "fold"})
    folder, _ = run_chain(tmp_path, config)
    train = read_text_table(tmp_path / "data" / "multiclass" / "train.csv").set_index("id")
    assert (folds_of(tmp_path, "multiclass").loc[train.index] == train["fold"].astype(int)).all()
    check_oof_and_cv(tmp_path, folder, LABEL)


def test_groups_do_not_straddle_folds(tmp_path):
    folder, _ = run_chain(tmp_path, make_toy(tmp_path, task={"group": "group"}))
    train = read_text_table(tmp_path / "data" / "multiclass" / "train.csv").set_index("id")
    folds = folds_of(tmp_path, "multiclass")
    assert (folds.groupby(train["group"]).nunique() == 1).all()
    assert folds.nunique() == 3
    check_oof_and_cv(tmp_path, folder, LABEL)


def test_the_holdout_and_rows_that_always_train_are_in_no_oof(tmp_path):
    net = {"folds": {"scheme": "column", "n_folds": 2}}
    config = make_toy(tmp_path, net=net, task={"fold_column": "fold"}, n_train=120)
    rewrite_column(tmp_path, "multiclass", "fold", lambda n: -2 if n % 6 == 4 else -1 if n % 6 == 5 else n % 2)
    folder, _ = run_chain(tmp_path, config)
    oof = set(pd.read_parquet(folder / "oof.parquet")["id"])
    assert oof == {f"tr_{n:03d}" for n in range(120) if n % 6 < 4}
    check_oof_and_cv(tmp_path, folder, LABEL)


def test_a_holdout_share_is_set_apart(tmp_path):
    folder, _ = run_chain(tmp_path, make_toy(tmp_path, n_train=120, net={"folds": {"n_folds": 3, "holdout_frac": 0.2}}))
    folds = folds_of(tmp_path, "multiclass")
    assert 20 <= (folds == -2).sum() <= 28
    assert set(pd.read_parquet(folder / "oof.parquet")["id"]) == set(folds.index[folds >= 0])
    check_oof_and_cv(tmp_path, folder, LABEL)


# -- runs become blends ------------------------------------------------------------------------------------------------


def test_a_blend_of_runs_is_submitted_like_a_run(tmp_path):
    config = make_toy(tmp_path)
    train_toy(tmp_path, config)
    train_toy(tmp_path, config, ["model.hidden=4"], name="small")
    blend, cv = api.ensemble(["net", "small"], root=tmp_path)
    assert [member["run"] for member in cv["members"]] == ["net", "small"]
    check_oof_and_cv(tmp_path, blend.folder, LABEL)
    path = api.submit(blend.name, root=tmp_path)
    assert check_file(tmp_path, "multiclass", path, LABEL) > LABEL.good
    both = [
        pd.read_parquet(tmp_path / "runs/multiclass" / run / "test.parquet").set_index("id") for run in ("net", "small")
    ]
    mean = pd.read_parquet(blend.folder / "test.parquet").set_index("id")
    pd.testing.assert_frame_equal(mean, (both[0] + both[1].loc[both[0].index]).div(2).loc[mean.index], atol=1e-7)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["runs"] == ["net", "small"]
    assert record["cv"] == pytest.approx(cv["mean"])


def test_the_board_lists_what_was_made_and_takes_the_score_of_the_host(tmp_path):
    config = make_toy(tmp_path, "regression", n_names=1)
    train_toy(tmp_path, config)
    path = api.submit("net", root=tmp_path)
    api.enter_lb(path.name, 0.75, root=tmp_path)
    runs, sent = api.board(root=tmp_path)
    cv = json.loads((tmp_path / "runs/regression/net/cv.json").read_text())
    assert runs.loc[0, "mean"] == pytest.approx(cv["mean"])
    assert sent.loc[0, "public"] == 0.75
    assert sent.loc[0, "cv"] == pytest.approx(cv["mean"])
    assert sent.loc[0, "note"] == ""
