"""Which peers there are, and their versions of the families."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

# name: the module that must be importable, the module here that uses it
Peers: TypeAlias = Mapping[str, tuple[str, str]]

PEERS = {
    "NumPy": ("numpy", "peer_numpy"),
    "Numba": ("numba", "peer_numba"),
    "PyTorch": ("torch", "peer_torch"),
    "JAX": ("jax", "peer_jax"),
}


def installed(peers: Peers = PEERS) -> dict[str, str | None]:
    """Each peer's version, None where it is absent."""
    found: dict[str, str | None] = {}
    for name, (module, _) in peers.items():
        try:
            found[name] = importlib.import_module(module).__version__
        except ImportError:
            found[name] = None
    return found


def versions(family: Any, peers: Peers = PEERS) -> dict[str, Callable[[], Any]]:
    """For each installed peer that has a version of this family, a function that makes it."""
    return {
        peer: make
        for peer, version in installed(peers).items()
        if version is not None and (make := _maker(peers[peer][1], family)) is not None
    }


def _maker(here: str, family: Any) -> Callable[[], Any] | None:
    module: Any = importlib.import_module(f".{here}", __package__)
    make = module.VERSIONS.get(type(family).__name__)
    return None if make is None else lambda: make(family)
