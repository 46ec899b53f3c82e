"""The loop as a value, and Theano's way of writing it."""
