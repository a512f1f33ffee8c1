"""The base of everything that comes from a configuration file: frozen, typed, and closed to unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Record(BaseModel):
    """A frozen set of named values; an unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    def plain(self) -> dict[str, Any]:
        """Return the values as JSON knows them; `Record.model_validate(tuples(...))` takes them back."""
        return self.model_dump(mode="json")


def tuples(value: Any) -> Any:
    """Return `value` with every list made a tuple, at any depth: records hold tuples, YAML and JSON give lists."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(tuples(item) for item in value)
    return value


def _off(value: Any) -> Any:
    return None if value is False else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


T = TypeVar("T")
Block = Annotated[T | None, BeforeValidator(_off)]
"""An optional block of a config: `block: off` switches off what a base switched on."""

Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""One name, or several."""
