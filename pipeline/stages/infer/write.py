"""A concluded task as task.yaml: a reason for every line; what an existing file says stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import ConfigError
from pipeline.base.files import write_text
from pipeline.records.config import merge, read_yaml, validate
from pipeline.records.task import Task
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.yaml_lines import Told, entry, one_line, scalar, wrapped

Values = Mapping[str, Any]

ORDER = (
    *(
        "name",
        "data",
        "input",
        "layout",
        "channels",
        "dicom",
        "audio",
        "kind",
        "metric",
        "id",
        "first_id",
        "target",
        "target_separator",
        "classes",
        "ordinal",
    ),
    *(
        "group",
        "subject",
        "session",
        "fold_column",
        "sample_rate_hz",
        "train",
        "test",
        "unlabelled",
        "submission",
        "exclude",
        "rules",
        "host",
    ),
)
"""The keys of a task in the order in which they are written; others follow."""
_HEAD = (
    "# Concluded by `podium init` from the host's files. Every line can be changed: the other commands read this\n"
    "# file, and `podium init` keeps what stands here.\n"
)


@dataclass(frozen=True)
class Difference:
    """A value that an existing file has otherwise than it was concluded now."""

    key: str
    yours: str
    concluded: str

    def row(self) -> list[str]:
        """Return key, value in the file, and value as concluded."""
        return [self.key, self.yours, self.concluded]


@dataclass(frozen=True)
class Written:
    """What became of a task file."""

    path: Path
    how: Literal["written", "kept", "completed", "replaced"]
    differences: tuple[Difference, ...] = ()


def task_text(values: Values, findings: Findings) -> str:
    """Return the text of a task.yaml with the reason for each line behind or above it.

    Read again by `pipeline.records.config`, the text is the task of the same values.
    """
    questions = [f"# Equally likely: {one_line(question)}\n" for question in findings.open_questions()]
    ordered = sorted(values, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER))
    return (
        _HEAD
        + "".join(wrapped(line) for line in questions)
        + "".join(entry(key, values[key], _told(findings)) for key in ordered)
    )


def write_task(path: Path, values: Values, findings: Findings, overwrite: bool = False) -> Written:
    """Write a task file, or compare it with the one that is there.

    In an existing file every line stays; keys that it lacks are added where the file then still is a valid task.
    With `overwrite` the file is replaced.

    Raises:
        ConfigError: the existing file is no valid task.
    """
    if not path.exists() or overwrite:
        how: Literal["written", "replaced"] = "replaced" if path.exists() else "written"
        write_text(path, task_text(values, findings))
        return Written(path, how)
    old = read_yaml(path)
    validate(Task, old, str(path))
    differences = tuple(_differences(old, values))
    added = _completed(path.read_text(encoding="utf-8"), old, values, findings)
    if added is None:
        return Written(path, "kept", differences)
    write_text(path, added)
    return Written(path, "completed", differences)


def _told(findings: Findings) -> Told:
    return Told(lambda key: _reason(key, findings), _is_leaf)


def _is_leaf(key: str, value: Mapping[str, Any]) -> bool:
    """Say whether a block stands on one line: a metric with its options, an array, columns of pixels."""
    return key == "metric" or key.rpartition(".")[2] in ("array", "labels", "pixels", "audio", "dicom")


def _reason(key: str, findings: Findings) -> str:
    """Return why a key has its value: its own finding, or that of what it belongs to."""
    part = key.split(".")[0]
    others = {
        "name": "names the folders of runs, folds and submissions",
        "first_id": "the number of the first row",
        "classes": "in the order of the sample, or with the positive class second",
        "target_separator": "what stands between labels",
        f"{part}.table": f"the {part} rows",
        "submission.k": "as many classes as the sample lists",
        "submission.separator": "as in the sample",
    }
    for name in (
        key,
        key if key in others else "",
        f"{part} rows" if key.endswith(("array", "pixels", "files")) else "",
    ):
        finding = findings.of(name) if name else None
        if finding is not None:
            sure = "" if finding.sure == "certain" else f" ({finding.sure})"
            return one_line(f"{finding.reason}{sure}")
    if key.endswith(".table") and (table := findings.of(f"{part} table")) is not None:
        return one_line(table.reason)
    return "the labels of the same rows" if key.endswith(".labels") else others.get(key, "see above")


# -- an existing file ----------------------------------------------------------------------------------------------


def _differences(old: Values, new: Values, prefix: str = "") -> Iterator[Difference]:
    """Yield what both have, otherwise."""
    for key, value in new.items():
        if key not in old:
            continue
        was = old[key]
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _differences(was, value, f"{prefix}{key}.")
        elif _plain(was) != _plain(value):
            yield Difference(f"{prefix}{key}", scalar(was), scalar(value))


def _plain(value: Any) -> Any:
    """Return a value so that one name equals a list of it, and a metric by name the block with that name."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value)) if len(value) != 1 else _plain(value[0])
    return value.get("name") if isinstance(value, Mapping) and set(value) == {"name"} else value


def _completed(text: str, old: Values, new: Values, findings: Findings) -> str | None:
    """Return the text of a file with the keys that it lacks, or None where there is none to add."""
    at_top = {key: value for key, value in new.items() if key not in old}
    inside = {
        key: value for key, value in new.items() if isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
    }
    deeper = {
        key: {name: item for name, item in block.items() if name not in old[key]} for key, block in inside.items()
    }
    deeper = {key: block for key, block in deeper.items() if block}
    for blocks in (deeper, {}):
        if _is_valid(merge(merge(dict(old), blocks), at_top)) and (blocks or at_top):
            for key, block in blocks.items():
                text = _with_block(text, key, block, old[key], findings)
            ends = text if text.endswith("\n") or not text else f"{text}\n"
            return ends + "".join(entry(key, value, _told(findings)) for key, value in at_top.items())
    return None


def _is_valid(values: dict[str, Any]) -> bool:
    try:
        validate(Task, values, "")
    except ConfigError:
        return False
    return True


def _with_block(text: str, key: str, added: Values, old: Values, findings: Findings) -> str:
    """Return the text with further keys in a block; one that stands on one line is written out."""
    lines = text.splitlines(keepends=True)
    start = next(place for place, line in enumerate(lines) if re.match(rf"{re.escape(key)}\s*:", line))
    stop = start + 1
    while stop < len(lines) and (not lines[stop].strip() or lines[stop][0] in " \t#"):
        stop += 1
    while stop > start + 1 and (not lines[stop - 1].strip() or lines[stop - 1].startswith("#")):
        stop -= 1
    rest = lines[start].partition(":")[2].split(" #")[0].strip()
    if rest:
        return "".join([*lines[:start], entry(key, {**old, **added}, _told(findings)), *lines[stop:]])
    inner = next((line for line in lines[start + 1 : stop] if line.strip() and not line.lstrip().startswith("#")), "  ")
    indent = inner[: len(inner) - len(inner.lstrip())] or "  "
    more = "".join(entry(name, item, _told(findings), f"{key}.", indent) for name, item in added.items())
    last = lines[stop - 1] if lines[stop - 1].endswith("\n") else f"{lines[stop - 1]}\n"
    return "".join([*lines[: stop - 1], last, more, *lines[stop:]])
