"""The Ising example: its lattices, its exact curves, its numbers, and a run that was killed."""

import contextlib
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("xarray")
pytest.importorskip("arviz")
pytest.importorskip("zarr")

import gpuscan
from gpuscan import config, mc
from gpuscan import tensor as T
from gpuscan.examples import ising
from gpuscan.mc import checkpoint
from gpuscan.runtime.device import missing

SHORT = "--size 32 --temperatures 1.8 3.0 --sweeps 1200 --warm-up 100".split()
KILLED = """
import os, signal, sys
from gpuscan import mc
from gpuscan.examples import ising

real = mc.Writer.append

def append(self, chunk):
    real(self, chunk)
    if self.draws.get("posterior", 0) > 500:
        os.kill(os.getpid(), signal.SIGKILL)

mc.Writer.append = append
ising.main(sys.argv[1:])
"""


def run(folder, *arguments):
    """What it prints, run in that folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert ising.main([*SHORT, *map(str, arguments)]) == 0
    finally:
        os.chdir(before)
    return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """Lines, and the folder with the picture and the store."""
    folder = tmp_path_factory.mktemp("ising")
    return run(folder, "--zarr", "run.zarr"), folder


# ---- the lattice and the exact curves ------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 6])
def test_neighbours_are_those_of_the_whole_lattice(size):
    lattices = ising.Lattices(size)
    black, white = np.random.default_rng(0).normal(size=(2, 3, size, size // 2))
    whole = lattices.joined(black, white)
    wanted = sum(np.roll(whole, by, axis) for by in (1, -1) for axis in (1, 2))
    b, w = T.dtensor3(), T.dtensor3()
    found = gpuscan.function(
        [b, w], [lattices.neighbours(w, black=True), lattices.neighbours(b, black=False)]
    )(black, white)
    np.testing.assert_allclose(lattices.joined(*found), wanted, atol=1e-12)
    row, column = np.indices((size, size))
    on_black = lattices.joined(np.ones_like(black), np.zeros_like(white))
    assert np.array_equal(on_black[0], (row + column) % 2 == 0)


def test_magnetisation_and_energy_are_those_of_the_spins():
    lattices = ising.Lattices(8)
    start = lattices.ordered(np.array([2.0, 5.0]))
    with mc.stream(lattices.gibbs(), start, draws=5, tune=0, seed=3) as chains:
        for chunk in chains:
            end = chunk["posterior"].isel(draw=-1)
    spins = lattices.joined(end.black.values, end.white.values)
    assert set(np.unique(spins)) == {-1, 1}
    bonds = sum(spins * np.roll(spins, 1, axis) for axis in (1, 2))
    np.testing.assert_allclose(end.magnetisation, spins.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(end.energy, -bonds.mean((1, 2)), rtol=1e-6)


def test_the_exact_curves():
    # Onsager 1944: at the critical temperature the energy is -sqrt(2)
    t = np.array([0.05, 1e-9 + ising.CRITICAL, 50.0])
    np.testing.assert_allclose(ising.exact_energy(t)[:2], [-2, -(2**0.5)], atol=1e-6)
    assert ising.exact_energy(t)[2] == pytest.approx(-2 / 50, rel=1e-3)  # -2 tanh(1/T) in time
    np.testing.assert_allclose(ising.exact_magnetisation(t), [1, 0, 0])
    # both by their series at low temperatures, in x = exp(-4/T)
    x = np.exp(-4 / 1.0)
    m = 1 - 2 * x**2 - 8 * x**3 - 34 * x**4 - 152 * x**5
    assert ising.exact_magnetisation(np.array(1.0)) == pytest.approx(m, abs=1e-7)
    e = -2 + 8 * x**2 + 24 * x**3 + 72 * x**4
    assert ising.exact_energy(np.array(1.0)) == pytest.approx(e, abs=1e-5)


# ---- a run ---------------------------------------------------------------------------------------


def test_it_says_what_it_did(short_run):
    lines, _ = short_run
    device = "device " + config.device
    assert lines[0] == "2 temperatures from 1.8 to 3, 32 x 32 spins each, " + device
    assert lines[1].split() == "T |m| ± error exact ESS energy ± error exact ESS".split()
    assert "1300 sweeps in " in lines[-2] and lines[-2].endswith(" ns a site")
    assert lines[-1] == "wrote run.zarr and ising.png"


def test_its_numbers_are_right_within_their_errors(short_run):
    import xarray

    with xarray.open_datatree(short_run[1] / "run.zarr") as tree:
        assert set(tree.children) == {"warmup_posterior", "posterior"}
        draws = tree["posterior"].to_dataset().load()
    assert dict(draws.sizes) == {"chain": 2, "draw": 1200}
    found = ising.judged(draws)
    np.testing.assert_array_equal(found.temperatures, [1.8, 3.0])
    exact = {
        "magnetisation": ising.exact_magnetisation(found.temperatures[:1]),  # |m| > 0 above Tc
        "energy": ising.exact_energy(found.temperatures),
    }
    for name, wanted in exact.items():
        value, error = (x[: len(wanted)] for x in found.estimates[name])
        assert (error > 0).all() and (error < 0.01).all()
        assert (np.abs(value - wanted) < 4 * error).all()
    (row,) = [line for line in short_run[0] if line.startswith(" 3.000")]
    assert float(row.split()[6]) == pytest.approx(found.estimates["energy"][0][1], abs=1e-5)


def test_errors_know_of_autocorrelation():
    """Of 200 chains whose draws depend on each other as in x' = 0.9 x + noise."""
    import xarray

    random = np.random.default_rng(1)
    x = np.zeros((200, 1000))
    x[:, 0] = random.normal(size=200) / (1 - 0.9**2) ** 0.5
    for t in range(1, 1000):
        x[:, t] = 0.9 * x[:, t - 1] + random.normal(size=200)
    data = {name: (("chain", "draw"), values) for name, values in
            (("magnetisation", 100 + x), ("energy", x))}  # fmt: skip
    draws = xarray.Dataset(data, {"temperature": ("chain", np.ones(200))})
    found = ising.judged(draws)
    for name, mean in (("magnetisation", 100), ("energy", 0)):
        value, error = found.estimates[name]
        assert np.std((value - mean) / error) == pytest.approx(1, abs=0.2)
    assert np.median(found.independent["energy"]) == pytest.approx(1000 * 0.1 / 1.9, rel=0.2)


def test_the_picture_is_a_png_with_something_on_it(short_run):
    import matplotlib.image

    assert (short_run[1] / "ising.png").read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(short_run[1] / "ising.png")
    assert pixels.shape[0] > 600
    assert pixels[..., :3].std() > 0.1


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(short_run, tmp_path):
    """SIGKILL between a chunk's way into the store and the checkpoint that counts it."""
    import xarray

    arguments = ["--zarr", "killed.zarr", "--checkpoint", "run.npz"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *SHORT, *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    with xarray.open_datatree(tmp_path / "killed.zarr") as tree:
        there = tree["posterior"].sizes["draw"]
    assert 0 < checkpoint.load(tmp_path / "run.npz").point.drawn < there < 1200
    lines = run(tmp_path, *arguments)
    with (
        xarray.open_datatree(short_run[1] / "run.zarr") as whole,
        xarray.open_datatree(tmp_path / "killed.zarr") as found,
    ):
        assert set(found.children) == set(whole.children)
        for group in whole.children:
            xarray.testing.assert_identical(
                found[group].to_dataset().drop_attrs(), whole[group].to_dataset().drop_attrs()
            )
    assert lines[1:4] == short_run[0][1:4]  # the table


def test_a_finished_run_is_looked_at_again_and_made_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(ising, "SAVES", 4)
    arguments = ["--zarr", "run.zarr", "--checkpoint", "run.npz", "--size", 8, "--warm-up", 10]
    first = run(tmp_path, *arguments, "--sweeps", 200)
    again = run(tmp_path, *arguments, "--sweeps", 200)
    assert [line for line in first if " sweeps in " not in line] == again
    longer = run(tmp_path, *arguments, "--sweeps", 300)
    whole = run(tmp_path, *arguments[4:], "--sweeps", 300)
    assert longer[1:4] == whole[1:4]


def test_netcdf(tmp_path):
    import xarray

    assert run(tmp_path, "--size", 8, "--sweeps", 40, "--netcdf", "x.nc")[-1].startswith("wrote x")
    with xarray.open_datatree(tmp_path / "x.nc") as tree:
        assert dict(tree["posterior"].sizes) == {"chain": 2, "draw": 40}
        np.testing.assert_array_equal(tree["posterior"].temperature, [1.8, 3.0])


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--size 7", "--size: '7' is not an even number of at least 4"),
        ("--size 2", "--size: '2' is not an even number of at least 4"),
        ("--temperatures 2 cold", "--temperatures: 'cold' is not a number above 0"),
        ("--temperatures 0", "--temperatures: '0' is not a number above 0"),
        ("--sweeps 0", "--sweeps: '0' is not a whole number above 0"),
        ("--seed -1", "--seed: '-1' is not a whole number"),
        ("--zarr x.nc", "--zarr: 'x.nc' does not end in .zarr"),
        ("--zarr x.zarr --netcdf x.nc", "--netcdf: not allowed with argument --zarr"),
        ("--zarr no/x.zarr", "cannot write no/x.zarr: there is no such folder"),
        ("--checkpoint x.npz", "--checkpoint needs --zarr"),
        ("--zarr x.zarr --checkpoint no/x.npz", "there is no folder no"),
        ("--out no/such/folder.png", "cannot write no/such/folder.png: there is no such folder"),
        ("--out .", "cannot write .: it is a folder"),
        ("--device cuda", "device 'cuda' is not available"),
        ("--colour red", "unrecognized arguments: --colour red"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, words, tmp_path, capsys, monkeypatch):
    if arguments == "--device cuda" and not missing("cuda"):
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    try:
        code = ising.main(arguments.split())
    except SystemExit as e:
        code = e.code
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err and captured.err.startswith("ising: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten_by_another_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ising, "SAVES", 1)
    run(tmp_path, "--size", 8, "--sweeps", 20, "--zarr", "x.zarr", "--checkpoint", "x.npz")
    capsys.readouterr()
    for arguments, words in (
        (["--zarr", "x.zarr"], "cannot write x.zarr: it is there already"),
        (["--zarr", "x.zarr", "--checkpoint", "y.npz"], "x.zarr: it is there already"),
        (["--zarr", "x.zarr", "--checkpoint", "x.npz", "--seed", "1"], "seed is 0 there and 1"),
        (["--zarr", "x.zarr", "--checkpoint", "x.npz", "--temperatures", "2"], "another run"),
    ):
        assert ising.main(["--size", "8", "--temperatures", "1.8", "3.0", "--warm-up", "100",
                           "--sweeps", "20", *arguments]) == 2  # fmt: skip
        captured = capsys.readouterr()
        assert words in captured.err and captured.err.count("\n") == 1
        assert captured.out == ""


def test_ctrl_c_ends_it_with_130(monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(mc, "stream", stopped)
    assert ising.main([]) == 130
    assert capsys.readouterr().err == "ising: stopped\n"
