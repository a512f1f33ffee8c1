"""Any model of timm by name, fitted to the task's channels, size and outputs; timm is imported at the first use."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from pipeline.base.errors import ConfigError, DataError, listed, nearest
from pipeline.models.image_nets import image_channels
from pipeline.models.init import DropProb

# What `kwargs:` may not hold, and where it comes from instead. The last ones would unpickle files or change outputs.
_TAKEN = {
    "num_classes": "the task's classes decide it",
    "in_chans": "input.channels decides it",
    "img_size": "input.size decides it",
    "pretrained": "write model.pretrained",
    "drop_rate": "write model.drop_rate",
    "drop_path_rate": "write model.drop_path_rate",
    "checkpoint_path": "write model.weights, a safetensors file",
    "pretrained_cfg": "write model.weights, a safetensors file",
    "pretrained_cfg_overlay": "write model.weights, a safetensors file",
    "features_only": "the model must give logits",
}


def build_timm(
    name: str,
    in_shape: tuple[int, ...],
    n_outputs: int,
    *,
    pretrained: bool = False,
    drop_rate: DropProb | None = None,
    drop_path_rate: DropProb | None = None,
    stem: Literal["default", "small"] = "default",
    kwargs: dict[str, Any] | None = None,
) -> nn.Module:
    """Return a model of timm for images of this shape, with a head of `n_outputs`.

    Models with position embeddings or windows are built for the size of the images.

    Args:
        name: such as `resnet18` or, with a tag that says which pretrained weights, `resnet18.a1_in1k`.
        in_shape: (C, H, W).
        n_outputs: K, columns of the logits.
        pretrained: start from timm's weights, fetched from its hub unless they are in the cache.
        drop_rate: dropout before the head; the model's own default when left out.
        drop_path_rate: stochastic depth; the model's own default when left out.
        stem: `small` gives a ResNet a first convolution of 3x3 with stride 1 and no max-pool, for images up to about
            64 px; that convolution starts afresh, also when the rest is pretrained.
        kwargs: further arguments of the model, as timm calls them.

    Raises:
        ConfigError: the name is unknown, an option is not taken by this model, or the images do not fit it.
        DataError: the pretrained weights cannot be fetched.
    """
    channels = image_channels(name, in_shape, min_px=1)
    taken = [f"model.kwargs.{key}: not here: {_TAKEN[key]}" for key in kwargs or {} if key in _TAKEN]
    if taken:
        raise ConfigError("\n".join(taken))
    _check_tag(name, pretrained)
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    given = {key: value for key, value in rates.items() if value is not None}
    arguments = {**(kwargs or {}), **given, "in_chans": channels, "num_classes": n_outputs, "img_size": in_shape[1:]}
    model = _create(name, pretrained, arguments, set(kwargs or {}))
    _check_rates(name, model, given)
    if stem == "small":
        _make_stem_small(name, model)
    _check_forward(name, model, in_shape, n_outputs)
    return model


def is_timm_name(name: str) -> bool:
    """Return whether timm knows a model of that name, any tag aside."""
    import timm

    return bool(name) and ":" not in name and bool(timm.is_model(name))


def timm_names() -> list[str]:
    """Return all model names of timm, without tags."""
    import timm

    return list(timm.list_models())


def pretrained_stats(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation per channel with which timm's weights of this name were trained.

    Units: pixel values scaled to 0..1 (multiply by 255 for stored bytes). For one channel the three are averaged; for
    more than three they repeat, as the weights of the first convolution do.

    Raises:
        ConfigError: timm does not know the name or has no such weights.
    """
    if not is_timm_name(name):
        raise ConfigError(
            f"input.normalize: pretrained: '{name}' is no model of timm, so there is nothing to take it from. "
            "Use `measured`, or give mean and std"
        )
    _check_tag(name, pretrained=True)
    config = _pretrained_config(name)
    return _spread(config.mean, channels), _spread(config.std, channels)


def _pretrained_config(name: str) -> Any:
    import timm

    return timm.get_pretrained_cfg(name)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(channels))


def _check_tag(name: str, pretrained: bool) -> None:
    """Raise a ConfigError when timm has no weights under the name's tag, or none at all though they are wanted."""
    import timm

    architecture, _, tag = name.partition(".")
    if timm.is_model_pretrained(name) or not (tag or pretrained):
        return
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and known:
        raise ConfigError(
            f"model.name: timm has no weights '{name}'.{nearest(name, known)} Known for it: {listed(known)}"
        )
    raise ConfigError(
        f"model.pretrained: timm has no pretrained weights for '{architecture}'. Leave `pretrained` out, give a local "
        'file by `weights: file.safetensors`, or take another model: python -c "import timm; '
        'print(timm.list_pretrained())"'
    )


def _create(name: str, pretrained: bool, arguments: dict[str, Any], users: set[str]) -> nn.Module:
    """Return the model; an argument that it does not take is left out (img_size) or an error (what the user gave)."""
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        return model
    except TypeError as error:
        refused = _refused(error, arguments)
        if "img_size" in refused:
            rest = {key: value for key, value in arguments.items() if key != "img_size"}
            return _create(name, pretrained, rest, users)
        if refused:
            raise _not_taken(name, f"kwargs.{refused[0]}" if refused[0] in users else refused[0]) from None
        raise ConfigError(f"model: timm cannot build '{name}' with {_shown(arguments)}: {error}") from error
    except Exception as error:  # whatever the hub's client or a model's own checks raise
        if pretrained:
            raise DataError(_fetch_message(name, error)) from error
        raise ConfigError(f"model: timm cannot build '{name}' with {_shown(arguments)}: {error}") from error


def _refused(error: TypeError, arguments: dict[str, Any]) -> list[str]:
    """Return which of the arguments a model said it does not know; timm's families say it in two ways."""
    _, unexpected, names = str(error).partition("unexpected keyword argument")
    return [name for name in re.findall(r"'(\w+)'", names) if name in arguments] if unexpected else []


def _shown(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _not_taken(name: str, key: str) -> ConfigError:
    return ConfigError(f"model.{key}: the model '{name}' of timm does not take it; leave it out or take another model")


def _fetch_message(name: str, error: Exception) -> str:
    config = _pretrained_config(name)
    where = (
        f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors" if config.hf_hub_id else config.url
    )
    return (
        f"model.pretrained: the weights of '{name}' could not be fetched and loaded "
        f"({type(error).__name__}: {error}).\n"
        f"Without a network: download {where} where there is one, copy it to this machine and write "
        "`weights: path/to/model.safetensors` instead of `pretrained: true`"
    )


def _check_rates(name: str, model: nn.Module, given: dict[str, float]) -> None:
    """Raise a ConfigError when a rate went nowhere: a few models of timm accept any argument and read it never."""
    reached = {
        "drop_rate": any(
            (isinstance(part, nn.Dropout) and part.p > 0) or getattr(part, "drop_rate", None)
            for part in model.modules()
        ),
        "drop_path_rate": any(getattr(part, "drop_prob", None) for part in model.modules()),
    }
    for key, value in given.items():
        if value > 0 and not reached[key]:
            raise _not_taken(name, key)


def _make_stem_small(name: str, model: nn.Module) -> None:
    """Exchange, in place, a ResNet's 7x7 stride-2 convolution for 3x3 stride 1, and take its max-pool out."""
    conv, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(pool, nn.Module):
        raise ConfigError(
            f"model.stem: small: '{name}' has no single first convolution followed by a max-pool, as resnet18, "
            "resnet50 and their kin have; use `stem: default`"
        )
    small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    model.conv1, model.maxpool = small, nn.Identity()


def _check_forward(name: str, model: nn.Module, in_shape: tuple[int, ...], n_outputs: int) -> None:
    """Raise a ConfigError when images of this shape cannot pass the model or come out in another shape."""
    was_training = model.training
    model.eval()
    try:
        shape = _output_shape(model, in_shape)
    except Exception as error:  # each family fails in its own way on what is too small for it
        raise ConfigError(
            f"model.name: '{name}' cannot take images of {in_shape[1]} x {in_shape[2]} px with {in_shape[0]} channels: "
            f"{type(error).__name__}: {error}. Change input.size, or take another model"
        ) from error
    finally:
        model.train(was_training)
    if shape != (1, n_outputs):
        raise ConfigError(f"model.name: '{name}' gives {shape}, not (1, {n_outputs}): it is no classifier of images")


def _output_shape(model: nn.Module, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the output for one image, without computing anything where the model allows that."""
    tensors = dict(chain(model.named_parameters(), model.named_buffers()))
    empty = {key: torch.empty_like(tensor, device="meta") for key, tensor in tensors.items()}
    with torch.no_grad():
        try:
            with torch.device("meta"):
                return tuple(functional_call(model, empty, (torch.empty(1, *in_shape),)).shape)
        except Exception:  # also a model that mixes in constants of its own, which only a real pass can judge
            return tuple(model(torch.zeros(1, *in_shape)).shape)
