"""A function's graph on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import BuildError
from .graph import Variable, toposort
from .record import field, record, replace
from .runtime.device import Device, gpu_expected, missing, select
from .scan.op import Scan

if TYPE_CHECKING:
    from .explain import KernelPlan


@record
class LoopPlan:
    """How one scan of a function runs. `path` is "fused" (the whole loop is one kernel) or
    "interpreted" (step by step, each op by NumPy), and `reason` says why. Of a fused one `scope`
    says who works together, "thread", "block" or "grid", and `stages` in how many stages a step
    is computed: between two of them workers of a grid meet. `kernel`: how it runs on a GPU, where
    the sizes are known. "sequenced": its steps are run one after another, by kernels; on a GPU
    `launches` of them a step (`least`: or more), at most `graph_steps` in a CUDA graph, or
    `no_graph`: why there is none. inside: the name of the sequenced scan in whose step it is."""

    name: str
    path: str
    reason: str
    scope: str = ""
    stages: int = 0
    kernel: KernelPlan | None = None
    launches: int = 0
    graph_steps: int = 0
    no_graph: str = ""
    least: bool = False
    inside: str = ""

    def __str__(self) -> str:
        scope = f", scope {self.scope}" if self.scope else ""
        line = f"scan '{self.name}': {self.path}{scope} ({self.reason})"
        if self.path == "sequenced" and (self.launches or self.no_graph):
            least = "at least " * self.least
            line += f": {least}{self.launches} launch{'es' * (self.launches != 1)} a step, "
            graph = f"as CUDA graphs of up to {self.graph_steps} steps"
            line += graph if self.graph_steps else f"not as a CUDA graph: {self.no_graph}"
        run = f"a step of '{self.inside}'" if self.inside else "a call"
        more = self.kernel.lines(run) if self.kernel else ()
        return "\n".join([line, *(f"    {x}" for x in more)])


@record
class Compiled:
    """A graph that can run. `fallback` is why "auto" took no GPU, or neither that nor native;
    nothing for a device by name. put: takes an array to the GPU that runs the graph, where one
    does. met: per loop that runs on a GPU the sizes and the operands' shapes of its last run; on
    the native device per operand of a loop the shape that it had, and per size its value."""

    program: Callable[..., tuple[Any, ...]]
    device: str
    scans: tuple[LoopPlan, ...]
    fallback: str = ""
    put: Callable[[Any], Any] | None = None
    met: Mapping[Variable, Any] = field(default_factory=dict)


def compiled(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: str, fuse: str,
    stay: Sequence[bool],
) -> Compiled:  # fmt: skip
    """A callable from the inputs' values to the outputs', on the device of this name. "auto" is
    native where there is no GPU, and the reference where there is no C compiler; or where one of
    them does not build the kernels. stay: which outputs stay on a GPU that computed them."""
    if device != "auto":
        return _on(select(device), inputs, outputs, fuse, stay)
    against: list[str] = []
    told: list[str] = []
    for name in ("cuda", "native"):
        reason = missing(name)
        is_fault = not reason or name == "native" or gpu_expected()
        if not reason:
            try:
                made = _on(select(name), inputs, outputs, fuse, stay)
                break
            except BuildError as e:
                reason = str(e).partition("\n")[0]
        if name == "cuda" and not reason.startswith("no "):
            reason = f"no GPU: {reason}"
        against.append(reason)
        told += [reason] * is_fault
    else:
        made = _on(select("reference"), inputs, outputs, fuse, stay)
    if told:
        _tell("; ".join(told), made.device)
    return replace(made, fallback="; ".join(against))


_told: set[str] = set()
_SLOWER = {
    "native": ("the native device (the CPU)", "cuda"),
    "reference": ("the reference device (NumPy, step by step)", "native"),
}


def _tell(fallback: str, device: str) -> None:
    """One line a process and device. By logging: that writes to stderr where a program has not set
    it up otherwise, and where warnings are errors the program goes on."""
    if device in _told:
        return
    _told.add(device)
    import logging

    where, other = _SLOWER[device]
    logging.getLogger("gpuscan").warning(
        "gpuscan: %s; running on %s. "
        "GPUSCAN_FLAGS=device=%s makes this an error, device=%s silences it.",
        fallback, where, other, device,
    )  # fmt: skip


def _on(
    device: Device, inputs: Sequence[Variable], outputs: Sequence[Variable], fuse: str,
    stay: Sequence[bool],
) -> Compiled:  # fmt: skip
    if device.name == "native":
        from .compile_native import compiled_native  # with codegen, which the reference is without

        return compiled_native(inputs, outputs, device, fuse)
    if device.name in ("emulated", "cupy", "pycuda"):
        from .compile_cuda import compiled_cuda

        return compiled_cuda(inputs, outputs, device, fuse, stay)
    reason = "the reference device runs every step by NumPy"
    scans = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    plans = tuple(LoopPlan(name_of(v), "interpreted", reason) for v in scans)
    return Compiled(device.compile(inputs, outputs), device.name, plans)


def in_step(plans: Iterable[LoopPlan], v: Variable) -> list[LoopPlan]:
    """How the scans in the step of v run, which is sequenced."""
    at = name_of(v)
    return [
        replace(p, name=f"{at}/{p.name}", inside=f"{at}/{p.inside}" if p.inside else at)
        for p in plans
    ]


def name_of(v: Variable) -> str:
    """A scan's name."""
    return getattr(v.op, "name", None) or "scan_fn"
