"""Optimisers without torch's compiler: the same bits, hooks and state, and it is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.training.eager import eager
from pipeline.training.optim import _TORCH


def trained(kind, options, n_steps=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    optimizer = kind(model.parameters(), lr=1e-2, **options)
    for _ in range(n_steps):
        model(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, optimizer


@pytest.mark.parametrize("name", _TORCH)
def test_an_eager_optimiser_moves_the_weights_by_the_same_bits(name):
    kind, options = _TORCH[name]
    plain, light = trained(kind, options), trained(eager(kind), options)
    for wanted, found in zip(plain[0].parameters(), light[0].parameters(), strict=True):
        assert torch.equal(wanted, found)
    assert isinstance(light[1], kind)
    assert repr(plain[1]) == repr(light[1])


def test_its_state_goes_into_torchs_own_and_back():
    _, light = trained(eager(torch.optim.AdamW), {})
    _, plain = trained(torch.optim.AdamW, {})
    assert light.state_dict()["param_groups"] == plain.state_dict()["param_groups"]
    plain.load_state_dict(light.state_dict())
    light.load_state_dict(plain.state_dict())
    assert float(light.state_dict()["state"][0]["step"]) == 4


def test_no_gradient_is_followed_in_its_step_and_its_hooks_run():
    seen = []
    model = nn.Linear(2, 1)
    optimizer = eager(torch.optim.SGD)(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert seen == [True]
    assert model.weight.is_leaf
    assert model.weight.requires_grad


def test_no_compiler_is_imported():
    code = """
import sys, torch
from pipeline.records.experiment import OptimizerSpec
from pipeline.training.optim import build_optimizer
model = torch.nn.Linear(2, 2)
for name in ("adamw", "sgd", "rmsprop"):
    optimizer = build_optimizer(OptimizerSpec(name=name), model)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    optimizer.load_state_dict(optimizer.state_dict())
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
