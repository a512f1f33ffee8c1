import math
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.records.experiment import Constant, Cosine, OneCycle, OptimizerSpec, Step
from pipeline.training.optim import (
    allowed_optimizers,
    build_optimizer,
    is_decayed,
    l1_penalty,
    lr_factor,
    schedule_warnings,
)


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 3))


def train(net, optimizer, n_steps):
    images = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(n_steps):
        loss = nn.functional.cross_entropy(net(images), torch.arange(8) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


GRADIENTS = (3.0, -1.0, 0.5)


def three_steps_of(name, lr, **options):
    """The weight after three steps with these gradients, from 2.0, in float64."""
    holder = nn.Module()
    holder.weight = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    optimizer = build_optimizer(OptimizerSpec(name=name, lr=lr, options=options), holder)
    for gradient in GRADIENTS:
        holder.weight.grad = torch.full_like(holder.weight, gradient)
        optimizer.step()
    return holder.weight.item()


@pytest.mark.parametrize("name", allowed_optimizers())
def test_every_allowed_optimizer_moves_the_weights_and_continues_bitwise_from_its_state(name):
    spec = OptimizerSpec(name=name, lr=1e-2, weight_decay=0.01)
    net = make_net()
    before = [param.detach().clone() for param in net.parameters()]
    optimizer = build_optimizer(spec, net)
    assert math.isfinite(train(net, optimizer, 2))
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    copy = make_net()
    copy.load_state_dict(net.state_dict())
    resumed = build_optimizer(spec, copy)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    train(net, optimizer, 2)
    train(copy, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters(), strict=True))


def test_sgd_momentum_and_nesterov_follow_their_formulas():
    plain, heavy, ahead, velocity = 2.0, 2.0, 2.0, 0.0
    for gradient in GRADIENTS:
        velocity = 0.9 * velocity + gradient
        plain -= 0.1 * gradient
        heavy -= 0.1 * velocity
        ahead -= 0.1 * (gradient + 0.9 * velocity)
    assert three_steps_of("sgd", 0.1) == pytest.approx(plain, abs=1e-12)
    assert three_steps_of("momentum", 0.1) == pytest.approx(heavy, abs=1e-12)
    assert three_steps_of("nesterov", 0.1) == pytest.approx(ahead, abs=1e-12)
    assert three_steps_of("sgd", 0.1, momentum=0.9) == three_steps_of("momentum", 0.1)


def test_adagrad_follows_its_formula_with_eps_outside_the_root():
    weight, squares = 2.0, 0.0
    for gradient in GRADIENTS:
        squares += gradient**2
        weight -= 0.1 * gradient / (math.sqrt(squares) + 1e-3)
    assert three_steps_of("adagrad", 0.1, eps=1e-3) == pytest.approx(weight, abs=1e-12)


def test_rmsprop_follows_its_formula_with_eps_outside_the_root():
    weight, square = 2.0, 0.0
    for gradient in GRADIENTS:
        square = 0.99 * square + 0.01 * gradient**2
        weight -= 0.1 * gradient / (math.sqrt(square) + 1e-3)
    assert three_steps_of("rmsprop", 0.1, eps=1e-3) == pytest.approx(weight, abs=1e-12)


def test_adadelta_follows_its_formula_with_eps_inside_the_root():
    weight, squares, moves = 2.0, 0.0, 0.0
    for gradient in GRADIENTS:
        squares = 0.95 * squares + 0.05 * gradient**2
        move = math.sqrt(moves + 1e-6) / math.sqrt(squares + 1e-6) * gradient
        moves = 0.95 * moves + 0.05 * move**2
        weight -= move
    assert three_steps_of("adadelta", 1.0, rho=0.95) == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_follows_its_formula_with_bias_correction_and_eps_outside_the_root(name):
    weight, mean, square = 2.0, 0.0, 0.0
    for time, gradient in enumerate(GRADIENTS, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weight -= 0.1 * mean / (1 - 0.9**time) / (math.sqrt(square / (1 - 0.999**time)) + 1e-3)
    assert three_steps_of(name, 0.1, eps=1e-3) == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # In one step from nothing, which shows the decay rates and eps that are not stated.
        ("adagrad", 2 - 0.1 * 3 / (3 + 1e-10)),
        ("rmsprop", 2 - 0.1 * 3 / (math.sqrt(0.01 * 9) + 1e-8)),
        ("adadelta", 2 - 0.1 * 3 * math.sqrt(1e-6) / math.sqrt(0.1 * 9 + 1e-6)),
        ("adam", 2 - 0.1 * 3 / (3 + 1e-8)),
    ],
)
def test_the_defaults_of_torch_are_taken(name, expected):
    holder = nn.Module()
    holder.weight = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    optimizer = build_optimizer(OptimizerSpec(name=name, lr=0.1), holder)
    holder.weight.grad = torch.full_like(holder.weight, 3.0)
    optimizer.step()
    assert holder.weight.item() == pytest.approx(expected, abs=1e-12)


def test_l2_in_the_gradient_is_the_decay_of_sgd_and_adam_and_apart_from_it_that_of_adamw():
    def one_step(name):
        holder = nn.Module()
        holder.weight = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
        optimizer = build_optimizer(OptimizerSpec(name=name, lr=0.1, weight_decay=0.5), holder)
        holder.weight.grad = torch.full_like(holder.weight, 3.0)
        optimizer.step()
        return holder.weight.item()

    assert one_step("sgd") == pytest.approx(2 - 0.1 * (3 + 0.5 * 2), abs=1e-12)
    assert one_step("adam") == pytest.approx(2 - 0.1 * 4 / (4 + 1e-8), abs=1e-12)
    assert one_step("adamw") == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 1e-8), abs=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "muon"])
def test_weight_decay_leaves_norms_and_biases_out(name):
    net = make_net()
    optimizer = build_optimizer(OptimizerSpec(name=name, weight_decay=0.1), net)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"0.weight": 0.1, "0.bias": 0, "1.weight": 0, "1.bias": 0, "3.weight": 0.1, "3.bias": 0}
    assert {key: decay[id(param)] for key, param in net.named_parameters()} == expected
    assert {key: is_decayed(key, param) for key, param in net.named_parameters()} == {
        k: v > 0 for k, v in expected.items()
    }


def test_weight_decay_leaves_out_what_the_model_names_and_what_is_frozen():
    net = make_net()
    net.no_weight_decay = lambda: {"3.weight"}
    net[0].weight.requires_grad_(False)
    optimizer = build_optimizer(OptimizerSpec(name="sgd", weight_decay=0.1), net)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(5, 0.0)]


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ConfigError, match="no parameter is trainable"):
        build_optimizer(OptimizerSpec(), nn.Flatten())


@pytest.mark.parametrize("name", ["fusedadam", "bnbadam", "adahessian", "kron", "lookahead_adam", "nonsense"])
def test_optimizers_that_need_more_are_refused_and_the_usable_ones_listed(name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be used.* Allowed: .*adamw.*sgd"):
        build_optimizer(OptimizerSpec(name=name), make_net())


def test_a_misspelt_optimizer_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'momentun' cannot be used.*Did you mean 'momentum'\?"):
        build_optimizer(OptimizerSpec(name="momentun"), make_net())


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_an_unknown_option_is_refused_with_the_nearest(name):
    with pytest.raises(
        ConfigError, match=rf"optimizer.options.beta: {name} has no such option. Did you mean 'betas'\?"
    ):
        build_optimizer(OptimizerSpec(name=name, options={"beta": (0.9, 0.99)}), make_net())


def test_options_that_have_a_key_of_their_own_are_refused():
    with pytest.raises(ConfigError, match=r"optimizer.options.weight_decay: sgd has no such option"):
        build_optimizer(OptimizerSpec(name="sgd", options={"weight_decay": 0.1}), make_net())


@pytest.mark.parametrize(("name", "options"), [("adamw", {"betas": (1.5, 0.9)}), ("lion", {"betas": "x"})])
def test_a_wrong_value_of_an_option_is_an_error_of_the_config(name, options):
    with pytest.raises(ConfigError, match=f"optimizer: {name} does not take"):
        build_optimizer(OptimizerSpec(name=name, options=options), make_net())


def test_options_reach_the_optimizer():
    optimizer = build_optimizer(OptimizerSpec(name="lion", options={"betas": (0.8, 0.9)}), make_net())
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_classroom_optimizers_do_not_import_timm():
    code = (
        "import sys, torch, pipeline.training.optim as o\n"
        "o.build_optimizer(o.OptimizerSpec(name='nesterov'), torch.nn.Linear(2, 2))\n"
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_l1_penalty_sums_the_weights_alone_and_its_gradient_is_their_sign():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].weight.data = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    penalty = l1_penalty(net)
    penalty.backward()
    assert penalty.item() == 6
    assert net[0].weight.grad.tolist() == [[1, -1], [0, 1]]
    assert net[0].bias.grad is None
    assert l1_penalty(nn.BatchNorm1d(2)).item() == 0


def test_constant_stays_at_the_peak_after_a_linear_warmup():
    schedule = Constant(name="constant", warmup_epochs=2)
    assert [lr_factor(schedule, step, 2, 5) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert lr_factor(Constant(name="constant"), 0, 2, 5) == 1


def test_cosine_runs_from_the_peak_to_the_final_share_at_the_last_step():
    schedule = Cosine(name="cosine", final_frac=0.1)
    factors = [lr_factor(schedule, step, 5, 2) for step in range(10)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0.1)
    assert factors == sorted(factors, reverse=True)
    assert lr_factor(schedule, 4, 9, 1) == pytest.approx(0.55)
    assert lr_factor(schedule, 99, 5, 2) == pytest.approx(0.1)


def test_cosine_starts_from_the_peak_when_the_warmup_is_over():
    schedule = Cosine(name="cosine", warmup_epochs=0.5)
    factors = [lr_factor(schedule, step, 4, 3) for step in range(12)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factors[3] < 1
    assert factors[-1] == pytest.approx(0)


def test_one_cycle_rises_and_falls_linearly():
    schedule = OneCycle(name="one_cycle", rise_frac=0.4, start_frac=0.2, final_frac=0.1)
    factors = [lr_factor(schedule, step, 11, 1) for step in range(11)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:] == pytest.approx([1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])


def test_step_falls_at_each_milestone():
    schedule = Step(name="step", milestones=(1.0, 2.5), gamma=0.5, warmup_epochs=0.5)
    factors = [lr_factor(schedule, step, 2, 4) for step in range(8)]
    assert factors == pytest.approx([0.5, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(name="constant", warmup_epochs=1),
        Cosine(name="cosine", warmup_epochs=3),
        OneCycle(name="one_cycle"),
        Step(name="step", milestones=(1.0,)),
    ],
)
def test_every_schedule_stands_the_shortest_training_and_starts_above_zero(schedule):
    assert 0 < lr_factor(schedule, 0, 1, 1) <= 1


def test_numbers_that_are_never_reached_are_warned_of():
    assert schedule_warnings(Cosine(name="cosine", warmup_epochs=1), 10) == []
    assert schedule_warnings(OneCycle(name="one_cycle"), 1) == []
    warmup = schedule_warnings(Cosine(name="cosine", warmup_epochs=10), 10)
    assert len(warmup) == 1
    assert "schedule.warmup_epochs: 10 is not over within train.epochs: 10" in warmup[0]
    late = schedule_warnings(Step(name="step", milestones=(5.0, 10.0, 12.0)), 10)
    assert len(late) == 1
    assert "schedule.milestones: 10, 12 lie beyond train.epochs: 10" in late[0]
