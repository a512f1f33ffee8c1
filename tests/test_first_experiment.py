"""The first experiment that `podium init` writes, what it looks at for that, and how it is fitted to a time."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from infer_hosts import cats_and_dogs, initiate, pictures, table
from toys import make_toy, train_toy

from pipeline.base.errors import PodiumError
from pipeline.base.files import read_json
from pipeline.base.interrupt import Deadline
from pipeline.models.build import build_model
from pipeline.records.config import load_config, load_task, validate
from pipeline.records.experiment import Experiment
from pipeline.records.predictions import load_predictions, save_predictions
from pipeline.records.runs import Workspace
from pipeline.records.task import Task
from pipeline.stages import fitting
from pipeline.stages.budget import Cost
from pipeline.stages.fitting import CLOSING_SEC, USABLE, fit_to_time, write_fit
from pipeline.stages.grades import are_grades, read_as_classes
from pipeline.stages.infer.baseline import baseline
from pipeline.stages.infer.conclude import Facts
from pipeline.stages.infer.glance import Glance, glance
from pipeline.stages.infer.mirrors import MIN_PICTURES, Told, tell_from_mirrored
from pipeline.stages.machines import Wishes

UNTOLD = Told(0.51, 0.6, 400, False)
TOLD = Told(0.96, 1.0, 400, True)


def textures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n, 1, 24, 24)).astype(np.float32)


def with_bar(images: np.ndarray, is_left: np.ndarray) -> np.ndarray:
    images = images.copy()
    for image, left in zip(images, is_left, strict=True):
        image[:, :, slice(2, 6) if left else slice(18, 22)] += 400
    return images


# -- mirrors -----------------------------------------------------------------------------------------------------------


def test_pictures_without_a_side_are_not_told_from_their_mirror_images():
    found = tell_from_mirrored(textures(300), np.zeros((300, 0), np.float32))
    assert found is not None
    assert [told.is_told for told in found] == [False, False]
    assert all(0.3 < told.share < 0.7 and told.n_pairs == 100 for told in found)


def test_a_bar_on_the_left_shows_in_a_mirror_and_not_upside_down():
    images = with_bar(textures(300), np.ones(300, bool))
    left_right, upside_down = tell_from_mirrored(images, np.zeros((300, 0), np.float32))
    assert left_right.is_told
    assert left_right.share > 0.9
    assert not upside_down.is_told


def test_classes_that_mirror_each_other_are_found_by_their_labels_alone():
    is_left = np.arange(400) % 2 == 0
    images, labels = with_bar(textures(400), is_left), np.eye(2, dtype=np.float32)[is_left.astype(int)]
    told, _ = tell_from_mirrored(images, labels)
    blind, _ = tell_from_mirrored(images, labels[:, :0])
    assert told.is_told
    assert told.worst is not None
    assert told.worst > 0.8
    assert not blind.is_told


def test_too_few_pictures_say_nothing_and_the_answer_is_always_the_same():
    images, labels = with_bar(textures(120), np.ones(120, bool)), np.zeros((120, 0), np.float32)
    assert tell_from_mirrored(images[: MIN_PICTURES - 1], labels[: MIN_PICTURES - 1]) is None
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found = tell_from_mirrored(images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert tell_from_mirrored(images, labels) == found


# -- a glance ----------------------------------------------------------------------------------------------------------


def test_sizes_and_channels_are_those_of_the_files(tmp_path):
    cats_and_dogs(tmp_path / "host")
    files = sorted((tmp_path / "host").rglob("*.png"))
    train = [path for path in files if path.parent.name == "train"]
    cv2.imwrite(str(train[0]), np.zeros((20, 30), np.uint8))
    train[1].write_bytes(b"no picture at all")
    cv2.imwrite(str(train[2]), np.dstack([np.zeros((8, 8), np.uint8), *[np.full((8, 8), 90, np.uint8)] * 2]))
    task = initiate(tmp_path / "host").conclusion.task
    seen = glance(task, tmp_path / "work" / task.data, lambda _: None)
    assert len(seen.shapes) == len(train) - 1
    assert (1, 20, 30) in seen.shapes
    assert seen.n_channels == 3
    assert seen.is_file
    assert not seen.has_one_shape
    assert seen.pictures is not None
    assert seen.pictures.shape == (len(train) - 1, 3, 24, 24)
    assert (seen.labels.sum(axis=1) == 1).all()


def test_arrays_of_many_channels_are_seen_with_all_of_them(tmp_path):
    names = [f"a{number:02d}" for number in range(20)]
    tests = [f"b{number:02d}" for number in range(12)]
    for name in [*names, *tests]:
        path = tmp_path / "host" / ("train" if name[0] == "a" else "test") / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(0).integers(0, 255, (6, 12, 14), dtype=np.uint8))
    table(tmp_path / "host/train.csv", "id,label", [(name, "xy"[row % 2]) for row, name in enumerate(names)])
    table(tmp_path / "host/sample_submission.csv", "id,label", [(name, "x") for name in tests])
    made = initiate(tmp_path / "host", "input=image")
    seen = glance(made.conclusion.task, tmp_path / "work" / made.conclusion.task.data, lambda _: None)
    assert seen.shapes == ((6, 12, 14),) * 20
    assert seen.pictures is not None
    assert seen.pictures.shape == (20, 6, 24, 24)


def test_items_of_full_size_are_not_kept(tmp_path):
    config = make_toy(tmp_path, "multiclass", store="files")
    task = load_task(config.with_name("task.yaml"))
    data = Workspace(tmp_path).data(task)
    large = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    for path in data.rglob("*.png"):
        cv2.imwrite(str(path), large)
    tracemalloc.start()
    seen = glance(task, data, lambda _: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(seen.shapes) == {(3, 512, 512)}
    assert len(seen.shapes) * large.nbytes > 3 * peak


def test_files_that_cannot_be_read_are_named_where_all_of_them_are_such(tmp_path):
    cats_and_dogs(tmp_path / "host")
    task = initiate(tmp_path / "host").conclusion.task
    for path in (tmp_path / "host").rglob("*.png"):
        path.write_bytes(b"no picture at all")
    with pytest.raises(PodiumError, match=r"\.png"):
        glance(task, tmp_path / "work" / task.data, lambda _: None)


# -- the first experiment ----------------------------------------------------------------------------------------------

TASK = {
    "name": "toy",
    "data": "data",
    "kind": "multiclass",
    "metric": "accuracy",
    "id": "id",
    "target": "label",
    "train": {"table": "train.csv", "files": "train/{id}.png"},
    "test": {"table": "test.csv", "files": "test/{id}.png"},
}
SIGNALS = {"input": "signal", "train": {"table": "train.csv", "files": "{id}.npy"}, "test": False}


def seen_pictures(*shapes: tuple[int, ...], has_nan: bool = False, is_file: bool = True) -> Glance:
    return Glance(shapes, has_nan, is_file, None, np.zeros((len(shapes), 3), np.float32))


def chosen(
    seen: Glance, facts: Facts | None = None, mirrors: tuple[Told, Told] | None = None, **task: Any
) -> tuple[Experiment, str]:
    """Return the experiment that is written, read back, and its text."""
    made = baseline(validate(Task, TASK | task, ""), facts or Facts(1_000, 100), seen, mirrors)
    return validate(Experiment, made.values, ""), made.text()


@pytest.mark.parametrize(
    ("shapes", "size", "blocks"),
    [
        ([(1, 28, 28)] * 3, (28, 28), 3),
        ([(3, 32, 48)] * 3, (32, 48), 3),
        ([(3, 53, 54), (3, 60, 50), (3, 48, 60)], (56, 56), 4),
        ([(3, 600, 800)] * 3, (64, 64), 4),
        ([(3, 10, 12), (3, 11, 12)], (24, 24), 3),
    ],
)
def test_pictures_get_a_moderate_size_and_a_net_whose_last_map_is_small(shapes, size, blocks):
    experiment, _ = chosen(seen_pictures(*shapes))
    assert experiment.input.size == size
    assert experiment.model.options["blocks"] == blocks
    net = build_model(experiment.model, (3, *size), 10)
    assert net is not None


@pytest.mark.parametrize(
    ("mirrors", "flip", "views", "reason"),
    [
        (None, None, ("identity",), "too few pictures"),
        ((TOLD, TOLD), None, ("identity",), "told 96% of 400 pictures"),
        ((UNTOLD, TOLD), (True, False), ("identity", "horizontal"), "96% of those upside down"),
        ((UNTOLD, UNTOLD), (True, True), ("identity", "horizontal", "vertical", "turn_180"), "nor from those upside"),
        ((TOLD, UNTOLD), None, ("identity",), "not mirrored"),
    ],
)
def test_pictures_are_mirrored_where_a_mirror_does_not_show(mirrors, flip, views, reason):
    experiment, text = chosen(seen_pictures((3, 32, 32)), mirrors=mirrors)
    found = experiment.augment.flip
    assert (None if found is None else (found.horizontal, found.vertical)) == flip
    assert experiment.predict.views == views
    assert reason in " ".join(text.replace("#", " ").split())


@pytest.mark.parametrize(
    ("shapes", "model", "length"),
    [
        ([(2, 750)] * 3, "eegnet", None),
        ([(2, 750), (2, 600)], "eegnet", 750),
        ([(1, 16_000)] * 3, "conv1d", None),
        ([(200, 300)] * 3, "conv1d", None),
        ([(3, 5)] * 3, "mlp", None),
    ],
)
def test_signals_get_a_net_for_their_shape(shapes, model, length):
    experiment, _ = chosen(seen_pictures(*shapes), **SIGNALS)
    assert experiment.model.name == model
    assert experiment.input.length == length
    assert experiment.augment.shift is None
    assert build_model(experiment.model, (shapes[0][0], length or shapes[0][1]), 4) is not None


def test_what_was_counted_decides_folds_loss_and_epochs():
    host = chosen(seen_pictures((3, 32, 32)), Facts(1_000, 10, n_host_folds=4), fold_column="fold")[0]
    assert (host.folds.scheme, host.folds.n_folds) == ("column", 4)
    groups = chosen(seen_pictures((3, 32, 32)), Facts(1_000, 10, n_groups=3), group="patient")[0]
    assert (groups.folds.scheme, groups.folds.n_folds) == ("auto", 3)
    many = chosen(seen_pictures((3, 32, 32)), Facts(90_000, 10, n_groups=300), group="patient")[0]
    assert many.folds.n_folds == 5
    assert many.train.epochs < groups.train.epochs
    tailed = chosen(seen_pictures((3, 32, 32)), Facts(1_000, 10, is_heavy_tailed=True), kind="regression")[0]
    assert tailed.loss.log_target
    gaps = chosen(seen_pictures((4, 9), (4, 9), has_nan=True), **SIGNALS)[0]
    assert gaps.input.nan == "channel_mean"
    mixed = chosen(seen_pictures((3, 32, 32), (1, 32, 32)))[0]
    assert mixed.input.channels == 3


def test_sounds_are_not_rotated():
    audio = {"sample_rate_hz": 8000, "seconds": 1.0}
    files = {"table": "train.csv", "files": "{id}.wav"}
    experiment, _ = chosen(seen_pictures((1, 64, 128), is_file=True), audio=audio, train=files, test=False)
    assert experiment.augment.affine is None
    assert experiment.augment.shift is not None


def test_every_line_has_a_reason_and_an_own_experiment_is_kept(tmp_path):
    cats_and_dogs(tmp_path / "host")
    made = initiate(tmp_path / "host")
    assert made.is_new
    text = made.baseline.read_text()
    assert max(map(len, text.splitlines())) <= 120
    told = [line for line in text.splitlines()[3:] if ":" in line and not line.lstrip().startswith("#")]
    heads = [line for line in told if line.rstrip().endswith(":")]
    assert len(told) - len(heads) <= text.count("#")
    made.baseline.write_text("base: other.yaml\n")
    again = initiate(tmp_path / "host")
    assert not again.is_new
    assert made.baseline.read_text() == "base: other.yaml\n"
    assert initiate(tmp_path / "host", overwrite=True).is_new
    assert made.baseline.read_text() == text


# -- fitted to a time --------------------------------------------------------------------------------------------------


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task with a baseline of 40 epochs of 64 x 64 px, and a plan whose epochs take what the pixels say."""
    config = make_toy(tmp_path, "multiclass")
    path = config.with_name("baseline.yaml")
    path.write_text(
        "base: net.yaml\ninput: {size: 64}\nmodel: {name: cnn, blocks: 4, width: 32}\ntrain: {epochs: 40}\n"
    )

    def plan(seconds_of_epoch: float) -> list[Any]:
        asked = []

        class Found:
            def __init__(self, experiment: Experiment) -> None:
                pixels, width = np.prod(experiment.input.size) / 64**2, experiment.model.options["width"] / 32
                epochs = (seconds_of_epoch * pixels * width**1.5,) * experiment.train.epochs
                self.cost = Cost(5, 0.5, epochs, 0.5, n_units=5, n_parallel=2, at_once=2)
                self.machine = load_machine()

        def planned(_workspace: Any, config: Any, *_more: Any) -> Found:
            asked.append(config.experiment)
            return Found(config.experiment)

        monkeypatch.setattr(fitting, "plan_config", planned)
        return asked

    return tmp_path, path, plan


def load_machine() -> Any:
    from pipeline.records.machine import Machine

    return Machine(
        device="cpu",
        jobs=2,
        threads=1,
        workers=2,
        loaders=0,
        precision="bf16",
        channels_last=True,
        micro_batches=1,
        checkpoint_minutes=5,
    )


def fitted(probed: Any, seconds_of_epoch: float, minutes: float = 7.0) -> tuple[Any, list[Any], Path]:
    root, path, plan = probed
    asked = plan(seconds_of_epoch)
    fit = fit_to_time(Workspace(root), path, Wishes(), Deadline(60 * minutes), lambda _: None)
    write_fit(path.with_name("auto.yaml"), path.name, fit, minutes)
    return fit, asked, path.with_name("auto.yaml")


def test_epochs_take_the_time_that_there_is(probed):
    fit, asked, path = fitted(probed, 2.5)
    usable = USABLE * (7 * 60 - CLOSING_SEC)
    assert len(asked) == 1
    (epochs,) = fit.changes["train"].values()
    assert fit.seconds <= usable < fit.seconds + 3 * 2.5 + 1
    assert load_config(path).experiment.train.epochs == epochs == int(((usable - 5) / 3 - 1) / 2.5)
    assert load_config(path).experiment.input.size == (64, 64)


def test_more_epochs_than_gain_are_not_trained(probed):
    fit, _, path = fitted(probed, 0.01)
    assert fit.changes == {"train": {"epochs": 60}}
    assert "all that gains" in path.read_text()


@pytest.mark.parametrize(
    ("seconds", "size", "width", "blocks"),
    [(7.0, 48, 32, 4), (14.0, 32, 32, 3), (30.0, 24, 32, 3), (50.0, 24, 24, 3), (1e2, 24, 16, 3)],
)
def test_pictures_become_smaller_and_then_the_net_narrower(probed, seconds, size, width, blocks):
    fit, asked, path = fitted(probed, seconds)
    experiment = load_config(path).experiment
    assert len(asked) == 2
    assert experiment.input.size == (size, size) == asked[1].input.size
    assert (experiment.model.options["width"], experiment.model.options["blocks"]) == (width, blocks)
    assert fit.seconds <= 7 * 60
    assert "would fit" in path.read_text()


def test_what_never_ends_in_time_is_refused_with_the_time_that_it_takes(probed):
    root, path, plan = probed
    plan(10_000)
    with pytest.raises(PodiumError, match=r"one fold of one epoch takes about \d.* give --minutes more"):
        fit_to_time(Workspace(root), path, Wishes(), Deadline(420), lambda _: None)


# -- grades or classes -------------------------------------------------------------------------------------------------


def test_a_run_of_grades_becomes_one_of_classes_with_the_same_nets(tmp_path):
    config = make_toy(tmp_path, "ordinal", n_names=4)
    run = train_toy(tmp_path, config)
    before = {path: path.read_bytes() for path in run.folder.glob("units/*/*.safetensors")}
    oof = load_predictions(run.folder / "oof.parquet")
    task = load_task(config.with_name("task.yaml"))
    classes = task.model_copy(
        update={"kind": "multiclass", "metric": task.metric.model_copy(update={"name": "accuracy"})}
    )
    now = read_as_classes(Workspace(tmp_path), run, classes)
    cv = read_json(now.folder / "cv.json")
    assert (now.task.kind, cv["metric"], run.task.kind) == ("multiclass", "accuracy", "ordinal")
    assert {path: path.read_bytes() for path in run.folder.glob("units/*/*.safetensors")} == before
    again = load_predictions(now.folder / "oof.parquet")
    assert (again.aligned_to(oof.ids).values == oof.values).all()


def test_oof_says_whether_grades_are_taken_for_their_neighbours(tmp_path):
    config = make_toy(tmp_path, "ordinal", n_names=4)
    run = train_toy(tmp_path, config)
    oof = load_predictions(run.folder / "oof.parquet")
    rows = np.genfromtxt(tmp_path / "data/ordinal/train.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    target = load_task(config.with_name("task.yaml")).target[0]
    grade = dict(zip(rows["id"], rows[target], strict=True))
    truth = np.array([int(grade[row_id]) for row_id in oof.ids])
    for step, expected in ((1, True), (2, False), (0, None)):
        taken = np.clip(truth + step, 0, 3) if step == 1 else (truth + step) % 4
        save_predictions(run.folder / "oof.parquet", replace(oof, values=np.eye(4, dtype=np.float32)[taken]))
        assert are_grades(Workspace(tmp_path), run) is expected
    (run.folder / "oof.parquet").unlink()
    assert are_grades(Workspace(tmp_path), run) is None


# -- logarithms of values ----------------------------------------------------------------------------------------------


def heavy(root: Path) -> Path:
    """Values whose logarithm the brightness of a picture gives."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(0, 1, 120)
    names = [f"p{number:03d}" for number in range(len(levels))]
    pictures(root / "host", [f"{'train' if name < 'p090' else 'test'}/{name}.png" for name in names])
    for name, level in zip(names, levels, strict=True):
        part = "train" if name < "p090" else "test"
        image = np.full((8, 8), int(20 + 200 * level), np.uint8)
        cv2.imwrite(str(root / "host" / part / f"{name}.png"), image)
    values = np.exp(9 * levels)
    table(
        root / "host/train.csv",
        "id,price",
        [(name, f"{value:.3f}") for name, value in zip(names, values, strict=True)][:90],
    )
    table(root / "host/sample_submission.csv", "id,price", [(name, 0.5) for name in names[90:]])
    return root / "host"


def test_values_with_a_heavy_tail_are_learnt_as_logarithms(tmp_path):
    made = initiate(heavy(tmp_path))
    assert made.conclusion.facts.is_heavy_tailed
    experiment = load_config(made.baseline).experiment
    assert experiment.loss.log_target
    options = [
        "model={name: mlp, hidden: 16}",
        "train.epochs=30",
        "augment.affine=off",
        "augment.shift=off",
        "folds.n_folds=3",
    ]
    run = train_toy(tmp_path / "work", made.baseline, options)
    oof = load_predictions(run.folder / "oof.parquet")
    truth = np.genfromtxt(tmp_path / "host/train.csv", delimiter=",", skip_header=1, dtype=None, encoding="utf-8")
    of_id = {row[0]: row[1] for row in truth}
    logs = np.log1p([of_id[row_id] for row_id in oof.ids])
    assert oof.values.min() >= 0
    assert np.corrcoef(np.log1p(oof.values[:, 0]), logs)[0, 1] > 0.9
    assert np.abs(np.log1p(oof.values[:, 0]) - logs).mean() < 1.5


def test_a_logarithm_needs_values_from_zero_on(tmp_path):
    config = make_toy(tmp_path, "regression")
    path, target = tmp_path / "data/regression/train.csv", load_task(config.with_name("task.yaml")).target[0]
    rows = pd.read_csv(path)
    rows.loc[7, target] = -3.5
    rows.to_csv(path, index=False)
    with pytest.raises(
        PodiumError, match=rf"loss\.log_target: needs values from 0 on, but row '{rows.id[7]}' has -3.5"
    ):
        train_toy(tmp_path, config, ["loss={name: mse, log_target: true}"])
