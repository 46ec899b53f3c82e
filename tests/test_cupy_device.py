"""Device "cupy" on a double (cupy_double.py)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cupy_double import CuPy, cupy_double, ndarray  # noqa: F401

import gpuscan
from gpuscan import function, scan
from gpuscan import tensor as T
from gpuscan.codegen.program import Launch
from gpuscan.data import prefetch
from gpuscan.errors import DeviceError
from gpuscan.runtime import cupy as cupy_device
from gpuscan.runtime import device as devices
from gpuscan.runtime import driver, graphs
from gpuscan.runtime.emulated import rounded

ROOT = Path(gpuscan.__file__).resolve().parents[1]


def elman(device: str) -> Any:
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(
        lambda x, h, W: T.tanh(x + T.dot(h, W)), sequences=[X], outputs_info=[h], non_sequences=[W]
    )
    gradients = T.grad((hs[-1] ** 2).sum(), [h, W])
    return function([X, h, W], [hs, *gradients, T.dot(h, W)], device=device)


def elman_values(n: int = 5, batch: int = 3, width: int = 9) -> list[np.ndarray]:
    r = np.random.RandomState(0)
    shapes = ((n, batch, width), (batch, width), (width, width))
    return [(r.randn(*s) * 0.3).astype("float32") for s in shapes]


# ---- results, and the calls that made them -------------------------------------------------------


@pytest.mark.parametrize("scope", ["block", "grid"])
def test_a_loop_and_its_gradient_equal_the_references(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    monkeypatch.setattr(cupy_device.CuPy, "scope", scope)
    values = elman_values()
    for x, y in zip(elman("cupy")(*values), elman("reference")(*values)):
        assert type(x) is np.ndarray
        np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-6)
    names = [c[0] for c in cupy.calls]
    assert ("cuLaunchCooperativeKernel" in names) == (scope == "grid")
    assert "gemmEx" in names


FAST = {"tf32": 77, "bf16": 75, "fp16": 74}  # cublasComputeType_t


@pytest.mark.parametrize("precision", FAST)
def test_products_outside_of_loops_round_their_factors_by_cublas(
    cupy: CuPy, precision: str
) -> None:
    """None copies a view that cuBLAS can read where it is. What the factors round to is summed up
    in float32, in any order."""
    x, y = T.matrix("x"), T.matrix("y")
    cases = [  # and how many operands have to be copied
        (T.dot(x, y), 0), (T.dot(y.T, x.T), 0), (T.dot(x.T, x), 0), (T.dot(y, y.T), 0),
        (T.dot(x[:, 1:4], y[1:4, :2]), 0), (T.dot(x.T[1:4], y.T[:2, :4].T), 0),
        (T.dot(x[:, :1], y[:1]), 0), (T.dot(x[1:2], y[:, 3:4]), 0), (T.dot(x[:, 2:3].T, x), 0),
        (T.dot(x[:, ::2], y[::2]), 1), (T.dot(x[::-1], y[:, ::-1]), 2),
    ]  # fmt: skip
    r = np.random.RandomState(3)
    given = [r.randn(*s).astype("f") for s in ((4, 5), (5, 6))]
    there = [cupy.asarray(v) for v in given]  # NumPy's views are made on the host
    for product, copies in cases:
        x_, y_ = (gpuscan.function([x, y], v, device="reference", on_unused_input="ignore")(*given)
                  for v in product.owner.inputs)  # fmt: skip
        with gpuscan.config.change_flags(dot_precision=precision):
            f = function([x, y], product, device="cupy", on_unused_input="ignore")
        cupy.calls.clear()
        found = f(*there)
        a, b = (rounded(v, precision).astype("d") for v in (x_, y_))
        np.testing.assert_allclose(
            found, a @ b, rtol=0, atol=8 * 2.0**-24 * (abs(a) @ abs(b)).max()
        )
        names = [c[0] for c in cupy.calls]
        assert [c[-2] for c in cupy.calls if c[0] == "gemmEx"] == [FAST[precision]]
        assert names.count("copy") == copies


def test_what_rounds_no_factor(cupy: CuPy) -> None:
    """Doubles, and nothing, for which cuBLAS is not called."""
    with gpuscan.config.change_flags(dot_precision="bf16"):
        for dtype, rows, depth, wide in [
            ("float64", 2, 3, 4), ("float32", 0, 3, 4), ("float32", 2, 0, 4), ("float32", 2, 3, 0),
        ]:  # fmt: skip
            x, y = T.matrix("x", dtype), T.matrix("y", dtype)
            f = function([x, y], T.dot(x, y), device="cupy")
            cupy.calls.clear()
            found = f(np.ones((rows, depth), dtype), np.ones((depth, wide), dtype))
            np.testing.assert_array_equal(found, np.full((rows, wide), depth, dtype))
            assert [c[-2] for c in cupy.calls if c[0] == "gemmEx"] == [70] * (dtype == "float64")
        with pytest.raises(ValueError):
            f(np.ones((2, 3), "f"), np.ones((4, 2), "f"))


def test_every_step_on_its_own_is_the_same(cupy: CuPy) -> None:
    X, h = T.matrix("X"), T.vector("h")
    hs, _ = scan(lambda x, h: T.tanh(T.sort(x + h)), sequences=[X], outputs_info=[h])  # on the host
    X_, h_ = np.arange(6, dtype="f").reshape(3, 2)[:, ::-1], np.zeros(2, "f")
    for values in ((X_, h_), (X_[:0], h_)):
        found, expected = (function([X, h], hs, device=d)(*values) for d in ("cupy", "reference"))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_current_stream_and_its_allocator_are_taken(cupy: CuPy) -> None:
    f, values = elman("cupy"), elman_values()
    expected = f(*values)
    cupy.calls.clear()
    cupy.stream = 0x7F00
    for x, y in zip(f(*values), expected):
        np.testing.assert_array_equal(x, y)
    assert {c[-1] for c in cupy.calls} == {0x7F00}
    launches = [c for c in cupy.calls if c[0].startswith("cuLaunch")]
    assert launches and all(c[9] == 0x7F00 for c in launches)
    assert not [c for c in cupy.calls if c[0].startswith(("cuMemAlloc", "cuMemcpyH", "cuStream"))]
    # what a kernel writes was allocated by CuPy before it was started, and read after it
    order = [c[0] for c in cupy.calls]
    first = order.index(launches[0][0])
    assert "allocate" in order[:first] and "to the host" in order[first:]
    assert "cuModuleLoadData" not in order  # a second call compiles and loads nothing


def test_a_constant_is_there_before_it_is_used_on_any_stream(cupy: CuPy) -> None:
    h, half = T.matrix("h"), np.full((9, 9), 0.5, "f")
    hs, _ = scan(lambda h: T.tanh(T.dot(h, half)), outputs_info=[h], n_steps=3)
    f, (_, h_, _) = function([h], [hs, h[0] + half], device="cupy"), elman_values()
    cupy.stream = 0x7F00
    f(h_)
    copies = [k for k, c in enumerate(cupy.calls) if c[:2] == ("to the GPU", half.nbytes)]
    assert len(copies) == 2  # of the loop, and of what is beside it
    for k in copies:
        assert cupy.calls[k + 1] == ("wait for the stream", 0x7F00, 0x7F00)
    cupy.calls.clear()
    cupy.stream = 0x7F10
    f(h_)
    assert not [c for c in cupy.calls if c[:2] == ("to the GPU", half.nbytes)]
    assert not [c for c in cupy.calls if c[0] == "wait for the stream"]


COUNT = """#include "persistent.h"
extern "C" __global__ void count(unsigned long long *n, long long *meeting) {
    atomicAdd(n, 1ull);
    gs_meet(meeting);
    atomicAdd(n, 1ull);
}
"""


def how(grid: int, shared: int = 0, cooperative: bool = True) -> Launch:
    return Launch("count", COUNT, (), grid, 64, shared, cooperative, "grid", "", 1)


def test_a_cooperative_grid_is_started_as_one_or_refused_and_never_made_smaller(
    cupy: CuPy,
) -> None:
    device = devices.select("cupy")
    with device.active():
        kernel = device.build(COUNT, "count")
        n, meeting = device.array(np.zeros(1, "u8")), device.array(np.zeros(48, "i8"))
        given = [device.address(n), device.address(meeting)]
        device.launch(kernel, how(16), given)
        (launch,) = [c for c in cupy.calls if c[0].startswith("cuLaunch")]
        assert launch[0] == "cuLaunchCooperativeKernel"
        assert launch[2:11] == (16, 1, 1, 64, 1, 1, 0, 0, given)
        with pytest.raises(DeviceError, match="its 17 blocks must run together.*runs 16"):
            device.launch(kernel, how(17), given)
        device.launch(kernel, how(1, cooperative=False), given)
    assert [c[0] for c in cupy.calls if c[0].startswith("cuLaunch")] == [
        "cuLaunchCooperativeKernel", "cuLaunchKernel",
    ]  # fmt: skip


def test_more_than_48_kib_of_shared_memory_is_asked_for_before(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = gpuscan.record.replace(driver.limits(0), shared_block=90 * 1024)
    kernel = driver.Loaded("count", 1, 32, 2048, limits)
    asked: list[Any] = []
    library = types.SimpleNamespace(
        cuFuncSetAttribute=lambda f, *rest: asked.append(("attribute", f.value, *rest)),
        cuLaunchKernel=lambda f, *rest: asked.append(("launch", f, rest[6])),
    )
    monkeypatch.setattr(driver, "_driver", lambda: library)
    driver.launch(kernel, how(1, 46 * 1024, cooperative=False), [1, 2], 0)
    driver.launch(kernel, how(1, 50 * 1024, cooperative=False), [1, 2], 0)
    assert asked == [
        ("launch", 1, 46 * 1024), ("attribute", 1, 8, 50 * 1024), ("launch", 1, 50 * 1024),
    ]  # fmt: skip


# ---- several GPUs --------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", ["auto", "never"])
def test_a_function_runs_on_the_device_that_is_current_in_a_call(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch, fuse: str
) -> None:
    """The double refuses kernels and memory of another device."""
    monkeypatch.setattr(cupy_device.CuPy, "scope", "grid")
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    half = np.full((9, 9), 0.5, "f")
    hs, _ = scan(lambda x, h, W: T.tanh(x * half[:3] + T.dot(h, W)), [X], [h], non_sequences=[W])
    y = T.concatenate([T.tanh(hs[-1] * half[:3]).cumsum(0), h])
    f, reference = (
        function([X, h, W], [hs, y], device=d, fuse=fuse) for d in ("cupy", "reference")
    )
    values, cupy.count = elman_values(33), 2
    expected = reference(*values)
    loaded, grids = [], []
    for cupy.device in (0, 1, 0, 1, 0, 1):
        cupy.calls.clear()
        for x, y in zip(f(*values), expected):
            np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-6)
        loaded.append(sum(c[0] == "cuModuleLoadData" for c in cupy.calls))
        grids.append([c[2] for c in cupy.calls if c[0] == "cuLaunchCooperativeKernel"])
    # what is made for one GPU serves its later calls; a graph is made in the second
    assert loaded[0] == loaded[1] > 0 and loaded[2:] == [0] * 4
    if fuse == "auto":
        most = [driver.limits(d).multiprocessors for d in (0, 1)]
        assert most[0] == 2 * most[1]  # and each GPU has its own limits
        for k, found in enumerate(grids):
            assert found == grids[k % 2] and max(found) <= most[k % 2]


@pytest.mark.parametrize("is_shared", [False, True])
def test_an_array_on_another_gpu_than_the_current_one_is_refused(
    cupy: CuPy, is_shared: bool
) -> None:
    cupy.count, x = 2, T.matrix("x")
    given = cupy.asarray(np.ones((2, 3), "f"))
    W = gpuscan.shared(given, borrow=True)
    f = function([], T.tanh(W), device="cupy") if is_shared else None
    g = function([x], T.tanh(x), device="cupy")
    cupy.device = 1
    words = r"is on GPU 0, and GPU 1 is CuPy's current device.*cupy\.cuda\.Device\(0\)"
    with pytest.raises(DeviceError, match=words):
        f() if f else g(given)
    cupy.device = 0
    np.testing.assert_allclose(f() if f else g(given), np.tanh(np.ones((2, 3))), rtol=1e-6)


# ---- graphs --------------------------------------------------------------------------------------


def steps(fuse: str = "never", outputs: Any = lambda hs, g: [hs, *g]) -> Any:
    """A loop whose step has products, a constant, views that are copied, and a kernel."""
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    half = np.full((9, 9), 0.5, "f")
    hs, _ = scan(
        lambda x, h, W: T.tanh(x + T.dot(h, W) + T.dot(T.as_tensor_variable(half), h.T).T),
        sequences=[X], outputs_info=[h], non_sequences=[W],
    )  # fmt: skip
    made = outputs(hs, T.grad((hs[-1] ** 2).sum(), [X, h, W]))
    return [function([X, h, W], made, device=d, fuse=fuse) for d in ("cupy", "reference")]


def test_steps_are_graphs_and_not_a_bit_is_another(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "KERNELS", 32)
    f, reference = steps()
    assert all(p.graph_steps for p in f.explain().scans), str(f.explain())
    for n, seed in ((21, 0), (40, 1), (40, 2), (7, 3), (19, 4), (40, 5)):
        values = [x + np.float32(seed / 9) for x in elman_values(n)]
        found = f(*values)
        with monkeypatch.context() as patch:
            patch.setattr(graphs.Graphs, "ahead", lambda *_: None)
            wanted = f(*values)
        for x, y, z in zip(found, wanted, reference(*values)):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_allclose(x, z, rtol=2e-4, atol=2e-5)
    assert all(p.graph_steps for p in f.explain().scans), str(f.explain())
    assert [c[0] for c in cupy.calls].count("cuGraphLaunch") > 10


def test_a_graph_runs_products_that_round_their_factors(cupy: CuPy) -> None:
    with gpuscan.config.change_flags(dot_precision="tf32"):
        f, reference = steps(outputs=lambda hs, _: [hs])
    values = elman_values(33)
    f(*values)
    cupy.calls.clear()
    (found,) = f(*values)
    names = [c[0] for c in cupy.calls]
    begin, end = (names.index(x) for x in ("cuStreamBeginCapture_v2", "cuStreamEndCapture"))
    recorded = [c for c in cupy.calls[begin:end] if c[0] == "gemmEx"]
    assert recorded and {c[-1] for c in recorded} == {cupy.calls[begin][1]}
    assert "cuGraphLaunch" in names
    (wanted,) = reference(*values)
    assert 1e-6 < np.abs(found - wanted).max() < 30 * 2.0**-11 * np.abs(wanted).max()


def test_where_cublas_can_not_be_recorded_steps_run_one_by_one(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, reference = steps(outputs=lambda hs, _: [hs])
    values = elman_values(33)
    gemm = cupy.cublasGemmEx
    monkeypatch.setattr(cupy, "cublasGemmEx", lambda *x: 14 if cupy.is_capturing() else gemm(*x))
    for _ in range(2):
        np.testing.assert_allclose(f(*values)[0], reference(*values)[0], rtol=2e-4, atol=2e-5)
    (plan,) = f.explain().scans
    assert plan.no_graph == "it can't be recorded: cuBLAS failed with status 14"


def test_a_graph_is_recorded_on_a_stream_of_its_own_and_started_on_the_current_one(
    cupy: CuPy,
) -> None:
    f, _ = steps(outputs=lambda hs, _: [hs])
    values = elman_values(33)
    f(*values), f(*values)
    cupy.stream = 0x7F00  # on another stream another graph: the first one's arrays may be in use
    f(*values)
    cupy.calls.clear()
    f(*values)
    names = [c[0] for c in cupy.calls]
    begin, end = (names.index(x) for x in ("cuStreamBeginCapture_v2", "cuStreamEndCapture"))
    stream = cupy.calls[begin][1]
    assert cupy.calls[begin][2] == 1  # what can't be recorded is refused, to this thread alone
    recorded = cupy.calls[begin:end]
    launches = [c for c in recorded if c[0] == "cuLaunchKernel"]
    assert launches and {c[9] for c in launches} == {stream}
    assert {c[-1] for c in recorded if c[0] == "gemmEx"} == {stream}
    # the host's constant goes to the GPU on the stream that is not recorded, while that may be
    for k, call in enumerate(cupy.calls):
        if begin < k < end and call[0] == "to the GPU":
            assert call[-1] == 0x7F00
            before = [c for c in cupy.calls[begin:k] if c[0].startswith("cuThreadExchange")]
            assert len(before) % 2 == 1
    assert not {"to the host", "cuModuleLoadData"} & set(names[begin:end])
    (instantiated,) = [c for c in cupy.calls if c[0] == "cuGraphInstantiateWithFlags"]
    launched = [c for c in cupy.calls if c[0] == "cuGraphLaunch"]
    assert launched and {c[2] for c in launched} == {0x7F00}
    gc.collect()  # what other tests have left
    cupy.calls.clear()
    f(*values)
    names = [c[0] for c in cupy.calls]
    assert names.count("cuGraphLaunch") == 1 and "cuLaunchKernel" not in names
    del f
    assert [c[0] for c in cupy.calls].count("cuGraphExecDestroy") == 2


def test_a_graphs_memory_is_the_current_allocators(cupy: CuPy) -> None:
    f, reference = steps(outputs=lambda hs, _: [hs])
    values = elman_values(33)
    pool, asked = cupy.cuda.MemoryPool(), []

    def malloc(size: int) -> Any:
        names = [c[0] for c in cupy.calls]
        begun, ended = (
            names.count(f"cuStream{x}Capture{v}") for x, v in (("Begin", "_v2"), ("End", ""))
        )
        asked.append((cupy.stream, begun > ended))
        return pool.malloc(size)

    cupy.stream = 0x7F00
    with cupy.using_allocator(malloc):
        f(*values)
        cupy.calls.clear()
        found = f(*values)
    assert "cuGraphLaunch" in [c[0] for c in cupy.calls]
    np.testing.assert_allclose(found[0], reference(*values)[0], rtol=2e-4, atol=2e-5)
    assert any(is_recording for _, is_recording in asked)
    assert {stream for stream, _ in asked} == {0x7F00}  # never the one that is recorded
    before = sum(map(len, pool.free.values()))
    del f  # with its graph
    gc.collect()
    assert sum(map(len, pool.free.values())) > before


def test_a_value_that_is_read_ends_the_recording(cupy: CuPy) -> None:
    device = devices.select("cupy")
    with device.active():
        x = device.array(np.ones(3, "f"))
        with pytest.raises(DeviceError, match="is read while"), device.capture():
            device.host(x)
        with pytest.raises(DeviceError, match="CAPTURE_INVALIDATED"), device.capture():
            cupy.library.cuMemAlloc_v2(ctypes.byref(ctypes.c_uint64()), 9)
        with pytest.raises(DeviceError, match="CAPTURE_INVALIDATED"), device.capture():
            cupy.library.cuCtxSynchronize()
        with device.capture() as graph:
            y = device.empty((3,), "float32")
            device.copy(y, x)
        device.replay(graph)
        np.testing.assert_array_equal(device.host(y), np.ones(3))


def test_garbage_waits_for_the_end_of_a_recording(cupy: CuPy) -> None:
    """Its memory would be given back within the capture, which ends that."""
    device = devices.select("cupy")
    with device.active():
        x = device.array(np.ones(3, "f"))
        for collects in (True, False):
            garbage = types.SimpleNamespace(held=cupy.cuda.MemoryPool(), freed=cupy.cuda.Stream())
            garbage.held.malloc(99)
            garbage.me = garbage
            del garbage
            before = gc.get_threshold()
            gc.set_threshold(1)
            if not collects:
                gc.disable()
            try:
                with device.capture() as graph:
                    y = device.empty((3,), "float32")
                    device.copy(y, x)
                    assert len([[] for _ in range(99)]) and not gc.isenabled()
                assert gc.isenabled() == collects
            finally:
                gc.set_threshold(*before)
                gc.enable()
            device.replay(graph)
            np.testing.assert_array_equal(device.host(y), np.ones(3))
            del graph, y  # not in the next one


# ---- arrays of others ----------------------------------------------------------------------------


def test_arrays_come_in_without_a_copy_and_what_computes_them_is_waited_for(cupy: CuPy) -> None:
    device = devices.select("cupy")
    own = cupy.asarray(np.arange(6, dtype="f").reshape(2, 3))

    class Interface:
        def __init__(self, stream: int | None = 5) -> None:
            self.__cuda_array_interface__ = {**own.__cuda_array_interface__, "stream": stream}

    class Dlpack:
        __dlpack__, __dlpack_device__ = own.__dlpack__, own.__dlpack_device__

    class GPUArray(Interface):
        __module__ = "pycuda.gpuarray"

    calls = {}
    for x in (own, Interface(), Dlpack(), GPUArray(None)):  # PyCUDA names no stream, ever
        cupy.calls.clear()
        with device.active():
            assert device.address(device.array(x)) == own.data.ptr
        calls[type(x).__name__] = [c[0] for c in cupy.calls if not c[0].startswith("cu")]
    assert calls == {
        "ndarray": [],
        "Interface": ["wait for stream"],
        "Dlpack": ["from_dlpack"],
        "GPUArray": ["wait for the stream"],
    }
    with device.active():
        turned = device.array(own[:, ::-1])
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(device.host(turned), [[2, 1, 0], [5, 4, 3]])


def test_results_and_shared_values_stay_on_the_gpu_where_that_is_asked_for(cupy: CuPy) -> None:
    x, W = T.matrix("x"), gpuscan.shared(np.eye(3, dtype="f"), "W")
    y = gpuscan.Out(T.tanh(T.dot(x, W)), borrow=True)
    f = function([x], [gpuscan.Out(x, borrow=True), y], updates=[(W, T.exp(W))], device="cupy")
    given = cupy.asarray(np.ones((2, 3), "f"))
    f(given)
    cupy.calls.clear()
    a, b = f(given)
    assert type(a) is type(b) is ndarray
    assert len({given.data.ptr, a.data.ptr, b.data.ptr}) == 3
    np.testing.assert_allclose(b.memory, np.tanh(np.e + 2 * np.ones((2, 3))), rtol=1e-6)
    assert not [c for c in cupy.calls if c[0] in ("to the GPU", "to the host")]
    held = W.get_value(borrow=True, return_internal_type=True)
    assert type(held) is ndarray
    np.testing.assert_allclose(W.get_value(), np.exp(np.exp(np.eye(3))), rtol=1e-6)
    W.set_value(b, borrow=True)
    assert W.held is b
    parts = function([x], [gpuscan.Out(x[1:], borrow=True)], device="cupy")(given)
    assert not any(np.shares_memory(p.memory, given.memory) for p in parts)
    with pytest.raises(TypeError, match=r"Implicit conversion|lives on a GPU"):
        function([x], x + 1, device="reference")(given)


class Tensor:
    """As PyTorch's on a GPU: both protocols, a dtype of its own, and not CuPy's methods."""

    dtype = "torch.float32"

    def __init__(self, x: ndarray) -> None:
        self.x = x

    def __dlpack__(self, **how: Any) -> Any:
        return self.x.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.x.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.x.__cuda_array_interface__


class Packed:
    """An array that has DLPack alone, and is converted where NumPy asks, as JAX's is."""

    def __init__(self, x: ndarray) -> None:
        self.__dlpack__, self.__dlpack_device__ = x.__dlpack__, x.__dlpack_device__

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a copy to the host that nobody asked for")


@pytest.mark.parametrize("kind", [Tensor, Packed])
def test_arrays_of_any_library_are_inputs_and_shared_values(cupy: CuPy, kind: Any) -> None:
    own = cupy.asarray(np.arange(6, dtype="f").reshape(2, 3))
    given, x = kind(own), T.matrix("x")
    s = gpuscan.shared(given, borrow=True)
    assert s.type == T.matrix().type and type(s.held) is ndarray
    assert s.held.data.ptr == own.data.ptr
    assert gpuscan.shared(given).held.data.ptr != own.data.ptr
    s.set_value(given)
    assert s.held.data.ptr != own.data.ptr
    s.set_value(given, borrow=True)
    assert s.held.data.ptr == own.data.ptr
    f = function([x], gpuscan.Out(x + s, borrow=True), device="cupy")
    cupy.calls.clear()
    np.testing.assert_array_equal(f(given).memory, 2 * own.memory)
    assert not [c for c in cupy.calls if c[0] in ("to the GPU", "to the host")]
    with pytest.raises(TypeError, match=f"got {kind.__name__}, which lives on a GPU"):
        function([x], x + 1, device="reference")(given)
    with pytest.raises(TypeError, match='"x".*expected a float32 matrix, got a float32 vector'):
        f(kind(own[0]))
    with pytest.raises(TypeError, match="expected a float32 matrix, got a float32 vector"):
        s.set_value(kind(own[0]), borrow=True)


def test_a_shared_value_on_the_gpu_is_given_to_others_without_a_copy(cupy: CuPy) -> None:
    s = gpuscan.shared(cupy.asarray(np.ones((2, 3), "f")), "s", borrow=True)
    place = s.held.data.ptr
    assert s.__dlpack_device__() == (2, 0)
    assert cupy.from_dlpack(s).data.ptr == cupy.asarray(s).data.ptr == place
    cupy.stream = 0x7F00
    assert s.__cuda_array_interface__["stream"] == 0x7F00
    with pytest.raises(TypeError, match=r"s is on a GPU: get_value\(\) copies it"):
        np.asarray(s)
    s.set_value(np.zeros((1, 1), "f"))
    assert s.__dlpack_device__() == (1, 0) and not hasattr(s, "__cuda_array_interface__")


def test_the_internal_value_is_the_gpus_where_functions_run_on_it(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    W, n = gpuscan.shared(np.eye(3, dtype="f")), gpuscan.shared(3)
    monkeypatch.setattr(gpuscan.config, "device", "native")
    assert type(W.get_value(return_internal_type=True)) is np.ndarray
    monkeypatch.setattr(gpuscan.config, "device", "cupy")
    held = W.get_value(borrow=True, return_internal_type=True)
    assert type(held) is ndarray and held is W.held
    assert W.get_value(return_internal_type=True).data.ptr != held.data.ptr
    np.testing.assert_array_equal(W.get_value(), np.eye(3))
    assert n.get_value(return_internal_type=True) == 3 and type(n.held) is np.ndarray  # it steers


# ---- what can go wrong ---------------------------------------------------------------------------


def test_each_reason_why_it_is_not_there_is_one_line_with_the_way_out(cupy: CuPy) -> None:
    def reason() -> str:
        cupy_device.missing.cache_clear()
        found = devices.missing("cupy")
        assert "\n" not in found
        return found

    assert reason() == ""
    cupy.__version__ = "11.6.0"
    assert reason().startswith("CuPy 11.6.0 is too old, 12 is needed: pip install cupy-cuda13x")
    cupy.__version__, cupy.count = "13.0.0", 0
    assert reason() == "CuPy finds no GPU"
    cupy.broken = cupy.cuda.runtime.CUDARuntimeError(
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient\nfor CUDA runtime version"
    )
    words = "CuPy fails: cudaErrorInsufficientDriver: CUDA driver version is insufficient. "
    assert reason().startswith(words + "The driver is for CUDA 13.0: pip install cupy-cuda13x")
    frame = "=" * 64
    words = "libnvrtc.so.12: cannot open shared object file"
    cupy.broken = ImportError(f"\n{frame}\nFailed to import CuPy.\n\n{words}\n{frame}\n")
    assert reason().startswith(f"CuPy fails: {words}. ")
    cupy.broken = ImportError(f"\n{frame}\nFailed to import CuPy.\n\nCheck the wheel.\n{frame}\n")
    cupy.broken.__cause__ = ImportError(words)  # as CuPy raises it
    assert reason().startswith(f"CuPy fails: {words}. ")
    cupy.cuda.runtime.is_hip, cupy.broken = True, None
    assert "AMD" in reason()
    with pytest.raises(DeviceError, match="device 'cupy' is not available: this CuPy is for AMD"):
        devices.select("cupy")


def test_a_kernel_that_gave_up_waiting_is_an_error_and_no_result(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose meeting fails: it leaves and has not said how many steps it ran."""
    monkeypatch.setattr(driver, "launch", lambda *_: None)
    monkeypatch.setattr(cupy_device.CuPy, "scope", "grid")
    total, index = gpuscan.shared(np.float32(1), name="total"), T.lscalar("index")
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(lambda x, h, W: T.tanh(x + T.dot(h, W)), [X], [h], non_sequences=[W])
    updates = {total: total + hs.sum()}
    f = function([X, h, W, index], gpuscan.Out(hs[-1, index], True), updates=updates, device="cupy")
    for k in (0, 99):  # an index is wrong in what is no result
        with pytest.raises(DeviceError, match=r"'loop_0'.*waited in vain.*fuse='never'"):
            f(*elman_values(), k)
    assert total.get_value() == 1


@pytest.mark.parametrize("scope", ["block", "grid"])
def test_the_host_waits_for_loops_at_the_end_of_a_call_if_at_all(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Where blocks meet it reads whether all did; other loops can't fail. How far one
    came that may stop is read at once."""
    monkeypatch.setattr(cupy_device.CuPy, "scope", scope)
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(lambda x, h, W: T.tanh(x + T.dot(h, W)), [X], [h], non_sequences=[W])
    borrowed = [gpuscan.Out(g, borrow=True) for g in T.grad((hs[-1] ** 2).sum(), [h, W])]
    f = function([X, h, W], borrowed, device="cupy")
    given = [cupy.asarray(x) for x in elman_values()]
    f(*given)
    cupy.calls.clear()
    f(*given)
    names = [c[0] for c in cupy.calls]
    loops = [k for k, name in enumerate(names) if name.startswith("cuLaunch")]
    reads = [k for k, name in enumerate(names) if name == "to the host"]
    assert len(reads) == (2 if scope == "grid" else 0)
    assert all(k > max(loops) for k in reads)
    until, _ = scan(lambda h: (h * 2, gpuscan.until(h[0, 0] > 9)), outputs_info=[h], n_steps=30)
    g = function([h], gpuscan.Out(T.exp(until), borrow=True), device="cupy")
    cupy.calls.clear()
    ones = cupy.asarray(np.ones((3, 9), "f"))
    assert len(g(ones)) == 5
    names = [c[0] for c in cupy.calls]
    assert names.index("to the host") < max(k for k, n in enumerate(names) if "cuLaunch" in n)


def test_what_cupy_raises_in_a_call_is_a_device_error(cupy: CuPy) -> None:
    f, values = elman("cupy"), elman_values()
    f(*values)
    given = cupy.asarray(np.eye(3, dtype="f"))
    words = "an illegal memory access was encountered"
    cupy.broken = cupy.cuda.runtime.CUDARuntimeError(f"cudaErrorIllegalAddress: {words}")
    with pytest.raises(DeviceError, match=f"{words}.*start the program again"):
        f(*values)
    cupy.broken = cupy.cuda.memory.OutOfMemoryError("Out of memory allocating 9 bytes")
    with pytest.raises(DeviceError, match="allocating memory on the GPU failed.*9 bytes.*batch"):
        f(*values)
    cupy.broken = cupy.cuda.cublas.CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    x = T.matrix("x")
    with pytest.raises(DeviceError, match="cuBLAS failed.*CUBLAS_STATUS_NOT_INITIALIZED"):
        function([x], gpuscan.Out(T.dot(x, x), borrow=True), device="cupy")(given)
    cupy.broken = None
    f(*values)


def test_a_cleanup_that_fails_is_an_error_and_replaces_none(cupy: CuPy) -> None:
    device, recorder = devices.select("cupy"), driver._driver()

    def record(error: Exception | None = None) -> Any:
        with device.active(), device.capture() as graph:
            device.empty((3,), "float32")
            if error is not None:
                raise error
        return graph

    for call, doing in (
        ("cuThreadExchangeStreamCaptureMode", "pausing a capture"),
        ("cuGraphDestroy", "giving back a CUDA graph"),
    ):
        recorder.failing = {call}
        with pytest.raises(DeviceError, match=f"{doing} failed: CUDA_ERROR_INVALID_CONTEXT"):
            record()
    recorder.failing = {"cuStreamDestroy_v2"}
    with pytest.raises(DeviceError, match="giving back a stream failed"), driver.own_stream():
        pass
    error = ValueError("of a step")
    with pytest.raises(ValueError, match="of a step") as found, driver.own_stream():
        raise error
    assert "giving back a stream failed, too" in found.value.__notes__[0]
    recorder.failing = {"cuGraphDestroy"}
    with pytest.raises(ValueError, match="of a step") as found:
        record(ValueError("of a step"))
    assert "giving back a CUDA graph failed, too" in found.value.__notes__[0]
    recorder.failing = set()
    graph = record()
    recorder.failing = {"cuGraphExecDestroy"}
    with pytest.warns(ResourceWarning, match="cuGraphExecDestroy failed"):
        del graph  # where nothing can be raised
    recorder.failing = {"cuDriverGetVersion"}
    with pytest.raises(DeviceError, match="asking for the driver's version failed"):
        driver.version()


@pytest.mark.skipif(not devices.no_gpu(), reason="there is a GPU")
def test_without_a_gpu_it_is_not_imported_and_the_reason_takes_no_time() -> None:
    names = ("GPUSCAN_STAND_IN_DRIVER", "GPUSCAN_DEVICE")
    kept = {k: v for k, v in os.environ.items() if k not in names}
    program = """
import sys, time, gpuscan
from gpuscan.runtime.device import missing, no_gpu, select
x = gpuscan.tensor.vector("x")
before = set(sys.modules)
start = time.perf_counter()
reason = no_gpu()
seconds = time.perf_counter() - start
assert missing("cupy") == missing("cuda") == reason, missing("cuda")
assert set(sys.modules) == before
assert seconds < 1e-3, seconds
gpuscan.function([x], x + 1)([1])
assert not {"cupy", "pycuda", "gpuscan.runtime.driver", "gpuscan.runtime.cupy"} & set(sys.modules)
print(reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=kept, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == f"{devices.no_gpu()}\n"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_that_are_hidden_are_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.delenv("GPUSCAN_STAND_IN_DRIVER", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with contextlib.suppress(ValueError):
        assert devices.missing("cuda") == "no GPU: CUDA_VISIBLE_DEVICES hides all"


# ---- minibatches ---------------------------------------------------------------------------------


def test_minibatches_go_through_page_locked_memory_on_a_stream_of_their_own(cupy: CuPy) -> None:
    source = [(np.full((3, 4), i, "f"), np.arange(i, i + 5)) for i in range(6)]
    cupy.stream = 0x7F00
    with prefetch(source, 2, "cupy") as batches:
        for (x, n), (x0, n0) in zip(batches, source, strict=True):
            assert type(x) is type(n) is ndarray
            np.testing.assert_array_equal(x.memory, x0)
            np.testing.assert_array_equal(n.memory, n0)
    calls = {name: [c for c in cupy.calls if c[0] == name] for name in {c[0] for c in cupy.calls}}
    assert not calls.get("to the GPU") and not calls.get("cuMemcpyHtoD_v2")
    assert 4 <= len(calls["cuMemHostAlloc"]) <= 6 < len(source) * 2  # used again
    copies = calls["cuMemcpyHtoDAsync_v2"]
    assert len(copies) == len(source) * 2
    (own,) = {c[4] for c in copies}
    assert own not in (0, 0x7F00, None)
    # a copy waits for what was on the stream where its memory is from, and is waited for
    order = [c for c in cupy.calls if c[0].startswith(("cuEvent", "cuStreamWait", "cuMemcpy"))]
    order = [c for c in order if c[0] not in ("cuEventCreate", "cuEventDestroy_v2")]
    i = order.index(copies[0])
    names = ["cuEventRecord", "cuStreamWaitEvent", "cuMemcpyHtoDAsync_v2", "cuEventRecord"]
    assert [c[0] for c in order[i - 2 : i + 2]] == names
    before, waiting, _, copied = order[i - 2 : i + 2]
    assert before[2] == 0x7F00 and waiting[1:3] == (own, before[1]) and copied[2] == own
    assert ("cuEventSynchronize", copied[1], 0x7F00) in order


def test_minibatches_are_for_the_gpu_where_they_began(cupy: CuPy) -> None:
    cupy.count = 2
    with prefetch([np.ones(3, "f")] * 3, 2, "cupy") as batches:
        assert next(batches).memory.sum() == 3
        cupy.device = 1
        with pytest.raises(DeviceError, match="the GPU that was current when prefetch"):
            next(batches), next(batches)


def test_what_minibatches_took_of_the_driver_is_given_back(cupy: CuPy) -> None:
    for x in prefetch([np.ones(3, "f")] * 3, 2, "cupy"):
        assert x.memory.sum() == 3
    del x
    gc.collect()
    count = {n: sum(c[0] == n for c in cupy.calls) for n in {c[0] for c in cupy.calls}}
    for made, given_back in (
        ("cuMemHostAlloc", "cuMemFreeHost"),
        ("cuStreamCreate", "cuStreamDestroy_v2"),
        ("cuEventCreate", "cuEventDestroy_v2"),
    ):
        assert count[made] == count[given_back] > 0


def test_a_function_takes_a_minibatch_where_it_is(cupy: CuPy) -> None:
    values = elman_values()
    expected = elman("cupy")(*values)
    f = elman("cupy")
    with prefetch([tuple(values)], device="cupy") as batches:
        for batch in batches:
            cupy.calls.clear()
            for x, y in zip(f(*batch), expected):
                np.testing.assert_array_equal(x, y)
    taken = {c[1] for c in cupy.calls if c[0] == "to the GPU"}
    assert not taken & {values[0].nbytes, values[2].nbytes}
