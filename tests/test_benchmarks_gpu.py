"""The GPU's benchmark runs as a whole where there is no GPU, on the emulated one: every kind of
case, its tables, its JSON, its picture. No time of such a run looks like a GPU's."""

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, gpu_cases, gpu_micro, peer_gpu, peer_numpy
from benchmarks.cases import mismatch
from benchmarks.gpu import OURS, Measurement, Report, Row, Version
from gpuscan import explain
from gpuscan.codegen.limits import of
from gpuscan.runtime import emulator, nvrtc
from gpuscan.runtime.device import no_gpu, select

ROOT = Path(__file__).parents[1]
needs_emulator = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
CASES = gpu_cases.tiny()


def named(text: str) -> gpu_cases.GpuCase:
    return next(c for c in CASES if c.name.startswith(text))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All of a tiny run, with NumPy as the only peer: the others take a minute to compile."""
    if reason := emulator.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("gpu")
    files = {"json": folder / "found.json", "picture": folder / "found.png"}
    options = [f"--{name}={path}" for name, path in files.items()]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as told:
        patch.setattr(peer_gpu, "PEERS", ("CuPy", "Nobody"))
        patch.setitem(peer_gpu.MODULES, "Nobody", "no_such_module")
        # what the compiler for a GPU makes of kernels is not asked for: it takes as long again
        patch.setattr(explain, "_compiled", lambda launch, limits, plan: plan)
        status = gpu.main(["--device=emulated", "--tiny", *options])
    found = json.loads(files["json"].read_text())
    return SimpleNamespace(status=status, text=told.getvalue(), found=found, **files)


def test_every_case_has_a_row(run: Any) -> None:
    assert run.status == 0, run.text
    assert [c["name"] for c in run.found["cases"]] == [c.name for c in CASES]
    for case, found in zip(CASES, run.found["cases"]):
        assert run.text.count(f"| {case.text} ") == 2
        ours = found["versions"][0]
        assert ours["name"] == OURS and ours["problem"] is None
        assert set(ours["samples"]) == {str(n) for n in case.lengths}
        assert found["predicted a step"] > found["floor a step"] > 0
        assert found["scopes"] and "predicted, not measured" in found["explanation"]


def test_what_bounds_meetings_is_measured_alone(run: Any) -> None:
    found = run.found["micro"]
    assert [x["name"] for x in found] == [m.name for m in gpu_micro.chosen(tiny=True)]
    for x in found:
        assert x["blocks"] and x["times"] == gpu.EMULATED
        assert x["problem"] in (None, "more rounds took no longer")


def test_peers_compute_the_same_and_who_is_absent_is_named(run: Any) -> None:
    peers = {c["name"]: c["versions"][1:] for c in run.found["cases"]}
    assert all(v["problem"] is None for versions in peers.values() for v in versions)
    assert sum(bool(v) for v in peers.values()) == 8
    assert peers["hmm"][0]["error"] < 1e-5
    assert "absent: Nobody (no module no_such_module)" in run.text
    assert run.found["absent"] == {"Nobody": "no module no_such_module"}


def test_no_time_is_told_as_a_gpus(run: Any) -> None:
    assert run.found["times"] == gpu.EMULATED
    for case in run.found["cases"]:
        for v in case["versions"]:
            assert v["times"] == (gpu.EMULATED if v["name"] == OURS else gpu.ON_CPU)
    assert gpu.EMULATED in run.text.splitlines()
    cells = [
        x.strip(" *") for line in run.text.splitlines() if line[:1] == "|" for x in line.split("|")
    ]
    times = [x for x in cells if x.endswith((" us", " ms", " s")) or " us " in x or " ms " in x]
    assert len(times) > 50
    assert [x for x in times if "emulated" not in x and "CPU" not in x] == []
    (meeting,) = run.found["cases"][0]["notes"]
    assert "a bare meeting of 4 blocks" in meeting and gpu.EMULATED in meeting


def test_a_meeting_is_one_of_all_blocks(run: Any) -> None:
    assert run.found["cases"][0]["scopes"] == "grid"


def test_the_picture_has_something_on_it(run: Any) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib import image

    pixels = image.imread(run.picture)[:, :, :3]
    ours = np.abs(pixels - [0xD1 / 255, 0x49 / 255, 0x5B / 255]).max(axis=2) < 0.02
    assert ours.sum() > 100  # more than the one mark of the legend


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    told = f"no benchmark: device 'cuda' is not here: {no_gpu()}\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, told, "")


@needs_emulator
@pytest.mark.parametrize(
    "options, words",
    [
        ("", "takes --tiny"),
        ("--tiny --case nonsense", "no case has nonsense"),
        ("--tiny --peer Theano", "no peer Theano; there are PyTorch, "),
        ("--tiny --json nowhere/found.json", "no folder nowhere"),
    ],
)
def test_what_makes_no_sense_is_an_error(
    options: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--device=emulated", *options.split()])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@needs_emulator
def test_cases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main("--device emulated --tiny --list --case hmc --case hmm".split()) == 0
    assert [x.split()[0] for x in capsys.readouterr().out.splitlines()] == ["hmc-64", "hmm"]


@needs_emulator
def test_a_peer_that_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(xp: Any, state: Any, z: Any, U: Any) -> Any:
        return (xp.tanh(z - state[0] @ U),)

    monkeypatch.setattr(peer_gpu, "PEERS", ("CuPy",))
    monkeypatch.setitem(peer_gpu.CELLS, "Elman", wrong)
    files = [f"--json={tmp_path / 'a.json'}", f"--picture={tmp_path / 'a.png'}"]
    case = ["--case=elman-6x3-forward"]
    assert gpu.main(["--device=emulated", "--tiny", *case, *files]) == 1
    assert "CuPy: differs from gpuscan: " in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "a.json").read_text())["cases"]
    assert found["versions"][0]["samples"] and not found["versions"][1]["samples"]


@needs_emulator
def test_what_the_memory_does_not_hold_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "free_memory", lambda device: 100)
    row = measured(named("lstm"))
    assert row.ours.problem == "needs about 0 GiB of memory, 0 are free"
    assert not row.ours.samples


@needs_emulator
def test_a_case_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(*given: Any) -> Any:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(gpu_cases.HMM, "loop", loop)
    assert measured(named("hmm")).ours.problem == "RuntimeError: out of luck"


def test_a_first_call_is_given_up_after_a_while() -> None:
    signal = pytest.importorskip("signal")
    before = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, 0)  # what ends a test that takes too long
    try:
        with pytest.raises(TimeoutError, match="given up"), gpu.bounded(0.01):
            time.sleep(5)
        with gpu.bounded(0):
            time.sleep(0.02)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def measured(case: gpu_cases.GpuCase) -> Row:
    return Measurement(select("emulated"), [], 1, False, lambda text: None).row(case)


# ---- cases and peers -----------------------------------------------------------------------------


@needs_emulator
@pytest.mark.parametrize("name", ["lstm-6x3-gradients", "elman-6x3-gradients"])
def test_gradients_are_those_of_numpy(name: str) -> None:
    family = named(name).made()
    ours = family.loop(select("emulated"), "float32")
    expected = peer_numpy.VERSIONS[type(family).__name__](family)()
    assert mismatch(family, ours.host(ours.run(family.steps)), expected) is None


@needs_emulator
@pytest.mark.slow
@pytest.mark.parametrize("peer", ["PyTorch", "PyTorch scan", "JAX", peer_gpu.UNROLLED])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_peers_on_the_cpu_agree(case: gpu_cases.GpuCase, peer: str) -> None:
    try:
        peer_gpu.version_of(peer, False)
    except peer_gpu.Absent as e:
        pytest.skip(str(e))
    family = case.made()
    ours = family.loop(select("emulated"), case.precision)
    n = min(case.lengths)
    expected = ours.host(ours.run(n))
    loop = peer_gpu.version(peer, family, case.precision, False)
    if loop is None:
        return
    found = loop.host(loop.run(n))
    if family.random:
        assert mismatch(family, found, expected) is None
    else:
        assert gpu_cases.difference(found, expected) < gpu_cases.TOLERANCES[case.precision] / 4


def test_all_sizes_are_those_of_the_list() -> None:
    short, everything = (gpu_cases.chosen(of("h100"), x) for x in (False, True))
    for found in (short, everything):
        assert len({c.name for c in found}) == len(found)
    recurrent = [c for c in everything if issubclass(c.family, gpu_cases.Recurrent)]
    assert len(recurrent) == 3 * 8 * 6 * 2 * 4 + len(gpu_cases.MEMORIES)
    assert len(short) < 65
    kinds = {c.family for c in CASES}
    assert {c.family for c in short} == kinds == {c.family for c in everything}


def test_data_of_any_size_are_soon_made() -> None:
    family = gpu_cases.Elman(steps=2, batch=1, inputs=2, hidden=3, gradients=0)
    x = family.normal(5, 1_000_000)
    assert x.dtype == "float32" and x.shape == (5, 1_000_000)
    assert abs(x.std() - 1) < 0.01 and not np.array_equal(x[0], x[4])


def test_results_that_are_not_finite_differ() -> None:
    good = {"h": np.ones(3)}
    assert gpu_cases.difference({"h": np.array([1, np.nan, 1])}, good) == np.inf
    assert gpu_cases.difference({"h": np.ones(4)}, good) == np.inf
    assert gpu_cases.difference({"h": np.array([1, 1.5, 1])}, good) == 0.5


# ---- what bounds a step ------------------------------------------------------------------------


@pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing())
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_each_kernel_alone_is_compiled(architecture: str) -> None:
    for name, source in gpu_micro.SOURCES.items():
        if name.startswith("cluster") and architecture < "sm_90":
            continue
        if name == "grid_sync" and not nvrtc._includes():
            continue  # cooperative groups' header is CUDA's
        taken = nvrtc.compile(source, architecture).resources[name]
        assert not taken.spill_stores and taken.registers < 64


def test_what_was_not_read_as_written_is_an_error() -> None:
    micro = next(m for m in gpu_micro.chosen() if m.kernel == "exchange")
    memory, count, words = np.zeros(2048, "uint32"), 3, 256 * micro.kib
    sums = memory[gpu_micro.LINE + 2 :][:2]
    sums[:] = sum(3 * (i + 1) + k for i in range(count) for k in range(words))
    gpu_micro.check(micro, memory, 2, count)
    sums[1] += 1
    with pytest.raises(RuntimeError, match="something else"):
        gpu_micro.check(micro, memory, 2, count)
    memory[0] = 1
    with pytest.raises(RuntimeError, match="in vain"):
        gpu_micro.check(micro, memory, 2, count)


# ---- times ---------------------------------------------------------------------------------------


def test_an_event_clock_adds_up_milliseconds() -> None:
    times = iter([100.0, 102.0, 107.5])
    clock = gpu.EventClock(lambda: next(times), lambda a, b: b - a)
    assert (clock(), clock()) == (pytest.approx(2e-3), pytest.approx(7.5e-3))


def test_cupys_events_are_waited_for() -> None:
    told: list[str] = []

    class Event:
        def record(self) -> None:
            told.append("record")

        def synchronize(self) -> None:
            told.append("synchronize")

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda a, b: 3.0)
    how, clock = gpu.clock_of(SimpleNamespace(name="cupy", cupy=SimpleNamespace(cuda=cuda)))
    assert "events of CuPy's" in how
    assert clock() == pytest.approx(3e-3)
    assert told == ["record", "synchronize"] * 2


def version(name: str, short: float, long: float, **more: Any) -> Version:
    return Version(name, (100, 300), {100: [short, 9.0, short], 300: [long, long, 0.0]}, **more)


def test_a_step_is_the_slope_of_medians() -> None:
    assert version(OURS, 1.0, 2.0).slope == pytest.approx(1 / 200)
    assert version(OURS, 2.0, 1.0).slope is None
    assert Version(OURS, (100, 300)).slope is None


def rows() -> list[Row]:
    versions = [version(OURS, 1.0, 2.0, first=4.0, peak=2048), version("PyTorch", 1.0, 3.0),
                version("JAX", 1.0, 6.0)]  # fmt: skip
    return [Row(named("lstm"), 1e-6, 2e3, 30.0, versions, 2e-3, "grid")]


def test_on_a_gpu_times_are_bare_and_the_fastest_peer_is_bold() -> None:
    run = {"gpu": {"name": "h100"}, "date": "today", "repeat": 3, "device": "cupy"}
    report = Report(run, ["PyTorch", "JAX"], True)
    head, _, row = report.steps(rows()).splitlines()
    cells = dict(zip(*([c.strip() for c in x.split("|")] for x in (head, row))))
    assert cells["gpuscan"] == "5 ms" and cells["predicted"] == "2 ms"
    assert cells["PyTorch"] == "**10 ms**" and cells["JAX"] == "25 ms"
    assert cells["x"] == "0.50" and cells["floor"] == "1 us"
    assert "| 2 s (4 s)" in report.calls(rows()) and "2 KiB" in report.calls(rows())
    found = report.record(rows())
    assert found["times"] == "of a GPU"
    ratios = [v["gpuscan's step over it"] for v in found["cases"][0]["versions"]]
    assert ratios == [1, pytest.approx(0.5), pytest.approx(0.2)]
    assert json.loads(json.dumps(found))["cases"][0]["best peer"] == "PyTorch"


def test_tf32_has_half_the_rate_of_16_bits() -> None:
    h100 = of("h100")
    assert gpu.rate(h100, "bf16") == gpu.rate(h100, "fp16") == 2 * gpu.rate(h100, "tf32")
    assert gpu.rate(h100, "bf16") == pytest.approx(989e12, rel=0.01)
    assert gpu.rate(h100, "float32") == pytest.approx(62e12, rel=0.02)


def test_what_nvidia_smi_says_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.nvidia_smi() == "no nvidia-smi"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H100, 580.1, P0, 1980 MHz'\n")
    program.chmod(0o755)
    (found,) = gpu.nvidia_smi()
    assert found["name"] == "H100" and found["clocks.sm"] == "1980 MHz"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert "fails" in gpu.nvidia_smi()
