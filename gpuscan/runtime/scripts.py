"""Calls of a function on the native device that are made again.

What a call does with kernels follows from the shapes of what it is given and from the numbers by
which the host goes. So one call is recorded, and the next ones of its kind are calls of C, from one
node that NumPy computes to the next: they walk no graph, make no views and look up no plans. (What
a GPU is to do is written to `tapes`.)
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluate import Program
from ..graph import Constant, Variable, toposort
from ..ops.control import Require, has_effect
from ..ops.elemwise import Elemwise
from ..ops.shape import Dim
from ..record import replace
from ..scan.op import Scan
from . import memory, threads
from .contraction import NativeContraction
from .native import NativeLoop, NativeNest
from .packing import Part, packed
from .plans import constants
from .recorder import Computing, Place, Recorder, Run, Step, View, is_recorded, is_view, recording

_MOST_SCRIPTS = 256  # of a function
_MOST_WAYS = 4  # of a kind of call
_FIRST = 16  # scripts that are made anyway
_CALLS = 8  # calls that are made again before one more is: to record takes as long as some calls
_MOST_MET = 256  # kinds of calls that came once: if none has come again by then, none is recorded

_MOST_FAILED = 8  # calls


# ---- which functions -----------------------------------------------------------------------------


def steering(inputs: Sequence[Variable], outputs: Sequence[Variable]) -> list[int] | None:
    """The positions of the inputs by whose values the host goes: where views lie, and what kernels
    are given. None where it goes by what a call computes, or a node does more than compute."""
    numbers: list[Variable] = []
    for v in toposort(outputs, inputs):
        if v in inputs or isinstance(v, Constant):
            continue
        if _has_effect(v) or getattr(v.op, "is_lazy", False):
            return None
        numbers += _numbers(v)
    found: set[Variable] = set()
    while numbers:
        x = numbers.pop()
        if x in inputs or isinstance(x, Constant) or isinstance(x.op, Dim):
            found.add(x)
        elif isinstance(x.op, Elemwise):
            numbers += x.inputs
        else:
            return None
    return [i for i, v in enumerate(inputs) if v in found]


def _has_effect(v: Variable) -> bool:
    """Whether a node, or one in its steps, does more than compute."""
    op = getattr(v.op, "definition", v.op)
    if isinstance(op, Scan):
        return any(map(_has_effect, toposort(op.step.outputs)))
    return has_effect(v)


def _numbers(v: Variable) -> Sequence[Variable]:
    """Those of a node's inputs by which the host goes."""
    match v.op:
        case NativeLoop() as op:
            return [v.inputs[0], *_sizes(v, op)]
        case NativeNest() as op:
            return _sizes(v, op)
        case NativeContraction():
            return [x for x in v.inputs if not x.ndim]
    return v.inputs[1:] if is_view(v) else ()


def _sizes(v: Variable, op: NativeLoop | NativeNest) -> list[Variable]:
    return [v.inputs[i] for i, axis in op.sizes_at if axis is None]


# ---- a call that is made again -------------------------------------------------------------------


class Script:
    """What a recorded call did. Its arrays are a call's inputs, those that are the same in each,
    the results, one block of memory, and what NumPy makes."""

    def __init__(
        self, program: Program, recorder: Recorder, outputs: Sequence[Any],
        met: Mapping[Variable, Any],
    ) -> None:  # fmt: skip
        self.program, self.loops, self.met = program, recorder.loops, met
        inputs = recorder.inputs
        self.results: list[tuple[tuple[int, ...], Any]] = []
        self.rows: list[slice | None] = []  # of each result those that the call gives
        own: dict[int, int] = {}  # of a buffer the result that it is
        for x in outputs:
            self._add_result(recorder, x, own)
        if recorder.why:
            return
        steps = _needed(recorder.steps, own)
        used = {b for step in steps for b in step.buffers}
        self.fixed: list[Any] = []
        inside, made = {}, []
        places: dict[int, Place] = {}
        for b in sorted(used - own.keys()):
            buffer = recorder.buffers[b]
            match buffer.kind:
                case "given":
                    places[b] = b - recorder.first_input, 0
                case "fixed":
                    places[b] = len(inputs) + len(self.fixed), 0
                    self.fixed.append(buffer.array)
                case "empty":
                    inside[b] = buffer.array
                case "made":
                    made.append(b)
        behind = len(inputs) + len(self.fixed)
        places |= {b: (behind + k, 0) for b, k in own.items()}
        self.size, offsets = packed(_parts(steps, inside))
        behind += len(self.results)
        places |= {b: (behind, at) for b, at in offsets.items()}
        places |= {b: (behind + k, 0) for k, b in enumerate(made, 1)}
        self.made = len(made)
        self._divide(recorder, steps, places)

    def _add_result(self, recorder: Recorder, x: Any, own: dict[int, int]) -> None:
        """An output: memory of its own that kernels write to, all of it or rows, or a copy."""
        if not isinstance(x, np.ndarray):  # a number, the same in each call
            x = np.asarray(x)
            recorder.number(x)
        found = recorder.found(x)
        if recorder.why or found is None:
            recorder.stop("an output is of unknown origin")
            return
        buffer, offset = found
        whole, rows = x, None
        if buffer not in own and x.size and recorder.buffers[buffer].kind == "empty":
            whole = recorder.buffers[buffer].array
            rows = _rows_of(whole, offset, x)
        if rows is None:
            whole, rows = np.empty(x.shape, x.dtype), slice(None)
            buffer = recorder.allocated(whole)
            recorder.copied(whole, x)
        own[buffer] = len(self.results)
        self.results.append((whole.shape, whole.dtype))
        self.rows.append(None if rows == slice(None) else rows)

    def _divide(
        self, recorder: Recorder, steps: Sequence[Step], places: Mapping[int, Place]
    ) -> None:
        """The parts of a call: scripts of runs, and what NumPy computes between them."""
        self.parts: list[tuple[bytes, int] | _Computing] = []
        number: dict[int, int] = {}  # of the runs, which may be equal
        for _, group in itertools.groupby(steps, type):
            together = list(group)
            self.parts += [
                _Computing(recorder, c, places) for c in together if isinstance(c, Computing)
            ]
            if runs := [run for run in together if isinstance(run, Run)]:
                number |= {id(run): len(number) + i for i, run in enumerate(runs)}
                read = {b for run in runs if run.kernel is not None for b in run.buffers}
                given = enumerate(recorder.inputs, recorder.first_input)
                aligned = [(places[b][0], x.dtype.alignment) for b, x in given if b in read]
                script = threads.script([run.moved(places) for run in runs], aligned)
                self.parts.append((script, len(runs)))
        self.ways = [
            (plan, steps, split, [number[id(run)] for run in found if id(run) in number])
            for plan, steps, split, found in recorder.ways
        ]

    def fits(self) -> bool:
        """Whether loops would be shared as they were."""
        return all(plan.split(steps) is split for plan, steps, split, _ in self.ways)

    def __call__(self, inputs: Sequence[Any]) -> memory.Alone | None:
        """The outputs, of inputs of the same shapes and strides; None where something is not as it
        was."""
        results = [memory.empty(shape, dtype) for shape, dtype in self.results]
        arrays = [*inputs, *self.fixed, *results, memory.scratch(self.size) if self.size else None]
        arrays += [None] * self.made
        times: list[int] = []
        for part in self.parts:
            if isinstance(part, _Computing):
                if not part(arrays, self.program):
                    return None
                continue
            script, count = part
            spent = bytearray(8 * count) if self.ways else None
            if threads.play(script, arrays, spent) != count:
                return None
            if spent is not None:
                times += struct.unpack(f"{count}q", spent)
        for plan, steps, split, runs in self.ways:
            plan.took(split, sum(times[i] for i in runs) / 1e9 / max(1, steps))
        return memory.Alone(x if r is None else x[r] for x, r in zip(results, self.rows))


class _Computing:
    """A `Computing` with places in a script's arrays."""

    def __init__(self, recorder: Recorder, step: Computing, places: Mapping[int, Place]) -> None:
        def placed(x: View) -> View:
            number, offset = places[x.buffer]
            return replace(x, buffer=number, offset=x.offset + offset)

        self.node, self.compute = step.node, step.compute
        self.operands = [placed(x) if isinstance(x, View) else x for x in step.operands]
        self.results: list[tuple[int, int, Any]] = []  # which, where to, and what was there
        for i, b in enumerate(step.results):
            if b is not None and b in places:
                x = recorder.buffers[b].array
                self.results.append((i, places[b][0], (x.shape, x.strides, x.dtype)))

    def __call__(self, arrays: list[Any], program: Program) -> bool:
        """Whether it gave arrays of the same kinds, which are put where they are read."""
        operands = [_seen(x, arrays) if isinstance(x, View) else x for x in self.operands]
        try:
            found = self.compute(*operands)
        except Exception as error:
            program.add_note(error, self.node, operands)
            raise
        for i, number, kind in self.results:
            x = arrays[number] = np.asarray(found[i] if isinstance(found, tuple) else found)
            if not x.flags.aligned or (x.shape, x.strides, x.dtype) != kind:
                return False
        return True


def _seen(view: View, arrays: Sequence[Any]) -> Any:
    whole = arrays[view.buffer]
    if view.shape is None:
        return whole
    return np.ndarray(view.shape, view.dtype, whole, view.offset, view.strides)


def _rows_of(whole: Any, offset: int, part: Any) -> slice | None:
    """Which rows of an array a part of it is; None where it is none, or less than half of it."""
    if part.strides != whole.strides or part.shape[1:] != whole.shape[1:]:
        return None
    if part.shape == whole.shape:
        return slice(None)
    if 2 * part.nbytes < whole.nbytes:
        return None
    first = offset // part.strides[0]
    return slice(first, first + len(part))


def _needed(steps: Sequence[Step], results: Collection[int]) -> list[Step]:
    """The steps without those whose results nobody reads."""
    read, found = set(results), []
    for step in reversed(steps):
        if isinstance(step, Run):
            is_needed = step.target is None or step.target in read
        else:
            is_check = isinstance(step.node.op, Require)
            is_needed = is_check or not read.isdisjoint(step.results)
        if is_needed:
            found.append(step)
            read |= step.buffers
    return found[::-1]


def _parts(steps: Sequence[Step], arrays: Mapping[int, Any]) -> list[Part]:
    """Of arrays that steps need their sizes, and the first and the last step that does. What NumPy
    makes may be a view of what it is made of."""
    when: dict[int, list[int]] = {}
    seen: dict[int, set[int]] = {}  # through what NumPy has made
    for i, step in enumerate(steps):
        if isinstance(step, Computing):
            read = [x.buffer for x in step.operands if isinstance(x, View)]
            of = {b for x in read for b in (x, *seen.get(x, ()))}
            seen |= {b: of for b in step.results if b is not None}
        for b in step.buffers:
            for each in (b, *seen.get(b, ())):
                when.setdefault(each, []).append(i)
    return [(max(1, x.nbytes), when[b][0], when[b][-1], b) for b, x in arrays.items()]


# ---- the calls of a function ---------------------------------------------------------------------


class NativeProgram:
    """The program of a function; its calls are made again where that can be. selection: what is
    done of each call before, by numbers that then make no kinds of calls (`gpuscan.selection`);
    met: where loops put the sizes and shapes that they met."""

    def __init__(self, program: Program, selection: Any, met: dict[Variable, Any]) -> None:
        self.whole, self.selection, self.met = program, selection, met
        self.program = program = selection.rest if selection else program
        self.idle: Collection[int] = selection.idle if selection else ()
        nodes = toposort(program.outputs, program.inputs)
        found = steering(program.inputs, program.outputs)
        self.steering = found or []
        self.is_repeated = found is not None and any(map(is_recorded, nodes))
        self.fixed = list(_fixed(nodes)) if self.is_repeated else []
        self.scripts: dict[Any, list[Script] | None] = {}  # None: it can't be made again
        self.once: set[Any] = set()  # kinds of calls that came once
        self.played = self.made = self.failed = 0
        self.last: Script | None = None

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        return self.called(self.selection.selected(inputs) if self.selection else inputs)

    def called(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs, of what the program takes."""
        if (outer := recording.recorder) is not None:
            outer.stop("another function is called meanwhile")  # by a signal's handler
            return self.program(*inputs)
        if not self.is_repeated:
            return self.program(*inputs)
        arrays = [x if isinstance(x, np.ndarray) else np.asarray(x) for x in inputs]
        kind = self._kind(arrays)
        scripts = self.scripts.get(kind)
        if scripts is None:
            return self._without(kind, arrays)
        for script in scripts:
            if script.fits():
                found = script(arrays)
                if found is not None:
                    self.played += 1
                    self._tell(script)
                    return found
                self._has_failed()
                return self.program(*arrays)
        return self._recorded(kind, arrays)

    def _kind(self, arrays: Sequence[Any]) -> Any:
        """What calls have in common that do the same."""
        kind = [threads.count(), *[int(arrays[i]) for i in self.steering]]
        for k, x in enumerate(arrays):
            if k not in self.idle:
                kind += x.shape, x.strides
        return tuple(kind)

    def _without(self, kind: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """A call of a kind that has no script."""
        if kind in self.scripts:
            return self.program(*arrays)
        if kind in self.once:
            return self._recorded(kind, arrays)
        if len(self.once) >= _MOST_MET:
            self.once.clear()
            self.is_repeated = bool(self.scripts)
        self.once.add(kind)
        return self.program(*arrays)

    def _recorded(self, kind: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        scripts = self.scripts.get(kind) or []
        if len(scripts) >= _MOST_WAYS or self.made > _FIRST + self.played // _CALLS:
            return self.program(*arrays)
        outputs, script = self.recorded(arrays)
        self.made += 1
        self.scripts[kind] = [*scripts, script] if script else None
        if script is None:
            self._has_failed()
        if len(self.scripts) > _MOST_SCRIPTS:
            self.scripts.pop(next(iter(self.scripts)), None)
        return outputs

    def recorded(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], Script | None]:
        """The outputs, and how a call like this one is made again; None where it can't be."""
        recorder = recording.recorder = Recorder(arrays, self.fixed, self.idle)
        try:
            outputs = self.program(*recorder.inputs)
        finally:
            recording.recorder = None
        script = Script(self.program, recorder, outputs, dict(self.met))
        return outputs, None if recorder.why else script

    def _has_failed(self) -> None:
        self.failed += 1
        self.is_repeated = self.failed < _MOST_FAILED

    def _tell(self, script: Script) -> None:
        if self.last is not script:
            self.last = script
            self.met |= script.met
            for loop, plan in script.loops:
                loop.plan = plan


def _fixed(nodes: Iterable[Variable]) -> Iterable[Any]:
    """The arrays that are there in each call."""
    for v in nodes:
        if isinstance(v, Constant):
            yield v.data
        elif isinstance(v.op, NativeLoop | NativeNest):
            yield from constants(v.op.program)
        if isinstance(v.op, NativeNest):  # which may run as its products and what is between them
            yield from _fixed(x for x in toposort(v.op.values, v.op.given) if x not in v.op.given)
