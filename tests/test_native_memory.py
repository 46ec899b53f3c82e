"""The memory that kernels use again: who has it, and what may come between."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest
from test_native import numbers

from gpuscan import Out, function, scan, shared
from gpuscan import tensor as T
from gpuscan.runtime import compiler, memory


def address(array: Any) -> int:
    return int(array.ctypes.data)


def test_a_block_serves_again_when_no_view_of_its_array_is_left() -> None:
    memory.free()
    a = memory.empty((200, 200), "float32")
    where = address(a)
    assert where % memory.LINE == 0
    views = [a[3:].T, memoryview(a), a.reshape(-1)[::2], np.asarray(a.view("int32"))]
    del a
    while views:
        assert address(memory.empty((200, 200), "float32")) != where
        views.pop()
    assert address(memory.empty((200, 200), "float32")) == where
    assert address(memory.empty((180, 200), "float32")) == where  # of about its size
    assert address(memory.empty((90, 200), "float32")) != where


def test_blocks_that_serve_nothing_are_given_back() -> None:
    memory.free()
    kept = memory.empty((200, 200), "float32")
    memory.empty((900, 200), "float32")
    for _ in range(1200):
        memory.empty((300, 300), "float64")
    assert len(memory._pool.blocks) == 1
    assert memory.is_its_own(kept)


def test_a_request_in_the_middle_of_another_gets_memory_of_its_own() -> None:
    """As from a signal's function, or a destructor that the garbage collector calls."""
    free = memory.empty((200, 200), "float32")
    where = address(free)
    del free
    with memory._pool.lock:
        assert address(memory.empty((200, 200), "float32")) != where
    assert address(memory.empty((200, 200), "float32")) == where


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_is_forked_while_another_thread_has_the_pool() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with memory._pool.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        try:
            first = address(memory.empty((200, 200), "float32"))
            os._exit(address(memory.empty((200, 200), "float32")) != first)
        finally:
            os._exit(2)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_memory_that_is_short_is_taken_from_blocks_that_serve_nothing() -> None:
    resource = pytest.importorskip("resource")
    assert resource
    code = """
        import resource
        from gpuscan.runtime import memory

        memory.empty((64 << 20,), "uint8").fill(1)
        with open("/proc/self/statm") as f:
            now = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (32 << 20),) * 2)
        print(memory.empty((85 << 20,), "uint8").nbytes >> 20)
    """
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not say how much memory a process has")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "85\n"), done.stderr


@pytest.mark.skipif(compiler.find() is None, reason="no C compiler")
def test_results_that_are_kept_are_not_written_to_by_later_calls() -> None:
    s = shared(numbers(200, 200), "s")
    x, w = T.tensor3("x"), T.matrix("w")
    h, _ = scan(lambda x, h: T.tanh(x + h * 0.5), x, s)
    y = x.dot(w)
    outputs = [h, h[-1], h[2], h[1:].dimshuffle(0, 2, 1), Out(y, borrow=True), y, y[0], s, x, x.T]
    f = function([x, w], outputs, updates=[(s, h[-1])], device="native")
    g = pickle.loads(pickle.dumps(f))
    kept: list[tuple[Any, Any]] = []
    rng = np.random.default_rng(0)
    previous = numbers(3, 200, 200)
    for k in range(60):
        # results of earlier calls are given again: themselves, views, and as shared variables
        given = previous if k % 3 else kept[rng.integers(len(kept))][0] if kept else previous
        if given.shape != (3, 200, 200):
            given = numbers(3, 200, 200, seed=k)
        if k % 7 == 6:
            s.set_value(given[0], borrow=True)
        held = [given, s.get_value(borrow=True)]
        found = (g if k % 5 == 4 else f)(given, numbers(200, 200, seed=k))
        previous = found[0][::-1] if k % 2 else found[0]
        held.append(s.get_value(borrow=True))
        arrays = [*found, *(a for a, _ in kept)]
        for i, a in enumerate(found):
            assert not any(np.shares_memory(a, b) for b in arrays[:i] + arrays[i + 1 : len(found)])
            assert not any(np.may_share_memory(a, b) for b in held)
        kept += [(a, a.copy()) for a in found]
        for a, copy in kept:
            np.testing.assert_array_equal(a, copy)
        found[int(rng.integers(len(found)))].fill(k)
        kept = [kept[i] for i in rng.permutation(len(kept))[:12]]
        kept = [(a, a.copy()) for a, _ in kept]
        del found, arrays, a, held
        gc.collect(0)
