"""The example char_rnn, its streams dealt out over the ranks: `example.py STREAMS FOLDER`. It
writes the losses and the parameters to FOLDER/RANK.npz."""

import sys
from pydoc_data.topics import topics

import numpy as np

import gpuscan
from gpuscan.data import streams, windows
from gpuscan.examples.char_rnn import Model, Training


def main(count, folder):
    comm = gpuscan.distributed.init()
    text = topics["assert"] + topics["pass"]
    letters = sorted(set(text))
    codes = np.array([letters.index(c) for c in text], "int32")
    rows = streams(codes, int(count))
    rows = rows[:, comm.share(rows.shape[1])]
    model = Model(len(letters), hidden=16, embedding=8, seed=comm.rank)
    training = Training(model, rows.shape[1], 0.01, comm)
    comm.broadcast(model.parameters)
    losses = []
    for _ in range(2):
        training.start()
        losses += [float(training.step(part)) for part in windows(rows, 40)]
    found = {p.name: p.get_value() for p in model.parameters}
    np.savez(f"{folder}/{comm.rank}.npz", losses=losses, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
