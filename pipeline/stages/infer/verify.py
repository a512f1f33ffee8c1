"""What was concluded is tried at once: rows and sample are read as every command reads them, and a few items opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.base.errors import DataError, PodiumError
from pipeline.data.forms import formed, stored_form
from pipeline.data.sources import open_items
from pipeline.data.tables import RowSet, load_test, load_train
from pipeline.records.experiment import Input
from pipeline.records.layout import read_layout
from pipeline.records.metrics import resolve_metric
from pipeline.records.task import Task
from pipeline.stages.infer.findings import Findings

_N_OPENED = 3


def verify(task: Task, data: Path, findings: Findings, say: Callable[[str], None]) -> None:
    """Read the rows of a task, its sample and a few items of each set.

    Raises:
        PodiumError: something does not hold; the message says what, and that it was concluded, not stated.
    """
    try:
        train = load_train(task, data)
        metric = resolve_metric(task.metric, task.kind, train.rows.names, task.ordinal, task.submission.threshold)
        sets = {"train": train}
        seen = f"{len(train.rows):,} training rows"
        if task.test is not None:
            sets["test"] = load_test(task, data, train.rows.names)
            rows = sets["test"].rows
            keys = rows.ids if rows.submission_ids is None else rows.submission_ids
            layout = read_layout(task, data, train.rows.names, list(dict.fromkeys(map(str, keys))))
            seen += f", {len(rows):,} test rows, {len(layout.ids):,} rows of the submission"
        shapes = {part: _opened(task, rows_of, say) for part, rows_of in sets.items()}
    except PodiumError as error:
        raise type(error)(
            f"{error}\n  This came up when what was concluded was tried. State what is wrong as key=value (see `podium "
            "init --help`), or mend the files"
        ) from None
    findings.add("read", seen, f"as every command reads them; items of {shapes['train']}; scored by {metric.name}")


def _opened(task: Task, rows: RowSet, say: Callable[[str], None]) -> str:
    """Return the shapes of the first, the middle and the last item of a set; one that cannot be read is an error."""
    form = stored_form(task, Input(), None)
    items = open_items(rows.source, say, form)
    if not items.n:
        raise DataError("no item")
    places = sorted({0, items.n // 2, items.n - 1})[:_N_OPENED]
    shapes = {"x".join(map(str, formed(items.read(place), form, items.name(place)).shape)) for place in places}
    return " and ".join(sorted(shapes))
