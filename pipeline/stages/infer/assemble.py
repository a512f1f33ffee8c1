"""Settled rows to the blocks of task.yaml; what no template can say becomes a table with a column of paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.base.errors import listed
from pipeline.stages.infer.columns import Column, shown_path
from pipeline.stages.infer.drafts import Draft
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.formats import DEFAULT_K, Asked
from pipeline.stages.infer.ids import Joined
from pipeline.stages.infer.kinds import Kinds
from pipeline.stages.infer.made import ORIGINAL, Made
from pipeline.stages.infer.paths import FILE
from pipeline.stages.infer.samples import Sample

Block = dict[str, Any]


def add_sources(values: Block, joined: Joined, columns: Sequence[str], made: Made, findings: Findings) -> None:
    """Add `train:` and `test:` to the values of a task, and note what has to be made for them.

    Args:
        values: gets the blocks.
        joined: the rows.
        columns: what the task reads of the training table beside ids: folds and targets.
        made: gets what has to be written.
        findings: gets why.
    """
    ids = [name for name in (joined.id, joined.row_id) if name]
    targets = values["target"] if isinstance(values["target"], list) else [values["target"]]
    in_array = set(targets) if joined.train.labels is not None else set()
    needed = [*ids, *(name for name in columns if name not in in_array)]
    values["train"] = _source(joined.train, "train", needed, made, findings)
    if "labels" in values["train"] and len(targets) == 1:
        values.pop("target")  # an array of labels has no name
    if joined.test is not None:
        values["test"] = _source(joined.test, "test", ids, made, findings)


def submission_block(
    sample: Sample | None,
    kinds: Kinds,
    asked: Asked,
    joined: Joined,
    columns: Sequence[Column],
    made: Made,
    findings: Findings,
) -> Block:
    """Return `submission:` of a task."""
    block: Block = {}
    if sample is not None:
        block["sample"] = _sample_path(sample, made, findings)
    block["format"] = asked.format
    if sample is not None and (own := _own_header(sample, kinds, columns)):
        block["columns"] = own
        reason = "the sample's own names, taken to be in the order of the classes"
        findings.add("submission.columns", listed(own, 4), reason, "guess")
    if joined.row_id is not None:
        block["row_id"] = joined.row_id
    if asked.format == "top_k" and asked.k not in (None, DEFAULT_K):
        block["k"] = asked.k
    if asked.format in ("labels", "top_k") and asked.separator not in (None, " "):
        block["separator"] = asked.separator
    if kinds.clip is not None and kinds.clip[0] < kinds.clip[1]:
        block["clip"] = [float(end) for end in kinds.clip]
        tail = "; heavy-tailed, so its logarithm is easier to learn" if kinds.is_heavy_tailed else ""
        shown = f"{kinds.clip[0]:g} to {kinds.clip[1]:g}"
        findings.add("submission.clip", shown, f"the range of the labelled rows{tail}")
    return block


def relocated(block: Any, is_made: bool) -> Any:
    """Return paths as they are from the data folder: the host's own, where nothing had to be made."""
    if isinstance(block, dict):
        return {key: relocated(value, is_made) for key, value in block.items()}
    if isinstance(block, list):
        return [relocated(value, is_made) for value in block]
    return block if is_made or not isinstance(block, str) else block.removeprefix(f"{ORIGINAL}/")


def uses_unpacked(block: Any) -> bool:
    """Say whether a block names something that was in an archive."""
    if isinstance(block, dict):
        return any(uses_unpacked(value) for value in block.values())
    if isinstance(block, list):
        return any(uses_unpacked(value) for value in block)
    return isinstance(block, str) and block.startswith("unpacked/")


def _source(draft: Draft, part: str, needed: Sequence[str], made: Made, findings: Findings) -> Block:
    """Return the block of one set."""
    if draft.array is not None and not needed:
        block = {"array": _array(draft.array.path, draft.array.key)}
        if part == "train" and draft.labels is not None:
            block["labels"] = _array(draft.labels.path, draft.labels.key)
        return block
    if draft.files is not None:
        return _file_source(draft, part, made, findings)
    if draft.source is None and draft.array is None and not needed:
        return _made_array(draft, part, made)
    block = _table(draft, part, made)
    if draft.array is not None:
        return block | {"array": _array(draft.array.path, draft.array.key)}
    if draft.pixel_shape is not None and draft.table.pixels is not None and draft.source is not None:
        return block | {"pixels": {"columns": draft.table.pixels.pattern, "shape": list(draft.pixel_shape)}}
    return block | _made_array(draft, part, made)


def _file_source(draft: Draft, part: str, made: Made, findings: Findings) -> Block:
    """Return the block of rows with files: templates where some say their paths, else columns of a made table."""
    templates = draft.templates()
    if templates is None:
        n_files = max(map(len, draft.files or ((),)))
        names = [FILE] if n_files == 1 else [f"{FILE}_{place + 1}" for place in range(n_files)]
        paths = {name: [of_row[place] for of_row in draft.files or ()] for place, name in enumerate(names)}
        draft, templates = draft.with_columns(paths), tuple(f"{{{name}}}" for name in names)
        why = "no template says these paths, so they are a column of a made table"
    else:
        why = "gives the path of each row's file"
    block = _table(draft, part, made)
    findings.add(f"{part}.files", ", ".join(map(shown_path, templates)), why)
    return block | {"files": templates[0] if len(templates) == 1 else list(templates)}


def _table(draft: Draft, part: str, made: Made) -> Block:
    """Return the host's table, or one that has to be made."""
    if draft.source is not None:
        return {"table": draft.source}
    made.tables[f"{part}.csv"] = draft.table.frame
    return {"table": f"{part}.csv"}


def _made_array(draft: Draft, part: str, made: Made) -> Block:
    made.arrays[f"{part}_items.npy"] = np.ascontiguousarray(draft.items_as_array())
    return {"array": {"file": f"{part}_items.npy"}}


def _sample_path(sample: Sample, made: Made, findings: Findings) -> str:
    """Return the path of the sample for the task; one that the pipeline cannot follow as it is, is written anew."""
    followed = f"{len(sample.ids.cells):,} rows: its ids, order and columns are followed"
    if sample.index_column is None and sample.table.is_plain and sample.id_column == next(iter(sample.table.columns)):
        findings.add("submission.sample", sample.table.shown, followed)
        return sample.table.path
    names = [sample.id_column, *sample.value_columns]
    made.tables["sample_submission.csv"] = sample.table.frame[names]
    why = "its unnamed index column left out" if sample.index_column is not None else "as a plain CSV"
    findings.add("submission.sample", sample.table.shown, f"{followed}; written anew, {why}", "likely")
    return "sample_submission.csv"


def _own_header(sample: Sample, kinds: Kinds, columns: Sequence[Column]) -> list[str]:
    """Return value columns that have names of their own, as many as there are classes; none where they are classes."""
    if sample.value is not None or kinds.kind == "regression":
        return []
    known = {column.name for column in columns} if len(columns) > 1 else set(kinds.classes)
    is_own = not known & set(sample.value_columns) and len(known) == len(sample.value_columns)
    return list(sample.value_columns) if is_own else []


def _array(path: str, key: str | None) -> Block:
    return {"file": path} if key is None else {"file": path, "key": key}
