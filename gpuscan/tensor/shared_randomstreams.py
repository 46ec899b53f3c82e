"""Theano's place for random streams."""

from .random import RandomStreams

__all__ = ["RandomStreams"]
