import json
import subprocess
import sys

import pytest
from toys import make_toy, toy_answers, train_toy

from pipeline import commands
from pipeline.__main__ import main
from pipeline.commands import run
from pipeline.records.predictions import load_predictions

COMMANDS = ["folds", "train", "predict", "ensemble", "submit", "board", "demo"]
QUIET = ["--device", "cpu", "--jobs", "1", "--threads", "1", "--show", "quiet"]
CONFIG = "configs/multiclass/net.yaml"


def podium(*arguments):
    """Run a command as the shell does; return its exit code."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with one run of five folds, shared by tests that only add to it."""
    root = tmp_path_factory.mktemp("workspace")
    config = make_toy(root, n_train=60, n_test=10, net={"folds": {"n_folds": 5}, "train": {"epochs": 2}})
    train_toy(root, config)
    return root


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_python_m_pipeline_is_the_command_and_help_lists_every_command():
    done = subprocess.run([sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: podium" in done.stdout
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_a_users_mistake_prints_one_message_and_no_traceback_in_a_shell():
    command = [sys.executable, "-m", "pipeline", "train", "nowhere.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "podium: nowhere.yaml: no such file.\n"


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("raise SystemExit(0)", 0, ""),
        ("raise SystemExit(75)", 75, ""),
        ("raise SystemExit", 0, ""),
        ("pass", 0, ""),
        ("raise ValueError('not foreseen')", 1, "ValueError: not foreseen"),
    ],
)
def test_a_command_ends_at_once_but_not_before_what_waits_for_the_end(body, code, error):
    script = f"""
import atexit, sys, threading, time
from pipeline import __main__ as entry

class Slow:
    def __del__(self):
        print("cleared")

def body():
    entry.kept = Slow()
    atexit.register(print, "at exit")
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
    print("body")
    {body}

entry.main = body
entry.command()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout.split("\n") == ["body", "thread", "at exit", ""]
    assert done.stderr.strip().endswith(error)


def test_no_command_is_left_out_here():
    names = [info.name or info.callback.__name__ for info in commands.app.registered_commands]
    assert set(COMMANDS) <= set(names)


@pytest.mark.parametrize("name", [info.name or info.callback.__name__ for info in commands.app.registered_commands])
def test_every_command_has_help_with_an_example(name, capsys):
    assert run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Example: podium {name}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument"),
        (["train", CONFIG, "--epohcs", "3"], "No such option: --epohcs"),
        (["train", CONFIG, "--jobs", "many"], "--jobs many: expected auto, or a number from 1 on"),
        (["train", CONFIG, "--jobs", "-1"], "--jobs -1: expected auto"),
        (["train", "configs/multiclass/nett.yaml"], "nett.yaml: no such file. Did you mean 'net.yaml'?"),
        (["train", CONFIG, "trian.epochs=1"], "trian: unknown key. Did you mean 'train'?"),
        (["train", CONFIG, "train.epochs=x"], "train.epochs: "),
        (["train", CONFIG, "train.epochs"], "overrides have the form key=value"),
        (["train", CONFIG, "--folds", "x"], "--folds x: expected numbers such as 0,2, or `all`"),
        (["train", CONFIG, "--folds", "7"], "7"),
        (["train", CONFIG, "--show", "loud"], "--show loud: expected auto, bar, lines or quiet"),
        (["demo", "--show", "loud"], "--show loud: expected auto, bar, lines or quiet"),
        (["train", CONFIG, "--device", "gpu"], "--device gpu: expected auto, cpu, cuda or cuda:N"),
        (["predict", "nett"], "run 'nett': not found under runs. Did you mean 'net'? `podium board` lists the runs"),
        (["predict", "net", "--source", CONFIG], "--source: other rows need --out FILE.parquet"),
        (["ensemble", "net", "net", "--method", "median"], "--method median: unknown. Did you mean 'mean'? Allowed: "),
        (["ensemble", "net", "net", "--options", "n_bags"], '--options n_bags: expected a block of keys, such as "{'),
        (["ensemble", "net", "net", "--options", "{n_bag: 2}"], "--method mean: n_bag: unknown key"),
        (["ensemble", "net", "net", "--weights", "a,b"], "--weights a,b: expected numbers such as 0.7,0.3"),
        (["ensemble", "net", "nett"], "run 'nett': not found"),
        (["submit", "nett"], "run 'nett': not found"),
        (["board", "--lb", "nothing.csv", "0.5"], "nothing.csv: no such submission"),
        (["board", "--lb", "nothing.csv"], "--lb"),
        (["board", "--lb", "nothing.csv", "high"], "--lb"),
    ],
)
def test_a_wrong_word_is_one_message_and_exit_1(here, capsys, arguments, message):
    assert podium(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "podium: interrupted"),
        (OSError(28, "No space left on device", "runs/x"), 1, "podium: [Errno 28] No space left on device: 'runs/x'"),
    ],
)
def test_what_comes_from_outside_has_its_exit_code(monkeypatch, capsys, error, code, message):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(commands, "run", fail)
    assert podium("board") == code
    assert capsys.readouterr().err == message + "\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["board"])


def test_some_folds_are_marked_and_overrides_name_the_run(here, capsys):
    assert podium("train", CONFIG, "--folds", "0,2", "train.epochs=1", *QUIET) == 0
    out = capsys.readouterr().out
    folder = here / "runs/multiclass/net-train.epochs=1"
    assert "2 of 5 folds" in out
    assert "fold 0" in out
    assert "fold 2" in out
    assert "fold 1" not in out
    assert sorted(path.name for path in (folder / "units").iterdir()) == ["fold0-seed0", "fold2-seed0"]
    assert load_predictions(folder / "oof.parquet").meta["partial"] == "2 of 5 folds"
    assert set(load_predictions(folder / "oof.parquet").fold) == {0, 2}
    assert podium("submit", "net-train.epochs=1") == 0
    assert "2 of 5 folds" in capsys.readouterr().err


def test_training_again_prints_the_table_without_training(here, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.training.train.train_step", None)
    assert podium("train", CONFIG, *QUIET) == 0
    out = capsys.readouterr().out
    assert "accuracy (higher is better), last weights" in out
    assert all(word in out for word in ("fold 4", "CV, mean of folds", "pooled OOF", "next: podium submit"))


def test_a_changed_config_under_the_same_name_shows_the_difference(here, capsys):
    assert podium("train", CONFIG, "--name", "net", "optimizer.lr=0.5", *QUIET) == 1
    err = capsys.readouterr().err
    assert "was started with another config" in err
    assert "optimizer.lr: 0.02 -> 0.5" in err
    assert "--name NEW" in err


def test_a_refit_on_all_rows_has_no_cv_but_predicts(here, capsys):
    assert podium("train", CONFIG, "--folds", "all", "train.epochs=1", "--name", "refit", *QUIET) == 0
    assert "trained on every row, so there is no CV" in capsys.readouterr().out
    assert len(load_predictions(here / "runs/multiclass/refit-all/test.parquet")) == 10


def test_folds_prints_the_balance_and_writes_the_table(tmp_path, monkeypatch, capsys):
    make_toy(tmp_path, n_train=30)
    monkeypatch.chdir(tmp_path)
    assert podium("folds", CONFIG) == 0
    out, err = capsys.readouterr()
    assert "30 rows, stratified" in " ".join(out.split())
    (table,) = (tmp_path / "folds/multiclass").glob("*.csv")
    assert table.name in err
    assert podium("folds", CONFIG) == 0
    assert capsys.readouterr().out == out


def test_from_a_run_to_a_blend_a_submission_and_its_score_on_the_board(here, capsys):
    assert podium("predict", "net") == 0
    assert podium("train", CONFIG, "seeds=[1]", "--name", "other", *QUIET) == 0
    capsys.readouterr()
    assert podium("ensemble", "net", "other", "--name", "both", "--method", "geometric") == 0
    out = capsys.readouterr().out
    assert "blend" in out
    assert all(word in out for word in ("geometric", "nested", "best single", "correlation of the members' errors"))
    assert podium("submit", "both", "--file", "first") == 0
    assert "submissions/multiclass/first.csv" in capsys.readouterr().out
    path = here / "submissions/multiclass/first.csv"
    ids = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    assert sorted(ids) == sorted(toy_answers(here, "multiclass").index)
    assert podium("board", "--lb", "first.csv", "0.75") == 0
    assert podium("board", "--private", "--lb", "submissions/multiclass/first.csv", "0.5") == 0
    assert json.loads(path.with_suffix(".json").read_text())["lb"] == {"public": 0.75, "private": 0.5}
    capsys.readouterr()
    assert podium("board", "--task", "multiclass") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("net", "other", "both", "first.csv", "0.75", "0.5"))
    assert podium("board", "--task", "unknown") == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["no runs yet", "no submissions yet"]


def test_other_rows_are_predicted_from_a_description(here, capsys):
    (here / "more.yaml").write_text('table: train.csv\nfiles: "train/{id}.png"\n')
    assert podium("predict", "net", "--source", "more.yaml", "--out", "more.parquet") == 0
    assert "wrote more.parquet" in capsys.readouterr().out
    assert len(load_predictions(here / "more.parquet")) == 60


def test_the_board_leaves_missing_numbers_empty(tmp_path, capsys):
    config = make_toy(tmp_path)
    for name in ("one", "two"):
        train_toy(tmp_path, config, ["train.epochs=1"], name=name, folds=[0])
    run(["ensemble", "one", "two", "--name", "both", "--root", str(tmp_path)])
    capsys.readouterr()
    run(["board", "--root", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert not any("nan" in line for line in lines)
    assert any("both" in line and "no CV" in line for line in lines)
