"""A small LSTM trained on characters by all ranks: `character_model.py DTYPE FOLDER`. Each rank
takes its share of the windows of every batch, of which the last has a single one. It writes the
losses and the parameters to FOLDER/RANK.npz."""

import sys
from pydoc_data.topics import topics

import numpy as np

import gpuscan
from gpuscan import tensor as T

HIDDEN, STEPS, BATCH, WINDOWS, EPOCHS = 12, 10, 7, 22, 3  # 7 + 7 + 7 + 1 windows


def windows():
    """Windows of a text as symbols, (WINDOWS, STEPS + 1), and how many symbols there are."""
    text = topics["assert"][: WINDOWS * (STEPS + 1)]
    symbols = {c: i for i, c in enumerate(sorted(set(text)))}
    rows = np.array([symbols[c] for c in text], "int64").reshape(WINDOWS, STEPS + 1)
    return rows, len(symbols)


def model(n_symbols, dtype):
    r = np.random.default_rng(gpuscan.distributed.init().rank)  # broadcast makes them the same
    shapes = {"embed": (n_symbols, 4 * HIDDEN), "W": (HIDDEN, 4 * HIDDEN), "V": (HIDDEN, n_symbols)}
    params = [gpuscan.shared(r.normal(0, 0.3, s).astype(dtype), name) for name, s in shapes.items()]
    embed, W, V = params
    X = T.lmatrix("X")  # (rows, STEPS + 1)

    def step(x, h, c, W):
        gates = x + T.dot(h, W)
        i, f, o = (T.nnet.sigmoid(gates[:, k * HIDDEN : (k + 1) * HIDDEN]) for k in range(3))
        c = f * c + i * T.tanh(gates[:, 3 * HIDDEN :])
        return o * T.tanh(c), c

    start = T.zeros((X.shape[0], HIDDEN), dtype)
    (h, _), _ = gpuscan.scan(
        step, sequences=[embed[X[:, :-1].T]], outputs_info=[start, start], non_sequences=[W]
    )
    logits = T.dot(h, V).reshape((-1, n_symbols))
    targets = X[:, 1:].T.flatten()
    cost = -T.nnet.logsoftmax(logits)[T.arange(targets.shape[0]), targets].mean()
    return X, cost, params


def main(dtype, folder):
    gpuscan.config.floatX = dtype
    comm = gpuscan.distributed.init()
    rows, n_symbols = windows()
    X, cost, params = model(n_symbols, dtype)
    # in one bucket and in several
    cost, *grads = comm.all_reduce(
        [cost, *T.grad(cost, params)], weight=X.shape[0], bucket_mb=0.001
    )
    updates = [(p, p - T.cast(8.0, dtype) * g) for p, g in zip(params, grads)]
    train = gpuscan.function([X], cost, updates=updates)
    comm.broadcast(params)
    losses = []
    for _ in range(EPOCHS):
        for first in range(0, WINDOWS, BATCH):
            batch = rows[first : first + BATCH]
            losses.append(float(train(batch[comm.share(len(batch))])))
    found = {p.name: p.get_value() for p in params}
    np.savez(f"{folder}/{comm.rank}.npz", losses=losses, size=comm.size, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
