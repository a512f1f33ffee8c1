import json

import numpy as np
import pytest
import torch
from torch import nn
from toy_units import CPU, make_experiment, make_task
from toys import make_toy, train_toy

from pipeline.base.errors import ConfigError
from pipeline.base.interrupt import StopFlag
from pipeline.data.batches import Items, samples_of
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment, PredictSpec
from pipeline.records.predictions import load_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Unit, Workspace
from pipeline.records.views import show_view
from pipeline.training.history import read_history
from pipeline.training.losses import activate
from pipeline.training.misfits import refuse_misfits, try_parts
from pipeline.training.predict import average_items, predict_logits, predict_views
from pipeline.training.scaling import Scaling, prepare
from pipeline.training.unit import dataset_of, load_unit, predict_unit
from pipeline.training.views import apply_view, average_views, crop_window, invert_view, scaled_size

NAMES = ("identity", "horizontal", "vertical", "turn_90", "turn_180", "turn_270")
SHIFTS = ({"shift": [2, -1]}, {"shift": [-3, 0], "fill": "edge"}, {"shift": [0, 4], "fill": "reflect"})
CROPS = ({"crop": {"size_frac": 0.5}}, {"crop": {"size_frac": 0.75, "position": "bottom_left"}})
SCALES = ({"scale": 2}, {"scale": 0.5})
IMAGE_VIEWS = (*NAMES, *SHIFTS, *CROPS, *SCALES)
TIME_SHIFTS = ({"time_shift": 5}, {"time_shift": -3})
SIGNALS = {"input": "signal"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_views(*views, **more):
    return make_experiment({"predict": {"views": list(views), **more}})


def view_of(written):
    return with_views(written).predict.views[0]


def softmax(logits):
    return activate(logits, "multiclass", "softmax")


def stored(n=3, channels=2, size=(8, 8), seed=0, dtype=np.uint8):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, *size)).astype(dtype))


def bare(channels=2, mean=100.0, std=50.0):
    return Scaling(torch.full((channels,), mean), torch.full((channels,), std), torch.zeros(1), torch.ones(1))


# -- each view against loops -------------------------------------------------------------------------------------------


def source_of(written, y, x, height, width):
    """Where the pixel at (y, x) of the view comes from, or None where zero enters."""
    if isinstance(written, dict):
        y, x = y - written["shift"][0], x - written["shift"][1]
        if written.get("fill") == "edge":
            return min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        if written.get("fill") == "reflect":
            y, x = abs(y), abs(x)
            return min(y, 2 * (height - 1) - y), min(x, 2 * (width - 1) - x)
        return (y, x) if 0 <= y < height and 0 <= x < width else None
    return {
        "identity": (y, x),
        "horizontal": (y, width - 1 - x),
        "vertical": (height - 1 - y, x),
        "turn_90": (x, width - 1 - y),  # anticlockwise: what was right is on top
        "turn_180": (height - 1 - y, width - 1 - x),
        "turn_270": (height - 1 - x, y),
    }[written]


@pytest.mark.parametrize("written", [*NAMES, *SHIFTS], ids=str)
def test_views_that_choose_pixels_choose_those_of_a_slow_loop(written):
    height, width = (7, 7) if written in ("turn_90", "turn_270") else (7, 9)
    images = stored(size=(height, width))
    before = images.clone()
    seen = apply_view(images, view_of(written))
    assert seen.dtype == torch.uint8
    assert torch.equal(images, before)
    for y in range(height):
        for x in range(width):
            source = source_of(written, y, x, height, width)
            expected = torch.zeros_like(images[:, :, 0, 0]) if source is None else images[:, :, source[0], source[1]]
            assert torch.equal(seen[:, :, y, x], expected)


def test_identity_is_the_batch_itself():
    images = stored()
    assert apply_view(images, "identity") is images


@pytest.mark.parametrize("shift", [5, -3])
def test_a_time_shift_moves_all_channels_later_with_zeros_entering(shift):
    signals = torch.randn(3, 2, 16)
    expected = torch.zeros_like(signals)
    for time in range(16):
        if 0 <= time - shift < 16:
            expected[:, :, time] = signals[:, :, time - shift]
    assert torch.equal(apply_view(signals, view_of({"time_shift": shift})), expected)


@pytest.mark.parametrize(
    ("position", "top", "left"),
    [("center", 2, 1), ("top_left", 0, 0), ("top_right", 0, 3), ("bottom_left", 5, 0), ("bottom_right", 5, 3)],
)
def test_a_crop_lies_where_it_says_and_is_enlarged_to_the_full_size(position, top, left):
    view = view_of({"crop": {"size_frac": 0.5, "position": position}})
    assert crop_window(view.crop, 10, 6) == (slice(top, top + 5), slice(left, left + 3))
    images = stored(size=(10, 6))
    part = images[:, :, top : top + 5, left : left + 3].double().numpy()
    seen = apply_view(images, view)
    assert seen.shape == images.shape
    for y in range(10):  # bilinear with the centres of pixels at halves, clamped at the border
        for x in range(6):
            at_y, at_x = min(max(y / 2 - 0.25, 0), 4), min(max(x / 2 - 0.25, 0), 2)
            y0, x0 = int(at_y), int(at_x)
            y1, x1, dy, dx = min(y0 + 1, 4), min(x0 + 1, 2), at_y - y0, at_x - x0
            rows = (1 - dy) * part[:, :, y0] + dy * part[:, :, y1]
            expected = (1 - dx) * rows[:, :, x0] + dx * rows[:, :, x1]
            np.testing.assert_allclose(seen[:, :, y, x].double().numpy(), expected, rtol=1e-5, atol=1e-4)


def test_a_scale_resizes_to_whole_pixels_and_a_smaller_one_averages():
    images = stored(size=(9, 6))
    assert apply_view(images, view_of({"scale": 1.5})).shape[2:] == scaled_size(1.5, 9, 6) == (14, 9)
    assert scaled_size(0.01, 9, 6) == (1, 1)
    stripes = torch.tensor([0, 255, 0], dtype=torch.uint8).repeat(18, 6)[None, None]
    seen = apply_view(stripes, view_of({"scale": 1 / 3}))[..., 1:-1]
    assert float(seen.max()) < 130  # without antialiasing every column would be 255


# -- view then inverse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [*NAMES], ids=str)
def test_view_then_inverse_is_identity(written):
    maps = torch.randn(2, 3, 8, 8)
    view = view_of(written)
    assert torch.equal(invert_view(apply_view(maps, view), view, (8, 8)), maps)


@pytest.mark.parametrize("written", [*SHIFTS, *TIME_SHIFTS], ids=str)
def test_a_shift_and_its_inverse_lose_only_the_strip_that_left_and_ones_say_which(written):
    size = (16,) if "time_shift" in written else (8, 8)
    maps, view = torch.randn(2, 3, *size), view_of(written)
    back = invert_view(apply_view(maps, view), view, size)
    seen = invert_view(torch.ones_like(maps), view, size)
    assert set(seen.unique().tolist()) == {0, 1}
    lost = written["time_shift"] / 16 if "time_shift" in written else None
    lost = 1 - np.prod([1 - abs(move) / 8 for move in written["shift"]]) if lost is None else abs(lost)
    assert float((seen == 0).float().mean()) == pytest.approx(float(lost))
    assert torch.equal(back, maps * seen)


@pytest.mark.parametrize("written", [*CROPS, *SCALES], ids=str)
def test_a_resampled_view_and_its_inverse_give_back_a_smooth_map_where_it_was_seen(written):
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    maps = torch.stack([y + 2 * x, torch.sin(3 * y) * torch.cos(2 * x)])[None]
    view = view_of(written)
    back = invert_view(apply_view(maps, view), view, (32, 32))
    seen = invert_view(torch.ones_like(apply_view(maps, view)), view, (32, 32))
    share = written["crop"]["size_frac"] ** 2 if "crop" in written else 1
    assert float((seen > 0.999).float().mean()) == pytest.approx(share)
    assert float((back - maps * seen.round()).abs().max()) < 0.08  # the border pixels; inside much closer
    torch.testing.assert_close(back[..., 9:23, 9:15], maps[..., 9:23, 9:15], rtol=0, atol=1e-2)


# -- averages ----------------------------------------------------------------------------------------------------------


class PointwiseNet(nn.Module):
    """1x1 convolution, relu, mean, linear: takes any size, and sees no border."""

    def __init__(self, channels=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(channels, 5, 1), nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(self.conv(x).relu().flatten(2).mean(2))


class CornerNet(PointwiseNet):
    """Weighs the corners, so that every view gives another answer."""

    def forward(self, x):
        ramp = torch.linspace(0, 1, x.shape[2])[:, None] * torch.linspace(1, 3, x.shape[3])[None, :]
        return super().forward(x * ramp)


def outputs_of(net, images, views, average="probs", batch_size=4, act=softmax):
    views = with_views(*views).predict.views
    items = Items(images.numpy(), "cpu")
    return predict_views(net, items, np.arange(len(images)), bare(), CPU, batch_size, views, average, act)


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_the_average_is_that_of_a_slow_loop_over_items_and_views(average):
    net, images = CornerNet().eval(), stored(n=7)
    views = with_views(*IMAGE_VIEWS).predict.views
    found = outputs_of(net, images, IMAGE_VIEWS, average)
    answers = set()
    for number in range(7):
        total = torch.zeros(3, dtype=torch.float64)
        for view in views:
            inputs = (apply_view(images[number : number + 1], view).double() - 100) / 50
            with torch.no_grad():
                logits = net(inputs.float())[0].double()
            answers.add(round(float(logits[0]), 4))
            total += logits.softmax(0) if average == "probs" else logits
        mean = total / len(views)
        expected = mean if average == "probs" else mean.softmax(0)
        torch.testing.assert_close(found[number].double(), expected, rtol=1e-4, atol=1e-6)
    assert len(answers) > 7 * len(views) * 0.9  # the views do differ
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(7))


def test_probabilities_and_logits_average_by_hand():
    logits = [torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0, 0.0]])]
    p, q = 1 / (1 + np.exp(4)), 1 / (1 + np.exp(-2))
    assert average_views(logits, "probs", softmax)[0, 0].item() == pytest.approx((p + q) / 2)
    assert average_views(logits, "logits", softmax)[0, 0].item() == pytest.approx(1 / (1 + np.exp(1)))  # 1 against 2


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_on_a_symmetric_input_every_view_gives_the_same_answer(average):
    half = stored(n=5, size=(4, 4))
    corner = torch.maximum(half, half.transpose(2, 3))  # with its mirrors: symmetric under all turns and flips
    whole = torch.cat([torch.cat([corner, corner.flip(3)], 3), torch.cat([corner, corner.flip(3)], 3).flip(2)], 2)
    net = CornerNet().eval()
    alone = outputs_of(net, whole, ["identity"], average)
    for name in NAMES:
        assert torch.equal(outputs_of(net, whole, [name], average), alone)
    assert torch.equal(outputs_of(net, whole, NAMES, average), alone)


def test_on_an_even_input_shifts_crops_and_scales_give_the_same_answer_too():
    even = stored(n=5, size=(1, 1)).expand(5, 2, 8, 8).contiguous()
    net = PointwiseNet().eval()
    alone = outputs_of(net, even, ["identity"])
    views = [{"shift": [2, -1], "fill": "edge"}, {"shift": [-2, 3], "fill": "reflect"}, *CROPS, *SCALES]
    for view in views:
        torch.testing.assert_close(outputs_of(net, even, [view]), alone, rtol=1e-5, atol=1e-6)
    black = torch.zeros_like(even)
    assert torch.equal(outputs_of(net, black, ["identity", {"shift": [2, 1]}]), outputs_of(net, black, ["identity"]))


def test_identity_alone_is_in_every_bit_the_activated_logits():
    net, images = CornerNet(), stored(n=9)
    items = Items(images.numpy(), "cpu")
    logits = predict_logits(net, items, np.arange(9), bare(), CPU, 4)
    with torch.inference_mode():
        by_hand = [
            net(prepare(items.fetch(np.arange(9)[part]), bare())) for part in (slice(4), slice(4, 8), slice(8, 9))
        ]
    assert torch.equal(logits, torch.cat(by_hand))
    for average in ("probs", "logits"):
        assert torch.equal(outputs_of(net, images, ["identity"], average), softmax(logits))


def test_views_of_signals_are_averaged_alike():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).eval()
    signals = torch.randn(5, 2, 16)
    scaling, views = bare(mean=0.5, std=2.0), with_views("identity", *TIME_SHIFTS).predict.views
    found = predict_views(net, Items(signals.numpy(), "cpu"), np.arange(5), scaling, CPU, 2, views, "probs", softmax)
    each = [net((apply_view(signals, view) - 0.5) / 2).softmax(1) for view in views]
    torch.testing.assert_close(found, sum(each).detach() / 3)


def test_a_shift_lets_black_in_before_normalisation():
    seen = prepare(apply_view(stored(dtype=np.uint8), view_of({"shift": [1, 0]})), bare())
    assert torch.equal(seen[:, :, 0], torch.full((3, 2, 8), -2.0))


def test_the_model_is_left_in_its_mode_and_each_batch_is_fetched_once(monkeypatch):
    net, images, asked = CornerNet(), stored(n=9), []
    monkeypatch.setattr(
        Items, "_gathered", lambda self, at, taken=Items._gathered: asked.append(len(at)) or taken(self, at)
    )
    net.train()
    outputs_of(net, images, NAMES)
    assert net.training
    assert asked == [4, 4, 1]

    def stop():
        raise KeyboardInterrupt

    views = with_views(*NAMES).predict.views
    with pytest.raises(KeyboardInterrupt):
        predict_views(net, Items(images.numpy(), "cpu"), np.arange(9), bare(), CPU, 4, views, "probs", softmax, stop)
    assert net.training


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([], r"predict\.views: must hold 1 or more values \(found: \[\]\)"),
        ("horizontal", r"predict\.views: must be a list"),
        (
            ["identity", "horizonal"],
            r"predict\.views\[1\]: 'horizonal' is unknown\. Did you mean 'horizontal'\? Allowed",
        ),
        (["shift"], r"predict\.views\[0\]: 'shift' is unknown\. It is a block, \{shift: \.\.\.\}\."),
        ([5], r"predict\.views\[0\]: 5 is no view\. Allowed: identity"),
        ([{"shif": [1, 2]}], r"exactly one of the keys shift, crop, scale, time_shift\. Did you mean 'shift'\?"),
        ([{"shift": [1, 2], "scale": 2}], r"\{shift: \[1, 2\], scale: 2\} must hold exactly one of the keys"),
        ([{"shift": [1, 2], "fil": "edge"}], r"the key fil is unknown\. Did you mean 'fill'\? Allowed: shift, fill"),
        ([{"shift": [1, 2], "fill": "wrap"}], r"views\[0\]\.fill: wrap is unknown\. Allowed: zero, reflect, edge"),
        ([{"shift": [1.5, 2]}], r"predict\.views\[0\]\.shift\[0\]: must be a whole number \(found: 1\.5\)"),
        ([{"shift": [0, 0]}], r"predict\.views\[0\]\.shift: \[0, 0\] changes nothing; write identity"),
        ([{"time_shift": 0}], r"predict\.views\[0\]\.time_shift: 0 changes nothing"),
        ([{"scale": 1}], r"predict\.views\[0\]\.scale: 1 changes nothing"),
        ([{"scale": 9}], r"predict\.views\[0\]\.scale: must be <= 4 \(found: 9\)"),
        ([{"crop": 0.5}], r"views\[0\]\.crop: must be a block, such as \{size_frac: 0\.9\} \(found: 0\.5\)"),
        ([{"crop": {"size": 0.5}}], r"the key crop\.size is unknown\. Did you mean 'size_frac'\?"),
        ([{"crop": {"size_frac": 1}}], r"predict\.views\[0\]\.crop\.size_frac: must be < 1"),
        ([{"crop": {"position": "top_let"}}], r"crop\.position: top_let is unknown\. Did you mean 'top_left'\?"),
        (["identity", "vertical", "identity"], r"predict\.views: holds identity more than once"),
        ([{"shift": [0, 1]}, {"shift": [0, 1], "fill": "zero"}], r"holds \{shift: \[0, 1\]\} more than once"),
    ],
    ids=str,
)
def test_a_view_that_is_none_is_refused_by_name(views, message):
    with pytest.raises(ConfigError, match=message):
        make_experiment({"predict": {"views": views}})


@pytest.mark.parametrize(
    ("task", "experiment", "message"),
    [
        (SIGNALS, with_views("horizontal"), r"predict\.views\[0\]: horizontal is a view of images, .* `signal`"),
        (SIGNALS, with_views("identity", {"scale": 2}), r"predict\.views\[1\]: \{scale: 2\} is a view of images"),
        ({}, with_views({"time_shift": 3}), r"predict\.views\[0\]: \{time_shift: 3\} is a view of signals, .* `image`"),
        ({}, with_views("identity", average="logits"), r"predict\.average: logits is never read with the one view"),
        ({}, with_views("vertical", average="probs"), r"predict\.average: probs is never read .*\(vertical\)"),
        (
            {"kind": "regression", "metric": "rmse"},
            with_views("identity", "vertical", average="logits"),
            r"predict\.average: logits is never read, because this task predicts values",
        ),
    ],
)
def test_what_the_task_would_never_read_is_refused_by_name(task, experiment, message):
    with pytest.raises(ConfigError, match=message):
        refuse_misfits(make_task(**task), experiment)


def test_what_fits_is_taken():
    refuse_misfits(make_task(), with_views(*IMAGE_VIEWS, average="logits"))
    refuse_misfits(make_task(**SIGNALS), with_views("identity", *TIME_SHIFTS, average="probs"))
    refuse_misfits(make_task("regression", metric="rmse"), with_views("identity", "vertical"))


def try_with(views, shape=(1, 8, 8), model="cnn3", task=None):
    ids = np.array(["r0", "r1", "r2"], dtype=object)
    rows = Rows(ids, ((0,), (1,), (2,)), ("a", "b", "c"), np.arange(3))
    options = {"width": 4} if model != "mlp" else {}
    experiment = make_experiment({"model": {"name": model, **options}, "predict": {"views": views}})
    return try_parts(make_task(**(task or {})), experiment, shape, rows)


@pytest.mark.parametrize(
    ("views", "shape", "message"),
    [
        ([{"shift": [8, 0]}], (1, 8, 8), r"predict\.views\[0\]: \{shift: \[8, 0\]\} moves an item of 8 x 8 px out of"),
        (["identity", {"shift": [0, -9]}], (1, 12, 8), r"views\[1\]: .*Allowed: -11\.\.11 down and -7\.\.7 right"),
        (["turn_90"], (1, 12, 8), r"predict\.views\[0\]: turn_90 needs square images, these are 12 x 8 px"),
        ([{"scale": 1.01}], (1, 8, 8), r"predict\.views\[0\]: \{scale: 1\.01\} leaves items of 8 x 8 px at their size"),
        ([{"crop": {"size_frac": 0.99}}], (1, 8, 8), r"is the whole of items of 8 x 8 px; take a smaller size_frac"),
        ([{"scale": 0.5}], (1, 8, 8), r"views\[0\]: \{scale: 0\.5\} gives items of \(1, 4, 4\), which this model does"),
    ],
)
def test_a_view_that_does_not_fit_the_items_is_refused_before_any_work(views, shape, message):
    with pytest.raises(ConfigError, match=message):
        try_with(views, shape)


def test_a_scale_is_refused_for_a_net_of_one_size_and_taken_by_one_of_any():
    with pytest.raises(ConfigError, match=r"predict\.views\[1\]: \{scale: 2\} gives items of \(1, 16, 16\), which"):
        try_with(["identity", {"scale": 2}], model="mlp")
    try_with(["identity", {"scale": 2}, {"scale": 1.25}, "turn_180", *CROPS, *SHIFTS], (1, 8, 10))


def test_a_time_shift_longer_than_the_signal_is_refused():
    with pytest.raises(ConfigError, match=r"\{time_shift: -16\} moves a signal of 16 samples out of .*-15\.\.15"):
        try_with([{"time_shift": -16}], (2, 16), "mlp", SIGNALS)
    try_with([{"time_shift": -15}], (2, 16), "mlp", SIGNALS)


def test_saved_views_come_back_equal_and_show_as_they_were_written():
    experiment = with_views(*IMAGE_VIEWS, *TIME_SHIFTS, average="logits")
    assert validate(Experiment, experiment.plain(), "run.json") == experiment
    assert PredictSpec().views == ("identity",)
    assert [show_view(view) for view in with_views("turn_90", *SHIFTS[:2], CROPS[1], SCALES[1]).predict.views] == [
        "turn_90",
        "{shift: [2, -1]}",
        "{shift: [-3, 0], fill: edge}",
        "{crop: {size_frac: 0.75, position: bottom_left}}",
        "{scale: 0.5}",
    ]


# -- in a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with three views whose rows have two files: run, data, items, and the model of fold 0."""
    root = tmp_path_factory.mktemp("views")
    views = ["identity", "horizontal", {"shift": [0, 1], "fill": "edge"}]
    more = {"predict": {"views": views, "average": "logits"}, "train": {"epochs": 2}}
    run = train_toy(root, make_toy(root, n_files=2, n_train=30, n_test=6, metric="log_loss", net=more))
    data = dataset_of(Workspace(root), run, lambda _: None, "quiet")
    items = data.train_items("cpu")
    return run, data, items, load_unit(run, Unit(0, 0), data.train.rows, items)


def heldout_of(run, rows):
    """The held-out predictions of fold 0 and the positions of their rows."""
    heldout = load_predictions(run.unit_folder(Unit(0, 0)) / "heldout.parquet")
    place = {row_id: number for number, row_id in enumerate(rows.ids)}
    return heldout.values, np.array([place[row_id] for row_id in heldout.ids])


def test_the_predictions_of_a_run_average_views_and_then_the_files_of_a_row(trained):
    run, data, items, (model, scaling, _) = trained
    model.eval()
    for found, row in zip(*heldout_of(run, data.train.rows), strict=True):
        answers = []
        for item in data.train.rows.items[row]:
            image = items.fetch(np.array([item]))
            with torch.inference_mode():
                seen = [prepare(apply_view(image, view), scaling) for view in run.experiment.predict.views]
                answers.append((sum(model(each) for each in seen) / 3).softmax(1)[0])
        np.testing.assert_allclose(found, (sum(answers) / 2).numpy(), rtol=1e-4, atol=1e-6)


def test_the_test_rows_are_predicted_with_the_same_views_at_once_and_later(trained):
    run, data, _, (model, scaling, digest) = trained
    rows, items = data.other(None, "cpu")
    again = predict_unit(run, Unit(0, 0), rows, items, model, scaling, digest, StopFlag())
    saved = load_predictions(run.unit_folder(Unit(0, 0)) / "test.parquet")
    assert again.ids.tolist() == saved.ids.tolist()
    assert np.array_equal(again.values, saved.values)


def test_the_cv_counts_all_views_and_the_history_of_the_training_one(trained):
    run, data, items, (model, scaling, _) = trained
    rows = data.train.rows
    with_all, positions = heldout_of(run, rows)
    samples = samples_of(rows.ids, rows.items, positions)
    plain = softmax(predict_logits(model, items, samples.item, scaling, run.machine, 512))
    with_one = average_items(plain, samples, len(positions), scaling)[np.argsort(np.argsort(positions))]

    def log_loss(values):
        values = values.astype(np.float64) / values.sum(1, keepdims=True, dtype=np.float64)
        return -np.log(values[np.arange(len(positions)), np.asarray(rows.targets)[positions]]).mean()

    line = next(each for each in json.loads((run.folder / "cv.json").read_text())["folds"] if each["fold"] == 0)
    history = read_history(run.unit_folder(Unit(0, 0)) / "history.csv")
    assert line["score"] == pytest.approx(log_loss(with_all), rel=1e-5)
    assert float(history["log_loss"][-1]) == pytest.approx(log_loss(with_one), rel=1e-5)
    assert log_loss(with_one) != pytest.approx(log_loss(with_all), rel=1e-3)
