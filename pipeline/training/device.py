"""Devices and precision: what this machine can do, found by asking it and never by timing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.base.errors import ConfigError
from pipeline.records.machine import Precision


def resolve_device(wanted: str) -> str:
    """Return `cuda` or `cpu` for `auto`, else what was asked for if this machine has it."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")  # refused below, as all that torch knows and nobody computes on
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {wanted}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices")
    return wanted


def gpus_of(device: str) -> list[str]:
    """Return the GPUs that units of a run share, by what CUDA_VISIBLE_DEVICES calls them; one at most unless `cuda`."""
    if device != "cuda":
        return [device] if device.startswith("cuda") else []
    n_gpus, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in given.split(",")][:n_gpus] if given else [str(number) for number in range(n_gpus)]


def seats_of(device: str) -> list[dict[str, str]]:
    """Return the environments of processes side by side, in each of which `cuda` is another GPU; none for one device.

    CUDA reads them when a process first uses it, so they are for processes that have not.
    """
    gpus = gpus_of(device)
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] if len(gpus) > 1 else []


def resolve_precision(wanted: str, device: str) -> Precision:
    """Return the precision of the multiplications: bf16 for `auto` where the hardware has it, else fp32.

    Native means: CUDA from Ampere on; CPUs with AMX or AVX512-BF16.
    """
    if wanted == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if wanted == "fp16" and device == "cpu":
        raise ConfigError("train.precision: fp16 needs a CUDA device; on a CPU use bf16 or fp32")
    return {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}[wanted]  # type: ignore[return-value]


def has_native_bf16(device: str) -> bool:
    """Say whether the device multiplies bf16 in hardware."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


def require_compiler(device: str) -> None:
    """Raise a ConfigError where torch.compile lacks what it makes machine code with: a C++ compiler, or Triton."""
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            raise ConfigError("train.compile: needs the package triton for CUDA; install it, or set compile: false")
        return
    compilers = [os.environ.get("CXX", "g++"), "g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in compilers):
        raise ConfigError("train.compile: needs a C++ compiler such as g++; install one, or set compile: false")


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Return the context in which forward passes multiply in the given precision."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "fp32")


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Use `n_threads` inside the block: sums of another thread count differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_later(flag: Tensor) -> Callable[[], bool]:
    """Start bringing a boolean to the host; the returned function waits for that copy and no more.

    On CUDA the wait ends when the work queued *before* this call is done, so what is queued between (a backward pass)
    keeps the device busy: reading a loss's finiteness this way costs no device-wide synchronisation.
    """
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.copy_(flag, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> bool:
        copied.synchronize()
        return bool(host)

    return wait
