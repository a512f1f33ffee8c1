"""Whether items are pictures or signals, how the axes of arrays lie, and how sounds become pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.forms import likely_layout
from pipeline.data.readers import load_array
from pipeline.records.suffixes import AUDIO_SUFFIXES, RECORD_SUFFIXES
from pipeline.stages.infer.arrays import array_facts, is_signal, load_values
from pipeline.stages.infer.columns import words_of
from pipeline.stages.infer.drafts import Draft
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.items import FileIndex
from pipeline.stages.infer.survey import File

Given = dict[str, Any]

_N_LOOKED_AT = 24
"""So many items say how all of them lie."""
_MOST_CHANNELS = 16
"""A last axis of at most this length, beside two longer ones, is that of the channels of a picture."""


@dataclass(frozen=True)
class Looks:
    """What some training items look like."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]
    where: str
    words: frozenset[str]
    """Of the name of the array or file, not of its folder."""


def find_input(train: Draft, index: FileIndex, given: Given, findings: Findings) -> Given:
    """Return the keys of a task that say what items are: `input`, `layout`, `audio`, as far as they are needed.

    Args:
        train: the labelled rows.
        index: the item files.
        given: what the user states, as in task.yaml.
        findings: gets what was measured.
    """
    stated = given.get("input")
    if train.files is not None:
        files = _some_files(train, index)
        if files[0].suffix in AUDIO_SUFFIXES and stated != "signal":
            return {} if "audio" in given else {"audio": _audio(files, findings)}
        if files[0].kind == "image" or files[0].suffix in AUDIO_SUFFIXES:
            return {"input": stated} if stated else {}
        if files[0].suffix in RECORD_SUFFIXES:
            findings.add(
                "input", stated or "signal", f"each file is a table like {files[0].name}: a column is a channel"
            )
            return {"input": stated or "signal"}
    looks = _looks_of(train, index)
    signal, is_sure = is_signal(looks.shapes[0], looks.dtype, looks.words)
    kind = stated or ("signal" if signal else "image")
    shape = "x".join(map(str, looks.shapes[0]))
    flag = "" if is_sure or stated else f"input={'image' if signal else 'signal'}"
    findings.add(
        "input", kind, f"items of {shape} {looks.dtype} in {looks.where}", "likely" if is_sure else "guess", flag
    )
    found: Given = {"input": kind} if kind != "image" else {}
    if train.pixel_shape is None and "layout" not in given:
        found |= _layout(kind, looks, findings)
    return found


def _layout(kind: str, looks: Looks, findings: Findings) -> Given:
    """Return `layout:` where channels are the last axis."""
    first = looks.shapes[0]
    if kind == "signal":
        layout, is_certain = likely_layout([*looks.shapes])
        if layout != "channels_last":
            return {}
        why = (
            "items differ in length along their first axis"
            if is_certain
            else "the first axis is the longer one, so it is time"
        )
        flag = (
            "" if is_certain or max(first) >= 4 * min(each for each in first if each > 1) else "layout=channels_first"
        )
        findings.add("layout", "channels_last", why, "certain" if is_certain else "likely", flag)
        return {"layout": "channels_last"}
    if len(first) != 3 or first[0] in (1, 3, 4) or first[2] in (1, 3, 4):
        return {}
    if first[2] <= _MOST_CHANNELS < min(first[:2]) or first[2] < min(first[:2]) // 2:
        findings.add("layout", "channels_last", f"the last axis of {first[2]} is the shortest", "likely")
        return {"layout": "channels_last"}
    return {}


def _audio(files: list[File], findings: Findings) -> Given:
    """Return how sounds become pictures: at the rate that most files have, as long as they usually are."""
    from pipeline.data.audio import sound_facts, suggested_audio

    facts = [sound_facts(file.real) for file in files]
    audio = suggested_audio(facts)
    longest = max(each.seconds for each in facts)
    reason = (
        f"of {len(facts)} sounds most are sampled at {audio.sample_rate_hz:g} Hz, and the longest takes {longest:g} s;"
        " about 128 columns for one"
    )
    findings.add("audio", f"log-mel pictures of {audio.seconds:g} s", reason, "likely")
    return audio.model_dump(exclude_defaults=True)


def _looks_of(train: Draft, index: FileIndex) -> Looks:
    if train.array is not None:
        own = words_of(train.array.key or "") | words_of(train.array.path.rpartition("/")[2])
        return Looks((train.array.shape[1:],), train.array.dtype, train.array.shown, own)
    if train.files is not None:
        files = _some_files(train, index)
        arrays = [_item_of(file) for file in files]
        return Looks(tuple(array.shape for array in arrays), arrays[0].dtype, files[0].name, words_of(files[0].name))
    if train.pixel_shape is not None:
        is_row = train.pixel_shape[0] == 1 and len(train.pixel_shape) == 2
        kind = np.dtype(np.float32) if is_row else np.dtype(np.uint8)
        return Looks((train.pixel_shape,), kind, f"the columns of {train.table.shown}", frozenset())
    values = train.items_as_array()
    return Looks((values.shape[1:],), values.dtype, train.table.shown, frozenset())


def _some_files(train: Draft, index: FileIndex) -> list[File]:
    paths = [paths[0] for paths in train.files or () if paths]
    chosen = set(paths[:: max(1, len(paths) // _N_LOOKED_AT)][:_N_LOOKED_AT])
    return [file for file in index.files if file.path in chosen]


def _item_of(file: File) -> NDArray[Any]:
    if file.suffix in (".npz", ".pt", ".pth"):
        return load_values(max(array_facts([file]), key=lambda each: int(np.prod(each.shape))))
    return load_array(file.real)
