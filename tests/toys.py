"""Toy competitions on disk: a few dozen small items whose latent values decide the target; a tiny net learns them.

    config = make_toy(tmp_path, "multiclass")              # configs/multiclass/net.yaml
    run = train_toy(tmp_path, config)                      # three folds of a small perceptron, about a second
    answers = toy_answers(tmp_path, "multiclass")          # what the host keeps back, by submission id

The workspace looks as a user's does: `data/<name>/` (train.csv, test.csv, items, sample_submission.csv),
`configs/<name>/` (task.yaml, net.yaml), and the answers apart in `answers/<name>.csv`.

Tables hold, beside id and targets, the columns `group` (ten groups) and `fold` (the host's, 0..2), for whoever names
them in the task. Ids are `tr_000`, `te_000`, ...; the sample asks for the test rows in the reverse of their order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from pipeline import api
from pipeline.records.runs import Run
from pipeline.stages import crossval
from pipeline.training import unit as training_unit

Array = NDArray[Any]

CLASSES = ("ant", "bee", "cat", "dog")
SIZE_PX = 8
N_SAMPLES = 32

_METRICS = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "multilabel": "f1_samples",
    "ordinal": "quadratic_kappa",
    "regression": "rmse",
}
_NET = {
    "task": "task.yaml",
    "folds": {"n_folds": 3},
    "model": {"name": "mlp", "hidden": 16},
    "optimizer": {"name": "adamw", "lr": 0.02},
    "train": {"epochs": 8, "batch_size": 16, "precision": "fp32"},
}


@dataclass(frozen=True)
class _Part:
    """Train or test before it is written: one entry for each row."""

    ids: list[str]
    """Row ids."""
    keys: list[str]
    """Ids under which rows are submitted; the row ids themselves unless several rows share one."""
    targets: pd.DataFrame
    """(N) target cells."""
    items: list[list[Array]]
    """(N) lists of one array per file: (H, W), (H, W, 3) or (C, T)."""


def make_toy(
    root: Path,
    kind: str = "multiclass",
    input: Literal["image", "signal"] = "image",
    *,
    name: str | None = None,
    n_train: int = 90,
    n_test: int = 24,
    n_names: int = 3,
    store: Literal["files", "npy", "npz", "pixels"] | None = None,
    n_files: int = 1,
    rows_per_id: int = 1,
    channels: int = 1,
    bits: int = 8,
    soft: bool = False,
    format: str | None = None,
    metric: str | dict[str, Any] | None = None,
    wanted: Sequence[str] | None = None,
    noise: bool = False,
    copies: int = 1,
    copy_noise: int = 0,
    shuffle: int | None = None,
    seed: int = 0,
    task: dict[str, Any] | None = None,
    net: dict[str, Any] | None = None,
) -> Path:
    """Write a toy competition under `root` and return the path of its experiment, `configs/<name>/net.yaml`.

    Args:
        root: the workspace.
        kind: kind of the task.
        input: 8x8 images (K blocks as bright as the latent values), or (2, 32) signals (K sines as strong as they are).
        name: of the task; by default its kind.
        n_train: training rows, before `copies`.
        n_test: test rows.
        n_names: classes, labels or target values (binary has two classes always).
        store: `files` (PNG; for signals the same as `npy`), `npy` (one per row), `npz` (one array for all), `pixels`
            (columns of the tables); by default files.
        n_files: files per row, each with noise of its own.
        rows_per_id: rows that share one submission id, in the column `patient`.
        channels: 1 or 3, of images.
        bits: 8 or 16, of images.
        soft: multiclass targets are votes, a column per class.
        format: of the submission; by default what the task takes by default.
        metric: by default one that fits the kind.
        wanted: columns of the sample, where the host wants fewer than train has (multilabel, per_class).
        noise: items know nothing of the targets, which are random: a held-out score above chance is a leak.
        copies: how often each training item occurs, with the same target, under an id of its own.
        copy_noise: largest change in grey levels of a copied pixel.
        shuffle: seed of another order of the rows of train, test and sample; contents by id stay.
        seed: of everything else.
        task: values laid over task.yaml.
        net: values laid over net.yaml.
    """
    name, data = name or kind, root / "data" / (name or kind)
    shape = _Shape(kind, input, n_names, n_files, rows_per_id, channels, bits, soft, noise)
    train = _copied(_make_part(shape, "tr", n_train, seed), copies, copy_noise, seed)
    test = _make_part(shape, "te", n_test, seed)
    if shuffle is not None:
        train, test = _shuffled(train, shuffle), _shuffled(test, shuffle + 1)
    store = "npy" if store in (None, "files") and input == "signal" else store or "files"
    sources = {which: _write_part(data, which, part, store) for which, part in (("train", train), ("test", test))}
    form = format or {"binary": "probability", "multilabel": "labels", "regression": "values"}.get(kind, "label")
    if form != "array":
        _write_sample(data / "sample_submission.csv", test, form, shape, wanted, shuffle)
    _write_answers(root / "answers" / f"{name}.csv", test)
    settings: dict[str, Any] = {"name": name, "data": f"data/{name}", "kind": kind, "input": input, "id": "id"}
    settings |= {"metric": metric or ("kl_divergence" if soft else _METRICS[kind]), **sources}
    settings |= {"target": list(train.targets.columns)}
    if form == "labels" or (kind == "multilabel" and "labels" in train.targets):
        settings["target_separator"] = " "
    settings["submission"] = {"format": form} | ({} if form == "array" else {"sample": "sample_submission.csv"})
    settings["submission"] |= {"row_id": "patient"} if rows_per_id > 1 else {}
    folder = root / "configs" / name
    _write_yaml(folder / "task.yaml", _laid_over(settings, task or {}))
    _write_yaml(folder / "net.yaml", _laid_over(_NET, net or {}))
    return folder / "net.yaml"


def train_toy(root: Path, config: Path, overrides: Sequence[str] = (), *, fast: bool = True, **more: Any) -> Run:
    """Train a config quietly, in this process, on one thread of the CPU.

    Fast: without curves.png, which would take half of the time, and without waiting for the disk.
    """
    machine = {"device": "cpu", "jobs": 1, "threads": 1, "show": "quiet", "root": root}
    with ExitStack() as stack:
        for module, name in (
            ((training_unit, "plot_history"), (crossval, "plot_history"), (os, "fsync")) if fast else ()
        ):
            stack.enter_context(mock.patch.object(module, name))
        return api.train(config, overrides, **(machine | more))


def toy_answers(root: Path, name: str) -> pd.DataFrame:
    """Return what the host keeps back, as text, indexed by submission id."""
    return pd.read_csv(root / "answers" / f"{name}.csv", dtype=str, keep_default_na=False).set_index("id")


def read_text_table(path: Path) -> pd.DataFrame:
    """Return a CSV with every cell as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# -- what the rows hold ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What a row looks like."""

    kind: str
    input: str
    n_names: int
    n_files: int
    rows_per_id: int
    channels: int
    bits: int
    soft: bool
    noise: bool


def _make_part(shape: _Shape, prefix: str, n_rows: int, seed: int) -> _Part:
    rng = np.random.default_rng([seed, len(prefix), ord(prefix[0])])
    n_keys = n_rows // shape.rows_per_id
    latent, targets = _targets(shape, n_keys, rng)
    if shape.noise:
        latent = rng.random(latent.shape)
    of_key = np.repeat(np.arange(n_keys), shape.rows_per_id)
    ids = [f"{prefix}_{row:03d}" for row in range(len(of_key))]
    keys = [f"{prefix}p_{key:03d}" for key in of_key] if shape.rows_per_id > 1 else ids
    items = [[_item(shape, latent[key], rng) for _ in range(shape.n_files)] for key in of_key]
    return _Part(ids, keys, targets.iloc[of_key].reset_index(drop=True), items)


def _targets(shape: _Shape, n: int, rng: np.random.Generator) -> tuple[Array, pd.DataFrame]:
    """Return latent values in 0..1, (n, K), and the target cells that follow from them."""
    k = 2 if shape.kind == "binary" else shape.n_names
    names = CLASSES[:k]
    if shape.kind == "regression":
        latent = rng.random((n, k))
        columns = {f"y{number}": np.round(10 * (number + 1) * latent[:, number], 4) for number in range(k)}
        return latent, pd.DataFrame(columns)
    if shape.kind == "multilabel":
        chosen = rng.random((n, k)) < 0.5
        chosen[np.arange(n), rng.integers(0, k, n)] = True
        cells = [" ".join(np.array(names)[row]) for row in chosen]
        return chosen.astype(float), pd.DataFrame({"labels": cells})
    index = rng.permutation(np.arange(n) % k)  # every class equally often
    if shape.kind == "ordinal":
        return np.repeat(index[:, None] / (k - 1), 2, axis=1), pd.DataFrame({"grade": index})
    if shape.kind == "binary":
        return np.eye(k)[index], pd.DataFrame({"target": index})
    if shape.soft:
        votes = 1 + 8 * np.eye(k, dtype=int)[index] + rng.integers(0, 3, (n, k))
        return votes / votes.sum(axis=1, keepdims=True), pd.DataFrame(votes, columns=list(names))
    return np.eye(k)[index], pd.DataFrame({"label": np.array(names)[index]})


def _item(shape: _Shape, latent: Array, rng: np.random.Generator) -> Array:
    if shape.input == "signal":
        time = np.arange(N_SAMPLES) / N_SAMPLES
        waves = np.stack([np.sin(2 * np.pi * 2 * (number + 1) * time) for number in range(len(latent))])
        wave = latent @ waves
        return (np.stack([wave, -wave]) + 0.3 * rng.standard_normal((2, N_SAMPLES))).astype(np.float32)
    image = np.zeros((SIZE_PX, SIZE_PX))
    half = SIZE_PX // 2
    for number, value in enumerate(latent):
        row, column = divmod(number, 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] = value
    image = np.clip(0.15 + 0.7 * image + 0.08 * rng.standard_normal(image.shape), 0, 1)
    image = image if shape.channels == 1 else np.stack([image, 1 - image, image**2], axis=-1)
    return np.round(image * (2**shape.bits - 1)).astype(np.uint8 if shape.bits == 8 else np.uint16)


def _copied(part: _Part, copies: int, copy_noise: int, seed: int) -> _Part:
    """Return each row `copies` times, the further ones as `<id>_c1`, ... and changed by at most `copy_noise`."""
    rng = np.random.default_rng([seed, 99])
    ids, items = list(part.ids), list(part.items)
    for number in range(1, copies):
        ids += [f"{row_id}_c{number}" for row_id in part.ids]
        items += [[_nudged(item, copy_noise, rng) for item in row] for row in part.items]
    keys = list(part.keys) + ids[len(part.ids) :]
    return _Part(ids, keys, pd.concat([part.targets] * copies, ignore_index=True), items)


def _nudged(item: Array, levels: int, rng: np.random.Generator) -> Array:
    change = rng.integers(-levels, levels + 1, item.shape)
    return np.clip(item.astype(np.int64) + change, 0, np.iinfo(item.dtype).max).astype(item.dtype)


def _shuffled(part: _Part, seed: int) -> _Part:
    order = np.random.default_rng(seed).permutation(len(part.ids))
    targets = part.targets.iloc[order].reset_index(drop=True)
    return _Part([part.ids[i] for i in order], [part.keys[i] for i in order], targets, [part.items[i] for i in order])


# -- files -------------------------------------------------------------------------------------------------------------


def _write_part(data: Path, which: str, part: _Part, store: str) -> dict[str, Any]:
    """Write the table and the items of a part and return its block of the task."""
    data.mkdir(parents=True, exist_ok=True)
    numbers = [int(row_id.split("_")[1]) for row_id in part.ids]
    table = pd.DataFrame({"id": part.ids})
    if part.keys[0] != part.ids[0]:
        table["patient"] = part.keys
    if which == "train":
        table = pd.concat([table, part.targets], axis=1)
        table["group"] = [f"g{number % 10}" for number in numbers]
        table["fold"] = [number % 3 for number in numbers]
    source: dict[str, Any] = {"table": f"{which}.csv"}
    if store == "pixels":
        flat = np.stack([row[0].ravel() for row in part.items])
        pixels = pd.DataFrame(flat, columns=[f"pixel{number}" for number in range(flat.shape[1])])
        table = pd.concat([table, pixels], axis=1)
        source["pixels"] = {"columns": "pixel*", "shape": list(part.items[0][0].shape)}
    elif store == "npz":
        np.savez(data / f"{which}_items.npz", x=np.stack([row[0] for row in part.items]))
        source["array"] = {"file": f"{which}_items.npz", "key": "x"}
    else:
        source["files"] = _write_files(data, which, part, ".npy" if store == "npy" else ".png")
    table.to_csv(data / f"{which}.csv", index=False)
    return source


def _write_files(data: Path, which: str, part: _Part, suffix: str) -> list[str]:
    (data / which).mkdir(exist_ok=True)
    n_files = len(part.items[0])
    ends = [""] if n_files == 1 else [f"_{number}" for number in range(n_files)]
    for row_id, items in zip(part.ids, part.items, strict=True):
        for end, item in zip(ends, items, strict=True):
            path = data / which / f"{row_id}{end}{suffix}"
            if suffix == ".npy":
                np.save(path, item)
            else:
                cv2.imwrite(str(path), item[..., ::-1] if item.ndim == 3 else item)
    return [f"{which}/{{id}}{end}{suffix}" for end in ends]


def _write_sample(
    path: Path, test: _Part, form: str, shape: _Shape, wanted: Sequence[str] | None, shuffle: int | None
) -> None:
    keys = list(dict.fromkeys(test.keys))[::-1]
    if shuffle is not None:
        keys = sorted(keys, reverse=True)  # the host's order decides the bytes, so it is that of the unshuffled toy
    k = 2 if shape.kind == "binary" else shape.n_names
    names = ("0", "1") if shape.kind == "binary" else CLASSES[:k]
    values: dict[str, Any] = {
        "label": {test.targets.columns[0]: 0 if shape.kind in ("binary", "ordinal") else names[0]},
        "probability": {"target": 0.5},
        "per_class": dict.fromkeys(wanted or names, 0.0),
        "labels": {"labels": names[0]},
        "top_k": {"label": " ".join(names[:2])},
        "values": dict.fromkeys(test.targets.columns, 0.5),
    }[form]
    pd.DataFrame({"id": keys} | {column: [cell] * len(keys) for column, cell in values.items()}).to_csv(
        path, index=False
    )


def _write_answers(path: Path, test: _Part) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pd.concat([pd.DataFrame({"id": test.keys}), test.targets], axis=1).drop_duplicates("id")
    table.to_csv(path, index=False)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _laid_over(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `more` over it, block by block; a block of another name replaces the old one."""
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        is_same = isinstance(old, dict) and isinstance(value, dict) and old.get("name") == value.get("name")
        merged[key] = _laid_over(old, value) if is_same else value
    return merged
