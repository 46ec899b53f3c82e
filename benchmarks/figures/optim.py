"""What PyTorch's and Optax's optimizers make of a small problem: python -m benchmarks.figures.optim

It writes tests/figures/optim.json. With --check it writes nothing, and fails where what is stored
is not what these libraries, and gpuscan, compute today. All start from the same numbers and see the
same gradients, those of mean((tanh(x W + b) - y)^2).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).resolve().parents[2] / "tests" / "figures" / "optim.json"
STEPS = 20
DTYPES = ("float32", "float64")

# How each case is called: gpuscan's function with its arguments, PyTorch's class and Optax's
# function with theirs. `schedule` names an entry of SCHEDULES, `clip` is the global norm's bound.
CASES: dict[str, dict[str, Any]] = {
    "sgd": dict(
        ours=("sgd", dict(learning_rate=0.5)),
        torch=("SGD", dict(lr=0.5)),
        optax=("sgd", dict(learning_rate=0.5)),
    ),
    "momentum": dict(
        ours=("momentum", dict(learning_rate=0.1, momentum=0.8)),
        torch=("SGD", dict(lr=0.1, momentum=0.8)),
        optax=("sgd", dict(learning_rate=0.1, momentum=0.8)),
    ),
    "nesterov": dict(
        ours=("nesterov", dict(learning_rate=0.1, momentum=0.8)),
        torch=("SGD", dict(lr=0.1, momentum=0.8, nesterov=True)),
        optax=("sgd", dict(learning_rate=0.1, momentum=0.8, nesterov=True)),
    ),
    "adagrad": dict(ours=("adagrad", {}), torch=("Adagrad", {})),
    "adagrad from 0.1": dict(
        ours=("adagrad", dict(learning_rate=0.1, start=0.1)),
        torch=("Adagrad", dict(lr=0.1, initial_accumulator_value=0.1)),
    ),
    "adagrad, epsilon in the root": dict(
        ours=(
            "adagrad",
            dict(learning_rate=0.1, start=0.1, epsilon=1e-3, epsilon_in_root=True),
        ),
        optax=("adagrad", dict(learning_rate=0.1, initial_accumulator_value=0.1, eps=1e-3)),
    ),
    "adadelta": dict(
        ours=("adadelta", {}),
        torch=("Adadelta", {}),
        optax=("adadelta", dict(learning_rate=1.0)),
    ),
    "rmsprop": dict(ours=("rmsprop", {}), torch=("RMSprop", {})),
    "rmsprop, centered, with momentum": dict(
        ours=("rmsprop", dict(learning_rate=0.01, rho=0.9, centered=True, momentum=0.5)),
        torch=("RMSprop", dict(lr=0.01, alpha=0.9, centered=True, momentum=0.5)),
        optax=(
            "rmsprop",
            dict(learning_rate=0.01, decay=0.9, centered=True, momentum=0.5, eps_in_sqrt=False),
        ),
    ),
    "rmsprop, epsilon in the root": dict(
        ours=("rmsprop", dict(learning_rate=0.01, rho=0.9, epsilon=1e-4, epsilon_in_root=True)),
        optax=("rmsprop", dict(learning_rate=0.01, decay=0.9, eps=1e-4)),
    ),
    "adam": dict(ours=("adam", {}), torch=("Adam", {}), optax=("adam", dict(learning_rate=0.001))),
    "adam, all arguments": dict(
        ours=("adam", dict(learning_rate=0.05, beta1=0.7, beta2=0.95, epsilon=1e-3)),
        torch=("Adam", dict(lr=0.05, betas=(0.7, 0.95), eps=1e-3)),
        optax=("adam", dict(learning_rate=0.05, b1=0.7, b2=0.95, eps=1e-3)),
    ),
    "adamw": dict(
        ours=("adamw", {}),
        torch=("AdamW", {}),
        optax=("adamw", dict(learning_rate=0.001, weight_decay=0.01)),
    ),
    "adamw, all arguments": dict(
        ours=(
            "adamw",
            dict(learning_rate=0.05, beta1=0.7, beta2=0.95, epsilon=1e-3, weight_decay=0.3),
        ),
        torch=("AdamW", dict(lr=0.05, betas=(0.7, 0.95), eps=1e-3, weight_decay=0.3)),
        optax=("adamw", dict(learning_rate=0.05, b1=0.7, b2=0.95, eps=1e-3, weight_decay=0.3)),
    ),
    "clipped": dict(
        ours=("sgd", dict(learning_rate=0.5)),
        torch=("SGD", dict(lr=0.5)),
        clip=0.1,
    ),
    **{
        name: dict(
            ours=("momentum", dict(momentum=0.8)),
            torch=("SGD", dict(momentum=0.8)),
            optax=("sgd", dict(momentum=0.8)),
            schedule=name,
        )
        for name in ("exponential", "step", "warm-up", "cosine", "warm-up, then cosine")
    },
}


def ours(name: str) -> Any:
    """A schedule of gpuscan."""
    from gpuscan import optim

    made = {
        "exponential": lambda: optim.exponential_decay(0.3, 0.9),
        "step": lambda: optim.step_decay(0.3, 0.5, 6),
        "warm-up": lambda: optim.linear_warmup(0.3, 8, 0.03),
        "cosine": lambda: optim.cosine_decay(0.3, STEPS, 0.01),
        "warm-up, then cosine": lambda: optim.join_schedules(
            [optim.linear_warmup(0.3, 8, 0.03), optim.cosine_decay(0.3, 12)], [8]
        ),
    }
    return made[name]()


def of_torch(name: str, optimizer: Any) -> Any:
    """The same of PyTorch, whose optimizer has the rate 0.3."""
    from torch.optim import lr_scheduler as lr

    def warm_up() -> Any:
        return lr.LinearLR(optimizer, start_factor=0.1, total_iters=8)

    made = {
        "exponential": lambda: lr.ExponentialLR(optimizer, 0.9),
        "step": lambda: lr.StepLR(optimizer, 6, 0.5),
        "warm-up": warm_up,
        "cosine": lambda: lr.CosineAnnealingLR(optimizer, STEPS, 0.01),
        "warm-up, then cosine": lambda: lr.SequentialLR(
            optimizer, [warm_up(), lr.CosineAnnealingLR(optimizer, 12)], [8]
        ),
    }
    return made[name]()


def of_optax(name: str) -> Any:
    import optax

    warm_up = optax.linear_schedule(0.03, 0.3, 8)
    return {
        "exponential": optax.exponential_decay(0.3, 1, 0.9),
        "step": optax.exponential_decay(0.3, 6, 0.5, staircase=True),
        "warm-up": warm_up,
        "cosine": optax.cosine_decay_schedule(0.3, STEPS, 0.01 / 0.3),
        "warm-up, then cosine": optax.join_schedules(
            [warm_up, optax.cosine_decay_schedule(0.3, 12)], [8]
        ),
    }[name]


# ---- the problem ---------------------------------------------------------------------------------


def problem(dtype: str) -> dict[str, np.ndarray]:
    """Data x (8, 3) and y (8, 4), parameters W (3, 4) and b (4,)."""
    draws = np.random.default_rng(5)
    sizes = {"x": (8, 3), "y": (8, 4), "W": (3, 4), "b": (4,)}
    found = {name: draws.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    return {name: value.astype(dtype) for name, value in found.items()}


def by_torch(case: Mapping[str, Any], start: Mapping[str, np.ndarray]) -> list[list[float]]:
    """W and b in one row, after each step."""
    import torch

    x, y, W, b = (torch.from_numpy(start[k].copy()) for k in "xyWb")
    params = [torch.nn.Parameter(W), torch.nn.Parameter(b)]
    kind, arguments = case["torch"]
    scheduled = case.get("schedule")
    optimizer = getattr(torch.optim, kind)(
        params, **({"lr": 0.3} if scheduled else {}), **arguments
    )
    schedule = of_torch(scheduled, optimizer) if scheduled else None
    rows = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((torch.tanh(x @ params[0] + params[1]) - y) ** 2).mean()
        loss.backward()
        if "clip" in case:
            torch.nn.utils.clip_grad_norm_(params, case["clip"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
        rows.append(_row(p.detach().numpy() for p in params))
    return rows


def by_optax(case: Mapping[str, Any], start: Mapping[str, np.ndarray]) -> list[list[float]]:
    """W and b in one row, after each step."""
    import jax
    import optax

    with jax.enable_x64(True):
        x, y, W, b = (jax.numpy.asarray(start[k]) for k in "xyWb")
        params = (W, b)
        kind, arguments = case["optax"]
        if scheduled := case.get("schedule"):
            arguments = dict(arguments, learning_rate=of_optax(scheduled))
        method = getattr(optax, kind)(**arguments)

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            def loss(params: Any) -> Any:
                return ((jax.numpy.tanh(x @ params[0] + params[1]) - y) ** 2).mean()

            updates, state = method.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        state, rows = method.init(params), []
        for _ in range(STEPS):
            params, state = step(params, state)
            rows.append(_row(map(np.asarray, params)))
    return rows


def by_gpuscan(device: str | None = None) -> dict[str, dict[str, list[list[float]]]]:
    """Per case and dtype W and b in one row, after each step: all of them in one function."""
    import gpuscan
    from gpuscan import optim
    from gpuscan import tensor as T

    updates = gpuscan.OrderedUpdates()
    params: dict[str, dict[str, list[Any]]] = {}
    for name, case in CASES.items():
        method, arguments = case["ours"]
        if scheduled := case.get("schedule"):
            arguments = dict(arguments, learning_rate=ours(scheduled))
        for dtype in DTYPES:
            start = problem(dtype)
            W, b = own = [gpuscan.shared(start[k], k) for k in "Wb"]
            errors = T.tanh(T.dot(start["x"], W) + b) - start["y"]
            loss = (errors**2).sum() / T.constant(start["y"].size, dtype=dtype)
            given: Any = loss
            if "clip" in case:
                given, _ = optim.clip_by_global_norm(T.grad(loss, own), case["clip"])
            updates += getattr(optim, method)(given, own, **arguments)
            params.setdefault(name, {})[dtype] = own
    train = gpuscan.function([], updates=updates, device=device)
    rows: Any = {name: {dtype: [] for dtype in DTYPES} for name in CASES}
    for _ in range(STEPS):
        train()
        for name, by_dtype in params.items():
            for dtype, own in by_dtype.items():
                rows[name][dtype].append(_row(p.get_value() for p in own))
    return rows


def _row(arrays: Any) -> list[float]:
    return [float(x) for a in arrays for x in a.ravel()]


# ---- the file ------------------------------------------------------------------------------------

PEERS: dict[str, Callable[..., list[list[float]]]] = {"torch": by_torch, "optax": by_optax}
TOLERANCE = {"float32": (2e-5, 2e-6), "float64": (1e-11, 1e-12)}  # relative, absolute
KEPT = (0, 4, STEPS - 1)  # the steps after which parameters are stored


def dtypes(case: Mapping[str, Any], peer: str) -> tuple[str, ...]:
    """Those in which a library is compared with: Optax computes schedules in float32."""
    return DTYPES[:1] if peer == "optax" and "schedule" in case else DTYPES


def figures() -> dict[str, Any]:
    """Per case, library and dtype: the parameters after some of the steps."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        for peer, by in PEERS.items():
            for dtype in dtypes(case, peer) if peer in case else ():
                rows = by(case, problem(dtype))
                found.setdefault(name, {}).setdefault(peer, {})[dtype] = [rows[k] for k in KEPT]
    return found


def by_ours(device: str | None = None) -> dict[str, Any]:
    """The same by gpuscan, which is to equal each of the libraries."""
    found: dict[str, Any] = {}
    for name, rows in by_gpuscan(device).items():
        case, kept = CASES[name], {dtype: [rows[dtype][k] for k in KEPT] for dtype in DTYPES}
        found[name] = {
            peer: {dtype: kept[dtype] for dtype in dtypes(case, peer)}
            for peer in PEERS
            if peer in case
        }
    return found


def origin() -> dict[str, str]:
    import jax
    import optax
    import torch

    return {
        "command": "python -m benchmarks.figures.optim",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "optax": optax.__version__,
        "jax": jax.__version__,
    }


def stored() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is not equal, to TOLERANCE: a line each."""
    lines = [f"{name}: not in both" for name in sorted(set(found) ^ set(expected))]
    for name in sorted(set(found) & set(expected)):
        for peer, by_dtype in found[name].items():
            for dtype, rows in by_dtype.items():
                relative, absolute = TOLERANCE[dtype]
                there = np.asarray(expected[name][peer][dtype])
                gap = np.abs(np.asarray(rows) - there) - absolute - relative * np.abs(there)
                if not gap.max() <= 0:
                    lines.append(f"{name}: {peer}, {dtype}, by {gap.max():.1e} too much")
    return lines


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m benchmarks.figures.optim")
    p.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = p.parse_args(arguments)
    new, mine = figures(), by_ours()
    wrong = [f"gpuscan differs in {line}" for line in differences(mine, new)]
    if options.check:
        wrong += [f"stored differs in {line}" for line in differences(new, stored()["cases"])]
    print("\n".join(wrong) or f"{len(new)} cases, all equal")
    if not wrong and not options.check:
        text = json.dumps({"origin": origin(), "steps": [k + 1 for k in KEPT], "cases": new})
        FILE.write_text(text + "\n")
        print(f"wrote {FILE}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
