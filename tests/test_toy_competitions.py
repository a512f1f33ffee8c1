"""The generator of competitions: which layouts it makes, and that what it writes is what it expects to be found."""

from __future__ import annotations

import random
import tarfile
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import py7zr
import pytest
from toy_broken import BROKEN
from toy_competitions import make, pairwise
from toy_layouts import AXES, DETAILS, RULES, STRUCTURE, Layout, why_not
from toy_pairs import complete, pairs_of, wanted_pairs

USUAL = Layout()


def test_the_usual_layout_has_the_first_value_of_each_axis() -> None:
    assert asdict(USUAL) == {axis: values[0] for axis, values in AXES.items()}
    assert not why_not(USUAL)


def test_every_sensible_pair_of_structure_and_every_detail_occurs() -> None:
    found = set().union(*(pairs_of(asdict(layout)) for layout in pairwise()))
    found |= {(item, item) for layout in pairwise() for item in asdict(layout).items()}
    missing = wanted_pairs() - found
    assert [pair for pair in missing if complete(dict(pair)) is not None] == []
    assert len(missing) < len(wanted_pairs()) / 2, "most pairs are sensible"


def test_pairs_called_senseless_are_in_none_of_many_random_layouts() -> None:
    """A slow reference beside the search: values drawn at random, and mended one at a time where a rule is broken."""
    rng = random.Random(1)
    impossible = {pair for pair in wanted_pairs() if complete(dict(pair)) is None}
    seen, n_whole = set(), 0
    for _ in range(600):
        values = {axis: rng.choice(choices) for axis, choices in AXES.items()}
        for _ in range(400):
            broken = [
                rule for rule in RULES if values[rule.axis] in rule.values and values[rule.other] not in rule.allowed
            ]
            if not broken:
                seen |= pairs_of(values)
                n_whole += 1
                break
            rule = rng.choice(broken)
            if rng.random() < 0.5:
                values[rule.other] = rng.choice(sorted(rule.allowed))
            else:
                values[rule.axis] = rng.choice(sorted(set(AXES[rule.axis]) - rule.values) or [values[rule.axis]])
    assert n_whole > 50
    assert impossible & seen == set()


def test_no_value_of_an_axis_is_impossible() -> None:
    assert [f"{axis}={value}" for axis, values in AXES.items() for value in values if not complete({axis: value})] == []


def test_all_layouts_are_sensible_and_different() -> None:
    assert [why_not(layout) for layout in pairwise() if why_not(layout)] == []
    assert len(set(pairwise())) == len(pairwise()) < 140
    assert set(STRUCTURE).isdisjoint(DETAILS)


def test_what_makes_no_sense_is_refused_with_the_reason(tmp_path: Path) -> None:
    reasons = why_not(replace(USUAL, items="pixels", archive="root"))
    assert len(reasons) == 1
    assert "packs files" in reasons[0]
    with pytest.raises(AssertionError, match="packs files"):
        make(replace(USUAL, items="pixels", archive="root"), tmp_path)


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    layout = replace(USUAL, file="mixed", group="patient", decoy="noise", sizes="mixed")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(layout, tmp_path / name, seed)
    contents = [_contents(tmp_path / name) for name in "abc"]
    assert contents[0] == contents[1]
    assert contents[0].keys() != contents[2].keys()


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("number", range(0, len(pairwise()), 6))
def test_every_expected_file_is_there(tmp_path: Path, number: int) -> None:
    layout = pairwise()[number]
    expected = make(layout, tmp_path, number)
    there = set(_contents(tmp_path)) | _members(tmp_path, layout)
    named = [name for files, _ in expected.train for name in files]
    named += [name for files in expected.test.values() for name in files]
    assert set(named) <= there
    assert len(expected.train) == 36
    assert len(expected.test) == (6 if layout.per_row == "rows" else 12)
    assert expected.answers.keys() == expected.test.keys()
    assert bool(named) == (layout.items == "files")


def _members(folder: Path, layout: Layout) -> set[str]:
    """Return what lies in archives, as if each were unpacked into a folder of its name."""
    found = set()
    for archive in folder.iterdir():
        stem = archive.name.removesuffix(f".{layout.packer}")
        found |= {f"{stem}/{name}" if layout.archive == "root" else name for name in _names(archive)}
    return found


def _names(archive: Path) -> list[str]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as content:
            return content.namelist()
    if archive.suffix == ".7z":
        with py7zr.SevenZipFile(archive) as content:
            return list(content.getnames())
    if ".tar" in archive.name:
        with tarfile.open(archive) as content:
            return content.getnames()
    return []


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ("stem", "{id}.png"),
        ("suffix", "{id}"),
        ("integer", "{id}.png"),
        ("padded", "{id}.png"),
        ("padded_files", "{id:0>5}.png"),
        ("dots", "{id}.png"),
    ],
)
def test_ids_name_their_files(tmp_path: Path, ids: str, name: str) -> None:
    expected = make(replace(USUAL, ids=ids), tmp_path)
    table = pd.read_csv(tmp_path / "train.csv", dtype=str)
    named = [f"train/{name.format(id=cell)}" for cell in table.iloc[:, 0]]
    assert named == [file for (file,), _ in expected.train]
    assert {path.name for path in (tmp_path / "train").iterdir()} == {Path(one).name for one in named}
    assert (table.iloc[:, 0].str[0] == "0").any() == (ids in ("padded", "stem", "suffix"))
    assert table.iloc[:, 0].str.contains(".", regex=False).all() == (ids in ("suffix", "dots"))


def test_pictures_show_their_class(tmp_path: Path) -> None:
    """The brightest block is that of the class, so the competitions can be learned."""
    from PIL import Image

    expected = make(replace(USUAL, depth="grey"), tmp_path)
    brightest: dict[str, set[int]] = {}
    for (name,), label in expected.train:
        pixels = np.asarray(Image.open(tmp_path / name), float)
        blocks = pixels.reshape(2, 6, 2, 6).mean(axis=(1, 3)).ravel()
        brightest.setdefault(str(label), set()).add(int(blocks.argmax()))
    assert sorted(brightest) == ["ant", "bee", "red fox", "yak"]
    assert sorted(map(tuple, brightest.values())) == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("counts", "n_rows"), [("even", [9, 9, 9, 9]), ("lonely", [1, 11, 12, 12]), ("uneven", [1, 2, 2, 31])]
)
def test_counts_of_classes(tmp_path: Path, counts: str, n_rows: list[int]) -> None:
    make(replace(USUAL, counts=counts), tmp_path)
    assert sorted(pd.read_csv(tmp_path / "train.csv")["label"].value_counts()) == n_rows


def test_patients_are_new_in_the_test_set_and_cross_classes(tmp_path: Path) -> None:
    make(replace(USUAL, group="patient"), tmp_path)
    train, test = (pd.read_csv(tmp_path / name) for name in ("train.csv", "test.csv"))
    assert not set(train["patient_id"]) & set(test["patient_id"])
    assert (train.groupby("patient_id")["label"].nunique() > 1).mean() > 0.5
    make(replace(USUAL, group="fixing"), tmp_path / "fixing")
    assert (pd.read_csv(tmp_path / "fixing/train.csv").groupby("chain")["label"].nunique() == 1).all()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_competition_is_whole_but_for_its_fault(tmp_path: Path, broken: object) -> None:
    broken.spoil(tmp_path)  # type: ignore[attr-defined]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == set() or {"train.csv", "test.csv", "sample_submission.csv"} <= names
