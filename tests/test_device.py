import os

import pytest
import torch

from pipeline.base.errors import ConfigError
from pipeline.training import device
from pipeline.training.device import (
    autocast,
    count_cores,
    gpus_of,
    has_native_bf16,
    read_later,
    resolve_device,
    resolve_precision,
    seats_of,
    threads,
)


@pytest.mark.parametrize(("has_cuda", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_cuda_where_there_is_one(monkeypatch, has_cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert resolve_device("auto") == expected
    assert resolve_device("cpu") == "cpu"


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match=r"--device cuda:2: this machine has 2 CUDA devices"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="--device cuda: this machine has 0 CUDA devices"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("wanted", "visible", "gpus"),
    [
        ("cuda", None, ["0", "1"]),
        ("cuda", "", ["0", "1"]),
        ("cuda", "3, 1", ["3", "1"]),
        ("cuda", "3,1,7,-1", ["3", "1"]),  # CUDA ends at the first that is not there
        ("cuda", "GPU-5f,GPU-60", ["GPU-5f", "GPU-60"]),
        ("cuda:1", None, ["cuda:1"]),
        ("cpu", None, []),
    ],
)
def test_gpus_that_units_share_are_those_that_this_process_sees(monkeypatch, wanted, visible, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(wanted) == gpus
    assert seats_of(wanted) == ([{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] if len(gpus) > 1 else [])


def test_one_gpu_is_no_choice_of_seats(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert seats_of("cuda") == []


@pytest.mark.parametrize("word", ["gpu", "cuda:x", "", "mps", "meta"])
def test_words_that_are_no_device_are_refused(word):
    with pytest.raises(ConfigError, match=r"--device .*: expected auto, cpu, cuda or cuda:N"):
        resolve_device(word)


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_only_where_the_hardware_has_it(monkeypatch, is_native, expected):
    monkeypatch.setattr(device, "has_native_bf16", lambda _: is_native)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"


def test_fp16_is_for_cuda_alone():
    assert resolve_precision("fp16", "cuda:0") == "fp16"
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device; on a CPU use bf16 or fp32"):
        resolve_precision("fp16", "cpu")


def test_bf16_is_native_from_ampere_on_and_on_cpus_that_say_so(monkeypatch):
    for major, expected in ((7, False), (8, True), (9, True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, major=major: (major, 0))
        assert has_native_bf16("cuda:0") is expected
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not has_native_bf16("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert has_native_bf16("cpu")


def test_autocast_multiplies_in_the_precision_and_fp32_leaves_alone():
    left = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast("cpu", precision):
            assert (left @ left).dtype == dtype


def test_threads_are_put_back_also_after_an_error():
    before = torch.get_num_threads()

    def fail():
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_cores_are_those_that_this_process_may_use():
    assert count_cores() == len(os.sched_getaffinity(0))


def test_a_flag_is_read_when_it_is_asked_for():
    assert read_later(torch.tensor(True))() is True
    assert read_later(torch.tensor(False))() is False


@pytest.mark.gpu
def test_a_flag_on_the_device_holds_what_it_was_when_reading_began():
    flag = torch.ones((), dtype=torch.bool, device="cuda")
    later = read_later(flag)
    flag.fill_(False)
    assert later() is True
