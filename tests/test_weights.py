from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn

from pipeline.base.errors import DataError
from pipeline.models.weights import (
    Report,
    fit_channels,
    load_weights,
    read_model_meta,
    read_weights,
    save_model,
    save_weights,
)


def make_net(in_channels: int = 3, n_outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(6, n_outputs)
    )


# ---- writing and reading


def test_tensors_and_meta_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "weights.safetensors"
    tensors = {
        "a": torch.randn(3, 4),
        "half": torch.randn(5).to(torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "flags": torch.tensor([True, False]),
    }
    meta = {"classes": ["a", "b"], "epoch": 3, "unit": {"fold": 0}}
    digest = save_weights(path, tensors, meta)
    read, read_meta = read_weights(path)
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)
    assert read_meta == read_model_meta(path) == meta
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == digest
    assert sorted(each.name for each in path.parent.iterdir()) == ["weights.json", "weights.safetensors"]


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(3)}, {})
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    tensors["a"] += 1
    assert read_weights(tmp_path / "w.safetensors")[0]["a"].sum() == 0


def test_shared_strided_and_trained_tensors_can_be_saved(tmp_path: Path) -> None:
    net = make_net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.append(nn.Linear(4, 6))
    net[5].weight = nn.Parameter(net[4].weight.detach().t())  # a strided view of the layer before
    net.append(net[4])  # tied
    save_model(tmp_path / "w.safetensors", net, {})
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    assert tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in net.state_dict().items())
    assert net[0].weight.requires_grad


def test_the_same_tensors_give_the_same_hash(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    first = save_weights(tmp_path / "1.safetensors", tensors, {"x": 1})
    second = save_weights(tmp_path / "2.safetensors", dict(reversed(tensors.items())), {"x": 2})
    assert first == second
    assert save_weights(tmp_path / "3.safetensors", {**tensors, "a": torch.ones(3)}, {}) != first


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(3)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors: SHA-256 is .* but w\.json says"):
        read_weights(path)


def test_weights_without_their_json_were_never_finished(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(3)}, {})
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"w\.json: is missing; it is written last, so w\.safetensors was never"):
        read_weights(path)


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), ("[]", "expected the keys"), ("{}", "expected")])
def test_a_json_of_another_kind_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(DataError, match=rf"w\.json: {message}"):
        read_model_meta(tmp_path / "w.safetensors")


def test_a_failed_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(3)}, {"round": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pipeline.models.weights.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(path, {"a": torch.ones(3)}, {"round": 2})
    tensors, meta = read_weights(path)
    assert meta == {"round": 1}
    assert not tensors["a"].any()
    assert len(list(tmp_path.iterdir())) == 2


# ---- start weights


def test_weights_of_the_same_net_all_match(tmp_path: Path) -> None:
    maker, model = make_net(), make_net()
    save_model(tmp_path / "w.safetensors", maker, {})
    report = load_weights(model, tmp_path / "w.safetensors")
    assert len(report.matched) == len(model.state_dict()) == 11
    assert not report.resized + report.other_shape + report.missing + report.unexpected
    assert all(torch.equal(value, maker.state_dict()[key]) for key, value in model.state_dict().items())
    assert report.text() == f"{tmp_path / 'w.safetensors'}: 11 of 11 tensors of the model loaded"


def test_a_head_for_other_classes_stays_as_initialised(tmp_path: Path) -> None:
    maker, model = make_net(n_outputs=1000), make_net(n_outputs=4)
    head = model[4].weight.clone()
    save_model(tmp_path / "w.safetensors", maker, {})
    report = load_weights(model, tmp_path / "w.safetensors")
    assert report.other_shape == ("4.weight (1000, 6) -> (4, 6)", "4.bias (1000,) -> (4,)")
    assert torch.equal(model[4].weight, head)
    assert torch.equal(model[2].weight, maker[2].weight)
    assert "of another shape in the file: 4.weight (1000, 6) -> (4, 6), 4.bias" in report.text()
    assert not report.is_poor


def test_names_on_one_side_only_are_told(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["extra.bias"] = state.pop("2.bias")
    save_weights(tmp_path / "w.safetensors", state, {})
    report = load_weights(make_net(), tmp_path / "w.safetensors")
    assert report.missing == ("2.bias",)
    assert report.unexpected == ("extra.bias",)
    assert "not in the file: 2.bias" in report.text()
    assert "in the file only, ignored: extra.bias" in report.text()


@pytest.mark.parametrize("in_channels", [1, 2, 4, 6])
def test_the_first_convolution_fits_other_channels_as_in_timm(tmp_path: Path, in_channels: int) -> None:
    maker, model = make_net(3), make_net(in_channels)
    save_model(tmp_path / "w.safetensors", maker, {})
    report = load_weights(model, tmp_path / "w.safetensors")
    assert report.resized == (f"0.weight (6, 3, 3, 3) -> (6, {in_channels}, 3, 3)",)
    assert "0.weight" not in report.matched
    torch.testing.assert_close(model[0].weight.data, adapt_input_conv(in_channels, maker[0].weight.data))


@pytest.mark.parametrize(("old", "new"), [(3, 1), (1, 3), (3, 6), (1, 4)])
def test_a_grey_image_gets_the_response_it_got_before(old: int, new: int) -> None:
    weight, grey = torch.randn(6, old, 3, 3), torch.randn(2, 1, 8, 8)
    before = nn.functional.conv2d(grey.expand(-1, old, -1, -1), weight)
    after = nn.functional.conv2d(grey.expand(-1, new, -1, -1), fit_channels(weight, new))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_never_adapted(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["2.weight"] = torch.randn(6, 3, 3, 3)
    save_weights(tmp_path / "w.safetensors", state, {})
    assert load_weights(make_net(), tmp_path / "w.safetensors").other_shape[0].startswith("2.weight")


def test_a_stem_that_is_no_image_stem_is_not_adapted(tmp_path: Path) -> None:
    save_model(tmp_path / "w.safetensors", make_net(48), {})
    report = load_weights(make_net(16), tmp_path / "w.safetensors")
    assert report.other_shape == ("0.weight (6, 48, 3, 3) -> (6, 16, 3, 3)",)


def test_timm_models_exchange_weights_over_channels_size_and_classes(tmp_path: Path) -> None:
    maker = timm.create_model("test_vit", img_size=64, num_classes=9, in_chans=3)
    model = timm.create_model("test_vit", img_size=(32, 48), num_classes=4, in_chans=1)
    nn.init.normal_(maker.pos_embed)
    save_model(tmp_path / "w.safetensors", maker, {})
    report = load_weights(model, tmp_path / "w.safetensors")
    assert [line.split()[0] for line in report.resized] == ["pos_embed", "patch_embed.proj.weight"]
    assert [line.split()[0] for line in report.other_shape] == ["head.weight", "head.bias"]
    n_prefix = maker.num_prefix_tokens
    assert torch.equal(model.pos_embed[:, :n_prefix], maker.pos_embed[:, :n_prefix])
    old_mean, new_mean = maker.pos_embed[:, n_prefix:].mean(), model.pos_embed[:, n_prefix:].mean()
    assert abs(old_mean - new_mean) < 0.1
    assert model.eval()(torch.zeros(1, 1, 32, 48)).isfinite().all()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrapped_models_are_understood(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + key: value for key, value in make_net().state_dict().items()}
    save_weights(tmp_path / "w.safetensors", wrapped, {})
    assert len(load_weights(make_net(), tmp_path / "w.safetensors").matched) == 11


def test_a_model_with_a_part_called_module_keeps_its_names(tmp_path: Path) -> None:
    net = nn.Module()
    net.module = nn.Linear(2, 2)
    save_model(tmp_path / "w.safetensors", net, {})
    assert load_weights(net, tmp_path / "w.safetensors").matched == ("module.weight", "module.bias")


def test_other_precisions_are_converted(tmp_path: Path) -> None:
    maker, model = make_net().half(), make_net()
    save_model(tmp_path / "w.safetensors", maker, {})
    load_weights(model, tmp_path / "w.safetensors")
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, maker[0].weight.float())


def test_weights_of_another_model_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"encoder.weight": torch.zeros(2), "1.num_batches_tracked": torch.tensor(0)}, path)
    message = (
        r"(?s)w\.safetensors: holds no parameter of this model.*in the file: .*encoder\.weight.*in the model: 0\.bias"
    )
    with pytest.raises(DataError, match=message):
        load_weights(make_net(), path)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_pickles_are_never_opened(tmp_path: Path, name: str) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(DataError, match=r"(?s)from \.safetensors only.*run code.*weights_only=True.*w\.safetensors"):
        load_weights(make_net(), tmp_path / name)


def test_the_advice_for_pickles_works(tmp_path: Path) -> None:
    net = make_net()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(DataError) as error:
        load_weights(net, tmp_path / "w.pt")
    code = str(error.value).partition('python -c "')[2].rpartition('"')[0]
    exec(code)
    assert len(load_weights(make_net(), tmp_path / "w.safetensors").matched) == 11


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "start.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(DataError, match=r"strat\.safetensors: no such file\. Did you mean 'start\.safetensors'\?"):
        load_weights(make_net(), tmp_path / "strat.safetensors")
    content = (tmp_path / "start.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[:-2])
    with pytest.raises(DataError, match=r"half\.safetensors: is not a whole safetensors file"):
        load_weights(make_net(), tmp_path / "half.safetensors")


def test_long_reports_stay_short() -> None:
    names = tuple(f"layer{number}" for number in range(50))
    report = Report("w", matched=("a",), resized=(), other_shape=(), missing=names, unexpected=())
    assert report.is_poor
    assert report.text().splitlines()[1].endswith("layer5, ... (44 more)")
