"""Randomness as a function of what it is for: the same key gives the same draws, whatever ran before.

A *key* is a 64-bit number made from words and numbers (`make_key("order", seed, epoch)`), an *id* is hashed once to 64
bits, and a draw is a pure function of (key, id, occurrence, draw number). So the draws of a sample do not depend on
its batch, the number of workers, the device or an interruption.

The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def make_key(*parts: str | int) -> int:
    """Return a 64-bit key for a purpose: distinct parts give distinct keys, on every machine and Python."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_ids(ids: Sequence[str]) -> UInt64s:
    """Return a stable 64-bit hash of each id, shape (N,), uint64."""
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def bits(key: int, ids: UInt64s, occurrence: UInt64s | None = None) -> UInt64s:
    """Return 64 random bits for each id, shape (B,), uint64: seeds for what draws from a generator of its own.

    Args:
        key: what they are for, from `make_key`.
        ids: (B,) hashed ids.
        occurrence: (B,) see `uniforms`.
    """
    return _bits(key, ids, 1, occurrence)[:, 0]


def uniforms(key: int, ids: UInt64s, n_draws: int, occurrence: UInt64s | None = None) -> NDArray[np.float64]:
    """Return uniform draws in [0, 1) for each id, shape (B, n_draws), float64 with 53 random bits.

    Args:
        key: what the draws are for, from `make_key`.
        ids: (B,) hashed ids.
        n_draws: draws per id, >= 0; the first draws do not change when more are asked for.
        occurrence: (B,) which time within the epoch each id appears; without it the draws are others than with zeros.
    """
    drawn = _bits(key, ids, n_draws, occurrence)
    drawn >>= np.uint64(11)
    return np.multiply(drawn, 2.0**-53, dtype=np.float64)


def integers(key: int, ids: UInt64s, high: int, n_draws: int, occurrence: UInt64s | None = None) -> NDArray[np.int64]:
    """Return integers of 0..high-1 for each id, shape (B, n_draws), int64, as `uniforms` times `high`, rounded down.

    The same bits on every machine. The bias comes from dealing 2**53 uniforms to `high` integers: the probability of
    each differs from 1 / high by less than 2**-52, which is 2e-10 of it where `high` is a million.

    Args:
        key: what the draws are for.
        ids: (B,) hashed ids.
        high: 1..2**53, the integer after the largest one.
        n_draws: draws per id; see `uniforms`.
        occurrence: (B,) see `uniforms`.

    Raises:
        ValueError: `high` is out of range.
    """
    if not 1 <= high <= 2**53:
        raise ValueError(f"high: {high} is not within 1..2**53")
    return np.floor(uniforms(key, ids, n_draws, occurrence) * high).astype(np.int64)


def normals(key: int, ids: UInt64s, n_draws: int, occurrence: UInt64s | None = None) -> NDArray[np.float64]:
    """Return standard normal draws for each id, shape (B, n_draws), float64, within -8.3..8.3.

    The inverse of the distribution function at `uniforms`, so a larger uniform is a larger normal. Another version of
    scipy or another processor may change the last bits.

    Args:
        key: what the draws are for.
        ids: (B,) hashed ids.
        n_draws: draws per id; see `uniforms`.
        occurrence: (B,) see `uniforms`.
    """
    from scipy.special import ndtri

    # Zero, whose normal is minus infinity, stands for all of [0, 2**-53): its middle is taken.
    draws = np.maximum(uniforms(key, ids, n_draws, occurrence), 2.0**-54)
    return np.asarray(ndtri(draws), dtype=np.float64)


def betas(
    key: int, ids: UInt64s, alpha: float, beta: float, n_draws: int, occurrence: UInt64s | None = None
) -> NDArray[np.float64]:
    """Return draws of the beta distribution for each id, shape (B, n_draws), float64 in [0, 1].

    The inverse of the distribution function at `uniforms`, a microsecond each; see `normals` for its last bits. Small
    parameters push draws against the ends, and then 0 and 1 themselves occur.

    Args:
        key: what the draws are for.
        ids: (B,) hashed ids.
        alpha: > 0.
        beta: > 0; where it equals `alpha`, draws lie alike on both sides of one half.
        n_draws: draws per id; see `uniforms`.
        occurrence: (B,) see `uniforms`.

    Raises:
        ValueError: a parameter is not positive.
    """
    from scipy.special import betaincinv

    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha: {alpha} and beta: {beta} must be positive")
    return np.asarray(betaincinv(alpha, beta, uniforms(key, ids, n_draws, occurrence)), dtype=np.float64)


def permutation(key: int, n: int) -> NDArray[np.int64]:
    """Return a random order of 0..n-1, shape (n,), int64, as a function of `key` alone."""
    draws = uniforms(key, np.arange(n, dtype=np.uint64), 1)[:, 0]
    return np.argsort(draws, kind="stable").astype(np.int64)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed torch's global generators from `key` inside the block and restore them afterwards.

    For what can use only the global generator: initialisation, dropout, drop-path.
    """
    import torch  # here, because it takes a second that `podium --help` need not wait

    # Not `torch.manual_seed`: it formats its caller's stack for every kind of device that is not there, 0.1 to 0.5 ms.
    generators = [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]  # type: ignore[no-untyped-call]
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(key % 2**63)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _bits(key: int, ids: UInt64s, n_draws: int, occurrence: UInt64s | None) -> UInt64s:
    """Return 64 random bits for each id and draw, shape (B, n_draws)."""
    base = _mix(ids ^ np.uint64(key))
    if occurrence is not None:
        base += occurrence.astype(np.uint64) * _GOLDEN
        _mix(base)
    return _mix(base[:, None] + np.arange(1, n_draws + 1, dtype=np.uint64) * _GOLDEN)


def _mix(bits: UInt64s) -> UInt64s:
    """Scramble each 64-bit number of an array in place, so that neighbours become unrelated, and return it.

    Arithmetic on arrays wraps around without a warning, which it would give on single numbers.
    """
    shifted = np.empty_like(bits)
    bits += _GOLDEN
    bits ^= np.right_shift(bits, np.uint64(30), out=shifted)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= np.right_shift(bits, np.uint64(27), out=shifted)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= np.right_shift(bits, np.uint64(31), out=shifted)
    return bits
