"""What `podium init` writes: task.yaml with reasons, beside what the user has written; the command and its table."""

from __future__ import annotations

import pytest
from infer_hosts import cats_and_dogs, concluded, ids, initiate, table

from pipeline.__main__ import main
from pipeline.base.errors import ConfigError
from pipeline.records.config import load_task, validate
from pipeline.records.task import Task
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.write import ORDER, task_text, write_task

ODD = {
    "name": "odd",
    "data": "data/my folder",
    "kind": "multiclass",
    "metric": {"name": "map_at_k", "options": {"k": 3}},
    "id": "yes",
    "target": "1e5",
    "classes": [
        "no",
        "0",
        "a: b",
        "#x",
        "ü 'quoted' \"twice\"",
        " space",
        "null",
        "2021-01-01",
        "1e-3",
        "~",
        "a, b",
        "{c}",
    ],
    "train": {"table": "train.csv", "files": ["t/{yes}.png", "u/{yes:0>5}.png"]},
    "test": {"table": "test.csv", "files": ["t/{yes}.png", "u/{yes:0>5}.png"]},
    "submission": {"format": "top_k", "k": 3, "separator": "|"},
}


def values(**changed):
    base = {"name": "cats", "data": "data/cats", "kind": "binary", "metric": "accuracy", "id": "id", "target": "label"}
    base |= {"train": {"table": "train.csv", "files": "train/{id}.png"}}
    return base | {"submission": {"format": "label"}} | changed


def test_every_text_is_read_back_as_it_was(tmp_path):
    (tmp_path / "task.yaml").write_text(task_text(ODD, Findings()), encoding="utf-8")
    assert load_task(tmp_path / "task.yaml") == validate(Task, ODD, "")


def test_every_line_has_a_reason_and_stays_on_the_page():
    findings = Findings()
    findings.add("kind", "binary", "two classes, cat and dog", "likely")
    findings.add("target", "label", "word " * 60)
    text = task_text(values(classes=["cat", "dog"]), findings)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert any("kind: binary" in line and "two classes, cat and dog (likely)" in line for line in lines)
    for number, line in enumerate(lines):
        is_block = line.rstrip().endswith(":") and not line.startswith("#")
        assert line.lstrip().startswith("#") or "#" in line or is_block or lines[number - 1].lstrip().startswith("#"), (
            line
        )
    keys = [line.split(":")[0] for line in lines if line[0] not in " #"]
    assert keys == [key for key in ORDER if key in keys]


def test_an_equally_likely_reading_stands_at_the_top():
    findings = Findings()
    findings.add("kind", "multiclass", "whole numbers", "guess", "kind=ordinal")
    assert "Equally likely: kind = multiclass (whole numbers); the other reading: kind=ordinal" in task_text(
        values(), findings
    )


def test_lines_of_the_user_stay_and_missing_keys_come_to_them(tmp_path):
    path = tmp_path / "task.yaml"
    mine = (
        "# my own words\nname: cats\ndata: data/cats\nkind: binary   # I know\nmetric: roc_auc\nid: id\ntarget: label\n"
    )
    mine += "train: {table: train.csv, files: 'train/{id}.png'}\n"
    path.write_text(mine)
    full = values(
        group="patient", submission={"format": "label", "clip": None}, test={"table": "s.csv", "files": "t/{id}.png"}
    )
    full["submission"] = {"format": "label", "sample": "s.csv"}
    written = write_task(path, full, Findings())
    assert written.how == "completed"
    assert [difference.row() for difference in written.differences] == [["metric", "roc_auc", "accuracy"]]
    assert path.read_text().startswith(mine)
    task = load_task(path)
    assert (task.metric.name, task.group, task.submission.sample, task.test.table) == (
        "roc_auc",
        "patient",
        "s.csv",
        "s.csv",
    )
    assert write_task(path, full, Findings()).how == "kept"


@pytest.mark.parametrize(
    "block", ["submission: {sample: s.csv}", "submission:\n  # mine\n  sample: s.csv\n\n# the end"]
)
def test_a_block_is_completed_whether_on_one_line_or_several(tmp_path, block):
    path = tmp_path / "task.yaml"
    head = "name: cats\ndata: data/cats\nkind: binary\nmetric: accuracy\nid: id\ntarget: label\n"
    path.write_text(f"{head}{block}\ntrain: {{table: train.csv, files: 'train/{{id}}.png'}}\n")
    full = values(submission={"sample": "other.csv", "format": "label", "id": "id"})
    written = write_task(path, full, Findings())
    task = load_task(path)
    assert (task.submission.sample, task.submission.format, task.submission.id) == ("s.csv", "label", "id")
    assert [difference.key for difference in written.differences] == ["submission.sample"]
    assert ("# mine" in path.read_text()) == ("# mine" in block)


def test_a_key_that_would_contradict_the_users_is_not_added(tmp_path):
    path = tmp_path / "task.yaml"
    head = "name: cats\ndata: data/cats\nkind: binary\nmetric: accuracy\nsubmission: {format: label}\n"
    mine = f"{head}train: {{array: {{file: x.npy}}, labels: {{file: y.npy}}}}\n"
    path.write_text(mine)
    assert write_task(path, values(), Findings()).how == "kept"
    assert path.read_text() == mine


def test_an_existing_file_is_replaced_on_request_and_a_wrong_one_is_named(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("name: cats\nkindd: binary\n")
    with pytest.raises(ConfigError, match=r"task.yaml(?s:.*)kindd"):
        write_task(path, values(), Findings())
    assert write_task(path, values(), Findings(), overwrite=True).how == "replaced"
    assert load_task(path).kind == "binary"


def test_init_again_keeps_what_the_user_changed(tmp_path):
    host = tmp_path / "cats"
    cats_and_dogs(host)
    path = initiate(host).written.path
    path.write_text(path.read_text().replace("metric: accuracy", "metric: f1"))
    again = initiate(host)
    assert [difference.row() for difference in again.written.differences] == [["metric", "f1", "accuracy"]]
    assert load_task(path).metric.name == "f1"
    assert concluded(host, overwrite=True).metric.name == "accuracy"


def test_the_command_prints_what_was_concluded_and_why(tmp_path, capsys):
    host = tmp_path / "cats"
    cats_and_dogs(host, sample=0)
    table(host / "train.csv", "id,label", [(name, n % 2) for n, name in enumerate(ids("a", 24))])
    with pytest.raises(SystemExit) as end:
        main(["init", str(host), "--root", str(tmp_path / "work"), "--name", "pets", "target=label"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "two classes, 0 and 1" in printed
    assert "equally likely: submission.format = label" in printed
    assert "written" in printed
    path = tmp_path / "work/configs/pets/task.yaml"
    path.write_text(path.read_text().replace("metric: accuracy", "metric: f1"))
    with pytest.raises(SystemExit):
        main(["init", str(host), "--root", str(tmp_path / "work"), "--name", "pets"])
    assert "says otherwise, and was kept" in capsys.readouterr().out


def test_the_command_says_what_is_wrong_in_one_message(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["init", str(tmp_path / "nothing"), "--root", str(tmp_path / "work")])
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("podium: ")
    assert not (tmp_path / "work").exists()
