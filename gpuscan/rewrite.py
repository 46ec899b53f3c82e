"""Rules and their fixpoint. A rule takes a variable and gives one that stands for it, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .graph import Op, Variable, inherit, made_for, rebuild

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


_MOST_TURNS = 1_000_000  # a set of rules that has not settled by then would go on for ever


def rewrite(outputs: Sequence[Variable], rules: Rules) -> list[Variable]:
    """The outputs after the rules have been applied, inputs first, until none applies.

    What a rule gives is rewritten in its turn before anything reads it. What stands for a node
    in the end is kept on the node for later calls: a rule sees its node and what that is
    computed from, no more.
    """
    turned: dict[Variable, Variable] = {}  # a node and what it was turned into on the way
    stack = list(reversed(outputs))
    while stack:
        v = stack[-1]
        if rules in v.settled:
            stack.pop()
        elif v in turned:
            if rules not in turned[v].settled or len(turned) > _MOST_TURNS:
                raise RuntimeError(f"the rules do not settle: {v} ({v.type}) becomes {turned[v]}")
            v.settled[rules] = _end(turned[v], rules)
        elif waiting := [i for i in v.inputs if rules not in i.settled]:
            stack.extend(reversed(waiting))
        else:
            node = rebuild(v, [_end(i, rules) for i in v.inputs]) if v.inputs else v
            found = _applied(node, rules) if node is v else node
            if found is v:
                v.settled[rules] = None  # itself; a node that held itself would be kept alive
            else:
                turned[v] = found
                stack.append(found)
    return [_end(v, rules) for v in outputs]


def _end(v: Variable, rules: Rules) -> Variable:
    """What stands for a node that has settled."""
    end = v.settled[rules]
    return v if end is None else end


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
