"""What a row of the submission holds, by the sample's cells and the kind of the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.records.scores import METRICS
from pipeline.records.task import Format
from pipeline.stages.infer.columns import hints_at, shared, words_of
from pipeline.stages.infer.findings import Finding, Sure
from pipeline.stages.infer.kinds import Kinds
from pipeline.stages.infer.samples import SEPARATORS, Sample, bare, listed_tokens, split

_PROBABILITY = ("prob", "confidence", "likelihood", "chance")
DEFAULT_K = 5


@dataclass(frozen=True)
class Asked:
    """The form of the submission."""

    format: Format
    finding: Finding
    k: int | None = None
    separator: str | None = None


def find_format(kinds: Kinds, sample: Sample | None, metric: str | None, given: Mapping[str, Any]) -> Asked:
    """Return what a row of the submission holds.

    Args:
        kinds: what the targets are.
        sample: what is asked for.
        metric: the metric that the user or the host names; one that needs probabilities decides against labels.
        given: keys of `submission:` that the user states.
    """
    found = _without_sample(kinds, metric) if sample is None else _of_sample(kinds, sample, metric)
    form = given.get("format")
    if form is None:
        return found
    finding = Finding("submission.format", form, "as you said")
    k = found.k or (_listed_k(sample) if form == "top_k" and sample is not None else None)
    return Asked(form, finding, k, found.separator)


def _without_sample(kinds: Kinds, metric: str | None) -> Asked:
    if kinds.kind == "regression":
        return _asked("values", "no sample: a value for each row", "likely")
    if metric in ("map_at_k", "top_k_accuracy"):
        return Asked("top_k", Finding("submission.format", "top_k", f"scored by {metric}", "likely"), DEFAULT_K)
    if kinds.kind == "multilabel":
        if kinds.separator is None:
            return _asked("per_class", "no sample: a column for each label, as the labelled rows have", "likely")
        reason = "no sample: labels in a cell, as the labelled rows have them"
        return Asked("labels", Finding("submission.format", "labels", reason, "likely"), separator=kinds.separator)
    if kinds.is_soft:
        return _asked("per_class", "no sample: a share for each class, as the labelled rows have", "likely")
    if _needs_probs(metric):
        form: Format = "probability" if kinds.kind == "binary" else "per_class"
        return _asked(form, f"no sample: {metric} scores probabilities", "likely")
    other = "probability" if kinds.kind == "binary" else "per_class"
    return _asked(
        "label", "no sample: a class for each row, as the labelled rows have it", "guess", f"submission.format={other}"
    )


def _of_sample(kinds: Kinds, sample: Sample, metric: str | None) -> Asked:
    shown = sample.table.shown
    if sample.value is None:
        n_columns = len(sample.value_columns)
        if kinds.kind == "regression":
            return _asked("values", f"{shown} has {n_columns} value columns")
        what = "shares that sum to one" if kinds.kind != "multilabel" else "a probability for each label"
        return _asked("per_class", f"{shown} has {n_columns} value columns: {what}")
    if kinds.kind == "regression":
        return _asked("values", f"{shown} has one value column")
    if kinds.kind == "multilabel":
        return _labels(kinds, sample)
    if kinds.kind == "binary":
        return _binary(kinds, sample, metric)
    if kinds.kind == "multiclass":
        return _multiclass(kinds, sample, metric)
    numbers = sample.value.numbers
    if sample.cells == "float" and numbers is not None and (numbers % 1 != 0).any():
        return _asked("values", f"{shown} holds grades with a fraction")
    return _asked("label", f"{shown} holds one grade for each row")


def _labels(kinds: Kinds, sample: Sample) -> Asked:
    """Return labels in a cell, with the sample's separator where its cells list several."""
    separator = kinds.separator or " "
    known = set(kinds.classes)
    for mark in (separator, *SEPARATORS):
        lists = [split(cell, mark) for cell in sample.placeholders]
        if any(len(each) > 1 and set(each) <= known for each in lists):
            separator = mark
            break
    reason = f"{sample.table.shown} has one cell for all labels of a row"
    return Asked("labels", Finding("submission.format", "labels", reason), separator=separator)


def _binary(kinds: Kinds, sample: Sample, metric: str | None) -> Asked:
    shown, value = sample.table.shown, sample.value
    assert value is not None
    if sample.cells == "text":
        return _asked("label", f"{shown} holds class names")
    if _needs_probs(metric):
        return _asked("probability", f"{metric} scores probabilities")
    if sample.cells == "float":
        return _asked("probability", f"{shown} holds real numbers")
    if hints_at(words_of(value.name), _PROBABILITY):
        return _asked("probability", f"the column of {shown} is called {value.name}")
    if metric is not None:
        return _asked("label", f"{metric} scores classes", "likely")
    what = "whole numbers" if sample.cells == "int" else "empty cells"
    return _asked(
        "label", f"{shown} holds {what}, which may stand for classes", "guess", "submission.format=probability"
    )


def _multiclass(kinds: Kinds, sample: Sample, metric: str | None) -> Asked:
    shown, classes = sample.table.shown, frozenset(kinds.classes)
    tokens = _listed_in(sample)
    if tokens is not None and not sample.placeholders <= classes:
        separator, k = tokens
        labels = frozenset(label for cell in sample.placeholders for label in split(bare(cell), separator))
        if shared(labels, classes) > 0.5 or metric in ("map_at_k", "top_k_accuracy"):
            reason = f"each cell of {shown} lists {k} classes"
            return Asked("top_k", Finding("submission.format", "top_k", reason), k, separator)
    if metric == "map_at_k":
        return Asked(
            "top_k", Finding("submission.format", "top_k", "map_at_k scores lists of classes", "likely"), DEFAULT_K, " "
        )
    return _asked("label", f"{shown} holds one class for each row")


def _listed_in(sample: Sample) -> tuple[str, int] | None:
    return listed_tokens(sample.value) if sample.value is not None and sample.cells == "text" else None


def _listed_k(sample: Sample) -> int | None:
    tokens = _listed_in(sample)
    return tokens[1] if tokens is not None else None


def _needs_probs(metric: str | None) -> bool:
    info = METRICS.get(metric or "")
    return info is not None and info.needs == "probs" and metric not in ("map_at_k", "top_k_accuracy")


def _asked(form: Format, reason: str, sure: Sure = "certain", flag: str = "") -> Asked:
    return Asked(form, Finding("submission.format", form, reason, sure, flag))
