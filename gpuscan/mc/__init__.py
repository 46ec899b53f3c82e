"""Monte Carlo chains on the device."""

from .gibbs import gibbs
from .hmc import hmc
from .metropolis import random_walk_metropolis
from .online import Moments
from .output import Writer, to_arviz, write
from .sampling import Stream, sample, stream
from .summary import SamplingWarning, summary

__all__ = [
    "Moments",
    "SamplingWarning",
    "Stream",
    "Writer",
    "gibbs",
    "hmc",
    "random_walk_metropolis",
    "sample",
    "stream",
    "summary",
    "to_arviz",
    "write",
]
