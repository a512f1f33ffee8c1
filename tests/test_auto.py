"""`podium auto`: the files of a competition to a checked submission, on toy competitions and without much training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_competitions import Layout, make, pairwise

from pipeline import api
from pipeline.__main__ import main
from pipeline.base.errors import PodiumError
from pipeline.base.files import read_json
from pipeline.records.config import load_config, load_task
from pipeline.stages import fitting

CHOSEN = pairwise()[::9]
"""A dozen or so of the layouts that `test_init_layouts` goes through, as far apart as they lie."""


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try few steps and train few epochs; everything else is as users have it."""
    monkeypatch.setattr(fitting, "_PROBE_SEC", 0.05)
    monkeypatch.setattr(fitting, "MOST", 0.05)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("layout", CHOSEN, ids=lambda layout: layout.title)
def test_files_become_a_valid_submission(tmp_path: Path, layout: Layout) -> None:
    expected = make(layout, tmp_path / "toy", 0)
    made = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert made.partial is None
    if made.submission.suffix == ".npy":
        assert np.isfinite(np.load(made.submission)).all()
        return
    table = pd.read_csv(made.submission, dtype=str, keep_default_na=False)
    values = [name for name in table.columns[1:] if not name.startswith("Unnamed")]
    assert (table[values] != "").all(axis=None)
    if expected.has_sample:
        assert table.columns[0] == expected.id_column or expected.id_column.startswith("Unnamed")
        assert tuple(values) == expected.columns
        assert table.iloc[:, 0].tolist() == list(expected.test)
    else:
        assert len(table) == len(expected.test)


@pytest.mark.usefixtures("hurried")
def test_what_was_begun_goes_on_and_a_new_one_is_fitted_only_when_asked(tmp_path: Path, capsys: Any) -> None:
    folder, root = tmp_path / "toy", tmp_path / "work"
    make(Layout(), folder, 0)
    arguments = ["auto", str(folder), "--minutes", "5", "--jobs", "1", "--show", "quiet", "--root", str(root)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"wrote {root}/submissions/toy/auto.csv in 0." in out
    units = {path: path.stat().st_mtime_ns for path in root.glob("runs/toy/auto/units/*/done.json")}
    assert len(units) == 5
    made = api.auto(folder, minutes=5, jobs=1, show="quiet", root=root)
    assert {path: path.stat().st_mtime_ns for path in root.glob("runs/toy/auto/units/*/done.json")} == units
    assert made.config.name == "auto.yaml"
    anew = api.auto(folder, minutes=5, jobs=1, show="quiet", again=True, root=root)
    assert (anew.config.name, anew.run.name, anew.submission.name) == ("auto-2.yaml", "auto-2", "auto-2.csv")
    assert {path: path.stat().st_mtime_ns for path in root.glob("runs/toy/auto/units/*/done.json")} == units


@pytest.mark.usefixtures("hurried")
def test_the_experiment_that_was_trained_is_one_that_other_commands_take(tmp_path: Path) -> None:
    make(Layout(), tmp_path / "toy", 0)
    made = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    text = made.config.read_text()
    assert text.startswith("# Fitted by `podium auto` to 5 minutes on cpu, ")
    assert "base: baseline.yaml" in text
    baseline, trained = load_config(made.initiated.baseline).experiment, load_config(made.config).experiment
    assert trained.train.epochs == round(0.05 * baseline.train.epochs)
    assert trained.model == baseline.model
    again = api.train(made.config, ["train.epochs=1"], name="mine", jobs=1, show="quiet", root=tmp_path / "work")
    assert len(again.done_units()) == 5
    lines = read_json(made.submission.with_suffix(".json"))
    assert lines["runs"] == ["auto"]


@pytest.mark.usefixtures("hurried")
def test_too_little_time_is_said_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(Layout(), tmp_path / "toy", 0)
    monkeypatch.setattr(fitting, "CLOSING_SEC", 300)  # so that nothing is left, however quick the machine is
    with pytest.raises(PodiumError, match=r"one fold of one epoch takes about .* give --minutes more"):
        api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert not list(tmp_path.glob("work/runs/toy/*"))
    assert load_task(tmp_path / "work/configs/toy/task.yaml").name == "toy"


def test_without_a_test_set_nothing_is_trained(tmp_path: Path) -> None:
    make(Layout(), tmp_path / "toy", 0)
    with pytest.raises(PodiumError, match=r"task\.yaml: has no test set, so there is nothing to submit"):
        api.auto(tmp_path / "toy", ["test=off"], minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert not list(tmp_path.glob("work/runs/*"))


@pytest.mark.usefixtures("hurried")
def test_grades_that_oof_shows_to_be_classes_are_submitted_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(kind="ordinal")
    make(layout, tmp_path / "toy", 0)
    graded = api.init(tmp_path / "toy", root=tmp_path / "first")
    assert graded.conclusion.task.kind == "ordinal"
    finding = graded.findings.of("kind")
    assert finding is not None
    assert finding.sure != "certain"
    monkeypatch.setattr("pipeline.auto.are_grades", lambda _workspace, _run: False)
    made = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    text = (tmp_path / "work/configs/toy/task.yaml").read_text()
    assert "kind: multiclass" in text
    assert "out of fold, rows are not mostly taken for the grades beside their own (likely)" in " ".join(
        text.replace("#", " ").split()
    )
    assert (made.run.task.kind, made.submitted.task.kind) == ("multiclass", "multiclass")
    assert made.scores()["metric"] == made.submitted.task.metric.name != "quadratic_kappa"


@pytest.mark.usefixtures("hurried")
def test_a_task_that_was_there_before_is_not_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make(Layout(kind="ordinal"), tmp_path / "toy", 0)
    path = api.init(tmp_path / "toy", root=tmp_path / "work").written.path
    text = path.read_text()
    monkeypatch.setattr("pipeline.auto.are_grades", lambda _workspace, _run: False)
    made = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert path.read_text() == text
    assert made.submitted.task.kind == "ordinal"
    assert "they may be classes (kind: multiclass in" in capsys.readouterr().err


@pytest.mark.usefixtures("hurried")
def test_when_the_time_ends_early_finished_folds_predict_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Layout(), tmp_path / "toy", 0)
    train, began = api.train, []

    def interrupted(path: Path, **words: Any) -> Any:
        began.append(words["minutes"])
        return train(path, folds=[0, 1], **words)

    monkeypatch.setattr(api, "train", interrupted)
    made = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert made.partial == "2 of 5 folds"
    assert read_json(made.submission.with_suffix(".json"))["partial"] == "2 of 5 folds"
    assert 0 < began[0] < 5
    monkeypatch.setattr(api, "train", train)
    whole = api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
    assert whole.partial is None
    assert whole.submission == made.submission


@pytest.mark.usefixtures("hurried")
def test_when_not_one_fold_is_finished_what_was_trained_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Layout(), tmp_path / "toy", 0)
    train = api.train
    monkeypatch.setattr(api, "train", lambda path, **words: train(path, folds=[], **words))
    with pytest.raises(PodiumError, match=r"5 minutes ended before the first fold did.* --minutes more.*podium train"):
        api.auto(tmp_path / "toy", minutes=5, jobs=1, show="quiet", root=tmp_path / "work")
