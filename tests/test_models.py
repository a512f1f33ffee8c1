from __future__ import annotations

import inspect
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.keyed import seeded
from pipeline.models import build_model
from pipeline.models.build import _options_record, describe, model_names
from pipeline.models.image_nets import ResidualBlock, drop_samples
from pipeline.models.init import make_activation, pool_and_activate
from pipeline.models.timm_nets import pretrained_stats
from pipeline.models.weights import save_model
from pipeline.records.experiment import ModelSpec

IMAGE_NETS = ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp"]
WIDTHS = {"cnn3": 4, "resnet_small": 4, "conv5x5": 4, "deepconv": 4, "conv1d": 4}


def build(name: str, in_shape: tuple[int, ...] = (3, 16, 16), n_outputs: int = 5, **options: Any) -> nn.Module:
    return build_model(ModelSpec(name=name, **options), in_shape, n_outputs)


def slim(name: str, in_shape: tuple[int, ...] = (3, 16, 16), **options: Any) -> nn.Module:
    sizes = {"hidden": (8,)} if name == "mlp" else {"width": WIDTHS[name]}
    return build(name, in_shape, **{**sizes, **options})


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def weighted_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)]


# ---- shapes and counts


@pytest.mark.parametrize("name", IMAGE_NETS)
@pytest.mark.parametrize("in_shape", [(1, 8, 8), (3, 9, 13), (1, 28, 28), (4, 33, 32), (3, 64, 64)])
def test_image_nets_give_logits_at_any_size_and_channels(name: str, in_shape: tuple[int, ...]) -> None:
    model = slim(name, in_shape)
    assert model.training
    assert model(torch.randn(2, *in_shape)).shape == (2, 5)


@pytest.mark.parametrize("name", ["conv1d", "mlp"])
@pytest.mark.parametrize("in_shape", [(1, 8), (2, 9), (22, 301)])
def test_signal_nets_give_logits_at_any_length_and_channels(name: str, in_shape: tuple[int, ...]) -> None:
    assert slim(name, in_shape)(torch.randn(2, *in_shape)).shape == (2, 5)


@pytest.mark.parametrize("name", IMAGE_NETS)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_number_of_outputs_is_as_asked(name: str, n_outputs: int) -> None:
    assert build(name, (1, 8, 8), n_outputs)(torch.randn(4, 1, 8, 8)).shape == (4, n_outputs)


@pytest.mark.parametrize(
    ("name", "in_shape", "options", "n_parameters"),
    [
        # convolutions without bias, two numbers per norm channel, linear with bias
        ("cnn3", (1, 28, 28), {}, 9 * (32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 1290),
        ("cnn3", (3, 32, 32), {"convs_per_block": 2, "width": 8}, 9 * (24 + 64 + 128 + 256 + 512 + 1024) + 224 + 330),
        ("cnn", (1, 28, 28), {"blocks": 3}, 9 * (32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 1290),
        ("cnn", (3, 48, 48), {"width": 8}, 9 * (24 + 128 + 512 + 2048) + 2 * (8 + 16 + 32 + 64) + 650),
        ("resnet_small", (3, 32, 32), {"width": 16, "depth": 3}, 272474),  # ResNet-20: 269722 + 2560 + 192
        ("mlp", (1, 28, 28), {}, 784 * 256 + 256 + 256 * 128 + 128 + 1290),
        ("mlp", (2, 10), {"hidden": (), "init": "default"}, 210),
        ("mlp", (2, 10), {"hidden": 7, "batch_norm": True}, 140 + 14 + 80),
        ("conv5x5", (1, 28, 28), {}, 25 * 32 + 32 + 32 * 14 * 14 * 10 + 10),
        ("deepconv", (1, 28, 28), {}, 123552),  # as the original, whose padding of 2 gives the same map
        ("conv1d", (2, 750), {}, 7 * 64 + 5 * 32 * 64 + 3 * 64 * 128 + 448 + 1290),
    ],
)
def test_parameter_counts(name: str, in_shape: tuple[int, ...], options: dict[str, Any], n_parameters: int) -> None:
    assert count(build(name, in_shape, 10, **options)) == n_parameters


def test_describe_says_what_is_trained() -> None:
    model = build("mlp", (1, 2), hidden=())
    assert describe(model) == "15 parameters"
    model[1].bias.requires_grad_(False)
    assert describe(model) == "15 parameters, 10 of them trained"
    assert describe(build("deepconv", (1, 28, 28), 10)) == "123,552 parameters"


def test_model_names_are_the_own_nets() -> None:
    image_nets = ["cnn", "cnn3", "conv5x5", "deepconv", "resnet_small", "speednet"]
    signal_nets = ["conv1d", "deep4net", "deepconvnet", "eegnet", "eegnet_v4", "meg_basic", "meg_residual"]
    assert model_names() == sorted([*image_nets, *signal_nets, "mlp"])


# ---- what a net computes


@pytest.mark.parametrize("name", [*IMAGE_NETS, "conv1d"])
def test_eval_is_deterministic_and_keeps_samples_apart(name: str) -> None:
    in_shape = (3, 16) if name == "conv1d" else (3, 16, 16)
    model = slim(name, in_shape, dropout=0.5).eval()
    batch = torch.randn(4, *in_shape)
    assert torch.equal(model(batch), model(batch))
    torch.testing.assert_close(model(batch[1:2]), model(batch)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp", "test_resnet"])
def test_channels_last_gives_the_same(name: str) -> None:
    model = build(name).eval()
    batch = torch.randn(2, 3, 16, 16)
    expected = model(batch)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(batch.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp"])
def test_the_same_key_gives_the_same_first_weights(name: str) -> None:
    def state(key: int) -> dict[str, torch.Tensor]:
        with seeded(key):
            return slim(name).state_dict()

    first, second, other = state(1), state(1), state(2)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp", "conv1d"])
def test_dropout_is_on_in_training_only(name: str) -> None:
    in_shape = (3, 16) if name == "conv1d" else (3, 16, 16)
    batch = torch.randn(8, *in_shape)
    wet = slim(name, in_shape, dropout=0.5, activation="elu")
    assert not torch.equal(wet(batch), wet(batch))
    dry = slim(name, in_shape, dropout=0.0)
    assert not any(isinstance(layer, nn.Dropout) for layer in dry.modules())


def test_deepconv_drops_logits_too_as_the_original() -> None:
    assert isinstance(list(slim("deepconv").children())[-1], nn.Dropout)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"])
def test_pooling_gives_the_value_of_activate_then_pool(name: Any) -> None:
    maps, pool = torch.randn(3, 4, 6, 6) * 2, nn.MaxPool2d(2)
    expected = pool(make_activation(name)(maps))
    assert torch.equal(nn.Sequential(*pool_and_activate(pool, name))(maps), expected)


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp", "conv1d"])
def test_the_activation_reaches_every_place(name: str) -> None:
    in_shape = (3, 16) if name == "conv1d" else (3, 16, 16)
    default = [type(layer) for layer in slim(name, in_shape).modules()]
    chosen = [type(layer) for layer in slim(name, in_shape, activation="tanh").modules()]
    assert nn.ReLU in default
    assert nn.ReLU not in chosen
    assert chosen.count(nn.Tanh) == default.count(nn.ReLU)


def test_pool_max_takes_the_maximum_of_the_last_map() -> None:
    averaged, highest = slim("cnn3").eval(), slim("cnn3", pool="max").eval()
    highest.load_state_dict(averaged.state_dict())
    batch = torch.randn(2, 3, 16, 16)
    maps = averaged[:3](batch)
    torch.testing.assert_close(averaged(batch), averaged.linear(maps.mean((2, 3))))
    torch.testing.assert_close(highest(batch), highest.linear(maps.amax((2, 3))))


def test_residual_blocks_start_as_their_shortcut() -> None:
    block = ResidualBlock(4, 4, 1, 0.0, "relu")
    batch = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(batch), batch.relu())
    gammas = [part.norm2.weight for part in slim("resnet_small").modules() if isinstance(part, ResidualBlock)]
    assert len(gammas) == 6
    assert all((gamma == 0).all() for gamma in gammas)


def test_drop_path_rises_to_the_last_block_and_is_silent_in_eval() -> None:
    model = slim("resnet_small", depth=1, drop_path=0.5)
    blocks = [part for part in model.modules() if isinstance(part, ResidualBlock)]
    assert [block.drop_path_prob for block in blocks] == [0.0, 0.25, 0.5]
    for block in blocks:
        nn.init.ones_(block.norm2.weight)
    batch = torch.randn(8, 3, 16, 16)
    assert not torch.equal(model(batch), model(batch))
    assert torch.equal(model.eval()(batch), model(batch))


def test_drop_samples_zeroes_whole_samples_and_keeps_the_mean() -> None:
    with seeded(3):
        out = drop_samples(torch.ones(4000, 2, 3), 0.25)
    per_sample = out.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert sorted(set(per_sample[:, 0].tolist())) == [0.0, pytest.approx(4 / 3)]
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)


# ---- first weights


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "mlp", "conv1d"])
@pytest.mark.parametrize("init", ["he", "xavier", "gaussian", {"name": "gaussian", "std": 0.3}])
def test_init_reaches_every_layer(name: str, init: Any) -> None:
    in_shape = (3, 16) if name == "conv1d" else (3, 16, 16)
    with seeded(0):
        model = build(name, in_shape, 20, init=init)
    for layer in weighted_layers(model):
        weight: torch.Tensor = layer.weight  # type: ignore[assignment]
        fan_in = weight[0].numel()
        fan_out = weight.shape[0] * weight[0, 0].numel()
        expected = {"he": math.sqrt(2 / fan_in), "xavier": math.sqrt(2 / (fan_in + fan_out)), "gaussian": 0.01}
        std = init["std"] if isinstance(init, dict) else expected[init]
        spread = 4 / math.sqrt(2 * weight.numel())  # four standard errors of a standard deviation
        assert weight.std().item() == pytest.approx(std, rel=spread)
        assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel())
        assert weight.abs().max() > 2.2 * std  # normal, not uniform
        assert layer.bias is None or not layer.bias.any()


def test_init_default_is_that_of_torch() -> None:
    with seeded(5):
        model = build("mlp", (1, 30), hidden=(20,), init="default")
    with seeded(5):
        layers = [nn.Linear(30, 20), nn.Linear(20, 5)]
    for ours, theirs in zip(weighted_layers(model), layers, strict=True):
        assert torch.equal(ours.weight, theirs.weight)  # type: ignore[arg-type]
        assert torch.equal(ours.bias, theirs.bias)  # type: ignore[arg-type]


# ---- errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn3", {"widht": 3}, r"model\.widht: unknown option of 'cnn3'\. Did you mean 'width'\? Allowed: width, conv"),
        ("cnn3", {"pretrained": True}, r"model\.pretrained: unknown option of 'cnn3'"),
        ("cnn3", {"width": 0}, r"model\.width: .*greater than or equal to 1 \(found: 0\)"),
        ("cnn3", {"width": "8"}, r"model\.width: .*valid integer \(found: '8'\)"),
        ("cnn3", {"width": True}, r"model\.width: .*valid integer \(found: True\)"),
        ("cnn3", {"dropout": 1.0}, r"model\.dropout: .*less than 1 \(found: 1\.0\)"),
        ("cnn3", {"activation": "rellu"}, r"model\.activation: .*'relu', 'leaky_relu'.* \(found: 'rellu'\)"),
        ("cnn3", {"pool": "min"}, r"model\.pool: .*'avg' or 'max' \(found: 'min'\)"),
        ("mlp", {"init": "hee"}, r"model\.init: .*'default', 'he', 'xavier' or 'gaussian'.* \(found: 'hee'\)"),
        ("mlp", {"init": {"name": "gaussian", "std": -1}}, r"model\.init: .*std: .*greater than 0"),
        ("mlp", {"hidden": [8, 0]}, r"model\.hidden: .*1: .*greater than or equal to 1 \(found: \[8, 0\]\)"),
        ("cnn3", {"weights": 3}, r"model\.weights: .*valid string"),
        ("resnet18", {"stm": "small"}, r"model\.stm: unknown option of 'resnet18'\. Did you mean 'stem'\?"),
        (
            "resnet_smal",
            {},
            r"model\.name: 'resnet_smal' is neither .* Did you mean 'resnet_small'\? Own nets: cnn, cnn3",
        ),
        ("resnet19", {}, r"'resnet19' is neither an own net nor a model of timm\. Did you mean 'resnet18'\?"),
        ("hf-hub:timm/resnet18", {}, r"is neither an own net nor a model of timm"),
    ],
)
def test_wrong_options_and_names_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **options)


def test_the_options_of_a_net_are_typed_once_and_without_reading_source(monkeypatch: pytest.MonkeyPatch) -> None:
    _options_record.cache_clear()
    read = []
    monkeypatch.setattr(inspect, "getsourcelines", lambda *_: read.append(1) or ([], 0))
    monkeypatch.setattr(inspect, "findsource", lambda *_: read.append(1) or ([], 0))
    slim("cnn3")
    assert not read
    monkeypatch.delattr("pipeline.models.build.create_model")
    slim("cnn3")
    with pytest.raises(NameError, match="create_model"):
        slim("mlp", hidden=(4,))


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)model\.a: unknown.*model\.width: .*model\.dropout: "):
        build("cnn3", a=1, width=0, dropout=-1)


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "conv5x5", "deepconv", "resnet18"])
def test_image_nets_refuse_signals(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' needs images \(C, H, W\), the items here are \(2, 100\)"):
        build(name, (2, 100))


def test_conv1d_refuses_images_and_short_signals() -> None:
    with pytest.raises(ConfigError, match=r"'conv1d' needs signals \(C, T\), the items here are \(1, 28, 28\)"):
        build("conv1d", (1, 28, 28))
    with pytest.raises(ConfigError, match=r"'conv1d' needs signals of at least 8 samples, these have 7"):
        build("conv1d", (1, 7))


@pytest.mark.parametrize("name", ["cnn3", "resnet_small", "deepconv"])
def test_image_nets_say_their_least_size(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' needs images of at least 8 x 8 px, these are 16 x 7"):
        build(name, (3, 16, 7))


@pytest.mark.parametrize(("in_shape", "n_outputs"), [((3,), 2), ((3, 0, 8), 2), ((3, 8, 8), 0)])
def test_impossible_shapes_are_refused(in_shape: tuple[int, ...], n_outputs: int) -> None:
    with pytest.raises(ConfigError, match=r"needs items of \(C, H, W\) or \(C, T\) and at least one output"):
        build("mlp", in_shape, n_outputs)


# ---- timm


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_timm_models_take_the_tasks_channels_size_and_outputs(name: str) -> None:
    model = build(name, (1, 32, 48), 7)
    assert model.training
    assert model(torch.randn(2, 1, 32, 48)).shape == (2, 7)


def test_timm_models_learn_their_input_size() -> None:
    assert build("test_vit", (3, 32, 64)).patch_embed.grid_size == (2, 4)


def test_timm_options_reach_the_model() -> None:
    model = build("test_convnext", (3, 32, 32), drop_rate=0.3, drop_path_rate=0.2, kwargs={"ls_init_value": 0.5})
    assert any(isinstance(layer, nn.Dropout) and layer.p == 0.3 for layer in model.modules())
    assert any(getattr(layer, "drop_prob", 0) == pytest.approx(0.2) for layer in model.modules())
    assert all((value == 0.5).all() for key, value in model.state_dict().items() if key.endswith("gamma"))


def test_small_stem_keeps_the_size_of_the_image() -> None:
    default, small = build("resnet18", (1, 32, 32)), build("resnet18", (1, 32, 32), stem="small")
    image = torch.randn(2, 1, 32, 32)
    assert default.forward_features(image).shape[2:] == (1, 1)
    assert small.forward_features(image).shape[2:] == (4, 4)
    assert count(default) - count(small) == 64 * (49 - 9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vit", {"stem": "small"}, r"model\.stem: small: 'test_vit' has no single first convolution"),
        ("vgg11", {"drop_path_rate": 0.1}, r"model\.drop_path_rate: the model 'vgg11' of timm does not take it"),
        ("test_resnet", {"kwargs": {"foo": 1}}, r"model\.kwargs\.foo: the model 'test_resnet' of timm does not take"),
        ("test_resnet", {"kwargs": {"num_classes": 1}}, r"model\.kwargs\.num_classes: not here: the task's classes"),
        ("test_resnet", {"kwargs": {"checkpoint_path": "a"}}, r"model\.kwargs\.checkpoint_path: .*model\.weights"),
        ("test_resnet", {"kwargs": {"global_pool": "zz"}}, r"timm cannot build 'test_resnet' with global_pool='zz'"),
        ("resnet18.tv_in1", {}, r"timm has no weights 'resnet18\.tv_in1'\. Did you mean 'resnet18\.tv_in1k'\?"),
        ("resnet26s", {"pretrained": True}, r"neither an own net nor a model of timm"),
        ("inception_v4", {}, r"'inception_v4' cannot take images of 16 x 16 px with 3 channels"),
        ("test_resnet", {"pretrained": True, "weights": "a.safetensors"}, r"give one of them"),
    ],
)
def test_wrong_timm_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **options)


def test_a_rate_that_a_model_swallows_unread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)))
    assert build("resnet18", drop_rate=0.0) is not None
    for key in ("drop_rate", "drop_path_rate"):
        with pytest.raises(ConfigError, match=rf"model\.{key}: the model 'resnet18' of timm does not take it"):
            build("resnet18", **{key: 0.5})


def test_a_failed_download_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DataError, match=r"(?s)weights of 'resnet18' could not .*no route.*huggingface\.co/timm/resnet18.*`weights: "
    ) as error:
        build("resnet18", pretrained=True)
    assert "instead of `pretrained: true`" in str(error.value)


def test_a_model_without_pretrained_weights_says_so() -> None:
    name = next(each for each in timm.list_models("vit_*") if not timm.is_model_pretrained(each))
    with pytest.raises(
        ConfigError, match=rf"timm has no pretrained weights for '{name}'.*`weights: file\.safetensors`"
    ):
        build(name, pretrained=True)


def test_pretrained_stats_are_in_units_of_one() -> None:
    mean, std = pretrained_stats("resnet18")
    assert mean == (0.485, 0.456, 0.406)
    assert std == (0.229, 0.224, 0.225)
    assert pretrained_stats("resnet18", 1)[0] == (pytest.approx(0.449),)
    assert pretrained_stats("resnet18", 4)[1] == (0.229, 0.224, 0.225, 0.229)


def test_pretrained_stats_of_an_own_net_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"input\.normalize: pretrained: 'cnn3' is no model of timm"):
        pretrained_stats("cnn3")


# ---- start weights


def test_start_weights_are_read_from_beside_the_config(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maker = slim("cnn3")
    save_model(tmp_path / "start.safetensors", maker, {})
    spec = ModelSpec(name="cnn3", width=4, weights="start.safetensors")
    with caplog.at_level(logging.INFO):
        model = build_model(spec, (3, 16, 16), 5, base_folder=tmp_path)
    assert all(torch.equal(value, maker.state_dict()[key]) for key, value in model.state_dict().items())
    assert "20 of 20 tensors of the model loaded" in caplog.text


def test_weights_that_hardly_fit_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model(tmp_path / "start.safetensors", slim("mlp", hidden=(8, 8, 8)), {})
    spec = ModelSpec(name="mlp", hidden=(8, 7, 6), weights=str(tmp_path / "start.safetensors"))
    build_model(spec, (3, 16, 16), 5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "3 of 8 tensors of the model loaded" in caplog.text
