"""What every argument of scan means: SCAN.md 0 and 1.1 to 1.10."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.printing import debugprint
from gpuscan.theano import gof

f32 = np.float32


def run(outputs, inputs=(), values=(), **options):
    f = theano.function(list(inputs), outputs, allow_input_downcast=True, **options)
    return f(*values)


def ones(*shape):
    return np.ones(shape, "float32")


def argument_names(returns, **arguments):
    """The names of the variables that fn is given."""
    seen = []

    def fn(*args):
        seen.append([a.name for a in args])
        return returns(args)

    theano.scan(fn, **arguments)
    assert len(seen) == 1, "fn is called exactly once"
    return seen[0]


# ---- 1.1, 1.2: normalisation and the order of fn's arguments -------------------------------------


def test_arguments_come_in_the_order_of_the_contract():
    s1, s2, s3 = T.vector("S1"), T.vector("S2"), T.vector("S3")
    o1, o3 = T.vector("O1"), T.scalar("O3")
    w = T.scalar("W")
    names = argument_names(
        lambda a: [a[0] + a[5], a[1], a[7] * a[8]],
        sequences=[dict(input=s1, taps=[-3, 2, -1]), s2, dict(input=s3, taps=3)],
        outputs_info=[dict(initial=o1, taps=[-3, -5]), None, o3],
        non_sequences=[w],
    )
    assert names == [
        "S1[t-3]", "S1[t+2]", "S1[t-1]", "S2[t]", "S3[t+3]", "O1[t-3]", "O1[t-5]", "O3[t-1]", "W",
    ]  # fmt: skip


def test_the_order_of_positional_arguments_of_scan():
    state = T.scalar("state")
    out, updates = theano.scan(lambda a: a * 2, [], state, [], 3, -1, False, None, "name")
    assert run(out, [state], [1.0]).tolist() == [2, 4, 8]


def test_slices_of_unnamed_variables_have_no_name():
    x = T.vector("x")
    assert argument_names(lambda a: a[0], sequences=[x * 2]) == [None]


def test_non_sequences_are_passed_as_the_objects_themselves():
    x, w, s = T.vector("x"), T.matrix("w"), theano.shared(np.ones(2, "float32"), "s")
    e = w * 2
    seen = []
    theano.scan(lambda row, *rest: seen.extend(rest) or row, x, non_sequences=[w, s, e])
    assert seen == [w, s, e]
    assert all(a is b for a, b in zip(seen, [w, s, e]))


def test_rows_are_fresh_variables_of_the_rows_type():
    x, i = T.matrix("x"), T.lmatrix("i")
    seen = []
    theano.scan(lambda *a: seen.extend(a) or a[0], [x, i])
    assert [(v.dtype, v.ndim, v.owner) for v in seen] == [("float32", 1, None), ("int64", 1, None)]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: (x,)])
def test_a_single_entry_needs_no_list(wrap):
    x, a, w = T.vector("x"), T.scalar("a"), T.scalar("w")
    out, _ = theano.scan(lambda r, s, k: s * k + r, wrap(x), wrap(a), wrap(w))
    assert run(out, [x, a, w], [[1, 2, 3], 1.0, 2.0]).tolist() == [3, 8, 19]


def test_a_single_dict_is_a_single_entry():
    x, a = T.vector("x"), T.vector("a")
    out, _ = theano.scan(lambda r, s: r + s, dict(input=x, taps=[0]), dict(initial=a, taps=[-2]))
    assert run(out, [x, a], [[1, 2, 3], [10, 20]]).tolist() == [11, 22, 14]


@pytest.mark.parametrize("entry", [{}, {"taps": None}, {"taps": [0]}, {"taps": 0}, {"taps": [-0]}])
def test_a_sequence_dict_without_taps_means_tap_zero(entry):
    x = T.vector("x")
    out, _ = theano.scan(lambda r: r * 2, dict(input=x, **entry))
    assert run(out, [x], [[1, 2]]).tolist() == [2, 4]


def test_arrays_and_lists_are_sequences_and_constants():
    out, _ = theano.scan(
        lambda a, b, k: a * b + k,
        [np.arange(3, dtype="float32"), np.arange(3.0, dtype="f")],
        None,
        5,
    )
    assert run(out).tolist() == [5, 6, 9]


def test_numbers_are_non_sequences():
    x = T.vector("x")
    out, _ = theano.scan(
        lambda r, i, f, a: r * i + f + a[0], x, None, [2, 0.5, np.array([10, 0], "float32")]
    )
    assert out.dtype == "float32"
    assert run(out, [x], [[1, 2]]).tolist() == [12.5, 14.5]


def test_the_callers_dicts_are_not_touched():
    x, a = T.vector("x"), T.scalar("a")
    seq, info = {"input": x}, {"initial": a}
    infos = [info, {}, None]
    theano.scan(lambda r, s: [r + s, r, s], [seq], infos)
    assert seq == {"input": x}
    assert info == {"initial": a}
    assert infos == [info, {}, None]


@pytest.mark.parametrize("none", [None, {}, dict(initial=None), dict(initial=None, taps=None)])
def test_an_output_without_feedback(none):
    x = T.vector("x")
    seen = []
    out, _ = theano.scan(lambda *a: seen.extend(a) or a[0] + 1, x, [none])
    assert len(seen) == 1
    assert run(out, [x], [[1, 2]]).tolist() == [2, 3]


def test_taps_none_with_an_initial_state_warns_and_means_the_last_value():
    a = T.scalar("a")
    with pytest.warns(UserWarning, match="taps"):
        out, _ = theano.scan(lambda s: s * 2, None, dict(initial=a, taps=None), n_steps=2)
    assert run(out, [a], [1.0]).tolist() == [2, 4]


def test_initial_with_tap_minus_one_is_plain_initial():
    a = T.scalar("a")
    plain, _ = theano.scan(lambda s: s * 2, None, a, n_steps=3)
    tapped, _ = theano.scan(lambda s: s * 2, None, dict(initial=a, taps=[-1]), n_steps=3)
    assert run(plain, [a], [1.0]).tolist() == run(tapped, [a], [1.0]).tolist() == [2, 4, 8]


def test_theanos_inplace_key_is_accepted():
    a = T.scalar("a")
    out, _ = theano.scan(lambda s: s * 2, None, dict(initial=a, inplace=a), n_steps=2)
    assert run(out, [a], [1.0]).tolist() == [2, 4]


def test_outputs_without_outputs_info_are_counted_by_fn():
    x = T.vector("x")
    for none in (None, []):
        outs, _ = theano.scan(lambda r: [r, r * 2, r + 1], x, none)
        assert [o.tolist() for o in run(outs, [x], [[1, 2]])] == [[1, 2], [2, 4], [2, 3]]


def test_fn_without_arguments():
    w = theano.shared(f32(3), "w")
    out, _ = theano.scan(lambda: w, n_steps=2)
    assert run(out).tolist() == [3, 3]


def test_fn_may_swallow_arguments():
    x, a = T.vector("x"), T.scalar("a")
    out, _ = theano.scan(lambda u, *_: u * 2, x, [None], [a])
    f = theano.function([x, a], out, on_unused_input="ignore")
    assert f([1, 2], 0).tolist() == [2, 4]


# ---- 1.3: sequence taps --------------------------------------------------------------------------


def tapped_rows(x, taps, n_steps, backwards):
    """What each tap reads at each step, by the contract's formula."""
    m, last = min(0, *taps), max(0, *taps)
    e = len(x) - (last - m)
    n = e if n_steps is None else n_steps
    if backwards:
        return [[x[(k - m) + (e - 1 - t)] for t in range(n)] for k in taps]
    return [[x[t + k - m] for t in range(n)] for k in taps]


@settings(max_examples=40, deadline=None)
@given(
    taps=st.lists(st.integers(-3, 3), min_size=1, max_size=3),
    backwards=st.booleans(),
    n_steps=st.one_of(st.none(), st.integers(0, 3)),
    length=st.integers(9, 11),
)
def test_sequence_taps_read_what_the_contract_says(taps, backwards, n_steps, length):
    x = np.arange(length, dtype="float32") ** 2
    out, _ = theano.scan(
        lambda *rows: list(rows), dict(input=x, taps=taps), n_steps=n_steps,
        go_backwards=backwards, return_list=True,
    )  # fmt: skip
    expected = tapped_rows(x, taps, n_steps, backwards)
    assert [o.tolist() for o in run(out)] == [[float(v) for v in row] for row in expected]


@pytest.mark.parametrize(
    "taps, length", [([2], 3), ([-2], 3), ([0], 5), ([-1, 1], 3), ([-2, 0], 3)]
)
def test_trimming_always_counts_tap_zero(taps, length):
    x = T.vector("x")
    out, _ = theano.scan(lambda *r: r[0], dict(input=x, taps=taps))
    assert len(run(out, [x], [np.arange(5)])) == length


def test_backwards_with_n_steps_reads_the_last_rows():
    x = T.vector("x")
    out, _ = theano.scan(lambda r: r, x, n_steps=2, go_backwards=True)
    assert run(out, [x], [[1, 2, 3, 4, 5]]).tolist() == [5, 4]


def test_unequal_lengths_run_the_shortest():
    x, y = T.vector("x"), T.vector("y")
    out, _ = theano.scan(lambda a, b: a * 10 + b, [x, y])
    f = theano.function([x, y], out)
    assert f([1, 2, 3], [4, 5]).tolist() == [14, 25]
    assert f([1], [4, 5]).tolist() == [14]


def test_unequal_lengths_going_backwards_each_start_at_their_own_end():
    x, y = T.vector("x"), T.vector("y")
    out, _ = theano.scan(lambda a, b: a * 10 + b, [x, y], go_backwards=True)
    assert run(out, [x, y], [[1, 2, 3], [4, 5]]).tolist() == [35, 24]


def test_the_polynomial_of_the_documentation():
    coefficients, x = T.vector("coefficients"), T.scalar("x")
    parts, _ = theano.scan(
        fn=lambda c, power, x: c * (x**power), outputs_info=None,
        sequences=[coefficients, T.arange(10000)], non_sequences=x,
    )  # fmt: skip
    f = theano.function([coefficients, x], parts.sum(), allow_input_downcast=True)
    assert f(np.asarray([1, 0, 2]), 3) == 19.0


def test_expressions_transposes_scans_and_shared_variables_are_sequences():
    m = theano.shared(np.arange(6, dtype="float32").reshape(2, 3), "m")
    first, _ = theano.scan(lambda row: row.sum(), m.T)
    second, _ = theano.scan(lambda v, i: v * i, [first, T.arange(3)])
    third, _ = theano.scan(lambda v: v + 1, second)
    assert run(third).tolist() == [1, 6, 15]


def test_rows_of_tensors_have_one_dimension_less():
    x = T.tensor4("x")
    out, _ = theano.scan(lambda r: r * 2, x)
    value = np.arange(16, dtype="float32").reshape(2, 2, 2, 2)
    assert out.ndim == 4
    np.testing.assert_array_equal(run(out, [x], [value]), value * 2)


def test_a_sequence_used_twice():
    x = T.vector("x")
    out, _ = theano.scan(lambda a, b: a * b, [x, x])
    assert run(out, [x], [[1, 2, 3]]).tolist() == [1, 4, 9]


# ---- n_steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, np.int32(2), np.int64(2), np.array(2)])
def test_n_steps_as_an_integer(n):
    x = T.vector("x")
    out, _ = theano.scan(lambda r: r, x, n_steps=n)
    assert run(out, [x], [[1, 2, 3]]).tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["iscalar", "lscalar", "bscalar"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_n_steps_as_a_symbolic_integer(kind, count):
    n, a = getattr(T, kind)("n"), T.scalar("a")
    out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=n)
    assert run(out, [n, a], [count, 1.0]).tolist() == [2, 4, 8][:count]


def test_n_steps_as_an_expression():
    x, a = T.vector("x"), T.scalar("a")
    out, _ = theano.scan(lambda s: s + 1, None, a, n_steps=x.shape[0] * 2 - 1)
    assert run(out, [x, a], [[7, 7], 0.0]).tolist() == [1, 2, 3]


# ---- constant n_steps=1: the step itself ---------------------------------------------------------


def scans_in(f):
    return [n for n in f.maker.fgraph.toposort() if type(n.op).__name__ == "Scan"]


def test_one_step_builds_no_loop():
    x, a = T.vector("x"), T.scalar("a")
    out, updates = theano.scan(lambda r, s: r + s, x, a, n_steps=1)
    f = theano.function([x, a], out)
    assert not scans_in(f)
    assert f([5, 6], 1.0).tolist() == [6]
    assert updates == {}


def test_one_step_gives_a_leading_axis_that_does_not_broadcast():
    a = T.vector("a")
    out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=1)
    assert out.broadcastable == (False, False)
    assert run(out, [a], [[1, 2]]).shape == (1, 2)


def test_one_step_takes_an_initial_state_that_upcasts():
    x = T.ivector("x")
    out, _ = theano.scan(lambda r, s: r + s, dict(input=x, taps=[2]), 0, n_steps=1)
    assert run(out, [x], [np.arange(4, dtype="int32")]).tolist() == [2]


def test_one_step_goes_backwards():
    x = T.vector("x")
    out, _ = theano.scan(lambda r: r, x, n_steps=1, go_backwards=True)
    assert run(out, [x], [[1, 2, 3]]).tolist() == [3]


def test_one_step_with_output_taps_reads_the_rows_of_the_initial_state():
    a = T.vector("a")
    out, _ = theano.scan(
        lambda s3, s1: s3 * 10 + s1, None, dict(initial=a, taps=[-3, -1]), n_steps=1
    )
    assert run(out, [a], [[1, 2, 3]]).tolist() == [13]


def test_one_step_ignores_until_and_warns():
    x = T.vector("x")
    with pytest.warns(UserWarning, match="until"):
        out, _ = theano.scan(lambda r: (r, theano.until(r > 0)), x, n_steps=1)
    assert run(out, [x], [[1, 2]]).tolist() == [1]


def test_one_step_returns_the_updates_of_fn():
    k = theano.shared(f32(1), "k")
    out, updates = theano.scan(lambda: {k: k + 1}, n_steps=1)
    assert out == []
    assert isinstance(updates, theano.OrderedUpdates)
    run([], updates=updates)
    assert k.get_value() == 2


@settings(max_examples=25, deadline=None)
@given(
    taps=st.lists(st.integers(-2, 2), min_size=1, max_size=2),
    state_taps=st.lists(st.integers(-3, -1), min_size=1, max_size=2, unique=True),
    backwards=st.booleans(),
)
def test_constant_one_step_equals_the_loop_run_once(taps, state_taps, backwards):
    x = np.arange(8, dtype="float32")
    depth = -min(state_taps)
    a = np.arange(10, 10 + depth, dtype="float32")
    a = a[0] if state_taps == [-1] else a
    n = T.lscalar("n")

    def loop(n_steps):
        return theano.scan(
            lambda *v: sum(f32(7**i) * s for i, s in enumerate(v)), dict(input=x, taps=taps),
            dict(initial=a, taps=state_taps), n_steps=n_steps, go_backwards=backwards,
        )[0]  # fmt: skip

    assert run(loop(1)).tolist() == run(loop(n), [n], [1]).tolist()


# ---- 1.4: output taps and initial states ---------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    taps=st.lists(st.integers(-4, -1), min_size=1, max_size=4, unique=True),
    n=st.integers(0, 6),
    extra=st.integers(0, 2),
)
def test_output_taps_read_what_the_contract_says(taps, n, extra):
    q = -min(taps)
    plain = taps == [-1]
    initial = np.arange(1, 1 + q + (0 if plain else extra), dtype="float32")
    past = [float(v) for v in initial[:q]]
    for t in range(n):
        past.append(sum((i + 1) * past[t + q + k] for i, k in enumerate(taps)) % 97)
    a = initial[0] if plain else initial
    out, _ = theano.scan(
        lambda *s: T.mod(sum(v * f32(i + 1) for i, v in enumerate(s)), f32(97)),
        None, dict(initial=a, taps=taps), n_steps=n,
    )  # fmt: skip
    # n == 1 gives the step itself; every other n a loop
    assert run(out).tolist() == past[q:]


def test_outputs_exclude_the_initial_rows():
    a = T.matrix("a")
    out, _ = theano.scan(lambda p, q: p + q, None, dict(initial=a, taps=[-2, -1]), n_steps=3)
    assert run(out, [a], [[[1, 10], [1, 20]]]).tolist() == [[2, 30], [3, 50], [5, 80]]


def test_each_output_has_its_own_dtype():
    x = T.vector("x")
    outs, _ = theano.scan(
        lambda r, i, d, b: [i + np.int32(1), d + 0.5, r > 1, T.cast(b + r, "int8")],
        x, [np.int32(0), np.float64(0), None, np.int8(1)],
    )  # fmt: skip
    assert [o.dtype for o in outs] == ["int32", "float64", "bool", "int8"]
    i, d, b, c = run(outs, [x], [[1, 2, 3]])
    assert (i.tolist(), d.tolist(), b.tolist(), c.tolist()) == (
        [1, 2, 3], [0.5, 1, 1.5], [False, True, True], [2, 4, 7],
    )  # fmt: skip
    assert [v.dtype.name for v in (i, d, b, c)] == ["int32", "float64", "bool", "int8"]


def test_a_python_int_is_an_int8_state():
    out, _ = theano.scan(lambda s: s + 1, None, 0, n_steps=3)
    assert out.dtype == "int8"
    assert run(out).tolist() == [1, 2, 3]


def test_a_list_is_an_initial_state():
    out, _ = theano.scan(lambda s: s + 1, None, [[0, 0]], n_steps=2)
    assert out.dtype == "int64"  # a number takes the smallest dtype, a list does not
    assert run(out).tolist() == [[1, 1], [2, 2]]


def test_a_size_one_dimension_that_the_step_widens_is_taken_to_be_unknown():
    x = T.tensor3("x")
    out, _ = theano.scan(
        lambda r, s: r + s, x, T.unbroadcast(T.constant(np.zeros((1, 2), "float32")), 0)
    )
    value = np.arange(4, dtype="float32").reshape(2, 1, 2)
    assert run(out, [x], [value]).tolist() == [[[0, 1]], [[2, 4]]]
    # and so by itself, without T.unbroadcast
    out, _ = theano.scan(lambda r, s: r + s, x, T.constant(np.zeros((1, 2), "float32")))
    assert run(out, [x], [value]).tolist() == [[[0, 1]], [[2, 4]]]


def test_an_input_may_be_returned_unchanged():
    x, a = T.vector("x"), T.scalar("a")
    outs, _ = theano.scan(lambda r, s: [r, s], x, [None, a])
    assert [o.tolist() for o in run(outs, [x, a], [[1, 2], 5.0])] == [[1, 2], [5, 5]]


def test_the_same_variable_may_be_returned_twice():
    x = T.vector("x")
    (p, q), _ = theano.scan(lambda r: [r * 2] * 2, x)
    assert [o.tolist() for o in run([p, q], [x], [[1, 2]])] == [[2, 4], [2, 4]]


def test_states_may_swap_places():
    a, b = T.scalar("a"), T.scalar("b")
    (p, q), _ = theano.scan(lambda p, q: [q, p], None, [a, b], n_steps=3)
    assert [o.tolist() for o in run([p, q], [a, b], [1.0, 2.0])] == [[2, 1, 2], [1, 2, 1]]


def test_one_initial_state_for_two_outputs():
    a = T.scalar("a")
    (p, q), _ = theano.scan(lambda p, q: [p + 1, q * 2], None, [a, a], n_steps=2)
    assert [o.tolist() for o in run([p, q], [a], [1.0])] == [[2, 3], [2, 4]]


# ---- 1.5: what fn returns ------------------------------------------------------------------------


RETURNS = {
    "variable": (lambda r, k: r * 2, 1, False),
    "list": (lambda r, k: [r * 2], 1, False),
    "tuple": (lambda r, k: (r * 2, r), 2, False),
    "empty dict": (lambda r, k: {}, 0, False),
    "dict": (lambda r, k: {k: k + r}, 0, True),
    "OrderedDict": (lambda r, k: OrderedDict([(k, k + r)]), 0, True),
    "pairs": (lambda r, k: [(k, k + r)], 0, True),
    "outputs, dict": (lambda r, k: (r * 2, {k: k + r}), 1, True),
    "list, dict": (lambda r, k: ([r * 2, r], {k: k + r}), 2, True),
    "list, empty dict": (lambda r, k: ([r * 2], {}), 1, False),
    "list, pairs": (lambda r, k: ([r * 2], [(k, k + r)]), 1, True),
    "outputs, empty list": (lambda r, k: ([r * 2], []), 1, False),
    "tuple of pairs": (lambda r, k: ((k, k + r),), 0, True),
    "outputs, until": (lambda r, k: (r * 2, theano.until(r > 2)), 1, False),
    "list, until": (lambda r, k: ([r * 2, r], theano.until(r > 2)), 2, False),
    "dict, until": (lambda r, k: ({k: k + r}, theano.until(r > 2)), 0, True),
    "all": (lambda r, k: ([r * 2], {k: k + r}, theano.until(r > 2)), 1, True),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_what_fn_may_return(kind):
    fn, n_outputs, has_update = RETURNS[kind]
    x, k = T.vector("x"), theano.shared(f32(0), "k")
    outs, updates = theano.scan(lambda r: fn(r, k), x, return_list=True)
    assert len(outs) == n_outputs
    assert list(updates) == ([k] if has_update else [])
    found = run(outs, [x], [[1, 2, 3, 4]], updates=updates, on_unused_input="ignore")
    steps = 3 if "until" in kind or kind == "all" else 4
    doubled = [2, 4, 6, 8][:steps]
    assert [o.tolist() for o in found] == [doubled, [1, 2, 3, 4][:steps]][:n_outputs]
    assert k.get_value() == (sum([1, 2, 3, 4][:steps]) if has_update else 0)


# ---- 1.7: until ----------------------------------------------------------------------------------


def test_the_step_that_meets_the_condition_is_included():
    limit = T.scalar("limit")
    out, _ = theano.scan(
        lambda s, limit: (s * 2, theano.until(s * 2 > limit)), None, T.constant(f32(1)), limit,
        n_steps=1024,
    )  # fmt: skip
    f = theano.function([limit], out)
    assert f(45).tolist() == [2, 4, 8, 16, 32, 64]
    assert f(-1).tolist() == [2]


def test_the_bound_stops_a_condition_that_is_never_met():
    x = T.vector("x")
    out, _ = theano.scan(lambda r: (r, theano.until(r < 0)), x)
    assert run(out, [x], [[1, 2, 3]]).tolist() == [1, 2, 3]


def test_all_outputs_of_an_until_have_the_number_of_steps_run():
    x, a = T.vector("x"), T.vector("a")
    outs, _ = theano.scan(
        lambda r, p, q: ([p + q, r], theano.until(r > 2)), x,
        [dict(initial=a, taps=[-2, -1]), None],
    )  # fmt: skip
    f = theano.function([x, a], [*outs, outs[0].shape[0], outs[1].shape[0]])
    p, r, n, m = f([1, 2, 3, 4], [1, 1])
    assert (p.tolist(), r.tolist(), n, m) == ([2, 3, 5], [1, 2, 3], 3, 3)


def test_asking_only_for_the_length_of_an_until():
    x = T.vector("x")
    out, _ = theano.scan(lambda r: (r * 2, theano.until(r > 2)), x)
    assert run(out.shape[0], [x], [[1, 2, 3, 4]]) == 3


def test_until_keeps_the_update_of_the_last_step_run():
    x, k = T.vector("x"), theano.shared(f32(0), "k")
    _, updates = theano.scan(lambda r: ({k: k + r}, theano.until(r > 1)), x)
    run([], [x], [[1, 2, 3]], updates=updates)
    assert k.get_value() == 3


def test_the_condition_may_read_what_nothing_else_does():
    x, limit = T.vector("x"), T.scalar("limit")
    out, _ = theano.scan(lambda r: (r * 2, theano.until(r > limit)), x)
    assert run(out, [x, limit], [[1, 2, 3, 4], 1.5]).tolist() == [2, 4]


@pytest.mark.parametrize("make", [lambda r: r, lambda r: T.cast(r, "int32"), lambda r: T.gt(r, 0)])
def test_any_nonzero_condition_stops(make):
    x = T.vector("x")
    out, _ = theano.scan(lambda r: (r, theano.until(make(r))), x)
    assert run(out, [x], [[0, 0, 1, 0]]).tolist() == [0, 0, 1]


def test_until_has_its_condition_as_an_attribute():
    c = T.scalar("c") > 0
    assert theano.until(c).condition is c


def test_until_with_a_state_of_its_own():
    (s, i), _ = theano.scan(
        lambda s, i: ([s * 2, i + np.int32(1)], theano.until(i >= 2)), None,
        [T.constant(f32(1)), np.int32(0)], n_steps=10,
    )  # fmt: skip
    assert [v.tolist() for v in run([s, i])] == [[2, 4, 8], [1, 2, 3]]


# ---- 1.8: closures, shared variables, updates ----------------------------------------------------


def test_outer_variables_may_be_captured():
    x, w = T.vector("x"), T.scalar("w")
    out, _ = theano.scan(lambda r: r * (w + 1), x)
    assert run(out, [x, w], [[1, 2], 2.0]).tolist() == [3, 6]


def test_a_captured_draw_is_drawn_again_in_each_step():
    rng = T.shared_randomstreams.RandomStreams(7)
    mask = rng.uniform((3,))
    x = T.vector("x")
    out, updates = theano.scan(lambda r: mask + r * 0, x)
    rows = run(out, [x], [[0, 0, 0]], updates=updates)
    assert len({tuple(r) for r in rows.tolist()}) == 3


def test_a_draw_that_is_passed_is_drawn_once():
    rng = T.shared_randomstreams.RandomStreams(7)
    mask = rng.uniform((3,))
    x = T.vector("x")
    out, updates = theano.scan(lambda r, m: m + r * 0, x, non_sequences=mask)
    f = theano.function([x], out, updates=updates)
    first, second = f([0, 0, 0]), f([0, 0, 0])
    assert len({tuple(r) for r in first.tolist()}) == 1
    assert first[0].tolist() != second[0].tolist()


def test_a_draw_inside_is_one_stream_that_advances_by_a_draw_a_step():
    loop = T.shared_randomstreams.RandomStreams(11)
    out, updates = theano.scan(lambda: loop.uniform((2,), -1, 1), n_steps=5)
    f = theano.function([], out, updates=updates)
    plain = T.shared_randomstreams.RandomStreams(11)
    g = theano.function([], plain.uniform((2,), -1, 1))
    np.testing.assert_array_equal(np.concatenate([f(), f()]), [g() for _ in range(10)])


def test_two_draws_in_a_step_are_two_streams():
    rng = T.shared_randomstreams.RandomStreams(3)

    def step(v):
        h = rng.binomial(v.shape, p=T.nnet.sigmoid(v), dtype="float32")
        return rng.binomial(v.shape, p=T.nnet.sigmoid(h), dtype="float32")

    v = T.vector("v")
    out, updates = theano.scan(step, None, v, n_steps=4)
    assert len(updates) == 2
    f = theano.function([v], out, updates=updates)
    again = T.shared_randomstreams.RandomStreams(3)
    rng = again
    one = theano.function([v], step(v))
    value = np.zeros(16, "float32")
    for row in f(value):
        value = one(value)
        np.testing.assert_array_equal(row, value)


def test_a_draw_may_take_its_size_from_a_loop_variable():
    rng = T.shared_randomstreams.RandomStreams(3)
    m = T.matrix("m")
    out, updates = theano.scan(lambda p: p + rng.normal(p.shape), None, m, n_steps=2)
    assert run(out, [m], [np.zeros((2, 3))], updates=updates).shape == (2, 2, 3)


def test_updates_that_are_not_passed_repeat_the_numbers_and_warn():
    rng = T.shared_randomstreams.RandomStreams(3)
    out, updates = theano.scan(lambda: rng.uniform((2,)), n_steps=2)
    (key,) = updates
    key.name = "my_state"
    with pytest.warns(UserWarning, match="my_state"):
        f = theano.function([], out)
    np.testing.assert_array_equal(f(), f())


def test_reads_of_a_shared_variable_see_the_value_before_the_update():
    k = theano.shared(f32(1), "k")
    out, updates = theano.scan(lambda: (k * 10, {k: k + 1}), n_steps=3)
    assert run(out, updates=updates).tolist() == [10, 20, 30]
    assert k.get_value() == 4


def test_assignments_of_a_step_are_simultaneous():
    a, b = theano.shared(f32(1), "a"), theano.shared(f32(5), "b")
    _, updates = theano.scan(lambda: {a: a + 1, b: a}, n_steps=3)
    run([], updates=updates)
    assert (a.get_value(), b.get_value()) == (4, 3)


def test_the_loop_starts_from_the_value_at_the_call():
    k = theano.shared(f32(1), "k")
    out, updates = theano.scan(lambda: (k + 0, {k: k * 2}), n_steps=2)
    f = theano.function([], out, updates=updates)
    k.set_value(f32(10))
    assert f().tolist() == [10, 20]
    assert f().tolist() == [40, 80]


def test_the_shared_example_of_the_documentation():
    a = theano.shared(1)
    values, updates = theano.scan(lambda: {a: a + 1}, n_steps=10)
    b = a + 1
    c = updates[a] + 1
    f = theano.function([], [b, c], updates=updates)
    assert [int(v) for v in f()] == [2, 12]
    assert a.get_value() == 11
    assert [int(v) for v in f()] == [12, 22]
    assert a.get_value() == 21


def test_updates_that_are_not_passed_leave_the_variable_alone():
    a = theano.shared(1, "a")
    values, updates = theano.scan(lambda: {a: a + 1}, n_steps=10)
    with pytest.warns(UserWarning, match="a"):
        f = theano.function([], updates[a])
    assert f() == f() == 11
    assert a.get_value() == 1


def test_a_shared_variable_with_update_may_be_listed_too():
    k = theano.shared(f32(1), "k")
    out, updates = theano.scan(lambda kk: (kk * 10, {k: k + 1}), None, non_sequences=k, n_steps=3)
    assert run(out, updates=updates).tolist() == [10, 20, 30]


def test_updates_of_any_dimension_and_dtype():
    m = theano.shared(np.ones((2, 2), "float64"), "m")
    i = theano.shared(np.int32(1), "i")
    _, updates = theano.scan(lambda: {m: m * 2.0, i: i + np.int32(2)}, n_steps=3)
    assert (updates[m].dtype, updates[m].ndim, updates[i].dtype) == ("float64", 2, "int32")
    run([], updates=updates)
    assert m.get_value().tolist() == [[8, 8], [8, 8]]
    assert i.get_value() == 7


def test_an_update_that_is_nowhere_read():
    k, x = theano.shared(f32(0), "k"), T.vector("x")
    _, updates = theano.scan(lambda r: {k: r * 2}, x)
    run([], [x], [[1, 2, 3]], updates=updates)
    assert k.get_value() == 6


def test_default_update_of_a_plain_shared_variable_is_carried():
    k = theano.shared(f32(0), "k")
    k.default_update = k + 1
    out, updates = theano.scan(lambda: k * 10, n_steps=3)
    assert run(out, updates=updates).tolist() == [0, 10, 20]
    assert k.get_value() == 3


def test_an_explicit_update_wins_over_the_default():
    k = theano.shared(f32(0), "k")
    k.default_update = k + 1
    out, updates = theano.scan(lambda: (k * 10, {k: k + 2}), n_steps=3)
    assert run(out, updates=updates).tolist() == [0, 20, 40]


def test_strict_lets_listed_shared_variables_pass():
    w, x = theano.shared(f32(2), "w"), T.vector("x")
    out, _ = theano.scan(lambda r, w: r * w, x, non_sequences=[w], strict=True)
    assert run(out, [x], [[1, 2]]).tolist() == [2, 4]
    s = theano.shared(np.ones(2, "float32"), "s")
    out, _ = theano.scan(lambda r: r * 2, s, strict=True)
    assert run(out).tolist() == [2, 2]


def test_strict_does_not_concern_random_states():
    rng = T.shared_randomstreams.RandomStreams(3)
    x = T.vector("x")
    out, updates = theano.scan(lambda r: r + rng.uniform((2,)), x, strict=True)
    assert run(out, [x], [[1, 2]], updates=updates).shape == (2, 2)


# ---- OrderedUpdates ------------------------------------------------------------------------------


def test_ordered_updates_take_dicts_pairs_and_generators():
    a, b, c = (theano.shared(f32(0), n) for n in "abc")
    u = theano.OrderedUpdates({a: a + 1})
    u.update([(b, b + 1)])
    u.update((k, k + 1) for k in [c])
    assert list(u) == [a, b, c]
    assert isinstance(u, OrderedDict)


def test_ordered_updates_refuse_keys_that_are_not_shared():
    with pytest.raises(TypeError, match="OrderedUpdates keys must inherit from SharedVariable"):
        theano.OrderedUpdates()[T.scalar("x")] = 1
    with pytest.raises(TypeError, match="OrderedUpdates keys must inherit from SharedVariable"):
        theano.OrderedUpdates({T.scalar("x"): 1})


def test_ordered_updates_collide():
    a = theano.shared(f32(0), "a")
    one, u = a + 1, theano.OrderedUpdates({a: a + 1})
    u.update({a: one})  # the same object is no collision
    with pytest.raises(KeyError, match="Collision"):
        u.update({a: a + 2})
    with pytest.raises(KeyError, match="Collision"):
        u + {a: a + 2}
    u[a] = a + 3  # assignment replaces
    assert list(u.values()) == [a + 3]


def test_ordered_updates_add_on_both_sides():
    a, b = theano.shared(f32(0), "a"), theano.shared(f32(0), "b")
    left = theano.OrderedUpdates({a: a + 1})
    assert list(left + {b: b + 1}) == [a, b]
    assert list({b: b + 1} + left) == [b, a]
    assert isinstance({b: b + 1} + left, theano.OrderedUpdates)
    assert list(left) == [a]


def test_ordered_updates_are_plain_dicts_to_programs():
    a = theano.shared(f32(0), "a")
    _, updates = theano.scan(lambda x: x, T.vector("x"))
    assert not updates
    updates[a] = a + 1
    assert a in updates
    assert [v.ndim for v in updates.values()] == [0]


def test_ordered_updates_survive_copy_and_pickle():
    a = theano.shared(f32(0), "a")
    u = theano.OrderedUpdates({a: a + 1})
    assert list(copy.copy(u)) == [a]
    (key,) = pickle.loads(pickle.dumps(u))
    assert key.name == "a"


# ---- nesting -------------------------------------------------------------------------------------


def test_nested_scans():
    m, v = T.matrix("m"), T.vector("v")

    def row(r, v):
        inner, _ = theano.scan(lambda a, b: a * b, [r, v])
        return inner.sum()

    out, _ = theano.scan(row, m, None, v)
    mv = np.arange(6).reshape(2, 3), np.array([1, 2, 3])
    assert run(out, [m, v], mv).tolist() == (mv[0] @ mv[1]).tolist()


def test_updates_of_an_inner_scan_are_carried_by_the_outer():
    k = theano.shared(f32(0), "k")

    def outer():
        values, updates = theano.scan(lambda: (k + 0, {k: k + 1}), n_steps=2)
        return values, updates

    out, updates = theano.scan(outer, n_steps=3)
    assert list(updates) == [k]
    assert run(out, updates=updates).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert k.get_value() == 6


def test_random_states_of_an_inner_scan_are_carried_by_the_outer():
    rng = T.shared_randomstreams.RandomStreams(5)

    def outer():
        values, updates = theano.scan(lambda: rng.uniform((1,)), n_steps=2)
        return values, updates

    out, updates = theano.scan(outer, n_steps=3)
    f = theano.function([], out, updates=updates)
    numbers = np.concatenate([f(), f()]).ravel()
    plain = T.shared_randomstreams.RandomStreams(5)
    g = theano.function([], plain.uniform((1,)))
    np.testing.assert_array_equal(numbers, np.concatenate([g() for _ in range(12)]))


def test_updates_of_an_inner_scan_that_the_outer_does_not_return_warn():
    rng = T.shared_randomstreams.RandomStreams(5)

    def outer():
        values, updates = theano.scan(lambda: rng.uniform((1,)), n_steps=2)
        (key,) = updates
        key.name = "inner_state"
        return values

    out, updates = theano.scan(outer, n_steps=3)
    assert not updates
    with pytest.warns(UserWarning, match="inner_state"):
        theano.function([], out, updates=updates)


def test_a_loop_of_draws_captured_by_another_loop_needs_its_own_updates_only():
    rng = T.shared_randomstreams.RandomStreams(5)
    x = T.vector("x")
    noise, updates = theano.scan(lambda r: r + rng.uniform(()), x)
    out, none = theano.scan(lambda r: r + noise.sum(), x)
    assert not none
    f = theano.function([x], [out, noise], updates=updates)
    for rows, draws in (f(ones(3)), f(ones(3))):
        np.testing.assert_allclose(rows, np.full(3, 1 + draws.sum()), rtol=1e-6)


def test_an_inner_scan_may_read_the_outer_loops_variables():
    x, y = T.vector("x"), T.vector("y")
    out, _ = theano.scan(lambda a: theano.scan(lambda b: a * b, y)[0], x)
    assert run(out, [x, y], [[1, 2], [3, 4]]).tolist() == [[3, 4], [6, 8]]


def test_the_length_of_an_inner_scan_may_change_where_no_output_shows_it():
    n = T.ivector("n")
    out, _ = theano.scan(
        lambda k: theano.scan(lambda s: s * 2, None, T.constant(f32(1)), n_steps=k)[0].sum(), n
    )
    assert run(out, [n], [np.array([1, 2, 3], "int32")]).tolist() == [2, 6, 14]


# ---- 1.9: what scan returns ----------------------------------------------------------------------


def test_one_output_is_a_variable_several_a_list_none_is_none():
    x, k = T.vector("x"), theano.shared(f32(0), "k")
    one, _ = theano.scan(lambda r: r, x)
    two, _ = theano.scan(lambda r: [r, r], x)
    no, _ = theano.scan(lambda: {k: k + 1}, n_steps=2)
    assert one.ndim == 1
    assert isinstance(two, list) and len(two) == 2
    assert no is None


def test_return_list():
    x, k = T.vector("x"), theano.shared(f32(0), "k")
    one, _ = theano.scan(lambda r: r, x, return_list=True)
    no, _ = theano.scan(lambda: {k: k + 1}, n_steps=2, return_list=True)
    assert isinstance(one, list) and len(one) == 1
    assert no == []


def test_return_updates_off_gives_the_outputs_alone():
    x = T.vector("x")
    out = theano.scan(lambda r: r * 2, x, return_updates=False)
    assert run(out, [x], [[1]]).tolist() == [2]


def test_a_scan_without_outputs_compiles():
    k = theano.shared(f32(0), "k")
    out, updates = theano.scan(lambda: {k: k + 1}, n_steps=4)
    f = theano.function([], out, updates=updates)
    f()
    assert k.get_value() == 4


def test_outputs_take_part_in_expressions():
    x = T.matrix("x")
    out, _ = theano.scan(lambda r: r * 2, x)
    value = np.arange(6, dtype="float32").reshape(3, 2)
    found = run([out[-1], out[:, 0], out[::-1], out[1:].sum(), out.shape], [x], [value])
    np.testing.assert_array_equal(found[0], value[-1] * 2)
    np.testing.assert_array_equal(found[1], value[:, 0] * 2)
    np.testing.assert_array_equal(found[2], value[::-1] * 2)
    assert found[3] == value[1:].sum() * 2
    assert found[4].tolist() == [3, 2]


# ---- 0: steps ------------------------------------------------------------------------------------


def test_no_steps_give_no_rows_of_the_right_trailing_shape():
    x, a, w = T.tensor3("x"), T.matrix("a"), T.matrix("w")
    outs, _ = theano.scan(
        lambda r, s, w: [s + 1, T.dot(r, w), r.sum(), T.zeros((w.shape[1], 4))],
        x, [a, None, None, None], w,
    )  # fmt: skip
    found = run(outs, [x, a, w], [np.ones((0, 2, 3)), np.ones((5, 6)), np.ones((3, 7))])
    assert [o.shape for o in found] == [(0, 5, 6), (0, 2, 7), (0,), (0, 7, 4)]
    assert all(o.dtype == np.float32 for o in found)


@pytest.mark.parametrize("constant", [True, False])
def test_no_steps_by_n_steps(constant):
    a, n = T.vector("a"), T.iscalar("n")
    out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=0 if constant else n)
    f = theano.function([a, n], out, on_unused_input="ignore")
    assert f([1, 2], 0).shape == (0, 2)


def test_no_steps_with_output_taps():
    a = T.matrix("a")
    out, _ = theano.scan(lambda p, q: p + q, None, dict(initial=a, taps=[-2, -1]), n_steps=0)
    assert run(out, [a], [ones(2, 3)]).shape == (0, 3)


def test_no_steps_leave_shared_variables_as_they_are():
    k, n = theano.shared(f32(7), "k"), T.iscalar("n")
    _, updates = theano.scan(lambda: {k: k + 1}, n_steps=n)
    f = theano.function([n], [], updates=updates)
    f(0)
    assert k.get_value() == 7
    f(2)
    assert k.get_value() == 9


def test_no_steps_of_an_until():
    x = T.vector("x")
    out, _ = theano.scan(lambda r: (r * 2, theano.until(r > 0)), x)
    f = theano.function([x], [out, out.shape[0]])
    assert f([])[0].shape == (0,)
    assert f([])[1] == 0


def test_the_last_row_of_no_steps_is_an_index_error():
    a, n = T.scalar("a"), T.iscalar("n")
    out, _ = theano.scan(lambda s: s * 2, None, a, n_steps=n)
    f = theano.function([a, n], out[-1])
    assert f(1, 3) == 8
    with pytest.raises(IndexError):
        f(1, 0)


def test_no_steps_of_a_nested_scan():
    m = T.matrix("m")
    out, _ = theano.scan(lambda r: theano.scan(lambda v: v * 2, r)[0], m)
    f = theano.function([m], out)
    assert f(ones(0, 3)).shape == (0, 3)
    assert f(ones(3, 0)).shape == (3, 0)


def test_floatx_is_float32_and_may_be_changed():
    assert theano.config.floatX == "float32"
    assert T.vector("x").dtype == "float32"
    with theano.config.change_flags(floatX="float64"):
        x = T.vector("x")
        out, _ = theano.scan(lambda r, s: r + s, x, T.constant(0.1))
        assert out.dtype == "float64"
        assert run(out, [x], [[0.1]])[0] == 0.2


# ---- 1.10: the other parameters ------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "FAST_RUN", "FAST_COMPILE", theano.Mode(linker="py")])
def test_mode_profile_and_allow_gc_are_accepted(mode):
    x = T.vector("x")
    out, _ = theano.scan(lambda r: r * 2, x, mode=mode, profile=True, allow_gc=True)
    assert run(out, [x], [[1, 2]], mode=mode).tolist() == [2, 4]


def test_name_labels_the_loop_and_its_gradient():
    x = T.vector("x")
    out, _ = theano.scan(lambda r, s: r * s, x, T.constant(f32(1)), name="my_loop")
    text = debugprint(T.grad(out[-1], x), file="str")
    assert "grad_of_my_loop" in text
    plain, _ = theano.scan(lambda r: r * 2, x)
    assert "scan_fn" in debugprint(plain, file="str")


def test_functions_that_hold_scans_pickle():
    x, a = T.vector("x"), T.scalar("a")
    rng = T.shared_randomstreams.RandomStreams(5)
    out, updates = theano.scan(lambda r, s: r + s + rng.uniform(()), x, a)
    f = theano.function([x, a], out, updates=updates)
    twin = pickle.loads(pickle.dumps(f))
    for _ in range(2):
        np.testing.assert_array_equal(f([1, 2], 0), twin([1, 2], 0))


def test_functions_that_hold_scans_copy_deep():
    k = theano.shared(f32(1), "k")
    out, updates = theano.scan(lambda: (k + 0, {k: k * 2}), n_steps=2)
    f = theano.function([], out, updates=updates)
    holder = copy.deepcopy({"f": f, "k": k})
    assert holder["f"]().tolist() == [1, 2]
    assert holder["k"].get_value() == 4
    assert k.get_value() == 1


def test_int_sequences_index_matrices():
    i, w = T.ivector("i"), T.matrix("w")
    out, _ = theano.scan(lambda i, w: w[i], i, None, w)
    value = np.arange(6, dtype="float32").reshape(3, 2)
    np.testing.assert_array_equal(
        run(out, [i, w], [np.array([2, 0], "int32"), value]), value[[2, 0]]
    )


def test_graph_that_holds_scans_pickles():
    x = T.vector("x")
    out, _ = theano.scan(lambda r, s: r * s + 1, x, T.constant(f32(1)))
    x2, out2 = pickle.loads(pickle.dumps([x, out]))
    leaf = next(v for v in gof.graph.inputs([out2]) if v.name == "x")
    assert run(out2, [leaf], [[1, 2]]).tolist() == [2, 5]
