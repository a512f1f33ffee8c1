from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.base.errors import DataError, MismatchError
from pipeline.records.predictions import (
    Predictions,
    average_by,
    join_folds,
    load_predictions,
    mean_predictions,
    save_predictions,
)


def texts(*words):
    return np.array(words, dtype=object)


def make(ids, values, names=None, fold=None, **meta):
    values = np.array(values, dtype=np.float32).reshape(len(ids), -1)
    names = tuple(names or [f"c{k}" for k in range(values.shape[1])])
    fold = None if fold is None else np.array(fold, dtype=np.int64)
    return Predictions(texts(*ids), names, values, fold, meta)


def test_saved_predictions_come_back_the_same(tmp_path):
    names = ("id", "fold", "class:id", "class:", "Cat", "cat", "3", "frog eye", "ñandú 🐦")
    values = np.random.default_rng(0).random((3, len(names)))
    saved = make(["007", "NA", "1e5"], values, names, [2, 0, 1], task="t", units=["fold0-seed0"], versions={"a": "1"})
    save_predictions(tmp_path / "new" / "oof.parquet", saved)
    loaded = load_predictions(tmp_path / "new" / "oof.parquet")
    assert loaded.ids.tolist() == ["007", "NA", "1e5"]
    assert loaded.names == names
    assert loaded.values.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, saved.values)
    np.testing.assert_array_equal(loaded.fold, [2, 0, 1])
    assert loaded.meta == saved.meta


def test_test_predictions_have_no_fold_column(tmp_path):
    save_predictions(tmp_path / "p.parquet", make(["a"], [[1.0]]))
    assert load_predictions(tmp_path / "p.parquet").fold is None


def test_the_file_holds_the_columns_of_the_contract(tmp_path):
    import pyarrow.parquet as pq

    save_predictions(tmp_path / "p.parquet", make(["a"], [[0.5, 0.5]], ("id", "dog"), [1]))
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert [(name, str(schema.field(name).type)) for name in schema.names] == [
        ("id", "string"),
        ("class:id", "float"),
        ("dog", "float"),
        ("fold", "int64"),
    ]


def test_a_set_of_no_rows_can_be_saved(tmp_path):
    empty = Predictions(texts(), ("a",), np.zeros((0, 1), dtype=np.float32))
    save_predictions(tmp_path / "p.parquet", empty)
    assert len(load_predictions(tmp_path / "p.parquet")) == 0


def test_unreadable_files_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        load_predictions(tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as Parquet"):
        load_predictions(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: is Parquet, but holds no predictions"):
        load_predictions(tmp_path / "other.parquet")


def test_doubled_ids_are_refused_by_name():
    with pytest.raises(MismatchError, match="1 ids occur more than once: b; average such rows first"):
        make(["a", "b", "b"], [1, 2, 3])


@pytest.mark.parametrize("ids", [["a", ""], ["a", 3], ["a", None]])
def test_ids_must_be_strings_that_are_not_empty(ids):
    with pytest.raises(MismatchError, match="strings that are not empty"):
        make(ids, [1, 2])


def test_not_finite_values_name_their_ids():
    with pytest.raises(DataError, match=r"t/r: NaN or infinite predictions for 2 of 3 rows, ids b, c"):
        make(["a", "b", "c"], [1, np.nan, np.inf], task="t", run="r")


def test_wrong_shapes_types_and_doubled_columns_are_refused():
    with pytest.raises(MismatchError, match=r"values must be float32 of shape \(2, 1\) \(found: float64"):
        Predictions(texts("a", "b"), ("c",), np.zeros((2, 1)))
    with pytest.raises(MismatchError, match=r"fold must be int64 of shape \(1,\)"):
        Predictions(texts("a"), ("c",), np.zeros((1, 1), np.float32), np.zeros(2, np.int64))
    with pytest.raises(MismatchError, match="column names are doubled: c"):
        make(["a"], [[1, 2]], ("c", "c"))


def test_aligning_follows_the_ids():
    aligned = make(["a", "b", "c"], [1, 2, 3], fold=[0, 1, 2]).aligned_to(["c", "a", "b"])
    assert aligned.values[:, 0].tolist() == [3, 1, 2]
    assert aligned.fold is not None
    assert aligned.fold.tolist() == [2, 0, 1]
    assert aligned.sorted().ids.tolist() == ["a", "b", "c"]


def test_aligning_to_other_rows_names_five_of_each_kind():
    rows = make([f"r{n}" for n in range(8)], range(8))
    with pytest.raises(
        MismatchError, match=r"1 missing \(ids x\), 8 extra \(ids r0, r1, r2, r3, r4, \.\.\. \(3 more\)"
    ):
        rows.aligned_to(["x"])
    with pytest.raises(MismatchError, match="occur more than once: r1"):
        rows.aligned_to(["r1", "r1"])


def test_joined_folds_hold_every_row_once():
    parts = [make(["b", "a"], [1, 2], fold=[0, 0], units=["u0"], run="r", weights_hash="x")]
    parts += [make(["c"], [3], fold=[1], units=["u1"], run="r", weights_hash="y")]
    oof = join_folds(parts).sorted()
    assert oof.values[:, 0].tolist() == [2, 1, 3]
    assert oof.fold is not None
    assert oof.fold.tolist() == [0, 0, 1]
    assert oof.meta == {"units": ["u0", "u1"], "run": "r"}


def test_a_row_in_two_folds_is_refused():
    with pytest.raises(MismatchError, match=r"1 rows are held out more than once \(ids b\)"):
        join_folds([make(["a", "b"], [1, 2], fold=[0, 0]), make(["b"], [3], fold=[1])])


def test_folds_without_fold_or_of_other_classes_or_splits_are_refused():
    first = make(["a"], [1], fold=[0], folds_hash="x")
    with pytest.raises(MismatchError, match="has no fold column"):
        join_folds([first, make(["b"], [1])])
    with pytest.raises(MismatchError, match="only in the first: c0; only in the second: dog"):
        join_folds([first, make(["b"], [1], ["dog"], [1])])
    with pytest.raises(MismatchError, match="folds hash 'x' against 'y'"):
        join_folds([first, make(["b"], [1], fold=[1], folds_hash="y")])
    with pytest.raises(MismatchError, match="no predictions given"):
        join_folds([])


def test_the_mean_joins_by_id_and_follows_weights():
    a = make(["x", "y"], [0.2, 0.4], fold=[0, 1])
    b = make(["y", "x"], [0.8, 0.6], fold=[1, 0])
    np.testing.assert_allclose(mean_predictions([a, b]).values[:, 0], [0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(mean_predictions([a, b], [3, 1]).values[:, 0], [0.3, 0.5], rtol=1e-6)


def test_the_mean_is_taken_in_double_precision():
    stacked = np.random.default_rng(0).random((50, 200)).astype(np.float32)
    ids = [f"r{n}" for n in range(200)]
    exact = stacked.astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(mean_predictions([make(ids, row) for row in stacked]).values[:, 0], exact)


def test_members_of_a_mean_that_differ_are_both_named():
    a = make(["x"], [1], run="first", task="t", form="probs", folds_hash="f", fold=[0])
    cases = {
        r"t/first \(number 1\) and u/second \(number 2\).*task 't' against 'u'": {"meta": {**a.meta, "task": "u"}},
        "form 'probs' against 'values'": {"meta": {**a.meta, "form": "values"}},
        "folds hash 'f' against 'g'": {"meta": {**a.meta, "folds_hash": "g"}},
        "only in the second: dog": {"names": ("dog",)},
        r"second \(number 2\) against .*1 missing \(ids x\), 1 extra \(ids z\)": {"ids": texts("z")},
        "other folds for ids x": {"fold": np.array([1])},
        "only one of them has a fold column": {"fold": None},
    }
    for message, change in cases.items():
        b = replace(a, **change)
        with pytest.raises(MismatchError, match=message):
            mean_predictions([a, replace(b, meta={**b.meta, "run": "second"})])


def test_a_mean_of_one_state_and_one_unstated_hash_is_allowed():
    assert len(mean_predictions([make(["x"], [1], folds_hash="f"), make(["x"], [1])])) == 1


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [np.nan, 1]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(MismatchError, match="weights must be 2 numbers"):
        mean_predictions([make(["x"], [1])] * 2, weights)


def test_rows_of_one_key_are_averaged_whatever_their_order():
    rng = np.random.default_rng(1)
    rows = make([f"r{n}" for n in range(50)], rng.random((50, 3)))
    keys = np.array([f"k{n % 7}" for n in range(50)], dtype=object)
    mean = average_by(rows, keys)
    for row, key in enumerate(mean.ids):
        np.testing.assert_allclose(mean.values[row], rows.values[keys == key].mean(axis=0), rtol=1e-6)
    order = rng.permutation(50)
    shuffled = average_by(rows.aligned_to(rows.ids[order]), keys[order])
    assert shuffled.ids.tolist() == mean.ids.tolist()
    assert shuffled.values.tobytes() == mean.values.tobytes()


def test_sums_over_a_key_do_not_depend_on_the_order_of_rows():
    values, ids, keys = [1e20, 1.0, -1e20], ["a", "b", "c"], texts("k", "k", "k")
    forward = average_by(make(ids, values), keys)
    backward = average_by(make(["b", "a", "c"], [values[1], values[0], values[2]]), keys)
    assert forward.values.tobytes() == backward.values.tobytes()


def test_rows_of_one_key_share_a_fold_or_are_refused():
    rows = make(["a", "b", "c"], [1, 3, 5], fold=[1, 1, 0])
    mean = average_by(rows, texts("k", "k", "l"))
    assert mean.fold is not None
    assert (mean.ids.tolist(), mean.values[:, 0].tolist(), mean.fold.tolist()) == (["k", "l"], [2, 5], [1, 0])
    with pytest.raises(MismatchError, match="different folds: k"):
        average_by(rows, texts("k", "l", "k"))
