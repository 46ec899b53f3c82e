"""A function's graph on a device that runs CUDA: where codegen's kernels and the runtime meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .codegen.chain import lower_chain
from .codegen.loop import lower_loop
from .codegen.nest import Nest, lower_nests
from .codegen.persistent import Sized, launch_of, nest_launch
from .codegen.plan import NotLowered, walk
from .codegen.program import Launch, LoopProgram, NestProgram, Size, Stride
from .compile import Compiled, LoopPlan, name_of
from .evaluate import Program
from .graph import Constant, Item, Variable, clients, inherit, rebuild, results, toposort
from .ops.linalg import Dot
from .ops.shape import Dim
from .record import record, replace
from .runtime.cuda import CudaDevice, CudaLoop, CudaNest, CudaProduct, OnHost
from .scan.op import Scan
from .types import TensorType


def compiled_cuda(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Any, fuse: str
) -> Compiled:
    """A callable from the inputs' values to the outputs', and how each scan runs."""
    plans: list[LoopPlan] = []
    fused: dict[Variable, _Fused] = {}
    for v in [v for v in toposort(outputs) if isinstance(v.op, Scan)]:
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            fused[v] = _lowered(v, f"loop_{len(fused)}", device)
            plans.append(fused[v].plan)
        except (NotLowered, RecursionError) as e:
            if fuse == "always":
                raise NotLowered(f"scan '{name_of(v)}' can't be fused: {e}") from None
            plans.append(LoopPlan(name_of(v), "interpreted", f"{e}"))
    nests = [] if fuse == "never" else lower_nests(outputs, lanes=False)
    new = _replaced(outputs, fused, nests, device)
    written = {made: v for v, made in new.items()}
    made = Program(inputs, [new[v] for v in outputs], written)
    return Compiled(lambda *values: tuple(map(device.host, made(*values))), device.name, tuple(plans))


@record
class _Fused:
    """A loop that runs as one kernel: its programs, for blocks and for a thread a row, the sizes
    that they need, and how it is described."""

    program: LoopProgram
    chain: LoopProgram | None
    sizes: tuple[Variable, ...]
    chain_sizes: tuple[Variable, ...]
    plan: LoopPlan

    def launch_of(
        self, values: Mapping[str, int], others: Sequence[int], strides: Mapping[Any, int],
        device: CudaDevice,
    ) -> Launch:  # fmt: skip
        chain = None
        if self.chain is not None:
            own: dict[str, int] = {}
            for name, source in zip(self.chain.kernel.integers, self.chain.integers):
                match source:
                    case Size(k):
                        own[name.text] = others[k]
                    case Stride():
                        own[name.text] = strides[source]
            chain = Sized(self.chain, own)
        return launch_of(Sized(self.program, values), chain, device.limits, device.scope)


def _lowered(v: Variable, name: str, device: CudaDevice) -> _Fused:
    program, sizes = lower_loop(v, name, lanes=False)
    chain: LoopProgram | None = None
    chain_sizes: list[Variable] = []
    try:
        chain, chain_sizes = lower_chain(v, name)
    except NotLowered:
        pass
    how = program.schedule
    plan = LoopPlan(name_of(v), "fused", how.reason, how.scope, how.stages)
    return _Fused(program, chain, tuple(sizes), tuple(chain_sizes), plan)


def _replaced(
    outputs: Sequence[Variable], fused: Mapping[Variable, _Fused], nests: Sequence[Nest],
    device: CudaDevice,
) -> dict[Variable, Variable]:  # fmt: skip
    """Per node what stands for it where loops, nests and products are nodes that run on the
    device."""
    nest_of = {v: nest for nest in nests for v in nest.values}

    def needs(v: Variable) -> Sequence[Variable]:
        if v in nest_of:
            nest = nest_of[v]
            return (*nest.operands, *nest.sizes, *nest.others)
        if v in fused:
            return (*v.inputs, *fused[v].sizes, *fused[v].chain_sizes)
        return v.inputs

    new: dict[Variable, Variable] = {}
    made: dict[int, Variable] = {}
    for v in walk(outputs, set(), needs):
        inputs = [new[x] for x in needs(v)]
        if v in nest_of:
            nest = nest_of[v]
            if id(nest) not in made:
                given = (*nest.operands, *nest.others)
                kernel = CudaNest(nest.values, given, nest.program, _launch_of(nest, device), device)
                made[id(nest)] = kernel(*inputs)
            new[v] = inherit(results(made[id(nest)])[nest.values.index(v)], v)
        elif v in fused:
            new[v] = inherit(_loop(v, fused[v], device)(*inputs), v)
        elif not v.inputs or isinstance(v.op, Item | Dim) or getattr(v.op, "is_lazy", False):
            new[v] = rebuild(v, inputs) if v.inputs else v
        elif isinstance(v.op, Dot) and _is_product(v):
            new[v] = inherit(CudaProduct(device)(*inputs), v)
        else:
            new[v] = inherit(OnHost(v.op, device, v)(*inputs), v)
    return new


def _launch_of(nest: Nest, device: CudaDevice) -> Callable[[Mapping[str, int]], Launch]:
    program: NestProgram = nest.program
    return lambda values: nest_launch(program, values, device.limits)


def _loop(v: Variable, f: _Fused, device: CudaDevice) -> CudaLoop:
    assert isinstance(v.op, Scan)
    names = tuple(f"size {k}" for k in range(len(f.sizes) + len(f.chain_sizes)))
    inputs = (*v.inputs, *f.sizes, *f.chain_sizes)
    return CudaLoop(
        v.op, f.program, names, lambda *given: f.launch_of(*given, device), device, v,
        inputs, lambda launch: None,
    )  # fmt: skip


def _is_product(v: Variable) -> bool:
    return v.dtype in ("float32", "float64") and all(x.ndim == 2 for x in v.inputs)


