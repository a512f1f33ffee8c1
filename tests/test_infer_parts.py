"""The single conclusions of `podium init`, each on a few facts: files, templates, kinds, formats, metrics, groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import DataError
from pipeline.records.scores import METRICS
from pipeline.stages.grades import confuses_neighbours
from pipeline.stages.infer.affixes import find_affixes
from pipeline.stages.infer.arrays import is_signal
from pipeline.stages.infer.columns import Column, Table, hints_at, same_names, words_of
from pipeline.stages.infer.find_kinds import find_kind
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.formats import find_format
from pipeline.stages.infer.groups import dealt_folds, find_fold_column, find_group, find_split
from pipeline.stages.infer.items import FileIndex, best_match, further_columns
from pipeline.stages.infer.kinds import evenness, is_heavy_tailed, label_separator
from pipeline.stages.infer.metrics import HOST_WORDS, find_metric, metric_in_texts
from pipeline.stages.infer.paths import label_column, path_table
from pipeline.stages.infer.pixels import item_shape, numbered_columns
from pipeline.stages.infer.roles import column_of_classes, find_roles
from pipeline.stages.infer.samples import Sample, bare, first_number, listed_tokens, read_sample
from pipeline.stages.infer.survey import File, kind_of, stem_of, survey_folder
from pipeline.stages.infer.targets import find_targets
from pipeline.stages.infer.templates import find_template


def column(*cells, name="label"):
    return Column(name, np.array([str(cell) for cell in cells], dtype=object))


def made_table(path="original/train.csv", **columns):
    return Table(path, pd.DataFrame({name: [str(cell) for cell in cells] for name, cells in columns.items()}), True)


def index_of(*paths):
    from pathlib import Path

    return FileIndex([File(f"original/{path}", Path(path), 1, kind_of(path)) for path in paths])


def sample_of(**columns):
    return read_sample(made_table("original/sample_submission.csv", **columns))


# -- names and files -----------------------------------------------------------------------------------------------


def test_words_of_names_and_what_they_hint_at():
    assert words_of("trainLabels_2 new") == {"train", "labels", "2", "new"}
    assert hints_at(words_of("trainlabels"), ("train",))
    assert not hints_at(words_of("latest_2"), ("test",))


def test_same_names_needs_one_partner_for_each():
    assert same_names(["black_grass", "Maize"], ["Maize", "Black-grass"]) == {
        "black_grass": "Black-grass",
        "Maize": "Maize",
    }
    assert same_names(["a b", "a_b"], ["A B"]) is None
    assert same_names(["a"], ["b"]) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image"),
        ("a.DCM", "image"),
        ("a.wav", "audio"),
        ("a.npy", "array"),
        ("train.csv.zip", "table"),
        ("train.tar.gz", "archive"),
        ("README.txt", "text"),
        ("labels.txt", "table"),
        ("a.py", "other"),
    ],
)
def test_what_a_file_is_by_its_name(name, kind):
    assert kind_of(name) == kind


def test_dots_of_an_id_are_no_suffix():
    assert stem_of("1.2.826.0.1.png") == "1.2.826.0.1"
    assert stem_of("1.2.826.0.1") == "1.2.826.0.1"


def test_many_tables_in_a_folder_are_items_and_a_few_are_tables(tmp_path):
    for number in range(9):
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / "records" / f"{number}.csv").write_text("a,b\n1,2\n")
    (tmp_path / "train.csv").write_text("id,label\n1,2\n")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.png").write_text("")
    survey = survey_folder(tmp_path)
    assert [file.path for file in survey.of("table")] == ["original/train.csv"]
    assert len(survey.items) == 9


def test_a_folder_that_leads_back_into_itself_is_walked_once(tmp_path):
    (tmp_path / "a.png").write_text("")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [file.path for file in survey_folder(tmp_path).files] == ["original/a.png"]


def test_the_column_and_the_folder_that_match_completely_win_over_decoys():
    names = [f"a{n}" for n in range(10)]
    real = [f"images/{name}.png" for name in [*names, "b0", "b1"]]
    decoys = [f"train_masks/{name}.png" for name in names] + [f"images_small/{name}.png" for name in names[3:]]
    found = best_match(made_table(id=names, number=range(10)), index_of(*real, *decoys), "train")
    assert (found.column, found.way, found.root, found.rows_found) == ("id", "stem", "original/images", 1)


def test_of_two_formats_that_of_the_other_set_is_taken():
    names = [f"a{n}" for n in range(6)]
    index = index_of(*(f"tiff/{name}.tiff" for name in names), *(f"bmp/{name}.bmp" for name in names))
    assert best_match(made_table(id=names), index, "test").root == "original/bmp"
    assert best_match(made_table(id=names), index, "test", like=frozenset({".tiff"})).root == "original/tiff"


def test_train_and_test_folders_are_told_by_their_names():
    index = index_of(*(f"{part}/{n}.png" for part in ("train", "test") for n in range(6)))
    rows = made_table(id=range(6))
    assert best_match(rows, index, "train").root == "original/train"
    assert best_match(rows, index, "test").root == "original/test"
    pools = index_of(*(f"{part}/{n}.png" for part in ("whole_pool", "train") for n in range(6)))
    assert best_match(rows, pools, "train").root == "original/train"


def test_a_class_whose_values_happen_to_name_files_is_no_id():
    index = index_of(*(f"train/{n}.png" for n in range(20)))
    rows = made_table(label=[n % 3 for n in range(20)], id=range(20))
    assert best_match(rows, index, "train").column == "id"


def test_other_columns_with_files_of_the_same_rows_are_found_and_masks_are_not():
    names = [f"a{n}" for n in range(6)]
    index = index_of(*(f"{side}/{name}_{side}.png" for side in ("left", "right", "mask") for name in names))
    rows = made_table(**{side: [f"{name}_{side}.png" for name in names] for side in ("left", "right", "mask")})
    match = best_match(rows, index, "train")
    assert {match.column, *(other.column for other in further_columns(rows, match, index, "train"))} == {
        "left",
        "right",
    }


def test_affixes_are_whole_words_and_fill_up_with_zeros():
    names = [f"img_{n:04d}_{end}" for n in range(1, 30) for end in ("a", "b")]
    found = find_affixes(column(*range(1, 30)), names, set(names))
    assert [affix.around("7") for affix in found] == ["img_0007_a", "img_0007_b"]
    whole = [str(n) for n in range(1, 30)]
    assert find_affixes(column(*whole), whole, set(whole)) == []
    some = names[:20]
    assert find_affixes(column(*range(1, 30)), some, set(some)) == []


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["t/7.png", "t/12.png"], "t/{id}.png"),
        (["t/007.png", "t/012.png"], "t/{id:0>3}.png"),
        (["t/x/7.png", "t/y/12.png"], "t/{kind}/{id}.png"),
        (["t/7/7_a.png", "t/1/12_a.png"], "t/{id:.1}/{id}_a.png"),
        (["t/7.png", "t/12.jpg"], None),
        (["t/7.png", "t/u/12.png"], None),
        (["t/8.png", "t/12.png"], None),
    ],
)
def test_templates_say_every_path_or_are_none(paths, expected):
    columns = {"id": column(7, 12, name="id"), "kind": column("x", "y", name="kind")}
    assert find_template(paths, columns, "id") == expected


def test_the_words_of_paths_and_which_of_them_is_the_class():
    paths = [f"train/{kind}/{kind[0]}-{n}_img.png" for kind in ("cat", "dog") for n in range(4)]
    rows = path_table(paths, "train")
    assert label_column(rows, None, frozenset()) == "folder_1"
    by_name = path_table([f"train/{kind}.{n}.png" for kind in ("cat", "dog") for n in range(4)], "train")
    assert label_column(by_name, path_table([f"test/{n}.png" for n in range(4)], "test"), frozenset()) == "name_text"
    sides = path_table([f"test/left_{n}.png" for n in range(4)] + [f"test/right_{n}.png" for n in range(4)], "test")
    known = path_table([f"train/{side}_{n}.png" for side in ("left", "right") for n in range(4)], "train")
    assert label_column(known, sides, frozenset()) is None  # test files have it too
    same = path_table([f"train/x_{n}.png" for n in range(4)], "train")
    assert label_column(same, None, frozenset()) is None


# -- tables --------------------------------------------------------------------------------------------------------


def test_roles_by_content_under_names_that_say_nothing():
    names, others = [f"a{n}" for n in range(9)], [f"b{n}" for n in range(4)]
    labels = made_table("original/one.csv", id=names, kind=["x", "y", "z"] * 3)
    sample = made_table("original/upload_format.csv", id=others, kind=["x"] * 4)
    index = index_of(*(f"p/{name}.png" for name in names + others))
    roles = find_roles([sample, labels], index, {})
    assert (roles.train, roles.sample.table, roles.test) == (labels, sample, None)


def test_the_table_with_the_target_is_train_among_several():
    names = [f"a{n}" for n in range(9)]
    train = made_table("original/train.csv", id=names, label=["x", "y", "z"] * 3)
    boxes = made_table("original/train_annotations.csv", id=names[:4] * 2, label=["x"] * 8, data=range(8))
    sizes = made_table("original/train_metadata.csv", id=names, size=range(9))
    sample = made_table("original/sample_submission.csv", id=["b0", "b1"], label=["x", "x"])
    index = index_of(*(f"p/{name}.png" for name in [*names, "b0", "b1"]))
    assert find_roles([boxes, sizes, sample, train], index, {}).train is train


def test_classes_that_the_sample_has_as_columns():
    rows = made_table(id=range(6), breed=["a_b", "c", "d", "a_b", "c", "d"], other=["u", "v"] * 3)
    assert column_of_classes(rows, ["A b", "C", "D"]).name == "breed"
    assert column_of_classes(rows, ["K", "L", "M"]) is None


@pytest.mark.parametrize(
    ("columns", "sample", "expected"),
    [
        ({"id": range(6), "a": range(6), "label": [0, 1] * 3}, None, ("label",)),
        ({"id": range(6), "x": [0, 1, 1] * 2, "y": [1, 0, 0] * 2}, None, ("x", "y")),
        ({"id": range(6), "Label": [3, 4] * 3, "age": [1, 2] * 3}, {"id": ["t"], "label": [3]}, ("Label",)),
        ({"id": range(6), "u": ["p", "q"] * 3, "v": ["r", "s"] * 3}, {"id": ["t"], "out": ["s"]}, ("v",)),
        ({"id": range(6), "k": ["p", "q"] * 3}, {"id": ["t"], "p": [0.5], "q": [0.5]}, ("k",)),
    ],
)
def test_which_columns_are_asked_for(columns, sample, expected):
    found = find_targets(made_table(**columns), None, sample_of(**sample) if sample else None, (), ("id",))
    assert found.names == expected


def test_the_target_is_what_test_lacks():
    rows = made_table(id=range(6), label=["p", "q"] * 3, outcome=["r", "s"] * 3)
    assert find_targets(rows, made_table(id=["t"], label=["p"]), None, (), ("id",)).names == ("outcome",)
    assert find_targets(rows, made_table(id=["t"], outcome=["r"]), None, (), ("id",)).names == ("label",)


def test_more_labels_than_the_sample_asks_for_are_learned_too():
    rows = made_table(id=range(4), a=[0, 1] * 2, b=[1, 0] * 2, c=[1, 1, 0, 0], patient=["p", "q"] * 2)
    found = find_targets(rows, None, sample_of(id=["t"], a=[0], b=[0]), (), ("id",))
    assert found.names == ("a", "b", "c")


def test_a_target_that_is_not_there_names_the_nearest():
    with pytest.raises(DataError, match=r"no column 'lable'. Did you mean 'label'"):
        find_targets(made_table(id=range(3), label=range(3)), None, None, ["lable"], ())


def test_the_id_column_of_a_sample_and_an_index_that_was_saved_along():
    plain = sample_of(id=["x", "y"], label=[0, 0])
    assert (plain.id_column, plain.value_columns, plain.index_column) == ("id", ("label",), None)
    saved = read_sample(made_table("s.csv", **{"": [0, 1], "id": ["x", "y"], "label": [0, 0]}))
    assert (saved.id_column, saved.value_columns, saved.index_column) == ("id", ("label",), "")
    second = read_sample(made_table("s.csv", label=["k", "l"], id=["x", "y"]), [frozenset({"x", "y"})])
    assert second.id_column == "id"


def test_cells_of_samples():
    assert sample_of(id=[1], label=[""]).cells == "empty"
    assert sample_of(id=[1], label=[0]).cells == "int"
    assert sample_of(id=[1], label=["0.0"]).cells == "float"
    assert sample_of(id=[1], label=["cat"]).cells == "text"
    assert sample_of(id=[1, 2], a=[0.3, 0.5], b=[0.7, 0.5]).sums_to_one
    assert listed_tokens(column("a b c", "d e f")) == (" ", 3)
    assert listed_tokens(column("a b", "c")) is None
    assert (first_number(column(1, 2, 3)), first_number(column(1, 3)), first_number(column("a"))) == (1, None, None)
    assert bare("['a', 'b']") == "a,b"


# -- kinds ---------------------------------------------------------------------------------------------------------


def kind_of_cells(cells, name="label", **words):
    return find_kind([column(*cells, name=name)], words.pop("sample", None), words.pop("melted", False), **words)


@pytest.mark.parametrize(
    ("cells", "name", "kind"),
    [
        ([0, 1] * 10, "target", "binary"),
        (["yes", "no"] * 10, "sick", "binary"),
        (["a", "b", "c"] * 10, "label", "multiclass"),
        (["Fat Hen", "Sugar beet", "Maize"] * 10, "species", "multiclass"),
        (["a b", "a", "b", "c", "a c", "b c"] * 6, "labels", "multilabel"),
        (["1|2", "2", "3|1", "1", "3"] * 6, "labels", "multilabel"),
        ([0] * 20 + [1] * 9 + [2] * 5 + [3] * 2, "diagnosis", "ordinal"),
        ([0] * 20 + [1] * 9 + [2] * 5 + [3] * 2, "label", "multiclass"),
        ([0] * 20 + [1] * 9 + [2] * 5 + [3] * 2, "outcome", "ordinal"),
        ([0, 1, 2, 3] * 9, "outcome", "multiclass"),
        (list(range(10)) * 5, "digit", "multiclass"),
        (np.random.default_rng(0).gamma(9, 6, 200).astype(int), "age", "regression"),
        ([11, 25, 38, 47] * 9, "hotel_id", "multiclass"),
        ([1.5, 2.25, 3.125] * 9, "label", "regression"),
    ],
)
def test_the_kind_of_one_column(cells, name, kind):
    assert kind_of_cells(cells, name).kind == kind


def test_two_classes_have_the_positive_one_second():
    assert kind_of_cells(["normal", "malignant"] * 6).classes == ("normal", "malignant")
    assert kind_of_cells(["abnormal", "normal"] * 6).classes == ("normal", "abnormal")
    assert kind_of_cells(["dog", "cat"] * 6).classes == ("cat", "dog")
    assert kind_of_cells(["dog", "cat"] * 6, sample=sample_of(id=["t"], is_cat=[0.5])).classes == ("dog", "cat")


def test_a_metric_decides_between_readings():
    grades = [0] * 20 + [1] * 9 + [2] * 5
    assert kind_of_cells(grades, metric="quadratic_kappa").kind == "ordinal"
    assert kind_of_cells(grades, "diagnosis", metric="accuracy").kind == "multiclass"
    assert kind_of_cells(grades, "diagnosis", metric="rmse").kind == "regression"


def test_a_stated_kind_is_never_contradicted():
    assert kind_of_cells([0, 1, 2] * 9, given="ordinal").kind == "ordinal"
    assert kind_of_cells(range(30), given="regression").clip == (0, 29)
    stated = kind_of_cells(["a;b", "c", "a"] * 6, separator=";")
    assert (stated.kind, stated.classes) == ("multilabel", ("a", "b", "c"))
    with pytest.raises(DataError, match="does not hold numbers"):
        kind_of_cells(["a", "b"] * 9, given="regression")


@pytest.mark.parametrize(
    ("rows", "kind", "soft"),
    [
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)] * 4, "multiclass", False),
        ([(1, 0, 1), (0, 1, 0), (0, 1, 1)] * 4, "multilabel", False),
        ([(0.5, 0.25, 0.25), (0.2, 0.2, 0.6)] * 4, "multiclass", True),
        ([(3, 0, 1), (1, 3, 0), (0, 2, 2)] * 4, "multiclass", True),
        ([(1.5, -2, 1), (0.5, 3, 0.25)] * 4, "regression", False),
    ],
)
def test_the_kind_of_several_columns(rows, kind, soft):
    columns = [column(*cells, name=f"c{place}") for place, cells in enumerate(zip(*rows, strict=True))]
    found = find_kind(columns, None, False)
    assert (found.kind, found.is_soft) == (kind, soft)


def test_what_stands_between_labels():
    assert label_separator(["scab rust", "scab", "rust", "mildew scab", "mildew"]) == " "
    assert label_separator(["a, b", "a", "b", "c, a", "c"]) == ","
    assert label_separator(["16 0", "7", "1 2", "25 0", "16", "2"]) == " "
    assert label_separator(["Black-grass", "Fat Hen", "Sugar beet"]) is None
    assert label_separator(["red fox", "fox", "grey wolf", "wolf"]) is None
    assert label_separator(["red apple", "green apple", "red pear", "green pear"]) is None


def test_evenness_and_heavy_tails():
    assert evenness([5, 5, 5]) == pytest.approx(1)
    assert evenness([97, 1, 1]) < 0.2
    assert is_heavy_tailed(np.exp(np.random.default_rng(0).normal(size=500) * 1.5))
    assert not is_heavy_tailed(np.random.default_rng(0).uniform(1, 100, 500))


def test_grades_are_confused_with_their_neighbours_and_names_are_not():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 400)

    def probs_of(taken):
        return np.eye(5)[np.clip(taken, 0, 4)]

    beside = np.where(rng.random(400) < 0.3, truth + rng.choice([-1, 1], 400), truth)
    far = np.where(rng.random(400) < 0.3, (truth + 2) % 5, truth)
    assert confuses_neighbours(truth, probs_of(beside)) is True
    assert confuses_neighbours(truth, probs_of(far)) is False
    assert confuses_neighbours(truth, probs_of(truth)) is None


# -- formats and metrics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "sample", "expected"),
    [
        ([0, 1] * 9, {"id": [1], "label": [0.5]}, ("probability", None)),
        ([0, 1] * 9, {"id": [1], "label": [0]}, ("label", None)),
        ([0, 1] * 9, {"id": [1], "probability": [0]}, ("probability", None)),
        (["a", "b", "c"] * 9, {"id": [1], "label": ["a"]}, ("label", None)),
        ([11, 25, 38, 47] * 9, {"id": [1, 2], "label": ["11 25 38", "11 25 38"]}, ("top_k", 3)),
        (["red fox", "ant", "bee"] * 9, {"id": [1], "label": ["red fox"]}, ("label", None)),
        (["a", "b", "c"] * 9, {"id": [1], "a": [0.3], "b": [0.3], "c": [0.4]}, ("per_class", None)),
        (["a b", "a", "b", "c", "a c", "b c"] * 6, {"id": [1], "labels": ["a"]}, ("labels", None)),
        ([1.5, 2.5, 3.5] * 9, {"id": [1], "label": [0]}, ("values", None)),
    ],
)
def test_what_a_row_of_the_submission_holds(cells, sample, expected):
    own = sample_of(**sample)
    kinds = find_kind([column(*cells)], own, own.value is None)
    asked = find_format(kinds, own, None, {})
    assert (asked.format, asked.k) == expected
    assert find_format(kinds, own, None, {"format": "array"}).format == "array"


def test_without_a_sample_the_metric_decides_between_labels_and_probabilities():
    kinds = kind_of_cells(["a", "b", "c"] * 9)
    assert find_format(kinds, None, None, {}).finding.flag == "submission.format=per_class"
    assert find_format(kinds, None, "log_loss", {}).format == "per_class"
    assert find_format(kinds, None, "map_at_k", {}).format == "top_k"


def test_metrics_by_what_is_asked_for():
    def name(kind, form, counts=(5, 5), k=None):
        return find_metric(None, [], kind, form, counts, k)[0]

    assert name("multiclass", "label") == "accuracy"
    assert name("multiclass", "label", (97, 2, 1)) == "f1_macro"
    assert name("binary", "probability") == "log_loss"
    assert name("multilabel", "labels", ()) == "f1_micro"
    assert name("ordinal", "label") == "quadratic_kappa"
    assert name("regression", "values", ()) == "rmse"
    assert name("multiclass", "top_k", k=5) == "map_at_k"
    assert name("multiclass", "top_k", k=3) == {"name": "map_at_k", "options": {"k": 3}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Submissions are scored based on the quadratic weighted kappa", "quadratic_kappa"),
        ("evaluated by the mean column-wise ROC AUC.", "mean_column_auc"),
        ("Mean Average Precision @ 5 (MAP@5)", {"name": "map_at_k", "options": {"k": 5}}),
        ("scored with balanced accuracy", "balanced_accuracy"),
        ("Evaluation: categorization accuracy. (Not the log loss of last year.)", "accuracy"),
        ("<h2>Evaluation</h2><p>macro F1</p>", "f1_macro"),
        ("root mean squared error (RMSE)", "rmse"),
        ("multi-class logarithmic loss", "log_loss"),
    ],
)
def test_metrics_in_the_hosts_words(tmp_path, text, expected):
    path = tmp_path / "description.html"
    path.write_text(text)
    assert metric_in_texts([path])[0][0] == expected


def test_every_metric_that_is_looked_for_exists_and_sisters_fit_other_kinds(tmp_path):
    assert {name for _, name in HOST_WORDS} <= set(METRICS)
    assert find_metric(None, [("roc_auc", "README.md")], "multilabel", "per_class", (), None)[0] == "mean_column_auc"
    assert find_metric(None, [("rmse", "README.md")], "binary", "label", (5, 5), None)[0] == "accuracy"


# -- groups and splits ---------------------------------------------------------------------------------------------


def group_of(test=None, **columns):
    rows = made_table(**columns)
    found = find_group(rows, test, np.array([str(cell) for cell in columns["label"]], dtype=object), ("id", "label"))
    return None if found is None else found.value


def test_a_repeated_column_that_crosses_classes_and_is_new_in_test_is_a_group():
    columns = {"id": range(30), "label": [n % 3 for n in range(30)], "place": [f"p{n // 3}" for n in range(30)]}
    assert group_of(**columns) == "place"
    new, same = made_table(id=["t"], place=["p99"]), made_table(id=["t"], place=["p1"])
    assert group_of(new, **columns) == "place"
    assert group_of(same, **columns) is None
    renamed = {**columns, "thing": columns.pop("place")}
    renamed.pop("place", None)
    assert group_of(**renamed) is None  # nothing shows that test would have new ones
    assert group_of(made_table(id=["t"], thing=["p99"]), **renamed) == "thing"


def test_a_column_that_the_class_decides_is_never_a_group():
    hotels = [n % 12 for n in range(60)]
    assert group_of(id=range(60), label=hotels, case=[f"chain{hotel // 2}" for hotel in hotels]) is None
    assert (
        group_of(id=range(60), label=[n % 2 for n in range(60)], patient=[f"p{n % 20}" for n in range(60)]) == "patient"
    )


def test_the_hosts_folds_and_splits():
    rows = made_table(id=range(10), fold=[n % 5 for n in range(10)])
    assert find_fold_column(rows, ()).value == "fold"
    assert find_split(made_table(id=range(4), set=["train", "train", "val", "test"]), ()) == (
        "set",
        {"train": "train", "val": "valid", "test": "test"},
    )
    assert find_split(made_table(id=range(4), is_valid=[0, 0, 1, 1]), ()) == ("is_valid", {"0": "train", "1": "valid"})
    assert find_split(made_table(id=range(4), set=["red", "red", "blue", "blue"]), ()) is None


def test_validation_rows_are_dealt_evenly_with_groups_whole():
    is_valid = [n % 2 == 1 for n in range(40)]
    classes = np.array([str(n % 3) for n in range(40)], dtype=object)
    folds = dealt_folds(is_valid, classes, None)
    assert [fold == "-1" for fold in folds] == [not own for own in is_valid]
    assert sorted(folds.count(str(number)) for number in range(5)) == [4] * 5
    groups = np.array([f"g{n // 4}" for n in range(40)], dtype=object)
    whole = dealt_folds(is_valid, classes, groups)
    assert all(whole[row] == whole[row + 2] for row in range(1, 40, 4))


# -- arrays and pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "words", "expected"),
    [
        ((3, 750), "f4", (), (True, True)),
        ((1, 750, 2), "f4", (), (True, True)),
        ((28, 28), "u1", (), (False, True)),
        ((32, 32, 3), "f4", (), (False, True)),
        ((64, 64), "f4", (), (False, False)),
        ((64, 300), "f4", ("spec",), (False, True)),
        ((500,), "f4", (), (True, True)),
    ],
)
def test_signals_and_pictures_by_their_shape(shape, dtype, words, expected):
    assert is_signal(shape, np.dtype(dtype), frozenset(words)) == expected


def test_numbered_columns_are_pixels_if_they_are_many():
    found = numbered_columns(["label", *(f"pixel{n}" for n in range(49))])
    assert (len(found.names), found.pattern) == (49, "pixel*")
    assert numbered_columns([f"x{n}" for n in range(12)]) is None
    assert numbered_columns(["12", "a"] + [str(n) for n in range(40, 90)]).pattern == "[0-9]*"


def test_the_shape_of_flat_items():
    rows = np.arange(8)
    picture = np.stack([np.outer(rows + n, rows).ravel() for n in range(20)]).astype(np.float32)
    assert item_shape(picture)[0] == (8, 8)
    waves = np.cumsum(np.random.default_rng(0).normal(size=(20, 64)), axis=1).astype(np.float32)
    assert item_shape(waves)[0] == (1, 64)
    innermost = np.repeat(picture[:, :, None], 3, axis=2) * np.array([1, -1, 5]) + 60
    assert item_shape(np.abs(innermost.reshape(20, -1)).astype(np.float32))[:2] == ((8, 8, 3), True)
    outermost = np.stack([picture, 60 - picture, picture / 5], axis=1).reshape(20, -1)
    assert item_shape(np.abs(outermost).astype(np.float32))[:2] == ((3, 8, 8), False)


def test_findings_keep_their_order_and_the_last_of_a_key():
    findings = Findings()
    findings.add("kind", "ordinal", "whole numbers", "guess", "kind=multiclass")
    findings.add("id", "id", "names each row")
    findings.add("kind", "multiclass", "as you said")
    assert [row[:2] for row in findings.rows()] == [["kind", "multiclass"], ["id", "id"]]
    assert findings.open_questions() == []
    assert isinstance(sample_of(id=[1], label=[2]), Sample)
