"""Generated C under the address and undefined-behaviour sanitizers: in a process of its own,
whose NumPy arrays have red zones around them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gpuscan.runtime import compiler

TESTS = Path(__file__).resolve().parent
OPTIONS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g1"


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that builds and runs with sanitizers."""
    command = compiler.find()
    if command is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    text = subprocess.run(
        [*command, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not os.path.isabs(text):
        pytest.skip(f"{command[0]} has no libasan that a process can be started with")
    environment = {
        **os.environ,
        "CC": f"{' '.join(command)} {OPTIONS}",
        "LD_PRELOAD": os.path.realpath(text),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",  # the interpreter leaks
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "GPUSCAN_CACHE_DIR": os.environ.get("GPUSCAN_CACHE_DIR")
        or str(tmp_path_factory.mktemp("sanitized")),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    if run("print('started')", environment).stdout != "started\n":
        pytest.skip("this interpreter does not start with libasan")
    done = run("from gpuscan.runtime import compiler; compiler.library('int one;')", environment)
    if done.returncode:
        words = next(x for x in done.stderr.splitlines() if "BuildError" in x)
        pytest.skip(f"{command[0]} does not build with sanitizers: {words}")
    return environment


def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


PLANTED = """
    import ctypes, numpy as np
    from gpuscan.runtime import compiler
    library = compiler.library(
        "float beyond(const float *x, long long i) {{ return x[i]; }}"
        "int shifted(int x, int n) {{ return x << n; }}"
    )
    x = np.zeros(37, "float32")
    call = {call}
    print("ran on")
"""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("library.beyond(ctypes.c_void_p(x.ctypes.data), ctypes.c_longlong(37))",
         "heap-buffer-overflow"),
        ("library.shifted(1, 77)", "shift exponent"),
    ],
    ids=["address", "undefined"],
)  # fmt: skip
def test_a_planted_defect_is_found(sanitized: dict[str, str], call: str, words: str) -> None:
    done = run(PLANTED.format(call=call), sanitized)
    assert words in done.stderr
    assert done.returncode != 0
    assert "ran on" not in done.stdout


PROGRAM = """
    import test_native as t
    import test_native_steps as s
    from gpuscan import config
    from gpuscan.runtime import threads
    threads.WORTH_SHARING = 16  # shares of small work, too
    config.threads = 3
    for case in ("gibbs", "draws", "gathered", "written_into"):
        t.same(*t.both(t.EXACT[case])[:2])
    t.close(*t.both(t.CONTRACTED["lstm_gradients"])[:2])
    t.close(*t.both(t.CONTRACTED["sums"])[:2])
    for case in (s.over_rows, s.ragged, s.counted, s.three_deep, s.choices, s.embeddings,
                 s.scattered, s.softened, s.positions):
        t.same(*t.both(case)[:2])
    t.close(*t.both(s.nested_gradients)[:2])
    pair = t.loop_alone()
    for n, batch, width in [(0, 3, 3), (3, 0, 3), (3, 3, 0), (1, 1, 1), (4, 7, 33), (3, 13, 70)]:
        w = t.numbers(width, width) / max(1, width)
        for _ in range(3):
            t.agree(pair, t.numbers(n, batch, width), t.numbers(batch, width), w)
    for arrange in 3 * [*t.LAYOUTS.values()]:
        t.agree(pair, *(arrange(t.numbers(*s)) for s in ((6, 5, 4), (5, 4), (4, 4))))
    print("clean")
"""


def test_kernels_run_clean(sanitized: dict[str, str]) -> None:
    done = run(PROGRAM, sanitized)
    assert done.stdout == "clean\n", done.stderr[-6000:]
    assert "runtime error" not in done.stderr
