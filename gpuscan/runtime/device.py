"""Which device runs a function, and why another does not."""

from __future__ import annotations

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


_MISSING = {
    "cuda": "this version of gpuscan has no CUDA back end yet",
    "cupy": "this version of gpuscan has no CUDA back end yet",
    "pycuda": "this version of gpuscan has no CUDA back end yet",
}


def missing(name: str) -> str:
    """Why the device of this name is not here; nothing where it is."""
    if name == "native":
        from . import compiler  # with subprocess and ctypes, which the reference is without

        if compiler.find() is None:
            return "no C compiler was found ($CC, cc, gcc, clang, or the package ziglang)"
    if name == "emulated":
        from . import emulator

        return emulator.missing()
    return _MISSING.get(name, "")


def select(name: str) -> Device:
    """The device of this name; "auto" is native where there is a C compiler, else the reference.
    Raises ValueError for a name that there is not, DeviceError for a device that is not here."""
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is not one of {', '.join(DEVICES)}")
    if name == "auto":
        name = "reference" if missing("native") else "native"
    if reason := missing(name):
        raise DeviceError(f"device {name!r} is not available: {reason}. Use 'reference'.")
    if name == "native":
        from .native import Native

        return Native()
    if name == "emulated":
        from .emulated import Emulated

        return Emulated()
    return Reference()
