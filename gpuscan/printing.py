"""Graphs as text: trees, infix formulas, and drawings for Graphviz and Mermaid.

An op with an attribute `body`, a tuple of variables over `Param` leaves, is a loop; its body is
printed after the main graph. Parameter number i of a body stands for the node's operand i + 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from .graph import Apply, Constant, Item, Param, SharedBase, Variable, toposort
from .ops.control import Print
from .ops.elemwise import Elemwise
from .ops.index import Subtensor
from .ops.reduce import Reduce
from .ops.shape import Dim, DimShuffle, MakeVector, Specify
from .types import TupleType

__all__ = ["Print", "debugprint", "pprint", "pydotprint", "to_dot", "to_mermaid"]


def graph_outputs(obj: Any) -> list[Variable]:
    """The variables that an object shows: a variable, a node, a list of them, or a compiled
    function (its outputs, updates included). Raises TypeError for anything else."""
    if isinstance(obj, Variable):
        return [obj]
    if isinstance(obj, Apply):
        return [obj.node]
    if isinstance(obj, list | tuple):
        return [v for o in obj for v in graph_outputs(o)]
    graph = getattr(getattr(obj, "maker", None), "fgraph", None)
    if graph is not None:
        return list(graph.outputs)
    if hasattr(obj, "outputs"):
        return list(obj.outputs)
    raise TypeError(
        f"can't print a {type(obj).__name__}: give a variable, a list of variables, or a "
        "compiled function"
    )


def body_of(node: Variable) -> tuple[Variable, ...]:
    """The body of a loop, empty for any other node."""
    body = getattr(node.op, "body", ())
    return body if isinstance(body, tuple) and all(isinstance(v, Variable) for v in body) else ()


def _node(v: Variable) -> Variable:
    """The node that makes a variable: for one of several results the node of them all."""
    return v.inputs[0] if isinstance(v.op, Item) else v


def _op_text(v: Variable) -> str:
    match v.op:
        case Elemwise():
            return f"Elemwise{{{v.op.label}}}"
        case Dim(axis):
            return f"Dim{{{axis}}}"
    return v.op.label


def _leaf_text(v: Variable) -> str:
    if isinstance(v, Constant):
        kind = f"{v.type.dtype} " if v.ndim else ""
        value = f"{v.data}" if v.data.size <= 8 else f"shape {v.data.shape}"
        return f"TensorConstant{{{kind}{value}}}".replace("\n", "")
    if isinstance(v.op, Param):  # equal parameters of all loops are one node: a name says nothing
        return f"*{v.op.position}-<{v.type}>"
    return v.name or f"<{v.type}>"


# ---- debugprint -----------------------------------------------------------------------------


def _letters(n: int) -> str:
    """0 is A, 25 Z, 26 BA: the number in base 26."""
    digits = chr(ord("A") + n % 26)
    while n := n // 26:
        digits = chr(ord("A") + n % 26) + digits
    return digits


class _Ids:
    """A short name for each node, in the order in which they are first asked for."""

    def __init__(self, style: str) -> None:
        if style not in ("CHAR", "int", "id", "auto", ""):
            raise ValueError(f"ids is 'CHAR', 'int', 'id' or '', not {style!r}")
        self.style = style
        self.number: dict[Variable, int] = {}

    def __call__(self, node: Variable) -> str:
        n = self.number.setdefault(node, len(self.number))
        match self.style:
            case "":
                return ""
            case "int":
                return f"[id {n}]"
            case "id":
                return f"[id {id(node)}]"
        return f"[id {_letters(n)}]"


def debugprint(
    obj: Any,
    depth: int = -1,
    print_type: bool = False,
    file: TextIO | str | None = None,
    ids: str = "CHAR",
    stop_on_name: bool = False,
    **ignored: Any,
) -> Any:
    """Prints a graph as a tree, each node once; a node met again shows its id alone.

    obj: a variable, a list of variables or a compiled function. depth: how many levels (-1: all).
    print_type: the types too. file: a stream (None: standard output), or "str" to get the text.
    ids: "CHAR" (A, B, ...), "int", "id" (Python's) or "" (none). stop_on_name: nothing below a
    variable that has a name. The bodies of scans follow under "Inner graphs of the scan ops:".
    """
    name_of = _Ids(ids)
    done: set[Variable] = set()
    loops: list[Variable] = []
    lines: list[str] = []

    def tree(root: Variable, lead: str, loop: Variable | None) -> None:
        stack = [(root, lead, lead, depth)]
        while stack:
            v, prefix, below, levels = stack.pop()
            if levels == 0:
                continue
            node = _node(v)
            met = node in done
            if body_of(node) and node not in loops:
                loops.append(node)
            lines.append(_line(v, prefix, name_of, print_type, loop))
            if met or not node.inputs or (stop_on_name and v.name):
                continue
            done.add(node)
            last = len(node.inputs) - 1
            for i in range(last, -1, -1):
                child = below + (" |" if i < last else "  ")
                stack.append((node.inputs[i], below + " |", child, levels - 1))

    for v in graph_outputs(obj):
        tree(v, "", None)
    if loops:
        lines += ["", "Inner graphs of the scan ops:"]
    for node in loops:  # grows while a body shows further loops
        done.clear()  # two loops may share a subgraph, on other operands
        lines += ["", _line(node, "", name_of, print_type, None)]
        for v in body_of(node):
            tree(v, " >", node)
    text = "\n".join(lines) + "\n"
    if file == "str":
        return text
    (sys.stdout if file is None else file).write(text)  # type: ignore[union-attr]
    return file


def _line(v: Variable, prefix: str, name_of: _Ids, print_type: bool, loop: Variable | None) -> str:
    node = _node(v)
    if node.inputs:
        item = f".{v.op.index}" if isinstance(v.op, Item) else ""
        words = [_op_text(node) + item, name_of(node)]
    else:
        words = [_leaf_text(v), name_of(v)]
    if print_type:
        words.append(f"<{v.type}>")
    if node.inputs:
        words.append(f"'{v.name or ''}'")
    if isinstance(v.op, Param) and loop is not None:
        words.append(f"-> {name_of(_node(loop.inputs[v.op.position + 1]))}".rstrip(" ->"))
    return prefix + " ".join(w for w in words if w)


# ---- pprint ---------------------------------------------------------------------------------

# symbol and precedence of what is written between its operands
_INFIX = {
    "or_": ("|", 1), "xor": ("^", 2), "and_": ("&", 3), "lt": ("<", 4), "le": ("<=", 4),
    "gt": (">", 4), "ge": (">=", 4), "eq": ("==", 4), "neq": ("!=", 4), "add": ("+", 5),
    "sub": ("-", 5), "mul": ("*", 6), "true_div": ("/", 6), "int_div": ("//", 6),
    "mod": ("%", 6), "Dot": ("@", 6), "pow": ("**", 8),
}  # fmt: skip
_PREFIX = {"neg": ("-", 7), "invert": ("~", 7)}
_CALL = 9
_LONG = 200  # characters: a longer formula that is used again gets a name of its own

Formula = tuple[str, int]  # the text and how tightly its outermost operator binds


def _wrapped(formula: Formula, least: int) -> str:
    text, binds = formula
    return text if binds >= least else f"({text})"


def pprint(obj: Any) -> str:
    """A formula for each variable, in infix form: `pprint(x * (y + 2))` is "x * (y + 2)".

    Long formulas that are used several times are named and follow as "where t0 = ...".
    """
    outputs = graph_outputs(obj)
    order = toposort(outputs)
    uses: dict[Variable, int] = {}
    for v in order:
        for i in v.inputs:
            uses[i] = uses.get(i, 0) + 1
    formulas: dict[Variable, Formula] = {}
    named: list[str] = []
    for v in order:
        text, binds = _formula(v, [formulas[i] for i in v.inputs])
        if len(text) > _LONG and uses.get(v, 0) > 1:
            named.append(f"t{len(named)} = {text}")
            text, binds = f"t{len(named) - 1}", _CALL
        formulas[v] = text, binds
    shown = ", ".join(formulas[v][0] for v in outputs)
    return "\nwhere ".join([shown, *named])


def _formula(v: Variable, parts: Sequence[Formula]) -> Formula:
    if not v.inputs:
        if isinstance(v, Constant):
            value = v.data
            text = f"{value.tolist()}" if value.size <= 8 else f"<constant {v.type}>"
            return text, 7 if text.startswith("-") else _CALL
        return _leaf_text(v), _CALL
    label = v.op.label
    texts = [text for text, _ in parts]
    if label in _INFIX and len(parts) == 2:
        symbol, binds = _INFIX[label]
        left, right = (binds + 1, binds) if label == "pow" else (binds, binds + 1)
        return f"{_wrapped(parts[0], left)} {symbol} {_wrapped(parts[1], right)}", binds
    if label in _PREFIX:
        symbol, binds = _PREFIX[label]
        return symbol + _wrapped(parts[0], binds), binds
    match v.op:
        case Item(i) | Dim(i):
            shape = ".shape" if isinstance(v.op, Dim) else ""
            return f"{_wrapped(parts[0], _CALL)}{shape}[{i}]", _CALL
        case MakeVector():
            return f"[{', '.join(texts)}]", _CALL
        case Specify():
            return parts[0]
        case Reduce(kind, axes):
            which = "" if len(axes) == v.inputs[0].ndim else f", axis={list(axes)}"
            return f"{kind}({texts[0]}{which})", _CALL
        case Subtensor() if len(parts) == 1:
            return f"{_wrapped(parts[0], _CALL)}[{label[len('Subtensor{') : -1]}]", _CALL
        case DimShuffle(pattern):
            if pattern == tuple(range(v.ndim))[::-1] and v.ndim == 2:
                return f"{_wrapped(parts[0], _CALL)}.T", _CALL
            if [p for p in pattern if p != "x"] == list(range(v.inputs[0].ndim)):
                return parts[0]  # new axes of size 1 only: what broadcasting does
    return f"{label}({', '.join(texts)})", _CALL


# ---- drawings -------------------------------------------------------------------------------


def _edges(v: Variable) -> Iterator[tuple[Variable, str]]:
    """The inputs of a node, with what to write on the edge from each."""
    for i, x in enumerate(v.inputs):
        number = [str(i)] if len(v.inputs) > 1 else []
        item = [f".{x.op.index}"] if isinstance(x.op, Item) else []
        yield _node(x), " ".join(item + number)


def _shown(outputs: Sequence[Variable]) -> list[Variable]:
    return [v for v in toposort(outputs) if not isinstance(v.op, Item)]


def _label(v: Variable) -> str:
    if not v.inputs:
        return _leaf_text(v)
    text = v.op.label if isinstance(v.op, Elemwise) else _op_text(v)
    return f"{v.name}: {text}" if v.name else text


def _kind(v: Variable) -> str:
    if v.inputs:
        return "loop" if body_of(v) else "op"
    if isinstance(v, Constant):
        return "constant"
    return "shared" if isinstance(v, SharedBase) else "input"


def _type_text(v: Variable) -> str:
    return f"{len(v.type.items)} results" if isinstance(v.type, TupleType) else f"{v.type}"


_COLOURS = {
    "op": "white", "loop": "#ffe0b0", "input": "#c8e6c9", "shared": "#bbdefb",
    "constant": "#eeeeee",
}  # fmt: skip


def to_dot(obj: Any) -> str:
    """The graph in Graphviz' language; the body of each scan is a cluster."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'

    lines = ["digraph graph_ {", "  node [fontname=Helvetica, style=filled, fontsize=11];"]
    for indent, graph, nodes, outputs in _graphs(obj):
        if graph:
            title = quoted(f"body of {_label(outputs[0])}")
            lines += [f"  subgraph cluster_{graph} {{", f"    label={title};"]
            outputs = body_of(outputs[0])
        for v, name in nodes.items():
            shape = "box" if v.inputs else "ellipse"
            look = f"shape={shape}, fillcolor={quoted(_COLOURS[_kind(v)])}"
            tip = quoted(_type_text(v))
            lines.append(f"{indent}{name} [label={quoted(_label(v))}, tooltip={tip}, {look}];")
        for v, name in nodes.items():
            for x, text in _edges(v):
                note = f" [label={quoted(text)}]" if text else ""
                lines.append(f"{indent}{nodes[x]} -> {name}{note};")
        for i, v in enumerate(outputs):
            end = f"g{graph}_out{i}"
            lines.append(f"{indent}{end} [label={quoted(f'output {i}')}, shape=plaintext];")
            lines.append(f"{indent}{nodes[_node(v)]} -> {end};")
        if graph:
            lines.append("  }")
    return "\n".join([*lines, "}", ""])


def to_mermaid(obj: Any) -> str:
    """The graph as a Mermaid flowchart; the body of each scan is a subgraph."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', "#quot;").replace("\n", " ") + '"'

    lines = ["flowchart TD"]
    for indent, graph, nodes, outputs in _graphs(obj):
        if graph:
            lines.append(f"  subgraph body{graph} [{quoted(f'body of {_label(outputs[0])}')}]")
            outputs = body_of(outputs[0])
        for v, name in nodes.items():
            text = quoted(_label(v))
            lines.append(f"{indent}{name}[{text}]" if v.inputs else f"{indent}{name}([{text}])")
        for v, name in nodes.items():
            for x, text in _edges(v):
                arrow = f"-->|{quoted(text)}|" if text else "-->"
                lines.append(f"{indent}{nodes[x]} {arrow} {name}")
        for i, v in enumerate(outputs):
            lines.append(f"{indent}{nodes[_node(v)]} --> g{graph}_out{i}((output {i}))")
        if graph:
            lines.append("  end")
    return "\n".join(lines) + "\n"


def _graphs(obj: Any) -> Iterator[tuple[str, int, dict[Variable, str], Sequence[Variable]]]:
    """The main graph and the body of every loop in it: an indent, a number, the names of the
    nodes, and the outputs (of a body: the loop's node)."""
    loops: list[Variable] = []
    outputs: Sequence[Variable] = graph_outputs(obj)
    number = 0
    while True:
        nodes = _shown(body_of(outputs[0]) if number else outputs)
        loops += [v for v in nodes if body_of(v) and v not in loops]
        names = {v: f"g{number}_n{i}" for i, v in enumerate(nodes)}
        yield ("    " if number else "  "), number, names, outputs
        if number == len(loops):
            return
        outputs = [loops[number]]
        number += 1


def pydotprint(
    fct: Any, outfile: str | None = None, compact: bool = True, format: str = "png",
    print_output_file: bool = True, **ignored: Any,
) -> None:  # fmt: skip
    """Draws a graph to a file: the ending (.dot, .svg, .png, .pdf) says in which form, `format`
    where there is none. Other forms than .dot need Graphviz' program `dot`.

    Raises RuntimeError where `dot` is not installed, or fails.
    """
    outfile = outfile or f"gpuscan.{format}"
    kind = outfile.rpartition(".")[2] if "." in outfile.rpartition("/")[2] else format
    if not outfile.endswith(f".{kind}"):
        outfile = f"{outfile}.{kind}"
    text = to_dot(fct)
    if kind == "dot":
        with open(outfile, "w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        import shutil  # only here: `import gpuscan` stays quick
        import subprocess

        program = shutil.which("dot")
        if program is None:
            raise RuntimeError(
                f"drawing {outfile} needs Graphviz' program `dot`, which is not installed. "
                "Install Graphviz, or give a file name that ends in .dot."
            )
        run = subprocess.run(
            [program, f"-T{kind}", "-o", outfile], input=text.encode(), capture_output=True
        )
        if run.returncode:
            raise RuntimeError(f"dot failed on {outfile}: {run.stderr.decode().strip()}")
    if print_output_file:
        print(f"The output file is available at {outfile}")
