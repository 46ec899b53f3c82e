"""The logistic regression example: its posterior, its numbers against NumPy's, its picture."""

import contextlib
import io
import json
import os
import re

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("xarray")
pytest.importorskip("arviz")

import gpuscan
from benchmarks.figures import logistic as numpy_run
from gpuscan import config, mc
from gpuscan import tensor as T
from gpuscan.examples import logistic, logistic_picture
from gpuscan.runtime.device import missing

SHORT = "--chains 4 --draws 400 --tune 200".split()


def run(folder, *arguments):
    """What it prints, run in that folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert logistic.main([*SHORT, *map(str, arguments)]) == 0
    finally:
        os.chdir(before)
    return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """Lines, and the folder with the picture, the draws and the checkpoint."""
    folder = tmp_path_factory.mktemp("logistic")
    return run(folder, "--netcdf", "run.nc", "--checkpoint", "run.npz"), folder


@pytest.fixture(scope="module")
def posterior(short_run):
    import xarray

    with xarray.open_datatree(short_run[1] / "run.nc") as tree:
        assert set(tree.children) == {"posterior", "sample_stats"}
        return tree["posterior"].to_dataset().load()


# ---- the posterior -------------------------------------------------------------------------------


def test_the_log_posterior_is_that_of_numpy_and_so_is_its_gradient():
    data = logistic.read_data()
    other = numpy_run.Posterior(data.x, data.y)
    theta = np.random.default_rng(0).normal(size=(5, 31)) * 2
    intercept, weights = T.dvector(), T.dmatrix()
    logp = logistic.log_posterior(data)(intercept, weights)
    slopes = T.grad(logp.sum(), [intercept, weights])
    found, by_intercept, by_weights = gpuscan.function([intercept, weights], [logp, *slopes])(
        theta[:, 0], theta[:, 1:]
    )
    np.testing.assert_allclose(found, other.logp(theta), rtol=1e-9)
    gradient = other.gradient(theta)
    np.testing.assert_allclose(by_intercept, gradient[:, 0], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(by_weights, gradient[:, 1:], rtol=1e-7, atol=1e-7)


def test_the_data():
    data = logistic.read_data()
    assert data.x.shape == (455, 30) and data.held_out_x.shape == (114, 30)
    np.testing.assert_allclose(data.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x.std(0), 1, atol=1e-5)
    assert data.y.sum() + data.held_out_y.sum() == 212  # malignant, says the data's description
    assert data.x[data.y == 1, 0].mean() > data.x[data.y == 0, 0].mean() + 1  # larger radii


def test_a_short_run_by_numpy_meets_the_stored_figures(monkeypatch):
    import arviz

    data, stored = logistic.read_data(), json.loads(logistic.REFERENCE.read_text())
    monkeypatch.setattr(numpy_run, "DRAWS", 150)
    monkeypatch.setattr(numpy_run, "WARM_UP", 50)
    draws, rate = numpy_run.sample(numpy_run.Posterior(data.x, data.y))
    assert rate == pytest.approx(stored["origin"]["acceptance_rate"], abs=0.02)
    error = arviz.mcse(arviz.convert_to_dataset({"x": draws}), method="mean").x.values
    assert (np.abs(draws.mean((0, 1)) - stored["mean"]) / error).max() < 4.5
    np.testing.assert_allclose(draws.std((0, 1)), stored["sd"], rtol=0.1)
    assert stored["parameters"] == ["intercept", *data.names]


# ---- a run ---------------------------------------------------------------------------------------


def test_it_says_what_it_did(short_run):
    lines = short_run[0]
    assert lines[0] == (
        "455 tumours, 172 of them malignant, 30 measurements each; 114 more are held out"
    )
    words = rf"4 chains of 200 \+ 400 draws in [\d.]+ s, device {config.device}, acceptance rate 0."
    assert re.match(words, lines[1])
    assert lines[2].split() == (
        "mean sd eti_5% eti_95% mcse_mean mcse_sd ess_bulk ess_tail r_hat".split()
    )
    assert [line.split("  ")[0] for line in lines[3:5]] == ["intercept", "weights[mean radius]"]
    assert lines[34].startswith("at least ")
    assert lines[-1] == "wrote run.nc, logistic.png"


def test_posterior_means_are_those_of_the_long_run_by_numpy(short_run, posterior):
    distance, name = logistic.against_reference(logistic.by_name(posterior))
    assert distance < 4.5
    assert (
        f"posterior means within {distance:.1f} standard errors of the long run by NumPy ({name})"
        in short_run[0]
    )


def test_means_that_are_wrong_are_seen(posterior):
    """By a fifth of a standard deviation, of one parameter."""
    draws = logistic.by_name(posterior)
    draws["worst area"] = draws["worst area"] + 0.2 * draws["worst area"].std()
    distance, name = logistic.against_reference(draws)
    assert distance > 5 and name == "worst area"


def test_predictions(short_run, posterior):
    data = logistic.read_data()
    p = logistic.predicted(posterior, data.held_out_x, data.held_out_y)
    weights = posterior.weights.values.reshape(-1, 30).astype("float64")
    logits = weights @ data.held_out_x.T + posterior.intercept.values.reshape(-1, 1)
    malignant = (1 / (1 + np.exp(-logits))).mean(0)
    np.testing.assert_allclose(p, np.where(data.held_out_y == 1, malignant, 1 - malignant))
    right = int((p > 0.5).sum())
    assert right >= 108
    line = f"held out: {right} of 114 predicted right, {-np.log(p).mean():.3f} nats each"
    assert line in short_run[0]


def test_the_picture_is_a_png_with_something_on_it(short_run):
    import matplotlib.image

    assert (short_run[1] / "logistic.png").read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(short_run[1] / "logistic.png")
    assert pixels.shape[0] > 600
    assert pixels[..., :3].std() > 0.1


def test_the_picture_shows_traces_and_ranks_of_what_it_is_given(posterior, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **b: shown.append(figure))
    rows = ["worst texture", "intercept"]
    logistic_picture.write(tmp_path / "x.png", logistic.by_name(posterior), rows)
    (figure,) = shown
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [name for name in rows for _ in range(3)]
    trace = figure.axes[1].get_lines()
    assert len(trace) == 4
    np.testing.assert_allclose(
        sorted(line.get_ydata().sum() for line in trace),
        sorted(posterior.weights.sel(column="worst texture").sum("draw").values), rtol=1e-4,
    )  # fmt: skip


def test_a_finished_run_is_read_from_its_checkpoint(short_run, tmp_path):
    lines = run(tmp_path, "--checkpoint", short_run[1] / "run.npz")
    assert lines[:-1] == short_run[0][:-1]
    assert (tmp_path / "logistic.png").exists()


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--chains 1", "--chains: '1' is not a whole number of at least 2"),
        ("--draws 3", "--draws: '3' is not a whole number of at least 4"),
        ("--tune x", "--tune: 'x' is not a whole number"),
        ("--seed -1", "--seed: '-1' is not a whole number"),
        ("--netcdf x.zarr", "--netcdf: 'x.zarr' does not end in .nc"),
        ("--netcdf no/x.nc", "cannot write no/x.nc: there is no such folder"),
        ("--checkpoint x.zip", "--checkpoint: 'x.zip' does not end in .npz"),
        ("--checkpoint no/x.npz", "there is no folder no"),
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
        code = logistic.main(arguments.split())
    except SystemExit as e:
        code = e.code
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err and captured.err.startswith("logistic: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_files_that_are_there(short_run, capsys, monkeypatch):
    monkeypatch.chdir(short_run[1])
    (short_run[1] / "other.npz").write_text("three blind mice")
    for arguments, words in (
        ("--netcdf run.nc", "cannot write run.nc: it is there already"),
        ("--checkpoint run.npz --seed 5", "of another run: init"),
        ("--checkpoint other.npz", "other.npz"),
    ):
        assert logistic.main([*SHORT, *arguments.split()]) == 2
        captured = capsys.readouterr()
        assert words in captured.err and captured.err.count("\n") == 1
        assert captured.out == ""


def test_ctrl_c_ends_it_with_130(monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(mc, "sample", stopped)
    assert logistic.main([]) == 130
    assert capsys.readouterr().err == "logistic: stopped\n"
