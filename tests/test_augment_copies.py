"""How a CPU changes pictures, by copies and in pieces, gives the bits of the plain way that other devices take."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.augment import images as augment_module
from pipeline.augment import patches, pieces
from pipeline.augment.copies import can_copy, change_groups_, shift_by_windows
from pipeline.augment.draw import Draw
from pipeline.augment.images import augment_images, flip_images, shift_images, turn_images
from pipeline.augment.patches import cut_out, erase, overwrite
from pipeline.augment.pieces import in_pieces
from pipeline.base.keyed import make_key, uniforms
from pipeline.records.augmentation import Augment, Cutout, Erasing
from pipeline.training.scaling import Scaling, prepare

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import augmentation

N = 41
FILLS = {"zero": "constant", "reflect": "reflect", "edge": "edge"}
DTYPES = [torch.uint8, torch.float32, torch.float64]
EVERYTHING = {
    "affine": {"max_rotate_deg": 20.0},
    "resized_crop": {"min_area": 0.5},
    "shift": {"max_px": 3, "fill": "edge"},
    "turn_90": True,
    "flip": {"vertical": True},
    "colour": {"max_brightness": 0.3, "max_contrast": 0.3, "max_saturation": 0.3, "max_hue": 0.1, "grey_prob": 0.2},
    "blur": {},
    "noise": {},
    "erasing": {"fill": "pixel", "prob": 0.7},
    "cutout": {"size_px": 5},
}
COPIED = [
    *[{"shift": {"max_px": most, "fill": fill}} for fill in FILLS for most in (1, 10)],
    {"turn_90": True},
    {"flip": {}},
    {"flip": {"horizontal": False, "vertical": True}},
    {"flip": {"vertical": True}},
    {"shift": {"max_px": 4}, "turn_90": True, "flip": {"vertical": True}},
    *[{"erasing": {"fill": fill}} for fill in ("zero", "random", "pixel")],
    {"cutout": {"size_px": 7}},
]


def make_pictures(dtype: torch.dtype = torch.uint8, n: int = N, height: int = 11, width: int = 11) -> Tensor:
    values = np.random.default_rng(1).integers(1, 256, (n, 3, height, width))
    return torch.from_numpy(values).to(dtype)


def make_draw(n: int = N) -> Draw:
    return lambda name, k: torch.from_numpy(uniforms(make_key(name), np.arange(n, dtype=np.uint64), k))


def augmented(pictures: Tensor, block: dict[str, object]) -> Tensor:
    draw = make_draw(len(pictures))
    return augment_images(pictures, Augment.model_validate(block), draw, draw)


def index_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of other devices."""
    for module in (augment_module, patches):
        monkeypatch.setattr(module, "can_copy", lambda _: False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", COPIED, ids=str)
def test_copies_give_the_bits_of_indexing(
    block: dict[str, object], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = make_pictures(dtype)
    copied = augmented(pictures, block)
    index_always(monkeypatch)
    monkeypatch.setattr(augment_module, "shift_by_windows", None)
    assert torch.equal(copied, augmented(pictures, block))
    assert not torch.equal(copied, pictures)


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("n_bytes", [1, 2**20])
def test_moves_up_to_the_last_pixel_equal_a_padded_crop(
    fill: str, is_indexed: bool, n_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "N_BYTES", n_bytes)
    if is_indexed:
        index_always(monkeypatch)
    pictures = make_pictures(height=7, width=9)
    down, right = np.random.default_rng(2).integers([-6, -8], [7, 9], (N, 2)).T
    down[:4], right[:4] = (6, -6, 0, 1), (-8, 8, 0, 0)
    moved = shift_images(pictures, torch.from_numpy(down), torch.from_numpy(right), fill)
    for picture, result, dy, dx in zip(pictures.numpy(), moved.numpy(), down, right, strict=True):
        wide = np.pad(picture, ((0, 0), (9, 9), (9, 9)), mode=FILLS[fill])
        np.testing.assert_array_equal(result, wide[:, 9 - dy : 16 - dy, 9 - dx : 18 - dx])


def test_no_images_are_taken() -> None:
    nothing, none = make_pictures()[:0], torch.zeros(0, dtype=torch.int64)
    assert shift_by_windows(nothing, none, none, "reflect").shape == nothing.shape
    assert turn_images(nothing, none).shape == nothing.shape
    assert flip_images(nothing, none.bool(), none.bool()).shape == nothing.shape


def test_what_numpy_does_not_know_is_indexed() -> None:
    pictures = make_pictures().to(torch.bfloat16)
    assert not can_copy(pictures)
    assert can_copy(make_pictures())
    block = {"shift": {"max_px": 2}, "flip": {}, "erasing": {}, "cutout": {"size_px": 3}}
    # Whole numbers up to 256 are exact in bf16.
    assert torch.equal(augmented(pictures, block).to(torch.uint8), augmented(make_pictures(), block))


def test_groups_are_changed_in_place_and_the_others_left() -> None:
    pictures = make_pictures()
    before, chosen = pictures.clone(), torch.arange(N) % 3 == 0
    result = change_groups_(pictures, [(chosen, lambda some: 255 - some)])
    assert result.data_ptr() == pictures.data_ptr()
    assert torch.equal(result[chosen], 255 - before[chosen])
    assert torch.equal(result[~chosen], before[~chosen])


@pytest.mark.parametrize("is_indexed", [False, True])
def test_rectangles_are_written_into_the_images_only_where_that_is_asked_for(
    is_indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_indexed:
        index_always(monkeypatch)
    draws, rectangles = make_draw()("any", 25), torch.tensor([[-2, 3, 5, 99]] * N)
    values = torch.full((N, 3, 1, 1), 7, dtype=torch.uint8)
    ways = [
        lambda pictures, in_place: erase(pictures, Erasing(prob=1.0, fill="pixel"), draws, 255.0, in_place),
        lambda pictures, in_place: erase(pictures, Erasing(prob=1.0), draws, 255.0, in_place),
        lambda pictures, in_place: cut_out(pictures, Cutout(size_px=5), draws, in_place),
        lambda pictures, in_place: overwrite(pictures, rectangles, values, in_place),
    ]
    for way in ways:
        pictures = make_pictures()
        apart = way(pictures, False)
        assert torch.equal(pictures, make_pictures())
        assert not torch.equal(apart, pictures)
        assert way(pictures, True).data_ptr() == pictures.data_ptr()
        assert torch.equal(pictures, apart)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_bytes", [1, 11 * 11 * 3 * 4 * 5])
def test_pieces_change_no_bit_and_draws_are_made_once_for_the_batch(
    dtype: torch.dtype, n_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, asked = make_pictures(dtype), []

    def draw(name: str, n: int) -> Tensor:
        asked.append(name)
        return make_draw()(name, n)

    whole = augmented(pictures, EVERYTHING)
    monkeypatch.setattr(pieces, "N_BYTES", n_bytes)
    assert len(pieces.pieces(pictures)) > 4
    assert torch.equal(augment_images(pictures, Augment.model_validate(EVERYTHING), draw, draw), whole)
    assert sorted(asked) == sorted(EVERYTHING)
    assert torch.equal(pictures, make_pictures(dtype))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_pieces_hold_every_sample_once_and_no_more_than_stated(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(pieces, "N_BYTES", 1000)
    batch = torch.zeros(101, 3, 5, 2)
    parts = pieces.pieces(batch)
    assert [place for part in parts for place in range(101)[part]] == list(range(101))
    assert {part.stop - part.start for part in parts[:-1]} == {1000 * n_threads // (30 * 4)}
    assert pieces.pieces(batch, 1)[0] == slice(0, 1000 * n_threads // 30)
    assert pieces.pieces(torch.zeros(2, 100_000)) == [slice(0, 1), slice(1, 2)]
    assert pieces.pieces(batch[:0]) == [slice(0, 0)]
    assert pieces.pieces(torch.zeros(9, 9999, device="meta")) == [slice(0, 9)]


def test_parameters_are_cut_like_the_batch_and_none_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "N_BYTES", 40)
    batch, factors = torch.arange(60.0).view(30, 2), torch.arange(30.0)

    def scaled(part: Tensor, factor: Tensor, nothing: None) -> Tensor:
        assert nothing is None
        return part * factor[:, None]

    expected = batch * factors[:, None]
    assert torch.equal(in_pieces(scaled, batch, factors, None), expected)
    into = torch.empty(30, 2, dtype=torch.float64)
    assert in_pieces(scaled, batch, factors, None, into=into) is into
    assert torch.equal(into.float(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("is_channels_last", [True, False])
@pytest.mark.parametrize("n_bytes", [1, 2**20])
def test_normalised_inputs_have_the_bits_of_the_formula_and_the_asked_layout(
    dtype: torch.dtype, is_channels_last: bool, n_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "N_BYTES", n_bytes)
    mean, std = torch.tensor([100.3, 120.7, 90.1]), torch.tensor([60.2, 61.9, 63.3])
    scaling = Scaling(mean, std, torch.zeros(1), torch.ones(1))
    pictures = make_pictures(dtype)
    inputs = prepare(pictures, scaling, is_channels_last)
    assert torch.equal(inputs, (pictures.float() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    assert inputs.is_contiguous(memory_format=torch.channels_last) == is_channels_last
    assert torch.equal(pictures, make_pictures(dtype))
    signals = make_pictures(torch.float32).flatten(2)
    assert torch.equal(prepare(signals, scaling), (signals - mean.view(1, 3, 1)) / std.view(1, 3, 1))


def test_the_benchmark_has_the_same_recipe_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "SIZES", {16: 6})
    monkeypatch.setattr(augmentation, "keep_freed_memory", lambda: 0)
    batch = augmentation.make_batch(16, 6, "cpu")
    ways = augmentation.ways_of(batch)
    results = [ways[name]() for name in (augmentation.OURS, *augmentation.PEERS)]
    assert {(result.shape, result.dtype) for result in results} == {((6, 3, 16, 16), torch.float32)}
    black = -torch.tensor(augmentation.MEAN) / torch.tensor(augmentation.STD)
    for result in results:
        assert result.is_contiguous(memory_format=torch.channels_last)
        is_black = (result - black.view(1, 3, 1, 1)).abs().amax(1) < 1e-5
        assert 0.15 < is_black.double().mean() < 0.8, "cutout alone covers a quarter where it does not overhang"
        assert result.max() <= (255 - 105) / 61
    out = tmp_path / "table.md"
    augmentation.main(["--rounds", "2", "--out", str(out), "--device", "cpu"])
    table = out.read_text()
    for name in (*ways.keys() - {augmentation.DRAWS}, "share of the keyed draws in it, %"):
        assert re.search(rf"\| {re.escape(name)} \| [\d,.]+ \([\d,.]+\.\.[\d,.]+\) \|", table), name
