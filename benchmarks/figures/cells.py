"""PyTorch's recurrent networks, for tests/test_cells.py: python -m benchmarks.figures.cells

Of each network the inputs, the weights, the states after every step and after the last, and the
gradients of a weighted sum of these states, in float64, go to tests/figures/cells.npz. Names and
layout of the weights are those of gpuscan.examples.cells. Where torch.nn has no such cell, it is
written in PyTorch's operations, after its paper or the library that has it.

Each network is one structured array: numpy.load(FILE)["lstm"]["gradient"]["W"].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

STEPS, BATCH, INPUTS, HIDDEN = 6, 3, 4, 5
LENGTHS = (6, 2, 4)  # of the rows, where they are packed
FILE = Path(__file__).resolve().parents[2] / "tests" / "figures" / "cells.npz"

Figures = dict[str, dict[str, torch.Tensor]]  # by "leaf", "output", "gradient" ...; by name


class Network:
    """The leaves of a network, by the names of their figures, and the numbers it is made from."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.leaves: dict[str, torch.Tensor] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.x = self.leaf("x", STEPS, BATCH, INPUTS)

    def normal(self, *shape: int) -> torch.Tensor:
        """Of few bits, the same in float32."""
        x = torch.randn(*shape, generator=self.random, dtype=torch.float64)
        return torch.round(32 * x) / 64

    def leaf(self, name: str, *shape: int) -> torch.Tensor:
        """What the loss is differentiated by."""
        self.leaves[name] = self.normal(*shape).requires_grad_()
        return self.leaves[name]

    def state(self, name: str) -> torch.Tensor:
        return self.leaf(name, BATCH, HIDDEN)

    def weights(self, gates: int, suffix: str = "", inputs: int = INPUTS) -> list[torch.Tensor]:
        shapes = {"W": (inputs, gates * HIDDEN), "U": (HIDDEN, gates * HIDDEN)}
        shapes["b"] = (gates * HIDDEN,)
        return [self.leaf(name + suffix, *shape) for name, shape in shapes.items()]

    def figures(self, **outputs: torch.Tensor) -> Figures:
        cotangents = {name: self.normal(*y.shape) for name, y in outputs.items()}
        loss = sum((g * outputs[name]).sum() for name, g in cotangents.items())
        gradients = torch.autograd.grad(loss, list(self.leaves.values()))
        return {
            "leaf": self.leaves,
            "constant": self.constants,
            "output": outputs,
            "cotangent": cotangents,
            "gradient": dict(zip(self.leaves, gradients)),
        }


Make = Callable[[Network], Figures]


# ---- those of torch.nn ---------------------------------------------------------------------------

ONE = {"l0": ""}  # its suffix of the weights' names, and that of the figures'
TWO_LAYERS = {"l0": "1", "l1": "2"}
TWO_WAYS = {"l0": "1", "l0_reverse": "2"}


def of_nn(kind: Any, suffixes: dict[str, str], packed: bool = False, **options: Any) -> Make:
    def make(net: Network) -> Figures:
        module = kind(INPUTS, HIDDEN, dtype=torch.float64, **options)
        gates = module.weight_ih_l0.shape[0] // HIDDEN
        weights, h0, c0 = {}, [], []
        for theirs, ours in suffixes.items():
            W, U, b = net.weights(gates, ours, module.get_parameter(f"weight_ih_{theirs}").shape[1])
            inner = net.normal(gates * HIDDEN)  # two biases that are added are one
            outer = b - inner
            if kind is torch.nn.GRU:  # the last gate's are not
                gate = slice(2 * HIDDEN)
                outer = torch.cat([outer[gate], b[2 * HIDDEN :]])
                inner = torch.cat([inner[gate], net.leaf(f"bn{ours}", HIDDEN)])
            weights[f"weight_ih_{theirs}"], weights[f"weight_hh_{theirs}"] = W.T, U.T
            weights[f"bias_ih_{theirs}"], weights[f"bias_hh_{theirs}"] = outer, inner
            h0.append(net.state(f"h{ours}"))
            if kind is torch.nn.LSTM:
                c0.append(net.state(f"c{ours}"))
        start = (torch.stack(h0), torch.stack(c0)) if c0 else torch.stack(h0)
        if packed:
            net.constants["lengths"] = torch.tensor(LENGTHS)
        x = pack_padded_sequence(net.x, LENGTHS, enforce_sorted=False) if packed else net.x
        h, last = torch.func.functional_call(module, weights, (x, start))
        if packed:
            h, _ = pad_packed_sequence(h)  # 0 after a row's end
        return net.figures(h=h, **dict(zip(("last_h", "last_c"), last if c0 else (last,))))

    return make


# ---- those of papers and other libraries ---------------------------------------------------------


def gru_reset_before(net: Network) -> Figures:
    """tf.keras.layers.GRU(reset_after=False): gates z, r, h, and z is how much of h stays."""
    W, U, b = net.weights(3)
    h = net.state("h")

    def theirs(w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        r, z, n = w.split(HIDDEN, -1)
        return z, r, n

    (Wz, Wr, Wh), (Uz, Ur, Uh), (bz, br, bh) = theirs(W), theirs(U), theirs(b)
    states = []
    for x in net.x:
        z = torch.sigmoid(x @ Wz + bz + h @ Uz)
        r = torch.sigmoid(x @ Wr + br + h @ Ur)
        new = torch.tanh(x @ Wh + bh + (r * h) @ Uh)
        h = z * h + (1 - z) * new
        states.append(h)
    return net.figures(h=torch.stack(states), last_h=h[None])


def layer_norm_lstm(drawn: bool) -> Make:
    """Equations 20 to 22 of Ba et al. 2016, with LN by PyTorch, and those of zoneout in section 3.2
    of Krueger et al. 2017: with the masks d, or with their means."""

    def make(net: Network) -> Figures:
        W, U, b = net.weights(4)
        h, c = net.state("h"), net.state("c")
        gain_x, gain_h = net.leaf("gain_x", 4 * HIDDEN), net.leaf("gain_h", 4 * HIDDEN)
        gain_c, bias_c = net.leaf("gain_c", HIDDEN), net.leaf("bias_c", HIDDEN)
        means = torch.tensor([0.3, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
        d = means.expand(2, STEPS, BATCH, HIDDEN)
        if drawn:
            d = torch.bernoulli(d, generator=net.random)
        net.constants["keep_h"], net.constants["keep_c"] = d
        states = []
        for x, dh, dc in zip(net.x, *d):
            z = functional.layer_norm(h @ U, (4 * HIDDEN,), gain_h)
            z = z + functional.layer_norm(x @ W, (4 * HIDDEN,), gain_x, b)
            i, f, g, o = z.split(HIDDEN, 1)
            new = f.sigmoid() * c + i.sigmoid() * g.tanh()
            out = o.sigmoid() * functional.layer_norm(new, (HIDDEN,), gain_c, bias_c).tanh()
            h, c = dh * h + (1 - dh) * out, dc * c + (1 - dc) * new
            states.append(h)
        return net.figures(h=torch.stack(states), last_h=h[None], last_c=c[None])

    return make


NETWORKS: dict[str, Make] = {
    "elman": of_nn(torch.nn.RNN, ONE),
    "lstm": of_nn(torch.nn.LSTM, ONE),
    "gru": of_nn(torch.nn.GRU, ONE),
    "two_layers": of_nn(torch.nn.LSTM, TWO_LAYERS, num_layers=2),
    "bidirectional": of_nn(torch.nn.LSTM, TWO_WAYS, bidirectional=True),
    "packed": of_nn(torch.nn.LSTM, TWO_WAYS, packed=True, bidirectional=True),
    "gru_reset_before": gru_reset_before,
    "layer_norm_lstm": layer_norm_lstm(drawn=False),
    "layer_norm_lstm_drawn": layer_norm_lstm(drawn=True),
}


def structured(values: Any) -> np.ndarray:
    """A dictionary of tensors, or of dictionaries of them, as one array."""
    if isinstance(values, torch.Tensor):
        return values.detach().numpy()
    arrays = {name: structured(value) for name, value in values.items()}
    found = np.zeros((), [(name, a.dtype, a.shape) for name, a in arrays.items()])
    for name, a in arrays.items():
        found[name] = a
    return found


def main() -> None:
    origin = f"python -m benchmarks.figures.cells, PyTorch {torch.__version__}"
    figures = {
        name: structured(make(Network(k))) for k, (name, make) in enumerate(NETWORKS.items())
    }
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, origin=origin, **figures)
    print(f"{origin}: {FILE}, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
