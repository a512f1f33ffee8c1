"""The race against peers, without the peers: what lines say, which options enter, medians and ratios, our own entry."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pytest
import torch

from pipeline import api
from pipeline.base.errors import PodiumError
from pipeline.models.build import build_model
from pipeline.records.experiment import ModelSpec
from pipeline.records.predictions import load_predictions

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks/peers"))

import common
import job
import processes
import speed
import speed_results as results

OUR_LINES = [
    (0.5, "decoding  2,000/2,000"),
    (2.0, "fold 0  epoch 1/3  1,000 images/s  eta 0:02  train 2.4087  held-out 2.7247  accuracy 0.1800"),
    (4.0, "fold 0  epoch 2/3  2,000 images/s  eta 0:01  train 2.1224  held-out 2.0363  accuracy 0.2750"),
    (5.0, "fold 0  epoch 3/3  2,000 images/s  eta 0:00  train 2.0327  held-out 1.9695  accuracy 0.2575"),
    (6.0, "fold 0  0.2575"),
]
PEER_LINES = [
    (3.0, '{"epoch": 1, "n_images": 900, "seconds": 1.5, "accuracy": 0.2}'),
    (3.1, "a warning of some library"),
    (6.0, '{"epoch": 2, "n_images": 900, "seconds": 2.0, "accuracy": 0.3}'),
    (8.0, '{"epoch": 3, "n_images": 900, "seconds": 1.0, "accuracy": 0.4}'),
]


def one_run(contestant: str, options: str = "", number: int = 1, **changes: float) -> results.Measured:
    watched = processes.Watched(PEER_LINES, 9.0, 0, processes.Memory(2**30, 2**29))
    run = results.measured(watched, 1000, 3, "cnn3", contestant, options, number, ("setting", "origin"))
    return replace(run, **changes)


def race_of(tmp_path: Path, n_images: int = 40, net: str = "cnn3") -> speed.Race:
    """Pictures of two colours on disk, and the files of a race on them."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    lines = ["id,label"]
    for number in range(n_images + 2):
        label = number % 2
        image = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8) + np.uint8(120 * label)
        cv2.imwrite(str(data / f"train/a{number}.jpg"), image)
        lines.append(f"a{number},{('dark', 'light')[label]}")
    (data / "train.csv").write_text("\n".join(lines) + "\n")
    words = ["--net", net, "--images", str(n_images), "--epochs", "2", "--batch", "8", "--cores", "1"]
    words += ["--data", str(data), "--work", str(tmp_path / "work")]
    return speed.prepare(speed._parser().parse_args(words), {"torch": "1"})


def test_speed_counts_from_the_second_epoch_on_with_and_without_validation() -> None:
    watched = processes.Watched(OUR_LINES, 7.0, 0)
    ours = results.measured(watched, 1000, 3, "cnn3", "podium", "", 1, ("setting", "origin"))
    assert (ours.wall_sec, ours.first_sec, ours.end_sec, ours.accuracy) == (5.0, 2.0, 7.0, 0.2575)
    assert ours.images_per_sec == pytest.approx(2 * 1000 / 3.0)
    assert ours.train_images_per_sec == pytest.approx(2000)
    peer = one_run("plain")
    assert (peer.wall_sec, peer.accuracy, peer.resident_mib, peer.anonymous_mib) == (8.0, 0.4, 1024, 512)
    assert peer.images_per_sec == pytest.approx(2 * 900 / 5.0)
    assert peer.train_images_per_sec == pytest.approx(2 * 900 / 3.0)


@pytest.mark.parametrize(
    ("lines", "code", "n_epochs"), [(OUR_LINES, 1, 3), (OUR_LINES[:-2], 0, 3), (OUR_LINES[:2], 0, 1)]
)
def test_a_run_that_failed_or_cannot_tell_a_speed_is_an_error_with_its_last_lines(
    lines: list[tuple[float, str]], code: int, n_epochs: int
) -> None:
    with pytest.raises(PodiumError, match=r"podium .* ended with code .*\n.*\n?.*accuracy 0\.1800"):
        results.measured(processes.Watched(lines, 7.0, code), 1000, n_epochs, "cnn3", "podium", "", 1, ("", ""))


def test_a_peer_enters_with_its_quickest_and_its_fastest_options() -> None:
    slow = one_run("plain", "a", wall_sec=9.0, images_per_sec=50.0)
    quick = one_run("plain", "b", wall_sec=7.0, images_per_sec=60.0)
    fast = one_run("plain", "c", wall_sec=8.0, images_per_sec=70.0)
    assert results.best_options([slow, quick, fast]) == ["b", "c"]
    assert results.best_options([slow, quick]) == ["b"]


def test_tuning_tries_workers_layouts_and_compiling_and_leaves_out_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def run_peer(_: speed.Race, peer: str, options: job.Options, number: int) -> results.Measured:
        tried.append((options.workers, options.channels_last, options.compile))
        if options.compile:
            raise PodiumError("no compiler")
        return one_run(peer, str(options), number, wall_sec=5.0 - options.workers + options.channels_last)

    monkeypatch.setattr(speed.Race, "run_peer", run_peer)
    race = race_of(tmp_path)
    # The speed of all is the same, so the first with it, two workers or not, is the fastest entry.
    assert [str(options) for options in speed.choose(race, "plain", True)] == [
        "2 workers, channels first",
        "0 workers, channels last",
    ]
    assert tried[:4] == [(0, True, False), (0, False, False), (2, True, False), (2, False, False)]
    assert set(tried[4:]) == {(2, False, True), (0, True, True)}
    assert speed.choose(race, "plain", False) == [speed.Options(0, True, False)]


def test_ratios_are_taken_within_a_round() -> None:
    walls = {1: (10.0, 15.0), 2: (20.0, 40.0), 3: (5.0, 15.0)}  # the machine was slower in the second round
    runs = [one_run("podium", "", number, wall_sec=ours) for number, (ours, _) in walls.items()]
    runs += [one_run("plain", "x", number, wall_sec=peer, images_per_sec=180.0) for number, (_, peer) in walls.items()]
    assert results.ratios(runs, "plain: x", "wall_sec") == [1.5, 2.0, 3.0]
    assert median(results.ratios(runs, "podium", "wall_sec")) == 1
    text = results.verdict(runs)
    assert "(plain: x) takes 2.00 times as long" in text
    assert "handles 2.00 times as many images" in text


def test_the_verdict_is_about_the_best_peer() -> None:
    runs = [one_run("podium", wall_sec=4.0, images_per_sec=900.0)]
    runs += [one_run("plain", wall_sec=6.0, images_per_sec=300.0), one_run("timm", wall_sec=8.0, images_per_sec=450.0)]
    assert "(plain) takes 1.50 times as long" in results.verdict(runs)
    assert "2.00 times as many images per second as the fastest (timm)" in results.verdict(runs)


def test_results_of_another_net_stay_in_the_files(tmp_path: Path) -> None:
    table, picture = tmp_path / "speed.md", tmp_path / "speed.png"
    first = [one_run(name, number=number) for name in ("podium", "plain") for number in (1, 2)]
    results.publish(first, table, picture)
    text = results.publish([replace(one, net="conv5x5", wall_sec=3.0) for one in first], table, picture)
    assert text == table.read_text()
    assert "## cnn3" in text
    assert "## conv5x5" in text
    assert picture.stat().st_size > 1000
    again = results.read_csv(table.with_suffix(".csv"))
    assert [one for one in again if one.net == "cnn3"] == first
    results.publish(first[:3], table, picture)  # a net that ran again replaces its own rows only
    assert [one.net for one in results.read_csv(table.with_suffix(".csv"))] == ["cnn3"] * 3 + ["conv5x5"] * 4


@pytest.mark.parametrize("net", ["cnn3", "conv5x5"])
def test_our_entry_trains_and_holds_out_what_the_peers_validate_on(tmp_path: Path, net: str) -> None:
    race = race_of(tmp_path, net=net)
    run = api.train(race.config, ["seeds=[1]"], folds=[0], device="cpu", threads=1, show="quiet", root=tmp_path / "ws")
    heldout = load_predictions(run.folder / "oof.parquet").ids
    base = speed.read_base_job(race)
    paths = {part: [Path(path) for path, _ in job.read_rows(base, part)] for part in ("train", "val")}
    assert {path.stem for path in paths["val"]} == set(heldout)
    assert {path.stem for path in paths["train"]} == {f"a{number}" for number in range(40)} - set(heldout)
    assert (len(paths["train"]), len(paths["val"])) == (race.n_train, race.n_val) == (32, 8)
    for part, files in paths.items():
        linked = {link.name: link.parent.name for link in Path(base.folder, part).glob("*/*.jpg")}
        assert linked == {path.name: ("dark", "light")[int(path.stem[1:]) % 2] for path in files}
    assert run.machine.precision == "fp32"
    assert (run.experiment.loss.label_smoothing, run.experiment.optimizer.lr) == (base.smoothing, base.lr)
    assert (run.experiment.train.epochs, run.experiment.train.batch_size) == (base.epochs, base.batch_size)


@pytest.mark.parametrize("net", ["cnn3", "conv5x5"])
def test_the_net_of_the_peers_is_ours(net: str) -> None:
    ours = build_model(ModelSpec.model_validate(speed.NETS[net]["model"]), (3, 32, 32), 10).eval()
    theirs = common.make_net(net).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    drops = [[layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] for model in (ours, theirs)]
    assert drops[0] == drops[1]


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    asked = job.Job("cnn3", "/somewhere", 3, 256, 1e-3, 0.01, 0.1, seed=4, options=job.Options(2, False, True))
    asked.write(tmp_path / "job.json")
    assert job.read_job(["script", str(tmp_path / "job.json")]) == asked


def test_a_process_is_timed_line_by_line_and_its_children_weighed(tmp_path: Path) -> None:
    child = "b = bytearray(60_000_000); import time; time.sleep(1)"
    code = (
        "import os, subprocess, sys, time; print('first', os.environ['WORD'], os.getcwd(), flush=True);"
        f"subprocess.run([sys.executable, '-c', {child!r}]); print('second', file=sys.stderr); sys.exit(3)"
    )
    watched = processes.watch([sys.executable, "-c", code], [0], tmp_path, {"WORD": "x"})
    assert [line for _, line in watched.lines] == [f"first x {tmp_path}", "second"]
    first, second = (at_sec for at_sec, _ in watched.lines)
    assert 0 < first < second <= watched.end_sec
    assert second - first >= 1  # the child slept in between
    assert watched.exit_code == 3
    if (processes.PROC / "self/smaps_rollup").is_file():
        assert watched.memory.resident >= watched.memory.anonymous > 60_000_000


def test_a_missing_environment_of_the_peers_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"nowhere.*--peers-python"):
        speed.versions_of(tmp_path / "nowhere")
    with pytest.raises(PodiumError, match="there is no 'keras'; there are plain, timm"):
        speed.main(["--peers", "plain,keras"])


def test_too_few_images_are_named(tmp_path: Path) -> None:
    race_of(tmp_path)
    words = ["--images", "999", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    with pytest.raises(PodiumError, match="42 rows, and --images asks for 999"):
        speed.prepare(speed._parser().parse_args(words), {})


def test_peers_read_their_rows(tmp_path: Path) -> None:
    race = race_of(tmp_path)
    with (race.root / "peers/train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert job.read_rows(speed.read_base_job(race), "train") == [(row["path"], int(row["label"])) for row in rows]
    assert {row["label"] for row in rows} == {"0", "1"}
