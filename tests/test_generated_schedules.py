"""Generated kernels under more than one schedule: GPUSCAN_EMULATED_SCHEDULE=vary."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from models import MODELS

from gpuscan.codegen.program import Held, Launch, Scratch
from gpuscan.errors import DeviceError
from gpuscan.runtime import emulator
from gpuscan.runtime.emulated import Emulated

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())


@pytest.fixture
def varied(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The schedules of each kernel, by its name; of scope grid where a loop can."""
    met: dict[str, list[int]] = defaultdict(list)
    launch = emulator.launch

    def counted(kernel: Any, *arguments: Any) -> None:
        met[kernel.name].append(arguments[-1])
        launch(kernel, *arguments)

    monkeypatch.setattr(emulator, "launch", counted)
    monkeypatch.setattr(Emulated, "schedule", None)
    monkeypatch.setattr(Emulated, "scope", "grid")
    monkeypatch.setattr("gpuscan.runtime.emulated._agreed", set())
    return met


@pytest.mark.parametrize("name", ["elman", "gibbs"])
def test_each_kernel_meets_two_schedules(name: str, varied: dict[str, list[int]]) -> None:
    model = MODELS[name](12)
    model.function("emulated")(*model.values(3, 2))
    assert [kernel for kernel in varied if kernel.startswith("loop")]
    assert all(len(set(schedules)) >= 2 for schedules in varied.values()), varied


RACE = """#include "emulated.h"
extern "C" __global__ void race(int *x, int *y) {
    x[threadIdx.x] = 1 + threadIdx.x;
    SYNC
    y[threadIdx.x] = x[(threadIdx.x + 1) % blockDim.x];
}
"""


@pytest.mark.parametrize("sync", ["__syncthreads();", ""])
def test_a_kernel_that_the_schedule_changes_is_an_error(
    sync: str, varied: dict[str, list[int]]
) -> None:
    device = Emulated()
    source = RACE.replace("SYNC", sync)
    held = Held(Scratch(None, "int32"), 1, 32, "int32")  # type: ignore[arg-type]
    launch = Launch("race", source, (held, held), 1, 32, 0, False, "block", "", 0)
    x, y = (np.zeros(32, "int32") for _ in range(2))

    def run() -> None:
        device.launch(device.build(source, "race"), launch, [device.address(v) for v in (x, y)])

    if sync:
        run()
        assert y.tolist() == [*range(2, 33), 1]
    else:
        with pytest.raises(DeviceError, match="kernel 'race' makes something else under schedule"):
            run()
    assert len(set(varied["race"])) == 2
