"""python -m gpuscan selftest, on the emulated device; and where there is none."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import __main__, selftest
from gpuscan.codegen import limits
from gpuscan.errors import BuildError
from gpuscan.record import replace
from gpuscan.runtime import emulator
from gpuscan.runtime.device import missing, no_gpu

ROOT = Path(gpuscan.__file__).resolve().parents[1]
FLOATS = ("float32", "float64")
needs_emulator = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())


@needs_emulator
def test_every_scope_the_draws_and_a_meeting_are_tried() -> None:
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 0
    assert lines[0] == "devices:"
    assert "  emulated: here" in lines
    assert f"  cupy: {missing('cupy') or 'here'}" in lines
    assert {case.scope for case in selftest.CASES} == {"thread", "block", "grid", "launch"}
    precisions = {"float32", "float64", "tf32", "bf16", "fp16"}
    assert {case.precision for case in selftest.CASES} == precisions
    for case in selftest.CASES:
        (line,) = [x for x in lines if x.startswith(f"  {case}: right, forward ")]
        assert f"; 2 loops ran as {str(case).removeprefix('scope ')}; " in line
    assert "  draws: the same bits as the reference's" in lines
    assert re.fullmatch(r"  a meeting: \d+\.\d\d us, of 4 blocks", lines[-2])
    assert lines[-1] == "all is well"


@needs_emulator
def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuscan.runtime.emulated import Emulated

    def nearly(self: Any, x: Any) -> Any:
        return x * np.float32(1.2) if getattr(x, "dtype", None) in FLOATS else x

    monkeypatch.setattr(Emulated, "host", nearly)
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 1
    assert len([x for x in lines if "WRONG" in x]) == len(selftest.CASES) + 1
    assert lines[-1].startswith("not all is well")


@needs_emulator
def test_factors_that_are_not_rounded_are_not_passed_as_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selftest, "CASES", (selftest.Case("block", "bf16"),))
    deaf = types.SimpleNamespace(change_flags=lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(selftest, "config", deaf)
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 1
    assert any(x.startswith("  scope block, bf16: WRONG") and "ran as block;" in x for x in lines)


@needs_emulator
def test_what_a_gpu_has_not_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuscan.runtime.emulated import Emulated

    cases = tuple(selftest.Case("block", p) for p in ("tf32", "bf16", "fp16"))
    monkeypatch.setattr(selftest, "CASES", cases)
    small = replace(limits.of("t4"), multiprocessors=2)  # whose blocks meet sooner
    monkeypatch.setattr(Emulated, "limits", small)
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 0
    for precision in ("tf32", "bf16"):
        reason = f"skipped, '{precision}' needs sm_80, and t4 is an sm_75"
        assert f"  scope block, {precision}: {reason}" in lines
    assert any(x.startswith("  scope block, fp16: right") for x in lines)


@needs_emulator
def test_a_kernel_that_does_not_build_is_a_line_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpuscan.runtime.emulated import Emulated

    build = Emulated.build

    def built(self: Any, source: str, name: str) -> Any:
        if "double" in source and name.startswith("loop"):
            raise BuildError("NVRTC failed: no double\n   1 its text")
        return build(self, source, name)

    monkeypatch.setattr(Emulated, "build", built)
    cases = tuple(selftest.Case("thread", p) for p in ("float64", "float32"))
    monkeypatch.setattr(selftest, "CASES", cases)
    lines: list[str] = []
    assert selftest.selftest("emulated", lines.append) == 1
    assert "  scope thread, float64: FAILED, BuildError: NVRTC failed: no double" in lines
    assert any(x.startswith("  scope thread: right") for x in lines)
    assert lines[-1].startswith("not all is well")
    assert "\n" not in "".join(lines)


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
