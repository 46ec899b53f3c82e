"""shared(): dtype and dimensions are kept, values are copied, conversion is checked."""

import copy
import pickle

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T


def vector(*values):
    return np.array(values, "float32")


@pytest.mark.parametrize(
    "value, dtype, ndim",
    [
        (0, "int64", 0),
        (3.0, "float64", 0),
        (True, "bool", 0),
        (np.float32(1), "float32", 0),
        (np.int8(1), "int8", 0),
        (np.zeros(3), "float64", 1),
        (np.zeros((2, 3), "float32"), "float32", 2),
        (np.zeros((1, 3), "float16"), "float16", 2),
        ([1, 2], "int64", 1),
        (np.zeros((0, 2), "uint8"), "uint8", 2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_dtype_and_the_dimensions_of_the_value_are_kept(value, dtype, ndim):
    s = theano.shared(value)
    assert (s.dtype, s.ndim) == (dtype, ndim)
    assert s.get_value().dtype == dtype
    np.testing.assert_array_equal(s.get_value(), value)


def test_no_size_is_fixed_by_the_first_value():
    s = theano.shared(np.ones((1, 1), "float32"))
    assert s.broadcastable == (False, False)
    s.set_value(np.ones((2, 3), "float32"))
    assert theano.function([], s.shape)().tolist() == [2, 3]


def test_broadcastable_fixes_a_size_at_one():
    s = theano.shared(np.ones((1, 3), "float32"), "b", broadcastable=(True, False))
    assert s.broadcastable == (True, False)
    m = T.matrix("m")
    assert theano.function([m], m + s)(np.ones((2, 3), "float32")).shape == (2, 3)
    with pytest.raises(TypeError, match="size 1"):
        s.set_value(np.ones((2, 3), "float32"))


def test_name_and_position_of_arguments():
    s = theano.shared(1.0, "weights")
    assert s.name == str(s) == "weights"
    assert theano.shared(value=1.0, name="w", borrow=True).name == "w"


def test_a_shared_variable_is_a_variable_with_type_and_methods():
    s = theano.shared(np.arange(6, dtype="float32").reshape(2, 3), "s")
    assert isinstance(s, theano.SharedVariable) and isinstance(s, theano.Variable)
    assert s.owner is None
    assert s.type.ndim == 2
    assert theano.function([], s.T.sum(axis=0))().tolist() == [3, 12]


def test_two_shared_variables_are_two():
    a, b = theano.shared(1.0, "s"), theano.shared(1.0, "s")
    assert a is not b
    assert theano.function([], a - b)() == 0
    a.set_value(5.0)
    assert theano.function([], a - b)() == 4


def test_values_are_copied_in():
    value = vector(1, 2)
    s = theano.shared(value)
    value[0] = 100
    assert s.get_value().tolist() == [1, 2]
    value = vector(3, 4)
    s.set_value(value)
    value[0] = 100
    assert s.get_value().tolist() == [3, 4]


def test_values_are_copied_out():
    s = theano.shared(vector(1, 2))
    s.get_value()[0] = 100
    assert s.get_value().tolist() == [1, 2]


def test_borrowed_values_have_the_same_content():
    value = vector(1, 2)
    s = theano.shared(value, borrow=True)
    assert s.get_value(borrow=True).tolist() == [1, 2]
    held = s.get_value(borrow=True, return_internal_type=True)  # on a GPU, CuPy's or PyCUDA's
    assert (held if isinstance(held, np.ndarray) else held.get()).tolist() == [1, 2]
    s.set_value(vector(3), borrow=True)
    assert s.get_value().tolist() == [3]


def test_get_value_takes_part_in_arithmetic():
    s = theano.shared(vector(1, 2))
    zero = theano.shared(s.get_value() * np.asarray(0.0, "float32"))
    assert (zero.dtype, zero.get_value().tolist()) == ("float32", [0, 0])


def test_set_value_changes_what_functions_read():
    s = theano.shared(vector(1, 2))
    f = theano.function([], s * 2)
    s.set_value(vector(5, 6, 7))
    assert f().tolist() == [10, 12, 14]


@pytest.mark.parametrize(
    "value", [np.ones((2, 2), "float32"), np.float32(1), 1.0], ids=lambda v: type(v).__name__
)
def test_set_value_checks_the_dimensions(value):
    s = theano.shared(vector(1, 2), "s")
    with pytest.raises(TypeError, match="Wrong number of dimensions"):
        s.set_value(value)
    assert s.get_value().tolist() == [1, 2]


def test_set_value_checks_the_dtype():
    s = theano.shared(vector(1, 2), "s")
    with pytest.raises(TypeError, match="precision"):
        s.set_value(np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match="precision"):
        theano.shared(np.zeros(2, "int32")).set_value(np.zeros(2, "int64"))
    assert s.get_value().tolist() == [1, 2]


def test_set_value_converts_what_fits():
    s = theano.shared(np.zeros(2), "s")
    s.set_value([1, 2])
    s.set_value(vector(3, 4))
    assert s.get_value().dtype == np.float64
    assert s.get_value().tolist() == [3, 4]


def test_strict():
    s = theano.shared(vector(1, 2), strict=True)
    with pytest.raises(TypeError, match="strict"):
        s.set_value([1, 2])
    s.set_value(vector(3))
    assert s.get_value().tolist() == [3]


def test_allow_downcast():
    s = theano.shared(vector(1, 2), allow_downcast=True)
    s.set_value(np.array([1.5]))
    assert s.get_value().dtype == np.float32


def test_layouts_and_byte_orders_do_not_show():
    for value in (np.arange(6, dtype="float32")[::-2], np.arange(3, dtype=">f4"),
                  np.asfortranarray(np.ones((2, 3), "float32"))):  # fmt: skip
        s = theano.shared(value)
        assert s.get_value().dtype.isnative
        np.testing.assert_array_equal(theano.function([], s * 2)(), value * 2)


@pytest.mark.parametrize(
    "value",
    ["text", None, object(), np.array(["a"]), 1j, [[1], [1, 2]]],
    ids=lambda v: type(v).__name__,
)
def test_other_values_are_refused(value):
    with pytest.raises(TypeError):
        theano.shared(value)


def test_symbolic_values_are_refused():
    with pytest.raises(TypeError, match="numeric values and not symbolic variables"):
        theano.shared(T.scalar("x"))


def test_numpy_gets_a_copy_where_it_asks_for_an_array():
    value = vector(1, 2)
    s = theano.shared(value, "s", borrow=True)
    copied = np.asarray(s)
    copied[0] = 100
    assert s.get_value().tolist() == [1, 2]
    assert np.array(s, "float64").dtype == np.float64
    assert np.shares_memory(np.asarray(s, copy=False), value)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(s, "float64", copy=False)
    assert isinstance(np.exp(s), theano.Variable)  # what builds a graph still does
    with pytest.raises(TypeError, match="symbolic variable"):
        theano.shared(vector(3)).set_value(s)


def test_dlpack_gives_the_array_itself():
    value = vector(1, 2)
    s = theano.shared(value, borrow=True)
    assert s.__dlpack_device__() == value.__dlpack_device__()
    other = np.from_dlpack(s)
    assert np.shares_memory(other, value)
    k = theano.shared(np.zeros(1 << 15, "float32"))  # its memory would serve again
    f = theano.function([], updates=[(k, k + 1)], device=theano.config.device)
    f()
    if isinstance(k.held, np.ndarray):
        other = np.from_dlpack(k)
        f(), f(), f()
        assert (other == 1).all() and (k.get_value() == 4).all()
    assert not hasattr(s, "__cuda_array_interface__")


def test_pickle():
    s = theano.shared(vector(1, 2), "s", allow_downcast=True)
    s.tag.note = "kept"
    t = pickle.loads(pickle.dumps(s))
    assert (t.name, t.get_value().tolist(), t.tag.note) == ("s", [1, 2], "kept")
    t.set_value(np.array([1.5]))
    assert s.get_value().tolist() == [1, 2]


def test_pickle_keeps_a_default_update():
    k = theano.shared(np.float32(0), "k")
    k.default_update = k + 1
    twin = pickle.loads(pickle.dumps(k))
    f = theano.function([], twin * 1)
    assert [f().item(), f().item()] == [0, 1]
    assert (twin.get_value(), k.get_value()) == (2, 0)


def test_deepcopy_keeps_a_default_update():
    k = theano.shared(np.float32(0), "k")
    k.default_update = k + 1
    twin = copy.deepcopy(k)
    f = theano.function([], twin * 1)
    assert [f().item(), f().item()] == [0, 1]
    assert (twin.get_value(), k.get_value()) == (2, 0)


def test_copies():
    s = theano.shared(vector(1, 2), "s")
    deep = copy.deepcopy(s)
    deep.set_value(vector(5))
    assert s.get_value().tolist() == [1, 2]
    assert deep is not s


def test_deepcopy_copies_each_variable_once():
    s = theano.shared(vector(1, 2), "s")
    a, b, graph = copy.deepcopy([s, s, s * 2])
    assert a is b
    a.set_value(vector(7))
    assert graph.eval().tolist() == [14]
    assert (s * 2).eval().tolist() == [2, 4]


def test_pickling_copies_each_variable_once():
    s = theano.shared(vector(1, 2), "s")
    a, graph = pickle.loads(pickle.dumps([s, s * 2]))
    a.set_value(vector(7))
    assert graph.eval().tolist() == [14]


def test_clone_and_copy_share_the_array_as_theano_does():
    s = theano.shared(vector(1, 2), "s")
    twin = s.clone()
    assert twin is not s
    assert (twin.name, twin.get_value().tolist()) == ("s", [1, 2])
