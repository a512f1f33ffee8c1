"""Entries of `augment.albumentations` to transforms of that library, with every mistake named by its place.

The library itself only warns of an argument that it does not know, and goes on without it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
from pydantic import ValidationError

from pipeline.base.errors import ConfigError, listed, nearest

Entry = str | Mapping[str, Any]
"""As `Augment.albumentations` has it: a name, or `{name: {argument: value}}`."""

_CONTAINERS = ("OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf")
_OTHER_PARTS = ("transforms3d", "core.transforms_interface", "core.composition")  # volumes, and what is no transform
_TYPE = "changes the type or the layout of images, which is done here already; input.normalize: says how"
_BOXES, _MASKS, _OTHERS = "needs boxes", "needs masks", "needs other images or texts"
_REFUSED = {
    **dict.fromkeys(("FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2"), _TYPE),
    **dict.fromkeys(("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop"), _BOXES),
    **dict.fromkeys(("RandomCropNearBBox", "RandomSizedBBoxSafeCrop"), _BOXES),
    **dict.fromkeys(("ConstrainedCoarseDropout", "CropNonEmptyMaskIfExists", "MaskDropout"), _MASKS),
    **dict.fromkeys(("FDA", "HistogramMatching", "PixelDistributionAdaptation"), _OTHERS),
    **dict.fromkeys(("Mosaic", "OverlayElements", "TextImage"), _OTHERS),
    **dict.fromkeys(("Compose", "ReplayCompose", "SelectiveChannelTransform"), "is not read here; use Sequential"),
    **dict.fromkeys(("MixUp", "Mixup", "CutMix"), "is no transform of one image; mix: mixes samples"),
    "Lambda": "needs Python code",
}
_ABOUT_MASKS = (
    "fill_mask",
    "keypoint_remapping_method",
    "mask",
    "mask_drop_value",
    "mask_interpolation",
    "mask_params",
)
_ADVICE = ("is a special case of", "is a specialized version of", "is an alias for", "is very slow")
"""In warnings that leave the transform as it was asked for."""
_CV2_NAME = re.compile(r"(?:cv2\.)?((?:INTER|BORDER)_\w+)")


@dataclass(frozen=True)
class Node:
    """A transform, and where it stands."""

    name: str
    where: str
    transform: Any
    children: tuple[Node, ...]
    is_bare: bool
    """Whether it was given no argument but p."""


def make_transforms(entries: Any, where: str) -> tuple[Node, ...]:
    """Return the transforms that a list of entries names.

    Args:
        entries: a list or tuple of entries; at least one.
        where: the place of the list, for messages.

    Raises:
        ConfigError: a transform, argument or value is not what the library takes, or makes no sense here.
    """
    if not isinstance(entries, list | tuple) or not entries:
        raise ConfigError(f"{where}: must be a list of transforms, and not empty (found: {entries!r})")
    return tuple(_make(entry, f"{where}[{number}]") for number, entry in enumerate(entries))


def text_of(error: BaseException) -> str:
    """Return the text of an error in one line, cut where it gets long."""
    return _short(str(error) or type(error).__name__)


def _make(entry: Any, where: str) -> Node:
    """Return the transform of an entry, or raise a ConfigError for whatever the library would refuse or warn of."""
    block = {entry: {}} if isinstance(entry, str) else entry
    if not isinstance(block, Mapping) or len(block) != 1 or not isinstance(next(iter(block.values())), Mapping):
        raise ConfigError(f"{where}: must be a name or one block `name: {{argument: value}}` (found: {entry!r})")
    ((name, written),) = block.items()
    where = f"{where}.{name}"
    made_by = _class(name, where)
    _refuse_arguments(made_by, written, where)
    arguments = {key: _cv2_number(value, f"{where}.{key}") for key, value in written.items()}
    children: tuple[Node, ...] = ()
    if name in _CONTAINERS:
        _refuse_container(written, where)
        children = make_transforms(written.get("transforms"), f"{where}.transforms")
        arguments["transforms"] = [child.transform for child in children]
    node = Node(name, where, _constructed(made_by, arguments, where), children, not set(written) - {"p"})
    if node.transform.p == 0:
        raise ConfigError(f"{where}.p: 0 never applies it; leave it out")
    return node


def _class(name: Any, where: str) -> Callable[..., Any]:
    if name in _REFUSED:
        raise ConfigError(f"{where}: {_REFUSED[name]}")
    known = _classes()
    if name not in known:
        version = _library().__version__
        raise ConfigError(f"{where}: no transform for images in albumentations {version}.{nearest(str(name), known)}")
    return known[name]


@lru_cache(maxsize=1)
def _library() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the package index at every import
    return importlib.import_module("albumentations")  # it has no types, so a plain import would be an error to mypy


@lru_cache(maxsize=1)
def _classes() -> dict[str, Callable[..., Any]]:
    """Return what an entry may name."""
    library, found = _library(), {}
    for name, value in vars(library).items():
        if inspect.isclass(value) and issubclass(value, library.BasicTransform):
            is_other = any(part in value.__module__ for part in _OTHER_PARTS)
            if name not in _REFUSED and (not is_other or name == "NoOp"):
                found[name] = value
    return found | {name: getattr(library, name) for name in _CONTAINERS}


def _refuse_arguments(made_by: Callable[..., Any], written: Mapping[str, Any], where: str) -> None:
    """Raise for arguments that the library would pass over, and for missing ones."""
    parameters = inspect.signature(made_by).parameters
    known = [name for name in parameters if name not in (*_ABOUT_MASKS, "first", "second")]
    for key in written:
        if key in _ABOUT_MASKS and key in parameters:
            raise ConfigError(f"{where}.{key}: is never read, because there are only images here")
        if key not in known:
            raise ConfigError(f"{where}.{key}: unknown argument.{nearest(key, known)} Allowed: {listed(known, 40)}")


def _refuse_container(written: Mapping[str, Any], where: str) -> None:
    """Raise for numbers that the library takes unchecked."""
    p, n, replace = written.get("p", 1), written.get("n", 1), written.get("replace", False)
    for key, value, is_right, wanted in (
        ("p", p, isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1, "a number of 0..1"),
        ("n", n, isinstance(n, int) and not isinstance(n, bool) and n >= 1, "a whole number >= 1"),
        ("replace", replace, isinstance(replace, bool), "true or false"),
    ):
        if not is_right:
            raise ConfigError(f"{where}.{key}: must be {wanted} (found: {value!r})")


def _cv2_number(value: Any, where: str) -> Any:
    """Return a word such as `BORDER_REFLECT_101` or `cv2.INTER_AREA` as OpenCV's number; all else as it is."""
    if isinstance(value, tuple | list):
        return type(value)(_cv2_number(inner, where) for inner in value)
    match = _CV2_NAME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if not hasattr(cv2, match[1]):
        known = [name for name in dir(cv2) if _CV2_NAME.fullmatch(name)]
        raise ConfigError(f"{where}: OpenCV has no '{match[1]}'.{nearest(match[1], known)}")
    return getattr(cv2, match[1])


def _constructed(made_by: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            transform = made_by(**arguments)
        except Exception as error:
            raise ConfigError(_faults(error, arguments, where)) from None
    texts = [str(warning.message) for warning in caught]
    for text in texts:
        if not any(words in text for words in _ADVICE):
            raise ConfigError(f"{where}: {_short(text)}")
    return transform


def _faults(error: Exception, arguments: Mapping[str, Any], where: str) -> str:
    """Return what is wrong with the arguments; the library wraps what pydantic reports in a ValueError."""
    if not isinstance(error.__cause__, ValidationError):
        return f"{where}: {text_of(error)}"
    faults = error.__cause__.errors(include_url=False, include_context=False)
    reasons: dict[str, list[str]] = {}
    for fault in faults:  # a value that may take several forms has one fault for each of them
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("tuple", "list")
        reason = "is missing" if fault["type"] == "missing" else reason
        reasons.setdefault(str(fault["loc"][0]) if fault["loc"] else "", []).append(reason)
    lines = []
    for key, texts in reasons.items():
        found = f" (found: {_short(repr(arguments[key]))})" if key in arguments else ""
        lines.append(f"{where}{'.' if key else ''}{key}: {_short(' or '.join(dict.fromkeys(texts)))}{found}")
    return "; ".join(lines)


def _short(text: str, most: int = 240) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[:most]} ..."
