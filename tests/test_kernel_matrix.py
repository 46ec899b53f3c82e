"""The kernels of the named models for GPUs: their texts, and what NVRTC makes of them.

A selection; `python -m benchmarks.kernels` has them all. GPUSCAN_REWRITE_GOLDEN=1 writes the texts
in tests/golden anew, to be read before they are kept.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MODELS

import gpuscan
from benchmarks.kernels import SIZES, TARGETS, Code, Kernel, kernels
from gpuscan import explain
from gpuscan import tensor as T
from gpuscan.codegen.limits import of
from gpuscan.codegen.persistent import launch_of
from gpuscan.codegen.program import Launch
from gpuscan.kernel_files import kernels_dir
from gpuscan.record import replace as record_replace
from gpuscan.runtime import nvrtc, sass

GOLDEN = Path(__file__).parent / "golden"

# ---- texts ---------------------------------------------------------------------------------------

TEXTS = {
    "thread": [("elman", 2), ("metropolis", 1), ("leapfrog", 2), ("hmm", 2), ("power", 1)],
    "block": [
        ("elman", 32), ("lstm", 32), ("gru_reset_after", 32), ("layer_norm_lstm", 32),
        ("gibbs", 32), ("hmc", 2),
    ],
    "grid": [("elman", 256), ("lstm", 256), ("gru_reset_before", 256), ("gibbs", 256)],
}  # fmt: skip


@cache
def texts(scope: str, name: str, hidden: int) -> dict[str, str]:
    """The kernels that a model has in a scope, by the names of their files."""
    batch = 4096 if scope == "thread" else 16
    found = kernels(MODELS[name](hidden), batch, "h100", scope)
    return {
        f"{name}_{k.part}_{scope}.cu": k.launch.source for k in found if k.launch.scope == scope
    }


@pytest.mark.parametrize(
    ("scope", "name", "hidden"), [(scope, *x) for scope, found in TEXTS.items() for x in found]
)
def test_the_text(scope: str, name: str, hidden: int) -> None:
    found = texts(scope, name, hidden)
    assert found
    if os.environ.get("GPUSCAN_REWRITE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        for file, text in found.items():
            (GOLDEN / file).write_text(text)
    kept = {p.name: p.read_text() for p in GOLDEN.glob(f"{name}_*_{scope}.cu")}
    assert found == kept, "GPUSCAN_REWRITE_GOLDEN=1 writes the texts anew"


def test_every_kept_text_is_compared() -> None:
    known = {file for scope, x in TEXTS.items() for m in x for file in texts(scope, *m)}
    assert {p.name for p in GOLDEN.iterdir()} == known


def sources(f: Any, monkeypatch: pytest.MonkeyPatch, *values: Any) -> list[str]:
    """The texts of a function's kernels on an h100."""
    found: list[str] = []

    def noted(*arguments: Any) -> Launch:
        launch = launch_of(*arguments)
        found.append(launch.source)
        return launch

    f(*values)
    monkeypatch.setattr(explain, "launch_of", noted)
    f.explain("h100")
    return found


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_names_of_the_user_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: of operands, of states and their cotangents, and on the way."""
    weights = gpuscan.shared(np.zeros((64, 64), "float32"), "weights")
    bias = gpuscan.shared(np.zeros(64, "float32"), "bias")
    x, start = T.ftensor3("inputs"), T.fmatrix("start")

    def step(x: Any, h: Any) -> Any:
        before = x + h @ weights + bias
        gate = T.nnet.sigmoid(before)
        state = gate * T.tanh(before) + (1 - gate) * h
        before.name, gate.name, state.name = "before", "gate", "state"
        return state

    h, _ = gpuscan.scan(step, x, start)
    outputs = [h, T.grad((h**2).sum(), weights)]
    f = gpuscan.function([x, start], outputs, device="reference")
    values = np.zeros((2, 4, 64), "float32"), np.zeros((4, 64), "float32")
    forward, backward = map(words, sources(f, monkeypatch, *values))
    assert forward >= {"inputs", "weights", "bias", "start_0", "state", "state_value"}
    assert forward >= {"before", "gate"}
    assert backward >= {"start", "gate", "weights_T", "state_grad", "state_grad_now"}


def test_a_name_that_is_taken_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the user, twice, or by kernels."""
    x, h0 = T.fmatrix("x"), T.fvector("group")

    def step(x: Any, h: Any) -> Any:
        a, b, c = T.exp(h), T.sin(h), T.cos(x)
        a.name, b.name, c.name = "same", "same", "rows"
        return a * b * c

    h, _ = gpuscan.scan(step, x, h0)
    f = gpuscan.function([x, h0], h, device="reference")
    (text,) = sources(f, monkeypatch, np.zeros((2, 4), "float32"), np.zeros(4, "float32"))
    named = re.findall(r"const float (\w+) =", text)
    assert len(set(named)) == len(named)
    assert {"same", "same_value", "rows_value"} <= {*named}


# ---- what becomes of them ------------------------------------------------------------------------

# On each GPU a kernel of each scope, and of all the others one.
EVERYWHERE = (("elman", 2, 4096), ("elman", 32, 16), ("lstm", 256, 16))
OTHERS = [
    (name, *size) for name, sizes in SIZES.items() for size in sizes
    if (name, *size) not in EVERYWHERE
]  # fmt: skip
# Products of rounded factors: each type, and an architecture that has only one of them.
PRECISE = [
    (("elman", 1024, 16, "tf32"), "rtx4090"), (("lstm", 256, 16, "bf16"), "h100"),
    (("gru_reset_before", 256, 16, "fp16"), "t4"), (("elman", 256, 16, "bf16"), "rtx5090"),
]  # fmt: skip
CASES = [
    *((x, target) for x in EVERYWHERE for target in TARGETS),
    *((x, TARGETS[-1 - k % len(TARGETS)]) for k, x in enumerate(OTHERS)),
    (("lstm", 1024, 16), "rtx3090"), (("gru_reset_after", 1024, 16), "h100"),  # nearly too large
    *PRECISE,
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "target"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x))
)
def test_a_kernel(case: tuple[Any, ...], target: str) -> None:
    if reason := nvrtc.missing():
        pytest.skip(reason)
    for k in kernels_of(case, target):
        assert k.misses() == {}, k.name


def kernels_of(case: tuple[Any, ...], target: str) -> list[Kernel]:
    name, hidden, batch, *precision = case
    return kernels(MODELS[name](hidden), batch, target, "", *precision)


@pytest.mark.parametrize("target", TARGETS)
def test_every_scope_is_among_them(target: str) -> None:
    scopes = {(k.launch.scope, k.part) for case in EVERYWHERE for k in kernels_of(case, target)}
    assert {s for s, _ in scopes} == {"thread", "block", "grid"}
    assert len(scopes) == 6


# ---- what a gate has to find -------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound() -> Kernel:
    """A kernel whose blocks meet, and which misses nothing."""
    if reason := nvrtc.missing():
        pytest.skip(reason)
    found = kernels(MODELS["elman"](256), 16, "rtx4090")[0]
    assert found.launch.scope == "grid" and found.misses() == {}
    return found


def planted(k: Kernel, **changes: Any) -> dict[str, Any]:
    """What the kernel misses with another launch."""
    return replace(k, launch=record_replace(k.launch, **changes)).misses()


def with_grid_header(k: Kernel, words: str, others: str) -> str:
    """The kernel's text with other words in kernels/grid.h."""
    text = (kernels_dir() / "grid.h").read_text()
    assert words in text
    return text.replace(words, others) + k.launch.source


@pytest.mark.parametrize(
    ("words", "others"),
    [
        ("red.release.gpu", "red.release.cta"), ("red.release.gpu", "red.relaxed.gpu"),
        ("ld.acquire.gpu", "ld.acquire.cta"), ("ld.acquire.gpu", "ld.relaxed.gpu"),
    ],
)  # fmt: skip
def test_a_meeting_of_less_than_the_gpu_is_seen(words: str, others: str, sound: Kernel) -> None:
    if sound.code is None:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    found = planted(sound, source=with_grid_header(sound, words, others))
    assert set(found) == {"releases, arrivals, acquires"}


def test_a_grid_that_is_not_there_at_once_is_seen(sound: Kernel) -> None:
    room = sound.together * sound.gpu.multiprocessors
    assert planted(sound, grid=room) == {}
    assert planted(sound, grid=room + 1) == {"does not fit": True}
    assert planted(sound, grid=room + 1, cooperative=False) == {}
    assert planted(sound, shared=sound.gpu.shared_block + 1)["does not fit"]


def test_spills_and_a_stack_are_seen(sound: Kernel) -> None:
    bounds = f"__launch_bounds__({sound.launch.block}"
    assert bounds in sound.launch.source
    source = sound.launch.source.replace(bounds, "__launch_bounds__(1024")
    assert {"spills", "stack"} <= set(planted(sound, source=source))


def test_a_copy_that_nobody_waits_for_is_seen(sound: Kernel) -> None:
    if sound.code is None:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    source = sound.launch.source.replace("gs_copied();", "")
    assert source != sound.launch.source
    assert planted(sound, source=source) == {"copies that nobody waits for": True}


def test_a_meeting_too_many_is_seen(sound: Kernel) -> None:
    assert planted(sound, meetings=sound.launch.meetings + 1)["meetings"] == 2


PLANTED = """
static __device__ __noinline__ float far(const float *w, long long i) { return w[i] + w[i + 3]; }

extern "C" __global__ void planted(const float *__restrict__ w, const float *__restrict__ x,
        float *y, long long last) {
    float held = w[threadIdx.x];
    _Pragma("unroll 20") /* longer than what follows, and no step */
    for (int i = 0; i < 200; i++)
        held = __sinf(held) * w[i * 3] + __cosf(held) / w[i * 5] + __expf(w[i * 7]) / held;
    for (long long t = 0; t < last; t++) {
        y[t * 32 + threadIdx.x] = x[t * 32 + threadIdx.x] * (AGAIN);
        __syncthreads();
    }
}
"""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("again", "loads"), [("held", 0), ("held + w[t % 7]", 1), ("held + far(w, t)", 1)]
)
def test_a_weight_that_is_read_again_is_seen(again: str, loads: int, target: str) -> None:
    if reason := nvrtc.missing():
        pytest.skip(reason)
    source = PLANTED.replace("AGAIN", again)
    launch = Launch("planted", source, (), 1, 32, 0, False, "block", "", 0)
    cubin = nvrtc.compile(source, of(target).architecture)
    text = sass.disassemble(cubin)
    if text is None:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    code = Code(text, launch, cubin.resources["planted"].constant)
    parts = sass._components(code.flow, set(range(len(code.flow))))
    assert len(code.turn) < max(map(len, parts)) and code.count("BAR")
    assert (code.loads("w") > 0, code.loads("x") > 0, code.loads("y")) == (loads > 0, True, 0)
