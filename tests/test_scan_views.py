"""map, reduce, foldl, foldr, scan_checkpoints and clone: SCAN.md 1.11."""

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.printing import debugprint
from gpuscan.theano import gof

f32 = np.float32


def run(outputs, inputs=(), values=(), **options):
    f = theano.function(list(inputs), outputs, allow_input_downcast=True, **options)
    return f(*values)


# ---- map -----------------------------------------------------------------------------------------


def test_map_applies_fn_to_rows():
    x, k = T.vector("x"), T.scalar("k")
    out, updates = theano.map(lambda r, k: r * k, x, k)
    assert run(out, [x, k], [[1, 2, 3], 2.0]).tolist() == [2, 4, 6]
    assert not updates


def test_map_over_several_sequences_with_several_results():
    x, y = T.vector("x"), T.vector("y")
    outs, _ = theano.map(lambda a, b: [a + b, a * b], [x, y])
    assert [o.tolist() for o in run(outs, [x, y], [[1, 2], [3, 4]])] == [[4, 6], [3, 8]]


def test_map_going_backwards():
    x = T.vector("x")
    out, _ = theano.map(lambda r: r, x, go_backwards=True)
    assert run(out, [x], [[1, 2, 3]]).tolist() == [3, 2, 1]


def test_map_with_truncated_gradient():
    x = T.vector("x")
    out, _ = theano.map(lambda r: r**2, x, None, 2)
    assert run(T.grad(out.sum(), x), [x], [[1, 2, 3]]).tolist() == [0, 4, 6]


def test_map_in_order_of_its_arguments():
    x = T.vector("x")
    out, _ = theano.map(lambda r: r * 2, x, [], -1, False, None, "doubling")
    assert "doubling" in debugprint(out, file="str")


# ---- reduce, foldl, foldr ------------------------------------------------------------------------


def test_reduce_gives_the_last_value():
    x = T.vector("x")
    out, updates = theano.reduce(lambda row, acc: acc * 10 + row, x, T.constant(f32(0)))
    assert out.ndim == 0
    assert run(out, [x], [[1, 2, 3]]) == 123
    assert not updates


def test_reduce_with_several_accumulators():
    x = T.vector("x")
    outs, _ = theano.reduce(
        lambda row, s, p: [s + row, p * row], x, [T.constant(f32(0)), T.constant(f32(1))]
    )
    assert isinstance(outs, list)
    assert run(outs, [x], [[2, 3, 4]]) == [9, 24]


def test_reduce_over_several_sequences_and_non_sequences():
    x, y, k = T.vector("x"), T.vector("y"), T.scalar("k")
    out, _ = theano.reduce(lambda a, b, acc, k: acc + a * b * k, [x, y], T.constant(f32(0)), k)
    assert run(out, [x, y, k], [[1, 2], [3, 4], 2.0]) == 22


def test_foldl_reads_from_the_first_row_and_foldr_from_the_last():
    x = T.vector("x")
    left, _ = theano.foldl(lambda row, acc: acc * 10 + row, x, T.constant(f32(0)))
    right, _ = theano.foldr(lambda row, acc: acc * 10 + row, x, T.constant(f32(0)))
    backwards, _ = theano.reduce(
        lambda row, acc: acc * 10 + row, x, T.constant(f32(0)), go_backwards=True
    )
    assert run([left, right, backwards], [x], [[1, 2, 3]]) == [123, 321, 321]


def test_folds_differentiate():
    x = T.vector("x")
    for fold in (theano.foldl, theano.foldr):
        out, _ = fold(lambda row, acc: acc * row, x, T.constant(f32(1)))
        assert run(T.grad(out, x), [x], [[2, 3, 4]]).tolist() == [12, 8, 6]


def test_folds_carry_updates():
    x, k = T.vector("x"), theano.shared(f32(0), "k")
    out, updates = theano.foldl(lambda row, acc: (acc + row, {k: k + 1}), x, T.constant(f32(0)))
    assert run(out, [x], [[2, 3, 4]], updates=updates) == 9
    assert k.get_value() == 3


# ---- scan_checkpoints ----------------------------------------------------------------------------


def power(scan, a, k, **more):
    out, updates = scan(
        lambda prior, a: prior * a, outputs_info=T.ones_like(a), non_sequences=a, n_steps=k, **more
    )
    return out[-1]


@pytest.mark.parametrize("k, every", [(101, 100), (100, 100), (7, 10), (1, 1), (6, 1), (6, 4)])
def test_checkpoints_equal_plain_scan_and_so_do_their_gradients(k, every):
    a, n = T.dvector("a"), T.iscalar("n")
    plain, saved = (
        power(theano.scan, a, n),
        power(theano.scan_checkpoints, a, n, save_every_N=every),
    )
    value = np.array([0.9, 1.01])
    f = theano.function([a, n], [plain, saved, T.grad(plain.sum(), a), T.grad(saved.sum(), a)])
    p, s, dp, ds = f(value, k)
    np.testing.assert_allclose(s, value**k, rtol=1e-12)
    np.testing.assert_allclose(s, p, rtol=1e-14)
    np.testing.assert_allclose(ds, dp, rtol=1e-12)


@pytest.mark.parametrize("length, every", [(10, 5), (11, 5), (14, 5), (3, 5), (5, 5), (1, 2)])
def test_checkpoints_over_sequences(length, every):
    x, a, w = T.dmatrix("x"), T.dvector("a"), T.dvector("w")

    def step(r, s, w):
        return T.tanh(r + s * w)

    plain, _ = theano.scan(step, x, a, w)
    saved, _ = theano.scan_checkpoints(step, x, a, w, save_every_N=every)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(length, 2)), rng.normal(size=2), rng.normal(size=2)
    outs = [
        [out[-1], *T.grad((out[-1] * np.array([1.0, 2.0])).sum(), [x, a, w])]
        for out in (plain, saved)
    ]
    f = theano.function([x, a, w], [*outs[0], *outs[1], saved.shape[0]])
    *found, rows = f(*values)
    for p, s in zip(found[:4], found[4:]):
        np.testing.assert_allclose(s, p, rtol=1e-12)
    assert rows == -(-length // every)


def test_checkpoints_keep_the_last_value_of_each_chunk():
    x = T.vector("x")
    out, _ = theano.scan_checkpoints(lambda r, s: s + r, x, T.constant(f32(0)), save_every_N=3)
    assert run(out, [x], [np.ones(8)]).tolist() == [3, 6, 8]


def test_checkpoints_with_several_outputs():
    x, a = T.vector("x"), T.scalar("a")
    outs, _ = theano.scan_checkpoints(lambda r, s: [s + r, r * 2], [x], [a, None], save_every_N=2)
    assert [o.tolist() for o in run(outs, [x, a], [[1, 2, 3], 10.0])] == [[13, 16], [4, 6]]


def test_checkpoints_over_part_of_a_sequence():
    x = T.vector("x")
    out, _ = theano.scan_checkpoints(
        lambda r, s: s + r, x, T.constant(f32(0)), n_steps=3, save_every_N=2
    )
    assert run(out, [x], [[1, 2, 4, 8]]).tolist() == [3, 7]


def test_checkpoints_carry_updates():
    k = theano.shared(f32(0), "k")
    x = T.vector("x")
    out, updates = theano.scan_checkpoints(
        lambda r, s: (s + r + k, {k: k + 1}), x, T.constant(f32(0)), save_every_N=2
    )
    assert run(out[-1], [x], [[0, 0, 0]], updates=updates) == 3
    assert k.get_value() == 3


def test_checkpoints_need_sequences_of_one_length():
    x, y = T.vector("x"), T.vector("y")
    out, _ = theano.scan_checkpoints(
        lambda a, b, s: a + b + s, [x, y], T.constant(f32(0)), save_every_N=2
    )
    f = theano.function([x, y], out[-1])
    assert f([1, 2, 3], [1, 2, 3]) == 12
    with pytest.raises(ValueError):
        f([1, 2, 3], [1, 2])


# ---- clone ---------------------------------------------------------------------------------------


def test_clone_replaces_an_input():
    x, y, z = T.vector("x"), T.vector("y"), T.vector("z")
    out = theano.clone(x * y, {x: z})
    assert run(out, [y, z], [[1, 2], [3, 4]]).tolist() == [3, 8]


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_clone_takes_dicts_and_pairs(kind):
    x, z = T.vector("x"), T.vector("z")
    out = theano.clone(x + 1, replace=kind([(x, z * 2)]))
    assert run(out, [z], [[1, 2]]).tolist() == [3, 5]


def test_clone_replaces_all_at_once():
    x, y = T.scalar("x"), T.scalar("y")
    out = theano.clone(x - y, {x: y, y: x})
    assert run(out, [x, y], [1.0, 3.0]) == 2


def test_clone_replaces_a_shared_variable_by_an_expression_of_itself_once():
    x, y = T.vector("x"), theano.shared(f32(3), "y")
    out = theano.clone(x * y, replace={y: y + 1})
    assert run(out, [x], [[1, 2]]).tolist() == [4, 8]


def test_clone_replaces_a_subgraph():
    x = T.vector("x")
    part = x * 2
    out = theano.clone(part + 1, {part: x * 10})
    assert run(out, [x], [[1, 2]]).tolist() == [11, 21]


def test_clone_reaches_what_a_scan_is_given_and_what_it_captures():
    x, w, v, a = T.vector("x"), T.scalar("w"), T.scalar("v"), T.scalar("a")
    out, _ = theano.scan(lambda r, s, w: s * w + r * v, x, a, w)
    new = theano.clone(out, {w: w * 2, v: v + 1, a: a - 1})
    f = theano.function([x, w, v, a], [out, new])
    plain, replaced = f([1, 2], 1.0, 1.0, 1.0)
    assert plain.tolist() == [2, 4]
    assert replaced.tolist() == [2, 8]


def test_gradient_of_a_cloned_scan():
    x, a, b = T.dvector("x"), T.dscalar("a"), T.dscalar("b")
    out, _ = theano.scan(lambda r, s, a: s * a + r, x, T.constant(np.float64(1)), a)
    new = theano.clone(out[-1], {a: b * b})
    value = np.array([1.0, 2.0]), 1.5
    # y = b^4 + b^2 + 2
    assert run(T.grad(new, b), [x, b], value) == pytest.approx(4 * 1.5**3 + 2 * 1.5, rel=1e-12)


def test_clone_of_nothing_gives_the_same_value():
    x = T.vector("x")
    assert run(theano.clone(x + 1), [x], [[1]]).tolist() == [2]
    assert run(theano.clone([x + 1, x]), [x], [[1]])[0].tolist() == [2]


def test_clone_with_fresh_inputs():
    x, s = T.vector("x"), theano.shared(f32(2), "s")
    out = theano.clone((x + 1) * s, share_inputs=False)
    free = [v for v in gof.graph.inputs([out]) if v.name == "x"]
    assert free and free[0] is not x
    assert run(out, free, [[1]]).tolist() == [4]


def test_clone_refuses_other_kinds_of_replace():
    with pytest.raises(ValueError, match="replace is neither a dictionary, list, tuple or None !"):
        theano.clone(T.vector("x"), replace=3)


def test_clone_casts_only_where_strict_is_off():
    x, d = T.vector("x"), T.dvector("d")
    with pytest.raises(TypeError, match="x.*d"):
        theano.clone(x + 1, {x: d})
    out = theano.clone(x + 1, {x: d}, strict=False)
    assert out.dtype == "float32"
    assert run(out, [d], [[1.0]]).tolist() == [2]
