import json

import pytest
import torch
from torch import nn

from pipeline.base.errors import PodiumError
from pipeline.models.weights import read_weights, save_weights
from pipeline.records.experiment import OptimizerSpec
from pipeline.training.checkpoint import (
    flatten_optimizer,
    newest_checkpoint,
    remove_checkpoints,
    restore_optimizer,
    save_checkpoint,
)
from pipeline.training.optim import allowed_optimizers, build_optimizer


def save(folder, epoch, step):
    save_checkpoint(folder, epoch, step, {"w": torch.tensor([float(epoch), float(step)])}, {"note": f"{epoch}.{step}"})


def newest(folder):
    found = newest_checkpoint(folder)
    return None if found is None else (found[1]["epoch"], found[1]["step"])


def test_the_newest_checkpoint_comes_back_as_it_was_written(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    assert newest_checkpoint(tmp_path) is None
    for place in ((0, 9), (0, 10), (2, 0), (10, 0)):
        save(tmp_path, *place)
        tensors, values = newest_checkpoint(tmp_path)
        assert tensors["w"].tolist() == list(place)
        assert values == {"epoch": place[0], "step": place[1], "note": f"{place[0]}.{place[1]}"}


def test_two_checkpoints_are_kept_each_with_its_json(tmp_path):
    for step in range(5):
        save(tmp_path, 0, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    stems = ["checkpoint-00000-0000003", "checkpoint-00000-0000004"]
    assert names == [f"{stem}{end}" for stem in stems for end in (".json", ".safetensors")]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def damage_bytes(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": damage_bytes,
    "a cut file": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "an empty file": lambda path: path.write_bytes(b""),
    "no json": lambda path: path.with_suffix(".json").unlink(),
    "half a json": lambda path: path.with_suffix(".json").write_text('{"sha256": "'),
    "json without tensors": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, how):
    save(tmp_path, 0, 1)
    save(tmp_path, 0, 2)
    DAMAGES[how](tmp_path / "checkpoint-00000-0000002.safetensors")
    assert newest(tmp_path) == (0, 1)
    DAMAGES[how](tmp_path / "checkpoint-00000-0000001.safetensors")
    assert newest(tmp_path) is None


def test_what_a_killed_write_left_is_removed(tmp_path):
    save(tmp_path, 0, 1)
    left = tmp_path / "checkpoint-00000-0000002.part-123.safetensors"
    left.write_bytes(b"half")
    assert newest(tmp_path) == (0, 1)
    assert not left.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_never_written(tmp_path, value):
    save(tmp_path, 0, 1)
    tensors = {"model/w": torch.ones(2), "ema/w": torch.tensor([0.0, value])}
    with pytest.raises(PodiumError, match=r"epoch 0, step 2.*not finite: ema/w\. The last good checkpoint is kept"):
        save_checkpoint(tmp_path, 0, 2, tensors, {})
    assert newest(tmp_path) == (0, 1)


def test_a_full_disk_is_an_error_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save(tmp_path, 0, 1)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.models.weights.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 0, 2)
    assert newest(tmp_path) == (0, 1)
    assert not list(tmp_path.glob("*.part-*"))


# -- optimisers --------------------------------------------------------------------------------------------------------


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 3))
    return net.to(memory_format=torch.channels_last)


def walk(net, optimizer, n_steps, start):
    for step in range(start, start + n_steps):
        images = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(net(images), torch.arange(8) % 3)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def plain_state(optimizer):
    """The whole state of an optimiser, tensors as (type, strides, values)."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return str(value.dtype), value.stride(), value.tolist()
        return value

    state = optimizer.state_dict()
    entries = {index: {name: plain(value) for name, value in of.items()} for index, of in state["state"].items()}
    groups = [
        {k: plain(v) for k, v in group.items() if isinstance(v, bool | int | float)} for group in state["param_groups"]
    ]
    return entries, groups


@pytest.mark.parametrize("name", allowed_optimizers())
def test_every_optimizer_goes_on_bitwise_from_the_files(tmp_path, name):
    spec = OptimizerSpec(name=name, lr=1e-2, weight_decay=0.01)
    net = make_net()
    optimizer = build_optimizer(spec, net)
    walk(net, optimizer, 3, 0)
    tensors, values = flatten_optimizer(optimizer)
    save_weights(tmp_path / "o.safetensors", tensors, {"optimizer": values})
    read, meta = read_weights(tmp_path / "o.safetensors")

    copy = make_net()
    copy.load_state_dict(net.state_dict())
    resumed = build_optimizer(spec, copy)
    restore_optimizer(resumed, read, meta["optimizer"])
    assert plain_state(resumed) == plain_state(optimizer)
    walk(net, optimizer, 3, 3)
    walk(copy, resumed, 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters(), strict=True))


def test_a_fresh_optimizer_has_an_empty_state_that_comes_back():
    net = make_net()
    optimizer = build_optimizer(OptimizerSpec(name="adam"), net)
    tensors, values = flatten_optimizer(optimizer)
    assert tensors == {}
    restore_optimizer(optimizer, {}, json.loads(json.dumps(values)))
    walk(net, optimizer, 1, 0)
