from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import ConfigError, DataError, MismatchError
from pipeline.base.files import sha256_file
from pipeline.base.tables import read_table
from pipeline.records.layout import plain_layout, read_layout
from pipeline.records.metrics import resolve_metric
from pipeline.records.predictions import Predictions
from pipeline.records.task import MetricSpec, Task
from pipeline.stages.submission import (
    check_file,
    check_frame,
    decode,
    direct_score,
    encode,
    require_same_score,
    round_trip_score,
    wanted_targets,
    write_submission,
)

IDS = ("007", "NA", "1e5", "a b", "null")
CLASSES = ("Black-grass", "Sugar beet", "maize")


def make_task(kind, form=None, metric="accuracy", ordinal="softmax", **submission):
    values = {"name": "toy", "data": "data", "kind": kind, "id": "id", "target": ("label",), "metric": metric}
    values |= {"train": {"table": "train.csv", "files": ("{id}.png",)}, "ordinal": ordinal}
    if form != "top_k":  # the task refuses what its format never reads
        submission.pop("k", None)
    if form not in ("labels", "top_k"):
        submission.pop("separator", None)
    return Task.model_validate(values | {"submission": {"format": form, **submission}})


def make(ids, values, names):
    ids = np.array(list(ids), dtype=object)
    return Predictions(
        ids, tuple(names), np.array(values, dtype=np.float32).reshape(len(ids), -1), meta={"task": "toy"}
    )


def softmax_rows(n, k, seed=0):
    rows = np.random.default_rng(seed).dirichlet(np.ones(k), n).astype(np.float32)
    return rows / rows.sum(axis=1, keepdims=True)


def sample_file(tmp_path, text):
    (tmp_path / "sample.csv").write_text(text)
    return tmp_path


# --- The layout ------------------------------------------------------------------------------------------------------


def test_the_sample_gives_ids_order_columns_and_types(tmp_path):
    folder = sample_file(tmp_path, "img,label\n1e5,3\nNA,0\n007,0\n")
    layout = read_layout(make_task("multiclass", sample="sample.csv"), folder, ("0", "3"), ["007", "NA", "1e5"])
    assert layout.ids.tolist() == ["1e5", "NA", "007"]
    assert (layout.id_column, layout.value_columns, layout.dtypes, layout.texts) == (
        "img",
        ("label",),
        ("int",),
        ("0", "3"),
    )


def test_without_a_sample_the_test_ids_keep_their_order():
    layout = plain_layout(make_task("multiclass"), CLASSES, IDS)
    assert (layout.ids.tolist(), layout.columns, layout.dtypes) == (list(IDS), ("id", "label"), ("str",))
    assert plain_layout(make_task("multiclass", "per_class"), CLASSES, IDS).value_columns == CLASSES


def test_a_sample_of_other_rows_is_refused(tmp_path):
    folder = sample_file(tmp_path, "id,label\na,0\nb,0\n")
    with pytest.raises(
        MismatchError, match=r"sample\.csv: not the rows that are wanted: 1 missing \(ids b\), 1 extra \(ids c\)"
    ):
        read_layout(make_task("binary", sample="sample.csv"), folder, ("0", "1"), ["a", "c"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,0\na,1\n", "occur more than once: a"),
        ("id,label\na,0\n,1\n", "the id in column 'id' of row 2 is empty"),
        ("id,label,label\na,0,0\n", "the header names a column twice: label"),
        ("id,label\na,0,0\n", "cannot be read as CSV|wrong|Expected"),
        ("", "cannot be read as CSV"),
        ("id\na\n", "needs an id column, value columns and rows"),
        ("id,label,more\na,0,0\n", "has one value column, found 2: label, more"),
    ],
)
def test_broken_samples_are_refused_by_name(tmp_path, text, message):
    folder = sample_file(tmp_path, text)
    with pytest.raises((DataError, MismatchError), match=message) as caught:
        read_layout(make_task("binary", "label", sample="sample.csv"), folder, ("0", "1"), ["a"])
    assert "sample.csv" in str(caught.value)


def test_a_missing_sample_and_an_unknown_id_column_are_named(tmp_path):
    with pytest.raises(DataError, match=r"sample\.csv: no such file"):
        read_layout(make_task("binary", sample="sample.csv"), tmp_path, ("0", "1"), ["a"])
    folder = sample_file(tmp_path, "image_id,label\na,0\n")
    with pytest.raises(ConfigError, match=r"has no column 'image'\. Did you mean 'image_id'"):
        read_layout(make_task("binary", sample="sample.csv", id="image"), folder, ("0", "1"), ["a"])


def test_a_format_that_does_not_fit_the_kind_is_refused():
    with pytest.raises(
        ConfigError, match="format: probability does not fit kind: multiclass; allowed: label, per_class"
    ):
        plain_layout(make_task("multiclass", "probability"), CLASSES, IDS)


def test_an_unknown_class_column_names_the_nearest(tmp_path):
    folder = sample_file(tmp_path, "id,Black-grass,Sugar-beet,maize\na,0,0,0\n")
    with pytest.raises(DataError, match=r"column 'Sugar-beet' is no class or target\. Did you mean 'Sugar beet'"):
        read_layout(make_task("multiclass", "per_class", sample="sample.csv"), folder, CLASSES, ["a"])


def test_a_multiclass_sample_must_have_every_class(tmp_path):
    folder = sample_file(tmp_path, "id,maize\na,0\n")
    with pytest.raises(DataError, match="no column for Black-grass, Sugar beet"):
        read_layout(make_task("multiclass", "per_class", sample="sample.csv"), folder, CLASSES, ["a"])


def test_classes_that_are_no_integers_do_not_fit_an_integer_sample(tmp_path):
    folder = sample_file(tmp_path, "id,label\na,0\n")
    with pytest.raises(DataError, match="its labels are integers, but class 'Black-grass' is none"):
        read_layout(make_task("multiclass", sample="sample.csv"), folder, CLASSES, ["a"])


def test_a_class_that_holds_the_separator_is_refused():
    with pytest.raises(DataError, match="class 'Sugar beet' holds the separator ' '"):
        plain_layout(make_task("multilabel", "labels"), CLASSES, IDS)


def test_the_users_own_header_stands_for_the_classes_in_order():
    task = make_task("multiclass", "per_class", columns=("p0", "p1", "p2"))
    frame = encode(make(["a"], [0.2, 0.3, 0.5], CLASSES), plain_layout(task, CLASSES, ["a"]), task, CLASSES)
    assert frame[["p0", "p1", "p2"]].iloc[0].tolist() == pytest.approx([0.2, 0.3, 0.5])


# --- Encoding --------------------------------------------------------------------------------------------------------


def cells_of(task, names, values, columns=None):
    values = np.array(values, dtype=np.float32)
    columns = columns or ((names[1],) if task.kind == "binary" else names)
    ids = [f"r{n}" for n in range(len(values))]
    frame = encode(make(ids, values, columns), plain_layout(task, names, ids), task, names)
    return frame.iloc[:, 1:].to_numpy().ravel().tolist()


def test_labels_are_class_names_and_ties_go_to_the_lower_class():
    rows = [[0.2, 0.7, 0.1], [0.5, 0.0, 0.5]]
    assert cells_of(make_task("multiclass"), CLASSES, rows) == ["Sugar beet", "Black-grass"]
    assert cells_of(make_task("multiclass"), ("2", "3", "5"), rows) == [3, 2]


def test_binary_labels_follow_the_threshold_in_single_precision():
    task = make_task("binary", "label", threshold=0.7)
    assert cells_of(task, ("cat", "dog"), [[0.69], [0.7], [0.9]]) == ["cat", "dog", "dog"]


def test_binary_words_are_zero_and_one_where_the_sample_holds_integers(tmp_path):
    folder = sample_file(tmp_path, "id,label\na,0\nb,0\n")
    task = make_task("binary", "label", sample="sample.csv")
    layout = read_layout(task, folder, ("cat", "dog"), ["a", "b"])
    assert encode(make("ab", [0.1, 0.9], ["dog"]), layout, task, ("cat", "dog"))["label"].tolist() == [0, 1]


def test_float_labels_stay_floats(tmp_path):
    folder = sample_file(tmp_path, "id,label\na,0.0\n")
    task = make_task("multiclass", sample="sample.csv")
    layout = read_layout(task, folder, ("0", "3"), ["a"])
    path = write_submission(tmp_path / "s.csv", make("a", [0.1, 0.9], ("0", "3")), layout, task, ("0", "3"), {})
    assert path.read_text() == "id,label\na,3.0\n"


def test_ordinal_labels_are_the_rounded_expected_grade():
    names = ("0", "1", "2")
    rows = [[0.5, 0.0, 0.5], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]]
    assert cells_of(make_task("ordinal"), names, rows) == [1, 2, 0]
    regressed = make_task("ordinal", ordinal="regression")
    assert cells_of(regressed, names, [[-0.7], [1.4], [5.0]], ("grade",)) == [0, 1, 2]


def test_ordinal_values_are_expected_grades_in_the_names_numbers(tmp_path):
    task = make_task("ordinal", "values")
    assert cells_of(task, ("1", "2", "4"), [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]) == [3.0, 1.0]
    folder = sample_file(tmp_path, "id,label\na,0\n")
    task = make_task("ordinal", "values", sample="sample.csv")
    layout = read_layout(task, folder, ("0", "1", "2"), ["a"])
    assert encode(make("a", [0.0, 0.3, 0.7], "012"), layout, task, tuple("012"))["label"].tolist() == [2]


def test_several_labels_are_joined_and_an_empty_row_gets_the_best_or_the_stated_word():
    names, rows = ("rust", "scab", "spot"), [[0.9, 0.1, 0.5], [0.1, 0.4, 0.3]]
    assert cells_of(make_task("multilabel", "labels"), names, rows) == ["rust spot", "scab"]
    assert cells_of(make_task("multilabel", "labels", empty="healthy"), names, rows) == ["rust spot", "healthy"]
    assert cells_of(make_task("multilabel", "labels", separator="|"), names, rows) == ["rust|spot", "scab"]


def test_top_k_names_distinct_classes_by_falling_probability():
    rows = [[0.2, 0.3, 0.3, 0.2]]
    assert cells_of(make_task("multiclass", "top_k", k=3), tuple("abcd"), rows) == ["b c a"]
    assert cells_of(make_task("multiclass", "top_k", k=9), tuple("abcd"), rows) == ["b c a d"]


def test_values_are_cut_by_clip():
    task = make_task("regression", clip=(1.0, 100.0))
    assert cells_of(task, ("label",), [[-3.0], [50.5], [200.0]]) == [1.0, 50.5, 100.0]


def test_the_samples_columns_are_matched_by_name_in_its_order(tmp_path):
    folder = sample_file(tmp_path, "spot,rust,id\n0,0,a\n")
    task = make_task("multilabel", "per_class", sample="sample.csv", id="id")
    layout = read_layout(task, folder, ("rust", "scab", "spot"), ["a"])
    frame = encode(make("a", [0.1, 0.2, 0.75], ("rust", "scab", "spot")), layout, task, ("rust", "scab", "spot"))
    assert frame.columns.tolist() == ["spot", "rust", "id"]
    assert frame[["spot", "rust"]].iloc[0].tolist() == pytest.approx([0.75, 0.1])
    check_frame(frame, layout, task, ("rust", "scab", "spot"))
    np.testing.assert_allclose(decode(frame, layout, task, ("rust", "scab", "spot")), [[0.1, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(wanted_targets(np.array([[1, 2, 3]]), layout, task), [[1, 3]])


def test_columns_of_predictions_are_joined_by_name():
    task = make_task("multiclass")
    frame = encode(make("a", [0.9, 0.1, 0.0], CLASSES[::-1]), plain_layout(task, CLASSES, ["a"]), task, CLASSES)
    assert frame["label"].tolist() == ["maize"]


def test_rows_are_joined_by_id_so_shuffled_rows_give_the_same_bytes(tmp_path):
    ids, rows = [f"r{n}" for n in range(40)], softmax_rows(40, 3)
    order = np.random.default_rng(1).permutation(40)
    for form in ("label", "per_class", "top_k"):
        task = make_task("multiclass", form, separator=";")
        layout = plain_layout(task, CLASSES, ids)
        straight = write_submission(tmp_path / f"{form}1.csv", make(ids, rows, CLASSES), layout, task, CLASSES, {})
        shuffled = make(np.array(ids)[order], rows[order], CLASSES)
        again = write_submission(tmp_path / f"{form}2.csv", shuffled, layout, task, CLASSES, {})
        assert straight.read_bytes() == again.read_bytes()


def test_predictions_for_other_rows_classes_tasks_or_forms_are_refused():
    task = make_task("multiclass")
    layout = plain_layout(task, CLASSES, ["a", "b"])
    good = make("ab", softmax_rows(2, 3), CLASSES)
    cases = {
        r"1 missing \(ids b\), 1 extra \(ids c\)": make("ac", softmax_rows(2, 3), CLASSES),
        "columns x, y, z; the task has Black-grass": make("ab", softmax_rows(2, 3), "xyz"),
        "task is 'other', the submission needs 'toy'": replace(good, meta={"task": "other"}),
        "form is 'values', the submission needs 'probs'": replace(good, meta={"form": "values"}),
    }
    for message, wrong in cases.items():
        with pytest.raises(MismatchError, match=message):
            encode(wrong, layout, task, CLASSES)


def test_values_that_are_no_probabilities_are_refused():
    task = make_task("multiclass", "per_class")
    layout = plain_layout(task, CLASSES, ["a", "b"])
    with pytest.raises(DataError, match=r"no probabilities for ids b \(the first: values 0.5 to 0.5, sum 1.5\)"):
        encode(make("ab", [[0.2, 0.3, 0.5], [0.5, 0.5, 0.5]], CLASSES), layout, task, CLASSES)


# --- Files -----------------------------------------------------------------------------------------------------------


def test_rows_sum_to_one_after_they_are_read_again(tmp_path):
    names = tuple(f"c{k}" for k in range(120))
    task = make_task("multiclass", "per_class", clip=(1e-6, 1 - 1e-6))
    ids = [f"r{n}" for n in range(50)]
    layout = plain_layout(task, names, ids)
    path = write_submission(tmp_path / "s.csv", make(ids, softmax_rows(50, 120), names), layout, task, names, {})
    sums = pd.read_csv(path)[list(names)].sum(axis=1)
    assert np.abs(sums - 1).max() < 1e-9


def test_integer_labels_stay_integers_and_odd_ids_survive(tmp_path):
    names = ("0", "3")
    task = make_task("multiclass")
    layout = plain_layout(task, names, IDS)
    path = write_submission(tmp_path / "s.csv", make(IDS, softmax_rows(5, 2), names), layout, task, names, {})
    assert pd.read_csv(path)["label"].dtype == np.int64
    assert read_table(path)["id"].tolist() == list(IDS)


def test_a_record_lies_beside_the_file_and_keeps_its_scores(tmp_path):
    task = make_task("multiclass")
    layout = plain_layout(task, CLASSES, IDS)
    good = make(IDS, softmax_rows(5, 3), CLASSES)
    path = write_submission(tmp_path / "toy" / "s.csv", good, layout, task, CLASSES, {"runs": ["r"], "cv": 0.5})
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == sha256_file(path)
    assert (record["file"], record["format"], record["rows"], record["runs"]) == ("s.csv", "label", 5, ["r"])
    path.with_suffix(".json").write_text(json.dumps(record | {"lb": {"public": 0.4}}))
    write_submission(path, good, layout, task, CLASSES, {"runs": ["r"]})
    assert json.loads(path.with_suffix(".json").read_text())["lb"] == {"public": 0.4}
    assert sorted(file.name for file in path.parent.iterdir()) == ["s.csv", "s.json"]


def test_another_submission_is_never_overwritten_unasked(tmp_path):
    task = make_task("multiclass")
    layout = plain_layout(task, CLASSES, IDS)
    first, second = (make(IDS, softmax_rows(5, 3, seed), CLASSES) for seed in (0, 1))
    path = write_submission(tmp_path / "s.csv", first, layout, task, CLASSES, {})
    before = path.read_bytes()
    path.with_suffix(".json").write_text(json.dumps({"lb": {"public": 1}}))
    advice = r"s\.csv: another submission of that name exists; name another --file, or --overwrite it"
    with pytest.raises(DataError, match=advice):
        write_submission(path, second, layout, task, CLASSES, {})
    assert path.read_bytes() == before
    write_submission(path, second, layout, task, CLASSES, {}, overwrite=True)
    assert path.read_bytes() != before
    assert "lb" not in json.loads(path.with_suffix(".json").read_text())


def test_the_suffix_must_fit_the_format(tmp_path):
    task = make_task("multiclass", "array")
    layout = plain_layout(task, CLASSES, ["a"])
    with pytest.raises(DataError, match=r"s\.csv: a submission of format array is a \.npy file"):
        write_submission(tmp_path / "s.csv", make("a", softmax_rows(1, 3), CLASSES), layout, task, CLASSES, {})


def test_nothing_is_left_when_the_check_fails(tmp_path):
    task = make_task("multiclass")
    layout = plain_layout(task, CLASSES, ["a"])
    with pytest.raises(DataError):
        write_submission(tmp_path / "new" / "s.csv", make("a", [9, 9, 9], CLASSES), layout, task, CLASSES, {})
    assert not (tmp_path / "new").exists()


BAD_TABLES = {
    "id,x,y\na,.5,.5\n": r"1 missing \(ids b\)",
    "id,x,y\na,.5,.5\nb,.5,.5\nc,.5,.5\n": r"1 extra \(ids c\)",
    "id,x,y\na,.5,.5\nb,.5,.5\nb,.5,.5\n": "occur more than once: b",
    "id,x,y\nb,.5,.5\na,.5,.5\n": "wrong order: row 1 is id b, the host has id a there",
    "id,x,z\na,.5,.5\nb,.5,.5\n": r"wrong columns \(missing y; extra z",
    "id,y,x\na,.5,.5\nb,.5,.5\n": r"wrong columns \(other order\); the host wants id, x, y",
    "id,x,y\na,.5,.5\nb,,.5\n": "id b, column 'x': the cell is empty or NaN",
    "id,x,y\na,.5,.5\nb,.5,nan\n": "id b, column 'y': nan is not from 0 to 1",
    "id,x,y\na,.5,.5\nb,.5,inf\n": "id b, column 'y': inf is not from 0 to 1",
    "id,x,y\na,.5,.5\nb,one,.5\n": "id b, column 'x': 'one' is no number",
    "id,x,y\na,.5,.5\nb,1.5,-.5\n": "id b, column 'x': 1.5 is not from 0 to 1",
    "id,x,y\na,.5,.5\nb,.5,.50000001\n": "id b: the probabilities sum to .*1.00000001.*, not one",
    "id,x,y\na,.5,.5\nb,.5\n": "cell is empty|cannot be read",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_bad_files_are_refused_with_file_id_and_column(tmp_path, text):
    task = make_task("multiclass", "per_class")
    layout = plain_layout(task, ("x", "y"), ["a", "b"])
    (tmp_path / "s.csv").write_text("id,x,y\na,.5,.5\nb,.25,.75\n")
    check_file(tmp_path / "s.csv", layout, task, ("x", "y"))
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=BAD_TABLES[text]) as caught:
        check_file(tmp_path / "s.csv", layout, task, ("x", "y"))
    assert str(caught.value).count("s.csv") == 1


@pytest.mark.parametrize(
    ("kind", "form", "cell", "message"),
    [
        (
            "multiclass",
            "label",
            "Sugar bet",
            "id a, column 'label': 'Sugar bet' is no class. Did you mean 'Sugar beet'",
        ),
        ("multiclass", "top_k", "maize;maize", "id a, column 'label': a class comes twice in 'maize;maize'"),
        ("multiclass", "top_k", "maize;Sugar beet;Black-grass", "id a, column 'label': 3 classes, at most 2"),
        ("multilabel", "labels", "maize;corn", "id a, column 'label': 'corn' is no class"),
        ("multilabel", "labels", "", "id a, column 'label': the cell is empty or NaN"),
    ],
)
def test_bad_cells_are_refused(kind, form, cell, message):
    task = make_task(kind, form, k=2, separator=";")
    layout = plain_layout(task, CLASSES, ["a"])
    with pytest.raises(DataError, match=message):
        check_frame(pd.DataFrame({"id": ["a"], "label": [cell]}), layout, task, CLASSES)


def test_values_outside_of_clip_are_refused():
    task = make_task("regression", clip=(1.0, 100.0))
    layout = plain_layout(task, ("label",), ["a"])
    with pytest.raises(DataError, match=r"id a, column 'label': 100\.5 is not from 1 to 100"):
        check_frame(pd.DataFrame({"id": ["a"], "label": [100.5]}), layout, task, ("label",))


def test_arrays_of_another_shape_type_or_content_are_refused(tmp_path):
    task = make_task("multiclass", "array")
    layout = plain_layout(task, CLASSES, ["a", "b"])
    good = softmax_rows(2, 3)
    for wrong, message in (
        (good[:1], r"shape \(1, 3\), the host wants \(2, 3\)"),
        (good.astype(np.float64), "expected one float32 array"),
        (good * np.float32(0.5), "id a: the probabilities sum to"),
        (np.where(good == good[1, 2], np.float32(np.nan), good), "id b, column 2: nan is not from 0 to 1"),
    ):
        np.save(tmp_path / "s.npy", wrong)
        with pytest.raises(DataError, match=message):
            check_file(tmp_path / "s.npy", layout, task, CLASSES)
    (tmp_path / "s.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"s\.npy: cannot be read as an array"):
        check_file(tmp_path / "s.npy", layout, task, CLASSES)


# --- Round trips -----------------------------------------------------------------------------------------------------


def wide(n, k, seed=0):
    return np.random.default_rng(seed).random((n, k)).astype(np.float32)


N = 60
RNG = np.random.default_rng(3)
HARD, MANY = RNG.integers(0, 3, N), RNG.integers(0, 2, (N, 3)).astype(np.float32)
GRADES = ("0", "1", "2")
TRIPS = [
    (make_task("multiclass", "label", "accuracy"), CLASSES, softmax_rows(N, 3), HARD),
    (make_task("multiclass", "per_class", "log_loss"), CLASSES, softmax_rows(N, 3), HARD),
    (make_task("multiclass", "array", "log_loss"), CLASSES, softmax_rows(N, 3), HARD),
    (make_task("multiclass", "top_k", {"name": "map_at_k", "options": {"k": 2}}, k=2, separator="|"), CLASSES,
     softmax_rows(N, 3), HARD),
    (make_task("binary", "probability", "log_loss"), ("no", "yes"), wide(N, 1), HARD % 2),
    (make_task("binary", "probability", "log_loss", clip=(0.05, 0.95)), ("no", "yes"), wide(N, 1), HARD % 2),
    (make_task("binary", "label", "accuracy", threshold=0.3), ("no", "yes"), wide(N, 1), HARD % 2),
    (make_task("binary", "per_class", "log_loss"), ("no", "yes"), wide(N, 1), HARD % 2),
    (make_task("binary", "array", "log_loss", clip=(0.01, 0.99)), ("no", "yes"), wide(N, 1), HARD % 2),
    (make_task("multilabel", "per_class", "mean_column_auc"), CLASSES, wide(N, 3), MANY),
    (make_task("multilabel", "labels", "f1_micro", threshold=0.7, separator=";"), CLASSES, wide(N, 3), MANY),
    (make_task("multilabel", "labels", "f1_micro", separator=";", empty="none"), CLASSES, wide(N, 3), MANY),
    (make_task("ordinal", "label", "quadratic_kappa"), GRADES, softmax_rows(N, 3), HARD),
    (make_task("ordinal", "values", "quadratic_kappa"), GRADES, softmax_rows(N, 3), HARD),
    (make_task("ordinal", "per_class", "quadratic_kappa"), GRADES, softmax_rows(N, 3), HARD),
    (make_task("ordinal", "label", "quadratic_kappa", "regression"), GRADES, 3 * wide(N, 1) - 0.5, HARD),
    (make_task("ordinal", "values", "quadratic_kappa", "regression"), GRADES, 3 * wide(N, 1) - 0.5, HARD),
    (make_task("regression", "values", "rmse"), ("label",), wide(N, 1), wide(N, 1, 5)),
    (make_task("regression", "values", "rmse", clip=(0.1, 0.9)), ("u", "v"), wide(N, 2), wide(N, 2, 5)),
    (make_task("regression", "array", "rmse"), ("u", "v"), wide(N, 2), wide(N, 2, 5)),
]  # fmt: skip


@pytest.mark.parametrize("trip", TRIPS, ids=lambda trip: f"{trip[0].kind}-{trip[0].format}-{trip[0].metric.name}")
def test_oof_scores_the_same_through_the_writer(trip):
    task, names, values, targets = trip
    columns = {"binary": names[1:], "ordinal": names if task.ordinal == "softmax" else ("grade",)}.get(task.kind, names)
    ids = [f"r{n}" for n in range(N)]
    layout = plain_layout(task, names, ["other"])
    metric = resolve_metric(task.metric, task.kind, names, task.ordinal, task.submission.threshold)
    oof = make(ids, values, columns)
    direct = direct_score(oof, targets, metric, layout, task, names)
    through = round_trip_score(oof, targets, metric, layout, task, names)
    require_same_score(direct, through)
    assert len(set(targets.ravel())) > 1


def test_decoding_gives_back_what_a_grader_sees():
    task = make_task("multiclass", "top_k", k=2, separator=";")
    layout = plain_layout(task, CLASSES, ["a"])
    frame = encode(make("a", [0.2, 0.3, 0.5], CLASSES), layout, task, CLASSES)
    assert decode(frame, layout, task, CLASSES).tolist() == [[0.0, 0.5, 1.0]]
    task = make_task("multilabel", "labels", separator=";", empty="none")
    layout = plain_layout(task, CLASSES, ["a", "b"])
    frame = encode(make("ab", [[0.9, 0.3, 0.5], [0.1, 0.1, 0.1]], CLASSES), layout, task, CLASSES)
    assert decode(frame, layout, task, CLASSES).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_decoding_follows_the_ids_of_the_layout():
    task = make_task("regression")
    layout = plain_layout(task, ("label",), ["b", "a"])
    frame = encode(make("ab", [1.0, 2.0], ["label"]), layout, task, ("label",))
    assert frame["id"].tolist() == ["b", "a"]
    assert decode(frame, layout, task, ("label",)).tolist() == [[2.0], [1.0]]


def test_a_format_that_loses_what_the_metric_counts_is_an_error():
    task = make_task("multiclass", "label", "log_loss")
    layout, targets = plain_layout(task, CLASSES, ["x"]), HARD
    metric = resolve_metric(MetricSpec(name="log_loss"), "multiclass", CLASSES)
    oof = make([f"r{n}" for n in range(N)], softmax_rows(N, 3), CLASSES)
    through = round_trip_score(oof, targets, metric, layout, task, CLASSES)
    with pytest.raises(MismatchError, match="once written as a submission and read again"):
        require_same_score(direct_score(oof, targets, metric, layout, task, CLASSES), through)
