from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import LeakError
from pipeline.records.lineage import lineage_of, require_clean_start

WEIGHTS = Path("weights.safetensors")


def test_weights_that_left_the_same_fold_out_are_a_clean_start() -> None:
    require_clean_start({"lineage": lineage_of(2, "hash")}, WEIGHTS, 2, "hash")


def test_weights_that_state_no_lineage_are_a_clean_start() -> None:
    require_clean_start({}, WEIGHTS, 2, "hash")


@pytest.mark.parametrize("maker", [1, "all"])
def test_weights_that_have_seen_the_held_out_rows_are_refused(maker: int | str) -> None:
    with pytest.raises(LeakError, match=rf"left out fold {maker} and has seen fold 2.*\{{fold\}}"):
        require_clean_start({"lineage": lineage_of(maker, "hash")}, WEIGHTS, 2, "hash")


def test_weights_of_another_fold_table_are_refused() -> None:
    with pytest.raises(LeakError, match="another fold table"):
        require_clean_start({"lineage": lineage_of(2, "other")}, WEIGHTS, 2, "hash")


def test_a_refit_on_every_row_may_start_from_anything() -> None:
    require_clean_start({"lineage": lineage_of(1, "other")}, WEIGHTS, "all", "hash")
