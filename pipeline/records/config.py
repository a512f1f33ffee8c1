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
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.base.files import hash_json
from pipeline.records.experiment import Experiment
from pipeline.records.faults import explain
from pipeline.records.record import Record, tuples
from pipeline.records.task import Task

R = TypeVar("R", bound=Record)

VARIANTS = ("model", "loss", "optimizer", "schedule")
"""Blocks whose keys belong to the variant that their `name` chooses."""

_FILES: tuple[tuple[str, type[Record]], ...] = (("the experiment's ", Experiment), ("the task's ", Task))
_LONGEST_NAME = 100


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
    values = merge(values, parse_overrides(overrides))
    task_file = values.pop("task", None)
    if not isinstance(task_file, str):
        is_task = "; this looks like a task file itself, give an experiment" if {"kind", "metric"} & set(values) else ""
        found = "missing" if task_file is None else repr(task_file)
        raise ConfigError(f"{path}: task: must name the task file, such as `task: task.yaml` (found: {found}){is_task}")
    task = load_task(key_files.get("task", path).parent / task_file)
    experiment = validate(Experiment, values, str(path))
    return Config(task, experiment, _run_name(path, overrides))


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what `key=value` overrides say, as the blocks of a file; raises ConfigError for one that is none."""
    own: dict[str, Any] = {}
    for override in overrides:  # first among themselves, so that their order does not matter
        own = merge(own, _parse_override(override))
    return own


def load_task(path: Path | str) -> Task:
    """Return the task that a file describes; raises ConfigError like `load_config`."""
    return validate(Task, read_yaml(Path(path)), str(path))


def validate(model: type[R], values: dict[str, Any], where: str) -> R:
    """Return `values` as a record, or raise a ConfigError that names each wrong key and what is allowed there."""
    try:
        return model.model_validate(tuples(values))
    except ValidationError as error:
        elsewhere = [("" if record is model else whose, record) for whose, record in _FILES]
        lines = explain(model, error, elsewhere)
        raise ConfigError(f"{where}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{where}:", *lines])) from None


def merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `child` laid over it, block by block.

    A variant (model, loss, optimizer, schedule) whose `name` the child changes is replaced whole: options of the old
    one mean nothing to the new one.
    """
    merged = dict(base)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            is_renamed = key in VARIANTS and "name" in old and value.get("name", old["name"]) != old["name"]
            merged[key] = value if is_renamed else merge(old, value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; doubled keys and empty values are errors and `1e-3` is a number."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise ConfigError(f"{path}: no such file.{near}") from None
    except IsADirectoryError:
        inside = listed(sorted(other.name for other in path.glob("*.y*ml"))) or "no YAML file"
        raise ConfigError(f"{path}: is a folder; give a file of it ({inside})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_yaml_fault(error)}") from None
    if not isinstance(content, dict):
        found = "an empty file" if content is None else type(content).__name__
        raise ConfigError(f"{path}: expected `key: value` lines, found {found}")
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
    base_names = own.pop("base", [])
    base_names = [base_names] if isinstance(base_names, str) else base_names
    if not isinstance(base_names, list) or not all(isinstance(name, str) for name in base_names):
        raise ConfigError(f"{path}: base: must be a file name or a list of them (found: {base_names!r})")
    values: dict[str, Any] = {}
    key_files: dict[str, Path] = {}
    for name in base_names:
        base_values, base_files = _read_with_bases(path.parent / name, (*seen, path.resolve()))
        values, key_files = merge(values, base_values), key_files | base_files
    return merge(values, own), key_files | dict.fromkeys(own, path)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"'{text}': overrides have the form key=value, such as train.epochs=3")
    if not value.strip():
        raise ConfigError(f"'{text}': has no value; `off` switches a block off, `null` takes the default")
    try:
        parsed: Any = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{text}'{_yaml_fault(error)}") from None
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)


def _run_name(path: Path, overrides: Sequence[str]) -> str:
    """Return the file's stem with the overrides appended, so that variants typed by hand do not collide."""
    whole = "-".join([path.stem, *overrides])
    name = re.sub(r"[^A-Za-z0-9._=+-]+", "_", whole)
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{hash_json(whole)[:8]}"


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, to be put behind the file's name."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": cannot be read as YAML: {error}"
    hint = "; YAML indents with spaces, not tabs" if "\\t" in str(error.problem) else ""
    return f", line {error.problem_mark.line + 1}: {error.problem}{hint}"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which doubled keys and empty values are errors and `1e-3` is a number, as everybody expects."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name == "<<":
                self._refuse("`<<` is not read here; use base: to take over the values of another file", key)
            if name in seen:
                self._refuse(f"doubled key {name}", key)
            if isinstance(value, yaml.ScalarNode) and value.tag.endswith(":null") and value.value == "":
                # It would mean `off`, and whoever commented out the lines of a block may want its defaults.
                self._refuse(f"{name}: has no value; `off` switches a block off, `{{}}` takes its defaults", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(problem: str, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
