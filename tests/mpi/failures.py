"""Two calls by all ranks, between which rank 1 does something else: `failures.py WHAT`."""

import os
import signal
import sys
import threading
import time

import numpy as np

import gpuscan
from gpuscan import tensor as T


def main(what):
    comm = gpuscan.distributed.init(timeout=1 if what == "late" else 60)
    x = T.fvector("x")
    f = gpuscan.function([x], comm.all_reduce(x))
    given = np.ones(3, "f")
    f(given)
    if comm.rank == 1:
        match what:
            case "raise":
                raise RuntimeError("the data of rank 1 is missing")
            case "exit":
                sys.exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "shape":
                given = np.ones(4, "f")
            case "barrier":
                comm.barrier()
            case "late":
                time.sleep(60)
            case "thread":
                threading.Thread(target=lambda: 1 / 0, name="prefetch").start()
                time.sleep(60)
            case "fork":  # a child is no rank, and its end is not the job's
                child = os.fork()
                if not child:
                    try:
                        f(given)
                    except gpuscan.distributed.DistributedError as e:
                        os._exit(42 if "forked" in str(e) else 1)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    f(given)
    print(f"rank {comm.rank} is done, {gpuscan.config.threads} threads\n", end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
