"""Programs that import Theano's paths."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan import theano
from gpuscan.theano import paths


def run(program: str) -> str:
    """What the program prints, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_programs_imports() -> None:
    assert run("""
        from gpuscan import theano
        theano.install()

        import theano
        import theano.tensor as T
        import theano.sandbox.rng_mrg
        import theano.tensor.nnet.nnet as net
        from theano import config, function, shared, tensor, In, Out, Mode
        from theano.compat.python2x import OrderedDict
        from theano.compile import UnusedInputError
        from theano.compile.pfunc import pfunc
        from theano.compile.sharedvalue import SharedVariable
        from theano.gof import MissingInputError
        from theano.gof.fg import MissingInputError
        from theano.gof.graph import inputs
        from theano.gradient import DisconnectedInputError, NullTypeGradError, disconnected_grad
        from theano.ifelse import ifelse
        from theano.printing import Print, debugprint, pprint, pydotprint
        from theano.sandbox.rng_mrg import MRG_RandomStreams
        from theano.scan_module import scan, until
        from theano.scan_module.scan_utils import until
        from theano.scan_module.scan_views import foldl, foldr, map, reduce
        from theano.tensor import nlinalg, slinalg
        from theano.tensor.extra_ops import cumsum
        from theano.tensor.nnet import sigmoid
        from theano.tensor.shared_randomstreams import RandomStreams
        from theano.tensor.xlogx import xlogy0

        x = T.dvector("x")
        print(theano.function([x], T.xlogx.xlogx(x).sum())([0.0, 1.0]), config is theano.config)
    """) == "0.0 True\n"  # fmt: skip


@pytest.mark.parametrize("path", paths.MODULES)
def test_path_holds_its_names(path: str) -> None:
    module, content = theano._made[path], paths.MODULES[path]
    if isinstance(content, dict):
        assert [n for n, v in content.items() if getattr(module, n) is not v] == []
    else:
        assert module is content


def test_all_paths_are_there_after_install() -> None:
    imports = "\n".join(f"import theano.{path}" for path in paths.MODULES)
    program = f"from gpuscan import theano\ntheano.install()\n{imports}\nprint('done')"
    assert run(program) == "done\n"


def test_install_twice_is_once() -> None:
    assert run("""
        from gpuscan import theano
        theano.install()
        theano.install()
        import theano as again
        print(again is theano)
    """) == "True\n"  # fmt: skip


def test_install_refuses_beside_the_real_theano() -> None:
    assert run("""
        import sys, types
        sys.modules["theano"] = real = types.ModuleType("theano")
        real.__file__ = "/somewhere/theano/__init__.py"
        from gpuscan import theano
        try:
            theano.install()
        except RuntimeError as error:
            print(error)
        print(sys.modules["theano"] is real, "theano.tensor" in sys.modules)
    """) == (
        "the module theano is already imported, from /somewhere/theano/__init__.py. "
        "Call gpuscan.theano.install() before anything imports theano.\nTrue False\n"
    )  # fmt: skip


def test_without_install_nothing_is_registered() -> None:
    assert run("""
        import sys
        from gpuscan import theano
        print(any(m == "theano" or m.startswith("theano.") for m in sys.modules))
    """) == "False\n"  # fmt: skip


def test_an_unknown_path_is_an_import_error() -> None:
    assert run("""
        from gpuscan import theano
        theano.install()
        try:
            import theano.sandbox.cuda
        except ModuleNotFoundError as error:
            print(error.name)
    """) == "theano.sandbox.cuda\n"  # fmt: skip


@pytest.mark.parametrize("name", [
    "function", "shared", "scan", "map", "reduce", "foldl", "foldr", "scan_checkpoints", "clone",
    "grad", "Rop", "Lop", "In", "Out", "Mode", "config", "subgraph_grad", "OrderedUpdates",
])  # fmt: skip
def test_top_level_names_are_gpuscans(name: str) -> None:
    assert getattr(theano, name) is getattr(gpuscan, name)


@pytest.mark.parametrize("name", [
    "tensor", "gradient", "printing", "ifelse", "sandbox", "scan_module", "compile", "gof",
    "scalar", "configparser", "updates", "dot", "pp", "change_flags", "_asarray", "Variable",
    "Constant", "Op", "Apply", "get_scalar_constant_value", "sandbox.rng_mrg.MRG_RandomStreams",
    "tensor.shared_randomstreams.RandomStreams", "ifelse.ifelse", "scan_module.until",
    "scan_module.scan_utils.until", "gof.fg.MissingInputError", "compile.function",
])  # fmt: skip
def test_dotted_names_are_there(name: str) -> None:
    found: Any = theano
    for part in name.split("."):
        found = getattr(found, part)
    assert found is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        theano.no_such_name  # noqa: B018


def test_dir_lists_both() -> None:
    assert {"function", "sandbox", "install"} <= set(dir(theano))


def test_upcast() -> None:
    assert theano.scalar.upcast("int8", "float32") == "float32"
    assert theano.scalar.upcast("int32", "float32") == "float64"
    assert theano.scalar.upcast("int8", "floatX") == "float32"


def test_asarray_has_exactly_the_dtype() -> None:
    assert theano._asarray([1, 2], dtype="floatX").dtype == "float32"
    assert theano._asarray([1, 2]).dtype == np.asarray([1, 2]).dtype


def test_change_flags() -> None:
    with theano.change_flags(floatX="float64"):
        assert T.vector().dtype == "float64"
    assert T.vector().dtype == "float32"


def test_inputs_are_the_leaves() -> None:
    x, w = T.vector("x"), gpuscan.shared(np.ones(2, "f4"))
    found = theano.gof.graph.inputs([x * w + T.constant(2.0)])
    assert found[:2] == [x, w]
    assert len(found) == 3


def test_inputs_stop_at_blockers() -> None:
    x = T.vector("x")
    y = x + 1
    assert theano.gof.graph.inputs([y * y], blockers=[y]) == []


def test_ancestors_hold_the_variables_themselves() -> None:
    x = T.vector("x")
    assert set(theano.gof.graph.ancestors([T.exp(x)])) == {x, T.exp(x)}


def test_clone_of_a_graph_has_fresh_inputs() -> None:
    x = T.vector("x")
    (new,), (out,) = theano.gof.graph.clone([x], [T.exp(x)])
    assert new is not x
    assert out is T.exp(new)
    assert theano.gof.graph.clone([x], [T.exp(x)], copy_inputs=False) == ([x], [T.exp(x)])


def test_pfunc_compiles() -> None:
    x = T.dvector()
    np.testing.assert_array_equal(theano.compile.pfunc([x], x * 2)([1.0]), [2])
