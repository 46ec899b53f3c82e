"""Identities that steer the gradient, prints, checks, and branches."""

import pickle

import numpy as np
import pytest

import gpuscan.tensor as T
from gpuscan.errors import DisconnectedInputError, NullTypeGradError
from gpuscan.evaluate import Program
from gpuscan.function import function
from gpuscan.gradient import grad
from gpuscan.graph import Undefined
from gpuscan.ops import control
from gpuscan.ops.control import (
    Assert,
    Derived,
    DisconnectedGrad,
    GradClip,
    GradScale,
    IfElse,
    Print,
    Require,
    UndefinedGrad,
    ZeroGrad,
    assert_op,
    ifelse,
)
from gpuscan.ops.scalar import exp, gt, log
from gpuscan.ops.shape import Dim
from gpuscan.scan.frontend import scan
from gpuscan.types import TensorType

scalar, vector, matrix = (TensorType("float32", (None,) * n) for n in range(3))
boolean = TensorType("bool", ())
IDENTITIES = [
    UndefinedGrad("why"), ZeroGrad(), DisconnectedGrad(), GradClip(-1.0, 1.0), GradScale(2.0),
    Print("x"), Require("never"), Derived(()),
]  # fmt: skip


def value(output, given):
    (got,) = Program(list(given), [output])(*(np.asarray(x, v.dtype) for v, x in given.items()))
    return got


# ---- identities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("op", IDENTITIES, ids=lambda op: op.label)
def test_an_identity_is_its_input(op):
    x = matrix("x")
    y = op(x)
    data = np.arange(6, dtype="float32").reshape(2, 3)
    assert y.type == x.type
    np.testing.assert_array_equal(value(y, {x: data}), data)
    assert [value(s, {x: data}) for s in y.op.sizes(y.inputs, y)] == [2, 3]


@pytest.mark.parametrize("op", IDENTITIES, ids=lambda op: op.label)
def test_an_identity_can_be_stored(op):
    assert pickle.loads(pickle.dumps(op)) == op


@pytest.mark.parametrize(
    "op", [op for op in IDENTITIES if not isinstance(op, Print)], ids=lambda op: op.label
)
def test_an_identity_over_rows_is_the_same_op(op):
    x, n = matrix("x"), TensorType("int64", ())("n")
    assert op.batch([x], [True], n) is op(x)


def test_a_print_is_not_batched():
    assert Print("x").batch([matrix()], [True], TensorType("int64", ())()) is None


def test_only_prints_and_checks_must_run_where_they_stand():
    assert [op.label for op in IDENTITIES if op.has_effect] == ["Print", "Require"]


def test_zero_grad_gives_zeros():
    x = vector("x")
    g = grad((ZeroGrad()(x) * x).sum(), x)
    np.testing.assert_array_equal(value(g, {x: [2, 3]}), [2, 3])
    np.testing.assert_array_equal(value(grad(ZeroGrad()(x).sum(), x), {x: [2, 3]}), [0, 0])


def test_disconnected_grad_disconnects():
    x = vector("x")
    with pytest.raises(DisconnectedInputError):
        grad(DisconnectedGrad()(x).sum(), x)
    g = grad((DisconnectedGrad()(x) * x).sum(), x)
    np.testing.assert_array_equal(value(g, {x: [2, 3]}), [2, 3])


def test_undefined_grad_raises_with_its_reason():
    x = vector("x")
    with pytest.raises(NullTypeGradError, match="for this reason"):
        grad(UndefinedGrad("for this reason")(x).sum(), x)


def test_undefined_grad_speaks_for_all_its_inputs():
    x, p = vector("x"), scalar("p")
    y = UndefinedGrad("why")(x, p)
    assert y.op.pullback(y.inputs, y, y) == [Undefined("why")] * 2
    with pytest.raises(NullTypeGradError):
        grad(y.sum(), p)


def test_undefined_grad_leaves_other_gradients():
    x, w = vector("x"), scalar("w")
    g = grad((UndefinedGrad("why")(x) * w).sum(), w)
    assert value(g, {x: [2, 3], w: 1}) == 5


def test_grad_clip_clips_the_cotangent_there():
    x = vector("x")
    g = grad((GradClip(-1.0, 2.0)(x) * np.array([-5, 0.5, 5], "float32")).sum(), x)
    np.testing.assert_array_equal(value(g, {x: [0, 0, 0]}), [-1, 0.5, 2])
    assert g.dtype == "float32"


def test_grad_clip_wants_its_bounds_in_order():
    with pytest.raises(ValueError, match="out of order"):
        GradClip(1.0, -1.0)


def test_grad_scale_multiplies_the_cotangent():
    x = vector("x")
    g = grad((GradScale(-0.5)(x) * x).sum(), x)
    np.testing.assert_array_equal(value(g, {x: [2, 4]}), [1, 2])
    assert g.dtype == "float32"


# ---- printing -----------------------------------------------------------------------------------


def test_print_writes_the_message_and_the_value(capsys):
    x = vector("x")
    value(Print("here")(x) * 2, {x: [1, 2]})
    assert capsys.readouterr().out == "here __str__ = [1. 2.]\n"


def test_print_writes_each_attribute(capsys):
    x = vector("x")
    value(Print("x", attrs=["shape", "min"])(x), {x: [1, 2]})
    assert capsys.readouterr().out == "x shape = (2,)\nx min = 1.0\n"


def test_print_writes_at_every_call(capsys):
    x = scalar("x")
    program = Program([x], [Print("x")(x)])
    for i in range(3):
        program(np.float32(i))
    assert capsys.readouterr().out.count("x __str__") == 3


def test_print_writes_at_every_step_of_a_scan(capsys):
    x, w = vector("x"), scalar("w")
    rows, _ = scan(lambda a, c: a * Print("w")(c), sequences=x, non_sequences=w)
    function([x, w], rows)(np.ones(3, "float32"), 2.0)
    assert capsys.readouterr().out == "w __str__ = 2.0\n" * 3


def test_a_print_of_a_constant_is_not_folded_away(capsys):
    f = function([], Print("c")(np.float32(3)) + 1)
    for _ in range(2):
        f()
    assert capsys.readouterr().out == "c __str__ = 3.0\n" * 2


def test_print_may_be_given_another_function():
    seen, x = [], scalar("x")
    value(Print("m", global_fn=lambda op, v: seen.append((op.message, float(v))))(x), {x: 3})
    assert seen == [("m", 3.0)]


def test_the_gradient_passes_through_a_print():
    x = scalar("x")
    assert value(grad(Print()(x) * x, x), {x: 3}) == 6


# ---- checks -------------------------------------------------------------------------------------


def test_require_gives_the_value_or_raises():
    x, c = scalar("x"), boolean("c")
    y = Require("no steps", "ValueError")(x, c)
    assert value(y, {x: 3, c: True}) == 3
    with pytest.raises(ValueError, match="no steps"):
        value(y, {x: 3, c: False})


def test_require_knows_gpuscans_errors():
    x, c = scalar("x"), boolean("c")
    with pytest.raises(DisconnectedInputError):
        value(Require("m", "DisconnectedInputError")(x, c), {x: 3, c: False})


@pytest.mark.parametrize("name", ["NoSuchError", "print", "describe"])
def test_require_takes_the_name_of_an_error_only(name):
    with pytest.raises(TypeError, match=name):
        Require("m", name)


def test_assert_checks_every_element_of_every_condition():
    x, y = scalar("x"), vector("y")
    checked = Assert("must be positive")(x, gt(x, 0), gt(y, 0))
    assert value(checked, {x: 3, y: [1, 2]}) == 3
    for bad in ({x: -3, y: [1, 2]}, {x: 3, y: [1, -2]}):
        with pytest.raises(AssertionError, match="must be positive"):
            value(checked, bad)


def test_assert_op_has_theanos_message():
    with pytest.raises(AssertionError, match="Theano Assert failed!"):
        value(assert_op(1.0, False), {})


def test_a_condition_is_disconnected():
    x, c = scalar("x"), scalar("c")
    y = Assert()(x, c)
    assert value(grad(y * x, x), {x: 3, c: 1}) == 6
    with pytest.raises(DisconnectedInputError):
        grad(y, c)


# ---- branches -----------------------------------------------------------------------------------


def test_ifelse_takes_a_branch():
    c, a, b = boolean("c"), vector("a"), vector("b")
    y = ifelse(c, a, b)
    for flag, wanted in ((True, [1, 2]), (False, [3])):
        np.testing.assert_array_equal(value(y, {c: flag, a: [1, 2], b: [3]}), wanted)


def test_only_the_branch_taken_is_computed(capsys):
    c, a = scalar("c"), scalar("a")
    y = ifelse(c, Print("then")(a) + 1, Print("else")(a) - 1)
    assert value(y, {c: 2.5, a: 3}) == 4
    assert capsys.readouterr().out == "then __str__ = 3.0\n"
    assert value(y, {c: 0, a: 3}) == 2
    assert capsys.readouterr().out == "else __str__ = 3.0\n"


def test_what_both_branches_need_is_computed_once(capsys):
    c, a = boolean("c"), scalar("a")
    both = Print("both")(a)
    assert value(ifelse(c, both + 1, both - 1), {c: True, a: 3}) == 4
    assert capsys.readouterr().out.count("both") == 1


def test_ifelse_of_lists():
    c, a, b = boolean("c"), scalar("a"), vector("b")
    y = ifelse(c, [a, b], [a + 1, b + 1], name="pair")
    assert isinstance(y, list)
    assert [v.name for v in y] == ["pair", "pair"]
    assert value(y[0], {c: False, a: 3, b: [1]}) == 4
    np.testing.assert_array_equal(value(y[1], {c: False, a: 3, b: [1]}), [2])
    assert isinstance(ifelse(c, (a,), (a + 1,)), tuple)


def test_ifelse_keeps_the_sizes_that_both_branches_have():
    a, b = TensorType("float32", (2, 3))("a"), TensorType("float32", (2, None))("b")
    assert ifelse(True, a, b).type.shape == (2, None)


def test_a_constant_branch_takes_the_others_dtype():
    c, a = boolean("c"), scalar("a")
    assert ifelse(c, a, 0).dtype == ifelse(c, 0, a).dtype == "float32"
    assert value(ifelse(c, a, 0), {c: False, a: 3}) == 0


@pytest.mark.parametrize(
    ("branches", "error"),
    [
        ((scalar(), TensorType("float64")()), TypeError),
        ((scalar(), vector()), TypeError),
        (([scalar()], [scalar(), scalar()]), ValueError),
        ((TensorType("int8")(), 0.5), TypeError),
    ],
)
def test_branches_that_do_not_match(branches, error):
    with pytest.raises(error):
        ifelse(boolean(), *branches)


def test_the_condition_must_be_a_scalar():
    with pytest.raises(TypeError, match="scalar"):
        ifelse(vector(), scalar(), scalar())


def test_the_gradient_goes_to_the_branch_taken():
    c, a, b = boolean("c"), vector("a"), vector("b")
    cost = ifelse(c, a * a, b * b * b).sum()
    for flag, da, db in ((True, [2, 4], [0, 0, 0]), (False, [0, 0], [3, 12, 27])):
        given = {c: flag, a: [1, 2], b: [1, 2, 3]}
        np.testing.assert_array_equal(value(grad(cost, a), given), da)
        np.testing.assert_array_equal(value(grad(cost, b), given), db)


def test_the_gradient_of_the_branch_not_taken_is_not_computed():
    a = scalar("a")
    cost = ifelse(gt(a, 0), log(a), a)
    with np.errstate(all="raise"):
        assert value(grad(cost, a), {a: -2}) == 1


def test_second_derivatives_pass_through_ifelse():
    a = scalar("a")
    cost = ifelse(gt(a, 0), a * a * a, exp(a))
    second = grad(grad(cost, a), a)
    assert value(second, {a: 2}) == 12


def test_the_condition_has_a_gradient_of_zero():
    c, a = scalar("c"), scalar("a")
    assert value(grad(ifelse(c, a, a + 1), c), {c: 1, a: 3}) == 0


def test_the_sizes_of_ifelse_are_those_of_the_branch_taken():
    c, a, b = boolean("c"), vector("a"), vector("b")
    y = ifelse(c, a, b)
    (size,) = y.op.sizes(y.inputs, y)
    assert [value(size, {c: f, a: [1, 2], b: [3]}) for f in (True, False)] == [2, 1]


def test_ifelse_over_rows():
    n = TensorType("int64", ())("n")
    row = TensorType("float32", (2,))
    a, b, c = row.rows()("a"), row("b"), boolean("c")
    y = IfElse().batch([c, a, b], [False, True, False], n)
    data = {a: [[1, 2], [3, 4]], b: [5, 6], n: 2}
    np.testing.assert_array_equal(value(y, {c: False, **data}), [[5, 6], [5, 6]])


def test_a_choice_in_each_row_is_not_batched():
    # the branch that a row does not take need not be defined there
    c, a, b = TensorType("bool", (None,))(), matrix(), matrix()
    assert IfElse().batch([c, a, b], [True, True, True], TensorType("int64", ())()) is None


def test_every_op_here_is_tested():
    ops = {
        n
        for n, o in vars(control).items()
        if isinstance(o, type) and o.__module__ == control.__name__
    }
    assert ops == {type(op).__name__ for op in IDENTITIES} | {"Identity", "IfElse", "ViewOp"}


# ---- what follows from shapes --------------------------------------------------------------------


def test_numbers_from_shapes_are_computed_once_for_each(monkeypatch):
    x, y = matrix("x"), matrix("y")
    rows, columns = x.shape[0], y.shape[1]
    asked = []
    size_of = Dim.eval
    monkeypatch.setattr(Dim, "eval", lambda self, a: asked.append(a.shape) or size_of(self, a))
    program = Program([x, y], [rows * columns, T.switch(gt(rows, 1), columns, -8), x * columns])
    shapes = [((2, 3), (4, 5)), ((2, 3), (4, 5)), ((1, 3), (4, 6)), ((2, 3), (4, 5))]
    for k, (a, b) in enumerate(shapes):
        found = program(np.ones(a), np.ones(b))
        assert found[:2] == (a[0] * b[1], b[1] if a[0] > 1 else -8)
        np.testing.assert_array_equal(found[2], np.full(a, b[1]))
        assert len(asked) == 2 * (1 if k < 2 else 2)


def test_as_many_shapes_as_there_may_be_are_kept():
    x = matrix("x")
    program = Program([x], [x.shape[0] * x.shape[1] + 1])
    for n in range(600):
        assert program(np.empty((n, 2)))[0] == 2 * n + 1


def test_numbers_from_shapes_that_only_a_branch_needs_are_computed_there():
    x, c = matrix("x"), boolean("c")
    n = x.shape[0]
    y = ifelse(c, T.reshape(x, (n * n - 2, 1 + n // 2, x.shape[1] + n)), x[None])
    program = Program([x, c], [y])
    assert program(np.ones((3, 4)), False)[0].shape == (1, 3, 4)
    with pytest.raises(ValueError) as e:
        program(np.ones((3, 4)), True)
    assert "Reshape" in "".join(e.value.__notes__)
