"""Known data by name: `podium data NAME PATH`."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.runs import Workspace
from pipeline.stages.known_data import bci3b, things_meg
from pipeline.stages.known_data.prepared import Prepared, Say
from pipeline.stages.known_data.synthetic import KINDS, prepare_synthetic

_COPIES = {
    "bci3b": (bci3b.prepare_bci3b, bci3b.PUBLISHED),
    "things-meg": (things_meg.prepare_things_meg, things_meg.PUBLISHED),
}

NAMES = (*_COPIES, *KINDS)


def prepare_data(
    workspace: Workspace,
    data: str,
    folder: Path | None,
    say: Say,
    *,
    seed: int | None = None,
    name: str | None = None,
    overwrite: bool = False,
    any_bytes: bool = False,
) -> Prepared:
    """Return a known data set as a task, from a user's copies or made from a seed.

    Args:
        workspace: where configs and whatever has to be made are written.
        data: one of `NAMES`.
        folder: of the user's copies, which is only read; of made-up data where they go, by default `data/<data>`.
        say: gets notes.
        seed: of made-up data, 0 by default.
        name: of the task; by default `data`.
        overwrite: replace what says otherwise.
        any_bytes: take copies whose names, shapes and types are right and whose checksum differs.

    Raises:
        ConfigError: the name is unknown, or an option does not fit it.
        DataError: the copies are not what was published, or the folder for made-up data holds something else.
    """
    if data in _COPIES:
        prepare, published = _COPIES[data]
        if folder is None:
            raise ConfigError(f"{data}: give the folder with your copies: podium data {data} PATH. {published}")
        if seed is not None:
            raise ConfigError(f"--seed: is read by made-up data only ({listed(KINDS)})")
        return prepare(workspace, folder, say, name=name or data, overwrite=overwrite, any_bytes=any_bytes)
    if data not in KINDS:
        raise ConfigError(f"{data}: is no known data set.{nearest(data, NAMES)} Known are: {listed(NAMES)}")
    if any_bytes:
        raise ConfigError(f"--any-bytes: is read by copies only ({listed(_COPIES)})")
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed {seed}: is below 0")
    where = folder or workspace.root / "data" / data
    return prepare_synthetic(workspace, data, where, say, seed=seed or 0, name=name, overwrite=overwrite)
