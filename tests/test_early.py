import subprocess
import sys
from pathlib import Path

import pytest
from toys import make_toy

from pipeline import api
from pipeline.stages import early


@pytest.mark.parametrize(
    ("asked", "n_gpus", "cores", "starts"),
    [
        ({}, 0, 2, True),
        ({}, 1, 2, False),  # on one GPU units train one after another
        ({}, 2, 1, True),
        ({"device": "cpu"}, 1, 2, True),
        ({"device": "cpu"}, 2, 1, False),
        ({"device": "cuda"}, 1, 2, False),
        ({"device": "cuda"}, 2, 2, True),
        ({"device": "cuda:1"}, 2, 2, False),
        ({"device": "cuda", "jobs": 2}, 1, 2, True),
        ({}, 0, 1, False),
        ({"jobs": 1}, 0, 2, False),
        ({"jobs": 3}, 0, 1, True),
        ({"which": "all"}, 0, 2, False),
        ({"which": [1]}, 0, 2, False),
        ({"which": [0, 1]}, 0, 2, True),
        ({"which": [1], "seeds": [0, 1]}, 0, 2, True),
    ],
)
def test_the_home_of_workers_starts_early_where_units_may_train_side_by_side(
    tmp_path, monkeypatch, asked, n_gpus, cores, starts
):
    started = []
    monkeypatch.setattr(early, "start_home", lambda: started.append(True))
    monkeypatch.setattr(early, "_GPUS", tmp_path / "gpus")
    for number in range(n_gpus):
        (tmp_path / f"gpus/0000:0{number}:00.0").mkdir(parents=True)
    monkeypatch.setattr(early.os, "cpu_count", lambda: cores)
    config = api.config(make_toy(tmp_path, net={"seeds": asked.pop("seeds", [0])}))
    wishes = {"which": None, "device": "auto", "jobs": None} | asked
    early.start_early(config, **wishes)
    assert bool(started) == starts


def test_what_may_begin_early_imports_no_torch():
    code = "import sys; from pipeline import api; from pipeline.stages import early; print('torch' in sys.modules)"
    assert _said(code) == "False"


def test_the_home_of_workers_starts_no_thread_looks_for_no_device_and_imports_no_compiler():
    code = (
        "import sys, threading; from pipeline.training import worker_home; import torch;"
        "print(threading.active_count(), torch.cuda.is_initialized(), 'torch._dynamo' in sys.modules)"
    )
    assert _said(code) == "1 False False"


def _said(code: str) -> str:
    project = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
