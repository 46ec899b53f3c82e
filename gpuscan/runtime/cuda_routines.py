"""Draws, joins, gathers and additions at positions outside of loops, on devices that run CUDA: each
a kernel whose text is the same for all sizes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from ..graph import Op, Variable
from ..ops.index import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    check_fit,
    places_of,
)
from ..ops.patterns import Array, Pattern, fill
from ..ops.sample import Uniform
from ..ops.shape import Join
from ..record import record
from ..types import TensorType
from .calls import dones
from .cuda import CudaDevice, copied, dense
from .tapes import by_numpy, on_host, said, take

_UNIFORMS = """#include "block_draws.h"

extern "C" __global__ void __launch_bounds__({threads}) uniforms(
        const unsigned long long *state, long long row, {type} *out, long long count) {{
    gs_grid_uniforms(state, row, out, count);
}}
"""
_SCATTER = """#include "routines.h"

extern "C" __global__ void __launch_bounds__({threads}) scatter(
        {type} *out, const {type} *y, const long long *rows, long long count, long long wide,
        long long shares) {{
    gs_grid_scatter(out, y, rows, count, wide, shares);
}}
"""
_GATHER = """#include "routines.h"

extern "C" __global__ void __launch_bounds__({threads}) gather(
        {type} *out, const {type} *x, const long long *rows, long long count, long long wide) {{
    gs_grid_gather(out, x, rows, count, wide);
}}
"""
_PLACES = """#include "routines.h"

extern "C" __global__ void __launch_bounds__({threads}) places(
        long long *rows, const {type} *at, long long *done, long long count, long long size,
        long long first) {{
    gs_grid_places(rows, at, done, count, size, first);
}}
"""
_ELEMENTS = """#include "routines.h"

extern "C" __global__ void __launch_bounds__({threads}) elements(
        const {type} *from, {type} *to, long long count, long long n1, long long n2, long long n3,
        long long s0, long long s1, long long s2, long long s3, long long t0, long long t1,
        long long t2, long long t3) {{
    gs_grid_elements<{add}>(from, to, count, n1, n2, n3, s0, s1, s2, s3, t0, t1, t2, t3);
}}
"""
_WARPS = 32  # of a multiprocessor, which hide most of what each waits for
FLOATS = {"float32": "float", "float64": "double"}
_OF_BYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_SIGNED = {1: "signed char", 2: "short", 4: "int", 8: "long long"}


class Routine:
    """A kernel of a text that is the same for all sizes, with threads for the elements of one."""

    def __init__(self, device: CudaDevice, name: str, text: str, kind: str) -> None:
        self.device, self.name = device, name
        self.threads = min(256, device.limits.threads_block)
        self.text = text.format(threads=self.threads, type=kind)
        self.kernels: dict[Any, Any] = {}  # by place; built when it is first run there

    def __call__(self, count: int, *arguments: int) -> None:
        place = self.device.place
        kernel = self.kernels.get(place)
        if kernel is None:
            kernel = self.kernels[place] = self.device.build(self.text, self.name)
        grid = min(self.device.limits.multiprocessors * 8, -(-count // self.threads))
        launch = Launch(
            self.name, self.text, (), grid, self.threads, 0, False, "launch", self.name, 0
        )
        self.device.launch(kernel, launch, arguments)


class Elements:
    """Copies the elements of an array to those of another of its shape, or adds them there."""

    def __init__(self, device: CudaDevice, kind: str, add: bool = False) -> None:
        self.device = device
        text = _ELEMENTS.replace("{add}", "true" if add else "false")
        self.kernel = Routine(device, "elements", text, kind)

    def __call__(self, target: Any, source: Any) -> bool:
        """Whether it could: not where more than four axes have no common strides."""
        if not target.size:
            return True
        axes = four_axes(target.shape, source.strides, target.strides, target.itemsize)
        if axes is None:
            return False
        sizes, *strides = axes
        places = self.device.address(source), self.device.address(target)
        given = target.size, *sizes[1:], *strides[0], *strides[1]
        self.kernel(target.size, *places, *given)
        return True


def copying(device: CudaDevice, item: int) -> Elements:
    """For elements of so many bytes."""
    return Elements(device, _OF_BYTES[item])


def four_axes(
    shape: Sequence[int], one: Sequence[int], other: Sequence[int], item: int
) -> tuple[list[int], list[int], list[int]] | None:
    """The sizes of an array that is not empty as if it had four axes, and two arrays' strides, in
    elements; None where it has more that can't be one."""
    axes: list[tuple[int, int, int]] = []
    for size, a, b in zip(shape, one, other):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (size * a, size * b):
            axes[-1] = axes[-1][0] * size, a, b
        else:
            axes.append((size, a, b))
    if len(axes) > 4 or any(a % item or b % item for _, a, b in axes):
        return None
    axes = [(1, 0, 0)] * (4 - len(axes)) + axes
    sizes, ones, others = ([axis[k] for axis in axes] for k in range(3))
    return sizes, [a // item for a in ones], [b // item for b in others]


@record
class CudaUniform(Op):
    """A draw: (state, *sizes) -> floats, the same as everywhere."""

    definition: Uniform
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, dtype = self.device, self.definition.dtype
        kernel = Routine(device, "uniforms", _UNIFORMS, FLOATS[dtype])
        of_a_counter = 16 // np.dtype(dtype).itemsize

        def run(state: Any, *sizes: Any) -> Any:
            shape = [int(device.host(s)) for s in sizes]
            if min(shape, default=0) < 0:
                raise ValueError(f"negative size in the shape {tuple(shape)}")
            out, count = device.empty(shape, dtype), math.prod(shape)
            if count:
                given = device.array(state)
                row = math.prod(shape[1:]) if shape else 0
                threads = -(-count // of_a_counter) + 1  # the first counter may be half used
                kernel(threads, device.address(given), row, device.address(out), count)
            return out

        return run


@record
class CudaJoin(Op):
    """A Join: each part is copied to its place by a launch."""

    definition: Join
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, axis = self.device, self.definition.axis
        copy = copying(device, np.dtype(node.dtype).itemsize)

        def run(*parts: Any) -> Any:
            shape = list(parts[0].shape)
            for x in parts[1:]:
                if x.ndim != len(shape) or any(
                    a != b for k, (a, b) in enumerate(zip(x.shape, shape)) if k != axis
                ):
                    return np.concatenate([device.host(x) for x in parts], axis)  # which says so
            shape[axis] = sum(x.shape[axis] for x in parts)
            out, start = device.empty(shape, node.dtype), 0
            for x in parts:
                stop = start + x.shape[axis]
                part, given = out[(slice(None),) * axis + (slice(start, stop),)], device.there(x)
                copy(part, given) or copy(part, dense(device, given))
                start = stop
            return out

        return run


class Places:
    """The numbers of a tensor's rows at the positions of an index, on the device, and the shape and
    width of all. NumPy finds them, or a kernel where positions are on the device alone and the
    index is nothing but arrays of them."""

    def __init__(self, device: CudaDevice, pattern: Pattern, positions: Sequence[Variable]) -> None:
        self.device, self.places = device, places_of(pattern, positions)
        self.kernels: list[Routine] | None = None
        alike = len({p.ndim for p in positions}) == 1 and positions[0].ndim > 0
        if alike and all(e == Array() for e in pattern):
            kinds = [_of_integer(np.dtype(p.dtype)) for p in positions]
            self.kernels = [Routine(device, "places", _PLACES, kind) for kind in kinds]

    def __call__(self, x: Any, positions: Sequence[Any]) -> tuple[Any, tuple[int, ...], int]:
        """Raises IndexError."""
        device, size = self.device, x.shape
        if self.kernels is not None and not all(on_host(device, p) for p in positions):
            if (rows := self._there(self.kernels, size, positions)) is not None:
                tail = size[len(positions) :]
                return rows, (*positions[0].shape, *tail), math.prod(tail)
        known: tuple[Any, ...] = ()

        def find(*at: Any) -> Any:
            nonlocal known
            rows, *known = self.places(size, at)
            return rows

        rows = by_numpy(device, find, positions)
        return device.array(rows), *known

    def _there(
        self, kernels: Sequence[Routine], size: Sequence[int], positions: Sequence[Any]
    ) -> Any:
        """None where NumPy is to say what is wrong, or where one position serves for several."""
        device, count = self.device, positions[0].size
        if any(p.shape != positions[0].shape for p in positions):
            return None
        rows, done = device.empty((count,), "int64"), take(device, dones)
        for k, (kernel, p) in enumerate(zip(kernels, positions)):
            if count:
                places = [device.address(a) for a in (rows, dense(device, p), done)]
                kernel(count, *places, count, size[k], int(k == 0))
        return None if said(device, done, expected=True)[1] else rows


def _of_integer(dtype: np.dtype) -> str:
    return (_OF_BYTES if dtype.kind == "u" else _SIGNED)[dtype.itemsize]


def _on_rows(
    kernel: Routine, count: int, out: Any, x: Any, rows: Any, wide: int, *more: int
) -> None:
    """Starts a kernel, with so many threads, on rows of so many elements: of `out` or of x."""
    if rows.size and wide:
        device, given = kernel.device, dense(kernel.device, x)
        addresses = [device.address(a) for a in (out, given, rows)]
        kernel(count, *addresses, rows.size, wide, *more)


def _shares(rows: int, groups: int, multiprocessors: int) -> int:
    """How many shares, a power of two, there are of the rows that something is added to: one each,
    or as many as the GPU has warps for when each has a group of columns."""
    most = min(rows, max(1, multiprocessors * _WARPS // groups))
    return 1 << (most - 1).bit_length()


@record
class CudaGather(Op):
    """Elements of a tensor at positions."""

    definition: AdvancedSubtensor
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device = self.device
        places = Places(device, self.definition.pattern, node.inputs[1:])
        definition = self.definition.evaluator(node)
        item = np.dtype(node.dtype).itemsize
        kernel = Routine(device, "gather", _GATHER, _OF_BYTES[item])

        def run(x: Any, *operands: Any) -> Any:
            try:
                rows, shape, wide = places(x, operands)
            except IndexError:
                return definition(*map(device.host, (x, *operands)))  # which says so
            out = device.empty(shape, node.dtype)
            _on_rows(kernel, rows.size * wide, out, x, rows, wide)
            return out

        return run


@record
class CudaScatter(Op):
    """Rows of floats that are added to rows, at positions."""

    definition: AdvancedIncSubtensor
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device = self.device
        places = Places(device, self.definition.pattern, node.inputs[2:])
        definition = self.definition.evaluator(node)
        kernel = Routine(device, "scatter", _SCATTER, FLOATS[node.dtype])

        def run(x: Any, y: Any, *operands: Any) -> Any:
            rows, shape, wide = places(x, operands)
            if tuple(y.shape) != shape:
                return definition(*map(device.host, (x, y, *operands)))
            out = copied(device, device.array(x))
            if rows.size and wide:
                limits, groups = device.limits, -(-wide // device.limits.warp)
                shares = _shares(out.size // wide, groups, limits.multiprocessors)
                _on_rows(kernel, shares * groups * limits.warp, out, y, rows, wide, shares)
            return out

        return run


@record
class CudaWrite(Op):
    """A part of a tensor set to values, or of floats with values added, at positions that the host
    knows."""

    definition: IncSubtensor
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, op, known = self.device, self.definition, node.inputs[1].type.shape
        definition = op.evaluator(node)
        kind = _OF_BYTES[np.dtype(node.dtype).itemsize] if op.set else FLOATS[node.dtype]
        elements = Elements(device, kind, not op.set)

        def run(x: Any, y: Any, *operands: Any) -> Any:
            index = (*fill(op.pattern, [int(device.host(i)) for i in operands]), ...)
            out = copied(device, device.array(x))
            with contextlib.suppress(IndexError):
                part, y = out[index], device.there(y)
                check_fit(y, known, part.shape)
                if elements(part, np.broadcast_to(y, part.shape)):
                    return out
            return definition(*map(device.host, (x, y, *operands)))  # which may say why not

        return run
