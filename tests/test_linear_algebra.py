"""Inverses, decompositions and linear systems against NumPy and SciPy, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import gpuscan
from gpuscan import tensor as T
from gpuscan.evaluate import Program
from gpuscan.graph import results
from gpuscan.ops.shape import dims

RNG = np.random.default_rng(11)
M = RNG.normal(size=(3, 4))
S = RNG.normal(size=(3, 3)) + 3 * np.eye(3)
V = RNG.normal(size=4)


def applied(f: Callable[..., Any], *arrays: Any) -> Any:
    """f, which builds graph, of the arrays; a list where f returns one."""
    xs = [T.tensor(a.dtype.name, shape=(None,) * a.ndim) for a in arrays]
    found = f(*xs)
    several = isinstance(found, list)
    values = Program(xs, found if several else [found])(*arrays)
    return list(values) if several else values[0]


def same(got: Any, want: Any, **tolerance: Any) -> None:
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, **({"rtol": 1e-12, "atol": 1e-13} | tolerance))


P = S @ S.T + np.eye(3)  # positive definite
LINEAR: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
    "matrix_inverse": (T.nlinalg.matrix_inverse, np.linalg.inv, (S,)),
    "pinv": (T.nlinalg.pinv, np.linalg.pinv, (M,)),
    "pinv of a tall matrix": (T.nlinalg.pinv, np.linalg.pinv, (M.T,)),
    "det": (T.nlinalg.det, np.linalg.det, (S,)),
    "cholesky": (T.slinalg.cholesky, np.linalg.cholesky, (P,)),
    "solve": (T.slinalg.solve, np.linalg.solve, (S, M)),
    "solve a vector": (T.slinalg.solve, np.linalg.solve, (S, M[:, 0])),
    "solve_lower_triangular": (
        T.slinalg.solve_lower_triangular,
        lambda a, b: scipy.linalg.solve_triangular(a, b, lower=True), (S, M),
    ),
    "solve_upper_triangular": (
        T.slinalg.solve_upper_triangular, scipy.linalg.solve_triangular, (S, M),
    ),
    "eigenvalues": (lambda x: T.nlinalg.eigh(x)[0], lambda x: np.linalg.eigh(x)[0], (P,)),
    "eigenvalues of the upper half": (
        lambda x: T.nlinalg.eigh(x, "U")[0], lambda x: np.linalg.eigh(x, "U")[0], (S,),
    ),
    "trace": (T.nlinalg.trace, np.trace, (S,)),
    "matrix_dot": (T.nlinalg.matrix_dot, lambda *m: np.linalg.multi_dot(m), (S, M, M.T)),
    "matrix_power": (lambda x: T.nlinalg.matrix_power(x, 5), lambda x: x @ x @ x @ x @ x, (S,)),
    "inverse power": (
        lambda x: T.nlinalg.matrix_power(x, -2), lambda x: np.linalg.matrix_power(x, -2), (S,),
    ),
    "extract_diag": (T.nlinalg.extract_diag, np.diag, (S,)),
    "alloc_diag": (T.nlinalg.alloc_diag, np.diag, (V,)),
    "tensorinv": (T.nlinalg.tensorinv, np.linalg.tensorinv, (RNG.normal(size=(2, 3, 3, 2)),)),
    "tensorsolve": (
        T.nlinalg.tensorsolve, np.linalg.tensorsolve,
        (RNG.normal(size=(2, 3, 3, 2)), RNG.normal(size=(2, 3))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_linear_algebra(name: str) -> None:
    ours, reference, arguments = LINEAR[name]
    same(applied(ours, *arguments), reference(*arguments), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in LINEAR if "matrix_power" not in n])
def test_gradient_of_linear_algebra(name: str) -> None:
    f, _, arguments = LINEAR[name]
    T.verify_grad(f, list(arguments), rng=np.random.default_rng(0))


@pytest.mark.parametrize("f", [T.nlinalg.matrix_inverse, T.nlinalg.det, T.slinalg.cholesky])
def test_second_derivative_of_linear_algebra(f: Any) -> None:
    def gradient(x: Any) -> Any:
        return T.grad((f(x) ** 2).sum(), x)

    T.verify_grad(gradient, [P / 4], rng=np.random.default_rng(0), rel_tol=1e-3)


def test_gradient_of_eigenvectors() -> None:
    # a vector's sign is free, its projector is not
    def projector(x: Any) -> Any:
        v = T.nlinalg.eigh(x)[1][:, 0]
        return T.outer(v, v)

    T.verify_grad(projector, [P], rng=np.random.default_rng(0))


def test_eigenvectors_diagonalise() -> None:
    w, v = applied(T.nlinalg.eigh, P)
    same(v @ np.diag(w) @ v.T, P)


@pytest.mark.parametrize("full", [True, False])
def test_svd_factors_multiply_to_the_matrix(full: bool) -> None:
    u, s, vt = applied(lambda x: T.nlinalg.svd(x, full), M)
    same(u[:, :3] * s @ vt[:3], M)
    assert vt.shape == ((4, 4) if full else (3, 4))


def test_qr_factors_multiply_to_the_matrix() -> None:
    q, r = applied(T.nlinalg.qr, M.T)
    same(q @ r, M.T)
    same(applied(lambda x: T.nlinalg.qr(x, "r"), M.T), r)


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_norm_of_a_matrix(order: Any) -> None:
    same(applied(lambda x: T.nlinalg.norm(x, order), M), np.linalg.norm(M, order))


def test_norm_of_a_vector() -> None:
    same(applied(lambda x: T.nlinalg.norm(x, 3), V), np.linalg.norm(V, 3))


def test_power_zero_is_the_identity() -> None:
    same(applied(lambda x: T.nlinalg.matrix_power(x, 0), S), np.eye(3))


OPS = [T.nlinalg.matrix_inverse, T.nlinalg.det, T.slinalg.cholesky, T.nlinalg.pinv,
       T.nlinalg.eigh, T.nlinalg.qr]  # fmt: skip


@pytest.mark.parametrize("f", OPS)
def test_batch_of_linear_algebra_is_each_matrix(f: Any) -> None:
    stacked = np.stack([P, P + 1, 2 * P])
    x, out = T.dmatrix(), f(T.dmatrix())
    node = out[0].inputs[0] if isinstance(out, list) else out
    batch = node.op.batch([y := T.dtensor3()], [True], T.constant(3, dtype="int64"))
    got = Program([y], results(batch))(stacked)
    want = [Program([x], results(node.op(x)))(m) for m in stacked]
    for g, w in zip(got, zip(*want)):
        same(g, np.stack(w))


def test_batch_of_solve_with_one_matrix_for_all() -> None:
    b = RNG.normal(size=(5, 3, 2))
    x, y = T.dmatrix(), T.dtensor3()
    node = T.slinalg.Solve()(T.dmatrix(), T.dmatrix())
    batch = node.op.batch([x, y], [False, True], dims(y)[0])
    same(Program([x, y], [batch])(S, b)[0], np.linalg.solve(S, b))


def test_solve_lower_triangular_does_not_read_the_rest() -> None:
    spoiled = S + np.triu(np.full((3, 3), np.nan), 1)
    got = applied(T.slinalg.solve_lower_triangular, spoiled, M)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("f", OPS)
def test_linear_algebra_keeps_float32(f: Any) -> None:
    found = applied(f, P.astype("float32"))
    assert {v.dtype.name for v in (found if isinstance(found, list) else [found])} == {"float32"}


def test_linear_algebra_of_integers_gives_floatx() -> None:
    assert T.nlinalg.det(T.imatrix()).dtype == "float32"


def test_a_matrix_that_is_not_square_is_refused_at_build_time() -> None:
    with pytest.raises(ValueError, match="square"):
        T.nlinalg.matrix_inverse(T.tensor("float64", shape=(2, 3)))


def test_svd_has_no_gradient_and_says_so() -> None:
    x = T.dmatrix()
    with pytest.raises(gpuscan.gradient.NullTypeGradError, match="svd has no gradient"):
        T.grad(T.nlinalg.svd(x, compute_uv=False).sum(), x)
