"""Which device runs a function, and why another does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..config import DEVICES, config
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
    "emulated": "this version of gpuscan has no CUDA back end to emulate yet",
    "cuda": "this version of gpuscan has no CUDA back end yet",
    "cupy": "this version of gpuscan has no CUDA back end yet",
    "pycuda": "this version of gpuscan has no CUDA back end yet",
}


def select(name: str | None = None) -> Device:
    """The device of this name, or of the settings. Raises ValueError for a name that there is
    not, DeviceError for a device that is not here, with the reason."""
    name = name or config.device
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is not one of {', '.join(DEVICES)}")
    if name in _MISSING:
        raise DeviceError(f"device {name!r} is not available: {_MISSING[name]}. Use 'reference'.")
    if name == "native":
        from .native import Native  # with ctypes and a compiler, which the reference is without

        return Native()
    return Reference()
