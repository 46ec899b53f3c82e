"""Hypothesis profiles, the devices under test, and warnings as errors.

HYPOTHESIS_PROFILE=dev (the default), ci (the same examples in every run) or thorough.
pytest --device native --device emulated: the tests that take `device` run on these devices.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to draw says nothing about gpuscan, and these examples are programs.
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile("dev", deadline=None, max_examples=30, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=120, derandomize=True, print_blob=True,
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
        help="run the tests that take `device` on this device; may be given several times "
        "(default: reference)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("device") or ["reference"]
        metafunc.parametrize("device", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The name of a device that is there; the test is skipped, with the reason, for another."""
    from gpuscan.errors import DeviceError
    from gpuscan.runtime.device import select

    try:
        select(request.param)
    except DeviceError as e:
        pytest.skip(str(e))
    return str(request.param)
