"""Tensors that torch saved, as arrays; the part of pickle that runs code is never entered."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest

if TYPE_CHECKING:
    from torch import Tensor


def load_tensor(path: Path, key: str | None = None) -> NDArray[Any]:
    """Return the tensor of a `.pt` file as an array, mapped and not loaded where torch wrote it as it does since 1.6.

    Numbers that numpy does not have (bfloat16) become float32.

    Args:
        path: a file of `torch.save`, holding a tensor, or a mapping from names to tensors.
        key: the tensor's name in a mapping; needed when it holds several.

    Raises:
        DataError: the file is missing, damaged, or holds anything but tensors, which might run code when it is loaded.
    """
    import torch

    content = _loaded(path)
    if isinstance(content, dict):
        content = _member({str(name): value for name, value in content.items()}, path, key)
    elif key is not None:
        raise DataError(f"{path}: key '{key}' is only for files that hold several tensors by name")
    if not isinstance(content, torch.Tensor) or content.layout is not torch.strided:
        what = "a sparse tensor" if isinstance(content, torch.Tensor) else type(content).__name__
        raise DataError(f"{path}: expected a tensor, found {what}; save it with torch.save(tensor, path) or as .npy")
    return _array(content.detach())


def _loaded(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise DataError(f"{path}: missing")
    if not path.stat().st_size:
        raise DataError(f"{path}: empty (0 bytes)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: is no file of plain tensors; other objects are not loaded, as they can run code. If you trust it,"
            " load it with torch yourself and save the tensor alone, or as .npy"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: truncated or damaged ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from None


def _member(tensors: dict[str, Any], path: Path, key: str | None) -> Any:
    if key is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if key is None:
        raise DataError(f"{path}: holds several tensors; name one with key: {listed(tensors)}")
    if key not in tensors:
        raise DataError(f"{path}: no tensor '{key}'.{nearest(key, tensors)} It holds: {listed(tensors)}")
    return tensors[key]


def _array(tensor: Tensor) -> NDArray[Any]:
    import torch

    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
