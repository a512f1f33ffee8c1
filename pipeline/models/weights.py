"""Weights on disk: safetensors with a JSON beside, written whole and checked by hash; and start weights for a model.

Nothing is ever unpickled: a pickle runs whatever code its author put into it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from pipeline.base.errors import DataError, listed, nearest
from pipeline.base.files import atomic_path, read_json, sha256_file, write_json

_WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, and the units of a run
_MOST_COLOURS = 4


@dataclass(frozen=True)
class Report:
    """What of a weight file went into a model; the names are those of the model's state."""

    file: str
    matched: tuple[str, ...]
    """Taken as they were."""
    resized: tuple[str, ...]
    """Taken after a change of shape, which each line tells: first convolutions, position embeddings."""
    other_shape: tuple[str, ...]
    """In both, but of shapes that do not fit, as a head for other classes has: left as initialised."""
    missing: tuple[str, ...]
    """In the model only: left as initialised."""
    unexpected: tuple[str, ...]
    """In the file only: ignored."""

    @property
    def is_poor(self) -> bool:
        """Whether less than half of the model's tensors came from the file."""
        n_taken = len(self.matched) + len(self.resized)
        return n_taken < len(self.other_shape) + len(self.missing)

    def text(self) -> str:
        """Return the report as a few lines."""
        n_taken = len(self.matched) + len(self.resized)
        n_all = n_taken + len(self.other_shape) + len(self.missing)
        lines = [f"{self.file}: {n_taken} of {n_all} tensors of the model loaded"]
        for what, names in (
            ("resized", self.resized),
            ("left as initialised, of another shape in the file", self.other_shape),
            ("left as initialised, not in the file", self.missing),
            ("in the file only, ignored", self.unexpected),
        ):
            if names:
                lines.append(f"  {what}: {listed(names, 6)}")
        return "\n".join(lines)


def save_weights(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Write tensors to a safetensors file and `meta` to the JSON beside it, and return the file's SHA-256.

    Tensors may share memory, be views or lie on any device: each is written on its own. Either file is whole or
    absent; the JSON, which holds the hash, comes last, so a file without its match beside was never finished.
    """
    # A fresh copy each: safetensors refuses shared memory and strided layouts (tied weights, channels_last).
    copies = {key: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for key, t in tensors.items()}
    with atomic_path(path) as temp:
        save_file(copies, temp, metadata={"format": "pt"})
        digest = sha256_file(temp)
    write_json(_sidecar(path), {"sha256": digest, "meta": dict(meta)})
    return digest


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the meta that `save_weights` wrote.

    Raises:
        DataError: a file is missing or unreadable, or the tensors are not those that the JSON was written for.
    """
    beside = _read_sidecar(path)
    content = _read_bytes(path)
    digest = sha256(content).hexdigest()
    if digest != beside["sha256"]:
        raise DataError(
            f"{path}: SHA-256 is {digest}, but {_sidecar(path).name} says {beside['sha256']}: the file was damaged, "
            "exchanged or never finished. Restore both files, or make them again"
        )
    return _parse(path, content), dict(beside["meta"])


def read_model_meta(path: Path) -> dict[str, Any]:
    """Return the meta beside a weight file without reading the tensors; raises DataError like `read_weights`."""
    return dict(_read_sidecar(path)["meta"])


def save_model(path: Path, model: nn.Module, meta: Mapping[str, Any]) -> str:
    """Write a model's state like `save_weights` and return the file's SHA-256."""
    return save_weights(path, model.state_dict(), meta)


def load_weights(model: nn.Module, path: Path) -> Report:
    """Load into `model`, in place, what fits of a safetensors file, and return what was done with every tensor.

    The first convolution of an image net is adapted to another number of channels: summed for one, else repeated and
    scaled so that the response to a grey image stays, as timm does. Absolute position embeddings (`pos_embed`) are
    resampled to another grid by timm. A tensor of any other shape, such as the head for other classes, is left as
    initialised.

    Raises:
        DataError: the file is missing, not safetensors, or holds no parameter of this model.
    """
    state = model.state_dict()
    tensors = {_unwrapped(key, state): tensor for key, tensor in _parse(path, _read_bytes(path)).items()}
    taken: dict[str, Tensor] = {}
    resized, other_shape = [], []
    for key in [key for key in state if key in tensors]:
        source, target = tensors[key], state[key]
        fitted = source if source.shape == target.shape else _fit(model, key, source, target)
        if fitted is None:
            other_shape.append(f"{key} {_change(source, target)}")
            continue
        taken[key] = fitted
        if fitted is not source:
            resized.append(f"{key} {_change(source, target)}")
    if not any(key in taken for key, _ in model.named_parameters()):
        raise DataError(
            f"{path}: holds no parameter of this model, so it belongs to another.\n"
            f"  in the file: {listed(sorted(tensors), 5)}\n  in the model: {listed(sorted(state), 5)}"
        )
    model.load_state_dict(taken, strict=False)
    return Report(
        file=str(path),
        matched=tuple(key for key in taken if taken[key] is tensors[key]),
        resized=tuple(resized),
        other_shape=tuple(other_shape),
        missing=tuple(key for key in state if key not in tensors),
        unexpected=tuple(key for key in tensors if key not in state),
    )


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a convolution's weight (O, I, ...) for another number of input channels.

    For one channel the sum over I; for more, the input channels repeated in turn and scaled by I / channels. Either
    way an image whose channels are all alike gets the response that it got before, but for what repeating cuts off.
    """
    n_old = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    order = torch.arange(channels) % n_old
    return weight[:, order] * (n_old / channels)


def _fit(model: nn.Module, key: str, source: Tensor, target: Tensor) -> Tensor | None:
    """Return `source` in the shape of `target` where that has a meaning, else None."""
    if key in _first_conv_keys(model) and source.ndim == target.ndim == 4:
        same = source.shape[0] == target.shape[0] and source.shape[2:] == target.shape[2:]
        # More channels than an image has are not colours: stems that fold space into depth, for one.
        return fit_channels(source, target.shape[1]) if same and source.shape[1] <= _MOST_COLOURS else None
    if key.rpartition(".")[2] == "pos_embed" and source.ndim == target.ndim == 3:
        return _fit_positions(model, source, target)
    return None


def _fit_positions(model: nn.Module, source: Tensor, target: Tensor) -> Tensor | None:
    """Return position embeddings (1, tokens, D) for the model's grid; None when the file's grid is not square."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or source.shape[2] != target.shape[2]:
        return None
    n_prefix = target.shape[1] - math.prod(grid)
    n_old = source.shape[1] - n_prefix
    if n_prefix < 0 or n_old < 1 or math.isqrt(n_old) ** 2 != n_old:
        return None
    fitted: Tensor = resample_abs_pos_embed(source, new_size=list(grid), num_prefix_tokens=n_prefix)
    return fitted


def _first_conv_keys(model: nn.Module) -> tuple[str, ...]:
    """Return the state keys of the convolutions that see the image: as timm names them, else the first one."""
    config = getattr(model, "pretrained_cfg", None) or {}
    named = config.get("first_conv") if isinstance(config, dict) else None
    if named:
        return tuple(f"{name}.weight" for name in ([named] if isinstance(named, str) else named))
    convs: Iterator[str] = (name for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    return tuple(f"{name}.weight" for name in list(convs)[:1])


def _change(source: Tensor, target: Tensor) -> str:
    return f"{tuple(source.shape)} -> {tuple(target.shape)}"


def _unwrapped(key: str, known: Container[str]) -> str:
    """Return the key without the names of wrappers before it, unless the model has it as it is."""
    while key not in known and key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_sidecar(path: Path) -> dict[str, Any]:
    beside = _sidecar(path)
    try:
        content = read_json(beside)
    except FileNotFoundError:
        raise DataError(f"{beside}: is missing; it is written last, so {path.name} was never finished") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{beside}: cannot be read: {error}") from None
    if not isinstance(content, dict) or {"sha256", "meta"} - content.keys():
        raise DataError(f"{beside}: expected the keys sha256 and meta; it was not written beside {path.name}")
    return content


def _read_bytes(path: Path) -> bytes:
    if path.suffix != ".safetensors":
        raise DataError(
            f"{path}: weights are read from .safetensors only. Files such as .pt, .pth, .bin and .ckpt are pickles, "
            "which run code of whoever made them when they are opened. Convert one whose source you trust:\n"
            '  python -c "import torch, safetensors.torch as s; '
            f"d = torch.load('{path}', map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
            f"s.save_file({{k: v.contiguous().clone() for k, v in d.items()}}, '{path.with_suffix('.safetensors')}')\""
        )
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = nearest(path.name, [each.name for each in path.parent.glob("*.safetensors")])
        raise DataError(f"{path}: no such file.{near}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _parse(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise DataError(f"{path}: is not a whole safetensors file: {error}") from None
