"""Training on several processes, started by mpiexec: gradients are averaged over them.

    comm = gpuscan.distributed.init()
    grads = comm.all_reduce(T.grad(cost, params), "mean")
    train = gpuscan.function([x, y], cost, updates=optim.adam(grads, params))
    comm.broadcast(params)  # all start from the same values

Each process (a "rank" of `comm.size`) runs the whole program on its share of the data,
`rows[comm.share(len(rows))]`, with `mpiexec -n 2 python train.py`. Started without mpiexec, the
same program is one process.

The mean of the ranks' gradients is that of the joined batch where all have as many rows. Where they
have not, each counts as often: `comm.all_reduce(T.grad(cost, params), weight=x.shape[0])`. A rank
whose rows have run out goes on with none, as all ranks have to make the same calls.

Random streams of one seed draw the same on all ranks: give each rank's its own, such as
`RandomStreams(seed=comm.rank)`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ..config import config
from ..runtime.device import select
from .communicator import Communicator, DistributedError

__all__ = ["Communicator", "DistributedError", "init"]

_BACKENDS = ("nccl", "mpi", "serial")
_EXTRA = "pip install 'gpuscan[mpi]' (mpi4py, for the MPI of this machine or the wheel mpich)"
# What mpiexec tells the processes that it starts: MPICH's and Intel's, Open MPI's, PRRTE's, Cray's.
_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID")

_made: Communicator | None = None


def init(backend: str | None = None, *, timeout: float | None = None) -> Communicator:
    """The communicator of this process, over all processes that mpiexec started. Later calls give
    the same one.

    backend: who carries the arrays. "serial": nobody, this process is alone. "mpi": MPI, in host
        memory; arrays of a GPU are copied there and back. "nccl": NCCL, by CuPy, where functions
        run on device "cupy"; what it can't do, and what runs on other devices, goes by MPI. None
        takes "serial" where the program was not started by mpiexec, and otherwise "nccl" where
        `config.device` is "cupy" and NCCL is there for it, or "mpi". Rank 0 logs which, and why.
    timeout: seconds that a rank waits in a call for the others before it raises; 1800.

    On GPUs each rank of a machine takes the one of its number there: call it before anything
    else works on the GPU, and in the thread that runs the functions. Ranks that may use the same
    cores get `config.threads` for a part of them each, unless that is set already.

    From then on an exception that nobody catches ends the whole job: it is printed with the rank's
    name, and MPI_Abort is called. A rank that ends while others wait for it ends the job, too.

    Raises ValueError for another backend than these or than the one that is running; ImportError
    where mpiexec started the program and mpi4py is missing; DistributedError where mpi4py is of
    another MPI than mpiexec, and where "nccl" was asked for and can't be.
    """
    global _made
    if backend not in (None, *_BACKENDS):
        raise ValueError(f"init: backend is {backend!r}, not 'nccl', 'mpi', 'serial' or None")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"init: timeout is a number of seconds above 0, not {timeout!r}")
    if _made is None:
        made, reason = _made_for(backend, dict(os.environ))
        ranks = f"{made.size} rank{'s' * (made.size != 1)}"
        processes = made.processes()  # mpiexec names one that is killed by its number only
        if made.rank == 0:
            text = "gpuscan.distributed: %s, %s (%s): %s"
            logging.getLogger("gpuscan").warning(text, made.backend, ranks, reason, processes)
        _made = made
    elif backend not in (None, _made.backend):
        raise ValueError(f"init: backend {backend!r} was asked for, {_made.backend!r} is running")
    if timeout is not None:
        _made.timeout = float(timeout)
    return _made


def _made_for(backend: str | None, environment: Mapping[str, str]) -> tuple[Communicator, str]:
    """A new communicator, and why it is one of its backend."""
    by = next((name for name in (*_COUNTS, *_RANKS) if name in environment), None)
    if backend == "serial" or (backend is None and by is None):
        return Communicator(), "asked for" if backend else "not started by mpiexec"
    device = select(config.device).name
    started = f"started by mpiexec: {by} is set" if by else "asked for"
    if find_spec("mpi4py") is None:
        raise ImportError(f"gpuscan.distributed: {started}, and mpi4py is missing: {_EXTRA}")
    from .mpi import MPICommunicator  # initialises MPI

    if backend == "mpi" or (backend is None and device != "cupy"):
        made: Communicator = MPICommunicator()
        reason = f"{started}; arrays of device {device} are reduced in host memory"
    else:
        from .nccl import made_with_nccl

        made, why_not = made_with_nccl(device)
        if why_not and backend == "nccl":
            raise DistributedError(f"init: backend 'nccl': {why_not}")
        reason = f"{started}; " + (f"no NCCL: {why_not}" if why_not else "device cupy")
    count = next((environment[name] for name in _COUNTS if name in environment), None)
    if count is not None and int(count) != made.size:
        raise DistributedError(
            f"mpiexec started {count} processes, and MPI has {made.size}: mpiexec and mpi4py are "
            f"of two different MPIs. mpi4py's is: {made.library()}"
        )
    return made, reason


def current() -> Any:
    """The communicator that init made: what pickle calls."""
    if _made is None:
        raise DistributedError(
            "what is being loaded works on several processes: call gpuscan.distributed.init() first"
        )
    return _made
