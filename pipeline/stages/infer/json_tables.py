"""JSON to rows of text cells: COCO's images and annotations, records, and mappings from ids or labels.

Numbers keep the digits that the file has. Lists of many numbers, such as the bands of a radar image, become arrays
while the file is read, so that millions of them are never held one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest

if TYPE_CHECKING:
    import pandas as pd

MIN_ARRAY = 64
"""From so many numbers on a list is an array; shorter ones are cells, such as boxes and several labels."""

_FILE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy", ".wav", ".dcm"})
_IMAGE_KEYS, _LABEL_KEYS = ("imageid",), ("categoryid", "labelid", "classid", "label", "labels", "category", "class")

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class JsonTable:
    """The rows of a JSON file."""

    frame: pd.DataFrame
    """Text cells; a missing one is empty."""
    kind: str
    """What the file is, in words."""
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Columns of number lists, (N, length) each, which are not in the frame."""


def read_json_table(content: bytes, path: Path, is_lines: bool = False, part: str | None = None) -> JsonTable:
    """Return the rows of a JSON text.

    Args:
        content: the text; UTF-8, 16 or 32.
        path: for messages.
        is_lines: whether each line holds a value of its own.
        part: which list to take, where the file holds several under names.

    Raises:
        DataError: it is no JSON, or none of the forms that are known.
    """
    try:
        value = _loaded(content, is_lines)
    except ValueError as error:  # also of bytes that are no text
        raise DataError(f"{path}: is damaged, or no JSON: {error}") from None
    if _is_coco(value) and part is None:
        return _coco(value, path)
    records, kind = _records(value, path, part)
    return _table(records, kind, path)


def _loaded(content: bytes, is_lines: bool) -> Any:
    """Return the value, with numbers as the text that they are, and long lists of them as arrays."""

    def loads(text: bytes | str) -> Any:
        return json.loads(text, object_hook=_with_arrays, parse_int=str, parse_float=str, parse_constant=str)

    if is_lines:
        lines = content.decode(json.detect_encoding(content)).splitlines()
        return [loads(line) for line in lines if line.strip()]
    return loads(content)


def _with_arrays(record: dict[str, Any]) -> dict[str, Any]:
    for name, value in record.items():
        if isinstance(value, list) and len(value) >= MIN_ARRAY and isinstance(value[0], str | list):
            with suppress(ValueError):  # of texts, or rows of several lengths
                record[name] = np.asarray(value, dtype=np.float32)
    return record


def _is_coco(value: Any) -> bool:
    """Say whether a value has COCO's lists; a test set may have none of annotations, or an empty one."""
    annotations = value.get("annotations") or [{}] if isinstance(value, dict) else None
    return isinstance(value, dict) and _is_records(value.get("images")) and _is_records(annotations)


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(record, dict) for record in value)


def _coco(value: Mapping[str, Any], path: Path) -> JsonTable:
    """Return one row for each image, with the labels of its annotations in one cell.

    The form of https://cocodataset.org/#format-data: `category_id` holds ids, `label` (or `labels`, where an image has
    several) the names that `categories` gives them. Boxes and outlines are left out.
    """
    images, annotations = value["images"], value.get("annotations") or []
    if not annotations:
        return _table(images, "COCO: images without annotations", path)
    image_key = _key(annotations, _IMAGE_KEYS, path, "annotations")
    label_key = _key(annotations, _LABEL_KEYS, path, "annotations")
    own_key = _key(images, ("id", *_IMAGE_KEYS), path, "images")
    names = {_text(category.get("id")): _text(category.get("name")) for category in value.get("categories") or []}
    found: dict[str, dict[str, None]] = {_text(image.get(own_key)): {} for image in images}
    for annotation in annotations:
        image = _text(annotation.get(image_key))
        if image not in found:
            raise DataError(f"{path}: an annotation names the image '{image}', which is not among images")
        labels = annotation.get(label_key)
        found[image].update(dict.fromkeys(map(_text, labels if isinstance(labels, list) else [labels])))
    has_several = any(len(labels) > 1 for labels in found.values())
    separator = _separator(names.get(label, label) for labels in found.values() for label in labels)
    records = []
    for image in images:
        labels = list(found[_text(image.get(own_key))])
        cells = {label_key: separator.join(labels)}
        if names:
            cells["labels" if has_several else "label"] = separator.join(names.get(label, label) for label in labels)
        records.append({**image, **cells})
    return _table(records, "COCO: images, annotations and categories, one row for each image", path)


def _key(records: Records, wanted: Sequence[str], path: Path, where: str) -> str:
    """Return the key of a record that means one of the wanted ones, spelt in whatever way."""
    plain = {key.lower().replace("_", "").replace("-", ""): key for key in records[0]}
    for name in wanted:
        if name in plain:
            return plain[name]
    raise DataError(f"{path}: {where} have none of the keys {listed(wanted)}; they have {listed(records[0], 12)}")


def _records(value: Any, path: Path, part: str | None) -> tuple[Records, str]:
    """Return the rows of a value as records, and what it is."""
    if _is_records(value):
        return value, "a list of records"
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        width = max(map(len, value))
        return [
            {f"column_{n}": cell for n, cell in enumerate(row)} for row in value
        ], f"a list of rows of {width} cells"
    if isinstance(value, list) and value:
        return [{"column_0": cell} for cell in value], "a list of values"
    if isinstance(value, dict) and value:
        return _records_of_mapping(value, path, part)
    raise DataError(f"{path}: holds no rows; expected a list of records, a mapping from ids, or COCO's lists")


def _records_of_mapping(value: dict[str, Any], path: Path, part: str | None) -> tuple[Records, str]:
    lists = [name for name, inner in value.items() if _is_records(inner)]
    if part is not None and part not in lists:
        raise DataError(f"{path}: has no list '{part}'.{nearest(part, lists)} It has: {listed(lists)}")
    if len(lists) > 1 and part is None:
        raise DataError(f"{path}: holds several lists of records; name one: {listed(lists)}")
    if lists:
        return value[part or lists[0]], f"a list of records under '{part or lists[0]}'"
    inners = list(value.values())
    if all(isinstance(inner, dict) for inner in inners):
        if _are_columns([tuple(inner) for inner in inners]):
            ids = list(inners[0])
            return [{"id": key, **{name: value[name][key] for name in value}} for key in ids], "columns by id"
        return [{"id": key, **inner} for key, inner in value.items()], "a mapping from ids to records"
    if all(isinstance(inner, list) for inner in inners):
        if all(_is_file_name(cell) for inner in inners for cell in inner):
            records = [{"file": cell, "label": label} for label, inner in value.items() for cell in inner]
            return records, "a mapping from labels to lists of files"
        if _are_columns([tuple(range(len(inner))) for inner in inners]):
            return [dict(zip(value, cells, strict=True)) for cells in zip(*inners, strict=True)], "columns"
    return [{"id": key, "label": inner} for key, inner in value.items()], "a mapping from ids to labels"


def _are_columns(keys: Sequence[tuple[object, ...]]) -> bool:
    """Say whether few names lead to many cells each, the same for all: tables have more rows than columns."""
    return len(keys[0]) > len(keys) and all(other == keys[0] for other in keys)


def _is_file_name(cell: object) -> bool:
    return isinstance(cell, str) and PurePosixPath(cell).suffix.lower() in _FILE_ENDINGS


def _table(records: Records, kind: str, path: Path) -> JsonTable:
    """Return records as text cells and arrays; what a record lacks is empty, records inside become columns `a.b`."""
    import pandas as pd

    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for record in flat for name in record))
    arrays: dict[str, NDArray[np.float32]] = {}
    columns: dict[str, list[str]] = {}
    for name in names:
        cells = [record.get(name) for record in flat]
        is_uneven = len({len(cell) for cell in cells if isinstance(cell, np.ndarray | list)}) > 1
        if is_uneven:
            cells = [_as_labels(cell) for cell in cells]
        if any(isinstance(cell, np.ndarray) for cell in cells):
            arrays[name] = _stacked(cells, name, path)
        else:
            columns[name] = _texts(cells)
    return JsonTable(pd.DataFrame(columns, index=pd.RangeIndex(len(flat)), dtype=str), kind, arrays)


def _flat(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in record.items():
        cells |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return cells


def _stacked(cells: Sequence[Any], name: str, path: Path) -> NDArray[np.float32]:
    shapes = {cell.shape if isinstance(cell, np.ndarray) else None for cell in cells}
    if len(shapes) > 1:
        found = listed(sorted(map(str, shapes)), 5)
        raise DataError(f"{path}: '{name}' holds lists of numbers of several shapes where one is needed: {found}")
    return np.stack(cells)


def _as_labels(cell: Any) -> Any:
    """Return a long list of labels that are whole numbers as text again; anything else as it is."""
    is_list = isinstance(cell, np.ndarray) and cell.ndim == 1 and bool((cell % 1 == 0).all())
    return [str(int(label)) for label in cell] if is_list else cell


def _texts(cells: Sequence[Any]) -> list[str]:
    """Return cells as text; several labels are joined by the first of blank, semicolon and pipe that is in none."""
    lists = [cell for cell in cells if isinstance(cell, list)]
    if not all(isinstance(label, str) for cell in lists for label in cell):
        return [json.dumps(cell) if isinstance(cell, list) else _text(cell) for cell in cells]
    separator = _separator(label for cell in lists for label in cell)
    return [separator.join(cell) if isinstance(cell, list) else _text(cell) for cell in cells]


def _separator(labels: Any) -> str:
    used = "".join(labels)
    return next((mark for mark in " ;|" if mark not in used), "\t")


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return {True: "true", False: "false"}[cell] if isinstance(cell, bool) else str(cell)
