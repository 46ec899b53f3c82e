"""What gpuscan costs beside the work itself: a call, and the way to the first call."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.runtime import compiler
from gpuscan.runtime.arrays import address

ROOT = Path(__file__).resolve().parents[1]

with_compiler = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)


def yardstick():
    """Python's work of 11.5 microseconds, on a quiet machine."""
    words = {}
    for i in range(100):
        words[i] = str(i)
    return sorted(words.values())


def microseconds(call):
    """Processor time of a call, the best of many rounds: other work only adds to it. Machines
    differ, so limits are up to twice what a quiet one takes; one that is slow for all of a test
    is known by Python's own work, done by turns, and the time is given as on a quiet one."""
    best, n = [float("inf")] * 2, 200
    for _ in range(50):
        for i, work in enumerate((call, yardstick)):
            began = time.process_time()
            for _ in range(n):
                work()
            best[i] = min(best[i], time.process_time() - began)
    found, slower = best[0] / n * 1e6, best[1] / n * 1e6 / 11.5
    return found / max(slower, 1)


@pytest.fixture
def on_the_host(device):
    if device not in ("reference", "native"):
        pytest.skip(f"{device} starts kernels")
    return device


def test_a_call_of_a_trivial_function_is_short(on_the_host):
    x = T.fvector("x")
    f = gpuscan.function([x], x + 1, device=on_the_host)
    value = np.zeros(4, "float32")
    assert microseconds(lambda: f(value)) < 20


def test_a_call_that_updates_a_shared_variable_is_short(on_the_host):
    x, s = T.fvector("x"), gpuscan.shared(np.zeros(4, "float32"))
    f = gpuscan.function([x], s, updates=[(s, s + x)], device=on_the_host)
    value = np.ones(4, "float32")
    assert microseconds(lambda: f(value)) < 25
    np.testing.assert_array_equal(s.get_value(), np.full(4, 50 * 200))


@with_compiler
def test_a_call_of_a_fused_chain_is_short():
    x = T.fvector("x")
    f = gpuscan.function([x], T.exp(x) * T.tanh(x) + 1, device="native")
    value = np.zeros(4, "float32")
    assert microseconds(lambda: f(value)) < 35


@with_compiler
def test_a_call_of_a_short_loop_is_short():
    e, y, a = T.fvector("e"), T.fscalar("y"), T.fscalar("a")
    ys, _ = gpuscan.scan(
        lambda e, y, a: a * y + e, sequences=e, outputs_info=y, non_sequences=a, n_steps=10
    )
    f = gpuscan.function([e, y, a], ys[-1], device="native")
    assert f.explain().scans[0].path == "fused"
    values = np.ones(10, "float32"), np.array(0, "float32"), np.array(1, "float32")
    assert f(*values) == 10
    assert microseconds(lambda: f(*values)) < 60


@with_compiler
def test_plans_of_calls_do_not_pile_up_and_do_not_mix():
    x, y = T.fmatrix("x"), T.fmatrix("y")
    loop, _ = gpuscan.scan(lambda r, a: a + r * y, sequences=x, outputs_info=T.zeros_like(y))
    f = gpuscan.function([x, y], [T.exp(x) * 2 + 1, loop[-1]], device="native")
    g = gpuscan.function([x, y], [T.exp(x) * 2 + 1, loop[-1]], device="reference")
    draws = np.random.default_rng(0)
    for rows in range(1, 90):
        a = draws.standard_normal((rows, 3)).astype("float32")
        b = draws.standard_normal((2, 3)).astype("float32")
        for u, v in ((a, b), (a[::-1], np.asfortranarray(b)), (np.asfortranarray(a), b[::-1])):
            for found, wanted in zip(f(u, v), g(u, v)):
                # NumPy adds up rows in the order in which they lie
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_address_is_where_the_data_are():
    a = np.arange(12.0).reshape(3, 4)
    b = np.zeros(())
    b.flags.writeable = False
    arrays = [a, a[1:, ::-2], a.T, b, np.empty((0, 3)), np.ma.masked_array(a)]
    assert [*map(address, arrays)] == [x.ctypes.data for x in arrays]


FIRST = """
import json, resource, time
import gpuscan
from benchmarks.cases import LSTM
lstm = LSTM(steps=5, batch=4, inputs=8, hidden=16, gradients=1)
begun = time.process_time()
run, f = lstm.ours("native")
run()
own = time.process_time() - begun
assert [s.path for s in f.explain().scans] == ["fused", "fused"]
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([own, children.ru_utime + children.ru_stime]))
"""


@with_compiler
def test_the_first_call_comes_soon(tmp_path):
    """An LSTM with all its gradients, from the first line of its definition to its first results,
    where nothing is cached and where the kernels are. By the clock of a quiet machine 1.5 and
    0.15 s; here processor time, the compiler's included, which a busy or slow one lengthens."""

    def seconds(cache):
        done = subprocess.run(
            [sys.executable, "-c", FIRST],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "GPUSCAN_CACHE_DIR": str(cache),
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPYCACHEPREFIX": str(tmp_path / "byte code"),
            },
            check=True,
        )
        return sum(json.loads(done.stdout))

    seconds(tmp_path / "warm")  # writes the byte code and the kernels
    assert min(seconds(tmp_path / f"cold {i}") for i in range(2)) < 3
    assert min(seconds(tmp_path / "warm") for _ in range(5)) < 0.35
