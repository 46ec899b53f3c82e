"""A function's graph on the native device: where codegen's kernels and the runtime meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .codegen.ahead import with_products
from .codegen.loop import lower_loop
from .codegen.nest import Nest, lower_nests
from .codegen.plan import NotLowered
from .codegen.program import LoopProgram
from .codegen.render import C, Renderer
from .codegen.rows import lower_products
from .compile import Compiled, LoopPlan, name_of
from .graph import Variable, clients, inherit, rebuild, results, toposort
from .ops.shape import Join
from .record import record
from .runtime.device import Device
from .runtime.native import Native, NativeJoin, NativeLoop, NativeNest
from .runtime.products import NativeProduct, is_product
from .scan.op import Scan


def compiled_native(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Device, fuse: str
) -> Compiled:
    """A callable from the inputs' values to the outputs', and how each scan runs."""
    assert isinstance(device, Native)
    plans: list[LoopPlan] = []
    loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    fused: dict[Variable, _Fused] = {}
    users = clients(outputs)
    for v in loops:
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            ahead = with_products(v, users)
            program, sizes = lower_loop(ahead.node, f"loop_{len(fused)}")
            fused[v] = _Fused(program, ahead.node, tuple(sizes), ahead.extra)
            how = program.schedule
            plans.append(LoopPlan(name_of(v), "fused", how.reason, how.scope, how.stages))
        except (NotLowered, RecursionError) as e:
            if fuse == "always":
                raise NotLowered(f"scan '{name_of(v)}' can't be fused: {e}") from None
            plans.append(LoopPlan(name_of(v), "interpreted", f"{e}"))
    nests: list[Nest] = []
    if fuse != "never":
        nests, taken = lower_products(outputs, users)
        nests += lower_nests(outputs, taken)
    kernels = [f.program.kernel for f in fused.values()]
    kernels += [nest.program.kernel for nest in nests]
    if not kernels and not any(map(is_product, toposort(outputs))):
        return Compiled(device.compile(inputs, outputs), device.name, tuple(plans))
    names = [k.name for k in kernels]
    functions = dict(zip(names, device.load(Renderer(C).source(kernels), names) if names else ()))
    new = _replaced(outputs, fused, nests, functions)
    written = {made: v for v, made in new.items()}
    made = device.compile(inputs, [new[v] for v in outputs], written)
    return Compiled(made, device.name, tuple(plans))


@record
class _Fused:
    """A loop that runs as one kernel: its program, the node that this is of, the sizes that it
    needs, and what else the loop as it was written is computed from."""

    program: LoopProgram
    node: Variable
    sizes: tuple[Variable, ...]
    extra: tuple[Variable, ...]

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return (*self.node.inputs, *self.sizes, *self.extra)


def _replaced(
    outputs: Sequence[Variable],
    fused: Mapping[Variable, _Fused],
    nests: Sequence[Nest],
    functions: Mapping[str, Any],
) -> dict[Variable, Variable]:
    """Per node what stands for it where loops and nests are nodes that run their kernels."""
    nest_of = {v: nest for nest in nests for v in nest.values}
    new: dict[Variable, Variable] = {}
    made: dict[str, Variable] = {}
    stack = [(v, False) for v in reversed(outputs)]

    def needs(v: Variable) -> Sequence[Variable]:
        if v in nest_of:
            return (*nest_of[v].operands, *nest_of[v].sizes)
        return fused[v].inputs if v in fused else v.inputs

    while stack:
        v, ready = stack.pop()
        if v in new:
            continue
        if not ready:
            stack.append((v, True))
            stack += [(x, False) for x in needs(v) if x not in new]
            continue
        inputs = [new[x] for x in needs(v)]
        if v in nest_of:
            nest = nest_of[v]
            name = nest.program.kernel.name
            if name not in made:
                kernel = NativeNest(nest.values, nest.operands, nest.program, functions[name])
                made[name] = kernel(*inputs)
            new[v] = inherit(results(made[name])[nest.values.index(v)], v)
        elif v in fused:
            f = fused[v]
            assert isinstance(f.node.op, Scan)
            function = functions[f.program.kernel.name]
            loop = NativeLoop(f.node.op, f.program, function, v, f.inputs)
            new[v] = inherit(loop(*inputs), v)
        elif is_product(v):
            new[v] = inherit(NativeProduct()(*inputs), v)
        elif isinstance(v.op, Join):
            new[v] = inherit(NativeJoin(v.op)(*inputs), v)
        else:
            new[v] = rebuild(v, inputs) if v.inputs else v
    return new
