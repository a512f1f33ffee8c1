import subprocess
import sys
from pathlib import Path

import pytest
from toys import make_toy

from pipeline import api
from pipeline.stages import early


@pytest.mark.parametrize(
    ("asked", "has_driver", "cores", "starts"),
    [
        ({}, False, 2, True),
        ({}, True, 2, False),  # on a GPU units train one after another
        ({"device": "cpu"}, True, 2, True),
        ({"device": "cuda"}, True, 2, False),
        ({"device": "cuda", "jobs": 2}, True, 2, True),
        ({}, False, 1, False),
        ({"jobs": 1}, False, 2, False),
        ({"jobs": 3}, False, 1, True),
        ({"which": "all"}, False, 2, False),
        ({"which": [1]}, False, 2, False),
        ({"which": [0, 1]}, False, 2, True),
        ({"which": [1], "seeds": [0, 1]}, False, 2, True),
    ],
)
def test_the_home_of_workers_starts_early_where_units_may_train_side_by_side(
    tmp_path, monkeypatch, asked, has_driver, cores, starts
):
    started = []
    monkeypatch.setattr(early, "start_home", lambda: started.append(True))
    monkeypatch.setattr(early, "_DRIVER", tmp_path if has_driver else tmp_path / "none")
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
