"""function(): inputs, outputs, updates, givens, conversion, storage (SCAN.md 4.4)."""

import copy
import pickle
import signal
import threading
from collections import OrderedDict

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.theano import compile as theano_compile
from gpuscan.theano import gof

f32, f64 = np.float32, np.float64


def vector(*values):
    return np.array(values, "float32")


# ---- outputs -------------------------------------------------------------------------------------


def test_a_variable_gives_an_array():
    x = T.vector("x")
    result = theano.function([x], x * 2)(vector(1, 2))
    assert type(result) is np.ndarray
    assert result.dtype == np.float32
    assert result.tolist() == [2, 4]


def test_a_scalar_result_is_an_array_without_axes():
    x = T.scalar("x")
    result = theano.function([x], x * 2)(1)
    assert type(result) is np.ndarray
    assert result.shape == ()


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_gives_a_list(kind):
    x = T.scalar("x")
    result = theano.function([x], kind([x * 2, x + 1]))(1)
    assert type(result) is list
    assert result == [2, 2]


def test_a_list_of_one_gives_a_list_of_one():
    x = T.scalar("x")
    assert theano.function([x], [x * 2])(1) == [2]


def test_no_outputs_give_none_or_an_empty_list():
    assert theano.function([], None)() in (None, [])
    assert theano.function([])() in (None, [])
    assert theano.function([], [])() == []


def test_a_dict_gives_a_dict():
    x = T.scalar("x")
    f = theano.function([x], {"double": x * 2, "more": x + 1})
    assert f(1) == {"double": 2, "more": 2}
    g = theano.function([x], OrderedDict([("b", x), ("a", x * 3)]))
    assert list(g(1)) == ["b", "a"]


def test_the_keys_of_a_dict_are_strings():
    x = T.scalar("x")
    with pytest.raises(AssertionError, match="strings"):
        theano.function([x], {1: x})


def test_out_wraps_an_output():
    x = T.scalar("x")
    assert theano.function([x], theano.Out(x * 2, borrow=True))(1) == 2
    assert theano.function([x], [theano.Out(x * 2), x])(1) == [2, 1]


def test_an_output_may_be_a_constant_a_shared_variable_or_an_input():
    x, s = T.vector("x"), theano.shared(f32(3), "s")
    found = theano.function([x], [T.constant(7), s, x])(vector(1))
    assert [v.tolist() for v in found] == [7, 3, [1]]


def test_the_same_output_twice():
    x = T.vector("x")
    a, b = theano.function([x], [x * 2, x * 2])(vector(1))
    a[0] = 100
    assert b.tolist() == [2]


@pytest.mark.parametrize(
    "bad", [3, "text", object(), [3], {"a": 3}], ids=lambda v: type(v).__name__
)
def test_outputs_are_variables(bad):
    with pytest.raises(TypeError, match="Outputs must be theano Variable or Out instances"):
        theano.function([], bad)


def test_output_subset_computes_some():
    x = T.scalar("x")
    f = theano.function([x], [x, x * 2, x * 3])
    assert f(1, output_subset=[0, 2]) == [1, 3]


# ---- inputs --------------------------------------------------------------------------------------


def test_inputs_are_a_list():
    x = T.scalar("x")
    with pytest.raises(Exception, match="Input variables of a Theano function should be contained "
                       "in a list, even when there is a single input."):  # fmt: skip
        theano.function(x, x)
    assert theano.function((x,), x * 2)(1) == 2


def test_constants_are_no_inputs():
    with pytest.raises(TypeError, match="Constant"):
        theano.function([T.constant(3)], T.scalar("x"))


def test_shared_variables_are_no_inputs():
    s = theano.shared(f32(1), "weights")
    with pytest.raises(
        TypeError, match=r"Cannot use a shared variable \(weights\) as explicit input"
    ):
        theano.function([s], s * 2)


def test_other_things_are_no_inputs():
    with pytest.raises(TypeError, match="str"):
        theano.function(["x"], T.scalar("x"))


def test_the_same_input_twice():
    x = T.scalar("x")
    with pytest.raises(theano.UnusedInputError, match="x"):
        theano.function([x, x], x)


def test_an_intermediate_variable_may_be_an_input():
    x = T.scalar("x")
    y = x * 2
    y.name = "y"
    f = theano.function([y], y + 1)
    assert f(5) == 6
    assert f(y=5) == 6


def test_inputs_by_position_and_by_name():
    x, y = T.scalar("x"), T.scalar("y")
    f = theano.function([x, y], x - y)
    assert f(3, 1) == f(3, y=1) == f(y=1, x=3) == 2


def test_a_missing_input():
    x, y = T.scalar("x"), T.scalar("rate")
    f = theano.function([x, y], x - y)
    with pytest.raises(TypeError, match="Missing required input: rate"):
        f(1)


def test_too_many_inputs():
    x = T.scalar("x")
    with pytest.raises(TypeError, match="Too many parameter passed to theano function"):
        theano.function([x], x)(1, 2)


def test_a_name_that_is_no_input():
    x = T.scalar("x")
    f = theano.function([x], x)
    with pytest.raises(TypeError, match="rate"):
        f(1, rate=2)


def test_an_input_given_twice():
    x = T.scalar("x")
    with pytest.raises(TypeError, match="x"):
        theano.function([x], x)(1, x=2)


def test_a_value_that_nobody_gives():
    x, w = T.scalar("x"), T.scalar("weights")
    with pytest.raises(theano.MissingInputError, match=r"weights.*test_function\.py:\d+"):
        theano.function([x], x * w)
    assert gof.MissingInputError is theano.MissingInputError


# ---- unused inputs -------------------------------------------------------------------------------


def test_an_unused_input_raises():
    x, y = T.scalar("x"), T.scalar("rate")
    with pytest.raises(theano_compile.UnusedInputError, match="rate.*on_unused_input='warn'"):
        theano.function([x, y], x)


def test_an_unused_input_may_warn_or_be_ignored():
    x, y = T.scalar("x"), T.scalar("rate")
    with pytest.warns(UserWarning, match="rate"):
        theano.function([x, y], x, on_unused_input="warn")
    assert theano.function([x, y], x, on_unused_input="ignore")(1, 2) == 1


def test_the_setting_for_unused_inputs():
    x, y = T.scalar("x"), T.scalar("y")
    with theano.config.change_flags(on_unused_input="ignore"):
        assert theano.function([x, y], x)(1, 2) == 1


def test_another_word_for_unused_inputs_is_refused():
    x = T.scalar("x")
    with pytest.raises(ValueError, match="on_unused_input"):
        theano.function([x], x, on_unused_input="hide")


def test_an_input_that_only_an_update_reads_is_used():
    x, s = T.scalar("x"), theano.shared(f32(0), "s")
    theano.function([x], [], updates={s: x})(3)
    assert s.get_value() == 3


# ---- In ------------------------------------------------------------------------------------------


def test_in_gives_a_default():
    x, lr = T.scalar("x"), T.scalar("lr")
    f = theano.function([x, theano.In(lr, value=0.5)], x * lr)
    assert f(2) == 1
    assert f(2, 3) == 6
    assert f(2, lr=3) == 6
    assert f(2) == 1


def test_in_renames():
    x = T.scalar("x")
    f = theano.function([theano.In(x, name="rate", value=1.0)], x * 2)
    assert f(rate=3) == 6


def test_the_default_is_converted_when_the_function_is_made():
    x = T.vector("x")
    with pytest.raises(TypeError):
        theano.function([theano.In(x, value=np.ones((2, 2)))], x)


def test_a_shared_default_is_read_at_each_call():
    x, s = T.scalar("x"), theano.shared(f32(1), "s")
    f = theano.function([theano.In(x, value=s)], x * 2)
    assert f() == 2
    s.set_value(f32(5))
    assert f() == 10


def test_a_default_with_an_update_is_a_state():
    x, inc = T.scalar("x"), T.scalar("inc")
    f = theano.function([inc, theano.In(x, value=10.0, update=x + inc)], x * 1)
    assert [f(1).item(), f(2).item(), f(0).item()] == [10, 11, 13]
    assert f[x] == 13
    f[x] = 0
    assert f(0) == 0


def test_in_strict_and_allow_downcast():
    x = T.vector("x")
    strict = theano.function([theano.In(x, strict=True)], x)
    with pytest.raises(TypeError, match="strict"):
        strict([1.0])
    loose = theano.function([theano.In(x, allow_downcast=True)], x)
    assert loose(np.array([1.5])).tolist() == [1.5]


# ---- conversion ----------------------------------------------------------------------------------


def identity(kind, **options):
    x = getattr(T, kind)("x")
    return theano.function([x], x * 1 if kind != "bvector" else x, **options)


@pytest.mark.parametrize(
    "kind, value",
    [
        ("vector", [1, 2]),
        ("vector", [1.5, 0.1]),
        ("vector", (1, 2)),
        ("vector", np.array([1, 2], "int16")),
        ("vector", np.array([1, 2], "float16")),
        ("vector", np.array([True, False])),
        ("dvector", vector(1, 2)),
        ("dvector", [0.1]),
        ("lvector", np.array([1, 2], "int32")),
        ("ivector", [1, 2]),
        ("scalar", 0.1),
        ("scalar", 3),
        ("scalar", np.float32(0.1)),
        ("dscalar", np.float32(0.5)),
        ("iscalar", 3),
        ("lscalar", np.int32(3)),
        ("vector", []),
    ],
    ids=lambda v: repr(v),
)
def test_values_that_fit_are_converted(kind, value):
    f = identity(kind)
    found = f(value)
    assert found.dtype == getattr(T, kind)("x").dtype
    np.testing.assert_allclose(found, np.asarray(value, found.dtype))


@pytest.mark.parametrize(
    "kind, value",
    [
        ("vector", np.array([1.0, 2.0])),
        ("vector", np.array([1, 2], "int32")),
        ("ivector", np.array([1, 2], "int64")),
        ("ivector", vector(1)),
        ("scalar", np.float64(0.1)),
    ],
    ids=repr,
)
def test_arrays_that_would_lose_precision_are_refused(kind, value):
    f = identity(kind)
    with pytest.raises(
        TypeError, match="cannot store a value of dtype .* without risking loss of precision"
    ):
        f(value)


@pytest.mark.parametrize("value", [1.5, [1.5]], ids=repr)
def test_python_numbers_that_would_lose_precision_are_refused(value):
    f = identity("iscalar" if isinstance(value, float) else "ivector")
    with pytest.raises(TypeError, match="precision"):
        f(value)


def test_a_python_integer_out_of_range_is_refused():
    with pytest.raises(TypeError, match="300"):
        identity("bscalar")(300)
    with pytest.raises(TypeError):
        identity("lscalar")(2**70)


def test_the_error_names_the_argument_and_the_function():
    x = T.vector("samples")
    f = theano.function([x], x, name="train")
    with pytest.raises(TypeError, match=r'"samples" \(index 0\).*"train"'):
        f(np.ones(2))
    with pytest.raises(TypeError, match="index 0"):
        theano.function([T.vector()], T.constant(1), on_unused_input="ignore")(np.ones(2))


def test_allow_input_downcast():
    assert identity("vector", allow_input_downcast=True)(np.ones(2)).dtype == np.float32
    assert identity("ivector", allow_input_downcast=True)([1.7]).tolist() == [1]
    with pytest.raises(TypeError):
        identity("scalar", allow_input_downcast=False)(0.1)


def test_a_wrong_number_of_dimensions():
    with pytest.raises(
        TypeError, match=r"Wrong number of dimensions: expected 1, got 2 with shape \(2, 2\)\."
    ):
        identity("vector")(np.ones((2, 2), "float32"))
    with pytest.raises(
        TypeError, match=r"Wrong number of dimensions: expected 2, got 0 with shape \(\)\."
    ):
        identity("matrix")(1)


def test_a_broadcastable_dimension_needs_size_one():
    with pytest.raises(TypeError, match="broadcastable.*axis 0.*size 1"):
        identity("row")(np.ones((2, 3), "float32"))
    assert identity("row")(np.ones((1, 3), "float32")).shape == (1, 3)


def test_a_variable_is_no_value():
    x = T.scalar("x")
    with pytest.raises(TypeError, match="Expected an array-like object, but found a Variable"):
        theano.function([x], x)(x)
    with pytest.raises(TypeError, match="Expected an array-like object, but found a Variable"):
        theano.function([x], x)(theano.shared(f32(1)))


@pytest.mark.parametrize(
    "value", ["text", None, object(), {"a": 1}, [[1], [1, 2]]], ids=lambda v: type(v).__name__
)
def test_other_values_are_refused(value):
    with pytest.raises(TypeError):
        identity("vector")(value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype="float32")[::2],
        np.arange(6, dtype="float32")[::-1],
        np.arange(6, dtype=">f4"),
        np.frombuffer(b"\0\0\x80?", "float32"),
    ],
    ids=["strided", "reversed", "big endian", "read-only"],
)
def test_arrays_of_any_layout(value):
    found = identity("vector")(value)
    np.testing.assert_array_equal(found, value)
    assert found.dtype == np.dtype("float32") and found.dtype.isnative


def test_transposed_arrays():
    value = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(identity("matrix")(value.T), value.T)


# ---- aliasing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: x[::-1], lambda x: x[1:], lambda x: x.dimshuffle("x", 0),
             lambda x: x.reshape((2, 2)), lambda x: T.specify_shape(x, (4,))],
    ids=["itself", "flip", "slice", "dimshuffle", "reshape", "specify"],
)  # fmt: skip
def test_outputs_never_alias_inputs(make):
    x = T.vector("x")
    f = theano.function([x], make(x))
    value = vector(1, 2, 3, 4)
    f(value)[...] = 100
    assert value.tolist() == [1, 2, 3, 4]


def test_outputs_never_alias_each_other():
    x = T.vector("x")
    y = x * 2
    f = theano.function([x], [y, y[1:], y.T, y[::-1], y])
    found = f(vector(1, 2))
    found[0][...] = 100
    assert [v.tolist() for v in found[1:]] == [[4], [2, 4], [4, 2], [2, 4]]


def test_outputs_never_alias_shared_variables_or_constants():
    s, c = theano.shared(vector(1, 2), "s"), T.constant(vector(1, 2))
    f = theano.function([], [s, s[1:], c, c[1:]])
    for v in f():
        v[...] = 100
    assert s.get_value().tolist() == [1, 2]
    assert [v.tolist() for v in f()] == [[1, 2], [2], [1, 2], [2]]


def test_updated_shared_variables_never_alias_inputs():
    x, s = T.vector("x"), theano.shared(vector(0, 0), "s")
    value = vector(1, 2)
    theano.function([x], [], updates={s: x})(value)
    value[0] = 100
    assert s.get_value().tolist() == [1, 2]
    theano.function([x], [], updates={s: x[::-1]})(value)
    value[...] = 7
    assert s.get_value().tolist() == [2, 100]


def test_updated_shared_variables_never_alias_outputs():
    x, s = T.vector("x"), theano.shared(vector(0, 0), "s")
    out = theano.function([x], x * 2, updates={s: x * 2})(vector(1, 2))
    out[...] = 100
    assert s.get_value().tolist() == [2, 4]


def test_updated_shared_variables_never_alias_each_other():
    a, b, c = (theano.shared(vector(i, i), "s") for i in range(3))
    theano.function([], [], updates=[(a, b), (b, a), (c, a)])()
    if not isinstance(a.get_value(borrow=True, return_internal_type=True), np.ndarray):
        pytest.skip("a value on a GPU can't be written through what is a copy of it")
    a.get_value(borrow=True)[...] = 50
    b.get_value(borrow=True)[...] = 60
    assert c.get_value().tolist() == [0, 0]
    assert a.get_value().tolist() == [50, 50]
    y = c * 2
    theano.function([], [], updates=[(a, y), (b, y)])()
    a.get_value(borrow=True)[...] = 50
    assert b.get_value().tolist() == [0, 0]


def test_rows_of_a_trace_never_alias():
    x, s = T.vector("x"), theano.shared(f32(0), "s")
    out, updates = theano.scan(lambda r, a: a + r, x, T.constant(f32(0)))
    f = theano.function([x], [out, out[-1], out[1:]], updates={s: out[-1]})
    a, b, c = f(vector(1, 2, 3))
    a[...] = 100
    assert (b.tolist(), c.tolist(), s.get_value().tolist()) == (6, [3, 6], 6)


def test_inputs_are_never_written_to():
    x = T.vector("x")
    value = vector(1, 2, 3)
    value.flags.writeable = False
    y = T.set_subtensor(x[0], 5)
    out, _ = theano.scan(lambda s: T.inc_subtensor(s[0], 1), None, y, n_steps=3)
    assert theano.function([x], out[-1])(value).tolist() == [8, 2, 3]
    assert value.tolist() == [1, 2, 3]


# ---- updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dict, OrderedDict, list, tuple, theano.OrderedUpdates])
def test_updates_as_dicts_and_pairs(kind):
    s = theano.shared(f32(1), "s")
    f = theano.function([], s * 1, updates=kind([(s, s + 1)]))
    assert (f().item(), f().item(), s.get_value().item()) == (1, 2, 3)


def test_updates_are_simultaneous_and_come_after_the_outputs():
    a, b = theano.shared(f32(1), "a"), theano.shared(f32(2), "b")
    f = theano.function([], [a, b], updates=[(a, b), (b, a)])
    assert f() == [1, 2]
    assert (a.get_value(), b.get_value()) == (2, 1)


def test_the_target_of_an_update_is_shared():
    x = T.scalar("x")
    with pytest.raises(TypeError, match="update target must be a SharedVariable"):
        theano.function([x], x, updates={x: x + 1})


def test_an_update_given_twice():
    s = theano.shared(f32(1), "weights")
    with pytest.raises(
        ValueError, match="this shared variable already has an update expression.*weights"
    ):
        theano.function([], [], updates=[(s, s + 1), (s, s + 2)])


def test_an_update_of_another_type():
    s = theano.shared(f32(1), "weights")
    with pytest.raises(TypeError, match=r"same type.*weights.*[Cc]ast.*test_function\.py"):
        theano.function([], [], updates={s: s * f64(0.1)})
    with pytest.raises(TypeError, match="same type.*weights"):
        theano.function([], [], updates={s: T.constant(vector(1, 2))})


def test_updates_that_are_no_pairs():
    s = theano.shared(f32(1), "s")
    with pytest.raises(ValueError, match="updates"):
        theano.function([], [], updates=[s])


def test_an_update_may_be_a_value():
    s = theano.shared(f32(1), "s")
    theano.function([], [], updates={s: 5})()
    assert s.get_value() == 5
    assert s.get_value().dtype == np.float32


def test_an_update_may_change_the_shape():
    s = theano.shared(vector(1), "s")
    theano.function([], [], updates={s: T.concatenate([s, s])})()
    assert s.get_value().tolist() == [1, 1]


def test_a_failed_call_leaves_shared_variables_as_they_were():
    x = T.vector("x")
    a, b = theano.shared(f32(1), "a"), theano.shared(vector(1, 2), "b")
    f = theano.function([x], x.sum(), updates=[(a, a + 1), (b, b + x)])
    with pytest.raises(ValueError):
        f(vector(1, 2, 3))
    assert a.get_value() == 1
    assert b.get_value().tolist() == [1, 2]
    with pytest.raises(TypeError):
        f(np.ones(2))
    assert a.get_value() == 1


def test_a_failed_call_leaves_default_values_as_they_were():
    x, y = T.vector("x"), T.vector("y")
    f = theano.function([theano.In(x, value=[0, 0], update=x + 1), y], x + y)
    with pytest.raises(ValueError):
        f(y=vector(1, 2, 3))
    assert f(y=vector(0, 0)).tolist() == [0, 0]


# ---- default updates -----------------------------------------------------------------------------


def counter():
    k = theano.shared(f32(0), "k")
    k.default_update = k + 1
    return k


def test_default_updates_apply_by_themselves():
    k = counter()
    f = theano.function([], k * 1)
    assert [f().item(), f().item()] == [0, 1]
    assert k.get_value() == 2


def test_no_default_updates():
    k = counter()
    f = theano.function([], k * 1, no_default_updates=True)
    assert [f().item(), f().item()] == [0, 0]


def test_no_default_updates_of_those_listed():
    k, m = counter(), counter()
    f = theano.function([], k + m, no_default_updates=[k])
    f()
    assert (k.get_value(), m.get_value()) == (0, 1)


def test_an_explicit_update_wins():
    k = counter()
    theano.function([], k * 1, updates={k: k + 10})()
    assert k.get_value() == 10


def test_a_default_update_brings_those_it_reads():
    k = counter()
    m = theano.shared(f32(0), "m")
    m.default_update = m + k
    f = theano.function([], m * 1)
    f(), f()
    assert (k.get_value(), m.get_value()) == (2, 1)


def test_draws_advance_from_call_to_call():
    u = T.shared_randomstreams.RandomStreams(1).uniform((3,))
    f = theano.function([], u)
    assert f().tolist() != f().tolist()
    g = theano.function([], u, no_default_updates=True)
    assert g().tolist() == g().tolist()


# ---- givens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dict, OrderedDict, list, tuple])
def test_givens_replace(kind):
    x, y = T.vector("x"), T.vector("y")
    f = theano.function([y], x * 2, givens=kind([(x, y + 1)]))
    assert f(vector(1, 2)).tolist() == [4, 6]


def test_givens_by_shared_variables_slices_and_values():
    x, y, i = T.matrix("x"), T.ivector("y"), T.lscalar("index")
    data = theano.shared(np.arange(12, dtype="float32").reshape(6, 2), "data")
    labels = T.cast(theano.shared(vector(0, 1, 2, 3, 4, 5)), "int32")
    f = theano.function(
        [i], [x.sum(), y], givens={x: data[i * 2 : (i + 1) * 2], y: labels[i * 2 : (i + 1) * 2]}
    )
    total, ys = f(1)
    assert (total.item(), ys.tolist()) == (4 + 5 + 6 + 7, [2, 3])
    z = T.scalar("z")
    assert theano.function([], z * 2, givens={z: 3})() == 6
    assert theano.function([], z * 2, givens={z: np.float32(4)})() == 8


def test_givens_apply_to_updates():
    x, s = T.scalar("x"), theano.shared(f32(0), "s")
    theano.function([], [], updates={s: s + x}, givens={x: T.constant(f32(3))})()
    assert s.get_value() == 3


def test_givens_replace_shared_variables_and_intermediate_expressions():
    x, s = T.scalar("x"), theano.shared(f32(5), "s")
    e = x * 2
    assert theano.function([x], e + s, givens={s: x * 10, e: x * 100})(1) == 110


def test_givens_are_simultaneous():
    x, y = T.scalar("x"), T.scalar("y")
    a, b = T.scalar("a"), T.scalar("b")
    f = theano.function([a, b], x - y, givens={x: a, y: b})
    assert f(5, 3) == 2


def test_an_input_can_not_be_given_too():
    x = T.scalar("samples")
    with pytest.raises(RuntimeError, match="samples.*givens"):
        theano.function([x], x, givens={x: T.constant(f32(1))})


def test_givens_of_another_type():
    x = T.scalar("samples")
    with pytest.raises(TypeError, match="samples"):
        theano.function([], x, givens={x: T.dscalar("d")})
    with pytest.raises(TypeError):
        theano.function([], x, givens={x: T.vector("v")})
    d = T.dscalar("d")
    f = theano.function([d], x * 2, givens={x: d}, rebuild_strict=False)
    assert f(1.5).dtype == np.float32


def test_givens_keys_are_variables():
    with pytest.raises(TypeError, match="givens"):
        theano.function([], T.constant(1), givens={"x": T.constant(1)})


# ---- storage -------------------------------------------------------------------------------------


def test_functions_pickle():
    x, s = T.vector("x"), theano.shared(f32(1), "s")
    f = theano.function([x, theano.In(T.scalar("lr"), value=0.5)], x * s, updates={s: s + 1},
                        name="step", on_unused_input="ignore")  # fmt: skip
    twin = pickle.loads(pickle.dumps(f))
    assert twin.name == "step"
    for _ in range(2):
        assert twin(vector(1, 2)).tolist() == f(vector(1, 2)).tolist()
    # each has its own shared variable
    assert s.get_value() == 3


@pytest.mark.parametrize("outputs", ["one", "list", "dict", "none"])
def test_pickled_functions_keep_the_form_of_their_outputs(outputs):
    x = T.scalar("x")
    form = {"one": x * 2, "list": [x * 2], "dict": {"a": x * 2}, "none": []}[outputs]
    f = theano.function([x], form, on_unused_input="ignore")
    assert pickle.loads(pickle.dumps(f))(1) == f(1)


def test_pickled_functions_keep_their_conversion():
    x = T.vector("x")
    f = theano.function([x], x, allow_input_downcast=True)
    assert pickle.loads(pickle.dumps(f))(np.ones(2)).dtype == np.float32


def test_objects_with_functions_and_shared_variables_pickle_together():
    s = theano.shared(f32(1), "s")
    f = theano.function([], s * 1, updates={s: s + 1})
    g, t = pickle.loads(pickle.dumps((f, s)))
    g()
    assert t.get_value() == 2
    assert s.get_value() == 1


def test_two_functions_over_one_shared_variable_pickle_together():
    s = theano.shared(f32(1), "s")
    f = theano.function([], [], updates={s: s + 1})
    g = theano.function([], s * 1)
    f2, g2 = pickle.loads(pickle.dumps([f, g]))
    f2()
    assert g2() == 2
    assert g() == 1


def test_deepcopy_copies_shared_variables_once():
    class Model:
        def __init__(self):
            self.s = theano.shared(f32(1), "s")
            self.step = theano.function([], [], updates={self.s: self.s + 1})
            self.read = theano.function([], self.s * 1)

    model = Model()
    twin = copy.deepcopy(model)
    twin.step()
    assert (twin.read().item(), twin.s.get_value().item()) == (2, 2)
    assert (model.read().item(), model.s.get_value().item()) == (1, 1)


def test_deepcopy_of_random_functions_repeats_the_numbers():
    u = T.shared_randomstreams.RandomStreams(1).uniform((3,))
    f = theano.function([], u)
    f()
    twin = copy.deepcopy(f)
    assert f().tolist() == twin().tolist()


def test_copy_shares_the_shared_variables():
    s = theano.shared(f32(1), "s")
    f = theano.function([], s * 1, updates={s: s + 1})
    copy.copy(f)()
    assert s.get_value() == 2
    assert f.copy(name="twin").name == "twin"


def test_states_of_in_are_stored():
    x = T.scalar("x")
    f = theano.function([theano.In(x, value=1.0, update=x * 2)], x + 0)
    f(), f()
    twin = pickle.loads(pickle.dumps(f))
    assert (f().item(), twin().item(), twin().item()) == (4, 4, 8)


# ---- the rest ------------------------------------------------------------------------------------


def test_the_order_of_positional_arguments_of_function():
    x, s, g = T.scalar("x"), theano.shared(f32(0), "s"), T.scalar("g")
    f = theano.function([x], x + g, "FAST_RUN", {s: s + x}, {g: x * 2}, False, False, "named")
    assert f(2) == 6
    assert f.name == "named"
    assert s.get_value() == 2


def test_a_functions_graph():
    x = T.vector("x")
    f = theano.function([x], T.exp(x) * 2)
    nodes = f.maker.fgraph.toposort()
    assert nodes and all(hasattr(n, "op") and hasattr(n, "inputs") for n in nodes)
    assert f.maker.fgraph.inputs == [x]


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE", None, theano.Mode(optimizer=None)])
def test_modes(mode):
    x = T.scalar("x")
    assert theano.function([x], x * 2, mode=mode)(1) == 2


def test_a_mode_that_is_not_there():
    with pytest.raises(ValueError, match="SLOW_RUN"):
        theano.function([], T.constant(1), mode="SLOW_RUN")


def test_modes_take_the_names_of_rewrites():
    mode = theano.Mode().including("fusion").excluding("scanOp_pushout_seqs_ops", "inplace")
    x = T.scalar("x")
    assert theano.function([x], x * 2, mode=mode)(1) == 2


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="abacus"):
        theano.function([], T.constant(1), device="abacus")


def test_eval():
    x, y = T.scalar("x"), T.scalar("y")
    assert (x + y).eval({x: 1, y: 2}) == 3
    assert (x + y).eval({"x": 1, "y": 2}) == 3
    assert T.constant(3).eval() == 3
    with pytest.raises(theano.MissingInputError, match="y"):
        (x + y).eval({x: 1})


def test_nan_and_infinity_pass_without_warnings():
    x = T.vector("x")
    found = theano.function([x], [T.log(x), 1 / x])(vector(0, -1))
    assert np.isneginf(found[0][0]) and np.isnan(found[0][1]) and np.isposinf(found[1][0])


def test_deep_graphs_compile_differentiate_and_pickle():
    x = T.vector("x")
    y = x
    for _ in range(500):
        y = y + 1
    f = theano.function([x], [y, T.grad(y.sum(), x)])
    y, g = pickle.loads(pickle.dumps(f))(vector(1, 2))
    assert (y.tolist(), g.tolist()) == ([501, 502], [1, 1])


def test_empty_arrays():
    x = T.matrix("x")
    f = theano.function([x], [x.sum(), x.sum(axis=0), x * 2])
    total, columns, double = f(np.ones((0, 3), "float32"))
    assert (total.item(), columns.tolist(), double.shape) == (0, [0, 0, 0], (0, 3))


# ---- Python numbers in graphs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, dtype",
    [(1, "int8"), (-128, "int8"), (128, "int16"), (40000, "int32"), (2**40, "int64"),
     (0.1, "float32"), (0.5, "float32"), (True, "bool")],
    ids=repr,
)  # fmt: skip
def test_dtypes_of_python_numbers(value, dtype):
    assert T.constant(value).dtype == dtype


def test_dtypes_of_python_floats_under_float64():
    with theano.config.change_flags(floatX="float64"):
        assert T.constant(0.5).dtype == "float32"
        assert T.constant(0.1).dtype == "float64"


@pytest.mark.parametrize(
    "left, right, dtype",
    [("bvector", "fvector", "float32"), ("ivector", "fvector", "float64"),
     ("lvector", "fvector", "float64"), ("wvector", "fvector", "float32"),
     ("fvector", "dvector", "float64"), ("bvector", "ivector", "int32")],
)  # fmt: skip
def test_dtypes_meet_by_numpys_table(left, right, dtype):
    assert (getattr(T, left)("a") * getattr(T, right)("b")).dtype == dtype


def test_true_division_of_integers_gives_floatx():
    a = T.ivector("a")
    assert (a / 2).dtype == "float32"
    assert (a // 2).dtype == "int32"


# ---- several threads, and interrupts -------------------------------------------------------------


def by_two_threads(call, times):
    """What so many calls of each of two threads return."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend([call() for _ in range(times)]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_no_update_of_two_threads_is_lost():
    count = theano.shared(np.int64(0))
    total = theano.shared(np.zeros(3))
    step = theano.function(
        [], [], updates={count: count + 1, total: total + T.cast(count, "float64")}
    )
    by_two_threads(step, 1500)
    assert count.get_value() == 3000
    np.testing.assert_array_equal(total.get_value(), [3000 * 2999 / 2] * 3)


def test_two_threads_draw_other_numbers():
    random, n = T.shared_randomstreams.RandomStreams(1), T.lscalar()
    x, updates = theano.scan(
        lambda x: x + random.normal((100,)), outputs_info=[T.zeros((100,))], n_steps=n
    )
    f = theano.function([n], x[-1], updates=updates)
    found = by_two_threads(lambda: f(200).tobytes(), 25)
    assert len(set(found)) == 50


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that sends signals")
def test_an_interrupt_leaves_all_shared_variables_or_none_updated():
    variables = [theano.shared(np.int64(0)) for _ in range(200)]
    step = theano.function([], [], updates={v: v + 1 for v in variables})
    step()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for k in range(120):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00001 * k)
                while True:
                    step()
            except KeyboardInterrupt:
                interrupted += 1
            assert len({int(v.get_value()) for v in variables}) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 120
