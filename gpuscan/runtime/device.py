"""Which device runs a function, and why another does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..config import DEVICES
from ..errors import DeviceError
from ..graph import Variable
from .reference import Reference


class Device(Protocol):
    """All that a function asks of a device."""

    name: str

    def compile(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable]
    ) -> Callable[..., tuple[Any, ...]]:
        """A callable from the inputs' values to the outputs' values."""
        ...


# A GPU's device file, that of WSL's Windows, that of a Jetson.
_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap")


def no_gpu() -> str:
    """Why there is certainly no GPU, or nothing: what can be told in a moment, for a program that
    did not ask for one."""
    if sys.platform == "win32" or os.environ.get("GPUSCAN_STAND_IN_DRIVER") == "1":
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "no GPU: CUDA_VISIBLE_DEVICES hides all"
    if not any(os.path.exists(node) for node in _NODES):
        return "no NVIDIA GPU: its driver's device file, /dev/nvidiactl, is not there"
    return ""


def gpu_expected() -> bool:
    """Whether who set this machine up meant to use a GPU: a library for it is installed."""
    from importlib.util import find_spec

    return any(name in sys.modules or find_spec(name) for name in ("cupy", "pycuda"))


def missing(name: str) -> str:
    """Why the device of this name is not here; nothing where it is. "auto" is here where CUDA or
    native is."""
    if name in ("auto", "cuda", "cupy", "pycuda") and (reason := no_gpu()):
        return missing("native") if name == "auto" else reason
    if name == "auto":
        return missing("cuda") and missing("native")
    if name == "cuda":
        reasons = [missing(d) for d in ("cupy", "pycuda")]
        return "; ".join(dict.fromkeys(reasons)) if all(reasons) else ""
    if name == "cupy":
        from . import cupy  # not the library: that is imported only where there is a GPU

        return cupy.missing()
    if name == "pycuda":
        from . import pycuda

        return pycuda.missing()
    if name == "native":
        from . import compiler  # with subprocess and ctypes, which the reference is without

        try:
            if compiler.find() is None:
                return "no C compiler was found ($CC, cc, gcc, clang, or the package ziglang)"
        except DeviceError as e:
            return str(e)
    if name == "emulated":
        from . import emulator

        return emulator.missing()
    return ""


def cpu() -> str:
    """The fastest device that is here without a GPU."""
    return "reference" if missing("native") else "native"


def select(name: str) -> Any:
    """The device of this name, a Device or a CudaDevice. "cuda" is CuPy, or PyCUDA where only that
    is here; "auto" is "cuda" where there is a GPU, native where there is a C compiler, else the
    reference.

    Raises ValueError for a name that there is not, DeviceError for a device that is not here.
    """
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is not one of {', '.join(DEVICES)}")
    if name == "auto":
        name = cpu() if missing("cuda") else "cuda"
    if reason := missing(name):
        raise DeviceError(f"device {name!r} is not available: {reason}. Use {cpu()!r}.")
    if name == "cuda":
        name = "pycuda" if missing("cupy") else "cupy"
    if name == "cupy":
        from .cupy import CuPy

        return CuPy()
    if name == "pycuda":
        from .pycuda import PyCUDA

        return PyCUDA()
    if name == "native":
        from .native import Native

        return Native()
    if name == "emulated":
        from .emulated import Emulated

        return Emulated()
    return Reference()
