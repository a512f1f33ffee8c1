"""What `pipeline.stages.infer.archives` promises: unpacked whole or not at all, and never outside of its folder."""

from __future__ import annotations

import io
import os
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import py7zr
import pytest

from pipeline.base.errors import DataError
from pipeline.stages.infer import archives
from pipeline.stages.infer.archives import archive_stem, is_archive, members, unpack

FILES = {"a.png": b"one" * 100, "deep/b c.png": b"two", "deep/empty.txt": b"", "labels.csv": b"id,label\n"}
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z")


def silent(_: str) -> None:
    pass


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
    elif path.name.endswith(".7z"):
        with py7zr.SevenZipFile(path, "w") as file:
            for name, content in files.items():
                file.writestr(content, name)
    else:
        kind = path.name.rpartition(".")[2].removeprefix("t") if ".tar" not in path.name else path.suffix[1:]
        with tarfile.open(path, "w" if kind == "tar" else f"w:{kind}") as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_unpacks_to_what_was_packed(tmp_path: Path, suffix: str) -> None:
    archive, lines = pack(tmp_path / f"train{suffix}", FILES), []
    before = archive.read_bytes()
    folder = unpack(archive, tmp_path / "out", lines.append)
    assert folder == tmp_path / "out" / "train"
    assert tree(folder) == FILES
    assert {member.name: member.size for member in members(archive)} == {n: len(c) for n, c in FILES.items()}
    assert lines == [f"unpacking train{suffix}: 4 files, 1 kB"]
    assert archive.read_bytes() == before


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".7z"])
@pytest.mark.parametrize("top", ["train", "Train"])
def test_a_folder_of_the_archives_own_name_is_not_made_twice(tmp_path: Path, suffix: str, top: str) -> None:
    archive = pack(tmp_path / f"train{suffix}", {f"{top}/{name}": content for name, content in FILES.items()})
    assert tree(unpack(archive, tmp_path / "out", silent)) == FILES
    assert {member.name for member in members(archive)} == set(FILES)


def test_a_folder_of_another_name_or_beside_others_stays(tmp_path: Path) -> None:
    other = pack(tmp_path / "train.zip", {"images/a.png": b"a"})
    assert tree(unpack(other, tmp_path / "out", silent)) == {"images/a.png": b"a"}
    mixed = pack(tmp_path / "test.zip", {"test/a.png": b"a", "b.png": b"b"})
    assert tree(unpack(mixed, tmp_path / "out", silent)) == {"test/a.png": b"a", "b.png": b"b"}


def test_junk_is_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/train/._a.png": b"x", "train/.DS_Store": b"x", "train/Thumbs.db": b"x", "train/._a.png": b"x"}
    archive = pack(tmp_path / "train.zip", {"train/a.png": b"a", **junk})
    assert tree(unpack(archive, tmp_path / "out", silent)) == {"a.png": b"a"}
    assert [member.name for member in members(archive)] == ["a.png"]


def test_archives_inside_are_unpacked_once_and_packed_tables_are_left(tmp_path: Path) -> None:
    innermost = pack(tmp_path / "most.zip", {"x.png": b"x"}).read_bytes()
    inner = pack(tmp_path / "images.tar.gz", {"images/a.png": b"a", "more.zip": innermost}).read_bytes()
    table = pack(tmp_path / "t.zip", {"labels.csv": b"id\n"}).read_bytes()
    archive = pack(tmp_path / "all.zip", {"all/images.tar.gz": inner, "all/labels.csv.zip": table})
    assert tree(unpack(archive, tmp_path / "out", silent)) == {
        "images/images/a.png": b"a",
        "images/more.zip": innermost,
        "labels.csv.zip": table,
    }


def test_an_archive_inside_gives_way_to_the_folder_beside_it(tmp_path: Path) -> None:
    inner = pack(tmp_path / "train.zip", {"a.png": b"old"}).read_bytes()
    archive, lines = pack(tmp_path / "all.zip", {"train.zip": inner, "train/a.png": b"new"}), []
    assert tree(unpack(archive, tmp_path / "out", lines.append)) == {"train.zip": inner, "train/a.png": b"new"}
    assert lines[-1] == "all.zip: holds train.zip beside a folder of that name; only the folder is used"


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "c:evil", "..\\evil", "\\evil", "a/.."]
)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_no_member_leaves_the_folder(tmp_path: Path, name: str, suffix: str) -> None:
    archive = pack(tmp_path / f"train{suffix}", {"fine.png": b"x", name: b"evil"})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"would lie outside of the folder it is unpacked to"):
        unpack(archive, tmp_path / "out" / "deep", silent)
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"out", "deep", ".train.lock"}
    with pytest.raises(DataError, match="would lie outside"):
        members(archive)


def test_a_7z_member_that_leaves_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "train.7z", {"a.png": b"x"})
    listed = SimpleNamespace(
        filename="../a.png", uncompressed=1, is_directory=False, is_symlink=False, is_file=True
    )  # py7zr writes no such archive
    monkeypatch.setattr(py7zr.SevenZipFile, "list", lambda _: [listed])
    with pytest.raises(DataError, match=r"'\.\./a\.png' would lie outside"):
        unpack(archive, tmp_path / "out", silent)


def link_in_zip(path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc/passwd")


def member_in_tar(kind: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        with tarfile.open(path, "w") as file:
            file.addfile(info)

    return write


def link_in_7z(path: Path) -> None:
    target = path.with_name("target")
    target.symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(path, "w") as file:
        file.write(target, "link")


@pytest.mark.parametrize(
    ("name", "write", "found"),
    [
        ("a.zip", link_in_zip, "a link"),
        ("a.tar", member_in_tar(tarfile.SYMTYPE), "a link"),
        ("a.tar", member_in_tar(tarfile.LNKTYPE), "a link"),
        ("a.tar", member_in_tar(tarfile.FIFOTYPE), "a device or a pipe"),
        ("a.tar", member_in_tar(tarfile.CHRTYPE), "a device or a pipe"),
        ("a.7z", link_in_7z, "a link"),
    ],
)
def test_links_and_devices_are_refused_by_name(
    tmp_path: Path, name: str, write: Callable[[Path], None], found: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: 'link' is {found}, which is not unpacked"):
        unpack(tmp_path / name, tmp_path / "out", silent)


def test_encrypted_archives_are_refused_by_name(tmp_path: Path) -> None:
    content = bytearray(pack(tmp_path / "a.zip", {"a.png": b"x"}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: 'a\.png' is encrypted; unpack it yourself with its password"):
        unpack(tmp_path / "a.zip", tmp_path / "out", silent)
    for name, hides_names in (("a.7z", False), ("b.7z", True)):
        with py7zr.SevenZipFile(tmp_path / name, "w", password="x", header_encryption=hides_names) as file:
            file.writestr(b"x", "a.png")
        with pytest.raises(DataError, match="is encrypted; unpack it yourself with its password"):
            unpack(tmp_path / name, tmp_path / "out", silent)


def test_what_would_not_fit_on_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.zip", {"a.npy": b"x" * 5000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4000))
    with pytest.raises(DataError, match=r"a\.zip: unpacks to 5 kB, and 4 kB are free"):
        unpack(archive, tmp_path / "out", silent)
    assert tree(tmp_path / "out") == {".a.lock": b""}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".7z"])
def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    archive = pack(tmp_path / f"a{suffix}", {"a.npy": bytes(3_000_000)})
    assert tree(unpack(archive, tmp_path / "fine", silent)) == {"a.npy": bytes(3_000_000)}  # small ones do no harm
    monkeypatch.setattr(archives, "ALWAYS_FINE_BYTES", 1_000_000)
    with pytest.raises(DataError, match="over 200 times as much, as bombs do; it is not unpacked"):
        unpack(archive, tmp_path / "out", silent)
    monkeypatch.setattr(archives, "MAX_BYTES", 2_000_000)
    with pytest.raises(DataError, match=r"holds more than 2\.0 MB, which no competition has"):
        members(archive)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="holds 4 members, which no competition has"):
        members(pack(tmp_path / "a.zip", FILES))


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".7z"])
def test_bytes_are_counted_whatever_the_archive_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    archive = pack(tmp_path / f"a{suffix}", {"a.npy": b"x" * 5000})
    honest = archives.archive_at

    def lying(path: Path) -> object:
        opened = honest(path)
        entries = [archives.Entry(entry.name, 100) for entry in opened.entries()]
        return SimpleNamespace(entries=lambda: iter(entries), copy=opened.copy)

    monkeypatch.setattr(archives, "archive_at", lying)
    with pytest.raises(DataError, match=r"holds more than it states \(1 kB\); it is not unpacked"):
        unpack(archive, tmp_path / "out", silent)
    assert tree(tmp_path / "out") == {".a.lock": b""}


def test_a_zip_whose_tables_lie_about_a_size_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.npy": bytes(5000)})
    content = bytearray(archive.read_bytes())
    for start in (22, content.index(b"PK\x01\x02") + 24):
        content[start : start + 4] = struct.pack("<I", 10)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: is damaged or not whole"):
        unpack(archive, tmp_path / "out", silent)
    assert tree(tmp_path / "out") == {".a.lock": b""}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_that_is_cut_short_is_an_error_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    archive = pack(tmp_path / f"a{suffix}", {f"{n}.bin": os.urandom(3000) for n in range(5)})
    archive.write_bytes(archive.read_bytes()[:7000])
    with pytest.raises(DataError, match=rf"a{suffix}: is damaged or not whole"):
        unpack(archive, tmp_path / "out", silent)
    assert tree(tmp_path / "out") == {".a.lock": b""}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z"])
def test_a_flipped_byte_is_an_error(tmp_path: Path, suffix: str) -> None:
    archive = pack(tmp_path / f"a{suffix}", {"a.bin": os.urandom(3000)})
    content = bytearray(archive.read_bytes())
    content[1500] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or not whole"):
        unpack(archive, tmp_path / "out", silent)


def test_what_is_no_archive_or_missing_or_empty_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"a\.zip: is damaged or not whole"):
        unpack(tmp_path / "a.zip", tmp_path / "out", silent)
    with pytest.raises(DataError, match=r"b\.zip: cannot be opened"):
        unpack(tmp_path / "b.zip", tmp_path / "out", silent)
    with pytest.raises(DataError, match=r"c\.zip: holds no files"):
        unpack(pack(tmp_path / "c.zip", {}), tmp_path / "out", silent)
    (tmp_path / "d.rar").touch()
    with pytest.raises(DataError, match=r"d\.rar: is no archive that is known; these are: \.zip, \.tar"):
        unpack(tmp_path / "d.rar", tmp_path / "out", silent)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("x.png", "./x.png"):
            file.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"a\.tar: holds '\./x\.png' twice"):
        unpack(tmp_path / "a.tar", tmp_path / "out", silent)


def test_a_second_call_unpacks_nothing_until_the_archive_changes(tmp_path: Path) -> None:
    archive, lines = pack(tmp_path / "a.zip", {"a.png": b"old", "b.png": b"b"}), []
    folder = unpack(archive, tmp_path / "out", lines.append)
    (folder / "mine.txt").write_text("kept as long as the archive stays")
    assert unpack(archive, tmp_path / "out", lines.append) == folder
    assert (folder / "mine.txt").exists()
    assert len(lines) == 1
    pack(archive, {"a.png": b"new!"})
    assert tree(unpack(archive, tmp_path / "out", lines.append)) == {"a.png": b"new!"}
    assert len(lines) == 2


def test_what_a_killed_process_left_is_not_taken_for_whole(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.png": b"a"})
    leftover = tmp_path / "out" / "a.unpacking-1"
    unmarked = tmp_path / "out" / "a"
    for folder in (leftover, unmarked):
        folder.mkdir(parents=True)
        (folder / "half.png").touch()
    assert tree(unpack(archive, tmp_path / "out", silent)) == {"a.png": b"a"}
    assert not leftover.exists()


def test_a_missing_py7zr_is_an_error_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.7z", {"a.png": b"a"})
    monkeypatch.setitem(sys.modules, "py7zr", None)
    with pytest.raises(DataError, match=r"a\.7z: .* pip install 'podium\[archives\]'"):
        unpack(archive, tmp_path / "out", silent)


@pytest.mark.parametrize(
    ("name", "expected", "stem"),
    [
        ("train.zip", True, "train"),
        ("Train.TAR.GZ", True, "Train"),
        ("a.b.7z", True, "a.b"),
        ("train.json.7z", True, "train.json"),
        ("train.csv.zip", False, "train.csv"),
        ("labels.json.zip", False, "labels.json"),
        ("train.csv.gz", False, "train.csv.gz"),
        ("a.npz", False, "a.npz"),
    ],
)
def test_archives_are_known_by_their_names(name: str, expected: bool, stem: str) -> None:
    assert is_archive(Path(name)) is expected
    assert archive_stem(Path(name)) == stem
