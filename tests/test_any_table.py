"""What `pipeline.stages.infer.tables` promises: the cells as they stand, however a host wrote them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.base.errors import DataError
from pipeline.base.tables import read_table
from pipeline.stages.infer import delimited
from pipeline.stages.infer.tables import AnyTable, is_table, peek, read_any, suffix_of


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def cells(table: AnyTable) -> list[list[str]]:
    return [list(table.frame.columns), *table.frame.to_numpy().tolist()]


ROWS = [["id", "label", "note"], ["007", "NA", "a b"], ["1e5", "", "ä"], ["0.10", "x", "12:30"]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_cells_stay_as_they_stand_in_any_delimiter_and_encoding(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = write(tmp_path / "a.csv", "\r\n".join(delimiter.join(row) for row in ROWS), encoding)
    table = read_any(path)
    assert cells(table) == ROWS
    assert table.form.delimiter == delimiter
    assert table.form.encoding == encoding
    assert table.form.has_header
    assert table.form.is_plain == (delimiter == "," and encoding.startswith("utf-8"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"])
def test_packed_tables_are_read_where_they_are(tmp_path: Path, suffix: str) -> None:
    path, content = tmp_path / f"train{suffix}", "\n".join("\t".join(row) for row in ROWS).encode()
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if suffix.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("train.csv", content)
            file.writestr("__MACOSX/._train.csv", b"junk")
    else:
        path.write_bytes(packers.get(path.suffix, bytes)(content))
    assert cells(read_any(path)) == ROWS
    assert peek(path).n_rows == 3
    assert is_table(path)


def test_letters_that_are_not_utf8_are_read_as_latin_1_and_said(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "a.csv", "id,name\n1,Zoë\n", "latin-1"))
    assert cells(table) == [["id", "name"], ["1", "Zoë"]]
    assert table.form.notes == ("is not UTF-8; read as Latin-1, so letters beyond ASCII may be wrong",)
    assert not table.form.is_plain


def test_a_letter_that_is_not_utf8_far_down_is_found_too(tmp_path: Path) -> None:
    text = "id,name\n" + "1,a\n" * 300_000 + "2,Zoë\n"
    table = read_any(write(tmp_path / "a.csv", text, "latin-1"))
    assert table.form.encoding == "latin-1"
    assert table.frame.iloc[-1].tolist() == ["2", "Zoë"]
    assert peek(tmp_path / "a.csv", 5).n_rows == 300_001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id,text\n1,"a;b;c"\n2,"d;e;f"\n', [["id", "text"], ["1", "a;b;c"], ["2", "d;e;f"]]),
        ('id,text\n1,"a, b"\n2,"c, ""d"""\n', [["id", "text"], ["1", "a, b"], ["2", 'c, "d"']]),
        ('id,text\n1,"line\nline"\n2,x\n', [["id", "text"], ["1", "line\nline"], ["2", "x"]]),
        ("id,labels\na,x y\nb,y z\n", [["id", "labels"], ["a", "x y"], ["b", "y z"]]),
        ("id,labels\na,x|y\nb,y|z\n", [["id", "labels"], ["a", "x|y"], ["b", "y|z"]]),
        ("id;text\n1;a,b\n2;c,d\n", [["id", "text"], ["1", "a,b"], ["2", "c,d"]]),
        ("id;x;y\n1;0,5;1,5\n2;0,25;2\n", [["id", "x", "y"], ["1", "0,5", "1,5"], ["2", "0,25", "2"]]),
        ("id\ttext\n1\ta, b\n2\tc, d\n", [["id", "text"], ["1", "a, b"], ["2", "c, d"]]),
        ("id\ttext, more\n1\ta, b\n2\tc, d\n", [["id", "text, more"], ["1", "a, b"], ["2", "c, d"]]),
        ("id,the;labels\n1,a;b\n2,c;d\n", [["id", "the;labels"], ["1", "a;b"], ["2", "c;d"]]),
        ("labels\nx y\nz\n", [["labels"], ["x y"], ["z"]]),
        ("labels\nx, y\nz\n", [["labels"], ["x, y"], ["z"]]),
        ('labels\n"x, y"\nz\n', [["labels"], ["x, y"], ["z"]]),
        ("id\nabc\ndef\n", [["id"], ["abc"], ["def"]]),
        ("x y label\n 1  2   a\n 3  4   b\n", [["x", "y", "label"], ["1", "2", "a"], ["3", "4", "b"]]),
        ("id,label\n", [["id", "label"]]),
        ("id,a,b\n1,2\n3,4,5\n6,7,8\n", [["id", "a", "b"], ["1", "2", ""], ["3", "4", "5"], ["6", "7", "8"]]),
        ("id,label\n\n1,a\n\n2,b\n\n", [["id", "label"], ["1", "a"], ["2", "b"]]),
    ],
)
def test_delimiters_are_not_mistaken(tmp_path: Path, text: str, expected: list[list[str]]) -> None:
    assert cells(read_any(write(tmp_path / "a.csv", text))) == expected


@pytest.mark.parametrize(
    ("text", "names", "reason"),
    [
        ("a.jpg,cat\nb.jpg,dog\n", 2, "its cell 'a.jpg' is a file name as those below it (.jpg)"),
        ("a/x.png 0\nb/y.png 1\n", 2, "its cell 'a/x.png' is a file name as those below it (.png)"),
        ("1;0,5;0,7\n2;0,6;0,8\n", 3, "its cell '1' is a number"),
        ("5,0,0,12\n3,0,1,0\n", 4, "its cell '5' is a number"),
        ("cat,x1\ndog,x2\ncat,x3\n", 2, "its cell 'cat' occurs again below it"),
        ("00ff12ab9,x\n11ff12ab9,y\n", 2, "its cell '00ff12ab9' is a key as those below it"),
    ],
)
def test_tables_without_a_header_are_known_and_the_reason_is_said(
    tmp_path: Path, text: str, names: int, reason: str
) -> None:
    table = read_any(write(tmp_path / "a.csv", text))
    assert not table.form.has_header
    assert table.form.reason == reason
    assert list(table.frame.columns) == [f"column_{place}" for place in range(names)]
    assert len(table.frame) == text.count("\n")
    assert not table.form.is_plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,0,1,2\na,0.5,0.2,0.3\nb,0.1,0.1,0.8\n", "nothing in it looks like the rows below"),
        ("0,1,2,3\n5,5,6,7\n8,8,1,2\n", "nothing in it looks like the rows below"),
        ("image,label\na.jpg,3\nb.jpg,4\n", "its cell 'label' stands above numbers"),
        ("id,cat\na,NA\nb,3\n", "its cell 'cat' stands above numbers"),
        ("image,breed\na.jpg,pug\nb.jpg,boxer\n", "nothing in it looks like the rows below"),
    ],
)
def test_names_of_columns_are_known_though_they_may_be_numbers(tmp_path: Path, text: str, reason: str) -> None:
    form = read_any(write(tmp_path / "a.csv", text)).form
    assert (form.has_header, form.reason) == (True, reason)


def test_row_numbers_without_a_name_are_kept_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame({"id": ["a", "b", "c"], "label": [1, 0, 1]}).to_csv(path)
    table = read_any(path)
    assert list(table.frame.columns) == ["", "id", "label"]
    assert (table.row_numbers, peek(path).row_numbers) == ("", "")
    assert table.form.is_plain
    pd.testing.assert_frame_equal(table.frame, read_table(path))
    assert read_any(write(path, ",label\na,1\nb,0\n")).row_numbers is None


def test_row_numbers_as_r_writes_them_have_no_name_at_all(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "a.csv", 'id,label\n"1",a,0\n"2",b,1\n'))
    assert cells(table) == [["", "id", "label"], ["1", "a", "0"], ["2", "b", "1"]]
    assert table.row_numbers == ""
    assert not table.form.is_plain


def test_a_delimiter_at_the_end_of_each_row_makes_no_column(tmp_path: Path) -> None:
    for text in ("id,label,\n1,a,\n2,b,\n", "id,label\n1,a,\n2,b,\n"):
        table = read_any(write(tmp_path / "a.csv", text))
        assert cells(table)[1:] == [["1", "a"], ["2", "b"]]
        assert len(table.form.notes) == 1


def test_a_name_that_stands_twice_is_changed_and_said(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "a.csv", "id,x,x,,\n1,2,3,4,5\n"))
    assert list(table.frame.columns) == ["id", "x", "x.2", "", "column_4"]
    assert "names a column 'x' twice" in table.form.notes[0]


def test_chosen_columns_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "label,p0,p1\n1,2,3\n")
    assert cells(read_any(path, lambda name: not name.startswith("p"))) == [["label"], ["1"]]
    with pytest.raises(DataError, match=r"none of its columns is asked for; it has label, p0, p1"):
        read_any(path, lambda _: False)


def test_a_plain_table_reads_as_the_pipeline_reads_it(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "a.csv", 'id,x\n1," a"\n2,NA\n3,\n'))
    assert table.form.is_plain
    pd.testing.assert_frame_equal(table.frame, read_table(tmp_path / "a.csv"))


def test_a_single_column_is_plain_unless_a_cell_would_be_split(tmp_path: Path) -> None:
    assert read_any(write(tmp_path / "a.csv", "id\na\nb\n")).form.is_plain
    assert not read_any(write(tmp_path / "a.csv", "id\na, b\nb\n")).form.is_plain


def test_peek_tells_types_and_counts_without_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f'{n},{n / 2},t{n},,"a\nb"\n' for n in range(5000))
    path = write(tmp_path / "a.csv", f"id,x,name,empty,text\n{rows}")
    monkeypatch.setattr(delimited, "SAMPLE_ROWS", 50)
    found = peek(path, 20)
    assert found.n_rows == 5000
    assert found.names == ("id", "x", "name", "empty", "text")
    assert found.types == {"id": "integer", "x": "number", "name": "text", "empty": "empty", "text": "text"}
    assert len(found.head) == 20


def test_errors_name_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_any(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"a\.csv: is empty"):
        read_any(write(tmp_path / "a.csv", " \n"))
    many = "id,label\n" + "1,a\n" * 600 + "1,a,b\n"
    with pytest.raises(DataError, match=r"b\.csv: cannot be read as a table: .*Expected 2 fields in line 602, saw 3"):
        read_any(write(tmp_path / "b.csv", many))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(many.encode())[:-9])
    with pytest.raises(DataError, match=r"c\.csv\.gz: cannot be read as a table"):
        read_any(tmp_path / "c.csv.gz")
    with zipfile.ZipFile(tmp_path / "d.csv.zip", "w") as file:
        file.writestr("a.csv", "x")
        file.writestr("b.csv", "x")
    with pytest.raises(DataError, match=r"must be alone in its archive; this one holds a\.csv, b\.csv"):
        peek(tmp_path / "d.csv.zip")


def test_suffixes_are_seen_through_packing() -> None:
    assert suffix_of(Path("a.CSV.gz")) == ".csv"
    assert suffix_of(Path("a.zip")) == ""
    assert is_table(Path("labels.jsonl"))
    assert not is_table(Path("a.png"))


# -- JSON and Parquet --------------------------------------------------------------------------------------------------


def write_json(path: Path, value: object) -> Path:
    return write(path, json.dumps(value))


COCO = {
    "images": [
        {"id": 10, "file_name": "a.jpg", "width": 5},
        {"id": 11, "file_name": "b.jpg", "width": 6},
        {"id": 12, "file_name": "c.jpg", "width": 7},
    ],
    "annotations": [
        {"id": 1, "image_id": 11, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 10, "category_id": 1},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "wild dog"}],
}


def test_coco_becomes_one_row_for_each_image(tmp_path: Path) -> None:
    table = read_any(write_json(tmp_path / "a.json", COCO))
    assert cells(table) == [
        ["id", "file_name", "width", "category_id", "label"],
        ["10", "a.jpg", "5", "1", "cat"],
        ["11", "b.jpg", "6", "2", "wild dog"],
        ["12", "c.jpg", "7", "", ""],
    ]
    assert table.form.kind.startswith("COCO")
    assert peek(tmp_path / "a.json").n_rows == 3


def test_coco_with_several_labels_of_an_image_joins_them_by_what_no_name_holds(tmp_path: Path) -> None:
    more = [*COCO["annotations"], {"id": 3, "image_id": 10, "category_id": 2}, {"image_id": 10, "category_id": 2}]
    table = read_any(write_json(tmp_path / "a.json", {**COCO, "annotations": more}))
    assert table.frame["labels"].tolist() == ["cat;wild dog", "wild dog", ""]
    assert table.frame["category_id"].tolist() == ["1;2", "2", ""]


def test_coco_of_a_test_set_has_images_only(tmp_path: Path) -> None:
    for value in ({"images": COCO["images"], "annotations": []}, {"images": COCO["images"], "categories": [{"id": 1}]}):
        table = read_any(write_json(tmp_path / "a.json", value))
        assert list(table.frame.columns) == ["id", "file_name", "width"]


def test_coco_with_other_spellings_and_label_lists(tmp_path: Path) -> None:
    value = {
        "images": [{"imageId": "1", "url": "u"}, {"imageId": "2", "url": "v"}],
        "annotations": [{"imageId": "2", "labelId": ["95", "66"]}, {"imageId": "1", "labelId": ["3"]}],
    }
    table = read_any(write_json(tmp_path / "a.json", value))
    assert cells(table) == [["imageId", "url", "labelId"], ["1", "u", "3"], ["2", "v", "95 66"]]


def test_an_annotation_without_its_image_is_an_error(tmp_path: Path) -> None:
    value = {**COCO, "annotations": [{"image_id": 99, "category_id": 1}]}
    with pytest.raises(DataError, match=r"an annotation names the image '99', which is not among images"):
        read_any(write_json(tmp_path / "a.json", value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"id": "007", "x": 1.50}, {"id": "8", "y": None}], [["id", "x", "y"], ["007", "1.5", ""], ["8", "", ""]]),
        ({"a": "cat", "b": "dog"}, [["id", "label"], ["a", "cat"], ["b", "dog"]]),
        ({"a": 1, "b": True}, [["id", "label"], ["a", "1"], ["b", "true"]]),
        ({"a": ["x", "y"], "b": ["z"]}, [["id", "label"], ["a", "x y"], ["b", "z"]]),
        ({"a": ["x y", "z"], "b": ["z"]}, [["id", "label"], ["a", "x y;z"], ["b", "z"]]),
        (
            {"a": {"l": 1, "m": {"n": 2}}, "b": {"l": 3, "m": {"n": 4}}, "c": {"l": 5, "m": {"n": 6}}},
            [["id", "l", "m.n"], ["a", "1", "2"], ["b", "3", "4"], ["c", "5", "6"]],
        ),
        ({"l": {"a": 1, "b": 2, "c": 3}}, [["id", "l"], ["a", "1"], ["b", "2"], ["c", "3"]]),
        ({"i": ["a", "b", "c"], "l": [1, 2, 3]}, [["i", "l"], ["a", "1"], ["b", "2"], ["c", "3"]]),
        (
            {"cat": ["a.jpg"], "dog": ["b.jpg", "c.jpg"]},
            [["file", "label"], ["a.jpg", "cat"], ["b.jpg", "dog"], ["c.jpg", "dog"]],
        ),
        ([["a.jpg", 3], ["b.jpg", 4]], [["column_0", "column_1"], ["a.jpg", "3"], ["b.jpg", "4"]]),
        ({"info": 1, "data": [{"id": 1}]}, [["id"], ["1"]]),
        ([{"id": 1, "box": [1, 2.0]}], [["id", "box"], ["1", "1 2.0"]]),
        ([{"id": 1, "box": [[1], [2]]}], [["id", "box"], ["1", '[["1"], ["2"]]']]),
    ],
)
def test_the_forms_of_json(tmp_path: Path, value: object, expected: list[list[str]]) -> None:
    assert cells(read_any(write_json(tmp_path / "a.json", value))) == expected


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "a.json", '[{"a": 1e5, "b": 0.10, "c": 12345678901234567890}]'))
    assert cells(table)[1] == ["1e5", "0.10", "12345678901234567890"]


def test_lines_of_json_are_rows(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.ndjson", "c.v2.jsonl.gz"):
        content = b'{"id": 1, "label": "x"}\n\n{"id": 2, "label": "y"}\n'
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        assert cells(read_any(tmp_path / name)) == [["id", "label"], ["1", "x"], ["2", "y"]]


def test_bands_become_arrays_apart_from_the_cells(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).normal(size=(3, 2, 75 * 75)).round(6)
    records = [
        {"id": f"r{n}", "band_1": bands[n, 0].tolist(), "band_2": bands[n, 1].tolist(), "inc_angle": "na"}
        for n in range(3)
    ]
    table = read_any(write_json(tmp_path / "a.json", records))
    assert list(table.frame.columns) == ["id", "inc_angle"]
    assert {name: (array.shape, array.dtype) for name, array in table.arrays.items()} == {
        "band_1": ((3, 5625), np.float32),
        "band_2": ((3, 5625), np.float32),
    }
    np.testing.assert_array_equal(table.arrays["band_2"], bands[:, 1].astype(np.float32))
    assert peek(tmp_path / "a.json").array_shapes == {"band_1": (5625,), "band_2": (5625,)}


def test_bands_of_several_lengths_are_an_error_but_long_lists_of_labels_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'band' holds lists of numbers of several shapes .*: \(65,\), \(70,\)"):
        read_any(write_json(tmp_path / "a.json", [{"band": [0.5] * 65}, {"band": [0.5] * 70}]))
    table = read_any(write_json(tmp_path / "a.json", [{"labels": list(range(70))}, {"labels": [3, 5]}]))
    assert table.frame["labels"].tolist() == [" ".join(map(str, range(70))), "3 5"]


def test_json_that_holds_several_lists_wants_a_name(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"train": [{"id": 1}], "test": [{"id": 2}]})
    with pytest.raises(DataError, match=r"holds several lists of records; name one: train, test"):
        read_any(path)
    assert cells(read_any(path, part="test")) == [["id"], ["2"]]
    with pytest.raises(DataError, match=r"has no list 'tets'\. Did you mean 'test'\?"):
        read_any(path, part="tets")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", '"x"', "[1, {]"])
def test_json_without_rows_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"a\.json: (is damaged, or no JSON|holds no rows)"):
        read_any(write(tmp_path / "a.json", text))


def test_parquet_gives_text_and_number_lists_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"id": ["007", "8"], "n": [1, None], "wave": [[0.5, 1.5], [2.5, 3.5]], "picture": [b"x", b"y"]}
    pa.parquet.write_table(pa.table(columns), path)
    table = read_any(path)
    assert cells(table) == [["id", "n"], ["007", "1"], ["8", ""]]
    np.testing.assert_array_equal(table.arrays["wave"], np.array(columns["wave"], np.float32))
    assert table.form.notes == ("left out, as no cells of text: picture",)
    assert peek(path).names == ("id", "n", "wave")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_any(write(tmp_path / "b.parquet", "x"))
