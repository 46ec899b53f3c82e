"""The main job: it learns, draws its picture, and turns bad input down in one line."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from gpuscan import config
from gpuscan.examples import rbm_digits, rbm_picture
from gpuscan.runtime.device import missing


def run(*arguments, cwd):
    command = [sys.executable, "-m", "gpuscan.examples.rbm_digits", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=200)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rbm")
    done = run("--epochs", 12, "--hidden", 48, "--steps", 40, "--chains", 5, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "rbm_digits.png"


def test_it_says_what_it_did(short_run):
    lines = short_run[0].stdout.splitlines()
    words = "1797 images of 8 x 8 pixels, 48 hidden units, device "
    assert lines[0] == words + config.device
    assert lines[1].startswith("12 epochs in ")
    assert lines[2].startswith("40 Gibbs steps of 5 chains in ")
    assert lines[3:] == ["wrote rbm_digits.png"]


def test_the_pseudo_likelihood_rises(short_run):
    words = short_run[0].stdout.splitlines()[1].split()
    assert float(words[-1]) > float(words[-3]) + 2


def test_a_bar_shows_the_pseudo_likelihood(short_run):
    assert "100%" in short_run[0].stderr
    assert "pseudo-likelihood -" in short_run[0].stderr


def test_the_picture_is_a_png_with_something_on_it(short_run):
    import matplotlib.image

    assert short_run[1].read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(short_run[1])
    assert pixels.shape[0] > 600
    assert pixels[..., :3].std() > 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hidden", "0"], "--hidden: '0' is not a whole number above 0"),
        (["--epochs", "many"], "--epochs: 'many' is not a whole number"),
        (["--learning-rate", "-1"], "--learning-rate: '-1' is not a number above 0"),
        (["--seed", "x"], "--seed: 'x' is not a whole number"),
        (["--data", "missing.npz"], "there is no file missing.npz"),
        (["--data", "missing.csv"], "there is no file missing.csv"),
        (["--device", "abacus"], "--device: invalid choice: 'abacus'"),
        (["--device", "cuda"], "device 'cuda' is not available"),
        (["--out", "no/such/folder.png"], "cannot write no/such/folder.png"),
        (["--out", "."], "cannot write ."),
        (["--batch", "2000"], "--batch 2000 is more than the 1797 images"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, words, tmp_path, capsys, monkeypatch):
    if arguments == ["--device", "cuda"] and not missing("cuda"):
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    try:
        code = rbm_digits.main(arguments)
    except SystemExit as e:
        code = e.code
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_bad_input_ends_the_process_with_2(tmp_path):
    done = run("--data", "missing.npz", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "rbm_digits: there is no file missing.npz\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 63)), "an array of 5 x 63, not square images"),
        (np.zeros((0, 64)), "an array of 0 x 64, not square images"),
        (np.full((5, 64), 255.0), "values outside 0 to 16"),
        (np.full((5, 64), np.nan), "values outside 0 to 16"),
    ],
)
def test_a_file_that_holds_no_images(content, words, tmp_path):
    np.savez(tmp_path / "x.npz", content)
    with pytest.raises(rbm_digits.Bad, match=words):
        rbm_digits.read_images(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("name", ["x.npz", "x.csv"])
def test_a_file_of_other_things(name, tmp_path):
    (tmp_path / name).write_text("three blind mice\n")
    with pytest.raises(rbm_digits.Bad, match="is not a table of numbers"):
        rbm_digits.read_images(str(tmp_path / name))


@pytest.mark.parametrize("scale", [1, 16])
def test_images_of_a_file_are_binarised_at_half_their_scale(scale, tmp_path):
    grey = np.linspace(0, 1, 9 * 4).reshape(4, 9)
    np.savetxt(tmp_path / "x.csv", grey * scale, delimiter=",")
    np.savez(tmp_path / "x.npz", (grey * scale).reshape(4, 3, 3))
    for name in ("x.csv", "x.npz"):
        assert np.array_equal(rbm_digits.read_images(str(tmp_path / name)), grey >= 0.5)


def test_the_pseudo_likelihood_is_that_of_its_definition():
    import gpuscan
    from gpuscan import tensor as T

    images = np.random.default_rng(0).integers(0, 2, (7, 9)).astype("float32")
    rbm = rbm_digits.RBM(images, 5, 0)
    rbm.W.set_value(rbm.W.get_value() * 20)
    v = T.fmatrix()
    found = gpuscan.function([v], rbm.pseudo_likelihood(v))(images)
    energy = gpuscan.function([v], rbm.free_energy(v))
    wanted = 0.0
    for i in range(9):
        flipped = images.copy()
        flipped[:, i] = 1 - flipped[:, i]
        wanted += np.mean(-np.logaddexp(0, energy(images) - energy(flipped)))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_tiles_lie_in_reading_order():
    images = np.arange(6.0)[:, None].repeat(4, 1)
    sheet = rbm_picture.tiled(images, 2, 3)
    assert np.array_equal(sheet[1::3, 1::3], [[0, 1, 2], [3, 4, 5]])
    assert np.isnan(sheet[::3]).all()
