"""Theano's module paths, for programs that import them:

    from gpuscan import theano
    theano.install()  # before the program's own imports

    from theano.sandbox.rng_mrg import MRG_RandomStreams  # is gpuscan's from now on

Every public name of gpuscan is an attribute here, and every path of `paths.MODULES` a module.
"""

from __future__ import annotations

import sys
from typing import Any

import gpuscan

from .paths import ROOT as _ROOT
from .paths import modules as _modules

_made = _modules()
globals().update(_ROOT)
globals().update({path: m for path, m in _made.items() if "." not in path})


def install() -> None:
    """From now on `import theano`, and of every path below it, finds gpuscan.

    Raises RuntimeError where the real Theano has been imported already.
    """
    this = sys.modules[__name__]
    found = sys.modules.get("theano", this)
    if found is not this:
        raise RuntimeError(
            f"the module theano is already imported, from {getattr(found, '__file__', found)}. "
            "Call gpuscan.theano.install() before anything imports theano."
        )
    sys.modules["theano"] = this
    for path, module in _made.items():
        sys.modules[f"theano.{path}"] = module


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(gpuscan, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(gpuscan)})
