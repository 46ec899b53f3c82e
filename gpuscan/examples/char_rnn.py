"""An LSTM learns to write: python -m gpuscan.examples.char_rnn

It reads the English that ships with Python, or a text of yours, in many parallel streams, and is
trained to say which character comes next, by backpropagation through windows of its steps with the
state carried over from one to the next. After each epoch it is asked about text that it has not
seen, and writes some of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gpuscan
from gpuscan import optim, saving
from gpuscan import tensor as T
from gpuscan.config import DEVICES
from gpuscan.data import prefetch, streams, windows

from . import char_text
from .arguments import Bad, Parser, above_0, check_writable, natural, number, positive
from .char_text import Text

CLIP = 1.0  # the global norm of the gradients at most
READERS = 8  # streams of the held-out text
READ = 512  # characters of each at a time
SETTINGS = {  # of a model and its training: a checkpoint has them
    "hidden": 256,
    "embedding": 64,
    "dropout": 0.3,
    "batch": 32,
    "window": 64,
    "learning_rate": 0.004,
    "half_life": 6.0,
    "seed": 0,
}


# ---- the model -----------------------------------------------------------------------------------


class Model:
    """An LSTM over characters that are numbers, and a softmax over what comes next."""

    def __init__(
        self, characters: int, hidden: int, embedding: int, dropout: float = 0.0, seed: int = 0
    ) -> None:
        self.characters, self.hidden, self.dropout = characters, hidden, dropout
        self.random = T.shared_randomstreams.RandomStreams(seed)
        rng, bound = np.random.default_rng(seed), hidden**-0.5

        def parameter(name: str, *shape: int) -> Any:
            x = rng.uniform(-bound, bound, shape)
            return gpuscan.shared(x.astype(gpuscan.config.floatX), name)

        self.embedding = parameter("embedding", characters, embedding)
        self.embedding.set_value(self.embedding.get_value() / self.embedding.get_value().std())
        self.cell = [
            parameter("W", embedding, 4 * hidden),
            parameter("U", hidden, 4 * hidden),
            parameter("b", 4 * hidden),
        ]
        self.out = [parameter("out", hidden, characters), parameter("bias", characters)]
        self.parameters = [self.embedding, *self.cell, *self.out]

    def zeros(self, batch: int) -> np.ndarray:
        """A state, h or c (batch, hidden), where nothing was read yet."""
        return np.zeros((batch, self.hidden), gpuscan.config.floatX)

    def one_hot(self, codes: Any) -> Any:
        """Rows (of all codes, characters) with a 1 at the code."""
        return T.extra_ops.to_one_hot(codes.flatten(), self.characters)

    def table(self) -> Any:
        """What each character brings to the gates (characters, 4 hidden): there are fewer
        characters than there are steps to take it in."""
        W, _, b = self.cell
        return T.dot(self.embedding, W) + b

    def lstm(self, x: Any, h: Any, c: Any, U: Any) -> list[Any]:
        """The next h and c, from rows x of the table. The gates are in PyTorch's order."""
        z, n = x + T.dot(h, U), self.hidden
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return [T.sigmoid(o) * T.tanh(c), c]

    def loss(
        self, codes: Any, h: Any, c: Any, *, training: bool = False
    ) -> tuple[Any, list[Any], gpuscan.OrderedUpdates]:
        """Of codes (steps + 1, batch) and the state before them: the mean over steps and batch of
        -log p(the next character), the state after, and the updates of the random numbers.
        training: with dropout."""
        keep = 1 - self.dropout if training else 1.0

        def step(code: Any, h: Any, c: Any, table: Any, U: Any) -> list[Any]:
            h, c = self.lstm(table[code], h, c, U)
            seen = self.random.binomial(h.shape, p=keep, dtype=h.dtype) * h if keep < 1 else h
            return [h, c, seen]

        (hs, cs, seen), updates = gpuscan.scan(
            step, codes[:-1], [h, c, None], [self.table(), self.cell[1]], name="lstm"
        )
        out, bias = self.out
        scores = T.dot(seen.reshape((-1, self.hidden)), out) / keep + bias
        loss = cross_entropy(scores, self.one_hot(codes[1:]))
        return loss.mean(), [hs[-1], cs[-1]], updates


def cross_entropy(scores: Any, one_hot: Any) -> Any:
    """-log softmax(scores) where the one is, of each row; of plain functions, which are fused."""
    x = scores - gpuscan.disconnected_grad(scores.max(axis=1, keepdims=True))
    return T.log(T.exp(x).sum(axis=1)) - (x * one_hot).sum(axis=1)


class Training:
    """A step of training: `step`, a function of codes (steps + 1, batch) that returns the loss and
    updates the parameters, the state of the streams and that of Adam.

    comm: of `gpuscan.distributed`, where the streams are shared out over its processes.
    """

    def __init__(
        self, model: Model, batch: int, learning_rate: Any, comm: Any = None,
        device: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.batch = model, batch
        self.state = [gpuscan.shared(model.zeros(batch), name) for name in ("h", "c")]
        codes = T.imatrix("codes")
        loss, state, updates = model.loss(codes, *self.state, training=True)
        gradients = T.grad(loss, model.parameters)
        if comm is not None:
            loss, *gradients = comm.all_reduce([loss, *gradients], "mean", weight=batch)
        gradients, _ = optim.clip_by_global_norm(gradients, CLIP)
        updates += optim.adam(gradients, model.parameters, learning_rate)
        updates.update(zip(self.state, state))
        self.step = gpuscan.function(
            [codes], loss, updates=updates, name="training step", device=device
        )

    def start(self) -> None:
        """Nothing was read yet."""
        for s in self.state:
            s.set_value(self.model.zeros(self.batch))


class Reader:
    """How well a model says what comes next in a text (codes)."""

    def __init__(self, model: Model, device: str | None = None) -> None:
        self.model = model
        codes, h, c = T.imatrix("codes"), T.matrix("h"), T.matrix("c")
        loss, state, _ = model.loss(codes, h, c)
        self.read = gpuscan.function([codes, h, c], [loss, *state], device=device)

    def bits(self, text: np.ndarray) -> float:
        """The mean of -log2 p(character), over all but the first of each of READERS streams."""
        rows = streams(text, min(READERS, len(text) // 2))
        state: Any = [self.model.zeros(rows.shape[1])] * 2
        total = 0.0
        for codes in windows(rows, READ):
            loss, *state = self.read(codes, *state)
            total += float(loss) * (len(codes) - 1)
        return total / (len(rows) - 1) / math.log(2)


def writer(model: Model, device: str | None = None) -> Any:
    """A function of (the code to begin with, temperature, length): so many codes that the model
    draws, each from what it says of the next after those before it."""
    first, temperature, length = T.iscalar("first"), T.scalar("temperature"), T.iscalar("length")

    def step(last: Any, h: Any, c: Any, table: Any, U: Any, out: Any, bias: Any) -> Any:
        h, c = model.lstm(T.dot(last, table), h, c, U)
        p = T.nnet.softmax((T.dot(h, out) + bias) / temperature)
        return model.random.multinomial(pvals=p, dtype=last.dtype), h, c

    zeros = T.zeros((1, model.hidden))
    (drawn, *_), updates = gpuscan.scan(
        step, None, [model.one_hot(first), zeros, zeros],
        [model.table(), model.cell[1], *model.out], length, name="writer",
    )  # fmt: skip
    return gpuscan.function(
        [first, temperature, length], T.argmax(drawn[:, 0], axis=1), updates=updates, device=device
    )


# ---- checkpoints ---------------------------------------------------------------------------------


class Checkpoint:
    """All that a training is at a moment: the shared variables of its functions, and `made`, with
    how many updates were made, the sum of the losses in this epoch and what came of those before.
    """

    def __init__(self, settings: dict[str, Any], text: Text, functions: list[Any]) -> None:
        shared = dict.fromkeys(v for f in functions for v in f.get_shared())
        self.arrays = optim.states(shared)
        self.fixed = {
            "program": "char_rnn", "settings": settings, "source": text.source,
            "text": text.digest, "characters": text.characters,
        }  # fmt: skip
        self.made: dict[str, Any] = {"updates": 0, "loss": 0.0, "seconds": 0.0, "epochs": []}

    def save(self, path: Path) -> None:
        try:
            saving.save(path, self.arrays, **self.fixed, made=self.made)
        except (OSError, ImportError) as e:
            raise Bad(f"cannot write {path}: {getattr(e, 'strerror', None) or e}") from None

    def load(self, path: Path) -> None:
        try:
            self.made = saving.load(path, into=self.arrays).metadata["made"]
        except ValueError as e:
            raise Bad(f"cannot resume: {e}") from None


def described(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    try:
        found = saving.load(path).metadata
    except FileNotFoundError:
        raise Bad(f"there is no file {path}") from None
    except (ValueError, ImportError) as e:
        raise Bad(f"cannot resume: {e}") from None
    except OSError as e:
        raise Bad(f"cannot read {path}: {e.strerror or e}") from None
    if found.get("program") != "char_rnn" or found.get("settings", {}).keys() != SETTINGS.keys():
        raise Bad(f"{path} is no checkpoint of this char_rnn")
    return found


class Stop(Exception):
    """Ctrl-C was pressed, and nothing is half done."""


@contextlib.contextmanager
def stops() -> Iterator[Callable[[], None]]:
    """Within it the first Ctrl-C does nothing at once: a function tells of it, by raising Stop.
    So a checkpoint is never of the middle of an update. The second Ctrl-C is as always."""
    pressed = False

    def press(*_: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if pressed:
            raise Stop

    if threading.current_thread() is not threading.main_thread():
        yield check  # Ctrl-C is the main thread's
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


# ---- the job -------------------------------------------------------------------------------------


class Job:
    """A training, of a model of these settings on a text."""

    def __init__(self, settings: dict[str, Any], text: Text, device: str | None) -> None:
        self.settings, self.text, self.device = settings, text, device
        self.rows = streams(text.training, settings["batch"])
        self.updates = -(-(len(self.rows) - 1) // settings["window"])  # of an epoch
        names = ("hidden", "embedding", "dropout", "seed")
        self.model = Model(len(text.characters), *(settings[n] for n in names))
        half_life = max(1, round(settings["half_life"] * self.updates))
        rate = optim.exponential_decay(settings["learning_rate"], 0.5, half_life)
        self.training = Training(self.model, settings["batch"], rate, device=device)
        self.reader, self.write = Reader(self.model, device), writer(self.model, device)
        self.checkpoint = Checkpoint(settings, text, [self.training.step, self.write])

    def epoch(self, before: Callable[[], None], after: Callable[[float], None]) -> float:
        """The rest of an epoch; `before` each update may end it, `after` it is given the loss. The
        mean of all losses of the epoch, in bits."""
        made, window = self.checkpoint.made, self.settings["window"]
        done = made["updates"] % self.updates
        if done == 0:
            self.training.start()
        with prefetch(windows(self.rows, window, start=done * window), device=self.device) as found:
            for codes in found:
                before()
                loss = float(self.training.step(codes))
                if not math.isfinite(loss):
                    raise Bad("the loss is not finite: lower --learning-rate")
                made["loss"] += loss * (codes.shape[0] - 1)
                made["updates"] += 1
                after(loss)
        mean, made["loss"] = made["loss"] / (len(self.rows) - 1), 0.0
        return float(mean) / math.log(2)

    def sample(self, temperature: float, length: int) -> str:
        """What the model writes after the end of a line."""
        return self.text.written(self.write(self.text.line_end, temperature, length))


def run(options: argparse.Namespace) -> None:
    try:
        from tqdm import tqdm

        from . import char_picture
    except ImportError as e:
        raise Bad(f"the module {e.name} is missing: pip install 'gpuscan[demo]'") from None
    job = job_of(options)
    text, checkpoint, made = job.text, job.checkpoint, job.checkpoint.made
    total = options.epochs * job.updates
    if made["updates"] >= total:
        raise Bad(f"{options.resume} has {made['updates'] // job.updates} epochs already; --epochs "
                  "says up to which to train")  # fmt: skip
    bigrams, (packed, packer) = text.bigram_bits(), text.compressed_bits()
    size = sum(p.get_value(borrow=True).size for p in job.model.parameters)
    print(
        f"{len(text.content):,} characters of {text.name}, {len(text.characters)} different ones, "
        f"the last {len(text.held_out):,} are held out\n"
        f"an LSTM of {job.model.hidden} units, {size:,} parameters, device "
        f"{job.training.step.device}\n"
        f"bits per character, held out: {bigrams:.2f} by bigrams, {packed:.2f} by {packer}"
    )
    tell(options.log, made["epochs"], "w")
    begun = time.perf_counter() - made["seconds"]
    bar = tqdm(total=total, initial=made["updates"], desc="training", unit="update")
    with stops() as check, bar:

        def after(loss: float) -> None:
            made["seconds"] = time.perf_counter() - begun
            bar.set_postfix_str(f"{loss / math.log(2):.2f} bits per character", refresh=False)
            bar.update()

        try:
            while made["updates"] < total:
                training = job.epoch(check, after)
                made["epochs"].append({
                    "epoch": len(made["epochs"]) + 1,
                    "updates": made["updates"],
                    "training": training,
                    "held_out": job.reader.bits(text.held_out),
                    "sample": job.sample(options.temperature, options.sample),
                    "seconds": round(time.perf_counter() - begun, 1),
                })  # fmt: skip
                tell(options.log, made["epochs"][-1:], "a")
                checkpoint.save(options.save)
                tqdm.write(shown(made["epochs"][-1]), file=sys.stdout)
        except Stop:
            checkpoint.save(options.save)
            raise KeyboardInterrupt(f"stopped, --resume {options.save} goes on") from None
    last = made["epochs"][-1]
    try:
        char_picture.write(options.out, made["epochs"], {"bigrams": bigrams, packer: packed})
    except OSError as e:
        raise Bad(f"cannot write {options.out}: {e.strerror or e}") from None
    print(
        f"{last['epoch']} epochs in {last['seconds']:.0f} s: {last['held_out']:.2f} bits per "
        f"character held out, against {bigrams:.2f} by bigrams and {packed:.2f} by {packer}\n"
        f"wrote {options.save}, {options.log} and {options.out}"
    )


def job_of(options: argparse.Namespace) -> Job:
    """The job that the options ask for, or that they go on with."""
    settings = {n: getattr(options, n) for n in SETTINGS if getattr(options, n) is not None}
    source = options.text
    if options.resume is not None:
        old = described(options.resume)
        for name, value in settings.items():
            if value != old["settings"][name]:
                option = "--" + name.replace("_", "-")
                raise Bad(f"{option} {value}: {options.resume} has {old['settings'][name]}")
        settings, source = old["settings"], source or old["source"]
    settings = {**SETTINGS, **settings}
    text = char_text.read(source)
    if options.resume is not None and text.digest != old["text"]:
        raise Bad(f"{text.name} is not the text that {options.resume} was trained on")
    least = settings["batch"] * (settings["window"] + 1)
    if len(text.training) < least or len(text.held_out) < 2:
        raise Bad(
            f"{text.name} is too short: {len(text.training)} characters to train on, and --batch "
            f"{settings['batch']} --window {settings['window']} take {least}"
        )
    if options.save is None:
        options.save = options.resume or Path("char_rnn.npz")
    check_writable(options.save, options.log, options.out)
    job = Job(settings, text, options.device)
    if options.resume is not None:
        job.checkpoint.load(options.resume)
    return job


def tell(log: Path, epochs: list[dict[str, Any]], mode: str) -> None:
    """Writes a line of JSON an epoch."""
    try:
        with open(log, mode) as file:
            file.writelines(json.dumps(e) + "\n" for e in epochs)
    except OSError as e:
        raise Bad(f"cannot write {log}: {e.strerror or e}") from None


def shown(epoch: dict[str, Any]) -> str:
    """An epoch on the screen."""
    readable = "".join(c if c.isprintable() or c == "\n" else " " for c in epoch["sample"])
    kind = sys.stdout.encoding or "utf-8"
    lines = readable.encode(kind, "replace").decode(kind).strip("\n").splitlines()
    head = f"epoch {epoch['epoch']}: {epoch['held_out']:.3f} bits per character held out"
    return "\n".join([f"{head}, {epoch['training']:.3f} in training", *("    " + x for x in lines)])


# ---- the command line ----------------------------------------------------------------------------


def from_a_hundredth(text: str) -> float:
    if not 0.01 <= (value := number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.01")
    return value


def below_1(text: str) -> float:
    if not 0 <= (value := number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value


def saved(text: str) -> Path:
    if Path(text).suffix not in saving.SUFFIXES:
        words = " or ".join(saving.SUFFIXES)
        raise argparse.ArgumentTypeError(f"{text!r} does not end with {words}")
    return Path(text)


def parser() -> Parser:
    p = Parser(
        "char_rnn", "Train an LSTM to say which character comes next in a text, and let it write."
    )

    def option(name: str, type_: Any, words: str, default: Any = None) -> None:
        value = SETTINGS.get(name.replace("-", "_"), default)
        words += "" if value is None else f" (default: {value})"
        p.add_argument(f"--{name}", type=type_, default=default, help=words)

    option("text", str, "a file, UTF-8, instead of Python's own documentation")
    option("epochs", positive, "passes over the text", 30)
    option("hidden", positive, "units of the LSTM")
    option("embedding", positive, "numbers that stand for a character")
    option("dropout", below_1, "part of the units that the softmax does not see in training")
    option("batch", positive, "streams that the text is cut into")
    option("window", positive, "steps of an update")
    option("learning-rate", above_0, "of Adam, at the start")
    option("half-life", above_0, "epochs in which the learning rate falls by half")
    option("seed", natural, "of all random numbers")
    words = "of the text that it writes: below 1 it is safer, above 1 wilder"
    option("temperature", from_a_hundredth, words, 0.7)
    option("sample", positive, "characters that it writes after an epoch", 300)
    option("save", saved, "the checkpoint (default: char_rnn.npz, or what is resumed)")
    option("resume", saved, "a checkpoint to go on from; its settings are taken")
    option("log", Path, "a line of JSON an epoch", Path("char_rnn.jsonl"))
    option("out", Path, "the learning curve", Path("char_rnn.png"))
    p.add_argument("--device", choices=DEVICES, help="where to run, as in GPUSCAN_FLAGS=device=...")
    return p


def main(arguments: list[str] | None = None) -> int:
    return parser().main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
