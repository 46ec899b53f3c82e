"""One training step of the character model of gpuscan.examples.char_rnn by gpuscan, PyTorch and
JAX: forward, gradients, clipping, Adam, with the state of the streams carried over.

A version is made of a `Problem`, has `gradients`, the loss and the gradient of each parameter at
the start, and `step`, which trains on the codes and returns the loss. Dropout is left out: each
would draw other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T
from gpuscan.examples import char_text
from gpuscan.examples.char_rnn import CLIP, Model, Training

from .cases import Family

RATE = 1e-3


class Problem(Family):
    """The codes of a step, (steps + 1, batch) of real text, and the parameters at the start."""

    on_gpu: bool  # whether peers run there

    def prepare(
        self, hidden: int, embedding: int, batch: int, steps: int, on_gpu: bool = False
    ) -> None:
        self.on_gpu = on_gpu
        text = char_text.read(None)
        self.hidden, self.batch, self.steps = hidden, batch, steps
        self.codes = text.training[: (steps + 1) * batch].reshape(batch, steps + 1).T.copy()
        self.characters, self.embedding = len(text.characters), embedding
        model = self.model()
        self.parameters = {p.name: p.get_value() for p in model.parameters}
        per_row = 4 * hidden * (hidden + embedding) + hidden * self.characters
        self.flops = 6 * batch * steps * per_row  # of the products, forward and twice backward

    def model(self) -> Model:
        return Model(self.characters, self.hidden, self.embedding)

    def zeros(self) -> np.ndarray:
        return np.zeros((self.batch, self.hidden), "float32")


class GPUScan:
    def __init__(self, problem: Problem, device: str) -> None:
        self.codes, self.model = problem.codes, problem.model()
        codes, zeros = T.imatrix("codes"), problem.zeros()
        loss, _, _ = self.model.loss(codes, T.constant(zeros), T.constant(zeros))
        found = T.grad(loss, self.model.parameters)
        self.computed = gpuscan.function([codes], [loss, *found], device=device)
        self.training = Training(self.model, problem.batch, RATE, device=device)

    def gradients(self) -> dict[str, Any]:
        names = ["loss", *(p.name for p in self.model.parameters)]
        return dict(zip(names, self.computed(self.codes)))

    def step(self) -> float:
        return float(self.training.step(self.codes))


class PyTorch:
    """nn.Embedding, nn.LSTM and nn.Linear. The second of the LSTM's two biases stays 0."""

    def __init__(self, problem: Problem) -> None:
        import torch

        self.torch, p = torch, problem
        self.modules = torch.nn.ModuleDict({
            "embedding": torch.nn.Embedding(p.characters, p.embedding),
            "lstm": torch.nn.LSTM(p.embedding, p.hidden),
            "out": torch.nn.Linear(p.hidden, p.characters),
        })  # fmt: skip
        lstm, out = self.modules["lstm"], self.modules["out"]
        self.parameters = {
            "embedding": self.modules["embedding"].weight, "W": lstm.weight_ih_l0,
            "U": lstm.weight_hh_l0, "b": lstm.bias_ih_l0, "out": out.weight, "bias": out.bias,
        }  # fmt: skip
        with torch.no_grad():
            for name, x in self.parameters.items():
                value = torch.from_numpy(p.parameters[name])
                x.copy_(value.T if name in ("W", "U", "out") else value)
            lstm.bias_hh_l0.zero_()
        lstm.bias_hh_l0.requires_grad_(False)
        where = "cuda" if p.on_gpu else "cpu"
        self.modules.to(where)
        self.codes = torch.from_numpy(p.codes.astype("int64")).to(where)
        self.entropy = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=RATE, fused=True)
        self.state = tuple(torch.from_numpy(p.zeros())[None].to(where) for _ in range(2))

    def loss(self) -> tuple[Any, Any]:
        hs, state = self.modules["lstm"](self.modules["embedding"](self.codes[:-1]), self.state)
        scores = self.modules["out"](hs)
        return self.entropy(scores.flatten(0, 1), self.codes[1:].flatten()), state

    def gradients(self) -> dict[str, Any]:
        loss, _ = self.loss()
        found = self.torch.autograd.grad(loss, list(self.parameters.values()))
        named = dict(zip(self.parameters, (x.cpu().numpy() for x in found)))
        turned = {n: x.T if n in ("W", "U", "out") else x for n, x in named.items()}
        return {"loss": loss.detach().cpu().numpy(), **turned}

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss, state = self.loss()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        self.optimizer.step()
        self.state = tuple(x.detach() for x in state)
        return float(loss.detach())


class JAX:
    """jit of the whole step, lax.scan, optax."""

    def __init__(self, problem: Problem) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        n = problem.hidden

        def cell(p: Any, state: Any, z: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(z + h @ p["U"], 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def loss(p: Any, codes: Any, state: Any) -> Any:
            z = p["embedding"][codes[:-1]] @ p["W"] + p["b"]
            state, hs = jax.lax.scan(lambda s, z: cell(p, s, z), state, z)
            scores = hs.reshape(-1, n) @ p["out"] + p["bias"]
            each = optax.softmax_cross_entropy_with_integer_labels(scores, codes[1:].reshape(-1))
            return each.mean(), state

        optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))

        def train(p: Any, memory: Any, codes: Any, state: Any) -> Any:
            (value, state), g = jax.value_and_grad(loss, has_aux=True)(p, codes, state)
            changes, memory = optimizer.update(g, memory, p)
            return optax.apply_updates(p, changes), memory, state, value

        (device, *_) = jax.devices("gpu" if problem.on_gpu else "cpu")
        self.codes, self.p, zeros = jax.device_put(
            (problem.codes, problem.parameters, problem.zeros()), device
        )
        self.state = zeros, zeros
        self.memory = optimizer.init(self.p)
        self.train = jax.jit(train)
        self.valued = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def gradients(self) -> dict[str, Any]:
        (value, _), g = self.valued(self.p, self.codes, self.state)
        return {"loss": np.asarray(value), **{k: np.asarray(x) for k, x in g.items()}}

    def step(self) -> float:
        self.p, self.memory, self.state, value = self.train(
            self.p, self.memory, self.codes, self.state
        )
        return float(value)


PEERS: dict[str, Callable[[Problem], Any]] = {"PyTorch": PyTorch, "JAX": JAX}
