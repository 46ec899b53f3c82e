"""A function's graph on the native device: where codegen's kernels and the runtime meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .codegen.loop import lower_loop
from .codegen.nest import Nest, lower_nests
from .codegen.plan import NotLowered
from .codegen.program import LoopProgram
from .codegen.render import C, Renderer
from .compile import Compiled, LoopPlan, name_of
from .graph import Variable, inherit, rebuild, results, toposort
from .ops.linalg import Dot
from .runtime.device import Device
from .runtime.native import Native, NativeLoop, NativeNest
from .runtime.products import DTYPES as PRODUCTS
from .runtime.products import NativeProduct
from .scan.op import Scan


def compiled_native(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Device, fuse: str
) -> Compiled:
    """A callable from the inputs' values to the outputs', and how each scan runs."""
    assert isinstance(device, Native)
    plans: list[LoopPlan] = []
    loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    fused: dict[Variable, tuple[Any, list[Variable]]] = {}
    for v in loops:
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            fused[v] = lower_loop(v, f"loop_{len(fused)}")
            how = fused[v][0].schedule
            plans.append(LoopPlan(name_of(v), "fused", how.reason, how.scope, how.stages))
        except (NotLowered, RecursionError) as e:
            if fuse == "always":
                raise NotLowered(f"scan '{name_of(v)}' can't be fused: {e}") from None
            plans.append(LoopPlan(name_of(v), "interpreted", f"{e}"))
    nests = lower_nests(outputs) if fuse != "never" else []
    kernels = [program.kernel for program, _ in fused.values()]
    kernels += [nest.program.kernel for nest in nests]
    if not kernels and not any(map(_is_product, toposort(outputs))):
        return Compiled(device.compile(inputs, outputs), device.name, tuple(plans))
    names = [k.name for k in kernels]
    functions = dict(zip(names, device.load(Renderer(C).source(kernels), names) if names else ()))
    new = _replaced(outputs, fused, nests, functions)
    written = {made: v for v, made in new.items()}
    program = device.compile(inputs, [new[v] for v in outputs], written)
    return Compiled(program, device.name, tuple(plans))


def _is_product(v: Variable) -> bool:
    """Whether v is a product of two matrices of floats."""
    return isinstance(v.op, Dot) and v.dtype in PRODUCTS and all(x.ndim == 2 for x in v.inputs)


def _replaced(
    outputs: Sequence[Variable],
    fused: Mapping[Variable, tuple[LoopProgram, list[Variable]]],
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
        return (*v.inputs, *fused[v][1]) if v in fused else v.inputs

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
            op, program = v.op, fused[v][0]
            assert isinstance(op, Scan)
            loop = NativeLoop(op, program, functions[program.kernel.name], v)
            new[v] = inherit(loop(*inputs), v)
        elif _is_product(v):
            new[v] = inherit(NativeProduct()(*inputs), v)
        else:
            new[v] = rebuild(v, inputs) if v.inputs else v
    return new
