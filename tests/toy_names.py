"""What made-up hosts call their columns and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from toy_layouts import Layout
from toy_rows import Row, names_of

TARGETS = {"regression": "score", "ordinal": "grade", "multilabel": "labels"}


def id_name(layout: Layout) -> str:
    """Return the name of the id column in the host's tables."""
    if layout.place == "coco":
        return "file_name"
    return "image" if layout.ids == "suffix" or layout.per_row == "rows" else "id"


def target_name(layout: Layout) -> str:
    """Return the name of the label column, where there is one."""
    return TARGETS.get(layout.kind, "label")


def submission_ids(layout: Layout, test: Sequence[Row]) -> list[str]:
    """Return the ids of the sample in its order: numbered rows as they are, others from the last to the first."""
    keys = list(dict.fromkeys(row.key for row in test))
    return keys if layout.sample_id == "number" else keys[::-1]


def sample_id_name(layout: Layout) -> str:
    """Return the name of the sample's id column."""
    if layout.sample_id in ("other", "number"):
        return "ImageId"
    return "product_id" if layout.per_row == "rows" else id_name(layout)


def value_columns(layout: Layout) -> tuple[str, ...]:
    """Return the value columns of the sample.

    Classes come in another order than sorted; numbered rows with a capital, as a host's other hand writes them.
    """
    if layout.asks == "per_class":
        names = names_of(layout)[::-1]
        return names[:3] if layout.encoding == "extra" else names
    name = target_name(layout)
    return (name.capitalize() if layout.sample_id == "number" else name,)


def described_metric(layout: Layout) -> tuple[str, str]:
    """Return the metric of a host's description and its words, not the one that the sample alone would suggest."""
    if layout.kind == "soft":
        return "kl_divergence", "the Kullback-Leibler divergence between the predicted and the true distribution"
    if layout.kind == "ordinal":
        return "quadratic_kappa", "the quadratic weighted kappa"
    if layout.kind == "multilabel" and layout.asks == "per_class":
        return "mean_column_auc", "the mean column-wise ROC AUC"
    if layout.kind == "multiclass" and layout.asks == "label":
        return "f1_macro", "the macro-averaged F1 score"
    return {
        "label": ("balanced_accuracy", "balanced accuracy"),
        "probability": ("roc_auc", "the area under the ROC curve between the predicted probability and the target"),
        "per_class": ("log_loss", "the multi-class logarithmic loss"),
        "labels": ("f1_micro", "the micro-averaged F1 score"),
        "top_k": ("map_at_k", "Mean Average Precision @ 3 (MAP@3)"),
        "values": ("mae", "the mean absolute error (MAE)"),
    }[layout.asks]
