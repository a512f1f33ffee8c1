"""What the user's words mean, and the table of a run's scores: shared by commands."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.progress import print_table


def show_scores(folder: Path) -> None:
    """Print the table of a run's scores: each fold, mean and spread, pooled OOF."""
    from pipeline.base.files import read_json

    cv = read_json(folder / "cv.json")
    rows: list[list[Any]] = [
        [f"fold {line['fold']}", line["seed"], line["n_rows"], line["score"], line["note"] or ""]
        for line in cv["folds"]
    ]
    if cv["mean"] is not None:
        spread = f"+- {cv['std']:.5f} (std over folds)" if cv["std"] is not None else ""
        known = f"; known {cv['within']}s, in random folds" if cv.get("within") else ""
        rows.append(["CV, mean of folds", "", "", cv["mean"], f"{spread}{known}".removeprefix("; ")])
    if cv["n_rows"]:
        rows.append(["pooled OOF", "", cv["n_rows"], cv["pooled"], cv["note"] or cv["partial"] or ""])
    rows += _lines_of_subjects(folder, cv)
    if not rows:
        print(f"{folder}: trained on every row, so there is no CV")
        return
    direction = "higher" if cv["higher_is_better"] else "lower"
    selected = "; `best` weights are selected on the fold they are scored on" if cv["weights"] == "best" else ""
    title = f"{folder}: {cv['metric']} ({direction} is better), {cv['weights']} weights{selected}"
    print_table(title, ["", "seed", "rows", cv["metric"], ""], rows)


def _lines_of_subjects(folder: Path, cv: dict[str, Any]) -> list[list[Any]]:
    """Return the spread over subjects and, of a split within them, the score of the run that holds out whole ones."""
    from pipeline.base.files import read_json
    from pipeline.records.runs import across_folder

    rows: list[list[Any]] = []
    scores = list(cv.get("subjects", {}).values())
    if len(scores) > 1:
        rows.append([f"OOF, mean of {len(scores)} subjects", "", "", mean(scores), f"+- {stdev(scores):.5f}"])
    if not cv.get("within"):
        return rows
    other = across_folder(folder) / "cv.json"
    if not other.is_file():
        return [*rows, ["whole subjects held out", "", "", None, "not trained"]]
    across = read_json(other)
    spread = f"+- {across['std']:.5f} (std over folds)" if across["std"] is not None else ""
    remarks = "; ".join(part for part in (spread, across["partial"], across_folder(folder).name) if part)
    return [*rows, ["whole subjects held out", "", across["n_rows"], across["mean"], remarks]]


def show_kind(text: str) -> Any:
    """Return the kind of progress that the user names."""
    if text not in ("auto", "bar", "lines", "quiet"):
        raise ConfigError(f"--show {text}: expected auto, bar, lines or quiet")
    return text


def jobs_from(text: str) -> int | None:
    """Return how many units the user wants side by side; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"--jobs {text}: expected auto, or a number from 1 on")
    return int(text)


def require_send(send: bool, options: dict[str, object]) -> None:
    """Raise a ConfigError when an option that only --send reads is given without it."""
    given = [name for name, value in options.items() if value]
    if given and not send:
        raise ConfigError(f"{', '.join(given)}: is read only with --send")


def board_cell(cell: Any) -> Any:
    """Return names as one text and a missing number as an empty cell."""
    if isinstance(cell, tuple):
        return ", ".join(cell)
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def read_block(option: str, text: str) -> dict[str, Any]:
    """Return a block of keys that the user writes as YAML; nothing is no keys."""
    import yaml

    try:
        block = yaml.safe_load(text) if text else {}
    except yaml.YAMLError:
        block = None
    if not isinstance(block, dict) or not all(isinstance(key, str) for key in block):
        raise ConfigError(f'{option} {text}: expected a block of keys, such as "{{n_bags: 20}}"')
    return block


def read_numbers(option: str, text: str) -> list[float] | None:
    """Return the numbers that the user lists; None for nothing."""
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ConfigError(f"{option} {text}: expected numbers such as 0.7,0.3") from None


def numbers_by_name(text: str, option: str) -> dict[str, float]:
    """Return what `a=0.9,b=0.8` says."""
    try:
        pairs = [part.rpartition("=") for part in text.split(",") if part]
        return {name: float(value) for name, _, value in pairs}
    except ValueError:
        raise ConfigError(f"{option} {text}: expected pairs such as cat=0.9,dog=0.8") from None


def read_folds(text: str) -> Any:
    """Return the folds that the user names: None for every fold, `all`, or numbers."""
    if text in ("", "all"):
        return text or None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--folds {text}: expected numbers such as 0,2, or `all`") from None
