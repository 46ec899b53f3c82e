"""python -m gpuscan selftest, on the emulated device; and where there is none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import __main__, selftest
from gpuscan.runtime import emulator
from gpuscan.runtime.device import missing, no_gpu

ROOT = Path(gpuscan.__file__).resolve().parents[1]
needs_emulator = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())


@needs_emulator
def test_every_scope_the_draws_and_a_meeting_are_tried() -> None:
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 0
    assert lines[0] == "devices:"
    assert "  emulated: here" in lines
    assert f"  cupy: {missing('cupy') or 'here'}" in lines
    for scope in selftest.SCOPES:
        (line,) = [x for x in lines if x.startswith(f"  scope {scope}: right, forward ")]
        assert f"2 loops ran as {scope}; " in line
    assert "  draws: the same bits as the reference's" in lines
    assert re.fullmatch(r"  a meeting of 4 blocks: \d+\.\d\d us", lines[-2])
    assert lines[-1] == "all is well"


@needs_emulator
def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuscan.runtime.emulated import Emulated

    def nearly(self: Any, x: Any) -> Any:
        return x * np.float32(1.001) if getattr(x, "dtype", None) == "float32" else x

    monkeypatch.setattr(Emulated, "host", nearly)
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 1
    assert len([x for x in lines if "WRONG" in x]) == 4
    assert lines[-1].startswith("results differ")


def test_a_device_that_runs_no_cuda_has_no_selftest() -> None:
    lines: list[str] = []
    assert selftest.selftest("reference", lines.append) == 3
    assert lines == [
        "no selftest: device 'reference' runs no CUDA; there are cupy, pycuda and emulated"
    ]


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpuscan", "selftest"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    told = f"no selftest: device 'cuda' is not here: {no_gpu()}\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, told, "")


def test_the_devices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["devices"]):
        assert __main__.main(words) == 0
        first, *others = capsys.readouterr().out.splitlines()
        assert first == f"gpuscan {gpuscan.__version__}"
        assert others == list(selftest.devices())
        assert "  reference: here" in others
