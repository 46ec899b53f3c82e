"""The cells written by hand: forward and backward they are PyTorch's, and a kernel each.

tests/figures/cells.npz is made by benchmarks/figures/cells.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.errors import BuildError
from gpuscan.examples import cells
from gpuscan.explain import nvrtc
from gpuscan.runtime.device import missing

FIGURES = np.load(Path(__file__).parent / "figures" / "cells.npz")
HIDDEN = FIGURES["lstm"]["leaf"]["h"].shape[1]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
NETWORKS = [(name, "float64") for name in FIGURES.files if name != "origin"]
NETWORKS += [(name, "float32") for name in ("elman", "lstm", "gru")]

# ---- PyTorch's figures ---------------------------------------------------------------------------


def outputs(name: str, leaf: dict[str, Any], constant: dict[str, Any]) -> dict[str, Any]:
    """The network's states at all steps and last ones, stacked as PyTorch stacks them."""
    x, states = leaf["x"], [v for k, v in leaf.items() if k[0] in "hc"]
    p = {k: v for k, v in leaf.items() if k != "x" and v not in states}
    if name in ("bidirectional", "packed"):
        mask = cells.mask_of(constant["lengths"], x.shape[0]) if name == "packed" else None
        first, second = [{k[0]: v for k, v in p.items() if k[1] == way} for way in "12"]
        found, _ = cells.bidirectional(
            cells.lstm(HIDDEN), x, [states[:2], states[2:]], [first, second], mask
        )
        last = [T.stack([s[-1, :, :HIDDEN], s[0, :, HIDDEN:]]) for s in found]
        h = found[0] if mask is None else cells.without_padding(found[0], mask)
        return {"h": h, "last_h": last[0], "last_c": last[1]}
    if name == "two_layers":
        h1, c1, h2, c2 = cells.run(cells.two_layers(HIDDEN), x, states, p)[0]
        return {"h": h2, "last_h": T.stack([h1[-1], h2[-1]]), "last_c": T.stack([c1[-1], c2[-1]])}
    cell = cells.CELLS[name.removesuffix("_drawn")][0](HIDDEN)
    if constant:

        def step(x: Any, keep_h: Any, keep_c: Any, h: Any, c: Any, *p: Any) -> Any:
            return cell(x, h, c, *p, keep_h, keep_c)

        found, _ = gpuscan.scan(step, [x, *constant.values()], states, list(p.values()))
    else:
        found, _ = cells.run(cell, x, states, p)
    return {"h": found[0], **{f"last_{k}": s[-1:] for k, s in zip("hc", found)}}


def as_dict(array: np.ndarray, dtype: str | None = None) -> dict[str, np.ndarray]:
    return {name: array[name].astype(dtype or array[name].dtype) for name in array.dtype.names}


def agrees_with_figures(name: str, dtype: str, device: str | None = None) -> gpuscan.Function:
    figures, tolerance = FIGURES[name], TOLERANCE[dtype]
    leaf, cotangent = as_dict(figures["leaf"], dtype), as_dict(figures["cotangent"], dtype)
    given = as_dict(figures["constant"])
    constant = {k: T.constant(v if k == "lengths" else v.astype(dtype)) for k, v in given.items()}
    inputs = {k: T.TensorType(dtype, (False,) * v.ndim)(k) for k, v in leaf.items()}
    with gpuscan.config.change_flags(floatX=dtype):
        found = outputs(name, inputs, constant)
        loss = sum(T.sum(g * found[k]) for k, g in cotangent.items())
        gradients = T.grad(loss, list(inputs.values()))
    f = gpuscan.function(list(inputs.values()), [*found.values(), *gradients], device=device)
    wanted = [*as_dict(figures["output"]).items(), *as_dict(figures["gradient"]).items()]
    for x, (k, y) in zip(f(*leaf.values()), wanted, strict=True):
        assert (x.dtype, x.shape) == (dtype, y.shape), k
        np.testing.assert_allclose(x, y, tolerance, tolerance, err_msg=k)
    return f


def are_fused(explanation: Any) -> None:
    assert len(explanation.scans) >= 2
    assert {loop.path for loop in explanation.scans} == {"fused"}, str(explanation)


@pytest.mark.parametrize(("name", "dtype"), NETWORKS)
def test_it_is_that_of_pytorch_as_one_kernel_and_one_for_its_gradient(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(*arguments: Any) -> None:
        raise BuildError("it takes a second a kernel")

    f = agrees_with_figures(name, dtype)
    if f.device != "reference":
        are_fused(f.explain())
        monkeypatch.setattr(nvrtc, "compile", compile)
        are_fused(f.explain(target="h100"))


@pytest.mark.own_device
@pytest.mark.skipif(bool(missing("emulated")), reason="no C++ compiler")
def test_it_runs_on_the_emulated_device() -> None:
    are_fused(agrees_with_figures("lstm", "float32", "emulated").explain())


def test_the_figures_say_where_they_are_from() -> None:
    assert re.fullmatch(
        r"python -m benchmarks\.figures\.cells, PyTorch \S+", str(FIGURES["origin"])
    )


# ---- parameters, and random zoneout --------------------------------------------------------------


@pytest.mark.parametrize("name", cells.CELLS)
def test_parameters_are_drawn_as_in_pytorch(name: str) -> None:
    make = cells.CELLS[name][2]
    p = make(3, 16, np.random.default_rng(0))
    again = make(3, 16, np.random.default_rng(0))
    for k, v in p.items():
        value = v.get_value()
        assert (v.name, value.dtype) == (k.rstrip("12"), gpuscan.config.floatX)
        np.testing.assert_array_equal(value, again[k].get_value())
        if k.startswith(("gain", "bias")):
            assert (value == k.startswith("gain")).all()
        else:
            assert 0.8 / 4 < abs(value).max() <= 1 / 4


def test_zoneout_draws_which_units_keep_their_values() -> None:
    p = cells.layer_norm_lstm_parameters(4, 5, np.random.default_rng(1))
    x = T.tensor3("x")
    initial = [cells.zeros(x, 5) + 1] * 2
    step = cells.zoneout(5, T.shared_randomstreams.RandomStreams(3), 0.5, 0.25)
    (h, c), updates = cells.run(step, x, initial, p)

    random = T.shared_randomstreams.RandomStreams(3)  # the same draws, made before the loop
    draws, more = gpuscan.scan(
        lambda: [random.binomial(size=(2, 5), p=q, dtype="float32") for q in (0.5, 0.25)],
        n_steps=x.shape[0],
    )
    (given_h, given_c), _ = gpuscan.scan(
        lambda x, kh, kc, h, c, *p: cells.layer_norm_lstm(5)(x, h, c, *p, kh, kc),
        [x, *draws], initial, list(p.values()),
    )  # fmt: skip
    values = np.random.default_rng(2).normal(size=(40, 2, 4)).astype("float32")
    f = gpuscan.function([x], [h, c], updates=updates)
    wanted = gpuscan.function([x], [given_h, given_c, *draws], updates=more)
    first, second = f(values), f(values)
    for found in (first, second):
        *states, kept_h, kept_c = wanted(values)
        for s, kept, q in zip(found, (kept_h, kept_c), (0.5, 0.25)):
            stays = s == np.concatenate([np.ones_like(s[:1]), s[:-1]])
            np.testing.assert_array_equal(stays, kept == 1)
            assert abs(kept.mean() - q) < 4 * np.sqrt(q * (1 - q) / kept.size)
        for a, b in zip(found, states):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    assert not np.array_equal(first[0], second[0])


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_says_how_cells_run_and_that_gradients_are_right(capsys: Any) -> None:
    with gpuscan.config.change_flags(device="reference"):  # which has nothing to build
        cells.main()
    text = capsys.readouterr().out
    for name in cells.CELLS:
        assert f"{name}: device reference, " in text
    slopes = re.findall(r"slope (\S+), by differences (\S+)\n", text)
    assert len(slopes) == len(cells.CELLS)
    for slope, differences in slopes:
        assert float(slope) == pytest.approx(float(differences), rel=1e-6)
