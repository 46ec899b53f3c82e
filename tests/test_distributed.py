"""gpuscan.distributed: alone, by MPI, and by NCCL on a double. The programs that mpiexec runs are
in tests/mpi; they run on the device that is under test."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from stand_in import build

import gpuscan
from gpuscan import distributed, function, scan, shared
from gpuscan import tensor as T
from gpuscan.distributed import DistributedError
from gpuscan.distributed.communicator import AllReduce, Communicator
from gpuscan.graph import toposort

PROGRAMS = Path(__file__).parent / "mpi"
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or find_spec("mpi4py") is None, reason="no mpiexec, or no mpi4py: extra mpi"
)
# Open MPI, of version 4 and from 5 on, as MPICH does by itself: also for root, more ranks than
# cores, and no rank bound to its own.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def run(n, program, *arguments, **environment):
    """The program as n ranks; 0: without mpiexec."""
    command = [sys.executable, PROGRAMS / program, *arguments]
    if n:
        command = [MPIEXEC, "-n", str(n), *command]
    threads = {"GPUSCAN_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **OPEN_MPI, **threads, **environment},
    )  # fmt: skip


def results(n, program, folder, *arguments):
    """What each rank wrote to the folder."""
    folder.mkdir(exist_ok=True)
    done = run(n, program, *arguments, folder)
    assert done.returncode == 0, done.stderr
    return [np.load(folder / f"{rank}.npz") for rank in range(max(n, 1))]


@pytest.fixture
def comm(monkeypatch):
    """The communicator of a process that mpiexec did not start."""
    monkeypatch.setattr(distributed, "_made", None)
    return distributed.init()


# ---- by MPI --------------------------------------------------------------------------------------

FUNCTIONS = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


@needs_mpi
@pytest.mark.parametrize("n", [2, 3])
def test_all_ranks_get_what_numpy_says(n, tmp_path):
    ranks = results(n, "values.py", tmp_path)
    outs = [k for k in ranks[0] if ".out." in k and not k.startswith(("broadcast", "grad"))]
    assert len(outs) == 4 * (12 + 3 + 6 + 1) + 3 + 2
    for key in outs:
        name = key.partition(".")[0]
        op = name.split()[0]
        given = np.stack([r[key.replace(".out.", ".in.")] for r in ranks])
        weights = np.array([float(r[f"{name}.weight"]) for r in ranks])
        dtype = given.dtype
        if op == "mean" and dtype.kind != "f":
            dtype = np.dtype("float32")
        if op == "sum" and dtype.kind == "b":
            dtype = np.dtype("int64")
        if op == "mean":
            given, weights = given[weights > 0], weights[weights > 0]
            wide = given.astype("float64")
            with np.errstate(all="ignore"):
                expected = np.tensordot(weights, wide, 1) / weights.sum()
                if not np.isfinite(wide).all():
                    expected = (wide * weights.reshape(-1, *[1] * (wide.ndim - 1))).sum(0)
                expected = expected.astype(dtype)
        else:
            wide = given.astype("float64") if dtype.kind == "f" else given
            with np.errstate(all="ignore"):
                axis = {"dtype": dtype} if op == "sum" and dtype.kind != "f" else {}
                expected = FUNCTIONS[op](wide, axis=0, **axis).astype(dtype)
        rtol = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}.get(dtype.name, 0)
        atol = 30 * rtol if op in ("mean", "sum") and "special" not in name else 0
        for r in ranks:
            assert r[key].dtype == dtype, key
            np.testing.assert_allclose(r[key], expected, rtol=rtol, atol=atol, err_msg=key)
            np.testing.assert_array_equal(r[key], ranks[0][key], err_msg=key)  # to the last bit

    some = np.arange(n, dtype="f")
    for rank, r in enumerate(ranks):
        np.testing.assert_array_equal(r["order"], [some.mean()] * 2 + [n - 1] * 4)
        np.testing.assert_array_equal(r["branch"], [[n, n], [1, 1]])
        np.testing.assert_array_equal(r["afterwards"], [some.mean()] * 2)
        for op in ("mean", "sum", "max", "min", "weighted"):
            got, numeric = r[f"grad {op}.out"], r[f"grad {op}.numeric"]
            np.testing.assert_allclose(got, numeric, rtol=1e-6, atol=1e-6, err_msg=f"{op} {rank}")
        for key in [k for k in r if k.startswith("broadcast") and k.endswith(".out")]:
            root = ranks[1][key.replace(".out", ".in")]
            assert r[key].dtype == root.dtype
            np.testing.assert_array_equal(r[key], root)
        words = "rank 0: array 4 is float64 (2,); rank 1: array 4 is float64 (3,)"
        assert words in str(r["uneven"])
        assert "rank 1 gave -1" in str(r["weights negative"])
        assert "rank 1 gave nan" in str(r["weights nan"])
        assert "the weights of all ranks are 0" in str(r["weights zeros"])


@needs_mpi
@pytest.mark.parametrize(
    ("dtype", "sizes", "rtol"), [("float64", (2, 3), 1e-12), ("float32", (2,), 2e-6)]
)
def test_a_character_model_learns_as_one_process_does_with_the_joined_batch(
    dtype, sizes, rtol, tmp_path
):
    """The last batch of an epoch has one row, which rank 0 gets: the others have none."""
    (alone,) = results(0, "character_model.py", tmp_path / "0", dtype)
    assert alone["size"] == 1 and len(alone["losses"]) == 12
    assert alone["losses"][8] < alone["losses"][0] - 0.2  # the first batch, two epochs later
    for n in sizes:
        ranks = results(n, "character_model.py", tmp_path / str(n), dtype)
        for r in ranks:
            assert r["size"] == n
            np.testing.assert_allclose(r["losses"], alone["losses"], rtol=rtol)
            for name in ("embed", "W", "V"):
                np.testing.assert_allclose(r[name], alone[name], rtol=0, atol=20 * rtol)
                np.testing.assert_array_equal(r[name], ranks[0][name])


@needs_mpi
def test_the_example_learns_the_same_on_ranks_with_unequal_shares_of_its_streams(tmp_path):
    """5 streams: 3 and 2, or 2, 2 and 1."""
    (alone,) = results(0, "example.py", tmp_path / "0", 5)
    assert alone["losses"][-1] < alone["losses"][0] - 0.5
    for n in (2, 3):
        ranks = results(n, "example.py", tmp_path / str(n), 5)
        for r in ranks:
            np.testing.assert_allclose(r["losses"], alone["losses"], rtol=1e-5)
            for name in set(alone) - {"losses"}:
                np.testing.assert_allclose(r[name], alone[name], rtol=0, atol=1e-5)
                np.testing.assert_array_equal(r[name], ranks[0][name])


# ---- ranks that fail -----------------------------------------------------------------------------

ENDS = "ends the job: DistributedError"
FAILURES = {
    "raise": ["Error: the data of rank 1 is missing", "rank 1 of 2 .* ends the job: RuntimeError"],
    "thread": ["rank 1 of 2 .* ends the job: ZeroDivisionError in thread prefetch"],
    "exit": [
        "do not make the same call number 2: rank 0: all_reduce 'mean' of 1 array at "
        r".*failures.py:\d+; rank 1: the end of the program", f"rank 0 of 2 .* {ENDS}",
    ],
    "barrier": ["number 2: rank 0: all_reduce 'mean' of 1 array.*; rank 1: barrier", ENDS],
    "shape": [r"rank 0: array 0 is float32 \(3,\) \(x\); rank 1: array 0 is float32 \(4,\)", ENDS],
    "late": ["call number 2, all_reduce 'mean' .*: rank 1 did not come within 1 seconds", ENDS],
}  # fmt: skip


@needs_mpi
@pytest.mark.own_device
@pytest.mark.parametrize("what", FAILURES)
def test_a_rank_that_fails_ends_the_job_with_its_name(what):
    done = run(2, "failures.py", what, GPUSCAN_DEVICE="reference")
    assert done.returncode != 0
    assert "is done" not in done.stdout
    for pattern in FAILURES[what]:
        assert re.search(pattern, done.stderr), done.stderr


@needs_mpi
@pytest.mark.own_device
def test_a_rank_that_is_killed_ends_the_job():
    done = run(2, "failures.py", "kill", GPUSCAN_DEVICE="reference")
    assert done.returncode != 0
    assert "is done" not in done.stdout
    said = done.stdout + done.stderr
    if "PID" in said:  # as MPICH names it, Open MPI by its rank, too; the log says which that is
        process = re.search(r": processes (\d+), (\d+) on ", said).group(2)
        assert re.search(rf"PID {process} |rank 1 with PID ", said)


@needs_mpi
@pytest.mark.own_device
def test_a_forked_child_of_a_rank_is_none():
    done = run(2, "failures.py", "fork", GPUSCAN_DEVICE="reference")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == [
        "",
        *(f"rank {i} is done, 1 threads" for i in (0, 1)),
    ]


@needs_mpi
@pytest.mark.own_device
def test_the_log_says_which_backend_and_why_and_ranks_share_the_cores():
    done = run(2, "failures.py", "nothing", GPUSCAN_DEVICE="reference", GPUSCAN_THREADS="0")
    assert done.returncode == 0, done.stderr
    each = max(1, len(os.sched_getaffinity(0)) // 2)  # the ranks share the cores
    told = [f"rank {i} is done, {each} threads" for i in (0, 1)]
    assert sorted(done.stdout.splitlines()) == told
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"gpuscan.distributed: mpi, 2 ranks \(started by mpiexec: \w+ is set; arrays of device "
        r"reference are reduced in host memory\): processes \d+, \d+ on .*", line
    )  # fmt: skip
    done = run(0, "failures.py", "nothing", GPUSCAN_DEVICE="reference")
    assert done.stdout == "rank 0 is done, 1 threads\n"
    words = r"gpuscan.distributed: serial, 1 rank \(not started by mpiexec\): process \d+\n"
    assert re.fullmatch(words, done.stderr)


# ---- by NCCL, on a double ------------------------------------------------------------------------


@needs_mpi
@pytest.mark.own_device
def test_nccl_sums_on_the_device(tmp_path):
    """A double of CuPy and of its NCCL, over MPI: calls as they are documented, and right sums."""
    try:
        build.driver()
    except build.Missing as e:
        pytest.skip(f"no stand-in for the driver: {e}")
    done = run(2, "nccl.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gpuscan.distributed: nccl, 2 ranks (started by mpiexec: " in done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]

    # two steps on the joined batch
    w = _trained_alone()
    for r in ranks:
        assert r["backend"] == "nccl"
        for got, expected in zip(r["w"], w):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        names = [c[0] for c in r["calls"]]
        assert "to the host" not in names  # gradients and updates stay there
        first = names.index("groupStart")
        assert [c[:3] for c in r["calls"][first : first + 4]] == [
            ["groupStart", "0"], ["allReduce", "12", "float32"], ["allReduce", "4", "float32"],
            ["groupEnd", "0"],
        ]  # fmt: skip
        for op, middle in (("sum", [1, 3, 5]), ("mean", [0.5, 1.5, 2.5]), ("max", [1, 2, 3])):
            *numbers, (kind, booleans) = r[op]
            assert [x for _, x in numbers] == [middle] * 7
            floats = ["float32", "float32", "float16", "float64"]
            same = [*floats, "int8", "int16", "int64"]
            assert [d for d, _ in numbers] == (
                [*floats, *["float32"] * 3] if op == "mean" else same
            )
            last = {"sum": ("int64", [1, 2, 2]), "mean": ("float32", [0.5, 1, 1]),
                    "max": ("bool", [True] * 3)}  # fmt: skip
            assert (kind, booleans) == last[op]
        # 24 bytes a bucket: two arrays of float32, one of float64; int16 is not NCCL's, nor max
        kinds = [c[2] for c in r["sum calls"] if c[0] == "allReduce"]
        assert sorted(kinds) == sorted(["float32"] * 3 + ["float64", "int8", "int64", "int64"])
        assert r["sum calls"].count(["groupStart"]) == 6
        assert r["max calls"] == []
        assert r["empty"] == []
        assert r["weight 0"] == [3, 3]
        assert r["reference"] == [[0.5, 0.5], 0]


def _trained_alone():
    r = np.random.default_rng(0)
    w = [shared(r.normal(size=s).astype("f")) for s in ((3, 4), (4,))]
    x = T.fmatrix("x")
    grads = T.grad((T.tanh(T.dot(x, w[0]) + w[1]) ** 2).mean(), w)
    updates = [(v, v - np.float32(0.1) * g) for v, g in zip(w, grads)]
    train = function([x], updates=updates, device="reference")
    rows = np.random.default_rng(9).normal(size=(5, 3)).astype("f")
    train(rows)
    train(rows)
    return [v.get_value() for v in w]


# ---- alone ---------------------------------------------------------------------------------------


def test_alone_the_op_stands_in_updates_and_changes_nothing(comm):
    x, w = T.fmatrix("x"), shared(np.ones((3, 2), "f"), "w")
    cost = (T.dot(x, w) ** 2).mean()
    (grad,) = comm.all_reduce(T.grad(cost, [w]), weight=x.shape[0])
    train = function([x], comm.all_reduce(cost), updates=[(w, w - np.float32(0.1) * grad)])
    rows = np.arange(6, dtype="f").reshape(2, 3)
    expected = np.ones((3, 2), "f") - 0.1 * rows.T @ (rows @ np.ones((3, 2), "f")) * 2 / 4
    assert train(rows) == 76.5
    np.testing.assert_allclose(w.get_value(), expected, rtol=1e-6)
    assert (comm.backend, comm.rank, comm.size) == ("serial", 0, 1)
    assert repr(comm) == "<gpuscan.distributed serial, rank 0 of 1>"
    comm.barrier()
    comm.broadcast([w])
    np.testing.assert_allclose(w.get_value(), expected, rtol=1e-6)


def test_a_list_gives_a_list_a_tuple_a_tuple_and_a_tensor_a_tensor(comm):
    x, y = T.fvector("x"), T.imatrix("y")
    found = comm.all_reduce((x, y), "max")
    assert type(found) is tuple
    assert [v.type for v in found] == [x.type, y.type]
    assert [v.name for v in found] == ["x", "y"]
    assert comm.all_reduce(x).type == x.type
    assert [v.dtype for v in comm.all_reduce([y, T.bvector()], "mean")] == ["float32"] * 2
    assert comm.all_reduce(T.TensorType("bool", ())(), "sum").dtype == "int64"
    assert comm.all_reduce([]) == []
    assert comm.all_reduce(np.ones(3)).eval().tolist() == [1, 1, 1]
    assert comm.all_reduce(x, "sum").eval({x: np.ones(2, "f")}).tolist() == [1, 1]


def test_sizes_need_no_run(comm):
    x = T.fmatrix("x")
    f = function([x], comm.all_reduce(x).shape[0])
    assert f(np.zeros((5, 2), "f")) == 5
    assert not [v for v in toposort(f.maker.fgraph.outputs) if isinstance(v.op, AllReduce)]


def test_it_is_neither_folded_nor_merged(comm):
    one = T.constant(np.ones(3, "f"))
    twice = [comm.all_reduce(one), comm.all_reduce(one)]
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        f = function([], [twice[0] + twice[1], *comm.all_reduce([one, one])], mode=mode)
        nodes = [v for v in toposort(f.maker.fgraph.outputs) if isinstance(v.op, AllReduce)]
        assert len(nodes) == 3
        assert [v.tolist() for v in f()] == [[2] * 3, [1] * 3, [1] * 3]


def test_it_runs_in_the_order_in_which_it_was_written(comm, monkeypatch):
    ran = []
    monkeypatch.setattr(comm, "_meet", lambda call, weight=1.0: ran.append(call.arrays[0]) or 1.0)
    a, b, c, d = (T.fvector(name) for name in "abcd")
    ra, rb, rc = (comm.all_reduce(v) for v in (a, b, c))
    later = comm.all_reduce(rc.sum() + d)  # behind rc whatever its number is
    flag = T.bscalar()
    chosen = T.ifelse(flag, comm.all_reduce(a * 2, "sum"), a)
    for outputs in ([later, rc, rb, ra], [ra + later * rb, rc], [chosen, ra, rb, later]):
        f = function([a, b, c, d, flag], outputs, on_unused_input="ignore")
        for take in (0, 1):
            ran.clear()
            f(*[np.ones(2, "f")] * 4, take)
            expected = [f"float32 (2,) ({name})" for name in "abc"] + ["float32 (2,)"]
            branch = ["float32 (2,)"] * (take and outputs[0] is chosen)
            assert sorted(ran) == sorted([*expected, *branch])
            assert ran[:3] == expected[:3]
    swapped = gpuscan.clone(ra, replace={a: rb})  # the second before the first, which reads it
    ran.clear()
    function([b], [swapped, rb])(np.ones(2, "f"))
    assert len(ran) == 2 and ran[0] == "float32 (2,) (b)"


def test_it_can_t_stand_in_a_step(comm):
    x, h = T.fmatrix("x"), T.fvector("h")
    inside = r"AllReduce\{mean\} can't stand in the step of scan 'loop'.*non_sequences"
    with pytest.raises(ValueError, match=inside):
        scan(lambda x: comm.all_reduce(x), x, name="loop")
    reduced = comm.all_reduce(h)
    with pytest.raises(ValueError, match=inside):
        scan(lambda x: x * reduced, x, name="loop")
    with pytest.raises(ValueError, match="can't stand in the step"):
        gpuscan.jacobian(comm.all_reduce(h), h)
    y, _ = scan(lambda x, h: x * h, x, non_sequences=reduced)
    rows = np.arange(6, dtype="f").reshape(3, 2)
    found = function([x, h], [y, gpuscan.grad(y.sum(), h)])(rows, np.ones(2, "f"))
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_array_equal(found[1], rows.sum(0))
    once, _ = scan(lambda x: comm.all_reduce(x), x, n_steps=1)  # is no loop
    np.testing.assert_array_equal(function([x], once)(rows), rows[:1])


@pytest.mark.parametrize("op", ["mean", "sum", "max", "min"])
def test_derivatives_alone_are_those_of_the_identity(comm, op):
    x = T.dvector("x")
    weight = 3 if op == "mean" else None
    cost = (comm.all_reduce([x, x**2], op, weight=weight)[1] ** 2).sum()
    at, along = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    assert function([x], gpuscan.grad(cost, x))(at).tolist() == [4, -32]
    assert function([x], gpuscan.Rop(cost, x, T.constant(along)))(at) == 4 * 0.5 - 32 * 3
    integers = T.ivector("i")
    cost = comm.all_reduce(integers, "max").sum().astype("float64")
    got = gpuscan.grad(cost, integers, disconnected_inputs="ignore")
    assert function([integers], got, on_unused_input="ignore")(np.ones(2, "i4")).tolist() == [0, 0]


def test_no_gradient_flows_to_the_weight(comm):
    x, w = T.dvector("x"), T.dscalar("w")
    cost = comm.all_reduce(x, weight=w).sum()
    with pytest.raises(gpuscan.DisconnectedInputError):
        gpuscan.grad(cost, w)


def test_shares_are_contiguous_and_as_even_as_can_be():
    for size in (1, 2, 3, 7):
        for n in (0, 1, 5, 6, 100):
            parts = []
            for rank in range(size):
                comm = Communicator()
                comm.rank, comm.size = rank, size
                parts.append(np.arange(n)[comm.share(n)])
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
            counts = [len(p) for p in parts]
            assert counts == sorted(counts, reverse=True) and counts[0] - counts[-1] <= 1


X = T.fvector("x")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda c: c.all_reduce(X, "median"),
            ValueError,
            "op is 'median', not 'mean', 'sum', 'max'",
        ),
        (lambda c: c.all_reduce([X, None]), TypeError, r"x\[1\] must be a tensor: .*None"),
        (lambda c: c.all_reduce("abc"), TypeError, "x must be a tensor"),
        (
            lambda c: c.all_reduce(X, bucket_mb=0),
            ValueError,
            "bucket_mb is a number above 0, not 0",
        ),
        (lambda c: c.all_reduce(X, "sum", weight=2), ValueError, "a weight is for op 'mean'"),
        (lambda c: c.all_reduce(X, weight=X), TypeError, "weight must be a scalar, got x"),
        (lambda c: c.all_reduce(X, weight="many"), TypeError, "weight must be a number"),
        (lambda c: c.all_reduce(X, weight=-1), ValueError, "of at least 0, got -1"),
        (lambda c: c.all_reduce(X, weight=np.inf), ValueError, "a finite number"),
        (lambda c: c.broadcast([X]), TypeError, r"variables\[0\] must be a shared variable, got x"),
        (lambda c: c.broadcast([], root=1), ValueError, "root is a rank from 0 to 0, not 1"),
        (lambda c: c.share(-1), ValueError, "n is a number of rows, not -1"),
        (lambda c: c.share(2.0), ValueError, "n is a number of rows, not 2.0"),
        (lambda c: distributed.init("gloo"), ValueError, "backend is 'gloo', not 'nccl', 'mpi'"),
        (lambda c: distributed.init("mpi"), ValueError, "'mpi' was asked for, 'serial' is running"),
        (lambda c: distributed.init(timeout=0), ValueError, "timeout is a number of seconds"),
    ],
)
def test_what_is_wrong_is_said_at_once(comm, call, error, words):
    with pytest.raises(error, match=words):
        call(comm)


def test_weights_that_are_wrong_are_an_error_of_the_call(comm):
    w, x = T.dscalar("w"), shared(np.ones(2, "f"))
    f = function([w], updates=[(x, comm.all_reduce(x * 2, weight=w))])
    for bad, words in ((-1, "rank 0 gave -1"), (np.nan, "gave nan"), (0, "all ranks are 0")):
        with pytest.raises(ValueError, match=words):
            f(bad)
    assert x.get_value().tolist() == [1, 1]
    f(0.1)
    assert x.get_value().tolist() == [2, 2]


def test_functions_are_stored_without_the_communicator(comm, monkeypatch):
    x = T.fvector("x")
    stored = pickle.dumps(function([x], comm.all_reduce(x, weight=2)))
    assert pickle.loads(stored)(np.ones(2, "f")).tolist() == [1, 1]
    monkeypatch.setattr(distributed, "_made", None)
    with pytest.raises(DistributedError, match=r"call gpuscan.distributed.init\(\) first"):
        pickle.loads(stored)


# ---- what init takes -----------------------------------------------------------------------------


def test_init_gives_the_same_communicator_again(comm):
    assert distributed.init() is comm
    assert distributed.init("serial", timeout=5) is comm
    assert comm.timeout == 5


def test_serial_does_not_import_mpi(tmp_path):
    code = (
        "import sys, gpuscan; gpuscan.distributed.init(); gpuscan.distributed.init('serial');"
        "sys.exit(any(m.startswith(('mpi4py', 'cupy')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mpiexec_without_mpi4py_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    for variable in ("PMI_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"):
        with pytest.raises(
            ImportError, match=rf"{variable} is set, .*pip install 'gpuscan\[mpi\]'"
        ):
            distributed._made_for(None, {variable: "1"})
    made, reason = distributed._made_for(None, {})
    assert (type(made), reason) == (Communicator, "not started by mpiexec")
    made, reason = distributed._made_for("serial", {"PMI_SIZE": "2"})
    assert (type(made), reason) == (Communicator, "asked for")


MISMATCH = """
import gpuscan
from gpuscan import distributed
under_test = gpuscan.config.device
for backend, device, environment in (
    (None, under_test, {"OMPI_COMM_WORLD_SIZE": "2"}), ("nccl", "reference", {"PMI_SIZE": "1"})
):
    gpuscan.config.device = device
    try:
        distributed._made_for(backend, environment)
    except distributed.DistributedError as e:
        print(e)
"""


@needs_mpi
def test_another_mpi_than_mpiexec_s_and_no_nccl_are_errors():
    done = subprocess.run(
        [sys.executable, "-c", MISMATCH], capture_output=True, text=True, timeout=60, check=True
    )
    first, second = done.stdout.splitlines()
    words = "mpiexec started 2 processes, and MPI has 1: mpiexec and mpi4py are of two different"
    assert first.startswith(words)
    assert second == "init: backend 'nccl': functions run on device reference, not on cupy"
