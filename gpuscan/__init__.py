"""gpuscan: Theano's scan for today's GPUs."""
