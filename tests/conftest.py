"""Hypothesis profiles, the devices under test, and warnings as errors.

HYPOTHESIS_PROFILE=dev (the default), ci and ci-slow (the same examples in every run) or thorough.
pytest --device reference: functions run on this device, in the programs that tests start too. The
default is the device of the settings, and for "auto" the one it takes, by name: there a build that
fails is an error. --device native --device reference: tests that take `device` run on each, all
others on the first that is there.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to draw says nothing about gpuscan, and these examples are programs.
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile("dev", deadline=None, max_examples=30, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=12, derandomize=True, print_blob=True,
    suppress_health_check=_SLOW,
)  # fmt: skip
settings.register_profile(  # where an example is built for seconds
    "ci-slow", deadline=None, max_examples=8, derandomize=True, print_blob=True,
    suppress_health_check=_SLOW,
)  # fmt: skip
settings.register_profile(
    "thorough", deadline=None, max_examples=2000, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

DEVICES = ("reference", "native", "emulated", "cupy", "pycuda")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        action="append",
        choices=DEVICES,
        help="run on this device; may be given several times, for the tests that take `device`",
    )
    parser.addoption(
        "--nvrtc",
        choices=("some", "all"),
        help="with --device emulated: kernels compile for a GPU too, without spills and without a "
        "stack: every second one for one architecture, or each for all of them",
    )


def _devices(config: pytest.Config) -> list[str]:
    from gpuscan.config import config as settings
    from gpuscan.runtime.device import select

    return config.getoption("device") or [select(settings.device).name]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    from gpuscan.config import config as settings
    from gpuscan.runtime.device import missing

    if which := config.getoption("nvrtc"):
        _compile_for_gpus_too(which)
    if not {"cupy", "pycuda"}.isdisjoint(config.getoption("device") or ()):
        _play_what_is_taped()
    here = [d for d in _devices(config) if not missing(d)]
    if here:
        settings.device = os.environ["GPUSCAN_DEVICE"] = here[0]


def _compile_for_gpus_too(which: str) -> None:
    """What the emulated device builds NVRTC compiles too, as --nvrtc says."""
    from gpuscan.runtime import nvrtc
    from gpuscan.runtime.emulated import Emulated

    build = Emulated.build
    architectures = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

    def built(self: Emulated, source: str, name: str) -> Any:
        # by the text, so that each run has the same, and processes that share a cache do
        one = zlib.crc32(source.encode()) % (2 * len(architectures))
        for architecture in architectures if which == "all" else architectures[one : one + 1]:
            r = nvrtc.compile(source, architecture).resources[name]
            found = (r.spill_stores, r.spill_loads, r.stack)
            where = f"{name} on {architecture}"
            assert found == (0, 0, 0), f"spills and stack {found}, {where}:\n{source}"
        return build(self, source, name)

    Emulated.build = built  # type: ignore[method-assign]


def _play_what_is_taped() -> None:
    """On a device with tapes each call is made without one, is written to one, and is made again
    by that: step by step and, when the same memory is free again, as a CUDA graph. All have the
    same bits, and the test gets what came last. What is written is on the GPU already when it is
    looked at from another side, for which cuBLAS may add up in another order."""
    import numpy as np

    from gpuscan.runtime import replay
    from gpuscan.runtime.tapes import Tapes

    replay._FIRST = 0

    def call(self: Tapes, inputs: Any) -> tuple[Any, ...]:
        device = self.taped.device
        kind, inputs = self.kind(inputs)
        found = [[device.host(x) for x in self.plain(inputs)]]
        last = self._tape(kind, inputs)
        found.append([device.host(x) for x in last])
        if (taped := self.made.pop(kind, None)) is not None:
            for _ in range(2):
                last = ()
                last = taped[0](inputs)
                found.append([device.host(x) for x in last])
        exact = found if device.name == "pycuda" else found[1:]
        for first, *others in zip(*exact):
            for x in others:
                np.testing.assert_array_equal(first, x, strict=True)
        return last

    Tapes.__call__ = call  # type: ignore[method-assign]


_OF_LOOPS = re.compile(r"test_(models|properties|scan_|programs|cells|optim)")


@pytest.fixture(autouse=True)
def _what_is_recorded_is_played(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tests of loops each call on the native device is made, is recorded, and is made again
    by what was recorded: with the same data, and with others elsewhere. All have the same bits, and
    the test gets what came of its own data last."""
    if not _OF_LOOPS.match(request.path.name) or request.node.get_closest_marker("own_device"):
        return
    import numpy as np

    from gpuscan.runtime.scripts import NativeProgram

    def compare(first: Any, other: Any) -> None:
        for x, y in zip(first, other, strict=True):
            np.testing.assert_array_equal(x, y, strict=True)

    def called(self: NativeProgram, inputs: Any) -> Any:
        first = self.program(*inputs)
        if not self.is_repeated:
            return first
        inputs = tuple(map(np.asarray, inputs))
        outputs, script = self.recorded(inputs)
        compare(first, outputs)
        if script is None or not script.fits():
            return outputs
        found = script(inputs)
        assert found is not None
        compare(first, found)
        others = [np.array(x, order="K") for x in inputs]
        if any(x.strides != y.strides for x, y in zip(inputs, others)):
            return found
        for x in others:
            if x.dtype.kind == "f":
                x *= x.dtype.type(0.875)
        try:
            first = self.program(*others)
        except Exception:  # what is wrong is said without a script
            with contextlib.suppress(Exception):
                assert script(others) is None
        else:
            if (again := script(others)) is not None:  # not, where a loop stops earlier
                compare(first, again)
        return found

    monkeypatch.setattr(NativeProgram, "called", called)


# Files whose tests name the device that they are about, or use none: --device changes nothing.
_OWN_DEVICE = re.compile(
    r"test_(native|cuda|kernel|emulator|nvrtc|limits|cupy|pycuda|driver|selftest|explain|dot_precision|"
    r"generated|graphs|benchmarks|layers|record|maths|philox|overhead|scalar_expressions|tapes|"
    r"random_statistics)"  # draws are the same bits everywhere
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _OWN_DEVICE.match(item.path.name):
            item.add_marker("own_device")


def pytest_report_header(config: pytest.Config) -> str:
    from gpuscan.runtime.device import missing

    reasons = {d: missing(d) for d in _devices(config)}
    return "devices: " + ", ".join(f"{d} (not here: {r})" if r else d for d, r in reasons.items())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", _devices(metafunc.config), indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The name of a device that is there; the test is skipped, with the reason, for another."""
    from gpuscan.runtime.device import missing

    if reason := missing(request.param):
        pytest.skip(f"device {request.param}: {reason}")
    return str(request.param)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C sources that are built from here on."""
    from gpuscan.runtime import compiler

    found: list[str] = []
    library = compiler.library
    monkeypatch.setattr(compiler, "library", lambda s, *more: found.append(s) or library(s, *more))
    return found
