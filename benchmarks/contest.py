"""A labelled contest cut into fixed parts for a study: rows to train on, rows to score on, the rest left alone.

All that a study makes lies in one workspace, `root`:

    data/<contest>/<part>.csv        the rows of each part; only train has labels
    answers/<contest>/<part>.csv     the labels of the other parts, which the pipeline never reads
    configs/<contest>/               task.yaml, base.yaml, and <part>.yaml, which says where the rows of a part lie
    runs/<contest>/<trial>-all/      the run of a trial, as every run
    results/<contest>/<trial>.json   its score, written last: a trial that has one is never trained again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import hash_json, sha256_file, write_text
from pipeline.base.keyed import hash_ids, make_key, uniforms
from pipeline.base.tables import read_table
from pipeline.records.task import MetricSpec, Source, Task


@dataclass(frozen=True)
class Contest:
    """A labelled contest cut into parts, as files of a workspace."""

    root: Path
    """The workspace."""
    name: str
    """Of the task."""
    parts: tuple[str, ...]
    """Names of the parts."""

    @property
    def config(self) -> Path:
        """Return the experiment that every trial starts from."""
        return self.root / "configs" / self.name / "base.yaml"

    def table(self, part: str) -> Path:
        """Return the table of a part; only that of `train` has labels."""
        return self.root / "data" / self.name / f"{part}.csv"

    def answers(self, part: str) -> Path:
        """Return the table with the labels of a part other than `train`."""
        return self.root / "answers" / self.name / f"{part}.csv"

    def source(self, part: str) -> Path:
        """Return the YAML file that says where the rows of a part lie, as `podium predict --source` takes it."""
        return self.root / "configs" / self.name / f"{part}.yaml"

    @property
    def rows_hash(self) -> str:
        """Return a hash of all ids and labels of all parts."""
        tables = [self.table(part) if part == "train" else self.answers(part) for part in self.parts]
        return hash_json([[path.name, sha256_file(path)] for path in sorted(tables)])


def labelled_task(name: str, data: Path, files: str) -> Task:
    """Return the task of a contest whose `train.csv` holds id and label; `files` is a pattern such as {id}.png."""
    source = Source(table="train.csv", files=(files,))
    metric = MetricSpec(name="accuracy")
    return Task(name=name, data=str(data), kind="multiclass", metric=metric, id="id", target=("label",), train=source)


def cut_contest(
    root: Path, task: Task, data: Path, sizes: Mapping[str, int], base: Mapping[str, Any], seed: int = 0
) -> Contest:
    """Write the tables, task and base experiment of a contest cut into parts; return where they lie.

    Args:
        root: the workspace; what an earlier cut wrote is written anew, results stay.
        task: multiclass, with a labelled training table and an id column; its test set is not used.
        data: the folder with the contest's files, which is only read.
        sizes: rows per part. `train` is what trials learn from; `test`, if given, is the test set of the new task, and
            any further part is rows to predict.
        base: the experiment that every trial starts from, without `task:`.
        seed: of the deal.

    Raises:
        ConfigError: the task is of another kind.
        DataError: the table is missing, or has too few rows.
    """
    if task.kind != "multiclass" or not task.train.table or not task.id or len(task.target) != 1 or task.train.array:
        raise ConfigError(f"task {task.name}: a study needs kind: multiclass, train.table, id and one target column")
    contest = Contest(root.resolve(), task.name, tuple(sizes))
    table = read_table(data / task.train.table)
    parts = deal_rows(table[task.id].to_list(), table[task.target[0]].to_list(), sizes, seed)
    for part, rows in parts.items():
        chosen = table.iloc[rows]
        is_train = part == "train"
        seen = chosen if is_train else chosen.drop(columns=[*task.target])
        write_text(contest.table(part), seen.to_csv(index=False))
        if not is_train:
            write_text(contest.answers(part), chosen[[task.id, *task.target]].to_csv(index=False))
            _write_yaml(
                contest.source(part), _source(contest, task, part).model_dump(mode="json", exclude_defaults=True)
            )
    test = _source(contest, task, "test") if "test" in parts else None
    changes = {"data": str(data.resolve()), "train": _source(contest, task, "train"), "test": test}
    new_task = task.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)
    _write_yaml(contest.config.with_name("task.yaml"), new_task)
    _write_yaml(contest.config, {"task": "task.yaml", **base})
    return contest


def deal_rows(
    ids: Sequence[str], labels: Sequence[str], sizes: Mapping[str, int], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return the positions of the rows of each part, sorted: disjoint, and each with the class shares of all rows.

    A function of ids, labels, sizes and seed; the order of the rows does not matter.

    Raises:
        DataError: there are fewer rows than the parts need.
    """
    if sum(sizes.values()) > len(ids):
        raise DataError(f"the parts {dict(sizes)} need {sum(sizes.values())} rows, and there are {len(ids)}")
    draws = uniforms(make_key("parts", seed), hash_ids(ids), 1)[:, 0]
    names = np.array(labels, dtype=str)
    place = np.empty(len(ids))
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        ranked = members[np.argsort(draws[members], kind="stable")]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    # Every class is spread evenly over the places, so any stretch of the order has all classes in their shares.
    order = np.lexsort((draws, place))
    ends = np.cumsum(list(sizes.values()))
    return {part: np.sort(order[end - sizes[part] : end]) for part, end in zip(sizes, ends, strict=True)}


def _source(contest: Contest, task: Task, part: str) -> Source:
    return task.train.model_copy(update={"table": str(contest.table(part))})


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False))
