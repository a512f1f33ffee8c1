"""From the `model:` block of a config to a network: the own nets by name, everything else from timm."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ValidationError, create_model
from torch import nn

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.models.eeg_nets import deep4net, deepconvnet, eegnet, eegnet_v4
from pipeline.models.fast_nets import speednet
from pipeline.models.image_nets import cnn, cnn3, resnet_small
from pipeline.models.meg_nets import meg_basic, meg_residual
from pipeline.models.plain_nets import conv5x5, deepconv, mlp
from pipeline.models.signal_nets import conv1d
from pipeline.models.subjects import Subject, SubjectLayer, embedded_channels, with_subjects
from pipeline.models.timm_nets import build_timm, is_timm_name, timm_names
from pipeline.models.weights import load_weights
from pipeline.records.experiment import ModelSpec
from pipeline.records.record import Record, tuples

Builder = Callable[..., nn.Module]

_log = logging.getLogger(__name__)
_IMAGE_NETS = (cnn, cnn3, resnet_small, speednet, conv5x5, deepconv)
_SIGNAL_NETS = (conv1d, eegnet, eegnet_v4, deepconvnet, deep4net, meg_basic, meg_residual)
_NETS = (mlp, *_IMAGE_NETS, *_SIGNAL_NETS)
_OWN: dict[str, Builder] = {net.__name__: net for net in _NETS}


def build_model(
    spec: ModelSpec, in_shape: tuple[int, ...], n_outputs: int, base_folder: Path | None = None, n_subjects: int = 0
) -> nn.Module:
    """Return a new network from (B, *in_shape) to logits (B, n_outputs), in training mode, on the CPU.

    First weights come from torch's global generator, so seed it around the call. With the option `weights:` they are
    then read from a safetensors file; how much of it fitted goes to the log, as a warning when it was under half.

    Args:
        spec: an own net or a model of timm by name, with its options.
        in_shape: (C, H, W) of images or (C, T) of signals.
        n_outputs: classes, labels or target values; at least 1.
        base_folder: what a relative `weights:` path starts from; the current folder when left out.
        n_subjects: S of the task, for the option `subject` of nets for signals; see `pipeline.models.subjects`.

    Raises:
        ConfigError: the name or an option is unknown, a value is of the wrong type or range, or the net cannot take
            items of this shape.
        DataError: weights cannot be read, fetched or matched.
    """
    if len(in_shape) not in (2, 3) or min(in_shape) < 1 or n_outputs < 1:
        raise ConfigError(
            f"model: needs items of (C, H, W) or (C, T) and at least one output (found: {in_shape}, {n_outputs})"
        )
    builder = _builder(spec.name)
    options = check_options(spec.name, builder, spec.options)
    weights = options.pop("weights", None)
    if weights is not None and options.get("pretrained"):
        raise ConfigError("model.weights: and model.pretrained: would overwrite one another; give one of them")
    first = () if spec.name in _OWN else (spec.name,)
    subject: Subject = options.pop("subject", "none")
    if subject != "none" and not n_subjects:
        raise ConfigError(f"model.subject: {subject} needs subjects; name their column in the task (subject:)")
    shape = (in_shape[0] + embedded_channels(subject), *in_shape[1:])
    model = builder(*first, shape, n_outputs, **options)
    if subject != "none":
        model = with_subjects(model, SubjectLayer(subject, in_shape[0], n_subjects))
    if weights is not None:
        report = load_weights(model, (base_folder or Path()) / weights)
        _log.log(logging.WARNING if report.is_poor else logging.INFO, report.text())
    return model


def model_names() -> list[str]:
    """Return the names of the own nets, sorted; every model name of timm is understood beside them."""
    return sorted(_OWN)


def describe(model: nn.Module) -> str:
    """Return how many parameters a model has, such as `1,234,567 parameters`, and how many of them are trained."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{total:,} parameters" + (f", {trained:,} of them trained" if trained != total else "")


def check_options(name: str, builder: Builder, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as the builder's annotations describe them; those left out stay left out.

    Args:
        name: of the model, for messages.
        builder: a function whose keyword-only parameters are the options; `weights` is allowed beside them, and
            `subject` of nets for signals.
        options: plain YAML values.

    Raises:
        ConfigError: one line for each unknown key (with the nearest known one) and each wrong value.
    """
    record = _options_record(name, builder)
    allowed = list(record.model_fields)
    faults = [
        f"model.{key}: unknown option of '{name}'.{nearest(key, allowed)} Allowed: {listed(allowed, 40)}"
        for key in options
        if key not in allowed
    ]
    known = {key: value for key, value in options.items() if key in allowed}
    try:
        checked = record.model_validate(tuples(known))
    except ValidationError as error:
        raise ConfigError("\n".join(faults + _explain(error, known))) from None
    if faults:
        raise ConfigError("\n".join(faults))
    return {key: getattr(checked, key) for key in known}


def _builder(name: str) -> Builder:
    if name in _OWN:
        return _OWN[name]
    if is_timm_name(name):
        return build_timm
    near = nearest(name, [*_OWN, *timm_names()])
    raise ConfigError(
        f"model.name: '{name}' is neither an own net nor a model of timm.{near} Own nets: {listed(model_names())}; "
        "those of timm: python -c \"import timm; print(timm.list_models('*resnet*'))\""
    )


@cache
def _options_record(name: str, builder: Builder) -> type[Record]:
    """Return a record with a field for each keyword-only parameter, typed as it is annotated."""
    hints = get_type_hints(builder, include_extras=True)
    fields: dict[str, Any] = {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    if builder in _SIGNAL_NETS:
        fields["subject"] = (Subject, "none")
    # There is no class whose source could hold docstrings; pydantic would look through that of every caller for it.
    no_docstrings = {"use_attribute_docstrings": False}
    return create_model(
        f"options of {name}", __base__=Record, __cls_kwargs__=no_docstrings, **fields, weights=(str | None, None)
    )


def _explain(error: ValidationError, values: Mapping[str, Any]) -> list[str]:
    """Return a line for each wrong option; the faults of a union's alternatives are joined."""
    messages: dict[str, list[str]] = {}
    for fault in error.errors():
        inner = [str(part) for part in fault["loc"][1:] if isinstance(part, int) or part in ("name", "std")]
        text = ".".join([*inner, ""]).rstrip(".")
        messages.setdefault(str(fault["loc"][0]), []).append(f"{text}: {fault['msg']}" if text else fault["msg"])
    return [
        f"model.{key}: {' or '.join(dict.fromkeys(each))} (found: {values[key]!r})" for key, each in messages.items()
    ]
