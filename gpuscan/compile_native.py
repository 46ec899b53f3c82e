"""A function's graph on the native device: where codegen's kernels and the runtime meet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .codegen.ahead import with_rows_inside
from .codegen.loop import lower_loop
from .codegen.nest import Nest, lower_nests
from .codegen.plan import NotLowered, walk
from .codegen.program import LoopProgram
from .codegen.render import C, Renderer
from .codegen.rows import lower_products
from .compile import Compiled, LoopPlan, name_of
from .evaluate import Around, Program
from .graph import Item, Variable, clients, inherit, rebuild, results, toposort
from .ops.index import AdvancedIncSubtensor, Subtensor
from .ops.shape import Dim, FirstRows, Join, Specify
from .record import record
from .runtime import compiler, threads
from .runtime.contraction import NativeContraction, contraction, is_addition_of, is_contraction
from .runtime.device import Device
from .runtime.native import (
    Native,
    NativeHistory,
    NativeJoin,
    NativeLoop,
    NativeNest,
    NativeSequence,
    SizeAt,
)
from .runtime.products import MOST_LEFTS, NativeProduct, is_product, product_kernel
from .runtime.recorder import recordable
from .runtime.scatter import NativeScatter, is_scatter, scatter_kernel
from .runtime.scripts import NativeProgram
from .scan.op import Scan
from .selection import selection


def compiled_native(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Device, fuse: str
) -> Compiled:
    """A callable from the inputs' values to the outputs', and how each scan runs."""
    met: dict[Variable, Any] = {}
    assert isinstance(device, Native)
    program, plans = _program(inputs, outputs, device, fuse, met, recordable)
    how = selection(program.inputs, program.outputs, program.written, recordable)
    return Compiled(NativeProgram(program, how, met), device.name, plans, met=met)


def _program(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Native, fuse: str,
    met: dict[Variable, Any], around: Around | None = None,
) -> tuple[Program, tuple[LoopPlan, ...]]:  # fmt: skip
    """The program, and how each scan runs. met: where loops put what they met, as `Compiled` has
    it; around: as `Program` has it."""
    plans: list[LoopPlan] = []
    loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    fused: dict[Variable, _Fused] = {}
    inputs_of: dict[Variable, Sequence[Variable]] = {}  # of the node that runs a value's kernel
    steps: dict[Variable, Callable[..., Any]] = {}  # programs of steps that have kernels of loops
    users = clients(outputs)
    inside: set[Variable] = set()  # of loops: work that stands in front of them
    for v in loops:
        assert isinstance(v.op, Scan)
        step = v.op.step
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            if v.op.segments_of is not None and fuse == "auto":
                raise NotLowered("a step runs a segment of a loop, by threads")
            ahead = with_rows_inside(v, users)
            program, sizes = lower_loop(ahead.node, f"loop_{len(fused)}")
            at, rest = sizes_at(ahead.node.inputs, sizes)
            inputs_of[v] = (*ahead.node.inputs, *rest, *ahead.extra)
            fused[v] = _Fused(program, ahead.node, at)
            inside |= set(ahead.functions)
            how = program.schedule
            plans.append(LoopPlan(name_of(v), "fused", how.reason, how.scope, how.stages))
        except NotLowered as e:
            if fuse == "always":
                raise NotLowered(f"scan '{name_of(v)}' can't be fused: {e}") from None
            path = "interpreted"
            if fuse != "never" and any(isinstance(x.op, Scan) for x in toposort(step.outputs)):
                program_of_step, inner = _program(step.params, step.outputs, device, fuse, met)
                if any(plan.path != "interpreted" for plan in inner):
                    path, steps[v] = "sequenced", program_of_step
            plans.append(LoopPlan(name_of(v), path, f"{e}"))
    nests: list[Nest] = []
    if fuse != "never":
        nests, taken = lower_products(outputs, users)
        nests += lower_nests(outputs, taken | inside)
    nest_of = {v: nest for nest in nests for v in nest.values}
    for nest in nests:
        _, rest = sizes_at(nest.operands, nest.sizes)
        inputs_of |= dict.fromkeys(nest.values, (*nest.operands, *rest, *nest.others))
    contractions = {} if fuse == "never" else _contractions(outputs, inputs_of)
    # what is there where loops and nests are nodes that run their kernels
    order = walk(outputs, set(), lambda v: inputs_of.get(v, v.inputs))
    products = {v.dtype for v in order if v not in nest_of and is_product(v)}
    for nest in nests:
        if nest.program.least:  # with fewer rows its product has the routine
            products |= {x.dtype for x in toposort(nest.values, nest.operands) if is_product(x)}
    scatters = {v.dtype for v in order if v not in nest_of and is_scatter(v)}
    if not (fused or steps or nests or products or scatters):
        return device.compile(inputs, outputs), tuple(plans)
    routines = [functools.partial(product_kernel, dtype) for dtype in sorted(products)]
    routines += [functools.partial(scatter_kernel, dtype) for dtype in sorted(scatters)]
    functions = _loaded(device, [f.program for f in fused.values()], nests, routines)
    new = _replaced(order, inputs_of, fused, steps, nest_of, contractions, functions, met)
    written = {made: v for v, made in new.items()}
    whole = device.compile(inputs, [new[v] for v in outputs], written, around)
    return whole, tuple(plans)


def _meet(
    met: dict[Variable, Any], inputs: Sequence[Variable], sizes_at: Sequence[SizeAt],
    values: Sequence[Any],
) -> None:  # fmt: skip
    """Puts down the shapes and sizes that a loop was given. Leaves have theirs from the call; those
    of a step may be of several steps."""
    met |= {v: x.shape for v, x in zip(inputs, values) if v.inputs and v.ndim}
    met |= {inputs[i]: int(values[i]) for i, axis in sizes_at if axis is None and inputs[i].inputs}


@record
class _Fused:
    """A loop that runs as one kernel: its program, the node that this is of, and where it finds its
    sizes."""

    program: LoopProgram
    node: Variable
    sizes_at: tuple[SizeAt, ...]


def sizes_at(
    operands: Sequence[Variable], sizes: Sequence[Variable]
) -> tuple[tuple[SizeAt, ...], tuple[Variable, ...]]:
    """Where the sizes are found that a kernel of these operands needs, and those of them that are
    inputs of its node, behind the operands: to ask an array is faster than to run a node."""
    places: list[SizeAt] = []
    inputs: list[Variable] = []
    for size in sizes:
        if isinstance(size.op, Dim) and size.inputs[0] in operands:
            places.append((operands.index(size.inputs[0]), size.op.axis))
        else:
            places.append((len(operands) + len(inputs), None))
            inputs.append(size)
    return tuple(places), tuple(inputs)


def _contractions(
    outputs: Sequence[Variable], inputs_of: dict[Variable, Sequence[Variable]]
) -> dict[Variable, NativeContraction]:
    """Per product the one that computes it with all others that have the same right operand, but
    for those that one of these needs; and with one that adds up rows of this operand. Their inputs
    are added to `inputs_of`."""
    found: dict[Variable, NativeContraction] = {}

    def needs(v: Variable) -> Sequence[Variable]:
        return inputs_of.get(v, v.inputs)

    def can_be_one(group: Sequence[Variable]) -> bool:
        of_all = [x for u in group for x in u.inputs]
        return len(group) == 1 or set(group).isdisjoint(walk(of_all, set(), needs))

    def put(group: Sequence[Variable], addition: Variable | None = None) -> None:
        if (op := contraction(group, addition)) is not None:
            found.update(dict.fromkeys(op.values, op))
            inputs_of.update(dict.fromkeys(op.values, op.given))

    groups: dict[Variable, list[Variable]] = {}
    additions: list[Variable] = []
    for v in walk(outputs, set(), needs):
        if v in inputs_of:
            continue
        if is_scatter(v):
            additions.append(v)
        if not is_contraction(v):
            continue
        group = [*groups.get(v.inputs[1], ()), v]
        if len(group) > MOST_LEFTS or not can_be_one(group):
            group = [v]
        groups[v.inputs[1]] = group
        put(group)
    for right, group in groups.items():
        for v in additions:
            if is_addition_of(v, right) and can_be_one([*group, v]):
                put(group, v)
                break
    return found


def _loaded(
    device: Native, loops: Sequence[LoopProgram], nests: Sequence[Nest],
    routines: Sequence[Callable[[], Any]],
) -> dict[str, Any]:  # fmt: skip
    """The kernels by name. The libraries of routines that stand beside them are built with them:
    so it is here that a compiler fails, and not in a call."""
    kernels = [*[p.kernel for p in loops], *[nest.program.kernel for nest in nests]]
    names = [k.name for k in kernels]
    tasks: list[Callable[[], Any]] = []
    if kernels:
        tasks.append(functools.partial(device.load, Renderer(C).source(kernels), names))
    found = compiler.side_by_side([*tasks, *routines, threads.library])
    return dict(zip(names, found[0])) if kernels else {}


def _histories(
    order: Sequence[Variable], fused: Mapping[Variable, _Fused]
) -> dict[Variable, tuple[Variable, int]]:
    """The joins of two parts of which one is rows of a carry's trace, so that the whole may be the
    carry's history; per join the loop and the carry, the last of those that have the trace."""
    found: dict[Variable, tuple[Variable, int]] = {}
    for v in order:
        if not isinstance(v.op, Join) or v.op.axis or len(v.inputs) != 2:
            continue
        for x in v.inputs:
            while isinstance(x.op, Subtensor | FirstRows | Specify):
                x = x.inputs[0]
            if isinstance(x.op, Item) and (loop := x.inputs[0]) in fused:
                carries = fused[loop].program.carries
                i = x.op.index - len(carries)
                for j, carry in enumerate(carries):
                    if carry.kind == "trace" and carry.trace == i:
                        found[v] = loop, j
    return found


def _replaced(
    order: Sequence[Variable],
    inputs_of: Mapping[Variable, Sequence[Variable]],
    fused: Mapping[Variable, _Fused],
    steps: Mapping[Variable, Callable[..., Any]],
    nest_of: Mapping[Variable, Nest],
    contractions: Mapping[Variable, NativeContraction],
    functions: Mapping[str, Any],
    met: dict[Variable, Any],
) -> dict[Variable, Variable]:
    """Per node what stands for it where loops and nests are nodes that run their kernels."""
    new: dict[Variable, Variable] = {}
    made: dict[Any, Variable] = {}
    joined = _histories(order, fused)
    for v in order:
        inputs = [new[x] for x in inputs_of.get(v, v.inputs)]
        if v in nest_of:
            nest = nest_of[v]
            name = nest.program.kernel.name
            if name not in made:
                given = (*nest.operands, *nest.others)
                at, _ = sizes_at(nest.operands, nest.sizes)
                kernel = NativeNest(nest.values, given, nest.program, functions[name], at)
                made[name] = kernel(*inputs)
            new[v] = inherit(results(made[name])[nest.values.index(v)], v)
        elif v in contractions:
            op = contractions[v]
            if op not in made:
                made[op] = op(*inputs)
            new[v] = inherit(results(made[op])[op.values.index(v)], v)
        elif v in fused:
            f = fused[v]
            assert isinstance(f.node.op, Scan)
            function = functions[f.program.kernel.name]
            wanted = tuple(dict.fromkeys(j for loop, j in joined.values() if loop is v))
            given = tuple(inputs_of[v])
            told = functools.partial(_meet, met, given, f.sizes_at)
            loop = NativeLoop(
                f.node.op, f.program, function, v, given, f.sizes_at, wanted, told
            )  # fmt: skip
            new[v] = inherit(loop(*inputs), v)
        elif v in steps:
            assert isinstance(v.op, Scan)
            new[v] = inherit(NativeSequence(v.op, steps[v], v)(*inputs), v)
        elif is_product(v):
            new[v] = inherit(NativeProduct()(*inputs), v)
        elif is_scatter(v):
            assert isinstance(v.op, AdvancedIncSubtensor)
            new[v] = inherit(NativeScatter(v.op)(*inputs), v)
        elif v in joined:
            assert isinstance(v.op, Join)
            of, j = joined[v]
            native = new[of].op
            assert isinstance(native, NativeLoop)
            history = results(new[of])[len(results(of)) + native.histories.index(j)]
            new[v] = inherit(NativeHistory(v.op)(history, *inputs), v)
        elif isinstance(v.op, Join):
            new[v] = inherit(NativeJoin(v.op)(*inputs), v)
        else:
            new[v] = rebuild(v, inputs) if v.inputs else v
    return new
