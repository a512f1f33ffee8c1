import io
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.base import progress
from pipeline.base.progress import Event, clock_text, count_progress, display, epoch_line, print_table, say

EVENT = Event(
    unit="fold 0",
    epoch=2,
    n_epochs=10,
    step=50,
    n_steps=50,
    images_per_sec=12345.4,
    train_loss=0.12341,
    metrics={"held-out": 0.0456, "accuracy": 0.98712},
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def make_terminal(monkeypatch):
    """Put a terminal in place of stderr and return it (in the test's body: pytest sets stderr anew before that)."""
    screen, console = Terminal(), Console(stderr=True, width=160, force_terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_console", lambda: console)
    return screen


def fake_time(*moments):
    return iter(moments).__next__


def test_events_cross_processes():
    assert pickle.loads(pickle.dumps(EVENT)) == EVENT


def test_the_line_of_an_epoch_reads_as_promised():
    expected = "fold 0  epoch 3/10  12,345 images/s  eta 0:12  train 0.1234  held-out 0.0456  accuracy 0.9871"
    assert epoch_line(EVENT, 12.3) == expected
    assert "train" not in epoch_line(replace(EVENT, train_loss=None), None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-:--"), (0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert clock_text(seconds) == text


def test_without_a_terminal_there_is_one_line_per_epoch_on_stderr(capsys):
    with display("auto", 1) as show:
        for step in (0, 20, 50):
            show(replace(EVENT, epoch=8, step=step))
        show(replace(EVENT, epoch=9, step=10))
        show(replace(EVENT, epoch=9, finished=True))
        show(replace(EVENT, epoch=9, finished=True, metrics={}))
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert err.startswith("fold 0  epoch 9/10  12,345 images/s  eta ")
    assert err.splitlines()[1].startswith("fold 0  epoch 10/10  ")


def test_lines_are_never_wrapped_or_styled(capsys):
    long = "[bold]" + "x" * 300
    with display("lines", 1) as show:
        show(replace(EVENT, unit=long))
    say(long)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[1] == long


def test_messages_are_shown_in_every_kind(capsys):
    for kind in ("lines", "quiet"):
        with display(kind, 1) as show:
            show(replace(EVENT, step=1, message="the loss is not finite"))
        assert capsys.readouterr().err == "fold 0  the loss is not finite\n"


def test_quiet_shows_no_progress(capsys):
    with display("quiet", 1) as show:
        show(EVENT)
    with count_progress("decoding", "quiet") as count:
        count(3, 3)
    assert capsys.readouterr() == ("", "")


def test_time_left_follows_the_share_done_since_the_first_event():
    clock = progress._Clock(fake_time(100.0, 104.0, 110.0))
    resumed = replace(EVENT, epoch=5, step=0)
    assert clock.eta_sec(resumed) is None
    assert clock.eta_sec(replace(resumed, epoch=6)) == pytest.approx(16)
    assert clock.eta_sec(replace(resumed, epoch=10)) == pytest.approx(0)


def test_units_have_clocks_of_their_own():
    clock = progress._Clock(fake_time(0.0, 50.0, 51.0))
    clock.eta_sec(replace(EVENT, step=0, epoch=0))
    clock.eta_sec(replace(EVENT, unit="fold 1", step=0, epoch=0))
    assert clock.eta_sec(replace(EVENT, unit="fold 1", step=0, epoch=5)) == pytest.approx(1)


def test_in_a_terminal_each_unit_has_a_live_bar(monkeypatch):
    terminal = make_terminal(monkeypatch)
    with display("auto", 2) as show:
        show(replace(EVENT, step=0))
        say("a line in between")
        show(replace(EVENT, unit="fold 1"))
        show(replace(EVENT, epoch=9, finished=True))
    written = terminal.getvalue()
    for text in ("fold 0", "fold 1", "total", "12,345 images/s", "held-out 0.0456", "done", "a line in between\n"):
        assert text in written


def make_bars():
    """Bars that only remember what they show."""

    class Bars:
        def __init__(self):
            self.shown = {}

        def add_task(self, name, **_):
            return name

        def update(self, task, **fields):
            self.shown[task] = fields

    return Bars()


def test_bars_show_shares_and_a_total():
    bars = make_bars()
    show = progress._BarDisplay(bars, n_units=2)
    show(replace(EVENT, epoch=4, step=50))
    show(replace(EVENT, unit="fold 1", finished=True))
    assert {task: fields["completed"] for task, fields in bars.shown.items()} == {
        "fold 0": 0.5,
        "fold 1": 1.0,
        "total": 1.5,
    }


def test_a_bar_keeps_the_last_metrics_until_the_next():
    bars = make_bars()
    show = progress._BarDisplay(bars, n_units=1)
    show(EVENT)
    show(replace(EVENT, epoch=3, step=1, metrics={}))
    assert bars.shown["fold 0"]["detail"].endswith("accuracy 0.9871")
    assert "total" not in bars.shown


def test_counts_are_a_bar_in_a_terminal(monkeypatch):
    terminal = make_terminal(monkeypatch)
    with count_progress("decoding") as count:
        count(0, 40)
        count(40, 40)
    assert "decoding" in terminal.getvalue()
    assert "40/40" in terminal.getvalue()


def test_counts_are_few_lines_elsewhere(capsys):
    count = progress._CountLines("decoding", fake_time(0.0, 1.0, 11.0, 12.0, 13.0))
    for done in (10, 20, 30, 40):
        count(done * 100, 4000)
    assert capsys.readouterr().err == "decoding  2,000/4,000\ndecoding  4,000/4,000\n"


def test_a_table_goes_to_stdout_whole(capsys):
    long = "run-" + "x" * 150
    print_table("Runs [1]", ["run", "CV", "n"], [[long, 0.987123, 5], ["[b]", None, 12]])
    out, err = capsys.readouterr()
    assert err == ""
    for text in ("Runs [1]", long, "0.98712", "[b]"):
        assert text in out
    assert "None" not in out
    rows = out.splitlines()
    assert rows[-2].rstrip().endswith(" 12") or rows[-1].rstrip().endswith(" 12")


def test_importing_does_not_import_rich():
    code = "import sys, pipeline.base.progress\nassert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
