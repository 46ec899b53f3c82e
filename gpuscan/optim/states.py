"""What updates remember, by name."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import describe
from ..shared import SharedVariable


def states(updates: Iterable[SharedVariable]) -> dict[str, SharedVariable]:
    """The shared variables that updates set, by name and in their order: what a checkpoint holds.

    One without a name is called by its place, `param_2`. Where a function sets more, such as
    random states that it advances by itself, `states(f.get_shared())` has these too. Raises
    ValueError where two have the same name.
    """
    found: dict[str, SharedVariable] = {}
    for i, v in enumerate(updates):
        if not isinstance(v, SharedVariable):
            raise TypeError(f"states: number {i} is not a shared variable, got {v!r}")
        name = label(v, i)
        if name in found:
            raise ValueError(
                f"states: two shared variables have the name '{name}', {describe(found[name])} "
                f"and {describe(v)}: name parameters differently, and methods by name=..."
            )
        found[name] = v
    return found


def label(v: SharedVariable, i: int) -> str:
    """The name of the variable in place i."""
    return v.name or f"param_{i}"
