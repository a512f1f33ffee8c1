"""The nets for EEG: the layer tables, the published nets, and a largest norm that holds after every step."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_units import assert_resumes, every_step, make_experiment, make_task

from pipeline.base.errors import ConfigError
from pipeline.base.interrupt import StopFlag
from pipeline.base.keyed import seeded
from pipeline.data.batches import Items, samples_of
from pipeline.models import build_model
from pipeline.models.eeg_nets import TimeThenChannels, deep4net, eegnet, eegnet_v4
from pipeline.models.max_norm import Constrained, MaxNormNet, limit_norms
from pipeline.models.weights import read_weights
from pipeline.records.experiment import Experiment, ModelSpec
from pipeline.records.rows import Rows
from pipeline.training.recipe import Parts, build_parts
from pipeline.training.scaling import hard_labels, soft_targets
from pipeline.training.scoring import UnitData
from pipeline.training.train import train_unit

MIN_SAMPLES = {"eegnet": 32, "eegnet_v4": 32, "deepconvnet": 76, "deep4net": 441}
NETS = list(MIN_SAMPLES)
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU}


def build(name: str, in_shape: tuple[int, ...] = (2, 450), n_outputs: int = 3, **options: Any) -> nn.Module:
    return build_model(ModelSpec(name=name, **options), in_shape, n_outputs)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ---- counts and shapes


@pytest.mark.parametrize(
    ("name", "in_shape", "n_outputs", "options", "n_parameters"),
    [
        ("eegnet", (2, 750), 2, {}, 17_874),
        ("eegnet", (22, 1000), 4, {}, 17_874 + 32 * 20 - 1474 + (32 * 31 * 4 + 4)),
        ("deepconvnet", (2, 750), 2, {}, 150_977),
        ("deepconvnet", (3, 750), 2, {}, 150_977 + 25 * 25),
        # over time, channels, time and filters; two numbers per channel of each norm; linear
        ("eegnet_v4", (2, 750), 2, {}, 8 * 64 + 16 * 2 + 16 * 16 + 16 * 16 + 2 * (8 + 16 + 16) + 16 * 23 * 2 + 2),
        ("eegnet_v4", (5, 64), 3, {"width": 4, "depth": 1, "kernel": 7}, 28 + 20 + 64 + 16 + 24 + 4 * 2 * 3 + 3),
        # over time with biases and over channels; three convolutions; norms; 7 samples of 200 channels
        (
            "deep4net",
            (22, 1000),
            4,
            {},
            275 + 25 * 25 * 22 + 10 * (25 * 50 + 50 * 100 + 100 * 200) + 2 * 375 + 200 * 7 * 4 + 4,
        ),
    ],
)
def test_parameter_counts(
    name: str, in_shape: tuple[int, ...], n_outputs: int, options: dict[str, Any], n_parameters: int
) -> None:
    assert count(build(name, in_shape, n_outputs, **options)) == n_parameters


@pytest.mark.parametrize(
    ("name", "in_shape", "shapes"),
    [
        (
            "eegnet",
            (2, 750),
            {"temporal": (16, 2, 750), "spatial": (32, 1, 187), "separable": (32, 1, 23), "flatten": (736,)},
        ),
        (
            "deepconvnet",
            (2, 750),
            {
                "block1.0": (25, 1, 746),
                "block1": (25, 1, 373),
                "block2": (50, 1, 184),
                "block3": (100, 1, 90),
                "block4": (200, 1, 43),
                "flatten": (8600,),
            },
        ),
        (
            "eegnet_v4",
            (22, 257),
            {"temporal": (8, 22, 257), "spatial": (16, 1, 64), "separable": (16, 1, 8), "linear": (2,)},
        ),
        (
            "deep4net",
            (22, 1000),
            {"block1": (25, 1, 330), "block2": (50, 1, 107), "block3": (100, 1, 32), "block4": (200, 1, 7)},
        ),
    ],
)
def test_every_layer_has_the_shape_of_the_table(
    name: str, in_shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]
) -> None:
    model, found = build(name, in_shape, 2), {}
    for layer in shapes:
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, out, layer=layer: found.update({layer: tuple(out.shape[1:])})
        )
    assert model(torch.randn(2, *in_shape)).shape == (2, 2)
    assert found == shapes


@pytest.mark.parametrize("name", NETS)
def test_any_length_from_the_least_on_and_any_number_of_channels(name: str) -> None:
    least = MIN_SAMPLES[name]
    for in_shape in [(1, least), (2, least + 1), (13, least + 70)]:
        assert build(name, in_shape, 1)(torch.randn(2, *in_shape)).shape == (2, 1)


@pytest.mark.parametrize("name", NETS)
def test_shorter_signals_and_images_are_refused_with_what_the_net_needs(name: str) -> None:
    least = MIN_SAMPLES[name]
    message = rf"'{name}' needs signals of at least {least} samples, these have {least - 1}: .* conv1d \(from 8 samples"
    with pytest.raises(ConfigError, match=message):
        build(name, (2, least - 1))
    with pytest.raises(ConfigError, match=rf"'{name}' needs signals \(C, T\), the items here are \(1, 28, 28\)"):
        build(name, (1, 28, 28))


def test_the_least_length_follows_kernels_and_pools() -> None:
    assert deep4net((2, 46), 2, kernel=3, pool=2)(torch.randn(2, 2, 46)).shape == (2, 2)
    with pytest.raises(ConfigError, match="at least 46 samples"):
        deep4net((2, 45), 2, kernel=3, pool=2)


# ---- what they compute


def eegnet_by_the_table(state: dict[str, Tensor], x: Tensor, is_train: bool) -> Tensor:
    """Return the logits of `eegnet` with relu and without dropout, written line by line from its table."""

    def norm(maps: Tensor, name: str) -> Tensor:
        parts = [state[f"{name}.{key}"].clone() for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(maps, *parts, training=is_train, momentum=0.1, eps=1e-5)

    maps = norm(F.conv2d(x[:, None], state["temporal.0.weight"], padding=(0, 25)), "temporal.1")
    maps = F.relu(norm(F.conv2d(maps, state["spatial.0.weight"], groups=16), "spatial.1"))
    maps = F.avg_pool2d(maps, (1, 4))
    maps = F.relu(norm(F.conv2d(maps, state["separable.0.weight"], padding=(0, 7)), "separable.1"))
    return F.linear(F.avg_pool2d(maps, (1, 8)).flatten(1), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("is_train", [True, False])
def test_eegnet_computes_its_table(is_train: bool) -> None:
    model = eegnet((3, 101), 4, dropout=0.0).double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)  # type: ignore[arg-type]
    batch = torch.randn(5, 3, 101, dtype=torch.float64)
    wanted = eegnet_by_the_table(model.state_dict(), batch, is_train)
    torch.testing.assert_close(model.train(is_train)(batch), wanted)


@pytest.mark.parametrize("spatial_bias", [True, False])
def test_filters_over_time_and_channels_are_computed_at_once_with_the_gradients_of_both(spatial_bias: bool) -> None:
    layer = TimeThenChannels(channels=4, width=6, kernel=5, spatial_bias=spatial_bias).double()
    inputs = [torch.randn(3, 4, 20, dtype=torch.float64).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    parameters = list(layer.parameters())
    found = layer(inputs[0])
    wanted = layer.spatial(layer.temporal(inputs[1][:, None]))
    torch.testing.assert_close(found, wanted)
    pull = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, [inputs[0], *parameters], pull),
        torch.autograd.grad(wanted, [inputs[1], *parameters], pull),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", [1, 2, 5, 64])
def test_eegnet_v4_pads_as_same_does_in_tensorflow(kernel: int) -> None:
    model = eegnet_v4((1, 40), 2, kernel=kernel)
    pad, conv = model.temporal[0], model.temporal[1]  # type: ignore[index]
    nn.init.ones_(conv.weight)
    signal = torch.arange(40.0)
    out = conv(pad(signal.view(1, 1, 1, 40)))[0, 0, 0]
    n_before = (kernel - 1) // 2  # TensorFlow: half of the zeros, rounded down, come first
    wanted = [signal[max(0, t - n_before) : t - n_before + kernel].sum() for t in range(40)]
    torch.testing.assert_close(out, torch.stack(wanted))


def test_the_separable_convolution_is_depthwise_and_pointwise() -> None:
    layer = eegnet_v4((2, 64), 2).separable[1].double()  # type: ignore[index]
    assert (layer.depthwise.groups, tuple(layer.depthwise.weight.shape)) == (16, (16, 1, 1, 16))
    assert (layer.pointwise.groups, tuple(layer.pointwise.weight.shape)) == (1, (16, 16, 1, 1))
    batch, parameters = torch.randn(3, 16, 1, 31, dtype=torch.float64), list(layer.parameters())
    found, wanted = layer(batch), layer.pointwise(layer.depthwise(batch))
    torch.testing.assert_close(found, wanted)
    pull = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(out, parameters, pull) for out in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_published_eegnet_has_the_norms_of_keras() -> None:
    for name, wanted in (("eegnet_v4", {(1e-3, 0.01)}), ("eegnet", {(1e-5, 0.1)})):
        norms = [part for part in build(name).modules() if isinstance(part, nn.BatchNorm2d)]
        assert len(norms) == 3
        assert {(part.eps, part.momentum) for part in norms} == wanted


@pytest.mark.parametrize("name", NETS)
def test_init_reaches_every_layer_and_the_published_nets_start_from_xaviers(name: str) -> None:
    layers = [part for part in build(name, (64, 450)).modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(layers) == {"eegnet": 4, "eegnet_v4": 5, "deepconvnet": 6, "deep4net": 6}[name]
    biases = [bool(layer.bias.any()) for layer in layers if layer.bias is not None]
    assert all(biases) if name in ("eegnet", "deepconvnet") else not any(biases)  # torch's own are uniform
    for layer in build(name, (64, 450), init={"name": "gaussian", "std": 1e-4}).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert 0 < layer.weight.abs().max() < 1e-3


@pytest.mark.parametrize("name", NETS)
def test_maps_lie_channels_last_on_a_cpu(name: str) -> None:
    seen = []
    model = build(name)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(lambda _, __, out: seen.append(out))
    model(torch.randn(3, 2, 450))
    assert len(seen) >= 3
    assert all(maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous() for maps in seen)


@pytest.mark.parametrize(
    ("name", "activation", "dropout"),
    [
        ("eegnet", nn.ReLU, 0.25),
        ("eegnet_v4", nn.ELU, 0.25),
        ("deepconvnet", nn.ReLU, 0.5),
        ("deep4net", nn.ELU, 0.5),
    ],
)
def test_defaults(name: str, activation: type[nn.Module], dropout: float) -> None:
    parts = list(build(name).modules())
    assert {part.p for part in parts if isinstance(part, nn.Dropout)} == {dropout}
    assert {type(part) for part in parts if isinstance(part, nn.ReLU | nn.LeakyReLU | nn.ELU)} == {activation}


def test_dropout_stands_where_the_tables_have_it() -> None:
    def places(name: str) -> list[str]:
        return [key for key, part in build(name, (2, 750)).named_modules() if isinstance(part, nn.Dropout)]

    assert places("eegnet") == ["spatial.4", "separable.4"]
    assert places("eegnet_v4") == ["spatial.4", "separable.5"]
    assert places("deepconvnet") == ["block2.0", "block3.0", "block4.0", "dropout"]
    assert places("deep4net") == ["block2.0", "block3.0", "block4.0"]


# ---- what every net promises


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = build(name, activation="elu").eval()  # in training the norms take out every bias before them
    model(torch.randn(4, 2, 450)).square().sum().backward()
    still = [key for key, param in model.named_parameters() if param.grad is None or not param.grad.any()]
    assert still == []


@pytest.mark.parametrize("name", NETS)
def test_eval_is_deterministic_and_keeps_samples_apart(name: str) -> None:
    model = build(name).eval()
    batch = torch.randn(4, 2, 450)
    assert torch.equal(model(batch), model(batch))
    torch.testing.assert_close(model(batch[1:2]), model(batch)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_the_same_key_gives_the_same_first_weights(name: str) -> None:
    def state(key: int) -> dict[str, Tensor]:
        with seeded(key):
            return build(name).state_dict()

    first, second, other = state(1), state(1), state(2)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NETS)
def test_bf16_trains_and_stays_near_fp32(name: str) -> None:
    model = build(name, dropout=0.0)
    batch = torch.randn(4, 2, 450)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    logits.float().square().sum().backward()
    assert all(param.grad is not None and bool(param.grad.isfinite().all()) for param in model.parameters())
    exact = model(batch)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_activation_is_the_one_that_is_asked_for(name: str, activation: str) -> None:
    kinds = [type(part) for part in build(name, activation=activation).modules()]
    assert kinds.count(ACTIVATIONS[activation]) == (2 if name.startswith("eegnet") else 4)
    assert not any(kind in kinds for key, kind in ACTIVATIONS.items() if key != activation)


@pytest.mark.parametrize("name", NETS)
def test_dropout_is_on_in_training_only_and_leaves_the_names_of_weights(name: str) -> None:
    batch = torch.randn(8, 2, 450)
    wet, dry = build(name, dropout=0.5), build(name, dropout=0.0)
    assert not torch.equal(wet(batch), wet(batch))
    assert torch.equal(dry(batch), dry(batch))
    assert {part.p for part in wet.modules() if isinstance(part, nn.Dropout)} == {0.5}
    assert wet.state_dict().keys() == dry.state_dict().keys()


@pytest.mark.parametrize("name", NETS)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.dropuot: unknown option of '{name}'\. Did you mean 'dropout'\?"):
        build(name, dropuot=0.5)
    with pytest.raises(ConfigError, match=r"model\.dropout: .*less than 1 \(found: 1\.0\)"):
        build(name, dropout=1.0)
    with pytest.raises(ConfigError, match=r"model\.activation: .*'relu', 'leaky_relu', 'elu'.*\(found: 'rellu'\)"):
        build(name, activation="rellu")


@pytest.mark.parametrize(("name", "option"), [("eegnet_v4", "width"), ("eegnet_v4", "depth"), ("deep4net", "pool")])
def test_sizes_are_at_least_one(name: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{option}: .*greater than or equal to 1 \(found: 0\)"):
        build(name, **{option: 0})


# ---- the largest norm


def test_rows_beyond_the_limit_are_scaled_and_the_others_keep_their_bits() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.6, 0.8]]).view(4, 1, 2, 1))
    before = weight.detach().clone()
    limit_norms(weight, 2.0)
    torch.testing.assert_close(weight[0].flatten(), torch.tensor([1.2, 1.6]))
    assert torch.equal(weight[1:], before[1:])


def test_frozen_weights_are_left_alone() -> None:
    net = MaxNormNet(OrderedDict(linear=nn.Linear(9, 2)), {"linear.weight": 0.01})
    weight = net.get_parameter("linear.weight").requires_grad_(False)
    before = weight.clone()
    net.constrain()
    assert torch.equal(weight, before)
    weight.requires_grad_()
    net.constrain()
    torch.testing.assert_close(weight.detach().norm(dim=1), torch.full((2,), 0.01))


def norms(state: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest norm of the limited weights as a share of its limit."""
    limits = {"spatial.0.weight": 1.0, "linear.weight": 0.25}
    return {name: float(state[name].flatten(1).norm(dim=1).max()) / limit for name, limit in limits.items()}


def test_the_limits_are_those_of_the_paper_and_hold_from_the_start() -> None:
    model = build("eegnet_v4", init={"name": "gaussian", "std": 3.0})
    assert isinstance(model, Constrained)
    assert not isinstance(eegnet((4, 64), 3), Constrained)
    assert norms(model.state_dict()) == pytest.approx({"spatial.0.weight": 1.0, "linear.weight": 1.0}, abs=1e-5)


def signal_unit(experiment: Experiment) -> tuple[UnitData, Parts]:
    """Return a unit of forty signals of two classes and its parts; it trains on rows 10..39."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int64) % 2
    array = rng.normal(0, 1, (40, 2, 64)).astype(np.float32)
    array[np.arange(40), labels] *= 3
    ids = np.array([f"r{number:02d}" for number in range(40)], dtype=object)
    rows = Rows(ids, tuple((number,) for number in range(40)), ("a", "b"), labels)
    items, task = Items(array, "cpu"), make_task(input="signal")
    train, heldout = np.arange(10, 40), np.arange(10)
    parts = build_parts(task, experiment, every_step(), rows, items, train, 0)
    unit = UnitData(
        name="fold 0",
        seed=0,
        ids=ids,
        items=items,
        targets=soft_targets(task, rows, parts.scaling),
        labels=hard_labels(rows),
        train=samples_of(ids, rows.items, train),
        heldout=samples_of(ids, rows.items, heldout),
        score=lambda values: float((values.argmax(axis=1) == labels[heldout]).mean()),
        higher_is_better=True,
        metric="accuracy",
    )
    return unit, parts


LIMITED: dict[str, Any] = {
    "model": {"name": "eegnet_v4", "kernel": 8},
    "optimizer": {"name": "momentum", "lr": 0.5},
    "ema": {"decay": 0.8},
    "sam": {"rho": 0.5},
    "train": {"epochs": 2, "batch_size": 8, "weights": "ema"},
}


def test_weights_averages_and_files_stay_within_the_limits_after_every_step(tmp_path: Path) -> None:
    experiment = make_experiment(LIMITED)
    unit, parts = signal_unit(experiment)
    assert parts.ema is not None
    highest = dict.fromkeys(("spatial.0.weight", "linear.weight"), 0.0)
    for _ in train_unit(unit, parts, experiment, every_step(), tmp_path, StopFlag()):
        for state in (parts.model.state_dict(), parts.ema.state()):
            for name, share in norms(state).items():
                assert share < 1 + 1e-5
                highest[name] = max(highest[name], share)
    assert all(share > 1 - 1e-5 for share in highest.values())  # so that the limits were reached at all
    files = list(tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        saved = read_weights(file)[0]
        for kind in ("model/", "ema/"):
            state = {key.removeprefix(kind): value for key, value in saved.items() if key.startswith(kind)}
            assert max(norms(state).values()) < 1 + 1e-5


def test_training_within_limits_resumes_bitwise(tmp_path: Path) -> None:
    experiment = make_experiment(LIMITED)
    assert_resumes(lambda: signal_unit(experiment), experiment, tmp_path, stop_after=5)
