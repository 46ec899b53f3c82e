"""Loops as CUDA kernels, run by the emulated device: launches, builds, scopes, and what is special
in each. That results are right everywhere is for the suite with --device emulated to say."""

import collections
import itertools
import re

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.codegen.kernel import Array, For, Let, Load, Name, Number, Point, Share, Store
from gpuscan.codegen.program import Meeting
from gpuscan.codegen.threads import Threads
from gpuscan.errors import DeviceError
from gpuscan.runtime import emulator, nvrtc
from gpuscan.runtime.emulated import Emulated

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())


class Seen:
    """What the emulated device was asked for."""

    def __init__(self):
        self.launches, self.sources = [], set()

    @property
    def loops(self):
        return [x for x in self.launches if x.name.startswith("loop")]


@pytest.fixture
def seen(monkeypatch):
    found = Seen()
    launch, build = Emulated.launch, Emulated.build

    def launched(self, kernel, what, arguments):
        found.launches.append(what)
        return launch(self, kernel, what, arguments)

    def built(self, source, name):
        if name.startswith("loop"):
            found.sources.add(source)
        return build(self, source, name)

    monkeypatch.setattr(Emulated, "launch", launched)
    monkeypatch.setattr(Emulated, "build", built)
    return found


def elman(hidden, gradient=True):
    rng = np.random.default_rng(hidden)
    weight = (rng.normal(size=(hidden, hidden)) / hidden**0.5).astype("float32")
    u = gpuscan.shared(weight, name="U")
    x, h0 = T.tensor3("x"), T.matrix("h0")
    h, _ = gpuscan.scan(lambda x, h: T.tanh(x + h @ u), sequences=x, outputs_info=h0)
    outputs = [h, T.grad((h**2).sum(), u)] if gradient else [h]
    makers = {
        d: gpuscan.function([x, h0], outputs, device=d, fuse="auto")
        for d in ("emulated", "reference")
    }
    return makers["emulated"], makers["reference"]


def inputs(steps, batch, hidden, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, batch, hidden)).astype("float32")
    return x, np.zeros((batch, hidden), "float32")


def assert_close(found, wanted):
    """Contractions sum in another order: 32 roundings of the largest element."""
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=0, atol=32 * 2.0**-24 * np.abs(b).max(initial=1))


@pytest.mark.parametrize("scope", ["block", "grid"])
def test_neither_steps_nor_rows_build_or_launch_anything_again(seen, monkeypatch, scope):
    monkeypatch.setattr(Emulated, "scope", scope)
    f, reference = elman(16)
    builds, launches = [], []
    for steps, batch in ((1, 3), (7, 3), (30, 5), (4, 9), (2, 17)):
        given = inputs(steps, batch, 16)
        before = len(seen.loops)
        assert_close(f(*given), reference(*given))
        launches.append(len(seen.loops) - before)
        builds.append(len(seen.sources))
    assert {x.scope for x in seen.loops} == {scope}
    assert launches == [2] * 5  # forward and backward, however many steps
    assert builds == [2] * 5


def test_a_kernel_follows_from_what_the_device_holds(seen, monkeypatch):
    from gpuscan.codegen.limits import of

    scopes = {}
    for target in ("emulated", "h100"):
        monkeypatch.setattr(Emulated, "limits", of(target))
        f, _ = elman(144, gradient=False)
        f(*inputs(1, 1, 144))
        scopes[target] = seen.loops[-1].scope
    # 81 KiB of weights: more than the emulated device's 40 KiB of registers and 48 of shared memory
    # would hold beside what a step needs, and what a multiprocessor of an H100 holds
    assert scopes == {"emulated": "grid", "h100": "block"}


def test_gates_are_held_as_one_matrix(seen, monkeypatch):
    monkeypatch.setattr(Emulated, "scope", "grid")
    hidden = 32
    u = gpuscan.shared(np.eye(hidden, 4 * hidden, dtype="float32"), name="U")
    x, h0, c0 = T.tensor3("x"), T.matrix("h0"), T.matrix("c0")

    def step(x, h, c):
        z = x + h @ u
        i, f, o, g = (z[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, _), _ = gpuscan.scan(step, sequences=x, outputs_info=[h0, c0])
    given = [
        np.ones((3, 2, 4 * hidden), "float32"),
        *np.zeros((2, 2, hidden), "float32"),
    ]
    f = gpuscan.function([x, h0, c0], h, device="emulated")
    wanted = gpuscan.function([x, h0, c0], h, device="reference")(*given)
    assert_close([f(*given)], [wanted])
    (loop,) = seen.loops
    assert loop.meetings == 1
    assert loop.source.count(".multiply(") == 1
    assert loop.source.count(".load(") == 4


def test_inputs_come_and_traces_go_while_blocks_meet(seen, monkeypatch):
    monkeypatch.setattr(Emulated, "scope", "grid")
    f, reference = elman(16)
    given = inputs(6, 3, 16)
    assert_close(f(*given), reference(*given))
    forward, backward = (x.source for x in seen.loops)
    for text in (forward, backward):
        between = text.partition("gs_enter")[2].partition("gs_leave")[0]
        assert re.search(r"gs_copy\(x\d?_early", between)
        computed = text.replace(between, "").partition("for (long long t")[2]
        assert not re.search(r"\bx\d?\[", computed.partition("gs_finish")[0])
        # what was copied is waited for before it is read
        assert computed.index("gs_copied();") < computed.index("_early[")


def test_groups_of_blocks_have_rows_of_their_own(seen, monkeypatch):
    """As many groups as hold the weights, and no more than there are rows; of one text."""
    monkeypatch.setattr(Emulated, "scope", "grid")
    f, reference = elman(16)
    for batch, groups in ((1, 1), (2, 2), (5, 2)):
        given = inputs(4, batch, 16)
        assert_close(f(*given), reference(*given))
        forward, backward = seen.loops[-2:]
        assert forward.grid == backward.grid == 2 * groups
        assert ("2 groups of 2 blocks" in forward.reason) == (groups == 2)
    assert len(seen.sources) == 2
    (meeting,) = [x for x in forward.arguments if isinstance(getattr(x, "source", 0), Meeting)]
    assert meeting.copies == 2


def test_a_group_that_does_not_meet_is_an_error(monkeypatch):
    """The others run to their end, and say so: their rows are not taken for the result."""
    monkeypatch.setattr(Emulated, "scope", "grid")
    f, _ = elman(16)
    given = inputs(4, 4, 16)
    build = Emulated.build
    met = "if (gs_leave(meeting, met, members))"

    def built(self, source, name):
        if name.startswith("loop"):
            assert met in source
            source = source.replace(met, met[:-1] + " || group == 1)")
        return build(self, source, name)

    monkeypatch.setattr(Emulated, "build", built)
    with pytest.raises(DeviceError, match=r"some of its 4 blocks waited in vain.*fuse='never'"):
        f(*given)


def test_blocks_that_do_not_meet_fetch_the_next_steps_inputs_behind_a_steps_work(seen, monkeypatch):
    monkeypatch.setattr(Emulated, "scope", "block")
    f, reference = elman(16)
    for steps in (1, 6):  # of one step no input is left to fetch
        given = inputs(steps, 3, 16)
        assert_close(f(*given), reference(*given))
    text = seen.loops[0].source
    before, _, step = text.partition("for (long long t")
    assert re.search(r"gs_copy\(x\d?_early", before)
    assert step.index("gs_copied();") < step.index("_early[") < step.index("gs_copy(")
    assert "next_t" in step.partition("gs_copy(")[2].partition(")")[0]


def test_an_input_that_stays_is_waited_for_once(monkeypatch):
    """Nothing else is copied here. The copy may come late: on the emulated device it does."""
    monkeypatch.setattr(Emulated, "scope", "grid")
    u = gpuscan.shared(np.eye(64, dtype="float32"), name="u")
    b = gpuscan.shared(np.linspace(-1, 1, 64, dtype="float32"), name="b")
    h0 = T.matrix("h0")
    h, _ = gpuscan.scan(lambda h: T.tanh(h @ u + b), outputs_info=h0, n_steps=3)
    given = np.ones((3, 64), "float32")
    found = gpuscan.function([h0], h, device="emulated", fuse="always")(given)
    assert_close([found], [gpuscan.function([h0], h, device="reference")(given)])


def test_what_a_meeting_drops_from_the_cache_is_read_from_shared_memory(seen, monkeypatch):
    """Biases once, before the loop, and what others write too while the product is computed. A cell
    state, which has no other readers, stays there, and is left in the end as a trace or a state."""
    monkeypatch.setattr(Emulated, "scope", "grid")
    hidden = 12
    u = gpuscan.shared(np.eye(hidden, dtype="float32"), name="U")
    b = gpuscan.shared(np.linspace(-1, 1, hidden, dtype="float32"), name="b")
    x, h0, c0 = T.tensor3("x"), T.matrix("h0"), T.matrix("c0")

    def step(x, h, c):
        c = 0.5 * c + T.tanh(x + h @ u + b)
        return T.tanh(c) * h + 0.5, c

    (h, c), _ = gpuscan.scan(step, sequences=x, outputs_info=[h0, c0])
    numbers = np.random.default_rng(0).normal(size=(2, 5, 3, hidden)).astype("float32")
    for cells in (c[-1], c):
        f, reference = (
            gpuscan.function([x, h0, c0], [h, cells], device=d) for d in ("emulated", "reference")
        )
        for steps in (1, 4, 5):
            given = [numbers[0, :steps], *numbers[1, :2]]
            assert_close(f(*given), reference(*given))
        before, _, text = seen.loops[-1].source.partition("for (long long t")
        assert re.search(r"gs_copy\(\w+_kept", before)
        assert re.search(r"\w+_late\[.*\] = a1\[", before)
        loop = text.partition("gs_leave")[2].partition("    if (last > 0)")[0]
        waiting, _, work = loop.partition("gs_gemm_f32(")
        assert re.search(r"gs_copy\(\w+_met", waiting)
        assert re.search(r"= (\w+_late)\[(?s:.)*\1\[.*\] = ", work)


def test_a_thread_loads_first_and_stores_last_but_for_what_may_be_the_same():
    i = Name("i")
    a, b, c, d, b_or_d = (Array(name, "float32") for name in ("a", "b", "c", "d", "b_or_d"))
    x, y, z = (Name(name, "float32") for name in "xyz")
    alone = [
        Let(x, Load(a, i)), Store(b, i, x), Let(y, Load(c, i)), Store(d, i, y),
        Let(z, Load(b_or_d, i)), Store(a, i, z),
    ]  # fmt: skip
    point = Point(b_or_d, False, i > 0, (b, Number(0)), (d, Number(0)))
    loop = For(i, Name("n"), tuple(alone), apart=True)
    share = next(s for s in Threads(False).statements([point, loop]) if isinstance(s, Share))
    # what is stored in b or d is loaded behind that, and a is loaded before it is stored
    assert share.body == tuple(alone[k] for k in (0, 2, 1, 3, 4, 5))
    share = next(s for s in Threads(False).statements([loop]) if isinstance(s, Share))
    assert share.body == tuple(alone[k] for k in (0, 2, 4, 1, 3, 5))


def test_a_loop_that_stops_writes_what_it_has_run(monkeypatch):
    for scope in ("block", "grid"):
        monkeypatch.setattr(Emulated, "scope", scope)
        w = gpuscan.shared(np.full((16, 16), 0.5, "float32"))
        h0 = T.matrix("h0")

        def step(h, w=w):
            h = 0.2 * (h @ w)
            return [h, 2 * h], gpuscan.scan_module.until(h.sum() > 100)

        (h, twice), _ = gpuscan.scan(step, outputs_info=[h0, None], n_steps=50)
        f, reference = (
            gpuscan.function([h0], [h, twice], device=d) for d in ("emulated", "reference")
        )
        given = np.ones((3, 16), "float32")
        found, wanted = f(given), reference(given)
        assert len(found[0]) == len(wanted[0]) < 50
        assert_close(found, wanted)


def test_rows_beyond_the_multiprocessors_and_of_a_constant_number(seen):
    start = np.linspace(0, 1, 700, dtype="float32")
    x, _ = gpuscan.scan(lambda x: x * x + 0.1, outputs_info=T.as_tensor_variable(start), n_steps=3)
    found = gpuscan.function([], x[-1], device="emulated")()
    wanted = gpuscan.function([], x[-1], device="reference")()
    np.testing.assert_array_equal(found, wanted)
    (loop,) = seen.loops
    assert (loop.scope, loop.grid * loop.block) == ("thread", 704)


def test_the_number_of_chains_is_in_no_text(seen):
    x0, random = T.matrix("x0"), T.shared_randomstreams.RandomStreams(1)
    x, updates = gpuscan.scan(
        lambda x: 0.5 * x + random.normal(x.shape, dtype="float32"), outputs_info=x0, n_steps=2
    )
    f = gpuscan.function([x0], x[-1], updates=updates, device="emulated")
    for chains in (3, 100, 140, 300):
        f(np.zeros((chains, 2), "float32"))
        assert seen.loops[-1].scope == "thread"
        assert chains <= seen.loops[-1].grid * seen.loops[-1].block < 2 * chains + 32
    assert len(seen.sources) == 1


def lookups(table):
    """A chain of states that are positions in a table."""
    s, random = T.lvector("s"), T.shared_randomstreams.RandomStreams(3)

    def step(s):
        u = random.uniform((s.shape[0],), dtype="float32")
        return T.cast((table[s] < u[:, None]).sum(axis=1), "int64")

    chain, updates = gpuscan.scan(step, outputs_info=s, n_steps=4)
    return [s], [chain], updates, [np.arange(50) % 5]


def attention(weights):
    """Products of stacks of matrices, and heads by reshapes."""
    memory, h0 = T.tensor3("memory"), T.matrix("h0")

    def step(h):
        score = T.dot(T.tanh(memory + T.dot(h, weights)[:, None, :]), weights[0])
        found = (T.nnet.softmax(score)[:, :, None] * memory).sum(axis=1)
        heads = T.nnet.softmax(found.reshape((h.shape[0] * 2, 4)))
        return T.tanh(heads.reshape((h.shape[0], 8)) + found)

    h, _ = gpuscan.scan(step, outputs_info=h0, n_steps=3)
    rng = np.random.default_rng(4)
    given = rng.normal(size=(3, 5, 8)), rng.normal(size=(3, 8))
    return [memory, h0], [h], None, [x.astype("float32") for x in given]


def pooled(_):
    """The largest of each four, four times."""
    x = T.tensor3("x")
    h, _ = gpuscan.scan(
        lambda x, h: T.repeat(T.tanh(x + h).reshape((h.shape[0], -1, 4)).max(axis=2), 4, axis=1),
        sequences=x, outputs_info=T.zeros((x.shape[1], 12), "float32"),
    )  # fmt: skip
    given = np.random.default_rng(5).normal(size=(4, 5, 12)).astype("float32")
    return [x], [h, T.grad((h**2).sum(), x)], None, [given]


@pytest.mark.parametrize(
    ("model", "scope"), [(lookups, "thread"), (attention, "block"), (pooled, "thread")]
)
def test_rows_of_lookups_and_reshapes_are_apart(seen, model, scope):
    table = np.cumsum(np.full((8, 8), 0.125, "float32"), axis=1)
    results = []
    for device in ("emulated", "reference"):  # each with random states of its own
        inputs, outputs, updates, given = model(gpuscan.shared(table - (model is attention)))
        f = gpuscan.function(inputs, outputs, updates=updates, device=device)
        results.append(f(*given))
    assert_close(*results)
    assert {k.scope for k in seen.loops} == {scope}
    assert len(seen.loops) == len(outputs)


def single(state):
    """A state without rows that are apart, of a draw, a path in space, or a product."""
    if state == "number":
        q, random = T.scalar("q"), T.shared_randomstreams.RandomStreams(2)
        x, updates = gpuscan.scan(
            lambda q: q + random.normal((), dtype="float32"), outputs_info=q, n_steps=5
        )
        return [q], x, updates, [np.float32(1)]
    v = T.TensorType("float32", (3,))("v") if state == "three" else T.vector("v")
    if state == "three":
        step = lambda v: v + 0.01 * T.stack([v[1] - v[0], v[0] * (1 - v[2]), v[0] * v[1] - v[2]])  # noqa: E731
    else:
        u = gpuscan.shared(np.eye(48, dtype="float32") / 2)
        step = lambda v: T.tanh(T.dot(v, u) + 1)  # noqa: E731
    x, _ = gpuscan.scan(step, outputs_info=v, n_steps=5)
    return [v], x, None, [np.ones(3 if state == "three" else 48, "float32")]


@pytest.mark.parametrize(
    ("state", "scope"), [("number", "thread"), ("three", "thread"), ("vector", "block")]
)
def test_a_state_without_rows_runs_where_its_steps_are_shortest(seen, state, scope):
    results = []
    for device in ("reference", "emulated"):  # each with a random state of its own
        inputs, output, updates, given = single(state)
        f = gpuscan.function(inputs, output, updates=updates, device=device)
        results.append(f(*given))
    assert_close([results[1]], [results[0]])
    assert [(k.scope, k.grid) for k in seen.loops] == [(scope, 1)]
    (plan,) = f.explain().scans
    slower = [s for s, why in plan.kernel.against if "times as long" in why]
    assert slower == (["block"] if scope == "thread" else ["grid"])


def test_a_state_of_nothing_takes_no_time_anywhere():
    v, n = T.vector("v"), T.lscalar("n")
    x, _ = gpuscan.scan(lambda v: T.tanh(v * v.sum()), outputs_info=v, n_steps=n)
    f = gpuscan.function([v, n], x, device="emulated", fuse="always")
    assert f(np.zeros(0, "float32"), 3).shape == (3, 0)


def test_what_one_block_would_be_slow_at_is_launches(seen, monkeypatch):
    """A state whose elements need each other, by no product: as a graph, where it is large."""
    u0 = T.vector("u0")
    u, _ = gpuscan.scan(lambda u: u + 0.1 * (T.roll(u, 1) - u), outputs_info=u0, n_steps=20)
    f, always, reference = (
        gpuscan.function([u0], u[-1], device=d, fuse=fuse)
        for d, fuse in (("emulated", "auto"), ("emulated", "always"), ("reference", "auto"))
    )
    small, large = (np.linspace(0, 1, n, dtype="float32") for n in (10, 60_000))
    assert_close([f(small)], [reference(small)])
    assert [x.name for x in seen.launches] == ["loop_0"]
    assert f.explain().scans[0].scope == "block"
    seen.launches.clear()
    assert_close([f(large)], [reference(large)])
    assert len(seen.launches) >= 20 and not seen.loops
    (plan,) = f.explain().scans
    assert (plan.path, plan.scope) == ("sequenced", "launch")
    assert plan.reason.startswith("one block would need")
    seen.launches.clear()
    assert_close([always(large)], [reference(large)])
    assert [x.scope for x in seen.loops] == ["block"]


def test_a_position_out_of_range_is_the_users_error_in_every_scope(monkeypatch):
    i, v = T.lvector("i"), T.vector("v")
    x, _ = gpuscan.scan(lambda i, x: x + v[i], sequences=i, outputs_info=T.zeros_like(v))
    for scope in ("thread", "block", "grid"):
        monkeypatch.setattr(Emulated, "scope", scope)
        f = gpuscan.function([i, v], x, device="emulated", fuse="always")
        assert f([0, -1], np.arange(3, dtype="float32")).shape == (2, 3)
        with pytest.raises(IndexError):
            f([0, 3], np.arange(3, dtype="float32"))


def test_steps_of_a_loop_that_is_not_fused_are_launches(seen):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    u = gpuscan.shared(np.eye(16, dtype="float32"))
    h, _ = gpuscan.scan(lambda x, h: T.tanh(x + h @ u), sequences=x, outputs_info=h0)
    f = gpuscan.function([x, h0], h, device="emulated", fuse="never")
    given = inputs(5, 3, 16)
    wanted = gpuscan.function([x, h0], h, device="reference")(*given)
    assert_close([f(*given)], [wanted])
    (plan,) = f.explain().scans
    assert (plan.path, plan.scope) == ("sequenced", "launch")
    assert collections.Counter(x.name for x in seen.launches) == {"nest_0": 5}


def test_a_failed_call_leaves_shared_variables_as_they_were():
    v = gpuscan.shared(np.arange(4, dtype="float32"))
    i = T.lvector("i")
    x, _ = gpuscan.scan(lambda i, x: x + v[i], sequences=i, outputs_info=T.zeros_like(v))
    f = gpuscan.function([i], [], updates={v: x[-1]}, device="emulated")
    with pytest.raises(IndexError):
        f([0, 9])
    np.testing.assert_array_equal(v.get_value(), np.arange(4))


def test_signed_integers_wrap_as_numpys_do():
    start = np.array([2**31 - 5, -(2**31) + 3], "int32")
    x0 = T.ivector("x0")
    x, _ = gpuscan.scan(lambda x: x * 3 + 7, outputs_info=x0, n_steps=9)
    found = gpuscan.function([x0], x, device="emulated", fuse="always")(start)
    with np.errstate(over="ignore"):
        wanted = gpuscan.function([x0], x, device="reference")(start)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("axis", [None, 0, (0, 1), 2, (1, 2)])
@pytest.mark.parametrize("shape", [(300, 20, 33), (3, 2, 5), (0, 3, 2), (1, 1, 40000)])
def test_sums_outside_of_loops_are_shared_by_many_blocks(seen, axis, shape):
    x = T.tensor3("x")
    value = np.random.default_rng(1).normal(size=shape).astype("float32")
    f = gpuscan.function([x], T.tanh(x).sum(axis=axis), device="emulated")
    found = f(value)
    wanted = np.tanh(value.astype("float64")).sum(axis=axis)
    terms = value.size / max(1, wanted.size)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2.0**-22 * max(1, terms))
    np.testing.assert_array_equal(found, f(value))  # in the same order every time
    if terms > 4000:
        assert {x.grid > 1 for x in seen.launches} == {True}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_outside_of_fused_loops_are_launches_too(seen, dtype):
    results = []
    for device in ("emulated", "reference"):
        rng = T.shared_randomstreams.RandomStreams(seed=3)
        n, x0 = T.lscalar("n"), T.vector("x0", dtype=dtype)
        x, updates = gpuscan.scan(
            lambda x, rng=rng: x + rng.normal(x.shape, dtype=dtype), outputs_info=x0, n_steps=20
        )
        outputs = [rng.uniform((n, 3), dtype=dtype), rng.normal((n,), dtype=dtype), x]
        f = gpuscan.function([n, x0], outputs, updates=updates, device=device, fuse="never")
        results += [[f(size, np.zeros(5, dtype)) for size in (7, 0, 300)]]
        if device == "emulated":
            (plan,) = f.explain().scans
            assert plan.graph_steps > 0  # nothing of a step runs on the host
    for found, wanted in zip(*results):
        for a, b in zip(found, wanted):
            np.testing.assert_array_equal(a, b)
    assert "uniforms" in {x.name for x in seen.launches}


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "float64"])
def test_joins_outside_of_loops_are_launches(seen, dtype):
    x, y = T.TensorType(dtype, (False,) * 3)("x"), T.TensorType(dtype, (False,) * 3)("y")
    f = gpuscan.function(
        [x, y], [T.concatenate([x[::-1], y, x], axis) for axis in (0, 1, 2)], device="emulated"
    )
    a = (np.arange(24).reshape(2, 3, 4) % 3).astype(dtype)
    for found, axis in zip(f(a, a + a), (0, 1, 2)):
        np.testing.assert_array_equal(found, np.concatenate([a[::-1], a + a, a], axis))
    assert {x.name for x in seen.launches} == {"elements"}
    with pytest.raises(ValueError, match="dimension"):
        f(a, a[:, :, :1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["softmax", "logsoftmax"])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_softmax_of_a_thread_is_in_its_registers(seen, n, name, dtype):
    """Also of a row that is the same for all."""
    h, fn = T.matrix("h", dtype), getattr(T.nnet, name)
    mine = np.linspace(-1, 1, n).astype(dtype)
    own = lambda h: 2 * fn(h) + 0.5 * h  # noqa: E731
    same = lambda h: h * fn(T.constant(mine))  # noqa: E731
    given = np.random.default_rng(n).normal(size=(2, n)).astype(dtype)
    for step in (own, same):
        hs, _ = gpuscan.scan(step, outputs_info=h, n_steps=3)
        f, g = (gpuscan.function([h], hs, mode="FAST_COMPILE", device=d)
                for d in ("emulated", "reference"))  # fmt: skip
        np.testing.assert_array_equal(f(given), g(given))
    assert {x.scope for x in seen.loops} == {"thread"}
    assert_in_registers(seen.sources)


def assert_in_registers(sources):
    if not nvrtc.missing():
        for source, architecture in zip(
            sorted(sources), itertools.cycle(["sm_75", "sm_90", "sm_120"])
        ):
            (r,) = nvrtc.compile(source, architecture).resources.values()
            assert (r.spill_stores, r.spill_loads, r.stack) == (0, 0, 0), source


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_element_of_a_thread_that_data_choose_is_in_its_registers(seen, n, dtype):
    """Read and written, and added to in the gradient; positions count from the end, too."""
    k, h = T.lvector("k"), T.matrix("h", dtype)

    def step(k, h):
        new = T.set_subtensor(h[:, k], h[:, k - 1] * 2 - h[:, 0])
        return T.tanh(new) if dtype == "float32" else new

    hs, _ = gpuscan.scan(step, sequences=k, outputs_info=h)
    outputs = [hs[-1], T.grad((hs[-1] ** 2).sum(), h)] if dtype == "float32" else [hs[-1]]
    f, g = (gpuscan.function([k, h], outputs, device=d) for d in ("emulated", "reference"))
    start = np.random.default_rng(n).normal(size=(3, n), scale=4).astype(dtype)
    at = np.random.default_rng(n).integers(1 - n, n, size=9)
    for found, wanted in zip(f(at, start), g(at, start)):
        np.testing.assert_array_equal(found, wanted)
    assert {x.scope for x in seen.loops} == {"thread"}
    assert_in_registers(seen.sources)
