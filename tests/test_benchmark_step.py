"""What the measurements of steps, decoding and start-up measure, and how they sum it up."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import data_path
import decode
import start
import step
import turns

from pipeline import api
from pipeline.data.readers import read_image
from pipeline.models.plain_nets import conv5x5


def test_ways_take_turns_and_two_calls_of_each_are_not_counted(monkeypatch):
    called, now = [], [0.0]
    monkeypatch.setitem(turns.CLOCKS, "wall", lambda: now[0])

    def way(name, seconds):
        called.append(name)
        now[0] += seconds

    ways = {"a": lambda: way("a", 1.0), "b": lambda: way("b", 4.0)}
    assert turns.seconds_of(ways, 2, 3) == {"a": [1.0, 1.0], "b": [4.0, 4.0]}
    assert "".join(called) == "aabb" + "aaabbb" * 2

    called.clear()
    assert turns.seconds_of(ways, 1, 2, before=lambda: way("-", 100.0)) == {"a": [1.0], "b": [4.0]}
    assert "".join(called) == "-a-a-b-b-aa-bb"


@pytest.mark.parametrize(
    ("ratio", "is_rate", "expected"), [("faster by", False, "0.25x"), ("cost", False, "4.00x"), ("more", True, "4.00x")]
)
def test_a_table_holds_median_spread_and_the_ratio_to_the_first(ratio, is_rate, expected):
    text = turns.table_of("Title", "ms", {"a": [3.0, 1.0, 2.0], "b": [8.0, 8.0, 8.0]}, ratio, is_rate)
    assert "| a | 2 | 1 to 3 | 1.00x |" in text
    assert f"| b | 8 | 8 to 8 | {expected} |" in text


def test_both_nets_of_the_step_have_the_same_weights_and_one_law():
    textbook, ours = step.make_net().eval(), conv5x5((1, 28, 28), 10).eval()
    shapes = [[tuple(weight.shape) for weight in net.parameters()] for net in (textbook, ours)]
    assert shapes[0] == shapes[1]
    for wanted, found in zip(textbook.parameters(), ours.parameters(), strict=True):
        found.data.copy_(wanted.data)
    inputs = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(ours(inputs), textbook(inputs))


def test_steps_with_their_data_are_those_on_batches_that_were_made_before():
    def trained(way):
        epochs = data_path.Epochs({"name": "conv5x5", "dropout": 0.0}, 600, 1, "wall")
        getattr(epochs, way)()
        return epochs.data_sec, list(epochs.model.parameters())

    (data_sec, with_data), (nothing, resident) = trained("with_data"), trained("resident")
    assert all(map(torch.equal, with_data, resident))
    assert len(data_sec) == 1
    assert data_sec[0] > 0
    assert nothing == []


def test_the_loops_over_files_see_the_same_pictures(tmp_path):
    paths = decode.write_files(tmp_path / "files", 64, 3)
    assert len({path.read_bytes() for path in paths}) == 3
    whole = decode.pillow_loop(paths, 64)
    np.testing.assert_array_equal(whole.transpose(0, 3, 1, 2), [read_image(path) for path in paths])
    decode.build_store(paths, 32, tmp_path / "cache")
    assert len(list((tmp_path / "cache/store").glob("*/items.bin"))) == 1


def test_the_training_that_is_started_is_a_valid_one(tmp_path):
    start.write_task(tmp_path)
    table, _ = api.folds(tmp_path / "configs/a.yaml", root=tmp_path)
    assert len(table) == start.N_FILES
