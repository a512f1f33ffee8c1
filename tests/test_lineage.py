from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import make_toy, train_toy

from pipeline.base.errors import LeakError, MismatchError
from pipeline.models.weights import read_weights, save_weights
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


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("start")
    config = make_toy(root)
    run = train_toy(root, config, ["train.epochs=1"], name="first")
    return root, run.folder


def test_a_run_starts_from_the_weights_of_another_fold_by_fold(first_run: tuple[Path, Path]) -> None:
    root, first = first_run
    weights = f"model.weights={first}/units/fold{{fold}}-seed0/weights.safetensors"
    frozen = ["train.epochs=1", "optimizer.name=sgd", "optimizer.lr=1e-30"]  # so that only the start speaks
    run = train_toy(root, next(root.glob("configs/*/net.yaml")), [weights, *frozen], name="second")
    for fold in (0, 1):
        made, start = (
            read_weights(folder / f"units/fold{fold}-seed0/weights.safetensors")[0] for folder in (run.folder, first)
        )
        learnt = [name for name in start if name.endswith("weight")]
        assert learnt
        assert all(torch.allclose(made[name], start[name]) for name in learnt)


def test_a_run_that_starts_every_fold_from_one_fold_is_refused(first_run: tuple[Path, Path]) -> None:
    root, first = first_run
    weights = f"model.weights={first}/units/fold0-seed0/weights.safetensors"
    with pytest.raises(LeakError, match="left out fold 0 and has seen fold 1"):
        train_toy(root, next(root.glob("configs/*/net.yaml")), [weights, "train.epochs=1"], name="leaky")


def test_another_file_under_the_same_path_is_another_run(first_run: tuple[Path, Path], tmp_path: Path) -> None:
    root, first = first_run
    for suffix in (".safetensors", ".json"):
        copied = first / "units" / "fold0-seed0" / f"weights{suffix}"
        (tmp_path / f"start{suffix}").write_bytes(copied.read_bytes())
    tensors, meta = read_weights(tmp_path / "start.safetensors")
    config = next(root.glob("configs/*/net.yaml"))
    overrides = [f"model.weights={tmp_path}/start.safetensors", "train.epochs=1"]
    train_toy(root, config, overrides, name="third", folds=[0])
    changed = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_weights(tmp_path / "start.safetensors", changed, meta)
    with pytest.raises(MismatchError, match=r"start_weights.*start\.safetensors"):
        train_toy(root, config, overrides, name="third", folds=[0])
