"""speednet: a first layer that is measured, on the training part alone, and travels with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.base.errors import ConfigError
from pipeline.data.batches import Items
from pipeline.models.fast_nets import Measured, ShiftNorm, SpeedNet, Whitening, speednet
from pipeline.records.experiment import OptimizerSpec
from pipeline.records.rows import Rows
from pipeline.training.optim import build_optimizer
from pipeline.training.scaling import Scaling, measure_model


def pictures(n: int = 64, channels: int = 3, px: int = 20) -> torch.Tensor:
    """Return smooth random images, whose neighbouring pixels are alike as those of photographs are."""
    noise = torch.randn(n, channels, px + 4, px + 4, generator=torch.Generator().manual_seed(0))
    return functional.avg_pool2d(noise, 5, stride=1) * torch.linspace(1, 3, channels)[:, None, None]


def test_the_shape_is_that_of_the_paper() -> None:
    net = speednet((3, 32, 32), 10)
    assert sum(param.numel() for param in net.parameters()) == 1_971_352
    assert net.whitening.out_channels == 24
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert net.blocks(torch.randn(1, 24, 31, 31)).shape == (1, 256, 3, 3)


@pytest.mark.parametrize("shape", [(1, 17, 17), (3, 40, 28), (6, 64, 64)])
def test_any_image_of_at_least_17_px(shape: tuple[int, ...]) -> None:
    assert speednet(shape, 4, widths=(8, 8, 8))(torch.randn(2, *shape)).shape == (2, 4)
    with pytest.raises(ConfigError, match="at least 17 x 17 px, these are 17 x 16"):
        speednet((1, 17, 16), 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_measured_layer_whitens(channels: int) -> None:
    layer, images = Whitening(channels), pictures(channels=channels)
    layer.measure(images)
    n_values = layer.out_channels // 2
    out = layer(images).detach().transpose(0, 1).flatten(1)
    correlation = out[:n_values] @ out[:n_values].T / out.shape[1]
    patches = functional.unfold(images, 2).transpose(0, 1).flatten(1).double()
    variances = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)
    assert variances.max() > 20 * variances.min()  # they were far from white before
    assert torch.allclose(correlation.diagonal().double(), variances / (variances + 5e-4), atol=1e-4)
    assert (correlation - torch.diag(correlation.diagonal())).abs().max() < 1e-3
    assert torch.equal(out[n_values:], -out[:n_values])


def test_the_measured_layer_is_no_weight_and_its_shift_is_one() -> None:
    net = speednet((3, 20, 20), 4, widths=(8, 8, 8))
    assert isinstance(net, Measured)
    before = net.whitening.weight.clone()
    net.measure(pictures())
    net(pictures()).square().sum().backward()
    names = {name for name, param in net.named_parameters() if param.requires_grad}
    assert "whitening.bias" in names
    assert "whitening.weight" not in names
    assert net.whitening.bias.grad.abs().sum() > 0
    assert not torch.equal(net.whitening.weight, before)
    again = speednet((3, 20, 20), 4, widths=(8, 8, 8))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.whitening.weight, net.whitening.weight)


def test_the_first_outputs_of_each_convolution_are_its_inputs() -> None:
    net = speednet((3, 20, 20), 4, widths=(32, 40, 48))
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        x = torch.randn(1, conv.in_channels, 5, 5)
        assert torch.allclose(conv(x)[:, : conv.in_channels], x, atol=1e-6)


def test_a_shift_norm_has_no_scale_and_normalises_what_it_sees() -> None:
    norm = ShiftNorm(3)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    out = norm(5 + 3 * torch.randn(16, 3, 8, 8))
    assert torch.allclose(out.mean((0, 2, 3)), torch.tensor([0.0, 1.0, 2.0]), atol=1e-5)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=1e-2)


def test_measuring_sees_the_training_part_alone_and_no_order_of_the_table() -> None:
    images = (40 * pictures(30) + 128).clamp(0, 255).to(torch.uint8).numpy()
    ids = np.array([f"row{number}" for number in range(30)], dtype=object)
    scaling = Scaling(torch.full((3,), 128.0), torch.full((3,), 40.0), torch.zeros(4), torch.ones(4))

    def measured(order: np.ndarray, train: np.ndarray, pixels: np.ndarray = images) -> torch.Tensor:
        net = SpeedNet(3, (8, 8, 8), 4, 1.0, 0.0, "gelu")
        rows = Rows(ids[order], tuple((number,) for number in range(30)), ("a", "b", "c", "d"))
        places = np.flatnonzero(np.isin(ids[order], ids[train]))
        measure_model(net, Items(pixels[order], "cpu"), rows, places, scaling)
        return net.whitening.weight

    plain, train = np.arange(30), np.arange(20)
    wanted = measured(plain, train)
    shuffled = np.random.default_rng(1).permutation(30)
    assert torch.equal(measured(shuffled, train), wanted)
    changed = images.copy()
    changed[20:] = 255 - changed[20:, :, ::-1] // 2
    assert torch.equal(measured(plain, train, changed), wanted)
    assert not torch.equal(measured(plain, np.arange(30), changed), wanted)


def test_norms_and_biases_take_a_rate_of_their_own() -> None:
    net = speednet((3, 20, 20), 4, widths=(8, 8, 8))
    optimizer = build_optimizer(OptimizerSpec(name="nesterov", lr=0.5, weight_decay=0.1, bias_factor=64), net)
    by_rate = {group["lr_scale"]: group for group in optimizer.param_groups}
    assert set(by_rate) == {1.0, 64.0}
    assert all(param.ndim > 1 for param in by_rate[1.0]["params"])
    assert by_rate[1.0]["weight_decay"] == 0.1
    assert all(param.ndim == 1 for param in by_rate[64.0]["params"])
    assert by_rate[64.0]["weight_decay"] == 0
    with_layers = OptimizerSpec(name="nesterov", lr=0.5, layer_decay=0.5, bias_factor=4)
    rates = {group["lr_scale"] for group in build_optimizer(with_layers, net).param_groups}
    assert {4 * rate for rate in rates if rate <= 1} & rates
