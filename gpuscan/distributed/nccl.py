"""NCCL, by CuPy: sums of arrays in GPUs' memory, on the current stream. Before that the ranks meet
by MPI, on the host, which waits for none of the GPU's work."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from ..graph import Op, Variable
from ..record import field, record
from .communicator import AllReduce, Call, Communicator
from .mpi import MPICommunicator, buckets

# NCCL's sums alone: its maxima and minima lose NaN, so those go by MPI.
_TYPES = {
    "int8": "NCCL_INT8", "uint8": "NCCL_UINT8", "int32": "NCCL_INT32", "uint32": "NCCL_UINT32",
    "int64": "NCCL_INT64", "uint64": "NCCL_UINT64",
    "float16": "NCCL_FLOAT32", "float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64",
}  # fmt: skip


def made_with_nccl(device: str) -> tuple[Communicator, str]:
    """A communicator with NCCL, or one without it, and why: on all ranks the same."""
    world = MPI.COMM_WORLD
    local = world.Split_type(MPI.COMM_TYPE_SHARED).rank
    reason = _missing() if device == "cupy" else f"functions run on device {device}, not on cupy"
    told = world.allgather((reason, "" if reason else _own_gpu(local)))
    reasons = [r for r, _ in told if r]
    gpus = [gpu for _, gpu in told]
    if not reasons and (twice := next((g for g in gpus if gpus.count(g) > 1), "")):
        reasons = [f"{gpus.count(twice)} ranks have the same GPU, {twice}"]
    return (MPICommunicator(), reasons[0]) if reasons else (NCCLCommunicator(), "")


def _missing() -> str:
    """Why CuPy, which is there, has no NCCL; nothing where it has."""
    try:
        from cupy.cuda import nccl

        return "" if nccl.available else "this CuPy was built without NCCL"
    except Exception as e:  # its library is not found, or is for another CUDA
        return f"CuPy can't load NCCL, pip install nvidia-nccl-cu12 (or cu13): {e}"


def _own_gpu(local: int) -> str:
    """Takes the GPU of this number on the machine, unless the program has chosen one or sees only
    one; its name in the cluster."""
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if count > 1 and cupy.cuda.Device().id == 0:
        cupy.cuda.Device(local % count).use()
    return f"{cupy.cuda.Device().pci_bus_id} of {socket.gethostname()}"


class NCCLCommunicator(MPICommunicator):
    """All processes of MPI.COMM_WORLD, each with a GPU of its own."""

    backend = "nccl"

    def __init__(self) -> None:
        super().__init__()
        import cupy
        from cupy.cuda import nccl

        self._cupy, self._library = cupy, nccl
        key = self._world.bcast(nccl.get_unique_id() if self.rank == 0 else None)
        self._nccl = nccl.NcclCommunicator(self.size, key, self.rank)

    def _on(self, device: Any, node: Variable) -> Op | None:
        return OnGPU(node.op, device, node) if device.name == "cupy" else None

    def reduced_there(
        self, device: Any, call: Call, arrays: Sequence[Any], reduce: AllReduce,
        weight: float | None, total: float,
    ) -> list[Any]:  # fmt: skip
        """Arrays of all ranks on the device, reduced, after the ranks have met."""
        with self._undivided(call):
            how = reduce.how
            given = [device.array(x) for x in arrays]
            there = [
                i for i, x in enumerate(given) if how in ("mean", "sum") and x.dtype.name in _TYPES
            ]
            others = [i for i in range(len(given)) if i not in there]
            found: list[Any] = [None] * len(given)
            hosts = [device.host(given[i]) for i in others]
            for i, x in zip(others, self._reduced(call, hosts, reduce, weight, total)):
                found[i] = device.array(x)
            for bucket in buckets([given[i] for i in there], reduce.limit):
                positions = [there[k] for k in bucket]
                sent = [_counted(device, given[i], weight) for i in positions]
                for i, x in zip(positions, self._summed(device, sent)):
                    y = x / x.dtype.type(total) if how == "mean" else x
                    found[i] = y.astype("float16") if given[i].dtype == "float16" else y
            return found

    def _summed(self, device: Any, sent: Sequence[Any]) -> list[Any]:
        """The sums over all ranks. Calls of a group NCCL makes in one launch."""
        nccl, stream = self._library, self._cupy.cuda.get_current_stream().ptr
        received = [device.empty(x.shape, x.dtype.name) for x in sent]
        nccl.groupStart()
        for x, y in zip(sent, received):
            if x.size:
                kind = getattr(nccl, _TYPES[x.dtype.name])
                places = device.address(x), device.address(y)
                self._nccl.allReduce(*places, x.size, kind, nccl.NCCL_SUM, stream)
        nccl.groupEnd()
        return received


def _counted(device: Any, x: Any, weight: float | None) -> Any:
    """What a rank adds to a sum: x, weighted. Of nothing that is nothing, also of NaN."""
    if x.dtype == "float16":
        x = x.astype("float32")
    if weight is None or weight == 1:
        return x
    if weight == 0:
        return device.array(np.zeros(x.shape, x.dtype))
    return x * x.dtype.type(weight)


@record
class OnGPU(Op):
    """An AllReduce of CuPy's arrays."""

    definition: Op
    device: Any
    node: Variable = field(compare=False)

    def infer(self, *types: Any) -> Any:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        op, device = self.definition, self.device
        assert isinstance(op, AllReduce) and isinstance(op.comm, NCCLCommunicator)
        reduced = functools.partial(op.comm.reduced_there, device)
        return op.runner(self.node, reduced, device.host)
