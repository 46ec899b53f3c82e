"""clone(): a copy of a graph with parts replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import describe
from .graph import Variable, leaves, substitute
from .ops.convert import as_tensor
from .ops.elemwise import cast
from .ops.shape import specify
from .shared import SharedVariable


def fitted(new: Variable, old: Variable, strict: bool, what: str) -> Variable:
    """`new` as a replacement of `old`: of its dtype (cast only where `strict` is off), number of
    dimensions and known sizes. Raises TypeError."""
    if new.ndim != old.ndim or (strict and new.dtype != old.dtype):
        raise TypeError(
            f"{what}: {describe(old)} can't be replaced by {describe(new)}: the types differ."
        )
    new = cast(new, old.dtype)
    known = tuple(a if b is None else b for a, b in zip(new.type.shape, old.type.shape))
    return specify(new, known)


def clone(
    output: Any,
    replace: Any = None,
    strict: bool = True,
    share_inputs: bool = True,
    copy_inputs: Any = None,
) -> Any:
    """The graph of `output` (a variable, or a list) with variables replaced, all at once: a dict
    or pairs. A replaced variable may be any node, and its replacement may mention it.

    strict: the types must be equal; otherwise the replacement is cast. share_inputs=False gives
    fresh inputs. Raises ValueError for a `replace` of another kind, TypeError for types that
    differ.
    """
    if isinstance(replace, Mapping):
        pairs = list(replace.items())
    elif isinstance(replace, list | tuple):
        pairs = [tuple(p) for p in replace]
    elif replace is None:
        pairs = []
    else:
        raise ValueError(
            "replace is neither a dictionary, list, tuple or None ! The value provided is "
            f"{replace} of type {type(replace)}"
        )
    outputs = list(output) if isinstance(output, list | tuple) else [output]
    mapping = {old: fitted(as_tensor(new), old, strict, "clone") for old, new in pairs}
    if not share_inputs:
        for v in leaves(outputs):
            if not isinstance(v, SharedVariable):
                mapping.setdefault(v, v.type(v.name))
    new = substitute(outputs, mapping)
    return type(output)(new) if isinstance(output, list | tuple) else new[0]
