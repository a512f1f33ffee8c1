import gzip
import zipfile

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import DataError
from pipeline.base.tables import read_header, read_table
from pipeline.data.sources import ArrayItems, FileItems, PixelItems
from pipeline.data.tables import load_test, load_train
from pipeline.data.targets import class_order
from pipeline.records.record import tuples
from pipeline.records.task import Task

ODD_IDS = ["007", "7", "NA", "1e5", "null", "True", "a b", "1.0"]


def make_task(**values):
    base = {"name": "toy", "data": "data", "kind": "multiclass", "metric": "accuracy", "id": "id", "target": "label"}
    train, test = {"table": "train.csv", "files": "train/{id}.png"}, {"table": "test.csv", "files": "test/{id}.png"}
    merged = base | {"train": train, "test": test} | values
    return Task.model_validate(tuples({key: value for key, value in merged.items() if value is not None}))


def write(folder, text, name="train.csv"):
    (folder / name).write_text(text)
    return folder


def rows_of(folder, text, **values):
    return load_train(make_task(**values), write(folder, text)).rows


# -- reading -----------------------------------------------------------------------------------------------------------


def test_every_cell_stays_the_text_that_it_is(tmp_path):
    write(tmp_path, "id,x\n" + "".join(f"{name},\n" for name in ODD_IDS), "t.csv")
    table = read_table(tmp_path / "t.csv")
    assert table["id"].tolist() == ODD_IDS
    assert table["x"].tolist() == [""] * len(ODD_IDS)


def test_the_mark_of_excel_and_windows_line_ends_are_taken(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfid,label\r\n1,\xc3\xbc\r\n")
    table = read_table(tmp_path / "t.csv")
    assert table.to_dict("list") == {"id": ["1"], "label": ["ü"]}


def test_zipped_and_gzipped_tables_read_as_plain_ones(tmp_path):
    text = "id,label\n007,a\n"
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("t.csv.zip", "t.csv.gz"):
        assert read_table(tmp_path / name).to_dict("list") == {"id": ["007"], "label": ["a"]}


def test_parquet_becomes_text_with_empty_cells_and_whole_numbers_stay_whole(tmp_path):
    frame = pd.DataFrame({"id": ["007", "NA"], "n": pd.array([1, None], dtype="Int64"), "x": [0.5, None]})
    frame["plain"] = [3, 4]
    frame.to_parquet(tmp_path / "t.parquet")
    expected = {"id": ["007", "NA"], "n": ["1", ""], "x": ["0.5", ""], "plain": ["3", "4"]}
    assert read_table(tmp_path / "t.parquet").to_dict("list") == expected
    assert read_table(tmp_path / "t.parquet", lambda name: name == "n").to_dict("list") == {"n": ["1", ""]}
    assert read_header(tmp_path / "t.parquet") == ["id", "n", "x", "plain"]


def test_only_wanted_columns_are_read_and_rows_are_counted_without_any(tmp_path):
    write(tmp_path, "id,p0,p1\na,1,2\nb,3,4\n", "t.csv")
    assert read_table(tmp_path / "t.csv", lambda name: not name.startswith("p")).to_dict("list") == {"id": ["a", "b"]}
    none = read_table(tmp_path / "t.csv", lambda name: False)
    assert (len(none), list(none.columns)) == (2, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv: cannot be read as CSV: No columns"),
        (b"id,label\na,0,0\n", r"t\.csv: cannot be read as CSV: .*Expected 2 fields in line 2, saw 3"),
        (b"id,a,a\n1,2,3\n", r"t\.csv: the header names a column twice: a$"),
        (b"id,label\n1,\xfc\n", r"t\.csv: is not in UTF-8 \(invalid start byte at byte \d+\); save it so"),
    ],
)
def test_a_broken_table_is_named_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv")


def test_a_missing_or_broken_file_is_named_with_its_neighbour(tmp_path):
    write(tmp_path, "id\n1\n")
    with pytest.raises(DataError, match=r"trian\.csv: no such file\. Did you mean 'train\.csv'\?"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(DataError, match=r"none/train\.csv: no such file\.$"):
        read_table(tmp_path / "none" / "train.csv")
    for name in ("t.parquet", "t.csv.zip", "t.csv.gz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match=f"{name}: cannot be read as"):
            read_table(tmp_path / name)


def test_a_truncated_table_is_no_shorter_table(tmp_path):
    pd.DataFrame({"id": [str(number) for number in range(5000)]}).to_parquet(tmp_path / "t.parquet")
    text = "id\n" + "".join(f"{np.random.default_rng(number).random()}\n" for number in range(3000))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[100:2000] = bytes(1900)
    (tmp_path / "t.parquet").write_bytes(content)
    (tmp_path / "t.csv.gz").write_bytes((tmp_path / "t.csv.gz").read_bytes()[:15_000])
    for name in ("t.parquet", "t.csv.gz"):
        with pytest.raises(DataError, match=f"{name}: cannot be read as"):
            read_table(tmp_path / name)


# -- ids and files -----------------------------------------------------------------------------------------------------


def test_ids_and_the_files_named_after_them_are_kept_to_the_letter(tmp_path):
    text = "id,label\n" + "".join(f"{name},{'xy'[place % 2]}\n" for place, name in enumerate(ODD_IDS))
    row_set = load_train(make_task(), write(tmp_path, text))
    assert row_set.rows.ids.tolist() == ODD_IDS
    assert isinstance(row_set.source, FileItems)
    assert [path.name for path in row_set.source.paths] == [f"{name}.png" for name in ODD_IDS]
    assert row_set.source.paths[0] == tmp_path / "train" / "007.png"


def test_several_files_per_row_and_files_that_rows_share_are_items_once(tmp_path):
    text = "id,label,scene\na,x,s1\nb,y,s1\nc,x,s2\n"
    train = {"table": "train.csv", "files": ["{id}_left.png", "scenes/{scene}.png"]}
    row_set = load_train(make_task(train=train), write(tmp_path, text))
    names = [str(path.relative_to(tmp_path)) for path in row_set.source.paths]
    files = [[names[item] for item in items] for items in row_set.rows.items]
    scenes = ["scenes/s1.png", "scenes/s1.png", "scenes/s2.png"]
    assert files == [[f"{row}_left.png", scene] for row, scene in zip("abc", scenes, strict=True)]
    assert len(names) == len(set(names)) == 5


def test_a_template_may_fill_up_with_zeros(tmp_path):
    train = {"table": "train.csv", "files": "{id:0>5}.png"}
    row_set = load_train(make_task(train=train), write(tmp_path, "id,label\n7,x\n12,y\n"))
    assert [path.name for path in row_set.source.paths] == ["00007.png", "00012.png"]


def test_rows_without_an_id_column_are_numbered(tmp_path):
    rows = rows_of(tmp_path, "label,file\nx,a\ny,b\n", id=None, first_id=1, train=files_by("file"))
    assert rows.ids.tolist() == ["1", "2"]


def files_by(column):
    return {"table": "train.csv", "files": "{" + column + "}"}


@pytest.mark.parametrize("cell", ["../a", "x/../../a", "/etc/a", "..", "x\\..\\a", "\\a"])
def test_no_id_leads_out_of_the_data_folder(tmp_path, cell):
    text = f"id,label,file\na,x,{cell}\nb,y,ok\n"
    with pytest.raises(DataError, match=r"row 'a': the file path '.*' leaves the data folder"):
        rows_of(tmp_path, text, train=files_by("file"))


def test_two_dots_within_a_name_lead_nowhere(tmp_path):
    rows = rows_of(tmp_path, "id,label\na..b,x\n..c,y\n")
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n", r"train\.csv: has no rows"),
        ("id,label\na,x\na,y\nb,x\n", r"train\.csv: the id column 'id' holds a more than once.*submission\.row_id"),
        ("id,label\na,x\n,y\n", r"train\.csv: the id column 'id' is empty in row 2"),
        ("Id,label\na,x\n", r"has no column 'id' \(id:\)\. Did you mean 'Id'\? Columns: Id, label"),
        ("id,lable\na,x\n", r"has no column 'label' \(target:\)\. Did you mean 'lable'\?"),
    ],
)
def test_a_wrong_id_or_target_column_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, text)


def test_a_column_that_a_path_names_and_the_table_lacks_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no column 'img' \(named in files: \{img\}\)"):
        rows_of(tmp_path, "id,label\na,x\n", train=files_by("img"))


# -- targets -----------------------------------------------------------------------------------------------------------


def test_classes_are_sorted_as_numbers_where_all_are_numbers_else_as_text():
    assert class_order(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert class_order(["10.0", "2.5", "1e1"]) == ("2.5", "10.0", "1e1")
    assert class_order(["10", "9", "x"]) == ("10", "9", "x")
    assert class_order(["nan", "1"]) == ("1", "nan")


def test_multiclass_targets_are_places_in_the_class_names(tmp_path):
    rows = rows_of(tmp_path, "id,label\na,dog\nb,NA\nc,dog\n")
    assert rows.names == ("NA", "dog")
    assert rows.targets.tolist() == [1, 0, 1]
    assert rows.targets.dtype == np.int64


def test_stated_classes_give_the_order_and_may_hold_more_than_the_table(tmp_path):
    rows = rows_of(tmp_path, "id,label\na,dog\nb,ant\n", classes=["dog", "cat", "ant"])
    assert rows.names == ("dog", "cat", "ant")
    assert rows.targets.tolist() == [0, 2]


def test_binary_and_ordinal_targets_follow_the_numbers(tmp_path):
    rows = rows_of(tmp_path, "id,label\na,1\nb,0\n", kind="binary")
    assert (rows.names, rows.targets.tolist()) == (("0", "1"), [1, 0])
    rows = rows_of(tmp_path, "id,label\na,10\nb,2\nc,1.5\n", kind="ordinal")
    assert (rows.names, rows.targets.tolist()) == (("1.5", "2", "10"), [2, 1, 0])


def test_soft_targets_are_shares_that_sum_to_one_in_the_order_of_classes(tmp_path):
    text = "id,cat,dog\na,3,1\nb,0,2\n"
    rows = rows_of(tmp_path, text, target=["cat", "dog"], classes=["dog", "cat"])
    assert rows.names == ("dog", "cat")
    np.testing.assert_array_equal(rows.targets, np.array([[0.25, 0.75], [1, 0]], dtype=np.float32))
    assert rows_of(tmp_path, text, target=["cat", "dog"]).names == ("cat", "dog")


def test_multilabel_targets_come_from_columns_or_from_one_cell(tmp_path):
    rows = rows_of(tmp_path, "id,rust,scab\na,1,0\nb,1,1.0\n", kind="multilabel", target=["rust", "scab"])
    assert rows.names == ("rust", "scab")
    assert rows.targets.tolist() == [[1, 0], [1, 1]]
    text = 'id,label\na,"rust, scab"\nb,\nc,scab,\n'.replace("scab,\n", "scab\n")
    rows = rows_of(tmp_path, text, kind="multilabel", target_separator=",")
    assert rows.names == ("rust", "scab")
    assert rows.targets.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert rows.targets.dtype == np.float32


def test_regression_targets_are_float32_columns(tmp_path):
    rows = rows_of(tmp_path, "id,u,v\na,0.1,-3\nb,1e5,2\n", kind="regression", target=["v", "u"])
    assert rows.names == ("v", "u")
    np.testing.assert_array_equal(rows.targets, np.array([[-3, 0.1], [2, 1e5]], dtype=np.float32))


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("id,label\na,x\nb,\n", {}, r"the target is empty for b; give a value or list them in exclude:"),
        ("id,label\na,x\nb,x\n", {}, "the target holds only x; there is nothing to tell apart"),
        ("id,label\na,x\nb,y\n", {"classes": ["x", "z"]}, r"the target holds y \(row 'b'\), not in classes: x, z"),
        ("id,label\na,0\nb,1\nc,2\n", {"kind": "binary"}, "kind: binary needs two classes, found 3: 0, 1, 2"),
        ("id,label\na,low\nb,high\n", {"kind": "ordinal"}, "the order of the grades high, low is not known; state it"),
        ("id,label\na,x\nb,2\n", {"kind": "regression"}, r"column 'label' must hold finite numbers; 1 rows .*a: 'x'"),
        ("id,label\na,inf\nb,2\n", {"kind": "regression"}, r"must hold finite numbers; 1 rows do not \(a: 'inf'\)"),
        ("id,label\na,\nb,2\n", {"kind": "regression"}, r"must hold finite numbers; 1 rows do not \(a: ''\)"),
        ("id,label\na,2\nb,0\n", {"kind": "multilabel"}, "multilabel targets must be 0 or 1; not so for a"),
        (
            "id,label\na,x\nb,y z\n",
            {"kind": "multilabel", "target_separator": " ", "classes": ["x", "y"]},
            "row 'b' has the label 'z', not in classes: x, y",
        ),
        ("id,label\na,\nb, \n", {"kind": "multilabel", "target_separator": " "}, "no row has a label"),
        ("id,u,v\na,0,0\nb,1,0\n", {"target": ["u", "v"]}, r"soft targets must be >= 0 with a positive sum; .*for a"),
        ("id,u,v\na,2,-1\nb,1,0\n", {"target": ["u", "v"]}, "soft targets must be >= 0"),
        ("id,u,v\na,1,0\n", {"target": ["u", "v"], "kind": "ordinal"}, "several target columns fit multiclass"),
        ("id,u,v\na,1,0\n", {"target": ["u", "v"], "classes": ["u", "w"]}, "classes: u, w and target: u, v must name"),
    ],
)
def test_wrong_targets_are_named(tmp_path, text, values, message):
    with pytest.raises(DataError, match=r"train\.csv: .*|classes:") as caught:
        rows_of(tmp_path, text, **values)
    assert caught.match(message)


# -- further columns ---------------------------------------------------------------------------------------------------


def test_groups_host_folds_and_submission_ids_come_from_their_columns(tmp_path):
    text = "id,label,patient,fold,eye\na,x,07,2,l\nb,y,7,-1,r\n"
    rows = rows_of(tmp_path, text, group="patient", fold_column="fold", submission={"row_id": "eye"})
    assert rows.groups.tolist() == ["07", "7"]
    assert rows.host_folds.tolist() == [2, -1]
    assert rows.host_folds.dtype == np.int64
    assert rows.submission_ids.tolist() == ["l", "r"]
    plain = rows_of(tmp_path, text)
    assert (plain.groups, plain.host_folds, plain.submission_ids) == (None, None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"group": "patint"}, r"has no column 'patint' \(group:\)\. Did you mean 'patient'\?"),
        ({"group": "patient"}, "group: is empty for b; give each a value"),
        ({"submission": {"row_id": "patient"}}, r"submission\.row_id: is empty for b"),
        ({"fold_column": "fold"}, "fold_column: must hold whole numbers; not so for b"),
        ({"fold_column": "label"}, "column 'fold_column:' must hold finite numbers; 2 rows"),
    ],
)
def test_wrong_further_columns_are_named(tmp_path, values, message):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, "id,label,patient,fold\na,x,1,0\nb,y,,1.5\n", **values)


def test_excluded_rows_are_gone_before_anything_is_asked_of_them(tmp_path):
    text = "id,label,patient\na,x,1\n007,,\nb,y,2\n"
    rows = rows_of(tmp_path, text, exclude=["007"], group="patient")
    assert rows.ids.tolist() == ["a", "b"]
    assert rows.names == ("x", "y")
    assert [len(items) for items in rows.items] == [1, 1]
    with pytest.raises(DataError, match=r"exclude: no training row has the id 07\. Did you mean '007'\?"):
        rows_of(tmp_path, text, exclude=["07"], group="patient")


def test_excluded_rows_keep_the_items_of_the_others_in_place(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3)[:, None, None])
    np.save(tmp_path / "y.npy", np.array([5.0, np.nan, 7.0]))
    train = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}
    row_set = load_train(make_task(id=None, kind="regression", train=train, test=None, exclude=["1"]), tmp_path)
    assert row_set.rows.ids.tolist() == ["0", "2"]
    assert row_set.rows.items == ((0,), (2,))
    assert row_set.rows.targets.ravel().tolist() == [5, 7]


# -- pixels and arrays -------------------------------------------------------------------------------------------------


def test_pixels_stay_out_of_the_table_and_are_taken_in_its_order(tmp_path):
    train = {"table": "train.csv", "pixels": {"columns": "pixel*", "shape": [1, 2]}}
    text = "label,pixel1,pixel0,id\nx,1,2,a\ny,3,4,b\n"
    row_set = load_train(make_task(train=train), write(tmp_path, text))
    assert row_set.source == PixelItems(tmp_path / "train.csv", ("pixel1", "pixel0"), (1, 2))
    assert row_set.rows.ids.tolist() == ["a", "b"]
    assert row_set.rows.items == ((0,), (1,))


def test_a_table_of_pixels_alone_numbers_its_rows(tmp_path):
    write(tmp_path, "pixel0,pixel1\n1,2\n3,4\n5,6\n", "test.csv")
    test = {"table": "test.csv", "pixels": {"columns": "pixel*", "shape": [1, 2]}}
    row_set = load_test(make_task(id=None, first_id=1, test=test), tmp_path, ("x", "y"))
    assert row_set.rows.ids.tolist() == ["1", "2", "3"]


def test_a_wrong_number_of_pixel_columns_is_named(tmp_path):
    train = {"table": "train.csv", "pixels": {"columns": "p*", "shape": [2, 2]}}
    with pytest.raises(DataError, match=r"1 columns match 'p\*', but pixels.shape: \(2, 2\) needs 4"):
        rows_of(tmp_path, "id,label,p0\na,x,1\n", train=train)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_items_and_labels_of_arrays_need_no_table(tmp_path, name):
    items, labels = np.zeros((3, 3, 8, 8), dtype=np.uint8), np.array([1, 0, 1])
    if name == "x.npy":
        np.save(tmp_path / "x.npy", items)
        np.save(tmp_path / "y.npy", labels)
        train = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}
    else:
        np.savez(tmp_path / "x.npz", x=items, y=labels)
        train = {"array": {"file": "x.npz", "key": "x"}, "labels": {"file": "x.npz", "key": "y"}}
    row_set = load_train(make_task(train=train, test=None, id=None, target=None), tmp_path)
    assert row_set.source == ArrayItems(tmp_path / name, train["array"].get("key"))
    assert row_set.rows.ids.tolist() == ["0", "1", "2"]
    assert row_set.rows.names == ("0", "1")
    assert row_set.rows.targets.tolist() == [1, 0, 1]


def test_an_array_beside_a_table_takes_its_ids_and_targets(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 30), dtype=np.float32))
    train = {"table": "train.csv", "array": {"file": "x.npy"}}
    rows = rows_of(tmp_path, "id,label\na,x\nb,y\n", train=train)
    assert rows.ids.tolist() == ["a", "b"]
    assert rows.items == ((0,), (1,))


def test_labels_in_several_columns_take_the_names_of_the_targets(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4)))
    np.save(tmp_path / "y.npy", np.array([[0.5, 1], [2, 3]], dtype=np.float32))
    train = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}
    named = make_task(id=None, kind="regression", train=train, test=None, target=["u", "v"])
    rows = load_train(named, tmp_path).rows
    assert rows.names == ("u", "v")
    assert rows.targets.tolist() == [[0.5, 1], [2, 3]]
    bare = make_task(id=None, kind="regression", train=train, test=None, target=None)
    assert load_train(bare, tmp_path).rows.names == ("target_0", "target_1")
    wrong = make_task(id=None, kind="regression", train=train, test=None, target=["u"])
    with pytest.raises(DataError, match=r"y\.npy: holds 2 columns of labels, target: names 1"):
        load_train(wrong, tmp_path)


def test_arrays_that_do_not_fit_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4)))
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    train = {"table": "train.csv", "array": {"file": "x.npy"}}
    with pytest.raises(DataError, match=r"x\.npy: holds 3 items, but .*train\.csv has 2 rows"):
        rows_of(tmp_path, "id,label\na,x\nb,y\n", train=train)
    bare = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}
    with pytest.raises(DataError, match=r"y\.npy: labels of shape \(2,\) do not fit 3 rows"):
        load_train(make_task(train=bare, id=None, test=None), tmp_path)
    with pytest.raises(DataError, match=r"the targets label need train\.table, or train\.labels:"):
        load_train(make_task(train={"array": {"file": "x.npy"}}, id=None, test=None), tmp_path)
    with pytest.raises(DataError, match=r"none\.npy"):
        load_train(make_task(train={"array": {"file": "none.npy"}}, id=None, test=None), tmp_path)


def test_a_missing_label_in_an_array_is_no_class(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4)))
    np.save(tmp_path / "y.npy", np.array([0.0, np.nan, 1.0]))
    train = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}
    with pytest.raises(DataError, match=r"y\.npy: the target is empty for 1"):
        load_train(make_task(train=train, id=None, test=None), tmp_path)


# -- unlabelled rows ---------------------------------------------------------------------------------------------------


def test_test_rows_have_the_names_of_training_and_need_neither_target_nor_group(tmp_path):
    write(tmp_path, "id,patient\n9,p\n8,q\n", "test.csv")
    task = make_task(group="site", fold_column="fold", submission={"row_id": "patient"})
    row_set = load_test(task, tmp_path, ["x", "y"])
    rows = row_set.rows
    assert (rows.ids.tolist(), rows.names, rows.targets, rows.groups) == (["9", "8"], ("x", "y"), None, None)
    assert rows.submission_ids.tolist() == ["p", "q"]
    assert row_set.source.paths[0] == tmp_path / "test" / "9.png"


def test_test_rows_without_their_submission_ids_are_refused_but_other_rows_may_lack_them(tmp_path):
    write(tmp_path, "id\n9\n", "test.csv")
    task = make_task(submission={"row_id": "patient"})
    with pytest.raises(DataError, match=r"test\.csv: has no column 'patient' \(submission\.row_id:\)"):
        load_test(task, tmp_path, ["x", "y"])
    other = task.test.model_copy(update={"files": ("other/{id}.png",)})
    row_set = load_test(task, tmp_path, ["x", "y"], other)
    assert row_set.rows.submission_ids is None
    assert row_set.source.paths == (tmp_path / "other" / "9.png",)


def test_a_task_without_test_rows_says_so(tmp_path):
    with pytest.raises(DataError, match="task toy: has no test: block"):
        load_test(make_task(test=None), tmp_path, ["x", "y"])
