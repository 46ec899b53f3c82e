"""The peers of python -m benchmarks.gpu: PyTorch's layers (cuDNN) and its compiled scan, JAX's
lax.scan, a CuPy loop and its CUDA graph; FlashRNN and Haste where they are installed.

A step is written once for JAX, CuPy and NumPy: `xp` is the library of arrays. Where there is no
GPU the peers run on the CPU, NumPy in CuPy's place, to show that they compute the same thing.
Versions of lower precision have their whole data in 16 bits, as users of these libraries have;
gpuscan's data are float32, and what it rounds are the factors of products with weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from gpuscan.runtime.driver import without_collector

from .gpu_cases import Loop, OnGpu

UNROLL = 8
UNROLLED = f"JAX unroll={UNROLL}"
MODULES = {
    "PyTorch": "torch",
    "PyTorch scan": "torch",
    "JAX": "jax",
    UNROLLED: "jax",
    "CuPy": "cupy",
    "CuPy graph": "cupy",
    "FlashRNN": "flashrnn",
    "Haste": "haste_pytorch",
}
PEERS = tuple(MODULES)
BY_PYTORCH = ("PyTorch", "PyTorch scan", "FlashRNN", "Haste")  # whose memory is PyTorch's
ON_A_GPU_ONLY = ("CuPy graph", "FlashRNN", "Haste")


class Absent(Exception):
    """Why a peer is not here."""


def version_of(peer: str, on_gpu: bool) -> str:
    """The peer's version. Raises Absent."""
    if not on_gpu and peer == "CuPy":
        return f"NumPy {np.__version__} in its place"
    if find_spec(MODULES[peer]) is None:
        raise Absent(f"no module {MODULES[peer]}")
    if not on_gpu and peer in ON_A_GPU_ONLY:
        raise Absent("there is no GPU")
    try:
        by = {"torch": _torch, "jax": _jax, "cupy": _cupy}.get(
            MODULES[peer], lambda on_gpu: _other(MODULES[peer])
        )
        return by(on_gpu)
    except Absent:
        raise
    except Exception as e:  # the import of a library for another CUDA fails in many ways
        raise Absent(f"{type(e).__name__}: {e}".splitlines()[0]) from None


def _torch(on_gpu: bool) -> str:
    import torch

    if not on_gpu:
        return f"{torch.__version__} on the CPU"
    if not torch.cuda.is_available():
        raise Absent("this PyTorch finds no GPU")
    return f"{torch.__version__} with cuDNN {torch.backends.cudnn.version()}"


def _jax(on_gpu: bool) -> str:
    # else it takes most of the memory at once, from all others of this process
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not on_gpu:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    if on_gpu and jax.default_backend() != "gpu":
        raise Absent(f"this JAX runs on the {jax.default_backend()}")
    return f"{jax.__version__}{'' if on_gpu else ' on the CPU'}"


def _cupy(on_gpu: bool) -> str:
    import cupy

    return f"{cupy.__version__}"


def _other(module: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(module)
    except PackageNotFoundError:
        return "an unknown version"


def version(peer: str, family: OnGpu, precision: str, on_gpu: bool) -> Loop | None:
    """The peer's version of a family, where it has one."""
    make = MAKERS[peer].get(type(family).__name__)
    return None if make is None else make(family, precision, on_gpu)


def release(on_gpu: bool) -> None:
    """Gives back the memory that the libraries keep for later."""
    if not on_gpu:
        return
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


# ---- steps, for every library of arrays ----------------------------------------------------------


def sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))


def columns(z: Any, gates: int) -> list[Any]:
    n = z.shape[1] // gates
    return [z[:, k * n : (k + 1) * n] for k in range(gates)]


def lstm(xp: Any, state: Any, z: Any, U: Any) -> Any:
    h, c = state
    i, f, a, o = columns(z + h @ U, 4)
    c = sigmoid(xp, f) * c + sigmoid(xp, i) * xp.tanh(a)
    return sigmoid(xp, o) * xp.tanh(c), c


def gru(xp: Any, state: Any, z: Any, U: Any) -> Any:
    (h,) = state
    below, across = columns(z, 3), columns(h @ U, 3)
    r, u = (sigmoid(xp, a + b) for a, b in zip(below[:2], across))
    new = xp.tanh(below[2] + r * across[2])
    return ((1 - u) * new + u * h,)


def elman(xp: Any, state: Any, z: Any, U: Any) -> Any:
    return (xp.tanh(z + state[0] @ U),)


CELLS: dict[str, Callable[..., Any]] = {"LSTM": lstm, "GRU": gru, "Elman": elman}


def normalized(xp: Any, x: Any) -> Any:
    x = x - x.mean(axis=1, keepdims=True)
    return x / xp.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)


def layer_norm_lstm(xp: Any, state: Any, z: Any, mask: Any, kept: Any, U: Any, gain: Any) -> Any:
    h, c = (mask[:, None] * s for s in state)
    i, f, o, u = columns(z + gain * normalized(xp, h @ U), 4)
    new_c = sigmoid(xp, f) * c + sigmoid(xp, i) * xp.tanh(u)
    new_h = sigmoid(xp, o) * xp.tanh(normalized(xp, new_c))
    return kept * h + (1 - kept) * new_h, kept * c + (1 - kept) * new_c


def metropolis(xp: Any, x: Any, normal: Any, uniform: Any) -> Any:
    def energy(x: Any) -> Any:
        return (x * x - 1) ** 2

    proposed = x + 0.8 * normal
    return xp.where(uniform < xp.exp(energy(x) - energy(proposed)), proposed, x)


def hmc(xp: Any, q: Any, p: Any, uniform: Any) -> Any:
    def energy(q: Any, p: Any) -> Any:
        return (q * q / 2 + xp.cos(2 * q) + p * p / 2).sum(axis=1)

    def force(q: Any) -> Any:
        return 2 * xp.sin(2 * q) - q

    before, old, size = energy(q, p), q, 0.3
    for _ in range(5):
        p = p + size / 2 * force(q)
        q = q + size * p
        p = p + size / 2 * force(q)
    return xp.where((uniform < xp.exp(before - energy(q, p)))[:, None], q, old)


def gibbs(xp: Any, v: Any, below: Any, above: Any, c: Any) -> Any:
    W, bvis, bhid = c
    h = (above < sigmoid(xp, v @ W + bhid)).astype("float32")
    p = sigmoid(xp, h @ W.T + bvis)
    return p, (below < p).astype("float32")


def hmm(xp: Any, a: Any, seen: Any, A: Any, B: Any) -> Any:
    a = (a @ A) * B[seen]
    total = a.sum(axis=1, keepdims=True)
    return a / total, xp.log(total[:, 0])


def hmm_given(c: Any) -> Sequence[np.ndarray]:
    """The first row, the moves, what is shown: as probabilities."""

    def softmax(x: Any, axis: int) -> Any:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    start, moves, shows = (c.values[name] for name in ("start", "moves", "shows"))
    return softmax(start[None], 1), softmax(moves, 1), softmax(shows, 0)


# ---- PyTorch -------------------------------------------------------------------------------------


def torch_recurrent(c: Any, precision: str, on_gpu: bool) -> Loop:
    """nn.LSTM, nn.GRU, nn.RNN. float32 is without TF32, which PyTorch else uses in cuDNN."""
    import torch

    kind = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "Elman": torch.nn.RNN}[type(c).__name__]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    where = "cuda" if on_gpu else "cpu"
    layer = kind(c.W.shape[0], c.U.shape[0])
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(c.W.T))
        layer.weight_hh_l0.copy_(torch.from_numpy(c.U.T))
        layer.bias_ih_l0.copy_(torch.from_numpy(c.b))
        layer.bias_hh_l0.zero_()
    layer = layer.to(where, dtype)  # cuDNN's one block of weights is made again by this
    x, g = (torch.from_numpy(a).to(where, dtype) for a in (c.x, c.g))
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]

    def rounding() -> None:  # of the whole process, hence at each call
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"

    @torch.inference_mode()
    def forward(n: int) -> Any:
        rounding()
        return [layer(x[:n])[0]]

    def gradients(n: int) -> Any:
        rounding()
        return torch.autograd.grad(layer(x[:n])[0], weights, g[:n])

    def host(found: Any) -> Any:
        arrays = [a.float().cpu().numpy() for a in found]
        if c.gradients:
            return {"W": arrays[0].T, "U": arrays[1].T, "b": arrays[2]}
        return {"h": arrays[0]}

    return Loop(gradients if c.gradients else forward, host)


def busiest_kernel(run: Callable[[], Any]) -> str:
    """The GPU's kernel in which a call of PyTorch's spends most time: cuDNN chooses among several,
    and says it by no other way. Nothing where the profiler is not allowed or not there."""
    try:
        import torch
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as found:
            run()
            torch.cuda.synchronize()
        events = found.key_averages()
        return max(events, key=lambda e: e.self_device_time_total).key if len(events) else ""
    except Exception:
        return ""


def torch_data(c: Any, precision: str, on_gpu: bool) -> list[Any]:
    """x, W, U and b as PyTorch's; its rounding of products is set for the whole process."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    given = map(torch.from_numpy, (c.x, c.W, c.U, c.b))
    return [a.to("cuda" if on_gpu else "cpu", dtype) for a in given]


def torch_scan(c: Any, precision: str, on_gpu: bool) -> Loop | None:
    """PyTorch's scan, compiled. Only forward: its gradient is a prototype."""
    if c.gradients:
        return None
    import torch
    from torch._higher_order_ops.scan import scan

    cell = CELLS[type(c).__name__]
    x, *weights = torch_data(c, precision, on_gpu)
    zeros = torch.zeros(c.g.shape[1:], dtype=x.dtype, device=x.device)
    torch.compiler.reset()  # else the kinds of cells count as tries of one function, which end

    @torch.compile
    def states(x: Any, W: Any, U: Any, b: Any, zeros: Any) -> Any:
        def step(state: Any, z: Any) -> Any:
            state = cell(torch, state, z, U)
            return state, state[0].clone()  # results of a step may not share memory

        return scan(step, tuple(zeros.clone() for _ in range(c.n_states)), x @ W + b)[1]

    @torch.no_grad()
    def run(n: int) -> Any:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        # scan is made a loop that reads its number by item()
        with torch._dynamo.config.patch(capture_scalar_outputs=True):
            return states(x[:n], *weights, zeros)

    return Loop(run, lambda h: {"h": h.float().cpu().numpy()})


TORCH: dict[str, Callable[..., Loop]] = dict.fromkeys(CELLS, torch_recurrent)
TORCH_SCAN: dict[str, Callable[..., Loop | None]] = dict.fromkeys(CELLS, torch_scan)


# ---- FlashRNN, Haste: as their sources say, not tried yet ----------------------------------------


def flashrnn(c: Any, precision: str, on_gpu: bool) -> Loop | None:
    """Its fused kernels, with one head. Gates as here; a GRU has recurrent ones in the order new,
    reset, update, and a bias for each of the four sums."""
    if c.gradients or precision == "tf32":
        return None
    import torch
    from flashrnn import flashrnn as run_rnn

    run_rnn = getattr(run_rnn, "flashrnn", run_rnn)  # a module, or its function
    x, W, U, b = torch_data(c, precision, on_gpu)
    hidden, gates = len(U), c.gates
    R = U.T.reshape(gates, 1, hidden, hidden)
    b = b.reshape(gates, 1, hidden)
    if type(c).__name__ == "GRU":
        R, b = R[[2, 0, 1]], torch.cat([torch.zeros_like(b[:1]), b])
    R, b = R.contiguous(), b.contiguous()
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")

    @torch.no_grad()
    def run(n: int) -> Any:
        below = (x[:n] @ W).reshape(n, -1, gates, 1, hidden).transpose(0, 1)
        return run_rnn(below, R, b, function=type(c).__name__.lower(), dtype=dtype)[0]

    def host(found: Any) -> Any:  # (states, batch, steps, heads, units)
        return {"h": found[0, :, :, 0].transpose(0, 1).float().cpu().numpy()}

    return Loop(run, host)


def haste(c: Any, precision: str, on_gpu: bool) -> Loop | None:
    """Gates of its LSTM are in the order input, cell, forget, output; of its GRU update, reset,
    new."""
    order = {"LSTM": (0, 2, 1, 3), "GRU": (1, 0, 2)}.get(type(c).__name__)
    if c.gradients or precision != "float32" or order is None:
        return None
    import haste_pytorch
    import torch

    x, *weights = torch_data(c, precision, on_gpu)
    layer = getattr(haste_pytorch, type(c).__name__)(c.W.shape[0], c.U.shape[0]).eval()
    with torch.no_grad():
        for own, given in zip((layer.kernel, layer.recurrent_kernel, layer.bias), weights):
            own.copy_(torch.cat([given.chunk(c.gates, -1)[k] for k in order], -1))

    @torch.no_grad()
    def run(n: int) -> Any:
        torch.backends.cuda.matmul.allow_tf32 = False
        return layer(x[:n])[0][-n:]

    return Loop(run, lambda h: {"h": h.cpu().numpy()})


# ---- JAX -----------------------------------------------------------------------------------------


def compiled(f: Callable[..., Any], precision: str, given: Sequence[Any]) -> Callable[[int], Any]:
    """f(n, key, *given) by jit, once for each n; waits for the results, which are not on the stream
    that events are recorded on. Products of float32 are exact unless TF32 is asked for."""
    import jax

    exact = {"float32": "highest", "tf32": "tensorfloat32"}.get(precision)
    given = jax.device_put(tuple(given))
    keys = iter(range(1, 2**31))
    jitted = jax.jit(f, static_argnums=0)

    def run(n: int) -> Any:
        with jax.default_matmul_precision(exact):
            return jax.block_until_ready(jitted(n, jax.random.key(next(keys)), *given))

    return run


def jax_recurrent(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    import jax
    import jax.numpy as jnp

    cell, dtype = CELLS[type(c).__name__], _jax_dtype(precision)
    start = (jnp.zeros(c.g.shape[1:], dtype),) * c.n_states

    def states(weights: Any, x: Any) -> Any:
        W, U, b = weights

        def step(state: Any, z: Any) -> Any:
            state = cell(jnp, state, z, U)
            return state, state[0]

        return jax.lax.scan(step, start, x @ W + b, unroll=unroll)[1]

    def forward(n: int, key: Any, weights: Any, x: Any, g: Any) -> Any:
        return (states(weights, x[:n]),)

    def gradients(n: int, key: Any, weights: Any, x: Any, g: Any) -> Any:
        return jax.vjp(lambda w: states(w, x[:n]), weights)[1](g[:n])[0]

    given = (tuple(jnp.asarray(w, dtype) for w in (c.W, c.U, c.b)),
             *(jnp.asarray(a, dtype) for a in (c.x, c.g)))  # fmt: skip
    run = compiled(gradients if c.gradients else forward, precision, given)
    names = "WUb" if c.gradients else "h"
    return Loop(run, lambda found: dict(zip(names, (np.asarray(a, "float32") for a in found))))


def _jax_dtype(precision: str) -> str:
    return {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")


def jax_layer_norm(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    import jax
    import jax.numpy as jnp

    def states(weights: Any, x: Any, mask: Any, kept: Any, h0: Any, c0: Any) -> Any:
        W, U, b, gain = weights

        def step(state: Any, given: Any) -> Any:
            state = layer_norm_lstm(jnp, state, *given, U, gain)
            return state, state[0]

        return jax.lax.scan(step, (h0, c0), (x @ W + b, mask, kept), unroll=unroll)[1]

    def forward(n: int, key: Any, weights: Any, *given: Any) -> Any:
        return (states(weights, *(a[:n] for a in given[:3]), *given[3:]),)

    def gradients(n: int, key: Any, weights: Any, *given: Any) -> Any:
        def loss(weights: Any) -> Any:
            (h,) = forward(n, key, weights, *given)
            return (h * jnp.cos(h)).sum()

        return jax.grad(loss)(weights)

    names = ("W", "U", "b", "gain")
    given = (tuple(c.values[name] for name in names), *layer_norm_given(c))
    run = compiled(gradients if c.gradients else forward, precision, given)
    found_names = names if c.gradients else ("h",)
    return Loop(run, lambda found: dict(zip(found_names, map(np.asarray, found))))


def layer_norm_given(c: Any) -> Sequence[np.ndarray]:
    """What is not differentiated: x, masks, first states; as many steps as the case has."""
    x, mask, h0, c0 = (c.values[name].astype("float32") for name in ("x", "mask", "h0", "c0"))
    return x, mask, np.resize(c.kept, (len(x), *h0.shape)), h0, c0


def jax_chain(
    step: Callable[..., Any], start: Any, draws: Any, host: Callable[[Any], Any],
    unroll: int, given: Sequence[Any] = (),
) -> Loop:  # fmt: skip
    """Chains by lax.scan. draws(keys): what a step draws, from two keys."""
    import jax
    import jax.numpy as jnp

    def chain(n: int, key: Any, state: Any, given: Any) -> Any:
        def one(state: Any, key: Any) -> Any:
            return step(jnp, state, *draws(jax.random.split(key)), *given), None

        return jax.lax.scan(one, state, jax.random.split(key, n), unroll=unroll)[0]

    return Loop(compiled(chain, "float32", (start, tuple(given))), host)


def jax_metropolis(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    from jax import random

    x0 = c.values["x0"]

    def draws(keys: Any) -> Any:
        return random.normal(keys[0], x0.shape), random.uniform(keys[1], x0.shape)

    return jax_chain(metropolis, x0, draws, lambda x: c.result({"x": np.asarray(x)}), unroll)


def jax_hmc(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    from jax import random

    q0 = c.values["q0"]

    def draws(keys: Any) -> Any:
        return random.normal(keys[0], q0.shape), random.uniform(keys[1], q0.shape[:1])

    return jax_chain(hmc, q0, draws, lambda q: c.result({"q": np.asarray(q)}), unroll)


def jax_gibbs(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    from jax import random

    def draws(keys: Any) -> Any:
        above = (c.v.shape[0], c.bhid.size)
        return random.uniform(keys[0], c.v.shape), random.uniform(keys[1], above)

    def step(xp: Any, state: Any, below: Any, above: Any, *given: Any) -> Any:
        return gibbs(xp, state[1], below, above, given)

    given = (c.W, c.bvis, c.bhid)
    return jax_chain(step, (c.v, c.v), draws, lambda found: c.statistics(*found), unroll, given)


def jax_hmm(c: Any, precision: str, on_gpu: bool, unroll: int = 1) -> Loop:
    import jax
    import jax.numpy as jnp

    def likelihood(n: int, key: Any, seen: Any, first: Any, A: Any, B: Any) -> Any:
        step = functools.partial(hmm, jnp, A=A, B=B)
        return jax.lax.scan(step, first, seen[:n], unroll=unroll)[1]

    run = compiled(likelihood, "float32", (c.values["seen"], *hmm_given(c)))
    return Loop(run, lambda found: {"likelihood": np.asarray(found)})


JAX: dict[str, Callable[..., Loop]] = {
    **dict.fromkeys(CELLS, jax_recurrent),
    "LayerNormLSTM": jax_layer_norm,
    "LayerNormLSTMGradients": jax_layer_norm,
    "Metropolis": jax_metropolis,
    "HMC": jax_hmc,
    "Gibbs": jax_gibbs,
    "HMM": jax_hmm,
}


# ---- CuPy ----------------------------------------------------------------------------------------


def arrays(on_gpu: bool) -> Any:
    """CuPy, or NumPy in its place."""
    if not on_gpu:
        return np
    import cupy

    return cupy


Factors: TypeAlias = Callable[[Any], Any]  # what weights of products are replaced by


def same(weights: Any) -> Any:
    return weights


def on_host(x: Any) -> np.ndarray:
    return x.get() if hasattr(x, "get") else np.asarray(x)


def cupy_recurrent(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop | None:
    if c.gradients or precision != "float32":
        return None
    xp, cell = arrays(on_gpu), CELLS[type(c).__name__]
    x, W, U, b, zeros = map(xp.asarray, (c.x, c.W, c.U, c.b, c.zeros()))
    W, U = factor(W), factor(U)

    def run(n: int) -> Any:
        z = (x[:n].reshape(-1, x.shape[2]) @ W + b).reshape(n, len(zeros), -1)
        hs = xp.empty((n, *zeros.shape), "float32")
        state = (zeros,) * c.n_states
        for t in range(n):
            state = cell(xp, state, z[t], U)
            hs[t] = state[0]
        return hs

    return Loop(run, lambda hs: {"h": on_host(hs)})


def cupy_layer_norm(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop | None:
    if c.gradients:
        return None
    xp = arrays(on_gpu)
    W, U, b, gain = (xp.asarray(c.values[name]) for name in ("W", "U", "b", "gain"))
    x, mask, kept, h0, c0 = map(xp.asarray, layer_norm_given(c))
    W, U = factor(W), factor(U)

    def run(n: int) -> Any:
        z = (x[:n].reshape(-1, x.shape[2]) @ W + b).reshape(n, len(h0), -1)
        hs, state = xp.empty((n, *h0.shape), "float32"), (h0, c0)
        for t in range(n):
            state = layer_norm_lstm(xp, state, z[t], mask[t], kept[t], U, gain)
            hs[t] = state[0]
        return hs

    return Loop(run, lambda hs: {"h": on_host(hs)})


def cupy_metropolis(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop:
    xp, draws = arrays(on_gpu), arrays(on_gpu).random.default_rng(1)
    x0 = xp.asarray(c.values["x0"])

    def run(n: int) -> Any:
        x = x0
        for _ in range(n):
            normal = draws.standard_normal(x.shape, dtype="float32")
            x = metropolis(xp, x, normal, draws.random(x.shape, dtype="float32"))
        return x

    return Loop(run, lambda x: c.result({"x": on_host(x)}))


def cupy_hmc(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop:
    xp, draws = arrays(on_gpu), arrays(on_gpu).random.default_rng(1)
    q0 = xp.asarray(c.values["q0"])

    def run(n: int) -> Any:
        q = q0
        for _ in range(n):
            p = draws.standard_normal(q.shape, dtype="float32")
            q = hmc(xp, q, p, draws.random(len(q), dtype="float32"))
        return q

    return Loop(run, lambda q: c.result({"q": on_host(q)}))


def cupy_gibbs(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop:
    xp, draws = arrays(on_gpu), arrays(on_gpu).random.default_rng(1)
    start, W, *given = map(xp.asarray, (c.v, c.W, c.bvis, c.bhid))
    given = [factor(W), *given]

    def run(n: int) -> Any:
        v = start
        for _ in range(n):
            below = draws.random(v.shape, dtype="float32")
            above = draws.random((len(v), c.bhid.size), dtype="float32")
            p, v = gibbs(xp, v, below, above, given)
        return p, v

    return Loop(run, lambda found: c.statistics(*map(on_host, found)))


def cupy_hmm(c: Any, precision: str, on_gpu: bool, factor: Factors = same) -> Loop:
    xp = arrays(on_gpu)
    seen, first, A, B = map(xp.asarray, (c.values["seen"], *hmm_given(c)))
    A = factor(A)

    def run(n: int) -> Any:
        a, found = first, xp.empty((n, seen.shape[1]), "float32")
        for t in range(n):
            a, found[t] = hmm(xp, a, seen[t], A, B)
        return found

    return Loop(run, lambda found: {"likelihood": on_host(found)})


CUPY: dict[str, Callable[..., Loop | None]] = {
    **dict.fromkeys(CELLS, cupy_recurrent),
    "LayerNormLSTM": cupy_layer_norm,
    "LayerNormLSTMGradients": cupy_layer_norm,
    "Metropolis": cupy_metropolis,
    "HMC": cupy_hmc,
    "Gibbs": cupy_gibbs,
    "HMM": cupy_hmm,
}


# ---- a CUDA graph of CuPy's loop -----------------------------------------------------------------


def cupy_graph(c: Any, precision: str, on_gpu: bool) -> Loop | None:
    """The loop above, captured once for each number of steps and replayed."""
    import cupy

    cuda = cupy.cuda
    loop = CUPY[type(c).__name__](c, precision, on_gpu, Captured)
    if loop is None:
        return None
    pool = cuda.MemoryPool()  # what the graphs write to, which nobody else may get
    stream = cuda.Stream(non_blocking=True)  # the default one can't be captured
    graphs: dict[int, Any] = {}

    def captured(n: int) -> Any:
        cuda.Device().synchronize()
        with cuda.using_allocator(pool.malloc), stream, without_collector():
            loop.run(2)  # compiles what is to be captured
            stream.synchronize()
            stream.begin_capture()
            try:
                found = loop.run(n)
            except BaseException:
                with contextlib.suppress(Exception):
                    stream.end_capture()  # fails, as the capture has
                raise
            return stream.end_capture(), found

    def run(n: int) -> Any:
        if n not in graphs:
            graphs[n] = captured(n)
        graph, found = graphs[n]
        graph.launch()
        return found

    return Loop(run, loop.host)


class Captured:
    """Weights whose products are cuBLAS's, called past CuPy, which refuses them while a stream is
    captured."""

    __array_ufunc__ = None  # x @ weights asks us, not x

    def __init__(self, weights: Any, transposed: bool = False) -> None:
        self.weights, self.transposed = weights, transposed

    @property
    def T(self) -> Captured:
        return Captured(self.weights, not self.transposed)

    def __rmatmul__(self, x: Any) -> Any:
        import cupy

        rows, depth = x.shape
        columns = self.weights.shape[0 if self.transposed else 1]
        x, found = cupy.ascontiguousarray(x), cupy.empty((rows, columns), "float32")
        library, handle, workspace = cublas()
        stream = ctypes.c_void_p(cupy.cuda.get_current_stream().ptr)
        pointers = [ctypes.c_void_p(a.data.ptr) for a in (self.weights, x, found, workspace)]
        one, zero = ctypes.byref(ctypes.c_float(1)), ctypes.byref(ctypes.c_float(0))
        # the workspace is the stream's, so that nothing is allocated while it is captured
        statuses = [
            library.cublasSetStream_v2(handle, stream),
            library.cublasSetWorkspace_v2(handle, pointers[3], ctypes.c_size_t(workspace.nbytes)),
            # cuBLAS has columns where we have rows: it computes weights.T @ x.T
            library.cublasSgemm_v2(
                handle, int(self.transposed), 0, columns, rows, depth, one, pointers[0],
                self.weights.shape[1], pointers[1], depth, zero, pointers[2], columns,
            ),
        ]  # fmt: skip
        if any(statuses):
            raise RuntimeError(f"cuBLAS returns {max(statuses)}")
        return found


@functools.cache
def cublas() -> tuple[Any, Any, Any]:
    """cuBLAS as CuPy has loaded it, a handle, and memory for it to work in."""
    import cupy

    ones = cupy.ones((2, 2), "float32")
    ones @ ones  # loads the library
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    library, handle = ctypes.CDLL(f"libcublas.so.{major}"), ctypes.c_void_p()
    if status := library.cublasCreate_v2(ctypes.byref(handle)):
        raise RuntimeError(f"cuBLAS returns {status}")
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        return library, handle, cupy.empty(32 << 20, "uint8")


MAKERS: dict[str, Mapping[str, Callable[..., Loop | None]]] = {
    "PyTorch": TORCH,
    "PyTorch scan": TORCH_SCAN,
    "JAX": JAX,
    UNROLLED: {name: functools.partial(make, unroll=UNROLL) for name, make in JAX.items()},
    "CuPy": CUPY,
    "CuPy graph": dict.fromkeys(CUPY, cupy_graph),
    "FlashRNN": dict.fromkeys(CELLS, flashrnn),
    "Haste": dict.fromkeys(("LSTM", "GRU"), haste),
}
