"""Device "pycuda": the real PyCUDA on a stand-in for the driver's library (kernels/
emulated_driver.cpp), each program in a process of its own. Its kernels are the texts that a GPU
runs, built by the host's compiler; what a GPU's driver would refuse, the stand-in refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from stand_in import build

import gpuscan
from gpuscan.runtime.device import no_gpu
from gpuscan.selftest import CASES

ROOT = Path(gpuscan.__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(900)  # the first test may have to build PyCUDA

START = """
import numpy as np, gpuscan
from gpuscan import tensor as T, function, scan
from gpuscan.codegen.program import Launch
from gpuscan.errors import DeviceError
from gpuscan.runtime import driver
from gpuscan.runtime.device import select

r = np.random.RandomState(0)
device = select("pycuda")

def elman(device, outputs=lambda hs, g: [hs, *g]):
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(lambda x, h, W: T.tanh(x + T.dot(h, W)), sequences=[X], outputs_info=[h],
                 non_sequences=[W])
    return function([X, h, W], outputs(hs, T.grad((hs[-1] ** 2).sum(), [X, h, W])), device=device)

def elman_values(n=6, batch=3, width=9):
    return [r.randn(*s).astype("f") * 0.3
            for s in ((n, batch, width), (batch, width), (width, width))]

def raised(call, *given, kind=DeviceError):
    try:
        call(*given)
    except kind as e:
        return str(e)
    raise AssertionError("nothing was raised")
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    try:
        return build.environment()
    except build.Missing as e:
        pytest.skip(f"no stand-in for the driver: {e}")


def run(environment: dict[str, str], program: str, *, start: str = START, **more: str) -> str:
    """What the program prints. Nothing goes to stderr: neither PyCUDA's nor the driver's words."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + textwrap.dedent(program)], cwd=ROOT,
        env={**environment, **more}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_memory_report_is_what_the_gpu_gives(environment: dict[str, str]) -> None:
    """But for what it rounds up, for a pool that gives multiples of 512 bytes."""
    program = """
        import gc
        from gpuscan import shared
        from gpuscan.runtime import calls, pycuda

        taken, make, drop = [0, 0], pycuda._Memory.__init__, pycuda._Memory.__del__

        def made(self, size):
            make(self, size)
            self.size, taken[0] = size, taken[0] + size
            taken[1] = max(taken)

        def dropped(self):
            taken[0] -= self.size
            drop(self)

        pycuda._Memory.__init__, pycuda._Memory.__del__ = made, dropped

        def check(f, big, small):
            predicted = f.memory_report(*[x.shape if x.dtype == "f" else x for x in big])
            f(*small)
            gc.collect()
            taken[1] = 0
            kept = f(*big)
            # pages are all calls', and stay
            pages = [*calls.dones.left.values(), *calls.meetings.left.values()]
            own = taken[1] - sum(page.nbytes for page, _ in pages)
            assert own > 500_000, taken
            assert 0 <= predicted.peak - own < 0.01 * own, f"{taken} {own} {predicted}"
            return predicted

        check(elman("pycuda"), elman_values(200, 16, 33), elman_values(3, 16, 33))
        x, i, w = T.matrix("x"), T.lvector("i"), shared(r.randn(300, 200).astype("f"), "w")
        rows = x[i]
        f = function([x, i], [T.join(0, x, x), T.inc_subtensor(rows, rows + 1)],
                     updates=[(w, w - 0.1 * T.grad(T.tanh(x @ w).sum(), w))], device="pycuda")
        x = r.randn(700, 300).astype("f")
        predicted = check(f, [x, np.arange(500)], [x[:4], np.arange(3)])
        assert 0 <= predicted.given - 4 * w.get_value().size < 512  # x is the host's
        print("same")
    """
    assert run(environment, program) == "same\n"


def test_it_is_pycuda_and_the_limits_are_what_the_driver_says(
    environment: dict[str, str],
) -> None:
    program = """
        import pycuda, pycuda.driver as drv
        from gpuscan.codegen.limits import of
        assert "gpuscan-ci" in pycuda.__file__ and drv.Device.count() == 1
        found, described = driver.limits(0), of("emulated")
        for name in described.__record__:
            if name not in ("name", "clock", "memory_rate"):
                assert getattr(found, name) == getattr(described, name), name
        print(found.name, f"{found.memory_rate / described.memory_rate:.2f}", driver.version())
        print(select("auto").name, select("cuda").name)
    """
    told = "emulated (fibers of the host) 1.00 (13, 0)\npycuda pycuda\n"
    assert run(environment, program) == told


@pytest.mark.parametrize("scope", ["block", "grid"])
def test_a_loop_and_its_gradient_equal_the_references(
    environment: dict[str, str], scope: str
) -> None:
    program = f"""
        type(device).scope = {scope!r}
        grids = []
        launch = driver.launch
        def seen(kernel, how, *rest):
            grids.append((how.scope, how.grid > 1 and how.cooperative))
            launch(kernel, how, *rest)
        driver.launch = seen
        for n, batch, width in [(6, 3, 9), (1, 1, 1), (17, 2, 33)]:
            values = elman_values(n, batch, width)
            for x, y in zip(elman("pycuda")(*values), elman("reference")(*values)):
                np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-5)
        print(sorted({{g for g in grids if g[0] in ("block", "grid")}}))
    """
    found = run(environment, program)
    assert f"('{scope}', {scope == 'grid'})" in found


def test_draws_are_the_same_bits(environment: dict[str, str]) -> None:
    program = """
        def draws(device):
            stream = T.shared_randomstreams.RandomStreams(7)
            x = T.vector("x")
            ys, updates = scan(lambda x: x + stream.uniform(size=(5,)), outputs_info=[x], n_steps=9)
            f = function([x], ys, updates=updates, device=device)
            return [f(np.zeros(5, "f")) for _ in range(3)]
        for x, y in zip(draws("pycuda"), draws("reference")):
            np.testing.assert_array_equal(x.view("u4"), y.view("u4"))
    """
    run(environment, program)


def test_a_training_step_reads_from_the_gpu_what_it_gives_and_no_more(
    environment: dict[str, str],
) -> None:
    """Its loops run all their steps, and no blocks meet: of them there is nothing to read."""
    program = """
        from gpuscan import optim, shared
        from gpuscan.runtime import pycuda
        read, get = [], pycuda._array_class().get
        pycuda._array_class().get = lambda x, *a, **b: read.append(x.shape) or get(x, *a, **b)
        X, U, V = T.tensor3("X"), shared(r.randn(9, 9).astype("f")), shared(np.ones((9, 2), "f"))
        h0 = shared(np.zeros((3, 9), "f"))
        hs, _ = scan(lambda x, h, U: T.tanh(x + T.dot(h, U)), X, h0, U)
        loss = T.sqr(hs.reshape((-1, 9)) @ V).mean()
        grads, norm = optim.clip_by_global_norm(T.grad(loss, [U, V]), 0.1)
        updates = {**optim.adam(grads, [U, V], 0.01), h0: hs[-1]}
        train = function([X], [loss, norm], updates=updates, device="pycuda")
        x = r.randn(5, 3, 9).astype("f")
        train(x)
        assert read == [(), ()], read
        train(x)  # written to a tape, with all numbers on the GPU
        read.clear()
        train(x)
        assert len(read) == 1, read  # both with one copy
        print("same")
    """
    assert run(environment, program) == "same\n"


def test_a_call_from_a_tape_takes_the_host_less_than_half_as_long(
    environment: dict[str, str],
) -> None:
    """Of what it takes but for the kernels, which are left out here."""
    program = """
        import time
        from gpuscan.runtime import calls, driver
        X, W, U = T.tensor3("X"), T.matrix("W"), T.matrix("U")

        def step(x, h, c, W):
            z = x + h @ W
            i, f, o, g = (z[:, 9 * k : 9 * k + 9] for k in range(4))
            c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
            return T.nnet.sigmoid(o) * T.tanh(c), c

        zeros = [T.zeros((X.shape[1], 9), "float32")] * 2
        (hs, _), _ = scan(step, X @ U, zeros, W)
        f = function([X, W, U], T.grad((hs[-1] ** 2).mean(), [W, U]), device="pycuda")
        given = [r.randn(*s).astype("f") for s in ((5, 3, 4), (9, 36), (4, 36))]
        for _ in range(3):
            f(*given)
        library = driver._driver()

        class Idle:
            def __getattr__(self, name):
                return getattr(library, name)
            def cuLaunchKernel(self, *given):
                return 0
            cuLaunchCooperativeKernel = cuLaunchKernel

        idle = Idle()
        driver._driver = lambda: idle
        calls.check_met = lambda *given: None

        def seconds(call):
            times = []
            for _ in range(60):
                start = time.perf_counter()
                call(*given)
                times.append(time.perf_counter() - start)
            return min(times)

        tapes = f._program.tapes
        taped = seconds(f)
        tapes.made, tapes.failed = {}, 100
        walked = seconds(f)
        assert taped < 0.5 * walked, (taped, walked)
        print("less", taped / walked)
    """
    assert run(environment, program).startswith("less")


def test_a_product_is_a_kernel_of_ours(environment: dict[str, str]) -> None:
    program = """
        from gpuscan.runtime.cuda import product
        for dtype, places in (("float32", 5), ("float64", 13)):
            for rows, depth, wide in [(1, 1, 1), (33, 7, 65), (32, 8, 32), (5, 0, 3), (0, 4, 2)]:
                x, y = (r.randn(*s).astype(dtype) for s in ((rows, depth), (depth, wide)))
                with device.active():
                    z = device.host(product(device, device.array(x), device.array(y)))
                    turned = np.transpose(device.array(np.array(y.T)))[::-1]
                    w = device.host(product(device, device.array(x), turned))
                assert z.dtype == w.dtype == dtype
                np.testing.assert_allclose(z, x @ y, atol=10.0**-places)
                np.testing.assert_allclose(w, x @ y[::-1], atol=10.0**-places)
    """
    run(environment, program)


def test_arrays_are_indexed_and_set_as_numpys(environment: dict[str, str]) -> None:
    program = """
        x = r.randn(4, 3, 2)
        with device.active():
            for index in [0, -1, (2, 1), (2, 1, 0), slice(1, 3), slice(0, 0), ..., (..., 1),
                          slice(None, None, -1), (slice(None), slice(2, 0, -1))]:
                y = device.array(x)
                view = y[index]
                assert view.shape == x[index].shape
                np.testing.assert_array_equal(device.host(view), x[index])
                z = x.copy()
                z[index] = value = r.randn(*view.shape)
                y[index] = value
                np.testing.assert_array_equal(device.host(y), z)
                np.testing.assert_array_equal(device.host(view.copy()), value)
            y[1] = 2.0
            y[2] = device.array(np.arange(2.0))
            y[3] = y[0, ::-1]  # of other strides
            np.testing.assert_array_equal(device.host(y)[3], device.host(y)[0, ::-1])
            np.testing.assert_array_equal(device.host(y)[1:3, 2], [[2, 2], [0, 1]])
            for turn in [np.transpose, lambda a: np.transpose(a, (2, 0, 1))[1],
                         lambda a: np.squeeze(a[:1, :, ::-1], 0), lambda a: np.reshape(a, (6, 4)),
                         lambda a: np.broadcast_to(a[1], (5, 3, 2)),
                         lambda a: np.reshape(np.transpose(a), (4, 6))]:
                x, view = turn(device.host(y)), turn(y)
                np.testing.assert_array_equal(device.host(view), x)
                np.testing.assert_array_equal(device.host(device.array(view)), x)
            assert np.shape(y) == (4, 3, 2)
            for dtype in ("?", "i2", "f"):
                x = r.randn(2, 3, 2, 3, 2).astype(dtype)
                view = np.transpose(device.array(x), (4, 0, 3, 1, 2))[:, ::-1]  # as it has 5 axes
                for found in (view, view[0]):
                    assert not found.flags.c_contiguous
                    wanted = x.transpose(4, 0, 3, 1, 2)[:, ::-1]
                    wanted = wanted if found is view else wanted[0]
                    np.testing.assert_array_equal(device.host(device.array(found)), wanted)
            none = device.empty((3, 0, 2), "float32")
            assert device.host(none[1]).shape == (0, 2) and device.address(none)
            assert device.host(device.array(np.float32(3))) == 3
    """
    run(environment, program)


def test_numbers_of_every_size_are_filled_in(environment: dict[str, str]) -> None:
    program = """
        copies = []
        uploaded, device.array = device.array, lambda x: copies.append(x.dtype) or uploaded(x)
        values = [("bool", True), ("int8", -3), ("uint16", 0xABCD), ("float32", -2.5),
                  ("int64", -1), ("float64", 0.0), ("float64", np.pi)]
        for dtype, value in values:
            for shape in ((5, 3), (), (0, 2)):
                with device.active():
                    x = device.empty(shape, dtype)
                    device.fill(x, value)
                    np.testing.assert_array_equal(
                        device.host(x), np.full(shape, value, dtype), strict=True)
        print(*map(str, copies))
    """
    # of 8 bytes only what has equal halves goes without a copy from the host
    assert run(environment, program).split() == ["float64"] * 3


def test_memory_goes_back_from_another_thread_than_its_own(environment: dict[str, str]) -> None:
    """PyCUDA itself keeps it, and warns."""
    program = """
        import threading, warnings
        from gpuscan import shared
        warnings.simplefilter("error")
        s = shared(np.zeros(1 << 20, "f"))
        f = function([], s.sum(), updates=[(s, s + 1)], device="pycuda")
        started = [threading.Thread(target=lambda: [f() for _ in range(9)]) for _ in range(3)]
        free = []
        for thread in started:  # each drops what the one before has made
            thread.start()
            thread.join()
            with device.active():
                free.append(device.drv.mem_get_info()[0])
        f()
        print(int(s.get_value()[0]), (free[0] - free[-1]) // s.get_value().nbytes < 8)
    """
    assert run(environment, program) == "28 True\n"


def test_what_does_not_fit_is_said_and_nothing_is_made_smaller(
    environment: dict[str, str],
) -> None:
    program = """
        source = '#include "persistent.h"\\n' + (
            'extern "C" __global__ void count(unsigned long long *n, long long *meeting) {\\n'
            '    atomicAdd(n, 1ull);\\n    gs_meet(meeting);\\n    atomicAdd(n, 1ull);\\n}\\n')
        def how(grid, block=64, shared=0, cooperative=True):
            return Launch("count", source, (), grid, block, shared, cooperative, "grid", "", 1)
        with device.active():
            kernel = device.build(source, "count")
            n, meeting = device.array(np.zeros(1, "u8")), device.array(np.zeros(48, "i8"))
            given = [device.address(n), device.address(meeting)]
            device.launch(kernel, how(16), given)
            assert device.host(n)[0] == 2 * 16 * 64
            print(raised(device.launch, kernel, how(17), given))
            print(raised(device.launch, kernel, how(9, shared=40000), given))
            print(raised(device.launch, kernel, how(1, block=65), given))
            print(raised(device.launch, kernel, how(1, shared=50000), given))
            assert device.host(n)[0] == 2 * 16 * 64
    """
    large, shared, block, memory = run(environment, program).splitlines()
    assert "its 17 blocks must run together, and emulated (fibers of the host) runs 16" in large
    assert "(4 on each of 4 multiprocessors" in large
    assert "runs 8 (2 on each" in shared and "40000 bytes shared" in shared
    for words in (block, memory):
        assert "does not fit a multiprocessor" in words
    for words in (large, shared, block, memory):
        assert "fuse='never' or device='native'" in words


def test_a_kernel_that_fails_is_named_with_the_way_out(environment: dict[str, str]) -> None:
    program = """
        source = '#include "persistent.h"\\n' + (
            'extern "C" __global__ void stuck(long long *n) {\\n'
            '    if (threadIdx.x < 3) __syncthreads();\\n'
            '    else while (!*n) gs_look((gs_u64 *)n);\\n}\\n')
        how = Launch("stuck", source, (), 1, 64, 0, False, "block", "", 0)
        with device.active():
            n = device.array(np.zeros(1, "i8"))
            print(raised(device.launch, device.build(source, "stuck"), how, [device.address(n)]))
        print(raised(device.build, source, "stuck"))
        with device.active():
            from gpuscan.errors import BuildError
            print(raised(device.build, source.replace("x <", "x ?"), "stuck", kind=BuildError))
    """
    found = run(environment, program)
    first, second, *rest = found.splitlines()
    assert first.startswith("kernel 'stuck' (grid 1, block 64) failed: CUDA_ERROR_LAUNCH_FAILED")
    assert "start the program again" in first
    assert "CUDA_ERROR_INVALID_CONTEXT" in second
    assert any(x.startswith("   2 extern") for x in rest)  # the numbered source


def test_memory_that_is_not_there_is_said_with_its_size(environment: dict[str, str]) -> None:
    program = """
        x, n = T.vector("x"), T.lscalar("n")
        ys, _ = scan(lambda y: y * 2, outputs_info=[x], n_steps=n)
        f = function([x, n], ys, device="pycuda")
        print(raised(f, np.ones(1000, "f"), 10**10))
        assert f(np.ones(3, "f"), 2).shape == (2, 3)
    """
    (line,) = run(environment, program).splitlines()
    assert "allocating 40000000000000 bytes on the GPU failed: MemoryError" in line
    assert "smaller batch" in line


def test_memory_goes_back_when_no_context_is_current_and_at_the_end(
    environment: dict[str, str],
) -> None:
    program = """
        import threading
        with device.active():
            kept = [device.array(np.ones(n, "f")) for n in (3, 1000)]
            dropped = device.array(np.ones(5, "f"))
            kept.append(kept[1][:10])
        del dropped  # with no context current
        del kept[1]
        f, values = elman("pycuda", lambda hs, g: hs), elman_values()
        expected, found = elman("reference", lambda hs, g: hs)(*values), []
        threads = [threading.Thread(target=lambda: found.append(f(*values))) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for x in found:
            np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
        with device.active():
            kept.append(device.array(np.ones(7, "f")))
        t = threading.Thread(target=kept.pop)  # made here, dropped there
        t.start()
        t.join()
        print(len(found))
    """
    assert run(environment, program) == "3\n"


def test_steps_are_graphs_and_not_a_bit_is_another(environment: dict[str, str]) -> None:
    program = """
        import gc
        from gpuscan.runtime import graphs
        from gpuscan.runtime.pycuda import _own
        graphs.KERNELS = 40
        calls = []
        class Recorder:
            def __init__(self, library):
                self.library = library
            def __getattr__(self, name):
                def call(*given):
                    calls.append(name)
                    return getattr(self.library, name)(*given)
                return call
        recorder = Recorder(driver._driver())
        driver._driver = lambda: recorder

        X, h, s, W = T.tensor3("X"), T.matrix("h"), T.vector("s"), T.matrix("W")
        def step(x, h, s, W):  # the last sum is by blocks that count each other
            h = T.tanh(x + T.dot(h, W) + s.sum())
            return h, T.tanh(s + (T.sin(T.dot(W, W) * s.sum()) / 100).sum())
        (hs, ss), _ = scan(step, sequences=[X], outputs_info=[h, s], non_sequences=[W])
        outputs = [hs, ss, ss[-1], *T.grad((hs[-1] ** 2).sum(), [X, h])]
        def made(outputs, device):
            return function([X, h, s, W], outputs, device=device, fuse="never")
        fs = made(outputs[:3], "pycuda"), elman("pycuda", fuse="never")
        references = made(outputs[:3], "reference"), elman("reference")
        for f in fs:
            assert all(p.graph_steps for p in f.explain().scans), str(f.explain())
        with device.active():
            blocks = _own.pool.active_blocks
        for n, batch, width in [(21, 3, 40), (21, 3, 40), (41, 1, 72), (41, 1, 72), (9, 3, 40)]:
            X_, h_, W_ = elman_values(n, batch, width)
            for f, reference, given in zip(
                fs, references, ((X_, h_, np.ones(2, "f") / 4, W_ / 3), (X_, h_, W_ / 3))
            ):
                found = f(*given)
                ahead, graphs.Graphs.ahead = graphs.Graphs.ahead, lambda *_: None
                wanted = f(*given)
                graphs.Graphs.ahead = ahead
                for x, y, z in zip(found, wanted, reference(*given)):
                    np.testing.assert_array_equal(x, y)
                    np.testing.assert_allclose(x, z, rtol=2e-4, atol=2e-4)
        for f in fs:
            assert all(p.graph_steps for p in f.explain().scans), str(f.explain())
        print(calls.count("cuGraphLaunch") > 15)
        made = calls.count("cuGraphInstantiateWithFlags")
        calls.clear()
        del f, fs, found, wanted
        gc.collect()
        print(made > 5, calls.count("cuGraphExecDestroy") == made)
        with device.active():
            print(_own.pool.active_blocks - blocks)
    """
    start = START.replace("device=device)", "device=device, fuse=fuse)").replace(
        "[hs, *g]):", '[hs, *g], fuse="auto"):'
    )
    assert run(environment, program, start=start) == "True\nTrue True\n0\n"


def test_what_is_recorded_is_refused_what_a_driver_refuses(environment: dict[str, str]) -> None:
    program = """
        import pycuda.driver as drv
        from gpuscan.errors import BuildError
        def recorded(call):
            with device.active():
                try:
                    with device.capture():
                        call()
                except (DeviceError, BuildError, drv.Error) as e:
                    return str(e)
        source = '#include "persistent.h"\\n' + (
            'extern "C" __global__ void one(long long *n) { *n = 1; }')
        how = Launch("one", source, (), 1, 32, 0, False, "launch", "", 0)
        with device.active():
            x, n = device.array(np.arange(6.0)), device.array(np.zeros(1, "i8"))
            kernel = device.build(source, "one")
        print(recorded(lambda: device.host(x)))
        print(recorded(lambda: x.get()))
        print(recorded(lambda: drv.memcpy_dtod(x.gpudata, x.gpudata, 8)))
        print(recorded(drv.Context.synchronize))
        print(recorded(lambda: drv.mem_alloc(8)))
        print(recorded(lambda: device.build(source.replace("1;", "2;"), "one")))
        with device.active():
            with device.capture() as graph:
                device.launch(kernel, how, [device.address(n)])
                y = device.empty((6,), "float64")  # may be allocated, by the way
                z = device.array(np.arange(6.0) + 7)  # and a host's array be taken
                y[:3], y[3:] = x[3:], z[:3]
            assert device.host(n)[0] == 0
            device.array(np.zeros(6))  # takes nothing that is the graph's
            for _ in range(2):
                z[...] = np.zeros(6)
                device.replay(graph)
                np.testing.assert_array_equal(device.host(y), [3, 4, 5, 7, 8, 9])
            print(device.host(n)[0], driver.current_context() != 0)
    """
    read, got, *refused, ended = run(environment, program).splitlines()
    assert read == got == "a value is read while a CUDA graph is recorded"
    assert len(refused) == 4
    assert all("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in words for words in refused)
    assert ended == "1 True"


def test_gpu_arrays_come_in_without_a_copy(environment: dict[str, str]) -> None:
    program = """
        import pycuda.autoprimaryctx
        from pycuda import gpuarray
        x = gpuarray.to_gpu(np.arange(6, dtype="f").reshape(2, 3))
        class Other:
            def __init__(self, **given):
                self.__cuda_array_interface__ = {**x.__cuda_array_interface__, **given}
        with device.active():
            assert device.address(device.array(x)) == x.ptr
            assert device.address(device.array(Other(stream=1))) == x.ptr
            turned = device.array(Other(strides=(4, 8), shape=(2, 3)))
            np.testing.assert_array_equal(device.host(turned), [[0, 2, 4], [1, 3, 5]])
            print(raised(device.array, "no array", kind=TypeError))
    """
    assert "can't take: copy it to the host" in run(environment, program)


def test_results_and_shared_values_stay_on_the_gpu_where_that_is_asked_for(
    environment: dict[str, str],
) -> None:
    program = """
        import pickle
        from pycuda.gpuarray import GPUArray
        x, W = T.matrix("x"), gpuscan.shared(np.eye(3, dtype="f"), "W")
        same, y = gpuscan.Out(x, borrow=True), gpuscan.Out(T.tanh(T.dot(x, W)), borrow=True)
        f = function([x], [same, y, y, x + 1], updates=[(W, W * 2)], device="pycuda")
        a, b, c, d = f(np.ones((2, 3), "f"))
        assert [isinstance(v, GPUArray) for v in (a, b, c, d)] == [True, True, True, False]
        assert len({a.ptr, b.ptr, c.ptr}) == 3
        np.testing.assert_array_equal(a.get(), np.ones((2, 3)))
        np.testing.assert_allclose(b.get(), np.tanh(np.ones((2, 3))), rtol=1e-6)
        again = f(a)[1]
        np.testing.assert_allclose(again.get(), np.tanh(2 * np.ones((2, 3))), rtol=1e-6)
        assert f(again)[0].ptr != again.ptr  # nobody else's memory

        held = W.get_value(borrow=True, return_internal_type=True)
        assert isinstance(held, GPUArray) and held is W.held
        assert W.get_value(return_internal_type=True).ptr != held.ptr
        np.testing.assert_array_equal(W.get_value(), 8 * np.eye(3))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(W)).get_value(), 8 * np.eye(3))
        W.set_value(again[:1], borrow=True)
        assert W.get_value(borrow=True, return_internal_type=True).ptr == again.ptr
        assert W.__cuda_array_interface__["stream"] == 1  # of which PyCUDA says nothing
        raised(W.__dlpack__, kind=BufferError)
        g = function([], W.sum(), device="reference")  # on the host it is copied there
        np.testing.assert_allclose(g(), 3 * np.tanh(2), rtol=1e-6)
        print(raised(W.set_value, again[0], kind=TypeError))
        print(raised(f, again[0], kind=TypeError))
        print(raised(function([x], x, device="reference"), a, kind=TypeError))
    """
    shared, given, *on_the_host = run(environment, program).splitlines()
    words = "expected a float32 matrix, got a float32 vector (3,) on a GPU, which is not converted"
    assert words in shared
    assert words in given and '"x" (index 0)' in given
    assert "which lives on a GPU: copy it to the host first (`.get()`)" in on_the_host[-1]


def test_the_selftest_is_passed(environment: dict[str, str]) -> None:
    program = """
        import sys
        from gpuscan.__main__ import main
        sys.exit(main(["selftest"]))
    """
    found = run(environment, program, start="")
    assert "pycuda on emulated (fibers of the host) (sm_90, 4 multiprocessors):\n" in found
    assert found.count(": right, ") == len(CASES) and found.endswith("\nall is well\n")


def test_nvrtc_compiles_beside_it(environment: dict[str, str]) -> None:
    program = """
        from gpuscan.runtime import nvrtc
        print(nvrtc.missing() or nvrtc.compile("extern \\"C\\" __global__ void k() {}", "sm_90"))
    """
    assert run(environment, program, GPUSCAN_CACHE_DIR="/nowhere/to/be/found")


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_one_line() -> None:
    program = "from gpuscan.runtime.device import missing; print(missing('pycuda'))"
    names = ("GPUSCAN_STAND_IN_DRIVER", "GPUSCAN_DEVICE")
    kept = {k: v for k, v in os.environ.items() if k not in names}
    assert run(kept, program, start="") == f"{no_gpu()}\n"


def test_minibatches_are_copied_while_the_gpu_works(environment: dict[str, str]) -> None:
    program = """
        import pycuda.gpuarray
        from gpuscan.data import prefetch
        source = [(np.full((3, 4), i, "f"), np.arange(i + 1)) for i in range(9)]
        with prefetch(source, 3, "pycuda") as batches:
            for (x, n), (x0, n0) in zip(batches, source, strict=True):
                assert isinstance(x, pycuda.gpuarray.GPUArray)
                np.testing.assert_array_equal(x.get(), x0)
                np.testing.assert_array_equal(n.get(), n0)
        values = elman_values()
        with prefetch([tuple(values)] * 2, device="pycuda") as batches:
            for batch in batches:
                for x, y in zip(elman("pycuda")(*batch), elman("reference")(*values)):
                    np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-5)
        for batch in prefetch(source, 3):
            break
    """
    assert run(environment, program) == ""
