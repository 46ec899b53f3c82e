"""The benchmarks compute the same thing everywhere, and their report renders."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import peers, report
from benchmarks.cases import CASES, LSTM, Case, Chain, Elman, Family, Gibbs, mismatch
from benchmarks.timing import Timing, time_case

TINY = {
    "Gibbs": dict(visible=60, hidden=40, steps=4, batch=30),
    "LSTM": dict(steps=5, batch=3, inputs=4, hidden=6),
    "Elman": dict(steps=5, batch=3, inputs=4, hidden=6),
    "Metropolis": dict(chains=500, steps=6),
    "Chain": dict(steps=2000),
    "AR1": dict(steps=50),
}


def tiny(case: Case) -> Family:
    sizes = dict(TINY[case.family.__name__])
    if "gradients" in case.sizes:
        sizes["gradients"] = case.sizes["gradients"]
    return case.family(**sizes)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gpuscan_and_numpy_agree(case: Case) -> None:
    family = tiny(case)
    version, _ = family.ours("reference")
    assert mismatch(family, version(), peers.versions(family)["NumPy"]()()) is None


@pytest.mark.parametrize("family", [LSTM, Elman])
def test_a_wrong_weight_is_found(family: type[Family]) -> None:
    sizes = dict(TINY[family.__name__], gradients=1)
    right, wrong = family(**sizes), family(**sizes)
    wrong.U[0, 0] += 0.1
    numpy = [peers.versions(f)["NumPy"]()() for f in (right, wrong)]
    assert "apart" in str(mismatch(right, *numpy))


def test_draws_from_another_distribution_are_found() -> None:
    right, wrong = Gibbs(**TINY["Gibbs"]), Gibbs(**TINY["Gibbs"])
    wrong.bvis = wrong.bvis + np.float32(1)
    numpy = [peers.versions(f)["NumPy"]()() for f in (right, wrong)]
    assert "standard errors" in str(mismatch(right, *numpy))


def test_results_that_are_not_finite_are_found() -> None:
    family = Elman(**TINY["Elman"], gradients=0)
    good = {"h": np.ones(3, "float32")}
    assert "finite" in str(mismatch(family, {"h": np.full(3, np.nan, "float32")}, good))


def times(**seconds: float | None) -> list[Timing]:
    return [Timing(n.replace("_", " "), s, [s] if s else []) for n, s in seconds.items()]


def test_the_table_has_a_row_a_case_and_the_ratio_to_the_fastest_peer() -> None:
    case = CASES[-1]
    timings = times(NumPy=4.0, Numba=2.0, gpuscan_native=1.0)
    known = {"NumPy": "2", "Numba": "0.6", "PyTorch": None, "JAX": None}
    text = report.table([(case, Chain(steps=10), timings)], (1e9, 1e9), known)
    head, _, row = text.splitlines()[:3]
    cells = dict(zip(*([c.strip() for c in x.split("|")] for x in (head, row))))
    assert cells["case"] == case.text
    assert cells["x"] == "0.50"
    assert cells["Numba"] == "**2 s (2 s)**"


def test_absent_peers_and_problems_are_named() -> None:
    timings = [*times(NumPy=4.0), Timing("gpuscan native", problem="DeviceError: no compiler")]
    known = {"NumPy": "2", "Numba": None, "PyTorch": None, "JAX": "0.10"}
    text = report.table([(CASES[-1], Chain(steps=10), timings)], (1e9, 1e9), known)
    assert "absent: Numba (no module numba)" in text
    assert "absent: PyTorch (no module torch)" in text
    assert "absent: JAX" not in text
    assert "gpuscan native: DeviceError: no compiler" in text


def test_a_peer_that_cannot_be_imported_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "JAX", ("no_such_module", "peer_jax"))
    assert peers.installed()["JAX"] is None
    assert "JAX" not in peers.versions(Chain(steps=10))


def test_a_version_that_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elman, "ours", lambda self, device: (lambda: {"h": self.g}, Explained()))
    monkeypatch.setitem(peers.PEERS, "PyTorch", ("no_such_module", "peer_torch"))
    monkeypatch.setitem(peers.PEERS, "JAX", ("no_such_module", "peer_jax"))
    case = Case("tiny", "tiny", Elman, dict(TINY["Elman"], gradients=0), 1.0)
    numpy, ours = time_case(case, ["reference"], 1, False, "wall", lambda text: None)
    assert len(numpy.samples) == 1
    assert ours.samples == [] and "differs from NumPy" in str(ours.problem)


class Explained:
    def explain(self) -> str:
        return "nothing"


def test_the_record_is_json_and_the_picture_is_drawn(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    rows = [(CASES[-1], Chain(steps=10), times(NumPy=4.0, gpuscan_native=1.0))]
    found = json.loads(json.dumps(report.record(rows, (1e9, 1e9), {"date": "today"})))
    ours = found["cases"][0]["versions"][1]
    assert (ours["median"], ours["ratio"]) == (1.0, 0.25)
    report.picture(tmp_path / "p.png", rows, "title")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_that_there_is_not_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "surroundings", lambda threads: 1)
    with pytest.raises(SystemExit):
        command.main(["--case", "nonsense"])
    assert "no case has nonsense" in capsys.readouterr().err


def test_the_command_prints_the_table_and_writes_the_record(tmp_path) -> None:
    options = "--case ar1 --quick --repeat 1 --device reference --out".split()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| AR(1) over 10^6 scalars |" in done.stdout
    (case,) = json.loads((tmp_path / "benchmarks.json").read_text())["cases"]
    (ours,) = [v for v in case["versions"] if v["name"] == "gpuscan reference"]
    assert ours["ratio"] > 0


@pytest.mark.parametrize(
    "value, text", [(None, "-"), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.2e-6, "4.2 us")]
)
def test_seconds_read_well(value: float | None, text: str) -> None:
    assert report.seconds(value) == text
