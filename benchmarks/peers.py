"""Which peers there are, and their versions of the families."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .cases import Family, Version

# name: the module that must be importable, the module here that uses it
PEERS = {
    "NumPy": ("numpy", "peer_numpy"),
    "Numba": ("numba", "peer_numba"),
    "PyTorch": ("torch", "peer_torch"),
    "JAX": ("jax", "peer_jax"),
}


def installed() -> dict[str, str | None]:
    """Each peer's version, None where it is absent."""
    found: dict[str, str | None] = {}
    for name, (module, _) in PEERS.items():
        try:
            found[name] = importlib.import_module(module).__version__
        except ImportError:
            found[name] = None
    return found


def versions(family: Family) -> dict[str, Callable[[], Version]]:
    """For each installed peer that has a version of this family, a function that makes it."""
    return {
        peer: make
        for peer, version in installed().items()
        if version is not None and (make := _maker(peer, family)) is not None
    }


def _maker(peer: str, family: Family) -> Callable[[], Version] | None:
    module: Any = importlib.import_module(f".{PEERS[peer][1]}", __package__)
    make = module.VERSIONS.get(type(family).__name__)
    return None if make is None else lambda: make(family)
