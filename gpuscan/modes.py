"""Theano's compilation modes, by the names that programs give them."""

from __future__ import annotations

import warnings
from typing import Any

from .config import config
from .errors import listed


class Mode:
    """Theano's compilation mode: accepted, and its rewrites' names with it. gpuscan has one way
    to compile; "FAST_COMPILE" leaves the graph as it was written."""

    def __init__(self, linker: Any = None, optimizer: Any = "FAST_RUN", **ignored: Any) -> None:
        self.linker, self.optimizer = linker, optimizer

    def including(self, *names: str) -> Mode:
        return self

    def excluding(self, *names: str) -> Mode:
        return self

    @property
    def rewrites(self) -> bool:
        return self.optimizer not in (None, "None", "FAST_COMPILE", "fast_compile")


class UncheckedMode(Mode):
    """A mode with which Theano looks at every value; here it looks at none, and says so."""

    def __init__(self, *args: Any, **ignored: Any) -> None:
        super().__init__()
        _warn_unchecked(type(self).__name__, 2)


class DebugMode(UncheckedMode): ...


class NanGuardMode(UncheckedMode): ...


class MonitorMode(UncheckedMode): ...


def _warn_unchecked(name: str, level: int) -> None:
    warnings.warn(
        f"mode {name} is not implemented in gpuscan: it checks nothing, FAST_RUN is used",
        stacklevel=level + 1,
    )


_MODES = ("FAST_RUN", "FAST_COMPILE", "JAX", "NUMBA", "Mode")
_NOT_THERE = ("DebugMode", "DEBUG_MODE", "NanGuardMode", "MonitorMode")


def get_mode(mode: Any) -> Mode:
    """A mode by its name, or as it is; None: the one of the settings."""
    if isinstance(mode, Mode):
        return mode
    name = config.mode if mode is None else mode
    if name in _NOT_THERE:
        _warn_unchecked(name, 4)
    elif name not in _MODES:
        raise ValueError(f"mode {name!r} is not one of {listed(_MODES)}")
    return Mode(optimizer="FAST_COMPILE" if name == "FAST_COMPILE" else "FAST_RUN")


def get_default_mode() -> Mode:
    """The mode of the settings."""
    return get_mode(None)
