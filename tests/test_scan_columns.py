"""States that hold examples in columns, multiplied from the left: the loop that runs is the one
that is written with rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan
from gpuscan import tensor as T
from gpuscan.graph import depends_on, toposort
from gpuscan.ops.linalg import Dot
from gpuscan.ops.shape import DimShuffle
from gpuscan.runtime import emulator
from gpuscan.runtime.emulated import Emulated
from gpuscan.scan.op import Scan

UNITS = 4  # of a state
S = T.nnet.sigmoid


class Rows:
    """How a cell is written where an example is a row."""

    units = 1  # the axis

    @staticmethod
    def dot(h, w):
        return T.dot(h, w)

    @staticmethod
    def each(b):  # the same for all examples
        return b[None, :]

    @classmethod
    def part(cls, z, k):
        return z[(slice(None),) * cls.units + (slice(k * UNITS, (k + 1) * UNITS),)]

    @classmethod
    def joined(cls, *parts):
        return T.concatenate(parts, axis=cls.units)

    @classmethod
    def softmax(cls, z):
        e = T.exp(z - z.max(axis=cls.units, keepdims=True))
        return e / e.sum(axis=cls.units, keepdims=True)

    @classmethod
    def per_example(cls, z):
        return z.sum(axis=cls.units)

    @classmethod
    def spread(cls, v):  # of an example, for all units
        return v[:, None]

    @classmethod
    def spread_rows(cls, v):  # of each step
        return v[:, :, None]

    @classmethod
    def unit(cls, z, k):  # of each example
        return z[(slice(None),) * cls.units + (k,)]

    @classmethod
    def with_part(cls, z, y):
        return T.inc_subtensor(z[(slice(None),) * cls.units + (slice(1, 3),)], y)


class Columns(Rows):
    """The same where it is a column."""

    units = 0

    @staticmethod
    def dot(h, w):
        return T.dot(w, h)

    @staticmethod
    def each(b):
        return b[:, None]

    @classmethod
    def spread(cls, v):
        return v[None, :]

    @classmethod
    def spread_rows(cls, v):
        return v[:, None, :]


def elman(o, x, h, w, u, b):
    return T.tanh(o.dot(h, w) + o.dot(x, u) + o.each(b))


def lstm(o, x, h, c, w, u, b):
    z = o.dot(x, u) + o.dot(h, w) + o.each(b)
    c = S(o.part(z, 0)) * c + S(o.part(z, 1)) * T.tanh(o.part(z, 2))
    return S(o.part(z, 3)) * T.tanh(c), c


def gru(o, x, h, w, u, b):
    a, z = o.dot(x, u) + o.each(b), o.dot(h, w)
    r, keep = S(o.part(a, 0) + o.part(z, 0)), S(o.part(a, 1) + o.part(z, 1))
    return keep * h + (1 - keep) * T.tanh(o.part(a, 2) + r * o.part(z, 2))


CELLS = {"elman": (elman, 1, 1), "lstm": (lstm, 4, 2), "gru": (gru, 3, 1)}  # gates, states


def network(o, name):
    """The inputs, and the states with the gradients for all inputs."""
    cell, _, states = CELLS[name]
    x, w, u, b = T.ftensor3("x"), T.fmatrix("w"), T.fmatrix("u"), T.fvector("b")
    inits = [T.fmatrix(f"h{k}") for k in range(states)]
    hs, _ = gpuscan.scan(
        lambda *given: cell(o, *given), x, inits, [w, u, b], name=name, return_list=True
    )
    loss = sum((h**2).sum() for h in hs) + hs[0][-1].sum()
    inputs = [x, *inits, w, u, b]
    return inputs, [*hs, *T.grad(loss, inputs)]


def numbers(name, batch, steps, seed=0):
    """For the network in columns."""
    _, gates, states = CELLS[name]
    rng = np.random.default_rng(seed)
    shapes = [(steps, 3, batch), *[(UNITS, batch)] * states,
              (gates * UNITS, UNITS), (gates * UNITS, 3), (gates * UNITS,)]  # fmt: skip
    return [rng.normal(size=s).astype("float32") for s in shapes]


def across(x):
    return np.swapaxes(x, -1, -2) if x.ndim > 1 else x


def loops(f):
    return [v for v in toposort(f.maker.fgraph.outputs) if isinstance(v.op, Scan)]


def assert_turned(f):
    """No carry of a loop needs a transposition of what changes, or a product of that from the left
    with what does not."""
    assert loops(f)
    for loop in loops(f):
        step = loop.op.step
        changing = depends_on(step.outputs, step.seqs + step.carries)
        for v in toposort(step.new):
            if v in changing:
                assert not isinstance(v.op, DimShuffle) or v.op.pattern != (1, 0)
                assert not isinstance(v.op, Dot) or v.inputs[0] in changing or v.ndim < 2


def assert_close(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max(initial=1))


def compared(inputs, outputs, *given, updates=None, device="reference"):
    """The function, after the rewrites, with the values of the graph as it was written."""
    f = gpuscan.function(inputs, outputs, device=device)
    plain = gpuscan.function(inputs, outputs, device="reference", mode="FAST_COMPILE")
    for values in given:
        assert_close(f(*values), plain(*values))
    return f


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_columns_runs_as_the_one_in_rows(name):
    f = compared(*network(Columns, name), numbers(name, 5, 3), numbers(name, 2, 1))
    rows = gpuscan.function(*network(Rows, name), device="reference")
    assert_turned(f)
    ops = [
        [
            sorted(v.op.label for v in toposort(loop.op.step.outputs) if v.inputs)
            for loop in loops(g)
        ]
        for g in (f, rows)
    ]
    assert ops[0] == ops[1]
    given = numbers(name, 5, 3)
    assert_close(map(across, rows(*map(across, given))), f(*given))


@pytest.mark.parametrize("scope", ["block", "grid"])
@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
def test_the_number_of_columns_builds_nothing_again(monkeypatch, scope):
    monkeypatch.setattr(Emulated, "scope", scope)
    build, built = Emulated.build, set()

    def seen(self, source, name):
        if name.startswith("loop"):
            built.add(source)
        return build(self, source, name)

    monkeypatch.setattr(Emulated, "build", seen)
    inputs, outputs = network(Columns, "elman")
    given = [numbers("elman", batch, steps) for batch, steps in ((3, 2), (5, 7), (1, 1))]
    f = compared(inputs, [outputs[0], outputs[2]], *given, device="emulated")  # h, and d h0
    assert [p.path for p in f.explain().scans] == ["fused"] * 2
    assert len(built) == 2  # forward and backward


def test_weights_of_a_loop_in_columns_are_held():
    f = gpuscan.function(*network(Columns, "gru"), device="reference")
    f(*numbers("gru", 5, 3))
    text = str(f.explain(target="h100"))
    assert text.count("its rows need no other rows") + text.count("a thread has a row") == 2, text


STAY = {
    "a product from the right": lambda h, w, r: T.dot(T.dot(w, h), w),
    "its own transpose": lambda h, w, r: T.dot(w, h) + h.T,
    "a matrix made anew": lambda h, w, r: T.dot(w, h).reshape((2, 8)).reshape((4, 4)),
    "draws": lambda h, w, r: T.dot(w, h) * r.uniform(h.shape),
}


@pytest.mark.parametrize("what", STAY)
def test_a_loop_that_would_need_a_transposition_stays(what):
    r = T.shared_randomstreams.RandomStreams(1)
    w, h0 = T.fmatrix("w"), T.fmatrix("h0")
    step = lambda h, w: T.tanh(STAY[what](h, w, r)).astype("float32")  # noqa: E731
    h, updates = gpuscan.scan(step, None, h0, [w], n_steps=3)
    given = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    outputs = [h, T.grad(h.sum(), h0)]
    f, plain = (
        gpuscan.function([w, h0], outputs, updates=updates, device="reference", mode=mode)
        for mode in ("FAST_RUN", "FAST_COMPILE")
    )
    assert all(c.name == "h0[t-1]" for c in loops(f)[0].op.step.carries if c.ndim == 2)
    found = f(*given)
    r.seed(1)
    assert_close(found, plain(*given))


# ---- loops that hypothesis makes up -------------------------------------------------------------

MAKE = {
    "tanh": lambda o, w, a: T.tanh(a),
    "mul": lambda o, w, a, b: a * b,
    "add": lambda o, w, a, b: a + b,
    "switch": lambda o, w, a, b: T.switch(a > 0, a, b),
    "dot": lambda o, w, a: o.dot(a, w["square"]),
    "same dot": lambda o, w, a: o.dot(a, w["square"].T),
    "gates": lambda o, w, a: S(o.part(z := o.dot(a, w["wide"]), 1)) * o.part(z, 0),
    "joined": lambda o, w, a, b: o.dot(o.joined(a, b), w["wide"].T),
    "softmax": lambda o, w, a: o.softmax(a),
    "scaled": lambda o, w, a, b: a / o.spread(1 + o.per_example(b**2)),
    "biased": lambda o, w, a: a + o.each(w["bias"]),
    "unit": lambda o, w, a: a - o.spread(o.unit(a, 1)),
    "best": lambda o, w, a: a + o.spread(a.argmax(axis=o.units).astype("float32")),
    "written": lambda o, w, a: o.with_part(a, o.spread(o.unit(a, 3))),
    "lengths": lambda o, w, a: a / a.shape[o.units].astype("float32"),
    "mean": lambda o, w, a: a - a.mean(axis=1 - o.units, keepdims=True),
}
TWO = ("mul", "add", "switch", "joined", "scaled")

leaves = st.sampled_from(("h", "g[t-2]", "g[t-1]", "x", "v"))
expressions = st.recursive(
    leaves,
    lambda e: st.one_of(
        st.tuples(st.sampled_from([m for m in MAKE if m not in TWO]), e),
        st.tuples(st.sampled_from(TWO), e, e),
    ),
    max_leaves=5,
)


def built(e, o, w, values):
    if isinstance(e, str):
        return o.spread(values["v"]) + values["h"] if e == "v" else values[e]
    return MAKE[e[0]](o, w, *(built(x, o, w, values) for x in e[1:]))


def made_up(o, cells, go_backwards, stops):
    x, n = T.ftensor3("x"), T.lscalar("n")
    w = {"square": T.fmatrix("square"), "wide": T.fmatrix("wide"), "bias": T.fvector("bias")}
    h0, g0, v0 = T.fmatrix("h0"), T.ftensor3("g0"), T.fvector("v0")

    def step(x, h, g2, g1, v, *_):
        values = {"x": x, "h": h, "g[t-2]": g2, "g[t-1]": g1, "v": v}
        h, g = (T.tanh(built(e, o, w, values)) for e in cells)
        new = [o.dot(h, w["square"]), g, T.tanh(v + o.per_example(g))]
        return (new, gpuscan.scan_module.until(T.gt(h.sum(), 0))) if stops else new

    states, _ = gpuscan.scan(
        step, x, [h0, {"initial": g0, "taps": [-2, -1]}, v0], list(w.values()),
        n_steps=n, go_backwards=go_backwards,
    )  # fmt: skip
    states[2] = o.spread_rows(states[2])
    loss = sum((s**2).sum() for s in states)
    inputs = [x, h0, g0, v0, *w.values()]
    grads = T.grad(loss, inputs, disconnected_inputs="ignore")
    return [*inputs, n], [*states, *grads]


@settings(max_examples=5)
@given(
    cells=st.tuples(expressions, expressions), go_backwards=st.booleans(), stops=st.booleans(),
    steps=st.integers(0, 3),
)  # fmt: skip
def test_a_loop_in_columns_is_the_one_in_rows(cells, go_backwards, stops, steps):
    rng = np.random.default_rng(0)
    shapes = ((3, UNITS, 2), (UNITS, 2), (2, UNITS, 2), (2,), (UNITS, UNITS), (2 * UNITS, UNITS))
    given = [rng.normal(size=s).astype("float32") for s in (*shapes, (UNITS,))]
    inputs, outputs = made_up(Columns, cells, go_backwards, stops)
    f = gpuscan.function(inputs, outputs, device="reference", on_unused_input="ignore")
    assert_turned(f)
    inputs, outputs = made_up(Rows, cells, go_backwards, stops)
    rows = gpuscan.function(
        inputs, outputs, device="reference", mode="FAST_COMPILE", on_unused_input="ignore"
    )
    assert_close(map(across, f(*given, steps)), rows(*map(across, given), steps))
