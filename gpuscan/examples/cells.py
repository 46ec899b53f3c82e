"""Recurrent cells, written by hand: python -m gpuscan.examples.cells

A cell is one step, a plain function: of an input x (batch, inputs), of states (batch, hidden) and
of parameters it makes the next states. `gpuscan.scan` makes a loop of it and `T.grad` the loop's
gradient, and each of them runs as one kernel; a cell of your own needs nothing more than these:

    p = lstm_parameters(inputs, hidden, np.random.default_rng(0))
    (h, c), _ = gpuscan.scan(lstm(hidden), x, [h0, c0], list(p.values()))

with x (steps, batch, inputs). `run` is that line with what sequences of unequal length need. The
gates are in PyTorch's order; its weights are these, transposed, and its two biases are one where
only their sum matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T

Step = Callable[..., Any]  # (x, *states, *parameters): the next state, or all of them
Parameters = dict[str, Any]  # shared variables, in the order in which the step takes them


def uniform(rng: np.random.Generator, hidden: int, **shapes: tuple[int, ...]) -> Parameters:
    """Parameters drawn as PyTorch draws them, between -1 / sqrt(hidden) and 1 / sqrt(hidden)."""
    bound = hidden**-0.5
    return {
        name: gpuscan.shared(rng.uniform(-bound, bound, n).astype(gpuscan.config.floatX), name)
        for name, n in shapes.items()
    }


def gates(z: Any, hidden: int, n: int = 4) -> list[Any]:
    """The blocks of columns that z (batch, n * hidden) is made of. With `hidden` a number, not
    z.shape[1] // n, products are cut where their blocks are used, and weights kept in registers."""
    return [z[:, k * hidden : (k + 1) * hidden] for k in range(n)]


# ---- the cells -----------------------------------------------------------------------------------


def elman(x: Any, h: Any, W: Any, U: Any, b: Any) -> Any:
    """Elman 1990: the plain recurrent network."""
    return T.tanh(T.dot(x, W) + T.dot(h, U) + b)


def elman_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    return uniform(rng, hidden, W=(inputs, hidden), U=(hidden, hidden), b=(hidden,))


def lstm(hidden: int) -> Step:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000."""

    def step(x: Any, h: Any, c: Any, W: Any, U: Any, b: Any) -> Any:
        i, f, g, o = gates(T.dot(x, W) + T.dot(h, U) + b, hidden)
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c

    return step


def lstm_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    return uniform(rng, hidden, W=(inputs, 4 * hidden), U=(hidden, 4 * hidden), b=(4 * hidden,))


def gru_reset_before(hidden: int) -> Step:
    """Cho et al. 2014: the state is reset before it is multiplied, so a step has two products."""

    def step(x: Any, h: Any, W: Any, U: Any, b: Any) -> Any:
        xr, xz, xn = gates(T.dot(x, W) + b, hidden, 3)
        hr, hz = gates(T.dot(h, U[:, : 2 * hidden]), hidden, 2)
        r, z = T.sigmoid(xr + hr), T.sigmoid(xz + hz)
        n = T.tanh(xn + T.dot(r * h, U[:, 2 * hidden :]))
        return (1 - z) * n + z * h

    return step


def gru_reset_before_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    return uniform(rng, hidden, W=(inputs, 3 * hidden), U=(hidden, 3 * hidden), b=(3 * hidden,))


def gru(hidden: int) -> Step:
    """As cuDNN and PyTorch have it: the product is reset, so one is enough. bn (hidden,) is a bias
    inside of the reset."""

    def step(x: Any, h: Any, W: Any, U: Any, b: Any, bn: Any) -> Any:
        xr, xz, xn = gates(T.dot(x, W) + b, hidden, 3)
        hr, hz, hn = gates(T.dot(h, U), hidden, 3)
        r, z = T.sigmoid(xr + hr), T.sigmoid(xz + hz)
        n = T.tanh(xn + r * (hn + bn))
        return (1 - z) * n + z * h

    return step


def gru_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    shared = gru_reset_before_parameters(inputs, hidden, rng)
    return {**shared, **uniform(rng, hidden, bn=(hidden,))}


def normalized(x: Any) -> Any:
    """Each row with mean 0 and variance 1."""
    x = x - x.mean(axis=1, keepdims=True)
    return x / T.sqrt(T.sqr(x).mean(axis=1, keepdims=True) + 1e-5)


def layer_norm_lstm(hidden: int) -> Step:
    """Layer normalization (Ba et al. 2016) and zoneout (Krueger et al. 2017): how much of its old
    value a unit keeps. In evaluation that is a number; in training, see `zoneout`."""

    def step(
        x: Any, h: Any, c: Any, W: Any, U: Any, b: Any, gain_x: Any, gain_h: Any, gain_c: Any,
        bias_c: Any, keep_h: Any = 0.1, keep_c: Any = 0.1,
    ) -> Any:  # fmt: skip
        z = gain_x * normalized(T.dot(x, W)) + gain_h * normalized(T.dot(h, U)) + b
        i, f, g, o = gates(z, hidden)
        new_c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        new_h = T.sigmoid(o) * T.tanh(gain_c * normalized(new_c) + bias_c)
        return keep_h * h + (1 - keep_h) * new_h, keep_c * c + (1 - keep_c) * new_c

    return step


def zoneout(hidden: int, random: Any, keep_h: float = 0.1, keep_c: float = 0.1) -> Step:
    """Its step for training: a unit keeps its old value, or not, by chance. The scan's updates move
    the random numbers on, so pass them to `function`."""
    cell = layer_norm_lstm(hidden)

    def step(x: Any, h: Any, c: Any, *parameters: Any) -> Any:
        kept = [random.binomial(size=h.shape, p=p, dtype=h.dtype) for p in (keep_h, keep_c)]
        return cell(x, h, c, *parameters, *kept)

    return step


def layer_norm_lstm_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    values = {
        "gain_x": np.ones(4 * hidden),
        "gain_h": np.ones(4 * hidden),
        "gain_c": np.ones(hidden),
        "bias_c": np.zeros(hidden),
    }
    dtype = gpuscan.config.floatX
    shared = {name: gpuscan.shared(value.astype(dtype), name) for name, value in values.items()}
    return {**lstm_parameters(inputs, hidden, rng), **shared}


def two_layers(hidden: int) -> Step:
    """A stack of cells is a cell: the second LSTM reads what the first has just made of x."""
    cell = lstm(hidden)

    def step(
        x: Any, h1: Any, c1: Any, h2: Any, c2: Any,
        W1: Any, U1: Any, b1: Any, W2: Any, U2: Any, b2: Any,
    ) -> Any:  # fmt: skip
        h1, c1 = cell(x, h1, c1, W1, U1, b1)
        h2, c2 = cell(h1, h2, c2, W2, U2, b2)
        return h1, c1, h2, c2

    return step


def two_layers_parameters(inputs: int, hidden: int, rng: np.random.Generator) -> Parameters:
    layers = lstm_parameters(inputs, hidden, rng), lstm_parameters(hidden, hidden, rng)
    return {f"{name}{k}": p for k, layer in enumerate(layers, 1) for name, p in layer.items()}


# ---- sequences, of unequal length too ------------------------------------------------------------


def zeros(x: Any, hidden: int) -> Any:
    """A state of x's rows (batch, hidden), where nothing is known before the first step."""
    return T.zeros((x.shape[1], hidden), x.dtype)


def mask_of(lengths: Any, steps: Any) -> Any:
    """1 where a row has a step, 0 after its end: (steps, batch)."""
    return T.lt(T.arange(steps)[:, None], lengths)


def without_padding(x: Any, mask: Any) -> Any:
    """x (steps, batch, ...), and 0 wherever mask is.

    What the padding holds can't be felt then. To choose the results is not enough: their
    derivatives are multiplied by 0, and 0 times NaN is NaN.
    """
    return T.switch(T.shape_padright(mask, x.ndim - 2), x, 0)


def masked_mean(losses: Any, mask: Any) -> Any:
    """The mean of losses (steps, batch) over the steps that there are. What the losses are made of
    (the targets, say) has to be without_padding as well."""
    return T.sum(without_padding(losses, mask)) / T.maximum(T.sum(mask, dtype=losses.dtype), 1)


def run(
    step: Step, x: Any, initial: Sequence[Any], parameters: Parameters, mask: Any = None,
    reset: Any = None, backwards: bool = False,
) -> tuple[list[Any], Any]:  # fmt: skip
    """The states after every step, a list of (steps, batch, hidden), and the scan's updates.

    x           (steps, batch, inputs)
    initial     the states before the first step, each (batch, hidden)
    mask        (steps, batch): where it is 0, nothing happens and the states stay as they are
    reset       (steps, batch): where it is 1, the row starts from `initial` again in this step
    backwards   from the last step to the first; the results are in the order of x
    """
    n = len(initial)

    def flagged(x: Any, *values: Any) -> list[Any]:
        rest = list(values)
        here, anew = [None if f is None else rest.pop(0)[:, None] for f in (mask, reset)]
        before, start, weights = rest[:n], rest[n : 2 * n], rest[2 * n :]
        now = before if anew is None else [T.switch(anew, s, b) for s, b in zip(start, before)]
        after = step(x, *now, *weights)
        after = list(after) if isinstance(after, list | tuple) else [after]
        return after if here is None else [T.switch(here, a, b) for a, b in zip(after, before)]

    x = x if mask is None else without_padding(x, mask)
    states, updates = gpuscan.scan(
        flagged,
        sequences=[x, *(flag for flag in (mask, reset) if flag is not None)],
        outputs_info=list(initial),
        non_sequences=[*initial, *parameters.values()],
        go_backwards=backwards,
        name=step.__qualname__.partition(".")[0],  # lstm, of lstm.<locals>.step
        return_list=True,
    )
    return [s[::-1] for s in states] if backwards else states, updates


def bidirectional(
    step: Step, x: Any, initial: Sequence[Sequence[Any]], parameters: Sequence[Parameters],
    mask: Any = None,
) -> tuple[list[Any], Any]:  # fmt: skip
    """As `run`, in both directions: initial states and parameters for each, forwards first, and
    states of (steps, batch, 2 * hidden). With a mask the way back starts at each row's own end,
    for until there its states stay the initial ones."""
    ahead, updates = run(step, x, initial[0], parameters[0], mask)
    back, more = run(step, x, initial[1], parameters[1], mask, backwards=True)
    return [T.concatenate(both, axis=2) for both in zip(ahead, back)], updates + more


# ---- what becomes of them ------------------------------------------------------------------------

# What makes the step, how many states it has, and what makes its parameters.
CELLS: dict[str, tuple[Callable[[int], Step], int, Callable[..., Parameters]]] = {
    "elman": (lambda hidden: elman, 1, elman_parameters),
    "lstm": (lstm, 2, lstm_parameters),
    "gru": (gru, 1, gru_parameters),
    "gru_reset_before": (gru_reset_before, 1, gru_reset_before_parameters),
    "layer_norm_lstm": (layer_norm_lstm, 2, layer_norm_lstm_parameters),
    "two_layers": (two_layers, 4, two_layers_parameters),
}


def main() -> None:
    """How each cell's loop and gradient run, and the loss's slope in a random direction: by the
    gradient, and by two losses."""
    rng, epsilon = np.random.default_rng(0), 1e-6
    values, x = rng.normal(size=(20, 8, 16)), T.dtensor3("x")
    for name, (cell, n, make) in CELLS.items():
        with gpuscan.config.change_flags(floatX="float64"):
            p = make(16, 32, rng)
            states, _ = run(cell(32), x, [zeros(x, 32)] * n, p)
            loss = sum(T.sum(T.sqr(s)) for s in states)
            f = gpuscan.function([x], [loss, *T.grad(loss, list(p.values()))], name=name)
        direction = [rng.normal(size=v.get_value().shape) for v in p.values()]
        slope = sum(np.sum(d * g) for d, g in zip(direction, f(values)[1:]))
        losses = []
        for way in (1, -2):
            for v, d in zip(p.values(), direction):
                v.set_value(v.get_value() + way * epsilon * d)
            losses.append(f(values)[0])
        differences = (losses[0] - losses[1]) / (2 * epsilon)
        print(f"{f.explain()}\n  slope {slope:.6f}, by differences {differences:.6f}")


if __name__ == "__main__":
    main()
