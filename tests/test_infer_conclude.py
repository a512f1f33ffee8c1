"""Whole deliveries of hosts, written by hand, to the task that `podium init` concludes; and its errors."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from infer_hosts import cats_and_dogs, concluded, data_of, ids, initiate, pictures, table

from pipeline.base.errors import ConfigError, DataError
from pipeline.data.tables import load_test, load_train
from pipeline.records.metrics import METRICS
from pipeline.stages.infer.stage import Initiated


@pytest.fixture
def host(tmp_path: Path) -> Path:
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


def rows_of(host, task):
    return load_train(task, data_of(host, task)).rows


def files_of(host, task):
    """Return the files of all training rows, relative to the host's folder."""
    found = load_train(task, data_of(host, task))
    return [path.resolve().relative_to(host).as_posix() for path in found.source.paths]


# -- the user's folder ---------------------------------------------------------------------------------------------


def test_a_plain_competition_is_used_where_it_lies(host):
    cats_and_dogs(host)
    before = sorted(path.stat().st_mtime_ns for path in host.rglob("*"))
    task = concluded(host)
    assert (task.kind, task.id, task.target, task.metric.name) == ("binary", "id", ("label",), "accuracy")
    assert (task.train.table, task.train.files) == ("train.csv", ("train/{id}.png",))
    assert (task.test.table, task.test.files) == ("sample_submission.csv", ("test/{id}.png",))
    assert task.submission.sample == "sample_submission.csv"
    assert data_of(host, task).resolve() == host
    assert sorted(path.stat().st_mtime_ns for path in host.rglob("*")) == before
    assert not (host.parent / "work" / "data").exists()


def test_what_has_to_be_made_lies_beside_a_link_to_the_folder(host):
    pictures(host, [f"train/Fat Hen/{n}.png" for n in range(6)] + [f"train/Sugar beet/{n}x.png" for n in range(6)])
    pictures(host, [f"test/{n}.png" for n in range(50, 54)])
    table(host / "sample_submission.csv", "file,species", [(f"{n}.png", "Fat Hen") for n in range(50, 54)])
    task = concluded(host)
    data = data_of(host, task)
    assert (data / "original").is_symlink()
    assert (data / "original").resolve() == host
    assert task.target == ("species",)
    assert rows_of(host, task).names == ("Fat Hen", "Sugar beet")
    assert len(load_test(task, data, ("a", "b")).rows) == 4
    assert initiate(host).written.how == "kept"  # again: the same folder, and nothing to add


def test_the_name_of_a_plain_folder_is_that_of_the_one_around_it(tmp_path):
    folder = tmp_path / "Cats & Dogs (2)" / "public"
    cats_and_dogs(folder)
    assert concluded(folder).name == "Cats-Dogs-2"
    with pytest.raises(ConfigError, match="starts with a letter or digit"):
        initiate(folder, name="../cats")


# -- where labels are ----------------------------------------------------------------------------------------------


def test_labels_in_names_of_files(host):
    pictures(host, [f"train/{kind}.{n}.jpg" for kind in ("cat", "dog") for n in range(8)])
    pictures(host, [f"test/{n}.jpg" for n in range(5)])
    table(host / "sample_submission.csv", "id,label", [(n, 0.5) for n in range(5)])
    task = concluded(host)
    assert (task.kind, task.format, task.metric.name) == ("binary", "probability", "log_loss")
    assert rows_of(host, task).names == ("cat", "dog")


def test_a_label_at_the_end_of_a_name_that_test_names_do_not_have(host):
    pictures(host, [f"data/train/2009{n:04d}_0{n}_TRAIN{n}_{n % 2}.png" for n in range(12)])
    pictures(host, [f"data/test/2009{n:04d}_0{n}_Test{n}.png" for n in range(4)])
    names = [f"2009{n:04d}_0{n}_Test{n}.png" for n in range(4)]
    table(host / "sampleSubmission.csv", "clip,probability", [(name, 0) for name in names])
    task = concluded(host)
    assert (task.kind, task.format) == ("binary", "probability")
    assert rows_of(host, task).targets.tolist() == [n % 2 for n in range(12)]


def test_folders_that_only_part_the_classes_are_no_classes(host):
    names = [
        f"train/{part}/{kind}/{part}{n}.png" for part in ("p1", "p2") for kind in ("ant", "bee", "fly") for n in (1, 2)
    ]
    pictures(host, [*names, *(f"test/{n}.png" for n in range(4))])
    assert rows_of(host, concluded(host)).names == ("ant", "bee", "fly")


def test_class_folders_beside_the_test_folder_with_names_as_the_sample_spells_them(host):
    pictures(host, [f"{kind}/{kind}{n}.jpg" for kind in ("red_fox", "wolf", "bear") for n in range(5)])
    pictures(host, [f"test/t{n}.jpg" for n in range(4)])
    table(host / "sample_submission.csv", "id,Wolf,Red fox,Bear", [(f"t{n}", 0.3, 0.3, 0.4) for n in range(4)])
    task = concluded(host)
    assert task.classes == ("Wolf", "Red fox", "Bear")
    assert (task.kind, task.format) == ("multiclass", "per_class")


def test_files_of_noise_are_no_class(host):
    pictures(host, [f"{kind}/{kind}{n}.png" for kind in ("ant", "bee", "background_noise") for n in range(6)])
    pictures(host, [f"test/{n}.png" for n in range(4)])
    assert rows_of(host, concluded(host)).names == ("ant", "bee")


def test_labels_of_arrays_and_their_subjects(host):
    signals = np.random.default_rng(0).normal(size=(40, 3, 120)).astype(np.float32)
    np.save(host / "X_train.npy", signals[:30])
    np.save(host / "X_test.npy", signals[30:])
    np.save(host / "y_train.npy", np.arange(30) % 2)
    np.save(host / "subject_train.npy", np.arange(30) // 5)
    np.save(host / "subject_test.npy", 50 + np.arange(10) // 5)
    task = concluded(host)
    assert (task.input, task.kind, task.layout) == ("signal", "binary", None)
    assert (task.subject, task.group) == ("subject", None)
    assert rows_of(host, task).subjects.tolist() == [str(n // 5) for n in range(30)]
    assert concluded(host, "group=subject", overwrite=True).group == "subject"
    stated = concluded(host, "session=subject", overwrite=True)
    assert (stated.session, stated.subject, stated.group) == ("subject", None, None)
    off = concluded(host, "group=null", overwrite=True)
    assert (off.session, off.subject, off.group) == (None, None, None)


def test_arrays_of_both_sets_in_one_file(host):
    images = np.random.default_rng(0).integers(0, 255, (40, 9, 9), dtype=np.uint8)
    np.savez(host / "digits.npz", x_train=images[:30], y_train=np.arange(30) % 10, x_test=images[30:])
    task = concluded(host)
    assert (task.input, task.kind, task.id) == ("image", "multiclass", None)
    assert task.train.array.key == "x_train"
    assert task.train.labels.key == "y_train"
    assert task.test.array.key == "x_test"
    assert task.target == ()  # an array of labels has no name


def test_channels_that_are_the_last_axis_of_a_signal(host):
    signals = np.random.default_rng(0).normal(size=(20, 1, 90, 2)).astype(np.float32)
    np.savez(host / "train.npz", signal=signals, label=np.arange(20) % 4)
    np.savez(host / "test.npz", signal=signals[:6])
    table(host / "sample_submission.csv", "id,label", [(n, 0) for n in range(6)])
    task = concluded(host)
    assert (task.input, task.layout, task.first_id, task.kind) == ("signal", "channels_last", 0, "multiclass")
    assert data_of(host, task).resolve() == host


def test_bands_in_json_become_channels(host):
    def record(name):
        band = np.outer(np.arange(8) + len(name), np.arange(8)).ravel()
        return {"id": name, "band_1": (0.5 + band).tolist(), "band_2": (band - 20.5).tolist(), "angle": 30.5}

    train = [record(name) | {"is_iceberg": n % 2} for n, name in enumerate(ids("a", 12))]
    (host / "train.json").write_text(json.dumps(train))
    (host / "test.json").write_text(json.dumps([record(name) for name in ids("b", 4)]))
    table(host / "sample_submission.csv", "id,is_iceberg", [(name, 0.5) for name in ids("b", 4)])
    task = concluded(host)
    assert (task.kind, task.target, task.format) == ("binary", ("is_iceberg",), "probability")
    array = np.load(data_of(host, task) / task.train.array.file)
    assert array.shape == (12, 2, 8, 8)


def test_signals_in_columns(host):
    waves = np.cumsum(np.random.default_rng(0).normal(size=(30, 41)), axis=1).round(3)
    header = ",".join(map(str, range(41)))
    table(host / "train.csv", f"{header},label", [[*wave, row % 5] for row, wave in enumerate(waves[:24])])
    table(host / "test.csv", header, waves[24:])
    table(host / "sample_submission.csv", "id,label", [(n, 0) for n in range(6)])
    task = concluded(host)
    assert (task.input, task.train.pixels.shape, task.first_id) == ("signal", (1, 41), 0)


# -- how rows find files -------------------------------------------------------------------------------------------


def test_nested_by_the_first_letter_and_by_a_column(host):
    names = [f"{letter}{n}" for letter in "abc" for n in range(4)]
    pictures(host, [f"train/{name[0]}/{name}.png" for name in names])
    pictures(host, [f"test/t{n}.png" for n in range(4)])
    table(host / "train.csv", "id,label", [(name, ("x", "y")[n % 2]) for n, name in enumerate(names)])
    table(host / "sample_submission.csv", "id,label", [(f"t{n}", "x") for n in range(4)])
    assert concluded(host).train.files == ("train/{id:.1}/{id}.png",)


def test_numbers_filled_up_with_zeros_and_words_around_them(host):
    pictures(
        host, [f"train/img_{n:05d}.png" for n in range(1, 13)] + [f"test/img_{n:05d}.png" for n in range(101, 105)]
    )
    table(host / "train.csv", "id,label", [(n, ("x", "y")[n % 2]) for n in range(1, 13)])
    table(host / "sample_submission.csv", "id,label", [(n, "x") for n in range(101, 105)])
    task = concluded(host)
    assert task.train.files == ("train/img_{id:0>5}.png",)
    assert task.test.files == ("test/img_{id:0>5}.png",)  # though here all numbers have three digits


def test_several_files_of_a_row_with_ends_of_their_own(host):
    ends = ("blue", "green", "red")
    pictures(host, [f"train/{name}_{end}.png" for name in ids("a", 12) for end in ends])
    pictures(host, [f"test/{name}_{end}.png" for name in ids("b", 4) for end in ends])
    cells = ["16 0", "7", "1 2", "25 0", "16", "2"]
    table(host / "train.csv", "Id,Target", [(name, cells[n % 6]) for n, name in enumerate(ids("a", 12))])
    table(host / "sample_submission.csv", "Id,Predicted", [(name, 0) for name in ids("b", 4)])
    task = concluded(host)
    assert task.train.files == tuple(f"train/{{Id}}_{end}.png" for end in ends)
    assert (task.kind, task.target_separator, task.format) == ("multilabel", " ", "labels")


def test_a_folder_of_several_files_for_each_row(host):
    pictures(host, [f"train/p{n}/s{k}.png" for n in range(10) for k in range(1 + n % 3)])
    pictures(host, [f"test/q{n}/s{k}.png" for n in range(4) for k in range(1 + n % 2)])
    table(host / "train_labels.csv", "patient,target", [(f"p{n}", n % 2) for n in range(10)])
    table(host / "sample_submission.csv", "patient,target", [(f"q{n}", 0.5) for n in range(4)])
    task = concluded(host)
    assert task.submission.row_id == "patient"
    rows = rows_of(host, task)
    assert len(rows) == sum(1 + n % 3 for n in range(10))
    assert set(rows.submission_ids) == {f"p{n}" for n in range(10)}


def test_ids_with_another_suffix_than_the_files(host):
    pictures(host, [f"png/{name}.png" for name in [*ids("a", 12), *ids("b", 4)]])
    table(host / "train.csv", "image,label", [(f"{name}.dcm", n % 2) for n, name in enumerate(ids("a", 12))])
    table(host / "sample_submission.csv", "image,label", [(f"{name}.dcm", 0.5) for name in ids("b", 4)])
    task = concluded(host)
    assert sorted(files_of(host, task)) == [f"png/{name}.png" for name in ids("a", 12)]


def test_an_archive_with_everything(host):
    cats_and_dogs(host)
    files = [path for path in sorted(host.rglob("*")) if path.is_file()]
    with zipfile.ZipFile(host / "all.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(host).as_posix())
    for path in host.iterdir():
        if path.name != "all.zip":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    task = concluded(host)
    assert (task.train.table, task.train.files) == ("unpacked/all/train.csv", ("unpacked/all/train/{id}.png",))
    assert [path.name for path in host.iterdir()] == ["all.zip"]


def test_an_archive_beside_its_own_content_is_left_alone(host):
    cats_and_dogs(host)
    with zipfile.ZipFile(host / "train.zip", "w") as archive:
        for path in sorted((host / "train").iterdir()):
            archive.write(path, f"train/{path.name}")
    made = initiate(host)
    assert made.findings.of("archive train.zip").value == "left alone"
    assert not made.conclusion.is_made


def test_a_row_of_training_without_a_file_is_left_out_and_said(host):
    cats_and_dogs(host)
    (host / "train" / "a005.png").unlink()
    made = initiate(host)
    assert "a005" in made.findings.of("rows without a file").reason
    assert len(rows_of(host, made.conclusion.task)) == 23


# -- tables and samples --------------------------------------------------------------------------------------------


def test_rows_without_a_target_are_those_to_predict(host):
    names = ids("a", 30)
    pictures(host, [f"images/{name}.png" for name in names])
    table(
        host / "all.csv",
        "id,label",
        [(name, ("ant", "bee", "fly")[n % 3] if n < 24 else "") for n, name in enumerate(names)],
    )
    table(host / "sample_submission.csv", "id,label", [(name, "ant") for name in names[24:]])
    task = concluded(host)
    assert len(rows_of(host, task)) == 24


def test_one_table_whose_column_says_what_a_row_is_for(host):
    names = ids("a", 40)
    pictures(host, [f"images/{name}.png" for name in names])
    parts = ["train" if n % 4 else "val" for n in range(30)] + ["test"] * 10
    labels = [("ant", "bee", "fly")[n % 3] if n < 30 else "" for n in range(40)]
    table(host / "data.csv", "id,label,split", zip(names, labels, parts, strict=True))
    task = concluded(host)
    rows = rows_of(host, task)
    assert task.fold_column == "fold"
    held = {row_id for row_id, fold in zip(rows.ids, rows.host_folds, strict=True) if fold >= 0}
    assert held == {name for name, part in zip(names, parts, strict=True) if part == "val"}
    assert sorted(load_test(task, data_of(host, task), rows.names).rows.ids) == names[30:]


def test_validation_rows_in_a_table_and_in_a_folder(host):
    cats_and_dogs(host)
    pictures(host, [f"val/{name}.png" for name in ids("v", 8)])
    table(host / "val.csv", "id,label", [(name, ("cat", "dog")[n % 2]) for n, name in enumerate(ids("v", 8))])
    made = initiate(host)
    rows = rows_of(host, made.conclusion.task)
    assert {row_id[0] for row_id, fold in zip(rows.ids, rows.host_folds, strict=True) if fold >= 0} == {"v"}
    assert made.conclusion.facts.n_host_folds == 5


def test_a_sample_that_asks_for_some_of_the_test_rows(host):
    cats_and_dogs(host)
    table(host / "test.csv", "id", [(name,) for name in ids("b", 6)])
    table(host / "sample_submission.csv", "id,label", [(name, "cat") for name in ids("b", 4)])
    task = concluded(host)
    assert sorted(load_test(task, data_of(host, task), ("cat", "dog")).rows.ids) == ids("b", 4)


def test_columns_with_names_of_their_own_are_the_classes_in_order(host):
    cats_and_dogs(host)
    table(host / "train.csv", "id,label", [(name, n % 3) for n, name in enumerate(ids("a", 24))])
    table(host / "sample_submission.csv", "id,class_0,class_1,class_2", [(name, 0.3, 0.3, 0.4) for name in ids("b", 6)])
    task = concluded(host)
    assert task.submission.columns == ("class_0", "class_1", "class_2")
    assert task.kind == "multiclass"


def test_lists_in_brackets(host):
    cats_and_dogs(host)
    cells = ["['scab']", "['rust', 'scab']", "['rust']", "['mildew', 'rust']", "['mildew']"]
    table(host / "train.csv", "id,labels", [(name, f'"{cells[n % 5]}"') for n, name in enumerate(ids("a", 24))])
    table(host / "sample_submission.csv", "id,labels", [(name, "rust") for name in ids("b", 6)])
    task = concluded(host)
    assert rows_of(host, task).names == ("mildew", "rust", "scab")


def test_patients_in_another_table_become_the_group(host):
    cats_and_dogs(host)
    table(
        host / "train_metadata.csv", "id,patient,age", [(name, f"p{n // 3}", n) for n, name in enumerate(ids("a", 24))]
    )
    task = concluded(host)
    assert task.group == "patient"
    assert rows_of(host, task).groups.tolist() == [f"p{n // 3}" for n in range(24)]


def test_doubled_ids_of_training_count_as_one_row(host):
    cats_and_dogs(host)
    with (host / "train.csv").open("a") as file:
        file.write("a000,cat\n")
    assert concluded(host).submission.row_id == "id"


def test_values_keep_their_range_and_a_heavy_tail_is_noted(host):
    cats_and_dogs(host)
    values = np.exp(np.linspace(0, 9, 24)).round(2)
    table(host / "train.csv", "id,price", zip(ids("a", 24), values, strict=True))
    table(host / "sample_submission.csv", "id,price", [(name, 1.5) for name in ids("b", 6)])
    made = initiate(host)
    assert made.conclusion.task.submission.clip == (values.min(), values.max())
    assert made.conclusion.facts.is_heavy_tailed


def test_a_description_of_the_host_names_the_metric(host):
    cats_and_dogs(host, sample=0)
    table(host / "train.csv", "id,label", [(name, n % 2) for n, name in enumerate(ids("a", 24))])
    text = (
        "Accuracy of labels was checked twice.\n## Evaluation\nSubmissions are scored by the area under the ROC curve."
    )
    (host / "README.md").write_text(text)
    task = concluded(host)
    assert (task.metric.name, task.format) == ("roc_auc", "probability")


# -- what the user states ------------------------------------------------------------------------------------------


def test_what_is_stated_steers_what_follows(host):
    cats_and_dogs(host, sample=0)
    table(host / "train.csv", "id,label,grade", [(name, n % 2, n % 4) for n, name in enumerate(ids("a", 24))])
    task = concluded(host, "target=grade", "kind=multiclass")
    assert (task.target, task.kind, task.format, task.metric.name) == (("grade",), "multiclass", "label", "accuracy")
    task = concluded(host, metric="log_loss", overwrite=True)
    assert (task.format, task.metric.name) == ("probability", "log_loss")
    task = concluded(host, "submission.format=probability", overwrite=True)
    assert (task.format, task.metric.name) == ("probability", "log_loss")


def test_stated_tables_and_files_are_followed_wherever_they_lead(host):
    cats_and_dogs(host)
    pictures(host, [f"other/{name}.png" for name in ids("a", 24)])
    table(
        host / "labels_new.csv",
        "id,label",
        [(name, ("owl", "rat", "yak")[n % 3]) for n, name in enumerate(ids("a", 24))],
    )
    table(host / "sample_submission.csv", "id,label", [(name, "owl") for name in ids("b", 6)])
    task = concluded(host, "train.table=labels_new.csv", "train.files=other/{id}.png")
    assert (task.train.table, task.train.files) == ("labels_new.csv", ("other/{id}.png",))
    assert rows_of(host, task).names == ("owl", "rat", "yak")
    with pytest.raises(DataError, match=r"no table 'labels.csv'. Tables: labels_new.csv"):
        initiate(host, "train.table=labels.csv")
    with pytest.raises(DataError, match=r"24 files are missing, such as wrong/a000.png"):
        initiate(host, "train.files=wrong/{id}.png")


def test_stated_paths_are_those_of_the_host_where_a_folder_is_made_too(host):
    cats_and_dogs(host)
    pictures(host, [f"more/{name}.png" for name in ids("u", 5)])
    table(host / "more.csv", "id", [(name,) for name in ids("u", 5)])
    (host / "labels.csv").write_text((host / "train.csv").read_text().replace(",", ";"))
    task = concluded(host, "train.table=labels.csv", "unlabelled={table: more.csv, files: 'more/{id}.png'}")
    assert (task.train.table, task.train.files) == ("train.csv", ("original/train/{id}.png",))
    assert (task.unlabelled.table, task.unlabelled.files) == ("original/more.csv", ("original/more/{id}.png",))
    assert len(load_test(task, data_of(host, task), ("cat", "dog"), task.unlabelled).rows) == 5


def test_other_keys_are_laid_over_the_conclusions(host):
    cats_and_dogs(host)
    task = concluded(
        host, "host={competition: cats, daily_limit: 3}", "exclude=[a001]", "rules.pseudo_labels=forbidden"
    )
    assert (task.host.competition, task.exclude, task.rules.pseudo_labels) == ("cats", ("a001",), "forbidden")
    with pytest.raises(ConfigError, match="Did you mean 'target'"):
        initiate(host, "tagret=label")


def test_a_metric_that_does_not_fit_is_refused_with_those_that_do(host):
    cats_and_dogs(host)
    with pytest.raises(ConfigError, match=r"rmse: does not fit binary.*roc_auc"):
        initiate(host, metric="rmse")
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        initiate(host, metric="acuracy")
    assert "accuracy" in METRICS


def test_training_without_a_test_set_on_request(host):
    cats_and_dogs(host)
    (host / "sample_submission.csv").unlink()
    shutil.rmtree(host / "test")
    with pytest.raises(DataError, match="nothing to predict"):
        initiate(host)
    assert concluded(host, "test=off").test is None


# -- what cannot be concluded --------------------------------------------------------------------------------------


def test_an_empty_folder_and_one_without_items(host):
    with pytest.raises(DataError, match="is empty"):
        initiate(host)
    table(host / "train.csv", "id,label", [("a", 1), ("b", 2)])
    with pytest.raises(DataError, match=r"no items.*train.csv"):
        initiate(host)
    with pytest.raises(DataError, match="no such folder"):
        initiate(host / "nowhere")


def test_ids_that_match_no_file_name_the_three_nearest(host):
    cats_and_dogs(host)
    table(host / "train.csv", "id,label", [(f"IMG_{n}", ("cat", "dog")[n % 2]) for n in range(24)])
    with pytest.raises(
        DataError, match=r"train.csv: no column names files: 'IMG_0'.*nearest names are \w+.png, \w+.png, \w+.png"
    ):
        initiate(host)


def test_a_target_that_is_constant_or_names_rows(host):
    cats_and_dogs(host)
    table(host / "train.csv", "id,label", [(name, "cat") for name in ids("a", 24)])
    with pytest.raises(DataError, match=r"'label' holds only 'cat' in all 24 rows"):
        initiate(host)
    table(host / "train.csv", "id,label", [(name, f"cat number {name}") for name in ids("a", 24)])
    with pytest.raises(DataError, match=r"'label' is different in each of the 24 rows.*target="):
        initiate(host)


def test_a_sample_of_other_rows(host):
    cats_and_dogs(host)
    table(host / "test.csv", "id", [(name,) for name in ids("b", 6)])
    table(host / "sample_submission.csv", "id,label", [(f"c{n}", "cat") for n in range(6)])
    with pytest.raises(DataError, match=r"6 of its 6 ids are not among the test rows of test.csv, such as c0"):
        initiate(host)
    (host / "test.csv").unlink()
    table(host / "sample_submission.csv", "id,label", [(name, "cat") for name in ids("a", 24)])
    with pytest.raises(DataError, match=r"24 of its 24 rows are labelled rows of train.csv"):
        initiate(host)


def test_train_and_test_mixed_up(host):
    cats_and_dogs(host)
    (host / "train").rename(host / "aside")
    (host / "test").rename(host / "train")
    (host / "aside").rename(host / "test")
    with pytest.raises(DataError, match="mixed up"):
        initiate(host)
    table(host / "test.csv", "id,label", [(name, "cat") for name in ids("b", 6)])
    table(host / "train.csv", "id", [(name,) for name in ids("a", 24)])
    with pytest.raises(DataError, match=r"test.csv has the labels \(label\) and train.csv has none"):
        initiate(host)


def test_a_damaged_archive_and_a_damaged_picture(host):
    cats_and_dogs(host)
    (host / "train.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"train.zip"):
        initiate(host)
    (host / "train.zip").unlink()
    (host / "test" / "b000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b000.png: (?s:.*)This came up when what was concluded was tried"):
        initiate(host)
    assert not (host.parent / "work" / "configs").exists()


def test_equally_likely_readings_are_said_with_the_flag_of_the_other(host):
    cats_and_dogs(host, sample=0)
    table(host / "train.csv", "id,label", [(name, n % 2) for n, name in enumerate(ids("a", 24))])
    made = initiate(host)
    assert isinstance(made, Initiated)
    assert made.conclusion.task.format == "label"
    assert any("submission.format=probability" in line for line in made.findings.open_questions())
