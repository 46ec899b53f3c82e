"""A function's graph on a device: where codegen's kernels and the runtime meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .codegen.loop import lower_loop
from .codegen.lower import NotLowered
from .codegen.render import C, Renderer
from .graph import Variable, inherit, results, substitute, toposort
from .runtime.device import Device
from .runtime.native import Native, NativeLoop
from .scan.op import Scan


@dataclass(frozen=True)
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
    plans: list[LoopPlan] = []
    loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    if not isinstance(device, Native):
        reason = "the reference device runs every step by NumPy"
        plans = [LoopPlan(_name(v), "interpreted", reason) for v in loops]
        return device.compile(inputs, outputs), tuple(plans)
    fused: dict[Variable, tuple[Any, list[Variable]]] = {}
    for v in loops:
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            fused[v] = lower_loop(v, f"loop_{len(fused)}")
            plans.append(LoopPlan(_name(v), "fused", "one C function runs all steps"))
        except NotLowered as e:
            if fuse == "always":
                raise NotLowered(f"scan '{_name(v)}' can't be fused: {e}") from None
            plans.append(LoopPlan(_name(v), "interpreted", f"{e}"))
    if not fused:
        return device.compile(inputs, outputs), tuple(plans)
    kernels = [program.kernel for program, _ in fused.values()]
    source = Renderer(C).source(kernels)
    functions = device.loops(source, [k.name for k in kernels])
    mapping: dict[Variable, Variable] = {}
    for (v, (program, sizes)), function in zip(fused.items(), functions):
        op = v.op
        assert isinstance(op, Scan)
        # an earlier loop's results may be among the operands and sizes
        operands = substitute([*v.inputs, *sizes], mapping)
        node = inherit(NativeLoop(op, program, function)(*operands), v)
        mapping |= dict(zip(results(v), results(node)))
    return device.compile(inputs, substitute(outputs, mapping)), tuple(plans)


def _name(v: Variable) -> str:
    return getattr(v.op, "name", None) or "scan_fn"
