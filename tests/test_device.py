"""Which device runs a function; what is said, and by whom, where it is not the one preferred."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import compile as compiling
from gpuscan import config, function, scan
from gpuscan import tensor as T
from gpuscan.errors import BuildError, DeviceError
from gpuscan.runtime import compiler, threads
from gpuscan.runtime import device as devices

ROOT = Path(gpuscan.__file__).resolve().parents[1]
needs_compiler = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

# Two functions, so that what is said once is said once.
PROGRAM = """
    import numpy as np, gpuscan
    from gpuscan import tensor as T
    x = T.vector("x")
    y, _ = gpuscan.scan(lambda a: T.tanh(a) + 0.25, outputs_info=[x], n_steps=3)
    f = gpuscan.function([x], y[-1])
    g = gpuscan.function([x], T.exp(x) * 2, name="g")
    f(np.ones(2, "float32"))
    print(g([0, 0]), f.device)
    print(g.explain())
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a program with no GPU and no settings but a cache of its own."""
    names = ("GPUSCAN_DEVICE", "GPUSCAN_FLAGS", "GPUSCAN_STAND_IN_DRIVER", "CC")
    kept = {k: v for k, v in os.environ.items() if k not in names}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "GPUSCAN_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "no_gpu", lambda: "no GPU: the test hides it")


def run(environment: dict[str, str], program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """The program, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def compiler_that(path: Path, text: str) -> dict[str, str]:
    """The setting of a compiler that runs these lines of shell."""
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return {"CC": str(path)}


REFUSES = "cat > /dev/null; echo noise >&2; echo 'error: out of order' >&2; exit 3\n"


@needs_compiler
def test_auto_is_native_where_there_is_a_compiler(environment: dict[str, str]) -> None:
    done = run(environment)
    # a word where CUDA's packages are installed, from which the test hides the GPU
    assert done.stderr == "" or done.stderr.count("no GPU: ") == done.stderr.count("\n") == 1
    assert done.stdout == (
        "[2. 2.] native\ng: device native, 2 nodes\n"
        "  fallback: no GPU: CUDA_VISIBLE_DEVICES hides all\n"
    )


BROKEN = "raise ImportError('libnvrtc.so.12: cannot open')\n"


@needs_compiler
@pytest.mark.parametrize("library", ["cupy", "pycuda"])
@pytest.mark.parametrize("hidden", [True, False])
def test_a_gpu_library_that_cannot_be_used_is_one_line_and_the_cpu(
    environment: dict[str, str], tmp_path: Path, library: str, hidden: bool
) -> None:
    (tmp_path / f"{library}.py").write_text(BROKEN)
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    if not hidden:  # and the driver that is looked for is not one
        (tmp_path / "libcuda.so.1").write_text("no library")
        paths |= {"GPUSCAN_STAND_IN_DRIVER": "1", "LD_LIBRARY_PATH": str(tmp_path)}
    done = run({**environment, **paths})
    (line,) = done.stderr.splitlines()
    reason = "CUDA_VISIBLE_DEVICES hides all" if hidden else "NVIDIA's driver is not installed"
    assert line.startswith(f"gpuscan: no GPU: {reason}")
    assert "; running on the native device (the CPU). GPUSCAN_FLAGS=device=cuda makes" in line
    assert done.stdout.startswith("[2. 2.] native\ng: device native, 2 nodes\n  fallback: no GPU: ")


@needs_compiler
def test_kernels_that_a_gpu_does_not_build_are_built_for_the_cpu(monkeypatch: Any) -> None:
    on = compiling._on

    def refused(device: Any, *given: Any) -> Any:
        if device == "cuda":
            raise BuildError("NVRTC refused\nand its words")
        return on(device, *given)

    monkeypatch.setattr(compiling, "_on", refused)
    monkeypatch.setattr(compiling, "_told", set())
    monkeypatch.setattr(compiling, "missing", lambda name: "")
    select = compiling.select
    monkeypatch.setattr(compiling, "select", lambda d: d if d == "cuda" else select(d))
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("gpuscan"), "warning", lambda f, *a: lines.append(f % a))
    x = T.vector("x")
    for _ in range(2):
        f = function([x], T.exp(x) * 2, device="auto")
        assert (f.device, f.explain().fallback) == ("native", "no GPU: NVRTC refused")
    (line,) = lines
    assert line.startswith("gpuscan: no GPU: NVRTC refused; running on the native device")
    with pytest.raises(BuildError, match="its words"):
        compiling.compiled([x], [T.exp(x) * 2], "cuda", "auto", [False])


def test_without_a_compiler_auto_is_the_reference_and_one_line_says_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run({**environment, "PATH": str(tmp_path)})
    (line,) = done.stderr.splitlines()
    assert "no C compiler was found ($CC, cc, gcc, clang" in line
    assert "reference" in line
    assert done.stdout.startswith("[2. 2.] reference\ng: device reference, 2 nodes\n")
    assert "fallback: no GPU: CUDA_VISIBLE_DEVICES hides all; no C compiler was" in done.stdout


def test_the_reference_by_name_says_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    done = run({**environment, "PATH": str(tmp_path), "GPUSCAN_FLAGS": "device=reference"})
    assert done.stderr == ""
    assert done.stdout == "[2. 2.] reference\ng: device reference, 2 nodes\n"


FAILURES = {
    "refuses": (REFUSES, "failed with status 3: error: out of order"),
    "is killed": ("kill -9 $$\n", "failed with status -9"),
    "builds nothing": ("cat > /dev/null; exit 0\n", "can't be kept or loaded"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_where_the_compiler_fails_auto_is_the_reference_and_one_line_says_why(
    environment: dict[str, str], tmp_path: Path, failure: str
) -> None:
    text, words = FAILURES[failure]
    done = run({**environment, **compiler_that(tmp_path / "cc", text)})
    (line,) = done.stderr.splitlines()
    assert words in line
    assert done.stdout.startswith("[2. 2.] reference\n")
    (reason,) = [x for x in done.stdout.splitlines() if "fallback: " in x]
    assert words in reason


def test_a_compiler_that_is_no_program_fails_like_one_that_refuses(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "cc").write_bytes(b"\x7fELF and no more")
    (tmp_path / "cc").chmod(0o755)
    done = run({**environment, "CC": str(tmp_path / "cc")})
    (line,) = done.stderr.splitlines()
    assert "can't be started" in line
    assert done.stdout.startswith("[2. 2.] reference\n")


def test_the_line_goes_to_the_log_of_a_program_that_keeps_one(
    environment: dict[str, str], tmp_path: Path
) -> None:
    start = "import logging; logging.basicConfig(filename='log', format='%(name)s %(levelname)s')\n"
    program = start + f"import os; os.chdir({str(tmp_path)!r})\n" + textwrap.dedent(PROGRAM)
    program = program.replace("filename='log'", f"filename={str(tmp_path / 'log')!r}")
    done = run({**environment, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}, program)
    assert done.stderr == ""
    assert (tmp_path / "log").read_text() == "gpuscan WARNING\n"


NAMED = {
    "argument": ({}, PROGRAM.replace("y[-1])", "y[-1], device='native')")),
    "flags": ({"GPUSCAN_FLAGS": "device=native"}, PROGRAM),
    "variable": ({"GPUSCAN_DEVICE": "native"}, PROGRAM),
    "setting": ({}, PROGRAM.replace("x = T", "gpuscan.config.device = 'native'\n    x = T", 1)),
}


@pytest.mark.parametrize("way", NAMED)
def test_native_by_name_is_the_compilers_error_where_it_fails(
    environment: dict[str, str], tmp_path: Path, way: str
) -> None:
    variables, program = NAMED[way]
    cc = compiler_that(tmp_path / "cc", REFUSES)
    done = run({**environment, **cc, **variables}, program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "BuildError: the C compiler" in done.stderr
    assert "\nnoise\nerror: out of order\n" in done.stderr  # its own words, all of them
    assert "\n   1 #include" in done.stderr  # and the source, numbered


@pytest.mark.parametrize("way", NAMED)
def test_native_by_name_is_an_error_without_a_compiler(
    environment: dict[str, str], tmp_path: Path, way: str
) -> None:
    variables, program = NAMED[way]
    done = run({**environment, **variables, "PATH": str(tmp_path)}, program)
    assert done.returncode == 1
    assert "DeviceError: device 'native' is not available: no C compiler" in done.stderr


@pytest.mark.parametrize("name", ["cuda", "native"])
def test_the_error_for_a_device_that_is_not_there_names_the_fastest_that_is(
    without_a_gpu: None, monkeypatch: Any, name: str
) -> None:
    best = {"cuda": "native" if compiler.find() else "reference", "native": "reference"}[name]
    if name == "native":
        monkeypatch.setattr(compiler, "find", lambda: None)
    with pytest.raises(DeviceError, match=f"Use '{best}'"):
        devices.select(name)


@pytest.mark.skipif(not devices.missing("cupy"), reason="CuPy is here")
def test_the_suite_says_in_a_line_why_a_device_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--device=cupy", "--collect-only", __file__], cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f"\ndevices: cupy (not here: {devices.missing('cupy')})\n" in done.stdout


@needs_compiler
def test_a_function_that_is_unpickled_chooses_again(without_a_gpu: None, monkeypatch: Any) -> None:
    x = T.vector("x")
    chosen, named = (
        pickle.dumps(function([x], T.exp(x) * 2, device=d)) for d in ("auto", "native")
    )
    assert pickle.loads(chosen).device == pickle.loads(named).device == "native"
    monkeypatch.setattr(compiler, "find", lambda: None)
    f = pickle.loads(chosen)
    assert (f.device, f([0.0]).tolist()) == ("reference", [2.0])
    with pytest.raises(DeviceError, match="no C compiler"):
        pickle.loads(named)


@needs_compiler
def test_a_copy_is_on_the_same_device(without_a_gpu: None) -> None:
    x = T.vector("x")
    for name, device in [("auto", "native"), ("native", "native"), ("reference", "reference")]:
        assert function([x], x + 1, device=name).copy().device == device


def test_the_setting_is_for_functions_that_name_no_device() -> None:
    x = T.vector("x")
    with config.change_flags(device="reference"):
        assert function([x], x + 1).device == "reference"
        if compiler.find():
            assert function([x], x + 1, device="native").device == "native"


def test_a_bug_in_a_kernel_is_shown_with_the_numbered_line(
    without_a_gpu: None, tmp_path: Path, monkeypatch: Any
) -> None:
    if compiler.find() is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    monkeypatch.setenv("GPUSCAN_CACHE_DIR", str(tmp_path))
    library = compiler.library
    monkeypatch.setattr(
        compiler, "library", lambda s, *more: library(s + "\nint bad = nowhere;\n", *more)
    )
    x = T.vector("x")
    y = T.exp(x) * 2.125
    with pytest.raises(BuildError) as e:
        function([x], y, device="native")
    first, *rest = str(e.value).splitlines()
    assert "nowhere" in first
    assert rest[-1].endswith(" int bad = nowhere;")
    f = function([x], y, device="auto")
    assert f.device == "reference"
    assert "nowhere" in f.explain().fallback
    np.testing.assert_array_equal(f(np.zeros(2, "float32")), [2.125, 2.125])


def test_a_compiler_that_fails_for_the_team_only_fails_before_the_first_call(
    without_a_gpu: None, monkeypatch: Any
) -> None:
    if compiler.find() is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    library = compiler.library

    def without_a_team(source: str, *more: Any) -> Any:
        if "team.h" in source:
            raise BuildError("no team")
        return library(source, *more)

    monkeypatch.setattr(compiler, "library", without_a_team)
    threads.library.cache_clear()
    x = T.matrix("x")
    y, _ = scan(lambda a: T.tanh(a) * 0.75, outputs_info=[x], n_steps=3)
    with config.change_flags(threads=2), pytest.raises(BuildError, match="no team"):
        function([x], y[-1], device="native")
    with config.change_flags(threads=2):
        f = function([x], y[-1], device="auto")
    assert f.device == "reference"
    assert f.explain().fallback == "no GPU: the test hides it; no team"
