"""Training batches in order, through albumentations where a recipe is given, made ahead by worker processes if wanted.

What a batch holds depends on its positions and seeds alone, so the number of workers changes no bit. Workers map the
stored array themselves, ignore the signals that stop a training (their parent saves itself and then ends them), and end
by themselves within seconds when the parent was killed.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.augment.albumentations import Recipe, SampleError
from pipeline.base.errors import DataError, PodiumError
from pipeline.base.keyed import UInt64s
from pipeline.data.batches import Items
from pipeline.data.pages import Pages

Positions = NDArray[np.int64]
Order = tuple[Positions, UInt64s]
"""What a worker is asked for: the positions of a batch, and a seed for each."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stream:
    """Yields batches of stored items; use it as a `with` block, or `close` it, as it may hold worker processes.

    Args:
        items: the stored items.
        recipe: what each item goes through; None leaves them as they are stored, and then no workers are started.
        workers: processes that make batches ahead; 0 makes each in this process when it is asked for.
    """

    def __init__(self, items: Items, recipe: Recipe | None, workers: int) -> None:
        self._items = items
        self._maker = None if recipe is None else _Maker(items.source, recipe)
        self._orders = _Orders()
        self._workers = workers if recipe is not None else 0
        self._loader: DataLoader[Tensor | DataError] | None = None
        self._end_workers: Callable[[], object] = _nothing
        self._open: Generator[Tensor, None, None] | None = None

    def batches(self, positions: Sequence[Positions], seeds: Sequence[UInt64s] | None) -> Iterator[Tensor]:
        """Yield what `Items.fetch` gives for each of `positions`, through the recipe where there is one.

        A call ends the iterator of the call before it; workers go on from one to the next.

        Args:
            positions: (B,) positions in the store, for each batch.
            seeds: (B,) for each batch, from `seeds_of`; None only without a recipe.

        Raises:
            DataError: the recipe fails on an item.
            PodiumError: a worker was killed from outside.
        """
        self._end()
        self._open = self._batches(positions, seeds)
        return self._open

    def close(self) -> None:
        """End the workers; a later call of `batches` starts new ones."""
        self._end()
        self._end_workers()
        self._loader, self._end_workers = None, _nothing

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _batches(
        self, positions: Sequence[Positions], seeds: Sequence[UInt64s] | None
    ) -> Generator[Tensor, None, None]:
        if self._maker is None:
            yield from self._items.fetch_each(positions)
            return
        if seeds is None:
            raise ValueError("a recipe draws from seeds, one for each item")
        self._orders.now = list(zip(positions, seeds, strict=True))
        for made in self._from_workers() if self._workers else self._maker.each(self._orders.now):
            if isinstance(made, DataError):
                raise made
            yield made.to(self._items.device)

    def _from_workers(self) -> Iterator[Tensor | DataError]:
        try:
            with _any_number_of_workers():
                if self._loader is None:
                    self._loader = _loader(self._maker, self._orders, self._workers)
                    # Without `with`: before multiprocessing closes its queues at exit (10) and waits for its children.
                    self._end_workers = Finalize(self, _end_workers, (self._loader,), exitpriority=100)
                made = iter(self._loader)
            yield from made
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if not _is_of_dead_worker(error):
                raise
            raise PodiumError(
                "a process that runs albumentations was killed from outside, most often because memory (or shared"
                " memory, /dev/shm) ran out. Run the same command again to go on, with fewer --loaders"
            ) from error


def _is_of_dead_worker(error: Exception) -> bool:
    """Say whether a loader failed because a worker is no more: it does not answer, or died while it handed over memory.

    What a worker raises itself comes with the words `Caught ... in DataLoader worker`.
    """
    if str(error).startswith("Caught "):
        return False
    return not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)


class _Orders:
    """The batches of an epoch; torch asks it anew at the start of each."""

    def __init__(self) -> None:
        self.now: list[Order] = []

    def __iter__(self) -> Iterator[Order]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _Maker(Dataset[Any]):
    """Makes one batch of an order; a mapped array is pickled as its place in the file."""

    def __init__(self, array: NDArray[Any], recipe: Recipe) -> None:
        self._array = np.asarray(array)
        self._recipe = recipe
        self._map = _file_of(array)
        self._pages = Pages(array)

    def __getitem__(self, order: Order) -> Tensor | DataError:
        positions, seeds = order
        self._pages.ask(positions)
        batch = self._array[positions]
        if batch.dtype == np.uint16:
            batch = batch.astype(np.float32)
        try:
            return torch.from_numpy(self._recipe(batch, seeds))
        except SampleError as error:  # returned, as torch would wrap what is raised into the text of a traceback
            return DataError(f"{error} (stored item {positions[error.index]}, seed {seeds[error.index]})")

    def each(self, orders: Sequence[Order]) -> Iterator[Tensor | DataError]:
        """Yield the batch of every order; the disk brings the items of the next one while one is made and used."""
        for order, following in zip_longest(orders, orders[1:]):
            self._pages.ask(order[0])
            if following is not None:
                self._pages.ask(following[0])
            yield self[order]

    def __getstate__(self) -> tuple[Any, Recipe]:
        return self._array if self._map is None else self._map, self._recipe

    def __setstate__(self, state: tuple[Any, Recipe]) -> None:
        kept, recipe = state
        self.__init__(np.memmap(**kept, mode="r") if isinstance(kept, dict) else kept, recipe)  # type: ignore[misc]


def _file_of(array: NDArray[Any]) -> dict[str, Any] | None:
    """Return the arguments that map a whole map again; None for all other arrays, such as a slice of a map."""
    base: object = array.base
    if not isinstance(array, np.memmap) or not isinstance(base, mmap.mmap):
        return None
    return {"filename": str(array.filename), "dtype": array.dtype, "shape": array.shape, "offset": array.offset}


def _loader(maker: Any, orders: Iterable[Order], workers: int) -> DataLoader[Tensor | DataError]:
    # A fork of this process, with its threads and perhaps CUDA, could hang. The server is a process without them that
    # has imported what takes seconds, so a worker starts in a fraction of one.
    context = get_context("forkserver")
    context.set_forkserver_preload(["pipeline.data.stream", "albumentations"])
    with _signals_ignored():
        forkserver.ensure_running()
    return DataLoader(
        maker,
        batch_size=None,
        sampler=orders,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_stand_alone,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else each epoch takes a number from torch's global one
        persistent_workers=True,
    )


def _end_workers(loader: Any) -> None:
    """Do at once what torch does when its iterator is collected, which a traceback that is still looked at puts off."""
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()
        for worker in loader._iterator._workers:
            worker.kill()  # does nothing but to one that hangs in a transform, and SIGTERM is what they ignore


def _nothing() -> None:
    """End no workers."""


def _as_it_is(made: Any) -> Any:
    return made


def _stand_alone(_worker: int) -> None:
    """Let a worker end with its parent, and not by the signals that ask the parent to stop and save itself.

    Torch looks whether the process is there that started the worker, but that is the server, which waits for workers.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Start processes inside the block that ignore the signals from their birth; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _any_number_of_workers() -> Iterator[None]:
    """Keep back torch's warning of more workers than cores: how many there are is the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield
