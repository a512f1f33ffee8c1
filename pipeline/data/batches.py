"""Keyed batches: which samples make up a step is a function of (seed, epoch, step), and so is every draw.

A *sample* is one item (file) of a row with the row's target. In training each item of a row is a sample of its own; at
prediction the items of a row are averaged.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment.draw import Draw
from pipeline.base.keyed import UInt64s, bits, hash_ids, make_key, permutation, uniforms
from pipeline.data.pages import Pages
from pipeline.records.rows import Strings

RESIDENT_SHARE = 0.4
"""Share of the free device memory that the items may take; beyond it batches are sent one by one."""


_PINNED_BYTES = 2**26
"""Of a batch that is sent from pinned memory, at most."""

_MOST_VALUES, _MOST_BYTES = 2**23, 2**26
"""Numbers that statistics hold at a time: 64 MB in float64, and of bytes as they are."""


@dataclass(frozen=True)
class Samples:
    """The samples of a part of the rows."""

    row: NDArray[np.int64]
    """(M,) position of the sample's row among the rows."""
    item: NDArray[np.int64]
    """(M,) position of its item in the store."""
    key: NDArray[np.uint64]
    """(M,) hash of (row id, which item of the row): what draws are keyed by."""

    def __len__(self) -> int:
        """Return M."""
        return len(self.row)


@dataclass(frozen=True)
class EpochOrder:
    """The samples of one epoch in order, and which time each one occurs."""

    sample: NDArray[np.int64]
    """(M',) positions in the samples."""
    occurrence: NDArray[np.uint64]
    """(M',) 0 for the first time in the epoch, 1 for the second, ..."""


def samples_of(ids: Sequence[str] | Strings, items: Sequence[tuple[int, ...]], positions: NDArray[np.int64]) -> Samples:
    """Return the samples of the rows at `positions`: one for each of their items."""
    pairs = [(row, item, number) for row in positions for number, item in enumerate(items[row])]
    return Samples(
        row=np.array([row for row, _, _ in pairs], dtype=np.int64),
        item=np.array([item for _, item, _ in pairs], dtype=np.int64),
        key=hash_ids([ids[row] if number == 0 else f"{ids[row]}\x1f{number}" for row, _, number in pairs]),
    )


def shuffled(samples: Samples, seed: int, epoch: int) -> EpochOrder:
    """Return every sample once, in an order that depends on (seed, epoch) and the ids, not on the table's order."""
    by_key = np.argsort(samples.key, kind="stable")
    order = by_key[permutation(make_key("order", seed, epoch), len(samples))]
    return EpochOrder(order, np.zeros(len(order), dtype=np.uint64))


def balanced(samples: Samples, labels: NDArray[np.int64], seed: int, epoch: int) -> EpochOrder:
    """Return as many samples as there are, every class equally often (within one); scarce samples repeat.

    Args:
        labels: (M,) class index of each sample.
    """
    present = np.unique(labels)
    plain = shuffled(samples, seed, epoch).sample
    quotas = [len(samples) // len(present) + (place < len(samples) % len(present)) for place in range(len(present))]
    chosen = [np.resize(plain[labels[plain] == label], quota) for label, quota in zip(present, quotas, strict=True)]
    drawn = np.concatenate(chosen)
    order = drawn[permutation(make_key("balanced", seed, epoch), len(drawn))]
    return EpochOrder(order, _occurrences(order))


def even_slices(n: int, batch_size: int) -> list[slice]:
    """Return ceil(n / batch_size) slices of nearly equal length (within one) that cover 0..n-1.

    So there is no small last batch, whose batch-norm statistics would be noise.
    """
    n_batches = max(1, -(-n // batch_size))
    ends = [n * number // n_batches for number in range(n_batches + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def slice_epoch(
    order: EpochOrder, batch_size: int, ends: Literal["even", "drop", "pad"]
) -> tuple[EpochOrder, list[slice]]:
    """Return the order that an epoch really takes, and the places of each of its batches.

    Args:
        order: every sample that the epoch should see.
        batch_size: samples of a batch, >= 1.
        ends: what happens where batches do not divide the epoch. `even`: nearly equal batches, see `even_slices`;
            `drop`: what is left over is not seen (an epoch below one batch is seen whole); `pad`: the last batch is
            filled from the epoch's start, as a further occurrence of those samples, so with draws of their own.
    """
    n = len(order.sample)
    if ends == "even" or (ends == "drop" and n < batch_size):
        return order, even_slices(n, batch_size)
    n_batches = n // batch_size if ends == "drop" else -(-n // batch_size)
    sample = np.resize(order.sample, n_batches * batch_size)
    return EpochOrder(sample, _occurrences(sample)), even_slices(len(sample), batch_size)


def neighbours(batches: Sequence[slice], most: int) -> list[list[slice]]:
    """Return the batches in groups of such that follow each other and hold at most `most` samples together.

    A batch that is larger is a group of its own.
    """
    groups: list[list[slice]] = []
    for part in batches:
        group = groups[-1] if groups else []
        if group and group[-1].stop == part.start and part.stop - group[0].start <= most:
            group.append(part)
        else:
            groups.append([part])
    return groups


def joined_passes(passes: Sequence[tuple[EpochOrder, list[slice]]]) -> tuple[EpochOrder, list[slice]]:
    """Return several passes over the samples as one epoch, with the batches of each; samples that recur are counted."""
    sample = np.concatenate([order.sample for order, _ in passes])
    starts = np.cumsum([0, *(len(order.sample) for order, _ in passes)]).tolist()
    batches = [
        slice(start + part.start, start + part.stop)
        for start, (_, parts) in zip(starts, passes, strict=False)
        for part in parts
    ]
    return EpochOrder(sample, _occurrences(sample)), batches


def draws_of(samples: Samples, order: EpochOrder, part: slice, device: str, seed: int, epoch: int | None) -> Draw:
    """Return where the augmentations of one batch get their draws: functions of (name, seed, epoch, id, occurrence).

    With epoch None they are the same in every epoch.
    """
    keys, occurrence = samples.key[order.sample[part]], order.occurrence[part]
    purpose = ("augment", seed) if epoch is None else ("augment", seed, epoch)

    def draw(name: str, n: int) -> Tensor:
        return torch.from_numpy(uniforms(make_key(*purpose, name), keys, n, occurrence)).to(device)

    return draw


def seeds_of(samples: Samples, order: EpochOrder, part: slice, seed: int, epoch: int) -> UInt64s:
    """Return a seed for each sample of a batch, (B,): what libraries with generators of their own draw from."""
    key = make_key("albumentations", seed, epoch)
    return bits(key, samples.key[order.sample[part]], order.occurrence[part])


class Items:
    """The stored items as tensors on a device: resident there when they fit, else fetched batch by batch."""

    def __init__(self, array: np.memmap | NDArray, device: str) -> None:  # type: ignore[type-arg]
        self.device = device
        self.source = array
        self.is_uint16 = array.dtype == np.uint16
        array = _writable(array)
        self._pages, self._is_resident = Pages(array), False
        self._tensor = torch.from_numpy(array.view(np.int16) if self.is_uint16 else array)
        if device != "cpu" and self._tensor.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._tensor, self._is_resident = self._tensor.to(device), True

    @property
    def full_scale(self) -> float:
        """Return the value of full white: 255 for 8 bits, 65535 for 16 bits, else 1."""
        return 65535.0 if self.is_uint16 else 255.0 if self._tensor.dtype == torch.uint8 else 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one item."""
        return tuple(self._tensor.shape[1:])

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._tensor)

    def fetch(self, positions: NDArray[np.int64]) -> Tensor:
        """Return items as a new tensor (B, ...) on the device: uint8 as stored, all other types as float32."""
        return next(self.fetch_each([positions]))

    def fetch_each(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield what `fetch` gives for each batch of positions; the disk brings the next one while one is worked on."""
        for number, positions in enumerate(batches):
            for soon in batches[:2] if number == 0 else batches[number + 1 : number + 2]:
                self.ask(soon)
            yield self._gathered(positions)

    def ask(self, positions: NDArray[np.int64]) -> None:
        """Have the disk bring items that are wanted soon and that memory may not hold, without waiting for them."""
        if not self._is_resident:
            self._pages.ask(positions)

    def _gathered(self, positions: NDArray[np.int64]) -> Tensor:
        index = torch.from_numpy(positions).to(self._tensor.device)
        if self.device == "cpu" or self._is_resident:
            batch = self._tensor.index_select(0, index)
        else:
            # Pinned, so that nobody waits for the copy and the next batch is gathered while the device works; torch
            # keeps the memory until the copy is done, and for good, so what is larger, such as for statistics, is not.
            shape = (len(positions), *self.shape)
            is_pinned = math.prod(shape) * self._tensor.itemsize <= _PINNED_BYTES
            batch = torch.empty(shape, dtype=self._tensor.dtype, pin_memory=is_pinned)
            torch.index_select(self._tensor, 0, index, out=batch)
            batch = batch.to(self.device, non_blocking=is_pinned)
        if self.is_uint16:  # torch knows few operations on uint16, so it travels as int16 and is put right here
            return (batch.to(torch.int32) & 0xFFFF).float()
        return batch


class JoinedItems:
    """Items of several stores under one count of positions: those of the first, then those of the next."""

    def __init__(self, parts: Sequence[Items]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @property
    def device(self) -> str:
        """Return where `fetch` puts items."""
        return self._parts[0].device

    def fetch(self, positions: NDArray[np.int64]) -> Tensor:
        """Return items (B, ...) in the order of their positions; see `Items.fetch`."""
        if len(self._parts) == 1:
            return self._parts[0].fetch(positions)
        shares = self._shares(positions)
        fetched = [part.fetch(own) for part, _, own in shares]
        back = np.argsort(np.concatenate([places for _, places, _ in shares]))
        return torch.cat(fetched)[torch.from_numpy(back).to(self.device)]

    def ask(self, positions: NDArray[np.int64]) -> None:
        """Have the disk bring items that are wanted soon; see `Items.ask`."""
        for part, _, own in self._shares(positions):
            part.ask(own)

    def _shares(self, positions: NDArray[np.int64]) -> list[tuple[Items, NDArray[np.int64], NDArray[np.int64]]]:
        """Return each store that is wanted, the places in `positions` that are its own, and its positions for them."""
        whose = np.searchsorted(self._starts, positions, side="right") - 1
        own = [(part, np.flatnonzero(whose == part)) for part in np.unique(whose).tolist()]
        return [(self._parts[part], places, positions[places] - self._starts[part]) for part, places in own]


def channel_stats(items: Items, positions: NDArray[np.int64], chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel over the given items, each (C,) float64, in stored units.

    Non-finite values are left out; a constant channel gets the deviation 1. At most `chunk` items are held at a time,
    fewer where they are large.
    """
    n_channels = items.shape[0]
    totals = torch.zeros(3, n_channels, dtype=torch.float64)
    if items.full_scale != 65535:  # whose sums would change in their last bits; those of bytes know no order
        most = _MOST_VALUES if items.full_scale == 1 else _MOST_BYTES
        chunk = max(1, min(chunk, most // math.prod(items.shape)))
    for stored in items.fetch_each([positions[part] for part in batches_of(len(positions), chunk)]):
        batch = stored.to("cpu").transpose(0, 1).flatten(1)
        totals += _sums_of_bytes(batch) if batch.dtype == torch.uint8 else _sums(batch.double())
    count = totals[0].clamp(min=1)
    mean = totals[1] / count
    variance = (totals[2] / count - mean * mean).clamp(min=0)
    std = variance.sqrt()
    # Relative to the mean alone, as magnetic fields in tesla deviate by 1e-13; what is left of 0.1 - 0.1 is below it.
    return mean, torch.where(std > 1e-6 * mean.abs(), std, 1.0)


def _sums(batch: Tensor) -> Tensor:
    """Return count, sum and sum of squares of the finite values of each row, (3, C)."""
    finite = batch.isfinite()
    values = torch.where(finite, batch, 0.0)
    return torch.stack([finite.sum(1).double(), values.sum(1), (values * values).sum(1)])


def _sums_of_bytes(batch: Tensor) -> Tensor:
    """Return the same of uint8, to the bit as all sums are whole, by counting values: 20 times as fast."""
    counts = torch.stack([torch.bincount(row, minlength=256) for row in batch])
    values = torch.arange(256)
    return torch.stack([counts.sum(1), (counts * values).sum(1), (counts * values**2).sum(1)]).double()


def batches_of(n: int, batch_size: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `batch_size` that cover 0..n-1."""
    for start in range(0, n, batch_size):
        yield slice(start, min(start + batch_size, n))


def _occurrences(order: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return for each place how often its sample stood before it."""
    by_sample = np.argsort(order, kind="stable")
    ordered = order[by_sample]
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1]
    counts = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    result = np.empty(len(order), dtype=np.uint64)
    result[by_sample] = counts.astype(np.uint64)
    return result


def _writable(array: np.memmap | NDArray) -> NDArray[Any]:  # type: ignore[type-arg]
    """Return the array as torch wants its memory; a whole map uncopied, mapped copy-on-write."""
    base: object = array.base  # which numpy types as an array, and which is the map itself for a whole one
    if isinstance(array, np.memmap) and isinstance(base, mmap.mmap):
        return np.memmap(str(array.filename), dtype=array.dtype, mode="c", offset=array.offset, shape=array.shape)
    # Such as a slice of a map, whose `offset` is that of the whole.
    return array if array.flags.writeable else np.array(array)
