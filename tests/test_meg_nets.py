"""The nets for MEG: the baseline layer by layer, and the wide residual one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.errors import ConfigError
from pipeline.base.keyed import seeded
from pipeline.models import build_model
from pipeline.models.meg_nets import ResidualBlock1d, SkipConv, meg_basic
from pipeline.records.experiment import ModelSpec

NETS = ["meg_basic", "meg_residual"]


def build(name: str, in_shape: tuple[int, ...] = (5, 20), n_outputs: int = 3, **options: Any) -> nn.Module:
    return build_model(ModelSpec(name=name, **{"width": 8, **options}), in_shape, n_outputs)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ---- counts and shapes


def test_parameter_counts() -> None:
    assert count(build("meg_basic", (271, 281), 1854, width=128)) == 492_222
    # two blocks of two convolutions of 3 without bias, their shortcuts of 1, three norms each, linear
    convolutions = 3 * (271 * 512 + 512 * 512 + 512 * 1024 + 1024 * 1024) + 271 * 512 + 512 * 1024
    wanted = convolutions + 2 * 3 * (512 + 1024) + 1024 * 1854 + 1854
    assert wanted == 8_493_886
    assert count(build("meg_residual", (271, 281), 1854, width=512)) == wanted
    deeper = count(build("meg_residual", (271, 281), 1854, width=512, depth=2))
    assert deeper - wanted == 6 * (512**2 + 1024**2) + 2 * 2 * (512 + 1024)


def test_the_defaults_are_those_of_the_contest() -> None:
    plain = build_model(ModelSpec(name="meg_basic"), (271, 50), 10)
    assert count(plain) == 492_222 - (1854 - 10) * 129
    wide = build_model(ModelSpec(name="meg_residual"), (3, 50), 10)
    assert [wide.get_submodule(f"block{number}.conv2").out_channels for number in (1, 2)] == [512, 1024]
    assert [part.p for part in plain.modules() if isinstance(part, nn.Dropout)] == [0.1, 0.1]
    assert [(name, part.p) for name, part in wide.named_modules() if isinstance(part, nn.Dropout)] == [("dropout", 0.4)]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("in_shape", [(1, 1), (2, 2), (271, 281), (8, 33)])
def test_any_length_and_number_of_channels(name: str, in_shape: tuple[int, ...]) -> None:
    assert build(name, in_shape, 7)(torch.randn(2, *in_shape)).shape == (2, 7)


@pytest.mark.parametrize("name", NETS)
def test_images_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' needs signals \(C, T\), the items here are \(1, 28, 28\)"):
        build(name, (1, 28, 28))


# ---- what they compute


def baseline(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the logits of `meg_basic` in eval mode, written line by line from its table."""

    def conv(maps: Tensor, name: str) -> Tensor:
        out = F.conv1d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        return out + maps if out.shape == maps.shape else out

    def norm(maps: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"][:, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (var + 1e-5).sqrt() * weight + bias

    for block in ("block1", "block2"):
        x = F.gelu(norm(conv(x, f"{block}.0"), f"{block}.1"))
        x = F.gelu(norm(conv(x, f"{block}.3"), f"{block}.4"))
    return F.linear(x.mean(2), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("channels", [5, 8])
def test_meg_basic_computes_its_table(channels: int) -> None:
    model = meg_basic((channels, 12), 4, width=8).double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)  # type: ignore[arg-type]
    batch = torch.randn(3, channels, 12, dtype=torch.float64)
    torch.testing.assert_close(model.eval()(batch), baseline(model.state_dict(), batch))


def test_the_skip_stands_where_channels_stay() -> None:
    for n_in, has_skip in ((4, True), (3, False)):
        layer = SkipConv(n_in, 4)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        signal = torch.randn(2, n_in, 9)
        assert torch.equal(layer(signal), signal if has_skip else torch.zeros(2, 4, 9))


def test_a_residual_block_adds_its_input_before_the_last_activation() -> None:
    block = ResidualBlock1d(4, 4, "relu").eval()
    signal = torch.randn(2, 4, 9)
    inner = block.norm1(block.conv1(signal)).relu()
    torch.testing.assert_close(block(signal), (block.norm2(block.conv2(inner)) + signal).relu())
    nn.init.zeros_(block.norm2.weight)
    assert torch.equal(block(signal), signal.relu())
    assert block.shortcut is None
    changing = ResidualBlock1d(4, 6, "relu").eval()
    nn.init.zeros_(changing.norm2.weight)
    assert changing.shortcut is not None
    assert torch.equal(changing(signal), changing.shortcut(signal).relu())


# ---- what every net promises


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = build(name, activation="elu").eval()  # in training the norms take out every bias before them
    model(torch.randn(4, 5, 20)).square().sum().backward()
    assert [key for key, param in model.named_parameters() if param.grad is None or not param.grad.any()] == []


@pytest.mark.parametrize("name", NETS)
def test_eval_is_deterministic_and_keeps_samples_apart(name: str) -> None:
    model = build(name).eval()
    batch = torch.randn(4, 5, 20)
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
    batch = torch.randn(8, 5, 20)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    logits.float().square().sum().backward()
    assert all(param.grad is not None and bool(param.grad.isfinite().all()) for param in model.parameters())
    exact = model(batch)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize(("name", "n_activations"), [("meg_basic", 4), ("meg_residual", 2)])
def test_the_activation_is_the_one_that_is_asked_for(name: str, n_activations: int) -> None:
    kinds = [type(part) for part in build(name, activation="tanh").modules()]
    assert kinds.count(nn.Tanh) == n_activations
    assert nn.ReLU not in kinds
    assert nn.GELU not in kinds


@pytest.mark.parametrize("name", NETS)
def test_dropout_is_on_in_training_only_and_leaves_the_names_of_weights(name: str) -> None:
    batch = torch.randn(8, 5, 20)
    wet, dry = build(name, dropout=0.5), build(name, dropout=0.0)
    assert not torch.equal(wet(batch), wet(batch))
    assert torch.equal(dry(batch), dry(batch))
    assert wet.state_dict().keys() == dry.state_dict().keys()


@pytest.mark.parametrize("name", NETS)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.widht: unknown option of '{name}'\. Did you mean 'width'\?"):
        build(name, widht=0.5)
    with pytest.raises(ConfigError, match=r"model\.width: .*greater than or equal to 1 \(found: 0\)"):
        build(name, width=0)
    with pytest.raises(ConfigError, match=r"model\.dropout: .*less than 1 \(found: 1\.0\)"):
        build(name, dropout=1.0)
    with pytest.raises(ConfigError, match=r"model\.activation: .*\(found: 'rellu'\)"):
        build(name, activation="rellu")
