"""A graph as a straight-line Python function that calls each op's NumPy meaning.

The function is printed as Python source, one line a node, and compiled once: running it walks
no graph. A value is dropped after its last use. The two branches of an IfElse hold the nodes
that nothing else needs, so only the branch taken is computed. What follows from the shapes of the
inputs alone is computed once for each of them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import describe
from .graph import Constant, Item, Variable, toposort

_serial = itertools.count()
_LEAST_SIZES = 3  # numbers from shapes that are worth a look whether they are known
_MOST_SHAPES = 256  # for which they are
Around = Callable[[Variable, Callable[..., Any]], Callable[..., Any]]
Block = tuple[tuple[Variable, int], ...]  # the branches that a node stands in, outermost first


class Program:
    """outputs = program(*values of the inputs): a tuple. Leaves other than the inputs must be
    constants; MissingInput is the caller's to check. Errors speak of the nodes that a device's own
    stand for: `written`, where they are not themselves. around: what is called instead of a node's
    evaluator, given both."""

    def __init__(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable],
        written: Mapping[Variable, Variable] | None = None,
        around: Around | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.written = written or {}
        self.around = around or (lambda v, evaluator: evaluator)
        self.filename = f"<gpuscan program {next(_serial)}>"
        self.lines: dict[int, Variable] = {}
        self.names: dict[Variable, str] = {}
        source, values = self._print(inputs, outputs)
        namespace = dict(values)
        exec(compile(source, self.filename, "exec"), namespace)  # our own text, from the graph
        # neither is to be found among its own names: nothing is to wait for the garbage collector
        self.function: Callable[..., tuple[Any, ...]] = namespace.pop("program")
        namespace.pop("sizes", None)

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        try:
            return self.function(*values)
        except Exception as error:
            self._add_note(error)
            raise

    def _print(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable]
    ) -> tuple[str, dict[str, Any]]:
        order = running_order(inputs, outputs)
        given = set(inputs)
        blocks = branch_blocks(order, outputs)
        sizes = _sizes(order, blocks, given)
        order = [*sizes, *(v for v in order if v not in sizes)]
        names = self.names
        for i, v in enumerate(inputs):
            names.setdefault(v, f"x{i}")
        for i, v in enumerate(order):
            names.setdefault(v, f"v{i}")
        last = last_uses(order, outputs)

        values: dict[str, Any] = {}
        text: list[str] = []
        inside: dict[Block, list[Variable]] = {}
        for v in order:
            if v in given or v in sizes:
                continue
            if isinstance(v, Constant):
                values[names[v]] = v.data
            else:
                inside.setdefault(blocks[v], []).append(v)

        def emit(nodes: Sequence[Variable], block: Block, indent: str) -> None:
            for v in nodes:
                args = [names[i] for i in v.inputs]
                if getattr(v.op, "is_lazy", False):
                    for branch, head in ((1, f"if {args[0]}:"), (2, "else:")):
                        text.append(indent + head)
                        deeper = (*block, (v, branch))
                        emit(inside.get(deeper, ()), deeper, indent + "    ")
                        text.append(f"{indent}    {names[v]} = {args[branch]}")
                elif isinstance(v.op, Item):
                    text.append(f"{indent}{names[v]} = {args[0]}[{v.op.index}]")
                else:
                    call = "f" + names[v]
                    values[call] = self.around(v, v.op.evaluator(v))
                    text.append(f"{indent}{names[v]} = {call}({', '.join(args)})")
                    self.lines[len(text)] = v
                if not block and (dead := [names[d] for d in last.get(v, ())]):
                    text.append(f"    del {', '.join(dead)}")

        def listed(nodes: Sequence[Variable], part: str = "") -> str:
            return "".join(f"{names[v]}{part}, " for v in nodes).rstrip(" ")

        if sizes:
            shaped = list(dict.fromkeys(x for v in sizes for x in v.inputs if x in given))
            read = {x for v in order if v not in sizes for x in v.inputs} | set(outputs)
            wanted = [v for v in sizes if v in read]
            text.append(f"def sizes({listed(shaped)}):")
            emit(list(sizes), (), "    ")
            text.append(f"    return ({listed(wanted, '[()]')})")  # nobody can write to them
            values["known"] = {}
        parameters = [f"x{i}" for i in range(len(inputs))] + ["*", "sizes=sizes"] * bool(sizes)
        text.append(f"def program({', '.join(parameters)}):")
        if sizes:
            text += [
                f"    shapes = ({listed(shaped, '.shape')})",
                "    found = known.get(shapes)",
                "    if found is None:",
                f"        if len(known) >= {_MOST_SHAPES}:",
                "            known.clear()",
                f"        found = known[shapes] = sizes({listed(shaped)})",
                f"    {listed(wanted)} = found",
            ]
        emit(inside.get((), ()), (), "    ")
        text.append(f"    return ({listed(outputs)})")
        return "\n".join(text) + "\n", values

    def _add_note(self, error: BaseException) -> None:
        import traceback  # for errors only, and an import of gpuscan is quicker without it

        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == self.filename and line in self.lines:
                node = self.lines[line]
                values = [frame.f_locals.get(self.names[i], _constant(i)) for i in node.inputs]
                self.add_note(error, node, values)

    def add_note(self, error: BaseException, node: Variable, values: Sequence[Any]) -> None:
        """Has an error say in which node it came, of these values; unless it does."""
        if not getattr(error, "_gpuscan_node", None):
            error.add_note(_note(self.written.get(node, node), values))
            with contextlib.suppress(AttributeError):
                error._gpuscan_node = node  # type: ignore[attr-defined]


def _constant(v: Variable) -> Any:
    return v.data if isinstance(v, Constant) else None


def _note(node: Variable, values: Sequence[Any]) -> str:
    operands = [
        f"{describe(i)} of shape {np.shape(x)}"
        for i, x in zip(node.inputs, values)
        if x is not None and not isinstance(x, tuple)
    ]
    name = f" ({node.name})" if node.name else ""
    line = f", built at {node.origin[0]}:{node.origin[1]}" if node.origin else ""
    return f"in {node.op.label}{name}{line}, applied to " + "; ".join(operands or ["nothing"])


def running_order(inputs: Sequence[Variable], outputs: Sequence[Variable]) -> list[Variable]:
    """The nodes as they run, inputs first: a value is asked for its sizes when it is there, so that
    it need not live for them."""
    order = toposort(outputs, inputs)
    asked: dict[Variable, list[Variable]] = {}
    for v in order:
        if _is_of_shape(v):
            asked.setdefault(v.inputs[0], []).append(v)
    found = [u for v in order if not _is_of_shape(v) for u in (v, *asked.pop(v, ()))]
    return [v for of_others in asked.values() for v in of_others] + found


def _is_of_shape(v: Variable) -> bool:
    return getattr(v.op, "is_of_shape", False)


def _sizes(
    order: Sequence[Variable], blocks: Mapping[Variable, Block], given: set[Variable]
) -> dict[Variable, None]:  # fmt: skip
    """What follows from the shapes of what is given, and is needed in any case: numbers, and what
    repeats constants without memory of its own. None where it is too little to be worth it."""
    found: dict[Variable, None] = {}
    for v in order:
        if v in given or blocks[v]:
            continue
        of_shape = _is_of_shape(v) and v.inputs[0] in given
        integer = hasattr(v.op, "scalar") and v.type.is_integer_scalar
        small = integer or getattr(v.op, "repeats", False)
        if of_shape or (small and all(x in found or isinstance(x, Constant) for x in v.inputs)):
            found[v] = None
    return found if len(found) >= _LEAST_SIZES else {}


def branch_blocks(order: Sequence[Variable], outputs: Sequence[Variable]) -> dict[Variable, Block]:
    """Per node the branches that hold all its uses."""
    blocks: dict[Variable, Block] = dict.fromkeys(outputs, ())

    def use(v: Variable, block: Block) -> None:
        if v in blocks:
            common = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(blocks[v], block))
            blocks[v] = tuple(pair[0] for pair in common)
        else:
            blocks[v] = block

    for v in reversed(order):
        for i, x in enumerate(v.inputs):
            branch = ((v, i),) if i > 0 and getattr(v.op, "is_lazy", False) else ()
            use(x, (*blocks[v], *branch))
    return blocks


def last_uses(
    order: Sequence[Variable], outputs: Sequence[Variable]
) -> dict[Variable, list[Variable]]:
    """Per node the values that nothing needs after it. Constants are not variables of the
    function; a node in a branch is left to the function's end."""
    kept = set(outputs)
    blocks = branch_blocks(order, outputs)
    position = {v: i for i, v in enumerate(order)}
    last: dict[Variable, Variable] = {}
    for v in order:
        user = blocks[v][0][0] if blocks[v] else v  # a branch runs where its choice stands
        for i in v.inputs:
            if i not in last or position[user] > position[last[i]]:
                last[i] = user
    dead: dict[Variable, list[Variable]] = {}
    for v, user in last.items():
        if v in kept or isinstance(v, Constant) or blocks[v]:
            continue
        dead.setdefault(user, []).append(v)
    return dead
