"""The families as one writes them by hand in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .cases import STRIDE, log_density


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in place."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def gibbs(c: Any) -> Any:
    draws = np.random.default_rng(1)

    def bernoulli(p: Any) -> Any:
        return (draws.random(p.shape, "float32") < p).astype("float32")

    def run() -> Any:
        v = c.v
        for _ in range(c.steps):
            h = bernoulli(sigmoid(v @ c.W + c.bhid))
            p = sigmoid(h @ c.W.T + c.bvis)
            v = bernoulli(p)
        return c.statistics(p, v)

    return run


def lstm(c: Any) -> Any:
    n_steps, batch, n = c.g.shape

    def forward() -> Any:
        """Gates (after their functions), cells and states; row 0 of these is before the loop."""
        gates = (c.x.reshape(-1, c.x.shape[2]) @ c.W + c.b).reshape(n_steps, batch, 4 * n)
        cells = np.zeros((n_steps + 1, batch, n), "float32")
        states = np.zeros_like(cells)
        for t in range(n_steps):
            z = gates[t]
            z += states[t] @ c.U
            sigmoid(z[:, : 2 * n])
            np.tanh(z[:, 2 * n : 3 * n], out=z[:, 2 * n : 3 * n])
            sigmoid(z[:, 3 * n :])
            i, f, a, o = (z[:, k * n : (k + 1) * n] for k in range(4))
            np.multiply(f, cells[t], out=cells[t + 1])
            cells[t + 1] += i * a
            np.multiply(o, np.tanh(cells[t + 1]), out=states[t + 1])
        return gates, cells, states

    def gradients() -> Any:
        gates, cells, states = forward()
        dz = np.empty_like(gates)
        dh = np.zeros((batch, n), "float32")
        dc = np.zeros((batch, n), "float32")
        for t in reversed(range(n_steps)):
            i, f, a, o = (gates[t][:, k * n : (k + 1) * n] for k in range(4))
            dh += c.g[t]
            y = np.tanh(cells[t + 1])
            dc += dh * o * (1 - y * y)
            d = dz[t]
            d[:, :n] = dc * a * i * (1 - i)
            d[:, n : 2 * n] = dc * cells[t] * f * (1 - f)
            d[:, 2 * n : 3 * n] = dc * i * (1 - a * a)
            d[:, 3 * n :] = dh * y * o * (1 - o)
            dc *= f
            dh = d @ c.U.T
        flat = dz.reshape(-1, 4 * n)
        x, h = c.x.reshape(-1, c.x.shape[2]), states[:-1].reshape(-1, n)
        return {"W": x.T @ flat, "U": h.T @ flat, "b": flat.sum(0)}

    return gradients if c.gradients else lambda: {"h": forward()[2][1:]}


def elman(c: Any) -> Any:
    n_steps, batch, n = c.g.shape

    def forward() -> Any:
        z = (c.x.reshape(-1, c.x.shape[2]) @ c.W + c.b).reshape(n_steps, batch, n)
        h = np.zeros((batch, n), "float32")
        for t in range(n_steps):
            z[t] += h @ c.U
            h = np.tanh(z[t], out=z[t])
        return z

    def gradients() -> Any:
        h = forward()
        dz = 1 - h * h
        dh = np.zeros((batch, n), "float32")
        for t in reversed(range(n_steps)):
            dh += c.g[t]
            dz[t] *= dh
            dh = dz[t] @ c.U.T
        flat = dz.reshape(-1, n)
        before = np.concatenate([np.zeros((1, batch, n), "float32"), h[:-1]]).reshape(-1, n)
        return {"W": c.x.reshape(-1, c.x.shape[2]).T @ flat, "U": before.T @ flat, "b": flat.sum(0)}

    return gradients if c.gradients else lambda: {"h": forward()}


def metropolis(c: Any) -> Any:
    draws = np.random.default_rng(1)

    def run() -> Any:
        x, y = c.start.copy()
        now = log_density(x, y)
        for _ in range(c.steps):
            x1 = x + np.float32(STRIDE) * draws.standard_normal(c.chains, "float32")
            y1 = y + np.float32(STRIDE) * draws.standard_normal(c.chains, "float32")
            there = log_density(x1, y1)
            accept = np.log(1 - draws.random(c.chains, "float32")) < there - now
            np.copyto(x, x1, where=accept)
            np.copyto(y, y1, where=accept)
            np.copyto(now, there, where=accept)
        return c.statistics(x, y)

    return run


def chain(c: Any) -> Any:
    """Python's floats: faster than NumPy's scalars."""
    draws = np.random.default_rng(1)

    def run() -> Any:
        normal = (STRIDE * draws.standard_normal((c.steps, 2), "float32")).tolist()
        uniform = (1 - draws.random(c.steps, "float32")).tolist()
        xs, ys = np.empty(c.steps, "float32"), np.empty(c.steps, "float32")
        x = y = 0.0
        now = log_density(x, y)
        for t, ((a, b), u) in enumerate(zip(normal, uniform)):
            there = log_density(x + a, y + b)
            if math.log(u) < there - now:
                x, y, now = x + a, y + b, there
            xs[t], ys[t] = x, y
        return c.statistics(xs, ys)

    return run


def ar1(c: Any) -> Any:
    def run() -> Any:
        y, ys = 0.0, []
        for e in c.e.tolist():
            y = c.a * y + e
            ys.append(y)
        return {"y": np.array(ys, "float32")}

    return run


VERSIONS = {
    "Gibbs": gibbs, "LSTM": lstm, "Elman": elman, "Metropolis": metropolis, "Chain": chain,
    "AR1": ar1,
}  # fmt: skip
