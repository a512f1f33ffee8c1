"""What pydantic finds wrong with a configuration, in one line for each fault: the key, the value, what is allowed.

schedule.name: 'cos' is unknown. Did you mean 'cosine'? Allowed: constant, cosine, one_cycle, step
train.epochs: must be a whole number (found: "3")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from pipeline.base.errors import listed, nearest
from pipeline.records.record import TAG_MARK, Record

Records = tuple[type[Record], ...]

_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "dict_type": "must be a block of keys, such as {{key: value}}",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "too_short": "must hold {min_length} or more values",
    "too_long": "must hold {max_length} or fewer values",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "may hold letters, digits and . _ - only, and starts with a letter or digit",
}
"""By the type of a fault; filled with its context."""

_MODEL_TYPES = ("model_type", "model_attributes_type")


@dataclass(frozen=True)
class _Place:
    """What stands at a location of the faulty values."""

    key: str
    """As the user writes it: `loss.class_weights.cat`, `seeds[1]`."""
    holders: Records
    """The records that may hold the last part of the key; several in a union of variants."""
    annotation: Any
    """The type of what belongs here; None where no field is."""


def explain(model: type[Record], error: ValidationError, elsewhere: Sequence[tuple[str, type[Record]]]) -> list[str]:
    """Return a line for each fault.

    Args:
        model: what the values were to become.
        error: what pydantic reports.
        elsewhere: (prefix, record) of all configuration there is, searched for keys that stand at the wrong place.
    """
    faults: list[dict[str, Any]] = [dict(fault) for fault in error.errors(include_url=False)]
    like: dict[Any, list[Any]] = {}
    for fault in faults:  # a list of ten numbers that should be texts makes one line, not ten
        if not _only_follows(fault, faults):
            location = fault["loc"]
            whole = location[:-1] if location and isinstance(location[-1], int) else location
            like.setdefault((whole, fault["type"]), []).append(fault)
    return [_line(model, same[0], elsewhere) + _more(len(same) - 1) for same in like.values()]


def _more(n: int) -> str:
    return f"; {n} more like it" if n else ""


def _only_follows(fault: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a list counts as too short only because items of it are wrong, which other faults say better."""
    depth = len(fault["loc"])
    deeper = (other for other in faults if len(other["loc"]) > depth and other["loc"][:depth] == fault["loc"])
    return fault["type"] == "too_short" and any(deeper)


def _line(model: type[Record], fault: Mapping[str, Any], elsewhere: Sequence[tuple[str, type[Record]]]) -> str:
    place = _place(model, fault["loc"])
    kind, found = fault["type"], fault["input"]
    if kind == "invalid_key" or fault["loc"][-1:] == ("[key]",):
        holder = place.key.rpartition("[")[0]
        return f"{holder or 'the file'}: the key {_shown(found)} is no text; put it in quotes"
    if kind == "extra_forbidden":
        return f"{place.key}: {_unknown_key(place, str(fault['loc'][-1]), elsewhere)}"
    if kind == "missing":
        return _missing(place, fault)
    if kind == "value_error":  # our own validators, which name the keys below the place themselves
        reason = fault["msg"].removeprefix("Value error, ")
        separator = "." if reason.partition(":")[0].isidentifier() else ": "
        return f"{place.key}{separator}{reason}" if place.key else reason
    if kind in ("literal_error", "union_tag_invalid"):
        return _unknown_word(place, fault)
    return f"{place.key}: {_wanted(place, fault)} (found: {_shown(found)})"


def _place(model: type[Record], location: Sequence[str | int]) -> _Place:
    """Follow a location into the records, leaving out the tags of unions that pydantic puts into it."""
    key = ""
    choices: Records = (model,)
    holders: Records = (model,)
    annotation: Any = model
    for part in location:
        if str(part).startswith(TAG_MARK) or part == "[key]":
            continue
        variants = tuple(record for record in choices if part in _variant_names(record))
        if variants:
            choices = variants
            continue
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
        field = next((record.model_fields[str(part)] for record in choices if str(part) in record.model_fields), None)
        holders, annotation = choices, field.annotation if field else None
        choices = _records_in(annotation)
    return _Place(key, holders, annotation)


def _unknown_key(place: _Place, name: str, elsewhere: Sequence[tuple[str, type[Record]]]) -> str:
    known = [field for record in place.holders for field in record.model_fields]
    allowed = f"Allowed here: {listed(known, 40)}"
    if "." in name:
        return "unknown key; in a file write one block within the other, such as `train: {epochs: 3}`"
    variants: dict[str, list[str]] = {}
    for prefix, record in elsewhere:
        for path, variant in _places_of(name, record, prefix):
            variants.setdefault(path, []).extend(variant)
    if 1 <= len(variants) <= 2:
        places = [path + (f" (name: {' or '.join(words)})" if words else "") for path, words in variants.items()]
        return f"unknown key here; it belongs to {' or '.join(places)}. {allowed}"
    return f"unknown key.{nearest(name, known)} {allowed}"


def _places_of(
    name: str, record: type[Record], prefix: str, variant: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield where in a record, at any depth, a key of this name may stand, and in which variant."""
    for field_name, field in record.model_fields.items():
        if field_name == name:
            yield prefix + name, variant
        for inner in _records_in(field.annotation):
            yield from _places_of(name, inner, f"{prefix}{field_name}.", _variant_names(inner))


def _missing(place: _Place, fault: Mapping[str, Any]) -> str:
    if isinstance(fault["loc"][-1], int):
        whole = place.key.rpartition("[")[0]
        return f"{whole}: has too few values (found: {_shown(fault['input'])})"
    field = place.holders[0].model_fields.get(place.key.rpartition(".")[2])
    about = f" ({field.description.rstrip('.')})" if field and field.description else ""
    words = listed((word for option in _options(place.annotation) for word in _literals(option)), 40)
    return f"{place.key}: is missing{about}{'. Allowed: ' if words else ''}{words}"


def _unknown_word(place: _Place, fault: Mapping[str, Any]) -> str:
    """Say which words are allowed, and that a block is where one may stand instead."""
    key, found = place.key, fault["input"]
    words = [str(word) for option in _options(place.annotation) for word in _literals(option)]
    if fault["type"] == "union_tag_invalid":
        key, found = f"{key}.name", found["name"]
        words = [word for record in _records_in(place.annotation) for word in _variant_names(record)]
    near = nearest(found, words) if isinstance(found, str) and found not in words else ""
    blocks = [_block(option) for option in _options(place.annotation) if _is_block(option)]
    instead = f", or a block {blocks[0]}" if blocks and fault["type"] == "literal_error" else ""
    return f"{key}: {_shown(found)} is unknown.{near} Allowed: {listed(words, 40)}{instead}"


def _wanted(place: _Place, fault: Mapping[str, Any]) -> str:
    kind, found = fault["type"], fault["input"]
    records = _records_in(place.annotation)
    if kind == "union_tag_not_found":
        words = [word for record in records for word in _variant_names(record)]
        return f"must have a name, one of {listed(words, 40)}"
    if kind in _MODEL_TYPES and records:
        named = f"{{name: {found}}}" if isinstance(found, str) and "name" in records[0].model_fields else None
        return f"must be a block of keys, such as {named or _block(records[0])}"
    if kind == "string_type":
        is_scalar = isinstance(found, int | float)
        return "must be text" + ("; put it in quotes, exactly as the tables have it" if is_scalar else "")
    if kind == "tuple_type":
        if any(get_args(option)[:1] == (str,) for option in _options(place.annotation)):
            return "must be a name or a list of names, each in quotes where it is no word"
        return f"must be a list, such as [{_shown(found)}]" if isinstance(found, int | float) else "must be a list"
    template = _WORDS.get(kind)
    return template.format(**fault.get("ctx", {})) if template else str(fault["msg"]).replace("Input should", "must")


def _block(option: Any) -> str:
    """Return how a block of this type looks: the keys that it needs, else its first ones."""
    if get_origin(option) is dict:
        return "{name: number, ...}"
    fields = option.model_fields
    needed = [name for name, field in fields.items() if field.is_required()] or list(fields)[:2]
    return "{" + ", ".join(f"{name}: ..." for name in needed) + "}"


def _is_block(option: Any) -> bool:
    return get_origin(option) is dict or (isinstance(option, type) and issubclass(option, Record))


def _records_in(annotation: Any) -> Records:
    return tuple(option for option in _options(annotation) if isinstance(option, type) and issubclass(option, Record))


def _options(annotation: Any) -> list[Any]:
    """Return the alternatives of a possibly nested union or annotated type; lists and dicts stay whole."""
    if get_origin(annotation) in (None, tuple, dict, Literal):
        return [annotation]
    return [option for argument in get_args(annotation) for option in _options(argument)]


def _literals(option: Any) -> tuple[Any, ...]:
    return get_args(option) if get_origin(option) is Literal else ()


def _variant_names(record: type[Record]) -> tuple[Any, ...]:
    """Return the value of a record's `name` when it is a variant in a union that is told apart by it."""
    field = record.model_fields.get("name")
    return _literals(field.annotation) if field else ()


def _shown(value: Any) -> str:
    """Return a value as YAML has it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return text if len(text) <= 80 else text[:77] + "..."
