"""What `podium init` is to conclude of a made-up competition, by the words of its issue and not by what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toy_layouts import Layout
from toy_names import described_metric, id_name, sample_id_name, submission_ids, target_name, value_columns
from toy_rows import N_CHANNELS, N_SAMPLES, SIZE_PX, Label, Row, names_of

TOP_K = 3


@dataclass(frozen=True)
class Reading:
    """One way to understand what is asked."""

    kind: str
    format: str
    metrics: tuple[str, ...]
    """Any of these."""


@dataclass(frozen=True)
class Expected:
    """What is to be concluded of a competition."""

    readings: tuple[Reading, ...]
    """Any of these; the first is the likeliest."""
    input: str
    item_shape: tuple[int | None, ...]
    """Of the first training item; None: any."""
    names: frozenset[str]
    """Class or label names; none: free, as those of values are only names of columns."""
    order: tuple[str, ...]
    """The order of the class names, where the sample alone has a column for each; else empty."""
    targets: tuple[frozenset[str], ...]
    """Acceptable target columns, in any order; none: free, as no table of the host has them."""
    ids: tuple[str | None, ...]
    """Acceptable id columns of the task; none: free."""
    group: str | None
    train: tuple[tuple[tuple[str, ...], Label], ...]
    """Of each training row its files, as ends of their paths, and its label; in order where there are no files."""
    valid: frozenset[int]
    """Positions in `train` of the rows that the host counts as validation."""
    test: Mapping[str, tuple[str, ...]]
    """By submission id, in the order of the sample, the files of its rows; without a sample the ids are free."""
    has_sample: bool
    id_column: str
    """Of the submission."""
    columns: tuple[str, ...]
    """Value columns of the submission."""
    answers: Mapping[str, Label]
    """What the host keeps back, by submission id."""
    k: int | None = None
    """Of top-k submissions."""
    clip: tuple[float, float] | None = None
    """Range of the training targets, where a range is kept."""


def expect(layout: Layout, train: Sequence[Row], test: Sequence[Row], files: Mapping[str, list[list[str]]]) -> Expected:
    """Return what is to be concluded of a competition with these rows and files."""
    keys, names = submission_ids(layout, test), names_of(layout)
    of_key = {key: tuple(_of_key(key, test, files["test"])) for key in keys}
    train_files = [tuple(of_row) for of_row in files["train"]]
    values = [row.label for row in train if isinstance(row.label, float)]
    is_signal, has_sample = _is_signal(layout), layout.sample == "yes"
    return Expected(
        readings=readings(layout),
        input="signal" if is_signal else "image",
        item_shape=_item_shape(layout, is_signal),
        names=frozenset() if layout.kind == "regression" else frozenset(names),
        order=value_columns(layout)
        if layout.asks == "per_class" and layout.encoding == "column" and has_sample
        else (),
        targets=_targets(layout, names),
        ids=_ids(layout),
        group="patient_id" if layout.group == "patient" else None,
        train=tuple(zip(train_files, (row.label for row in train), strict=True)),
        valid=frozenset(n for n, row in enumerate(train) if layout.group == "host_split" and row.is_valid),
        test=of_key,
        has_sample=has_sample,
        id_column=sample_id_name(layout),
        columns=value_columns(layout),
        answers={row.key: row.label for row in test},
        k=TOP_K if layout.asks == "top_k" else None,
        clip=(min(values), max(values)) if values else None,
    )


def _of_key(key: str, rows: Sequence[Row], files: list[list[str]]) -> list[str]:
    return [name for row, of_row in zip(rows, files, strict=True) if row.key == key for name in of_row]


def _is_signal(layout: Layout) -> bool:
    of_array = layout.items == "one_array" and layout.shape != "images"
    return of_array or (layout.items == "files" and layout.file.startswith("signal."))


def _item_shape(layout: Layout, is_signal: bool) -> tuple[int | None, ...]:
    if is_signal:
        return (N_CHANNELS, N_SAMPLES)
    if layout.items == "bands" or layout.file in ("npy", "npz"):
        return (2, SIZE_PX, SIZE_PX)
    if layout.file in ("wav", "aif"):
        return (1, None, None)
    side = SIZE_PX if layout.sizes == "same" else None
    return (1 if layout.items == "pixels" or layout.depth != "rgb" else 3, side, side)


def _targets(layout: Layout, names: Sequence[str]) -> tuple[frozenset[str], ...]:
    if layout.place not in ("csv", "several_csv", "records"):
        return ()
    if layout.encoding == "extra":
        return frozenset(names), frozenset(value_columns(layout))
    return (frozenset(names if layout.encoding in ("one_hot", "shares", "columns") else [target_name(layout)]),)


def _ids(layout: Layout) -> tuple[str | None, ...]:
    if layout.sample_id == "number":
        return (None,)
    if layout.per_row == "rows":  # images are unique, so they may be ids or not
        return (None, id_name(layout))
    is_unnamed = layout.test_table == "no" and layout.sample == "none"  # test rows are files, and have no id column
    if is_unnamed or layout.place not in ("csv", "several_csv", "records"):
        return ()
    is_told_twice = layout.test_table == "no" and layout.sample_id == "other"
    return (id_name(layout), sample_id_name(layout)) if is_told_twice else (id_name(layout),)


def readings(layout: Layout) -> tuple[Reading, ...]:
    """Return the ways in which a layout may be understood."""
    kind = {"words": "binary", "soft": "multiclass"}.get(layout.kind, layout.kind)
    told = (described_metric(layout)[0],) if layout.described == "yes" else ()
    if layout.sample == "none":
        return tuple(Reading(kind, form, told or _ANY_METRIC[kind]) for form in _ANY_FORMAT[kind])
    if layout.kind == "ordinal":
        graded = Reading("ordinal", "label", ("quadratic_kappa",))
        return (graded,) if told else (graded, Reading("multiclass", "label", ("accuracy",)))
    likeliest = Reading(kind, layout.asks, told or _metrics(layout))
    if kind == "binary" and layout.cells == "empty":  # nothing shows whether a class or a probability is wanted
        return likeliest, Reading(kind, "probability", told or ("log_loss",))
    return (likeliest,)


_ANY_FORMAT = {
    "binary": ("label", "probability"),
    "multiclass": ("label", "per_class"),
    "multilabel": ("labels", "per_class"),
    "ordinal": ("label",),
    "regression": ("values",),
}
_F1 = ("f1_micro", "f1_macro", "f1_samples")
_ANY_METRIC = {
    "binary": ("accuracy", "log_loss", "roc_auc", "f1", "f1_macro"),
    "multiclass": ("accuracy", "log_loss", "f1_macro", "kl_divergence"),
    "multilabel": (*_F1, "log_loss", "mean_column_auc"),
    "ordinal": ("quadratic_kappa",),
    "regression": ("rmse",),
}


def _metrics(layout: Layout) -> tuple[str, ...]:
    """Return the metric that a sample suggests where no description names one."""
    if layout.kind == "soft":
        return ("log_loss", "kl_divergence")
    if layout.kind == "multilabel":
        return _F1 if layout.asks == "labels" else ("log_loss", "mean_column_auc")
    if layout.asks == "label":
        # One class with a single row beside even ones: either is defensible.
        return {"even": ("accuracy",), "uneven": ("f1_macro",), "lonely": ("accuracy", "f1_macro")}[layout.counts]
    by_form = {"probability": "log_loss", "per_class": "log_loss", "top_k": "map_at_k", "values": "rmse"}
    return (by_form[layout.asks],)
