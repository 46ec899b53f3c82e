"""The character model: it learns, says so honestly, goes on where it was stopped, and is the same
on every device."""

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

import gpuscan
from gpuscan import optim, saving
from gpuscan import tensor as T
from gpuscan.data import streams, windows
from gpuscan.distributed import Communicator
from gpuscan.examples import char_picture, char_rnn, char_text
from gpuscan.examples.char_rnn import Model, Reader, Training, cross_entropy, writer
from gpuscan.examples.char_text import Text
from gpuscan.runtime.device import missing

SMALL = "--hidden 24 --embedding 8 --batch 8 --window 20 --sample 60".split()


def command(*arguments):
    return [sys.executable, "-m", "gpuscan.examples.char_rnn", *map(str, arguments)]


def run(*arguments, cwd):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, cwd=cwd, timeout=200)
    assert done.returncode == 0, done.stderr
    return done


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def said(path):
    """What a log says, but for the time that it took."""
    return [{k: v for k, v in e.items() if k != "seconds"} for e in lines(path)]


def same_arrays(one, two):
    one, two = (saving.load(p).arrays for p in (one, two))
    return one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)


@pytest.fixture(scope="module")
def short_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "short.txt"
    path.write_text(char_text.read(None).content[:12_000])
    return path


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, short_text):
    folder = tmp_path_factory.mktemp("char")
    return run("--text", short_text, "--epochs", 3, *SMALL, cwd=folder), folder


# ---- a run ---------------------------------------------------------------------------------------


def test_it_says_what_it_does(short_run, short_text):
    done, folder = short_run
    said = done.stdout.splitlines()
    text = char_text.read(str(short_text))
    assert said[0] == (
        f"12,000 characters of {short_text}, {len(text.characters)} different ones, the last 600 "
        "are held out"
    )
    numbers = len(text.characters) * (8 + 24 + 1) + (8 + 24 + 1) * 4 * 24
    device = gpuscan.config.device
    assert said[1] == f"an LSTM of 24 units, {numbers:,} parameters, device {device}"
    bits, packed = text.bigram_bits(), text.compressed_bits()
    baselines = f"{bits:.2f} by bigrams", f"{packed[0]:.2f} by {packed[1]}"
    assert said[2] == f"bits per character, held out: {', '.join(baselines)}"
    last = lines(folder / "char_rnn.jsonl")[-1]
    assert said[-2].startswith("3 epochs in ")
    assert said[-2].endswith(
        f"s: {last['held_out']:.2f} bits per character held out, against {' and '.join(baselines)}"
    )
    assert said[-1] == "wrote char_rnn.npz, char_rnn.jsonl and char_rnn.png"


def test_it_learns_and_shows_text_every_epoch(short_run, short_text):
    done, folder = short_run
    epochs = lines(folder / "char_rnn.jsonl")
    assert [e["epoch"] for e in epochs] == [1, 2, 3]
    bits = [e["held_out"] for e in epochs]
    assert bits[2] < bits[1] < bits[0] < math.log2(len(char_text.read(str(short_text)).characters))
    for e in epochs:
        assert f"epoch {e['epoch']}: {e['held_out']:.3f} bits per character" in done.stdout
        assert len(e["sample"]) == 60
        word = max(e["sample"].split(), key=len)
        assert word in done.stdout


def test_a_bar_shows_how_far_it_is(short_run):
    assert "100%" in short_run[0].stderr and "bits per character" in short_run[0].stderr


def test_the_picture_has_the_curve_on_it(short_run, tmp_path):
    import matplotlib.image

    path = short_run[1] / "char_rnn.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 400
    epochs = lines(short_run[1] / "char_rnn.jsonl")
    for e in epochs:
        e["held_out"] += 1
    char_picture.write(tmp_path / "other.png", epochs, {"bigrams": 3.0})
    assert not np.array_equal(matplotlib.image.imread(tmp_path / "other.png"), pixels)


@pytest.mark.own_device
def test_pythons_own_text_is_learned_better_than_by_bigrams():
    """In less than a twentieth of the demonstration's updates, of a smaller model."""
    if missing("native"):
        pytest.skip(missing("native"))
    text = char_text.read(None)
    assert len(text.content) > 300_000
    model = Model(len(text.characters), 96, 32)
    training = Training(model, 32, optim.exponential_decay(0.01, 0.5, 150), device="native")
    rows = streams(text.training, 32)
    for codes in itertools.islice(windows(rows, 40), 200):
        training.step(codes)
    assert Reader(model, "native").bits(text.held_out[:8000]) < text.bigram_bits() - 0.3


# ---- going on ------------------------------------------------------------------------------------


def test_what_is_resumed_is_what_was_never_stopped(short_run, short_text, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    first = ["--text", str(short_text), *SMALL, "--epochs", "1", "--save", "first.safetensors"]
    more = ["--resume", "first.safetensors", "--epochs", "3", "--save", "all.npz", "--sample", "60"]
    assert (char_rnn.main(first), char_rnn.main(more)) == (0, 0)
    assert same_arrays(tmp_path / "all.npz", short_run[1] / "char_rnn.npz")
    assert said(tmp_path / "char_rnn.jsonl") == said(short_run[1] / "char_rnn.jsonl")


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as POSIX does")
def test_ctrl_c_saves_and_says_how_to_go_on(short_text, tmp_path):
    options = ["--text", short_text, "--epochs", 1000, *SMALL]
    process = subprocess.Popen(
        command(*options), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until, log = time.monotonic() + 100, tmp_path / "char_rnn.jsonl"
        while not (log.exists() and log.read_text()) and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "char_rnn: stopped, --resume char_rnn.npz goes on"
    assert saving.load(tmp_path / "char_rnn.npz").metadata["made"]["updates"] >= 72


def test_ctrl_c_loses_nothing(short_run, short_text, tmp_path, monkeypatch):
    """Between two epochs and in the middle of one, and gone on with each time."""
    monkeypatch.chdir(tmp_path)
    count, stopped, stops = itertools.count(1), [], char_rnn.stops

    @contextlib.contextmanager
    def pressed():
        with stops() as check:

            def told():
                if next(count) in (73, 140):
                    signal.raise_signal(signal.SIGINT)
                check()

            yield told

    monkeypatch.setattr(char_rnn, "stops", pressed)
    arguments = ["--text", str(short_text), *SMALL]
    while (code := char_rnn.main([*arguments, "--epochs", "3"])) == 130:
        stopped.append(saving.load("char_rnn.npz").metadata["made"]["updates"])
        arguments = ["--resume", "char_rnn.npz", "--sample", "60"]
    assert code == 0
    assert stopped == [72, 138]  # an epoch is 72 updates
    assert same_arrays(tmp_path / "char_rnn.npz", short_run[1] / "char_rnn.npz")
    assert said(tmp_path / "char_rnn.jsonl") == said(short_run[1] / "char_rnn.jsonl")


def test_before_the_training_ctrl_c_is_one_line(tmp_path, monkeypatch, capsys):
    def pressed(_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(char_text, "read", pressed)
    assert char_rnn.main([]) == 130
    assert capsys.readouterr().err == "char_rnn: stopped\n"


# ---- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch, short_run, short_text):
    """A folder with good and bad files; it is the current one."""
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "short": "too short", "empty": "", "latin": b"caf\xe9 au lait" * 500,
        "other": short_text.read_text()[::-1], "zip.npz": b"PK\x03\x04 no zip",
    }.items():  # fmt: skip
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    saving.save("foreign.npz", {"W": np.ones(3)}, program="another")
    arrays, metadata = saving.load(short_run[1] / "char_rnn.npz")
    saving.save("good.npz", arrays, **metadata)
    saving.save("older.npz", arrays, **{**metadata, "settings": {"hidden": 24}})
    saving.save("fewer.npz", {k: x for k, x in arrays.items() if k != "U"}, **metadata)
    saving.save("wider.npz", {**arrays, "U": np.ones((3, 3), "f")}, **metadata)
    Path("folder.npz").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--hidden 0", "--hidden: '0' is not a whole number above 0"),
        ("--epochs many", "--epochs: 'many' is not a whole number above 0"),
        ("--learning-rate -1", "--learning-rate: '-1' is not a number above 0"),
        ("--learning-rate nan", "--learning-rate: 'nan' is not a number above 0"),
        ("--temperature 0", "--temperature: '0' is not a number from 0.01"),
        ("--dropout 1", "--dropout: '1' is not a number from 0 to below 1"),
        ("--seed x", "--seed: 'x' is not a whole number"),
        ("--device abacus", "--device: invalid choice: 'abacus'"),
        ("--device cuda", "device 'cuda' is not available"),
        ("--text missing", "there is no file missing"),
        ("--text .", "cannot read .: Is a directory"),
        ("--text latin", "latin is not UTF-8: invalid continuation byte at byte 3"),
        ("--text empty", "empty is too short: 0 characters to train on"),
        (
            "--text short",
            "short is too short: 9 characters to train on, and --batch 32 --window 64",
        ),
        ("--batch 9000", "pydoc_data.topics is too short"),
        ("--save model.pkl", "--save: 'model.pkl' does not end with .npz or .safetensors"),
        ("--save no/such.npz", "cannot write no/such.npz: there is no such folder"),
        ("--save folder.npz", "cannot write folder.npz: it is a folder"),
        ("--log .", "cannot write .: it is a folder"),
        ("--out no/such.png", "cannot write no/such.png: there is no such folder"),
        ("--resume missing.npz", "there is no file missing.npz"),
        ("--resume short", "--resume: 'short' does not end with .npz or .safetensors"),
        ("--resume folder.npz", "cannot read folder.npz: Is a directory"),
        ("--resume zip.npz", "cannot resume: zip.npz is not a whole .npz"),
        ("--resume foreign.npz", "foreign.npz is no checkpoint of this char_rnn"),
        ("--resume older.npz", "older.npz is no checkpoint of this char_rnn"),
        ("--resume fewer.npz --epochs 4", "cannot resume: fewer.npz has no array 'U'"),
        ("--resume wider.npz --epochs 4", "cannot resume: wider.npz: 'U' is float32 (3, 3), and"),
        ("--resume good.npz --hidden 48", "--hidden 48: good.npz has 24"),
        ("--resume good.npz --half-life 2", "--half-life 2.0: good.npz has 6.0"),
        ("--resume good.npz --text other", "other is not the text that good.npz was trained on"),
        ("--resume good.npz --epochs 3", "good.npz has 3 epochs already; --epochs says"),
        ("--colour red", "unrecognized arguments: --colour red"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(here, capsys, arguments, words):
    if arguments == "--device cuda" and not missing("cuda"):
        pytest.skip("there is a GPU")
    before = sorted(here.rglob("*"))
    try:
        code = char_rnn.main(arguments.split())
    except SystemExit as e:
        code = e.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("char_rnn: ") and captured.err.count("\n") == 1
    assert words in captured.err
    assert sorted(here.rglob("*")) == before


def test_a_model_that_goes_off_is_told_and_not_saved(here, capsys):
    """With a rate that no model stands."""
    arguments = ["--text", "other", *SMALL, "--learning-rate", "1e38", "--epochs", "2"]
    assert char_rnn.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "char_rnn: the loss is not finite: lower --learning-rate"
    )
    assert not Path("char_rnn.npz").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(here, capsys):
    os.symlink("/dev/full", "full")
    assert char_rnn.main(["--text", "other", *SMALL, "--epochs", "1", "--log", "full"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "char_rnn: cannot write full: No space left on device"
    )


# ---- the text and its baselines ------------------------------------------------------------------


def test_the_text_comes_back_from_its_codes():
    text = Text("Ünïcode 𝄞 text\n" * 30)
    assert text.written(np.concatenate([text.training, text.held_out])) == text.content
    assert text.characters == "".join(sorted(set(text.content)))
    assert len(text.held_out) == len(text.content) // 20
    assert text.characters[text.line_end] == "\n"


def test_a_paragraph_of_pythons_text_is_there_once():
    paragraphs = [" ".join(p.split()) for p in char_text.read(None).content.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs) > 1500


def test_a_byte_order_mark_and_line_ends_of_others(tmp_path):
    (tmp_path / "t").write_bytes("\ufeffa\r\nb".encode())
    assert char_text.read(str(tmp_path / "t")).content == "a\nb"


@pytest.mark.parametrize("smoothing", [0.1, 30.0])
def test_bigrams_are_what_their_formula_says(smoothing):
    training, text = np.array([0, 1, 0, 1, 2, 0, 0, 1]), np.array([0, 1, 2, 1, 3])
    bits = 0.0
    for a, b in itertools.pairwise(text):
        of_a = [y for x, y in itertools.pairwise(training) if x == a]
        prior = (sum(training == b) + 1) / (len(training) + 4)
        bits -= math.log2((of_a.count(b) + smoothing * prior) / (len(of_a) + smoothing))
    found = char_text.bigram_bits(training, text, 4, smoothing)
    assert found == pytest.approx(bits / 4, rel=1e-12)


def test_bigrams_are_a_distribution():
    training = np.random.default_rng(0).integers(0, 5, 200)
    for a in range(5):
        each = [char_text.bigram_bits(training, np.array([a, b]), 5, 3.0) for b in range(5)]
        assert sum(2.0**-bits for bits in each) == pytest.approx(1)


def test_baselines_see_nothing_of_the_held_out_part():
    """On text without any order they can't be below its entropy."""
    letters = np.random.default_rng(0).integers(0, 16, 20_000)
    text = Text("".join("abcdefghijklmnop"[k] for k in letters))
    assert 3.99 < text.bigram_bits() < 4.1
    assert 4 < text.compressed_bits()[0] < 4.6


def test_bits_of_a_compressed_text_are_of_the_held_out_part_alone():
    head = "".join(map(chr, np.random.default_rng(1).integers(97, 123, 19_000)))
    seen, new = Text(head + head[:1000]), Text(head + "".join(map(chr, range(200, 1200))))
    assert seen.compressed_bits()[0] < 0.2 < 8 < new.compressed_bits()[0]


# ---- the model -----------------------------------------------------------------------------------


def by_hand(model, codes, h, c):
    """The loss and the state after, in float64."""
    p = {v.name: v.get_value().astype("float64") for v in model.parameters}
    total = 0.0
    for now, then in itertools.pairwise(codes):
        z = p["embedding"][now] @ p["W"] + h @ p["U"] + p["b"]
        i, f, g, o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        scores = h @ p["out"] + p["bias"]
        total -= (scores[range(len(then)), then] - np.log(np.exp(scores).sum(1))).sum()
    return total / (len(codes) - 1) / codes.shape[1], h, c


def test_the_loss_is_its_definition(device):
    model = Model(7, 5, 3, seed=1)
    codes = np.random.default_rng(0).integers(0, 7, (6, 4)).astype("int32")
    h, c = np.random.default_rng(1).standard_normal((2, 4, 5)).astype("f")
    found = Reader(model, device).read(codes, h, c)
    for x, y in zip(found, by_hand(model, codes, h.astype("f8"), c.astype("f8"))):
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-7)


def test_cross_entropy_stands_large_scores(device):
    scores = T.fmatrix("scores")
    loss = cross_entropy(scores, np.eye(3, dtype="f")[[0, 1]])
    f = gpuscan.function([scores], [loss, T.grad(loss.sum(), scores)], device=device)
    found, gradient = f(np.array([[1e4, 0, 0], [1e4, 0, -1e4]], "f"))
    assert list(found) == [0, 1e4]
    assert np.array_equal(gradient, [[0, 0, 0], [1, -1, 0]])


def test_the_state_is_carried_over_from_window_to_window(device):
    """Two windows of ten steps are one of twenty, for what is read."""
    model = Model(7, 5, 3, seed=1)
    codes = np.random.default_rng(0).integers(0, 7, (21, 4)).astype("int32")
    reader, zeros = Reader(model, device), model.zeros(4)
    one, *state = reader.read(codes[:11], zeros, zeros)
    two, *state = reader.read(codes[10:], *state)
    whole, *after = reader.read(codes, zeros, zeros)
    assert (one + two) / 2 == pytest.approx(float(whole), rel=1e-6)
    for x, y in zip(state, after):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    training = Training(model, 4, 0.0, device=device)
    assert [training.step(codes[:11]), training.step(codes[10:])] == pytest.approx(
        [float(one), float(two)]
    )
    for s, x in zip(training.state, state):
        np.testing.assert_allclose(s.get_value(), x, rtol=1e-5, atol=1e-7)
    training.start()
    assert training.step(codes[:11]) == pytest.approx(float(one))


def test_a_batch_that_is_shared_out_is_averaged_with_its_streams_as_weights(device):
    class Two(Communicator):
        """This process, and one with three streams that found no gradients and a loss of 1."""

        def all_reduce(self, x, op="mean", *, weight=None, **_):
            assert op == "mean"
            loss, *gradients = [y * weight / (weight + 3) for y in x]
            return [loss + np.float32(3 / (weight + 3)), *gradients]

    codes = np.random.default_rng(0).integers(0, 7, (11, 5)).astype("int32")
    losses, moved = [], []
    for comm in (None, Communicator(), Two()):
        model = Model(7, 5, 3, seed=1)
        before = [p.get_value() for p in model.parameters]
        training = Training(model, 5, 0.01, comm, device)
        losses.append(float(training.step(codes)))
        memory = optim.states(training.step.get_shared())
        moved.append([memory[f"adam.{p.name}.m"].get_value() for p in model.parameters])
        assert not any(np.array_equal(p.get_value(), x) for p, x in zip(model.parameters, before))
    assert losses[1] == losses[0] and losses[2] == pytest.approx(losses[0] * 5 / 8 + 3 / 8)
    for alone, serial, two in zip(*moved):
        assert np.array_equal(serial, alone)
        np.testing.assert_allclose(two, alone * 5 / 8, rtol=1e-5, atol=1e-9)


def test_dropout_is_of_the_training_alone_and_keeps_the_mean(device):
    model = Model(7, 64, 3, dropout=0.5)
    model.out[0].set_value(model.out[0].get_value() / 10)  # so that the loss is nearly linear
    codes = np.random.default_rng(0).integers(0, 7, (21, 16)).astype("int32")
    training, zeros = Training(model, 16, 0.0, device=device), model.zeros(16)
    exact = float(Reader(model, device).read(codes, zeros, zeros)[0])
    losses = []
    for _ in range(20):
        training.start()
        losses.append(float(training.step(codes)))
    assert len(set(losses)) > 15
    assert abs(np.mean(losses) - exact) < 4 * np.std(losses) / 20**0.5


def test_bits_are_those_of_all_streams(device):
    """Of a model that knows nothing: log2 of how many characters there are."""
    model = Model(8, 5, 3)
    for p in model.out:
        p.set_value(np.zeros_like(p.get_value()))
    reader = Reader(model, device)
    for n in (2, 3, 17, 8 * 600 + 5):
        text = np.random.default_rng(0).integers(0, 8, n).astype("int32")
        assert reader.bits(text) == pytest.approx(3, rel=1e-4)


def test_what_is_written_follows_the_model(device):
    """A model that makes each letter follow the one before it in the alphabet."""
    model, n = Model(6, 12, 6), 6
    model.embedding.set_value(np.eye(n, dtype="f"))
    W, U, b = (np.zeros_like(p.get_value()) for p in model.cell)
    W[:, 24 : 24 + n] = 4 * np.eye(n)  # the cell holds the last character alone
    b[:12], b[12:24], b[36:] = 9, -9, 9
    for p, x in zip(model.cell, (W, U, b)):
        p.set_value(x)
    out = np.zeros((12, n), "f")
    out[range(n), [(k + 1) % n for k in range(n)]] = 30
    model.out[0].set_value(out)
    model.out[1].set_value(np.zeros(n, "f"))
    write = writer(model, device)
    assert device == "reference" or [s.path for s in write.explain().scans] == ["fused"]
    assert list(write(2, 1.0, 8)) == [3, 4, 5, 0, 1, 2, 3, 4]
    hot = write(2, 1000.0, 600)
    counts = np.bincount(hot, minlength=n)
    assert (np.abs(counts - 100) < 60).all()  # at a high temperature anything follows
    assert not np.array_equal(hot, write(2, 1000.0, 600))  # other draws at each call


# ---- the devices agree ---------------------------------------------------------------------------

# Of float32 losses around 2 after twenty updates by Adam, whose first steps are as large for a
# gradient of rounding errors as for any other.
TOLERANCE = 2e-5


def losses(device, steps=20):
    text = char_text.read(None)
    model = Model(len(text.characters), 12, 6, dropout=0.2)
    training = Training(model, 3, optim.exponential_decay(0.01, 0.5, 10), device=device)
    found = []
    for codes in itertools.islice(windows(streams(text.training[3000:9000], 3), 6), steps):
        found.append(float(training.step(codes)))
    plans = [(s.name, s.path) for s in training.step.explain().scans]
    return np.array(found), {p.name: p.get_value() for p in model.parameters}, plans


@pytest.mark.own_device
@pytest.mark.parametrize("other", ["native", "emulated"])
def test_devices_agree_in_the_first_twenty_steps(other):
    if reason := missing(other):
        pytest.skip(reason)
    (expected, p, _), (found, q, plans) = losses("reference"), losses(other)
    assert plans == [("lstm", "fused"), ("grad_of_lstm", "fused")]
    assert len(set(expected)) == 20 and expected[-1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    for name in p:
        assert np.abs(q[name] - p[name]).max() < 100 * TOLERANCE * np.abs(p[name]).max(), name
