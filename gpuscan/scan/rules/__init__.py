"""Rules for loops. Each takes a Scan node and which of its results are read, and gives variables
that stand for those results, or None where it has nothing to say.

Before all others, sums over the steps and last rows get by without a trace.

In the order in which they run: drop what nobody reads; simplify the step; unify equal operands
and carries; hoist what does not change; turn states that hold examples in columns; batch what
depends on sequences; move outputs that nothing in the loop needs, and sums over the steps, behind
it; run a single step without a loop. Then loops of equal length are merged.

Of a loop that is to hold little nothing is batched or moved behind it: that takes memory for all
steps. Loops in segments are found before all rules, and how long segments are after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...graph import Item, Variable, clients, inherit, made_for, rebuild, toposort
from ...rewrite import Rules
from ..op import Scan
from .before import batch_sequences, hoist_invariants, traced_sequences
from .behind import sink_outputs, sink_sums
from .build import Found, applied, scan_op
from .columns import turn_columns
from .last_row import last_row
from .merge import merge_loops
from .operands import drop_unread, inline_one_step, unify_operands
from .segments import in_segments, with_lengths
from .slices import push_slices
from .unstored import unstored

Optimise = Callable[[Sequence[Variable]], list[Variable]]

__all__ = ["LOOP_RULES", "RULES", "in_segments", "loop_pass", "with_lengths"]

LOOP_RULES = Rules(last_row)

RULES = (
    drop_unread,
    unify_operands,
    inline_one_step,
    hoist_invariants,
    turn_columns,
    batch_sequences,
    traced_sequences,
    sink_sums,
    sink_outputs,
)

STORING = (batch_sequences, sink_sums, sink_outputs)  # rules that hold values for all steps


def loop_pass(outputs: Sequence[Variable], optimise: Optimise) -> list[Variable]:
    """The outputs with every loop's rules applied once, and its step optimised."""
    if not any(isinstance(v.op, Scan) for v in toposort(outputs)):
        return list(outputs)
    outputs = merge_loops(outputs)
    used: dict[Variable, set[int]] = {}
    order, readers = toposort(outputs), clients(outputs)
    for v in order:
        if isinstance(v.op, Item):
            used.setdefault(v.inputs[0], set()).add(v.op.index)
    new: dict[Variable, Variable] = {}
    for v in order:
        if v in new:
            continue
        if not isinstance(v.op, Scan):
            new[v] = rebuild(v, [new[i] for i in v.inputs]) if v.inputs else v
            continue
        node = rebuild(v, [new[i] for i in v.inputs])
        new[v] = node
        if (shorter := unstored(v, node, readers)) is not None:
            found, parts = shorter
            new |= {u: inherit(x, u) for u, x in parts.items()}
        else:
            found = _one_loop(node, frozenset(used.get(v, ())), optimise)
        for i, x in enumerate(found):
            if x is not None:
                new[Item(i)(v)] = inherit(x, Item(i)(v))
    return [new[v] for v in outputs]


def _one_loop(v: Variable, used: frozenset[int], optimise: Optimise) -> Found:
    """What stands for the results of a loop after its step was optimised and the first rule that
    has something to say was applied."""
    op = scan_op(v)
    step = op.step
    if (better := optimise(step.outputs)) == list(step.outputs):
        for apply in RULES:
            if op.is_frugal and apply in STORING:
                continue
            with made_for(v):
                found = apply(v, used)
            if found is not None:
                return found
        # last, so that what can be is batched before it is cut
        if (better := push_slices(step.outputs)) == list(step.outputs):
            r = op.results(v)
            return [*r.finals, *r.traces, r.steps]
    r = applied(v, step.mapped(better), op.split(v.inputs))
    return [*r.finals, *r.traces, r.steps]
