"""Workers that share the units of a step: the stages are such that no result depends on how many
there are, and the team that they come from is free of races."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from strategies import DERIVATIVES, Case, assert_same, cells
from test_native import numbers

import gpuscan
from gpuscan import config, function, scan
from gpuscan import tensor as T
from gpuscan.kernel_files import kernels_dir
from gpuscan.runtime import compiler, plans, threads
from gpuscan.tensor.random import RandomStreams

X, H, W, V = T.tensor3("x"), T.matrix("h"), T.matrix("W"), T.matrix("V")


@contextmanager
def units_are_shared() -> Iterator[list[bool]]:
    """Also where it would not be worth it. Gives whether the workers of each run met."""
    met: list[bool] = []
    run = threads.run

    def watched(kernel: int, shares: threads.Shares, *rest: Any) -> int:
        met.append(shares.meet)
        return run(kernel, shares, *rest)

    with (
        mock.patch.multiple(plans, WORTH_MEETING=0, FEW_ROWS=1000),
        mock.patch.object(plans.LoopPlan, "_faster", lambda self, units, rows: units),
        mock.patch.object(threads, "run", watched),
    ):
        yield met


def by_threads(f: Any, *values: Any, counts: tuple[int, ...] = (1, 2, 3)) -> list[Any]:
    """What f gives with some numbers of threads; with more than one, workers met."""
    found = []
    for count in counts:
        with config.change_flags(threads=count), units_are_shared() as met:
            found.append(f(*values))
        assert any(met) == (count > 1)
    return found


def equal(found: list[Any]) -> None:
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def lstm(n: int) -> Any:
    def step(x: Any, h: Any, c: Any, U: Any) -> Any:
        z = x + T.dot(h, U)
        i, f, o = (T.nnet.sigmoid(z[:, k * n : (k + 1) * n]) for k in (0, 1, 3))
        c = f * c + i * T.tanh(z[:, 2 * n : 3 * n])
        return o * T.tanh(c), c

    (h, c), _ = scan(step, sequences=X, outputs_info=[H, H], non_sequences=W)
    return [X, H, W], [h, c[-1], *T.grad((h * h).sum(), [H, W])]


def test_the_faster_way_is_taken(monkeypatch: Any) -> None:
    inputs, outputs = lstm(150)
    f = function(inputs, outputs[:1], device="native")
    values = numbers(9, 1, 600), numbers(1, 150), numbers(150, 600) / 10
    took = plans.LoopPlan.took
    slow = [True]

    def watched(self: Any, split: Any, seconds: float) -> None:
        ways.append(split.shares.meet)
        took(self, split, 1.0 if split.shares.meet == slow[0] else 0.001)

    ways: list[bool] = []
    monkeypatch.setattr(plans, "WORTH_MEETING", 0)
    monkeypatch.setattr(plans.LoopPlan, "took", watched)
    with config.change_flags(threads=2):
        found = [f(*values) for _ in range(40)]
        assert [k for k, met in enumerate(ways) if met] == [0, 1, 4, 8, 16, 32]
        slow[0] = False  # the other work ends: seen when it is tried again
        found += [f(*values) for _ in range(100)]
    assert ways[75:120] == [True] * 45
    equal([[x] for x in found])


def test_an_lstm_of_one_row_meets_once_a_step() -> None:
    inputs, outputs = lstm(150)
    f = function(inputs, outputs[:1], device="native")
    (plan,) = f.explain().scans
    assert (plan.path, plan.scope, plan.stages) == ("fused", "block", 1)
    values = numbers(9, 1, 600), numbers(1, 150), numbers(150, 600) / 10
    equal(by_threads(f, *values))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("hidden", [100, 150, 200])
def test_an_lstm_and_its_gradients(batch: int, hidden: int) -> None:
    inputs, outputs = lstm(hidden)
    f = function(inputs, outputs, device="native")
    values = (
        numbers(9, batch, 4 * hidden), numbers(batch, hidden), numbers(hidden, 4 * hidden) / 10,
    )  # fmt: skip
    equal(by_threads(f, *values))
    for got, wanted in zip(f(*values), function(inputs, outputs, device="reference")(*values)):
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_gibbs_sampling_meets_twice_a_step() -> None:
    def made() -> Any:
        random = RandomStreams(3)

        def step(v: Any) -> Any:
            h = random.binomial(size=(1, 150), p=T.nnet.sigmoid(v @ W), dtype="float32")
            return random.binomial(size=(1, 210), p=T.nnet.sigmoid(h @ W.T), dtype="float32")

        v, updates = scan(step, outputs_info=[H], n_steps=30)
        return function([H, W], v, updates=updates, device="native")

    f = made()
    (plan,) = f.explain().scans
    assert (plan.path, plan.stages) == ("fused", 2)
    values = np.ones((1, 210), "float32"), numbers(210, 150)
    found = [by_threads(made(), *values, counts=(n,))[0] for n in (1, 2, 3)]
    equal([[x] for x in found])
    assert 0.05 < found[0].mean() < 0.95


def test_units_that_are_the_rows_are_shared_out_with_them() -> None:
    """A move that each row accepts or not: the rows' vectors are units too. Workers that share
    rows once had all of these, beyond the ends of their arrays."""
    level = T.vector("level")

    def step(h: Any, level: Any, W: Any) -> Any:
        new = h * 0.5
        energy = T.sqr(T.dot(new, W)).sum(axis=1)
        taken = energy < level
        return T.switch(taken[:, None], new, h), T.switch(taken, energy, level)

    (h, after), _ = scan(step, outputs_info=[H, level], non_sequences=W, n_steps=6)
    f = function([H, level, W], [h[-1], after], device="native")
    # eighths, whose products and sums are exact in any order
    rng = np.random.default_rng(0)
    values = [rng.integers(-8, 9, shape) / 8 for shape in ((30, 32), (30,), (32, 256))]
    values[1] = values[1] * 400 + 400
    values = [v.astype("float32") for v in values]
    expected = function([H, level, W], [h[-1], after], device="reference")(*values)
    assert 0 < (expected[1][0] != values[1]).mean() < 1
    with config.change_flags(threads=3), mock.patch.object(threads, "WORTH_SHARING", 0):
        watched = mock.patch.object(threads, "run", wraps=threads.run)
        with mock.patch.object(plans.LoopPlan, "_faster", lambda self, units, rows: rows), watched:
            found = f(*values)
            shares = threads.run.call_args.args[1]  # type: ignore[attr-defined]
            assert shares.count == 3 and not shares.meet
    equal([expected, found])
    equal([expected, *by_threads(f, *values)])


def test_rows_that_need_each_other_are_a_grid() -> None:
    step = lambda h, W: T.tanh(h @ W + h.mean(axis=0))  # noqa: E731
    h, _ = scan(step, outputs_info=[H], non_sequences=[W], n_steps=7)
    f = function([H, W], [h, h[-1]], device="native")
    (plan,) = f.explain().scans
    assert (plan.scope, plan.stages) == ("grid", 1), plan
    equal(by_threads(f, numbers(5, 170), numbers(170, 170) / 10))


@pytest.mark.parametrize("op", ["softmax", "logsoftmax", "cumsum"])
def test_what_needs_whole_operands_is_each_workers_own(op: str) -> None:
    """Also where it starts from a copy of its operand."""
    of = {
        "softmax": T.nnet.softmax,
        "logsoftmax": T.nnet.logsoftmax,
        "cumsum": lambda z: T.cumsum(z, axis=1),
    }[op]

    def step(h: Any, W: Any) -> Any:
        z = of((h @ W) * 0.1)
        return T.tanh(z * h + h @ W), z

    (h, z), _ = scan(step, outputs_info=[H, None], non_sequences=[W], n_steps=5)
    f, g = (function([H, W], [h, z], device=d) for d in ("native", "reference"))
    values = numbers(2, 170), numbers(170, 170) / 10
    found = by_threads(f, *values)
    equal(found)
    for got, wanted in zip(found[-1], g(*values), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_a_loop_that_stops_stops_for_all() -> None:
    def step(h: Any, W: Any) -> Any:
        h = T.tanh(h @ W)
        return h, gpuscan.scan_module.until(h.max() < 0.01)

    h, _ = scan(step, outputs_info=[H], non_sequences=[W], n_steps=400)
    f = function([H, W], h, device="native")
    found = by_threads(f, numbers(1, 170), numbers(170, 170) / 20)
    assert 1 < len(found[0]) < 400
    equal([[x] for x in found])


def test_a_step_that_may_fail_is_one_workers() -> None:
    def step(k: Any, h: Any, W: Any) -> Any:
        return k + 1, T.tanh(h @ W) * W[k]

    start, n = T.lscalar("start"), T.lscalar("n")
    (_, h), _ = scan(step, outputs_info=[start, H], non_sequences=[W], n_steps=n)
    f = function([start, n, H, W], h, device="native")
    (plan,) = f.explain().scans
    assert plan.path == "fused"
    assert "would be waited for" in plan.reason
    with config.change_flags(threads=2), pytest.raises(IndexError):
        f(160, 20, numbers(1, 170), numbers(170, 170))


def test_a_number_that_one_worker_has_computed_is_read_by_all_behind_a_meeting() -> None:
    """The last worker has few units, and is there first."""

    def step(x: Any, s: Any, h: Any, W: Any) -> Any:
        h = T.tanh(x * s + h @ W)
        return h[0, 0], h

    start = T.scalar("start")
    (s, h), _ = scan(step, sequences=X, outputs_info=[start, H], non_sequences=W)
    f = function([X, start, H, W], [s[-1], h[-1]], device="native")
    equal(by_threads(f, numbers(300, 9, 70) * 3, 0.3, numbers(9, 70), numbers(70, 70) / 3))


def test_workers_stop_at_one_step_where_one_of_them_computes_why() -> None:
    def step(x: Any, h: Any, W: Any) -> Any:
        h = T.tanh(x + h @ W)
        return h, gpuscan.scan_module.until((h > 0.95)[0, 0])

    h, _ = scan(step, sequences=X, outputs_info=H, non_sequences=W)
    f = function([X, H, W], h, device="native")
    (plan,) = f.explain().scans
    assert plan.stages == 2
    found = by_threads(f, numbers(900, 9, 70) * 2, numbers(9, 70), numbers(70, 70) / 20)
    assert 1 < len(found[0]) < 900
    equal([[x] for x in found])


@pytest.mark.parametrize("twice", [False, True])
def test_units_of_a_join_are_none_of_the_next_steps_that_computed_its_parts(twice: bool) -> None:
    """The parts are computed where they stand in the join, by workers that have other units of the
    whole; `twice`: it is also copied to another carry."""

    def step(x: Any, h: Any, k: Any, g: Any, W: Any) -> Any:
        y = g @ W
        v = T.join(1, T.tanh(y + 1), T.tanh(y * y - 0.5))
        return v, v * 1 if twice else k, T.tanh(y + 0.1), x * h + k

    values, _ = scan(step, sequences=X, outputs_info=[H, H * 2, H[:, :150], None], non_sequences=W)
    h, k, g, z = values
    f = function([X, H, W], [h[-1], k[-1], g[-1], z], device="native")
    equal(by_threads(f, numbers(200, 1, 300), numbers(1, 300), numbers(150, 150) / 10))


def test_no_recurrent_network_depends_on_the_number_of_workers() -> None:
    shared: list[bool] = []

    @given(case=cells(replace(DERIVATIVES, min_steps=2)))  # a loop that is run
    def holds(case: Case) -> None:
        case = replace(case, sizes=(("D", 70), ("E", 130)))
        gradients = case.gradients(case.loop).results
        graphs = replace(case.loop, results=[*case.loop.results, *gradients])
        f = case.function(graphs, device="native")
        found = []
        for count in (1, 2, 3):
            with config.change_flags(threads=count), units_are_shared() as met:
                found.append(case.call(f))
            shared.extend(met)
        for other in found[1:]:
            assert_same(other, found[0], exact=True)

    holds()
    assert any(shared)


# ---- the team -----------------------------------------------------------------------------------

RACES = """
    #include "team.h"
    #include <stdio.h>

    enum { N = 3, STEPS = 300 };
    static long long cells[N], sums[N], shares_done[64];

    /* each worker adds up what all had written before they met */
    static long long together(const void *work, long long me) {
        long long *meeting = (long long *)work;
        for (long long t = 0; t < STEPS; t++) {
            cells[me] = t + me;
            MEET(meeting);
            for (int k = 0; k < N; k++) sums[me] += cells[k];
            MEET(meeting);
        }
        return me + 1;
    }

    static long long apart(const void *work, long long k) {
        shares_done[k]++;
        return k + 1;
    }

    int main(void) {
        static long long meeting[GS_MEETING] = {N};
        if (gs_team_size(N) != N) return 2;
        for (int run = 0; run < 5; run++)
            if (gs_team_run(together, meeting, N, 1) != 1) return 3;
        for (int run = 0; run < 200; run++)
            if (gs_team_run(apart, 0, 64, 0) != 1) return 4;
        for (int k = 0; k < 64; k++)
            if (shares_done[k] != 200) return 5;
        printf("%lld %lld %lld\\n", sums[0], sums[1], sums[2]);
        return 0;
    }
"""


@pytest.mark.parametrize(("meet", "races"), [("gs_meet", False), ("(void)", True)])
def test_the_team_under_the_thread_sanitizer(tmp_path: Path, meet: str, races: bool) -> None:
    command = compiler.find()
    if command is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    source, program = tmp_path / "races.c", tmp_path / "races"
    source.write_text(textwrap.dedent(RACES))
    built = subprocess.run(
        [*command, "-O1", "-g", "-pthread", "-fsanitize=thread", f"-DMEET={meet}", "-I",
         str(kernels_dir()), str(source), "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode and "tsan" in built.stderr:
        pytest.skip(f"{command[0]} has no thread sanitizer")
    assert built.returncode == 0, built.stderr
    still = shutil.which("setarch")  # the sanitizer needs addresses that do not move
    prefix = [still, "-R"] if still else []
    done = subprocess.run(
        [*prefix, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this system's addresses are none that the thread sanitizer knows")
    if races:  # what is looked for is found
        assert "data race" in done.stderr
        return
    total = 5 * sum(3 * t + 3 for t in range(300))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{total} {total} {total}\n"
