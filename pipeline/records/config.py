"""YAML files to frozen records: `base:` inheritance, `key=value` overrides, and errors that name what is wrong.

base: base.yaml          # this file states only its difference
task: task.yaml          # beside this file
model: {name: resnet}    # another name drops the inherited options of the old one
ema: off                 # drops an inherited block
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.experiment import Experiment
from pipeline.records.record import Record, tuples
from pipeline.records.task import Task

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Config:
    """A task and an experiment as a file and its overrides give them, and the name that their run takes."""

    task: Task
    experiment: Experiment
    run_name: str


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Return the config of an experiment file with `key=value` overrides applied.

    Raises:
        ConfigError: a file is missing or not YAML, a base includes itself, a key is unknown or doubled, or a value
            has the wrong type or range; the message names the file, the key, the value and what is allowed.
    """
    path = Path(path)
    values, key_files = _read_with_bases(path, ())
    for override in overrides:
        values = merge(values, _parse_override(override))
    task_file = values.pop("task", None)
    if not isinstance(task_file, str):
        raise ConfigError(f"{path}: task: must name the task file, such as `task: task.yaml` (found: {task_file!r})")
    task = load_task(key_files["task"].parent / task_file)
    experiment = validate(Experiment, values, str(path))
    return Config(task, experiment, _run_name(path, overrides))


def load_task(path: Path | str) -> Task:
    """Return the task that a file describes; raises ConfigError like `load_config`."""
    return validate(Task, read_yaml(Path(path)), str(path))


def validate(model: type[R], values: dict[str, Any], where: str) -> R:
    """Return `values` as a record, or raise a ConfigError that names each wrong key and what is allowed there."""
    try:
        return model.model_validate(tuples(values))
    except ValidationError as error:
        lines = [_explain(model, dict(fault)) for fault in error.errors()]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(lines)) from None


def merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `child` laid over it, block by block.

    A block whose `name` the child changes is replaced whole: options of the old variant mean nothing to the new one.
    """
    merged = dict(base)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            renamed = old.get("name", value.get("name")) != value.get("name", old.get("name"))
            merged[key] = value if renamed else merge(old, value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; doubled keys are an error and `1e-3` is a number."""
    try:
        content = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise ConfigError(f"{path}: no such file.{near}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line for each value that differs between two nested mappings: `train.epochs: 10 -> 3`."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += difference(was, now, f"{prefix}{key}.")
        elif was != now:
            lines.append(f"{prefix}{key}: {was!r} -> {now!r}")
    return lines


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the merged values and, per top-level key, the file that set it last (paths are relative to that)."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: leads back to this file ({' -> '.join(p.name for p in seen)})")
    own = read_yaml(path)
    base_names = own.pop("base", ())
    values: dict[str, Any] = {}
    key_files: dict[str, Path] = {}
    for name in [base_names] if isinstance(base_names, str) else base_names:
        base_values, base_files = _read_with_bases(path.parent / name, (*seen, path.resolve()))
        values, key_files = merge(values, base_values), key_files | base_files
    return merge(values, own), key_files | dict.fromkeys(own, path)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{text}': overrides have the form key=value, such as train.epochs=3")
    try:
        parsed: Any = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{text}': the value cannot be read as YAML: {error}") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _run_name(path: Path, overrides: Sequence[str]) -> str:
    """Return the file's stem with the overrides appended, so that variants typed by hand do not collide."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", "-".join([path.stem, *overrides]))[:120]


def _explain(model: type[Record], fault: dict[str, Any]) -> str:
    """Turn one fault that pydantic reports into a line with the key, the value, and what is allowed."""
    location = [part for part in fault["loc"] if not isinstance(part, str) or not part.startswith("function-")]
    key, holder = _resolve(model, location)
    if fault["type"] == "extra_forbidden":
        allowed = list(holder.model_fields) if holder else []
        return f"{key}: unknown key.{nearest(str(location[-1]), allowed)} Allowed here: {listed(allowed, 40)}"
    if fault["type"] == "missing":
        return f"{key}: is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key or 'the file'}: {message} (found: {_short(fault['input'])})"


def _resolve(model: type[Record], location: Sequence[str | int]) -> tuple[str, type[Record] | None]:
    """Return the dotted key of a location without pydantic's union tags, and the record type that holds it."""
    holder: type[Record] | None = model
    options: list[Any] = [model]
    parts: list[str] = []
    for part in location:
        records = [option for option in options if isinstance(option, type) and issubclass(option, Record)]
        tagged = [option for option in records if part in _tags(option)]
        if tagged or (len(records) > 1 and part in [record.__name__ for record in records]):
            options = tagged or [record for record in records if record.__name__ == part]
            continue
        if not records and isinstance(part, str) and part not in [str(p) for p in parts] and parts and options:
            continue  # a tag of a union of plain types, such as `int` or `literal[...]`
        holder = records[0] if records else None
        parts.append(str(part))
        field = holder.model_fields.get(str(part)) if holder else None
        options = _flatten(field.annotation) if field else []
    return ".".join(parts), holder


def _flatten(annotation: Any) -> list[Any]:
    """Return the alternatives of a possibly nested union or annotated type."""
    if get_origin(annotation) is None or get_origin(annotation) in (tuple, dict, Literal):
        return [annotation]
    return [option for argument in get_args(annotation) for option in _flatten(argument)]


def _tags(record: type[Record]) -> tuple[Any, ...]:
    """Return the values of a record's `name` when it is a variant in a discriminated union."""
    field = record.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Loader(yaml.SafeLoader):
    """Safe YAML in which doubled keys are errors and `1e-3` is a number, as everybody expects."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"doubled key {listed(doubled)}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
