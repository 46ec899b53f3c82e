"""The README's program prints what the page says, and CI runs the README's commands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.config import _SETTINGS
from gpuscan.runtime import compiler

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [text for language, text in BLOCKS if language == "sh"]


def test_the_program_has_ten_lines():
    assert len([line for line in PROGRAMS[0].splitlines() if line.strip()]) == 10


def test_the_program_prints_what_the_page_says():
    (printed,) = [text for language, text in BLOCKS if not language]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAMS[0]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.stderr) == (printed, "")


@pytest.mark.parametrize("program", PROGRAMS[1:], ids=["train", "mc"])
def test_a_program_prints_its_last_comment(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    last = program.splitlines()[-1]
    assert last.startswith("# ")
    assert (done.stdout, done.stderr) == (f"{last[2:]}\n", "")


def test_the_page_shows_the_one_line_that_several_processes_change():
    """The line that goes is one of its programs', but for what stands around it."""
    (text,) = [text for language, text in BLOCKS if language == "diff"]
    old, new = text.splitlines()
    assert old[2:].removeprefix("grads = ") in PROGRAMS[1]
    assert new[2:].startswith("grads = comm.all_reduce(" + old[2:].removeprefix("grads = "))


def test_gibbs_sampling_is_explained_as_the_page_says():
    if compiler.find() is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    W, a, b, start = T.fmatrix(), T.fvector(), T.fvector(), T.fmatrix()
    random = T.shared_randomstreams.RandomStreams(1)

    def draw(p):
        return random.binomial(size=p.shape, p=p, dtype="float32")

    def step(v):
        h = draw(T.nnet.sigmoid(v @ W + b))
        return draw(T.nnet.sigmoid(h @ W.T + a))

    v, updates = gpuscan.scan(step, outputs_info=start, n_steps=9, name="gibbs")
    f = gpuscan.function([start, W, a, b], v[-1], updates=updates, device="native")
    here, on_a_gpu = [text for language, text in BLOCKS if language == "text"]
    assert f"{f.explain()}\n" == here
    f(*[np.zeros(shape, "float32") for shape in ((20, 784), (784, 500), 784, 500)])
    assert without_compiler(f"{f.explain(target='h100')}\n") == without_compiler(on_a_gpu)


def without_compiler(text):
    """What does not depend on which NVRTC there is, if any."""
    text = re.sub(r"\d+ registers a thread, no spills, ", "", text)
    return re.sub(r"^ +not compiled.*\n", "", text, flags=re.MULTILINE)


def test_ci_runs_the_two_commands_of_the_page():
    assert len(COMMANDS) == 2
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert all(command.count("\n") == 1 for command in COMMANDS)
    assert all(command.rstrip("\n") in script for command in COMMANDS)


def test_the_settings_of_the_page_are_settings_with_these_defaults():
    table = PAGE.partition("## Settings")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))
    assert rows
    assert rows == {name: str(_SETTINGS[name][0]) for name in rows}
