"""What each rank gives to reductions and what it gets: `values.py FOLDER` writes them to
FOLDER/RANK.npz as CASE.in.I, CASE.out.I and CASE.weight."""

import pickle
import sys

import numpy as np

import gpuscan
from gpuscan import tensor as T

FLOATS = ("float16", "float32", "float64")
DISCRETE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def drawn(rank, dtype, shape):
    r = np.random.default_rng(100 + rank)
    if dtype == "bool":
        return r.integers(0, 2, shape).astype(bool)
    x = r.normal(0, 10, shape)
    return (np.abs(x) if dtype.startswith("u") else x).astype(dtype)


def special(rank, dtype):
    """NaN on one rank, infinities of one sign and of both."""
    nan, inf = np.nan, np.inf
    rows = [[nan, inf, inf, 1.0], [2.0, inf, -inf, -nan], [3.0, 1.0, 2.0, 4.0]]
    return np.array(rows[rank], dtype)


def layouts(rank):
    """Transposed, strided, reversed, 0-d, empty, and more than a bucket."""
    x = drawn(rank, "float32", (6, 8))
    return [x.T, x[::2, 1::3], x[::-1], x[0, 0], x[:0], drawn(rank, "float32", (300,))]


def main(folder):
    comm = gpuscan.distributed.init()
    rank, saved = comm.rank, {}

    def case(name, arrays, op, weight=None, several=True, **more):
        variables = [T.TensorType(x.dtype.name, (False,) * x.ndim)() for x in arrays]
        w = None if weight is None else T.dscalar()
        found = comm.all_reduce(variables if several else variables[0], op, weight=w, **more)
        if several:
            assert isinstance(found, list)
        inputs = variables if weight is None else [*variables, w]
        f = gpuscan.function(inputs, found, on_unused_input="ignore")
        given = [*arrays, *([] if weight is None else [weight])]
        for again in (f, pickle.loads(pickle.dumps(f))):
            out = again(*given)
            for i, (x, y) in enumerate(zip(arrays, out if several else [out])):
                saved[f"{name}.in.{i}"], saved[f"{name}.out.{i}"] = x, y
        saved[f"{name}.weight"] = 1.0 if weight is None else weight

    for op in ("mean", "sum", "max", "min"):
        case(f"{op} dtypes", [drawn(rank, d, (3, 2)) for d in (*FLOATS, *DISCRETE)], op)
        case(f"{op} special", [special(rank, d) for d in FLOATS], op)
        case(f"{op} layouts", layouts(rank), op, bucket_mb=0.0002)
        case(f"{op} one", [drawn(rank, "float32", (5,))], op, several=False)
    weights = (3, 0, 1.5)
    case("mean weighted", [drawn(rank, d, (3, 2)) for d in FLOATS], "mean", weights[rank])
    lost = [np.full((2,), np.nan if weights[rank] == 0 else rank, "float32")]
    case("mean without a NaN of weight 0", lost, "mean", weights[rank])
    case("mean large", [np.full((2,), 6e4, "float16")], "mean", 100.0)

    # the order in which a graph is walked: on each rank another one
    x = T.fvector()
    pair = [comm.all_reduce(x), comm.all_reduce(T.concatenate([x, x]), "max")]
    turned = gpuscan.function([x], pair if rank else pair[::-1])
    found = turned(np.full(2, rank, "f"))
    saved["order"] = np.concatenate(found if rank else found[::-1])

    # derivatives of the sum of all ranks' costs
    for op in ("mean", "sum", "max", "min", "weighted"):
        how, w = ("mean", T.constant(weights[rank])) if op == "weighted" else (op, None)
        c = T.constant(np.array([1.0, 2.0, 4.0]) * (rank + 1))
        y = T.dvector("y")
        cost = (c * comm.all_reduce(y**2, how, weight=w)).sum()
        f = gpuscan.function([y], [T.grad(cost, y), cost])
        at = np.array([rank + 1.0, 2.0 - 0.3 * rank, -1.0 - rank])  # no ties
        saved[f"grad {op}.in"], (saved[f"grad {op}.out"], _) = at, f(at)
        nearby = []
        for i in range(3):
            moved = []
            for eps in (1e-6, -1e-6):
                for mover in range(comm.size):  # in turn each rank's element is moved
                    step = np.zeros(3)
                    step[i] = eps * (rank == mover)
                    moved.append(float(comm.all_reduce(f(at + step)[1], "sum").eval()))
            n = comm.size
            nearby.append((moved[rank] - moved[n + rank]) / 2e-6)
        saved[f"grad {op}.numeric"] = nearby

    # branches, which all take or none
    flag, z = T.bscalar(), T.fvector()
    f = gpuscan.function([flag, z], T.ifelse(flag, comm.all_reduce(z, "sum"), z))
    saved["branch"] = np.array([f(1, np.ones(2, "f")), f(0, np.ones(2, "f"))])

    # broadcast; a failed one changes nothing
    held = [
        gpuscan.shared(drawn(rank, d, s), d)
        for d, s in (("float16", (2, 3)), ("bool", (4,)), ("int64", ()), ("float64", (0, 2)))
    ]
    held[0].set_value(np.asfortranarray(held[0].get_value()))
    before = [v.get_value() for v in held]
    uneven = gpuscan.shared(np.zeros(2 + rank))
    try:
        comm.broadcast([*held, uneven])
        raise AssertionError("shapes differ")
    except gpuscan.distributed.DistributedError as e:
        saved["uneven"] = str(e)
    for v, old in zip(held, before):
        np.testing.assert_array_equal(v.get_value(), old)
    comm.broadcast(held, root=1)
    comm.broadcast(held[0], root=1)
    for v, old in zip(held, before):
        saved[f"broadcast {v.name}.in"], saved[f"broadcast {v.name}.out"] = old, v.get_value()
    comm.barrier()

    # wrong weights are an error on every rank, after which the ranks go on together
    w = T.dscalar()
    f = gpuscan.function([x, w], comm.all_reduce(x, weight=w))
    for name, bad in (("negative", -1.0), ("nan", np.nan), ("zeros", 0.0)):
        try:
            f(np.ones(2, "f"), bad if name == "zeros" or rank == 1 else 1.0)
            raise AssertionError(name)
        except ValueError as e:
            saved[f"weights {name}"] = str(e)
    saved["afterwards"] = f(np.full(2, rank, "f"), 1)
    np.savez(f"{folder}/{rank}.npz", **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
