"""`podium study`: points of a grid and of a list, trained once, scored alike, compared in pairs, laid out on a page."""

from __future__ import annotations

import csv
import os
import re
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from toys import make_toy

from pipeline import api
from pipeline.base.errors import ConfigError, DivergedError, MismatchError, StopRequestedError
from pipeline.data.tables import load_train
from pipeline.records.cv import metric_of, score_predictions
from pipeline.records.predictions import load_predictions, mean_predictions
from pipeline.records.runs import Run
from pipeline.records.study import load_study, points_of
from pipeline.stages import crossval
from pipeline.stages.report.page import Section, Table, markdown_table, write_page
from pipeline.stages.report.pictures import moving_average, shown_range
from pipeline.stages.study import page as study_page
from pipeline.stages.study import points as study_points
from pipeline.stages.study.results import confusion, gain_over
from pipeline.training import unit as training_unit

GRID: dict[str, Any] = {
    "base": "net.yaml",
    "grid": {"model.activation": ["relu", "tanh"], "optimizer.lr": {"slow": 1e-3, "fast": 0.05}},
    "seeds": [0, 1],
    "folds": [0],
}
CHAIN: dict[str, Any] = {
    "base": "net.yaml",
    "list": {
        "plain": {},
        "wide": {"model.hidden": 24},
        "smooth": {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}},
        "taught": {"study": {"teacher": "smooth", "threshold": 0.3}},
        "both": {"study": {"mean_of": ["wide", "smooth"], "after": "wide"}},
    },
    "chain": True,
    "seeds": [0, 1],
    "folds": [0],
    "reported": {"plain": 0.5},
}


def write_study(folder: Path, content: dict[str, Any], name: str = "s") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def study(root: Path, path: Path, draw: bool = False, **more: Any) -> Any:
    """Run a study in this process; its pictures, and those of its runs, only where a test looks at them."""
    with ExitStack() as stack:
        for module, name in ((training_unit, "plot_history"), (crossval, "plot_history"), (os, "fsync")):
            stack.enter_context(mock.patch.object(module, name))
        for name in () if draw else ("_scores", "_curves", "_layers", "_confusions"):
            stack.enter_context(mock.patch.object(study_page, name, return_value=[]))
        return api.study(path, root=root, device="cpu", **({"jobs": 1, "threads": 1} | more))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A workspace whose experiment keeps a quarter of the rows apart, and the folder of its configs."""
    root = tmp_path_factory.mktemp("workspace")
    net = {"folds": {"n_folds": 3, "holdout_frac": 0.25}, "train": {"epochs": 2, "batch_size": 16}}
    return root, make_toy(root, n_train=60, n_test=12, net=net).parent


@pytest.fixture(scope="module")
def grid(workspace: tuple[Path, Path]) -> Any:
    root, folder = workspace
    content = {**GRID, "layer_statistics": True, "moving_average": 2, "confusion": "all"}
    return study(root, write_study(folder, content, "grid"), draw=True)


@pytest.fixture(scope="module")
def chain(workspace: tuple[Path, Path]) -> Any:
    root, folder = workspace
    return study(root, write_study(folder, CHAIN, "chain"))


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_and_a_list_by_a_grid_too(tmp_path: Path) -> None:
    points = points_of(load_study(write_study(tmp_path, GRID)))
    assert [point.label for point in points] == ["relu, slow", "relu, fast", "tanh, slow", "tanh, fast"]
    assert points[1].overrides == ('model.activation="relu"', "optimizer.lr=0.05")
    assert points[1].axes == {"model.activation": "relu", "optimizer.lr": "fast"}
    both = {"base": "net.yaml", "list": {"a": {}, "b": {"ema": False}}, "grid": {"train.epochs": [1, 2]}}
    points = points_of(load_study(write_study(tmp_path, both)))
    assert [point.label for point in points] == ["a, 1", "a, 2", "b, 1", "b, 2"]
    assert points[2].overrides == ("ema=false", "train.epochs=1")


def test_a_chain_takes_over_what_came_before_and_is_compared_with_it(tmp_path: Path) -> None:
    points = {point.label: point for point in points_of(load_study(write_study(tmp_path, CHAIN)))}
    assert points["smooth"].overrides == (
        "model.hidden=24",
        'loss={"name": "cross_entropy", "label_smoothing": 0.1}',
    )
    assert [points[name].spec.after for name in points] == [None, "plain", "wide", "smooth", "wide"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": "n.yaml", "gird": {}}, r"s\.yaml: gird: unknown key\. Did you mean 'grid'\?"),
        ({"base": "n.yaml"}, "has nothing to train; give grid:, list: or search:"),
        ({"task": "t.yaml", "model": {"name": "mlp"}}, "looks like an experiment; a study names one"),
        ({"base": "n.yaml", "grid": {"optimizer.lr": []}}, r"grid\.optimizer\.lr: has no values"),
        ({"base": "n.yaml", "grid": {"a": [1, 1]}}, "'1' and '1' would be one run"),
        ({"base": "n.yaml", "list": {"a": {}, "b": {"study": {"techer": "a"}}}}, "Did you mean 'teacher'?"),
        ({"base": "n.yaml", "list": {"a": {}, "b": {"study": {"teacher": "aa"}}}}, "there is no 'aa'"),
        ({"base": "n.yaml", "list": {"a": {"study": {"after": "b"}}, "b": {}}}, "of the variants before it"),
        ({"base": "n.yaml", "list": {"a": {}, "m": {"study": {"mean_of": ["a"]}, "ema": 1}}}, "trains nothing"),
        ({"base": "n.yaml", "list": {"plain": {}}, "baseline": "plane"}, "Did you mean 'plain'?"),
        ({"base": "n.yaml", "list": {"plain": {}}, "reported": {"plane": 1.0}}, "Did you mean 'plain'?"),
        ({"base": "n.yaml", "search": {}}, "search: names no key"),
        ({"base": "n.yaml", "search": {"a": "log 1 2"}, "list": {"a": {}}}, "finds its own points"),
    ],
)
def test_a_wrong_study_is_refused_by_name(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write_study(tmp_path, content))


def test_what_is_wrong_with_a_point_is_said_before_anything_trains(workspace: tuple[Path, Path]) -> None:
    root, folder = workspace
    for content, message in (
        ({"base": "net.yaml", "grid": {"optimiser.lr": [1]}}, "point '1'.*Did you mean 'optimizer'"),
        ({"base": "net.yaml", "list": {"a": {}, "b": {"train.epochs": 2}}}, "'a' and 'b' are the same experiment"),
        ({"base": "net.yaml", "list": {"a": {}, "b": {"folds.n_folds": 4}}}, "'b' has other folds"),
    ):
        with pytest.raises(ConfigError, match=message):
            study(root, write_study(folder, content, "wrong"))
    assert not list(root.glob("runs/multiclass/wrong*"))


# -- training and scores -----------------------------------------------------------------------------------------------


def test_every_point_is_an_ordinary_run_and_is_scored_on_the_rows_kept_apart(
    grid: Any, workspace: tuple[Path, Path]
) -> None:
    root, _ = workspace
    run = Run(root / "runs" / "multiclass" / "grid-tanh-fast")
    assert [unit.name for unit in run.done_units()] == ["fold0-seed0", "fold0-seed1"]
    rows = load_train(run.task, root / run.task.data).rows
    metric = metric_of(run.task, rows)
    apart = [load_predictions(run.unit_folder(unit) / "apart.parquet") for unit in run.done_units()]
    heldout = [load_predictions(run.unit_folder(unit) / "heldout.parquet") for unit in run.done_units()]
    assert len(apart[0]) == 15
    table = (root / "folds" / "multiclass" / "stratified3-seed0.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in table if line.endswith(",-2")} == set(apart[0].ids)
    point = next(point for point in grid.result.points if point.label == "tanh, fast")
    assert dict(point.scores) == {seed: score_predictions(apart[seed], rows, metric) for seed in (0, 1)}
    assert point.mean == np.mean(list(point.scores.values()))
    assert point.std == pytest.approx(np.std(list(point.scores.values()), ddof=1), abs=1e-12)
    assert point.heldout == np.mean([score_predictions(part, rows, metric) for part in heldout])


def test_each_gpu_trains_a_unit_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_toy(tmp_path).parent
    asked: list[Any] = []

    def look(job: Any, jobs: Any, n_parallel: int, report: Any, seats: Any) -> None:
        asked.append((len(jobs), n_parallel, seats))
        raise StopRequestedError("seen enough")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(study_points, "run_jobs", look)
    with pytest.raises(StopRequestedError):
        api.study(write_study(folder, GRID), root=tmp_path)
    assert asked == [(8, 3, [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "012"])]


def test_a_finished_point_is_not_trained_again_and_a_changed_one_is_refused(
    grid: Any, workspace: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = workspace
    monkeypatch.setattr(study_points, "run_jobs", lambda *arguments, **options: pytest.fail("something was trained"))
    lines: list[str] = []
    monkeypatch.setattr(api, "say", lines.append)
    again = study(root, folder / "grid.yaml", out=root / "again")
    assert [point.scores for point in again.result.points] == [point.scores for point in grid.result.points]
    points = [line for line in lines if re.match(r"\d/4  ", line)]
    assert len(points) == 4
    assert all("trained before" in line for line in points)
    with pytest.raises(MismatchError, match=r"train\.epochs: 2 -> 3"):
        api.study(folder / "grid.yaml", ["train.epochs=3"], root=root, device="cpu", jobs=1, threads=1)


@pytest.mark.slow
def test_units_in_processes_give_the_scores_of_units_one_by_one(grid: Any, workspace: tuple[Path, Path]) -> None:
    root, folder = workspace
    content = {
        **GRID,
        "grid": {"optimizer.lr": {"slow": 1e-3, "fast": 0.05}},
        "list": {"tanh": {"model.activation": "tanh"}},
    }
    made = study(root, write_study(folder, content, "pool"), jobs=2)
    expected = {point.label: point.scores for point in grid.result.points}
    assert {point.label: point.scores for point in made.result.points} == {
        label: expected[label] for label in ("tanh, slow", "tanh, fast")
    }


def test_a_teacher_labels_for_its_fold_alone_and_the_student_learns_from_it(
    chain: Any, workspace: tuple[Path, Path]
) -> None:
    root, _ = workspace
    student = Run(root / "runs" / "multiclass" / "chain-taught")
    assert student.experiment.pseudo is not None
    labels = root / str(student.experiment.pseudo.labels)
    assert labels == root / "runs/multiclass/chain-smooth/labels/for-chain-taught"
    assert [path.name for path in sorted(labels.glob("fold*.parquet"))] == ["fold0.parquet"]
    assert len(student.done_units()) == 2


def test_a_mean_is_the_mean_of_its_members_seed_by_seed(chain: Any) -> None:
    by_label = {point.label: point for point in chain.result.points}
    mean = by_label["both"]
    assert mean.run is None
    for seed in (0, 1):
        expected = mean_predictions([by_label[name].predictions[seed] for name in ("wide", "smooth")])
        assert np.array_equal(mean.predictions[seed].values, expected.values)
    assert [by_label[name].gain and by_label[name].gain.over for name in by_label] == [
        None,
        "plain",
        "wide",
        "smooth",
        "wide",
    ]


def test_a_difference_takes_seeds_and_rows_as_chance(grid: Any) -> None:
    result = grid.result
    plain, wide = result.points[:2]
    gain = gain_over(wide, plain, result.rows, result.metric)
    assert gain is not None
    differences = np.array([wide.scores[seed] - plain.scores[seed] for seed in (0, 1)])
    assert gain.value == pytest.approx(differences.mean(), abs=1e-12)
    place = {row_id: number for number, row_id in enumerate(result.rows.ids)}

    def hits(point: Any, seed: int) -> np.ndarray:
        part = point.predictions[seed]
        return part.values.argmax(axis=1) == np.asarray(result.rows.targets)[[place[each] for each in part.ids]]

    by_row = np.mean([hits(wide, seed).astype(float) - hits(plain, seed) for seed in (0, 1)], axis=0)
    of_seeds, of_rows = differences.var(ddof=1) / 2, by_row.var(ddof=1) / len(by_row)
    from scipy.stats import t

    total = of_seeds + of_rows
    freedom = total**2 / (of_seeds**2 + of_rows**2 / (len(by_row) - 1))
    assert gain.half_width == pytest.approx(t.ppf(0.975, freedom) * total**0.5, abs=1e-12)
    assert gain_over(plain, wide, result.rows, result.metric).value == -gain.value  # type: ignore[union-attr]


def test_a_point_that_diverges_is_a_finding_and_is_not_trained_again(
    workspace: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = workspace
    content = {"base": "net.yaml", "grid": {"optimizer.lr": {"fair": 0.02, "wild": 1e30}}, "folds": [0]}
    path = write_study(folder, {**content, "seeds": [0]}, "wild")
    made = study(root, path, threads=1)
    fair, wild = made.result.points
    assert (fair.n_diverged, wild.n_diverged) == (0, 1)
    assert wild.mean is None
    assert made.result.best() is fair
    assert "1 of 1" in (made.folder / "table.md").read_text()
    monkeypatch.setattr(study_points, "train_unit_job", lambda *arguments: pytest.fail("it was trained again"))
    assert study(root, path).result.points[1].n_diverged == 1


def test_other_errors_of_a_unit_stop_the_study(workspace: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = workspace

    def fail(*arguments: Any) -> None:
        raise ConfigError("something else")

    monkeypatch.setattr(study_points, "train_unit_job", fail)
    assert not issubclass(ConfigError, DivergedError)
    with pytest.raises(ConfigError, match="something else"):
        study(root, write_study(folder, {"base": "net.yaml", "list": {"x": {}}, "folds": [0]}, "failing"))


def test_without_a_holdout_the_held_out_rows_are_scored_and_all_folds_count(tmp_path: Path) -> None:
    config = make_toy(tmp_path, n_train=45, n_test=10, net={"train": {"epochs": 1, "batch_size": 16}})
    path = write_study(config.parent, {"base": "net.yaml", "list": {"plain": {}}, "seeds": [0]})
    made = study(tmp_path, path)
    assert made.result.scored_on == "the held-out rows of the trained folds (45)"
    cv = yaml.safe_load((tmp_path / "runs/multiclass/s-plain/cv.json").read_text())
    assert made.result.points[0].scores[0] == cv["pooled"]
    counts = confusion(made.result, made.result.points[0])
    assert counts is not None
    assert counts.sum() == 45
    assert np.trace(counts) / 45 == pytest.approx(cv["pooled"])


# -- what is written ---------------------------------------------------------------------------------------------------


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_needs_no_other_file_and_holds_every_picture(grid: Any) -> None:
    page = _Links()
    page.feed((grid.folder / "index.html").read_text())
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(link.startswith("data:image/png;base64,iVBOR") for link in page.links)
    pictures = sorted(path.name for path in grid.folder.glob("*.png"))
    assert len(page.links) == len(pictures)
    assert {"bars.png", "curves.png", "heat.png", "layers-std.png", "layers-gradient-norm.png"} <= set(pictures)
    assert sum(name.startswith("confusion-") for name in pictures) == 4


def test_the_tables_hold_every_seed_every_epoch_and_every_layer(grid: Any) -> None:
    with (grid.folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["point"] for line in table] == ["relu, slow", "relu, fast", "tanh, slow", "tanh, fast"]
    for line, point in zip(table, grid.result.points, strict=True):
        assert [float(line["seed0"]), float(line["seed1"])] == list(point.scores.values())
        assert float(line["mean"]) == point.mean
        assert line["optimizer.lr"] == point.axes["optimizer.lr"]
    with (grid.folder / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 4 * 2 * 2
    with (grid.folder / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert len(layers) == 4 * 2 * 3 * 3  # points, seeds, epochs from 0 on; two layers and an activation
    text = (grid.folder / "table.md").read_text()
    assert "scored on 15 rows kept apart" in text
    assert "Command: podium study" in text


def test_reported_figures_and_differences_stand_in_the_table(chain: Any) -> None:
    lines = (chain.folder / "table.md").read_text().splitlines()
    assert "| point | accuracy, mean | std over seeds | seeds | against | difference |" in lines[2]
    plain = next(line for line in lines if line.startswith("| plain "))
    assert "| 0.5000 |" in plain
    assert next(line for line in lines if line.startswith("| wide ")).split(" | ")[4] == "plain"


def test_a_moving_average_looks_back_and_passes_over_gaps() -> None:
    values = np.array([[1.0], [3.0], [np.nan], [5.0]])
    assert moving_average(values, 2).ravel().tolist() == [1, 2, 3, 5]
    assert np.isnan(moving_average(np.array([[np.nan], [2.0]]), 2)[0, 0])
    assert moving_average(values[:2], 1).tolist() == values[:2].tolist()


def test_text_of_the_user_is_escaped_on_a_page_and_in_markdown(tmp_path: Path) -> None:
    table = Table(["a<b"], [["x|y & <script>"]])
    write_page(tmp_path / "p.html", "<title>", [Section("h", ["1 < 2\n\nnext", table])])
    text = (tmp_path / "p.html").read_text()
    assert "<script" not in text
    assert "x|y &amp; &lt;script&gt;" in text
    assert "<p>1 &lt; 2</p>\n<p>next</p>" in text
    assert markdown_table(table).splitlines()[2] == "| x/y & <script> |"


def test_an_axis_leaves_out_what_would_hide_the_others_and_only_that() -> None:
    near = [0.980, 0.982, 0.984, 0.986, 0.988]
    assert shown_range(near) == pytest.approx((0.9792, 0.9888))
    assert shown_range([*near, 0.1]) == pytest.approx((0.9792, 0.9888))
    assert shown_range([*near, 9.0]) == pytest.approx((0.9792, 0.9888))
    assert shown_range([*near, 0.94])[0] < 0.94  # within ten times the distance of the quartiles
    assert shown_range([*near, 0.1, 0.2, 0.3])[0] < 0.1  # too many to be left out
    assert shown_range([0.5, 0.5]) == pytest.approx((0.475, 0.525))
    assert shown_range([0.0]) == (-0.05, 0.05)
    assert shown_range([]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("file", "n_points", "n_seeds"),
    [
        ("mnist/studies/initialisers.yaml", 24, 3),
        ("mnist/studies/optimizers.yaml", 7, 3),
        ("mnist/studies/regularisers.yaml", 7, 3),
        ("mnist/studies/contest.yaml", 14, 3),
        ("cifar10/studies/precision.yaml", 2, 5),
    ],
)
def test_the_shipped_studies_are_whole_and_every_point_is_a_valid_experiment(
    file: str, n_points: int, n_seeds: int
) -> None:
    from pipeline.stages.study.stage import configs_of

    path = Path(__file__).parent.parent / "configs" / file
    loaded = load_study(path)
    points = points_of(loaded, str(path))
    configs = configs_of(loaded, path, points, path.stem)
    assert len(points) == n_points
    n_rows = {"mnist": 60_000, "cifar10": 50_000}
    for config in configs.values():
        assert config.experiment.seeds == tuple(range(n_seeds))
        assert round(n_rows[config.task.name] * config.experiment.folds.holdout_frac) == 10_000


def test_every_shipped_study_is_tried() -> None:
    """By the test above."""
    shipped = list((Path(__file__).parent.parent / "configs").glob("*/studies/*.yaml"))
    assert sum("-base" not in path.stem and path.stem != "base" for path in shipped) == 5
