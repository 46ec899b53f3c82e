"""The methods. In their formulas g is the gradient of the parameter p, and r the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..graph import Constant, Variable
from ..ops.elemwise import cast
from ..ops.scalar import maximum, sqrt
from ..scan.updates import OrderedUpdates
from ..shared import SharedVariable, shared
from .arguments import gradients, number, parameters
from .schedules import rate_of
from .states import label


class _Method:
    """One call of a method: its parameters and their gradients, the learning rate, and the updates
    as they are put together. Scalars are float64 until `at` brings them to a parameter."""

    def __init__(
        self, method: str, loss_or_grads: Any, params: Any, learning_rate: Any, name: str | None
    ) -> None:
        self.method, self.name = method, name or method
        self.params = parameters(params, method)
        self.grads = gradients(loss_or_grads, self.params, method)
        self.updates = OrderedUpdates((p, p) for p in self.params)  # they come first
        self.rate = self._rate(learning_rate)

    def _rate(self, learning_rate: Any) -> Variable:
        if isinstance(learning_rate, Variable) or not callable(learning_rate):
            return self.number(learning_rate, "learning_rate")
        step = shared(np.zeros((), "int64"), f"{self.name}.step")
        self.updates[step] = step + 1
        return rate_of(learning_rate, step)

    def number(self, value: Any, what: str, below: float = math.inf) -> Variable:
        """An argument that is 0 or more, and less than `below`."""
        return number(value, f"{self.method}: {what}", 0.0, below)

    def each(self) -> Iterator[tuple[SharedVariable, Variable]]:
        return zip(self.params, self.grads)

    def at(self, p: SharedVariable, scalar: Variable) -> Variable:
        return cast(scalar, p.dtype)

    def slot(self, p: SharedVariable, what: str, value: float = 0.0) -> SharedVariable:
        """What is kept beside a parameter, an array of its shape that is filled at first."""
        name = f"{self.name}.{label(p, self.params.index(p))}.{what}"
        return SharedVariable(p.type, np.full(p.held.shape, value, p.dtype), name)

    def average(self, p: SharedVariable, what: str, decay: Variable, x: Variable) -> Variable:
        """The running average of x beside a parameter, from 0: decay * old + (1 - decay) * x."""
        old = self.slot(p, what)
        self.updates[old] = self.at(p, decay) * old + self.at(p, 1 - decay) * x
        return self.updates[old]

    def weight(self, what: str, decay: Variable) -> Variable:
        """The sum of the weights in such averages after t calls, 1 - decay ** t."""
        old = shared(np.zeros(()), f"{self.name}.{what}")
        self.updates[old] = decay * old + (1 - decay)
        return self.updates[old]


# ---- gradient descent ----------------------------------------------------------------------------


def sgd(
    loss_or_grads: Any, params: Any, learning_rate: Any, name: str | None = None
) -> OrderedUpdates:
    """Gradient descent: p - r * g."""
    m = _Method("sgd", loss_or_grads, params, learning_rate, name)
    for p, g in m.each():
        m.updates[p] = p - m.at(p, m.rate) * g
    return m.updates


def momentum(
    loss_or_grads: Any, params: Any, learning_rate: Any, momentum: Any = 0.9,
    rate_in_velocity: bool = False, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Gradient descent with momentum (Polyak, 1964): v = momentum * v + g, from 0, and p - r * v.

    rate_in_velocity: v = momentum * v + r * g and p - v, as in Theano's and Lasagne's programs,
    which is the same until the rate changes. State: `velocity`, v.
    """
    return _with_momentum(
        "momentum", loss_or_grads, params, learning_rate, momentum, rate_in_velocity, name
    )


def nesterov(
    loss_or_grads: Any, params: Any, learning_rate: Any, momentum: Any = 0.9,
    rate_in_velocity: bool = False, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Gradient descent with Nesterov's momentum, as Sutskever et al. (2013) have it with the
    gradient where the parameter is: v as in `momentum`, and p - r * (g + momentum * v).

    rate_in_velocity: v as in `momentum` then, and p - (r * g + momentum * v), as in Lasagne.
    State: `velocity`, v.
    """
    return _with_momentum(
        "nesterov", loss_or_grads, params, learning_rate, momentum, rate_in_velocity, name
    )


def _with_momentum(
    method: str, loss_or_grads: Any, params: Any, learning_rate: Any, momentum: Any,
    rate_in_velocity: bool, name: str | None,
) -> OrderedUpdates:  # fmt: skip
    m = _Method(method, loss_or_grads, params, learning_rate, name)
    decay = m.number(momentum, "momentum")
    for p, g in m.each():
        rate, kept, old = m.at(p, m.rate), m.at(p, decay), m.slot(p, "velocity")
        x = rate * g if rate_in_velocity else g
        v = m.updates[old] = kept * old + x
        step = x + kept * v if method == "nesterov" else v
        m.updates[p] = p - (step if rate_in_velocity else rate * step)
    return m.updates


# ---- a rate for each element ---------------------------------------------------------------------


def adagrad(
    loss_or_grads: Any, params: Any, learning_rate: Any = 0.01, epsilon: Any = 1e-10,
    start: float = 0.0, epsilon_in_root: bool = False, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Adagrad (Duchi, Hazan and Singer, 2011): s = s + g ** 2, from `start`, and
    p - r * g / (sqrt(s) + epsilon).

    epsilon_in_root: g / sqrt(s + epsilon), as in Lasagne (which has r = 1, epsilon = 1e-6) and
    Optax (epsilon = 1e-7, start = 0.1). PyTorch's lr_decay is a schedule here. State: `squares`, s.
    """
    m = _Method("adagrad", loss_or_grads, params, learning_rate, name)
    least = m.number(epsilon, "epsilon")
    first = m.number(start, "start")
    if not isinstance(first, Constant):
        raise TypeError(f"adagrad: start is a number, got {start!r}")
    for p, g in m.each():
        old = m.slot(p, "squares", float(first.data))
        s = m.updates[old] = old + g * g
        m.updates[p] = p - m.at(p, m.rate) * g / _root(s, m.at(p, least), epsilon_in_root)
    return m.updates


def adadelta(
    loss_or_grads: Any, params: Any, learning_rate: Any = 1.0, rho: Any = 0.9,
    epsilon: Any = 1e-6, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Adadelta (Zeiler, 2012): running averages s of g ** 2 and u of d ** 2, both from 0, where
    d = g * sqrt(u + epsilon) / sqrt(s + epsilon) has the new s and the old u; and p - r * d.

    Lasagne has rho = 0.95. State: `squares`, s, and `steps`, u.
    """
    m = _Method("adadelta", loss_or_grads, params, learning_rate, name)
    decay, least = m.number(rho, "rho", 1), m.number(epsilon, "epsilon")
    for p, g in m.each():
        kept, e, old = m.at(p, decay), m.at(p, least), m.slot(p, "steps")
        s = m.average(p, "squares", decay, g * g)
        d = sqrt(old + e) / sqrt(s + e) * g
        m.updates[old] = kept * old + m.at(p, 1 - decay) * (d * d)
        m.updates[p] = p - m.at(p, m.rate) * d
    return m.updates


def rmsprop(
    loss_or_grads: Any, params: Any, learning_rate: Any = 0.01, rho: Any = 0.99,
    epsilon: Any = 1e-8, momentum: Any = 0.0, centered: bool = False,
    epsilon_in_root: bool = False, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """RMSProp (Tieleman and Hinton, 2012): a running average s of g ** 2, from 0, and
    p - r * g / (sqrt(s) + epsilon).

    centered: s - m ** 2 stands for s, with the running average m of g (Graves, 2013). momentum: of
    what r is multiplied with, as in `momentum`. epsilon_in_root: g / sqrt(s + epsilon), as in
    Lasagne (which has r = 1, rho = 0.9, epsilon = 1e-6) and Optax (rho = 0.9). State: `squares`, s,
    where they are used `mean`, m, and `velocity`.
    """
    m = _Method("rmsprop", loss_or_grads, params, learning_rate, name)
    decay, least = m.number(rho, "rho", 1), m.number(epsilon, "epsilon")
    inertia = m.number(momentum, "momentum")
    for p, g in m.each():
        s = m.average(p, "squares", decay, g * g)
        if centered:
            mean = m.average(p, "mean", decay, g)
            s = maximum(s - mean * mean, 0)  # which rounding may have made less
        step = g / _root(s, m.at(p, least), epsilon_in_root)
        if not _is_zero(inertia):
            old = m.slot(p, "velocity")
            step = m.updates[old] = m.at(p, inertia) * old + step
        m.updates[p] = p - m.at(p, m.rate) * step
    return m.updates


def adam(
    loss_or_grads: Any, params: Any, learning_rate: Any = 0.001, beta1: Any = 0.9,
    beta2: Any = 0.999, epsilon: Any = 1e-8, epsilon_hat: bool = False, name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Adam (Kingma and Ba, 2015): running averages m of g and v of g ** 2, both from 0, divided by
    the sums of their weights, 1 - beta ** t in update t; and
    p - r * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + epsilon).

    So it is in PyTorch and Optax too. epsilon_hat: epsilon is added to the root before that is
    divided, as in the paper's faster form, Lasagne and TensorFlow.
    State: `weight1` and `weight2`, the sums of weights (float64), `m` and `v`.
    """
    m = _Method("adam", loss_or_grads, params, learning_rate, name)
    return _adam(m, beta1, beta2, epsilon, epsilon_hat, None)


def adamw(
    loss_or_grads: Any, params: Any, learning_rate: Any = 0.001, beta1: Any = 0.9,
    beta2: Any = 0.999, epsilon: Any = 1e-8, weight_decay: Any = 0.01, epsilon_hat: bool = False,
    name: str | None = None,
) -> OrderedUpdates:  # fmt: skip
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): from p * (1 - r *
    weight_decay) goes what `adam` takes from p.

    Optax has weight_decay = 1e-4. State: as `adam`.
    """
    m = _Method("adamw", loss_or_grads, params, learning_rate, name)
    return _adam(m, beta1, beta2, epsilon, epsilon_hat, m.number(weight_decay, "weight_decay"))


def _adam(
    m: _Method, beta1: Any, beta2: Any, epsilon: Any, epsilon_hat: bool, decay: Variable | None
) -> OrderedUpdates:
    b1, b2 = m.number(beta1, "beta1", 1), m.number(beta2, "beta2", 1)
    least = m.number(epsilon, "epsilon")
    rate, root = m.rate / m.weight("weight1", b1), sqrt(m.weight("weight2", b2))
    if epsilon_hat:
        least = least / root
    for p, g in m.each():
        mean = m.average(p, "m", b1, g)
        deviation = sqrt(m.average(p, "v", b2, g * g)) / m.at(p, root)
        step = m.at(p, rate) * mean / (deviation + m.at(p, least))
        kept = p if decay is None else p * m.at(p, 1 - m.rate * decay)
        m.updates[p] = kept - step
    return m.updates


def _root(s: Variable, epsilon: Variable, inside: bool) -> Variable:
    return sqrt(s + epsilon) if inside else sqrt(s) + epsilon


def _is_zero(x: Variable) -> bool:
    return isinstance(x, Constant) and not x.data
