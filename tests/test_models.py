"""The named models on the device under test, forward and with gradients, against the reference: at
awkward sizes, on devices that start kernels in every scope, on the emulated one in several
schedules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from models import MODELS, Model
from strategies import assert_same

from gpuscan.runtime.device import select
from gpuscan.runtime.emulated import Emulated

SHAPES = ((1, 1), (3, 2), (3, 0), (1, 17), (3, 17))  # batch, steps
SCOPES = ("thread", "block", "grid")


def results(model: Model, device: str, fuse: str = "auto") -> Iterator[list[np.ndarray]]:
    """Of a call for each shape. Random states move on from call to call, so all are needed."""
    f = model.function(device, fuse)
    for batch, steps in SHAPES:
        if steps >= model.least:
            yield f(*model.values(batch, steps))


_wanted: dict[tuple[str, int], list[list[np.ndarray]]] = {}


def agrees(name: str, hidden: int, device: str, fuse: str = "auto") -> None:
    if (name, hidden) not in _wanted:
        _wanted[name, hidden] = list(results(MODELS[name](hidden), "reference"))
    model = MODELS[name](hidden)
    for found, wanted in zip(results(model, device, fuse), _wanted[name, hidden], strict=True):
        assert len(found) == len(wanted)
        for k, (x, y) in enumerate(zip(found, wanted)):
            assert_same([x], [y], k in model.exact, "float32")


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every launch of the emulated device in another schedule, and a kernel's first in two."""
    monkeypatch.setattr(Emulated, "schedule", None)


@pytest.fixture(params=SCOPES)
def scope(request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    kind = type(select(device))
    if hasattr(kind, "scope"):
        monkeypatch.setattr(kind, "scope", request.param)
    elif request.param != SCOPES[0]:
        pytest.skip(f"device {device} has no scopes")
    return request.param


@pytest.mark.parametrize("hidden", [1, 7, 33])
@pytest.mark.parametrize("name", MODELS)
def test_a_model(name: str, hidden: int, device: str, scope: str, schedules: None) -> None:
    if device == "reference":
        pytest.skip("nothing else to compare the reference with")
    agrees(name, hidden, device)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_fused(name: str, device: str, schedules: None) -> None:
    agrees(name, 7, device, "never")
