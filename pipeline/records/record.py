"""The base of everything that comes from a configuration file: frozen, typed, and closed to unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag

TAG_MARK = "="
"""Opens the tags of unions that the user does not write, so that error messages can leave them out."""


class Record(BaseModel):
    """A frozen set of named values; an unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

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


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    doubled = [value for place, value in enumerate(values) if value in values[:place]]
    if doubled:
        raise ValueError(f"holds {doubled[0]!r} more than once")
    return values


def _form(value: Any) -> str:
    return TAG_MARK + ("block" if isinstance(value, dict | Record) else "word")


T = TypeVar("T")
Block = Annotated[T | None, BeforeValidator(_off)]
"""An optional block or value of a config: `block: off` switches off what a base switched on."""

Distinct = AfterValidator(_distinct)
"""No value of a tuple comes twice."""

Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Distinct]
"""One name, or several."""

# Without these, a wrong block would be reported once as a block and once more as no word.
BY_FORM = Discriminator(_form)
"""For `Annotated[Annotated[Literal[...], WORD] | Annotated[dict or Record, BLOCK], BY_FORM]`: a word or a block."""
WORD = Tag(TAG_MARK + "word")
BLOCK = Tag(TAG_MARK + "block")
