"""conv5x5 has the law of the net in the textbook, and its dropout that of torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipeline.models.dropout import CheapDropout
from pipeline.models.plain_nets import MapLinear, conv5x5

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def textbook(shape, n_outputs, width=6, dropout=0.0):
    n_features = width * (shape[1] // 2) * (shape[2] // 2)
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *([nn.Dropout(dropout)] if dropout else []),
        nn.Linear(n_features, n_outputs),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 12)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_it_computes_and_learns_what_the_textbook_does_from_the_same_weights(layout, shape, dropout):
    torch.manual_seed(0)
    wanted = textbook(shape, 4, dropout=dropout).double().eval()
    found = conv5x5(shape, 4, width=6, dropout=dropout).double().eval()
    found.load_state_dict(wanted.state_dict())
    found = found.to(memory_format=layout)
    inputs = torch.randn(5, *shape, dtype=torch.float64)
    labels = torch.randint(0, 4, (5,))
    losses = [
        nn.functional.cross_entropy(model(given), labels)
        for model, given in ((wanted, inputs), (found, inputs.to(memory_format=layout)))
    ]
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for name, parameter in wanted.named_parameters():
        torch.testing.assert_close(found.get_parameter(name).grad, parameter.grad)


def test_first_weights_are_drawn_as_the_textbook_draws_them():
    torch.manual_seed(3)
    wanted = textbook((1, 8, 8), 4).state_dict()
    torch.manual_seed(3)
    found = conv5x5((1, 8, 8), 4, width=6, dropout=0.0).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_linear_layer_on_a_map_reads_it_in_either_layout(layout):
    linear = MapLinear((3, 2, 5), 4)
    maps = torch.randn(7, 3, 2, 5)
    torch.testing.assert_close(
        linear(maps.to(memory_format=layout)), nn.functional.linear(maps.flatten(1), *linear.parameters())
    )


@pytest.mark.parametrize("prob", [0.1, 0.4, 0.5, 0.9])
@pytest.mark.parametrize("make", [nn.Dropout, CheapDropout])
def test_dropout_has_the_law_of_torchs(prob, make):
    torch.manual_seed(0)
    n_rows, n = 64, 40_000
    found = make(prob)(torch.ones(n_rows, n))
    kept = found != 0
    torch.testing.assert_close(found[kept].unique(), torch.tensor([1 / (1 - prob)]), rtol=1e-4, atol=0)
    deviation = math.sqrt(prob * (1 - prob) / (n_rows * n))
    assert abs(kept.float().mean().item() - (1 - prob)) < 5 * deviation
    # Rows, columns, neighbours, values of one word and of two calls know nothing of each other.
    centred = kept.double() - (1 - prob)
    again = (make(prob)(torch.ones(n_rows, n)) != 0).double() - (1 - prob)
    variance = prob * (1 - prob)
    for other in (centred.roll(1, 1), centred.roll(2, 1), centred.roll(3, 1), centred.roll(1, 0), again):
        assert abs((centred * other).mean().item()) < 5 * variance / math.sqrt(n_rows * n)
    # The number kept in a row is binomial: its variance over rows too.
    assert kept.sum(1).double().var().item() == pytest.approx(n * variance, rel=5 * math.sqrt(2 / (n_rows - 1)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 8, 6, 6)])
def test_the_seed_decides_and_gradients_pass_where_values_do(layout, dtype, shape):
    dropout = CheapDropout(0.5)
    values = torch.ones(shape, dtype=dtype).to(memory_format=layout).requires_grad_()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(dropout(values))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert outputs[0].dtype == dtype
    assert outputs[0].is_contiguous(memory_format=layout)
    outputs[0].sum().backward()
    assert torch.equal(values.grad, outputs[0].detach())


def test_in_eval_nothing_is_dropped_or_drawn():
    values, state = torch.randn(3, 4), torch.get_rng_state()
    assert torch.equal(CheapDropout(0.5).eval()(values), values)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_dropout_takes_any_shape_and_layout(shape):
    assert CheapDropout(0.5)(torch.ones(shape)).shape == shape
    turned = torch.ones(3, 4).t()
    assert set(CheapDropout(0.5)(turned).unique().tolist()) <= {0.0, 2.0}
    assert CheapDropout(0.9999999)(torch.ones(1000)).isfinite().all()
