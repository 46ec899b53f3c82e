"""Very many steps, alone and by two processes at once: on a GPU, of blocks that meet in each."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.runtime.device import select

HIDDEN = 64
MANY, FEW = 10**6, 500  # steps; few where NumPy computes them, or one core runs all blocks by turns

PROGRAM = """
import sys
import test_soak

run = test_soak.network(sys.argv[1])
run(1)
print("built", flush=True)
sys.stdin.readline()
print(test_soak.digest(run(int(sys.argv[2]))))
"""


def network(device):
    """The last state of an Elman network, by the number of steps. Two states come nearer with each
    step, so no error grows; phases go round, so no state stays."""
    if hasattr(select(device), "scope"):
        type(select(device)).scope = "grid"
    rng = np.random.default_rng(1)
    U = gpuscan.shared((0.5 * np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))[0]).astype("float32"))
    b, phase = rng.normal(size=HIDDEN).astype("float32"), np.float32([[0.1], [0.2]])
    n = T.lscalar("n")
    (h, _), _ = gpuscan.scan(
        lambda h, a, U: (T.tanh(h @ U + b * T.cos(a)), (a + phase) % np.float32(6)),
        outputs_info=[T.zeros((2, HIDDEN), "float32"), T.zeros((2, 1), "float32")],
        non_sequences=U, n_steps=n,
    )  # fmt: skip
    return gpuscan.function([n], h[-1], device=device)


def digest(x):
    return hashlib.sha256(x.tobytes()).hexdigest()


@pytest.fixture
def scope(device):
    """What the device had for `scope` comes back."""
    kind = type(select(device))
    before = getattr(kind, "scope", None)
    yield
    if before is not None:
        kind.scope = before


@pytest.mark.usefixtures("scope")
def test_very_many_steps_give_the_same_bits_alone_and_beside_another_process(device):
    real = device in ("cupy", "pycuda") and "GPUSCAN_STAND_IN_DRIVER" not in os.environ
    steps = MANY if real or device == "native" else FEW
    run = network(device)
    alone = run(steps)
    assert digest(run(steps)) == digest(alone)
    expected = network("native" if steps == MANY else "reference")(steps)
    # sums in another order: 32 roundings, and as much again of the steps before
    np.testing.assert_allclose(alone, expected, rtol=0, atol=64 * 2.0**-24)

    command = [sys.executable, "-c", PROGRAM, device, str(steps)]
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    both = [
        subprocess.Popen(command, env=os.environ | {"PYTHONPATH": places}, text=True, **pipes)
        for _ in range(2)
    ]
    try:
        assert [p.stdout.readline() for p in both] == ["built\n"] * 2
        for p in both:
            p.stdin.write("go\n")
            p.stdin.flush()
        for p in both:
            said, wrong = p.communicate(timeout=200)
            # two grids may not fit a GPU at once: then one says so, and none hangs
            assert said.strip() == digest(alone) or (real and "waited in vain" in wrong), wrong
    finally:
        for p in both:
            p.kill()
            p.communicate()
