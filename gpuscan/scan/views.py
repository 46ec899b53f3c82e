"""Loops of a known pattern: map, reduce, foldl, foldr, and scan_checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..graph import Variable, constant_leaf
from ..ops.convert import as_tensor
from ..ops.scalar import minimum
from ..ops.shape import dim
from .frontend import scan

Fn = Callable[..., Any]


def map(
    fn: Fn, sequences: Any, non_sequences: Any = None, truncate_gradient: int = -1,
    go_backwards: bool = False, mode: Any = None, name: str | None = None,
) -> Any:  # fmt: skip
    """fn of each row of the sequences: (outputs, updates), as scan without feedback."""
    return scan(
        fn, sequences, [], non_sequences, truncate_gradient=truncate_gradient,
        go_backwards=go_backwards, mode=mode, name=name,
    )  # fmt: skip


def reduce(
    fn: Fn, sequences: Any, outputs_info: Any, non_sequences: Any = None,
    go_backwards: bool = False, mode: Any = None, name: str | None = None,
) -> Any:  # fmt: skip
    """The last value of `acc = fn(row, acc)` over the rows: (value or list of values, updates)."""
    outputs, updates = scan(
        fn, sequences, outputs_info, non_sequences, go_backwards=go_backwards, mode=mode,
        name=name, return_list=True,
    )  # fmt: skip
    last = [v[-1] for v in outputs]
    return (last[0] if len(last) == 1 else last), updates


def foldl(
    fn: Fn, sequences: Any, outputs_info: Any, non_sequences: Any = None, mode: Any = None,
    name: str | None = None,
) -> Any:  # fmt: skip
    """`reduce` from the first row to the last."""
    return reduce(fn, sequences, outputs_info, non_sequences, False, mode, name)


def foldr(
    fn: Fn, sequences: Any, outputs_info: Any, non_sequences: Any = None, mode: Any = None,
    name: str | None = None,
) -> Any:  # fmt: skip
    """`reduce` from the last row to the first; fn still takes (row, acc)."""
    return reduce(fn, sequences, outputs_info, non_sequences, True, mode, name)


def scan_checkpoints(
    fn: Fn, sequences: Any = None, outputs_info: Any = None, non_sequences: Any = None,
    name: str | None = "checkpointscan_fn", n_steps: Any = None, save_every_N: int = 10,
    padding: bool = True,
) -> Any:  # fmt: skip
    """scan that keeps every `save_every_N`-th value: gradients compute the values between again,
    so a loop of T steps holds about T / N + N of them.

    The outputs have one row for each N steps and a last one for the rest, so only their last
    row is that of plain scan. Sequences have no taps and one length. `padding` is accepted for
    Theano's programs: any length is right.

    Raises RuntimeError for taps, ValueError where the number of steps is not given.
    """
    seqs = _plain(sequences, "sequences")
    infos = _plain(outputs_info, "outputs_info")
    others = [as_tensor(v) for v in _plain(non_sequences, "non_sequences")]
    every = int(save_every_N)
    if every < 1:
        raise ValueError(f"save_every_N must be at least 1, got {save_every_N}")
    if n_steps is None and not seqs:
        raise ValueError(
            "No information about the number of steps provided. Either provide a value for "
            "n_steps argument of scan or provide an input sequence"
        )
    n = as_tensor(n_steps).astype("int64") if n_steps is not None else dim(as_tensor(seqs[0]), 0)
    rows = [as_tensor(s) for s in seqs]
    carried = [i for i, v in enumerate(infos) if v is not None]
    size = constant_leaf(np.asarray(every, "int64"))

    def chunk(start: Variable, *values: Any) -> Any:
        states, rest = list(values[: len(carried)]), values[len(carried) :]
        whole, given = rest[: len(rows)], rest[len(rows) : len(rows) + len(others)]
        inner_infos: list[Any] = [None] * len(infos)
        for i, state in zip(carried, states):
            inner_infos[i] = state
        length = minimum(size, rest[-1] - start)
        outputs, updates = scan(
            fn, [x[start : start + length] for x in whole], inner_infos, list(given),
            n_steps=length, name=f"{name}_inner", return_list=True,
        )  # fmt: skip
        return [v[-1] for v in outputs], updates

    starts = Variable.operations["arange"](0, n, every)
    return scan(chunk, starts, infos or None, [*rows, *others, n], name=name)


def _plain(x: Any, what: str) -> list[Any]:
    """The entries as a list; one with taps is refused."""
    entries = [] if x is None else list(x) if isinstance(x, list | tuple) else [x]
    found = []
    for e in entries:
        if isinstance(e, Mapping):
            if e.get("taps") is not None and list(np.atleast_1d(e["taps"])) not in ([0], [-1]):
                raise RuntimeError(f"scan_checkpoints doesn't work with taps. {what}: {e!r}")
            if "taps" in e and what == "outputs_info":
                raise RuntimeError(f"scan_checkpoints doesn't work with taps. {what}: {e!r}")
            e = e.get("input", e.get("initial"))
        found.append(e)
    return found
