import numpy as np
import pytest
import torch
from torch import nn

from pipeline.records.experiment import SamSpec
from pipeline.training.sam import ascent, is_sam_step, kept_buffers, perturbed

MATRIX = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


class Bowl(nn.Module):
    """0.5 w'Aw, its three weights in two parameters."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Parameter(START[:1].to(dtype, copy=True))
        self.rest = nn.Parameter(START[1:].to(dtype, copy=True))
        self.unused = nn.Parameter(torch.tensor([5.0, 0.1], dtype=dtype))

    def forward(self):
        w = torch.cat([self.first, self.rest])
        return 0.5 * w @ MATRIX.to(w.dtype) @ w


def gradient_of(model):
    return torch.cat([model.first.grad, model.rest.grad])


def weights_of(model):
    return torch.cat([model.first, model.rest]).detach().clone()


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).double()


def small_batch():
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.normal(size=(8, 1, 6, 6))), torch.from_numpy(rng.integers(0, 2, 8))


def bits(tensors):
    return [tensor.detach().clone().view(torch.uint8) if tensor.ndim else tensor.clone() for tensor in tensors]


def same_bits(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_and_asam_on_a_quadratic_are_those_of_the_papers(adaptive):
    model, rho = Bowl(), 0.3
    model().backward()
    g = MATRIX @ START
    assert torch.allclose(gradient_of(model), g)
    w = START.abs()
    e = rho * w**2 * g / torch.linalg.norm(w * g) if adaptive else rho * g / torch.linalg.norm(g)
    with perturbed(model, rho, adaptive):
        torch.testing.assert_close(weights_of(model), START + e, rtol=1e-11, atol=1e-12)
        model().backward()
    torch.testing.assert_close(gradient_of(model), MATRIX @ (START + e), rtol=1e-11, atol=1e-12)
    assert torch.equal(weights_of(model), START)


def test_numbers_by_hand():
    weights, gradients = [torch.tensor([2.0]), torch.tensor([-1.0])], [torch.tensor([3.0]), torch.tensor([4.0])]
    first, second = ascent(weights, gradients, 0.5, adaptive=False)
    assert (first.item(), second.item()) == pytest.approx((0.3, 0.4))  # norm 5 over both parameters together
    first, second = ascent(weights, gradients, 0.5, adaptive=True)
    norm = (6**2 + 4**2) ** 0.5  # of |w| g
    assert (first.item(), second.item()) == pytest.approx((0.5 * 4 * 3 / norm, 0.5 * 1 * 4 / norm))


def test_the_length_of_e_is_rho_also_in_the_scale_of_the_weights():
    weights = [torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, -2.0])]
    gradients = [weight.cos() for weight in weights]
    plain = ascent(weights, gradients, 0.05, adaptive=False)
    assert torch.cat([part.flatten() for part in plain]).norm().item() == pytest.approx(0.05)
    scaled = ascent(weights, gradients, 0.5, adaptive=True)
    lengths = torch.cat([(part / weight.abs()).flatten() for part, weight in zip(scaled, weights, strict=True)])
    assert lengths.norm().item() == pytest.approx(0.5)


def test_asam_does_not_see_a_rescaling_that_leaves_the_function():
    weights, gradients = (
        [torch.tensor([2.0, 1.0]), torch.tensor([-3.0])],
        [torch.tensor([1.0, -1.0]), torch.tensor([2.0])],
    )
    plain = ascent(weights, gradients, 0.5, adaptive=True)
    rescaled = ascent([weights[0] * 8, weights[1] / 8], [gradients[0] / 8, gradients[1] * 8], 0.5, adaptive=True)
    torch.testing.assert_close(rescaled, [plain[0] * 8, plain[1] / 8])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_on_a_small_net_equal_a_plain_reference_in_float64(adaptive, momentum):
    rho, lr, decay = 0.1, 0.05, 0.01
    (inputs, labels), model, plain = small_batch(), small_net(), small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=decay)
    speed = [torch.zeros_like(weight) for weight in plain.parameters()]
    statistics = []
    for _ in range(4):
        nn.functional.cross_entropy(model(inputs), labels).backward()
        with perturbed(model, rho, adaptive), kept_buffers(model):
            nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

        weights = list(plain.parameters())
        first = torch.autograd.grad(nn.functional.cross_entropy(plain(inputs), labels), weights)
        statistics = [buffer.clone() for buffer in plain.buffers()]
        t = [weight.detach().abs() if adaptive else torch.ones_like(weight) for weight in weights]
        norm = sum((one * g).square().sum() for one, g in zip(t, first, strict=True)).sqrt()
        moved = {
            name: weight + rho * one**2 * g / norm
            for (name, weight), one, g in zip(plain.named_parameters(), t, first, strict=True)
        }
        loss = nn.functional.cross_entropy(torch.func.functional_call(plain, moved, (inputs,)), labels)
        second = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for place, (weight, g) in enumerate(zip(weights, second, strict=True)):
                speed[place] = momentum * speed[place] + g + decay * weight
                weight -= lr * speed[place]
            for buffer, old in zip(plain.buffers(), statistics, strict=True):
                buffer.copy_(old)
    for weight, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-10)


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("adaptive", [False, True])
def test_weights_have_their_old_bits_back_also_after_an_error(adaptive, dtype):
    model = small_net().to(dtype)
    inputs, labels = small_batch()
    before = bits(model.parameters())
    for rho in (0.05, 0.123, 1e6):  # after a far move w + e - e would not be w
        nn.functional.cross_entropy(model(inputs.to(dtype)), labels).backward()
        with perturbed(model, rho, adaptive):
            assert not same_bits(bits(model.parameters()), before)
        assert same_bits(bits(model.parameters()), before)
    nn.functional.cross_entropy(model(inputs.to(dtype)), labels).backward()
    with pytest.raises(RuntimeError, match="inside"), perturbed(model, 0.5, adaptive):
        raise RuntimeError("inside")
    assert same_bits(bits(model.parameters()), before)


def test_gradients_of_the_block_stay_and_those_before_it_are_dropped():
    model = Bowl()
    model().backward()
    with perturbed(model, 0.1):
        assert all(weight.grad is None for weight in model.parameters())
        model().backward()
        inside = gradient_of(model).clone()
    assert torch.equal(gradient_of(model), inside)


def test_batch_norm_statistics_and_counters_are_those_of_a_plain_step():
    inputs, labels = small_batch()
    plain, model = small_net(), small_net()
    nn.functional.cross_entropy(plain(inputs), labels).backward()
    nn.functional.cross_entropy(model(inputs), labels).backward()
    with perturbed(model, 0.5), kept_buffers(model):
        nn.functional.cross_entropy(model(inputs), labels).backward()
        assert model[1].num_batches_tracked.item() == 2
    assert same_bits(bits(model.buffers()), bits(plain.buffers()))
    assert model[1].num_batches_tracked.item() == 1


def test_buffers_come_back_also_after_an_error():
    model = small_net()
    before = bits(model.buffers())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), kept_buffers(model):
        model(small_batch()[0][:, :, :4])  # too small for the last layer, and past batch norm by then
    assert same_bits(bits(model.buffers()), before)


# -- gradients that are odd --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_moves_nothing(adaptive):
    model = Bowl()
    (model() * 0).backward()
    with perturbed(model, 0.5, adaptive):
        assert torch.equal(weights_of(model), START)
    assert torch.equal(weights_of(model), START)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_gradient_that_is_not_finite_moves_nothing_anywhere(bad, adaptive):
    model = Bowl()
    model().backward()
    model.rest.grad[1] = bad
    with perturbed(model, 0.5, adaptive):
        assert torch.equal(weights_of(model), START)
    assert torch.equal(weights_of(model), START)


@pytest.mark.parametrize("adaptive", [False, True])
def test_parameters_without_a_gradient_or_frozen_stay_where_they_are(adaptive):
    model = Bowl()
    model.first.requires_grad_(False)
    model().backward()
    with perturbed(model, 0.5, adaptive):
        assert model.unused.tolist() == [5.0, 0.1]
        assert model.first.item() == START[0].item()
        assert not torch.equal(model.rest.detach(), START[1:])
        model().backward()
    assert model.unused.grad is None
    assert model.first.grad is None


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_weight_moves_with_sam_and_stays_with_asam(adaptive):
    (moved,) = ascent([torch.tensor([0.0, 1.0])], [torch.tensor([1.0, 1.0])], 0.1, adaptive)
    assert (moved[0].item() == 0) == adaptive


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("scale", [1024.0, 65536.0, 2.0**-10])
def test_gradients_scaled_for_half_precision_give_the_same_e(scale, adaptive):
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(5, 4, generator=generator), torch.randn(4, generator=generator)]
    gradients = [torch.randn(weight.shape, generator=generator) * 1e-2 for weight in weights]
    plain = ascent(weights, gradients, 0.05, adaptive)
    scaled = ascent(weights, [gradient * scale for gradient in gradients], 0.05, adaptive)
    torch.testing.assert_close(scaled, plain, rtol=3e-7, atol=0)


def test_large_and_tiny_gradients_do_not_overflow_or_vanish():
    weights = [torch.tensor([1.0, 1.0])]
    for size in (1e30, 1e-8):  # squares of the first overflow in float32
        (moved,) = ascent(weights, [torch.tensor([3.0, 4.0]) * size], 0.5, adaptive=False)
        assert moved.tolist() == pytest.approx([0.3, 0.4], rel=1e-3)


def test_inputs_of_ascent_are_left_untouched():
    weights, gradients = [torch.tensor([2.0, -1.0])], [torch.tensor([3.0, 4.0])]
    for adaptive in (False, True):
        ascent(weights, gradients, 0.5, adaptive)
    assert (weights[0].tolist(), gradients[0].tolist()) == ([2.0, -1.0], [3.0, 4.0])


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SamSpec(), [1, 1, 1, 1, 1, 1]),
        (SamSpec(every=2), [1, 0, 1, 0, 1, 0]),
        (SamSpec(start_epoch=1), [0, 0, 0, 1, 1, 1]),
        (SamSpec(every=2, start_epoch=1), [0, 0, 0, 0, 1, 0]),
    ],
)
def test_sam_runs_from_its_epoch_on_and_every_so_many_steps_counted_over_all_epochs(spec, expected):
    assert [is_sam_step(spec, step // 3, step) for step in range(6)] == [bool(flag) for flag in expected]
