"""Draws, joins, gathers and additions at positions outside of loops, on devices that run CUDA: each
a kernel whose text is the same for all sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from ..graph import Op, Variable
from ..ops.index import AdvancedIncSubtensor, AdvancedSubtensor, places_of
from ..ops.sample import Uniform
from ..ops.shape import Join
from ..record import record
from ..types import TensorType
from .cuda import CudaDevice, copied, dense
from .tapes import by_numpy

_UNIFORMS = """#include "persistent.h"

extern "C" __global__ void __launch_bounds__({threads}) uniforms(
        const unsigned long long *state, long long row, {type} *out, long long count) {{
    gs_grid_uniforms(state, row, out, count);
}}
"""
_ROWS = """#include "persistent.h"

extern "C" __global__ void __launch_bounds__({threads}) rows(
        const {type} *from, {type} *to, long long count, long long inner, long long apart) {{
    gs_grid_rows(from, to, count, inner, apart);
}}
"""
_SCATTER = """#include "persistent.h"

extern "C" __global__ void __launch_bounds__({threads}) scatter(
        {type} *out, const {type} *y, const long long *rows, long long count, long long wide) {{
    gs_grid_scatter(out, y, rows, count, wide);
}}
"""
_GATHER = """#include "persistent.h"

extern "C" __global__ void __launch_bounds__({threads}) gather(
        {type} *out, const {type} *x, const long long *rows, long long count, long long wide) {{
    gs_grid_gather(out, x, rows, count, wide);
}}
"""
_DENSE = """#include "persistent.h"

extern "C" __global__ void __launch_bounds__({threads}) dense(
        const {type} *from, {type} *to, long long count, long long n1, long long n2, long long n3,
        long long s0, long long s1, long long s2, long long s3) {{
    gs_grid_dense(from, to, count, n1, n2, n3, s0, s1, s2, s3);
}}
"""
_OF_BYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}


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


def dense_routine(device: CudaDevice, item: int) -> Routine:
    """Copies a view of elements of so many bytes, as `gs_grid_dense` takes it, to where they follow
    each other."""
    return Routine(device, "dense", _DENSE, _OF_BYTES[item])


@record
class CudaUniform(Op):
    """A draw: (state, *sizes) -> floats, the same as everywhere."""

    definition: Uniform
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, dtype = self.device, self.definition.dtype
        kind, of_a_counter = ("double", 2) if dtype == "float64" else ("float", 4)
        kernel = Routine(device, "uniforms", _UNIFORMS, kind)

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
        item = np.dtype(node.dtype).itemsize
        kernel = Routine(device, "rows", _ROWS, _OF_BYTES[item])

        def run(*parts: Any) -> Any:
            shape = list(parts[0].shape)
            for x in parts[1:]:
                if x.ndim != len(shape) or any(
                    a != b for k, (a, b) in enumerate(zip(x.shape, shape)) if k != axis
                ):
                    return np.concatenate([device.host(x) for x in parts], axis)  # which says so
            shape[axis] = sum(x.shape[axis] for x in parts)
            out, start = device.empty(shape, node.dtype), 0
            apart = math.prod(shape[axis:])
            for x in parts:
                given = dense(device, x)
                inner = math.prod(x.shape[axis:])
                if given.size:
                    places = device.address(given), device.address(out) + start * item
                    kernel(given.size, *places, given.size, inner, apart)
                start += inner
            return out

        return run


def _rows_at(device: CudaDevice, places: Any, x: Any, positions: Sequence[Any]) -> Any:
    """The numbers of rows of x at positions, on the device, and the shape and width of all. Raises
    IndexError."""
    known: tuple[Any, ...] = ()

    def find(*at: Any) -> Any:
        nonlocal known
        rows, *known = places(shape, at)
        return rows

    shape = x.shape
    rows = by_numpy(device, find, positions)
    return device.array(rows), *known


@record
class CudaGather(Op):
    """Elements of a tensor at positions that the host knows: they are checked there."""

    definition: AdvancedSubtensor
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, places = self.device, places_of(self.definition.pattern, node.inputs[1:])
        definition = self.definition.evaluator(node)
        item = np.dtype(node.dtype).itemsize
        kernel = Routine(device, "gather", _GATHER, _OF_BYTES[item])

        def run(x: Any, *operands: Any) -> Any:
            try:
                rows, shape, wide = _rows_at(device, places, x, operands)
            except IndexError:
                return definition(*map(device.host, (x, *operands)))  # which says so
            out = device.empty(shape, node.dtype)
            if rows.size and wide:
                given = dense(device, x)
                addresses = [device.address(a) for a in (out, given, rows)]
                kernel(rows.size * wide, *addresses, rows.size, wide)
            return out

        return run


@record
class CudaScatter(Op):
    """Rows of floats that are added to rows, at positions that the host knows: they are checked
    there."""

    definition: AdvancedIncSubtensor
    device: CudaDevice

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        device, places = self.device, places_of(self.definition.pattern, node.inputs[2:])
        definition = self.definition.evaluator(node)
        kind = "double" if node.dtype == "float64" else "float"
        kernel = Routine(device, "scatter", _SCATTER, kind)

        def run(x: Any, y: Any, *operands: Any) -> Any:
            rows, shape, wide = _rows_at(device, places, x, operands)
            if tuple(y.shape) != shape:
                return definition(*map(device.host, (x, y, *operands)))
            out = copied(device, device.array(x))
            if rows.size and wide:
                given = dense(device, y)
                addresses = [device.address(a) for a in (out, given, rows)]
                kernel(wide, *addresses, rows.size, wide)
            return out

        return run
