"""Rules and their fixpoint. A rule takes a variable and gives one that stands for it, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .graph import Op, Variable, inherit, made_for, rebuild, toposort

Rule = Callable[[Variable], Variable | None]


class Rules:
    """An ordered list of rules, found by the op at the root of what they match."""

    def __init__(self, *rules: tuple[type[Op], Rule]) -> None:
        self.by_op: dict[type[Op], list[Rule]] = {}
        for op, rule in rules:
            self.by_op.setdefault(op, []).append(rule)

    def __add__(self, other: Rules) -> Rules:
        both = Rules()
        for rules in (self, other):
            for op, some in rules.by_op.items():
                both.by_op.setdefault(op, []).extend(some)
        return both


def rule(op: type[Op]) -> Callable[[Rule], tuple[type[Op], Rule]]:
    """Marks a function as a rule for variables whose op is of this class."""
    return lambda function: (op, function)


_MOST_SWEEPS = 100  # a set of rules that has not settled by then would go round for ever


def rewrite(outputs: Sequence[Variable], rules: Rules) -> list[Variable]:
    """The outputs after the rules have been applied, inputs first, until nothing changes."""
    current = list(outputs)
    for _ in range(_MOST_SWEEPS):
        swept = _sweep(current, rules)
        if swept == current:
            return swept
        current = swept
    raise RuntimeError(f"the rules did not settle in {_MOST_SWEEPS} sweeps: {current}")


def _sweep(outputs: Sequence[Variable], rules: Rules) -> list[Variable]:
    new: dict[Variable, Variable] = {}
    for v in toposort(outputs):
        node = rebuild(v, [new[i] for i in v.inputs]) if v.inputs else v
        new[v] = _applied(node, rules)
    return [new[v] for v in outputs]


def _applied(node: Variable, rules: Rules) -> Variable:
    for apply in rules.by_op.get(type(node.op), ()):
        with made_for(node):
            found = apply(node)
        if found is not None and found is not node:
            # a rule may learn more of the sizes; it may not change dtype or dimensions
            assert found.type == node.type or (
                (found.dtype, found.ndim) == (node.dtype, node.ndim)
            ), f"a rule turned {node} ({node.type}) into {found} ({found.type})"
            return inherit(found, node)
    return node
