"""Who has seen which rows: models may only learn from what left their own held-out fold out.

Weights that a unit saved say which fold it left out, of which fold table. Fold k may start only from weights whose
maker left fold k of the same table out; else its OOF would score rows that its weights have already learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import LeakError

FoldName = int | str


def lineage_of(fold: FoldName, folds_hash: str) -> dict[str, Any]:
    """Return what a unit writes beside its weights, for `require_clean_start` of a later run."""
    return {"left_out": fold, "folds_hash": folds_hash}


def require_clean_start(meta: Mapping[str, Any], path: Path, fold: FoldName, folds_hash: str) -> None:
    """Raise LeakError if a unit that holds out `fold` would start from weights whose maker has seen those rows.

    Args:
        meta: what lies beside the weights; files that no unit wrote (downloads) state no lineage and pass.
        path: of the weights, for the message.
        fold: of the unit; `all` holds nothing out, so it may start from anything.
        folds_hash: of the table that the unit trains on.
    """
    lineage = meta.get("lineage")
    if fold == "all" or lineage is None:
        return
    if lineage["folds_hash"] != folds_hash:
        raise LeakError(
            f"{path}: was trained on another fold table, so it may have seen the rows of fold {fold}. Start from a run"
            " on the same table, or from weights that never saw this competition"
        )
    if lineage["left_out"] != fold:
        raise LeakError(
            f"{path}: left out fold {lineage['left_out']} and has seen fold {fold}, which this unit is scored on. Write"
            " {fold} in model.weights, such as runs/TASK/RUN/units/fold{fold}-seed0/weights.safetensors"
        )
