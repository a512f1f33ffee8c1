import pytest
import torch
from torch import nn

from pipeline.base.errors import MismatchError
from pipeline.training.ema import Ema, state_tensors, swapped


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def wander(net, step):
    net(torch.randn(5, 3, generator=torch.Generator().manual_seed(step)))  # moves the buffers
    with torch.no_grad():
        for param in net.parameters():
            param.add_(0.1 * (step + 1))


def bits(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("warmup", [True, False])
def test_averages_follow_the_recurrence_for_weights_and_float_buffers(warmup):
    net = make_net()
    ema = Ema(net, 0.3, warmup)
    slow = {name: tensor.double() for name, tensor in bits(net).items()}
    for step in range(6):
        wander(net, step)
        ema.update(net, step)
        decay = min(0.3, (1 + step) / (10 + step)) if warmup else 0.3
        slow = {name: decay * slow[name] + (1 - decay) * new.double() for name, new in bits(net).items()}
    for name, average in ema.state().items():
        if average.is_floating_point():
            torch.testing.assert_close(average.double(), slow[name], rtol=1e-5, atol=1e-6)


def test_counters_are_copied():
    net = make_net()
    ema = Ema(net, 0.9, False)
    for step in range(3):
        wander(net, step)
        ema.update(net, step)
    assert ema.state()["1.num_batches_tracked"].item() == 3


def test_starting_and_updating_leave_the_model_untouched():
    net = make_net()
    before = bits(net)
    Ema(net, 0.9, True).update(net, 0)
    assert same(bits(net), before)


def test_a_loaded_average_continues_bitwise():
    net = make_net()
    whole = Ema(net, 0.9, True)
    for step in range(2):
        wander(net, step)
        whole.update(net, step)
    saved = {name: tensor.clone() for name, tensor in whole.state().items()}
    resumed = Ema(make_net(5), 0.9, True)
    resumed.load_state(saved)
    for step in range(2, 4):
        wander(net, step)
        whole.update(net, step)
        resumed.update(net, step)
    assert same(whole.state(), resumed.state())


def test_loading_copies_and_never_shares_memory():
    ema = Ema(make_net(), 0.9, False)
    saved = bits(make_net(1))
    before = {name: tensor.clone() for name, tensor in saved.items()}
    ema.load_state(saved)
    ema.update(make_net(2), 0)
    assert same(saved, before)


def test_swapped_shows_the_other_weights_and_restores_every_bit():
    net, other = make_net(), bits(make_net(1))
    before, places = bits(net), [param.data_ptr() for param in net.parameters()]
    with swapped(net, other):
        assert same(bits(net), other)
        assert places == [param.data_ptr() for param in net.parameters()]
        wander(net, 0)
    assert same(bits(net), before)


def test_swapped_restores_after_an_error():
    net = make_net()
    before = bits(net)
    with pytest.raises(ZeroDivisionError), swapped(net, bits(make_net(1))):
        raise ZeroDivisionError
    assert same(bits(net), before)


def test_swapped_keeps_gradients_and_the_history_of_the_optimizer():
    net = make_net()
    net(torch.ones(2, 3)).sum().backward()
    gradient = net[0].weight.grad.clone()
    with swapped(net, bits(make_net(1))):
        pass
    assert torch.equal(net[0].weight.grad, gradient)
    assert net[0].weight.requires_grad


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    ema = Ema(net, 0.5, False)
    with torch.no_grad():
        net[0].weight.add_(1)
    ema.update(net, 0)
    assert torch.equal(ema.state()["0.weight"], ema.state()["1.weight"])
    with swapped(net, ema.state()):
        assert net[0].weight is net[1].weight
        assert torch.equal(net[0].weight, ema.state()["0.weight"])


def test_foreign_names_and_shapes_are_refused_and_the_model_stays():
    net = make_net()
    before = bits(net)
    short = {name: tensor for name, tensor in before.items() if name != "2.bias"}
    with pytest.raises(MismatchError, match=r"differ in 2\.bias"), swapped(net, short):
        pass
    with pytest.raises(MismatchError, match=r"differ in 2\.bias \(3,\)"):
        Ema(net, 0.9, True).load_state({**before, "2.bias": torch.zeros(3)})
    assert same(bits(net), before)


def test_state_tensors_share_the_memory_of_the_model():
    net = make_net()
    assert state_tensors(net)["0.weight"].data_ptr() == net[0].weight.data_ptr()
