"""A function's graph on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .graph import Variable, toposort
from .record import record
from .runtime.device import Device
from .scan.op import Scan


@record
class LoopPlan:
    """How one scan of a function runs. `path` is "fused" (the whole loop is one kernel) or
    "interpreted" (step by step, each op by NumPy)."""

    name: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"scan '{self.name}': {self.path} ({self.reason})"


def compiled(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Device, fuse: str
) -> tuple[Any, tuple[LoopPlan, ...]]:
    """A callable from the inputs' values to the outputs', and how each scan runs."""
    if device.name == "native":
        from .compile_native import compiled_native  # with codegen, which the reference is without

        return compiled_native(inputs, outputs, device, fuse)
    reason = "the reference device runs every step by NumPy"
    plans = [
        LoopPlan(name_of(v), "interpreted", reason)
        for v in toposort(outputs)
        if isinstance(v.op, Scan)
    ]
    return device.compile(inputs, outputs), tuple(plans)


def name_of(v: Variable) -> str:
    """A scan's name."""
    return getattr(v.op, "name", None) or "scan_fn"
