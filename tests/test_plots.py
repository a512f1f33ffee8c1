import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.base import plots
from pipeline.base.plots import plot_confusion, plot_history, plot_samples


def make_history(n=4):
    curve = [1 / (epoch + 1) for epoch in range(n)]
    return {
        "epoch": list(range(1, n + 1)),
        "train_loss": curve,
        "heldout_loss": curve,
        "accuracy": [1 - v for v in curve],
    }


@pytest.fixture
def figures(monkeypatch):
    """The figures that a call draws."""
    kept = []
    new = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda *size: kept.append(new(*size)) or kept[-1])
    return kept


def assert_is_picture(path):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 1


def test_history_draws_both_losses_and_the_metric_of_every_unit(tmp_path, figures):
    plot_history(tmp_path / "a" / "history.png", {"fold 0": make_history(), "fold 1": make_history(6)}, "accuracy")
    assert_is_picture(tmp_path / "a" / "history.png")
    losses, metric = figures[0].axes
    assert (len(losses.lines), len(metric.lines)) == (4, 2)
    assert metric.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert metric.lines[1].get_ydata().tolist() == make_history(6)["accuracy"]
    assert losses.lines[0].get_color() == losses.lines[1].get_color() != losses.lines[2].get_color()
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["fold 0", "fold 1"]
    for axes in figures[0].axes:
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
        assert axes.get_title(loc="left")


def test_history_takes_missing_columns_gaps_and_a_single_epoch(tmp_path, figures):
    history = {"train_loss": [1.0], "accuracy": [None]}
    plot_history(tmp_path / "h.png", {"fold 0": history}, "accuracy")
    assert_is_picture(tmp_path / "h.png")
    losses, metric = figures[0].axes
    assert len(losses.lines) == 1
    assert losses.lines[0].get_marker() == "o"
    assert math.isnan(metric.lines[0].get_ydata()[0])


def test_history_of_nothing_is_still_a_picture(tmp_path):
    plot_history(tmp_path / "h.png", {}, "accuracy")
    assert (tmp_path / "h.png").exists()


def test_confusion_colours_shares_and_writes_counts(tmp_path, figures):
    matrix = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    plot_confusion(tmp_path / "c.png", matrix, ["cat", "$dog$", "eel"])
    assert_is_picture(tmp_path / "c.png")
    axes = figures[0].axes[0]
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0, 0.75]])
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "3", "8"]
    assert axes.get_title() == "14 rows, 78.57% on the diagonal"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_of_many_classes_leaves_names_and_counts_out(tmp_path, figures):
    plot_confusion(tmp_path / "c.png", np.eye(100, dtype=int), [str(index) for index in range(100)])
    assert figures[0].axes[0].texts[:] == []


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_samples_show_every_image_under_its_caption(tmp_path, figures, channels):
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 8, 8)).astype(np.uint8)
    plot_samples(tmp_path / "s.png", images, [f"row {index} $" for index in range(5)])
    assert_is_picture(tmp_path / "s.png")
    drawn = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title() for axes in drawn] == [rf"row {index} \$" for index in range(5)]
    expected = images[3].transpose(1, 2, 0) if channels >= 3 else images[3, 0]
    np.testing.assert_array_equal(np.asarray(drawn[3].images[0].get_array()), expected)


def test_a_failed_picture_leaves_the_old_one_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "h.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plot_history(path, {"fold 0": make_history()}, "accuracy")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot(tmp_path):
    code = (
        "import sys, pathlib\nfrom pipeline.base.plots import plot_history\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_history(pathlib.Path({str(tmp_path / 'h.png')!r}), {{'fold 0': {{'train_loss': [1, 2]}}}}, 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
