from __future__ import annotations

import csv
import math
import mmap
import os
import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import make_toy, read_text_table

from pipeline import api
from pipeline.base.errors import ConfigError, DataError, MismatchError, StopRequestedError
from pipeline.base.files import read_json
from pipeline.base.interrupt import StopFlag, stop_on_signals
from pipeline.records.config import difference, load_task
from pipeline.records.folds import load_folds
from pipeline.records.predictions import Predictions, load_predictions
from pipeline.records.pseudo_labels import load_labels, table_path
from pipeline.stages import crossval
from pipeline.training import unit as training_unit

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import ablation
import contest
import ensemble
import few_labels
import memory
import paired
import trials as runner

ARMS = {"shift": ["augment.shift={max_px: 1}"], "mixup": ["mix={mixup_alpha: 0.2}"]}
NET = {"model": {"name": "mlp", "hidden": 8}, "train": {"epochs": 2, "batch_size": 16, "precision": "fp32"}}
STUDY = ablation.Study(name="multiclass", files="train/{id}.png", n_train=45, base=NET, arms=ARMS)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves, and no waiting for the disk."""
    for module, name in ((training_unit, "plot_history"), (crossval, "plot_history"), (os, "fsync")):
        monkeypatch.setattr(module, name, lambda *_: None)


def make_study(tmp_path: Path, n_seeds: int = 2, study: ablation.Study = STUDY) -> tuple[contest.Contest, list[Any]]:
    """A toy contest cut in two, and the trials of two arms and the baseline."""
    if not (tmp_path / "data").exists():
        make_toy(tmp_path, "multiclass", n_train=90)
    cut = ablation.prepare(tmp_path / "out", tmp_path / "data" / "multiclass", study, 30)
    trials = ablation.trials_of([study], [cut], n_seeds, "cpu")
    return cut, [trial for trial in trials if trial.arm in ("none", "shift")]


def make_result(arm: str, seed: int, wrong: set[str], n_rows: int = 100, seconds: float = 1.0) -> runner.Result:
    return runner.Result(
        contest="toy",
        arm=arm,
        seed=seed,
        overrides=[],
        accuracy=1 - len(wrong) / n_rows,
        n_rows=n_rows,
        wrong=sorted(wrong),
        seconds=seconds,
        fingerprint="",
        device="cpu",
        precision="fp32",
        git_commit=None,
        finished="2026-01-01T00:00:00+00:00",
    )


def some_wrong(rng: np.random.Generator, share: float, n_rows: int = 100) -> set[str]:
    return {f"row{number}" for number in np.flatnonzero(rng.random(n_rows) < share)}


# -- the parts of a contest --------------------------------------------------------------------------------------------


def test_parts_are_disjoint_of_their_size_and_have_the_class_shares_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcdefg"), 3000, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.09, 0.01]).tolist()
    sizes = {"train": 200, "scored": 1000, "rest": 77}
    parts = contest.deal_rows([f"r{n}" for n in range(3000)], labels, sizes, seed=0)
    assert {part: len(rows) for part, rows in parts.items()} == sizes
    assert len(np.unique(np.concatenate(list(parts.values())))) == sum(sizes.values())
    for rows in parts.values():
        counts = Counter(labels[row] for row in rows)
        for name, n_all in Counter(labels).items():
            assert abs(counts[name] - len(rows) * n_all / 3000) <= 1.5


def test_parts_depend_on_ids_and_seed_and_not_on_the_order_of_the_rows() -> None:
    ids, labels, sizes = [f"r{n}" for n in range(60)], [f"{n % 3}" for n in range(60)], {"train": 20, "scored": 30}

    def dealt(order: list[int], seed: int) -> dict[str, set[str]]:
        parts = contest.deal_rows([ids[n] for n in order], [labels[n] for n in order], sizes, seed)
        return {part: {ids[order[row]] for row in rows} for part, rows in parts.items()}

    order = np.random.default_rng(0).permutation(60).tolist()
    assert dealt(order, 0) == dealt(list(range(60)), 0) != dealt(order, 1)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"the parts \{'train': 3, 'scored': 2\} need 5 rows, and there are 4"):
        contest.deal_rows(list("abcd"), list("xyxy"), {"train": 3, "scored": 2}, 0)


def test_tasks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    task = load_task(make_toy(tmp_path, "regression").with_name("task.yaml"))
    with pytest.raises(ConfigError, match="task regression: a study needs kind: multiclass"):
        contest.cut_contest(tmp_path / "out", task, tmp_path / "data" / "regression", {"train": 9}, NET)


def test_only_the_training_rows_have_labels_where_the_pipeline_reads(tmp_path: Path) -> None:
    task = load_task(make_toy(tmp_path, "multiclass").with_name("task.yaml"))
    sizes = {"train": 30, "test": 20, "scored": 10}
    cut = contest.cut_contest(tmp_path / "out", task, tmp_path / "data" / "multiclass", sizes, NET)
    whole = read_text_table(tmp_path / "data" / "multiclass" / "train.csv").set_index("id")["label"]
    tables = {part: read_text_table(cut.table(part)) for part in sizes}
    assert {part: "label" in table for part, table in tables.items()} == {"train": True, "test": False, "scored": False}
    assert len({row_id for table in tables.values() for row_id in table["id"]}) == 60
    for table in (tables["train"], read_text_table(cut.answers("test")), read_text_table(cut.answers("scored"))):
        assert table["label"].tolist() == whole[table["id"]].tolist()
    new_task = load_task(cut.config.with_name("task.yaml"))
    assert new_task.test is not None
    assert (new_task.train.table, new_task.test.table) == (str(cut.table("train")), str(cut.table("test")))
    assert not any(str(cut.answers("scored").parent) in path.read_text() for path in cut.config.parent.glob("*.yaml"))


# -- trials ------------------------------------------------------------------------------------------------------------


def test_a_study_trains_scores_other_rows_resumes_and_its_table_says_what_the_results_say(tmp_path: Path) -> None:
    cut, trials = make_study(tmp_path)
    told: list[str] = []
    results = runner.run_trials(trials, 1, tell=told.append)
    assert [(result.arm, result.seed) for result in results] == [("none", 0), ("shift", 0), ("none", 1), ("shift", 1)]
    assert told[0] == "0 of 4 trainings have a result; 4 to go"
    assert told[-1].startswith("4/4  multiclass shift seed 1  accuracy ")
    assert told[-1].endswith("eta 0:00")

    # Scored on rows that training never saw, against the answers, by the slow way.
    answers = dict(read_text_table(cut.answers("scored"))[["id", "label"]].to_numpy().tolist())
    learnt = set(load_folds(next((cut.root / "folds" / "multiclass").glob("*.csv"))).ids)
    assert (len(learnt), len(answers)) == (45, 30)
    assert not learnt & answers.keys()
    for trial, result in zip(trials, results, strict=True):
        predictions = load_predictions(cut.root / "runs" / "multiclass" / f"{trial.name}-all" / "scored.parquet")
        assert set(predictions.ids) == answers.keys()
        rows = zip(predictions.ids, predictions.values, strict=True)
        wrong = {row_id for row_id, row in rows if predictions.names[int(np.argmax(row))] != answers[row_id]}
        assert set(result.wrong) == wrong
        assert result.accuracy == 1 - len(wrong) / 30
        assert result.seconds > 0
        run = read_json(cut.root / "runs" / "multiclass" / f"{trial.name}-all" / "run.json")
        assert run["experiment"]["seeds"] == [trial.seed]
        assert (run["experiment"]["augment"]["shift"] is not None) == (trial.arm == "shift")
    assert len({tuple(result.wrong) for result in results}) > 1

    # The same call trains nothing; a result that is lost is made again, and is the same.
    stamps = [trial.path.stat().st_mtime_ns for trial in trials]
    told.clear()
    assert runner.run_trials(trials, 1, tell=told.append) == results
    assert told == []
    assert [trial.path.stat().st_mtime_ns for trial in trials] == stamps
    trials[2].path.unlink()
    again = runner.run_trials(trials, 1, tell=told.append)
    assert told[0] == "3 of 4 trainings have a result; 1 to go"
    assert [trial.path.stat().st_mtime_ns != stamp for trial, stamp in zip(trials, stamps, strict=True)][2:] == [1, 0]
    assert (again[2].wrong, again[2].seconds) == (results[2].wrong, results[2].seconds)

    # The published numbers are those of the JSON files.
    ablation.publish(results, [STUDY], tmp_path / "table.md", tmp_path / "picture.png")
    saved = [read_json(trial.path) for trial in trials]
    of_arm = {arm: [one["accuracy"] for one in saved if one["arm"] == arm] for arm in ("none", "shift")}
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = {line["arm"]: line for line in csv.DictReader(file)}
    assert lines.keys() == of_arm.keys()
    text = (tmp_path / "table.md").read_text()
    assert "Trained on multiclass 45; scored on 30 other rows; 2 seeds." in text
    for arm, values in of_arm.items():
        assert [float(lines[arm][f"seed{seed}"]) for seed in (0, 1)] == values
        assert float(lines[arm]["mean"]) == pytest.approx(mean(values))
        assert float(lines[arm]["std"]) == pytest.approx(stdev(values))
        assert f"| {arm} | {100 * mean(values):.2f} | {100 * stdev(values):.2f} |" in text
    gain = mean(a - b for a, b in zip(of_arm["shift"], of_arm["none"], strict=True))
    assert float(lines["shift"]["gain"]) == pytest.approx(gain)
    assert f"| {100 * gain:+.2f} |" in text
    assert lines["none"]["gain"] == ""


def test_predictions_are_scored_by_id_in_whatever_order_they_stand(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("id,label\na,x\nb,y\nc,x\n")
    values = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
    predictions = Predictions(np.array(["c", "b", "a"], dtype=object), ("x", "y"), values)
    assert runner.wrong_rows(predictions, tmp_path / "answers.csv") == (["a", "b"], 3)
    with pytest.raises(MismatchError, match=r"1 missing \(ids c\)"):
        runner.wrong_rows(predictions.at(np.array([1, 2])), tmp_path / "answers.csv")


def test_a_result_of_other_settings_or_rows_is_refused(tmp_path: Path) -> None:
    _, trials = make_study(tmp_path)
    runner.run_trials(trials[:1], 1, tell=lambda _: None)
    longer = replace(STUDY, base={**NET, "train": {**NET["train"], "epochs": 3}})
    with pytest.raises(MismatchError, match=r"none-seed0\.json: was made with other settings or other rows"):
        runner.run_trials(make_study(tmp_path, study=longer)[1], 1)
    with pytest.raises(MismatchError, match="other rows"):
        runner.run_trials(make_study(tmp_path, study=replace(STUDY, n_train=46))[1], 1)


def test_a_trial_that_is_asked_to_stop_saves_itself_and_goes_on(tmp_path: Path) -> None:
    long = replace(STUDY, base={**NET, "train": {**NET["train"], "epochs": 100}})
    _, trials = make_study(tmp_path, study=long)
    api.folds(trials[0].contest.config, root=trials[0].contest.root)
    # Around it the handlers that a worker process has: the signal may come before the training takes over.
    with stop_on_signals(), pytest.raises(StopRequestedError):
        runner.run_trial(trials[0], lambda _: None, StopFlag(also=lambda: True))
    assert not trials[0].path.exists()
    unit = trials[0].contest.root / "runs" / "multiclass" / "none-seed0-all" / "units" / "foldall-seed0"
    assert list(unit.glob("checkpoint-*.safetensors"))
    (result,) = runner.run_trials(trials[:1], 1, tell=lambda _: None)
    assert result.n_rows == 30


def test_a_study_may_train_by_a_job_of_its_own(tmp_path: Path) -> None:
    _, trials = make_study(tmp_path)
    seen: list[str] = []

    def job(trial: runner.Trial, report: Any, stop: StopFlag) -> None:
        seen.append(trial.name)
        runner.run_trial(trial, report, stop)

    (result,) = runner.run_trials(trials[1:2], 1, job=job, tell=lambda _: None)
    assert (seen, result.arm) == (["shift-seed0"], "shift")


def test_a_trial_can_be_sent_to_another_process(tmp_path: Path) -> None:
    _, trials = make_study(tmp_path)
    assert pickle.loads(pickle.dumps((runner.run_trial, trials[0]))) == (runner.run_trial, trials[0])


# -- the ablation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", ablation.STUDIES, ids=lambda study: study.name)
def test_every_arm_changes_what_it_names_and_all_changes_all_of_it(study: ablation.Study, tmp_path: Path) -> None:
    make_toy(tmp_path, "multiclass", n_train=60)
    toy = replace(study, n_train=30, files="train/{id}.png")
    cut = ablation.prepare(tmp_path / "out", tmp_path / "data" / "multiclass", toy, 20)
    base = api.config(cut.config).experiment.plain()
    arms = ablation.arms_of(study)
    changes = {
        arm: difference(base, api.config(cut.config, overrides).experiment.plain()) for arm, overrides in arms.items()
    }
    wanted = ["none", "translation", "crop", "erasing", "cutout", "mixup", "smoothing", "SAM", "all"]
    assert list(changes) == wanted
    assert changes["none"] == []
    assert all(len(changes[arm]) == 1 for arm in wanted[1:-1])
    assert sorted(changes["all"]) == sorted(line for arm in wanted[1:-1] for line in changes[arm])


def test_the_tiny_ablation_prints_what_it_writes_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "PROJECT", tmp_path / "project")
    make_toy(tmp_path, "multiclass", name="mnist", n_train=700)
    ablation.main(
        ["--tiny", "--only", "mnist", "--jobs", "1", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    )
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "out" / "tiny" / "ablation.md").read_text().strip()
    assert [line.split(" | ")[0] for line in printed.splitlines() if line.startswith("| ")][1:] == [
        "| none",
        "| translation",
        "| all",
    ]
    assert not (tmp_path / "project").exists()


# -- what is judged ----------------------------------------------------------------------------------------------------


def test_gain_and_error_are_those_of_the_whole_table_of_rows_and_seeds() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (make_result("arm", seed, some_wrong(rng, 0.2)), make_result("none", seed, some_wrong(rng, 0.4)))
        for seed in range(4)
    ]
    ids = [f"row{number}" for number in range(100)]
    table = np.array(
        [[int(row in set(base.wrong)) - int(row in set(arm.wrong)) for row in ids] for arm, base in pairs], dtype=float
    )
    of_seeds = table.mean(axis=1).var(ddof=1) / 4
    of_rows = table.mean(axis=0).var(ddof=1) / 100
    gain, se, half_width = paired.paired_gain(pairs)
    assert gain == pytest.approx(table.mean())
    assert se == pytest.approx(math.sqrt(of_seeds + of_rows))
    assert half_width is not None
    assert 1.96 < half_width / se < 3.2


def test_where_only_seeds_differ_the_interval_is_that_of_a_paired_t_test() -> None:
    everything = {f"row{number}" for number in range(100)}
    pairs = [(make_result("arm", 0, set()), make_result("none", 0, everything))]
    pairs += [(make_result("arm", seed, set()), make_result("none", seed, set())) for seed in (1, 2)]
    gain, se, half_width = paired.paired_gain(pairs)
    assert gain == pytest.approx(1 / 3)
    assert se == pytest.approx(1 / 3)  # gains 1, 0, 0: deviation 1 / sqrt(3), of a mean of three
    assert half_width == pytest.approx(4.302653 / 3, rel=1e-5)  # 97.5 % of Student's t with 2 degrees of freedom


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.1, "helps"), (0.5, "cannot tell"), (0.9, "hurts")], ids=["better", "same", "worse"]
)
def test_the_verdict_follows_the_interval(share: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    results = [make_result("none", seed, some_wrong(rng, 0.5)) for seed in range(3)]
    results += [make_result("arm", seed, some_wrong(rng, share)) for seed in range(3)]
    baseline, line = paired.compare(results, "none")
    assert (baseline.verdict, line.verdict) == ("baseline", verdict)


def test_a_single_seed_decides_nothing() -> None:
    results = [make_result("none", 0, {f"row{n}" for n in range(90)}), make_result("arm", 0, set())]
    line = paired.compare(results, "none")[1]
    assert (line.gain, line.se, line.half_width, line.std, line.verdict) == (0.9, None, None, None, "cannot tell")


def test_arms_without_their_pair_are_refused() -> None:
    results = [make_result("none", 0, set()), make_result("arm", 0, set()), make_result("arm", 1, set())]
    with pytest.raises(ValueError, match=r"toy: 'arm' has the seeds \[0, 1\], 'none' \[0\]"):
        paired.compare(results, "none")


def test_the_picture_has_a_panel_for_each_contest_and_a_dot_for_each_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.figure

    drawn: list[Any] = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, path: (drawn.append(figure), save(figure, path))
    )
    rng = np.random.default_rng(2)
    toy = [make_result(arm, seed, some_wrong(rng, 0.3)) for arm in ("none", "arm") for seed in range(3)]
    lines = paired.compare([*toy, *(replace(result, contest="other") for result in toy)], "none")
    paired.plot_lines(tmp_path / "picture.png", lines, "title")
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == ["toy", "other"]
    for axes in drawn[0].axes:
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [list(line.get_xdata()) for line in dots] == [
            [100 * value for value in line.accuracies] for line in lines[:2]
        ]
    with Image.open(tmp_path / "picture.png") as image:
        assert np.asarray(image.convert("L")).std() > 1


# -- few labels --------------------------------------------------------------------------------------------------------


def test_rounds_of_pseudo_labels_are_trained_each_from_the_one_before_and_resume(tmp_path: Path) -> None:
    make_toy(tmp_path, "multiclass", n_train=90)
    size = few_labels.Size(n_labelled=24, epochs=1, n_unlabelled=30, n_scored=30)
    cut = few_labels.prepare(tmp_path / "out", tmp_path / "data" / "multiclass", size)
    chain = few_labels.Chain(cut, 0, "cpu", threshold=0.01)
    done: list[str] = []
    few_labels.run_chain(chain, lambda result: done.append(result.arm), StopFlag())
    assert done == ["supervised", "pseudo-labels-1", "pseudo-labels-2", "pseudo-labels-3", "FixMatch"]
    for number in (1, 2, 3):
        labels = load_labels(table_path(cut.root / chain.labels(number), "all"))
        assert {maker["run"] for maker in labels.makers} == {chain.teacher(number)}
        assert labels.round == number
    unlabelled = set(read_text_table(cut.table("test"))["id"])
    assert set(labels.targets.ids) <= unlabelled
    assert not unlabelled & set(read_text_table(cut.table("scored"))["id"])
    few_labels.run_chain(chain, lambda result: done.append(result.arm), StopFlag())
    assert len(done) == 5


# -- the ensemble ------------------------------------------------------------------------------------------------------


def test_runs_and_blends_are_scored_on_oof_and_on_rows_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = {"train": {"epochs": 4, "batch_size": 16, "precision": "fp32"}, "folds": {"n_folds": 3}}
    first = make_toy(tmp_path, "multiclass", name="toy", n_train=120, net=net)
    first.with_name("small.yaml").write_text("base: net.yaml\nmodel: {name: mlp, hidden: 2}\n")
    monkeypatch.setattr(ensemble, "PROJECT", tmp_path)
    monkeypatch.setattr(ensemble, "MEMBERS", {"toy": ("net", "small")})
    cut = ensemble.prepare(tmp_path / "out", tmp_path / "data" / "toy", "toy", 60)
    machine: dict[str, Any] = {"device": "cpu", "jobs": 1, "threads": 1, "show": "quiet", "root": cut.root}
    runs = [api.train(cut.config.with_name(f"{name}.yaml"), name=name, **machine) for name in ("net", "small")]
    lines = {line.way: line for line in ensemble.score(cut, runs)}
    assert list(lines) == ["net", "small", "mean of all runs", "greedy", "stack"]

    answers = read_text_table(cut.answers("test")).set_index("id")["label"]

    def accuracy(parts: list[Predictions]) -> float:
        values = np.mean([part.aligned_to(np.array(answers.index, dtype=object)).values for part in parts], axis=0)
        return float((np.array(parts[0].names, dtype=object)[values.argmax(axis=1)] == answers.to_numpy()).mean())

    folds = {
        run.name: [load_predictions(path) for path in sorted(run.folder.glob("units/*/test.parquet"))] for run in runs
    }
    for run in runs:
        line, own = lines[run.name], [accuracy([part]) for part in folds[run.name]]
        assert len(own) == 3
        assert line.oof == pytest.approx(read_json(run.folder / "cv.json")["pooled"], abs=1e-9)
        assert (line.one_fold, line.one_fold_std) == pytest.approx((mean(own), stdev(own)))
        assert line.all_folds == pytest.approx(accuracy(folds[run.name]))
        assert line.in_sample is None
    best = max(("net", "small"), key=lambda name: lines[name].oof)
    blend = lines["mean of all runs"]
    assert blend.all_folds == pytest.approx(accuracy([*folds["net"], *folds["small"]]))
    assert blend.gain == pytest.approx(blend.all_folds - lines[best].one_fold)
    assert blend.oof == blend.in_sample  # a mean fits nothing
    assert lines["greedy"].in_sample >= max(lines["net"].oof, lines["small"].oof)  # it starts with the best
    text = ensemble.publish(list(lines.values()), "A toy", runs[0], tmp_path / "table.md", tmp_path / "plot.png")
    assert text == (tmp_path / "table.md").read_text()
    assert f"| {100 * lines['greedy'].in_sample:.2f} | {100 * lines['greedy'].oof:.2f}" in text
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["all_folds"]) for row in rows] == [line.all_folds for line in lines.values()]
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 300


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_sparse_store_takes_no_disk_and_its_training_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = memory.sparse_images(tmp_path / "store.bin", 1_000, 64)
    assert images.shape == (1_000, 3, 64, 64)
    assert (tmp_path / "store.bin").stat().st_blocks * 512 < images.nbytes / 100
    before = memory.anonymous_bytes()
    # Not of the allocator, which keeps freed memory once the command has run in this process.
    held = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(held, np.uint8)[:] = 1
    assert memory.anonymous_bytes() - before > 0.9 * 64 * 2**20
    held.close()
    out = tmp_path / "memory.md"
    memory.main(["--gb", "0.05", "--steps", "2", "--epochs", "2", "--folder", str(tmp_path), "--out", str(out)])
    assert "| 128 of 332 images, at random, 224 px | 0.05 GB |" in out.read_text()
    assert "| 128 of 195 signals, at random, 64 channels of 1,000 samples | 0.05 GB |" in out.read_text()
    assert out.read_text().strip() == capsys.readouterr().out.strip()
