"""explain(): what is said of loops on GPUs, against what follows by hand."""

import re

import numpy as np
import pytest
from models import MODELS

import gpuscan
from gpuscan import explain
from gpuscan import tensor as T
from gpuscan.codegen.block_kernel import Blocks
from gpuscan.codegen.cost import EPILOGUE, EXCHANGE_CLOCK, GRID_MEETING, Product, StepCost, predict
from gpuscan.codegen.limits import PRESETS, of
from gpuscan.config import config
from gpuscan.errors import BuildError
from gpuscan.runtime import nvrtc
from gpuscan.runtime.device import missing
from gpuscan.runtime.emulated import Emulated

F = 4  # bytes of a float32

with_nvrtc = pytest.mark.skipif(bool(nvrtc.missing()), reason="no NVRTC")
with_emulated = pytest.mark.skipif(bool(missing("emulated")), reason="no C++ compiler")


@pytest.fixture
def uncompiled(monkeypatch):
    """Without NVRTC, which takes a second a kernel."""

    def compile(*args):
        raise BuildError("no NVRTC here\nand more words")

    monkeypatch.setattr(explain.nvrtc, "compile", compile)


@pytest.fixture
def one_group(monkeypatch):
    """All blocks of a kernel exchange the units of all rows."""
    monkeypatch.setattr(Blocks, "numbers_of_groups", lambda self: iter(()))


def zeros(*shape):
    return np.zeros(shape, "float32")


def elman(hidden, device="reference", **options):
    W = gpuscan.shared(zeros(hidden, hidden), "W")
    x, h0 = T.ftensor3("x"), T.fmatrix("h0")
    h, _ = gpuscan.scan(lambda x, h: T.tanh(x + h @ W), x, h0, name="elman")
    return gpuscan.function([x, h0], h, device=device, **options)


def lstm(hidden, device="reference"):
    W = gpuscan.shared(zeros(hidden, 4 * hidden), "W")
    x, h0, c0 = T.ftensor3("x"), T.fmatrix("h0"), T.fmatrix("c0")

    def step(x, h, c):
        gates = x + h @ W
        i, f, o, u = [gates[:, k * hidden : (k + 1) * hidden] for k in range(4)]
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(u)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, _), _ = gpuscan.scan(step, x, [h0, c0], name="lstm")
    return gpuscan.function([x, h0, c0], h, device=device)


def gibbs(visible, hidden):
    W = gpuscan.shared(zeros(visible, hidden), "W")
    start, random = T.fmatrix("v"), T.shared_randomstreams.RandomStreams(1)

    def draw(p):
        return random.binomial(size=p.shape, p=p, dtype="float32")

    def step(v):
        return draw(T.nnet.sigmoid(draw(T.nnet.sigmoid(v @ W)) @ W.T))

    v, updates = gpuscan.scan(step, outputs_info=start, n_steps=9, name="gibbs")
    return gpuscan.function([start], v[-1], updates=updates, device="reference")


def metropolis(start=None, device="reference"):
    x, random = T.fvector("x"), T.shared_randomstreams.RandomStreams(1)

    def step(x):
        y = x + random.normal(size=x.shape, dtype="float32")
        accepted = random.uniform(size=x.shape, dtype="float32") < T.exp(x**2 - y**2)
        return T.switch(accepted, y, x)

    begin = x if start is None else start
    xs, updates = gpuscan.scan(step, outputs_info=begin, n_steps=5, name="chain")
    given = [x] if start is None else []
    return gpuscan.function(given, xs, updates=updates, device=device)


def plan_of(f, target, *values):
    if values:
        f(*values)
    (plan,) = f.explain(target).scans
    return plan


def recurrent(f, batch, hidden, gates=1):
    states = 1 if gates == 1 else 2
    f(zeros(2, batch, gates * hidden), *[zeros(batch, hidden)] * states)
    return f


# ---- the named models --------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "hidden"), [("h100", 1024), ("t4", 512), ("emulated", 128)])
def test_elman_whose_weights_are_more_than_a_block_holds(one_group, uncompiled, target, hidden):
    batch, gpu = 16, of(target)
    plan = plan_of(recurrent(elman(hidden), batch, hidden), target)
    k, state = plan.kernel, batch * hidden * F
    assert (plan.path, plan.scope, k.target) == ("fused", "grid", target)
    assert [scope for scope, _ in k.against] == ["thread", "block"]
    assert "weights" in dict(k.against)["block"]
    assert (k.launches, k.meetings, k.exchanged) == (1, 1, state)
    assert k.blocks == min(gpu.multiprocessors, hidden // 4)
    assert (k.read, k.written, k.floor) == (state, state, 2 * state)
    assert k.kept == 0  # the product stays in shared memory
    assert k.flops == 2 * batch * hidden * hidden + 2 * batch * hidden  # and x + ., tanh
    columns = min(-(-(hidden // g) // k.blocks) * g for g in (4, 2))
    assert sum(w.size for w in k.weights) == hidden * columns * F


@pytest.mark.parametrize(("target", "hidden"), [("h100", 768), ("t4", 256), ("emulated", 96)])
def test_lstm_whose_weights_are_more_than_a_block_holds(one_group, uncompiled, target, hidden):
    batch = 4
    plan = plan_of(recurrent(lstm(hidden), batch, hidden, 4), target)
    k, state = plan.kernel, batch * hidden * F
    assert (plan.scope, k.meetings, k.exchanged) == ("grid", 1, state)  # h, and not c
    assert (k.read, k.written, k.floor) == (4 * state, state, 5 * state)
    assert k.kept == 2 * state  # c
    # of a unit: four sums, three sigmoids and two tanh, three products and a sum
    assert k.flops == 4 * 2 * batch * hidden**2 + batch * hidden * (4 + 5 + 4)


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (2, 2), (8, 8), (16, 16), (256, 16)])
def test_groups_of_blocks_exchange_their_own_rows(uncompiled, batch, groups):
    """An LSTM's MiB is 128 KiB each of 8 blocks: a sixteenth of an H100."""
    plan = plan_of(recurrent(lstm(256), batch, 256, 4), "h100")
    k = plan.kernel
    assert (plan.scope, k.blocks) == ("grid", groups * 8)
    assert k.exchanged == -(-batch // groups) * 256 * F
    assert sum(w.size for w in k.weights) == 4 * 256 * 32 * F
    assert ("16 groups of 8 blocks share" in str(plan.reason)) == (groups == 16)


@pytest.mark.parametrize(("target", "blocks"), [("h100", 8), ("t4", 8), ("emulated", 4)])
def test_a_small_lstm_has_no_meetings(uncompiled, target, blocks):
    plan = plan_of(recurrent(lstm(24), 8, 24, 4), target)
    k = plan.kernel
    assert (plan.scope, k.blocks, k.meetings, k.exchanged) == ("block", blocks, 0, 0)
    assert [scope for scope, _ in k.against] == ["thread"]
    assert sum(w.size for w in k.weights) == 4 * 24 * 24 * F
    assert not k.held("memory")


@pytest.mark.parametrize("target", ["h100", "t4", "emulated"])
def test_gibbs_sampling_meets_twice(one_group, uncompiled, target):
    plan = plan_of(gibbs(784, 512), target, zeros(3, 784))
    k = plan.kernel
    assert (plan.scope, k.meetings, k.exchanged) == ("grid", 2, 3 * (784 + 512) * F)
    assert (k.read, k.written, k.floor) == (0, 0, 0)
    assert f"{k.flops / 1e6:.1f}" in ("4.8", "4.9")  # 2 * 2 * 3 * 784 * 512


@pytest.mark.parametrize(("target", "threads"), [("h100", 32), ("t4", 32), ("emulated", 64)])
def test_a_chain_is_a_thread(uncompiled, target, threads):
    plan = plan_of(metropolis(), target, zeros(1000))
    k = plan.kernel
    assert (plan.scope, k.threads, k.blocks) == ("thread", threads, -(-1000 // threads))
    assert (k.against, k.meetings, k.exchanged, k.kept, k.shared) == ((), 0, 0, 0, 0)
    assert (k.read, k.written, k.floor) == (0, 1000 * F, 1000 * F)
    assert not k.weights


def test_a_step_that_no_gpu_holds_reads_weights_again(uncompiled):
    k = plan_of(recurrent(elman(2048), 8, 2048), "t4").kernel
    assert k.held("memory") > 0
    assert "read again every step" in "\n".join(k.lines())
    fast = plan_of(recurrent(elman(2048), 8, 2048), "h100").kernel
    assert not fast.held("memory")
    assert k.predicted.seconds > 2 * fast.predicted.seconds


# ---- when sizes are known ----------------------------------------------------------------------


def test_sizes_are_known_at_the_first_call(one_group, uncompiled):
    f = elman(1024)
    (plan,) = f.explain("h100").scans
    assert (plan.path, plan.scope, plan.kernel) == ("fused", "", None)
    assert "known at the first call" in plan.reason
    assert "meet 1 time a step" in plan.reason
    few = plan_of(f, "h100", zeros(2, 1, 1024), zeros(1, 1024)).kernel
    many = plan_of(f, "h100", zeros(2, 64, 1024), zeros(64, 1024)).kernel
    assert (few.exchanged, many.exchanged) == (1024 * F, 64 * 1024 * F)
    assert many.predicted.seconds > few.predicted.seconds


def test_sizes_of_shared_variables_are_known_at_once(uncompiled):
    f = metropolis(gpuscan.shared(zeros(300), "start"))
    k = plan_of(f, "h100").kernel
    assert (k.threads, k.blocks) == (32, 10)


def test_a_size_that_is_an_input_is_known_when_it_was_given(uncompiled):
    n = T.lscalar("n")
    xs, _ = gpuscan.scan(
        lambda x: x * 2 + 1, outputs_info=T.zeros((n,), "float32"), n_steps=3, name="grown"
    )
    f = gpuscan.function([n], xs, device="reference")
    assert plan_of(f, "h100").kernel is None
    assert plan_of(f, "h100", 1000).kernel.blocks == 32


@with_emulated
def test_sizes_that_depend_on_values_are_known_to_the_device_that_ran(uncompiled):
    n = T.lvector("n")
    xs, _ = gpuscan.scan(
        lambda x: x * 2 + 1, outputs_info=T.zeros((n[0],), "float32"), n_steps=3, name="grown"
    )
    f, g = (gpuscan.function([n], xs, device=d) for d in ("emulated", "reference"))
    f([100])
    g([100])
    assert plan_of(f, None).kernel.written == plan_of(f, "h100").kernel.written == 100 * F
    assert plan_of(g, "h100").kernel is None


@pytest.mark.skipif(bool(missing("native")), reason="no C compiler")
def test_native_knows_sizes_that_loops_and_values_say(uncompiled):
    """The last call's, where another was made between."""
    W, x, m = gpuscan.shared(zeros(16, 16), "W"), T.ftensor3("x"), T.fmatrix("m")

    def over(rows, start):
        return gpuscan.scan(lambda y, s: T.tanh(y + s @ W), rows, start)[0]

    rising, _ = gpuscan.scan(
        lambda h: (h + 1, gpuscan.scan_module.until(h.sum() > 99)), None, x[0], n_steps=50
    )
    some = x[:, : (m > 0).any(axis=1).sum()]
    for outputs, k in ((over(rising, x[1])[-1], 1), (over(some, T.zeros_like(some[0])), 0)):
        f = gpuscan.function([x, m], outputs, device="native", on_unused_input="ignore")
        assert f.explain("h100").scans[k].kernel is None
        for rows in (4, 8, 4):
            f(zeros(3, rows, 16) + 1, np.ones((rows, 2), "float32"))
            assert f.explain("h100").scans[k].kernel.blocks == rows


def test_a_function_without_loops_has_nothing_to_explain():
    x = T.fvector("x")
    explained = gpuscan.function([x], x + 1, device="reference").explain("h100")
    assert (explained.scans, explained.target) == ((), "h100")


# ---- targets, and the devices ------------------------------------------------------------------


def test_an_unknown_target_is_told_which_there_are():
    with pytest.raises(ValueError, match="no GPU 'h1000'.*h100 .sm_90., b200") as error:
        elman(8).explain(target="h1000")
    assert all(name in f"{error.value}" for name in PRESETS)


def test_a_target_by_its_architecture(uncompiled):
    assert plan_of(recurrent(elman(512), 2, 512), "sm_80").kernel.target == "a100"


def test_a_loop_that_is_not_fused(uncompiled):
    (plan,) = recurrent(elman(8, fuse="never"), 2, 8).explain("h100").scans
    assert (plan.path, plan.scope, plan.kernel) == ("sequenced", "launch", None)
    assert "never" in plan.reason


@with_emulated
@pytest.mark.parametrize("fuse", ["auto", "never"])
def test_loops_in_the_step_of_one_that_is_not_fused(uncompiled, monkeypatch, fuse):
    """A step starts them too, and each is told of. A product is NumPy's here, and no kernel."""
    launches, launch = [], Emulated.launch

    def counted(self, *arguments):
        launches.append(self)
        launch(self, *arguments)

    monkeypatch.setattr(Emulated, "launch", counted)
    v, n, m = T.fvector("v"), T.lscalar("n"), T.lscalar("m")

    def plans(length):
        def step(v):
            inner, _ = gpuscan.scan(lambda s: T.tanh(s) * 2, None, T.sort(v), n_steps=length)
            return inner[-1]

        y, _ = gpuscan.scan(step, None, v, n_steps=n, name="outer")
        f = gpuscan.function([v, n, m], y[-1], device="emulated", fuse=fuse,
                             on_unused_input="ignore")  # fmt: skip
        f(zeros(6), 2, 3)
        launches.clear()
        f(zeros(6), 4, 3)
        return f.explain().scans

    outer, inner = plans(3)
    assert (outer.path, outer.least, inner.name) == ("sequenced", False, "outer/scan_fn")
    assert 4 * outer.launches == len(launches) == (4 if fuse == "auto" else 12)
    if fuse == "auto":
        assert (inner.scope, inner.kernel.flops) == ("thread", 2 * 6)
        assert "1 launch a step of 'outer'" in str(inner)
    else:
        assert "a step of" not in str(inner)
    outer, _ = plans(m)
    assert (outer.launches, outer.least) == (1, fuse == "never")
    assert ("at least 1 launch a step" in str(outer)) == outer.least


def test_other_devices_say_what_they_did_before():
    f = recurrent(elman(8), 2, 8)
    assert f"{f.explain()}".splitlines()[1:] == [
        "  scan 'elman': interpreted (the reference device runs every step by NumPy)"
    ]


@with_emulated
def test_the_emulated_device_says_what_it_did(uncompiled, monkeypatch):
    launches = []
    launch = Emulated.launch

    def recorded(self, kernel, how, arguments):
        launches.append(how)
        launch(self, kernel, how, arguments)

    monkeypatch.setattr(Emulated, "launch", recorded)
    f = elman(128, "emulated")
    assert f.explain().scans[0].kernel is None
    for batch, scope in ((3, "grid"), (1, "grid")):
        recurrent(f, batch, 128)
        plan = f.explain().scans[0]
        how = [x for x in launches if x.meetings][-1]
        k = plan.kernel
        assert (plan.scope, how.scope, k.target) == (scope, scope, "emulated")
        assert (k.blocks, k.threads, k.shared) == (how.grid, how.block, how.shared)
        assert (k.meetings, k.weights, plan.reason) == (how.meetings, how.weights, how.reason)


# ---- the compiled kernel -----------------------------------------------------------------------


@with_nvrtc
@pytest.mark.parametrize("target", ["h100", "t4"])
def test_what_the_compiled_kernel_takes(target, monkeypatch):
    made = []

    def compile(source, architecture):
        made.append(nvrtc_compile(source, architecture))
        return made[-1]

    nvrtc_compile = nvrtc.compile
    monkeypatch.setattr(explain.nvrtc, "compile", compile)
    k = plan_of(metropolis(), target, zeros(1000)).kernel
    assert made[-1].architecture == of(target).architecture
    (found,) = made[-1].resources.values()
    assert (k.registers, k.stack, k.uncompiled) == (found.registers, found.stack, "")
    assert (k.spills, k.shared) == (0, 0)
    assert k.together >= 1
    assert f"{k.registers} registers a thread, no spills" in "\n".join(k.lines())


def test_without_nvrtc_the_text_says_why(uncompiled):
    k = plan_of(recurrent(elman(512), 4, 512), "h100").kernel
    assert (k.registers, k.spills, k.stack, k.together) == (None,) * 4
    assert "not compiled: no NVRTC here" in k.lines()


def test_products_of_short_floats(one_group, uncompiled):
    """The precision is that of when the function was made."""
    with gpuscan.config.change_flags(dot_precision="bf16"):
        f = recurrent(elman(1024), 64, 1024)
    short, exact = (plan_of(x, "h100").kernel for x in (f, recurrent(elman(1024), 64, 1024)))
    assert (short.precision, exact.precision) == ("bf16", "float32")
    assert short.predicted.products < exact.predicted.products / 4
    assert 2 * short.held("registers") == exact.held("registers") == 1024 * 8 * F
    assert "in registers; products there of bf16" in "\n".join(short.lines())
    (plan,) = f.explain("t4").scans
    assert plan.kernel is None
    assert "needs sm_80" in plan.reason


def test_what_is_not_rounded_needs_no_tensor_cores(uncompiled):
    W = gpuscan.shared(np.zeros((64, 64)), "W")
    x, h0 = T.dtensor3("x"), T.dmatrix("h0")
    h, _ = gpuscan.scan(lambda x, h: T.tanh(x + h @ W), x, h0)
    with config.change_flags(dot_precision="bf16"):
        double = gpuscan.function([x, h0], h, device="reference")
        double(np.zeros((2, 4, 64)), np.zeros((4, 64)))
        chain = metropolis()
    k = plan_of(double, "t4").kernel
    assert k.held("registers") == 64 * 64 * 2 * F
    assert "bf16" not in "\n".join(k.lines())
    assert plan_of(chain, "t4", zeros(1000)).scope == "thread"


# ---- text --------------------------------------------------------------------------------------


def test_the_text(one_group, uncompiled):
    f = recurrent(elman(1024), 16, 1024)
    lines = f"{f.explain('h100')}".splitlines()
    *known, predicted = lines
    assert known == [
        "function: device reference, 3 nodes; what it would be on h100:",
        "  scan 'elman': fused, scope grid (blocks share its units, and meet 1 time a step)",
        *known[2:5],
        "    not compiled: no NVRTC here",
        "    weights of a block: 32 KiB in registers",
        "    a step: 33.6 Mflop, 1 meeting, 64 KiB exchanged between blocks, "
        "128 KiB of device memory (no less will do)",
    ]
    assert [line.partition(":")[0] for line in known[2:4]] == ["    not thread", "    not block"]
    assert re.fullmatch(
        r"    h100: 1 launch a call, 132 blocks of 256 threads, \S+ \S+ of shared memory a block",
        known[4],
    )
    assert re.fullmatch(r"    predicted, not measured: \S+ us a step \(meetings .*\)", predicted)


# ---- the model ---------------------------------------------------------------------------------

# A step, and its gradient's, in microseconds, measured on an H200 (benchmarks/h200.json; what is
# not there is in benchmarks/README.md), before there were groups of blocks. Products outside of the
# loops are in them.
MEASURED = [
    ("lstm", 128, 16, "float32", False, 2.41), ("lstm", 128, 16, "float32", True, 4.52),
    ("lstm", 768, 16, "float32", False, 7.55), ("lstm", 768, 16, "float32", True, 20.0),
    ("lstm", 768, 16, "bf16", False, 5.57), ("lstm", 768, 16, "bf16", True, 15.7),
    ("lstm", 1024, 64, "float32", False, 32.0),
    ("gru_reset_after", 768, 16, "float32", False, 8.05),
]  # fmt: skip


@pytest.mark.parametrize(("model", "hidden", "batch", "precision", "both", "measured"), MEASURED)
def test_the_model_against_measured_steps(
    one_group, uncompiled, model, hidden, batch, precision, both, measured
):
    made = MODELS[model](hidden)
    with config.change_flags(dot_precision=precision):
        f = made.function("reference")
        f(*made.values(batch, 2, seed=0))
        plans = f.explain(target="h100").scans
    found = sum(p.kernel.predicted.seconds for p in plans[: 1 + both]) * 1e6
    assert measured / 2 < found < measured


def test_the_parts_of_a_prediction():
    gpu = of("h100")
    one = Product(16, 32, 1024, "float32", "registers")
    step = StepCost("grid", 132, 256, 1, 1, (one,), 100.0, 50.0, 65536, 0, 0)
    p = predict(step, gpu)
    assert p.seconds == pytest.approx(p.meetings + p.exchange + p.products + p.rest)
    assert p.meetings == GRID_MEETING
    assert p.exchange == pytest.approx(65536 / EXCHANGE_CLOCK / gpu.clock)
    assert p.products == pytest.approx(16 * 32 * 1024 / (128 * 0.6) / gpu.clock)
    assert p.rest == pytest.approx((50 + EPILOGUE) / gpu.clock)
    double = Product(16, 32, 1024, "float64", "registers")
    step = StepCost("grid", 132, 256, products=(double,))
    assert predict(step, gpu).products == pytest.approx(2 * p.products)


def nested(length, *given):
    W = gpuscan.shared(zeros(48, 48), "W")
    x, h0 = T.ftensor3("x"), T.fmatrix("h0")

    def step(x, h):
        inner, _ = gpuscan.scan(lambda h, x: T.tanh(x + h @ W), None, h, x, n_steps=length(x))
        return inner[-1]

    h, _ = gpuscan.scan(step, x, h0)
    return gpuscan.function([x, h0, *given], h, device="reference")


def test_a_loop_in_a_step_takes_as_long_as_its_steps(uncompiled):
    values, n = (zeros(2, 8, 48), zeros(8, 48)), T.lscalar("n")
    few = plan_of(nested(lambda x: 10), "h100", *values).kernel
    many = plan_of(nested(lambda x: 100), "h100", *values).kernel
    assert many.flops == 10 * few.flops
    assert many.predicted.seconds == pytest.approx(10 * few.predicted.seconds, rel=0.02)
    given = plan_of(nested(lambda x: n, n), "h100", *values, 100).kernel
    assert (given.flops, given.least) == (many.flops, False)
    assert given.predicted.seconds > 0.9 * many.predicted.seconds


def test_a_loop_in_a_step_of_unknown_length_is_at_least_one_step(uncompiled):
    values = zeros(2, 8, 48), zeros(8, 48)
    length = nested(lambda x: T.cast(x.sum(), "int64") + 3)
    k = plan_of(length, "h100", *values).kernel
    assert k.least
    assert k.lines()[-1].startswith("predicted, not measured: at least ")


def test_a_step_is_not_faster_than_memory():
    step = StepCost("block", 1, 256, memory=10**9)
    assert predict(step, of("t4")).seconds == pytest.approx(1e9 / 320e9)


def test_weights_that_are_read_bound_a_product():
    gpu = of("h100")

    def clocks(rows, place):
        product = Product(rows, 32, 1024, "float32", place)
        return predict(StepCost("block", 1, 256, products=(product,)), gpu).products * gpu.clock

    size = 32 * 1024 * F
    assert clocks(1, "shared") == pytest.approx(size / 128)
    assert clocks(9, "memory") == pytest.approx(2 * size / 64)
    assert clocks(1, "registers") == pytest.approx(32 * 1024 / (128 * 0.6))


def test_more_threads_than_a_gpu_runs_take_longer():
    gpu = of("h100")

    def seconds(blocks):
        return predict(StepCost("thread", blocks, 128, busy=100.0, longest=400.0), gpu).seconds

    assert seconds(1) == seconds(132 * 4) == pytest.approx(400 / gpu.clock)
    assert seconds(132 * 8) == pytest.approx(800 / gpu.clock)
