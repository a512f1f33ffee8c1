import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.base import files
from pipeline.base.errors import (
    ConfigError,
    DataError,
    LeakError,
    MismatchError,
    PodiumError,
    StopRequestedError,
    listed,
    nearest,
)
from pipeline.base.files import (
    TEMP_MARK,
    atomic_path,
    hash_json,
    read_json,
    remove_leftovers,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# -- whole or absent ---------------------------------------------------------------------------------------------------


def test_a_written_file_is_whole_and_alone_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "deep" / "table.csv"
    write_bytes(path, b"id\n1\n")
    write_bytes(path, b"id\n2\n")
    assert path.read_bytes() == b"id\n2\n"
    assert names_in(path.parent) == ["table.csv"]


def test_text_keeps_its_line_ends_and_is_utf_8(tmp_path):
    write_text(tmp_path / "t.txt", "ü\r\n\n")
    assert (tmp_path / "t.txt").read_bytes() == b"\xc3\xbc\r\n\n"


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def write_half():
        with atomic_path(path) as temp:
            temp.write_bytes(b"ne")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["weights.bin"]


def test_a_target_that_cannot_be_replaced_is_an_error_that_leaves_nothing(tmp_path):
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_bytes(path, b"new")
    assert names_in(tmp_path) == ["taken"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.bin"):
        pass
    assert names_in(tmp_path) == []


def test_the_temporary_file_keeps_the_suffix_by_which_libraries_choose_a_format(tmp_path):
    with atomic_path(tmp_path / "picture.tar.png") as temp:
        assert temp.suffix == ".png"
        assert temp.parent == tmp_path
        temp.write_bytes(b"x")


def test_file_then_rename_then_folder_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.bin", []
    monkeypatch.setattr(files, "_flush", lambda flushed: steps.append((flushed.name, path.exists())))
    write_bytes(path, b"1")
    assert [(TEMP_MARK in name, exists) for name, exists in steps] == [(True, False), (False, True)]
    assert steps[1][0] == tmp_path.name


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.base.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temp:
    with temp.open("wb") as file:
        file.write(b"n" * 100_000)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_is_swept(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ended.returncode == -9
    assert path.read_bytes() == b"old"
    assert len(names_in(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == ["last.ckpt"]


def test_sweeping_takes_nothing_but_leftovers(tmp_path):
    keep = ["part.csv", "a.part", "b.json", ".lock"]
    for name in [*keep, f"a{TEMP_MARK}12.json"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == sorted(keep)


# -- JSON and hashes ---------------------------------------------------------------------------------------------------


def test_json_comes_back_equal_and_takes_numpy_scalars_and_paths(tmp_path):
    path = tmp_path / "a.json"
    content = {"b": [1, 2.5, None, True, "ü"], "a": {"x": np.float32(0.5), "n": np.int64(3), "p": Path("runs") / "a"}}
    write_json(path, content)
    assert read_json(path) == {"b": [1, 2.5, None, True, "ü"], "a": {"x": 0.5, "n": 3, "p": "runs/a"}}
    assert path.read_text().endswith("}\n")


def test_a_damaged_json_is_named_and_can_be_caught_as_a_value_error(tmp_path):
    (tmp_path / "run.json").write_bytes(b'{"a": 1')
    with pytest.raises(DataError, match=r"run\.json: is damaged, or no JSON: Expecting") as caught:
        read_json(tmp_path / "run.json")
    assert isinstance(caught.value, ValueError)
    (tmp_path / "run.json").write_bytes(b"\xff\x00\x81")
    with pytest.raises(DataError, match=r"run\.json: is damaged"):
        read_json(tmp_path / "run.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": float("inf")}, {"a": {1, 2}}])
def test_what_json_cannot_hold_is_an_error_and_no_file(tmp_path, content):
    with pytest.raises((ValueError, TypeError), match="JSON"):
        write_json(tmp_path / "a.json", content)
    assert names_in(tmp_path) == []


def test_a_hash_of_json_is_that_of_its_content_not_of_its_order():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": np.int64(1)})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})
    assert hash_json([1, 2]) != hash_json([2, 1])


def test_a_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# -- errors ------------------------------------------------------------------------------------------------------------


def test_every_error_of_a_user_is_a_podium_error_with_its_exit_code():
    for kind in (ConfigError, DataError, MismatchError, LeakError):
        assert issubclass(kind, PodiumError)
        assert kind("x").exit_code == 1
    assert StopRequestedError("x").exit_code == 75 == os.EX_TEMPFAIL


def test_the_nearest_word_is_proposed_only_when_it_is_near():
    assert nearest("epoch", ["batch_size", "epochs"]) == " Did you mean 'epochs'?"
    assert nearest("zzz", ["batch_size", "epochs"]) == ""
    assert nearest("a", []) == ""
    assert nearest("ID", ["id", "label"]) == " Did you mean 'id'?"


def test_long_lists_are_cut_and_counted():
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(30), 2) == "0, 1, ... (28 more)"
    assert listed([]) == ""


def test_written_json_is_valid_for_others(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1]}
