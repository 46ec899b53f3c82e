"""The backend "nccl" on doubles: `nccl.py FOLDER`. CuPy is that of cupy_double; NCCL is what
gpuscan uses of it, by CuPy's and NCCL's documentation, over MPI: so sums are right or wrong, and
every call is recorded. Each rank writes what it got to FOLDER/RANK.json."""

import gc
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))

import cupy_double as double

import gpuscan
from gpuscan import tensor as T

TYPES = {"NCCL_INT8": "int8", "NCCL_UINT8": "uint8", "NCCL_INT32": "int32",
         "NCCL_UINT32": "uint32", "NCCL_INT64": "int64", "NCCL_UINT64": "uint64",
         "NCCL_FLOAT32": "float32", "NCCL_FLOAT64": "float64"}  # fmt: skip
SUM = 0


def with_arithmetic():
    """What cupy.ndarray can beside what the double has: on the device, by a NumPy scalar."""

    def made(x, memory):
        assert memory.dtype != object
        found = x.cupy.empty(x.shape, memory.dtype)
        found.memory[...] = memory
        return found

    def by_scalar(function):
        def call(x, other):
            assert isinstance(other, np.generic) and other.dtype == x.dtype
            x.cupy.log(function.__name__, x.shape)
            return made(x, function(x.memory, other))

        return call

    double.ndarray.__mul__ = by_scalar(np.multiply)
    double.ndarray.__truediv__ = by_scalar(np.true_divide)
    double.ndarray.astype = lambda x, dtype: made(x, x.memory.astype(dtype))


def with_nccl(cupy, rank):
    """cupy.cuda.nccl, and a GPU of each rank's own."""
    world, open_groups = MPI.COMM_WORLD.Dup(), []
    nccl = types.ModuleType("cupy.cuda.nccl")
    nccl.available, nccl.NCCL_SUM = True, SUM
    for code, name in enumerate(TYPES):
        setattr(nccl, name, code)

    class NcclCommunicator:
        def __init__(self, size, key, number):
            assert (size, number) == (world.size, rank)
            assert len(key) == 128
            assert len(set(world.allgather(tuple(key)))) == 1  # the id is rank 0's, on all ranks
            cupy.log("NcclCommunicator", size, number)

        def allReduce(self, sent, received, count, kind, op, stream):
            assert all(type(x) is int for x in (sent, received, count, kind, op))
            assert open_groups and op == SUM and stream == cupy.stream and count > 0
            dtype = np.dtype(list(TYPES.values())[kind])
            whole = {"shape": (count,), "typestr": dtype.str, "version": 3}
            places = [{**whole, "data": (at, False)} for at in (sent, received)]
            x, y = (np.asarray(types.SimpleNamespace(__array_interface__=at)) for at in places)
            world.Allreduce(x, y)
            cupy.log("allReduce", count, dtype.name)

    nccl.get_unique_id = lambda: tuple(range(128))
    nccl.groupStart = lambda: (open_groups.append(1), cupy.log("groupStart"))
    nccl.groupEnd = lambda: (open_groups.pop(), cupy.log("groupEnd"))
    nccl.NcclCommunicator = NcclCommunicator
    cupy.cuda.nccl = nccl
    cupy.cuda.Device = lambda: types.SimpleNamespace(id=0, pci_bus_id=f"0000:0{rank}:00.0")
    sys.modules["cupy.cuda"] = cupy.cuda
    sys.modules["cupy.cuda.nccl"] = nccl


def observed(cupy, rank):
    with_arithmetic()
    with_nccl(cupy, rank)
    gpuscan.config.device = "cupy"
    comm = gpuscan.distributed.init()
    saved = {"backend": comm.backend}

    # gradients that stay on the device, and their updates there
    r = np.random.default_rng(rank)
    w = [gpuscan.shared(r.normal(size=s).astype("f"), n) for n, s in (("V", (3, 4)), ("b", (4,)))]
    comm.broadcast(w)
    x = T.fmatrix("x")
    cost = (T.tanh(T.dot(x, w[0]) + w[1]) ** 2).mean()
    grads = comm.all_reduce(T.grad(cost, w), weight=x.shape[0])
    train = gpuscan.function([x], updates=[(v, v - np.float32(0.1) * g) for v, g in zip(w, grads)])
    rows = np.random.default_rng(9).normal(size=(5, 3)).astype("f")
    train(rows[comm.share(5)])
    cupy.calls.clear()
    train(rows[comm.share(5)])
    saved["calls"] = [list(map(str, c)) for c in cupy.calls]
    saved["w"] = [v.get_value().tolist() for v in w]

    # all dtypes, a bucket each but for the first two; empty ones; what NCCL does not do
    dtypes = ("float32", "float32", "float16", "float64", "int8", "int16", "int64", "bool")
    tensors = [T.TensorType(d, (False,))() for d in dtypes]
    arrays = [np.arange(3).astype(d) + np.asarray(rank, d) for d in dtypes]
    for op in ("sum", "mean", "max"):
        f = gpuscan.function(tensors, comm.all_reduce(tensors, op, bucket_mb=24e-6))
        cupy.calls.clear()
        saved[op] = [[str(v.dtype), v.tolist()] for v in f(*arrays)]
        names = ("groupStart", "allReduce", "groupEnd")
        saved[f"{op} calls"] = [c[:-1] for c in cupy.calls if c[0] in names]
    f = gpuscan.function(tensors[:1], comm.all_reduce(tensors[0]))
    saved["empty"] = f(np.zeros(0, "f")).tolist()
    v = T.fvector()
    f = gpuscan.function([v, x], comm.all_reduce(v, weight=x.shape[0]))
    saved["weight 0"] = f(np.full(2, np.nan if rank else 3, "f"), rows[: 1 - rank]).tolist()
    # on another device it is MPI
    f = gpuscan.function([v], comm.all_reduce(v), device="reference")
    cupy.calls.clear()
    saved["reference"] = [f(np.full(2, rank, "f")).tolist(), len(cupy.calls)]
    return saved


def main(folder):
    rank = MPI.COMM_WORLD.rank
    with pytest.MonkeyPatch.context() as patch:
        cupy = next(made := double.cupy_double.__wrapped__(patch))
        saved = observed(cupy, rank)
        Path(folder, f"{rank}.json").write_text(json.dumps(saved))
        gc.collect()
        next(made, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
